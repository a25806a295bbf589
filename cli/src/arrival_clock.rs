//! Now: the wall clock, or the time that the data tells.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use usher_domain::limits::EVENT_BYTES_MAX;
use usher_domain::time::Timestamp;
use usher_wire::event;

/// What gzip data starts with (RFC 1952).
pub const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

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
    let own = if record.starts_with(&GZIP_MAGIC) {
        event::time_of(&decompress(record)?)
    } else {
        event::time_of(record)
    }?;
    Some(own.min(wall_clock()))
}

fn decompress(record: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(record)
        .take(EVENT_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_record_arrives_at_its_own_time_but_never_later_than_now() {
        let past: Timestamp = "2013-10-01T08:00:00Z".parse().expect("a time");
        let event = |timestamp: &str| format!(r#"{{"event_id":"1","timestamp":"{timestamp}"}}"#).into_bytes();
        assert_eq!(data_arrival(&event("2013-10-01T09:00:00+01:00")), Some(past));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&event("2013-10-01T08:00:00Z")).expect("to memory");
        assert_eq!(data_arrival(&gzip.finish().expect("to memory")), Some(past));

        let before = wall_clock();
        let arrival = data_arrival(&event("2999-01-01T00:00:00Z")).expect("it tells a time");
        assert!(before <= arrival && arrival <= wall_clock());
        for bytes in [&b"not json"[..], b"{}", b"\xff", b"\x1f\x8bnot gzip"] {
            assert_eq!(data_arrival(bytes), None);
        }
    }
}
