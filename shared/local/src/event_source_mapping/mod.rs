//! x
use std::fmt;

/// What a mapping did so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingProgress {
    /// `FUNCTION/EVENT` as the template names them.
    pub name: String,
    /// Logical id of the function.
    pub function: String,
    /// The stream it reads.
    pub stream: String,
    /// Records in the stream that this mapping is to read: after its starting position.
    pub records_to_read: u64,
    /// Records handed to the function, each repeat counted.
    pub records_delivered: u64,
    /// Records behind the checkpoint because the function succeeded on them.
    pub records_completed: u64,
    /// Records behind the checkpoint because they were given up.
    pub records_dropped: u64,
    /// Invocations.
    pub invocations: u64,
    /// Invocations that failed as a whole: an error, a timeout, a crash, an unusable response.
    pub invocations_failed: u64,
    /// Invocations that reported failed items.
    pub invocations_partial: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// Batches in flight now.
    pub in_flight: u64,
    /// The last failure, in the function's words.
    pub last_error: Option<String>,
    /// What was given up: the latest ranges, at most 1,000.
    pub dropped: Vec<DroppedRange>,
}

/// Records that a mapping gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedRange {
    /// `shardId-...`.
    pub shard_id: String,
    /// First sequence number given up.
    pub first_sequence_number: String,
    /// Last sequence number given up.
    pub last_sequence_number: String,
    /// How many records.
    pub records: u64,
    /// How often the first one was tried.
    pub attempts: u32,
    /// Why.
    pub reason: String,
}

/// A mapping that makes no progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckMapping {
    /// The mapping's name.
    pub mapping: String,
    /// The shard on which it is stuck.
    pub shard_id: String,
    /// Failures in a row on the same records.
    pub failures: u32,
    /// The last failure, in the function's words.
    pub last_error: String,
    /// The last lines of the function's standard error.
    pub stderr_tail: Vec<String>,
}

impl fmt::Display for StuckMapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} on {}: failed {} times in a row, last with: {}{}",
            self.mapping,
            self.shard_id,
            self.failures,
            self.last_error,
            crate::runtime_api::display_tail(&self.stderr_tail),
        )
    }
}
