//! The lanes of a shard: as many as its parallelisation factor, each with one batch at a time, so that the records of one
//! partition key stay in order.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::kinesis::TailRecord;

use super::batch::{Batch, BatchBuilder, Envelope, Offer};

/// Records that wait behind full batches may have so many bytes of data in base64; then nothing more is read until some went
/// out.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is the same for every batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub records_max: usize,
    pub bytes_max: usize,
    /// How long a batch waits to fill, from its first record.
    pub window: Duration,
}

/// Records on their way to the function, lane by lane.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    limits: BatchLimits,
}

struct Lane {
    builder: BatchBuilder,
    /// What the batch being filled has no room for, in order.
    overflow: VecDeque<TailRecord>,
    overflow_bytes: usize,
    /// When the batch being filled goes out, full or not.
    window_end: Option<Instant>,
    in_flight: bool,
    /// The batch that was done last, for overlapping ones.
    previous: Option<Batch>,
}

/// A batch that goes out now.
pub(super) struct ReadyBatch {
    pub lane: usize,
    pub batch: Batch,
    pub previous: Option<Batch>,
}

impl Lanes {
    pub fn new(count: usize, limits: BatchLimits) -> Self {
        let lanes = (0..count.max(1))
            .map(|_| Lane {
                builder: limits.builder(),
                overflow: VecDeque::new(),
                overflow_bytes: 0,
                window_end: None,
                in_flight: false,
                previous: None,
            })
            .collect();
        Self { lanes, limits }
    }

    /// Whether a lane that is idle has room for a further record.
    pub fn have_room(&self) -> bool {
        let mut lanes = self.lanes.iter();
        self.waiting_bytes() < WAITING_BYTES_MAX
            && lanes.any(|lane| !lane.in_flight && lane.overflow.is_empty() && lane.builder.room() > 0)
    }

    fn waiting_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.overflow_bytes).sum()
    }

    /// Adds a record to its partition key's lane. Gives it back when no batch can hold it.
    pub fn add(&mut self, envelope: &Envelope, record: TailRecord) -> Option<TailRecord> {
        let lane = lane_of(&record.stored.partition_key, self.lanes.len());
        let limits = self.limits;
        let lane = &mut self.lanes[lane];
        if !lane.overflow.is_empty() {
            lane.wait(record);
            return None;
        }
        match lane.builder.offer(envelope, &record) {
            Offer::Taken => {
                lane.window_end.get_or_insert_with(|| Instant::now() + limits.window);
            }
            Offer::Full => lane.wait(record),
            Offer::Oversized => return Some(record),
        }
        None
    }

    /// Takes out what is to go out now. Records that no batch can hold are added to `oversized`.
    pub fn ready(&mut self, envelope: &Envelope, oversized: &mut Vec<TailRecord>) -> Option<ReadyBatch> {
        let now = Instant::now();
        let limits = self.limits;
        let index = self.lanes.iter().position(|lane| lane.is_ready(now))?;
        let lane = &mut self.lanes[index];
        let filled = std::mem::replace(&mut lane.builder, limits.builder());
        lane.window_end = None;
        lane.in_flight = true;
        while let Some(record) = lane.overflow.pop_front() {
            let bytes = record.stored.data.len();
            match lane.builder.offer(envelope, &record) {
                Offer::Taken => {
                    lane.window_end.get_or_insert(now + limits.window);
                }
                Offer::Full => {
                    lane.overflow.push_front(record);
                    break;
                }
                Offer::Oversized => oversized.push(record),
            }
            lane.overflow_bytes -= bytes;
        }
        Some(ReadyBatch {
            lane: index,
            batch: filled.finish(),
            previous: lane.previous.take(),
        })
    }

    /// The lane's batch is done; `previous` is kept for the next.
    pub fn done(&mut self, lane: usize, previous: Option<Batch>) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.in_flight = false;
            lane.previous = previous;
        }
    }

    /// Whether nothing is held and nothing in flight.
    pub fn are_empty(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| !lane.in_flight && lane.builder.is_empty() && lane.overflow.is_empty())
    }

    /// When the next batch goes out although it is not full.
    pub fn next_window_end(&self) -> Option<Instant> {
        let idle = self.lanes.iter().filter(|lane| !lane.in_flight);
        idle.filter_map(|lane| lane.window_end).min()
    }
}

impl BatchLimits {
    fn builder(self) -> BatchBuilder {
        BatchBuilder::new(self.records_max, self.bytes_max)
    }
}

impl Lane {
    fn wait(&mut self, record: TailRecord) {
        self.overflow_bytes += record.stored.data.len();
        self.overflow.push_back(record);
    }

    fn is_ready(&self, now: Instant) -> bool {
        let full = !self.overflow.is_empty() || self.builder.room() == 0;
        !self.in_flight && !self.builder.is_empty() && (full || self.window_end.is_some_and(|end| end <= now))
    }
}

/// The same lane for the same partition key, in this run and in any other.
fn lane_of(partition_key: &str, lanes: usize) -> usize {
    if lanes <= 1 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    partition_key.hash(&mut hasher);
    // The remainder is less than the number of lanes.
    (hasher.finish() % lanes as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::lane_of;

    #[test]
    fn a_key_has_one_lane_and_every_lane_has_keys() {
        let lanes: Vec<_> = (0..1_000).map(|user| lane_of(&format!("user {user}"), 10)).collect();
        let again: Vec<_> = (0..1_000).map(|user| lane_of(&format!("user {user}"), 10)).collect();
        assert_eq!(lanes, again);
        for lane in 0..10 {
            let keys = lanes.iter().filter(|of_key| **of_key == lane).count();
            assert!((50..200).contains(&keys), "lane {lane} has {keys} keys");
        }
        assert_eq!(lane_of("anyone", 1), 0);
    }
}
