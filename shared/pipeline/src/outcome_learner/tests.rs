use std::time::Duration;

use futures::future::join_all;
use usher_domain::bandit::context::{Content, Context};
use usher_domain::bandit::state::SlotState;
use usher_domain::offers;
use usher_domain::trigger::{Cause, TriggerId};
use usher_wire::outcome;

use super::*;
use crate::memory::{Container, Fault, MemoryClock, MemoryModelTable, MemorySink, Operation};
use crate::ports::ModelWrite;
use crate::testing::{EPOCH_MS, LONG, TestRecord, invocation, payload, retried_from};

const JOURNEY: &str = r#"
journey: learning
features:
  clicks: { count: click }
contents:
  - { id: tour }
  - { id: demo }
slots:
  in_app: { context: { clicks: features.clicks } }
  email: { learner: thompson }
triggers:
  - { id: high_intent, on: click, choose: [tour, demo], slot: in_app }
  - { id: nudge, on: view, choose: [tour, demo], slot: email }
outcomes: { within: 1h, reward: { click: 1 } }
"#;

type Learner = OutcomeLearner<MemoryModelTable, MemoryClock, MemorySink>;

struct World {
    journey: Arc<Journey>,
    table: MemoryModelTable,
    sink: MemorySink,
}

impl World {
    fn new() -> World {
        let journey = Journey::parse(JOURNEY).unwrap_or_else(|errors| panic!("{}", errors.render("journey", JOURNEY)));
        World {
            journey: Arc::new(journey),
            table: MemoryModelTable::default(),
            sink: MemorySink::default(),
        }
    }

    /// A new container, with nothing in memory.
    fn learner(&self) -> Learner {
        let ports = OutcomeLearnerPorts {
            models: self.table.clone(),
            clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 1_000_000)),
            telemetry: self.sink.clone(),
        };
        let config = OutcomeLearnerConfig {
            slot_concurrency: 4,
            metrics_namespace: "Usher".to_owned(),
        };
        OutcomeLearner::new(JourneyKeeper::from(Arc::clone(&self.journey)), ports, config)
    }

    async fn run(&self, shard: usize, records: &[TestRecord]) -> (Option<usize>, OutcomeLearnerBatch) {
        self.run_within(shard, records, LONG).await
    }

    async fn run_within(
        &self,
        shard: usize,
        records: &[TestRecord],
        time: Duration,
    ) -> (Option<usize>, OutcomeLearnerBatch) {
        let payload = payload_of_shard(shard, records);
        let response = self
            .learner()
            .run(invocation(&payload, time))
            .await
            .expect("a Kinesis batch");
        let told = OutcomeLearnerBatch::from_line(self.sink.lines().last().expect("a line a batch")).expect("ours");
        (retried_from(&response, records), told)
    }

    async fn model(&self, slot: &str) -> FoundModel {
        let learner = self.slot(slot);
        let key = head_key(slot, learner.layout.fingerprint());
        let deadline = Instant::now() + LONG;
        let mut found = read_items(&self.table, vec![key.clone()], ReadOf::Latest, deadline)
            .await
            .expect("it answers");
        let head = found.items.remove(&key);
        whole_model(&self.table, head, ReadOf::Latest, deadline, &mut 0.0)
            .await
            .expect("it answers")
    }

    async fn state(&self, slot: &str) -> SlotState {
        match self.model(slot).await {
            FoundModel::Ready(model) => model.state,
            other => panic!("{slot}: {other:?}"),
        }
    }

    fn slot(&self, slot: &str) -> &SlotLearner {
        let mut learners = self.journey.learners.iter();
        learners
            .find(|learner| learner.slot == slot)
            .expect("the journey has it")
    }

    /// An outcome of the slot; its number decides everything else.
    fn outcome(&self, slot: &str, number: u64) -> offers::Outcome {
        let learner = self.slot(slot);
        let units = (0..learner.layout.dimension()).map(|place| (number as i64 * 7919 + place as i64) % 300_000);
        let decided_at = Timestamp::from_epoch_ms(EPOCH_MS + number as i64 * 400);
        // Every third is the second record of its offer.
        let previous_reward = number.is_multiple_of(3).then_some((number % 2) as f64);
        offers::Outcome {
            id: TriggerId(u128::from(number) + 1),
            trigger: TriggerId(u128::from(number / 3)),
            user: format!("user-{}", number % 17),
            decided_for: None,
            rule: "high_intent".to_owned(),
            slot: slot.to_owned(),
            offer: if number % 5 < 2 { "tour" } else { "demo" }.to_owned(),
            rewards: Vec::new(),
            rewards_so_far: Vec::new(),
            reward: (number % 4) as f64,
            previous_reward,
            expired: false,
            held_out: false,
            decided_at,
            at: decided_at.plus_ms(1000),
            made_at: decided_at.plus_ms(2000),
            propensity: 0.5,
            seen: Some(SeenByLearner {
                layout: learner.layout.fingerprint(),
                context: Context::from_units(units.collect()),
                content: Content::from_units(Vec::new()),
                model_version: None,
            }),
            cause: Cause {
                event_id: format!("event-{number}"),
                event_type: "click".to_owned(),
                at: decided_at,
                shard_id: "shardId-000000000000".to_owned(),
                sequence_number: number.into(),
            },
            journey: "learning".to_owned(),
            journey_version: "1".to_owned(),
        }
    }

    /// What the slot's model is when each of these is learned once, in order.
    fn serial_fold(&self, slot: &str, outcomes: &[offers::Outcome]) -> SlotState {
        let learner = self.slot(slot);
        let mut state = SlotState::new(&learner.layout, learner.half_life_ms);
        for outcome in outcomes.iter().filter(|outcome| outcome.slot == slot) {
            let seen = outcome.seen.as_ref().expect("a learner chose");
            let told = Outcome {
                arm: &outcome.offer,
                context: &seen.context,
                content: &seen.content,
                reward: outcome.reward,
                previous: outcome.previous_reward,
                at: outcome.decided_at,
            };
            assert_eq!(state.learn(&learner.layout, &told), Learned::Yes);
        }
        state
    }
}

fn payload_of_shard(shard: usize, records: &[TestRecord]) -> String {
    payload(records).replace("shardId-000000000000:", &format!("shardId-{shard:012}:"))
}

fn record(number: u64, outcome: &offers::Outcome) -> TestRecord {
    TestRecord::new(number, outcome::to_json(outcome))
}

/// P2, P3, P5: however batches come, again, late, at once from several shards, over containers that end in the middle and a
/// table that fails, each outcome counts once.
#[tokio::test]
async fn any_delivery_gives_the_model_of_a_serial_fold() {
    const SHARDS: usize = 3;
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let outcomes: Vec<offers::Outcome> = (0..120)
            .map(|number| world.outcome(if number % 2 == 0 { "in_app" } else { "email" }, number))
            .collect();
        // The records of each shard: every outcome at least once, some again later, also in another shard.
        let mut shards: Vec<Vec<TestRecord>> = vec![Vec::new(); SHARDS];
        let mut number = 0;
        let mut put = |shard: usize, outcome: &offers::Outcome| {
            number += 1;
            shards[shard].push(record(number, outcome));
        };
        for (index, outcome) in outcomes.iter().enumerate() {
            put(index % SHARDS, outcome);
            if random.u8(0..4) == 0 {
                put(random.usize(0..SHARDS), &outcomes[random.usize(0..=index)]);
            }
        }
        let mut faults = fastrand::Rng::with_seed(seed + 1000);
        world.table.faults().on_call(move |call| {
            let fault = match faults.u8(0..20) {
                0 => Fault::Throttle,
                1 => Fault::LostAnswer,
                2 => Fault::CrashBefore,
                3 => Fault::CrashAfter,
                4 if call.operation == Operation::GetModels => Fault::Partial(vec![0]),
                _ => return None,
            };
            Some(fault)
        });
        let deliver = |shard: usize, mut random: fastrand::Rng| {
            let (world, records) = (&world, &shards[shard]);
            async move {
                let mut from = 0;
                let mut invocations = 0;
                while from < records.len() {
                    invocations += 1;
                    assert!(invocations < 5000, "it comes to an end");
                    let to = records.len().min(from + random.usize(1..30));
                    // Lambda may give a batch to another container while the first still works on it.
                    let payload = payload_of_shard(shard, &records[from..to]);
                    let learner = world.learner();
                    let ran = Container::default().run(learner.run(invocation(&payload, LONG))).await;
                    let Ok(response) = ran else { continue };
                    let retried = retried_from(&response.expect("a Kinesis batch"), &records[from..to]);
                    let is_lost = random.u8(0..8) == 0;
                    from = match retried {
                        _ if is_lost => from,
                        Some(index) => from + index,
                        None => to,
                    };
                }
            }
        };
        // Two deliverers of the same shard at once, too: one that AWS believes to be dead.
        let deliveries = (0..SHARDS).chain([0]).map(|shard| deliver(shard, random.fork()));
        join_all(deliveries).await;
        world.table.faults().on_call(|_| None);
        for slot in ["in_app", "email"] {
            assert_eq!(
                world.state(slot).await,
                world.serial_fold(slot, &outcomes),
                "seed {seed}, {slot}"
            );
        }
    }
}

#[tokio::test]
async fn every_record_is_told_for_what_it_is() {
    let world = World::new();
    let learned = world.outcome("in_app", 1);
    let with = |change: fn(&mut offers::Outcome)| {
        let mut outcome = world.outcome("in_app", 2);
        change(&mut outcome);
        outcome::to_json(&outcome)
    };
    let of_layout = |outcome: &mut offers::Outcome| outcome.seen.as_mut().expect("seen").layout ^= 1;
    let records: Vec<TestRecord> = [
        outcome::to_json(&learned),
        outcome::to_json(&learned),
        with(|outcome| outcome.held_out = true),
        with(|outcome| outcome.seen = None),
        with(of_layout),
        with(|outcome| outcome.slot = "elsewhere".to_owned()),
        with(|outcome| outcome.offer = "x".repeat(IDENTIFIER_BYTES_MAX + 1)),
        br#"{"kind":"decision"}"#.to_vec(),
        br#"{"kind":"outcome"}"#.to_vec(),
        b"not json".to_vec(),
    ]
    .into_iter()
    .zip(1..)
    .map(|(data, number)| TestRecord::new(number, data))
    .collect();
    let (retried, told) = world.run(0, &records).await;
    assert_eq!(retried, None, "P6: none of them stops the others");
    let counts = |told: &OutcomeLearnerBatch| {
        [
            told.learned,
            told.known,
            told.redelivered,
            told.held_out,
            told.not_chosen,
            told.other_layout,
            told.other_kind,
            told.malformed,
            told.retried,
        ]
    };
    assert_eq!(counts(&told), [1, 1, 0, 1, 1, 2, 1, 3, 0]);
    assert_eq!((told.received, told.writes, told.conflicts), (10, 1, 0));
    assert_eq!(told.learned_by_slot, BTreeMap::from([("in_app".to_owned(), 1)]));
    assert_eq!(
        told.write_units, 4.0,
        "a small head and one second of ids, each in a transaction"
    );

    let (_, told) = world.run(0, &records).await;
    assert_eq!(counts(&told), [0, 0, 2, 1, 1, 2, 1, 3, 0], "the same batch again");
    assert_eq!(told.writes, 0);
    let again: Vec<TestRecord> = vec![record(90, &learned)];
    let (_, told) = world.run(7, &again).await;
    assert_eq!(
        counts(&told),
        [0, 1, 0, 0, 0, 0, 0, 0, 0],
        "P5: sent again, days later, in another shard"
    );
    assert_eq!(world.state("in_app").await, world.serial_fold("in_app", &[learned]));
}

#[tokio::test]
async fn a_table_that_fails_brings_the_slots_records_again_and_no_others() {
    let world = World::new();
    let outcomes = [
        world.outcome("email", 1),
        world.outcome("in_app", 2),
        world.outcome("email", 4),
    ];
    let records: Vec<TestRecord> = outcomes
        .iter()
        .zip(1..)
        .map(|(outcome, number)| record(number, outcome))
        .collect();
    world.table.faults().on_call(|call| {
        let is_of_slot = call.keys.iter().any(|key| key.starts_with("in_app/"));
        (call.operation == Operation::WriteModels && is_of_slot).then_some(Fault::Refuse)
    });
    let (retried, told) = world.run(0, &records).await;
    assert_eq!((retried, told.learned, told.retried), (Some(1), 2, 1), "P3");
    world.table.faults().on_call(|_| None);
    let (retried, told) = world.run(0, &records[1..]).await;
    assert_eq!((retried, told.learned, told.redelivered), (None, 1, 1));
    for slot in ["email", "in_app"] {
        assert_eq!(world.state(slot).await, world.serial_fold(slot, &outcomes));
    }
    world.table.faults().inject(Fault::Hang);
    let more = [record(9, &world.outcome("email", 9))];
    let (retried, _) = world.run_within(0, &more, Duration::from_secs(1)).await;
    assert_eq!(
        retried,
        Some(0),
        "P10: a table that hangs ends with the invocation's time"
    );
}

#[tokio::test]
async fn a_model_that_cannot_be_read_leaves_its_outcomes_out_and_says_so() {
    let world = World::new();
    let first = [
        record(1, &world.outcome("in_app", 1)),
        record(2, &world.outcome("email", 1)),
    ];
    world.run(0, &first).await;
    let layout = world.slot("in_app").layout.fingerprint();
    let items = world.table.items();
    let head = items
        .iter()
        .find(|item| item.key == head_key("in_app", layout))
        .expect("it was learned");
    let mut damaged = head.clone();
    damaged.state.truncate(9);
    for is_item in [true, false] {
        match is_item {
            true => world.table.insert(damaged.clone()),
            false => world.table.insert_unreadable(head.key.clone(), "it has no state"),
        }
        let number = 10 + u64::from(!is_item);
        let more = [
            record(number * 2, &world.outcome("in_app", number)),
            record(number * 2 + 1, &world.outcome("email", number)),
        ];
        let (retried, told) = world.run(0, &more).await;
        assert_eq!((retried, told.learned), (None, 1), "P6: the other slot goes on");
        assert_eq!((told.left_out_unreadable, told.models_unreadable), (1, 1));
    }
}

/// A later record takes what an earlier one said away again, so it must not come to a model that never heard the earlier one.
#[tokio::test]
async fn what_more_comes_of_offers_from_before_a_reset_is_left_out() {
    let world = World::new();
    // Numbers that 3 divides are second records. Two numbers are 800 ms apart.
    let (before, after) = (6, 9);
    world.run(0, &[record(1, &world.outcome("in_app", 1))]).await;
    let learner = world.slot("in_app");
    let empty = SlotState::new(&learner.layout, learner.half_life_ms);
    let reset_at = world.outcome("in_app", after).decided_at;
    let reset = KeptModel::in_place_of("in_app", empty.clone(), &world.table.items(), reset_at);
    for write in reset.writes(reset_at).expect("it is small").writes {
        if let ModelWrite::Put { item, .. } = write {
            world.table.insert(item);
        }
    }
    let (_, told) = world.run(0, &[record(2, &world.outcome("in_app", before))]).await;
    assert_eq!((told.learned, told.other_layout), (0, 1));
    assert_eq!(world.state("in_app").await, empty);
    // A first record of such an offer is all there is to know of it.
    let more = [
        record(3, &world.outcome("in_app", 5)),
        record(4, &world.outcome("in_app", after)),
    ];
    let (_, told) = world.run(0, &more).await;
    assert_eq!((told.learned, told.other_layout), (2, 0));
}

#[tokio::test]
async fn a_batch_of_many_seconds_is_learned_in_several_writes() {
    let world = World::new();
    let outcomes: Vec<offers::Outcome> = (0..100)
        .map(|number| {
            let mut outcome = world.outcome("in_app", number);
            outcome.made_at = outcome.made_at.plus_ms(number as i64 * 1000);
            outcome
        })
        .collect();
    let records: Vec<TestRecord> = outcomes
        .iter()
        .zip(1..)
        .map(|(outcome, number)| record(number, outcome))
        .collect();
    let (_, told) = world.run(0, &records).await;
    assert_eq!(told.learned, 100);
    assert_eq!(told.writes, 100u64.div_ceil(ID_TILES_A_WRITE_MAX as u64));
    assert_eq!(world.state("in_app").await, world.serial_fold("in_app", &outcomes));
    let kept_until = (EPOCH_MS + 1_000_000 + IDS_KEPT_MS) / 1000;
    let ids = world
        .table
        .items()
        .into_iter()
        .filter(|item| item.key.part.starts_with("learned#"));
    assert!(ids.into_iter().all(|item| item.expires_at_epoch_s == Some(kept_until)));
}

#[tokio::test]
async fn a_model_of_another_layout_stays_beside_the_new_one() {
    let world = World::new();
    let outcome = world.outcome("in_app", 1);
    world.run(0, &[record(1, &outcome)]).await;
    let changed = JOURNEY.replace(
        "clicks: features.clicks }",
        "clicks: features.clicks, hour: time.hour }",
    );
    let changed = Journey::parse(&changed).unwrap_or_else(|errors| panic!("{}", errors.render("journey", &changed)));
    let newer = World {
        journey: Arc::new(changed),
        table: world.table.clone(),
        sink: world.sink.clone(),
    };
    assert_eq!(newer.model("in_app").await, FoundModel::Missing);
    let of_newer = newer.outcome("in_app", 2);
    let (_, told) = newer.run(0, &[record(2, &outcome), record(3, &of_newer)]).await;
    assert_eq!((told.learned, told.other_layout), (1, 1));
    assert_eq!(newer.state("in_app").await, newer.serial_fold("in_app", &[of_newer]));
    assert_eq!(
        world.state("in_app").await,
        world.serial_fold("in_app", &[outcome]),
        "a way back"
    );
}
