//! The ports in memory, for tests and for runs without any cloud.
//!
//! They keep the same contract as the AWS adapters, limits included, and can be told to fail: [`Fault`] says how,
//! [`Faults::inject`] makes the next call fail so, and [`Faults::on_call`] decides at each call, which may also be the
//! moment for another writer to come in between. A flow that runs in a [`Container`] may end in the middle of a call.
//!
//! ```
//! # use usher_domain::time::Timestamp;
//! # use usher_pipeline::memory::{Fault, MemoryProfileTable};
//! # use usher_pipeline::ports::{ProfileItem, ProfileTable};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let table = MemoryProfileTable::default();
//! table.faults().inject(Fault::LostAnswer);
//! let profile =
//!     ProfileItem { user_id: "u-1".to_owned(), version: 1, state: vec![], updated_at: Timestamp::from_epoch_ms(0),
//!     parked_since: None, next_due_at: None, merged_into: None };
//! assert!(table.put(&profile, 0).await.is_err(), "its answer was lost");
//! assert_eq!(table.item("u-1"), Some(profile), "but it was written");
//! # }
//! ```
//!
//! Every one of them is a handle: a clone sees the same data.

mod due;
mod faults;
mod models;
mod trends;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use usher_domain::hash::hash_bytes;
use usher_domain::time::Timestamp;

use crate::ports::{
    CallError, DecisionItem, DecisionStatus, DecisionTable, Delivery, DeliveryAnswer, FileAnswer, GET_USERS_MAX,
    GetAnswer, MergeAnswer, MergeSide, MergeWrite, OutcomeItem, PUT_BYTES_MAX, PUT_RECORDS_MAX, ParkAnswer, ParkTarget,
    ProfileItem, ProfileTable, PutAnswer, PutOutcome, RecordAnswer, RecordStream, StreamRecord, TelemetrySink,
    WallClock,
};

pub use due::MemoryDueIndex;
use faults::refused;
pub use faults::{Call, Container, ContainerEnded, Fault, Faults, Operation};
pub use models::MemoryModelTable;
pub use trends::MemoryTrendTable;

/// Largest item of a DynamoDB table, in bytes: 400 KB, attribute names included.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Largest record of a Kinesis stream, in bytes: 1 MiB unless the stream is set to more, partition key included.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Longest partition key, in characters.
pub const PARTITION_KEY_CHARS_MAX: usize = 256;

/// Bytes that one read unit pays for.
const READ_UNIT_BYTES: usize = 4 * 1024;
/// Bytes that one write unit pays for.
const WRITE_UNIT_BYTES: usize = 1024;
/// Each write of a transaction takes so many times what it takes alone.
const TRANSACTION_UNITS: f64 = 2.0;
/// About what an item takes besides its texts and bytes: attribute names, times and numbers.
const ITEM_OVERHEAD_BYTES: usize = 75;
/// What the marker of a parked user takes: its name and time.
const MARKER_BYTES: usize = 36;
/// What the name of a pointer's attribute takes.
const POINTER_NAME_BYTES: usize = 11;
/// What Kinesis' sequence numbers start with; they have 56 digits.
const SEQUENCE_NUMBER_PREFIX: &str = "495903382714902566085596925383615710";

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panics while it holds the lock has failed already; the data is whole either way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn units(bytes: usize, unit_bytes: usize) -> f64 {
    bytes.div_ceil(unit_bytes).max(1) as f64
}

fn profile_bytes(profile: &ProfileItem) -> usize {
    let marker_bytes = profile.parked_since.map_or(0, |_| MARKER_BYTES);
    let pointer_bytes = profile
        .merged_into
        .as_ref()
        .map_or(0, |user| POINTER_NAME_BYTES + user.len());
    ITEM_OVERHEAD_BYTES + profile.user_id.len() + profile.state.len() + marker_bytes + pointer_bytes
}

/// The `profiles` table.
#[derive(Clone, Debug, Default)]
pub struct MemoryProfileTable {
    inner: Arc<ProfileTableInner>,
}

#[derive(Debug, Default)]
struct ProfileTableInner {
    faults: Faults,
    /// A profile, or what is wrong with the item.
    items: Mutex<BTreeMap<String, Result<ProfileItem, UnreadableItem>>>,
}

#[derive(Clone, Debug)]
struct UnreadableItem {
    why: String,
    parked_since: Option<Timestamp>,
}

impl MemoryProfileTable {
    /// Its failures and calls.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The profiles, by user.
    pub fn items(&self) -> Vec<ProfileItem> {
        locked(&self.inner.items)
            .values()
            .filter_map(|item| item.clone().ok())
            .collect()
    }

    /// A user's profile.
    pub fn item(&self, user_id: &str) -> Option<ProfileItem> {
        locked(&self.inner.items)
            .get(user_id)
            .and_then(|item| item.clone().ok())
    }

    /// Stores a profile without any condition, as another writer.
    pub fn insert(&self, profile: ProfileItem) {
        locked(&self.inner.items).insert(profile.user_id.clone(), Ok(profile));
    }

    /// Stores something that is no profile.
    pub fn insert_unreadable(&self, user_id: &str, why: &str) {
        let item = UnreadableItem {
            why: why.to_owned(),
            parked_since: None,
        };
        locked(&self.inner.items).insert(user_id.to_owned(), Err(item));
    }

    /// Since when a user is parked, whether the item is readable or not.
    pub fn parked_since(&self, user_id: &str) -> Option<Timestamp> {
        match locked(&self.inner.items).get(user_id)? {
            Ok(profile) => profile.parked_since,
            Err(item) => item.parked_since,
        }
    }

    /// Takes a user's item away.
    pub fn remove(&self, user_id: &str) {
        locked(&self.inner.items).remove(user_id);
    }
}

impl ProfileTable for MemoryProfileTable {
    async fn get(&self, users: &[&str]) -> Result<GetAnswer, CallError> {
        let operation = Operation::GetProfiles;
        let keys = users.iter().map(|user| (*user).to_owned()).collect();
        let effect = self.inner.faults.meet(operation, keys).await?;
        let different: BTreeSet<&str> = users.iter().copied().collect();
        if users.len() > GET_USERS_MAX || different.len() < users.len() || different.contains("") {
            return Err(refused(
                operation,
                "a read names 1 to 100 different users, none of them empty",
            ));
        }
        let answer = {
            let items = locked(&self.inner.items);
            let mut answer = GetAnswer::default();
            for (index, user) in users.iter().enumerate() {
                if effect.leaves_out(index) {
                    answer.unprocessed.push((*user).to_owned());
                    continue;
                }
                let bytes = match items.get(*user) {
                    Some(Ok(profile)) => {
                        answer.items.push(profile.clone());
                        profile_bytes(profile)
                    }
                    Some(Err(item)) => {
                        answer.unreadable.push(((*user).to_owned(), item.why.clone()));
                        ITEM_OVERHEAD_BYTES
                    }
                    None => 0,
                };
                answer.read_units += units(bytes, READ_UNIT_BYTES);
            }
            answer
        };
        effect.answer(operation, answer).await
    }

    async fn put(&self, profile: &ProfileItem, expected_version: u64) -> Result<PutAnswer, CallError> {
        let operation = Operation::PutProfile;
        let effect = self.inner.faults.meet(operation, vec![profile.user_id.clone()]).await?;
        let bytes = profile_bytes(profile);
        if bytes > ITEM_BYTES_MAX || profile.user_id.is_empty() {
            return Err(refused(operation, "an item has a key, and at most 400 KB"));
        }
        let answer = {
            let mut items = locked(&self.inner.items);
            let stored = items.get(&profile.user_id);
            match stored {
                None if expected_version == 0 => {
                    items.insert(profile.user_id.clone(), Ok(profile.clone()));
                    PutAnswer::Written {
                        write_units: units(bytes, WRITE_UNIT_BYTES),
                    }
                }
                Some(Ok(current)) if current.version == expected_version && expected_version > 0 => {
                    let larger = bytes.max(profile_bytes(current));
                    items.insert(profile.user_id.clone(), Ok(profile.clone()));
                    PutAnswer::Written {
                        write_units: units(larger, WRITE_UNIT_BYTES),
                    }
                }
                None => PutAnswer::Conflict {
                    current: None,
                    write_units: units(0, WRITE_UNIT_BYTES),
                },
                Some(Ok(current)) => PutAnswer::Conflict {
                    current: Some(current.clone()),
                    write_units: units(profile_bytes(current), WRITE_UNIT_BYTES),
                },
                Some(Err(item)) => PutAnswer::Unreadable { why: item.why.clone() },
            }
        };
        effect.answer(operation, answer).await
    }

    async fn merge(&self, merge: &MergeWrite) -> Result<MergeAnswer, CallError> {
        let operation = Operation::MergeProfiles;
        let sides = [(&merge.into, merge.into_expected), (&merge.from, merge.from_expected)];
        let keys = sides.iter().map(|(item, _)| item.user_id.clone()).collect();
        let effect = self.inner.faults.meet(operation, keys).await?;
        let is_wrong = |item: &ProfileItem| profile_bytes(item) > ITEM_BYTES_MAX || item.user_id.is_empty();
        if sides.iter().any(|(item, _)| is_wrong(item)) || merge.into.user_id == merge.from.user_id {
            return Err(refused(
                operation,
                "a merge writes two different items, each with a key and at most 400 KB",
            ));
        }
        let answer = {
            let mut items = locked(&self.inner.items);
            let mut write_units = 0.0;
            let looked_at = sides.map(|(item, expected)| {
                let stored = items.get(&item.user_id);
                let stored_bytes =
                    stored.map_or(0, |stored| stored.as_ref().map_or(ITEM_OVERHEAD_BYTES, profile_bytes));
                let is_expected = match stored {
                    None => expected == 0,
                    Some(Ok(current)) => expected > 0 && current.version == expected,
                    Some(Err(_)) => false,
                };
                if is_expected {
                    write_units += TRANSACTION_UNITS * units(stored_bytes.max(profile_bytes(item)), WRITE_UNIT_BYTES);
                    return MergeSide::AsExpected;
                }
                match stored {
                    None => MergeSide::Changed(None),
                    Some(Ok(current)) => MergeSide::Changed(Some(Box::new(current.clone()))),
                    Some(Err(item)) => MergeSide::Unreadable { why: item.why.clone() },
                }
            });
            if looked_at == [MergeSide::AsExpected, MergeSide::AsExpected] {
                for (item, _) in sides {
                    items.insert(item.user_id.clone(), Ok(item.clone()));
                }
                MergeAnswer::Written { write_units }
            } else {
                let [into, from] = looked_at;
                MergeAnswer::Conflict {
                    into,
                    from,
                    write_units,
                }
            }
        };
        effect.answer(operation, answer).await
    }

    async fn park(&self, user_id: &str, target: ParkTarget, since: Timestamp) -> Result<ParkAnswer, CallError> {
        let operation = Operation::ParkProfile;
        let effect = self.inner.faults.meet(operation, vec![user_id.to_owned()]).await?;
        let answer = {
            let mut items = locked(&self.inner.items);
            match (items.get_mut(user_id), target) {
                (None, _) => ParkAnswer::Conflict {
                    current: None,
                    write_units: units(0, WRITE_UNIT_BYTES),
                },
                (Some(Ok(current)), ParkTarget::Version(expected)) if current.version != expected => {
                    ParkAnswer::Conflict {
                        current: Some(current.clone()),
                        write_units: units(profile_bytes(current), WRITE_UNIT_BYTES),
                    }
                }
                (Some(Ok(current)), _) => {
                    current.version += 1;
                    current.parked_since.get_or_insert(since);
                    current.next_due_at = None;
                    ParkAnswer::Parked {
                        write_units: units(profile_bytes(current), WRITE_UNIT_BYTES),
                    }
                }
                (Some(Err(item)), ParkTarget::Version(_)) => ParkAnswer::Unreadable { why: item.why.clone() },
                (Some(Err(item)), ParkTarget::Unreadable) => {
                    item.parked_since.get_or_insert(since);
                    ParkAnswer::Parked {
                        write_units: units(ITEM_OVERHEAD_BYTES, WRITE_UNIT_BYTES),
                    }
                }
            }
        };
        effect.answer(operation, answer).await
    }
}

/// A record on a [`MemoryStream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its shard.
    pub shard_id: String,
    /// Its sequence number: it increases from record to record, over all shards.
    pub sequence_number: String,
    /// What was put.
    pub record: StreamRecord,
}

/// A Kinesis stream.
#[derive(Clone, Debug)]
pub struct MemoryStream {
    inner: Arc<StreamInner>,
}

#[derive(Debug)]
struct StreamInner {
    faults: Faults,
    shards: u64,
    records: Mutex<Vec<StoredRecord>>,
}

impl Default for MemoryStream {
    fn default() -> MemoryStream {
        MemoryStream::with_shards(1)
    }
}

impl MemoryStream {
    /// A stream with this many shards, at least one. A record's shard follows from its partition key.
    pub fn with_shards(shards: u32) -> MemoryStream {
        let inner = StreamInner {
            faults: Faults::default(),
            shards: shards.max(1).into(),
            records: Mutex::default(),
        };
        MemoryStream { inner: Arc::new(inner) }
    }

    /// Its failures and calls.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The records, in the order in which they were put.
    pub fn records(&self) -> Vec<StoredRecord> {
        locked(&self.inner.records).clone()
    }

    /// Takes all records away and gives them, so that a test can look at one step at a time.
    pub fn drain(&self) -> Vec<StoredRecord> {
        std::mem::take(&mut locked(&self.inner.records))
    }
}

impl RecordStream for MemoryStream {
    async fn put(&self, records: &[StreamRecord]) -> Result<Vec<PutOutcome>, CallError> {
        let operation = Operation::PutRecords;
        let keys = records.iter().map(|record| record.partition_key.clone()).collect();
        let effect = self.inner.faults.meet(operation, keys).await?;
        let size = |record: &StreamRecord| record.partition_key.len() + record.data.len();
        if records.len() > PUT_RECORDS_MAX || records.iter().map(size).sum::<usize>() > PUT_BYTES_MAX {
            return Err(refused(operation, "a put has at most 500 records and 5 MiB"));
        }
        let is_wrong = |record: &StreamRecord| {
            let key_chars = record.partition_key.chars().count();
            key_chars == 0 || key_chars > PARTITION_KEY_CHARS_MAX || size(record) > RECORD_BYTES_MAX
        };
        if records.iter().any(is_wrong) {
            return Err(refused(
                operation,
                "a record has a partition key of 1 to 256 characters, and at most 1 MiB",
            ));
        }
        let answer = {
            let mut stored = locked(&self.inner.records);
            let mut outcomes = Vec::with_capacity(records.len());
            for (index, record) in records.iter().enumerate() {
                if effect.leaves_out(index) {
                    let code = "ProvisionedThroughputExceededException".to_owned();
                    outcomes.push(PutOutcome::Failed {
                        code,
                        message: "it was told to fail".to_owned(),
                    });
                    continue;
                }
                let shard_id = format!(
                    "shardId-{:012}",
                    hash_bytes(record.partition_key.as_bytes()) % self.inner.shards
                );
                // The call's number keeps it increasing after records were drained.
                let calls = self.inner.faults.calls_len();
                let sequence_number = format!("{SEQUENCE_NUMBER_PREFIX}{calls:016}{index:04}");
                stored.push(StoredRecord {
                    shard_id: shard_id.clone(),
                    sequence_number: sequence_number.clone(),
                    record: record.clone(),
                });
                outcomes.push(PutOutcome::Stored {
                    shard_id,
                    sequence_number,
                });
            }
            outcomes
        };
        effect.answer(operation, answer).await
    }
}

/// The `decisions` table.
#[derive(Clone, Debug, Default)]
pub struct MemoryDecisionTable {
    inner: Arc<DecisionTableInner>,
}

#[derive(Debug, Default)]
struct DecisionTableInner {
    faults: Faults,
    decisions: Mutex<BTreeMap<(String, String), (DecisionItem, DecisionStatus)>>,
    outcomes: Mutex<BTreeMap<(String, String), OutcomeItem>>,
}

impl MemoryDecisionTable {
    /// Its failures and calls.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The decisions, by user and trigger id.
    pub fn decisions(&self) -> Vec<(DecisionItem, DecisionStatus)> {
        locked(&self.inner.decisions).values().cloned().collect()
    }

    /// The outcomes that are filed, by user and trigger id.
    pub fn outcomes(&self) -> Vec<OutcomeItem> {
        locked(&self.inner.outcomes).values().cloned().collect()
    }

    /// Takes a decision and its outcome away, as its TTL does.
    pub fn remove(&self, user_id: &str, trigger_id: &str) {
        let key = (user_id.to_owned(), trigger_id.to_owned());
        locked(&self.inner.decisions).remove(&key);
        locked(&self.inner.outcomes).remove(&key);
    }
}

impl DecisionTable for MemoryDecisionTable {
    async fn record(&self, decision: &DecisionItem, status: DecisionStatus) -> Result<RecordAnswer, CallError> {
        let operation = Operation::RecordDecision;
        let effect = self
            .inner
            .faults
            .meet(operation, vec![decision.trigger_id.clone()])
            .await?;
        if decision.user_id.is_empty() || decision.trigger_id.is_empty() || decision.trigger.len() > ITEM_BYTES_MAX {
            return Err(refused(operation, "an item has keys, and at most 400 KB"));
        }
        let key = (decision.user_id.clone(), decision.trigger_id.clone());
        let answer = {
            let mut decisions = locked(&self.inner.decisions);
            match decisions.get(&key) {
                Some((_, known)) => RecordAnswer::Known(*known),
                None => {
                    decisions.insert(key, (decision.clone(), status));
                    RecordAnswer::New
                }
            }
        };
        effect.answer(operation, answer).await
    }

    async fn set_status(&self, user_id: &str, trigger_id: &str, status: DecisionStatus) -> Result<(), CallError> {
        let operation = Operation::SetDecisionStatus;
        let effect = self.inner.faults.meet(operation, vec![trigger_id.to_owned()]).await?;
        {
            let mut decisions = locked(&self.inner.decisions);
            match decisions.get_mut(&(user_id.to_owned(), trigger_id.to_owned())) {
                Some((_, known)) => *known = status,
                None => return Err(refused(operation, "there is no such decision")),
            }
        }
        effect.answer(operation, ()).await
    }

    async fn file_outcome(&self, outcome: &OutcomeItem) -> Result<FileAnswer, CallError> {
        let operation = Operation::FileOutcome;
        let effect = self
            .inner
            .faults
            .meet(operation, vec![outcome.trigger_id.clone()])
            .await?;
        let key = (outcome.user_id.clone(), outcome.trigger_id.clone());
        let beside = locked(&self.inner.decisions)
            .get(&key)
            .map_or(0, |(decision, _)| decision.trigger.len());
        if key.0.is_empty() || key.1.is_empty() || beside + outcome.outcome.len() > ITEM_BYTES_MAX {
            return Err(refused(operation, "an item has keys, and at most 400 KB"));
        }
        let answer = {
            let mut outcomes = locked(&self.inner.outcomes);
            match outcomes.get(&key) {
                Some(known) if known.rewards_so_far >= outcome.rewards_so_far => FileAnswer::Known,
                _ => {
                    outcomes.insert(key, outcome.clone());
                    FileAnswer::Filed
                }
            }
        };
        effect.answer(operation, answer).await
    }
}

/// A receiver of decisions.
#[derive(Clone, Debug, Default)]
pub struct MemoryDelivery {
    inner: Arc<DeliveryInner>,
}

#[derive(Debug, Default)]
struct DeliveryInner {
    faults: Faults,
    is_log: bool,
    /// The trigger ids that it refuses for good, with the status that it refuses them with.
    refused: Mutex<BTreeMap<String, u16>>,
    delivered: Mutex<Vec<DecisionItem>>,
}

impl MemoryDelivery {
    /// One that needs no receipt: recording is delivering.
    pub fn without_receipt() -> MemoryDelivery {
        MemoryDelivery {
            inner: Arc::new(DeliveryInner {
                is_log: true,
                ..DeliveryInner::default()
            }),
        }
    }

    /// Its failures and calls.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Refuses a trigger for good from now on.
    pub fn refuse(&self, trigger_id: &str, status: u16) {
        locked(&self.inner.refused).insert(trigger_id.to_owned(), status);
    }

    /// What it took, in order; the same decision as often as it came.
    pub fn delivered(&self) -> Vec<DecisionItem> {
        locked(&self.inner.delivered).clone()
    }
}

impl Delivery for MemoryDelivery {
    fn needs_receipt(&self) -> bool {
        !self.inner.is_log
    }

    async fn deliver(&self, decision: &DecisionItem) -> Result<DeliveryAnswer, CallError> {
        let operation = Operation::Deliver;
        let effect = self
            .inner
            .faults
            .meet(operation, vec![decision.trigger_id.clone()])
            .await?;
        let refused = locked(&self.inner.refused).get(&decision.trigger_id).copied();
        let answer = match refused {
            Some(status) => DeliveryAnswer::RefusedForGood { status },
            None => {
                locked(&self.inner.delivered).push(decision.clone());
                DeliveryAnswer::Accepted
            }
        };
        effect.answer(operation, answer).await
    }
}

/// A clock that stands until it is set.
#[derive(Clone, Debug, Default)]
pub struct MemoryClock {
    now: Arc<Mutex<Timestamp>>,
}

impl MemoryClock {
    /// A clock that stands at this time.
    pub fn at(now: Timestamp) -> MemoryClock {
        MemoryClock {
            now: Arc::new(Mutex::new(now)),
        }
    }

    /// Sets it.
    pub fn set(&self, now: Timestamp) {
        *locked(&self.now) = now;
    }
}

impl WallClock for MemoryClock {
    fn now(&self) -> Timestamp {
        *locked(&self.now)
    }
}

/// Keeps telemetry lines.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    lines: Arc<Mutex<Vec<String>>>,
}

impl MemorySink {
    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }
}

impl TelemetrySink for MemorySink {
    fn line(&self, json: &str) {
        locked(&self.lines).push(json.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(user_id: &str, version: u64) -> ProfileItem {
        let updated_at = Timestamp::from_epoch_ms(0);
        ProfileItem {
            user_id: user_id.to_owned(),
            version,
            state: vec![1],
            updated_at,
            parked_since: None,
            next_due_at: None,
            merged_into: None,
        }
    }

    #[tokio::test]
    async fn an_injected_fault_meets_one_call() {
        for (fault, is_written, is_refused) in [
            (Fault::Throttle, false, false),
            (Fault::LostAnswer, true, false),
            (Fault::Refuse, false, true),
        ] {
            let table = MemoryProfileTable::default();
            table.faults().inject_at(Operation::PutProfile, fault.clone());
            table.get(&["a"]).await.expect("the fault is for writes");
            let error = table.put(&profile("a", 1), 0).await.expect_err("it fails once");
            assert_eq!(matches!(error, CallError::Refused { .. }), is_refused, "{fault:?}");
            assert_eq!(table.item("a").is_some(), is_written, "{fault:?}");
            table.put(&profile("a", 1), 0).await.expect("and not again");
            assert_eq!(table.faults().count(Operation::PutProfile), 2);
        }
    }

    #[tokio::test]
    async fn a_partial_failure_leaves_out_what_it_names() {
        let table = MemoryProfileTable::default();
        table.faults().inject(Fault::Partial(vec![1]));
        assert_eq!(table.get(&["a", "b"]).await.expect("it answered").unprocessed, ["b"]);

        let stream = MemoryStream::with_shards(4);
        stream.faults().inject(Fault::Partial(vec![0, 2]));
        let records: Vec<StreamRecord> = ["a", "b", "c"]
            .map(|key| StreamRecord {
                partition_key: key.to_owned(),
                data: vec![],
            })
            .into();
        let outcomes = stream.put(&records).await.expect("it answered");
        let is_stored: Vec<bool> = outcomes
            .iter()
            .map(|o| matches!(o, PutOutcome::Stored { .. }))
            .collect();
        assert_eq!(is_stored, [false, true, false]);
        assert_eq!(
            stream
                .drain()
                .into_iter()
                .map(|stored| stored.record)
                .collect::<Vec<_>>(),
            [records[1].clone()]
        );
    }

    #[tokio::test]
    async fn another_writer_may_come_in_between() {
        let table = MemoryProfileTable::default();
        let other = table.clone();
        table.faults().on_call(move |call| {
            if call.number == 0 {
                other.insert(profile("a", 1));
            }
            None
        });
        match table.put(&profile("a", 1), 0).await.expect("it answered") {
            PutAnswer::Conflict {
                current: Some(current), ..
            } => assert_eq!(current, profile("a", 1)),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_cut_off_by_its_caller() {
        let delivery = MemoryDelivery::default();
        delivery.faults().inject(Fault::Hang);
        let decision = DecisionItem {
            user_id: "u".to_owned(),
            trigger_id: "t".to_owned(),
            rule: String::new(),
            slot: String::new(),
            offer: String::new(),
            decided_at: Timestamp::from_epoch_ms(0),
            trigger: String::new(),
            expires_at_epoch_s: 0,
        };
        let limit = std::time::Duration::from_millis(20);
        tokio::time::timeout(limit, delivery.deliver(&decision))
            .await
            .expect_err("it hangs");
        assert_eq!(
            delivery.deliver(&decision).await.expect("it works now"),
            DeliveryAnswer::Accepted
        );
        assert_eq!(delivery.delivered().len(), 1);
    }
}
