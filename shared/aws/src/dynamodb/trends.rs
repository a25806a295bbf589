//! The `trends` table: one item for each shard and minute, written under a condition on its version (P4).

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use usher_pipeline::ports::{
    CallError, TrendItem, TrendPage, TrendPutAnswer, TrendTable, trend_bucket, trend_partition,
};

use super::item::{Item, number, text, write_units, wrong_type};
use super::profiles::units;
use super::{call_error, call_name};
use crate::sdk_error;

/// The arrangement of the attributes that this version writes and reads.
const LAYOUT: &str = "1";
/// The partition key: a minute and the bucket of its shards. The name is a reserved word, so expressions say `#minute`.
const MINUTE: &str = "minute";
/// The sort key.
const SHARD: &str = "shard";

/// The `trends` table.
#[derive(Clone, Debug)]
pub struct DynamoTrendTable {
    client: Client,
    table: String,
}

impl DynamoTrendTable {
    /// The table with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> DynamoTrendTable {
        DynamoTrendTable {
            client,
            table: name_or_arn.into(),
        }
    }
}

impl TrendTable for DynamoTrendTable {
    async fn put(&self, item: &TrendItem, expected_version: u64) -> Result<TrendPutAnswer, CallError> {
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(to_item(item)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = if expected_version == 0 {
            request
                .condition_expression("attribute_not_exists(#shard)")
                .expression_attribute_names("#shard", SHARD)
        } else {
            request
                .condition_expression("#version = :expected")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":expected", AttributeValue::N(expected_version.to_string()))
        };
        let error = match request.send().await {
            Ok(output) => {
                return Ok(TrendPutAnswer::Written {
                    write_units: units(output.consumed_capacity.as_ref()),
                });
            }
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let PutItemError::ConditionalCheckFailedException(failed) = service.err()
        {
            let Some(stored) = failed.item.clone().filter(|stored| !stored.is_empty()) else {
                return Ok(TrendPutAnswer::Conflict {
                    current: None,
                    write_units: write_units(&Item::new()),
                });
            };
            let write_units = write_units(&stored);
            return Ok(match from_item(item.minute, stored) {
                Ok(current) => TrendPutAnswer::Conflict {
                    current: Some(current),
                    write_units,
                },
                Err(why) => TrendPutAnswer::Unreadable { why },
            });
        }
        Err(call_error("PutItem", &self.table, error))
    }

    async fn page(&self, minute: i64, bucket: u32, after: Option<&str>) -> Result<TrendPage, CallError> {
        const OPERATION: &str = "Query";
        let partition = AttributeValue::S(trend_partition(minute, bucket));
        let start = after.map(|shard| {
            Item::from([
                (MINUTE.to_owned(), partition.clone()),
                (SHARD.to_owned(), AttributeValue::S(shard.to_owned())),
            ])
        });
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#minute = :minute")
            .expression_attribute_names("#minute", MINUTE)
            .expression_attribute_values(":minute", partition)
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request
            .send()
            .await
            .map_err(|error| call_error(OPERATION, &self.table, error))?;
        let mut page = TrendPage {
            read_units: units(output.consumed_capacity.as_ref()),
            ..TrendPage::default()
        };
        for item in output.items.unwrap_or_default() {
            let shard = text(&item, SHARD).map(str::to_owned).unwrap_or_default();
            match from_item(minute, item) {
                Ok(item) => page.items.push(item),
                Err(why) => page.unreadable.push((shard, why)),
            }
        }
        // The types of keys are the table's, so reading them fails only where the table is another than the template's.
        let last = output.last_evaluated_key.filter(|key| !key.is_empty());
        page.next_after = match last.as_ref().map(|key| text(key, SHARD)) {
            None => None,
            Some(Ok(shard)) => Some(shard.to_owned()),
            Some(Err(why)) => {
                let call = call_name(OPERATION, &self.table);
                return Err(sdk_error::call_error(
                    false,
                    call,
                    format!("a key can't be read: {why}"),
                ));
            }
        };
        Ok(page)
    }
}

fn to_item(tile: &TrendItem) -> Item {
    let partition = trend_partition(tile.minute, trend_bucket(&tile.shard));
    HashMap::from([
        (MINUTE.to_owned(), AttributeValue::S(partition)),
        (SHARD.to_owned(), AttributeValue::S(tile.shard.clone())),
        ("version".to_owned(), AttributeValue::N(tile.version.to_string())),
        ("tile".to_owned(), AttributeValue::B(tile.state.clone().into())),
        (
            "expires_at".to_owned(),
            AttributeValue::N(tile.expires_at_epoch_s.to_string()),
        ),
        ("layout".to_owned(), AttributeValue::N(LAYOUT.to_owned())),
    ])
}

/// The tile in an item of a minute, or what is wrong with it.
fn from_item(minute: i64, mut item: Item) -> Result<TrendItem, String> {
    let layout = number(&item, "layout")?;
    if layout != LAYOUT {
        return Err(format!(
            "its layout is {layout}, and this version of Usher reads layout {LAYOUT}: deploy the newer version"
        ));
    }
    let version = number(&item, "version")?;
    let version = version
        .parse()
        .map_err(|_| format!("its version is {version}, which is not a count of writes"))?;
    let expires_at = number(&item, "expires_at")?;
    let expires_at_epoch_s = expires_at
        .parse()
        .map_err(|_| format!("its expires_at is {expires_at}, which is no time in seconds"))?;
    let shard = text(&item, SHARD)?.to_owned();
    match item.remove("tile") {
        Some(AttributeValue::B(state)) => Ok(TrendItem {
            minute,
            shard,
            version,
            state: state.into_inner(),
            expires_at_epoch_s,
        }),
        other => Err(wrong_type("tile", other.as_ref(), "binary (B)")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clients::Clients;
    use crate::test_server::{Reply, TestServer};

    /// 2026-01-05T10:00.
    const MINUTE_NUMBER: i64 = 29_460_120;
    const SHARD_NAME: &str = "interactions/shardId-000000000003";

    async fn table_that_answers(status: u16, body: Value) -> (DynamoTrendTable, TestServer) {
        let server = TestServer::start(move |_| Reply::json(status, body.to_string())).await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        (DynamoTrendTable::new(client, "trends"), server)
    }

    fn asked(server: &TestServer) -> Value {
        serde_json::from_slice(&server.last_request().body).expect("the SDK sends JSON")
    }

    fn stored(version: u64) -> Value {
        json!({
            "minute": { "S": format!("2026-01-05T10:00#{:02}", trend_bucket(SHARD_NAME)) }, "shard": { "S": SHARD_NAME },
            "version": { "N": version.to_string() }, "tile": { "B": "AP8=" }, "expires_at": { "N": "1767614400" },
            "layout": { "N": "1" },
        })
    }

    fn tile(version: u64) -> TrendItem {
        TrendItem {
            minute: MINUTE_NUMBER,
            shard: SHARD_NAME.to_owned(),
            version,
            state: vec![0, 255],
            expires_at_epoch_s: 1_767_614_400,
        }
    }

    #[tokio::test]
    async fn a_write_is_conditional_on_the_version_that_is_known() {
        let consumed = json!({ "ConsumedCapacity": { "TableName": "trends", "CapacityUnits": 2.0 } });
        let (table, server) = table_that_answers(200, consumed).await;
        for (expected_version, condition) in [(0, "attribute_not_exists(#shard)"), (7, "#version = :expected")] {
            let answer = table.put(&tile(8), expected_version).await.expect("it answered");
            assert_eq!(answer, TrendPutAnswer::Written { write_units: 2.0 });
            let request = asked(&server);
            assert_eq!(request["ConditionExpression"], condition);
            assert_eq!(request["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
            assert_eq!(request["Item"], stored(8));
        }
    }

    #[tokio::test]
    async fn a_conflict_gives_the_stored_tile_without_another_read() {
        let failed = |item: Value| {
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed", "Item": item,
            })
        };
        let mut odd = stored(9);
        odd["layout"] = json!({ "N": "2" });
        for (item, expected) in [
            (
                stored(9),
                TrendPutAnswer::Conflict {
                    current: Some(tile(9)),
                    write_units: 1.0,
                },
            ),
            (
                Value::Null,
                TrendPutAnswer::Conflict {
                    current: None,
                    write_units: 1.0,
                },
            ),
            (
                odd,
                TrendPutAnswer::Unreadable {
                    why: "its layout is 2, and this version of Usher reads layout 1: deploy the newer version"
                        .to_owned(),
                },
            ),
        ] {
            let (table, server) = table_that_answers(400, failed(item)).await;
            let answer = table.put(&tile(8), 7).await.expect("a conflict is an answer");
            assert_eq!(answer, expected);
            assert_eq!(server.requests(), 1, "no retry and no read");
        }
    }

    #[tokio::test]
    async fn a_page_is_asked_for_by_minute_and_bucket_and_goes_on_where_the_last_ended() {
        let mut odd = stored(1);
        odd["tile"] = json!({ "S": "x" });
        let bucket = trend_bucket(SHARD_NAME);
        let key = json!({ "minute": stored(1)["minute"], "shard": { "S": SHARD_NAME } });
        let answer =
            json!({ "Items": [stored(3), odd], "LastEvaluatedKey": key, "ConsumedCapacity": { "CapacityUnits": 1.5 } });
        let (table, server) = table_that_answers(200, answer).await;
        let page = table
            .page(MINUTE_NUMBER, bucket, Some("interactions/a"))
            .await
            .expect("it answered");
        assert_eq!(page.items, [tile(3)]);
        let why = "its attribute tile is of type S, and must be binary (B)";
        assert_eq!(page.unreadable, [(SHARD_NAME.to_owned(), why.to_owned())]);
        assert_eq!((page.next_after.as_deref(), page.read_units), (Some(SHARD_NAME), 1.5));
        let request = asked(&server);
        assert_eq!(request["KeyConditionExpression"], "#minute = :minute");
        assert_eq!(request["ExpressionAttributeValues"][":minute"], stored(1)["minute"]);
        assert_eq!(request["ExclusiveStartKey"]["shard"], json!({ "S": "interactions/a" }));
        assert_eq!(
            request["ConsistentRead"],
            Value::Null,
            "half the price, and a moment behind"
        );

        let (table, _server) = table_that_answers(200, json!({ "Items": [] })).await;
        let page = table.page(MINUTE_NUMBER, 0, None).await.expect("it answered");
        assert_eq!(page, TrendPage::default());
    }

    #[tokio::test]
    async fn a_failed_call_says_whether_to_try_again() {
        for (code, is_worth_a_try) in [
            ("ProvisionedThroughputExceededException", true),
            ("ValidationException", false),
        ] {
            let (table, server) = table_that_answers(400, json!({ "__type": code, "message": "no" })).await;
            for error in [
                table.put(&tile(1), 0).await.expect_err(code),
                table.page(MINUTE_NUMBER, 0, None).await.expect_err(code),
            ] {
                assert_eq!(matches!(error, CallError::Retry { .. }), is_worth_a_try, "{error:?}");
            }
            assert_eq!(server.requests(), 2, "one attempt each");
        }
    }
}
