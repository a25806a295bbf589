//! The local hour and weekday of an event, by the time zone that it names, and the clock of a user.
//!
//! The time zones are those that the library bundles, never the machine's own: the same event is at the same local hour
//! wherever it is planned (P7).

use std::sync::LazyLock;

use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::event::Event;
use crate::time::Timestamp;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Hours of a day.
pub const HOURS: usize = 24;
/// Days of a week.
pub const WEEKDAYS: usize = 7;

const MINUTES_PER_HOUR: u16 = 60;
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

/// Whether a name is that of a time zone.
pub fn is_time_zone(name: &str) -> bool {
    TIME_ZONES.get(name).is_ok()
}

/// The clock on a user's wall.
#[derive(Clone, Debug)]
pub struct LocalClock(TimeZone);

impl LocalClock {
    /// The clock of the first of these time zones that there is; without any, UTC.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> LocalClock {
        let known = names.into_iter().find_map(|name| TIME_ZONES.get(name).ok());
        LocalClock(known.unwrap_or(TimeZone::UTC))
    }

    /// What it shows, in minutes since midnight.
    pub fn minute_of_day(&self, at: Timestamp) -> u16 {
        let Ok(at) = jiff::Timestamp::from_millisecond(at.epoch_ms()) else {
            return 0;
        };
        let time = self.0.to_datetime(at).time();
        // 0 to 23 and 0 to 59.
        time.hour() as u16 * MINUTES_PER_HOUR + time.minute() as u16
    }

    /// When it shows so many minutes since midnight, so many days after the day of `at`. Where it shows that twice, the
    /// first time after `at`; where summer time skips it, when it skips.
    pub fn time_of_day(&self, at: Timestamp, days: u32, minute: u16) -> Timestamp {
        self.checked_time_of_day(at, days, minute).unwrap_or(Timestamp::MAX)
    }

    /// Nothing only beyond the year 9999.
    fn checked_time_of_day(&self, at: Timestamp, days: u32, minute: u16) -> Option<Timestamp> {
        let now = jiff::Timestamp::from_millisecond(at.epoch_ms()).ok()?;
        let date = self.0.to_datetime(now).date();
        let date = date
            .checked_add(jiff::Span::new().try_days(i64::from(days)).ok()?)
            .ok()?;
        let (hour, minute) = (minute / MINUTES_PER_HOUR, minute % MINUTES_PER_HOUR);
        let time = jiff::civil::Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()?;
        let ambiguous = self.0.to_ambiguous_timestamp(date.to_datetime(time));
        let found = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok()?,
            AmbiguousOffset::Fold { .. } => {
                let first = ambiguous.earlier().ok()?;
                if first > now { first } else { ambiguous.later().ok()? }
            }
            AmbiguousOffset::Gap { .. } => {
                // Read by the clock after the change, the time that is skipped lies before it.
                let before = ambiguous.earlier().ok()?;
                let change = self.0.following(before).next();
                change.map_or(before, |change| change.timestamp())
            }
        };
        Some(Timestamp::from_epoch_ms(found.as_millisecond()))
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
