//! Kinesis records as Lambda hands them over.

use std::time::Duration;

use serde_json::{Value, json};
use usher_domain::time::Timestamp;
use usher_pipeline::invocation::Invocation;
use usher_pipeline::memory::MemoryStream;

/// The ARN of the stream that every test record comes from.
pub const STREAM_ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/interactions";

/// One record of a shard.
#[derive(Clone, Debug)]
pub struct Record {
    /// Such as `shardId-000000000000`.
    pub shard_id: String,
    /// The number within the shard.
    pub number: u64,
    /// When Kinesis took it.
    pub arrived_at: Timestamp,
    /// The producer's partition key.
    pub partition_key: String,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Record {
    /// A sequence number of the length that AWS writes.
    pub fn sequence_number(&self) -> String {
        format!("4959033827149025660855969253836157109592157598{:010}", self.number)
    }

    fn to_json(&self) -> Value {
        let sequence_number = self.sequence_number();
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": self.partition_key,
                "sequenceNumber": sequence_number,
                "data": base64_simd::STANDARD.encode_to_string(&self.data),
                "approximateArrivalTimestamp": self.arrived_at.epoch_ms() as f64 / 1000.0,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("{}:{sequence_number}", self.shard_id),
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": "arn:aws:iam::000000000000:role/test",
            "awsRegion": "us-east-1",
            "eventSourceARN": STREAM_ARN,
        })
    }
}

/// The payload of an invocation with these records.
pub fn payload<'r>(records: impl IntoIterator<Item = &'r Record>) -> String {
    let records: Vec<Value> = records.into_iter().map(Record::to_json).collect();
    json!({ "Records": records }).to_string()
}

/// Longer than any test takes, so that only a call that never answers ends an invocation.
const INVOCATION_TIME: Duration = Duration::from_secs(30);

/// An invocation with this payload.
pub fn invocation(payload: &str) -> Invocation<'_> {
    Invocation {
        payload,
        request_id: "test",
        deadline: tokio::time::Instant::now() + INVOCATION_TIME,
    }
}

/// What was put on a stream, as records that arrived at one moment.
pub fn records_of(stream: &MemoryStream, arrived_at: Timestamp) -> Vec<Record> {
    let stored = stream.records().into_iter().enumerate();
    stored
        .map(|(index, stored)| Record {
            shard_id: stored.shard_id,
            number: index as u64,
            arrived_at,
            partition_key: stored.record.partition_key,
            data: stored.record.data,
        })
        .collect()
}
