//! Judging a policy by what another one logged, before people see it.
//!
//! Each logged decision says how likely its offer was (the propensity) and what came of it; the policy to be judged says how
//! likely it would have made the same offer. The ratio of the two is the row's weight. What the estimators make of it:
//!
//! | | formula, averaged over rows | |
//! |---|---|---|
//! | IPS | w·r | right on average, of high variance (Horvitz and Thompson 1952) |
//! | SNIPS | w·r / mean(w) | less variance, slightly biased (Swaminathan and Joachims 2015) |
//! | clipped IPS | min(w, M)·r | less variance, biased down (Bottou et al. 2013) |
//! | DR | q(x, π) + w·(r − q(x, a)) | right if the propensities or the reward model are (Dudík, Langford, Li 2011) |
//!
//! All four agree with those of the public package `obp` (see `obd/`). Intervals hold with weights however heavy and rows however
//! few, and for any number of looks (see [`betting`]).

pub mod betting;
pub mod lift;
#[cfg(test)]
mod tests;

use crate::off_policy::betting::{interval, lower_bound, one_sided};

/// Effective rows below which nothing should be read from the estimates.
pub const EFFECTIVE_ROWS_MIN: f64 = 200.0;
/// Share of all weight above which one row alone decides.
pub const ROW_SHARE_MAX: f64 = 0.05;
/// Standard errors by which the mean weight may be off 1.
const MEAN_WEIGHT_ERRORS_MAX: f64 = 4.0;
/// A share of weight that is off without any standard error telling: it is rounding of propensities.
const MEAN_WEIGHT_ROUNDING: f64 = 0.01;

/// A logged decision, as the policy to be judged sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggedDecision {
    /// What came of the offer.
    pub reward: f64,
    /// How likely the logged offer was.
    pub propensity: f64,
    /// How likely the policy to be judged would have made it.
    pub target: f64,
    /// The reward model's expectation for the logged offer; 0 without one.
    pub predicted: f64,
    /// The reward model's expectation under the policy to be judged: Σ target(a)·q(a), by [`expected_under`].
    pub expected: f64,
}

/// What is known beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The smallest reward that a decision can have.
    pub reward_least: f64,
    /// The largest one.
    pub reward_most: f64,
    /// The largest weight that clipped IPS takes.
    pub clip: f64,
    /// The least propensity that the logging policy can have given to anything: its exploration floor over the number of
    /// candidates. It bounds the weights, which makes intervals narrower; without one they hold all the same.
    pub propensity_least: Option<f64>,
    /// The confidence of intervals, such as 0.95.
    pub confidence: f64,
}

impl Default for Settings {
    /// Rewards from 0 to 1, weights to 10, 95 %.
    fn default() -> Settings {
        Settings {
            reward_least: 0.0,
            reward_most: 1.0,
            clip: 10.0,
            propensity_least: None,
            confidence: 0.95,
        }
    }
}

/// From where to where the true value is, with the confidence that was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Not below this.
    pub low: f64,
    /// Not above this.
    pub high: f64,
}

/// An estimate of the policy's mean reward per decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error as if the sample were large; too small when weights are heavy.
    pub standard_error: f64,
}

/// Whether the policy is better than the one that logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is, with the confidence that was asked for.
    Better,
    /// It is worse.
    Worse,
    /// The data can't tell.
    CannotTell,
}

/// Why the figures are to be read with care.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warning {
    /// The rows are worth no more than so many that had been logged under the policy itself.
    FewEffectiveRows {
        /// The effective sample size.
        effective: f64,
    },
    /// One row has this share of all weight.
    OneRowDecides {
        /// Its share.
        share: f64,
    },
    /// Weights average to this and not to 1: propensities are wrong, or the policy offers what was never offered.
    WeightsOffOne {
        /// Their mean.
        mean: f64,
    },
    /// So many rows had a propensity that is none, a target that is no probability or a reward outside of its range, and
    /// were left out.
    UnusableRows {
        /// How many.
        rows: usize,
    },
}

/// What the log tells of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rows that were used.
    pub rows: usize,
    /// What the logging policy earned.
    pub logged: Estimate,
    /// Inverse propensity scoring.
    pub ips: Estimate,
    /// The same, self-normalised.
    pub snips: Estimate,
    /// The same, with weights clipped.
    pub clipped: Estimate,
    /// Doubly robust.
    pub doubly_robust: Estimate,
    /// The policy's mean reward per decision, from weighted rewards.
    pub interval: Interval,
    /// The same from the doubly robust rows, where weights are bounded beforehand and predictions are within the rewards' range.
    pub doubly_robust_interval: Option<Interval>,
    /// How much more it earns than the logging policy. Only what is known of it: without a bound of the weights none above.
    pub gain: Interval,
    /// (Σw)² / Σw²: how many rows logged under the policy itself these are worth (Kish 1965).
    pub effective_rows: f64,
    /// The largest weight.
    pub weight_most: f64,
    /// Whether it is better.
    pub verdict: Verdict,
    /// What to mind.
    pub warnings: Vec<Warning>,
}

/// A reward model's expectation under a policy: Σ policy(a)·prediction(a).
pub fn expected_under(policy: &[f64], predictions: &[f64]) -> f64 {
    policy
        .iter()
        .zip(predictions)
        .map(|(share, prediction)| share * prediction)
        .sum()
}

/// Judges a policy by logged decisions; none where no row can be used.
pub fn evaluate(rows: &[LoggedDecision], settings: &Settings) -> Option<Report> {
    let (least, most) = (settings.reward_least, settings.reward_most);
    let range = most - least;
    let is_usable = |row: &&LoggedDecision| {
        row.propensity > 0.0
            && row.propensity <= 1.0
            && (0.0..=1.0).contains(&row.target)
            && row.reward >= least
            && row.reward <= most
            && row.predicted.is_finite()
            && row.expected.is_finite()
            && (row.target / row.propensity).is_finite()
    };
    let usable: Vec<&LoggedDecision> = rows.iter().filter(is_usable).collect();
    if usable.is_empty() || !(range > 0.0 && range.is_finite()) {
        return None;
    }
    let weights: Vec<f64> = usable.iter().map(|row| row.target / row.propensity).collect();
    let weighted = |of: &dyn Fn(&LoggedDecision, f64) -> f64| -> Vec<f64> {
        usable
            .iter()
            .zip(&weights)
            .map(|(row, weight)| of(row, *weight))
            .collect()
    };
    let mean_weight = mean(&weights);
    let ips = weighted(&|row, weight| weight * row.reward);
    let clip = if settings.clip > 0.0 {
        settings.clip
    } else {
        f64::INFINITY
    };
    let clipped = weighted(&|row, weight| weight.min(clip) * row.reward);
    let doubly_robust = weighted(&|row, weight| row.expected + weight * (row.reward - row.predicted));
    let snips_value = if mean_weight > 0.0 {
        mean(&ips) / mean_weight
    } else {
        0.0
    };
    // The ratio's residuals: the delta method.
    let residuals = weighted(&|row, weight| weight * (row.reward - snips_value));
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    let total: f64 = weights.iter().sum();
    let effective_rows = if squares > 0.0 { total * total / squares } else { 0.0 };
    let weight_most = weights.iter().copied().fold(0.0, f64::max);

    // A bound that the rows themselves break is none.
    let bound = settings
        .propensity_least
        .filter(|least| *least > 0.0)
        .map(|least| 1.0 / least);
    let bound = bound
        .filter(|bound| weight_most <= bound * (1.0 + MEAN_WEIGHT_ROUNDING))
        .map(|bound| bound.max(weight_most));

    let gains = weighted(&|row, weight| (weight - 1.0) * (row.reward - least));
    let gain = bounded_gain(&gains, range, bound, settings.confidence);
    let report = Report {
        rows: usable.len(),
        logged: estimate(&weighted(&|row, _| row.reward)),
        ips: estimate(&ips),
        snips: Estimate {
            value: snips_value,
            standard_error: if mean_weight > 0.0 {
                estimate(&residuals).standard_error / mean_weight
            } else {
                f64::INFINITY
            },
        },
        clipped: estimate(&clipped),
        doubly_robust: estimate(&doubly_robust),
        interval: value_interval(&usable, &weights, settings, bound),
        doubly_robust_interval: doubly_robust_interval(&usable, &doubly_robust, settings, bound),
        gain,
        effective_rows,
        weight_most,
        verdict: if gain.low > 0.0 {
            Verdict::Better
        } else if gain.high < 0.0 {
            Verdict::Worse
        } else {
            Verdict::CannotTell
        },
        warnings: warnings(rows.len() - usable.len(), &weights, effective_rows),
    };
    Some(report)
}

/// The policy's value V, from E[w·(r − least)] = V − least where everything the policy offers may have been logged. Where it may
/// not, the expectation is smaller, so the lower bound still holds; and so does the upper one, by E[w·(most − r)] ≤ most − V.
fn value_interval(rows: &[&LoggedDecision], weights: &[f64], settings: &Settings, bound: Option<f64>) -> Interval {
    let (least, most) = (settings.reward_least, settings.reward_most);
    let one_sided = one_sided(settings.confidence);
    let above: Vec<f64> = rows
        .iter()
        .zip(weights)
        .map(|(row, weight)| weight * (row.reward - least))
        .collect();
    let low = least + lower_bound(&above, one_sided);
    let high = match bound {
        // No row can be above this, so what it is below it is never negative.
        Some(bound) => {
            let reach = bound * (most - least);
            let below: Vec<f64> = above.iter().map(|number| (reach - number).max(0.0)).collect();
            least + reach - lower_bound(&below, one_sided)
        }
        None => {
            let below: Vec<f64> = rows
                .iter()
                .zip(weights)
                .map(|(row, weight)| weight * (most - row.reward))
                .collect();
            most - lower_bound(&below, one_sided)
        }
    };
    let low = low.min(most);
    Interval {
        low,
        high: high.clamp(low, most),
    }
}

fn doubly_robust_interval(
    rows: &[&LoggedDecision],
    numbers: &[f64],
    settings: &Settings,
    bound: Option<f64>,
) -> Option<Interval> {
    let range = settings.reward_least..=settings.reward_most;
    let is_within = |row: &&LoggedDecision| range.contains(&row.predicted) && range.contains(&row.expected);
    let bound = bound.filter(|_| rows.iter().all(is_within))?;
    let reach = bound * (settings.reward_most - settings.reward_least);
    let (least, most) = (settings.reward_least - reach, settings.reward_most + reach);
    let (low, high) = interval(numbers, least, most, settings.confidence);
    let low = low.clamp(settings.reward_least, settings.reward_most);
    Some(Interval {
        low,
        high: high.clamp(low, settings.reward_most),
    })
}

/// E[(w − 1)·(r − least)], from which the range can be taken but once, since w is at least 0.
fn bounded_gain(gains: &[f64], range: f64, bound: Option<f64>, confidence: f64) -> Interval {
    let one_sided = one_sided(confidence);
    let above: Vec<f64> = gains.iter().map(|gain| (gain + range).max(0.0)).collect();
    let low = lower_bound(&above, one_sided) - range;
    let high = match bound {
        Some(bound) => {
            let reach = (bound - 1.0).max(0.0) * range;
            let below: Vec<f64> = gains.iter().map(|gain| (reach - gain).max(0.0)).collect();
            (reach - lower_bound(&below, one_sided)).min(range)
        }
        None => range,
    };
    Interval {
        low,
        high: high.max(low),
    }
}

fn warnings(unusable: usize, weights: &[f64], effective: f64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if unusable > 0 {
        warnings.push(Warning::UnusableRows { rows: unusable });
    }
    if effective < EFFECTIVE_ROWS_MIN {
        warnings.push(Warning::FewEffectiveRows { effective });
    }
    let total: f64 = weights.iter().sum();
    let share = weights.iter().copied().fold(0.0, f64::max) / total;
    if share > ROW_SHARE_MAX {
        warnings.push(Warning::OneRowDecides { share });
    }
    let Estimate { value, standard_error } = estimate(weights);
    if (value - 1.0).abs() > MEAN_WEIGHT_ROUNDING.max(MEAN_WEIGHT_ERRORS_MAX * standard_error) {
        warnings.push(Warning::WeightsOffOne { mean: value });
    }
    warnings
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn estimate(numbers: &[f64]) -> Estimate {
    let value = mean(numbers);
    let squares: f64 = numbers.iter().map(|number| (number - value) * (number - value)).sum();
    let degrees = numbers.len().saturating_sub(1);
    let standard_error = match degrees {
        0 => f64::INFINITY,
        _ => (squares / degrees as f64 / numbers.len() as f64).sqrt(),
    };
    Estimate { value, standard_error }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const PERCENT: f64 = 100.0;
        match self {
            Warning::FewEffectiveRows { effective } => write!(
                formatter,
                "the rows are worth {effective:.0} of the policy's own, fewer than {EFFECTIVE_ROWS_MIN}: the log hardly shows what it would offer"
            ),
            Warning::OneRowDecides { share } => {
                write!(formatter, "one row has {:.0} % of all weight", share * PERCENT)
            }
            Warning::WeightsOffOne { mean } => write!(
                formatter,
                "weights average to {mean:.3} and not to 1: propensities are wrong, or the policy offers what was never offered"
            ),
            Warning::UnusableRows { rows } => write!(
                formatter,
                "{rows} rows were left out: a propensity or target that is no probability, or a reward outside of its range"
            ),
        }
    }
}
