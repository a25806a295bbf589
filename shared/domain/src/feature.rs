//! Features: what the journey keeps count of, per user.
//!
//! Each is a fold over the user's events that gives the same state in whatever order events of different shards come
//! (P11): counts and sums add, first and last go by event time, and on equal times by shard and then stream order. The two
//! that give up something when they overflow say so: [`Computation::Top`] and [`Computation::PerSession`].
//!
//! Two states of one feature merge ([`Computation::merge`]), commutatively and associatively, for the day when it turns out
//! that two profiles are one user.
//!
//! What a feature costs in the stored item is said at each kind, beside 9 bytes for its name and kind. A number takes
//! 1 byte up to 23, 2 up to 255, 3 up to 65,535 and 5 up to 4 billion; a time 5. A state that holds nothing costs nothing.

mod cost;
mod dated;
pub mod distinct;
#[cfg(test)]
mod oracle;
mod score;
mod session_parts;
pub mod top;

pub use cost::ItemBytes;
pub use dated::{Dated, short_shard};
pub use score::score_tiles;
pub use session_parts::SessionPart;

use crate::event::{Event, Field};
use crate::journey::EventTypes;
use crate::limits::SUM_VALUE_MAX;
use crate::local_time::{HOURS, WEEKDAYS, local_time};
use crate::profile::Profile;
use crate::sessions::Sessions;
use crate::time::Timestamp;
use crate::value::Value;
use crate::window::{Extreme, Window, WindowLength};
use dated::{is_first, merge_one, merge_recent, remember_last, remember_recent};
use distinct::{Distinct, DistinctWithin, hash_of};
use top::Counted;

/// Sums are kept in millionths, as whole numbers: adding those is exact, so the order of adding can't show.
const MILLIONTHS: f64 = 1e6;

/// How a feature is computed from the events that it looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Computation {
    /// How many events, over all time. 1 to 5 bytes.
    Count,
    /// How many events within a sliding window, exact to one tile. 5 bytes for the first tile that holds something, 2 to 4
    /// for each further one.
    CountWithin(WindowLength),
    /// The sum of a number in the events, over all time, to a millionth. 1 to 17 bytes, 5 for sums up to 4,000.
    Sum(Field),
    /// The same within a sliding window, exact to one tile. 10 bytes for the first tile, 6 to 19 for each further one.
    SumWithin(Field, WindowLength),
    /// The value of a field in the latest event that has it. 13 bytes and the value.
    Last(Field),
    /// The distinct values of a field, the latest first. 1 byte, and for each value 13 and itself.
    Recent {
        /// The field.
        field: Field,
        /// How many values are kept.
        limit: usize,
        /// How long a value is kept after its latest event, in milliseconds.
        within_ms: Option<i64>,
    },
    /// The time of the first event. 5 bytes.
    FirstSeen,
    /// The time of the latest event. 5 bytes.
    LastSeen,
    /// How many sessions the user had. Nothing: every profile keeps its sessions.
    SessionCount,
    /// The sum of the user's session durations, in milliseconds. Nothing.
    SessionDuration,
    /// The mean duration of the user's sessions, in milliseconds; null before the first. Nothing.
    SessionMeanDuration,
    /// Events in the session that goes on; 0 when none does. Nothing.
    SessionEvents,
    /// How long the session that goes on has lasted, from its first event to its last, in milliseconds. Nothing.
    SessionCurrentDuration,
    /// How many distinct values a field had. 6 bytes for each up to 32, then 195 ([`distinct`]).
    Distinct(Field),
    /// The same within a sliding window. 6 to 8 bytes for each of up to 63 values, then about 0.5 to 4 KB
    /// ([`distinct`]).
    DistinctWithin(Field, WindowLength),
    /// The least or greatest number in a field, to a millionth; null before there is one. 5 to 17 bytes.
    Extreme(Extreme, Field),
    /// The same within a sliding window, exact to one tile. As [`Computation::SumWithin`], but only tiles that may still
    /// become the extreme are kept.
    ExtremeWithin(Extreme, Field, WindowLength),
    /// The mean of a number in the events, to a millionth; null before there is one. 6 to 22 bytes.
    Mean(Field),
    /// The same within a sliding window, exact to one tile. As a sum and a count within that window.
    MeanWithin(Field, WindowLength),
    /// The value of a field in the first event that has it. 13 bytes and the value.
    First(Field),
    /// The value of a field in the latest event that has it, while that is not longer ago than this, in milliseconds. 13
    /// bytes and the value.
    LastWithin(Field, i64),
    /// The most frequent values of a field, the most frequent first. Exact up to [`crate::limits::TOP_TRACKED_MAX`] distinct
    /// values, then by the Space-Saving algorithm, which goes by the order of coming ([`top`]). For each value kept, 8 bytes
    /// and itself; within a window about 4 more for each tile that holds something.
    Top {
        /// The field.
        field: Field,
        /// How many values it gives: with none it gives the most frequent one by itself.
        limit: Option<usize>,
        /// The window, with coarser tiles than others: see [`crate::limits::TOP_TILES`].
        within: Option<WindowLength>,
    },
    /// The share of one kind of event in another, smoothed by a prior: (`of` + a) / (`to` + a + b). 2 to 10 bytes.
    Rate {
        /// What is counted above.
        of: EventTypes,
        /// What is counted below.
        to: EventTypes,
        /// The prior: a events of the one kind seen in a + b of the other.
        prior: [f64; 2],
    },
    /// The same within a sliding window, exact to one tile. As two counts within that window.
    RateWithin {
        /// What is counted above.
        of: EventTypes,
        /// What is counted below.
        to: EventTypes,
        /// The prior.
        prior: [f64; 2],
        /// The window.
        within: WindowLength,
    },
    /// How long ago the latest event was, in milliseconds as of now; null before it. 5 bytes.
    TimeSince,
    /// How long ago the first event was, in milliseconds as of now; null before it. 5 bytes.
    TimeSinceFirst,
    /// A sum of weights that each halve with every half-life. 10 bytes for the first half-life in which something happened,
    /// 4 to 6 for each further one of the last 20.
    Score {
        /// What an event of a type adds.
        weights: Vec<(String, f64)>,
        /// The tiles, one a half-life.
        tiles: WindowLength,
    },
    /// Events per unit of time since the first one, over at least one unit. 6 to 10 bytes.
    Frequency {
        /// The unit in milliseconds.
        unit_ms: i64,
    },
    /// Events per unit of time within a sliding window, exact to one tile. As a count within that window.
    FrequencyWithin {
        /// The unit in milliseconds.
        unit_ms: i64,
        /// The window.
        within: WindowLength,
    },
    /// How many events at each hour of the day, by the event's own time zone: 24 counts. 25 to 121 bytes.
    HourOfDay,
    /// How many events on each day of the week, by the event's own time zone: 7 counts, Monday's first. 8 to 36 bytes.
    Weekday,
    /// From one step to another, in milliseconds; null before both are done. Nothing.
    StepDuration {
        /// The index of the step that it starts with.
        from: usize,
        /// The index of the step that it ends with.
        to: usize,
    },
    /// What an expression over other features gives. It is evaluated whenever it is read. Nothing.
    Expr,
    /// What another kind gives of the events of the session that goes on, by event time; as for no event where none does.
    /// Late events are right while their session is one of the last [`crate::limits::OPEN_SESSIONS_MAX`]. For each of those
    /// that has something, 8 bytes and what that kind costs.
    PerSession {
        /// The other kind.
        inner: Box<Computation>,
        /// Its state before any event.
        initial: Box<FeatureState>,
    },
}

/// What a profile keeps for a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureState {
    /// For [`Computation::Count`], and for [`Computation::Sum`] in millionths.
    Total(i128),
    /// For what adds up within a window, and for a window's extreme.
    Window(Window),
    /// For [`Computation::Last`] and [`Computation::First`].
    Last(Option<Dated>),
    /// For [`Computation::Recent`], the latest first.
    Recent(Vec<Dated>),
    /// For the times of a first or latest event.
    Seen(Option<Timestamp>),
    /// For what follows from other parts of the profile.
    Derived,
    /// For [`Computation::Distinct`].
    Distinct(Distinct),
    /// For [`Computation::DistinctWithin`].
    DistinctWithin(DistinctWithin),
    /// For [`Computation::Extreme`], in millionths.
    Extreme(Option<i128>),
    /// For what takes two totals: a sum in millionths and a count, or two counts.
    Pair(i128, i128),
    /// The same within a window.
    WindowPair(Window, Window),
    /// For [`Computation::Top`], in the order of values.
    Top(Vec<Counted>),
    /// For [`Computation::Frequency`]: how many events, and when the first was.
    CountSince(i128, Option<Timestamp>),
    /// For counts by hour or weekday.
    Histogram(Vec<u64>),
    /// For [`Computation::PerSession`], oldest first.
    PerSession(Vec<SessionPart>),
}

/// As of when, and of which profile, a feature is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'p> {
    /// The profile that the state belongs to.
    pub profile: &'p Profile,
    /// The moment (P12).
    pub now: Timestamp,
    /// The journey's idle time, after which a session is over.
    pub idle_timeout_ms: i64,
}

/// With what an event is folded.
#[derive(Clone, Copy, Debug)]
pub struct Folding<'p> {
    /// The short name of the event's shard.
    pub shard: u16,
    /// The latest arrival that the profile has seen.
    pub now: Timestamp,
    /// The user's sessions, which hold the event already.
    pub sessions: &'p Sessions,
}

impl Computation {
    /// The state before any event.
    pub fn initial(&self) -> FeatureState {
        match self {
            Computation::Count | Computation::Sum(_) => FeatureState::Total(0),
            Computation::CountWithin(_)
            | Computation::SumWithin(..)
            | Computation::ExtremeWithin(..)
            | Computation::Score { .. }
            | Computation::FrequencyWithin { .. } => FeatureState::Window(Window::default()),
            Computation::Last(_) | Computation::First(_) | Computation::LastWithin(..) => FeatureState::Last(None),
            Computation::Recent { .. } => FeatureState::Recent(Vec::new()),
            Computation::FirstSeen | Computation::LastSeen | Computation::TimeSince | Computation::TimeSinceFirst => {
                FeatureState::Seen(None)
            }
            Computation::SessionCount
            | Computation::SessionDuration
            | Computation::SessionMeanDuration
            | Computation::SessionEvents
            | Computation::SessionCurrentDuration
            | Computation::StepDuration { .. }
            | Computation::Expr => FeatureState::Derived,
            Computation::Distinct(_) => FeatureState::Distinct(Distinct::Exact(Vec::new())),
            Computation::DistinctWithin(..) => FeatureState::DistinctWithin(DistinctWithin::default()),
            Computation::Extreme(..) => FeatureState::Extreme(None),
            Computation::Mean(_) | Computation::Rate { .. } => FeatureState::Pair(0, 0),
            Computation::MeanWithin(..) | Computation::RateWithin { .. } => {
                FeatureState::WindowPair(Window::default(), Window::default())
            }
            Computation::Top { .. } => FeatureState::Top(Vec::new()),
            Computation::Frequency { .. } => FeatureState::CountSince(0, None),
            Computation::HourOfDay => FeatureState::Histogram(vec![0; HOURS]),
            Computation::Weekday => FeatureState::Histogram(vec![0; WEEKDAYS]),
            Computation::PerSession { .. } => FeatureState::PerSession(Vec::new()),
        }
    }

    /// This computation, over the events of one session.
    pub fn per_session(self) -> Computation {
        Computation::PerSession {
            initial: Box::new(self.initial()),
            inner: Box::new(self),
        }
    }

    /// Whether a stored state is of this computation's kind.
    pub fn fits(&self, state: &FeatureState) -> bool {
        match (self, state) {
            (Computation::PerSession { inner, .. }, FeatureState::PerSession(parts)) => {
                parts.iter().all(|part| inner.fits(&part.state))
            }
            (Computation::HourOfDay, FeatureState::Histogram(counts)) => counts.len() == HOURS,
            (Computation::Weekday, FeatureState::Histogram(counts)) => counts.len() == WEEKDAYS,
            _ => std::mem::discriminant(&self.initial()) == std::mem::discriminant(state),
        }
    }

    /// Folds an event into the state.
    pub fn apply(&self, state: &mut FeatureState, event: &Event<'_>, folding: &Folding<'_>) {
        let (at, shard, now) = (event.at, folding.shard, folding.now);
        match (self, state) {
            (Computation::Count, FeatureState::Total(total)) => *total = total.saturating_add(1),
            (
                Computation::CountWithin(length) | Computation::FrequencyWithin { within: length, .. },
                FeatureState::Window(window),
            ) => {
                window.add(*length, at, now, 1);
                window.prune(*length, now);
            }
            (Computation::Sum(field), FeatureState::Total(total)) => {
                if let Some(amount) = millionths(event, field) {
                    *total = total.saturating_add(amount);
                }
            }
            (Computation::SumWithin(field, length), FeatureState::Window(window)) => {
                if let Some(amount) = millionths(event, field) {
                    window.add(*length, at, now, amount);
                }
                window.prune(*length, now);
            }
            (Computation::Last(field) | Computation::LastWithin(field, _), FeatureState::Last(last)) => {
                if last.as_ref().is_none_or(|last| last.is_superseded_by(at, shard))
                    && let Some(value) = event.field(field)
                {
                    remember_last(last, &value, at, shard);
                }
            }
            (Computation::First(field), FeatureState::Last(first)) => {
                if is_first(first.as_ref(), at, shard)
                    && let Some(value) = event.field(field).as_ref().and_then(Value::to_scalar)
                {
                    *first = Some(Dated { at, shard, value });
                }
            }
            (
                Computation::Recent {
                    field,
                    limit,
                    within_ms,
                },
                FeatureState::Recent(entries),
            ) => {
                if let Some(value) = event.field(field) {
                    remember_recent(entries, &value, at, shard, *limit);
                }
                if let Some(within_ms) = within_ms {
                    entries.retain(|entry| is_within(entry.at, *within_ms, now));
                }
            }
            (Computation::FirstSeen | Computation::TimeSinceFirst, FeatureState::Seen(seen)) => {
                *seen = earlier(*seen, Some(at));
            }
            (Computation::LastSeen | Computation::TimeSince, FeatureState::Seen(seen)) => {
                *seen = (*seen).max(Some(at));
            }
            (Computation::Distinct(field), FeatureState::Distinct(distinct)) => {
                if let Some(hash) = event.field(field).as_ref().and_then(hash_of) {
                    distinct.add(hash);
                }
            }
            (Computation::DistinctWithin(field, length), FeatureState::DistinctWithin(distinct)) => {
                if let Some(hash) = event.field(field).as_ref().and_then(hash_of) {
                    distinct.add(*length, hash, at, now);
                }
            }
            (Computation::Extreme(extreme, field), FeatureState::Extreme(known)) => {
                if let Some(amount) = millionths(event, field) {
                    *known = Some(known.map_or(amount, |known| extreme.of(known, amount)));
                }
            }
            (Computation::ExtremeWithin(extreme, field, length), FeatureState::Window(window)) => {
                if let Some(amount) = millionths(event, field) {
                    window.add_extreme(*length, *extreme, at, now, amount);
                }
                window.prune(*length, now);
            }
            (Computation::Mean(field), FeatureState::Pair(sum, count)) => {
                if let Some(amount) = millionths(event, field) {
                    *sum = sum.saturating_add(amount);
                    *count = count.saturating_add(1);
                }
            }
            (Computation::MeanWithin(field, length), FeatureState::WindowPair(sums, counts)) => {
                if let Some(amount) = millionths(event, field) {
                    sums.add(*length, at, now, amount);
                    counts.add(*length, at, now, 1);
                }
                sums.prune(*length, now);
                counts.prune(*length, now);
            }
            (Computation::Rate { of, to, .. }, FeatureState::Pair(above, below)) => {
                *above = above.saturating_add(i128::from(of.includes(&event.event_type)));
                *below = below.saturating_add(i128::from(to.includes(&event.event_type)));
            }
            (Computation::RateWithin { of, to, within, .. }, FeatureState::WindowPair(above, below)) => {
                for (types, window) in [(of, above), (to, below)] {
                    if types.includes(&event.event_type) {
                        window.add(*within, at, now, 1);
                    }
                    window.prune(*within, now);
                }
            }
            (Computation::Top { field, within, .. }, FeatureState::Top(entries)) => {
                if let Some(value) = event.field(field) {
                    top::count(entries, &value, *within, at, now);
                }
            }
            (Computation::Score { weights, tiles }, FeatureState::Window(window)) => {
                if let Some((_, weight)) = weights.iter().find(|(name, _)| *name == event.event_type) {
                    score::add(window, *tiles, *weight, at, now);
                }
            }
            (Computation::Frequency { .. }, FeatureState::CountSince(count, first)) => {
                *count = count.saturating_add(1);
                *first = earlier(*first, Some(at));
            }
            (Computation::HourOfDay, FeatureState::Histogram(counts)) => {
                add_to(counts, usize::from(local_time(event).hour));
            }
            (Computation::Weekday, FeatureState::Histogram(counts)) => {
                add_to(counts, usize::from(local_time(event).weekday - 1));
            }
            (Computation::PerSession { inner, initial }, FeatureState::PerSession(parts)) => {
                if inner.takes(event)
                    && let Some(part) = session_parts::part_of(parts, initial, at, folding.sessions)
                {
                    inner.apply(part, event, folding);
                }
            }
            // Derived features keep nothing; a state of another kind can't be here, since reading it back checks `fits`.
            _ => {}
        }
    }

    /// Whether an event has what this looks at. A part of a session starts with the first such event.
    fn takes(&self, event: &Event<'_>) -> bool {
        match self {
            Computation::Sum(field) | Computation::Mean(field) | Computation::Extreme(_, field) => {
                millionths(event, field).is_some()
            }
            Computation::Distinct(field) => event.field(field).as_ref().and_then(hash_of).is_some(),
            Computation::Last(field)
            | Computation::First(field)
            | Computation::Recent { field, .. }
            | Computation::Top { field, .. } => event.field(field).is_some_and(|value| value.is_storable()),
            _ => true,
        }
    }

    /// Puts what belongs to one session together, after sessions became one or closed.
    pub(crate) fn follow_sessions(&self, state: &mut FeatureState, sessions: &Sessions, now: Timestamp) {
        if let (Computation::PerSession { inner, .. }, FeatureState::PerSession(parts)) = (self, state) {
            session_parts::follow(parts, inner, sessions, now);
        }
    }

    /// Takes in what is known of the same user elsewhere. `sessions` are those of both, and `now` is the later one.
    ///
    /// Commutative and associative, but for what a `top` gave up when it overflowed and for sessions that are not kept.
    pub fn merge(&self, state: &mut FeatureState, other: &FeatureState, sessions: &Sessions, now: Timestamp) {
        match (self, state, other) {
            (_, FeatureState::Total(total), FeatureState::Total(other)) => *total = total.saturating_add(*other),
            (
                Computation::ExtremeWithin(extreme, _, length),
                FeatureState::Window(window),
                FeatureState::Window(other),
            ) => {
                window.merge_extreme(*extreme, other);
                window.prune(*length, now);
            }
            (
                Computation::CountWithin(length)
                | Computation::SumWithin(_, length)
                | Computation::FrequencyWithin { within: length, .. }
                | Computation::Score { tiles: length, .. },
                FeatureState::Window(window),
                FeatureState::Window(other),
            ) => {
                window.merge(other);
                window.prune(*length, now);
            }
            (Computation::First(_), FeatureState::Last(first), FeatureState::Last(other)) => {
                merge_one(first, other, true);
            }
            (_, FeatureState::Last(last), FeatureState::Last(other)) => merge_one(last, other, false),
            (
                Computation::Recent { limit, within_ms, .. },
                FeatureState::Recent(entries),
                FeatureState::Recent(other),
            ) => {
                merge_recent(entries, other, *limit);
                entries.retain(|entry| within_ms.is_none_or(|within_ms| is_within(entry.at, within_ms, now)));
            }
            (
                Computation::FirstSeen | Computation::TimeSinceFirst,
                FeatureState::Seen(seen),
                FeatureState::Seen(other),
            ) => *seen = earlier(*seen, *other),
            (_, FeatureState::Seen(seen), FeatureState::Seen(other)) => *seen = (*seen).max(*other),
            (_, FeatureState::Distinct(distinct), FeatureState::Distinct(other)) => distinct.merge(other),
            (
                Computation::DistinctWithin(_, length),
                FeatureState::DistinctWithin(distinct),
                FeatureState::DistinctWithin(other),
            ) => distinct.merge(other, *length, now),
            (Computation::Extreme(extreme, _), FeatureState::Extreme(known), FeatureState::Extreme(other)) => {
                *known = match (*known, *other) {
                    (Some(known), Some(other)) => Some(extreme.of(known, other)),
                    (known, other) => known.or(other),
                };
            }
            (_, FeatureState::Pair(one, two), FeatureState::Pair(other_one, other_two)) => {
                *one = one.saturating_add(*other_one);
                *two = two.saturating_add(*other_two);
            }
            (
                Computation::MeanWithin(_, length) | Computation::RateWithin { within: length, .. },
                FeatureState::WindowPair(one, two),
                FeatureState::WindowPair(other_one, other_two),
            ) => {
                for (window, other) in [(one, other_one), (two, other_two)] {
                    window.merge(other);
                    window.prune(*length, now);
                }
            }
            (Computation::Top { within, .. }, FeatureState::Top(entries), FeatureState::Top(other)) => {
                top::merge(entries, other, *within, now);
            }
            (_, FeatureState::CountSince(count, first), FeatureState::CountSince(other_count, other_first)) => {
                *count = count.saturating_add(*other_count);
                *first = earlier(*first, *other_first);
            }
            (_, FeatureState::Histogram(counts), FeatureState::Histogram(others)) => {
                for (count, other) in counts.iter_mut().zip(others) {
                    *count = count.saturating_add(*other);
                }
            }
            (
                Computation::PerSession { inner, .. },
                FeatureState::PerSession(parts),
                FeatureState::PerSession(others),
            ) => {
                parts.extend(others.iter().cloned());
                session_parts::follow(parts, inner, sessions, now);
            }
            // Derived features keep nothing.
            _ => {}
        }
    }

    /// The feature's value as of a moment (P12). Times are milliseconds since 1970, as conditions compare them.
    pub fn value<'v>(&'v self, state: &'v FeatureState, reading: &Reading<'_>) -> Value<'v> {
        let (profile, now) = (reading.profile, reading.now);
        match (self, state) {
            (Computation::Count, FeatureState::Total(total)) => whole(*total),
            (Computation::CountWithin(length), FeatureState::Window(window)) => whole(window.total(*length, now)),
            (Computation::Sum(_), FeatureState::Total(total)) => from_millionths(*total),
            (Computation::SumWithin(_, length), FeatureState::Window(window)) => {
                from_millionths(window.total(*length, now))
            }
            (Computation::Last(_) | Computation::First(_), FeatureState::Last(Some(known))) => {
                Value::from(&known.value)
            }
            (Computation::LastWithin(_, within_ms), FeatureState::Last(Some(last)))
                if is_within(last.at, *within_ms, now) =>
            {
                Value::from(&last.value)
            }
            (Computation::Recent { within_ms, .. }, FeatureState::Recent(entries)) => Value::List(
                entries
                    .iter()
                    .filter(|entry| within_ms.is_none_or(|within_ms| is_within(entry.at, within_ms, now)))
                    .map(|entry| Value::from(&entry.value))
                    .collect(),
            ),
            (Computation::FirstSeen | Computation::LastSeen, FeatureState::Seen(Some(at))) => Value::Int(at.epoch_ms()),
            (Computation::TimeSince | Computation::TimeSinceFirst, FeatureState::Seen(Some(at))) => {
                // An event may be up to five minutes ahead of its arrival.
                Value::Int(now.ms_since(*at).max(0))
            }
            (Computation::SessionCount, _) => Value::Int(profile.sessions.count() as i64),
            (Computation::SessionDuration, _) => Value::Int(profile.sessions.total_duration_ms()),
            (Computation::SessionMeanDuration, _) => match profile.sessions.count() {
                0 => Value::Null,
                count => Value::Float(profile.sessions.total_duration_ms() as f64 / count as f64),
            },
            (Computation::SessionEvents, _) => {
                let current = profile.sessions.current(now, reading.idle_timeout_ms);
                Value::Int(current.map_or(0, |session| session.events as i64))
            }
            (Computation::SessionCurrentDuration, _) => {
                let current = profile.sessions.current(now, reading.idle_timeout_ms);
                Value::Int(current.map_or(0, |session| session.duration_ms()))
            }
            (Computation::Distinct(_), FeatureState::Distinct(distinct)) => Value::Int(distinct.count()),
            (Computation::DistinctWithin(_, length), FeatureState::DistinctWithin(distinct)) => {
                Value::Int(distinct.count(*length, now))
            }
            (Computation::Extreme(..), FeatureState::Extreme(Some(amount))) => from_millionths(*amount),
            (Computation::ExtremeWithin(_, _, length), FeatureState::Window(window)) => {
                window.extreme(*length, now).map_or(Value::Null, from_millionths)
            }
            (Computation::Mean(_), FeatureState::Pair(sum, count)) => mean(*sum, *count),
            (Computation::MeanWithin(_, length), FeatureState::WindowPair(sums, counts)) => {
                mean(sums.total(*length, now), counts.total(*length, now))
            }
            (Computation::Rate { prior, .. }, FeatureState::Pair(above, below)) => rate(*above, *below, *prior),
            (Computation::RateWithin { prior, within, .. }, FeatureState::WindowPair(above, below)) => {
                rate(above.total(*within, now), below.total(*within, now), *prior)
            }
            (Computation::Top { limit, within, .. }, FeatureState::Top(entries)) => {
                let mut values = top::most_frequent(entries, *within, limit.unwrap_or(1), now);
                match limit {
                    Some(_) => Value::List(values),
                    None => values.pop().unwrap_or(Value::Null),
                }
            }
            (Computation::Score { tiles, .. }, FeatureState::Window(window)) => {
                Value::Float(score::value(window, *tiles, now))
            }
            (Computation::Frequency { unit_ms }, FeatureState::CountSince(count, first)) => {
                let since_ms = first.map_or(0, |first| now.ms_since(first)).max(*unit_ms);
                Value::Float(*count as f64 * *unit_ms as f64 / since_ms as f64)
            }
            (Computation::FrequencyWithin { unit_ms, within }, FeatureState::Window(window)) => {
                let count = window.total(*within, now) as f64;
                Value::Float(count * *unit_ms as f64 / within.within_ms() as f64)
            }
            (Computation::HourOfDay | Computation::Weekday, FeatureState::Histogram(counts)) => {
                Value::List(counts.iter().map(|count| Value::Int(*count as i64)).collect())
            }
            (Computation::StepDuration { from, to }, _) => {
                let done_at = |index: &usize| profile.steps.get(*index).copied().flatten();
                match (done_at(from), done_at(to)) {
                    (Some(from), Some(to)) => Value::Int(to.ms_since(from)),
                    _ => Value::Null,
                }
            }
            (Computation::PerSession { inner, initial }, FeatureState::PerSession(parts)) => {
                let current = profile.sessions.current(now, reading.idle_timeout_ms);
                let part = current.and_then(|session| parts.iter().rfind(|part| part.at >= session.start));
                inner.value(part.map_or(initial, |part| &part.state), reading)
            }
            _ => Value::Null,
        }
    }

    /// Whether the value is a point in time, which people want to read as one.
    pub fn is_time(&self) -> bool {
        matches!(self, Computation::FirstSeen | Computation::LastSeen)
    }
}

fn whole(total: i128) -> Value<'static> {
    Value::Int(i64::try_from(total).unwrap_or(i64::MAX))
}

fn from_millionths(amount: i128) -> Value<'static> {
    Value::Float(amount as f64 / MILLIONTHS)
}

fn mean(sum: i128, count: i128) -> Value<'static> {
    if count == 0 {
        return Value::Null;
    }
    Value::Float(sum as f64 / MILLIONTHS / count as f64)
}

/// The mean of a Beta distribution with this prior, after that many successes in that many trials. With no prior and no
/// trial there is none.
fn rate(of: i128, to: i128, [a, b]: [f64; 2]) -> Value<'static> {
    let below = to as f64 + a + b;
    if below <= 0.0 {
        return Value::Null;
    }
    Value::Float((of as f64 + a) / below)
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn add_to(counts: &mut [u64], index: usize) {
    if let Some(count) = counts.get_mut(index) {
        *count = count.saturating_add(1);
    }
}

fn is_within(at: Timestamp, within_ms: i64, now: Timestamp) -> bool {
    now.ms_since(at) < within_ms
}

/// The number in a field, in millionths. Text is no number, and what is too large to add exactly is left out.
fn millionths(event: &Event<'_>, field: &Field) -> Option<i128> {
    let number = match event.field(field)? {
        Value::Int(number) if (number as f64).abs() <= SUM_VALUE_MAX => return Some(i128::from(number) * 1_000_000),
        Value::Float(number) if number.abs() <= SUM_VALUE_MAX => number,
        _ => return None,
    };
    Some((number * MILLIONTHS).round() as i128)
}

/// Takes a trait from the `traits` object of an `identify` event, unless a later value is known (P11).
pub fn apply_trait(known: &mut Option<Dated>, name: &String, event: &Event<'_>, shard: u16) {
    let Some(traits) = event.traits else { return };
    if known
        .as_ref()
        .is_none_or(|known| known.is_superseded_by(event.at, shard))
        && let Some(value) = crate::json::find(traits, std::slice::from_ref(name))
            .as_ref()
            .and_then(Value::to_scalar)
    {
        *known = Some(Dated {
            at: event.at,
            shard,
            value,
        });
    }
}

/// Merges what is known of a trait elsewhere: the latest value stays.
pub fn merge_trait(known: &mut Option<Dated>, other: &Option<Dated>) {
    merge_one(known, other, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile is cloned for every batch, so what is rare must not make every state larger.
    #[test]
    fn a_state_is_no_larger_than_its_usual_kinds_need() {
        assert!(size_of::<FeatureState>() <= 64, "{}", size_of::<FeatureState>());
        assert!(size_of::<Distinct>() <= 32, "{}", size_of::<Distinct>());
    }
}
