//! Tumbling windows: <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html>.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Clock, LocalCloud, LocalCloudOptions};

use super::{Answer, data_of, drained, external, fake_function, put, sequence_of, template, work_for};

/// What the function was told: data, state before, whether final, whether early.
type Told = (String, Value, bool, bool);

/// Adds the number of records to `state.n`.
fn counting(event: &Value) -> Value {
    let before = event["state"]["n"].as_u64().unwrap_or(0);
    json!({ "n": before + event["Records"].as_array().unwrap().len() as u64 })
}

fn told(event: &Value) -> Told {
    assert_eq!(event["shardId"], "shardId-000000000000");
    assert!(event["eventSourceARN"].is_string() && event["window"]["start"].is_string());
    let flag = |name: &str| event[name].as_bool().unwrap();
    let data = data_of(event).join(" ");
    let (is_final, is_early) = (flag("isFinalInvokeForWindow"), flag("isWindowTerminatedEarly"));
    (data, event["state"].clone(), is_final, is_early)
}

fn on_data_clock(mapping: &str) -> LocalCloudOptions {
    let mut options = external(template(mapping));
    options.clock = Clock::data(["events"], |data: &[u8]| {
        let seconds: i64 = std::str::from_utf8(data).ok()?.parse().ok()?;
        Some(seconds * 1_000)
    });
    options
}

async fn run(
    options: LocalCloudOptions,
    records: &[&str],
    answer: impl Fn(&Value, usize) -> Answer + Send + Sync + 'static,
) -> (Vec<Told>, crate::MappingProgress) {
    let cloud = LocalCloud::start(options).await.unwrap();
    let records: Vec<_> = records
        .iter()
        .map(|data| ("key".to_owned(), data.as_bytes().to_vec()))
        .collect();
    put(&cloud, "events", &records).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        let mut seen = seen.lock().unwrap();
        seen.push(told(event));
        answer(event, seen.len() - 1)
    });
    drained(&cloud).await.unwrap();
    let progress = cloud.progress().mappings[0].clone();
    function.abort();
    cloud.shutdown().await;
    let calls = calls.lock().unwrap().clone();
    (calls, progress)
}

fn call(data: &str, n: Option<u64>, is_final: bool) -> Told {
    (
        data.to_owned(),
        n.map_or(json!({}), |n| json!({ "n": n })),
        is_final,
        false,
    )
}

#[tokio::test]
async fn a_state_goes_from_call_to_call_within_a_window_and_ends_with_it() {
    let options = on_data_clock("BatchSize: 2, TumblingWindowInSeconds: 10");
    let records = ["1", "2", "9", "11", "12", "35"];
    let (calls, progress) = run(options, &records, |event, _| {
        Answer::Respond(json!({ "state": counting(event) }).to_string())
    })
    .await;
    assert_eq!(
        calls,
        [
            call("1 2", None, false),
            call("9", Some(2), false),
            call("", Some(3), true),
            call("11", None, false),
            call("12", Some(1), false),
            call("", Some(2), true),
            call("35", None, false),
        ]
    );
    assert_eq!((progress.windows_closed, progress.records_completed), (2, 6));
}

/// "If the response does not contain a state property, Lambda considers this a failed invocation"; the batch comes again with
/// the state as it was, and the final invocation again until it succeeds.
#[tokio::test]
async fn an_answer_without_a_state_is_a_failure() {
    let options = on_data_clock("BatchSize: 2, TumblingWindowInSeconds: 10");
    let (calls, progress) = run(options, &["1", "2", "11"], |event, call| match call {
        0 | 2 => Answer::Respond("{}".into()),
        _ => Answer::Respond(json!({ "state": counting(event) }).to_string()),
    })
    .await;
    assert_eq!(
        calls,
        [
            call("1 2", None, false),
            call("1 2", None, false),
            call("", Some(2), true),
            call("", Some(2), true),
            call("11", None, false),
        ]
    );
    assert_eq!((progress.retries, progress.records_dropped), (2, 0));
}

#[tokio::test]
async fn a_partial_response_keeps_its_state() {
    let options =
        on_data_clock("BatchSize: 3, TumblingWindowInSeconds: 10, FunctionResponseTypes: [ReportBatchItemFailures]");
    let (calls, _) = run(options, &["1", "2", "3"], |event, call| {
        let mut answer = json!({ "state": { "n": 1 }, "batchItemFailures": [] });
        if call == 0 {
            answer["batchItemFailures"] = json!([{ "itemIdentifier": sequence_of(event, 1) }]);
        }
        Answer::Respond(answer.to_string())
    })
    .await;
    assert_eq!(calls, [call("1 2 3", None, false), call("2 3", Some(1), false)]);
}

/// "Your state can be a maximum of 1 MB per shard. If it exceeds that size, Lambda terminates the window early."
#[tokio::test]
async fn a_state_over_one_megabyte_ends_the_window_early() {
    let options = on_data_clock("BatchSize: 1, TumblingWindowInSeconds: 10");
    let (calls, progress) = run(options, &["1", "2"], |_, call| match call {
        0 => Answer::Respond(json!({ "state": { "x": "x".repeat(1_100_000) } }).to_string()),
        _ => Answer::Respond(json!({ "state": {} }).to_string()),
    })
    .await;
    let flags: Vec<_> = calls
        .iter()
        .map(|(data, _, is_final, is_early)| (data.as_str(), *is_final, *is_early))
        .collect();
    assert_eq!(flags, [("1", false, false), ("", true, true), ("2", false, false)]);
    assert_eq!(progress.records_completed, 2);
}

/// The final invocation comes when the window is over, whether or not there are new records. One state a shard, so one batch
/// at a time whatever the factor.
#[tokio::test]
async fn a_window_ends_by_the_wall_clock_without_new_records() {
    let options = external(template(
        "BatchSize: 10, TumblingWindowInSeconds: 1, ParallelizationFactor: 5",
    ));
    let cloud = LocalCloud::start(options).await.unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let function = fake_function(&cloud, "f", move |event| {
        seen.lock().unwrap().push(told(event));
        Answer::Respond(json!({ "state": counting(event) }).to_string())
    });
    put(&cloud, "events", &[("key".to_owned(), b"x".to_vec())]).await;
    drained(&cloud).await.unwrap();
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while cloud.progress().mappings[0].windows_closed == 0 && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        *calls.lock().unwrap(),
        [call("x", None, false), call("", Some(1), true)]
    );
    function.abort();
    cloud.shutdown().await;
}

/// The final invocation holds the shard up until it has succeeded: a record that comes meanwhile waits for it, although another
/// process is idle, and is not sent without the members that every event of a window has.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_comes_during_the_final_invocation_waits_for_its_end() {
    let cloud = LocalCloud::start(external(template("BatchSize: 10, TumblingWindowInSeconds: 1")))
        .await
        .unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (tell_final, mut is_final_running) = tokio::sync::watch::channel(false);
    let handler = {
        let calls = Arc::clone(&calls);
        move |event: &Value| {
            // Each call fails here unless it has its window's members.
            let now_told = told(event);
            calls.lock().unwrap().push(("begun", now_told.0.clone(), now_told.2));
            if now_told.2 {
                tell_final.send_replace(true);
                work_for(Duration::from_millis(500));
            }
            calls.lock().unwrap().push(("ended", now_told.0, now_told.2));
            Answer::Respond(json!({ "state": counting(event) }).to_string())
        }
    };
    let handler = Arc::new(handler);
    let functions: Vec<_> = (0..2)
        .map(|_| {
            let handler = Arc::clone(&handler);
            fake_function(&cloud, "f", move |event| handler(event))
        })
        .collect();
    put(&cloud, "events", &[("key".to_owned(), b"a".to_vec())]).await;
    tokio::time::timeout(super::PATIENCE, is_final_running.wait_for(|running| *running))
        .await
        .expect("the window ends")
        .unwrap();
    put(&cloud, "events", &[("key".to_owned(), b"b".to_vec())]).await;
    drained(&cloud).await.unwrap();
    let seen = calls.lock().unwrap().clone();
    let expected = [("a", false), ("", true), ("b", false)]
        .into_iter()
        .flat_map(|(data, is_final)| ["begun", "ended"].map(|what| (what, data.to_owned(), is_final)));
    assert_eq!(seen[..6], expected.collect::<Vec<_>>());
    functions.iter().for_each(tokio::task::JoinHandle::abort);
    cloud.shutdown().await;
}
