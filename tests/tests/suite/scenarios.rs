//! Scenarios are files: what comes in, what must come out. A new case needs no Rust.
//!
//! A folder under `tests/scenarios` holds
//! - `input.jsonl`: one step a line,
//!   - `{"about": "…"}` says what the scenario shows,
//!   - `{"record": {"arrived": "RFC 3339", "event": {…}}}` puts a record on the stream (instead of `event`: `"text"`,
//!     `"base64"` or `"gzip"` of an event, with `"spaces": N` after it; `"shard": N` for another shard than 0, `"key"` for another
//!     partition key than `k`),
//!   - `{"deliver": [FROM, TO]}` invokes profile-writer with these records (both included, from 0),
//!   - `{"fault": {"profiles"|"triggers"|"rejected"|"decisions"|"delivery": FAULT}}` makes the next call fail so:
//!     `"throttle"`, `"lost_answer"`, `"refuse"`, a list of what the call leaves over (unprocessed keys, failed records),
//!     or the end of the container, `"crash_before"` the call or `"crash_after"` it took effect; what comes next then runs
//!     in a new container, with nothing cached,
//!   - `{"redrive": {"records": [FROM, TO], "arrived": "RFC 3339"}}` puts records on the stream again, as new ones,
//!   - `{"parallelization_factor": N}` says how many batches of one shard run at once (before the first `deliver`),
//!   - `{"show_rules": true}` shows with each response from then on how rules came out,
//!   - `{"restart": true}` lets a new container go on, with nothing cached,
//!   - `{"journey": "FILE"}` deploys another journey of the folder: new containers go on with it,
//!   - `{"container": N}` lets container N go on, with what it has cached (0 at first),
//!   - `{"unreadable": "USER"}` puts something that is no profile in the place of a user's,
//!   - `{"trends": {"events": N, "type": "…", "content"|"category": "…", "at": "RFC 3339"}}`: so many events of others that containers
//!     know of from then on, which start with nothing cached,
//!   - `{"deliver_triggers": true}` invokes trigger-delivery with everything on the triggers stream so far;
//! - `journey.yaml`, unless the default journey is meant;
//! - `expected.jsonl`: every response, then pointers, profiles, triggers, outcomes, decisions and rejected records.
//!
//! `UPDATE_SCENARIOS=1` writes the expected files anew: read the difference before you commit it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use usher_domain::journey::{Journey, TrendBy};
use usher_domain::time::Timestamp;
use usher_domain::trends::tile::{TileParts, TrendTile};
use usher_domain::trends::{TrendKey, minute_of};
use usher_pipeline::memory::{
    Container, ContainerEnded, Fault, MemoryClock, MemoryDecisionTable, MemoryDelivery, MemoryModelTable,
    MemoryProfileTable, MemorySink, MemoryStream, MemoryTrendTable,
};
use usher_pipeline::ports::TrendItem;
use usher_pipeline::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use usher_pipeline::snapshots::SnapshotSource;
use usher_pipeline::telemetry::{ProfileWriterBatch, TelemetryEvent};
use usher_pipeline::trigger_delivery::{TriggerDelivery, TriggerDeliveryConfig, TriggerDeliveryPorts};
use usher_wire::outcome::OUTCOME_KIND;
use usher_wire::{profile_json, profile_state, trend_tile};

use usher_tests::lambda_event::{Record, invocation, payload, records_of, usual_sequence_number};

/// What is known of others changes when a scenario says so, and then a new container looks.
const NO_REFRESH: Duration = Duration::from_secs(60 * 60);

type Writer = ProfileWriter<MemoryProfileTable, MemoryStream, MemoryClock, MemorySink>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

#[tokio::test]
async fn every_scenario_comes_out_as_written() {
    let mut failures = Vec::new();
    let mut count = 0;
    let mut folders: Vec<_> = std::fs::read_dir(folder())
        .expect("scenarios")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    for folder in folders.into_iter().filter(|path| path.is_dir()) {
        count += 1;
        let found = run(&folder).await;
        let expected_path = folder.join("expected.jsonl");
        if wants_update() {
            std::fs::write(&expected_path, &found).expect("the scenario's folder can be written");
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            failures.push(format!("{}:\n{}", folder.display(), difference(&expected, &found)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 5, "found only {count} scenarios");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of these tests, read where it is used"
)]
fn wants_update() -> bool {
    std::env::var_os("UPDATE_SCENARIOS").is_some()
}

fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let lines = (0..expected.len().max(found.len())).filter(|index| expected.get(*index) != found.get(*index));
    lines
        .map(|index| {
            let line = |lines: &[&str]| lines.get(index).copied().unwrap_or("(nothing)").to_owned();
            format!(
                "  line {}\n    expected {}\n    found    {}\n",
                index + 1,
                line(&expected),
                line(&found)
            )
        })
        .collect()
}

/// The world of one scenario.
struct World {
    journey: Arc<Journey>,
    profiles: MemoryProfileTable,
    triggers: MemoryStream,
    rejected: MemoryStream,
    decisions: MemoryDecisionTable,
    delivery: MemoryDelivery,
    trends: MemoryTrendTable,
    clock: MemoryClock,
    sink: MemorySink,
    /// The containers that ran so far, and which of them runs now.
    writers: BTreeMap<u64, Writer>,
    container: u64,
    parallelization_factor: u32,
    shows_rules: bool,
}

impl World {
    fn new(journey: Journey) -> World {
        let journey = Arc::new(journey);
        let (profiles, triggers, rejected) = (
            MemoryProfileTable::default(),
            MemoryStream::default(),
            MemoryStream::default(),
        );
        let (clock, sink) = (MemoryClock::at(Timestamp::from_epoch_ms(0)), MemorySink::default());
        World {
            journey,
            profiles,
            triggers,
            rejected,
            decisions: MemoryDecisionTable::default(),
            delivery: MemoryDelivery::default(),
            trends: MemoryTrendTable::default(),
            clock,
            sink,
            writers: BTreeMap::new(),
            container: 0,
            parallelization_factor: 1,
            shows_rules: false,
        }
    }

    /// The container that runs now.
    fn writer(&mut self) -> &Writer {
        self.writers.entry(self.container).or_insert_with(|| {
            writer(
                &self.journey,
                &self.profiles,
                &self.triggers,
                &self.rejected,
                &self.clock,
                &self.sink,
                self.parallelization_factor,
            )
            .with_snapshots(&SnapshotSource::new(
                MemoryModelTable::default(),
                self.trends.clone(),
                NO_REFRESH,
            ))
        })
    }

    fn fault(&self, port: &str, fault: Fault) {
        match port {
            "profiles" => self.profiles.faults().inject(fault),
            "triggers" => self.triggers.faults().inject(fault),
            "rejected" => self.rejected.faults().inject(fault),
            "decisions" => self.decisions.faults().inject(fault),
            "delivery" => self.delivery.faults().inject(fault),
            _ => panic!("there is no port `{port}`"),
        }
    }

    /// Stores what a shard counted of others, and lets new containers go on: those look first.
    fn add_trend(&mut self, value: &Value) {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let (by, id) = match (text("content"), text("category")) {
            (Some(content), None) => (TrendBy::Content, content),
            (None, Some(category)) => (TrendBy::Category, category),
            _ => panic!("trends are of a content or a category"),
        };
        let key = TrendKey {
            event_type: text("type").expect("a type"),
            by,
            id,
        };
        let at: Timestamp = text("at").expect("a time").parse().expect("RFC 3339");
        let events = value["events"].as_u64().expect("a count");
        let tile = TrendTile::from_parts(TileParts {
            events,
            counts: vec![(key, events)],
            ..TileParts::default()
        });
        self.trends.insert(TrendItem {
            minute: minute_of(at),
            // Another one each time, so that none takes the place of another.
            shard: format!("shard-of-others-{:012}", self.trends.items().len()),
            version: 1,
            state: trend_tile::encode(&tile),
            expires_at_epoch_s: 0,
        });
        self.writers.clear();
    }

    /// What came of it all, a line each.
    fn outcome(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        let (pointers, profiles): (Vec<_>, Vec<_>) = self
            .profiles
            .items()
            .into_iter()
            .partition(|item| item.merged_into.is_some());
        for item in pointers {
            lines.push(json!({ "pointer": { "from": item.user_id, "to": item.merged_into } }));
        }
        let profiles: BTreeMap<String, _> = profiles
            .into_iter()
            .map(|item| {
                let profile = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey);
                (item.user_id, profile.expect("what was written can be read"))
            })
            .collect();
        let now = profiles.values().map(|profile| profile.now).max().unwrap_or_default();
        for (user, profile) in &profiles {
            let line = profile_json::to_json(user, profile, &self.journey, now);
            lines.push(json!({ "profile": serde_json::from_str::<Value>(&line).expect("json") }));
        }
        let json_of = |record: &usher_pipeline::memory::StoredRecord| -> Value {
            serde_json::from_slice(&record.record.data).expect("json")
        };
        for record in self.triggers.records() {
            let trigger = json_of(&record);
            if trigger["kind"] == OUTCOME_KIND {
                let names = [
                    "trigger_id",
                    "user_id",
                    "offer",
                    "rewards",
                    "reward",
                    "previous_reward",
                    "at",
                ];
                let mut shown: BTreeMap<&str, Value> = names.map(|name| (name, trigger[name].clone())).into();
                for name in ["expired", "held_out", "choice"] {
                    if let Some(value) = trigger.get(name) {
                        shown.insert(name, value.clone());
                    }
                }
                lines.push(json!({ "outcome": shown, "caused_by": trigger["cause"]["event_id"] }));
                continue;
            }
            let names = ["trigger_id", "user_id", "rule", "slot", "offer", "decided_at", "reason"];
            let mut shown: BTreeMap<&str, Value> = names.map(|name| (name, trigger[name].clone())).into();
            // Left out where they have nothing to say.
            for name in ["due_at", "held_out", "arms", "choice"] {
                if let Some(value) = trigger.get(name) {
                    shown.insert(name, value.clone());
                }
            }
            if trigger["choice"].is_object() {
                shown.insert("propensity", trigger["propensity"].clone());
            }
            lines.push(json!({ "trigger": shown, "caused_by": trigger["cause"]["event_id"] }));
        }
        for (decision, status) in self.decisions.decisions() {
            let shown = json!({ "rule": decision.rule, "status": status.name(), "user_id": decision.user_id });
            lines.push(json!({ "decision": shown }));
        }
        for record in self.rejected.records() {
            let rejected = json_of(&record);
            let names = ["reason", "field", "detail", "data"];
            lines.push(json!({ "rejected": names.map(|name| (name, rejected[name].clone())).into_iter().collect::<BTreeMap<_, _>>() }));
        }
        lines
    }
}

fn writer(
    journey: &Arc<Journey>,
    profiles: &MemoryProfileTable,
    triggers: &MemoryStream,
    rejected: &MemoryStream,
    clock: &MemoryClock,
    sink: &MemorySink,
    parallelization_factor: u32,
) -> Writer {
    let ports = ProfileWriterPorts {
        profiles: profiles.clone(),
        triggers: triggers.clone(),
        rejected: rejected.clone(),
        clock: clock.clone(),
        telemetry: sink.clone(),
    };
    let config = ProfileWriterConfig {
        write_concurrency: 4,
        parallelization_factor,
        metrics_namespace: "Usher".to_owned(),
    };
    ProfileWriter::new(journey.clone(), ports, config)
}

async fn run(folder: &Path) -> String {
    let own_journey = folder.join("journey.yaml");
    let default_journey = folder.join("../../../journey/journey.yaml");
    let journey = if own_journey.exists() {
        own_journey
    } else {
        default_journey
    };
    let mut world = World::new(journey_of(&journey));
    let mut records: Vec<Record> = Vec::new();
    let mut lines: Vec<Value> = Vec::new();
    let input = std::fs::read_to_string(folder.join("input.jsonl")).expect("input.jsonl");
    for line in input.lines().filter(|line| !line.trim().is_empty()) {
        let step: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", folder.display()));
        let (name, value) = step
            .as_object()
            .and_then(|step| step.iter().next())
            .expect("a step has a name");
        match name.as_str() {
            "about" => {}
            "record" => records.push(record(value, records.len() as u64)),
            "deliver" => {
                let range = value[0].as_u64().expect("from") as usize..=value[1].as_u64().expect("to") as usize;
                let batch = &records[range];
                if let Some(last) = batch.last() {
                    world.clock.set(last.arrived_at);
                }
                let payload = payload(batch);
                let Ok(response) = Container::default().run(world.writer().run(invocation(&payload))).await else {
                    world.writers.remove(&world.container);
                    lines.push(json!({ "response": null, "container": "ended" }));
                    continue;
                };
                let response = response.expect("a Kinesis batch");
                let telemetry =
                    ProfileWriterBatch::from_line(world.sink.lines().last().expect("a line a batch")).expect("ours");
                let mut line = json!({ "response": response, "counted": counted(&telemetry) });
                if world.shows_rules {
                    line["rules"] = json!(telemetry.rules);
                }
                lines.push(line);
            }
            "deliver_triggers" => {
                let batch = records_of(&world.triggers, Timestamp::from_epoch_ms(0));
                let ports = TriggerDeliveryPorts {
                    decisions: world.decisions.clone(),
                    delivery: world.delivery.clone(),
                    clock: world.clock.clone(),
                    telemetry: world.sink.clone(),
                };
                let config = TriggerDeliveryConfig {
                    delivery_concurrency: 4,
                    decision_ttl_days: 90,
                    metrics_namespace: "Usher".to_owned(),
                };
                let (flow, payload) = (TriggerDelivery::new(ports, config), payload(&batch));
                let response = match Container::default().run(flow.run(invocation(&payload))).await {
                    Ok(response) => json!(response.expect("a batch")),
                    Err(ContainerEnded) => Value::Null,
                };
                lines.push(json!({ "response": response, "delivered": world.delivery.delivered().len() }));
            }
            "redrive" => {
                let [from, to] = [0, 1].map(|end| value["records"][end].as_u64().expect("a record") as usize);
                for index in from..=to {
                    let mut again = records[index].clone();
                    again.sequence_number = usual_sequence_number(records.len() as u64);
                    again.arrived_at = value["arrived"].as_str().expect("a time").parse().expect("RFC 3339");
                    records.push(again);
                }
            }
            "journey" => {
                world.journey = Arc::new(journey_of(&folder.join(value.as_str().expect("a file"))));
                world.writers.clear();
            }
            "show_rules" => world.shows_rules = true,
            "restart" => {
                world.writers.remove(&world.container);
            }
            "parallelization_factor" => world.parallelization_factor = value.as_u64().expect("a number") as u32,
            "container" => world.container = value.as_u64().expect("a number"),
            "trends" => world.add_trend(value),
            "unreadable" => world
                .profiles
                .insert_unreadable(value.as_str().expect("a user"), "it was put there by a scenario"),
            "fault" => {
                for (port, fault) in value.as_object().expect("a port and its fault") {
                    world.fault(port, fault_of(fault));
                }
            }
            other => panic!("{}: there is no step `{other}`", folder.display()),
        }
    }
    lines.extend(world.outcome());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn journey_of(path: &Path) -> Journey {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Journey::parse(&text).unwrap_or_else(|errors| panic!("{}: {errors}", path.display()))
}

fn fault_of(written: &Value) -> Fault {
    if let Some(left_over) = written.as_array() {
        let index = |index: &Value| index.as_u64().expect("an index") as usize;
        return Fault::Partial(left_over.iter().map(index).collect());
    }
    match written.as_str() {
        Some("throttle") => Fault::Throttle,
        Some("lost_answer") => Fault::LostAnswer,
        Some("refuse") => Fault::Refuse,
        Some("crash_before") => Fault::CrashBefore,
        Some("crash_after") => Fault::CrashAfter,
        _ => panic!("there is no fault `{written}`"),
    }
}

/// What became of the records, without the noughts.
fn counted(batch: &ProfileWriterBatch) -> BTreeMap<&'static str, u64> {
    let all = [
        ("applied", batch.applied),
        ("duplicate", batch.duplicate),
        ("redelivered", batch.redelivered),
        ("dropped_by_rule", batch.dropped_by_rule),
        ("woken", batch.woken),
        ("rejected", batch.rejected),
        ("retried", batch.retried),
        ("writes", batch.conditional_writes),
        ("conflicts", batch.conflicts),
        ("triggers", batch.triggers),
        ("triggers_expired", batch.triggers_expired),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn record(value: &Value, number: u64) -> Record {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let data = if let Some(text) = text("text") {
        text.into_bytes()
    } else if let Some(base64) = text("base64") {
        base64_simd::STANDARD.decode_to_vec(base64).expect("base64")
    } else if !value["gzip"].is_null() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut event = value["gzip"].to_string().into_bytes();
        event.resize(event.len() + value["spaces"].as_u64().unwrap_or(0) as usize, b' ');
        encoder.write_all(&event).expect("to memory");
        encoder.finish().expect("to memory")
    } else {
        value["event"].to_string().into_bytes()
    };
    Record {
        shard_id: format!("shardId-{:012}", value["shard"].as_u64().unwrap_or(0)),
        sequence_number: usual_sequence_number(number),
        arrived_at: text("arrived")
            .expect("a record has arrived")
            .parse()
            .expect("RFC 3339"),
        partition_key: text("key").unwrap_or_else(|| "k".to_owned()),
        data,
    }
}
