//! The decision log: one decision a line, with what was known when it was made and what came of it.
//!
//! `usher export decisions` writes it, `usher evaluate` and `usher report` read it.

pub mod read;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a rule offers without a choice was certain.
const CERTAIN: f64 = 1.0;

/// A decision and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedDecision {
    /// Its id: 32 hexadecimal digits.
    pub trigger_id: String,
    /// Whom it is about.
    pub user_id: String,
    /// The journey's name.
    pub journey: String,
    /// The journey's version.
    #[serde(default)]
    pub journey_version: String,
    /// The rule that fired.
    pub rule: String,
    /// Where it is shown.
    pub slot: String,
    /// When it was decided (RFC 3339).
    pub decided_at: String,
    /// Whether nobody was shown it.
    #[serde(default)]
    pub held_out: bool,
    /// The user's arm of each experiment.
    #[serde(default)]
    pub arms: BTreeMap<String, String>,
    /// What was offered.
    pub offer: String,
    /// How likely it was to be offered.
    #[serde(default = "certain")]
    pub propensity: f64,
    /// What came of it so far; none while nothing has and its window is open.
    #[serde(default)]
    pub reward: Option<f64>,
    /// What was rewarded, by name.
    #[serde(default)]
    pub outcomes: Vec<String>,
    /// Whether its window has run out, so that the reward is all that counts in time.
    #[serde(default)]
    pub settled: bool,
    /// The model that chose: 16 hexadecimal digits; none without a choice, or where there was no model yet.
    #[serde(default)]
    pub model_version: Option<String>,
    /// What the learner saw of the user, by name.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// What was chosen from; empty without a choice.
    #[serde(default)]
    pub candidates: Vec<LoggedCandidate>,
}

/// What was chosen from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedCandidate {
    /// Its content.
    pub content: String,
    /// How likely it was; none where a log of others doesn't say.
    #[serde(default)]
    pub probability: Option<f64>,
    /// The reward that was expected of it.
    #[serde(default)]
    pub mean: f64,
    /// The standard deviation of that.
    #[serde(default)]
    pub spread: f64,
    /// Its own features, by name.
    #[serde(default)]
    pub features: Map<String, Value>,
}

fn certain() -> f64 {
    CERTAIN
}

/// Which decisions are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only in these slots; in all where none is named.
    pub slots: Vec<String>,
    /// Only of these rules; of all where none is named.
    pub rules: Vec<String>,
}

impl Selection {
    /// Whether a decision is.
    pub fn wants(&self, decision: &LoggedDecision) -> bool {
        let is_among = |names: &[String], name: &str| names.is_empty() || names.iter().any(|named| named == name);
        is_among(&self.slots, &decision.slot) && is_among(&self.rules, &decision.rule)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A decision that chose `a` of `a` and `b`.
    pub fn decision(id: u32) -> LoggedDecision {
        let candidate = |content: &str, probability: f64| LoggedCandidate {
            content: content.to_owned(),
            probability: Some(probability),
            mean: 0.1,
            spread: 0.2,
            features: Map::new(),
        };
        LoggedDecision {
            trigger_id: format!("{id:032x}"),
            user_id: format!("u{id}"),
            journey: "trial".to_owned(),
            journey_version: "00112233aabbccdd".to_owned(),
            rule: "high_intent".to_owned(),
            slot: "in_app".to_owned(),
            decided_at: "2026-01-05T10:00:00.000Z".to_owned(),
            held_out: false,
            arms: BTreeMap::new(),
            offer: "a".to_owned(),
            propensity: 0.25,
            reward: Some(1.0),
            outcomes: vec!["click".to_owned()],
            settled: true,
            model_version: Some("8899aabbccddeeff".to_owned()),
            context: Map::new(),
            candidates: vec![candidate("a", 0.25), candidate("b", 0.75)],
        }
    }

    #[test]
    fn a_selection_goes_by_slot_and_rule() {
        let of = |slots: &[&str], rules: &[&str]| Selection {
            slots: slots.iter().map(|name| (*name).to_owned()).collect(),
            rules: rules.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (selection, wanted) in [
            (of(&[], &[]), true),
            (of(&["email", "in_app"], &[]), true),
            (of(&["email"], &[]), false),
            (of(&["in_app"], &["high_intent"]), true),
            (of(&["in_app"], &["welcome"]), false),
        ] {
            assert_eq!(selection.wants(&decision(1)), wanted, "{selection:?}");
        }
    }
}
