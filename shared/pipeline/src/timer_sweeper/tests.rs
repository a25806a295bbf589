use std::collections::BTreeMap;

use super::sent_lately::{REMEMBERED_MAX, SEND_AGAIN_AFTER};
use super::*;
use crate::memory::{Fault, MemoryClock, MemoryDueIndex, MemoryProfileTable, MemorySink, MemoryStream, Operation};
use crate::ports::{DUE_PAGE_USERS_MAX, ProfileItem, due_shard};
use crate::testing::{EPOCH_MS, LONG, SHORT, invocation};

/// 2026-01-05T10:00:00Z.
const SCHEDULED: &str = r#"{"version":"0","source":"aws.events","time":"2026-01-05T10:00:00Z","detail":{}}"#;
const INTERVAL: Duration = Duration::from_millis(20);

type Flow = TimerSweeper<MemoryDueIndex, MemoryStream, MemoryClock, MemorySink>;

struct World {
    profiles: MemoryProfileTable,
    due: MemoryDueIndex,
    interactions: MemoryStream,
    sink: MemorySink,
    flow: Flow,
}

/// What an invocation came to.
struct Ran {
    answer: Result<Swept, SweepError>,
    counted: TimerSweep,
    /// Users who were sent a wake-up, in the order of their names.
    woken: Vec<String>,
}

impl World {
    fn new(passes: u32) -> World {
        let profiles = MemoryProfileTable::default();
        let (due, interactions) = (MemoryDueIndex::of(&profiles), MemoryStream::with_shards(2));
        World::of(profiles, due, interactions, passes)
    }

    fn of(profiles: MemoryProfileTable, due: MemoryDueIndex, interactions: MemoryStream, passes: u32) -> World {
        let sink = MemorySink::default();
        let ports = TimerSweeperPorts {
            due: due.clone(),
            interactions: interactions.clone(),
            clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 500)),
            telemetry: sink.clone(),
        };
        let config = TimerSweeperConfig {
            passes,
            pass_interval: INTERVAL,
            metrics_namespace: "Usher".to_owned(),
        };
        World {
            flow: TimerSweeper::new(ports, config),
            profiles,
            due,
            interactions,
            sink,
        }
    }

    /// Another container over the same tables and streams.
    fn another(&self) -> World {
        let handles = (self.profiles.clone(), self.due.clone(), self.interactions.clone());
        World::of(handles.0, handles.1, handles.2, self.flow.config.passes)
    }

    /// A user whose next timer is due so many milliseconds after the scheduled time.
    fn due_after(&self, user_id: &str, after_ms: i64) {
        self.profiles.insert(ProfileItem {
            user_id: user_id.to_owned(),
            version: 1,
            next_due_at: Some(Timestamp::from_epoch_ms(EPOCH_MS + after_ms)),
            ..ProfileItem::default()
        });
    }

    async fn run(&self) -> Ran {
        self.run_with(SCHEDULED, LONG).await
    }

    async fn run_with(&self, payload: &str, time: Duration) -> Ran {
        let answer = self.flow.run(invocation(payload, time)).await;
        let line = self.sink.lines().pop().unwrap_or_default();
        let counted = TimerSweep::from_line(&line).unwrap_or_default();
        let records = self.interactions.drain();
        let mut woken: Vec<String> = records.into_iter().map(|stored| stored.record.partition_key).collect();
        woken.sort();
        if let Ok(swept) = &answer {
            assert_eq!(
                (counted.passes, counted.woken),
                (swept.passes, swept.woken),
                "the answer says what the log says"
            );
            assert_eq!(
                counted.due,
                counted.woken + counted.sent_lately + counted.unsent,
                "every entry counts once: {counted:?}"
            );
        }
        Ran { answer, counted, woken }
    }
}

#[tokio::test]
async fn p12_whoever_is_due_is_woken_and_nobody_else() {
    let world = World::new(1);
    for (user, after_ms) in [("a", -60_000), ("b", 0), ("c", 1), ("anonymous:d", -1)] {
        world.due_after(user, after_ms);
    }
    world.profiles.insert(ProfileItem {
        user_id: "no timer".to_owned(),
        version: 1,
        ..ProfileItem::default()
    });
    let ran = world.run().await;
    assert_eq!(ran.woken, ["a", "anonymous:d", "b"]);
    assert_eq!(ran.counted.sweep_lateness, [0, 1, 60_000]);
    assert_eq!((ran.counted.oldest_due, ran.counted.passes), (60_000, 1));
}

#[tokio::test]
async fn later_passes_see_what_became_due_meanwhile() {
    let world = World::new(4);
    // The second pass is 20 ms after the first.
    for (user, after_ms) in [("now", 0), ("soon", 5), ("later", 60_000)] {
        world.due_after(user, after_ms);
    }
    let ran = world.run().await;
    assert_eq!(
        (ran.woken, ran.counted.passes),
        (vec!["now".to_owned(), "soon".to_owned()], 4)
    );
    // Nobody wrote their profiles, so they are still in the index: found by each pass, woken by one.
    assert_eq!((ran.counted.due, ran.counted.sent_lately), (7, 5));
}

#[tokio::test]
async fn a_user_is_woken_once_a_minute_for_the_same_moment_and_at_once_for_the_next() {
    let world = World::new(1);
    world.due_after("a", -10);
    assert_eq!(world.run().await.woken, ["a"]);
    let again = world.run().await;
    assert_eq!(
        (again.woken.len(), again.counted.sent_lately),
        (0, 1),
        "profile-writer is behind"
    );
    world.due_after("a", -5);
    assert_eq!(world.run().await.woken, ["a"], "the next reminder is due already");
    // A second sweeper knows nothing of the first: a wake-up more, which changes nothing.
    assert_eq!(world.another().run().await.woken, ["a"]);
}

#[test]
fn p1_a_wake_up_that_may_be_lost_is_sent_again() {
    let user = |name: &str| DueUser {
        user_id: name.to_owned(),
        due_at: Timestamp::from_epoch_ms(EPOCH_MS),
    };
    let (mut sent, now) = (SentLately::default(), Instant::now());
    sent.add(&user("a"), now);
    sent.forget_old(now + SEND_AGAIN_AFTER - Duration::from_millis(1));
    assert!(sent.has(&user("a")) && !sent.has(&user("b")));
    sent.forget_old(now + SEND_AGAIN_AFTER);
    assert!(!sent.has(&user("a")));
}

/// The alternative is to send the same wake-ups with every pass, to a writer that is behind already.
#[tokio::test]
async fn p8_when_as_many_were_woken_as_it_remembers_the_rest_wait() {
    let world = World::new(1);
    for number in 0..REMEMBERED_MAX - 1 {
        let user = DueUser {
            user_id: number.to_string(),
            due_at: Timestamp::from_epoch_ms(EPOCH_MS),
        };
        world.flow.sent_lately().add(&user, Instant::now());
    }
    let partition = due_shard("a");
    let same = (0..).map(|number| format!("b-{number}"));
    let users: Vec<String> = same.filter(|user| due_shard(user) == partition).take(3).collect();
    for (user, after_ms) in users.iter().zip([-3, -2, -1]) {
        world.due_after(user, after_ms);
    }
    let ran = world.run().await;
    assert_eq!(ran.woken, users[..1], "the one who is due longest");
    assert_eq!(ran.counted.unsent, 2);
    assert_eq!(world.run().await.woken.len(), 0, "nor in the next pass");
    world.flow.sent_lately().forget_old(Instant::now() + SEND_AGAIN_AFTER);
    assert_eq!(world.run().await.woken, users, "a minute later");
}

#[tokio::test]
async fn more_users_than_a_page_holds_are_all_woken() {
    let world = World::new(1);
    let of_one_partition = (0..)
        .map(|number| format!("u-{number}"))
        .filter(|user| due_shard(user) == "07");
    let users: Vec<String> = of_one_partition.take(2 * DUE_PAGE_USERS_MAX + 1).collect();
    for (index, user) in users.iter().enumerate() {
        // Some are due at the same moment, also where a page ends.
        world.due_after(user, -(index as i64 / 3));
    }
    let ran = world.run().await;
    assert_eq!(ran.woken.len(), users.len());
    assert_eq!(world.due.faults().count(Operation::QueryDue), 15 + 3);
    let mut expected = users;
    expected.sort();
    assert_eq!(ran.woken, expected);
    assert_eq!(ran.counted.sweep_lateness.len(), 100);
}

#[tokio::test]
async fn p6_a_partition_that_fails_does_not_stop_the_others() {
    let world = World::new(1);
    let mut by_shard: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..200 {
        let user = format!("u-{number}");
        world.due_after(&user, 0);
        by_shard.insert(due_shard(&user), user);
    }
    assert_eq!(by_shard.len(), 16, "every partition has someone");
    world
        .due
        .faults()
        .on_call(|call| (call.keys == ["03"] || call.keys == ["11"]).then_some(Fault::Refuse));
    let ran = world.run().await;
    assert!(ran.answer.is_ok());
    assert_eq!(ran.counted.partitions_failed, 2);
    let in_failed = |user: &&String| ["03", "11"].contains(&due_shard(user).as_str());
    assert!(ran.woken.iter().find(in_failed).is_none() && ran.woken.len() > 150);
    world.due.faults().on_call(|_| None);
    let rest = world.run().await;
    assert_eq!(rest.woken.len() + ran.woken.len(), 200, "the next sweep wakes the rest");
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    for fault in [Fault::Throttle, Fault::LostAnswer] {
        let world = World::new(1);
        world.due_after("a", 0);
        world.due.faults().inject(fault);
        let ran = world.run().await;
        assert_eq!((ran.woken, ran.counted.partitions_failed), (vec!["a".to_owned()], 0));
    }
    // A part of the wake-ups is left over, and put again.
    let world = World::new(1);
    for number in 0..50 {
        world.due_after(&format!("u-{number}"), 0);
    }
    world.interactions.faults().inject(Fault::Partial(vec![0]));
    assert_eq!(world.run().await.woken.len(), 50);
}

#[tokio::test]
async fn p1_what_could_not_be_sent_is_not_taken_for_sent() {
    let world = World::new(1);
    world.due_after("a", 0);
    world.interactions.faults().inject(Fault::Refuse);
    let ran = world.run().await;
    assert_eq!((ran.counted.unsent, ran.counted.woken), (1, 0));
    assert_eq!(world.run().await.woken, ["a"]);

    let world = World::new(1);
    world.due_after("a", 0);
    world.interactions.faults().inject(Fault::Hang);
    let ran = world.run_with(SCHEDULED, SHORT).await;
    assert_eq!(
        (ran.counted.unsent, ran.counted.woken),
        (1, 0),
        "it ends at its deadline"
    );
    assert_eq!(world.run().await.woken, ["a"]);
}

#[tokio::test]
async fn it_fails_only_where_nothing_could_be_read() {
    let world = World::new(2);
    world.due_after("a", 0);
    world.due.faults().on_call(|_| Some(Fault::Refuse));
    // Long enough for a second pass, which needs a second before the deadline.
    let ran = world.run_with(SCHEDULED, Duration::from_secs(3)).await;
    let error = ran.answer.expect_err("nothing was read");
    assert_eq!(
        chain(&error),
        "nothing of the index of due users could be read in 2 passes: it was refused: memory:QueryDue was refused: it was told to"
    );
    assert_eq!(
        ran.counted.partitions_failed, 32,
        "the log has its figures all the same"
    );
}

#[tokio::test]
async fn now_is_the_time_of_the_schedule_or_else_the_clock() {
    for (payload, woken) in [
        (r#"{"time":"2026-01-05T09:59:59Z"}"#, 0),
        (r#"{"time":"2026-01-05T11:00:00+01:00"}"#, 1),
        (r#"{"time":"2026-01-05T10:00:00.600Z"}"#, 2),
        // Invoked by hand: the clock says 10:00:00.500.
        ("{}", 1),
    ] {
        let world = World::new(1);
        world.due_after("a", 0);
        world.due_after("b", 501);
        assert_eq!(world.run_with(payload, LONG).await.woken.len(), woken, "{payload}");
    }
    for (payload, why) in [
        (
            "[\"2026-01-05T10:00:00Z\"]",
            "the invocation's payload is not a scheduled event",
        ),
        (r#"{"time":5}"#, "the invocation's payload is not a scheduled event"),
        (
            r#"{"time":"noon"}"#,
            "the invocation's `time` can't be read: `noon` is not an RFC 3339 time",
        ),
    ] {
        let told = chain(&World::new(1).run_with(payload, LONG).await.answer.expect_err(payload));
        assert!(told.starts_with(why), "{told}");
    }
}
