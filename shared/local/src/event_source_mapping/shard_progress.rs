//! How far a mapping is on one shard.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::kinesis::{SequenceNumber, ShardLog};
use crate::template::StartingPosition;

use super::batch::BatchRecord;
use super::checkpoint::Checkpoint;
use super::lock;

/// Shared by the shard's reader, its deliveries, the readers of its children, and whoever asks how far the mapping is.
pub(super) struct ShardProgress {
    pub shard: Arc<ShardLog>,
    /// Shards to be done before this one is read.
    parents: Vec<Arc<ShardProgress>>,
    /// The last record that is not to be read, as a number and as the emulator's key.
    pub after: Option<(SequenceNumber, String)>,
    state: Mutex<ShardState>,
    /// Raised when the shard has ended and everything of it is done.
    finished: watch::Sender<bool>,
}

struct ShardState {
    checkpoint: Checkpoint,
    /// Records before the mapping's starting position.
    skipped: u64,
    /// Whether any record was read.
    started: bool,
    lanes: Vec<Failures>,
}

/// Failures in a row without progress.
#[derive(Debug, Clone, Default)]
struct Failures {
    count: u32,
    last_error: String,
}

impl ShardProgress {
    pub fn new(
        shard: Arc<ShardLog>,
        parents: Vec<Arc<ShardProgress>>,
        position: StartingPosition,
        lanes: usize,
    ) -> Self {
        let end = shard.end();
        let (skipped, after) = match position {
            StartingPosition::TrimHorizon | StartingPosition::AtTimestamp(_) => (0, None),
            StartingPosition::Latest => (end.records, end.last.zip(end.last_key)),
        };
        Self {
            state: Mutex::new(ShardState {
                checkpoint: Checkpoint::at(after.as_ref().map(|(number, _)| *number)),
                skipped,
                started: false,
                lanes: vec![Failures::default(); lanes.max(1)],
            }),
            shard,
            parents,
            after,
            finished: watch::Sender::new(false),
        }
    }

    /// Waits until every parent has been read to its end and all of it is done.
    pub async fn parents_finished(&self) {
        for parent in &self.parents {
            let mut finished = parent.finished.subscribe();
            if finished.wait_for(|finished| *finished).await.is_err() {
                // The parent is gone with the whole cloud.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether a record of a parent was read, so that the starting position is behind.
    pub fn parents_started(&self) -> bool {
        self.parents.iter().any(|parent| lock(&parent.state).started)
    }

    /// The shard has ended and everything of it is done.
    pub fn finish_shard(&self) {
        self.finished.send_replace(true);
    }

    /// Whether every record put so far is behind the checkpoint.
    pub fn is_drained(&self) -> bool {
        !self.shard.has_newer_than(lock(&self.state).checkpoint.passed())
    }

    pub fn records_to_read(&self) -> u64 {
        self.shard.end().records.saturating_sub(lock(&self.state).skipped)
    }

    /// Records that were read and are not behind the checkpoint.
    pub fn ahead(&self) -> usize {
        lock(&self.state).checkpoint.ahead()
    }

    /// A record was read.
    pub fn read(&self, number: SequenceNumber) {
        let mut state = lock(&self.state);
        state.started = true;
        state.checkpoint.read(number);
    }

    /// A record before the starting position is passed.
    pub fn skip(&self, number: SequenceNumber) {
        let mut state = lock(&self.state);
        state.skipped += 1;
        state.checkpoint.read(number);
        state.checkpoint.finish([number]);
    }

    /// A record is done that no lane had.
    pub fn finish_one(&self, number: SequenceNumber) {
        lock(&self.state).checkpoint.finish([number]);
    }

    /// Everything up to this number is past its retention.
    pub fn pass(&self, through: Option<SequenceNumber>) {
        lock(&self.state).checkpoint.pass(through);
    }

    /// Records of a lane are done, in stream order. Tells which of them were not before.
    pub fn finish(&self, lane: usize, records: &[BatchRecord]) -> Vec<bool> {
        let mut state = lock(&self.state);
        if let Some(failures) = state.lanes.get_mut(lane) {
            failures.count = 0;
        }
        state
            .checkpoint
            .finish(records.iter().map(|record| record.sequence_number))
    }

    /// The lane failed once more.
    pub fn note_failure(&self, lane: usize, error: &str) {
        let mut state = lock(&self.state);
        if let Some(failures) = state.lanes.get_mut(lane) {
            failures.count = failures.count.saturating_add(1);
            error.clone_into(&mut failures.last_error);
        }
    }

    /// Failures in a row of the lane that has the most, and its last error.
    pub fn failures(&self) -> (u32, String) {
        let state = lock(&self.state);
        let worst = state.lanes.iter().max_by_key(|failures| failures.count);
        worst
            .map(|failures| (failures.count, failures.last_error.clone()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::ShardProgress;
    use crate::kinesis::{HashKeys, RecordTimes, SequenceNumber, ShardLog};
    use crate::template::StartingPosition;

    fn append(shard: &ShardLog, value: u32) {
        let times = RecordTimes {
            sequence_number: SequenceNumber::parse(&value.to_string()).unwrap(),
            put: Instant::now(),
            arrival_ms: 0,
        };
        shard.append(&[times], format!("00000000/{value}"));
    }

    /// LATEST is after the most recent record, TRIM_HORIZON before the oldest
    /// (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html>).
    #[test]
    fn a_starting_position_decides_what_is_to_be_read() {
        // (position, records to read of three that are there, and of those and one more)
        let cases = [
            (StartingPosition::TrimHorizon, 3, 4),
            (StartingPosition::Latest, 0, 1),
            (StartingPosition::AtTimestamp(1), 3, 4),
        ];
        for (position, before, after) in cases {
            let hash_keys = HashKeys { first: 0, last: 9 };
            let shard = Arc::new(ShardLog::new("s", hash_keys, "00000000/".into(), "00000001".into(), 9));
            (1..=3).for_each(|value| append(&shard, value));
            let progress = ShardProgress::new(Arc::clone(&shard), Vec::new(), position, 1);
            assert_eq!(
                (progress.records_to_read(), progress.is_drained()),
                (before, before == 0)
            );
            append(&shard, 4);
            assert_eq!((progress.records_to_read(), progress.is_drained()), (after, false));
        }
    }
}
