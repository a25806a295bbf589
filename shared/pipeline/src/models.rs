//! A slot's model over the `models` table: reading it, and what to write for it.
//!
//! A model is made for one layout of the context, so its items are found by slot and layout: a journey with another layout
//! starts a model of its own beside it, two versions of a journey that run for a moment at once don't write over each other,
//! and one that is rolled back finds its model again.
//!
//! One item holds it, the *head*, as long as it is small. A larger one keeps its arms in *parts*, a hash of the arm's name
//! saying which; a write changes the head and the parts that differ, in one transaction, and the head lists their versions. So
//! what is read together belongs together when each part has the version that the head lists; else it is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use usher_domain::bandit::context::Layout;
use usher_domain::bandit::state::{SlotState, StoredSlot};
use usher_domain::guard::Guard;
use usher_domain::hash::hash_bytes;
use usher_domain::time::Timestamp;
use usher_wire::model_state::{
    ModelStateError, StoredHead, decode_head, decode_ids, decode_part, encode_head, encode_ids, encode_part,
};

use crate::ports::{MODEL_READ_ITEMS_MAX, MODEL_STATE_BYTES_MAX, ModelItem, ModelKey, ModelTable, ModelWrite, ReadOf};
use crate::retry::{Backoff, Failure, chain, until_answered};

/// The largest model that is one item, in bytes. An item may have 400 KB, but each write pays for all of it, and a partition
/// takes 1,000 KB of writes a second.
pub const WHOLE_BYTES_MAX: usize = 200 * 1024;
/// The largest model, in bytes. What one transaction may write is 4 MB, with the ids of what was learned.
pub const MODEL_BYTES_MAX: usize = 3_000_000;
/// The most parts that a model's arms are in. With the head and [`ID_TILES_A_WRITE_MAX`] there are fewer than the 100 items of a
/// transaction.
pub const PARTS_MAX: usize = 64;
/// The fewest.
const PARTS_MIN: usize = 8;
/// About how large parts are made, in bytes.
const PART_BYTES: usize = 32 * 1024;
/// How large they may become before there are more of them, in bytes.
const PART_BYTES_MAX: usize = 3 * PART_BYTES;
/// Tiles of ids that one write may change.
pub const ID_TILES_A_WRITE_MAX: usize = 32;
/// The most bytes of ids that one write may change.
pub const ID_BYTES_A_WRITE_MAX: usize = 700_000;
/// Milliseconds of a tile of ids.
const ID_TILE_MS: i64 = 1000;
/// How often the table is asked before it counts as failed.
const TABLE_ATTEMPTS_MAX: u32 = 6;
/// How often a model is read anew whose parts don't belong together, because it was written meanwhile.
const TORN_READS_MAX: u32 = 8;
/// The pause before that.
const TORN_READ_PAUSE: Duration = Duration::from_millis(20);

/// A slot's model as it is stored, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptModel {
    /// The slot.
    pub slot: String,
    /// Counts its writes; 0 where it is not stored yet.
    pub version: u64,
    /// How far each shard has been learned from (P2).
    pub guard: Guard,
    /// What was learned.
    pub state: SlotState,
    /// When it was written last.
    pub updated_at: Option<Timestamp>,
    /// When it was put in place of another by a person: it knows nothing of offers that were decided before.
    pub replaced_at: Option<Timestamp>,
    parts: Vec<KeptPart>,
    /// Whether it may be kept in fewer items than it is.
    may_shrink: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptPart {
    version: u64,
    state: Vec<u8>,
}

/// A model that was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundModel {
    /// There is none.
    Missing,
    /// It is this one.
    Ready(Box<KeptModel>),
    /// There is one, but it can't be read.
    Unreadable(String),
}

/// A model that is too large to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model would have {bytes} bytes, over the {MODEL_BYTES_MAX} that fit: drop contents or context values")]
pub struct ModelTooLarge {
    /// Its size.
    pub bytes: usize,
}

/// What to write for a model, and what is stored then.
#[derive(Debug)]
pub struct ModelWrites {
    /// The head and the parts that differ.
    pub writes: Vec<ModelWrite>,
    /// The model as it is then.
    pub stored: KeptModel,
}

/// Items that were read, by key.
#[derive(Debug, Default)]
pub struct ReadItems {
    /// Those that exist.
    pub items: BTreeMap<ModelKey, ModelItem>,
    /// Those that can't be read, with what is wrong.
    pub unreadable: BTreeMap<ModelKey, String>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// Where the head of a slot's model for a layout is.
pub fn head_key(slot: &str, layout: u32) -> ModelKey {
    key(slot, format!("{}head", model_prefix(layout)))
}

/// What the sort keys of all items of a model begin with.
pub fn model_prefix(layout: u32) -> String {
    format!("{MODELS_PREFIX}{layout:08x}#")
}

/// What the sort keys of all models begin with.
pub const MODELS_PREFIX: &str = "model#";

fn part_key(slot: &str, layout: u32, number: usize) -> ModelKey {
    key(slot, format!("{}arms-{number:02}", model_prefix(layout)))
}

/// Where the ids of outcomes are that were learned for a slot and noticed in the same second as this.
pub fn ids_key(slot: &str, noticed_at: Timestamp) -> ModelKey {
    let second = noticed_at.epoch_ms().div_euclid(ID_TILE_MS) * ID_TILE_MS;
    key(slot, format!("learned#{}", Timestamp::from_epoch_ms(second)))
}

fn key(slot: &str, part: String) -> ModelKey {
    ModelKey {
        slot: slot.to_owned(),
        part,
    }
}

/// Reads items, asking again for what the table left over.
///
/// # Errors
/// The table can't be read in time.
pub async fn read_items(
    table: &impl ModelTable,
    keys: Vec<ModelKey>,
    read: ReadOf,
    deadline: Instant,
) -> Result<ReadItems, Failure> {
    let mut found = ReadItems::default();
    let mut waiting = keys;
    let mut backoff = Backoff::default();
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(MODEL_READ_ITEMS_MAX));
        let asked = waiting;
        let answer = until_answered(deadline, TABLE_ATTEMPTS_MAX, || table.get(&asked, read)).await?;
        found.read_units += answer.read_units;
        let items = answer.items.into_iter();
        found.items.extend(items.map(|item| (item.key.clone(), item)));
        found.unreadable.extend(answer.unreadable);
        if !answer.unprocessed.is_empty() && !backoff.pause(deadline).await {
            return Err(Failure::OutOfTime(None));
        }
        waiting = answer.unprocessed;
        waiting.extend(rest);
    }
    Ok(found)
}

/// The model of a head that was read, with its parts. Units are added to `read_units`.
///
/// # Errors
/// The table can't be read in time, or is written all the time.
pub async fn whole_model(
    table: &impl ModelTable,
    head: Option<ModelItem>,
    read: ReadOf,
    deadline: Instant,
    read_units: &mut f64,
) -> Result<FoundModel, Failure> {
    let Some(mut item) = head else {
        return Ok(FoundModel::Missing);
    };
    let mut read = read;
    let first_version = item.version;
    for _ in 0..TORN_READS_MAX {
        let head = match decode_head(&item.state) {
            Ok(head) => head,
            Err(error) => return Ok(FoundModel::Unreadable(chain(&error))),
        };
        if head.part_versions.len() > PARTS_MAX {
            return Ok(FoundModel::Unreadable("it lists more parts than any model".to_owned()));
        }
        let (slot, layout) = (item.key.slot.clone(), head.slot.layout);
        let numbers = 0..head.part_versions.len();
        let keys = numbers.map(|number| part_key(&slot, layout, number)).collect();
        let mut found = read_items(table, keys, read, deadline).await?;
        *read_units += found.read_units;
        match joined(&item, head, &mut found) {
            Joined::Ready(model) => return Ok(FoundModel::Ready(model)),
            Joined::Unreadable(why) => return Ok(FoundModel::Unreadable(why)),
            Joined::Torn => {}
        }
        // It was written meanwhile, or a part was read from before: only what is latest tells.
        read = ReadOf::Latest;
        if Instant::now() + TORN_READ_PAUSE >= deadline {
            return Err(Failure::OutOfTime(None));
        }
        tokio::time::sleep(TORN_READ_PAUSE).await;
        let mut again = read_items(table, vec![item.key.clone()], read, deadline).await?;
        *read_units += again.read_units;
        if let Some(why) = again.unreadable.remove(&item.key) {
            return Ok(FoundModel::Unreadable(why));
        }
        item = match again.items.remove(&item.key) {
            Some(item) => item,
            None => return Ok(FoundModel::Missing),
        };
    }
    if item.version != first_version {
        // It is whole, and others write it all the time.
        return Err(Failure::OutOfTime(None));
    }
    let why = "its parts don't belong together: reset it, or import it from an export";
    Ok(FoundModel::Unreadable(why.to_owned()))
}

enum Joined {
    Ready(Box<KeptModel>),
    Torn,
    Unreadable(String),
}

fn joined(item: &ModelItem, head: StoredHead, found: &mut ReadItems) -> Joined {
    if let Some((key, why)) = found.unreadable.iter().next() {
        return Joined::Unreadable(format!("{}: {why}", key.part));
    }
    let mut slot = head.slot;
    let mut parts = Vec::with_capacity(head.part_versions.len());
    for (number, version) in head.part_versions.into_iter().enumerate() {
        let key = part_key(&item.key.slot, slot.layout, number);
        let part = match found.items.remove(&key) {
            Some(part) if part.version == version => part,
            _ => return Joined::Torn,
        };
        match decode_part(&part.state, slot.dimension) {
            Ok(arms) => slot.arms.extend(arms),
            Err(error) => return Joined::Unreadable(format!("{}: {}", key.part, chain(&error))),
        }
        parts.push(KeptPart {
            version,
            state: part.state,
        });
    }
    let Some(state) = SlotState::from_stored(slot) else {
        return Joined::Unreadable("what it holds doesn't fit together".to_owned());
    };
    Joined::Ready(Box::new(KeptModel {
        slot: item.key.slot.clone(),
        version: item.version,
        guard: head.guard,
        state,
        updated_at: Some(item.updated_at),
        replaced_at: head.replaced_at,
        parts,
        may_shrink: false,
    }))
}

impl KeptModel {
    /// One that has learned nothing.
    pub fn new(slot: &str, layout: &Layout, half_life_ms: Option<i64>) -> KeptModel {
        KeptModel {
            slot: slot.to_owned(),
            version: 0,
            guard: Guard::default(),
            state: SlotState::new(layout, half_life_ms),
            updated_at: None,
            replaced_at: None,
            parts: Vec::new(),
            may_shrink: false,
        }
    }

    /// A state to be written in place of whatever is stored of the slot's model for the same layout: these items, readable
    /// as a model or not. How far each shard was learned from stays, so that nothing counts again, unless it can't be read.
    pub fn in_place_of(slot: &str, state: SlotState, stored: &[ModelItem], now: Timestamp) -> KeptModel {
        let layout = state.layout();
        let of_key = |key: &ModelKey| stored.iter().find(|item| item.key == *key);
        let head = of_key(&head_key(slot, layout));
        let parts: Vec<Option<&ModelItem>> = (0..PARTS_MAX)
            .map(|number| of_key(&part_key(slot, layout, number)))
            .collect();
        let count = parts.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let part = |item: Option<&ModelItem>| KeptPart {
            version: item.map_or(0, |item| item.version),
            state: Vec::new(),
        };
        KeptModel {
            slot: slot.to_owned(),
            version: head.map_or(0, |item| item.version),
            guard: head
                .and_then(|item| decode_head(&item.state).ok())
                .map(|head| head.guard)
                .unwrap_or_default(),
            state,
            updated_at: None,
            replaced_at: Some(now),
            parts: parts.into_iter().take(count).map(part).collect(),
            may_shrink: true,
        }
    }

    /// How many items its arms are in beside the head; 0 where they are in it.
    pub fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// What to write so that it is stored, in place of the version that it was read as.
    ///
    /// # Errors
    /// It has become too large.
    pub fn writes(&self, now: Timestamp) -> Result<ModelWrites, ModelTooLarge> {
        let slot = self.state.to_stored();
        let whole = StoredHead {
            guard: self.guard.clone(),
            slot,
            part_versions: Vec::new(),
            replaced_at: self.replaced_at,
        };
        let whole_bytes = encode_head(&whole);
        if whole_bytes.len() > MODEL_BYTES_MAX {
            return Err(ModelTooLarge {
                bytes: whole_bytes.len(),
            });
        }
        let is_whole = (self.parts.is_empty() || self.may_shrink) && whole_bytes.len() <= WHOLE_BYTES_MAX;
        let parts = match is_whole {
            true => Vec::new(),
            false => self.parts_of(&whole.slot, whole_bytes.len()),
        };
        let mut writes = Vec::with_capacity(1 + parts.len());
        let mut stored = self.clone();
        stored.version += 1;
        stored.updated_at = Some(now);
        stored.parts.clear();
        stored.may_shrink = false;
        for (number, state) in parts.into_iter().enumerate() {
            let former = self.parts.get(number);
            let same = former.filter(|former| former.state == state).cloned();
            let part = same.unwrap_or_else(|| {
                let expected_version = former.map_or(0, |former| former.version);
                let part = KeptPart {
                    version: expected_version + 1,
                    state,
                };
                writes.push(self.put(
                    part_key(&self.slot, self.state.layout(), number),
                    &part,
                    expected_version,
                    now,
                ));
                part
            });
            stored.parts.push(part);
        }
        let superfluous = self.parts.iter().enumerate().skip(stored.parts.len());
        for (number, former) in superfluous.filter(|(_, former)| former.version > 0) {
            writes.push(ModelWrite::Delete {
                key: part_key(&self.slot, self.state.layout(), number),
                expected_version: former.version,
            });
        }
        let head_state = match is_whole {
            true => whole_bytes,
            false => encode_head(&StoredHead {
                part_versions: stored.parts.iter().map(|part| part.version).collect(),
                ..whole
            }),
        };
        let head = KeptPart {
            version: stored.version,
            state: head_state,
        };
        writes.push(self.put(head_key(&self.slot, self.state.layout()), &head, self.version, now));
        Ok(ModelWrites { writes, stored })
    }

    fn put(&self, key: ModelKey, part: &KeptPart, expected_version: u64, now: Timestamp) -> ModelWrite {
        ModelWrite::Put {
            item: ModelItem {
                key,
                version: part.version,
                state: part.state.clone(),
                updated_at: now,
                expires_at_epoch_s: None,
            },
            expected_version,
        }
    }

    /// The bytes of the parts, as many as it has, or more where those would be too large.
    fn parts_of(&self, slot: &StoredSlot, whole_bytes: usize) -> Vec<Vec<u8>> {
        let wanted = whole_bytes.div_ceil(PART_BYTES).next_power_of_two();
        let mut count = match self.parts.len() {
            count if count > 0 && !self.may_shrink => count,
            _ => wanted.clamp(PARTS_MIN, PARTS_MAX),
        };
        loop {
            let parts: Vec<Vec<u8>> = (0..count)
                .map(|number| {
                    let is_of_part = |arm: &str| hash_bytes(arm.as_bytes()) as usize % count == number;
                    let arms = slot.arms.iter().filter(|(arm, _)| is_of_part(arm));
                    encode_part(slot.dimension, arms)
                })
                .collect();
            if count >= PARTS_MAX || parts.iter().all(|part| part.len() <= PART_BYTES_MAX) {
                return parts;
            }
            count = (count * 2).min(PARTS_MAX);
        }
    }
}

/// Whether an item can hold a state of so many bytes.
pub(crate) fn fits_an_item(state_bytes: usize) -> bool {
    state_bytes <= MODEL_STATE_BYTES_MAX
}

/// The ids of learned outcomes of one second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdTile {
    version: u64,
    pub ids: BTreeSet<u64>,
}

impl IdTile {
    /// What an item holds.
    pub fn of(item: Option<&ModelItem>) -> Result<IdTile, ModelStateError> {
        match item {
            None => Ok(IdTile::default()),
            Some(item) => Ok(IdTile {
                version: item.version,
                ids: decode_ids(&item.state)?,
            }),
        }
    }

    /// Bytes that it takes when stored with one id more.
    pub fn bytes(&self) -> usize {
        (self.ids.len() + 1) * size_of::<u64>()
    }

    /// What to write for it.
    pub fn write(&self, key: &ModelKey, now: Timestamp, expires_at_epoch_s: i64) -> ModelWrite {
        ModelWrite::Put {
            item: ModelItem {
                key: key.clone(),
                version: self.version + 1,
                state: encode_ids(&self.ids),
                updated_at: now,
                expires_at_epoch_s: Some(expires_at_epoch_s),
            },
            expected_version: self.version,
        }
    }
}

#[cfg(test)]
mod tests;
