//! Calls of a command that fail for now are tried again: throttling and lost connections pass.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result as AnyResult, bail};
use tokio::sync::watch;
use tokio::time::Instant;
use usher_aws::stream_reader::{ReadError, ReadPage, ShardReader};
use usher_pipeline::ports::CallError;
use usher_pipeline::retry::{Backoff, Failure, until_answered};

/// How long a call is tried. Reading shares a shard's five calls a second with the functions, so it may have to wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts of one call; the time runs out before.
const ATTEMPTS_MAX: u32 = 1_000;

/// Calls until there is an answer, a refusal, or it failed for [`PATIENCE`].
///
/// # Errors
/// Why there is no answer.
pub async fn patiently<T, F, Fut>(call: F) -> Result<T, Failure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, CallError>>,
{
    until_answered(Instant::now() + PATIENCE, ATTEMPTS_MAX, call).await
}

/// The next page of a shard, with the same patience.
///
/// # Errors
/// The shard is gone, or there is no answer.
pub async fn next_page(reader: &mut ShardReader<'_>) -> Result<Option<ReadPage>, ReadError> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::default();
    loop {
        match reader.next_page().await {
            Err(ReadError::Call(error @ CallError::Retry { .. })) => {
                if !backoff.pause(deadline).await {
                    return Err(error.into());
                }
            }
            answer => return answer,
        }
    }
}

/// Waits for something that changes nothing, unless the command is stopped first.
///
/// # Errors
/// Its own, or that it was interrupted.
pub async fn unless_stopped<T>(
    stop: &watch::Receiver<bool>,
    waiting: impl Future<Output = AnyResult<T>>,
) -> AnyResult<T> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => bail!("interrupted while reading; nothing was changed"),
        done = waiting => done,
    }
}
