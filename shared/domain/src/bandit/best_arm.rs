//! How likely each arm is to be the best: the probabilities of Thompson sampling.
//!
//! Each arm's mean reward is normal, independent of the others', so arm a is the best with probability ∫ f_a(t) ∏_{b≠a} F_b(t) dt.
//! It is summed over a grid: in each interval, the mass that a has there times the share of every other that is below the
//! interval's middle. Since the choice is then drawn from these very numbers, the logged propensity is exactly the one that was
//! used, whatever the grid leaves out; the finer the grid, the closer it is to Thompson's. The grid is bounded:
//! [`NODES_MAX`] nodes, so that the cost per arm is, too.

/// Nodes spread evenly over where the best may be.
const EVEN_NODES: usize = 16;
/// Nodes around each of the best arms, in standard deviations.
const NODES_AROUND: [f32; 7] = [-1.8, -1.0, -0.4, 0.0, 0.4, 1.0, 1.8];
/// Arms that have nodes around them: those of the highest means.
const ARMS_WITH_NODES: usize = 2;
/// The length of the interval for the mass of an arm without doubt, as a share of the grid's; and the doubt up to which it
/// counts as none.
const STEP_SHARE: f32 = 1e-6;
/// Intervals of the grid.
const INTERVALS: usize = EVEN_NODES + ARMS_WITH_NODES * (NODES_AROUND.len() + 1);
/// Nodes of the grid; the last one stands there twice where that takes another.
pub const NODES_MAX: usize = INTERVALS + 1;
/// Standard deviations beyond which a normal has no mass.
const REACH: f64 = 4.0;
/// Numbers that are summed up side by side.
const LANES: usize = 4;

/// Something for each interval.
type OfIntervals = [f32; INTERVALS];

/// The normal distribution function to six digits, by the error function's approximation 7.1.28 of Abramowitz and Stegun. It
/// is made of nothing but sums and products, so a processor works on several at once, and each gives the same.
fn normal(deviations: f32) -> f32 {
    const COEFFICIENTS: [f32; 6] = [
        0.070_523_08,
        0.042_282_01,
        0.009_270_527,
        0.000_152_014_3,
        0.000_276_567_2,
        0.000_043_063_8,
    ];
    let reach = REACH as f32;
    let x = deviations.clamp(-reach, reach).abs() * std::f32::consts::FRAC_1_SQRT_2;
    let [a, b, c, d, e, f] = COEFFICIENTS;
    let sum = 1.0 + x * (a + x * (b + x * (c + x * (d + x * (e + x * f)))));
    let to_2 = sum * sum;
    let to_4 = to_2 * to_2;
    let to_8 = to_4 * to_4;
    let tail = 0.5 / (to_8 * to_8);
    if deviations < 0.0 { tail } else { 1.0 - tail }
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
    // The arms that can be the best at all, with the grid from 0 to 1.
    let length = high - low;
    let is_running = |(mean, spread): &(f64, f64)| mean + REACH * spread >= low;
    let running: Vec<(f32, f32)> = arms
        .iter()
        .filter(|arm| is_running(arm))
        .map(|(mean, spread)| (((mean - low) / length) as f32, (spread / length) as f32))
        .collect();
    let nodes = nodes(&running);

    // By arm and interval: its mass there, over the share of it that is below the interval's middle.
    let mut shares: Vec<OfIntervals> = Vec::with_capacity(running.len());
    let mut all_below: OfIntervals = [1.0; INTERVALS];
    for (mean, spread) in &running {
        let mut below = [0.0; NODES_MAX];
        if *spread > STEP_SHARE {
            let per_unit = 1.0 / spread;
            for (share, node) in below.iter_mut().zip(&nodes) {
                *share = normal((node - mean) * per_unit);
            }
        } else {
            // Without doubt it is a step, which belongs to the interval that begins there.
            for (share, node) in below.iter_mut().zip(&nodes) {
                *share = if node > mean { 1.0 } else { 0.0 };
            }
        }
        // What is beyond the grid belongs to its ends.
        below[0] = 0.0;
        below[NODES_MAX - 1] = 1.0;
        let mut of_arm: OfIntervals = [0.0; INTERVALS];
        for interval in 0..INTERVALS {
            let (from, to) = (below[interval], below[interval + 1]);
            let middle = 0.5 * (from + to);
            all_below[interval] *= middle;
            of_arm[interval] = (to - from) / middle.max(f32::MIN_POSITIVE);
        }
        shares.push(of_arm);
    }
    let mut of_running = shares
        .iter()
        .map(|shares| f64::from(sum_of_products(shares, &all_below)));
    let mut probabilities: Vec<f64> = arms
        .iter()
        .map(|arm| match is_running(arm) {
            true => of_running.next().unwrap_or(0.0).max(0.0),
            false => 0.0,
        })
        .collect();
    let total: f64 = probabilities.iter().sum();
    if !(total > 0.0 && total.is_finite()) {
        return even_over(arms, |(mean, _)| *mean >= highest);
    }
    for probability in &mut probabilities {
        *probability /= total;
    }
    probabilities
}

fn sum_of_products(one: &OfIntervals, other: &OfIntervals) -> f32 {
    let mut sums = [0.0; LANES];
    for (one, other) in one.as_chunks::<LANES>().0.iter().zip(other.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            sums[lane] += one[lane] * other[lane];
        }
    }
    sums.iter().sum()
}

const _: () = assert!(INTERVALS.is_multiple_of(LANES), "no interval is left out of a sum");

/// The grid from 0 to 1, in order.
fn nodes(arms: &[(f32, f32)]) -> [f32; NODES_MAX] {
    let mut nodes = [1.0; NODES_MAX];
    for (step, node) in nodes.iter_mut().take(EVEN_NODES).enumerate() {
        *node = step as f32 / (EVEN_NODES - 1) as f32;
    }
    let mut first: Option<usize> = None;
    let mut rest = nodes[EVEN_NODES..].iter_mut();
    for _ in 0..ARMS_WITH_NODES {
        let others = (0..arms.len()).filter(|index| Some(*index) != first);
        let Some(best) = others.max_by(|a, b| arms[*a].0.total_cmp(&arms[*b].0)) else {
            break;
        };
        let (mean, spread) = arms[best];
        let around = NODES_AROUND.iter().map(|at| (mean + at * spread).clamp(0.0, 1.0));
        // An arm without doubt has all of its mass in the interval that begins at its mean: a short one.
        let step = (mean + STEP_SHARE).clamp(0.0, 1.0);
        for (node, at) in rest.by_ref().zip(around.chain([step])) {
            *node = at;
        }
        first = Some(best);
    }
    nodes.sort_unstable_by(f32::total_cmp);
    nodes
}

/// Evenly over the arms that are in.
pub(super) fn even_over<T>(arms: &[T], is_in: impl Fn(&T) -> bool) -> Vec<f64> {
    let count = arms.iter().filter(|arm| is_in(arm)).count().max(1);
    arms.iter()
        .map(|arm| if is_in(arm) { 1.0 / count as f64 } else { 0.0 })
        .collect()
}
