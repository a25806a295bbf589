//! Over the table in memory.

use std::collections::BTreeMap;

use usher_domain::event::Event;
use usher_domain::sequence_number::Position;
use usher_domain::trends::TILE_MS;
use usher_domain::trends::tile::TrendTile;

use super::*;
use crate::memory::{Fault, MemoryTrendTable, Operation};

const NOON_MS: i64 = 1_767_614_400_000;

fn at(minute: i64, second: i64) -> Timestamp {
    Timestamp::from_epoch_ms(NOON_MS + minute * TILE_MS + second * 1000)
}

fn clicks(within_minutes: i64) -> Trend {
    Trend {
        name: "clicks".to_owned(),
        event_types: vec!["click".to_owned()],
        by: TrendBy::Content,
        within_ms: within_minutes * TILE_MS,
    }
}

/// Puts a tile with so many clicks on each content, and a like, as content-trends would.
fn put(table: &MemoryTrendTable, minute: i64, shard: u32, clicks: &[(&str, u64)]) {
    let mut tile = TrendTile::default();
    let mut number = 0u64;
    let likes = [("liked", "like", 1)];
    let clicks = clicks.iter().map(|(content, count)| (*content, "click", *count));
    for (content, event_type, count) in clicks.chain(likes) {
        for _ in 0..count {
            number += 1;
            let event = Event {
                event_type: event_type.into(),
                content_id: Some(content.into()),
                id_hash: number,
                ..Event::default()
            };
            let position = Position {
                sequence_number: number.into(),
                sub_sequence_number: 0,
            };
            tile.count(&event, position);
        }
    }
    table.insert(TrendItem {
        minute: minute_of(at(minute, 0)),
        shard: format!("interactions/shardId-{shard:012}"),
        version: 1,
        state: trend_tile::encode(&tile),
        expires_at_epoch_s: 0,
    });
}

async fn refreshed(reader: &mut TrendReader, table: &MemoryTrendTable, now: Timestamp) -> Refreshed {
    reader.refresh(table, now).await.expect("it answers")
}

/// The minutes, as of noon, that the last look asked for.
fn minutes_asked(table: &MemoryTrendTable, calls_before: usize) -> Vec<i64> {
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    for call in table.faults().calls().into_iter().skip(calls_before) {
        let minute = call.keys[0].split('#').next().unwrap_or_default().to_owned();
        *asked.entry(minute).or_default() += 1;
    }
    asked
        .into_iter()
        .map(|(minute, queries)| {
            assert_eq!(queries, TREND_BUCKETS, "{minute}");
            let start: Timestamp = format!("{minute}:00Z").parse().expect("a minute");
            start.ms_since(at(0, 0)) / TILE_MS
        })
        .collect()
}

#[tokio::test]
async fn all_shards_and_minutes_add_up_and_what_changes_is_found_at_the_next_look() {
    let table = MemoryTrendTable::default();
    for shard in 0..40 {
        put(&table, 0, shard, &[("a", 2), ("b", 1)]);
        put(&table, -9, shard, &[("a", 1)]);
        put(&table, -11, shard, &[("a", 100)]);
    }
    let mut reader = TrendReader::for_trends(&[clicks(10)]);
    let trends = refreshed(&mut reader, &table, at(0, 59)).await.trends;
    let trend = clicks(10);
    assert_eq!(trends.count(&trend, "a", at(0, 59)), 40 * 3);
    assert_eq!(trends.top(&trend, at(0, 59), 9), [("a", 120), ("b", 40)]);
    assert_eq!(
        trends.event_types(TrendBy::Content).collect::<Vec<_>>(),
        ["click"],
        "what nobody reads is not kept"
    );

    put(&table, 0, 7, &[("a", 5), ("b", 1)]);
    put(&table, 1, 7, &[("b", 10)]);
    let trends = refreshed(&mut reader, &table, at(1, 5)).await.trends;
    assert_eq!(
        trends.count(&trend, "a", at(1, 5)),
        123,
        "the minute before is read again while it settles"
    );
    assert_eq!(trends.count(&trend, "b", at(1, 5)), 50);
    assert_eq!(reader.events(), 40 * 4 + 3 + 40 * 2 + 11, "likes too");
    let trends = refreshed(&mut reader, &table, at(500, 0)).await.trends;
    assert_eq!(*trends, Trends::default());
}

#[tokio::test]
async fn only_what_may_have_changed_is_read_again() {
    let table = MemoryTrendTable::default();
    let mut reader = TrendReader::for_trends(&[clicks(5)]);
    for (minute, second, expected) in [
        (0, 30, &[-5, -4, -3, -2, -1, 0][..]),
        (0, 33, &[-1, 0]), // the present one, and one in turn
        (0, 36, &[-2, 0]),
        (0, 39, &[-3, 0]),
        (1, 2, &[-4, 0, 1]),  // since the last look
        (1, 5, &[-1, 0, 1]),  // each had its turn
        (1, 15, &[-2, 0, 1]), // the one before was not settled at the last look
        (1, 26, &[-3, 1]),
        (1, 40, &[-4, 1]),
        (1, 43, &[0, 1]),
        (20, 0, &[15, 16, 17, 18, 19, 20]), // a long time between two looks
    ] {
        let calls_before = table.faults().calls().len();
        let look = refreshed(&mut reader, &table, at(minute, second)).await;
        let asked = minutes_asked(&table, calls_before);
        assert_eq!(asked, expected, "{minute} {second}");
        assert_eq!(look.queries, u64::from(TREND_BUCKETS) * expected.len() as u64);
        assert_eq!(
            look.read_units,
            0.5 * look.queries as f64,
            "an empty query costs half a unit"
        );
    }
}

#[tokio::test]
async fn late_events_are_found_in_turn() {
    let table = MemoryTrendTable::default();
    let mut reader = TrendReader::for_trends(&[clicks(10)]);
    refreshed(&mut reader, &table, at(0, 20)).await;
    put(&table, -6, 1, &[("late", 3)]);
    let mut looks = 0;
    while reader.trends().count(&clicks(10), "late", at(0, 20)) == 0 {
        looks += 1;
        refreshed(&mut reader, &table, at(0, 20 + looks)).await;
    }
    assert_eq!(looks, 6);
}

#[tokio::test]
async fn a_failed_look_changes_nothing_and_the_next_one_finds_all() {
    let table = MemoryTrendTable::default();
    put(&table, 0, 1, &[("a", 1)]);
    let mut reader = TrendReader::for_trends(&[clicks(10)]);
    refreshed(&mut reader, &table, at(0, 1)).await;
    put(&table, 0, 1, &[("a", 2)]);
    put(&table, 1, 1, &[("a", 3)]);
    table.faults().inject_at(Operation::QueryTrends, Fault::Refuse);
    reader.refresh(&table, at(1, 30)).await.expect_err("it is refused");
    assert_eq!(reader.trends().count(&clicks(10), "a", at(1, 30)), 1);
    table.faults().inject_at(Operation::QueryTrends, Fault::Throttle);
    let trends = refreshed(&mut reader, &table, at(1, 31)).await.trends;
    assert_eq!(
        trends.count(&clicks(10), "a", at(1, 31)),
        5,
        "throttling is tried again, at once"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_told() {
    let table = MemoryTrendTable::default();
    put(&table, 0, 1, &[("a", 1)]);
    table.insert_unreadable(minute_of(at(0, 0)), "interactions/shardId-000000000002", "odd");
    table.insert(TrendItem {
        minute: minute_of(at(0, 0)),
        shard: "interactions/shardId-000000000003".to_owned(),
        state: vec![0x87, 9],
        ..TrendItem::default()
    });
    let mut reader = TrendReader::of_everything(10 * TILE_MS);
    let look = refreshed(&mut reader, &table, at(0, 1)).await;
    assert_eq!(look.unreadable, 2);
    assert_eq!(look.trends.count(&clicks(10), "a", at(0, 1)), 1);
    assert_eq!(look.trends.event_types(TrendBy::Content).count(), 2, "likes too");
}

#[tokio::test]
async fn without_trends_nothing_is_read() {
    let table = MemoryTrendTable::default();
    let mut reader = TrendReader::for_trends(&[]);
    assert_eq!(refreshed(&mut reader, &table, at(0, 1)).await.queries, 0);
    assert!(table.faults().calls().is_empty());
}

#[test]
fn p8_a_minute_keeps_the_highest_counts_and_says_what_the_others_may_have_had() {
    let mut tile = TrendTile::default();
    let mut number = 0u64;
    for content in 0..100u64 {
        for _ in 0..=content {
            number += 1;
            let id = format!("c{content}");
            let event = Event {
                event_type: "click".into(),
                content_id: Some(id.into()),
                id_hash: number,
                ..Event::default()
            };
            let position = Position {
                sequence_number: number.into(),
                sub_sequence_number: 0,
            };
            tile.count(&event, position);
        }
    }
    let item = TrendItem {
        state: trend_tile::encode(&tile),
        ..TrendItem::default()
    };
    let (minute, unreadable) = Minute::of(vec![item.clone(), item], &Wanted::Everything, 10);
    assert_eq!((minute.counts.len(), unreadable, minute.events), (10, 0, 2 * 5050));
    assert!(minute.counts.iter().all(|(_, count)| *count >= 2 * 91));
    assert_eq!(minute.error, 2 * 90);
}
