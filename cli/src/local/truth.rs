//! What is true in the end, read back from where it is: tables and streams, not what the functions say of themselves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_dynamodb::types::Select;
use usher_aws::clients::Clients;
use usher_aws::dynamodb::{DynamoProfileTable, profile_item_bytes};
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_local::LocalCloud;
use usher_pipeline::ports::DecisionStatus;
use usher_wire::outcome::{OUTCOME_KIND, OutcomeRecord};
use usher_wire::profile_state;
use usher_wire::reject::RejectedRecord;
use usher_wire::trigger::{DECISION_KIND, TriggerRecord};

use super::resources::Resources;

/// The stored profiles.
#[derive(Debug, Default)]
pub struct StoredProfiles {
    /// Each user's.
    pub by_user: BTreeMap<String, Profile>,
    /// The size of each item in bytes, in no order.
    pub item_bytes: Vec<u64>,
    /// Items that can't be read, with what is wrong.
    pub unreadable: Vec<String>,
}

/// Reads every profile of the embedded table.
///
/// # Errors
/// When the table can't be read.
pub async fn read_profiles(clients: &Clients, table: &str, journey: &Journey) -> Result<StoredProfiles> {
    let table = DynamoProfileTable::new(clients.dynamodb.clone(), table);
    let mut pages = table.scan_pages();
    let mut stored = StoredProfiles::default();
    while let Some(page) = pages.next_page().await.context("cannot read the profiles back")? {
        // An item that became a pointer to another is nobody's profile.
        for item in page.items.into_iter().filter(|item| item.merged_into.is_none()) {
            stored.item_bytes.push(profile_item_bytes(&item) as u64);
            match profile_state::decode(&item.state, item.version, &item.user_id, journey) {
                Ok(profile) => {
                    stored.by_user.insert(item.user_id, profile);
                }
                Err(error) => stored.unreadable.push(format!("{}: {error}", item.user_id)),
            }
        }
        stored.unreadable.extend(
            page.unreadable
                .into_iter()
                .map(|item| format!("{}: {}", item.user_id, item.why)),
        );
    }
    Ok(stored)
}

/// Counts the items of a table.
///
/// # Errors
/// When the table can't be read.
#[expect(
    clippy::disallowed_methods,
    reason = "an embedded table costs nothing, and counting it is the point"
)]
pub async fn count_items(clients: &Clients, table: &str) -> Result<u64> {
    let mut count = 0;
    let mut start = None;
    loop {
        let request = clients
            .dynamodb
            .scan()
            .table_name(table)
            .select(Select::Count)
            .consistent_read(true);
        let page = request.set_exclusive_start_key(start).send().await;
        let page = page.with_context(|| format!("cannot count the items of {table}"))?;
        count += u64::try_from(page.count()).unwrap_or_default();
        match page.last_evaluated_key {
            Some(key) if !key.is_empty() => start = Some(key),
            _ => return Ok(count),
        }
    }
}

/// The triggers stream.
#[derive(Debug, Default)]
pub struct Triggers {
    /// The JSON of each trigger and each outcome, by its first record, in the order of the stream.
    pub json: Vec<Vec<u8>>,
    /// How many of each rule.
    pub by_rule: BTreeMap<String, u64>,
    /// From the put of the event to the put of the trigger.
    pub sent_to_decided: Vec<Duration>,
    /// Triggers that were due at a moment of their own: a timer's, or the end of quiet hours.
    pub timers_fired: u64,
    /// From that moment to the arrival of the record that let them be decided.
    pub lateness: Vec<Duration>,
    /// Outcomes, each once.
    pub outcomes: u64,
    /// Those of them that say that an offer's window ran out with nothing.
    pub windows_run_out: u64,
    /// How many of them have each reward.
    pub outcomes_by_reward: BTreeMap<String, u64>,
}

/// Reads the triggers stream, each trigger and each outcome once.
///
/// # Errors
/// When it can't be read or holds something else.
pub async fn read_triggers(cloud: &LocalCloud, resources: &Resources) -> Result<Triggers> {
    let mut triggers = Triggers::default();
    let mut ids = HashSet::new();
    for record in cloud.read_all(&resources.triggers).await? {
        let Ok(trigger) = TriggerRecord::parse(&record.data) else {
            bail!(
                "the record {} on {} is no trigger",
                record.sequence_number,
                resources.triggers
            );
        };
        if trigger.kind == OUTCOME_KIND {
            let outcome = OutcomeRecord::parse(&record.data).with_context(|| {
                let (number, stream) = (&record.sequence_number, &resources.triggers);
                format!("the record {number} on {stream} is no outcome")
            })?;
            if ids.insert(outcome.outcome_id.to_string()) {
                triggers.outcomes += 1;
                triggers.windows_run_out += u64::from(outcome.expired);
                for reward in outcome.rewards {
                    *triggers.outcomes_by_reward.entry(reward).or_default() += 1;
                }
                triggers.json.push(record.data.clone());
            }
            continue;
        }
        if !ids.insert(trigger.trigger_id.to_string()) {
            continue;
        }
        *triggers.by_rule.entry(trigger.rule.to_string()).or_default() += 1;
        let time = |text: &str| text.parse::<Timestamp>().ok();
        if let Some(due_at) = trigger.due_at.as_deref().and_then(time) {
            triggers.timers_fired += 1;
            let late_ms = time(&trigger.decided_at).map(|decided_at| decided_at.ms_since(due_at));
            let late_ms = late_ms.and_then(|late_ms| u64::try_from(late_ms).ok());
            triggers.lateness.extend(late_ms.map(Duration::from_millis));
        }
        let cause = &trigger.cause;
        let caused = cloud.put_instant(&resources.interactions, &cause.shard_id, &cause.sequence_number);
        if let (Some(caused), Some(put)) = (caused, record.put) {
            triggers.sent_to_decided.push(put.saturating_duration_since(caused));
        }
        triggers.json.push(record.data.clone());
    }
    Ok(triggers)
}

/// The ids of the triggers on the stream.
///
/// # Errors
/// When the stream can't be read or holds something else.
pub async fn read_trigger_ids(cloud: &LocalCloud, resources: &Resources) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for record in cloud.read_all(&resources.triggers).await? {
        let trigger = TriggerRecord::parse(&record.data).with_context(|| {
            format!(
                "the record {} on {} is no trigger",
                record.sequence_number, resources.triggers
            )
        })?;
        if trigger.kind == DECISION_KIND {
            ids.insert(trigger.trigger_id.into_owned());
        }
    }
    Ok(ids)
}

/// An item of the decision log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedDecision {
    /// The trigger that it is about.
    pub trigger_id: String,
    /// Whether it was delivered, or is held out and recorded, which is all that is to be done.
    pub is_settled: bool,
}

/// Reads the decision log.
///
/// # Errors
/// When the table can't be read or an item has no trigger id.
#[expect(
    clippy::disallowed_methods,
    reason = "an embedded table costs nothing, and reading all of it is the point"
)]
pub async fn read_decisions(clients: &Clients, table: &str) -> Result<Vec<LoggedDecision>> {
    let mut decisions = Vec::new();
    let mut start = None;
    loop {
        let request = clients.dynamodb.scan().table_name(table).consistent_read(true);
        let page = request.set_exclusive_start_key(start).send().await;
        let page = page.with_context(|| format!("cannot read the decisions from {table}"))?;
        for item in page.items() {
            let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
            let status = text("status").as_deref().and_then(DecisionStatus::from_name);
            decisions.push(LoggedDecision {
                trigger_id: text("trigger_id").with_context(|| format!("an item of {table} has no trigger_id"))?,
                is_settled: matches!(status, Some(DecisionStatus::Delivered | DecisionStatus::HeldOut)),
            });
        }
        match page.last_evaluated_key {
            Some(key) if !key.is_empty() => start = Some(key),
            _ => return Ok(decisions),
        }
    }
}

/// The reason and the bytes, as they are encoded there, of each record on the rejected stream.
///
/// # Errors
/// When the stream can't be read or holds something else.
pub async fn read_rejected_records(cloud: &LocalCloud, resources: &Resources) -> Result<BTreeSet<(String, String)>> {
    let mut records = BTreeSet::new();
    each_rejected(cloud, resources, |rejected| {
        records.insert((rejected.reason.name().to_owned(), rejected.data.into_owned()));
    })
    .await?;
    Ok(records)
}

/// Reads the rejected stream: how many records for each reason, a record that was rejected twice counted once.
///
/// # Errors
/// When it can't be read or holds something else.
pub async fn read_rejected(cloud: &LocalCloud, resources: &Resources) -> Result<BTreeMap<String, u64>> {
    let mut by_reason = BTreeMap::new();
    let mut places = HashSet::new();
    each_rejected(cloud, resources, |rejected| {
        if places.insert((rejected.shard_id.to_string(), rejected.sequence_number.to_string())) {
            *by_reason.entry(rejected.reason.name().to_owned()).or_default() += 1;
        }
    })
    .await?;
    Ok(by_reason)
}

/// Shows each record on the rejected stream, each time that it is there.
async fn each_rejected(
    cloud: &LocalCloud,
    resources: &Resources,
    mut see: impl FnMut(RejectedRecord<'_>),
) -> Result<()> {
    for record in cloud.read_all(&resources.rejected).await? {
        let rejected = serde_json::from_slice(&record.data).with_context(|| {
            format!(
                "the record {} on {} is no reject",
                record.sequence_number, resources.rejected
            )
        })?;
        see(rejected);
    }
    Ok(())
}
