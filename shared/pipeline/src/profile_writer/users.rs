//! Reading, planning and writing one user (P4).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::batch::{UserEvents, UserGroups};
use usher_domain::event::TIMER_EVENT;
use usher_domain::fold::EventOutcome;
use usher_domain::limits::{OUTBOX_RESEND_AGE_MS_MAX, POINTERS_MAX};
use usher_domain::merge::{merge_nobody, merge_profiles, remember_alias};
use usher_domain::plan::Stopped;
use usher_domain::profile::Profile;
use usher_domain::rules::RuleCounts;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_wire::profile_state;

use super::ProfileWriter;
use super::parking::Parking;
use super::tally::Tally;
use super::work_events::WorkEvents;
use crate::outbox::{self, Unsent};
use crate::ports::{
    CallError, GET_USERS_MAX, MergeAnswer, MergeSide, MergeWrite, PROFILE_STATE_BYTES_MAX, ParkTarget, ProfileItem,
    ProfileTable, PutAnswer, RecordStream, TelemetrySink, WallClock,
};
use crate::profile_cache::Remembered;
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
    pub events: WorkEvents<'g>,
    /// The profile, as it is stored but for its outbox; none while another part of the flow has it, and after a write
    /// of which it is not known whether it took effect.
    pub profile: Option<Profile>,
    /// Bytes of the stored profile, as far as it is known.
    pub state_bytes: usize,
    /// Events that were planned and stored.
    pub done: usize,
    /// Only events before this index in the batch are planned in this round.
    pub bound: usize,
    /// Another profile that the next event names as the same user's.
    pub meeting: Meeting,
    /// Whether the profile has to be looked up.
    pub is_unread: bool,
    /// Why the stored profile can't be used, or could not be read.
    pub blocked: Option<UserFailure>,
    /// Pointers that were followed to the profile.
    pub pointers: usize,
    /// How many other profiles were looked at for it in this batch.
    pub meetings: usize,
    /// How often another container wrote in between.
    conflicts: u64,
    /// What the container remembers of a user who is woken: as good as the stored profile if that has not changed since, and
    /// what its outbox held was sent.
    remembered: Option<Box<Profile>>,
}

/// What is to be done about another profile that is the same user's.
#[derive(Debug, Default)]
pub(super) enum Meeting {
    /// Nothing.
    #[default]
    None,
    /// It is to be looked up: this is its key.
    Wanted(String),
    /// It becomes part of the user's with the next write.
    Ready(Box<Other>),
    /// It is the user's already, or another's: its key is only to be remembered.
    Known(String),
}

/// Another profile that is the same user's, as it is stored but for its outbox.
#[derive(Debug)]
pub(super) struct Other {
    pub key: String,
    /// None where none is stored.
    pub profile: Option<Profile>,
}

impl Meeting {
    /// The key of the other profile.
    fn key(&self) -> Option<&str> {
        match self {
            Meeting::None => None,
            Meeting::Wanted(key) | Meeting::Known(key) => Some(key),
            Meeting::Ready(other) => Some(&other.key),
        }
    }

    /// The other profile, where it is to be merged.
    fn other(&self) -> Option<&Profile> {
        match self {
            Meeting::Ready(other) => other.profile.as_ref(),
            Meeting::None | Meeting::Wanted(_) | Meeting::Known(_) => None,
        }
    }

    fn other_mut(&mut self) -> Option<&mut Profile> {
        match self {
            Meeting::Ready(other) => other.profile.as_mut(),
            Meeting::None | Meeting::Wanted(_) | Meeting::Known(_) => None,
        }
    }
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
    /// Triggers and outcomes that were too old to be sent again.
    pub triggers_expired: u64,
    /// What became of the rules.
    pub rules: RuleCounts,
    pub writes: u64,
    pub conflicts: u64,
    pub write_units: f64,
    /// The key whose profile became part of the user's, or that never had one: it is a pointer now.
    pub merged: Option<String>,
    /// The key whose profile was to be merged, and is another by now than the batch has.
    pub outdated: Option<String>,
    /// Whether there was a profile to merge.
    pub merges: u64,
    /// Events that were to merge another profile and left it alone, because it could not be.
    pub merges_deferred: u64,
}

/// Why a user's events can't be settled.
#[derive(Debug)]
pub(super) enum UserFailure {
    /// The table doesn't answer or refuses: deliver them again.
    Unavailable(String),
    /// The profile can't be written: they wait on `rejected` until it is mended.
    Parked(Box<Parking>),
    /// The user turned out to be this one: the events go there.
    Moved(String),
}

impl<'g> UserWork<'g> {
    /// The events of one key, whose profile has to be looked up.
    pub fn of(events: UserEvents<'g>, snapshots: &Arc<Snapshots>) -> UserWork<'g> {
        UserWork {
            events: WorkEvents::of(events, snapshots),
            profile: None,
            state_bytes: 0,
            done: 0,
            bound: usize::MAX,
            meeting: Meeting::None,
            is_unread: true,
            blocked: None,
            pointers: 0,
            meetings: 0,
            conflicts: 0,
            remembered: None,
        }
    }

    /// The index of the user's first event of the batch.
    pub fn first_event(&self) -> usize {
        self.events.first().map_or(0, |(index, _)| index)
    }

    /// Whether a timer event is among the events.
    fn is_woken(&self) -> bool {
        (0..self.events.len())
            .filter_map(|position| self.events.arrived(position))
            .any(|arrived| arrived.event.event_type == TIMER_EVENT)
    }

    /// The index of the next event that is to be planned; beyond all where none is.
    pub fn next_event(&self) -> usize {
        self.events.index(self.done).unwrap_or(usize::MAX)
    }

    /// Another container changed the profile: it is looked up again.
    pub fn forget_profile(&mut self) {
        self.profile = None;
        self.state_bytes = 0;
        self.meeting = Meeting::None;
        self.is_unread = true;
    }

    /// The events go to the profile of `to`, to which this one points.
    pub fn follow(&mut self, to: &str) {
        self.events.follow(to);
        self.remembered = None;
        self.forget_profile();
        self.pointers += 1;
        if self.pointers > POINTERS_MAX {
            let why = format!(
                "over {POINTERS_MAX} pointers lead from one user to the next, or they go round: mend the item's merged_into"
            );
            self.blocked = Some(Parking::astray(why).into());
            self.is_unread = false;
        }
    }

    /// Takes in the events of another key that go to the same profile.
    pub fn join(&mut self, other: UserWork<'g>) {
        self.done = self.events.join(self.done, other.events, other.done);
        // Whichever has looked the profile up.
        if self.is_unread && !other.is_unread {
            self.profile = other.profile;
            self.state_bytes = other.state_bytes;
            self.blocked = other.blocked;
            self.is_unread = false;
        }
        self.meetings += other.meetings;
        self.conflicts = self.conflicts.max(other.conflicts);
        self.pointers = self.pointers.max(other.pointers);
    }

    /// Another container changed the other profile: it is looked up again. Gives its key.
    fn want_meeting_again(&mut self) -> Option<String> {
        let key = std::mem::take(&mut self.meeting).key()?.to_owned();
        self.meeting = Meeting::Wanted(key.clone());
        Some(key)
    }

    /// The next event, and later ones that name the same profile, are planned as if they did not: a later batch tries
    /// again.
    pub fn defer_meeting(&mut self) {
        if let Some(key) = std::mem::take(&mut self.meeting).key() {
            self.events.leave_alias(self.done, key);
        }
    }

    /// The index of the first event that is not settled yet: what comes before it was stored by an earlier write.
    pub fn first_open_event(&self) -> usize {
        self.events.index(self.done).unwrap_or_else(|| self.first_event())
    }

    /// Whether a trigger or an outcome was caused by a record of this batch, now or when the batch was delivered before. The others
    /// come from an outbox that was stored long ago.
    pub fn has_caused(&self, unsent: Unsent<'_>) -> bool {
        let cause = unsent.cause();
        self.events.first().is_some_and(|(_, first)| {
            first.shard.id == cause.shard_id && first.position.sequence_number <= cause.sequence_number
        })
    }

    /// Takes out what is too old to be sent again; gives how many those were.
    ///
    /// The age is that at the user's first arrival in the batch, not at its last: where the triggers of a record could
    /// not be sent, the batch comes again from that record or an earlier one, so they are never too old then, however
    /// long a time a batch spans (with the clock of the data, that may be months).
    fn expire_triggers(&mut self, profile: &mut Profile) -> u64 {
        let mut expired = 0;
        let others = self.meeting.other_mut();
        for profile in [Some(profile), others].into_iter().flatten() {
            if !outbox::is_empty(profile)
                && let Some(first) = self.events.earliest_arrival()
            {
                expired += outbox::retain(profile, |unsent| {
                    first.ms_since(unsent.made_at()) <= OUTBOX_RESEND_AGE_MS_MAX
                });
            }
        }
        expired as u64
    }

    /// What another profile holds that is about to become part of the user's: it is sent before.
    fn others_outbox(&self) -> impl Iterator<Item = Unsent<'_>> + Clone {
        self.meeting.other().into_iter().flat_map(outbox::unsent)
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
        self.done >= self.events.len()
    }

    /// The triggers and outcomes that are stored and may not have been put on the stream.
    pub fn outbox(&self) -> impl Iterator<Item = Unsent<'_>> + Clone {
        let own = self.profile.iter().flat_map(outbox::unsent);
        own.chain(self.others_outbox())
    }

    /// Takes the results of putting the outbox; gives the last reason why something of it was not put.
    pub fn settle_outbox(&mut self, results: &mut impl Iterator<Item = PutResult>) -> Option<String> {
        let mut unsent = None;
        let other = self.meeting.other_mut();
        for profile in [self.profile.as_mut(), other].into_iter().flatten() {
            outbox::retain(profile, |_| match results.next() {
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
pub(super) struct Loaded {
    pub profile: Profile,
    pub state_bytes: usize,
}

/// What reading a user's profile gave.
pub(super) enum Read {
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
    /// The users of a batch with their profiles: cached, read, or new. Keys that point to one user are that one.
    pub(super) async fn load<'g>(
        &self,
        groups: &'g UserGroups<'_>,
        snapshots: &Arc<Snapshots>,
        deadline: Instant,
        tally: &mut Tally,
    ) -> Vec<UserWork<'g>> {
        let users = groups.iter().map(|events| UserWork::of(events, snapshots));
        self.look_up(users.collect(), deadline, tally).await
    }

    /// Looks up the profiles of those who are unread: where it is a pointer, that of whom it points to. Whoever turn out
    /// to be one are one after that.
    pub(super) async fn look_up<'g>(
        &self,
        mut users: Vec<UserWork<'g>>,
        deadline: Instant,
        tally: &mut Tally,
    ) -> Vec<UserWork<'g>> {
        // Only those whom a pointer led somewhere may have met another.
        let mut may_have_met = users.iter().any(|user| user.pointers > 0);
        loop {
            for user in users.iter_mut().filter(|user| user.is_unread) {
                may_have_met |= self.take_cached(user);
            }
            if std::mem::take(&mut may_have_met) {
                users = joined(users);
            }
            let unread = users.iter().filter(|user| user.is_unread);
            let unread: Vec<&str> = unread.map(|user| user.events.user()).collect();
            if unread.is_empty() {
                return users;
            }
            tally.telemetry.profile_reads += unread.len() as u64;
            let mut reads = self.read(&unread, deadline).await;
            for user in users.iter_mut().filter(|user| user.is_unread) {
                user.is_unread = false;
                match self.loaded(reads.remove(user.events.user())) {
                    Ok(loaded) => {
                        let remembered = user.remembered.take().map(|remembered| *remembered);
                        let is_the_same = |remembered: &Profile| remembered.version == loaded.profile.version;
                        user.profile = Some(remembered.filter(is_the_same).unwrap_or(loaded.profile));
                        user.state_bytes = loaded.state_bytes;
                    }
                    Err(UserFailure::Moved(to)) => {
                        self.cache.put_pointer(user.events.user(), &to);
                        user.follow(&to);
                        may_have_met = true;
                    }
                    Err(failure) => user.blocked = Some(failure),
                }
            }
        }
    }

    /// Takes what is remembered of an unread user. Says whether a pointer led to another.
    fn take_cached(&self, user: &mut UserWork<'_>) -> bool {
        let mut has_followed = false;
        while user.is_unread {
            match self.cache.take(user.events.user()) {
                // What a wake-up finds in a profile that another container has written since would never be held against the
                // stored one: where nothing is due, nothing is written.
                Some(Remembered::Profile(profile, _)) if user.is_woken() => {
                    user.remembered = Some(profile);
                    break;
                }
                Some(Remembered::Profile(profile, state_bytes)) => {
                    user.profile = Some(*profile);
                    user.state_bytes = state_bytes;
                    user.is_unread = false;
                }
                Some(Remembered::Pointer(to)) => {
                    user.follow(&to);
                    has_followed = true;
                }
                None => break,
            }
        }
        has_followed
    }

    /// The profile that a read gave. A user who is not in the answer is new.
    pub(super) fn loaded(&self, read: Option<Read>) -> Result<Loaded, UserFailure> {
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
    pub(super) fn decode(&self, item: &ProfileItem) -> Result<Loaded, UserFailure> {
        if let Some(to) = &item.merged_into {
            return Err(UserFailure::Moved(to.clone()));
        }
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
    pub(super) async fn read(&self, users: &[&str], deadline: Instant) -> HashMap<String, Read> {
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
            if !outbox::is_empty(&profile) || user.others_outbox().next().is_some() {
                // What is stored unsent goes first, and this user's events in the next round: so the next write empties
                // the stored outbox, and what can't be sent takes no room from what is to be planned.
                user.profile = Some(profile);
                return Ok(());
            }
            // As it was before another profile became part of it.
            let before = self.meet(&mut profile, user);
            let plan = user
                .events
                .plan(&self.journey, profile, user.done, room.events_max, user.bound);
            let mut planned = plan.profile;
            let mut merged = None;
            if plan.changed || before.is_some() {
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
                    if let Some(before) = before {
                        if plan.outcomes.len() > 1 {
                            room.events_max = 1;
                        } else {
                            write.merges_deferred += 1;
                            user.defer_meeting();
                        }
                        profile = before;
                        continue;
                    }
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
                    outbox::clear(&mut stored);
                    if plan.outcomes.len() <= 1 {
                        return Err(Parking::too_large(stored, item.state.len()).into());
                    }
                    // Fewer events may fit. The others are planned in the next round, and those that don't are parked.
                    room.events_max = (plan.outcomes.len() / 2).max(1);
                    profile = stored.clone();
                    room.stored = Some(stored);
                    continue;
                }
                let put = match (&user.meeting, before) {
                    (Meeting::Ready(other), Some(before)) => {
                        match self.merge(&item, expected, other, deadline, write).await? {
                            Merge::Written => {
                                merged = Some(other.key.clone());
                                Put::Written
                            }
                            Merge::Conflict { into, other: side } => {
                                user.note_conflict()?;
                                let is_over = match side {
                                    OtherSide::AsExpected => false,
                                    OtherSide::Changed => true,
                                    OtherSide::Unusable => {
                                        write.merges_deferred += 1;
                                        user.defer_meeting();
                                        false
                                    }
                                };
                                if let Some(current) = into {
                                    let current = self.current(current)?;
                                    profile = current.profile;
                                    user.state_bytes = current.state_bytes;
                                } else {
                                    profile = before;
                                }
                                room = Room::default();
                                if is_over {
                                    // It is looked up again, in the next round.
                                    write.outdated = user.want_meeting_again();
                                    user.profile = Some(profile);
                                    return Ok(());
                                }
                                continue;
                            }
                        }
                    }
                    _ => self.put(&item, expected, deadline, write).await?,
                };
                match put {
                    Put::Written => {
                        planned.version = item.version;
                        user.state_bytes = item.state.len();
                        write.written_at = self.ports.clock.now();
                    }
                    Put::Conflict(current) => {
                        user.note_conflict()?;
                        let current = self.current(current)?;
                        profile = current.profile;
                        user.state_bytes = current.state_bytes;
                        room = Room::default();
                        continue;
                    }
                }
            }
            if let Some(key) = merged {
                self.cache.put_pointer(&key, user.events.user());
                write.merged = Some(key);
                user.meeting = Meeting::None;
            }
            if let Some(Stopped::AliasToMerge(key)) = plan.stopped {
                user.meeting = Meeting::Wanted(key);
            }
            user.done += plan.outcomes.len();
            user.profile = Some(planned);
            write.outcomes = plan.outcomes;
            write.rules = plan.rules;
            return Ok(());
        }
    }

    /// Makes the other profile part of the user's, where it is to be. Gives the user's as it was.
    fn meet(&self, profile: &mut Profile, user: &mut UserWork<'_>) -> Option<Profile> {
        let key = user.meeting.key()?;
        let before = profile.clone();
        // What was found out since may have changed which event is next, and what becomes of it.
        let plan = user
            .events
            .plan(&self.journey, before.clone(), user.done, 1, user.bound);
        match plan.stopped {
            Some(Stopped::AliasToMerge(alias)) if alias == key => {}
            _ => {
                user.meeting = Meeting::None;
                return None;
            }
        }
        match &user.meeting {
            Meeting::Ready(other) => match &other.profile {
                Some(from) => merge_profiles(&self.journey, profile, from, &other.key),
                None => merge_nobody(profile, &other.key),
            },
            Meeting::Known(key) => {
                remember_alias(profile, key);
                user.meeting = Meeting::None;
                return None;
            }
            Meeting::Wanted(_) | Meeting::None => return None,
        }
        Some(before)
    }

    /// The profile in what is stored now.
    fn current(&self, item: Option<ProfileItem>) -> Result<Loaded, UserFailure> {
        item.map_or_else(|| Ok(self.new_profile()), |item| self.decode(&item))
    }

    /// The user's profile, as it is stored now.
    async fn read_again(&self, user: &mut UserWork<'_>, deadline: Instant) -> Result<Profile, UserFailure> {
        let name = user.events.user();
        let loaded = self.loaded(self.read(&[name], deadline).await.remove(name))?;
        user.state_bytes = loaded.state_bytes;
        Ok(loaded.profile)
    }

    /// Writes the user's profile with the other one's in it, and makes the other one's item a pointer to it.
    async fn merge(
        &self,
        item: &ProfileItem,
        expected: u64,
        other: &Other,
        deadline: Instant,
        write: &mut UserWrite,
    ) -> Result<Merge, UserFailure> {
        let from_expected = other.profile.as_ref().map_or(0, |profile| profile.version);
        let request = MergeWrite {
            into: item.clone(),
            into_expected: expected,
            from: ProfileItem {
                user_id: other.key.clone(),
                version: from_expected + 1,
                state: Vec::new(),
                updated_at: item.updated_at,
                parked_since: None,
                next_due_at: None,
                merged_into: Some(item.user_id.clone()),
            },
            from_expected,
            token: fastrand::u128(..),
        };
        let merge = || self.ports.profiles.merge(&request);
        let written = |write: &mut UserWrite| {
            write.writes += 1;
            write.merges += u64::from(other.profile.is_some());
            Ok(Merge::Written)
        };
        match until_answered(deadline, WRITE_ATTEMPTS_MAX, merge).await {
            Ok(MergeAnswer::Written { write_units }) => {
                write.write_units += write_units;
                written(write)
            }
            Ok(MergeAnswer::Conflict {
                into,
                from,
                write_units,
            }) => {
                write.write_units += write_units;
                let is = |side: &MergeSide, item: &ProfileItem| match side {
                    MergeSide::Changed(Some(current)) => **current == *item,
                    _ => false,
                };
                // An earlier attempt was written and its answer lost.
                if is(&into, &request.into) && is(&from, &request.from) {
                    return written(write);
                }
                write.conflicts += 1;
                let other = match from {
                    MergeSide::AsExpected => OtherSide::AsExpected,
                    MergeSide::Changed(_) => OtherSide::Changed,
                    MergeSide::Unreadable { .. } => OtherSide::Unusable,
                };
                let into = match into {
                    MergeSide::AsExpected => None,
                    MergeSide::Changed(current) => Some(current.map(|current| *current)),
                    MergeSide::Unreadable { why } => {
                        return Err(Parking::unreadable(ParkTarget::Unreadable, why).into());
                    }
                };
                Ok(Merge::Conflict { into, other })
            }
            Err(failure) => Err(UserFailure::Unavailable(chain(&failure))),
        }
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

/// What writing two profiles as one came to.
enum Merge {
    Written,
    /// What is stored of the user now, where that is not what was expected, and what became of the other.
    Conflict {
        into: Option<Option<ProfileItem>>,
        other: OtherSide,
    },
}

/// What became of the other profile of a merge that was not written.
enum OtherSide {
    AsExpected,
    Changed,
    Unusable,
}

/// Those who go in this round, and those who wait.
pub(super) fn parted<'g>(users: Vec<UserWork<'g>>, goes: &[bool]) -> (Vec<UserWork<'g>>, Vec<UserWork<'g>>) {
    if goes.iter().all(|goes| *goes) {
        return (users, Vec::new());
    }
    let mut goes = goes.iter();
    users.into_iter().partition(|_| goes.next().is_none_or(|goes| *goes))
}

/// One for each profile, in the order of their first appearance.
fn joined(users: Vec<UserWork<'_>>) -> Vec<UserWork<'_>> {
    let mut place_of_user: HashMap<String, usize> = HashMap::with_capacity(users.len());
    let mut all: Vec<UserWork<'_>> = Vec::with_capacity(users.len());
    for user in users {
        match place_of_user.entry(user.events.user().to_owned()) {
            Entry::Occupied(place) => all[*place.get()].join(user),
            Entry::Vacant(place) => {
                place.insert(all.len());
                all.push(user);
            }
        }
    }
    all
}

/// What a conditional write came to.
enum Put {
    Written,
    Conflict(Option<ProfileItem>),
}
