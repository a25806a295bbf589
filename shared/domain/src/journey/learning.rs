//! Learning: what is counted over all users, how each slot's learner works, and what counts as success.

use super::EventTypes;
use crate::bandit::context::{FeatureKind, Layout};
use crate::bandit::learner::Learner;
use crate::bandit::snapshot::ModelSnapshot;
use crate::condition::{Condition, Slot};

/// What a trend's keys are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrendBy {
    /// `content_id`.
    #[default]
    Content,
    /// `category`.
    Category,
}

/// A count over all users in a sliding window: `trends.NAME[KEY]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trend {
    /// Its name.
    pub name: String,
    /// The types of events that it counts.
    pub event_types: Vec<String>,
    /// What it counts them by.
    pub by: TrendBy,
    /// The window, in milliseconds.
    pub within_ms: i64,
}

/// How the offers of a slot are chosen and learned from.
#[derive(Debug)]
pub struct SlotLearner {
    /// The slot.
    pub slot: String,
    /// How it chooses.
    pub learner: Learner,
    /// The numbers that it sees.
    pub layout: Layout,
    /// Where the values of the context come from, by the layout's names.
    pub context: Vec<ContextValue>,
    /// Where the values of a candidate's own features come from, by the layout's names.
    pub contents: Vec<ContentValue>,
    /// In which time an outcome comes to count half as much, in milliseconds.
    pub half_life_ms: Option<i64>,
    /// The learner with nothing learned, for when there is no model.
    pub prior: ModelSnapshot,
}

/// A value of the context.
#[derive(Debug)]
pub struct ContextValue {
    /// Its name in the layout and in logs.
    pub name: String,
    /// What it reads, as it was written, such as `features.clicks_10m`.
    pub source: String,
    /// The same.
    pub slot: Slot,
    /// How it becomes numbers.
    pub kind: FeatureKind,
}

/// A value of a candidate.
#[derive(Debug)]
pub struct ContentValue {
    /// Its name in the layout and in logs.
    pub name: String,
    /// What it reads, as it was written.
    pub source: String,
    /// The same.
    pub of: ContentSource,
    /// How it becomes numbers.
    pub kind: FeatureKind,
}

/// Where a candidate's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentSource {
    /// One of its attributes in the journey, by name.
    Attribute(String),
    /// A trend of its id, by the index in [`super::Journey::trends`].
    Trend(usize),
    /// The imported score of the user and the content.
    Score,
}

/// What counts as success of an offer.
#[derive(Debug)]
pub struct Outcomes {
    /// For how long after an offer, in milliseconds.
    pub within_ms: i64,
    /// What an offer counts as before anything came of it.
    pub until_then: UntilThen,
    /// What is rewarded. An offer keeps a bit for each, so there are at most
    /// [`crate::limits::REWARDS_MAX`].
    pub rewards: Vec<Reward>,
}

/// What a chosen offer counts as while its window is open and nothing has come of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UntilThen {
    /// Nothing is known of it: its learner hears of it when something comes, or when its window ran out with nothing.
    #[default]
    Unknown,
    /// It counts as one that came to nothing: its learner hears of it at once, and again when something comes. So
    /// successes, which are told early, don't outnumber failures, which are told late; and nobody is woken for a window's end.
    Zero,
}

/// Something that is rewarded, once for each offer.
#[derive(Debug)]
pub struct Reward {
    /// Its name.
    pub name: String,
    /// What it is.
    pub on: RewardOn,
    /// Only where this holds.
    pub when: Option<Condition>,
    /// What it adds to an offer's reward.
    pub reward: f64,
}

/// What is rewarded.
#[derive(Debug)]
pub enum RewardOn {
    /// An event of these types.
    Event {
        /// The types.
        on: EventTypes,
        /// Whether it must be about the content that was offered.
        same_content: bool,
    },
    /// A step that is done for the first time; any where there is no index.
    Step(Option<usize>),
}
