//! Trends, the whole way: `usher local` runs content-trends over its own consumer of interactions, and `usher trends` shows
//! what it counted, within seconds and by the data's clock.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use usher_aws::clients::Clients;
use usher_domain::time::Timestamp;

use crate::workspace::{binaries, root};

const MINUTE_MS: i64 = 60_000;
/// How long a local cloud may take to be there, on a machine that has other work.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long counts may take to be there. They take 2 seconds where the machine has nothing else to do.
const COUNTED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A local cloud that serves until it is dropped.
struct Serving {
    child: Child,
    kinesis_url: String,
    dynamodb_url: String,
}

impl Serving {
    fn start(more: &[&str]) -> Serving {
        let bin_dir = binaries().display().to_string();
        let mut child = Command::new(binaries().join("usher"))
            .args(["local", "--bin-dir", &bin_dir])
            .args(more)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("usher runs");
        let stdout = child.stdout.take().expect("it is piped");
        let (tell, told) = std::sync::mpsc::channel();
        // Read to its end, so that the process never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut serving = Serving {
            child,
            kinesis_url: String::new(),
            dynamodb_url: String::new(),
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while serving.kinesis_url.is_empty() || serving.dynamodb_url.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told.recv_timeout(left).expect("it says where it is");
            if let Some(url) = line.strip_prefix("export AWS_ENDPOINT_URL_KINESIS=") {
                url.clone_into(&mut serving.kinesis_url);
            }
            if let Some(url) = line.strip_prefix("export AWS_ENDPOINT_URL_DYNAMODB=") {
                url.clone_into(&mut serving.dynamodb_url);
            }
        }
        serving
    }

    fn usher(&self, arguments: &[&str]) -> String {
        let output = Command::new(binaries().join("usher"))
            .args(arguments)
            .current_dir(root())
            .output()
            .expect("usher runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn send(&self, events: &[String]) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), events.join("\n")).expect("it can be written");
        let path = file.path().display().to_string();
        self.usher(&[
            "send",
            "--stream",
            "interactions",
            &path,
            "--endpoint-url",
            &self.kinesis_url,
        ]);
    }

    fn trends(&self, more: &[&str]) -> Value {
        let mut arguments = vec![
            "trends",
            "--json",
            "--top",
            "1000",
            "--endpoint-url",
            &self.dynamodb_url,
        ];
        arguments.extend(more);
        serde_json::from_str(&self.usher(&arguments)).expect("JSON")
    }

    /// What is listed once so many events are counted, and how long that took.
    async fn trends_of(&self, events: u64, more: &[&str]) -> (Value, Duration) {
        let started = Instant::now();
        loop {
            let listed = self.trends(more);
            if listed["events"] == events {
                return (listed, started.elapsed());
            }
            assert!(started.elapsed() < COUNTED_TIMEOUT, "{events} events: {listed}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // As Ctrl-C, so that it ends its functions. It may have ended by itself.
        let _ = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn event(number: usize, event_type: &str, at: Timestamp, content: &str) -> String {
    format!(
        r#"{{"event_id":"t{number}","event_type":"{event_type}","timestamp":"{at}","user_id":"user-{}","content_id":"{content}","category":"all"}}"#,
        number % 50
    )
}

fn counts(listed: &Value) -> BTreeMap<String, u64> {
    let rows = listed["top"].as_array().expect("a list").iter();
    rows.map(|row| {
        let id = row["id"].as_str().expect("text").to_owned();
        (id, row["count"].as_u64().expect("a number"))
    })
    .collect()
}

#[expect(clippy::disallowed_methods, reason = "the events of this test happen now")]
fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_epoch_ms(since_1970.as_millis() as i64)
}

/// Over all shards, also those that a reshard adds, each event once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_are_listed_within_seconds_over_all_shards_while_they_split() {
    let cloud = Serving::start(&["--shards", "2"]);
    let types = ["click", "view", "like", "sign_up"];
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut sent = 0;
    let mut numbers = 0..;
    let mut batch = |count: usize| {
        let at = now();
        let events = numbers.by_ref().take(count).map(|number: usize| {
            let content = format!("content-{}", number % 7);
            let event_type = types[number % 4];
            if event_type != "sign_up" {
                *expected.entry(content.clone()).or_default() += 1;
                sent += 1;
            }
            event(number, event_type, at.minus_ms(number as i64 * 100 % 120_000), &content)
        });
        let events: Vec<String> = events.collect();
        (events, expected.clone(), sent)
    };
    let (events, expected_first, counted) = batch(400);
    cloud.send(&events);
    let (listed, took) = cloud.trends_of(counted, &[]).await;
    println!("{counted} events were listed {took:?} after they were sent");
    assert_eq!(counts(&listed), expected_first);
    assert_eq!((&listed["error"], &listed["unreadable"]), (&0.into(), &0.into()));

    let kinesis = Clients::for_emulators(&cloud.dynamodb_url, &cloud.kinesis_url).kinesis;
    kinesis
        .update_shard_count()
        .stream_name("interactions")
        .target_shard_count(4)
        .scaling_type(aws_sdk_kinesis::types::ScalingType::UniformScaling)
        .send()
        .await
        .expect("it is resharded");
    let (events, expected_all, counted) = batch(400);
    cloud.send(&events);
    let (listed, _) = cloud.trends_of(counted, &[]).await;
    assert_eq!(counts(&listed), expected_all);
    let (by_category, _) = cloud.trends_of(counted, &["--by", "category", "--event", "like"]).await;
    let likes = (0..800).filter(|number| number % 4 == 2).count() as u64;
    assert_eq!(counts(&by_category), BTreeMap::from([("all".to_owned(), likes)]));
}

/// History is counted in its own minutes, and shown as of then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_datas_clock_trends_are_those_of_then() {
    let cloud = Serving::start(&["--clock", "data"]);
    let start: Timestamp = "2024-03-17T10:00:00Z".parse().expect("a time");
    let at = |number: usize| start.plus_ms(number as i64 * 7_000);
    let content = |number: usize| format!("content-{}", number % 5);
    let events: Vec<String> = (0..600)
        .map(|number| event(number, "click", at(number), &content(number)))
        .collect();
    cloud.send(&events);
    let last = at(599);
    // As of the last event, the hour that is kept holds those of its minutes.
    let minute_of = |at: Timestamp| at.epoch_ms() / MINUTE_MS;
    let of_window = |minutes: i64| {
        let oldest = minute_of(last.minus_ms(minutes * MINUTE_MS - 1));
        (0..600).filter(move |number| minute_of(at(*number)) >= oldest)
    };
    for minutes in [60, 10] {
        let expected = of_window(minutes).fold(BTreeMap::new(), |mut counts: BTreeMap<String, u64>, number| {
            *counts.entry(content(number)).or_default() += 1;
            counts
        });
        let as_of = last.to_string();
        let within = format!("{minutes}m");
        let events = of_window(minutes).count() as u64;
        let (listed, _) = cloud.trends_of(events, &["--at", &as_of, "--within", &within]).await;
        assert_eq!(counts(&listed), expected, "{minutes}");
    }
    let later = last.plus_ms(180 * MINUTE_MS).to_string();
    assert!(counts(&cloud.trends(&["--at", &later])).is_empty(), "P12: they decay");
}
