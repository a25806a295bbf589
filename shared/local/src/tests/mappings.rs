//! Event source mappings, seen from the function and from the caller.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{Clock, LocalCloud, LocalError, Template, TemplateOptions};

use super::{Answer, data_of, drained, external, fake_function, numbered, put, sequence_of, template};

type Calls = Arc<Mutex<Vec<Vec<String>>>>;

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|index| index.to_string()).collect()
}

/// Runs `count` numbered records through a function that answers as `answer` says, given the data and how often it was
/// called before. Gives back the batches that it saw.
async fn run(
    mapping: &str,
    count: usize,
    answer: impl Fn(&serde_json::Value, &[String], usize) -> Answer + Send + Sync + 'static,
) -> (Vec<Vec<String>>, crate::MappingProgress, Result<(), LocalError>) {
    let cloud = LocalCloud::start(external(template(mapping))).await.unwrap();
    put(&cloud, "events", &numbered(count)).await;
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        let data = data_of(event);
        let mut seen = seen.lock().unwrap();
        seen.push(data.clone());
        answer(event, &data, seen.len() - 1)
    });
    let result = drained(&cloud).await;
    let progress = cloud.progress().mappings[0].clone();
    function.abort();
    cloud.shutdown().await;
    (
        Arc::try_unwrap(calls)
            .map(|calls| calls.into_inner().unwrap())
            .unwrap_or_default(),
        progress,
        result,
    )
}

const REPORTING: &str = "FunctionResponseTypes: [ReportBatchItemFailures]";

#[tokio::test]
async fn records_come_in_order_in_batches_of_the_batch_size() {
    let (calls, progress, result) = run("BatchSize: 4", 10, |_, _, _| Answer::success()).await;
    result.unwrap();
    assert_eq!(calls, [texts(0..4), texts(4..8), texts(8..10)]);
    assert_eq!(
        (
            progress.records_to_read,
            progress.records_completed,
            progress.invocations
        ),
        (10, 10, 3)
    );
    assert_eq!(
        (progress.retries, progress.in_flight, progress.records_dropped),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn everything_from_the_lowest_failed_record_comes_again() {
    let mapping = format!("BatchSize: 10, {REPORTING}");
    let (calls, progress, result) = run(&mapping, 6, |event, data, _| match data[0].as_str() {
        "0" => Answer::failed_at(&sequence_of(event, 2)),
        "2" if data.len() == 4 => Answer::failed_at(&sequence_of(event, 3)),
        _ => Answer::success(),
    })
    .await;
    result.unwrap();
    assert_eq!(calls, [texts(0..6), texts(2..6), texts(5..6)]);
    assert_eq!(
        (
            progress.records_completed,
            progress.retries,
            progress.invocations_partial
        ),
        (6, 2, 2)
    );
}

#[tokio::test]
async fn a_failed_batch_comes_again_whole_until_its_retries_are_used_up() {
    let mapping = format!("BatchSize: 2, MaximumRetryAttempts: 2, {REPORTING}");
    let (calls, progress, result) = run(&mapping, 4, |_, data, call| match (data[0].as_str(), call) {
        ("0", 0) => Answer::Error("no"),
        ("0", 1) => Answer::Respond("not json".into()),
        ("0", _) => Answer::Respond(r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#.into()),
        _ => Answer::success(),
    })
    .await;
    result.unwrap();
    assert_eq!(calls, [texts(0..2), texts(0..2), texts(0..2), texts(2..4)]);
    assert_eq!(
        (
            progress.records_completed,
            progress.records_dropped,
            progress.invocations_failed
        ),
        (2, 2, 3)
    );
    let dropped = &progress.dropped[0];
    assert_eq!(
        (dropped.records, dropped.attempts, dropped.shard_id.as_str()),
        (2, 3, "shardId-000000000000")
    );
    assert!(
        dropped.reason.contains("without an itemIdentifier"),
        "{}",
        dropped.reason
    );
}

#[tokio::test]
async fn a_function_that_never_succeeds_is_told_as_stuck() {
    let (_, progress, result) = run("BatchSize: 2", 4, |_, _, _| Answer::Error("the table is missing")).await;
    let message = result.unwrap_err().to_string();
    assert!(
        message.contains("F/Read on shardId-000000000000: failed 20 times in a row"),
        "{message}"
    );
    assert!(message.contains("Oops: the table is missing"), "{message}");
    assert_eq!((progress.records_completed, progress.records_dropped), (0, 0));
}

#[tokio::test]
async fn silence_beyond_the_timeout_is_a_failure() {
    let (calls, progress, result) = run("BatchSize: 2", 2, |_, _, call| match call {
        0 => Answer::Silence,
        _ => Answer::success(),
    })
    .await;
    result.unwrap();
    assert_eq!(calls, [texts(0..2), texts(0..2)]);
    assert_eq!(progress.last_error.as_deref(), Some("task timed out after 2 seconds"));
}

#[tokio::test]
async fn a_response_over_lambdas_limit_is_a_failure() {
    let (_, progress, result) = run("BatchSize: 2", 2, |_, _, call| match call {
        0 => Answer::Respond(format!("\"{}\"", "x".repeat(crate::runtime_api::RESPONSE_BYTES_MAX))),
        1 => Answer::Respond(format!(
            "\"{}\"",
            "x".repeat(crate::runtime_api::RESPONSE_BYTES_MAX - 2)
        )),
        _ => Answer::success(),
    })
    .await;
    result.unwrap();
    assert_eq!((progress.invocations, progress.invocations_failed), (2, 1));
    assert!(
        progress
            .last_error
            .unwrap()
            .contains("the response exceeds 6291556 bytes")
    );
}

#[tokio::test]
async fn the_payload_limit_cuts_a_batch() {
    let cloud = LocalCloud::start(external(template("BatchSize: 10000"))).await.unwrap();
    // 5 MB in one call, as Kinesis takes it.
    let megabyte = vec![b'x'; 1_000_000];
    for _ in 0..2 {
        put(&cloud, "events", &vec![("key".to_owned(), megabyte.clone()); 5]).await;
    }
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let function = fake_function(&cloud, "f", move |event| {
        let bytes = serde_json::to_vec(event).unwrap().len();
        seen.lock()
            .unwrap()
            .push((event["Records"].as_array().unwrap().len(), bytes));
        Answer::success()
    });
    drained(&cloud).await.unwrap();
    let sizes = sizes.lock().unwrap().clone();
    assert_eq!(
        sizes.iter().map(|(records, _)| *records).collect::<Vec<_>>(),
        [4, 4, 2],
        "{sizes:?}"
    );
    assert!(
        sizes
            .iter()
            .all(|(_, bytes)| *bytes <= crate::runtime_api::REQUEST_BYTES_MAX),
        "{sizes:?}"
    );
    function.abort();
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_batching_window_waits_for_more_but_not_for_ever() {
    let cloud = LocalCloud::start(external(template("BatchSize: 6, MaximumBatchingWindowInSeconds: 1")))
        .await
        .unwrap();
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        seen.lock().unwrap().push(data_of(event));
        Answer::success()
    });
    let started = Instant::now();
    for chunk in numbered(8).chunks(2) {
        put(&cloud, "events", chunk).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drained(&cloud).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "the last two wait for the window's end"
    );
    assert_eq!(*calls.lock().unwrap(), [texts(0..6), texts(6..8)]);
    function.abort();
    cloud.shutdown().await;
}

#[tokio::test]
async fn latest_skips_what_was_there_and_reads_what_comes() {
    let latest = "BatchSize: 10";
    let mut options = external(template(latest));
    options.template.mappings[0].starting_position = crate::template::StartingPosition::Latest;
    let cloud = LocalCloud::start(options).await.unwrap();
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        seen.lock().unwrap().push(data_of(event));
        Answer::success()
    });
    put(&cloud, "events", &numbered(3)).await;
    drained(&cloud).await.unwrap();
    assert_eq!(
        calls.lock().unwrap().concat(),
        texts(0..3),
        "the stream was empty when the mapping started"
    );
    function.abort();
    cloud.shutdown().await;
}

#[tokio::test]
async fn fanout_latency_is_added_between_put_and_delivery() {
    let mut options = external(template("BatchSize: 10"));
    options.fanout_latency = Duration::from_millis(300);
    let cloud = LocalCloud::start(options).await.unwrap();
    let function = fake_function(&cloud, "f", |_| Answer::success());
    put(&cloud, "events", &numbered(3)).await;
    drained(&cloud).await.unwrap();
    let latency = &cloud.latencies()[0].put_to_done_us;
    assert_eq!(latency.len(), 3);
    assert!(latency.min() >= 300_000, "{} us", latency.min());
    function.abort();
    cloud.shutdown().await;
}

#[tokio::test]
async fn under_the_data_clock_a_record_arrives_when_its_bytes_say() {
    let mut options = external(template("BatchSize: 10"));
    options.clock = Clock::data(["events"], |data: &[u8]| {
        std::str::from_utf8(data).ok()?.strip_prefix("at ")?.parse().ok()
    });
    let cloud = LocalCloud::start(options).await.unwrap();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&arrivals);
    let function = fake_function(&cloud, "f", move |event| {
        for record in event["Records"].as_array().unwrap() {
            seen.lock()
                .unwrap()
                .push(record["kinesis"]["approximateArrivalTimestamp"].as_f64().unwrap());
        }
        Answer::success()
    });
    let records = ["at 1000500", "at 7", "no time"].map(|data| ("key".to_owned(), data.as_bytes().to_vec()));
    put(&cloud, "events", &records).await;
    drained(&cloud).await.unwrap();
    let arrivals = arrivals.lock().unwrap().clone();
    assert_eq!(arrivals[..2], [1000.5, 0.007]);
    assert!(arrivals[2] > 1_700_000_000.0, "the wall clock stands in");
    let all = cloud.read_all("events").await.unwrap();
    assert_eq!(
        all.iter().map(|record| record.arrival_ms).take(2).collect::<Vec<_>>(),
        [1_000_500, 7]
    );
    assert!(matches!(
        cloud.read_all("nothing").await,
        Err(LocalError::StreamUnknown { .. })
    ));
    function.abort();
    cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn a_drain_follows_records_through_every_stage() {
    let text = "Resources:
  In: { Type: AWS::Kinesis::Stream, Properties: { Name: in, ShardCount: 4 } }
  Out: { Type: AWS::Kinesis::Stream, Properties: { Name: out, ShardCount: 2 } }
  Fan: { Type: AWS::Kinesis::StreamConsumer, Properties: { ConsumerName: fan, StreamARN: !GetAtt In.Arn } }
  First:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: first
      CodeUri: first
      Events: { E: { Type: Kinesis, Properties: { Stream: !Ref Fan, StartingPosition: TRIM_HORIZON, BatchSize: 50 } } }
  Second:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: second
      CodeUri: second
      Events: { E: { Type: Kinesis, Properties: { Stream: !GetAtt Out.Arn, StartingPosition: TRIM_HORIZON } } }
";
    let template = Template::parse("t", text, &TemplateOptions::default()).unwrap();
    let put_seen = Arc::new(Mutex::new(0_usize));
    let observed = Arc::clone(&put_seen);
    let mut options = external(template);
    options.on_put = Some(Arc::new(move |record| {
        assert!(record.put.is_some() && !record.data.is_empty());
        *observed.lock().unwrap() += 1;
    }));
    let cloud = Arc::new(LocalCloud::start(options).await.unwrap());
    let (forward, mut forwarded) = tokio::sync::mpsc::channel::<(String, tokio::sync::oneshot::Sender<()>)>(100);
    let putter = Arc::clone(&cloud);
    let forwarder = tokio::spawn(async move {
        while let Some((text, done)) = forwarded.recv().await {
            put(&putter, "out", &[(text.clone(), text.into_bytes())]).await;
            let _ = done.send(());
        }
    });
    let mut functions = Vec::new();
    for _ in 0..4 {
        let forward = forward.clone();
        functions.push(fake_function(&cloud, "first", move |event| {
            let source = event["Records"][0]["eventSourceARN"].as_str().unwrap();
            assert!(source.contains(":stream/in/consumer/fan:"), "{source}");
            // Blocks as a function's own put does: it is done before the answer.
            let (done, put_done) = tokio::sync::oneshot::channel();
            forward
                .try_send((format!("batch {}", event["Records"].as_array().unwrap().len()), done))
                .unwrap();
            tokio::task::block_in_place(|| futures::executor::block_on(put_done)).unwrap();
            Answer::success()
        }));
    }
    let second = Arc::new(Mutex::new(0_usize));
    let seen = Arc::clone(&second);
    functions.push(fake_function(&cloud, "second", move |event| {
        *seen.lock().unwrap() += event["Records"].as_array().unwrap().len();
        Answer::success()
    }));
    let records: Vec<_> = (0..1_000)
        .map(|index| (format!("user {index}"), b"x".to_vec()))
        .collect();
    put(&cloud, "in", &records).await;
    drained(&cloud).await.unwrap();
    let progress = cloud.progress();
    let batches = progress.mappings[0].invocations;
    assert_eq!(progress.mappings[0].records_completed, 1_000);
    assert_eq!(progress.streams["in"].records_put, 1_000);
    assert!(
        progress.streams["in"]
            .records_put_by_shard
            .values()
            .all(|records| *records > 100)
    );
    assert_eq!(progress.streams["out"].records_put, batches);
    assert_eq!(*second.lock().unwrap() as u64, batches);
    assert_eq!(*put_seen.lock().unwrap() as u64, 1_000 + batches);
    for task in functions {
        task.abort();
    }
    forwarder.abort();
}
