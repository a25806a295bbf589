//! A slot's model as it is stored: CBOR, the sums as numbers of 7 bits a byte.
//!
//! A model is one item, its *head*: what it was made for, the guard, the shared model's sums and those of every arm. One that
//! outgrows an item keeps its arms in *parts* beside the head, which then lists the version of each. Beside them, *ids* are
//! the outcomes that were learned, by the time at which each was noticed.
//!
//! Head and parts say their layout first, as profiles do (`crate::profile_state`): each one is read for ever, the next write
//! is in the present one, and a newer one is refused.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode};
use usher_domain::bandit::limits::{BANDIT_DIMENSION_MAX, LEARNED_ARMS_MAX};
use usher_domain::bandit::state::StoredSlot;
use usher_domain::bandit::statistics::Statistics;
use usher_domain::guard::{Guard, ShardKey};
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;

use crate::profile_state::{load_sequence_number, store_sequence_number};

/// The layout that is written.
pub const LAYOUT: u8 = 1;

/// Bits of a number that one byte holds.
const BITS_A_BYTE: u32 = 7;
/// The bit that says that another byte follows.
const MORE: u8 = 0x80;
/// Bytes of an id.
const ID_BYTES: usize = size_of::<u64>();

/// Why stored bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelStateError {
    /// They are not what this module writes.
    #[error("the stored model is damaged")]
    Damaged(#[source] DecodeError),
    /// They were written by a newer version.
    #[error("the stored model has layout {0}, but this version reads up to {LAYOUT}: deploy the newer version")]
    NewerLayout(u8),
    /// They have a layout that never was.
    #[error("the stored model has layout {0}, which no version of Usher writes: reset or import it")]
    UnknownLayout(u8),
}

impl From<DecodeError> for ModelStateError {
    fn from(error: DecodeError) -> ModelStateError {
        ModelStateError::Damaged(error)
    }
}

/// A model's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHead {
    /// How far each shard has been learned from (P2).
    pub guard: Guard,
    /// The sums; without the arms where they are in parts.
    pub slot: StoredSlot,
    /// The version of each part; none where the arms are in the head.
    pub part_versions: Vec<u64>,
    /// When it was put in place of another by a person: it knows nothing of offers that were decided before.
    pub replaced_at: Option<Timestamp>,
}

#[derive(Encode, Decode)]
struct HeadRecord {
    #[n(0)]
    layout: u8,
    #[n(1)]
    context_layout: u32,
    #[n(2)]
    dimension: u32,
    #[n(3)]
    half_life_ms: Option<i64>,
    /// None where nothing was learned that forgets.
    #[n(4)]
    tile: Option<i64>,
    #[n(5)]
    guard: Vec<GuardRecord>,
    #[n(6)]
    shared: Option<SharedRecord>,
    #[n(7)]
    part_versions: Vec<u64>,
    #[n(8)]
    arms: Vec<ArmRecord>,
    // What follows came later.
    #[n(9)]
    replaced_at_ms: Option<i64>,
}

#[derive(Encode, Decode)]
struct GuardRecord {
    #[n(0)]
    shard: u64,
    /// Big-endian, without leading zeros.
    #[cbor(n(1), with = "minicbor::bytes")]
    sequence_number: Vec<u8>,
    #[n(2)]
    sub_sequence_number: u64,
}

#[derive(Encode, Decode)]
struct SharedRecord {
    #[n(0)]
    dimension: u32,
    #[cbor(n(1), with = "minicbor::bytes")]
    sums: Vec<u8>,
}

#[derive(Encode, Decode)]
struct ArmRecord {
    #[n(0)]
    name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    sums: Vec<u8>,
}

#[derive(Encode, Decode)]
struct PartRecord {
    #[n(0)]
    layout: u8,
    #[n(1)]
    dimension: u32,
    #[n(2)]
    arms: Vec<ArmRecord>,
}

/// The bytes of a head. Where there are parts, the slot's arms are in those and left out here.
pub fn encode_head(head: &StoredHead) -> Vec<u8> {
    let slot = &head.slot;
    let is_whole = head.part_versions.is_empty();
    let guard = head.guard.entries().iter().map(|(shard, position)| GuardRecord {
        shard: shard.0,
        sequence_number: store_sequence_number(position.sequence_number),
        sub_sequence_number: position.sub_sequence_number,
    });
    let record = HeadRecord {
        layout: LAYOUT,
        context_layout: slot.layout,
        dimension: dimension_number(slot.dimension),
        half_life_ms: slot.half_life_ms,
        tile: (slot.tile != i64::MIN).then_some(slot.tile),
        guard: guard.collect(),
        shared: slot.shared.as_ref().map(|shared| SharedRecord {
            dimension: dimension_number(shared.dimension()),
            sums: sums_bytes(shared),
        }),
        part_versions: head.part_versions.clone(),
        arms: slot.arms.iter().filter(|_| is_whole).map(arm_record).collect(),
        replaced_at_ms: head.replaced_at.map(Timestamp::epoch_ms),
    };
    bytes_of(&record)
}

/// The head in stored bytes.
///
/// # Errors
/// They are no head that this version can read.
pub fn decode_head(bytes: &[u8]) -> Result<StoredHead, ModelStateError> {
    let record: HeadRecord = decode_layout(bytes)?;
    let dimension = dimension_of(record.dimension)?;
    let shared = match record.shared {
        None => None,
        Some(shared) => Some(statistics_of(dimension_of(shared.dimension)?, &shared.sums)?),
    };
    let guard = record.guard.into_iter().map(|entry| {
        let position = Position {
            sequence_number: load_sequence_number(&entry.sequence_number)
                .ok_or_else(|| damaged("a sequence number has too many bytes"))?,
            sub_sequence_number: entry.sub_sequence_number,
        };
        Ok((ShardKey(entry.shard), position))
    });
    Ok(StoredHead {
        guard: Guard::from_entries(guard.collect::<Result<_, DecodeError>>()?),
        slot: StoredSlot {
            layout: record.context_layout,
            dimension,
            half_life_ms: record.half_life_ms,
            tile: record.tile.unwrap_or(i64::MIN),
            arms: arms_of(record.arms, dimension)?,
            shared,
        },
        part_versions: record.part_versions,
        replaced_at: record.replaced_at_ms.map(Timestamp::from_epoch_ms),
    })
}

/// The bytes of a part that holds these arms.
pub fn encode_part<'a>(dimension: usize, arms: impl Iterator<Item = (&'a String, &'a Statistics)>) -> Vec<u8> {
    bytes_of(&PartRecord {
        layout: LAYOUT,
        dimension: dimension_number(dimension),
        arms: arms.map(arm_record).collect(),
    })
}

/// The arms of a part in stored bytes, for contexts of so many numbers.
///
/// # Errors
/// They are no part that this version can read, or one for other contexts.
pub fn decode_part(bytes: &[u8], dimension: usize) -> Result<BTreeMap<String, Statistics>, ModelStateError> {
    let record: PartRecord = decode_layout(bytes)?;
    if dimension_of(record.dimension)? != dimension {
        return Err(damaged("a part is for contexts of another length").into());
    }
    Ok(arms_of(record.arms, dimension)?)
}

/// The bytes of learned outcomes' ids.
pub fn encode_ids(ids: &BTreeSet<u64>) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// The ids in stored bytes.
///
/// # Errors
/// They are no ids.
pub fn decode_ids(bytes: &[u8]) -> Result<BTreeSet<u64>, ModelStateError> {
    let (ids, rest) = bytes.as_chunks::<ID_BYTES>();
    if !rest.is_empty() {
        return Err(damaged("the ids of learned outcomes have a broken end").into());
    }
    Ok(ids.iter().map(|id| u64::from_le_bytes(*id)).collect())
}

fn damaged(why: &'static str) -> DecodeError {
    DecodeError::message(why)
}

fn bytes_of<R: Encode<()>>(record: &R) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    // Writing to memory can't fail.
    if minicbor::encode(record, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

fn decode_layout<'b, R: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<R, ModelStateError> {
    let mut decoder = Decoder::new(bytes);
    decoder.array()?;
    match decoder.u8()? {
        1 => Ok(minicbor::decode(bytes)?),
        newer if newer > LAYOUT => Err(ModelStateError::NewerLayout(newer)),
        unknown => Err(ModelStateError::UnknownLayout(unknown)),
    }
}

fn arm_record((name, statistics): (&String, &Statistics)) -> ArmRecord {
    ArmRecord {
        name: name.clone(),
        sums: sums_bytes(statistics),
    }
}

fn arms_of(records: Vec<ArmRecord>, dimension: usize) -> Result<BTreeMap<String, Statistics>, DecodeError> {
    if records.len() > LEARNED_ARMS_MAX {
        return Err(damaged("it has more arms than any model"));
    }
    let arms = records.into_iter();
    arms.map(|arm| Ok((arm.name, statistics_of(dimension, &arm.sums)?)))
        .collect()
}

/// No layout has more than a few dozen.
fn dimension_number(dimension: usize) -> u32 {
    u32::try_from(dimension).unwrap_or(u32::MAX)
}

fn dimension_of(number: u32) -> Result<usize, DecodeError> {
    let dimension = usize::try_from(number).unwrap_or(usize::MAX);
    match dimension <= BANDIT_DIMENSION_MAX {
        true => Ok(dimension),
        false => Err(damaged("its contexts are longer than any")),
    }
}

fn sums_bytes(statistics: &Statistics) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(statistics.estimated_bytes());
    for sum in statistics.sums() {
        // Zigzag: the sign goes lowest, so that small numbers of either sign are short.
        let mut left = ((sum << 1) ^ (sum >> (i128::BITS - 1))) as u128;
        loop {
            let byte = (left as u8) & !MORE;
            left >>= BITS_A_BYTE;
            if left == 0 {
                bytes.push(byte);
                break;
            }
            bytes.push(byte | MORE);
        }
    }
    bytes
}

fn statistics_of(dimension: usize, bytes: &[u8]) -> Result<Statistics, DecodeError> {
    let mut sums = Vec::new();
    let (mut number, mut shift) = (0u128, 0);
    for byte in bytes {
        let bits = u128::from(byte & !MORE);
        if shift >= u128::BITS || (bits << shift) >> shift != bits {
            return Err(damaged("a sum has too many bytes"));
        }
        number |= bits << shift;
        shift += BITS_A_BYTE;
        if byte & MORE == 0 {
            sums.push((number >> 1) as i128 ^ -((number & 1) as i128));
            (number, shift) = (0, 0);
        }
    }
    if shift != 0 {
        return Err(damaged("a sum breaks off"));
    }
    Statistics::from_sums(dimension, sums).ok_or_else(|| damaged("an arm has too few sums, or too many"))
}

#[cfg(test)]
mod tests;
