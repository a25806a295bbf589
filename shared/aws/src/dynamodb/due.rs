//! The sparse index of the `profiles` table over those who are to be woken: partition key `due_shard`, sort key
//! `next_due_at`. An item is in it only while it has both, so it holds no user whose profile waits for nothing.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use usher_domain::time::Timestamp;
use usher_pipeline::ports::{CallError, DUE_PAGE_USERS_MAX, DueIndex, DuePage, DueUser};

use super::item::{DUE_SHARD, Item, NEXT_DUE_AT, epoch_ms, text};
use super::profiles::units;
use super::{call_error, call_name};
use crate::sdk_error;

/// The index's name in template.yaml.
pub const DUE_INDEX: &str = "due";

/// The index of due users.
#[derive(Clone, Debug)]
pub struct DynamoDueIndex {
    client: Client,
    table: String,
}

impl DynamoDueIndex {
    /// The index of the `profiles` table with this name or ARN.
    pub fn new(client: Client, table_name_or_arn: impl Into<String>) -> DynamoDueIndex {
        DynamoDueIndex {
            client,
            table: table_name_or_arn.into(),
        }
    }
}

impl DueIndex for DynamoDueIndex {
    async fn page(&self, due_shard: &str, until: Timestamp, after: Option<&DueUser>) -> Result<DuePage, CallError> {
        const OPERATION: &str = "Query";
        let shard = AttributeValue::S(due_shard.to_owned());
        let start = after.map(|user| {
            Item::from([
                ("user_id".to_owned(), AttributeValue::S(user.user_id.clone())),
                (DUE_SHARD.to_owned(), shard.clone()),
                (NEXT_DUE_AT.to_owned(), time(user.due_at)),
            ])
        });
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(DUE_INDEX)
            .key_condition_expression("#due_shard = :due_shard AND #next_due_at <= :until")
            .expression_attribute_names("#due_shard", DUE_SHARD)
            .expression_attribute_names("#next_due_at", NEXT_DUE_AT)
            .expression_attribute_values(":due_shard", shard)
            .expression_attribute_values(":until", time(until))
            .scan_index_forward(true)
            .limit(i32::try_from(DUE_PAGE_USERS_MAX).unwrap_or(i32::MAX))
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request
            .send()
            .await
            .map_err(|error| call_error(OPERATION, &self.table, error))?;
        let unreadable = |why: String| {
            let call = call_name(OPERATION, &self.table);
            sdk_error::call_error(false, call, format!("an entry of the index can't be read: {why}"))
        };
        let items = output.items.unwrap_or_default();
        let users = items
            .iter()
            .map(due_user)
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let last = output.last_evaluated_key.filter(|key| !key.is_empty());
        Ok(DuePage {
            users,
            next_after: last.as_ref().map(due_user).transpose().map_err(unreadable)?,
            read_units: units(output.consumed_capacity.as_ref()),
        })
    }
}

fn time(at: Timestamp) -> AttributeValue {
    AttributeValue::N(at.epoch_ms().to_string())
}

/// The types of keys are the table's, so reading them fails only where the index is another than the template's.
fn due_user(item: &Item) -> Result<DueUser, String> {
    Ok(DueUser {
        user_id: text(item, "user_id")?.to_owned(),
        due_at: epoch_ms(item, NEXT_DUE_AT)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clients::Clients;
    use crate::test_server::{Reply, TestServer};

    const DUE_MS: i64 = 1_767_607_200_123;

    async fn index_that_answers(status: u16, answer: Value) -> (DynamoDueIndex, TestServer) {
        let server = TestServer::start(move |_| Reply::json(status, answer.to_string())).await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        (DynamoDueIndex::new(client, "profiles"), server)
    }

    fn entry(user: &str) -> Value {
        json!({ "user_id": { "S": user }, "due_shard": { "S": "07" }, "next_due_at": { "N": DUE_MS.to_string() } })
    }

    fn due(user: &str) -> DueUser {
        DueUser {
            user_id: user.to_owned(),
            due_at: Timestamp::from_epoch_ms(DUE_MS),
        }
    }

    #[tokio::test]
    async fn a_page_is_asked_for_by_partition_and_time_and_goes_on_where_the_last_ended() {
        let answer = json!({ "Items": [entry("a"), entry("b")], "LastEvaluatedKey": entry("b"),
            "ConsumedCapacity": { "CapacityUnits": 0.5 } });
        let (index, server) = index_that_answers(200, answer).await;
        let page = index
            .page("07", Timestamp::from_epoch_ms(DUE_MS + 1), Some(&due("earlier")))
            .await
            .expect("it answered");
        assert_eq!(page.users, [due("a"), due("b")]);
        assert_eq!((page.next_after, page.read_units), (Some(due("b")), 0.5));
        let asked: Value = serde_json::from_slice(&server.last_request().body).expect("JSON");
        assert_eq!(
            (&asked["TableName"], &asked["IndexName"]),
            (&json!("profiles"), &json!("due"))
        );
        assert_eq!(
            (&asked["Limit"], &asked["ScanIndexForward"]),
            (&json!(1000), &json!(true))
        );
        assert_eq!(asked["ExclusiveStartKey"], entry("earlier"));
        assert_eq!(
            asked["ExpressionAttributeValues"][":until"],
            json!({ "N": "1767607200124" })
        );
        assert_eq!(
            asked["ConsistentRead"],
            Value::Null,
            "an index is eventually consistent"
        );
    }

    #[tokio::test]
    async fn the_last_page_says_so_and_a_failed_call_is_sorted() {
        let (index, _server) = index_that_answers(200, json!({ "Items": [] })).await;
        let page = index.page("00", Timestamp::MAX, None).await.expect("it answered");
        assert_eq!((page.users, page.next_after), (vec![], None));

        for (status, code, is_worth_a_try) in [
            (400, "ProvisionedThroughputExceededException", true),
            (500, "InternalServerError", true),
            (400, "ValidationException", false), // there is no such index
        ] {
            let (index, server) = index_that_answers(status, json!({ "__type": code })).await;
            let error = index.page("00", Timestamp::MAX, None).await.expect_err(code);
            assert_eq!(matches!(error, CallError::Retry { .. }), is_worth_a_try, "{code}");
            assert!(error.to_string().starts_with("dynamodb:Query on profiles"), "{error}");
            assert_eq!(server.requests(), 1, "one attempt");
        }
        let odd = json!({ "Items": [{ "user_id": { "S": "a" }, "next_due_at": { "S": "noon" } }] });
        let (index, _server) = index_that_answers(200, odd).await;
        let error = index.page("00", Timestamp::MAX, None).await.expect_err("not our index");
        assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
    }
}
