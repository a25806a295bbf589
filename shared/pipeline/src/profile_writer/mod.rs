//! interactions → profiles, triggers, rejected.
//!
//! Decode, group by user, read what isn't cached, plan each user, write each user once, then send what the outboxes
//! hold. A failing user stops no other (P6); the answer names the first record that has to come again (P3).
//!
//! That goes in rounds, nearly always one. A user whose outbox was stored unsent, or read before anyone emptied it, has it
//! sent in the first round and is planned in the second; one whose events fill the outbox goes on in the next.
//!
//! A key may turn out to be another user's: then its item becomes a pointer, and its events go to that user
//! ([`usher_domain::merge`]).
//!
//! A user whose profile can't be written is parked: the events wait on `rejected`, in order, and later ones follow.

mod budget;
mod identity;
mod parking;
pub(crate) mod records;
mod tally;
mod users;
mod work_events;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::batch::group_by_user;
use usher_domain::journey::Journey;
use usher_domain::snapshots::Snapshots;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::Envelope;

use crate::invocation::{BatchError, Invocation};
use crate::journey_source::JourneyNews;
use crate::outbox::Unsent;
use crate::ports::{ProfileTable, RecordStream, StreamRecord, TelemetrySink, WallClock};
use crate::profile_cache::ProfileCache;
use crate::put_records::{PutResult, put_all};
use crate::response::{BatchResponse, RetryPoint};
use crate::snapshots::{SnapshotKeeper, SnapshotSource};
use crate::telemetry::TelemetryEvent;
use budget::Budget;
use identity::Namings;
use records::{Decoded, decode_records, lanes_of, rejected_record};
use tally::Tally;
use users::{UserFailure, UserWork, parted};

/// What profile-writer needs from the outside.
#[derive(Clone, Debug)]
pub struct ProfileWriterPorts<P, S, C, T> {
    /// The `profiles` table.
    pub profiles: P,
    /// The `triggers` stream.
    pub triggers: S,
    /// The `rejected` stream.
    pub rejected: S,
    /// The wall clock, for latencies.
    pub clock: C,
    /// Where telemetry goes.
    pub telemetry: T,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileWriterConfig {
    /// Profiles that are written at the same time.
    pub write_concurrency: usize,
    /// Batches of one shard that Lambda runs at once: the mapping's parallelisation factor.
    pub parallelization_factor: u32,
    /// The CloudWatch namespace of the metrics.
    pub metrics_namespace: String,
}

/// The flow, with what a warm container keeps between invocations.
#[derive(Debug)]
pub struct ProfileWriter<P, S, C, T> {
    journey: Arc<Journey>,
    ports: ProfileWriterPorts<P, S, C, T>,
    config: ProfileWriterConfig,
    cache: ProfileCache,
    snapshots: Option<SnapshotKeeper>,
}

impl<P, S, C, T> ProfileWriter<P, S, C, T>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
    T: TelemetrySink,
{
    /// A flow for one journey.
    pub fn new(
        journey: Arc<Journey>,
        ports: ProfileWriterPorts<P, S, C, T>,
        config: ProfileWriterConfig,
    ) -> ProfileWriter<P, S, C, T> {
        ProfileWriter {
            journey,
            ports,
            config,
            cache: ProfileCache::new(),
            snapshots: None,
        }
    }

    /// The same, deciding with what was learned from all users, as far as the journey needs it. Without, it decides as if
    /// nothing were known of others.
    pub fn with_snapshots(self, source: &SnapshotSource) -> ProfileWriter<P, S, C, T> {
        ProfileWriter {
            snapshots: source.keeper(&self.journey),
            ..self
        }
    }

    /// What it was given to talk to.
    pub fn ports(&self) -> &ProfileWriterPorts<P, S, C, T> {
        &self.ports
    }

    /// The journey that it runs.
    pub fn journey(&self) -> &Arc<Journey> {
        &self.journey
    }

    /// Processes one invocation.
    ///
    /// # Errors
    /// When the payload is no Kinesis batch. Everything else is told by the response.
    pub async fn run(&self, invocation: Invocation<'_>) -> Result<BatchResponse, BatchError> {
        self.run_with_news(invocation, JourneyNews::default()).await
    }

    /// The same, and tells with the batch's counts what is new about the journey.
    ///
    /// # Errors
    /// When the payload is no Kinesis batch. Everything else is told by the response.
    pub async fn run_with_news(
        &self,
        invocation: Invocation<'_>,
        news: JourneyNews,
    ) -> Result<BatchResponse, BatchError> {
        let budget = Budget::until(invocation.deadline);
        let envelope = Envelope::parse(invocation.payload)?;
        let bytes = DecodedBatch::decode(&envelope);
        let lanes = lanes_of(&envelope, self.config.parallelization_factor > 1);
        let Decoded {
            events,
            record_of_event,
            rejects,
        } = decode_records(&envelope, &bytes, &lanes);

        let mut retry_point = RetryPoint::none(envelope.records.len());
        // Records that the batch was too large for come again.
        retry_point.lower_to(bytes.len());
        let mut tally = Tally::new(&self.journey, envelope.records.len(), rejects);

        let groups = group_by_user(&events);
        tally.telemetry.request_id = invocation.request_id.to_owned();
        tally.telemetry.note_journey(news);
        let snapshots = self.snapshots_for(&envelope, &mut tally).await;
        tally.telemetry.batch_users = groups.len() as u64;
        let mut open = self.load(&groups, &snapshots, budget.read, &mut tally).await;
        let mut failures = Failures::default();
        let mut parked = Vec::new();
        let mut namings = Namings::of(&events, &open);
        // Users who failed: whoever turns out to be one of them comes again with them (P3).
        let mut failed: HashSet<String> = HashSet::new();
        while !open.is_empty() {
            let goes = self.get_ready(&mut open, &namings, budget.write, &mut tally).await;
            let (going, mut waiting) = parted(std::mem::take(&mut open), &goes);
            let writes = going.into_iter().map(|user| self.write_user(user, budget.write));
            let written: Vec<_> = futures::stream::iter(writes)
                .buffer_unordered(self.config.write_concurrency.max(1))
                .collect()
                .await;
            let mut stored = Vec::with_capacity(written.len());
            let mut merged: HashMap<String, String> = HashMap::new();
            let mut outdated: HashSet<String> = HashSet::new();
            let mut has_moved = false;
            for (mut user, write, result) in written {
                tally.note_attempts(&write);
                match result {
                    Ok(()) => {
                        tally.note_write(&user, &write, &record_of_event, &events);
                        outdated.extend(write.outdated);
                        if let Some(key) = write.merged {
                            merged.insert(key, user.events.user().to_owned());
                        }
                        stored.push(user);
                    }
                    Err(UserFailure::Moved(to)) => {
                        self.cache.put_pointer(user.events.user(), &to);
                        user.follow(&to);
                        has_moved = true;
                        waiting.push(user);
                    }
                    Err(UserFailure::Parked(parking)) => {
                        failed.insert(user.events.user().to_owned());
                        parked.push(self.sort_out(user, parking, &mut tally, &record_of_event));
                    }
                    Err(UserFailure::Unavailable(why)) => {
                        retry_point.lower_to(record_of_event[user.first_open_event()]);
                        failures.note(why);
                        failed.insert(user.events.user().to_owned());
                    }
                }
            }
            self.send_triggers(
                &mut stored,
                budget.triggers,
                &mut tally,
                &mut failures,
                &mut retry_point,
                &record_of_event,
            )
            .await;
            // Those whose outbox was not empty, or became full, go on with their other events now that it is empty.
            open.extend(stored.into_iter().filter(|user| !user.is_done()));
            // Those whose profile became part of another's follow it there.
            for user in waiting.iter_mut().filter(|_| !merged.is_empty()) {
                if let Some(to) = merged.get(user.events.user()) {
                    user.follow(to);
                    has_moved = true;
                }
            }
            for user in waiting.iter_mut().filter(|_| !outdated.is_empty()) {
                if outdated.contains(user.events.user()) {
                    user.forget_profile();
                    has_moved = true;
                }
            }
            open.append(&mut waiting);
            if has_moved {
                open = self.look_up(open, budget.write, &mut tally).await;
                namings = Namings::of(&events, &open);
                for user in open.iter_mut().filter(|user| failed.contains(user.events.user())) {
                    let why = "the user that it turned out to be has failed in this batch".to_owned();
                    user.blocked = Some(UserFailure::Unavailable(why));
                }
            }
        }

        self.park(parked, &envelope, &budget, &mut tally, &mut retry_point, &mut failures)
            .await;
        self.send_rejects(&envelope, &mut tally, &mut retry_point, &mut failures, budget.rejects)
            .await;
        failures.log(envelope.records.len());
        let now = self.ports.clock.now();
        let arrived_last = envelope.records.last().map(|record| record.arrived_at);
        tally.finish(
            &self.journey,
            retry_point,
            arrived_last.map_or(0, |at| now.ms_since(at).max(0) as u64),
        );
        tally
            .telemetry
            .emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
        Ok(match retry_point.index_in(envelope.records.len()) {
            Some(index) => BatchResponse::retry_from(&envelope.records[index].sequence_number_text),
            None => BatchResponse::done(),
        })
    }

    /// What the batch decides with.
    async fn snapshots_for(&self, envelope: &Envelope<'_>, tally: &mut Tally) -> Arc<Snapshots> {
        let last = envelope.records.last();
        let (Some(keeper), Some(last)) = (&self.snapshots, last) else {
            return Arc::default();
        };
        let (snapshots, news) = keeper.for_batch(last.arrived_at).await;
        tally.telemetry.note_snapshots(news);
        Arc::new(snapshots)
    }

    /// Puts everything that the users' outboxes hold on the stream (P5). What was put leaves the outbox, in memory: the
    /// stored one empties with the user's next write, and until then it is sent again by whoever reads the profile.
    async fn send_triggers(
        &self,
        users: &mut Vec<UserWork<'_>>,
        deadline: Instant,
        tally: &mut Tally,
        failures: &mut Failures,
        retry_point: &mut RetryPoint,
        record_of_event: &[usize],
    ) {
        let outboxes = users
            .iter()
            .flat_map(|user| user.outbox().map(move |unsent| (user, unsent)));
        let records: Vec<StreamRecord> = outboxes.clone().map(|(_, unsent)| unsent.record()).collect();
        let results = if records.is_empty() {
            Vec::new()
        } else {
            put_all(&self.ports.triggers, &records, deadline).await
        };
        let sent_at = self.ports.clock.now();
        for ((user, unsent), result) in outboxes.zip(&results) {
            if result.is_stored() {
                // What a profile's outbox held from long ago says nothing about how quick this batch was.
                let is_new = user.has_caused(unsent);
                let trigger = match unsent {
                    Unsent::Trigger(trigger) => trigger,
                    Unsent::Outcome(outcome) => {
                        tally.note_told(outcome, is_new);
                        continue;
                    }
                };
                tally.note_trigger(is_new.then(|| sent_at.ms_since(trigger.decided_at)));
                let falls_back = trigger.choice.as_ref().is_some_and(|choice| choice.fallback.is_some());
                tally.telemetry.model_fallbacks += u64::from(is_new && falls_back);
                if is_new && let Some(due_at) = trigger.due_at {
                    tally.note_timer(trigger.decided_at.ms_since(due_at));
                }
            }
        }
        let mut results = results.into_iter();
        users.retain_mut(|user| {
            let unsent = user.settle_outbox(&mut results);
            let sent = unsent.is_none();
            if let Some(why) = unsent {
                // From the first on, not the last: the records that caused them come again, so they are not too old.
                retry_point.lower_to(record_of_event[user.first_event()]);
                failures.note(why);
            }
            if (user.is_done() || !sent)
                && let Some(profile) = user.profile.take()
            {
                self.cache.put(user.events.user(), profile, user.state_bytes);
            }
            sent
        });
    }

    /// Puts the settled rejects on their stream (P1). Those that come again are rejected again then.
    async fn send_rejects(
        &self,
        envelope: &Envelope<'_>,
        tally: &mut Tally,
        retry_point: &mut RetryPoint,
        failures: &mut Failures,
        deadline: Instant,
    ) {
        let rejects = tally.settled_rejects(*retry_point);
        let records: Vec<StreamRecord> = rejects
            .iter()
            .map(|(index, reject)| rejected_record(&envelope.records[*index], reject, None))
            .collect();
        if records.is_empty() {
            return;
        }
        let results = put_all(&self.ports.rejected, &records, deadline).await;
        for ((index, _), result) in rejects.iter().zip(results) {
            if let PutResult::Failed { why } = result {
                retry_point.lower_to(*index);
                failures.note(why);
            }
        }
    }
}

/// What went wrong in a batch, for one log line.
#[derive(Debug, Default)]
struct Failures {
    count: usize,
    first: Option<String>,
}

impl Failures {
    fn note(&mut self, why: String) {
        self.count += 1;
        self.first.get_or_insert(why);
    }

    fn log(&self, records: usize) {
        if let Some(first) = &self.first {
            tracing::warn!(
                records,
                failures = self.count,
                first,
                "a part of the batch has to come again"
            );
        }
    }
}

#[cfg(test)]
mod tests;
