//! P2, P3, P5: however the records are cut into batches, delivered again, spread over containers and met by failures,
//! the profiles and the triggers are those of one serial fold. What fails here is made smaller until it is plain.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use usher_domain::time::Timestamp;
use usher_tests::fault_runs::cloud::Setup;
use usher_tests::fault_runs::random::{DamagePlan, FEW_IDS, Plan, run_plan};
use usher_tests::lambda_event::{Record, usual_sequence_number};

const SHARDS: usize = 3;
const START_MS: i64 = 1_767_607_200_000;

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
    let mut arrived_at = Timestamp::from_epoch_ms(START_MS);
    let mut last_of_user: BTreeMap<u8, Value> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        arrived_at = arrived_at.plus_ms(step.pause_s * 1000);
        let fresh = json!({
            "event_id": format!("e-{index}"),
            "event_type": step.event_type,
            "timestamp": arrived_at.minus_ms(step.late_s * 1000).to_string(),
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
            sequence_number: usual_sequence_number(index as u64),
            arrived_at,
            partition_key: format!("u-{}", step.user),
            data: event.to_string().into_bytes(),
        });
    }
    shards
}

/// A user whose profile can't be read for a while.
fn damage() -> impl Strategy<Value = Option<DamagePlan>> {
    let plan =
        (0u8..4, 1u64..8, 0u64..8, 0u64..10).prop_map(|(user, after, mended_after, redriven_after)| DamagePlan {
            user: format!("u-{user}"),
            after,
            mended_after,
            redriven_after,
        });
    prop::option::of(plan)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn p2_p3_p5_any_delivery_is_one_serial_fold(
        steps in prop::collection::vec(step(), 1..60), damage in damage(), seed: u32,
    ) {
        let setup = Setup { parallelization_factor: 1, concurrency: 3, needs_receipt: true };
        let plan = Plan { journey: FEW_IDS.clone(), setup, shards: shards(&steps), damage, learns_meanwhile: false };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ended = runtime.block_on(run_plan(&plan, u64::from(seed)));
        prop_assert!(ended.is_ok(), "{}", ended.err().unwrap_or_default());
    }
}
