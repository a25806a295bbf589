//! Trends: how often contents and categories were met with in the last minutes, over all users.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::journey::{Trend, TrendBy};
use crate::time::Timestamp;

/// Milliseconds of a tile: events are counted by the minute.
pub const TILE_MS: i64 = 60 * 1000;

/// What is counted in a tile: an event type with a content or a category.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrendKey {
    /// The events' type.
    pub event_type: String,
    /// Whether `id` is a content or a category.
    pub by: TrendBy,
    /// Which.
    pub id: String,
}

/// Counts of all shards by the minute, as of a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trends {
    /// By the number of the minute since 1970.
    minutes: BTreeMap<i64, HashMap<TrendKey, u64>>,
}

impl Trends {
    /// Adds a count of a minute.
    pub fn add(&mut self, minute: i64, key: TrendKey, count: u64) {
        let known = self.minutes.entry(minute).or_default().entry(key).or_default();
        *known = known.saturating_add(count);
    }

    /// The value of a trend for a content or category as of `now`: the events in its window, exact to one minute.
    pub fn count(&self, trend: &Trend, id: &str, now: Timestamp) -> u64 {
        let last = now.epoch_ms().div_euclid(TILE_MS);
        let first = now.minus_ms(trend.within_ms).epoch_ms().div_euclid(TILE_MS);
        let mut sum: u64 = 0;
        for tile in self.minutes.range(first..=last).map(|(_, tile)| tile) {
            for event_type in &trend.event_types {
                let key = TrendKey {
                    event_type: event_type.clone(),
                    by: trend.by,
                    id: id.to_owned(),
                };
                sum = sum.saturating_add(tile.get(&key).copied().unwrap_or(0));
            }
        }
        sum
    }
}
