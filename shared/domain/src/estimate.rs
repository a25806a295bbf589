//! How large a profile gets under a journey, and what a write of it costs, before any event came.

use crate::feature::ItemBytes;
use crate::journey::Journey;
use crate::limits::{GUARD_SHARDS_MAX, OPEN_SESSIONS_MAX, STORED_TEXT_BYTES_MAX};

/// Bytes that one write capacity unit covers
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>).
pub const WRITE_UNIT_BYTES: usize = 1024;
/// The largest item that DynamoDB takes.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;

/// The names and values of an item's other attributes, with a user id of 36 bytes (one of 256, at worst), and the heads of
/// the state's own parts.
const ATTRIBUTES: ItemBytes = ItemBytes {
    typical: 130,
    worst: 370,
};
/// A shard that the guard keeps.
const GUARD_ENTRY: ItemBytes = ItemBytes { typical: 26, worst: 45 };
/// A session that is kept.
const SESSION: ItemBytes = ItemBytes { typical: 13, worst: 28 };
const EVENT_ID_HASH_BYTES: usize = 8;
const STEP: ItemBytes = ItemBytes { typical: 11, worst: 15 };
const RULE: ItemBytes = ItemBytes { typical: 13, worst: 24 };
/// A trait's time, shard and value, beside its name.
const TRAIT: ItemBytes = ItemBytes {
    typical: 26,
    worst: 22 + STORED_TEXT_BYTES_MAX,
};
/// Of the steps, traits and rules of a journey, the share that a typical user has come to.
const REACHED: usize = 2;

/// What a part of the journey costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Such as `features.clicks_10m`.
    pub name: String,
    /// Its bytes in the item.
    pub bytes: ItemBytes,
}

/// The size of a profile's item, without triggers that were not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemEstimate {
    /// The whole item.
    pub bytes: ItemBytes,
    /// What makes it up, in the journey's order.
    pub parts: Vec<Part>,
}

impl ItemEstimate {
    /// Write capacity units of one write of a typical item.
    pub fn typical_write_units(&self) -> usize {
        self.bytes.typical.div_ceil(WRITE_UNIT_BYTES)
    }

    /// Write capacity units of one write of the largest item.
    pub fn worst_write_units(&self) -> usize {
        self.bytes.worst.div_ceil(WRITE_UNIT_BYTES)
    }

    /// Whether the largest item is larger than DynamoDB takes. A user who gets there is parked.
    pub fn may_outgrow_the_table(&self) -> bool {
        self.bytes.worst > ITEM_BYTES_MAX
    }
}

/// How large a profile gets under a journey.
pub fn estimated_bytes(journey: &Journey) -> ItemEstimate {
    let part = |name: &str, bytes: ItemBytes| Part {
        name: name.to_owned(),
        bytes,
    };
    let many = |count: usize, one: ItemBytes| ItemBytes {
        typical: count.div_ceil(REACHED) * one.typical,
        worst: count * one.worst,
    };
    let sessions = ItemBytes {
        typical: SESSION.typical * OPEN_SESSIONS_MAX,
        worst: SESSION.worst * OPEN_SESSIONS_MAX,
    };
    let guard = ItemBytes {
        typical: GUARD_ENTRY.typical,
        worst: GUARD_ENTRY.worst * GUARD_SHARDS_MAX,
    };
    let ids = journey.dedupe_last * EVENT_ID_HASH_BYTES;
    let mut parts = vec![
        part("attributes", ATTRIBUTES),
        part("guard", guard),
        part(
            "dedupe",
            ItemBytes {
                typical: ids,
                worst: ids,
            },
        ),
        part("sessions", sessions),
    ];
    parts.extend(
        journey
            .features
            .iter()
            .map(|feature| part(&format!("features.{}", feature.name), feature.computation.item_bytes())),
    );
    let names: usize = journey.traits.iter().map(String::len).sum();
    let traits = many(journey.traits.len(), TRAIT)
        + ItemBytes {
            typical: names / REACHED,
            worst: names,
        };
    for (name, bytes) in [
        ("steps", many(journey.steps.len(), STEP)),
        ("traits", traits),
        ("triggers", many(journey.rules.len(), RULE)),
    ] {
        if bytes != ItemBytes::default() {
            parts.push(part(name, bytes));
        }
    }
    ItemEstimate {
        bytes: parts.iter().map(|part| part.bytes).sum(),
        parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DEFAULT_JOURNEY, journey};

    #[test]
    fn p8_a_typical_item_of_the_default_journey_is_estimated_at_one_write_unit_or_a_little_more() {
        let estimate = estimated_bytes(&journey(DEFAULT_JOURNEY));
        println!("{estimate:#?}");
        assert!(
            estimate.bytes.typical <= WRITE_UNIT_BYTES * 5 / 4,
            "{:?}",
            estimate.bytes
        );
        assert!(!estimate.may_outgrow_the_table());
        let sum: ItemBytes = estimate.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(sum, estimate.bytes);
    }

    #[test]
    fn p8_a_journey_whose_items_may_outgrow_the_table_is_told_so() {
        let features: String = (0..64)
            .map(|number| format!("  f{number}: {{ mean: properties.a, within: 90d }}\n"))
            .collect();
        let estimate = estimated_bytes(&journey(&format!("journey: j\nfeatures:\n{features}")));
        assert!(estimate.may_outgrow_the_table(), "{:?}", estimate.bytes);
        assert!(estimate.worst_write_units() > 400 && estimate.typical_write_units() < 10);
    }
}
