//! Points in time, in whole milliseconds.

use std::fmt;
use std::str::FromStr;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 time with an offset, such as 2026-01-05T10:00:00.000Z: {why}")]
pub struct TimestampError {
    text: String,
    why: String,
}

impl Timestamp {
    /// The latest time that can be written with any offset: the end of the year 9999, less 26 hours.
    pub const MAX: Timestamp = Timestamp(253_402_207_199_999);
    /// The earliest time that is accepted: 1970-01-01T00:00:00Z. Interactions before it are a broken clock.
    pub const MIN: Timestamp = Timestamp(0);

    /// From milliseconds since the epoch, held within [`Timestamp::MIN`] and [`Timestamp::MAX`].
    pub fn from_epoch_ms(ms: i64) -> Timestamp {
        Timestamp(ms.clamp(Timestamp::MIN.0, Timestamp::MAX.0))
    }

    /// Milliseconds since the epoch.
    pub fn epoch_ms(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to this, negative when `earlier` is later.
    pub fn ms_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    /// This time, `ms` milliseconds earlier.
    pub fn minus_ms(self, ms: i64) -> Timestamp {
        Timestamp::from_epoch_ms(self.0.saturating_sub(ms))
    }

    /// This time, `ms` milliseconds later.
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp::from_epoch_ms(self.0.saturating_add(ms))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Reads RFC 3339 with an offset. Parts of a millisecond are cut off.
    fn from_str(text: &str) -> Result<Timestamp, TimestampError> {
        match usual(text.as_bytes()) {
            Some(ms) => Ok(Timestamp(ms)),
            None => any(text),
        }
    }
}

/// Reads a time in any form of RFC 3339, or says what is wrong with it.
fn any(text: &str) -> Result<Timestamp, TimestampError> {
    let fail = |why: String| TimestampError {
        text: text.chars().take(64).collect(),
        why,
    };
    let parsed: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| fail(error.to_string()))?;
    let ms = parsed.as_millisecond();
    if ms < Timestamp::MIN.0 {
        return Err(fail("it is before 1970".to_owned()));
    }
    Ok(Timestamp(ms))
}

/// The milliseconds of a time in its usual form, `2026-01-05T10:00:00.123Z` or with an offset such as `+02:00`; nothing
/// for any other text. Every event has such a time, so this is worth having beside [`any`].
fn usual(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_first_chunk::<19>()?;
    let two = |at: usize| number(&date_time[at..at + 2]);
    let (year, month, day) = (number(&date_time[..4])?, two(5)?, two(8)?);
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    let separators = [date_time[4], date_time[7], date_time[10], date_time[13], date_time[16]];
    let right = separators == *b"--T::"
        && year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !right {
        return None;
    }
    let (fraction_ms, offset) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let ms = match rest.get(..digits)? {
                [] => return None,
                [tenths] => number(&[*tenths])? * 100,
                [tenths, hundredths] => number(&[*tenths, *hundredths])? * 10,
                longer if digits <= 9 => number(&longer[..3])?,
                _ => return None,
            };
            (ms, &rest[digits..])
        }
        _ => (0, rest),
    };
    let offset_minutes = match offset {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let (hours, minutes) = (number(hours)?, number(&[*tens, *ones])?);
            if hours >= 24 || minutes >= 60 {
                return None;
            }
            let minutes = hours * MINUTES_PER_HOUR + minutes;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes =
        (days_since_1970(year, month, day) * HOURS_PER_DAY + hour) * MINUTES_PER_HOUR + minute - offset_minutes;
    let ms = (minutes * SECONDS_PER_MINUTE + second) * MS_PER_SECOND + fraction_ms;
    (Timestamp::MIN.0..=Timestamp::MAX.0).contains(&ms).then_some(ms)
}

const HOURS_PER_DAY: i64 = 24;
const MINUTES_PER_HOUR: i64 = 60;
const SECONDS_PER_MINUTE: i64 = 60;
const MS_PER_SECOND: i64 = 1000;

/// The number that a few decimal digits write.
fn number(digits: &[u8]) -> Option<i64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    digits
        .iter()
        .try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are taken to start in March, so that the day that a
/// leap year adds comes last: <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Within the bounds that every constructor holds to, jiff can write any of them.
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(formatter, "{time:.3}"),
            Err(_) => write!(formatter, "{} ms after 1970", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The quick way reads nothing that the library reads differently, and all of the usual form.
        #[test]
        fn both_ways_of_reading_agree(
            text in "(19[67][0-9]|20[0-9]{2}|9999)-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:[0-6][0-9]|)",
            ms in 0..Timestamp::MAX.0,
        ) {
            if let Some(ms) = usual(text.as_bytes()) {
                prop_assert_eq!(super::any(&text), Ok(Timestamp(ms)), "{}", text);
            }
            prop_assert_eq!(usual(Timestamp(ms).to_string().as_bytes()), Some(ms));
        }
    }

    #[test]
    fn rfc_3339_with_an_offset_is_read_and_written_in_utc() {
        for (text, written) in [
            ("2013-03-17T10:37:26.000Z", "2013-03-17T10:37:26.000Z"),
            ("2013-03-17T10:37:26Z", "2013-03-17T10:37:26.000Z"),
            ("2026-01-05T10:00:00.1239+02:00", "2026-01-05T08:00:00.123Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
            ("9999-12-30T21:59:59.999Z", "9999-12-30T21:59:59.999Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().expect(text).to_string(), written, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2013-03-17",
            "2013-03-17T10:37:26",
            "1969-12-31T23:59:59Z",
            "99999-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
