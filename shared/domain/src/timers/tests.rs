use std::collections::HashSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::event::{ArrivedEvent, TIMER_EVENT};
use crate::fold::EventOutcome;
use crate::hash::hash_bytes;
use crate::merge::Household;
use crate::plan::plan_user;
use crate::rules::RuleOutcome;
use crate::rules::tests::{Row, check, planned, played, record, records, told};
use crate::snapshots::Snapshots;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};
use crate::trigger::{Trigger, TriggerId};

#[test]
fn p12_a_reminder_is_made_when_something_did_not_happen() {
    let stalled = "steps: [{ id: start, on: start }, { id: end, on: end }]
contents: [{ id: c }]
triggers: [{ id: stalled, after: 2h, since: steps.start, unless: steps.end.done, offer: c, slot: s }]";
    check(&[
        (
            "by a timer event, as of when it was due; to the millisecond, and once",
            stalled,
            &["0 start", "120-1ms wake", "120 wake", "121 wake", "9999 wake"],
            &["stalled 120"],
        ),
        (
            "by whatever comes next",
            stalled,
            &["0 start", "300 view"],
            &["stalled 120 by 300"],
        ),
        ("not when it happened", stalled, &["0 start", "60 end", "120 wake"], &[]),
        (
            "what happens at that very moment or later takes nothing back",
            stalled,
            &["0 start", "120 end"],
            &["stalled 120"],
        ),
        (
            "what happens after it was due takes nothing back",
            stalled,
            &["0 start", "130 end"],
            &["stalled 120 by 130"],
        ),
        (
            "what happened before it was due makes it moot, although it comes late",
            stalled,
            &["0 start", "130 end at=119"],
            &[],
        ),
        (
            "but not once the user was woken",
            stalled,
            &["0 start", "125 wake", "130 end at=119"],
            &["stalled 120 by 125"],
        ),
        (
            "a step that turns out to be done earlier moves it",
            stalled,
            &["60 start", "61 start at=10", "130 wake"],
            &["stalled 130"],
        ),
        (
            "but it is not made twice",
            stalled,
            &["60 start", "180 wake", "181 start at=10", "500 wake"],
            &["stalled 180"],
        ),
        (
            "a step that was done long ago, as it turns out, is overdue at once",
            stalled,
            &["300 start at=60"],
            &["stalled 180 by 300"],
        ),
        (
            "no event for three days",
            "contents: [{ id: c }]\ntriggers: [{ id: gone, after: 3d, since: any, offer: c, slot: s }]",
            &[
                "0 click",
                "4000 view",
                "8319 wake",
                "8320 wake",
                "12000 click",
                "20000 click",
            ],
            &["gone 8320", "gone 16320 by 20000"],
        ),
        (
            "an older event restarts nothing",
            "contents: [{ id: c }]\ntriggers: [{ id: r, after: 60m, since: click, offer: c, slot: s }]",
            &["30 click", "31 click at=10", "90 wake", "100 click at=20", "300 wake"],
            &["r 90"],
        ),
        (
            "only since events on which its condition holds",
            "contents: [{ id: c }]
triggers: [{ id: r, after: 60m, since: { event: click, when: event.properties.x == 1 }, offer: c, slot: s }]",
            &["0 click x=1", "30 click x=2", "50 click", "300 wake"],
            &["r 60 by 300"],
        ),
        (
            "since the session ended; a new one starts anew",
            "contents: [{ id: c }]
sessions: { idle_timeout: 30m }
triggers: [{ id: r, after: 10m, since: session.end, offer: c, slot: s }]",
            &[
                "0 click", "20 view", "45 view", "84 wake", "85 wake", "200 view", "500 wake",
            ],
            &["r 85", "r 240 by 500"],
        ),
        (
            "a late event that extends the session does not end it twice",
            "contents: [{ id: c }]
sessions: { idle_timeout: 30m }
triggers: [{ id: r, after: 10m, since: session.end, offer: c, slot: s }]",
            &["0 click", "40 wake", "50 view at=20", "500 wake"],
            &["r 40"],
        ),
        (
            "its cooldown, limit and priority are those of any rule, as of when it is due",
            "contents: [{ id: c }]
triggers:
  - { id: a, after: 60m, since: click, offer: c, slot: s, limit: 1 }
  - { id: b, after: 60m, since: click, offer: c, slot: s, priority: -1, cooldown: 2h }",
            &["0 click", "100 click", "200 click", "500 wake"],
            // At 60 it lost, at 160 it is alone, at 260 it cools down.
            &["a 60 by 100", "b 160 by 200"],
        ),
        (
            "two that are due at one moment, and one before it, in the order of their priorities",
            "contents: [{ id: c }]
triggers:
  - { id: low, after: 60m, since: click, offer: c, slot: a, priority: 1 }
  - { id: high, after: 60m, since: click, offer: c, slot: b, priority: 2 }
  - { id: early, after: 59m, since: click, offer: c, slot: c, priority: 0 }",
            &["0 click", "500 wake"],
            &["early 59 by 500", "high 60 by 500", "low 60 by 500"],
        ),
        (
            "a feature is read as of when it was due, although the user is woken later",
            "features: { clicks: { count: click, within: 90m } }
contents: [{ id: c }]
triggers: [{ id: r, after: 60m, since: click, when: features.clicks == 1, offer: c, slot: s }]",
            &["0 click", "500 wake"],
            &["r 60 by 500"],
        ),
    ]);
}

#[test]
fn a_chain_makes_its_reminders_one_after_the_other() {
    let chain = "steps: [{ id: start, on: start }, { id: end, on: end }]
contents: [{ id: c }, { id: d }, { id: e }]
triggers: [{ id: r, after: [1h, 3h, 7h], since: steps.start, unless: steps.end.done, offer: [c, d, e], slot: s }]";
    check(&[
        (
            "each with its own offer",
            chain,
            &["0 start", "60 wake", "180 wake", "420 wake", "9999 wake"],
            &["r 60", "r 180 d", "r 420 e"],
        ),
        (
            "all that are overdue, each as of its time",
            chain,
            &["0 start", "9999 wake"],
            &["r 60 by 9999", "r 180 by 9999 d", "r 420 by 9999 e"],
        ),
        (
            "until what they ask for happens",
            chain,
            &["0 start", "100 end", "9999 wake"],
            &["r 60 by 100"],
        ),
        (
            "a newer event starts it anew",
            "contents: [{ id: c }, { id: d }]
triggers: [{ id: r, after: [1h, 3h], since: click, offer: [c, d], slot: s }]",
            &["0 click", "100 click", "9999 wake"],
            &["r 60 by 100", "r 160 by 9999", "r 280 by 9999 d"],
        ),
        (
            "a late event that starts it anew makes no reminder for what is past",
            "contents: [{ id: c }, { id: d }]
triggers: [{ id: r, after: [1h, 3h], since: click, offer: [c, d], slot: s }]",
            &["0 click", "180 wake", "181 click at=10", "9999 wake"],
            &["r 60 by 180", "r 180 d", "r 190 by 9999 d"],
        ),
        (
            "what is stopped is done with, and the chain goes on",
            "features: { clicks: { count: any, within: 150m } }
contents: [{ id: c }]
triggers: [{ id: r, after: [1h, 3h], since: start, when: features.clicks == 0, offer: c, slot: s }]",
            &["0 start", "9999 wake"],
            &["r 180 by 9999"],
        ),
        (
            "what a cooldown or a cap stops, too",
            "contents: [{ id: c }]
policy: { cap: { offers: 2, within: 24h } }
triggers: [{ id: r, after: [1h, 2h, 3h, 25h], since: start, offer: c, slot: s }]",
            &["0 start", "9999 wake"],
            &["r 60 by 9999", "r 120 by 9999", "r 1500 by 9999"],
        ),
    ]);
}

#[test]
fn p7_what_a_late_event_makes_due_is_made_as_of_its_arrival() {
    let chain = "contents: [{ id: c }, { id: d }, { id: e }]
triggers:
  - { id: r, after: [1h, 3h, 7h], since: start, offer: [c, d, e], slot: s }
  - { id: click, on: click, offer: c, slot: t }
";
    let with = |more: &str| -> &'static str { format!("{chain}{more}\n").leak() };
    check(&[
        (
            "of a chain the latest, once",
            chain,
            &["600 start at=60", "9999 wake"],
            &["r 480 by 600 e"],
        ),
        (
            "and the rest when it is due",
            chain,
            &["300 start at=60", "9999 wake"],
            &["r 240 by 300 d", "r 480 by 9999 e"],
        ),
        (
            "what was due up to 24 hours before it came",
            chain,
            &["1920 start at=60", "9999 wake"],
            &["r 480 by 1920 e"],
        ),
        (
            "nothing that was due before that, as of an import",
            chain,
            &["1920+1ms start at=60", "90000 start at=1000", "99999 wake"],
            &[],
        ),
        (
            "a cap goes by the arrival: nobody gets at once what they would have got in days",
            with("policy: { cap: { offers: 1, within: 1h } }"),
            &["590 click", "600 start at=60", "9999 wake"],
            &["click 590"],
        ),
        (
            "and by what was offered since",
            with("policy: { cap: { offers: 2, within: 6h } }"),
            &["300 start at=60", "301 click", "302 click", "480 wake", "9999 wake"],
            &["r 240 by 300 d", "click 301"],
        ),
        (
            "quiet hours, too",
            with("policy: { quiet_hours: { from: \"03:00\", to: \"05:00\" } }"),
            &["310 start at=60", "480 wake"],
            &["r 240 by 310 d", "r 480 e"],
        ),
        (
            "and put it off, as what it was",
            with("policy: { quiet_hours: { from: \"05:00\", to: \"06:00\" } }"),
            &["310 start at=60", "360 wake"],
            &["r 360 d"],
        ),
        (
            "and its own cooldown",
            "contents: [{ id: c }]
triggers: [{ id: r, after: [1h, 7h], since: start, offer: c, slot: s, cooldown: 3h }]",
            &["400 start at=60", "480 wake", "9999 wake"],
            &["r 120 by 400"],
        ),
        (
            "a feature is read as of the arrival",
            "features: { starts: { count: start, within: 90m } }
contents: [{ id: c }]
triggers: [{ id: r, after: 60m, since: start, when: features.starts == 0, offer: c, slot: s }]",
            &["300 start at=60"],
            &["r 120 by 300"],
        ),
    ]);
    // It counts, once for each timer and event, and its id is that of what was due.
    let journey = journey(&format!("journey: j\n{chain}"));
    let (triggers, profile, counts) = played(&journey, &records(&["1700 start at=60"]));
    assert_eq!(told(&triggers), ["r 480 by 1700 e"]);
    assert_eq!(triggers[0].cause.event_id, "timer:2024-01-01T08:00:00.000Z");
    assert_eq!(triggers[0].due_at, Some(time(480 * MINUTE_MS)));
    assert_eq!(profile.rules[0].last_fired_at, Some(time(1700 * MINUTE_MS)));
    assert_eq!(counts.get(0, RuleOutcome::TooLate), 1);
}

#[test]
fn a_put_off_offer_and_the_next_reminder_of_its_rule_do_not_exclude_each_other() {
    let journey = journey(
        "journey: j
features: { views: { count: view } }
contents: [{ id: c }, { id: d, unless: features.views > 0 }, { id: e, unless: features.views > 0 }]
policy: { quiet_hours: { from: \"22:00\", to: \"08:00\", slots: [s] } }
triggers:
  - { id: r, after: [1h, 10h], since: start, offer: [e, c], slot: s }
  - { id: other, after: 10h, since: start, offer: d, slot: t, priority: 1 }
",
    );
    let (triggers, _, counts) = played(&journey, &records(&["1320 start", "1920 wake"]));
    assert_eq!(told(&triggers), ["other 1920 d", "r 1920 e", "r 1920"]);
    assert!(triggers.iter().all(|trigger| trigger.reason.won_over.is_empty()));
    assert_eq!(counts.get(0, RuleOutcome::LostToPriority), 0);
    // What is told of the one that was put off is about what it offers.
    let (triggers, _, _) = played(&journey, &records(&["1320 start", "1400 view", "1920 wake"]));
    assert_eq!(told(&triggers), ["r 1920"]);
    let passed_over = triggers[0].reason.passed_over.iter();
    let details: Vec<_> = passed_over
        .map(|over| (over.rule.as_str(), over.detail.as_str()))
        .collect();
    assert_eq!(
        details,
        [
            ("other", "d is not eligible: `features.views > 0` holds"),
            ("r", "e is not eligible: `features.views > 0` holds")
        ]
    );
}

/// All tests start at midnight of 2024-01-01 in UTC.
#[test]
fn a_time_of_day_is_that_of_the_users_own_clock() {
    check(&[
        (
            "at nine on the day after",
            "steps: [{ id: s, on: start }]
contents: [{ id: c }]
triggers: [{ id: r, at: \"09:00\", days: 1, since: steps.s, offer: c, slot: s }]",
            &["600 start", "1979 wake", "1980 wake"],
            &["r 1980"],
        ),
        (
            "the same day, or the next where it has passed",
            "contents: [{ id: c }]
triggers: [{ id: r, at: \"09:00\", since: start, offer: c, slot: s }]",
            &["539 start", "540 start", "3000 wake"],
            &["r 540", "r 1980 by 3000"],
        ),
        (
            "where the user is: in New York nine is 14:00 in UTC",
            "contents: [{ id: c }]
triggers: [{ id: r, at: \"09:00\", days: [1, 2], since: start, offer: c, slot: s }]",
            &["60 start zone=America/New_York", "3000 wake"],
            // 01:00 in UTC is the day before there.
            &["r 840 by 3000", "r 2280 by 3000"],
        ),
    ]);
    // In London clocks go forward from 01:00 to 02:00 on 2026-03-29 and back from 02:00 to 01:00 on 2026-10-25.
    for (since, at, days, due) in [
        ("2026-03-28T12:00:00Z", "09:00", 1, "2026-03-29T08:00:00Z"),
        ("2026-03-28T12:00:00Z", "01:30", 1, "2026-03-29T01:00:00Z"), // skipped: as the clocks change
        ("2026-10-24T12:00:00Z", "01:30", 1, "2026-10-25T00:30:00Z"), // twice: the first time
        ("2026-10-25T12:00:00Z", "09:00", 1, "2026-10-26T09:00:00Z"),
        ("2026-07-01T23:30:00Z", "09:00", 1, "2026-07-03T08:00:00Z"), // past midnight there
    ] {
        let text = format!(
            "journey: j\ncontents: [{{ id: c }}]\ntriggers: [{{ id: r, at: \"{at}\", days: {days}, since: any, offer: c, slot: s }}]\n"
        );
        let journey = journey(&text);
        let since: Timestamp = since.parse().expect(since);
        let mut event = event("e", "click", since);
        event.location.timezone = Some("Europe/London".into());
        let (_, profile, _) = played(&journey, &[arrived(event, 0, 1, since)]);
        assert_eq!(next_due(&journey, &profile), Some(due.parse().expect(due)), "{since}");
    }
}

#[test]
fn a_time_zone_is_kept_only_where_the_journey_goes_by_it() {
    let kept = |text: &str| {
        let journey = journey(&format!("journey: j\ncontents: [{{ id: c }}]\n{text}\n"));
        played(&journey, &records(&["0 click zone=Asia/Tokyo"]))
            .1
            .timezone
            .is_some()
    };
    assert!(!kept("triggers: [{ id: r, after: 1h, since: any, offer: c, slot: s }]"));
    assert!(kept(
        "triggers: [{ id: r, at: \"09:00\", since: any, offer: c, slot: s }]"
    ));
    assert!(kept("policy: { quiet_hours: { from: \"22:00\", to: \"08:00\" } }"));
}

const STALLED: &str = "journey: j
steps: [{ id: start, on: start }, { id: end, on: end }]
contents: [{ id: c }]
triggers: [{ id: stalled, after: 2h, since: steps.start, unless: steps.end.done, offer: c, slot: s }]
";

#[test]
fn p5_a_reminders_id_follows_from_when_it_was_due_and_its_trigger_tells_all() {
    let journey = journey(STALLED);
    let (triggers, profile, counts) = played(&journey, &records(&["0 start", "125 wake"]));
    let trigger = &triggers[0];
    assert_eq!(
        trigger.id,
        TriggerId::of("u", "stalled", "timer:2024-01-01T02:00:00.000Z")
    );
    assert_eq!(trigger.cause.event_id, "timer:2024-01-01T02:00:00.000Z");
    assert_eq!(
        (trigger.cause.event_type.as_str(), trigger.cause.at),
        (TIMER_EVENT, time(120 * MINUTE_MS))
    );
    assert_eq!(trigger.cause.sequence_number, 2u64.into());
    assert_eq!(
        trigger.decided_at.ms_since(trigger.due_at.expect("a time")),
        5 * MINUTE_MS
    );
    assert_eq!(
        trigger.reason.condition.as_deref(),
        Some("after 2h since steps.start unless steps.end.done")
    );
    assert_eq!(trigger.reason.saw[0].name, "steps.end.done");
    assert_eq!(profile.rules[0].last_fired_at, trigger.due_at);
    assert_eq!(
        (profile.applied_events, profile.recent_event_ids.len()),
        (1, 1),
        "only what the user did"
    );
    assert_eq!(counts.get(0, RuleOutcome::Fired), 1);
}

#[test]
fn a_forged_early_or_repeated_timer_event_changes_nothing() {
    let journey = journey(STALLED);
    // Of a user of whom nothing is known.
    let plan = planned(&journey, Profile::new(&journey), &records(&["0 wake", "1 wake"]));
    assert_eq!((plan.changed, plan.profile.applied_events), (false, 0));
    assert_eq!(plan.outcomes, [EventOutcome::Woken; 2]);
    // Before anything is due.
    let (_, profile, _) = played(&journey, &records(&["0 start"]));
    for line in ["0 wake", "1 wake", "120-1ms wake", "119 wake at=121"] {
        let plan = planned(&journey, profile.clone(), &[record(2, line)]);
        let expected = Profile {
            guard: plan.profile.guard.clone(),
            ..profile.clone()
        };
        assert_eq!((plan.changed, &plan.profile), (false, &expected), "{line}");
    }
    // When all is made.
    let (triggers, profile, _) = played(&journey, &records(&["0 start", "120 wake"]));
    assert_eq!(triggers.len(), 1);
    let again = planned(
        &journey,
        profile.clone(),
        &records(&["0 start", "120 wake", "121 wake"])[1..],
    );
    assert_eq!(again.outcomes, [EventOutcome::Redelivered, EventOutcome::Woken]);
    assert_eq!((again.changed, again.profile.outbox.len()), (false, 0));
}

#[test]
fn the_user_is_woken_when_something_is_due_and_the_index_is_written_seldom() {
    let journey = journey(
        "journey: j
steps: [{ id: end, on: end }]
contents: [{ id: c }]
triggers: [{ id: r, after: 60m, since: click, unless: steps.end.done, offer: c, slot: s }]
",
    );
    let mut profile = Profile::new(&journey);
    // What wakes the user next, after each record, and whether that record needs a write.
    for (number, (line, due, wake_at, changed)) in [
        ("0 view", None, None, true),
        ("1 click", Some(61), Some(61), true),
        // The timer moves; the user may be woken early, once.
        ("10 click", Some(70), Some(61), true),
        ("20 click", Some(80), Some(61), true),
        ("30 wake", Some(80), Some(61), false),
        // Woken early: now the index is put right.
        ("61 wake", Some(80), Some(80), true),
        ("61 wake", Some(80), Some(80), false),
        ("80 wake", None, None, true),
        ("90 click", Some(150), Some(150), true),
        ("200 click", Some(260), Some(260), true),
        // It can't come to anything any more.
        ("201 end", None, None, true),
        ("202 click", None, None, true),
        ("300 wake", None, None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let plan = planned(&journey, profile, &[record(number as u64 + 1, line)]);
        let minute = |at: Timestamp| at.ms_since(time(0)) / MINUTE_MS;
        assert_eq!(next_due(&journey, &plan.profile).map(minute), due, "{line}");
        assert_eq!(
            (plan.profile.wake_at.map(minute), plan.changed),
            (wake_at, changed),
            "{line}"
        );
        profile = plan.profile;
        profile.outbox.clear();
    }
}

#[test]
fn a_changed_journey_keeps_what_it_knows_and_arms_what_is_new_from_now() {
    let before = "journey: j
steps: [{ id: start, on: start }]
contents: [{ id: c }]
triggers: [{ id: old, after: 2h, since: steps.start, offer: c, slot: s }]
";
    let after = "journey: j
steps: [{ id: start, on: start }]
contents: [{ id: c }]
triggers:
  - { id: of_step, after: 1h, since: steps.start, offer: c, slot: a }
  - { id: of_event, after: 1h, since: view, offer: c, slot: b }
";
    let (before, after) = (journey(before), journey(after));
    let (_, mut profile, _) = played(&before, &records(&["0 start", "1 view"]));
    assert!(profile.wake_at.is_some());
    // As it is read for the new journey: the state of a rule that is gone is dropped.
    profile.rules = vec![Default::default(); after.rules.len()];
    let plan = planned(&after, profile.clone(), &[record(3, "200 wake")]);
    assert_eq!(
        (plan.profile.outbox.len(), plan.profile.wake_at),
        (0, None),
        "nothing is due any more"
    );
    let lines = [record(3, "10 start"), record(4, "20 view"), record(5, "500 wake")];
    let plan = planned(&after, profile, &lines);
    assert_eq!(
        told(&plan.profile.outbox),
        ["of_event 80 by 500"],
        "the step was done before"
    );
}

/// P5, P7: what is made for one time is made once, whatever comes late and whoever turns out to be whom: two triggers would
/// have one id.
#[test]
fn p5_what_is_made_for_one_time_is_made_once() {
    let by_step = "steps: [{ id: start, on: start }]
contents: [{ id: c }]
policy: { quiet_hours: { from: \"01:00\", to: \"03:00\" } }
triggers: [{ id: r, after: 1h, since: steps.start, offer: c, slot: s }]";
    let chain = "contents: [{ id: c }]
policy: { quiet_hours: { from: \"03:00\", to: \"05:00\" } }
triggers: [{ id: r, after: [20m, 200m], since: click, offer: c, slot: s }]";
    let rows: &[Row] = &[
        (
            "put off by one profile and made by the other, who then turn out to be one user's",
            by_step,
            &[
                "10 start user=x",
                "75 view user=x",
                "200 start at=10",
                "201 log_in",
                "500 wake",
            ],
            &["r 70 by 200"],
        ),
        (
            "made by the one, and due for the other",
            "contents: [{ id: c }]\ntriggers: [{ id: r, after: [20m, 60m], since: click, offer: c, slot: s }]",
            &["10 click", "50 click user=x", "70 wake", "75 log_in", "500 wake"],
            &["r 30 by 70", "r 70", "r 110 by 500"],
        ),
        (
            "put off, and due again after a late event",
            chain,
            &["10 click", "30 wake", "215 view", "310 click at=190", "500 wake"],
            &["r 30", "r 300 by 310", "r 390 by 500"],
        ),
        (
            "made, and due again because the step turns out to be done earlier",
            "steps: [{ id: start, on: start }]
contents: [{ id: c }]
triggers: [{ id: r, after: [20m, 200m], since: steps.start, offer: c, slot: s }]",
            &["190 start", "210 wake", "300 start at=10", "500 wake"],
            &["r 210"],
        ),
    ];
    for (what, text, lines, expected) in rows {
        let journey = journey(&format!("journey: j\n{text}\n"));
        let mut household = Household::new();
        let mut triggers = Vec::new();
        for mut record in records(lines) {
            record.event.alias = (record.event.event_type == "log_in").then(|| "x".into());
            triggers.extend(household.apply(&journey, Snapshots::none(), &record).triggers);
        }
        assert_eq!(told(&triggers), *expected, "{what}");
        let ids: HashSet<TriggerId> = triggers.iter().map(|trigger| trigger.id).collect();
        assert_eq!(ids.len(), triggers.len(), "{what}");
    }
}

/// Everything that waits for time, beside everything that stops it.
static TIMED: LazyLock<Journey> = LazyLock::new(|| {
    journey(
        r#"
journey: timed
sessions: { idle_timeout: 20m }
entry: features.any_time >= 1
exit: event.type == "other" && features.clicks_1h >= 4
reentry: 2h
steps:
  - { id: clicked, on: click }
  - { id: viewed, on: view, when: event.properties.amount > 3 }
features:
  any_time: { count: any }
  clicks_1h: { count: click, within: 1h }
contents: [{ id: c }, { id: d, unless: features.clicks_1h > 3 }, { id: e, cooldown: 3h }]
policy:
  cap: [{ offers: 3, within: 6h }, { offers: 2, within: 3h, slot: s }]
  content_cooldown: 10m
  quiet_hours: { from: "01:00", to: "03:30", slots: [q, s] }
  groups: { g: { within: 30m }, h: {} }
triggers:
  - { id: stalled, after: [15m, 1h, 3h], since: steps.clicked, unless: steps.viewed.done, offer: [c, d, e], slot: s }
  - { id: gone, after: 40m, since: any, offer: d, slot: t, priority: 2 }
  - { id: ended, after: 5m, since: session.end, when: features.clicks_1h >= 1, offer: e, slot: q, group: g, cooldown: 1h }
  - { id: since_big, after: [10m, 30m], since: { event: view, when: event.properties.amount > 1 }, offer: c, slot: q, limit: { count: 2, per: session } }
  - { id: morning, at: "03:00", since: click, offer: e, slot: t }
  - { id: hot, enters: features.clicks_1h >= 3, offer: d, slot: t, group: g }
  - { id: cold, leaves: features.clicks_1h >= 1, offer: c, slot: u }
  - { id: event, on: click, when: features.clicks_1h >= 2, offer: e, slot: s, cooldown: 45m, priority: 1, group: h }
  - { id: night, on: view, unless: steps.viewed.done, offer: c, slot: q, limit: 5, group: h }
"#,
    )
});

/// An event of a random history: seconds since the one before, type, how late it arrives in seconds, amount, time zone.
type Drawn = (i64, u8, i64, i64, u8);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let seconds = prop_oneof![4 => 0i64..600, 3 => 0i64..4000, 1 => 0i64..40_000];
    let late = prop_oneof![6 => Just(0i64), 2 => 0i64..4000, 1 => 0i64..200_000];
    prop::collection::vec((seconds, 0u8..6, late, 0i64..5, 0u8..12), 0..40)
}

/// A history as it arrives: late ones are later events of the stream than they should be. Times are whole quarters of an hour
/// now and then, so that events and timers meet.
fn history(drawn: &[Drawn], in_order: bool) -> Vec<ArrivedEvent<'static>> {
    let mut now_s = 0;
    let numbered = drawn.iter().enumerate();
    let events = numbered.map(|(index, (seconds, kind, late_s, amount, zone))| {
        now_s += seconds;
        if amount % 2 == 0 {
            now_s = (now_s + 899) / 900 * 900;
        }
        let late_s = if in_order { 0 } else { *late_s };
        let event_type = ["click", "click", "view", "view", "other", "click"][usize::from(*kind)];
        let mut event = event(&format!("e{index}"), event_type, time((now_s - late_s).max(0) * 1000));
        event.properties.object = Some(format!("{{\"amount\":{amount}}}").leak());
        let zone = ["Asia/Tokyo", "Europe/London", "America/New_York"].get(usize::from(*zone));
        event.location.timezone = zone.map(|zone| (*zone).into());
        arrived(event, 0, index as u64 * 10 + 10, time(now_s * 1000))
    });
    events.collect()
}

/// What must be the same: ids and times of triggers.
fn decided(triggers: &[Trigger]) -> Vec<(TriggerId, Option<Timestamp>, bool)> {
    let decided = triggers.iter();
    decided
        .map(|trigger| (trigger.id, trigger.due_at, trigger.held_out))
        .collect()
}

/// The profile without what goes by the deliveries: when the user is woken, and how far the shard is.
fn settled(mut profile: Profile) -> Profile {
    profile.wake_at = None;
    profile.guard = Default::default();
    profile.version = 0;
    profile
}

/// P7: nobody is woken for a timer that can come to nothing, so whoever is woken for something else finds it as if not.
#[test]
fn p7_a_reminder_that_is_moot_is_left_alone_whoever_comes_by() {
    let journey = journey(
        "journey: t
steps: [{ id: start, on: start }, { id: end, on: end }]
contents: [{ id: c }]
triggers:
  - { id: chain, after: [60m, 180m, 300m], since: steps.start, unless: steps.end.done, offer: c, slot: s }
  - { id: other, after: 200m, since: steps.start, offer: c, slot: t }
  - { id: quiet, enters: features.n == 0, offer: c, slot: u }
features: { n: { count: start, within: 3h } }",
    );
    let mut ends = Vec::new();
    for wakes in [
        &["0 start", "60 wake", "90 end", "200 wake"][..],
        &["0 start", "90 end", "500 wake"],
        &["0 start", "60 wake", "90 end", "190 wake", "200 wake", "310 wake"],
    ] {
        let mut records = records(wakes);
        for record in &mut records {
            // The same events have the same ids, whatever comes between.
            record.event.id_hash = hash_bytes(record.event.event_type.as_bytes());
        }
        let (triggers, profile, _) = played(&journey, &records);
        assert_eq!(next_due(&journey, &profile), None, "{wakes:?}");
        let rules: Vec<_> = triggers
            .iter()
            .map(|trigger| (trigger.rule.clone(), trigger.due_at))
            .collect();
        ends.push((rules, settled(profile)));
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0], ends[2]);
    assert_eq!(ends[0].1.rules[0].timer.map(|timer| timer.done), Some(1));
}

/// A record that wakes everybody, long after the history.
fn last_wake() -> ArrivedEvent<'static> {
    arrived(
        event("last", TIMER_EVENT, time(0)),
        0,
        1_000_000,
        time(90 * 24 * 60 * MINUTE_MS),
    )
}

/// Whether a timer event between two records can make a difference: only one that arrives after the time of a record that
/// comes after it.
fn woken(history: &[ArrivedEvent<'static>], wakes: &[(usize, u32)]) -> Vec<ArrivedEvent<'static>> {
    let mut records = Vec::new();
    let mut number = 0;
    let mut push = |mut record: ArrivedEvent<'static>, records: &mut Vec<_>| {
        number += 1;
        record.position.sequence_number = (number as u64).into();
        records.push(record);
    };
    for (index, record) in history.iter().enumerate() {
        push(record.clone(), &mut records);
        let from = record.arrived_at;
        let until = match history.get(index + 1) {
            // A late record: what is woken between may be what it makes moot.
            Some(next) => next.event.at.max(from),
            None => from.plus_ms(24 * 60 * MINUTE_MS),
        };
        let mut shares: Vec<u32> = wakes
            .iter()
            .filter(|(place, _)| *place == index)
            .map(|(_, share)| *share)
            .collect();
        shares.sort_unstable();
        for share in shares {
            let span = until.ms_since(from);
            let at = from.plus_ms(span * i64::from(share) / 100);
            push(
                arrived(event(&format!("w{index}-{share}"), TIMER_EVENT, at), 0, 0, at),
                &mut records,
            );
        }
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// P7: the same triggers and the same profile, whoever wakes the user and whenever.
    #[test]
    fn p7_it_makes_no_difference_who_wakes_the_user_or_when(
        drawn in drawn(),
        wakes in prop::collection::vec((0usize..40, 0u32..=100), 0..60),
        in_order: bool,
    ) {
        let mut history = history(&drawn, in_order);
        let mut with_wakes = woken(&history, &wakes);
        history.push(last_wake());
        with_wakes.push(last_wake());
        let (expected, expected_profile, expected_counts) = played(&TIMED, &history);
        let (triggers, profile, counts) = played(&TIMED, &with_wakes);
        prop_assert_eq!(decided(&triggers), decided(&expected));
        prop_assert_eq!(settled(profile.clone()), settled(expected_profile));
        prop_assert_eq!(counts, expected_counts);
        prop_assert_eq!(next_due(&TIMED, &profile), None);
        // Each decision once (P5), and in the order of their times.
        let distinct: std::collections::BTreeSet<_> = triggers.iter().map(|trigger| trigger.id).collect();
        prop_assert_eq!(distinct.len(), triggers.len());
    }

    /// P7: the same, however the records are split into batches, and whatever of them comes again.
    #[test]
    fn p7_any_split_into_batches_plans_the_same(
        drawn in drawn(),
        wakes in prop::collection::vec((0usize..40, 0u32..=100), 0..60),
        cuts in prop::collection::vec((1usize..9, 0usize..4), 1..30),
    ) {
        let history = history(&drawn, false);
        let mut history = woken(&history, &wakes);
        history.push(last_wake());
        let (expected, expected_profile, _) = played(&TIMED, &history);
        let mut profile = Profile::new(&TIMED);
        let mut sent = Vec::new();
        let (mut done, mut turn) = (0, 0);
        while done < history.len() {
            let (take, again) = cuts[turn % cuts.len()];
            turn += 1;
            let start = done.saturating_sub(again);
            let end = (done + take).min(history.len());
            let mut from = start;
            while from < end {
                let plan = plan_user(&TIMED, Snapshots::none(), profile, &history[from..end]);
                from += plan.outcomes.len();
                profile = plan.profile;
                sent.append(&mut profile.outbox);
            }
            done = end;
        }
        prop_assert_eq!(decided(&sent), decided(&expected));
        prop_assert_eq!(settled(profile), settled(expected_profile));
    }
}

/// A user for whom more is due than one outbox holds: planning stops, and goes on when it was sent, to the same end.
#[test]
fn p8_what_is_due_at_once_never_overfills_the_outbox() {
    let rules = (0..20)
        .map(|rule| format!("  - {{ id: r{rule}, after: [1h, 2h, 3h, 4h], since: start, offer: c, slot: s{rule} }}\n"));
    let text = format!(
        "journey: j\ncontents: [{{ id: c }}]\ntriggers:\n{}",
        rules.collect::<String>()
    );
    let journey = journey(&text);
    let all = records(&["0 start", "500 view", "501 wake"]);
    let (expected, expected_profile, _) = played(&journey, &all);
    assert_eq!(expected.len(), 80);
    let mut profile = planned(&journey, Profile::new(&journey), &all[..1]).profile;
    let (mut sent, mut done, mut rounds) = (Vec::new(), 1, 0);
    while done < all.len() {
        let plan = plan_user(&journey, Snapshots::none(), profile, &all[done..]);
        done += plan.outcomes.len();
        profile = plan.profile;
        assert!(profile.outbox.len() <= crate::limits::OUTBOX_TRIGGERS_MAX);
        sent.append(&mut profile.outbox);
        rounds += 1;
    }
    assert_eq!(rounds, 4, "each moment of 20 by itself");
    assert_eq!(decided(&sent), decided(&expected));
    assert_eq!(settled(profile), settled(expected_profile));
}
