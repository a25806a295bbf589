//! Merging: when two profiles turn out to be one user's.
//!
//! Someone who was anonymous says who they are, or an id is replaced by another: an event names both
//! ([`crate::event::Event::alias`]). Then one profile takes in the other ([`merge_profiles`]), once: the other becomes a
//! pointer to it, and later events that name the other follow the pointer, in lanes of their own
//! ([`crate::event::Shard::within`]).
//!
//! What becomes of each part, in whatever order profiles are merged (while no bound is hit):
//!
//! | Part | Becomes |
//! |---|---|
//! | sessions, features, steps, traits, applied events | as if the events of both had come to one profile ([`merge_history`]) |
//! | guard, remembered ids, remembered aliases | those of both |
//! | how often a rule fired, and when last | the sum, and the later time |
//! | limit for a session or version | the sum for the same one, otherwise the later session's or the present version's |
//! | transition | holds where it held in either |
//! | timer | the later start, with as many reminders done as there; from a step, the earlier start, as the step has |
//! | put-off offer | the earlier one |
//! | offers made | those of both |
//! | open offers | those of both; of one and the same decision, what was rewarded in either |
//! | membership | in where the latest coming in is after the latest leaving; who is out then keeps no timer and no put-off offer |
//! | time zone | the latest |
//! | outbox, of triggers and outcomes | its own: the other's is sent before |
//!
//! A merge that would make a chain of more than [`POINTERS_MAX`] pointers is not done ([`has_room_for_pointer`]): both stay
//! users of their own, so that whoever follows pointers always arrives.
//!
//! [`Household`] does all of this in memory, event by event.

use hashbrown::HashMap;

use crate::event::{ArrivedEvent, Shard};
use crate::feature::merge_trait;
use crate::fold::{EventOutcome, follow_sessions};
use crate::hash::hash_bytes;
use crate::journey::{Journey, Limit, LimitPer, Moment, Rule, Since};
use crate::limits::{ALIASES_MAX, OFFERS_MADE_MAX, POINTERS_MAX};
use crate::offers::{self, Outcome};
use crate::plan::{Stopped, plan_user};
use crate::policy::is_in;
use crate::profile::{Membership, OfferMade, Profile, PutOff, RuleState, TimerState, WithinLimit};
use crate::rules::RuleCounts;
use crate::sessions::Sessions;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// Merges the profile of `from_key` into that of the user it turned out to be. Both are laid out for the same journey.
///
/// What `from` holds unsent is to be sent before, because it stays behind.
pub fn merge_profiles(journey: &Journey, into: &mut Profile, from: &Profile, from_key: &str) {
    merge_history(journey, into, from);
    into.guard.merge(&from.guard, |shard| shard.within(from_key));
    into.recent_event_ids.merge(&from.recent_event_ids, journey.dedupe_last);
    for (rule, (state, other)) in journey.rules.iter().zip(into.rules.iter_mut().zip(&from.rules)) {
        merge_rule(journey, rule, state, other, &into.sessions);
    }
    merge_offers(&mut into.offers, &from.offers);
    offers::merge(journey, &mut into.open_offers, &from.open_offers, from_key);
    into.membership = merged_membership(into.membership, from.membership);
    if !is_in(journey, into) {
        for state in &mut into.rules {
            state.timer = None;
            state.put_off = None;
        }
    }
    merge_trait(&mut into.timezone, &from.timezone);
    into.wake_at = earlier(into.wake_at, from.wake_at);
    let mut aliases = std::mem::take(&mut into.aliases);
    let others = from.aliases.iter().filter(|alias| !aliases.contains(alias));
    // The other's are further from those that come with the user's next events.
    let mut all: Vec<u64> = others.copied().collect();
    all.append(&mut aliases);
    into.aliases = all;
    point_from(into, from.pointer_depth, from_key);
}

/// Takes in a key under which no profile is stored: it becomes a pointer to this user, so that later events that name it
/// come here.
pub fn merge_nobody(into: &mut Profile, from_key: &str) {
    point_from(into, 0, from_key);
}

/// Whether the key of this profile may become a pointer: whoever follows the longest chain from then on arrives within
/// [`POINTERS_MAX`] steps.
pub fn has_room_for_pointer(from: &Profile) -> bool {
    usize::from(from.pointer_depth) < POINTERS_MAX
}

fn point_from(into: &mut Profile, from_depth: u8, from_key: &str) {
    into.pointer_depth = into.pointer_depth.max(from_depth.saturating_add(1));
    remember_alias(into, from_key);
}

/// Remembers that the profile of `key` needs no merging any more: it was merged, never was one, or is another user's.
pub fn remember_alias(profile: &mut Profile, key: &str) {
    let hash = alias_hash(key);
    profile.aliases.retain(|known| *known != hash);
    profile.aliases.push(hash);
    let beyond = profile.aliases.len().saturating_sub(ALIASES_MAX);
    profile.aliases.drain(..beyond);
}

/// What a profile remembers of a key in [`Profile::aliases`].
pub fn alias_hash(key: &str) -> u64 {
    hash_bytes(key.as_bytes())
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn merge_rule(journey: &Journey, rule: &Rule, state: &mut RuleState, other: &RuleState, sessions: &Sessions) {
    state.fired = state.fired.saturating_add(other.fired);
    state.last_fired_at = state.last_fired_at.max(other.last_fired_at);
    state.within_limit = match (state.within_limit, other.within_limit) {
        (Some(one), Some(other)) => Some(merged_limit(journey, rule.limit, one, other, sessions)),
        (one, other) => one.or(other),
    };
    state.holds |= other.holds;
    state.timer = match (state.timer, other.timer) {
        (Some(one), Some(other)) => Some(merged_timer(&rule.moment, one, other)),
        (one, other) => one.or(other),
    };
    state.put_off = match (state.put_off.take(), &other.put_off) {
        (Some(one), Some(other)) if put_off_order(other) < put_off_order(&one) => Some(other.clone()),
        (one, other) => one.or_else(|| other.clone()),
    };
}

fn merged_limit(
    journey: &Journey,
    limit: Option<Limit>,
    one: WithinLimit,
    other: WithinLimit,
    sessions: &Sessions,
) -> WithinLimit {
    let session_of = |within: WithinLimit| sessions.position(Timestamp::from_epoch_ms(within.scope));
    let is_same = one.scope == other.scope
        || match limit.map(|limit| limit.per) {
            // Two sessions may have become one.
            Some(LimitPer::Session) => session_of(one).is_some_and(|session| session_of(other) == Some(session)),
            _ => false,
        };
    if is_same {
        return WithinLimit {
            scope: one.scope.min(other.scope),
            fired: one.fired.saturating_add(other.fired),
        };
    }
    let present = match limit.map(|limit| limit.per) {
        Some(LimitPer::JourneyVersion) => Some(hash_bytes(journey.version.as_bytes()) as i64),
        _ => None,
    };
    match present {
        Some(present) if one.scope == present => one,
        Some(present) if other.scope == present => other,
        _ if one.scope < other.scope => other,
        _ => one,
    }
}

fn merged_timer(moment: &Moment, one: TimerState, other: TimerState) -> TimerState {
    match moment {
        // The step is done when it was done first. A reminder that was made for either is not made again.
        Moment::Timer(timer) if matches!(timer.since, Since::Step(_)) => TimerState {
            since: one.since.min(other.since),
            done: one.done.max(other.done),
        },
        _ => {
            let order = |timer: TimerState| (timer.since, timer.done);
            if order(one) < order(other) { other } else { one }
        }
    }
}

/// The earliest first, and whatever tells two apart after that, so that the order of merging makes no difference.
fn put_off_order(put_off: &PutOff) -> impl Ord + '_ {
    let cause = &put_off.cause;
    (
        put_off.until,
        put_off.reminder,
        cause.at,
        &cause.event_id,
        &cause.shard_id,
        cause.sequence_number,
    )
}

fn merge_offers(offers: &mut Vec<OfferMade>, other: &[OfferMade]) {
    if other.is_empty() {
        return;
    }
    let order = |offer: &OfferMade| (offer.at, offer.rule, offer.content, offer.slot);
    offers.extend_from_slice(other);
    offers.sort_by_key(order);
    offers.dedup();
    let beyond = offers.len().saturating_sub(OFFERS_MADE_MAX);
    offers.drain(..beyond);
}

/// What a person did last says where they are, with whichever id they did it: in where they came in after they left last.
/// Whether they come in again is the policy's to say, at the next event.
fn merged_membership(one: Membership, other: Membership) -> Membership {
    let entered_at = one.entered_at.max(other.entered_at);
    Membership {
        entered_at,
        left_at: one
            .left_at
            .max(other.left_at)
            .filter(|left_at| entered_at <= Some(*left_at)),
    }
}

/// Takes the history of another profile of the same user into this one: sessions, features, steps and traits, as if the
/// events of both had come to one profile. In whatever order profiles are merged, the result is the same, within what
/// [`crate::feature::Computation::merge`] and [`crate::sessions::Sessions::merge`] say. Both profiles are laid out for the
/// same journey. What stands for deliveries and decisions (guard, event ids, rules, outbox) is not history and stays.
pub fn merge_history(journey: &Journey, profile: &mut Profile, other: &Profile) {
    profile.applied_events = profile.applied_events.saturating_add(other.applied_events);
    profile.now = profile.now.max(other.now);
    let now = profile.now;
    profile.sessions.merge(&other.sessions, journey.idle_timeout_ms);
    follow_sessions(journey, profile, now);
    for ((feature, state), other) in journey.features.iter().zip(&mut profile.features).zip(&other.features) {
        feature.computation.merge(state, other, &profile.sessions, now);
    }
    for (done_at, other) in profile.steps.iter_mut().zip(&other.steps) {
        *done_at = match (*done_at, *other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    for (known, other) in profile.traits.iter_mut().zip(&other.traits) {
        merge_trait(known, other);
    }
}

/// Profiles of many users in memory, with the pointers that merging leaves: what comes of events one by one, as
/// profile-writer does it over its table.
#[derive(Clone, Debug, Default)]
pub struct Household {
    held: HashMap<String, Held>,
}

#[derive(Clone, Debug)]
enum Held {
    /// Taken out while it is planned on.
    Profile(Option<Box<Profile>>),
    /// Its user turned out to be this one.
    Pointer(String),
}

/// What an event did in a [`Household`].
#[derive(Clone, Debug)]
pub struct HouseholdStep {
    /// What became of it.
    pub outcome: EventOutcome,
    /// What it fired.
    pub triggers: Vec<Trigger>,
    /// What came of earlier offers.
    pub outcomes: Vec<Outcome>,
    /// What became of the rules.
    pub rules: RuleCounts,
    /// Whether it made one profile of two.
    pub merged: bool,
}

impl HouseholdStep {
    fn nothing() -> HouseholdStep {
        HouseholdStep {
            outcome: EventOutcome::Ignored,
            triggers: Vec::new(),
            outcomes: Vec::new(),
            rules: RuleCounts::default(),
            merged: false,
        }
    }
}

impl Household {
    /// Nobody yet.
    pub fn new() -> Household {
        Household::default()
    }

    /// The user that a key has become: itself, unless it points to another.
    pub fn user_of<'k>(&'k self, key: &'k str) -> &'k str {
        let mut user = key;
        for _ in 0..POINTERS_MAX {
            match self.held.get(user) {
                Some(Held::Pointer(to)) => user = to,
                _ => break,
            }
        }
        user
    }

    /// Whether a key points to another.
    pub fn is_pointer(&self, key: &str) -> bool {
        matches!(self.held.get(key), Some(Held::Pointer(_)))
    }

    /// The profile of a user; that of a key that points to another is the other's.
    pub fn profile(&self, key: &str) -> Option<&Profile> {
        match self.held.get(self.user_of(key)) {
            Some(Held::Profile(profile)) => profile.as_deref(),
            _ => None,
        }
    }

    /// The users with a profile and those profiles, in no order.
    pub fn profiles(&self) -> impl Iterator<Item = (&str, &Profile)> {
        self.held.iter().filter_map(|(user, held)| match held {
            Held::Profile(profile) => Some((user.as_str(), profile.as_deref()?)),
            Held::Pointer(_) => None,
        })
    }

    /// The keys that point to another and those others, in no order. Each points to whom its user turned out to be first,
    /// who may have turned out to be somebody else since.
    pub fn pointers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().filter_map(|(key, held)| match held {
            Held::Pointer(to) => Some((key.as_str(), to.as_str())),
            Held::Profile(_) => None,
        })
    }

    /// Takes the profiles out, in no order.
    pub fn into_profiles(self) -> impl Iterator<Item = (String, Profile)> {
        self.held.into_iter().filter_map(|(user, held)| match held {
            Held::Profile(profile) => Some((user, *profile?)),
            Held::Pointer(_) => None,
        })
    }

    /// Hands over what is held of a key, profile or pointer, to another household: for users that are spread over several,
    /// each with a thread of its own, until it turns out that two keys are one user's.
    pub fn hand_over(&mut self, key: &str, to: &mut Household) {
        if let Some((key, held)) = self.held.remove_entry(key) {
            to.held.insert(key, held);
        }
    }

    /// Applies an event to the profile that it belongs to by now, and merges another one into it if the event says so.
    pub fn apply(&mut self, journey: &Journey, snapshots: &Snapshots, arrived: &ArrivedEvent<'_>) -> HouseholdStep {
        let key = arrived.event.user.as_ref();
        if !self.is_pointer(key) {
            return self.apply_to(journey, snapshots, key, arrived);
        }
        let user = self.user_of(key).to_owned();
        if self.is_pointer(&user) {
            // No merge makes such a chain. Nobody's profile is here, so nothing is written over the pointer.
            return HouseholdStep::nothing();
        }
        let shard = self.lane_of(key, arrived.shard);
        self.apply_to(journey, snapshots, &user, &arrived.followed(&user, &shard))
    }

    /// The lane in the user's guard of records that name `key`.
    pub fn lane_of(&self, key: &str, shard: &Shard) -> Shard {
        let mut lane = shard.clone();
        let mut key = key;
        for _ in 0..POINTERS_MAX {
            let Some(Held::Pointer(to)) = self.held.get(key) else {
                break;
            };
            lane = lane.within(key);
            key = to;
        }
        lane
    }

    fn apply_to(
        &mut self,
        journey: &Journey,
        snapshots: &Snapshots,
        user: &str,
        arrived: &ArrivedEvent<'_>,
    ) -> HouseholdStep {
        let mut profile = self.take(journey, user);
        let mut step = HouseholdStep::nothing();
        loop {
            let plan = plan_user(journey, snapshots, *profile, [arrived]);
            *profile = plan.profile;
            step.triggers.append(&mut profile.outbox);
            step.outcomes.append(&mut profile.outcomes);
            step.rules.add(&plan.rules);
            match (plan.outcomes.first(), plan.stopped) {
                (Some(outcome), _) => {
                    step.outcome = *outcome;
                    break;
                }
                (None, Some(Stopped::AliasToMerge(other))) => {
                    step.merged |= self.meet(journey, user, &mut profile, &other);
                }
                // What was due before the event is made by now, and the next round goes on.
                (None, Some(Stopped::OutboxIsFull)) => {}
                // Planning has an outcome or a reason to stop.
                (None, None) => break,
            }
        }
        self.put(user, profile);
        step
    }

    fn take(&mut self, journey: &Journey, user: &str) -> Box<Profile> {
        let held = match self.held.get_mut(user) {
            Some(Held::Profile(profile)) => profile.take(),
            _ => None,
        };
        held.unwrap_or_else(|| Box::new(Profile::new(journey)))
    }

    fn put(&mut self, user: &str, profile: Box<Profile>) {
        match self.held.get_mut(user) {
            Some(held) => *held = Held::Profile(Some(profile)),
            None => {
                self.held.insert(user.to_owned(), Held::Profile(Some(profile)));
            }
        }
    }

    /// Merges the profile of another key, unless that is another user's by now. Says whether it merged one.
    fn meet(&mut self, journey: &Journey, user: &str, profile: &mut Profile, other: &str) -> bool {
        let pointer = || Held::Pointer(user.to_owned());
        match self.held.get_mut(other) {
            Some(Held::Pointer(_)) => remember_alias(profile, other),
            None => {
                self.held.insert(other.to_owned(), pointer());
                merge_nobody(profile, other);
            }
            Some(Held::Profile(Some(from))) if !has_room_for_pointer(from) => remember_alias(profile, other),
            Some(held) => {
                if let Held::Profile(Some(from)) = std::mem::replace(held, pointer()) {
                    merge_profiles(journey, profile, &from, other);
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
