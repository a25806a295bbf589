//! Functions that run by a schedule, as EventBridge and Lambda run them: an event that says which time it is, and an
//! asynchronous invocation.
//!
//! By the wall clock each schedule runs on its own, the first time soon after the start. Under a data clock time is what the data
//! says, so nobody but whoever drives the data knows when a minute has passed: see
//! [`LocalCloud::run_schedules`](crate::LocalCloud::run_schedules).
//!
//! What differs from AWS: at most one invocation of a schedule is under way, where AWS starts the next beside one that takes
//! longer than the rate; the pauses before a retry are those of a stream's batches and not a minute and two; an event that is
//! older than `MaximumEventAgeInSeconds` is not given up, because none waits here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use crate::clock::{utc, wall_clock_ms};
use crate::function_queue::{FunctionQueue, InvocationError, random_request_id};
use crate::template::{LOCAL_ACCOUNT_ID, Schedule};

const MS_PER_SECOND: i64 = 1_000;

/// How a schedule has run so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScheduleProgress {
    /// `FUNCTION/EVENT` as the template names them.
    pub name: String,
    /// Logical id of the function.
    pub function: String,
    /// Invocations, retries included.
    pub invocations: u64,
    /// Those that failed.
    pub invocations_failed: u64,
    /// Events that were given up, because their last retry failed.
    pub given_up: u64,
    /// How the last one failed that did.
    pub last_error: Option<String>,
}

/// A schedule that runs.
pub(crate) struct ScheduledFunction {
    pub config: Schedule,
    region: String,
    queue: Arc<FunctionQueue>,
    /// Invocations that the function may have at once, by whatever it is invoked.
    concurrency: Arc<Semaphore>,
    retry_backoff_initial: Duration,
    counts: Mutex<ScheduleProgress>,
    /// One at a time.
    under_way: tokio::sync::Mutex<()>,
}

impl ScheduledFunction {
    pub fn new(
        config: Schedule,
        region: String,
        queue: Arc<FunctionQueue>,
        concurrency: Arc<Semaphore>,
        retry_backoff_initial: Duration,
    ) -> Self {
        let counts = ScheduleProgress {
            name: config.name.clone(),
            function: config.function.clone(),
            ..ScheduleProgress::default()
        };
        Self {
            config,
            region,
            queue,
            concurrency,
            retry_backoff_initial,
            counts: Mutex::new(counts),
            under_way: tokio::sync::Mutex::default(),
        }
    }

    /// Runs by the wall clock until it is aborted or the function has failed for good.
    pub async fn run_by_the_wall_clock(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.config.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            // EventBridge writes whole seconds.
            let now_ms = wall_clock_ms();
            if let Err(InvocationError::Unavailable) = self.run(now_ms - now_ms.rem_euclid(MS_PER_SECOND)).await {
                return;
            }
        }
    }

    /// Invokes the function with an event of this time, and again where it fails, as often as it may be.
    ///
    /// # Errors
    /// How the last invocation failed.
    pub async fn run(&self, at_ms: i64) -> Result<(), InvocationError> {
        let _one_at_a_time = self.under_way.lock().await;
        let payload = Bytes::from(self.event(at_ms));
        let mut backoff = self.retry_backoff_initial;
        let mut retries = 0;
        loop {
            // The semaphore is never closed.
            let permit = self.concurrency.acquire().await;
            let ran = self
                .queue
                .invoke_process(random_request_id(), payload.clone(), &self.config.name, false)
                .await;
            drop(permit);
            let error = {
                let mut counts = self.counts();
                counts.invocations += 1;
                let Err(error) = ran else { return Ok(()) };
                counts.invocations_failed += 1;
                counts.last_error = Some(error.to_string());
                let is_over = retries == self.config.retry_attempts_max || error == InvocationError::Unavailable;
                counts.given_up += u64::from(is_over);
                if is_over {
                    return Err(error);
                }
                error
            };
            retries += 1;
            tracing::debug!(schedule = self.config.name, %error, retries, "a scheduled invocation failed");
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    pub fn progress(&self) -> ScheduleProgress {
        self.counts().clone()
    }

    /// As EventBridge writes it: <https://docs.aws.amazon.com/lambda/latest/dg/with-scheduled-events.html>, and
    /// `example-eventbridge-schedule.json` of the crate aws_lambda_events. Its `time` has milliseconds only where a data clock
    /// is between two seconds.
    fn event(&self, at_ms: i64) -> String {
        if let Some(input) = &self.config.input {
            return input.clone();
        }
        let format = if at_ms.rem_euclid(MS_PER_SECOND) == 0 {
            "%Y-%m-%dT%H:%M:%SZ"
        } else {
            "%Y-%m-%dT%H:%M:%S.%3fZ"
        };
        json!({
            "version": "0",
            "id": random_request_id(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": LOCAL_ACCOUNT_ID,
            "time": utc(at_ms, format),
            "region": self.region,
            "resources": [self.config.rule_arn],
            "detail": {},
        })
        .to_string()
    }

    fn counts(&self) -> MutexGuard<'_, ScheduleProgress> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
