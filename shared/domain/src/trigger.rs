//! Triggers: what Usher chose to offer to a user, and why.

use std::fmt;

use crate::hash::hash_parts;
use crate::offers::SeenByLearner;
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
    /// The rules that would have fired at the same moment for the same slot, but have a lower priority.
    pub won_over: Vec<String>,
    /// The other rules that looked at the same moment and did not fire, at most [`crate::limits::REASON_RULES_MAX`].
    pub passed_over: Vec<PassedOver>,
}

/// A rule that looked and did not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The rule.
    pub rule: String,
    /// [`crate::rules::RuleOutcome::name`] of why not.
    pub outcome: String,
    /// The same for people, such as `cooling down until 2026-01-05T10:00:00Z`.
    pub detail: String,
    /// What its condition read, where that is why.
    pub saw: Vec<SeenValue>,
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
    /// The arrival of the record that caused it, or woke its timer.
    pub decided_at: Timestamp,
    /// When its timer was due, or its quiet hours ended; none for what an event caused at once.
    pub due_at: Option<Timestamp>,
    /// Whether nobody is to be shown it: the user is held out, and what they do is what others are compared with.
    pub held_out: bool,
    /// The arm of each of the journey's experiments that the user is in.
    pub arms: Vec<(String, String)>,
    /// The event that caused it.
    pub cause: Cause,
    /// The journey's name.
    pub journey: String,
    /// The journey's version.
    pub journey_version: String,
    /// How likely it was to be offered: 1 without a choice.
    pub propensity: f64,
    /// How it was chosen, where a learner did.
    pub choice: Option<Box<Choice>>,
    /// Why.
    pub reason: Reason,
}

/// How a learner chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The learner's name, such as `linear_thompson`.
    pub learner: String,
    /// Why the slot's model did not choose.
    pub fallback: Option<Fallback>,
    /// What the learner saw.
    pub seen: SeenByLearner,
    /// The context's values, by name.
    pub context: Vec<SeenValue>,
    /// What was chosen from, in the journey's order: the chosen one, and the others that were likeliest, at most
    /// [`crate::limits::CANDIDATES_SHOWN_MAX`].
    pub candidates: Vec<ChosenFrom>,
    /// How many more there were.
    pub candidates_left_out: usize,
}

/// Why a slot's model did not choose: then its learner did with nothing learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing was learned yet, or the model is gone.
    Missing,
    /// It can't be read.
    Unreadable,
}

impl Fallback {
    /// Its name in decisions and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Fallback::Missing => "missing",
            Fallback::Unreadable => "unreadable",
        }
    }
}

/// A candidate of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenFrom {
    /// Its content.
    pub content: String,
    /// How likely it was.
    pub probability: f64,
    /// The reward that was expected of it.
    pub mean: f64,
    /// The standard deviation of that.
    pub spread: f64,
    /// Its own features, by name.
    pub features: Vec<SeenValue>,
}
