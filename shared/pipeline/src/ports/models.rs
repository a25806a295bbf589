//! The `models` table.

use std::future::Future;

use usher_domain::time::Timestamp;

use super::CallError;

/// Where an item of the table is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey {
    /// The table's partition key.
    pub slot: String,
    /// The table's sort key: what the item holds of the slot.
    pub part: String,
}

/// An item of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelItem {
    /// Where it is.
    pub key: ModelKey,
    /// Counts the writes, from 1. A write is conditional on the version that was read (P4).
    pub version: u64,
    /// What it holds, as `usher_wire::model_state` writes it.
    pub state: Vec<u8>,
    /// When it was written, for people who look.
    pub updated_at: Timestamp,
    /// When the table may forget it, in seconds since 1970 (TTL).
    pub expires_at_epoch_s: Option<i64>,
}

/// A change of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelWrite {
    /// It is replaced.
    Put {
        /// By this.
        item: ModelItem,
        /// If its version is this; 0 means that none may be stored.
        expected_version: u64,
    },
    /// It goes.
    Delete {
        /// Where it is.
        key: ModelKey,
        /// If its version is this.
        expected_version: u64,
    },
}

impl ModelWrite {
    /// The item that it changes.
    pub fn key(&self) -> &ModelKey {
        match self {
            ModelWrite::Put { item, .. } => &item.key,
            ModelWrite::Delete { key, .. } => key,
        }
    }

    /// The version that must be stored; 0 for none.
    pub fn expected_version(&self) -> u64 {
        match self {
            ModelWrite::Put { expected_version, .. } | ModelWrite::Delete { expected_version, .. } => *expected_version,
        }
    }
}

/// What a read gives: some of the keys may be left over.
#[derive(Debug, Default)]
pub struct ModelGetAnswer {
    /// The items that exist.
    pub items: Vec<ModelItem>,
    /// Stored items that are not what [`ModelItem`] can hold, with what is wrong.
    pub unreadable: Vec<(ModelKey, String)>,
    /// Keys that the table did not get to; ask again for these (`UnprocessedKeys`).
    pub unprocessed: Vec<ModelKey>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// What a write gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ModelWriteAnswer {
    /// All of it was written.
    Written {
        /// Write capacity units that it took: a transaction takes twice those of its writes.
        write_units: f64,
    },
    /// At least one stored version is another. Nothing was written. What is stored is not told: whoever goes on after a
    /// pause reads what is stored then.
    Conflict,
}

/// How recent a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOf {
    /// What was written last (strongly consistent).
    Latest,
    /// What was written last or a moment before, at half the price (eventually consistent).
    Recent,
}

/// Items that one [`ModelTable::get`] may name: the limit of `BatchGetItem`.
pub const MODEL_READ_ITEMS_MAX: usize = 100;
/// Items that one [`ModelTable::write`] may change: the limit of `TransactWriteItems`.
pub const MODEL_WRITE_ITEMS_MAX: usize = 100;
/// Bytes that one [`ModelTable::write`] may write: 4 MB, the limit of `TransactWriteItems`.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
pub const MODEL_WRITE_BYTES_MAX: usize = 4_000_000;
/// The largest [`ModelItem::state`] that is written, in bytes: an item holds 400 KB, its other attributes and names included.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
pub const MODEL_STATE_BYTES_MAX: usize = 390 * 1024;

/// The `models` table: what the slots' learners know.
pub trait ModelTable: Send + Sync {
    /// Reads up to [`MODEL_READ_ITEMS_MAX`] items, none of them named twice.
    fn get(&self, keys: &[ModelKey], read: ReadOf) -> impl Future<Output = Result<ModelGetAnswer, CallError>> + Send;

    /// Changes up to [`MODEL_WRITE_ITEMS_MAX`] items, all of them or none, each under the condition of its version. No item
    /// may be named twice.
    fn write(&self, writes: &[ModelWrite]) -> impl Future<Output = Result<ModelWriteAnswer, CallError>> + Send;
}
