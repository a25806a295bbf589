//! Triggers: what Usher chose to offer to a user, and why.

use std::fmt;

use crate::hash::hash_parts;
use crate::sequence_number::SequenceNumber;
use crate::time::Timestamp;

/// The id of a trigger: 128 bits that follow from the user, the rule and the cause, so that planning the same record
/// again gives the same id and consumers can act once (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TriggerId(pub u128);

impl TriggerId {
    /// The id of what `rule` fires for `user` because of the event with the id `event_id`.
    pub fn of(user: &str, rule: &str, event_id: &str) -> TriggerId {
        TriggerId(hash_parts(&[user.as_bytes(), rule.as_bytes(), event_id.as_bytes()]))
    }
}

impl fmt::Display for TriggerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// The event that made a rule fire, and where its record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// When it happened.
    pub at: Timestamp,
    /// The shard of its record.
    pub shard_id: String,
    /// The sequence number of its record.
    pub sequence_number: SequenceNumber,
}

/// What a condition read and what it found, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenValue {
    /// Such as `features.clicks_10m`.
    pub name: String,
    /// The value as JSON.
    pub json: String,
}

/// Why a rule fired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The rule's condition, where it has one.
    pub condition: Option<String>,
    /// What the condition read.
    pub saw: Vec<SeenValue>,
    /// The rules that would have fired on the same event and slot, but have a lower priority.
    pub won_over: Vec<String>,
}

/// A decision to offer something to a user.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its id.
    pub id: TriggerId,
    /// The user whose profile made the decision.
    pub user: String,
    /// The rule that fired.
    pub rule: String,
    /// Where the offer is to be shown, such as `in_app`.
    pub slot: String,
    /// The content that is offered.
    pub offer: String,
    /// The arrival of the record that caused it.
    pub decided_at: Timestamp,
    /// The event that caused it.
    pub cause: Cause,
    /// The journey's name.
    pub journey: String,
    /// The journey's version.
    pub journey_version: String,
    /// Why.
    pub reason: Reason,
}
