//! `usher rejected list`: counts by reason, and the newest.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Result;
use usher_aws::stream_reader::StreamReader;
use usher_domain::time::Timestamp;

use super::read::{Filter, Rejected, Seen, left_out, place_of, read_rejected};
use crate::Verdict;
use crate::args::ListOptions;
use crate::environment;
use crate::people::{counted, grouped, say};
use crate::send::load_clients;

/// Characters of a detail in a list.
const DETAIL_CHARS_MAX: usize = 100;

/// Runs the command.
///
/// # Errors
/// When the stream can't be read.
pub async fn run(options: ListOptions) -> Result<Verdict> {
    let filter = Filter::of(&options.selection)?;
    let stop = environment::stop_signal()?;
    let clients = load_clients(options.selection.endpoint_url.as_deref()).await;
    let reader = StreamReader::new(clients.kinesis, &options.selection.stream);
    let mut found = Found::new(options.newest);
    let seen = read_rejected(&reader, &filter, &stop, |rejected| {
        found.add(&rejected);
        Ok(ControlFlow::Continue(()))
    });
    let seen = seen.await?;
    say(&found.text(&options.selection.stream, seen))?;
    Ok(Verdict::AllWell)
}

/// Records of one reason.
struct Group {
    records: u64,
    parked: u64,
    first: Timestamp,
    last: Timestamp,
}

/// What the stream holds.
struct Found {
    by_reason: BTreeMap<&'static str, Group>,
    /// By when they were rejected; the number tells equal times apart.
    newest: BTreeMap<(Timestamp, u64), String>,
    newest_max: usize,
    count: u64,
}

impl Found {
    fn new(newest_max: usize) -> Found {
        Found {
            by_reason: BTreeMap::new(),
            newest: BTreeMap::new(),
            newest_max,
            count: 0,
        }
    }

    fn add(&mut self, rejected: &Rejected<'_>) {
        let Rejected { record, rejected_at } = rejected;
        let group = self.by_reason.entry(record.reason.name()).or_insert(Group {
            records: 0,
            parked: 0,
            first: *rejected_at,
            last: *rejected_at,
        });
        group.records += 1;
        group.parked += u64::from(record.parked);
        group.first = group.first.min(*rejected_at);
        group.last = group.last.max(*rejected_at);
        self.count += 1;
        let is_among = self.newest.len() < self.newest_max
            || self
                .newest
                .first_key_value()
                .is_some_and(|((oldest, _), _)| oldest <= rejected_at);
        if self.newest_max > 0 && is_among {
            let field = if record.field.is_empty() {
                String::new()
            } else {
                format!("{}: ", record.field)
            };
            let detail: String = record.detail.chars().take(DETAIL_CHARS_MAX).collect();
            let line = format!(
                "  {rejected_at}  {}  {}\n    {field}{detail}\n",
                record.reason,
                place_of(record)
            );
            self.newest.insert((*rejected_at, self.count), line);
            if self.newest.len() > self.newest_max {
                self.newest.pop_first();
            }
        }
    }

    fn text(&self, stream: &str, seen: Seen) -> String {
        if self.count == 0 {
            return format!("no such record on {stream}\n{}", left_out(seen));
        }
        let mut text = format!("{} on {stream}\n", counted(self.count as usize, "rejected record"));
        let width = self.by_reason.keys().map(|name| name.len()).max().unwrap_or(0);
        text.push_str(&format!(
            "  {:<width$}  {:>9}  {:<24}  last\n",
            "reason", "records", "first"
        ));
        let mut parked = 0;
        for (name, group) in &self.by_reason {
            parked += group.parked;
            let records = grouped(group.records);
            text.push_str(&format!(
                "  {name:<width$}  {records:>9}  {}  {}\n",
                group.first, group.last
            ));
        }
        if !self.newest.is_empty() {
            text.push_str(&format!("the newest {}\n", self.newest.len()));
            text.extend(self.newest.values().rev().map(String::as_str));
        }
        if parked > 0 {
            text.push_str(&format!(
                "{} of parked users: once a profile is mended, `usher redrive --user ID` applies them in order\n",
                counted(parked as usize, "record")
            ));
        }
        text.push_str(&left_out(seen));
        text
    }
}

#[cfg(test)]
mod tests {
    use usher_wire::reject::RejectReason;

    use super::super::read::tests::rejected;
    use super::*;

    #[test]
    fn reasons_are_counted_with_their_first_and_last_and_the_newest_are_named() {
        let mut found = Found::new(2);
        for (reason, number, minute, parked) in [
            (RejectReason::NotJson, "1", 3, false),
            (RejectReason::MissingField, "2", 1, false),
            (RejectReason::NotJson, "3", 2, false),
            (RejectReason::UserParked, "4", 0, true),
        ] {
            let mut record = rejected(reason, number, b"x");
            record.parked = parked;
            let at = format!("2026-01-05T10:0{minute}:00Z");
            let rejected_at = at.parse().expect("a time");
            found.add(&Rejected { record, rejected_at });
        }
        let text = found.text(
            "rejected",
            Seen {
                records: 4,
                repeats: 1,
                unreadable: 0,
            },
        );
        let expected = "4 rejected records on rejected
  reason           records  first                     last
  missing_field          1  2026-01-05T10:01:00.000Z  2026-01-05T10:01:00.000Z
  not_json               2  2026-01-05T10:02:00.000Z  2026-01-05T10:03:00.000Z
  user_parked            1  2026-01-05T10:00:00.000Z  2026-01-05T10:00:00.000Z
the newest 2
  2026-01-05T10:03:00.000Z  not_json  shardId-000000000000:1
    event_id: it is missing
  2026-01-05T10:02:00.000Z  not_json  shardId-000000000000:3
    event_id: it is missing
1 record of parked users: once a profile is mended, `usher redrive --user ID` applies them in order
1 times a record was there again, because its batch was run again; it counts once
";
        assert_eq!(text, expected);
    }
}
