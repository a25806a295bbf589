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
