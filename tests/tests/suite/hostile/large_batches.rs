//! Much at once: everything is applied with one write a user, whatever the batch. How long it took is told, not asserted.

use std::time::Instant;

use usher_domain::limits::{DEDUPE_LAST_MAX, RECENT_ENTRIES_MAX, STORED_TEXT_BYTES_MAX};
use usher_pipeline::memory::{ITEM_BYTES_MAX, MemoryProfileTable, Operation};

use super::{World, event};

/// Lambda hands over this much at most. <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
/// About what the envelope adds to a record, and base64 to its data.
const ENVELOPE_BYTES: usize = 520;

const JOURNEY: &str = "
journey: large
dedupe: { last: 4096 }
steps: [{ id: busy, on: click, when: features.clicks >= 1000 }]
features:
  clicks: { count: click }
  clicks_1h: { count: click, within: 1h }
  sum: { sum: properties.n, on: click }
  recent: { recent: properties.t, on: click, limit: 50 }
contents: [{ id: c }]
triggers: [{ id: once, on: click, when: features.clicks >= 3, offer: c, slot: s, limit: 1 }]
";

fn writes(profiles: &MemoryProfileTable) -> usize {
    profiles.faults().count(Operation::PutProfile)
}

/// Delivers this many events, of as many users in turn, in one batch; gives what is in memory.
async fn deliver(world: &mut World<MemoryProfileTable>, events: usize, users: usize, members: &str) -> usize {
    let before = world.delivered;
    let records = (0..events).map(|index| {
        let data = event(&format!("u-{}", index % users), before + index as u64, members);
        ("k", data.into_bytes())
    });
    let started = Instant::now();
    let invocations = world.deliver(records).await;
    println!(
        "{events} events of {users} users: {invocations} invocations, {:?}",
        started.elapsed()
    );
    invocations
}

#[tokio::test]
async fn p4_p8_a_user_with_a_hundred_thousand_events_takes_one_write() {
    const EVENTS: usize = 100_000;
    let bytes = event("u-0", EVENTS, r#""properties":{"n":1}"#).len().div_ceil(3) * 4 + ENVELOPE_BYTES;
    println!("6 MB carry about {} of them", PAYLOAD_BYTES_MAX / bytes);
    for events in [PAYLOAD_BYTES_MAX / bytes, EVENTS] {
        let mut world = World::in_memory(JOURNEY);
        let invocations = deliver(&mut world, events, 1, r#""properties":{"n":1}"#).await;
        assert_eq!((invocations, writes(&world.profiles)), (1, 1));
        let profile = world.profile("u-0").expect("a profile");
        assert_eq!(profile.applied_events as usize, events);
        assert_eq!(profile.rules[0].fired, 1);
        let item = world.profiles.item("u-0").expect("an item");
        assert!(item.state.len() < 40 * 1024, "{} bytes", item.state.len());
        assert!(world.rejected().is_empty());
    }
}

#[tokio::test]
async fn p4_many_users_in_one_batch_take_one_write_each() {
    const USERS: usize = 5500;
    let mut world = World::in_memory(JOURNEY);
    let invocations = deliver(&mut world, USERS, USERS, "").await;
    assert_eq!((invocations, writes(&world.profiles)), (1, USERS));
    for index in 0..USERS {
        let profile = world.profile(&format!("u-{index}")).expect("a profile");
        assert_eq!(profile.applied_events, 1);
    }
    // Another 5,500 of the same users: some are still cached, none is written twice.
    let invocations = deliver(&mut world, USERS, USERS, "").await;
    assert_eq!((invocations, writes(&world.profiles)), (1, 2 * USERS));
}

/// A journey whose profiles hold as many long texts as it may keep.
fn journey_of_lists(lists: usize) -> String {
    let mut journey = format!("journey: lists\ndedupe: {{ last: {DEDUPE_LAST_MAX} }}\nfeatures:\n");
    for list in 0..lists {
        journey.push_str(&format!(
            "  list_{list}: {{ recent: properties.t{list}, on: click, limit: {RECENT_ENTRIES_MAX} }}\n"
        ));
    }
    journey
}

/// An event with a text of full length for each list, other ones for each `number`.
fn event_of_texts(lists: usize, number: usize) -> Vec<u8> {
    let texts: Vec<String> = (0..lists)
        .map(|list| {
            let text = format!("{list}-{number}-");
            format!(
                r#""t{list}":"{text}{}""#,
                "x".repeat(STORED_TEXT_BYTES_MAX - text.len())
            )
        })
        .collect();
    event("u-0", number, &format!(r#""properties":{{{}}}"#, texts.join(","))).into_bytes()
}

#[tokio::test]
async fn p8_an_item_near_its_largest_is_written_and_one_beyond_is_rejected_with_a_reason() {
    // 27 lists of 50 texts of 256 bytes are 346 KB, and 4,096 ids 33 KB.
    for (lists, fits) in [(27, true), (33, false)] {
        let mut world = World::in_memory(&journey_of_lists(lists));
        let records = (0..DEDUPE_LAST_MAX).map(|number| {
            let data = if number < RECENT_ENTRIES_MAX {
                event_of_texts(lists, number)
            } else {
                event("u-0", number, "").into_bytes()
            };
            ("k", data)
        });
        let records: Vec<_> = records.collect();
        let started = Instant::now();
        let invocations = world.deliver(records).await;
        let stored = world.profiles.item("u-0").map_or(0, |item| item.state.len());
        println!(
            "{lists} lists: an item of {stored} bytes, {invocations} invocations, {:?}",
            started.elapsed()
        );
        let reasons = world.reasons();
        if fits {
            assert!(reasons.is_empty(), "{reasons:?}");
            assert_eq!(writes(&world.profiles), 1);
            assert!((370_000..ITEM_BYTES_MAX).contains(&stored), "{stored}");
            // And again, read, changed by one event, and written.
            world.deliver([("k", event_of_texts(lists, DEDUPE_LAST_MAX))]).await;
            let profile = world.profile("u-0").expect("a profile");
            assert_eq!(profile.applied_events as usize, DEDUPE_LAST_MAX + 1);
        } else {
            // What still fits is applied; from the first event that does not, the user is parked.
            let profile = world.profile("u-0").expect("a profile");
            assert_eq!(profile.applied_events as usize + reasons.len(), DEDUPE_LAST_MAX);
            assert!((370_000..ITEM_BYTES_MAX).contains(&stored), "{stored}");
            assert_eq!(reasons[0], "profile_too_large");
            assert!(
                reasons[1..].iter().all(|reason| reason == "user_parked"),
                "{:?}",
                reasons[1]
            );
            // Nobody else is held up by it (P6).
            world.deliver([("k", event("other", 1, "").into_bytes())]).await;
            assert!(world.profile("other").is_some());
        }
    }
}
