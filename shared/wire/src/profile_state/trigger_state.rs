//! A trigger of the outbox, as it is stored.

use minicbor::{Decode, Encode};
use usher_domain::bandit::context::{Content, Context};
use usher_domain::bandit::limits::BANDIT_DIMENSION_MAX;
use usher_domain::limits::{CANDIDATES_SHOWN_MAX, EXPERIMENTS_MAX, REASON_RULES_MAX};
use usher_domain::offers::SeenByLearner;
use usher_domain::trigger::{Cause, Choice, ChosenFrom, Fallback, PassedOver, Reason, SeenValue, Trigger, TriggerId};

use super::{Times, load_sequence_number, store_sequence_number};

#[derive(Encode, Decode)]
pub(super) struct StoredTrigger {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: Vec<u8>,
    #[n(1)]
    rule: String,
    #[n(2)]
    slot: String,
    #[n(3)]
    offer: String,
    #[n(4)]
    decided_before_now_ms: i64,
    #[n(5)]
    event_id: String,
    #[n(6)]
    event_type: String,
    #[n(7)]
    event_before_now_ms: i64,
    #[n(8)]
    shard_id: String,
    #[cbor(n(9), with = "minicbor::bytes")]
    sequence_number: Vec<u8>,
    #[n(10)]
    journey: String,
    #[n(11)]
    journey_version: String,
    #[n(12)]
    condition: Option<String>,
    #[n(13)]
    saw: Vec<(String, String)>,
    #[n(14)]
    won_over: Vec<String>,
    // What follows came later.
    #[n(15)]
    due_before_now_ms: Option<i64>,
    #[n(16)]
    held_out: Option<bool>,
    #[n(17)]
    arms: Option<Vec<(String, String)>>,
    #[n(18)]
    passed_over: Option<Vec<StoredPassedOver>>,
    #[n(19)]
    propensity: Option<f64>,
    #[n(20)]
    choice: Option<StoredChoice>,
}

#[derive(Encode, Decode)]
struct StoredChoice {
    #[n(0)]
    learner: String,
    #[n(1)]
    layout: u32,
    #[n(2)]
    context_units: Vec<i64>,
    #[n(3)]
    content_units: Vec<i64>,
    #[n(4)]
    model_version: Option<u64>,
    /// 0: missing, 1: unreadable.
    #[n(5)]
    fallback: Option<u8>,
    #[n(6)]
    context: Vec<(String, String)>,
    #[n(7)]
    candidates: Vec<StoredChosenFrom>,
    /// Nothing is 0.
    #[n(8)]
    candidates_left_out: Option<u32>,
}

#[derive(Encode, Decode)]
struct StoredChosenFrom {
    #[n(0)]
    content: String,
    #[n(1)]
    probability: f64,
    #[n(2)]
    mean: f64,
    #[n(3)]
    spread: f64,
    #[n(4)]
    features: Option<Vec<(String, String)>>,
}

/// The propensity of what was offered without a choice takes no byte.
const FIXED_OFFER_PROPENSITY: f64 = 1.0;

fn store_choice(choice: &Choice) -> StoredChoice {
    let candidates = choice.candidates.iter().map(|candidate| StoredChosenFrom {
        content: candidate.content.clone(),
        probability: candidate.probability,
        mean: candidate.mean,
        spread: candidate.spread,
        features: unless_empty(store_seen(&candidate.features)),
    });
    StoredChoice {
        learner: choice.learner.clone(),
        layout: choice.seen.layout,
        context_units: choice.seen.context.units().to_vec(),
        content_units: choice.seen.content.units().to_vec(),
        model_version: choice.seen.model_version,
        fallback: choice.fallback.map(|fallback| match fallback {
            Fallback::Missing => 0,
            Fallback::Unreadable => 1,
        }),
        context: store_seen(&choice.context),
        candidates: candidates.collect(),
        candidates_left_out: u32::try_from(choice.candidates_left_out)
            .ok()
            .filter(|count| *count > 0),
    }
}

fn load_choice(stored: StoredChoice) -> Choice {
    let bounded = |mut units: Vec<i64>| {
        units.truncate(BANDIT_DIMENSION_MAX);
        units
    };
    let candidates = stored.candidates.into_iter().take(CANDIDATES_SHOWN_MAX);
    Choice {
        learner: stored.learner,
        fallback: stored.fallback.map(|fallback| match fallback {
            0 => Fallback::Missing,
            _ => Fallback::Unreadable,
        }),
        seen: SeenByLearner {
            layout: stored.layout,
            context: Context::from_units(bounded(stored.context_units)),
            content: Content::from_units(bounded(stored.content_units)),
            model_version: stored.model_version,
        },
        context: load_seen(stored.context),
        candidates: candidates
            .map(|candidate| ChosenFrom {
                content: candidate.content,
                probability: candidate.probability,
                mean: candidate.mean,
                spread: candidate.spread,
                features: load_seen(candidate.features.unwrap_or_default()),
            })
            .collect(),
        candidates_left_out: stored.candidates_left_out.unwrap_or_default() as usize,
    }
}

#[derive(Encode, Decode)]
struct StoredPassedOver {
    #[n(0)]
    rule: String,
    #[n(1)]
    outcome: String,
    #[n(2)]
    detail: String,
    #[n(3)]
    saw: Option<Vec<(String, String)>>,
}

#[derive(Encode, Decode)]
pub(super) struct StoredCause {
    #[n(0)]
    event_id: String,
    #[n(1)]
    event_type: String,
    #[n(2)]
    before_now_ms: i64,
    #[n(3)]
    shard_id: String,
    #[cbor(n(4), with = "minicbor::bytes")]
    sequence_number: Vec<u8>,
}

pub(super) fn store_cause(cause: &Cause, times: Times) -> StoredCause {
    StoredCause {
        event_id: cause.event_id.clone(),
        event_type: cause.event_type.clone(),
        before_now_ms: times.before_now_ms(cause.at),
        shard_id: cause.shard_id.clone(),
        sequence_number: store_sequence_number(cause.sequence_number),
    }
}

/// Nothing where a part has an impossible length.
pub(super) fn load_cause(stored: StoredCause, times: Times) -> Option<Cause> {
    Some(Cause {
        event_id: stored.event_id,
        event_type: stored.event_type,
        at: times.at(stored.before_now_ms),
        shard_id: stored.shard_id,
        sequence_number: load_sequence_number(&stored.sequence_number)?,
    })
}

pub(super) fn store_seen(saw: &[SeenValue]) -> Vec<(String, String)> {
    saw.iter().map(|seen| (seen.name.clone(), seen.json.clone())).collect()
}

pub(super) fn load_seen(stored: Vec<(String, String)>) -> Vec<SeenValue> {
    let saw = stored.into_iter().map(|(name, json)| SeenValue { name, json });
    saw.collect()
}

/// What takes no byte where it is empty.
fn unless_empty<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

pub(super) fn store_trigger(trigger: &Trigger, times: Times) -> StoredTrigger {
    let passed_over = trigger.reason.passed_over.iter().map(|passed| StoredPassedOver {
        rule: passed.rule.clone(),
        outcome: passed.outcome.clone(),
        detail: passed.detail.clone(),
        saw: unless_empty(store_seen(&passed.saw)),
    });
    StoredTrigger {
        id: trigger.id.0.to_be_bytes().to_vec(),
        rule: trigger.rule.clone(),
        slot: trigger.slot.clone(),
        offer: trigger.offer.clone(),
        decided_before_now_ms: times.before_now_ms(trigger.decided_at),
        event_id: trigger.cause.event_id.clone(),
        event_type: trigger.cause.event_type.clone(),
        event_before_now_ms: times.before_now_ms(trigger.cause.at),
        shard_id: trigger.cause.shard_id.clone(),
        sequence_number: store_sequence_number(trigger.cause.sequence_number),
        journey: trigger.journey.clone(),
        journey_version: trigger.journey_version.clone(),
        condition: trigger.reason.condition.clone(),
        saw: store_seen(&trigger.reason.saw),
        won_over: trigger.reason.won_over.clone(),
        due_before_now_ms: trigger.due_at.map(|at| times.before_now_ms(at)),
        held_out: trigger.held_out.then_some(true),
        arms: unless_empty(trigger.arms.clone()),
        passed_over: unless_empty(passed_over.collect()),
        propensity: (trigger.propensity != FIXED_OFFER_PROPENSITY).then_some(trigger.propensity),
        choice: trigger.choice.as_deref().map(store_choice),
    }
}

/// Nothing where a part has an impossible length.
pub(super) fn load_trigger(stored: StoredTrigger, user: &str, times: Times) -> Option<Trigger> {
    let passed_over = stored.passed_over.unwrap_or_default().into_iter();
    let passed_over = passed_over.take(REASON_RULES_MAX).map(|passed| PassedOver {
        rule: passed.rule,
        outcome: passed.outcome,
        detail: passed.detail,
        saw: load_seen(passed.saw.unwrap_or_default()),
    });
    let mut arms = stored.arms.unwrap_or_default();
    arms.truncate(EXPERIMENTS_MAX);
    Some(Trigger {
        id: TriggerId(u128::from_be_bytes(stored.id.try_into().ok()?)),
        user: user.to_owned(),
        rule: stored.rule,
        slot: stored.slot,
        offer: stored.offer,
        decided_at: times.at(stored.decided_before_now_ms),
        due_at: stored.due_before_now_ms.map(|ms| times.at(ms)),
        held_out: stored.held_out.unwrap_or_default(),
        arms,
        cause: Cause {
            event_id: stored.event_id,
            event_type: stored.event_type,
            at: times.at(stored.event_before_now_ms),
            shard_id: stored.shard_id,
            sequence_number: load_sequence_number(&stored.sequence_number)?,
        },
        journey: stored.journey,
        journey_version: stored.journey_version,
        propensity: stored.propensity.unwrap_or(FIXED_OFFER_PROPENSITY),
        choice: stored.choice.map(|choice| Box::new(load_choice(choice))),
        reason: Reason {
            condition: stored.condition,
            saw: load_seen(stored.saw),
            won_over: stored.won_over,
            passed_over: passed_over.collect(),
        },
    })
}
