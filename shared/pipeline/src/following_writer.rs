//! profile-writer over a journey that changes while the function runs.
//!
//! A [`ProfileWriter`] runs one journey from its first batch to its last, and the profiles that it remembers are laid out for
//! that journey. So a changed journey gets a new one, which remembers nothing and reads the table: there is no moment at which
//! a batch could see two journeys, or a remembered profile that was laid out for another. What a stored profile holds for the
//! old journey finds its place in the new one when it is decoded (`usher_wire::profile_state`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::invocation::{BatchError, Invocation};
use crate::journey_source::{JourneyError, JourneyKeeper, JourneyNews};
use crate::ports::{ProfileTable, RecordStream, TelemetrySink, WallClock};
use crate::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use crate::response::BatchResponse;
use crate::snapshots::SnapshotSource;
use crate::telemetry::{ProfileWriterBatch, TelemetryEvent};

/// The part of an invocation's time, as its divisor, that may go by until there is a journey at all.
const FIRST_READ_DIVISOR: u32 = 3;

/// The flow for the running journey, from the first invocation on.
type Current<P, S, C, T> = Option<Arc<ProfileWriter<P, S, C, T>>>;

/// The flow, for whatever journey its source holds.
#[derive(Debug)]
pub struct FollowingProfileWriter<P, S, C, T> {
    journeys: JourneyKeeper,
    ports: ProfileWriterPorts<P, S, C, T>,
    config: ProfileWriterConfig,
    snapshots: Option<SnapshotSource>,
    /// The flow for the running journey.
    current: Mutex<Current<P, S, C, T>>,
}

impl<P, S, C, T> FollowingProfileWriter<P, S, C, T>
where
    P: ProfileTable + Clone + fmt::Debug,
    S: RecordStream + Clone + fmt::Debug,
    C: WallClock + Clone + fmt::Debug,
    T: TelemetrySink + Clone + fmt::Debug,
{
    /// A flow for the journey that `journeys` keeps. Ports are cloned for each journey, so a clone must be the same table,
    /// stream, clock and sink.
    pub fn new(
        journeys: JourneyKeeper,
        ports: ProfileWriterPorts<P, S, C, T>,
        config: ProfileWriterConfig,
    ) -> FollowingProfileWriter<P, S, C, T> {
        FollowingProfileWriter {
            journeys,
            ports,
            config,
            snapshots: None,
            current: Mutex::default(),
        }
    }

    /// The same, deciding with what was learned from all users.
    pub fn with_snapshots(self, source: SnapshotSource) -> FollowingProfileWriter<P, S, C, T> {
        FollowingProfileWriter {
            snapshots: Some(source),
            ..self
        }
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
        let writer = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            match &*current {
                Some(writer) if Arc::ptr_eq(writer.journey(), &journey) => Arc::clone(writer),
                _ => {
                    let writer = ProfileWriter::new(journey, self.ports.clone(), self.config.clone());
                    let writer = match &self.snapshots {
                        Some(source) => writer.with_snapshots(source),
                        None => writer,
                    };
                    Arc::clone(current.insert(Arc::new(writer)))
                }
            }
        };
        writer.run_with_news(invocation, news).await
    }

    /// Tells the metrics why nothing runs.
    fn tell(&self, error: &JourneyError, request_id: &str) {
        let news = JourneyNews::of_error(error);
        let batch = ProfileWriterBatch {
            request_id: request_id.to_owned(),
            journey_refused: news.refused,
            journey_refresh_failed: news.refresh_failed,
            ..ProfileWriterBatch::default()
        };
        let now = self.ports.clock.now();
        batch.emit(&self.ports.telemetry, &self.config.metrics_namespace, now);
    }
}

#[cfg(test)]
mod tests;
