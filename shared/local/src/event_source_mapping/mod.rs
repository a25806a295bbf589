//! Event source mappings: one reader per shard and mapping, which invokes a function with batches in stream order.
//!
//! [`batch`] cuts events, [`response`] decides what an answer means and what follows; both are pure. [`poller`] does the
//! waiting and the invoking, and owns the loop back from a failure to a retry.

mod batch;
#[allow(dead_code, reason = "the reader takes it in with its next change")]
pub(crate) mod failure_destination;
pub mod filter;
mod poller;
mod response;
#[allow(dead_code, reason = "the reader takes it in with its next change")]
pub(crate) mod tumbling_window;
mod utc_time;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::faults::Faults;
use crate::kinesis::{SequenceNumber, ShardLog, State};
use crate::runtime_api::FunctionQueue;
use crate::template::{EventSourceMapping, StartingPosition};

use batch::BatchRecord;
use response::RetryPolicy;

/// Ranges of given-up records that are remembered.
const DROPPED_RANGES_MAX: usize = 1_000;
/// A mapping with at most so many retries gives its records up by itself before anyone loses patience.
const PATIENT_RETRIES_MAX: u32 = 100;
/// Latencies are kept exact to three digits, up to an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const LATENCY_DIGITS: u8 = 3;

/// What a mapping did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// The last lines that the function wrote.
    pub log_tail: Vec<String>,
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
            crate::runtime_api::display_tail(&self.log_tail),
        )
    }
}

/// How mappings behave beyond what the template says.
#[derive(Debug, Clone)]
pub(crate) struct MappingOptions {
    pub fanout_latency: Duration,
    pub retry_backoff_initial: Duration,
    pub retry_backoff_max: Duration,
    pub faults: Faults,
}

/// A mapping that runs: its readers share it, and callers ask it how far it is.
pub(crate) struct Mapping {
    pub config: EventSourceMapping,
    queue: Arc<FunctionQueue>,
    kinesis: Arc<State>,
    fanout_latency: Duration,
    faults: Faults,
    retry: RetryPolicy,
    counts: Mutex<Counts>,
    shards: Mutex<Vec<Arc<ShardProgress>>>,
}

struct Counts {
    records_delivered: u64,
    records_completed: u64,
    records_dropped: u64,
    invocations: u64,
    invocations_failed: u64,
    invocations_partial: u64,
    retries: u64,
    in_flight: u64,
    last_error: Option<String>,
    dropped: VecDeque<DroppedRange>,
    put_to_done_us: Histogram<u64>,
}

/// How far a mapping is on one shard.
pub(crate) struct ShardProgress {
    shard: Arc<ShardLog>,
    /// Records that were there before the mapping's starting position.
    skipped: u64,
    /// The emulator's key of the last of those.
    starting_key: Option<String>,
    state: Mutex<ShardState>,
}

#[derive(Default)]
struct ShardState {
    /// The last record behind the checkpoint.
    checkpoint: Option<SequenceNumber>,
    /// Failures in a row without progress.
    failures: u32,
    last_error: String,
}

fn empty_histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor takes: low >= 1, high >= 2 * low, digits <= 5.
    #[expect(clippy::expect_used, reason = "constant arguments within the documented bounds")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("valid bounds")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShardProgress {
    fn new(shard: Arc<ShardLog>, position: StartingPosition) -> Self {
        let end = shard.end();
        let (skipped, checkpoint, starting_key) = match position {
            // The records before the moment are read and left out.
            StartingPosition::TrimHorizon | StartingPosition::AtTimestamp(_) => (0, None, None),
            StartingPosition::Latest => (end.records, end.last, end.last_key),
        };
        Self {
            shard,
            skipped,
            starting_key,
            state: Mutex::new(ShardState {
                checkpoint,
                ..ShardState::default()
            }),
        }
    }

    fn is_drained(&self) -> bool {
        !self.shard.has_newer_than(lock(&self.state).checkpoint)
    }

    fn move_checkpoint(&self, records: &[BatchRecord]) {
        if let Some(last) = records.last() {
            let mut state = lock(&self.state);
            state.checkpoint = Some(last.sequence_number);
            state.failures = 0;
        }
    }
}

impl Mapping {
    pub fn new(
        config: EventSourceMapping,
        queue: Arc<FunctionQueue>,
        kinesis: Arc<State>,
        options: &MappingOptions,
    ) -> Self {
        let retry = RetryPolicy {
            attempts_max: config.retry_attempts_max,
            backoff_initial: options.retry_backoff_initial,
            backoff_max: options.retry_backoff_max,
        };
        let counts = Counts {
            records_delivered: 0,
            records_completed: 0,
            records_dropped: 0,
            invocations: 0,
            invocations_failed: 0,
            invocations_partial: 0,
            retries: 0,
            in_flight: 0,
            last_error: None,
            dropped: VecDeque::new(),
            put_to_done_us: empty_histogram(),
        };
        Self {
            config,
            queue,
            kinesis,
            fanout_latency: options.fanout_latency,
            faults: options.faults.clone(),
            retry,
            counts: Mutex::new(counts),
            shards: Mutex::default(),
        }
    }

    /// Reads every shard of the stream, those to come included, until it is aborted. Shards that exist now are read from
    /// the mapping's starting position as of this call.
    pub fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let mut seen = self.kinesis.shards_seen();
        let first = self.new_shards(self.config.starting_position);
        let mapping = Arc::clone(self);
        tasks.spawn(async move {
            // The readers end with this task.
            let mut readers = JoinSet::new();
            let mut new = first;
            loop {
                for progress in new {
                    readers.spawn(poller::run(Arc::clone(&mapping), progress));
                }
                if seen.changed().await.is_err() {
                    return;
                }
                new = mapping.new_shards(StartingPosition::TrimHorizon);
                if !new.is_empty() {
                    tracing::warn!(
                        mapping = mapping.config.name,
                        shards = new.len(),
                        "reading new shards at once; a reshard's parents are not drained first yet"
                    );
                }
            }
        });
    }

    fn new_shards(&self, position: StartingPosition) -> Vec<Arc<ShardProgress>> {
        let shards = self
            .kinesis
            .shards_of(&self.config.stream)
            .map(|(_, shards)| shards)
            .unwrap_or_default();
        let mut known = lock(&self.shards);
        let new: Vec<_> = shards
            .into_iter()
            .skip(known.len())
            .map(|shard| Arc::new(ShardProgress::new(shard, position)))
            .collect();
        known.extend(new.iter().cloned());
        new
    }

    /// Whether everything in the stream is behind the checkpoint.
    pub fn is_drained(&self) -> bool {
        let shards = lock(&self.shards);
        let known = self
            .kinesis
            .shards_of(&self.config.stream)
            .map_or(0, |(_, shards)| shards.len());
        shards.len() >= known && shards.iter().all(|progress| progress.is_drained())
    }

    /// Shards on which it failed at least so many times in a row.
    pub fn stuck(&self, failures_min: u32) -> Vec<StuckMapping> {
        if self
            .retry
            .attempts_max
            .is_some_and(|retries| retries <= PATIENT_RETRIES_MAX)
        {
            return Vec::new();
        }
        lock(&self.shards)
            .iter()
            .filter_map(|progress| {
                let state = lock(&progress.state);
                (state.failures >= failures_min).then(|| StuckMapping {
                    mapping: self.config.name.clone(),
                    shard_id: progress.shard.shard_id.to_string(),
                    failures: state.failures,
                    last_error: state.last_error.clone(),
                    log_tail: self.queue.log_tail(),
                })
            })
            .collect()
    }

    pub fn progress(&self) -> MappingProgress {
        let records_to_read = lock(&self.shards)
            .iter()
            .map(|progress| progress.shard.end().records.saturating_sub(progress.skipped))
            .sum();
        let counts = lock(&self.counts);
        MappingProgress {
            name: self.config.name.clone(),
            function: self.config.function.clone(),
            stream: self.config.stream.clone(),
            records_to_read,
            records_delivered: counts.records_delivered,
            records_completed: counts.records_completed,
            records_dropped: counts.records_dropped,
            invocations: counts.invocations,
            invocations_failed: counts.invocations_failed,
            invocations_partial: counts.invocations_partial,
            retries: counts.retries,
            in_flight: counts.in_flight,
            last_error: counts.last_error.clone(),
            dropped: counts.dropped.iter().cloned().collect(),
        }
    }

    pub fn put_to_done_us(&self) -> Histogram<u64> {
        lock(&self.counts).put_to_done_us.clone()
    }

    fn note_completed(&self, progress: &ShardProgress, records: &[BatchRecord]) {
        let now = Instant::now();
        let mut counts = lock(&self.counts);
        counts.records_completed += records.len() as u64;
        for put in records.iter().filter_map(|record| record.put) {
            let latency_us = u64::try_from(now.duration_since(put).as_micros()).unwrap_or(u64::MAX);
            counts.put_to_done_us.saturating_record(latency_us.max(1));
        }
        drop(counts);
        progress.move_checkpoint(records);
    }

    fn note_dropped(&self, progress: &ShardProgress, records: &[BatchRecord], attempts: u32, reason: &str) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return;
        };
        tracing::error!(
            mapping = self.config.name,
            shard = &*progress.shard.shard_id,
            first = first.sequence_text,
            last = last.sequence_text,
            records = records.len(),
            reason,
            "records were given up"
        );
        let mut counts = lock(&self.counts);
        counts.records_dropped += records.len() as u64;
        if counts.dropped.len() == DROPPED_RANGES_MAX {
            counts.dropped.pop_front();
        }
        counts.dropped.push_back(DroppedRange {
            shard_id: progress.shard.shard_id.to_string(),
            first_sequence_number: first.sequence_text.clone(),
            last_sequence_number: last.sequence_text.clone(),
            records: records.len() as u64,
            attempts,
            reason: reason.to_owned(),
        });
        drop(counts);
        progress.move_checkpoint(records);
    }

    fn note_failure(&self, progress: &ShardProgress, error: &str) {
        lock(&self.counts).last_error = Some(error.to_owned());
        let mut state = lock(&progress.state);
        state.failures = state.failures.saturating_add(1);
        error.clone_into(&mut state.last_error);
    }
}
