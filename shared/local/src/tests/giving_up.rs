//! What becomes of records on which the function fails: bisected, retried, given up, kept.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::{LocalCloud, LocalCloudOptions, MappingProgress};

use super::{Answer, data_of, drained, external, fake_function, numbered, put, sequence_of, template};

/// A directory of this test, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("usher-local-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn run(
    options: LocalCloudOptions,
    count: usize,
    answer: impl Fn(&Value, &[String], usize) -> Answer + Send + Sync + 'static,
) -> (Vec<String>, MappingProgress) {
    let cloud = LocalCloud::start(options).await.unwrap();
    put(&cloud, "events", &numbered(count)).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        let data = data_of(event);
        let mut seen = seen.lock().unwrap();
        seen.push(data.join(" "));
        answer(event, &data, seen.len() - 1)
    });
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    function.abort();
    cloud.shutdown().await;
    let calls = calls.lock().unwrap().clone();
    (calls, progress)
}

fn poison(bad: &'static str) -> impl Fn(&Value, &[String], usize) -> Answer + Send + Sync {
    move |_, data, _| match data.iter().any(|text| text == bad) {
        true => Answer::Error("poison"),
        false => Answer::success(),
    }
}

/// BisectBatchOnFunctionError splits a failed batch into two smaller ones, which does not count towards the retry quota
/// (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>).
#[tokio::test]
async fn bisecting_finds_the_bad_record_and_uses_up_no_retry() {
    let mapping = "BatchSize: 8, BisectBatchOnFunctionError: true, MaximumRetryAttempts: 1";
    let (calls, progress) = run(external(template(mapping)), 8, poison("3")).await;
    assert_eq!(
        calls,
        ["0 1 2 3 4 5 6 7", "0 1 2 3", "0 1", "2 3", "2", "3", "3", "4 5 6 7"]
    );
    assert_eq!(
        (
            progress.records_completed,
            progress.records_dropped,
            progress.bisections
        ),
        (7, 1, 3)
    );
    assert_eq!((progress.dropped[0].records, progress.dropped[0].attempts), (1, 2));
}

/// After a partial response, with both BisectBatchOnFunctionError and ReportBatchItemFailures, the batch is bisected at the
/// returned sequence number and only the remaining records are retried
/// (<https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>).
#[tokio::test]
async fn a_partial_response_bisects_at_the_returned_sequence_number() {
    let mapping = "BatchSize: 8, BisectBatchOnFunctionError: true, MaximumRetryAttempts: 0, \
                   FunctionResponseTypes: [ReportBatchItemFailures]";
    let (calls, progress) = run(external(template(mapping)), 8, |event, _, call| match call {
        0 => Answer::failed_at(&sequence_of(event, 5)),
        1 => Answer::failed_at(&sequence_of(event, 2)),
        _ => Answer::success(),
    })
    .await;
    assert_eq!(calls, ["0 1 2 3 4 5 6 7", "5 6 7", "7"]);
    assert_eq!((progress.records_completed, progress.records_dropped), (8, 0));

    // A failed invocation is bisected whether or not items may be reported (same page).
    let (calls, progress) = run(external(template(mapping)), 4, poison("0")).await;
    assert_eq!(calls, ["0 1 2 3", "0 1", "0", "1", "2 3"]);
    assert_eq!((progress.records_completed, progress.records_dropped), (3, 1));
}

/// -1 is without end for both MaximumRetryAttempts and MaximumRecordAgeInSeconds
/// (<https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>).
#[tokio::test]
async fn without_limits_a_batch_is_tried_until_it_succeeds() {
    let mut options = external(template(
        "BatchSize: 5, MaximumRetryAttempts: -1, MaximumRecordAgeInSeconds: -1",
    ));
    options.stuck_after_failures = u32::MAX;
    let (calls, progress) = run(options, 5, |_, _, call| match call {
        60.. => Answer::success(),
        _ => Answer::Error("not yet"),
    })
    .await;
    assert_eq!((calls.len(), progress.retries), (61, 60));
    assert_eq!((progress.records_completed, progress.records_dropped), (5, 0));
}

fn with_destination(mapping: &str, arn: &str, directory: &Path) -> LocalCloudOptions {
    let mapping = format!("{mapping}, DestinationConfig: {{ OnFailure: {{ Destination: \"{arn}\" }} }}");
    let mut options = external(template(&mapping));
    options.failed_batches = Some(directory.to_owned());
    options
}

fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Records older than MaximumRecordAgeInSeconds are discarded and go to the failure destination
/// (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>); the condition's name is as seen in
/// records that AWS wrote. The age goes by the wall clock since the put.
#[tokio::test]
async fn records_that_became_too_old_are_given_up() {
    let directory = Directory::new("age");
    let mut options = with_destination(
        "BatchSize: 2",
        "arn:aws:sqs:us-east-1:000000000000:failed",
        &directory.0,
    );
    options.template.mappings[0].record_age_max = Some(Duration::from_millis(300));
    let cloud = LocalCloud::start(options).await.unwrap();
    let function = fake_function(&cloud, "f", |event| match data_of(event)[0].as_str() {
        "late" => Answer::success(),
        _ => Answer::Error("always"),
    });
    put(&cloud, "events", &numbered(4)).await;
    drained(&cloud).await.unwrap();
    put(&cloud, "events", &[("key".to_owned(), b"late".to_vec())]).await;
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    let events = progress.events;
    assert_eq!((progress.records_completed, events.dropped), (1, 4));
    assert_eq!(events.on_failure_destination_delivered, 4);
    let records = lines_of(&directory.0.join("sqs").join("failed.jsonl"));
    let conditions: Vec<_> = records
        .iter()
        .map(|record| record["requestContext"]["condition"].as_str().unwrap())
        .collect();
    assert_eq!(conditions, ["RecordAgeExceeded", "RecordAgeExceeded"]);
    let counts: Vec<_> = records
        .iter()
        .map(|record| record["requestContext"]["approximateInvokeCount"].as_u64().unwrap())
        .collect();
    assert!(
        counts[0] > 1 && counts[1] == 0,
        "the second batch was never sent: {counts:?}"
    );
    function.abort();
    cloud.shutdown().await;
}

/// A queue gets where the records are, a bucket gets the records too
/// (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>). P1: what the checkpoint has passed is
/// in the destination.
#[tokio::test]
async fn a_given_up_batch_is_in_the_failure_destination() {
    let directory = Directory::new("destination");
    let mapping = "BatchSize: 3, MaximumRetryAttempts: 1";
    for arn in [
        "arn:aws:sqs:us-east-1:000000000000:failed",
        "arn:aws:s3:::failed-batches",
    ] {
        let options = with_destination(mapping, arn, &directory.0);
        let uuid = options.template.mappings[0].uuid.clone();
        let (calls, progress) = run(options, 6, poison("4")).await;
        assert_eq!(calls, ["0 1 2", "3 4 5", "3 4 5"]);
        assert_eq!(progress.events.on_failure_destination_delivered, 3);
        let record = if arn.contains("sqs") {
            lines_of(&directory.0.join("sqs").join("failed.jsonl")).remove(0)
        } else {
            let mut path = directory
                .0
                .join("s3/failed-batches/aws/lambda")
                .join(uuid)
                .join("shardId-000000000000");
            while path.is_dir() {
                path = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
            }
            lines_of(&path).remove(0)
        };
        let context = &record["requestContext"];
        assert_eq!(context["condition"], "RetryAttemptsExhausted");
        assert_eq!(context["approximateInvokeCount"], 2);
        assert_eq!(record["responseContext"]["functionError"], "Unhandled");
        let batch = &record["KinesisBatchInfo"];
        assert_eq!(batch["batchSize"], 3);
        assert_eq!(batch["shardId"], "shardId-000000000000");
        assert_eq!(
            batch["streamArn"],
            "arn:aws:kinesis:us-east-1:000000000000:stream/events"
        );
        assert_eq!(batch["startSequenceNumber"], progress.dropped[0].first_sequence_number);
        assert_eq!(batch["endSequenceNumber"], progress.dropped[0].last_sequence_number);
        match record["payload"].as_str() {
            Some(payload) => {
                let event: Value = serde_json::from_str(payload).unwrap();
                assert_eq!(data_of(&event), ["3", "4", "5"]);
            }
            None => assert!(arn.contains("sqs"), "a bucket gets the records"),
        }
    }
}
