//! An outcome of the outbox, as it is stored.

use minicbor::{Decode, Encode};
use usher_domain::limits::REWARDS_MAX;
use usher_domain::offers::Outcome;
use usher_domain::trigger::TriggerId;

use super::Times;
use super::open_offers::{
    StoredSeenByLearner, load_propensity, load_seen_by_learner, store_propensity, store_seen_by_learner,
};
use super::trigger_state::{StoredCause, load_cause, store_cause};

#[derive(Encode, Decode)]
pub(super) struct StoredOutcome {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    trigger: Vec<u8>,
    #[n(2)]
    rule: String,
    #[n(3)]
    slot: String,
    #[n(4)]
    offer: String,
    #[n(5)]
    rewards: Vec<String>,
    #[n(6)]
    rewards_so_far: Vec<String>,
    #[n(7)]
    reward: f64,
    #[n(8)]
    previous_reward: Option<f64>,
    #[n(9)]
    expired: bool,
    #[n(10)]
    held_out: bool,
    #[n(11)]
    decided_before_now_ms: i64,
    #[n(12)]
    before_now_ms: i64,
    #[n(13)]
    made_before_now_ms: i64,
    #[n(14)]
    propensity: Option<f64>,
    #[n(15)]
    seen: Option<StoredSeenByLearner>,
    #[n(16)]
    cause: StoredCause,
    #[n(17)]
    journey: String,
    #[n(18)]
    journey_version: String,
    #[n(19)]
    decided_for: Option<String>,
}

pub(super) fn store_outcomes(outcomes: &[Outcome], times: Times) -> Option<Vec<StoredOutcome>> {
    let stored = outcomes.iter().map(|outcome| StoredOutcome {
        id: outcome.id.0.to_be_bytes().to_vec(),
        trigger: outcome.trigger.0.to_be_bytes().to_vec(),
        rule: outcome.rule.clone(),
        slot: outcome.slot.clone(),
        offer: outcome.offer.clone(),
        rewards: outcome.rewards.clone(),
        rewards_so_far: outcome.rewards_so_far.clone(),
        reward: outcome.reward,
        previous_reward: outcome.previous_reward,
        expired: outcome.expired,
        held_out: outcome.held_out,
        decided_before_now_ms: times.before_now_ms(outcome.decided_at),
        before_now_ms: times.before_now_ms(outcome.at),
        made_before_now_ms: times.before_now_ms(outcome.made_at),
        propensity: store_propensity(outcome.propensity),
        seen: outcome.seen.as_ref().map(store_seen_by_learner),
        cause: store_cause(&outcome.cause, times),
        journey: outcome.journey.clone(),
        journey_version: outcome.journey_version.clone(),
        decided_for: outcome.decided_for.clone(),
    });
    (!outcomes.is_empty()).then(|| stored.collect())
}

/// Nothing where a part has an impossible length.
pub(super) fn load_outcome(stored: StoredOutcome, user: &str, times: Times) -> Option<Outcome> {
    let bounded = |mut names: Vec<String>| {
        names.truncate(REWARDS_MAX);
        names
    };
    Some(Outcome {
        id: TriggerId(u128::from_be_bytes(stored.id.try_into().ok()?)),
        trigger: TriggerId(u128::from_be_bytes(stored.trigger.try_into().ok()?)),
        user: user.to_owned(),
        decided_for: stored.decided_for,
        rule: stored.rule,
        slot: stored.slot,
        offer: stored.offer,
        rewards: bounded(stored.rewards),
        rewards_so_far: bounded(stored.rewards_so_far),
        reward: stored.reward,
        previous_reward: stored.previous_reward,
        expired: stored.expired,
        held_out: stored.held_out,
        decided_at: times.at(stored.decided_before_now_ms),
        at: times.at(stored.before_now_ms),
        made_at: times.at(stored.made_before_now_ms),
        propensity: load_propensity(stored.propensity),
        seen: match stored.seen {
            Some(seen) => Some(load_seen_by_learner(seen)?),
            None => None,
        },
        cause: load_cause(stored.cause, times)?,
        journey: stored.journey,
        journey_version: stored.journey_version,
    })
}
