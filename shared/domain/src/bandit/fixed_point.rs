//! Numbers as whole multiples of 2⁻¹⁶, so that sums of them are the same in any order.

use crate::bandit::limits::BANDIT_VALUE_MAX;

/// Bits after the point.
pub const FRACTION_BITS: u32 = 16;
/// What 1 counts as.
pub const ONE: i64 = 1 << FRACTION_BITS;
/// What 1 counts as in a product of two numbers.
pub const ONE_SQUARED: f64 = (1u64 << (2 * FRACTION_BITS)) as f64;

/// The nearest multiple, of at most [`BANDIT_VALUE_MAX`] either way. What is no number counts as 0.
pub fn units(value: f64) -> i64 {
    if value.is_nan() {
        return 0;
    }
    (value.clamp(-BANDIT_VALUE_MAX, BANDIT_VALUE_MAX) * ONE as f64).round() as i64
}

/// Units within the range that sums are sure to hold.
pub fn clamped(units: i64) -> i64 {
    let most = BANDIT_VALUE_MAX as i64 * ONE;
    units.clamp(-most, most)
}

/// The number that some units stand for.
pub fn value(units: i64) -> f64 {
    units as f64 / ONE as f64
}
