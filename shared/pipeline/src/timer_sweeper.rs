//! The index of due users → a wake-up for each of them in interactions (P12).
//!
//! One invocation sweeps several times: it looks at every partition of the index, and sends each due user an event of type
//! [`TIMER_EVENT`], which makes the profile look at its own timers. That event carries no authority, so everything that can
//! go wrong here costs time or money and never a wrong decision: an entry that is out of date wakes a user who has nothing to
//! do, two sweepers at once wake everybody twice, and a wake-up that is lost is sent again, because its user stays in the index
//! until the profile was written.

mod sent_lately;
mod wake_up;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::time::Instant;
#[cfg(doc)]
use usher_domain::event::TIMER_EVENT;
use usher_domain::time::{Timestamp, TimestampError};

use crate::invocation::Invocation;
use crate::ports::{DueIndex, DueUser, RecordStream, StreamRecord, TelemetrySink, WallClock, due_shards};
use crate::put_records::put_in_rounds;
use crate::retry::{Failure, chain, until_answered};
use crate::telemetry::{TelemetryEvent, TimerSweep, spread};
use sent_lately::{REMEMBERED_MAX, SentLately};
pub use wake_up::wake_up;

/// Time from the start of a pass to that of the next, unless the operator says otherwise.
pub const PASS_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Passes of one invocation, unless the operator says otherwise: with [`PASS_INTERVAL_DEFAULT`] they fill the minute until the
/// next invocation.
pub const PASSES_DEFAULT: u32 = 6;

/// Partitions that are read at the same time.
const PARTITIONS_AT_ONCE: usize = 8;
/// How often a page is asked for before its partition is left to the next pass.
const QUERY_ATTEMPTS_MAX: u32 = 5;
/// A pass that could hardly do anything before the deadline does not start.
const PASS_TIME_MIN: Duration = Duration::from_secs(1);

/// What timer-sweeper needs from the outside.
#[derive(Debug)]
pub struct TimerSweeperPorts<D, S, C, T> {
    /// The index of due users.
    pub due: D,
    /// The `interactions` stream.
    pub interactions: S,
    /// The wall clock, for an invocation that tells no time.
    pub clock: C,
    /// Where telemetry goes.
    pub telemetry: T,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimerSweeperConfig {
    /// Passes of one invocation, at least one. Fewer where the time runs out.
    pub passes: u32,
    /// Time from the start of a pass to that of the next.
    pub pass_interval: Duration,
    /// The CloudWatch namespace of the metrics.
    pub metrics_namespace: String,
}

/// Why an invocation failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// What Lambda handed over is no JSON object, or its `time` is no text.
    #[error("the invocation's payload is not a scheduled event; it is an object with the `time` of its schedule")]
    Payload(#[source] serde_json::Error),
    /// Its `time` can't be read.
    #[error("the invocation's `time` can't be read")]
    Time(#[source] TimestampError),
    /// Not one page of the index could be read.
    #[error("nothing of the index of due users could be read in {passes} passes")]
    NothingRead {
        /// How often all of it was tried.
        passes: u64,
        /// Why, the first time.
        #[source]
        first: Failure,
    },
}

/// What an invocation answers, for whoever looks at it by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Looks at the whole index.
    pub passes: u64,
    /// Users who were sent a wake-up.
    pub woken: u64,
}

/// The flow.
#[derive(Debug)]
pub struct TimerSweeper<D, S, C, T> {
    ports: TimerSweeperPorts<D, S, C, T>,
    config: TimerSweeperConfig,
    sent_lately: Mutex<SentLately>,
}

/// What a pass, or a part of it, came to.
#[derive(Debug, Default)]
struct Tally {
    pages_read: u64,
    due: u64,
    sent_lately: u64,
    unsent: u64,
    partitions_failed: u64,
    read_units: f64,
    lateness_ms: Vec<u64>,
    oldest_due_ms: u64,
    first_unread: Option<Failure>,
    first_unsent: Option<String>,
}

impl<D, S, C, T> TimerSweeper<D, S, C, T>
where
    D: DueIndex,
    S: RecordStream,
    C: WallClock,
    T: TelemetrySink,
{
    /// A flow. It remembers whom it woke lately, so one is made for a container and not for an invocation.
    pub fn new(ports: TimerSweeperPorts<D, S, C, T>, config: TimerSweeperConfig) -> TimerSweeper<D, S, C, T> {
        TimerSweeper {
            ports,
            config,
            sent_lately: Mutex::default(),
        }
    }

    /// What it was given to talk to.
    pub fn ports(&self) -> &TimerSweeperPorts<D, S, C, T> {
        &self.ports
    }

    /// Processes one invocation. Now is the `time` of its event, and in later passes as much later as has passed since, so that
    /// whoever invokes it decides which clock users are due by.
    ///
    /// # Errors
    /// When the payload is no scheduled event, or nothing at all could be read. A part that fails is left to the next pass, and
    /// counted.
    pub async fn run(&self, invocation: Invocation<'_>) -> Result<Swept, SweepError> {
        let scheduled_at = match scheduled_time(invocation.payload)? {
            Some(time) => time,
            None => self.ports.clock.now(),
        };
        let started = Instant::now();
        let mut total = Tally::default();
        let mut passes = 0;
        loop {
            // The first pass is as of the event's time itself, however long it took to get here.
            let elapsed_ms = if passes == 0 { 0 } else { started.elapsed().as_millis() };
            let now = scheduled_at.plus_ms(i64::try_from(elapsed_ms).unwrap_or(i64::MAX));
            total.add(self.pass(now, invocation.deadline).await);
            passes += 1;
            let next = started + self.config.pass_interval * passes;
            if passes >= self.config.passes || next + PASS_TIME_MIN >= invocation.deadline {
                break;
            }
            tokio::time::sleep_until(next).await;
        }
        let passes = u64::from(passes);
        let swept = Swept {
            passes,
            woken: total.lateness_ms.len() as u64,
        };
        if let Some(first) = &total.first_unsent {
            tracing::warn!(unsent = total.unsent, first, "wake-ups could not be sent");
        }
        let telemetry = TimerSweep {
            request_id: invocation.request_id.to_owned(),
            passes,
            due: total.due,
            woken: swept.woken,
            sent_lately: total.sent_lately,
            unsent: total.unsent,
            partitions_failed: total.partitions_failed,
            read_units: total.read_units,
            sweep_lateness: spread(total.lateness_ms),
            oldest_due: total.oldest_due_ms,
        };
        telemetry.emit(
            &self.ports.telemetry,
            &self.config.metrics_namespace,
            self.ports.clock.now(),
        );
        match total.first_unread {
            Some(first) if total.pages_read == 0 => Err(SweepError::NothingRead { passes, first }),
            Some(first) => {
                let (failed, first) = (total.partitions_failed, chain(&first));
                tracing::warn!(failed, first, "partitions of the index of due users could not be read");
                Ok(swept)
            }
            None => Ok(swept),
        }
    }

    /// Looks at all partitions. One that fails doesn't stop the others.
    async fn pass(&self, now: Timestamp, deadline: Instant) -> Tally {
        self.sent_lately().forget_old(Instant::now());
        let partitions = due_shards().map(|shard| self.partition(shard, now, deadline));
        futures::stream::iter(partitions)
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .fold(Tally::default(), |mut total, partition| async move {
                total.add_partition(partition);
                total
            })
            .await
    }

    /// Wakes the due users of one partition, a page at a time: the next is read when the wake-ups of the one before are on the
    /// stream, so that a stream that is full slows this down.
    async fn partition(&self, shard: String, now: Timestamp, deadline: Instant) -> Tally {
        let mut tally = Tally::default();
        let mut after = None;
        loop {
            let query = || self.ports.due.page(&shard, now, after.as_ref());
            let page = match until_answered(deadline, QUERY_ATTEMPTS_MAX, query).await {
                Ok(page) => page,
                Err(failure) => {
                    tally.partitions_failed = 1;
                    tally.first_unread = Some(failure);
                    return tally;
                }
            };
            tally.pages_read += 1;
            tally.read_units += page.read_units;
            self.wake(page.users, now, deadline, &mut tally).await;
            match page.next_after {
                Some(last) if Instant::now() < deadline => after = Some(last),
                Some(_) => {
                    tally.partitions_failed = 1;
                    tally.first_unread = Some(Failure::OutOfTime(None));
                    return tally;
                }
                None => return tally,
            }
        }
    }

    async fn wake(&self, users: Vec<DueUser>, now: Timestamp, deadline: Instant, tally: &mut Tally) {
        let late_ms = |user: &DueUser| u64::try_from(now.ms_since(user.due_at)).unwrap_or_default();
        tally.due += users.len() as u64;
        if let Some(first) = users.first() {
            tally.oldest_due_ms = tally.oldest_due_ms.max(late_ms(first));
        }
        let found = users.len();
        let (mut users, room) = {
            let sent_lately = self.sent_lately();
            let users: Vec<DueUser> = users.into_iter().filter(|user| !sent_lately.has(user)).collect();
            (users, sent_lately.room())
        };
        tally.sent_lately += (found - users.len()) as u64;
        if users.len() > room {
            tally.unsent += (users.len() - room) as u64;
            tally.first_unsent.get_or_insert_with(|| {
                format!("{REMEMBERED_MAX} were sent within a minute, and profile-writer is behind")
            });
            users.truncate(room);
        }
        let queues: Vec<Vec<StreamRecord>> = users.iter().map(|user| vec![wake_up(user, now)]).collect();
        let answers = put_in_rounds(&self.ports.interactions, queues, deadline).await;
        let sent_at = Instant::now();
        let mut sent_lately = self.sent_lately();
        for (user, answer) in users.iter().zip(answers) {
            match answer.why {
                None => {
                    sent_lately.add(user, sent_at);
                    tally.lateness_ms.push(late_ms(user));
                }
                Some(why) => {
                    tally.unsent += 1;
                    tally.first_unsent.get_or_insert(why);
                }
            }
        }
    }

    fn sent_lately(&self) -> MutexGuard<'_, SentLately> {
        // Nothing panics while it holds the lock, and what it guards only saves work.
        self.sent_lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of a scheduled event; none where somebody invokes the function by hand and says none.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-scheduled-events.html>
fn scheduled_time(payload: &str) -> Result<Option<Timestamp>, SweepError> {
    let mut event: Map<String, Value> = serde_json::from_str(payload).map_err(SweepError::Payload)?;
    let time = event.remove("time").unwrap_or_default();
    let time: Option<String> = serde_json::from_value(time).map_err(SweepError::Payload)?;
    time.map(|text| text.parse().map_err(SweepError::Time)).transpose()
}

impl Tally {
    /// Adds another partition of the same pass.
    fn add_partition(&mut self, partition: Tally) {
        let oldest_due_ms = self.oldest_due_ms.max(partition.oldest_due_ms);
        self.add(partition);
        self.oldest_due_ms = oldest_due_ms;
    }

    /// Adds a later pass.
    fn add(&mut self, pass: Tally) {
        self.pages_read += pass.pages_read;
        self.due += pass.due;
        self.sent_lately += pass.sent_lately;
        self.unsent += pass.unsent;
        self.partitions_failed += pass.partitions_failed;
        self.read_units += pass.read_units;
        self.lateness_ms.extend(pass.lateness_ms);
        self.oldest_due_ms = pass.oldest_due_ms;
        self.first_unread = self.first_unread.take().or(pass.first_unread);
        self.first_unsent = self.first_unsent.take().or(pass.first_unsent);
    }
}

#[cfg(test)]
mod tests;
