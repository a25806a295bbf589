//! What a mapping did so far, in numbers.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::template::EventSourceMapping;

/// Ranges of given-up records that are remembered.
const DROPPED_RANGES_MAX: usize = 1_000;
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
    /// CloudWatch's event source mapping metrics.
    pub events: EventCounts,
    /// Milliseconds from the put of the last record of the latest batch to its invocation, by the wall clock.
    pub iterator_age_ms_last: u64,
    /// The most that this was for any batch.
    pub iterator_age_ms_max: u64,
    /// Invocations that were refused because the function's reserved concurrency was in use.
    pub throttles: u64,
    /// Batches that were split in two after a failure.
    pub bisections: u64,
    /// Tumbling windows whose final invocation succeeded.
    pub windows_closed: u64,
    /// Reads of the stream that were refused, and tried again.
    pub reads_failed: u64,
    /// Subscriptions that ended after their lifetime, and were renewed.
    pub subscriptions_renewed: u64,
    /// Attempts to write to the failure destination that failed.
    pub destination_failures: u64,
}

/// The event source mapping metrics that Lambda has in CloudWatch, under their names there
/// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>). An event is a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// `PolledEventCount`: records read.
    pub polled: u64,
    /// `FilteredOutEventCount`: those that the filters kept from the function.
    pub filtered_out: u64,
    /// `InvokedEventCount`: records in invocations, each repeat counted.
    pub invoked: u64,
    /// `FailedInvokeEventCount`: records in invocations that failed, or that reported failed items.
    pub failed_invoke: u64,
    /// `DroppedEventCount`: records given up, for their age or after their retries.
    pub dropped: u64,
    /// `OnFailureDestinationDeliveredEventCount`: those of them that the failure destination got.
    pub on_failure_destination_delivered: u64,
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

/// The same while it runs, and what is asked for on its own.
pub(super) struct Counts {
    /// `records_to_read` is the shards' to tell.
    pub progress: MappingProgress,
    pub put_to_done_us: Histogram<u64>,
}

fn empty_histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor takes: low >= 1, high >= 2 * low, digits <= 5.
    #[expect(clippy::expect_used, reason = "constant arguments within the documented bounds")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).expect("valid bounds")
}

impl Counts {
    pub fn new(config: &EventSourceMapping) -> Self {
        Self {
            progress: MappingProgress {
                name: config.name.clone(),
                function: config.function.clone(),
                stream: config.stream.clone(),
                ..MappingProgress::default()
            },
            put_to_done_us: empty_histogram(),
        }
    }

    pub fn note_latency(&mut self, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.put_to_done_us.saturating_record(latency_us.max(1));
    }
}

impl MappingProgress {
    /// The age of an invocation's last record, if it has one.
    pub(super) fn note_age(&mut self, age: Option<Duration>) {
        let Some(age) = age else { return };
        self.iterator_age_ms_last = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.iterator_age_ms_max = self.iterator_age_ms_max.max(self.iterator_age_ms_last);
    }

    pub(super) fn note_dropped(&mut self, range: DroppedRange, delivered: bool) {
        self.records_dropped += range.records;
        self.events.dropped += range.records;
        if delivered {
            self.events.on_failure_destination_delivered += range.records;
        }
        if self.dropped.len() == DROPPED_RANGES_MAX {
            self.dropped.remove(0);
        }
        self.dropped.push(range);
    }
}
