//! How likely each arm is to be the best: the probabilities of Thompson sampling.
//!
//! Each arm's mean reward is normal, independent of the others', so arm a is the best with probability ∫ f_a(t) ∏_{b≠a} F_b(t) dt.
//! It is summed over a grid: in each interval, the mass that a has there times the share of every other that is below the
//! interval's middle. Since the choice is then drawn from these very numbers, the logged propensity is exactly the one that was
//! used, whatever the grid leaves out; the finer the grid, the closer it is to Thompson's. The grid is bounded: at most
//! [`NODES_MAX`] nodes, so that the cost per arm is, too.

use std::sync::LazyLock;

/// Nodes spread evenly over where the best may be.
const EVEN_NODES: usize = 15;
/// Nodes around each of the best arms, in standard deviations.
const NODES_AROUND: [f64; 7] = [-1.8, -1.0, -0.4, 0.0, 0.4, 1.0, 1.8];
/// Arms that have nodes around them: those of the highest means.
const ARMS_WITH_NODES: usize = 2;
/// The length of the interval for the mass of an arm without doubt, as a share of the grid's.
const STEP_SHARE: f64 = 1e-6;
/// Nodes of the grid.
pub const NODES_MAX: usize = EVEN_NODES + ARMS_WITH_NODES * (NODES_AROUND.len() + 1);
/// Standard deviations beyond which a normal has no mass.
const REACH: f64 = 4.0;
/// Steps of the table of the normal distribution function in a standard deviation.
const TABLE_STEPS: f64 = 64.0;
const TABLE_LEN: usize = 2 * (REACH as usize + 1) * TABLE_STEPS as usize + 2;

static NORMAL: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let from = -(TABLE_LEN as f64 / 2.0 - 1.0) / TABLE_STEPS;
    (0..TABLE_LEN)
        .map(|step| 0.5 * libm::erfc(-(from + step as f64 / TABLE_STEPS) / std::f64::consts::SQRT_2))
        .collect()
});

/// The normal distribution function, right to four digits.
fn normal(table: &[f64], deviations: f64) -> f64 {
    let at = (deviations.clamp(-REACH, REACH)) * TABLE_STEPS + (TABLE_LEN as f64 / 2.0 - 1.0);
    let step = at as usize;
    let part = at - step as f64;
    table[step] * (1.0 - part) + table[step + 1] * part
}

/// How likely each arm, with this mean and standard deviation, is to be the best. They are at least 0 and sum to 1.
pub(super) fn probabilities(arms: &[(f64, f64)]) -> Vec<f64> {
    let highest = arms.iter().map(|(mean, _)| *mean).fold(f64::NEG_INFINITY, f64::max);
    let low = arms
        .iter()
        .map(|(mean, spread)| mean - REACH * spread)
        .fold(f64::NEG_INFINITY, f64::max);
    let high = arms
        .iter()
        .map(|(mean, spread)| mean + REACH * spread)
        .fold(f64::NEG_INFINITY, f64::max);
    let low = low.min(highest);
    // Scores are bounded, so there is no NaN among these.
    if high - low <= (highest.abs() + 1.0) * f64::EPSILON {
        return even_over(arms, |(mean, _)| *mean >= highest);
    }
    let nodes = nodes(arms, low, high);
    let table = NORMAL.as_slice();
    let least = (high - low) * f64::EPSILON;

    // By arm: which arms can be the best at all, and below which share of them each node is.
    let running: Vec<usize> = (0..arms.len())
        .filter(|index| arms[*index].0 + REACH * arms[*index].1 >= low)
        .collect();
    let mut below = vec![0.0; running.len() * nodes.len()];
    for (index, row) in running.iter().zip(below.chunks_exact_mut(nodes.len())) {
        let (mean, spread) = arms[*index];
        let per_unit = 1.0 / spread.max(least);
        for (share, node) in row.iter_mut().zip(&nodes) {
            *share = match spread > least {
                true => normal(table, (node - mean) * per_unit),
                // Without doubt it is a step, which belongs to the interval that begins there.
                false => f64::from(u8::from(*node > mean)),
            };
        }
        // What is beyond the grid belongs to its ends.
        row[0] = 0.0;
        row[nodes.len() - 1] = 1.0;
    }
    let mut all_below = vec![1.0; nodes.len() - 1];
    for row in below.chunks_exact(nodes.len()) {
        for (product, ends) in all_below.iter_mut().zip(row.windows(2)) {
            *product *= 0.5 * (ends[0] + ends[1]);
        }
    }
    let mut probabilities = vec![0.0; arms.len()];
    let mut total = 0.0;
    for (index, row) in running.iter().zip(below.chunks_exact(nodes.len())) {
        let mut sum = 0.0;
        for (product, ends) in all_below.iter().zip(row.windows(2)) {
            let mass = ends[1] - ends[0];
            if mass > 0.0 {
                sum += mass * product / (0.5 * (ends[0] + ends[1]));
            }
        }
        probabilities[*index] = sum;
        total += sum;
    }
    if !(total > 0.0 && total.is_finite()) {
        return even_over(arms, |(mean, _)| *mean >= highest);
    }
    for probability in &mut probabilities {
        *probability /= total;
    }
    probabilities
}

fn nodes(arms: &[(f64, f64)], low: f64, high: f64) -> Vec<f64> {
    let mut nodes = Vec::with_capacity(NODES_MAX);
    nodes.extend((0..EVEN_NODES).map(|step| low + (high - low) * step as f64 / (EVEN_NODES - 1) as f64));
    let mut first: Option<usize> = None;
    for _ in 0..ARMS_WITH_NODES {
        let others = (0..arms.len()).filter(|index| Some(*index) != first);
        let Some(best) = others.max_by(|a, b| arms[*a].0.total_cmp(&arms[*b].0)) else {
            break;
        };
        let (mean, spread) = arms[best];
        nodes.extend(NODES_AROUND.iter().map(|at| (mean + at * spread).clamp(low, high)));
        // An arm without doubt has all of its mass in the interval that begins at its mean: a short one.
        nodes.push((mean + (high - low) * STEP_SHARE).min(high));
        first = Some(best);
    }
    nodes.sort_unstable_by(f64::total_cmp);
    nodes
}

/// Evenly over the arms that are in.
pub(super) fn even_over<T>(arms: &[T], is_in: impl Fn(&T) -> bool) -> Vec<f64> {
    let count = arms.iter().filter(|arm| is_in(arm)).count().max(1);
    arms.iter()
        .map(|arm| if is_in(arm) { 1.0 / count as f64 } else { 0.0 })
        .collect()
}
