//! The journey that a function runs, read from its file at the cold start.

use std::path::{Path, PathBuf};

use usher_domain::journey::Journey;

/// Why there is no journey to run.
#[derive(Debug, thiserror::Error)]
pub enum JourneyFileError {
    /// The file can't be read.
    #[error("can't read the journey {}; set USHER_JOURNEY_PATH to a readable file, or attach the journey's layer", path.display())]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file holds mistakes, all of which are told.
    #[error("the journey {} has mistakes; `usher check` shows them too:\n{diagnostics}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Each mistake with its line, what it says, and what to write instead.
        diagnostics: String,
    },
}

/// Reads and checks a journey.
///
/// # Errors
/// The file can't be read, or holds mistakes.
pub fn read_journey(path: &Path) -> Result<Journey, JourneyFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| JourneyFileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let journey = Journey::parse(&text).map_err(|diagnostics| JourneyFileError::Wrong {
        path: path.to_owned(),
        diagnostics: diagnostics.render(&path.display().to_string(), &text),
    })?;
    tracing::info!(
        journey = journey.name,
        version = journey.version,
        rules = journey.rules.len(),
        "journey read"
    );
    Ok(journey)
}
