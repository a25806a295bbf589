//! `usher replay`: the same fold as the deployed function's, without any cloud.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use usher_domain::journey::Journey;
use usher_domain::rules::{RuleCounts, RuleOutcome};
use usher_domain::time::Timestamp;
use usher_wire::reject::{Reject, RejectReason};
use usher_wire::trigger;

use crate::Verdict;
use crate::args::ReplayOptions;
use crate::arrival_clock::{data_arrival, wall_clock};
use crate::events_file::EventsFile;
use crate::fold::{Fold, LineCounts, Rejected};
use crate::people::{counted, grouped, say, table};
use crate::progress::Progress;
use crate::record::RecordReader;
use crate::triggers_file::TriggersFile;
use crate::{journey_file, profiles_file};

/// Lines between two looks at the progress bar.
const LINES_PER_PROGRESS: u64 = 4096;

/// Runs the command.
///
/// # Errors
/// When the journey has errors, or a file can't be read or written. A line that can't be used is none.
pub fn run(options: &ReplayOptions) -> Result<Verdict> {
    let journey = journey_file::load(&options.journey)?;
    let mut source = Source::of(options)?;
    let mut triggers_file = options.triggers.as_deref().map(TriggersFile::create).transpose()?;
    let progress = source.progress();
    let started = Instant::now();
    let mut fold = Fold::new(&journey);
    // An event id that comes again from beyond the dedupe window makes the same trigger again; its id tells.
    let mut trigger_ids = HashSet::new();
    while let Some(line) = source.next()? {
        for trigger in fold.line(line.number, &line.data, line.arrived_at) {
            if trigger_ids.insert(trigger.id)
                && let Some(file) = &mut triggers_file
            {
                file.write(&trigger::to_json(&trigger))?;
            }
        }
        if fold.counts().lines.is_multiple_of(LINES_PER_PROGRESS) {
            progress.show(&format!("{} events", grouped(fold.counts().lines)));
        }
    }
    progress.clear();
    let took = started.elapsed();
    if let Some(file) = triggers_file {
        file.finish()?;
    }
    let (counts, rules) = (fold.counts().clone(), fold.rules().clone());
    let profiles = fold.into_profiles();
    if let Some(path) = &options.profiles {
        profiles_file::write_file(path, &profiles, &journey, profiles_file::latest_arrival(&profiles))?;
    }
    let triggers = trigger_ids.len();
    say(&summary(&journey, &counts, &rules, profiles.len(), triggers, took))?;
    Ok(Verdict::AllWell)
}

/// Where the lines come from.
enum Source {
    /// Events, which arrive at their own time.
    Events(EventsFile),
    /// A stream, with its arrivals.
    Record(RecordReader),
}

impl Source {
    fn of(options: &ReplayOptions) -> Result<Source> {
        match (&options.events, &options.record) {
            (_, Some(record)) => Ok(Source::Record(RecordReader::open(record)?)),
            (Some(events), None) => Ok(Source::Events(EventsFile::open(events)?)),
            (None, None) => bail!("there is nothing to replay; give --events or --record"),
        }
    }

    fn progress(&self) -> Progress {
        match self {
            Source::Events(events) => Progress::of_file(events.size(), events.bytes_read()),
            Source::Record(record) => Progress::of_file(record.size(), record.bytes_read()),
        }
    }

    fn next(&mut self) -> Result<Option<Arrival<'_>>> {
        Ok(match self {
            Source::Events(events) => events.next_line()?.map(|line| Arrival {
                number: line.number,
                data: Cow::Borrowed(line.bytes),
                arrived_at: data_arrival(line.bytes).unwrap_or_else(wall_clock),
            }),
            Source::Record(record) => record.next_record()?.map(|recorded| Arrival {
                number: recorded.number,
                data: Cow::Owned(recorded.data),
                arrived_at: recorded.arrived_at,
            }),
        })
    }
}

/// A line as it arrives.
struct Arrival<'s> {
    number: u64,
    data: Cow<'s, [u8]>,
    arrived_at: Timestamp,
}

fn summary(
    journey: &Journey,
    counts: &LineCounts,
    rules: &RuleCounts,
    profiles: usize,
    triggers: usize,
    took: Duration,
) -> String {
    let per_second = counts.lines as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut text = format!(
        "{} in {:.2} s ({} a second), journey `{}` version {}\n",
        counted(counts.lines as usize, "event"),
        took.as_secs_f64(),
        grouped(per_second as u64),
        journey.name,
        journey.version,
    );
    let mut rows = vec![
        ("applied".to_owned(), grouped(counts.applied)),
        ("duplicate".to_owned(), grouped(counts.duplicate)),
        ("dropped by the journey".to_owned(), grouped(counts.dropped)),
        ("rejected".to_owned(), grouped(counts.rejected_total())),
        ("profiles".to_owned(), grouped(profiles as u64)),
        ("triggers".to_owned(), grouped(triggers as u64)),
    ];
    text.push_str(&table(&rows));
    if !counts.rejected.is_empty() {
        text.push_str("rejected, with the first of each reason\n");
        let row = |(reason, rejected): (&RejectReason, &Rejected)| {
            let Reject { field, detail, .. } = &rejected.first;
            let place = if field.is_empty() { "the line" } else { field };
            let first = format!(
                "{}  line {}: {place}: {detail}",
                grouped(rejected.count),
                rejected.first_line
            );
            (reason.name().to_owned(), first)
        };
        rows = counts.rejected.iter().map(row).collect();
        text.push_str(&table(&rows));
    }
    if !journey.rules.is_empty() {
        text.push_str("rules, and why they did not fire\n");
        rows = journey
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (rule.id.clone(), rule_row(rules, index)))
            .collect();
        text.push_str(&table(&rows));
    }
    text
}

fn rule_row(rules: &RuleCounts, index: usize) -> String {
    let counts = RuleOutcome::ALL
        .into_iter()
        .map(|outcome| (outcome, rules.get(index, outcome)));
    // What fired is told even where it is nothing.
    let told = counts.filter(|(outcome, count)| *outcome == RuleOutcome::Fired || *count > 0);
    let parts: Vec<String> = told
        .map(|(outcome, count)| format!("{} {}", outcome.name().replace('_', " "), grouped(count)))
        .collect();
    parts.join(", ")
}
