//! What a profile keeps for a rule, as it is stored. A rule of which nothing is known takes no byte.

use minicbor::{Decode, Encode};
use usher_domain::journey::{Moment, Rule};
use usher_domain::limits::REMINDERS_MAX;
use usher_domain::profile::{PutOff, RuleState, TimerState, WithinLimit};

use super::Times;
use super::trigger_state::{StoredCause, load_cause, load_seen, store_cause, store_seen};

#[derive(Encode, Decode)]
pub(super) struct StoredRule {
    #[n(0)]
    pub(super) fingerprint: u32,
    #[n(1)]
    fired: u64,
    #[n(2)]
    last_before_now_ms: Option<i64>,
    // What follows came later; what is used most comes first, since what is left out before something takes a byte.
    #[n(3)]
    timer: Option<StoredTimer>,
    #[n(4)]
    holds: Option<bool>,
    #[n(5)]
    within_limit: Option<StoredWithinLimit>,
    #[n(6)]
    put_off: Option<StoredPutOff>,
}

#[derive(Encode, Decode)]
struct StoredTimer {
    #[n(0)]
    since_before_now_ms: i64,
    /// Nothing is 0.
    #[n(1)]
    done: Option<u32>,
}

#[derive(Encode, Decode)]
struct StoredWithinLimit {
    /// Less than now, so that a session's is short.
    #[n(0)]
    scope_before_now: i64,
    #[n(1)]
    fired: u64,
}

#[derive(Encode, Decode)]
struct StoredPutOff {
    #[n(0)]
    until_before_now_ms: i64,
    #[n(1)]
    reminder: u32,
    #[n(2)]
    cause: StoredCause,
    #[n(3)]
    saw: Vec<(String, String)>,
}

/// Nothing where there is nothing to keep.
pub(super) fn store_rule(rule: &Rule, state: &RuleState, times: Times) -> Option<StoredRule> {
    if *state == RuleState::default() {
        return None;
    }
    Some(StoredRule {
        fingerprint: rule.fingerprint,
        fired: state.fired,
        last_before_now_ms: state.last_fired_at.map(|at| times.before_now_ms(at)),
        timer: state.timer.map(|timer| StoredTimer {
            since_before_now_ms: times.before_now_ms(timer.since),
            done: (timer.done > 0).then_some(timer.done),
        }),
        holds: state.holds.then_some(true),
        within_limit: state.within_limit.map(|within| StoredWithinLimit {
            scope_before_now: times.now.epoch_ms().wrapping_sub(within.scope),
            fired: within.fired,
        }),
        put_off: state.put_off.as_ref().map(|put_off| StoredPutOff {
            until_before_now_ms: times.before_now_ms(put_off.until),
            reminder: put_off.reminder,
            cause: store_cause(&put_off.cause, times),
            saw: store_seen(&put_off.saw),
        }),
    })
}

/// Nothing where a part has an impossible length. What a rule of another kind has no use for is forgotten: it was changed,
/// so it starts anew.
pub(super) fn load_rule(stored: StoredRule, rule: &Rule, times: Times) -> Option<RuleState> {
    let is_timer = matches!(rule.moment, Moment::Timer(_));
    let is_transition = matches!(rule.moment, Moment::Enters(_) | Moment::Leaves(_));
    let put_off = match stored.put_off {
        None => None,
        Some(put_off) => Some(Box::new(PutOff {
            until: times.at(put_off.until_before_now_ms),
            reminder: put_off.reminder.min(REMINDERS_MAX as u32),
            cause: load_cause(put_off.cause, times)?,
            saw: load_seen(put_off.saw),
        })),
    };
    let timer = stored.timer.filter(|_| is_timer).map(|timer| TimerState {
        since: times.at(timer.since_before_now_ms),
        done: timer.done.unwrap_or_default().min(REMINDERS_MAX as u32),
    });
    let within_limit = stored.within_limit.map(|within| WithinLimit {
        scope: times.now.epoch_ms().wrapping_sub(within.scope_before_now),
        fired: within.fired,
    });
    Some(RuleState {
        fired: stored.fired,
        last_fired_at: stored.last_before_now_ms.map(|ms| times.at(ms)),
        within_limit: within_limit.filter(|_| rule.limit.is_some()),
        holds: is_transition && stored.holds.unwrap_or_default(),
        timer,
        put_off,
    })
}
