//! The `models` table: what each slot's learner knows, written under conditions on its versions (P4).

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, KeysAndAttributes, Put, ReturnConsumedCapacity, TransactWriteItem,
};
use usher_domain::time::Timestamp;
use usher_pipeline::models::MODELS_PREFIX;
use usher_pipeline::ports::{
    CallError, ModelGetAnswer, ModelItem, ModelKey, ModelTable, ModelWrite, ModelWriteAnswer, ReadOf,
};

use super::item::{Item, number, text, wrong_type};
use super::profiles::{CONDITION_FAILED, TRANSACTION_CONFLICT, is_transient_cancellation, units};
use super::{call_error, call_name};
use crate::sdk_error;

/// The arrangement of the attributes that this version writes and reads.
const LAYOUT: &str = "1";

/// The `models` table.
#[derive(Clone, Debug)]
pub struct DynamoModelTable {
    client: Client,
    table: String,
}

impl DynamoModelTable {
    /// The table with this name or ARN.
    pub fn new(client: Client, name_or_arn: impl Into<String>) -> DynamoModelTable {
        DynamoModelTable {
            client,
            table: name_or_arn.into(),
        }
    }

    /// The keys of everything that is stored of a slot's models, for an operator's command. The ids of learned outcomes
    /// beside them are not named.
    ///
    /// # Errors
    /// The call failed.
    pub async fn keys_of_slot(&self, slot: &str) -> Result<Vec<ModelKey>, CallError> {
        const OPERATION: &str = "Query";
        let mut keys = Vec::new();
        let mut start = None;
        loop {
            let request = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("slot = :slot AND begins_with(#part, :models)")
                .projection_expression("slot, #part")
                .expression_attribute_names("#part", "part")
                .expression_attribute_values(":slot", AttributeValue::S(slot.to_owned()))
                .expression_attribute_values(":models", AttributeValue::S(MODELS_PREFIX.to_owned()))
                .set_exclusive_start_key(start);
            let output = request
                .send()
                .await
                .map_err(|error| call_error(OPERATION, &self.table, error))?;
            keys.extend(output.items().iter().map(key_of));
            match output.last_evaluated_key {
                Some(last) if !last.is_empty() => start = Some(last),
                _ => return Ok(keys),
            }
        }
    }
}

impl ModelTable for DynamoModelTable {
    async fn get(&self, keys: &[ModelKey], read: ReadOf) -> Result<ModelGetAnswer, CallError> {
        const OPERATION: &str = "BatchGetItem";
        if keys.is_empty() {
            return Ok(ModelGetAnswer::default());
        }
        let keys = KeysAndAttributes::builder()
            .set_keys(Some(keys.iter().map(key_item).collect()))
            .consistent_read(read == ReadOf::Latest)
            .build()
            .map_err(|error| sdk_error::call_error(false, call_name(OPERATION, &self.table), error))?;
        let request = self
            .client
            .batch_get_item()
            .request_items(&self.table, keys)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = request
            .send()
            .await
            .map_err(|error| call_error(OPERATION, &self.table, error))?;
        let mut answer = ModelGetAnswer::default();
        // One table was asked, so whatever the answer calls it (name or ARN), it is this one.
        for item in output.responses.unwrap_or_default().into_values().flatten() {
            let key = key_of(&item);
            match model_from_item(key.clone(), item) {
                Ok(item) => answer.items.push(item),
                Err(why) => answer.unreadable.push((key, why)),
            }
        }
        let unprocessed = output.unprocessed_keys.unwrap_or_default().into_values();
        answer.unprocessed = unprocessed.flat_map(|keys| keys.keys).map(|key| key_of(&key)).collect();
        let consumed = output.consumed_capacity.unwrap_or_default();
        answer.read_units = consumed.iter().map(|used| units(Some(used))).sum();
        Ok(answer)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what was learned and the ids of what it was learned from have to change together"
    )]
    async fn write(&self, writes: &[ModelWrite]) -> Result<ModelWriteAnswer, CallError> {
        const OPERATION: &str = "TransactWriteItems";
        let mut request = self
            .client
            .transact_write_items()
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        for write in writes {
            let write = self
                .transact_item(write)
                .map_err(|error| sdk_error::call_error(false, call_name(OPERATION, &self.table), error))?;
            request = request.transact_items(write);
        }
        let error = match request.send().await {
            Ok(output) => {
                let consumed = output.consumed_capacity.unwrap_or_default();
                return Ok(ModelWriteAnswer::Written {
                    write_units: consumed.iter().map(|used| units(Some(used))).sum(),
                });
            }
            Err(error) => error,
        };
        if let SdkError::ServiceError(service) = &error
            && let TransactWriteItemsError::TransactionCanceledException(cancelled) = service.err()
        {
            let mut codes = cancelled
                .cancellation_reasons()
                .iter()
                .filter_map(CancellationReason::code);
            let (mut is_conflict, mut may_pass) = (false, false);
            for code in &mut codes {
                // Another batch is writing the same items: read again what it leaves, like after it.
                is_conflict |= code == CONDITION_FAILED || code == TRANSACTION_CONFLICT;
                may_pass |= is_transient_cancellation(code);
            }
            if is_conflict {
                return Ok(ModelWriteAnswer::Conflict);
            }
            let call = call_name(OPERATION, &self.table);
            return Err(sdk_error::call_error(may_pass, call, error));
        }
        Err(call_error(OPERATION, &self.table, error))
    }
}

impl DynamoModelTable {
    fn transact_item(&self, write: &ModelWrite) -> Result<TransactWriteItem, BuildError> {
        let expected_version = write.expected_version();
        let (condition, names, values) = if expected_version == 0 {
            ("attribute_not_exists(slot)", None, None)
        } else {
            let expected = AttributeValue::N(expected_version.to_string());
            (
                "#version = :expected",
                Some(HashMap::from([("#version".to_owned(), "version".to_owned())])),
                Some(HashMap::from([(":expected".to_owned(), expected)])),
            )
        };
        let builder = TransactWriteItem::builder();
        Ok(match write {
            ModelWrite::Put { item, .. } => {
                let put = Put::builder()
                    .table_name(&self.table)
                    .set_item(Some(model_to_item(item)))
                    .condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values);
                builder.put(put.build()?).build()
            }
            ModelWrite::Delete { key, .. } => {
                let delete = Delete::builder()
                    .table_name(&self.table)
                    .set_key(Some(key_item(key)))
                    .condition_expression(condition)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values);
                builder.delete(delete.build()?).build()
            }
        })
    }
}

fn key_item(key: &ModelKey) -> Item {
    HashMap::from([
        ("slot".to_owned(), AttributeValue::S(key.slot.clone())),
        ("part".to_owned(), AttributeValue::S(key.part.clone())),
    ])
}

fn key_of(item: &Item) -> ModelKey {
    // They are the table's keys, so every item has them.
    let text = |name| text(item, name).unwrap_or_default().to_owned();
    ModelKey {
        slot: text("slot"),
        part: text("part"),
    }
}

fn model_to_item(model: &ModelItem) -> Item {
    let mut item = key_item(&model.key);
    item.extend([
        ("version".to_owned(), AttributeValue::N(model.version.to_string())),
        ("state".to_owned(), AttributeValue::B(model.state.clone().into())),
        ("updated_at".to_owned(), AttributeValue::S(model.updated_at.to_string())),
        ("layout".to_owned(), AttributeValue::N(LAYOUT.to_owned())),
    ]);
    if let Some(expires_at) = model.expires_at_epoch_s {
        item.insert("expires_at".to_owned(), AttributeValue::N(expires_at.to_string()));
    }
    item
}

fn model_from_item(key: ModelKey, mut item: Item) -> Result<ModelItem, String> {
    let layout = number(&item, "layout")?;
    if layout != LAYOUT {
        return Err(format!(
            "its layout is {layout}, and this version of Usher reads layout {LAYOUT}: deploy the version that wrote it"
        ));
    }
    let whole = |name: &str, text: &str| format!("its {name} is {text}, which is no whole number");
    let version_text = number(&item, "version")?;
    let version = version_text.parse().map_err(|_| whole("version", version_text))?;
    let updated_at: Timestamp = text(&item, "updated_at")?
        .parse()
        .map_err(|error| format!("its updated_at can't be read: {error}"))?;
    let expires_at_epoch_s = match item.get("expires_at") {
        None => None,
        Some(_) => {
            let text = number(&item, "expires_at")?;
            Some(text.parse().map_err(|_| whole("expires_at", text))?)
        }
    };
    let state = match item.remove("state") {
        Some(AttributeValue::B(state)) => state.into_inner(),
        other => return Err(wrong_type("state", other.as_ref(), "binary (B)")),
    };
    Ok(ModelItem {
        key,
        version,
        state,
        updated_at,
        expires_at_epoch_s,
    })
}
