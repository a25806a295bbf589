//! Reading a journey file for a command that needs a good one.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use usher_domain::journey::{Diagnostics, Journey};

/// Reads the text of a journey file.
///
/// # Errors
/// When it can't be read.
pub fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the journey {}; give the path of a journey file (YAML)",
            path.display()
        )
    })
}

/// Reads and checks a journey file.
///
/// # Errors
/// When it can't be read, or with everything that is wrong with it.
pub fn load(path: &Path) -> Result<Journey> {
    let text = read_text(path)?;
    Journey::parse(&text).map_err(|diagnostics| anyhow!("{}", rendered(&diagnostics, path, &text)))
}

/// Every error with its place, and a closing line that counts them.
pub fn rendered(diagnostics: &Diagnostics, path: &Path, text: &str) -> String {
    let count = diagnostics.errors.len();
    let plural = if count == 1 { "error" } else { "errors" };
    format!(
        "{}{}: {count} {plural}",
        diagnostics.render(&path.display().to_string(), text),
        path.display()
    )
}
