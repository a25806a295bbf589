//! Parking: what becomes of the events of a user whose profile can't be written (P6).
//!
//! They go to `rejected`, in order, and every later event of the user follows them, until `usher redrive --user` applies
//! them ([`crate::redrive_user`]). First the events are put, one of a user at a time, then the item is marked. A crash in
//! between puts them again at the next delivery, which readers tell by their place. The mark raises the item's version, in
//! each batch: a container with an older copy conflicts and finds it, and a redrive that is under way reads the parked
//! records again before it ends the parking.

use std::collections::HashMap;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::fold::{self, EventOutcome};
use usher_domain::journey::Journey;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_wire::envelope::Envelope;
use usher_wire::profile_state;
use usher_wire::reject::{Reject, RejectReason};

use super::budget::Budget;
use super::records::rejected_record;
use super::tally::Tally;
use super::users::{CONFLICTS_MAX, UserFailure, UserWork, WRITE_ATTEMPTS_MAX};
use super::{Failures, ProfileWriter};
use crate::outbox;
use crate::ports::{
    PROFILE_STATE_BYTES_MAX, ParkAnswer, ParkTarget, ProfileItem, ProfileTable, PutAnswer, RecordStream, TelemetrySink,
    WallClock,
};
use crate::put_records::put_in_rounds;
use crate::response::RetryPoint;
use crate::retry::{Failure, chain, until_answered};

/// Why a user's events are parked, and what is stored of the user.
#[derive(Debug)]
pub(super) struct Parking {
    /// Why the first of them is.
    reason: RejectReason,
    detail: String,
    /// The profile as it is stored, where it can be read.
    profile: Option<Profile>,
    mark: Mark,
}

/// What to mark as parked.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Item(ParkTarget),
    /// A new item: none is stored yet.
    New,
    /// Nobody: nothing tells whose the events are.
    Nothing,
}

impl From<Parking> for UserFailure {
    fn from(parking: Parking) -> UserFailure {
        UserFailure::Parked(Box::new(parking))
    }
}

impl Parking {
    /// The stored profile can't be read.
    pub fn unreadable(target: ParkTarget, why: String) -> Parking {
        Parking {
            reason: RejectReason::UnreadableProfile,
            detail: why,
            profile: None,
            mark: Mark::Item(target),
        }
    }

    /// Pointers lead nowhere. The events wait under the ids that they name, and no item is marked: the one where following
    /// ended may be a user's who is well.
    pub fn astray(why: String) -> Parking {
        Parking {
            reason: RejectReason::UnreadableProfile,
            detail: why,
            profile: None,
            mark: Mark::Nothing,
        }
    }

    /// With the next event, the profile would have this many bytes.
    pub fn too_large(profile: Profile, state_bytes: usize) -> Parking {
        Parking {
            reason: RejectReason::ProfileTooLarge,
            detail: format!(
                "the profile would have {state_bytes} bytes, and {PROFILE_STATE_BYTES_MAX} are written at most"
            ),
            mark: match profile.version {
                0 => Mark::New,
                version => Mark::Item(ParkTarget::Version(version)),
            },
            profile: Some(profile),
        }
    }

    /// Earlier events of the user are parked.
    pub fn following(profile: Profile, since: Timestamp) -> Parking {
        Parking {
            reason: RejectReason::UserParked,
            detail: following_since(since),
            mark: Mark::Item(ParkTarget::Version(profile.version)),
            profile: Some(profile),
        }
    }

    /// What becomes of the user's open events, by index: done with already, or parked for this reason.
    ///
    /// An event that is a duplicate by its id is parked too: whether it still is one shows once those before it are
    /// applied.
    fn sort(&self, journey: &Journey, user: &UserWork<'_>) -> Vec<(usize, Result<EventOutcome, Reject>)> {
        let mut is_first = true;
        let open = (user.done..user.events.len()).filter_map(|position| {
            let index = user.events.index(position)?;
            Some((index, user.events.arrived(position)?))
        });
        let sorted = open.map(|(index, arrived)| {
            let settled = self.profile.as_ref().and_then(|profile| {
                let outcome = fold::outcome(journey.dispatch(&arrived.event.event_type), profile, &arrived);
                matches!(
                    outcome,
                    EventOutcome::Redelivered | EventOutcome::Ignored | EventOutcome::Woken
                )
                .then_some(outcome)
            });
            let became = settled.ok_or_else(|| {
                let follows = !std::mem::take(&mut is_first) && self.reason == RejectReason::ProfileTooLarge;
                let (reason, detail) = if follows {
                    (RejectReason::UserParked, "an event before it is parked".to_owned())
                } else {
                    (self.reason, self.detail.clone())
                };
                Reject::new(reason, "user_id", detail)
            });
            (index, became)
        });
        sorted.collect()
    }
}

fn following_since(since: Timestamp) -> String {
    format!("the user has been parked since {since}: mend the profile and run `usher redrive --user`")
}

/// A user of a batch with events to park.
pub(super) struct ParkedUser<'g> {
    user: UserWork<'g>,
    parking: Box<Parking>,
    /// The records, in order, and why each is parked.
    records: Vec<(usize, Reject)>,
    /// The users that records name, where nobody knows whose they are.
    named: HashMap<usize, String>,
}

impl<P, S, C, T> ProfileWriter<P, S, C, T>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
    T: TelemetrySink,
{
    /// Tells what becomes of the open events of a user who can't be written.
    pub(super) fn sort_out<'g>(
        &self,
        user: UserWork<'g>,
        parking: Box<Parking>,
        tally: &mut Tally,
        record_of_event: &[usize],
    ) -> ParkedUser<'g> {
        let mut records = Vec::new();
        for (index, became) in parking.sort(&self.journey, &user) {
            let record = record_of_event[index];
            match became {
                Ok(outcome) => tally.note_outcome(record, outcome),
                Err(reject) => records.push((record, reject)),
            }
        }
        if records.is_empty() && parking.reason == RejectReason::ProfileTooLarge {
            // There is no event to park, and a mark without one would have nothing to redrive.
            tally.telemetry.wake_ups_too_large += 1;
            tracing::warn!(
                why = parking.detail,
                "what is due of a user does not fit the profile, so it is not made, and the user is woken again each minute; \
                 have the journey keep less of a user: `usher check` estimates what each feature takes"
            );
        }
        tally.note_parked(&records);
        let mut named = HashMap::new();
        if matches!(parking.mark, Mark::Nothing) {
            named.extend((user.done..user.events.len()).filter_map(|position| {
                let record = record_of_event[user.events.index(position)?];
                Some((record, user.events.named(position)?.to_owned()))
            }));
        }
        ParkedUser {
            user,
            parking,
            records,
            named,
        }
    }

    /// Puts the parked events on `rejected` and marks their users. What can't be put, or whose user can't be marked,
    /// comes again.
    pub(super) async fn park(
        &self,
        mut parked: Vec<ParkedUser<'_>>,
        envelope: &Envelope<'_>,
        budget: &Budget,
        tally: &mut Tally,
        retry_point: &mut RetryPoint,
        failures: &mut Failures,
    ) {
        // What comes again anyway is parked then.
        for parked_user in &mut parked {
            parked_user
                .records
                .retain(|(record, _)| retry_point.is_settled(*record));
        }
        parked.retain(|parked_user| !parked_user.records.is_empty());
        if parked.is_empty() {
            return;
        }
        let queues = parked.iter().map(|parked_user| {
            let name = parked_user.user.events.user();
            let records = parked_user.records.iter();
            records
                .map(|(record, reject)| {
                    let name = parked_user.named.get(record).map_or(name, String::as_str);
                    rejected_record(&envelope.records[*record], reject, Some(name))
                })
                .collect()
        });
        let put = put_in_rounds(&self.ports.rejected, queues.collect(), budget.parking).await;
        let marks = parked.iter().zip(put).map(async |(parked_user, put)| {
            if put.stored == 0 {
                return (parked_user, Err(put.why.unwrap_or_default()), Units::default());
            }
            let mut units = Units::default();
            let marked = self.mark(parked_user, budget.marks, &mut units).await;
            (parked_user, marked.map(|()| put), units)
        });
        let marked: Vec<_> = futures::stream::iter(marks)
            .buffer_unordered(self.config.write_concurrency.max(1))
            .collect()
            .await;
        for (parked_user, marked, units) in marked {
            tally.telemetry.write_units += units.write_units;
            tally.telemetry.conflicts += units.conflicts;
            let (settled, why) = match marked {
                Ok(put) => (put.stored, put.why),
                // Without the mark a later event of the user might be applied first, so all of them come again.
                Err(why) => (0, Some(why)),
            };
            if let Some((record, _)) = parked_user.records.get(settled) {
                retry_point.lower_to(*record);
                failures.note(why.unwrap_or_default());
            }
        }
    }

    /// Marks the user's item, on whatever version it has by now: unless the events fit by then. Gives why they come again.
    async fn mark(&self, parked: &ParkedUser<'_>, deadline: Instant, units: &mut Units) -> Result<(), String> {
        let user = parked.user.events.user();
        let since = self.ports.clock.now();
        let mut mark = parked.parking.mark;
        loop {
            let current = match mark {
                Mark::Nothing => return Ok(()),
                Mark::New => self.put_new_parked(user, since, deadline, units).await?,
                Mark::Item(target) => self.mark_item(user, target, since, deadline, units).await?,
            };
            mark = match current {
                Marked::Yes => return Ok(()),
                Marked::Unreadable => Mark::Item(ParkTarget::Unreadable),
                Marked::Conflict(item) => {
                    units.conflicts += 1;
                    if units.conflicts > CONFLICTS_MAX {
                        return Err(format!(
                            "others changed the profile {} times meanwhile",
                            units.conflicts
                        ));
                    }
                    let item = item.ok_or("the profile was removed meanwhile")?;
                    if !self.is_still_to_park(&item, &parked.user) {
                        return Err("the profile was mended meanwhile".to_owned());
                    }
                    Mark::Item(ParkTarget::Version(item.version))
                }
            };
        }
    }

    /// Whether the user's open events are to be parked on this item too.
    fn is_still_to_park(&self, item: &ProfileItem, user: &UserWork<'_>) -> bool {
        if item.merged_into.is_some() {
            return false;
        }
        if item.parked_since.is_some() {
            return true;
        }
        let Ok(profile) = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey) else {
            return true;
        };
        // Nobody is parked before the outbox was sent: that is the next delivery's to do.
        if !outbox::is_empty(&profile) {
            return false;
        }
        let mut open = (user.done..user.events.len()).filter_map(|position| user.events.arrived(position));
        let next = open.find(|arrived| {
            let dispatch = self.journey.dispatch(&arrived.event.event_type);
            fold::outcome(dispatch, &profile, arrived) == EventOutcome::Applied
        });
        next.is_some_and(|arrived| {
            // Whatever other profile it names was left alone when it did not fit.
            let mut arrived = arrived.into_owned();
            arrived.event.alias = None;
            let plan = plan_user(&self.journey, user.events.snapshots(), profile, [&arrived]);
            profile_state::encode(&plan.profile, &self.journey).len() > PROFILE_STATE_BYTES_MAX
        })
    }

    async fn mark_item(
        &self,
        user: &str,
        target: ParkTarget,
        since: Timestamp,
        deadline: Instant,
        units: &mut Units,
    ) -> Result<Marked, String> {
        let park = || self.ports.profiles.park(user, target, since);
        match until_answered(deadline, WRITE_ATTEMPTS_MAX, park).await {
            Ok(ParkAnswer::Parked { write_units }) => {
                units.write_units += write_units;
                Ok(Marked::Yes)
            }
            Ok(ParkAnswer::Conflict { current, write_units }) => {
                units.write_units += write_units;
                Ok(Marked::Conflict(current))
            }
            Ok(ParkAnswer::Unreadable { .. }) if target == ParkTarget::Unreadable => {
                Err("the item was changed meanwhile".to_owned())
            }
            Ok(ParkAnswer::Unreadable { .. }) => Ok(Marked::Unreadable),
            // Such as an item that has no room for the mark. While it can't be read, later events follow without it.
            Err(Failure::Refused(error)) if target == ParkTarget::Unreadable => {
                tracing::warn!(
                    error = chain(&error),
                    "an unreadable profile could not be marked as parked; its events are on the rejected stream"
                );
                Ok(Marked::Yes)
            }
            Err(failure) => Err(chain(&failure)),
        }
    }

    /// Stores an empty profile with the mark, for a user who has none yet.
    async fn put_new_parked(
        &self,
        user: &str,
        since: Timestamp,
        deadline: Instant,
        units: &mut Units,
    ) -> Result<Marked, String> {
        let item = ProfileItem {
            user_id: user.to_owned(),
            version: 1,
            state: profile_state::encode(&Profile::new(&self.journey), &self.journey),
            updated_at: Timestamp::default(),
            parked_since: Some(since),
            next_due_at: None,
            merged_into: None,
        };
        let put = || self.ports.profiles.put(&item, 0);
        match until_answered(deadline, WRITE_ATTEMPTS_MAX, put).await {
            Ok(PutAnswer::Written { write_units }) => {
                units.write_units += write_units;
                Ok(Marked::Yes)
            }
            Ok(PutAnswer::Conflict { current, write_units }) => {
                units.write_units += write_units;
                Ok(Marked::Conflict(current))
            }
            Ok(PutAnswer::Unreadable { .. }) => Ok(Marked::Unreadable),
            Err(failure) => Err(chain(&failure)),
        }
    }
}

/// What marking came to.
enum Marked {
    Yes,
    Conflict(Option<ProfileItem>),
    Unreadable,
}

/// What marking a user took.
#[derive(Default)]
struct Units {
    write_units: f64,
    conflicts: u64,
}
