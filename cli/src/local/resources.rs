//! Which of the template's streams and tables are which.

use anyhow::{Context, Result};
use usher_local::Template;

/// The physical names of what `usher local` looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The stream that events go to.
    pub interactions: String,
    /// The stream of decisions.
    pub triggers: String,
    /// The stream of records that could not be used.
    pub rejected: String,
    /// The table of profiles.
    pub profiles: String,
    /// The decision log.
    pub decisions: String,
    /// The logical id of the function that writes profiles.
    pub profile_writer: String,
}

/// The program of the function that writes profiles.
const PROFILE_WRITER: &str = "profile-writer";

impl Resources {
    /// Finds them by their logical ids.
    ///
    /// # Errors
    /// When the template has one of them not.
    pub fn of(template: &Template) -> Result<Resources> {
        let missing = |kind: &str, id: &str| {
            format!("the template has no {kind} with the logical id {id}, which usher local looks at")
        };
        let stream = |id: &str| {
            let found = template.streams.iter().find(|stream| stream.logical_id == id);
            found
                .map(|stream| stream.name.clone())
                .with_context(|| missing("stream", id))
        };
        let table = |id: &str| {
            let found = template.tables.iter().find(|table| table.logical_id == id);
            found
                .map(|table| table.name.clone())
                .with_context(|| missing("table", id))
        };
        Ok(Resources {
            interactions: stream("InteractionsStream")?,
            triggers: stream("TriggersStream")?,
            rejected: stream("RejectedStream")?,
            profiles: table("ProfilesTable")?,
            decisions: table("DecisionsTable")?,
            profile_writer: template
                .functions
                .iter()
                .find(|function| function.binary == PROFILE_WRITER)
                .map(|function| function.logical_id.clone())
                .with_context(|| format!("no function of the template runs the program {PROFILE_WRITER}"))?,
        })
    }
}
