use std::collections::BTreeMap;

use proptest::prelude::*;

use super::context::{Content, Context, Feature, FeatureKind, Layout, LayoutError, Standards};
use super::learner::{Algorithm, Learner, Scope};
use super::snapshot::{Candidate, Choice, ModelSnapshot};
use super::state::{Learned, Outcome, SlotState, StoredSlot};
use super::statistics::Statistics;
use crate::bandit::limits::{BANDIT_DIMENSION_MAX, LEARNED_ARMS_MAX};
use crate::hash::hash_parts;
use crate::time::Timestamp;
use crate::value::Value;

const ARMS: [&str; 4] = ["a", "b", "c", "d"];
const HALF_LIFE_MS: i64 = 24 * 60 * 60 * 1000;
const DYNAMODB_ITEM_BYTES: usize = 400 * 1024;

fn feature(name: &str, kind: FeatureKind) -> Feature {
    Feature {
        name: name.to_owned(),
        kind,
    }
}

fn layout() -> Layout {
    let plans = vec!["team".to_owned(), "solo".to_owned()];
    Layout::new(
        vec![
            feature("clicks", FeatureKind::Number),
            feature("hours", FeatureKind::Number),
            feature("paid", FeatureKind::Bool),
            feature("plan", FeatureKind::OneOf(plans)),
            feature("country", FeatureKind::Text),
        ],
        vec![
            feature("length", FeatureKind::Number),
            feature("is_video", FeatureKind::Bool),
        ],
    )
    .unwrap()
}

fn content(layout: &Layout, arm: usize) -> Content {
    layout.content(|name| match name {
        "length" => Value::Int(arm as i64 * 30),
        _ => Value::Bool(arm.is_multiple_of(2)),
    })
}

fn learners() -> Vec<Learner> {
    let algorithms = [
        Algorithm::LinUcb(Scope::PerArm),
        Algorithm::LinUcb(Scope::Shared),
        Algorithm::LinearThompson(Scope::PerArm),
        Algorithm::LinearThompson(Scope::Shared),
        Algorithm::Thompson,
        Algorithm::EpsilonGreedy {
            epsilon: 0.1,
            scope: Scope::PerArm,
        },
        Algorithm::EpsilonGreedy {
            epsilon: 0.1,
            scope: Scope::Shared,
        },
        Algorithm::FixedSplit(BTreeMap::from([("a".to_owned(), 3.0), ("b".to_owned(), 0.0)])),
        Algorithm::Scores,
    ];
    algorithms.into_iter().map(Learner::new).collect()
}

/// An outcome: arm, number, plan, reward and time.
type Drawn = (usize, f64, u8, f64, i64);

fn drawn() -> impl Strategy<Value = Drawn> {
    let number = prop_oneof![
        4 => -50.0..50.0,
        1 => prop_oneof![
            Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::MAX), Just(1e-300), Just(-1e18)
        ],
    ];
    let reward = prop_oneof![4 => 0.0..1.0, 1 => prop_oneof![Just(f64::INFINITY), Just(-1e30), Just(5.0)]];
    (
        0..ARMS.len(),
        number,
        any::<u8>(),
        reward,
        -3 * HALF_LIFE_MS..30 * HALF_LIFE_MS,
    )
}

fn context(layout: &Layout, standards: &Standards, number: f64, choice: u8) -> Context {
    layout.context(
        |name| match name {
            "clicks" => Value::Float(number),
            "hours" => Value::Int(i64::from(choice % 24)),
            "paid" => Value::Bool(choice.is_multiple_of(2)),
            "plan" => {
                [Value::Null, Value::Text("team".into()), Value::Text("other".into())][usize::from(choice % 3)].clone()
            }
            _ => Value::Text(format!("country-{}", choice % 7).into()),
        },
        standards,
    )
}

fn learn(state: &mut SlotState, layout: &Layout, outcome: Drawn) -> Learned {
    revise(state, layout, outcome, None)
}

fn revise(
    state: &mut SlotState,
    layout: &Layout,
    (arm, number, choice, reward, at): Drawn,
    previous: Option<f64>,
) -> Learned {
    let outcome = Outcome {
        arm: ARMS[arm],
        context: &context(layout, &Standards::default(), number, choice),
        content: &content(layout, arm),
        reward,
        previous,
        at: Timestamp::from_epoch_ms(at),
    };
    state.learn(layout, &outcome)
}

fn learned(layout: &Layout, half_life_ms: Option<i64>, outcomes: &[Drawn]) -> SlotState {
    let mut state = SlotState::new(layout, half_life_ms);
    for outcome in outcomes {
        assert_eq!(learn(&mut state, layout, *outcome), Learned::Yes);
    }
    state
}

fn choose(snapshot: &ModelSnapshot, layout: &Layout, context: &Context, arms: &[&str], seed: u128) -> Option<Choice> {
    let contents: Vec<Content> = (0..arms.len()).map(|arm| content(layout, arm)).collect();
    let candidates: Vec<Candidate<'_>> = arms
        .iter()
        .zip(&contents)
        .map(|(arm, content)| Candidate {
            arm,
            content,
            score: None,
        })
        .collect();
    snapshot.choose(context, &candidates, seed)
}

/// Every sum of one next to that of the other.
fn largest_difference(one: &SlotState, other: &SlotState) -> i128 {
    assert_eq!(one.arms().len(), other.arms().len());
    let pairs = one
        .arms()
        .values()
        .zip(other.arms().values())
        .chain(one.shared().zip(other.shared()));
    let differences = pairs.flat_map(|(one, other)| one.sums().iter().zip(other.sums()).map(|(a, b)| (a - b).abs()));
    differences.max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn p2_without_forgetting_no_order_and_no_split_makes_any_difference(
        outcomes in prop::collection::vec(drawn(), 0..60), cut in 0..60usize, turn in 0..60usize
    ) {
        let layout = layout();
        let whole = learned(&layout, None, &outcomes);
        let mut turned = outcomes.clone();
        turned.rotate_left(turn.min(outcomes.len()));
        turned.reverse();
        let (front, back) = turned.split_at(cut.min(turned.len()));
        let mut merged = learned(&layout, None, back);
        prop_assert!(merged.merge(&learned(&layout, None, front)));
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(merged.version(), whole.version());
    }

    #[test]
    fn p2_into_how_many_outcomes_an_offers_total_was_split_makes_no_difference(
        offers in prop::collection::vec((drawn(), prop::collection::vec(drawn(), 0..4)), 0..30),
        half_life_ms in prop::option::of(Just(HALF_LIFE_MS)), turn in 0..100usize
    ) {
        let layout = layout();
        let totals: Vec<Drawn> = offers.iter().map(|(offer, _)| *offer).collect();
        let whole = learned(&layout, half_life_ms, &totals);
        // Each offer comes to other sums first, and its outcomes lie among those of the others.
        let mut split: Vec<(Drawn, Option<f64>)> = Vec::new();
        for ((arm, number, choice, total, at), earlier) in &offers {
            let mut previous = None;
            for reward in earlier.iter().map(|(_, _, _, reward, _)| *reward).chain([*total]) {
                split.push(((*arm, *number, *choice, reward, *at), previous));
                previous = Some(reward);
            }
        }
        let outcomes = split.len() as i128;
        let turn = turn.min(split.len());
        split.rotate_left(turn);
        let mut state = SlotState::new(&layout, half_life_ms);
        for (outcome, previous) in split {
            prop_assert_eq!(revise(&mut state, &layout, outcome, previous), Learned::Yes);
        }
        match half_life_ms {
            None => prop_assert_eq!(state, whole),
            // Each of 2⁻³²: what is taken away and what is added are rounded by themselves.
            Some(_) => prop_assert!(largest_difference(&state, &whole) <= 2 + 2 * outcomes),
        }
    }

    #[test]
    fn with_forgetting_no_order_and_no_split_makes_more_than_a_few_units_of_difference(
        outcomes in prop::collection::vec(drawn(), 0..60), cut in 0..60usize
    ) {
        let layout = layout();
        let whole = learned(&layout, Some(HALF_LIFE_MS), &outcomes);
        let (front, back) = outcomes.split_at(cut.min(outcomes.len()));
        let mut merged = learned(&layout, Some(HALF_LIFE_MS), back);
        prop_assert!(merged.merge(&learned(&layout, Some(HALF_LIFE_MS), front)));
        // Each of 2⁻³².
        prop_assert!(largest_difference(&merged, &whole) <= 2 + outcomes.len() as i128);
    }

    #[test]
    fn p7_p10_any_outcomes_and_any_context_give_probabilities_and_the_same_choice_twice(
        outcomes in prop::collection::vec(drawn(), 0..40), asked in drawn(), seed in any::<u128>(), arms in 0..=ARMS.len()
    ) {
        let layout = layout();
        let state = learned(&layout, None, &outcomes);
        for learner in learners() {
            let snapshot = ModelSnapshot::new(&state, &layout, &learner);
            let context = context(&layout, snapshot.standards(), asked.1, asked.2);
            let Some(choice) = choose(&snapshot, &layout, &context, &ARMS[..arms], seed) else {
                prop_assert_eq!(arms, 0);
                continue;
            };
            let sum: f64 = choice.scores.iter().map(|score| score.probability).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{:?}: {:?}", learner, choice);
            for score in &choice.scores {
                prop_assert!(score.mean.is_finite() && score.spread.is_finite() && score.spread >= 0.0, "{:?}", choice);
                prop_assert!(score.probability >= learner.floor / arms as f64 * (1.0 - 1e-9), "{:?}: {:?}", learner, choice);
            }
            prop_assert_eq!(choice.propensity, choice.scores[choice.index].probability);
            let again = ModelSnapshot::new(&state.clone(), &layout, &learner);
            prop_assert_eq!(&choose(&again, &layout, &context, &ARMS[..arms], seed), &Some(choice));
        }
    }

    #[test]
    fn p10_a_stored_context_may_be_anything(units in prop::collection::vec(any::<i64>(), 0..40)) {
        let layout = layout();
        let context = Context::from_units(units);
        let mut state = SlotState::new(&layout, None);
        let outcome = Outcome {
            arm: "a", context: &context, content: &content(&layout, 0), reward: 1.0, previous: None, at: Timestamp::from_epoch_ms(0)
        };
        let fits = context.dimension() == layout.dimension();
        prop_assert_eq!(state.learn(&layout, &outcome) == Learned::Yes, fits);
        for learner in learners() {
            let choice = choose(&ModelSnapshot::new(&state, &layout, &learner), &layout, &context, &ARMS, 1).unwrap();
            prop_assert!(choice.propensity > 0.0 && choice.propensity <= 1.0);
        }
    }
}

/// Outcomes of a world in which "a" is best for teams and "b" for all others.
fn world(layout: &Layout, count: u64) -> SlotState {
    let mut state = SlotState::new(layout, None);
    for row in 0..count {
        let hash = hash_parts(&[&row.to_le_bytes()]);
        let (arm, choice) = ((hash as usize) % ARMS.len(), (hash >> 32) as u8);
        let is_team = choice % 3 == 1;
        let rate = [
            if is_team { 0.8 } else { 0.2 },
            if is_team { 0.2 } else { 0.6 },
            0.3,
            0.1,
        ][arm];
        let reward = f64::from(u8::from(((hash >> 64) as u32) as f64 / f64::from(u32::MAX) < rate));
        learn(&mut state, layout, (arm, f64::from(choice), choice, reward, 0));
    }
    state
}

#[test]
fn p7_arms_are_chosen_as_often_as_the_propensities_say() {
    const DRAWS: u32 = 20_000;
    let layout = layout();
    let state = world(&layout, 40);
    for learner in learners() {
        let snapshot = ModelSnapshot::new(&state, &layout, &learner);
        let context = context(&layout, snapshot.standards(), 3.0, 1);
        let mut counts = [0u32; ARMS.len()];
        let mut scores = Vec::new();
        for seed in 0..DRAWS {
            let choice = choose(&snapshot, &layout, &context, &ARMS, u128::from(seed)).unwrap();
            counts[choice.index] += 1;
            scores = choice.scores;
        }
        for (count, score) in counts.iter().zip(&scores) {
            let expected = score.probability * f64::from(DRAWS);
            let error = (expected * (1.0 - score.probability)).sqrt();
            assert!(
                (f64::from(*count) - expected).abs() <= 5.0 * error + 1.0,
                "{learner:?}: {counts:?} {scores:?}"
            );
        }
    }
}

#[test]
fn the_context_is_used_where_it_matters() {
    let layout = layout();
    let state = world(&layout, 4000);
    for algorithm in [
        Algorithm::LinUcb(Scope::PerArm),
        Algorithm::LinearThompson(Scope::PerArm),
    ] {
        let snapshot = ModelSnapshot::new(&state, &layout, &Learner::new(algorithm.clone()));
        for (choice, best) in [(1, 0), (0, 1)] {
            let context = context(&layout, snapshot.standards(), f64::from(choice), choice);
            let scores = choose(&snapshot, &layout, &context, &ARMS, 0).unwrap().scores;
            assert!(scores[best].probability > 0.95, "{algorithm:?}: {scores:?}");
        }
    }
}

#[test]
fn a_context_that_makes_no_difference_is_shrunk_away() {
    let layout = layout();
    let mut state = SlotState::new(&layout, None);
    for row in 0..6000u64 {
        let hash = hash_parts(&[&row.to_le_bytes()]);
        let (arm, choice) = ((hash as usize) % ARMS.len(), (hash >> 32) as u8);
        // The context says how likely anyone is to click, but not on what.
        let rate = [0.45, 0.25, 0.2, 0.1][arm] + if choice % 3 == 1 { 0.2 } else { 0.0 };
        let reward = f64::from(u8::from(((hash >> 64) as u32) as f64 / f64::from(u32::MAX) < rate));
        learn(&mut state, &layout, (arm, f64::from(choice), choice, reward, 0));
    }
    let with = ModelSnapshot::new(&state, &layout, &Learner::new(Algorithm::LinUcb(Scope::PerArm)));
    assert!(with.shrinkage() >= 1000.0, "{}", with.shrinkage());
    for choice in 0..24 {
        let context = context(&layout, with.standards(), f64::from(choice) * 10.0, choice);
        let scores = choose(&with, &layout, &context, &ARMS, 0).unwrap().scores;
        assert!(scores[0].probability > 0.95, "{choice}: {scores:?}");
    }
}

#[test]
fn a_new_arm_starts_from_what_all_have_in_common_and_a_removed_one_drops_out() {
    let layout = layout();
    let mut state = world(&layout, 2000);
    let snapshot = ModelSnapshot::new(&state, &layout, &Learner::new(Algorithm::LinearThompson(Scope::PerArm)));
    let context = context(&layout, snapshot.standards(), 3.0, 0);
    let scores = choose(&snapshot, &layout, &context, &["a", "new", "b"], 0)
        .unwrap()
        .scores;
    assert!(
        scores[1].mean > scores[0].mean.min(scores[2].mean) && scores[1].mean < scores[2].mean,
        "{scores:?}"
    );
    assert!(scores[1].spread > 3.0 * scores[0].spread, "{scores:?}");
    assert!(scores[1].probability > 0.02, "{scores:?}");
    assert_eq!(
        choose(&snapshot, &layout, &context, &["b", "d"], 0)
            .unwrap()
            .scores
            .len(),
        2
    );

    state.retain_arms(|arm| arm != "a");
    assert_eq!(state.arms().keys().collect::<Vec<_>>(), ["b", "c", "d"]);
}

#[test]
fn before_any_outcome_every_arm_is_as_likely() {
    let layout = layout();
    for learner in learners() {
        if matches!(learner.algorithm, Algorithm::FixedSplit(_)) || learner.scope() == Scope::Shared {
            continue;
        }
        let snapshot = ModelSnapshot::new(&SlotState::new(&layout, None), &layout, &learner);
        let context = context(&layout, snapshot.standards(), 3.0, 5);
        for score in choose(&snapshot, &layout, &context, &ARMS, 9).unwrap().scores {
            assert!((score.probability - 0.25).abs() < 1e-9, "{learner:?}: {score:?}");
        }
    }
}

#[test]
fn the_shared_model_tells_contents_apart_by_their_features_even_a_new_one() {
    let layout = layout();
    let mut state = SlotState::new(&layout, None);
    for row in 0..3000u64 {
        let hash = hash_parts(&[&row.to_le_bytes()]);
        let (arm, choice) = ((hash as usize) % ARMS.len(), (hash >> 32) as u8);
        let rate = if arm.is_multiple_of(2) { 0.6 } else { 0.2 };
        let reward = f64::from(u8::from(((hash >> 64) as u32) as f64 / f64::from(u32::MAX) < rate));
        learn(&mut state, &layout, (arm, f64::from(choice), choice, reward, 0));
    }
    let snapshot = ModelSnapshot::new(&state, &layout, &Learner::new(Algorithm::LinUcb(Scope::Shared)));
    let context = context(&layout, snapshot.standards(), 3.0, 5);
    let (video, text) = (content(&layout, 2), content(&layout, 1));
    let candidates = [("new-text", &text), ("new-video", &video)].map(|(arm, content)| Candidate {
        arm,
        content,
        score: None,
    });
    let choice = snapshot.choose(&context, &candidates, 3).unwrap();
    assert!(choice.scores[1].mean > choice.scores[0].mean + 0.2, "{choice:?}");
    assert!(choice.scores[1].probability > 0.95, "{choice:?}");
}

#[test]
fn by_scores_the_highest_is_chosen_and_one_without_comes_last() {
    let layout = Layout::new(Vec::new(), Vec::new()).unwrap();
    let content = Content::default();
    let learner = Learner::new(Algorithm::Scores);
    let snapshot = ModelSnapshot::new(&SlotState::new(&layout, None), &layout, &learner);
    let context = layout.context(|_| Value::Null, snapshot.standards());
    let (floor, nan) = (learner.floor, f64::NAN);
    for (scores, means, expected) in [
        ([Some(0.2), Some(0.7), None], [0.2, 0.7, 0.0], [0.0, 1.0, 0.0]),
        ([Some(-2.0), None, Some(-3.0)], [-2.0, 0.0, -3.0], [1.0, 0.0, 0.0]),
        ([Some(5.0), Some(5.0), Some(nan)], [5.0, 5.0, 0.0], [0.5, 0.5, 0.0]),
        ([None, Some(nan), None], [0.0, 0.0, 0.0], [1.0 / 3.0; 3]),
    ] {
        let candidates: Vec<Candidate<'_>> = ARMS
            .iter()
            .zip(scores)
            .map(|(arm, score)| Candidate {
                arm,
                content: &content,
                score,
            })
            .collect();
        let choice = snapshot.choose(&context, &candidates, 7).unwrap();
        for (score, (mean, share)) in choice.scores.iter().zip(means.into_iter().zip(expected)) {
            let probability = floor / 3.0 + (1.0 - floor) * share;
            assert!(
                (score.probability - probability).abs() < 1e-12,
                "{scores:?}: {choice:?}"
            );
            assert_eq!((score.mean, score.spread), (mean, 0.0), "{scores:?}");
        }
    }
}

#[test]
fn what_is_older_counts_half_as_much_with_every_half_life_whenever_it_comes() {
    let layout = layout();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut state = SlotState::new(&layout, Some(HALF_LIFE_MS));
        for age in order {
            learn(&mut state, &layout, (0, 4.0, 0, 1.0, (10 - age) * HALF_LIFE_MS));
        }
        assert_eq!(state.arms()["a"].count(), 1.75);
        assert_eq!(state.arms()["a"].reward_sum(), 1.75);
    }
    let mut state = SlotState::new(&layout, Some(HALF_LIFE_MS));
    for at in [0, i64::MAX, i64::MIN, 5] {
        learn(&mut state, &layout, (0, 4.0, 0, 1.0, at));
    }
    assert_eq!(state.arms()["a"].count().floor(), 1.0);
}

#[test]
fn one_wrong_value_does_not_spoil_the_standards() {
    let layout = layout();
    let mut state = world(&layout, 500);
    let learner = Learner::new(Algorithm::LinUcb(Scope::PerArm));
    let spread_of = |state: &SlotState| ModelSnapshot::new(state, &layout, &learner).standards().places[0].1;
    let before = spread_of(&state);
    for _ in 0..5 {
        let snapshot = ModelSnapshot::new(&state, &layout, &learner);
        let outcome = Outcome {
            arm: "a",
            context: &context(&layout, snapshot.standards(), 1e300, 0),
            content: &content(&layout, 0),
            reward: 0.0,
            previous: None,
            at: Timestamp::from_epoch_ms(0),
        };
        state.learn(&layout, &outcome);
    }
    assert!(spread_of(&state) < 1.2 * before);
}

#[test]
fn p8_the_state_is_bounded_and_its_size_known() {
    let numbers = (0..BANDIT_DIMENSION_MAX).map(|number| feature(&number.to_string(), FeatureKind::Number));
    let layout = Layout::new(numbers.collect(), Vec::new()).unwrap();
    let mut state = SlotState::new(&layout, None);
    let content = Content::default();
    for arm in 0..50 {
        let name = format!("arm-{arm}");
        for row in 0..20 {
            let value = |name: &str| Value::Float(f64::from(row) * name.parse::<f64>().unwrap());
            let context = layout.context(value, &Standards::default());
            let at = Timestamp::from_epoch_ms(0);
            let outcome = Outcome {
                arm: &name,
                context: &context,
                content: &content,
                reward: 1.0,
                previous: None,
                at,
            };
            state.learn(&layout, &outcome);
        }
    }
    let bytes = state.estimated_bytes();
    println!("50 arms of {BANDIT_DIMENSION_MAX} numbers take {bytes} bytes");
    assert!(bytes < DYNAMODB_ITEM_BYTES, "{bytes}");

    let small = Layout::new(Vec::new(), Vec::new()).unwrap();
    let mut state = SlotState::new(&small, None);
    let context = small.context(|_| Value::Null, &Standards::default());
    let answers: Vec<Learned> = (0..=LEARNED_ARMS_MAX)
        .map(|arm| {
            let (arm, at) = (arm.to_string(), Timestamp::from_epoch_ms(0));
            state.learn(
                &small,
                &Outcome {
                    arm: &arm,
                    context: &context,
                    content: &content,
                    reward: 1.0,
                    previous: None,
                    at,
                },
            )
        })
        .collect();
    assert_eq!(answers.last(), Some(&Learned::TooManyArms));
    assert!(answers[..LEARNED_ARMS_MAX].iter().all(|answer| *answer == Learned::Yes));
}

#[test]
fn a_state_of_another_layout_is_not_mixed_in() {
    let layout = layout();
    let other = Layout::new(vec![feature("clicks", FeatureKind::Number)], Vec::new()).unwrap();
    let mut state = world(&layout, 20);
    let before = state.clone();
    assert!(!state.merge(&SlotState::new(&other, None)));
    assert!(!state.merge(&SlotState::new(&layout, Some(HALF_LIFE_MS))));
    let context = other.context(|_| Value::Int(1), &Standards::default());
    let at = Timestamp::from_epoch_ms(0);
    let outcome = Outcome {
        arm: "a",
        context: &context,
        content: &Content::default(),
        reward: 1.0,
        previous: None,
        at,
    };
    assert_eq!(state.learn(&other, &outcome), Learned::AnotherLayout);
    assert_eq!(state.learn(&layout, &outcome), Learned::AnotherLayout);
    assert_eq!(state, before);
    // Decisions under the new layout start anew rather than fail.
    let snapshot = ModelSnapshot::new(&state, &other, &Learner::new(Algorithm::LinUcb(Scope::PerArm)));
    assert!((choose(&snapshot, &other, &context, &["a", "b"], 0).unwrap().propensity - 0.5).abs() < 1e-9);

    let StoredSlot { mut arms, .. } = state.to_stored();
    assert_eq!(SlotState::from_stored(state.to_stored()), Some(state.clone()));
    arms.insert("a".to_owned(), Statistics::new(3));
    assert_eq!(
        SlotState::from_stored(StoredSlot {
            arms,
            ..state.to_stored()
        }),
        None
    );
    assert_eq!(Statistics::from_sums(3, vec![0; 14]), None);
}

#[test]
fn a_layout_that_does_not_fit_is_refused() {
    let numbers = |count: usize| {
        (0..count)
            .map(|number| feature(&number.to_string(), FeatureKind::Number))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        Layout::new(numbers(33), Vec::new()),
        Err(LayoutError::TooMany { needed: 33 })
    );
    assert_eq!(
        Layout::new(Vec::new(), numbers(17)),
        Err(LayoutError::TooManyOfContents { needed: 17, most: 16 })
    );
    let twice = vec![feature("x", FeatureKind::Text), feature("x", FeatureKind::Bool)];
    assert_eq!(
        Layout::new(twice, Vec::new()),
        Err(LayoutError::Twice { name: "x".to_owned() })
    );
    let mut many = numbers(31);
    many.push(feature("text", FeatureKind::Text));
    assert_eq!(Layout::new(many, Vec::new()), Err(LayoutError::TooMany { needed: 33 }));
    assert_eq!(
        Layout::new(numbers(32), numbers(16)).unwrap().shared_dimension(),
        Some(BANDIT_DIMENSION_MAX)
    );
}

#[test]
fn the_probability_of_being_best_is_that_of_thompson_sampling() {
    const DRAWS: usize = 200_000;
    for (arms, tolerance) in [
        (vec![(0.1, 0.02), (0.12, 0.03)], 0.01),
        (vec![(0.5, 0.1), (0.4, 0.3), (0.45, 0.01), (0.1, 0.05)], 0.015),
        // Doubts of very different sizes don't all fit the grid.
        (vec![(0.0, 1.0), (0.3, 0.05), (0.29, 0.05), (-0.5, 2.0)], 0.05),
        (vec![(0.0, 1.0), (0.3, 0.0), (0.2999, 0.0), (-0.5, 2.0)], 0.05),
        ((0..50).map(|arm| (0.1 + 0.001 * f64::from(arm), 0.02)).collect(), 0.01),
    ] {
        let ours = super::best_arm::probabilities(&arms);
        let mut counts = vec![0.0; arms.len()];
        for draw in 0..DRAWS as u64 {
            let sample = |(arm, (mean, spread)): (usize, &(f64, f64))| mean + spread * normal(draw, arm as u64);
            let samples: Vec<f64> = arms.iter().enumerate().map(sample).collect();
            let best = (0..arms.len())
                .max_by(|a, b| samples[*a].total_cmp(&samples[*b]))
                .unwrap();
            counts[best] += 1.0 / DRAWS as f64;
        }
        for (ours, count) in ours.iter().zip(&counts) {
            assert!((ours - count).abs() < tolerance, "{arms:?}: {ours} against {count}");
        }
    }
}

/// A normal draw, by Box and Muller.
fn normal(draw: u64, arm: u64) -> f64 {
    let hash = hash_parts(&[&draw.to_le_bytes(), &arm.to_le_bytes()]);
    let even = |bits: u128| (bits as u64 as f64 + 1.0) / (u64::MAX as f64 + 2.0);
    (-2.0 * even(hash).ln()).sqrt() * (std::f64::consts::TAU * even(hash >> 64)).cos()
}
