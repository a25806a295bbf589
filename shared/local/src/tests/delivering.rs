//! How batches reach the function: positions, lanes, filters, subscriptions, throttling and metrics.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::Config;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use serde_json::Value;

use crate::faults::{FaultKind, Faults};
use crate::template::{FilterCriteria, StartingPosition};
use crate::{Clock, LocalCloud, LocalError, Template, TemplateOptions};

use super::{Answer, data_of, drained, external, fake_function, kinesis_client, numbered, put, template, work_for};

/// Records of many partition keys: data is `KEY INDEX`, with the index counting up within the key.
fn keyed(keys: usize, records: usize) -> Vec<(String, Vec<u8>)> {
    (0..records)
        .map(|record| {
            let key = format!("user {}", record % keys);
            let data = format!("{key} {}", record / keys);
            (key, data.into_bytes())
        })
        .collect()
}

/// Checks that a key's records are first seen in the order of their index, none left out; gives back how many were seen.
fn check_order(seen: &[String]) -> usize {
    let mut next: HashMap<&str, usize> = HashMap::new();
    let mut first_sights = 0;
    for text in seen {
        let (key, index) = text.rsplit_once(' ').unwrap();
        let index: usize = index.parse().unwrap();
        let expected = next.entry(key).or_default();
        assert!(index <= *expected, "{key}: {index} came before {expected}");
        if index == *expected {
            *expected += 1;
            first_sights += 1;
        }
    }
    first_sights
}

/// AT_TIMESTAMP begins at the first record that arrived then or later
/// (<https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>), and reads on from there as Kinesis does
/// (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html>).
#[tokio::test]
async fn at_timestamp_begins_at_the_first_record_that_arrived_then() {
    let mut options = external(template("BatchSize: 10"));
    options.template.mappings[0].starting_position = StartingPosition::AtTimestamp(10_000);
    options.clock = Clock::data(["events"], |data: &[u8]| std::str::from_utf8(data).ok()?.parse().ok());
    let cloud = LocalCloud::start(options).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&seen);
    let function = fake_function(&cloud, "f", move |event| {
        calls.lock().unwrap().extend(data_of(event));
        Answer::success()
    });
    let records = ["5000", "9999", "12000", "7000"].map(|data| ("key".to_owned(), data.as_bytes().to_vec()));
    put(&cloud, "events", &records).await;
    drained(&cloud).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["12000", "7000"]);
    let progress = cloud.progress().mappings[0].clone();
    assert_eq!((progress.records_to_read, progress.events.polled), (2, 2));
    function.abort();
    cloud.shutdown().await;
}

/// With up to 10 concurrent batches a shard Lambda keeps the order within a partition key
/// (<https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>, ParallelizationFactor).
#[tokio::test(flavor = "multi_thread", worker_threads = 12)]
async fn a_factor_gives_so_many_batches_at_once_and_keeps_each_keys_order() {
    for (factor, at_once) in [(1, 1), (4, 4), (10, 10)] {
        let mapping = format!("BatchSize: 5, ParallelizationFactor: {factor}");
        let cloud = LocalCloud::start(external(template(&mapping))).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        put(&cloud, "events", &keyed(60, 600)).await;
        let functions: Vec<_> = (0..12)
            .map(|_| {
                let (seen, running, most) = (Arc::clone(&seen), Arc::clone(&running), Arc::clone(&most));
                fake_function(&cloud, "f", move |event| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    seen.lock().unwrap().extend(data_of(event));
                    work_for(Duration::from_millis(3));
                    running.fetch_sub(1, Ordering::SeqCst);
                    Answer::success()
                })
            })
            .collect();
        drained(&cloud).await.unwrap();
        assert_eq!(check_order(&seen.lock().unwrap()), 600);
        assert_eq!(most.load(Ordering::SeqCst), at_once, "factor {factor}");
        assert_eq!(cloud.progress().mappings[0].records_completed, 600);
        functions.into_iter().for_each(|function| function.abort());
        cloud.shutdown().await;
    }
}

/// A partition key that fails holds back its own lane; the others go on for as far as the named bound, and the drain waits.
#[tokio::test]
async fn a_stuck_key_holds_back_its_lane_and_how_far_the_others_run_ahead() {
    let mapping = "BatchSize: 2, ParallelizationFactor: 2";
    let mut options = external(template(mapping));
    options.stuck_after_failures = u32::MAX;
    let cloud = LocalCloud::start(options).await.unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let functions: Vec<_> = (0..2)
        .map(|_| {
            let (released, seen) = (Arc::clone(&released), Arc::clone(&seen));
            fake_function(&cloud, "f", move |event| {
                let data = data_of(event);
                if !released.load(Ordering::SeqCst) && data.iter().any(|text| text.starts_with("user 0 ")) {
                    return Answer::Error("not yet");
                }
                seen.lock().unwrap().extend(data);
                Answer::success()
            })
        })
        .collect();
    put(&cloud, "events", &keyed(20, 400)).await;
    let waited = tokio::time::timeout(Duration::from_millis(400), cloud.drained()).await;
    assert!(waited.is_err(), "the checkpoint stands before the stuck record");
    let completed = cloud.progress().mappings[0].records_completed;
    assert!(
        (1..=16).contains(&completed),
        "{completed} of at most 4 batches of 2 for 2 lanes"
    );
    released.store(true, Ordering::SeqCst);
    drained(&cloud).await.unwrap();
    assert_eq!(check_order(&seen.lock().unwrap()), 400);
    functions.into_iter().for_each(|function| function.abort());
    cloud.shutdown().await;
}

/// What the filters do not match is passed without an invocation, and counted
/// (<https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html>,
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>).
#[tokio::test]
async fn filtered_records_pass_the_checkpoint_unseen() {
    let mut options = external(template("BatchSize: 10"));
    let filters = FilterCriteria::parse([r#"{"data":{"type":["click"]}}"#]).unwrap();
    options.template.mappings[0].filters = Some(filters);
    let cloud = LocalCloud::start(options).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&seen);
    let function = fake_function(&cloud, "f", move |event| {
        calls.lock().unwrap().extend(data_of(event));
        Answer::success()
    });
    let records = [
        r#"{"type":"view"}"#,
        r#"{"type":"click","n":1}"#,
        "not json",
        r#"{"type":"view"}"#,
    ]
    .map(|data| ("key".to_owned(), data.as_bytes().to_vec()));
    put(&cloud, "events", &records).await;
    drained(&cloud).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [r#"{"type":"click","n":1}"#]);
    let progress = cloud.progress().mappings[0].clone();
    let events = progress.events;
    assert_eq!((events.polled, events.filtered_out, events.invoked), (4, 3, 1));
    assert_eq!((progress.records_completed, progress.records_dropped), (1, 0));
    function.abort();
    cloud.shutdown().await;
}

/// A cloud of one shard whose mapping reads by enhanced fan-out.
fn fan_out() -> Template {
    let text = "Resources:
  Events: { Type: AWS::Kinesis::Stream, Properties: { Name: events, ShardCount: 2 } }
  Fan: { Type: AWS::Kinesis::StreamConsumer, Properties: { ConsumerName: fan, StreamARN: !GetAtt Events.Arn } }
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      CodeUri: f
      Events: { E: { Type: Kinesis, Properties: { Stream: !Ref Fan, StartingPosition: TRIM_HORIZON, BatchSize: 7 } } }
";
    Template::parse("t", text, &TemplateOptions::default()).unwrap()
}

/// A subscription ends after five minutes and is renewed from the continuation sequence number
/// (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>).
#[tokio::test]
async fn a_subscription_that_ends_is_renewed_without_loss() {
    let mut options = external(fan_out());
    options.subscription_lifetime = Duration::from_millis(2);
    let cloud = Arc::new(LocalCloud::start(options).await.unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&seen);
    let function = fake_function(&cloud, "f", move |event| {
        calls.lock().unwrap().extend(data_of(event));
        Answer::success()
    });
    for chunk in keyed(30, 3_000).chunks(100) {
        put(&cloud, "events", chunk).await;
    }
    drained(&cloud).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((check_order(&seen), seen.len()), (3_000, 3_000));
    let progress = cloud.progress().mappings[0].clone();
    assert!(
        progress.subscriptions_renewed > 10,
        "{}",
        progress.subscriptions_renewed
    );
    assert_eq!((progress.retries, progress.events.polled), (0, 3_000));
    function.abort();
}

/// What cannot be invoked, for throttling or another reason, is tried until the records expire or exceed the maximum age: no
/// retry is used up
/// (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_throttled_function_is_tried_again_without_using_up_retries() {
    let mut options = external(fan_out());
    options.template.functions[0].reserved_concurrency = Some(1);
    options.template.mappings[0].retry_attempts_max = Some(0);
    // With one invocation at a time, no batch is at two processes at once: nothing of that kind is counted.
    let faults = Faults::seeded(BTreeMap::from([(FaultKind::ConcurrentDelivery, 300)]), 7);
    options.faults = faults.clone();
    let cloud = LocalCloud::start(options).await.unwrap();
    let functions: Vec<_> = (0..2)
        .map(|_| {
            fake_function(&cloud, "f", |_| {
                work_for(Duration::from_millis(5));
                Answer::success()
            })
        })
        .collect();
    put(&cloud, "events", &keyed(30, 300)).await;
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    assert!(progress.throttles > 0);
    assert_eq!(faults.injected(), BTreeMap::from([(FaultKind::ConcurrentDelivery, 0)]));
    assert_eq!(
        (progress.records_completed, progress.records_dropped, progress.retries),
        (300, 0, 0)
    );
    functions.into_iter().for_each(|function| function.abort());
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_function_without_concurrency_is_told_as_stuck() {
    let mut options = external(template("BatchSize: 10, MaximumRetryAttempts: 0"));
    options.template.functions[0].reserved_concurrency = Some(0);
    let cloud = LocalCloud::start(options).await.unwrap();
    put(&cloud, "events", &numbered(1)).await;
    let error = drained(&cloud).await.unwrap_err();
    assert!(matches!(error, LocalError::Stuck(_)));
    assert!(error.to_string().contains("reserved concurrency is 0"), "{error}");
    assert_eq!(cloud.progress().mappings[0].invocations, 0);
    cloud.shutdown().await;
}

/// Reads that Kinesis refuses (`ProvisionedThroughputExceededException`,
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html>) are tried again and cost no retry.
#[tokio::test]
async fn a_refused_read_is_tried_again() {
    let mut options = external(template("BatchSize: 10, MaximumRetryAttempts: 0"));
    options.faults = Faults::seeded(BTreeMap::from([(FaultKind::KinesisThrottle, 500)]), 1);
    let cloud = LocalCloud::start(options).await.unwrap();
    let function = fake_function(&cloud, "f", |_| Answer::success());
    let client = kinesis_client(&cloud.endpoints().kinesis_url);
    for (key, data) in numbered(30) {
        // The same fault strikes puts too.
        let put = || {
            let entry = PutRecordsRequestEntry::builder().partition_key(&key);
            let entry = entry.data(Blob::new(data.clone())).build().unwrap();
            let put = client.put_records().stream_name("events").records(entry);
            let without_backoff = Config::builder().retry_config(RetryConfig::disabled());
            put.customize().config_override(without_backoff).send()
        };
        while put().await.is_err() {}
    }
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    assert!(progress.reads_failed > 0);
    assert_eq!(
        (progress.records_completed, progress.records_dropped, progress.retries),
        (30, 0, 0)
    );
    function.abort();
    cloud.shutdown().await;
}

/// The iterator age is the time from the stream's receiving the last record of an event to the event's being sent to the
/// function (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>).
#[tokio::test]
async fn the_iterator_age_is_from_put_to_invocation() {
    let mut options = external(template("BatchSize: 10"));
    options.fanout_latency = Duration::from_millis(200);
    options.clock = Clock::data(["events"], |_: &[u8]| Some(0));
    let cloud = LocalCloud::start(options).await.unwrap();
    let function = fake_function(&cloud, "f", |_| Answer::success());
    put(&cloud, "events", &numbered(3)).await;
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    let (last, max) = (progress.iterator_age_ms_last, progress.iterator_age_ms_max);
    assert!(
        (200..30_000).contains(&last) && max >= last,
        "{last} ms, at most {max} ms"
    );
    function.abort();
    cloud.shutdown().await;
}

/// Event source mappings deliver at least once: "duplicate processing of records can occur"
/// (<https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html>). Each fault shows one way, and none loses
/// a record, or counts one twice, or lets a key's record come before an earlier one was seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redelivery_on_purpose_repeats_and_loses_nothing() {
    let kinds = [
        (FaultKind::DuplicateDelivery, true),
        (FaultKind::OverlappingBatch, true),
        (FaultKind::ConcurrentDelivery, true),
        (FaultKind::StaleContainer, false),
    ];
    for (kind, repeats) in kinds {
        for mapping in [
            "BatchSize: 10",
            "BatchSize: 10, ParallelizationFactor: 3, BisectBatchOnFunctionError: true",
        ] {
            let mut options = external(template(mapping));
            let faults = Faults::seeded(BTreeMap::from([(kind, 300)]), 7);
            options.faults = faults.clone();
            let cloud = LocalCloud::start(options).await.unwrap();
            let seen = Arc::new(Mutex::new(Vec::new()));
            let functions: Vec<_> = (0..4)
                .map(|_| {
                    let seen = Arc::clone(&seen);
                    let failures = AtomicUsize::new(0);
                    fake_function(&cloud, "f", move |event: &Value| {
                        seen.lock().unwrap().extend(data_of(event));
                        if failures.fetch_add(1, Ordering::SeqCst) % 11 == 5 {
                            return Answer::Error("now and then");
                        }
                        Answer::success()
                    })
                })
                .collect();
            put(&cloud, "events", &keyed(40, 1_000)).await;
            drained(&cloud).await.unwrap();
            let progress = cloud.progress().mappings[0].clone();
            assert_eq!(progress.records_completed, 1_000, "{kind} with {mapping}");
            let seen = seen.lock().unwrap().clone();
            assert_eq!(check_order(&seen), 1_000, "{kind} with {mapping}");
            assert!(!repeats || seen.len() > 1_000, "{kind} with {mapping}");
            // Whoever asks is the one process for a function that was started by hand, so there is no other to go to.
            assert_eq!(faults.injected()[&kind] > 0, repeats, "{kind} with {mapping}");
            functions.into_iter().for_each(|function| function.abort());
            cloud.shutdown().await;
        }
    }
}
