//! The `trends` table in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::faults::{Faults, Operation, refused};
use super::{ITEM_BYTES_MAX, READ_UNIT_BYTES, WRITE_UNIT_BYTES, locked, units};
use crate::ports::{CallError, TrendItem, TrendPage, TrendPutAnswer, TrendTable, trend_bucket, trend_partition};

/// About what a tile takes besides its shard's name and its bytes: attribute names, key, version and time.
const TILE_OVERHEAD_BYTES: usize = 75;
/// What one page holds at most, as of DynamoDB.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// An eventually consistent read costs half.
const EVENTUAL: f64 = 0.5;

/// Where a tile is: its partition key and its shard.
type Key = (String, String);

/// The `trends` table.
#[derive(Clone, Debug, Default)]
pub struct MemoryTrendTable {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: Faults,
    /// A tile, or what is wrong with the item.
    items: Mutex<BTreeMap<Key, Result<TrendItem, String>>>,
}

impl MemoryTrendTable {
    /// Its failures and calls. A call's key is the partition that it is about, and of a write the shard behind it.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The tiles, by minute.
    pub fn items(&self) -> Vec<TrendItem> {
        let mut items: Vec<TrendItem> = locked(&self.inner.items)
            .values()
            .filter_map(|item| item.clone().ok())
            .collect();
        items.sort_by(|left, right| (left.minute, &left.shard).cmp(&(right.minute, &right.shard)));
        items
    }

    /// Stores a tile without any condition, as another writer.
    pub fn insert(&self, item: TrendItem) {
        locked(&self.inner.items).insert(key_of(&item), Ok(item));
    }

    /// Stores something that is no tile.
    pub fn insert_unreadable(&self, minute: i64, shard: &str, why: &str) {
        let key = (trend_partition(minute, trend_bucket(shard)), shard.to_owned());
        locked(&self.inner.items).insert(key, Err(why.to_owned()));
    }
}

fn key_of(item: &TrendItem) -> Key {
    let partition = trend_partition(item.minute, trend_bucket(&item.shard));
    (partition, item.shard.clone())
}

fn item_bytes(item: &TrendItem) -> usize {
    TILE_OVERHEAD_BYTES + item.shard.len() + item.state.len()
}

impl TrendTable for MemoryTrendTable {
    async fn put(&self, item: &TrendItem, expected_version: u64) -> Result<TrendPutAnswer, CallError> {
        let operation = Operation::PutTrendTile;
        let key = key_of(item);
        let effect = self
            .inner
            .faults
            .meet(operation, vec![key.0.clone(), key.1.clone()])
            .await?;
        let bytes = item_bytes(item);
        if bytes > ITEM_BYTES_MAX || item.shard.is_empty() {
            return Err(refused(operation, "an item has a key, and at most 400 KB"));
        }
        let answer = {
            let mut items = locked(&self.inner.items);
            match items.get(&key) {
                None if expected_version == 0 => {
                    items.insert(key, Ok(item.clone()));
                    TrendPutAnswer::Written {
                        write_units: units(bytes, WRITE_UNIT_BYTES),
                    }
                }
                Some(Ok(current)) if current.version == expected_version && expected_version > 0 => {
                    let larger = bytes.max(item_bytes(current));
                    items.insert(key, Ok(item.clone()));
                    TrendPutAnswer::Written {
                        write_units: units(larger, WRITE_UNIT_BYTES),
                    }
                }
                None => TrendPutAnswer::Conflict {
                    current: None,
                    write_units: units(0, WRITE_UNIT_BYTES),
                },
                Some(Ok(current)) => TrendPutAnswer::Conflict {
                    current: Some(current.clone()),
                    write_units: units(item_bytes(current), WRITE_UNIT_BYTES),
                },
                Some(Err(why)) => TrendPutAnswer::Unreadable { why: why.clone() },
            }
        };
        effect.answer(operation, answer).await
    }

    async fn page(&self, minute: i64, bucket: u32, after: Option<&str>) -> Result<TrendPage, CallError> {
        let operation = Operation::QueryTrends;
        let partition = trend_partition(minute, bucket);
        let effect = self.inner.faults.meet(operation, vec![partition.clone()]).await?;
        let page = {
            let items = locked(&self.inner.items);
            let mut page = TrendPage::default();
            let mut bytes = 0;
            let of_bucket = items.range((partition.clone(), String::new())..);
            let of_bucket = of_bucket.take_while(|((of, _), _)| *of == partition);
            for ((_, shard), item) in
                of_bucket.filter(|((_, shard), _)| after.is_none_or(|after| shard.as_str() > after))
            {
                if bytes >= PAGE_BYTES_MAX {
                    page.next_after = page.items.last().map(|last| last.shard.clone());
                    break;
                }
                match item {
                    Ok(item) => {
                        bytes += item_bytes(item);
                        page.items.push(item.clone());
                    }
                    Err(why) => page.unreadable.push((shard.clone(), why.clone())),
                }
            }
            page.read_units = units(bytes, READ_UNIT_BYTES) * EVENTUAL;
            page
        };
        effect.answer(operation, page).await
    }
}
