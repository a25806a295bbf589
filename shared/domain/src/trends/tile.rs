//! A tile: what one shard's events of one minute were about, each counted once (P2), in bounded space (P8).
//!
//! Up to [`TILE_KEYS_EXACT_MAX`] different keys the counts are exact. Beyond that the frequent-items sketch of Apache
//! DataSketches takes over (a Misra-Gries sketch, <https://arxiv.org/abs/1705.07001>): it forgets the rarest half of the keys
//! and remembers by how much any count may be too low since then, [`TrendTile::error`]. That is at most [`TILE_EPSILON`] of
//! all that the tile counted, and the errors of several tiles add up.
//!
//! A tile follows from its shard's events in their order and from nothing else: neither how they were batched nor which
//! containers stored and read it in between.

use datasketches::frequencies::{ErrorType, FrequentItemsSketch};

use super::TrendKey;
use super::counting::keys_of;
use crate::event::Event;
use crate::journey::TrendBy;
use crate::limits::{TREND_TILE_IDS_MAX, TREND_TILE_MAP_SIZE};
use crate::recent_event_ids::RecentEventIds;
use crate::sequence_number::Position;

/// Different keys that a tile counts exactly: three quarters of the sketch's table.
pub const TILE_KEYS_EXACT_MAX: usize = TREND_TILE_MAP_SIZE / 4 * 3;
/// The part of all that a tile counted by which a count of it may be too low at most: 3.5 by the size of the sketch's table.
pub const TILE_EPSILON: f64 = 3.5 / TREND_TILE_MAP_SIZE as f64;
/// The largest count that is read from a stored tile, so that no sum of stored ones overflows.
const STORED_COUNT_MAX: u64 = u32::MAX as u64;

/// What became of an event that was to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is counted.
    New,
    /// It was counted in an earlier delivery.
    Redelivered,
    /// Its id is among the last that were counted: the producer sent it twice.
    Repeated,
}

/// The parts of a tile, as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileParts {
    /// The last record of the shard that it counted.
    pub applied: Position,
    /// Events that it counted.
    pub events: u64,
    /// By how much any count may be too low.
    pub error: u64,
    /// The counts, in the order of their keys.
    pub counts: Vec<(TrendKey, u64)>,
    /// The ids last counted, shortened to 32 bits, oldest first.
    pub recent_ids: Vec<u32>,
}

/// What one shard's events of one minute were about.
#[derive(Clone, Debug)]
pub struct TrendTile {
    applied: Position,
    events: u64,
    sketch: FrequentItemsSketch<String>,
    /// What was forgotten before the sketch was last filled.
    forgotten: u64,
    recent_ids: RecentEventIds,
}

impl Default for TrendTile {
    fn default() -> TrendTile {
        TrendTile::from_parts(TileParts::default())
    }
}

impl TrendTile {
    /// A tile from its parts. Of more counts than a tile holds, the sketch keeps the largest.
    pub fn from_parts(parts: TileParts) -> TrendTile {
        let mut recent_ids = RecentEventIds::default();
        for id in parts.recent_ids {
            recent_ids.remember(u64::from(id), TREND_TILE_IDS_MAX);
        }
        TrendTile {
            applied: parts.applied,
            events: parts.events,
            sketch: filled(parts.counts.iter().map(|(key, count)| (sketched(key), *count))),
            forgotten: parts.error.min(STORED_COUNT_MAX),
            recent_ids,
        }
    }

    /// Its parts.
    pub fn parts(&self) -> TileParts {
        let mut counts: Vec<(TrendKey, u64)> = self
            .rows()
            .into_iter()
            .filter_map(|(key, count)| Some((read_sketched(&key)?, count)))
            .collect();
        counts.sort_unstable();
        TileParts {
            applied: self.applied,
            events: self.events,
            error: self.error(),
            counts,
            // They were shortened when they came.
            recent_ids: self.recent_ids.hashes().map(|hash| hash as u32).collect(),
        }
    }

    /// Counts an event of the shard, by content and by category, unless it was counted before. Events come in the order of
    /// the shard; what comes at or before the last that was counted was delivered again.
    pub fn count(&mut self, event: &Event<'_>, position: Position) -> Counted {
        if self.events > 0 && position <= self.applied {
            return Counted::Redelivered;
        }
        let short_id = u64::from(event.id_hash as u32);
        if self.recent_ids.contains(short_id) {
            return Counted::Repeated;
        }
        self.recent_ids.remember(short_id, TREND_TILE_IDS_MAX);
        self.applied = position;
        self.events = self.events.saturating_add(1);
        let mut key = String::new();
        for (by, id) in keys_of(event) {
            key.clear();
            write_sketched(&mut key, by, &event.event_type, id);
            self.add_one(&key);
        }
        Counted::New
    }

    fn add_one(&mut self, key: &str) {
        if self.sketch.num_active_items() >= TILE_KEYS_EXACT_MAX && self.sketch.lower_bound(key) == 0 {
            // Now it forgets. What it forgets depends a little on where in its table the keys are, and that on how they
            // came there. So they come anew, in order.
            let mut rows = self.rows();
            rows.sort_unstable();
            self.forgotten = self.error();
            self.sketch = filled(rows);
        }
        self.sketch.update_with_count_ref(key, 1);
    }

    fn rows(&self) -> Vec<(String, u64)> {
        self.sketch
            .frequent_items(ErrorType::NoFalseNegatives)
            .into_iter()
            .map(|row| (row.item().clone(), row.lower_bound()))
            .collect()
    }

    /// How often events were about this; never too high.
    pub fn count_of(&self, key: &TrendKey) -> u64 {
        self.sketch.lower_bound(sketched(key).as_str())
    }

    /// By how much any count may be too low: 0 while the tile holds all its keys.
    pub fn error(&self) -> u64 {
        self.forgotten.saturating_add(self.sketch.maximum_error())
    }

    /// Events that it counted.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last record of the shard that it counted.
    pub fn applied(&self) -> Position {
        self.applied
    }
}

fn filled(rows: impl IntoIterator<Item = (String, u64)>) -> FrequentItemsSketch<String> {
    let mut sketch = empty_sketch();
    for (key, count) in rows {
        sketch.update_with_count(key, count.min(STORED_COUNT_MAX));
    }
    sketch
}

fn empty_sketch() -> FrequentItemsSketch<String> {
    const { assert!(TREND_TILE_MAP_SIZE.is_power_of_two() && TREND_TILE_MAP_SIZE >= 8) };
    #[expect(
        clippy::expect_used,
        reason = "only another table size is refused, and that is checked above"
    )]
    FrequentItemsSketch::new(TREND_TILE_MAP_SIZE).expect("a power of two")
}

/// The sketch's name for a key: `c` or `g`, the length of the event type, the event type and the id, so that no two keys
/// have one name.
fn write_sketched(name: &mut String, by: TrendBy, event_type: &str, id: &str) {
    name.push(match by {
        TrendBy::Content => 'c',
        TrendBy::Category => 'g',
    });
    name.push_str(&event_type.len().to_string());
    name.push(':');
    name.push_str(event_type);
    name.push_str(id);
}

fn sketched(key: &TrendKey) -> String {
    let mut name = String::with_capacity(key.event_type.len() + key.id.len() + 5);
    write_sketched(&mut name, key.by, &key.event_type, &key.id);
    name
}

/// The key of a name that [`write_sketched`] wrote.
fn read_sketched(name: &str) -> Option<TrendKey> {
    let (head, rest) = name.split_once(':')?;
    let by = match head.get(..1)? {
        "c" => TrendBy::Content,
        _ => TrendBy::Category,
    };
    let (event_type, id) = rest.split_at_checked(head.get(1..)?.parse().ok()?)?;
    Some(TrendKey {
        event_type: event_type.to_owned(),
        by,
        id: id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{event, time};

    fn at(number: u64) -> Position {
        Position {
            sequence_number: number.into(),
            sub_sequence_number: 0,
        }
    }

    fn click<'e>(id: &str, content: &'e str, category: Option<&'e str>) -> Event<'e> {
        Event {
            content_id: Some(content.into()),
            category: category.map(Into::into),
            ..event(id, "click", time(0))
        }
    }

    fn key(by: TrendBy, id: &str) -> TrendKey {
        TrendKey {
            event_type: "click".to_owned(),
            by,
            id: id.to_owned(),
        }
    }

    #[test]
    fn p2_an_event_counts_once_however_often_it_is_delivered_or_sent() {
        let mut tile = TrendTile::default();
        for (id, position, expected) in [
            ("1", 10, Counted::New),
            ("2", 11, Counted::New),
            ("1", 10, Counted::Redelivered),
            ("2", 11, Counted::Redelivered),
            ("3", 5, Counted::Redelivered), // whatever it says, the tile is past it
            ("2", 12, Counted::Repeated),
            ("3", 13, Counted::New),
        ] {
            let counted = tile.count(&click(id, "tour", Some("video")), at(position));
            assert_eq!(counted, expected, "{id} {position}");
        }
        assert_eq!(tile.count_of(&key(TrendBy::Content, "tour")), 3);
        assert_eq!(tile.count_of(&key(TrendBy::Category, "video")), 3);
        assert_eq!((tile.events(), tile.error(), tile.applied()), (3, 0, at(13)));
    }

    #[test]
    fn the_first_record_of_a_shard_counts_whatever_its_number() {
        let mut tile = TrendTile::default();
        assert_eq!(tile.count(&click("1", "a", None), at(0)), Counted::New);
        assert_eq!(tile.count(&click("1", "a", None), at(0)), Counted::Redelivered);
    }

    #[test]
    fn p8_ids_are_remembered_up_to_their_limit() {
        let mut tile = TrendTile::default();
        for number in 0..=TREND_TILE_IDS_MAX as u64 {
            assert_eq!(
                tile.count(&click(&number.to_string(), "a", None), at(number)),
                Counted::New
            );
        }
        assert_eq!(tile.parts().recent_ids.len(), TREND_TILE_IDS_MAX);
        assert_eq!(
            tile.count(&click("0", "a", None), at(1_000)),
            Counted::New,
            "too long ago"
        );
        assert_eq!(tile.count(&click("5", "a", None), at(1_001)), Counted::Repeated);
    }

    #[test]
    fn names_of_keys_tell_them_apart() {
        let texts = ["", "a", "1:a", ":", "é", "c1:a", "12"];
        let mut names = std::collections::BTreeSet::new();
        for by in [TrendBy::Content, TrendBy::Category] {
            for event_type in texts {
                for id in texts {
                    let key = TrendKey {
                        event_type: event_type.to_owned(),
                        by,
                        id: id.to_owned(),
                    };
                    assert_eq!(read_sketched(&sketched(&key)), Some(key.clone()));
                    assert!(names.insert(sketched(&key)));
                }
            }
        }
        for broken in ["", "c", "c9:a", "cx:a", "é", "c1:é"] {
            assert_eq!(read_sketched(broken), None, "{broken}");
        }
    }

    /// Contents by a skewed law, as clicks are: low numbers often, high ones rarely.
    fn skewed() -> impl Strategy<Value = Vec<u32>> {
        let one = (0u32..1_000_000, 1u32..4).prop_map(|(number, power)| {
            let part = f64::from(number) / 1e6;
            (part.powi(power as i32) * 3_000.0) as u32
        });
        prop::collection::vec(one, 0..6_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// However many keys there are: no count is too high, none is too low by more than the tile says, and that is
        /// within the stated part of what was counted. Storing the tile in between changes nothing.
        #[test]
        fn p8_a_tile_keeps_its_error_bound_and_its_size(contents in skewed(), stored_every in 1usize..2_000) {
            let mut exact: BTreeMap<u32, u64> = BTreeMap::new();
            let (mut tile, mut stored) = (TrendTile::default(), TrendTile::default());
            for (index, content) in contents.iter().enumerate() {
                *exact.entry(*content).or_default() += 1;
                let (id, content) = (index.to_string(), content.to_string());
                let event = click(&id, &content, None);
                prop_assert_eq!(tile.count(&event, at(index as u64)), Counted::New);
                prop_assert_eq!(stored.count(&event, at(index as u64)), Counted::New);
                if index % stored_every == 0 {
                    stored = TrendTile::from_parts(stored.parts());
                }
            }
            let parts = tile.parts();
            prop_assert_eq!(&parts, &stored.parts());
            prop_assert!(parts.counts.len() <= TILE_KEYS_EXACT_MAX);
            prop_assert!(parts.error as f64 <= TILE_EPSILON * contents.len() as f64);
            prop_assert!(exact.len() > TILE_KEYS_EXACT_MAX || parts.error == 0);
            for (content, expected) in &exact {
                let count = tile.count_of(&key(TrendBy::Content, &content.to_string()));
                prop_assert!(count <= *expected && expected - count <= parts.error, "{content}: {count} of {expected}");
            }
        }
    }
}
