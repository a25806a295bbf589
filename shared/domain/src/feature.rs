//! Features: what the journey keeps count of, per user.
//!
//! Each is a fold over the user's events that gives the same state in whatever order events of different shards come
//! (P11): counts and sums add, first and last go by event time, and on equal times by shard and then stream order.

use crate::event::{Event, Field};
use crate::guard::ShardKey;
use crate::limits::{STORED_TEXT_BYTES_MAX, SUM_VALUE_MAX};
use crate::profile::Profile;
use crate::time::Timestamp;
use crate::value::{Scalar, Value};
use crate::window::{Window, WindowLength};

/// Sums are kept in millionths, as whole numbers: adding those is exact, so the order of adding can't show.
const MILLIONTHS: f64 = 1e6;

/// How a feature is computed from the events that it looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Computation {
    /// How many events, over all time.
    Count,
    /// How many events within a sliding window.
    CountWithin(WindowLength),
    /// The sum of a number in the events, over all time.
    Sum(Field),
    /// The same within a sliding window.
    SumWithin(Field, WindowLength),
    /// The value of a field in the latest event that has it.
    Last(Field),
    /// The distinct values of a field, the latest first.
    Recent {
        /// The field.
        field: Field,
        /// How many values are kept.
        limit: usize,
        /// How long a value is kept after its latest event, in milliseconds.
        within_ms: Option<i64>,
    },
    /// The time of the first event.
    FirstSeen,
    /// The time of the latest event.
    LastSeen,
    /// How many sessions the user had.
    SessionCount,
    /// The sum of the user's session durations, in milliseconds.
    SessionDuration,
}

/// A value with what orders it among others: event time, then shard, then the order within the shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Dated {
    /// The time of the event that carried it.
    pub at: Timestamp,
    /// A short name of the event's shard.
    pub shard: u16,
    /// The value.
    pub value: Scalar,
}

impl Dated {
    /// Whether something of this time and shard, applied now, is later than this value.
    fn is_superseded_by(&self, at: Timestamp, shard: u16) -> bool {
        (at, shard) >= (self.at, self.shard)
    }
}

/// The 16-bit name of a shard that orders events of equal time. Within a shard the stream's own order decides.
pub fn short_shard(shard: ShardKey) -> u16 {
    (shard.0 >> 48) as u16
}

/// What a profile keeps for a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureState {
    /// For [`Computation::Count`], and for [`Computation::Sum`] in millionths.
    Total(i128),
    /// For the windowed ones.
    Window(Window),
    /// For [`Computation::Last`].
    Last(Option<Dated>),
    /// For [`Computation::Recent`], the latest first.
    Recent(Vec<Dated>),
    /// For [`Computation::FirstSeen`] and [`Computation::LastSeen`].
    Seen(Option<Timestamp>),
    /// For what follows from other parts of the profile.
    Derived,
}

impl Computation {
    /// The state before any event.
    pub fn initial(&self) -> FeatureState {
        match self {
            Computation::Count | Computation::Sum(_) => FeatureState::Total(0),
            Computation::CountWithin(_) | Computation::SumWithin(..) => FeatureState::Window(Window::default()),
            Computation::Last(_) => FeatureState::Last(None),
            Computation::Recent { .. } => FeatureState::Recent(Vec::new()),
            Computation::FirstSeen | Computation::LastSeen => FeatureState::Seen(None),
            Computation::SessionCount | Computation::SessionDuration => FeatureState::Derived,
        }
    }

    /// Whether a stored state is of this computation's kind.
    pub fn fits(&self, state: &FeatureState) -> bool {
        std::mem::discriminant(&self.initial()) == std::mem::discriminant(state)
    }

    /// Folds an event into the state. `now` is the latest arrival that the profile has seen.
    pub fn apply(&self, state: &mut FeatureState, event: &Event<'_>, shard: u16, now: Timestamp) {
        match (self, state) {
            (Computation::Count, FeatureState::Total(total)) => *total += 1,
            (Computation::CountWithin(length), FeatureState::Window(window)) => {
                window.add(*length, event.at, now, 1);
                window.prune(*length, now);
            }
            (Computation::Sum(field), FeatureState::Total(total)) => {
                if let Some(amount) = millionths(event, field) {
                    *total = total.saturating_add(amount);
                }
            }
            (Computation::SumWithin(field, length), FeatureState::Window(window)) => {
                if let Some(amount) = millionths(event, field) {
                    window.add(*length, event.at, now, amount);
                }
                window.prune(*length, now);
            }
            (Computation::Last(field), FeatureState::Last(last)) => {
                if last.as_ref().is_none_or(|last| last.is_superseded_by(event.at, shard))
                    && let Some(value) = event.field(field)
                {
                    remember_last(last, &value, event.at, shard);
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
                    remember_recent(entries, &value, event.at, shard, *limit);
                }
                if let Some(within_ms) = within_ms {
                    entries.retain(|entry| is_within(entry.at, *within_ms, now));
                }
            }
            (Computation::FirstSeen, FeatureState::Seen(seen)) => {
                *seen = Some(seen.map_or(event.at, |earlier| earlier.min(event.at)));
            }
            (Computation::LastSeen, FeatureState::Seen(seen)) => {
                *seen = Some(seen.map_or(event.at, |later| later.max(event.at)));
            }
            // Derived features keep nothing; a state of another kind can't be here, since reading it back checks `fits`.
            _ => {}
        }
    }

    /// The feature's value as of `now` (P12). Times are milliseconds since 1970, as conditions compare them.
    pub fn value<'v>(&self, state: &'v FeatureState, profile: &Profile, now: Timestamp) -> Value<'v> {
        let whole = |total: i128| Value::Int(i64::try_from(total).unwrap_or(i64::MAX));
        match (self, state) {
            (Computation::Count, FeatureState::Total(total)) => whole(*total),
            (Computation::CountWithin(length), FeatureState::Window(window)) => whole(window.total(*length, now)),
            (Computation::Sum(_), FeatureState::Total(total)) => Value::Float(*total as f64 / MILLIONTHS),
            (Computation::SumWithin(_, length), FeatureState::Window(window)) => {
                Value::Float(window.total(*length, now) as f64 / MILLIONTHS)
            }
            (Computation::Last(_), FeatureState::Last(Some(last))) => Value::from(&last.value),
            (Computation::Recent { within_ms, .. }, FeatureState::Recent(entries)) => Value::List(
                entries
                    .iter()
                    .filter(|entry| within_ms.is_none_or(|within_ms| is_within(entry.at, within_ms, now)))
                    .map(|entry| Value::from(&entry.value))
                    .collect(),
            ),
            (Computation::FirstSeen | Computation::LastSeen, FeatureState::Seen(Some(at))) => Value::Int(at.epoch_ms()),
            (Computation::SessionCount, _) => Value::Int(profile.sessions.count() as i64),
            (Computation::SessionDuration, _) => Value::Int(profile.sessions.total_duration_ms()),
            _ => Value::Null,
        }
    }

    /// Whether the value is a point in time, which people want to read as one.
    pub fn is_time(&self) -> bool {
        matches!(self, Computation::FirstSeen | Computation::LastSeen)
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

/// Keeps a value that a profile can store, in place of the one before.
fn remember_last(last: &mut Option<Dated>, value: &Value<'_>, at: Timestamp, shard: u16) {
    match (last.as_mut(), value) {
        // Nearly every event changes it, so the memory of the text before is used again.
        (
            Some(Dated {
                at: known_at,
                shard: known_shard,
                value: Scalar::Text(known),
            }),
            Value::Text(text),
        ) if text.len() <= STORED_TEXT_BYTES_MAX => {
            text.as_ref().clone_into(known);
            (*known_at, *known_shard) = (at, shard);
        }
        _ => {
            if let Some(value) = value.to_scalar() {
                *last = Some(Dated { at, shard, value });
            }
        }
    }
}

/// Keeps the `limit` latest distinct values, the latest first.
fn remember_recent(entries: &mut Vec<Dated>, value: &Value<'_>, at: Timestamp, shard: u16, limit: usize) {
    if let Some(known) = entries.iter().position(|entry| is_same(&entry.value, value)) {
        if !entries[known].is_superseded_by(at, shard) {
            return;
        }
        let entry = entries.remove(known);
        insert_recent(entries, Dated { at, shard, ..entry });
    } else if let Some(value) = value.to_scalar() {
        insert_recent(entries, Dated { at, shard, value });
        entries.truncate(limit);
    }
}

fn insert_recent(entries: &mut Vec<Dated>, entry: Dated) {
    let place = entries
        .iter()
        .position(|earlier| earlier.is_superseded_by(entry.at, entry.shard));
    entries.insert(place.unwrap_or(entries.len()), entry);
}

fn is_same(stored: &Scalar, value: &Value<'_>) -> bool {
    match (stored, value) {
        (Scalar::Text(stored), Value::Text(text)) => *stored == *text,
        (stored, value) => value.to_scalar().as_ref() == Some(stored),
    }
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
