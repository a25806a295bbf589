//! Bounds for a mean that hold whatever the distribution, from few and heavy-tailed numbers alike.
//!
//! To bet against "the mean is at most m", with X ≥ 0, is to hold the wealth ∏(1 + f·(Xᵢ/m − 1)) for some 0 < f < 1: if the
//! mean is m at most, it doesn't grow on average, so it ever reaches 1/δ with probability δ at most (Ville). The m at which it
//! does is a lower bound with confidence 1 − δ, at all numbers of rows at once, so looking again and again is allowed. The
//! wealth is the average over bets f of many sizes, which needs no guess of the variance. Nothing is asked of X but that it
//! isn't negative: a heavy tail above can only keep the bound low.
//!
//! Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2023; for importance weights
//! Waudby-Smith, Wu, Ramdas, Karampatziakis, Mineiro, "Anytime-valid off-policy inference for contextual bandits", 2022, and
//! Karampatziakis, Mineiro, Ramdas, "Off-policy confidence sequences", 2021. The average over fixed bets is the mixture (or
//! hedged) variant, which doesn't depend on the rows' order.

/// Sizes of bets, each a third of the one before.
const BETS: usize = 14;
const LARGEST_BET: f64 = 0.75;
const BET_RATIO: f64 = 1.0 / 3.0;
/// Halvings of the range in which a bound is looked for: it is found to 10⁻¹⁵ of it.
const HALVINGS: usize = 50;

/// A lower bound for the mean of numbers that are never negative, with this confidence. Without any it is 0.
///
/// Numbers that are negative or none at all make it 0, too: they break what it rests on.
pub fn lower_bound(numbers: &[f64], confidence: f64) -> f64 {
    let sum: f64 = numbers.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) || numbers.iter().any(|number| number.is_nan() || *number < 0.0) {
        return 0.0;
    }
    // Equal numbers, zeros above all, are many.
    let counts = counted(numbers);
    let threshold = -libm::log((1.0 - confidence).clamp(f64::MIN_POSITIVE, 1.0));
    let (mut low, mut high) = (0.0, sum / numbers.len() as f64);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if middle > 0.0 && log_wealth(&counts, middle) < threshold {
            high = middle;
        } else {
            low = middle;
        }
    }
    low
}

/// An interval for the mean of numbers that are never below `least` nor above `most`, with this confidence.
pub fn interval(numbers: &[f64], least: f64, most: f64, confidence: f64) -> (f64, f64) {
    let one_sided = one_sided(confidence);
    let above: Vec<f64> = numbers.iter().map(|number| (number - least).max(0.0)).collect();
    let below: Vec<f64> = numbers.iter().map(|number| (most - number).max(0.0)).collect();
    let low = (least + lower_bound(&above, one_sided)).min(most);
    let high = (most - lower_bound(&below, one_sided)).max(least);
    (low, high)
}

/// The confidence of each of two bounds that hold together with this one.
pub(super) fn one_sided(confidence: f64) -> f64 {
    1.0 - (1.0 - confidence) / 2.0
}

fn counted(numbers: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut counts: Vec<(f64, f64)> = Vec::new();
    for number in sorted {
        match counts.last_mut() {
            Some((last, count)) if *last == number => *count += 1.0,
            _ => counts.push((number, 1.0)),
        }
    }
    counts
}

/// The logarithm of the wealth against the mean being `mean` at most.
fn log_wealth(counts: &[(f64, f64)], mean: f64) -> f64 {
    let mut logs = [0.0; BETS];
    let mut bet = LARGEST_BET;
    for log in &mut logs {
        *log = counts
            .iter()
            .map(|(number, count)| count * libm::log1p(bet * (number / mean - 1.0)))
            .sum();
        bet *= BET_RATIO;
    }
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::INFINITY {
        return largest;
    }
    let average = logs.iter().map(|log| libm::exp(log - largest)).sum::<f64>() / BETS as f64;
    largest + libm::log(average)
}
