//! interactions → trends: what was met with how often, by the minute.
//!
//! Each shard's events of a minute are one tile, an item of the table with the position up to which it counted. A tile is
//! written under a condition on its version, and what comes at or before its position was counted before: so an event counts
//! once, however often Lambda delivers it (P2), and a failed tile comes again without the others counting twice (P6).
//!
//! A tile that this container wrote last is remembered, and of one that it doesn't know it is assumed that there is none: if
//! there is, the failed condition brings it along. So no write needs a read (P4).
//!
//! Records that can't be used are profile-writer's to reject; here they are counted and passed by.

mod tile_cache;

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::StreamExt;
use tokio::time::Instant;
use usher_domain::event::ArrivedEvent;
use usher_domain::time::Timestamp;
use usher_domain::trends::counting::{CountedEvents, Counting};
use usher_domain::trends::tile::{Counted, TrendTile};
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::Envelope;
use usher_wire::trend_tile;

use crate::invocation::{BatchError, Invocation};
use crate::journey_source::{JourneyError, JourneyKeeper, JourneyNews};
use crate::ports::{CallError, TelemetrySink, TrendItem, TrendPutAnswer, TrendTable, WallClock};
use crate::profile_writer::records::{Decoded, decode_records, lanes_of};
use crate::response::{BatchResponse, RetryPoint};
use crate::retry::{Backoff, chain};
use crate::telemetry::{ContentTrendsBatch, TelemetryEvent, spread};
use tile_cache::{KnownTile, TileCache, TileKey};

/// The part of an invocation's time, as its divisor, that may go by until there is a journey at all.
const FIRST_READ_DIVISOR: u32 = 3;
/// Conflicts on one tile before it comes again in another invocation. A shard's batches come one after the other, so a second
/// writer is one that Lambda gave up on while it went on.
const CONFLICTS_MAX: u32 = 8;
/// For so long after it is of no use to any window a tile stays in the table: a reader whose clock is behind may ask for it.
const EXPIRY_MARGIN_MS: i64 = 60 * 60 * 1000;
const MS_PER_SECOND: i64 = 1000;

/// What content-trends needs from the outside.
#[derive(Clone, Debug)]
pub struct ContentTrendsPorts<P, C, T> {
    /// The `trends` table.
    pub trends: P,
    /// The wall clock, for latencies and for when a tile expires.
    pub clock: C,
    /// Where telemetry goes.
    pub telemetry: T,
}

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentTrendsConfig {
    /// Tiles that are written at the same time.
    pub write_concurrency: usize,
    /// The CloudWatch namespace of the metrics.
    pub metrics_namespace: String,
}

/// The flow, with what a warm container keeps between invocations.
#[derive(Debug)]
pub struct ContentTrends<P, C, T> {
    journeys: JourneyKeeper,
    ports: ContentTrendsPorts<P, C, T>,
    config: ContentTrendsConfig,
    cache: TileCache,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Counted,
    Redelivered,
    Repeated,
    NotCounted,
    TooLate,
    Unusable,
    LeftOut,
}

/// The events of a batch for one tile: indices, in order.
struct TileWork<'b> {
    key: TileKey,
    events: Vec<(usize, &'b ArrivedEvent<'b>)>,
}

/// What writing a tile came to.
struct Written {
    /// What became of each of its events, by the index of its record; none where they come again.
    outcomes: Result<Vec<(usize, Outcome)>, String>,
    /// The record from which on it has to come again, if it does.
    first_record: Option<usize>,
    writes: u64,
    conflicts: u64,
    write_units: f64,
    is_estimated: bool,
}

impl<P, C, T> ContentTrends<P, C, T>
where
    P: TrendTable + Debug,
    C: WallClock + Debug,
    T: TelemetrySink + Debug,
{
    /// A flow for the journey that `journeys` keeps.
    pub fn new(
        journeys: JourneyKeeper,
        ports: ContentTrendsPorts<P, C, T>,
        config: ContentTrendsConfig,
    ) -> ContentTrends<P, C, T> {
        ContentTrends {
            journeys,
            ports,
            config,
            cache: TileCache::default(),
        }
    }

    /// What it was given to talk to.
    pub fn ports(&self) -> &ContentTrendsPorts<P, C, T> {
        &self.ports
    }

    /// What a function does before its first invocation: it reads the journey, where its source answers that early.
    ///
    /// # Errors
    /// The journey can't be read, or holds mistakes; the metrics tell of it too, so that an alarm can.
    pub async fn start(&self) -> Result<(), JourneyError> {
        let started = self.journeys.start().await;
        started.inspect_err(|error| self.tell(error, ""))
    }

    /// Processes one invocation with the journey that runs at its beginning.
    ///
    /// # Errors
    /// When the payload is no Kinesis batch, or there is no journey yet. Everything else is told by the response.
    pub async fn run(&self, invocation: Invocation<'_>) -> Result<BatchResponse, BatchError> {
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        let journey_by = Instant::now() + left / FIRST_READ_DIVISOR;
        let (journey, news) = self
            .journeys
            .for_invocation(journey_by)
            .await
            .inspect_err(|error| self.tell(error, invocation.request_id))?;
        let counted_events = CountedEvents::of(&journey);

        let envelope = Envelope::parse(invocation.payload)?;
        let bytes = DecodedBatch::decode(&envelope);
        // Batches of one shard come one after the other: the mapping's parallelisation factor is 1, because a tile has one
        // position for all partition keys.
        let lanes = lanes_of(&envelope, false);
        let decoded = decode_records(&envelope, &bytes, &lanes);
        let mut retry_point = RetryPoint::none(envelope.records.len());
        // Records that the batch was too large for come again.
        retry_point.lower_to(bytes.len());
        let mut outcomes: Vec<Option<Outcome>> = vec![None; envelope.records.len()];
        for (index, _) in &decoded.rejects {
            outcomes[*index] = Some(Outcome::Unusable);
        }
        // What has left every window by the time that the last record arrived is of no use to whoever asks from then on. So
        // where the function is behind, or months of history pass in a minute, it doesn't write what nobody reads.
        let as_of = envelope.records.iter().map(|record| record.arrived_at).max();
        let as_of = as_of.unwrap_or_default();
        let work = tiles_of(&envelope, &decoded, &counted_events, as_of, &mut outcomes);
        let mut batch = ContentTrendsBatch {
            request_id: invocation.request_id.to_owned(),
            received: envelope.records.len() as u64,
            batch_tiles: work.len() as u64,
            ..ContentTrendsBatch::default()
        };
        batch.note_journey(news);

        let expires_at_epoch_s = self.expires_at_epoch_s(&counted_events);
        let writes = work
            .into_iter()
            .map(|work| self.write_tile(work, expires_at_epoch_s, invocation.deadline));
        let written: Vec<Written> = futures::stream::iter(writes)
            .buffer_unordered(self.config.write_concurrency.max(1))
            .collect()
            .await;
        let mut failures = Vec::new();
        for tile in written {
            batch.conditional_writes += tile.writes;
            batch.conflicts += tile.conflicts;
            batch.write_units += tile.write_units;
            batch.estimated_tiles += u64::from(tile.is_estimated);
            if let Some(index) = tile.first_record {
                retry_point.lower_to(index);
            }
            match tile.outcomes {
                Ok(of_tile) => {
                    for (index, outcome) in of_tile {
                        outcomes[index] = Some(outcome);
                    }
                }
                Err(why) => failures.push(why),
            }
        }
        if let Some(first) = failures.first() {
            tracing::warn!(
                records = envelope.records.len(),
                failures = failures.len(),
                first,
                "a part of the batch has to come again"
            );
        }
        let now = self.ports.clock.now();
        note_outcomes(&mut batch, &envelope, &outcomes, retry_point, now);
        batch.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
        Ok(match retry_point.index_in(envelope.records.len()) {
            Some(index) => BatchResponse::retry_from(&envelope.records[index].sequence_number_text),
            None => BatchResponse::done(),
        })
    }

    /// Counts a tile's events and writes it, again and again while others write it or it fails for now.
    async fn write_tile(&self, work: TileWork<'_>, expires_at_epoch_s: i64, deadline: Instant) -> Written {
        let mut written = Written {
            outcomes: Ok(Vec::new()),
            first_record: None,
            writes: 0,
            conflicts: 0,
            write_units: 0.0,
            is_estimated: false,
        };
        let fail = |mut written: Written, why: String| {
            written.outcomes = Err(why);
            written.first_record = work.events.first().map(|(index, _)| *index);
            written
        };
        let mut known = self.cache.take(&work.key).unwrap_or_default();
        let mut backoff = Backoff::default();
        loop {
            let KnownTile { version, mut tile } = known.clone();
            let outcomes: Vec<(usize, Outcome)> = work
                .events
                .iter()
                .map(|(index, arrived)| (*index, outcome_of(tile.count(&arrived.event, arrived.position))))
                .collect();
            if outcomes.iter().all(|(_, outcome)| *outcome != Outcome::Counted) {
                self.cache.put(work.key, known);
                written.outcomes = Ok(outcomes);
                return written;
            }
            let item = TrendItem {
                minute: work.key.minute,
                shard: work.key.shard.clone(),
                version: version + 1,
                state: trend_tile::encode(&tile),
                expires_at_epoch_s,
            };
            let mut may_be_stored = false;
            let put = async {
                // The same item again, while it is not known whether it is there.
                loop {
                    match tokio::time::timeout_at(deadline, self.ports.trends.put(&item, version)).await {
                        Err(_) => return Err("no time was left to write a tile".to_owned()),
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error @ CallError::Refused { .. })) => return Err(chain(&error)),
                        Ok(Err(error @ CallError::Retry { .. })) => {
                            may_be_stored = true;
                            if !backoff.pause(deadline).await {
                                return Err(chain(&error));
                            }
                        }
                    }
                }
            };
            let answer = put.await;
            let current = match answer {
                Err(why) => return fail(written, why),
                Ok(TrendPutAnswer::Unreadable { why }) => return self.left_out(written, &work, &why),
                Ok(TrendPutAnswer::Written { write_units }) => {
                    written.write_units += write_units;
                    None
                }
                Ok(TrendPutAnswer::Conflict { current, write_units }) => {
                    written.write_units += write_units;
                    // An earlier try whose answer was lost.
                    let is_own = |current: &TrendItem| current.version == item.version && current.state == item.state;
                    if may_be_stored && current.as_ref().is_some_and(is_own) {
                        None
                    } else {
                        Some(current)
                    }
                }
            };
            let Some(current) = current else {
                written.writes += 1;
                written.is_estimated = tile.error() > 0;
                let version = item.version;
                self.cache.put(work.key, KnownTile { version, tile });
                written.outcomes = Ok(outcomes);
                return written;
            };
            written.conflicts += 1;
            if written.conflicts > u64::from(CONFLICTS_MAX) {
                return fail(written, "others wrote a tile again and again".to_owned());
            }
            known = match current {
                None => KnownTile::default(),
                Some(item) => match trend_tile::decode(&item.state) {
                    Ok(parts) => KnownTile {
                        version: item.version,
                        tile: TrendTile::from_parts(parts),
                    },
                    Err(error) => return self.left_out(written, &work, &chain(&error)),
                },
            };
        }
    }

    /// A stored tile that can't be read: its events are left out. Nothing depends on it but a minute of one shard's trends,
    /// and waiting for somebody to mend it would stop the shard (P6).
    fn left_out(&self, mut written: Written, work: &TileWork<'_>, why: &str) -> Written {
        tracing::error!(
            minute = work.key.minute,
            shard = work.key.shard,
            events = work.events.len(),
            why,
            "a stored tile can't be read, so events are left out of the trends"
        );
        written.outcomes = Ok(work
            .events
            .iter()
            .map(|(index, _)| (*index, Outcome::LeftOut))
            .collect());
        written
    }

    /// From the wall clock, not from the minute: TTL is about storage, and a replayed year must not vanish.
    fn expires_at_epoch_s(&self, counted_events: &CountedEvents) -> i64 {
        let expires_at = self
            .ports
            .clock
            .now()
            .plus_ms(counted_events.kept_ms() + EXPIRY_MARGIN_MS);
        expires_at.epoch_ms() / MS_PER_SECOND
    }

    /// Tells the metrics why nothing runs.
    fn tell(&self, error: &JourneyError, request_id: &str) {
        let news = JourneyNews::of_error(error);
        let mut batch = ContentTrendsBatch {
            request_id: request_id.to_owned(),
            ..ContentTrendsBatch::default()
        };
        batch.note_journey(news);
        let now = self.ports.clock.now();
        batch.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
    }
}

/// The tiles that a batch's events count in, each with its events in order; and what becomes of the others.
fn tiles_of<'b>(
    envelope: &Envelope<'_>,
    decoded: &'b Decoded<'b>,
    counted_events: &CountedEvents,
    as_of: Timestamp,
    outcomes: &mut [Option<Outcome>],
) -> Vec<TileWork<'b>> {
    let mut tiles: BTreeMap<(u64, i64), TileWork<'b>> = BTreeMap::new();
    for (arrived, index) in decoded.events.iter().zip(&decoded.record_of_event) {
        match counted_events.place(&arrived.event, as_of) {
            Counting::Not => outcomes[*index] = Some(Outcome::NotCounted),
            Counting::TooLate => outcomes[*index] = Some(Outcome::TooLate),
            Counting::In(minute) => {
                let tile = tiles.entry((arrived.shard.key.0, minute)).or_insert_with(|| TileWork {
                    key: TileKey {
                        shard: shard_name(&envelope.records[*index].stream_arn, &arrived.shard.id),
                        minute,
                    },
                    events: Vec::new(),
                });
                tile.events.push((*index, arrived));
            }
        }
    }
    tiles.into_values().collect()
}

/// The name of a shard among those of all streams: a shard's id is unique in its stream only.
fn shard_name(stream_arn: &str, shard_id: &str) -> String {
    let stream = stream_arn.rsplit('/').next().unwrap_or_default();
    format!("{stream}/{shard_id}")
}

fn outcome_of(counted: Counted) -> Outcome {
    match counted {
        Counted::New => Outcome::Counted,
        Counted::Redelivered => Outcome::Redelivered,
        Counted::Repeated => Outcome::Repeated,
    }
}

/// Counts what became of the settled records.
fn note_outcomes(
    batch: &mut ContentTrendsBatch,
    envelope: &Envelope<'_>,
    outcomes: &[Option<Outcome>],
    retry_point: RetryPoint,
    now: Timestamp,
) {
    let mut latencies = Vec::new();
    for (index, record) in envelope.records.iter().enumerate() {
        if !retry_point.is_settled(index) {
            batch.retried += 1;
            continue;
        }
        let count = match outcomes[index] {
            Some(Outcome::Counted) => {
                latencies.push(now.ms_since(record.arrived_at).max(0) as u64);
                &mut batch.counted
            }
            Some(Outcome::Redelivered) => &mut batch.redelivered,
            Some(Outcome::Repeated) => &mut batch.repeated,
            Some(Outcome::NotCounted) => &mut batch.not_counted,
            Some(Outcome::TooLate) => &mut batch.too_late,
            Some(Outcome::Unusable) => &mut batch.unusable,
            Some(Outcome::LeftOut) => &mut batch.left_out,
            // Only what comes again has no outcome.
            None => &mut batch.retried,
        };
        *count += 1;
    }
    let arrived_last = envelope.records.last().map(|record| record.arrived_at);
    batch.iterator_age = arrived_last.map_or(0, |at| now.ms_since(at).max(0) as u64);
    batch.event_to_counted = spread(latencies);
}

#[cfg(test)]
mod tests;
