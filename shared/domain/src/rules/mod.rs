//! Which rules fire at a moment, and why the others don't.
//!
//! A moment is an applied event, or a time at which reminders or put-off offers are due. At each, rules look in the order
//! of their priorities, and each look comes out in one way: [`RuleOutcome`]. [`consider`] evaluates a rule without changing
//! anything, for whoever asks why.

mod choose;
mod consider;
mod firing;
mod outcome;

pub use choose::{CandidateStanding, ChoiceStanding, Refused};
pub use consider::{Considered, choice, consider, duration};
pub(crate) use consider::{fired_within_limit, offered};
pub use outcome::{RuleCounts, RuleOutcome};

use crate::condition::Scope;
use crate::event::{ArrivedEvent, Event, TIMER_EVENT};
use crate::journey::{Dispatch, Journey, Moment};
use crate::limits::RULES_MAX;
use crate::policy;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::timers;
use consider::judge;

/// Why a rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAt {
    /// An event came, or for a transition, time has passed.
    Event,
    /// This reminder of its timer is due.
    Reminder(u32),
    /// Its put-off offer is due, of this reminder.
    PutOff(u32),
}

/// A rule, by its index, that looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub(crate) rule: usize,
    pub(crate) at: LookAt,
    /// When what it looks at was due; before the moment, where it counts from an event that came late.
    pub(crate) due_at: Option<Timestamp>,
}

impl Look {
    /// A look at an event, which is not due.
    pub(crate) fn new(rule: usize, at: LookAt) -> Look {
        Look { rule, at, due_at: None }
    }

    pub(crate) fn due(rule: usize, at: LookAt, due_at: Timestamp) -> Look {
        Look {
            rule,
            at,
            due_at: Some(due_at),
        }
    }

    /// Which of a timer's reminders it is about.
    fn reminder(self) -> u32 {
        match self.at {
            LookAt::Event => 0,
            LookAt::Reminder(reminder) | LookAt::PutOff(reminder) => reminder,
        }
    }

    fn is_put_off(self) -> bool {
        matches!(self.at, LookAt::PutOff(_))
    }
}

/// A moment at which rules look.
#[derive(Clone, Copy)]
struct Occasion<'o> {
    /// The event; where time has passed, one that stands for that.
    event: &'o Event<'o>,
    /// The record that brought the event, or woke the user.
    record: &'o ArrivedEvent<'o>,
    /// What was learned from all users.
    snapshots: &'o Snapshots,
    /// The moment.
    now: Timestamp,
}

/// Runs the rules that look at this event, which is already folded into the profile. Those that fire are noted in the
/// profile and their triggers are put into its outbox (P5). *Now* is the record's arrival (P7).
pub fn run(
    journey: &Journey,
    snapshots: &Snapshots,
    dispatch: &Dispatch,
    profile: &mut Profile,
    arrived: &ArrivedEvent<'_>,
    counts: &mut RuleCounts,
) {
    if dispatch.rules.is_empty() {
        return;
    }
    let occasion = Occasion {
        event: &arrived.event,
        record: arrived,
        snapshots,
        now: profile.now,
    };
    let looks = dispatch.rules.iter().map(|rule| Look::new(*rule, LookAt::Event));
    run_looks(journey, profile, &occasion, looks, counts);
}

/// Makes the reminders and put-off offers that are due by a moment, as of that moment, by whichever record woke the user.
/// `looks` are those of [`timers::looks`].
pub(crate) fn run_due(
    journey: &Journey,
    snapshots: &Snapshots,
    profile: &mut Profile,
    looks: &[Look],
    moment: Timestamp,
    record: &ArrivedEvent<'_>,
    counts: &mut RuleCounts,
) {
    let event = Event {
        event_type: TIMER_EVENT.into(),
        at: moment,
        user: record.event.user.as_ref().into(),
        ..Event::default()
    };
    profile.now = profile.now.max(moment);
    timers::advance(journey, profile, moment);
    if policy::has_membership(journey) {
        policy::update_membership(journey, profile, &event, moment);
    }
    let occasion = Occasion {
        event: &event,
        record,
        snapshots,
        now: moment,
    };
    run_looks(journey, profile, &occasion, looks.iter().copied(), counts);
}

/// Looks at one moment: a put-off offer and another look for each rule at most.
const LOOKS_MAX: usize = 2 * RULES_MAX;

fn run_looks(
    journey: &Journey,
    profile: &mut Profile,
    occasion: &Occasion<'_>,
    looks: impl Iterator<Item = Look> + Clone,
    counts: &mut RuleCounts,
) {
    let first_new = profile.outbox.len();
    let is_in = policy::is_in(journey, profile);
    // The rules that fired. Nearly always there is none, and then nothing is allocated.
    let mut fired: Vec<usize> = Vec::new();
    let mut outcomes = [None; LOOKS_MAX];
    for (look, place) in looks.clone().zip(&mut outcomes) {
        let turned = match &journey.rules[look.rule].moment {
            Moment::Event | Moment::Timer(_) => true,
            Moment::Enters(_) | Moment::Leaves(_) => {
                // What time alone changed is named after the moment, so it is told once at one (P5): with a merge, a
                // condition may come to hold again at the moment at which it ceased to.
                let last = profile.rules[look.rule].last_fired_at;
                turn(journey, profile, occasion, look) && (look.due_at.is_none() || last < Some(occasion.now))
            }
        };
        let put_off = match look.at {
            LookAt::PutOff(_) => profile.rules[look.rule].put_off.take(),
            LookAt::Event | LookAt::Reminder(_) => None,
        };
        if put_off
            .as_deref()
            .is_some_and(|put_off| timers::is_made(&profile.rules[look.rule], put_off))
        {
            continue;
        }
        let scope = Scope {
            journey,
            event: occasion.event,
            profile,
            snapshots: occasion.snapshots,
            now: occasion.now,
        };
        let outcome = match is_in {
            true => judge(&scope, look, turned, &fired),
            false => Some(RuleOutcome::NotInJourney),
        };
        let Some(outcome) = outcome else { continue };
        counts.count(look.rule, outcome);
        *place = Some(outcome);
        match outcome {
            RuleOutcome::Fired | RuleOutcome::HeldOut => {
                firing::fire(journey, profile, occasion, look, put_off, outcome);
                fired.push(look.rule);
            }
            RuleOutcome::QuietUntil => firing::put_off(journey, profile, occasion, look, put_off),
            RuleOutcome::LostToPriority => firing::note_loser(journey, profile, first_new, look.rule),
            _ => {}
        }
    }
    if !fired.is_empty() {
        let others = looks.zip(outcomes).filter_map(|(look, outcome)| Some((look, outcome?)));
        firing::note_passed_over(journey, profile, occasion, first_new, &fired, others);
    }
}

/// Whether what a rule looks for has just come about, where it looks for a change; it remembers what it saw.
fn turn(journey: &Journey, profile: &mut Profile, occasion: &Occasion<'_>, look: Look) -> bool {
    let (condition, wanted) = match &journey.rules[look.rule].moment {
        Moment::Enters(condition) if look.at == LookAt::Event => (condition, true),
        Moment::Leaves(condition) if look.at == LookAt::Event => (condition, false),
        _ => return true,
    };
    let scope = Scope {
        journey,
        event: occasion.event,
        profile,
        snapshots: occasion.snapshots,
        now: occasion.now,
    };
    let holds = condition.is_met(&scope) == Ok(true);
    let held = std::mem::replace(&mut profile.rules[look.rule].holds, holds);
    holds == wanted && held != wanted
}

#[cfg(test)]
pub(crate) mod tests;
