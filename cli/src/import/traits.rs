//! `usher import traits`: rows about users, as `identify` events.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use usher_aws::kinesis::KinesisStream;

use super::events::{Counts, ROWS_TOLD_MAX, RowEvents};
use super::identify::Reading;
use super::rows::{Columns, Rows};
use super::scores::Meaning;
use crate::Verdict;
use crate::args::{ImportTraitsOptions, RowFormat};
use crate::arrival_clock::wall_clock;
use crate::environment;
use crate::events_file::EventsFile;
use crate::people::{counted, grouped, say, table};
use crate::progress::Progress;
use crate::send::{load_clients, show};
use crate::sender::acknowledged::Acknowledged;
use crate::sender::resume::ResumeFile;
use crate::sender::{self, SendOutcome, SendProgress};

/// Runs the command.
///
/// # Errors
/// When the file can't be read, the state file is about something else, or the stream does not take the events.
pub async fn run(options: ImportTraitsOptions) -> Result<Verdict> {
    import(options, Meaning::Traits).await
}

/// Sends what rows say, whatever their columns mean.
///
/// # Errors
/// As [`run`].
pub async fn import(options: ImportTraitsOptions, meaning: Meaning) -> Result<Verdict> {
    let name = options.rows.display().to_string();
    let file = EventsFile::open(&options.rows)?;
    let (size, bytes_read) = (file.size(), file.bytes_read());
    let row_events = row_events(&options, file, meaning)?;
    let tally = row_events.tally();
    let mut events = EventsFile::of(&name, row_events, None)?;
    if options.dry_run {
        while events.next_line()?.is_some() {}
        let counts = tally.counts();
        for event in &counts.shown {
            say(event)?;
        }
        say(&format!("{} to send of {name}; nothing was sent\n", told_rows(&counts)))?;
        return tell(&counts);
    }

    let (resume_file, resume) = match &options.resume {
        Some(path) => {
            let (file, lines) = ResumeFile::open(path, &options.stream, &name)?;
            (Some(file), lines)
        }
        None => Default::default(),
    };
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let stream = Arc::new(KinesisStream::new(clients.kinesis, &options.stream));
    let stop = environment::stop_signal()?;
    let progress = Arc::new(SendProgress::default());
    let bar = Progress::of_file(size, bytes_read);
    let watcher = tokio::spawn(show(bar.clone(), Arc::clone(&progress)));
    let mut save = |acknowledged: &Acknowledged| match &resume_file {
        Some(file) => file.save(acknowledged.save()),
        None => Ok(()),
    };
    // A user's rows in their order, so that the later of two with the same time wins.
    let sender_options = sender::SendOptions {
        ordered: true,
        resume,
        data_time: None,
    };
    let started = Instant::now();
    let sent = sender::send(events, stream, sender_options, progress, stop, &mut save).await;
    watcher.abort();
    bar.clear();
    let outcome = match sent {
        Ok(outcome) => outcome,
        Err(error) => {
            tell(&tally.counts())?;
            return Err(error);
        }
    };

    let counts = tally.counts();
    let seconds = started.elapsed().as_secs_f64();
    let events_sent = counted(outcome.acknowledged as usize, "identify event");
    say(&format!(
        "{events_sent} to {} in {seconds:.2} s, of {} in {name}\n",
        options.stream,
        told_rows(&counts)
    ))?;
    let verdict = tell(&counts)?;
    let is_whole = tell_sending(&options, &outcome)?;
    Ok(if is_whole { verdict } else { Verdict::Wrong })
}

/// The events that the rows of a file say.
///
/// # Errors
/// When it can't be read, or a column that is asked for is not there.
pub fn row_events(options: &ImportTraitsOptions, file: EventsFile, meaning: Meaning) -> Result<RowEvents> {
    let columns = Columns {
        id: options.id_column.clone(),
        anonymous_id: options.anonymous_id_column.clone(),
        at: options.at_column.clone(),
        traits: options.traits.clone(),
        text: options.text.clone(),
    };
    let reading = Reading {
        at: options.at,
        text: options.text.clone(),
        now: wall_clock(),
    };
    let rows = match options.format.or_else(|| format_of(&options.rows)) {
        Some(RowFormat::Csv) => Rows::csv(file, options.delimiter, &columns)?,
        Some(RowFormat::Jsonl) => Rows::jsonl(file, columns),
        None => bail!(
            "the name {} does not say how the rows are written; add --format csv or --format jsonl",
            options.rows.display()
        ),
    };
    Ok(RowEvents::new(rows, meaning, reading, options.strict))
}

/// How the rows of a file are written, by its name, whether it is compressed or not.
fn format_of(path: &Path) -> Option<RowFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    match name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?.1 {
        "csv" | "tsv" => Some(RowFormat::Csv),
        "jsonl" | "ndjson" => Some(RowFormat::Jsonl),
        _ => None,
    }
}

fn told_rows(counts: &Counts) -> String {
    let rows = counted(counts.rows as usize, "row");
    let of_these = [(counts.silent, "without a value"), (counts.bad, "that can't be used")];
    let of_these: Vec<String> = of_these
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", grouped(*count)))
        .collect();
    if of_these.is_empty() {
        rows
    } else {
        format!("{rows} ({})", of_these.join(", "))
    }
}

/// Tells which traits the events have, and what could not be used.
fn tell(counts: &Counts) -> Result<Verdict> {
    let traits = counts
        .traits
        .iter()
        .map(|(name, count)| (name.clone(), grouped(*count)));
    say(&table(&traits.collect::<Vec<_>>()))?;
    for (name, (count, why)) in &counts.left_out {
        eprintln!("warning: {name}: {} left out: {why}", counted(*count as usize, "value"));
    }
    for (line, why) in &counts.told {
        eprintln!("error: line {line}: {why}");
    }
    if counts.bad > ROWS_TOLD_MAX as u64 {
        eprintln!("error: and {} more rows", grouped(counts.bad - ROWS_TOLD_MAX as u64));
    }
    Ok(if counts.bad == 0 {
        Verdict::AllWell
    } else {
        Verdict::Wrong
    })
}

/// Tells how the sending went; gives whether all of it was sent.
fn tell_sending(options: &ImportTraitsOptions, outcome: &SendOutcome) -> Result<bool> {
    if outcome.skipped > 0 {
        let skipped = counted(outcome.skipped as usize, "row");
        say(&format!("{skipped} sent by an earlier run\n"))?;
    }
    if outcome.retried > 0 {
        let why = outcome.last_failure.as_deref().unwrap_or("no reason was given");
        let retried = grouped(outcome.retried);
        say(&format!(
            "{retried} times an event failed and went again, the last time because: {why}\n"
        ))?;
    }
    if outcome.interrupted {
        let how = match &options.resume {
            Some(path) => format!(
                "run the same command again to go on (the state is in {})",
                path.display()
            ),
            None => "run it again: what was sent already changes nothing; with --resume STATE it would go on from here"
                .to_owned(),
        };
        eprintln!("error: interrupted before the end of {}; {how}", options.rows.display());
    }
    let too_large = outcome.too_large_message();
    if let Some(message) = &too_large {
        eprintln!("error: {message}");
    }
    Ok(!outcome.interrupted && too_large.is_none())
}

#[cfg(test)]
mod tests;
