//! The local hour and weekday of an event, by the time zone that it names.
//!
//! The time zones are those that the library bundles, never the machine's own: the same event is at the same local hour
//! wherever it is planned (P7).

use std::sync::LazyLock;

use jiff::tz::TimeZoneDatabase;

use crate::event::Event;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Hours of a day.
pub const HOURS: usize = 24;
/// Days of a week.
pub const WEEKDAYS: usize = 7;

const SECONDS_PER_HOUR: i64 = 60 * 60;
const SECONDS_PER_DAY: i64 = HOURS as i64 * SECONDS_PER_HOUR;
/// 1970-01-01 was a Thursday, the fourth day of a week that starts on Monday.
const DAYS_FROM_MONDAY_TO_1970: i64 = 3;

/// An hour of the day and a day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 to 23.
    pub hour: u8,
    /// 1 is Monday, 7 is Sunday, as ISO 8601 has it.
    pub weekday: u8,
}

/// When an event happened, for its user: in the time zone of its `location.timezone`, and in UTC where it names none or
/// one that nobody knows.
pub fn local_time(event: &Event<'_>) -> LocalTime {
    let zone = event.location.timezone.as_deref();
    let offset_s = zone
        .and_then(|name| TIME_ZONES.get(name).ok())
        .and_then(|zone| {
            let at = jiff::Timestamp::from_millisecond(event.at.epoch_ms()).ok()?;
            Some(i64::from(zone.to_offset(at).seconds()))
        })
        .unwrap_or(0);
    let local_s = event.at.epoch_ms().div_euclid(1000) + offset_s;
    let days = local_s.div_euclid(SECONDS_PER_DAY);
    LocalTime {
        // Both remainders are small and not negative, so they fit.
        hour: (local_s.rem_euclid(SECONDS_PER_DAY) / SECONDS_PER_HOUR) as u8,
        weekday: (days + DAYS_FROM_MONDAY_TO_1970).rem_euclid(WEEKDAYS as i64) as u8 + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;

    #[test]
    fn the_local_hour_follows_the_events_own_time_zone_and_its_summer_time() {
        for (at, zone, hour, weekday) in [
            ("2026-01-05T10:30:00Z", None, 10, 1),
            ("2026-01-05T10:30:00Z", Some("Europe/London"), 10, 1),
            ("2026-07-05T23:30:00Z", Some("Europe/London"), 0, 1), // summer time, and the next day
            ("2026-01-05T00:15:00Z", Some("America/New_York"), 19, 7),
            ("2026-01-05T20:00:00Z", Some("Asia/Kathmandu"), 1, 2), // 5:45 ahead
            ("2026-01-05T10:30:00Z", Some("Europe/Atlantis"), 10, 1),
            ("1970-01-01T00:00:00Z", None, 0, 4),
            ("1970-01-01T00:00:00Z", Some("Pacific/Honolulu"), 14, 3), // before 1970, by its clock
        ] {
            let mut event = event("e", "click", at.parse().expect(at));
            event.location.timezone = zone.map(Into::into);
            assert_eq!(local_time(&event), LocalTime { hour, weekday }, "{at} {zone:?}");
        }
    }
}
