//! Bayesian linear regression of the reward on the context, for all arms of a slot at once.
//!
//! The reward of arm a in the standardised context z is taken to be m + w·z + c_a + v_a·z, plus noise of variance σ². The mean m
//! and the weights w are what the arms have in common; the arm's own c_a ~ N(0, σ²/λ₀) and v_a ~ N(0, σ²/λ·I). How far arms
//! differ in what the context means to them, λ, and how far it means anything at all, the λ of w, are not settings: they are
//! those under which the data are likeliest (evidence, or type II maximum likelihood: MacKay 1992; Bishop 2006, section
//! 3.5), in doubt the one that keeps more of the context. So a context that tells nothing is shrunk away by itself, and the learner becomes one without context.

use crate::bandit::limits::BANDIT_DIMENSION_MAX;
use crate::bandit::matrix::{Triangle, dot};
use crate::bandit::statistics::{Statistics, packed};

/// The precision of an arm's own mean, in outcomes.
const INTERCEPT_PRECISION: f64 = 1.0;
/// Precisions of weights that are tried, in outcomes: from hardly shrunk to none at all.
const PRECISIONS: [f64; 13] = [1e9, 1e5, 3e4, 1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3];
/// What a 0 or 1 is divided by: its standard deviation when both come as often. A rarer one is not blown up.
const INDICATOR_SCALE: f64 = 0.5;
/// A number that varies less than this share of its mean doesn't vary.
const SPREAD_SHARE_MIN: f64 = 1e-5;
/// Standard deviation below which a number doesn't vary: a few units of 2⁻¹⁶.
const SPREAD_MIN: f64 = 1e-4;
/// How much less likely, as a logarithm, the data may be under weaker shrinkage for it to be taken nevertheless. Shrinking away
/// a context that matters costs for as long as the arms that would show it are not tried, and early data always look as if it
/// did not matter; keeping one that doesn't matter costs little, and only until the data say so this clearly.
const EVIDENCE_TOLERANCE: f64 = 10.0;
/// Outcomes that the prior guess of the noise counts as, and its variance for a reward from 0 to 1.
const NOISE_OUTCOMES: f64 = 1.0;
const NOISE_VARIANCE: f64 = 0.25;

/// The model of one arm: its mean and its doubt for a context, in the context's own units.
#[derive(Clone, Debug)]
pub(super) struct LinearModel {
    /// The constant first.
    weights: Vec<f64>,
    /// Columns of a lower triangle W such that the variance of the mean for (1, x) is |W·(1, x)|², [`TOGETHER`] at a time: each
    /// of those from the same row on ([`first_row`]) to the last one of [`Self::rows`].
    columns: Vec<f32>,
    /// Rows, with those that fill the last registers.
    rows: usize,
}

/// Columns that are gone through together: each sum is loaded and stored once for them all.
const TOGETHER: usize = 4;
/// Rows that are worked on side by side: columns are filled up to a multiple of this.
const ABREAST: usize = 8;
/// The most rows of a triangle.
const ROWS_MAX: usize = (BANDIT_DIMENSION_MAX + 1).next_multiple_of(ABREAST);

/// A context, the constant first, as doubt is computed from it: doubt needs no more than seven digits, and half the width is
/// half the time. What is beyond its numbers is 0.
pub(super) type Narrowed = [f32; ROWS_MAX];

/// [`Narrowed`] of these numbers.
pub(super) fn narrowed(context: &[f64]) -> Narrowed {
    std::array::from_fn(|place| context.get(place).copied().unwrap_or(0.0) as f32)
}

/// The row from which columns are kept: above the diagonal there is nothing.
fn first_row(column: usize) -> usize {
    column / ABREAST * ABREAST
}

/// What arms have in common, and how the context is standardised.
#[derive(Clone, Debug)]
struct Scales {
    means: Vec<f64>,
    /// 1 / the standard deviation, 0 for what doesn't vary.
    inverses: Vec<f64>,
}

/// The outcomes of an arm in standardised terms.
struct Standardised {
    count: f64,
    /// Means of the context and of the reward.
    means: Vec<f64>,
    /// Sums of squares around them; the reward is the last row.
    centred: Triangle,
}

/// Models for all arms, and for one that nothing is known of.
#[derive(Clone, Debug)]
pub(super) struct Models {
    pub arms: Vec<LinearModel>,
    pub unknown: LinearModel,
    /// The variance of the noise.
    pub noise: f64,
    /// The precision of arms' own weights.
    pub precision: f64,
}

/// Fits all arms. Without `uses_context` only their means are looked at.
pub(super) fn fit(
    arms: &[&Statistics],
    dimension: usize,
    uses_context: bool,
    is_number: impl Fn(usize) -> bool,
    reward_scale: f64,
) -> Models {
    let used = if uses_context { dimension } else { 0 };
    let mut total = Statistics::new(dimension);
    for arm in arms {
        total.merge(arm);
    }
    let scales = Scales::of(&total, used, is_number);
    let reward_mean = match total.count() > 0.0 {
        true => total.reward_sum() / total.count(),
        false => 0.0,
    };
    let mut standardised: Vec<Standardised> = arms
        .iter()
        .map(|arm| Standardised::of(arm, used, &scales, reward_mean))
        .collect();
    let prior_noise = NOISE_VARIANCE * reward_scale * reward_scale;

    let common = common_weights(&standardised, used, prior_noise);
    for arm in &mut standardised {
        arm.subtract(&common);
    }
    let normals: Vec<Normal> = standardised.iter().map(Normal::of).collect();
    let (precision, noise) = likeliest_precision(&normals, used, prior_noise);

    let finish = |normal: &Normal| {
        let (factor, own) = normal.posterior(precision);
        LinearModel::new(&factor, &own, &common, reward_mean, &scales, noise)
    };
    Models {
        arms: normals.iter().map(finish).collect(),
        unknown: finish(&Normal::empty(used)),
        noise,
        precision,
    }
}

impl Scales {
    fn of(total: &Statistics, used: usize, is_number: impl Fn(usize) -> bool) -> Scales {
        let count = total.count();
        let place = |place: usize| {
            if count <= 0.0 {
                return (0.0, 1.0);
            }
            let mean = total.entry(place, 0) / count;
            let variance = (total.entry(place, place) / count - mean * mean).max(0.0);
            let spread = variance.sqrt();
            match spread > SPREAD_MIN.max(mean.abs() * SPREAD_SHARE_MIN) {
                false => (mean, 0.0),
                true if is_number(place - 1) => (mean, 1.0 / spread),
                true => (mean, 1.0 / INDICATOR_SCALE),
            }
        };
        let (means, inverses) = (1..=used).map(place).unzip();
        Scales { means, inverses }
    }
}

impl Standardised {
    fn of(arm: &Statistics, used: usize, scales: &Scales, reward_mean: f64) -> Standardised {
        let count = arm.count();
        let mut means = vec![0.0; used + 1];
        let mut centred = Triangle::zero(used + 1);
        if count <= 0.0 {
            return Standardised {
                count: 0.0,
                means,
                centred,
            };
        }
        // The reward stands after all places, also those that are not used.
        let source = |index: usize| if index < used { index + 1 } else { arm.dimension() + 1 };
        let scale = |index: usize| scales.inverses.get(index).copied().unwrap_or(1.0);
        let raw: Vec<f64> = (0..=used).map(|index| arm.entry(source(index), 0) / count).collect();
        for row in 0..=used {
            let shift = scales.means.get(row).copied().unwrap_or(reward_mean);
            means[row] = (raw[row] - shift) * scale(row);
            for column in 0..=row {
                let sum = arm.entry(source(row), source(column)) - count * raw[row] * raw[column];
                let sum = if row == column { sum.max(0.0) } else { sum };
                centred.entries[packed(row, column)] = sum * scale(row) * scale(column);
            }
        }
        Standardised { count, means, centred }
    }

    /// Takes what the common weights explain out of the reward.
    fn subtract(&mut self, common: &[f64]) {
        let used = common.len();
        let explained: Vec<f64> = (0..used)
            .map(|row| {
                (0..used)
                    .map(|column| self.centred.symmetric(row, column) * common[column])
                    .sum()
            })
            .collect();
        let with_reward = dot(common, &self.centred.row(used)[..used]);
        let squares = self.centred.symmetric(used, used) - 2.0 * with_reward + dot(common, &explained);
        for (place, explained) in explained.iter().enumerate() {
            self.centred.entries[packed(used, place)] -= explained;
        }
        self.centred.set(used, used, squares.max(0.0));
        self.means[used] -= dot(common, &self.means[..used]);
    }
}

/// The normal equations of an arm: the constant first.
struct Normal {
    count: f64,
    matrix: Triangle,
    vector: Vec<f64>,
    squares: f64,
}

impl Normal {
    fn empty(used: usize) -> Normal {
        Normal {
            count: 0.0,
            matrix: Triangle::zero(used + 1),
            vector: vec![0.0; used + 1],
            squares: 0.0,
        }
    }

    fn of(arm: &Standardised) -> Normal {
        let used = arm.means.len() - 1;
        let mut normal = Normal::empty(used);
        let (count, reward) = (arm.count, arm.means[used]);
        normal.count = count;
        normal.matrix.set(0, 0, count);
        normal.vector[0] = count * reward;
        for row in 0..used {
            normal.matrix.set(row + 1, 0, count * arm.means[row]);
            normal.vector[row + 1] = arm.centred.row(used)[row] + count * reward * arm.means[row];
            for column in 0..=row {
                let sum = arm.centred.row(row)[column] + count * arm.means[row] * arm.means[column];
                normal.matrix.set(row + 1, column + 1, sum);
            }
        }
        normal.squares = arm.centred.symmetric(used, used) + count * reward * reward;
        normal
    }

    /// The factor of the posterior precision (over the noise), and the posterior mean.
    fn posterior(&self, precision: f64) -> (Triangle, Vec<f64>) {
        let factor = self
            .matrix
            .cholesky(|row| if row == 0 { INTERCEPT_PRECISION } else { precision });
        let mut mean = self.vector.clone();
        factor.solve(&mut mean);
        factor.solve_transposed(&mut mean);
        (factor, mean)
    }
}

/// The weights that all arms have in common, from how the reward varies with the context within each arm.
fn common_weights(arms: &[Standardised], used: usize, prior_noise: f64) -> Vec<f64> {
    let mut pooled = Normal {
        count: 0.0,
        matrix: Triangle::zero(used),
        vector: vec![0.0; used],
        squares: 0.0,
    };
    for arm in arms {
        pooled.count += arm.count;
        for (sum, more) in pooled.matrix.entries.iter_mut().zip(&arm.centred.entries) {
            *sum += more;
        }
        for (sum, more) in pooled.vector.iter_mut().zip(arm.centred.row(used)) {
            *sum += more;
        }
        pooled.squares += arm.centred.symmetric(used, used);
    }
    if used == 0 || pooled.count <= 0.0 {
        return vec![0.0; used];
    }
    let solve = |precision: f64| {
        let factor = pooled.matrix.cholesky(|_| precision);
        let mut weights = pooled.vector.clone();
        factor.solve(&mut weights);
        factor.solve_transposed(&mut weights);
        (factor, weights)
    };
    let mut best = (f64::NEG_INFINITY, vec![0.0; used]);
    for precision in PRECISIONS {
        let (factor, weights) = solve(precision);
        let complexity = factor.log_determinant() - used as f64 * libm::log(precision);
        let left = (pooled.squares - dot(&weights, &pooled.vector)).max(0.0);
        let evidence = log_evidence(complexity, left, pooled.count, prior_noise);
        if evidence > best.0 {
            best = (evidence, weights);
        }
    }
    best.1
}

/// The least precision of arms' own weights under which all outcomes are likely enough, and the variance of the noise then.
fn likeliest_precision(arms: &[Normal], used: usize, prior_noise: f64) -> (f64, f64) {
    let count: f64 = arms.iter().map(|arm| arm.count).sum();
    let mut likeliest = f64::NEG_INFINITY;
    let mut chosen = (PRECISIONS[0], prior_noise);
    let tried = if used == 0 { &PRECISIONS[..1] } else { &PRECISIONS[..] };
    for precision in tried.iter().copied() {
        let (mut complexity, mut left) = (0.0, 0.0);
        for arm in arms.iter().filter(|arm| arm.count > 0.0) {
            let (factor, mean) = arm.posterior(precision);
            complexity +=
                factor.log_determinant() - libm::log(INTERCEPT_PRECISION) - used as f64 * libm::log(precision);
            left += (arm.squares - dot(&mean, &arm.vector)).max(0.0);
        }
        let evidence = log_evidence(complexity, left, count, prior_noise);
        likeliest = likeliest.max(evidence);
        if evidence >= likeliest - EVIDENCE_TOLERANCE {
            let noise = (NOISE_OUTCOMES * prior_noise + left) / (NOISE_OUTCOMES + count);
            chosen = (precision, noise);
        }
    }
    chosen
}

/// The logarithm of the marginal likelihood, up to a constant, the noise integrated out (Bishop 2006, exercise 3.23).
fn log_evidence(complexity: f64, left: f64, count: f64, prior_noise: f64) -> f64 {
    -0.5 * complexity - 0.5 * (NOISE_OUTCOMES + count) * libm::log(NOISE_OUTCOMES * prior_noise + left)
}

impl LinearModel {
    fn new(
        factor: &Triangle,
        own: &[f64],
        common: &[f64],
        reward_mean: f64,
        scales: &Scales,
        noise: f64,
    ) -> LinearModel {
        let used = common.len();
        let inverse = factor.inverse();
        let sigma = noise.max(0.0).sqrt();
        let mut weights = vec![0.0; used + 1];
        weights[0] = reward_mean + own[0];
        for place in 0..used {
            let weight = (own[place + 1] + common[place]) * scales.inverses[place];
            weights[place + 1] = weight;
            weights[0] -= weight * scales.means[place];
        }
        let entry = |row: usize, column: usize| {
            if row > used || column > row {
                return 0.0;
            }
            let entries = inverse.row(row);
            let entry = match column.checked_sub(1) {
                Some(place) => entries[column] * scales.inverses[place],
                None => (0..row).fold(entries[0], |sum, place| {
                    sum - entries[place + 1] * scales.means[place] * scales.inverses[place]
                }),
            };
            (sigma * entry) as f32
        };
        let rows = (used + 1).next_multiple_of(ABREAST);
        let columns = (0..(used + 1).next_multiple_of(TOGETHER))
            .flat_map(|column| (first_row(column)..rows).map(move |row| (row, column)))
            .map(|(row, column)| entry(row, column))
            .collect();
        LinearModel { weights, columns, rows }
    }

    /// The mean where every number is 0.
    pub fn constant(&self) -> f64 {
        self.weights.first().copied().unwrap_or(0.0)
    }

    /// The mean for a context, the constant first.
    pub fn mean(&self, context: &[f64]) -> f64 {
        dot(&self.weights, context)
    }

    /// The standard deviation of that mean.
    pub fn spread(&self, context: &Narrowed) -> f64 {
        let mut sums = [0.0; TOGETHER];
        for parts in self.doubt(context).as_chunks::<TOGETHER>().0 {
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum += f64::from(*part) * f64::from(*part);
            }
        }
        sums.iter().sum::<f64>().sqrt()
    }

    /// W·(1, x), of which the length is the spread; it is linear in the context.
    pub fn doubt(&self, context: &Narrowed) -> Narrowed {
        let mut doubt = [0.0; ROWS_MAX];
        let mut columns = self.columns.as_slice();
        for (index, numbers) in context.as_chunks::<TOGETHER>().0.iter().enumerate() {
            let first = first_row(index * TOGETHER);
            let len = self.rows.saturating_sub(first);
            let Some((here, rest)) = columns.split_at_checked(TOGETHER * len) else {
                break;
            };
            columns = rest;
            let (one, here) = here.split_at(len);
            let (two, here) = here.split_at(len);
            let (three, four) = here.split_at(len);
            let sums = doubt[first..].iter_mut().zip(one).zip(two).zip(three).zip(four);
            for ((((sum, one), two), three), four) in sums {
                *sum += (one * numbers[0] + two * numbers[1]) + (three * numbers[2] + four * numbers[3]);
            }
        }
        doubt
    }
}
