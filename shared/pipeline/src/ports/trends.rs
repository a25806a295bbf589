//! The `trends` table.

use std::future::Future;

use usher_domain::hash::hash_bytes;
use usher_domain::time::Timestamp;
use usher_domain::trends::TILE_MS;

use super::CallError;

/// Partitions that the shards of a minute are spread over. A partition takes 1,000 write units a second; of a thousand shards
/// each has some 62, which write their tile about once a second, and a tile is 10 units at most with ids of 20 bytes. Fewer
/// would throttle them, and more would make every look at a small stream's trends dearer: it asks each of them.
pub const TREND_BUCKETS: u32 = 16;

/// The partition of a minute that a shard's tile is in.
pub fn trend_bucket(shard: &str) -> u32 {
    (hash_bytes(shard.as_bytes()) % u64::from(TREND_BUCKETS)) as u32
}

/// The table's partition key for a bucket of a minute, such as `2026-01-05T10:07#03`.
pub fn trend_partition(minute: i64, bucket: u32) -> String {
    let start = Timestamp::from_epoch_ms(minute.saturating_mul(TILE_MS)).to_string();
    // What comes behind the minute is the same for all.
    let to_the_minute = start.get(.."2026-01-05T10:07".len()).unwrap_or(&start);
    format!("{to_the_minute}#{bucket:02}")
}

/// What one shard's events of one minute were about, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrendItem {
    /// The minute: its number since 1970. With [`trend_bucket`] of the shard it makes the table's partition key.
    pub minute: i64,
    /// The table's sort key: the stream's name and the shard's id, such as `interactions/shardId-000000000003`.
    pub shard: String,
    /// Counts the writes, from 1. A write is conditional on the version that is known.
    pub version: u64,
    /// The tile itself, as `usher_wire::trend_tile` writes it.
    pub state: Vec<u8>,
    /// When the table may forget it, in seconds since 1970 (TTL).
    pub expires_at_epoch_s: i64,
}

/// What a conditional write gives.
#[derive(Clone, Debug, PartialEq)]
pub enum TrendPutAnswer {
    /// It was written.
    Written {
        /// Write capacity units that it took.
        write_units: f64,
    },
    /// The stored version is another. Nothing was written.
    Conflict {
        /// The item that is stored (`ALL_OLD`); none where there is none.
        current: Option<TrendItem>,
        /// Write capacity units that it took all the same.
        write_units: f64,
    },
    /// The stored version is another, and the stored item can't be read.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

/// Some tiles of one bucket of a minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrendPage {
    /// The tiles, by shard.
    pub items: Vec<TrendItem>,
    /// Shards whose stored item is not one that [`TrendItem`] can hold, with what is wrong.
    pub unreadable: Vec<(String, String)>,
    /// The shard after which the next page begins; none where this was the last.
    pub next_after: Option<String>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// The `trends` table.
pub trait TrendTable: Send + Sync {
    /// Writes a tile if the stored version is `expected_version`; 0 means that none may be stored.
    fn put(
        &self,
        item: &TrendItem,
        expected_version: u64,
    ) -> impl Future<Output = Result<TrendPutAnswer, CallError>> + Send;

    /// Reads tiles of one bucket of a minute, in the order of their shards, from the one after `after` on: up to 1 MB.
    /// Eventually consistent: a tile may be as it was a moment ago.
    fn page(
        &self,
        minute: i64,
        bucket: u32,
        after: Option<&str>,
    ) -> impl Future<Output = Result<TrendPage, CallError>> + Send;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_partition_is_named_by_its_minute_and_bucket() {
        let at: Timestamp = "2026-01-05T10:07:59.999Z".parse().expect("a time");
        let minute = usher_domain::trends::minute_of(at);
        assert_eq!(trend_partition(minute, 3), "2026-01-05T10:07#03");
        assert_eq!(trend_partition(minute + 1, 15), "2026-01-05T10:08#15");
        assert_eq!(trend_partition(0, 0), "1970-01-01T00:00#00");
        assert_eq!(trend_partition(i64::MAX, 0).len(), "1970-01-01T00:00#00".len());
    }

    #[test]
    fn a_thousand_shards_heat_no_partition() {
        let mut shards: BTreeMap<u32, usize> = BTreeMap::new();
        for number in 0..1_000 {
            *shards
                .entry(trend_bucket(&format!("interactions/shardId-{number:012}")))
                .or_default() += 1;
        }
        assert_eq!(shards.len(), TREND_BUCKETS as usize);
        let fullest = shards.values().max().copied().unwrap_or_default();
        assert!(fullest <= 90, "{shards:?}");
    }
}
