//! What the tests of the flows build their invocations from.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;
use usher_domain::time::Timestamp;

use crate::invocation::Invocation;
use crate::response::BatchResponse;

/// A moment that all test times count from: 2026-01-05T10:00:00Z.
pub(crate) const EPOCH_MS: i64 = 1_767_607_200_000;
/// Longer than any call that answers takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// Enough for calls that answer, and soon over for one that hangs.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

/// A record of a shard.
#[derive(Clone, Debug)]
pub(crate) struct TestRecord {
    pub number: u64,
    pub arrived_at: Timestamp,
    pub data: Vec<u8>,
}

impl TestRecord {
    /// The record with this number, which arrived as many seconds after the start.
    pub(crate) fn new(number: u64, data: impl Into<Vec<u8>>) -> TestRecord {
        TestRecord {
            number,
            arrived_at: Timestamp::from_epoch_ms(EPOCH_MS + number as i64 * 1000),
            data: data.into(),
        }
    }

    pub(crate) fn sequence_number(&self) -> String {
        format!("4959033827149025660855969253836157109592157598{:010}", self.number)
    }
}

/// The payload of an invocation with these records.
pub(crate) fn payload(records: &[TestRecord]) -> String {
    let mut json = r#"{"Records":["#.to_owned();
    for (index, record) in records.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let sequence_number = record.sequence_number();
        let data = base64_simd::STANDARD.encode_to_string(&record.data);
        let arrived_at_s = record.arrived_at.epoch_ms() as f64 / 1000.0;
        write!(
            json,
            r#"{comma}{{"kinesis":{{"partitionKey":"k","sequenceNumber":"{sequence_number}","data":"{data}","approximateArrivalTimestamp":{arrived_at_s}}},"eventID":"shardId-000000000000:{sequence_number}","eventSourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/test"}}"#
        )
        .expect("to memory");
    }
    json.push_str("]}");
    json
}

/// An invocation with this payload that has this much time.
pub(crate) fn invocation(payload: &str, time: Duration) -> Invocation<'_> {
    Invocation {
        payload,
        request_id: "test",
        deadline: Instant::now() + time,
    }
}

/// The index of the record from which a batch comes again.
pub(crate) fn retried_from(response: &BatchResponse, records: &[TestRecord]) -> Option<usize> {
    let number = response.retries_from()?;
    let index = records.iter().position(|record| record.sequence_number() == number);
    Some(index.expect("it names a record of the batch"))
}
