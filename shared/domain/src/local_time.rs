//! The local hour and weekday of an event, by the time zone that it names, and the clock of a user.
//!
//! The time zones are those that the library bundles, never the machine's own: the same event is at the same local hour
//! wherever it is planned (P7).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::LazyLock;

use hashbrown::HashMap;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use crate::event::Event;
use crate::time::Timestamp;

static TIME_ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Names whose time zones a thread remembers, known ones or not; there are some 600. With more it starts anew.
const NAMES_REMEMBERED_MAX: usize = 1024;

thread_local! {
    /// The time zones of names, since looking one up in the database takes longer than all else that is done with it.
    static RESOLVED: RefCell<HashMap<String, Option<Rc<Zone>>>> = RefCell::default();
    static UTC: Rc<Zone> = Rc::new(Zone::of(TimeZone::UTC));
}

/// A time zone, with a span that it was asked about last.
#[derive(Debug)]
struct Zone {
    zone: TimeZone,
    steady: Cell<Steady>,
}

/// From when, until when (both in milliseconds since 1970, the end not included) and by how much local time is ahead of UTC
/// without a change.
#[derive(Clone, Copy, Debug)]
struct Steady {
    from_ms: i64,
    until_ms: i64,
    ahead_ms: i64,
}

impl Zone {
    fn of(zone: TimeZone) -> Zone {
        let nothing = Steady {
            from_ms: 0,
            until_ms: 0,
            ahead_ms: 0,
        };
        Zone {
            zone,
            steady: Cell::new(nothing),
        }
    }

    /// The span around a time.
    fn steady_at(&self, at: Timestamp) -> Steady {
        let steady = self.steady.get();
        let ms = at.epoch_ms();
        if steady.from_ms <= ms && ms < steady.until_ms {
            return steady;
        }
        let steady = self.find_steady(ms);
        self.steady.set(steady);
        steady
    }

    fn find_steady(&self, ms: i64) -> Steady {
        let second = jiff::Timestamp::from_second(ms.div_euclid(MS_PER_SECOND));
        let next = jiff::Timestamp::from_second(ms.div_euclid(MS_PER_SECOND) + 1);
        let (Ok(second), Ok(next)) = (second, next) else {
            // Beyond what can be written; the caller finds that out.
            return Steady {
                from_ms: ms,
                until_ms: ms,
                ahead_ms: 0,
            };
        };
        // Changes are at whole seconds.
        let before = self.zone.preceding(next).next();
        let after = self.zone.following(second).next();
        Steady {
            from_ms: before.map_or(i64::MIN, |change| change.timestamp().as_millisecond()),
            until_ms: after.map_or(i64::MAX, |change| change.timestamp().as_millisecond()),
            ahead_ms: i64::from(self.zone.to_offset(second).seconds()) * MS_PER_SECOND,
        }
    }

    /// What its clocks show, in milliseconds since they showed the start of 1970.
    fn local_ms(&self, at: Timestamp) -> i64 {
        at.epoch_ms() + self.steady_at(at).ahead_ms
    }
}

/// The time zone of a name.
fn resolve(name: &str) -> Option<Rc<Zone>> {
    RESOLVED.with_borrow_mut(|resolved| {
        if let Some(known) = resolved.get(name) {
            return known.clone();
        }
        if resolved.len() >= NAMES_REMEMBERED_MAX {
            resolved.clear();
        }
        let zone = TIME_ZONES.get(name).ok().map(|zone| Rc::new(Zone::of(zone)));
        resolved.insert(name.to_owned(), zone.clone());
        zone
    })
}

/// Hours of a day.
pub const HOURS: usize = 24;
/// Days of a week.
pub const WEEKDAYS: usize = 7;

const MINUTES_PER_HOUR: u16 = 60;
const MS_PER_SECOND: i64 = 1000;
const MS_PER_MINUTE: i64 = 60 * MS_PER_SECOND;
const MS_PER_HOUR: i64 = 60 * MS_PER_MINUTE;
const MS_PER_DAY: i64 = HOURS as i64 * MS_PER_HOUR;
/// What lies this far from every change of a clock is shown once. No change is of more than a day: an island moved to the
/// other side of the date line.
const MS_AWAY_FROM_CHANGES: i64 = 2 * MS_PER_DAY;
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
    let zone = event.location.timezone.as_deref().and_then(resolve);
    let local_ms = zone.map_or_else(|| event.at.epoch_ms(), |zone| zone.local_ms(event.at));
    LocalTime::shown_at(local_ms)
}

impl LocalTime {
    /// What clocks show so many milliseconds after they showed the start of 1970.
    fn shown_at(local_ms: i64) -> LocalTime {
        let days = local_ms.div_euclid(MS_PER_DAY);
        LocalTime {
            // Both remainders are small and not negative, so they fit.
            hour: (local_ms.rem_euclid(MS_PER_DAY) / MS_PER_HOUR) as u8,
            weekday: (days + DAYS_FROM_MONDAY_TO_1970).rem_euclid(WEEKDAYS as i64) as u8 + 1,
        }
    }
}

/// Whether a name is that of a time zone.
pub fn is_time_zone(name: &str) -> bool {
    resolve(name).is_some()
}

/// The clock on a user's wall.
#[derive(Clone, Debug)]
pub struct LocalClock(Rc<Zone>);

impl LocalClock {
    /// The clock of the first of these time zones that there is; without any, UTC.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> LocalClock {
        let known = names.into_iter().find_map(resolve);
        LocalClock(known.unwrap_or_else(|| UTC.with(Rc::clone)))
    }

    /// The hour and the weekday that it shows.
    pub fn local_time(&self, at: Timestamp) -> LocalTime {
        LocalTime::shown_at(self.0.local_ms(at))
    }

    /// What it shows, in minutes since midnight.
    pub fn minute_of_day(&self, at: Timestamp) -> u16 {
        // Less than a day, so it fits.
        (self.0.local_ms(at).rem_euclid(MS_PER_DAY) / MS_PER_MINUTE) as u16
    }

    /// When it shows so many minutes since midnight, so many days after the day of `at`. Where it shows that twice, the
    /// first time after `at`; where summer time skips it, when it skips.
    pub fn time_of_day(&self, at: Timestamp, days: u32, minute: u16) -> Timestamp {
        match self.steady_time_of_day(at, days, minute) {
            Some(found) => found,
            None => self.any_time_of_day(at, days, minute).unwrap_or(Timestamp::MAX),
        }
    }

    /// The same by adding, where the clock does not change anywhere near. That is nearly always, and every event may ask.
    fn steady_time_of_day(&self, at: Timestamp, days: u32, minute: u16) -> Option<Timestamp> {
        let steady = self.0.steady_at(at);
        let midnight_ms = (at.epoch_ms() + steady.ahead_ms).div_euclid(MS_PER_DAY) * MS_PER_DAY;
        let found_ms = midnight_ms + i64::from(days) * MS_PER_DAY + i64::from(minute) * MS_PER_MINUTE - steady.ahead_ms;
        let from_ms = steady.from_ms.saturating_add(MS_AWAY_FROM_CHANGES);
        let until_ms = steady.until_ms.saturating_sub(MS_AWAY_FROM_CHANGES);
        let is_away = from_ms <= found_ms && found_ms < until_ms;
        is_away.then(|| Timestamp::from_epoch_ms(found_ms))
    }

    /// Nothing only beyond the year 9999.
    fn any_time_of_day(&self, at: Timestamp, days: u32, minute: u16) -> Option<Timestamp> {
        let now = jiff::Timestamp::from_millisecond(at.epoch_ms()).ok()?;
        let date = self.0.zone.to_datetime(now).date();
        let date = date
            .checked_add(jiff::Span::new().try_days(i64::from(days)).ok()?)
            .ok()?;
        let (hour, minute) = (minute / MINUTES_PER_HOUR, minute % MINUTES_PER_HOUR);
        let time = jiff::civil::Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()?;
        let ambiguous = self.0.zone.to_ambiguous_timestamp(date.to_datetime(time));
        let found = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok()?,
            AmbiguousOffset::Fold { .. } => {
                let first = ambiguous.earlier().ok()?;
                if first > now { first } else { ambiguous.later().ok()? }
            }
            AmbiguousOffset::Gap { .. } => {
                // Read by the clock after the change, the time that is skipped lies before it.
                let before = ambiguous.earlier().ok()?;
                let change = self.0.zone.following(before).next();
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
    use proptest::prelude::*;

    proptest! {
        /// The quick way finds what the library finds, in zones of every kind, near changes and far from them.
        #[test]
        fn adding_finds_the_time_of_day_that_the_library_finds(
            zone in prop::sample::select(vec![
                "UTC", "Europe/London", "America/New_York", "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu",
                "Australia/Lord_Howe", "Asia/Tokyo", "America/St_Johns", "Antarctica/Troll", "Africa/Monrovia", "Nowhere",
            ]),
            times in prop::collection::vec((0i64..2_300_000_000_000, 0u32..400, 0u16..1440), 1..20),
        ) {
            let clock = LocalClock::of([zone]);
            for (ms, days, minute) in times {
                let at = Timestamp::from_epoch_ms(ms);
                let datetime = clock.0.zone.to_datetime(jiff::Timestamp::from_millisecond(ms).expect("a time"));
                let shown = datetime.hour() as u16 * MINUTES_PER_HOUR + datetime.minute() as u16;
                prop_assert_eq!(clock.minute_of_day(at), shown, "{} {}", zone, at);
                if let Some(found) = clock.steady_time_of_day(at, days, minute) {
                    prop_assert_eq!(Some(found), clock.any_time_of_day(at, days, minute), "{} {}", zone, at);
                }
            }
        }
    }

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
