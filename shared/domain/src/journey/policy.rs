//! Policy: what limits all rules together.

use super::Holdout;
use crate::condition::Condition;
use crate::hash::hash_parts;

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
    /// What goes into the hash beside the user: the experiment's id and what the file says, so that two experiments never
    /// split the users in the same way.
    pub salt: String,
    /// Name and weight of each arm; a weight is above 0.
    pub arms: Vec<(String, f64)>,
}

impl Experiment {
    /// The name of the arm that a user is in: always the same one, for as long as the salt, the weights and the order of
    /// the arms are.
    pub fn arm(&self, user: &str) -> &str {
        self.arm_at(share_of(&self.salt, user))
    }

    /// The arm that a share from 0 to just below 1 falls into.
    fn arm_at(&self, share: f64) -> &str {
        let total: f64 = self.arms.iter().map(|(_, weight)| weight).sum();
        let mut left = share * total;
        for (name, weight) in &self.arms {
            if left < *weight {
                return name;
            }
            left -= weight;
        }
        // Only rounding gets here.
        self.arms.last().map_or("", |(name, _)| name)
    }
}

impl Holdout {
    /// Whether a user is held out. A larger share with the same salt holds out the same users, and more.
    pub fn includes(&self, user: &str) -> bool {
        share_of(&self.salt, user) < self.share
    }
}

/// Where a user stands among all users as a salt orders them: from 0 to just below 1, evenly spread, and independent of
/// where another salt puts them.
pub fn share_of(salt: &str, user: &str) -> f64 {
    let hash = hash_parts(&[salt.as_bytes(), user.as_bytes()]);
    // As many bits as a double holds exactly.
    (hash >> (u128::BITS - f64::MANTISSA_DIGITS)) as f64 / (1u64 << f64::MANTISSA_DIGITS) as f64
}
