//! What a stored profile holds until it is on the `triggers` stream (P5): decisions, and what came of earlier ones.

use usher_domain::offers::Outcome;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_domain::trigger::{Cause, Trigger};
use usher_wire::{outcome, trigger};

use crate::ports::StreamRecord;

/// One entry of an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsent<'p> {
    Trigger(&'p Trigger),
    Outcome(&'p Outcome),
}

impl Unsent<'_> {
    /// The event that caused it, or woke the user.
    pub fn cause(&self) -> &Cause {
        match self {
            Unsent::Trigger(trigger) => &trigger.cause,
            Unsent::Outcome(outcome) => &outcome.cause,
        }
    }

    /// The arrival of the record that made it.
    pub fn made_at(&self) -> Timestamp {
        match self {
            Unsent::Trigger(trigger) => trigger.decided_at,
            Unsent::Outcome(outcome) => outcome.made_at,
        }
    }

    /// As it is on the stream.
    pub fn record(&self) -> StreamRecord {
        let (user, data) = match self {
            Unsent::Trigger(trigger) => (&trigger.user, trigger::to_json(trigger)),
            Unsent::Outcome(outcome) => (&outcome.user, outcome::to_json(outcome)),
        };
        StreamRecord {
            partition_key: user.clone(),
            data,
        }
    }
}

/// What a profile holds unsent: the decisions, and then the outcomes.
pub(crate) fn unsent(profile: &Profile) -> impl Iterator<Item = Unsent<'_>> + Clone {
    let outcomes = profile.outcomes.iter().map(Unsent::Outcome);
    profile.outbox.iter().map(Unsent::Trigger).chain(outcomes)
}

/// Whether it holds nothing.
pub(crate) fn is_empty(profile: &Profile) -> bool {
    profile.outbox.is_empty() && profile.outcomes.is_empty()
}

/// Keeps what is to be kept, asked in the order of [`unsent`]; gives how many are gone.
pub(crate) fn retain(profile: &mut Profile, mut keep: impl FnMut(Unsent<'_>) -> bool) -> usize {
    let held = profile.outbox.len() + profile.outcomes.len();
    profile.outbox.retain(|trigger| keep(Unsent::Trigger(trigger)));
    profile.outcomes.retain(|outcome| keep(Unsent::Outcome(outcome)));
    held - profile.outbox.len() - profile.outcomes.len()
}

/// Everything was sent.
pub(crate) fn clear(profile: &mut Profile) {
    profile.outbox.clear();
    profile.outcomes.clear();
}
