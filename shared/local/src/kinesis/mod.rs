//! The embedded Kinesis: ferrokinesis behind a gate, served over HTTP, and read in process.
//!
//! The gate is there because ferrokinesis 0.7 deadlocks and hides records under concurrent puts and reads: it holds a map's
//! guard across an await, and hands out sequence numbers before it inserts the records, so a tail reader skips some. A put
//! therefore runs alone; everything else runs beside its like.

mod gate;
mod reshard;
mod sequence_number;
mod shard_log;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::store::{Store, StoreOptions};
use ferrokinesis::types::{Consumer, ConsumerStatus, EpochSeconds, Shard, StoredRecord, StreamStatus};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::{Clock, wall_clock_ms};
use crate::error::LocalError;
use crate::faults::Faults;
use crate::template::{LOCAL_ACCOUNT_ID, Stream, StreamConsumer};

use gate::Gate;
pub use sequence_number::SequenceNumber;
pub(crate) use shard_log::RecordTimes;
pub(crate) use shard_log::{Due, HashKeys, ShardEnd, ShardLog};

/// Shards that clients may still make beyond the template's, by resharding or with streams of their own.
const SPARE_SHARDS: u32 = 1_000;
/// The emulator makes a stream in the background; it is there well within this time.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_CREATION_POLL: Duration = Duration::from_millis(2);
/// It changes a stream's shards in the background too.
const STREAM_UPDATE_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_UPDATE_POLL: Duration = Duration::from_millis(1);
/// Records read from the emulator at once: small, because one may have 10 MiB.
const READ_CHUNK_RECORDS: usize = 200;
/// Kinesis keeps records this long unless told otherwise.
const DEFAULT_RETENTION_HOURS: u32 = 24;
/// A closing server waits so long for requests in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// One record of a stream, as the local cloud knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRecord {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// `shardId-...`.
    pub shard_id: Arc<str>,
    /// Decimal, as Kinesis gives it.
    pub sequence_number: String,
    /// The producer's partition key.
    pub partition_key: String,
    /// The bytes put.
    pub data: Vec<u8>,
    /// When the put arrived; `None` when that is forgotten.
    pub put: Option<Instant>,
    /// What functions see as arrival, in milliseconds since the Unix epoch: see [`crate::Clock`].
    pub arrival_ms: i64,
}

/// Told of each record put, in stream order per shard.
pub type PutObserver = Arc<dyn Fn(&StreamRecord) + Send + Sync>;

/// How the embedded Kinesis behaves.
#[derive(Clone, Default)]
pub struct KinesisOptions {
    /// Port on 127.0.0.1; 0 is a free one.
    pub port: u16,
    /// Region in ARNs.
    pub region: String,
    /// Shards that will be made at the start, over all streams.
    pub shards: u32,
    /// Which clock stamps arrivals.
    pub clock: Clock,
    /// Put times remembered per shard.
    pub put_times_per_shard_max: usize,
    /// Told of each record put.
    pub on_put: Option<PutObserver>,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// A record as the emulator stores it, with what the cloud remembers of it.
pub(crate) struct TailRecord {
    /// The emulator's key: shard, slash, sequence number.
    key: String,
    pub sequence_number: SequenceNumber,
    /// `partition_key` and base64 `data`.
    pub stored: StoredRecord,
    pub put: Option<Instant>,
    /// When it was put; to the second where `put` is forgotten.
    pub came: Instant,
    pub arrival_ms: i64,
}

impl TailRecord {
    /// The sequence number as Kinesis gives it.
    pub fn sequence_text(&self) -> &str {
        sequence_text(&self.key)
    }
}

fn sequence_text(key: &str) -> &str {
    key.split_once('/').map_or("", |(_, number)| number)
}

/// The embedded Kinesis.
pub struct Kinesis {
    state: Arc<State>,
    url: String,
    close: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// What the server, the readers and the mappings share.
pub(crate) struct State {
    store: Store,
    gate: Gate,
    logs: RwLock<BTreeMap<String, StreamLog>>,
    clock: Clock,
    put_times_per_shard_max: usize,
    on_put: Option<PutObserver>,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Counts puts and whatever else may end or begin a drain.
    pub activity: Activity,
    /// Rings when a shard is seen for the first time.
    shards_seen: watch::Sender<u64>,
}

struct StreamLog {
    name: Arc<str>,
    shards: Vec<Arc<ShardLog>>,
}

/// A counter that rings: whoever waits for the whole cloud to be idle looks again when it moves.
#[derive(Clone)]
pub(crate) struct Activity(Arc<watch::Sender<u64>>);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub fn note(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Kinesis {
    /// Starts the emulator and serves it over HTTP/1.1 and h2c.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(options: KinesisOptions) -> Result<Self, LocalError> {
        let store_options = StoreOptions {
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 0,
            shard_limit: options.shards.saturating_add(SPARE_SHARDS),
            aws_account_id: LOCAL_ACCOUNT_ID.to_owned(),
            aws_region: options.region.clone(),
            ..StoreOptions::default()
        };
        let (emulator, store) = ferrokinesis::create_app(store_options);
        let state = Arc::new(State {
            store,
            gate: Gate::default(),
            logs: RwLock::default(),
            clock: options.clock,
            put_times_per_shard_max: options.put_times_per_shard_max,
            on_put: options.on_put,
            faults: options.faults,
            activity: Activity::new(),
            shards_seen: watch::Sender::new(0),
        });
        // Axum's own limit of 2 MB would refuse puts that Kinesis takes; the gate has a limit of its own.
        let app: Router = emulator
            .layer(DefaultBodyLimit::disable())
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), gate::pass));
        let (listener, url) = crate::listen("Kinesis", options.port).await?;
        let (close, closed) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, app, closed));
        Ok(Self {
            state,
            url,
            close: Some(close),
            server,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Makes a stream and waits until it is active.
    ///
    /// # Errors
    /// When the emulator refuses it.
    pub async fn create_stream(&self, stream: &Stream) -> Result<(), LocalError> {
        let refused = |operation, message: String| LocalError::Kinesis {
            operation,
            resource: stream.name.clone(),
            message,
        };
        let state = &self.state;
        let guard = state.gate.alone().await;
        let request = serde_json::json!({ "StreamName": stream.name, "ShardCount": stream.shard_count });
        dispatch(&state.store, Operation::CreateStream, request)
            .await
            .map_err(|error| refused("CreateStream", format!("{:?}", error.body)))?;
        drop(guard);
        let deadline = Instant::now() + STREAM_CREATION_TIMEOUT;
        loop {
            let guard = state.gate.beside().await;
            let status = state
                .store
                .get_stream(&stream.name)
                .await
                .map(|made| made.stream_status);
            drop(guard);
            match status {
                Ok(StreamStatus::Active) => break,
                Ok(_) if Instant::now() < deadline => tokio::time::sleep(STREAM_CREATION_POLL).await,
                Ok(status) => return Err(refused("CreateStream", format!("the stream is still {status}"))),
                Err(error) => return Err(refused("CreateStream", format!("{:?}", error.body))),
            }
        }
        if stream.retention_hours > DEFAULT_RETENTION_HOURS {
            let _guard = state.gate.alone().await;
            let request =
                serde_json::json!({ "StreamName": stream.name, "RetentionPeriodHours": stream.retention_hours });
            dispatch(&state.store, Operation::IncreaseStreamRetentionPeriod, request)
                .await
                .map_err(|error| refused("IncreaseStreamRetentionPeriod", format!("{:?}", error.body)))?;
        }
        let _guard = state.gate.alone().await;
        state.note_puts(Instant::now()).await;
        Ok(())
    }

    /// Registers a consumer under the ARN that the template resolved.
    ///
    /// # Errors
    /// When the emulator refuses it.
    pub async fn register_consumer(&self, consumer: &StreamConsumer) -> Result<(), LocalError> {
        let _guard = self.state.gate.alone().await;
        let created_s: f64 = consumer
            .arn
            .rsplit(':')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let registered = Consumer {
            consumer_name: consumer.name.clone(),
            consumer_arn: consumer.arn.clone(),
            consumer_status: ConsumerStatus::Active,
            consumer_creation_timestamp: EpochSeconds(created_s),
        };
        self.state
            .store
            .put_consumer(&consumer.arn, registered)
            .await
            .map_err(|error| LocalError::Kinesis {
                operation: "RegisterStreamConsumer",
                resource: consumer.arn.clone(),
                message: format!("{:?}", error.body),
            })
    }

    /// Every record that the stream holds: shard by shard, each in order.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn read_all(&self, stream: &str) -> Result<Vec<StreamRecord>, LocalError> {
        let (name, shards) = self.state.shards_of(stream).ok_or_else(|| LocalError::StreamUnknown {
            stream: stream.to_owned(),
        })?;
        let mut records = Vec::new();
        for shard in shards {
            let mut position: Option<String> = None;
            loop {
                let chunk = self
                    .state
                    .read(&name, &shard, position.as_deref(), READ_CHUNK_RECORDS)
                    .await;
                let Some(last) = chunk.last() else { break };
                position = Some(last.key.clone());
                records.extend(chunk.into_iter().map(|record| record.into_stream_record(&name, &shard)));
            }
        }
        Ok(records)
    }

    /// When a record was put; `None` when it is unknown or forgotten.
    pub fn put_instant(&self, stream: &str, shard_id: &str, sequence_number: &str) -> Option<Instant> {
        let number = SequenceNumber::parse(sequence_number)?;
        let logs = self.state.logs.read().unwrap_or_else(PoisonError::into_inner);
        let shard = logs
            .get(stream)?
            .shards
            .iter()
            .find(|shard| *shard.shard_id == *shard_id)?;
        shard.times_of(number).map(|times| times.put)
    }

    /// Records put so far, by stream and shard.
    pub fn records_put(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let logs = self.state.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.iter()
            .map(|(name, log)| {
                let shards = log
                    .shards
                    .iter()
                    .map(|shard| (shard.shard_id.to_string(), shard.end().records))
                    .collect();
                (name.clone(), shards)
            })
            .collect()
    }

    /// Splits or merges a shard, chosen by `random`, and keeps the open shards between `shards_min` and `shards_max`. `false`
    /// when there is nothing that could be done within those bounds.
    ///
    /// # Errors
    /// When there is no such stream, or the emulator refuses the change.
    pub async fn reshard(
        &self,
        stream: &str,
        shards_min: usize,
        shards_max: usize,
        random: u64,
    ) -> Result<bool, LocalError> {
        let (_, shards) = self.state.shards_of(stream).ok_or_else(|| LocalError::StreamUnknown {
            stream: stream.to_owned(),
        })?;
        let open: Vec<_> = shards
            .iter()
            .filter(|shard| !shard.end().closed)
            .map(|shard| reshard::OpenShard {
                shard_id: shard.shard_id.to_string(),
                hash_keys: shard.hash_keys,
            })
            .collect();
        let Some(change) = reshard::plan(open, shards_min, shards_max, random) else {
            return Ok(false);
        };
        let (operation, name, request) = match change {
            reshard::Change::Split { shard_id, at } => (
                Operation::SplitShard,
                "SplitShard",
                serde_json::json!({
                    "StreamName": stream, "ShardToSplit": shard_id, "NewStartingHashKey": at.to_string(),
                }),
            ),
            reshard::Change::Merge { left, right } => (
                Operation::MergeShards,
                "MergeShards",
                serde_json::json!({ "StreamName": stream, "ShardToMerge": left, "AdjacentShardToMerge": right }),
            ),
        };
        let _guard = self.state.gate.alone().await;
        let changed = dispatch(&self.state.store, operation, request).await;
        self.state.note_puts(Instant::now()).await;
        changed.map(|_| true).map_err(|error| LocalError::Reshard {
            operation: name,
            stream: stream.to_owned(),
            message: format!("{:?}", error.body),
        })
    }

    /// Stops listening; requests in flight have a second to end.
    pub async fn close(mut self) {
        if let Some(close) = self.close.take() {
            let _ = close.send(());
        }
        let abort = self.server.abort_handle();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.server).await.is_err() {
            abort.abort();
        }
    }
}

async fn serve(listener: TcpListener, app: Router, closed: oneshot::Receiver<()>) {
    use axum::serve::ListenerExt;
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    let until_closed = async {
        let _ = closed.await;
    };
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until_closed).await {
        tracing::error!(%error, "the kinesis server ended");
    }
}

impl State {
    /// Whether this stream's records tell their own time.
    pub fn is_on_data_clock(&self, stream: &str) -> bool {
        self.clock.record_time_of(stream).is_some()
    }

    /// The shards of a stream, `None` when there is no such stream.
    pub fn shards_of(&self, stream: &str) -> Option<(Arc<str>, Vec<Arc<ShardLog>>)> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(stream).map(|log| (Arc::clone(&log.name), log.shards.clone()))
    }

    /// Rings when a shard is seen for the first time.
    pub fn shards_seen(&self) -> watch::Receiver<u64> {
        self.shards_seen.subscribe()
    }

    /// Records of a shard after `position` (the emulator's key of the last record read), at most `limit`, in order. Under
    /// the gate no put is half done, so no record is skipped.
    pub async fn read(&self, stream: &str, shard: &ShardLog, position: Option<&str>, limit: usize) -> Vec<TailRecord> {
        let start = start_key(shard, position);
        let guard = self.gate.beside().await;
        let stored = self
            .store
            .get_records_range_limited(stream, &start, &shard.key_end, limit.min(READ_CHUNK_RECORDS))
            .await;
        drop(guard);
        let numbers: Vec<SequenceNumber> = stored.iter().map(|(key, _)| number_of(key)).collect();
        let times = shard.times_of_run(&numbers);
        stored
            .into_iter()
            .zip(numbers)
            .zip(times)
            .map(|(((key, stored), sequence_number), times)| TailRecord {
                arrival_ms: times.map_or_else(|| self.forgotten_arrival_ms(stream, &stored), |times| times.arrival_ms),
                put: times.map(|times| times.put),
                came: times.map_or_else(|| came(&stored), |times| times.put),
                key,
                sequence_number,
                stored,
            })
            .collect()
    }

    fn forgotten_arrival_ms(&self, stream: &str, stored: &StoredRecord) -> i64 {
        self.arrival_ms(stream, stored, stored.approximate_arrival_timestamp as i64 * 1_000)
    }

    fn arrival_ms(&self, stream: &str, stored: &StoredRecord, wall_ms: i64) -> i64 {
        self.clock
            .record_time_of(stream)
            .and_then(|record_time| record_time(&decode(&stored.data)))
            .unwrap_or(wall_ms)
    }

    /// Looks for records put since the last look, remembers when they came and wakes their readers. The caller holds the
    /// gate alone, so what is seen is whole.
    async fn note_puts(&self, received: Instant) {
        let wall_ms = wall_clock_ms();
        let mut added_any = false;
        for name in self.store.list_stream_names().await {
            let described = self.settled_shards(&name).await;
            let (shards, any_new) = self.current_shards(&name, &described);
            for (shard, description) in shards.iter().zip(&described) {
                // What was closed before this look has been read to its end.
                if shard.end().closed {
                    continue;
                }
                loop {
                    let position = shard.end().last_key;
                    let start = start_key(shard, position.as_deref());
                    let added = self
                        .store
                        .get_records_range_limited(&name, &start, &shard.key_end, READ_CHUNK_RECORDS)
                        .await;
                    let Some((last_key, _)) = added.last() else { break };
                    let last_key = last_key.clone();
                    let times: Vec<RecordTimes> = added
                        .iter()
                        .map(|(key, stored)| RecordTimes {
                            sequence_number: number_of(key),
                            put: received,
                            arrival_ms: self.arrival_ms(&name, stored, wall_ms),
                        })
                        .collect();
                    shard.append(&times, last_key);
                    added_any = true;
                    self.tell_observer(&name, shard, added, &times);
                }
                if description.sequence_number_range.ending_sequence_number.is_some() {
                    shard.close();
                    added_any = true;
                }
            }
            if any_new {
                self.shards_seen.send_modify(|count| *count += 1);
                added_any = true;
            }
        }
        if added_any {
            self.activity.note();
        }
    }

    fn tell_observer(&self, stream: &str, shard: &ShardLog, added: Vec<(String, StoredRecord)>, times: &[RecordTimes]) {
        let Some(observer) = &self.on_put else { return };
        let name: Arc<str> = stream.into();
        for ((key, stored), times) in added.into_iter().zip(times) {
            let record = TailRecord {
                key,
                sequence_number: times.sequence_number,
                stored,
                put: Some(times.put),
                came: times.put,
                arrival_ms: times.arrival_ms,
            };
            observer(&record.into_stream_record(&name, shard));
        }
    }

    /// A stream's shards, once the emulator has done what it does to them in the background. It splits and merges in a task
    /// of its own that knows nothing of the gate; the caller holds the gate alone, so waiting here keeps puts and reads from
    /// meeting a stream half changed: a shard is closed and its children are there from one call to the next.
    async fn settled_shards(&self, stream: &str) -> Vec<Shard> {
        let deadline = Instant::now() + STREAM_UPDATE_TIMEOUT;
        loop {
            let Ok(described) = self.store.get_stream(stream).await else {
                return Vec::new();
            };
            if !matches!(described.stream_status, StreamStatus::Creating | StreamStatus::Updating) {
                let known = self.shards_of(stream).map_or(0, |(_, shards)| shards.len());
                if known != described.shards.len() {
                    // New shards are seen a moment before they have a counter for their sequence numbers, and without one
                    // records would overwrite each other. An update that changes nothing sees to the counters.
                    let _ = self.store.update_stream(stream, |_| Ok(())).await;
                }
                return described.shards;
            }
            if Instant::now() >= deadline {
                tracing::error!(stream, "the stream is still being updated");
                return described.shards;
            }
            tokio::time::sleep(STREAM_UPDATE_POLL).await;
        }
    }

    /// The logs of a stream's shards, made for those not seen before, and whether there were such.
    fn current_shards(&self, stream: &str, described: &[Shard]) -> (Vec<Arc<ShardLog>>, bool) {
        if let Some((_, known)) = self.shards_of(stream)
            && known.len() == described.len()
        {
            return (known, false);
        }
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(stream.to_owned()).or_insert_with(|| StreamLog {
            name: stream.into(),
            shards: Vec::new(),
        });
        for (index, shard) in described.iter().enumerate().skip(log.shards.len()) {
            let key_prefix = format!("{}/", ferrokinesis::sequence::shard_ix_to_hex(index as i64));
            let key_end = ferrokinesis::sequence::shard_ix_to_hex(index as i64 + 1);
            let hash_keys = HashKeys {
                first: shard.hash_key_range.start_u128(),
                last: shard.hash_key_range.end_u128(),
            };
            log.shards.push(Arc::new(ShardLog::new(
                &shard.shard_id,
                hash_keys,
                key_prefix,
                key_end,
                self.put_times_per_shard_max,
            )));
        }
        (log.shards.clone(), true)
    }
}

/// The first key after `position`: keys are ordered as text, so a byte appended is the least greater one.
fn start_key(shard: &ShardLog, position: Option<&str>) -> String {
    match position {
        Some(key) => format!("{key}\0"),
        None => shard.key_prefix.clone(),
    }
}

/// The emulator's sequence numbers have 186 bits; anything else would sort first and show at once.
fn number_of(key: &str) -> SequenceNumber {
    SequenceNumber::parse(sequence_text(key)).unwrap_or_default()
}

/// When a record was put, from the emulator's own stamp of whole seconds.
fn came(stored: &StoredRecord) -> Instant {
    let now = Instant::now();
    let age_ms = wall_clock_ms().saturating_sub(stored.approximate_arrival_timestamp as i64 * 1_000);
    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
    now.checked_sub(age).unwrap_or(now)
}

/// The bytes behind base64. The emulator has checked it.
fn decode(data: &str) -> Vec<u8> {
    base64_simd::STANDARD.decode_to_vec(data.as_bytes()).unwrap_or_default()
}

impl TailRecord {
    #[cfg(test)]
    pub fn for_test(sequence_number: &str, partition_key: &str, data: &str, arrival_ms: i64) -> Self {
        let key = format!("00000000/{sequence_number}");
        Self {
            sequence_number: number_of(&key),
            key,
            stored: StoredRecord {
                partition_key: partition_key.to_owned(),
                data: data.to_owned(),
                approximate_arrival_timestamp: 0.0,
            },
            put: None,
            came: Instant::now(),
            arrival_ms,
        }
    }

    /// The bytes put.
    pub fn data(&self) -> Vec<u8> {
        decode(&self.stored.data)
    }

    /// The emulator's key, as a position to read on from.
    pub fn position(&self) -> &str {
        &self.key
    }

    fn into_stream_record(self, stream: &Arc<str>, shard: &ShardLog) -> StreamRecord {
        StreamRecord {
            stream: Arc::clone(stream),
            shard_id: Arc::clone(&shard.shard_id),
            sequence_number: sequence_text(&self.key).to_owned(),
            data: decode(&self.stored.data),
            partition_key: self.stored.partition_key,
            put: self.put,
            arrival_ms: self.arrival_ms,
        }
    }
}
