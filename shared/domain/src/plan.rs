//! Planning: what a user's events of a batch do to their profile (P7).

use crate::event::ArrivedEvent;
use crate::fold::{self, EventOutcome};
use crate::hash::hash_bytes;
use crate::journey::{Dispatch, Journey, QuietAction};
use crate::limits::OUTBOX_TRIGGERS_MAX;
use crate::offers;
use crate::policy;
use crate::profile::Profile;
use crate::rules::{self, RuleCounts};
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::timers;

/// What is to be done for one user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserPlan {
    /// The profile as it is to be: state, guard and outbox change in one write (P4).
    pub profile: Profile,
    /// Whether it must be written. An outbox alone needs no write: it is stored already.
    pub changed: bool,
    /// What became of each event, in order. Fewer than were given where planning stopped: the rest is planned again after
    /// this plan was carried out, or what stopped it was.
    pub outcomes: Vec<EventOutcome>,
    /// What became of each rule.
    pub rules: RuleCounts,
    /// Why planning stopped before the last event, where it did.
    pub stopped: Option<Stopped>,
}

/// Why planning stopped before an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The outbox may not hold what the event fires, or what was due before it: go on when it was sent.
    OutboxIsFull,
    /// The event says that another profile is the same user's: go on when that was merged into this one, and write both
    /// together. It is the key of the other.
    AliasToMerge(String),
}

/// Plans one user's events, in stream order, on the profile as it was read.
///
/// A pure function: the same journey, snapshots, profile and events give the same plan, whoever runs it and whenever (P7). Events
/// that were applied before change nothing, so a redelivered batch plans to nothing but its unsent triggers (P2, P5).
///
/// What was due before an event is made before that is folded, as of when it was due. What is due between the event's own
/// time and its arrival is made after, as of the arrival: an event that makes it moot does so although it came late, and a
/// user's moments never go back.
pub fn plan_user<'e, 'a: 'e>(
    journey: &Journey,
    snapshots: &Snapshots,
    profile: Profile,
    events: impl IntoIterator<Item = &'e ArrivedEvent<'a>>,
) -> UserPlan {
    let events = events.into_iter();
    let mut planning = Planning::of(journey, snapshots, profile);
    let mut outcomes = Vec::with_capacity(events.size_hint().0);
    let mut stopped = None;
    for arrived in events {
        let dispatch = journey.dispatch(&arrived.event.event_type);
        let outcome = fold::outcome(dispatch, &planning.profile, arrived);
        stopped = match outcome {
            EventOutcome::Applied => match planning.apply(dispatch, arrived) {
                Applied::Wholly => None,
                // What is still due is made by the next record.
                Applied::Partly(stopped) => {
                    outcomes.push(outcome);
                    Some(stopped)
                }
                Applied::Not(stopped) => Some(stopped),
            },
            EventOutcome::Woken => planning.wake(arrived).err(),
            // Its record is settled: it stays so when it comes again after its id was forgotten. That alone is worth no
            // write, so it is stored with the next one.
            EventOutcome::Duplicate => {
                planning.profile.guard.advance(arrived.shard.key, arrived.position);
                None
            }
            EventOutcome::Redelivered | EventOutcome::Ignored => None,
        };
        if stopped.is_some() {
            break;
        }
        outcomes.push(outcome);
    }
    planning.set_wake_at();
    UserPlan {
        profile: planning.profile,
        changed: planning.changed,
        outcomes,
        rules: planning.rules,
        stopped,
    }
}

/// How far an event was applied.
enum Applied {
    /// With all that was due before and after it.
    Wholly,
    /// But not all that was due after it was made.
    Partly(Stopped),
    /// Not at all.
    Not(Stopped),
}

/// A plan in the making.
struct Planning<'j> {
    journey: &'j Journey,
    snapshots: &'j Snapshots,
    profile: Profile,
    changed: bool,
    rules: RuleCounts,
    /// Whether anything may be due.
    has_timers: bool,
    has_membership: bool,
    goes_by_local_time: bool,
    /// Whether a rule that looks at an event may put its offer off.
    puts_off: bool,
    /// The latest arrival of a record that woke the user.
    woken_at: Option<Timestamp>,
    /// When rules look at something that is due next, as far as that was worked out since anything changed it.
    next_look: Option<Option<Timestamp>>,
}

impl<'j> Planning<'j> {
    fn of(journey: &'j Journey, snapshots: &'j Snapshots, profile: Profile) -> Planning<'j> {
        let of_journey = timers::has_any(journey);
        Planning {
            journey,
            snapshots,
            changed: false,
            rules: RuleCounts::default(),
            // What an earlier journey put off stays due.
            has_timers: of_journey || profile.wake_at.is_some(),
            has_membership: policy::has_membership(journey),
            goes_by_local_time: journey.goes_by_local_time(),
            puts_off: (journey.policy.quiet_hours.as_ref()).is_some_and(|quiet| quiet.then == QuietAction::Defer),
            woken_at: None,
            next_look: None,
            profile,
        }
    }

    fn apply(&mut self, dispatch: &Dispatch, arrived: &ArrivedEvent<'_>) -> Applied {
        if let Some(alias) = unmerged_alias(&self.profile, arrived) {
            // What was left over when the outbox was full was due before the two became one (P7).
            let now = self.profile.now;
            let made = if self.waits() {
                self.make_due(arrived, now)
            } else {
                Ok(())
            };
            return Applied::Not(made.err().unwrap_or_else(|| Stopped::AliasToMerge(alias.to_owned())));
        }
        if self.waits() {
            // What was left over when the outbox was full was due by now.
            let before = arrived.event.at.min(arrived.arrived_at).max(self.profile.now);
            if let Err(stopped) = self.make_due(arrived, before) {
                return Applied::Not(stopped);
            }
        }
        let journey = self.journey;
        let touched = offers::touched_max(journey, dispatch, &self.profile, &arrived.event);
        if !self.has_room(dispatch.rules.len(), touched) {
            return Applied::Not(Stopped::OutboxIsFull);
        }
        let profile = &mut self.profile;
        let folded = fold::apply(journey, dispatch, profile, arrived);
        self.changed = true;
        let mut changes_dues = self.goes_by_local_time && fold::follow_clock(profile, arrived);
        if self.has_membership {
            let (now, left_at) = (profile.now, profile.membership.left_at);
            policy::update_membership(journey, profile, &arrived.event, now);
            changes_dues |= profile.membership.left_at != left_at;
        }
        if self.has_timers {
            // A step that is done may make timers moot.
            changes_dues |= folded.did_a_step();
            changes_dues |= timers::arm(journey, dispatch, profile, &arrived.event, &folded, &mut self.rules);
        }
        // Before the rules look: an event is no outcome of the offer that it causes.
        offers::note(journey, profile, arrived, &folded);
        rules::run(journey, self.snapshots, dispatch, profile, arrived, &mut self.rules);
        if changes_dues || (self.puts_off && !dispatch.rules.is_empty()) {
            self.next_look = None;
        }
        if self.waits() {
            let now = self.profile.now;
            if let Err(stopped) = self.make_due(arrived, now) {
                return Applied::Partly(stopped);
            }
        }
        Applied::Wholly
    }

    /// Makes what is due as of a timer event's arrival. It may come from anyone: where nothing is due, it changes nothing.
    fn wake(&mut self, arrived: &ArrivedEvent<'_>) -> Result<(), Stopped> {
        let as_of = arrived.arrived_at.max(self.profile.now);
        self.make_due(arrived, as_of)?;
        self.woken_at = self.woken_at.max(Some(arrived.arrived_at));
        self.profile.guard.advance(arrived.shard.key, arrived.position);
        Ok(())
    }

    /// Makes what is due up to a time, the earliest first, each as of when it was due. What was due before the profile's
    /// *now* is made as of that, at once.
    fn make_due(&mut self, arrived: &ArrivedEvent<'_>, until: Timestamp) -> Result<(), Stopped> {
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            if offers::next_expiry(&self.profile) == Some(due) {
                if !self.has_room(0, self.profile.open_offers.len()) {
                    return Err(Stopped::OutboxIsFull);
                }
                offers::expire(self.journey, &mut self.profile, arrived, due);
                self.changed = true;
                continue;
            }
            let moment = due.max(self.profile.now);
            let looks = timers::looks(self.journey, &self.profile, moment);
            if !self.has_room(looks.len(), 0) {
                return Err(Stopped::OutboxIsFull);
            }
            rules::run_due(
                self.journey,
                self.snapshots,
                &mut self.profile,
                &looks,
                moment,
                arrived,
                &mut self.rules,
            );
            self.next_look = None;
            self.changed = true;
        }
        Ok(())
    }

    /// Whether anything of this user may be due.
    fn waits(&self) -> bool {
        self.has_timers || !self.profile.open_offers.is_empty()
    }

    fn next_due(&mut self) -> Option<Timestamp> {
        let (journey, profile) = (self.journey, &self.profile);
        let next_look = match self.has_timers {
            true => *(self.next_look).get_or_insert_with(|| timers::next_look(journey, profile)),
            false => None,
        };
        [next_look, offers::next_expiry(profile)].into_iter().flatten().min()
    }

    /// Whether the outbox can take whatever so many rules may fire, and so many outcomes besides those of offers that have
    /// to leave for the new ones. An empty one can: what one moment makes is sent together.
    fn has_room(&self, looks: usize, outcomes: usize) -> bool {
        let held = self.profile.outbox.len() + self.profile.outcomes.len();
        let opening = offers::told_by_opening(self.journey, &self.profile, looks);
        held == 0 || held + looks + outcomes + opening <= OUTBOX_TRIGGERS_MAX
    }

    /// Sets when the user is woken next, for a profile that is written. Where nothing else changed it is only written when
    /// its time has come and nothing was due, so that the user isn't found again and again.
    fn set_wake_at(&mut self) {
        if !self.changed && self.woken_at.is_none() {
            return;
        }
        let as_of = self.woken_at.max(Some(self.profile.now)).unwrap_or_default();
        let wake_at = match self.waits() {
            true => {
                let due = self.next_due();
                timers::wake_at(&self.profile, due, as_of)
            }
            false => None,
        };
        let is_past = self.profile.wake_at.is_none_or(|stored| stored <= as_of);
        if wake_at != self.profile.wake_at && (self.changed || is_past) {
            self.profile.wake_at = wake_at;
            self.changed = true;
        }
    }
}

/// The key of another profile that the event says is the same user's, unless that was merged into this one lately.
fn unmerged_alias<'e>(profile: &Profile, arrived: &'e ArrivedEvent<'_>) -> Option<&'e str> {
    let alias = arrived.event.alias.as_deref()?;
    (!profile.aliases.contains(&hash_bytes(alias.as_bytes()))).then_some(alias)
}

#[cfg(test)]
mod tests;
