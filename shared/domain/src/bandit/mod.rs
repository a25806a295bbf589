//! Learning what to offer: a contextual bandit per slot.
//!
//! Everything is a function of its arguments (P7). A [`context::Layout`] turns typed values into numbers, a
//! [`state::SlotState`] adds up what came of offers, a [`snapshot::ModelSnapshot`] is what decisions read: it is computed
//! once from a state and then chooses in microseconds, by the [`learner::Learner`] that the slot has, drawn by a seed.
//! `docs/learning.md` has the mathematics and where it comes from.

mod best_arm;
pub mod context;
mod fixed_point;
pub mod learner;
pub mod limits;
mod linear_model;
mod matrix;
pub mod snapshot;
pub mod state;
pub mod statistics;
#[cfg(test)]
mod tests;
