//! The gate's promise: under concurrent puts and reads nothing is lost and nothing freezes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::builders::StartingPositionBuilder;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType, SubscribeToShardEventStream};

use crate::Clock;
use crate::kinesis::{Kinesis, KinesisOptions};
use crate::template::{Stream, StreamConsumer};
use crate::tests::kinesis_client;

const WRITERS: usize = 8;
const RECORDS_PER_WRITER: usize = 2_000;
const SHARDS: u32 = 4;
/// Ungated it freezes for good; gated it takes about a second.
const PATIENCE: Duration = Duration::from_secs(20);

fn stream() -> Stream {
    Stream {
        logical_id: "S".into(),
        name: "s".into(),
        arn: "arn:aws:kinesis:us-east-1:000000000000:stream/s".into(),
        shard_count: SHARDS,
        on_demand: false,
        retention_hours: 24,
    }
}

async fn start() -> Kinesis {
    let options = KinesisOptions {
        port: 0,
        region: "us-east-1".into(),
        shards: SHARDS,
        clock: Clock::Wall,
        put_times_per_shard_max: 1_000_000,
        on_put: None,
        faults: crate::Faults::none(),
    };
    let kinesis = Kinesis::start(options).await.unwrap();
    kinesis.create_stream(&stream()).await.unwrap();
    kinesis
}

/// 8 writers, batches of this size, beside a GetRecords reader, a fan-out reader and an in-process reader: none lost, none
/// frozen.
async fn none_lost_none_frozen(batch: usize) {
    let kinesis = start().await;
    let consumer_arn = format!("{}/consumer/fan:1700000000", stream().arn);
    let consumer = StreamConsumer {
        logical_id: "C".into(),
        name: "fan".into(),
        arn: consumer_arn.clone(),
        stream_arn: stream().arn,
    };
    kinesis.register_consumer(&consumer).await.unwrap();
    let client = kinesis_client(kinesis.url());
    let expected = WRITERS * RECORDS_PER_WRITER;
    let polled = Arc::new(AtomicU64::new(0));
    let pushed = Arc::new(AtomicU64::new(0));
    let tailed = Arc::new(AtomicU64::new(0));

    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        tasks.spawn(async move {
            for first in (0..RECORDS_PER_WRITER).step_by(batch) {
                let entries = (first..(first + batch).min(RECORDS_PER_WRITER)).map(|index| {
                    let id = format!("{writer}-{index}");
                    PutRecordsRequestEntry::builder()
                        .data(Blob::new(format!(
                            "{{\"id\":\"{id}\",\"padding\":\"{}\"}}",
                            "x".repeat(200)
                        )))
                        .partition_key(id)
                        .build()
                        .unwrap()
                });
                let put = client
                    .put_records()
                    .stream_name("s")
                    .set_records(Some(entries.collect()))
                    .send()
                    .await
                    .unwrap();
                assert_eq!(put.failed_record_count(), Some(0));
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for shard in 0..SHARDS {
        let shard_id = format!("shardId-{shard:012}");
        let (poller, seen, id) = (client.clone(), Arc::clone(&polled), shard_id.clone());
        readers.spawn(async move {
            let iterator = poller
                .get_shard_iterator()
                .stream_name("s")
                .shard_id(id)
                .shard_iterator_type(ShardIteratorType::TrimHorizon)
                .send()
                .await
                .unwrap();
            let mut iterator = iterator.shard_iterator;
            while let Some(current) = iterator {
                let got = poller
                    .get_records()
                    .shard_iterator(current)
                    .limit(500)
                    .send()
                    .await
                    .unwrap();
                seen.fetch_add(got.records().len() as u64, Ordering::Relaxed);
                iterator = got.next_shard_iterator;
            }
        });
        let (client, seen, id, arn) = (
            client.clone(),
            Arc::clone(&pushed),
            shard_id.clone(),
            consumer_arn.clone(),
        );
        readers.spawn(async move {
            let position = StartingPositionBuilder::default()
                .r#type(ShardIteratorType::TrimHorizon)
                .build()
                .unwrap();
            let subscription = client
                .subscribe_to_shard()
                .consumer_arn(arn)
                .shard_id(id)
                .starting_position(position)
                .send()
                .await
                .unwrap();
            let mut events = subscription.event_stream;
            while let Ok(Some(event)) = events.recv().await {
                if let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event {
                    seen.fetch_add(event.records().len() as u64, Ordering::Relaxed);
                }
            }
        });
        let (state, seen) = (Arc::clone(kinesis.state()), Arc::clone(&tailed));
        readers.spawn(async move {
            let (name, shards) = state.shards_of("s").unwrap();
            let log = &shards[shard as usize];
            let mut bell = log.subscribe();
            let mut position: Option<String> = None;
            loop {
                bell.mark_unchanged();
                loop {
                    let records = state.read(&name, log, position.as_deref(), 1_000).await;
                    let Some(last) = records.last() else { break };
                    assert!(
                        records.iter().all(|record| record.put.is_some()),
                        "every put is remembered"
                    );
                    position = Some(last.position().to_owned());
                    seen.fetch_add(records.len() as u64, Ordering::Relaxed);
                }
                if bell.changed().await.is_err() {
                    return;
                }
            }
        });
    }
    let all_seen = async {
        while tasks.join_next().await.transpose().unwrap().is_some() {}
        let all = |counter: &AtomicU64| counter.load(Ordering::Relaxed) >= expected as u64;
        while !(all(&polled) && all(&pushed) && all(&tailed)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let finished = tokio::time::timeout(PATIENCE, all_seen).await;
    let seen = [&polled, &pushed, &tailed].map(|counter| counter.load(Ordering::Relaxed));
    assert!(
        finished.is_ok(),
        "frozen or lost: of {expected} GetRecords, fan-out and tail saw {seen:?}"
    );
    assert_eq!(seen, [expected as u64; 3], "none twice");

    let stored = kinesis.read_all("s").await.unwrap();
    let keys: BTreeSet<_> = stored.iter().map(|record| record.partition_key.as_str()).collect();
    assert_eq!((stored.len(), keys.len()), (expected, expected));
    let first = &stored[0];
    assert_eq!(
        kinesis.put_instant("s", &first.shard_id, &first.sequence_number),
        first.put
    );
    readers.shutdown().await;
    kinesis.close().await;
}

/// Runs the check on two threads of its own, watched from a third: what freezes takes its runtime's timers with it.
fn check(batch: usize) {
    let (ended, when_ended) = std::sync::mpsc::channel();
    let checking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(none_lost_none_frozen(batch));
        ended.send(()).unwrap();
    });
    match when_ended.recv_timeout(PATIENCE + Duration::from_secs(5)) {
        Ok(()) => {}
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("frozen"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(checking.join().unwrap_err());
        }
    }
}

#[test]
fn concurrent_puts_of_20_and_readers_lose_nothing() {
    check(20);
}

#[test]
fn concurrent_puts_of_200_and_readers_lose_nothing() {
    check(200);
}

#[test]
fn concurrent_puts_of_500_and_readers_lose_nothing() {
    check(500);
}
