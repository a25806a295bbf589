//! The `models` table in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::faults::refused;
use super::{Faults, ITEM_BYTES_MAX, Operation, READ_UNIT_BYTES, TRANSACTION_UNITS, WRITE_UNIT_BYTES, locked, units};
use crate::ports::{
    CallError, MODEL_READ_ITEMS_MAX, MODEL_WRITE_BYTES_MAX, MODEL_WRITE_ITEMS_MAX, ModelGetAnswer, ModelItem, ModelKey,
    ModelTable, ModelWrite, ModelWriteAnswer, ReadOf,
};

/// About what an item takes besides its texts and bytes: attribute names, times and numbers.
const OVERHEAD_BYTES: usize = 90;

/// The `models` table.
#[derive(Clone, Debug, Default)]
pub struct MemoryModelTable {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Faults,
    /// An item, or what is wrong with it.
    items: Mutex<BTreeMap<ModelKey, Result<ModelItem, String>>>,
}

impl MemoryModelTable {
    /// Its failures and calls.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The items, by key.
    pub fn items(&self) -> Vec<ModelItem> {
        locked(&self.inner.items)
            .values()
            .filter_map(|item| item.clone().ok())
            .collect()
    }

    /// Stores an item without any condition, as another writer.
    pub fn insert(&self, item: ModelItem) {
        locked(&self.inner.items).insert(item.key.clone(), Ok(item));
    }

    /// Stores something that is no item of a model.
    pub fn insert_unreadable(&self, key: ModelKey, why: &str) {
        locked(&self.inner.items).insert(key, Err(why.to_owned()));
    }

    /// Takes an item away.
    pub fn remove(&self, key: &ModelKey) {
        locked(&self.inner.items).remove(key);
    }
}

fn item_bytes(item: &ModelItem) -> usize {
    OVERHEAD_BYTES + item.key.slot.len() + item.key.part.len() + item.state.len()
}

fn names(keys: impl Iterator<Item = ModelKey>) -> Vec<String> {
    keys.map(|key| format!("{}/{}", key.slot, key.part)).collect()
}

impl ModelTable for MemoryModelTable {
    async fn get(&self, keys: &[ModelKey], read: ReadOf) -> Result<ModelGetAnswer, CallError> {
        let operation = Operation::GetModels;
        let effect = self.inner.faults.meet(operation, names(keys.iter().cloned())).await?;
        let different: BTreeSet<&ModelKey> = keys.iter().collect();
        let is_empty = |key: &ModelKey| key.slot.is_empty() || key.part.is_empty();
        if keys.len() > MODEL_READ_ITEMS_MAX || different.len() < keys.len() || keys.iter().any(is_empty) {
            return Err(refused(operation, "a read names up to 100 different items"));
        }
        let share = match read {
            ReadOf::Latest => 1.0,
            ReadOf::Recent => 0.5,
        };
        let answer = {
            let items = locked(&self.inner.items);
            let mut answer = ModelGetAnswer::default();
            for (index, key) in keys.iter().enumerate() {
                if effect.leaves_out(index) {
                    answer.unprocessed.push(key.clone());
                    continue;
                }
                let bytes = match items.get(key) {
                    Some(Ok(item)) => {
                        answer.items.push(item.clone());
                        item_bytes(item)
                    }
                    Some(Err(why)) => {
                        answer.unreadable.push((key.clone(), why.clone()));
                        OVERHEAD_BYTES
                    }
                    None => 0,
                };
                answer.read_units += share * units(bytes, READ_UNIT_BYTES);
            }
            answer
        };
        effect.answer(operation, answer).await
    }

    async fn write(&self, writes: &[ModelWrite]) -> Result<ModelWriteAnswer, CallError> {
        let operation = Operation::WriteModels;
        let keys = names(writes.iter().map(|write| write.key().clone()));
        let effect = self.inner.faults.meet(operation, keys).await?;
        let different: BTreeSet<&ModelKey> = writes.iter().map(ModelWrite::key).collect();
        let size = |write: &ModelWrite| match write {
            ModelWrite::Put { item, .. } => item_bytes(item),
            ModelWrite::Delete { .. } => 0,
        };
        let is_wrong = |write: &ModelWrite| {
            let key = write.key();
            size(write) > ITEM_BYTES_MAX || key.slot.is_empty() || key.part.is_empty()
        };
        let count_is_right = (1..=MODEL_WRITE_ITEMS_MAX).contains(&writes.len()) && different.len() == writes.len();
        let bytes: usize = writes.iter().map(size).sum();
        if !count_is_right || bytes > MODEL_WRITE_BYTES_MAX || writes.iter().any(is_wrong) {
            return Err(refused(
                operation,
                "a write changes 1 to 100 different items of at most 400 KB each, and 4 MB in all",
            ));
        }
        let answer = {
            let mut items = locked(&self.inner.items);
            let holds = |write: &ModelWrite| match items.get(write.key()) {
                None => matches!(
                    write,
                    ModelWrite::Put {
                        expected_version: 0,
                        ..
                    }
                ),
                Some(Ok(stored)) => stored.version == write.expected_version() && stored.version > 0,
                Some(Err(_)) => false,
            };
            if writes.iter().all(holds) {
                let mut write_units = 0.0;
                for write in writes {
                    let former = items.get(write.key()).and_then(|item| item.as_ref().ok());
                    let larger = size(write).max(former.map_or(0, item_bytes));
                    write_units += TRANSACTION_UNITS * units(larger, WRITE_UNIT_BYTES);
                    match write {
                        ModelWrite::Put { item, .. } => items.insert(item.key.clone(), Ok(item.clone())),
                        ModelWrite::Delete { key, .. } => items.remove(key),
                    };
                }
                ModelWriteAnswer::Written { write_units }
            } else {
                ModelWriteAnswer::Conflict
            }
        };
        effect.answer(operation, answer).await
    }
}
