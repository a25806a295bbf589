//! What the fuzz targets share: a journey with everything in it, and a user that it knows.

use std::sync::LazyLock;

use usher_domain::event::{ArrivedEvent, Event, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;
use usher_domain::snapshots::Snapshots;

/// Features, steps, traits and rules of every kind, with conditions in both forms.
const JOURNEY: &str = r#"
journey: fuzzed
ignore: [heartbeat]
sessions: { idle_timeout: 30m }
dedupe: { last: 8 }
steps:
  - { id: done, on: click }
  - { id: open, on: never }
features:
  clicks: { count: click }
  clicks_1h: { count: click, within: 1h }
  total: { sum: properties.i, on: any }
  total_1h: { sum: properties.i, on: any, within: 1h }
  last: { last: properties.any, on: any }
  recent: { recent: properties.any, on: any }
  recent_1h: { recent: category, on: any, within: 1h, limit: 3 }
  first: { first_seen: any }
  seen: { last_seen: any }
  visits: { sessions: count }
  spent: { sessions: duration }
experiments: [{ id: copy, arms: { a: 1, b: 1 } }]
contents: [{ id: c, unless: traits.age == 1 }]
triggers:
  - { id: typed, on: any, when: event.properties.i > 1 || traits.plan == "x", offer: c, slot: s }
  - { id: interpreted, on: any, when: "event.properties.l.exists(x, x == 1)", offer: c, slot: t, cooldown: 1h }
"#;

/// The journey.
pub static TEST_JOURNEY: LazyLock<Journey> = LazyLock::new(|| Journey::parse(JOURNEY).expect("it is right"));

/// When everything arrives: 2026-01-05T10:00:00Z.
pub fn arrived_at() -> Timestamp {
    Timestamp::from_epoch_ms(1_767_607_200_000)
}

/// An event that sets each feature, step and trait.
pub fn known_event() -> Event<'static> {
    const BYTES: &[u8] = br#"{"event_id":"e1","event_type":"click","timestamp":"2026-01-05T09:59:00Z","user_id":"u1",
        "session_id":"s","content_id":"c","category":"forumng","user_agent":"Mozilla/5.0 (iPhone)","location":{"country":"GB"},
        "properties":{"i":5,"f":1.5,"whole":5.0,"t":"abc","b":true,"n":null,"o":{"x":1,"y":{"z":"deep"},"n":null},
        "l":[1,"a",{"k":2}],"big":18446744073709551615,"any":"a","twice":1,"twice":2,"same":{"x":1.0,"y":{"z":"deep"},"n":null}},
        "traits":{"plan":"team"},"top":7}"#;
    usher_wire::event::decode(BYTES, arrived_at()).expect("it is right")
}

/// The profile after some events of one user.
pub fn plan(events: &[Event<'_>]) -> Profile {
    let shard = Shard {
        key: ShardKey::of("stream", "shardId-000000000000"),
        id: "shardId-000000000000".to_owned(),
    };
    let arrived: Vec<_> = events
        .iter()
        .zip(1u64..)
        .map(|(event, number)| ArrivedEvent {
            event: event.clone(),
            arrived_at: arrived_at(),
            shard: &shard,
            position: Position {
                sequence_number: number.into(),
                sub_sequence_number: 0,
            },
        })
        .collect();
    plan_user(&TEST_JOURNEY, Snapshots::none(), Profile::new(&TEST_JOURNEY), &arrived).profile
}
