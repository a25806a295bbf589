//! What AWS writes to a failure destination when it gives up a batch.
//!
//! A queue or a topic gets where the records are; a bucket gets the same with the records, as `payload`: the event that the
//! function was invoked with, as a JSON string.
//! <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use usher_domain::sequence_number::SequenceNumber;
use usher_domain::time::Timestamp;
use usher_wire::envelope::Envelope;

/// How deep one message may be wrapped in another: a queue's message that holds a topic's.
const WRAPPED_MAX: usize = 4;

/// A batch that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedBatch {
    /// The stream.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// Its first record.
    pub start: SequenceNumber,
    /// The same as it was written, which is how the stream knows it.
    pub start_text: String,
    /// Its last record.
    pub end: SequenceNumber,
    /// How many records it has.
    pub batch_size: u64,
    /// The function that failed.
    pub function_arn: String,
    /// Such as `RetryAttemptsExhausted`.
    pub condition: String,
    /// The records, if the destination got them.
    pub records: Option<Vec<FailedRecord>>,
}

/// A record of such a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRecord {
    /// The stream.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// The producer's partition key.
    pub partition_key: String,
    /// When Kinesis took it.
    pub arrived_at: Timestamp,
    /// Its bytes.
    pub data: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InvocationRecord {
    #[serde(default)]
    request_context: RequestContext,
    #[serde(rename = "KinesisBatchInfo")]
    batch_info: BatchInfo,
    #[serde(default)]
    payload: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestContext {
    function_arn: String,
    condition: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo {
    shard_id: String,
    start_sequence_number: String,
    end_sequence_number: String,
    batch_size: u64,
    stream_arn: String,
}

/// The failed batches in a text: one JSON record, or several one after the other; also as the AWS CLI prints messages of
/// a queue, and as a topic wraps them.
///
/// # Errors
/// When it is something else.
pub fn read(text: &str) -> Result<Vec<FailedBatch>> {
    let mut batches = Vec::new();
    for (index, value) in serde_json::Deserializer::from_str(text)
        .into_iter::<Value>()
        .enumerate()
    {
        let which = || format!("JSON value {} of it is no record of a failure destination", index + 1);
        unwrap(value.with_context(which)?, 0, &mut batches).with_context(which)?;
    }
    if batches.is_empty() {
        bail!("it holds no record of a failure destination");
    }
    Ok(batches)
}

fn unwrap(mut value: Value, depth: usize, batches: &mut Vec<FailedBatch>) -> Result<()> {
    if value.get("KinesisBatchInfo").is_some() {
        batches.push(batch_of(value)?);
        return Ok(());
    }
    if value.get("DDBStreamBatchInfo").is_some() {
        bail!("it is about a DynamoDB stream, which Usher does not read");
    }
    if depth < WRAPPED_MAX {
        if let Some(messages) = value.get_mut("Messages").and_then(Value::as_array_mut) {
            return messages
                .drain(..)
                .try_for_each(|message| unwrap(message, depth + 1, batches));
        }
        // A message of a queue, or of a topic.
        let inner = value
            .get("Body")
            .or_else(|| value.get("Message"))
            .and_then(Value::as_str);
        if let Some(inner) = inner {
            let inner = serde_json::from_str(inner).context("the message is not JSON")?;
            return unwrap(inner, depth + 1, batches);
        }
    }
    bail!("it has no `KinesisBatchInfo`");
}

fn batch_of(value: Value) -> Result<FailedBatch> {
    let record: InvocationRecord = serde_json::from_value(value)?;
    let info = record.batch_info;
    let records = record.payload.map(|payload| match payload {
        Value::String(text) => records_of(&text),
        other => records_of(&other.to_string()),
    });
    let number = |name: &str, text: &str| -> Result<SequenceNumber> {
        text.parse().with_context(|| format!("its {name} can't be read"))
    };
    Ok(FailedBatch {
        start: number("startSequenceNumber", &info.start_sequence_number)?,
        start_text: info.start_sequence_number,
        end: number("endSequenceNumber", &info.end_sequence_number)?,
        // A consumer stands for its stream.
        stream_arn: info
            .stream_arn
            .split("/consumer/")
            .next()
            .unwrap_or_default()
            .to_owned(),
        shard_id: info.shard_id,
        batch_size: info.batch_size,
        function_arn: record.request_context.function_arn,
        condition: record.request_context.condition,
        records: records.transpose().context("its `payload` can't be read")?,
    })
}

fn records_of(payload: &str) -> Result<Vec<FailedRecord>> {
    let envelope = Envelope::parse(payload)?;
    let records = envelope.records.into_iter().map(|record| {
        let data = base64_simd::STANDARD.decode_to_vec(record.data.as_bytes());
        Ok(FailedRecord {
            data: data.with_context(|| format!("the data of {} is not base64", record.sequence_number_text))?,
            stream_arn: record.stream_arn.into_owned(),
            shard_id: record.shard_id.into_owned(),
            sequence_number: record.sequence_number,
            partition_key: record.partition_key.into_owned(),
            arrived_at: record.arrived_at,
        })
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// From the documentation's example.
    fn documented() -> Value {
        json!({
            "requestContext": {
                "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
                "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 1
            },
            "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
            "version": "1.0",
            "timestamp": "2019-11-14T00:38:06.021Z",
            "KinesisBatchInfo": {
                "shardId": "shardId-000000000001",
                "startSequenceNumber": "49601189658422359378836298521827638475320189012309704722",
                "endSequenceNumber": "49601189658422359378836298522902373528957594348623495186",
                "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
                "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
                "batchSize": 500,
                "streamArn": "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
            }
        })
    }

    /// The same as a bucket gets it.
    fn with_payload() -> Value {
        let payload = json!({ "Records": [{
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "ann", "data": "Yg==", "approximateArrivalTimestamp": 1545084650.987,
                "sequenceNumber": "49601189658422359378836298521827638475320189012309704722"
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record", "awsRegion": "us-east-2",
            "eventID": "shardId-000000000001:49601189658422359378836298521827638475320189012309704722",
            "eventSourceARN": "arn:aws:kinesis:us-east-2:123456789012:stream/mystream/consumer/c:1"
        }] });
        let mut record = documented();
        record["payload"] = Value::from(payload.to_string());
        record
    }

    #[test]
    fn both_documented_forms_are_read() {
        let batches = read(&documented().to_string()).expect("the documented form");
        let batch = &batches[0];
        assert_eq!(batch.shard_id, "shardId-000000000001");
        assert_eq!(
            (batch.batch_size, batch.condition.as_str()),
            (500, "RetryAttemptsExhausted")
        );
        assert!(batch.start < batch.end && batch.records.is_none());

        let batches = read(&with_payload().to_string()).expect("the bucket's form");
        let records = batches[0].records.as_ref().expect("the records");
        assert_eq!(
            (records[0].partition_key.as_str(), records[0].data.as_slice()),
            ("ann", &b"b"[..])
        );
        assert_eq!(
            records[0].stream_arn, batches[0].stream_arn,
            "a consumer stands for its stream"
        );
    }

    #[test]
    fn records_may_be_wrapped_in_messages_or_follow_one_another() {
        let message = json!({ "MessageId": "1", "ReceiptHandle": "r", "Body": documented().to_string() });
        let notification = json!({ "Type": "Notification", "Message": documented().to_string() });
        for (text, count) in [
            (format!("{}\n{}\n", documented(), with_payload()), 2),
            (serde_json::to_string_pretty(&documented()).expect("json"), 1),
            (json!({ "Messages": [message, message] }).to_string(), 2),
            (json!({ "Body": notification.to_string() }).to_string(), 1),
        ] {
            assert_eq!(read(&text).expect("readable").len(), count, "{text}");
        }
    }

    #[test]
    fn what_is_no_such_record_is_told() {
        let of_table = json!({ "DDBStreamBatchInfo": { "shardId": "s" } });
        let mut no_number = documented();
        no_number["KinesisBatchInfo"]["startSequenceNumber"] = Value::from("first");
        let mut no_event = documented();
        no_event["payload"] = Value::from("{}");
        for (text, why) in [
            (String::new(), "holds no record"),
            ("{}".to_owned(), "no `KinesisBatchInfo`"),
            ("not json".to_owned(), "JSON value 1"),
            (format!("{}\n{{\"a\":1}}", documented()), "JSON value 2"),
            (of_table.to_string(), "DynamoDB stream"),
            (no_number.to_string(), "startSequenceNumber"),
            (no_event.to_string(), "`payload`"),
        ] {
            let error = format!("{:#}", read(&text).expect_err(why));
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
