use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::event::{Event, Properties};
use crate::journey::Journey;
use crate::limits::{DEDUPE_LAST_DEFAULT, RULES_MAX};
use crate::rules::RuleOutcome;
use crate::sequence_number::Position;
use crate::snapshots::Snapshots;
use crate::testing::{DEFAULT_JOURNEY, MINUTE_MS, arrived, event, journey, time};
use crate::time::Timestamp;
use crate::trigger::TriggerId;
use crate::value::Value;

/// A user's events, in the order of their arrival.
type History = Vec<ArrivedEvent<'static>>;

/// What is left when everything was planned and sent: the profile and the triggers' ids in the order of sending.
fn run<'b>(
    journey: &Journey,
    batches: impl IntoIterator<Item = &'b [ArrivedEvent<'static>]>,
) -> (Profile, Vec<TriggerId>) {
    let mut profile = Profile::new(journey);
    let mut sent = Vec::new();
    for batch in batches {
        let mut done = 0;
        loop {
            let plan = plan_user(journey, Snapshots::none(), profile, &batch[done..]);
            done += plan.outcomes.len();
            profile = plan.profile;
            profile.version += u64::from(plan.changed);
            sent.extend(profile.outbox.drain(..).map(|trigger| trigger.id));
            if done == batch.len() {
                break;
            }
        }
    }
    profile.version = 0;
    (profile, sent)
}

fn serial(journey: &Journey, history: &History) -> (Profile, Vec<TriggerId>) {
    run(journey, history.chunks(1))
}

fn set(ids: &[TriggerId]) -> BTreeSet<TriggerId> {
    ids.iter().copied().collect()
}

/// `count` clicks, one a second, from one shard.
fn clicks(count: u64) -> History {
    (0..count)
        .map(|number| {
            let at = time(number as i64 * 1000);
            arrived(event(&format!("e{number}"), "click", at), 0, number + 1, at)
        })
        .collect()
}

fn outcomes(journey: &Journey, history: &History) -> Vec<EventOutcome> {
    plan_user(journey, Snapshots::none(), Profile::new(journey), history).outcomes
}

const EVERY_CLICK: &str = r#"
journey: test
contents: [{ id: c }]
triggers: [{ id: always, on: click, offer: c, slot: s }]
"#;

static EVERYTHING: LazyLock<Journey> = LazyLock::new(|| {
    journey(
        r#"
journey: test
dedupe: { last: 8 }
sessions: { idle_timeout: 30m }
ignore: noise
steps:
  - { id: clicked, on: click }
  - { id: big, on: [click, view], when: event.properties.amount > 2 }
features:
  clicks: { count: click }
  clicks_10m: { count: click, within: 10m }
  views_2h: { count: view, within: 2h }
  amount: { sum: properties.amount, on: [click, view] }
  amount_1h: { sum: properties.amount, on: any, within: 1h }
  last: { last: properties.page, on: [click, view] }
  recent: { recent: properties.page, on: [click, view], limit: 3 }
  recent_20m: { recent: properties.page, on: view, limit: 3, within: 20m }
  first: { first_seen: any }
  latest: { last_seen: view }
  sessions: { sessions: count }
  duration: { sessions: duration }
contents: [{ id: c }, { id: d, unless: features.clicks > 6 }]
triggers:
  - { id: first, on: click, offer: c, slot: a, limit: 1 }
  - { id: often, on: [click, view], when: features.clicks_10m >= 2, offer: d, slot: a, cooldown: 5m, priority: 1 }
  - { id: other, on: view, unless: steps.big.done, offer: c, slot: b }
"#,
    )
});

/// An event of a random history: seconds after the one before, type, id (of few, so that some repeat), amount in
/// thousandths, page.
type Drawn = (i64, u8, u16, i64, u8);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let seconds = prop_oneof![6 => 0i64..90, 2 => 0i64..1200, 1 => 0i64..7200];
    prop::collection::vec((seconds, 0u8..8, 0u16..400, -1000i64..5000, 0u8..6), 0..60)
}

fn drawn_event(drawn: &Drawn, id: &str, at: Timestamp) -> Event<'static> {
    let (_, kind, _, amount, page) = *drawn;
    let event_type = ["click", "click", "click", "view", "view", "view", "noise", "other"][usize::from(kind)];
    let mut event = event(id, event_type, at);
    // Pages of all kinds; two of none.
    let page = ["\"a\"", "\"b\"", "1", "1.0", "null", "[]"][usize::from(page)];
    let json = format!("{{\"amount\":{:.3},\"page\":{page}}}", amount as f64 / 1000.0);
    event.properties = Properties {
        object: Some(json.leak()),
        unknown: Vec::new(),
    };
    event
}

/// A history in one shard, arriving as it happens.
fn history(drawn: &[Drawn], unique_ids: bool) -> History {
    let mut at_ms = 0;
    let events = drawn.iter().enumerate().map(|(index, one)| {
        at_ms += one.0 * 1000;
        let id = if unique_ids {
            format!("e{index}")
        } else {
            format!("e{}", one.2 % 40)
        };
        arrived(
            drawn_event(one, &id, time(at_ms)),
            0,
            index as u64 + 1,
            time(at_ms + 50),
        )
    });
    events.collect()
}

/// The values of all features, and steps and sessions: what must not depend on the order between shards.
fn known(journey: &Journey, profile: &Profile) -> Vec<String> {
    let features = (0..journey.features.len()).map(|index| {
        format!(
            "{}={}",
            journey.features[index].name,
            profile.feature(journey, index, profile.now)
        )
    });
    let rest = [
        format!("{:?}", profile.steps),
        format!("{:?}", profile.sessions.latest()),
        format!("{}", profile.applied_events),
    ];
    features.chain(rest).collect()
}

// ---- P2, P5, P7: once

#[test]
fn p2_redelivery_of_any_prefix_changes_nothing() {
    for journey in [journey(EVERY_CLICK), journey(DEFAULT_JOURNEY)] {
        let history = clicks(12);
        let (profile, sent) = serial(&journey, &history);
        for prefix in 0..=history.len() {
            let plan = plan_user(&journey, Snapshots::none(), profile.clone(), &history[..prefix]);
            assert_eq!(plan.outcomes, vec![EventOutcome::Redelivered; prefix]);
            assert_eq!((plan.changed, &plan.profile), (false, &profile));
            assert_eq!(run(&journey, [&history[..prefix], &history[..]]).1, sent);
        }
    }
}

#[test]
fn p2_a_producers_repeat_within_the_last_n_ids_takes_effect_once() {
    for (yaml, last) in [
        ("journey: j", DEDUPE_LAST_DEFAULT),
        ("journey: j\ndedupe: { last: 3 }", 3),
    ] {
        let journey = journey(yaml);
        for (between, expected) in [
            (0, EventOutcome::Duplicate),
            (last - 1, EventOutcome::Duplicate),
            (last, EventOutcome::Applied),
        ] {
            let mut history = clicks(between as u64 + 1);
            let number = history.len() as u64 + 1;
            history.push(arrived(event("e0", "click", time(0)), 0, number, time(60_000)));
            assert_eq!(
                outcomes(&journey, &history).last(),
                Some(&expected),
                "{between} of {last}"
            );
        }
    }
}

#[test]
fn p2_a_repeat_stays_one_when_its_record_is_delivered_again_much_later() {
    let journey = journey("journey: j\ndedupe: { last: 2 }");
    let first = arrived(event("x", "click", time(0)), 0, 1, time(0));
    let repeat = arrived(event("x", "click", time(0)), 0, 2, time(1));
    let mut history = vec![first, repeat.clone()];
    // Another shard's events push the id out of what is remembered.
    history.extend((1..=5).map(|number| arrived(event(&format!("y{number}"), "click", time(2)), 1, number, time(2))));
    history.push(repeat);
    let (profile, _) = serial(&journey, &history);
    assert_eq!(profile.applied_events, 6);
}

#[test]
fn ignored_types_leave_no_trace() {
    let journey = journey("journey: j\nignore: [noise]\nfeatures: { all: { count: any } }");
    let history = vec![arrived(event("e", "noise", time(0)), 0, 1, time(0))];
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
    assert_eq!((plan.outcomes, plan.changed), (vec![EventOutcome::Ignored], false));
    assert_eq!(plan.profile, Profile::new(&journey));
}

#[test]
fn p2_records_of_one_aggregate_are_told_apart_by_sub_sequence_number() {
    let journey = journey("journey: j");
    let mut history = clicks(3);
    for (index, arrived) in history.iter_mut().enumerate() {
        arrived.position = Position {
            sequence_number: 7u64.into(),
            sub_sequence_number: index as u64,
        };
    }
    assert_eq!(outcomes(&journey, &history), [EventOutcome::Applied; 3]);
    let (profile, _) = serial(&journey, &history);
    assert_eq!(
        plan_user(&journey, Snapshots::none(), profile, &history).outcomes,
        [EventOutcome::Redelivered; 3]
    );
}

#[test]
fn p5_a_triggers_id_follows_from_user_rule_and_cause_and_never_changes() {
    // Written down: consumers keep these ids, so another value is a break.
    assert_eq!(TriggerId::of("u", "r", "e").to_string(), TRIGGER_ID_OF_U_R_E);
    let ids = [
        ("u", "r", "e"),
        ("ur", "", "e"),
        ("u", "re", ""),
        ("v", "r", "e"),
        ("u", "s", "e"),
        ("u", "r", "f"),
    ];
    let distinct: BTreeSet<_> = ids
        .iter()
        .map(|(user, rule, cause)| TriggerId::of(user, rule, cause))
        .collect();
    assert_eq!(distinct.len(), ids.len());
}
const TRIGGER_ID_OF_U_R_E: &str = "5db9c64dd6c91b0a8dac3bb17776c064";

#[test]
fn p5_a_redelivered_batch_plans_to_nothing_but_its_unsent_triggers() {
    let journey = journey(EVERY_CLICK);
    let history = clicks(3);
    let stored = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history).profile;
    assert_eq!(stored.outbox.len(), 3);
    let again = plan_user(&journey, Snapshots::none(), stored.clone(), &history);
    assert!(!again.changed);
    assert_eq!(again.profile, stored);
    assert_eq!(again.rules, RuleCounts::new(&journey));
}

// ---- P8: bounded

#[test]
fn p8_planning_stops_at_a_full_outbox_and_goes_on_when_it_was_sent() {
    let journey = journey(EVERY_CLICK);
    let history = clicks(100);
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
    assert_eq!(
        (plan.outcomes.len(), plan.profile.outbox.len()),
        (OUTBOX_TRIGGERS_MAX, OUTBOX_TRIGGERS_MAX)
    );
    let full = plan_user(
        &journey,
        Snapshots::none(),
        plan.profile.clone(),
        &history[OUTBOX_TRIGGERS_MAX..],
    );
    assert_eq!((full.outcomes.len(), full.changed), (0, false));
    let (_, sent) = run(&journey, [&history[..]]);
    assert_eq!((sent.len(), set(&sent).len()), (100, 100));
    assert_eq!(sent, serial(&journey, &history).1);
}

#[test]
fn p8_one_event_that_fires_every_rule_stays_within_the_limit() {
    let rules = (0..RULES_MAX).map(|rule| format!("  - {{ id: r{rule}, on: click, offer: c, slot: s{rule} }}\n"));
    let text = format!(
        "journey: j\ncontents: [{{ id: c }}]\ntriggers:\n{}",
        rules.collect::<String>()
    );
    let journey = journey(&text);
    let history = clicks(3);
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
    assert_eq!((plan.outcomes.len(), plan.profile.outbox.len()), (1, RULES_MAX));
    assert_eq!(run(&journey, [&history[..]]).1.len(), 3 * RULES_MAX);
}

#[test]
fn p8_a_hot_user_is_one_plan_with_a_bounded_profile() {
    let journey = journey(DEFAULT_JOURNEY);
    let history = clicks(5000);
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
    assert!(plan.changed);
    assert_eq!(plan.outcomes, vec![EventOutcome::Applied; 5000]);
    let profile = plan.profile;
    assert_eq!(
        (profile.recent_event_ids.len(), profile.guard.entries().len()),
        (DEDUPE_LAST_DEFAULT, 1)
    );
    assert!(profile.outbox.len() <= OUTBOX_TRIGGERS_MAX);
}

// ---- rules

/// A row: the journey's contents and triggers, the events as (minute, type), and what comes of it: the rules that
/// fired, each with its minute.
#[test]
fn rules_fire_as_the_journey_says() {
    type Row = (
        &'static str,
        &'static str,
        &'static [(i64, &'static str)],
        &'static [(&'static str, i64)],
    );
    let rows: &[Row] = &[
        (
            "cooldown is counted from the last firing, by arrival",
            "  - { id: r, on: click, offer: c, slot: s, cooldown: 10m }",
            &[(0, "click"), (9, "click"), (10, "click"), (19, "click"), (20, "click")][..],
            &[("r", 0), ("r", 10), ("r", 20)][..],
        ),
        (
            "limit is for ever",
            "  - { id: r, on: click, offer: c, slot: s, limit: 2 }",
            &[(0, "click"), (1, "click"), (2, "click"), (90_000, "click")],
            &[("r", 0), ("r", 1)],
        ),
        (
            "the highest priority wins a slot; equal ones in the order of the file",
            "  - { id: low, on: click, offer: c, slot: s, priority: -1 }
  - { id: mid, on: click, offer: c, slot: s }
  - { id: late, on: click, offer: c, slot: s, priority: 2, limit: 1 }
  - { id: high, on: click, offer: c, slot: s, priority: 2, limit: 1 }
  - { id: elsewhere, on: click, offer: c, slot: t, limit: 1 }",
            &[(0, "click"), (1, "click"), (2, "click")],
            &[("late", 0), ("elsewhere", 0), ("high", 1), ("mid", 2)],
        ),
        (
            "what lost is not counted as fired",
            "  - { id: a, on: click, offer: c, slot: s, priority: 1, limit: 1 }
  - { id: b, on: click, offer: c, slot: s, limit: 1, cooldown: 1h }",
            &[(0, "click"), (1, "click"), (2, "click")],
            &[("a", 0), ("b", 1)],
        ),
        (
            "unless excludes",
            "  - { id: r, on: view, unless: features.clicks > 0, offer: c, slot: s }",
            &[(0, "view"), (1, "click"), (2, "view")],
            &[("r", 0)],
        ),
        (
            "an unless without an answer does not exclude; a when without one does not hold",
            "  - { id: r, on: view, unless: event.properties.x > 0, offer: c, slot: s }
  - { id: q, on: view, when: event.properties.x > 0, offer: c, slot: t }",
            &[(0, "view")],
            &[("r", 0)],
        ),
        (
            "what is offered must be eligible",
            "  - { id: r, on: click, offer: until_two, slot: s }
  - { id: q, on: click, offer: from_two, slot: t }",
            &[(0, "click"), (1, "click"), (2, "click")],
            &[("r", 0), ("q", 1), ("q", 2)],
        ),
        (
            "a condition alone may name the events",
            "  - { id: r, when: event.type == 'click' && features.clicks == 2, offer: c, slot: s }",
            &[(0, "click"), (1, "view"), (2, "click"), (3, "view")],
            &[("r", 2)],
        ),
        (
            "any looks at every type",
            "  - { id: r, on: any, when: features.clicks == 1, offer: c, slot: s }",
            &[(0, "view"), (1, "click"), (2, "unheard_of")],
            &[("r", 1), ("r", 2)],
        ),
    ];
    for (what, triggers, events, expected) in rows {
        let text = format!(
            "journey: j\nfeatures: {{ clicks: {{ count: click }} }}\ncontents:\n  - {{ id: c }}\n  - {{ id: until_two, \
             unless: features.clicks >= 2 }}\n  - {{ id: from_two, when: features.clicks >= 2 }}\ntriggers:\n{triggers}\n"
        );
        let journey = journey(&text);
        let history: History = events
            .iter()
            .enumerate()
            .map(|(index, (minute, event_type))| {
                let at = time(minute * MINUTE_MS);
                arrived(event(&format!("e{index}"), event_type, at), 0, index as u64 + 1, at)
            })
            .collect();
        let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
        let outbox = plan.profile.outbox.iter();
        let fired: Vec<_> = outbox
            .map(|trigger| (trigger.rule.as_str(), trigger.decided_at.ms_since(time(0)) / MINUTE_MS))
            .collect();
        assert_eq!(fired, *expected, "{what}");
    }
}

#[test]
fn every_look_of_a_rule_is_counted_with_how_it_came_out() {
    let journey = journey(
        r#"
journey: j
features: { clicks: { count: click } }
contents: [{ id: c }, { id: never, when: 1 > 2 }]
triggers:
  - { id: limited, on: click, offer: c, slot: a, limit: 1 }
  - { id: cooling, on: click, offer: c, slot: b, cooldown: 1h }
  - { id: "false", on: click, when: features.clicks > 9, offer: c, slot: c }
  - { id: failed, on: click, when: event.properties.x > 9, offer: c, slot: d }
  - { id: ineligible, on: click, offer: never, slot: e }
  - { id: lost, on: click, offer: c, slot: a, limit: 9, priority: -1 }
"#,
    );
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &clicks(2));
    for (rule, outcome, count) in [
        (0, RuleOutcome::Fired, 1),
        (0, RuleOutcome::LimitReached, 1),
        (1, RuleOutcome::Fired, 1),
        (1, RuleOutcome::CoolingDown, 1),
        (2, RuleOutcome::ConditionFalse, 2),
        (3, RuleOutcome::ConditionFailed, 2),
        (4, RuleOutcome::ContentIneligible, 2),
        (5, RuleOutcome::LostToPriority, 1),
        (5, RuleOutcome::Fired, 1),
    ] {
        assert_eq!(
            plan.rules.get(rule, outcome),
            count,
            "{} {}",
            journey.rules[rule].id,
            outcome.name()
        );
    }
    let total: u64 = (0..6)
        .flat_map(|rule| RuleOutcome::ALL.map(|outcome| plan.rules.get(rule, outcome)))
        .sum();
    assert_eq!(total, 12, "every look has one outcome");
    assert_eq!(plan.profile.outbox[0].reason.won_over, ["lost"]);
}

#[test]
fn a_trigger_says_what_it_saw() {
    let journey = journey(DEFAULT_JOURNEY);
    let mut history = clicks(5);
    history[4].event.category = Some("forumng".into());
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history[..4]);
    assert!(plan.profile.outbox.is_empty());
    // The event that completes the step is folded first, so the rule sees it done.
    assert!(
        plan_user(&journey, Snapshots::none(), plan.profile.clone(), &history[4..])
            .profile
            .outbox
            .is_empty()
    );
    history[4].event.category = Some("quiz".into());
    let trigger = plan_user(&journey, Snapshots::none(), plan.profile, &history[4..])
        .profile
        .outbox
        .remove(0);
    let saw: Vec<_> = trigger
        .reason
        .saw
        .iter()
        .map(|seen| format!("{}={}", seen.name, seen.json))
        .collect();
    assert_eq!(saw, ["features.clicks_10m=5", "steps.first_discussion.done=false"]);
    assert_eq!(
        trigger.reason.condition.as_deref(),
        Some("features.clicks_10m >= 5 && !steps.first_discussion.done")
    );
    assert_eq!(
        (trigger.rule.as_str(), trigger.offer.as_str(), trigger.slot.as_str()),
        ("high_intent", "join-discussion", "in_app")
    );
    assert_eq!((trigger.cause.event_id.as_str(), trigger.cause.at), ("e4", time(4000)));
    assert_eq!(trigger.journey_version, journey.version);
}

#[test]
fn planning_stops_before_an_event_that_names_a_profile_which_is_not_merged() {
    let journey = journey(EVERY_CLICK);
    let mut history = clicks(3);
    history[1].event.alias = Some("anonymous:a".into());
    let plan = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &history);
    assert_eq!(plan.outcomes, [EventOutcome::Applied]);
    assert_eq!(plan.stopped, Some(Stopped::AliasToMerge("anonymous:a".to_owned())));
    assert_eq!(plan.profile.applied_events, 1);
    // Once it was merged, or was found not to need it, planning goes on.
    let mut merged = plan.profile.clone();
    merged.aliases.push(hash_bytes(b"anonymous:a"));
    let rest = plan_user(&journey, Snapshots::none(), merged.clone(), &history[1..]);
    assert_eq!((rest.outcomes.len(), rest.stopped), (2, None));
    // What has no effect merges nothing: it was applied before, or is a repeat.
    let again = plan_user(&journey, Snapshots::none(), rest.profile, &history);
    assert_eq!(
        (again.outcomes, again.stopped),
        (vec![EventOutcome::Redelivered; 3], None)
    );
    let mut repeat = history[0].clone();
    repeat.event.alias = Some("anonymous:b".into());
    repeat.position.sequence_number = 99u64.into();
    assert_eq!(
        plan_user(&journey, Snapshots::none(), merged, [&repeat]).outcomes,
        [EventOutcome::Duplicate]
    );
}

// ---- P11: the latest is by event time

#[test]
fn p11_an_old_event_never_overwrites_a_newer_value() {
    let journey = journey(
        "journey: j\nsteps: [{ id: s, on: click }]\nfeatures:\n  last: { last: category, on: any }\n  seen: { last_seen: any }\n  \
         first: { first_seen: any }\n  c: { count: any, within: 10m }\ncontents: [{ id: x }]\ntriggers: [{ id: t, on: any, when: \
         traits.plan == 'a', offer: x, slot: s }]\n",
    );
    let at = |minute: i64, number: u64, category: &'static str, plan: &'static str| {
        let mut event = event(&format!("e{number}"), "click", time(minute * MINUTE_MS));
        event.category = Some(category.into());
        event.traits = Some(plan);
        arrived(event, 0, number, time(60 * MINUTE_MS))
    };
    let history = vec![
        at(59, 1, "new", r#"{"plan":"new"}"#),
        at(58, 2, "old", r#"{"plan":"old"}"#),
        at(10, 3, "older", r#"{"plan":"older"}"#),
    ];
    let (profile, _) = serial(&journey, &history);
    let value = |index| profile.feature(&journey, index, profile.now);
    assert_eq!(value(0), Value::Text("new".into()));
    assert_eq!(value(1), Value::Int(time(59 * MINUTE_MS).epoch_ms()));
    assert_eq!(value(2), Value::Int(time(10 * MINUTE_MS).epoch_ms()));
    assert_eq!(
        value(3),
        Value::Int(2),
        "the one from 50 minutes ago is outside of the window"
    );
    assert_eq!(profile.steps[0], Some(time(10 * MINUTE_MS)));
    assert_eq!(
        profile.traits[0].as_ref().map(|known| &known.value),
        Some(&crate::value::Scalar::Text("new".into()))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// P2, P5, P7: any split into batches, with any redelivery of what came before, is the one serial fold.
    #[test]
    fn p2_any_split_and_redelivery_is_the_serial_fold(
        drawn in drawn(),
        steps in prop::collection::vec((0usize..12, 0usize..25, prop::bool::ANY), 1..40),
        default_journey: bool,
    ) {
        let default = journey(DEFAULT_JOURNEY);
        let journey = if default_journey { &default } else { &*EVERYTHING };
        let history = history(&drawn, false);
        let (expected, expected_sent) = serial(journey, &history);
        let mut batches = Vec::new();
        let (mut cursor, mut turn) = (0, 0);
        while cursor < history.len() {
            let (forward, back, lost) = steps[turn % steps.len()];
            turn += 1;
            let start = cursor.saturating_sub(back);
            let end = (cursor + forward.max(usize::from(turn > 50))).min(history.len());
            batches.push(&history[start..end]);
            // Delivered, but its answer was lost: all of it comes again.
            if lost {
                batches.push(&history[start..end]);
            }
            cursor = end;
        }
        let (profile, sent) = run(journey, batches.iter().copied());
        prop_assert_eq!(&profile, &expected);
        prop_assert_eq!(&sent, &expected_sent);
        // P7: the same input, the same plan.
        prop_assert_eq!(run(journey, batches), (profile, sent));
    }

    /// P3, P11: a user's events over several shards, in any interleaving of these.
    #[test]
    fn p11_any_interleaving_of_shards_gives_the_same_features_steps_and_sessions(
        drawn in prop::collection::vec((0i64..110 * 60, 0u8..8, 0u16..400, -1000i64..5000, 0u8..6), 0..50),
        shards in prop::collection::vec(0usize..3, 50),
        order in prop::collection::vec(0usize..3, 200),
        late_ms in prop::collection::vec(0i64..10 * MINUTE_MS, 50),
    ) {
        // Whole minutes at times, so that events of different shards share a time.
        let mut queues: [std::collections::VecDeque<ArrivedEvent<'static>>; 3] = Default::default();
        let mut history = Vec::new();
        for (index, one) in drawn.iter().enumerate() {
            let at = time(if one.2 % 3 == 0 { one.0 / 60 * MINUTE_MS } else { one.0 * 1000 });
            let event = drawn_event(one, &format!("e{index}"), at);
            let arrived = arrived(event, shards[index], index as u64 + 1, at.plus_ms(late_ms[index]));
            queues[shards[index]].push_back(arrived.clone());
            history.push(arrived);
        }
        let (profile, _) = serial(&EVERYTHING, &history);
        let mut interleaved = Vec::new();
        for shard in order.iter().copied().chain([0, 1, 2]) {
            // At the end, whatever a shard still has.
            let take = if interleaved.len() >= order.len() { usize::MAX } else { 1 };
            interleaved.extend((0..take).map_while(|_| queues[shard].pop_front()));
        }
        for queue in &mut queues {
            interleaved.extend(queue.drain(..));
        }
        prop_assert_eq!(interleaved.len(), history.len());
        let (other, _) = serial(&EVERYTHING, &interleaved);
        prop_assert_eq!(known(&EVERYTHING, &other), known(&EVERYTHING, &profile));
    }

    /// P11: shuffled within ten minutes, nothing is counted otherwise, and "last" still goes by event time.
    #[test]
    fn p11_shuffling_within_ten_minutes_changes_no_feature(drawn in drawn(), keys in prop::collection::vec(0i64..10 * MINUTE_MS, 60)) {
        let in_order = history(&drawn.iter().map(|one| (one.0 + 1, one.1, one.2, one.3, one.4)).collect::<Vec<_>>(), true);
        let mut shuffled: Vec<_> = in_order.iter().cloned().zip(keys).collect();
        shuffled.sort_by_key(|(arrived, key)| arrived.event.at.plus_ms(*key));
        let shuffled: History = shuffled
            .into_iter()
            .enumerate()
            .map(|(index, (one, _))| arrived(one.event.clone(), 0, index as u64 + 1, one.arrived_at))
            .collect();
        let (expected, _) = serial(&EVERYTHING, &in_order);
        let (profile, _) = serial(&EVERYTHING, &shuffled);
        prop_assert_eq!(known(&EVERYTHING, &profile), known(&EVERYTHING, &expected));
    }

    /// Every kind of feature against one that keeps all events and computes from scratch.
    #[test]
    fn features_are_what_counting_all_events_gives(drawn in drawn(), shards in prop::collection::vec(0usize..3, 60), late_ms in prop::collection::vec(0i64..9 * MINUTE_MS, 60)) {
        let mut history = history(&drawn, true);
        for (index, arrived) in history.iter_mut().enumerate() {
            let id = arrived.event.id.clone().into_owned();
            let at = arrived.event.at.minus_ms(late_ms[index]);
            *arrived = crate::testing::arrived(drawn_event(&drawn[index], &id, at), shards[index], index as u64 + 1, arrived.arrived_at);
        }
        let (profile, _) = serial(&EVERYTHING, &history);
        oracle::check(&EVERYTHING, &profile, &history)?;
    }
}

/// Features computed from all of a user's events, without any of the crate's own folding.
mod oracle {
    use super::*;

    fn of_types<'h>(history: &'h History, types: &[&str]) -> Vec<&'h ArrivedEvent<'static>> {
        let mut events: Vec<_> = history
            .iter()
            .filter(|arrived| arrived.event.event_type != "noise")
            .filter(|arrived| types == ["any"] || types.contains(&arrived.event.event_type.as_ref()))
            .collect();
        // By event time, then shard, then stream order: the sort is stable.
        events.sort_by_key(|arrived| (arrived.event.at, crate::feature::short_shard(arrived.shard.key)));
        events
    }

    fn property(arrived: &ArrivedEvent<'_>, name: &str) -> serde_json::Value {
        let object: serde_json::Value = serde_json::from_str(arrived.event.properties.object.unwrap()).unwrap();
        object[name].clone()
    }

    fn pages(events: &[&ArrivedEvent<'static>]) -> Vec<serde_json::Value> {
        let mut pages = Vec::new();
        for arrived in events.iter().rev() {
            let page = property(arrived, "page");
            if !page.is_null() && !page.is_array() && !pages.contains(&page) {
                pages.push(page);
            }
        }
        pages
    }

    fn within<'h>(events: Vec<&'h ArrivedEvent<'static>>, now: Timestamp, ms: i64) -> Vec<&'h ArrivedEvent<'static>> {
        events
            .into_iter()
            .filter(|arrived| now.ms_since(arrived.event.at) < ms)
            .collect()
    }

    fn amount(events: &[&ArrivedEvent<'static>]) -> f64 {
        // Thousandths add exactly.
        let thousandths =
            |arrived: &&ArrivedEvent<'_>| (property(arrived, "amount").as_f64().unwrap() * 1000.0).round() as i64;
        events.iter().map(thousandths).sum::<i64>() as f64 / 1000.0
    }

    pub(super) fn check(journey: &Journey, profile: &Profile, history: &History) -> Result<(), TestCaseError> {
        let get = |name: &str| {
            let index = journey
                .features
                .iter()
                .position(|feature| feature.name == name)
                .unwrap();
            profile.feature(journey, index, profile.now)
        };
        let json = |name: &str| serde_json::from_str::<serde_json::Value>(&get(name).to_string()).unwrap();
        let now = history
            .iter()
            .filter(|arrived| arrived.event.event_type != "noise")
            .map(|arrived| arrived.arrived_at)
            .max();
        let Some(now) = now else { return Ok(()) };
        prop_assert_eq!(profile.now, now);
        let both = ["click", "view"];
        prop_assert_eq!(get("clicks"), Value::Int(of_types(history, &["click"]).len() as i64));
        for (name, types, minutes, tile_ms) in [
            ("clicks_10m", &["click"], 10, 10_000),
            ("views_2h", &["view"], 120, MINUTE_MS),
        ] {
            let Value::Int(count) = get(name) else {
                panic!("a count")
            };
            let least = within(of_types(history, types), now, minutes * MINUTE_MS).len() as i64;
            let most = within(of_types(history, types), now, minutes * MINUTE_MS + tile_ms).len() as i64;
            prop_assert!(
                least <= count && count <= most,
                "{}: {} <= {} <= {}",
                name,
                least,
                count,
                most
            );
        }
        prop_assert_eq!(get("amount"), Value::Float(amount(&of_types(history, &both))));
        let Value::Float(sum) = get("amount_1h") else {
            panic!("a sum")
        };
        // The tiles of an hour are minutes: what is counted is a whole number of them.
        let possible = (0..=MINUTE_MS / 1000).map(|seconds| {
            amount(&within(
                of_types(history, &["any"]),
                now,
                60 * MINUTE_MS + seconds * 1000,
            ))
        });
        prop_assert!(
            possible.into_iter().any(|possible| possible == sum),
            "amount_1h: {}",
            sum
        );
        let all_pages = pages(&of_types(history, &both));
        prop_assert_eq!(json("last"), all_pages.first().cloned().unwrap_or_default());
        prop_assert_eq!(
            json("recent"),
            serde_json::Value::from(all_pages[..all_pages.len().min(3)].to_vec())
        );
        let pages_20m = pages(&within(of_types(history, &["view"]), now, 20 * MINUTE_MS));
        prop_assert_eq!(
            json("recent_20m"),
            serde_json::Value::from(pages_20m[..pages_20m.len().min(3)].to_vec())
        );
        let any = of_types(history, &["any"]);
        prop_assert_eq!(get("first"), Value::Int(any[0].event.at.epoch_ms()));
        let latest = of_types(history, &["view"])
            .last()
            .map_or(Value::Null, |arrived| Value::Int(arrived.event.at.epoch_ms()));
        prop_assert_eq!(get("latest"), latest);
        let mut sessions: Vec<(i64, i64)> = Vec::new();
        for at in any.iter().map(|arrived| arrived.event.at.epoch_ms()) {
            match sessions.last_mut() {
                Some((_, end)) if at - *end <= 30 * MINUTE_MS => *end = at,
                _ => sessions.push((at, at)),
            }
        }
        prop_assert_eq!(get("sessions"), Value::Int(sessions.len() as i64));
        prop_assert_eq!(
            get("duration"),
            Value::Int(sessions.iter().map(|(start, end)| end - start).sum())
        );
        for (index, done) in [
            |_: &ArrivedEvent<'_>| true,
            |arrived: &ArrivedEvent<'_>| property(arrived, "amount").as_f64().unwrap() > 2.0,
        ]
        .into_iter()
        .enumerate()
        {
            let types: &[&str] = if index == 0 { &["click"] } else { &both };
            let first = of_types(history, types)
                .into_iter()
                .find(|arrived| done(arrived))
                .map(|arrived| arrived.event.at);
            prop_assert_eq!(profile.steps[index], first);
        }
        Ok(())
    }
}
