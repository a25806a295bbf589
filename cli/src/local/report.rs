//! What a run came to: the counts, and whether anything is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use usher_local::MappingProgress;

use super::tally::WriterTotals;

/// The report of `usher local`. Its keys are documented in `usher local --help`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether nothing is missing.
    pub complete: bool,
    /// What is missing or wrong, for people.
    pub problems: Vec<String>,
    /// Whether every stage was drained.
    pub drained: bool,
    /// Whether no invocation failed, so that the split between duplicate and redelivered is exact.
    pub counts_exact: bool,
    /// `data` or `wall`.
    pub clock: &'static str,
    /// The journey.
    pub journey: JourneyName,
    /// From the first event to the last decision.
    pub seconds: f64,
    /// Records on the interactions stream, without wake-ups.
    pub sent: u64,
    /// Wake-ups on the interactions stream.
    pub woken: u64,
    /// Invocations of scheduled functions.
    pub sweeps: u64,
    /// Those that failed.
    pub failed_sweeps: u64,
    /// Triggers that a timer fired, or that had been put off.
    pub timers_fired: u64,
    /// From when those were due to when they were decided; by the wall clock only.
    pub timer_lateness_ms: Percentiles,
    /// Events in the profiles.
    pub applied: u64,
    /// Events whose id the profile knew.
    pub duplicate: u64,
    /// Events that the journey ignores.
    pub dropped: u64,
    /// Records on the rejected stream.
    pub rejected: u64,
    /// The same by reason.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Records that were delivered again after they had been applied.
    pub redelivered: u64,
    /// Items in the profiles table.
    pub profiles: u64,
    /// Distinct triggers on the triggers stream.
    pub triggers: u64,
    /// The same by rule; rules that never fired have 0.
    pub triggers_by_rule: BTreeMap<String, u64>,
    /// Distinct outcomes on the triggers stream.
    pub outcomes: u64,
    /// Those of them that say that an offer's window ran out with nothing.
    pub windows_run_out: u64,
    /// How many of them have each reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes_by_reward: BTreeMap<String, u64>,
    /// Items in the decisions table.
    pub decisions: u64,
    /// Profiles written.
    pub conditional_writes: u64,
    /// Writes whose condition failed.
    pub conflicts: u64,
    /// Write capacity units.
    pub write_units: f64,
    /// Write capacity units for each applied event.
    pub write_units_per_event: f64,
    /// From the put of an event to the success of its batch.
    pub sent_to_applied_ms: Percentiles,
    /// From the put of an event to the put of its trigger.
    pub sent_to_decided_ms: Percentiles,
    /// Sizes of stored profiles.
    pub profile_item_bytes: ItemBytes,
    /// Invocations of all functions.
    pub invocations: u64,
    /// Those that failed as a whole.
    pub failed_invocations: u64,
    /// Those that reported failed items.
    pub partial_invocations: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// Records that a mapping gave up.
    pub dropped_records: u64,
    /// What decided which faults struck; none without faults.
    pub seed: Option<u64>,
    /// How often each kind of fault struck that could.
    pub faults: BTreeMap<String, u64>,
}

/// Which journey ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JourneyName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How long something took, in milliseconds; nothing where it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of them took at most this.
    pub p50: Option<f64>,
    /// Nine of ten.
    pub p90: Option<f64>,
    /// 99 of a hundred.
    pub p99: Option<f64>,
    /// All of them.
    pub max: Option<f64>,
}

/// How large the stored profiles are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ItemBytes {
    /// Half of them have at most this.
    pub p50: Option<u64>,
    /// All of them.
    pub max: Option<u64>,
}

/// The value of which `of_hundred` percent are not larger: nearest rank. The values are sorted.
fn percentile<T: Copy>(sorted: &[T], of_hundred: usize) -> Option<T> {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

impl Percentiles {
    /// Of durations.
    pub fn of(mut durations: Vec<Duration>) -> Percentiles {
        durations.sort_unstable();
        let of =
            |of_hundred| percentile(&durations, of_hundred).map(|duration| milliseconds(duration.as_micros() as u64));
        Percentiles {
            p50: of(50),
            p90: of(90),
            p99: of(99),
            max: of(100),
        }
    }
}

/// Milliseconds with their microseconds.
pub fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1_000.0
}

impl ItemBytes {
    /// Of sizes.
    pub fn of(mut bytes: Vec<u64>) -> ItemBytes {
        bytes.sort_unstable();
        ItemBytes {
            p50: percentile(&bytes, 50),
            max: percentile(&bytes, 100),
        }
    }
}

/// What the report is made of, beyond what it takes over as it is.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Records that the sender saw acknowledged; none where others sent.
    pub acknowledged: Option<u64>,
    /// Why the run ended early, and other problems found on the way.
    pub problems: Vec<String>,
    /// The functions' telemetry.
    pub writer: WriterTotals,
    /// The mappings.
    pub mappings: Vec<MappingProgress>,
    /// Where what the mappings gave up is kept.
    pub failed_batches: Option<PathBuf>,
}

impl Report {
    /// Fills in what follows from the other counts, and judges.
    ///
    /// Records that were settled in one delivery and came again in another are told by the guard, whatever they were:
    /// what profile-writer calls redelivered may be an event that it applied before, or one that was a duplicate even
    /// then. The profiles say how many events were applied, so what is over was duplicate, at most what is left of the sent
    /// ones. While no invocation failed there are no redeliveries and it is exact; after a failure a loss could hide behind
    /// records that were counted twice.
    pub fn settle(&mut self, findings: Findings) {
        let Findings {
            acknowledged,
            problems,
            writer,
            mappings,
            failed_batches,
        } = findings;
        self.problems = problems;
        for mapping in &mappings {
            self.invocations += mapping.invocations;
            self.failed_invocations += mapping.invocations_failed;
            self.partial_invocations += mapping.invocations_partial;
            self.retries += mapping.retries;
            self.dropped_records += mapping.records_dropped;
        }
        self.rejected = self.rejected_by_reason.values().sum();
        self.triggers = self.triggers_by_rule.values().sum();
        self.dropped = writer.dropped;
        self.redelivered = writer.redelivered;
        self.conditional_writes = writer.conditional_writes;
        self.conflicts = writer.conflicts;
        self.write_units = writer.write_units;
        self.write_units_per_event = if self.applied == 0 {
            0.0
        } else {
            self.write_units / self.applied as f64
        };
        let hidden = (writer.applied + writer.redelivered).saturating_sub(self.applied);
        self.duplicate = writer.duplicate + hidden;
        self.counts_exact = self.failed_invocations == 0 && self.partial_invocations == 0 && self.redelivered == 0;
        if !self.counts_exact {
            // An invocation that ended between its telemetry and its answer has counted records that are counted again.
            let others = self.applied + self.dropped + self.rejected;
            self.duplicate = self.duplicate.min(self.sent.saturating_sub(others));
        }
        self.judge(acknowledged, &mappings, failed_batches.as_deref());
        self.complete = self.drained && self.problems.is_empty();
    }

    fn judge(&mut self, acknowledged: Option<u64>, mappings: &[MappingProgress], failed_batches: Option<&Path>) {
        if let Some(acknowledged) = acknowledged
            && acknowledged > self.sent + self.woken
        {
            let problem = format!(
                "{acknowledged} records were acknowledged, but the stream has {}",
                self.sent + self.woken
            );
            self.problems.push(problem);
        }
        for mapping in mappings.iter().filter(|mapping| mapping.records_dropped > 0) {
            let last = mapping.last_error.as_deref().unwrap_or("no error was kept");
            let what_to_do = match failed_batches {
                Some(folder) => format!("run them again with `usher redrive {}`", folder.display()),
                None => "keep such records with --failed-batches DIR".to_owned(),
            };
            let problem = format!(
                "{} gave up {} records ({what_to_do}); last with: {last}",
                mapping.name, mapping.records_dropped
            );
            self.problems.push(problem);
        }
        // Where not everything went through, what is under way is not missing.
        if !self.drained {
            return;
        }
        let accounted = self.applied + self.duplicate + self.dropped + self.rejected;
        if accounted < self.sent {
            let problem = format!(
                "{} of {} sent events are missing: {} applied + {} duplicate + {} dropped + {} rejected = {accounted}",
                self.sent - accounted,
                self.sent,
                self.applied,
                self.duplicate,
                self.dropped,
                self.rejected
            );
            self.problems.push(problem);
        } else if accounted > self.sent && self.counts_exact {
            let problem = format!("{accounted} events are accounted for, but only {} were sent", self.sent);
            self.problems.push(problem);
        }
        if self.decisions != self.triggers {
            let problem = format!(
                "{} triggers are on the stream, but {} decisions in the table",
                self.triggers, self.decisions
            );
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(failed: u64, dropped: u64) -> MappingProgress {
        MappingProgress {
            name: "ProfileWriter/Interactions".to_owned(),
            function: "ProfileWriter".to_owned(),
            stream: "interactions".to_owned(),
            records_dropped: dropped,
            invocations: 3,
            invocations_failed: failed,
            retries: failed,
            ..MappingProgress::default()
        }
    }

    fn totals(applied: u64, duplicate: u64, redelivered: u64, dropped: u64) -> WriterTotals {
        WriterTotals {
            applied,
            duplicate,
            redelivered,
            dropped,
            write_units: 4.0,
            ..WriterTotals::default()
        }
    }

    #[test]
    fn p1_a_run_is_complete_only_if_every_event_is_accounted_for() {
        for (name, sent, applied, rejected, decisions, writer, failed, given_up, complete, duplicate) in [
            ("all is well", 10, 8, 1, 2, totals(8, 1, 0, 0), 0, 0, true, 1),
            ("one is missing", 11, 8, 1, 2, totals(8, 1, 0, 0), 0, 0, false, 1),
            ("one is too many", 9, 8, 1, 2, totals(8, 1, 0, 0), 0, 0, false, 1),
            ("a decision is missing", 10, 8, 1, 1, totals(8, 1, 0, 0), 0, 0, false, 1),
            (
                "some were applied by an invocation that then failed",
                10,
                8,
                1,
                2,
                totals(5, 1, 3, 0),
                1,
                0,
                true,
                1,
            ),
            (
                "one of those was a duplicate",
                10,
                7,
                1,
                2,
                totals(5, 1, 3, 0),
                1,
                0,
                true,
                2,
            ),
            (
                "some were counted by an invocation that then crashed",
                10,
                8,
                1,
                2,
                totals(8, 1, 3, 0),
                1,
                0,
                true,
                1,
            ),
            ("a batch was given up", 10, 8, 1, 2, totals(8, 1, 0, 0), 1, 1, false, 1),
            ("dropped counts", 10, 6, 1, 2, totals(6, 1, 0, 2), 0, 0, true, 1),
        ] {
            let mut report = Report {
                drained: true,
                sent,
                applied,
                decisions,
                rejected_by_reason: BTreeMap::from([("not_json".to_owned(), rejected)]),
                triggers_by_rule: BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 0)]),
                ..Report::default()
            };
            report.settle(Findings {
                acknowledged: Some(sent),
                writer,
                mappings: vec![mapping(failed, given_up)],
                ..Findings::default()
            });
            assert_eq!(
                (report.complete, report.duplicate),
                (complete, duplicate),
                "{name}: {report:?}"
            );
            assert_eq!(report.counts_exact, failed == 0, "{name}");
        }
    }

    #[test]
    fn what_was_interrupted_is_not_complete_and_nothing_is_called_missing() {
        let mut report = Report {
            sent: 10,
            applied: 3,
            ..Report::default()
        };
        report.settle(Findings {
            problems: vec!["interrupted".to_owned()],
            ..Findings::default()
        });
        assert_eq!((report.complete, report.problems.len()), (false, 1));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let percentiles = Percentiles::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(
            (percentiles.p50, percentiles.p90, percentiles.p99, percentiles.max),
            (Some(100.0), Some(180.0), Some(198.0), Some(200.0))
        );
        assert_eq!(Percentiles::of(vec![Duration::from_micros(1_500)]).p50, Some(1.5));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
        assert_eq!(
            ItemBytes::of(vec![3, 1, 2]),
            ItemBytes {
                p50: Some(2),
                max: Some(3)
            }
        );
    }
}
