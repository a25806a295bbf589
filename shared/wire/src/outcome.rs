//! An outcome as it is on the `triggers` stream: what came of an offer, as JSON for whoever learns from it.
//!
//! An offer has one record for each event that brought it something, in the order in which they were noticed, or one of
//! nothing when its window ran out. Each tells the sum so far and the sum that was told before, so whoever has taken the
//! earlier ones in takes in the difference, and the last one alone tells all.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use usher_domain::bandit::context::{Content, Context};
use usher_domain::offers::{Outcome, SeenByLearner};

use crate::trigger::TriggerCause;

/// The `kind` of a record that holds an outcome.
pub const OUTCOME_KIND: &str = "outcome";
/// Hexadecimal digits of a model's version.
const VERSION_RADIX: u32 = 16;

#[derive(Serialize)]
struct OutcomeLine<'a> {
    kind: &'static str,
    outcome_id: String,
    trigger_id: String,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_for: Option<&'a str>,
    rule: &'a str,
    slot: &'a str,
    offer: &'a str,
    rewards: &'a [String],
    rewards_so_far: &'a [String],
    reward: f64,
    previous_reward: Option<f64>,
    #[serde(skip_serializing_if = "is_false")]
    expired: bool,
    #[serde(skip_serializing_if = "is_false")]
    held_out: bool,
    decided_at: String,
    at: String,
    made_at: String,
    propensity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<ChoiceLine<'a>>,
    cause: CauseLine<'a>,
    journey: JourneyLine<'a>,
}

#[derive(Serialize)]
struct ChoiceLine<'a> {
    layout: u32,
    context: &'a [i64],
    #[serde(skip_serializing_if = "<[i64]>::is_empty")]
    content: &'a [i64],
    model_version: Option<String>,
}

#[derive(Serialize)]
struct CauseLine<'a> {
    event_id: &'a str,
    event_type: &'a str,
    timestamp: String,
    shard_id: &'a str,
    sequence_number: String,
}

#[derive(Serialize)]
struct JourneyLine<'a> {
    name: &'a str,
    version: &'a str,
}

fn is_false(truth: &bool) -> bool {
    !truth
}

/// The bytes of an outcome on the stream.
pub fn to_json(outcome: &Outcome) -> Vec<u8> {
    let choice = outcome.seen.as_ref().map(|seen| ChoiceLine {
        layout: seen.layout,
        context: seen.context.units(),
        content: seen.content.units(),
        model_version: seen.model_version.map(|version| format!("{version:016x}")),
    });
    let line = OutcomeLine {
        kind: OUTCOME_KIND,
        outcome_id: outcome.id.to_string(),
        trigger_id: outcome.trigger.to_string(),
        user_id: &outcome.user,
        decided_for: outcome.decided_for.as_deref(),
        rule: &outcome.rule,
        slot: &outcome.slot,
        offer: &outcome.offer,
        rewards: &outcome.rewards,
        rewards_so_far: &outcome.rewards_so_far,
        reward: outcome.reward,
        previous_reward: outcome.previous_reward,
        expired: outcome.expired,
        held_out: outcome.held_out,
        decided_at: outcome.decided_at.to_string(),
        at: outcome.at.to_string(),
        made_at: outcome.made_at.to_string(),
        propensity: outcome.propensity,
        choice,
        cause: CauseLine {
            event_id: &outcome.cause.event_id,
            event_type: &outcome.cause.event_type,
            timestamp: outcome.cause.at.to_string(),
            shard_id: &outcome.cause.shard_id,
            sequence_number: outcome.cause.sequence_number.to_string(),
        },
        journey: JourneyLine {
            name: &outcome.journey,
            version: &outcome.journey_version,
        },
    };
    // Text and numbers: there is nothing in it that can't be written.
    serde_json::to_vec(&line).unwrap_or_default()
}

/// An outcome as its consumers read it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OutcomeRecord<'a> {
    /// [`OUTCOME_KIND`]; a record of another kind is no outcome, whatever else it has.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// 32 hexadecimal digits: act once on each.
    #[serde(borrow)]
    pub outcome_id: Cow<'a, str>,
    /// The decision: 32 hexadecimal digits.
    #[serde(borrow)]
    pub trigger_id: Cow<'a, str>,
    /// The user whose profile it is.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The user that the decision names, where that is another: one who turned out to be this one since.
    #[serde(borrow, default)]
    pub decided_for: Option<Cow<'a, str>>,
    /// The rule that fired.
    #[serde(borrow)]
    pub rule: Cow<'a, str>,
    /// Where it was shown.
    #[serde(borrow)]
    pub slot: Cow<'a, str>,
    /// What was offered.
    #[serde(borrow)]
    pub offer: Cow<'a, str>,
    /// What this record rewards, by name; nothing where the window ran out.
    pub rewards: Vec<String>,
    /// Everything that was rewarded so far, by name.
    #[serde(default)]
    pub rewards_so_far: Vec<String>,
    /// The sum so far.
    pub reward: f64,
    /// The sum that the record before told; none where this is the first of the offer.
    #[serde(default)]
    pub previous_reward: Option<f64>,
    /// Whether it says that the window ran out with nothing.
    #[serde(default)]
    pub expired: bool,
    /// Whether nobody was shown the offer.
    #[serde(default)]
    pub held_out: bool,
    /// When the offer was made (RFC 3339).
    #[serde(borrow)]
    pub decided_at: Cow<'a, str>,
    /// When it came, by event time, or when the window ran out (RFC 3339).
    #[serde(borrow)]
    pub at: Cow<'a, str>,
    /// When it was noticed: the arrival of the record that brought it (RFC 3339).
    #[serde(borrow, default)]
    pub made_at: Cow<'a, str>,
    /// How likely the offer was to be made.
    pub propensity: f64,
    /// What the learner saw, where one chose.
    #[serde(borrow, default)]
    pub choice: Option<OutcomeChoice<'a>>,
    /// What brought it, or who woke the user.
    #[serde(borrow, default)]
    pub cause: TriggerCause<'a>,
    /// The journey that told it.
    #[serde(borrow, default)]
    pub journey: OutcomeJourney<'a>,
}

/// What a learner saw when it chose, as it is in an outcome.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OutcomeChoice<'a> {
    /// The layout's fingerprint: what was seen under another one can't be learned.
    pub layout: u32,
    /// The context, in units of 2⁻¹⁶.
    #[serde(default)]
    pub context: Vec<i64>,
    /// The chosen content's own features, in units of 2⁻¹⁶.
    #[serde(default)]
    pub content: Vec<i64>,
    /// The version of the model that chose: 16 hexadecimal digits; none where there was none.
    #[serde(borrow, default)]
    pub model_version: Option<Cow<'a, str>>,
}

/// The journey of an outcome.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OutcomeJourney<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// Its version.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
}

impl<'a> OutcomeRecord<'a> {
    /// Reads a record of the stream.
    ///
    /// # Errors
    /// When it is not JSON of this shape.
    pub fn parse(bytes: &'a [u8]) -> Result<OutcomeRecord<'a>, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The user that the decision names: under whom it is in the decision log.
    pub fn decided_for(&self) -> &str {
        self.decided_for.as_deref().unwrap_or(&self.user_id)
    }
}

impl OutcomeChoice<'_> {
    /// As the learner takes it.
    pub fn seen(&self) -> SeenByLearner {
        let version = |digits: &Cow<'_, str>| u64::from_str_radix(digits, VERSION_RADIX).ok();
        SeenByLearner {
            layout: self.layout,
            context: Context::from_units(self.context.clone()),
            content: Content::from_units(self.content.clone()),
            model_version: self.model_version.as_ref().and_then(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use usher_domain::sequence_number::SequenceNumber;
    use usher_domain::time::Timestamp;
    use usher_domain::trigger::{Cause, TriggerId};

    use super::*;

    const DECIDED_MS: i64 = 1_767_607_200_000;

    fn outcome() -> Outcome {
        Outcome {
            id: TriggerId(0xabc),
            trigger: TriggerId(0x1234),
            user: "ann".to_owned(),
            decided_for: None,
            rule: "stalled".to_owned(),
            slot: "email".to_owned(),
            offer: "tour".to_owned(),
            rewards: vec!["click".to_owned()],
            rewards_so_far: vec!["click".to_owned(), "step_completed".to_owned()],
            reward: 6.0,
            previous_reward: Some(5.0),
            expired: false,
            held_out: false,
            decided_at: Timestamp::from_epoch_ms(DECIDED_MS),
            at: Timestamp::from_epoch_ms(DECIDED_MS + 60_000),
            made_at: Timestamp::from_epoch_ms(DECIDED_MS + 61_000),
            propensity: 0.25,
            seen: Some(SeenByLearner {
                layout: 7,
                context: Context::from_units(vec![65_536, -3]),
                content: Content::default(),
                model_version: Some(0xbeef),
            }),
            cause: Cause {
                event_id: "e-2".to_owned(),
                event_type: "click".to_owned(),
                at: Timestamp::from_epoch_ms(DECIDED_MS + 60_000),
                shard_id: "shardId-000000000001".to_owned(),
                sequence_number: SequenceNumber::from_limbs([0, 0, 9]),
            },
            journey: "trial".to_owned(),
            journey_version: "0123456789abcdef".to_owned(),
        }
    }

    fn json(outcome: &Outcome) -> String {
        String::from_utf8(to_json(outcome)).expect("JSON")
    }

    #[test]
    fn an_outcome_is_told_and_read() {
        let text = json(&outcome());
        assert_eq!(
            text,
            concat!(
                r#"{"kind":"outcome","outcome_id":"00000000000000000000000000000abc","#,
                r#""trigger_id":"00000000000000000000000000001234","user_id":"ann","rule":"stalled","slot":"email","#,
                r#""offer":"tour","rewards":["click"],"rewards_so_far":["click","step_completed"],"reward":6.0,"#,
                r#""previous_reward":5.0,"decided_at":"2026-01-05T10:00:00.000Z","at":"2026-01-05T10:01:00.000Z","#,
                r#""made_at":"2026-01-05T10:01:01.000Z","propensity":0.25,"#,
                r#""choice":{"layout":7,"context":[65536,-3],"model_version":"000000000000beef"},"#,
                r#""cause":{"event_id":"e-2","event_type":"click","timestamp":"2026-01-05T10:01:00.000Z","#,
                r#""shard_id":"shardId-000000000001","sequence_number":"9"},"#,
                r#""journey":{"name":"trial","version":"0123456789abcdef"}}"#,
            )
        );
        let record = OutcomeRecord::parse(text.as_bytes()).expect("an outcome");
        assert_eq!((record.kind.as_ref(), record.decided_for()), (OUTCOME_KIND, "ann"));
        assert_eq!((record.reward, record.previous_reward), (6.0, Some(5.0)));
        assert_eq!(record.rewards_so_far, ["click", "step_completed"]);
        assert_eq!(record.choice.map(|choice| choice.seen()), outcome().seen);
        assert_eq!((record.expired, record.held_out), (false, false));
        assert_eq!(record.cause.event_id, "e-2");
        assert_eq!(record.journey.version, "0123456789abcdef");
    }

    #[test]
    fn a_window_that_ran_out_says_so_and_what_nobody_chose_has_no_choice() {
        let expired = Outcome {
            rewards: Vec::new(),
            rewards_so_far: Vec::new(),
            reward: 0.0,
            previous_reward: None,
            expired: true,
            held_out: true,
            seen: None,
            decided_for: Some("anon-1".to_owned()),
            ..outcome()
        };
        let text = json(&expired);
        assert!(
            text.contains(r#""rewards":[],"rewards_so_far":[],"reward":0.0,"previous_reward":null,"expired":true,"held_out":true,"#),
            "{text}"
        );
        assert!(!text.contains("choice"), "{text}");
        assert!(text.contains(r#""user_id":"ann","decided_for":"anon-1","#), "{text}");
        let record = OutcomeRecord::parse(text.as_bytes()).expect("an outcome");
        assert_eq!(
            (record.expired, record.held_out, record.previous_reward),
            (true, true, None)
        );
        assert_eq!(record.decided_for(), "anon-1");
    }

    /// P10: whatever is on the stream.
    #[test]
    fn what_is_no_outcome_is_refused() {
        for text in [
            "",
            "{}",
            "3",
            r#"{"kind":"outcome"}"#,
            r#"{"kind":"decision","trigger_id":"00"}"#,
        ] {
            assert!(OutcomeRecord::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
