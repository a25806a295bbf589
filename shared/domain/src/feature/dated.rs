//! Values that go by the time of the event that carried them: the first, the last and the recent ones (P11).

use std::cmp::Ordering;

use crate::guard::ShardKey;
use crate::limits::STORED_TEXT_BYTES_MAX;
use crate::time::Timestamp;
use crate::value::{Scalar, Value};

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
    pub(crate) fn is_superseded_by(&self, at: Timestamp, shard: u16) -> bool {
        (at, shard) >= (self.at, self.shard)
    }

    /// The order of two values of which it is not known which came first in their shard: then the value decides, so
    /// that merging gives the same either way.
    fn order(&self, other: &Dated) -> Ordering {
        (self.at, self.shard)
            .cmp(&(other.at, other.shard))
            .then_with(|| self.value.order(&other.value))
    }
}

/// The 16-bit name of a shard that orders events of equal time. Within a shard the stream's own order decides.
pub fn short_shard(shard: ShardKey) -> u16 {
    (shard.0 >> 48) as u16
}

/// Keeps a value that a profile can store, in place of the one before, which it supersedes.
pub(super) fn remember_last(last: &mut Option<Dated>, value: &Value<'_>, at: Timestamp, shard: u16) {
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

/// Whether something of this time and shard, applied now, comes before everything that is known.
pub(super) fn is_first(first: Option<&Dated>, at: Timestamp, shard: u16) -> bool {
    first.is_none_or(|first| (at, shard) < (first.at, first.shard))
}

/// Merges two last values (or, with `earliest`, two first ones).
pub(super) fn merge_one(known: &mut Option<Dated>, other: &Option<Dated>, earliest: bool) {
    let Some(other) = other else { return };
    let wins = known.as_ref().is_none_or(|known| {
        let order = other.order(known);
        if earliest { order.is_lt() } else { order.is_gt() }
    });
    if wins {
        *known = Some(other.clone());
    }
}

/// Keeps the `limit` latest distinct values, the latest first.
pub(super) fn remember_recent(entries: &mut Vec<Dated>, value: &Value<'_>, at: Timestamp, shard: u16, limit: usize) {
    if let Some(known) = entries.iter().position(|entry| entry.value.is(value)) {
        if !entries[known].is_superseded_by(at, shard) {
            return;
        }
        // Moved to the front of what it supersedes, without taking it out of its memory.
        entries[known].at = at;
        entries[known].shard = shard;
        let place = entries[..known]
            .iter()
            .position(|earlier| earlier.is_superseded_by(at, shard))
            .unwrap_or(known);
        entries[place..=known].rotate_right(1);
        return;
    }
    let place = entries
        .iter()
        .position(|earlier| earlier.is_superseded_by(at, shard))
        .unwrap_or(entries.len());
    if place < limit
        && let Some(value) = value.to_scalar()
    {
        entries.insert(place, Dated { at, shard, value });
        entries.truncate(limit);
    }
}

/// The latest `limit` distinct values of both lists. Of values of one time and shard, those of one list keep their order,
/// which is that of the stream; between the lists, where none is known, the value decides.
pub(super) fn merge_recent(entries: &mut Vec<Dated>, other: &[Dated], limit: usize) {
    let mut own = std::mem::take(entries).into_iter().peekable();
    let mut others = other.iter().peekable();
    while entries.len() < limit {
        let own_is_later = match (own.peek(), others.peek()) {
            (Some(one), Some(other)) => one.order(other).is_gt(),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => break,
        };
        let next = if own_is_later {
            own.next()
        } else {
            others.next().cloned()
        };
        // Both lists have their latest first, so what is there already is later.
        entries.extend(next.filter(|next| !entries.iter().any(|known| known.value == next.value)));
    }
}
