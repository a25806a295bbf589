//! Which records go next: pure, so that every order of answers can be tested.
//!
//! Records of one lane go one after the other: the next when the one before is acknowledged. In order, a lane is a
//! partition key; else every record has a lane of its own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use usher_domain::hash::hash_bytes;
use usher_pipeline::ports::{PUT_BYTES_MAX, PUT_RECORDS_MAX, StreamRecord};

/// Records that are read ahead at most, so that other users' records can go while one user's wait.
pub const WINDOW_RECORDS_MAX: usize = 8192;
/// Bytes that are read ahead at most.
pub const WINDOW_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The upper bound of the first pause of a record that failed.
const BACKOFF_FIRST_MS: u64 = 20;
/// The upper bound of any pause.
const BACKOFF_MS_MAX: u64 = 2_000;

/// A line that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the file.
    pub line: u64,
    /// The hash of its bytes.
    pub hash: u64,
    /// What is sent.
    pub record: StreamRecord,
    /// How often it failed.
    pub failures: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.record.data.len() + self.record.partition_key.len()
    }
}

/// The records that are read and not acknowledged.
pub struct Queue {
    ordered: bool,
    /// The records of each lane that has some waiting or under way, the next one first.
    lanes: HashMap<u64, VecDeque<Entry>>,
    /// Lanes with nothing under way, by the line of their next record.
    ready: BTreeMap<u64, u64>,
    /// Lanes whose next record failed, by when it may go again.
    pausing: BTreeMap<(Instant, u64), u64>,
    records: usize,
    bytes: usize,
}

impl Queue {
    /// An empty queue.
    pub fn new(ordered: bool) -> Queue {
        Queue {
            ordered,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            pausing: BTreeMap::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        self.records < WINDOW_RECORDS_MAX && self.bytes < WINDOW_BYTES_MAX
    }

    /// Whether every record was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Puts a record at the end of its lane.
    pub fn push(&mut self, entry: Entry) {
        let lane = self.lane(&entry);
        self.records += 1;
        self.bytes += entry.bytes();
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.push_back(entry),
            None => {
                self.ready.insert(entry.line, lane);
                self.lanes.insert(lane, VecDeque::from([entry]));
            }
        }
    }

    fn lane(&self, entry: &Entry) -> u64 {
        if self.ordered {
            hash_bytes(entry.record.partition_key.as_bytes())
        } else {
            entry.line
        }
    }

    /// The records of the next request, the oldest first: as many as one request takes. They are under way until
    /// [`Queue::acknowledged`] or [`Queue::failed`].
    pub fn take_batch(&mut self, now: Instant) -> Vec<Entry> {
        while let Some(first) = self.pausing.first_entry()
            && first.key().0 <= now
        {
            let ((_, line), lane) = first.remove_entry();
            self.ready.insert(line, lane);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < PUT_RECORDS_MAX
            && let Some(first) = self.ready.first_entry()
        {
            let Some(next) = self.lanes.get_mut(first.get()).and_then(VecDeque::front_mut) else {
                first.remove();
                continue;
            };
            bytes += next.bytes();
            if bytes > PUT_BYTES_MAX && !batch.is_empty() {
                break;
            }
            // The place in the lane is kept, so that what comes behind it waits.
            let emptied = StreamRecord {
                partition_key: String::new(),
                data: Vec::new(),
            };
            let record = std::mem::replace(&mut next.record, emptied);
            batch.push(Entry { record, ..*next });
            first.remove();
        }
        batch
    }

    /// When a record that failed may go again, where there is one.
    pub fn next_retry_at(&self) -> Option<Instant> {
        self.pausing.keys().next().map(|(at, _)| *at)
    }

    /// Takes a record off the queue; the next one of its lane may go.
    pub fn acknowledged(&mut self, entry: &Entry) {
        let lane = self.lane(entry);
        self.records -= 1;
        self.bytes -= entry.bytes();
        let Some(waiting) = self.lanes.get_mut(&lane) else {
            return;
        };
        waiting.pop_front();
        match waiting.front() {
            Some(next) => {
                self.ready.insert(next.line, lane);
            }
            None => {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Puts a record back at the front of its lane, to go again after a pause (full jitter, from `random` in 0 to 1).
    pub fn failed(&mut self, entry: Entry, now: Instant, random: f64) {
        let lane = self.lane(&entry);
        let Some(place) = self.lanes.get_mut(&lane).and_then(VecDeque::front_mut) else {
            return;
        };
        let bound_ms = BACKOFF_FIRST_MS
            .saturating_mul(1 << entry.failures.min(16))
            .min(BACKOFF_MS_MAX);
        let pause = Duration::from_secs_f64(bound_ms as f64 / 1_000.0 * random.clamp(0.0, 1.0));
        self.pausing.insert((now + pause, entry.line), lane);
        *place = Entry {
            failures: entry.failures + 1,
            ..entry
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: u64, key: &str) -> Entry {
        let record = StreamRecord {
            partition_key: key.to_owned(),
            data: vec![b'x'; 10],
        };
        Entry {
            line,
            hash: line,
            record,
            failures: 0,
        }
    }

    fn lines(batch: &[Entry]) -> Vec<u64> {
        batch.iter().map(|entry| entry.line).collect()
    }

    fn queue_of(ordered: bool, keys: &[&str]) -> Queue {
        let mut queue = Queue::new(ordered);
        for (index, key) in keys.iter().enumerate() {
            queue.push(entry(index as u64 + 1, key));
        }
        queue
    }

    #[test]
    fn p3_in_order_no_two_records_of_a_key_are_under_way() {
        let now = Instant::now();
        let mut queue = queue_of(true, &["a", "a", "b", "a", "c", "b"]);
        let first = queue.take_batch(now);
        assert_eq!(lines(&first), [1, 3, 5]);
        assert_eq!(lines(&queue.take_batch(now)), Vec::<u64>::new());
        // 1 fails: 2 and 4 wait for it, 6 does not.
        queue.failed(first[0].clone(), now, 0.5);
        queue.acknowledged(&first[1]);
        queue.acknowledged(&first[2]);
        let second = queue.take_batch(now);
        assert_eq!(lines(&second), [6]);
        let later = queue.next_retry_at().expect("1 waits");
        assert_eq!(later, now + Duration::from_millis(10));
        let again = queue.take_batch(later);
        assert_eq!(
            (lines(&again), again[0].failures, again[0].record.data.len()),
            (vec![1], 1, 10)
        );
        queue.acknowledged(&again[0]);
        queue.acknowledged(&second[0]);
        for line in [2, 4] {
            let next = queue.take_batch(later);
            assert_eq!(lines(&next), [line]);
            queue.acknowledged(&next[0]);
        }
        assert!(queue.is_empty() && queue.bytes == 0 && queue.lanes.is_empty());
    }

    #[test]
    fn without_order_only_the_failed_record_waits() {
        let now = Instant::now();
        let mut queue = queue_of(false, &["a", "a", "a"]);
        let batch = queue.take_batch(now);
        assert_eq!(lines(&batch), [1, 2, 3]);
        queue.acknowledged(&batch[0]);
        queue.acknowledged(&batch[2]);
        queue.failed(batch[1].clone(), now, 0.0);
        assert_eq!(lines(&queue.take_batch(now)), [2]);
    }

    #[test]
    fn a_batch_is_what_one_request_takes() {
        let keys: Vec<String> = (0..1201).map(|number| format!("user-{number}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for ordered in [true, false] {
            let mut queue = queue_of(ordered, &keys);
            let sizes: Vec<usize> = (0..4).map(|_| queue.take_batch(Instant::now()).len()).collect();
            assert_eq!(sizes, [500, 500, 201, 0]);
        }
        let mut queue = Queue::new(false);
        for line in 1..=7 {
            let mut large = entry(line, "k");
            large.record.data = vec![0; 1 << 20];
            queue.push(large);
        }
        assert_eq!(
            lines(&queue.take_batch(Instant::now())),
            [1, 2, 3, 4],
            "5 MiB with the keys"
        );
        assert_eq!(lines(&queue.take_batch(Instant::now())), [5, 6, 7]);
    }

    #[test]
    fn p8_what_is_read_ahead_is_bounded() {
        let mut queue = Queue::new(true);
        let mut line = 0;
        while queue.has_room() {
            line += 1;
            queue.push(entry(line, "k"));
        }
        assert_eq!(line as usize, WINDOW_RECORDS_MAX);
    }
}
