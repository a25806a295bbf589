//! All functions over the in-memory ports, and what came of a run.

mod learning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::{
    Call, Fault, MemoryClock, MemoryDecisionTable, MemoryDelivery, MemoryDueIndex, MemoryModelTable,
    MemoryProfileTable, MemorySink, MemoryStream, MemoryTrendTable, Operation,
};
use usher_pipeline::ports::{CallError, DecisionStatus, ProfileItem, ProfileTable};
use usher_pipeline::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use usher_pipeline::redrive_user::{
    ParkedRecord, ParkedRecords, PassedBy, RedriveUserError, RedriveUserPorts, RedriveUserReport, RedriveUserRequest,
    redrive_user,
};
use usher_pipeline::response::BatchResponse;
use usher_pipeline::timer_sweeper::{SweepError, Swept, TimerSweeper, TimerSweeperConfig, TimerSweeperPorts};
use usher_pipeline::trigger_delivery::{TriggerDelivery, TriggerDeliveryConfig, TriggerDeliveryPorts};
use usher_wire::outcome::OUTCOME_KIND;
use usher_wire::profile_state;
use usher_wire::reject::{RejectReason, RejectedRecord};
use usher_wire::trigger::TriggerRecord;

use learning::shown_outcomes;

use super::serial::{Outcome, Place, compared, fold, lane_of, position_of, user_of};
use super::survived::Port;
use crate::lambda_event::{Record, invocation_within, records_of};

/// profile-writer over the in-memory ports.
pub type Writer = ProfileWriter<MemoryProfileTable, MemoryStream, MemoryClock, MemorySink>;
/// trigger-delivery over the in-memory ports.
pub type Deliverer = TriggerDelivery<MemoryDecisionTable, MemoryDelivery, MemoryClock, MemorySink>;

/// timer-sweeper over the in-memory ports.
pub type Sweeper = TimerSweeper<MemoryDueIndex, MemoryStream, MemoryClock, MemorySink>;

/// Shards of the triggers stream.
const TRIGGER_SHARDS: u32 = 2;
/// Shards that wake-ups come through.
const WAKE_UP_SHARDS: u32 = 2;

/// A function in a container, with what the container keeps in memory.
pub trait Function {
    /// Runs one invocation that has this much time. The answer is an error only where the payload is no Kinesis batch.
    fn invoke(
        self: Arc<Self>,
        payload: String,
        time: Duration,
    ) -> LocalBoxFuture<'static, Result<BatchResponse, String>>;
}

impl Function for Writer {
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

impl Function for Deliverer {
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

/// How the two functions are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Batches of one shard that run at once.
    pub parallelization_factor: u32,
    /// Users whose calls run at once, in either function.
    pub concurrency: usize,
    /// Whether delivering is a step of its own that has to be noted.
    pub needs_receipt: bool,
}

/// What both functions talk to. A container is a function over it.
#[derive(Debug)]
pub struct MemoryCloud {
    journey: Arc<Journey>,
    setup: Setup,
    profiles: MemoryProfileTable,
    triggers: MemoryStream,
    rejected: MemoryStream,
    /// Reading `rejected`: a call of it comes before each read of a redrive, so that reads take turns and fail too.
    parked_reads: MemoryProfileTable,
    decisions: MemoryDecisionTable,
    delivery: MemoryDelivery,
    /// Who is due, and where wake-ups go.
    due: MemoryDueIndex,
    wake_ups: MemoryStream,
    trends: MemoryTrendTable,
    models: MemoryModelTable,
    writes: Arc<Mutex<Writes>>,
    delivery_log: Arc<Mutex<DeliveryLog>>,
}

/// What shows whether a delivery came again for a good reason.
#[derive(Debug, Default)]
struct DeliveryLog {
    /// Deliveries of what was noted as delivered already.
    after_noted: Vec<String>,
    /// How often the answer to a delivery was lost, so that it was tried again at once.
    lost_answers: BTreeMap<String, usize>,
}

/// How far each lane was applied.
type Guards = BTreeMap<ShardKey, Position>;

/// The writes of all profiles, in their order.
#[derive(Debug, Default)]
struct Writes {
    /// The user of the write that was called last, by whom it was, and the other key whose profile it was to merge.
    called_for: Option<(String, WrittenBy, Option<String>)>,
    /// The last version of each user.
    versions: BTreeMap<String, u64>,
    log: Vec<Written>,
}

/// One write of a profile.
#[derive(Debug)]
struct Written {
    user: String,
    by: WrittenBy,
    /// How far each lane was applied after it.
    guards: Guards,
    /// The key that became a pointer to the user with it.
    merged: Option<String>,
    /// The profile's *now* after it.
    now: Timestamp,
}

/// Who writes a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WrittenBy {
    ProfileWriter,
    Redrive,
}

tokio::task_local! {
    /// Set in the flow of a redrive.
    static IN_REDRIVE: ();
}

impl Writes {
    /// Notes the write that was called last, if it took effect.
    fn note(&mut self, profiles: &MemoryProfileTable, journey: &Journey) {
        let Some((user, by, merged)) = self.called_for.take() else {
            return;
        };
        let Some(item) = profiles.item(&user) else {
            return;
        };
        let version = self.versions.entry(user.clone()).or_default();
        if *version == item.version {
            return;
        }
        *version = item.version;
        if let Ok(profile) = profile_state::decode(&item.state, item.version, &item.user_id, journey) {
            self.log.push(Written {
                user,
                by,
                guards: profile.guard.entries().iter().copied().collect(),
                merged,
                now: profile.now,
            });
        }
    }
}

impl MemoryCloud {
    /// An empty one.
    pub fn new(journey: &Arc<Journey>, setup: Setup) -> MemoryCloud {
        let delivery = if setup.needs_receipt {
            MemoryDelivery::default()
        } else {
            MemoryDelivery::without_receipt()
        };
        let profiles = MemoryProfileTable::default();
        let cloud = MemoryCloud {
            journey: journey.clone(),
            setup,
            due: MemoryDueIndex::of(&profiles),
            wake_ups: MemoryStream::with_shards(WAKE_UP_SHARDS),
            profiles,
            triggers: MemoryStream::with_shards(TRIGGER_SHARDS),
            rejected: MemoryStream::default(),
            parked_reads: MemoryProfileTable::default(),
            decisions: MemoryDecisionTable::default(),
            delivery,
            trends: MemoryTrendTable::default(),
            models: MemoryModelTable::default(),
            writes: Arc::default(),
            delivery_log: Arc::default(),
        };
        cloud.on_call(|_, _| None);
        cloud
    }

    /// A new container of profile-writer, with nothing in memory.
    pub fn writer(&self) -> Writer {
        let ports = ProfileWriterPorts {
            profiles: self.profiles.clone(),
            triggers: self.triggers.clone(),
            rejected: self.rejected.clone(),
            clock: MemoryClock::default(),
            telemetry: MemorySink::default(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: self.setup.concurrency,
            parallelization_factor: self.setup.parallelization_factor,
            metrics_namespace: "Usher".to_owned(),
        };
        ProfileWriter::new(self.journey.clone(), ports, config)
    }

    /// A new container of trigger-delivery.
    pub fn deliverer(&self) -> Deliverer {
        let ports = TriggerDeliveryPorts {
            decisions: self.decisions.clone(),
            delivery: self.delivery.clone(),
            clock: MemoryClock::default(),
            telemetry: MemorySink::default(),
        };
        let config = TriggerDeliveryConfig {
            delivery_concurrency: self.setup.concurrency,
            decision_ttl_days: 90,
            metrics_namespace: "Usher".to_owned(),
        };
        TriggerDelivery::new(ports, config)
    }

    /// A new container of timer-sweeper, which looks once.
    pub fn sweeper(&self) -> Sweeper {
        let ports = TimerSweeperPorts {
            due: self.due.clone(),
            interactions: self.wake_ups.clone(),
            clock: MemoryClock::default(),
            telemetry: MemorySink::default(),
        };
        let config = TimerSweeperConfig {
            passes: 1,
            pass_interval: Duration::ZERO,
            metrics_namespace: "Usher".to_owned(),
        };
        TimerSweeper::new(ports, config)
    }

    /// Sweeps as of `now`, in this much time.
    ///
    /// # Errors
    /// As the sweeper says.
    pub async fn sweep(&self, sweeper: &Sweeper, now: Timestamp, time: Duration) -> Result<Swept, SweepError> {
        let payload = format!(r#"{{"time":"{now}"}}"#);
        sweeper.run(invocation_within(&payload, time)).await
    }

    /// Whether anybody is due by `now`.
    pub fn is_anybody_due(&self, now: Timestamp) -> bool {
        let items = self.profiles.items();
        items
            .iter()
            .any(|item| item.next_due_at.is_some_and(|due_at| due_at <= now))
    }

    /// Takes the wake-ups that were put, by shard, as records that arrived at `now`. Their shards are not those of the events:
    /// the stream was split meanwhile.
    pub fn take_wake_ups(&self, now: Timestamp) -> Vec<Vec<Record>> {
        let mut shards: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records_of(&self.wake_ups, now) {
            let shard_id = record.shard_id.replace("shardId-0", "shardId-9");
            let record = Record {
                shard_id: shard_id.clone(),
                ..record
            };
            shards.entry(shard_id).or_default().push(record);
        }
        self.wake_ups.drain();
        shards.into_values().collect()
    }

    /// Asks at each call of any port whether and how it fails.
    pub fn on_call(&self, fault: impl Fn(Port, &Call) -> Option<Fault> + Clone + Send + 'static) {
        let (profiles, journey, writes, hook) = (
            self.profiles.clone(),
            self.journey.clone(),
            self.writes.clone(),
            fault.clone(),
        );
        self.profiles.faults().on_call(move |call| {
            let mut writes = writes.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing comes between this and the call's effect, so the last write shows now and never later.
            writes.note(&profiles, &journey);
            if matches!(call.operation, Operation::PutProfile | Operation::MergeProfiles) {
                let by = match IN_REDRIVE.try_with(|()| ()) {
                    Ok(()) => WrittenBy::Redrive,
                    Err(_) => WrittenBy::ProfileWriter,
                };
                let other = call.keys.get(1).cloned();
                writes.called_for = call.keys.first().map(|user| (user.clone(), by, other));
            }
            hook(Port::Profiles, call)
        });
        let hook = fault.clone();
        self.triggers.faults().on_call(move |call| hook(Port::Triggers, call));
        let hook = fault.clone();
        self.rejected.faults().on_call(move |call| hook(Port::Rejected, call));
        let hook = fault.clone();
        self.parked_reads.faults().on_call(move |call| hook(Port::Parked, call));
        let hook = fault.clone();
        self.due.faults().on_call(move |call| hook(Port::Due, call));
        let hook = fault.clone();
        self.wake_ups.faults().on_call(move |call| hook(Port::WakeUps, call));
        let hook = fault.clone();
        self.trends.faults().on_call(move |call| hook(Port::Trends, call));
        let hook = fault.clone();
        self.models.faults().on_call(move |call| hook(Port::Models, call));
        let hook = fault.clone();
        self.decisions.faults().on_call(move |call| hook(Port::Decisions, call));
        let (decisions, log) = (self.decisions.clone(), self.delivery_log.clone());
        self.delivery.faults().on_call(move |call| {
            let is_noted = decisions.decisions().into_iter().any(|(decision, status)| {
                call.keys.contains(&decision.trigger_id) && status == DecisionStatus::Delivered
            });
            let fault = fault(Port::Delivery, call);
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            for id in &call.keys {
                if is_noted {
                    log.after_noted.push(id.clone());
                }
                if fault == Some(Fault::LostAnswer) {
                    *log.lost_answers.entry(id.clone()).or_default() += 1;
                }
            }
            fault
        });
    }

    /// The triggers, by shard, as records for trigger-delivery.
    pub fn trigger_shards(&self) -> Vec<Vec<Record>> {
        let mut shards: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records_of(&self.triggers, Timestamp::default()) {
            shards.entry(record.shard_id.clone()).or_default().push(record);
        }
        shards.into_values().collect()
    }

    /// How many records came on the triggers stream.
    pub fn trigger_records(&self) -> usize {
        self.triggers.records().len()
    }

    /// What came of the interactions.
    ///
    /// # Errors
    /// What no run may leave behind: a profile that can't be read, two triggers with one id, a reject that is not its
    /// record.
    pub fn outcome(&self, records: &[&Record]) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        for item in self.profiles.items() {
            if let Some(user) = item.merged_into {
                outcome.pointers.insert(item.user_id, user);
                continue;
            }
            let profile = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey)
                .map_err(|error| format!("the profile of {}: {error}", item.user_id))?;
            let shown = compared(&item.user_id, &profile, &self.journey);
            outcome.profiles.insert(item.user_id, shown);
        }
        for stored in self.triggers.records() {
            let data = stored.record.data;
            let (kind, id) = kind_and_id(&data)?;
            let known = match kind {
                Kind::Decision => outcome.triggers.insert(id.clone(), data.clone()),
                Kind::Outcome => outcome.outcomes.insert(id.clone(), data.clone()),
            };
            if let Some(known) = known.filter(|known| *known != data) {
                let [one, other] = [&known, &data].map(|data| String::from_utf8_lossy(data));
                return Err(format!(
                    "the {kind:?} {id} came with different bytes\n  {one}\n  {other}"
                ));
            }
        }
        for stored in self.rejected.records() {
            let rejected: RejectedRecord<'_> = serde_json::from_slice(&stored.record.data)
                .map_err(|error| format!("a record of the rejected stream: {error}"))?;
            let place = (rejected.shard_id.into_owned(), rejected.sequence_number.into_owned());
            let original = records
                .iter()
                .find(|record| record.shard_id == place.0 && record.sequence_number == place.1);
            let data = base64_simd::STANDARD.decode_to_vec(rejected.data.as_bytes()).ok();
            if original.map(|record| &record.data) != data.as_ref() {
                return Err(format!("the reject of {place:?} has other bytes than its record"));
            }
            if rejected.parked {
                // Those wait, and come to the profile: `parked_places` accounts for them.
                continue;
            }
            outcome.rejected.insert(place, rejected.reason);
        }
        Ok(outcome)
    }

    /// What had to come of the interactions.
    ///
    /// A user whose records are in one lane is folded in the order of the stream, whatever happened. Where they are in
    /// several (two shards; with a parallelisation factor, two partition keys), nothing promises which lane goes first,
    /// and rules see the difference, so no single order is the right one. Then it is the order in which the lanes were
    /// applied, as the guards in the stored versions tell: what a write moved its lanes' guards past is what it applied.
    /// That takes nothing from the check: a record that the guard passed and that was not folded is missing from the
    /// profile, one that was folded twice is in it twice, and within a lane the order is the stream's.
    ///
    /// Where keys turn out to be one user's, the same goes for all of them together: what one's events do depends on when
    /// the other's profile became a part of it, and that is a write too.
    ///
    /// Where an outbox was full, what was due before an event is written before the event is, as by a wake-up. If another lane
    /// comes in between, it finds that made: then no order of the records tells what comes of them, which the outcome says
    /// ([`Outcome::was_woken`]).
    ///
    /// In the end everybody is woken who is due by `end`.
    pub fn expected<'r>(&self, shards: &[Vec<&'r Record>], end: Timestamp) -> Outcome {
        let by_partition_key = self.setup.parallelization_factor > 1;
        let mut ordered: Vec<&'r Record> = Vec::new();
        let mut lanes: BTreeMap<(String, ShardKey), Vec<&'r Record>> = BTreeMap::new();
        let mut names_others = false;
        for record in shards.iter().flatten() {
            match usher_wire::event::decode(&record.data, record.arrived_at) {
                Err(_) => ordered.push(record),
                Ok(event) => {
                    names_others |= event.alias.is_some();
                    let lane = (event.user.into_owned(), lane_of(record, by_partition_key));
                    lanes.entry(lane).or_default().push(record);
                }
            }
        }
        let mut lanes_of_user: BTreeMap<&str, usize> = BTreeMap::new();
        for (user, _) in lanes.keys() {
            *lanes_of_user.entry(user).or_default() += 1;
        }
        let by_writes: BTreeSet<String> = lanes_of_user
            .into_iter()
            .filter(|(_, lanes)| *lanes > 1 || names_others)
            .map(|(user, _)| user.to_owned())
            .collect();
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.note(&self.profiles, &self.journey);
        let mut pointers: BTreeMap<&str, &str> = BTreeMap::new();
        let mut arrived_last: BTreeMap<&str, Timestamp> = BTreeMap::new();
        let mut was_woken = false;
        for written in &writes.log {
            if let Some(merged) = &written.merged {
                pointers.insert(merged, &written.user);
                let others = arrived_last.get(merged.as_str()).copied().unwrap_or_default();
                let own = arrived_last.entry(&written.user).or_default();
                *own = others.max(*own);
            }
            let parked = match written.by {
                WrittenBy::ProfileWriter => Vec::new(),
                WrittenBy::Redrive => self.parked_places(&written.user).unwrap_or_default(),
            };
            let parked_at = |record: &Record| {
                let is_place = |place: &Place| place.0 == record.shard_id && place.1 == record.sequence_number;
                parked.iter().position(is_place)
            };
            let mut applied: Vec<(Option<usize>, &Record)> = Vec::new();
            for ((user, lane), records) in lanes.iter_mut().filter(|((user, _), _)| by_writes.contains(user)) {
                let (mut user, mut lane) = (user.as_str(), *lane);
                while let Some(to) = pointers.get(user) {
                    lane = lane.within(user);
                    user = to;
                }
                if user != written.user {
                    continue;
                }
                let covered = written.guards.get(&lane).map_or(0, |highest| {
                    records.partition_point(|record| position_of(record) <= *highest)
                });
                let mut latest = None;
                for record in records.drain(..covered) {
                    // What had nothing to do was not parked: it comes after what is before it in its lane.
                    let place = parked_at(record);
                    latest = latest.max(place);
                    applied.push((place.or(latest), record));
                }
            }
            match written.by {
                // One write is of one batch, and a batch is of one shard, in the order of the shard.
                WrittenBy::ProfileWriter => applied.sort_by_key(|(_, record)| position_of(record)),
                // A redrive takes the records in the order in which they were parked.
                WrittenBy::Redrive => applied.sort_by_key(|(parked_at, _)| *parked_at),
            }
            let own = arrived_last.entry(&written.user).or_default();
            *own = applied
                .iter()
                .map(|(_, record)| record.arrived_at)
                .fold(*own, Timestamp::max);
            was_woken |= by_writes.contains(&written.user) && written.now > *own;
            ordered.extend(applied.into_iter().map(|(_, record)| record));
        }
        // The rest: the only lane, or records after the last applied one, which can change nothing.
        ordered.extend(lanes.into_values().flatten());
        Outcome {
            was_woken,
            ..fold(&self.journey, ordered, by_partition_key, end)
        }
    }

    /// From now on, nobody can read the user's stored profile. Gives what was stored; where nothing was, nothing changes.
    pub fn damage(&self, user: &str) -> Option<ProfileItem> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.note(&self.profiles, &self.journey);
        let last_good = self.profiles.item(user)?;
        self.profiles.insert_unreadable(user, "it was damaged");
        Some(last_good)
    }

    /// Mends a profile as an operator does: the last good item comes back with the mark of a parked user, where the user
    /// has parked records, and with a higher version, so that no container takes it for what it remembers.
    ///
    /// # Errors
    /// When a parked record is wrong.
    pub fn mend(&self, last_good: ProfileItem) -> Result<(), String> {
        let user = &last_good.user_id;
        let parked_since = match self.profiles.parked_since(user) {
            None if !self.parked_places(user)?.is_empty() => Some(Timestamp::default()),
            marked => marked,
        };
        self.profiles.insert(ProfileItem {
            version: last_good.version + 1,
            parked_since,
            ..last_good
        });
        Ok(())
    }

    /// Whether the places, in the order in which they were parked, are in order within each lane, but for what the item
    /// is past.
    pub fn is_in_order(&self, parked: &[Place], item: &ProfileItem, lanes: &[Vec<Record>]) -> bool {
        let mut lanes = lanes.iter().map(|records| {
            let open = records.iter().filter(|record| self.would_apply(item, record, lanes));
            open.filter_map(|record| {
                let (shard, number) = (&record.shard_id, &record.sequence_number);
                parked.iter().position(|place| place.0 == *shard && place.1 == *number)
            })
        });
        lanes.all(|positions| positions.is_sorted())
    }

    /// Whether a record changes this item: its event is not ignored, its place is not passed, and no other record has its
    /// id.
    pub fn would_apply(&self, item: &ProfileItem, record: &Record, lanes: &[Vec<Record>]) -> bool {
        let Ok(event) = usher_wire::event::decode(&record.data, record.arrived_at) else {
            return false;
        };
        let Ok(profile) = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey) else {
            return false;
        };
        let is_ignored = self.journey.dispatch(&event.event_type).ignored;
        let lane = lane_of(record, self.setup.parallelization_factor > 1);
        let same_bytes = lanes.iter().flatten().filter(|other| other.data == record.data).count();
        !is_ignored && same_bytes == 1 && !profile.guard.covers(lane, position_of(record))
    }

    /// Whether a user is marked as parked.
    pub fn is_parked(&self, user: &str) -> bool {
        self.profiles.parked_since(user).is_some()
    }

    /// The places of a user's parked records, in the order in which each was parked first.
    ///
    /// # Errors
    /// When one is no JSON, or was parked for a reason that no run has.
    pub fn parked_places(&self, user: &str) -> Result<Vec<Place>, String> {
        let mut places: Vec<Place> = Vec::new();
        for stored in self.rejected.records() {
            let rejected: RejectedRecord<'_> = serde_json::from_slice(&stored.record.data)
                .map_err(|error| format!("a record of the rejected stream: {error}"))?;
            if !rejected.parked {
                continue;
            }
            let place = (rejected.shard_id.into_owned(), rejected.sequence_number.into_owned());
            if !matches!(
                rejected.reason,
                RejectReason::UnreadableProfile | RejectReason::UserParked
            ) {
                return Err(format!("{place:?} is parked as {}", rejected.reason));
            }
            if rejected.user.as_deref() == Some(user) && !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// Checks what is parked at the end, and gives how many records were: events of `damaged` and of nobody else. And nobody
    /// is marked as parked any more.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_parked(&self, damaged: Option<&str>, records: &[&Record]) -> Result<u64, String> {
        if let Some(item) = self.profiles.items().iter().find(|item| item.parked_since.is_some()) {
            return Err(format!("{} is still parked", item.user_id));
        }
        let places = match damaged {
            Some(user) => self.parked_places(user)?,
            None => Vec::new(),
        };
        for place in &places {
            let record = records
                .iter()
                .find(|record| record.shard_id == place.0 && record.sequence_number == place.1);
            if record.is_none_or(|record| user_of(record).as_deref() != damaged) {
                return Err(format!("{place:?} is parked, and is no event of {damaged:?}"));
            }
        }
        let all = self.rejected.records();
        let parked = all.iter().filter_map(|stored| {
            let rejected: RejectedRecord<'_> = serde_json::from_slice(&stored.record.data).ok()?;
            rejected.parked.then(|| rejected.user.unwrap_or_default().into_owned())
        });
        match parked.into_iter().find(|user| Some(user.as_str()) != damaged) {
            Some(user) => Err(format!("events of {user} are parked, whose profile was never damaged")),
            None => Ok(places.len() as u64),
        }
    }

    /// Applies a user's parked events, in this much time.
    pub fn redrive(
        &self,
        user: &str,
        passed_by: PassedBy,
        time: Duration,
    ) -> LocalBoxFuture<'static, Result<RedriveUserReport, RedriveUserError>> {
        let deadline = Instant::now() + time;
        let (journey, profiles, triggers) = (self.journey.clone(), self.profiles.clone(), self.triggers.clone());
        let mut parked = ParkedInMemory {
            rejected: self.rejected.clone(),
            calls: self.parked_reads.clone(),
            deadline,
            given: 0,
        };
        let (user, parallelization_factor) = (user.to_owned(), self.setup.parallelization_factor);
        let flow = async move {
            let ports = RedriveUserPorts {
                profiles: &profiles,
                triggers: &triggers,
                clock: &MemoryClock::default(),
            };
            let request = RedriveUserRequest {
                user: &user,
                parallelization_factor,
                passed_by,
            };
            redrive_user(&journey, ports, &mut parked, request, deadline).await
        };
        IN_REDRIVE.scope((), flow).boxed_local()
    }

    /// Checks what trigger-delivery did with these triggers, whatever came on the stream: each is in the decisions table
    /// once, noted as delivered; the receiver got each, and no other. One that is held out is noted as such, and the
    /// receiver did not get it. `one_at_a_time` says that no two containers delivered the same batch at once: then
    /// nothing is delivered that was noted as delivered.
    ///
    /// Where no receipt is needed, recording is delivering: a crash in between leaves out the line that the delivery
    /// writes, and only a lost answer to writing it writes it twice.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_decisions(&self, triggers: &BTreeMap<String, Vec<u8>>, one_at_a_time: bool) -> Result<(), String> {
        let expected: BTreeSet<&str> = triggers.keys().map(String::as_str).collect();
        let is_held_out = |id: &str| {
            let trigger = triggers.get(id).map(|bytes| TriggerRecord::parse(bytes));
            trigger.is_some_and(|trigger| trigger.is_ok_and(|trigger| trigger.held_out))
        };
        let decisions = self.decisions.decisions();
        let mut recorded = BTreeSet::new();
        for (decision, status) in &decisions {
            let expected_status = if is_held_out(&decision.trigger_id) {
                DecisionStatus::HeldOut
            } else {
                DecisionStatus::Delivered
            };
            if *status != expected_status {
                return Err(format!("the decision {} is {}", decision.trigger_id, status.name()));
            }
            if triggers.get(&decision.trigger_id).map(Vec::as_slice) != Some(decision.trigger.as_bytes()) {
                return Err(format!("the decision {} is not its trigger", decision.trigger_id));
            }
            if !recorded.insert(decision.trigger_id.as_str()) {
                return Err(format!("the decision {} is there twice", decision.trigger_id));
            }
        }
        if recorded != expected {
            return Err(format!("decisions: expected {expected:?}, found {recorded:?}"));
        }
        let delivered = self.deliveries();
        let log = self.delivery_log.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, count) in &delivered {
            let lost_answers = log.lost_answers.get(id).copied().unwrap_or_default();
            if !self.setup.needs_receipt && *count > 1 + lost_answers {
                return Err(format!(
                    "{id} was delivered {count} times, where recording is delivering"
                ));
            }
        }
        let expected: BTreeSet<&str> = expected.into_iter().filter(|id| !is_held_out(id)).collect();
        let received: BTreeSet<&str> = delivered.keys().map(String::as_str).collect();
        if !received.is_subset(&expected) || (self.setup.needs_receipt && received != expected) {
            return Err(format!("delivered: expected {expected:?}, found {received:?}"));
        }
        if one_at_a_time && self.setup.needs_receipt && !log.after_noted.is_empty() {
            return Err(format!("delivered although noted as delivered: {:?}", log.after_noted));
        }
        Ok(())
    }

    /// How often the receiver got each trigger.
    pub fn deliveries(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for decision in self.delivery.delivered() {
            *counts.entry(decision.trigger_id).or_default() += 1;
        }
        counts
    }
}

/// The records of `rejected`, read by a call that can fail.
struct ParkedInMemory {
    rejected: MemoryStream,
    calls: MemoryProfileTable,
    deadline: Instant,
    /// How many records were given.
    given: usize,
}

impl ParkedRecords for ParkedInMemory {
    async fn read(&mut self) -> Result<Vec<ParkedRecord>, CallError> {
        let called = timeout_at(self.deadline, self.calls.get(&["rejected"])).await;
        called.unwrap_or_else(|_| {
            Err(CallError::Retry {
                call: "reading the rejected stream".to_owned(),
                source: "no time was left".into(),
            })
        })?;
        let records = self.rejected.records();
        let new = records.iter().skip(self.given).map(|stored| ParkedRecord {
            shard_id: stored.shard_id.clone(),
            sequence_number: stored.sequence_number.parse().unwrap_or_default(),
            data: stored.record.data.clone(),
        });
        let new = new.collect();
        self.given = records.len();
        Ok(new)
    }
}

impl Drop for MemoryCloud {
    fn drop(&mut self) {
        // The hooks hold the ports that hold them.
        for faults in [
            self.profiles.faults(),
            self.triggers.faults(),
            self.rejected.faults(),
            self.parked_reads.faults(),
            self.decisions.faults(),
            self.delivery.faults(),
            self.due.faults(),
            self.wake_ups.faults(),
            self.trends.faults(),
            self.models.faults(),
        ] {
            faults.on_call(|_| None);
        }
    }
}

/// What a record on the triggers stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Decision,
    Outcome,
}

/// What a record on the triggers stream is, and its id.
fn kind_and_id(data: &[u8]) -> Result<(Kind, String), String> {
    let json: Value = serde_json::from_slice(data).map_err(|error| format!("a trigger: {error}"))?;
    let (kind, id) = match json["kind"].as_str() {
        Some(OUTCOME_KIND) => (Kind::Outcome, &json["outcome_id"]),
        _ => (Kind::Decision, &json["trigger_id"]),
    };
    let id = id.as_str().ok_or("a trigger has no id")?;
    Ok((kind, id.to_owned()))
}

/// The triggers as they are compared. Who wakes a user makes no difference to what a timer decides, but for the place and the
/// arrival of the record that woke.
fn shown(triggers: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let one = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let Ok(mut trigger) = serde_json::from_slice::<Value>(bytes) else {
            return text;
        };
        if trigger.get("due_at").is_none() {
            return text;
        }
        trigger["decided_at"] = Value::Null;
        for name in ["shard_id", "sequence_number"] {
            trigger["cause"][name] = Value::Null;
        }
        trigger.to_string()
    };
    triggers.iter().map(|(id, bytes)| (id.clone(), one(bytes))).collect()
}

/// What differs of what does not go by what was chosen: pointers, rejects, and of each user what follows from their events
/// alone.
///
/// # Errors
/// Where something does.
pub fn compare_histories(expected: &Outcome, found: &Outcome) -> Result<(), String> {
    let history = |profile: &String| {
        let mut values = serde_json::Deserializer::from_str(profile).into_iter::<Value>();
        let profile = values.next().and_then(Result::ok).unwrap_or_default();
        let parts = ["features", "steps", "sessions", "applied_events", "traits"];
        Value::from_iter(parts.map(|part| (part, profile[part].clone()))).to_string()
    };
    let only = |outcome: &Outcome| Outcome {
        profiles: outcome
            .profiles
            .iter()
            .map(|(user, profile)| (user.clone(), history(profile)))
            .collect(),
        pointers: outcome.pointers.clone(),
        rejected: outcome.rejected.clone(),
        ..Outcome::default()
    };
    compare(&only(expected), &only(found))
}

/// What differs, in a few lines.
///
/// # Errors
/// Where something does.
pub fn compare(expected: &Outcome, found: &Outcome) -> Result<(), String> {
    fn first<K: Ord + std::fmt::Debug, V: PartialEq>(
        what: &str,
        expected: &BTreeMap<K, V>,
        found: &BTreeMap<K, V>,
        show: impl Fn(&V) -> String,
    ) -> Result<(), String> {
        let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
        for key in keys {
            let (expected, found) = (expected.get(key), found.get(key));
            if expected != found {
                let shown = |value: Option<&V>| value.map_or("nothing".to_owned(), &show);
                let (expected, found) = (shown(expected), shown(found));
                return Err(format!("{what} {key:?}\n  expected {expected}\n  found    {found}"));
            }
        }
        Ok(())
    }
    first("pointer", &expected.pointers, &found.pointers, String::clone)?;
    first("profile", &expected.profiles, &found.profiles, String::clone)?;
    if let Some(id) = expected.decided_twice.first() {
        return Err(format!("one by one, {id} is decided or told twice"));
    }
    let (expected_triggers, found_triggers) = (shown(&expected.triggers), shown(&found.triggers));
    first("trigger", &expected_triggers, &found_triggers, String::clone)?;
    let (expected_outcomes, found_outcomes) = (shown_outcomes(expected), shown_outcomes(found));
    first("outcome", &expected_outcomes, &found_outcomes, String::clone)?;
    first("reject", &expected.rejected, &found.rejected, |reason| {
        reason.to_string()
    })
}
