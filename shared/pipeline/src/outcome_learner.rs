//! triggers → models: what came of each offer, added to what the slot's learner knows.
//!
//! An outcome counts once, however often it comes. A redelivered record is told by the guard, which is in the model's head:
//! how far each shard has been learned from (P2). The same outcome in another record (P5: an outbox is sent at least once, and
//! days later again by whoever reads a profile whose last write had one) is told by its id, kept for as long as that may
//! happen. The sums, the guard and the ids change in one transaction under a condition on their versions (P4). When another
//! shard's batch came first, it is read and folded anew, after a pause; since sums add up, the order makes no difference.
//!
//! What a holdout's user did was not caused by an offer, and a decision without a choice taught nothing: neither is learned. An
//! outcome whose context was laid out by another version of the journey can't be added to this one's, and is counted only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::bandit::state::{Learned, Outcome};
use usher_domain::guard::ShardKey;
use usher_domain::hash::hash_bytes;
use usher_domain::journey::{Journey, SlotLearner};
use usher_domain::limits::{IDENTIFIER_BYTES_MAX, OUTBOX_RESEND_AGE_MS_MAX};
use usher_domain::offers::SeenByLearner;
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::Envelope;
use usher_wire::outcome::{OUTCOME_KIND, OutcomeRecord};

use crate::invocation::{BatchError, Invocation};
use crate::journey_source::{JourneyError, JourneyKeeper, JourneyNews};
use crate::models::{
    FoundModel, ID_BYTES_A_WRITE_MAX, ID_TILES_A_WRITE_MAX, IdTile, KeptModel, MODEL_BYTES_MAX, fits_an_item, head_key,
    ids_key, read_items, whole_model,
};
use crate::ports::{ModelKey, ModelTable, ModelWriteAnswer, ReadOf, TelemetrySink, WallClock};
use crate::response::{BatchResponse, RetryPoint};
use crate::retry::{Backoff, Failure, chain, until_answered};
use crate::telemetry::{OutcomeLearnerBatch, TelemetryEvent, spread};

/// How often the table is asked before the slot is left to the next delivery of its batch.
const TABLE_ATTEMPTS_MAX: u32 = 6;
/// How often another batch may come first before the slot is left to the next delivery.
const CONFLICTS_MAX: u32 = 40;
/// The part of an invocation's time, as its divisor, that may go by until there is a journey at all.
const FIRST_READ_DIVISOR: u32 = 3;
const MS_PER_SECOND: i64 = 1000;
const MS_PER_DAY: i64 = 24 * 60 * 60 * MS_PER_SECOND;
/// How long the id of a learned outcome is kept, counted from when it was learned: longer than an outbox is sent again.
const IDS_KEPT_MS: i64 = OUTBOX_RESEND_AGE_MS_MAX + 2 * MS_PER_DAY;
/// About what one sum of an arm takes when stored, in bytes.
const SUM_BYTES: usize = 8;

/// What outcome-learner needs from the outside.
#[derive(Debug)]
pub struct OutcomeLearnerPorts<M, C, T> {
    /// The `models` table.
    pub models: M,
    /// The wall clock, for latencies and for when the table may forget ids.
    pub clock: C,
    /// Where telemetry goes.
    pub telemetry: T,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeLearnerConfig {
    /// Slots whose models are written at the same time.
    pub slot_concurrency: usize,
    /// The CloudWatch namespace of the metrics.
    pub metrics_namespace: String,
}

/// The flow.
#[derive(Debug)]
pub struct OutcomeLearner<M, C, T> {
    journeys: JourneyKeeper,
    ports: OutcomeLearnerPorts<M, C, T>,
    config: OutcomeLearnerConfig,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its model has it now.
    Learned,
    /// Its model had it already, from another record.
    Known,
    /// The record was learned from in an earlier delivery.
    Redelivered,
    HeldOut,
    NotChosen,
    /// The journey's slot lays out contexts otherwise, or is gone; or it changes what the model that was replaced knew.
    OtherLayout,
    NoRoom,
    Unreadable,
    OtherKind,
    Malformed,
}

/// An outcome to be learned.
#[derive(Debug)]
struct Incoming {
    /// The index of its record.
    index: usize,
    shard: ShardKey,
    position: Position,
    id: u64,
    ids_at: ModelKey,
    arm: String,
    seen: SeenByLearner,
    reward: f64,
    previous: Option<f64>,
    decided_at: Timestamp,
}

/// What a slot's outcomes came to.
#[derive(Debug, Default)]
struct SlotResult {
    fates: Vec<(usize, Fate)>,
    /// The first record that has to come again, and why.
    failure: Option<(usize, String)>,
    writes: u64,
    conflicts: u64,
    write_units: f64,
    read_units: f64,
    unreadable: u64,
}

/// A part of a slot's outcomes, folded.
struct Folded {
    fates: Vec<(usize, Fate)>,
    model: KeptModel,
    tiles: BTreeMap<ModelKey, IdTile>,
    changed_tiles: BTreeSet<ModelKey>,
}

impl<M, C, T> OutcomeLearner<M, C, T>
where
    M: ModelTable,
    C: WallClock,
    T: TelemetrySink,
{
    /// A flow for whatever journey is kept.
    pub fn new(
        journeys: JourneyKeeper,
        ports: OutcomeLearnerPorts<M, C, T>,
        config: OutcomeLearnerConfig,
    ) -> OutcomeLearner<M, C, T> {
        OutcomeLearner {
            journeys,
            ports,
            config,
        }
    }

    /// What it was given to talk to.
    pub fn ports(&self) -> &OutcomeLearnerPorts<M, C, T> {
        &self.ports
    }

    /// What a function does before its first invocation: it reads the journey, where its source answers that early.
    ///
    /// # Errors
    /// The journey can't be read, or holds mistakes; the metrics tell of it too, so that an alarm can.
    pub async fn start(&self) -> Result<(), JourneyError> {
        let started = self.journeys.start().await;
        started.inspect_err(|error| self.tell(error, ""))
    }

    /// Processes one invocation.
    ///
    /// # Errors
    /// When the payload is no Kinesis batch, or there is no journey yet. Everything else is told by the response.
    pub async fn run(&self, invocation: Invocation<'_>) -> Result<BatchResponse, BatchError> {
        let deadline = invocation.deadline;
        let left = deadline.saturating_duration_since(Instant::now());
        let (journey, news) = self
            .journeys
            .for_invocation(Instant::now() + left / FIRST_READ_DIVISOR)
            .await
            .inspect_err(|error| self.tell(error, invocation.request_id))?;
        let envelope = Envelope::parse(invocation.payload)?;
        let bytes = DecodedBatch::decode(&envelope);
        let records = envelope.records.len();
        let mut retry_point = RetryPoint::none(records);
        retry_point.lower_to(bytes.len());

        let mut fates: Vec<Option<Fate>> = vec![None; records];
        let mut by_slot: BTreeMap<usize, Vec<Incoming>> = BTreeMap::new();
        for (index, (record, bytes)) in envelope.records.iter().zip(bytes.records()).enumerate() {
            let shard = ShardKey::of(&record.stream_arn, &record.shard_id);
            let position = Position {
                sequence_number: record.sequence_number,
                sub_sequence_number: 0,
            };
            let read = bytes.map_err(|_| Fate::Malformed);
            match read.and_then(|bytes| read_outcome(bytes, &journey, index, shard, position)) {
                Ok((slot, incoming)) => by_slot.entry(slot).or_default().push(incoming),
                Err(fate) => fates[index] = Some(fate),
            }
        }
        let learned: Vec<(usize, SlotResult)> = futures::stream::iter(by_slot)
            .map(|(slot, incoming)| {
                let journey = &journey;
                async move { (slot, self.learn_slot(journey, slot, incoming, deadline).await) }
            })
            .buffer_unordered(self.config.slot_concurrency.max(1))
            .collect()
            .await;

        let now = self.ports.clock.now();
        let mut telemetry = OutcomeLearnerBatch {
            request_id: invocation.request_id.to_owned(),
            received: records as u64,
            ..OutcomeLearnerBatch::default()
        };
        telemetry.note_journey(news);
        let mut first_failure = None;
        for (slot, result) in learned {
            telemetry.writes += result.writes;
            telemetry.conflicts += result.conflicts;
            telemetry.write_units += result.write_units;
            telemetry.read_units += result.read_units;
            telemetry.models_unreadable += result.unreadable;
            let count = result.fates.iter().filter(|(_, fate)| *fate == Fate::Learned).count();
            if count > 0 {
                let slot = journey.learners[slot].slot.clone();
                telemetry.learned_by_slot.insert(slot, count as u64);
            }
            for (index, fate) in result.fates {
                fates[index] = Some(fate);
            }
            if let Some((index, why)) = result.failure {
                retry_point.lower_to(index);
                first_failure.get_or_insert(why);
            }
        }
        if let Some(first) = first_failure {
            tracing::warn!(records, first, "a part of the batch has to come again");
        }
        let mut latencies_ms = Vec::new();
        for (index, fate) in fates.iter().enumerate() {
            // What was learned is learned, even where its record comes again.
            if *fate == Some(Fate::Learned) {
                latencies_ms.push(now.ms_since(envelope.records[index].arrived_at).max(0) as u64);
            }
            *count_of(&mut telemetry, *fate, retry_point.is_settled(index)) += 1;
        }
        telemetry.outcome_to_learned = spread(latencies_ms);
        let last = envelope.records.last();
        telemetry.iterator_age = last.map_or(0, |record| now.ms_since(record.arrived_at).max(0) as u64);
        telemetry.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
        Ok(match retry_point.index_in(records) {
            Some(index) => BatchResponse::retry_from(&envelope.records[index].sequence_number_text),
            None => BatchResponse::done(),
        })
    }

    /// Learns the outcomes of one slot, in order, as many at a time as one transaction holds.
    async fn learn_slot(
        &self,
        journey: &Arc<Journey>,
        slot: usize,
        incoming: Vec<Incoming>,
        deadline: Instant,
    ) -> SlotResult {
        let learner = &journey.learners[slot];
        let mut result = SlotResult::default();
        let mut backoff = Backoff::default();
        let mut rest = &incoming[..];
        while let Some(first) = rest.first() {
            let step = self.learn_some(journey, learner, rest, deadline, &mut result).await;
            match step {
                Ok(Step::Done(fates)) => {
                    rest = &rest[fates.len()..];
                    result.fates.extend(fates);
                    backoff = Backoff::default();
                }
                Ok(Step::Conflict) => {
                    result.conflicts += 1;
                    if backoff.attempts() >= CONFLICTS_MAX || !backoff.pause(deadline).await {
                        let why = format!("the model of {} is written by others all the time", learner.slot);
                        result.failure = Some((first.index, why));
                        return result;
                    }
                }
                Err(failure) => {
                    result.failure = Some((first.index, chain(&failure)));
                    return result;
                }
            }
        }
        result
    }

    /// Learns as many of the outcomes, from the first on, as one transaction holds.
    async fn learn_some(
        &self,
        journey: &Journey,
        learner: &SlotLearner,
        outcomes: &[Incoming],
        deadline: Instant,
        result: &mut SlotResult,
    ) -> Result<Step, Failure> {
        let models = &self.ports.models;
        let head_key = head_key(&learner.slot, learner.layout.fingerprint());
        let mut keys = BTreeSet::new();
        let mut count = 0;
        for outcome in outcomes {
            if !keys.contains(&outcome.ids_at) && keys.len() == ID_TILES_A_WRITE_MAX {
                break;
            }
            keys.insert(outcome.ids_at.clone());
            count += 1;
        }
        let asked = std::iter::once(head_key.clone()).chain(keys.iter().cloned());
        let mut found = read_items(models, asked.collect(), ReadOf::Latest, deadline).await?;
        result.read_units += found.read_units;
        let model = match found.unreadable.remove(&head_key) {
            Some(why) => FoundModel::Unreadable(why),
            None => {
                let head = found.items.remove(&head_key);
                let read_units = &mut result.read_units;
                whole_model(models, head, ReadOf::Latest, deadline, read_units).await?
            }
        };
        let unreadable = |why: &str, result: &mut SlotResult| {
            tracing::error!(
                slot = learner.slot,
                why,
                outcomes = outcomes.len(),
                "the slot's model can't be read, so outcomes are left out; run `usher models reset` or `import`"
            );
            result.unreadable += 1;
            let fates = outcomes.iter().map(|outcome| (outcome.index, Fate::Unreadable));
            Ok(Step::Done(fates.collect()))
        };
        let model = match model {
            FoundModel::Ready(model) => *model,
            FoundModel::Missing => KeptModel::new(&learner.slot, &learner.layout, learner.half_life_ms),
            FoundModel::Unreadable(why) => return unreadable(&why, result),
        };
        if let Some(why) = found.unreadable.into_values().next() {
            return unreadable(&why, result);
        }
        let mut tiles = BTreeMap::new();
        for key in keys {
            match IdTile::of(found.items.get(&key)) {
                Ok(tile) => tiles.insert(key, tile),
                Err(error) => return unreadable(&chain(&error), result),
            };
        }
        let folded = fold(journey, learner, model, tiles, &outcomes[..count]);
        if folded.changed_tiles.is_empty() {
            return Ok(Step::Done(folded.fates));
        }
        let now = self.ports.clock.now();
        let writes = match folded.model.writes(now) {
            Ok(writes) => writes,
            // There is a margin, so this takes sums that grew beyond any that are foreseen.
            Err(error) => return unreadable(&error.to_string(), result),
        };
        let mut writes = writes.writes;
        let expires_at_epoch_s = now.plus_ms(IDS_KEPT_MS).epoch_ms() / MS_PER_SECOND;
        for (key, tile) in folded.tiles {
            if folded.changed_tiles.contains(&key) {
                writes.push(tile.write(&key, now, expires_at_epoch_s));
            }
        }
        match until_answered(deadline, TABLE_ATTEMPTS_MAX, || models.write(&writes)).await? {
            ModelWriteAnswer::Written { write_units } => {
                result.writes += 1;
                result.write_units += write_units;
                Ok(Step::Done(folded.fates))
            }
            ModelWriteAnswer::Conflict => Ok(Step::Conflict),
        }
    }

    /// Tells the metrics why nothing runs.
    fn tell(&self, error: &JourneyError, request_id: &str) {
        let mut batch = OutcomeLearnerBatch {
            request_id: request_id.to_owned(),
            ..OutcomeLearnerBatch::default()
        };
        batch.note_journey(JourneyNews::of_error(error));
        let now = self.ports.clock.now();
        batch.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
    }
}

enum Step {
    /// This became of the first so many.
    Done(Vec<(usize, Fate)>),
    /// Another batch came first.
    Conflict,
}

/// The outcome in a record and the index of its slot's learner; otherwise what becomes of the record.
fn read_outcome(
    bytes: &[u8],
    journey: &Journey,
    index: usize,
    shard: ShardKey,
    position: Position,
) -> Result<(usize, Incoming), Fate> {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    let kind: Kind<'_> = serde_json::from_slice(bytes).map_err(|_| Fate::Malformed)?;
    if kind.kind != OUTCOME_KIND {
        return Err(Fate::OtherKind);
    }
    let record = OutcomeRecord::parse(bytes).map_err(|_| Fate::Malformed)?;
    if record.held_out {
        return Err(Fate::HeldOut);
    }
    let choice = record.choice.as_ref().ok_or(Fate::NotChosen)?;
    let is_of_slot = |learner: &SlotLearner| learner.slot == record.slot;
    let slot = journey.learners.iter().position(is_of_slot).ok_or(Fate::OtherLayout)?;
    if choice.layout != journey.learners[slot].layout.fingerprint() {
        return Err(Fate::OtherLayout);
    }
    let is_usable = !record.outcome_id.is_empty() && (1..=IDENTIFIER_BYTES_MAX).contains(&record.offer.len());
    if !is_usable {
        return Err(Fate::Malformed);
    }
    let time = |text: &str| text.parse::<Timestamp>().map_err(|_| Fate::Malformed);
    let noticed_at = time(&record.made_at)?;
    Ok((
        slot,
        Incoming {
            index,
            shard,
            position,
            id: hash_bytes(record.outcome_id.as_bytes()),
            ids_at: ids_key(&record.slot, noticed_at),
            arm: record.offer.to_string(),
            seen: choice.seen(),
            reward: record.reward,
            previous: record.previous_reward,
            decided_at: time(&record.decided_at)?,
        },
    ))
}

/// Adds outcomes to a model, up to where the ids become more than a transaction holds.
fn fold(
    journey: &Journey,
    learner: &SlotLearner,
    mut model: KeptModel,
    mut tiles: BTreeMap<ModelKey, IdTile>,
    outcomes: &[Incoming],
) -> Folded {
    let mut fates = Vec::with_capacity(outcomes.len());
    let mut changed_tiles: BTreeSet<ModelKey> = BTreeSet::new();
    let mut advanced: Vec<(ShardKey, Position)> = Vec::new();
    for outcome in outcomes {
        if model.guard.covers(outcome.shard, outcome.position) {
            fates.push((outcome.index, Fate::Redelivered));
            continue;
        }
        let changed_bytes: usize = changed_tiles
            .iter()
            .filter_map(|key| tiles.get(key))
            .map(IdTile::bytes)
            .sum();
        let tile = tiles.entry(outcome.ids_at.clone()).or_default();
        let mut fate = Fate::Known;
        if !tile.ids.contains(&outcome.id) {
            if changed_bytes + tile.bytes() > ID_BYTES_A_WRITE_MAX && !changed_tiles.is_empty() {
                break;
            }
            fate = match tile.bytes() {
                bytes if !fits_an_item(bytes) => Fate::NoRoom,
                _ => learn(journey, learner, &mut model, outcome),
            };
            if fate == Fate::Learned {
                tile.ids.insert(outcome.id);
                changed_tiles.insert(outcome.ids_at.clone());
            }
        }
        fates.push((outcome.index, fate));
        // A batch has one shard, and the guard tells whole batches apart: it goes on once all of them were looked at.
        advanced.push((outcome.shard, outcome.position));
    }
    for (shard, position) in advanced {
        model.guard.advance(shard, position);
    }
    Folded {
        fates,
        model,
        tiles,
        changed_tiles,
    }
}

fn learn(journey: &Journey, learner: &SlotLearner, model: &mut KeptModel, outcome: &Incoming) -> Fate {
    if outcome.previous.is_some() && model.replaced_at.is_some_and(|at| outcome.decided_at < at) {
        return Fate::OtherLayout;
    }
    let state = &mut model.state;
    if !state.arms().contains_key(&outcome.arm) && !has_room(state.estimated_bytes(), state.dimension()) {
        return Fate::NoRoom;
    }
    let told = Outcome {
        arm: &outcome.arm,
        context: &outcome.seen.context,
        content: &outcome.seen.content,
        reward: outcome.reward,
        previous: outcome.previous,
        at: outcome.decided_at,
    };
    let mut learned = state.learn(&learner.layout, &told);
    if learned == Learned::TooManyArms {
        state.retain_arms(|arm| journey.contents.iter().any(|content| content.id == arm));
        learned = state.learn(&learner.layout, &told);
    }
    match learned {
        Learned::Yes => Fate::Learned,
        Learned::AnotherLayout => Fate::OtherLayout,
        Learned::TooManyArms => Fate::NoRoom,
        Learned::NoNumber => Fate::Malformed,
    }
}

/// Whether a model of so many bytes may have one more arm. Sums grow by a byte when what they count grows a hundredfold, so
/// what is left over by then is enough for good.
fn has_room(model_bytes: usize, dimension: usize) -> bool {
    const SHARE: usize = 10;
    let rows = dimension + 2;
    let arm_bytes = rows * (rows + 1) / 2 * SUM_BYTES;
    model_bytes + arm_bytes <= MODEL_BYTES_MAX - MODEL_BYTES_MAX / SHARE
}

fn count_of(telemetry: &mut OutcomeLearnerBatch, fate: Option<Fate>, is_settled: bool) -> &mut u64 {
    match fate {
        Some(Fate::Learned) => &mut telemetry.learned,
        _ if !is_settled => &mut telemetry.retried,
        None => &mut telemetry.retried,
        Some(Fate::Known) => &mut telemetry.known,
        Some(Fate::Redelivered) => &mut telemetry.redelivered,
        Some(Fate::HeldOut) => &mut telemetry.held_out,
        Some(Fate::NotChosen) => &mut telemetry.not_chosen,
        Some(Fate::OtherLayout) => &mut telemetry.other_layout,
        Some(Fate::NoRoom) => &mut telemetry.no_room,
        Some(Fate::Unreadable) => &mut telemetry.left_out_unreadable,
        Some(Fate::OtherKind) => &mut telemetry.other_kind,
        Some(Fate::Malformed) => &mut telemetry.malformed,
    }
}

#[cfg(test)]
mod tests;
