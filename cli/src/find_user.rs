//! A user's item in the profiles table, wherever merging has put it.

use anyhow::{Context, Result, anyhow, bail};
use usher_aws::dynamodb::DynamoProfileTable;
use usher_domain::limits::POINTERS_MAX;
use usher_pipeline::ports::ProfileItem;

/// The item that holds a user's profile.
pub struct FoundUser {
    /// The item.
    pub item: ProfileItem,
    /// The id that was asked for and those that it led over, where it was merged into another user; none where not.
    pub led_over: Vec<String>,
}

/// Reads the item of a user, or of whom that user was merged into. `table` is what the table is called, and `flag` the
/// option that names it.
///
/// # Errors
/// When the table can't be read, or there is no such user.
pub async fn find_user(profiles: &DynamoProfileTable, asked: &str, table: &str, flag: &str) -> Result<FoundUser> {
    let mut led_over = Vec::new();
    let mut user = asked.to_owned();
    // A cycle can't be made, but a damaged table must not hang the command.
    while led_over.len() <= POINTERS_MAX {
        let found = profiles.get_one(&user).await.with_context(|| {
            format!(
                "cannot read the table {table}; is its name right ({flag}), and is this the right account, region or \
                 endpoint (--endpoint-url)?"
            )
        })?;
        let Some(item) = found else {
            bail!(
                "there is no user {user} in the table {table}; user ids are as the events have them, anonymous ones \
                 behind `anonymous:`"
            );
        };
        let item = item.map_err(|unreadable| anyhow!("the profile of {user} can't be read: {}", unreadable.why))?;
        match &item.merged_into {
            None => return Ok(FoundUser { item, led_over }),
            Some(next) => led_over.push(std::mem::replace(&mut user, next.clone())),
        }
    }
    bail!("{asked} leads over more than {POINTERS_MAX} users to another; its pointers are damaged")
}
