//! Choosing: which of a rule's candidates its slot's learner takes, and what it knew.
//!
//! A candidate is a content that is eligible and not cooling down. The slot's model scores all of them in the user's
//! context and one is drawn by the trigger's id: so planning the same record again chooses the same (P7), and how likely
//! each one was is known exactly. Where there is no model that can be read, the learner chooses as if it had learned nothing.

use super::consider::{allowed, checked_conditions_of_content};
use super::{Look, RuleOutcome};
use crate::bandit::context::{Content as OwnFeatures, Context};
use crate::bandit::limits::CANDIDATES_MAX;
use crate::bandit::snapshot::{Candidate, Choice as Drawn, ModelSnapshot, Score};
use crate::condition::{Scope, shown};
use crate::journey::{Content, ContentSource, Journey, Rule, SlotLearner};
use crate::limits::{CANDIDATES_SHOWN_MAX, CHOICE_BYTES_MAX};
use crate::offers::SeenByLearner;
use crate::policy;
use crate::snapshots::{SlotModel, Snapshots};
use crate::time::Timestamp;
use crate::trigger::{Choice, ChosenFrom, Fallback, SeenValue, TriggerId};
use crate::value::Value;

/// Bytes of a candidate's three numbers as they are stored.
const NUMBERS_BYTES: usize = 27;

/// What a rule offers.
pub(super) struct Offered {
    /// The content's index in the journey.
    pub content: usize,
    /// How likely it was to be offered.
    pub propensity: f64,
    /// How it was chosen.
    pub choice: Box<Choice>,
}

/// The learner that chooses for a rule, where one does.
pub(super) fn learner_of<'j>(journey: &'j Journey, rule: &Rule) -> Option<&'j SlotLearner> {
    journey.learners.get(rule.learner?)
}

/// Whether a content may be offered to the user as a look goes by its conditions.
pub(super) fn is_eligible(scope: &Scope<'_>, look: Look, content: &Content) -> bool {
    let (when, unless) = checked_conditions_of_content(content, look);
    allowed(scope, when, unless) == Ok(true)
}

/// Until when a content is not offered again, where that is after the moment.
fn cooling_until(scope: &Scope<'_>, content: usize) -> Option<Timestamp> {
    // Nearly always nothing was offered before.
    if scope.profile.offers.is_empty() {
        return None;
    }
    policy::content_cooling_until(scope.journey, scope.profile, content, scope.now)
}

/// Why there is nothing that a rule with these offers could make, where there is not.
pub(super) fn refusal(scope: &Scope<'_>, look: Look, offers: &[usize]) -> Option<RuleOutcome> {
    let mut refusal = RuleOutcome::ContentIneligible;
    for index in offers {
        let Some(content) = scope.journey.contents.get(*index) else {
            continue;
        };
        if !is_eligible(scope, look, content) {
            continue;
        }
        match cooling_until(scope, *index) {
            None => return None,
            Some(_) => refusal = RuleOutcome::ContentCoolingDown,
        }
    }
    Some(refusal)
}

/// Chooses for a rule that fires; nothing where no candidate is left, which [`refusal`] told.
pub(super) fn choose(
    scope: &Scope<'_>,
    look: Look,
    rule: &Rule,
    learner: &SlotLearner,
    trigger: TriggerId,
) -> Option<Offered> {
    let candidates: Vec<usize> = rule
        .offers
        .iter()
        .copied()
        .filter(|index| {
            let content = scope.journey.contents.get(*index);
            content.is_some_and(|content| is_eligible(scope, look, content)) && cooling_until(scope, *index).is_none()
        })
        .collect();
    let weighed = Weighed::of(scope, learner, candidates, trigger.0)?;
    Some(Offered {
        content: weighed.chosen(),
        propensity: weighed.drawn.propensity,
        choice: Box::new(weighed.choice(scope.journey, learner)),
    })
}

/// Candidates as a slot's model sees them for a user.
struct Weighed<'s> {
    /// Their indices in the journey's contents.
    candidates: Vec<usize>,
    /// The values of the context, in the layout's order.
    values: Vec<Option<Value<'s>>>,
    context: Context,
    /// The values of each candidate's own features, those of one after those of the other.
    own_values: Vec<Option<Value<'s>>>,
    own: Vec<OwnFeatures>,
    model_version: Option<u64>,
    fallback: Option<Fallback>,
    drawn: Drawn,
}

impl<'s> Weighed<'s> {
    /// Nothing where there is no candidate.
    fn of(scope: &Scope<'s>, learner: &SlotLearner, mut candidates: Vec<usize>, seed: u128) -> Option<Weighed<'s>> {
        candidates.truncate(CANDIDATES_MAX);
        let (model, fallback) = model(learner, scope.snapshots);
        let values: Vec<Option<Value<'s>>> = learner.context.iter().map(|value| scope.read(&value.slot)).collect();
        let context = learner.layout.context_of(&values, model.standards());
        let mut own_values = Vec::with_capacity(candidates.len() * learner.contents.len());
        let mut own = Vec::with_capacity(candidates.len());
        for index in &candidates {
            let first = own_values.len();
            own_values.extend(learner.contents.iter().map(|value| own_value(scope, *index, &value.of)));
            own.push(learner.layout.content_of(&own_values[first..]));
        }
        let contents = &scope.journey.contents;
        let known: Vec<Candidate<'_>> = candidates
            .iter()
            .zip(&own)
            .map(|(index, own)| Candidate {
                arm: contents.get(*index).map_or("", |content| content.id.as_str()),
                content: own,
                score: score(scope, *index).as_ref().and_then(number),
            })
            .collect();
        let drawn = model.choose(&context, &known, seed)?;
        Some(Weighed {
            candidates,
            values,
            context,
            own_values,
            own,
            model_version: learner
                .learner
                .learns()
                .then(|| model.version())
                .filter(|_| fallback.is_none()),
            fallback,
            drawn,
        })
    }

    /// The index of the chosen content.
    fn chosen(&self) -> usize {
        self.candidates[self.drawn.index]
    }

    /// A candidate's own features, for people.
    fn features(&self, place: usize, learner: &SlotLearner) -> Vec<SeenValue> {
        let count = learner.contents.len();
        let own = self.own_values.iter().skip(place * count);
        let named = learner.contents.iter().zip(own);
        named
            .map(|(named, value)| SeenValue {
                name: named.name.clone(),
                json: shown(value.as_ref()),
            })
            .collect()
    }

    /// What a decision says of it (P8).
    fn choice(mut self, journey: &Journey, learner: &SlotLearner) -> Choice {
        let id = |place: usize| {
            let content = self
                .candidates
                .get(place)
                .and_then(|index| journey.contents.get(*index));
            content.map_or("", |content| content.id.as_str())
        };
        let mut room = CHOICE_BYTES_MAX;
        let mut fits = |bytes: usize| {
            let fits = bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        // What was chosen is always told, and what is known of it before anything else.
        let _ = fits(id(self.drawn.index).len() + NUMBERS_BYTES);
        let of_chosen = fits(bytes_of(&self.features(self.drawn.index, learner)));
        let named = learner.context.iter().zip(&self.values);
        let context = named
            .map(|(named, value)| SeenValue {
                name: named.name.clone(),
                json: shown(value.as_ref()),
            })
            .filter(|seen| fits(seen.name.len() + seen.json.len()))
            .collect();
        let mut told: Vec<usize> = (0..self.candidates.len()).collect();
        if told.len() > CANDIDATES_SHOWN_MAX {
            let scores = &self.drawn.scores;
            let is_chosen = |place: usize| place == self.drawn.index;
            // Stable: of those that are as likely, the first.
            told.sort_by(|one, other| {
                let by_choice = is_chosen(*other).cmp(&is_chosen(*one));
                by_choice.then(scores[*other].probability.total_cmp(&scores[*one].probability))
            });
            told.truncate(CANDIDATES_SHOWN_MAX);
            told.sort_unstable();
        }
        told.retain(|place| *place == self.drawn.index || fits(id(*place).len() + NUMBERS_BYTES));
        let candidates: Vec<ChosenFrom> = told
            .iter()
            .map(|place| {
                let features = self.features(*place, learner);
                let is_told = match *place == self.drawn.index {
                    true => of_chosen,
                    false => fits(bytes_of(&features)),
                };
                let score = &self.drawn.scores[*place];
                ChosenFrom {
                    content: id(*place).to_owned(),
                    probability: score.probability,
                    mean: score.mean,
                    spread: score.spread,
                    features: if is_told { features } else { Vec::new() },
                }
            })
            .collect();
        Choice {
            learner: learner.learner.algorithm.name().to_owned(),
            fallback: self.fallback,
            candidates_left_out: self.candidates.len() - candidates.len(),
            seen: SeenByLearner {
                layout: learner.layout.fingerprint(),
                context: self.context,
                content: self.own.swap_remove(self.drawn.index),
                model_version: self.model_version,
            },
            context,
            candidates,
        }
    }
}

fn bytes_of(seen: &[SeenValue]) -> usize {
    seen.iter().map(|seen| seen.name.len() + seen.json.len()).sum()
}

/// The model that chooses for a slot, and why it is not the slot's own, where it is not. A learner that does nothing with
/// what it learned needs none.
fn model<'s>(learner: &'s SlotLearner, snapshots: &'s Snapshots) -> (&'s ModelSnapshot, Option<Fallback>) {
    if !learner.learner.learns() {
        return (&learner.prior, None);
    }
    match snapshots.models.of(&learner.slot) {
        Some(SlotModel::Ready(model)) if model.is_of(&learner.layout) => (model, None),
        // What was learned under another layout is of no use here.
        Some(SlotModel::Ready(_)) | None => (&learner.prior, Some(Fallback::Missing)),
        Some(SlotModel::Unreadable) => (&learner.prior, Some(Fallback::Unreadable)),
    }
}

/// The value of a candidate's own feature.
fn own_value<'s>(scope: &Scope<'s>, content: usize, of: &ContentSource) -> Option<Value<'s>> {
    match of {
        ContentSource::Attribute(name) => {
            let attributes = &scope.journey.contents.get(content)?.attributes;
            let (_, value) = attributes.iter().find(|(known, _)| known == name)?;
            Some(Value::from(value))
        }
        ContentSource::Trend(trend) => {
            let trend = scope.journey.trends.get(*trend)?;
            let id = &scope.journey.contents.get(content)?.id;
            let count = scope.snapshots.trends.count(trend, id, scope.now);
            Some(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
        }
        ContentSource::Score => score(scope, content),
    }
}

/// The user's imported score of a content.
fn score<'s>(scope: &Scope<'s>, content: usize) -> Option<Value<'s>> {
    let index = scope.journey.contents.get(content)?.score?;
    let known = scope.profile.traits.get(index)?.as_ref()?;
    Some(Value::from(&known.value))
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

// ---- for people

/// How a rule's learner would choose.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceStanding {
    /// The learner's name, such as `linear_thompson`.
    pub learner: &'static str,
    /// The version of the slot's model; none where it is not what chooses.
    pub model_version: Option<u64>,
    /// Why the slot's model would not choose.
    pub fallback: Option<Fallback>,
    /// The context's values, by name.
    pub context: Vec<SeenValue>,
    /// What it would choose from, and what it would not, in the journey's order.
    pub candidates: Vec<CandidateStanding>,
}

/// How a candidate stands.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateStanding {
    /// Its index in the journey's contents.
    pub content: usize,
    /// Why it is none now.
    pub refused: Option<Refused>,
    /// What the learner makes of it, where it is one.
    pub score: Option<Score>,
}

/// Why a content is no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its conditions stand in the way.
    Ineligible,
    /// It was offered not long ago: until then.
    CoolingUntil(Timestamp),
}

/// How the learner of a rule would choose at a look, where one does.
pub(super) fn standing(scope: &Scope<'_>, look: Look, rule: &Rule) -> Option<ChoiceStanding> {
    let learner = learner_of(scope.journey, rule)?;
    let refused = |index: &usize| match scope.journey.contents.get(*index) {
        Some(content) if is_eligible(scope, look, content) => cooling_until(scope, *index).map(Refused::CoolingUntil),
        _ => Some(Refused::Ineligible),
    };
    let mut candidates: Vec<CandidateStanding> = rule
        .offers
        .iter()
        .map(|index| CandidateStanding {
            content: *index,
            refused: refused(index),
            score: None,
        })
        .collect();
    let eligible = candidates.iter().filter(|candidate| candidate.refused.is_none());
    let eligible: Vec<usize> = eligible.map(|candidate| candidate.content).collect();
    // The scores are the same whatever is drawn.
    let weighed = Weighed::of(scope, learner, eligible, 0);
    if let Some(weighed) = &weighed {
        for (index, score) in weighed.candidates.iter().zip(&weighed.drawn.scores) {
            let of_content = candidates.iter_mut().find(|candidate| candidate.content == *index);
            if let Some(candidate) = of_content {
                candidate.score = Some(*score);
            }
        }
    }
    let (model, fallback) = model(learner, scope.snapshots);
    let context = learner.context.iter().map(|value| SeenValue {
        name: value.name.clone(),
        json: shown(scope.read(&value.slot).as_ref()),
    });
    Some(ChoiceStanding {
        learner: learner.learner.algorithm.name(),
        model_version: (learner.learner.learns() && fallback.is_none()).then(|| model.version()),
        fallback,
        context: context.collect(),
        candidates,
    })
}

#[cfg(test)]
mod tests;
