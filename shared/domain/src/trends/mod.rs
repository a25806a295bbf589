//! Trends: how often contents and categories were met with in the last minutes, over all users.
//!
//! [`counting`] says which events count and in which minute; [`tile`] counts the events of one shard in one minute, once each
//! (P2) and in bounded space (P8); [`Trends`] is what planning reads: the tiles of all shards together, as of any moment.

pub mod counting;
pub mod tile;

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::journey::{Trend, TrendBy};
use crate::time::Timestamp;

/// Milliseconds of a tile: events are counted by the minute.
pub const TILE_MS: i64 = 60 * 1000;

/// The minute that a moment is in: its number since 1970.
pub fn minute_of(at: Timestamp) -> i64 {
    at.epoch_ms().div_euclid(TILE_MS)
}

/// The first minute that reaches into a window of this length as of `now`: as in [`crate::window`], no event in the window
/// is missed, and one that left it less than a minute ago may still be counted.
pub fn oldest_minute(within_ms: i64, now: Timestamp) -> i64 {
    now.epoch_ms()
        .saturating_sub(within_ms)
        .saturating_add(1)
        .div_euclid(TILE_MS)
}

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

/// Counts of all shards by the minute, as of a moment: read-only for planning (P7).
///
/// Looking up a count costs a hash of the id for each event type and nothing for each minute, because a key has its minutes
/// with what was counted up to each.
///
/// ```
/// use usher_domain::journey::{Trend, TrendBy};
/// use usher_domain::trends::{TrendKey, Trends, minute_of};
///
/// let clicks =
///     Trend { name: "clicks_10m".into(), event_types: vec!["click".into()], by: TrendBy::Content, within_ms: 600_000 };
/// let now = "2026-01-05T10:07:30Z".parse()?;
/// let mut trends = Trends::default();
/// let key = TrendKey { event_type: "click".into(), by: TrendBy::Content, id: "tour".into() };
/// trends.add(minute_of(now), key, 3);
/// assert_eq!(trends.count(&clicks, "tour", now), 3);
/// assert_eq!(trends.count(&clicks, "tour", now.plus_ms(600_000 + 60_000)), 0, "it decays without an event");
/// # Ok::<(), usher_domain::time::TimestampError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trends {
    /// One for each event type and kind of id, in order.
    families: Vec<Family>,
    /// By the minute, how much a count of it may be too low.
    errors: BTreeMap<i64, u64>,
}

/// The counts of one event type by one kind of id.
#[derive(Clone, Debug, PartialEq)]
struct Family {
    by: TrendBy,
    event_type: String,
    series: HashMap<String, Series>,
}

/// The counts of one id, by the minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Series {
    /// The minutes in which there was something, in order, with what was counted up to their end.
    minutes: Vec<(i64, u64)>,
}

impl Series {
    fn add(&mut self, minute: i64, count: u64) {
        let index = match self.minutes.binary_search_by_key(&minute, |(minute, _)| *minute) {
            Ok(index) => index,
            Err(index) => {
                let before = self.up_to(index);
                self.minutes.insert(index, (minute, before));
                index
            }
        };
        for (_, sum) in &mut self.minutes[index..] {
            *sum = sum.saturating_add(count);
        }
    }

    /// What the first minutes hold, so many of them.
    fn up_to(&self, minutes: usize) -> u64 {
        minutes
            .checked_sub(1)
            .and_then(|last| self.minutes.get(last))
            .map_or(0, |(_, sum)| *sum)
    }

    fn between(&self, first: i64, last: i64) -> u64 {
        let before = self.minutes.partition_point(|(minute, _)| *minute < first);
        let through = self.minutes.partition_point(|(minute, _)| *minute <= last);
        self.up_to(through).saturating_sub(self.up_to(before))
    }
}

impl Trends {
    /// Adds a count of a minute. Minutes in order cost least.
    pub fn add(&mut self, minute: i64, key: TrendKey, count: u64) {
        let TrendKey { event_type, by, id } = key;
        let place = |family: &Family| (family.by, family.event_type.as_str()).cmp(&(by, event_type.as_str()));
        let index = match self.families.binary_search_by(place) {
            Ok(index) => index,
            Err(index) => {
                let family = Family {
                    by,
                    event_type,
                    series: HashMap::new(),
                };
                self.families.insert(index, family);
                index
            }
        };
        self.families[index].series.entry(id).or_default().add(minute, count);
    }

    /// Notes by how much more any count of a minute may be too low, because some of its tiles outgrew their limit.
    pub fn add_error(&mut self, minute: i64, error: u64) {
        if error > 0 {
            let known = self.errors.entry(minute).or_default();
            *known = known.saturating_add(error);
        }
    }

    /// The value of a trend for a content or category as of `now`: the events in its window, exact to one minute at its far
    /// end (P12). It is never too high; by how much it may be too low, [`Trends::error`] says.
    pub fn count(&self, trend: &Trend, id: &str, now: Timestamp) -> u64 {
        let (first, last) = (oldest_minute(trend.within_ms, now), minute_of(now));
        let mut sum: u64 = 0;
        for event_type in &trend.event_types {
            if let Some(family) = self.family(trend.by, event_type)
                && let Some(series) = family.series.get(id)
            {
                sum = sum.saturating_add(series.between(first, last));
            }
        }
        sum
    }

    /// By how much any count of a trend as of `now` may be too low: 0 unless tiles outgrew their limit.
    pub fn error(&self, trend: &Trend, now: Timestamp) -> u64 {
        let window = oldest_minute(trend.within_ms, now)..=minute_of(now);
        let of_one_type = self
            .errors
            .range(window)
            .fold(0u64, |sum, (_, error)| sum.saturating_add(*error));
        // The count of each type may be too low by as much.
        of_one_type.saturating_mul(trend.event_types.len() as u64)
    }

    /// The contents or categories of a trend with the highest counts as of `now`, highest first and by id where they are
    /// equal; at most `limit` of them, none with 0.
    pub fn top(&self, trend: &Trend, now: Timestamp, limit: usize) -> Vec<(&str, u64)> {
        let (first, last) = (oldest_minute(trend.within_ms, now), minute_of(now));
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for event_type in &trend.event_types {
            let Some(family) = self.family(trend.by, event_type) else {
                continue;
            };
            for (id, series) in &family.series {
                let sum = sums.entry(id).or_default();
                *sum = sum.saturating_add(series.between(first, last));
            }
        }
        let mut top: Vec<(&str, u64)> = sums.into_iter().filter(|(_, sum)| *sum > 0).collect();
        top.sort_unstable_by(|(left_id, left), (right_id, right)| right.cmp(left).then(left_id.cmp(right_id)));
        top.truncate(limit);
        top
    }

    /// The event types that were counted by this kind of id, in order.
    pub fn event_types(&self, by: TrendBy) -> impl Iterator<Item = &str> {
        let of_kind = self.families.iter().filter(move |family| family.by == by);
        of_kind.map(|family| family.event_type.as_str())
    }

    fn family(&self, by: TrendBy, event_type: &str) -> Option<&Family> {
        // There are a handful, which are quicker to walk through than to hash.
        self.families
            .iter()
            .find(|family| family.by == by && family.event_type == event_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 1_767_614_400_000;

    fn trend(event_types: &[&str], by: TrendBy, within_ms: i64) -> Trend {
        Trend {
            name: "t".to_owned(),
            event_types: event_types.iter().map(|name| (*name).to_owned()).collect(),
            by,
            within_ms,
        }
    }

    fn key(event_type: &str, by: TrendBy, id: &str) -> TrendKey {
        TrendKey {
            event_type: event_type.to_owned(),
            by,
            id: id.to_owned(),
        }
    }

    #[test]
    fn p12_a_trend_is_right_as_of_any_moment_without_an_event() {
        let noon = Timestamp::from_epoch_ms(NOON);
        let mut trends = Trends::default();
        trends.add(minute_of(noon), key("click", TrendBy::Content, "a"), 3);
        trends.add(minute_of(noon) - 1, key("click", TrendBy::Content, "a"), 2);
        trends.add(minute_of(noon) + 2, key("click", TrendBy::Content, "a"), 10);
        trends.add(minute_of(noon), key("like", TrendBy::Content, "a"), 100);
        trends.add(minute_of(noon), key("click", TrendBy::Category, "a"), 1000);
        let (clicks, both) = (&["click"][..], &["click", "like"][..]);
        for (event_types, by, within_minutes, after_ms, expected) in [
            (clicks, TrendBy::Content, 1, 0, 5),
            (clicks, TrendBy::Content, 1, 59_999, 3),
            (clicks, TrendBy::Content, 2, 0, 5),
            (clicks, TrendBy::Content, 10, 119_999, 5),
            (clicks, TrendBy::Content, 10, 120_000, 15), // what is ahead of now counts once now is there
            (clicks, TrendBy::Content, 1, 120_000, 10),
            (both, TrendBy::Content, 10, 0, 105),
            (clicks, TrendBy::Category, 10, 0, 1000),
            (clicks, TrendBy::Content, 10, 3_600_000, 0),
        ] {
            let trend = trend(event_types, by, within_minutes * TILE_MS);
            let count = trends.count(&trend, "a", noon.plus_ms(after_ms));
            assert_eq!(count, expected, "{trend:?} {after_ms}");
            assert_eq!(trends.count(&trend, "b", noon.plus_ms(after_ms)), 0);
        }
    }

    #[test]
    fn the_top_is_in_order_and_errors_go_with_their_minutes() {
        let noon = Timestamp::from_epoch_ms(NOON);
        let mut trends = Trends::default();
        for (id, clicks, likes) in [("a", 1, 1), ("c", 2, 3), ("b", 5, 0), ("d", 1, 0)] {
            trends.add(minute_of(noon), key("click", TrendBy::Content, id), clicks);
            trends.add(minute_of(noon), key("like", TrendBy::Content, id), likes);
        }
        trends.add_error(minute_of(noon), 7);
        trends.add_error(minute_of(noon) - 30, 100);
        let both = trend(&["click", "like"], TrendBy::Content, 10 * TILE_MS);
        assert_eq!(trends.top(&both, noon, 3), [("b", 5), ("c", 5), ("a", 2)]);
        assert_eq!(trends.error(&both, noon), 14);
        assert_eq!(trends.error(&both, noon.plus_ms(11 * TILE_MS)), 0);
        assert!(trends.top(&both, noon.plus_ms(11 * TILE_MS), 3).is_empty());
        assert_eq!(
            trends.event_types(TrendBy::Content).collect::<Vec<_>>(),
            ["click", "like"]
        );
        assert_eq!(trends.event_types(TrendBy::Category).count(), 0);
    }

    proptest! {
        /// In whatever order the minutes come, a count is the sum over its window.
        #[test]
        fn a_count_is_the_sum_over_the_window(
            added in prop::collection::vec((0i64..200, 0usize..3, 0u64..50), 0..80),
            within_minutes in 1i64..100,
            at_ms in 0i64..200 * TILE_MS,
        ) {
            let ids = ["a", "b", "c"];
            let trend = trend(&["click"], TrendBy::Content, within_minutes * TILE_MS);
            let now = Timestamp::from_epoch_ms(NOON + at_ms);
            let start = minute_of(Timestamp::from_epoch_ms(NOON));
            let mut trends = Trends::default();
            for (minute, id, count) in &added {
                trends.add(start + minute, key("click", TrendBy::Content, ids[*id]), *count);
            }
            let oldest_ms = now.epoch_ms() - within_minutes * TILE_MS;
            for (index, id) in ids.iter().enumerate() {
                let expected: u64 = added
                    .iter()
                    .filter(|(minute, of, _)| {
                        let tile_ms = NOON + minute * TILE_MS;
                        *of == index && tile_ms <= now.epoch_ms() && tile_ms + TILE_MS - 1 > oldest_ms
                    })
                    .map(|(_, _, count)| count)
                    .sum();
                prop_assert_eq!(trends.count(&trend, id, now), expected);
            }
        }
    }
}
