//! What a slot's learner keeps: the sums of each arm, and of the model that all arms share.

use std::collections::BTreeMap;

use crate::bandit::context::{Content, Context, Layout};
use crate::bandit::fixed_point;
use crate::bandit::limits::LEARNED_ARMS_MAX;
use crate::bandit::statistics::{Statistics, WEIGHT_ONE_BITS};
use crate::hash::hash_bytes;
use crate::limits::{HALF_LIFE_MS_MAX, HALF_LIFE_MS_MIN};
use crate::time::Timestamp;

/// Halvings after which an outcome counts for nothing.
const HALVINGS_MAX: i64 = 40;

/// What came of an offer.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'o> {
    /// The content that was offered.
    pub arm: &'o str,
    /// The context of the decision, as it was then.
    pub context: &'o Context,
    /// The content's own features, for the shared model.
    pub content: &'o Content,
    /// What it was worth, all together.
    pub reward: f64,
    /// What it was worth as it was learned before, where more came of an offer later: that is taken away again. Whoever
    /// learns must have learned that, or counts an offer's rewards without the offer.
    pub previous: Option<f64>,
    /// When the offer was made: only that counts in forgetting. It is the same for everything that came of one offer, so that
    /// what is taken away weighs what it did.
    pub at: Timestamp,
}

/// Whether an outcome was learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was.
    Yes,
    /// Its context has another layout, of an older or newer journey.
    AnotherLayout,
    /// It is the first of its arm, and there are [`LEARNED_ARMS_MAX`] arms.
    TooManyArms,
    /// Its reward, or the one before, is no number.
    NoNumber,
}

/// The state of a slot's learner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    layout: u32,
    dimension: usize,
    half_life_ms: Option<i64>,
    /// The half-life, counted from 1970, at whose start weights are 1. It only grows.
    tile: i64,
    arms: BTreeMap<String, Statistics>,
    shared: Option<Statistics>,
}

/// The parts of a state, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSlot {
    /// [`Layout::fingerprint`].
    pub layout: u32,
    /// Numbers of a context.
    pub dimension: usize,
    /// The time in which an outcome comes to count half as much.
    pub half_life_ms: Option<i64>,
    /// The half-life, counted from 1970, at whose start weights are 1.
    pub tile: i64,
    /// Of each arm.
    pub arms: BTreeMap<String, Statistics>,
    /// Of the model that all arms share.
    pub shared: Option<Statistics>,
}

impl SlotState {
    /// One that has learned nothing.
    pub fn new(layout: &Layout, half_life_ms: Option<i64>) -> SlotState {
        SlotState {
            layout: layout.fingerprint(),
            dimension: layout.dimension(),
            half_life_ms: half_life_ms.map(|half_life| half_life.clamp(HALF_LIFE_MS_MIN, HALF_LIFE_MS_MAX)),
            tile: i64::MIN,
            arms: BTreeMap::new(),
            shared: layout.shared_dimension().map(Statistics::new),
        }
    }

    /// The stored parts; none where they don't fit each other.
    pub fn from_stored(stored: StoredSlot) -> Option<SlotState> {
        let StoredSlot {
            layout,
            dimension,
            half_life_ms,
            tile,
            arms,
            shared,
        } = stored;
        let fits = arms.values().all(|arm| arm.dimension() == dimension)
            && arms.len() <= LEARNED_ARMS_MAX
            && half_life_ms.is_none_or(|half_life| (HALF_LIFE_MS_MIN..=HALF_LIFE_MS_MAX).contains(&half_life));
        fits.then_some(SlotState {
            layout,
            dimension,
            half_life_ms,
            tile,
            arms,
            shared,
        })
    }

    /// The parts, to be stored.
    pub fn to_stored(&self) -> StoredSlot {
        StoredSlot {
            layout: self.layout,
            dimension: self.dimension,
            half_life_ms: self.half_life_ms,
            tile: self.tile,
            arms: self.arms.clone(),
            shared: self.shared.clone(),
        }
    }

    /// The arms' sums, by arm.
    pub fn arms(&self) -> &BTreeMap<String, Statistics> {
        &self.arms
    }

    /// The sums of the shared model, where contents have features.
    pub fn shared(&self) -> Option<&Statistics> {
        self.shared.as_ref()
    }

    /// The fingerprint of the layout that it was made for.
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// Numbers of a context.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// A name for exactly this state, to be logged with each decision.
    pub fn version(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut put = |statistics: &Statistics| {
            for sum in statistics.sums() {
                bytes.extend_from_slice(&sum.to_le_bytes());
            }
        };
        self.arms.values().for_each(&mut put);
        self.shared.iter().for_each(&mut put);
        for (number, arm) in self.arms.keys().enumerate() {
            bytes.extend_from_slice(&(number as u64).to_le_bytes());
            bytes.extend_from_slice(arm.as_bytes());
        }
        bytes.extend_from_slice(&self.layout.to_le_bytes());
        bytes.extend_from_slice(&self.tile.to_le_bytes());
        hash_bytes(&bytes)
    }

    /// Learns from an outcome. In which order outcomes come makes no difference, nor into how many an offer's last total was
    /// split: each next one says what the one before came to.
    pub fn learn(&mut self, layout: &Layout, outcome: &Outcome<'_>) -> Learned {
        if layout.fingerprint() != self.layout || outcome.context.dimension() != self.dimension {
            return Learned::AnotherLayout;
        }
        if outcome.reward.is_nan() || outcome.previous.is_some_and(f64::is_nan) {
            return Learned::NoNumber;
        }
        if !self.arms.contains_key(outcome.arm) && self.arms.len() >= LEARNED_ARMS_MAX {
            return Learned::TooManyArms;
        }
        let (weight, halvings) = match self.half_life_ms {
            None => (1 << WEIGHT_ONE_BITS, 0),
            Some(half_life_ms) => {
                let at_ms = outcome.at.epoch_ms();
                let tile = at_ms.div_euclid(half_life_ms);
                self.advance_to(tile);
                let into_tile = at_ms.rem_euclid(half_life_ms) as f64 / half_life_ms as f64;
                let halvings = self.tile.saturating_sub(tile).clamp(0, HALVINGS_MAX) as u32;
                let weight = libm::exp2(into_tile) * f64::from(1 << WEIGHT_ONE_BITS);
                (weight.round() as i64, halvings)
            }
        };
        let reward = fixed_point::units(outcome.reward);
        let previous = outcome.previous.map(fixed_point::units);
        let add = |statistics: &mut Statistics, numbers: &[i64]| match previous {
            None => statistics.add(numbers, reward, weight, halvings),
            Some(previous) => statistics.revise(numbers, previous, reward, weight, halvings),
        };
        let arm = self.arms.entry(outcome.arm.to_owned());
        let arm = arm.or_insert_with(|| Statistics::new(self.dimension));
        add(arm, outcome.context.units());
        if let Some(shared) = &mut self.shared {
            let mut joint = Vec::new();
            layout.joint(&layout.factors(outcome.context), outcome.content, &mut joint);
            let joint: Vec<i64> = joint.iter().skip(1).map(|number| fixed_point::units(*number)).collect();
            add(shared, &joint);
        }
        Learned::Yes
    }

    /// Adds what another one learned. Of another layout or half-life nothing is taken, and `false` says so.
    pub fn merge(&mut self, other: &SlotState) -> bool {
        if (self.layout, self.dimension, self.half_life_ms) != (other.layout, other.dimension, other.half_life_ms) {
            return false;
        }
        let mut other = other.clone();
        let tile = self.tile.max(other.tile);
        self.advance_to(tile);
        other.advance_to(tile);
        for (arm, statistics) in other.arms {
            let has_room = self.arms.len() < LEARNED_ARMS_MAX;
            match self.arms.get_mut(&arm) {
                Some(ours) => ours.merge(&statistics),
                None if has_room => {
                    self.arms.insert(arm, statistics);
                }
                None => {}
            }
        }
        if let (Some(ours), Some(theirs)) = (&mut self.shared, &other.shared) {
            ours.merge(theirs);
        }
        true
    }

    /// Forgets the arms that are no longer offered.
    pub fn retain_arms(&mut self, is_offered: impl Fn(&str) -> bool) {
        self.arms.retain(|arm, _| is_offered(arm));
    }

    /// Bytes that it takes when stored.
    pub fn estimated_bytes(&self) -> usize {
        let arms = self
            .arms
            .iter()
            .map(|(arm, statistics)| arm.len() + statistics.estimated_bytes());
        arms.sum::<usize>() + self.shared.as_ref().map_or(0, Statistics::estimated_bytes)
    }

    fn advance_to(&mut self, tile: i64) {
        if tile <= self.tile {
            return;
        }
        if self.tile != i64::MIN {
            let times = tile.saturating_sub(self.tile).min(i64::from(u32::MAX)) as u32;
            for statistics in self.arms.values_mut().chain(&mut self.shared) {
                statistics.halve(times);
            }
        }
        self.tile = tile;
    }
}
