use usher_domain::bandit::state::Outcome;
use usher_wire::trigger::TriggerRecord;

use super::*;
use crate::memory::{
    Fault, MemoryClock, MemoryModelTable, MemoryProfileTable, MemorySink, MemoryStream, MemoryTrendTable, Operation,
};
use crate::models::KeptModel;
use crate::ports::ModelItem;
use crate::profile_writer::{ProfileWriter, ProfileWriterConfig, ProfileWriterPorts};
use crate::telemetry::{ProfileWriterBatch, TelemetryEvent};
use crate::testing::{EPOCH_MS, LONG, TestRecord, invocation, payload};

const JOURNEY: &str = r#"
journey: learning
contents:
  - { id: tour }
  - { id: demo }
slots:
  in_app: { learner: thompson }
  banner: { learner: fixed_split, weights: { tour: 3 } }
triggers:
  - { id: welcome, on: click, choose: [tour, demo], slot: in_app }
  - { id: shown, on: view, choose: [tour, demo], slot: banner }
outcomes: { within: 1h, reward: { click: 1 } }
"#;
const REFRESH: Duration = Duration::from_millis(100);
const PATIENCE: Patience = Patience {
    wait: Duration::from_millis(200),
    age_max: Duration::from_millis(300),
    believed: Duration::from_millis(1500),
};

fn journey(text: &str) -> Arc<Journey> {
    Arc::new(Journey::parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("journey", text))))
}

fn source(models: &MemoryModelTable) -> SnapshotSource {
    SnapshotSource {
        patience: PATIENCE,
        ..SnapshotSource::new(models.clone(), MemoryTrendTable::default(), REFRESH)
    }
}

/// Stores what the slot's learner knows after so many outcomes.
fn store(table: &MemoryModelTable, journey: &Journey, outcomes: u64) -> u64 {
    let learner = &journey.learners[0];
    let mut model = KeptModel::new(&learner.slot, &learner.layout, None);
    for number in 0..outcomes {
        let outcome = Outcome {
            arm: "tour",
            context: &learner
                .layout
                .context(|_| usher_domain::value::Value::Null, &Default::default()),
            content: &Default::default(),
            reward: number as f64,
            previous: None,
            at: Timestamp::from_epoch_ms(EPOCH_MS),
        };
        model.state.learn(&learner.layout, &outcome);
    }
    for write in model
        .writes(Timestamp::from_epoch_ms(EPOCH_MS))
        .expect("it is small")
        .writes
    {
        if let crate::ports::ModelWrite::Put { item, .. } = write {
            table.insert(item);
        }
    }
    model.state.version()
}

fn now() -> Timestamp {
    Timestamp::from_epoch_ms(EPOCH_MS)
}

/// The version of the slot's model, `missing` or `unreadable`.
fn seen(snapshots: &Snapshots) -> String {
    match snapshots.models.of("in_app") {
        None => "missing".to_owned(),
        Some(SlotModel::Unreadable) => "unreadable".to_owned(),
        Some(SlotModel::Ready(model)) => model.version().to_string(),
    }
}

/// Lets what goes on beside the batches get on.
async fn beside() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

#[tokio::test]
async fn a_batch_takes_what_an_earlier_one_had_looked_for() {
    let (journey, table) = (journey(JOURNEY), MemoryModelTable::default());
    let first = store(&table, &journey, 3);
    let keeper = source(&table).keeper(&journey).expect("it chooses");
    let (snapshots, news) = keeper.for_batch(now()).await;
    assert_eq!(
        (seen(&snapshots), news.missing),
        (first.to_string(), 0),
        "the first one waits"
    );
    let second = store(&table, &journey, 4);
    assert_eq!(seen(&keeper.for_batch(now()).await.0), first.to_string(), "it is fresh");
    tokio::time::sleep(REFRESH).await;
    assert_eq!(
        seen(&keeper.for_batch(now()).await.0),
        first.to_string(),
        "P4: no batch waits for the look"
    );
    beside().await;
    assert_eq!(seen(&keeper.for_batch(now()).await.0), second.to_string());
    assert_eq!(table.faults().count(Operation::GetModels), 2);
    // After a pause, what is at hand is too old.
    let third = store(&table, &journey, 5);
    tokio::time::sleep(PATIENCE.age_max * 2).await;
    assert_eq!(seen(&keeper.for_batch(now()).await.0), third.to_string());
}

#[tokio::test]
async fn a_table_that_does_not_answer_holds_a_batch_up_once_and_for_a_moment() {
    let (journey, table) = (journey(JOURNEY), MemoryModelTable::default());
    store(&table, &journey, 3);
    table.faults().inject(Fault::Hang);
    let keeper = source(&table).keeper(&journey).expect("it chooses");
    let started = Instant::now();
    let (snapshots, news) = keeper.for_batch(now()).await;
    assert_eq!((seen(&snapshots).as_str(), news.missing), ("missing", 1));
    assert!(started.elapsed() >= PATIENCE.wait);
    let (_, news) = keeper.for_batch(now()).await;
    assert_eq!(news.missing, 1);
    assert!(started.elapsed() < PATIENCE.wait * 2, "no second wait for one look");
}

#[tokio::test]
async fn what_is_known_goes_on_while_the_table_fails_but_not_for_ever() {
    let (journey, table) = (journey(JOURNEY), MemoryModelTable::default());
    let version = store(&table, &journey, 3).to_string();
    let keeper = source(&table).keeper(&journey).expect("it chooses");
    keeper.for_batch(now()).await;
    table.faults().on_call(|_| Some(Fault::Refuse));
    let mut failed = 0;
    for pause in [REFRESH, REFRESH * 2, PATIENCE.age_max] {
        tokio::time::sleep(pause).await;
        for _ in 0..2 {
            let (snapshots, news) = keeper.for_batch(now()).await;
            failed += news.refresh_failed;
            assert_eq!((seen(&snapshots), news.models_unreadable), (version.clone(), 0));
            beside().await;
        }
    }
    assert!(failed >= 2, "{failed}");
    tokio::time::sleep(PATIENCE.believed).await;
    let (snapshots, news) = keeper.for_batch(now()).await;
    assert_eq!((seen(&snapshots).as_str(), news.models_unreadable), ("unreadable", 1));
    table.faults().on_call(|_| None);
    tokio::time::sleep(PATIENCE.age_max * 2).await;
    let (snapshots, news) = keeper.for_batch(now()).await;
    assert_eq!(
        (seen(&snapshots), news.models_unreadable),
        (version, 0),
        "it comes back by itself"
    );
}

#[test]
fn a_journey_that_asks_for_nothing_costs_no_look() {
    let table = MemoryModelTable::default();
    let plain =
        "journey: plain\ncontents:\n  - { id: tour }\ntriggers:\n  - { id: a, on: click, offer: tour, slot: in_app }\n";
    assert!(source(&table).keeper(&journey(plain)).is_none());
    let split = JOURNEY.replace("{ learner: thompson }", "{ learner: fixed_split }");
    assert!(
        source(&table).keeper(&journey(&split)).is_none(),
        "nothing is read that nothing learns"
    );
    assert!(source(&table).keeper(&journey(JOURNEY)).is_some());
}

/// P7: what decided is told with the decision, and where it is gone the learner decides with nothing learned.
#[tokio::test]
async fn decisions_tell_the_model_or_why_there_was_none() {
    type Prepare = fn(&MemoryModelTable, &Journey) -> Option<u64>;
    let cases: [(&str, Prepare, Option<&str>); 3] = [
        ("a model", |table, journey| Some(store(table, journey, 7)), None),
        ("none", |_, _| None, Some("missing")),
        (
            "a damaged one",
            |table, journey| {
                store(table, journey, 7);
                let damage = |item: ModelItem| ModelItem {
                    state: vec![1, 2, 3],
                    ..item
                };
                table
                    .items()
                    .into_iter()
                    .map(damage)
                    .for_each(|item| table.insert(item));
                None
            },
            Some("unreadable"),
        ),
    ];
    for (name, prepare, fallback) in cases {
        let (journey, table, sink) = (journey(JOURNEY), MemoryModelTable::default(), MemorySink::default());
        let version = prepare(&table, &journey);
        let triggers = MemoryStream::default();
        let ports = ProfileWriterPorts {
            profiles: MemoryProfileTable::default(),
            triggers: triggers.clone(),
            rejected: MemoryStream::default(),
            clock: MemoryClock::at(now()),
            telemetry: sink.clone(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: 1,
            parallelization_factor: 1,
            metrics_namespace: "Usher".to_owned(),
        };
        let writer = ProfileWriter::new(journey, ports, config).with_snapshots(&source(&table));
        let event = r#"{"event_id":"1","event_type":"click","timestamp":"2026-01-05T10:00:00Z","user_id":"ann"}"#;
        let payload = payload(&[TestRecord::new(1, event)]);
        writer.run(invocation(&payload, LONG)).await.expect("a Kinesis batch");
        let decision = triggers.records().remove(0).record.data;
        TriggerRecord::parse(&decision).expect("a decision");
        let decision: serde_json::Value = serde_json::from_slice(&decision).expect("json");
        let choice = &decision["choice"];
        assert_eq!(
            choice["model_version"].as_str().map(str::to_owned),
            version.map(|version| format!("{version:016x}")),
            "{name}"
        );
        assert_eq!(choice["fallback"].as_str(), fallback, "{name}: {choice}");
        let told = ProfileWriterBatch::from_line(&sink.lines()[0]).expect("ours");
        assert_eq!(told.model_fallbacks, u64::from(fallback.is_some()), "{name}");
        assert_eq!(
            told.models_unreadable,
            u64::from(fallback == Some("unreadable")),
            "{name}"
        );
    }
}
