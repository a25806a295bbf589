//! What is wrong with a journey file: every error at once, each with its place.

use std::fmt;

use crate::limits::DIAGNOSTIC_TEXT_BYTES_MAX;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// Where in the file's structure, such as `triggers[2].when`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be told.
    pub suggestion: Option<String>,
}

/// Everything that is wrong with a journey file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// At least one, in the order of the file.
    pub errors: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The errors for people: file, line and column, the offending line of text, a marker, and the suggestion.
    pub fn render(&self, file: &str, text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        self.errors.iter().map(|error| error.render("", file, &lines)).collect()
    }
}

impl Diagnostic {
    /// For people, with a word in front of what is wrong. `lines` are the file's.
    pub fn render(&self, word: &str, file: &str, lines: &[&str]) -> String {
        let gutter = self.line.to_string();
        let margin = " ".repeat(gutter.len());
        let mut rendered = format!("{file}:{}:{}: {word}{}\n", self.line, self.column, self.message);
        if let Some(line) = lines.get(self.line.saturating_sub(1)) {
            let (line, before) = around(line, self.column.saturating_sub(1));
            rendered.push_str(&format!("  {gutter} | {line}\n"));
            rendered.push_str(&format!("  {margin} | {}^ {}\n", " ".repeat(before), self.path));
        }
        if let Some(suggestion) = &self.suggestion {
            rendered.push_str(&format!("  {margin} = did you mean `{suggestion}`?\n"));
        }
        rendered
    }
}

/// The part of a line around a column, and how many characters of it come before: a line can be as long as its file, and
/// is shown again with each mistake in it.
fn around(line: &str, chars_before: usize) -> (String, usize) {
    if line.len() <= SHOWN_CHARS_MAX {
        return (line.to_owned(), chars_before);
    }
    let from = chars_before.saturating_sub(SHOWN_CHARS_MAX / 2);
    let part = line.chars().skip(from).take(SHOWN_CHARS_MAX).collect();
    (part, chars_before - from)
}

/// A text, or of a long one the front.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > DIAGNOSTIC_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DIAGNOSTIC_TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.errors.len() == 1 { "error" } else { "errors" };
        write!(formatter, "the journey has {} {plural}", self.errors.len())?;
        for error in &self.errors {
            write!(formatter, "; line {}: {}: {}", error.line, error.path, error.message)?;
            if let Some(suggestion) = &error.suggestion {
                write!(formatter, " (did you mean `{suggestion}`?)")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Characters of a long line that are shown with a mistake in it.
const SHOWN_CHARS_MAX: usize = 240;

/// How alike two names must be, from 0 to 1, for one to be suggested for the other (Jaro-Winkler).
const SUGGESTION_LIKENESS_MIN: f64 = 0.75;

/// The known name that is most like a wrong one.
pub fn did_you_mean(wrong: &str, known: &mut dyn Iterator<Item = &str>) -> Option<String> {
    let scored = known.map(|name| (strsim::jaro_winkler(wrong, name), name));
    let (likeness, name) = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (likeness >= SUGGESTION_LIKENESS_MIN).then(|| name.to_owned())
}
