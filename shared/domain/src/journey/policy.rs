//! Policy: what limits all rules together.

use super::Holdout;
use crate::condition::Condition;

/// What limits all rules together.
#[derive(Debug, Default)]
pub struct Policy {
    /// How many offers a user gets at most. All of them hold.
    pub caps: Vec<Cap>,
    /// How long a content is not offered again, in milliseconds, unless the content says otherwise.
    pub content_cooldown_ms: Option<i64>,
    /// When nothing is offered.
    pub quiet_hours: Option<QuietHours>,
    /// Users who are shown nothing at all.
    pub holdout: Option<Holdout>,
    /// Groups of rules that exclude each other.
    pub groups: Vec<Group>,
    /// No rule fires before this held once; a user without it is in from the first event.
    pub entry: Option<Condition>,
    /// Once this holds, the user is out: no rule fires, and timers and put-off offers are forgotten.
    pub exit: Option<Condition>,
    /// Whether a user who is out comes in again.
    pub reentry: Reentry,
}

/// At most so many offers within a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cap {
    /// So many.
    pub offers: usize,
    /// Within so many milliseconds.
    pub within_ms: i64,
    /// The fingerprint and name of the slot that it is for; overall without one.
    pub slot: Option<(u32, String)>,
}

/// A time of the user's day in which nothing is offered. From its start to just before its end; it may pass midnight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Minutes since midnight.
    pub from_minute: u16,
    /// Minutes since midnight.
    pub to_minute: u16,
    /// What becomes of an offer then.
    pub then: QuietAction,
    /// The fingerprints of the slots that they are for; all without any.
    pub slots: Vec<u32>,
    /// The IANA time zone of users of whom none is known.
    pub timezone: String,
}

/// What becomes of an offer in quiet hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuietAction {
    /// It is put off to their end, and made then if it still may be.
    #[default]
    Defer,
    /// It is not made.
    Drop,
}

/// Rules that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// After one of them fired, the others are silent for so long, in milliseconds; without it, at that moment only.
    pub within_ms: Option<i64>,
}

/// Whether a user who left the journey may enter again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reentry {
    /// Whenever the entry condition holds again.
    #[default]
    Always,
    /// So many milliseconds after leaving, at the earliest.
    After(i64),
    /// Not again.
    Never,
}

/// Users split into arms by a hash that is stable for as long as the salt is.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// What conditions read it by, as `arms.ID`.
    pub id: String,
    /// Another salt splits the users in another way.
    pub salt: String,
    /// Name and weight of each arm; a weight is above 0.
    pub arms: Vec<(String, f64)>,
}
