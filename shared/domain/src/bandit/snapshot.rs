//! A model as decisions read it: everything that can be computed before a decision comes is.

use hashbrown::HashMap;

use crate::bandit::best_arm;
use crate::bandit::context::{Content, Context, Layout, Standards};
use crate::bandit::fixed_point::value;
use crate::bandit::learner::{Algorithm, Learner, Scope};
use crate::bandit::limits::{CANDIDATES_MAX, EXPLORATION_MAX};
use crate::bandit::linear_model::{LinearModel, Models, fit, narrowed};
use crate::bandit::matrix::dot;
use crate::bandit::state::SlotState;
use crate::bandit::statistics::Statistics;
use crate::hash::hash_parts;

/// The largest score that is told apart from a larger one: no sum of scores overflows.
const SCORE_MAX: f64 = 1e100;

/// A content that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'c> {
    /// The content's id.
    pub arm: &'c str,
    /// Its own features, for the shared model.
    pub content: &'c Content,
    /// The user's imported score of it, for [`Algorithm::Scores`].
    pub score: Option<f64>,
}

/// What a candidate came to in a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The reward that is expected of it here; with [`Algorithm::Scores`] its score, and 0 without one.
    pub mean: f64,
    /// The standard deviation of that, which is doubt and not noise.
    pub spread: f64,
    /// How likely it was to be chosen.
    pub probability: f64,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Which of the candidates.
    pub index: usize,
    /// How likely it was to be chosen: exactly the probability that it was drawn with.
    pub propensity: f64,
    /// All candidates' scores, in their order.
    pub scores: Vec<Score>,
}

/// The learner of a slot, as of some state.
#[derive(Clone, Debug)]
pub struct ModelSnapshot {
    learner: Learner,
    layout: Layout,
    version: u64,
    /// The layout that its state was learned under.
    learned_layout: u32,
    standards: Standards,
    models: Models,
    arms: HashMap<String, usize>,
}

impl ModelSnapshot {
    /// Computes what decisions need. A state of another layout counts as none.
    pub fn new(state: &SlotState, layout: &Layout, learner: &Learner) -> ModelSnapshot {
        let is_of_layout = state.layout() == layout.fingerprint() && state.dimension() == layout.dimension();
        let (names, statistics): (Vec<&String>, Vec<&Statistics>) = match is_of_layout {
            true => state.arms().iter().unzip(),
            false => (Vec::new(), Vec::new()),
        };
        let mut total = Statistics::new(layout.dimension());
        for arm in &statistics {
            total.merge(arm);
        }
        let scale = if learner.reward_scale.is_finite() {
            learner.reward_scale
        } else {
            1.0
        };
        let shared_dimension = layout.shared_dimension().filter(|_| learner.scope() == Scope::Shared);
        let models = match shared_dimension {
            Some(dimension) => {
                let shared: Vec<&Statistics> = state.shared().filter(|_| is_of_layout).into_iter().collect();
                fit(&shared, dimension, true, |_| true, scale)
            }
            None => {
                let is_number = |place| layout.is_number(place);
                fit(
                    &statistics,
                    layout.dimension(),
                    learner.uses_context(),
                    is_number,
                    scale,
                )
            }
        };
        ModelSnapshot {
            learner: learner.clone(),
            layout: layout.clone(),
            version: state.version(),
            learned_layout: state.layout(),
            standards: Standards::of(&total),
            models,
            arms: names
                .into_iter()
                .enumerate()
                .map(|(index, name)| (name.clone(), index))
                .collect(),
        }
    }

    /// Which state it was made of, to be logged with each decision.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether it can choose for this layout by what was learned under it.
    pub fn is_of(&self, layout: &Layout) -> bool {
        self.layout.fingerprint() == layout.fingerprint() && self.learned_layout == layout.fingerprint()
    }

    /// For [`Layout::context`].
    pub fn standards(&self) -> &Standards {
        &self.standards
    }

    /// The variance of a reward that the model leaves unexplained.
    pub fn noise(&self) -> f64 {
        self.models.noise
    }

    /// How strongly arms' own weights for the context are shrunk, in outcomes: 10⁹ when the context makes no difference between
    /// them.
    pub fn shrinkage(&self) -> f64 {
        self.models.precision
    }

    /// Chooses one of the candidates; none when there is none. The same snapshot, context, candidates (in their order) and seed
    /// give the same choice (P7). Only the first [`CANDIDATES_MAX`] are looked at.
    pub fn choose(&self, context: &Context, candidates: &[Candidate<'_>], seed: u128) -> Option<Choice> {
        let candidates = &candidates[..candidates.len().min(CANDIDATES_MAX)];
        if candidates.is_empty() {
            return None;
        }
        let scores = self.scores(context, candidates);
        let index = drawn(&scores, seed);
        Some(Choice {
            index,
            propensity: scores[index].probability,
            scores,
        })
    }

    /// What every candidate comes to.
    pub fn scores(&self, context: &Context, candidates: &[Candidate<'_>]) -> Vec<Score> {
        let arms = self.means_and_spreads(context, candidates);
        let mut probabilities = self.probabilities(&arms, candidates);
        let mut floor = share(self.learner.floor);
        if let Algorithm::EpsilonGreedy { epsilon, .. } = self.learner.algorithm {
            floor = floor.max(share(epsilon));
        }
        let even = floor / candidates.len() as f64;
        for probability in &mut probabilities {
            *probability = even + (1.0 - floor) * *probability;
        }
        let score = |((mean, spread), probability): (&(f64, f64), f64)| Score {
            mean: *mean,
            spread: *spread,
            probability,
        };
        arms.iter().zip(probabilities).map(score).collect()
    }

    fn means_and_spreads(&self, context: &Context, candidates: &[Candidate<'_>]) -> Vec<(f64, f64)> {
        if self.learner.algorithm == Algorithm::Scores {
            let scores = candidates.iter().map(score_of);
            return scores.map(|score| (score.unwrap_or(0.0), 0.0)).collect();
        }
        if self.learner.scope() == Scope::Shared && self.layout.shared_dimension().is_some() {
            return self.shared_means_and_spreads(context, candidates);
        }
        let mut numbers = with_constant(context.units());
        numbers.resize(self.layout.dimension() + 1, 0.0);
        let narrowed = narrowed(&numbers);
        candidates
            .iter()
            .map(|candidate| {
                let known = self
                    .arms
                    .get(candidate.arm)
                    .and_then(|index| self.models.arms.get(*index));
                let model = known.unwrap_or(&self.models.unknown);
                bounded(model.mean(&numbers), model.spread(&narrowed))
            })
            .collect()
    }

    /// Of the shared model. A candidate's mean and doubt are linear in its own numbers, so what a unit of each comes to in this
    /// context is worked out once, and a candidate costs no more than it has numbers of its own.
    fn shared_means_and_spreads(&self, context: &Context, candidates: &[Candidate<'_>]) -> Vec<(f64, f64)> {
        let model = self.models.arms.first().unwrap_or(&self.models.unknown);
        let directions = self.layout.directions(&self.layout.factors(context));
        let worth: Vec<f64> = directions.iter().map(|direction| model.mean(direction)).collect();
        let products = products_of_doubt(model, &directions);
        let own = |candidate: &Candidate<'_>, place: usize| {
            candidate.content.units().get(place).map_or(0.0, |units| value(*units))
        };
        let count = directions.len();
        let numbers: Vec<f64> = candidates
            .iter()
            .flat_map(|candidate| (0..count).map(move |place| own(candidate, place)))
            .collect();
        // What all candidates have in common makes no difference between them, so neither does the doubt of it.
        let middle: Vec<f64> = (0..count)
            .map(|place| numbers.iter().skip(place).step_by(count).sum::<f64>() / candidates.len() as f64)
            .collect();
        let mut contrast = vec![0.0; count];
        (0..candidates.len())
            .map(|candidate| {
                let own = &numbers[candidate * count..][..count];
                for (contrast, (own, middle)) in contrast.iter_mut().zip(own.iter().zip(&middle)) {
                    *contrast = own - middle;
                }
                let rows = products.chunks_exact(count).zip(&contrast);
                let variance: f64 = rows.map(|(row, number)| number * dot(row, &contrast)).sum();
                bounded(model.constant() + dot(&worth, own), variance.max(0.0).sqrt())
            })
            .collect()
    }

    /// How likely each would be without the floor.
    fn probabilities(&self, arms: &[(f64, f64)], candidates: &[Candidate<'_>]) -> Vec<f64> {
        match &self.learner.algorithm {
            Algorithm::LinUcb(_) => {
                let optimism = factor(self.learner.optimism);
                best_only(arms, |(mean, spread)| mean + optimism * spread)
            }
            Algorithm::EpsilonGreedy { .. } => best_only(arms, |(mean, _)| *mean),
            Algorithm::LinearThompson(_) | Algorithm::Thompson => {
                let temperature = factor(self.learner.temperature);
                let cooled: Vec<(f64, f64)> = arms
                    .iter()
                    .map(|(mean, spread)| (*mean, spread * temperature))
                    .collect();
                best_arm::probabilities(&cooled)
            }
            Algorithm::Scores => {
                let scores: Vec<f64> = candidates
                    .iter()
                    .map(|candidate| score_of(candidate).unwrap_or(f64::NEG_INFINITY))
                    .collect();
                best_only(&scores, |score| *score)
            }
            Algorithm::FixedSplit(weights) => {
                let weight = |candidate: &Candidate<'_>| {
                    let weight = weights.get(candidate.arm).copied().unwrap_or(1.0);
                    if weight.is_finite() {
                        weight.clamp(0.0, SCORE_MAX)
                    } else {
                        0.0
                    }
                };
                let total: f64 = candidates.iter().map(weight).sum();
                match total > 0.0 {
                    true => candidates.iter().map(|candidate| weight(candidate) / total).collect(),
                    false => best_arm::even_over(candidates, |_| true),
                }
            }
        }
    }
}

/// A candidate's imported score, where it is one.
fn score_of(candidate: &Candidate<'_>) -> Option<f64> {
    let score = candidate.score.filter(|score| !score.is_nan())?;
    Some(score.clamp(-SCORE_MAX, SCORE_MAX))
}

/// The arms of the highest score, evenly.
fn best_only<T>(arms: &[T], score: impl Fn(&T) -> f64) -> Vec<f64> {
    let best = arms.iter().map(&score).fold(f64::NEG_INFINITY, f64::max);
    best_arm::even_over(arms, |arm| score(arm) >= best)
}

/// A setting that must be a share.
fn share(setting: f64) -> f64 {
    if setting.is_nan() {
        0.0
    } else {
        setting.clamp(0.0, EXPLORATION_MAX)
    }
}

/// A setting that doubt is multiplied by.
fn factor(setting: f64) -> f64 {
    const FACTOR_MAX: f64 = 1e6;
    if setting.is_nan() {
        1.0
    } else {
        setting.clamp(0.0, FACTOR_MAX)
    }
}

fn bounded(mean: f64, spread: f64) -> (f64, f64) {
    let bound = |number: f64| {
        if number.is_nan() {
            0.0
        } else {
            number.clamp(-SCORE_MAX, SCORE_MAX)
        }
    };
    (bound(mean), bound(spread).max(0.0))
}

fn with_constant(units: &[i64]) -> Vec<f64> {
    std::iter::once(1.0)
        .chain(units.iter().map(|units| value(*units)))
        .collect()
}

/// The products of the doubts of each two directions, by rows: doubt is a length, so they tell that of any sum of the
/// directions.
fn products_of_doubt(model: &LinearModel, directions: &[Vec<f64>]) -> Vec<f64> {
    let doubt = |direction: &Vec<f64>| {
        let doubt = model.doubt(&narrowed(direction));
        doubt.iter().map(|part| f64::from(*part)).collect::<Vec<f64>>()
    };
    let doubts: Vec<Vec<f64>> = directions.iter().map(doubt).collect();
    doubts
        .iter()
        .flat_map(|one| doubts.iter().map(move |other| dot(one, other)))
        .collect()
}

/// Draws by the probabilities. The seed is mixed first, since the same one may have drawn a holdout or an experiment's arm.
fn drawn(scores: &[Score], seed: u128) -> usize {
    const MANTISSA_BITS: u32 = 53;
    let hash = hash_parts(&[b"choose", &seed.to_le_bytes()]) as u64;
    let at = (hash >> (u64::BITS - MANTISSA_BITS)) as f64 / (1u64 << MANTISSA_BITS) as f64;
    let total: f64 = scores.iter().map(|score| score.probability).sum();
    let mut left = at * total;
    for (index, score) in scores.iter().enumerate() {
        left -= score.probability;
        if left < 0.0 {
            return index;
        }
    }
    // Rounding took it past the end: the last that can be chosen.
    scores.iter().rposition(|score| score.probability > 0.0).unwrap_or(0)
}
