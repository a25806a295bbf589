//! Rules: when to offer what, and where.

use super::EventTypes;
use crate::condition::Condition;

/// A rule: at which moments to offer what.
#[derive(Debug)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// What its state in a profile is found by.
    pub fingerprint: u32,
    /// What makes it look.
    pub moment: Moment,
    /// Only fires when this holds.
    pub when: Option<Condition>,
    /// Does not fire when this holds.
    pub unless: Option<Condition>,
    /// The indices of the contents that it offers: one, or one for each of a timer's [`Timer::reminders`].
    pub offers: Vec<usize>,
    /// The index in [`super::Journey::learners`] of the learner that chooses among them all; without it, they are offered in turn.
    pub learner: Option<usize>,
    /// Where the offer is shown.
    pub slot: String,
    /// What the slot is found by in a profile.
    pub slot_fingerprint: u32,
    /// How long it stays silent after firing, in milliseconds.
    pub cooldown_ms: Option<i64>,
    /// How often it fires at most.
    pub limit: Option<Limit>,
    /// Among rules that fire at one moment for one slot, the one with the highest priority wins.
    pub priority: i64,
    /// The index in [`super::Policy::groups`] of the group of rules that exclude each other.
    pub group: Option<usize>,
    /// Users who are shown nothing by this rule, so that its effect can be told.
    pub holdout: Option<Holdout>,
    pub(super) on: EventTypes,
}

impl Rule {
    /// The types of events that it looks at, or that its timer counts from.
    pub fn event_types(&self) -> &EventTypes {
        &self.on
    }

    /// The index of the content that the reminder with this index offers; anything else than a timer has one, with
    /// index 0.
    pub fn offer(&self, reminder: usize) -> usize {
        // A rule always has an offer; reading it makes sure.
        let last = self.offers.len().saturating_sub(1);
        self.offers.get(reminder.min(last)).copied().unwrap_or_default()
    }
}

/// What makes a rule look.
#[derive(Debug)]
pub enum Moment {
    /// An event of the rule's types.
    Event,
    /// An event of the rule's types (any, unless it says otherwise), after which a condition on the profile holds that
    /// did not hold before.
    Enters(Condition),
    /// The same, after which a condition does not hold that did before.
    Leaves(Condition),
    /// Time that has passed.
    Timer(Timer),
}

/// Absence: what fires when time has passed since something, unless something else happened.
#[derive(Debug)]
pub struct Timer {
    /// Since what.
    pub since: Since,
    /// When each reminder is due, the earliest first. After the last one, it waits for the next [`Timer::since`].
    pub reminders: Vec<Due>,
}

/// What a timer counts from.
#[derive(Debug)]
pub enum Since {
    /// A step, by its index, from when it was done.
    Step(usize),
    /// The latest event of the rule's types, by its own time, on which this holds.
    Event(Option<Condition>),
    /// The end of the latest session: the idle time after its last event.
    SessionEnd,
}

/// When a reminder is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// So many milliseconds later.
    After(i64),
    /// At a time of day, so many days later, by the user's own clock.
    LocalTime {
        /// 0 is the same day; if the time of day has passed then, the next.
        days: u32,
        /// Minutes since midnight.
        minute: u16,
    },
}

/// How often a rule fires at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So often.
    pub count: u64,
    /// For each of these.
    pub per: LimitPer,
}

/// What a limit counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitPer {
    /// The user, ever.
    #[default]
    User,
    /// The user's latest session.
    Session,
    /// The user under this version of the journey.
    JourneyVersion,
}

/// A share of the users, chosen by a hash that is stable for as long as the salt is.
#[derive(Clone, Debug, PartialEq)]
pub struct Holdout {
    /// From 0 to 1.
    pub share: f64,
    /// Another salt chooses other users.
    pub salt: String,
}
