//! The decisions table, read whole.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::time::Instant;
use usher_aws::dynamodb::{DecisionPage, DecisionPages, DynamoDecisionTable};
use usher_pipeline::ports::CallError;
use usher_pipeline::retry::Backoff;

use super::spool::Spool;
use crate::Verdict;
use crate::args::DecisionsTable;
use crate::people::counted;
use crate::progress::Progress;
use crate::send::load_clients;

/// How long a call is tried: throttling and lost connections pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read.
pub struct Read {
    /// The decisions.
    pub spool: Spool,
    /// What is wrong with each item that can't be read.
    pub unreadable: Vec<String>,
}

/// Reads the table.
///
/// # Errors
/// When it can't be read, or the command is stopped.
pub async fn read(
    options: &DecisionsTable,
    within_ms: Option<i64>,
    stop: &watch::Receiver<bool>,
    progress: &Progress,
) -> Result<Read> {
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let table = DynamoDecisionTable::new(clients.dynamodb, &options.decisions);
    read_all(&table, options, within_ms, stop, progress).await
}

async fn read_all(
    table: &DynamoDecisionTable,
    options: &DecisionsTable,
    within_ms: Option<i64>,
    stop: &watch::Receiver<bool>,
    progress: &Progress,
) -> Result<Read> {
    let mut pages = table.all_pages();
    let mut read = Read {
        spool: Spool::new(within_ms)?,
        unreadable: Vec::new(),
    };
    let mut stop = stop.clone();
    loop {
        let page = tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => bail!("interrupted while reading; nothing was written"),
            page = next_page(&mut pages) => page,
        };
        let page = page.with_context(|| {
            format!(
                "cannot read the table {}; is its name right (--decisions), and is this the right account, region or \
                 endpoint (--endpoint-url)?",
                options.decisions
            )
        })?;
        let Some(page) = page else { break };
        read.unreadable.extend(page.unreadable);
        for decision in page.decisions {
            if let Err(why) = read.spool.add(&decision.trigger, decision.outcome.as_deref())? {
                read.unreadable.push(format!("{}: {why}", decision.trigger_id));
            }
        }
        for outcome in page.outcomes {
            if let Err(why) = read.spool.add_lone(outcome.trigger_id.clone(), &outcome.outcome) {
                read.unreadable.push(format!("{}: {why}", outcome.trigger_id));
            }
        }
        progress.show(&format!("{} read", counted(read.spool.len(), "decision")));
    }
    Ok(read)
}

/// The next page, tried again while its failing may pass.
async fn next_page(pages: &mut DecisionPages<'_>) -> Result<Option<DecisionPage>, CallError> {
    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::default();
    loop {
        match pages.next_page().await {
            Err(error @ CallError::Retry { .. }) => {
                if !backoff.pause(deadline).await {
                    return Err(error);
                }
            }
            answer => return answer,
        }
    }
}

/// Says what could not be read.
pub fn tell_unreadable(unreadable: &[String], table: &str) -> Verdict {
    let Some(first) = unreadable.first() else {
        return Verdict::AllWell;
    };
    let count = counted(unreadable.len(), "item");
    eprintln!("error: {count} of the table {table} can't be read and left out; the first: {first}");
    Verdict::Wrong
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
    use usher_aws::clients::Clients;
    use usher_domain::time::Timestamp;
    use usher_local::dynamodb::{DynamoDb, DynamoDbOptions};
    use usher_pipeline::ports::{DecisionItem, DecisionStatus, DecisionTable, OutcomeItem};

    use super::super::spool::tests::{all, outcome, trigger};
    use super::*;

    const TABLE: &str = "decisions";

    async fn table_of(clients: &Clients) -> DynamoDecisionTable {
        let mut request = clients
            .dynamodb
            .create_table()
            .table_name(TABLE)
            .billing_mode(BillingMode::PayPerRequest);
        for (name, key_type) in [("user_id", KeyType::Hash), ("trigger_id", KeyType::Range)] {
            let key = KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(key_type)
                .build();
            let definition = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build();
            request = request
                .key_schema(key.expect("a key"))
                .attribute_definitions(definition.expect("a definition"));
        }
        request.send().await.expect("the table can be created");
        DynamoDecisionTable::new(clients.dynamodb.clone(), TABLE)
    }

    fn item(user: &str, id: &str, trigger: String) -> DecisionItem {
        DecisionItem {
            user_id: user.to_owned(),
            trigger_id: id.to_owned(),
            rule: "high_intent".to_owned(),
            slot: "in_app".to_owned(),
            offer: "a".to_owned(),
            decided_at: Timestamp::from_epoch_ms(0),
            trigger,
            expires_at_epoch_s: 4_102_444_800,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_table_of_several_pages_is_read_with_what_came_of_each_decision() {
        let dynamodb = DynamoDb::start(DynamoDbOptions::default()).await.expect("a free port");
        let table = table_of(&Clients::for_emulators(dynamodb.url(), dynamodb.url())).await;
        // Two of these are more than a page of 1 MB.
        let padding = "x".repeat(350 * 1024);
        for number in 0..8 {
            let id = format!("{number:02}");
            let padded = trigger(&id, number).replace("\"short\"", &format!("\"{padding}\""));
            let decision = item(&format!("u{number}"), &id, padded);
            table
                .record(&decision, DecisionStatus::Delivered)
                .await
                .expect("recorded");
        }
        table
            .record(&item("u9", "09", "{}".to_owned()), DecisionStatus::Delivered)
            .await
            .expect("recorded");
        // Under its decision; and of a user who has another name since.
        for (user, id, rewards) in [
            ("u1", "01", ["click"].as_slice()),
            ("ann", "02", &["click", "like"]),
            ("u3", "03", &[]),
        ] {
            let filed = OutcomeItem {
                user_id: user.to_owned(),
                trigger_id: id.to_owned(),
                rewards_so_far: rewards.len() as u32,
                outcome: outcome(id, rewards, rewards.is_empty(), 30),
                expires_at_epoch_s: 4_102_444_800,
            };
            table.file_outcome(&filed).await.expect("filed");
        }
        let options = DecisionsTable {
            decisions: TABLE.to_owned(),
            endpoint_url: Some(dynamodb.url().to_owned()),
            within: None,
            journey: None,
        };
        let (stop, stopped) = watch::channel(false);
        let progress = Progress::spinner("");
        let read = read_all(&table, &options, Some(600_000), &stopped, &progress)
            .await
            .expect("it answers");
        assert_eq!(read.unreadable, ["09: missing field `trigger_id` at line 1 column 2"]);
        let found: Vec<_> = all(read.spool)
            .into_iter()
            .map(|decision| (decision.trigger_id, decision.reward, decision.settled))
            .collect();
        let expected = [
            ("00", None, false),
            ("01", Some(1.0), true),
            ("02", Some(2.0), true),
            ("03", Some(0.0), true),
            ("04", None, false),
            ("05", None, false),
            ("06", None, false),
            ("07", None, false),
        ];
        assert_eq!(
            found,
            expected.map(|(id, reward, settled)| (id.to_owned(), reward, settled))
        );

        stop.send_replace(true);
        let interrupted = read_all(&table, &options, None, &stopped, &progress).await;
        assert_eq!(
            interrupted.err().map(|error| error.to_string()).as_deref(),
            Some("interrupted while reading; nothing was written")
        );
        dynamodb.close().await;
    }
}
