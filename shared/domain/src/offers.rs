//! Open offers: what was offered and may still succeed, and what came of it.
//!
//! A decision opens an offer in the profile, also one that nobody is shown. What the journey rewards then counts for it
//! when it happened after what caused the offer, and no later than its window: both by the event's own time (P11), so
//! an event that comes late counts like one that comes at once, as long as it comes within [`OUTCOME_LATE_MS_MAX`] of the
//! window's end. It must come after the offer was made, though: what was folded before, no offer had brought about. An
//! event is no outcome of an offer that it causes itself.
//!
//! Each reward counts once for each offer. What one event brings to one offer is one [`Outcome`]; when the window runs
//! out and nothing was told, that is told once, with a reward of 0, as of the window's end, by whichever record of the user
//! comes next. That a late event comes *after* this was told makes two records of one, with the same sum: each
//! tells the sum so far and the one before. So whoever adds up the differences has the same, whoever woke the user (P7).
//!
//! When there are more than [`OPEN_OFFERS_MAX`], the one whose window ends first leaves, and is told as if it
//! had run out. An offer whose rule or content the journey no longer has is dropped and nothing more is told of it, as is
//! every one when the journey has no outcomes any more; a reward that is gone is left out, and what it added before stays.

mod life;
mod merging;

pub(crate) use life::{expire, next_expiry, note, open, told_by_opening, touched_max};
pub(crate) use merging::merge;

use crate::bandit::context::{Content, Context};
use crate::time::Timestamp;
use crate::trigger::{Cause, TriggerId};

/// An offer whose outcome is still open, or may still change by what comes late.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOffer {
    /// The decision.
    pub trigger: TriggerId,
    /// The rule's fingerprint.
    pub rule: u32,
    /// The content's fingerprint.
    pub content: u32,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What counts happened after this, by event time: when its cause did.
    pub since: Timestamp,
    /// And no later than this, by event time.
    pub until: Timestamp,
    /// What was rewarded already: a bit for each of [`crate::journey::Outcomes::rewards`], found by their names'
    /// fingerprints when stored.
    pub rewarded: u16,
    /// The sum of those rewards as it was told.
    pub reward: f64,
    /// Whether its window ran out with nothing, as was told.
    pub expired: bool,
    /// Whether anything was told of it.
    pub told: bool,
    /// Whether nobody was shown it.
    pub held_out: bool,
    /// How likely it was to be made.
    pub propensity: f64,
    /// What the learner saw, where it chose.
    pub seen: Option<SeenByLearner>,
    /// The user whose profile decided it, where that was merged into this one since.
    pub decided_for: Option<String>,
}

/// What a learner saw when it chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenByLearner {
    /// [`crate::bandit::context::Layout::fingerprint`].
    pub layout: u32,
    /// The context.
    pub context: Context,
    /// The chosen content's own features.
    pub content: Content,
    /// The version of the model; none where there was none.
    pub model_version: Option<u64>,
}

/// What came of an offer: one record on the triggers stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its id: it follows from the decision and what was rewarded, so consumers act once (P5).
    pub id: TriggerId,
    /// The decision.
    pub trigger: TriggerId,
    /// The user whose profile it is.
    pub user: String,
    /// The user that the decision names, where that is another: one who turned out to be this one since.
    pub decided_for: Option<String>,
    /// The rule that fired.
    pub rule: String,
    /// Where it was shown.
    pub slot: String,
    /// What was offered.
    pub offer: String,
    /// What is rewarded by this record.
    pub rewards: Vec<String>,
    /// Everything that was rewarded so far.
    pub rewards_so_far: Vec<String>,
    /// The sum so far.
    pub reward: f64,
    /// The sum that was told before; none where this is the first record of the offer.
    pub previous_reward: Option<f64>,
    /// Whether the window ran out with nothing.
    pub expired: bool,
    /// Whether nobody was shown it.
    pub held_out: bool,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// When it came, by event time; or when the window ran out.
    pub at: Timestamp,
    /// The arrival of the record that made it, for how old it is.
    pub made_at: Timestamp,
    /// How likely the offer was to be made.
    pub propensity: f64,
    /// What the learner saw, where it chose.
    pub seen: Option<SeenByLearner>,
    /// The event that brought it, or that woke the user.
    pub cause: Cause,
    /// The journey's name.
    pub journey: String,
    /// The journey's version.
    pub journey_version: String,
}

#[cfg(test)]
mod tests;
