//! triggers → decisions, and whoever shows them.
//!
//! A decision is recorded under (user, trigger id) before it is delivered, so a trigger that comes twice is delivered
//! once (P5). Where delivering is a step of its own, the record says `pending` until it succeeded: a crash in between
//! delivers again, under the same id, and the receiver acts once. A decision for a user who is held out is recorded as
//! such and goes nowhere.
//!
//! What came of a decision is filed under it. Outcomes are cumulative, and one with more rewards takes the place of one with
//! fewer, so neither redelivery nor disorder loses or repeats any.

use std::borrow::Cow;

use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;
use usher_domain::limits::IDENTIFIER_BYTES_MAX;
use usher_domain::time::Timestamp;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::{Envelope, EnvelopeRecord};
use usher_wire::outcome::OUTCOME_KIND;
use usher_wire::trigger::{DECISION_KIND, TriggerRecord};

use crate::invocation::{BatchError, Invocation};
use crate::ports::{
    DecisionItem, DecisionStatus, DecisionTable, Delivery, DeliveryAnswer, FileAnswer, OutcomeItem, RecordAnswer,
    TelemetrySink, WallClock,
};
use crate::response::{BatchResponse, RetryPoint};
use crate::retry::{Failure, chain, until_answered};
use crate::telemetry::{TelemetryEvent, TriggerDeliveryBatch, spread};

/// How often the table is asked before the decision is left to the next delivery of its batch.
const TABLE_ATTEMPTS_MAX: u32 = 8;
/// How often a receiver is called before the same; a receiver that is down is better left alone for a while.
const DELIVERY_ATTEMPTS_MAX: u32 = 3;
/// The largest decision that is recorded, in bytes: an item holds 400 KB, its outcome, other attributes and names included.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
const DECISION_BYTES_MAX: usize = 376 * 1024;
/// The largest outcome that is filed under it, in bytes. They have some 600, and 2,000 with a context of 32 numbers.
const OUTCOME_BYTES_MAX: usize = 16 * 1024;
/// Longest trigger id, in bytes: what a sort key holds. Usher's own have 32.
const TRIGGER_ID_BYTES_MAX: usize = 1024;
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
const MS_PER_SECOND: i64 = 1000;

/// What trigger-delivery needs from the outside.
#[derive(Debug)]
pub struct TriggerDeliveryPorts<D, V, C, T> {
    /// The `decisions` table.
    pub decisions: D,
    /// Where decisions go.
    pub delivery: V,
    /// The wall clock, for latencies and for when the table may forget.
    pub clock: C,
    /// Where telemetry goes.
    pub telemetry: T,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerDeliveryConfig {
    /// Users whose decisions are delivered at the same time.
    pub delivery_concurrency: usize,
    /// Days that the table keeps a decision.
    pub decision_ttl_days: u32,
    /// The CloudWatch namespace of the metrics.
    pub metrics_namespace: String,
}

/// The flow.
#[derive(Debug)]
pub struct TriggerDelivery<D, V, C, T> {
    ports: TriggerDeliveryPorts<D, V, C, T>,
    config: TriggerDeliveryConfig,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Duplicate,
    Undeliverable,
    HeldOut,
    Filed,
    KnownAlready,
    OtherKind,
    Malformed,
}

/// How far an outcome is ahead of others of its decision, and where that is.
#[derive(Deserialize)]
struct RewardsSoFar<'a> {
    #[serde(borrow)]
    rewards_so_far: Vec<Cow<'a, str>>,
    /// The user that the decision names, where that one turned out to be the outcome's since.
    #[serde(borrow, default)]
    decided_for: Option<Cow<'a, str>>,
}

/// Something about a user that came.
enum Incoming {
    Decision { decision: DecisionItem, is_held_out: bool },
    Outcome(OutcomeItem),
}

impl Incoming {
    fn user_id(&self) -> &str {
        match self {
            Incoming::Decision { decision, .. } => &decision.user_id,
            Incoming::Outcome(outcome) => &outcome.user_id,
        }
    }
}

impl<D, V, C, T> TriggerDelivery<D, V, C, T>
where
    D: DecisionTable,
    V: Delivery,
    C: WallClock,
    T: TelemetrySink,
{
    /// A flow.
    pub fn new(ports: TriggerDeliveryPorts<D, V, C, T>, config: TriggerDeliveryConfig) -> TriggerDelivery<D, V, C, T> {
        TriggerDelivery { ports, config }
    }

    /// What it was given to talk to.
    pub fn ports(&self) -> &TriggerDeliveryPorts<D, V, C, T> {
        &self.ports
    }

    /// Processes one invocation.
    ///
    /// # Errors
    /// When the payload is no Kinesis batch. Everything else is told by the response.
    pub async fn run(&self, invocation: Invocation<'_>) -> Result<BatchResponse, BatchError> {
        let deadline = invocation.deadline;
        let envelope = Envelope::parse(invocation.payload)?;
        let bytes = DecodedBatch::decode(&envelope);
        let records = envelope.records.len();
        let mut retry_point = RetryPoint::none(records);
        retry_point.lower_to(bytes.len());

        let mut outcomes: Vec<Option<Outcome>> = vec![None; records];
        let mut incoming = Vec::new();
        for (index, bytes) in bytes.records().enumerate() {
            match bytes.ok().map_or(Err(Outcome::Malformed), |bytes| self.read(bytes)) {
                Ok(read) => incoming.push((index, read)),
                Err(outcome) => outcomes[index] = Some(outcome),
            }
        }
        if let Some(first) = outcomes.iter().position(|outcome| *outcome == Some(Outcome::Malformed)) {
            let sequence_number: &str = &envelope.records[first].sequence_number_text;
            tracing::warn!(
                records,
                sequence_number,
                "records of the triggers stream are no triggers; here is the first"
            );
        }
        // A user's decisions go out in order; a stable sort keeps each user's together and in place.
        incoming.sort_by(|(_, left), (_, right)| left.user_id().cmp(right.user_id()));
        let users = incoming.chunk_by(|(_, left), (_, right)| left.user_id() == right.user_id());
        let deliveries = users.map(|incoming| self.deliver_user(incoming, deadline));
        let delivered: Vec<_> = futures::stream::iter(deliveries)
            .buffer_unordered(self.config.delivery_concurrency.max(1))
            .collect()
            .await;

        let now = self.ports.clock.now();
        let mut latencies_ms = Vec::new();
        let mut first_failure = None;
        for (settled, failure) in delivered {
            for (index, outcome) in settled {
                outcomes[index] = Some(outcome);
                if outcome == Outcome::Delivered {
                    latencies_ms.push(now.ms_since(envelope.records[index].arrived_at).max(0) as u64);
                }
            }
            if let Some((index, why)) = failure {
                retry_point.lower_to(index);
                first_failure.get_or_insert(why);
            }
        }
        if let Some(first) = first_failure {
            tracing::warn!(records, first, "a part of the batch has to come again");
        }
        let mut telemetry = tally(&outcomes, retry_point, latencies_ms, envelope.records.last(), now);
        telemetry.request_id = invocation.request_id.to_owned();
        telemetry.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
        Ok(match retry_point.index_in(records) {
            Some(index) => BatchResponse::retry_from(&envelope.records[index].sequence_number_text),
            None => BatchResponse::done(),
        })
    }

    /// The decision or the outcome in a record; otherwise what becomes of the record.
    fn read(&self, bytes: &[u8]) -> Result<Incoming, Outcome> {
        let text = std::str::from_utf8(bytes).map_err(|_| Outcome::Malformed)?;
        let record = TriggerRecord::parse(bytes).map_err(|_| Outcome::Malformed)?;
        // The table would refuse these for good, and a record that can't be recorded must not stop its shard (P6).
        let has_keys = fits(&record.user_id, IDENTIFIER_BYTES_MAX) && fits(&record.trigger_id, TRIGGER_ID_BYTES_MAX);
        match &*record.kind {
            DECISION_KIND | OUTCOME_KIND if !has_keys => Err(Outcome::Malformed),
            DECISION_KIND => self.read_decision(record, text),
            OUTCOME_KIND => self.read_outcome(record, text),
            _ => Err(Outcome::OtherKind),
        }
    }

    fn read_decision(&self, record: TriggerRecord<'_>, text: &str) -> Result<Incoming, Outcome> {
        let decided_at: Timestamp = record.decided_at.parse().map_err(|_| Outcome::Malformed)?;
        let copied = [
            &record.user_id,
            &record.trigger_id,
            &record.rule,
            &record.slot,
            &record.offer,
        ];
        let item_bytes = text.len() + copied.into_iter().map(|text| text.len()).sum::<usize>();
        // A receiver gets the id as an HTTP header.
        let is_header_value = record.trigger_id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_header_value || item_bytes > DECISION_BYTES_MAX {
            return Err(Outcome::Malformed);
        }
        let decision = DecisionItem {
            user_id: record.user_id.into_owned(),
            trigger_id: record.trigger_id.into_owned(),
            rule: record.rule.into_owned(),
            slot: record.slot.into_owned(),
            offer: record.offer.into_owned(),
            decided_at,
            trigger: text.to_owned(),
            expires_at_epoch_s: self.expires_at_epoch_s(),
        };
        Ok(Incoming::Decision {
            decision,
            is_held_out: record.held_out,
        })
    }

    fn read_outcome(&self, record: TriggerRecord<'_>, text: &str) -> Result<Incoming, Outcome> {
        let RewardsSoFar {
            rewards_so_far,
            decided_for,
        } = serde_json::from_str(text).map_err(|_| Outcome::Malformed)?;
        let rewards_so_far = u32::try_from(rewards_so_far.len()).map_err(|_| Outcome::Malformed)?;
        let user_id = decided_for.unwrap_or(record.user_id);
        if text.len() > OUTCOME_BYTES_MAX || !fits(&user_id, IDENTIFIER_BYTES_MAX) {
            return Err(Outcome::Malformed);
        }
        Ok(Incoming::Outcome(OutcomeItem {
            user_id: user_id.into_owned(),
            trigger_id: record.trigger_id.into_owned(),
            rewards_so_far,
            outcome: text.to_owned(),
            expires_at_epoch_s: self.expires_at_epoch_s(),
        }))
    }

    /// From the wall clock, not from when it was decided: TTL is about storage, and a replayed year must not vanish.
    fn expires_at_epoch_s(&self) -> i64 {
        let kept_s = i64::from(self.config.decision_ttl_days) * SECONDS_PER_DAY;
        self.ports.clock.now().epoch_ms() / MS_PER_SECOND + kept_s
    }

    /// Delivers one user's decisions and files what came of them, in order, up to the first that fails.
    async fn deliver_user(
        &self,
        incoming: &[(usize, Incoming)],
        deadline: Instant,
    ) -> (Vec<(usize, Outcome)>, Option<(usize, String)>) {
        let mut settled = Vec::with_capacity(incoming.len());
        for (index, incoming) in incoming {
            let done = match incoming {
                Incoming::Decision { decision, is_held_out } => self.deliver(decision, *is_held_out, deadline).await,
                Incoming::Outcome(outcome) => self.file(outcome, deadline).await,
            };
            match done {
                Ok(outcome) => settled.push((*index, outcome)),
                Err(failure) => return (settled, Some((*index, chain(&failure)))),
            }
        }
        (settled, None)
    }

    async fn file(&self, outcome: &OutcomeItem, deadline: Instant) -> Result<Outcome, Failure> {
        let decisions = &self.ports.decisions;
        let filed = until_answered(deadline, TABLE_ATTEMPTS_MAX, || decisions.file_outcome(outcome)).await?;
        Ok(match filed {
            FileAnswer::Filed => Outcome::Filed,
            FileAnswer::Known => Outcome::KnownAlready,
        })
    }

    async fn deliver(&self, decision: &DecisionItem, is_held_out: bool, deadline: Instant) -> Result<Outcome, Failure> {
        let TriggerDeliveryPorts {
            decisions, delivery, ..
        } = &self.ports;
        let first = if is_held_out {
            DecisionStatus::HeldOut
        } else if delivery.needs_receipt() {
            DecisionStatus::Pending
        } else {
            DecisionStatus::Delivered
        };
        let recorded = until_answered(deadline, TABLE_ATTEMPTS_MAX, || decisions.record(decision, first)).await?;
        match recorded {
            RecordAnswer::New | RecordAnswer::Known(DecisionStatus::Pending) => {}
            RecordAnswer::Known(
                DecisionStatus::Delivered | DecisionStatus::Undeliverable | DecisionStatus::HeldOut,
            ) => {
                return Ok(Outcome::Duplicate);
            }
        }
        let (status, outcome) = if is_held_out {
            (DecisionStatus::HeldOut, Outcome::HeldOut)
        } else {
            match until_answered(deadline, DELIVERY_ATTEMPTS_MAX, || delivery.deliver(decision)).await? {
                DeliveryAnswer::Accepted => (DecisionStatus::Delivered, Outcome::Delivered),
                DeliveryAnswer::RefusedForGood { status } => {
                    tracing::warn!(status, rule = decision.rule, "the receiver refused a decision for good");
                    (DecisionStatus::Undeliverable, Outcome::Undeliverable)
                }
            }
        };
        let known = match recorded {
            RecordAnswer::New => first,
            RecordAnswer::Known(status) => status,
        };
        if status != known {
            let (user_id, trigger_id) = (&decision.user_id, &decision.trigger_id);
            until_answered(deadline, TABLE_ATTEMPTS_MAX, || {
                decisions.set_status(user_id, trigger_id, status)
            })
            .await?;
        }
        Ok(outcome)
    }
}

fn fits(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max
}

fn tally(
    outcomes: &[Option<Outcome>],
    retry_point: RetryPoint,
    latencies_ms: Vec<u64>,
    last: Option<&EnvelopeRecord<'_>>,
    now: Timestamp,
) -> TriggerDeliveryBatch {
    let mut telemetry = TriggerDeliveryBatch {
        received: outcomes.len() as u64,
        iterator_age: last.map_or(0, |record| now.ms_since(record.arrived_at).max(0) as u64),
        trigger_to_delivered: spread(latencies_ms),
        ..TriggerDeliveryBatch::default()
    };
    for (index, outcome) in outcomes.iter().enumerate() {
        let count = match outcome {
            _ if !retry_point.is_settled(index) => &mut telemetry.retried,
            Some(Outcome::Delivered) => &mut telemetry.delivered,
            Some(Outcome::Duplicate) => &mut telemetry.duplicate,
            Some(Outcome::Undeliverable) => &mut telemetry.undeliverable,
            Some(Outcome::HeldOut) => &mut telemetry.held_out,
            Some(Outcome::Filed) => &mut telemetry.outcomes_filed,
            Some(Outcome::KnownAlready) => &mut telemetry.outcomes_known,
            Some(Outcome::OtherKind) => &mut telemetry.other_kind,
            Some(Outcome::Malformed) => &mut telemetry.malformed,
            None => &mut telemetry.retried,
        };
        *count += 1;
    }
    telemetry
}

#[cfg(test)]
mod tests;
