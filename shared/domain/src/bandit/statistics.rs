//! What is kept of an arm's outcomes: sums, so that batches merge by adding.
//!
//! With y = (1, x₁ … x_d, r), a constant, the context and the reward, it is the sum of w·y·yᵀ over the outcomes, its lower
//! triangle packed by rows: the count, the sums of the context and of the reward, and all of their products. Everything that a
//! linear model needs follows from it, with the context standardised in whatever way is wanted later, since that is a linear
//! change of y.
//!
//! The sums are whole numbers, so without forgetting they are exactly the same in any order and however they were split. With
//! forgetting each halving rounds by at most half of a unit (of 2⁻³²), which the next one halves again, and an outcome that comes
//! a half-life late or more is rounded by itself: two orders differ in any sum by at most two units and one for each such
//! outcome, so by less than a thousandth of an outcome for a million of them.

use crate::bandit::fixed_point::{ONE, ONE_SQUARED, clamped};

/// What a weight of 1 counts as.
pub const WEIGHT_ONE_BITS: u32 = 16;

/// The sums of an arm, or of the shared model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    dimension: usize,
    sums: Vec<i128>,
}

/// Entries of the packed lower triangle of a matrix with so many rows.
pub(super) const fn packed_len(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// Where the entry is; `row` is at least `column`.
pub(super) const fn packed(row: usize, column: usize) -> usize {
    packed_len(row) + column
}

impl Statistics {
    /// Nothing yet, for contexts of so many numbers.
    pub fn new(dimension: usize) -> Statistics {
        Statistics {
            dimension,
            sums: vec![0; packed_len(dimension + 2)],
        }
    }

    /// The sums as they were stored; none when there are not as many as the dimension needs.
    pub fn from_sums(dimension: usize, sums: Vec<i128>) -> Option<Statistics> {
        (sums.len() == packed_len(dimension.checked_add(2)?)).then_some(Statistics { dimension, sums })
    }

    /// The packed sums, to be stored.
    pub fn sums(&self) -> &[i128] {
        &self.sums
    }

    /// Numbers of a context.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Adds an outcome. `context` and `reward` are in units of 2⁻¹⁶, `weight` in units of 2⁻¹⁶ too, and
    /// halved so many times.
    pub(super) fn add(&mut self, context: &[i64], reward: i64, weight: i64, halvings: u32) {
        let y = |index: usize| match index {
            0 => ONE,
            _ if index <= self.dimension => clamped(context.get(index - 1).copied().unwrap_or(0)),
            _ => clamped(reward),
        };
        let mut at = 0;
        for row in 0..self.dimension + 2 {
            let weighted = i128::from(y(row)) * i128::from(weight);
            for column in 0..=row {
                let product = weighted * i128::from(y(column));
                let sum = &mut self.sums[at];
                *sum = sum.saturating_add(halved(product, WEIGHT_ONE_BITS + halvings));
                at += 1;
            }
        }
    }

    /// Makes an outcome that was added with another reward one of this reward: what that added is taken away, and what
    /// this one comes to is added. Nothing but the sums of the rewards changes.
    pub(super) fn revise(&mut self, context: &[i64], previous: i64, reward: i64, weight: i64, halvings: u32) {
        let last = self.dimension + 1;
        let (previous, reward) = (clamped(previous), clamped(reward));
        let x = |index: usize| match index {
            0 => ONE,
            _ => clamped(context.get(index - 1).copied().unwrap_or(0)),
        };
        let part = |reward: i64, column: usize| {
            let other = if column == last { reward } else { x(column) };
            let product = i128::from(reward) * i128::from(weight) * i128::from(other);
            halved(product, WEIGHT_ONE_BITS + halvings)
        };
        for column in 0..=last {
            let sum = &mut self.sums[packed(last, column)];
            *sum = sum.saturating_add(part(reward, column) - part(previous, column));
        }
    }

    /// Adds another one's outcomes. Those of another dimension are left out.
    pub fn merge(&mut self, other: &Statistics) {
        if self.dimension == other.dimension {
            for (sum, more) in self.sums.iter_mut().zip(&other.sums) {
                *sum = sum.saturating_add(*more);
            }
        }
    }

    /// Makes every outcome count half as much, so many times.
    pub(super) fn halve(&mut self, times: u32) {
        for sum in &mut self.sums {
            *sum = halved(*sum, times);
        }
    }

    /// How many outcomes there were; with forgetting, how many they still count as.
    pub fn count(&self) -> f64 {
        self.entry(0, 0)
    }

    /// The sum of the rewards.
    pub fn reward_sum(&self) -> f64 {
        self.entry(self.dimension + 1, 0)
    }

    /// The sum of the squares of the rewards.
    pub fn reward_squares(&self) -> f64 {
        self.entry(self.dimension + 1, self.dimension + 1)
    }

    pub(super) fn entry(&self, row: usize, column: usize) -> f64 {
        self.sums
            .get(packed(row, column))
            .map_or(0.0, |sum| *sum as f64 / ONE_SQUARED)
    }

    /// Bytes of the sums, each stored as a number of 7 bits a byte.
    pub fn estimated_bytes(&self) -> usize {
        const BITS_A_BYTE: u32 = 7;
        let bits = |sum: &i128| i128::BITS - sum.unsigned_abs().leading_zeros() + 1;
        self.sums
            .iter()
            .map(|sum| bits(sum).div_ceil(BITS_A_BYTE) as usize)
            .sum()
    }
}

/// Half of it, so many times, to the nearest.
fn halved(sum: i128, times: u32) -> i128 {
    match times {
        0 => sum,
        1..=126 => sum.saturating_add(1 << (times - 1)) >> times,
        _ => 0,
    }
}
