//! How far the data's own time has come: what is sent before it was acknowledged, and what is read after it is later.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use usher_domain::time::Timestamp;
use usher_wire::event;

use crate::arrival_clock::wall_clock;

/// The time up to which all lines of a file were acknowledged, as far as the file is in the order of time.
#[derive(Debug, Default)]
pub struct DataTime {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Lines that are not known to be acknowledged, each with the latest time up to it.
    open: VecDeque<(u64, Timestamp)>,
    latest_read: Option<Timestamp>,
    acknowledged: Option<Timestamp>,
}

impl DataTime {
    /// Notes a line that was read. One that tells no time, or one of the future, has no say: it will be rejected.
    pub fn read(&self, line: u64, bytes: &[u8]) {
        let Some(own) = event::time_of(bytes).filter(|own| *own <= wall_clock()) else {
            return;
        };
        let mut state = self.state();
        let latest = state.latest_read.map_or(own, |latest| latest.max(own));
        state.latest_read = Some(latest);
        state.open.push_back((line, latest));
    }

    /// Notes that every line up to this one was acknowledged.
    pub fn acknowledged(&self, up_to: u64) {
        let mut state = self.state();
        while let Some((_, time)) = state.open.pop_front_if(|(line, _)| *line <= up_to) {
            state.acknowledged = Some(time);
        }
    }

    /// The time that has come.
    pub fn now(&self) -> Option<Timestamp> {
        self.state().acknowledged
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_as_far_as_everything_is_acknowledged() {
        let time = DataTime::default();
        for (line, text) in [
            (1, r#"{"timestamp":"2013-10-01T08:00:00Z"}"#),
            (2, r#"{"timestamp":"2999-01-01T00:00:00Z"}"#),
            (3, r#"{"timestamp":"2013-10-01T09:00:00Z"}"#),
            (4, "not json"),
            (5, r#"{"timestamp":"2013-10-01T08:30:00Z"}"#),
            (6, r#"{"timestamp":"2013-10-01T10:00:00Z"}"#),
        ] {
            time.read(line, text.as_bytes());
        }
        assert_eq!(time.now(), None);
        for (up_to, expected) in [
            (1, "2013-10-01T08:00:00Z"),
            (2, "2013-10-01T08:00:00Z"),
            (3, "2013-10-01T09:00:00Z"),
            (5, "2013-10-01T09:00:00Z"),
            (9, "2013-10-01T10:00:00Z"),
        ] {
            time.acknowledged(up_to);
            assert_eq!(time.now(), Some(expected.parse().expect("a time")), "{up_to}");
        }
    }
}
