//! Putting any number of records on a stream: cut to what one call takes, only the failed ones again.

use std::ops::Range;

use tokio::time::Instant;

use crate::ports::{CallError, PUT_BYTES_MAX, PUT_RECORDS_MAX, PutOutcome, RecordStream, StreamRecord};
use crate::retry::{Backoff, chain};

/// What became of one record in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutResult {
    /// It is on the stream.
    Stored {
        /// Its shard.
        shard_id: String,
        /// Its sequence number.
        sequence_number: String,
    },
    /// It could not be put, or it is not known whether it was.
    Failed {
        /// Why, for people.
        why: String,
    },
}

impl PutResult {
    /// Whether it is on the stream.
    pub fn is_stored(&self) -> bool {
        matches!(self, PutResult::Stored { .. })
    }
}

/// Puts records in order and tries again what failed until the deadline. One result a record.
///
/// A record whose put fails may end up behind later ones, also of its own key: where that matters, see
/// [`put_in_rounds`].
pub async fn put_all<S: RecordStream>(stream: &S, records: &[StreamRecord], deadline: Instant) -> Vec<PutResult> {
    let mut results = vec![None; records.len()];
    for range in cut(records) {
        put_chunk(stream, &records[range.clone()], &mut results[range], deadline).await;
    }
    let unanswered = || PutResult::Failed {
        why: "no time was left to put it".to_owned(),
    };
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(unanswered))
        .collect()
}

/// How much of a queue is on the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutInOrder {
    /// How many of its records, from the first on.
    pub stored: usize,
    /// Why the next could not be put, or it is not known whether it was.
    pub why: Option<String>,
}

/// Puts several queues of records, each in its own order: of a queue, a record is put once the one before it is known to be
/// on the stream, and after a failure none is. Records of different queues go together.
pub async fn put_in_rounds<S: RecordStream>(
    stream: &S,
    queues: Vec<Vec<StreamRecord>>,
    deadline: Instant,
) -> Vec<PutInOrder> {
    let mut put = vec![PutInOrder::default(); queues.len()];
    let mut left: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
    loop {
        let mut round = Vec::new();
        let mut records = Vec::new();
        for (index, queue) in left.iter_mut().enumerate() {
            if put[index].why.is_none()
                && let Some(record) = queue.next()
            {
                round.push(index);
                records.push(record);
            }
        }
        if records.is_empty() {
            return put;
        }
        for (index, result) in round.into_iter().zip(put_all(stream, &records, deadline).await) {
            match result {
                PutResult::Stored { .. } => put[index].stored += 1,
                PutResult::Failed { why } => put[index].why = Some(why),
            }
        }
    }
}

async fn put_chunk<S: RecordStream>(
    stream: &S,
    records: &[StreamRecord],
    results: &mut [Option<PutResult>],
    deadline: Instant,
) {
    let mut open: Vec<usize> = (0..records.len()).collect();
    let mut backoff = Backoff::default();
    let mut reason = "no time was left to put it".to_owned();
    while !open.is_empty() {
        let again: Vec<StreamRecord>;
        let attempt = if open.len() == records.len() {
            records
        } else {
            again = open.iter().map(|index| records[*index].clone()).collect();
            &again
        };
        match tokio::time::timeout_at(deadline, stream.put(attempt)).await {
            Err(_) => break,
            Ok(Ok(outcomes)) => reason = take_apart(&mut open, outcomes, results).unwrap_or(reason),
            Ok(Err(error @ CallError::Retry { .. })) => reason = chain(&error),
            Ok(Err(error @ CallError::Refused { .. })) => {
                reason = chain(&error);
                break;
            }
        }
        if open.is_empty() || !backoff.pause(deadline).await {
            break;
        }
    }
    for index in open {
        results[index] = Some(PutResult::Failed { why: reason.clone() });
    }
}

/// Notes what was stored, keeps what has to be put again, and gives the last reason of a failure.
fn take_apart(open: &mut Vec<usize>, outcomes: Vec<PutOutcome>, results: &mut [Option<PutResult>]) -> Option<String> {
    let mut reason = None;
    let mut outcomes = outcomes.into_iter();
    open.retain(|index| match outcomes.next() {
        Some(PutOutcome::Stored {
            shard_id,
            sequence_number,
        }) => {
            results[*index] = Some(PutResult::Stored {
                shard_id,
                sequence_number,
            });
            false
        }
        Some(PutOutcome::Failed { code, message }) => {
            reason = Some(format!("{code}: {message}"));
            true
        }
        None => {
            reason = Some("the answer left the record out".to_owned());
            true
        }
    });
    reason
}

/// The largest record that every stream takes: 1 MiB, its key included. A stream may be set to take up to 10 MiB.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
const RECORD_BYTES_USUAL_MAX: usize = 1024 * 1024;

/// Cuts records into ranges that one call takes. A record that the stream may find too large gets a range of its own: a
/// call is refused as a whole, and it must not take others with it (P6).
pub fn cut(records: &[StreamRecord]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, record) in records.iter().enumerate() {
        let size = record.data.len() + record.partition_key.len();
        let is_full = index - start == PUT_RECORDS_MAX || bytes + size > PUT_BYTES_MAX;
        // A large record is alone: what comes after it finds it there, whatever the sum.
        let stands_alone = size > RECORD_BYTES_USUAL_MAX || bytes > RECORD_BYTES_USUAL_MAX && index - start == 1;
        if index > start && (is_full || stands_alone) {
            ranges.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < records.len() {
        ranges.push(start..records.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> StreamRecord {
        StreamRecord {
            partition_key: "k".to_owned(),
            data: vec![0; bytes],
        }
    }

    #[test]
    fn records_are_cut_by_number_and_by_bytes() {
        let megabyte = 1024 * 1024;
        for (sizes, expected) in [
            (vec![], vec![]),
            (vec![10; 1000], vec![0..500, 500..1000]),
            (vec![10; 501], vec![0..500, 500..501]),
            (vec![megabyte - 1; 6], vec![0..5, 5..6]),
            (vec![megabyte / 2; 12], vec![0..9, 9..12]), // ten with their keys are over 5 MiB
            (vec![megabyte; 3], vec![0..1, 1..2, 2..3]), // with its key it is over 1 MiB
            (vec![10, 10, megabyte, 10, 10], vec![0..2, 2..3, 3..5]),
            (vec![10, 6 * megabyte, 10], vec![0..1, 1..2, 2..3]),
        ] {
            let records: Vec<_> = sizes.into_iter().map(record).collect();
            assert_eq!(cut(&records), expected);
        }
    }

    #[test]
    fn only_what_failed_is_left_open() {
        let stored = |number: &str| PutOutcome::Stored {
            shard_id: "s".to_owned(),
            sequence_number: number.to_owned(),
        };
        let failed = || PutOutcome::Failed {
            code: "Throttled".to_owned(),
            message: "slow down".to_owned(),
        };
        let mut open = vec![0, 2, 5, 6];
        let mut results = vec![None; 7];
        let reason = take_apart(&mut open, vec![stored("1"), failed(), stored("2")], &mut results);
        assert_eq!(open, [2, 6], "the failed one, and the one that the answer left out");
        assert_eq!(reason.as_deref(), Some("the answer left the record out"));
        assert!(results[0].as_ref().is_some_and(PutResult::is_stored) && results[5].is_some() && results[2].is_none());
    }
}
