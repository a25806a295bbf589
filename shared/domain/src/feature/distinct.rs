//! How many distinct values a field had.
//!
//! **Over all time**: up to [`DISTINCT_EXACT_MAX`] values it is exact (48-bit hashes of them are kept; that two of 32 are
//! the same is one in 10^11). Beyond that it is Apache DataSketches' HyperLogLog with 256 registers, read with the
//! estimator that does not go by the order of coming: its relative standard error is 1.04 / √256 = 6.5 %.
//!
//! **Within a window** no library counts, so the sample is our own: the k = [`DISTINCT_SAMPLE`] smallest hashes of the
//! window ("k minimum values", Bar-Yossef et al., "Counting distinct elements in a data stream", 2002). Below k values that is
//! all of them, and exact to one tile. From the k-th smallest, as a fraction f of all hashes, the estimate is (k - 1) / f,
//! with a relative standard error of 1 / √(k - 2) = 12.7 %. As the window moves, other hashes become the smallest; so kept
//! is every hash that fewer than k others outdo, an outdoing one being at most as large and at least as recent.
//!
//! Both states follow from the set of values and their latest times alone: the order of coming makes no difference, and
//! two of them merge exactly.

use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};

use crate::hash::hash_bytes;
use crate::limits::{DISTINCT_EXACT_MAX, DISTINCT_SAMPLE, DISTINCT_SAMPLE_ENTRIES_MAX};
use crate::time::Timestamp;
use crate::value::Value;
use crate::window::WindowLength;

/// Bits of a hash that are kept over all time.
const HASH_BITS: u32 = 48;
/// Bits of a hash that are kept within a window.
pub const SAMPLE_HASH_BITS: u32 = 40;
/// The binary logarithm of the number of registers.
const LOG2_REGISTERS: u8 = 8;
/// Bytes of 256 registers of 6 bits.
pub const REGISTER_BYTES: usize = (1 << LOG2_REGISTERS) * 6 / 8;

/// The 64-bit hash of a value; nothing for what a profile can't keep. Equal numbers are one value, whole or not.
pub(super) fn hash_of(value: &Value<'_>) -> Option<u64> {
    Some(match value {
        Value::Text(text) => hash_bytes(text.as_bytes()),
        // The tag is no UTF-8, so no text has the same bytes.
        Value::Bool(value) => hash_bytes(&[0xFF, u8::from(*value)]),
        Value::Int(value) => hash_number(*value as f64),
        Value::Float(value) => hash_number(*value),
        Value::Null | Value::List(_) | Value::Json(_) => return None,
    })
}

fn hash_number(number: f64) -> u64 {
    // Zero has two signs.
    let bits = (number + 0.0).to_bits().to_le_bytes();
    let mut tagged = [0xFE; 9];
    tagged[1..].copy_from_slice(&bits);
    hash_bytes(&tagged)
}

/// The distinct values over all time.
#[derive(Clone, Debug, PartialEq)]
pub enum Distinct {
    /// The 48-bit hashes of all of them, in rising order.
    Exact(Vec<u64>),
    /// A sketch of them.
    Sketch(Sketch),
}

impl Distinct {
    /// From stored hashes.
    pub fn from_hashes(mut hashes: Vec<u64>) -> Distinct {
        hashes.sort_unstable();
        hashes.dedup();
        let mut distinct = Distinct::Exact(hashes);
        distinct.hold_bound();
        distinct
    }

    pub(super) fn add(&mut self, hash: u64) {
        let hash = hash >> (u64::BITS - HASH_BITS);
        match self {
            Distinct::Exact(hashes) => {
                if let Err(place) = hashes.binary_search(&hash) {
                    hashes.insert(place, hash);
                    self.hold_bound();
                }
            }
            Distinct::Sketch(sketch) => sketch.add(hash),
        }
    }

    fn hold_bound(&mut self) {
        if let Distinct::Exact(hashes) = self
            && hashes.len() > DISTINCT_EXACT_MAX
        {
            let mut sketch = Sketch::default();
            hashes.iter().for_each(|hash| sketch.add(*hash));
            *self = Distinct::Sketch(sketch);
        }
    }

    pub(super) fn count(&self) -> i64 {
        match self {
            Distinct::Exact(hashes) => hashes.len() as i64,
            Distinct::Sketch(sketch) => sketch.0.composite_estimate().round() as i64,
        }
    }

    pub(super) fn merge(&mut self, other: &Distinct) {
        match (&mut *self, other) {
            (_, Distinct::Exact(others)) => {
                others.iter().for_each(|hash| match self {
                    Distinct::Exact(hashes) => {
                        if let Err(place) = hashes.binary_search(hash) {
                            hashes.insert(place, *hash);
                        }
                    }
                    Distinct::Sketch(sketch) => sketch.add(*hash),
                });
                self.hold_bound();
            }
            (Distinct::Exact(hashes), Distinct::Sketch(other)) => {
                let mut sketch = other.clone();
                hashes.iter().for_each(|hash| sketch.add(*hash));
                *self = Distinct::Sketch(sketch);
            }
            (Distinct::Sketch(sketch), Distinct::Sketch(other)) => sketch.merge(other),
        }
    }
}

/// A HyperLogLog sketch of 256 registers, which is all that it is told by.
#[derive(Clone, PartialEq)]
pub struct Sketch(Box<HllSketch>);

impl std::fmt::Debug for Sketch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Sketch").field(&self.registers()).finish()
    }
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch::image(&[0; REGISTER_BYTES])
    }
}

/// The head of an image in the library's format ("HLL mode", 6-bit registers): preamble length in 4-byte words, serial
/// version, family, log2 of the registers, unused, flags, current minimum, mode.
/// <https://github.com/apache/datasketches-rust/blob/main/src/hll/serialization.rs>
const HEAD: [u8; 8] = [10, 1, 7, LOG2_REGISTERS, 0, OUT_OF_ORDER_FLAG, 0, 2 | (1 << 2)];
/// The flag by which the library keeps no estimate that goes by the order of coming.
const OUT_OF_ORDER_FLAG: u8 = 16;
/// Where the registers start in an image.
const REGISTERS_AT: usize = 40;
/// Register values up to here are summed apart from the larger ones.
const SMALL_REGISTERS: u32 = 32;

impl Sketch {
    /// The sketch of these registers, 6 bits each, from the lowest bit of the first byte on. Nothing where there are too
    /// few or too many.
    pub fn from_registers(registers: &[u8]) -> Option<Sketch> {
        Some(Sketch::image(registers.try_into().ok()?))
    }

    /// The registers.
    pub fn registers(&self) -> Vec<u8> {
        let image = self.0.serialize();
        image[REGISTERS_AT..][..REGISTER_BYTES].to_vec()
    }

    fn image(registers: &[u8; REGISTER_BYTES]) -> Sketch {
        let (mut small, mut large, mut zeros) = (0f64, 0f64, 0u32);
        for bytes in registers.chunks_exact(3) {
            let bits = u32::from(bytes[0]) | u32::from(bytes[1]) << 8 | u32::from(bytes[2]) << 16;
            for register in 0..4 {
                let value = bits >> (register * 6) & 63;
                let inverse = 1.0 / (1u64 << value) as f64;
                *(if value < SMALL_REGISTERS {
                    &mut small
                } else {
                    &mut large
                }) += inverse;
                zeros += u32::from(value == 0);
            }
        }
        let mut image = Vec::with_capacity(REGISTERS_AT + REGISTER_BYTES + 1);
        image.extend(HEAD);
        for number in [0.0, small, large] {
            image.extend(number.to_le_bytes());
        }
        image.extend(zeros.to_le_bytes());
        image.extend(0u32.to_le_bytes());
        image.extend(registers);
        // The library reads registers in pairs of bytes, so it wants one more.
        image.push(0);
        // An image of this head and length is one, whatever its registers; the tests read every value of them. Should a
        // later version of the library think otherwise, the count starts anew, and the same tests say so.
        let sketch = HllSketch::deserialize(&image).or_else(|_| HllSketch::new(LOG2_REGISTERS, HllType::Hll6));
        Sketch(Box::new(sketch.expect("8 is a size that the library has")))
    }

    fn add(&mut self, hash: u64) {
        self.0.update_with_coupon(Coupon::from_value(hash));
    }

    fn merge(&mut self, other: &Sketch) {
        // The size is one that the library has.
        if let Ok(mut union) = HllUnion::new(LOG2_REGISTERS) {
            union.update(&self.0);
            union.update(&other.0);
            *self.0 = union.to_sketch(HllType::Hll6);
        }
    }
}

/// A value that was seen within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The number of the tile in which it was seen last.
    pub tile: i64,
    /// The 40-bit hash of the value.
    pub hash: u64,
}

/// The distinct values within a sliding window, or a sample of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinctWithin {
    /// In the order of tiles, and of hashes within a tile.
    seen: Vec<Seen>,
}

impl DistinctWithin {
    /// From stored entries.
    pub fn from_entries(mut seen: Vec<Seen>) -> DistinctWithin {
        seen.sort_unstable();
        DistinctWithin { seen }
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[Seen] {
        &self.seen
    }

    pub(super) fn add(&mut self, length: WindowLength, hash: u64, at: Timestamp, now: Timestamp) {
        let tile = length.tile_of(at);
        if tile >= length.oldest_tile(now) {
            let hash = hash >> (u64::BITS - SAMPLE_HASH_BITS);
            self.insert(Seen { tile, hash });
        }
        self.prune(length, now);
        self.hold_bound();
    }

    fn insert(&mut self, new: Seen) {
        if let Some(known) = self.seen.iter().rposition(|seen| seen.hash == new.hash) {
            if self.seen[known].tile >= new.tile {
                return;
            }
            self.seen.remove(known);
        }
        let place = self.seen.partition_point(|seen| *seen < new);
        self.seen.insert(place, new);
    }

    fn prune(&mut self, length: WindowLength, now: Timestamp) {
        let oldest = length.oldest_tile(now);
        let gone = self.seen.iter().take_while(|seen| seen.tile < oldest).count();
        self.seen.drain(..gone);
    }

    /// Drops every hash that k others outdo, and the oldest beyond the bound.
    fn hold_bound(&mut self) {
        if self.seen.len() <= DISTINCT_SAMPLE {
            return;
        }
        // From the newest on, the k smallest hashes so far; within a tile, which is one moment, the smallest first.
        let mut smallest: Vec<u64> = Vec::with_capacity(DISTINCT_SAMPLE + 1);
        let mut kept = Vec::with_capacity(self.seen.len());
        for tile in self.seen.chunk_by(|one, other| one.tile == other.tile).rev() {
            for seen in tile {
                let place = smallest.partition_point(|hash| *hash <= seen.hash);
                if place < DISTINCT_SAMPLE {
                    smallest.insert(place, seen.hash);
                    smallest.truncate(DISTINCT_SAMPLE);
                    kept.push(*seen);
                }
            }
        }
        kept.truncate(DISTINCT_SAMPLE_ENTRIES_MAX);
        kept.sort_unstable();
        self.seen = kept;
    }

    pub(super) fn count(&self, length: WindowLength, now: Timestamp) -> i64 {
        let oldest = length.oldest_tile(now);
        let within = &self.seen[self.seen.partition_point(|seen| seen.tile < oldest)..];
        if within.len() < DISTINCT_SAMPLE {
            return within.len() as i64;
        }
        let mut hashes: Vec<u64> = within.iter().map(|seen| seen.hash).collect();
        let (_, largest, _) = hashes.select_nth_unstable(DISTINCT_SAMPLE - 1);
        let fraction = (*largest + 1) as f64 / (1u64 << SAMPLE_HASH_BITS) as f64;
        ((DISTINCT_SAMPLE - 1) as f64 / fraction).round() as i64
    }

    pub(super) fn merge(&mut self, other: &DistinctWithin, length: WindowLength, now: Timestamp) {
        other.seen.iter().for_each(|seen| self.insert(*seen));
        self.prune(length, now);
        self.hold_bound();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// P10: whatever registers are stored, they are read, counted, added to and written again.
        #[test]
        fn p10_any_registers_are_a_sketch(registers in prop::collection::vec(any::<u8>(), REGISTER_BYTES), hash in 0u64..1 << HASH_BITS) {
            let sketch = Sketch::from_registers(&registers).expect("as many as there must be");
            prop_assert_eq!(sketch.registers(), registers);
            let mut distinct = Distinct::Sketch(sketch);
            prop_assert!(distinct.count() >= 0);
            distinct.add(hash);
            distinct.merge(&Distinct::Exact(vec![hash]));
            let merged = distinct.clone();
            distinct.merge(&merged);
            prop_assert_eq!(distinct, merged);
        }
    }

    #[test]
    fn registers_of_another_number_are_none() {
        for length in [0, 1, REGISTER_BYTES - 1, REGISTER_BYTES + 1] {
            assert_eq!(Sketch::from_registers(&vec![0; length]), None);
        }
        assert_eq!(Sketch::default().registers(), [0; REGISTER_BYTES]);
    }

    #[test]
    fn what_is_equal_is_one_value_and_what_is_not_is_another() {
        let hash = |value: Value<'static>| hash_of(&value);
        assert_eq!(hash(Value::Int(1)), hash(Value::Float(1.0)));
        assert_eq!(hash(Value::Float(0.0)), hash(Value::Float(-0.0)));
        let others = [
            Value::Int(1),
            Value::Bool(true),
            Value::Text("1".into()),
            Value::Text("".into()),
            Value::Float(1.5),
            Value::Bool(false),
            Value::Int(0),
        ];
        let mut hashes: Vec<_> = others.into_iter().map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 7);
        assert_eq!(hash(Value::Null), None);
    }
}
