//! A journey's learners as a policy: what each would have chosen from the same candidates, by the context that was logged.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Map, Value as Json};
use usher_domain::bandit::context::Content;
use usher_domain::bandit::learner::Algorithm;
use usher_domain::bandit::snapshot::{Candidate, ModelSnapshot};
use usher_domain::journey::{ContentSource, Journey, SlotLearner};
use usher_domain::value::Value;

use super::policy::Chances;
use crate::decision_log::{LoggedCandidate, LoggedDecision};
use crate::journey_file;

/// The learners, and what they know.
pub struct Learners {
    journey: Journey,
    /// Of each of the journey's learners, where one was given.
    models: Vec<Option<ModelSnapshot>>,
}

impl Learners {
    /// Those of a journey, as of these models.
    ///
    /// # Errors
    /// When a file can't be read, a model is of no slot of the journey, or the journey has no learner.
    pub fn load(path: &Path, models: &[PathBuf]) -> Result<Learners> {
        let journey = journey_file::load(path)?;
        if journey.learners.is_empty() {
            bail!("the journey {} chooses nowhere: no rule has `choose`", path.display());
        }
        let mut learners = Learners {
            models: journey.learners.iter().map(|_| None).collect(),
            journey,
        };
        for path in models {
            learners.learn(path)?;
        }
        Ok(learners)
    }

    /// Takes in what was learned.
    fn learn(&mut self, path: &Path) -> Result<()> {
        bail!("cannot read the model {}", path.display())
    }

    /// How likely each candidate would have been.
    ///
    /// # Errors
    /// When the learner reads what was not logged.
    pub fn chances(&self, decision: &LoggedDecision) -> Result<Chances> {
        let found = self.journey.learners.iter().zip(&self.models);
        let Some((learner, model)) = found.into_iter().find(|(learner, _)| learner.slot == decision.slot) else {
            return Ok(Chances::Unknown);
        };
        let model = model.as_ref().unwrap_or(&learner.prior);
        if reads_context(&learner.learner.algorithm) {
            all_logged(learner, decision)?;
        }
        let context = learner
            .layout
            .context(|name| value_of(&decision.context, name), model.standards());
        let own = |candidate: &LoggedCandidate| learner.layout.content(|name| value_of(&candidate.features, name));
        let contents: Vec<Content> = decision.candidates.iter().map(own).collect();
        let candidates: Vec<Candidate<'_>> = decision
            .candidates
            .iter()
            .zip(&contents)
            .map(|(candidate, content)| Candidate {
                arm: &candidate.content,
                content,
                score: score_of(learner, candidate),
            })
            .collect();
        let scores = model.scores(&context, &candidates);
        Ok(Chances::Of(scores.iter().map(|score| score.probability).collect()))
    }
}

/// Whether what a learner chooses depends on what it sees.
fn reads_context(algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::LinUcb(_) | Algorithm::LinearThompson(_) | Algorithm::EpsilonGreedy { .. } => true,
        Algorithm::Thompson | Algorithm::FixedSplit(_) | Algorithm::Scores => false,
    }
}

/// What was not seen when it was decided can't be made up now.
fn all_logged(learner: &SlotLearner, decision: &LoggedDecision) -> Result<()> {
    let of_user = learner
        .context
        .iter()
        .find(|value| !decision.context.contains_key(&value.name));
    if let Some(missing) = of_user {
        bail!(
            "the decision {} has no `{}` in its context, which the journey's learner of {} reads; a policy can only be judged \
             by what was logged",
            decision.trigger_id,
            missing.name,
            decision.slot
        );
    }
    for candidate in &decision.candidates {
        let missing = learner
            .contents
            .iter()
            .find(|value| !candidate.features.contains_key(&value.name));
        if let Some(missing) = missing {
            bail!(
                "the decision {} has no `{}` among the features of the candidate `{}`, which the journey's learner of {} reads; \
                 a policy can only be judged by what was logged",
                decision.trigger_id,
                missing.name,
                candidate.content,
                decision.slot
            );
        }
    }
    Ok(())
}

/// The imported score, where the journey sees it under a name that was logged.
fn score_of(learner: &SlotLearner, candidate: &LoggedCandidate) -> Option<f64> {
    let named = learner.contents.iter().find(|value| value.of == ContentSource::Score)?;
    candidate.features.get(&named.name)?.as_f64()
}

fn value_of<'v>(values: &'v Map<String, Json>, name: &str) -> Value<'v> {
    match values.get(name) {
        Some(Json::Bool(truth)) => Value::Bool(*truth),
        Some(Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(float)) => Value::Float(float),
            (None, None) => Value::Null,
        },
        Some(Json::String(text)) => Value::Text(Cow::Borrowed(text)),
        Some(Json::Null | Json::Array(_) | Json::Object(_)) | None => Value::Null,
    }
}
