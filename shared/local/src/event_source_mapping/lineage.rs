//! Which shards come before which: parents are read to their end before their children. Pure.

use crate::kinesis::HashKeys;

/// The shards that must be finished before the shard at `index` may be read. `shards` are the hash keys of a stream's shards
/// in the order in which they came to be.
///
/// Shards that are open at the same time share no hash key, so an earlier one that shares some has been split or merged, and
/// what it holds of those keys comes first. This finds grandparents as well as parents, and also the parents of shards made
/// by UpdateShardCount, to which the emulator gives no parent ids.
pub(super) fn ancestors(shards: &[HashKeys], index: usize) -> Vec<usize> {
    let Some(own) = shards.get(index) else {
        return Vec::new();
    };
    (0..index).filter(|earlier| shards[*earlier].overlap(*own)).collect()
}

#[cfg(test)]
mod tests {
    use super::ancestors;
    use crate::kinesis::HashKeys;

    #[test]
    fn a_child_waits_for_every_shard_that_held_its_keys() {
        let shards = [
            (0, 49),  // 0
            (50, 99), // 1
            (0, 24),  // 2, from 0
            (25, 49), // 3, from 0
            (25, 99), // 4, from 3 and 1
            (0, 33),  // 5, by a new count of three
            (34, 66), // 6
            (67, 99), // 7
        ]
        .map(|(first, last)| HashKeys { first, last });
        let expected: [&[usize]; 8] = [&[], &[], &[0], &[0], &[0, 1, 3], &[0, 2, 3, 4], &[0, 1, 3, 4], &[1, 4]];
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(ancestors(&shards, index), *expected, "shard {index}");
        }
        assert_eq!(ancestors(&shards, 99), Vec::<usize>::new());
    }
}
