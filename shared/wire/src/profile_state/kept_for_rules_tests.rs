//! What profiles keep for rules, timers, policy and identity, made up: these tests don't ask how it comes about.

use proptest::prelude::*;
use usher_domain::bandit::context::{Content, Context};
use usher_domain::journey::{Due, Limit, LimitPer, Moment, Outcomes, Reward, RewardOn, Since, Timer, UntilThen};
use usher_domain::limits::{CANDIDATES_SHOWN_MAX, OFFERS_MADE_MAX, OPEN_OFFERS_MAX, REMINDERS_MAX};
use usher_domain::offers::{OpenOffer, Outcome, SeenByLearner};
use usher_domain::profile::{OfferMade, PutOff, RuleState, TimerState, WithinLimit};
use usher_domain::trigger::{Cause, Choice, ChosenFrom, Fallback, PassedOver, Reason, SeenValue, Trigger, TriggerId};

use super::*;

const START_MS: i64 = 1_767_607_200_000;
const JOURNEY: &str = "
journey: kept
steps: [{ id: a, on: click }]
contents: [{ id: c }]
triggers:
  - { id: timer, on: click, offer: c, slot: s }
  - { id: limited, on: click, offer: c, slot: s, limit: 3 }
  - { id: enters, on: click, when: steps.a.done, offer: c, slot: s }
  - { id: plain, on: click, offer: c, slot: s }
";
/// The rewards of its outcomes.
const REWARDS: [&str; 3] = ["click", "bought", "came_back"];

/// A journey with a rule of each kind.
fn journey() -> Journey {
    let mut journey = Journey::parse(JOURNEY).expect("a journey");
    journey.rules[0].moment = Moment::Timer(Timer {
        since: Since::Step(0),
        reminders: vec![Due::After(1000)],
    });
    journey.rules[1].limit = Some(Limit {
        count: 3,
        per: LimitPer::Session,
    });
    let condition = journey.rules[2].when.take().expect("a condition");
    journey.rules[2].moment = Moment::Enters(condition);
    journey.outcomes = Some(Outcomes {
        until_then: UntilThen::Unknown,
        within_ms: 1000,
        rewards: REWARDS.map(reward).into(),
    });
    journey
}

fn reward(name: &str) -> Reward {
    Reward {
        name: name.to_owned(),
        on: RewardOn::Step(None),
        when: None,
        reward: 1.0,
    }
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        // A year around the start, and any time there is.
        (-31_536_000_000i64..31_536_000_000).prop_map(|ms| Timestamp::from_epoch_ms(START_MS + ms)),
        any::<i64>().prop_map(Timestamp::from_epoch_ms),
    ]
}

fn seen() -> impl Strategy<Value = Vec<SeenValue>> {
    let one = ("[a-z.]{0,12}", "[0-9]{1,4}").prop_map(|(name, json)| SeenValue { name, json });
    prop::collection::vec(one, 0..4)
}

fn sequence_number() -> impl Strategy<Value = SequenceNumber> {
    any::<[u64; 3]>().prop_map(SequenceNumber::from_limbs)
}

fn cause() -> impl Strategy<Value = Cause> {
    ("[a-zé:]{1,20}", "[a-z.]{1,12}", time(), sequence_number()).prop_map(|(event_id, event_type, at, number)| Cause {
        event_id,
        event_type,
        at,
        shard_id: "shardId-000000000001".to_owned(),
        sequence_number: number,
    })
}

/// The state of any rule; what a rule of its kind has no use for is taken out below.
fn rule_state() -> impl Strategy<Value = RuleState> {
    let timer = (time(), 0..=REMINDERS_MAX as u32).prop_map(|(since, done)| TimerState { since, done });
    let within = (any::<i64>(), any::<u64>()).prop_map(|(scope, fired)| WithinLimit { scope, fired });
    let put_off =
        (time(), 0..=REMINDERS_MAX as u32, cause(), seen()).prop_map(|(until, reminder, cause, saw)| PutOff {
            until,
            reminder,
            cause,
            saw,
        });
    (
        prop_oneof![Just(0), any::<u64>()],
        prop::option::of(time()),
        prop::option::of(within),
        any::<bool>(),
        prop::option::of(timer),
        prop::option::of(put_off.prop_map(Box::new)),
    )
        .prop_map(
            |(fired, last_fired_at, within_limit, holds, timer, put_off)| RuleState {
                fired,
                last_fired_at,
                within_limit,
                holds,
                timer,
                put_off,
            },
        )
}

fn passed_over() -> impl Strategy<Value = PassedOver> {
    ("[a-z]{1,8}", "[a-z_]{1,12}", "[ -~]{0,40}", seen()).prop_map(|(rule, outcome, detail, saw)| PassedOver {
        rule,
        outcome,
        detail,
        saw,
    })
}

fn units() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(-(1i64 << 30)..(1i64 << 30), 0..32)
}

fn seen_by_learner() -> impl Strategy<Value = SeenByLearner> {
    (any::<u32>(), units(), units(), prop::option::of(any::<u64>())).prop_map(
        |(layout, context, content, model_version)| SeenByLearner {
            layout,
            context: Context::from_units(context),
            content: Content::from_units(content),
            model_version,
        },
    )
}

fn propensity() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), 0.0..1.0]
}

/// An offer of a rule and a content that the journey has.
fn open_offer() -> impl Strategy<Value = OpenOffer> {
    let journey = journey();
    let rules: Vec<u32> = journey.rules.iter().map(|rule| rule.fingerprint).collect();
    let content = journey.contents[0].fingerprint;
    (
        (any::<u128>(), prop::sample::select(rules), 0u16..1 << REWARDS.len()),
        (time(), time(), time()),
        any::<[bool; 3]>(),
        (prop_oneof![Just(0.0), -9.0..9.0], propensity()),
        prop::option::of(seen_by_learner()),
        prop::option::of("[a-z]{1,9}"),
    )
        .prop_map(
            move |(
                (trigger, rule, rewarded),
                (decided_at, since, until),
                [expired, told, held_out],
                (reward, propensity),
                seen,
                decided_for,
            )| OpenOffer {
                trigger: TriggerId(trigger),
                rule,
                content,
                decided_at,
                since,
                until,
                rewarded,
                reward,
                expired,
                told,
                held_out,
                propensity,
                seen,
                decided_for,
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let names = || prop::sample::subsequence(&REWARDS[..], 0..=REWARDS.len());
    (
        (any::<u128>(), any::<u128>(), prop::option::of("[a-z]{1,9}")),
        (names(), names(), -9.0..9.0, prop::option::of(-9.0..9.0)),
        any::<[bool; 2]>(),
        (time(), time(), time()),
        (propensity(), prop::option::of(seen_by_learner()), cause()),
    )
        .prop_map(
            |(
                (id, trigger, decided_for),
                (rewards, so_far, reward, previous_reward),
                [expired, held_out],
                (decided_at, at, made_at),
                (propensity, seen, cause),
            )| Outcome {
                id: TriggerId(id),
                trigger: TriggerId(trigger),
                user: "u1".to_owned(),
                decided_for,
                rule: "timer".to_owned(),
                slot: "s".to_owned(),
                offer: "c".to_owned(),
                rewards: rewards.into_iter().map(str::to_owned).collect(),
                rewards_so_far: so_far.into_iter().map(str::to_owned).collect(),
                reward,
                previous_reward,
                expired,
                held_out,
                decided_at,
                at,
                made_at,
                propensity,
                seen,
                cause,
                journey: "kept".to_owned(),
                journey_version: "1".to_owned(),
            },
        )
}

fn choice() -> impl Strategy<Value = Choice> {
    let fallback = prop::option::of(prop_oneof![Just(Fallback::Missing), Just(Fallback::Unreadable)]);
    let candidate = ("[a-z]{1,8}", 0.0..1.0, -9.0..9.0, 0.0..9.0, seen());
    let candidates = prop::collection::vec(candidate, 1..4);
    (seen_by_learner(), fallback, seen(), candidates, 0usize..300).prop_map(
        |(seen, fallback, context, candidates, left_out)| Choice {
            learner: "linear_thompson".to_owned(),
            fallback,
            seen,
            context,
            candidates: candidates
                .into_iter()
                .map(|(content, probability, mean, spread, features)| ChosenFrom {
                    content,
                    probability,
                    mean,
                    spread,
                    features,
                })
                .collect(),
            candidates_left_out: left_out,
        },
    )
}

fn outbox() -> impl Strategy<Value = Vec<Trigger>> {
    let arms = prop::collection::vec(("[a-z_]{1,8}", "[a-z]{1,8}"), 0..3);
    let passed_over = prop::collection::vec(passed_over(), 0..3);
    let decided = (any::<u128>(), time(), prop::option::of(time()), any::<bool>());
    let chosen = (propensity(), prop::option::of(choice()));
    let trigger = (decided, arms, cause(), seen(), passed_over, chosen).prop_map(
        |((id, decided_at, due_at, held_out), arms, cause, saw, passed_over, (propensity, choice))| Trigger {
            id: TriggerId(id),
            user: "u1".to_owned(),
            rule: "timer".to_owned(),
            slot: "s".to_owned(),
            offer: "c".to_owned(),
            decided_at,
            due_at,
            held_out,
            arms,
            cause,
            journey: "kept".to_owned(),
            journey_version: "1".to_owned(),
            propensity,
            choice: choice.map(Box::new),
            reason: Reason {
                condition: None,
                saw,
                won_over: Vec::new(),
                passed_over,
            },
        },
    );
    prop::collection::vec(trigger, 0..3)
}

fn profile() -> impl Strategy<Value = Profile> {
    let offer = (time(), any::<[u32; 3]>()).prop_map(|(at, [rule, content, slot])| OfferMade {
        at,
        rule,
        content,
        slot,
    });
    let membership = (prop::option::of(time()), prop::option::of(time()));
    let timezone = (time(), any::<u16>(), "[A-Za-z/_]{0,30}").prop_map(|(at, shard, name)| Dated {
        at,
        shard,
        value: Scalar::Text(name),
    });
    (
        time(),
        prop::collection::vec(rule_state(), 4),
        prop::collection::vec(offer, 0..=OFFERS_MADE_MAX),
        membership,
        prop::option::of(timezone),
        prop::collection::vec(any::<u64>(), 0..=ALIASES_MAX),
        (
            outbox(),
            prop::collection::vec(outcome(), 0..3),
            prop::collection::vec(open_offer(), 0..5),
        ),
    )
        .prop_map(
            |(now, mut rules, offers, (entered_at, left_at), timezone, aliases, (outbox, outcomes, open_offers))| {
                for (index, rule) in rules.iter_mut().enumerate() {
                    rule.timer = rule.timer.filter(|_| index == 0);
                    rule.within_limit = rule.within_limit.filter(|_| index == 1);
                    rule.holds &= index == 2;
                }
                Profile {
                    now,
                    rules,
                    offers,
                    membership: Membership { entered_at, left_at },
                    timezone,
                    aliases,
                    outbox,
                    outcomes,
                    open_offers,
                    ..Profile::new(&journey())
                }
            },
        )
}

proptest! {
    #[test]
    fn p4_what_is_kept_for_rules_is_read_back(profile in profile()) {
        let journey = journey();
        let bytes = encode(&profile, &journey);
        prop_assert_eq!(&decode(&bytes, 0, "u1", &journey).expect("just written"), &profile);
        prop_assert_eq!(encode(&profile, &journey), bytes);
    }

    /// A rule that became another kind starts anew, one that is gone is forgotten, and nothing else changes.
    #[test]
    fn what_another_journey_has_no_use_for_is_dropped(profile in profile()) {
        let bytes = encode(&profile, &journey());
        let mut other = Journey::parse(&JOURNEY.replace("limit: 3", "cooldown: 1h").replace("id: plain", "id: new"))
            .expect("a journey");
        other.rules.rotate_left(1);
        let read = decode(&bytes, 0, "u1", &other).expect("a profile");
        for (rule, state) in other.rules.iter().zip(&read.rules) {
            let (timer, within, holds) = (state.timer, state.within_limit, state.holds);
            prop_assert_eq!((timer, within, holds), (None, None, false), "{}", rule.id);
            let known = journey().rules.iter().position(|known| known.id == rule.id);
            let fired = known.map_or(0, |index| profile.rules[index].fired);
            prop_assert_eq!(state.fired, fired, "{}", rule.id);
        }
        prop_assert_eq!(&read.offers, &profile.offers, "they count for caps all the same");
        prop_assert_eq!((&read.outbox, &read.membership, &read.aliases), (&profile.outbox, &profile.membership, &profile.aliases));
        prop_assert_eq!((&read.outcomes, read.open_offers.len()), (&profile.outcomes, 0), "it has no outcomes");

        // The rewards change their places, one is gone, one is new, and so is a rule.
        let mut other = journey();
        other.rules.remove(3);
        other.outcomes = Some(Outcomes { within_ms: 5, until_then: UntilThen::Unknown, rewards: ["came_back", "new", "click"].map(reward).into() });
        let read = decode(&bytes, 0, "u1", &other).expect("a profile");
        let gone = journey().rules[3].fingerprint;
        let kept: Vec<OpenOffer> = profile.open_offers.iter().filter(|offer| offer.rule != gone).cloned().map(|offer| {
            OpenOffer { rewarded: offer.rewarded >> 2 & 1 | (offer.rewarded & 1) << 2, ..offer }
        }).collect();
        prop_assert_eq!(read.open_offers, kept);
    }

    #[test]
    fn p10_damaged_bytes_are_an_error_or_a_profile_within_the_bounds(
        profile in profile(),
        cut in 0usize..3000,
        flips in prop::collection::vec((0usize..3000, any::<u8>()), 1..6),
    ) {
        let journey = journey();
        let bytes = encode(&profile, &journey);
        if cut < bytes.len() {
            prop_assert!(decode(&bytes[..cut], 1, "u1", &journey).is_err(), "cut at {}", cut);
        }
        let mut flipped = bytes;
        for (at, with) in flips {
            let at = at % flipped.len();
            flipped[at] ^= with;
        }
        if let Ok(profile) = decode(&flipped, 1, "u1", &journey) {
            prop_assert!(!encode(&profile, &journey).is_empty());
            prop_assert!(profile.open_offers.len() <= 2 * OPEN_OFFERS_MAX);
            prop_assert!(profile.offers.len() <= OFFERS_MADE_MAX && profile.aliases.len() <= ALIASES_MAX);
            for choice in profile.outbox.iter().filter_map(|trigger| trigger.choice.as_ref()) {
                prop_assert!(choice.candidates.len() <= CANDIDATES_SHOWN_MAX);
            }
        }
    }
}

#[test]
fn p8_more_than_a_profile_keeps_is_cut_to_the_latest() {
    let journey = journey();
    let at = |seconds: usize| Timestamp::from_epoch_ms(START_MS + seconds as i64 * 1000);
    let offers = (0..OFFERS_MADE_MAX + 5).map(|number| OfferMade {
        at: at(number),
        rule: 1,
        content: 2,
        slot: 3,
    });
    let stored = Profile {
        offers: offers.collect(),
        aliases: (0..ALIASES_MAX as u64 + 3).collect(),
        ..Profile::new(&journey)
    };
    let read = decode(&encode(&stored, &journey), 0, "u1", &journey).expect("a profile");
    assert_eq!(read.offers, stored.offers[5..]);
    assert_eq!(read.aliases, stored.aliases[3..]);
}

/// What it costs in bytes of the item, for who designs a journey; what is not used costs nothing.
#[test]
fn p8_what_is_kept_for_rules_is_small() {
    let journey = journey();
    let now = Timestamp::from_epoch_ms(START_MS);
    let hours_ago = |hours: i64| now.minus_ms(hours * 3_600_000);
    let empty = Profile {
        now,
        ..Profile::new(&journey)
    };
    let plain = encode(&empty, &journey).len();
    let cost = |change: &dyn Fn(&mut Profile)| {
        let mut profile = empty.clone();
        change(&mut profile);
        encode(&profile, &journey).len() - plain
    };
    let offers = |count: i64| {
        move |profile: &mut Profile| {
            profile.offers = (0..count)
                .map(|number| OfferMade {
                    at: hours_ago(24 * count - 24 * number),
                    rule: u32::MAX,
                    content: u32::MAX,
                    slot: u32::MAX,
                })
                .collect();
        }
    };
    let timer = |profile: &mut Profile| {
        profile.rules[0].timer = Some(TimerState {
            since: hours_ago(30),
            done: 0,
        });
    };
    let fired = |profile: &mut Profile| {
        profile.rules[1] = RuleState {
            fired: 2,
            last_fired_at: Some(hours_ago(2)),
            within_limit: Some(WithinLimit {
                scope: hours_ago(3).epoch_ms(),
                fired: 2,
            }),
            ..RuleState::default()
        };
    };
    let entered = |profile: &mut Profile| profile.membership.entered_at = Some(hours_ago(500));
    let alias = |profile: &mut Profile| profile.aliases = vec![u64::MAX];
    let timezone = |profile: &mut Profile| {
        profile.timezone = Some(Dated {
            at: hours_ago(1),
            shard: 70,
            value: Scalar::Text("Europe/London".to_owned()),
        });
    };
    let open_offer = |numbers: Option<i64>| {
        let journey = &journey;
        move |profile: &mut Profile| {
            let numbers = numbers.map(|numbers| (0..numbers).map(|number| number * 12_345).collect());
            profile.open_offers = vec![OpenOffer {
                trigger: TriggerId(u128::MAX),
                rule: journey.rules[3].fingerprint,
                content: journey.contents[0].fingerprint,
                decided_at: hours_ago(3),
                since: hours_ago(3),
                until: hours_ago(-21),
                rewarded: 1,
                reward: 1.0,
                expired: false,
                told: true,
                held_out: false,
                propensity: 0.25,
                seen: numbers.map(|numbers| SeenByLearner {
                    layout: u32::MAX,
                    context: Context::from_units(numbers),
                    content: Content::default(),
                    model_version: Some(u64::MAX),
                }),
                decided_for: None,
            }];
        }
    };
    for (what, cost, bytes_max) in [
        ("nothing", cost(&|_| {}), 0),
        ("a running timer", cost(&timer), 15),
        ("a rule with a limit a session", cost(&fired), 23),
        ("an offer", cost(&offers(1)), 23),
        ("ten offers", cost(&offers(10)), 182),
        (
            "as many offers as it keeps",
            cost(&offers(OFFERS_MADE_MAX as i64)),
            1100,
        ),
        ("membership", cost(&entered), 8),
        ("a time zone", cost(&timezone), 30),
        ("an open offer", cost(&open_offer(None)), 80),
        ("one with a context of 32 numbers", cost(&open_offer(Some(32))), 200),
        ("one merged profile", cost(&alias), 12),
    ] {
        println!("{what}: {cost} bytes");
        assert!(cost <= bytes_max, "{what}: {cost}");
    }
}
