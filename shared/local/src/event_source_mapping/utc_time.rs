//! Milliseconds since the Unix epoch as a date and a time of day in UTC, for the timestamps that AWS writes.

const DAY_MS: i64 = 86_400_000;

/// A moment in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UtcTime {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub millisecond: i64,
}

impl UtcTime {
    /// From milliseconds since the Unix epoch, before it too.
    pub fn from_epoch_ms(epoch_ms: i64) -> Self {
        let (days, within) = (epoch_ms.div_euclid(DAY_MS), epoch_ms.rem_euclid(DAY_MS));
        // Days to a date as in https://howardhinnant.github.io/date_algorithms.html#civil_from_days: years begin in March, so
        // that a leap day is a year's last; 146,097 days are 400 years.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: within / 3_600_000,
            minute: within / 60_000 % 60,
            second: within / 1_000 % 60,
            millisecond: within % 1_000,
        }
    }

    /// `2020-12-09T07:04:00Z`.
    pub fn to_rfc3339_seconds(self) -> String {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }

    /// `2019-11-14T00:38:06.021Z`.
    pub fn to_rfc3339_millis(self) -> String {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            self.year, self.month, self.day, self.hour, self.minute, self.second, self.millisecond
        )
    }
}

#[cfg(test)]
mod tests {
    use super::UtcTime;

    #[test]
    fn moments_are_written_as_aws_writes_them() {
        // (milliseconds since the epoch, RFC 3339 with milliseconds); the middle ones are those of AWS's examples.
        for (epoch_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_573_691_886_021, "2019-11-14T00:38:06.021Z"),
            (1_607_497_475_000, "2020-12-09T07:04:35.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            let time = UtcTime::from_epoch_ms(epoch_ms);
            assert_eq!(time.to_rfc3339_millis(), text);
            assert_eq!(time.to_rfc3339_seconds(), format!("{}Z", &text[..19]));
        }
    }
}
