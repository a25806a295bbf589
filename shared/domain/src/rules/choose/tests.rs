use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::bandit::snapshot::ModelSnapshot;
use crate::bandit::state::{Outcome, SlotState};
use crate::event::{ArrivedEvent, Event};
use crate::hash::hash_parts;
use crate::plan::plan_user;
use crate::profile::Profile;
use crate::rules::tests::{check, played, record, records};
use crate::snapshots::Models;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};
use crate::trends::{TrendKey, Trends, minute_of};
use crate::trigger::Trigger;

/// A learner that takes `a`, and `b` where there is no `a`.
const A_THEN_B: &str = "slots: { s: { learner: fixed_split, weights: { a: 1, b: 0 } } }\n";

#[test]
fn a_learner_chooses_among_what_is_eligible_and_not_cooling_down() {
    let rows = [
        (
            "the likeliest",
            "contents: [{ id: a }, { id: b }]
triggers: [{ id: r, on: click, choose: [a, b], slot: s }]",
            &["0 click", "1 click"][..],
            &["r 0 a", "r 1 a"][..],
        ),
        (
            "what is not eligible is no candidate",
            "steps: [{ id: done, on: done }]
contents: [{ id: a, unless: steps.done.done }, { id: b, when: steps.done.done }]
triggers: [{ id: r, on: click, choose: [a, b], slot: s }]",
            &["0 click", "1 done", "2 click"],
            &["r 0 a", "r 2 b"],
        ),
        (
            "each one rests for its own cool-down, and when all do, nothing is offered",
            "contents: [{ id: a, cooldown: 10m }, { id: b, cooldown: 5m }]
triggers: [{ id: r, on: click, choose: all, slot: s }]",
            &["0 click", "1 click", "2 click", "6 click", "7 click", "11 click"],
            &["r 0 a", "r 1 b", "r 6 b", "r 11 a"],
        ),
        (
            "a timer chooses anew for each reminder, when that is due",
            "steps: [{ id: done, on: done }]
contents: [{ id: a, unless: steps.done.done }, { id: b }]
triggers: [{ id: t, after: [10m, 20m], since: click, choose: [a, b], slot: s }]",
            &["0 click", "15 done", "60 wake"],
            &["t 10 by 15 a", "t 20 by 60 b"],
        ),
        (
            "an offer that was put off is chosen when it is made",
            "steps: [{ id: done, on: done }]
policy: { quiet_hours: { from: \"00:00\", to: \"01:00\" } }
contents: [{ id: a, unless: steps.done.done }, { id: b, when: steps.done.done }]
triggers: [{ id: r, on: click, choose: [a, b], slot: s }]",
            &["10 click", "30 done", "61 wake"],
            &["r 60 by 61 b"],
        ),
        (
            "who is held out is chosen for alike",
            "policy: { holdout: 100% }
contents: [{ id: a, cooldown: 10m }, { id: b }]
triggers: [{ id: r, on: click, choose: [a, b], slot: s }]",
            &["0 click", "1 click"],
            &["r 0 a held", "r 1 b held"],
        ),
    ];
    for (what, text, lines, expected) in rows {
        check(&[(what, format!("{A_THEN_B}{text}").leak(), lines, expected)]);
    }
}

/// Two slots of which one learns from a context and contents, and all that a choice may read.
const JOURNEY: &str = "journey: j
features: { clicks: { count: click }, kind: { last: category } }
steps: [{ id: done, on: done }]
trends: { likes: { count: like, within: 10m } }
slots:
  s:
    learner: LEARNER
    SHARED
    context:
      clicks: features.clicks
      done: steps.done.done
      plan: { value: traits.plan, one_of: [free, team] }
    contents:
      minutes: content.minutes
      is_video: content.is_video
      likes: trends.likes
      score: score
contents:
  - { id: a, attributes: { minutes: 3, is_video: true } }
  - { id: b, attributes: { minutes: 10, is_video: false } }
  - { id: c, attributes: { minutes: 1, is_video: true }, unless: steps.done.done }
triggers:
  - { id: r, on: click, choose: [a, b, c], slot: s }
  - { id: t, after: 5m, since: click, choose: all, slot: s }
";

fn with(learner: &str, is_shared: bool) -> Journey {
    let shared = if is_shared { "shared: true" } else { "shared: false" };
    let shared = match learner {
        "thompson" | "fixed_split" | "scores" => "",
        _ => shared,
    };
    journey(&JOURNEY.replace("LEARNER", learner).replace("SHARED", shared))
}

fn journeys() -> Vec<Journey> {
    let linear = ["linear_thompson", "linucb", "epsilon_greedy"];
    let linear = linear
        .into_iter()
        .flat_map(|learner| [with(learner, false), with(learner, true)]);
    let others = ["thompson", "fixed_split", "scores"].map(|learner| with(learner, false));
    linear.chain(others).collect()
}

/// A model that learned that `a` is good after many clicks, `b` after few, and `c` hardly ever.
fn trained(journey: &Journey, outcomes: u64) -> SlotState {
    let learner = &journey.learners[0];
    let mut state = SlotState::new(&learner.layout, learner.half_life_ms);
    for number in 0..outcomes {
        let hash = hash_parts(&[&number.to_le_bytes()]);
        let (arm, clicks) = ((hash % 3) as usize, (hash >> 8) as i64 % 20);
        let rate = [
            if clicks > 10 { 0.8 } else { 0.2 },
            if clicks > 10 { 0.2 } else { 0.6 },
            0.1,
        ][arm];
        let values = [Some(Value::Int(clicks)), Some(Value::Bool(false)), None];
        let own = [Some(Value::Int(arm as i64)), Some(Value::Bool(arm != 1)), None, None];
        let drawn = (hash >> 64) as u32 as f64 / f64::from(u32::MAX);
        state.learn(
            &learner.layout,
            &Outcome {
                arm: ["a", "b", "c"][arm],
                context: &learner.layout.context_of(&values, learner.prior.standards()),
                content: &learner.layout.content_of(&own),
                reward: f64::from(u8::from(drawn < rate)),
                previous: None,
                at: time(0),
            },
        );
    }
    state
}

fn snapshots(journey: &Journey, state: &SlotState) -> Snapshots {
    let learner = &journey.learners[0];
    let model = ModelSnapshot::new(state, &learner.layout, &learner.learner);
    let mut trends = Trends::default();
    let likes = TrendKey {
        event_type: "like".to_owned(),
        by: Default::default(),
        id: "b".to_owned(),
    };
    trends.add(minute_of(time(0)), likes, 7);
    Snapshots {
        trends: Arc::new(trends),
        models: Arc::new(Models::new([("s".to_owned(), SlotModel::Ready(Arc::new(model)))])),
    }
}

fn decided(journey: &Journey, snapshots: &Snapshots, records: &[ArrivedEvent<'_>]) -> Vec<Trigger> {
    let mut profile = Profile::new(journey);
    let mut sent = Vec::new();
    for record in records {
        profile = plan_user(journey, snapshots, profile, [record]).profile;
        sent.append(&mut profile.outbox);
    }
    sent
}

fn first(triggers: &[Trigger]) -> (&Trigger, &Choice) {
    let trigger = triggers.first().expect("a decision");
    (trigger, trigger.choice.as_deref().expect("a choice"))
}

fn shown_of(seen: &[SeenValue]) -> String {
    let parts: Vec<String> = seen.iter().map(|seen| format!("{}={}", seen.name, seen.json)).collect();
    parts.join(" ")
}

#[test]
fn a_decision_tells_all_that_was_seen() {
    let journey = with("linear_thompson", true);
    let state = trained(&journey, 500);
    let snapshots = snapshots(&journey, &state);
    let identify = Event {
        traits: Some(r#"{"plan":"team","score.b":0.75}"#),
        ..event("i", "identify", time(0))
    };
    let clicks = records(&["1 click", "2 click", "3 done", "4 click"]);
    let mut all = vec![arrived(identify, 0, 0, time(0))];
    all.extend(clicks);
    let triggers = decided(&journey, &snapshots, &all);
    assert_eq!(triggers.len(), 3);
    let trigger = &triggers[2];
    let choice = trigger.choice.as_deref().expect("a choice");
    assert_eq!(
        (choice.learner.as_str(), choice.fallback, choice.candidates_left_out),
        ("linear_thompson", None, 0)
    );
    assert_eq!(choice.seen.model_version, Some(state.version()));
    assert_eq!(choice.seen.layout, journey.learners[0].layout.fingerprint());
    assert_eq!(shown_of(&choice.context), r#"clicks=3 done=true plan="team""#);
    let candidates: Vec<(&str, String)> = choice
        .candidates
        .iter()
        .map(|candidate| (candidate.content.as_str(), shown_of(&candidate.features)))
        .collect();
    assert_eq!(
        candidates,
        [
            ("a", "minutes=3 is_video=true likes=0 score=null".to_owned()),
            ("b", "minutes=10 is_video=false likes=7 score=0.75".to_owned()),
        ],
        "c is not eligible any more"
    );
    let chosen = choice
        .candidates
        .iter()
        .find(|candidate| candidate.content == trigger.offer)
        .expect("the chosen one");
    assert_eq!(chosen.probability, trigger.propensity);
    assert!(trigger.propensity < 1.0);
    // What the learner is to learn from is what it saw.
    let own = |minutes: i64, is_video: bool, likes: i64, score: Option<f64>| {
        journey.learners[0].layout.content_of(&[
            Some(Value::Int(minutes)),
            Some(Value::Bool(is_video)),
            Some(Value::Int(likes)),
            score.map(Value::Float),
        ])
    };
    let expected = match trigger.offer.as_str() {
        "a" => own(3, true, 0, None),
        _ => own(10, false, 7, Some(0.75)),
    };
    assert_eq!(choice.seen.content, expected);
    assert_eq!(choice.seen.context.dimension(), journey.learners[0].layout.dimension());
}

#[test]
fn by_imported_scores_the_best_is_offered() {
    let journey = with("scores", false);
    for (traits, expected) in [
        (r#"{"score.a":0.2,"score.b":0.75}"#, "b"),
        (r#"{"score.a":3,"score.b":0.75}"#, "a"),
        (r#"{"score.a":-3,"score.b":"no number","score.c":-1.5}"#, "c"),
    ] {
        let identify = Event {
            traits: Some(traits),
            ..event("i", "identify", time(0))
        };
        let all = [arrived(identify, 0, 1, time(0)), record(2, "1 click")];
        let triggers = decided(&journey, Snapshots::none(), &all);
        let (trigger, choice) = first(&triggers);
        assert_eq!((trigger.offer.as_str(), choice.fallback), (expected, None), "{traits}");
    }
}

#[test]
fn p7_contents_are_offered_as_often_as_decisions_say() {
    const USERS: u64 = 4000;
    for learner in ["linear_thompson", "thompson", "epsilon_greedy", "fixed_split"] {
        let journey = with(learner, false);
        let snapshots = snapshots(&journey, &trained(&journey, 60));
        let mut offered: BTreeMap<String, f64> = BTreeMap::new();
        let mut expected: BTreeMap<String, f64> = BTreeMap::new();
        for user in 0..USERS {
            let user = format!("user={user}");
            let triggers = decided(&journey, &snapshots, &[record(1, &format!("0 click {user}"))]);
            let (trigger, choice) = first(&triggers);
            *offered.entry(trigger.offer.clone()).or_default() += 1.0;
            for candidate in &choice.candidates {
                *expected.entry(candidate.content.clone()).or_default() += candidate.probability;
            }
        }
        assert_eq!(expected.len(), 3, "{learner}");
        for (content, expected) in expected {
            let offered = offered.get(&content).copied().unwrap_or_default();
            let error = (expected * (1.0 - expected / USERS as f64)).sqrt();
            assert!(
                (offered - expected).abs() <= 5.0 * error + 1.0,
                "{learner}: {content} {offered} times instead of {expected}"
            );
        }
    }
}

#[test]
fn p7_where_there_is_no_model_the_learner_chooses_as_if_it_had_learned_nothing_and_says_so() {
    let journey = with("linear_thompson", false);
    let state = trained(&journey, 500);
    let other = with("linear_thompson", true);
    let of_another_layout = {
        let text = JOURNEY
            .replace("LEARNER", "linear_thompson")
            .replace("SHARED", "floor: 1%");
        let text = text.replace("      done: steps.done.done\n", "");
        crate::testing::journey(&text)
    };
    let model = |model: SlotModel| Snapshots {
        models: Arc::new(Models::new([("s".to_owned(), model)])),
        ..Snapshots::default()
    };
    let unreadable = model(SlotModel::Unreadable);
    let stranger = trained(&of_another_layout, 100);
    // A state of another layout, as a newer journey finds it stored.
    let older = model(SlotModel::Ready(Arc::new(ModelSnapshot::new(
        &stranger,
        &journey.learners[0].layout,
        &journey.learners[0].learner,
    ))));
    let ready = snapshots(&journey, &state);
    for (what, journey, snapshots, fallback, version) in [
        (
            "none is stored",
            &journey,
            Snapshots::none(),
            Some(Fallback::Missing),
            None,
        ),
        (
            "it can't be read",
            &journey,
            &unreadable,
            Some(Fallback::Unreadable),
            None,
        ),
        (
            "it is of another layout",
            &journey,
            &older,
            Some(Fallback::Missing),
            None,
        ),
        ("of another journey", &other, &older, Some(Fallback::Missing), None),
        ("it is there", &journey, &ready, None, Some(state.version())),
    ] {
        let triggers = decided(journey, snapshots, &records(&["0 click"]));
        let (_, choice) = first(&triggers);
        assert_eq!(
            (choice.fallback, choice.seen.model_version),
            (fallback, version),
            "{what}"
        );
        let even = choice
            .candidates
            .iter()
            .all(|candidate| (candidate.probability - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(
            even,
            fallback.is_some() && !std::ptr::eq(journey, &other),
            "{what}: {choice:?}"
        );
    }
    // A split is one whatever was learned.
    let split = with("fixed_split", false);
    let triggers = decided(&split, &unreadable, &records(&["0 click"]));
    assert_eq!(first(&triggers).1.fallback, None);
}

#[test]
fn a_removed_content_drops_out_and_a_new_one_starts_with_the_prior() {
    let journey = with("linear_thompson", false);
    let state = trained(&journey, 2000);
    let changed = JOURNEY
        .replace("LEARNER", "linear_thompson")
        .replace("SHARED", "shared: false");
    let changed = changed.replace(
        "{ id: b, attributes: { minutes: 10",
        "{ id: fresh, attributes: { minutes: 10",
    );
    let changed = crate::testing::journey(&changed.replace("choose: [a, b, c]", "choose: [a, fresh, c]"));
    let snapshots = snapshots(&changed, &state);
    let triggers = decided(&changed, &snapshots, &records(&["0 click"]));
    let (_, choice) = first(&triggers);
    let told: Vec<(&str, f64, f64)> = choice
        .candidates
        .iter()
        .map(|candidate| (candidate.content.as_str(), candidate.probability, candidate.spread))
        .collect();
    let [("a", _, known), ("fresh", likely, spread), ("c", unlikely, _)] = told[..] else {
        panic!("{told:?}")
    };
    assert!(spread > 3.0 * known && likely > 0.1 && unlikely < likely, "{told:?}");
    let sum: f64 = told.iter().map(|(_, probability, _)| probability).sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn p8_what_a_decision_says_of_a_choice_is_bounded() {
    let long = "x".repeat(200);
    for (count, id, features, told, with_features) in [
        (20, "content", 2, 20, 20),
        (200, "content", 2, CANDIDATES_SHOWN_MAX, CANDIDATES_SHOWN_MAX),
        (200, long.as_str(), 0, 17, 17),
        (40, "content", 16, CANDIDATES_SHOWN_MAX, 6),
    ] {
        let attributes: Vec<String> = (0..features)
            .map(|number| format!("attribute_{number}: {number}.25"))
            .collect();
        let attributes = attributes.join(", ");
        let values: String = (0..features)
            .map(|number| format!("      attribute_{number}_of_content: content.attribute_{number}\n"))
            .collect();
        let contents: String = (0..count)
            .map(|number| format!("  - {{ id: {id}-{number}, attributes: {{ {attributes} }} }}\n"))
            .collect();
        let values = if values.is_empty() {
            String::new()
        } else {
            format!("    contents:\n{values}")
        };
        let text = format!(
            "journey: j\nslots:\n  s:\n    learner: fixed_split\n{values}contents:\n{contents}triggers: [{{ id: r, on: click, choose: all, slot: s }}]\n"
        );
        let journey = crate::testing::journey(&text);
        for number in 1..20 {
            let triggers = decided(&journey, Snapshots::none(), &[record(number, "0 click")]);
            let (trigger, choice) = first(&triggers);
            let candidates = &choice.candidates;
            assert_eq!(
                (candidates.len(), choice.candidates_left_out),
                (told, count - told),
                "{count}"
            );
            let of_candidates = candidates
                .iter()
                .map(|candidate| candidate.content.len() + NUMBERS_BYTES + bytes_of(&candidate.features));
            let all = of_candidates.sum::<usize>() + bytes_of(&choice.context);
            assert!(all <= CHOICE_BYTES_MAX, "{all} bytes");
            let chosen = candidates.iter().find(|candidate| candidate.content == trigger.offer);
            assert_eq!(chosen.map(|chosen| chosen.features.len()), Some(features));
            let full = candidates
                .iter()
                .filter(|candidate| candidate.features.len() == features);
            assert_eq!(full.count(), with_features, "{count} of {features}");
        }
    }
}

#[test]
fn why_a_learner_offers_nothing_is_told() {
    let text = "journey: j
steps: [{ id: done, on: done }]
slots: { s: { learner: fixed_split } }
contents: [{ id: a, unless: steps.done.done, cooldown: 1h }, { id: b, unless: steps.done.done, cooldown: 10m }]
triggers:
  - { id: r, on: [click, done], choose: [a, b], slot: s, limit: 9 }
";
    let journey = crate::testing::journey(text);
    let detail = |lines: &[&str]| {
        let (_, profile, _) = played(&journey, &records(lines));
        let event = Event {
            user: "u".into(),
            ..Event::default()
        };
        let scope = Scope {
            journey: &journey,
            event: &event,
            profile: &profile,
            snapshots: Snapshots::none(),
            now: profile.now,
        };
        let standing = crate::rules::choice(&scope, 0).expect("it chooses");
        let refused: Vec<bool> = standing.candidates.iter().map(|one| one.refused.is_some()).collect();
        (crate::rules::consider(&scope, 0).detail, refused)
    };
    assert_eq!(detail(&[]), ("fired".to_owned(), vec![false, false]));
    let (told, refused) = detail(&["0 click", "1 click"]);
    assert!(
        told.starts_with("all 2 candidates that are eligible are cooling down, the first until 2024-01-01T00:1"),
        "{told}"
    );
    assert_eq!(refused, [true, true]);
    let (told, refused) = detail(&["0 click", "1 done"]);
    assert_eq!(told, "none of 2 candidates is eligible; a: `steps.done.done` holds");
    assert_eq!(refused, [true, true]);
}

/// An event of a user, so many minutes after the one before, of a kind.
type Step = (i64, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0i64..15, any::<u8>()), 1..25)
}

fn history(drawn: &[Step]) -> Vec<ArrivedEvent<'static>> {
    let mut minute = 0;
    let mut events = Vec::new();
    for (number, (later, kind)) in drawn.iter().enumerate() {
        minute += later;
        let at = time(minute * MINUTE_MS);
        let event_type = ["click", "click", "done", "identify"][usize::from(kind % 4)];
        let mut event = event(&format!("e{number}"), event_type, at);
        if event_type == "identify" {
            event.traits = Some([r#"{"plan":"team"}"#, r#"{"score.a":0.5,"score.c":2}"#][usize::from(kind / 4 % 2)]);
        }
        events.push(arrived(event, 0, number as u64 + 1, at));
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The same events, profile, journey and snapshots give the same plan, choices included, and one record at a time the same
    /// as all at once. With another model version the decision says which it was.
    #[test]
    fn p7_planning_twice_chooses_the_same(drawn in steps(), outcomes in 0u64..200) {
        let events = history(&drawn);
        for journey in journeys() {
            let state = trained(&journey, outcomes);
            let one = snapshots(&journey, &state);
            let again = snapshots(&journey, &state.clone());
            let plan = |snapshots| plan_user(&journey, snapshots, Profile::new(&journey), &events);
            let (first_plan, second_plan) = (plan(&one), plan(&again));
            prop_assert_eq!(&first_plan, &second_plan);
            for trigger in &first_plan.profile.outbox {
                let choice = trigger.choice.as_ref().expect("a choice");
                let sum: f64 = choice.candidates.iter().map(|candidate| candidate.probability).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9);
                let chosen = choice.candidates.iter().find(|candidate| candidate.content == trigger.offer);
                prop_assert_eq!(chosen.map(|chosen| chosen.probability), Some(trigger.propensity));
                let learns = journey.learners[0].learner.learns();
                prop_assert_eq!(choice.seen.model_version, learns.then(|| state.version()));
            }
            if first_plan.stopped.is_none() {
                let ids = |triggers: &[Trigger]| -> Vec<(TriggerId, String)> {
                    triggers.iter().map(|trigger| (trigger.id, trigger.offer.clone())).collect()
                };
                prop_assert_eq!(ids(&decided(&journey, &one, &events)), ids(&first_plan.profile.outbox));
            }
            // A redelivered batch plans to nothing but what is unsent.
            let redelivered = plan_user(&journey, &again, first_plan.profile.clone(), &events[..first_plan.outcomes.len()]);
            prop_assert_eq!(&redelivered.profile.outbox, &first_plan.profile.outbox);
            prop_assert!(!redelivered.changed);
        }
    }
}
