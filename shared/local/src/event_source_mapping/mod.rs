//! Event source mappings, as AWS Lambda runs them for Kinesis: one reader per shard and mapping, which takes records as they
//! come, filters them, sorts them into lanes, and invokes a function with batches in stream order.
//!
//! | Module | Decides | Pure |
//! |---|---|---|
//! | `lineage` | which shards wait for which after a reshard | yes |
//! | `subscription` | how records come, and come again when a subscription has ended | |
//! | `filter` | which records the function is to see | yes |
//! | `lanes` | which records go out together, and when | |
//! | `batch` | the event, to the byte | yes |
//! | `tumbling_window` | the state between invocations | yes |
//! | `response` | what an answer means and what follows | yes |
//! | `delivery` | owns the loop back from a failure to a retry, and gives up | |
//! | `failure_destination` | what is kept of what was given up | |
//! | `checkpoint` | how far a shard is done: never past an open record (P1) | yes |
//! | `poller` | owns the waiting: the one loop per shard | |
//! | `metrics` | the counts | |

mod batch;
mod checkpoint;
mod delivery;
pub(crate) mod failure_destination;
pub(crate) mod filter;
mod lanes;
mod lineage;
mod metrics;
mod poller;
mod response;
mod shard_progress;
mod subscription;
mod tumbling_window;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::faults::Faults;
use crate::function_queue::FunctionQueue;
use crate::kinesis::{HashKeys, State};
use crate::runtime_api::REQUEST_BYTES_MAX;
use crate::template::{EventSourceMapping, StartingPosition};

use batch::BatchRecord;
use failure_destination::FailureDestinationWriter;
use lanes::BatchLimits;
use metrics::Counts;
pub use metrics::{DroppedRange, EventCounts, MappingProgress};
use response::RetryPolicy;
use shard_progress::ShardProgress;
use subscription::Subscription;
use tumbling_window::{STATE_BYTES_MAX, TumblingWindow};

/// A mapping with at most so many retries gives its records up by itself before anyone loses patience.
const PATIENT_RETRIES_MAX: u32 = 100;
/// The same for one that gives up records older than this.
const PATIENT_AGE_MAX: Duration = Duration::from_secs(300);
/// ARNs of enhanced fan-out consumers have this in them.
const CONSUMER_IN_ARN: &str = "/consumer/";

/// The function has failed for good; nothing more is to be read for it.
struct FunctionUnavailable;

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
            crate::function_queue::display_tail(&self.log_tail),
        )
    }
}

/// How mappings behave beyond what the template says.
#[derive(Debug, Clone)]
pub(crate) struct MappingOptions {
    pub fanout_latency: Duration,
    pub retry_backoff_initial: Duration,
    pub retry_backoff_max: Duration,
    /// How long a subscription lasts, for mappings that read by enhanced fan-out.
    pub subscription_lifetime: Duration,
    /// Where given-up batches go.
    pub failed_batches: Option<Arc<FailureDestinationWriter>>,
    pub faults: Faults,
}

/// A mapping that runs: its readers share it, and callers ask it how far it is.
pub(crate) struct Mapping {
    pub config: EventSourceMapping,
    queue: Arc<FunctionQueue>,
    kinesis: Arc<State>,
    fanout_latency: Duration,
    subscription_lifetime: Duration,
    failed_batches: Option<Arc<FailureDestinationWriter>>,
    faults: Faults,
    retry: RetryPolicy,
    /// Invocations that the function may have at once, over all its mappings.
    concurrency: Arc<Semaphore>,
    counts: Mutex<Counts>,
    shards: Mutex<Vec<Arc<ShardProgress>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapping {
    /// `concurrency` is shared by all mappings of the function.
    pub fn new(
        config: EventSourceMapping,
        queue: Arc<FunctionQueue>,
        kinesis: Arc<State>,
        concurrency: Arc<Semaphore>,
        options: &MappingOptions,
    ) -> Self {
        let retry = RetryPolicy {
            attempts_max: config.retry_attempts_max,
            bisects: config.bisect_on_error,
            backoff_initial: options.retry_backoff_initial,
            backoff_max: options.retry_backoff_max,
        };
        let counts = Mutex::new(Counts::new(&config));
        Self {
            config,
            queue,
            kinesis,
            fanout_latency: options.fanout_latency,
            subscription_lifetime: options.subscription_lifetime,
            failed_batches: options.failed_batches.clone(),
            faults: options.faults.clone(),
            retry,
            concurrency,
            counts,
            shards: Mutex::default(),
        }
    }

    /// Reads every shard of the stream, those to come included, until it is aborted. Shards that exist now are read from
    /// the mapping's starting position as of this call; those that a reshard makes, from their beginning, and after their
    /// parents.
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
                    tracing::debug!(mapping = mapping.config.name, shards = new.len(), "new shards");
                }
                while readers.try_join_next().is_some() {}
            }
        });
    }

    fn new_shards(&self, position: StartingPosition) -> Vec<Arc<ShardProgress>> {
        let shards = self
            .kinesis
            .shards_of(&self.config.stream)
            .map(|(_, shards)| shards)
            .unwrap_or_default();
        let hash_keys: Vec<HashKeys> = shards.iter().map(|shard| shard.hash_keys).collect();
        let mut known = lock(&self.shards);
        let before = known.len();
        for (index, shard) in shards.into_iter().enumerate().skip(before) {
            // Earlier shards, so they are known by now.
            let parents = lineage::ancestors(&hash_keys, index)
                .into_iter()
                .filter_map(|parent| known.get(parent).cloned())
                .collect();
            known.push(Arc::new(ShardProgress::new(shard, parents, position, self.lanes())));
        }
        known[before..].to_vec()
    }

    /// Batches that may be in flight at once on a shard. With tumbling windows it is one whatever the factor: a shard has one
    /// state, and each invocation gets what the one before made of it.
    pub fn lanes(&self) -> usize {
        if self.config.tumbling_window.is_some() {
            return 1;
        }
        self.config.parallelization_factor.max(1) as usize
    }

    /// With tumbling windows an event has room for the largest state that there may be.
    fn batch_limits(&self, shard_id: &str) -> BatchLimits {
        let reserved = self.config.tumbling_window.map_or(0, |length| {
            STATE_BYTES_MAX + TumblingWindow::new(length).bytes_added_max(shard_id, &self.config.event_source_arn)
        });
        BatchLimits {
            records_max: self.config.batch_size,
            bytes_max: REQUEST_BYTES_MAX - reserved,
            window: self.config.batching_window,
        }
    }

    fn subscription_lifetime(&self) -> Option<Duration> {
        self.config
            .event_source_arn
            .contains(CONSUMER_IN_ARN)
            .then_some(self.subscription_lifetime)
    }

    fn is_on_data_clock(&self) -> bool {
        self.kinesis.is_on_data_clock(&self.config.stream)
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
        let retries = self.retry.attempts_max;
        let age_max = self.config.record_age_max;
        let gives_up_records = retries.is_some_and(|retries| retries <= PATIENT_RETRIES_MAX);
        if age_max.is_some_and(|age| age <= PATIENT_AGE_MAX) || (gives_up_records && !self.may_never_run()) {
            return Vec::new();
        }
        let shards = lock(&self.shards);
        let stuck = shards.iter().filter_map(|progress| {
            let (failures, last_error) = progress.failures();
            (failures >= failures_min).then(|| StuckMapping {
                mapping: self.config.name.clone(),
                shard_id: progress.shard.shard_id.to_string(),
                failures,
                last_error,
                log_tail: self.queue.log_tail(),
            })
        });
        stuck.collect()
    }

    /// Whether the function's reserved concurrency is nothing.
    fn may_never_run(&self) -> bool {
        self.queue.function.reserved_concurrency == Some(0)
    }

    pub fn progress(&self) -> MappingProgress {
        let records_to_read = lock(&self.shards)
            .iter()
            .map(|progress| progress.records_to_read())
            .sum();
        MappingProgress {
            records_to_read,
            ..lock(&self.counts).progress.clone()
        }
    }

    pub fn put_to_done_us(&self) -> Histogram<u64> {
        lock(&self.counts).put_to_done_us.clone()
    }

    fn count(&self, count: impl FnOnce(&mut MappingProgress)) {
        count(&mut lock(&self.counts).progress);
    }

    fn note_reads(&self, subscription: &mut Subscription) {
        let (renewals, failed) = subscription.take_counts();
        if renewals + failed > 0 {
            self.count(|counts| {
                counts.subscriptions_renewed += renewals;
                counts.reads_failed += failed;
            });
        }
    }

    fn note_completed(&self, progress: &ShardProgress, lane: usize, records: &[BatchRecord]) {
        if records.is_empty() {
            return;
        }
        let now = Instant::now();
        let fresh = progress.finish(lane, records);
        let mut counts = lock(&self.counts);
        for record in records
            .iter()
            .zip(fresh)
            .filter_map(|(record, fresh)| fresh.then_some(record))
        {
            counts.progress.records_completed += 1;
            if let Some(put) = record.put {
                counts.note_latency(now.duration_since(put));
            }
        }
    }

    fn note_dropped(
        &self,
        progress: &ShardProgress,
        lane: usize,
        records: &[BatchRecord],
        attempts: u32,
        reason: &str,
        delivered: bool,
    ) {
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
        let range = DroppedRange {
            shard_id: progress.shard.shard_id.to_string(),
            first_sequence_number: first.sequence_text.clone(),
            last_sequence_number: last.sequence_text.clone(),
            records: records.len() as u64,
            attempts,
            reason: reason.to_owned(),
        };
        self.count(|counts| counts.note_dropped(range, delivered));
        progress.finish(lane, records);
    }

    fn note_failure(&self, progress: &ShardProgress, lane: usize, error: &str) {
        self.count(|counts| counts.last_error = Some(error.to_owned()));
        progress.note_failure(lane, error);
    }

    fn note_throttled(&self, progress: &ShardProgress, lane: usize) {
        self.count(|counts| counts.throttles += 1);
        if self.may_never_run() {
            self.note_failure(progress, lane, "throttled: the function's reserved concurrency is 0");
            self.kinesis.activity.note();
        }
    }
}
