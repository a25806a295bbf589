//! Faults of DynamoDB and Kinesis as the real SDK sees them, without its retries, and what is true behind them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, TransactWriteItem};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use crate::{FaultKind, Faults, LocalCloud, LocalCloudOptions, Template, TemplateOptions};

const TEMPLATE: &str = "Resources:
  Events: { Type: AWS::Kinesis::Stream, Properties: { Name: events, ShardCount: 2 } }
  Items:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: items
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{ AttributeName: id, AttributeType: S }]
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
";
/// Shorter than the silence of a lost answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

struct Run {
    cloud: LocalCloud,
    faults: Faults,
    dynamodb: aws_sdk_dynamodb::Client,
    kinesis: aws_sdk_kinesis::Client,
}

/// A cloud in which this kind strikes at every opportunity.
async fn always(kind: FaultKind, seed: u64) -> Run {
    let faults = Faults::seeded(BTreeMap::from([(kind, 1_000)]), seed);
    let template = Template::parse("test.yaml", TEMPLATE, &TemplateOptions::default()).unwrap();
    let mut options = LocalCloudOptions::new(template);
    options.faults = faults.clone();
    let cloud = LocalCloud::start(options).await.unwrap();
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(CALL_TIMEOUT).build();
    let (region, credentials) = (
        Region::new("us-east-1"),
        Credentials::new("local", "local", None, None, "test"),
    );
    let http = aws_smithy_http_client::Builder::new().build_http();
    let dynamodb = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region.clone())
        .credentials_provider(credentials.clone())
        .http_client(http.clone())
        .timeout_config(timeouts.clone())
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&cloud.endpoints().dynamodb_url)
        .build();
    let kinesis = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region)
        .credentials_provider(credentials)
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled())
        .endpoint_url(&cloud.endpoints().kinesis_url)
        .build();
    Run {
        cloud,
        faults,
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
        kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
    }
}

fn item(id: usize) -> HashMap<String, AttributeValue> {
    HashMap::from([("id".to_owned(), AttributeValue::S(id.to_string()))])
}

impl Run {
    async fn put_item(&self, id: usize) -> Result<(), (Option<String>, String)> {
        let put = self.dynamodb.put_item().table_name("items").set_item(Some(item(id)));
        put.send()
            .await
            .map(|_| ())
            .map_err(|error| (error.code().map(str::to_owned), DisplayErrorContext(&error).to_string()))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the table is embedded, and counting it is the point"
    )]
    async fn stored_items(&self) -> usize {
        self.faults.end();
        let scanned = self.dynamodb.scan().table_name("items").send().await.unwrap();
        scanned.items().len()
    }

    /// Puts numbered records in one call: the error code of each, in order.
    async fn put_records(&self, count: usize) -> Result<Vec<Option<String>>, (Option<String>, String)> {
        let entries = (0..count).map(|index| {
            PutRecordsRequestEntry::builder()
                .partition_key(index.to_string())
                .data(Blob::new(index.to_string()))
                .build()
                .unwrap()
        });
        let put = self
            .kinesis
            .put_records()
            .stream_name("events")
            .set_records(Some(entries.collect()));
        match put.send().await {
            Ok(answer) => {
                let codes: Vec<_> = answer.records().iter().map(|entry| entry.error_code.clone()).collect();
                let failed = codes.iter().flatten().count();
                assert_eq!(answer.failed_record_count(), Some(i32::try_from(failed).unwrap()));
                for (entry, code) in answer.records().iter().zip(&codes) {
                    assert_ne!(entry.sequence_number().is_some(), code.is_some());
                }
                Ok(codes)
            }
            Err(error) => Err((error.code().map(str::to_owned), DisplayErrorContext(&error).to_string())),
        }
    }

    async fn stored_records(&self) -> Vec<String> {
        let records = self.cloud.read_all("events").await.unwrap();
        let mut data: Vec<String> = records
            .into_iter()
            .map(|record| String::from_utf8(record.data).unwrap())
            .collect();
        data.sort_by_key(|number| number.parse::<usize>().unwrap());
        data
    }
}

#[tokio::test]
async fn a_throttled_call_of_dynamodb_takes_no_effect_and_says_so_in_each_way() {
    let run = always(FaultKind::DynamoDbThrottle, 1).await;
    let mut codes = std::collections::BTreeSet::new();
    for id in 0..32 {
        let (code, text) = run.put_item(id).await.unwrap_err();
        codes.insert(code.unwrap_or(text));
    }
    assert_eq!(
        Vec::from_iter(codes),
        [
            "InternalServerError",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "ThrottlingException"
        ]
    );
    assert_eq!(
        run.faults.injected(),
        BTreeMap::from([(FaultKind::DynamoDbThrottle, 32)])
    );
    assert_eq!(run.stored_items().await, 0);
    run.put_item(1).await.unwrap();
    run.cloud.shutdown().await;
}

#[expect(clippy::disallowed_methods, reason = "what a transaction is told is the point")]
#[tokio::test]
async fn a_write_in_a_transactions_way_is_refused_and_reads_are_not() {
    let run = always(FaultKind::DynamoDbConflict, 1).await;
    let (code, _) = run.put_item(1).await.unwrap_err();
    assert_eq!(code.as_deref(), Some("TransactionConflictException"));
    let put = |id| {
        let put = Put::builder()
            .table_name("items")
            .set_item(Some(item(id)))
            .build()
            .unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let transaction = run
        .dynamodb
        .transact_write_items()
        .transact_items(put(1))
        .transact_items(put(2));
    let error = transaction.send().await.unwrap_err().into_service_error();
    assert!(error.is_transaction_canceled_exception(), "{error:?}");
    let aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(error) =
        error
    else {
        panic!("{error:?}");
    };
    let mut codes: Vec<_> = error
        .cancellation_reasons()
        .iter()
        .map(|reason| reason.code().unwrap())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, ["None", "TransactionConflict"]);
    let read = run
        .dynamodb
        .get_item()
        .table_name("items")
        .set_key(Some(item(1)))
        .send()
        .await;
    assert!(read.unwrap().item.is_none());
    assert_eq!(run.stored_items().await, 0);
    run.cloud.shutdown().await;
}

#[tokio::test]
async fn a_partial_read_answers_some_keys_and_names_the_others() {
    let run = always(FaultKind::DynamoDbPartialRead, 1).await;
    for id in 0..10 {
        run.put_item(id).await.unwrap();
    }
    let read = |ids: Vec<AttributeValue>| {
        let keys = ids.into_iter().map(|id| HashMap::from([("id".to_owned(), id)]));
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys.collect()))
            .consistent_read(true)
            .build();
        run.dynamodb
            .batch_get_item()
            .request_items("items", keys.unwrap())
            .send()
    };
    let all: Vec<AttributeValue> = (0..10).map(|id| AttributeValue::S(id.to_string())).collect();
    let mut waiting = all.clone();
    let mut found = Vec::new();
    let mut calls = 0;
    while !waiting.is_empty() {
        calls += 1;
        let answer = read(waiting.clone()).await.unwrap();
        let items = &answer.responses.unwrap()["items"];
        found.extend(items.iter().map(|item| item["id"].clone()));
        let left = answer.unprocessed_keys.unwrap_or_default();
        let left = left
            .get("items")
            .map(|keys| (keys.consistent_read(), keys.keys().to_vec()));
        let (consistent, left) = left.unwrap_or((Some(true), Vec::new()));
        assert_eq!(consistent, Some(true), "the read that is left is as it was asked for");
        assert_eq!(items.len() + left.len(), waiting.len());
        assert!(!items.is_empty());
        waiting = left.into_iter().map(|key| key["id"].clone()).collect();
    }
    assert!(calls > 1);
    let text = |value: &AttributeValue| value.as_s().unwrap().clone();
    let mut found: Vec<String> = found.iter().map(text).collect();
    found.sort();
    assert_eq!(found, all.iter().map(text).collect::<Vec<_>>());
    run.cloud.shutdown().await;
}

#[tokio::test]
async fn a_call_of_dynamodb_whose_answer_is_lost_took_effect() {
    let run = always(FaultKind::DynamoDbLostAnswer, 1).await;
    let (mut broken, mut silent) = (0, 0);
    for id in 0..24 {
        let (code, text) = run.put_item(id).await.unwrap_err();
        assert_eq!(code, None, "{text}");
        if text.contains("timeout") {
            silent += 1;
        } else {
            broken += 1;
        }
    }
    assert!(broken > silent && silent > 0, "{broken} broken, {silent} silent");
    assert_eq!(run.stored_items().await, 24);
    run.cloud.shutdown().await;
}

#[tokio::test]
async fn a_throttled_put_stores_nothing() {
    let run = always(FaultKind::KinesisThrottle, 1).await;
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..24 {
        let (code, text) = run.put_records(3).await.unwrap_err();
        codes.insert(code.unwrap_or(text));
    }
    assert_eq!(
        Vec::from_iter(codes),
        [
            "InternalFailure",
            "KMSThrottlingException",
            "ProvisionedThroughputExceededException"
        ]
    );
    assert_eq!(run.stored_records().await, Vec::<String>::new());
    run.cloud.shutdown().await;
}

#[tokio::test]
async fn a_partial_put_stores_what_it_says_in_the_order_of_the_request() {
    let run = always(FaultKind::KinesisPartialPut, 1).await;
    let mut expected = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for count in [1, 2, 10, 500] {
        let codes = run.put_records(count).await.unwrap();
        assert_eq!(codes.len(), count);
        assert!(codes.iter().any(Option::is_some), "one fails at least");
        let stored = codes.iter().enumerate().filter(|(_, code)| code.is_none());
        expected.extend(stored.map(|(index, _)| index.to_string()));
        seen.extend(codes.into_iter().flatten());
    }
    expected.sort_by_key(|number| number.parse::<usize>().unwrap());
    assert_eq!(run.stored_records().await, expected);
    assert_eq!(
        Vec::from_iter(seen),
        ["InternalFailure", "ProvisionedThroughputExceededException"]
    );
    run.cloud.shutdown().await;
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_stored() {
    let run = always(FaultKind::KinesisLostAnswer, 1).await;
    for _ in 0..4 {
        let (code, text) = run.put_records(2).await.unwrap_err();
        assert_eq!(code, None, "{text}");
    }
    assert_eq!(run.stored_records().await.len(), 8);
    run.cloud.shutdown().await;
}
