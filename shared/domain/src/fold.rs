//! Applying one event to one profile.

use crate::condition::Scope;
use crate::event::{ArrivedEvent, TIMER_EVENT};
use crate::feature::{Dated, Folding, apply_trait, short_shard};
use crate::journey::{Dispatch, Journey};
use crate::limits::STEPS_MAX;
use crate::local_time::is_time_zone;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::value::{Scalar, Value};

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// It was folded into the profile.
    Applied,
    /// Its record, or a later one of its shard, was applied before: Kinesis or Lambda delivered it again (P2).
    Redelivered,
    /// Its id is among the last that the profile remembers: the producer sent it again (P2).
    Duplicate,
    /// The journey ignores its type.
    Ignored,
    /// It was a [`TIMER_EVENT`]: the profile looked at its timers as of its arrival.
    Woken,
}

/// Decides whether an event takes effect, without changing anything. `dispatch` is the journey's for its type.
pub fn outcome(dispatch: &Dispatch, profile: &Profile, arrived: &ArrivedEvent<'_>) -> EventOutcome {
    if profile.is_redelivery(arrived) {
        EventOutcome::Redelivered
    } else if arrived.event.event_type == TIMER_EVENT {
        EventOutcome::Woken
    } else if dispatch.ignored {
        EventOutcome::Ignored
    } else if profile.recent_event_ids.contains(arrived.event.id_hash) {
        EventOutcome::Duplicate
    } else {
        EventOutcome::Applied
    }
}

/// What an event changed that timers count from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The steps that were done for the first time, a bit each.
    steps_done: u64,
    /// The steps that turned out to have been done earlier, a bit each.
    steps_moved: u64,
    /// When the latest session ended before.
    pub(crate) session_end_before: Option<Timestamp>,
}

// A bit for each step.
const _: () = assert!(STEPS_MAX <= u64::BITS as usize);

impl Folded {
    /// Whether the event is the first that did this step.
    pub fn is_newly_done(&self, step: usize) -> bool {
        self.steps_done >> step & 1 == 1
    }

    /// Whether the event is the first that did any step.
    pub fn did_a_step(&self) -> bool {
        self.steps_done != 0
    }

    /// Whether the event did this step earlier than was known.
    pub fn is_moved(&self, step: usize) -> bool {
        self.steps_moved >> step & 1 == 1
    }
}

/// Folds an event into the profile: guard, ids, sessions, traits, features and steps. Rules come after, in
/// [`crate::rules`]. The event must be one whose [`outcome`] is [`EventOutcome::Applied`].
pub fn apply(journey: &Journey, dispatch: &Dispatch, profile: &mut Profile, arrived: &ArrivedEvent<'_>) -> Folded {
    let event = &arrived.event;
    let shard = short_shard(arrived.shard.key);
    profile.guard.advance(arrived.shard.key, arrived.position);
    profile.recent_event_ids.remember(event.id_hash, journey.dedupe_last);
    profile.applied_events = profile.applied_events.saturating_add(1);
    // Records of two shards may come in either order; the profile's now never goes back.
    profile.now = profile.now.max(arrived.arrived_at);
    let now = profile.now;
    let mut folded = Folded {
        session_end_before: profile.sessions.latest().map(|session| session.end),
        ..Folded::default()
    };
    if profile.sessions.add(event.at, journey.idle_timeout_ms) {
        follow_sessions(journey, profile, now);
    }
    if event.traits.is_some() {
        for (name, known) in journey.traits.iter().zip(&mut profile.traits) {
            apply_trait(known, name, event, shard);
        }
    }
    for index in &dispatch.features {
        let feature = &journey.features[*index];
        let looked_at = feature.when.as_ref().is_none_or(|when| {
            when.is_met(&Scope {
                journey,
                event,
                profile,
                snapshots: Snapshots::none(),
                now,
            }) == Ok(true)
        });
        if looked_at {
            let folding = Folding {
                shard,
                now,
                sessions: &profile.sessions,
            };
            feature
                .computation
                .apply(&mut profile.features[*index], event, &folding);
        }
    }
    for index in &dispatch.steps {
        let step = &journey.steps[*index];
        // Once done, only an earlier event can change when it was.
        if profile.steps[*index].is_some_and(|done_at| done_at <= event.at) {
            continue;
        }
        let done = step.when.as_ref().is_none_or(|when| {
            when.is_met(&Scope {
                journey,
                event,
                profile,
                snapshots: Snapshots::none(),
                now,
            }) == Ok(true)
        });
        if done {
            let bit = 1 << *index;
            match profile.steps[*index].replace(event.at) {
                Some(_) => folded.steps_moved |= bit,
                None => folded.steps_done |= bit,
            }
        }
    }
    folded
}

/// Keeps the time zone of the latest event that names one, where the journey goes by it
/// ([`Journey::goes_by_local_time`]). Says whether the clock is another one now.
pub fn follow_clock(profile: &mut Profile, arrived: &ArrivedEvent<'_>) -> bool {
    let event = &arrived.event;
    let Some(zone) = event.location.timezone.as_deref() else {
        return false;
    };
    let shard = short_shard(arrived.shard.key);
    match &mut profile.timezone {
        Some(known) if !known.is_superseded_by(event.at, shard) => false,
        Some(known) if known.value.is(&Value::Text(zone.into())) => {
            known.at = event.at;
            known.shard = shard;
            false
        }
        known if is_time_zone(zone) => {
            *known = Some(Dated {
                at: event.at,
                shard,
                value: Scalar::Text(zone.to_owned()),
            });
            true
        }
        _ => false,
    }
}

/// What a feature keeps for each session follows when sessions become one or close.
pub(crate) fn follow_sessions(journey: &Journey, profile: &mut Profile, now: Timestamp) {
    for index in &journey.per_session {
        let feature = &journey.features[*index];
        feature
            .computation
            .follow_sessions(&mut profile.features[*index], &profile.sessions, now);
    }
}
