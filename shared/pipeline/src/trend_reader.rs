//! Keeps the trends of all shards fresh for whoever reads them.
//!
//! The first look reads every minute of the longest window. Afterwards only what may have changed is read: the present
//! minute, the one before for as long as records of it may still be under way, and one older minute in turn, so that what
//! came late is found, too. Each minute is [`TREND_BUCKETS`] queries.
//!
//! A reader remembers the minutes that it read. After a failed look it has what it had before, and the next one begins there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use hashbrown::HashMap;
use tokio::time::Instant;
use usher_domain::journey::{Trend, TrendBy};
use usher_domain::limits::TREND_SNAPSHOT_COUNTS_MAX;
use usher_domain::time::Timestamp;
use usher_domain::trends::{TrendKey, Trends, minute_of, oldest_minute};
use usher_wire::trend_tile;

use crate::ports::{TREND_BUCKETS, TrendItem, TrendTable};
use crate::retry::{Failure, until_answered};

/// For so long after its end a minute is read again at each look: a record is counted within 2 seconds where nothing is
/// behind, and nearly all are within 10.
pub const MINUTE_SETTLES_MS: i64 = 10_000;
/// How long one look may take. The first, over a window of an hour, is some 1,000 queries.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(15);
/// Queries under way at once.
const QUERIES_AT_ONCE: usize = 32;
/// Attempts of one query.
const ATTEMPTS_MAX: u32 = 4;

/// Which counts a reader keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// Those of these event types and kinds of id.
    These(Vec<(TrendBy, String)>),
    /// All.
    Everything,
}

impl Wanted {
    fn has(&self, key: &TrendKey) -> bool {
        match self {
            Wanted::Everything => true,
            Wanted::These(wanted) => wanted
                .iter()
                .any(|(by, event_type)| *by == key.by && *event_type == key.event_type),
        }
    }
}

/// Keeps the trends fresh.
#[derive(Debug)]
pub struct TrendReader {
    wanted: Wanted,
    within_ms: i64,
    minutes: BTreeMap<i64, Minute>,
    /// As of when the last look was.
    read_at: Option<Timestamp>,
    /// The older minute whose turn it was last.
    turn: i64,
    trends: Arc<Trends>,
}

/// What a minute holds, over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Minute {
    counts: Vec<(TrendKey, u64)>,
    /// By how much any of them may be too low.
    error: u64,
    /// Events that were counted.
    events: u64,
}

/// What a look gave.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The trends as they are now known.
    pub trends: Arc<Trends>,
    /// Queries that it took.
    pub queries: u64,
    /// Read capacity units that it took.
    pub read_units: f64,
    /// Stored tiles that can't be read, which are left out.
    pub unreadable: u64,
}

/// Tiles of one minute.
#[derive(Debug, Default)]
struct MinuteRead {
    minute: i64,
    items: Vec<TrendItem>,
    queries: u64,
    read_units: f64,
    unreadable: u64,
}

impl TrendReader {
    /// Keeps what these trends need; nothing, at no cost, where there are none.
    pub fn for_trends(trends: &[Trend]) -> TrendReader {
        let of_one = |trend: &Trend| {
            let by = trend.by;
            let types = trend.event_types.clone();
            types.into_iter().map(move |event_type| (by, event_type))
        };
        let mut wanted: Vec<_> = trends.iter().flat_map(of_one).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let within_ms = trends.iter().map(|trend| trend.within_ms).max();
        TrendReader::new(Wanted::These(wanted), within_ms.unwrap_or(0))
    }

    /// Keeps every count, for a window of this length.
    pub fn of_everything(within_ms: i64) -> TrendReader {
        TrendReader::new(Wanted::Everything, within_ms)
    }

    fn new(wanted: Wanted, within_ms: i64) -> TrendReader {
        TrendReader {
            wanted,
            within_ms,
            minutes: BTreeMap::new(),
            read_at: None,
            turn: i64::MIN,
            trends: Arc::default(),
        }
    }

    /// The trends as the last look found them.
    pub fn trends(&self) -> &Arc<Trends> {
        &self.trends
    }

    /// As of when the last look was; none before the first.
    pub fn read_at(&self) -> Option<Timestamp> {
        self.read_at
    }

    /// Events that were counted in the minutes that reach into its window.
    pub fn events(&self) -> u64 {
        self.minutes.values().map(|minute| minute.events).sum()
    }

    /// Looks at the table as of `now`, which is the time by which the stream's records arrive. An earlier `now` than that of
    /// the last look is taken as the same.
    ///
    /// # Errors
    /// A query failed for good, or there was no answer within [`REFRESH_TIMEOUT`]. The trends stay as they were.
    pub async fn refresh<T: TrendTable>(&mut self, table: &T, now: Timestamp) -> Result<Refreshed, Failure> {
        let now = self.read_at.map_or(now, |read_at| read_at.max(now));
        let mut refreshed = Refreshed {
            trends: Arc::clone(&self.trends),
            queries: 0,
            read_units: 0.0,
            unreadable: 0,
        };
        if self.wanted == Wanted::These(Vec::new()) {
            return Ok(refreshed);
        }
        let oldest = oldest_minute(self.within_ms, now);
        let to_read = self.minutes_to_read(oldest, now);
        let deadline = Instant::now() + REFRESH_TIMEOUT;
        let of_each_bucket = |minute: i64| (0..TREND_BUCKETS).map(move |bucket| (minute, bucket));
        let places: Vec<(i64, u32)> = to_read.iter().copied().flat_map(of_each_bucket).collect();
        // Gathered before they run: a stream of borrowing closures would not be `Send`, as far as the compiler can tell.
        let reads: Vec<_> = places
            .into_iter()
            .map(|(minute, bucket)| read_bucket(table, minute, bucket, deadline))
            .collect();
        let reads: Vec<MinuteRead> = futures::stream::iter(reads)
            .buffer_unordered(QUERIES_AT_ONCE)
            .try_collect()
            .await?;

        let mut items: BTreeMap<i64, Vec<TrendItem>> = to_read.iter().map(|minute| (*minute, Vec::new())).collect();
        for read in reads {
            refreshed.queries += read.queries;
            refreshed.read_units += read.read_units;
            refreshed.unreadable += read.unreadable;
            items.entry(read.minute).or_default().extend(read.items);
        }
        let counts_max = self.counts_max();
        let mut has_changed = false;
        for (minute, items) in items {
            let (read, unreadable) = Minute::of(items, &self.wanted, counts_max);
            refreshed.unreadable += unreadable;
            if self.minutes.get(&minute) != Some(&read) {
                has_changed = true;
                self.minutes.insert(minute, read);
            }
        }
        let in_window = self.minutes.split_off(&oldest);
        has_changed |= !self.minutes.is_empty();
        self.minutes = in_window;
        self.read_at = Some(now);
        if has_changed {
            self.trends = Arc::new(self.added_up());
        }
        refreshed.trends = Arc::clone(&self.trends);
        Ok(refreshed)
    }

    /// Which minutes may have changed since the last look.
    fn minutes_to_read(&mut self, oldest: i64, now: Timestamp) -> Vec<i64> {
        let last = minute_of(now);
        let Some(read_at) = self.read_at else {
            return (oldest..=last).collect();
        };
        let first = minute_of(read_at.minus_ms(MINUTE_SETTLES_MS)).max(oldest);
        let mut minutes: Vec<i64> = (first..=last).collect();
        // Of the older ones, the next in turn: backwards from the latest, because little is very late.
        if first > oldest {
            let next = self.turn.saturating_sub(1);
            self.turn = if (oldest..first).contains(&next) {
                next
            } else {
                first - 1
            };
            minutes.push(self.turn);
        }
        minutes
    }

    /// Counts that one minute may have, so that all together have no more than a snapshot holds.
    fn counts_max(&self) -> usize {
        let minutes = usize::try_from(self.within_ms / usher_domain::trends::TILE_MS).unwrap_or(0) + 2;
        TREND_SNAPSHOT_COUNTS_MAX / minutes
    }

    fn added_up(&self) -> Trends {
        let mut trends = Trends::default();
        for (minute, read) in &self.minutes {
            for (key, count) in &read.counts {
                trends.add(*minute, key.clone(), *count);
            }
            trends.add_error(*minute, read.error);
        }
        trends
    }
}

impl Minute {
    /// The tiles of a minute together, and how many of them can't be read. Counts and errors add up.
    fn of(items: Vec<TrendItem>, wanted: &Wanted, counts_max: usize) -> (Minute, u64) {
        let mut sums: HashMap<TrendKey, u64> = HashMap::new();
        let mut minute = Minute::default();
        let mut unreadable = 0;
        for item in items {
            let parts = match trend_tile::decode(&item.state) {
                Ok(parts) => parts,
                Err(_) => {
                    unreadable += 1;
                    continue;
                }
            };
            minute.error = minute.error.saturating_add(parts.error);
            minute.events = minute.events.saturating_add(parts.events);
            for (key, count) in parts.counts {
                if wanted.has(&key) {
                    let sum = sums.entry(key).or_default();
                    *sum = sum.saturating_add(count);
                }
            }
        }
        minute.counts = sums.into_iter().collect();
        if minute.counts.len() > counts_max {
            let by_count =
                |left: &(TrendKey, u64), right: &(TrendKey, u64)| right.1.cmp(&left.1).then(left.0.cmp(&right.0));
            let (_, largest_left_out, _) = minute.counts.select_nth_unstable_by(counts_max, by_count);
            minute.error = minute.error.saturating_add(largest_left_out.1);
            minute.counts.truncate(counts_max);
        }
        minute.counts.sort_unstable();
        (minute, unreadable)
    }
}

/// Reads one bucket of a minute, page after page.
async fn read_bucket<T: TrendTable>(
    table: &T,
    minute: i64,
    bucket: u32,
    deadline: Instant,
) -> Result<MinuteRead, Failure> {
    let mut read = MinuteRead {
        minute,
        ..MinuteRead::default()
    };
    let mut after: Option<String> = None;
    loop {
        let page = until_answered(deadline, ATTEMPTS_MAX, || table.page(minute, bucket, after.as_deref())).await?;
        read.queries += 1;
        read.read_units += page.read_units;
        read.unreadable += page.unreadable.len() as u64;
        read.items.extend(page.items);
        match page.next_after {
            Some(shard) => after = Some(shard),
            None => return Ok(read),
        }
    }
}

#[cfg(test)]
mod tests;
