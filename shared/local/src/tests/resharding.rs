//! Shards that are split, merged and counted anew while the stream is written and read. Every record is delivered, and a
//! partition key's records in order: its shard's parents are read to their end first
//! (<https://docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-after-resharding.html>), and a child from its
//! beginning.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ScalingType;

use crate::template::StartingPosition;
use crate::{LocalCloud, Template, TemplateOptions};

use super::{Answer, data_of, drained, external, fake_function, kinesis_client, work_for};

const WRITERS: usize = 4;
const KEYS_PER_WRITER: usize = 12;
const FUNCTIONS: usize = 8;

fn template(mapping: &str) -> Template {
    let text = format!(
        "Resources:
  Events: {{ Type: AWS::Kinesis::Stream, Properties: {{ Name: events, ShardCount: 2 }} }}
  Fan: {{ Type: AWS::Kinesis::StreamConsumer, Properties: {{ ConsumerName: fan, StreamARN: !GetAtt Events.Arn }} }}
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      CodeUri: f
      Events: {{ E: {{ Type: Kinesis, Properties: {{ Stream: !Ref Fan, StartingPosition: TRIM_HORIZON, {mapping} }} }} }}
"
    );
    Template::parse("t", &text, &TemplateOptions::default()).unwrap()
}

/// What is done to the stream.
#[derive(Debug, Clone, Copy)]
enum Change {
    Split,
    Merge,
    Count(i32),
    /// Whatever [`LocalCloud::reshard`] chooses.
    Random(u64),
}

async fn apply(cloud: &LocalCloud, change: Change) {
    let client = kinesis_client(&cloud.endpoints().kinesis_url);
    let listed = client.list_shards().stream_name("events").send().await.unwrap();
    let mut open: Vec<_> = listed
        .shards()
        .iter()
        .filter(|shard| {
            let range = shard.sequence_number_range();
            range.is_some_and(|range| range.ending_sequence_number().is_none())
        })
        .map(|shard| {
            let keys = shard.hash_key_range().unwrap();
            let number = |text: &str| text.parse::<u128>().unwrap();
            (
                number(keys.starting_hash_key()),
                number(keys.ending_hash_key()),
                shard.shard_id().to_owned(),
            )
        })
        .collect();
    open.sort();
    match change {
        Change::Split => {
            let (first, last, shard_id) = &open[0];
            let middle = first + (last - first) / 2;
            let split = client.split_shard().stream_name("events").shard_to_split(shard_id);
            split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
        }
        Change::Merge => {
            let merge = client.merge_shards().stream_name("events").shard_to_merge(&open[0].2);
            merge.adjacent_shard_to_merge(&open[1].2).send().await.unwrap();
        }
        Change::Count(count) => {
            let update = client
                .update_shard_count()
                .stream_name("events")
                .target_shard_count(count);
            update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        }
        Change::Random(random) => {
            assert!(cloud.reshard("events", random).await.unwrap());
        }
    }
}

/// Writes all the while, applies the changes one after another, and checks what the function saw.
async fn check(mapping: &str, changes: &[Change], subscription_lifetime: Duration) {
    let mut options = external(template(mapping));
    options.subscription_lifetime = subscription_lifetime;
    let cloud = Arc::new(LocalCloud::start(options).await.unwrap());
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let functions: Vec<_> = (0..FUNCTIONS)
        .map(|_| {
            let seen = Arc::clone(&seen);
            fake_function(&cloud, "f", move |event| {
                seen.lock().unwrap().extend(data_of(event));
                // Long enough for a parent to be behind when its children come.
                work_for(Duration::from_millis(2));
                Answer::success()
            })
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = kinesis_client(&cloud.endpoints().kinesis_url);
        let stop = Arc::clone(&stop);
        writers.spawn(async move {
            let mut rounds = 0;
            while !stop.load(Ordering::SeqCst) {
                let entries = (0..KEYS_PER_WRITER).map(|key| {
                    aws_sdk_kinesis::types::PutRecordsRequestEntry::builder()
                        .partition_key(format!("{writer}-{key}"))
                        .data(Blob::new(format!("{writer}-{key} {rounds}")))
                        .build()
                        .unwrap()
                });
                let put = client
                    .put_records()
                    .stream_name("events")
                    .set_records(Some(entries.collect()));
                assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
                rounds += 1;
            }
            rounds * KEYS_PER_WRITER
        });
    }
    for change in changes {
        tokio::time::sleep(Duration::from_millis(40)).await;
        apply(&cloud, *change).await;
    }
    tokio::time::sleep(Duration::from_millis(40)).await;
    stop.store(true, Ordering::SeqCst);
    let mut written = 0;
    while let Some(count) = writers.join_next().await {
        written += count.unwrap();
    }
    drained(&cloud).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), written, "{mapping} {changes:?}");
    let mut next: HashMap<&str, usize> = HashMap::new();
    for text in seen.iter() {
        let (key, round) = text.split_once(' ').unwrap();
        let expected = next.entry(key).or_default();
        assert_eq!(round, expected.to_string(), "{key} with {mapping} {changes:?}");
        *expected += 1;
    }
    let shards = cloud.progress().streams["events"].records_put_by_shard.len();
    assert!(shards > 2 && written > 500, "{written} records over {shards} shards");
    assert_eq!(cloud.progress().mappings[0].records_completed, written as u64);
    functions.into_iter().for_each(|function| function.abort());
}

const LONG: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_split_under_load_keeps_every_record_and_each_keys_order() {
    check("BatchSize: 20", &[Change::Split], LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_merge_under_load_keeps_every_record_and_each_keys_order() {
    check("BatchSize: 20", &[Change::Merge], LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_new_shard_count_under_load_keeps_every_record_and_each_keys_order() {
    check("BatchSize: 20", &[Change::Count(3), Change::Count(2)], LONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn many_changes_with_lanes_and_short_subscriptions_keep_every_record_and_each_keys_order() {
    let changes = [
        Change::Split,
        Change::Merge,
        Change::Count(4),
        Change::Random(1),
        Change::Random(2),
        Change::Random(3),
    ];
    let mapping = "BatchSize: 10, ParallelizationFactor: 3";
    check(mapping, &changes, Duration::from_millis(3)).await;
}

/// A mapping that began at LATEST reads what comes of a reshard from its beginning.
#[tokio::test]
async fn a_child_is_read_from_its_beginning_whatever_the_starting_position() {
    let mut options = external(template("BatchSize: 10"));
    options.template.mappings[0].starting_position = StartingPosition::Latest;
    let cloud = LocalCloud::start(options).await.unwrap();
    let seen = Arc::new(Mutex::new(0));
    let calls = Arc::clone(&seen);
    let function = fake_function(&cloud, "f", move |event| {
        *calls.lock().unwrap() += data_of(event).len();
        Answer::success()
    });
    apply(&cloud, Change::Count(4)).await;
    let records: Vec<_> = (0..50).map(|key| (format!("user {key}"), b"x".to_vec())).collect();
    super::put(&cloud, "events", &records).await;
    drained(&cloud).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), 50);
    function.abort();
    cloud.shutdown().await;
}
