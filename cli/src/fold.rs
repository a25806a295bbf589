//! All users' profiles, folded in memory, one line at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use usher_domain::event::{ArrivedEvent, Event, Shard, TIMER_EVENT};
use usher_domain::fold::EventOutcome;
use usher_domain::guard::ShardKey;
use usher_domain::hash::hash_bytes;
use usher_domain::journey::Journey;
use usher_domain::merge::{Household, HouseholdStep};
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_domain::trigger::Trigger;
use usher_wire::event;
use usher_wire::reject::{Reject, RejectReason};

use crate::gzip;

/// The stream and the shard that replayed lines are said to be on; a line's number is its sequence number.
const STREAM: &str = "interactions";
const SHARD_ID: &str = "shardId-000000000000";

/// The shard that replayed lines are said to be on.
pub fn replayed_shard() -> Shard {
    Shard {
        key: ShardKey::of(STREAM, SHARD_ID),
        id: SHARD_ID.to_owned(),
    }
}

/// Where a line is in [`replayed_shard`].
pub fn position_of_line(number: u64) -> Position {
    Position {
        sequence_number: number.into(),
        sub_sequence_number: 0,
    }
}

/// What became of all lines so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Lines.
    pub lines: u64,
    /// Folded into a profile.
    pub applied: u64,
    /// With an id that the profile knew.
    pub duplicate: u64,
    /// Of a type that the journey ignores.
    pub dropped: u64,
    /// Timer events, which only make a profile look at its timers.
    pub woken: u64,
    /// Profiles that were merged into another.
    pub merged: u64,
    /// Not usable, by reason: how many, and the first one's line and what is wrong with it.
    pub rejected: BTreeMap<RejectReason, Rejected>,
}

/// Lines that were rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub count: u64,
    /// The number of the first one.
    pub first_line: u64,
    /// What is wrong with the first one.
    pub first: Reject,
}

impl LineCounts {
    /// How many lines were rejected.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().map(|rejected| rejected.count).sum()
    }

    /// Counts a line by what it did.
    pub fn count(&mut self, step: &HouseholdStep) {
        match step.outcome {
            EventOutcome::Applied => self.applied += 1,
            EventOutcome::Duplicate | EventOutcome::Redelivered => self.duplicate += 1,
            EventOutcome::Ignored => self.dropped += 1,
            EventOutcome::Woken => self.woken += 1,
        }
        self.merged += u64::from(step.merged);
    }

    /// Counts a line that can't be used.
    pub fn reject(&mut self, number: u64, reject: Reject) {
        match self.rejected.get_mut(&reject.reason) {
            Some(rejected) => rejected.count += 1,
            None => {
                let rejected = Rejected {
                    count: 1,
                    first_line: number,
                    first: reject,
                };
                self.rejected.insert(rejected.first.reason, rejected);
            }
        }
    }

    /// Adds what became of later lines.
    pub fn add(&mut self, other: &LineCounts) {
        for (reason, rejected) in &other.rejected {
            match self.rejected.get_mut(reason) {
                Some(known) => known.count += rejected.count,
                None => {
                    self.rejected.insert(*reason, rejected.clone());
                }
            }
        }
        self.lines += other.lines;
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.dropped += other.dropped;
        self.woken += other.woken;
        self.merged += other.merged;
    }
}

/// The profiles, and what happened to them.
pub struct Fold<'j> {
    journey: &'j Journey,
    snapshots: &'j Snapshots,
    shard: Shard,
    users: Household,
    counts: LineCounts,
}

impl<'j> Fold<'j> {
    /// No profiles yet, and nothing learned from all users.
    pub fn new(journey: &'j Journey) -> Fold<'j> {
        Fold::by(journey, Snapshots::none())
    }

    /// No profiles yet.
    pub fn by(journey: &'j Journey, snapshots: &'j Snapshots) -> Fold<'j> {
        Fold {
            journey,
            snapshots,
            shard: replayed_shard(),
            users: Household::new(),
            counts: LineCounts::default(),
        }
    }

    /// Folds one line that arrived at `arrived_at` and gives the triggers that it caused.
    pub fn line(&mut self, number: u64, bytes: &[u8], arrived_at: Timestamp) -> Vec<Trigger> {
        self.counts.lines += 1;
        let whole = match gzip::is_gzip(bytes).then(|| decompressed(bytes)) {
            None => Ok(Cow::Borrowed(bytes)),
            Some(whole) => whole.map(Cow::Owned),
        };
        let event = match &whole {
            Ok(whole) => event::decode(whole, arrived_at),
            Err(reject) => Err(reject.clone()),
        };
        match event {
            Ok(event) => {
                let step = self.users.apply(
                    self.journey,
                    self.snapshots,
                    &ArrivedEvent {
                        event,
                        arrived_at,
                        shard: &self.shard,
                        position: position_of_line(number),
                    },
                );
                self.counts.count(&step);
                step.triggers
            }
            Err(reject) => {
                self.counts.reject(number, reject);
                Vec::new()
            }
        }
    }

    /// What became of the lines.
    pub fn counts(&self) -> &LineCounts {
        &self.counts
    }

    /// Fires the timers that are due by the latest arrival, of users to whom nothing happened since.
    pub fn fire_due_timers(&mut self) -> Vec<Trigger> {
        let latest = latest_arrival(&self.users);
        let mut triggers = Vec::new();
        for step in wake_all(self.journey, self.snapshots, &mut self.users, &self.shard, latest) {
            triggers.extend(step.triggers);
        }
        triggers.sort_by(order_of_timers);
        triggers
    }

    /// The user that a key has become: itself, unless its profile was merged into another.
    pub fn user_of<'k>(&'k self, key: &'k str) -> &'k str {
        self.users.user_of(key)
    }

    /// The profiles with at least one event, by user.
    pub fn into_profiles(self) -> BTreeMap<String, Profile> {
        self.users
            .into_profiles()
            .filter(|(_, profile)| profile.applied_events > 0)
            .collect()
    }
}

/// The latest arrival of an applied event.
pub fn latest_arrival(users: &Household) -> Timestamp {
    users
        .profiles()
        .map(|(_, profile)| profile.now)
        .max()
        .unwrap_or_default()
}

/// The order of what timers fired after the last line: as time would have brought it.
pub fn order_of_timers(one: &Trigger, other: &Trigger) -> std::cmp::Ordering {
    let order = |trigger: &Trigger| (trigger.due_at, trigger.decided_at);
    order(one)
        .cmp(&order(other))
        .then_with(|| one.user.cmp(&other.user))
        .then_with(|| one.id.cmp(&other.id))
}

/// Lets everybody's timers fire that are due at `now`, as the sweeper does: no event came that would have.
pub fn wake_all(
    journey: &Journey,
    snapshots: &Snapshots,
    users: &mut Household,
    shard: &Shard,
    now: Timestamp,
) -> Vec<HouseholdStep> {
    let is_due = |profile: &Profile| profile.wake_at.is_some_and(|wake_at| wake_at <= now);
    let mut due: Vec<String> = users
        .profiles()
        .filter(|(_, profile)| is_due(profile))
        .map(|(user, _)| user.to_owned())
        .collect();
    due.sort_unstable();
    let mut steps = Vec::new();
    for user in due {
        // What fires at once is bounded by the outbox; each time around it was sent.
        for number in 0.. {
            let event = Event {
                id: Cow::Borrowed(TIMER_EVENT),
                id_hash: hash_bytes(TIMER_EVENT.as_bytes()),
                event_type: Cow::Borrowed(TIMER_EVENT),
                at: now,
                user: Cow::Borrowed(&user),
                ..Event::default()
            };
            let step = users.apply(
                journey,
                snapshots,
                &ArrivedEvent {
                    event,
                    arrived_at: now,
                    shard,
                    position: Position {
                        // After every line.
                        sequence_number: u64::MAX.into(),
                        sub_sequence_number: number,
                    },
                },
            );
            let has_fired = !step.triggers.is_empty() || !step.outcomes.is_empty();
            steps.push(step);
            if !has_fired || !users.profile(&user).is_some_and(is_due) {
                break;
            }
        }
    }
    steps
}

/// The bytes of a record that is compressed, as the functions read them.
///
/// # Errors
/// When they are broken.
pub fn decompressed(bytes: &[u8]) -> Result<Vec<u8>, Reject> {
    gzip::decompress(bytes).map_err(|error| {
        Reject::new(
            RejectReason::NotGzip,
            "data",
            format!("the gzip data is broken: {error}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNEY: &str = "journey: j
ignore: [noise]
features:
  clicks: { count: click }
contents: [{ id: tour }]
triggers:
  - { id: third, on: click, when: features.clicks == 3, offer: tour, slot: in_app }
";

    fn line(id: &str, event_type: &str, timestamp: &str) -> String {
        format!(r#"{{"event_id":"{id}","event_type":"{event_type}","timestamp":"{timestamp}","user_id":"ann"}}"#)
    }

    #[test]
    fn every_line_is_applied_duplicate_dropped_or_rejected_and_none_stops_the_others() {
        let journey = Journey::parse(JOURNEY).expect("it is fine");
        let mut fold = Fold::new(&journey);
        let now: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        let at = "2026-01-05T10:00:00Z";
        let lines = [
            line("1", "click", at),
            "not json".to_owned(),
            line("2", "click", at),
            line("2", "click", at),
            line("3", "noise", at),
            line("", "click", at),
            line("4", "click", "2099-01-01T00:00:00Z"),
            "[".repeat(1 << 20),
            line("5", "click", at),
        ];
        let mut fired = Vec::new();
        for (index, text) in lines.iter().enumerate() {
            fired.extend(fold.line(index as u64 + 1, text.as_bytes(), now));
        }
        let counts = fold.counts().clone();
        assert_eq!(
            (counts.lines, counts.applied, counts.duplicate, counts.dropped),
            (9, 3, 1, 1)
        );
        let rejected: Vec<_> = counts
            .rejected
            .values()
            .map(|rejected| (rejected.first.reason, rejected.count, rejected.first_line))
            .collect();
        assert_eq!(
            rejected,
            [
                (RejectReason::NotJson, 2, 2),
                (RejectReason::MissingField, 1, 6),
                (RejectReason::BadTimestamp, 1, 7)
            ]
        );
        let [trigger] = fired.as_slice() else {
            panic!("{fired:?}")
        };
        assert_eq!((trigger.rule.as_str(), trigger.cause.event_id.as_str()), ("third", "5"));
        assert_eq!(trigger.cause.sequence_number.to_string(), "9");
        let profiles = fold.into_profiles();
        assert_eq!(
            profiles
                .iter()
                .map(|(user, profile)| (user.as_str(), profile.applied_events))
                .collect::<Vec<_>>(),
            [("ann", 3)]
        );
    }

    #[test]
    fn a_user_whose_events_are_all_dropped_has_no_profile() {
        let journey = Journey::parse(JOURNEY).expect("it is fine");
        let mut fold = Fold::new(&journey);
        fold.line(
            1,
            line("1", "noise", "2026-01-05T10:00:00Z").as_bytes(),
            Timestamp::from_epoch_ms(1_767_600_000_000),
        );
        assert_eq!(fold.counts().dropped, 1);
        assert!(fold.into_profiles().is_empty());
    }
}
