//! Timers under the data's clock: the scheduled functions run when the data says that time has passed, and in the end until
//! nobody is due any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use usher_aws::clients::Clients;
use usher_aws::dynamodb::{DynamoDueIndex, DynamoProfileTable};
use usher_domain::time::Timestamp;
use usher_local::{LocalCloud, LocalCloudOptions};
use usher_pipeline::ports::{CallError, DueIndex, due_shards};
use usher_pipeline::retry::until_answered;

use super::resources::Resources;
use crate::people::grouped;

/// The variable that tells a function how often to look in one invocation.
const PASSES_VARIABLE: &str = "USHER_SWEEP_PASSES";
/// From one look at the data's clock to the next, by the wall clock.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// While events come, timers stay behind them by so much of the data's time: an event that is up to this late in the file still
/// comes before what it makes moot. In the end everything came, and nothing is held back.
const DISORDER_MS: i64 = 60 * 60 * 1000;
/// After so long with the same users due, their wake-ups do nothing: longer than the sweeper waits before it sends one again.
const IN_VAIN_MAX: Duration = Duration::from_secs(90);
/// From one sweep to the next, in the end.
const LAST_SWEEPS_INTERVAL: Duration = Duration::from_millis(100);
/// Asking an emulator that throttles on purpose.
const CALL_ATTEMPTS_MAX: u32 = 50;
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Lets each invocation look once, for the data's clock stands still while a function runs.
pub fn sweep_once_an_invocation(cloud: &mut LocalCloudOptions) {
    for function in &cloud.template.functions {
        if function.environment.contains_key(PASSES_VARIABLE) {
            let id = function.logical_id.clone();
            let environment = cloud.function_environment.entry(id).or_default();
            environment.insert(PASSES_VARIABLE.to_owned(), "1".to_owned());
        }
    }
}

/// Runs the scheduled functions as the data's time passes, until `stop` says true; then none is under way.
///
/// A run that fails is counted by the cloud, and the next one does what it did not.
pub async fn sweep_as_time_passes(
    cloud: &LocalCloud,
    now: impl Fn() -> Option<Timestamp>,
    mut stop: watch::Receiver<bool>,
) {
    let mut swept = None;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        let Some(due_by) = now().map(|now| now.minus_ms(DISORDER_MS)) else {
            continue;
        };
        if swept.is_none_or(|swept| swept < due_by) {
            let _ = cloud.run_schedules(due_by.epoch_ms()).await;
            swept = Some(due_by);
        }
    }
}

/// Sweeps at the end of the data until nobody is due by then and everything is drained. What could not be done is told.
///
/// # Errors
/// When the tables can't be read or the cloud can't go on.
pub async fn until_nobody_is_due(
    cloud: &LocalCloud,
    clients: &Clients,
    resources: &Resources,
) -> Result<Option<String>> {
    let index = DynamoDueIndex::new(clients.dynamodb.clone(), &resources.profiles);
    if due(&index, Timestamp::MAX).await?.is_empty() {
        return Ok(None);
    }
    let end = latest_arrival(clients, resources).await?;
    let mut before = BTreeSet::new();
    let mut changed_at = Instant::now();
    loop {
        let due = due(&index, end).await?;
        if due.is_empty() {
            return Ok(None);
        }
        if due == before {
            tokio::time::sleep(LAST_SWEEPS_INTERVAL).await;
        } else {
            changed_at = Instant::now();
        }
        if changed_at.elapsed() > IN_VAIN_MAX {
            let users: BTreeSet<&String> = due.iter().map(|(user, _)| user).collect();
            let first = users.first().map_or("", |user| user);
            return Ok(Some(format!(
                "the timers of {} users are due and did not fire, such as {first}'s; see whether they are parked, and what \
                 the functions say",
                grouped(users.len() as u64)
            )));
        }
        // The next one does what this one did not.
        let _ = cloud.run_schedules(end.epoch_ms()).await;
        cloud.drained().await?;
        before = due;
    }
}

/// Who is due by then, and since when.
async fn due(index: &DynamoDueIndex, until: Timestamp) -> Result<BTreeSet<(String, Timestamp)>> {
    let mut found = BTreeSet::new();
    for shard in due_shards() {
        let mut after = None;
        loop {
            let page = patiently(|| index.page(&shard, until, after.as_ref()))
                .await
                .context("cannot read who is due from the profiles table")?;
            found.extend(page.users.into_iter().map(|user| (user.user_id, user.due_at)));
            match page.next_after {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(found)
}

/// Now, when no event comes any more: the latest arrival of an applied event, as `usher replay` has it.
async fn latest_arrival(clients: &Clients, resources: &Resources) -> Result<Timestamp> {
    let table = DynamoProfileTable::new(clients.dynamodb.clone(), &resources.profiles);
    let mut pages = table.scan_pages();
    let mut latest = Timestamp::default();
    let give_up_at = Instant::now() + CALL_TIMEOUT;
    loop {
        // A page that failed is asked for again.
        match pages.next_page().await {
            Ok(Some(page)) => {
                latest = page
                    .items
                    .iter()
                    .map(|item| item.updated_at)
                    .fold(latest, Timestamp::max);
            }
            Ok(None) => return Ok(latest),
            Err(CallError::Retry { .. }) if Instant::now() < give_up_at => {}
            Err(error) => return Err(error).context("cannot read the profiles back"),
        }
    }
}

async fn patiently<T, F>(call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, CallError>>,
{
    let deadline = tokio::time::Instant::now() + CALL_TIMEOUT;
    Ok(until_answered(deadline, CALL_ATTEMPTS_MAX, call).await?)
}
