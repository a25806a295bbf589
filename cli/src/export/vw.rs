//! Vowpal Wabbit's text for `--cb_explore_adf`: a line for what is shared, one for each candidate, and a blank line.
//!
//! The candidate that was offered has the label `0:COST:PROBABILITY`, the cost being the reward with its sign turned, since VW
//! minimises. With `_adf` the number of the action is not looked at. Numbers are `name:value`, texts `name=text`, and what is
//! true its name; what is missing or false is left out, as VW takes what isn't there for 0.
//! <https://github.com/VowpalWabbit/vowpal_wabbit/wiki/Input-format>,
//! <https://vowpalwabbit.org/docs/vowpal_wabbit/python/latest/tutorials/python_Contextual_bandits_and_Vowpal_Wabbit.html>

use std::fmt::Write as _;
use std::io::Write;

use anyhow::Result;
use serde_json::{Map, Value};

use super::DecisionWriter;
use crate::decision_log::LoggedDecision;

/// Examples, one after the other.
pub struct Examples<W>(pub W);

impl<W: Write> DecisionWriter for Examples<W> {
    fn add(&mut self, decision: &LoggedDecision) -> Result<bool> {
        let Some(example) = example(decision) else {
            return Ok(false);
        };
        self.0.write_all(example.as_bytes())?;
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

/// The lines of a decision; none where there is nothing to learn from it: nobody was shown it, nothing was chosen or its
/// window is still open.
fn example(decision: &LoggedDecision) -> Option<String> {
    let reward = decision.reward.filter(|_| decision.settled && !decision.held_out)?;
    if decision.candidates.is_empty() {
        return None;
    }
    let mut text = format!("shared '{} |u", safe(&decision.trigger_id));
    features(&mut text, &decision.context);
    text.push('\n');
    for candidate in &decision.candidates {
        if candidate.content == decision.offer {
            // Turned without making a −0 of 0.
            let cost = 0.0 - reward;
            let _ = write!(text, "0:{cost}:{} ", decision.propensity);
        }
        let _ = write!(text, "|a content={}", safe(&candidate.content));
        features(&mut text, &candidate.features);
        text.push('\n');
    }
    text.push('\n');
    Some(text)
}

fn features(text: &mut String, features: &Map<String, Value>) {
    for (name, value) in features {
        let name = safe(name);
        // Writing to a text can't fail.
        let _ = match value {
            Value::Number(number) => write!(text, " {name}:{number}"),
            Value::String(value) => write!(text, " {name}={}", safe(value)),
            Value::Bool(true) => write!(text, " {name}"),
            Value::Array(_) | Value::Object(_) => write!(text, " {name}={}", safe(&value.to_string())),
            Value::Bool(false) | Value::Null => Ok(()),
        };
    }
}

/// A name without what parts names in VW's text: white space, bars and colons.
fn safe(name: &str) -> String {
    let is_special = |character: char| character.is_whitespace() || character.is_control() || "|:'".contains(character);
    name.chars()
        .map(|character| if is_special(character) { '_' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spool::Spool;
    use super::super::spool::tests::{all, outcome, trigger};
    use super::*;
    use crate::decision_log::tests::decision;

    #[test]
    fn a_decision_is_a_multi_line_example() {
        let mut spool = Spool::new(None).expect("a file");
        let filed = outcome("01", &["click", "like"], true, 5);
        assert_eq!(spool.add(&trigger("01", 0), Some(&filed)).expect("written"), Ok(()));
        let decisions = all(spool);
        let expected = "shared '01 |u clicks:3 plan=team\n0:-2:0.25 |a content=a kind=video\n|a content=b\n\n";
        assert_eq!(example(&decisions[0]).as_deref(), Some(expected));
    }

    #[test]
    fn what_parts_names_in_vw_is_taken_out_of_them() {
        let mut odd = decision(1);
        odd.reward = Some(0.0);
        odd.offer = "b: |x".to_owned();
        odd.candidates[1].content = odd.offer.clone();
        odd.propensity = 0.75;
        let context =
            json!({ "a|b": "c d\n:e", "yes": true, "no": false, "none": null, "half": 0.5, "list": ["x", 1] });
        odd.context = context.as_object().cloned().expect("an object");
        let id = "00000000000000000000000000000001";
        let expected = format!(
            "shared '{id} |u a_b=c_d__e half:0.5 list=[\"x\",1] yes\n|a content=a\n0:0:0.75 |a content=b___x\n\n"
        );
        assert_eq!(example(&odd), Some(expected));
    }

    #[test]
    fn only_what_was_shown_chosen_and_settled_is_learned_from() {
        for change in [
            |decision: &mut LoggedDecision| decision.held_out = true,
            |decision: &mut LoggedDecision| decision.settled = false,
            |decision: &mut LoggedDecision| decision.reward = None,
            |decision: &mut LoggedDecision| decision.candidates.clear(),
        ] {
            let mut decision = decision(1);
            assert!(example(&decision).is_some());
            change(&mut decision);
            assert_eq!(example(&decision), None);
        }
    }
}
