//! x
use std::sync::Arc;
use std::time::Instant;

/// One record of a stream, as the local cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// `shardId-...`.
    pub shard_id: Arc<str>,
    /// Decimal, as Kinesis gives it.
    pub sequence_number: String,
    /// The producer's partition key.
    pub partition_key: String,
    /// The bytes put.
    pub data: Vec<u8>,
    /// When the put arrived; `None` when that is forgotten.
    pub put: Option<Instant>,
    /// What functions see as arrival, in milliseconds since the Unix epoch: see [`crate::Clock`].
    pub arrival_ms: i64,
}

/// Told of each record put, in stream order per shard.
pub type PutObserver = Arc<dyn Fn(&StreamRecord) + Send + Sync>;
