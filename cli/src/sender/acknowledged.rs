//! Which lines the stream has acknowledged: all up to one, and some beyond it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The acknowledged lines of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Every line up to this one is done.
    up_to: u64,
    /// The number and hash of the last of those that was a record.
    last: Option<(u64, u64)>,
    /// Lines beyond it that are done, with their hashes; blank ones without.
    beyond: BTreeMap<u64, Option<u64>>,
}

/// [`Acknowledged`] as it is kept in a file between two runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLines {
    /// Every line up to this one is acknowledged.
    pub acknowledged_lines: u64,
    /// The last of those that is not blank.
    pub last_line: u64,
    /// Its hash: it tells whether the file is still the same.
    pub last_line_hash: String,
    /// Lines beyond that are acknowledged too: first and last of each run of them.
    pub also_acknowledged: Vec<(u64, u64)>,
}

impl Acknowledged {
    /// Every line up to this one is done.
    pub fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Notes that a line is done.
    pub fn add(&mut self, line: u64, hash: u64) {
        self.note(line, Some(hash));
    }

    /// Notes that a line needs nothing: it is blank.
    pub fn add_blank(&mut self, line: u64) {
        self.note(line, None);
    }

    fn note(&mut self, line: u64, hash: Option<u64>) {
        self.beyond.insert(line, hash);
        while let Some(hash) = self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
            if let Some(hash) = hash {
                self.last = Some((self.up_to, hash));
            }
        }
    }

    /// To keep between two runs.
    pub fn save(&self) -> SavedLines {
        let mut also: Vec<(u64, u64)> = Vec::new();
        for line in self.beyond.keys() {
            match also.last_mut() {
                Some((_, last)) if *last + 1 == *line => *last = *line,
                _ => also.push((*line, *line)),
            }
        }
        let (last_line, hash) = self.last.unwrap_or_default();
        SavedLines {
            acknowledged_lines: self.up_to,
            last_line,
            last_line_hash: format!("{hash:016x}"),
            also_acknowledged: also,
        }
    }
}

impl SavedLines {
    /// Whether a line was acknowledged.
    pub fn contains(&self, line: u64) -> bool {
        line <= self.acknowledged_lines
            || self
                .also_acknowledged
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// Whether a line can be the one that was acknowledged last, by its hash; true for every other line.
    pub fn agrees_with(&self, line: u64, hash: u64) -> bool {
        line != self.last_line || self.last_line_hash == format!("{hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_done_up_to_the_first_that_is_not() {
        let mut acknowledged = Acknowledged::default();
        for line in [1, 2, 5, 6, 9] {
            acknowledged.add(line, line * 16);
        }
        let saved = acknowledged.save();
        assert_eq!((saved.acknowledged_lines, saved.last_line), (2, 2));
        assert_eq!(saved.also_acknowledged, [(5, 6), (9, 9)]);
        let contained: Vec<u64> = (1..=10).filter(|line| saved.contains(*line)).collect();
        assert_eq!(contained, [1, 2, 5, 6, 9]);
        assert!(saved.agrees_with(2, 32) && !saved.agrees_with(2, 33) && saved.agrees_with(1, 33));
        acknowledged.add(4, 4);
        acknowledged.add_blank(3);
        let saved = acknowledged.save();
        assert_eq!((saved.acknowledged_lines, saved.last_line), (6, 6));
        assert_eq!(saved.also_acknowledged, [(9, 9)]);
    }
}
