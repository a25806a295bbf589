//! What a feature keeps for each of the sessions that a profile keeps.
//!
//! Sessions go by event time, so a late event may extend one or make two of them one. Each part therefore only knows the
//! earliest event that it holds, and belongs to the session in which that lies.

use super::{Computation, FeatureState};
use crate::sessions::Sessions;
use crate::time::Timestamp;

/// A feature's state over the events of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPart {
    /// The time of the earliest event in it.
    pub at: Timestamp,
    /// The state.
    pub state: FeatureState,
}

/// The part for the session that an event of this time belongs to, which the sessions hold already. Nothing where that
/// session is not kept any more.
pub(super) fn part_of<'p>(
    parts: &'p mut Vec<SessionPart>,
    initial: &FeatureState,
    at: Timestamp,
    sessions: &Sessions,
) -> Option<&'p mut FeatureState> {
    let session = sessions.recent[sessions.position(at)?];
    let known = parts
        .iter()
        .rposition(|part| session.start <= part.at && part.at <= session.end);
    let place = match known {
        Some(place) => {
            parts[place].at = parts[place].at.min(at);
            place
        }
        None => {
            let place = parts.partition_point(|part| part.at < at);
            let state = initial.clone();
            parts.insert(place, SessionPart { at, state });
            place
        }
    };
    Some(&mut parts[place].state)
}

/// Merges the parts of what is one session, and drops those of sessions that are not kept any more.
pub(super) fn follow(parts: &mut Vec<SessionPart>, inner: &Computation, sessions: &Sessions, now: Timestamp) {
    parts.retain(|part| sessions.position(part.at).is_some());
    parts.sort_by_key(|part| part.at);
    parts.dedup_by(|later, earlier| {
        let same = sessions.position(later.at) == sessions.position(earlier.at);
        if same {
            inner.merge(&mut earlier.state, &later.state, sessions, now);
        }
        same
    });
}
