//! A user from the tables, in AWS or in the local cloud.

use anyhow::{Context, Result};
use usher_aws::dynamodb::{DynamoDecisionTable, DynamoProfileTable};
use usher_domain::journey::Journey;
use usher_wire::profile_state;

use super::{Decision, Found, put_in_order};
use crate::args::ExplainOptions;
use crate::arrival_clock::wall_clock;
use crate::find_user::{FoundUser, find_user};
use crate::people::counted;
use crate::send::load_clients;

/// Decisions that are read of one user at most: the log's key is a hash, so the latest are only known when all are read.
const DECISIONS_READ_MAX: usize = 10_000;

/// Reads the user's profile, following where it was merged into another, and the decisions about each on the way.
///
/// # Errors
/// When a table can't be read, or there is no such user.
pub async fn find(options: &ExplainOptions, journey: &Journey) -> Result<Found> {
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let profiles = DynamoProfileTable::new(clients.dynamodb.clone(), &options.profiles);
    let log = DynamoDecisionTable::new(clients.dynamodb, &options.decisions);
    let FoundUser { item, led_over } = find_user(&profiles, &options.user, &options.profiles, "--profiles").await?;
    let profile = profile_state::decode(&item.state, item.version, &item.user_id, journey)
        .with_context(|| format!("the profile of {} can't be read", item.user_id))?;
    let (mut decisions, mut notes) = (Vec::new(), Vec::new());
    for user in led_over.iter().chain([&item.user_id]) {
        read_decisions(&log, options, user, &mut decisions, &mut notes).await?;
    }
    put_in_order(&mut decisions);
    Ok(Found {
        profile,
        led_over,
        parked_since: item.parked_since,
        user: item.user_id,
        decisions,
        notes,
        now: wall_clock(),
    })
}

async fn read_decisions(
    log: &DynamoDecisionTable,
    options: &ExplainOptions,
    user: &str,
    decisions: &mut Vec<Decision>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut pages = log.pages_of_user(user);
    let mut unreadable = Vec::new();
    loop {
        let page = pages.next_page().await.with_context(|| {
            format!(
                "cannot read the table {}; is its name right (--decisions), and is this the right account, region or \
                 endpoint (--endpoint-url)?",
                options.decisions
            )
        })?;
        let Some(page) = page else { break };
        unreadable.extend(page.unreadable);
        for recorded in page.decisions {
            match Decision::parse(recorded.trigger, Some(recorded.status)) {
                Ok(decision) => decisions.push(decision),
                Err(error) => unreadable.push(format!("{}: {error:#}", recorded.trigger_id)),
            }
        }
        if decisions.len() >= DECISIONS_READ_MAX {
            notes.push(format!(
                "only {} were read, in the order of their ids, so any others may be missing, the latest too",
                counted(decisions.len(), "decision")
            ));
            break;
        }
    }
    if let Some(first) = unreadable.first() {
        let count = counted(unreadable.len(), "decision");
        notes.push(format!("{count} of {user} can't be read; the first: {first}"));
    }
    Ok(())
}
