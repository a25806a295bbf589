//! What AWS writes to a failure destination when it gives up a batch, and where it is put locally.
//!
//! A queue and a topic get the *invocation record*: where the records are, not the records. A bucket gets the same with one more
//! member, `payload`, which holds the whole event as a JSON string. Source:
//! <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>.
//!
//! ```json
//! {
//!   "requestContext": {
//!     "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
//!     "functionArn": "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
//!     "condition": "RetryAttemptsExhausted",
//!     "approximateInvokeCount": 1
//!   },
//!   "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
//!   "version": "1.0",
//!   "timestamp": "2019-11-14T00:38:06.021Z",
//!   "KinesisBatchInfo": {
//!     "shardId": "shardId-000000000001",
//!     "startSequenceNumber": "49601189658422359378836298521827638475320189012309704722",
//!     "endSequenceNumber": "49601189658422359378836298522902373528957594348623495186",
//!     "approximateArrivalOfFirstRecord": "2019-11-14T00:38:04.835Z",
//!     "approximateArrivalOfLastRecord": "2019-11-14T00:38:05.580Z",
//!     "batchSize": 500,
//!     "streamArn": "arn:aws:kinesis:us-east-2:123456789012:stream/mystream"
//!   },
//!   "payload": "{\"Records\":[..]}"
//! }
//! ```
//!
//! `condition` is `RetryAttemptsExhausted` (on that page) or `RecordAgeExceeded` (as seen in records that AWS wrote).
//! `responseContext` is absent when the function never saw the batch, and `functionError` when it answered: a partial
//! batch response. `batchSize` counts the records; with filters, those that passed.
//!
//! | Destination | Local file |
//! |---|---|
//! | S3 | `DIR/s3/BUCKET/aws/lambda/MAPPING-UUID/SHARD/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-UUID`: one object, JSON with `payload` |
//! | SQS | `DIR/sqs/QUEUE.jsonl`: one JSON without `payload` a line, in the order of giving up |
//! | SNS | `DIR/sns/TOPIC.jsonl`: as for SQS; the line is the message |
//! | Kafka | nothing is delivered; the error says so |
//!
//! The call returns when the file is on the disk, so a checkpoint that waits for it never passes a record that is in neither
//! place (P1). A crash between the two leaves the batch in both: whoever reads it must bear that, as in AWS.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::template::{FailureDestination, FailureDestinationKind};

use crate::clock::utc;

const RECORD_VERSION: &str = "1.0";
const EXECUTED_VERSION: &str = "$LATEST";
/// Objects being written are below the directory too, so that they can be renamed, but in no bucket.
const UNFINISHED: &str = ".unfinished";
/// AWS says 200 for a function that ran, whatever came of it.
const STATUS_CODE: u16 = 200;
/// A UUID of random bits.
const UUID_VERSION_RANDOM: u8 = 4;

/// Why a batch was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum DiscardCondition {
    /// It failed once more than `MaximumRetryAttempts`.
    RetryAttemptsExhausted,
    /// Its records became older than `MaximumRecordAgeInSeconds`, or than the stream keeps them.
    RecordAgeExceeded,
}

/// How the last invocation of a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastInvocation {
    /// There was none.
    None,
    /// The function answered that items failed, or gave an answer that is none.
    Answered,
    /// It raised an error, ran out of time or crashed.
    FunctionError,
}

/// A batch that is given up: all that its record tells.
#[derive(Debug, Clone)]
pub(crate) struct DiscardedBatch<'batch> {
    /// Id of the last invocation; a new one if there was none.
    pub request_id: &'batch str,
    pub function_arn: &'batch str,
    pub condition: DiscardCondition,
    /// How often the function was invoked with it.
    pub approximate_invoke_count: u32,
    pub last_invocation: LastInvocation,
    /// When it was given up, by the wall clock, in milliseconds since the Unix epoch.
    pub discarded_ms: i64,
    /// The stream, also when the mapping reads a consumer.
    pub stream_arn: &'batch str,
    pub shard_id: &'batch str,
    pub start_sequence_number: &'batch str,
    pub end_sequence_number: &'batch str,
    /// In milliseconds since the Unix epoch.
    pub first_arrival_ms: i64,
    pub last_arrival_ms: i64,
    pub batch_size: usize,
    /// The event that the function got, or would have got: `{"Records":[..]}`.
    pub event: &'batch str,
}

/// Why a given-up batch could not be put where the template says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FailureDestinationError {
    #[error("cannot write the given-up batch to {path}; make room, or make the directory writable", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{arn} is a Kafka topic, to which nothing is delivered locally; use a queue, a topic or a bucket to see given-up batches"
    )]
    NotDelivered { arn: String },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InvocationRecord<'batch> {
    request_context: RequestContext<'batch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_context: Option<ResponseContext>,
    version: &'static str,
    timestamp: String,
    #[serde(rename = "KinesisBatchInfo")]
    batch_info: BatchInfo<'batch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'batch str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext<'batch> {
    request_id: &'batch str,
    function_arn: &'batch str,
    condition: DiscardCondition,
    approximate_invoke_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseContext {
    status_code: u16,
    executed_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_error: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchInfo<'batch> {
    shard_id: &'batch str,
    start_sequence_number: &'batch str,
    end_sequence_number: &'batch str,
    approximate_arrival_of_first_record: String,
    approximate_arrival_of_last_record: String,
    batch_size: usize,
    stream_arn: &'batch str,
}

impl DiscardedBatch<'_> {
    /// The invocation record as JSON on one line: with the event for a bucket, without it for a queue or a topic.
    pub fn to_json(&self, with_payload: bool) -> Vec<u8> {
        let time = |epoch_ms| utc(epoch_ms, "%Y-%m-%dT%H:%M:%S.%3fZ");
        let function_error = (self.last_invocation == LastInvocation::FunctionError).then_some("Unhandled");
        let record = InvocationRecord {
            request_context: RequestContext {
                request_id: self.request_id,
                function_arn: self.function_arn,
                condition: self.condition,
                approximate_invoke_count: self.approximate_invoke_count,
            },
            response_context: (self.last_invocation != LastInvocation::None).then_some(ResponseContext {
                status_code: STATUS_CODE,
                executed_version: EXECUTED_VERSION,
                function_error,
            }),
            version: RECORD_VERSION,
            timestamp: time(self.discarded_ms),
            batch_info: BatchInfo {
                shard_id: self.shard_id,
                start_sequence_number: self.start_sequence_number,
                end_sequence_number: self.end_sequence_number,
                approximate_arrival_of_first_record: time(self.first_arrival_ms),
                approximate_arrival_of_last_record: time(self.last_arrival_ms),
                batch_size: self.batch_size,
                stream_arn: self.stream_arn,
            },
            payload: with_payload.then_some(self.event),
        };
        // Strings and numbers into memory: there is nothing that can fail.
        serde_json::to_vec(&record).unwrap_or_default()
    }

    /// Key of the object in a bucket. `object_id` makes it unique: a random UUID.
    pub fn object_key(&self, mapping_uuid: &str, object_id: &str) -> String {
        let moment = utc(self.discarded_ms, "%Y/%m/%d/%Y-%m-%dT%H.%M.%S");
        format!("aws/lambda/{mapping_uuid}/{}/{moment}-{object_id}", self.shard_id)
    }
}

/// Puts given-up batches into files below a directory. One for all mappings, because two may share a queue.
#[derive(Debug)]
pub(crate) struct FailureDestinationWriter {
    directory: PathBuf,
    /// Held while a line is appended.
    appending: Mutex<()>,
}

impl FailureDestinationWriter {
    /// Writes below `directory`, which is made when the first batch comes.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            appending: Mutex::default(),
        }
    }

    /// Puts the batch where `destination` says, and returns the file when it is on the disk. Blocks for as long.
    ///
    /// # Errors
    /// When the file cannot be written (the batch is not given up then: try again), or the destination is a Kafka topic.
    pub fn write(
        &self,
        destination: &FailureDestination,
        mapping_uuid: &str,
        batch: &DiscardedBatch<'_>,
    ) -> Result<PathBuf, FailureDestinationError> {
        let lines = |service: &str| self.directory.join(service).join(format!("{}.jsonl", destination.name));
        let (path, written) = match destination.kind {
            FailureDestinationKind::Kafka => {
                return Err(FailureDestinationError::NotDelivered {
                    arn: destination.arn.clone(),
                });
            }
            FailureDestinationKind::S3 => {
                let object_id = random_uuid();
                let key = batch.object_key(mapping_uuid, &object_id);
                let path = self.directory.join("s3").join(&destination.name).join(key);
                let unfinished = self.directory.join(UNFINISHED).join(object_id);
                let written = write_object(&path, &unfinished, &batch.to_json(true));
                (path, written)
            }
            FailureDestinationKind::Sqs => {
                let path = lines("sqs");
                let written = self.append(&path, batch);
                (path, written)
            }
            FailureDestinationKind::Sns => {
                let path = lines("sns");
                let written = self.append(&path, batch);
                (path, written)
            }
        };
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(FailureDestinationError::Write { path, source }),
        }
    }

    fn append(&self, path: &Path, batch: &DiscardedBatch<'_>) -> io::Result<()> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        append_line(path, batch.to_json(false))
    }
}

/// An object is there as a whole or not at all: it gets its name when its bytes are on the disk.
fn write_object(path: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = parent_of(path);
    make_directories(directory)?;
    make_directories(parent_of(unfinished))?;
    let mut file = File::create(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(unfinished, path)?;
    File::open(directory)?.sync_all()
}

fn append_line(path: &Path, mut line: Vec<u8>) -> io::Result<()> {
    let directory = parent_of(path);
    make_directories(directory)?;
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    // A crash may have cut the last line short; what comes must not be glued to it.
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
    }
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_all()?;
    if is_new {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes what is missing of a path, each name durable in the directory above it.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = parent_of(directory);
    if above != directory && !above.as_os_str().is_empty() {
        make_directories(above)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if above.as_os_str().is_empty() {
        return Ok(());
    }
    File::open(above)?.sync_all()
}

/// A random UUID, for a request that never was and for an object's key.
pub(crate) fn random_uuid() -> String {
    uuid_text(fastrand::u128(..), UUID_VERSION_RANDOM)
}

/// 128 bits as a UUID of a version: the version's and the variant's six bits are overwritten.
pub(crate) fn uuid_text(bits: u128, version: u8) -> String {
    let versioned = bits & !(0xf << 76) | u128::from(version & 0xf) << 76;
    let bits = versioned & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::{Value, json};

    use super::{
        DiscardCondition, DiscardedBatch, FailureDestinationError, FailureDestinationWriter, LastInvocation,
        random_uuid, uuid_text,
    };
    use crate::template::{FailureDestination, FailureDestinationKind};

    const MAPPING_UUID: &str = "2b733fdc-8ac3-8df5-af3a-1827b3b11284";

    /// A directory that goes with its test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("usher-failure-destination-{}", random_uuid())))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// The batch of the example in <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>.
    fn batch() -> DiscardedBatch<'static> {
        DiscardedBatch {
            request_id: "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
            function_arn: "arn:aws:lambda:us-east-2:123456789012:function:myfunction",
            condition: DiscardCondition::RetryAttemptsExhausted,
            approximate_invoke_count: 1,
            last_invocation: LastInvocation::FunctionError,
            discarded_ms: 1_573_691_886_021,
            stream_arn: "arn:aws:kinesis:us-east-2:123456789012:stream/mystream",
            shard_id: "shardId-000000000001",
            start_sequence_number: "49601189658422359378836298521827638475320189012309704722",
            end_sequence_number: "49601189658422359378836298522902373528957594348623495186",
            first_arrival_ms: 1_573_691_884_835,
            last_arrival_ms: 1_573_691_885_580,
            batch_size: 500,
            event: r#"{"Records":[{"kinesis":{"data":"SGVsbG8="}}]}"#,
        }
    }

    fn record() -> Value {
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

    fn destination(kind: FailureDestinationKind) -> FailureDestination {
        FailureDestination {
            kind,
            arn: "arn".to_owned(),
            name: "failed".to_owned(),
        }
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn files_of(directory: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(files_of(&path));
            } else {
                files.push(path);
            }
        }
        files
    }

    #[test]
    fn a_record_has_exactly_the_shape_that_aws_writes() {
        assert_eq!(parsed(&batch().to_json(false)), record());
        let mut with_payload = record();
        with_payload["payload"] = json!(batch().event);
        assert_eq!(parsed(&batch().to_json(true)), with_payload);

        let answered = DiscardedBatch {
            last_invocation: LastInvocation::Answered,
            ..batch()
        };
        assert_eq!(
            parsed(&answered.to_json(false))["responseContext"],
            json!({ "statusCode": 200, "executedVersion": "$LATEST" })
        );
        // Seen in objects that AWS wrote for a backlog read from TRIM_HORIZON.
        let too_old = DiscardedBatch {
            condition: DiscardCondition::RecordAgeExceeded,
            last_invocation: LastInvocation::None,
            approximate_invoke_count: 0,
            ..batch()
        };
        let too_old = parsed(&too_old.to_json(false));
        assert_eq!(too_old["requestContext"]["condition"], "RecordAgeExceeded");
        assert_eq!(too_old.get("responseContext"), None);
    }

    /// P1: what is given up is on the disk before a checkpoint can pass it.
    #[test]
    fn a_bucket_gets_one_object_a_batch_under_awss_key() {
        let directory = Directory::new();
        let writer = FailureDestinationWriter::new(&directory.0);
        let written: Vec<PathBuf> = (0..2)
            .map(|_| {
                writer
                    .write(&destination(FailureDestinationKind::S3), MAPPING_UUID, &batch())
                    .unwrap()
            })
            .collect();
        assert_ne!(written[0], written[1]);
        let prefix =
            format!("s3/failed/aws/lambda/{MAPPING_UUID}/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-");
        for path in &written {
            let key = path.strip_prefix(&directory.0).unwrap().to_str().unwrap();
            assert_eq!(
                key.strip_prefix(&prefix).map(str::len),
                Some(random_uuid().len()),
                "{key}"
            );
            assert_eq!(parsed(&fs::read(path).unwrap())["payload"], json!(batch().event));
        }
        let mut found = files_of(&directory.0);
        found.sort();
        let mut expected = written;
        expected.sort();
        assert_eq!(found, expected, "nothing unfinished is left");
    }

    #[test]
    fn a_queue_and_a_topic_get_one_line_a_batch_without_its_records() {
        let directory = Directory::new();
        let writer = FailureDestinationWriter::new(&directory.0);
        for (kind, file) in [
            (FailureDestinationKind::Sqs, "sqs/failed.jsonl"),
            (FailureDestinationKind::Sns, "sns/failed.jsonl"),
        ] {
            let path = writer.write(&destination(kind), MAPPING_UUID, &batch()).unwrap();
            assert_eq!(path, directory.0.join(file));
            // A crash cut the last line short: what comes after is whole.
            fs::write(&path, [&fs::read(&path).unwrap()[..], b"{\"requ"].concat()).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| writer.write(&destination(kind), MAPPING_UUID, &batch()).unwrap());
                }
            });
            let text = fs::read_to_string(&path).unwrap();
            let whole = text.lines().filter(|line| parsed_line(line) == Some(record())).count();
            assert_eq!((whole, text.lines().count()), (9, 10));
        }
    }

    fn parsed_line(line: &str) -> Option<Value> {
        serde_json::from_str(line).ok()
    }

    #[test]
    fn what_cannot_be_delivered_is_told() {
        let directory = Directory::new();
        let writer = FailureDestinationWriter::new(&directory.0);
        let error = writer
            .write(&destination(FailureDestinationKind::Kafka), MAPPING_UUID, &batch())
            .unwrap_err();
        assert!(matches!(error, FailureDestinationError::NotDelivered { .. }));
        fs::write(&directory.0, "a file").unwrap();
        let error = writer
            .write(&destination(FailureDestinationKind::Sqs), MAPPING_UUID, &batch())
            .unwrap_err();
        assert!(error.to_string().contains("failed.jsonl"), "{error}");
        let _ = fs::remove_file(&directory.0);
    }

    #[test]
    fn a_uuid_says_its_version_and_its_variant() {
        for (bits, version, text) in [
            (0, 4, "00000000-0000-4000-8000-000000000000"),
            (u128::MAX, 8, "ffffffff-ffff-8fff-bfff-ffffffffffff"),
        ] {
            assert_eq!(uuid_text(bits, version), text);
        }
    }
}
