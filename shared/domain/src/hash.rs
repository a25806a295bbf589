//! Stable 64-bit hashes. They are stored, so the function and the seed never change.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The hash of some bytes (XXH3, seed 0).
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The hash of several parts. Lengths go in too, so `("ab", "c")` and `("a", "bc")` differ.
pub fn hash_parts(parts: &[&[u8]]) -> u128 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

/// A 32-bit name for a definition (a feature and how it is computed, a step, a rule): its state in a profile is found
/// by it, so a changed definition starts anew and a removed one is dropped.
pub fn fingerprint(parts: &[&str]) -> u32 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    // The upper half of XXH3 is as well mixed as the lower one.
    (hasher.digest() >> 32) as u32
}
