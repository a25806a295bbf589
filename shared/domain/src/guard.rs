//! The redelivery guard: how far each shard has been applied to a profile (P2).

use crate::limits::GUARD_SHARDS_MAX;
use crate::sequence_number::Position;

/// A 64-bit name of a (stream, shard) pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey(pub u64);

impl ShardKey {
    /// The key of a shard of a stream (its ARN, or its name: the same one for as long as profiles live).
    pub fn of(stream: &str, shard_id: &str) -> ShardKey {
        ShardKey(crate::hash::hash_parts(&[stream.as_bytes(), shard_id.as_bytes()]) as u64)
    }

    /// The key of one partition key's records within this shard.
    pub fn within(self, partition_key: &str) -> ShardKey {
        ShardKey(crate::hash::hash_parts(&[&self.0.to_le_bytes(), partition_key.as_bytes()]) as u64)
    }
}

/// The highest position applied, for each shard; the most recently advanced shard last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    shards: Vec<(ShardKey, Position)>,
}

impl Guard {
    /// A guard from stored entries, oldest first. The newest [`GUARD_SHARDS_MAX`] are kept.
    pub fn from_entries(mut shards: Vec<(ShardKey, Position)>) -> Guard {
        if shards.len() > GUARD_SHARDS_MAX {
            shards.drain(..shards.len() - GUARD_SHARDS_MAX);
        }
        Guard { shards }
    }

    /// The entries, the most recently advanced last.
    pub fn entries(&self) -> &[(ShardKey, Position)] {
        &self.shards
    }

    /// Whether this position, or a later one of the same shard, was applied.
    pub fn covers(&self, shard: ShardKey, position: Position) -> bool {
        self.shards
            .iter()
            .rev()
            .any(|(key, applied)| *key == shard && position <= *applied)
    }

    /// Takes in the guard of another profile, whose entries are known by other keys from here on. Nothing that either
    /// covered is covered no more, while there is room; where there is none, of both those least recently advanced leave.
    pub fn merge(&mut self, other: &Guard, renamed: impl Fn(ShardKey) -> ShardKey) {
        let mut entries: Vec<(ShardKey, Position)> = interleaved(
            other
                .shards
                .iter()
                .map(|(shard, position)| (renamed(*shard), *position)),
            self.shards.iter().copied(),
        );
        // What is there twice stays where it was advanced last, with the higher position.
        let mut index = 0;
        while index < entries.len() {
            let (shard, position) = entries[index];
            match entries[index + 1..].iter_mut().find(|(later, _)| *later == shard) {
                Some((_, later)) => {
                    *later = position.max(*later);
                    entries.remove(index);
                }
                None => index += 1,
            }
        }
        *self = Guard::from_entries(entries);
    }

    /// Marks everything of the shard up to `position` as applied. A lower position changes nothing.
    pub fn advance(&mut self, shard: ShardKey, position: Position) {
        // Nearly always the last entry: a user's events come from one shard.
        if let Some((key, applied)) = self.shards.last_mut()
            && *key == shard
        {
            *applied = (*applied).max(position);
            return;
        }
        let mut advanced = position;
        if let Some(index) = self.shards.iter().position(|(key, _)| *key == shard) {
            let (_, applied) = self.shards.remove(index);
            advanced = advanced.max(applied);
        } else if self.shards.len() >= GUARD_SHARDS_MAX {
            self.shards.remove(0);
        }
        self.shards.push((shard, advanced));
    }
}

/// Two lists of which the last entry is the latest, as one: what is as far from the end of either is as late.
pub(crate) fn interleaved<T>(one: impl ExactSizeIterator<Item = T>, other: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut together = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.fuse(), other.fuse());
    while one.len() > other.len() {
        together.extend(one.next());
    }
    while other.len() > one.len() {
        together.extend(other.next());
    }
    while one.len() > 0 {
        together.extend(one.next());
        together.extend(other.next());
    }
    together
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position {
            sequence_number: number.into(),
            sub_sequence_number: 0,
        }
    }

    #[test]
    fn p2_a_position_is_covered_up_to_the_highest_applied_of_its_own_shard() {
        let (a, b) = (ShardKey(1), ShardKey(2));
        let mut guard = Guard::default();
        assert!(!guard.covers(a, at(1)));
        guard.advance(a, at(10));
        guard.advance(b, at(3));
        guard.advance(a, at(7)); // A lower one changes nothing.
        for (shard, number, covered) in [(a, 1, true), (a, 10, true), (a, 11, false), (b, 3, true), (b, 4, false)] {
            assert_eq!(guard.covers(shard, at(number)), covered, "{shard:?} {number}");
        }
        let within = Position {
            sequence_number: 10u64.into(),
            sub_sequence_number: 1,
        };
        assert!(
            !guard.covers(a, within),
            "a later user record of the same aggregated record"
        );
    }

    #[test]
    fn p8_the_guard_is_bounded_and_forgets_the_shard_least_recently_advanced() {
        let mut guard = Guard::default();
        for shard in 0..GUARD_SHARDS_MAX as u64 {
            guard.advance(ShardKey(shard), at(1));
        }
        guard.advance(ShardKey(0), at(2));
        guard.advance(ShardKey(1000), at(1));
        assert_eq!(guard.entries().len(), GUARD_SHARDS_MAX);
        assert!(guard.covers(ShardKey(0), at(2)));
        assert!(!guard.covers(ShardKey(1), at(1)));
    }

    #[test]
    fn p2_a_merged_guard_covers_what_either_did() {
        let (shard, other_shard) = (ShardKey(1), ShardKey(2));
        let (mut guard, mut other) = (Guard::default(), Guard::default());
        guard.advance(shard, at(5));
        guard.advance(other_shard, at(9));
        other.advance(shard, at(7));
        let renamed = |key: ShardKey| key.within("anonymous:a");
        for _ in 0..2 {
            guard.merge(&other, renamed);
            for (key, number, covered) in [
                (shard, 5, true),
                (shard, 6, false),
                (other_shard, 9, true),
                (renamed(shard), 7, true),
                (renamed(shard), 8, false),
                (renamed(other_shard), 1, false),
            ] {
                assert_eq!(guard.covers(key, at(number)), covered, "{key:?} {number}");
            }
        }
        assert_eq!(guard.entries().len(), 3, "merging again changes nothing");
    }

    #[test]
    fn p8_a_merged_guard_is_bounded_and_keeps_what_either_advanced_last() {
        let full = |first: u64| {
            let mut guard = Guard::default();
            for shard in first..first + GUARD_SHARDS_MAX as u64 {
                guard.advance(ShardKey(shard), at(1));
            }
            guard
        };
        let mut guard = full(0);
        guard.merge(&full(1000), |key| key);
        assert_eq!(guard.entries().len(), GUARD_SHARDS_MAX);
        let half = GUARD_SHARDS_MAX as u64 / 2;
        for shard in half..2 * half {
            assert!(guard.covers(ShardKey(shard), at(1)) && guard.covers(ShardKey(1000 + shard), at(1)));
        }
    }
}
