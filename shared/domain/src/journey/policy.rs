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

#[cfg(test)]
mod tests {
    use super::*;

    fn experiment(salt: &str, weights: &[f64]) -> Experiment {
        let arms = weights.iter().enumerate();
        Experiment {
            id: "x".to_owned(),
            salt: salt.to_owned(),
            arms: arms.map(|(index, weight)| (index.to_string(), *weight)).collect(),
        }
    }

    fn share(users: usize, is_in: impl Fn(&str) -> bool) -> f64 {
        let chosen = (0..users).filter(|user| is_in(&format!("user-{user}"))).count();
        chosen as f64 / users as f64
    }

    /// 100,000 users put each share within a percent of what it should be: 6 standard errors at most.
    #[test]
    fn arms_and_holdouts_get_their_shares_and_salts_are_independent() {
        const USERS: usize = 100_000;
        let close = |one: f64, other: f64| (one - other).abs() < 0.01;
        let (one, other) = (experiment("1", &[1.0, 2.0, 7.0]), experiment("2", &[1.0, 2.0, 7.0]));
        for (arm, expected) in [("0", 0.1), ("1", 0.2), ("2", 0.7)] {
            let found = share(USERS, |user| one.arm(user) == arm);
            assert!(close(found, expected), "{arm}: {found}");
            let both = share(USERS, |user| one.arm(user) == arm && other.arm(user) == arm);
            assert!(close(both, expected * expected), "{arm} of both: {both}");
        }
        let holdout = |share: f64| Holdout {
            share,
            salt: "s".to_owned(),
        };
        for expected in [0.0, 0.05, 0.5, 1.0] {
            let found = share(USERS, |user| holdout(expected).includes(user));
            assert!(close(found, expected), "{expected}: {found}");
        }
        assert_eq!(share(USERS, |user| holdout(1.0).includes(user)), 1.0, "everybody");
        let grown = |user: &str| !holdout(0.05).includes(user) || holdout(0.1).includes(user);
        assert_eq!(
            share(USERS, grown),
            1.0,
            "who was held out stays so when the share grows"
        );
    }

    /// Where a user stands is stored with every decision, so it never changes.
    #[test]
    fn the_share_of_a_user_is_what_it_always_was() {
        for (salt, user, expected) in [
            ("s", "u1", "0.85559710"),
            ("s", "u2", "0.69967335"),
            ("", "", "0.89490667"),
        ] {
            assert_eq!(format!("{:.8}", share_of(salt, user)), expected, "{salt} {user}");
        }
        let experiment = experiment("s", &[1.0, 1e-300, 1e6]);
        assert_eq!(experiment.arm_at(0.0), "0");
        assert_eq!(experiment.arm_at(1.0 - f64::EPSILON), "2");
    }
}
