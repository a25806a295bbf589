//! What the functions say of themselves: their telemetry, added up, and their warnings, shown.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use usher_local::process::LogObserver;
use usher_local::{LogLine, LogSource};
use usher_pipeline::telemetry::{ProfileWriterBatch, TelemetryEvent};

/// Warnings and errors of functions that are shown; more of them say nothing new.
const LINES_SHOWN_MAX: u64 = 40;

/// The telemetry of all of profile-writer's invocations, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriterTotals {
    /// Records that invocations were given, repeats included.
    pub received: u64,
    /// Settled records that were folded into a profile.
    pub applied: u64,
    /// Settled records whose event id the profile knew.
    pub duplicate: u64,
    /// Settled records that had been applied in an earlier delivery.
    pub redelivered: u64,
    /// Settled records that the journey ignores.
    pub dropped: u64,
    /// Profiles written.
    pub conditional_writes: u64,
    /// Writes whose condition failed.
    pub conflicts: u64,
    /// Write capacity units, failed conditions included.
    pub write_units: f64,
}

impl WriterTotals {
    fn add(&mut self, batch: &ProfileWriterBatch) {
        self.received += batch.received;
        self.applied += batch.applied;
        self.duplicate += batch.duplicate;
        self.redelivered += batch.redelivered;
        self.dropped += batch.dropped_by_rule;
        self.conditional_writes += batch.conditional_writes;
        self.conflicts += batch.conflicts;
        self.write_units += batch.write_units;
    }
}

/// Listens to what the functions write.
#[derive(Clone, Default)]
pub struct Tally {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    writer: WriterTotals,
    shown: u64,
}

impl Tally {
    /// For [`usher_local::LocalCloudOptions::on_log`]. What people should see goes to `show`.
    pub fn observer(&self, show: impl Fn(&str) + Send + Sync + 'static) -> LogObserver {
        let tally = self.clone();
        LogObserver::new(move |line| {
            if let Some(text) = tally.take(&line) {
                show(&text);
            }
        })
    }

    /// Takes a line in, and gives what is to be shown of it.
    fn take(&self, line: &LogLine) -> Option<String> {
        let batch = match line.source {
            LogSource::Stdout => ProfileWriterBatch::from_line(&line.line),
            LogSource::Stderr => None,
        };
        let is_warning = batch.is_none() && is_for_people(line);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = batch {
            state.writer.add(&batch);
        }
        if !is_warning {
            return None;
        }
        state.shown += 1;
        match state.shown {
            LINES_SHOWN_MAX => Some("(further warnings of the functions are not shown)".to_owned()),
            more if more > LINES_SHOWN_MAX => None,
            _ => Some(format!("{}: {}", line.function, line.line)),
        }
    }

    /// The totals so far.
    pub fn writer(&self) -> WriterTotals {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).writer.clone()
    }
}

/// A line on standard error, or a log line that warns.
fn is_for_people(line: &LogLine) -> bool {
    #[derive(Deserialize)]
    struct Level {
        level: String,
    }
    match line.source {
        LogSource::Stderr => !line.line.trim().is_empty(),
        LogSource::Stdout => serde_json::from_str::<Level>(&line.line)
            .is_ok_and(|entry| matches!(entry.level.to_uppercase().as_str(), "WARN" | "ERROR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: LogSource, text: &str) -> LogLine {
        LogLine {
            function: "ProfileWriter".to_owned(),
            environment: 0,
            source,
            line: text.to_owned(),
        }
    }

    #[test]
    fn telemetry_adds_up_and_warnings_are_shown() {
        let tally = Tally::default();
        let batch = r#"{"Function":"profile-writer","Received":3,"Applied":2,"Duplicate":1,"WriteUnits":1.5}"#;
        for (source, text, shown) in [
            (LogSource::Stdout, batch, false),
            (LogSource::Stdout, batch, false),
            (
                LogSource::Stdout,
                r#"{"Function":"trigger-delivery","Received":9}"#,
                false,
            ),
            (LogSource::Stdout, r#"{"level":"INFO","message":"x"}"#, false),
            (LogSource::Stdout, r#"{"level":"WARN","message":"x"}"#, true),
            (LogSource::Stderr, "thread panicked", true),
            (LogSource::Stderr, "", false),
            (LogSource::Stderr, batch, true),
        ] {
            assert_eq!(tally.take(&line(source, text)).is_some(), shown, "{text}");
        }
        let totals = tally.writer();
        assert_eq!(
            (totals.received, totals.applied, totals.duplicate, totals.write_units),
            (6, 4, 2, 3.0)
        );
        let shown = (0..1000)
            .filter(|_| tally.take(&line(LogSource::Stderr, "x")).is_some())
            .count() as u64;
        assert_eq!(shown, LINES_SHOWN_MAX - 3, "a flood is cut");
    }
}
