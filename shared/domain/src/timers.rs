//! Time that passes: when a user's timers and put-off offers are due.
//!
//! A profile stores what a timer counts from and how many of its reminders are done with; when the next one is due follows
//! from that. A reminder is made as of when it was due, by whichever record of the user comes next: so it makes no
//! difference who wakes the user, or when (P7). That an event which takes a reminder back comes *after* the user was woken
//! is the one thing that waking decides: what was offered was offered.

use crate::condition::Scope;
use crate::event::Event;
use crate::fold::Folded;
use crate::journey::{Dispatch, Due, Journey, Moment, QuietAction, Rule, Since, Timer};
use crate::policy;
use crate::profile::{Profile, TimerState};
use crate::rules::{Look, LookAt};
use crate::time::Timestamp;

/// Whether anything in this journey waits for time to pass: timers, or offers that are put off.
pub fn has_any(journey: &Journey) -> bool {
    let quiet_hours = journey.policy.quiet_hours.as_ref();
    quiet_hours.is_some_and(|quiet| quiet.then == QuietAction::Defer)
        || journey.rules.iter().any(|rule| matches!(rule.moment, Moment::Timer(_)))
}

/// When the timer of the rule with this index is due next; nothing where it waits for nothing.
pub fn due_of(journey: &Journey, profile: &Profile, rule: usize) -> Option<Timestamp> {
    let (timer, state) = armed(journey.rules.get(rule)?, profile, rule)?;
    due_at(journey, profile, timer, state.since, state.done)
}

/// When the user must be woken next: the earliest time at which a timer or a put-off offer is due. A timer whose `unless`
/// holds and can't cease to is left out: its reminders will come to nothing.
pub fn next_due(journey: &Journey, profile: &Profile) -> Option<Timestamp> {
    let indices = 0..journey.rules.len();
    let dues = indices.flat_map(|index| [live_due_of(journey, profile, index), put_off_until(profile, index)]);
    dues.flatten().min()
}

/// [`due_of`] of a timer that may still come to something. Nobody is woken for another, so nothing may look at it either:
/// or it would make a difference whether somebody was woken for something else (P7).
fn live_due_of(journey: &Journey, profile: &Profile, index: usize) -> Option<Timestamp> {
    let rule = journey.rules.get(index)?;
    armed(rule, profile, index)?;
    match is_moot(journey, rule, profile) {
        true => None,
        false => due_of(journey, profile, index),
    }
}

/// The earliest time up to `limit` at which something is due.
pub(crate) fn next_moment(journey: &Journey, profile: &Profile, limit: Timestamp) -> Option<Timestamp> {
    next_due(journey, profile).filter(|due| *due <= limit)
}

/// The rules that look at a time at which something is due, in the order of looking: those with a reminder or a put-off
/// offer then, and those that look for a change.
pub(crate) fn looks(journey: &Journey, profile: &Profile, due: Timestamp) -> Vec<Look> {
    let mut looks = Vec::new();
    for (index, rule) in journey.rules.iter().enumerate() {
        if put_off_until(profile, index).is_some_and(|until| until <= due) {
            looks.push(Look::new(index, LookAt::PutOff));
        }
        match &rule.moment {
            Moment::Timer(_) => {
                if let Some((_, state)) = armed(rule, profile, index)
                    && live_due_of(journey, profile, index).is_some_and(|its| its <= due)
                {
                    looks.push(Look::new(index, LookAt::Reminder(state.done)));
                }
            }
            Moment::Enters(_) | Moment::Leaves(_) => looks.push(Look::new(index, LookAt::Event)),
            Moment::Event => {}
        }
    }
    // Stable: of one rule, what was put off comes before a new reminder.
    looks.sort_by_key(|look| (std::cmp::Reverse(journey.rules[look.rule].priority), look.rule));
    looks
}

/// Takes the reminders that are due at a time as done with.
pub(crate) fn advance(journey: &Journey, profile: &mut Profile, due: Timestamp) {
    for (index, rule) in journey.rules.iter().enumerate() {
        if matches!(rule.moment, Moment::Timer(_)) && !is_moot(journey, rule, profile) {
            skip_until(journey, profile, index, due);
        }
    }
}

/// Starts timers after an event was folded, unless the user has left the journey.
pub(crate) fn arm(journey: &Journey, dispatch: &Dispatch, profile: &mut Profile, event: &Event<'_>, folded: &Folded) {
    if profile.membership.left_at.is_some() && policy::has_membership(journey) {
        return;
    }
    for (index, rule) in journey.rules.iter().enumerate() {
        let Moment::Timer(timer) = &rule.moment else { continue };
        let state = profile.rules[index].timer;
        let armed = match &timer.since {
            Since::Step(step) => of_step(*step, state, profile, folded),
            Since::Event(when) => {
                let is_later = state.is_none_or(|state| event.at > state.since);
                let scope = Scope {
                    journey,
                    event,
                    profile,
                    now: profile.now,
                };
                let starts = is_later
                    && dispatch.timers.contains(&index)
                    && when.as_ref().is_none_or(|when| when.is_met(&scope) == Ok(true));
                starts.then_some(TimerState {
                    since: event.at,
                    done: 0,
                })
            }
            Since::SessionEnd => of_session(journey.idle_timeout_ms, state, profile, event, folded),
        };
        if let Some(armed) = armed {
            profile.rules[index].timer = Some(armed);
            // A late event starts it anew from before what it did last: that is not done once more.
            if armed.done == 0
                && let Some(last) = profile.rules[index].last_fired_at
            {
                skip_until(journey, profile, index, last);
            }
        }
    }
}

/// A timer starts when the step gets done, and moves when it turns out that it was done earlier.
fn of_step(step: usize, state: Option<TimerState>, profile: &Profile, folded: &Folded) -> Option<TimerState> {
    let done_at = profile.steps.get(step).copied().flatten()?;
    if folded.is_newly_done(step) {
        return Some(TimerState {
            since: done_at,
            done: 0,
        });
    }
    let state = state?;
    (folded.is_moved(step) && done_at != state.since).then_some(TimerState {
        since: done_at,
        ..state
    })
}

/// A timer starts with a session, and moves with its end.
fn of_session(
    idle_timeout_ms: i64,
    state: Option<TimerState>,
    profile: &Profile,
    event: &Event<'_>,
    folded: &Folded,
) -> Option<TimerState> {
    let latest = profile.sessions.latest()?;
    if event.at < latest.start || event.at > latest.end {
        return None;
    }
    let since = latest.end.plus_ms(idle_timeout_ms);
    let is_new = folded.session_end_before.is_none_or(|end| latest.start > end);
    match state {
        Some(state) if !is_new => (since != state.since).then_some(TimerState { since, ..state }),
        _ => Some(TimerState { since, done: 0 }),
    }
}

/// When the user is to be woken, after planning up to `as_of`: a time that is still ahead and not after the first thing is
/// due is kept, which saves writes to the index.
pub(crate) fn wake_at(journey: &Journey, profile: &Profile, as_of: Timestamp) -> Option<Timestamp> {
    let due = next_due(journey, profile)?;
    let kept = profile.wake_at.filter(|stored| *stored > as_of && *stored <= due);
    Some(kept.unwrap_or(due))
}

/// The timer and its state, where it has reminders left.
fn armed<'j>(rule: &'j Rule, profile: &Profile, index: usize) -> Option<(&'j Timer, TimerState)> {
    let Moment::Timer(timer) = &rule.moment else {
        return None;
    };
    let state = profile.rules.get(index)?.timer?;
    ((state.done as usize) < timer.reminders.len()).then_some((timer, state))
}

fn put_off_until(profile: &Profile, rule: usize) -> Option<Timestamp> {
    Some(profile.rules.get(rule)?.put_off.as_ref()?.until)
}

/// Takes all reminders that are due up to a time as done with. So two of one moment are one.
fn skip_until(journey: &Journey, profile: &mut Profile, index: usize, until: Timestamp) {
    while due_of(journey, profile, index).is_some_and(|due| due <= until) {
        match &mut profile.rules[index].timer {
            Some(state) => state.done += 1,
            None => return,
        }
    }
}

/// When a reminder is due.
fn due_at(journey: &Journey, profile: &Profile, timer: &Timer, since: Timestamp, reminder: u32) -> Option<Timestamp> {
    Some(match *timer.reminders.get(reminder as usize)? {
        Due::After(after_ms) => since.plus_ms(after_ms),
        Due::LocalTime { days, minute } => {
            let clock = policy::local_clock(journey, profile);
            let due = clock.time_of_day(since, days, minute);
            if due > since {
                due
            } else {
                clock.time_of_day(since, days.saturating_add(1), minute)
            }
        }
    })
}

/// Whether the rule's `unless` holds and can't cease to: it is made of nothing but steps that are done.
fn is_moot(journey: &Journey, rule: &Rule, profile: &Profile) -> bool {
    let Some(unless) = rule.unless.as_ref().filter(|unless| unless.is_steps_only()) else {
        return false;
    };
    let event = Event::default();
    let scope = Scope {
        journey,
        event: &event,
        profile,
        now: profile.now,
    };
    unless.is_met(&scope) == Ok(true)
}

#[cfg(test)]
mod tests;
