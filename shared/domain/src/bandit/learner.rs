//! Which learner a slot has, and how it is set.

use std::collections::BTreeMap;

/// What the arms' models are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each arm has weights of its own for the context, which start from what all arms have in common.
    PerArm,
    /// One model of the contents' features and of what each is worth in which context; arms without any look alike.
    Shared,
}

/// How an arm is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Algorithm {
    /// The arm that is best by its upper confidence bound (Li et al. 2010).
    LinUcb(Scope),
    /// Each arm as often as it is likely to be the best in this context (Agrawal and Goyal 2013).
    LinearThompson(Scope),
    /// Each arm as often as it is likely to be the best, the context left aside.
    Thompson,
    /// The arm that is best by its mean, but this share of decisions evenly over all.
    EpsilonGreedy {
        /// The share that explores.
        epsilon: f64,
        /// What the means are made of.
        scope: Scope,
    },
    /// Each arm in proportion to its weight, whatever came of it. An arm without one has weight 1.
    FixedSplit(BTreeMap<String, f64>),
    /// The arm of the highest score that was imported for this user, whatever came of it. One without a score comes last.
    Scores,
}

impl Algorithm {
    /// What it is called in journeys and decisions.
    pub fn name(&self) -> &'static str {
        match self {
            Algorithm::LinUcb(_) => "linucb",
            Algorithm::LinearThompson(_) => "linear_thompson",
            Algorithm::Thompson => "thompson",
            Algorithm::EpsilonGreedy { .. } => "epsilon_greedy",
            Algorithm::FixedSplit(_) => "fixed_split",
            Algorithm::Scores => "scores",
        }
    }
}

/// A learner and its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    /// How an arm is chosen.
    pub algorithm: Algorithm,
    /// The share of decisions that goes evenly over all candidates, so that every one keeps a known chance and any other policy
    /// can be judged on what was logged.
    pub floor: f64,
    /// Standard deviations by which LinUCB is optimistic.
    pub optimism: f64,
    /// What Thompson sampling multiplies standard deviations by. Below 1 it explores less than its doubt would have it, which
    /// pays when there are many more decisions in the doubt than are yet to come.
    pub temperature: f64,
    /// About the largest reward that one offer brings: the doubt before anything came of any offer.
    pub reward_scale: f64,
}

impl Learner {
    /// The defaults of an algorithm, the same for any data.
    pub fn new(algorithm: Algorithm) -> Learner {
        let is_linear = matches!(algorithm, Algorithm::LinearThompson(_));
        Learner {
            algorithm,
            floor: FLOOR_DEFAULT,
            optimism: OPTIMISM_DEFAULT,
            temperature: if is_linear {
                LINEAR_TEMPERATURE_DEFAULT
            } else {
                TEMPERATURE_DEFAULT
            },
            reward_scale: 1.0,
        }
    }

    /// Whether what came of offers makes a difference to it.
    pub fn learns(&self) -> bool {
        !matches!(self.algorithm, Algorithm::FixedSplit(_) | Algorithm::Scores)
    }

    /// Whether the models are to look at the context.
    pub(super) fn uses_context(&self) -> bool {
        !matches!(
            self.algorithm,
            Algorithm::Thompson | Algorithm::FixedSplit(_) | Algorithm::Scores
        )
    }

    /// What the models are to be made of.
    pub(super) fn scope(&self) -> Scope {
        match &self.algorithm {
            Algorithm::LinUcb(scope) | Algorithm::LinearThompson(scope) => *scope,
            Algorithm::EpsilonGreedy { scope, .. } => *scope,
            Algorithm::Thompson | Algorithm::FixedSplit(_) | Algorithm::Scores => Scope::PerArm,
        }
    }
}

/// See [`Learner::floor`].
pub const FLOOR_DEFAULT: f64 = 0.005;
/// See [`Learner::optimism`].
pub const OPTIMISM_DEFAULT: f64 = 1.25;
/// See [`Learner::temperature`]: of a model with a context, whose doubt is that of many weights at once.
pub const LINEAR_TEMPERATURE_DEFAULT: f64 = 0.4;
/// See [`Learner::temperature`]: without a context.
pub const TEMPERATURE_DEFAULT: f64 = 1.0;
