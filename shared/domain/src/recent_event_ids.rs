//! The ids of the events last applied, against a producer's retries (P2).

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::guard::interleaved;

/// The last event ids that were applied, as 64-bit hashes, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentEventIds {
    hashes: VecDeque<u64>,
}

impl RecentEventIds {
    /// From stored hashes, oldest first.
    pub fn from_hashes(hashes: impl IntoIterator<Item = u64>) -> RecentEventIds {
        RecentEventIds {
            hashes: hashes.into_iter().collect(),
        }
    }

    /// The hashes, oldest first.
    pub fn hashes(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.hashes.iter().copied()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether the id with this hash is among them.
    pub fn contains(&self, hash: u64) -> bool {
        let (front, back) = self.hashes.as_slices();
        front.contains(&hash) || back.contains(&hash)
    }

    /// Remembers an id, and forgets the oldest beyond the last `keep`.
    pub fn remember(&mut self, hash: u64, keep: usize) {
        while self.hashes.len() >= keep.max(1) {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
    }

    /// Takes in the ids of another profile of the same user, and keeps the last `keep` of both, each once.
    pub fn merge(&mut self, other: &RecentEventIds, keep: usize) {
        let all = interleaved(other.hashes(), self.hashes());
        let mut seen = HashSet::with_capacity(all.len());
        // From the latest on, so that what is there twice stays where it is latest.
        let mut kept: VecDeque<u64> = VecDeque::with_capacity(all.len().min(keep.max(1)));
        for hash in all.into_iter().rev() {
            if kept.len() < keep.max(1) && seen.insert(hash) {
                kept.push_front(hash);
            }
        }
        self.hashes = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_exactly_the_last_ids_are_remembered() {
        let mut ids = RecentEventIds::default();
        for hash in 0..100 {
            ids.remember(hash, 64);
        }
        assert_eq!(ids.hashes().collect::<Vec<_>>(), (36..100).collect::<Vec<_>>());
        assert!(ids.contains(36) && !ids.contains(35));
        // A journey that lowers the number takes effect at the next event.
        ids.remember(100, 2);
        assert_eq!(ids.hashes().collect::<Vec<_>>(), [99, 100]);
    }

    #[test]
    fn p2_merged_ids_are_those_of_both_each_once_and_the_latest_stay() {
        let ids = |hashes: &[u64]| RecentEventIds::from_hashes(hashes.iter().copied());
        for (one, other, keep, expected) in [
            (&[1, 2, 3][..], &[7, 8][..], 64, &[1, 7, 2, 8, 3][..]),
            (&[1, 2, 3], &[3, 1], 64, &[2, 1, 3]),
            (&[1, 2, 3], &[1, 2, 3], 64, &[1, 2, 3]),
            (&[], &[1], 64, &[1]),
            (&[1, 2, 3], &[7, 8, 9], 4, &[8, 2, 9, 3]),
            (&[1, 2], &[3], 0, &[2]),
        ] {
            let mut merged = ids(one);
            merged.merge(&ids(other), keep);
            assert_eq!(merged.hashes().collect::<Vec<_>>(), expected, "{one:?} and {other:?}");
        }
    }
}
