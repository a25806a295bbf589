//! Faults of processes: the example function, killed and held back on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::function_queue::InvocationError;
use crate::process::{self, LogObserver, ProcessOptions};
use crate::runtime_api::RuntimeApi;
use crate::{FaultKind, Faults, FunctionSource, LocalCloud, LocalCloudOptions};

use super::processes::program;
use super::{PATIENCE, drained, numbered, put, template};

/// Processes that this cloud may have.
const PROCESSES_MAX: usize = 3;

struct Run {
    cloud: LocalCloud,
    /// What the function printed for each invocation.
    invocations: Arc<Mutex<Vec<Value>>>,
}

async fn start(mapping: &str, faults: &Faults) -> Run {
    let mut options = LocalCloudOptions::new(template(mapping));
    options
        .functions
        .insert("F".into(), FunctionSource::executable(program()));
    options.faults = faults.clone();
    options.environments_per_function_max = PROCESSES_MAX;
    options.retry_backoff_initial = Duration::from_millis(1);
    let invocations = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&invocations);
    options.on_log = Some(LogObserver::new(move |line| {
        let printed = serde_json::from_str::<Value>(&line.line).ok();
        seen.lock()
            .unwrap()
            .extend(printed.filter(|value| value["request_id"].is_string()));
    }));
    Run {
        cloud: LocalCloud::start(options).await.unwrap(),
        invocations,
    }
}

#[tokio::test]
async fn what_is_killed_or_held_back_on_purpose_fails_and_its_records_come_again() {
    for (kind, error) in [
        (
            FaultKind::Kill,
            "the process ended during the invocation: it was killed on purpose",
        ),
        (FaultKind::Timeout, "task timed out after 2 seconds"),
    ] {
        let faults = Faults::seeded(BTreeMap::from([(kind, 400)]), 3);
        let run = start("BatchSize: 1", &faults).await;
        let started = Instant::now();
        put(&run.cloud, "events", &numbered(20)).await;
        drained(&run.cloud).await.unwrap();
        let took = started.elapsed();
        let progress = run.cloud.progress().mappings[0].clone();
        let struck = faults.injected()[&kind];
        assert!(struck > 3, "{struck}");
        assert_eq!(
            (progress.records_completed, progress.records_dropped),
            (20, 0),
            "{kind}: {progress:?}"
        );
        assert_eq!(
            (progress.invocations, progress.invocations_failed),
            (20 + struck, struck),
            "{kind}"
        );
        assert_eq!(progress.last_error.as_deref(), Some(error));
        // Nobody waits for a function's timeout to pass.
        assert!(
            took < Duration::from_secs(2) * u32::try_from(struck).unwrap(),
            "{kind}: {took:?}"
        );
        let printed = run.invocations.lock().unwrap().clone();
        let id_of = |line: &Value| line["request_id"].as_str().unwrap().to_owned();
        let succeeded = printed.iter().filter(|line| !run.cloud.has_failed("F", &id_of(line)));
        assert_eq!(succeeded.count(), 20, "{kind}: what failed is told apart");
        run.cloud.shutdown().await;
    }
}

#[tokio::test]
async fn processes_grow_to_their_limit_and_work_finds_another_one_than_its_own() {
    let functions = template("BatchSize: 1").functions;
    let runtime = RuntimeApi::start(0, &functions, &Faults::none()).await.unwrap();
    let queue = Arc::clone(runtime.queue("f").unwrap());
    let processes = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&processes);
    let options = ProcessOptions {
        executable: program(),
        environment: BTreeMap::from([
            ("AWS_LAMBDA_FUNCTION_NAME", "f"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ])
        .into_iter()
        .chain([("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"), ("AWS_REGION", "us-east-1")])
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect(),
        runtime_url: runtime.url().to_owned(),
        init_timeout: Duration::from_secs(20),
        init_attempts_max: 1,
        on_log: Some(LogObserver::new(move |line| {
            seen.lock().unwrap().insert(line.environment);
        })),
        count_max: PROCESSES_MAX,
    };
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    process::start(&mut tasks, &queue, options, 1, &stop.subscribe());
    let event = || axum::body::Bytes::from_static(br#"{"Records":[]}"#);
    let started = || processes.lock().unwrap().len();
    for _ in 0..3 {
        queue.invoke(event(), "work").await.unwrap();
        assert_eq!(started(), 1, "one after the other needs no second process");
    }
    tokio::time::timeout(PATIENCE, queue.invoke_elsewhere(event(), "work"))
        .await
        .expect("another process is started")
        .unwrap();
    assert_eq!(started(), 2, "elsewhere than on the only one");
    let many = (0..10).map(|_| queue.invoke(event(), "other"));
    let done: Result<Vec<_>, InvocationError> = futures::future::join_all(many).await.into_iter().collect();
    assert_eq!(done.unwrap().len(), 10);
    assert_eq!(*queue.demand().borrow(), 10);
    let deadline = Instant::now() + Duration::from_secs(20);
    while started() < PROCESSES_MAX && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(started(), PROCESSES_MAX, "no more than the limit, however many wait");
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
}
