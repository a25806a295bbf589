//! The bytes of a record: an event or a reject, the same by both ways of reading; then folded into a profile, which is stored
//! and read back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_fuzz::{TEST_JOURNEY, arrived_at, known_event, plan};
use usher_wire::event::{decode, decode_thoroughly, time_of, user_of};
use usher_wire::{profile_json, profile_state};

fuzz_target!(|bytes: &[u8]| {
    let decoded = decode(bytes, arrived_at());
    assert_eq!(
        decoded,
        decode_thoroughly(bytes, arrived_at()),
        "the two ways of reading differ"
    );
    let (time, user) = (time_of(bytes), user_of(bytes));
    let Ok(event) = decoded else { return };
    assert!(time.is_some());
    assert_eq!(user.as_deref(), Some(event.user.as_ref()));
    let mut before = known_event();
    before.user = event.user.clone();
    let profile = plan(&[before, event.clone()]);
    let stored = profile_state::encode(&profile, &TEST_JOURNEY);
    let read = profile_state::decode(&stored, 0, &event.user, &TEST_JOURNEY).expect("what was stored can be read");
    assert_eq!(read, profile);
    profile_json::to_json(&event.user, &profile, &TEST_JOURNEY, arrived_at());
});
