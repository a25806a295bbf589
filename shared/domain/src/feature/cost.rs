//! What each kind of feature costs in the stored item.
//!
//! `worst` is a bound that holds for whatever events come (a test in the crate that stores profiles compares the two);
//! `typical` is for a user who does a few things a day, over and over.

use super::Computation;
use crate::event::Field;
use crate::limits::{
    DISTINCT_EXACT_MAX, DISTINCT_SAMPLE_ENTRIES_MAX, OPEN_SESSIONS_MAX, SCORE_HALF_LIVES_MAX, STORED_TEXT_BYTES_MAX,
    TOP_TILES, TOP_TRACKED_MAX,
};
use crate::local_time::{HOURS, WEEKDAYS};
use crate::window::WindowLength;

/// Bytes of the stored item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemBytes {
    /// For a user who does a few things a day.
    pub typical: usize,
    /// At most.
    pub worst: usize,
}

impl ItemBytes {
    pub(crate) const fn new(typical: usize, worst: usize) -> ItemBytes {
        ItemBytes { typical, worst }
    }

    pub(crate) fn times(self, typical: usize, worst: usize) -> ItemBytes {
        ItemBytes::new(self.typical * typical, self.worst * worst)
    }
}

impl std::ops::Add for ItemBytes {
    type Output = ItemBytes;

    fn add(self, other: ItemBytes) -> ItemBytes {
        ItemBytes::new(self.typical + other.typical, self.worst + other.worst)
    }
}

impl std::iter::Sum for ItemBytes {
    fn sum<I: Iterator<Item = ItemBytes>>(all: I) -> ItemBytes {
        all.fold(ItemBytes::default(), std::ops::Add::add)
    }
}

/// The fingerprint and the kind.
const NAME: ItemBytes = ItemBytes::new(9, 11);
/// The head of a list.
const LIST: ItemBytes = ItemBytes::new(1, 3);
/// A whole number that counts events.
const COUNT: ItemBytes = ItemBytes::new(2, 9);
/// A sum in millionths.
const SUM: ItemBytes = ItemBytes::new(5, 17);
/// A point in time, as milliseconds before another.
const TIME: ItemBytes = ItemBytes::new(5, 9);
/// Time, shard and kind of a value that goes by event time.
const DATED: ItemBytes = ItemBytes::new(10, 19);
/// The first tile's number, and how far a further one is from the one before.
const FIRST_TILE: ItemBytes = ItemBytes::new(5, 9);
const FURTHER_TILE: ItemBytes = ItemBytes::new(2, 5);
/// Tiles of a window that hold something, for a user who comes now and then.
const TILES_TYPICAL: usize = 4;
/// Half-lives of a score in which something happened.
const HALF_LIVES_TYPICAL: usize = 6;
/// Distinct values of a field that a user has.
const VALUES_TYPICAL: usize = 4;
/// Bytes of a text value, such as a category or an id.
const TEXT_TYPICAL: usize = 10;
/// The parts of a hash.
const EXACT_HASH_BYTES: usize = 6;
const SAMPLE_ENTRY: ItemBytes = ItemBytes::new(7, 5 + 10);

fn window(length: WindowLength, amount: ItemBytes) -> ItemBytes {
    let worst = length.tiles_max();
    let further = FURTHER_TILE + amount;
    LIST + FIRST_TILE + amount + further.times(TILES_TYPICAL.min(worst) - 1, worst - 1)
}

/// A value of a field, with its head.
fn value(field: &Field) -> ItemBytes {
    match field {
        Field::LocalHour | Field::LocalWeekday => ItemBytes::new(1, 2),
        _ => ItemBytes::new(TEXT_TYPICAL + 1, STORED_TEXT_BYTES_MAX + 3),
    }
}

impl Computation {
    /// What it costs in the stored item, its name included.
    pub fn item_bytes(&self) -> ItemBytes {
        let state = self.state_bytes();
        if state == ItemBytes::default() {
            return state;
        }
        NAME + state
    }

    fn state_bytes(&self) -> ItemBytes {
        match self {
            Computation::SessionCount
            | Computation::SessionDuration
            | Computation::SessionMeanDuration
            | Computation::SessionEvents
            | Computation::SessionCurrentDuration
            | Computation::StepDuration { .. }
            | Computation::Expr => ItemBytes::default(),
            Computation::Count => COUNT,
            Computation::Sum(_) | Computation::Extreme(..) => SUM,
            Computation::CountWithin(length) | Computation::FrequencyWithin { within: length, .. } => {
                window(*length, COUNT)
            }
            Computation::SumWithin(_, length) | Computation::ExtremeWithin(_, _, length) => window(*length, SUM),
            Computation::Last(field) | Computation::First(field) | Computation::LastWithin(field, _) => {
                DATED + value(field)
            }
            Computation::Recent { field, limit, .. } => {
                LIST + (DATED + value(field)).times(VALUES_TYPICAL.min(*limit), *limit)
            }
            Computation::FirstSeen | Computation::LastSeen | Computation::TimeSince | Computation::TimeSinceFirst => {
                TIME
            }
            Computation::Distinct(_) => {
                let hashes = DISTINCT_EXACT_MAX * EXACT_HASH_BYTES;
                ItemBytes::new(2 + VALUES_TYPICAL * EXACT_HASH_BYTES, 3 + hashes)
            }
            Computation::DistinctWithin(..) => {
                ItemBytes::new(3, 5) + SAMPLE_ENTRY.times(VALUES_TYPICAL, DISTINCT_SAMPLE_ENTRIES_MAX)
            }
            Computation::Mean(_) => SUM + COUNT,
            Computation::MeanWithin(_, length) => window(*length, SUM) + window(*length, COUNT),
            Computation::Rate { .. } => COUNT + COUNT,
            Computation::RateWithin { within, .. } => window(*within, COUNT).times(2, 2),
            Computation::Top { field, within, .. } => {
                let counts = match within {
                    None => LIST + FIRST_TILE + COUNT,
                    Some(_) => window(WindowLength::of_tiles(TOP_TILES, 1), COUNT),
                };
                let entry = ItemBytes::new(4, 6) + value(field) + counts;
                LIST + entry.times(VALUES_TYPICAL, TOP_TRACKED_MAX)
            }
            Computation::Score { .. } => {
                let further = ItemBytes::new(1, 3) + SUM;
                LIST + FIRST_TILE + further.times(HALF_LIVES_TYPICAL, SCORE_HALF_LIVES_MAX as usize + 2)
            }
            Computation::Frequency { .. } => COUNT + TIME,
            Computation::HourOfDay => LIST + ItemBytes::new(1, 9).times(HOURS, HOURS),
            Computation::Weekday => LIST + ItemBytes::new(1, 9).times(WEEKDAYS, WEEKDAYS),
            Computation::PerSession { inner, .. } => {
                let part = ItemBytes::new(8, 16) + inner.state_bytes();
                LIST + part.times(2, OPEN_SESSIONS_MAX)
            }
        }
    }
}
