//! How much better one group fares than another, at every look at a growing log.
//!
//! One bets that the treated fare better than under a mean m₁ and the control worse than under a mean m₀, or the other way round: a row
//! x of a group multiplies the wealth by 1 + f·(x/m − 1) or by 1 + f·((1 − x)/(1 − m) − 1), 0 < f < 1. If m₁ and m₀ are the true
//! means, that changes nothing on average, so the wealth ever reaches 1/α with probability α at most (Ville): the pairs (m₁, m₀)
//! against which it stayed below 1/α hold the true one with confidence 1 − α at all looks at once, and their differences m₁ − m₀ are a
//! confidence sequence for the lift. Against "no difference" the evidence is the least wealth with m₁ = m₀; one over it is a
//! p-value that holds whenever one looks. Nothing is asked of the rewards but their range.
//!
//! The bets are for standardised differences of many sizes, both ways, and the wealth is their average. What a size means in rewards,
//! and how the bet is shared between the groups, follows from the rows before: their mean, their spread and the control's
//! share, taken anew each time their number has doubled. So the wealth is a function of counts, and cheap to look at again.
//!
//! Every factor is log-convex in the means, so the least wealth along a line is found by golden section and the ends by halving.
//!
//! Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2023; wealths of two groups multiplied:
//! Turner, Ly, Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", Journal of
//! Statistical Planning and Inference 2024.

use std::collections::BTreeMap;

use super::{Interval, Verdict};

/// Standardised differences that are bet on: the largest, and how many, each half of the one before. The smallest takes some
/// 100,000 rows in each group to be told at all.
const LARGEST_SIZE: f64 = 1.5;
const SIZES: usize = 8;
const SIZE_RATIO: f64 = 0.5;
/// Ways to bet: the treated fare better, or worse.
const WAYS: usize = 2;
/// The largest share of the wealth that is bet on one row.
const BET_MAX: f64 = 0.75;
/// Rows until the bets are set by what they were, for the first time.
const FIRST_EPOCH_ROWS: f64 = 64.0;
/// Rows that each guess begins with.
const PRIOR_ROWS: f64 = 8.0;
/// The mean, and the control's share, before any row.
const PRIOR_GUESS: f64 = 0.5;
/// The least standard deviation that is guessed, as a share of the rewards' range.
const SPREAD_LEAST: f64 = 1e-3;
/// Halvings in which an end of an interval is found: to 10⁻⁸ of the rewards' range.
const HALVINGS: usize = 27;
/// Steps of the golden section: to 10⁻⁷ of where it began; near its least the wealth is flat.
const GOLDEN_STEPS: usize = 34;
const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
/// How close to the ends of the range a mean may come, as a share of it.
const MEAN_MARGIN: f64 = 1e-12;

/// What two groups tell of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lift {
    /// The mean of those who were treated less that of the control.
    pub difference: f64,
    /// Where the true difference is, with the confidence that was asked for, at every look at once.
    pub interval: Interval,
    /// By which factor a bet against "there is no difference" has grown; below 1 it has lost.
    pub evidence: f64,
    /// The probability to ever see so much evidence without a difference, at most.
    pub p: f64,
    /// Whether being treated is better.
    pub verdict: Verdict,
}

/// Two groups, told apart by chance, whose rows come one after the other.
#[derive(Clone, Debug)]
pub struct Comparison {
    least: f64,
    width: f64,
    epochs: Vec<Epoch>,
    /// Of the treated and of the control.
    totals: [Total; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    rows: f64,
    sum: f64,
    squares: f64,
}

/// Rows for which the same bets were set.
#[derive(Clone, Debug)]
struct Epoch {
    /// Of the treated and of the control: how often each reward was, by the bits of its share of the range.
    counts: [BTreeMap<u64, f64>; 2],
    /// What a size of 1 is in f where the treated are expected to fare better, and where they are expected to fare worse.
    bets: [[f64; 2]; WAYS],
}

const TREATED: usize = 0;
const CONTROL: usize = 1;

impl Comparison {
    /// Groups whose rewards are never below `least` nor above `most`, which must be known beforehand; none where that is no
    /// range.
    pub fn new(least: f64, most: f64) -> Option<Comparison> {
        let width = most - least;
        (width > 0.0 && width.is_finite()).then(|| Comparison {
            least,
            width,
            epochs: Vec::new(),
            totals: [Total::default(); 2],
        })
    }

    /// Adds the next row. Rows come in the order of time, the same at each look. A reward outside of the range is left out,
    /// which is told.
    #[must_use]
    pub fn add(&mut self, is_treated: bool, reward: f64) -> bool {
        let share = (reward - self.least) / self.width;
        if !(0.0..=1.0).contains(&share) {
            return false;
        }
        let rows = self.totals[TREATED].rows + self.totals[CONTROL].rows;
        if self.epochs.len() as u32 <= epochs_before(rows) {
            self.epochs.push(Epoch {
                counts: Default::default(),
                bets: self.bets(),
            });
        }
        let group = if is_treated { TREATED } else { CONTROL };
        if let Some(epoch) = self.epochs.last_mut() {
            // So that −0 is 0.
            *epoch.counts[group].entry((share + 0.0).to_bits()).or_default() += 1.0;
        }
        let total = &mut self.totals[group];
        total.rows += 1.0;
        total.sum += share;
        total.squares += share * share;
        true
    }

    /// How many were treated, and how many are the control.
    pub fn rows(&self) -> (usize, usize) {
        (self.totals[TREATED].rows as usize, self.totals[CONTROL].rows as usize)
    }

    /// The mean of the treated, and of the control; none without any.
    pub fn means(&self) -> (Option<f64>, Option<f64>) {
        let mean = |total: &Total| (total.rows > 0.0).then(|| self.least + self.width * total.sum / total.rows);
        (mean(&self.totals[TREATED]), mean(&self.totals[CONTROL]))
    }

    /// What they tell so far; none while a group is empty.
    pub fn lift(&self, confidence: f64) -> Option<Lift> {
        let (Some(treated), Some(control)) = self.means() else {
            return None;
        };
        let difference = treated - control;
        let threshold = -libm::log((1.0 - confidence).clamp(f64::MIN_POSITIVE, 1.0));
        let counts = self.counted();
        let middle = (difference / self.width).clamp(-1.0 + MEAN_MARGIN, 1.0 - MEAN_MARGIN);
        let interval = Interval {
            low: (self.width * end(&counts, middle, -1.0, threshold)).min(difference),
            high: (self.width * end(&counts, middle, 1.0, threshold)).max(difference),
        };
        let log_evidence = least_wealth(&counts, 0.0);
        Some(Lift {
            difference,
            interval,
            evidence: libm::exp(log_evidence),
            p: libm::exp(-log_evidence).min(1.0),
            verdict: if interval.low > 0.0 {
                Verdict::Better
            } else if interval.high < 0.0 {
                Verdict::Worse
            } else {
                Verdict::CannotTell
            },
        })
    }

    /// The bets for the rows to come, by what came before. For a difference of size 1, that is of one standard deviation σ, a
    /// group's row is worth λ = s/σ per unit, s the other group's share: then both groups push against a common mean alike.
    fn bets(&self) -> [[f64; 2]; WAYS] {
        let [treated, control] = &self.totals;
        let rows = treated.rows + control.rows + PRIOR_ROWS;
        let control_share = (control.rows + PRIOR_ROWS * PRIOR_GUESS) / rows;
        let mean = (treated.sum + control.sum + PRIOR_ROWS * PRIOR_GUESS) / rows;
        let squares = (treated.squares + control.squares + PRIOR_ROWS * PRIOR_GUESS) / rows;
        let spread = (squares - mean * mean).max(0.0).sqrt().max(SPREAD_LEAST);
        let worth = [control_share / spread, (1.0 - control_share) / spread];
        [
            [worth[TREATED] * mean, worth[CONTROL] * (1.0 - mean)],
            [worth[TREATED] * (1.0 - mean), worth[CONTROL] * mean],
        ]
    }

    fn counted(&self) -> Vec<Counted> {
        let of = |counts: &BTreeMap<u64, f64>| -> Vec<(f64, f64)> {
            let counts = counts.iter();
            counts.map(|(bits, count)| (f64::from_bits(*bits), *count)).collect()
        };
        let epochs = self.epochs.iter();
        epochs
            .map(|epoch| Counted {
                counts: [of(&epoch.counts[TREATED]), of(&epoch.counts[CONTROL])],
                bets: epoch.bets,
            })
            .collect()
    }
}

/// How many times the bets were set before the row with this number, counted from 0.
fn epochs_before(rows: f64) -> u32 {
    let mut end = FIRST_EPOCH_ROWS;
    let mut epochs = 0;
    while rows >= end {
        end /= SIZE_RATIO;
        epochs += 1;
    }
    epochs
}

/// An [`Epoch`] for arithmetic: rewards as shares of their range, and how often each was.
struct Counted {
    counts: [Vec<(f64, f64)>; 2],
    bets: [[f64; 2]; WAYS],
}

/// The logarithm of the least wealth over means that differ by this much.
fn least_wealth(epochs: &[Counted], difference: f64) -> f64 {
    let wealth = |control: f64| log_wealth(epochs, [control + difference, control]);
    let mut low = (-difference).max(0.0) + MEAN_MARGIN;
    let mut high = (1.0 - difference).min(1.0) - MEAN_MARGIN;
    let inner = |low: f64, high: f64| {
        let step = GOLDEN_RATIO * (high - low);
        (high - step, low + step)
    };
    let (mut left, mut right) = inner(low, high);
    let (mut at_left, mut at_right) = (wealth(left), wealth(right));
    for _ in 0..GOLDEN_STEPS {
        if at_left <= at_right {
            high = right;
            (right, at_right) = (left, at_left);
            left = inner(low, high).0;
            at_left = wealth(left);
        } else {
            low = left;
            (left, at_left) = (right, at_right);
            right = inner(low, high).1;
            at_right = wealth(right);
        }
    }
    at_left.min(at_right)
}

/// From the middle in this direction, where the wealth against a difference begins to be enough.
fn end(epochs: &[Counted], middle: f64, direction: f64, threshold: f64) -> f64 {
    let limit = direction * (1.0 - MEAN_MARGIN);
    if least_wealth(epochs, limit) < threshold {
        return direction;
    }
    let (mut inside, mut outside) = (middle, limit);
    for _ in 0..HALVINGS {
        let between = 0.5 * (inside + outside);
        if least_wealth(epochs, between) < threshold {
            inside = between;
        } else {
            outside = between;
        }
    }
    outside
}

/// The logarithm of the wealth against the groups having these means, as shares of the range.
fn log_wealth(epochs: &[Counted], means: [f64; 2]) -> f64 {
    let means = means.map(|mean| mean.clamp(MEAN_MARGIN, 1.0 - MEAN_MARGIN));
    let mut logs = [0.0; WAYS * SIZES];
    for epoch in epochs {
        for group in [TREATED, CONTROL] {
            let mean = means[group];
            for (share, count) in &epoch.counts[group] {
                let above = share / mean - 1.0;
                let below = (1.0 - share) / (1.0 - mean) - 1.0;
                // The treated are expected above, the control below, and the other way round.
                let gains = if group == TREATED {
                    [above, below]
                } else {
                    [below, above]
                };
                let mut size = LARGEST_SIZE;
                for pair in logs.chunks_exact_mut(WAYS) {
                    for way in 0..WAYS {
                        let bet = (size * epoch.bets[way][group]).min(BET_MAX);
                        pair[way] += count * libm::log1p(bet * gains[way]);
                    }
                    size *= SIZE_RATIO;
                }
            }
        }
    }
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    let average = logs.iter().map(|log| libm::exp(log - largest)).sum::<f64>() / logs.len() as f64;
    largest + libm::log(average)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_bytes;

    const CONFIDENCE: f64 = 0.95;
    const ALPHA: f64 = 1.0 - CONFIDENCE;

    /// Draws that follow from a seed.
    struct Draws(u64);

    impl Draws {
        fn next(&mut self) -> f64 {
            self.0 += 1;
            (hash_bytes(&self.0.to_le_bytes()) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// 0, 1 or 6: a click, and a click with a step done.
        fn reward(&mut self, rate: f64) -> f64 {
            match self.next() {
                draw if draw < rate / 10.0 => 6.0,
                draw if draw < rate => 1.0,
                _ => 0.0,
            }
        }
    }

    fn of(least: f64, most: f64, rows: impl IntoIterator<Item = (bool, f64)>) -> Comparison {
        let mut comparison = Comparison::new(least, most).unwrap();
        for (is_treated, reward) in rows {
            assert!(comparison.add(is_treated, reward));
        }
        comparison
    }

    /// Groups with so many rewards of 1 in so many rows, spread over the log.
    fn spread(treated: (usize, usize), control: (usize, usize)) -> Comparison {
        let rows = |is_treated: bool, (ones, rows): (usize, usize)| {
            let one = move |row: usize| (row + 1) * ones / rows > row * ones / rows;
            (0..rows).map(move |row| (row as f64 / rows as f64, is_treated, f64::from(u8::from(one(row)))))
        };
        let mut all: Vec<_> = rows(true, treated).chain(rows(false, control)).collect();
        all.sort_by(|left, right| left.0.total_cmp(&right.0));
        of(
            0.0,
            1.0,
            all.into_iter().map(|(_, is_treated, reward)| (is_treated, reward)),
        )
    }

    #[test]
    fn a_difference_is_told_with_its_interval() {
        for (treated, control, difference, verdict) in [
            ((100, 1000), (50, 1000), 0.05, Verdict::Better),
            ((50, 1000), (100, 1000), -0.05, Verdict::Worse),
            ((100, 1000), (95, 1000), 0.005, Verdict::CannotTell),
            ((1000, 10000), (50, 500), 0.0, Verdict::CannotTell),
            ((700, 10000), (10, 500), 0.05, Verdict::Better),
            ((0, 1), (0, 1), 0.0, Verdict::CannotTell),
            ((1, 1), (0, 1), 1.0, Verdict::CannotTell),
            ((0, 100), (100, 100), -1.0, Verdict::Worse),
            ((50, 50), (50, 50), 0.0, Verdict::CannotTell),
        ] {
            let lift = spread(treated, control).lift(CONFIDENCE).unwrap();
            assert!((lift.difference - difference).abs() < 1e-12, "{lift:?}");
            assert!(
                lift.interval.low <= lift.difference && lift.difference <= lift.interval.high,
                "{lift:?}"
            );
            assert!(lift.interval.low >= -1.0 && lift.interval.high <= 1.0, "{lift:?}");
            assert_eq!(lift.verdict, verdict, "{treated:?} {control:?} {lift:?}");
            assert_eq!(
                lift.p < ALPHA,
                verdict != Verdict::CannotTell,
                "the test and the interval agree: {lift:?}"
            );
            assert!((lift.p - (1.0 / lift.evidence).min(1.0)).abs() < 1e-9, "{lift:?}");
        }
    }

    #[test]
    fn it_does_not_depend_on_the_unit_and_mirrors_when_groups_are_swapped() {
        let mut draws = Draws(3);
        let rows: Vec<(bool, f64)> = (0..400).map(|_| (draws.next() < 0.4, draws.reward(0.3))).collect();
        let lift = |least: f64, most: f64, row: &dyn Fn((bool, f64)) -> (bool, f64)| {
            of(least, most, rows.iter().map(|found| row(*found)))
                .lift(CONFIDENCE)
                .unwrap()
        };
        let plain = lift(0.0, 6.0, &|row| row);
        let near = |left: f64, right: f64| assert!((left - right).abs() < 1e-5, "{left} {right}");
        let scaled = lift(5.0, 65.0, &|(is_treated, reward)| (is_treated, 10.0 * reward + 5.0));
        near(scaled.interval.low, 10.0 * plain.interval.low);
        near(scaled.interval.high, 10.0 * plain.interval.high);
        let swapped = lift(0.0, 6.0, &|(is_treated, reward)| (!is_treated, reward));
        near(swapped.interval.low, -plain.interval.high);
        near(swapped.p, plain.p);
        let upside_down = lift(-6.0, 0.0, &|(is_treated, reward)| (is_treated, -reward));
        near(upside_down.interval.low, -plain.interval.high);
    }

    #[test]
    fn p10_what_can_not_be_compared_is_none() {
        for (least, most) in [(1.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            assert!(Comparison::new(least, most).is_none());
        }
        let mut comparison = Comparison::new(0.0, 1.0).unwrap();
        assert_eq!(comparison.lift(CONFIDENCE), None);
        for wrong in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
            assert!(!comparison.add(true, wrong));
        }
        assert!(comparison.add(true, 0.0) && comparison.add(true, -0.0));
        assert_eq!((comparison.rows(), comparison.means()), ((2, 0), (Some(0.0), None)));
        assert_eq!(comparison.lift(CONFIDENCE), None);
        assert!(comparison.add(false, 1.0) && comparison.lift(CONFIDENCE).is_some());
    }

    #[test]
    fn the_bets_of_a_row_follow_from_the_rows_before_it() {
        assert_eq!(
            [0.0, 63.0, 64.0, 127.0, 128.0, 255.0, 256.0].map(epochs_before),
            [0, 0, 1, 1, 2, 2, 3]
        );
        let comparison = spread((1_000, 10_000), (50, 500));
        assert_eq!(comparison.epochs.len(), 9);
        let mut other = spread((1_000, 10_000), (50, 500));
        assert!(other.add(true, 1.0));
        let bets = |comparison: &Comparison| comparison.epochs.iter().map(|epoch| epoch.bets).collect::<Vec<_>>();
        assert_eq!(bets(&comparison), bets(&other));
    }

    /// Looks after every row. Whether the interval excludes the true difference is first asked at the true means, where the
    /// wealth is never less than what decides, so that most looks are cheap.
    fn ever_excludes(draws: &mut Draws, rows: usize, rates: [f64; 2], control_share: f64) -> bool {
        const MOST: f64 = 6.0;
        let means = rates.map(|rate| (rate * 0.9 + rate * 0.1 * MOST) / MOST);
        let truth = (means[TREATED] - means[CONTROL]) * MOST;
        let mut comparison = Comparison::new(0.0, MOST).unwrap();
        for _ in 0..rows {
            let is_treated = draws.next() >= control_share;
            let rate = rates[if is_treated { TREATED } else { CONTROL }];
            assert!(comparison.add(is_treated, draws.reward(rate)));
            if log_wealth(&comparison.counted(), means) < -libm::log(ALPHA) {
                continue;
            }
            let Some(lift) = comparison.lift(CONFIDENCE) else {
                continue;
            };
            if truth < lift.interval.low || truth > lift.interval.high {
                return true;
            }
        }
        false
    }

    #[test]
    fn looking_after_every_row_raises_no_more_false_alarms_than_was_said() {
        const RUNS: usize = 200;
        let mut draws = Draws(17);
        for (rows, rates, control_share) in [
            // Nothing differs: a false alarm.
            (1_000, [0.1, 0.1], 0.5),
            (2_000, [0.1, 0.1], 0.05),
            (1_000, [0.02, 0.02], 0.1),
            (400, [0.7, 0.7], 0.3),
            // Something does: the interval holds it.
            (1_000, [0.3, 0.1], 0.2),
        ] {
            let alarms = (0..RUNS)
                .filter(|_| ever_excludes(&mut draws, rows, rates, control_share))
                .count();
            // 5 % of 200 are 10; there are some fewer, as no run is endless.
            assert!(alarms <= 10, "{rows} {rates:?} {control_share}: {alarms} of {RUNS}");
        }
    }

    #[test]
    fn a_difference_is_found_with_few_more_rows_than_a_test_without_peeking_needs() {
        const RUNS: usize = 100;
        let mut draws = Draws(23);
        for (rows, rates, control_share, found_least) in [
            // A test for one look finds these nearly always: z is 6.3 and 4.6 on average.
            (2_000, [0.2, 0.1], 0.5, 97),
            (8_000, [0.2, 0.1], 0.05, 85),
            // And this one in half of all: z is 2.
            (4_000, [0.12, 0.1], 0.5, 4),
        ] {
            let mut found = 0;
            for _ in 0..RUNS {
                let mut comparison = Comparison::new(0.0, 1.0).unwrap();
                for _ in 0..rows {
                    let is_treated = draws.next() >= control_share;
                    let rate = rates[if is_treated { TREATED } else { CONTROL }];
                    assert!(comparison.add(is_treated, f64::from(u8::from(draws.next() < rate))));
                }
                let lift = comparison.lift(CONFIDENCE).unwrap();
                found += usize::from(lift.verdict == Verdict::Better);
                assert_ne!(lift.verdict, Verdict::Worse);
            }
            assert!(
                found >= found_least,
                "{rows} {rates:?} {control_share}: {found} of {RUNS}"
            );
        }
    }
}
