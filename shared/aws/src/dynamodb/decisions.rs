//! The `decisions` table: the log of what was decided, and how far its delivery has come.
//!
//! Its sort key is the trigger's id, a hash: a user's decisions come in no order of time, so whoever wants the latest reads
//! all of them, which the caps of a journey and the table's TTL keep few.
//!
//! What came of a decision is in its item, in `outcome` (JSON) and `outcome_rewards` (how many rewards it had). An outcome
//! whose decision is not there (it was about an id that was merged into the user since, or is still to come) is an item
//! without a `trigger`.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use usher_pipeline::ports::{
    CallError, DecisionItem, DecisionStatus, DecisionTable, FileAnswer, OutcomeItem, RecordAnswer,
};

use super::item::{Item, text};
use super::{call_error, call_name};
use crate::sdk_error;

/// The `decisions` table.
#[derive(Clone, Debug)]
pub struct DynamoDecisionTable {
    client: Client,
    table: String,
}

/// A decision that is recorded with a status that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("the decision is recorded already, but its status can't be read: {why}")]
struct UnreadableStatus {
    why: String,
}

/// A decision in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedDecision {
    /// Its id: 32 hexadecimal digits.
    pub trigger_id: String,
    /// How far its delivery has come, as [`DecisionStatus::name`] says it; a later version may know others.
    pub status: String,
    /// The whole trigger, as it came on the stream (JSON).
    pub trigger: String,
    /// The whole outcome, as it came on the stream (JSON), where one has come.
    pub outcome: Option<String>,
}

/// What came of a decision that is not in the same item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoneOutcome {
    /// The decision's id: 32 hexadecimal digits.
    pub trigger_id: String,
    /// The whole outcome, as it came on the stream (JSON).
    pub outcome: String,
}

/// A page of a user's decisions: up to 1 MB of items, in no order of time.
#[derive(Debug, Default)]
pub struct DecisionPage {
    /// The decisions.
    pub decisions: Vec<RecordedDecision>,
    /// What came of decisions that are not in the same items.
    pub outcomes: Vec<LoneOutcome>,
    /// What is wrong with each item that can't be read.
    pub unreadable: Vec<String>,
}

/// Where a walk through decisions is. See [`DynamoDecisionTable::pages_of_user`] and [`DynamoDecisionTable::all_pages`].
#[derive(Debug)]
pub struct DecisionPages<'t> {
    table: &'t DynamoDecisionTable,
    /// The user whose decisions are meant; none for those of all.
    user_id: Option<String>,
    position: Position,
}

#[derive(Debug)]
enum Position {
    AtStart,
    After(Item),
    AtEnd,
}

impl DynamoDecisionTable {
    /// The table with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> DynamoDecisionTable {
        DynamoDecisionTable {
            client,
            table: name_or_arn.into(),
        }
    }

    /// Walks through a user's decisions, a page at a time, for an operator's command.
    ///
    /// ```no_run
    /// # async fn example(table: usher_aws::dynamodb::DynamoDecisionTable) -> Result<(), usher_pipeline::ports::CallError> {
    /// let mut pages = table.pages_of_user("ann");
    /// while let Some(page) = pages.next_page().await? {
    ///     for decision in page.decisions {
    ///         println!("{} {}", decision.trigger_id, decision.status);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pages_of_user(&self, user_id: impl Into<String>) -> DecisionPages<'_> {
        DecisionPages {
            table: self,
            user_id: Some(user_id.into()),
            position: Position::AtStart,
        }
    }

    /// Walks through the decisions of all users, a page at a time, for an operator's command: it reads the whole table and
    /// pays for it. What is written meanwhile may be missing.
    pub fn all_pages(&self) -> DecisionPages<'_> {
        DecisionPages {
            table: self,
            user_id: None,
            position: Position::AtStart,
        }
    }

    /// Records a decision in the item that an outcome of it is alone in.
    async fn record_beside_outcome(
        &self,
        decision: &DecisionItem,
        status: DecisionStatus,
    ) -> Result<RecordAnswer, CallError> {
        const OPERATION: &str = "UpdateItem";
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("user_id", AttributeValue::S(decision.user_id.clone()))
            .key("trigger_id", AttributeValue::S(decision.trigger_id.clone()))
            .condition_expression("attribute_not_exists(#trigger)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        // Names go through placeholders, since `trigger` is a reserved word.
        // <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ReservedWords.html>
        let mut assignments = Vec::new();
        for (name, value) in item_of(decision, status) {
            if name == "user_id" || name == "trigger_id" {
                continue;
            }
            assignments.push(format!("#{name} = :{name}"));
            request = request
                .expression_attribute_names(format!("#{name}"), name.clone())
                .expression_attribute_values(format!(":{name}"), value);
        }
        assignments.sort_unstable();
        let request = request
            .expression_attribute_names("#trigger", "trigger")
            .update_expression(format!("SET {}", assignments.join(", ")));
        let error = match request.send().await {
            Ok(_) => return Ok(RecordAnswer::New),
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let UpdateItemError::ConditionalCheckFailedException(failed) = service.err()
        {
            return self.known(OPERATION, failed.item.as_ref());
        }
        Err(call_error(OPERATION, &self.table, error))
    }

    /// The answer where the decision is recorded already.
    fn known(&self, operation: &'static str, item: Option<&Item>) -> Result<RecordAnswer, CallError> {
        let status = match item {
            Some(item) => status_of(item),
            None => Err("the service did not return the item; it must support ALL_OLD".to_owned()),
        };
        status
            .map(RecordAnswer::Known)
            .map_err(|why| sdk_error::call_error(false, call_name(operation, &self.table), UnreadableStatus { why }))
    }
}

impl DecisionPages<'_> {
    /// The next page; none after the last one. A page may be empty. After an error, calling it again asks for the same
    /// page.
    ///
    /// # Errors
    /// The call failed.
    pub async fn next_page(&mut self) -> Result<Option<DecisionPage>, CallError> {
        let start = match &self.position {
            Position::AtStart => None,
            Position::After(key) => Some(key.clone()),
            Position::AtEnd => return Ok(None),
        };
        let (items, last_key) = match &self.user_id {
            Some(user) => self.table.query(user, start).await?,
            None => self.table.scan(start).await?,
        };
        self.position = match last_key {
            Some(key) if !key.is_empty() => Position::After(key),
            _ => Position::AtEnd,
        };
        let mut page = DecisionPage::default();
        for item in items {
            match recorded(&item) {
                Ok(Filed::Decision(decision)) => page.decisions.push(decision),
                Ok(Filed::Outcome(outcome)) => page.outcomes.push(outcome),
                Err(why) => page.unreadable.push(why),
            }
        }
        Ok(Some(page))
    }
}

impl DynamoDecisionTable {
    async fn query(&self, user_id: &str, start: Option<Item>) -> Result<(Vec<Item>, Option<Item>), CallError> {
        let request = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("user_id = :user")
            .expression_attribute_values(":user", AttributeValue::S(user_id.to_owned()))
            .set_exclusive_start_key(start);
        let output = request
            .send()
            .await
            .map_err(|error| call_error("Query", &self.table, error))?;
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an operator's command that exports the whole log pages through it"
    )]
    async fn scan(&self, start: Option<Item>) -> Result<(Vec<Item>, Option<Item>), CallError> {
        // Read consistently at twice the price, so that what was filed before the export is in it.
        let request = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .set_exclusive_start_key(start);
        let output = request
            .send()
            .await
            .map_err(|error| call_error("Scan", &self.table, error))?;
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }
}

enum Filed {
    Decision(RecordedDecision),
    Outcome(LoneOutcome),
}

fn recorded(item: &Item) -> Result<Filed, String> {
    let trigger_id = text(item, "trigger_id")?.to_owned();
    let outcome = match item.contains_key("outcome") {
        true => Some(text(item, "outcome")?.to_owned()),
        false => None,
    };
    match outcome {
        Some(outcome) if !item.contains_key("trigger") => Ok(Filed::Outcome(LoneOutcome { trigger_id, outcome })),
        outcome => Ok(Filed::Decision(RecordedDecision {
            trigger_id,
            status: text(item, "status")?.to_owned(),
            trigger: text(item, "trigger")?.to_owned(),
            outcome,
        })),
    }
}

impl DecisionTable for DynamoDecisionTable {
    async fn record(&self, decision: &DecisionItem, status: DecisionStatus) -> Result<RecordAnswer, CallError> {
        const OPERATION: &str = "PutItem";
        let request = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item_of(decision, status)))
            .condition_expression("attribute_not_exists(trigger_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match request.send().await {
            Ok(_) => return Ok(RecordAnswer::New),
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let PutItemError::ConditionalCheckFailedException(failed) = service.err()
        {
            return match &failed.item {
                Some(item) if item.contains_key("outcome") && !item.contains_key("trigger") => {
                    self.record_beside_outcome(decision, status).await
                }
                item => self.known(OPERATION, item.as_ref()),
            };
        }
        Err(call_error(OPERATION, &self.table, error))
    }

    async fn set_status(&self, user_id: &str, trigger_id: &str, status: DecisionStatus) -> Result<(), CallError> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("user_id", AttributeValue::S(user_id.to_owned()))
            .key("trigger_id", AttributeValue::S(trigger_id.to_owned()))
            // Without the condition, a decision that its TTL has removed would come back as a stump without one.
            .condition_expression("attribute_exists(trigger_id)")
            .update_expression("SET #status = :status")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", AttributeValue::S(status.name().to_owned()));
        request
            .send()
            .await
            .map(|_| ())
            .map_err(|error| call_error("UpdateItem", &self.table, error))
    }

    async fn file_outcome(&self, outcome: &OutcomeItem) -> Result<FileAnswer, CallError> {
        let request = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("user_id", AttributeValue::S(outcome.user_id.clone()))
            .key("trigger_id", AttributeValue::S(outcome.trigger_id.clone()))
            .condition_expression("attribute_not_exists(outcome) OR outcome_rewards < :rewards")
            .update_expression(
                "SET outcome = :outcome, outcome_rewards = :rewards, expires_at = if_not_exists(expires_at, :expires)",
            )
            .expression_attribute_values(":outcome", AttributeValue::S(outcome.outcome.clone()))
            .expression_attribute_values(":rewards", AttributeValue::N(outcome.rewards_so_far.to_string()))
            .expression_attribute_values(":expires", AttributeValue::N(outcome.expires_at_epoch_s.to_string()));
        match request.send().await {
            Ok(_) => Ok(FileAnswer::Filed),
            Err(SdkError::ServiceError(service)) if service.err().is_conditional_check_failed_exception() => {
                Ok(FileAnswer::Known)
            }
            Err(error) => Err(call_error("UpdateItem", &self.table, error)),
        }
    }
}

fn item_of(decision: &DecisionItem, status: DecisionStatus) -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    Item::from([
        ("user_id".to_owned(), text(&decision.user_id)),
        ("trigger_id".to_owned(), text(&decision.trigger_id)),
        ("rule".to_owned(), text(&decision.rule)),
        ("slot".to_owned(), text(&decision.slot)),
        ("offer".to_owned(), text(&decision.offer)),
        (
            "decided_at".to_owned(),
            AttributeValue::S(decision.decided_at.to_string()),
        ),
        ("status".to_owned(), text(status.name())),
        ("trigger".to_owned(), text(&decision.trigger)),
        (
            "expires_at".to_owned(),
            AttributeValue::N(decision.expires_at_epoch_s.to_string()),
        ),
    ])
}

fn status_of(item: &Item) -> Result<DecisionStatus, String> {
    let name = text(item, "status")?;
    DecisionStatus::from_name(name).ok_or_else(|| format!("its status is `{name}`, which this version does not know"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use usher_domain::time::Timestamp;

    use super::*;
    use crate::clients::Clients;
    use crate::test_server::{Reply, TestServer};

    async fn table_that_answers(status: u16, body: Value) -> (DynamoDecisionTable, TestServer) {
        let server = TestServer::start(move |_| Reply::json(status, body.to_string())).await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        (DynamoDecisionTable::new(client, "decisions"), server)
    }

    fn asked(server: &TestServer) -> Value {
        serde_json::from_slice(&server.last_request().body).expect("the SDK sends JSON")
    }

    fn decision() -> DecisionItem {
        DecisionItem {
            user_id: "u-1".to_owned(),
            trigger_id: "00112233445566778899aabbccddeeff".to_owned(),
            rule: "high_intent".to_owned(),
            slot: "in_app".to_owned(),
            offer: "book-demo".to_owned(),
            decided_at: Timestamp::from_epoch_ms(1_767_607_200_000),
            trigger: r#"{"trigger_id":"00112233445566778899aabbccddeeff"}"#.to_owned(),
            expires_at_epoch_s: 1_775_383_200,
        }
    }

    #[tokio::test]
    async fn a_decision_is_recorded_once() {
        let (table, server) = table_that_answers(200, json!({})).await;
        let answer = table
            .record(&decision(), DecisionStatus::Pending)
            .await
            .expect("it answered");
        assert_eq!(answer, RecordAnswer::New);
        let request = asked(&server);
        assert_eq!(request["ConditionExpression"], "attribute_not_exists(trigger_id)");
        assert_eq!(request["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
        assert_eq!(
            request["Item"],
            json!({
                "user_id": { "S": "u-1" }, "trigger_id": { "S": "00112233445566778899aabbccddeeff" },
                "rule": { "S": "high_intent" }, "slot": { "S": "in_app" }, "offer": { "S": "book-demo" },
                "decided_at": { "S": "2026-01-05T10:00:00.000Z" }, "status": { "S": "pending" },
                "trigger": { "S": r#"{"trigger_id":"00112233445566778899aabbccddeeff"}"# },
                "expires_at": { "N": "1775383200" },
            })
        );
    }

    #[tokio::test]
    async fn a_known_decision_tells_its_status() {
        let known = |item: Value| {
            json!({
                "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed", "Item": item,
            })
        };
        for (item, expected) in [
            (json!({ "status": { "S": "pending" } }), Some(DecisionStatus::Pending)),
            (
                json!({ "status": { "S": "delivered" } }),
                Some(DecisionStatus::Delivered),
            ),
            (
                json!({ "status": { "S": "undeliverable" } }),
                Some(DecisionStatus::Undeliverable),
            ),
            (json!({ "status": { "S": "held_out" } }), Some(DecisionStatus::HeldOut)),
            (json!({ "status": { "S": "of the future" } }), None),
            (json!({ "user_id": { "S": "u-1" } }), None),
            (Value::Null, None),
        ] {
            let (table, _server) = table_that_answers(400, known(item.clone())).await;
            match (table.record(&decision(), DecisionStatus::Pending).await, expected) {
                (Ok(answer), Some(status)) => assert_eq!(answer, RecordAnswer::Known(status)),
                (Err(CallError::Refused { .. }), None) => {}
                (other, _) => panic!("{item}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_status_is_set_only_on_a_recorded_decision() {
        let (table, server) = table_that_answers(200, json!({})).await;
        let trigger_id = decision().trigger_id;
        table
            .set_status("u-1", &trigger_id, DecisionStatus::Delivered)
            .await
            .expect("it answered");
        let request = asked(&server);
        assert_eq!(request["ConditionExpression"], "attribute_exists(trigger_id)");
        assert_eq!(
            request["Key"],
            json!({ "user_id": { "S": "u-1" }, "trigger_id": { "S": trigger_id } })
        );
        assert_eq!(
            request["ExpressionAttributeValues"],
            json!({ ":status": { "S": "delivered" } })
        );

        for (code, is_refused) in [
            ("ConditionalCheckFailedException", true),
            ("ThrottlingException", false),
        ] {
            let (table, _server) = table_that_answers(400, json!({ "__type": code })).await;
            let error = table
                .set_status("u-1", "t", DecisionStatus::Delivered)
                .await
                .expect_err(code);
            assert_eq!(matches!(error, CallError::Refused { .. }), is_refused, "{error:?}");
        }
    }

    #[tokio::test]
    async fn an_outcome_is_filed_only_in_place_of_one_with_fewer_rewards() {
        let outcome = OutcomeItem {
            user_id: "u-1".to_owned(),
            trigger_id: "00".to_owned(),
            rewards_so_far: 2,
            outcome: r#"{"reward":6}"#.to_owned(),
            expires_at_epoch_s: 1_775_383_200,
        };
        let (table, server) = table_that_answers(200, json!({})).await;
        assert_eq!(
            table.file_outcome(&outcome).await.expect("it answers"),
            FileAnswer::Filed
        );
        let request = asked(&server);
        assert_eq!(
            request["ConditionExpression"],
            "attribute_not_exists(outcome) OR outcome_rewards < :rewards"
        );
        assert_eq!(
            request["ExpressionAttributeValues"],
            json!({ ":outcome": { "S": r#"{"reward":6}"# }, ":rewards": { "N": "2" }, ":expires": { "N": "1775383200" } })
        );
        let (table, _server) = table_that_answers(400, json!({ "__type": "ConditionalCheckFailedException" })).await;
        assert_eq!(
            table.file_outcome(&outcome).await.expect("it answers"),
            FileAnswer::Known
        );
        let (table, _server) = table_that_answers(400, json!({ "__type": "ThrottlingException" })).await;
        let error = table.file_outcome(&outcome).await.expect_err("throttled");
        assert!(matches!(error, CallError::Retry { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_decision_that_comes_after_its_outcome_is_put_beside_it() {
        let server = TestServer::start(|request| {
            let asked: Value = serde_json::from_slice(&request.body).expect("the SDK sends JSON");
            if asked["UpdateExpression"].is_string() {
                return Reply::json(200, json!({}).to_string());
            }
            let alone =
                json!({ "outcome": { "S": "{}" }, "outcome_rewards": { "N": "1" }, "expires_at": { "N": "1" } });
            let failed = json!({ "__type": "ConditionalCheckFailedException", "Item": alone });
            Reply::json(400, failed.to_string())
        })
        .await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        let table = DynamoDecisionTable::new(client, "decisions");
        let answer = table.record(&decision(), DecisionStatus::HeldOut).await;
        assert_eq!(answer.expect("it answers"), RecordAnswer::New);
        let request = asked(&server);
        assert_eq!(request["ConditionExpression"], "attribute_not_exists(#trigger)");
        assert_eq!(
            request["UpdateExpression"],
            "SET #decided_at = :decided_at, #expires_at = :expires_at, #offer = :offer, #rule = :rule, #slot = :slot, \
             #status = :status, #trigger = :trigger"
        );
        assert_eq!(
            request["ExpressionAttributeValues"][":status"],
            json!({ "S": "held_out" })
        );
    }

    #[tokio::test]
    async fn everyones_decisions_are_read_with_what_came_of_them() {
        let server = TestServer::start(|request| {
            let asked: Value = serde_json::from_slice(&request.body).expect("the SDK sends JSON");
            let key = json!({ "user_id": { "S": "ann" }, "trigger_id": { "S": "2" } });
            let answer = if asked["ExclusiveStartKey"] == key {
                json!({ "Items": [{ "trigger_id": { "S": "3" }, "outcome": { "S": "{3}" } }] })
            } else {
                json!({ "LastEvaluatedKey": key, "Items": [
                    { "trigger_id": { "S": "1" }, "status": { "S": "delivered" }, "trigger": { "S": "{1}" } },
                    { "trigger_id": { "S": "2" }, "status": { "S": "held_out" }, "trigger": { "S": "{2}" },
                        "outcome": { "S": "{}" } },
                    { "trigger_id": { "S": "4" }, "trigger": { "S": "{}" }, "outcome": { "S": "{}" } },
                ] })
            };
            Reply::json(200, answer.to_string())
        })
        .await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        let table = DynamoDecisionTable::new(client, "decisions");
        let mut pages = table.all_pages();
        let (mut read, mut alone, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(page) = pages.next_page().await.expect("it answers") {
            read.extend(
                page.decisions
                    .into_iter()
                    .map(|decision| (decision.trigger, decision.outcome)),
            );
            alone.extend(
                page.outcomes
                    .into_iter()
                    .map(|outcome| (outcome.trigger_id, outcome.outcome)),
            );
            unreadable.extend(page.unreadable);
        }
        assert_eq!(
            read,
            [("{1}".to_owned(), None), ("{2}".to_owned(), Some("{}".to_owned()))]
        );
        assert_eq!(alone, [("3".to_owned(), "{3}".to_owned())]);
        assert_eq!(unreadable, ["it has no attribute status, which must be text (S)"]);
        assert_eq!(asked(&server)["ConsistentRead"], true);
    }

    #[tokio::test]
    async fn a_users_decisions_are_read_page_by_page() {
        let server = TestServer::start(|request| {
            let asked: Value = serde_json::from_slice(&request.body).expect("the SDK sends JSON");
            let item = |id: &str| {
                json!({ "trigger_id": { "S": id }, "status": { "S": "held_out" }, "trigger": { "S": "{}" },
                    "expires_at": { "N": "1" } })
            };
            let key = json!({ "user_id": { "S": "ann" }, "trigger_id": { "S": "2" } });
            let answer = if asked["ExclusiveStartKey"] == key {
                json!({ "Items": [item("3")] })
            } else {
                json!({ "Items": [item("1"), { "trigger_id": { "S": "2" } }], "LastEvaluatedKey": key })
            };
            Reply::json(200, answer.to_string())
        })
        .await;
        let client = Clients::for_emulators(&server.url(), &server.url()).dynamodb;
        let table = DynamoDecisionTable::new(client, "decisions");
        let mut pages = table.pages_of_user("ann");
        let (mut ids, mut unreadable) = (Vec::new(), Vec::new());
        while let Some(page) = pages.next_page().await.expect("it answers") {
            ids.extend(
                page.decisions
                    .into_iter()
                    .map(|decision| (decision.trigger_id, decision.status)),
            );
            unreadable.extend(page.unreadable);
        }
        let held_out = |id: &str| (id.to_owned(), "held_out".to_owned());
        assert_eq!(ids, [held_out("1"), held_out("3")]);
        assert_eq!(unreadable, ["it has no attribute status, which must be text (S)"]);
        assert_eq!(server.requests(), 2);
        let request = asked(&server);
        assert_eq!(request["KeyConditionExpression"], "user_id = :user");
        assert_eq!(
            (
                &request["ExpressionAttributeValues"][":user"]["S"],
                &request["ConsistentRead"]
            ),
            (&json!("ann"), &json!(true))
        );

        let (table, _server) = table_that_answers(400, json!({ "__type": "ResourceNotFoundException" })).await;
        assert!(table.pages_of_user("ann").next_page().await.is_err());
    }
}
