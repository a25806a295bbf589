//! Sliding windows over event time, kept as tiles (P11, P12).
//!
//! A window of length `W` is cut into tiles of a fixed width. An event adds to the tile of its own time, whenever it
//! comes. The answer as of *now* adds every tile that reaches into `(now - W, now]`: no event within the window is ever
//! missed, and one that left it less than one tile ago may still be counted. So the answer is exact to one tile.
//!
//! All tiles of a window have one width. Tiles that get coarser with age would save space, but each tile is some day
//! the one at the window's far edge, and there a coarse one would make the answer as coarse. What saves space instead is
//! that only tiles that hold something are kept, and of a window's extreme only those that may still become it.

use crate::time::Timestamp;

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Tiles in a window of at most an hour.
const FINE_TILES: i64 = 60;
/// Tiles in a window of over a day.
const COARSE_TILES: i64 = 1440;

/// The length of a window and the width of its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLength {
    within_ms: i64,
    tile_ms: i64,
}

impl WindowLength {
    /// The tiles for a window: a 60th of it up to an hour, a minute up to a day, and beyond that as many whole minutes
    /// as keep it to 1,440 tiles.
    pub fn of_ms(within_ms: i64) -> WindowLength {
        let tile_ms = if within_ms <= HOUR_MS {
            (within_ms / FINE_TILES / SECOND_MS).max(1) * SECOND_MS
        } else if within_ms <= DAY_MS {
            MINUTE_MS
        } else {
            (within_ms as u64).div_ceil((COARSE_TILES * MINUTE_MS) as u64) as i64 * MINUTE_MS
        };
        WindowLength { within_ms, tile_ms }
    }

    /// A window of so many tiles of a given width.
    pub fn of_tiles(tiles: i64, tile_ms: i64) -> WindowLength {
        WindowLength {
            within_ms: tiles * tile_ms,
            tile_ms,
        }
    }

    /// A window cut into so many tiles, of whole seconds: for what keeps a window for each of several values.
    pub fn in_tiles(within_ms: i64, tiles: i64) -> WindowLength {
        let tile_ms = (within_ms as u64).div_ceil((tiles * SECOND_MS) as u64) as i64 * SECOND_MS;
        WindowLength { within_ms, tile_ms }
    }

    /// How many tiles may hold something at once.
    pub fn tiles_max(self) -> usize {
        (self.within_ms / self.tile_ms + 2) as usize
    }

    /// Its length in milliseconds.
    pub fn within_ms(self) -> i64 {
        self.within_ms
    }

    /// The width of a tile in milliseconds: how exact an answer is.
    pub fn tile_ms(self) -> i64 {
        self.tile_ms
    }

    /// The number of the tile that a moment is in.
    pub fn tile_of(self, at: Timestamp) -> i64 {
        at.epoch_ms().div_euclid(self.tile_ms)
    }

    /// The oldest tile that reaches into the window as of `now`.
    pub fn oldest_tile(self, now: Timestamp) -> i64 {
        (now.epoch_ms() - self.within_ms + 1).div_euclid(self.tile_ms)
    }
}

/// Which end of the numbers a window keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// The smallest.
    Least,
    /// The largest.
    Greatest,
}

impl Extreme {
    /// Whether `one` is at least as extreme as `other`.
    fn outdoes(self, one: i128, other: i128) -> bool {
        match self {
            Extreme::Least => one <= other,
            Extreme::Greatest => one >= other,
        }
    }

    /// The more extreme of two.
    pub fn of(self, one: i128, other: i128) -> i128 {
        if self.outdoes(one, other) { one } else { other }
    }
}

/// The tiles of a sliding window that hold something, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    tiles: Vec<Tile>,
}

/// One tile: its number since 1970 and what was added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The tile's start divided by its width.
    pub index: i64,
    /// A count, or a sum in millionths.
    pub amount: i128,
}

impl Window {
    /// From stored tiles, in any order; two of the same tile add up.
    pub fn from_tiles(mut tiles: Vec<Tile>) -> Window {
        tiles.sort_unstable_by_key(|tile| tile.index);
        tiles.dedup_by(|later, earlier| {
            let same = later.index == earlier.index;
            if same {
                earlier.amount = earlier.amount.saturating_add(later.amount);
            }
            same
        });
        Window { tiles }
    }

    /// The tiles, oldest first.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// Adds to the tile of `at`, if the window as of `now` still has it.
    pub fn add(&mut self, length: WindowLength, at: Timestamp, now: Timestamp, amount: i128) {
        let index = length.tile_of(at);
        if index < length.oldest_tile(now) {
            return;
        }
        self.add_to(index, amount);
    }

    /// Adds to the tile with this number.
    pub(crate) fn add_to(&mut self, index: i64, amount: i128) {
        // Nearly always the newest tile, so look from the back.
        let place = self.tiles.iter().rposition(|tile| tile.index <= index);
        match place {
            Some(found) if self.tiles[found].index == index => {
                self.tiles[found].amount = self.tiles[found].amount.saturating_add(amount);
            }
            Some(before) => self.tiles.insert(before + 1, Tile { index, amount }),
            None => self.tiles.insert(0, Tile { index, amount }),
        }
    }

    /// Keeps the extreme of each tile, if the window as of `now` still has it, and drops every tile that a later one
    /// outdoes: it can't become the window's extreme any more. So few tiles are kept, and the same in any order of coming.
    pub fn add_extreme(&mut self, length: WindowLength, extreme: Extreme, at: Timestamp, now: Timestamp, amount: i128) {
        let index = length.tile_of(at);
        if index >= length.oldest_tile(now) {
            self.insert_extreme(extreme, Tile { index, amount });
        }
    }

    fn insert_extreme(&mut self, extreme: Extreme, tile: Tile) {
        // The kept tiles, oldest first, get less and less extreme.
        let later = self.tiles.partition_point(|kept| kept.index < tile.index);
        if self.tiles[later..]
            .first()
            .is_some_and(|kept| extreme.outdoes(kept.amount, tile.amount))
        {
            return;
        }
        let same = self.tiles.get(later).is_some_and(|kept| kept.index == tile.index);
        let outdone = self.tiles[..later]
            .iter()
            .rev()
            .take_while(|kept| extreme.outdoes(tile.amount, kept.amount))
            .count();
        self.tiles
            .splice(later - outdone..later + usize::from(same), std::iter::once(tile));
    }

    /// The most extreme amount that the window holds as of `now`.
    pub fn extreme(&self, length: WindowLength, now: Timestamp) -> Option<i128> {
        let oldest = length.oldest_tile(now);
        // The most extreme one is the oldest of those that are still within.
        let first = self.tiles.partition_point(|tile| tile.index < oldest);
        self.tiles.get(first).map(|tile| tile.amount)
    }

    /// Adds what another window of the same length holds.
    pub fn merge(&mut self, other: &Window) {
        if !other.tiles.is_empty() {
            let all = self.tiles.drain(..).chain(other.tiles.iter().copied());
            *self = Window::from_tiles(all.collect());
        }
    }

    /// Takes in another window of the same length that keeps the same extreme.
    pub fn merge_extreme(&mut self, extreme: Extreme, other: &Window) {
        for tile in &other.tiles {
            self.insert_extreme(extreme, *tile);
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    /// Drops the tiles that have left the window as of `now`.
    pub fn prune(&mut self, length: WindowLength, now: Timestamp) {
        let oldest = length.oldest_tile(now);
        let gone = self.tiles.iter().take_while(|tile| tile.index < oldest).count();
        if gone > 0 {
            self.tiles.drain(..gone);
        }
    }

    /// What the window holds as of `now`.
    pub fn total(&self, length: WindowLength, now: Timestamp) -> i128 {
        let oldest = length.oldest_tile(now);
        let kept = self.tiles.iter().rev().take_while(|tile| tile.index >= oldest);
        kept.fold(0i128, |total, tile| total.saturating_add(tile.amount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_width_of_a_tile_follows_from_the_window() {
        for (within_ms, tile_ms) in [
            (MINUTE_MS, SECOND_MS),
            (10 * MINUTE_MS, 10 * SECOND_MS),
            (HOUR_MS, MINUTE_MS),
            (HOUR_MS + 1, MINUTE_MS),
            (DAY_MS, MINUTE_MS),
            (7 * DAY_MS, 7 * MINUTE_MS),
            (90 * DAY_MS, 90 * MINUTE_MS),
        ] {
            assert_eq!(WindowLength::of_ms(within_ms).tile_ms(), tile_ms, "{within_ms}");
        }
    }

    #[test]
    fn p12_a_window_decays_although_no_event_comes() {
        let length = WindowLength::of_ms(10 * MINUTE_MS);
        let start = Timestamp::from_epoch_ms(100 * DAY_MS);
        let mut window = Window::default();
        window.add(length, start, start, 1);
        window.add(length, start.plus_ms(5 * MINUTE_MS), start.plus_ms(5 * MINUTE_MS), 1);
        for (minutes, expected) in [(5, 2), (9, 2), (11, 1), (14, 1), (16, 0)] {
            assert_eq!(
                window.total(length, start.plus_ms(minutes * MINUTE_MS)),
                expected,
                "after {minutes} min"
            );
        }
    }

    proptest! {
        /// P11: every event within the window counts, none counts that left it over a tile ago, in any order of coming.
        #[test]
        fn p11_exact_to_one_tile(within_min in 1i64..3000, mut ats in prop::collection::vec(0i64..DAY_MS * 3, 0..60), seed: u64) {
            let length = WindowLength::of_ms(within_min * MINUTE_MS);
            let now = Timestamp::from_epoch_ms(10 * DAY_MS);
            let base = now.epoch_ms() - 3 * DAY_MS;
            let fill = |ats: &[i64]| {
                let mut window = Window::default();
                for at in ats {
                    window.add(length, Timestamp::from_epoch_ms(base + at), now, 1);
                    window.prune(length, now);
                }
                window
            };
            let window = fill(&ats);
            let certain = ats.iter().filter(|at| base + **at > now.epoch_ms() - length.within_ms()).count() as i128;
            let possible = ats.iter().filter(|at| base + **at > now.epoch_ms() - length.within_ms() - length.tile_ms()).count() as i128;
            let total = window.total(length, now);
            prop_assert!(certain <= total && total <= possible, "{} <= {} <= {}", certain, total, possible);
            prop_assert!(window.tiles().len() as i64 <= length.within_ms() / length.tile_ms() + 1);
            let rotation = if ats.is_empty() { 0 } else { seed as usize % ats.len() };
            ats.rotate_left(rotation);
            prop_assert_eq!(fill(&ats), window);
        }

        /// P11: an extreme is that of the events within, or of those and some that left less than a tile ago; few tiles are
        /// kept, the same in any order of coming, and two windows merge to that of all events.
        #[test]
        fn p11_an_extreme_is_exact_to_one_tile(
            mut drawn in prop::collection::vec((0i64..DAY_MS, -50i128..50), 0..60),
            least: bool,
            split: prop::sample::Index,
            rotation: prop::sample::Index,
        ) {
            let length = WindowLength::of_ms(12 * HOUR_MS);
            let extreme = if least { Extreme::Least } else { Extreme::Greatest };
            let now = Timestamp::from_epoch_ms(10 * DAY_MS);
            let base = now.epoch_ms() - DAY_MS;
            let fill = |drawn: &[(i64, i128)]| {
                let mut window = Window::default();
                for (at, amount) in drawn {
                    window.add_extreme(length, extreme, Timestamp::from_epoch_ms(base + at), now, *amount);
                }
                window.prune(length, now);
                window
            };
            let window = fill(&drawn);
            for later_ms in [0, HOUR_MS, 7 * HOUR_MS] {
                let now = now.plus_ms(later_ms);
                let edge = now.epoch_ms() - length.within_ms();
                let of = |from: i64| {
                    let amounts = drawn.iter().filter(|(at, _)| base + at > from).map(|(_, amount)| *amount);
                    if least { amounts.min() } else { amounts.max() }
                };
                let edges = drawn.iter().map(|(at, _)| base + at - 1).filter(|at| *at < edge && *at >= edge - length.tile_ms());
                let possible: Vec<_> = edges.chain([edge]).map(of).collect();
                prop_assert!(possible.contains(&window.extreme(length, now)), "{:?} {:?}", possible, window);
            }
            let place = split.index(drawn.len() + 1);
            let mut merged = fill(&drawn[..place]);
            merged.merge_extreme(extreme, &fill(&drawn[place..]));
            prop_assert_eq!(&merged, &window);
            if !drawn.is_empty() {
                let rotation = rotation.index(drawn.len());
                drawn.rotate_left(rotation);
            }
            prop_assert_eq!(fill(&drawn), window);
        }
    }
}
