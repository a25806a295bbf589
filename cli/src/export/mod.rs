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
use crate::decision_log::read::LogFile;
use crate::decision_log::{LoggedDecision, Selection};
use crate::people::counted;
use crate::progress::Progress;
use crate::{Verdict, environment, journey_file, project};
use spool::Spool;

/// Everyone may read and write it, but for what the user's mask takes away.
#[cfg(unix)]
const FILE_MODE: u32 = 0o666;
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
    let stop = environment::stop_signal()?;
    let (source, unreadable) = match &options.log {
        Some(path) => (Source::Log(LogFile::open(path)?), Vec::new()),
        None => {
            let within_ms = within_ms(&options.table)?;
            let progress = Progress::spinner("");
            let read = table::read(&options.table, within_ms, &stop, &progress).await;
            progress.clear();
            let read = read?;
            (Source::Table(read.spool), read.unreadable)
        }
    };
    let selection = Selection {
        slots: options.slot.clone(),
        rules: options.rule.clone(),
    };
    let wanted = |decision: &LoggedDecision| {
        selection.wants(decision) && since.is_none_or(|since| decided_at(decision) >= since)
    };
    let progress = Progress::spinner("writing");
    let written = write(&options, source, &wanted, &stop);
    progress.clear();
    let Some(Written { rows, left_out }) = written? else {
        // Whoever listened has gone, and knows.
        return Ok(Verdict::AllWell);
    };
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
    Ok(table::tell_unreadable(&unreadable, &options.table.decisions))
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

/// Where decisions come from.
enum Source {
    Table(Spool),
    Log(LogFile),
}

impl Source {
    /// Gives them all: those of a table in order of time, those of a log in its own.
    fn for_each(self, mut take: impl FnMut(LoggedDecision) -> Result<()>) -> Result<()> {
        match self {
            Source::Table(spool) => spool.for_each(take),
            Source::Log(mut log) => {
                while let Some(decision) = log.next_decision()? {
                    take(decision)?;
                }
                Ok(())
            }
        }
    }
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

/// Writes what is wanted; none where whoever listened has gone. A file takes its name when it is complete, so an
/// interruption leaves none.
fn write(
    options: &ExportDecisionsOptions,
    source: Source,
    wanted: &dyn Fn(&LoggedDecision) -> bool,
    stop: &watch::Receiver<bool>,
) -> Result<Option<Written>> {
    let Some(path) = &options.output else {
        let out = BufWriter::new(std::io::stdout());
        return match write_all(out, options.format, source, wanted, stop) {
            // Whoever listened may have gone (`| head`): that is an end, not an error.
            Err(error) if is_broken_pipe(&error) => Ok(None),
            other => other.map(Some).context("cannot write to standard output"),
        };
    };
    let unwritable = || format!("cannot write the decisions to {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = beside(folder).with_context(unwritable)?;
    let out = BufWriter::new(file.as_file());
    let written = write_all(out, options.format, source, wanted, stop).with_context(unwritable)?;
    file.persist(path).with_context(unwritable)?;
    Ok(Some(written))
}

/// A file without a name yet, which others may read as any other that the user makes.
fn beside(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE));
    builder.tempfile_in(folder)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn write_all<W: Write + Send>(
    out: W,
    format: LogFormat,
    source: Source,
    wanted: &dyn Fn(&LoggedDecision) -> bool,
    stop: &watch::Receiver<bool>,
) -> Result<Written> {
    let mut writer: Box<dyn DecisionWriter + '_> = match format {
        LogFormat::Jsonl => Box::new(Lines(out)),
        LogFormat::Vw => Box::new(vw::Examples(out)),
        LogFormat::Parquet => Box::new(columns::Columns::new(out)?),
    };
    let mut written = Written::default();
    let mut seen: usize = 0;
    source.for_each(|decision| {
        if seen.is_multiple_of(STOP_LOOK_ROWS) && *stop.borrow() {
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::args::{Arguments, Command};
    use crate::decision_log::tests::decision;

    fn options(line: &str) -> ExportDecisionsOptions {
        let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
        match arguments.command {
            Command::Export(ExportOptions {
                command: ExportCommand::Decisions(options),
            }) => options,
            other => panic!("{other:?}"),
        }
    }

    fn log() -> NamedTempFile {
        let file = NamedTempFile::new().expect("a file");
        let mut lines = Box::new(Lines(file.as_file()));
        for id in 0..10 {
            let mut one = decision(id);
            one.settled = id < 8;
            assert!(lines.add(&one).expect("written"));
        }
        lines.finish().expect("written");
        file
    }

    fn written(line: &str, log: &NamedTempFile, is_stopped: bool) -> Result<Option<Written>> {
        let options = options(line);
        let source = Source::Log(LogFile::open(log.path()).expect("it is there"));
        let (_stop, stopped) = watch::channel(is_stopped);
        write(
            &options,
            source,
            &|decision| decision.trigger_id.as_str() > "00000000000000000000000000000002",
            &stopped,
        )
    }

    #[test]
    fn a_log_is_written_anew_in_each_format() {
        let (log, folder) = (log(), tempfile::tempdir().expect("a folder"));
        for (format, rows, left_out, begins) in [
            ("jsonl", 7, 0, "{\"trigger_id\":\"00000000000000000000000000000003\""),
            (
                "vw",
                5,
                2,
                "shared '00000000000000000000000000000003 |u\n0:-1:0.25 |a content=a\n",
            ),
            ("parquet", 7, 0, "PAR1"),
        ] {
            let path = folder.path().join(format);
            let line = format!("usher export decisions --format {format} --output {}", path.display());
            assert_eq!(
                written(&line, &log, false).expect(format),
                Some(Written { rows, left_out })
            );
            let bytes = std::fs::read(&path).expect("it is there");
            assert!(bytes.starts_with(begins.as_bytes()), "{format}");
        }
    }

    #[test]
    fn an_interruption_leaves_no_file_and_what_was_there_stays() {
        let (log, folder) = (log(), tempfile::tempdir().expect("a folder"));
        let path = folder.path().join("log");
        std::fs::write(&path, "before").expect("to write");
        let line = format!("usher export decisions --output {}", path.display());
        let error = written(&line, &log, true).expect_err("it was stopped");
        assert!(format!("{error:#}").ends_with("interrupted"), "{error:#}");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = "2026-01-05T10:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", Some("2026-01-01T00:00:00.000Z")),
            ("2h", Some("2026-01-05T08:00:00.000Z")),
            ("yesterday", None),
        ] {
            let found = since(text, now).ok().map(|time| time.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
