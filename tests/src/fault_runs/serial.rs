//! What has to come out: every user's records folded one by one.

use std::collections::BTreeMap;

use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::merge::Household;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_wire::reject::RejectReason;
use usher_wire::{profile_json, trigger};

use crate::lambda_event::{Record, STREAM_ARN};

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
    /// The rejected records, with the reason.
    pub rejected: BTreeMap<Place, RejectReason>,
}

/// What is compared of a profile: what people see of it, and what it remembers of ids and rules. Version, outbox and how
/// far the guard is past the last applied event depend on how often it was written.
pub fn compared(user: &str, profile: &Profile, journey: &Journey) -> String {
    let json = profile_json::to_json(user, profile, journey, profile.now);
    format!(
        "{json} {:?} {:?} {:?} {:?}",
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

/// Folds records one by one in the order in which they are given. What matters is each user's own order, and where users
/// turn out to be one, that of all of them.
pub fn fold<'r>(journey: &Journey, records: impl IntoIterator<Item = &'r Record>, by_partition_key: bool) -> Outcome {
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
        for decided in household.apply(journey, &arrived).triggers {
            outcome
                .triggers
                .insert(decided.id.to_string(), trigger::to_json(&decided));
        }
    }
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
