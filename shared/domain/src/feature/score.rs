//! A score that halves with every half-life.
//!
//! What an event adds is worth less the older the event is. The score is kept as a window of tiles that are one half-life
//! wide: in each, the sum of its events' weights as of the tile's start. Those are whole numbers, so adding them in any
//! order gives the same, a late event lands where it belongs, and two scores merge by adding.

use std::sync::LazyLock;

use crate::limits::SCORE_HALF_LIVES_MAX;
use crate::time::Timestamp;
use crate::window::{Window, WindowLength};

/// What a weight of 1 counts as: the rounding of one event is at most half of the inverse.
const UNITS: f64 = 1000.0;
/// Bits of a fraction of a half-life that are looked at.
const FRACTION_BITS: usize = 32;

/// The square root of 2, its square root, and so on. Only operations that every machine does alike make it up, unlike
/// those of its mathematical library, so a profile is the same bytes wherever it is folded.
static ROOTS: LazyLock<[f64; FRACTION_BITS]> = LazyLock::new(|| {
    let mut root = 2f64;
    std::array::from_fn(|_| {
        root = root.sqrt();
        root
    })
});

/// The tiles of a score with a half-life. What is older than all of them is worth less than a millionth.
pub fn score_tiles(half_life_ms: i64) -> WindowLength {
    WindowLength::of_tiles(SCORE_HALF_LIVES_MAX, half_life_ms)
}

/// Adds an event of this weight.
pub(super) fn add(window: &mut Window, tiles: WindowLength, weight: f64, at: Timestamp, now: Timestamp) {
    let half_life_ms = tiles.tile_ms();
    let into_tile = at.epoch_ms().rem_euclid(half_life_ms) as f64 / half_life_ms as f64;
    let amount = (weight * power_of_2(into_tile) * UNITS).round() as i128;
    window.add(tiles, at, now, amount);
    window.prune(tiles, now);
}

/// The score as of `now`.
pub(super) fn value(window: &Window, tiles: WindowLength, now: Timestamp) -> f64 {
    let half_life_ms = tiles.tile_ms();
    let oldest = tiles.oldest_tile(now);
    let kept = window.tiles().iter().filter(|tile| tile.index >= oldest);
    let total: f64 = kept
        .map(|tile| {
            let since_start_ms = now.epoch_ms().saturating_sub(tile.index.saturating_mul(half_life_ms));
            tile.amount as f64 * power_of_2(-(since_start_ms as f64 / half_life_ms as f64))
        })
        .sum();
    // What has decayed to nothing is 0, also from below.
    total / UNITS + 0.0
}

/// 2 to the power of some number.
fn power_of_2(exponent: f64) -> f64 {
    let whole = exponent.floor();
    let mut fraction = exponent - whole;
    let mut power = 1f64;
    for root in ROOTS.iter() {
        fraction *= 2.0;
        if fraction >= 1.0 {
            fraction -= 1.0;
            power *= root;
        }
    }
    // Powers of two are exact; beyond what a score can reach they saturate.
    power * 2f64.powi(whole.clamp(-1000.0, 1000.0) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_is_right_to_nine_digits() {
        for step in -400..400 {
            let exponent = f64::from(step) / 13.0;
            let (ours, theirs) = (power_of_2(exponent), exponent.exp2());
            assert!((ours / theirs - 1.0).abs() < 1e-9, "{exponent}: {ours} {theirs}");
        }
    }
}
