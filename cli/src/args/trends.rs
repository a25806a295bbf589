//! `usher trends`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use usher_domain::limits::TREND_WITHIN_MS_MAX;
use usher_domain::trends::TILE_MS;

use super::endpoint_url;

/// Show which contents or categories people meet with most, over all users and shards
///
/// Reads the trends table, which content-trends keeps fresh to a few seconds: clicks, likes, views and every other event that
/// a trend of the journey counts, by the minute of the event's own time. Minutes are kept for an hour, or for as long as the
/// journey's longest trend. The window slides, and is exact to one minute at its far end.
///
/// Where a shard met with more different ids in a minute than it keeps (384), the rarest are forgotten; then it is said by
/// how much any count may be too low.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher trends
  usher trends --event click --within 1h --top 50
  usher trends --by category --watch
  usher trends --json --at 2026-01-05T10:00:00Z --endpoint-url http://127.0.0.1:4568

Exit codes: 0 they are shown, 1 the table can't be read, 2 the command was not understood")]
pub struct TrendsOptions {
    /// What to list
    #[arg(long, value_enum, default_value_t = ListedBy::Content)]
    pub by: ListedBy,
    /// Only events of this type; may be given several times
    #[arg(long, value_name = "TYPE")]
    pub event: Vec<String>,
    /// How far back, such as 10m or 2h
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = window)]
    pub within: Duration,
    /// How many to list
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub top: usize,
    /// As of when: `now` or a time (RFC 3339), as a local cloud with the clock of the data needs it
    #[arg(long, value_name = "WHEN", default_value = "now")]
    pub at: String,
    /// Show them again every two seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// As JSON, one object a look
    #[arg(long)]
    pub json: bool,
    /// The trends table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "trends")]
    pub table: String,
    /// Where DynamoDB is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListedBy {
    /// Contents, by `content_id`
    Content,
    /// Categories
    Category,
}

fn window(text: &str) -> Result<Duration, String> {
    let window: Duration = text
        .parse::<humantime::Duration>()
        .map_err(|error| format!("{error}; write it as 10m or 2h"))?
        .into();
    let shortest = Duration::from_millis(TILE_MS.unsigned_abs());
    let longest = Duration::from_millis(TREND_WITHIN_MS_MAX.unsigned_abs());
    if (shortest..=longest).contains(&window) {
        Ok(window)
    } else {
        Err("a window is 1m to 1h".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_minute_to_a_day() {
        for (text, seconds) in [("1m", Some(60)), ("30m", Some(1_800)), ("1h", Some(3_600))] {
            assert_eq!(window(text).ok().map(|window| window.as_secs()), seconds, "{text}");
        }
        for text in ["", "10", "59s", "25h", "-1m", "soon"] {
            assert!(window(text).is_err(), "{text}");
        }
    }
}
