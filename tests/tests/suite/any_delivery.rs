//! P2, P3, P5: however the records are cut into batches, delivered again, spread over containers and met by failures,
//! the profiles and the set of trigger ids are those of one serial fold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::journey::Journey;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::{
    Fault, Faults, MemoryClock, MemoryDecisionTable, MemoryDelivery, MemoryProfileTable, MemorySink, MemoryStream,
};
use usher_pipeline::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use usher_pipeline::trigger_delivery::{TriggerDelivery, TriggerDeliveryConfig, TriggerDeliveryPorts};
use usher_wire::{profile_json, profile_state};

use crate::lambda_event::{Record, STREAM_ARN, invocation, payload, records_of};

type Writer = ProfileWriter<MemoryProfileTable, MemoryStream, MemoryClock, MemorySink>;

const SHARDS: usize = 3;
const CONTAINERS: usize = 2;
const START_MS: i64 = 1_767_607_200_000;

const JOURNEY: &str = r#"
journey: any-delivery
dedupe: { last: 8 }
ignore: [heartbeat]
steps:
  - { id: signed_up, on: sign_up }
  - { id: busy, on: click, when: features.clicks_5m >= 3 }
features:
  clicks: { count: click }
  clicks_5m: { count: click, within: 5m }
  time: { sum: properties.ms, on: page_view }
  last: { last: category, on: [click, page_view] }
  recent: { recent: category, on: [click, page_view], limit: 3, within: 10m }
  sessions: { sessions: count }
contents: [{ id: a }, { id: b, unless: steps.busy.done }]
triggers:
  - { id: welcome, on: sign_up, offer: a, slot: top, limit: 1 }
  - { id: keen, on: click, when: features.clicks_5m >= 2, offer: b, slot: top, cooldown: 2m }
  - { id: third, on: [click, page_view], when: features.clicks % 3 == 1, offer: a, slot: side }
"#;

/// One event to come.
#[derive(Clone, Debug)]
struct Step {
    user: u8,
    event_type: &'static str,
    category: u8,
    /// How long after the event before it arrives.
    pause_s: i64,
    /// How late it is.
    late_s: i64,
    /// Whether the producer sends the event before it of this user again instead.
    repeats: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let types = prop::sample::select(vec![
        "click",
        "click",
        "click",
        "page_view",
        "sign_up",
        "heartbeat",
        "other",
    ]);
    (
        0u8..4,
        types,
        0u8..4,
        0i64..90,
        prop_oneof![4 => Just(0i64), 1 => 0i64..900],
        prop::bool::weighted(0.1),
    )
        .prop_map(|(user, event_type, category, pause_s, late_s, repeats)| Step {
            user,
            event_type,
            category,
            pause_s,
            late_s,
            repeats,
        })
}

/// The records of each shard. A user's are all in one, as the partition key has it.
fn shards(steps: &[Step]) -> Vec<Vec<Record>> {
    let mut shards = vec![Vec::new(); SHARDS];
    let mut arrived = Timestamp::from_epoch_ms(START_MS);
    let mut last_of_user: BTreeMap<u8, Value> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        arrived = arrived.plus_ms(step.pause_s * 1000);
        let fresh = json!({
            "event_id": format!("e-{index}"),
            "event_type": step.event_type,
            "timestamp": arrived.minus_ms(step.late_s * 1000).to_string(),
            "user_id": format!("u-{}", step.user),
            "category": format!("c-{}", step.category),
            "properties": { "ms": f64::from(step.category) + 0.1 },
        });
        let event = last_of_user
            .get(&step.user)
            .filter(|_| step.repeats)
            .cloned()
            .unwrap_or(fresh);
        last_of_user.insert(step.user, event.clone());
        let shard = usize::from(step.user) % SHARDS;
        shards[shard].push(Record {
            shard_id: format!("shardId-{shard:012}"),
            number: index as u64,
            arrived_at: arrived,
            partition_key: format!("u-{}", step.user),
            data: event.to_string().into_bytes(),
        });
    }
    shards
}

/// What is compared: the profile as people see it and what it remembers of ids and rules. Version, outbox and how far the
/// guard is past the last applied event depend on how often it was written.
fn compared(user: &str, profile: &Profile, journey: &Journey) -> String {
    let json = profile_json::to_json(user, profile, journey, profile.now);
    format!(
        "{json} {:?} {:?} {:?}",
        profile.recent_event_ids, profile.rules, profile.now
    )
}

type Outcome = (BTreeMap<String, String>, BTreeSet<String>);

/// Every shard from front to back, one event at a time.
fn serial_fold(journey: &Journey, shards: &[Vec<Record>]) -> Outcome {
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    let mut triggers = BTreeSet::new();
    for record in shards.iter().flatten() {
        let shard = Shard {
            key: ShardKey::of(STREAM_ARN, &record.shard_id),
            id: record.shard_id.clone(),
        };
        let event = usher_wire::event::decode(&record.data, record.arrived_at).expect("a good event");
        let position = Position {
            sequence_number: record.sequence_number().parse().expect("a sequence number"),
            sub_sequence_number: 0,
        };
        let user = event.user.to_string();
        let arrived = ArrivedEvent {
            event,
            arrived_at: record.arrived_at,
            shard: &shard,
            position,
        };
        let profile = profiles.remove(&user).unwrap_or_else(|| Profile::new(journey));
        let mut plan = plan_user(journey, profile, [&arrived]);
        triggers.extend(plan.profile.outbox.drain(..).map(|trigger| trigger.id.to_string()));
        profiles.insert(user, plan.profile);
    }
    // A user of whom nothing was applied has no item.
    profiles.retain(|_, profile| profile.applied_events > 0);
    (
        profiles
            .iter()
            .map(|(user, profile)| (user.clone(), compared(user, profile, journey)))
            .collect(),
        triggers,
    )
}

fn writer(
    journey: &Arc<Journey>,
    profiles: &MemoryProfileTable,
    triggers: &MemoryStream,
    rejected: &MemoryStream,
) -> Writer {
    let ports = ProfileWriterPorts {
        profiles: profiles.clone(),
        triggers: triggers.clone(),
        rejected: rejected.clone(),
        clock: MemoryClock::at(Timestamp::from_epoch_ms(START_MS)),
        telemetry: MemorySink::default(),
    };
    let config = ProfileWriterConfig {
        write_concurrency: 3,
        parallelization_factor: 1,
        metrics_namespace: "Usher".to_owned(),
    };
    ProfileWriter::new(journey.clone(), ports, config)
}

/// Makes one call in `one_in` fail, in any way that the call may fail.
fn disturb(faults: &Faults, seed: u64, one_in: u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    faults.on_call(move |_| {
        (random.u32(0..one_in) == 0).then(|| match random.u8(0..4) {
            0 => Fault::Throttle,
            1 => Fault::LostAnswer,
            2 => Fault::Refuse,
            _ => Fault::Partial(vec![0]),
        })
    });
}

/// As a faulty event source mapping would: batches of any size, prefixes again, containers with stale caches, failing
/// calls. Each shard goes on from where the response says.
async fn deliver(journey: &Arc<Journey>, shards: &[Vec<Record>], seed: u64) -> Outcome {
    let (profiles, triggers, rejected) = (
        MemoryProfileTable::default(),
        MemoryStream::with_shards(2),
        MemoryStream::default(),
    );
    disturb(profiles.faults(), seed, 6);
    disturb(triggers.faults(), seed + 1, 4);
    let writers: Vec<_> = (0..CONTAINERS)
        .map(|_| writer(journey, &profiles, &triggers, &rejected))
        .collect();
    let mut random = fastrand::Rng::with_seed(seed + 2);
    let mut checkpoints = [0; SHARDS];
    loop {
        let open: Vec<usize> = (0..SHARDS)
            .filter(|shard| checkpoints[*shard] < shards[*shard].len())
            .collect();
        let Some(shard) = random.choice(&open).copied() else {
            break;
        };
        let records = &shards[shard];
        // Now and then a part that is done comes again: a checkpoint that was not saved.
        let back = if random.u8(0..5) == 0 {
            random.usize(0..=checkpoints[shard])
        } else {
            0
        };
        let from = checkpoints[shard] - back;
        let to = (from + random.usize(1..=12)).min(records.len());
        let writer = &writers[random.usize(0..CONTAINERS)];
        let response = writer
            .run(invocation(&payload(&records[from..to])))
            .await
            .expect("a Kinesis batch");
        let done = match response.retries_from() {
            None => to,
            Some(number) => {
                let index = records[from..to]
                    .iter()
                    .position(|record| record.sequence_number() == number);
                from + index.expect("it names a record of the batch")
            }
        };
        checkpoints[shard] = checkpoints[shard].max(done);
    }
    assert!(rejected.records().is_empty());
    let found = profiles.items().into_iter().map(|item| {
        let profile = profile_state::decode(&item.state, item.version, &item.user_id, journey).expect("readable");
        (item.user_id.clone(), compared(&item.user_id, &profile, journey))
    });
    let ids: BTreeSet<String> = triggers
        .records()
        .iter()
        .map(|stored| trigger_id(&stored.record.data))
        .collect();
    assert_eq!(
        act_once(&triggers, seed).await,
        ids,
        "each decision is delivered, and no other"
    );
    (found.collect(), ids)
}

fn trigger_id(data: &[u8]) -> String {
    let json: Value = serde_json::from_slice(data).expect("json");
    json["trigger_id"].as_str().expect("text").to_owned()
}

/// Delivers everything on the triggers stream, twice; gives the ids that were acted on.
async fn act_once(triggers: &MemoryStream, seed: u64) -> BTreeSet<String> {
    let ports = TriggerDeliveryPorts {
        decisions: MemoryDecisionTable::default(),
        delivery: MemoryDelivery::default(),
        clock: MemoryClock::at(Timestamp::from_epoch_ms(START_MS)),
        telemetry: MemorySink::default(),
    };
    let delivery = ports.delivery.clone();
    disturb(ports.decisions.faults(), seed + 3, 5);
    let config = TriggerDeliveryConfig {
        delivery_concurrency: 3,
        decision_ttl_days: 90,
        metrics_namespace: "Usher".to_owned(),
    };
    let flow = TriggerDelivery::new(ports, config);
    let records = records_of(triggers, Timestamp::from_epoch_ms(START_MS));
    for _ in 0..2 {
        let mut from = 0;
        while from < records.len() {
            let response = flow
                .run(invocation(&payload(&records[from..])))
                .await
                .expect("a Kinesis batch");
            from = match response.retries_from() {
                None => records.len(),
                Some(number) => records
                    .iter()
                    .position(|record| record.sequence_number() == number)
                    .expect("known"),
            };
        }
    }
    // By id: where noting a delivery fails, it is delivered again under the same id, by which the receiver acts once.
    delivery
        .delivered()
        .iter()
        .map(|decision| decision.trigger_id.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn p2_p3_p5_any_delivery_is_one_serial_fold(steps in prop::collection::vec(step(), 1..60), seed: u32) {
        let journey = Arc::new(Journey::parse(JOURNEY).expect("a journey"));
        let shards = shards(&steps);
        let (profiles, triggers) = serial_fold(&journey, &shards);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (found_profiles, found_triggers) = runtime.block_on(deliver(&journey, &shards, u64::from(seed)));
        prop_assert_eq!(found_profiles, profiles);
        prop_assert_eq!(found_triggers, triggers);
    }
}
