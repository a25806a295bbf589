//! P10: no input panics, hangs, or takes memory out of proportion to its size; P1: what can't be used is on `rejected`, with
//! its bytes and a reason.
//!
//! `fuzz/` looks for what nobody thought of; here is what people have thought of.

mod bombs;
mod json_test_suite;
mod large_batches;
mod naughty_strings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::{MemoryClock, MemoryProfileTable, MemorySink, MemoryStream};
use usher_pipeline::ports::ProfileTable;
use usher_pipeline::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use usher_tests::lambda_event::{Record, invocation_within, payload, usual_sequence_number};
use usher_wire::profile_state;

/// 2026-01-05T10:00:00Z: when every record of these tests arrives.
const ARRIVED_MS: i64 = 1_767_607_200_000;
/// No test is about running out of time, so there is more than any takes.
const INVOCATION_TIME: Duration = Duration::from_secs(600);

fn arrived_at() -> Timestamp {
    Timestamp::from_epoch_ms(ARRIVED_MS)
}

/// A file of `tests/data`.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// An event that is right, with these members besides, as JSON text; a later member wins over an earlier one.
fn event(user: &str, id: impl std::fmt::Display, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    format!(
        r#"{{"event_id":"{id}","event_type":"click","timestamp":"2026-01-05T09:59:00Z","user_id":"{user}"{comma}{members}}}"#
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

/// profile-writer over a `profiles` table of any kind, and streams in memory.
struct World<P> {
    journey: Arc<Journey>,
    profiles: P,
    rejected: MemoryStream,
    writer: ProfileWriter<P, MemoryStream, MemoryClock, MemorySink>,
    delivered: u64,
}

impl World<MemoryProfileTable> {
    fn in_memory(journey: &str) -> Self {
        World::over(MemoryProfileTable::default(), journey, 1)
    }

    fn profile(&self, user: &str) -> Option<Profile> {
        let item = self.profiles.item(user)?;
        Some(profile_state::decode(&item.state, item.version, user, &self.journey).expect("a profile"))
    }
}

impl<P: ProfileTable + Clone> World<P> {
    fn over(profiles: P, journey: &str, parallelization_factor: u32) -> Self {
        let journey = Journey::parse(journey).unwrap_or_else(|errors| panic!("{}", errors.render("journey", journey)));
        let (journey, rejected) = (Arc::new(journey), MemoryStream::default());
        let ports = ProfileWriterPorts {
            profiles: profiles.clone(),
            triggers: MemoryStream::default(),
            rejected: rejected.clone(),
            clock: MemoryClock::at(arrived_at()),
            telemetry: MemorySink::default(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: 8,
            parallelization_factor,
            metrics_namespace: "Usher".to_owned(),
        };
        World {
            writer: ProfileWriter::new(journey.clone(), ports, config),
            journey,
            profiles,
            rejected,
            delivered: 0,
        }
    }

    /// Delivers these records, each with its partition key, in one batch, and again from where the answer says until all
    /// are done. Gives how many invocations that took.
    async fn deliver<'r>(&mut self, records: impl IntoIterator<Item = (&'r str, Vec<u8>)>) -> usize {
        let records: Vec<Record> = records
            .into_iter()
            .map(|(partition_key, data)| {
                self.delivered += 1;
                Record {
                    shard_id: "shardId-000000000000".to_owned(),
                    sequence_number: usual_sequence_number(self.delivered),
                    arrived_at: arrived_at(),
                    partition_key: partition_key.to_owned(),
                    data,
                }
            })
            .collect();
        let (mut from, mut invocations) = (0, 0);
        while from < records.len() {
            let payload = payload(&records[from..]);
            let response = self
                .writer
                .run(invocation_within(&payload, INVOCATION_TIME))
                .await
                .expect("a Kinesis batch");
            let done = match response.retries_from() {
                None => records.len(),
                Some(number) => {
                    let first = records.iter().position(|record| record.sequence_number == number);
                    first.expect("it names a record of the batch")
                }
            };
            assert!(done > from, "each invocation settles one record at least");
            (from, invocations) = (done, invocations + 1);
        }
        invocations
    }

    /// What is on `rejected`, in order of coming.
    fn rejected(&self) -> Vec<Rejected> {
        let stored = self.rejected.records().into_iter();
        stored
            .map(|stored| {
                let json: Value = serde_json::from_slice(&stored.record.data).expect("JSON");
                let text = |name: &str| json[name].as_str().expect(name).to_owned();
                Rejected {
                    reason: text("reason"),
                    field: text("field"),
                    partition_key: text("partition_key"),
                    data: base64_simd::STANDARD.decode_to_vec(text("data")).expect("base64"),
                    is_compressed: json["encoding"] == "gzip",
                    is_cut: json.get("data_cut_at").is_some(),
                }
            })
            .collect()
    }

    /// The reasons on `rejected`, in order of coming.
    fn reasons(&self) -> Vec<String> {
        self.rejected().into_iter().map(|rejected| rejected.reason).collect()
    }
}

/// A record on the `rejected` stream.
struct Rejected {
    reason: String,
    field: String,
    partition_key: String,
    data: Vec<u8>,
    is_compressed: bool,
    is_cut: bool,
}
