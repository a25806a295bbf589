//! A decision as it is on the `triggers` stream: JSON for whoever consumes it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use usher_domain::trigger::{Choice, SeenValue, Trigger};

/// The `kind` of a record that holds a decision.
pub const DECISION_KIND: &str = "decision";

#[derive(Serialize)]
struct DecisionRecord<'a> {
    kind: &'static str,
    trigger_id: String,
    user_id: &'a str,
    rule: &'a str,
    slot: &'a str,
    offer: &'a str,
    propensity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<ChoiceRecord<'a>>,
    decided_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    held_out: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    arms: BTreeMap<&'a str, &'a str>,
    cause: CauseRecord<'a>,
    journey: JourneyRecord<'a>,
    reason: ReasonRecord<'a>,
}

#[derive(Serialize)]
struct ChoiceRecord<'a> {
    learner: &'a str,
    /// `null` says that nothing was learned yet.
    model_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'static str>,
    context_hash: String,
    layout: u32,
    context: BTreeMap<&'a str, Box<RawValue>>,
    candidates: Vec<CandidateRecord<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    candidates_left_out: usize,
}

#[derive(Serialize)]
struct CandidateRecord<'a> {
    content: &'a str,
    probability: f64,
    mean: f64,
    spread: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    features: BTreeMap<&'a str, Box<RawValue>>,
}

impl<'a> ChoiceRecord<'a> {
    fn of(choice: &'a Choice) -> ChoiceRecord<'a> {
        let candidates = choice.candidates.iter().map(|candidate| CandidateRecord {
            content: &candidate.content,
            probability: candidate.probability,
            mean: candidate.mean,
            spread: candidate.spread,
            features: seen(&candidate.features),
        });
        ChoiceRecord {
            learner: &choice.learner,
            model_version: choice.seen.model_version.map(hex),
            fallback: choice.fallback.map(|fallback| fallback.name()),
            context_hash: hex(choice.seen.context.hash()),
            layout: choice.seen.layout,
            context: seen(&choice.context),
            candidates: candidates.collect(),
            candidates_left_out: choice.candidates_left_out,
        }
    }
}

#[derive(Serialize)]
struct CauseRecord<'a> {
    event_id: &'a str,
    event_type: &'a str,
    timestamp: String,
    shard_id: &'a str,
    sequence_number: String,
}

#[derive(Serialize)]
struct JourneyRecord<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct ReasonRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<&'a str>,
    saw: BTreeMap<&'a str, Box<RawValue>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    won_over: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<PassedOverRecord<'a>>,
}

#[derive(Serialize)]
struct PassedOverRecord<'a> {
    rule: &'a str,
    outcome: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    saw: BTreeMap<&'a str, Box<RawValue>>,
}

fn is_false(truth: &bool) -> bool {
    !truth
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A 64-bit name as 16 hexadecimal digits: JSON's numbers are not sure to hold it.
fn hex(name: u64) -> String {
    format!("{name:016x}")
}

fn seen(saw: &[SeenValue]) -> BTreeMap<&str, Box<RawValue>> {
    saw.iter()
        .map(|seen| {
            let value = RawValue::from_string(seen.json.clone());
            (seen.name.as_str(), value.unwrap_or_else(|_| RawValue::NULL.to_owned()))
        })
        .collect()
}

/// The bytes of a trigger on the stream.
pub fn to_json(trigger: &Trigger) -> Vec<u8> {
    let arms = trigger.arms.iter();
    let passed_over = trigger.reason.passed_over.iter().map(|passed| PassedOverRecord {
        rule: &passed.rule,
        outcome: &passed.outcome,
        detail: &passed.detail,
        saw: seen(&passed.saw),
    });
    let record = DecisionRecord {
        kind: DECISION_KIND,
        trigger_id: trigger.id.to_string(),
        user_id: &trigger.user,
        rule: &trigger.rule,
        slot: &trigger.slot,
        offer: &trigger.offer,
        propensity: trigger.propensity,
        choice: trigger.choice.as_deref().map(ChoiceRecord::of),
        decided_at: trigger.decided_at.to_string(),
        due_at: trigger.due_at.map(|at| at.to_string()),
        held_out: trigger.held_out,
        arms: arms
            .map(|(experiment, arm)| (experiment.as_str(), arm.as_str()))
            .collect(),
        cause: CauseRecord {
            event_id: &trigger.cause.event_id,
            event_type: &trigger.cause.event_type,
            timestamp: trigger.cause.at.to_string(),
            shard_id: &trigger.cause.shard_id,
            sequence_number: trigger.cause.sequence_number.to_string(),
        },
        journey: JourneyRecord {
            name: &trigger.journey,
            version: &trigger.journey_version,
        },
        reason: ReasonRecord {
            condition: trigger.reason.condition.as_deref(),
            saw: seen(&trigger.reason.saw),
            won_over: &trigger.reason.won_over,
            passed_over: passed_over.collect(),
        },
    };
    // Text, numbers and raw JSON that was checked: there is nothing in it that can't be written.
    serde_json::to_vec(&record).unwrap_or_default()
}

/// A record of the `triggers` stream, as far as its consumers need it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TriggerRecord<'a> {
    /// [`DECISION_KIND`], or a kind that a consumer doesn't know and leaves alone.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// 32 hexadecimal digits.
    #[serde(borrow, default)]
    pub trigger_id: Cow<'a, str>,
    /// Whom it is for.
    #[serde(borrow, default)]
    pub user_id: Cow<'a, str>,
    /// The rule that fired.
    #[serde(borrow, default)]
    pub rule: Cow<'a, str>,
    /// Where it is shown.
    #[serde(borrow, default)]
    pub slot: Cow<'a, str>,
    /// What is offered.
    #[serde(borrow, default)]
    pub offer: Cow<'a, str>,
    /// When it was decided (RFC 3339).
    #[serde(borrow, default)]
    pub decided_at: Cow<'a, str>,
    /// When its timer was due, or its quiet hours ended (RFC 3339).
    #[serde(borrow, default)]
    pub due_at: Option<Cow<'a, str>>,
    /// Whether nobody is to be shown it: it is there to be compared with what others do who are shown something.
    #[serde(default)]
    pub held_out: bool,
    /// What caused it.
    #[serde(borrow, default)]
    pub cause: TriggerCause<'a>,
}

/// Where the event that caused a trigger was.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct TriggerCause<'a> {
    /// The event's id.
    #[serde(borrow, default)]
    pub event_id: Cow<'a, str>,
    /// The shard of its record.
    #[serde(borrow, default)]
    pub shard_id: Cow<'a, str>,
    /// The sequence number of its record.
    #[serde(borrow, default)]
    pub sequence_number: Cow<'a, str>,
}

impl<'a> TriggerRecord<'a> {
    /// Reads a record of the stream.
    ///
    /// # Errors
    /// When it is not JSON of this shape.
    pub fn parse(bytes: &'a [u8]) -> Result<TriggerRecord<'a>, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// A whole decision, for people who want to know why.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DecisionDetails {
    /// 32 hexadecimal digits.
    pub trigger_id: String,
    /// Whom it is for.
    pub user_id: String,
    /// The rule that fired.
    pub rule: String,
    /// Where it is shown.
    pub slot: String,
    /// What is offered.
    pub offer: String,
    /// How likely it was to be offered: 1 without a choice.
    #[serde(default = "certain")]
    pub propensity: f64,
    /// How it was chosen, where a learner did.
    pub choice: Option<ChoiceDetails>,
    /// When it was decided (RFC 3339): the arrival of the record that caused it or woke its timer.
    pub decided_at: String,
    /// When its timer was due or its quiet hours ended (RFC 3339).
    pub due_at: Option<String>,
    /// Whether nobody is shown it.
    pub held_out: bool,
    /// The user's arm of each experiment.
    pub arms: BTreeMap<String, String>,
    /// What caused it.
    pub cause: CauseDetails,
    /// The journey that decided it.
    pub journey: JourneyDetails,
    /// Why.
    pub reason: ReasonDetails,
}

/// The propensity of what is offered without a choice.
fn certain() -> f64 {
    1.0
}

/// How a learner chose.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChoiceDetails {
    /// Its name, such as `linear_thompson`.
    pub learner: String,
    /// The version of the model, 16 hexadecimal digits; none where it had learned nothing.
    pub model_version: Option<String>,
    /// Why the slot's model did not choose, as [`usher_domain::trigger::Fallback::name`] says it.
    pub fallback: Option<String>,
    /// A name for exactly the context that it saw, 16 hexadecimal digits.
    pub context_hash: String,
    /// A name for how values became numbers.
    pub layout: u32,
    /// The context's values, by name.
    pub context: BTreeMap<String, Box<RawValue>>,
    /// What it chose from.
    pub candidates: Vec<CandidateDetails>,
    /// How many candidates more there were.
    pub candidates_left_out: usize,
}

/// A candidate of a choice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CandidateDetails {
    /// Its content.
    pub content: String,
    /// How likely it was to be chosen.
    pub probability: f64,
    /// The reward that was expected of it.
    pub mean: f64,
    /// The standard deviation of that.
    pub spread: f64,
    /// Its own features, by name.
    pub features: BTreeMap<String, Box<RawValue>>,
}

/// The event that caused a decision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CauseDetails {
    /// Its id.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened (RFC 3339).
    pub timestamp: String,
}

/// The journey of a decision.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JourneyDetails {
    /// Its name.
    pub name: String,
    /// Its version: 16 hexadecimal digits that follow from the file.
    pub version: String,
}

/// Why a rule fired, and the others did not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReasonDetails {
    /// The rule's condition, where it has one.
    pub condition: Option<String>,
    /// What the condition read, by name.
    pub saw: BTreeMap<String, Box<RawValue>>,
    /// The rules that lost to it by their priority.
    pub won_over: Vec<String>,
    /// The rules that looked at the same moment and did not fire.
    pub passed_over: Vec<PassedOverDetails>,
}

/// A rule that looked and did not fire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PassedOverDetails {
    /// The rule.
    pub rule: String,
    /// Why not, as [`usher_domain::rules::RuleOutcome::name`] says it.
    pub outcome: String,
    /// The same for people.
    pub detail: String,
    /// What its condition read, by name.
    pub saw: BTreeMap<String, Box<RawValue>>,
}

impl DecisionDetails {
    /// Reads a decision, of this version or an older one.
    ///
    /// # Errors
    /// When it is not JSON of this shape.
    pub fn parse(text: &str) -> Result<DecisionDetails, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests;
