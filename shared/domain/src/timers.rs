//! Time that passes: when a user's timers and put-off offers are due.
//!
//! A profile stores what a timer counts from and how many of its reminders are done with; when the next one is due follows
//! from that. A reminder is made as of when it was due, by whichever record of the user comes next: so it makes no
//! difference who wakes the user, or when (P7). That an event which takes a reminder back comes *after* the user was woken
//! is the one thing that waking decides: what was offered was offered.
//!
//! A user's moments never go back. What turns out to have been due before the latest of them, because an event came late,
//! is made as of that event's arrival, all in one moment; of one timer's reminders the latest, and none that was due long
//! before ([`TIMER_LATE_MS_MAX`]).

use std::cell::OnceCell;

use crate::condition::Scope;
use crate::event::{Event, TIMER_EVENT};
use crate::fold::Folded;
use crate::journey::{Dispatch, Due, Journey, Moment, QuietAction, Rule, Since, Timer};
use crate::limits::TIMER_LATE_MS_MAX;
use crate::local_time::LocalClock;
use crate::offers;
use crate::policy;
use crate::profile::{Profile, PutOff, RuleState, TimerState};
use crate::rules::{Look, LookAt, RuleCounts, RuleOutcome};
use crate::snapshots::Snapshots;
use crate::time::Timestamp;

/// Whether anything in this journey waits for time to pass: timers, or offers that are put off.
pub fn has_any(journey: &Journey) -> bool {
    let quiet_hours = journey.policy.quiet_hours.as_ref();
    quiet_hours.is_some_and(|quiet| quiet.then == QuietAction::Defer)
        || journey.rules.iter().any(|rule| matches!(rule.moment, Moment::Timer(_)))
}

/// When the timer of the rule with this index is due next; nothing where it waits for nothing.
pub fn due_of(journey: &Journey, profile: &Profile, rule: usize) -> Option<Timestamp> {
    due_by(&UsersClock::of(journey, profile), rule)
}

/// When the user must be woken next: the earliest time at which a timer or a put-off offer is due, or the window of an open
/// offer runs out. A timer whose `unless` holds and can't cease to is left out: its reminders will come to nothing.
pub fn next_due(journey: &Journey, profile: &Profile) -> Option<Timestamp> {
    let dues = [next_look(journey, profile), offers::next_expiry(profile)];
    dues.into_iter().flatten().min()
}

/// [`next_due`] of what rules look at.
pub(crate) fn next_look(journey: &Journey, profile: &Profile) -> Option<Timestamp> {
    let clock = UsersClock::of(journey, profile);
    let indices = 0..journey.rules.len();
    let dues = indices.flat_map(|index| [live_due_by(&clock, index), put_off_until(profile, index)]);
    dues.flatten().min()
}

/// The clock of a profile's user, which is looked up when it is first asked for: most timers never do.
struct UsersClock<'p> {
    journey: &'p Journey,
    profile: &'p Profile,
    clock: OnceCell<LocalClock>,
}

impl<'p> UsersClock<'p> {
    fn of(journey: &'p Journey, profile: &'p Profile) -> UsersClock<'p> {
        UsersClock {
            journey,
            profile,
            clock: OnceCell::new(),
        }
    }

    /// When a reminder is due of a timer that counts from `since`.
    fn due_at(&self, timer: &Timer, since: Timestamp, reminder: u32) -> Option<Timestamp> {
        Some(match *timer.reminders.get(reminder as usize)? {
            Due::After(after_ms) => since.plus_ms(after_ms),
            Due::LocalTime { days, minute } => {
                let clock = self
                    .clock
                    .get_or_init(|| policy::local_clock(self.journey, self.profile));
                let due = clock.time_of_day(since, days, minute);
                if due > since {
                    due
                } else {
                    clock.time_of_day(since, days.saturating_add(1), minute)
                }
            }
        })
    }
}

fn due_by(clock: &UsersClock<'_>, index: usize) -> Option<Timestamp> {
    let (timer, state) = armed(clock.journey.rules.get(index)?, clock.profile, index)?;
    clock.due_at(timer, state.since, state.done)
}

/// [`due_of`] of a timer that may still come to something. Nobody is woken for another, so nothing may look at it either:
/// or it would make a difference whether somebody was woken for something else (P7).
fn live_due_by(clock: &UsersClock<'_>, index: usize) -> Option<Timestamp> {
    let rule = clock.journey.rules.get(index)?;
    armed(rule, clock.profile, index)?;
    match is_moot(clock.journey, rule, clock.profile) {
        true => None,
        false => due_by(clock, index),
    }
}

/// The rules that look at a moment by which something is due, in the order of looking: those with a reminder or a put-off
/// offer by then, and those that look for a change. Several reminders of one timer are one: the latest.
pub(crate) fn looks(journey: &Journey, profile: &Profile, moment: Timestamp) -> Vec<Look> {
    let clock = UsersClock::of(journey, profile);
    let mut looks = Vec::new();
    for (index, rule) in journey.rules.iter().enumerate() {
        let put_off = profile.rules.get(index).and_then(|state| state.put_off.as_ref());
        if let Some(put_off) = put_off.filter(|put_off| put_off.until <= moment) {
            looks.push(Look::due(index, LookAt::PutOff(put_off.reminder), put_off.until));
        }
        match &rule.moment {
            Moment::Timer(_) => {
                if live_due_by(&clock, index).is_some_and(|due| due <= moment)
                    && let Some((reminder, due)) = latest_due_by(&clock, index, moment)
                {
                    looks.push(Look::due(index, LookAt::Reminder(reminder), due));
                }
            }
            Moment::Enters(_) | Moment::Leaves(_) => looks.push(Look::due(index, LookAt::Event, moment)),
            Moment::Event => {}
        }
    }
    // Stable: of one rule, what was put off comes before a new reminder.
    looks.sort_by_key(|look| (std::cmp::Reverse(journey.rules[look.rule].priority), look.rule));
    looks
}

/// The latest reminder that is due by a moment, and when it was: the first of those that are due at once. None where a
/// later one was made or put off: an event that came late, or a merge, started the timer anew from before that, and what is
/// made for one time is made once (P5).
fn latest_due_by(clock: &UsersClock<'_>, index: usize, moment: Timestamp) -> Option<(u32, Timestamp)> {
    let (timer, state) = armed(clock.journey.rules.get(index)?, clock.profile, index)?;
    let reminders = (state.done..).map_while(|reminder| Some((reminder, clock.due_at(timer, state.since, reminder)?)));
    let due = reminders.take_while(|(_, due)| *due <= moment);
    let latest = due.reduce(|latest, next| if next.1 > latest.1 { next } else { latest })?;
    (Some(latest.1) > made_until(&clock.profile.rules[index])).then_some(latest)
}

/// The latest time for which a timer's reminder was made or put off.
fn made_until(state: &RuleState) -> Option<Timestamp> {
    // A put-off reminder is named after when it was due: it is made for then, whenever that is.
    state
        .last_fired_at
        .max(state.put_off.as_ref().map(|put_off| put_off.cause.at))
}

/// Whether what time caused and a rule put off came too late: it was made already, by a profile that became a part of this
/// one, or something later was.
pub(crate) fn is_made(state: &RuleState, put_off: &PutOff) -> bool {
    put_off.cause.event_type == TIMER_EVENT && Some(put_off.cause.at) <= state.last_fired_at
}

/// Takes the reminders that are due by a moment as done with.
pub(crate) fn advance(journey: &Journey, profile: &mut Profile, moment: Timestamp) {
    for (index, rule) in journey.rules.iter().enumerate() {
        if matches!(rule.moment, Moment::Timer(_)) && !is_moot(journey, rule, profile) {
            skip_until(journey, profile, index, moment);
        }
    }
}

/// Starts timers after an event was folded, unless the user has left the journey. Says whether it started or moved any.
pub(crate) fn arm(
    journey: &Journey,
    dispatch: &Dispatch,
    profile: &mut Profile,
    event: &Event<'_>,
    folded: &Folded,
    counts: &mut RuleCounts,
) -> bool {
    if profile.membership.left_at.is_some() && policy::has_membership(journey) {
        return false;
    }
    let mut any = false;
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
                    snapshots: Snapshots::none(),
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
            any = true;
            profile.rules[index].timer = Some(armed);
            // A late event starts it anew, or moves it, to before what it did last: that is not done once more.
            if let Some(made_until) = made_until(&profile.rules[index]) {
                skip_until(journey, profile, index, made_until);
            }
            // Nothing is due before what it counts from, so nearly always that tells.
            let too_late = profile.now.minus_ms(TIMER_LATE_MS_MAX + 1);
            if armed.since <= too_late
                && !is_moot(journey, rule, profile)
                && skip_until(journey, profile, index, too_late)
            {
                counts.count(index, RuleOutcome::TooLate);
            }
        }
    }
    any
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

/// When the user is to be woken, after planning up to `as_of`, where `due` is the [`next_due`]: a time that is still ahead
/// and not after the first thing is due is kept, which saves writes to the index.
pub(crate) fn wake_at(profile: &Profile, due: Option<Timestamp>, as_of: Timestamp) -> Option<Timestamp> {
    let due = due?;
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

/// Takes all reminders that are due up to a time as done with, and says whether there was any. So two of one moment are one.
fn skip_until(journey: &Journey, profile: &mut Profile, index: usize, until: Timestamp) -> bool {
    let clock = UsersClock::of(journey, profile);
    let Some((timer, state)) = armed(&journey.rules[index], profile, index) else {
        return false;
    };
    let mut done = state.done;
    while clock.due_at(timer, state.since, done).is_some_and(|due| due <= until) {
        done += 1;
    }
    let skipped = done > state.done;
    if skipped {
        profile.rules[index].timer = Some(TimerState { done, ..state });
    }
    skipped
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
        snapshots: Snapshots::none(),
        now: profile.now,
    };
    unless.is_met(&scope) == Ok(true)
}

#[cfg(test)]
mod tests;
