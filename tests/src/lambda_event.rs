//! Kinesis records as Lambda hands them over.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;
use usher_domain::time::Timestamp;
use usher_pipeline::invocation::Invocation;
use usher_pipeline::memory::MemoryStream;

/// The ARN of the stream that every test record comes from.
pub const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/interactions";

/// One record of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Such as `shardId-000000000000`.
    pub shard_id: String,
    /// Decimal digits, of any length.
    pub sequence_number: String,
    /// When Kinesis took it.
    pub arrived_at: Timestamp,
    /// The producer's partition key.
    pub partition_key: String,
    /// The bytes.
    pub data: Vec<u8>,
}

/// The sequence number of the record with this number in its shard, of the length that AWS writes.
pub fn usual_sequence_number(number: u64) -> String {
    format!("4959033827149025660855969253836157109592157598{number:010}")
}

impl Record {
    fn write_json(&self, json: &mut String) {
        let Record {
            shard_id,
            sequence_number,
            ..
        } = self;
        let partition_key = serde_json::Value::from(self.partition_key.as_str());
        let data = base64_simd::STANDARD.encode_to_string(&self.data);
        let arrived_at_s = self.arrived_at.epoch_ms() as f64 / 1000.0;
        // Writing to memory can't fail.
        let _ = write!(
            json,
            r#"{{"kinesis":{{"kinesisSchemaVersion":"1.0","partitionKey":{partition_key},"sequenceNumber":"{sequence_number}","data":"{data}","approximateArrivalTimestamp":{arrived_at_s:?}}},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"{shard_id}:{sequence_number}","eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::000000000000:role/test","awsRegion":"us-east-1","eventSourceARN":"{STREAM_ARN}"}}"#
        );
    }
}

/// The payload of an invocation with these records.
pub fn payload<'r>(records: impl IntoIterator<Item = &'r Record>) -> String {
    let mut json = r#"{"Records":["#.to_owned();
    for (index, record) in records.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        record.write_json(&mut json);
    }
    json.push_str("]}");
    json
}

/// Longer than any test takes, so that only a call that never answers ends an invocation.
pub const LONG: Duration = Duration::from_secs(30);

/// An invocation with this payload that has all the time it needs.
pub fn invocation(payload: &str) -> Invocation<'_> {
    invocation_within(payload, LONG)
}

/// An invocation with this payload that has this much time from now.
pub fn invocation_within(payload: &str, time: Duration) -> Invocation<'_> {
    Invocation {
        payload,
        request_id: "test",
        deadline: Instant::now() + time,
    }
}

/// What was put on a stream, as records that arrived at one moment.
pub fn records_of(stream: &MemoryStream, arrived_at: Timestamp) -> Vec<Record> {
    let stored = stream.records().into_iter();
    stored
        .map(|stored| Record {
            shard_id: stored.shard_id,
            sequence_number: stored.sequence_number,
            arrived_at,
            partition_key: stored.record.partition_key,
            data: stored.record.data,
        })
        .collect()
}
