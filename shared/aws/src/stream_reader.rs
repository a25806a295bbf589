//! Reading a Kinesis stream from an operator's command: its shards, and each one's records in order.
//!
//! Each method is one call, as everywhere in this crate: after an error, calling again asks for the same.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use usher_domain::time::Timestamp;
use usher_pipeline::ports::CallError;

use crate::sdk_error;

/// Error codes of the reading calls after which another try may help.
const TRANSIENT_CODES: [&str; 8] = [
    "ExpiredTokenException", // new credentials come before the next try
    "InternalFailure",
    "InternalFailureException",
    "KMSThrottlingException",
    "LimitExceededException",                 // five ListShards a second, whoever asks
    "ProvisionedThroughputExceededException", // five GetRecords and 2 MB a second and shard, shared with other readers
    "ServiceUnavailable",
    "ThrottlingException",
];
/// The code of an iterator that is older than five minutes.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>
const CODE_EXPIRED_ITERATOR: &str = "ExpiredIteratorException";
/// The code of a stream or shard that is not there; a closed shard leaves when the last of its records does.
const CODE_NOT_FOUND: &str = "ResourceNotFoundException";
/// The code of a sequence number that the shard can't start at.
const CODE_INVALID_ARGUMENT: &str = "InvalidArgumentException";
/// Records of one call. Kinesis gives up to 10,000, and at most 10 MB.
const PAGE_RECORDS_MAX: i32 = 10_000;
/// How long a stream retains a record unless it is set to retain it longer.
/// <https://docs.aws.amazon.com/streams/latest/dev/kinesis-extended-retention.html>
const RETENTION_HOURS_DEFAULT: i32 = 24;

/// A stream to read.
#[derive(Clone, Debug)]
pub struct StreamReader {
    client: Client,
    stream: String,
}

/// A shard of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedShard {
    /// `shardId-...`.
    pub id: String,
    /// The shards that it was made of by a split or a merge.
    pub parents: Vec<String>,
}

/// A record as it is in its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// The sequence number as AWS wrote it.
    pub sequence_number: String,
    /// The producer's partition key.
    pub partition_key: String,
    /// When Kinesis took it.
    pub arrived_at: Timestamp,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Where in a shard to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the oldest record that is retained.
    Oldest,
    /// With the first that arrived at or after this time.
    At(Timestamp),
    /// With this sequence number, or the oldest retained one after it.
    SequenceNumber(String),
}

/// Some records of a shard, and how far behind its end they are.
#[derive(Debug, Default)]
pub struct ReadPage {
    /// The records; there may be none although more follow.
    pub records: Vec<ReadRecord>,
    /// How long ago the end of the page was the newest, in milliseconds.
    pub behind_ms: i64,
}

/// Why a shard can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such shard: all of its records are past retention, or it is another stream's.
    #[error("the shard {shard_id} of {stream} is not there any more")]
    NoShard {
        /// The stream's name or ARN.
        stream: String,
        /// The shard.
        shard_id: String,
    },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Reads one shard from a place on, to where it ended when it was reached.
#[derive(Debug)]
pub struct ShardReader<'r> {
    reader: &'r StreamReader,
    shard_id: String,
    start: ReadFrom,
    position: Position,
    last_sequence_number: Option<String>,
    page_records_max: i32,
}

#[derive(Debug)]
enum Position {
    /// An iterator is needed.
    Unknown,
    At(String),
    AtEnd,
}

impl StreamReader {
    /// The stream with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> StreamReader {
        StreamReader {
            client,
            stream: name_or_arn.into(),
        }
    }

    /// Another stream, in the same place.
    pub fn of_stream(&self, name_or_arn: impl Into<String>) -> StreamReader {
        StreamReader::new(self.client.clone(), name_or_arn)
    }

    /// The name or ARN that it was made with.
    pub fn name_or_arn(&self) -> &str {
        &self.stream
    }

    /// What names the stream in a request. Calls take either or both, and an emulator may only know the name.
    fn arn_and_name(&self) -> (Option<String>, Option<String>) {
        match self.stream.split_once(":stream/") {
            Some((_, name)) => (Some(self.stream.clone()), Some(name.to_owned())),
            None => (None, Some(self.stream.clone())),
        }
    }

    fn call_error<E>(
        &self,
        operation: &str,
        error: SdkError<E, aws_sdk_kinesis::config::http::HttpResponse>,
    ) -> CallError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let is_transient = sdk_error::is_transient(&error, &TRANSIENT_CODES);
        sdk_error::call_error(is_transient, format!("kinesis:{operation} on {}", self.stream), error)
    }

    /// The retained shards, each after its parents, so that reading them in this order reads each partition key in order.
    ///
    /// # Errors
    /// The call failed. A stream that is not there is [`CallError::Refused`].
    pub async fn shards(&self) -> Result<Vec<ListedShard>, CallError> {
        let mut shards = Vec::new();
        let mut next_token: Option<String> = None;
        loop {
            let mut request = self.client.list_shards();
            request = match next_token.take() {
                // A further page is asked for by its token alone.
                Some(token) => request.next_token(token),
                None => {
                    let (arn, name) = self.arn_and_name();
                    request.set_stream_arn(arn).set_stream_name(name)
                }
            };
            let output = request
                .send()
                .await
                .map_err(|error| self.call_error("ListShards", error))?;
            for shard in output.shards.unwrap_or_default() {
                let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id];
                shards.push(ListedShard {
                    id: shard.shard_id,
                    parents: parents.into_iter().flatten().collect(),
                });
            }
            match output.next_token {
                Some(token) if !token.is_empty() => next_token = Some(token),
                _ => return Ok(parents_first(shards)),
            }
        }
    }

    /// How long the stream retains a record, in hours.
    ///
    /// # Errors
    /// The call failed.
    pub async fn retention_hours(&self) -> Result<i32, CallError> {
        let (arn, name) = self.arn_and_name();
        let request = self
            .client
            .describe_stream_summary()
            .set_stream_arn(arn)
            .set_stream_name(name);
        let output = request
            .send()
            .await
            .map_err(|error| self.call_error("DescribeStreamSummary", error))?;
        let summary = output.stream_description_summary;
        Ok(summary.map_or(RETENTION_HOURS_DEFAULT, |summary| summary.retention_period_hours))
    }

    /// The record at a place; none where it is past retention, or the stream is gone.
    ///
    /// # Errors
    /// A call failed.
    pub async fn record(&self, shard_id: &str, sequence_number: &str) -> Result<Option<ReadRecord>, CallError> {
        let mut pages = self.shard(shard_id, ReadFrom::SequenceNumber(sequence_number.to_owned()));
        pages.page_records_max = 1;
        loop {
            match pages.next_page().await {
                // Where it is gone, a service begins with the oldest one that is not.
                Ok(Some(page)) => match page.records.into_iter().next() {
                    Some(record) => return Ok((record.sequence_number == sequence_number).then_some(record)),
                    None => continue,
                },
                Ok(None) | Err(ReadError::NoShard { .. }) => return Ok(None),
                Err(ReadError::Call(error)) => return Err(error),
            }
        }
    }

    /// Reads a shard from a place on.
    pub fn shard(&self, shard_id: impl Into<String>, from: ReadFrom) -> ShardReader<'_> {
        ShardReader {
            reader: self,
            shard_id: shard_id.into(),
            start: from,
            position: Position::Unknown,
            last_sequence_number: None,
            page_records_max: PAGE_RECORDS_MAX,
        }
    }
}

/// Orders shards so that each comes after those of its parents that are there.
fn parents_first(mut shards: Vec<ListedShard>) -> Vec<ListedShard> {
    // The ids grow with each reshard, so this is nearly always all.
    shards.sort_by(|left, right| left.id.cmp(&right.id));
    let mut ordered: Vec<ListedShard> = Vec::with_capacity(shards.len());
    while !shards.is_empty() {
        let waiting: Vec<String> = shards.iter().map(|shard| shard.id.clone()).collect();
        let is_ready = |shard: &ListedShard| shard.parents.iter().all(|parent| !waiting.contains(parent));
        let (ready, rest): (Vec<_>, Vec<_>) = shards.into_iter().partition(is_ready);
        if ready.is_empty() {
            // No stream has a circle of parents; an emulator's would be read all the same.
            ordered.extend(rest);
            break;
        }
        ordered.extend(ready);
        shards = rest;
    }
    ordered
}

impl ShardReader<'_> {
    /// The shard that it reads.
    pub fn shard_id(&self) -> &str {
        &self.shard_id
    }

    /// The next records; none when the end of the shard was reached: the last record of a closed one, the newest of an
    /// open one.
    ///
    /// # Errors
    /// The shard is gone, or a call failed.
    pub async fn next_page(&mut self) -> Result<Option<ReadPage>, ReadError> {
        loop {
            let iterator = match &self.position {
                Position::AtEnd => return Ok(None),
                Position::At(iterator) => iterator.clone(),
                Position::Unknown => match self.iterator().await? {
                    Some(iterator) => iterator,
                    None => {
                        self.position = Position::AtEnd;
                        return Ok(None);
                    }
                },
            };
            let (arn, _) = self.reader.arn_and_name();
            let request = self
                .reader
                .client
                .get_records()
                .shard_iterator(&iterator)
                .set_stream_arn(arn)
                .limit(self.page_records_max);
            let output = match request.send().await {
                Ok(output) => output,
                Err(error) if error.code() == Some(CODE_EXPIRED_ITERATOR) => {
                    // A slow reader: go on after the last record that was read.
                    self.position = Position::Unknown;
                    continue;
                }
                Err(error) if error.code() == Some(CODE_NOT_FOUND) => return Err(self.no_shard()),
                Err(error) => {
                    self.position = Position::At(iterator);
                    return Err(self.reader.call_error("GetRecords", error).into());
                }
            };
            let records: Vec<ReadRecord> = output.records.into_iter().map(read_record).collect();
            if let Some(last) = records.last() {
                self.last_sequence_number = Some(last.sequence_number.clone());
            }
            let behind_ms = output.millis_behind_latest.unwrap_or(0);
            // Emulators say that they are never behind, so only an empty page tells that there is no more.
            let is_at_tip = records.is_empty() && behind_ms == 0;
            self.position = match output.next_shard_iterator {
                Some(next) if !is_at_tip && !next.is_empty() => Position::At(next),
                _ => Position::AtEnd,
            };
            return Ok(Some(ReadPage { records, behind_ms }));
        }
    }

    fn no_shard(&self) -> ReadError {
        ReadError::NoShard {
            stream: self.reader.stream.clone(),
            shard_id: self.shard_id.clone(),
        }
    }

    /// An iterator for where it is; none where there can be nothing to read.
    async fn iterator(&self) -> Result<Option<String>, ReadError> {
        let from = match &self.last_sequence_number {
            Some(last) => (ShardIteratorType::AfterSequenceNumber, Some(last.as_str()), None),
            None => match &self.start {
                ReadFrom::Oldest => (ShardIteratorType::TrimHorizon, None, None),
                ReadFrom::At(time) => (ShardIteratorType::AtTimestamp, None, Some(*time)),
                ReadFrom::SequenceNumber(number) => (ShardIteratorType::AtSequenceNumber, Some(number.as_str()), None),
            },
        };
        match self.ask_for_iterator(from.0, from.1, from.2).await {
            // A sequence number that is past retention: the documentation names no error for it, and services differ in
            // whether they take it for the oldest record or refuse it. So ask for the oldest, and let the reader compare.
            Err(error)
                if error.code() == Some(CODE_INVALID_ARGUMENT)
                    && matches!(
                        (&self.last_sequence_number, &self.start),
                        (None, ReadFrom::SequenceNumber(_))
                    ) =>
            {
                let oldest = self.ask_for_iterator(ShardIteratorType::TrimHorizon, None, None).await;
                oldest.map_err(|error| self.iterator_error(error))
            }
            // A time in the future is refused; nothing can have arrived then.
            Err(error) if error.code() == Some(CODE_INVALID_ARGUMENT) && matches!(self.start, ReadFrom::At(_)) => {
                Ok(None)
            }
            answer => answer.map_err(|error| self.iterator_error(error)),
        }
    }

    async fn ask_for_iterator(
        &self,
        iterator_type: ShardIteratorType,
        sequence_number: Option<&str>,
        time: Option<Timestamp>,
    ) -> Result<
        Option<String>,
        SdkError<
            aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorError,
            aws_sdk_kinesis::config::http::HttpResponse,
        >,
    > {
        let (arn, name) = self.reader.arn_and_name();
        let request = self
            .reader
            .client
            .get_shard_iterator()
            .set_stream_arn(arn)
            .set_stream_name(name)
            .shard_id(&self.shard_id)
            .shard_iterator_type(iterator_type)
            .set_starting_sequence_number(sequence_number.map(str::to_owned))
            .set_timestamp(time.map(|time| DateTime::from_millis(time.epoch_ms())));
        Ok(request.send().await?.shard_iterator)
    }

    fn iterator_error(
        &self,
        error: SdkError<
            aws_sdk_kinesis::operation::get_shard_iterator::GetShardIteratorError,
            aws_sdk_kinesis::config::http::HttpResponse,
        >,
    ) -> ReadError {
        if error.code() == Some(CODE_NOT_FOUND) {
            return self.no_shard();
        }
        self.reader.call_error("GetShardIterator", error).into()
    }
}

fn read_record(record: aws_sdk_kinesis::types::Record) -> ReadRecord {
    let arrived_at = record
        .approximate_arrival_timestamp
        .and_then(|time| time.to_millis().ok())
        .map(Timestamp::from_epoch_ms)
        .unwrap_or_default();
    ReadRecord {
        sequence_number: record.sequence_number,
        partition_key: record.partition_key.unwrap_or_default(),
        arrived_at,
        data: record.data.into_inner(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::{Value, json};

    use super::*;
    use crate::clients::Clients;
    use crate::test_server::{Reply, TestServer};

    fn shard(id: &str, parents: &[&str]) -> ListedShard {
        ListedShard {
            id: id.to_owned(),
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        }
    }

    #[test]
    fn p3_a_shard_comes_after_its_parents() {
        let listed = vec![
            shard("4", &["9", "2"]),
            shard("2", &["0"]),
            shard("9", &[]),
            shard("0", &["gone"]),
        ];
        let ordered: Vec<String> = parents_first(listed).into_iter().map(|shard| shard.id).collect();
        assert_eq!(ordered, ["0", "9", "2", "4"]);
        let circle = vec![shard("1", &["2"]), shard("2", &["1"])];
        assert_eq!(parents_first(circle).len(), 2);
    }

    /// A server that answers each operation with the next of its answers.
    async fn server_of(answers: Vec<(&'static str, u16, Value)>) -> (StreamReader, TestServer) {
        let answers = Mutex::new(std::collections::VecDeque::from(answers));
        let server = TestServer::start(move |request| {
            let target = request.headers.get("x-amz-target").cloned().unwrap_or_default();
            let (operation, status, body) = answers
                .lock()
                .expect("no panics")
                .pop_front()
                .expect("an answer is left");
            assert!(target.ends_with(operation), "{target} instead of {operation}");
            Reply::json(status, body.to_string())
        })
        .await;
        let clients = Clients::for_emulators(&server.url(), &server.url());
        (StreamReader::new(clients.kinesis, "rejected"), server)
    }

    fn record(number: &str) -> Value {
        json!({ "SequenceNumber": number, "PartitionKey": "k", "Data": "Yg==", "ApproximateArrivalTimestamp": 1.5 })
    }

    async fn read_to_the_end(reader: &mut ShardReader<'_>) -> Result<Vec<String>, ReadError> {
        let mut numbers = Vec::new();
        while let Some(page) = reader.next_page().await? {
            numbers.extend(page.records.into_iter().map(|record| record.sequence_number));
        }
        Ok(numbers)
    }

    #[tokio::test]
    async fn a_shard_is_read_to_its_end_across_empty_pages_and_expired_iterators() {
        let error = |code: &str| json!({ "__type": code, "message": "m" });
        let (stream, server) = server_of(vec![
            ("GetShardIterator", 200, json!({ "ShardIterator": "1" })),
            (
                "GetRecords",
                200,
                json!({ "Records": [record("7")], "NextShardIterator": "2", "MillisBehindLatest": 9 }),
            ),
            (
                "GetRecords",
                200,
                json!({ "Records": [], "NextShardIterator": "3", "MillisBehindLatest": 5 }),
            ),
            ("GetRecords", 400, error("ExpiredIteratorException")),
            ("GetShardIterator", 200, json!({ "ShardIterator": "4" })),
            (
                "GetRecords",
                200,
                json!({ "Records": [record("8")], "NextShardIterator": "5", "MillisBehindLatest": 0 }),
            ),
            (
                "GetRecords",
                200,
                json!({ "Records": [], "NextShardIterator": "6", "MillisBehindLatest": 0 }),
            ),
        ])
        .await;
        let mut reader = stream.shard("shardId-0", ReadFrom::Oldest);
        assert_eq!(read_to_the_end(&mut reader).await.expect("it is there"), ["7", "8"]);
        assert_eq!(server.requests(), 7);
    }

    #[tokio::test]
    async fn what_is_past_retention_is_read_from_the_oldest_or_said_to_be_gone() {
        let error = |code: &str| json!({ "__type": code, "message": "m" });
        let (stream, _server) = server_of(vec![
            ("GetShardIterator", 400, error("InvalidArgumentException")),
            ("GetShardIterator", 200, json!({ "ShardIterator": "1" })),
            (
                "GetRecords",
                200,
                json!({ "Records": [record("9")], "MillisBehindLatest": 0 }),
            ),
        ])
        .await;
        let mut reader = stream.shard("shardId-0", ReadFrom::SequenceNumber("1".to_owned()));
        assert_eq!(read_to_the_end(&mut reader).await.expect("it is there"), ["9"]);

        let (stream, _server) = server_of(vec![("GetShardIterator", 400, error("ResourceNotFoundException"))]).await;
        let mut reader = stream.shard("shardId-0", ReadFrom::SequenceNumber("1".to_owned()));
        let gone = read_to_the_end(&mut reader).await;
        assert!(matches!(gone, Err(ReadError::NoShard { .. })), "{gone:?}");
    }

    #[tokio::test]
    async fn one_record_is_read_by_its_place_or_said_to_be_gone() {
        let oldest = || json!({ "Records": [record("9")], "NextShardIterator": "2", "MillisBehindLatest": 9 });
        for (asked, is_there) in [("9", true), ("1", false)] {
            let (stream, server) = server_of(vec![
                ("GetShardIterator", 200, json!({ "ShardIterator": "1" })),
                ("GetRecords", 200, oldest()),
            ])
            .await;
            let found = stream.record("shardId-0", asked).await.expect("it answers");
            assert_eq!(found.is_some(), is_there, "{asked}");
            let body: Value = serde_json::from_slice(&server.last_request().body).expect("JSON");
            assert_eq!(body["Limit"], 1);
        }
        let gone = json!({ "__type": "ResourceNotFoundException", "message": "m" });
        let (stream, _server) = server_of(vec![("GetShardIterator", 400, gone)]).await;
        assert_eq!(stream.record("shardId-0", "9").await.expect("it answers"), None);
    }

    #[tokio::test]
    async fn after_a_failed_call_the_same_page_is_asked_for_again() {
        let throttled = json!({ "__type": "ProvisionedThroughputExceededException", "message": "m" });
        let (stream, _server) = server_of(vec![
            ("GetShardIterator", 200, json!({ "ShardIterator": "1" })),
            ("GetRecords", 400, throttled),
            ("GetRecords", 200, json!({ "Records": [record("7")] })),
        ])
        .await;
        let mut reader = stream.shard("shardId-0", ReadFrom::Oldest);
        let error = reader.next_page().await.expect_err("throttled");
        assert!(matches!(error, ReadError::Call(CallError::Retry { .. })), "{error:?}");
        assert_eq!(read_to_the_end(&mut reader).await.expect("it is there"), ["7"]);
    }
}
