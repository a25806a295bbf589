//! What the flows need from the outside: one trait for each thing, each method one call with no retry of its own.
//!
//! Retrying, splitting and taking partial failures apart is the flows' work, so that it is written and tested once.
//! Errors are sorted by what the caller does with them: [`CallError::Retry`] or [`CallError::Refused`].

mod models;
mod trends;

use std::error::Error;
use std::future::Future;

use usher_domain::time::Timestamp;

pub use models::{
    MODEL_READ_ITEMS_MAX, MODEL_STATE_BYTES_MAX, MODEL_WRITE_BYTES_MAX, MODEL_WRITE_ITEMS_MAX, ModelGetAnswer,
    ModelItem, ModelKey, ModelTable, ModelWrite, ModelWriteAnswer, ReadOf,
};
pub use trends::{TREND_BUCKETS, TrendItem, TrendPage, TrendPutAnswer, TrendTable, trend_bucket, trend_partition};

/// The source of a failed call.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A call that failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Trying again may help: throttling, a timeout, a lost connection, an internal error of the service. Whether the
    /// call took effect is not known.
    #[error("{call} failed for now")]
    Retry {
        /// Such as `dynamodb:PutItem on profiles`.
        call: String,
        /// The SDK's error.
        #[source]
        source: BoxError,
    },
    /// Trying again won't help: a missing table, no permission, an item over the size limit.
    #[error("{call} was refused")]
    Refused {
        /// Such as `dynamodb:PutItem on profiles`.
        call: String,
        /// The SDK's error.
        #[source]
        source: BoxError,
    },
}

/// A profile as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileItem {
    /// The table's key.
    pub user_id: String,
    /// Counts the writes, from 1. A write is conditional on the version that was read (P4).
    pub version: u64,
    /// The profile itself, as `usher_wire::profile_state` writes it.
    pub state: Vec<u8>,
    /// The latest arrival in it, for people who look at the table.
    pub updated_at: Timestamp,
    /// Since when the user is parked: events of the user wait on `rejected`, and later ones follow them there.
    pub parked_since: Option<Timestamp>,
    /// When the user is to be woken, for the sparse index that timer-sweeper reads.
    pub next_due_at: Option<Timestamp>,
    /// The user that this one turned out to be: the item is a pointer, its state is empty, and events for it go there.
    pub merged_into: Option<String>,
}

/// Partitions of the index of due users: it takes 1,000 writes a second in each.
pub const DUE_SHARDS: u64 = 16;

/// The partition of the index of due users that a user is in: `00` to `15`.
pub fn due_shard(user_id: &str) -> String {
    due_shard_name(usher_domain::hash::hash_bytes(user_id.as_bytes()) % DUE_SHARDS)
}

/// Every partition of the index of due users.
pub fn due_shards() -> impl Iterator<Item = String> {
    (0..DUE_SHARDS).map(due_shard_name)
}

fn due_shard_name(number: u64) -> String {
    format!("{number:02}")
}

/// A user who is to be woken: an entry of the index of due users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueUser {
    /// Whose profile it is.
    pub user_id: String,
    /// When it is to look at its timers.
    pub due_at: Timestamp,
}

/// Users that one [`DueIndex::page`] has at most: two puts' worth, so that the first are woken while the next are read.
pub const DUE_PAGE_USERS_MAX: usize = 1000;

/// One page of the due users in a partition.
#[derive(Debug, Default)]
pub struct DuePage {
    /// Whoever is due longest comes first.
    pub users: Vec<DueUser>,
    /// After whom the next page begins; none where this was the last.
    pub next_after: Option<DueUser>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// The sparse index of the `profiles` table over those who are to be woken.
pub trait DueIndex: Send + Sync {
    /// Reads up to [`DUE_PAGE_USERS_MAX`] users of one partition who are due by `until`, in the order of when, from the one
    /// after `after` on. The index follows the table with a delay: it may name a user who has been woken since, and not yet
    /// name one who became due.
    fn page(
        &self,
        due_shard: &str,
        until: Timestamp,
        after: Option<&DueUser>,
    ) -> impl Future<Output = Result<DuePage, CallError>> + Send;
}

/// The largest [`ProfileItem::state`] that is written, in bytes: an item holds 400 KB, its other attributes and names
/// included. <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
pub const PROFILE_STATE_BYTES_MAX: usize = 390 * 1024;

/// What a batched read gives: some of the keys may be left over.
#[derive(Debug, Default)]
pub struct GetAnswer {
    /// The items that exist.
    pub items: Vec<ProfileItem>,
    /// Users whose stored item is not one that [`ProfileItem`] can hold, with what is wrong.
    pub unreadable: Vec<(String, String)>,
    /// Keys that the table did not get to; ask again for these (`UnprocessedKeys`).
    pub unprocessed: Vec<String>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// What a conditional write gives.
#[derive(Debug)]
pub enum PutAnswer {
    /// It was written.
    Written {
        /// Write capacity units that it took.
        write_units: f64,
    },
    /// The stored version is another. Nothing was written.
    Conflict {
        /// The item that is stored (`ALL_OLD`); none where there is none.
        current: Option<ProfileItem>,
        /// Write capacity units that it took all the same.
        write_units: f64,
    },
    /// The stored version is another, and the stored item can't be read.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

/// Which item [`ProfileTable::park`] is to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkTarget {
    /// A profile, if the stored version is this one (from 1).
    Version(u64),
    /// Whatever is stored, which could not be read.
    Unreadable,
}

/// What marking an item as parked gives.
#[derive(Debug)]
pub enum ParkAnswer {
    /// It is marked, and its version is one higher, so that whoever read it before conflicts. An unreadable item that has
    /// no number for a version is marked only: nobody can have read it.
    Parked {
        /// Write capacity units that it took.
        write_units: f64,
    },
    /// The stored version is another, or there is no item. Nothing was written.
    Conflict {
        /// The item that is stored (`ALL_OLD`); none where there is none.
        current: Option<ProfileItem>,
        /// Write capacity units that it took all the same.
        write_units: f64,
    },
    /// The stored version is another, and the stored item can't be read.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

/// Two profiles that become one, to be written together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeWrite {
    /// The user's profile, with what the other one had.
    pub into: ProfileItem,
    /// The stored version of the user's that it was made from; 0 where none may be stored.
    pub into_expected: u64,
    /// The other one's item: a pointer to the user.
    pub from: ProfileItem,
    /// The stored version of the other one that was merged; 0 where none may be stored.
    pub from_expected: u64,
    /// Names this write among others, so that one whose answer got lost takes effect once however often it is tried.
    pub token: u128,
}

/// What is stored of one side of a merge that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeSide {
    /// Nothing speaks against the version that was expected.
    AsExpected,
    /// Another version: this item (`ALL_OLD`), or none.
    Changed(Option<Box<ProfileItem>>),
    /// Another version, and the stored item can't be read.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

/// What writing a merge gives.
#[derive(Debug)]
pub enum MergeAnswer {
    /// Both were written.
    Written {
        /// Write capacity units that it took: a transaction takes twice those of its writes.
        write_units: f64,
    },
    /// At least one stored version is another. Nothing was written.
    Conflict {
        /// The user's item.
        into: MergeSide,
        /// The other one's.
        from: MergeSide,
        /// Write capacity units that it took all the same.
        write_units: f64,
    },
}

/// Users that one [`ProfileTable::get`] may name: the limit of `BatchGetItem`.
pub const GET_USERS_MAX: usize = 100;

/// The `profiles` table.
pub trait ProfileTable: Send + Sync {
    /// Reads up to [`GET_USERS_MAX`] profiles, strongly consistent. No user may be named twice.
    fn get(&self, users: &[&str]) -> impl Future<Output = Result<GetAnswer, CallError>> + Send;

    /// Writes a profile if the stored version is `expected_version`; 0 means that none may be stored. The item is
    /// replaced, so one without `parked_since` ends the parking.
    fn put(
        &self,
        item: &ProfileItem,
        expected_version: u64,
    ) -> impl Future<Output = Result<PutAnswer, CallError>> + Send;

    /// Writes two items if each has its expected version, or neither. When it was written before and the answer got lost,
    /// it either says so, or gives both items as they were to be.
    fn merge(&self, merge: &MergeWrite) -> impl Future<Output = Result<MergeAnswer, CallError>> + Send;

    /// Marks a user's item as parked, `since` then unless it is already, and raises its version by one. What else is in
    /// it stays, readable or not.
    fn park(
        &self,
        user_id: &str,
        target: ParkTarget,
        since: Timestamp,
    ) -> impl Future<Output = Result<ParkAnswer, CallError>> + Send;
}

/// A record to put on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Decides the shard; 1 to 256 characters.
    pub partition_key: String,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What became of one record of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is on the stream.
    Stored {
        /// Its shard.
        shard_id: String,
        /// Its sequence number, as Kinesis wrote it.
        sequence_number: String,
    },
    /// It is not; trying again may help.
    Failed {
        /// Kinesis' code, such as `ProvisionedThroughputExceededException`.
        code: String,
        /// Kinesis' message.
        message: String,
    },
}

/// Records that one [`RecordStream::put`] may hold: the limit of `PutRecords`.
pub const PUT_RECORDS_MAX: usize = 500;
/// Bytes that one [`RecordStream::put`] may hold, partition keys included: 5 MiB, the limit of `PutRecords`.
pub const PUT_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A Kinesis stream to put records on.
pub trait RecordStream: Send + Sync {
    /// Puts up to [`PUT_RECORDS_MAX`] records of up to [`PUT_BYTES_MAX`] together. Gives one outcome a record, in order.
    fn put(&self, records: &[StreamRecord]) -> impl Future<Output = Result<Vec<PutOutcome>, CallError>> + Send;
}

/// How far the delivery of a decision has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionStatus {
    /// It is recorded; whether it was delivered is not known.
    Pending,
    /// It was delivered.
    Delivered,
    /// The receiver refused it for good.
    Undeliverable,
    /// The user is held out: it is logged, and goes nowhere.
    HeldOut,
}

impl DecisionStatus {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            DecisionStatus::Pending => "pending",
            DecisionStatus::Delivered => "delivered",
            DecisionStatus::Undeliverable => "undeliverable",
            DecisionStatus::HeldOut => "held_out",
        }
    }

    /// The status with this name.
    pub fn from_name(name: &str) -> Option<DecisionStatus> {
        let all = [
            DecisionStatus::Pending,
            DecisionStatus::Delivered,
            DecisionStatus::Undeliverable,
            DecisionStatus::HeldOut,
        ];
        all.into_iter().find(|status| status.name() == name)
    }
}

/// A decision as it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionItem {
    /// The table's partition key.
    pub user_id: String,
    /// The table's sort key: 32 hexadecimal digits.
    pub trigger_id: String,
    /// The rule that fired.
    pub rule: String,
    /// Where it is shown.
    pub slot: String,
    /// What is offered.
    pub offer: String,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// The whole trigger, as it came on the stream (JSON).
    pub trigger: String,
    /// When the table may forget it, in seconds since 1970 (TTL).
    pub expires_at_epoch_s: i64,
}

/// What recording a decision gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordAnswer {
    /// It is new.
    New,
    /// It was there already, with this status.
    Known(DecisionStatus),
}

/// What came of a decision, as it is filed under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeItem {
    /// The table's partition key: the user that the decision names, whoever that is by now.
    pub user_id: String,
    /// The table's sort key: the decision's id.
    pub trigger_id: String,
    /// How many rewards the decision has had so far, this record's included.
    pub rewards_so_far: u32,
    /// The whole outcome, as it came on the stream (JSON).
    pub outcome: String,
    /// When the table may forget it, in seconds since 1970 (TTL), where no decision says when.
    pub expires_at_epoch_s: i64,
}

/// What filing an outcome gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAnswer {
    /// It is filed, in place of one with fewer rewards if there was any.
    Filed,
    /// One with as many rewards or more was there: this one came again, or late.
    Known,
}

/// The `decisions` table.
pub trait DecisionTable: Send + Sync {
    /// Records a decision with a status, unless one with its keys is there.
    fn record(
        &self,
        decision: &DecisionItem,
        status: DecisionStatus,
    ) -> impl Future<Output = Result<RecordAnswer, CallError>> + Send;

    /// Sets the status of a recorded decision.
    fn set_status(
        &self,
        user_id: &str,
        trigger_id: &str,
        status: DecisionStatus,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Files an outcome under its decision, unless one with as many rewards is there. Where the decision is not (it was
    /// about an id that was merged into the user since, or is still to come), the outcome is kept alone; recording the
    /// decision later keeps it.
    fn file_outcome(&self, outcome: &OutcomeItem) -> impl Future<Output = Result<FileAnswer, CallError>> + Send;
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryAnswer {
    /// The receiver took it.
    Accepted,
    /// The receiver will never take it (HTTP 4xx other than 408, 409, 425 and 429).
    RefusedForGood {
        /// The HTTP status.
        status: u16,
    },
}

/// Where decisions go.
pub trait Delivery: Send + Sync {
    /// Whether a delivery is a step of its own whose success must be remembered. Without it, recording is delivering.
    fn needs_receipt(&self) -> bool;

    /// Delivers one decision. It may come again with the same trigger id, which the receiver uses to act once.
    fn deliver(&self, decision: &DecisionItem) -> impl Future<Output = Result<DeliveryAnswer, CallError>> + Send;
}

/// The wall clock: for latency metrics and time budgets only, never for planning (P7).
pub trait WallClock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Where telemetry lines go: the standard output, which Lambda sends to CloudWatch.
pub trait TelemetrySink: Send + Sync {
    /// Takes one line of JSON without its end of line.
    fn line(&self, json: &str);
}
