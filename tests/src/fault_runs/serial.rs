//! What has to come out: every user's records folded one by one.

use std::collections::{BTreeMap, BTreeSet};

use usher_domain::event::{ArrivedEvent, Event, Shard, TIMER_EVENT};
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::merge::{Household, HouseholdStep};
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_wire::reject::RejectReason;
use usher_wire::{outcome, profile_json, trigger};

use crate::lambda_event::{Record, STREAM_ARN};

/// The shard that wake-ups are said to be on.
const WAKE_UP_SHARD: &str = "shardId-wake-ups";

/// Where a record is: shard and sequence number. All test records are of one stream.
pub type Place = (String, String);

/// What comes of a run, as far as anyone can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The profiles, as [`compared`] shows them.
    pub profiles: BTreeMap<String, String>,
    /// The users that other keys turned out to be, by key.
    pub pointers: BTreeMap<String, String>,
    /// The triggers, by id, as they are on the stream.
    pub triggers: BTreeMap<String, Vec<u8>>,
    /// What came of offers, by the outcomes' ids, as it is on the stream.
    pub outcomes: BTreeMap<String, Vec<u8>>,
    /// The ids that more than one decision or outcome has: none.
    pub decided_twice: BTreeSet<String>,
    /// Whether something that was due was made ahead of the event that it is due before, so that no order of the records
    /// tells what comes of them.
    pub was_woken: bool,
    /// The rejected records, with the reason.
    pub rejected: BTreeMap<Place, RejectReason>,
}

impl Outcome {
    /// Takes what was decided and told.
    fn take(&mut self, step: HouseholdStep) {
        for decided in step.triggers {
            let id = decided.id.to_string();
            if self.triggers.insert(id.clone(), trigger::to_json(&decided)).is_some() {
                self.decided_twice.insert(id);
            }
        }
        for told in step.outcomes {
            let id = told.id.to_string();
            if self.outcomes.insert(id.clone(), outcome::to_json(&told)).is_some() {
                self.decided_twice.insert(id);
            }
        }
    }
}

/// What is compared of a profile: what people see of it, and what it remembers of ids and rules. Version, outbox and how
/// far the guard is past the last applied event depend on how often it was written.
pub fn compared(user: &str, profile: &Profile, journey: &Journey) -> String {
    let json = profile_json::to_json(user, profile, journey, profile.now);
    // Those that may still come to something, but for when a timer's was decided, which is when somebody woke the user.
    let offers = profile.open_offers.iter().filter(|open| open.until > profile.now);
    let offers: Vec<_> = offers
        .map(|open| (open.trigger, open.since, open.until, open.rewarded, open.reward))
        .collect();
    format!(
        "{json} {:?} {:?} {:?} {:?} {offers:?}",
        profile.recent_event_ids, profile.rules, profile.now, profile.aliases
    )
}

/// The lane of a record: the part of the stream that is in order, and that the guard counts by. It is the shard, or with
/// a parallelisation factor above 1 a partition key within it.
pub fn lane_of(record: &Record, by_partition_key: bool) -> ShardKey {
    let shard = ShardKey::of(STREAM_ARN, &record.shard_id);
    if by_partition_key {
        shard.within(&record.partition_key)
    } else {
        shard
    }
}

/// The position of a record in its shard.
///
/// # Panics
/// When its sequence number is none, which no test has.
pub fn position_of(record: &Record) -> Position {
    Position {
        sequence_number: record.sequence_number.parse().expect("decimal digits"),
        sub_sequence_number: 0,
    }
}

/// Whose event a record holds; none where it holds none.
pub fn user_of(record: &Record) -> Option<String> {
    let event = usher_wire::event::decode(&record.data, record.arrived_at).ok()?;
    Some(event.user.into_owned())
}

/// Wakes everybody who is due by `end`.
fn wake_all(journey: &Journey, household: &mut Household, end: Timestamp, outcome: &mut Outcome) {
    let shard = Shard {
        key: ShardKey::of(STREAM_ARN, WAKE_UP_SHARD),
        id: WAKE_UP_SHARD.to_owned(),
    };
    let is_due = |profile: &Profile| profile.wake_at.is_some_and(|wake_at| wake_at <= end);
    let due = household.profiles().filter(|(_, profile)| is_due(profile));
    let due: Vec<String> = due.map(|(user, _)| user.to_owned()).collect();
    for user in due {
        // Each time around, what is due is bounded by the outbox.
        for number in 0.. {
            if !household.profile(&user).is_some_and(is_due) {
                break;
            }
            let event = Event {
                id: TIMER_EVENT.into(),
                event_type: TIMER_EVENT.into(),
                at: end,
                user: user.as_str().into(),
                ..Event::default()
            };
            let position = Position {
                sequence_number: number.into(),
                sub_sequence_number: 0,
            };
            let woken = ArrivedEvent {
                event,
                arrived_at: end,
                shard: &shard,
                position,
            };
            outcome.take(household.apply(journey, Snapshots::none(), &woken));
        }
    }
}

/// Folds records one by one in the order in which they are given. What matters is each user's own order, and where users
/// turn out to be one, that of all of them. In the end everybody is woken who is due by `end`.
pub fn fold<'r>(
    journey: &Journey,
    records: impl IntoIterator<Item = &'r Record>,
    by_partition_key: bool,
    end: Timestamp,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut household = Household::new();
    for record in records {
        let event = match usher_wire::event::decode(&record.data, record.arrived_at) {
            Ok(event) => event,
            Err(reject) => {
                let place = (record.shard_id.clone(), record.sequence_number.clone());
                outcome.rejected.insert(place, reject.reason);
                continue;
            }
        };
        let shard = Shard {
            key: lane_of(record, by_partition_key),
            id: record.shard_id.clone(),
        };
        let arrived = ArrivedEvent {
            event,
            arrived_at: record.arrived_at,
            shard: &shard,
            position: position_of(record),
        };
        outcome.take(household.apply(journey, Snapshots::none(), &arrived));
    }
    wake_all(journey, &mut household, end, &mut outcome);
    outcome.pointers = household
        .pointers()
        .map(|(key, user)| (key.to_owned(), user.to_owned()))
        .collect();
    outcome.profiles = household
        .profiles()
        // A user of whom nothing was applied has no item.
        .filter(|(_, profile)| profile.applied_events > 0)
        .map(|(user, profile)| (user.to_owned(), compared(user, profile, journey)))
        .collect();
    outcome
}
