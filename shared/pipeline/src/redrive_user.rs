//! A parked user's events, from the `rejected` stream into the mended profile.
//!
//! profile-writer *parks* a user whose profile can't be written: it would be over the item limit, or the stored one can't
//! be read. The user's events then go to `rejected`, in order and marked as parked, the item says so (`parked_since`), and
//! every later event of the user follows them there. Once the reason is gone (the item restored, the journey smaller, the
//! newer version deployed), [`redrive_user`] applies them:
//!
//! - in the order in which they were parked, each with its own arrival time and place, so the profile and the ids of the
//!   triggers are those that would have come of it had the user never been parked;
//! - what it is done with is remembered in the profile's guard, by the place on `rejected` (a lane of its own), so a
//!   redrive that ends anywhere can be run again and repeats nothing (P2);
//! - the marker is taken away by the last write, once everything is applied and every trigger is on its stream. Each
//!   batch that parks more events of the user bumps the item's version after it put them, so that a write conflicts, and
//!   the parked records are read again.
//!
//! What the caller brings is the parked records: a [`ParkedRecords`] over the `rejected` stream.
//!
//! ```text
//! let mut parked = ParkedOfUser::new(kinesis, "rejected", user);      // implements ParkedRecords
//! let ports = RedriveUserPorts { profiles: &profiles, triggers: &triggers, clock: &SystemClock };
//! let request = RedriveUserRequest { user, parallelization_factor: 1, passed_by: PassedBy::Ask };
//! let report = redrive_user(&journey, ports, &mut parked, request, deadline).await?;
//! match report.end { RedriveEnd::Done => …, RedriveEnd::DoesNotFit { .. } => …, … }
//! ```

use std::future::Future;

use usher_domain::sequence_number::SequenceNumber;

use crate::ports::CallError;
use crate::retry::Failure;

/// A record of the `rejected` stream, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedRecord {
    /// The shard of `rejected` that it is on.
    pub shard_id: String,
    /// Its sequence number on `rejected`.
    pub sequence_number: SequenceNumber,
    /// Its bytes: a `usher_wire::reject::RejectedRecord` with `parked: true` and this user.
    pub data: Vec<u8>,
}

/// Reads one user's parked records.
pub trait ParkedRecords: Send {
    /// The user's parked records that were put before this call, oldest first (parents before their child shards), but
    /// for those that an earlier call gave. Records of other users, and those that are not parked, may be left in: they
    /// are skipped.
    ///
    /// It must not miss a record whose put was acknowledged before the call. Kinesis may show one a moment later, so read
    /// each shard until `MillisBehindLatest` is 0 and once more a second after.
    fn read(&mut self) -> impl Future<Output = Result<Vec<ParkedRecord>, CallError>> + Send;
}

/// What it needs from the outside.
#[derive(Debug)]
pub struct RedriveUserPorts<'p, P, S, C> {
    /// The `profiles` table.
    pub profiles: &'p P,
    /// The `triggers` stream.
    pub triggers: &'p S,
    /// The wall clock, for the marker.
    pub clock: &'p C,
}

/// What to do with a parked event whose place in its shard the profile is past, although it doesn't remember the event's
/// id. Either later events of the user were applied first (the item was restored without its marker), or the event itself
/// was, so long ago that its id was forgotten (it was put on `rejected` by a batch that applied it when it came again).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassedBy {
    /// Change nothing, and tell which those are.
    #[default]
    Ask,
    /// Apply them now: out of order, and twice where they were applied.
    Apply,
    /// Leave them out, for good.
    Skip,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedriveUserRequest<'r> {
    /// The user, as on the parked records.
    pub user: &'r str,
    /// profile-writer's parallelisation factor: above 1, its guard counts by partition key.
    pub parallelization_factor: u32,
    /// The permission for what was passed by.
    pub passed_by: PassedBy,
}

/// Where a record was on the interactions stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The ARN of the stream.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// The sequence number, as Kinesis wrote it.
    pub sequence_number: String,
}

/// How a redrive ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedriveEnd {
    /// Nothing is left, and the user is not parked (any more).
    Done,
    /// With this event the profile is still over the limit. The user stays parked; what comes before it is applied.
    DoesNotFit {
        /// Which.
        at: Place,
        /// Bytes that the profile would have.
        state_bytes: usize,
    },
    /// Nothing was changed: these were passed by, and [`PassedBy::Ask`] was asked.
    PassedBy {
        /// Which.
        records: Vec<Place>,
    },
    /// This record can't be applied: its bytes were cut, or are no event. The user stays parked; what comes before it is
    /// applied. A caller that leaves the record out of what it gives goes on without it.
    Unusable {
        /// Which.
        at: Place,
        /// What is wrong with it.
        why: String,
    },
    /// The user's profile was changed whenever it was to be written. Run it again: what was applied stays so.
    StillArriving,
}

/// What a redrive did.
#[derive(Clone, Debug, PartialEq)]
pub struct RedriveUserReport {
    /// Different parked records of the user that were read, whether open or done with.
    pub records: u64,
    /// Of these, those that an earlier redrive was done with.
    pub done_before: u64,
    /// Events that were applied now.
    pub applied: u64,
    /// Events whose id the profile knew.
    pub duplicate: u64,
    /// Events that the journey ignores by now.
    pub ignored: u64,
    /// Events that were left out ([`PassedBy::Skip`]).
    pub skipped: u64,
    /// Triggers put on the stream.
    pub triggers: u64,
    /// Writes of the profile.
    pub writes: u64,
    /// Writes that found the profile changed.
    pub conflicts: u64,
    /// Write capacity units.
    pub write_units: f64,
    /// How it ended.
    pub end: RedriveEnd,
}

/// Why a redrive could not go on. What was applied stays so, and it can be run again.
#[derive(Debug, thiserror::Error)]
pub enum RedriveUserError {
    /// The stored item is no profile that this version can read.
    #[error(
        "the profile of {user} can't be read ({why}): restore the item from a backup, or delete it to begin anew; where it \
         has a newer layout, run the version of Usher that wrote it"
    )]
    UnreadableProfile {
        /// Whose.
        user: String,
        /// What is wrong with it.
        why: String,
    },
    /// The `profiles` table gave no answer.
    #[error("the profile could not be {what}")]
    Profile {
        /// `read`, `marked as parked` or `written`.
        what: &'static str,
        /// Why.
        #[source]
        source: Failure,
    },
    /// The parked records could not be read.
    #[error("the parked records could not be read")]
    Parked(#[source] Failure),
    /// Triggers could not be put. They are stored with the profile, and the next run sends them.
    #[error("{count} triggers could not be put on their stream ({why}): run it again to send them")]
    Triggers {
        /// How many.
        count: usize,
        /// The last reason.
        why: String,
    },
}
