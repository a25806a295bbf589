//! `usher import scores`: what a model elsewhere makes of a user and a content, as a trait of the user.

use std::borrow::Cow;

use anyhow::Result;
use usher_domain::limits::IDENTIFIER_BYTES_MAX;

use super::identify::{Cell, Row};
use super::traits;
use crate::Verdict;
use crate::args::{ImportScoresOptions, ImportTraitsOptions};

/// What comes before a content's id in the name of the trait with its score, as journeys read it.
const TRAIT_PREFIX: &str = "score.";

/// What the columns of a row mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Each is a trait.
    Traits,
    /// One names a content, and another has the user's score of it.
    Scores {
        /// The column with the content's id.
        content: String,
        /// The column with the score.
        score: String,
    },
}

/// Runs the command.
///
/// # Errors
/// When the file can't be read, the state file is about something else, or the stream does not take the events.
pub async fn run(options: ImportScoresOptions) -> Result<Verdict> {
    let (options, meaning) = as_traits(options);
    traits::import(options, meaning).await
}

/// The same import, of two columns that together are one trait.
fn as_traits(options: ImportScoresOptions) -> (ImportTraitsOptions, Meaning) {
    let meaning = Meaning::Scores {
        content: options.content_column.clone(),
        score: options.score_column.clone(),
    };
    let options = ImportTraitsOptions {
        rows: options.rows,
        stream: options.stream,
        format: options.format,
        delimiter: options.delimiter,
        id_column: options.id_column,
        anonymous_id_column: options.anonymous_id_column,
        at: options.at,
        at_column: options.at_column,
        traits: vec![options.content_column, options.score_column],
        text: Vec::new(),
        strict: options.strict,
        dry_run: options.dry_run,
        resume: options.resume,
        endpoint_url: options.endpoint_url,
    };
    (options, meaning)
}

impl Meaning {
    /// The row in terms of traits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of<'r>(&self, row: &'r Row<'_>) -> Result<Cow<'r, Row<'r>>, String> {
        let Meaning::Scores { content, score } = self else {
            return Ok(Cow::Borrowed(row));
        };
        let cell = |name: &str| {
            let named = row.traits.iter().find(|(known, _)| known == name);
            named.map_or(&Cell::Empty, |(_, cell)| cell)
        };
        let content = match cell(content) {
            Cell::Text(text) => text.trim().to_owned(),
            Cell::Json(serde_json::Value::String(text)) => text.trim().to_owned(),
            Cell::Json(serde_json::Value::Number(number)) => number.to_string(),
            Cell::Empty | Cell::Json(_) => String::new(),
        };
        if content.is_empty() {
            return Err("it names no content".to_owned());
        }
        if content.len() + TRAIT_PREFIX.len() > IDENTIFIER_BYTES_MAX {
            return Err(format!(
                "the content's id has over {} bytes",
                IDENTIFIER_BYTES_MAX - TRAIT_PREFIX.len()
            ));
        }
        let value = match cell(score) {
            Cell::Empty => Cell::Empty,
            Cell::Json(serde_json::Value::Number(number)) => Cell::Json(number.clone().into()),
            Cell::Text(text) => match serde_json::from_str::<serde_json::Number>(text.trim()) {
                Ok(number) => Cell::Json(number.into()),
                Err(_) => return Err("its score is no number".to_owned()),
            },
            Cell::Json(_) => return Err("its score is no number".to_owned()),
        };
        Ok(Cow::Owned(Row {
            user_id: row.user_id.clone(),
            anonymous_id: row.anonymous_id.clone(),
            at: row.at.clone(),
            traits: vec![(format!("{TRAIT_PREFIX}{content}").into(), value)],
        }))
    }
}

#[cfg(test)]
mod tests;
