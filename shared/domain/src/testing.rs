//! What the tests of this crate build their inputs from.

use std::sync::LazyLock;

use crate::event::{ArrivedEvent, Event, Properties, Shard};
use crate::guard::ShardKey;
use crate::hash::hash_bytes;
use crate::journey::Journey;
use crate::sequence_number::Position;
use crate::time::Timestamp;

/// A moment that all test times count from: 2024-01-01T00:00:00Z.
pub(crate) const EPOCH_MS: i64 = 1_704_067_200_000;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// The journey that is deployed unless an operator writes another one.
pub(crate) const DEFAULT_JOURNEY: &str = include_str!("../../../journey/journey.yaml");

/// Three shards, more than any test needs.
pub(crate) static SHARDS: LazyLock<Vec<Shard>> = LazyLock::new(|| {
    let shard = |index: usize| {
        let id = format!("shardId-{index:012}");
        Shard {
            key: ShardKey::of("interactions", &id),
            id,
        }
    };
    (0..3).map(shard).collect()
});

pub(crate) fn journey(text: &str) -> Journey {
    Journey::parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", text)))
}

/// `ms` after [`EPOCH_MS`].
pub(crate) fn time(ms: i64) -> Timestamp {
    Timestamp::from_epoch_ms(EPOCH_MS + ms)
}

/// An event of the user `u`.
pub(crate) fn event<'a>(id: &str, event_type: &str, at: Timestamp) -> Event<'a> {
    Event {
        id: id.to_owned().into(),
        id_hash: hash_bytes(id.as_bytes()),
        event_type: event_type.to_owned().into(),
        at,
        clock: Default::default(),
        user: "u".into(),
        alias: None,
        session_id: None,
        content_id: None,
        category: None,
        device_type: None,
        user_agent: None,
        location: Default::default(),
        properties: Properties::default(),
        traits: None,
    }
}

/// An event as the record with this sequence number of a shard.
pub(crate) fn arrived<'a>(event: Event<'a>, shard: usize, number: u64, arrived_at: Timestamp) -> ArrivedEvent<'a> {
    let position = Position {
        sequence_number: number.into(),
        sub_sequence_number: 0,
    };
    ArrivedEvent {
        event,
        arrived_at,
        shard: &SHARDS[shard],
        position,
    }
}
