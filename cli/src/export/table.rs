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
