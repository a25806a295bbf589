//! Over the table in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use usher_domain::journey::{Journey, TrendBy};
use usher_domain::limits::TREND_KEPT_MS_MIN;
use usher_domain::trends::{TrendKey, minute_of};

use super::*;
use crate::memory::{Call, Container, Fault, MemoryClock, MemorySink, MemoryTrendTable, Operation};
use crate::testing::{EPOCH_MS, LONG, SHORT, TestRecord, invocation, payload, retried_from};

type Flow = ContentTrends<MemoryTrendTable, MemoryClock, MemorySink>;

/// The table, and containers over it.
struct World {
    trends: MemoryTrendTable,
    sink: MemorySink,
    flow: Flow,
}

fn flow(trends: &MemoryTrendTable, sink: &MemorySink) -> Flow {
    let journey = Journey::parse("journey: test").expect("a journey");
    let ports = ContentTrendsPorts {
        trends: trends.clone(),
        clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 1_000_000)),
        telemetry: sink.clone(),
    };
    let config = ContentTrendsConfig {
        write_concurrency: 4,
        metrics_namespace: "Usher".to_owned(),
    };
    ContentTrends::new(JourneyKeeper::from(Arc::new(journey)), ports, config)
}

impl World {
    fn new() -> World {
        let (trends, sink) = (MemoryTrendTable::default(), MemorySink::default());
        World {
            flow: flow(&trends, &sink),
            trends,
            sink,
        }
    }

    /// A new container.
    fn restart(&mut self) {
        self.flow = flow(&self.trends, &self.sink);
    }

    async fn run(&self, shard: u32, records: &[TestRecord]) -> (Option<usize>, ContentTrendsBatch) {
        self.run_within(shard, records, LONG).await
    }

    /// Invokes the flow and checks what must hold of every invocation, whatever fails in it (P1): each record counts once,
    /// and those that come again are exactly those from the record that the response names.
    async fn run_within(
        &self,
        shard: u32,
        records: &[TestRecord],
        time: Duration,
    ) -> (Option<usize>, ContentTrendsBatch) {
        let payload = of_shard(shard, records);
        let response = self.flow.run(invocation(&payload, time)).await.expect("a batch");
        let told = ContentTrendsBatch::from_line(self.sink.lines().last().expect("a line a batch")).expect("ours");
        let settled = told.counted
            + told.redelivered
            + told.repeated
            + told.not_counted
            + told.too_late
            + told.unusable
            + told.left_out;
        let retried_from = retried_from(&response, records);
        assert_eq!(settled, retried_from.unwrap_or(records.len()) as u64, "{told:?}");
        assert_eq!(settled + told.retried, told.received, "{told:?}");
        (retried_from, told)
    }

    /// What is stored, over all shards.
    fn counts(&self) -> BTreeMap<(i64, TrendKey), u64> {
        let mut counts = BTreeMap::new();
        for item in self.trends.items() {
            for (key, count) in trend_tile::decode(&item.state).expect("a tile").counts {
                *counts.entry((item.minute, key)).or_default() += count;
            }
        }
        counts
    }
}

fn of_shard(shard: u32, records: &[TestRecord]) -> String {
    payload(records).replace("shardId-000000000000", &format!("shardId-{shard:012}"))
}

/// A record with an event of so many seconds after the start; it arrived then, too.
fn record(number: u64, event_type: &str, seconds: i64, content: &str) -> TestRecord {
    let at = Timestamp::from_epoch_ms(EPOCH_MS + seconds * 1000);
    let json = format!(
        r#"{{"event_id":"e{number}","event_type":"{event_type}","timestamp":"{at}","user_id":"u{}","content_id":"{content}","category":"all"}}"#,
        number % 7
    );
    TestRecord {
        arrived_at: at,
        ..TestRecord::new(number, json)
    }
}

fn key(event_type: &str, by: TrendBy, id: &str) -> TrendKey {
    TrendKey {
        event_type: event_type.to_owned(),
        by,
        id: id.to_owned(),
    }
}

fn minute(seconds: i64) -> i64 {
    minute_of(Timestamp::from_epoch_ms(EPOCH_MS + seconds * 1000))
}

#[tokio::test]
async fn events_are_counted_by_content_and_category_in_the_minute_of_their_time() {
    let world = World::new();
    let records = [
        record(1, "click", 5, "a"),
        record(2, "click", 59, "a"),
        record(3, "click", 60, "a"),
        record(4, "like", 61, "b"),
        record(5, "sign_up", 61, "b"),
        TestRecord::new(6, "{"),
        record(7, "click", 62, "a"),
    ];
    let (retried, told) = world.run(0, &records).await;
    assert_eq!(retried, None);
    assert_eq!((told.counted, told.not_counted, told.unusable), (5, 1, 1));
    assert_eq!(
        (told.batch_tiles, told.conditional_writes, told.write_units),
        (2, 2, 2.0)
    );
    let expected = [
        (0, key("click", TrendBy::Content, "a"), 2),
        (0, key("click", TrendBy::Category, "all"), 2),
        (60, key("click", TrendBy::Content, "a"), 2),
        (60, key("click", TrendBy::Category, "all"), 2),
        (60, key("like", TrendBy::Content, "b"), 1),
        (60, key("like", TrendBy::Category, "all"), 1),
    ];
    let expected = expected.map(|(seconds, key, count)| ((minute(seconds), key), count));
    assert_eq!(world.counts(), BTreeMap::from(expected));
    let item = &world.trends.items()[0];
    assert_eq!(item.shard, "test/shardId-000000000000");
    let expires_at_ms = EPOCH_MS + 1_000_000 + TREND_KEPT_MS_MIN + EXPIRY_MARGIN_MS;
    assert_eq!(item.expires_at_epoch_s, expires_at_ms / 1000);
}

#[tokio::test]
async fn p2_what_is_delivered_again_counts_once_in_whatever_container() {
    let mut world = World::new();
    let records: Vec<TestRecord> = (1..=9)
        .map(|number| record(number, "click", number as i64 * 10, "a"))
        .collect();
    for (range, counted, redelivered) in [(0..4, 4, 0), (0..4, 0, 4), (2..9, 5, 2), (0..9, 0, 9), (8..9, 0, 1)] {
        for restarts in [false, true] {
            if restarts {
                world.restart();
            }
            let (_, told) = world.run(0, &records[range.clone()]).await;
            let again = if restarts {
                (0, range.len() as u64)
            } else {
                (counted, redelivered)
            };
            assert_eq!((told.counted, told.redelivered), again, "{range:?} {restarts}");
        }
    }
    assert_eq!(world.counts()[&(minute(0), key("click", TrendBy::Content, "a"))], 5);
    assert_eq!(world.counts()[&(minute(60), key("click", TrendBy::Content, "a"))], 4);
    // A warm container that knows its tile makes one call for each.
    let writes: usize = world.trends.items().iter().map(|item| item.version as usize).sum();
    assert_eq!(writes, 3);
}

#[tokio::test]
async fn what_nobody_can_ask_for_any_more_is_not_written() {
    let world = World::new();
    let records: Vec<TestRecord> = (0..48)
        .map(|half_hour| record(half_hour, "click", half_hour as i64 * 1800, "a"))
        .collect();
    let (_, told) = world.run(0, &records).await;
    assert_eq!(
        (told.counted, told.too_late, told.conditional_writes),
        (3, 45, 3),
        "a day in one batch"
    );
}

#[tokio::test]
async fn p2_a_producers_repeat_counts_once() {
    let world = World::new();
    let mut again = record(1, "click", 12, "a");
    again.number = 2;
    let (_, told) = world.run(0, &[record(1, "click", 10, "a"), again.clone()]).await;
    assert_eq!((told.counted, told.repeated), (1, 1));
    let (_, told) = world.run(1, &[again]).await;
    assert_eq!(told.counted, 1, "in another shard nobody knows");
}

#[tokio::test]
async fn p11_late_events_count_in_their_own_minute_until_it_is_of_no_use() {
    let world = World::new();
    let mut records = [
        record(1, "click", -1800, "a"),
        record(2, "click", -3700, "a"),
        record(3, "click", 200, "a"),
        record(4, "click", 86_000, "a"),
    ];
    for record in &mut records {
        record.arrived_at = Timestamp::from_epoch_ms(EPOCH_MS);
    }
    let (_, told) = world.run(0, &records).await;
    assert_eq!((told.counted, told.too_late), (3, 1));
    let minutes: Vec<i64> = world.trends.items().iter().map(|item| item.minute).collect();
    let expected = [minute(-1800), minute(0), minute(200)];
    assert_eq!(minutes, expected, "a clock that is far ahead is taken as the arrival");
}

/// Whatever a call does, the batch that comes again counts what is not counted.
#[tokio::test]
async fn p6_a_failed_tile_comes_again_and_no_other_counts_twice() {
    let records: Vec<TestRecord> = (0..12)
        .map(|number| record(number, "click", number as i64 * 20, "a"))
        .collect();
    for fault in [
        Fault::Throttle,
        Fault::LostAnswer,
        Fault::Refuse,
        Fault::Hang,
        Fault::HangAfter,
        Fault::CrashBefore,
        Fault::CrashAfter,
    ] {
        for call in 0..4 {
            let mut world = World::new();
            let (mut number, at_call) = (0, fault.clone());
            world.trends.faults().on_call(move |_| {
                number += 1;
                (number == call + 1).then(|| at_call.clone())
            });
            let payload = of_shard(0, &records);
            let ended = Container::default()
                .run(world.flow.run(invocation(&payload, SHORT)))
                .await;
            let is_passing = matches!(fault, Fault::Throttle | Fault::LostAnswer);
            match ended {
                Ok(response) => {
                    let response = response.expect("a batch");
                    let from = retried_from(&response, &records);
                    assert!(from.is_none() || !is_passing, "{fault:?} passes");
                    let tile_of_call = from.map(|index| index / 3);
                    assert!(tile_of_call.is_none_or(|tile| tile < 4));
                }
                Err(_) => world.restart(),
            }
            let (_, told) = world.run(0, &records).await;
            assert_eq!(told.counted + told.redelivered, 12, "{fault:?} {call}");
            let counts = world.counts();
            for tile in 0..4 {
                let count = counts[&(minute(tile * 60), key("click", TrendBy::Content, "a"))];
                assert_eq!(count, 3, "{fault:?} at call {call}");
            }
        }
    }
}

#[tokio::test]
async fn p4_a_tile_that_another_container_wrote_is_counted_on() {
    let world = World::new();
    let records: Vec<TestRecord> = (0..6)
        .map(|number| record(number, "click", number as i64, "a"))
        .collect();
    let (_, told) = world.run(0, &records[..2]).await;
    assert_eq!(told.conflicts, 0);
    let other = flow(&world.trends, &MemorySink::default());
    let others = of_shard(0, &records[..4]);
    other.run(invocation(&others, LONG)).await.expect("a batch");
    let (_, told) = world.run(0, &records).await;
    assert_eq!(
        (told.counted, told.redelivered, told.conflicts, told.conditional_writes),
        (2, 4, 1, 1)
    );
    assert_eq!(
        world.trends.faults().count(Operation::QueryTrends),
        0,
        "a conflict costs no read"
    );
    assert_eq!(world.counts()[&(minute(0), key("click", TrendBy::Content, "a"))], 6);
}

#[tokio::test]
async fn a_tile_that_others_write_again_and_again_comes_again() {
    let world = World::new();
    let table = world.trends.clone();
    world.trends.faults().on_call(move |_: &Call| {
        // Another writer is always just ahead.
        let version = table.items().first().map_or(0, |item| item.version);
        table.insert(TrendItem {
            minute: minute(0),
            shard: "test/shardId-000000000000".to_owned(),
            version: version + 1,
            state: trend_tile::encode(&TrendTile::default()),
            expires_at_epoch_s: 0,
        });
        None
    });
    let (retried, told) = world
        .run(0, &[record(1, "like", 90, "a"), record(2, "click", 1, "a")])
        .await;
    assert_eq!(retried, Some(1));
    assert_eq!(told.conflicts, u64::from(CONFLICTS_MAX) + 1);
}

#[tokio::test]
async fn p6_a_tile_that_cannot_be_read_stops_nothing() {
    let shard = "test/shardId-000000000000";
    let newer = TrendItem {
        minute: minute(60),
        shard: shard.to_owned(),
        version: 3,
        state: vec![0x87, 9],
        expires_at_epoch_s: 0,
    };
    let world = World::new();
    world.trends.insert_unreadable(minute(0), shard, "odd");
    world.trends.insert(newer.clone());
    let records = [
        record(1, "click", 1, "a"),
        record(2, "click", 61, "a"),
        record(3, "click", 121, "a"),
    ];
    let (retried, told) = world.run(0, &records).await;
    assert_eq!((retried, told.left_out, told.counted), (None, 2, 1));
    assert!(world.trends.items().contains(&newer), "it stays as it is");
}

/// Shards that split and merge, batches that are cut anyhow, delivered again and again, by several containers and with
/// every kind of failure in between: in the end each event is counted once (P2).
#[tokio::test]
async fn p2_random_deliveries_count_what_is_on_the_stream() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut exact: BTreeMap<(i64, TrendKey), u64> = BTreeMap::new();
        // Parents before children: shard 0 is split into 1 and 2, which are merged into 3.
        let mut number = 0;
        for generation in [&[0][..], &[1, 2], &[3]] {
            let mut shards: Vec<(u32, Vec<TestRecord>)> = Vec::new();
            for shard in generation {
                let records = (0..random.usize(5..60)).map(|_| {
                    number += 1;
                    // Mostly in order, some late, some by a clock that is ahead.
                    let seconds = number as i64 * 7 + random.i64(-200..100);
                    let content = format!("c{}", random.u32(0..5));
                    let event_type = ["click", "view", "like", "other"][random.usize(0..4)];
                    if event_type != "other" {
                        for (by, id) in [(TrendBy::Content, content.as_str()), (TrendBy::Category, "all")] {
                            *exact.entry((minute(seconds), key(event_type, by, id))).or_default() += 1;
                        }
                    }
                    record(number, event_type, seconds, &content)
                });
                shards.push((*shard, records.collect()));
            }
            let mut done = vec![0; shards.len()];
            let mut steps = 0;
            while shards
                .iter()
                .zip(&done)
                .any(|((_, records), done)| *done < records.len())
            {
                steps += 1;
                let faulty = steps < 300;
                let index = random.usize(0..shards.len());
                let (shard, records) = &shards[index];
                // From where it stands, or from before, as when a checkpoint got lost.
                let start = random.usize(done[index].saturating_sub(5)..=done[index]);
                let end = random.usize(start..=records.len());
                if random.bool() {
                    world.restart();
                }
                if faulty && random.bool() {
                    let faults = [
                        Fault::Throttle,
                        Fault::LostAnswer,
                        Fault::Refuse,
                        Fault::CrashBefore,
                        Fault::CrashAfter,
                    ];
                    world
                        .trends
                        .faults()
                        .inject(faults[random.usize(0..faults.len())].clone());
                }
                let batch = &records[start..end];
                let payload = of_shard(*shard, batch);
                let run = Container::default()
                    .run(world.flow.run(invocation(&payload, LONG)))
                    .await;
                match run {
                    Ok(response) => {
                        let response = response.expect("a batch");
                        let settled = retried_from(&response, batch).unwrap_or(batch.len());
                        done[index] = done[index].max(start + settled);
                    }
                    Err(_) => world.restart(),
                }
            }
        }
        assert_eq!(world.counts(), exact, "seed {seed}");
    }
}

/// Write units for a million events, of a shard with so many events a second on so many contents, in batches of a second.
async fn units_for_a_million(events_a_second: u64, contents: f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(7);
    let world = World::new();
    let (mut units, mut number) = (0.0, 0);
    for second in 0..60 {
        let records: Vec<TestRecord> = (0..events_a_second)
            .map(|_| {
                number += 1;
                // Few contents are met with often, most hardly ever.
                let content = (random.f64().powi(3) * contents) as u32;
                let event_type = ["click", "view", "view", "view", "like"][random.usize(0..5)];
                record(number, event_type, second, &format!("article-{content:06}"))
            })
            .collect();
        units += world.run(0, &records).await.1.write_units;
    }
    units / (60 * events_a_second) as f64 * 1e6
}

/// What docs/trends.md says of the cost. One event a write is dear, and a busy shard cheap, whatever people meet with.
#[tokio::test]
async fn p8_what_a_million_events_cost() {
    for (events_a_second, contents, units_max) in [
        (1, 50.0, 1_300_000.0),
        (29, 50.0, 110_000.0),
        (29, 1_000.0, 420_000.0),
        (500, 1_000.0, 30_000.0),
        (500, 100_000.0, 30_000.0),
    ] {
        let units = units_for_a_million(events_a_second, contents).await;
        println!("{events_a_second} a second on {contents} contents: {units:.0} write units for a million events");
        assert!(units <= units_max, "{events_a_second} on {contents}: {units}");
    }
}
