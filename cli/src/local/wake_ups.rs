//! Wake-ups on the interactions stream: records that are no one's doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use usher_domain::event::TIMER_EVENT;
use usher_domain::time::Timestamp;
use usher_wire::event;

use crate::gzip;

/// Counts the wake-ups that are put, whoever puts them.
#[derive(Clone, Debug, Default)]
pub struct WakeUps {
    put: Arc<AtomicU64>,
}

impl WakeUps {
    /// Looks at a record that was put.
    pub fn see(&self, record: &[u8], arrived_at: Timestamp) {
        if is_wake_up(record, arrived_at) {
            self.put.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were put.
    pub fn put(&self) -> u64 {
        self.put.load(Ordering::Relaxed)
    }
}

/// Whether a record makes a profile look at its timers: what profile-writer counts as woken.
pub fn is_wake_up(record: &[u8], arrived_at: Timestamp) -> bool {
    let decompressed;
    let bytes = if gzip::is_gzip(record) {
        let Ok(whole) = gzip::decompress(record) else {
            return false;
        };
        decompressed = whole;
        &decompressed
    } else {
        record
    };
    event::decode(bytes, arrived_at).is_ok_and(|event| event.event_type == TIMER_EVENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_told_from_what_only_names_one() {
        let now: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        let event = |event_type: &str, rest: &str| {
            format!(
                r#"{{"event_id":"1","event_type":"{event_type}","timestamp":"2026-01-05T10:00:00Z","user_id":"u"{rest}}}"#
            )
        };
        for (text, expected) in [
            (event("usher.timer", ""), true),
            (event(" Usher.Timer ", ""), true),
            (event("click", r#","properties":{"on":"usher.timer"}"#), false),
            (event("click", ""), false),
            (event("usher.timer", r#","user_id":5"#), false),
            ("usher.timer".to_owned(), false),
        ] {
            assert_eq!(is_wake_up(text.as_bytes(), now), expected, "{text}");
            assert_eq!(is_wake_up(&gzip::compress(text.as_bytes()), now), expected, "{text}");
        }
    }
}
