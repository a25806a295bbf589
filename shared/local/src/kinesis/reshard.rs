//! Which shard to split, or which to merge, when a stream is resharded at random. Pure.

use super::HashKeys;

/// A shard that takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenShard {
    pub shard_id: String,
    pub hash_keys: HashKeys,
}

/// One change to a stream's shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The upper child begins at this hash key.
    Split { shard_id: String, at: u128 },
    /// Two neighbours, the one with the lower hash keys first.
    Merge { left: String, right: String },
}

/// Chooses a change that keeps the number of open shards within the bounds; `None` when there is none.
pub(super) fn plan(mut open: Vec<OpenShard>, shards_min: usize, shards_max: usize, random: u64) -> Option<Change> {
    open.sort_by_key(|shard| shard.hash_keys.first);
    let mut random = fastrand::Rng::with_seed(random);
    let splits = open
        .iter()
        .filter(|shard| shard.hash_keys.first < shard.hash_keys.last)
        .map(|shard| Change::Split {
            shard_id: shard.shard_id.clone(),
            at: middle(shard.hash_keys),
        });
    let merges = open.windows(2).map(|pair| Change::Merge {
        left: pair[0].shard_id.clone(),
        right: pair[1].shard_id.clone(),
    });
    let splits: Vec<_> = splits.filter(|_| open.len() < shards_max).collect();
    let merges: Vec<_> = merges.filter(|_| open.len() > shards_min).collect();
    let mut changes = match (splits.is_empty(), merges.is_empty()) {
        (false, true) => splits,
        (true, false) => merges,
        _ if random.bool() => splits,
        _ => merges,
    };
    if changes.is_empty() {
        return None;
    }
    let chosen = random.usize(..changes.len());
    Some(changes.swap_remove(chosen))
}

/// The first hash key of the upper half.
fn middle(hash_keys: HashKeys) -> u128 {
    hash_keys.first + (hash_keys.last - hash_keys.first) / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::{Change, OpenShard, plan};
    use crate::kinesis::HashKeys;

    fn shard(name: &str, first: u128, last: u128) -> OpenShard {
        OpenShard {
            shard_id: name.to_owned(),
            hash_keys: HashKeys { first, last },
        }
    }

    #[test]
    fn the_number_of_open_shards_stays_within_its_bounds() {
        let two = || vec![shard("b", 50, 99), shard("a", 0, 49)];
        for random in 0..50 {
            // At the least there are, only a split will do; at the most, only a merge, of neighbours in order.
            assert!(matches!(plan(two(), 2, 4, random), Some(Change::Split { .. })));
            assert_eq!(
                plan(two(), 1, 2, random),
                Some(Change::Merge {
                    left: "a".into(),
                    right: "b".into()
                })
            );
            assert_eq!(plan(two(), 2, 2, random), None);
        }
        let both: std::collections::BTreeSet<_> = (0..50)
            .map(|random| matches!(plan(two(), 1, 4, random), Some(Change::Split { .. })))
            .collect();
        assert_eq!(both.len(), 2, "between its bounds either may come");
        assert_eq!(
            plan(vec![shard("a", 0, 99)], 1, 2, 7),
            Some(Change::Split {
                shard_id: "a".into(),
                at: 50
            })
        );
        assert_eq!(
            plan(vec![shard("a", 7, 7)], 1, 2, 7),
            None,
            "one hash key cannot be split"
        );
    }
}
