//! What must have come of a run's events, told by a plain fold in order, and how what came of them differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_wire::profile_json;

use crate::arrival_clock::{data_arrival, wall_clock};
use crate::fold::Fold;
use crate::people::grouped;
use crate::profiles_file::latest_arrival;

/// Names that a difference tells; more of them say nothing new.
const NAMES_TOLD_MAX: usize = 3;

/// What is true after a run: as it must be, or as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Each user's profile as a line of JSON, as of the latest arrival of all.
    pub profiles: BTreeMap<String, String>,
    /// Events in each user's profile.
    pub applied: BTreeMap<String, u64>,
    /// The ids of the triggers.
    pub triggers: BTreeSet<String>,
    /// How often each trigger is in the decision log as delivered.
    pub delivered: BTreeMap<String, u64>,
    /// Rejected records with the same reason and bytes counted once, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl Truth {
    /// With these profiles, as lines.
    pub fn of_profiles(profiles: &BTreeMap<String, Profile>, journey: &Journey) -> Truth {
        let now = latest_arrival(profiles);
        let line = |(user, profile): (&String, &Profile)| {
            (
                user.clone(),
                profile_json::to_json(user, profile, journey, now).to_string(),
            )
        };
        Truth {
            profiles: profiles.iter().map(line).collect(),
            applied: profiles
                .iter()
                .map(|(user, profile)| (user.clone(), profile.applied_events))
                .collect(),
            ..Truth::default()
        }
    }
}

/// What must come of these events, one after the other.
pub fn expected(journey: &Journey, lines: &[Arc<[u8]>]) -> Truth {
    let mut fold = Fold::new(journey);
    let mut triggers = BTreeSet::new();
    let mut rejected: BTreeSet<(String, &[u8])> = BTreeSet::new();
    let mut known_rejects = BTreeMap::new();
    for (number, line) in (1..).zip(lines) {
        let arrived_at = data_arrival(line).unwrap_or_else(wall_clock);
        let fired = fold.line(number, line, arrived_at);
        triggers.extend(fired.into_iter().map(|trigger| trigger.id.to_string()));
        for (reason, rejects) in &fold.counts().rejected {
            let known = known_rejects.entry(*reason).or_insert(0);
            if rejects.count > *known {
                *known = rejects.count;
                rejected.insert((reason.name().to_owned(), line));
            }
        }
    }
    let timers = fold.fire_due_timers();
    triggers.extend(timers.into_iter().map(|trigger| trigger.id.to_string()));
    let mut truth = Truth::of_profiles(&fold.into_profiles(), journey);
    truth.delivered = triggers.iter().map(|id| (id.clone(), 1)).collect();
    truth.triggers = triggers;
    for (reason, _) in rejected {
        *truth.rejected.entry(reason).or_default() += 1;
    }
    truth
}

/// How what is differs from what must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Events that a profile lacks, triggers that are not on the stream, decisions that are not delivered.
    pub lost: u64,
    /// Events that a profile has too often, triggers and decisions that must not be.
    pub twice: u64,
    /// What is different, for people.
    pub told: Vec<String>,
}

impl Differences {
    /// Of `actual` from `expected`.
    pub fn between(expected: &Truth, actual: &Truth) -> Differences {
        let mut differences = Differences::default();
        let users: BTreeSet<&String> = expected.profiles.keys().chain(actual.profiles.keys()).collect();
        let mut other_profiles = Vec::new();
        for user in users {
            if expected.profiles.get(user) == actual.profiles.get(user) {
                continue;
            }
            let count = |truth: &Truth| truth.applied.get(user).copied().unwrap_or(0);
            let (must_be, is) = (count(expected), count(actual));
            differences.lost += must_be.saturating_sub(is);
            differences.twice += is.saturating_sub(must_be);
            other_profiles.push(format!("{user} ({is} events, must be {must_be})"));
        }
        differences.tell("profiles differ", &other_profiles);
        let missing: Vec<String> = expected.triggers.difference(&actual.triggers).cloned().collect();
        let added: Vec<String> = actual.triggers.difference(&expected.triggers).cloned().collect();
        differences.lost += missing.len() as u64;
        differences.twice += added.len() as u64;
        differences.tell("triggers missing on the stream", &missing);
        differences.tell("triggers that must not be on the stream", &added);
        let ids: BTreeSet<&String> = expected.delivered.keys().chain(actual.delivered.keys()).collect();
        let (mut too_few, mut too_many) = (Vec::new(), Vec::new());
        for id in ids {
            let count = |truth: &Truth| truth.delivered.get(id).copied().unwrap_or(0);
            let (must_be, is) = (count(expected), count(actual));
            if is < must_be {
                too_few.push(id.clone());
            } else if is > must_be {
                too_many.push(id.clone());
            }
        }
        differences.lost += too_few.len() as u64;
        differences.twice += too_many.len() as u64;
        differences.tell("decisions missing or not delivered", &too_few);
        differences.tell("decisions that must not be there, or not so often", &too_many);
        if expected.rejected != actual.rejected {
            let text = |rejected: &BTreeMap<String, u64>| format!("{rejected:?}");
            differences.told.push(format!(
                "rejected records differ: {}, must be {}",
                text(&actual.rejected),
                text(&expected.rejected)
            ));
        }
        differences
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.told.is_empty()
    }

    fn tell(&mut self, what: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let some: Vec<&str> = names.iter().take(NAMES_TOLD_MAX).map(String::as_str).collect();
        let more = if names.len() > NAMES_TOLD_MAX { ", …" } else { "" };
        let count = grouped(names.len() as u64);
        self.told.push(format!("{count} {what}: {}{more}", some.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNEY: &str = "journey: j
features:
  clicks: { count: click }
contents: [{ id: tour }]
triggers:
  - { id: second, on: click, when: features.clicks == 2, offer: tour, slot: in_app }
";

    fn line(id: &str, user: &str) -> Arc<[u8]> {
        let text = format!(
            r#"{{"event_id":"{id}","event_type":"click","timestamp":"2026-01-05T10:00:00Z","user_id":"{user}"}}"#
        );
        text.into_bytes().into()
    }

    #[test]
    fn p1_p2_whatever_is_lost_or_happens_twice_is_a_difference() {
        let journey = Journey::parse(JOURNEY).expect("it is fine");
        let bad: Arc<[u8]> = b"not json".to_vec().into();
        let lines = [line("1", "ann"), line("2", "ann"), line("3", "bob"), bad.clone(), bad];
        let expected = expected(&journey, &lines);
        assert_eq!((expected.profiles.len(), expected.triggers.len()), (2, 1));
        assert_eq!(expected.rejected, BTreeMap::from([("not_json".to_owned(), 1)]));
        assert!(Differences::between(&expected, &expected).is_none());
        let of = |lines: &[Arc<[u8]>]| super::expected(&journey, lines);
        for (name, actual, lost, twice) in [
            (
                "an event and its trigger",
                of(&[line("1", "ann"), line("3", "bob")]),
                3,
                0,
            ),
            ("a user", of(&[line("1", "ann"), line("2", "ann")]), 1, 0),
            (
                "an event twice",
                of(&[line("1", "ann"), line("2", "ann"), line("3", "bob"), line("4", "bob")]),
                0,
                3,
            ),
            (
                "a decision that is not delivered",
                Truth {
                    delivered: BTreeMap::new(),
                    ..expected.clone()
                },
                1,
                0,
            ),
            (
                "a decision delivered twice",
                Truth {
                    delivered: expected.delivered.keys().map(|id| (id.clone(), 2)).collect(),
                    ..expected.clone()
                },
                0,
                1,
            ),
            (
                "a reject too many",
                Truth {
                    rejected: BTreeMap::from([("not_json".to_owned(), 2)]),
                    ..expected.clone()
                },
                0,
                0,
            ),
        ] {
            let differences = Differences::between(&expected, &actual);
            assert_eq!(
                (differences.lost, differences.twice),
                (lost, twice),
                "{name}: {differences:?}"
            );
            assert!(!differences.is_none(), "{name}");
        }
    }
}
