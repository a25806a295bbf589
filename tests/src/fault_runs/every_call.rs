//! Every call of one fixed run fails in every way.
//!
//! The run has two shards, two containers of profile-writer, users in parallel and a user in both shards, triggers that
//! need an outbox, bad records, a producer's repeats, late events, batches that come again and users who turn out to be
//! one; then timer-sweeper wakes
//! those whose timers are due, trigger-delivery and outcome-learner take what came on the triggers stream, and content-trends
//! takes the interactions. Its calls are counted without faults. Then, for each call and each fault that
//! the call can meet, it runs with exactly that fault at that call, and also with a second one at a later call.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::{Call, Container, Fault, Operation};

use super::cloud::{Function, MemoryCloud, Setup, Writer, compare};
use super::survived::{Port, Survived, has_parts};
use crate::lambda_event::{LONG, Record, payload, usual_sequence_number};

/// When the first event arrives: 2026-01-05T10:00:00Z.
const START_MS: i64 = 1_767_607_200_000;
const MINUTE_MS: i64 = 60_000;
/// Time of an invocation at first, in a run in which a call never answers; each further try has twice as much.
const SHORT: Duration = Duration::from_millis(300);
/// How often a batch is tried at most: each fault costs it one or two tries.
const TRIES_MAX: u32 = 10;
/// Containers of profile-writer.
const CONTAINERS: usize = 2;
/// Triggers of a batch of trigger-delivery.
const TRIGGERS_IN_BATCH: usize = 3;
/// Records of a batch of outcome-learner or content-trends.
const RECORDS_TO_LEARN: usize = 8;
/// Keys of a call up to which every subset of them is left over; of larger calls, those that differ in kind.
const ALL_SUBSETS_KEYS_MAX: usize = 3;
/// Second faults that are tried with each first one.
const SECOND_FAULTS: usize = 2;
/// How many calls after the first fault the second one comes at most.
const SECOND_FAULT_AFTER_MAX: usize = 8;

const JOURNEY: &str = r#"
journey: every-call
dedupe: { last: 1 }
ignore: [heartbeat]
steps:
  - { id: signed_up, on: sign_up }
features:
  clicks: { count: click }
  clicks_5m: { count: click, within: 5m }
  last: { last: category, on: [click, page_view] }
  sessions: { sessions: count }
contents: [{ id: a }, { id: b }]
triggers:
  - { id: welcome, on: sign_up, offer: a, slot: top, limit: 1 }
  - { id: each_click, on: click, offer: b, slot: side }
  - { id: keen, on: click, when: features.clicks_5m == 2, offer: a, slot: top }
  - { id: stalled, after: [90m, 120m], since: steps.signed_up, offer: b, slot: mail }
  - { id: next, on: page_view, choose: [a, b], slot: feed }
outcomes: { within: 30m, reward: { click: 1, step_completed: 2 } }
"#;
/// When the sweeper looks: all timers are due.
const SWEPT_AT_MS: i64 = START_MS + 6 * 60 * MINUTE_MS;

static THE_JOURNEY: LazyLock<Arc<Journey>> =
    LazyLock::new(|| Arc::new(Journey::parse(JOURNEY).unwrap_or_else(|errors| panic!("{errors}"))));

/// The interactions: shard, user, type, event number, and how many minutes late it is. An event number that was there
/// before is the producer's repeat. A user `?x` is anonymous, `fay+x` has both ids, and `hal<fay` was `fay` before.
const INTERACTIONS: &[(usize, &str, &str, u32, i64)] = &[
    (0, "ann", "sign_up", 1, 0),
    (0, "ben", "sign_up", 2, 0),
    (1, "cat", "click", 3, 0),
    (0, "ann", "click", 4, 0),
    (0, "", "bad", 5, 0),
    (1, "cat", "click", 6, 2),
    (0, "ben", "sign_up", 2, 0),
    (0, "dan", "page_view", 7, 0),
    (1, "", "bad", 8, 0),
    (0, "ben", "click", 9, 3 * 24 * 60),
    (1, "ann", "page_view", 10, 1),
    (0, "ben", "heartbeat", 11, 0),
    (0, "ann", "click", 12, 0),
    (1, "cat", "sign_up", 13, 0),
    (0, "ben", "click", 14, 0),
    (1, "eve", "click", 15, 0),
    (0, "ann", "page_view", 16, 20),
    (1, "cat", "click", 17, 0),
    (0, "dan", "click", 18, 0),
    (1, "ann", "click", 19, 0),
    (0, "?x", "page_view", 20, 0),
    (0, "?x", "click", 21, 0),
    (1, "fay+x", "sign_up", 22, 0),
    (0, "?x", "click", 23, 0),
    (0, "gus+x", "click", 24, 0),
    (1, "?y", "click", 25, 0),
    (1, "gus+y", "click", 26, 0),
    (1, "?y", "page_view", 27, 0),
    (0, "hal<fay", "alias", 28, 0),
    (0, "fay", "click", 30, 0),
    (1, "?x", "click", 29, 0),
];

/// What is delivered to profile-writer: container, shard, first record, the one after the last. Some go back to records
/// that were done, as when a checkpoint got lost; a profile remembers one event id, so only the guard knows those.
const BATCHES: &[(usize, usize, usize, usize)] = &[
    (0, 0, 0, 5),
    (0, 1, 0, 3),
    (1, 0, 2, 7),
    (1, 1, 3, 6),
    (0, 0, 7, 10),
    (1, 0, 0, 12),
    (0, 1, 6, 8),
    // Someone anonymous, whom another container then finds to be fay; the first one still remembers the profile. A second
    // user of the same device; a user and their anonymous events in one batch; fay turns out to be hal.
    (0, 0, 12, 14),
    (1, 1, 8, 9),
    (0, 0, 14, 16),
    (1, 1, 9, 12),
    (0, 0, 16, 18),
    (1, 1, 12, 13),
    (1, 0, 12, 18),
    (0, 1, 8, 13),
];

fn shards() -> Vec<Vec<Record>> {
    let mut shards = vec![Vec::new(), Vec::new()];
    for (index, (shard, user, event_type, event_number, late_min)) in INTERACTIONS.iter().enumerate() {
        let arrived_at = Timestamp::from_epoch_ms(START_MS + index as i64 * MINUTE_MS);
        let mut event: Value = json!({
            "event_id": format!("e-{event_number}"),
            "event_type": event_type,
            "timestamp": arrived_at.minus_ms(late_min * MINUTE_MS).to_string(),
            "category": format!("c-{}", event_number % 3),
            "content_id": if event_number % 2 == 0 { "a" } else { "b" },
        });
        let members = match (user.strip_prefix('?'), user.split_once('+'), user.split_once('<')) {
            (Some(anonymous), ..) => vec![("anonymous_id", anonymous)],
            (_, Some((user, anonymous)), _) => vec![("user_id", user), ("anonymous_id", anonymous)],
            (.., Some((user, previous))) => vec![("user_id", user), ("previous_id", previous)],
            _ => vec![("user_id", *user)],
        };
        for (member, id) in members {
            event[member] = id.into();
        }
        let data = if *event_type == "bad" {
            format!("not an event: {index}")
        } else {
            event.to_string()
        };
        shards[*shard].push(Record {
            shard_id: format!("shardId-{shard:012}"),
            sequence_number: usual_sequence_number(index as u64),
            arrived_at,
            partition_key: if *shard == 0 {
                (*user).to_owned()
            } else {
                "device".to_owned()
            },
            data: data.into_bytes(),
        });
    }
    shards
}

/// One run: which calls fail, counted over all ports, and who takes a batch that comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneRun {
    /// The number of a call and how it fails.
    pub faults: Vec<(usize, Fault)>,
    /// Whether a batch comes again in the other container, which may remember older profiles.
    pub retries_elsewhere: bool,
}

/// A call of the run, as far as it matters for how it can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallMade {
    /// Of which port.
    pub port: Port,
    /// What it does.
    pub operation: Operation,
    /// How many keys or records it has.
    pub keys: usize,
}

/// The calls that the run makes without any fault.
///
/// # Errors
/// When even that is not right.
pub async fn calls_without_faults() -> Result<Vec<CallMade>, String> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let none = OneRun {
        faults: Vec::new(),
        retries_elsewhere: false,
    };
    run_with(&none, calls.clone()).await?;
    let calls = calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(calls)
}

/// All runs: each call with each fault, alone with either way of coming
/// again, and with a second one behind it.
pub fn all_runs(calls: &[CallMade]) -> Vec<OneRun> {
    let mut random = Rng::with_seed(calls.len() as u64);
    let mut runs = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        for fault in faults_of(call) {
            let first = (number, fault);
            for retries_elsewhere in [false, true] {
                runs.push(OneRun {
                    faults: vec![first.clone()],
                    retries_elsewhere,
                });
            }
            for _ in 0..SECOND_FAULTS {
                let later = number + random.usize(1..=SECOND_FAULT_AFTER_MAX);
                // After the first fault the calls are others; what this one leaves over is taken from a call without it.
                let second = random.choice(faults_of(calls.get(later).unwrap_or(call)));
                runs.extend(second.map(|second| OneRun {
                    faults: vec![first.clone(), (later, second)],
                    retries_elsewhere: random.bool(),
                }));
            }
        }
    }
    runs
}

/// Every way in which a call can fail.
fn faults_of(call: &CallMade) -> Vec<Fault> {
    let mut faults = vec![
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Throttle,
        Fault::LostAnswer,
        Fault::Refuse,
        Fault::Hang,
        Fault::HangAfter,
    ];
    if has_parts(call.port, call.operation) {
        faults.extend(left_over(call.keys).into_iter().map(Fault::Partial));
    }
    if call.operation == Operation::PutRecords {
        faults.extend(left_over(call.keys).into_iter().map(Fault::PartialLost));
    }
    faults
}

/// What a partial answer may leave over: each subset of a small call; of a larger one the first, the last, all but
/// either, each second one, and all.
fn left_over(keys: usize) -> Vec<Vec<usize>> {
    if keys <= ALL_SUBSETS_KEYS_MAX {
        let subset = |bits: usize| (0..keys).filter(move |index| bits >> index & 1 == 1).collect();
        return (1..1 << keys).map(subset).collect();
    }
    let all = 0..keys;
    vec![
        vec![0],
        vec![keys - 1],
        all.clone().skip(1).collect(),
        all.clone().take(keys - 1).collect(),
        all.clone().step_by(2).collect(),
        all.collect(),
    ]
}

/// One run with its faults.
///
/// # Errors
/// What was lost, came twice, or is wrong otherwise.
pub async fn run(one: OneRun) -> Result<Survived, String> {
    run_with(&one, Arc::default()).await
}

async fn run_with(one: &OneRun, calls: Arc<Mutex<Vec<CallMade>>>) -> Result<Survived, String> {
    let setup = Setup {
        parallelization_factor: 1,
        concurrency: 2,
        needs_receipt: true,
    };
    let cloud = MemoryCloud::new(&THE_JOURNEY, setup);
    let faults = one.faults.clone();
    let met: Arc<Mutex<Vec<(Fault, Port, Operation)>>> = Arc::default();
    let meets = met.clone();
    cloud.on_call(move |port: Port, call: &Call| {
        let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
        let number = calls.len();
        calls.push(CallMade {
            port,
            operation: call.operation,
            keys: call.keys.len(),
        });
        let (_, fault) = faults.iter().find(|(at, _)| *at == number)?;
        let mut met = meets.lock().unwrap_or_else(PoisonError::into_inner);
        met.push((fault.clone(), port, call.operation));
        Some(fault.clone())
    });
    // Whether a call of the next invocation may be one that never answers.
    let hangs = || {
        let met = met.lock().unwrap_or_else(PoisonError::into_inner);
        let all = one.faults.iter().map(|(_, fault)| fault);
        all.filter(|fault| is_hang(fault)).count() > met.iter().filter(|(fault, ..)| is_hang(fault)).count()
    };
    let mut survived = Survived::default();
    survived.runs = 1;
    survived.records = INTERACTIONS.len() as u64;

    let shards = shards();
    let mut writers: Vec<_> = (0..CONTAINERS).map(|_| Arc::new(cloud.writer())).collect();
    for (container, shard, from, to) in BATCHES {
        let batch = Batch {
            records: &shards[*shard][*from..*to],
            container: *container,
        };
        deliver(&mut writers, || cloud.writer(), batch, one, &hangs, &mut survived).await?;
    }
    let interactions = shards;
    let shards: Vec<Vec<&Record>> = interactions.iter().map(|shard| shard.iter().collect()).collect();
    let all: Vec<&Record> = shards.iter().flatten().copied().collect();
    let end = Timestamp::from_epoch_ms(SWEPT_AT_MS);
    let expected = cloud.expected(&shards, end);
    sweep(&cloud, end, &mut writers, one, &hangs, &mut survived).await?;
    let found = cloud.outcome(&all)?;
    compare(&expected, &found)?;

    let mut deliverers: Vec<_> = (0..CONTAINERS).map(|_| Arc::new(cloud.deliverer())).collect();
    for shard in cloud.trigger_shards() {
        for records in shard.chunks(TRIGGERS_IN_BATCH) {
            let batch = Batch { records, container: 0 };
            deliver(&mut deliverers, || cloud.deliverer(), batch, one, &hangs, &mut survived).await?;
        }
    }
    cloud.check_decisions(&found.triggers, true)?;
    cloud.check_outcomes(&found)?;
    // Whatever befell profile-writer, each decision reached the receiver exactly once. Only what befell a delivery, or the
    // note of it, may bring one again, under the same id; and so may too little time, which waiting for a hang leaves.
    let had_little_time = hangs();
    let deliveries_were_disturbed = met
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .any(|(_, port, _)| matches!(port, Port::Decisions | Port::Delivery));
    if !deliveries_were_disturbed && !had_little_time && cloud.deliveries().values().any(|count| *count != 1) {
        return Err(format!("not delivered exactly once: {:?}", cloud.deliveries()));
    }
    let mut learners: Vec<_> = (0..CONTAINERS).map(|_| Arc::new(cloud.learner())).collect();
    for shard in cloud.trigger_shards() {
        for records in shard.chunks(RECORDS_TO_LEARN) {
            let batch = Batch { records, container: 0 };
            deliver(&mut learners, || cloud.learner(), batch, one, &hangs, &mut survived).await?;
        }
    }
    survived.learned = cloud.check_models().await?;
    let mut counters: Vec<_> = (0..CONTAINERS).map(|_| Arc::new(cloud.trend_counter())).collect();
    for records in interactions.iter().flat_map(|shard| shard.chunks(RECORDS_TO_LEARN)) {
        let batch = Batch { records, container: 0 };
        deliver(
            &mut counters,
            || cloud.trend_counter(),
            batch,
            one,
            &hangs,
            &mut survived,
        )
        .await?;
    }
    survived.counted = cloud.check_trends(&interactions, RECORDS_TO_LEARN)?;

    let met = met.lock().unwrap_or_else(PoisonError::into_inner);
    survived.triggers = expected.triggers.len() as u64;
    survived.pointers = expected.pointers.len() as u64;
    survived.outcomes = expected.outcomes.len() as u64;
    survived.repeated_triggers = cloud.trigger_records() as u64 - survived.triggers - survived.outcomes;
    for (fault, port, operation) in met.iter() {
        survived.note(fault, *port, *operation);
    }
    Ok(survived)
}

/// Sweeps until nobody is due, and delivers the wake-ups.
async fn sweep(
    cloud: &MemoryCloud,
    end: Timestamp,
    writers: &mut [Arc<Writer>],
    one: &OneRun,
    hangs: &impl Fn() -> bool,
    survived: &mut Survived,
) -> Result<(), String> {
    for tries in 0..TRIES_MAX {
        if !cloud.is_anybody_due(end) {
            return Ok(());
        }
        let time = if hangs() { SHORT * 2u32.pow(tries) } else { LONG };
        // Each by a container of its own: one that remembers whom it woke would wait for a minute.
        let sweeper = cloud.sweeper();
        survived.sweeps += 1;
        // What one sweep did not, the next one does.
        let _ = Container::default().run(cloud.sweep(&sweeper, end, time)).await;
        for shard in cloud.take_wake_ups(end) {
            survived.wake_ups += shard.len() as u64;
            let batch = Batch {
                records: &shard,
                container: 0,
            };
            deliver(writers, || cloud.writer(), batch, one, hangs, survived).await?;
        }
    }
    Err(format!("after {TRIES_MAX} sweeps there are still users who are due"))
}

fn is_hang(fault: &Fault) -> bool {
    matches!(fault, Fault::Hang | Fault::HangAfter)
}

#[derive(Clone, Copy)]
struct Batch<'r> {
    records: &'r [Record],
    container: usize,
}

/// Delivers a batch until it is through: again from where the response says, and whole when the container ended.
async fn deliver<F: Function>(
    containers: &mut [Arc<F>],
    new_container: impl Fn() -> F,
    batch: Batch<'_>,
    one: &OneRun,
    hangs: &impl Fn() -> bool,
    survived: &mut Survived,
) -> Result<(), String> {
    let mut from = 0;
    let mut slot = batch.container;
    for tries in 0..TRIES_MAX {
        let records = &batch.records[from..];
        let time = if hangs() { SHORT * 2u32.pow(tries) } else { LONG };
        survived.invocations += 1;
        survived.deliveries += records.len() as u64;
        let flow = containers[slot].clone().invoke(payload(records), time);
        match Container::default().run(flow).await {
            Err(_) => {
                containers[slot] = Arc::new(new_container());
                survived.cold_starts += 1;
            }
            Ok(response) => match response?.retries_from() {
                None => return Ok(()),
                Some(number) => {
                    let index = records.iter().position(|record| record.sequence_number == number);
                    from += index.ok_or("the response names a record that is not of its batch")?;
                }
            },
        }
        if one.retries_elsewhere {
            slot = (slot + 1) % containers.len();
        }
    }
    Err(format!("a batch was tried {TRIES_MAX} times, and is still at {from}"))
}
