//! Reading, planning and writing one user (P4).

use std::collections::HashMap;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::batch::{UserEvents, UserGroups};
use usher_domain::fold::EventOutcome;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::rules::RuleCounts;
use usher_domain::trigger::Trigger;
use usher_wire::profile_state;
use usher_wire::reject::{Reject, RejectReason};

use super::tally::Tally;
use super::{ProfileWriter, unusable_profile};
use crate::ports::{
    CallError, GET_USERS_MAX, ProfileItem, ProfileTable, PutAnswer, RecordStream, TelemetrySink, WallClock,
};
use crate::put_records::PutResult;
use crate::retry::{Backoff, chain, until_answered};

/// Batched reads at the same time.
const READ_CONCURRENCY: usize = 8;
/// How often a write is tried before the user's events are left to the next delivery.
const WRITE_ATTEMPTS_MAX: u32 = 8;
/// How often a user is planned again because another container wrote in between.
const CONFLICTS_MAX: u32 = 8;
/// The largest profile that is written, in bytes: an item holds 400 KB, its other attributes and names included.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
const PROFILE_STATE_BYTES_MAX: usize = 390 * 1024;

/// A user's events of a batch and the profile that they go to.
#[derive(Debug)]
pub(super) struct UserWork<'g> {
    pub events: UserEvents<'g>,
    /// The profile, as it is stored but for its outbox; none while another part of the flow has it.
    pub profile: Option<Profile>,
    /// Events that were planned and stored.
    pub done: usize,
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
    Unavailable { why: String, write: UserWrite },
    /// The profile can't be used, now or later: they go to `rejected`.
    Unusable(Reject),
}

impl UserFailure {
    fn unavailable(why: String) -> UserFailure {
        UserFailure::Unavailable {
            why,
            write: UserWrite::default(),
        }
    }
}

impl UserWork<'_> {
    /// The index of the user's first event of the batch.
    pub fn first_event(&self) -> usize {
        self.events.indices().first().copied().unwrap_or(0)
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
                let profile = self.cache.take(events.user());
                UserWork {
                    events,
                    profile,
                    done: 0,
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
            let loaded = match reads.remove(user.events.user()) {
                None => Ok(Profile::new(&self.journey)),
                Some(Read::Stored(item)) => self.decode(&item),
                Some(Read::Unreadable(why)) => Err(UserFailure::Unusable(unusable_profile(
                    RejectReason::UnreadableProfile,
                    why,
                ))),
                Some(Read::Failed(why)) => Err(UserFailure::unavailable(why)),
            };
            match loaded {
                Ok(profile) => user.profile = Some(profile),
                Err(failure) => user.blocked = Some(failure),
            }
        }
        users
    }

    fn decode(&self, item: &ProfileItem) -> Result<Profile, UserFailure> {
        profile_state::decode(&item.state, item.version, &item.user_id, &self.journey)
            .map_err(|error| UserFailure::Unusable(unusable_profile(RejectReason::UnreadableProfile, chain(&error))))
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
            if open.is_empty() || !backoff.pause(deadline).await {
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
    ) -> (UserWork<'g>, Result<UserWrite, UserFailure>) {
        if let Some(failure) = user.blocked.take() {
            return (user, Err(failure));
        }
        let mut profile = user.profile.take().unwrap_or_else(|| Profile::new(&self.journey));
        let mut write = UserWrite {
            from: user.done,
            ..UserWrite::default()
        };
        loop {
            let plan = plan_user(&self.journey, profile, user.events.events().skip(user.done));
            let mut planned = plan.profile;
            if plan.changed {
                let expected = planned.version;
                let item = ProfileItem {
                    user_id: user.events.user().to_owned(),
                    version: expected + 1,
                    state: profile_state::encode(&planned, &self.journey),
                    updated_at: planned.now,
                };
                if item.state.len() > PROFILE_STATE_BYTES_MAX {
                    let detail = format!("the profile would have {} bytes", item.state.len());
                    return (
                        user,
                        Err(UserFailure::Unusable(unusable_profile(
                            RejectReason::ProfileTooLarge,
                            detail,
                        ))),
                    );
                }
                match self.put(&item, expected, deadline, &mut write).await {
                    Ok(Put::Written) => planned.version = item.version,
                    Ok(Put::Conflict(current)) if write.conflicts <= u64::from(CONFLICTS_MAX) => {
                        profile =
                            match current.map_or_else(|| Ok(Profile::new(&self.journey)), |item| self.decode(&item)) {
                                Ok(stored) => stored,
                                Err(failure) => return (user, Err(failure)),
                            };
                        continue;
                    }
                    Ok(Put::Conflict(_)) => {
                        let why = format!("the profile was changed by others {CONFLICTS_MAX} times in a row");
                        return (user, Err(UserFailure::Unavailable { why, write }));
                    }
                    Err(UserFailure::Unavailable { why, .. }) => {
                        return (user, Err(UserFailure::Unavailable { why, write }));
                    }
                    Err(failure) => return (user, Err(failure)),
                }
            }
            user.done += plan.outcomes.len();
            user.profile = Some(planned);
            write.outcomes = plan.outcomes;
            write.rules = plan.rules;
            return (user, Ok(write));
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
            Ok(PutAnswer::Unreadable { why }) => Err(UserFailure::Unusable(unusable_profile(
                RejectReason::UnreadableProfile,
                why,
            ))),
            Err(failure) => Err(UserFailure::unavailable(chain(&failure))),
        }
    }
}

/// What a conditional write came to.
enum Put {
    Written,
    Conflict(Option<ProfileItem>),
}
