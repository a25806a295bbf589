//! Reading, planning and writing one user (P4).

use std::collections::HashMap;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::batch::{UserEvents, UserGroups};
use usher_domain::fold::EventOutcome;
use usher_domain::limits::OUTBOX_RESEND_AGE_MS_MAX;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::rules::RuleCounts;
use usher_domain::time::Timestamp;
use usher_domain::trigger::Trigger;
use usher_wire::profile_state;

use super::ProfileWriter;
use super::parking::Parking;
use super::tally::Tally;
use crate::ports::{
    CallError, GET_USERS_MAX, PROFILE_STATE_BYTES_MAX, ParkTarget, ProfileItem, ProfileTable, PutAnswer, RecordStream,
    TelemetrySink, WallClock,
};
use crate::put_records::PutResult;
use crate::retry::{Backoff, chain, until_answered};

/// Batched reads at the same time.
const READ_CONCURRENCY: usize = 8;
/// How often a read is tried without any progress before its users are left to the next delivery.
const READ_ATTEMPTS_MAX: u32 = 8;
/// How often a write is tried before the user's events are left to the next delivery.
pub(super) const WRITE_ATTEMPTS_MAX: u32 = 8;
/// How often a user of a batch is planned again because another container wrote in between.
pub(super) const CONFLICTS_MAX: u64 = 8;
/// A user's events of a batch and the profile that they go to.
#[derive(Debug)]
pub(super) struct UserWork<'g> {
    pub events: UserEvents<'g>,
    /// The profile, as it is stored but for its outbox; none while another part of the flow has it, and after a write
    /// of which it is not known whether it took effect.
    pub profile: Option<Profile>,
    /// Bytes of the stored profile, as far as it is known.
    pub state_bytes: usize,
    /// Events that were planned and stored.
    pub done: usize,
    /// How often another container wrote in between.
    conflicts: u64,
    /// Why the stored profile can't be used, or could not be read.
    blocked: Option<UserFailure>,
}

/// What it took to write a user once.
#[derive(Debug, Default)]
pub(super) struct UserWrite {
    /// What became of the events from `from` on.
    pub outcomes: Vec<EventOutcome>,
    /// The first event that this write settled.
    pub from: usize,
    /// When it was written.
    pub written_at: Timestamp,
    /// Triggers that were too old to be sent again.
    pub triggers_expired: u64,
    /// What became of the rules.
    pub rules: RuleCounts,
    pub writes: u64,
    pub conflicts: u64,
    pub write_units: f64,
}

/// Why a user's events can't be settled.
#[derive(Debug)]
pub(super) enum UserFailure {
    /// The table doesn't answer or refuses: deliver them again.
    Unavailable(String),
    /// The profile can't be written: they wait on `rejected` until it is mended.
    Parked(Box<Parking>),
}

impl UserWork<'_> {
    /// The index of the user's first event of the batch.
    pub fn first_event(&self) -> usize {
        self.events.indices().first().copied().unwrap_or(0)
    }

    /// The index of the first event that is not settled yet: what comes before it was stored by an earlier write.
    pub fn first_open_event(&self) -> usize {
        self.events
            .indices()
            .get(self.done)
            .copied()
            .unwrap_or_else(|| self.first_event())
    }

    /// Whether a trigger was caused by a record of this batch, now or when the batch was delivered before. The others
    /// come from an outbox that was stored long ago.
    pub fn has_caused(&self, trigger: &Trigger) -> bool {
        self.events.events().next().is_some_and(|first| {
            first.shard.id == trigger.cause.shard_id && first.position.sequence_number <= trigger.cause.sequence_number
        })
    }

    /// Takes out what is too old to be sent again; gives how many those were.
    ///
    /// The age is that at the user's first arrival in the batch, not at its last: where the triggers of a record could
    /// not be sent, the batch comes again from that record or an earlier one, so they are never too old then, however
    /// long a time a batch spans (with the clock of the data, that may be months).
    fn expire_triggers(&self, profile: &mut Profile) -> u64 {
        let held = profile.outbox.len();
        if held == 0 {
            return 0;
        }
        if let Some(first) = self.events.events().map(|arrived| arrived.arrived_at).min() {
            let outbox = &mut profile.outbox;
            outbox.retain(|trigger| first.ms_since(trigger.decided_at) <= OUTBOX_RESEND_AGE_MS_MAX);
        }
        (held - profile.outbox.len()) as u64
    }

    /// Another container wrote in between. That is planned on a bounded number of times.
    fn note_conflict(&mut self) -> Result<(), UserFailure> {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            let why = format!("others changed the profile {} times meanwhile", self.conflicts);
            return Err(UserFailure::Unavailable(why));
        }
        Ok(())
    }

    /// Whether every event of the user is planned and stored.
    pub fn is_done(&self) -> bool {
        self.done >= self.events.indices().len()
    }

    /// The triggers that are stored and may not have been put on the stream.
    pub fn outbox(&self) -> impl Iterator<Item = &Trigger> + Clone {
        self.profile.iter().flat_map(|profile| &profile.outbox)
    }

    /// Takes the results of putting the outbox; gives the last reason why something of it was not put.
    pub fn settle_outbox(&mut self, results: &mut impl Iterator<Item = PutResult>) -> Option<String> {
        let mut unsent = None;
        if let Some(profile) = &mut self.profile {
            profile.outbox.retain(|_| match results.next() {
                Some(PutResult::Stored { .. }) => false,
                Some(PutResult::Failed { why }) => {
                    unsent = Some(why);
                    true
                }
                None => true,
            });
        }
        unsent
    }
}

/// A profile and the bytes that it takes in the table.
struct Loaded {
    profile: Profile,
    state_bytes: usize,
}

/// What reading a user's profile gave.
enum Read {
    Stored(ProfileItem),
    Unreadable(String),
    Failed(String),
}

impl<P, S, C, T> ProfileWriter<P, S, C, T>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
    T: TelemetrySink,
{
    /// The users of a batch with their profiles: cached, read, or new.
    pub(super) async fn load<'g>(
        &self,
        groups: &'g UserGroups<'_>,
        deadline: Instant,
        tally: &mut Tally,
    ) -> Vec<UserWork<'g>> {
        let mut users: Vec<UserWork<'g>> = groups
            .iter()
            .map(|events| {
                let (profile, state_bytes) = self.cache.take(events.user()).unzip();
                UserWork {
                    events,
                    profile,
                    state_bytes: state_bytes.unwrap_or(0),
                    done: 0,
                    conflicts: 0,
                    blocked: None,
                }
            })
            .collect();
        let unknown: Vec<&str> = users
            .iter()
            .filter(|user| user.profile.is_none())
            .map(|user| user.events.user())
            .collect();
        if unknown.is_empty() {
            return users;
        }
        tally.telemetry.profile_reads = unknown.len() as u64;
        let mut reads = self.read(&unknown, deadline).await;
        for user in users.iter_mut().filter(|user| user.profile.is_none()) {
            match self.loaded(reads.remove(user.events.user())) {
                Ok(loaded) => {
                    user.profile = Some(loaded.profile);
                    user.state_bytes = loaded.state_bytes;
                }
                Err(failure) => user.blocked = Some(failure),
            }
        }
        users
    }

    /// The profile that a read gave. A user who is not in the answer is new.
    fn loaded(&self, read: Option<Read>) -> Result<Loaded, UserFailure> {
        match read {
            None => Ok(self.new_profile()),
            Some(Read::Stored(item)) => self.decode(&item),
            Some(Read::Unreadable(why)) => Err(Parking::unreadable(ParkTarget::Unreadable, why).into()),
            Some(Read::Failed(why)) => Err(UserFailure::Unavailable(why)),
        }
    }

    fn new_profile(&self) -> Loaded {
        Loaded {
            profile: Profile::new(&self.journey),
            state_bytes: 0,
        }
    }

    /// The profile in an item, unless the user is parked or becomes so because it can't be read.
    fn decode(&self, item: &ProfileItem) -> Result<Loaded, UserFailure> {
        let mut profile = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey)
            .map_err(|error| Parking::unreadable(ParkTarget::Version(item.version), chain(&error)))?;
        profile.wake_at = item.next_due_at;
        if let Some(since) = item.parked_since {
            return Err(Parking::following(profile, since).into());
        }
        Ok(Loaded {
            profile,
            state_bytes: item.state.len(),
        })
    }

    /// Reads users' profiles; one that is not in the answer is not stored.
    async fn read(&self, users: &[&str], deadline: Instant) -> HashMap<String, Read> {
        let chunks = users
            .chunks(GET_USERS_MAX)
            .map(|chunk| self.read_chunk(chunk, deadline));
        let answers: Vec<_> = futures::stream::iter(chunks)
            .buffer_unordered(READ_CONCURRENCY)
            .collect()
            .await;
        answers.into_iter().flatten().collect()
    }

    async fn read_chunk(&self, users: &[&str], deadline: Instant) -> Vec<(String, Read)> {
        let mut reads = Vec::with_capacity(users.len());
        let mut open: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let mut backoff = Backoff::default();
        let why = loop {
            let keys: Vec<&str> = open.iter().map(String::as_str).collect();
            let why = match tokio::time::timeout_at(deadline, self.ports.profiles.get(&keys)).await {
                Ok(Ok(answer)) => {
                    if answer.unprocessed.len() < open.len() {
                        backoff = Backoff::default();
                    }
                    reads.extend(
                        answer
                            .items
                            .into_iter()
                            .map(|item| (item.user_id.clone(), Read::Stored(item))),
                    );
                    reads.extend(
                        answer
                            .unreadable
                            .into_iter()
                            .map(|(user, why)| (user, Read::Unreadable(why))),
                    );
                    open = answer.unprocessed;
                    "the table left keys unprocessed".to_owned()
                }
                Ok(Err(error @ CallError::Retry { .. })) => chain(&error),
                Ok(Err(error @ CallError::Refused { .. })) => break chain(&error),
                Err(_) => break "no time was left to read the profile".to_owned(),
            };
            let gives_up = backoff.attempts() + 1 >= READ_ATTEMPTS_MAX;
            if open.is_empty() || gives_up || !backoff.pause(deadline).await {
                break why;
            }
        };
        reads.extend(open.into_iter().map(|user| (user, Read::Failed(why.clone()))));
        reads
    }

    /// Plans a user's open events and writes the profile once. The one backward edge is a version conflict: the item
    /// that came back is planned on, a bounded number of times (P4).
    pub(super) async fn write_user<'g>(
        &self,
        mut user: UserWork<'g>,
        deadline: Instant,
    ) -> (UserWork<'g>, UserWrite, Result<(), UserFailure>) {
        let mut write = UserWrite {
            from: user.done,
            ..UserWrite::default()
        };
        let result = match user.blocked.take() {
            Some(failure) => Err(failure),
            None => self.plan_and_write(&mut user, &mut write, deadline).await,
        };
        (user, write, result)
    }

    async fn plan_and_write(
        &self,
        user: &mut UserWork<'_>,
        write: &mut UserWrite,
        deadline: Instant,
    ) -> Result<(), UserFailure> {
        // From here on the profile is the user's again only when it is known to be what is stored.
        let mut profile = user.profile.take().unwrap_or_else(|| Profile::new(&self.journey));
        let mut room = Room::default();
        loop {
            write.triggers_expired += user.expire_triggers(&mut profile);
            if !profile.outbox.is_empty() {
                // What is stored unsent goes first, and this user's events in the next round: so the next write empties
                // the stored outbox, and what can't be sent takes no room from what is to be planned.
                user.profile = Some(profile);
                return Ok(());
            }
            let events = user.events.events().skip(user.done).take(room.events_max);
            let plan = plan_user(&self.journey, profile, events);
            let mut planned = plan.profile;
            if plan.changed {
                let expected = planned.version;
                let item = ProfileItem {
                    user_id: user.events.user().to_owned(),
                    version: expected + 1,
                    state: profile_state::encode(&planned, &self.journey),
                    updated_at: planned.now,
                    parked_since: None,
                    next_due_at: planned.wake_at,
                    merged_into: None,
                };
                if item.state.len() > PROFILE_STATE_BYTES_MAX {
                    let mut stored = match room.stored.take() {
                        Some(stored) => stored,
                        // The plan has used it up, and it is too large to keep a copy of each just in case.
                        None => self.read_again(user, deadline).await?,
                    };
                    if stored.version != expected {
                        user.note_conflict()?;
                        profile = stored;
                        room = Room::default();
                        continue;
                    }
                    // What the outbox of this version holds was sent before anything was planned.
                    stored.outbox.clear();
                    if plan.outcomes.len() == 1 {
                        return Err(Parking::too_large(stored, item.state.len()).into());
                    }
                    // Fewer events may fit. The others are planned in the next round, and those that don't are parked.
                    room.events_max = (plan.outcomes.len() / 2).max(1);
                    profile = stored.clone();
                    room.stored = Some(stored);
                    continue;
                }
                match self.put(&item, expected, deadline, write).await? {
                    Put::Written => {
                        planned.version = item.version;
                        user.state_bytes = item.state.len();
                        write.written_at = self.ports.clock.now();
                    }
                    Put::Conflict(current) => {
                        user.note_conflict()?;
                        let current = current.map_or_else(|| Ok(self.new_profile()), |item| self.decode(&item))?;
                        profile = current.profile;
                        user.state_bytes = current.state_bytes;
                        room = Room::default();
                        continue;
                    }
                }
            }
            user.done += plan.outcomes.len();
            user.profile = Some(planned);
            write.outcomes = plan.outcomes;
            write.rules = plan.rules;
            return Ok(());
        }
    }

    /// The user's profile, as it is stored now.
    async fn read_again(&self, user: &mut UserWork<'_>, deadline: Instant) -> Result<Profile, UserFailure> {
        let name = user.events.user();
        let loaded = self.loaded(self.read(&[name], deadline).await.remove(name))?;
        user.state_bytes = loaded.state_bytes;
        Ok(loaded.profile)
    }

    async fn put(
        &self,
        item: &ProfileItem,
        expected: u64,
        deadline: Instant,
        write: &mut UserWrite,
    ) -> Result<Put, UserFailure> {
        let put = || self.ports.profiles.put(item, expected);
        match until_answered(deadline, WRITE_ATTEMPTS_MAX, put).await {
            Ok(PutAnswer::Written { write_units }) => {
                write.writes += 1;
                write.write_units += write_units;
                Ok(Put::Written)
            }
            Ok(PutAnswer::Conflict { current, write_units }) => {
                write.write_units += write_units;
                // An earlier attempt was written and its answer lost.
                if current.as_ref() == Some(item) {
                    write.writes += 1;
                    return Ok(Put::Written);
                }
                write.conflicts += 1;
                Ok(Put::Conflict(current))
            }
            Ok(PutAnswer::Unreadable { why }) => Err(Parking::unreadable(ParkTarget::Unreadable, why).into()),
            Err(failure) => Err(UserFailure::Unavailable(chain(&failure))),
        }
    }
}

/// How many events one write may apply: all, unless the profile would be too large with them.
struct Room {
    events_max: usize,
    /// The stored profile, once it was read again.
    stored: Option<Profile>,
}

impl Default for Room {
    fn default() -> Room {
        Room {
            events_max: usize::MAX,
            stored: None,
        }
    }
}

/// What a conditional write came to.
enum Put {
    Written,
    Conflict(Option<ProfileItem>),
}
