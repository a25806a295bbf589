//! Functions that run by a schedule.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::Clock;

fn scheduled(rest: &str) -> Template {
    let text = format!(
        "Resources:
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      CodeUri: f
      Timeout: 2
      {rest}
      Events:
        Tick: {{ Type: Schedule, Properties: {{ Schedule: rate(1 minute) }} }}
"
    );
    Template::parse("test.yaml", &text, &TemplateOptions::default()).unwrap()
}

async fn eventually(what: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_wall_clock_it_runs_soon_after_the_start_with_the_time() {
    let cloud = LocalCloud::start(external(scheduled(""))).await.unwrap();
    let events: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = Arc::clone(&events);
    let function = fake_function(&cloud, "f", move |event| {
        seen.lock().unwrap().push(event.clone());
        Answer::Respond("{}".to_owned())
    });
    eventually(|| cloud.progress().schedules[0].invocations == 1).await;
    let event = events.lock().unwrap()[0].clone();
    // The members of https://docs.aws.amazon.com/lambda/latest/dg/with-scheduled-events.html.
    let mut members: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let expected = [
        "account",
        "detail",
        "detail-type",
        "id",
        "region",
        "resources",
        "source",
        "time",
        "version",
    ];
    assert_eq!(members, expected);
    assert_eq!(
        (&event["source"], &event["detail-type"]),
        (&"aws.events".into(), &"Scheduled Event".into())
    );
    assert_eq!(
        event["resources"][0],
        "arn:aws:events:us-east-1:000000000000:rule/local-FTick"
    );
    let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    let age_ms = crate::clock::wall_clock_ms() - time.as_millisecond();
    assert!(
        (0..60_000).contains(&age_ms) && time.subsec_nanosecond() == 0,
        "{event}"
    );
    // The stream of nobody moves, so nothing else is waited for.
    drained(&cloud).await.unwrap();
    function.abort();
    cloud.shutdown().await;
}

fn on_the_data_clock(template: Template) -> LocalCloudOptions {
    let mut options = external(template);
    options.clock = Clock::data(["events"], |_| None);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_data_clock_it_runs_when_it_is_told_the_time() {
    let cloud = LocalCloud::start(on_the_data_clock(scheduled(""))).await.unwrap();
    let times: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&times);
    let function = fake_function(&cloud, "f", move |event| {
        seen.lock().unwrap().push(event["time"].as_str().unwrap().to_owned());
        Answer::Respond("{}".to_owned())
    });
    cloud.run_schedules(1_380_614_400_000).await.unwrap();
    cloud.run_schedules(1_380_614_400_250).await.unwrap();
    assert_eq!(
        *times.lock().unwrap(),
        ["2013-10-01T08:00:00Z", "2013-10-01T08:00:00.250Z"]
    );
    assert_eq!(cloud.progress().schedules[0].invocations, 2);
    function.abort();
    cloud.shutdown().await;
}

/// "If the function returns an error, by default Lambda attempts to run it two more times":
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_runs_twice_more_or_as_often_as_the_function_says() {
    for (rest, failures, invocations, is_ok) in [
        ("", 0, 1, true),
        ("", 2, 3, true),
        ("", 9, 3, false),
        ("EventInvokeConfig: { MaximumRetryAttempts: 1 }", 1, 2, true),
        ("EventInvokeConfig: { MaximumRetryAttempts: 0 }", 1, 1, false),
    ] {
        let cloud = LocalCloud::start(on_the_data_clock(scheduled(rest))).await.unwrap();
        let calls = AtomicUsize::new(0);
        let function = fake_function(&cloud, "f", move |_| {
            if calls.fetch_add(1, Ordering::Relaxed) < failures {
                Answer::Error("not now")
            } else {
                Answer::Respond("null".to_owned())
            }
        });
        let ran = cloud.run_schedules(0).await;
        assert_eq!(ran.is_ok(), is_ok, "{rest} {failures}");
        let progress = cloud.progress().schedules.remove(0);
        assert_eq!(progress.invocations, invocations, "{rest} {failures}");
        assert_eq!(progress.given_up, u64::from(!is_ok));
        if let Err(error) = ran {
            assert_eq!(
                error.to_string(),
                "the schedule F/Tick could not run its function; see what the function says"
            );
            assert_eq!(progress.last_error.as_deref(), Some("Oops: not now"));
        }
        function.abort();
        cloud.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_must_not_run_does_not() {
    let mut options = on_the_data_clock(scheduled(""));
    options.functions.insert("F".to_owned(), FunctionSource::Skip);
    let cloud = LocalCloud::start(options).await.unwrap();
    cloud.run_schedules(0).await.unwrap();
    assert!(cloud.progress().schedules.is_empty());
    cloud.shutdown().await;
}
