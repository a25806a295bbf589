//! The learner's limits (P8).

use crate::limits::CONTENTS_MAX;

/// Numbers of a learner's context, the constant not counted. With 32, an arm's sums take some 5 KB.
pub const BANDIT_DIMENSION_MAX: usize = 32;
/// Places that one hashed text takes of a learner's context.
pub const BANDIT_TEXT_BUCKETS_MAX: usize = 8;
/// Largest number in a learner's context or reward, and the smallest with a minus: 2²⁰, the root of 10¹².
pub const BANDIT_VALUE_MAX: f64 = 1_048_576.0;
/// Arms that a slot's learner remembers: as many as there may be contents.
pub const LEARNED_ARMS_MAX: usize = CONTENTS_MAX;
/// Candidates of one decision; those beyond are not looked at.
pub const CANDIDATES_MAX: usize = 256;
/// The largest share of decisions that a learner may keep for exploring.
pub const EXPLORATION_MAX: f64 = 1.0;
