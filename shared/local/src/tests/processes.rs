//! Real processes: the example function, started, crashed, hung, failed and ended.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::process::LogObserver;
use crate::{FunctionSource, LocalCloud, LocalCloudOptions, LogLine, LogSource};

use super::{drained, numbered, put, template};

/// The example `small_function`, which cargo builds beside the tests.
pub(super) fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.parent().and_then(|deps| deps.parent()).unwrap();
    profile.join("examples").join("small_function")
}

struct Run {
    cloud: LocalCloud,
    lines: Arc<Mutex<Vec<LogLine>>>,
    marker: PathBuf,
}

async fn start(mapping: &str, environment: &[(&str, &str)]) -> Run {
    let mut options = LocalCloudOptions::new(template(mapping));
    options
        .functions
        .insert("F".into(), FunctionSource::executable(program()));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    options.on_log = Some(LogObserver::new(move |line| seen.lock().unwrap().push(line)));
    let unique = format!("usher-local-{}-{:?}", std::process::id(), std::thread::current().id());
    let marker = std::env::temp_dir().join(unique.replace(['(', ')'], "-"));
    let _ = std::fs::remove_file(&marker);
    options
        .environment
        .insert("MARKER".into(), marker.display().to_string());
    options.environment.insert("FROM_CALLER".into(), "everyone".into());
    let own = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    options.function_environment.insert("F".into(), own);
    options.init_timeout = Duration::from_secs(20);
    Run {
        cloud: LocalCloud::start(options).await.unwrap(),
        lines,
        marker,
    }
}

impl Run {
    fn has_line(&self, source: LogSource, part: &str) -> bool {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.source == source && line.line.contains(part))
    }

    async fn end(self) {
        self.cloud.shutdown().await;
        let _ = std::fs::remove_file(&self.marker);
    }
}

fn record(data: &str) -> [(String, Vec<u8>); 1] {
    [("key".to_owned(), data.as_bytes().to_vec())]
}

#[tokio::test]
async fn a_real_function_runs_with_its_environment_and_its_lines_are_heard() {
    let run = start("BatchSize: 10", &[("FROM_CALLER", "its own")]).await;
    put(&run.cloud, "events", &numbered(25)).await;
    drained(&run.cloud).await.unwrap();
    let progress = run.cloud.progress().mappings[0].clone();
    assert_eq!((progress.records_completed, progress.invocations_failed), (25, 0));
    assert!(run.has_line(LogSource::Stdout, "started with template and its own"));
    assert!(run.has_line(LogSource::Stdout, "arn:aws:lambda:us-east-1:000000000000:function:f"));
    run.end().await;
}

#[tokio::test]
async fn a_crash_fails_the_invocation_and_the_process_starts_again() {
    let run = start("BatchSize: 10", &[]).await;
    put(&run.cloud, "events", &record("crash")).await;
    drained(&run.cloud).await.unwrap();
    let progress = run.cloud.progress().mappings[0].clone();
    assert_eq!(
        (
            progress.records_completed,
            progress.invocations_failed,
            progress.invocations
        ),
        (1, 1, 2)
    );
    assert!(
        progress
            .last_error
            .unwrap()
            .contains("the process ended during the invocation: signal: 6")
    );
    assert!(run.has_line(LogSource::Stderr, "crashing on purpose"));
    run.end().await;
}

#[tokio::test]
async fn a_timeout_kills_the_process_and_the_batch_comes_again() {
    let run = start("BatchSize: 10", &[]).await;
    put(&run.cloud, "events", &record("hang")).await;
    drained(&run.cloud).await.unwrap();
    let progress = run.cloud.progress().mappings[0].clone();
    assert_eq!((progress.records_completed, progress.invocations_failed), (1, 1));
    assert_eq!(progress.last_error.as_deref(), Some("task timed out after 2 seconds"));
    run.end().await;
}

#[tokio::test]
async fn an_error_and_a_panic_fail_the_invocation_and_the_records_are_given_up() {
    let run = start("BatchSize: 1, MaximumRetryAttempts: 1", &[]).await;
    put(&run.cloud, "events", &record("error")).await;
    put(&run.cloud, "events", &record("panic")).await;
    put(&run.cloud, "events", &record("fine")).await;
    drained(&run.cloud).await.unwrap();
    let progress = run.cloud.progress().mappings[0].clone();
    assert_eq!(
        (
            progress.records_completed,
            progress.records_dropped,
            progress.invocations_failed
        ),
        (1, 2, 4)
    );
    let reasons: Vec<_> = progress.dropped.iter().map(|dropped| dropped.reason.as_str()).collect();
    assert!(reasons[0].contains("a record asked for an error"), "{reasons:?}");
    assert!(reasons[1].contains("a record asked for it"), "{reasons:?}");
    run.end().await;
}

#[tokio::test]
async fn a_function_that_does_not_start_stops_the_drain_with_its_own_words() {
    let run = start("BatchSize: 1", &[("FAIL_TO_START", "1")]).await;
    put(&run.cloud, "events", &record("x")).await;
    let message = drained(&run.cloud).await.unwrap_err().to_string();
    assert!(message.contains("the function F does not start"), "{message}");
    assert!(
        message.contains("before it asked for its first invocation (exit status: 1)"),
        "{message}"
    );
    assert!(message.contains("| the configuration is missing a table"), "{message}");
    assert_eq!(run.cloud.failed().await.to_string(), message);
    assert_eq!(run.cloud.progress().mappings[0].records_dropped, 0);
    run.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let mut options = LocalCloudOptions::new(template("BatchSize: 1"));
    let missing = LocalCloud::start(options.clone()).await.err().unwrap().to_string();
    assert!(missing.contains("no program for the function F (f)"), "{missing}");
    options.functions.insert("G".into(), FunctionSource::External);
    options
        .functions
        .insert("F".into(), FunctionSource::executable("/nowhere/f"));
    let unknown = LocalCloud::start(options.clone()).await.err().unwrap().to_string();
    assert!(
        unknown.contains("the template has no function G; it has: F"),
        "{unknown}"
    );
    options.functions.remove("G");
    let cloud = LocalCloud::start(options).await.unwrap();
    let message = drained(&cloud).await.err().map(|error| error.to_string());
    // Nothing was put, so the drain may end before the news; the failure is told either way.
    let message = match message {
        Some(message) => message,
        None => cloud.failed().await.to_string(),
    };
    assert!(message.contains("cannot run /nowhere/f"), "{message}");
    cloud.shutdown().await;
}

/// The variable by which a test knows its own processes: other tests have some too, at the same time.
#[cfg(target_os = "linux")]
const RUN: &str = "RUN_OF_THIS_TEST";

/// The ids of the processes that were started with this value of [`RUN`] by this test process.
#[cfg(target_os = "linux")]
fn processes_of(run: &str) -> Vec<String> {
    let marked = format!("{RUN}={run}");
    let parent = format!("PPid:\t{}\n", std::process::id());
    let is_ours = |path: &std::path::Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        status.contains(&parent)
            && environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == marked.as_bytes())
    };
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| is_ours(&entry.path()));
    processes
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_left_behind() {
    let run = start("BatchSize: 10", &[(RUN, "first")]).await;
    put(&run.cloud, "events", &numbered(5)).await;
    drained(&run.cloud).await.unwrap();
    assert!(!processes_of("first").is_empty());
    run.end().await;
    assert_eq!(processes_of("first"), Vec::<String>::new());

    // Dropped without a word, the processes are killed too.
    let run = start("BatchSize: 10", &[(RUN, "second")]).await;
    put(&run.cloud, "events", &numbered(5)).await;
    drained(&run.cloud).await.unwrap();
    drop(run);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_of("second").is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(processes_of("second"), Vec::<String>::new());
}
