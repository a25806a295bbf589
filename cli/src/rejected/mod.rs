//! `usher rejected`: what could not be used, why, and again once it is mended.

mod list;
mod read;
mod resend;
mod show;

use anyhow::Result;

use crate::Verdict;
use crate::args::{RejectedCommand, RejectedOptions};

/// Runs the command.
///
/// # Errors
/// When the stream can't be read, or records can't be put.
pub async fn run(options: RejectedOptions) -> Result<Verdict> {
    match options.command {
        RejectedCommand::List(options) => list::run(options).await,
        RejectedCommand::Show(options) => show::run(options).await,
        RejectedCommand::Resend(options) => resend::run(options).await,
    }
}
