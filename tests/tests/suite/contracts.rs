//! The contract of the ports, kept by every implementation: the in-memory ones, and the AWS adapters over the embedded
//! emulators and over ministack.
//!
//! ministack is a process of its own: `USHER_TEST_MINISTACK_URL` says where one listens. Without it that test says so
//! and does nothing; CI starts one.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use aws_sdk_kinesis::types::StreamStatus;
use usher_aws::clients::Clients;
use usher_aws::dynamodb::{
    DUE_INDEX, DynamoDecisionTable, DynamoDueIndex, DynamoModelTable, DynamoProfileTable, DynamoTrendTable,
};
use usher_aws::kinesis::KinesisStream;
use usher_domain::time::Timestamp;
use usher_local::Clock;
use usher_local::dynamodb::{DynamoDb, DynamoDbOptions};
use usher_local::faults::Faults;
use usher_local::kinesis::{Kinesis, KinesisOptions};
use usher_pipeline::memory::{
    MemoryDecisionTable, MemoryDueIndex, MemoryModelTable, MemoryProfileTable, MemoryStream, MemoryTrendTable,
};
use usher_pipeline::ports::{ParkAnswer, ParkTarget, ProfileTable};
use usher_tests::contract;

const MINISTACK_URL: &str = "USHER_TEST_MINISTACK_URL";
const SHARDS: i32 = 2;
/// How long a stream may take to become active.
const STREAM_ACTIVE_ATTEMPTS: usize = 100;
const STREAM_ACTIVE_PAUSE: Duration = Duration::from_millis(100);

/// A text that is new each time, so that a run meets nothing of an earlier one.
fn run_id() -> String {
    format!("{:x}", fastrand::u64(..))
}

#[tokio::test]
async fn the_memory_adapters_keep_the_contract() {
    let run = run_id();
    contract::profile_table(&MemoryProfileTable::default(), &run).await;
    contract::profile_table_units(&MemoryProfileTable::default(), &run).await;
    let profiles = MemoryProfileTable::default();
    contract::due_index(&profiles, &MemoryDueIndex::of(&profiles), &run).await;
    contract::decision_table(&MemoryDecisionTable::default(), &run).await;
    contract::trend_table(&MemoryTrendTable::default(), &run).await;
    contract::model_table(&MemoryModelTable::default(), &run).await;
    contract::record_stream(&MemoryStream::with_shards(2), &run).await;
    contract::record_stream_limits(&MemoryStream::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_adapters_keep_the_contract_over_the_embedded_emulators() {
    let dynamodb = DynamoDb::start(DynamoDbOptions::default()).await.expect("a free port");
    let kinesis = Kinesis::start(kinesis_options()).await.expect("a free port");
    let clients = Clients::for_emulators(dynamodb.url(), kinesis.url());
    let adapters = Adapters::make(&clients, &run_id()).await;
    adapters.keep_the_contract().await;
    an_item_that_is_no_profile_is_parked(&clients, &adapters.run).await;
    contract::profile_table_units(&adapters.profiles, &adapters.run).await;
    contract::record_stream_limits(&adapters.stream).await;
    kinesis.close().await;
    dynamodb.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of this test, read where it is used"
)]
async fn the_aws_adapters_keep_the_contract_over_ministack() {
    let Ok(url) = std::env::var(MINISTACK_URL) else {
        eprintln!("skipped: {MINISTACK_URL} is not set; start ministack and set it to http://127.0.0.1:PORT");
        return;
    };
    let clients = Clients::for_emulators(&url, &url);
    let adapters = Adapters::make(&clients, &run_id()).await;
    adapters.keep_the_contract().await;
    an_item_that_is_no_profile_is_parked(&clients, &adapters.run).await;
}

/// No port can write such an item; what a mark leaves of it is what was there.
async fn an_item_that_is_no_profile_is_parked(clients: &Clients, run: &str) {
    let table = DynamoProfileTable::new(clients.dynamodb.clone(), format!("profiles-{run}"));
    let since = Timestamp::from_epoch_ms(1_767_607_200_456);
    for (user, version, version_after) in [
        (
            "a newer layout",
            Some(AttributeValue::N("7".to_owned())),
            Some(AttributeValue::N("8".to_owned())),
        ),
        ("no version", None, None),
        (
            "no number",
            Some(AttributeValue::S("7".to_owned())),
            Some(AttributeValue::S("7".to_owned())),
        ),
    ] {
        let put = clients.dynamodb.put_item().table_name(format!("profiles-{run}"));
        let put = put
            .item("user_id", AttributeValue::S(user.to_owned()))
            .item("layout", AttributeValue::N("99".to_owned()));
        let put = match version {
            Some(version) => put.item("version", version),
            None => put,
        };
        put.send().await.expect("it answers");
        for (target, is_parked) in [(ParkTarget::Version(3), false), (ParkTarget::Unreadable, true)] {
            match table.park(user, target, since).await.expect("it answers") {
                ParkAnswer::Parked { .. } => assert!(is_parked, "{user}"),
                ParkAnswer::Unreadable { why } => {
                    assert!(!is_parked && why.contains("its layout is 99"), "{user}: {why}");
                }
                other => panic!("{user}: {other:?}"),
            }
        }
        let get = clients.dynamodb.get_item().table_name(format!("profiles-{run}"));
        let get = get
            .key("user_id", AttributeValue::S(user.to_owned()))
            .consistent_read(true);
        let item = get.send().await.expect("it answers").item.expect("it is there");
        assert_eq!(item.get("version"), version_after.as_ref(), "{user}");
        assert_eq!(item["parked_since"], AttributeValue::S(since.to_string()), "{user}");
        assert_eq!(item["layout"], AttributeValue::N("99".to_owned()), "{user}");
    }
}

fn kinesis_options() -> KinesisOptions {
    KinesisOptions {
        port: 0,
        region: "us-east-1".to_owned(),
        shards: SHARDS as u32,
        clock: Clock::Wall,
        put_times_per_shard_max: 0,
        on_put: None,
        faults: Faults::default(),
    }
}

/// The adapters over tables and a stream of their own.
struct Adapters {
    profiles: DynamoProfileTable,
    due: DynamoDueIndex,
    decisions: DynamoDecisionTable,
    trends: DynamoTrendTable,
    models: DynamoModelTable,
    stream: KinesisStream,
    run: String,
}

impl Adapters {
    async fn make(clients: &Clients, run: &str) -> Adapters {
        let (profiles, decisions, trends, models, stream) = (
            format!("profiles-{run}"),
            format!("decisions-{run}"),
            format!("trends-{run}"),
            format!("models-{run}"),
            format!("stream-{run}"),
        );
        create_profiles_table(clients, &profiles).await;
        create_table(
            clients,
            &decisions,
            &[("user_id", KeyType::Hash), ("trigger_id", KeyType::Range)],
        )
        .await;
        create_table(
            clients,
            &trends,
            &[("minute", KeyType::Hash), ("shard", KeyType::Range)],
        )
        .await;
        create_table(clients, &models, &[("slot", KeyType::Hash), ("part", KeyType::Range)]).await;
        create_stream(clients, &stream).await;
        Adapters {
            due: DynamoDueIndex::new(clients.dynamodb.clone(), profiles.clone()),
            profiles: DynamoProfileTable::new(clients.dynamodb.clone(), profiles),
            decisions: DynamoDecisionTable::new(clients.dynamodb.clone(), decisions),
            trends: DynamoTrendTable::new(clients.dynamodb.clone(), trends),
            models: DynamoModelTable::new(clients.dynamodb.clone(), models),
            stream: KinesisStream::new(clients.kinesis.clone(), stream),
            run: run.to_owned(),
        }
    }

    async fn keep_the_contract(&self) {
        contract::profile_table(&self.profiles, &self.run).await;
        contract::due_index(&self.profiles, &self.due, &self.run).await;
        contract::decision_table(&self.decisions, &self.run).await;
        contract::trend_table(&self.trends, &self.run).await;
        contract::model_table(&self.models, &self.run).await;
        contract::record_stream(&self.stream, &self.run).await;
    }
}

/// With the sparse index that template.yaml gives it.
async fn create_profiles_table(clients: &Clients, name: &str) {
    let definition = |attribute: &str, kind: ScalarAttributeType| {
        let definition = AttributeDefinition::builder()
            .attribute_name(attribute)
            .attribute_type(kind);
        definition.build().expect("it has a name and a type")
    };
    let key = |attribute: &str, key_type: KeyType| {
        let key = KeySchemaElement::builder().attribute_name(attribute).key_type(key_type);
        key.build().expect("it has a name and a type")
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name(DUE_INDEX)
        .key_schema(key("due_shard", KeyType::Hash))
        .key_schema(key("next_due_at", KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build();
    let request = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(definition("user_id", ScalarAttributeType::S))
        .attribute_definitions(definition("due_shard", ScalarAttributeType::S))
        .attribute_definitions(definition("next_due_at", ScalarAttributeType::N))
        .key_schema(key("user_id", KeyType::Hash))
        .global_secondary_indexes(index.expect("it has a name and keys"));
    request.send().await.expect("the table can be created");
}

async fn create_table(clients: &Clients, name: &str, keys: &[(&str, KeyType)]) {
    let mut request = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest);
    for (attribute, key_type) in keys {
        let definition = AttributeDefinition::builder()
            .attribute_name(*attribute)
            .attribute_type(ScalarAttributeType::S)
            .build();
        let key = KeySchemaElement::builder()
            .attribute_name(*attribute)
            .key_type(key_type.clone())
            .build();
        request = request
            .attribute_definitions(definition.expect("it has a name and a type"))
            .key_schema(key.expect("it has a name and a type"));
    }
    request.send().await.expect("the table can be created");
}

async fn create_stream(clients: &Clients, name: &str) {
    let create = clients.kinesis.create_stream().stream_name(name).shard_count(SHARDS);
    create.send().await.expect("the stream can be created");
    for _ in 0..STREAM_ACTIVE_ATTEMPTS {
        let described = clients
            .kinesis
            .describe_stream_summary()
            .stream_name(name)
            .send()
            .await
            .expect("it is there");
        let status = described
            .stream_description_summary()
            .map(|summary| summary.stream_status().clone());
        if status == Some(StreamStatus::Active) {
            return;
        }
        tokio::time::sleep(STREAM_ACTIVE_PAUSE).await;
    }
    panic!("the stream {name} does not become active");
}
