//! Kinesis streams to put records on.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use usher_pipeline::ports::{BoxError, CallError, PutOutcome, RecordStream, StreamRecord};

use crate::sdk_error;

/// Error codes of `PutRecords` as a whole after which another try may help. All others say that the request, the
/// stream, its key or the permissions are wrong.
const TRANSIENT_CODES: [&str; 9] = [
    "ExpiredTokenException", // new credentials come before the next try
    "InternalFailure",
    "InternalFailureException",
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ThrottlingException",
];

/// The code of a record that the answer says nothing about.
pub const CODE_NO_ANSWER: &str = "UsherNoAnswer";

/// One Kinesis stream.
#[derive(Clone, Debug)]
pub struct KinesisStream {
    client: Client,
    stream: String,
}

impl KinesisStream {
    /// The stream with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> KinesisStream {
        KinesisStream {
            client,
            stream: name_or_arn.into(),
        }
    }

    /// The name or ARN that it was made with.
    pub fn name_or_arn(&self) -> &str {
        &self.stream
    }
}

impl RecordStream for KinesisStream {
    async fn put(&self, records: &[StreamRecord]) -> Result<Vec<PutOutcome>, CallError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let call_error = |is_transient, source: BoxError| {
            sdk_error::call_error(is_transient, format!("kinesis:PutRecords on {}", self.stream), source)
        };
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            let entry = PutRecordsRequestEntry::builder()
                .partition_key(&record.partition_key)
                .data(Blob::new(record.data.clone()))
                .build()
                .map_err(|error| call_error(false, error.into()))?;
            entries.push(entry);
        }
        let request = self.client.put_records().set_records(Some(entries));
        let request = if self.stream.starts_with("arn:") {
            request.stream_arn(&self.stream)
        } else {
            request.stream_name(&self.stream)
        };
        match request.send().await {
            Ok(output) => Ok(outcomes_of(output, records.len())),
            Err(error) => Err(call_error(is_transient(&error), error.into())),
        }
    }
}

/// Takes an answer apart: one outcome a record, in the order of the request.
///
/// An answer that is shorter than the request (an emulator's, or a proxy's) leaves its last records failed: putting them again
/// repeats at worst, and consumers act once by id (P5).
pub fn outcomes_of(output: PutRecordsOutput, asked: usize) -> Vec<PutOutcome> {
    let mut outcomes: Vec<PutOutcome> = output.records.into_iter().take(asked).map(outcome_of).collect();
    outcomes.resize_with(asked, || {
        no_answer("the answer has fewer entries than the request had records")
    });
    outcomes
}

fn outcome_of(entry: PutRecordsResultEntry) -> PutOutcome {
    match entry {
        PutRecordsResultEntry {
            error_code: Some(code),
            error_message,
            ..
        } => PutOutcome::Failed {
            code,
            message: error_message.unwrap_or_default(),
        },
        PutRecordsResultEntry {
            sequence_number: Some(sequence_number),
            shard_id: Some(shard_id),
            ..
        } => PutOutcome::Stored {
            shard_id,
            sequence_number,
        },
        _ => no_answer("the entry has neither an error nor a sequence number"),
    }
}

fn no_answer(message: &str) -> PutOutcome {
    PutOutcome::Failed {
        code: CODE_NO_ANSWER.to_owned(),
        message: message.to_owned(),
    }
}

/// Whether trying a failed `PutRecords` again may help.
fn is_transient(error: &SdkError<PutRecordsError, HttpResponse>) -> bool {
    sdk_error::is_transient(error, &TRANSIENT_CODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;
    use crate::sdk_error::tests::{errors_of_the_transport, service_error};
    use crate::test_server::{Reply, TestServer};

    #[test]
    fn errors_are_sorted_by_what_the_caller_does_with_them() {
        for (code, status, is_worth_a_try) in [
            ("ProvisionedThroughputExceededException", 400, true),
            ("KMSThrottlingException", 400, true),
            ("LimitExceededException", 400, true),
            ("ThrottlingException", 400, true),
            ("ExpiredTokenException", 400, true),
            ("InternalFailure", 500, true),
            ("ServiceUnavailable", 503, true),
            ("SomethingNew", 500, true),
            ("SomethingNew", 429, true),
            ("SomethingNew", 400, false),
            ("ResourceNotFoundException", 400, false),
            ("AccessDeniedException", 400, false),
            ("InvalidArgumentException", 400, false),
            ("ValidationException", 400, false),
            ("KMSDisabledException", 400, false),
            ("KMSAccessDeniedException", 400, false),
            ("UnrecognizedClientException", 400, false),
        ] {
            let error = service_error(PutRecordsError::generic, code, status);
            assert_eq!(is_transient(&error), is_worth_a_try, "{code} {status}");
        }
        for (name, error, is_worth_a_try) in errors_of_the_transport() {
            assert_eq!(is_transient(&error), is_worth_a_try, "{name}");
        }
    }

    fn stored(sequence_number: &str) -> PutRecordsResultEntry {
        PutRecordsResultEntry::builder()
            .shard_id("shardId-0")
            .sequence_number(sequence_number)
            .build()
    }

    #[test]
    fn an_answer_is_taken_apart_into_one_outcome_a_record() {
        let throttled = PutRecordsResultEntry::builder()
            .error_code("ProvisionedThroughputExceededException")
            .error_message("slow down")
            .build();
        let is_stored = |outcomes: &[PutOutcome]| {
            outcomes
                .iter()
                .map(|o| matches!(o, PutOutcome::Stored { .. }))
                .collect::<Vec<_>>()
        };
        for (entries, asked, expected) in [
            (
                vec![stored("1"), throttled.clone(), stored("2")],
                3,
                vec![true, false, true],
            ),
            (vec![stored("1")], 3, vec![true, false, false]),
            (vec![], 2, vec![false, false]),
            (vec![stored("1"), stored("2"), stored("3")], 2, vec![true, true]),
            (vec![PutRecordsResultEntry::builder().build()], 1, vec![false]),
            (
                vec![PutRecordsResultEntry::builder().shard_id("shardId-0").build()],
                1,
                vec![false],
            ),
        ] {
            let output = PutRecordsOutput::builder()
                .set_records(Some(entries))
                .build()
                .expect("it has records");
            assert_eq!(is_stored(&outcomes_of(output, asked)), expected);
        }
    }

    #[tokio::test]
    async fn a_put_names_the_stream_and_reports_what_came_back() {
        let server = TestServer::start(|_| {
            Reply::json(200, r#"{"FailedRecordCount":1,"Records":[
                {"ShardId":"shardId-000000000000","SequenceNumber":"49590338271490256608559692538361571095921575989136588898"},
                {"ErrorCode":"InternalFailure","ErrorMessage":"try again"}]}"#)
        })
        .await;
        let record = |key: &str| StreamRecord {
            partition_key: key.to_owned(),
            data: key.as_bytes().to_vec(),
        };
        for (name, parameter) in [
            ("triggers", "StreamName"),
            ("arn:aws:kinesis:eu-west-1:123456789012:stream/triggers", "StreamARN"),
        ] {
            let stream = KinesisStream::new(Clients::for_emulators(&server.url(), &server.url()).kinesis, name);
            let outcomes = stream.put(&[record("a"), record("b")]).await.expect("it answered");
            assert_eq!(
                outcomes,
                [
                    PutOutcome::Stored {
                        shard_id: "shardId-000000000000".to_owned(),
                        sequence_number: "49590338271490256608559692538361571095921575989136588898".to_owned()
                    },
                    PutOutcome::Failed {
                        code: "InternalFailure".to_owned(),
                        message: "try again".to_owned()
                    },
                ]
            );
            let request: serde_json::Value = serde_json::from_slice(&server.last_request().body).expect("JSON");
            assert_eq!(request[parameter], name);
            assert_eq!(request["Records"][1]["Data"], "Yg==");
        }
        assert_eq!(server.requests(), 2, "one attempt each");
    }

    #[tokio::test]
    async fn a_failed_put_is_tried_once_and_names_its_call() {
        let server = TestServer::start(|_| Reply::json(500, r#"{"__type":"InternalFailure"}"#)).await;
        let stream = KinesisStream::new(Clients::for_emulators(&server.url(), &server.url()).kinesis, "triggers");
        assert_eq!(stream.put(&[]).await.expect("nothing to do"), []);
        let record = StreamRecord {
            partition_key: "a".to_owned(),
            data: Vec::new(),
        };
        let error = stream.put(&[record]).await.expect_err("it failed");
        assert!(matches!(error, CallError::Retry { .. }), "{error:?}");
        assert_eq!(error.to_string(), "kinesis:PutRecords on triggers failed for now");
        assert_eq!(server.requests(), 1);
    }
}
