//! What a redrive may not do on its own: end a parking whose records are not there, and apply what was applied.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::memory::{MemoryClock, MemoryProfileTable, MemorySink, MemoryStream};
use crate::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use crate::testing::{EPOCH_MS, TestRecord, invocation, payload};
use usher_wire::reject::{RejectReason, RejectedRecord};

const LONG: Duration = Duration::from_secs(20);
/// It forgets an event's id with the next.
const JOURNEY: &str = "journey: t\ndedupe: { last: 1 }\nfeatures: { clicks: { count: click } }";

struct World {
    journey: Arc<Journey>,
    profiles: MemoryProfileTable,
    triggers: MemoryStream,
    rejected: MemoryStream,
}

/// Gives the same records to each first call.
struct Given {
    records: Vec<ParkedRecord>,
    coverage: Coverage,
}

impl ParkedRecords for Given {
    async fn read(&mut self) -> Result<Vec<ParkedRecord>, CallError> {
        Ok(std::mem::take(&mut self.records))
    }

    fn coverage(&self) -> Coverage {
        self.coverage
    }
}

fn click(number: u64) -> TestRecord {
    let at = TestRecord::new(number, "").arrived_at;
    let event = format!(r#"{{"event_id":"e-{number}","event_type":"click","timestamp":"{at}","user_id":"a"}}"#);
    TestRecord::new(number, event)
}

/// A click as it is on `rejected`, parked.
fn parked(number: u64) -> ParkedRecord {
    let record = click(number);
    let rejected = RejectedRecord {
        reason: RejectReason::UserParked,
        field: "".into(),
        detail: "".into(),
        // As `payload` says.
        stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/test".into(),
        shard_id: "shardId-000000000000".into(),
        partition_key: "k".into(),
        sequence_number: record.sequence_number().into(),
        arrived_at: record.arrived_at.to_string(),
        parked: true,
        user: Some("a".into()),
        data: base64_simd::STANDARD.encode_to_string(&record.data).into(),
        encoding: None,
        data_cut_at: None,
    };
    ParkedRecord {
        shard_id: "shardId-0".to_owned(),
        sequence_number: (1_000 + number).into(),
        data: rejected.to_json(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_epoch_ms(EPOCH_MS + second * 1_000)
}

impl World {
    fn new() -> World {
        World {
            journey: Arc::new(Journey::parse(JOURNEY).expect("it is fine")),
            profiles: MemoryProfileTable::default(),
            triggers: MemoryStream::default(),
            rejected: MemoryStream::default(),
        }
    }

    /// Gives profile-writer a batch, in a container that knows nothing yet.
    async fn write(&self, parallelization_factor: u32, records: &[TestRecord]) {
        let ports = ProfileWriterPorts {
            profiles: self.profiles.clone(),
            triggers: self.triggers.clone(),
            rejected: self.rejected.clone(),
            clock: MemoryClock::at(at(1_000)),
            telemetry: MemorySink::default(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: 8,
            parallelization_factor,
            metrics_namespace: "Usher".to_owned(),
        };
        let writer = ProfileWriter::new(self.journey.clone(), ports, config);
        let payload = payload(records);
        let response = writer.run(invocation(&payload, LONG)).await.expect("a batch");
        assert_eq!(response.retries_from(), None);
    }

    async fn park(&self, since: Timestamp) {
        let version = self.profiles.item("a").expect("stored").version;
        let park = self.profiles.park("a", ParkTarget::Version(version), since);
        park.await.expect("it is in memory");
    }

    async fn redrive(&self, records: &[u64], coverage: Coverage, passed_by: PassedBy) -> RedriveUserReport {
        let ports = RedriveUserPorts {
            profiles: &self.profiles,
            triggers: &self.triggers,
            clock: &MemoryClock::at(at(2_000)),
        };
        let mut given = Given {
            records: records.iter().map(|number| parked(*number)).collect(),
            coverage,
        };
        let request = RedriveUserRequest {
            user: "a",
            parallelization_factor: 1,
            passed_by,
        };
        let redriven = redrive_user(&self.journey, ports, &mut given, request, Instant::now() + LONG);
        redriven.await.expect("it answers")
    }

    fn applied(&self) -> u64 {
        let item = self.profiles.item("a").expect("stored");
        let profile = profile_state::decode(&item.state, item.version, "a", &self.journey);
        profile.expect("it can be read").applied_events
    }
}

#[tokio::test]
async fn p1_a_parking_whose_records_are_not_there_is_not_ended_without_permission() {
    let parked_since = at(100);
    let nothing = RedriveEnd::NothingFound { parked_since };
    let past = RedriveEnd::PastRetention {
        parked_since,
        retained_from: at(101),
    };
    let (whole, from, taken) = (Coverage::Whole, Coverage::RetainedFrom, Coverage::TakenForWhole);
    for (records, coverage, expected) in [
        (&[][..], whole, &nothing),
        (&[], from(at(99)), &nothing),
        (&[], from(at(101)), &nothing),
        (&[], taken, &RedriveEnd::Done),
        (&[2, 3], from(at(101)), &past),
        (&[2, 3], from(at(100)), &RedriveEnd::Done),
        (&[2, 3], whole, &RedriveEnd::Done),
        (&[2, 3], taken, &RedriveEnd::Done),
    ] {
        let world = World::new();
        world.write(1, &[click(1)]).await;
        world.park(parked_since).await;
        let before = world.profiles.item("a");
        let report = world.redrive(records, coverage, PassedBy::Ask).await;
        assert_eq!(&report.end, expected, "{records:?} {coverage:?}");
        if report.end == RedriveEnd::Done {
            assert_eq!(world.applied(), 1 + records.len() as u64);
            assert_eq!(world.profiles.parked_since("a"), None);
        } else {
            assert_eq!(world.profiles.item("a"), before, "nothing was changed: {coverage:?}");
        }
    }
    // Who is not marked has nothing to lose.
    let world = World::new();
    world.write(1, &[click(1)]).await;
    let report = world.redrive(&[], Coverage::RetainedFrom(at(101)), PassedBy::Ask).await;
    assert_eq!((report.end, report.writes), (RedriveEnd::Done, 0));
}

#[tokio::test]
async fn p2_what_was_applied_is_found_whatever_the_parallelization_factor() {
    for factor in [1, 2] {
        let world = World::new();
        world.write(factor, &[click(1), click(2), click(3)]).await;
        world.park(at(100)).await;
        let report = world.redrive(&[1, 2, 4], Coverage::Whole, PassedBy::Ask).await;
        assert!(
            matches!(&report.end, RedriveEnd::PassedBy { records } if records.len() == 2),
            "factor {factor}: {report:?}"
        );
        assert_eq!(world.applied(), 3, "factor {factor}");
        let report = world.redrive(&[1, 2, 4], Coverage::Whole, PassedBy::Skip).await;
        assert_eq!((report.end, report.applied, report.skipped), (RedriveEnd::Done, 1, 2));

        // A batch that comes again finds it, with the same factor or another.
        for factor_then in [1, 2] {
            world.write(factor_then, &[click(4)]).await;
            assert_eq!(world.applied(), 4, "factor {factor}, then {factor_then}");
        }
    }
}

#[tokio::test]
async fn p3_partition_keys_that_were_parked_in_another_order_than_the_shards_are_not_passed_by() {
    let world = World::new();
    world.write(2, &[click(1)]).await;
    world.park(at(100)).await;
    let mut records: Vec<ParkedRecord> = [7, 5].into_iter().map(parked).collect();
    records[1].sequence_number = 1_008u64.into();
    let other_key = String::from_utf8(records[1].data.clone()).expect("JSON");
    let other_key = other_key.replace(r#""partition_key":"k""#, r#""partition_key":"l""#);
    records[1].data = other_key.into_bytes();
    let coverage = Coverage::Whole;
    let mut given = Given { records, coverage };
    let ports = RedriveUserPorts {
        profiles: &world.profiles,
        triggers: &world.triggers,
        clock: &MemoryClock::at(at(2_000)),
    };
    let request = RedriveUserRequest {
        user: "a",
        parallelization_factor: 2,
        passed_by: PassedBy::Ask,
    };
    let report = redrive_user(&world.journey, ports, &mut given, request, Instant::now() + LONG).await;
    let report = report.expect("it answers");
    assert_eq!((report.end, report.applied), (RedriveEnd::Done, 2));
}
