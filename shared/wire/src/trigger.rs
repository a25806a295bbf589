//! A decision as it is on the `triggers` stream: JSON for whoever consumes it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use usher_domain::trigger::Trigger;

/// The `kind` of a record that holds a decision.
pub const DECISION_KIND: &str = "decision";
/// The propensity of what a rule offers without a choice.
const FIXED_OFFER_PROPENSITY: f64 = 1.0;

#[derive(Serialize)]
struct DecisionRecord<'a> {
    kind: &'static str,
    trigger_id: String,
    user_id: &'a str,
    rule: &'a str,
    slot: &'a str,
    offer: &'a str,
    propensity: f64,
    decided_at: String,
    cause: CauseRecord<'a>,
    journey: JourneyRecord<'a>,
    reason: ReasonRecord<'a>,
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
}

/// The bytes of a trigger on the stream.
pub fn to_json(trigger: &Trigger) -> Vec<u8> {
    let saw = trigger.reason.saw.iter().map(|seen| {
        let value = RawValue::from_string(seen.json.clone());
        (seen.name.as_str(), value.unwrap_or_else(|_| RawValue::NULL.to_owned()))
    });
    let record = DecisionRecord {
        kind: DECISION_KIND,
        trigger_id: trigger.id.to_string(),
        user_id: &trigger.user,
        rule: &trigger.rule,
        slot: &trigger.slot,
        offer: &trigger.offer,
        propensity: FIXED_OFFER_PROPENSITY,
        decided_at: trigger.decided_at.to_string(),
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
            saw: saw.collect(),
            won_over: &trigger.reason.won_over,
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
