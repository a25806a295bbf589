//! Keeping count of what became of each record, so that each counts once.

use std::collections::BTreeMap;

use usher_domain::event::ArrivedEvent;
use usher_domain::fold::EventOutcome;
use usher_domain::journey::Journey;
use usher_domain::offers::Outcome;
use usher_domain::rules::{RuleCounts, RuleOutcome};
use usher_wire::reject::{Reject, RejectReason};

use super::users::{UserWork, UserWrite};
use crate::response::RetryPoint;
use crate::telemetry::{ProfileWriterBatch, spread};

/// What became of a record.
#[derive(Clone, Debug, PartialEq)]
enum RecordOutcome {
    /// Nothing yet: it comes again.
    Open,
    Event(EventOutcome),
    Rejected(Reject),
    Parked(RejectReason),
}

/// The count of one batch.
#[derive(Debug)]
pub(super) struct Tally {
    pub telemetry: ProfileWriterBatch,
    outcomes: Vec<RecordOutcome>,
    rules: RuleCounts,
    /// The first parked record of each user who has one.
    first_parked: Vec<usize>,
    event_to_applied_ms: Vec<(usize, u64)>,
    event_to_trigger_ms: Vec<u64>,
    timer_lateness_ms: Vec<u64>,
    outcome_lateness_ms: Vec<u64>,
}

impl Tally {
    pub fn new(journey: &Journey, records: usize, rejects: Vec<(usize, Reject)>) -> Tally {
        let mut outcomes = vec![RecordOutcome::Open; records];
        for (index, reject) in rejects {
            outcomes[index] = RecordOutcome::Rejected(reject);
        }
        Tally {
            telemetry: ProfileWriterBatch {
                received: records as u64,
                ..ProfileWriterBatch::default()
            },
            outcomes,
            rules: RuleCounts::new(journey),
            first_parked: Vec::new(),
            event_to_applied_ms: Vec::with_capacity(records),
            event_to_trigger_ms: Vec::new(),
            timer_lateness_ms: Vec::new(),
            outcome_lateness_ms: Vec::new(),
        }
    }

    /// Writes were tried, with or without success.
    pub fn note_attempts(&mut self, write: &UserWrite) {
        self.telemetry.conditional_writes += write.writes;
        self.telemetry.conflicts += write.conflicts;
        self.telemetry.write_units += write.write_units;
        self.telemetry.triggers_expired += write.triggers_expired;
        self.telemetry.merged += write.merges;
        self.telemetry.merges_deferred += write.merges_deferred;
    }

    /// A user was written, or had nothing to write.
    pub fn note_write(
        &mut self,
        user: &UserWork<'_>,
        write: &UserWrite,
        record_of_event: &[usize],
        events: &[ArrivedEvent<'_>],
    ) {
        self.rules.add(&write.rules);
        for (event, outcome) in user.events.indices(write.from).zip(&write.outcomes) {
            let record = record_of_event[event];
            self.outcomes[record] = RecordOutcome::Event(*outcome);
            if *outcome == EventOutcome::Applied {
                let latency_ms = write.written_at.ms_since(events[event].arrived_at).max(0) as u64;
                self.event_to_applied_ms.push((record, latency_ms));
            }
        }
    }

    /// A record was done with before.
    pub fn note_outcome(&mut self, record: usize, outcome: EventOutcome) {
        self.outcomes[record] = RecordOutcome::Event(outcome);
    }

    /// A user's records are to be parked.
    pub fn note_parked(&mut self, records: &[(usize, Reject)]) {
        self.first_parked.extend(records.first().map(|(record, _)| *record));
        for (record, reject) in records {
            self.outcomes[*record] = RecordOutcome::Parked(reject.reason);
        }
    }

    /// A trigger was put on the stream; the latency is that of one that a record of this batch caused.
    pub fn note_trigger(&mut self, latency_ms: Option<i64>) {
        self.telemetry.triggers += 1;
        self.event_to_trigger_ms
            .extend(latency_ms.map(|latency_ms| latency_ms.max(0) as u64));
    }

    /// A trigger of this batch was due at a moment of its own, and decided so much later.
    pub fn note_timer(&mut self, lateness_ms: i64) {
        self.timer_lateness_ms.push(lateness_ms.max(0) as u64);
    }

    /// An outcome was put on the stream; what a record of this batch brought tells how late that came.
    pub fn note_told(&mut self, outcome: &Outcome, is_new: bool) {
        self.telemetry.outcomes += 1;
        self.telemetry.windows_run_out += u64::from(outcome.expired);
        for reward in &outcome.rewards {
            *self.telemetry.outcomes_by_reward.entry(reward.clone()).or_default() += 1;
        }
        if is_new {
            let lateness_ms = outcome.made_at.ms_since(outcome.at);
            self.outcome_lateness_ms.push(lateness_ms.max(0) as u64);
        }
    }

    /// The rejected records that don't come again, in order.
    pub fn settled_rejects(&self, retry_point: RetryPoint) -> Vec<(usize, Reject)> {
        let settled = self
            .outcomes
            .iter()
            .enumerate()
            .filter(|(index, _)| retry_point.is_settled(*index));
        settled
            .filter_map(|(index, outcome)| match outcome {
                RecordOutcome::Rejected(reject) => Some((index, reject.clone())),
                _ => None,
            })
            .collect()
    }

    /// Counts the settled records.
    pub fn finish(&mut self, journey: &Journey, retry_point: RetryPoint, iterator_age_ms: u64) {
        let telemetry = &mut self.telemetry;
        telemetry.iterator_age = iterator_age_ms;
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let count = match outcome {
                _ if !retry_point.is_settled(index) => &mut telemetry.retried,
                RecordOutcome::Event(EventOutcome::Applied) => &mut telemetry.applied,
                RecordOutcome::Event(EventOutcome::Duplicate) => &mut telemetry.duplicate,
                RecordOutcome::Event(EventOutcome::Redelivered) => &mut telemetry.redelivered,
                RecordOutcome::Event(EventOutcome::Ignored) => &mut telemetry.dropped_by_rule,
                RecordOutcome::Event(EventOutcome::Woken) => &mut telemetry.woken,
                RecordOutcome::Rejected(Reject { reason, .. }) | RecordOutcome::Parked(reason) => {
                    telemetry.parked += u64::from(matches!(outcome, RecordOutcome::Parked(_)));
                    *telemetry
                        .rejected_by_reason
                        .entry(reason.name().to_owned())
                        .or_default() += 1;
                    &mut telemetry.rejected
                }
                // A record without an outcome is never before the retry point: whoever leaves one open lowers it.
                RecordOutcome::Open => &mut telemetry.retried,
            };
            *count += 1;
        }
        let parked = self.first_parked.iter();
        telemetry.parked_users = parked.filter(|record| retry_point.is_settled(**record)).count() as u64;
        let settled = self
            .event_to_applied_ms
            .iter()
            .filter(|(record, _)| retry_point.is_settled(*record));
        telemetry.event_to_applied = spread(settled.map(|(_, latency_ms)| *latency_ms).collect());
        telemetry.event_to_trigger = spread(std::mem::take(&mut self.event_to_trigger_ms));
        telemetry.timer_lateness = spread(std::mem::take(&mut self.timer_lateness_ms));
        telemetry.outcome_lateness = spread(std::mem::take(&mut self.outcome_lateness_ms));
        for (index, rule) in journey.rules.iter().enumerate() {
            let counts: BTreeMap<String, u64> = RuleOutcome::ALL
                .into_iter()
                .map(|outcome| (outcome.name().to_owned(), self.rules.get(index, outcome)))
                .filter(|(_, count)| *count > 0)
                .collect();
            if !counts.is_empty() {
                telemetry.rules.insert(rule.id.clone(), counts);
            }
        }
    }
}
