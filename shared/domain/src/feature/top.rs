//! The most frequent values of a field.
//!
//! While at most [`TOP_TRACKED_MAX`] distinct values came, every count is exact, in any order of coming, and two states
//! merge exactly. Beyond that it is the Space-Saving algorithm (Metwally, Agrawal and El Abbadi, "Efficient computation of
//! frequent and top-k elements in data streams", 2005): a new value takes over the counter of the rarest one, so a count
//! is never too low, and too high by at most the total divided by the number of counters.

use crate::limits::TOP_TRACKED_MAX;
use crate::time::Timestamp;
use crate::value::{Scalar, Value};
use crate::window::{Window, WindowLength};

/// A value and how often it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The value.
    pub value: Scalar,
    /// How often: over all time one tile with the number 0, within a window its tiles.
    pub counts: Window,
}

/// Over all time a count is one tile.
const ALL_TIME: i64 = 0;

impl Counted {
    fn count(&self, within: Option<WindowLength>, now: Timestamp) -> i128 {
        match within {
            Some(length) => self.counts.total(length, now),
            None => self.counts.tiles().first().map_or(0, |tile| tile.amount),
        }
    }
}

/// Counts a value. Kept in the order of the values, so that the state is the same in any order of coming.
pub(super) fn count(
    entries: &mut Vec<Counted>,
    value: &Value<'_>,
    within: Option<WindowLength>,
    at: Timestamp,
    now: Timestamp,
) {
    if let Some(length) = within {
        if length.tile_of(at) < length.oldest_tile(now) {
            return;
        }
        prune(entries, length, now);
    }
    let place = match entries.iter().position(|entry| entry.value.is(value)) {
        Some(place) => place,
        None => {
            let Some(value) = value.to_scalar() else { return };
            let counts = if entries.len() < TOP_TRACKED_MAX {
                Window::default()
            } else {
                let rarest = rarest(entries, within, now);
                entries.remove(rarest).counts
            };
            let place = entries.partition_point(|entry| entry.value.order(&value).is_lt());
            entries.insert(place, Counted { value, counts });
            place
        }
    };
    let counts = &mut entries[place].counts;
    match within {
        Some(length) => counts.add(length, at, now, 1),
        None => counts.add_to(ALL_TIME, 1),
    }
}

fn prune(entries: &mut Vec<Counted>, length: WindowLength, now: Timestamp) {
    entries.retain_mut(|entry| {
        entry.counts.prune(length, now);
        !entry.counts.is_empty()
    });
}

fn rarest(entries: &[Counted], within: Option<WindowLength>, now: Timestamp) -> usize {
    let counts = entries.iter().map(|entry| entry.count(within, now)).enumerate();
    counts.min_by_key(|(_, count)| *count).map_or(0, |(index, _)| index)
}

/// The `limit` most frequent values as of `now`, the most frequent first, and among equals in the order of values.
pub(super) fn most_frequent(
    entries: &[Counted],
    within: Option<WindowLength>,
    limit: usize,
    now: Timestamp,
) -> Vec<Value<'_>> {
    let mut counted: Vec<(i128, &Scalar)> = entries
        .iter()
        .map(|entry| (entry.count(within, now), &entry.value))
        .filter(|(count, _)| *count > 0)
        .collect();
    counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    counted.truncate(limit);
    counted.into_iter().map(|(_, value)| Value::from(value)).collect()
}

/// Adds the counts of another user's state. Exact while both together have at most [`TOP_TRACKED_MAX`] values.
pub(super) fn merge(entries: &mut Vec<Counted>, other: &[Counted], within: Option<WindowLength>, now: Timestamp) {
    for entry in other {
        match entries.binary_search_by(|known| known.value.order(&entry.value)) {
            Ok(place) => entries[place].counts.merge(&entry.counts),
            Err(place) => entries.insert(place, entry.clone()),
        }
    }
    if let Some(length) = within {
        prune(entries, length, now);
    }
    while entries.len() > TOP_TRACKED_MAX {
        entries.remove(rarest(entries, within, now));
    }
}
