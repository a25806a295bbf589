//! The contract of the `trends` table.

use usher_pipeline::ports::{TREND_BUCKETS, TrendItem, TrendPutAnswer, TrendTable, trend_bucket};

/// Tiles of one bucket that are more than one page of 1 MB.
const LARGE_TILES: usize = 4;
/// The state of such a tile.
const LARGE_STATE_BYTES: usize = 390 * 1024;
/// How often a page is asked for until what was written is there: reads are eventually consistent.
const READS_MAX: usize = 50;

/// A `trends` table: writes a tile only on the version that is stored (P4), and reads a bucket of a minute page by page.
pub async fn trend_table(table: &impl TrendTable, run: &str) {
    a_write_on_another_version_conflicts_and_gives_the_stored_tile(table, run).await;
    a_bucket_of_a_minute_is_read_in_the_order_of_its_shards(table, run).await;
    what_is_more_than_a_page_is_read_page_by_page(table, run).await;
}

fn tile(run: &str, minute: i64, shard: &str, version: u64, state: &[u8]) -> TrendItem {
    TrendItem {
        minute,
        shard: format!("{run}/{shard}"),
        version,
        state: state.to_owned(),
        expires_at_epoch_s: 4_102_444_800,
    }
}

/// A minute of this run alone.
fn minute_of_run(run: &str) -> i64 {
    let number = run
        .bytes()
        .fold(0i64, |number, byte| (number * 31 + i64::from(byte)) % 1_000_000);
    29_000_000 + number * 4
}

async fn put(table: &impl TrendTable, item: &TrendItem, expected_version: u64) -> TrendPutAnswer {
    table.put(item, expected_version).await.expect("it answers")
}

async fn a_write_on_another_version_conflicts_and_gives_the_stored_tile(table: &impl TrendTable, run: &str) {
    let minute = minute_of_run(run);
    let of_version = |version: u64, state: &[u8]| tile(run, minute, "shardId-000000000000", version, state);
    for (item, expected_version, current) in [
        (of_version(4, b"too early"), 3, Some(None)),
        (of_version(1, b"first"), 0, None),
        (of_version(1, b"twice"), 0, Some(Some(of_version(1, b"first")))),
        (of_version(2, &[0, 255, 7]), 1, None),
        (of_version(2, b"late"), 1, Some(Some(of_version(2, &[0, 255, 7])))),
    ] {
        match (put(table, &item, expected_version).await, current) {
            (TrendPutAnswer::Written { write_units }, None) => assert!(write_units >= 0.0),
            (TrendPutAnswer::Conflict { current, .. }, Some(expected)) => assert_eq!(current, expected),
            (answer, expected) => panic!("{item:?} on {expected_version}: {answer:?} where {expected:?} is stored"),
        }
    }
}

/// Every tile of a bucket.
async fn read(table: &impl TrendTable, minute: i64, bucket: u32) -> (Vec<TrendItem>, usize) {
    let (mut items, mut pages, mut after) = (Vec::new(), 0, None::<String>);
    loop {
        let page = table.page(minute, bucket, after.as_deref()).await.expect("it answers");
        assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
        pages += 1;
        items.extend(page.items);
        match page.next_after {
            Some(shard) => after = Some(shard),
            None => return (items, pages),
        }
    }
}

async fn until_there(table: &impl TrendTable, minute: i64, bucket: u32, expected: &[TrendItem]) -> usize {
    for _ in 0..READS_MAX {
        let (items, pages) = read(table, minute, bucket).await;
        if items == expected {
            return pages;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let shards = |items: &[TrendItem]| items.iter().map(|item| item.shard.clone()).collect::<Vec<_>>();
    let (items, _) = read(table, minute, bucket).await;
    panic!(
        "bucket {bucket}: {:?} instead of {:?}",
        shards(&items),
        shards(expected)
    );
}

async fn a_bucket_of_a_minute_is_read_in_the_order_of_its_shards(table: &impl TrendTable, run: &str) {
    let minute = minute_of_run(run) + 1;
    let tiles: Vec<TrendItem> = (0..40)
        .map(|number| tile(run, minute, &format!("shardId-{number:012}"), 1, &[number]))
        .collect();
    for item in tiles.iter().rev() {
        put(table, item, 0).await;
    }
    put(
        table,
        &tile(run, minute + 1, "shardId-000000000000", 1, b"of the next minute"),
        0,
    )
    .await;
    for bucket in 0..TREND_BUCKETS {
        let of_bucket: Vec<TrendItem> = tiles
            .iter()
            .filter(|item| trend_bucket(&item.shard) == bucket)
            .cloned()
            .collect();
        until_there(table, minute, bucket, &of_bucket).await;
    }
}

async fn what_is_more_than_a_page_is_read_page_by_page(table: &impl TrendTable, run: &str) {
    let minute = minute_of_run(run) + 3;
    let shards = (0..).map(|number| format!("large-{number:04}"));
    let in_one_bucket = shards.filter(|shard| trend_bucket(&format!("{run}/{shard}")) == 0);
    let tiles: Vec<TrendItem> = in_one_bucket
        .take(LARGE_TILES)
        .map(|shard| tile(run, minute, &shard, 1, &vec![7; LARGE_STATE_BYTES]))
        .collect();
    for item in &tiles {
        put(table, item, 0).await;
    }
    let pages = until_there(table, minute, 0, &tiles).await;
    assert!(
        pages > 1,
        "{LARGE_TILES} tiles of {LARGE_STATE_BYTES} bytes are more than 1 MB"
    );
}
