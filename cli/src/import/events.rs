//! Rows as the lines of an events file, so that they are sent like any other events: with retries, in order, and going on after
//! an interruption.
//!
//! A row that is not sent is a blank line, so that line numbers of the two agree and a resumed import finds its place.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::identify::{Reading, Understood};
use super::rows::Rows;
use super::scores::Meaning;

/// Rows that are told by line.
pub const ROWS_TOLD_MAX: usize = 20;
/// Events that a dry run shows.
const EVENTS_SHOWN_MAX: usize = 3;
/// Names of traits that are counted; a file of JSON may have another one in each row.
const TRAITS_COUNTED_MAX: usize = 1000;

/// What came of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read.
    pub rows: u64,
    /// Rows that became events.
    pub events: u64,
    /// Rows that say nothing of any trait.
    pub silent: u64,
    /// Rows that can't be used.
    pub bad: u64,
    /// The first of them, with their lines.
    pub told: Vec<(u64, String)>,
    /// How many events have each trait.
    pub traits: BTreeMap<String, u64>,
    /// Values that no profile could store: how many of each trait, and why.
    pub left_out: BTreeMap<String, (u64, &'static str)>,
    /// The first events.
    pub shown: Vec<String>,
}

/// The counts, while they are made.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    /// What came of the rows so far.
    pub fn counts(&self) -> Counts {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Counts> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: u64, understood: Result<Understood, String>) -> String {
        let mut counts = self.locked();
        counts.rows += 1;
        match understood {
            Ok(Understood::Event { json, traits, left_out }) => {
                counts.events += 1;
                for name in traits {
                    if counts.traits.len() < TRAITS_COUNTED_MAX || counts.traits.contains_key(&name) {
                        *counts.traits.entry(name).or_default() += 1;
                    }
                }
                for (name, why) in left_out {
                    if counts.left_out.len() < TRAITS_COUNTED_MAX || counts.left_out.contains_key(&name) {
                        counts.left_out.entry(name).or_insert((0, why)).0 += 1;
                    }
                }
                if counts.shown.len() < EVENTS_SHOWN_MAX {
                    counts.shown.push(json.clone());
                }
                return json;
            }
            Ok(Understood::Silent) => counts.silent += 1,
            Err(why) => {
                counts.bad += 1;
                if counts.told.len() < ROWS_TOLD_MAX {
                    counts.told.push((line, why));
                }
            }
        }
        "\n".to_owned()
    }
}

/// The events that rows say, one a line.
pub struct RowEvents {
    rows: Rows,
    meaning: Meaning,
    reading: Reading,
    tally: Tally,
    /// Whether a row that can't be used ends it.
    strict: bool,
    line: io::Cursor<Vec<u8>>,
}

impl RowEvents {
    /// The events of these rows.
    pub fn new(rows: Rows, meaning: Meaning, reading: Reading, strict: bool) -> RowEvents {
        RowEvents {
            rows,
            meaning,
            reading,
            strict,
            tally: Tally::default(),
            line: io::Cursor::default(),
        }
    }

    /// What came of the rows, also while others read them.
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

impl Read for RowEvents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.line.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let (reading, meaning) = (&self.reading, &self.meaning);
            let next = (self.rows).next(|row| meaning.of(row).and_then(|row| reading.understand(&row)));
            let Some((line, understood)) = next.map_err(|error| io::Error::other(format!("{error:#}")))? else {
                return Ok(0);
            };
            if let (true, Err(why)) = (self.strict, &understood) {
                let message = format!("line {line}: {why}; with --strict nothing after it is sent");
                return Err(io::Error::other(message));
            }
            self.line = io::Cursor::new(self.tally.note(line, understood).into_bytes());
        }
    }
}
