//! Open offers: what was offered and may still succeed, and what came of it.

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
    /// Whether its window ran out, with whatever was rewarded.
    pub expired: bool,
    /// Whether anything was told of it.
    pub told: bool,
    /// Whether nobody was shown it.
    pub held_out: bool,
    /// How likely it was to be made.
    pub propensity: f64,
    /// What the learner saw, where it chose.
    pub seen: Option<SeenByLearner>,
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
    /// The profile's *now* when it was made, for how old it is.
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
