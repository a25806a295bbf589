//! Sessions by event time: a session ends when nothing happened for the journey's idle time (P11).

use crate::limits::OPEN_SESSIONS_MAX;
use crate::time::Timestamp;

/// One session: from its first event to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The time of its first event.
    pub start: Timestamp,
    /// The time of its last event.
    pub end: Timestamp,
    /// How many events it has.
    pub events: u64,
}

impl Session {
    /// From its first event to its last, in milliseconds.
    pub fn duration_ms(&self) -> i64 {
        self.end.ms_since(self.start)
    }
}

/// A user's sessions: the last few as intervals, so that late events join, extend or bridge them; the older ones as
/// totals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Sessions that are no longer kept as intervals.
    pub closed_count: u64,
    /// The sum of their durations in milliseconds.
    pub closed_duration_ms: i64,
    /// The kept intervals, oldest first; at most [`OPEN_SESSIONS_MAX`].
    pub recent: Vec<Session>,
}

impl Sessions {
    /// How many sessions there were.
    pub fn count(&self) -> u64 {
        self.closed_count + self.recent.len() as u64
    }

    /// The sum of the durations of all sessions, in milliseconds.
    pub fn total_duration_ms(&self) -> i64 {
        self.recent.iter().fold(self.closed_duration_ms, |total, session| {
            total.saturating_add(session.duration_ms())
        })
    }

    /// The latest session by event time.
    pub fn latest(&self) -> Option<&Session> {
        self.recent.last()
    }

    /// The session that goes on as of `now`: none when nothing happened for the idle time (P12).
    pub fn current(&self, now: Timestamp, idle_timeout_ms: i64) -> Option<&Session> {
        self.latest()
            .filter(|session| now.ms_since(session.end) <= idle_timeout_ms)
    }

    /// The index in [`Sessions::recent`] of the session that a moment lies in.
    pub fn position(&self, at: Timestamp) -> Option<usize> {
        self.recent
            .iter()
            .rposition(|session| session.start <= at && at <= session.end)
    }

    /// Takes in what is known of the same user elsewhere, such as before it was known who it is. Kept sessions that come
    /// closer than the idle time become one; the totals add up. While all sessions of both are kept, the order of
    /// merging makes no difference.
    pub fn merge(&mut self, other: &Sessions, idle_timeout_ms: i64) {
        self.closed_count = self.closed_count.saturating_add(other.closed_count);
        self.closed_duration_ms = self.closed_duration_ms.saturating_add(other.closed_duration_ms);
        let mut all: Vec<Session> = self.recent.drain(..).chain(other.recent.iter().copied()).collect();
        all.sort_unstable_by_key(|session| (session.start, session.end));
        for session in all {
            match self.recent.last_mut() {
                Some(last) if session.start.ms_since(last.end) <= idle_timeout_ms => {
                    last.end = last.end.max(session.end);
                    last.events = last.events.saturating_add(session.events);
                }
                _ => self.recent.push(session),
            }
        }
        while self.recent.len() > OPEN_SESSIONS_MAX {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        let oldest = self.recent.remove(0);
        self.closed_count += 1;
        self.closed_duration_ms = self.closed_duration_ms.saturating_add(oldest.duration_ms());
    }

    /// Takes in an event. One from before every kept interval, when older sessions are already closed, belongs to one
    /// of those and changes nothing. Says whether kept sessions became one, or one is not kept any more.
    pub fn add(&mut self, at: Timestamp, idle_timeout_ms: i64) -> bool {
        let mut restructured = false;
        let before = at.minus_ms(idle_timeout_ms);
        let after = at.plus_ms(idle_timeout_ms);
        // The kept sessions that the event belongs to: one, or two that it bridges.
        let first = self.recent.iter().position(|session| session.end >= before);
        match first {
            Some(index) if self.recent[index].start <= after => {
                let mut joined = self.recent[index];
                joined.start = joined.start.min(at);
                joined.end = joined.end.max(at);
                joined.events += 1;
                if let Some(next) = self.recent.get(index + 1).copied()
                    && next.start.ms_since(joined.end) <= idle_timeout_ms
                {
                    joined.end = joined.end.max(next.end);
                    joined.events += next.events;
                    self.recent.remove(index + 1);
                    restructured = true;
                }
                self.recent[index] = joined;
            }
            _ => {
                let index = first.unwrap_or(self.recent.len());
                if index == 0 && self.closed_count > 0 {
                    return false;
                }
                self.recent.insert(
                    index,
                    Session {
                        start: at,
                        end: at,
                        events: 1,
                    },
                );
                if self.recent.len() > OPEN_SESSIONS_MAX {
                    self.close_oldest();
                    restructured = true;
                }
            }
        }
        restructured
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;
    const IDLE_MS: i64 = 30 * MINUTE_MS;

    fn fold(minutes: &[i64]) -> Sessions {
        let mut sessions = Sessions::default();
        for minute in minutes {
            sessions.add(Timestamp::from_epoch_ms(minute * MINUTE_MS), IDLE_MS);
        }
        sessions
    }

    #[test]
    fn p11_a_session_ends_by_event_time_and_late_events_extend_and_bridge() {
        for (minutes, count, duration_min) in [
            (&[0, 10, 40][..], 1, 40),
            (&[0, 31], 2, 0),
            (&[0, 50, 25], 1, 50),        // a late event bridges two sessions
            (&[100, 90, 200, 95], 2, 10), // a late one extends the earlier
            (&[0, 100, 200, 300, 400, 500], 6, 0),
            (&[0, 10, 100, 200, 300, 400, 5], 5, 10), // one for a closed session changes nothing
        ] {
            let sessions = fold(minutes);
            assert_eq!(
                (sessions.count(), sessions.total_duration_ms()),
                (count, duration_min * MINUTE_MS),
                "{minutes:?}"
            );
            assert!(sessions.recent.len() <= OPEN_SESSIONS_MAX);
        }
    }

    #[test]
    fn p12_a_session_is_over_when_the_idle_time_has_passed() {
        let sessions = fold(&[0, 10]);
        for (minute, goes_on) in [(10, true), (40, true), (41, false), (9, true)] {
            let now = Timestamp::from_epoch_ms(minute * MINUTE_MS);
            assert_eq!(sessions.current(now, IDLE_MS).is_some(), goes_on, "{minute}");
        }
        assert_eq!(Sessions::default().current(Timestamp::default(), IDLE_MS), None);
    }

    proptest! {
        /// Two histories of one user, each in sessions, are the sessions of both together; whichever is merged into which.
        #[test]
        fn merged_sessions_are_those_of_all_events(
            one in prop::collection::vec(0i64..110, 0..20),
            other in prop::collection::vec(0i64..110, 0..20),
        ) {
            let mut merged = fold(&one);
            merged.merge(&fold(&other), IDLE_MS);
            let mut the_other_way = fold(&other);
            the_other_way.merge(&fold(&one), IDLE_MS);
            prop_assert_eq!(&merged, &the_other_way);
            prop_assert_eq!(merged, fold(&[one, other].concat()));
        }

        /// P11: while the disorder stays within the kept intervals, the order of coming makes no difference.
        #[test]
        fn p11_order_of_coming_makes_no_difference(mut minutes in prop::collection::vec(0i64..110, 1..40), rotation: usize) {
            let expected = fold(&minutes);
            let rotation = rotation % minutes.len();
            minutes.rotate_left(rotation);
            prop_assert_eq!(fold(&minutes), expected);
        }
    }
}
