//! The policies that can be judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use super::learners::Learners;
use crate::decision_log::LoggedDecision;

/// What a policy file of a split begins with.
const FILE_SIGN: char = '@';

/// How likely each candidate is to be chosen.
pub enum Policy {
    /// As it was.
    Logged,
    /// All alike.
    Even,
    /// That content wherever it can be, else all alike.
    Fixed(String),
    /// By weights.
    Split(Split),
    /// By the learners of a journey.
    Learners(Box<Learners>),
}

/// Weights of contents, of all slots or of each.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Split {
    /// The same everywhere.
    Everywhere(BTreeMap<String, f64>),
    /// By slot.
    BySlot(BTreeMap<String, BTreeMap<String, f64>>),
}

/// What a policy makes of a decision.
#[derive(Debug, PartialEq)]
pub enum Chances {
    /// The same probabilities as when it was made.
    AsLogged,
    /// A probability for each candidate, in their order.
    Of(Vec<f64>),
    /// The policy says nothing of the slot.
    Unknown,
}

impl Policy {
    /// As the command line says it.
    ///
    /// # Errors
    /// When it is none, or its files can't be read.
    pub fn parse(text: &str, models: &[PathBuf], train: &[PathBuf]) -> Result<Policy> {
        let is_journey = [".yaml", ".yml"].iter().any(|end| text.ends_with(end));
        let has_learned = !models.is_empty() || !train.is_empty();
        if has_learned && !is_journey {
            bail!("--model and --train are for a journey's learners: give --policy JOURNEY.yaml");
        }
        match text.split_once(':') {
            _ if is_journey => Ok(Policy::Learners(Box::new(Learners::load(
                Path::new(text),
                models,
                train,
            )?))),
            None if text == "logged" => Ok(Policy::Logged),
            None if text == "even" => Ok(Policy::Even),
            Some(("fixed", content)) if !content.is_empty() => Ok(Policy::Fixed(content.to_owned())),
            Some(("split", weights)) => Ok(Policy::Split(Split::parse(weights)?)),
            _ => bail!(
                "--policy is `{text}`, but it is one of logged, even, fixed:CONTENT, split:A=3,B=1, split:@FILE or a journey \
                 file (.yaml)"
            ),
        }
    }

    /// What it makes of a decision.
    ///
    /// # Errors
    /// Why it can't tell.
    pub fn chances(&self, decision: &LoggedDecision) -> Result<Chances> {
        let count = decision.candidates.len();
        let even = || vec![1.0 / count as f64; count];
        Ok(match self {
            Policy::Logged => Chances::AsLogged,
            Policy::Even => Chances::Of(even()),
            Policy::Fixed(content) => {
                let is_it = |index: usize| decision.candidates[index].content == *content;
                match (0..count).find(|index| is_it(*index)) {
                    Some(found) => Chances::Of((0..count).map(|index| f64::from(u8::from(index == found))).collect()),
                    None => Chances::Of(even()),
                }
            }
            Policy::Split(split) => {
                let Some(weights) = split.of(&decision.slot) else {
                    return Ok(Chances::Unknown);
                };
                let weight = |content: &String| weights.get(content).copied().unwrap_or(0.0);
                let weights: Vec<f64> = decision.candidates.iter().map(|one| weight(&one.content)).collect();
                let total: f64 = weights.iter().sum();
                match total > 0.0 {
                    true => Chances::Of(weights.iter().map(|weight| weight / total).collect()),
                    false => Chances::Of(even()),
                }
            }
            Policy::Learners(learners) => learners.chances(decision)?,
        })
    }
}

impl Split {
    /// Weights such as `a=3,b=1`, or `@FILE` with a JSON object of them.
    ///
    /// # Errors
    /// When they are none.
    fn parse(text: &str) -> Result<Split> {
        let split = match text.strip_prefix(FILE_SIGN) {
            Some(path) => {
                let json = std::fs::read_to_string(path).with_context(|| format!("cannot read the weights {path}"))?;
                serde_json::from_str(&json).map_err(|_| {
                    anyhow!(
                        "{path} holds no weights; write {{\"tour\": 3, \"demo\": 1}}, or such an object for each slot: \
                         {{\"in_app\": {{\"tour\": 3}}}}"
                    )
                })?
            }
            None => {
                let weight = |part: &str| {
                    let (content, weight) = part.rsplit_once('=')?;
                    Some((content.to_owned(), weight.parse().ok()?))
                };
                let weights: Option<BTreeMap<String, f64>> = text.split(',').map(weight).collect();
                Split::Everywhere(weights.ok_or_else(|| {
                    anyhow!("--policy split:{text} holds no weights; write split:tour=3,demo=1 or split:@FILE")
                })?)
            }
        };
        let all: Vec<&BTreeMap<String, f64>> = match &split {
            Split::Everywhere(weights) => vec![weights],
            Split::BySlot(slots) => slots.values().collect(),
        };
        for (content, weight) in all.into_iter().flatten() {
            if !(*weight >= 0.0 && weight.is_finite()) {
                bail!("the weight of `{content}` is {weight}, but weights are not negative");
            }
        }
        Ok(split)
    }

    fn of(&self, slot: &str) -> Option<&BTreeMap<String, f64>> {
        match self {
            Split::Everywhere(weights) => Some(weights),
            Split::BySlot(slots) => slots.get(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision_log::tests::decision;

    #[test]
    fn policies_give_each_candidate_its_chance() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), r#"{"in_app":{"a":1,"b":3},"email":{"a":1}}"#).expect("to write");
        let by_slot = format!("split:@{}", file.path().display());
        for (policy, chances) in [
            ("even", [0.5, 0.5]),
            ("fixed:b", [0.0, 1.0]),
            ("fixed:a", [1.0, 0.0]),
            // What can't be offered can't be chosen: then it falls back to all alike.
            ("fixed:c", [0.5, 0.5]),
            ("split:a=3,b=1", [0.75, 0.25]),
            ("split:a=3,c=5", [1.0, 0.0]),
            ("split:c=1", [0.5, 0.5]),
            (&by_slot, [0.25, 0.75]),
        ] {
            let found = Policy::parse(policy, &[], &[])
                .expect(policy)
                .chances(&decision(1))
                .expect(policy);
            assert_eq!(found, Chances::Of(chances.to_vec()), "{policy}");
        }
        let logged = Policy::parse("logged", &[], &[]).expect("one").chances(&decision(1));
        assert_eq!(logged.expect("it can"), Chances::AsLogged);
        let mut elsewhere = decision(1);
        elsewhere.slot = "sms".to_owned();
        let found = Policy::parse(&by_slot, &[], &[]).expect("one").chances(&elsewhere);
        assert_eq!(found.expect("it can"), Chances::Unknown);
    }

    #[test]
    fn p10_what_is_no_policy_is_told() {
        let log = [PathBuf::from("l.jsonl")];
        for (policy, train, told) in [
            ("best", &[][..], "--policy is `best`, but it is one of"),
            ("fixed:", &[], "--policy is `fixed:`"),
            ("split:a", &[], "--policy split:a holds no weights"),
            ("split:a=x", &[], "--policy split:a=x holds no weights"),
            ("split:a=-1", &[], "the weight of `a` is -1"),
            ("split:@/no/such", &[], "cannot read the weights /no/such"),
            ("/no/such.yaml", &[], "cannot read the journey /no/such.yaml"),
            ("even", &log, "--model and --train are for a journey's learners"),
        ] {
            let error = Policy::parse(policy, &[], train).err().expect(policy).to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
