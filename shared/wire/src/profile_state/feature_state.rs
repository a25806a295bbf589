//! How the state of a feature is stored. Kinds and their fields are numbered; a later version adds numbers and never
//! changes one.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use usher_domain::feature::distinct::{Distinct, DistinctWithin, SAMPLE_HASH_BITS, Seen, Sketch};
use usher_domain::feature::top::Counted;
use usher_domain::feature::{FeatureState, SessionPart};
use usher_domain::window::{Tile, Window};

use super::{StoredDated, StoredScalar, Times, Whole};

/// Bytes of a hash of 48 bits, as `Distinct` keeps them.
const EXACT_HASH_BYTES: usize = 6;
/// Bytes of a hash of 40 bits, as `DistinctWithin` keeps them.
const SAMPLE_HASH_BYTES: usize = SAMPLE_HASH_BITS as usize / 8;

/// The highest number of a kind below. A newer version may have written a higher one.
const KIND_MAX: u32 = 13;

#[derive(Encode, Decode)]
pub(super) enum StoredState {
    #[n(0)]
    Total(#[n(0)] Whole),
    /// The first tile's index and amount, then for each further tile how far it is from the one before, and its amount.
    #[n(1)]
    Window(#[n(0)] Vec<Whole>),
    #[n(2)]
    Last(#[n(0)] StoredDated),
    #[n(3)]
    Recent(#[n(0)] Vec<StoredDated>),
    #[n(4)]
    Seen(#[n(0)] i64),
    /// Hashes of 48 bits, in rising order.
    #[n(5)]
    DistinctExact(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Registers of 6 bits.
    #[n(6)]
    DistinctSketch(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The number of the oldest tile, and for each value how many tiles it is from the one before, in groups of 7 bits, the
    /// lowest first and all but the last with the eighth bit set; then its 40-bit hash.
    #[n(7)]
    DistinctWithin(#[n(0)] i64, #[cbor(n(1), with = "minicbor::bytes")] Vec<u8>),
    #[n(8)]
    Extreme(#[n(0)] Whole),
    #[n(9)]
    Pair(#[n(0)] Whole, #[n(1)] Whole),
    #[n(10)]
    WindowPair(#[n(0)] Vec<Whole>, #[n(1)] Vec<Whole>),
    /// Each value with its tiles. Over all time there is one tile with the number 0.
    #[n(11)]
    Top(#[n(0)] Vec<(StoredScalar, Vec<Whole>)>),
    #[n(12)]
    CountSince(#[n(0)] Whole, #[n(1)] Option<i64>),
    /// What has counts: for the hours or weekdays. What has a state for each session: when each part's earliest event was,
    /// and the part as bytes, so that damaged ones can't nest without end.
    #[n(13)]
    Parts(#[n(0)] Vec<u64>, #[n(1)] Vec<(i64, PartBytes)>),
}

/// The bytes of a [`StoredState`].
pub(super) struct PartBytes(Vec<u8>);

impl<C> Encode<C> for PartBytes {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for PartBytes {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        Ok(PartBytes(decoder.bytes()?.to_vec()))
    }
}

/// A state whose kind this version knows. Any other is read over: its feature starts anew, the rest of the profile stays.
pub(super) mod known {
    use super::*;

    pub(in super::super) fn encode<C, W: Write>(
        state: &Option<StoredState>,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        state.encode(encoder, context)
    }

    pub(in super::super) fn decode<'b, C>(
        decoder: &mut Decoder<'b>,
        context: &mut C,
    ) -> Result<Option<StoredState>, DecodeError> {
        let start = decoder.position();
        decoder.array()?;
        let kind = decoder.u32()?;
        decoder.set_position(start);
        if kind > KIND_MAX {
            decoder.skip()?;
            return Ok(None);
        }
        StoredState::decode(decoder, context).map(Some)
    }
}

/// The state to store; nothing for one that is as it was at the start.
pub(super) fn store_state(state: &FeatureState, times: Times) -> Option<StoredState> {
    Some(match state {
        FeatureState::Total(0)
        | FeatureState::Last(None)
        | FeatureState::Seen(None)
        | FeatureState::Extreme(None)
        | FeatureState::Pair(0, 0)
        | FeatureState::CountSince(0, None)
        | FeatureState::Derived => return None,
        FeatureState::Total(total) => StoredState::Total(Whole(*total)),
        FeatureState::Window(window) if window.is_empty() => return None,
        FeatureState::Window(window) => StoredState::Window(store_window(window)),
        FeatureState::Last(Some(last)) => StoredState::Last(times.store_dated(last)),
        FeatureState::Recent(entries) if entries.is_empty() => return None,
        FeatureState::Recent(entries) => {
            StoredState::Recent(entries.iter().map(|entry| times.store_dated(entry)).collect())
        }
        FeatureState::Seen(Some(at)) => StoredState::Seen(times.before_now_ms(*at)),
        FeatureState::Distinct(Distinct::Exact(hashes)) if hashes.is_empty() => return None,
        FeatureState::Distinct(Distinct::Exact(hashes)) => {
            let bytes = hashes.iter().flat_map(|hash| low_bytes::<EXACT_HASH_BYTES>(*hash));
            StoredState::DistinctExact(bytes.collect())
        }
        FeatureState::Distinct(Distinct::Sketch(sketch)) => StoredState::DistinctSketch(sketch.registers()),
        FeatureState::DistinctWithin(distinct) => store_distinct_within(distinct)?,
        FeatureState::Extreme(Some(amount)) => StoredState::Extreme(Whole(*amount)),
        FeatureState::Pair(one, two) => StoredState::Pair(Whole(*one), Whole(*two)),
        FeatureState::WindowPair(one, two) if one.is_empty() && two.is_empty() => return None,
        FeatureState::WindowPair(one, two) => StoredState::WindowPair(store_window(one), store_window(two)),
        FeatureState::Top(entries) if entries.is_empty() => return None,
        FeatureState::Top(entries) => {
            let entries = entries.iter();
            StoredState::Top(
                entries
                    .map(|entry| (StoredScalar::of(&entry.value), store_window(&entry.counts)))
                    .collect(),
            )
        }
        FeatureState::CountSince(count, first) => {
            StoredState::CountSince(Whole(*count), first.map(|first| times.before_now_ms(first)))
        }
        FeatureState::Histogram(counts) if counts.iter().all(|count| *count == 0) => return None,
        FeatureState::Histogram(counts) => StoredState::Parts(counts.clone(), Vec::new()),
        FeatureState::PerSession(parts) => {
            let stored: Vec<(i64, PartBytes)> = parts
                .iter()
                .filter_map(|part| {
                    // A part is there because an event was, even when all that it adds up to is zero.
                    let state = match &part.state {
                        FeatureState::Total(total) => StoredState::Total(Whole(*total)),
                        state => store_state(state, times)?,
                    };
                    // Writing to memory can't fail.
                    let bytes = minicbor::to_vec(&state).ok()?;
                    Some((times.before_now_ms(part.at), PartBytes(bytes)))
                })
                .collect();
            if stored.is_empty() {
                return None;
            }
            StoredState::Parts(Vec::new(), stored)
        }
    })
}

/// The state that was stored; nothing where it can't be one.
pub(super) fn load_state(stored: StoredState, times: Times) -> Option<FeatureState> {
    Some(match stored {
        StoredState::Total(total) => FeatureState::Total(total.0),
        StoredState::Window(numbers) => FeatureState::Window(load_window(&numbers)?),
        StoredState::Last(last) => FeatureState::Last(Some(times.load_dated(last))),
        StoredState::Recent(entries) => {
            FeatureState::Recent(entries.into_iter().map(|entry| times.load_dated(entry)).collect())
        }
        StoredState::Seen(before_now_ms) => FeatureState::Seen(Some(times.at(before_now_ms))),
        StoredState::DistinctExact(bytes) => {
            let hashes = bytes.chunks_exact(EXACT_HASH_BYTES);
            if !hashes.remainder().is_empty() {
                return None;
            }
            FeatureState::Distinct(Distinct::from_hashes(hashes.map(number_of).collect()))
        }
        StoredState::DistinctSketch(registers) => {
            FeatureState::Distinct(Distinct::Sketch(Sketch::from_registers(&registers)?))
        }
        StoredState::DistinctWithin(oldest, bytes) => load_distinct_within(oldest, &bytes)?,
        StoredState::Extreme(amount) => FeatureState::Extreme(Some(amount.0)),
        StoredState::Pair(one, two) => FeatureState::Pair(one.0, two.0),
        StoredState::WindowPair(one, two) => FeatureState::WindowPair(load_window(&one)?, load_window(&two)?),
        StoredState::Top(entries) => {
            let entries = entries.into_iter().map(|(value, counts)| {
                Some(Counted {
                    value: value.into_scalar(),
                    counts: load_window(&counts)?,
                })
            });
            let mut entries = entries.collect::<Option<Vec<_>>>()?;
            entries.sort_by(|one, other| one.value.order(&other.value));
            FeatureState::Top(entries)
        }
        StoredState::CountSince(count, first) => FeatureState::CountSince(count.0, first.map(|first| times.at(first))),
        StoredState::Parts(counts, parts) if parts.is_empty() => FeatureState::Histogram(counts),
        StoredState::Parts(_, parts) => {
            let parts = parts.into_iter().map(|(before_now_ms, bytes)| {
                let state = minicbor::decode::<StoredState>(&bytes.0).ok()?;
                // Sessions don't nest.
                let state = match state {
                    StoredState::Parts(..) => None,
                    state => load_state(state, times),
                };
                Some(SessionPart {
                    at: times.at(before_now_ms),
                    state: state?,
                })
            });
            let mut parts = parts.collect::<Option<Vec<_>>>()?;
            parts.sort_by_key(|part| part.at);
            FeatureState::PerSession(parts)
        }
    })
}

fn store_window(window: &Window) -> Vec<Whole> {
    let mut numbers = Vec::with_capacity(window.tiles().len() * 2);
    let mut before = 0;
    for tile in window.tiles() {
        numbers.push(Whole(i128::from(tile.index) - before));
        numbers.push(Whole(tile.amount));
        before = i128::from(tile.index);
    }
    numbers
}

fn load_window(numbers: &[Whole]) -> Option<Window> {
    let mut tiles = Vec::with_capacity(numbers.len() / 2);
    let mut index = 0i128;
    for pair in numbers.chunks(2) {
        let [delta, amount] = pair else { return None };
        index = index.checked_add(delta.0)?;
        tiles.push(Tile {
            index: i64::try_from(index).ok()?,
            amount: amount.0,
        });
    }
    Some(Window::from_tiles(tiles))
}

fn store_distinct_within(distinct: &DistinctWithin) -> Option<StoredState> {
    let oldest = distinct.entries().first()?.tile;
    let mut bytes = Vec::with_capacity(distinct.entries().len() * (SAMPLE_HASH_BYTES + 1));
    let mut before = oldest;
    for seen in distinct.entries() {
        let mut tiles = seen.tile.abs_diff(before);
        while tiles > 0x7F {
            bytes.push(tiles as u8 | 0x80);
            tiles >>= 7;
        }
        bytes.push(tiles as u8);
        bytes.extend(low_bytes::<SAMPLE_HASH_BYTES>(seen.hash));
        before = seen.tile;
    }
    Some(StoredState::DistinctWithin(oldest, bytes))
}

fn load_distinct_within(oldest: i64, mut bytes: &[u8]) -> Option<FeatureState> {
    let mut seen = Vec::with_capacity(bytes.len() / (SAMPLE_HASH_BYTES + 1));
    let mut tile = oldest;
    while !bytes.is_empty() {
        let mut tiles = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            bytes = rest;
            tiles |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if *byte < 0x80 {
                break;
            }
        }
        let (hash, rest) = bytes.split_at_checked(SAMPLE_HASH_BYTES)?;
        bytes = rest;
        tile = tile.checked_add_unsigned(tiles)?;
        seen.push(Seen {
            tile,
            hash: number_of(hash),
        });
    }
    Some(FeatureState::DistinctWithin(DistinctWithin::from_entries(seen)))
}

/// The lowest `N` bytes of a number, the lowest last.
fn low_bytes<const N: usize>(number: u64) -> [u8; N] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|index| bytes[bytes.len() - N + index])
}

fn number_of(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number.wrapping_shl(8) | u64::from(*byte))
}
