//! What profiles cost under a journey: their items' size, and the write units of a write.

use usher_domain::estimate::WRITE_UNIT_BYTES;
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;

use crate::replay::folding::item_bytes;

/// Sizes and write units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// Bytes of the item that half of the users have at most, at the end.
    pub median_bytes: u64,
    /// Bytes of the item that nine of ten users have at most.
    pub p90_bytes: u64,
    /// Bytes of the largest item.
    pub max_bytes: u64,
    /// Write units of a write, on average over those whose size was taken; without the index of due users.
    pub units_per_write: f64,
    /// Writes whose size was taken.
    pub writes_taken: usize,
}

impl Costs {
    /// From the profiles at the end, and the bytes of some writes on the way.
    pub fn of<'p>(
        profiles: impl IntoIterator<Item = (&'p String, &'p Profile)>,
        journey: &Journey,
        written_bytes: Vec<u64>,
    ) -> Costs {
        let sizes = profiles
            .into_iter()
            .map(|(user, profile)| item_bytes(user, profile, journey));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable();
        let units: u64 = written_bytes
            .iter()
            .map(|bytes| bytes.div_ceil(WRITE_UNIT_BYTES as u64).max(1))
            .sum();
        Costs {
            median_bytes: at_share(&sizes, 50),
            p90_bytes: at_share(&sizes, 90),
            max_bytes: sizes.last().copied().unwrap_or_default(),
            units_per_write: units as f64 / written_bytes.len().max(1) as f64,
            writes_taken: written_bytes.len(),
        }
    }
}

/// The value that this many of a hundred are at most (nearest rank).
fn at_share(sorted: &[u64], of_hundred: usize) -> u64 {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((at_share(&hundred, 50), at_share(&hundred, 90)), (50, 90));
        assert_eq!((at_share(&[7], 50), at_share(&[7], 90), at_share(&[], 50)), (7, 7, 0));
    }
}
