//! One user under several keys: what is written, what it costs, and what is left alone.

use super::*;
use crate::ports::ParkTarget;
use usher_domain::limits::POINTERS_MAX;
use usher_domain::merge::alias_hash;
use usher_wire::reject::RejectedRecord;

const ANONYMOUS: &str = "anonymous:x";

/// An event of these ids: `ann`, `?x` without a user id, `ann+x` with both, `ann<bob` for who was `bob` before.
fn of(number: u64, ids: &str, event_type: &str) -> TestRecord {
    let members = match (ids.strip_prefix('?'), ids.split_once('+'), ids.split_once('<')) {
        (Some(anonymous), ..) => format!(r#""anonymous_id":"{anonymous}""#),
        (_, Some((user, anonymous)), _) => format!(r#""user_id":"{user}","anonymous_id":"{anonymous}""#),
        (.., Some((user, previous))) => format!(r#""user_id":"{user}","previous_id":"{previous}""#),
        _ => format!(r#""user_id":"{ids}""#),
    };
    let at = TestRecord::new(number, "").arrived_at;
    TestRecord::new(
        number,
        format!(r#"{{"event_id":"e-{number}","event_type":"{event_type}","timestamp":"{at}",{members}}}"#),
    )
}

fn batch(from: u64, written: &[&str]) -> Vec<TestRecord> {
    let record = |(index, text): (usize, &&str)| {
        let (ids, event_type) = text.split_once(' ').expect("ids and a type");
        of(from + index as u64, ids, event_type)
    };
    written.iter().enumerate().map(record).collect()
}

impl World {
    fn pointer(&self, key: &str) -> Option<String> {
        self.profiles.item(key)?.merged_into
    }

    /// Whose triggers are on the stream, each trigger once, in order.
    fn triggered(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let records = self.triggers.records().into_iter().map(|stored| stored.record);
        let new = records.filter(|record| {
            let is_new = !seen.contains(&record.data);
            seen.push(record.data.clone());
            is_new
        });
        new.map(|record| record.partition_key).collect()
    }

    fn calls(&self) -> [usize; 3] {
        [Operation::GetProfiles, Operation::PutProfile, Operation::MergeProfiles]
            .map(|operation| self.profiles.faults().count(operation))
    }
}

/// Whether the events come in one batch or each in its own, to one container or always a new one, what comes of them is
/// the same.
#[tokio::test]
async fn p2_p3_users_who_turn_out_to_be_one_are_one_from_that_event_on() {
    type Case<'c> = (
        &'c [&'c str],
        &'c [(&'c str, u64)],
        &'c [(&'c str, &'c str)],
        &'c [&'c str],
    );
    let cases: &[Case<'_>] = &[
        (
            &["?x click", "?x hint", "ann+x click", "?x hint", "ann click"],
            &[("ann", 5)],
            &[(ANONYMOUS, "ann")],
            &[ANONYMOUS, "ann"],
        ),
        // Nothing is known of the other key yet.
        (
            &["ann+x hint", "?x hint"],
            &[("ann", 2)],
            &[(ANONYMOUS, "ann")],
            &["ann", "ann"],
        ),
        // A device of two: it belongs to whom it was first found to be.
        (
            &["?x click", "ann+x click", "ben+x hint", "?x hint", "ben+x click"],
            &[("ann", 3), ("ben", 2)],
            &[(ANONYMOUS, "ann")],
            &["ben", "ann"],
        ),
        // A user of two devices.
        (
            &[
                "?x click",
                "?y click",
                "ann+x click",
                "ann+y click",
                "?y hint",
                "?x hint",
            ],
            &[("ann", 6)],
            &[(ANONYMOUS, "ann"), ("anonymous:y", "ann")],
            &["ann", "ann"],
        ),
        // A chain, and a circle.
        (
            &[
                "?x click",
                "ann+x click",
                "bea<ann alias",
                "?x hint",
                "ann hint",
                "ann<bea alias",
            ],
            &[("bea", 6)],
            &[(ANONYMOUS, "ann"), ("ann", "bea")],
            &["bea", "bea"],
        ),
        // Two that were each other before: the first says who is who.
        (
            &["ann click", "bea click", "ann<bea alias", "bea<ann alias", "bea hint"],
            &[("ann", 5)],
            &[("bea", "ann")],
            &["ann"],
        ),
        // What the journey ignores merges nothing.
        (
            &["?x click", "ann+x heartbeat", "ann click"],
            &[(ANONYMOUS, 1), ("ann", 1)],
            &[],
            &[],
        ),
    ];
    for (written, applied, pointers, triggered) in cases {
        for (events_in_batch, always_cold) in [(1, false), (1, true), (2, false), (2, true), (100, false)] {
            let what = format!("{written:?} by {events_in_batch}, always cold: {always_cold}");
            let mut world = World::new();
            let all = batch(0, written);
            for _ in 0..2 {
                for records in all.chunks(events_in_batch) {
                    assert_eq!(world.run(records).await.retried_from, None, "{what}");
                    if always_cold {
                        world = world.restarted();
                    }
                }
            }
            for (user, events) in *applied {
                assert_eq!(world.applied(user), *events, "{what}: {user}");
            }
            for (key, user) in *pointers {
                assert_eq!(world.pointer(key).as_deref(), Some(*user), "{what}: {key}");
            }
            assert_eq!(world.profiles.items().len(), applied.len() + pointers.len(), "{what}");
            // Users of one batch have no order among them.
            let mut found = world.triggered();
            found.sort_unstable();
            let mut expected = triggered.to_vec();
            expected.sort_unstable();
            assert_eq!(found, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn p4_an_event_that_names_a_remembered_profile_costs_nothing_more() {
    let world = World::new();
    assert_eq!(
        world.run(&batch(0, &["?x click", "ann+x click"])).await.counted.merged,
        1
    );
    let before = world.calls();
    let ran = world.run(&batch(2, &["ann+x click", "ann+x click"])).await;
    assert_eq!((ran.counted.profile_reads, ran.counted.conditional_writes), (0, 1));
    assert_eq!(world.calls(), [before[0], before[1] + 1, before[2]]);
    // A pointer is remembered too.
    let ran = world.run(&batch(4, &["?x click", "ann click"])).await;
    assert_eq!((ran.counted.profile_reads, ran.counted.conditional_writes), (0, 1));
    // One that is not remembered any more is told by its pointer, and costs one read in a cold container.
    let mut profile = world.profile("ann").expect("stored");
    profile.aliases.clear();
    let item = world.profiles.item("ann").expect("stored");
    let state = profile_state::encode(&profile, &world.journey);
    world.profiles.insert(ProfileItem { state, ..item });
    let world = world.restarted();
    let ran = world.run(&batch(6, &["ann+x click"])).await;
    assert_eq!((ran.counted.profile_reads, ran.counted.conditional_writes), (2, 1));
    assert_eq!(world.profile("ann").expect("stored").aliases, [alias_hash(ANONYMOUS)]);
    assert_eq!(world.calls()[2], before[2], "nothing is merged twice");
}

#[tokio::test]
async fn p5_what_the_other_profile_holds_unsent_goes_first() {
    let world = World::new();
    world.triggers.faults().inject(Fault::Refuse);
    let anonymous = batch(0, &["?x hint"]);
    assert_eq!(world.run(&anonymous).await.retried_from, Some(0));
    let world = world.restarted();
    let ran = world.run(&batch(1, &["ann+x hint"])).await;
    assert_eq!((ran.retried_from, ran.counted.merged), (None, 1));
    assert_eq!(world.triggered(), [ANONYMOUS, "ann"]);
    assert_eq!(world.run(&anonymous).await.counted.redelivered, 1);
    assert_eq!(world.triggered().len(), 2);

    // What can't be sent keeps the other where it is.
    let world = World::new();
    world.triggers.faults().inject(Fault::Refuse);
    world.run(&anonymous).await;
    let world = world.restarted();
    world.triggers.faults().inject(Fault::Refuse);
    let both = batch(1, &["ann+x hint"]);
    assert_eq!(world.run(&both).await.retried_from, Some(0));
    assert_eq!((world.calls()[2], world.pointer(ANONYMOUS)), (0, None));
    assert_eq!(world.run_to_the_end(&both).await, (1, 0));
    assert_eq!(world.triggered(), [ANONYMOUS, "ann"]);
}

#[tokio::test]
async fn p6_another_profile_that_can_not_be_merged_holds_nobody_up() {
    for unreadable in [false, true] {
        let world = World::new();
        world.run(&batch(0, &["?x click"])).await;
        let item = world.profiles.item(ANONYMOUS).expect("stored");
        if unreadable {
            world.profiles.insert_unreadable(ANONYMOUS, "it was damaged");
        } else {
            let park = world
                .profiles
                .park(ANONYMOUS, ParkTarget::Version(1), Timestamp::default());
            park.await.expect("it is in memory");
        }
        let world = world.restarted();
        let ran = world.run(&batch(1, &["ann+x click", "ann+x click", "ann click"])).await;
        let counted = &ran.counted;
        assert_eq!(
            (ran.retried_from, counted.applied, counted.merges_deferred),
            (None, 3, 1)
        );
        assert_eq!((counted.merged, counted.parked, world.calls()[2]), (0, 0, 0));
        assert!(
            world.profile("ann").expect("stored").aliases.is_empty(),
            "it is not remembered"
        );

        // Once it is mended, the next event merges it.
        world.profiles.insert(ProfileItem { version: 9, ..item });
        let ran = world.run(&batch(4, &["ann+x click"])).await;
        assert_eq!((ran.counted.merged, world.applied("ann")), (1, 5));
        assert_eq!(world.pointer(ANONYMOUS).as_deref(), Some("ann"));
    }
}

#[tokio::test]
async fn p10_profiles_that_are_too_large_together_stay_two() {
    let world = World::of(&growing_journey(30));
    let clicks = |from: u64, ids: &str| -> Vec<TestRecord> {
        let click = |number: u64| {
            let mut record = of(number, ids, "click");
            let text = String::from_utf8(record.data).expect("text");
            let category = format!(r#","category":"{}"}}"#, long_category(number));
            record.data = text.replacen('}', &category, 1).into_bytes();
            record
        };
        (from..from + 30).map(click).collect()
    };
    assert_eq!(world.run(&clicks(0, "?x")).await.counted.applied, 30);
    assert_eq!(world.run(&clicks(30, "ann")).await.counted.applied, 30);
    // Each list keeps 50, so together they fill up.
    let ran = world.run(&batch(60, &["ann+x click", "ann+x click"])).await;
    let together = world.profiles.item("ann").expect("stored").state.len();
    if ran.counted.merges_deferred == 0 {
        assert!(together > PROFILE_STATE_BYTES_MAX / 2, "{together}");
    }
    assert_eq!(
        (ran.retried_from, ran.counted.applied, ran.counted.parked),
        (None, 2, 0)
    );
}

#[tokio::test]
async fn p8_who_names_thousands_is_looked_at_a_bounded_number_of_times() {
    let world = World::new();
    let all: Vec<TestRecord> = (0..2_000)
        .map(|number| of(number, &format!("ann+a{number}"), "click"))
        .collect();
    let ran = world.run(&all).await;
    assert_eq!((ran.retried_from, ran.counted.applied), (None, 2_000));
    assert_eq!(ran.counted.merges_deferred, 2_000 - 32);
    assert_eq!(world.calls()[2], 32);
}

#[tokio::test]
async fn p10_pointers_that_go_round_or_on_and_on_park_the_event() {
    for links in [2, POINTERS_MAX + 2] {
        let world = World::new();
        for number in 0..links {
            world.profiles.insert(ProfileItem {
                user_id: format!("u{number}"),
                version: 1,
                merged_into: Some(format!("u{}", (number + 1) % links)),
                ..ProfileItem::default()
            });
        }
        let ran = world.run(&batch(0, &["u0 click", "ann click"])).await;
        assert_eq!(
            (ran.retried_from, ran.counted.parked, ran.counted.applied),
            (None, 1, 1),
            "{links}"
        );
        // Nobody is marked: where following ended, somebody may be well. The event waits under the id that it names.
        assert!(
            world.profiles.items().iter().all(|item| item.parked_since.is_none()),
            "{links}"
        );
        let rejected = world.rejected.records();
        let parked: RejectedRecord<'_> = serde_json::from_slice(&rejected[0].record.data).expect("a rejected record");
        assert_eq!((parked.user.as_deref(), parked.parked), (Some("u0"), true), "{links}");
        // Whoever names it goes on alone.
        let ran = world.run(&batch(2, &["ann<u0 alias"])).await;
        assert_eq!((ran.counted.applied, ran.counted.merges_deferred), (1, 1), "{links}");
    }
}

/// P2, P6: renames that would make too long a chain of pointers are applied without merging, so nobody is parked.
#[tokio::test]
async fn p6_a_chain_of_many_renames_parks_nobody() {
    let renames: Vec<String> = (1..=12)
        .map(|number| format!("u{number}<u{} alias", number - 1))
        .collect();
    let renames: Vec<&str> = ["u0 click"]
        .into_iter()
        .chain(renames.iter().map(String::as_str))
        .collect();
    for batch_size in [1, 3, 13] {
        let world = World::new();
        let mut deferred = 0;
        for (number, some) in renames.chunks(batch_size).enumerate() {
            let ran = world.run(&batch((number * batch_size) as u64, some)).await;
            assert_eq!((ran.retried_from, ran.counted.parked), (None, 0), "{batch_size}");
            deferred += ran.counted.merges_deferred;
        }
        assert_eq!(deferred, 1, "{batch_size}");
        let ran = world
            .run(&batch(20, &["u0 click", "u8 click", "u9 click", "u12 click"]))
            .await;
        assert_eq!((ran.counted.parked, ran.counted.applied), (0, 4), "{batch_size}");
        assert_eq!(
            (
                world.profile("u8").expect("stored").applied_events,
                world.profile("u12").expect("stored").applied_events
            ),
            (11, 6),
            "{batch_size}"
        );
        assert_eq!(
            usize::from(world.profile("u8").expect("stored").pointer_depth),
            POINTERS_MAX,
            "{batch_size}"
        );
        assert_eq!(world.pointer("u8"), None, "{batch_size}");
    }
}

#[tokio::test]
async fn p4_concurrent_merges_and_writes_conflict_and_come_out_as_one() {
    // What another container does to either item, just before the merge is written.
    for side in ["ann", ANONYMOUS] {
        let world = World::new();
        world.run(&batch(0, &["?x click", "ann click"])).await;
        let (profiles, journey) = (world.profiles.clone(), world.journey.clone());
        let mut left = 1;
        world.profiles.faults().on_call(move |call| {
            if call.operation == Operation::MergeProfiles && left > 0 {
                left -= 1;
                let item = profiles.item(side).expect("stored");
                let mut profile = profile_state::decode(&item.state, item.version, side, &journey).expect("readable");
                profile.applied_events += 10;
                profiles.insert(ProfileItem {
                    version: item.version + 1,
                    state: profile_state::encode(&profile, &journey),
                    ..item
                });
            }
            None
        });
        let ran = world.run(&batch(2, &["ann+x click"])).await;
        assert_eq!(
            (ran.retried_from, ran.counted.conflicts, ran.counted.merged),
            (None, 1, 1),
            "{side}"
        );
        assert_eq!(world.applied("ann"), 13, "{side}");
        assert_eq!(world.pointer(ANONYMOUS).as_deref(), Some("ann"), "{side}");
    }
    // Another container has found the device to be someone else's.
    let world = World::new();
    world.run(&batch(0, &["?x click", "ann click"])).await;
    let profiles = world.profiles.clone();
    world.profiles.faults().on_call(move |call| {
        if call.operation == Operation::MergeProfiles {
            profiles.insert(ProfileItem {
                user_id: ANONYMOUS.to_owned(),
                version: 2,
                merged_into: Some("ben".to_owned()),
                ..ProfileItem::default()
            });
        }
        None
    });
    let ran = world.run(&batch(2, &["ann+x click", "?x click"])).await;
    assert_eq!((ran.retried_from, ran.counted.merged), (None, 0));
    assert_eq!((world.applied("ann"), world.applied("ben")), (2, 1));
    assert_eq!(world.pointer(ANONYMOUS).as_deref(), Some("ben"));
}

#[tokio::test]
async fn p6_events_that_come_by_a_pointer_wait_with_those_of_a_parked_user() {
    let world = World::new();
    world.run(&batch(0, &["?x click", "ann+x click"])).await;
    let version = world.profiles.item("ann").expect("stored").version;
    let park = world
        .profiles
        .park("ann", ParkTarget::Version(version), Timestamp::default());
    park.await.expect("it is in memory");
    let records = batch(2, &["?x click", "ann click"]);
    let ran = world.run(&records).await;
    assert_eq!(
        (ran.retried_from, ran.counted.parked, ran.counted.parked_users),
        (None, 2, 1)
    );
    let users: Vec<String> = world
        .rejected
        .records()
        .iter()
        .map(|stored| stored.record.partition_key.clone())
        .collect();
    assert_eq!(users.len(), 2);
    assert_eq!(users[0], users[1], "they are in one order");
}
