//! The reader of one shard for one mapping.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::kinesis::{Due, SequenceNumber, ShardLog};
use crate::runtime_api::{InvocationError, REQUEST_BYTES_MAX};

use super::batch::{Batch, BatchBuilder, BatchRecord, Envelope, Offer};
use super::response::{NextStep, Verdict, next_step, take_apart};
use super::{Mapping, ShardProgress, lock};

/// The function has failed for good; nothing more is to be read for it.
struct FunctionUnavailable;

/// Reads the shard and invokes the function, for ever.
pub(super) async fn run(mapping: Arc<Mapping>, progress: Arc<ShardProgress>) {
    let shard = Arc::clone(&progress.shard);
    let function = &mapping.queue.function;
    let poller = Poller {
        envelope: Envelope::new(
            &shard.shard_id,
            region_of(&function.arn),
            &function.role_arn,
            &mapping.config.event_source_arn,
        ),
        affinity: format!("{}#{}", mapping.config.name, shard.shard_id),
        bell: shard.subscribe(),
        read_through: lock(&progress.state).checkpoint,
        position: progress.starting_key.clone(),
        shard: Arc::clone(&shard),
        mapping: Arc::clone(&mapping),
        progress: Arc::clone(&progress),
    };
    poller.run().await;
}

fn region_of(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

struct Poller {
    mapping: Arc<Mapping>,
    progress: Arc<ShardProgress>,
    shard: Arc<ShardLog>,
    envelope: Envelope,
    /// Names this work to the function's processes.
    affinity: String,
    bell: watch::Receiver<crate::kinesis::ShardEnd>,
    /// The last record read, as a number and as the emulator's key.
    read_through: Option<SequenceNumber>,
    position: Option<String>,
}

impl Poller {
    async fn run(mut self) {
        loop {
            let batch = self.gather().await;
            if let Err(FunctionUnavailable) = self.deliver(batch).await {
                self.mapping.kinesis.activity.note();
                return;
            }
        }
    }

    /// Waits for records and fills a batch: until it is full, or the batching window ends.
    async fn gather(&mut self) -> Batch {
        let mut builder = BatchBuilder::new(self.mapping.config.batch_size, REQUEST_BYTES_MAX);
        let window = self.mapping.config.batching_window;
        let mut window_end: Option<Instant> = None;
        loop {
            self.bell.mark_unchanged();
            let (full, due_at) = self.fill(&mut builder).await;
            if !builder.is_empty() && window_end.is_none() {
                window_end = Some(Instant::now() + window);
            }
            if full || window_end.is_some_and(|end| end <= Instant::now()) {
                return builder.finish();
            }
            let wake_at = match (due_at, window_end) {
                (Some(due), Some(end)) => Some(due.min(end)),
                (due, end) => due.or(end),
            };
            let wake = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
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

    /// Takes what is due now. Tells whether the batch is full, and when the next record is due if it is there.
    async fn fill(&mut self, builder: &mut BatchBuilder) -> (bool, Option<Instant>) {
        loop {
            let room = builder.room();
            if room == 0 {
                return (true, None);
            }
            let limit = match self.shard.due(self.read_through, self.mapping.fanout_latency, room) {
                Due::Nothing => return (false, None),
                Due::At(at) => return (false, Some(at.into())),
                Due::Records(limit) => limit,
            };
            let kinesis = &self.mapping.kinesis;
            let records = kinesis
                .read(
                    &self.mapping.config.stream,
                    &self.shard,
                    self.position.as_deref(),
                    limit,
                )
                .await;
            if records.is_empty() {
                // What was to be read is past its retention.
                let end = self.shard.end();
                self.read_through = end.last;
                lock(&self.progress.state).checkpoint = end.last;
                self.mapping.kinesis.activity.note();
                return (false, None);
            }
            for record in records {
                match builder.offer(&self.envelope, &record) {
                    Offer::Taken => {}
                    Offer::Full => return (true, None),
                    Offer::Oversized => {
                        let oversized = BatchRecord::alone(&record);
                        let reason = format!("the record does not fit into an event of {REQUEST_BYTES_MAX} bytes");
                        self.mapping.note_dropped(&self.progress, &[oversized], 0, &reason);
                        self.mapping.kinesis.activity.note();
                    }
                }
                self.read_through = Some(record.sequence_number);
                self.position = Some(record.position().to_owned());
            }
        }
    }

    /// Invokes the function until the whole batch is behind the checkpoint.
    async fn deliver(&self, mut batch: Batch) -> Result<(), FunctionUnavailable> {
        let mapping = &self.mapping;
        let mut tried = 0;
        loop {
            let verdict = self.invoke(&batch).await?;
            let step = next_step(&verdict, tried + 1, &mapping.retry);
            let done = match step {
                NextStep::Advance => batch.records.len(),
                NextStep::Retry { from, .. } | NextStep::GiveUp { from, .. } => from,
            };
            mapping.note_completed(&self.progress, &batch.records[..done]);
            let error = match &verdict {
                Verdict::Succeeded => None,
                Verdict::FailedFrom(_) => Some("the function reported failed items".to_owned()),
                Verdict::Failed(error) => Some(error.clone()),
            };
            if let Some(error) = &error {
                mapping.note_failure(&self.progress, error);
            }
            if let NextStep::GiveUp { from, attempts } = step {
                mapping.note_dropped(
                    &self.progress,
                    &batch.records[from..],
                    attempts,
                    &error.unwrap_or_default(),
                );
            }
            mapping.kinesis.activity.note();
            match step {
                NextStep::Advance | NextStep::GiveUp { .. } => return Ok(()),
                NextStep::Retry { from, attempts, wait } => {
                    tried = attempts;
                    if from > 0 {
                        batch = batch.starting_at(from);
                    }
                    self.wait_to_retry(wait).await;
                }
            }
        }
    }

    async fn wait_to_retry(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
        lock(&self.mapping.counts).retries += 1;
    }

    async fn invoke(&self, batch: &Batch) -> Result<Verdict, FunctionUnavailable> {
        let mapping = &self.mapping;
        {
            let mut counts = lock(&mapping.counts);
            counts.in_flight += 1;
            counts.invocations += 1;
            counts.records_delivered += batch.records.len() as u64;
        }
        let answer = mapping.queue.invoke(batch.payload.clone(), &self.affinity).await;
        let verdict = match answer {
            Ok(body) if mapping.config.report_batch_item_failures => {
                let numbers: Vec<SequenceNumber> = batch.records.iter().map(|record| record.sequence_number).collect();
                take_apart(&body, &numbers)
            }
            Ok(_) => Verdict::Succeeded,
            Err(error) => {
                let unavailable = error == InvocationError::Unavailable;
                lock(&mapping.counts).in_flight -= 1;
                if unavailable {
                    return Err(FunctionUnavailable);
                }
                lock(&mapping.counts).invocations_failed += 1;
                tracing::warn!(mapping = mapping.config.name, %error, "an invocation failed");
                return Ok(Verdict::Failed(error.to_string()));
            }
        };
        let mut counts = lock(&mapping.counts);
        counts.in_flight -= 1;
        match &verdict {
            Verdict::Succeeded => {}
            Verdict::FailedFrom(_) => counts.invocations_partial += 1,
            Verdict::Failed(_) => counts.invocations_failed += 1,
        }
        Ok(verdict)
    }
}
