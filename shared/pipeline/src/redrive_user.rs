//! A parked user's events, from the `rejected` stream into the mended profile.
//!
//! profile-writer *parks* a user whose profile can't be written: it would be over the item limit, or the stored one can't
//! be read. The user's events then go to `rejected`, in order and marked as parked, the item says so (`parked_since`), and
//! every later event of the user follows them there. Once the reason is gone (the item restored, the journey smaller, the
//! newer version deployed), [`redrive_user`] applies them:
//!
//! - in the order in which they were parked, each with its own arrival time and place, so the profile and the ids of the
//!   triggers are those that would have come of it had the user never been parked;
//! - an event that was applied is covered by the profile's guard, as any other; and what the redrive is done with is
//!   remembered there too, by the place on `rejected` (a lane of its own). So one that ends anywhere can be run again and
//!   repeats nothing (P2), and a batch that Lambda delivers again meanwhile doesn't either;
//! - the marker is taken away by the last write, once everything is applied and every trigger is on its stream. Where
//!   nothing was found, or some may be past retention ([`Coverage`]), it stays, and so does the profile (P1). Each
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

mod queue;
#[cfg(test)]
mod tests;

use std::future::Future;

use tokio::time::Instant;
use usher_domain::fold::EventOutcome;
use usher_domain::journey::Journey;
use usher_domain::limits::{OUTBOX_RESEND_AGE_MS_MAX, POINTERS_MAX};
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::SequenceNumber;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_domain::timers::next_due;
use usher_wire::profile_state;

use crate::outbox;
use crate::ports::{
    CallError, PROFILE_STATE_BYTES_MAX, ParkAnswer, ParkTarget, ProfileItem, ProfileTable, PutAnswer, RecordStream,
    StreamRecord, WallClock,
};
use crate::put_records::{PutResult, put_all};
use crate::retry::{Failure, chain, until_answered};
use queue::{Open, Queue};

/// How often a call is tried before the redrive ends.
const ATTEMPTS_MAX: u32 = 8;
/// How often item and parked records are read again because the item was changed meanwhile.
const LOOKS_MAX: u32 = 32;
/// Events that one write applies at most.
const EVENTS_PER_WRITE_MAX: usize = 256;

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
pub trait ParkedRecords {
    /// The user's parked records that were put before this call, oldest first (parents before their child shards), but
    /// for those that an earlier call gave. Records of other users, and those that are not parked, may be left in: they
    /// are skipped.
    ///
    /// It must not miss a record whose put was acknowledged before the call. Kinesis may show one a moment later, so read
    /// each shard until `MillisBehindLatest` is 0 and once more a second after.
    fn read(&mut self) -> impl Future<Output = Result<Vec<ParkedRecord>, CallError>>;

    /// How much of what was ever parked the calls so far could give.
    fn coverage(&self) -> Coverage {
        Coverage::Whole
    }
}

/// How much of what was parked can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coverage {
    /// All of it: nothing is past retention.
    #[default]
    Whole,
    /// What was parked before this time is past retention.
    RetainedFrom(Timestamp),
    /// What is there is taken for all of it, even if it is nothing: somebody permitted that.
    TakenForWhole,
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
    /// profile-writer's parallelisation factor: above 1, its guard counts by partition key. It matters only to a profile whose
    /// guard doesn't tell (a new one), for events of equal times and several partition keys: what was applied is looked for
    /// by either way of counting, and both are advanced.
    pub parallelization_factor: u32,
    /// The permission for what was passed by.
    pub passed_by: PassedBy,
}

/// Where a record was on the interactions stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The ARN of the stream.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// The sequence number, as Kinesis wrote it.
    pub sequence_number: String,
}

/// How a redrive ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Nothing was changed: the user is marked as parked, and none of the user's parked records is there. Events are put
    /// before the mark, so they are on another stream, or past retention. [`Coverage::TakenForWhole`] ends the parking.
    NothingFound {
        /// Since when the user is marked.
        parked_since: Timestamp,
    },
    /// Nothing was changed: what was parked in this span is past retention. [`Coverage::TakenForWhole`] goes on with the
    /// rest.
    PastRetention {
        /// Since when the user is marked.
        parked_since: Timestamp,
        /// The oldest that is retained.
        retained_from: Timestamp,
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
    #[default]
    StillArriving,
}

/// What a redrive did.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Triggers and outcomes put on the stream.
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
    /// The user turned out to be another one, whose profile is to be redriven instead.
    #[error(
        "{user} turned out to be {into}, so there is no profile of {user} to apply events to: redrive {into}, and resend what \
         is still parked for {user} as new records (`usher rejected resend`), which go to {into}"
    )]
    MergedInto {
        /// Whose redrive was asked for.
        user: String,
        /// Who that is by now.
        into: String,
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

/// Applies a user's parked events, and ends the parking once none is left. See the [module](self).
///
/// # Errors
/// When the stored profile can't be read, or a call gives no answer until the deadline. It can be run again then.
pub async fn redrive_user<P, S, C, R>(
    journey: &Journey,
    ports: RedriveUserPorts<'_, P, S, C>,
    parked: &mut R,
    request: RedriveUserRequest<'_>,
    deadline: Instant,
) -> Result<RedriveUserReport, RedriveUserError>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
    R: ParkedRecords,
{
    let mut redrive = Redrive {
        journey,
        ports,
        request,
        deadline,
        queue: Queue::new(request.user, request.parallelization_factor > 1),
        report: RedriveUserReport::default(),
    };
    let mut end = RedriveEnd::StillArriving;
    for look in 0..LOOKS_MAX {
        let item = redrive.read_item().await?;
        // After the item: what is parked later than this raises its version, and the next write conflicts.
        redrive.read_parked(parked).await?;
        redrive.find_ways().await?;
        let mut state = redrive.open(item)?;
        if look == 0 {
            redrive.queue.count_as(&state.profile.guard);
            redrive.report.done_before = redrive.queue.done_by(&state.profile.guard);
        }
        if let Some(ended) = redrive.may_not_begin(&state, parked.coverage()) {
            end = ended;
            break;
        }
        if let Some(ended) = redrive.go_on(&mut state).await? {
            end = ended;
            break;
        }
    }
    redrive.report.records = redrive.queue.len();
    redrive.report.end = end;
    Ok(redrive.report)
}

/// The stored profile as the redrive goes on with it.
struct State {
    profile: Profile,
    parked_since: Option<Timestamp>,
    /// Whether there is an item.
    is_stored: bool,
}

/// A part of the open events, planned.
struct Planned {
    profile: Profile,
    state: Vec<u8>,
    counts: Counts,
    /// What comes next is no event that can be applied.
    stop: Option<RedriveEnd>,
}

#[derive(Default)]
struct Counts {
    /// Records that are done with.
    records: usize,
    applied: u64,
    duplicate: u64,
    ignored: u64,
    skipped: u64,
}

struct Redrive<'r, P, S, C> {
    journey: &'r Journey,
    ports: RedriveUserPorts<'r, P, S, C>,
    request: RedriveUserRequest<'r>,
    deadline: Instant,
    queue: Queue,
    report: RedriveUserReport,
}

impl<P, S, C> Redrive<'_, P, S, C>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
{
    async fn read_item(&self) -> Result<Option<ProfileItem>, RedriveUserError> {
        self.read_item_of(self.request.user).await
    }

    /// Finds how the other keys that parked events name lead to the user.
    async fn find_ways(&mut self) -> Result<(), RedriveUserError> {
        for key in self.queue.foreign_keys() {
            let mut way = vec![key.clone()];
            let found = loop {
                let last = way.last().map_or("", String::as_str);
                let next = self.read_item_of(last).await?.and_then(|item| item.merged_into);
                match next {
                    Some(user) if user == self.request.user => break Some(way),
                    Some(next) if way.len() < POINTERS_MAX => way.push(next),
                    _ => break None,
                }
            };
            self.queue.set_way(key, found);
        }
        Ok(())
    }

    async fn read_item_of(&self, user: &str) -> Result<Option<ProfileItem>, RedriveUserError> {
        let get = async || {
            let answer = self.ports.profiles.get(&[user]).await?;
            if answer.unprocessed.is_empty() {
                return Ok(answer);
            }
            Err(CallError::Retry {
                call: "reading the profile".to_owned(),
                source: "the table left the key unprocessed".into(),
            })
        };
        let answer = until_answered(self.deadline, ATTEMPTS_MAX, get)
            .await
            .map_err(|source| RedriveUserError::Profile { what: "read", source })?;
        if let Some((_, why)) = answer.unreadable.into_iter().next() {
            return Err(self.unreadable(why));
        }
        Ok(answer.items.into_iter().next())
    }

    fn unreadable(&self, why: String) -> RedriveUserError {
        RedriveUserError::UnreadableProfile {
            user: self.request.user.to_owned(),
            why,
        }
    }

    async fn read_parked<R: ParkedRecords>(&mut self, parked: &mut R) -> Result<(), RedriveUserError> {
        let mut attempts = 0;
        loop {
            match parked.read().await {
                Ok(records) => {
                    self.queue.add(records);
                    return Ok(());
                }
                Err(last @ CallError::Refused { .. }) => return Err(RedriveUserError::Parked(Failure::Refused(last))),
                Err(last) => {
                    attempts += 1;
                    if attempts >= ATTEMPTS_MAX || Instant::now() >= self.deadline {
                        return Err(RedriveUserError::Parked(Failure::OutOfAttempts { attempts, last }));
                    }
                }
            }
        }
    }

    /// The profile in the item; a new one where there is none.
    fn open(&self, item: Option<ProfileItem>) -> Result<State, RedriveUserError> {
        let Some(item) = item else {
            return Ok(State {
                profile: Profile::new(self.journey),
                parked_since: None,
                is_stored: false,
            });
        };
        if let Some(into) = item.merged_into {
            return Err(RedriveUserError::MergedInto {
                user: self.request.user.to_owned(),
                into,
            });
        }
        let mut profile = profile_state::decode(&item.state, item.version, self.request.user, self.journey)
            .map_err(|error| self.unreadable(chain(&error)))?;
        // The mark takes it away.
        profile.wake_at = item.next_due_at.or_else(|| next_due(self.journey, &profile));
        // Whoever parked the user had sent the outbox before. What a redrive stored and could not send is from its own
        // events; those are sent whatever their age.
        let now = self.ports.clock.now();
        outbox::retain(&mut profile, |unsent| {
            self.queue.has_caused(unsent.cause()) || now.ms_since(unsent.made_at()) <= OUTBOX_RESEND_AGE_MS_MAX
        });
        Ok(State {
            profile,
            parked_since: item.parked_since,
            is_stored: true,
        })
    }

    /// Whether a marked user's records are not all there. Only the mark tells that there were any.
    fn may_not_begin(&self, state: &State, coverage: Coverage) -> Option<RedriveEnd> {
        let parked_since = state.parked_since?;
        match coverage {
            Coverage::TakenForWhole => None,
            _ if self.queue.len() == 0 => Some(RedriveEnd::NothingFound { parked_since }),
            Coverage::RetainedFrom(retained_from) if parked_since < retained_from => Some(RedriveEnd::PastRetention {
                parked_since,
                retained_from,
            }),
            Coverage::RetainedFrom(_) | Coverage::Whole => None,
        }
    }

    /// Goes on until the end, or until the item turns out to be another than was read: then there is no end yet.
    async fn go_on(&mut self, state: &mut State) -> Result<Option<RedriveEnd>, RedriveUserError> {
        if self.request.passed_by == PassedBy::Ask {
            let records = self.queue.passed_by(&state.profile);
            if !records.is_empty() {
                return Ok(Some(RedriveEnd::PassedBy { records }));
            }
        }
        self.send_outbox(state).await?;
        loop {
            if self.queue.open(&state.profile.guard).next().is_none() {
                return self.finish(state).await;
            }
            if state.parked_since.is_none() {
                // Later events follow the parked ones from here on, and whoever has the profile in memory finds out.
                self.mark(state).await?;
                return Ok(None);
            }
            let planned = match self.plan_what_fits(&state.profile) {
                Ok(planned) => planned,
                Err(end) => return Ok(Some(end)),
            };
            if planned.counts.records > 0 {
                let (counts, mut profile) = (planned.counts, planned.profile);
                if !self.write(&mut profile, planned.state, state.parked_since).await? {
                    return Ok(None);
                }
                state.profile = profile;
                self.report.applied += counts.applied;
                self.report.duplicate += counts.duplicate;
                self.report.ignored += counts.ignored;
                self.report.skipped += counts.skipped;
                self.send_outbox(state).await?;
            }
            if planned.stop.is_some() {
                return Ok(planned.stop);
            }
        }
    }

    /// Ends the parking: everything is applied, and every trigger is on its stream.
    async fn finish(&mut self, state: &mut State) -> Result<Option<RedriveEnd>, RedriveUserError> {
        if state.parked_since.is_some() {
            // Records that were put more than once are done with too.
            self.queue.advance_to_the_end(&mut state.profile.guard);
            let bytes = profile_state::encode(&state.profile, self.journey);
            if !self.write(&mut state.profile, bytes, None).await? {
                return Ok(None);
            }
        }
        Ok(Some(RedriveEnd::Done))
    }

    /// Plans as many of the open events as one write takes.
    fn plan_what_fits(&self, profile: &Profile) -> Result<Planned, RedriveEnd> {
        let mut events_max = EVENTS_PER_WRITE_MAX;
        loop {
            let planned = self.plan(profile.clone(), events_max);
            if planned.state.len() <= PROFILE_STATE_BYTES_MAX {
                return Ok(planned);
            }
            if planned.counts.records <= 1 {
                let at = self
                    .queue
                    .open(&profile.guard)
                    .next()
                    .map(Open::place)
                    .unwrap_or_default();
                return Err(RedriveEnd::DoesNotFit {
                    at,
                    state_bytes: planned.state.len(),
                });
            }
            events_max = planned.counts.records / 2;
        }
    }

    /// Plans up to `events_max` of the open events, one after the other: what one does decides how the next is seen.
    fn plan(&self, mut profile: Profile, events_max: usize) -> Planned {
        let mut counts = Counts::default();
        let mut stop = None;
        let guard = profile.guard.clone();
        for open in self.queue.open(&guard) {
            if counts.records >= events_max {
                break;
            }
            let decoded = match open.decode() {
                Ok(decoded) => decoded,
                Err(why) => {
                    stop = Some(RedriveEnd::Unusable { at: open.place(), why });
                    break;
                }
            };
            let mut arrived = match decoded.event() {
                Ok(arrived) => arrived,
                Err(why) => {
                    stop = Some(RedriveEnd::Unusable { at: open.place(), why });
                    break;
                }
            };
            if open.is_passed_by(&profile, &arrived) {
                match self.request.passed_by {
                    PassedBy::Ask => {
                        stop = Some(RedriveEnd::PassedBy {
                            records: vec![open.place()],
                        });
                        break;
                    }
                    PassedBy::Skip => {
                        counts.records += 1;
                        counts.skipped += 1;
                        open.advance(&mut profile.guard);
                        continue;
                    }
                    PassedBy::Apply => {
                        arrived.shard = open.lane();
                        arrived.position = open.position();
                    }
                }
            }
            let plan = plan_user(self.journey, Snapshots::none(), profile, [&arrived]);
            profile = plan.profile;
            match plan.outcomes.first() {
                // The outbox is full: it is sent first.
                None => break,
                Some(EventOutcome::Applied) => counts.applied += 1,
                Some(EventOutcome::Duplicate | EventOutcome::Redelivered) => counts.duplicate += 1,
                Some(EventOutcome::Ignored | EventOutcome::Woken) => counts.ignored += 1,
            }
            counts.records += 1;
            open.advance(&mut profile.guard);
        }
        Planned {
            state: profile_state::encode(&profile, self.journey),
            profile,
            counts,
            stop,
        }
    }

    /// Puts what the outbox holds on the stream, and takes it out, in memory: the next write takes it out of the store.
    async fn send_outbox(&mut self, state: &mut State) -> Result<(), RedriveUserError> {
        let records: Vec<StreamRecord> = outbox::unsent(&state.profile).map(|unsent| unsent.record()).collect();
        if records.is_empty() {
            return Ok(());
        }
        let (mut count, mut last) = (0, String::new());
        for result in put_all(self.ports.triggers, &records, self.deadline).await {
            match result {
                PutResult::Stored { .. } => self.report.triggers += 1,
                PutResult::Failed { why } => {
                    count += 1;
                    last = why;
                }
            }
        }
        if count > 0 {
            return Err(RedriveUserError::Triggers { count, why: last });
        }
        outbox::clear(&mut state.profile);
        Ok(())
    }

    /// Marks the user as parked, where the item was restored without the mark or is gone.
    async fn mark(&mut self, state: &State) -> Result<(), RedriveUserError> {
        let since = self.ports.clock.now();
        let failed = |source| RedriveUserError::Profile {
            what: "marked as parked",
            source,
        };
        if !state.is_stored {
            let mut profile = Profile::new(self.journey);
            let bytes = profile_state::encode(&profile, self.journey);
            self.write(&mut profile, bytes, Some(since)).await?;
            return Ok(());
        }
        let target = ParkTarget::Version(state.profile.version);
        let park = || self.ports.profiles.park(self.request.user, target, since);
        match until_answered(self.deadline, ATTEMPTS_MAX, park)
            .await
            .map_err(failed)?
        {
            ParkAnswer::Parked { write_units } => {
                self.report.writes += 1;
                self.report.write_units += write_units;
            }
            ParkAnswer::Conflict { write_units, .. } => {
                self.report.conflicts += 1;
                self.report.write_units += write_units;
            }
            ParkAnswer::Unreadable { why } => return Err(self.unreadable(why)),
        }
        Ok(())
    }

    /// Writes the profile; false where the stored item is another than was read.
    async fn write(
        &mut self,
        profile: &mut Profile,
        state: Vec<u8>,
        parked_since: Option<Timestamp>,
    ) -> Result<bool, RedriveUserError> {
        let item = ProfileItem {
            user_id: self.request.user.to_owned(),
            version: profile.version + 1,
            state,
            updated_at: profile.now,
            parked_since,
            // Who is still parked is not woken.
            next_due_at: profile.wake_at.filter(|_| parked_since.is_none()),
            merged_into: None,
        };
        let put = || self.ports.profiles.put(&item, profile.version);
        let answer = until_answered(self.deadline, ATTEMPTS_MAX, put)
            .await
            .map_err(|source| RedriveUserError::Profile {
                what: "written",
                source,
            })?;
        match answer {
            PutAnswer::Written { write_units } => {
                self.report.write_units += write_units;
            }
            PutAnswer::Conflict { current, write_units } => {
                self.report.write_units += write_units;
                // Unless an earlier attempt was written and its answer lost.
                if current.as_ref() != Some(&item) {
                    self.report.conflicts += 1;
                    return Ok(false);
                }
            }
            PutAnswer::Unreadable { why } => return Err(self.unreadable(why)),
        }
        self.report.writes += 1;
        profile.version = item.version;
        Ok(true)
    }
}
