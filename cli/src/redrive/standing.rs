//! Whether an event of a batch that was given up has been applied: pure, so that every case can be tested.

use usher_domain::guard::ShardKey;
use usher_domain::limits::GUARD_SHARDS_MAX;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;

use super::failure_record::FailedRecord;

/// What a profile knows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was not applied: putting it again applies it.
    NotApplied,
    /// It was applied: its id is remembered, and putting it again changes nothing.
    Applied,
    /// Nobody can tell: its shard went on beyond it, and the profile has forgotten the ids of that time. Putting it again
    /// applies it, a second time if it was.
    Uncertain,
}

/// What a user's profile knows of an event with this id in this record.
///
/// `way` are the keys of the pointers on the way from the one that the event names to the user, each a lane within the one
/// before.
///
/// The guard alone can't tell: a batch that was given up leaves a gap below it. So:
/// 1. a remembered id was applied;
/// 2. a profile that has forgotten no id has applied nothing else;
/// 3. a profile none of whose shards has gone beyond the record has applied neither it nor, later, a repeat of it;
/// 4. otherwise it may have been applied and its id forgotten.
pub fn standing(profile: Option<&Profile>, record: &FailedRecord, way: &[&str], id_hash: u64) -> Standing {
    let Some(profile) = profile else {
        return Standing::NotApplied;
    };
    if profile.recent_event_ids.contains(id_hash) {
        return Standing::Applied;
    }
    // Every applied event leaves its id, so as many ids as events means that none has left.
    if profile.applied_events <= profile.recent_event_ids.len() as u64 {
        return Standing::NotApplied;
    }
    let position = Position {
        sequence_number: record.sequence_number,
        sub_sequence_number: 0,
    };
    let shard = ShardKey::of(&record.stream_arn, &record.shard_id);
    // Above a parallelization factor of 1, the guard counts by partition key.
    let is_covered = [shard, shard.within(&record.partition_key)]
        .map(|lane| way.iter().fold(lane, |lane, key| lane.within(key)))
        .into_iter()
        .any(|lane| profile.guard.covers(lane, position));
    // An earlier redrive put it as a new record, after a reshard perhaps in another shard: later in any case.
    let may_be_repeated = profile.guard.entries().iter().any(|(_, applied)| *applied >= position);
    // A full guard may have forgotten the shard.
    let may_be_forgotten = profile.guard.entries().len() >= GUARD_SHARDS_MAX;
    if is_covered || may_be_repeated || may_be_forgotten {
        Standing::Uncertain
    } else {
        Standing::NotApplied
    }
}

/// How many event ids a profile remembers: as many as it has, once it forgot one; before that as the journey says.
pub fn ids_remembered(profile: Option<&Profile>, journey_says: usize) -> u64 {
    match profile {
        Some(profile) if profile.applied_events > profile.recent_event_ids.len() as u64 => {
            profile.recent_event_ids.len() as u64
        }
        _ => journey_says as u64,
    }
}

/// Whether so many events of a user may be put twice, one time after the other, and take effect once: the ids of all of them
/// are remembered when the first comes again. A redrive that is repeated before profile-writer has caught up does just that.
pub fn is_repeat_absorbed(events: u64, ids_remembered: u64) -> bool {
    events <= ids_remembered
}

#[cfg(test)]
mod tests {
    use usher_domain::guard::Guard;
    use usher_domain::journey::Journey;
    use usher_domain::recent_event_ids::RecentEventIds;

    use super::*;

    const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/interactions";

    fn record(number: u64) -> FailedRecord {
        FailedRecord {
            stream_arn: ARN.to_owned(),
            shard_id: "shardId-000000000000".to_owned(),
            sequence_number: number.into(),
            partition_key: "ann".to_owned(),
            arrived_at: Default::default(),
            data: Vec::new(),
        }
    }

    /// A profile that applied so many events and remembers these ids, with a guard.
    fn profile(applied_events: u64, ids: &[u64], guard: Vec<(ShardKey, u64)>) -> Profile {
        let at = |number: u64| Position {
            sequence_number: number.into(),
            sub_sequence_number: 0,
        };
        let guard = guard.into_iter().map(|(shard, number)| (shard, at(number))).collect();
        Profile {
            applied_events,
            recent_event_ids: RecentEventIds::from_hashes(ids.iter().copied()),
            guard: Guard::from_entries(guard),
            ..Profile::new(&Journey::parse("journey: j").expect("it is fine"))
        }
    }

    #[test]
    fn p2_a_redrive_that_is_repeated_too_early_takes_effect_once_within_the_window() {
        for (events, window, expected) in [
            (1, 1, true),
            (4, 4, true),
            (5, 4, false),
            (64, 64, true),
            (65, 64, false),
        ] {
            assert_eq!(is_repeat_absorbed(events, window), expected, "{events} of {window}");
            // What profile-writer does with the events put twice.
            let (mut ids, mut applied) = (RecentEventIds::default(), 0);
            for id in (0..events).chain(0..events) {
                if !ids.contains(id) {
                    ids.remember(id, window as usize);
                    applied += 1;
                }
            }
            assert_eq!(applied == events, expected, "{events} of {window}: {applied} applied");
        }
        for (name, profile, expected) in [
            ("a new user", None, 64),
            ("none is forgotten", Some(profile(2, &[1, 2], Vec::new())), 64),
            ("one is forgotten", Some(profile(3, &[1, 2], Vec::new())), 2),
        ] {
            assert_eq!(ids_remembered(profile.as_ref(), 64), expected, "{name}");
        }
    }

    #[test]
    fn p2_an_event_is_applied_not_applied_or_uncertain() {
        let shard = ShardKey::of(ARN, "shardId-000000000000");
        let other = ShardKey::of(ARN, "shardId-000000000001");
        let full: Vec<(ShardKey, u64)> = (0..GUARD_SHARDS_MAX as u64).map(|key| (ShardKey(key), 1)).collect();
        let id = 7;
        for (name, profile, expected) in [
            ("no profile", None, Standing::NotApplied),
            (
                "its id is remembered",
                Some(profile(2, &[6, 7], vec![(shard, 20)])),
                Standing::Applied,
            ),
            (
                "its id is remembered, and others are forgotten",
                Some(profile(99, &[6, 7], vec![(shard, 20)])),
                Standing::Applied,
            ),
            (
                "the shard went on, and no id is forgotten: the gap that a batch leaves",
                Some(profile(2, &[5, 6], vec![(shard, 20)])),
                Standing::NotApplied,
            ),
            (
                "the shard went on, and ids are forgotten",
                Some(profile(3, &[5, 6], vec![(shard, 20)])),
                Standing::Uncertain,
            ),
            (
                "the same with a guard by partition key",
                Some(profile(3, &[5, 6], vec![(shard.within("ann"), 20)])),
                Standing::Uncertain,
            ),
            (
                "the very record",
                Some(profile(3, &[5, 6], vec![(shard, 10)])),
                Standing::Uncertain,
            ),
            (
                "the shard has not come so far",
                Some(profile(3, &[5, 6], vec![(shard, 9)])),
                Standing::NotApplied,
            ),
            (
                "no shard has come so far",
                Some(profile(3, &[5, 6], vec![(shard, 9), (other, 8)])),
                Standing::NotApplied,
            ),
            (
                "another shard went on: a repeat may have been there",
                Some(profile(3, &[5, 6], vec![(shard, 9), (other, 20)])),
                Standing::Uncertain,
            ),
            (
                "the guard may have forgotten the shard",
                Some(profile(99, &[5, 6], full)),
                Standing::Uncertain,
            ),
        ] {
            assert_eq!(standing(profile.as_ref(), &record(10), &[], id), expected, "{name}");
        }
    }
}
