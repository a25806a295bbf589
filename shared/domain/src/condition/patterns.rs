//! The regular expressions of a condition, compiled once with it.

use hashbrown::HashMap;
use regex::{Regex, RegexBuilder};

use crate::limits::PATTERN_BYTES_MAX;

/// Compiled patterns by their text.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    compiled: HashMap<String, Regex>,
}

impl Patterns {
    /// Compiles a pattern, unless it is known; an error says what is wrong with it.
    pub(super) fn compile(&mut self, pattern: &str) -> Result<(), String> {
        if !self.compiled.contains_key(pattern) {
            let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
            let compiled = compiled.map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => {
                    format!("the pattern takes more than {PATTERN_BYTES_MAX} bytes when compiled")
                }
                // Its message draws the pattern over several lines; the last says what is wrong.
                error => {
                    let message = error.to_string();
                    let what = message.lines().last().unwrap_or_default();
                    format!(
                        "the pattern is no regular expression: {}",
                        what.trim_start_matches("error: ")
                    )
                }
            })?;
            self.compiled.insert(pattern.to_owned(), compiled);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.compiled.is_empty()
    }

    /// Whether a text matches a pattern; nothing where the pattern is unknown.
    pub(super) fn is_match(&self, pattern: &str, text: &str) -> Option<bool> {
        Some(self.compiled.get(pattern)?.is_match(text))
    }
}
