use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::event::{ArrivedEvent, Properties, TIMER_EVENT};
use crate::fold::EventOutcome;
use crate::journey::Journey;
use crate::limits::{OPEN_OFFERS_MAX, OUTBOX_TRIGGERS_MAX, OUTCOME_LATE_MS_MAX};
use crate::merge::Household;
use crate::plan::{Stopped, plan_user};
use crate::profile::Profile;
use crate::rules::tests::{record, records};
use crate::snapshots::Snapshots;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};
use crate::timers::next_due;
use crate::trigger::Trigger;

const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Plans batches one after the other, with the outbox sent between plans.
fn run<'b>(
    journey: &Journey,
    mut profile: Profile,
    batches: impl IntoIterator<Item = &'b [ArrivedEvent<'static>]>,
) -> (Profile, Vec<Trigger>, Vec<Outcome>) {
    let (mut triggers, mut outcomes) = (Vec::new(), Vec::new());
    for batch in batches {
        let mut done = 0;
        loop {
            let plan = plan_user(journey, Snapshots::none(), profile, &batch[done..]);
            done += plan.outcomes.len();
            profile = plan.profile;
            assert!(profile.open_offers.len() <= OPEN_OFFERS_MAX);
            triggers.append(&mut profile.outbox);
            outcomes.append(&mut profile.outcomes);
            if done == batch.len() {
                break;
            }
        }
    }
    (profile, triggers, outcomes)
}

/// What was told: `RULE MINUTE+REWARD,.. = SUM`, with what was told before in brackets, and `-` for a window that ran out.
fn told(outcomes: &[Outcome]) -> Vec<String> {
    let minute = |at: Timestamp| at.ms_since(time(0)) / MINUTE_MS;
    let line = |outcome: &Outcome| {
        let rewards = match outcome.expired {
            true => "-".to_owned(),
            false => outcome.rewards.join(","),
        };
        let previous = outcome.previous_reward.map(|previous| format!(" ({previous})"));
        let held = if outcome.held_out { " held" } else { "" };
        format!(
            "{} {} {rewards} = {}{}{held}",
            outcome.rule,
            minute(outcome.at),
            outcome.reward,
            previous.unwrap_or_default()
        )
    };
    outcomes.iter().map(line).collect()
}

const REWARDED: &str = "steps: [{ id: begun, on: begin }, { id: ended, on: end }]
contents: [{ id: c }, { id: d }]
triggers: [{ id: r, on: start, offer: c, slot: s }]
outcomes:
  within: 60m
  reward:
    click: 1
    step_completed: 5
    bought: { on: buy, when: event.properties.x > 10, reward: 3, content: any }
    over: { step: ended, reward: -0.5 }";

#[test]
fn p11_what_is_rewarded_within_the_window_is_told_once() {
    let timer = "contents: [{ id: c }]
triggers: [{ id: r, after: 30m, since: start, offer: c, slot: s }]
outcomes: { within: 60m, reward: { click: 1 } }";
    let own = "contents: [{ id: c }]
triggers: [{ id: r, on: [click, start], offer: c, slot: s }]
outcomes: { within: 60m, reward: { any_click: { on: click, content: any, reward: 1 } } }";
    let held = REWARDED.replace("slot: s", "slot: s, holdout: 100%");
    let quiet = "contents: [{ id: c }]
triggers: [{ id: r, on: start, offer: c, slot: s }]
policy: { quiet_hours: { from: \"00:30\", to: \"02:00\" } }
outcomes: { within: 60m, reward: { click: 1 } }";
    let zero = "contents: [{ id: c }]
triggers: [{ id: r, on: start, choose: [c], slot: s }, { id: o, on: other, offer: c, slot: t }]
outcomes: { within: 60m, until_then: zero, reward: { click: 1 } }";
    let zero_held = zero.replace("slot: s", "slot: s, holdout: 100%");
    let rows: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "nothing at once of what was chosen, and then what comes, but no end of its window",
            zero,
            &["0 start", "5 click content=c", "10 start", "600 wake"],
            &["r 0  = 0", "r 5 click = 1 (0)", "r 10  = 0"],
        ),
        (
            "only at its window's end of what was not chosen",
            zero,
            &["0 other", "600 wake"],
            &["o 60 - = 0"],
        ),
        (
            "and of what nobody is shown",
            &zero_held,
            &["0 start", "600 wake"],
            &["r 60 - = 0 held"],
        ),
        (
            "a click on what was offered",
            REWARDED,
            &["0 start", "5 click content=c", "600 wake"],
            &["r 5 click = 1"],
        ),
        (
            "not on something else, and not before",
            REWARDED,
            &[
                "0 start",
                "5 click content=d",
                "6 click",
                "7 click at=0 content=c",
                "60 wake",
            ],
            &["r 60 - = 0"],
        ),
        (
            "each reward once, whatever comes again",
            REWARDED,
            &[
                "0 start",
                "5 click content=c",
                "6 click content=c",
                "7 begin",
                "8 begin",
                "99 wake",
            ],
            &["r 5 click = 1", "r 7 step_completed = 6 (1)"],
        ),
        (
            "one record for what one event brings",
            REWARDED,
            &["0 start", "7 end", "99 wake"],
            &["r 7 step_completed,over = 4.5"],
        ),
        (
            "where its condition holds",
            REWARDED,
            &["0 start", "1 buy x=3", "2 buy", "3 buy x=11", "99 wake"],
            &["r 3 bought = 3"],
        ),
        (
            "a step that was done before is done already",
            REWARDED,
            &["0 begin", "1 start", "2 begin", "61 wake"],
            &["r 61 - = 0"],
        ),
        (
            "the last moment of the window counts, the next does not",
            REWARDED,
            &["0 start", "60 click content=c", "61 begin at=60+1ms", "99 wake"],
            &["r 60 - = 0", "r 60 click = 1 (0)"],
        ),
        (
            "an event that comes late counts by its own time",
            REWARDED,
            &["0 start", "300 click at=10 content=c", "999 wake"],
            &["r 10 click = 1"],
        ),
        (
            "also after it was told that nothing came",
            REWARDED,
            &[
                "0 start",
                "61 wake",
                "300 click at=10 content=c",
                "301 begin at=11",
                "999 wake",
            ],
            &["r 60 - = 0", "r 10 click = 1 (0)", "r 11 step_completed = 6 (1)"],
        ),
        (
            "but not a day after the window's end",
            REWARDED,
            &["0 start", "61 wake", "1500 click at=10 content=c", "1501 begin at=11"],
            &["r 60 - = 0", "r 10 click = 1 (0)"],
        ),
        (
            "whether or not it was told before",
            REWARDED,
            &["0 start", "1501 begin at=11", "1502 view"],
            &["r 60 - = 0"],
        ),
        (
            "the window's end is told by whoever comes, as of then",
            REWARDED,
            &["0 start", "700 view"],
            &["r 60 - = 0"],
        ),
        (
            "who is held out is told apart, so that the others can be compared with them",
            &held,
            &["0 start", "5 click content=c", "70 start", "200 wake"],
            &["r 5 click = 1 held", "r 130 - = 0 held"],
        ),
        (
            "an event counts for every open offer",
            REWARDED,
            &["0 start", "10 start", "20 begin", "200 wake"],
            &["r 20 step_completed = 5", "r 20 step_completed = 5"],
        ),
        (
            "an event is no outcome of the offer that it causes, but of those before",
            own,
            &["0 click", "5 click", "6 start", "7 click", "200 wake"],
            &[
                "r 5 any_click = 1",
                "r 7 any_click = 1",
                "r 7 any_click = 1",
                "r 67 - = 0",
            ],
        ),
        (
            "an offer that time makes opens as of when it was due",
            timer,
            &["0 start", "200 click content=c at=89", "999 wake"],
            &["r 89 click = 1"],
        ),
        (
            "and ends so",
            timer,
            &["0 start", "40 wake", "91 click content=c", "999 wake"],
            &["r 90 - = 0"],
        ),
        (
            "one that was put off opens when it is made",
            quiet,
            &["40 start", "50 click content=c", "130 click content=c", "999 wake"],
            &["r 130 click = 1"],
        ),
    ];
    for (what, text, lines, expected) in rows {
        let journey = journey(&format!("journey: j\n{text}\n"));
        let records = records(lines);
        let (profile, _, outcomes) = run(&journey, Profile::new(&journey), records.chunks(1));
        assert_eq!(told(&outcomes), *expected, "{what}");
        assert_eq!(
            next_expiry(&profile).is_some(),
            next_due(&journey, &profile).is_some(),
            "{what}"
        );
    }
}

/// P7, P12: nobody need come by for a window to run out.
#[test]
fn p12_the_user_is_woken_when_a_window_runs_out() {
    let journey = journey(&format!("journey: j\n{REWARDED}\n"));
    let after = |lines: &[&str]| {
        let (profile, ..) = run(&journey, Profile::new(&journey), records(lines).chunks(1));
        assert_eq!(profile.wake_at, next_due(&journey, &profile), "{lines:?}");
        profile.wake_at.map(|at| at.ms_since(time(0)) / MINUTE_MS)
    };
    assert_eq!(after(&["0 view"]), None);
    assert_eq!(after(&["0 start"]), Some(60));
    assert_eq!(after(&["0 start", "20 start"]), Some(60));
    assert_eq!(after(&["0 start", "20 start", "60 wake"]), Some(80));
    assert_eq!(
        after(&["0 start", "20 start", "30 begin"]),
        None,
        "both came to something"
    );
    assert_eq!(after(&["0 start", "20 start", "80 wake"]), None);
    // Who is woken too early, or twice, changes nothing.
    let (before, ..) = run(&journey, Profile::new(&journey), records(&["0 start"]).chunks(1));
    let early = plan_user(&journey, Snapshots::none(), before.clone(), [&record(9, "59 wake")]);
    assert!(!early.changed);
    assert_eq!(
        (early.profile.outcomes, early.profile.open_offers),
        (before.outcomes, before.open_offers)
    );
}

#[test]
fn an_outcome_says_what_was_decided_and_what_brought_it() {
    let journey = journey(&format!("journey: j\n{REWARDED}\n"));
    let records = records(&["0 start", "5 click content=c", "20 start", "100 wake"]);
    let (profile, triggers, outcomes) = run(&journey, Profile::new(&journey), records.chunks(1));
    let [clicked, ran_out] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    let facts = (
        &clicked.trigger,
        clicked.user.as_str(),
        clicked.offer.as_str(),
        clicked.slot.as_str(),
    );
    assert_eq!(facts, (&triggers[0].id, "u", "c", "s"));
    assert_eq!(
        (clicked.propensity, &clicked.seen, clicked.decided_at),
        (1.0, &None, time(0))
    );
    assert_eq!(
        (clicked.cause.event_id.as_str(), clicked.made_at),
        ("e2", time(5 * MINUTE_MS))
    );
    assert_eq!(clicked.rewards_so_far, ["click"]);
    assert_eq!(
        (clicked.journey.as_str(), &clicked.journey_version),
        ("j", &journey.version)
    );
    assert_eq!(ran_out.cause.event_id, format!("timer:{}", time(80 * MINUTE_MS)));
    assert_eq!(
        (ran_out.cause.event_type.as_str(), ran_out.cause.sequence_number),
        (TIMER_EVENT, 4.into())
    );
    assert_eq!(
        (ran_out.at, ran_out.made_at),
        (time(80 * MINUTE_MS), time(100 * MINUTE_MS))
    );
    assert!(ran_out.expired && ran_out.rewards_so_far.is_empty());
    // P5: the ids follow from what is told, and each is another.
    let ids: BTreeSet<TriggerId> = outcomes.iter().map(|outcome| outcome.id).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(profile.open_offers.len(), 2, "both are kept for what comes late");
}

/// P8: the one whose window ends first leaves, and that is told.
#[test]
fn p8_offers_beyond_the_bound_are_settled() {
    let journey = journey(&format!("journey: j\n{REWARDED}\n"));
    let lines: Vec<String> = (0..OPEN_OFFERS_MAX + 3)
        .map(|minute| format!("{minute} start"))
        .collect();
    let lines: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .chain(["50 begin", "500 wake"])
        .collect();
    let (profile, triggers, outcomes) = run(&journey, Profile::new(&journey), records(&lines).chunks(1));
    assert_eq!(profile.open_offers.len(), OPEN_OFFERS_MAX);
    let expected: Vec<String> = (16..19).map(|minute| format!("r {minute} - = 0")).collect();
    assert_eq!(told(&outcomes[..3]), expected, "as of when the new ones came");
    let told_of: Vec<TriggerId> = outcomes.iter().map(|outcome| outcome.trigger).collect();
    let made: Vec<TriggerId> = triggers.iter().map(|trigger| trigger.id).collect();
    assert_eq!(told_of, made);
    assert!(
        outcomes[3..]
            .iter()
            .all(|outcome| outcome.rewards == ["step_completed"])
    );
}

/// P8: triggers and outcomes share the room of the outbox.
#[test]
fn p8_planning_stops_when_the_outbox_may_not_hold_the_outcomes() {
    let journey = journey(&format!("journey: j\n{REWARDED}\n"));
    let mut lines: Vec<String> = (0..10).map(|minute| format!("{minute} start")).collect();
    lines.extend((10..40).map(|minute| format!("{minute} click content=c")));
    lines.extend((40..45).map(|minute| format!("{minute} start")));
    lines.push("45 begin".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let history = records(&lines);
    let mut profile = Profile::new(&journey);
    let (mut done, mut stops, mut sent) = (0, 0, 0);
    while done < history.len() {
        let plan = plan_user(&journey, Snapshots::none(), profile, &history[done..]);
        done += plan.outcomes.len();
        stops += usize::from(plan.stopped == Some(Stopped::OutboxIsFull));
        profile = plan.profile;
        let held = profile.outbox.len() + profile.outcomes.len();
        assert!(held <= OUTBOX_TRIGGERS_MAX, "{held}");
        sent += held;
        profile.outbox.clear();
        profile.outcomes.clear();
    }
    assert!(stops >= 1);
    // 15 decisions, a click and a step on ten of the offers, a step on the five others.
    assert_eq!(sent, 15 + 10 + 15);
}

/// Nothing but events makes offers here, so it can be told by hand what must come of each.
static BY_EVENTS: LazyLock<Journey> = LazyLock::new(|| {
    journey(
        r#"
journey: by-events
steps: [{ id: big, on: [view, buy], when: event.properties.x > 3 }, { id: bought, on: buy }]
contents: [{ id: c }, { id: d }]
triggers:
  - { id: clicked, on: click, offer: c, slot: a, cooldown: 2h }
  - { id: viewed, on: view, when: event.properties.x >= 1, offer: d, slot: b, cooldown: 1h }
  - { id: anything, on: any, when: event.properties.x == 2, offer: c, slot: s, holdout: 50% }
outcomes:
  within: 5h
  reward:
    click: 1
    step_completed: 4
    bought: { on: buy, when: event.properties.x >= 2, reward: 0.5, content: any }
    big: { step: big, reward: -2 }
"#,
    )
});

/// Time makes offers here, and takes some back.
static BY_TIME: LazyLock<Journey> = LazyLock::new(|| {
    journey(
        r#"
journey: by-time
steps: [{ id: clicked, on: click }, { id: viewed, on: view, when: event.properties.x > 2 }]
features: { clicks_1h: { count: click, within: 1h } }
contents: [{ id: c }, { id: d }]
policy: { quiet_hours: { from: "01:00", to: "03:30", slots: [q] } }
triggers:
  - { id: stalled, after: [15m, 1h, 3h], since: steps.clicked, unless: steps.viewed.done, offer: [c, d, c], slot: s }
  - { id: gone, after: 40m, since: any, offer: d, slot: t, priority: 2 }
  - { id: cold, leaves: features.clicks_1h >= 1, offer: c, slot: u }
  - { id: event, on: click, offer: c, slot: q }
outcomes:
  within: 50m
  reward: { click: 1, step_completed: 4, seen: { on: view, content: any, reward: 2 } }
"#,
    )
});

/// An event of a random history: seconds since the one before, type, how late it arrives in seconds, `x`, content, id of few.
type Drawn = (i64, u8, i64, i64, u8, u16);

fn drawn(count: usize) -> impl Strategy<Value = Vec<Drawn>> {
    let seconds = prop_oneof![4 => 0i64..900, 3 => 0i64..6000, 1 => 0i64..50_000];
    let late = prop_oneof![6 => Just(0i64), 3 => 0i64..20_000, 1 => 0i64..200_000];
    prop::collection::vec((seconds, 0u8..8, late, 0i64..5, 0u8..3, 0u16..200), 0..count)
}

fn drawn_event(drawn: &Drawn, id: &str, now_s: i64, late_s: i64) -> Event {
    let (_, kind, _, x, content, _) = *drawn;
    let event_type = ["click", "click", "click", "view", "view", "view", "buy", "other"][usize::from(kind)];
    let mut event = event(id, event_type, time((now_s - late_s).max(0) * 1000));
    event.content_id = ["c", "d"].get(usize::from(content)).map(|id| (*id).into());
    event.properties = Properties {
        object: Some(format!("{{\"x\":{x}}}").leak()),
        unknown: Vec::new(),
    };
    event
}

type Event = crate::event::Event<'static>;

fn history(drawn: &[Drawn], in_order: bool) -> Vec<ArrivedEvent<'static>> {
    let mut now_s = 0;
    let numbered = drawn.iter().enumerate();
    let events = numbered.map(|(index, one)| {
        now_s += one.0;
        let (late_s, id) = match in_order {
            true => (0, format!("e{index}")),
            // Some ids come again.
            false => (one.2, format!("e{}", one.5)),
        };
        arrived(
            drawn_event(one, &id, now_s, late_s),
            0,
            index as u64 * 10 + 10,
            time(now_s * 1000),
        )
    });
    events.collect()
}

/// A record that wakes the user long after everything.
fn last_wake() -> ArrivedEvent<'static> {
    arrived(
        event("last", TIMER_EVENT, time(0)),
        0,
        1_000_000,
        time(900 * 24 * HOUR_MS),
    )
}

/// With timer events put in after some records, so many seconds later; but none that would come after the next record.
fn woken(history: &[ArrivedEvent<'static>], wakes: &[(usize, i64)]) -> Vec<ArrivedEvent<'static>> {
    let mut records = Vec::new();
    for (index, record) in history.iter().enumerate() {
        records.push(record.clone());
        for (number, (after, later_s)) in wakes.iter().enumerate() {
            let at = record.arrived_at.plus_ms(later_s * 1000);
            let next = history.get(index + 1).map(|next| next.arrived_at);
            if after % history.len() == index && next.is_none_or(|next| at <= next) {
                records.push(arrived(event(&format!("w{number}"), TIMER_EVENT, time(0)), 0, 0, at));
            }
        }
    }
    records[history.len().min(1)..].sort_by_key(|record| record.arrived_at);
    records.push(last_wake());
    for (number, record) in records.iter_mut().enumerate() {
        record.position.sequence_number = (number as u64 + 1).into();
    }
    records
}

/// What came of each offer in the end: the rewards and their sum. Everything that must hold on the way is checked.
fn totals(triggers: &[Trigger], outcomes: &[Outcome]) -> BTreeMap<TriggerId, (BTreeSet<String>, f64)> {
    let mut ids = BTreeSet::new();
    let mut totals: BTreeMap<TriggerId, (BTreeSet<String>, f64)> = BTreeMap::new();
    for outcome in outcomes {
        assert!(ids.insert(outcome.id), "told twice: {outcome:?}");
        let known = totals.get(&outcome.trigger);
        assert_eq!(outcome.previous_reward, known.map(|(_, reward)| *reward), "{outcome:?}");
        assert_eq!(outcome.expired, outcome.rewards.is_empty(), "{outcome:?}");
        assert!(
            !outcome.expired || known.is_none(),
            "nothing came of it, but something did: {outcome:?}"
        );
        let (rewarded, reward) = totals.entry(outcome.trigger).or_default();
        for name in &outcome.rewards {
            assert!(rewarded.insert(name.clone()), "rewarded twice: {outcome:?}");
        }
        assert_eq!(
            outcome.rewards_so_far.iter().cloned().collect::<BTreeSet<_>>(),
            *rewarded
        );
        *reward = outcome.reward;
    }
    let made: BTreeSet<TriggerId> = triggers.iter().map(|trigger| trigger.id).collect();
    assert_eq!(
        made,
        totals.keys().copied().collect(),
        "something is told of each offer"
    );
    totals
}

/// Keeps every offer and looks at every event, and does what is promised as simply as it can be said. Offers are made by
/// events alone.
#[derive(Default)]
struct Oracle {
    offers: Vec<OracleOffer>,
    /// The steps that the users have done, and their profiles' now.
    steps: HashMap<String, BTreeSet<&'static str>>,
    now: HashMap<String, Timestamp>,
}

struct OracleOffer {
    trigger: TriggerId,
    user: String,
    content: String,
    since: Timestamp,
    until: Timestamp,
    has_left: bool,
    rewarded: BTreeSet<String>,
}

impl Oracle {
    /// An event that was applied to a user's profile, and what it fired.
    fn apply(&mut self, user: &str, arrived: &ArrivedEvent<'_>, fired: &[Trigger]) {
        let event = &arrived.event;
        let now = *self
            .now
            .entry(user.to_owned())
            .or_default()
            .max(&mut arrived.arrived_at.clone());
        self.now.insert(user.to_owned(), now);
        let x: i64 = event
            .properties
            .object
            .map_or(0, |json| json[5..json.len() - 1].parse().expect(json));
        let steps = self.steps.entry(user.to_owned()).or_default();
        let mut newly = BTreeSet::new();
        if matches!(event.event_type.as_ref(), "view" | "buy") && x > 3 && steps.insert("big") {
            newly.insert("big");
        }
        if event.event_type == "buy" && steps.insert("bought") {
            newly.insert("bought");
        }
        for offer in self
            .offers
            .iter_mut()
            .filter(|offer| offer.user == user && !offer.has_left)
        {
            let is_late = now.ms_since(offer.until) > OUTCOME_LATE_MS_MAX;
            if event.at <= offer.since || event.at > offer.until || is_late {
                continue;
            }
            let brings = [
                (
                    "click",
                    event.event_type == "click" && event.content_id.as_deref() == Some(&offer.content),
                ),
                ("step_completed", !newly.is_empty()),
                ("bought", event.event_type == "buy" && x >= 2),
                ("big", newly.contains("big")),
            ];
            offer.rewarded.extend(
                brings
                    .iter()
                    .filter(|(_, comes)| *comes)
                    .map(|(name, _)| (*name).to_owned()),
            );
        }
        self.let_leave(user, now);
        for trigger in fired {
            self.offers.push(OracleOffer {
                trigger: trigger.id,
                user: user.to_owned(),
                content: trigger.offer.clone(),
                since: event.at,
                until: now.plus_ms(5 * HOUR_MS),
                has_left: false,
                rewarded: BTreeSet::new(),
            });
            self.let_leave(user, now);
        }
    }

    /// Of more than a profile keeps, those leave whose windows end first.
    fn let_leave(&mut self, user: &str, now: Timestamp) {
        let is_kept = |offer: &&mut OracleOffer| {
            let is_late = now.ms_since(offer.until) > OUTCOME_LATE_MS_MAX;
            offer.user == user && !offer.has_left && !is_late && offer.rewarded.len() < 4
        };
        let mut kept: Vec<&mut OracleOffer> = self.offers.iter_mut().filter(is_kept).collect();
        kept.sort_by_key(|offer| (offer.until, offer.trigger));
        let beyond = kept.len().saturating_sub(OPEN_OFFERS_MAX);
        kept.into_iter().take(beyond).for_each(|offer| offer.has_left = true);
    }

    fn merge(&mut self, into: &str, from: &str) {
        for offer in self.offers.iter_mut().filter(|offer| offer.user == from) {
            offer.user = into.to_owned();
        }
        let steps = self.steps.remove(from).unwrap_or_default();
        self.steps.entry(into.to_owned()).or_default().extend(steps);
        let now = self.now.remove(from).unwrap_or_default();
        let known = self.now.entry(into.to_owned()).or_default();
        *known = now.max(*known);
    }

    fn totals(&self) -> BTreeMap<TriggerId, (BTreeSet<String>, f64)> {
        let weight = |name: &String| match name.as_str() {
            "click" => 1.0,
            "step_completed" => 4.0,
            "bought" => 0.5,
            _ => -2.0,
        };
        let of = |offer: &OracleOffer| {
            let sum = offer.rewarded.iter().map(weight).sum();
            (offer.trigger, (offer.rewarded.clone(), sum))
        };
        self.offers.iter().map(of).collect()
    }
}

/// A record that a household is given: which of three ids it is of, and which one its event says is the same user.
type Named = (u8, Option<u8>);

fn named(index: u8) -> &'static str {
    ["u", "v", "w"][usize::from(index % 3)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// P2, P5: in whatever batches events come and come again, and whoever wakes the user: each offer and reward is told
    /// once, and comes to what counting all events by hand gives.
    #[test]
    fn p2_each_reward_of_each_offer_is_told_once(
        drawn in drawn(60),
        cuts in prop::collection::vec(1usize..7, 60),
        back in prop::collection::vec(0usize..9, 60),
        wakes in prop::collection::vec((0usize..60, 0i64..90_000), 0..6),
    ) {
        let mut history = history(&drawn, false);
        // The events of the oracle, one by one.
        let mut oracle = Oracle::default();
        let mut profile = Profile::new(&BY_EVENTS);
        for record in &history {
            let is_applied = crate::fold::outcome(BY_EVENTS.dispatch(&record.event.event_type), &profile, record)
                == EventOutcome::Applied;
            let (next, triggers, _) = run(&BY_EVENTS, profile, [std::slice::from_ref(record)]);
            profile = next;
            if is_applied {
                oracle.apply("u", record, &triggers);
            }
        }
        history = woken(&history, &wakes);
        let mut batches = Vec::new();
        let (mut at, mut cuts, mut back) = (0usize, cuts.into_iter().cycle(), back.into_iter().cycle());
        while at < history.len() {
            // A batch begins with records that were delivered before.
            let from = at.saturating_sub(back.next().unwrap_or(0));
            let to = (at + cuts.next().unwrap_or(1)).min(history.len());
            batches.push(&history[from..to]);
            at = to;
        }
        let (profile, triggers, outcomes) = run(&BY_EVENTS, Profile::new(&BY_EVENTS), batches);
        prop_assert_eq!(totals(&triggers, &outcomes), oracle.totals());
        prop_assert_eq!(next_due(&BY_EVENTS, &profile), None);
    }

    /// P7: where no event comes late, everything that is told is the same whoever wakes the user and when, but for who did.
    #[test]
    fn p7_it_makes_no_difference_who_wakes_the_user_or_when(
        drawn in drawn(40),
        wakes in prop::collection::vec((0usize..40, 0i64..30_000), 0..8),
    ) {
        for journey in [&*BY_EVENTS, &*BY_TIME] {
            let history = history(&drawn, true);
            let bare = |outcomes: Vec<Outcome>| {
                let bare = outcomes.into_iter().map(|mut outcome| {
                    (outcome.made_at, outcome.decided_at) = (time(0), time(0));
                    outcome.cause.sequence_number = 0.into();
                    outcome
                });
                bare.collect::<Vec<_>>()
            };
            let settled = |mut profile: Profile| {
                profile.guard = Default::default();
                profile.wake_at = None;
                for offer in &mut profile.open_offers {
                    offer.decided_at = time(0);
                }
                profile
            };
            let (profile, triggers, outcomes) = run(journey, Profile::new(journey), woken(&history, &[]).chunks(1));
            let (same, _, others) = run(journey, Profile::new(journey), woken(&history, &wakes).chunks(3));
            totals(&triggers, &outcomes);
            prop_assert_eq!(bare(others), bare(outcomes));
            prop_assert_eq!(settled(same), settled(profile));
        }
    }

    /// The same when ids turn out to be one user's on the way.
    #[test]
    fn p2_merges_lose_nothing_and_tell_nothing_twice(
        drawn in drawn(60),
        names in prop::collection::vec((0u8..3, prop::option::weighted(0.1, 0u8..3)), 60),
        wakes in prop::collection::vec((0usize..60, 0i64..90_000), 0..6),
    ) {
        let names: Vec<Named> = names;
        let mut records = history(&drawn, false);
        for (record, (user, alias)) in records.iter_mut().zip(&names) {
            record.event.user = named(*user).into();
            record.event.alias = alias.filter(|alias| named(*alias) != named(*user)).map(|alias| named(alias).into());
            // A repeat of another user's event is none.
            let id = format!("{}-{user}", record.event.id);
            record.event.id_hash = crate::hash::hash_bytes(id.as_bytes());
            record.event.id = id.into();
        }
        let mut records = woken(&records, &wakes);
        // Whoever is woken.
        let mut last = records.pop().expect("the last wake");
        for user in 0..3u8 {
            last.event.user = named(user).into();
            last.position.sequence_number = (2_000_000 + u64::from(user)).into();
            records.push(last.clone());
        }
        let mut household = Household::new();
        let mut oracle = Oracle::default();
        let (mut triggers, mut outcomes) = (Vec::new(), Vec::new());
        for record in &records {
            let user = household.user_of(&record.event.user).to_owned();
            let whose = |household: &Household| ["u", "v", "w"].map(|key| household.user_of(key).to_owned());
            let before = whose(&household);
            let mut step = household.apply(&BY_EVENTS, Snapshots::none(), record);
            for (was, is) in before.iter().zip(whose(&household)) {
                if *was != is {
                    oracle.merge(&is, was);
                }
            }
            if step.outcome == EventOutcome::Applied {
                oracle.apply(&user, record, &step.triggers);
            }
            for outcome in &step.outcomes {
                prop_assert_eq!(&outcome.user, &user);
            }
            triggers.append(&mut step.triggers);
            outcomes.append(&mut step.outcomes);
        }
        prop_assert_eq!(totals(&triggers, &outcomes), oracle.totals());
        // Under whom each decision is known.
        let named: HashMap<TriggerId, &str> = triggers.iter().map(|trigger| (trigger.id, trigger.user.as_str())).collect();
        for outcome in &outcomes {
            let decided_for = outcome.decided_for.as_deref().unwrap_or(&outcome.user);
            prop_assert_eq!(Some(&decided_for), named.get(&outcome.trigger));
        }
    }
}
