//! Triggers as JSON lines, each as it is on the stream.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file that takes triggers as they come.
pub struct TriggersFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TriggersFile {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn create(path: &Path) -> Result<TriggersFile> {
        let file = File::create(path).with_context(|| format!("cannot write the triggers to {}", path.display()))?;
        Ok(TriggersFile {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    /// Writes the JSON of one trigger as a line.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&mut self, json: &[u8]) -> Result<()> {
        let written = self.file.write_all(json).and_then(|()| self.file.write_all(b"\n"));
        written.with_context(|| format!("cannot write the triggers to {}", self.path.display()))
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> Result<()> {
        self.file
            .flush()
            .with_context(|| format!("cannot write the triggers to {}", self.path.display()))
    }
}
