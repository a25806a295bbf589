//! One batch on its way to the function, until every record of it is done or given up.
//!
//! This is the loop back from a failure to a retry: a part that failed is sent again, split, or given up, and the next part
//! waits for it, so that order holds within the lane.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;

use crate::clock::wall_clock_ms;
use crate::faults::FaultKind;
use crate::function_queue::{InvocationError, random_request_id};
use crate::runtime_api::REQUEST_BYTES_MAX;

use super::batch::Batch;
use super::failure_destination::{DiscardCondition, DiscardedBatch, FailureDestinationError, LastInvocation};
use super::lanes::ReadyBatch;
use super::response::{NextStep, Verdict, backoff, next_step, take_apart};
use super::tumbling_window::{TumblingWindow, WindowStep};
use super::{FunctionUnavailable, Mapping, ShardProgress};

/// A final invocation without a retry limit of its own is tried for as long as it fails; it counts as failing in this lane.
const WINDOW_LANE: usize = 0;

/// Delivers for one lane of one shard.
pub(super) struct Delivery {
    pub mapping: Arc<Mapping>,
    pub progress: Arc<ShardProgress>,
    pub lane: usize,
    /// Names this work to the function's processes and to the faults.
    pub place: String,
    /// The shard's windows, lent for this delivery.
    pub window: Option<TumblingWindow>,
}

/// What a delivery gives back.
pub(super) struct Delivered {
    pub lane: usize,
    pub window: Option<TumblingWindow>,
    /// The batch, where the next may overlap it.
    pub previous: Option<Batch>,
}

/// A run of records that is tried as one.
struct Part {
    batch: Batch,
    /// Tries that count as attempts.
    tried: u32,
    /// All of them.
    invocations: u32,
    throttles: u32,
    /// Whether it was delivered twice on purpose already.
    is_duplicated: bool,
    request_id: String,
    last: LastInvocation,
}

impl Part {
    fn new(batch: Batch) -> Self {
        Self {
            batch,
            tried: 0,
            invocations: 0,
            throttles: 0,
            is_duplicated: false,
            request_id: String::new(),
            last: LastInvocation::None,
        }
    }

    /// Some of its records, with its past.
    fn part(&self, range: Range<usize>, tried: u32) -> Self {
        Self {
            batch: self.batch.part(range),
            tried,
            request_id: self.request_id.clone(),
            ..*self
        }
    }

    fn len(&self) -> usize {
        self.batch.records.len()
    }
}

/// How an invocation ended.
enum Invoked {
    Done {
        verdict: Verdict,
        last: LastInvocation,
        request_id: String,
        response: Option<Bytes>,
    },
    /// The function was not invoked: it has no concurrency left.
    Throttled,
}

impl Delivery {
    /// Delivers a batch, to its end.
    pub async fn deliver(mut self, ready: ReadyBatch) -> Result<Delivered, FunctionUnavailable> {
        let faults = &self.mapping.faults;
        let kept = faults
            .may_strike(FaultKind::OverlappingBatch)
            .then(|| ready.batch.clone());
        let mut parts: VecDeque<Part> = self.first_parts(ready).into();
        while let Some(part) = parts.pop_front() {
            self.advance(part, &mut parts).await?;
        }
        Ok(Delivered {
            lane: self.lane,
            window: self.window,
            previous: kept,
        })
    }

    /// Ends the window that is open.
    pub async fn close(mut self) -> Result<Delivered, FunctionUnavailable> {
        self.close_window().await?;
        Ok(Delivered {
            lane: self.lane,
            window: self.window,
            previous: None,
        })
    }

    /// The batch, or the batch behind some records of the one before when that fault strikes.
    fn first_parts(&self, ready: ReadyBatch) -> Vec<Part> {
        let Some(previous) = ready.previous.filter(|previous| !previous.records.is_empty()) else {
            return vec![Part::new(ready.batch)];
        };
        let Some(random) = self.mapping.faults.strike(FaultKind::OverlappingBatch, &self.place) else {
            return vec![Part::new(ready.batch)];
        };
        let records = previous.records.len();
        let repeated = 1 + usize::try_from(random % records as u64).unwrap_or(0);
        let overlap = previous.starting_at(records - repeated).into_repeats();
        let records_max = self.mapping.config.batch_size;
        let both = overlap.followed_by(&ready.batch);
        if both.payload.len() > self.mapping.batch_limits(&self.progress.shard.shard_id).bytes_max {
            return vec![Part::new(overlap), Part::new(ready.batch)];
        }
        let cut = both.records.len().min(records_max);
        let mut parts = vec![Part::new(both.part(0..cut))];
        if cut < both.records.len() {
            parts.push(Part::new(both.starting_at(cut)));
        }
        parts
    }

    /// Tries a part once. What is left of it goes to the front of the queue.
    async fn advance(&mut self, part: Part, parts: &mut VecDeque<Part>) -> Result<(), FunctionUnavailable> {
        let Some(mut part) = self.without_old_records(part).await else {
            return Ok(());
        };
        if let Some(window) = &mut self.window {
            match window.next_step(part.batch.records.iter().map(|record| record.arrival_ms)) {
                WindowStep::Close => {
                    parts.push_front(part);
                    return self.close_window().await;
                }
                WindowStep::Aggregate(count) if count < part.len() => {
                    parts.push_front(part.part(count..part.len(), part.tried));
                    part = part.part(0..count, part.tried);
                }
                WindowStep::Aggregate(_) => {}
            }
        }
        let window_before = self.window.clone();
        let verdict = match self.invoke_with(&part.batch).await? {
            Invoked::Throttled => {
                part.throttles = part.throttles.saturating_add(1);
                tokio::time::sleep(backoff(part.throttles, &self.mapping.retry)).await;
                parts.push_front(part);
                return Ok(());
            }
            Invoked::Done {
                verdict,
                last,
                request_id,
                response,
            } => {
                part.last = last;
                part.request_id = request_id;
                part.throttles = 0;
                self.check_state(verdict, response)
            }
        };
        part.tried = part.tried.saturating_add(1);
        part.invocations = part.invocations.saturating_add(1);
        if verdict == Verdict::Succeeded && !part.is_duplicated {
            let struck = self.mapping.faults.strike(FaultKind::DuplicateDelivery, &self.place);
            if struck.is_some() {
                part.is_duplicated = true;
                part.tried = 0;
                self.window = window_before;
                parts.push_front(part);
                return Ok(());
            }
        }
        self.follow(part, &verdict, parts).await;
        Ok(())
    }

    /// Does what follows from a verdict.
    async fn follow(&self, part: Part, verdict: &Verdict, parts: &mut VecDeque<Part>) {
        let mapping = &self.mapping;
        let step = next_step(verdict, part.tried, part.len(), &mapping.retry);
        let done = match step {
            NextStep::Advance => part.len(),
            NextStep::Bisect { .. } => 0,
            NextStep::Retry { from, .. } | NextStep::GiveUp { from, .. } => from,
        };
        mapping.note_completed(&self.progress, self.lane, &part.batch.records[..done]);
        let error = match verdict {
            Verdict::Succeeded => None,
            Verdict::FailedFrom(_) => Some("the function reported failed items".to_owned()),
            Verdict::Failed(error) => Some(error.clone()),
        };
        if let Some(error) = &error {
            mapping.note_failure(&self.progress, self.lane, error);
        }
        match step {
            NextStep::Advance => mapping.kinesis.activity.note(),
            NextStep::GiveUp { from, attempts } => {
                let rest = part.part(from..part.len(), attempts);
                let condition = DiscardCondition::RetryAttemptsExhausted;
                self.give_up(&rest, condition, &error.unwrap_or_default()).await;
            }
            NextStep::Retry { from, attempts, wait } => {
                mapping.kinesis.activity.note();
                let rest = if from > 0 {
                    part.part(from..part.len(), attempts)
                } else {
                    Part {
                        tried: attempts,
                        ..part
                    }
                };
                parts.push_front(rest);
                tokio::time::sleep(wait).await;
                mapping.count(|counts| counts.retries += 1);
            }
            NextStep::Bisect { at, wait } => {
                mapping.kinesis.activity.note();
                // The split is no attempt: each half has all of its retries.
                parts.push_front(part.part(at..part.len(), 0));
                parts.push_front(part.part(0..at, 0));
                tokio::time::sleep(wait).await;
                mapping.count(|counts| {
                    counts.retries += 1;
                    counts.bisections += 1;
                });
            }
        }
    }

    /// Gives up the records that are too old to be sent: by the wall clock since their put, also when the data clock stamps
    /// arrivals, because what the age is to bound is how long a shard is held up.
    async fn without_old_records(&self, part: Part) -> Option<Part> {
        let Some(age_max) = self.mapping.config.record_age_max else {
            return Some(part);
        };
        let now = Instant::now();
        let is_old = |came: Instant| now.saturating_duration_since(came) > age_max;
        let records = &part.batch.records;
        let old = records.iter().take_while(|record| is_old(record.came)).count();
        if old == 0 {
            return Some(part);
        }
        let reason = format!("the records are older than {} seconds", age_max.as_secs_f64());
        self.give_up(
            &part.part(0..old, part.tried),
            DiscardCondition::RecordAgeExceeded,
            &reason,
        )
        .await;
        (old < part.len()).then(|| part.part(old..part.len(), part.tried))
    }

    /// Puts the records where the template says, and then behind the checkpoint.
    async fn give_up(&self, part: &Part, condition: DiscardCondition, reason: &str) {
        // Those of an overlap are done already.
        let repeats = part.batch.records.iter().take_while(|record| record.is_repeat).count();
        let part = part.part(repeats..part.len(), part.tried);
        let delivered = write_to_destination(&self.mapping, &self.progress, &part, condition).await;
        let attempts = part.tried;
        self.mapping.note_dropped(
            &self.progress,
            self.lane,
            &part.batch.records,
            attempts,
            reason,
            delivered,
        );
        self.mapping.kinesis.activity.note();
    }

    /// Keeps the state of an answer where there are windows; without one the invocation failed.
    fn check_state(&mut self, verdict: Verdict, response: Option<Bytes>) -> Verdict {
        let (Some(window), Some(response)) = (&mut self.window, response) else {
            return verdict;
        };
        match window.accept(&response) {
            Ok(()) => verdict,
            Err(error) => Verdict::Failed(error.to_string()),
        }
    }

    /// Invokes the function without records, until that succeeds or is given up.
    async fn close_window(&mut self) -> Result<(), FunctionUnavailable> {
        let mapping = Arc::clone(&self.mapping);
        let shard_id = Arc::clone(&self.progress.shard.shard_id);
        let mut tried = 0_u32;
        let mut throttles = 0_u32;
        loop {
            let Some(window) = &mut self.window else { return Ok(()) };
            let Some(event) = window.final_event(&shard_id, &mapping.config.event_source_arn) else {
                return Ok(());
            };
            let error = match self.invoke(event.into(), &Batch::empty()).await? {
                Invoked::Throttled => {
                    throttles = throttles.saturating_add(1);
                    tokio::time::sleep(backoff(throttles, &mapping.retry)).await;
                    continue;
                }
                Invoked::Done {
                    verdict: Verdict::Succeeded,
                    response: Some(response),
                    ..
                } => match self.window.as_mut().map(|window| window.close(&response)) {
                    Some(Err(error)) => error.to_string(),
                    _ => {
                        mapping.count(|counts| counts.windows_closed += 1);
                        mapping.kinesis.activity.note();
                        return Ok(());
                    }
                },
                Invoked::Done {
                    verdict: Verdict::Failed(error),
                    ..
                } => error,
                Invoked::Done { .. } => "the final invocation of a window reported failed items".to_owned(),
            };
            tried = tried.saturating_add(1);
            mapping.note_failure(&self.progress, WINDOW_LANE, &error);
            if mapping.retry.attempts_max.is_some_and(|retries| tried > retries) {
                tracing::error!(mapping = mapping.config.name, error, "a window's state was given up");
                if let Some(window) = &mut self.window {
                    window.abandon();
                }
                return Ok(());
            }
            tokio::time::sleep(backoff(tried, &mapping.retry)).await;
            mapping.count(|counts| counts.retries += 1);
        }
    }

    async fn invoke_with(&self, batch: &Batch) -> Result<Invoked, FunctionUnavailable> {
        let payload = match &self.window {
            Some(window) => {
                let arn = &self.mapping.config.event_source_arn;
                window.event(&batch.payload, &self.progress.shard.shard_id, arn).into()
            }
            None => batch.payload.clone(),
        };
        self.invoke(payload, batch).await
    }

    /// Invokes once; twice at once when that fault strikes, and then the later answer counts.
    async fn invoke(&self, payload: Bytes, batch: &Batch) -> Result<Invoked, FunctionUnavailable> {
        if payload.len() > REQUEST_BYTES_MAX {
            // Batches are cut below it; a window's state that went far over its own limit may not fit.
            return Ok(Invoked::Done {
                verdict: Verdict::Failed(format!("the event exceeds {REQUEST_BYTES_MAX} bytes")),
                last: LastInvocation::None,
                request_id: String::new(),
                response: None,
            });
        }
        let faults = &self.mapping.faults;
        let elsewhere = faults.strike(FaultKind::StaleContainer, &self.place).is_some();
        // A strike counts where it had its effect: there is an elsewhere, and the function was invoked there.
        let count_elsewhere = |invoked: &Result<Invoked, FunctionUnavailable>| {
            if elsewhere && (self.mapping.queue.has_one_process() || matches!(invoked, Ok(Invoked::Throttled))) {
                faults.withdraw(FaultKind::StaleContainer);
            }
        };
        if faults.strike(FaultKind::ConcurrentDelivery, &self.place).is_none() {
            let invoked = self.invoke_once(payload, batch, elsewhere).await;
            count_elsewhere(&invoked);
            return invoked;
        }
        let first = std::pin::pin!(self.invoke_once(payload.clone(), batch, elsewhere));
        let second = std::pin::pin!(self.invoke_once(payload, batch, !elsewhere));
        let (earlier, later) = match futures::future::select(first, second).await {
            futures::future::Either::Left((first, second)) => {
                count_elsewhere(&first);
                (first, second.await)
            }
            futures::future::Either::Right((second, first)) => {
                let first = first.await;
                count_elsewhere(&first);
                (second, first)
            }
        };
        if matches!(earlier, Ok(Invoked::Throttled)) || matches!(later, Ok(Invoked::Throttled)) {
            faults.withdraw(FaultKind::ConcurrentDelivery);
        }
        // One that was never invoked says nothing.
        match later {
            Ok(Invoked::Throttled) => earlier,
            later => later,
        }
    }

    async fn invoke_once(
        &self,
        payload: Bytes,
        batch: &Batch,
        elsewhere: bool,
    ) -> Result<Invoked, FunctionUnavailable> {
        let mapping = &self.mapping;
        let Ok(_permit) = mapping.concurrency.try_acquire() else {
            mapping.note_throttled(&self.progress, self.lane);
            return Ok(Invoked::Throttled);
        };
        let records = batch.records.len() as u64;
        let age = batch.records.last().map(|last| last.came.elapsed());
        mapping.count(|counts| {
            counts.in_flight += 1;
            counts.invocations += 1;
            counts.records_delivered += records;
            counts.events.invoked += records;
            counts.note_age(age);
        });
        let request_id = random_request_id();
        let invocation = mapping
            .queue
            .invoke_process(request_id.clone(), payload, &self.place, elsewhere);
        let answer = invocation.await;
        mapping.count(|counts| counts.in_flight -= 1);
        let (verdict, last, response) = match answer {
            Ok(body) if mapping.config.report_batch_item_failures => {
                let verdict = take_apart(&body, &batch.numbers());
                (verdict, LastInvocation::Answered, Some(body))
            }
            Ok(body) => (Verdict::Succeeded, LastInvocation::Answered, Some(body)),
            Err(InvocationError::Unavailable) => return Err(FunctionUnavailable),
            Err(error) => {
                tracing::warn!(mapping = mapping.config.name, %error, "an invocation failed");
                (Verdict::Failed(error.to_string()), LastInvocation::FunctionError, None)
            }
        };
        mapping.count(|counts| match &verdict {
            Verdict::Succeeded => {}
            Verdict::FailedFrom(_) => {
                counts.invocations_partial += 1;
                counts.events.failed_invoke += records;
            }
            Verdict::Failed(_) => {
                counts.invocations_failed += 1;
                counts.events.failed_invoke += records;
            }
        });
        Ok(Invoked::Done {
            verdict,
            last,
            request_id,
            response,
        })
    }
}

/// A record that no event can hold, given up before any invocation.
pub(super) async fn give_up_oversized(mapping: &Arc<Mapping>, progress: &Arc<ShardProgress>, batch: Batch) {
    let reason = format!("the record does not fit into an event of {REQUEST_BYTES_MAX} bytes");
    let part = Part::new(batch);
    let condition = DiscardCondition::RetryAttemptsExhausted;
    let delivered = write_to_destination(mapping, progress, &part, condition).await;
    mapping.note_dropped(progress, 0, &part.batch.records, 0, &reason, delivered);
    mapping.kinesis.activity.note();
}

/// Writes given-up records to the mapping's failure destination. `false` when there is none, or nothing can be written to it.
async fn write_to_destination(
    mapping: &Arc<Mapping>,
    progress: &Arc<ShardProgress>,
    part: &Part,
    condition: DiscardCondition,
) -> bool {
    let (Some(destination), Some(writer)) = (&mapping.config.failure_destination, &mapping.failed_batches) else {
        return false;
    };
    if part.batch.records.is_empty() {
        return false;
    }
    let request_id = if part.request_id.is_empty() {
        random_request_id()
    } else {
        part.request_id.clone()
    };
    let mut failures = 0_u32;
    loop {
        let (destination, writer) = (destination.clone(), Arc::clone(writer));
        let (mapping_of, shard_id) = (Arc::clone(mapping), Arc::clone(&progress.shard.shard_id));
        let (batch, request_id) = (part.batch.clone(), request_id.clone());
        let (invocations, last) = (part.invocations, part.last);
        let written = tokio::task::spawn_blocking(move || {
            let config = &mapping_of.config;
            let (Some(first), Some(end)) = (batch.records.first(), batch.records.last()) else {
                return Ok(());
            };
            let discarded = DiscardedBatch {
                request_id: &request_id,
                function_arn: &mapping_of.queue.function.arn,
                condition,
                approximate_invoke_count: invocations,
                last_invocation: last,
                discarded_ms: wall_clock_ms(),
                stream_arn: &config.stream_arn,
                shard_id: &shard_id,
                start_sequence_number: &first.sequence_text,
                end_sequence_number: &end.sequence_text,
                first_arrival_ms: first.arrival_ms,
                last_arrival_ms: end.arrival_ms,
                batch_size: batch.records.len(),
                event: batch.event_text(),
            };
            writer.write(&destination, &config.uuid, &discarded).map(|_| ())
        });
        match written.await {
            Ok(Ok(())) => return true,
            Ok(Err(error @ FailureDestinationError::NotDelivered { .. })) => {
                tracing::error!(mapping = mapping.config.name, %error, "records were given up and kept nowhere");
                return false;
            }
            Ok(Err(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(mapping = mapping.config.name, %error, source, "a given-up batch could not be written");
            }
            Err(error) => tracing::error!(%error, "writing a given-up batch panicked"),
        }
        // The checkpoint waits: what is in neither place would be lost.
        failures = failures.saturating_add(1);
        mapping.count(|counts| counts.destination_failures += 1);
        tokio::time::sleep(backoff(failures, &mapping.retry).max(Duration::from_millis(1))).await;
    }
}
