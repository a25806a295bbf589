use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::feature::Dated;
use crate::guard::{Guard, ShardKey};
use crate::journey::{Due, Timer};
use crate::limits::{GUARD_SHARDS_MAX, OPEN_OFFERS_MAX};
use crate::offers::OpenOffer;
use crate::recent_event_ids::RecentEventIds;
use crate::sequence_number::Position;
use crate::snapshots::Snapshots;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};
use crate::trigger::{Cause, SeenValue, TriggerId};
use crate::value::Scalar;

const JOURNEY: &str = "
journey: merging
steps:
  - { id: signed_up, on: sign_up }
features:
  clicks: { count: click }
  clicks_1h: { count: click, within: 1h }
  first: { first_seen: any }
  last: { last_seen: any }
  sessions: { sessions: count }
contents: [{ id: a }]
triggers:
  - { id: clicked, on: click, offer: a, slot: top, cooldown: 1h }
  - { id: from_a_step, on: click, offer: a, slot: top }
  - { id: from_an_event, on: click, offer: a, slot: side }
  - { id: third, on: click, when: features.clicks == 3, offer: a, slot: side }
outcomes: { within: 1h, reward: { click: 1, step_completed: 4, bye: { on: leave, reward: -0.5 } } }
";

fn merging() -> Journey {
    let mut journey = journey(JOURNEY);
    journey.rules[0].limit = Some(Limit {
        count: 9,
        per: LimitPer::JourneyVersion,
    });
    for (rule, since) in [(1, Since::Step(0)), (2, Since::Event(None))] {
        journey.rules[rule].moment = Moment::Timer(Timer {
            since,
            reminders: vec![Due::After(MINUTE_MS), Due::After(2 * MINUTE_MS)],
        });
    }
    journey
}

fn some_time() -> impl Strategy<Value = Timestamp> {
    (0i64..6).prop_map(|minute| time(minute * MINUTE_MS))
}

fn put_off() -> impl Strategy<Value = PutOff> {
    (some_time(), 0u32..2, 0u8..3).prop_map(|(until, reminder, number)| PutOff {
        until,
        reminder,
        cause: Cause {
            event_id: format!("e-{number}"),
            event_type: "click".to_owned(),
            at: time(0),
            shard_id: "shardId-000000000000".to_owned(),
            sequence_number: u64::from(number).into(),
        },
        saw: vec![SeenValue {
            name: "features.clicks".to_owned(),
            json: number.to_string(),
        }],
    })
}

fn rule_state() -> impl Strategy<Value = RuleState> {
    (
        0u64..4,
        prop::option::of(some_time()),
        prop::option::of((select(vec![1i64, 2]), 1u64..3)),
        any::<bool>(),
        prop::option::of((some_time(), 0u32..3)),
        prop::option::of(put_off()),
    )
        .prop_map(
            |(fired, last_fired_at, within_limit, holds, timer, put_off)| RuleState {
                fired,
                last_fired_at,
                within_limit: within_limit.map(|(scope, fired)| WithinLimit { scope, fired }),
                holds,
                timer: timer.map(|(since, done)| TimerState { since, done }),
                put_off: put_off.map(Box::new),
            },
        )
}

/// What a profile has besides its history.
#[derive(Clone, Debug)]
struct Rest {
    guard: Vec<(u64, u64)>,
    ids: Vec<u64>,
    rules: Vec<RuleState>,
    offers: Vec<(i64, u32)>,
    membership: Membership,
    timezone: Option<(Timestamp, u8)>,
    aliases: Vec<u64>,
    wake_at: Option<Timestamp>,
    /// The decision, what was rewarded, and whether it was told.
    open_offers: Vec<(u8, u16, bool)>,
}

fn rest() -> impl Strategy<Value = Rest> {
    (
        prop::collection::vec((0u64..6, 0u64..9), 0..6),
        prop::collection::vec(0u64..40, 0..9),
        prop::collection::vec(rule_state(), 4),
        prop::collection::vec((0i64..9, 0u32..3), 0..6),
        (prop::option::of(some_time()), prop::option::of(some_time())),
        prop::option::of((some_time(), 0u8..3)),
        prop::collection::hash_set(10u64..14, 0..2),
        prop::option::of(some_time()),
        // Few decisions, so that some are in several profiles.
        prop::collection::vec((0u8..12, 0u16..8, any::<bool>()), 0..6),
    )
        .prop_map(
            |(guard, ids, rules, offers, (entered_at, left_at), timezone, aliases, wake_at, open_offers)| Rest {
                guard,
                ids,
                rules,
                offers,
                membership: Membership { entered_at, left_at },
                timezone,
                aliases: aliases.into_iter().collect(),
                wake_at,
                open_offers,
            },
        )
}

/// An offer that was rewarded so.
fn open_offer(journey: &Journey, decision: u8, rewarded: u16, told: bool) -> OpenOffer {
    let rewards = journey
        .outcomes
        .iter()
        .flat_map(|outcomes| &outcomes.rewards)
        .enumerate();
    let of_offer = rewards.filter(|(index, _)| rewarded >> index & 1 == 1);
    OpenOffer {
        trigger: TriggerId(u128::from(decision)),
        rule: journey.rules[0].fingerprint,
        content: journey.contents[0].fingerprint,
        decided_at: time(i64::from(decision) * MINUTE_MS),
        since: time(i64::from(decision) * MINUTE_MS),
        until: time(i64::from(decision / 2 + 60) * MINUTE_MS),
        rewarded,
        reward: of_offer.map(|(_, reward)| reward.reward).sum(),
        expired: told && rewarded == 0,
        told: told || rewarded != 0,
        held_out: decision.is_multiple_of(3),
        propensity: 0.5,
        seen: None,
        decided_for: None,
    }
}

/// Up to 20 events of 110 minutes, so that all sessions are kept.
fn profile(journey: &Journey, minutes: &[(i64, bool)], rest: &Rest) -> Profile {
    let mut profile = Profile::new(journey);
    for (number, (minute, clicks)) in minutes.iter().enumerate() {
        let event_type = if *clicks { "click" } else { "sign_up" };
        let event = event("", event_type, time(minute * MINUTE_MS));
        let arrived = arrived(event, 0, number as u64, time(110 * MINUTE_MS));
        crate::fold::apply(journey, journey.dispatch(event_type), &mut profile, &arrived);
    }
    profile.guard = Guard::default();
    for (shard, number) in &rest.guard {
        profile.guard.advance(ShardKey(*shard), position(*number));
    }
    profile.recent_event_ids = RecentEventIds::default();
    for id in &rest.ids {
        if !profile.recent_event_ids.contains(*id) {
            profile.recent_event_ids.remember(*id, journey.dedupe_last);
        }
    }
    profile.rules = rest.rules.clone();
    merge_offers(
        &mut profile.offers,
        &rest
            .offers
            .iter()
            .map(|(minute, rule)| OfferMade {
                at: time(*minute),
                rule: *rule,
                content: 1,
                slot: 1,
            })
            .collect::<Vec<_>>(),
    );
    profile.membership = rest.membership;
    profile.timezone = rest.timezone.map(|(at, number)| Dated {
        at,
        shard: 0,
        value: Scalar::Text(format!("Etc/GMT+{number}")),
    });
    profile.aliases = rest.aliases.clone();
    profile.wake_at = rest.wake_at;
    for (decision, rewarded, told) in &rest.open_offers {
        let open = [open_offer(journey, *decision, *rewarded, *told)];
        offers::merge(journey, &mut profile.open_offers, &open, "");
    }
    profile
}

fn position(number: u64) -> Position {
    Position {
        sequence_number: number.into(),
        sub_sequence_number: 0,
    }
}

/// A profile but for orders that say nothing, and for the names that each merge gives.
fn comparable(profile: &Profile, keys: &[&str]) -> Profile {
    let mut profile = profile.clone();
    profile.guard = Guard::default();
    let mut ids: Vec<u64> = profile.recent_event_ids.hashes().collect();
    ids.sort_unstable();
    profile.recent_event_ids = RecentEventIds::from_hashes(ids);
    profile
        .aliases
        .retain(|alias| !keys.iter().any(|key| alias_hash(key) == *alias));
    profile.aliases.sort_unstable();
    for offer in &mut profile.open_offers {
        offer.decided_for = None;
    }
    // The order makes the chains.
    profile.pointer_depth = 0;
    profile
}

fn merged(journey: &Journey, into: &Profile, from: &Profile, from_key: &str) -> Profile {
    let mut into = into.clone();
    merge_profiles(journey, &mut into, from, from_key);
    into
}

proptest! {
    #[test]
    fn the_order_of_merging_makes_no_difference(
        minutes in prop::collection::vec(prop::collection::vec((0i64..110, any::<bool>()), 0..20), 3),
        rests in prop::collection::vec(rest(), 3),
    ) {
        let journey = merging();
        let all: Vec<Profile> = minutes.iter().zip(&rests).map(|(minutes, rest)| profile(&journey, minutes, rest)).collect();
        let keys = ["a", "b", "c"];
        let of = |index: usize| (&all[index], keys[index]);
        let pairwise = |into: usize, from: usize| merged(&journey, of(into).0, of(from).0, of(from).1);
        prop_assert_eq!(comparable(&pairwise(0, 1), &keys), comparable(&pairwise(1, 0), &keys));
        let one = merged(&journey, &pairwise(0, 1), of(2).0, of(2).1);
        // Without conditions to come in or leave, nobody loses timers, whatever the membership says.
        for other in [
            merged(&journey, of(0).0, &pairwise(1, 2), "b"),
            merged(&journey, &pairwise(0, 2), of(1).0, of(1).1),
            merged(&journey, of(2).0, &pairwise(1, 0), "b"),
        ] {
            prop_assert_eq!(comparable(&one, &keys), comparable(&other, &keys));
        }
    }

    /// P2: what either profile had applied stays applied, under its own lane, and merging twice says nothing new.
    #[test]
    fn p2_a_merge_loses_no_guard_entry_and_no_id(one in rest(), other in rest()) {
        let journey = merging();
        let (one, other) = (profile(&journey, &[], &one), profile(&journey, &[], &other));
        let mut both = merged(&journey, &one, &other, "anonymous:x");
        prop_assert!(both.guard.entries().len() <= GUARD_SHARDS_MAX);
        for (shard, position) in one.guard.entries() {
            prop_assert!(both.guard.covers(*shard, *position));
        }
        for (shard, position) in other.guard.entries() {
            prop_assert!(both.guard.covers(shard.within("anonymous:x"), *position));
        }
        for id in one.recent_event_ids.hashes().chain(other.recent_event_ids.hashes()) {
            prop_assert!(both.recent_event_ids.contains(id));
        }
        let (guard, ids) = (both.guard.clone(), comparable(&both, &[]).recent_event_ids);
        merge_profiles(&journey, &mut both, &other, "anonymous:x");
        let sorted = |guard: &Guard| {
            let mut entries = guard.entries().to_vec();
            entries.sort_unstable();
            entries
        };
        prop_assert_eq!(sorted(&both.guard), sorted(&guard));
        prop_assert_eq!(comparable(&both, &[]).recent_event_ids, ids);
    }
}

#[test]
fn each_part_of_a_rule_merges_by_its_own_rule() {
    let journey = merging();
    let timer = |minute: i64, done: u32| {
        Some(TimerState {
            since: time(minute),
            done,
        })
    };
    for (rule, one, other, expected) in [
        ("from_a_step", timer(5, 0), timer(3, 1), timer(3, 1)),
        ("from_a_step", timer(3, 0), None, timer(3, 0)),
        ("from_an_event", timer(5, 0), timer(3, 1), timer(5, 0)),
        ("from_an_event", timer(5, 0), timer(5, 1), timer(5, 1)),
    ] {
        let index = journey.rules.iter().position(|other| other.id == rule).expect(rule);
        let mut profiles = [one, other].map(|timer| {
            let mut profile = Profile::new(&journey);
            profile.rules[index].timer = timer;
            profile
        });
        let (into, from) = profiles.split_at_mut(1);
        merge_profiles(&journey, &mut into[0], &from[0], "anonymous:x");
        assert_eq!(into[0].rules[index].timer, expected, "{rule} {one:?} {other:?}");
    }

    let present = hash_bytes(journey.version.as_bytes()) as i64;
    let within = |scope: i64, fired: u64| WithinLimit { scope, fired };
    for (one, other, expected) in [
        (within(present, 1), within(present, 2), within(present, 3)),
        (within(present, 1), within(i64::MAX, 2), within(present, 1)),
        (within(i64::MAX, 2), within(present, 1), within(present, 1)),
    ] {
        let limit = journey.rules[0].limit;
        let merged = merged_limit(&journey, limit, one, other, &Sessions::default());
        assert_eq!(merged, expected);
    }
}

#[test]
fn p8_aliases_are_bounded_and_the_latest_stay() {
    let journey = merging();
    let mut profile = Profile::new(&journey);
    for number in 0..2 * ALIASES_MAX {
        remember_alias(&mut profile, &format!("anonymous:{number}"));
    }
    let kept: Vec<u64> = (ALIASES_MAX..2 * ALIASES_MAX)
        .map(|number| alias_hash(&format!("anonymous:{number}")))
        .collect();
    assert_eq!(profile.aliases, kept);
    remember_alias(&mut profile, &format!("anonymous:{ALIASES_MAX}"));
    assert_eq!(profile.aliases.last(), Some(&kept[0]));
    assert_eq!(profile.aliases.len(), ALIASES_MAX);
}

/// Events of a household: whose key, which other key they name, and what becomes of the keys.
/// P8: more than a profile keeps are kept until the next event, which tells of those that leave.
#[test]
fn p8_a_merge_keeps_every_open_offer_until_it_can_be_told() {
    let journey = merging();
    let of = |decisions: std::ops::Range<u8>| {
        let mut profile = Profile::new(&journey);
        profile.open_offers = decisions
            .map(|decision| open_offer(&journey, decision, 0, false))
            .collect();
        profile
    };
    let most = OPEN_OFFERS_MAX as u8;
    let mut both = merged(&journey, &of(0..most), &of(most..2 * most), "other");
    assert_eq!(both.open_offers.len(), 2 * OPEN_OFFERS_MAX);
    let for_other = |offer: &OpenOffer| offer.decided_for.as_deref() == Some("other");
    assert_eq!(
        both.open_offers.iter().filter(|offer| for_other(offer)).count(),
        OPEN_OFFERS_MAX
    );
    let next = arrived(event("e", "sign_up", time(50 * MINUTE_MS)), 0, 1, time(50 * MINUTE_MS));
    let mut outcomes = Vec::new();
    loop {
        let plan = plan_user(&journey, Snapshots::none(), both, [&next]);
        both = plan.profile;
        outcomes.append(&mut both.outcomes);
        if !plan.outcomes.is_empty() {
            break;
        }
    }
    assert_eq!(both.open_offers.len(), OPEN_OFFERS_MAX);
    // It is a step, so it rewards them all, and those that leave too.
    assert_eq!(outcomes.len(), 2 * OPEN_OFFERS_MAX);
    assert!(outcomes.iter().all(|outcome| outcome.rewards == ["step_completed"]));
}

#[test]
fn p2_a_household_merges_once_and_follows_pointers() {
    let journey = merging();
    type Line<'l> = (&'l str, Option<&'l str>, &'l str);
    type Case<'c> = (&'c str, &'c [Line<'c>], &'c [(&'c str, &'c str, u64)]);
    let anonymous = "anonymous:x";
    let cases: &[Case<'_>] = &[
        (
            "anonymous, then known, then anonymous again",
            &[
                (anonymous, None, "1"),
                ("ann", Some(anonymous), "2"),
                (anonymous, None, "3"),
                ("ann", Some(anonymous), "4"),
            ],
            &[(anonymous, "ann", 4), ("ann", "ann", 4)],
        ),
        (
            "a device that two share belongs to the first",
            &[
                (anonymous, None, "1"),
                ("ann", Some(anonymous), "2"),
                ("ben", Some(anonymous), "3"),
                (anonymous, None, "4"),
            ],
            &[("ann", "ann", 3), ("ben", "ben", 1), (anonymous, "ann", 3)],
        ),
        (
            "a chain",
            &[
                ("a", None, "1"),
                ("b", Some("a"), "2"),
                ("c", Some("b"), "3"),
                ("a", None, "4"),
            ],
            &[("a", "c", 4), ("b", "c", 4)],
        ),
        (
            "a circle",
            &[
                ("a", None, "1"),
                ("b", Some("a"), "2"),
                ("a", Some("b"), "3"),
                ("b", None, "4"),
            ],
            &[("a", "b", 4), ("b", "b", 4)],
        ),
        (
            "an id that comes by either key counts once",
            &[(anonymous, None, "1"), ("ann", Some(anonymous), "1")],
            &[("ann", "ann", 1), (anonymous, "ann", 1)],
        ),
    ];
    for (what, lines, expected) in cases {
        let mut household = Household::new();
        for (number, (user, alias, id)) in lines.iter().enumerate() {
            let mut event = event(id, "click", time(0));
            event.user = (*user).into();
            event.alias = alias.map(Into::into);
            // Each comes twice: the second time as a redelivery.
            let arrived = arrived(event, 0, number as u64, time(0));
            household.apply(&journey, Snapshots::none(), &arrived);
            let again = household.apply(&journey, Snapshots::none(), &arrived);
            assert_eq!(
                (again.outcome, again.merged),
                (EventOutcome::Redelivered, false),
                "{what}"
            );
        }
        for (key, user, events) in *expected {
            assert_eq!(household.user_of(key), *user, "{what}: {key}");
            let profile = household.profile(key).expect(what);
            assert_eq!(profile.applied_events, *events, "{what}: {key}");
        }
    }
}

/// What someone did last says where they are, whichever key they did it with; who is out has no timer and nothing put off.
#[test]
fn who_came_in_after_leaving_is_in() {
    let journey = journey(&format!(
        "{JOURNEY}entry: event.type == 'sign_up'\nexit: event.type == 'goodbye'\n"
    ));
    let membership = |entered: Option<i64>, left: Option<i64>| Membership {
        entered_at: entered.map(time),
        left_at: left.map(time),
    };
    for (one, other, expected) in [
        (
            membership(None, Some(1)),
            membership(Some(10), None),
            membership(Some(10), None),
        ),
        (
            membership(Some(0), Some(1)),
            membership(Some(10), None),
            membership(Some(10), None),
        ),
        (
            membership(Some(0), None),
            membership(Some(5), Some(7)),
            membership(Some(5), Some(7)),
        ),
        (
            membership(Some(7), None),
            membership(None, Some(7)),
            membership(Some(7), Some(7)),
        ),
        (
            membership(Some(3), None),
            membership(Some(5), None),
            membership(Some(5), None),
        ),
        (
            membership(None, None),
            membership(None, Some(2)),
            membership(None, Some(2)),
        ),
        (membership(None, None), membership(None, None), membership(None, None)),
    ] {
        for (into, from) in [(one, other), (other, one)] {
            let [mut into, from] = [into, from].map(|membership| {
                let mut profile = Profile::new(&journey);
                profile.membership = membership;
                profile.rules[0].timer = Some(TimerState {
                    since: time(0),
                    done: 0,
                });
                profile
            });
            merge_profiles(&journey, &mut into, &from, "a");
            assert_eq!(into.membership, expected, "{one:?} {other:?}");
            let is_in = expected.entered_at.is_some() && expected.left_at.is_none();
            assert_eq!(into.rules[0].timer.is_some(), is_in, "{one:?} {other:?}");
        }
    }
}

/// P2, P6: a chain of more renames than are followed is cut where it gets too long, and every key's events count once.
#[test]
fn p2_a_chain_of_pointers_stays_short_enough_to_follow() {
    const RENAMES: usize = 12;
    let journey = merging();
    let mut household = Household::new();
    let mut number = 0;
    let mut apply = |household: &mut Household, user: &str, alias: Option<String>| {
        number += 1;
        let mut event = event(&number.to_string(), "click", time(0));
        event.user = user.into();
        event.alias = alias.map(Into::into);
        let arrived = arrived(event, 0, number, time(0));
        let step = household.apply(&journey, Snapshots::none(), &arrived);
        assert_eq!(step.outcome, EventOutcome::Applied, "{user}");
        let again = household.apply(&journey, Snapshots::none(), &arrived);
        assert_eq!(again.outcome, EventOutcome::Redelivered, "{user}");
        step.merged
    };
    let key = |number: usize| format!("u{number}");
    apply(&mut household, &key(0), None);
    let merges: Vec<bool> = (1..=RENAMES)
        .map(|number| apply(&mut household, &key(number), Some(key(number - 1))))
        .collect();
    let expected: Vec<bool> = (1..=RENAMES).map(|number| number != POINTERS_MAX + 1).collect();
    assert_eq!(merges, expected);
    let ends = [(0, 8), (8, 8), (9, 12), (12, 12)];
    for (from, to) in ends {
        assert_eq!(household.user_of(&key(from)), key(to));
        apply(&mut household, &key(from), None);
    }
    let counts: Vec<(String, u64)> = [8, 12]
        .map(|number| {
            (
                key(number),
                household
                    .profile(&key(number))
                    .map_or(0, |profile| profile.applied_events),
            )
        })
        .to_vec();
    // 9 and 4 along the chains, and 2 each.
    assert_eq!(counts, [("u8".to_owned(), 11), ("u12".to_owned(), 6)]);
    let depths = household.profiles().map(|(_, profile)| profile.pointer_depth).max();
    assert_eq!(depths.map(usize::from), Some(POINTERS_MAX));
}

proptest! {
    #[test]
    fn the_order_of_merging_memberships_makes_no_difference(
        times in prop::collection::vec((prop::option::of(some_time()), prop::option::of(some_time())), 3),
    ) {
        let all: Vec<Membership> = times
            .iter()
            .map(|(entered_at, left_at)| Membership { entered_at: *entered_at, left_at: *left_at })
            .collect();
        let [a, b, c] = [all[0], all[1], all[2]];
        prop_assert_eq!(merged_membership(a, b), merged_membership(b, a));
        prop_assert_eq!(
            merged_membership(merged_membership(a, b), c),
            merged_membership(a, merged_membership(b, c))
        );
    }
}
