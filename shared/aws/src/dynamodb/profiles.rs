//! The `profiles` table: one item a user, written under a condition on its version (P4).

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConsumedCapacity, KeysAndAttributes, Put, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use usher_domain::time::Timestamp;
use usher_pipeline::ports::{
    CallError, GetAnswer, MergeAnswer, MergeSide, MergeWrite, ParkAnswer, ParkTarget, ProfileItem, ProfileTable,
    PutAnswer,
};

use super::item::{DUE_SHARD, Item, NEXT_DUE_AT, PARKED_SINCE, profile_from_item, profile_to_item, text, write_units};
use super::{call_error, call_name, is_transient_code};
use crate::sdk_error;

/// The `profiles` table.
#[derive(Clone, Debug)]
pub struct DynamoProfileTable {
    client: Client,
    table: String,
}

/// A stored item that is not a profile that this version can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableProfile {
    /// Whose it is.
    pub user_id: String,
    /// What is wrong with it.
    pub why: String,
}

/// One page of a table: up to 1 MB of items, in no order.
#[derive(Debug, Default)]
pub struct ProfilePage {
    /// The profiles.
    pub items: Vec<ProfileItem>,
    /// Items that can't be read.
    pub unreadable: Vec<UnreadableProfile>,
    /// Read capacity units that it took.
    pub read_units: f64,
}

/// Where a walk through the whole table is. See [`DynamoProfileTable::scan_pages`].
#[derive(Debug)]
pub struct ProfilePages<'t> {
    table: &'t DynamoProfileTable,
    position: Position,
}

#[derive(Debug)]
enum Position {
    AtStart,
    After(Item),
    AtEnd,
}

impl DynamoProfileTable {
    /// The table with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> DynamoProfileTable {
        DynamoProfileTable {
            client,
            table: name_or_arn.into(),
        }
    }

    /// Reads one user's profile, strongly consistent; none if there is none. For an operator's command: the flows read
    /// with [`ProfileTable::get`].
    ///
    /// # Errors
    /// The call failed. An item that is there and can't be read is the inner error.
    pub async fn get_one(&self, user_id: &str) -> Result<Option<Result<ProfileItem, UnreadableProfile>>, CallError> {
        let request = self
            .client
            .get_item()
            .table_name(&self.table)
            .consistent_read(true)
            .key("user_id", key(user_id));
        let output = request
            .send()
            .await
            .map_err(|error| call_error("GetItem", &self.table, error))?;
        Ok(output.item.map(readable))
    }

    /// Walks through the whole table, a page at a time, for an operator's command. It pays for every item.
    ///
    /// ```no_run
    /// # async fn example(table: usher_aws::dynamodb::DynamoProfileTable) -> Result<(), usher_pipeline::ports::CallError> {
    /// let mut pages = table.scan_pages();
    /// while let Some(page) = pages.next_page().await? {
    ///     for profile in page.items {
    ///         println!("{} {}", profile.user_id, profile.version);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn scan_pages(&self) -> ProfilePages<'_> {
        ProfilePages {
            table: self,
            position: Position::AtStart,
        }
    }
}

impl ProfilePages<'_> {
    /// The next page; none after the last one. A page may be empty. After an error, calling it again asks for the same
    /// page.
    ///
    /// # Errors
    /// The call failed.
    #[expect(
        clippy::disallowed_methods,
        reason = "an operator asked for the whole table, and gets it in pages"
    )]
    pub async fn next_page(&mut self) -> Result<Option<ProfilePage>, CallError> {
        let start = match &self.position {
            Position::AtStart => None,
            Position::After(key) => Some(key.clone()),
            Position::AtEnd => return Ok(None),
        };
        let table = &self.table.table;
        let request = self
            .table
            .client
            .scan()
            .table_name(table)
            .consistent_read(true)
            .set_exclusive_start_key(start);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request.send().await.map_err(|error| call_error("Scan", table, error))?;
        self.position = match output.last_evaluated_key {
            Some(key) if !key.is_empty() => Position::After(key),
            _ => Position::AtEnd,
        };
        let mut page = ProfilePage {
            read_units: units(output.consumed_capacity.as_ref()),
            ..ProfilePage::default()
        };
        for item in output.items.unwrap_or_default() {
            match readable(item) {
                Ok(profile) => page.items.push(profile),
                Err(unreadable) => page.unreadable.push(unreadable),
            }
        }
        Ok(Some(page))
    }
}

impl ProfileTable for DynamoProfileTable {
    async fn get(&self, users: &[&str]) -> Result<GetAnswer, CallError> {
        const OPERATION: &str = "BatchGetItem";
        if users.is_empty() {
            return Ok(GetAnswer::default());
        }
        let keys = users
            .iter()
            .map(|user| Item::from([("user_id".to_owned(), key(user))]))
            .collect();
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys))
            .consistent_read(true)
            .build()
            .map_err(|error| sdk_error::call_error(false, call_name(OPERATION, &self.table), error))?;
        let request = self.client.batch_get_item().request_items(&self.table, keys);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request
            .send()
            .await
            .map_err(|error| call_error(OPERATION, &self.table, error))?;

        let mut answer = GetAnswer::default();
        // One table was asked, so whatever the answer calls it (name or ARN), it is this one.
        for item in output.responses.unwrap_or_default().into_values().flatten() {
            match readable(item) {
                Ok(profile) => answer.items.push(profile),
                Err(UnreadableProfile { user_id, why }) => answer.unreadable.push((user_id, why)),
            }
        }
        for key in output
            .unprocessed_keys
            .unwrap_or_default()
            .into_values()
            .flat_map(|keys| keys.keys)
        {
            answer.unprocessed.push(user_of(&key));
        }
        answer.read_units = output
            .consumed_capacity
            .unwrap_or_default()
            .iter()
            .map(|used| units(Some(used)))
            .sum();
        Ok(answer)
    }

    async fn put(&self, profile: &ProfileItem, expected_version: u64) -> Result<PutAnswer, CallError> {
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(profile_to_item(profile)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = if expected_version == 0 {
            request.condition_expression("attribute_not_exists(user_id)")
        } else {
            request
                .condition_expression("#version = :expected")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":expected", AttributeValue::N(expected_version.to_string()))
        };
        let error = match request.send().await {
            Ok(output) => {
                return Ok(PutAnswer::Written {
                    write_units: units(output.consumed_capacity.as_ref()),
                });
            }
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let PutItemError::ConditionalCheckFailedException(failed) = service.err()
        {
            return Ok(match stored(failed.item.clone()) {
                Stored::Profile(current, write_units) => PutAnswer::Conflict { current, write_units },
                Stored::Unreadable(why) => PutAnswer::Unreadable { why },
            });
        }
        Err(call_error("PutItem", &self.table, error))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "two users become one, once: the only time that two items have to change together"
    )]
    async fn merge(&self, merge: &MergeWrite) -> Result<MergeAnswer, CallError> {
        const OPERATION: &str = "TransactWriteItems";
        let sides = [
            self.conditional_put(&merge.into, merge.into_expected),
            self.conditional_put(&merge.from, merge.from_expected),
        ];
        let mut request = self
            .client
            .transact_write_items()
            .client_request_token(format!("{:032x}", merge.token))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for put in sides {
            let put = put.map_err(|error| sdk_error::call_error(false, call_name(OPERATION, &self.table), error))?;
            request = request.transact_items(TransactWriteItem::builder().put(put).build());
        }
        let error = match request.send().await {
            Ok(output) => {
                return Ok(MergeAnswer::Written {
                    write_units: output
                        .consumed_capacity
                        .unwrap_or_default()
                        .iter()
                        .map(|used| units(Some(used)))
                        .sum(),
                });
            }
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let TransactWriteItemsError::TransactionCanceledException(cancelled) = service.err()
        {
            let reasons = cancelled.cancellation_reasons();
            if let Some(answer) = conflict_of(reasons) {
                return Ok(answer);
            }
            let may_pass = reasons
                .iter()
                .filter_map(CancellationReason::code)
                .any(is_transient_cancellation);
            return Err(sdk_error::call_error(
                may_pass,
                call_name(OPERATION, &self.table),
                error,
            ));
        }
        Err(call_error(OPERATION, &self.table, error))
    }

    async fn park(&self, user_id: &str, target: ParkTarget, since: Timestamp) -> Result<ParkAnswer, CallError> {
        match target {
            ParkTarget::Version(expected) => {
                let update = self
                    .update_to_park(user_id, since)
                    .update_expression(MARK_AND_COUNT)
                    .condition_expression("#version = :expected")
                    .expression_attribute_values(":one", one())
                    .expression_attribute_values(":expected", AttributeValue::N(expected.to_string()));
                self.park_if(update).await
            }
            ParkTarget::Unreadable => {
                // A version that is a number is counted on: whoever can read the item, such as a newer version of Usher,
                // may have it in memory.
                let update = self
                    .update_to_park(user_id, since)
                    .update_expression(MARK_AND_COUNT)
                    .condition_expression("attribute_type(#version, :number)")
                    .expression_attribute_values(":one", one())
                    .expression_attribute_values(":number", AttributeValue::S("N".to_owned()));
                match self.park_if(update).await? {
                    ParkAnswer::Unreadable { .. } => {}
                    parked_or_gone => return Ok(parked_or_gone),
                }
                let update = self
                    .update_to_park(user_id, since)
                    .update_expression(MARK)
                    .condition_expression("attribute_exists(user_id) AND NOT attribute_type(#version, :number)")
                    .expression_attribute_values(":number", AttributeValue::S("N".to_owned()));
                self.park_if(update).await
            }
        }
    }
}

/// The code of an item of a cancelled transaction that had nothing to do with it.
const NO_REASON: &str = "None";
/// The code of an item whose condition failed.
pub(super) const CONDITION_FAILED: &str = "ConditionalCheckFailed";
/// The reason of a cancelled transaction that met another one on an item.
pub(super) const TRANSACTION_CONFLICT: &str = "TransactionConflict";
/// Each write of a transaction takes so many times what it takes alone.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html>
const TRANSACTION_UNITS: f64 = 2.0;

/// What a cancelled transaction says of its two items, if one of their conditions failed. Reasons come in the order of the
/// items, and an item comes with its own failed condition only.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn conflict_of(reasons: &[CancellationReason]) -> Option<MergeAnswer> {
    let [into, from] = reasons else { return None };
    let mut write_units = 0.0;
    let mut side = |reason: &CancellationReason| match reason.code() {
        Some(CONDITION_FAILED) => match stored(reason.item().cloned()) {
            Stored::Profile(current, units) => {
                write_units += TRANSACTION_UNITS * units;
                MergeSide::Changed(current.map(Box::new))
            }
            Stored::Unreadable(why) => MergeSide::Unreadable { why },
        },
        _ => MergeSide::AsExpected,
    };
    let (into, from) = (side(into), side(from));
    if (&into, &from) == (&MergeSide::AsExpected, &MergeSide::AsExpected) {
        return None;
    }
    Some(MergeAnswer::Conflict {
        into,
        from,
        write_units,
    })
}

/// Whether a transaction that was cancelled for this reason may go through the next time.
pub(super) fn is_transient_cancellation(code: &str) -> bool {
    const CODES: [&str; 3] = [TRANSACTION_CONFLICT, "ProvisionedThroughputExceeded", "ThrottlingError"];
    code != NO_REASON && (CODES.contains(&code) || is_transient_code(code))
}

/// Marks an item as parked, and takes it out of the index of those who are to be woken: a wake-up would only be parked.
const MARK: &str = "SET #parked_since = if_not_exists(#parked_since, :since) REMOVE #due_shard, #next_due_at";
/// The same, and counts the write.
const MARK_AND_COUNT: &str =
    "SET #parked_since = if_not_exists(#parked_since, :since) REMOVE #due_shard, #next_due_at ADD #version :one";

fn one() -> AttributeValue {
    AttributeValue::N("1".to_owned())
}

impl DynamoProfileTable {
    /// A write of a transaction, under the condition of [`ProfileTable::put`].
    fn conditional_put(
        &self,
        profile: &ProfileItem,
        expected_version: u64,
    ) -> Result<Put, aws_sdk_dynamodb::error::BuildError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(profile_to_item(profile)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = if expected_version == 0 {
            put.condition_expression("attribute_not_exists(user_id)")
        } else {
            put.condition_expression("#version = :expected")
                .expression_attribute_names("#version", "version")
                .expression_attribute_values(":expected", AttributeValue::N(expected_version.to_string()))
        };
        put.build()
    }

    fn update_to_park(&self, user_id: &str, since: Timestamp) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("user_id", key(user_id))
            .expression_attribute_names("#parked_since", PARKED_SINCE)
            .expression_attribute_names("#due_shard", DUE_SHARD)
            .expression_attribute_names("#next_due_at", NEXT_DUE_AT)
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":since", AttributeValue::S(since.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    async fn park_if(&self, update: UpdateItemFluentBuilder) -> Result<ParkAnswer, CallError> {
        let error = match update.send().await {
            Ok(output) => {
                return Ok(ParkAnswer::Parked {
                    write_units: units(output.consumed_capacity.as_ref()),
                });
            }
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let UpdateItemError::ConditionalCheckFailedException(failed) = service.err()
        {
            return Ok(match stored(failed.item.clone()) {
                Stored::Profile(current, write_units) => ParkAnswer::Conflict { current, write_units },
                Stored::Unreadable(why) => ParkAnswer::Unreadable { why },
            });
        }
        Err(call_error("UpdateItem", &self.table, error))
    }
}

/// What a failed condition says is stored.
enum Stored {
    /// A profile, where there is one, and the write units that the failed condition took.
    Profile(Option<ProfileItem>, f64),
    Unreadable(String),
}

fn stored(item: Option<Item>) -> Stored {
    let Some(item) = item.filter(|item| !item.is_empty()) else {
        // The condition was on an item that is gone: DynamoDB bills one unit for it.
        return Stored::Profile(None, 1.0);
    };
    let write_units = write_units(&item);
    match profile_from_item(item) {
        Ok(current) => Stored::Profile(Some(current), write_units),
        Err(why) => Stored::Unreadable(why),
    }
}

fn key(user_id: &str) -> AttributeValue {
    AttributeValue::S(user_id.to_owned())
}

fn user_of(item: &Item) -> String {
    // It is the table's key, so every item has it.
    text(item, "user_id").unwrap_or_default().to_owned()
}

fn readable(item: Item) -> Result<ProfileItem, UnreadableProfile> {
    let user_id = user_of(&item);
    profile_from_item(item).map_err(|why| UnreadableProfile { user_id, why })
}

pub(super) fn units(consumed: Option<&ConsumedCapacity>) -> f64 {
    consumed.and_then(|consumed| consumed.capacity_units).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use usher_domain::time::Timestamp;

    use super::*;
    use crate::clients::Clients;
    use crate::test_server::{Reply, TestServer};

    async fn table_that_answers(status: u16, body: Value) -> (DynamoProfileTable, TestServer) {
        let server = TestServer::start(move |_| Reply::json(status, body.to_string())).await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        (DynamoProfileTable::new(client, "profiles"), server)
    }

    fn asked(server: &TestServer) -> Value {
        serde_json::from_slice(&server.last_request().body).expect("the SDK sends JSON")
    }

    fn stored(user_id: &str, version: u64) -> Value {
        json!({
            "user_id": { "S": user_id }, "version": { "N": version.to_string() }, "state": { "B": "AP8=" },
            "updated_at": { "S": "2026-01-05T10:00:00.000Z" }, "layout": { "N": "1" },
        })
    }

    fn profile(user_id: &str, version: u64) -> ProfileItem {
        let updated_at = Timestamp::from_epoch_ms(1_767_607_200_000);
        ProfileItem {
            user_id: user_id.to_owned(),
            version,
            state: vec![0, 255],
            updated_at,
            parked_since: None,
            next_due_at: None,
            merged_into: None,
        }
    }

    #[tokio::test]
    async fn a_read_gives_what_is_there_what_is_unreadable_and_what_is_left_over() {
        let (table, server) = table_that_answers(
            200,
            json!({
                "Responses": { "profiles": [stored("a", 3), { "user_id": { "S": "b" } }] },
                "UnprocessedKeys": { "profiles": { "Keys": [{ "user_id": { "S": "c" } }] } },
                "ConsumedCapacity": [{ "TableName": "profiles", "CapacityUnits": 1.5 }],
            }),
        )
        .await;
        let answer = table.get(&["a", "b", "c", "d"]).await.expect("it answered");
        assert_eq!(answer.items, [profile("a", 3)]);
        let why = "it has no attribute layout, which must be a number (N)";
        assert_eq!(answer.unreadable, [("b".to_owned(), why.to_owned())]);
        assert_eq!(answer.unprocessed, ["c"]);
        assert_eq!(answer.read_units, 1.5);
        let request = &asked(&server)["RequestItems"]["profiles"];
        assert_eq!(request["ConsistentRead"], true);
        assert_eq!(request["Keys"][3], json!({ "user_id": { "S": "d" } }));

        assert!(table.get(&[]).await.expect("nothing to ask").items.is_empty());
        assert_eq!(server.requests(), 1);
    }

    #[tokio::test]
    async fn a_write_is_conditional_on_the_version_that_was_read() {
        let (table, server) = table_that_answers(
            200,
            json!({ "ConsumedCapacity": { "TableName": "profiles", "CapacityUnits": 2.0 } }),
        )
        .await;
        for (expected_version, condition) in [(0, "attribute_not_exists(user_id)"), (7, "#version = :expected")] {
            let answer = table
                .put(&profile("a", 8), expected_version)
                .await
                .expect("it answered");
            assert!(matches!(answer, PutAnswer::Written { write_units: 2.0 }), "{answer:?}");
            let request = asked(&server);
            assert_eq!(request["ConditionExpression"], condition);
            assert_eq!(request["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
            assert_eq!(request["ReturnConsumedCapacity"], "TOTAL");
            assert_eq!(request["Item"], stored("a", 8));
        }
        assert_eq!(
            asked(&server)["ExpressionAttributeValues"],
            json!({ ":expected": { "N": "7" } })
        );
    }

    #[tokio::test]
    async fn a_conflict_gives_the_stored_item_without_another_read() {
        let failed = |item: Value| {
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed", "Item": item,
            })
        };
        let (table, server) = table_that_answers(400, failed(stored("a", 9))).await;
        match table.put(&profile("a", 8), 7).await.expect("a conflict is an answer") {
            PutAnswer::Conflict { current, write_units } => {
                assert_eq!((current, write_units), (Some(profile("a", 9)), 1.0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(server.requests(), 1, "no retry and no read");

        let (table, _server) = table_that_answers(400, failed(Value::Null)).await;
        let answer = table.put(&profile("a", 8), 7).await.expect("a conflict is an answer");
        assert!(
            matches!(answer, PutAnswer::Conflict { current: None, .. }),
            "{answer:?}"
        );

        let (table, _server) = table_that_answers(400, failed(json!({ "user_id": { "S": "a" } }))).await;
        let answer = table.put(&profile("a", 8), 7).await.expect("a conflict is an answer");
        assert!(
            matches!(&answer, PutAnswer::Unreadable { why } if why.contains("layout")),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn a_failed_write_says_whether_to_try_again() {
        for (code, is_refused) in [
            (
                "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
                false,
            ),
            ("com.amazon.coral.validate#ValidationException", true),
        ] {
            let (table, server) = table_that_answers(400, json!({ "__type": code, "message": "no" })).await;
            let error = table.put(&profile("a", 1), 0).await.expect_err(code);
            assert_eq!(matches!(error, CallError::Refused { .. }), is_refused, "{error:?}");
            assert!(error.to_string().starts_with("dynamodb:PutItem on profiles"), "{error}");
            assert_eq!(server.requests(), 1, "one attempt");
        }
    }

    #[tokio::test]
    async fn parking_is_one_update_on_the_version_that_was_read() {
        let (table, server) = table_that_answers(
            200,
            json!({ "ConsumedCapacity": { "TableName": "profiles", "CapacityUnits": 2.0 } }),
        )
        .await;
        let since = Timestamp::from_epoch_ms(1_767_607_200_456);
        for (target, condition) in [
            (ParkTarget::Version(7), "#version = :expected"),
            (ParkTarget::Unreadable, "attribute_type(#version, :number)"),
        ] {
            let answer = table.park("a", target, since).await.expect("it answered");
            assert!(matches!(answer, ParkAnswer::Parked { write_units: 2.0 }), "{answer:?}");
            let request = asked(&server);
            assert_eq!(request["Key"], json!({ "user_id": { "S": "a" } }));
            assert_eq!(request["ConditionExpression"], condition);
            assert_eq!(
                request["UpdateExpression"],
                "SET #parked_since = if_not_exists(#parked_since, :since) REMOVE #due_shard, #next_due_at ADD #version :one"
            );
            assert_eq!(request["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
            assert_eq!(
                request["ExpressionAttributeValues"][":since"],
                json!({ "S": "2026-01-05T10:00:00.456Z" })
            );
        }
        assert_eq!(server.requests(), 2);
    }

    #[tokio::test]
    async fn an_unreadable_item_without_a_version_is_marked_all_the_same() {
        let server = TestServer::start(|request| {
            let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
            if asked["ConditionExpression"] == "attribute_type(#version, :number)" {
                let failed = json!({
                    "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                    "message": "The conditional request failed", "Item": { "user_id": { "S": "a" } },
                });
                return Reply::json(400, failed.to_string());
            }
            assert!(
                !asked["UpdateExpression"].to_string().contains("ADD"),
                "no sum with what is no number"
            );
            Reply::json(200, json!({}).to_string())
        })
        .await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        let table = DynamoProfileTable::new(client, "profiles");
        let answer = table.park("a", ParkTarget::Unreadable, Timestamp::default()).await;
        assert!(matches!(answer, Ok(ParkAnswer::Parked { .. })), "{answer:?}");
        assert_eq!(server.requests(), 2);
    }

    #[tokio::test]
    async fn a_scan_goes_on_until_the_last_page() {
        let pages = [
            json!({ "Items": [stored("a", 1)], "LastEvaluatedKey": { "user_id": { "S": "a" } },
                    "ConsumedCapacity": { "CapacityUnits": 0.5 } }),
            json!({ "Items": [{ "user_id": { "S": "b" } }], "LastEvaluatedKey": { "user_id": { "S": "b" } } }),
            json!({ "Items": [stored("c", 2)] }),
        ];
        let server = TestServer::start(move |request| {
            let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
            let page = match asked["ExclusiveStartKey"]["user_id"]["S"].as_str() {
                None => 0,
                Some("a") => 1,
                _ => 2,
            };
            Reply::json(200, pages[page].to_string())
        })
        .await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        let table = DynamoProfileTable::new(client, "profiles");
        let mut pages = table.scan_pages();
        let mut read = Vec::new();
        let mut unreadable = Vec::new();
        while let Some(page) = pages.next_page().await.expect("it answered") {
            read.extend(page.items.into_iter().map(|profile| profile.user_id));
            unreadable.extend(page.unreadable.into_iter().map(|profile| profile.user_id));
        }
        assert_eq!(
            (read, unreadable),
            (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()])
        );
        assert!(pages.next_page().await.expect("nothing to ask").is_none());
        assert_eq!(server.requests(), 3);
    }

    #[tokio::test]
    async fn one_user_is_there_or_not_or_unreadable() {
        for (answer, expected) in [
            (json!({}), None),
            (json!({ "Item": stored("a", 1) }), Some(true)),
            (json!({ "Item": { "user_id": { "S": "a" } } }), Some(false)),
        ] {
            let (table, server) = table_that_answers(200, answer).await;
            let found = table.get_one("a").await.expect("it answered");
            assert_eq!(found.map(|found| found.is_ok()), expected);
            assert_eq!(asked(&server)["ConsistentRead"], true);
        }
    }

    /// The shape of the answer: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
    /// (`TransactionCanceledException`): a reason for each item in its order, and `ALL_OLD` items with failed conditions.
    #[tokio::test]
    async fn a_cancelled_merge_tells_what_is_stored_of_either_side() {
        let merge = MergeWrite {
            into: profile("a", 4),
            into_expected: 3,
            from: ProfileItem {
                merged_into: Some("a".to_owned()),
                state: Vec::new(),
                ..profile("b", 1)
            },
            from_expected: 0,
            token: 7,
        };
        let failed = |item: Value| json!({ "Code": "ConditionalCheckFailed", "Message": "it failed", "Item": item });
        let none = || json!({ "Code": "None" });
        let changed = |user: &str, version: u64| MergeSide::Changed(Some(Box::new(profile(user, version))));
        let unreadable = MergeSide::Unreadable {
            why: "it has no attribute layout, which must be a number (N)".to_owned(),
        };
        let gone = json!({ "Code": "ConditionalCheckFailed", "Message": "it failed" });
        for (reasons, expected) in [
            (
                [failed(stored("a", 9)), none()],
                Ok((changed("a", 9), MergeSide::AsExpected)),
            ),
            (
                [none(), failed(stored("b", 2))],
                Ok((MergeSide::AsExpected, changed("b", 2))),
            ),
            (
                [failed(stored("a", 9)), failed(stored("b", 2))],
                Ok((changed("a", 9), changed("b", 2))),
            ),
            ([gone, none()], Ok((MergeSide::Changed(None), MergeSide::AsExpected))),
            (
                [none(), failed(json!({ "user_id": { "S": "b" } }))],
                Ok((MergeSide::AsExpected, unreadable)),
            ),
            ([json!({ "Code": "TransactionConflict" }), none()], Err(true)),
            ([none(), json!({ "Code": "ThrottlingError" })], Err(true)),
            ([none(), json!({ "Code": "ProvisionedThroughputExceeded" })], Err(true)),
            ([json!({ "Code": "ValidationError" }), none()], Err(false)),
            (
                [json!({ "Code": "ItemCollectionSizeLimitExceeded" }), none()],
                Err(false),
            ),
        ] {
            let what = format!("{reasons:?}");
            let body = json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
                "CancellationReasons": reasons,
            });
            let (table, server) = table_that_answers(400, body).await;
            match (table.merge(&merge).await, expected) {
                (Ok(MergeAnswer::Conflict { into, from, .. }), Ok(expected)) => {
                    assert_eq!((into, from), expected, "{what}");
                }
                (Err(CallError::Retry { .. }), Err(true)) | (Err(CallError::Refused { .. }), Err(false)) => {}
                (other, expected) => panic!("{what}: {other:?} where {expected:?} is expected"),
            }
            let asked = asked(&server);
            assert_eq!(asked["ClientRequestToken"], "00000000000000000000000000000007");
            let puts = [&asked["TransactItems"][0]["Put"], &asked["TransactItems"][1]["Put"]];
            assert_eq!(puts[0]["ConditionExpression"], "#version = :expected");
            assert_eq!(puts[1]["ConditionExpression"], "attribute_not_exists(user_id)");
            assert_eq!(puts[1]["Item"]["merged_into"], json!({ "S": "a" }));
            assert!(
                puts.iter()
                    .all(|put| put["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD")
            );
        }
    }
}
