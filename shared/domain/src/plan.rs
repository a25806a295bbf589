//! Planning: what a user's events of a batch do to their profile (P7).

use crate::event::ArrivedEvent;
use crate::fold::{self, EventOutcome};
use crate::hash::hash_bytes;
use crate::journey::{Dispatch, Journey};
use crate::limits::OUTBOX_TRIGGERS_MAX;
use crate::profile::Profile;
use crate::rules::{self, RuleCounts};

/// What is to be done for one user.
#[derive(Clone, Debug, PartialEq)]
pub struct UserPlan {
    /// The profile as it is to be: state, guard and outbox change in one write (P4).
    pub profile: Profile,
    /// Whether it must be written. An outbox alone needs no write: it is stored already.
    pub changed: bool,
    /// What became of each event, in order. Fewer than were given where the outbox is full: the rest is planned again
    /// after this plan was carried out.
    pub outcomes: Vec<EventOutcome>,
    /// What became of each rule.
    pub rules: RuleCounts,
    /// Why planning stopped before the last event, where it did.
    pub stopped: Option<Stopped>,
}

/// Why planning stopped before an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The outbox may not hold what the event fires: go on when it was sent.
    OutboxIsFull,
    /// The event says that another profile is the same user's: go on when that was merged into this one, and write both
    /// together. It is the key of the other.
    AliasToMerge(String),
}

/// Plans one user's events, in stream order, on the profile as it was read.
///
/// A pure function: the same journey, profile and events give the same plan, whoever runs it and whenever (P7). Events
/// that were applied before change nothing, so a redelivered batch plans to nothing but its unsent triggers (P2, P5).
pub fn plan_user<'e, 'a: 'e>(
    journey: &Journey,
    mut profile: Profile,
    events: impl IntoIterator<Item = &'e ArrivedEvent<'a>>,
) -> UserPlan {
    let events = events.into_iter();
    let mut outcomes = Vec::with_capacity(events.size_hint().0);
    let mut rule_counts = RuleCounts::default();
    let mut changed = false;
    let mut stopped = None;
    for arrived in events {
        let dispatch = journey.dispatch(&arrived.event.event_type);
        let outcome = fold::outcome(dispatch, &profile, arrived);
        if outcome == EventOutcome::Applied && !has_room(dispatch, &profile) {
            stopped = Some(Stopped::OutboxIsFull);
            break;
        }
        if outcome == EventOutcome::Applied
            && let Some(alias) = &arrived.event.alias
            && !profile.aliases.contains(&hash_bytes(alias.as_bytes()))
        {
            stopped = Some(Stopped::AliasToMerge(alias.clone().into_owned()));
            break;
        }
        match outcome {
            EventOutcome::Applied => {
                fold::apply(journey, dispatch, &mut profile, arrived);
                rules::run(journey, dispatch, &mut profile, arrived, &mut rule_counts);
                changed = true;
            }
            // Its record is settled: it stays so when it comes again after its id was forgotten. That alone is worth no
            // write, so it is stored with the next one.
            EventOutcome::Duplicate | EventOutcome::Woken => profile.guard.advance(arrived.shard.key, arrived.position),
            EventOutcome::Redelivered | EventOutcome::Ignored => {}
        }
        outcomes.push(outcome);
    }
    UserPlan {
        profile,
        changed,
        outcomes,
        rules: rule_counts,
        stopped,
    }
}

/// Whether the outbox can take whatever the event may fire. An empty one can: what one event fires is sent together.
fn has_room(dispatch: &Dispatch, profile: &Profile) -> bool {
    let held = profile.outbox.len();
    held == 0 || held + dispatch.rules.len() <= OUTBOX_TRIGGERS_MAX
}

#[cfg(test)]
mod tests;
