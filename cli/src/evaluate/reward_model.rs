//! What a decision was expected to earn, for the doubly robust estimate: it needs no right expectations, only ones that
//! were not made of the very reward that they are compared with.

use std::collections::HashMap;

use anyhow::{Result, bail};

/// Parts that the decisions are divided into: what is expected of one part is made of the others.
pub const FOLDS: usize = 5;
/// Decisions that a content's mean is held back by towards the mean of all.
const SHRINK_ROWS: f64 = 20.0;

/// How rewards are expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RewardModel {
    /// The mean of each content in each slot, from other users' decisions, held back towards the mean of all.
    Mean,
    /// Of each content, (sum of rewards + `add`) / (rows + `rows`), from all decisions.
    Smoothed {
        /// What is added to the sum.
        add: f64,
        /// What is added to the rows.
        rows: f64,
    },
    /// What the model expected when it decided.
    Logged,
    /// Nothing: then the estimate is IPS.
    None,
}

impl RewardModel {
    /// As the command line says it.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<RewardModel> {
        let number = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|number| *number >= 0.0 && number.is_finite())
        };
        let smoothed = text.strip_prefix("smoothed:").and_then(|numbers| {
            let (add, rows) = numbers.split_once('/')?;
            Some((number(add)?, number(rows).filter(|rows| *rows > 0.0)?))
        });
        Ok(match (text, smoothed) {
            (_, Some((add, rows))) => RewardModel::Smoothed { add, rows },
            ("mean", _) => RewardModel::Mean,
            ("logged", _) => RewardModel::Logged,
            ("none", _) => RewardModel::None,
            _ => bail!(
                "--reward-model is `{text}`, but it is one of mean, smoothed:ADD/ROWS (such as smoothed:1/200), logged or none"
            ),
        })
    }
}

/// Rewards by what was offered.
#[derive(Clone, Debug, Default)]
pub struct Rewards {
    /// Of each offer: in each fold, and of all decisions.
    by_offer: HashMap<u32, [Sum; FOLDS]>,
    all: [Sum; FOLDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    rows: f64,
    reward: f64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.rows += other.rows;
        self.reward += other.reward;
    }
}

impl Rewards {
    /// Adds a decision.
    pub fn add(&mut self, offer: u32, fold: usize, reward: f64) {
        let one = Sum { rows: 1.0, reward };
        self.by_offer.entry(offer).or_default()[fold].add(one);
        self.all[fold].add(one);
    }

    /// The mean of an offer in all folds but one, held back towards that of all offers.
    pub fn mean(&self, offer: u32, without_fold: usize) -> f64 {
        let others = |folds: &[Sum; FOLDS]| {
            let mut sum = Sum::default();
            for (fold, part) in folds.iter().enumerate() {
                if fold != without_fold {
                    sum.add(*part);
                }
            }
            sum
        };
        let all = others(&self.all);
        let middle = if all.rows > 0.0 { all.reward / all.rows } else { 0.0 };
        let own = self.by_offer.get(&offer).map(others).unwrap_or_default();
        (own.reward + SHRINK_ROWS * middle) / (own.rows + SHRINK_ROWS)
    }

    /// The mean of an offer in all folds, smoothed.
    pub fn smoothed(&self, offer: u32, add: f64, rows: f64) -> f64 {
        let mut sum = Sum::default();
        for part in self.by_offer.get(&offer).into_iter().flatten() {
            sum.add(*part);
        }
        (sum.reward + add) / (sum.rows + rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_made_of_the_other_folds_only() {
        let mut rewards = Rewards::default();
        for fold in 0..FOLDS {
            for _ in 0..100 {
                rewards.add(1, fold, if fold == 3 { 1.0 } else { 0.0 });
                rewards.add(2, fold, 0.0);
            }
        }
        assert_eq!(rewards.mean(1, 3), 0.0, "all that was rewarded is in this fold");
        // 100 of 400 rows, held back towards 100 of 800.
        assert!((rewards.mean(1, 0) - (100.0 + 20.0 * 0.125) / 420.0).abs() < 1e-12);
        assert!(
            (rewards.mean(9, 0) - 0.125).abs() < 1e-12,
            "of what was never offered nothing else is known"
        );
        assert_eq!(rewards.smoothed(1, 1.0, 200.0), 101.0 / 700.0);
        assert_eq!(rewards.smoothed(9, 1.0, 200.0), 1.0 / 200.0);
        assert_eq!(Rewards::default().mean(1, 0), 0.0);
    }

    #[test]
    fn p10_what_is_no_model_is_told() {
        for (text, model) in [
            ("mean", Some(RewardModel::Mean)),
            ("smoothed:1/200", Some(RewardModel::Smoothed { add: 1.0, rows: 200.0 })),
            ("smoothed:0/0", None),
            ("smoothed:1", None),
            ("logged", Some(RewardModel::Logged)),
            ("none", Some(RewardModel::None)),
            ("forest", None),
        ] {
            assert_eq!(RewardModel::parse(text).ok(), model, "{text}");
        }
    }
}
