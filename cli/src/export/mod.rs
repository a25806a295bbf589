//! `usher export`: data for judging policies and for learners outside.

mod columns;
mod spool;
pub mod table;
mod vw;

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::NamedTempFile;
use tokio::sync::watch;
use usher_domain::time::Timestamp;

use crate::args::{DecisionsTable, ExportCommand, ExportDecisionsOptions, ExportOptions, LogFormat};
use crate::arrival_clock::wall_clock;
use crate::decision_log::{LoggedDecision, Selection};
use crate::people::counted;
use crate::progress::Progress;
use crate::{Verdict, environment, journey_file, project};
use spool::Spool;

/// Rows between two looks at whether the command was stopped.
const STOP_LOOK_ROWS: usize = 1_000;

/// Runs the command.
///
/// # Errors
/// When the table can't be read or the file can't be written.
pub async fn run(options: ExportOptions) -> Result<Verdict> {
    match options.command {
        ExportCommand::Decisions(options) => decisions(options).await,
    }
}

async fn decisions(options: ExportDecisionsOptions) -> Result<Verdict> {
    let since = options
        .since
        .as_deref()
        .map(|text| since(text, wall_clock()))
        .transpose()?;
    let within_ms = within_ms(&options.table)?;
    let stop = environment::stop_signal()?;
    let progress = Progress::spinner("");
    let read = table::read(&options.table, within_ms, &stop, &progress).await;
    progress.clear();
    let read = read?;
    let selection = Selection {
        slots: options.slot.clone(),
        rules: options.rule.clone(),
    };
    let wanted = |decision: &LoggedDecision| {
        selection.wants(decision) && since.is_none_or(|since| decided_at(decision) >= since)
    };
    let progress = Progress::spinner("writing");
    let written = write(&options, read.spool, &wanted, &stop);
    progress.clear();
    let Written { rows, left_out } = written?;
    let place = match &options.output {
        Some(path) => format!(" to {}", path.display()),
        None => String::new(),
    };
    eprintln!("{}{place}", counted(rows, "decision"));
    if left_out > 0 {
        eprintln!(
            "{} left out: held out, still open, or made without a choice",
            counted(left_out, "decision")
        );
    }
    Ok(table::tell_unreadable(&read.unreadable, &options.table.decisions))
}

fn decided_at(decision: &LoggedDecision) -> Timestamp {
    // The spool holds only decisions whose time was read.
    decision.decided_at.parse().unwrap_or_default()
}

/// How long outcomes count: as the command line says, or else the journey; none where the journey has no outcomes.
///
/// # Errors
/// When the journey can't be found or read.
pub fn within_ms(options: &DecisionsTable) -> Result<Option<i64>> {
    if let Some(within) = options.within {
        return Ok(Some(i64::try_from(within.as_millis()).unwrap_or(i64::MAX)));
    }
    let path = match &options.journey {
        Some(path) => path.clone(),
        None => {
            let template = project::find_template(None)
                .context("how long outcomes count is not known; give --within or --journey")?;
            project::find_journey(None, &template)?
        }
    };
    let journey = journey_file::load(&path)?;
    Ok(journey.outcomes.as_ref().map(|outcomes| outcomes.within_ms))
}

/// A time, or how long before `now`.
fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = text.parse::<humantime::Duration>().map_err(|_| {
        anyhow!("--since is a time such as 2026-01-05T10:00:00Z, or how long ago, such as 30m, 2h or 3d; got `{text}`")
    })?;
    Ok(now.minus_ms(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    rows: usize,
    left_out: usize,
}

/// Takes decisions one after the other.
trait DecisionWriter {
    /// Writes one; false where the format has no place for it.
    fn add(&mut self, decision: &LoggedDecision) -> Result<bool>;

    /// Writes what is still in memory.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// One JSON object a line.
struct Lines<W>(W);

impl<W: Write> DecisionWriter for Lines<W> {
    fn add(&mut self, decision: &LoggedDecision) -> Result<bool> {
        let mut line = serde_json::to_vec(decision).context("a decision can't be written as JSON")?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

/// Writes what is wanted, in order of time. A file takes its name when it is complete, so an interruption leaves none.
fn write(
    options: &ExportDecisionsOptions,
    spool: Spool,
    wanted: &dyn Fn(&LoggedDecision) -> bool,
    stop: &watch::Receiver<bool>,
) -> Result<Written> {
    let Some(path) = &options.output else {
        let out = BufWriter::new(std::io::stdout());
        return match write_all(out, options.format, spool, wanted, stop) {
            // Whoever listened may have gone (`| head`): that is an end, not an error.
            Err(error) if is_broken_pipe(&error) => Ok(Written::default()),
            other => other.context("cannot write to standard output"),
        };
    };
    let unwritable = || format!("cannot write the decisions to {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = NamedTempFile::new_in(folder).with_context(unwritable)?;
    let out = BufWriter::new(file.as_file());
    let written = write_all(out, options.format, spool, wanted, stop).with_context(unwritable)?;
    file.persist(path).with_context(unwritable)?;
    Ok(written)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn write_all<W: Write + Send>(
    out: W,
    format: LogFormat,
    spool: Spool,
    wanted: &dyn Fn(&LoggedDecision) -> bool,
    stop: &watch::Receiver<bool>,
) -> Result<Written> {
    let mut writer: Box<dyn DecisionWriter + '_> = match format {
        LogFormat::Jsonl => Box::new(Lines(out)),
        LogFormat::Vw => Box::new(vw::Examples(out)),
        LogFormat::Parquet => Box::new(columns::Columns::new(out)?),
    };
    let mut written = Written::default();
    let mut seen = 0;
    spool.for_each(|decision| {
        if seen % STOP_LOOK_ROWS == 0 && *stop.borrow() {
            bail!("interrupted");
        }
        seen += 1;
        if wanted(&decision) {
            match writer.add(&decision)? {
                true => written.rows += 1,
                false => written.left_out += 1,
            }
        }
        Ok(())
    })?;
    writer.finish()?;
    Ok(written)
}
