mod identity;
mod parking;

use std::sync::Mutex;
use std::time::Duration;

use usher_domain::time::Timestamp;
use usher_wire::reject::RejectedRecord;
use usher_wire::trigger::TriggerRecord;

use super::*;
use crate::memory::{
    Fault, MemoryClock, MemoryProfileTable, MemorySink, MemoryStream, Operation, PARTITION_KEY_CHARS_MAX,
};
use crate::ports::{GET_USERS_MAX, PROFILE_STATE_BYTES_MAX, ProfileItem};
use crate::telemetry::ProfileWriterBatch;
use crate::testing::{EPOCH_MS, LONG, SHORT, TestRecord, invocation, payload, retried_from};
use usher_domain::limits::{CONDITION_BYTES_MAX, OUTBOX_RESEND_AGE_MS_MAX};
use usher_domain::profile::Profile;
use usher_wire::outcome::OutcomeRecord;
use usher_wire::profile_state;

/// Each sign-up fires once, each hint always; clicks only count.
const JOURNEY: &str = r"
journey: test
ignore: [heartbeat]
features: { clicks: { count: click } }
contents: [{ id: tour }]
triggers:
  - { id: welcome, on: sign_up, offer: tour, slot: top, limit: 1 }
  - { id: hint, on: hint, offer: tour, slot: top }
";

type Writer = ProfileWriter<MemoryProfileTable, MemoryStream, MemoryClock, MemorySink>;

/// A writer and what it writes to.
struct World {
    journey: Arc<Journey>,
    profiles: MemoryProfileTable,
    triggers: MemoryStream,
    rejected: MemoryStream,
    sink: MemorySink,
    writer: Writer,
}

/// What an invocation came to.
struct Ran {
    retried_from: Option<usize>,
    counted: ProfileWriterBatch,
}

impl World {
    fn new() -> World {
        World::of(JOURNEY)
    }

    fn of(journey: &str) -> World {
        let journey =
            Arc::new(Journey::parse(journey).unwrap_or_else(|errors| panic!("{}", errors.render("journey", journey))));
        let (profiles, triggers, rejected, sink) = (
            MemoryProfileTable::default(),
            MemoryStream::default(),
            MemoryStream::default(),
            MemorySink::default(),
        );
        let ports = ProfileWriterPorts {
            profiles: profiles.clone(),
            triggers: triggers.clone(),
            rejected: rejected.clone(),
            clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 1_000_000)),
            telemetry: sink.clone(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: 8,
            parallelization_factor: 1,
            metrics_namespace: "Usher".to_owned(),
        };
        World {
            writer: ProfileWriter::new(journey.clone(), ports, config),
            journey,
            profiles,
            triggers,
            rejected,
            sink,
        }
    }

    /// A new container over the same tables and streams.
    fn restarted(self) -> World {
        let writer = ProfileWriter::new(self.journey.clone(), self.writer.ports, self.writer.config);
        World { writer, ..self }
    }

    async fn run(&self, records: &[TestRecord]) -> Ran {
        self.run_within(records, LONG).await
    }

    /// Invokes the writer and checks what must hold of every invocation, whatever fails in it (P1): each record counts
    /// once, and those that come again are exactly those from the record that the response names.
    async fn run_within(&self, records: &[TestRecord], time: Duration) -> Ran {
        let started = std::time::Instant::now();
        let response = self
            .writer
            .run(invocation(&payload(records), time))
            .await
            .expect("a Kinesis batch");
        assert!(started.elapsed() < time + Duration::from_secs(2), "P10: it ends");
        let counted = ProfileWriterBatch::from_line(self.sink.lines().last().expect("a line a batch")).expect("ours");
        let settled = counted.applied
            + counted.duplicate
            + counted.redelivered
            + counted.dropped_by_rule
            + counted.woken
            + counted.rejected;
        assert_eq!(counted.received, records.len() as u64, "{counted:?}");
        assert_eq!(settled + counted.retried, counted.received, "{counted:?}");
        assert_eq!(counted.rejected_by_reason.values().sum::<u64>(), counted.rejected);
        let retried_from = retried_from(&response, records);
        let settled_by_response = retried_from.unwrap_or(records.len());
        assert_eq!(settled, settled_by_response as u64, "{counted:?}");
        Ran { retried_from, counted }
    }

    /// Invokes it until nothing comes again; gives the sums of applied and rejected records.
    async fn run_to_the_end(&self, records: &[TestRecord]) -> (u64, u64) {
        let (mut from, mut applied, mut rejected) = (0, 0, 0);
        for _ in 0..10 {
            let ran = self.run(&records[from..]).await;
            applied += ran.counted.applied;
            rejected += ran.counted.rejected;
            match ran.retried_from {
                Some(index) => from += index,
                None => return (applied, rejected),
            }
        }
        panic!("it never ends");
    }

    fn profile(&self, user: &str) -> Option<Profile> {
        let item = self.profiles.item(user)?;
        Some(profile_state::decode(&item.state, item.version, user, &self.journey).expect("readable"))
    }

    fn applied(&self, user: &str) -> u64 {
        self.profile(user).map_or(0, |profile| profile.applied_events)
    }

    /// The events that caused what is on the triggers stream.
    fn causes(&self) -> Vec<String> {
        let records = self.triggers.records();
        let cause = |data: &[u8]| {
            TriggerRecord::parse(data)
                .expect("a trigger")
                .cause
                .event_id
                .into_owned()
        };
        records.iter().map(|stored| cause(&stored.record.data)).collect()
    }

    /// Reason and sequence number of what is on the rejected stream.
    fn rejects(&self) -> Vec<(&'static str, String)> {
        let records = self.rejected.records();
        let reject = |data: &[u8]| {
            let rejected: RejectedRecord<'_> = serde_json::from_slice(data).expect("a reject");
            (rejected.reason.name(), rejected.sequence_number.into_owned())
        };
        records.iter().map(|stored| reject(&stored.record.data)).collect()
    }
}

fn event(number: u64, user: &str, event_type: &str) -> TestRecord {
    categorised(number, user, event_type, "c")
}

fn categorised(number: u64, user: &str, event_type: &str, category: &str) -> TestRecord {
    let at = TestRecord::new(number, "").arrived_at;
    TestRecord::new(
        number,
        format!(
            r#"{{"event_id":"e-{number}","event_type":"{event_type}","timestamp":"{at}","user_id":"{user}","category":"{category}"}}"#
        ),
    )
}

/// Records of these users and types, written `user type`, and `bad` for one that is no event.
fn records(from: u64, written: &[&str]) -> Vec<TestRecord> {
    let record = |(index, text): (usize, &&str)| match text.split_once(' ') {
        Some((user, event_type)) => event(from + index as u64, user, event_type),
        None => TestRecord::new(from + index as u64, *text),
    };
    written.iter().enumerate().map(record).collect()
}

#[tokio::test]
async fn an_empty_batch_is_done() {
    let world = World::new();
    let ran = world.run(&[]).await;
    assert_eq!((ran.retried_from, ran.counted.received), (None, 0));
    assert!(world.profiles.faults().calls().is_empty() && world.triggers.faults().calls().is_empty());
}

#[tokio::test]
async fn p4_a_conflict_is_planned_again_on_what_came_back_a_bounded_number_of_times() {
    for (conflicts, retried_from, version, reads_after) in
        [(0, None, 2, 0), (1, None, 3, 0), (8, None, 10, 0), (9, Some(1), 10, 1)]
    {
        let world = World::new();
        world.run(&records(0, &["a click", "b click"])).await;
        let (other, mut left) = (world.profiles.clone(), conflicts);
        world.profiles.faults().on_call(move |call| {
            if call.operation == Operation::PutProfile && call.keys == ["a"] && left > 0 {
                left -= 1;
                let current = other.item("a").expect("it is there");
                other.insert(ProfileItem {
                    version: current.version + 1,
                    ..current
                });
            }
            None
        });
        let batch = records(2, &["b click", "a click", "b click", "a click"]);
        let ran = world.run(&batch).await;
        assert_eq!(ran.retried_from, retried_from, "{conflicts}");
        assert_eq!(ran.counted.conflicts, conflicts);
        assert_eq!(world.profiles.item("a").expect("stored").version, version);
        assert_eq!(
            world.profiles.faults().count(Operation::GetProfiles),
            1,
            "a conflict costs no read"
        );
        assert_eq!(world.applied("b"), 3, "P6: the others are stored");
        world.run(&batch).await;
        assert_eq!((world.applied("a"), world.applied("b")), (3, 3), "P2");
        assert_eq!(world.profiles.faults().count(Operation::GetProfiles), 1 + reads_after);
    }
}

#[tokio::test]
async fn p4_what_another_writer_applied_in_between_stays() {
    let (world, elsewhere) = (World::new(), World::new());
    elsewhere.run(&records(0, &["a click", "a sign_up"])).await;
    let other = elsewhere.profiles.item("a").expect("stored");
    let mut there = Some(other);
    let profiles = world.profiles.clone();
    world.profiles.faults().on_call(move |call| {
        if call.operation == Operation::PutProfile
            && let Some(item) = there.take()
        {
            profiles.insert(item);
        }
        None
    });
    let ran = world.run(&records(1, &["a sign_up", "a click"])).await;
    assert_eq!(
        (ran.counted.redelivered, ran.counted.applied, ran.counted.conflicts),
        (1, 1, 1)
    );
    assert_eq!(world.applied("a"), 3);
    assert_eq!(
        world.causes(),
        ["e-1"],
        "P5: what the other writer stored unsent is sent"
    );
}

#[tokio::test]
async fn p4_a_write_whose_answer_was_lost_counts_as_written_once() {
    let world = World::new();
    world
        .profiles
        .faults()
        .inject_at(Operation::PutProfile, Fault::LostAnswer);
    let ran = world.run(&records(0, &["a sign_up", "a click"])).await;
    let counted = (
        ran.counted.applied,
        ran.counted.conditional_writes,
        ran.counted.conflicts,
    );
    assert_eq!((ran.retried_from, counted), (None, (2, 1, 0)));
    assert_eq!(
        (world.profiles.item("a").expect("stored").version, world.applied("a")),
        (1, 2)
    );
    assert_eq!(world.causes(), ["e-0"]);
}

#[tokio::test]
async fn p4_a_write_whose_answer_was_lost_and_that_another_writer_built_on_is_found_in_the_guard() {
    let world = World::new();
    let profiles = world.profiles.clone();
    world.profiles.faults().on_call(move |call| match call.number {
        1 => Some(Fault::LostAnswer),
        2 => {
            let written = profiles.item("a").expect("it was written");
            profiles.insert(ProfileItem { version: 2, ..written });
            None
        }
        _ => None,
    });
    let ran = world.run(&records(0, &["a sign_up", "a click"])).await;
    let counted = (ran.counted.redelivered, ran.counted.applied, ran.counted.conflicts);
    assert_eq!((ran.retried_from, counted), (None, (2, 0, 1)));
    assert_eq!((world.applied("a"), world.causes()), (2, vec!["e-0".to_owned()]));
}

#[tokio::test]
async fn p4_a_profile_is_read_again_unless_it_is_known_to_be_stored() {
    let put = |faults: &[Fault]| faults.to_vec();
    for (faults, reads_after) in [
        (put(&[]), 0),
        (put(&[Fault::LostAnswer]), 0), // the second attempt told
        (put(&[Fault::Throttle]), 0),
        (put(&[Fault::Refuse]), 1),
        (put(&[Fault::Hang]), 1),
        (put(&[Fault::LostAnswer, Fault::Hang]), 1),
        (put(&[Fault::LostAnswer, Fault::Refuse]), 1),
    ] {
        let world = World::new();
        world.run(&records(0, &["a click", "b click"])).await;
        for fault in &faults {
            world.profiles.faults().inject_at(Operation::PutProfile, fault.clone());
        }
        let batch = records(2, &["a sign_up", "a click"]);
        let ran = world.run_within(&batch, Duration::from_millis(400)).await;
        assert_eq!(ran.retried_from, (reads_after > 0).then_some(0), "{faults:?}");
        world.run(&batch).await;
        assert_eq!(
            world.profiles.faults().count(Operation::GetProfiles),
            1 + reads_after,
            "{faults:?}"
        );
        assert_eq!(world.applied("a"), 3, "P2: {faults:?}");
        assert_eq!(world.causes(), ["e-2"], "P5: {faults:?}");
    }
}

#[tokio::test]
async fn p6_a_call_that_hangs_leaves_time_for_the_others() {
    // The batch: users a and b are known, c is new; a bad record is between them.
    let batch = records(2, &["b sign_up", "bad", "a sign_up", "c click", "b click"]);
    type Case = (&'static str, fn(&World), Option<usize>, [u64; 3], usize, usize);
    let cases: [Case; 4] = [
        (
            "reading c",
            |world| world.profiles.faults().inject_at(Operation::GetProfiles, Fault::Hang),
            Some(3),
            [2, 3, 0],
            2,
            1,
        ),
        (
            "writing a",
            |world| {
                world.profiles.faults().on_call(|call| {
                    (call.keys == ["a"] && call.operation == Operation::PutProfile).then_some(Fault::Hang)
                });
            },
            Some(2),
            [1, 3, 1],
            1,
            1,
        ),
        (
            "putting triggers",
            |world| world.triggers.faults().inject(Fault::Hang),
            Some(0),
            [2, 3, 1],
            0,
            0,
        ),
        (
            "putting rejects",
            |world| world.rejected.faults().inject(Fault::Hang),
            Some(1),
            [2, 3, 1],
            2,
            0,
        ),
    ];
    for (what, hang, retried_from, applied, triggers, rejected) in cases {
        let world = World::new();
        world.run(&records(0, &["a click", "b click"])).await;
        let puts = Arc::new(Mutex::new(Vec::new()));
        for stream in [&world.triggers, &world.rejected] {
            let puts = puts.clone();
            stream.faults().on_call(move |_| {
                puts.lock().expect("no panics").push(Instant::now());
                None
            });
        }
        hang(&world);
        let time = SHORT * 6;
        let deadline = Instant::now() + time;
        let ran = world.run_within(&batch, time).await;
        let puts = puts.lock().expect("no panics").clone();
        assert!(puts.iter().all(|at| *at < deadline), "each stage has its time: {what}");
        assert_eq!(
            puts.len(),
            usize::from(triggers > 0) + usize::from(rejected > 0),
            "{what}"
        );
        assert_eq!(ran.retried_from, retried_from, "{what}");
        assert_eq!(["a", "b", "c"].map(|user| world.applied(user)), applied, "{what}");
        assert_eq!(
            (world.causes().len(), world.rejects().len()),
            (triggers, rejected),
            "{what}"
        );
        world.profiles.faults().on_call(|_| None);
        world.run_to_the_end(&batch).await;
        assert_eq!(["a", "b", "c"].map(|user| world.applied(user)), [2, 3, 1], "P2: {what}");
        let mut causes = world.causes();
        causes.sort();
        assert_eq!(causes, ["e-2", "e-4"], "P5: {what}");
    }
}

#[tokio::test]
async fn p10_an_invocation_without_time_answers_all_the_same() {
    let world = World::new();
    world.profiles.faults().on_call(|_| Some(Fault::Throttle));
    let batch = records(0, &["a click", "bad"]);
    assert_eq!(world.run_within(&batch, Duration::ZERO).await.retried_from, Some(0));
    world.profiles.faults().on_call(|_| None);
    assert_eq!(world.run(&batch).await.retried_from, None);
    assert_eq!(world.applied("a"), 1);
}

#[tokio::test]
async fn a_read_that_is_throttled_or_partial_asks_for_the_rest_only() {
    let world = World::new();
    for fault in [
        Fault::Throttle,
        Fault::Partial(vec![0, 2]),
        Fault::Throttle,
        Fault::Partial(vec![1]),
    ] {
        world.profiles.faults().inject_at(Operation::GetProfiles, fault);
    }
    let ran = world.run(&records(0, &["a click", "b click", "c click"])).await;
    assert_eq!((ran.retried_from, ran.counted.profile_reads), (None, 3));
    let calls = world.profiles.faults().calls();
    let reads: Vec<String> = calls
        .iter()
        .filter(|call| call.operation == Operation::GetProfiles)
        .map(|call| call.keys.concat())
        .collect();
    assert_eq!(reads, ["abc", "abc", "ac", "ac", "c"]);
}

#[tokio::test]
async fn p6_users_whose_profile_cannot_be_read_for_now_come_again_and_the_others_do_not_wait() {
    let world = World::new();
    world.run(&records(0, &["a click"])).await;
    world.profiles.faults().inject_at(Operation::GetProfiles, Fault::Refuse);
    let batch = records(1, &["a click", "b click", "a click", "c click"]);
    assert_eq!(world.run(&batch).await.retried_from, Some(1));
    assert_eq!(["a", "b", "c"].map(|user| world.applied(user)), [3, 0, 0]);
    assert_eq!(world.run(&batch[1..]).await.counted.redelivered, 1);
    assert_eq!(["a", "b", "c"].map(|user| world.applied(user)), [3, 1, 1]);
}

#[tokio::test]
async fn p1_p6_events_of_an_unreadable_profile_are_rejected_in_order_and_the_others_applied() {
    let state = |world: &World, state: &[u8]| {
        world.profiles.insert(ProfileItem {
            user_id: "a".to_owned(),
            version: 7,
            state: state.to_vec(),
            updated_at: Timestamp::default(),
            parked_since: None,
            next_due_at: None,
            merged_into: None,
        });
    };
    type Case<'c> = (&'static str, &'c dyn Fn(&World), u64);
    let cases: [Case<'_>; 5] = [
        (
            "an item that is no profile",
            &|world| world.profiles.insert_unreadable("a", "no state"),
            0,
        ),
        ("a damaged state", &|world| state(world, b"rubbish"), 0),
        ("an empty state", &|world| state(world, b""), 0),
        ("a newer layout", &|world| state(world, &[0x81, 0x18, 99]), 0),
        (
            "one that comes in between",
            &|world| {
                let profiles = world.profiles.clone();
                world.profiles.faults().on_call(move |call| {
                    if call.operation == Operation::PutProfile && call.keys == ["a"] {
                        profiles.insert_unreadable("a", "no state");
                    }
                    None
                });
            },
            0,
        ),
    ];
    for (what, prepare, writes_of_a) in cases {
        let world = World::new();
        prepare(&world);
        let batch = records(0, &["a click", "b sign_up", "a sign_up", "bad"]);
        let ran = world.run(&batch).await;
        assert_eq!(ran.retried_from, None, "{what}");
        let expected = [(0, "unreadable_profile"), (2, "unreadable_profile"), (3, "not_json")];
        let expected = expected.map(|(index, reason)| (reason, batch[index].sequence_number()));
        assert_eq!(world.rejects(), expected, "{what}");
        assert_eq!(
            (world.applied("b"), world.causes()),
            (1, vec!["e-1".to_owned()]),
            "{what}"
        );
        assert_eq!(ran.counted.conditional_writes, 1 + writes_of_a, "{what}");
    }
}

/// A journey whose profiles grow by about `features` times 256 bytes with each click of another category.
fn growing_journey(features: usize) -> String {
    let features: String = (0..features)
        .map(|index| format!("  r{index}: {{ recent: category, on: click, limit: 50, within: 24h }}\n"))
        .collect();
    // A trigger carries its rule's condition, so a long one makes an outbox that weighs something.
    let long = "x".repeat(CONDITION_BYTES_MAX - 100);
    format!(
        "journey: growing\nfeatures:\n{features}contents: [{{ id: tour }}]\ntriggers:\n  - {{ id: hint, on: hint, \
         when: '!(\"{long}\" in features.r0)', offer: tour, slot: top }}\n"
    )
}

fn long_category(number: u64) -> String {
    format!("{number:0>256}")
}

#[tokio::test]
async fn p5_what_makes_a_profile_too_large_for_now_goes_first() {
    let world = World::of(&growing_journey(30));
    let clicks: Vec<_> = (0..45)
        .map(|number| categorised(number, "a", "click", &long_category(number)))
        .collect();
    assert_eq!(world.run(&clicks).await.counted.applied, 45);
    let mut batch: Vec<_> = (45..60).map(|number| event(number, "a", "hint")).collect();
    world.triggers.faults().inject(Fault::Refuse);
    assert_eq!(world.run(&batch).await.retried_from, Some(0));
    assert_eq!(world.profile("a").expect("stored").outbox.len(), 15);
    batch.extend((60..63).map(|number| categorised(number, "a", "click", &long_category(number))));
    let with_clicks = world.profiles.item("a").expect("stored").state.len() + 3 * 30 * long_category(0).len();
    assert!(with_clicks > PROFILE_STATE_BYTES_MAX, "{with_clicks}");
    let ran = world.run(&batch).await;
    assert_eq!(
        (ran.retried_from, ran.counted.redelivered, ran.counted.applied),
        (None, 15, 3)
    );
    let causes: Vec<_> = (45..60).map(|number| format!("e-{number}")).collect();
    assert_eq!(world.causes(), causes);
    assert!(world.profile("a").expect("stored").outbox.is_empty());
}

#[tokio::test]
async fn p8_a_hot_user_costs_one_write() {
    let world = World::new();
    let batch: Vec<_> = (0..100_000).map(|number| event(number, "a", "click")).collect();
    let ran = world.run(&batch).await;
    assert_eq!(
        (ran.retried_from, ran.counted.applied, ran.counted.conditional_writes),
        (None, 100_000, 1)
    );
    assert_eq!(world.profiles.faults().count(Operation::PutProfile), 1);
    assert_eq!(world.applied("a"), 100_000);
}

#[tokio::test]
async fn p4_a_batch_of_5500_users_is_read_by_the_hundred_and_then_not_at_all() {
    let world = World::new();
    let users = 5_500;
    let batch = |from: u64| -> Vec<TestRecord> {
        (0..users)
            .map(|index| event(from + index, &format!("u-{index}"), "sign_up"))
            .collect()
    };
    let ran = world.run(&batch(0)).await;
    assert_eq!(
        (ran.retried_from, ran.counted.applied, ran.counted.conditional_writes),
        (None, users, users)
    );
    assert_eq!(
        world.profiles.faults().count(Operation::GetProfiles),
        users as usize / GET_USERS_MAX
    );
    assert_eq!(world.causes().len(), users as usize);
    let ran = world.run(&batch(users)).await;
    assert_eq!(
        (ran.counted.profile_reads, ran.counted.applied, ran.counted.triggers),
        (0, users, 0)
    );
}

#[tokio::test]
async fn p5_a_full_outbox_goes_in_rounds_that_lose_nothing_and_keep_the_order() {
    // Calls of the triggers stream that are refused, how many events, and the writes and invocations that it takes.
    for (refused, events, writes, invocations) in [
        (vec![], 32, 1, 1),
        (vec![], 33, 2, 1),
        (vec![], 100, 4, 1),
        (vec![0], 100, 4, 2),
        (vec![2], 100, 4, 2),
        (vec![1, 2], 100, 4, 3),
    ] {
        let world = World::new();
        let mut calls = 0;
        let of_call = refused.clone();
        world.triggers.faults().on_call(move |_| {
            calls += 1;
            of_call.contains(&(calls - 1)).then_some(Fault::Refuse)
        });
        let mut batch: Vec<_> = (0..events).map(|number| event(number, "a", "hint")).collect();
        batch.push(event(events, "b", "hint"));
        let (mut ran_count, mut written) = (0, 0);
        loop {
            let ran = world.run(&batch).await;
            ran_count += 1;
            written += ran.counted.conditional_writes;
            if ran.retried_from.is_none() {
                break;
            }
        }
        assert_eq!((written, ran_count), (writes + 1, invocations), "{refused:?}");
        let of_a: Vec<_> = world
            .causes()
            .into_iter()
            .filter(|id| *id != format!("e-{events}"))
            .collect();
        let expected: Vec<_> = (0..events).map(|number| format!("e-{number}")).collect();
        assert_eq!(of_a, expected, "{refused:?}");
        assert_eq!((world.applied("a"), world.applied("b")), (events, 1));
    }
}

#[tokio::test]
async fn p3_a_later_round_that_fails_comes_again_from_its_own_first_event() {
    let world = World::new();
    let mut writes = 0;
    world.profiles.faults().on_call(move |call| {
        let is_write = call.operation == Operation::PutProfile;
        writes += usize::from(is_write);
        (is_write && writes == 2).then_some(Fault::Refuse)
    });
    let batch: Vec<_> = (0..40).map(|number| event(number, "a", "hint")).collect();
    let ran = world.run(&batch).await;
    assert_eq!((ran.retried_from, ran.counted.applied), (Some(32), 32));
    let ran = world.run(&batch[32..]).await;
    assert_eq!((ran.retried_from, ran.counted.applied), (None, 8));
    // The stored outbox is sent again by whoever reads it; consumers act once.
    assert_eq!(world.causes().len(), 32 + 32 + 8);
}

#[tokio::test]
async fn p5_only_the_triggers_that_were_not_put_are_put_again() {
    let batch = records(0, &["a sign_up", "b sign_up", "c sign_up", "a click"]);
    let keys = |world: &World| -> Vec<String> {
        let calls = world.triggers.faults().calls();
        calls.iter().map(|call| call.keys.concat()).collect()
    };
    // Within one invocation.
    let world = World::new();
    world.triggers.faults().inject(Fault::Partial(vec![1]));
    assert_eq!(world.run(&batch).await.retried_from, None);
    let put = keys(&world);
    assert_eq!(put.len(), 2);
    assert_eq!((put[0].len(), put[1].as_str()), (3, &put[0][1..2]));
    assert_eq!(world.triggers.records().len(), 3);

    // Over two: the users whose triggers were put are not put again.
    for (unsent, retried_from) in [(0, 0), (1, 1), (2, 2)] {
        let world = World::new();
        // The first call says in which order they are put.
        let users: Vec<String> = {
            let probe = World::new();
            probe.run(&batch).await;
            keys(&probe)[0].chars().map(String::from).collect()
        };
        let user = ["a", "b", "c"][unsent];
        let place = users.iter().position(|put| put == user).expect("all are put");
        world.triggers.faults().inject(Fault::Partial(vec![place]));
        world.triggers.faults().inject(Fault::Refuse);
        let ran = world.run(&batch).await;
        assert_eq!((ran.retried_from, ran.counted.triggers), (Some(retried_from), 2));
        let again = world.run(&batch[retried_from..]).await;
        assert_eq!((again.retried_from, again.counted.triggers), (None, 1));
        assert_eq!(keys(&world)[2], user);
        assert_eq!(
            again.counted.profile_reads, 0,
            "a profile that is stored stays cached, unsent triggers and all"
        );
        assert_eq!(world.triggers.records().len(), 3);
    }
}

#[tokio::test]
async fn p5_a_stored_outbox_is_sent_again_until_it_is_too_old() {
    let ms_per_number = 1000;
    let age = (OUTBOX_RESEND_AGE_MS_MAX / ms_per_number) as u64;
    // When the user's next record arrives; whether a batch goes on for long after it.
    for (number, later, sent_again) in [
        (1, None, true),
        (age, None, true),
        (age + 1, None, false),
        (age * 3, None, false),
        (0, Some(age * 3), true), // the record that caused it comes again, in a batch that spans three weeks
    ] {
        let world = World::new();
        world.run(&records(0, &["a sign_up"])).await;
        let world = world.restarted();
        let batch: Vec<_> = [Some(number), later]
            .into_iter()
            .flatten()
            .map(|number| event(number, "a", if number == 0 { "sign_up" } else { "click" }))
            .collect();
        let ran = world.run(&batch).await;
        assert_eq!(
            (ran.retried_from, ran.counted.triggers),
            (None, u64::from(sent_again)),
            "{number}"
        );
        assert_eq!(ran.counted.triggers_expired, u64::from(!sent_again));
        let is_from_this_batch = number == 0;
        assert_eq!(
            ran.counted.event_to_trigger.len(),
            usize::from(is_from_this_batch),
            "{number}"
        );
    }
}

#[tokio::test]
async fn p12_a_timer_fires_once_as_of_when_it_was_due_whoever_wakes_the_user() {
    let world = World::of(
        "journey: test
contents: [{ id: tour }]
triggers: [{ id: stalled, after: 1m, since: click, offer: tour, slot: top }]",
    );
    world.run(&[event(0, "a", "click")]).await;
    let due_at = Timestamp::from_epoch_ms(EPOCH_MS + 60_000);
    assert_eq!(world.profiles.item("a").and_then(|item| item.next_due_at), Some(due_at));
    for (number, user, triggers, lateness_ms, writes) in [
        (59, "a", 0, vec![], 0), // early, by whoever: a timer event carries no authority
        (61, "b", 0, vec![], 0), // forged, for nobody
        (75, "a", 1, vec![15_000], 1),
        (76, "a", 0, vec![], 0), // repeated
    ] {
        let ran = world.run(&[event(number, user, "usher.timer")]).await;
        let counted = ran.counted;
        assert_eq!(
            (
                counted.woken,
                counted.triggers,
                counted.timer_lateness,
                counted.conditional_writes
            ),
            (1, triggers, lateness_ms, writes),
            "{number}"
        );
    }
    assert_eq!(world.profiles.item("a").and_then(|item| item.next_due_at), None);
    assert_eq!(world.profiles.item("b"), None);
    assert_eq!(world.triggers.records().len(), 1);
}

/// What came of offers, on the stream: the record's key, its rewards, and the sum so far and before.
fn outcomes(world: &World) -> Vec<(String, Vec<String>, f64, Option<f64>)> {
    let records = world.triggers.records();
    let parsed = records.iter().filter_map(|stored| {
        let outcome = OutcomeRecord::parse(&stored.record.data).ok()?;
        let key = stored.record.partition_key.clone();
        Some((key, outcome.rewards, outcome.reward, outcome.previous_reward))
    });
    parsed.collect()
}

const REWARDED: &str = "journey: test
contents: [{ id: tour }]
triggers: [{ id: welcome, on: sign_up, offer: tour, slot: top }]
outcomes: { within: 1m, reward: { bought: { on: buy, content: any, reward: 3 }, click: 1 } }";

#[tokio::test]
async fn p5_outcomes_are_sent_like_triggers() {
    let world = World::of(REWARDED);
    world.run(&[event(0, "a", "sign_up"), event(1, "b", "sign_up")]).await;
    let due_at = Timestamp::from_epoch_ms(EPOCH_MS + 60_000);
    assert_eq!(
        world.profiles.item("a").and_then(|item| item.next_due_at),
        Some(due_at),
        "P12: it runs out"
    );
    let buy = [event(5, "a", "buy")];
    let ran = world.run(&buy).await;
    assert_eq!((ran.counted.outcomes, ran.counted.outcomes_by_reward["bought"]), (1, 1));
    assert_eq!(
        (
            ran.counted.triggers,
            ran.counted.windows_run_out,
            ran.counted.outcome_lateness
        ),
        (0, 0, vec![0])
    );
    let bought = ("a".to_owned(), vec!["bought".to_owned()], 3.0, None);
    assert_eq!(outcomes(&world), std::slice::from_ref(&bought));

    // A redelivered batch finds it in the profile, and sends it again; consumers act once.
    let world = world.restarted();
    let again = world.run(&buy).await;
    assert_eq!((again.counted.redelivered, again.counted.outcomes), (1, 1));
    assert_eq!(outcomes(&world), [bought.clone(), bought.clone()]);
    world.run(&[event(6, "a", "view")]).await;
    assert!(
        world.profile("a").expect("stored").outcomes.is_empty(),
        "and it leaves with the next write"
    );

    // Nothing came of the other's: whoever wakes them, it is told once.
    for (number, told) in [(60, 0), (75, 1), (76, 0)] {
        let ran = world.run(&[event(number, "b", "usher.timer")]).await;
        assert_eq!(
            (ran.counted.outcomes, ran.counted.windows_run_out),
            (told, told),
            "{number}"
        );
        let lateness_ms = if told == 1 { vec![14_000] } else { vec![] };
        assert_eq!(ran.counted.outcome_lateness, lateness_ms, "{number}");
    }
    let ran_out = ("b".to_owned(), Vec::new(), 0.0, None);
    assert_eq!(outcomes(&world), [bought.clone(), bought, ran_out]);
    assert_eq!(world.profiles.item("b").and_then(|item| item.next_due_at), None);
}

#[tokio::test]
async fn p5_a_stored_outcome_is_sent_again_until_it_is_too_old() {
    let age = (OUTBOX_RESEND_AGE_MS_MAX / 1000) as u64;
    for (later, sent_again) in [(age, 1), (age + 1, 0)] {
        let world = World::of(REWARDED);
        world.run(&[event(0, "a", "sign_up")]).await;
        world.run(&[event(1, "a", "buy")]).await;
        let world = world.restarted();
        let ran = world.run(&[event(1 + later, "a", "view")]).await;
        assert_eq!(
            (ran.counted.outcomes, ran.counted.triggers_expired),
            (sent_again, 1 - sent_again),
            "{later}"
        );
    }
}

#[tokio::test]
async fn p12_a_container_with_an_old_profile_wakes_the_stored_one() {
    let journey = "journey: test
contents: [{ id: tour }]
triggers: [{ id: stalled, after: 1m, since: click, offer: tour, slot: top }]";
    let (world, elsewhere) = (World::of(journey), World::of(journey));
    for (number, event_type) in [(0, "click"), (75, "usher.timer")] {
        for world in [&world, &elsewhere] {
            world.run(&[event(number, "a", event_type)]).await;
        }
    }
    // Another container takes the next event; this one remembers that nothing is due.
    elsewhere.run(&[event(100, "a", "click")]).await;
    world.profiles.insert(elsewhere.profiles.item("a").expect("stored"));
    let ran = world.run(&[event(161, "a", "usher.timer")]).await;
    assert_eq!((ran.counted.woken, ran.counted.timer_lateness), (1, vec![1_000]));
    assert_eq!(world.profiles.item("a").and_then(|item| item.next_due_at), None);
}

#[tokio::test]
async fn p5_an_outbox_that_was_sent_is_empty_with_the_next_write() {
    let world = World::new();
    world.run(&records(0, &["a sign_up"])).await;
    assert_eq!(world.profile("a").expect("stored").outbox.len(), 1);
    assert_eq!(world.run(&records(1, &["a click"])).await.counted.triggers, 0);
    assert!(world.profile("a").expect("stored").outbox.is_empty());
    let world = world.restarted();
    assert_eq!(world.run(&records(2, &["a click"])).await.counted.triggers, 0);

    // Found by a new container, it is sent again once: first of all, so that the same invocation's write empties it.
    let ran = world.run(&records(3, &["b hint"])).await;
    assert_eq!(ran.counted.triggers, 1);
    let world = world.restarted();
    let ran = world.run(&records(4, &["b hint", "b click"])).await;
    assert_eq!((ran.counted.triggers, ran.counted.conditional_writes), (2, 1));
    let world = world.restarted();
    assert_eq!(world.run(&records(6, &["b click"])).await.counted.triggers, 1);
    let world = world.restarted();
    assert_eq!(world.run(&records(7, &["b click"])).await.counted.triggers, 0);
    assert_eq!(world.causes(), ["e-0", "e-3", "e-3", "e-4", "e-4"], "in order");
}

#[tokio::test]
async fn p1_rejects_that_cannot_be_put_come_again() {
    let batch = records(0, &["a click", "bad", "a click", "worse", "b sign_up"]);
    for (faults, retried_from) in [
        (vec![], None),
        (vec![Fault::Partial(vec![0])], None),
        (vec![Fault::Refuse], Some(1)),
        (vec![Fault::Partial(vec![0]), Fault::Refuse], Some(1)),
        (vec![Fault::Partial(vec![1]), Fault::Refuse], Some(3)),
        (vec![Fault::LostAnswer, Fault::Refuse], Some(1)),
    ] {
        let world = World::new();
        for fault in faults.clone() {
            world.rejected.faults().inject(fault);
        }
        let ran = world.run(&batch).await;
        assert_eq!(ran.retried_from, retried_from, "{faults:?}");
        assert_eq!((world.applied("a"), world.applied("b")), (2, 1), "P6: {faults:?}");
        if let Some(from) = retried_from {
            assert_eq!(world.run(&batch[from..]).await.retried_from, None);
        }
        let mut numbers: Vec<_> = world.rejects().into_iter().map(|(_, number)| number).collect();
        numbers.dedup();
        for index in [1, 3] {
            assert!(numbers.contains(&batch[index].sequence_number()), "{faults:?}");
        }
        assert_eq!((world.applied("a"), world.applied("b")), (2, 1), "P2: {faults:?}");
    }
}

#[tokio::test]
async fn p6_a_reject_as_large_as_a_record_takes_no_other_with_it() {
    let megabyte = "x".repeat(1_000_000);
    let noise: Vec<u8> = {
        let mut random = fastrand::Rng::with_seed(1);
        (0..1_040_000).map(|_| random.u8(..)).collect()
    };
    let mut batch = vec![event(0, "a", "click")];
    for data in [
        format!(r#"{{"schema_version":"{megabyte}"}}"#).into_bytes(),
        format!(r#"{{"event_id":"e","event_type":"click","timestamp":"{megabyte}","user_id":"a"}}"#).into_bytes(),
        format!(r#"{{"{megabyte}":{{"{megabyte}""#).into_bytes(),
        "[".repeat(1_000_000).into_bytes(),
        noise,
        b"small".to_vec(),
    ] {
        batch.push(TestRecord::new(batch.len() as u64, data));
    }
    batch.push(event(batch.len() as u64, "a", "click"));
    let world = World::new();
    let ran = world.run(&batch).await;
    assert_eq!(
        (ran.retried_from, ran.counted.rejected, ran.counted.applied),
        (None, 6, 2)
    );
    assert_eq!(world.rejected.records().len(), 6);
}

#[tokio::test]
async fn the_longest_user_id_is_a_partition_key() {
    let world = World::new();
    let user = "u".repeat(PARTITION_KEY_CHARS_MAX);
    assert_eq!(world.run(&[event(0, &user, "sign_up")]).await.retried_from, None);
    assert_eq!(world.triggers.records()[0].record.partition_key, user);
}

#[tokio::test]
async fn each_outcome_of_an_event_is_counted() {
    let world = World::new();
    let mut batch = records(0, &["a click", "a heartbeat", "bad"]);
    let mut repeated = batch[0].clone();
    repeated.number = 3;
    batch.push(repeated);
    let count = |ran: &Ran| {
        let counted = &ran.counted;
        [
            counted.applied,
            counted.dropped_by_rule,
            counted.rejected,
            counted.duplicate,
            counted.redelivered,
        ]
    };
    assert_eq!(count(&world.run(&batch).await), [1, 1, 1, 1, 0]);
    let world = world.restarted();
    // The guard is past all that came of the user's, the repeat and what is ignored included.
    assert_eq!(count(&world.run(&batch).await), [0, 0, 1, 0, 3]);
}
