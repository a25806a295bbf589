//! Users who can't be written for now: parked, and redriven once they are mended.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use usher_domain::guard::Guard;

use super::*;
use crate::memory::Container;
use crate::ports::{CallError, ParkTarget};
use crate::redrive_user::{
    ParkedRecord, ParkedRecords, PassedBy, RedriveEnd, RedriveUserError, RedriveUserPorts, RedriveUserReport,
    RedriveUserRequest, redrive_user,
};

/// Features of the journey whose profiles become too large.
const MANY: usize = 40;
/// Features of the same journey, mended: the same events fit.
const FEW: usize = 20;

/// Reads what is on `rejected`, each record once.
struct Parked<'w> {
    world: &'w World,
    given: usize,
    /// What profile-writer is given right after the first read.
    meanwhile: Vec<TestRecord>,
}

impl ParkedRecords for Parked<'_> {
    async fn read(&mut self) -> Result<Vec<ParkedRecord>, CallError> {
        let records = self.world.rejected.records().split_off(self.given);
        self.given += records.len();
        let meanwhile = std::mem::take(&mut self.meanwhile);
        if !meanwhile.is_empty() {
            assert_eq!(self.world.run(&meanwhile).await.retried_from, None);
        }
        let record = |stored: crate::memory::StoredRecord| ParkedRecord {
            shard_id: stored.shard_id,
            sequence_number: stored.sequence_number.parse().expect("a number"),
            data: stored.record.data,
        };
        Ok(records.into_iter().map(record).collect())
    }
}

impl World {
    /// Another container over the same tables and streams, with this journey.
    fn beside(&self, journey: &str) -> World {
        let other = World::of(journey);
        let ports = self.writer.ports();
        let ports = ProfileWriterPorts {
            profiles: ports.profiles.clone(),
            triggers: ports.triggers.clone(),
            rejected: ports.rejected.clone(),
            clock: ports.clock.clone(),
            telemetry: other.sink.clone(),
        };
        World {
            writer: ProfileWriter::new(other.journey.clone(), ports, self.writer.config.clone()),
            profiles: self.profiles.clone(),
            triggers: self.triggers.clone(),
            rejected: self.rejected.clone(),
            ..other
        }
    }

    async fn redrive(&self, user: &str, passed_by: PassedBy) -> Result<RedriveUserReport, RedriveUserError> {
        self.redrive_while(user, passed_by, &[]).await
    }

    /// Redrives a user; profile-writer is given a batch right after the parked records were read first.
    async fn redrive_while(
        &self,
        user: &str,
        passed_by: PassedBy,
        meanwhile: &[TestRecord],
    ) -> Result<RedriveUserReport, RedriveUserError> {
        let clock = MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 2_000_000));
        let ports = RedriveUserPorts {
            profiles: &self.profiles,
            triggers: &self.triggers,
            clock: &clock,
        };
        let mut parked = Parked {
            world: self,
            given: 0,
            meanwhile: meanwhile.to_vec(),
        };
        let request = RedriveUserRequest {
            user,
            parallelization_factor: 1,
            passed_by,
        };
        redrive_user(&self.journey, ports, &mut parked, request, Instant::now() + LONG).await
    }

    /// Who is parked where the records were: user and number of each parked record, each once.
    fn parked(&self) -> Vec<(String, String)> {
        let mut parked = Vec::new();
        for stored in self.rejected.records() {
            let rejected: RejectedRecord<'_> = serde_json::from_slice(&stored.record.data).expect("a reject");
            if !rejected.parked {
                continue;
            }
            let user = rejected
                .user
                .clone()
                .expect("a parked record names its user")
                .into_owned();
            assert_eq!(stored.record.partition_key, user, "P3: one user's keep their order");
            let place = (user, rejected.sequence_number.into_owned());
            if !parked.contains(&place) {
                parked.push(place);
            }
        }
        parked
    }

    fn is_parked(&self, user: &str) -> bool {
        self.profiles.parked_since(user).is_some()
    }

    /// The ids of the triggers on the stream, each once, in order.
    fn trigger_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for stored in self.triggers.records() {
            let id = TriggerRecord::parse(&stored.record.data)
                .expect("a trigger")
                .trigger_id
                .to_string();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// What a profile says, whoever wrote it how often. How far a guard is past it says nothing: a duplicate moves it in
    /// memory, and is worth no write.
    fn says(&self, user: &str) -> Profile {
        let mut profile = self.profile(user).expect("stored");
        profile.guard = Guard::default();
        profile.version = 0;
        profile.outbox.clear();
        profile
    }
}

fn places(batch: &[TestRecord], user: &str) -> Vec<(String, String)> {
    let own = batch.iter().filter(|record| {
        let data = String::from_utf8_lossy(&record.data);
        data.contains(&format!(r#""user_id":"{user}""#))
    });
    own.map(|record| (user.to_owned(), record.sequence_number())).collect()
}

/// Nobody was ever parked: one container, one event at a time.
async fn serially(journey: &str, records: &[TestRecord]) -> World {
    let world = World::of(journey);
    for record in records {
        assert_eq!(world.run(std::slice::from_ref(record)).await.retried_from, None);
    }
    world
}

fn assert_same(world: &World, serial: &World, users: &[&str], what: &str) {
    for user in users {
        let (says, would_say) = (world.says(user), serial.says(user));
        if says == would_say {
            continue;
        }
        // The whole of a large profile would hide what differs.
        assert_eq!(says.applied_events, would_say.applied_events, "{user}: {what}");
        assert_eq!(says.sessions, would_say.sessions, "{user}: {what}");
        assert_eq!(says.rules, would_say.rules, "{user}: {what}");
        panic!("{user}: {what}: features or ids differ");
    }
    let ids = |world: &World| world.trigger_ids().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(ids(world), ids(serial), "{what}");
}

/// Clicks of `a` until the profile is too large, hints of `a` and clicks of `b` in between.
fn too_many(from: u64, to: u64) -> Vec<TestRecord> {
    (from..to)
        .map(|number| match number % 10 {
            4 => event(number, "b", "click"),
            7 => event(number, "a", "hint"),
            _ => categorised(number, "a", "click", &long_category(number)),
        })
        .collect()
}

#[tokio::test]
async fn p3_p6_a_user_whose_profile_is_too_large_is_parked_in_order_and_later_events_follow() {
    let world = World::of(&growing_journey(MANY));
    let first = too_many(0, 60);
    let ran = world.run(&first).await;
    assert_eq!(ran.retried_from, None);
    // What fits is applied, however large the batch.
    let applied = world.applied("a");
    assert!((36..46).contains(&applied), "{applied}");
    let parked = &places(&first, "a")[applied as usize..];
    assert_eq!(world.parked(), parked);
    let counted = &ran.counted;
    assert_eq!((counted.parked, counted.parked_users), (parked.len() as u64, 1));
    assert_eq!(counted.rejected, counted.parked);
    assert_eq!(counted.rejected_by_reason["profile_too_large"], 1, "the first");
    assert_eq!(
        counted.rejected_by_reason["user_parked"],
        counted.parked - 1,
        "the others"
    );
    assert_eq!(world.applied("b"), 6, "P6");
    assert!(world.is_parked("a") && !world.is_parked("b"));

    // They would fit, but they follow: in this container and in another.
    let marked = world.profiles.item("a").expect("stored");
    for (world, from) in [(world.beside(&growing_journey(MANY)), 60), (world, 64)] {
        let batch = records(from, &["a hint", "b hint", "a other", "b click"]);
        let ran = world.run(&batch).await;
        assert_eq!(
            (ran.retried_from, ran.counted.applied, ran.counted.parked),
            (None, 2, 2)
        );
        assert_eq!(ran.counted.rejected_by_reason["user_parked"], 2);
        assert!(world.parked().ends_with(&places(&batch, "a")));
        let item = world.profiles.item("a").expect("stored");
        assert!(
            item.version > marked.version,
            "whoever read it before this batch conflicts"
        );
        assert_eq!(
            (item.state, item.parked_since),
            (marked.state.clone(), marked.parked_since)
        );
    }
}

#[tokio::test]
async fn p4_a_warm_container_with_an_older_copy_conflicts_and_follows() {
    let warm = World::of(&growing_journey(MANY));
    warm.run(&too_many(0, 40)).await;
    let applied = warm.applied("a");
    let other = warm.beside(&growing_journey(MANY));
    let large = too_many(40, 60);
    assert!(other.run(&large).await.counted.parked > 0);

    let small = records(60, &["a hint", "b hint"]);
    let ran = warm.run(&small).await;
    assert_eq!(
        (ran.retried_from, ran.counted.parked, ran.counted.conflicts),
        (None, 1, 2),
        "one conflict for each user"
    );
    assert_eq!(ran.counted.profile_reads, 0, "it believed its copy");
    assert!(warm.is_parked("a"), "the mark is still there");
    assert_eq!(warm.parked().last(), places(&small, "a").last());
    assert!(warm.applied("a") >= applied);
}

#[tokio::test]
async fn a_new_user_whose_first_event_does_not_fit_is_parked_too() {
    // One event fires as many rules as there may be, each with a condition that reads many values, and long names:
    // over 390 KB.
    let name = "n".repeat(250);
    let features: String = (0..16)
        .map(|index| format!("  r{index}: {{ recent: category, on: hint, limit: 50 }}\n"))
        .collect();
    let rules: String = (0..64)
        .map(|index| {
            let reads: String = (0..16).map(|index| format!(" && !(\"x\" in features.r{index})")).collect();
            let long = "x".repeat(CONDITION_BYTES_MAX - 100 - reads.len());
            format!(
                "  - {{ id: {name}{index}, on: hint, when: '!(\"{long}\" in features.r0){reads}', offer: {name}, slot: {name}{index} }}\n"
            )
        })
        .collect();
    // Each decision names the user's arm of each experiment.
    let experiments: String = (0..16)
        .map(|index| format!("  - {{ id: e{index}, salt: x, arms: {{ {name}a: 50, {name}b: 50 }} }}\n"))
        .collect();
    let journey = format!(
        "journey: t\nfeatures:\n{features}experiments:\n{experiments}contents: [{{ id: {name} }}]\ntriggers:\n{rules}"
    );
    let world = World::of(&journey);
    let batch = vec![
        categorised(0, "a", "hint", &"c".repeat(256)),
        event(1, "b", "click"),
        event(2, "a", "click"),
    ];
    let ran = world.run(&batch).await;
    assert_eq!(
        (ran.retried_from, ran.counted.parked, ran.counted.applied),
        (None, 2, 1)
    );
    assert!(world.is_parked("a"));
    assert_eq!(world.applied("a"), 0);
}

#[tokio::test]
async fn p1_a_crash_between_the_put_and_the_mark_parks_again_and_nothing_is_passed_by() {
    for operation in [Operation::PutRecords, Operation::ParkProfile] {
        for fault in [Fault::Refuse, Fault::CrashBefore, Fault::CrashAfter, Fault::LostAnswer] {
            for nth in 0..3 {
                let world = World::new();
                world.profiles.insert(ProfileItem {
                    user_id: "a".to_owned(),
                    version: 7,
                    state: b"rubbish".to_vec(),
                    updated_at: Timestamp::default(),
                    parked_since: None,
                    next_due_at: None,
                    merged_into: None,
                });
                world.profiles.insert_unreadable("c", "no state");
                let batch = records(0, &["a click", "c click", "b click", "a sign_up", "a hint", "c hint"]);
                let what = format!("{operation:?} {fault:?} {nth}");
                let (mut left, fault_then) = (nth, fault.clone());
                let hook = move |call: &crate::memory::Call| {
                    if call.operation != operation {
                        return None;
                    }
                    left -= 1;
                    (left == -1).then(|| fault_then.clone())
                };
                if operation == Operation::PutRecords {
                    world.rejected.faults().on_call(hook);
                } else {
                    world.profiles.faults().on_call(hook);
                }
                let mut from = 0;
                let payload_then = payload(&batch);
                match Container::default()
                    .run(world.writer.run(invocation(&payload_then, LONG)))
                    .await
                {
                    Ok(response) => {
                        let again = retried_from(&response.expect("a batch"), &batch);
                        if again.is_none() {
                            from = batch.len();
                        }
                        from = again.unwrap_or(from);
                    }
                    Err(_) => assert!(matches!(fault, Fault::CrashBefore | Fault::CrashAfter), "{what}"),
                }
                let world = world.restarted();
                world.run_to_the_end(&batch[from..]).await;
                for user in ["a", "c"] {
                    let mut parked = world.parked();
                    parked.retain(|(parked, _)| parked == user);
                    assert_eq!(parked, places(&batch, user), "{what}");
                    // An item that can't be read may refuse the mark: later events follow without it.
                    let may_lack_it = user == "c" && operation == Operation::ParkProfile && fault == Fault::Refuse;
                    assert!(world.is_parked(user) || may_lack_it, "{what}");
                }
                assert_eq!(world.applied("b"), 1, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn p3_a_record_that_cannot_be_put_holds_back_those_behind_it() {
    let world = World::new();
    world.profiles.insert_unreadable("a", "no state");
    world.profiles.insert_unreadable("c", "no state");
    let batch = records(0, &["a click", "c click", "a sign_up", "c sign_up", "a hint"]);
    // In the second round, a's record fails, once for now and then for good.
    let mut calls = 0;
    world.rejected.faults().on_call(move |_| {
        calls += 1;
        match calls {
            2 => Some(Fault::Partial(vec![0])),
            3 => Some(Fault::Refuse),
            _ => None,
        }
    });
    let ran = world.run(&batch).await;
    assert_eq!((ran.retried_from, ran.counted.parked), (Some(2), 2));
    assert_eq!(world.parked().len(), 3, "a hint waits for a sign_up");
    world.run_to_the_end(&batch[2..]).await;
    let mut parked = world.parked();
    parked.retain(|(user, _)| user == "a");
    assert_eq!(parked, places(&batch, "a"));
}

#[tokio::test]
async fn p2_p3_what_was_parked_is_applied_in_order_as_if_it_never_had_been() {
    let world = World::of(&growing_journey(MANY));
    let all = too_many(0, 120);
    for batch in all[..90].chunks(20) {
        assert_eq!(world.run(batch).await.retried_from, None);
    }
    let parked = world.parked().len() as u64;
    assert!(parked > 0);

    // Not mended: it says what does not fit, and nothing changes.
    let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert!(matches!(&report.end, RedriveEnd::DoesNotFit { at, .. } if at.sequence_number == world.parked()[0].1));
    assert!(world.is_parked("a"));

    // Mended: the journey asks for less.
    let mended = world.beside(&growing_journey(FEW));
    let report = mended.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!(
        (&report.end, report.records, report.applied, report.duplicate),
        (&RedriveEnd::Done, parked, parked, 0)
    );
    assert!(!mended.is_parked("a"));
    for batch in all[90..].chunks(7) {
        assert_eq!(mended.run(batch).await.counted.parked, 0);
    }
    let serial = serially(&growing_journey(FEW), &all).await;
    assert_same(&mended, &serial, &["a", "b"], "too large");

    // Again: nothing is left to do.
    let before = mended.profiles.items();
    let report = mended.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!(
        (&report.end, report.done_before, report.writes),
        (&RedriveEnd::Done, parked, 0)
    );
    assert_eq!(mended.profiles.items(), before);
}

#[tokio::test]
async fn as_much_is_applied_as_fits() {
    let world = World::of(&growing_journey(MANY));
    let first = too_many(0, 60);
    world.run(&first).await;
    let applied = world.applied("a");
    // Some features less: some more events fit.
    let better = world.beside(&growing_journey(MANY - 4));
    let report = better.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert!(
        matches!(report.end, RedriveEnd::DoesNotFit { .. }) && report.applied > 0,
        "{report:?}"
    );
    assert_eq!(better.applied("a"), applied + report.applied);
    assert!(better.is_parked("a"));
    let again = better.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!((again.applied, again.done_before), (0, report.applied));
    let mended = world.beside(&growing_journey(FEW));
    assert_eq!(
        mended.redrive("a", PassedBy::Ask).await.expect("it answers").end,
        RedriveEnd::Done
    );
    assert_same(
        &mended,
        &serially(&growing_journey(FEW), &first).await,
        &["a", "b"],
        "in steps",
    );
}

/// A world whose user `a` had two events applied, then an item that can't be read, and more events.
async fn unreadable_for_a_while(batch: &[TestRecord]) -> (World, ProfileItem) {
    let world = World::new();
    world.run(&batch[..2]).await;
    let backup = world.profiles.item("a").expect("stored");
    world.profiles.insert_unreadable("a", "its attribute state is gone");
    let world = world.restarted();
    assert_eq!(world.run(&batch[2..]).await.retried_from, None);
    assert_eq!(world.parked(), places(&batch[2..], "a"));
    (world, backup)
}

fn mixed() -> Vec<TestRecord> {
    let mut batch = records(0, &["a sign_up", "b sign_up"]);
    for number in 2..80 {
        let event_type = ["click", "hint", "heartbeat", "click", "sign_up"][number as usize % 5];
        batch.push(event(number, if number % 7 == 3 { "b" } else { "a" }, event_type));
    }
    // The same event again, parked too: it is a duplicate when its turn comes.
    let mut repeated = batch[4].clone();
    repeated.number = 80;
    batch.push(repeated);
    batch
}

#[tokio::test]
async fn an_unreadable_profile_says_what_to_do_and_goes_on_once_it_is_restored() {
    let batch = mixed();
    let (world, backup) = unreadable_for_a_while(&batch).await;
    let error = world.redrive("a", PassedBy::Ask).await.expect_err("it can't be read");
    let told = error.to_string();
    assert!(
        told.contains("its attribute state is gone") && told.contains("restore the item"),
        "{told}"
    );

    // Restored without the mark, and redriven before the user's next event.
    let serial = serially(JOURNEY, &batch).await;
    world.profiles.insert(backup);
    let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!((&report.end, report.duplicate), (&RedriveEnd::Done, 1), "{report:?}");
    assert!(report.ignored == 0 || report.ignored < report.records);
    assert_same(&world, &serial, &["a", "b"], "restored");
}

#[tokio::test]
async fn a_removed_profile_begins_anew() {
    let batch = mixed();
    let (world, _) = unreadable_for_a_while(&batch).await;
    world.profiles.remove("a");
    let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!(report.end, RedriveEnd::Done);
    let serial = serially(JOURNEY, &batch[2..]).await;
    assert_eq!(world.says("a"), serial.says("a"));
}

#[tokio::test]
async fn p3_events_that_were_passed_by_are_told_and_applied_with_permission_only() {
    for (passed_by, skipped, applied) in [(PassedBy::Skip, 3, 3), (PassedBy::Apply, 0, 6)] {
        let batch = records(0, &["a click", "b click", "a click", "a click", "a hint", "b click"]);
        let (world, backup) = unreadable_for_a_while(&batch).await;
        // Restored without the mark, and the next events come before the redrive.
        world.profiles.insert(backup);
        let later = records(6, &["a click", "a click"]);
        assert_eq!(world.run(&later).await.counted.applied, 2);

        let before = world.profiles.item("a");
        let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
        let RedriveEnd::PassedBy { records: told } = &report.end else {
            panic!("{report:?}");
        };
        let told: Vec<_> = told
            .iter()
            .map(|place| ("a".to_owned(), place.sequence_number.clone()))
            .collect();
        assert_eq!(told, places(&batch[2..], "a"));
        assert_eq!(world.profiles.item("a"), before, "nothing was changed");

        let report = world.redrive("a", passed_by).await.expect("it answers");
        assert_eq!(
            (&report.end, report.skipped),
            (&RedriveEnd::Done, skipped),
            "{passed_by:?}"
        );
        assert_eq!(world.applied("a"), applied, "{passed_by:?}");
        // And once only, whoever asks for it again.
        let report = world.redrive("a", PassedBy::Apply).await.expect("it answers");
        assert_eq!((report.applied, report.done_before), (0, 3), "{passed_by:?}");
        assert!(!world.is_parked("a"));
    }
}

#[tokio::test]
async fn p3_a_redrive_finds_what_is_parked_while_it_runs() {
    let batch = mixed();
    let (world, backup) = unreadable_for_a_while(&batch).await;
    world.profiles.insert(ProfileItem {
        parked_since: Some(Timestamp::from_epoch_ms(EPOCH_MS)),
        next_due_at: None,
        merged_into: None,
        ..backup
    });
    let meanwhile = records(81, &["a hint", "b hint", "a click"]);
    let report = world
        .redrive_while("a", PassedBy::Ask, &meanwhile)
        .await
        .expect("it answers");
    assert_eq!((&report.end, report.conflicts), (&RedriveEnd::Done, 1));
    assert_eq!(world.parked().len(), places(&batch[2..], "a").len() + 2);
    let all: Vec<_> = batch.iter().chain(&meanwhile).cloned().collect();
    assert_same(&world, &serially(JOURNEY, &all).await, &["a", "b"], "parked meanwhile");
}

#[tokio::test]
async fn p2_a_redrive_that_ends_the_parking_between_put_and_mark_takes_nothing_twice() {
    let batch = mixed();
    let (world, backup) = unreadable_for_a_while(&batch).await;
    world.profiles.insert(ProfileItem {
        parked_since: Some(Timestamp::from_epoch_ms(EPOCH_MS)),
        next_due_at: None,
        merged_into: None,
        ..backup
    });
    // profile-writer crashes when the events are on `rejected` and the item is not marked again.
    let follow = records(81, &["a hint", "a click"]);
    world.profiles.faults().inject_at(Operation::ParkProfile, Fault::Refuse);
    assert_eq!(world.run(&follow).await.retried_from, Some(0));
    assert_eq!(
        world.redrive("a", PassedBy::Ask).await.expect("it answers").end,
        RedriveEnd::Done
    );
    let ran = world.run(&follow).await;
    assert_eq!(
        (ran.retried_from, ran.counted.redelivered, ran.counted.parked),
        (None, 2, 0)
    );
    let all: Vec<_> = batch.iter().chain(&follow).cloned().collect();
    let serial = serially(JOURNEY, &all).await;
    assert_same(&world, &serial, &["a", "b"], "ended in between");

    // The other way round: it ends before the put is marked; the events are applied as if never parked.
    let (profiles, mended) = (world.profiles.clone(), world.profiles.item("a").expect("stored"));
    world.profiles.insert(ProfileItem {
        version: mended.version + 1,
        parked_since: Some(Timestamp::from_epoch_ms(EPOCH_MS)),
        next_due_at: None,
        merged_into: None,
        ..mended
    });
    world.profiles.faults().on_call(move |call| {
        if call.operation == Operation::ParkProfile {
            let item = profiles.item("a").expect("stored");
            profiles.insert(ProfileItem {
                version: item.version + 1,
                parked_since: None,
                next_due_at: None,
                merged_into: None,
                ..item
            });
        }
        None
    });
    let last = records(83, &["a hint", "b click"]);
    let ran = world.run(&last).await;
    assert_eq!(ran.retried_from, Some(0));
    world.profiles.faults().on_call(|_| None);
    assert_eq!(world.run(&last).await.counted.applied, 1);
    assert_eq!(
        world.redrive("a", PassedBy::Ask).await.expect("it answers").end,
        RedriveEnd::Done
    );
    let all: Vec<_> = all.iter().chain(&last).cloned().collect();
    assert_same(
        &world,
        &serially(JOURNEY, &all).await,
        &["a", "b"],
        "ended before the mark",
    );
}

#[tokio::test]
async fn p2_p5_a_redrive_that_ends_at_any_call_is_run_again_and_repeats_nothing() {
    let batch = mixed();
    let serial = serially(JOURNEY, &batch).await;
    let mut ends = 0;
    for fault in [Fault::Refuse, Fault::LostAnswer, Fault::CrashBefore, Fault::CrashAfter] {
        for nth in 0.. {
            let (world, backup) = unreadable_for_a_while(&batch).await;
            world.profiles.insert(backup);
            let calls = Arc::new(AtomicUsize::new(0));
            let hook = || {
                let (calls, fault) = (calls.clone(), fault.clone());
                move |_: &crate::memory::Call| (calls.fetch_add(1, Ordering::Relaxed) == nth).then(|| fault.clone())
            };
            world.profiles.faults().on_call(hook());
            world.triggers.faults().on_call(hook());
            let first = Container::default().run(world.redrive("a", PassedBy::Ask)).await;
            if calls.load(Ordering::Relaxed) <= nth {
                break;
            }
            ends += u32::from(!matches!(first, Ok(Ok(_))));
            let what = format!("{fault:?} at call {nth}");
            let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
            assert_eq!(report.end, RedriveEnd::Done, "{what}");
            assert_same(&world, &serial, &["a", "b"], &what);
            assert!(!world.is_parked("a"), "{what}");
        }
    }
    assert!(ends > 20, "it ended early {ends} times");
}

#[tokio::test]
async fn what_was_parked_twice_in_a_life_is_told_apart() {
    let first = mixed();
    let (world, backup) = unreadable_for_a_while(&first).await;
    world.profiles.insert(backup);
    world.redrive("a", PassedBy::Ask).await.expect("it answers");
    // More events than ids are remembered, then parked again: the first ones are still on `rejected`.
    let middle: Vec<_> = (100..300).map(|number| event(number, "a", "click")).collect();
    assert_eq!(world.run(&middle).await.counted.applied, 200);
    let version = world.profiles.item("a").expect("stored").version;
    let marked =
        crate::ports::ProfileTable::park(&world.profiles, "a", ParkTarget::Version(version), Timestamp::default());
    marked.await.expect("it answers");
    let second: Vec<_> = (300..310).map(|number| event(number, "a", "hint")).collect();
    assert_eq!(world.run(&second).await.counted.parked, 10);
    let report = world.redrive("a", PassedBy::Ask).await.expect("it answers");
    assert_eq!((&report.end, report.applied), (&RedriveEnd::Done, 10), "{report:?}");
    let all: Vec<_> = first.iter().chain(&middle).chain(&second).cloned().collect();
    assert_same(&world, &serially(JOURNEY, &all).await, &["a", "b"], "twice");
}

#[tokio::test]
async fn p8_a_profile_of_nearly_400_kb_is_read_planned_and_written() {
    let features: String = (0..26)
        .map(|index| format!("  r{index}: {{ recent: category, on: click, limit: 50, within: 24h }}\n"))
        .collect();
    let journey = format!("journey: t\ndedupe: {{ last: 4096 }}\nfeatures:\n{features}");
    let world = World::of(&journey);
    let clicks: Vec<_> = (0..4_200)
        .map(|number| categorised(number, "a", "click", &long_category(number)))
        .collect();
    for batch in clicks.chunks(700) {
        let ran = world.beside(&journey).run(batch).await;
        assert_eq!(
            (ran.retried_from, ran.counted.parked, ran.counted.applied),
            (None, 0, 700)
        );
    }
    let bytes = world.profiles.item("a").expect("stored").state.len();
    assert!((370 * 1024..PROFILE_STATE_BYTES_MAX).contains(&bytes), "{bytes}");
    let ran = world.beside(&journey).run(&clicks[3_000..]).await;
    assert_eq!((ran.retried_from, ran.counted.redelivered), (None, 1_200), "P2");
}
