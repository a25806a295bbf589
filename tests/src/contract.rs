//! The contract of the ports: what every implementation keeps, be it the AWS adapters over real services or emulators,
//! or the in-memory stand-ins. A flow that is right over one is right over all.
//!
//! Each function takes a port and panics where the port breaks the contract. They may share a table or stream with
//! others and run again on it, because `run` (any text that is new each time) is part of every key that they use.

mod models;
mod trends;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use usher_domain::sequence_number::SequenceNumber;
use usher_domain::time::Timestamp;
use usher_pipeline::ports::{
    CallError, DUE_PAGE_USERS_MAX, DecisionItem, DecisionStatus, DecisionTable, DueIndex, DueUser, FileAnswer,
    GET_USERS_MAX, MergeAnswer, MergeSide, MergeWrite, OutcomeItem, PUT_RECORDS_MAX, ParkAnswer, ParkTarget,
    ProfileItem, ProfileTable, PutAnswer, PutOutcome, RecordAnswer, RecordStream, StreamRecord, due_shard,
};

pub use models::model_table;
pub use trends::trend_table;

/// A state that leaves room for the rest of an item of 400 KB.
const LARGE_STATE_BYTES: usize = 390 * 1024;
/// A state that does not.
const TOO_LARGE_STATE_BYTES: usize = 401 * 1024;
/// A record that leaves room for its partition key in 1 MiB.
const LARGE_RECORD_BYTES: usize = 1024 * 1024 - 256;
/// A record that does not fit into 1 MiB.
const TOO_LARGE_RECORD_BYTES: usize = 1024 * 1024 + 1;
/// How often a read is asked again for what it left over.
const READS_MAX: usize = 20;
/// How long an index may take until it is asked again.
const INDEX_PAUSE: Duration = Duration::from_millis(50);

/// A `profiles` table: reads what was written, and writes only on the version that is stored (P4).
pub async fn profile_table(table: &impl ProfileTable, run: &str) {
    a_missing_user_is_not_returned(table, run).await;
    what_is_written_is_read(table, run).await;
    a_write_on_another_version_conflicts_and_gives_the_stored_item(table, run).await;
    a_hundred_profiles_are_read_in_one_go(table, run).await;
    any_bytes_and_any_name_come_back(table, run).await;
    an_item_may_be_large_but_not_too_large(table, run).await;
    parking_marks_the_item_that_was_read_and_raises_its_version(table, run).await;
    a_merge_writes_both_items_or_neither(table, run).await;
    a_merge_whose_answer_was_lost_is_told_by_both_items(table, run).await;
}

/// The index of due users over a `profiles` table: who is due by a time, in the order of when, a page at a time. It may follow
/// the table with a delay, so what is written is asked for until it is there.
pub async fn due_index(table: &impl ProfileTable, index: &impl DueIndex, run: &str) {
    // Of one partition: more than a page, some of them due at the same moment.
    let of_one = (0..).map(|number| format!("{run}-due-{number}"));
    let shard = due_shard(&format!("{run}-due-0"));
    let users: Vec<String> = of_one
        .filter(|user| due_shard(user) == shard)
        .take(DUE_PAGE_USERS_MAX + 3)
        .collect();
    let due_at = |number: usize| Timestamp::from_epoch_ms(1_767_607_200_000 + number as i64 / 2);
    for (number, user) in users.iter().enumerate() {
        let item = ProfileItem {
            next_due_at: Some(due_at(number)),
            ..profile(user, 1, b"state")
        };
        written(table, &item, 0).await;
    }
    let last = due_at(users.len() - 1);
    let found = until_there(users.len(), async || all_due(index, &shard, run, last).await).await;
    assert_eq!(found.len(), users.len(), "each once");
    assert!(
        found.is_sorted_by_key(|user| user.due_at),
        "in the order of when they are due"
    );
    let names: BTreeSet<&str> = found.iter().map(|user| user.user_id.as_str()).collect();
    assert_eq!(names.len(), users.len());
    let by_the_tenth = all_due(index, &shard, run, due_at(9)).await;
    assert_eq!(by_the_tenth.len(), 10, "up to the time, and at it");
    assert!(all_due(index, &shard, run, due_at(0).minus_ms(1)).await.is_empty());

    // Who waits for nothing any more is not in it.
    written(table, &profile(&users[0], 2, b"state"), 1).await;
    until_there(1, async || all_due(index, &shard, run, due_at(0)).await).await;
}

/// Asks until so many are found.
async fn until_there(count: usize, ask: impl AsyncFn() -> Vec<DueUser>) -> Vec<DueUser> {
    for _ in 0..READS_MAX {
        let found = ask().await;
        if found.len() == count {
            return found;
        }
        tokio::time::sleep(INDEX_PAUSE).await;
    }
    panic!("the index does not come to have {count} of them");
}

async fn all_due(index: &impl DueIndex, shard: &str, run: &str, until: Timestamp) -> Vec<DueUser> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = index.page(shard, until, after.as_ref()).await.expect("it answers");
        assert!(page.users.len() <= DUE_PAGE_USERS_MAX, "a page holds no more");
        found.extend(page.users.into_iter().filter(|user| user.user_id.starts_with(run)));
        match page.next_after {
            Some(last) => after = Some(last),
            None => return found,
        }
    }
}

/// A `profiles` table that also counts capacity units as DynamoDB does. Nothing but metrics depends on them, and not
/// every emulator reports them all.
pub async fn profile_table_units(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-units");
    assert_eq!(written(table, &profile(&user, 1, b"small"), 0).await, 1.0);
    let (_, units) = conflicted(table, &profile(&user, 1, b"small"), 0).await;
    assert_eq!(units, 1.0, "a failed condition is billed by the stored item");
    let read_units = table.get(&[&user]).await.expect("it answers").read_units;
    assert!(
        read_units >= 1.0,
        "a strongly consistent read takes a unit, not {read_units}"
    );

    let large = profile(&user, 2, &vec![0xA5; LARGE_STATE_BYTES]);
    let units = written(table, &large, 1).await;
    assert!(
        (390.0..=392.0).contains(&units),
        "390 KB are written with a unit for each, not with {units}"
    );
    let (_, units) = conflicted(table, &profile(&user, 3, b"small"), 1).await;
    assert!(
        (390.0..=392.0).contains(&units),
        "a failed condition is billed by the stored item, not with {units}"
    );

    let (user, other) = (format!("{run}-units-of-a-user"), format!("{run}-units-of-another"));
    let merge = merge_of(&user, 0, &other, 0);
    match table.merge(&merge).await {
        Ok(MergeAnswer::Written { write_units }) => assert_eq!(write_units, 4.0, "two for each item"),
        other => panic!("nothing is in its way, but {other:?}"),
    }
}

async fn a_missing_user_is_not_returned(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-missing");
    assert_eq!(read(table, &[&user]).await, []);
    let nobody = table.get(&[]).await.expect("asking for nobody is no mistake");
    assert!(nobody.items.is_empty() && nobody.unprocessed.is_empty());
}

async fn what_is_written_is_read(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-written");
    let first = profile(&user, 1, b"first");
    written(table, &first, 0).await;
    assert_eq!(read(table, &[&user]).await, [first]);

    let second = profile(&user, 2, b"second");
    written(table, &second, 1).await;
    let missing = format!("{run}-still-missing");
    assert_eq!(
        read(table, &[&missing, &user]).await,
        [second],
        "a missing user does not hide another"
    );
}

async fn a_write_on_another_version_conflicts_and_gives_the_stored_item(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-conflict");
    let stored = profile(&user, 3, b"stored");
    let wanted = profile(&user, 8, b"wanted");

    let (current, _) = conflicted(table, &wanted, 7).await;
    assert_eq!(current, None, "nothing is stored, and a version was expected");
    assert_eq!(read(table, &[&user]).await, [], "a conflict writes nothing");

    written(table, &stored, 0).await;
    for expected_version in [0, 1, 2, 4, 7, u64::MAX] {
        let (current, _) = conflicted(table, &wanted, expected_version).await;
        assert_eq!(current.as_ref(), Some(&stored), "expected version {expected_version}");
    }
    assert_eq!(
        read(table, &[&user]).await,
        std::slice::from_ref(&stored),
        "a conflict writes nothing"
    );

    // The same write again, as after a lost answer: the conflict shows that it is there.
    written(table, &wanted, 3).await;
    let (current, _) = conflicted(table, &wanted, 3).await;
    assert_eq!(current, Some(wanted));
}

async fn a_hundred_profiles_are_read_in_one_go(table: &impl ProfileTable, run: &str) {
    let users: Vec<String> = (0..GET_USERS_MAX)
        .map(|number| format!("{run}-many-{number:03}"))
        .collect();
    let mut expected = Vec::new();
    for (number, user) in users.iter().enumerate().filter(|(number, _)| number % 2 == 0) {
        let profile = profile(user, 1, &number.to_be_bytes());
        written(table, &profile, 0).await;
        expected.push(profile);
    }
    let asked: Vec<&str> = users.iter().map(String::as_str).collect();
    assert_eq!(read(table, &asked).await, expected);
}

async fn any_bytes_and_any_name_come_back(table: &impl ProfileTable, run: &str) {
    let all_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(3 * 256).collect();
    for (number, name) in NAUGHTY_NAMES.iter().enumerate() {
        // An empty state too: DynamoDB takes empty binary attributes that are no keys.
        let state = if number == 0 { &[][..] } else { &all_bytes };
        let profile = profile(&format!("{run}-{name}"), u64::MAX - number as u64, state);
        written(table, &profile, 0).await;
        assert_eq!(
            read(table, &[&profile.user_id]).await,
            std::slice::from_ref(&profile),
            "{name:?}"
        );
    }
}

async fn an_item_may_be_large_but_not_too_large(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-large");
    let large = profile(&user, 1, &vec![0xA5; LARGE_STATE_BYTES]);
    let units = written(table, &large, 0).await;
    assert!(
        (390.0..=400.0).contains(&units),
        "390 KB are written with a unit for each, not with {units}"
    );
    assert_eq!(read(table, &[&user]).await, std::slice::from_ref(&large));
    let (current, _) = conflicted(table, &profile(&user, 1, b"small"), 0).await;
    assert_eq!(
        current,
        Some(large.clone()),
        "a large item comes back with a conflict too"
    );

    let too_large = profile(&user, 2, &vec![0xA5; TOO_LARGE_STATE_BYTES]);
    match table.put(&too_large, 1).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("over 400 KB is refused, not {other:?}"),
    }
    assert_eq!(
        read(table, &[&user]).await,
        [large],
        "a refused write leaves what was there"
    );
}

async fn parking_marks_the_item_that_was_read_and_raises_its_version(table: &impl ProfileTable, run: &str) {
    let user = format!("{run}-parked");
    let since = Timestamp::from_epoch_ms(1_767_607_200_456);
    let later = Timestamp::from_epoch_ms(1_767_607_300_000);
    for target in [ParkTarget::Version(1), ParkTarget::Unreadable] {
        match table.park(&user, target, since).await {
            Ok(ParkAnswer::Conflict { current: None, .. }) => {}
            other => panic!("without an item, nothing is parked, but {other:?}"),
        }
    }
    assert_eq!(read(table, &[&user]).await, [], "and none is made");

    let large = ProfileItem {
        // Nobody wakes a parked user: each wake-up would be parked in turn.
        next_due_at: Some(later),
        ..profile(&user, 1, &vec![0xA5; LARGE_STATE_BYTES])
    };
    written(table, &large, 0).await;
    match table.park(&user, ParkTarget::Version(2), since).await {
        Ok(ParkAnswer::Conflict { current, .. }) => assert_eq!(current.as_ref(), Some(&large)),
        other => panic!("another version is stored, but {other:?}"),
    }
    let parked = |version: u64| ProfileItem {
        version,
        parked_since: Some(since),
        next_due_at: None,
        merged_into: None,
        ..large.clone()
    };
    parks(table, &user, ParkTarget::Version(1), since).await;
    assert_eq!(
        read(table, &[&user]).await,
        [parked(2)],
        "a large item has room for the marker"
    );
    let (current, _) = conflicted(table, &profile(&user, 2, b"stale"), 1).await;
    assert_eq!(current, Some(parked(2)), "whoever read it before conflicts");

    parks(table, &user, ParkTarget::Version(2), later).await;
    parks(table, &user, ParkTarget::Unreadable, later).await;
    assert_eq!(read(table, &[&user]).await, [parked(4)], "the first time stays");
    written(table, &parked(5), 4).await;
    assert_eq!(read(table, &[&user]).await, [parked(5)], "a write may keep the marker");
    let free = profile(&user, 6, b"mended");
    written(table, &free, 5).await;
    assert_eq!(read(table, &[&user]).await, [free], "one without it ends the parking");
}

/// The user with this version merges the other with that one: both as they are to be.
fn merge_of(user: &str, into_expected: u64, other: &str, from_expected: u64) -> MergeWrite {
    MergeWrite {
        into: profile(user, into_expected + 1, b"both"),
        into_expected,
        from: ProfileItem {
            merged_into: Some(user.to_owned()),
            ..profile(other, from_expected + 1, b"")
        },
        from_expected,
        token: fastrand::u128(..),
    }
}

async fn a_merge_writes_both_items_or_neither(table: &impl ProfileTable, run: &str) {
    // What is stored of the user and of the other (a version), and what the merge expects of each.
    for (number, (stored, expected)) in [
        ([0, 0], [0, 0]),
        ([3, 0], [3, 0]),
        ([0, 5], [0, 5]),
        ([3, 5], [3, 5]),
        ([3, 5], [2, 5]),
        ([3, 5], [3, 4]),
        ([3, 5], [4, 6]),
        ([3, 5], [0, 5]),
        ([3, 5], [3, 0]),
        ([3, 0], [3, 5]),
        ([0, 5], [3, 5]),
        ([0, 0], [3, 5]),
    ]
    .into_iter()
    .enumerate()
    {
        let users = ["user", "other"].map(|side| format!("{run}-merge-{number}-{side}"));
        let mut items = [None, None];
        for (item, (user, version)) in items.iter_mut().zip(users.iter().zip(stored)) {
            if version > 0 {
                let stored = profile(user, version, b"stored");
                written(table, &stored, 0).await;
                *item = Some(stored);
            }
        }
        let merge = merge_of(&users[0], expected[0], &users[1], expected[1]);
        let what = format!("{stored:?} is stored, {expected:?} expected");
        let both: Vec<&str> = users.iter().map(String::as_str).collect();
        match table.merge(&merge).await {
            Ok(MergeAnswer::Written { write_units }) => {
                assert_eq!(stored, expected, "{what}");
                assert!(
                    write_units >= 2.0,
                    "{what}: a write takes a unit, not {write_units} for two"
                );
                // In the order of their names.
                assert_eq!(read(table, &both).await, [merge.from, merge.into], "{what}");
            }
            Ok(MergeAnswer::Conflict { into, from, .. }) => {
                let sides = [into, from]
                    .into_iter()
                    .zip(items.iter())
                    .zip(stored.iter().zip(expected));
                for ((side, item), (stored, expected)) in sides {
                    let changed = MergeSide::Changed(item.clone().map(Box::new));
                    let right = if *stored == expected {
                        MergeSide::AsExpected
                    } else {
                        changed
                    };
                    assert_eq!(side, right, "{what}");
                }
                let [user, other] = items;
                let unchanged: Vec<ProfileItem> = other.into_iter().chain(user).collect();
                assert_eq!(read(table, &both).await, unchanged, "{what}: a conflict writes nothing");
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    let alone = format!("{run}-merge-alone");
    match table.merge(&merge_of(&alone, 0, &alone, 0)).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("nobody is merged with themselves, but {other:?}"),
    }
    let (user, other) = (format!("{run}-merge-large"), format!("{run}-merge-large-other"));
    let mut large = merge_of(&user, 0, &other, 0);
    large.into.state = vec![0xA5; LARGE_STATE_BYTES];
    let too_large = MergeWrite {
        into: profile(&user, 1, &vec![0xA5; TOO_LARGE_STATE_BYTES]),
        token: fastrand::u128(..),
        ..large.clone()
    };
    match table.merge(&too_large).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("over 400 KB is refused, not {other:?}"),
    }
    assert_eq!(
        read(table, &[&user, &other]).await,
        [],
        "a refused merge writes nothing"
    );
    match table.merge(&large).await {
        Ok(MergeAnswer::Written { .. }) => {}
        other => panic!("a large item is written, but {other:?}"),
    }
    assert_eq!(read(table, &[&user, &other]).await, [large.into, large.from]);
}

async fn a_merge_whose_answer_was_lost_is_told_by_both_items(table: &impl ProfileTable, run: &str) {
    let (user, other) = (format!("{run}-merge-again-user"), format!("{run}-merge-again-other"));
    let merge = merge_of(&user, 0, &other, 0);
    for again in 0..2 {
        match table.merge(&merge).await {
            Ok(MergeAnswer::Written { .. }) => {}
            Ok(MergeAnswer::Conflict { into, from, .. }) if again > 0 => {
                assert_eq!(into, MergeSide::Changed(Some(Box::new(merge.into.clone()))));
                assert_eq!(from, MergeSide::Changed(Some(Box::new(merge.from.clone()))));
            }
            other => panic!("it is written, but {other:?}"),
        }
        assert_eq!(
            read(table, &[&user, &other]).await,
            [merge.from.clone(), merge.into.clone()],
            "a merge that comes again changes nothing"
        );
    }
}

/// A `decisions` table: records a decision once, tells how far its delivery has come, and files what came of it.
pub async fn decision_table(table: &impl DecisionTable, run: &str) {
    use DecisionStatus::{Delivered, Pending, Undeliverable};
    let (user, trigger_id) = (format!("{run}-user"), "00112233445566778899aabbccddeeff");
    let first = decision(&user, trigger_id, "first");

    assert_eq!(recorded(table, &first, Pending).await, RecordAnswer::New);
    assert_eq!(recorded(table, &first, Pending).await, RecordAnswer::Known(Pending));
    let again = decision(&user, trigger_id, "again");
    assert_eq!(
        recorded(table, &again, Delivered).await,
        RecordAnswer::Known(Pending),
        "the first record stays"
    );

    for status in [Delivered, Undeliverable, Pending, Delivered] {
        table
            .set_status(&user, trigger_id, status)
            .await
            .expect("it is recorded");
        assert_eq!(recorded(table, &first, Pending).await, RecordAnswer::Known(status));
        table
            .set_status(&user, trigger_id, status)
            .await
            .expect("setting it again is no mistake");
    }

    let other_user = format!("{run}-other-user");
    for (other, status) in [
        (decision(&user, "ff", "x"), Delivered),
        (decision(&other_user, trigger_id, "x"), Pending),
    ] {
        assert_eq!(
            recorded(table, &other, status).await,
            RecordAnswer::New,
            "user and trigger id are the key"
        );
        assert_eq!(
            recorded(table, &other, Undeliverable).await,
            RecordAnswer::Known(status)
        );
    }

    match table.set_status(&user, "no such trigger", Delivered).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("a decision that is not recorded gets no status, but {other:?}"),
    }
    assert_eq!(
        recorded(table, &decision(&user, "no such trigger", "x"), Pending).await,
        RecordAnswer::New
    );

    let large = DecisionItem {
        trigger: "x".repeat(LARGE_STATE_BYTES),
        ..decision(&user, "large", "x")
    };
    assert_eq!(recorded(table, &large, Pending).await, RecordAnswer::New);
    let too_large = DecisionItem {
        trigger: "x".repeat(TOO_LARGE_STATE_BYTES),
        ..decision(&user, "too large", "x")
    };
    match table.record(&too_large, Pending).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("over 400 KB is refused, not {other:?}"),
    }
    outcomes_of_decisions(table, run).await;
}

async fn outcomes_of_decisions(table: &impl DecisionTable, run: &str) {
    use DecisionStatus::{Delivered, HeldOut};
    use FileAnswer::{Filed, Known};
    let user = format!("{run}-outcomes");
    let file = async |trigger_id: &str, rewards: u32| {
        let outcome = OutcomeItem {
            user_id: user.clone(),
            trigger_id: trigger_id.to_owned(),
            rewards_so_far: rewards,
            outcome: format!(r#"{{"reward":{rewards},"of":"Zoë \"\\\n"}}"#),
            expires_at_epoch_s: 4_102_444_800,
        };
        table.file_outcome(&outcome).await.expect("it answers")
    };
    // Under a decision: the one with the most rewards stays, whatever the order, and the decision is as it was.
    let first = decision(&user, "01", "x");
    assert_eq!(recorded(table, &first, HeldOut).await, RecordAnswer::New);
    for (rewards, answer) in [
        (1, Filed),
        (1, Known),
        (0, Known),
        (3, Filed),
        (2, Known),
        (10, Filed),
        (9, Known),
    ] {
        assert_eq!(file("01", rewards).await, answer, "{rewards}");
        assert_eq!(recorded(table, &first, Delivered).await, RecordAnswer::Known(HeldOut));
    }
    // Nothing came of it, which is told too.
    for answer in [Filed, Known] {
        assert_eq!(file("02", 0).await, answer);
    }
    // An outcome without its decision does not stand in for it, and stays when the decision comes.
    assert_eq!(
        recorded(table, &decision(&user, "02", "x"), Delivered).await,
        RecordAnswer::New
    );
    for status in [HeldOut, Delivered] {
        assert_eq!(
            recorded(table, &decision(&user, "02", "y"), status).await,
            RecordAnswer::Known(Delivered)
        );
    }
    assert_eq!((file("02", 0).await, file("02", 1).await), (Known, Filed));
}

/// A stream: gives an outcome for each record, in order; records of one shard keep their order.
pub async fn record_stream(stream: &impl RecordStream, run: &str) {
    assert_eq!(stream.put(&[]).await.expect("putting nothing is no mistake"), []);
    five_hundred_records_keep_their_order(stream, run).await;
    any_partition_key_is_taken(stream, run).await;
    a_record_may_be_large(stream, run).await;
}

/// A stream that also refuses what Kinesis refuses; not every emulator does.
pub async fn record_stream_limits(stream: &impl RecordStream) {
    let too_large = vec![0x5A; TOO_LARGE_RECORD_BYTES];
    for (what, records) in [
        ("a partition key of no character", vec![record("", vec![1])]),
        (
            "a partition key of 257 characters",
            vec![record(&"k".repeat(257), vec![1])],
        ),
        ("501 records", vec![record("k", vec![1]); PUT_RECORDS_MAX + 1]),
        (
            "a record over 1 MiB",
            vec![record("k", vec![1]), record("k", too_large)],
        ),
    ] {
        match stream.put(&records).await {
            Err(CallError::Refused { .. }) => {}
            other => panic!("{what} is refused, not {:?}", other.map(|outcomes| outcomes.len())),
        }
    }
}

async fn five_hundred_records_keep_their_order(stream: &impl RecordStream, run: &str) {
    let mut last_in_shard: BTreeMap<String, SequenceNumber> = BTreeMap::new();
    let mut shard_of_key: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for round in 0..2 {
        let records: Vec<StreamRecord> = (0..PUT_RECORDS_MAX)
            .map(|number| {
                record(
                    &format!("{run}-{}", number % 50),
                    format!("{run} {round} {number}").into_bytes(),
                )
            })
            .collect();
        for (record, (shard_id, sequence_number)) in records.iter().zip(stored(stream, &records).await) {
            let number: SequenceNumber = sequence_number.parse().expect("a sequence number is a number");
            if let Some(earlier) = last_in_shard.insert(shard_id.clone(), number) {
                assert!(
                    earlier < number,
                    "in {shard_id}, {sequence_number} comes after {earlier}"
                );
            }
            let known = shard_of_key
                .entry(record.partition_key.clone())
                .or_insert_with(|| shard_id.clone());
            assert_eq!(*known, shard_id, "a partition key keeps its shard");
            assert!(
                seen.insert((shard_id, sequence_number)),
                "no two records share a sequence number"
            );
        }
    }
}

async fn any_partition_key_is_taken(stream: &impl RecordStream, run: &str) {
    // Kinesis takes 256 characters. The embedded one counts bytes, and Usher's longest identifier has 256 of those.
    let longest: String = "k".repeat(256);
    let longest_in_two_bytes_each: String = "ÿ".repeat(128);
    let mut keys: Vec<String> = NAUGHTY_NAMES.iter().map(|name| format!("{run}{name}")).collect();
    keys.extend([longest, longest_in_two_bytes_each, " ".to_owned(), "\0".to_owned()]);
    for key in keys {
        let data: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(stored(stream, &[record(&key, data)]).await.len(), 1, "{key:?}");
    }
}

async fn a_record_may_be_large(stream: &impl RecordStream, run: &str) {
    let records = [
        record(run, b"before".to_vec()),
        record(run, vec![0x5A; LARGE_RECORD_BYTES]),
        record(run, vec![1]),
    ];
    let numbers: Vec<SequenceNumber> = stored(stream, &records)
        .await
        .iter()
        .map(|(_, number)| number.parse().expect("a number"))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// Names that trip what splits, escapes, trims or folds them.
const NAUGHTY_NAMES: [&str; 12] = [
    "",
    "plain",
    "UPPER",
    " spaces around ",
    "quo\"te'",
    "back\\slash",
    "new\nline\ttab\r",
    "a/b?c=d&e#f%20",
    "{\"json\":[null]}",
    "Zoë 用户 🙂 e\u{301}",
    "null",
    "../../etc/passwd; DROP TABLE profiles --",
];

fn profile(user_id: &str, version: u64, state: &[u8]) -> ProfileItem {
    let updated_at = Timestamp::from_epoch_ms(1_767_607_200_123);
    ProfileItem {
        user_id: user_id.to_owned(),
        version,
        state: state.to_vec(),
        updated_at,
        parked_since: None,
        next_due_at: None,
        merged_into: None,
    }
}

fn decision(user_id: &str, trigger_id: &str, offer: &str) -> DecisionItem {
    DecisionItem {
        user_id: user_id.to_owned(),
        trigger_id: trigger_id.to_owned(),
        rule: "welcome".to_owned(),
        slot: "in_app".to_owned(),
        offer: offer.to_owned(),
        decided_at: Timestamp::from_epoch_ms(1_767_607_200_123),
        trigger: r#"{"reason":{"saw":["Zoë \"\\\n"]}}"#.to_owned(),
        expires_at_epoch_s: 4_102_444_800,
    }
}

fn record(partition_key: &str, data: Vec<u8>) -> StreamRecord {
    StreamRecord {
        partition_key: partition_key.to_owned(),
        data,
    }
}

/// Reads these users, those that were left over too, in the order of their names.
async fn read(table: &impl ProfileTable, users: &[&str]) -> Vec<ProfileItem> {
    let mut items = Vec::new();
    let mut left: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
    for _ in 0..READS_MAX {
        let asked: Vec<&str> = left.iter().map(String::as_str).collect();
        let answer = table.get(&asked).await.expect("it answers");
        assert_eq!(answer.unreadable, [], "everything here was written as a profile");
        items.extend(answer.items);
        left = answer.unprocessed;
        if left.is_empty() {
            items.sort_by(|a, b| a.user_id.cmp(&b.user_id));
            return items;
        }
    }
    panic!("after {READS_MAX} reads these are still left over: {left:?}");
}

async fn written(table: &impl ProfileTable, profile: &ProfileItem, expected_version: u64) -> f64 {
    match table.put(profile, expected_version).await {
        Ok(PutAnswer::Written { write_units }) => write_units,
        other => panic!(
            "{:?} is written on version {expected_version}, but {other:?}",
            profile.user_id
        ),
    }
}

async fn conflicted(
    table: &impl ProfileTable,
    profile: &ProfileItem,
    expected_version: u64,
) -> (Option<ProfileItem>, f64) {
    match table.put(profile, expected_version).await {
        Ok(PutAnswer::Conflict { current, write_units }) => (current, write_units),
        other => panic!(
            "{:?} conflicts on version {expected_version}, but {other:?}",
            profile.user_id
        ),
    }
}

async fn parks(table: &impl ProfileTable, user: &str, target: ParkTarget, since: Timestamp) {
    match table.park(user, target, since).await {
        Ok(ParkAnswer::Parked { write_units }) => assert!(write_units >= 1.0, "a write takes a unit"),
        other => panic!("{user:?} is parked, but {other:?}"),
    }
}

async fn recorded(table: &impl DecisionTable, decision: &DecisionItem, status: DecisionStatus) -> RecordAnswer {
    table.record(decision, status).await.expect("it answers")
}

/// Shard and sequence number of each record, in order.
async fn stored(stream: &impl RecordStream, records: &[StreamRecord]) -> Vec<(String, String)> {
    let outcomes = stream.put(records).await.expect("it answers");
    assert_eq!(outcomes.len(), records.len(), "one outcome a record");
    let place = |outcome| match outcome {
        PutOutcome::Stored {
            shard_id,
            sequence_number,
        } => (shard_id, sequence_number),
        PutOutcome::Failed { code, message } => panic!("it is stored, but {code}: {message}"),
    };
    outcomes.into_iter().map(place).collect()
}
