//! `usher import`: what other systems know, as events.

mod events;
mod identify;
mod rows;
mod scores;
mod traits;

use anyhow::Result;

use crate::Verdict;
use crate::args::{ImportCommand, ImportOptions};

/// Runs the command.
///
/// # Errors
/// When the file can't be read, or the stream does not take the events.
pub async fn run(options: ImportOptions) -> Result<Verdict> {
    match options.command {
        ImportCommand::Traits(options) => traits::run(options).await,
        ImportCommand::Scores(options) => scores::run(options).await,
    }
}
