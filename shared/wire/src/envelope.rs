//! The event that Lambda hands to a function that consumes a Kinesis stream.
//!
//! Its shape: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html#services-kinesis-event-example>.

use std::borrow::Cow;

use serde::Deserialize;
use usher_domain::json::Text;
use usher_domain::sequence_number::{SequenceNumber, SequenceNumberError};
use usher_domain::time::Timestamp;

use crate::cursor::Cursor;

/// A Lambda event with Kinesis records, borrowed from its payload.
#[derive(Debug)]
pub struct Envelope<'p> {
    /// The records, in shard order.
    pub records: Vec<EnvelopeRecord<'p>>,
}

/// One Kinesis record, its data still base64.
#[derive(Debug)]
pub struct EnvelopeRecord<'p> {
    /// The ARN of the stream, whichever of its consumers Lambda names: the guard of a profile goes by it (P2), and a
    /// consumer that is made anew has another ARN.
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
    /// A part of a record's place in the stream is longer than AWS makes any.
    #[error("record {index} has a {part} of {bytes} bytes, at most {PLACE_BYTES_MAX} are read")]
    PlaceTooLong {
        /// Its index in the batch.
        index: usize,
        /// Which part.
        part: &'static str,
        /// How long it is.
        bytes: usize,
    },
}

/// Bytes at most of each part of a record's place. AWS allows an ARN 2,048 characters, a partition key 256, a shard id 128
/// and a sequence number 129. What is rejected carries its place along, so that must leave room for the record.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html>
pub const PLACE_BYTES_MAX: usize = 4096;

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
/// Bytes of a record with an event of a few members.
const USUAL_RECORD_BYTES_MIN: usize = 800;

impl<'p> Envelope<'p> {
    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not a Kinesis batch, or a record's place in the stream can't be told.
    pub fn parse(payload: &'p str) -> Result<Envelope<'p>, EnvelopeError> {
        match parse_usual(payload) {
            Some(records) => Ok(Envelope { records }),
            None => Envelope::parse_any(payload),
        }
    }

    /// The way that knows every shape, for fuzzing to hold the quick way to.
    ///
    /// # Errors
    /// As [`Envelope::parse`].
    #[cfg(feature = "fuzzing")]
    pub fn parse_thoroughly(payload: &'p str) -> Result<Envelope<'p>, EnvelopeError> {
        Envelope::parse_any(payload)
    }

    fn parse_any(payload: &'p str) -> Result<Envelope<'p>, EnvelopeError> {
        let raw: RawEnvelope<'p> = serde_json::from_str(payload).map_err(EnvelopeError::NotKinesis)?;
        let records = raw
            .records
            .into_iter()
            .enumerate()
            .map(|(index, record)| record.checked(index));
        Ok(Envelope {
            records: records.collect::<Result<_, _>>()?,
        })
    }
}

impl<'p> RawRecord<'p> {
    fn checked(self, index: usize) -> Result<EnvelopeRecord<'p>, EnvelopeError> {
        let sequence_number_text = self.kinesis.sequence_number.0;
        for (part, text) in [
            ("stream ARN", &self.event_source_arn.0),
            ("eventID", &self.event_id.0),
            ("partition key", &self.kinesis.partition_key.0),
            ("sequence number", &sequence_number_text),
        ] {
            if text.len() > PLACE_BYTES_MAX {
                let bytes = text.len();
                return Err(EnvelopeError::PlaceTooLong { index, part, bytes });
            }
        }
        Ok(EnvelopeRecord {
            stream_arn: stream_arn(self.event_source_arn.0),
            shard_id: shard_id(self.event_id.0).map_err(|event_id| EnvelopeError::EventId {
                index,
                event_id: event_id.into_owned(),
            })?,
            partition_key: self.kinesis.partition_key.0,
            sequence_number: sequence_number_text
                .parse()
                .map_err(|source| EnvelopeError::SequenceNumber { index, source })?,
            sequence_number_text,
            arrived_at: Timestamp::from_epoch_ms((self.kinesis.arrived_at_s * MS_PER_SECOND).round() as i64),
            data: self.kinesis.data.0,
        })
    }
}

/// Reads an envelope of the usual shape; nothing where it is wrong or too odd for this.
fn parse_usual(payload: &str) -> Option<Vec<EnvelopeRecord<'_>>> {
    let mut cursor = Cursor::new(payload);
    let mut records = None;
    cursor.object(|cursor, name| {
        if name != "Records" || records.is_some() {
            return None;
        }
        // A record is hardly ever smaller, so this is nearly always enough.
        let mut list = Vec::with_capacity(payload.len() / USUAL_RECORD_BYTES_MIN);
        let mut repeated = Repeated::default();
        cursor.expect(b'[')?;
        if !cursor.take(b']') {
            loop {
                list.push(record(cursor, &mut repeated)?.checked(list.len()).ok()?);
                if !cursor.take(b',') {
                    cursor.expect(b']')?;
                    break;
                }
            }
        }
        records = Some(list);
        Some(())
    })?;
    cursor.end()?;
    records
}

/// What the records of a batch have in common, as it was in the first of them: comparing is quicker than reading.
#[derive(Default)]
struct Repeated<'p> {
    /// Members of a record and of its `kinesis` part, by their place, each as `"name":"value"`.
    of_record: Vec<Option<&'p str>>,
    of_kinesis: Vec<Option<&'p str>>,
    event_source_arn: Option<Text<'p>>,
}

/// A record of the usual shape: every member once.
fn record<'p>(cursor: &mut Cursor<'p>, repeated: &mut Repeated<'p>) -> Option<RawRecord<'p>> {
    let (mut event_id, mut kinesis) = (None, None);
    let Repeated {
        of_record,
        of_kinesis,
        event_source_arn,
    } = repeated;
    let mut sources = 0;
    cursor.object_like(of_record, |cursor, name| match name {
        "eventID" => once(&mut event_id, Text(cursor.string()?)).map(|()| false),
        "kinesis" => once(&mut kinesis, raw_kinesis(cursor, of_kinesis)?).map(|()| false),
        "eventSourceARN" => {
            sources += 1;
            *event_source_arn = Some(Text(cursor.string()?));
            // What is repeated never comes here again, so there must be but one.
            (sources == 1).then_some(true)
        }
        _ => skip(cursor),
    })?;
    Some(RawRecord {
        event_id: event_id?,
        event_source_arn: event_source_arn.clone()?,
        kinesis: kinesis?,
    })
}

fn raw_kinesis<'p>(cursor: &mut Cursor<'p>, repeated: &mut Vec<Option<&'p str>>) -> Option<RawKinesis<'p>> {
    let (mut partition_key, mut sequence_number, mut data, mut arrived_at_s) = (None, None, None, None);
    cursor.object_like(repeated, |cursor, name| {
        match name {
            "partitionKey" => once(&mut partition_key, Text(cursor.string()?))?,
            "sequenceNumber" => once(&mut sequence_number, Text(cursor.string()?))?,
            "data" => once(&mut data, Text(cursor.string()?))?,
            "approximateArrivalTimestamp" => once(&mut arrived_at_s, seconds(cursor)?)?,
            _ => return skip(cursor),
        }
        Some(false)
    })?;
    Some(RawKinesis {
        partition_key: partition_key?,
        sequence_number: sequence_number?,
        data: data?,
        arrived_at_s: arrived_at_s?,
    })
}

/// Seconds as AWS writes them: digits with at most one point among them.
fn seconds(cursor: &mut Cursor<'_>) -> Option<f64> {
    let text = cursor.number()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let right = is_digits(whole) && is_digits(fraction) && !(whole.len() > 1 && whole.starts_with('0'));
    if right { text.parse().ok() } else { None }
}

/// Sets what must not be set yet: of a member that is there twice, `serde_json` says what it thinks of it.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Goes past a value that nobody reads; whether it is one that repeats.
fn skip(cursor: &mut Cursor<'_>) -> Option<bool> {
    if cursor.peek()? == b'"' {
        cursor.string().map(|_| true)
    } else {
        cursor.raw().map(|_| false)
    }
}

/// The stream's ARN in the ARN of an event source: a stream's, or `STREAM_ARN/consumer/NAME:CREATED`.
fn stream_arn(event_source_arn: Cow<'_, str>) -> Cow<'_, str> {
    const CONSUMER: &str = "/consumer/";
    match (event_source_arn.find(CONSUMER), event_source_arn) {
        (None, arn) => arn,
        (Some(end), Cow::Borrowed(arn)) => Cow::Borrowed(&arn[..end]),
        (Some(end), Cow::Owned(arn)) => Cow::Owned(arn[..end].to_owned()),
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
    fn p2_a_consumer_stands_for_its_stream() {
        let stream = "arn:aws:kinesis:us-east-2:123456789012:stream/lambda-stream";
        for source in [
            stream.to_owned(),
            format!("{stream}/consumer/profile-writer:1545084650"),
        ] {
            let payload = EXAMPLE.replace(stream, &source);
            let envelope = Envelope::parse(&payload).expect("a Kinesis event");
            assert_eq!(envelope.records[0].stream_arn, stream, "{source}");
        }
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
        for part in [
            "stream/lambda",
            r#":"shardId"#,
            r#"partitionKey":""#,
            r#"sequenceNumber":""#,
        ] {
            let long = EXAMPLE.replace(part, &format!("{part}{}", "0".repeat(PLACE_BYTES_MAX)));
            let error = Envelope::parse(&long).expect_err(part);
            assert!(matches!(error, EnvelopeError::PlaceTooLong { .. }), "{part}: {error}");
        }
        assert!(
            Envelope::parse(r#"{"Records":[]}"#)
                .expect("an empty batch")
                .records
                .is_empty()
        );
    }
}
