//! From logged decisions to figures.

use std::collections::HashMap;

use anyhow::Result;
use usher_domain::hash::hash_bytes;
use usher_domain::off_policy::{LoggedDecision as Row, Report, Settings, evaluate, expected_under};

use super::policy::{Chances, Policy};
use super::reward_model::{FOLDS, RewardModel, Rewards};
use crate::decision_log::{LoggedDecision, Selection};
use crate::people::counted;

/// Decisions on their way to figures.
pub struct Judging {
    policy: Policy,
    model: RewardModel,
    selection: Selection,
    offers: HashMap<String, u32>,
    rows: Vec<Weighed>,
    rewards: Rewards,
    seen: Seen,
    left: Left,
}

/// What the log turned out to hold.
#[derive(Clone, Copy, Debug)]
struct Seen {
    reward_least: f64,
    reward_most: f64,
    /// The largest weight that any candidate of any decision could have had; none where the log doesn't say how likely they were.
    weight_most: Option<f64>,
}

/// Decisions that say nothing of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Nobody was shown them.
    pub held_out: usize,
    /// More may come of them.
    pub open: usize,
    /// Nothing was chosen.
    pub without_choice: usize,
    /// The policy says nothing of their slot.
    pub other_slots: usize,
}

/// A decision as the policy would have made it.
struct Weighed {
    offer: u32,
    fold: usize,
    reward: f64,
    propensity: f64,
    target: f64,
    /// What may be offered, with its chance under the policy.
    chances: Box<[(u32, f64)]>,
    /// What was expected when it was decided: of the offer, and under the policy.
    logged: (f64, f64),
}

/// What is told.
#[derive(Debug)]
pub struct Judged {
    /// The figures.
    pub report: Report,
    /// What was left out.
    pub left: Left,
    /// What rewards go from and to.
    pub range: (f64, f64),
    /// The largest weight that there could have been.
    pub weight_most: Option<f64>,
}

impl Left {
    /// How many of each, as people read it.
    pub fn told(&self) -> Vec<String> {
        [
            (self.held_out, "held out"),
            (self.open, "still open"),
            (self.without_choice, "made without a choice"),
            (self.other_slots, "in a slot of which the policy says nothing"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", counted(count, "decision")))
        .collect()
    }
}

impl Judging {
    /// None so far.
    pub fn new(policy: Policy, model: RewardModel, selection: Selection) -> Judging {
        Judging {
            policy,
            model,
            selection,
            offers: HashMap::new(),
            rows: Vec::new(),
            rewards: Rewards::default(),
            seen: Seen {
                reward_least: f64::INFINITY,
                reward_most: f64::NEG_INFINITY,
                weight_most: Some(0.0),
            },
            left: Left::default(),
        }
    }

    /// Adds a decision, if it is meant.
    ///
    /// # Errors
    /// When the policy can't tell what it would have done.
    pub fn add(&mut self, decision: &LoggedDecision) -> Result<()> {
        if !self.selection.wants(decision) {
            return Ok(());
        }
        if decision.held_out {
            self.left.held_out += 1;
            return Ok(());
        }
        let chosen = decision
            .candidates
            .iter()
            .position(|candidate| candidate.content == decision.offer);
        let Some(chosen) = chosen else {
            self.left.without_choice += 1;
            return Ok(());
        };
        let Some(reward) = decision.reward.filter(|_| decision.settled) else {
            self.left.open += 1;
            return Ok(());
        };
        let logged: Option<Vec<f64>> = decision
            .candidates
            .iter()
            .map(|candidate| candidate.probability)
            .collect();
        let targets = match self.policy.chances(decision)? {
            Chances::Of(targets) => targets,
            Chances::AsLogged => logged.clone().unwrap_or_default(),
            Chances::Unknown => {
                self.left.other_slots += 1;
                return Ok(());
            }
        };
        let target = match targets.get(chosen) {
            Some(target) => *target,
            None => decision.propensity,
        };
        self.seen.weight_most = match (self.seen.weight_most, &logged) {
            (Some(most), Some(logged)) => weight_most(&targets, logged).map(|here| here.max(most)),
            _ => None,
        };
        self.seen.reward_least = self.seen.reward_least.min(reward);
        self.seen.reward_most = self.seen.reward_most.max(reward);
        let offer = self.offer(&decision.slot, &decision.offer);
        let fold = (hash_bytes(decision.user_id.as_bytes()) % FOLDS as u64) as usize;
        let mut chances = Vec::new();
        for (candidate, chance) in decision.candidates.iter().zip(&targets) {
            if *chance > 0.0 {
                chances.push((self.offer(&decision.slot, &candidate.content), *chance));
            }
        }
        if targets.is_empty() {
            // The policy that logged, which didn't tell all probabilities: what is expected under it cancels out.
            chances.push((offer, 1.0));
        }
        let means: Vec<f64> = decision.candidates.iter().map(|candidate| candidate.mean).collect();
        let expected = match targets.is_empty() {
            true => means[chosen],
            false => expected_under(&targets, &means),
        };
        self.rewards.add(offer, fold, reward);
        self.rows.push(Weighed {
            offer,
            fold,
            reward,
            propensity: decision.propensity,
            target,
            chances: chances.into_boxed_slice(),
            logged: (means[chosen], expected),
        });
        Ok(())
    }

    /// A number for what is offered, by which rewards are expected.
    fn offer(&mut self, slot: &str, content: &str) -> u32 {
        let name = match self.model {
            RewardModel::Smoothed { .. } => content.to_owned(),
            RewardModel::Mean | RewardModel::Logged | RewardModel::None => format!("{slot}\n{content}"),
        };
        let next = self.offers.len() as u32;
        *self.offers.entry(name).or_insert(next)
    }

    /// Judges the policy. Where the rewards' range is not known, that of `settings` is widened to what the log holds.
    ///
    /// # Errors
    /// What was left out, where nothing is left.
    pub fn judge(self, settings: &Settings, is_range_known: bool) -> Result<Judged, Left> {
        let (mut least, mut most) = (settings.reward_least, settings.reward_most);
        if !is_range_known {
            least = least.min(self.seen.reward_least);
            most = most.max(self.seen.reward_most);
        }
        let rows: Vec<Row> = self.rows.iter().map(|row| self.row(row)).collect();
        let settings = Settings {
            reward_least: least,
            reward_most: most,
            propensity_least: self.seen.weight_most.filter(|most| *most > 0.0).map(|most| 1.0 / most),
            ..*settings
        };
        let report = evaluate(&rows, &settings).ok_or(self.left)?;
        Ok(Judged {
            report,
            left: self.left,
            range: (least, most),
            weight_most: self.seen.weight_most,
        })
    }

    fn row(&self, row: &Weighed) -> Row {
        let under = |expected: &dyn Fn(u32) -> f64| {
            let expected_of_each = row.chances.iter().map(|(offer, chance)| chance * expected(*offer));
            (expected(row.offer), expected_of_each.sum())
        };
        let (predicted, expected) = match self.model {
            RewardModel::Mean => under(&|offer| self.rewards.mean(offer, row.fold)),
            RewardModel::Smoothed { add, rows } => under(&|offer| self.rewards.smoothed(offer, add, rows)),
            RewardModel::Logged => row.logged,
            RewardModel::None => (0.0, 0.0),
        };
        Row {
            reward: row.reward,
            propensity: row.propensity,
            target: row.target,
            predicted,
            expected,
        }
    }
}

/// The largest weight that a decision could have had; none where what the policy would offer could not have been.
fn weight_most(targets: &[f64], logged: &[f64]) -> Option<f64> {
    let mut most = 0.0f64;
    for (target, logged) in targets.iter().zip(logged) {
        if *target > 0.0 {
            let weight = target / logged;
            most = most.max(weight.is_finite().then_some(weight)?);
        }
    }
    Some(most)
}
