//! Now: the wall clock, or the time that the data tells.

use std::time::{SystemTime, UNIX_EPOCH};

use usher_domain::time::Timestamp;
use usher_wire::event;

use crate::gzip;

/// The wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a command is the edge that knows the wall clock"
)]
pub fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_epoch_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// When a record arrives by the clock of the data: at its event's own time, but never later than by the wall clock, so
/// that a timestamp of the far future is still ahead of its arrival and gets rejected. `None` for a record that tells no
/// time.
///
/// `usher local --clock data` and `usher replay` both ask this, so that they agree.
pub fn data_arrival(record: &[u8]) -> Option<Timestamp> {
    let own = match gzip::is_gzip(record) {
        true => event::time_of(&gzip::decompress(record).ok()?),
        false => event::time_of(record),
    };
    Some(own?.min(wall_clock()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_arrives_at_its_own_time_but_never_later_than_now() {
        let past: Timestamp = "2013-10-01T08:00:00Z".parse().expect("a time");
        let event = |timestamp: &str| format!(r#"{{"event_id":"1","timestamp":"{timestamp}"}}"#).into_bytes();
        assert_eq!(data_arrival(&event("2013-10-01T09:00:00+01:00")), Some(past));
        let compressed = gzip::compress(&event("2013-10-01T08:00:00Z"));
        assert_eq!(data_arrival(&compressed), Some(past));

        let before = wall_clock();
        let arrival = data_arrival(&event("2999-01-01T00:00:00Z")).expect("it tells a time");
        assert!(before <= arrival && arrival <= wall_clock());
        for bytes in [&b"not json"[..], b"{}", b"\xff", b"\x1f\x8bnot gzip"] {
            assert_eq!(data_arrival(bytes), None);
        }
    }
}
