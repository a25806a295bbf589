//! The Lambda event: records written as AWS writes them, cut at the batch size and at the payload limit.

use std::ops::Range;
use std::time::Instant;

use axum::body::Bytes;

use crate::kinesis::{SequenceNumber, TailRecord};

const HEAD: &[u8] = b"{\"Records\":[";
const TAIL: &[u8] = b"]}";

/// What is the same in every record of a shard's events.
pub(super) struct Envelope {
    /// From after the arrival timestamp to within `eventID`.
    before_id: String,
    /// From after `eventID` to the end.
    after_id: String,
}

impl Envelope {
    pub fn new(shard_id: &str, region: &str, role_arn: &str, event_source_arn: &str) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Self {
            before_id: format!("}},\"eventSource\":\"aws:kinesis\",\"eventVersion\":\"1.0\",\"eventID\":\"{shard_id}:"),
            after_id: format!(
                "\",\"eventName\":\"aws:kinesis:record\",\"invokeIdentityArn\":{},\"awsRegion\":{},\"eventSourceARN\":{}}}",
                quoted(role_arn),
                quoted(region),
                quoted(event_source_arn)
            ),
        }
    }
}

/// A record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchRecord {
    pub sequence_number: SequenceNumber,
    /// As Kinesis gives it.
    pub sequence_text: String,
    pub put: Option<Instant>,
    /// When it was put; to the second where `put` is forgotten.
    pub came: Instant,
    /// What functions see as arrival, in milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// Whether it was delivered before and is behind the checkpoint: an overlap.
    pub is_repeat: bool,
    /// Where it begins in the payload.
    start: usize,
}

impl BatchRecord {
    /// A record that is in no batch.
    pub fn alone(record: &TailRecord) -> Self {
        Self {
            sequence_number: record.sequence_number,
            sequence_text: record.sequence_text().to_owned(),
            put: record.put,
            came: record.came,
            arrival_ms: record.arrival_ms,
            is_repeat: false,
            start: 0,
        }
    }
}

/// Records in stream order and the event that carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub payload: Bytes,
    pub records: Vec<BatchRecord>,
}

impl Batch {
    pub fn empty() -> Self {
        Self {
            payload: Bytes::from([HEAD, TAIL].concat()),
            records: Vec::new(),
        }
    }

    /// The batch without its first `from` records.
    pub fn starting_at(&self, from: usize) -> Self {
        self.part(from..self.records.len())
    }

    /// The batch of some of its records.
    pub fn part(&self, range: Range<usize>) -> Self {
        let Some(first) = self.records.get(range.start).filter(|_| !range.is_empty()) else {
            return Self::empty();
        };
        let end = match self.records.get(range.end) {
            // Without the comma before it.
            Some(next) => next.start - 1,
            None => self.payload.len() - TAIL.len(),
        };
        let shift = first.start - HEAD.len();
        let payload = [HEAD, &self.payload[first.start..end], TAIL].concat();
        let records = self.records[range]
            .iter()
            .map(|record| BatchRecord {
                start: record.start - shift,
                ..record.clone()
            })
            .collect();
        Self {
            payload: payload.into(),
            records,
        }
    }

    /// This batch and the records of the next behind it.
    pub fn followed_by(&self, next: &Batch) -> Self {
        if self.records.is_empty() || next.records.is_empty() {
            return if self.records.is_empty() {
                next.clone()
            } else {
                self.clone()
            };
        }
        let own = &self.payload[..self.payload.len() - TAIL.len()];
        let payload = [own, b",", &next.payload[HEAD.len()..]].concat();
        let shift = own.len() + 1 - HEAD.len();
        let mut records = self.records.clone();
        records.extend(next.records.iter().map(|record| BatchRecord {
            start: record.start + shift,
            ..record.clone()
        }));
        Self {
            payload: payload.into(),
            records,
        }
    }

    /// The same records, marked as delivered before.
    pub fn into_repeats(mut self) -> Self {
        for record in &mut self.records {
            record.is_repeat = true;
        }
        self
    }

    /// The event as text.
    pub fn event_text(&self) -> &str {
        // Written from JSON strings and base64, so it is UTF-8.
        std::str::from_utf8(&self.payload).unwrap_or_default()
    }

    pub fn numbers(&self) -> Vec<SequenceNumber> {
        self.records.iter().map(|record| record.sequence_number).collect()
    }
}

/// What became of a record that was offered to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is in.
    Taken,
    /// The batch has no room for it; it comes first in the next.
    Full,
    /// No batch has room for it.
    Oversized,
}

/// A batch being filled.
pub(super) struct BatchBuilder {
    payload: Vec<u8>,
    records: Vec<BatchRecord>,
    records_max: usize,
    bytes_max: usize,
}

impl BatchBuilder {
    pub fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            payload: HEAD.to_vec(),
            records: Vec::new(),
            records_max,
            bytes_max,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many more records the batch size allows.
    pub fn room(&self) -> usize {
        self.records_max - self.records.len()
    }

    /// Adds the record if the event stays within its limits, counted exactly.
    pub fn offer(&mut self, envelope: &Envelope, record: &TailRecord) -> Offer {
        if self.room() == 0 {
            return Offer::Full;
        }
        let before = self.payload.len();
        if !self.is_empty() {
            self.payload.push(b',');
        }
        let start = self.payload.len();
        write_record(&mut self.payload, envelope, record);
        if self.payload.len() + TAIL.len() > self.bytes_max {
            self.payload.truncate(before);
            return if self.is_empty() { Offer::Oversized } else { Offer::Full };
        }
        self.records.push(BatchRecord {
            start,
            ..BatchRecord::alone(record)
        });
        Offer::Taken
    }

    pub fn finish(mut self) -> Batch {
        self.payload.extend_from_slice(TAIL);
        Batch {
            payload: self.payload.into(),
            records: self.records,
        }
    }
}

fn write_record(payload: &mut Vec<u8>, envelope: &Envelope, record: &TailRecord) {
    let sequence = record.sequence_text().as_bytes();
    payload.extend_from_slice(b"{\"kinesis\":{\"kinesisSchemaVersion\":\"1.0\",\"partitionKey\":");
    // Writing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *payload, &record.stored.partition_key);
    payload.extend_from_slice(b",\"sequenceNumber\":\"");
    payload.extend_from_slice(sequence);
    payload.extend_from_slice(b"\",\"data\":\"");
    payload.extend_from_slice(record.stored.data.as_bytes());
    payload.extend_from_slice(b"\",\"approximateArrivalTimestamp\":");
    write_seconds(payload, record.arrival_ms);
    payload.extend_from_slice(envelope.before_id.as_bytes());
    payload.extend_from_slice(sequence);
    payload.extend_from_slice(envelope.after_id.as_bytes());
}

/// Seconds with three decimals, as in `1545084650.987`.
fn write_seconds(payload: &mut Vec<u8>, milliseconds: i64) {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let magnitude = milliseconds.unsigned_abs();
    payload.extend_from_slice(format!("{sign}{}.{:03}", magnitude / 1_000, magnitude % 1_000).as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{BatchBuilder, Envelope, Offer, write_seconds};
    use crate::kinesis::TailRecord;

    fn envelope() -> Envelope {
        Envelope::new(
            "shardId-000000000006",
            "us-east-2",
            "arn:aws:iam::123456789012:role/lambda-role",
            "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream",
        )
    }

    fn record(number: u32, data: &str) -> TailRecord {
        TailRecord::for_test(
            &format!("4959033827149025660855969253836157109592157598913658{number:04}"),
            "key \"1\"",
            data,
            1_545_084_650_987,
        )
    }

    #[test]
    fn an_event_has_exactly_the_shape_that_aws_sends() {
        let mut builder = BatchBuilder::new(10, 10_000);
        assert_eq!(builder.offer(&envelope(), &record(1, "SGVsbG8=")), Offer::Taken);
        let event: serde_json::Value = serde_json::from_slice(&builder.finish().payload).unwrap();
        assert_eq!(
            event,
            json!({ "Records": [{
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": "key \"1\"",
                    "sequenceNumber": "49590338271490256608559692538361571095921575989136580001",
                    "data": "SGVsbG8=",
                    "approximateArrivalTimestamp": 1_545_084_650.987
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": "shardId-000000000006:49590338271490256608559692538361571095921575989136580001",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/lambda-role",
                "awsRegion": "us-east-2",
                "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"
            }]})
        );
    }

    #[test]
    fn a_batch_is_cut_at_its_size_and_at_the_payload_limit_to_the_byte() {
        let one = {
            let mut builder = BatchBuilder::new(10, 10_000);
            builder.offer(&envelope(), &record(1, "AAAA"));
            builder.finish().payload.len()
        };
        let frame = super::HEAD.len() + super::TAIL.len();
        let two = 2 * (one - frame) + 1 + frame;
        // (records allowed, bytes allowed, what becomes of three records)
        let cases = [
            (10, 10_000, [Offer::Taken, Offer::Taken, Offer::Taken]),
            (2, 10_000, [Offer::Taken, Offer::Taken, Offer::Full]),
            (10, two, [Offer::Taken, Offer::Taken, Offer::Full]),
            (10, two - 1, [Offer::Taken, Offer::Full, Offer::Full]),
            (10, one, [Offer::Taken, Offer::Full, Offer::Full]),
            (10, one - 1, [Offer::Oversized, Offer::Oversized, Offer::Oversized]),
        ];
        for (records_max, bytes_max, expected) in cases {
            let mut builder = BatchBuilder::new(records_max, bytes_max);
            let offers = [1, 2, 3].map(|number| builder.offer(&envelope(), &record(number, "AAAA")));
            assert_eq!(offers, expected, "{records_max} records, {bytes_max} bytes");
            assert!(builder.finish().payload.len() <= bytes_max.max(frame));
        }
    }

    #[test]
    fn a_part_is_the_event_of_its_records_and_two_parts_make_the_whole() {
        let records = [1, 2, 3, 4].map(|number| record(number, "AAAA"));
        let batch = |range: std::ops::Range<usize>| {
            let mut builder = BatchBuilder::new(10, 10_000);
            for record in &records[range] {
                builder.offer(&envelope(), record);
            }
            builder.finish()
        };
        let whole = batch(0..4);
        for from in 0..=4 {
            assert_eq!(whole.starting_at(from), batch(from..4), "from {from}");
            for to in from..=4 {
                assert_eq!(whole.part(from..to), batch(from..to), "{from} to {to}");
            }
            assert_eq!(whole.part(0..from).followed_by(&whole.starting_at(from)), whole);
        }
        assert_eq!(whole.starting_at(1).starting_at(2), whole.starting_at(3));
    }

    #[test]
    fn arrival_is_in_seconds_with_milliseconds() {
        for (milliseconds, text) in [
            (1_545_084_650_987, "1545084650.987"),
            (1_000, "1.000"),
            (5, "0.005"),
            (0, "0.000"),
            (-1_500, "-1.500"),
        ] {
            let mut written = Vec::new();
            write_seconds(&mut written, milliseconds);
            assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }
}
