//! What the functions report: one struct a batch, written as one line of JSON that is a log entry and, in CloudWatch's
//! embedded metric format, its metrics.
//!
//! The format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
//! Labels are bounded: the only dimension is the function; counts by rule and by reason are properties of the line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use usher_domain::time::Timestamp;

use crate::journey_source::JourneyNews;
use crate::ports::TelemetrySink;
use crate::snapshots::SnapshotNews;

/// Values that one metric of one line may have: the limit of the format.
const EMF_VALUES_MAX: usize = 100;
/// The dimension of every metric.
const DIMENSION: &str = "Function";

/// A metric's unit.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Count => "Count",
            Unit::Milliseconds => "Milliseconds",
        }
    }
}

/// A batch that profile-writer is done with. Records count once they are settled, that is before the point from which
/// the batch is retried, so that a retry counts nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProfileWriterBatch {
    /// Lambda's id of the invocation. Telemetry of an invocation whose answer got lost counts records that come again.
    pub request_id: String,
    /// Records that the invocation was given.
    pub received: u64,
    /// Settled records that were folded into a profile.
    pub applied: u64,
    /// Settled records whose event id the profile knew.
    pub duplicate: u64,
    /// Settled records that had been applied in an earlier delivery.
    pub redelivered: u64,
    /// Settled records that the journey ignores.
    pub dropped_by_rule: u64,
    /// Settled records that made a profile look at its timers.
    pub woken: u64,
    /// Settled records that can't be used, the parked ones included.
    pub rejected: u64,
    /// Settled records that wait on `rejected` for their user's profile to be mended.
    pub parked: u64,
    /// Users with such records.
    pub parked_users: u64,
    /// Records that are to be delivered again.
    pub retried: u64,
    /// Users with at least one record.
    pub batch_users: u64,
    /// Profiles that had to be read.
    pub profile_reads: u64,
    /// Profiles written.
    pub conditional_writes: u64,
    /// Writes whose condition failed.
    pub conflicts: u64,
    /// Write capacity units, failed conditions included.
    pub write_units: f64,
    /// Profiles that became part of another, because they turned out to be one user's.
    pub merged: u64,
    /// Events that named another profile which could not be merged for now: it is parked, can't be read, makes the user's
    /// too large, or too many were named. A later one tries again.
    pub merges_deferred: u64,
    /// Users with wake-ups that did nothing, because with what is due the profile would be too large. They are woken again.
    pub wake_ups_too_large: u64,
    /// Triggers put on the stream, those again that may have been put before included.
    pub triggers: u64,
    /// Outcomes put on the stream, those again that may have been put before included.
    pub outcomes: u64,
    /// Those of them that say that an offer's window ran out with nothing.
    pub windows_run_out: u64,
    /// Triggers and outcomes of stored outboxes that were too old to be put again.
    pub triggers_expired: u64,
    /// Whether another journey runs from this batch on.
    pub journey_changed: u64,
    /// Whether the journey's source was found to hold a version with mistakes, which is not run.
    pub journey_refused: u64,
    /// Whether the journey's source could not be read.
    pub journey_refresh_failed: u64,
    /// How long ago the journey's source was last read, in milliseconds.
    pub journey_age: u64,
    /// How long ago what was learned from all users was read, in milliseconds.
    pub snapshot_age: u64,
    /// Whether nothing was known of others yet, though the journey asks for it.
    pub snapshot_missing: u64,
    /// Looks at what was learned that failed.
    pub snapshot_refresh_failed: u64,
    /// Read capacity units of those looks.
    pub snapshot_read_units: f64,
    /// Slots whose model can't be read.
    pub models_unreadable: u64,
    /// Tiles of trends that can't be read.
    pub trend_tiles_unreadable: u64,
    /// Decisions that a learner made with nothing learned, because its model is missing or can't be read.
    pub model_fallbacks: u64,
    /// The age of the batch's last record, in milliseconds.
    pub iterator_age: u64,
    /// Arrival to stored profile of settled, applied records, in milliseconds: at most 100 values, spread evenly.
    pub event_to_applied: Vec<u64>,
    /// Arrival to trigger on the stream of triggers that records of this batch caused, in milliseconds, likewise.
    pub event_to_trigger: Vec<u64>,
    /// From when a timer was due, or quiet hours ended, to the arrival of the record that let it be decided, of triggers of
    /// this batch, in milliseconds, likewise.
    pub timer_lateness: Vec<u64>,
    /// From when an outcome came about, or an offer's window ran out, to the arrival of the record that told it, of outcomes of
    /// this batch, in milliseconds, likewise.
    pub outcome_lateness: Vec<u64>,
    /// For each reward, in how many outcomes it was put on the stream.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes_by_reward: BTreeMap<String, u64>,
    /// For each rule, how often it came out how.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, BTreeMap<String, u64>>,
    /// For each reason, how many settled records were rejected.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected_by_reason: BTreeMap<String, u64>,
}

/// A batch that trigger-delivery is done with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TriggerDeliveryBatch {
    /// Lambda's id of the invocation. Telemetry of an invocation whose answer got lost counts records that come again.
    pub request_id: String,
    /// Records that the invocation was given.
    pub received: u64,
    /// Decisions recorded and delivered.
    pub delivered: u64,
    /// Decisions that had been delivered before.
    pub duplicate: u64,
    /// Decisions that the receiver refused for good.
    pub undeliverable: u64,
    /// Decisions recorded that nobody is shown, because their user is held out.
    pub held_out: u64,
    /// Outcomes that were filed under their decisions.
    pub outcomes_filed: u64,
    /// Outcomes that were filed before, or that one with more rewards had come before.
    pub outcomes_known: u64,
    /// Records of a kind that this function leaves alone.
    pub other_kind: u64,
    /// Records that are no trigger.
    pub malformed: u64,
    /// Records that are to be delivered again.
    pub retried: u64,
    /// The age of the batch's last record, in milliseconds.
    pub iterator_age: u64,
    /// Arrival on the triggers stream to delivered, in milliseconds: at most 100 values, spread evenly.
    pub trigger_to_delivered: Vec<u64>,
}

/// A batch that content-trends is done with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContentTrendsBatch {
    /// Lambda's id of the invocation. Telemetry of an invocation whose answer got lost counts records that come again.
    pub request_id: String,
    /// Records that the invocation was given.
    pub received: u64,
    /// Settled records that were counted.
    pub counted: u64,
    /// Settled records that had been counted in an earlier delivery.
    pub redelivered: u64,
    /// Settled records whose event id was among the last that were counted.
    pub repeated: u64,
    /// Settled records that no trend is about.
    pub not_counted: u64,
    /// Settled records whose minute had left every window when the last record of their batch arrived.
    pub too_late: u64,
    /// Settled records that can't be used; profile-writer rejects them.
    pub unusable: u64,
    /// Settled records of a stored tile that can't be read.
    pub left_out: u64,
    /// Records that are to be delivered again.
    pub retried: u64,
    /// Tiles with at least one record.
    pub batch_tiles: u64,
    /// Tiles written.
    pub conditional_writes: u64,
    /// Writes whose condition failed.
    pub conflicts: u64,
    /// Write capacity units, failed conditions included.
    pub write_units: f64,
    /// Tiles written that outgrew their limit, so that their counts are estimates.
    pub estimated_tiles: u64,
    /// Whether another journey runs from this batch on.
    pub journey_changed: u64,
    /// Whether the journey's source was found to hold a version with mistakes, which is not run.
    pub journey_refused: u64,
    /// Whether the journey's source could not be read.
    pub journey_refresh_failed: u64,
    /// How long ago the journey's source was last read, in milliseconds.
    pub journey_age: u64,
    /// The age of the batch's last record, in milliseconds.
    pub iterator_age: u64,
    /// Arrival to stored tile of settled, counted records, in milliseconds: at most 100 values, spread evenly.
    pub event_to_counted: Vec<u64>,
}

/// An invocation that timer-sweeper is done with: some passes over the index of due users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TimerSweep {
    /// Lambda's id of the invocation.
    pub request_id: String,
    /// Looks at the whole index.
    pub passes: u64,
    /// Entries of the index that were due, those of each pass anew.
    pub due: u64,
    /// Users who were sent a wake-up.
    pub woken: u64,
    /// Entries that were passed over, because their user was sent a wake-up for the same moment a short while ago.
    pub sent_lately: u64,
    /// Wake-ups that could not be put on the stream; a later pass sends them.
    pub unsent: u64,
    /// Partitions of the index that a pass could not read to their end; a later pass reads them.
    pub partitions_failed: u64,
    /// Read capacity units.
    pub read_units: f64,
    /// From a user's due time to the pass that sent the wake-up, in milliseconds: at most 100 values, spread evenly.
    pub sweep_lateness: Vec<u64>,
    /// How long the user who is due longest has waited, in milliseconds, as the last pass found the index; 0 if nobody is due.
    pub oldest_due: u64,
}

/// A batch that outcome-learner is done with. What was learned counts where it was, also in a batch of which a part comes
/// again; everything else counts once it is settled, that is before the point from which the batch is retried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct OutcomeLearnerBatch {
    /// Lambda's id of the invocation. Telemetry of an invocation whose answer got lost counts records that come again.
    pub request_id: String,
    /// Records that the invocation was given.
    pub received: u64,
    /// Outcomes that a model was taught.
    pub learned: u64,
    /// Outcomes that a model had been taught by another record.
    pub known: u64,
    /// Outcomes that a model had been taught in an earlier delivery of the record.
    pub redelivered: u64,
    /// Outcomes of offers that nobody was shown.
    pub held_out: u64,
    /// Outcomes of offers that were not chosen by a learner.
    pub not_chosen: u64,
    /// Outcomes whose context was laid out by another version of the journey, or for a slot that this one has no learner for.
    pub other_layout: u64,
    /// Outcomes that were left out because the model has no room for another content.
    pub no_room: u64,
    /// Outcomes that were left out because their slot's model can't be read.
    pub left_out_unreadable: u64,
    /// Records of a kind that this function leaves alone.
    pub other_kind: u64,
    /// Records that are no outcome.
    pub malformed: u64,
    /// Records that are to be delivered again.
    pub retried: u64,
    /// Writes of models.
    pub writes: u64,
    /// Writes whose condition failed, because another batch came first.
    pub conflicts: u64,
    /// Write capacity units.
    pub write_units: f64,
    /// Read capacity units.
    pub read_units: f64,
    /// Models that were found unreadable.
    pub models_unreadable: u64,
    /// Whether another journey runs from this batch on.
    pub journey_changed: u64,
    /// Whether the journey's source was found to hold a version with mistakes, which is not run.
    pub journey_refused: u64,
    /// Whether the journey's source could not be read.
    pub journey_refresh_failed: u64,
    /// How long ago the journey's source was last read, in milliseconds.
    pub journey_age: u64,
    /// The age of the batch's last record, in milliseconds.
    pub iterator_age: u64,
    /// Arrival on the triggers stream to learned, in milliseconds: at most 100 values, spread evenly.
    pub outcome_to_learned: Vec<u64>,
    /// For each slot, how many outcomes its model was taught.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub learned_by_slot: BTreeMap<String, u64>,
}

/// A telemetry event: a struct that knows its metrics.
pub trait TelemetryEvent: Serialize + for<'de> Deserialize<'de> {
    /// The function that reports it; the value of the dimension.
    const FUNCTION: &'static str;
    /// The log message.
    const MESSAGE: &'static str;
    /// The members that are metrics in milliseconds; the other numbers are counts.
    const MILLISECONDS: &'static [&'static str];

    /// Writes it as one line.
    fn emit(&self, sink: &dyn TelemetrySink, namespace: &str, at: Timestamp) {
        sink.line(&line(self, namespace, at));
    }

    /// Reads a line that [`TelemetryEvent::emit`] of this struct wrote; nothing for any other line.
    fn from_line(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "Function")]
            function: String,
        }
        let head: Head = serde_json::from_str(line).ok()?;
        if head.function != Self::FUNCTION {
            None
        } else {
            serde_json::from_str(line).ok()
        }
    }
}

impl ProfileWriterBatch {
    /// Takes in what the invocation heard of the journey.
    pub fn note_journey(&mut self, news: JourneyNews) {
        self.journey_changed = news.changed;
        self.journey_refused = news.refused;
        self.journey_refresh_failed = news.refresh_failed;
        self.journey_age = news.age_ms;
    }

    /// Takes in what the batch decides with.
    pub fn note_snapshots(&mut self, news: SnapshotNews) {
        self.snapshot_age = news.age_ms;
        self.snapshot_missing = news.missing;
        self.snapshot_refresh_failed = news.refresh_failed;
        self.snapshot_read_units = news.read_units;
        self.models_unreadable = news.models_unreadable;
        self.trend_tiles_unreadable = news.tiles_unreadable;
    }
}

impl ContentTrendsBatch {
    /// Takes in what the invocation heard of the journey.
    pub fn note_journey(&mut self, news: JourneyNews) {
        self.journey_changed = news.changed;
        self.journey_refused = news.refused;
        self.journey_refresh_failed = news.refresh_failed;
        self.journey_age = news.age_ms;
    }
}

impl TelemetryEvent for ProfileWriterBatch {
    const FUNCTION: &'static str = "profile-writer";
    const MESSAGE: &'static str = "batch of interactions processed";
    const MILLISECONDS: &'static [&'static str] = &[
        "IteratorAge",
        "JourneyAge",
        "SnapshotAge",
        "EventToApplied",
        "EventToTrigger",
        "TimerLateness",
        "OutcomeLateness",
    ];
}

impl TelemetryEvent for TriggerDeliveryBatch {
    const FUNCTION: &'static str = "trigger-delivery";
    const MESSAGE: &'static str = "batch of triggers processed";
    const MILLISECONDS: &'static [&'static str] = &["IteratorAge", "TriggerToDelivered"];
}

impl OutcomeLearnerBatch {
    /// Takes in what the invocation heard of the journey.
    pub fn note_journey(&mut self, news: JourneyNews) {
        self.journey_changed = news.changed;
        self.journey_refused = news.refused;
        self.journey_refresh_failed = news.refresh_failed;
        self.journey_age = news.age_ms;
    }
}

impl TelemetryEvent for OutcomeLearnerBatch {
    const FUNCTION: &'static str = "outcome-learner";
    const MESSAGE: &'static str = "batch of outcomes learned from";
    const MILLISECONDS: &'static [&'static str] = &["IteratorAge", "JourneyAge", "OutcomeToLearned"];
}

impl TelemetryEvent for ContentTrendsBatch {
    const FUNCTION: &'static str = "content-trends";
    const MESSAGE: &'static str = "batch of interactions counted";
    const MILLISECONDS: &'static [&'static str] = &["IteratorAge", "JourneyAge", "EventToCounted"];
}

impl TelemetryEvent for TimerSweep {
    const FUNCTION: &'static str = "timer-sweeper";
    const MESSAGE: &'static str = "due users swept";
    const MILLISECONDS: &'static [&'static str] = &["SweepLateness", "OldestDue"];
}

fn line<E: TelemetryEvent>(event: &E, namespace: &str, at: Timestamp) -> String {
    // Plain structs of numbers, lists and maps always serialise to an object.
    let mut members = match serde_json::to_value(event) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    // A metric without values is left out: an empty list is not a number.
    members.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
    let metrics: Vec<serde_json::Value> = members
        .iter()
        .filter(|(_, value)| value.is_number() || value.is_array())
        .map(|(name, _)| {
            let unit = if E::MILLISECONDS.contains(&name.as_str()) {
                Unit::Milliseconds
            } else {
                Unit::Count
            };
            serde_json::json!({ "Name": name, "Unit": unit.name() })
        })
        .collect();
    let head = serde_json::json!({
        "_aws": {
            "Timestamp": at.epoch_ms(),
            "CloudWatchMetrics": [{ "Namespace": namespace, "Dimensions": [[DIMENSION]], "Metrics": metrics }],
        },
        "level": "INFO",
        "message": E::MESSAGE,
        DIMENSION: E::FUNCTION,
    });
    if let serde_json::Value::Object(head) = head {
        members.extend(head);
    }
    serde_json::Value::Object(members).to_string()
}

/// At most 100 of the values, spread evenly over them in order of size, the smallest and the largest included: what
/// one metric of one line can carry, so that percentiles over many batches stay right.
pub fn spread(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    if values.len() <= EMF_VALUES_MAX {
        return values;
    }
    let last = values.len() - 1;
    (0..EMF_VALUES_MAX)
        .map(|index| values[index * last / (EMF_VALUES_MAX - 1)])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl TelemetrySink for Lines {
        fn line(&self, json: &str) {
            self.0.lock().expect("no panics").push(json.to_owned());
        }
    }

    #[test]
    fn one_struct_is_a_log_line_and_its_metrics() {
        let batch = ProfileWriterBatch {
            received: 3,
            write_units: 2.5,
            event_to_applied: vec![5, 9],
            rejected_by_reason: BTreeMap::from([("not_json".to_owned(), 1)]),
            ..Default::default()
        };
        let lines = Lines::default();
        batch.emit(&lines, "Usher", Timestamp::from_epoch_ms(1_700_000_000_000));
        let line = lines.0.into_inner().expect("no panics").remove(0);
        let json: serde_json::Value = serde_json::from_str(&line).expect("json");
        let directive = &json["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(
            (&json["Function"], &directive["Dimensions"][0][0]),
            (&"profile-writer".into(), &"Function".into())
        );
        // The specification: every metric and dimension that the directive names is a member of the line's root.
        for metric in directive["Metrics"].as_array().expect("a list") {
            let value = &json[metric["Name"].as_str().expect("text")];
            assert!(
                value.is_number() || value.as_array().is_some_and(|values| values.len() <= 100),
                "{metric}"
            );
        }
        let unit_of = |name: &str| {
            let metrics = directive["Metrics"].as_array().expect("a list");
            metrics
                .iter()
                .find(|metric| metric["Name"] == name)
                .map(|metric| metric["Unit"].clone())
        };
        assert_eq!(unit_of("EventToApplied"), Some("Milliseconds".into()));
        assert_eq!(unit_of("Received"), Some("Count".into()));
        assert_eq!(unit_of("EventToTrigger"), None, "without values there is no metric");
        assert_eq!(unit_of("RejectedByReason"), None);
    }

    #[test]
    fn a_line_is_read_back_by_its_own_struct_only() {
        let batch = ProfileWriterBatch {
            received: 3,
            event_to_applied: vec![1],
            ..Default::default()
        };
        let text = line(&batch, "Usher", Timestamp::default());
        assert_eq!(ProfileWriterBatch::from_line(&text), Some(batch));
        assert_eq!(TriggerDeliveryBatch::from_line(&text), None);
        assert_eq!(ProfileWriterBatch::from_line("starting"), None);
    }

    #[test]
    fn a_hundred_values_stand_for_all() {
        let spread_out = spread((0..10_000).rev().collect());
        assert_eq!(spread_out.len(), EMF_VALUES_MAX);
        assert_eq!((spread_out[0], spread_out[50], spread_out[99]), (0, 5050, 9999));
        assert_eq!(spread(vec![3, 1]), [1, 3]);
    }
}
