//! `usher trends`: what people meet with most.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::watch;
use usher_aws::dynamodb::DynamoTrendTable;
use usher_domain::journey::{Trend, TrendBy};
use usher_domain::time::Timestamp;
use usher_domain::trends::Trends;
use usher_pipeline::trend_reader::TrendReader;

use crate::Verdict;
use crate::args::{ListedBy, TrendsOptions};
use crate::arrival_clock::wall_clock;
use crate::environment;
use crate::people::{counted, grouped, say};
use crate::send::load_clients;

/// From one look to the next.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";
/// What is left between two columns.
const COLUMN_GAP: &str = "  ";

/// Runs the command.
///
/// # Errors
/// When the table can't be read.
pub async fn run(options: TrendsOptions) -> Result<Verdict> {
    let at = match options.at.as_str() {
        "now" => None,
        time => Some(
            time.parse()
                .context("--at is `now` or a time such as 2026-01-05T10:00:00Z")?,
        ),
    };
    let stop = environment::stop_signal()?;
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let table = DynamoTrendTable::new(clients.dynamodb, &options.table);
    let within_ms = i64::try_from(options.within.as_millis()).unwrap_or(i64::MAX);
    let mut reader = TrendReader::of_everything(within_ms);
    let is_redrawn = options.watch && !options.json && std::io::stdout().is_terminal();
    loop {
        let now = at.unwrap_or_else(wall_clock);
        let look = reader.refresh(&table, now).await.with_context(|| {
            format!(
                "cannot read the trends; is {} the right table (--table), and is this the right account, region or endpoint \
                 (--endpoint-url)?",
                options.table
            )
        })?;
        let listed = Listed::of(&look.trends, &options, within_ms, now, reader.events(), look.unreadable);
        let text = if options.json {
            serde_json::to_string(&listed).context("cannot write the trends as JSON")? + "\n"
        } else {
            listed.text()
        };
        say(&if is_redrawn { format!("{CLEAR}{text}") } else { text })?;
        if !options.watch || stopped_within(stop.clone(), WATCH_INTERVAL).await {
            return Ok(Verdict::AllWell);
        }
    }
}

/// Waits, and tells whether the command was stopped meanwhile.
async fn stopped_within(mut stop: watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stop.wait_for(|stopped| *stopped))
        .await
        .is_ok()
}

/// What is shown.
#[derive(Debug, PartialEq, Serialize)]
struct Listed {
    as_of: String,
    within_ms: i64,
    by: &'static str,
    /// The event types that are counted, in the order of the columns.
    event_types: Vec<String>,
    /// Events of all types in the window.
    events: u64,
    /// By how much any count may be too low.
    error: u64,
    /// Stored tiles that can't be read, and are left out.
    unreadable: u64,
    top: Vec<Row>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    id: String,
    count: u64,
    /// One for each of the event types.
    counts: Vec<u64>,
}

impl Listed {
    fn of(
        trends: &Trends,
        options: &TrendsOptions,
        within_ms: i64,
        now: Timestamp,
        events: u64,
        unreadable: u64,
    ) -> Listed {
        let (by, name) = match options.by {
            ListedBy::Content => (TrendBy::Content, "content"),
            ListedBy::Category => (TrendBy::Category, "category"),
        };
        let event_types: Vec<String> = if options.event.is_empty() {
            trends.event_types(by).map(str::to_owned).collect()
        } else {
            options
                .event
                .iter()
                .map(|event_type| event_type.trim().to_lowercase())
                .collect()
        };
        let trend = |event_types: Vec<String>| Trend {
            name: String::new(),
            event_types,
            by,
            within_ms,
        };
        let of_each: Vec<Trend> = event_types.iter().map(|one| trend(vec![one.clone()])).collect();
        let of_all = trend(event_types.clone());
        let row = |(id, count): (&str, u64)| Row {
            id: id.to_owned(),
            count,
            counts: of_each.iter().map(|trend| trends.count(trend, id, now)).collect(),
        };
        Listed {
            as_of: now.to_string(),
            within_ms,
            by: name,
            events,
            error: trends.error(&of_all, now),
            unreadable,
            top: trends.top(&of_all, now, options.top).into_iter().map(row).collect(),
            event_types,
        }
    }

    fn text(&self) -> String {
        let mut rows: Vec<Vec<String>> = Vec::with_capacity(self.top.len() + 1);
        let types = self.event_types.iter().cloned();
        // With one type the sum would say the same twice.
        let sum = (self.event_types.len() > 1).then(|| "all".to_owned());
        rows.push([self.by.to_owned()].into_iter().chain(types).chain(sum).collect());
        for row in &self.top {
            let counts = row.counts.iter().map(|count| grouped(*count));
            let sum = (self.event_types.len() > 1).then(|| grouped(row.count));
            rows.push([row.id.clone()].into_iter().chain(counts).chain(sum).collect());
        }
        let window = humantime::format_duration(Duration::from_millis(self.within_ms.unsigned_abs()));
        let mut text = format!(
            "{} counted in the {window} before {}\n",
            counted_of(self.events, "event"),
            self.as_of
        );
        if self.top.is_empty() {
            text.push_str("none of them is about what was asked for\n");
        } else {
            text.push_str(&aligned(&rows));
        }
        if self.error > 0 {
            text.push_str(&format!(
                "there were more different ids than are kept: any count may be too low by up to {}\n",
                grouped(self.error)
            ));
        }
        if self.unreadable > 0 {
            let tiles = counted_of(self.unreadable, "stored tile");
            text.push_str(&format!(
                "{tiles} can't be read and left out; content-trends' log says why\n"
            ));
        }
        text
    }
}

fn counted_of(count: u64, what: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), what)
}

/// Rows in columns: the first to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| {
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join(COLUMN_GAP).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use usher_domain::trends::{TrendKey, minute_of};

    use super::*;

    fn options(event: &[&str]) -> TrendsOptions {
        TrendsOptions {
            by: ListedBy::Content,
            event: event.iter().map(|name| (*name).to_owned()).collect(),
            within: Duration::from_secs(600),
            top: 2,
            at: "now".to_owned(),
            watch: false,
            json: false,
            table: "trends".to_owned(),
            endpoint_url: None,
        }
    }

    #[test]
    fn the_top_is_listed_by_event_type_with_its_error() {
        let now: Timestamp = "2026-01-05T10:07:30Z".parse().expect("a time");
        let mut trends = Trends::default();
        for (event_type, id, count) in [
            ("click", "tour-projects", 1200),
            ("view", "tour-projects", 5),
            ("click", "book-demo", 7),
            ("click", "other", 1),
        ] {
            let key = TrendKey {
                event_type: event_type.to_owned(),
                by: TrendBy::Content,
                id: id.to_owned(),
            };
            trends.add(minute_of(now), key, count);
        }
        let listed = Listed::of(&trends, &options(&[]), 600_000, now, 1213, 0);
        let expected = "1,213 events counted in the 10m before 2026-01-05T10:07:30.000Z\n\
                        content        click  view    all\n\
                        tour-projects  1,200     5  1,205\n\
                        book-demo          7     0      7\n";
        assert_eq!(listed.text(), expected);
        trends.add_error(minute_of(now), 3);
        let listed = Listed::of(&trends, &options(&[" Click"]), 600_000, now, 1213, 1);
        let text = listed.text();
        for part in [
            "content        click\n",
            "book-demo          7\n",
            "too low by up to 3\n",
            "1 stored tile can't be read",
        ] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        let json = serde_json::to_value(&listed).expect("JSON");
        assert_eq!(
            (&json["error"], &json["top"][0]["counts"][0]),
            (&3.into(), &1200.into())
        );
        let listed = Listed::of(&trends, &options(&["purchase"]), 600_000, now, 1, 0);
        assert!(listed.text().starts_with("1 event counted"), "{}", listed.text());
        assert!(listed.text().contains("none of them"));
    }
}
