//! `usher users`: look at profiles.

use anyhow::{Context, Result};
use usher_aws::dynamodb::DynamoProfileTable;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_wire::profile_state;

use crate::Verdict;
use crate::args::{ShowOptions, UsersCommand, UsersOptions};
use crate::arrival_clock::wall_clock;
use crate::find_user::{FoundUser, find_user};
use crate::people::say;
use crate::profile_text::profile_text;
use crate::send::load_clients;
use crate::{journey_file, project};

/// Runs the command.
///
/// # Errors
/// When the table can't be read or there is no such user.
pub async fn run(options: UsersOptions) -> Result<Verdict> {
    match options.command {
        UsersCommand::Show(options) => show(options).await,
    }
}

async fn show(options: ShowOptions) -> Result<Verdict> {
    let journey_path = match &options.journey {
        Some(path) => path.clone(),
        None => project::find_journey(None, &project::find_template(None)?)?,
    };
    let journey = journey_file::load(&journey_path)?;
    let moment = Moment::parse(&options.at)?;
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let table = DynamoProfileTable::new(clients.dynamodb, &options.table);
    let FoundUser { item, led_over } = find_user(&table, &options.user, &options.table, "--table").await?;
    let profile = profile_state::decode(&item.state, item.version, &item.user_id, &journey)
        .with_context(|| format!("the profile of {} can't be read", item.user_id))?;
    if !led_over.is_empty() {
        say(&format!("{} was merged into {}\n", led_over.join(", "), item.user_id))?;
    }
    say(&profile_text(&item.user_id, &profile, &journey, moment.of(&profile)))?;
    Ok(Verdict::AllWell)
}

/// As of when a profile is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Now.
    Now,
    /// The profile's latest arrival.
    Latest,
    /// Then.
    At(Timestamp),
}

impl Moment {
    /// `now`, `latest` or a time.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str) -> Result<Moment> {
        match text {
            "now" => Ok(Moment::Now),
            "latest" => Ok(Moment::Latest),
            time => {
                let time = time
                    .parse()
                    .context("--at is `now`, `latest` or a time such as 2026-01-05T10:00:00Z")?;
                Ok(Moment::At(time))
            }
        }
    }

    /// The same of a profile.
    pub fn of(self, profile: &Profile) -> Timestamp {
        match self {
            Moment::Now => wall_clock(),
            Moment::Latest => profile.now,
            Moment::At(time) => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_now_the_latest_event_or_a_time() {
        let time: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        for (text, moment) in [
            ("now", Moment::Now),
            ("latest", Moment::Latest),
            ("2026-01-05T11:00:00+01:00", Moment::At(time)),
        ] {
            assert_eq!(Moment::parse(text).expect(text), moment);
        }
        assert!(Moment::parse("yesterday").is_err());
    }
}
