//! All users' profiles, folded in memory, one line at a time.

use std::collections::{BTreeMap, HashMap};

use usher_domain::event::ArrivedEvent;
use usher_domain::event::Shard;
use usher_domain::fold::EventOutcome;
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::rules::RuleCounts;
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;
use usher_domain::trigger::Trigger;
use usher_wire::event;
use usher_wire::reject::{Reject, RejectReason};

use crate::gzip;

/// The stream and the shard that replayed lines are said to be on; a line's number is its sequence number.
const STREAM: &str = "interactions";
const SHARD_ID: &str = "shardId-000000000000";

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
}

/// The profiles, and what happened to them.
pub struct Fold<'j> {
    journey: &'j Journey,
    shard: Shard,
    /// A profile is taken out while it is planned on.
    profiles: HashMap<String, Option<Profile>>,
    counts: LineCounts,
    rules: RuleCounts,
}

impl<'j> Fold<'j> {
    /// No profiles yet.
    pub fn new(journey: &'j Journey) -> Fold<'j> {
        Fold {
            journey,
            shard: Shard {
                key: ShardKey::of(STREAM, SHARD_ID),
                id: SHARD_ID.to_owned(),
            },
            profiles: HashMap::new(),
            counts: LineCounts::default(),
            rules: RuleCounts::new(journey),
        }
    }

    /// Folds one line that arrived at `arrived_at` and gives the triggers that it caused.
    pub fn line(&mut self, number: u64, bytes: &[u8], arrived_at: Timestamp) -> Vec<Trigger> {
        self.counts.lines += 1;
        // As the function does it.
        let decompressed;
        let bytes = match gzip::is_gzip(bytes).then(|| gzip::decompress(bytes)) {
            None => bytes,
            Some(Ok(whole)) => {
                decompressed = whole;
                &decompressed
            }
            Some(Err(error)) => {
                let detail = format!("the gzip data is broken: {error}");
                return self.reject(number, Reject::new(RejectReason::NotGzip, "data", detail));
            }
        };
        let event = match event::decode(bytes, arrived_at) {
            Ok(event) => event,
            Err(reject) => return self.reject(number, reject),
        };
        let position = Position {
            sequence_number: number.into(),
            sub_sequence_number: 0,
        };
        let arrived = ArrivedEvent {
            event,
            arrived_at,
            shard: &self.shard,
            position,
        };
        let user = arrived.event.user.as_ref();
        let place = match self.profiles.get_mut(user) {
            Some(place) => place,
            None => self.profiles.entry(user.to_owned()).or_default(),
        };
        let profile = place.take().unwrap_or_else(|| Profile::new(self.journey));
        let mut plan = plan_user(self.journey, profile, std::iter::once(&arrived));
        match plan.outcomes.first() {
            Some(EventOutcome::Applied) => self.counts.applied += 1,
            Some(EventOutcome::Duplicate | EventOutcome::Redelivered) => self.counts.duplicate += 1,
            // The outbox is emptied after each line, so there is always an outcome.
            Some(EventOutcome::Ignored | EventOutcome::Woken) | None => self.counts.dropped += 1,
        }
        self.rules.add(&plan.rules);
        let triggers = std::mem::take(&mut plan.profile.outbox);
        *place = Some(plan.profile);
        triggers
    }

    fn reject(&mut self, number: u64, reject: Reject) -> Vec<Trigger> {
        let none = || Rejected {
            count: 0,
            first_line: number,
            first: reject.clone(),
        };
        self.counts.rejected.entry(reject.reason).or_insert_with(none).count += 1;
        Vec::new()
    }

    /// What became of the lines.
    pub fn counts(&self) -> &LineCounts {
        &self.counts
    }

    /// What became of each rule.
    pub fn rules(&self) -> &RuleCounts {
        &self.rules
    }

    /// The profiles with at least one event, by user.
    pub fn into_profiles(self) -> BTreeMap<String, Profile> {
        let stored = |(user, profile): (String, Option<Profile>)| {
            profile
                .filter(|profile| profile.applied_events > 0)
                .map(|profile| (user, profile))
        };
        self.profiles.into_iter().filter_map(stored).collect()
    }
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
