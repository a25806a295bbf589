//! How records come from the stream: in chunks, over a subscription that ends after a while and is renewed.
//!
//! A subscription to a shard by enhanced fan-out lasts five minutes; the reader then subscribes anew from the continuation
//! sequence number (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html>). What came and was not
//! taken is dropped with the old subscription and comes again with the new one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::faults::{FaultKind, Faults};
use crate::kinesis::{Due, SequenceNumber, ShardLog, State, TailRecord};

/// Records asked for at once.
const CHUNK_RECORDS: usize = 200;
/// A read that was refused is tried again after this time.
const READ_RETRY_WAIT: Duration = Duration::from_millis(20);

/// What a look at the stream brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Records to take.
    Records,
    /// Nothing is there.
    Nothing,
    /// Nothing yet; look again then.
    At(Instant),
    /// What was there is past its retention, up to this number.
    Expired(Option<SequenceNumber>),
}

/// A reader's place in a shard, and what has come from there and is not taken yet.
pub(super) struct Subscription {
    kinesis: Arc<State>,
    stream: String,
    shard: Arc<ShardLog>,
    fanout_latency: Duration,
    faults: Faults,
    /// Names this reader to the faults.
    place: String,
    come: VecDeque<TailRecord>,
    /// The last record that came.
    read_through: Option<Place>,
    /// The last record that was taken: where a new subscription begins.
    continuation: Option<Place>,
    /// `None` for a reader that polls and has no subscription.
    lifetime: Option<Duration>,
    expires: Option<Instant>,
    retry_at: Option<Instant>,
    renewals: u64,
    reads_failed: u64,
}

/// A record's place as a number and as the emulator's key.
#[derive(Debug, Clone)]
struct Place {
    number: SequenceNumber,
    key: String,
}

impl Subscription {
    /// Begins after the record with this number and key, or at the shard's first.
    pub fn new(
        kinesis: Arc<State>,
        stream: &str,
        shard: Arc<ShardLog>,
        after: Option<(SequenceNumber, String)>,
        options: SubscriptionOptions,
    ) -> Self {
        let place = after.map(|(number, key)| Place { number, key });
        Self {
            kinesis,
            stream: stream.to_owned(),
            shard,
            fanout_latency: options.fanout_latency,
            faults: options.faults,
            place: options.place,
            come: VecDeque::new(),
            read_through: place.clone(),
            continuation: place,
            lifetime: options.lifetime,
            expires: None,
            retry_at: None,
            renewals: 0,
            reads_failed: 0,
        }
    }

    /// Takes the next record that has come.
    pub fn take(&mut self) -> Option<TailRecord> {
        let record = self.come.pop_front()?;
        self.continuation = Some(Place {
            number: record.sequence_number,
            key: record.position().to_owned(),
        });
        Some(record)
    }

    /// Renewals and failed reads since this was asked last.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.renewals),
            std::mem::take(&mut self.reads_failed),
        )
    }

    /// Whether every record of the shard has been taken.
    pub fn is_at_end(&self) -> bool {
        self.come.is_empty() && self.shard.end().last <= self.read_through.as_ref().map(|place| place.number)
    }

    /// Looks for records, unless some are still to be taken.
    pub async fn look(&mut self) -> Arrival {
        self.renew_if_expired();
        if !self.come.is_empty() {
            return Arrival::Records;
        }
        let read_through = self.read_through.as_ref();
        match self.shard.due(
            read_through.map(|place| place.number),
            self.fanout_latency,
            CHUNK_RECORDS,
        ) {
            Due::Nothing => Arrival::Nothing,
            Due::At(at) => Arrival::At(at.into()),
            Due::Records(limit) => self.read(limit).await,
        }
    }

    async fn read(&mut self, limit: usize) -> Arrival {
        let now = Instant::now();
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Arrival::At(at);
        }
        if self.faults.strike(FaultKind::KinesisThrottle, &self.place).is_some() {
            let at = now + READ_RETRY_WAIT;
            self.retry_at = Some(at);
            self.reads_failed += 1;
            return Arrival::At(at);
        }
        let after = self.read_through.as_ref().map(|place| place.key.as_str());
        // Asked before the read: what is put after it has not expired because the read did not see it.
        let end = self.shard.end();
        let records = self
            .kinesis
            .read(&self.stream, &self.shard, after, limit.min(CHUNK_RECORDS))
            .await;
        match records.last() {
            Some(last) => {
                self.read_through = Some(Place {
                    number: last.sequence_number,
                    key: last.position().to_owned(),
                });
                self.come = records.into();
                Arrival::Records
            }
            None => {
                self.read_through = end.last.zip(end.last_key).map(|(number, key)| Place { number, key });
                self.continuation.clone_from(&self.read_through);
                Arrival::Expired(end.last)
            }
        }
    }

    fn renew_if_expired(&mut self) {
        let Some(lifetime) = self.lifetime else { return };
        let now = Instant::now();
        match self.expires {
            Some(expires) if expires > now => {}
            Some(_) => {
                self.come.clear();
                self.read_through.clone_from(&self.continuation);
                self.renewals += 1;
                self.expires = Some(now + lifetime);
            }
            None => self.expires = Some(now + lifetime),
        }
    }
}

/// How a reader reads.
pub(super) struct SubscriptionOptions {
    pub fanout_latency: Duration,
    pub lifetime: Option<Duration>,
    pub faults: Faults,
    pub place: String,
}
