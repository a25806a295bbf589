//! P2, P3, P11: what the clock and the order of coming may do to a profile, and what not. Each row is delivered in every
//! way that its shards allow, and has to come out the same.

use std::sync::Arc;

use serde_json::{Value, json};
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_tests::fault_runs::cloud::{MemoryCloud, Setup};
use usher_tests::lambda_event::{Record, invocation, payload};

/// 2026-01-05T10:00:00Z.
const START_MS: i64 = 1_767_607_200_000;
const MINUTE_S: i64 = 60;
const DAY_S: i64 = 24 * 60 * MINUTE_S;

const JOURNEY: &str = "
journey: clock-and-order
dedupe: { last: 1 }
steps:
  - { id: bought, on: buy }
features:
  clicks: { count: click }
  clicks_10m: { count: click, within: 10m }
  clicks_7d: { count: click, within: 7d }
  last: { last: category, on: click }
  recent: { recent: category, on: click, limit: 3 }
  first_seen: { first_seen: any }
  last_seen: { last_seen: any }
  sessions: { sessions: count }
";

/// Shard, sequence number, type, seconds from the start when it arrived and when it happened. Its category is its event id:
/// `e-` and its index.
type Row<'r> = (usize, &'r str, &'r str, i64, i64);

const LONG_1: &str = "49590338271490256608559692538361571095921575989136588898";
const LONG_2: &str = "49590338271490256608559692538361571095921575989136588899";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_epoch_ms(START_MS + seconds * 1000)
}

fn shards(rows: &[Row<'_>]) -> Vec<Vec<Record>> {
    let mut shards = vec![Vec::new(), Vec::new()];
    for (index, (shard, sequence_number, event_type, arrived_s, happened_s)) in rows.iter().enumerate() {
        let event = json!({
            "event_id": format!("e-{index}"),
            "event_type": event_type,
            "timestamp": at(*happened_s).to_string(),
            "user_id": "u",
            "category": format!("e-{index}"),
        });
        shards[*shard].push(Record {
            shard_id: format!("shardId-{shard:012}"),
            sequence_number: (*sequence_number).to_owned(),
            arrived_at: at(*arrived_s),
            partition_key: format!("device-{index}"),
            data: event.to_string().into_bytes(),
        });
    }
    shards
}

/// Batches in the order of each shard: shard, first record, the one after the last.
fn ways(shards: &[Vec<Record>]) -> Vec<Vec<(usize, usize, usize)>> {
    let whole = |shard: usize| (shard, 0, shards[shard].len());
    let single = |shard: usize| (0..shards[shard].len()).map(move |index| (shard, index, index + 1));
    let longest = shards.iter().map(Vec::len).max().unwrap_or_default();
    let in_turn = |order: [usize; 2]| {
        let turns = (0..longest).flat_map(move |index| order.map(|shard| (shard, index, index + 1)));
        turns.filter(|(shard, _, to)| *to <= shards[*shard].len()).collect()
    };
    vec![
        vec![whole(0), whole(1)],
        vec![whole(1), whole(0)],
        single(0).chain(single(1)).collect(),
        single(1).chain(single(0)).collect(),
        in_turn([0, 1]),
        in_turn([1, 0]),
        // Everything that was delivered so far comes again each time.
        single(0)
            .map(|(shard, _, to)| (shard, 0, to))
            .chain([whole(1), whole(0)])
            .collect(),
    ]
}

async fn check(what: &str, rows: &[Row<'_>], expected: Value) {
    let journey = Arc::new(Journey::parse(JOURNEY).unwrap_or_else(|errors| panic!("{errors}")));
    let shards = shards(rows);
    for way in ways(&shards) {
        for stays_warm in [true, false] {
            let setup = Setup {
                parallelization_factor: 1,
                concurrency: 1,
                needs_receipt: false,
            };
            let cloud = MemoryCloud::new(&journey, setup);
            let mut writer = cloud.writer();
            for (shard, from, to) in way.iter().filter(|(_, from, to)| from < to) {
                if !stays_warm {
                    writer = cloud.writer();
                }
                let batch = payload(&shards[*shard][*from..*to]);
                let response = writer.run(invocation(&batch)).await.expect("a Kinesis batch");
                assert_eq!(response.retries_from(), None, "{what}");
            }
            let outcome = cloud.outcome(&[]).expect("a sound outcome");
            let shown = outcome.profiles.get("u").expect("a profile");
            let profile = serde_json::Deserializer::from_str(shown).into_iter::<Value>().next();
            let profile = profile.expect("a profile").expect("json");
            for (name, expected) in expected.as_object().expect("an object") {
                let found = match name.strip_prefix("step ") {
                    Some(step) => &profile["steps"][step]["at"],
                    None => &profile["features"][name],
                };
                assert_eq!(
                    found, expected,
                    "{what}: {name}, delivered as {way:?}, warm: {stays_warm}"
                );
            }
        }
    }
}

#[tokio::test]
async fn p11_late_events_land_where_they_belong() {
    check(
        "three days late: an old event overwrites nothing newer, and its window is gone",
        &[
            (0, "1", "click", 3 * DAY_S, 3 * DAY_S),
            (0, "2", "click", 3 * DAY_S + 1, 0),
        ],
        json!({
            "clicks": 2, "clicks_10m": 1, "clicks_7d": 2, "last": "e-0", "recent": ["e-0", "e-1"], "sessions": 2,
            "first_seen": at(0).to_string(), "last_seen": at(3 * DAY_S).to_string(),
        }),
    )
    .await;
    check(
        "eight days late: only what has no window counts it",
        &[
            (0, "1", "click", 8 * DAY_S, 8 * DAY_S),
            (0, "2", "click", 8 * DAY_S + 1, 0),
        ],
        json!({ "clicks": 2, "clicks_10m": 1, "clicks_7d": 1, "last": "e-0" }),
    )
    .await;
    check(
        "five minutes late: it counts in the tile of its own time",
        &[
            (0, "1", "click", 20 * MINUTE_S, 20 * MINUTE_S),
            (0, "2", "click", 20 * MINUTE_S + 1, 15 * MINUTE_S),
            (0, "3", "click", 26 * MINUTE_S, 26 * MINUTE_S),
        ],
        json!({ "clicks": 3, "clicks_10m": 2, "last": "e-2", "recent": ["e-2", "e-0", "e-1"], "sessions": 1 }),
    )
    .await;
    check(
        "a step that was done earlier than it was known",
        &[
            (0, "1", "buy", DAY_S, DAY_S),
            (0, "2", "buy", DAY_S + 1, 0),
            (0, "3", "buy", DAY_S + 2, DAY_S + 2),
        ],
        json!({ "step bought": at(0).to_string() }),
    )
    .await;
    check(
        "a clock that runs four minutes ahead is believed, one that runs ten ahead is set back to the arrival",
        &[
            (0, "1", "click", 0, 4 * MINUTE_S),
            (0, "2", "click", 5 * MINUTE_S, 15 * MINUTE_S),
        ],
        json!({ "last": "e-1", "recent": ["e-1", "e-0"], "last_seen": at(5 * MINUTE_S).to_string() }),
    )
    .await;
}

#[tokio::test]
async fn p11_two_shards_give_one_profile_in_whichever_order_they_come() {
    check(
        "days apart, in two shards",
        &[
            (0, "7", "click", 0, 0),
            (1, "7", "click", 1, -2 * DAY_S),
            (0, "8", "click", 2 * DAY_S, 2 * DAY_S),
            (1, "8", "click", 2 * DAY_S + 1, DAY_S),
        ],
        json!({
            "clicks": 4, "clicks_10m": 1, "clicks_7d": 4, "last": "e-2", "recent": ["e-2", "e-3", "e-0"], "sessions": 4,
            "first_seen": at(-2 * DAY_S).to_string(), "last_seen": at(2 * DAY_S).to_string(),
        }),
    )
    .await;
    check(
        "the same sequence numbers in two shards are different records",
        &[
            (0, "5", "click", 0, 0),
            (1, "5", "click", 0, 1),
            (0, "6", "click", 2, 2),
            (1, "6", "click", 2, 3),
        ],
        json!({ "clicks": 4, "last": "e-3", "recent": ["e-3", "e-2", "e-1"] }),
    )
    .await;
    // Which shard wins is arbitrary and always the same one: it follows from a hash of the shard's name.
    check(
        "equal timestamps in two shards",
        &[
            (0, "1", "click", 0, 0),
            (1, "1", "click", 0, 0),
            (0, "2", "click", 1, 0),
            (1, "2", "click", 1, 0),
        ],
        json!({ "clicks": 4, "last": "e-2", "recent": ["e-2", "e-0", "e-3"] }),
    )
    .await;
}

#[tokio::test]
async fn p2_p3_order_within_a_shard_is_that_of_its_numbers() {
    check(
        "equal timestamps in one shard: the later record wins",
        &[
            (0, "1", "click", 0, 0),
            (0, "2", "click", 0, 0),
            (0, "3", "click", 0, 0),
        ],
        json!({ "clicks": 3, "last": "e-2", "recent": ["e-2", "e-1", "e-0"], "sessions": 1 }),
    )
    .await;
    check(
        "numbers of different length: as text each would be before the one before it",
        &[
            (0, "9", "click", 0, 0),
            (0, "10", "click", 1, 1),
            (0, "1000", "click", 2, 2),
            (0, "10000000000000000000", "click", 3, 3), // over 64 bits
            (0, "1000000000000000000000000000000000000000", "click", 4, 4), // over 128 bits
            (0, LONG_1, "click", 5, 5),
            (0, LONG_2, "click", 6, 6),
        ],
        json!({ "clicks": 7, "last": "e-6", "recent": ["e-6", "e-5", "e-4"] }),
    )
    .await;
    check(
        "numbers that differ in their last digit of 56, and one of the other shard that is short",
        &[
            (0, LONG_1, "click", 0, 0),
            (1, "3", "click", 1, 1),
            (0, LONG_2, "click", 2, 2),
            (1, "20", "click", 3, 3),
        ],
        json!({ "clicks": 4, "last": "e-3", "recent": ["e-3", "e-2", "e-1"] }),
    )
    .await;
}
