//! Where the project's files are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The name of the template.
const TEMPLATE: &str = "template.yaml";
/// The journey, from the template's folder.
const JOURNEY: &str = "journey/journey.yaml";

/// The template that was named, or template.yaml in this folder or one above.
///
/// # Errors
/// When there is none.
pub fn find_template(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        let absolute = std::path::absolute(path);
        return absolute.with_context(|| format!("cannot tell where {} is", path.display()));
    }
    let here = std::env::current_dir().context("cannot tell which folder this is")?;
    let found = here
        .ancestors()
        .map(|folder| folder.join(TEMPLATE))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "there is no {TEMPLATE} in {} or above; change to the project's folder, or give --template",
            here.display()
        ),
    }
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// The journey that was named, or the one beside the template.
///
/// # Errors
/// When its place can't be told.
pub fn find_journey(named: Option<&Path>, template: &Path) -> Result<PathBuf> {
    match named {
        Some(path) => std::path::absolute(path).with_context(|| format!("cannot tell where {} is", path.display())),
        None => Ok(folder_of(template).join(JOURNEY)),
    }
}
