//! The event that Lambda hands to a function that consumes a Kinesis stream.
//!
//! Its shape: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html#services-kinesis-event-example>.

use std::borrow::Cow;

use serde::Deserialize;
use usher_domain::json::Text;
use usher_domain::sequence_number::{SequenceNumber, SequenceNumberError};
use usher_domain::time::Timestamp;

/// A Lambda event with Kinesis records, borrowed from its payload.
#[derive(Debug)]
pub struct Envelope<'p> {
    /// The records, in shard order.
    pub records: Vec<EnvelopeRecord<'p>>,
}

/// One Kinesis record, its data still base64.
#[derive(Debug)]
pub struct EnvelopeRecord<'p> {
    /// The ARN of the stream.
    pub stream_arn: Cow<'p, str>,
    /// The shard that it came from.
    pub shard_id: Cow<'p, str>,
    /// The producer's partition key.
    pub partition_key: Cow<'p, str>,
    /// The sequence number as AWS wrote it: what a partial batch response must repeat.
    pub sequence_number_text: Cow<'p, str>,
    /// The sequence number as a number.
    pub sequence_number: SequenceNumber,
    /// When Kinesis took it.
    pub arrived_at: Timestamp,
    /// The data, in base64.
    pub data: Cow<'p, str>,
}

/// Why a payload is not a Kinesis batch. The whole invocation fails: there is no record to name.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not the JSON of a Lambda event with Kinesis records.
    #[error(
        "the payload is not a Kinesis event: expected {{\"Records\":[{{\"eventID\":…,\"kinesis\":{{…}}}}]}}; is the \
         function invoked by a Kinesis event source mapping?"
    )]
    NotKinesis(#[source] serde_json::Error),
    /// A record has a sequence number that is none.
    #[error("record {index} has an unusable sequence number")]
    SequenceNumber {
        /// Its index in the batch.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: SequenceNumberError,
    },
    /// A record's `eventID` does not start with a shard id.
    #[error("record {index} has the eventID `{event_id}`: expected SHARD_ID:SEQUENCE_NUMBER")]
    EventId {
        /// Its index in the batch.
        index: usize,
        /// The id.
        event_id: String,
    },
}

#[derive(Deserialize)]
struct RawEnvelope<'p> {
    #[serde(rename = "Records", borrow)]
    records: Vec<RawRecord<'p>>,
}

#[derive(Deserialize)]
struct RawRecord<'p> {
    #[serde(rename = "eventID", borrow)]
    event_id: Text<'p>,
    #[serde(rename = "eventSourceARN", borrow)]
    event_source_arn: Text<'p>,
    #[serde(borrow)]
    kinesis: RawKinesis<'p>,
}

#[derive(Deserialize)]
struct RawKinesis<'p> {
    #[serde(rename = "partitionKey", borrow)]
    partition_key: Text<'p>,
    #[serde(rename = "sequenceNumber", borrow)]
    sequence_number: Text<'p>,
    #[serde(borrow)]
    data: Text<'p>,
    /// Seconds since 1970, with a fraction.
    #[serde(rename = "approximateArrivalTimestamp")]
    arrived_at_s: f64,
}

const MS_PER_SECOND: f64 = 1000.0;

impl<'p> Envelope<'p> {
    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not a Kinesis batch, or a record's place in the stream can't be told.
    pub fn parse(payload: &'p str) -> Result<Envelope<'p>, EnvelopeError> {
        let raw: RawEnvelope<'p> = serde_json::from_str(payload).map_err(EnvelopeError::NotKinesis)?;
        let mut records = Vec::with_capacity(raw.records.len());
        for (index, record) in raw.records.into_iter().enumerate() {
            let sequence_number = record
                .kinesis
                .sequence_number
                .0
                .parse()
                .map_err(|source| EnvelopeError::SequenceNumber { index, source })?;
            records.push(EnvelopeRecord {
                stream_arn: record.event_source_arn.0,
                shard_id: shard_id(record.event_id.0).map_err(|event_id| EnvelopeError::EventId {
                    index,
                    event_id: event_id.into_owned(),
                })?,
                partition_key: record.kinesis.partition_key.0,
                sequence_number_text: record.kinesis.sequence_number.0,
                sequence_number,
                arrived_at: Timestamp::from_epoch_ms((record.kinesis.arrived_at_s * MS_PER_SECOND).round() as i64),
                data: record.kinesis.data.0,
            });
        }
        Ok(Envelope { records })
    }
}

/// The shard id at the front of an `eventID`; an error gives the id back.
fn shard_id(event_id: Cow<'_, str>) -> Result<Cow<'_, str>, Cow<'_, str>> {
    match event_id {
        Cow::Borrowed(text) => match text.split_once(':') {
            Some((shard, _)) if !shard.is_empty() => Ok(Cow::Borrowed(shard)),
            _ => Err(event_id),
        },
        Cow::Owned(text) => match text.split_once(':') {
            Some((shard, _)) if !shard.is_empty() => Ok(Cow::Owned(shard.to_owned())),
            _ => Err(Cow::Owned(text)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the AWS documentation's example event.
    const EXAMPLE: &str = r#"{"Records":[{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"1",
        "sequenceNumber":"49590338271490256608559692538361571095921575989136588898","data":"SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
        "approximateArrivalTimestamp":1545084650.987},"eventSource":"aws:kinesis","eventVersion":"1.0",
        "eventID":"shardId-000000000006:49590338271490256608559692538361571095921575989136588898",
        "eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::123456789012:role/lambda-role",
        "awsRegion":"us-east-2","eventSourceARN":"arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream"}]}"#;

    #[test]
    fn the_documented_event_is_read() {
        let envelope = Envelope::parse(EXAMPLE).expect("the documented event");
        let record = &envelope.records[0];
        assert_eq!(record.shard_id, "shardId-000000000006");
        assert_eq!(record.arrived_at.epoch_ms(), 1_545_084_650_987);
        assert_eq!(record.sequence_number.to_string(), record.sequence_number_text);
        assert!(matches!(record.data, Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_no_kinesis_event_is_an_error_that_says_what_is_expected() {
        for payload in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"Records":[{"s3":{}}]}"#,
            r#"{"Records":[{"eventID":"a:1"}]}"#,
        ] {
            let error = Envelope::parse(payload).expect_err(payload);
            assert!(error.to_string().contains("expected"), "{error}");
        }
        for (what, replaced, with) in [
            (
                "sequence number",
                r#""sequenceNumber":"4959"#,
                r#""sequenceNumber":"x959"#,
            ),
            ("eventID", r#""eventID":"shardId-000000000006:"#, r#""eventID":""#),
        ] {
            assert!(Envelope::parse(&EXAMPLE.replace(replaced, with)).is_err(), "{what}");
        }
        assert!(
            Envelope::parse(r#"{"Records":[]}"#)
                .expect("an empty batch")
                .records
                .is_empty()
        );
    }
}
