//! What a function's `main` needs around its flow: logs, the clock, the standard output, and the Lambda runtime.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use usher_domain::time::Timestamp;
use usher_pipeline::invocation::Invocation;
use usher_pipeline::ports::{BoxError, TelemetrySink, WallClock};
use usher_pipeline::retry::chain;

use crate::config::{Lookup, environment};

/// What is left of an invocation's time for its answer: a flow must be done by then. Lambda stops a function at its
/// deadline without a word, and then the whole batch comes again.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(500);
/// The time that an invocation gets where the runtime API tells no deadline.
pub const TIME_WITHOUT_DEADLINE: Duration = Duration::from_secs(60);
/// The longest time that Lambda gives an invocation: 15 minutes. A deadline further in the past than that is none:
/// `cargo lambda watch` sends one of 1970.
const INVOCATION_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// What is logged unless the environment says otherwise.
const LOG_LEVEL_DEFAULT: &str = "info";

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge that everything else gets injected from"
    )]
    fn now(&self) -> Timestamp {
        // A clock before 1970 reads as 1970, and one that overflows as the latest time.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_epoch_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The standard output, which Lambda sends to CloudWatch.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdoutSink;

impl TelemetrySink for StdoutSink {
    fn line(&self, json: &str) {
        // One lock for the line and its end, so that lines of several threads never mix. If nobody reads the output,
        // there is nobody to tell.
        let mut output = std::io::stdout().lock();
        let _ = output
            .write_all(json.as_bytes())
            .and_then(|()| output.write_all(b"\n"))
            .and_then(|()| output.flush());
    }
}

/// Runs a function: starts the logs, then what `start` does (read the settings, make the clients and the flow, and
/// [`run`] it), and tells why it can't go on if it can't.
pub async fn start_function(start: impl Future<Output = Result<(), BoxError>>) -> ExitCode {
    start_logs(&environment);
    match start.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(error.as_ref()), "function stopped");
            ExitCode::FAILURE
        }
    }
}

/// Sends the logs of this process to its standard output: one JSON object a line, with its time, because Lambda's own
/// log format leaves that out. The level comes from `AWS_LAMBDA_LOG_LEVEL`, or else from `RUST_LOG`.
///
/// Does nothing if the process has logs already.
pub fn start_logs(lookup: Lookup<'_>) {
    let logs = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(log_filter(lookup))
        .finish();
    // A second call is harmless.
    let _ = tracing::subscriber::set_global_default(logs);
}

fn log_filter(lookup: Lookup<'_>) -> EnvFilter {
    let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
    // Lambda knows a level above ERROR; there is none here.
    let lambda_level = get("AWS_LAMBDA_LOG_LEVEL").map(|level| {
        if level.eq_ignore_ascii_case("fatal") {
            "error".to_owned()
        } else {
            level
        }
    });
    let wanted = lambda_level.or_else(|| get("RUST_LOG"));
    let wanted = wanted.and_then(|text| EnvFilter::try_new(text).ok());
    wanted.unwrap_or_else(|| EnvFilter::new(LOG_LEVEL_DEFAULT))
}

/// Takes one invocation after the other from the Lambda runtime API, until Lambda stops the process.
///
/// `handler` gets the payload as it came, so it can borrow from it, and the time by which it must be done. What it
/// returns is the answer. Its error is logged once, with its sources, and given to Lambda, which sends the batch again.
///
/// # Errors
/// The runtime API can't be reached or answers nonsense.
pub async fn run<H, R, E>(handler: H) -> Result<(), BoxError>
where
    H: AsyncFn(Invocation<'_>) -> Result<R, E>,
    R: Serialize,
    E: Error + 'static,
{
    let handler = &handler;
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| async move {
        let deadline = Instant::now() + time_left(event.context.deadline, SystemClock.now());
        // Boxed, because the futures of a flow and the SDK are nested deeper than the compiler follows in one type.
        let work: Pin<Box<dyn Future<Output = Result<R, E>> + '_>> = Box::pin(handler(Invocation {
            payload: event.payload.get(),
            request_id: &event.context.request_id,
            deadline,
        }));
        work.await.map_err(|error| FailedInvocation::new(&error))
    }))
    .await
}

/// How long a flow may work on an invocation with this deadline.
fn time_left(deadline_epoch_ms: u64, now: Timestamp) -> Duration {
    let deadline_ms = i64::try_from(deadline_epoch_ms).unwrap_or(i64::MAX);
    let left_ms = deadline_ms.saturating_sub(now.epoch_ms());
    match u64::try_from(left_ms) {
        // No invocation has longer, so a deadline in the far future is a wrong clock, and must not overflow either.
        Ok(left_ms) => Duration::from_millis(left_ms)
            .min(INVOCATION_TIME_MAX)
            .saturating_sub(DEADLINE_MARGIN),
        Err(_) if u128::from(left_ms.unsigned_abs()) > INVOCATION_TIME_MAX.as_millis() => TIME_WITHOUT_DEADLINE,
        Err(_) => Duration::ZERO,
    }
}

/// A failed invocation. The runtime logs it with its `Debug`, and Lambda shows its message as `errorMessage`.
struct FailedInvocation {
    error_type: String,
    error_message: String,
}

impl FailedInvocation {
    fn new<E: Error + 'static>(error: &E) -> FailedInvocation {
        FailedInvocation {
            error_type: std::any::type_name::<E>().to_owned(),
            error_message: chain(error),
        }
    }
}

impl fmt::Debug for FailedInvocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "invocation failed: {}", self.error_message)
    }
}

impl From<FailedInvocation> for Diagnostic {
    fn from(failed: FailedInvocation) -> Diagnostic {
        Diagnostic {
            error_type: failed.error_type,
            error_message: failed.error_message,
        }
    }
}

#[cfg(test)]
mod tests {
    use usher_pipeline::ports::CallError;

    use super::*;

    #[test]
    fn a_flow_gets_the_time_until_the_deadline_less_a_margin() {
        let now_ms = 1_767_607_200_000_u64;
        let now = Timestamp::from_epoch_ms(1_767_607_200_000);
        for (deadline_ms, left_ms) in [
            (now_ms + 30_000, 29_500),
            (now_ms + 500, 0),
            (now_ms + 100, 0),
            (now_ms, 0),
            (now_ms - 1_000, 0),
            (600_000, 60_000), // `cargo lambda watch`
            (0, 60_000),
            (u64::MAX, 899_500),
        ] {
            assert_eq!(
                time_left(deadline_ms, now),
                Duration::from_millis(left_ms),
                "{deadline_ms}"
            );
        }
    }

    #[test]
    fn the_log_level_comes_from_lambda_or_else_from_rust_log() {
        for (lambda, rust, filter) in [
            ("", "", "info"),
            ("DEBUG", "", "debug"),
            ("WARN", "trace", "warn"),
            ("FATAL", "", "error"),
            ("", "usher_aws=debug,warn", "usher_aws=debug,warn"),
            ("", "what is=this=?", "info"),
        ] {
            let lookup = |name: &str| match name {
                "AWS_LAMBDA_LOG_LEVEL" => Some(lambda.to_owned()),
                "RUST_LOG" => Some(rust.to_owned()),
                _ => None,
            };
            assert_eq!(log_filter(&lookup).to_string(), filter, "{lambda} {rust}");
        }
    }

    #[test]
    fn a_failed_invocation_is_told_with_its_sources() {
        let inner = std::io::Error::new(std::io::ErrorKind::TimedOut, "too slow");
        let error = CallError::Retry {
            call: "kinesis:PutRecords on triggers".to_owned(),
            source: Box::new(inner),
        };
        let failed = FailedInvocation::new(&error);
        assert_eq!(
            format!("{failed:?}"),
            "invocation failed: kinesis:PutRecords on triggers failed for now: too slow"
        );
        assert!(Diagnostic::from(failed).error_type.ends_with("CallError"));
    }

    #[test]
    fn the_system_clock_is_within_this_century() {
        let now = SystemClock.now();
        assert!(
            now > Timestamp::from_epoch_ms(1_767_225_600_000) && now < Timestamp::MAX,
            "{now}"
        );
    }
}
