//! What was learned in a run: the tiles of content-trends, the models of outcome-learner, and what came of each offer as any
//! consumer of the triggers stream sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use tokio::time::Instant;
use usher_domain::bandit::state::{Learned, Outcome as LearnedOutcome, SlotState};
use usher_domain::bandit::statistics::Statistics;
use usher_domain::journey::SlotLearner;
use usher_domain::time::Timestamp;
use usher_domain::trends::TrendKey;
use usher_domain::trends::counting::{CountedEvents, Counting, keys_of};
use usher_pipeline::content_trends::{ContentTrends, ContentTrendsConfig, ContentTrendsPorts};
use usher_pipeline::journey_source::JourneyKeeper;
use usher_pipeline::memory::{MemoryClock, MemoryModelTable, MemorySink, MemoryTrendTable};
use usher_pipeline::models::{FoundModel, head_key, whole_model};
use usher_pipeline::outcome_learner::{OutcomeLearner, OutcomeLearnerConfig, OutcomeLearnerPorts};
use usher_pipeline::ports::ReadOf;
use usher_pipeline::response::BatchResponse;
use usher_pipeline::snapshots::SnapshotSource;
use usher_wire::outcome::{OUTCOME_KIND, OutcomeRecord};
use usher_wire::trend_tile;

use super::super::serial::Outcome;
use super::{Function, MemoryCloud, Writer};
use crate::lambda_event::{LONG, Record, STREAM_ARN, invocation_within};

/// content-trends over the in-memory ports.
pub type TrendCounter = ContentTrends<MemoryTrendTable, MemoryClock, MemorySink>;
/// outcome-learner over the in-memory ports.
pub type Learner = OutcomeLearner<MemoryModelTable, MemoryClock, MemorySink>;

/// Sums of rewards are compared to this.
const REWARD_ERROR_MAX: f64 = 1e-9;

impl Function for TrendCounter {
    fn invoke(
        self: Arc<Self>,
        payload: String,
        time: Duration,
    ) -> LocalBoxFuture<'static, Result<BatchResponse, String>> {
        async move {
            self.run(invocation_within(&payload, time))
                .await
                .map_err(|error| error.to_string())
        }
        .boxed_local()
    }
}

impl Function for Learner {
    fn invoke(
        self: Arc<Self>,
        payload: String,
        time: Duration,
    ) -> LocalBoxFuture<'static, Result<BatchResponse, String>> {
        async move {
            self.run(invocation_within(&payload, time))
                .await
                .map_err(|error| error.to_string())
        }
        .boxed_local()
    }
}

/// Where an event counts: its minute and shard, and its id.
type EventPlace<'r> = (i64, &'r str, String);
/// The counts of a tile, by minute and shard.
type Tiles = BTreeMap<(i64, String), BTreeMap<TrendKey, u64>>;

impl MemoryCloud {
    /// A new container of profile-writer that decides with what was learned by then.
    pub fn learned_writer(&self) -> Writer {
        let source = SnapshotSource::new(self.models.clone(), self.trends.clone(), Duration::ZERO);
        self.writer().with_snapshots(&source)
    }

    /// A new container of profile-writer, of either kind.
    pub fn new_writer(&self, is_learned: bool) -> Writer {
        if is_learned {
            self.learned_writer()
        } else {
            self.writer()
        }
    }

    /// A new container of content-trends.
    pub fn trend_counter(&self) -> TrendCounter {
        let ports = ContentTrendsPorts {
            trends: self.trends.clone(),
            clock: MemoryClock::default(),
            telemetry: MemorySink::default(),
        };
        let config = ContentTrendsConfig {
            write_concurrency: self.setup.concurrency,
            metrics_namespace: "Usher".to_owned(),
        };
        ContentTrends::new(JourneyKeeper::from(self.journey.clone()), ports, config)
    }

    /// A new container of outcome-learner.
    pub fn learner(&self) -> Learner {
        let ports = OutcomeLearnerPorts {
            models: self.models.clone(),
            clock: MemoryClock::default(),
            telemetry: MemorySink::default(),
        };
        let config = OutcomeLearnerConfig {
            slot_concurrency: self.setup.concurrency,
            metrics_namespace: "Usher".to_owned(),
        };
        OutcomeLearner::new(JourneyKeeper::from(self.journey.clone()), ports, config)
    }

    /// Checks the tiles against a plain count of the records: each event once in its shard and minute, where a batch has at
    /// most so many records. An event whose minute had left every window by the end of its batch may be left out: nobody
    /// asks for it any more. Gives how many events count.
    ///
    /// # Errors
    /// What is counted wrongly.
    pub fn check_trends(&self, shards: &[Vec<Record>], batch_records_max: usize) -> Result<u64, String> {
        let counted_events = CountedEvents::of(&self.journey);
        // By minute, shard and id: what it is counted by, and whether it must be.
        let mut events: BTreeMap<EventPlace<'_>, (Vec<TrendKey>, bool)> = BTreeMap::new();
        for shard in shards {
            for (index, record) in shard.iter().enumerate() {
                let Ok(event) = usher_wire::event::decode(&record.data, record.arrived_at) else {
                    continue;
                };
                let Counting::In(minute) = counted_events.place(&event, record.arrived_at) else {
                    continue;
                };
                let last = &shard[(index + batch_records_max - 1).min(shard.len() - 1)];
                let must_count = counted_events.place(&event, last.arrived_at) == Counting::In(minute);
                let keys = keys_of(&event).map(|(by, id)| TrendKey {
                    event_type: event.event_type.to_string(),
                    by,
                    id: id.to_owned(),
                });
                let known = events
                    .entry((minute, &record.shard_id, event.id.to_string()))
                    .or_insert_with(|| (keys.collect(), false));
                known.1 |= must_count;
            }
        }
        let tiles_of = |events: &mut dyn Iterator<Item = (&EventPlace<'_>, &(Vec<TrendKey>, bool))>| {
            let stream = STREAM_ARN.rsplit('/').next().unwrap_or_default();
            let mut tiles = Tiles::new();
            for ((minute, shard, _), (keys, _)) in events {
                let tile = tiles.entry((*minute, format!("{stream}/{shard}"))).or_default();
                for key in keys {
                    *tile.entry(key.clone()).or_default() += 1;
                }
            }
            tiles
        };
        let least = tiles_of(&mut events.iter().filter(|(_, (_, must_count))| *must_count));
        let most = tiles_of(&mut events.iter());
        let mut found = Tiles::new();
        for item in self.trends.items() {
            let parts = trend_tile::decode(&item.state).map_err(|error| format!("a tile: {error}"))?;
            found.insert((item.minute, item.shard), parts.counts.into_iter().collect());
        }
        if !is_within(&least, &found) || !is_within(&found, &most) {
            return Err(format!("trends: expected {least:?}, at most {most:?}, found {found:?}"));
        }
        Ok(events.len() as u64)
    }

    /// The outcomes on the triggers stream in its order, each once.
    fn told_outcomes(&self) -> Result<Vec<Vec<u8>>, String> {
        let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut told = Vec::new();
        for stored in self.triggers.records() {
            let data = stored.record.data;
            let json: Value = serde_json::from_slice(&data).map_err(|error| format!("an outcome: {error}"))?;
            let (Some(OUTCOME_KIND), Some(id)) = (json["kind"].as_str(), json["outcome_id"].as_str()) else {
                continue;
            };
            match known.get(id) {
                None => {
                    known.insert(id.to_owned(), data.clone());
                    told.push(data);
                }
                Some(known) if *known != data => {
                    let [one, other] = [known, &data].map(|data| String::from_utf8_lossy(data));
                    return Err(format!(
                        "the outcome {id} came with different bytes\n  {one}\n  {other}"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(told)
    }

    /// Checks what was told of each offer: every decision is settled, each reward is told once, and each record goes on from
    /// the one before. The decisions table has the last one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_outcomes(&self, found: &Outcome) -> Result<(), String> {
        let mut of_offers: BTreeMap<&str, Vec<(OutcomeRecord<'_>, &[u8])>> = BTreeMap::new();
        for (id, data) in &found.outcomes {
            let record = OutcomeRecord::parse(data).map_err(|error| format!("the outcome {id}: {error}"))?;
            let offer = found.triggers.keys().find(|trigger| **trigger == record.trigger_id);
            let offer = offer.ok_or_else(|| format!("the outcome {id} is of no decision"))?;
            of_offers.entry(offer).or_default().push((record, data));
        }
        let Some(outcomes) = &self.journey.outcomes else {
            return match of_offers.keys().next() {
                None => Ok(()),
                Some(offer) => Err(format!("something is told of {offer}, and nothing is rewarded")),
            };
        };
        let worth = |name: &str| {
            let reward = outcomes.rewards.iter().find(|reward| reward.name == name);
            reward.map_or(f64::NAN, |reward| reward.reward)
        };
        let filed: BTreeMap<(String, String), String> = self
            .decisions
            .outcomes()
            .into_iter()
            .map(|item| ((item.user_id, item.trigger_id), item.outcome))
            .collect();
        if filed.len() != of_offers.len() {
            return Err(format!(
                "{} offers have an outcome filed, of {}",
                filed.len(),
                of_offers.len()
            ));
        }
        for offer in found.triggers.keys() {
            let mut records = of_offers
                .remove(offer.as_str())
                .ok_or_else(|| format!("nothing was told of {offer}"))?;
            records.sort_by_key(|(record, _)| record.rewards_so_far.len());
            let (mut told, mut previous) = (BTreeSet::new(), None);
            for (record, _) in &records {
                let wrong = |what: &str| Err(format!("{offer}: {what} in {record:?}"));
                if record.previous_reward != previous {
                    return wrong("it does not go on from the one before");
                }
                if record.expired != record.rewards.is_empty() || (record.expired && previous.is_some()) {
                    return wrong("it tells nothing");
                }
                for reward in &record.rewards {
                    if !told.insert(reward.as_str()) {
                        return wrong("a reward is told twice");
                    }
                }
                let so_far: BTreeSet<&str> = record.rewards_so_far.iter().map(String::as_str).collect();
                let sum: f64 = told.iter().map(|name| worth(name)).sum();
                // A sum that is no number is not less either.
                let is_right = (sum - record.reward).abs() < REWARD_ERROR_MAX;
                if so_far != told || !is_right {
                    return wrong("the sum is wrong");
                }
                previous = Some(record.reward);
            }
            if let Some((last, data)) = records.last() {
                let key = (last.decided_for().to_owned(), offer.clone());
                if filed.get(&key).map(String::as_bytes) != Some(*data) {
                    return Err(format!("{offer}: another outcome is filed than the last"));
                }
            }
        }
        Ok(())
    }

    /// Checks each slot's model against a serial fold of the outcomes on the stream, each once: bit for bit, and where it
    /// forgets, but for the rounding of each halving, which goes by the order. Gives how many were to be learned.
    ///
    /// # Errors
    /// What was learned wrongly.
    pub async fn check_models(&self) -> Result<u64, String> {
        let told = self.told_outcomes()?;
        let deadline = Instant::now() + LONG;
        let mut learned = 0;
        for learner in &self.journey.learners {
            let mut expected = SlotState::new(&learner.layout, learner.half_life_ms);
            let before = learned;
            for data in &told {
                learned += learn(learner, &mut expected, data)?;
            }
            let key = head_key(&learner.slot, learner.layout.fingerprint());
            let mut units = 0.0;
            // Not by a call, which could fail. A model of a run is one item.
            let head = self.models.items().into_iter().find(|item| item.key == key);
            let model = whole_model(&self.models, head, ReadOf::Latest, deadline, &mut units).await;
            let found = match model.map_err(|error| error.to_string())? {
                FoundModel::Ready(model) => Some(model.state),
                FoundModel::Missing => None,
                FoundModel::Unreadable(why) => return Err(format!("the model of {}: {why}", learner.slot)),
            };
            let is_same = match &found {
                Some(found) if learner.half_life_ms.is_some() => {
                    is_same_but_rounded(&expected, found, learned - before)
                }
                Some(found) => *found == expected,
                None => learned == before,
            };
            if !is_same {
                return Err(format!(
                    "the model of {}\n  expected {expected:?}\n  found    {found:?}",
                    learner.slot
                ));
            }
        }
        Ok(learned)
    }
}

/// Whether every count of the one is at most that of the other.
fn is_within(less: &Tiles, more: &Tiles) -> bool {
    less.iter().all(|(place, counts)| {
        let others = more.get(place);
        let of = |key: &TrendKey| others.and_then(|others| others.get(key)).copied().unwrap_or_default();
        counts.iter().all(|(key, count)| *count <= of(key))
    })
}

/// Whether two states that forget are the same but for rounding: each outcome may have been halved before it was added, or
/// after, and each of its halvings rounds by a unit at most.
fn is_same_but_rounded(one: &SlotState, other: &SlotState, outcomes: u64) -> bool {
    /// The next halvings halve what the ones before rounded.
    const ROUNDED_UNITS_MAX: u128 = 2;
    let [one, other] = [one, other].map(SlotState::to_stored);
    let is_near = |one: &Statistics, other: &Statistics| {
        let pairs = || one.sums().iter().zip(other.sums());
        one.sums().len() == other.sums().len()
            && pairs().all(|(one, other)| one.abs_diff(*other) <= ROUNDED_UNITS_MAX * u128::from(outcomes))
    };
    let arms = || one.arms.iter().zip(&other.arms);
    let are_near = one.arms.len() == other.arms.len()
        && arms().all(|((arm, one), (also, other))| arm == also && is_near(one, other));
    let shared = match (&one.shared, &other.shared) {
        (Some(one), Some(other)) => is_near(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    are_near && shared && (one.layout, one.tile, one.half_life_ms) == (other.layout, other.tile, other.half_life_ms)
}

/// Learns what a record says for this slot; gives how many outcomes it was.
fn learn(learner: &SlotLearner, state: &mut SlotState, data: &[u8]) -> Result<u64, String> {
    let record = OutcomeRecord::parse(data).map_err(|error| format!("an outcome: {error}"))?;
    let Some(choice) = record
        .choice
        .as_ref()
        .filter(|_| record.slot == learner.slot && !record.held_out)
    else {
        return Ok(0);
    };
    let seen = choice.seen();
    let at: Result<Timestamp, _> = record.decided_at.parse();
    let outcome = LearnedOutcome {
        arm: &record.offer,
        context: &seen.context,
        content: &seen.content,
        reward: record.reward,
        previous: record.previous_reward,
        at: at.map_err(|_| format!("{} is no time", record.decided_at))?,
    };
    match state.learn(&learner.layout, &outcome) {
        Learned::Yes => Ok(1),
        other => Err(format!("{other:?}: {record:?}")),
    }
}

/// The outcomes as they are compared: who woke a user makes no difference to what came of an offer, but for when that was
/// noticed and when an offer of a timer was decided.
pub(super) fn shown_outcomes(of: &Outcome) -> BTreeMap<String, String> {
    let is_timers = |trigger: &str| {
        let trigger = of.triggers.get(trigger).map(|bytes| serde_json::from_slice(bytes));
        matches!(trigger, Some(Ok(Value::Object(trigger))) if trigger.contains_key("due_at"))
    };
    let one = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let Ok(mut outcome) = serde_json::from_slice::<Value>(bytes) else {
            return text;
        };
        if is_timers(outcome["trigger_id"].as_str().unwrap_or_default()) {
            outcome["decided_at"] = Value::Null;
        }
        if outcome["expired"] == true {
            outcome["made_at"] = Value::Null;
            outcome["cause"] = Value::Null;
        }
        outcome.to_string()
    };
    of.outcomes.iter().map(|(id, bytes)| (id.clone(), one(bytes))).collect()
}
