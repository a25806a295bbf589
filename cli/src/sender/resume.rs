//! The state file of `usher send --resume`: how far an interrupted run came.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::acknowledged::SavedLines;

/// The arrangement of the file that this version reads and writes.
const STATE_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct StoredState {
    version: u32,
    stream: String,
    events: String,
    #[serde(flatten)]
    lines: SavedLines,
}

/// A state file.
pub struct ResumeFile {
    path: PathBuf,
    stream: String,
    events: String,
}

impl ResumeFile {
    /// Reads the state file at `path`, for sending `events` to `stream`. Nothing is acknowledged where there is none yet.
    ///
    /// # Errors
    /// When it can't be read, or is about other events or another stream.
    pub fn open(path: &Path, stream: &str, events: &str) -> Result<(ResumeFile, SavedLines)> {
        let file = ResumeFile {
            path: path.to_owned(),
            stream: stream.to_owned(),
            events: events.to_owned(),
        };
        let shown = path.display();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((file, SavedLines::default())),
            Err(error) => return Err(error).with_context(|| format!("cannot read the state file {shown}")),
        };
        let state: StoredState = serde_json::from_str(&text).with_context(|| {
            format!("{shown} is no state file of this command; delete it to begin anew, or name another one")
        })?;
        if state.version != STATE_VERSION {
            bail!(
                "the state file {shown} has version {}, and this version of usher reads {STATE_VERSION}",
                state.version
            );
        }
        if state.stream != stream || state.events != events {
            bail!(
                "the state file {shown} is about sending {} to {}, not {events} to {stream}; delete it to begin anew, or \
                 name another one",
                state.events,
                state.stream
            );
        }
        Ok((file, state.lines))
    }

    /// Writes how far this run came. The file is replaced as a whole, so an interruption leaves the one before.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, lines: SavedLines) -> Result<()> {
        let state = StoredState {
            version: STATE_VERSION,
            stream: self.stream.clone(),
            events: self.events.clone(),
            lines,
        };
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let write = || -> Result<()> {
            fs::write(&beside, serde_json::to_string(&state)? + "\n")?;
            fs::rename(&beside, &self.path)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the state file {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_for_the_same_events_and_stream_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        let (file, lines) = ResumeFile::open(&path, "interactions", "e.jsonl").expect("none yet");
        assert_eq!(lines, SavedLines::default());
        let lines = SavedLines {
            acknowledged_lines: 7,
            last_line: 6,
            last_line_hash: "00ff".to_owned(),
            also_acknowledged: vec![(9, 12)],
        };
        file.save(lines.clone()).expect("written");
        assert_eq!(
            ResumeFile::open(&path, "interactions", "e.jsonl").expect("readable").1,
            lines
        );
        for (stream, events) in [("other", "e.jsonl"), ("interactions", "other.jsonl")] {
            assert!(ResumeFile::open(&path, stream, events).is_err(), "{stream} {events}");
        }
        fs::write(&path, "{}").expect("written");
        assert!(ResumeFile::open(&path, "interactions", "e.jsonl").is_err());
    }
}
