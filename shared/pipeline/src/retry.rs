//! Trying again: exponential backoff with full jitter, never beyond the time that the invocation has left.
//!
//! Full jitter: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::CallError;

/// The upper bound of the first pause.
const BACKOFF_FIRST_MS: u64 = 20;
/// The upper bound of any pause.
const BACKOFF_MS_MAX: u64 = 2_000;

/// Pauses between attempts.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The longest that the next pause may be.
    fn bound_ms(&self) -> u64 {
        BACKOFF_FIRST_MS
            .saturating_mul(1u64 << self.attempts.min(16))
            .min(BACKOFF_MS_MAX)
    }

    /// Pauses before the next attempt. False where the deadline would pass: then there is no next attempt.
    pub async fn pause(&mut self, deadline: Instant) -> bool {
        let pause = Duration::from_millis(fastrand::u64(0..=self.bound_ms()));
        self.attempts += 1;
        if Instant::now() + pause >= deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// How many pauses there were.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The time ran out while trying again.
    #[error("no time is left to try again")]
    OutOfTime(#[source] Option<CallError>),
    /// It failed as often as it may.
    #[error("it failed {attempts} times")]
    OutOfAttempts {
        /// How often.
        attempts: u32,
        /// How it failed last.
        #[source]
        last: CallError,
    },
    /// Trying again won't help.
    #[error("it was refused")]
    Refused(#[source] CallError),
}

/// Calls until there is an answer, a refusal, or no time or attempt left.
///
/// # Errors
/// Why there is no answer. A call that was cut off by the deadline may have taken effect.
pub async fn until_answered<T, F, Fut>(deadline: Instant, attempts_max: u32, mut call: F) -> Result<T, Failure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, CallError>>,
{
    let mut backoff = Backoff::default();
    loop {
        let error = match tokio::time::timeout_at(deadline, call()).await {
            Err(_) => return Err(Failure::OutOfTime(None)),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error @ CallError::Refused { .. })) => return Err(Failure::Refused(error)),
            Ok(Err(error @ CallError::Retry { .. })) => error,
        };
        if backoff.attempts() + 1 >= attempts_max {
            return Err(Failure::OutOfAttempts {
                attempts: attempts_max,
                last: error,
            });
        }
        if !backoff.pause(deadline).await {
            return Err(Failure::OutOfTime(Some(error)));
        }
    }
}

/// An error and its sources as one line, for a log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn error(retry: bool) -> CallError {
        let (call, source) = ("test".to_owned(), "it is down".into());
        if retry {
            CallError::Retry { call, source }
        } else {
            CallError::Refused { call, source }
        }
    }

    #[tokio::test]
    async fn it_tries_again_until_it_works_is_refused_or_runs_out() {
        let deadline = Instant::now() + Duration::from_secs(3);
        for (failures, retry, attempts_max, expected, calls_expected) in [
            (0, true, 5, "ok", 1),
            (3, true, 5, "ok", 4),
            (9, true, 5, "attempts", 5),
            (9, false, 5, "refused", 1),
        ] {
            let calls = Cell::new(0);
            let outcome = until_answered(deadline, attempts_max, || {
                calls.set(calls.get() + 1);
                let fails = calls.get() <= failures;
                async move { if fails { Err(error(retry)) } else { Ok(()) } }
            })
            .await;
            let name = match outcome {
                Ok(()) => "ok",
                Err(Failure::OutOfAttempts { .. }) => "attempts",
                Err(Failure::Refused(_)) => "refused",
                Err(Failure::OutOfTime(_)) => "time",
            };
            assert_eq!((name, calls.get()), (expected, calls_expected));
        }
        let soon = Instant::now() + Duration::from_millis(20);
        let hung = until_answered::<(), _, _>(soon, 5, std::future::pending).await;
        assert!(matches!(hung, Err(Failure::OutOfTime(None))));
    }
}
