//! What the functions say of themselves: their telemetry, added up, and their warnings, shown.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use usher_local::process::LogObserver;
use usher_local::{LogLine, LogSource};
use usher_pipeline::telemetry::{ProfileWriterBatch, TelemetryEvent};

/// An invocation that so many others followed will not turn out to have failed.
const LATEST_INVOCATIONS_MAX: usize = 20_000;
/// Warnings and errors of functions that are shown; more of them say nothing new.
const LINES_SHOWN_MAX: u64 = 40;

/// The telemetry of all of profile-writer's invocations, added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriterTotals {
    /// Invocations that told something.
    pub invocations: u64,
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
    fn of(batch: &ProfileWriterBatch) -> WriterTotals {
        WriterTotals {
            invocations: 1,
            applied: batch.applied,
            duplicate: batch.duplicate,
            redelivered: batch.redelivered,
            dropped: batch.dropped_by_rule,
            conditional_writes: batch.conditional_writes,
            conflicts: batch.conflicts,
            write_units: batch.write_units,
        }
    }

    fn add(&mut self, batch: &WriterTotals) {
        self.invocations += batch.invocations;
        self.applied += batch.applied;
        self.duplicate += batch.duplicate;
        self.redelivered += batch.redelivered;
        self.dropped += batch.dropped;
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
    /// What older invocations told.
    settled: WriterTotals,
    /// What the latest invocations told, by request id: one may turn out to have failed.
    latest: VecDeque<(String, WriterTotals)>,
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
            if state.latest.len() == LATEST_INVOCATIONS_MAX
                && let Some((_, oldest)) = state.latest.pop_front()
            {
                state.settled.add(&oldest);
            }
            let totals = WriterTotals::of(&batch);
            state.latest.push_back((batch.request_id, totals));
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

    /// The totals so far, without the invocations that `has_failed` knows by their request ids.
    pub fn writer(&self, has_failed: impl Fn(&str) -> bool) -> WriterTotals {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = state.settled.clone();
        let succeeded = state.latest.iter().filter(|(request_id, _)| !has_failed(request_id));
        succeeded.for_each(|(_, batch)| totals.add(batch));
        totals
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
        let batch = r#"{"Function":"profile-writer","RequestId":"a","Applied":2,"Duplicate":1,"WriteUnits":1.5}"#;
        for (source, text, shown) in [
            (LogSource::Stdout, batch, false),
            (LogSource::Stdout, batch, false),
            (
                LogSource::Stdout,
                r#"{"Function":"profile-writer","RequestId":"killed","Applied":9}"#,
                false,
            ),
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
        let totals = tally.writer(|request_id| request_id == "killed");
        assert_eq!(
            (totals.invocations, totals.applied, totals.duplicate, totals.write_units),
            (2, 4, 2, 3.0)
        );
        assert_eq!(tally.writer(|_| false).applied, 13);
        let shown = (0..1000)
            .filter(|_| tally.take(&line(LogSource::Stderr, "x")).is_some())
            .count() as u64;
        assert_eq!(shown, LINES_SHOWN_MAX - 3, "a flood is cut");
    }
}
