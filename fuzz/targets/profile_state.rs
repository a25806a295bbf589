//! Stored bytes: no profile, or one that can be used and is stored as what it was read as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::plan::plan_user;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::Snapshots;
use usher_fuzz::{TEST_JOURNEY, arrived_at, known_event};
use usher_wire::{profile_json, profile_state};

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = profile_state::decode(bytes, 1, "u1", &TEST_JOURNEY) else {
        return;
    };
    let stored = profile_state::encode(&profile, &TEST_JOURNEY);
    let read = profile_state::decode(&stored, 1, "u1", &TEST_JOURNEY).expect("what was stored can be read");
    // Not the profile that was read first: what Usher never writes, such as a rule with a time that never fired, is not kept.
    assert_eq!(profile_state::encode(&read, &TEST_JOURNEY), stored);
    profile_json::to_json("u1", &profile, &TEST_JOURNEY, arrived_at());
    let shard = Shard {
        key: ShardKey::of("stream", "shardId-000000000000"),
        id: "shardId-000000000000".to_owned(),
    };
    let arrived = ArrivedEvent {
        event: known_event(),
        arrived_at: arrived_at(),
        shard: &shard,
        position: Position {
            sequence_number: 1u64.into(),
            sub_sequence_number: 0,
        },
    };
    plan_user(&TEST_JOURNEY, Snapshots::none(), profile, [&arrived]);
});
