//! `usher report`: what each journey and each rule is worth, against the users who were held out.

mod groups;
mod plot;
mod text;

use anyhow::{Context as _, Result, bail};

use crate::args::ReportOptions;
use crate::decision_log::{LoggedDecision, Selection, read::LogFile};
use crate::export::{self, table};
use crate::people::{counted, say};
use crate::progress::Progress;
use crate::{Verdict, environment};
use groups::Decisions;

/// Decisions between two looks at the progress bar.
const PROGRESS_ROWS: usize = 1_000;
const PERCENT: f64 = 100.0;

/// Runs the command.
///
/// # Errors
/// When the log can't be read, holds nothing that can be compared, or the plot can't be written.
pub async fn run(options: ReportOptions) -> Result<Verdict> {
    let mut decisions = Decisions::new(Selection {
        slots: options.slot.clone(),
        rules: options.rule.clone(),
    });
    let (name, verdict) = match &options.log {
        Some(path) => {
            let mut log = LogFile::open(path)?;
            read_log(&mut log, &mut decisions)?;
            (log.name().to_owned(), Verdict::AllWell)
        }
        None => {
            let verdict = read_table(&options, &mut decisions).await?;
            (format!("the table {}", options.table.decisions), verdict)
        }
    };
    if decisions.is_empty() {
        bail!("{}", nothing_to_compare(&name, &decisions));
    }
    let compared = decisions.compare(options.reward_range, options.confidence / PERCENT)?;
    if let Some(path) = &options.svg {
        let drawn = plot::draw(&compared, options.confidence)?;
        std::fs::write(path, drawn).with_context(|| format!("cannot write the plot to {}", path.display()))?;
    }
    say(&match options.json {
        true => text::json(&options, &name, &compared)?,
        false => text::table(&options, &name, &compared),
    })?;
    Ok(verdict)
}

fn nothing_to_compare(name: &str, decisions: &Decisions) -> String {
    match decisions.open {
        0 => format!("there is no decision in {name} that is meant; see --slot and --rule"),
        open => format!(
            "{} in {name}, and none is settled: their outcomes are still open, or the journey has no `outcomes`",
            counted(open, "decision")
        ),
    }
}

fn read_log(log: &mut LogFile, decisions: &mut Decisions) -> Result<()> {
    let (size, read) = log.bytes();
    let progress = Progress::of_file(size, read);
    let mut rows: usize = 0;
    let read = (|| {
        while let Some(decision) = log.next_decision()? {
            decisions.add(&decision)?;
            rows += 1;
            if rows.is_multiple_of(PROGRESS_ROWS) {
                progress.show(&counted(rows, "decision"));
            }
        }
        Ok(())
    })();
    progress.clear();
    read
}

async fn read_table(options: &ReportOptions, decisions: &mut Decisions) -> Result<Verdict> {
    let within_ms = export::within_ms(&options.table)?;
    let stop = environment::stop_signal()?;
    let progress = Progress::spinner("");
    let read = table::read(&options.table, within_ms, &stop, &progress).await;
    progress.clear();
    let read = read?;
    read.spool
        .for_each(|decision: LoggedDecision| decisions.add(&decision))?;
    Ok(table::tell_unreadable(&read.unreadable, &options.table.decisions))
}

#[cfg(test)]
mod tests;
