//! What time a record arrives: the wall clock's, or the one that its own bytes tell.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads a record's own time, in milliseconds since the Unix epoch, from its bytes; `None` when it tells none.
pub type RecordTime = Arc<dyn Fn(&[u8]) -> Option<i64> + Send + Sync>;

/// Which clock stamps `approximateArrivalTimestamp` on the records that functions receive.
///
/// With [`Clock::Data`] months of history pass in a minute and a function that takes arrival as "now" cannot tell.
/// Invocation deadlines and latencies always go by the wall clock.
#[derive(Clone, Default)]
pub enum Clock {
    /// A record arrives when it is put.
    #[default]
    Wall,
    /// A record of one of `streams` arrives when its own bytes say; when they say nothing, and on every other
    /// stream, when it is put.
    Data {
        /// Names of the streams whose records tell their own time.
        streams: BTreeSet<String>,
        /// Reads that time.
        record_time: RecordTime,
    },
}

impl Clock {
    /// A data clock for `streams`.
    pub fn data<S: Into<String>>(
        streams: impl IntoIterator<Item = S>,
        record_time: impl Fn(&[u8]) -> Option<i64> + Send + Sync + 'static,
    ) -> Self {
        Self::Data {
            streams: streams.into_iter().map(Into::into).collect(),
            record_time: Arc::new(record_time),
        }
    }

    /// Whether every stream goes by the wall clock.
    pub(crate) fn is_wall(&self) -> bool {
        matches!(self, Self::Wall)
    }

    /// The function that reads the time of `stream`'s records, if this clock asks the records.
    pub(crate) fn record_time_of(&self, stream: &str) -> Option<&RecordTime> {
        match self {
            Self::Data { streams, record_time } if streams.contains(stream) => Some(record_time),
            Self::Data { .. } | Self::Wall => None,
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wall => formatter.write_str("Wall"),
            Self::Data { streams, .. } => formatter
                .debug_struct("Data")
                .field("streams", streams)
                .finish_non_exhaustive(),
        }
    }
}

/// The wall clock in milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "the local cloud is the edge that stamps arrivals"
)]
pub(crate) fn wall_clock_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// A moment in UTC as AWS writes it in this place; `format` is that of strftime. One beyond the years that have four digits is
/// written as the last that has.
pub(crate) fn utc(epoch_ms: i64, format: &str) -> String {
    let moment = jiff::Timestamp::from_millisecond(epoch_ms).unwrap_or(jiff::Timestamp::MAX);
    moment.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn moments_are_written_as_aws_writes_them() {
        // The middle ones are those of AWS's examples.
        for (epoch_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_573_691_886_021, "2019-11-14T00:38:06.021Z"),
            (1_607_497_475_000, "2020-12-09T07:04:35.000Z"),
            (i64::MAX, "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(utc(epoch_ms, "%Y-%m-%dT%H:%M:%S.%3fZ"), text);
        }
    }
}
