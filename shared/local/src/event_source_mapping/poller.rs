//! The reader of one shard for one mapping: it takes records as they come, filters them, sorts them into lanes and sends
//! batches off. What happens to a batch is [`super::delivery`]'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::wall_clock_ms;
use crate::kinesis::{ShardEnd, ShardLog, TailRecord};
use crate::template::StartingPosition;

use super::batch::{BatchBuilder, Envelope};
use super::delivery::{Delivered, Delivery, give_up_oversized};
use super::filter::{FilterCriteria, FilterRecord};
use super::lanes::{Lanes, ReadyBatch};
use super::subscription::{Arrival, Subscription, SubscriptionOptions};
use super::tumbling_window::TumblingWindow;
use super::{FunctionUnavailable, Mapping, ShardProgress};

/// While a lane is stuck the others may go on until so many full batches for each lane have been read beyond the checkpoint.
const RUN_AHEAD_BATCHES_PER_LANE_MAX: usize = 4;

/// Reads the shard and invokes the function, until the shard has ended and everything of it is done.
pub(super) async fn run(mapping: Arc<Mapping>, progress: Arc<ShardProgress>) {
    // Parents first: what is in them of a partition key came before.
    progress.parents_finished().await;
    let mut poller = Poller::new(mapping, progress);
    // A function that is unavailable is told by its queue to whoever waits for it.
    if poller.run().await.is_ok() {
        poller.progress.finish_shard();
    }
    poller.mapping.kinesis.activity.note();
}

fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

struct Poller {
    mapping: Arc<Mapping>,
    progress: Arc<ShardProgress>,
    shard: Arc<ShardLog>,
    envelope: Envelope,
    bell: watch::Receiver<ShardEnd>,
    subscription: Subscription,
    lanes: Lanes,
    deliveries: JoinSet<Result<Delivered, FunctionUnavailable>>,
    /// Names this reader to faults and to the function's processes.
    place: String,
    /// Records that arrived earlier are not read, until one did not.
    starts_at_ms: Option<i64>,
    /// The shard's windows, while no delivery has them.
    window: Option<TumblingWindow>,
    /// The latest arrival seen: what time it is on the data clock.
    latest_arrival_ms: i64,
}

impl Poller {
    fn new(mapping: Arc<Mapping>, progress: Arc<ShardProgress>) -> Self {
        let shard = Arc::clone(&progress.shard);
        let function = &mapping.queue.function;
        let config = &mapping.config;
        let place = format!("{}#{}", config.name, shard.shard_id);
        let envelope = Envelope::new(
            &shard.shard_id,
            region_of(&function.arn),
            &function.role_arn,
            &config.event_source_arn,
        );
        let options = SubscriptionOptions {
            fanout_latency: mapping.fanout_latency,
            lifetime: mapping.subscription_lifetime(),
            faults: mapping.faults.clone(),
            place: format!("{place}#read"),
        };
        let subscription = Subscription::new(
            Arc::clone(&mapping.kinesis),
            &config.stream,
            Arc::clone(&shard),
            progress.after.clone(),
            options,
        );
        let starts_at_ms = match config.starting_position {
            // A child whose parents were read from some record on is read from its beginning.
            StartingPosition::AtTimestamp(at_ms) => (!progress.parents_started()).then_some(at_ms),
            StartingPosition::TrimHorizon | StartingPosition::Latest => None,
        };
        Self {
            envelope,
            bell: shard.subscribe(),
            subscription,
            lanes: Lanes::new(mapping.lanes(), mapping.batch_limits(&shard.shard_id)),
            deliveries: JoinSet::new(),
            place,
            starts_at_ms,
            window: config.tumbling_window.map(TumblingWindow::new),
            latest_arrival_ms: i64::MIN,
            shard,
            mapping,
            progress,
        }
    }

    async fn run(&mut self) -> Result<(), FunctionUnavailable> {
        loop {
            self.bell.mark_unchanged();
            let due_at = self.fill().await;
            self.dispatch().await;
            if self.is_at_end() {
                return Ok(());
            }
            let batch_due_at = match self.window_is_lent() {
                // It goes out when the window is back, which wakes this too.
                true => None,
                false => self.lanes.next_window_end(),
            };
            let wake_at = [due_at, batch_due_at, self.window_end()].into_iter().flatten().min();
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.deliveries.join_next() => {
                    // A delivery that panicked would leave its records open for ever: as if the function could not run.
                    self.take_back(done.map_err(|error| {
                        tracing::error!(%error, "a delivery ended");
                        FunctionUnavailable
                    })??);
                }
                changed = self.bell.changed() => {
                    if changed.is_err() {
                        // The stream is gone with the whole cloud.
                        std::future::pending::<()>().await;
                    }
                }
                () = wake => {}
            }
        }
    }

    fn take_back(&mut self, delivered: Delivered) {
        self.lanes.done(delivered.lane, delivered.previous);
        if delivered.window.is_some() {
            self.window = delivered.window;
        }
    }

    /// Takes what is due now into the lanes. Tells when the next record is due if it is there.
    async fn fill(&mut self) -> Option<Instant> {
        let ahead_max = self.mapping.lanes() * self.mapping.config.batch_size * RUN_AHEAD_BATCHES_PER_LANE_MAX;
        while self.lanes.have_room() && self.progress.ahead() < ahead_max {
            let arrival = self.subscription.look().await;
            self.mapping.note_reads(&mut self.subscription);
            match arrival {
                Arrival::Nothing => return None,
                Arrival::At(at) => return Some(at),
                Arrival::Expired(through) => {
                    self.progress.pass(through);
                    self.mapping.kinesis.activity.note();
                    return None;
                }
                Arrival::Records => self.take_records().await,
            }
        }
        None
    }

    async fn take_records(&mut self) {
        let mut polled = 0;
        let mut filtered_out = 0;
        let mut any_passed = false;
        while self.lanes.have_room()
            && let Some(record) = self.subscription.take()
        {
            if self.starts_at_ms.is_some_and(|at_ms| record.arrival_ms < at_ms) {
                self.progress.skip(record.sequence_number);
                any_passed = true;
                continue;
            }
            self.starts_at_ms = None;
            polled += 1;
            self.latest_arrival_ms = self.latest_arrival_ms.max(record.arrival_ms);
            self.progress.read(record.sequence_number);
            if !self.passes_filters(&record) {
                filtered_out += 1;
                self.progress.finish_one(record.sequence_number);
                any_passed = true;
                continue;
            }
            if let Some(oversized) = self.lanes.add(&self.envelope, record) {
                self.give_up(oversized).await;
            }
        }
        self.mapping.count(|counts| {
            counts.events.polled += polled;
            counts.events.filtered_out += filtered_out;
        });
        if any_passed {
            self.mapping.kinesis.activity.note();
        }
    }

    fn passes_filters(&self, record: &TailRecord) -> bool {
        let passes = |filters: &FilterCriteria| {
            filters.matches(&FilterRecord {
                partition_key: &record.stored.partition_key,
                sequence_number: record.sequence_text(),
                arrival_ms: record.arrival_ms,
                data: &record.data(),
            })
        };
        self.mapping.config.filters.as_ref().is_none_or(passes)
    }

    async fn give_up(&self, record: TailRecord) {
        // Without Lambda's limit, because the failure destination gets it too.
        let mut builder = BatchBuilder::new(1, usize::MAX);
        builder.offer(&self.envelope, &record);
        give_up_oversized(&self.mapping, &self.progress, builder.finish()).await;
    }

    /// Sends off what is ready, each batch in a task of its own.
    async fn dispatch(&mut self) {
        let mut oversized = Vec::new();
        while !self.window_is_lent()
            && let Some(ready) = self.lanes.ready(&self.envelope, &mut oversized)
        {
            self.send(ready);
        }
        for record in oversized {
            self.give_up(record).await;
        }
        if self.window_is_due() && self.deliveries.is_empty() {
            let delivery = self.delivery(0);
            self.deliveries.spawn(delivery.close());
        }
    }

    fn send(&mut self, ready: ReadyBatch) {
        let delivery = self.delivery(ready.lane);
        self.deliveries.spawn(delivery.deliver(ready));
    }

    fn delivery(&mut self, lane: usize) -> Delivery {
        let place = if self.mapping.lanes() > 1 {
            format!("{}#{lane}", self.place)
        } else {
            self.place.clone()
        };
        Delivery {
            mapping: Arc::clone(&self.mapping),
            progress: Arc::clone(&self.progress),
            lane,
            place,
            window: self.window.take(),
        }
    }

    /// Whether everything that will ever be in the shard is done.
    fn is_at_end(&self) -> bool {
        self.shard.end().closed
            && self.subscription.is_at_end()
            && self.lanes.are_empty()
            && self.deliveries.is_empty()
            && self.window.as_ref().is_none_or(|window| window.open_span().is_none())
    }

    /// Time on the clock that stamps arrivals.
    fn now_ms(&self) -> i64 {
        if self.mapping.is_on_data_clock() {
            self.latest_arrival_ms
        } else {
            wall_clock_ms()
        }
    }

    /// Whether a delivery has the windows. Until it gives them back, nothing else of the shard may go out: it would have no
    /// state, and run beside a final invocation.
    fn window_is_lent(&self) -> bool {
        self.mapping.config.tumbling_window.is_some() && self.window.is_none()
    }

    fn window_is_due(&self) -> bool {
        let Some(window) = &self.window else { return false };
        let shard_has_ended = self.shard.end().closed && self.subscription.is_at_end() && self.lanes.are_empty();
        window.is_due(self.now_ms(), shard_has_ended)
    }

    /// When the open window is over, on the wall clock; on the data clock a later record tells.
    fn window_end(&self) -> Option<Instant> {
        let span = self.window.as_ref()?.open_span()?;
        if self.mapping.is_on_data_clock() {
            return None;
        }
        let left_ms = span.end_ms.saturating_sub(wall_clock_ms());
        Some(Instant::now() + Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
    }
}
