//! What the cloud remembers of each record beyond what the emulator keeps: when it was put, and when it arrived.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::sequence_number::SequenceNumber;

/// One record's times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordTimes {
    pub sequence_number: SequenceNumber,
    /// When the put that brought it reached the server.
    pub put: Instant,
    /// What functions see as arrival, in milliseconds since the Unix epoch.
    pub arrival_ms: i64,
}

/// The times of a shard's records in stream order, the oldest forgotten first, and a bell for its readers.
pub(crate) struct ShardLog {
    pub shard_id: Arc<str>,
    /// Which partition keys, by their MD5, come here.
    pub hash_keys: HashKeys,
    /// The emulator's key prefix for this shard.
    pub key_prefix: String,
    /// The end of this shard's keys, exclusive.
    pub key_end: String,
    times: Mutex<Times>,
    bell: watch::Sender<ShardEnd>,
    remembered_max: usize,
}

/// The inclusive range of hash keys that a shard takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashKeys {
    pub first: u128,
    pub last: u128,
}

impl HashKeys {
    /// Whether a key belongs to both.
    pub fn overlap(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

#[derive(Default)]
struct Times {
    entries: VecDeque<RecordTimes>,
}

/// How far a shard goes now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShardEnd {
    /// The last record's number, `None` while the shard is empty.
    pub last: Option<SequenceNumber>,
    /// The same as the emulator's key, from which to look for newer ones.
    pub last_key: Option<String>,
    /// Records put so far.
    pub records: u64,
    /// Whether it was split or merged: what is there is all that will ever be.
    pub closed: bool,
}

/// What a reader behind a position may read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing newer is there.
    Nothing,
    /// So many records are due; at least one.
    Records(usize),
    /// The next record is there but due only then.
    At(Instant),
}

impl ShardLog {
    pub fn new(
        shard_id: &str,
        hash_keys: HashKeys,
        key_prefix: String,
        key_end: String,
        remembered_max: usize,
    ) -> Self {
        Self {
            shard_id: shard_id.into(),
            hash_keys,
            key_prefix,
            key_end,
            times: Mutex::default(),
            bell: watch::Sender::new(ShardEnd::default()),
            remembered_max,
        }
    }

    /// Adds records in stream order, and wakes the readers.
    pub fn append(&self, added: &[RecordTimes], last_key: String) {
        let Some(last) = added.last() else { return };
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.remembered_max.saturating_sub(added.len());
        while times.entries.len() > room {
            times.entries.pop_front();
        }
        times.entries.extend(added);
        drop(times);
        self.bell.send_modify(|end| {
            end.last = Some(last.sequence_number);
            end.last_key = Some(last_key);
            end.records += added.len() as u64;
        });
    }

    /// No record will come any more. Wakes the readers, which may be waiting for one.
    pub fn close(&self) {
        self.bell.send_modify(|end| end.closed = true);
    }

    pub fn end(&self) -> ShardEnd {
        self.bell.borrow().clone()
    }

    /// Whether a record newer than `position` is there.
    pub fn has_newer_than(&self, position: Option<SequenceNumber>) -> bool {
        self.bell.borrow().last > position
    }

    /// Rings at each put.
    pub fn subscribe(&self) -> watch::Receiver<ShardEnd> {
        self.bell.subscribe()
    }

    /// The times of one record.
    pub fn times_of(&self, sequence_number: SequenceNumber) -> Option<RecordTimes> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let index = times
            .entries
            .binary_search_by_key(&sequence_number, |entry| entry.sequence_number)
            .ok()?;
        times.entries.get(index).copied()
    }

    /// Times for a run of records in stream order; `None` for those forgotten.
    pub fn times_of_run(&self, numbers: &[SequenceNumber]) -> Vec<Option<RecordTimes>> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let first = numbers.first().copied().unwrap_or_default();
        let mut index = times.entries.partition_point(|entry| entry.sequence_number < first);
        numbers
            .iter()
            .map(|number| {
                while times
                    .entries
                    .get(index)
                    .is_some_and(|entry| entry.sequence_number < *number)
                {
                    index += 1;
                }
                times
                    .entries
                    .get(index)
                    .filter(|entry| entry.sequence_number == *number)
                    .copied()
            })
            .collect()
    }

    /// What may be read behind `position`, at most `limit` records, when each is due `latency` after its put.
    pub fn due(&self, position: Option<SequenceNumber>, latency: std::time::Duration, limit: usize) -> Due {
        let end = self.bell.borrow().last;
        if end <= position {
            return Due::Nothing;
        }
        if latency.is_zero() {
            return Due::Records(limit);
        }
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = position.map_or(0, |position| {
            times.entries.partition_point(|entry| entry.sequence_number <= position)
        });
        if start == 0 && times.entries.len() >= self.remembered_max {
            // Records before the first one remembered are old, hence due.
            return Due::Records(limit);
        }
        let due = times
            .entries
            .range(start..)
            .take(limit)
            .take_while(|entry| entry.put + latency <= now)
            .count();
        match (due, times.entries.get(start)) {
            (0, Some(next)) => Due::At(next.put + latency),
            (0, None) => Due::Records(limit),
            (due, _) => Due::Records(due),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Due, HashKeys, RecordTimes, ShardLog};
    use crate::kinesis::SequenceNumber;

    fn number(value: u32) -> SequenceNumber {
        SequenceNumber::parse(&value.to_string()).unwrap()
    }

    fn log(remembered_max: usize, numbers: std::ops::Range<u32>, put: Instant) -> ShardLog {
        let log = ShardLog::new(
            "shardId-000000000000",
            HashKeys { first: 0, last: 9 },
            "00000000/".into(),
            "00000001".into(),
            remembered_max,
        );
        for value in numbers {
            let times = RecordTimes {
                sequence_number: number(value),
                put,
                arrival_ms: i64::from(value),
            };
            log.append(&[times], format!("00000000/{value}"));
        }
        log
    }

    #[test]
    fn the_oldest_times_are_forgotten_first() {
        let log = log(3, 1..6, Instant::now());
        let arrivals: Vec<_> = (1..6)
            .map(|value| log.times_of(number(value)).map(|times| times.arrival_ms))
            .collect();
        assert_eq!(arrivals, [None, None, Some(3), Some(4), Some(5)]);
        let run = log.times_of_run(&[number(2), number(3), number(5), number(9)]);
        let arrivals: Vec<_> = run.iter().map(|times| times.map(|times| times.arrival_ms)).collect();
        assert_eq!(arrivals, [None, Some(3), Some(5), None]);
        assert_eq!(log.end().records, 5);
    }

    #[test]
    fn a_record_is_due_its_latency_after_its_put() {
        let put = Instant::now();
        let log = log(10, 1..4, put);
        let hour = Duration::from_secs(3600);
        assert_eq!(log.due(None, Duration::ZERO, 100), Due::Records(100));
        assert_eq!(log.due(Some(number(3)), Duration::ZERO, 100), Due::Nothing);
        assert_eq!(log.due(None, hour, 100), Due::At(put + hour));
        let old = self::log(10, 1..4, put.checked_sub(hour).unwrap_or(put));
        if put.checked_sub(hour).is_some() {
            assert_eq!(old.due(Some(number(1)), hour, 100), Due::Records(2));
        }
    }
}
