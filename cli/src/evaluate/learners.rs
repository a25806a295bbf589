//! A journey's learners as a policy: what each would have chosen from the same candidates, by the context that was logged.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value as Json};
use usher_domain::bandit::context::Content;
use usher_domain::bandit::learner::Algorithm;
use usher_domain::bandit::snapshot::{Candidate, ModelSnapshot};
use usher_domain::bandit::state::{Outcome, SlotState};
use usher_domain::journey::{ContentSource, Journey, SlotLearner};
use usher_domain::value::Value;
use usher_wire::model_file;

use super::policy::Chances;
use crate::decision_log::read::LogFile;
use crate::decision_log::{LoggedCandidate, LoggedDecision};
use crate::journey_file;

/// Outcomes after which a learner that is taught looks anew at what is usual of its numbers, for the first time; then each time
/// they have doubled.
const FIRST_LOOK_OUTCOMES: u64 = 32;

/// The learners, and what they know.
pub struct Learners {
    journey: Journey,
    /// Of each of the journey's learners, where it was taught.
    models: Vec<Option<ModelSnapshot>>,
    #[cfg(test)]
    states: Vec<Option<SlotState>>,
}

/// A learner that is taught.
struct Pupil {
    state: SlotState,
    snapshot: ModelSnapshot,
    outcomes: u64,
    next_look: u64,
}

impl Learners {
    /// Those of a journey, as of these models and what they learn from these logs.
    ///
    /// # Errors
    /// When a file can't be read, a model is of no slot of the journey or of other features, or the journey has no learner.
    pub fn load(path: &Path, models: &[PathBuf], train: &[PathBuf]) -> Result<Learners> {
        let journey = journey_file::load(path)?;
        if journey.learners.is_empty() {
            bail!("the journey {} chooses nowhere: no rule has `choose`", path.display());
        }
        let mut pupils: Vec<Option<Pupil>> = journey.learners.iter().map(|_| None).collect();
        for path in models {
            give_models(&journey, &mut pupils, path)?;
        }
        for path in train {
            let mut log = LogFile::open(path)?;
            while let Some(decision) = log.next_decision()? {
                teach(&journey, &mut pupils, &decision)?;
            }
        }
        #[cfg(test)]
        let states = pupils
            .iter()
            .map(|pupil| pupil.as_ref().map(|pupil| pupil.state.clone()))
            .collect();
        let models = pupils.into_iter().zip(&journey.learners).map(|(pupil, learner)| {
            pupil.map(|pupil| ModelSnapshot::new(&pupil.state, &learner.layout, &learner.learner))
        });
        Ok(Learners {
            models: models.collect(),
            #[cfg(test)]
            states,
            journey,
        })
    }

    /// What they know, as `usher models export` writes it.
    #[cfg(test)]
    pub fn exported(&self) -> String {
        let known = self.journey.learners.iter().zip(&self.states);
        let lines = known.filter_map(|(learner, state)| Some(model_file::to_json(&learner.slot, state.as_ref()?)));
        lines.map(|line| line + "\n").collect()
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

/// Gives the learners what is in a file of models: one a line.
fn give_models(journey: &Journey, pupils: &mut [Option<Pupil>], path: &Path) -> Result<()> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the models {name}; give a file that `usher models export` wrote"))?;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (slot, state) = model_file::from_json(line).with_context(|| format!("{name}, line {}", index + 1))?;
        let Some(place) = journey.learners.iter().position(|learner| learner.slot == slot) else {
            bail!("{name} has a model of the slot {slot}, in which the journey chooses nowhere");
        };
        let learner = &journey.learners[place];
        if (state.layout(), state.dimension()) != (learner.layout.fingerprint(), learner.layout.dimension()) {
            bail!(
                "the model of {slot} in {name} has learned other features than the journey's learner sees; --train teaches it anew \
                 from a log"
            );
        }
        let snapshot = ModelSnapshot::new(&state, &learner.layout, &learner.learner);
        pupils[place] = Some(Pupil::new(state, snapshot));
    }
    Ok(())
}

impl Pupil {
    fn new(state: SlotState, snapshot: ModelSnapshot) -> Pupil {
        Pupil {
            state,
            snapshot,
            outcomes: 0,
            next_look: FIRST_LOOK_OUTCOMES,
        }
    }
}

/// Lets the learner of the decision's slot learn from what came of it.
fn teach(journey: &Journey, pupils: &mut [Option<Pupil>], decision: &LoggedDecision) -> Result<()> {
    let Some(index) = journey
        .learners
        .iter()
        .position(|learner| learner.slot == decision.slot)
    else {
        return Ok(());
    };
    let learner = &journey.learners[index];
    let chosen = decision
        .candidates
        .iter()
        .find(|candidate| candidate.content == decision.offer);
    let reward = decision.reward.filter(|_| decision.settled && !decision.held_out);
    let (Some(chosen), Some(reward)) = (chosen, reward) else {
        return Ok(());
    };
    if reads_context(&learner.learner.algorithm) {
        all_logged(learner, decision)?;
    }
    let pupil = pupils[index].get_or_insert_with(|| {
        Pupil::new(
            SlotState::new(&learner.layout, learner.half_life_ms),
            learner.prior.clone(),
        )
    });
    let context = learner
        .layout
        .context(|name| value_of(&decision.context, name), pupil.snapshot.standards());
    let content = learner.layout.content(|name| value_of(&chosen.features, name));
    let at = decision.decided_at.parse();
    pupil.state.learn(
        &learner.layout,
        &Outcome {
            arm: &decision.offer,
            context: &context,
            content: &content,
            reward,
            previous: None,
            at: at.with_context(|| format!("the decision {} has no time", decision.trigger_id))?,
        },
    );
    pupil.outcomes += 1;
    if pupil.outcomes >= pupil.next_look {
        pupil.next_look = 2 * pupil.outcomes;
        pupil.snapshot = ModelSnapshot::new(&pupil.state, &learner.layout, &learner.learner);
    }
    Ok(())
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
