//! What reading a trend costs: it is read for each candidate of a decision.

use divan::{Bencher, black_box};
use usher_domain::journey::{Trend, TrendBy};
use usher_domain::time::Timestamp;
use usher_domain::trends::{TILE_MS, TrendKey, Trends, minute_of};

/// Contents that are met with in every minute.
const CONTENTS: usize = 1_000;
/// 2026-01-05T12:00.
const NOW_MS: i64 = 1_767_614_400_000;

fn main() {
    divan::main();
}

fn trends(minutes: i64) -> Trends {
    let last = minute_of(Timestamp::from_epoch_ms(NOW_MS));
    let mut trends = Trends::default();
    for minute in last - minutes..=last {
        for content in 0..CONTENTS {
            for event_type in ["click", "like", "view"] {
                let key = TrendKey {
                    event_type: event_type.to_owned(),
                    by: TrendBy::Content,
                    id: format!("article-{content}"),
                };
                trends.add(minute, key, content as u64);
            }
        }
    }
    trends
}

/// One event type, over windows of so many minutes.
#[divan::bench(args = [10, 60, 1_440])]
fn count(bencher: Bencher<'_, '_>, minutes: i64) {
    let trends = trends(minutes);
    let trend = Trend {
        name: "clicks".to_owned(),
        event_types: vec!["click".to_owned()],
        by: TrendBy::Content,
        within_ms: minutes * TILE_MS,
    };
    let ids: Vec<String> = (0..CONTENTS).map(|content| format!("article-{content}")).collect();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % CONTENTS;
        trends.count(black_box(&trend), &ids[turn], Timestamp::from_epoch_ms(NOW_MS))
    });
}
