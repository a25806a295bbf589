//! Apache Parquet, by the `parquet` crate's column writers: no Arrow is needed for one fixed schema.
//!
//! What has its own members in each log (arms, context, features) is JSON text; readers such as DuckDB and Spark take it apart.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use usher_domain::time::Timestamp;

use super::DecisionWriter;
use crate::decision_log::{LoggedCandidate, LoggedDecision};

/// Decisions that are written together.
const GROUP_ROWS: usize = 16 * 1024;
const SCHEMA: &str = "message decisions {
    required binary trigger_id (STRING);
    required binary user_id (STRING);
    required binary journey (STRING);
    required binary journey_version (STRING);
    required binary rule (STRING);
    required binary slot (STRING);
    required int64 decided_at (TIMESTAMP(MILLIS,true));
    required boolean held_out;
    required binary arms (JSON);
    required binary offer (STRING);
    required double propensity;
    optional double reward;
    required group outcomes (LIST) { repeated group list { required binary element (STRING); } }
    required boolean settled;
    optional binary model_version (STRING);
    required binary context (JSON);
    required group candidates (LIST) { repeated group list { required group element {
        required binary content (STRING);
        optional double probability;
        required double mean;
        required double spread;
        required binary features (JSON);
    } } }
}";
const UNWRITABLE: &str = "the decisions can't be written as Parquet";

/// A Parquet file that is being written.
pub struct Columns<W: Write + Send> {
    file: SerializedFileWriter<W>,
    waiting: Vec<LoggedDecision>,
}

impl<W: Write + Send> Columns<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(out: W) -> Result<Columns<W>> {
        let schema = parse_message_type(SCHEMA).context(UNWRITABLE)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).context(UNWRITABLE)?;
        Ok(Columns {
            file,
            waiting: Vec::new(),
        })
    }

    fn write_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        let mut group = Group {
            writer: self.file.next_row_group().context(UNWRITABLE)?,
        };
        group.texts(rows.iter().map(|row| row.trigger_id.as_str()))?;
        group.texts(rows.iter().map(|row| row.user_id.as_str()))?;
        group.texts(rows.iter().map(|row| row.journey.as_str()))?;
        group.texts(rows.iter().map(|row| row.journey_version.as_str()))?;
        group.texts(rows.iter().map(|row| row.rule.as_str()))?;
        group.texts(rows.iter().map(|row| row.slot.as_str()))?;
        let at_ms = |row: &LoggedDecision| row.decided_at.parse().unwrap_or(Timestamp::MIN).epoch_ms();
        group.values::<Int64Type>(rows.iter().map(at_ms))?;
        group.values::<BoolType>(rows.iter().map(|row| row.held_out))?;
        group.json(rows.iter().map(|row| &row.arms))?;
        group.texts(rows.iter().map(|row| row.offer.as_str()))?;
        group.values::<DoubleType>(rows.iter().map(|row| row.propensity))?;
        group.optional::<DoubleType>(rows.iter().map(|row| row.reward))?;
        let outcomes = Lists::of(&rows, |row| &row.outcomes);
        let texts = outcomes
            .items
            .iter()
            .map(|name| ByteArray::from(name.as_str()))
            .collect();
        group.column::<ByteArrayType>(texts, Some(&outcomes.defined), Some(&outcomes.repeated))?;
        group.values::<BoolType>(rows.iter().map(|row| row.settled))?;
        let version = |row: &LoggedDecision| row.model_version.as_deref().map(ByteArray::from);
        group.optional::<ByteArrayType>(rows.iter().map(version))?;
        group.json(rows.iter().map(|row| &row.context))?;
        group.candidates(&Lists::of(&rows, |row| &row.candidates))?;
        group.writer.close().context(UNWRITABLE)?;
        Ok(())
    }
}

impl<W: Write + Send> DecisionWriter for Columns<W> {
    fn add(&mut self, decision: &LoggedDecision) -> Result<bool> {
        self.waiting.push(decision.clone());
        if self.waiting.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if !self.waiting.is_empty() {
            self.write_group()?;
        }
        self.file.close().context(UNWRITABLE)?;
        Ok(())
    }
}

/// Lists of rows as Parquet has them: the items of all, and for each item (or empty list) whether it begins a row and whether
/// it is one.
struct Lists<'r, T> {
    items: Vec<&'r T>,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

impl<'r, T> Lists<'r, T> {
    fn of(rows: &'r [LoggedDecision], list: impl Fn(&'r LoggedDecision) -> &'r Vec<T>) -> Lists<'r, T> {
        let mut lists = Lists {
            items: Vec::new(),
            defined: Vec::new(),
            repeated: Vec::new(),
        };
        for row in rows {
            let items = list(row);
            if items.is_empty() {
                lists.defined.push(0);
                lists.repeated.push(0);
            }
            for (index, item) in items.iter().enumerate() {
                lists.items.push(item);
                lists.defined.push(1);
                lists.repeated.push(i16::from(index > 0));
            }
        }
        lists
    }
}

/// Columns are written one after the other, in the order of the schema.
struct Group<'f, W: Write> {
    writer: SerializedRowGroupWriter<'f, W>,
}

impl<W: Write + Send> Group<'_, W> {
    fn column<T: DataType>(
        &mut self,
        values: Vec<T::T>,
        defined: Option<&[i16]>,
        repeated: Option<&[i16]>,
    ) -> Result<()> {
        let column = self.writer.next_column().context(UNWRITABLE)?;
        let mut column = column.context(UNWRITABLE)?;
        let written = column.typed::<T>().write_batch(&values, defined, repeated);
        written.context(UNWRITABLE)?;
        column.close().context(UNWRITABLE)
    }

    fn values<T: DataType>(&mut self, values: impl Iterator<Item = T::T>) -> Result<()> {
        self.column::<T>(values.collect(), None, None)
    }

    fn texts<'r>(&mut self, texts: impl Iterator<Item = &'r str>) -> Result<()> {
        self.values::<ByteArrayType>(texts.map(ByteArray::from))
    }

    fn json<'r, T: serde::Serialize + 'r>(&mut self, values: impl Iterator<Item = &'r T>) -> Result<()> {
        let texts: Vec<ByteArray> = values
            .map(|value| serde_json::to_vec(value).map(ByteArray::from))
            .collect::<Result<_, _>>()
            .context(UNWRITABLE)?;
        self.values::<ByteArrayType>(texts.into_iter())
    }

    fn optional<T: DataType>(&mut self, values: impl Iterator<Item = Option<T::T>>) -> Result<()> {
        let values: Vec<Option<T::T>> = values.collect();
        let defined: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        self.column::<T>(values.into_iter().flatten().collect(), Some(&defined), None)
    }

    fn candidates(&mut self, lists: &Lists<'_, LoggedCandidate>) -> Result<()> {
        let (defined, repeated) = (Some(&lists.defined[..]), Some(&lists.repeated[..]));
        let items = &lists.items;
        let contents = items.iter().map(|item| ByteArray::from(item.content.as_str()));
        self.column::<ByteArrayType>(contents.collect(), defined, repeated)?;
        // A probability that is there is one step deeper.
        let mut each = items.iter();
        let depths: Vec<i16> = lists
            .defined
            .iter()
            .map(|depth| match depth {
                0 => 0,
                _ => 1 + i16::from(each.next().is_some_and(|item| item.probability.is_some())),
            })
            .collect();
        let probabilities = items.iter().filter_map(|item| item.probability);
        self.column::<DoubleType>(probabilities.collect(), Some(&depths), repeated)?;
        self.column::<DoubleType>(items.iter().map(|item| item.mean).collect(), defined, repeated)?;
        self.column::<DoubleType>(items.iter().map(|item| item.spread).collect(), defined, repeated)?;
        let features: Vec<ByteArray> = items
            .iter()
            .map(|item| serde_json::to_vec(&item.features).map(ByteArray::from))
            .collect::<Result<_, _>>()
            .context(UNWRITABLE)?;
        self.column::<ByteArrayType>(features, defined, repeated)
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::decision_log::tests::decision;

    #[test]
    fn a_parquet_reader_finds_what_was_written() {
        let mut second = decision(2);
        second.reward = None;
        second.outcomes = vec!["click".to_owned(), "like \"it\"".to_owned()];
        second.model_version = None;
        second.candidates[1].probability = None;
        second.held_out = true;
        second.context.insert("plan".to_owned(), "team".into());
        let mut third = decision(3);
        third.candidates.clear();
        third.outcomes.clear();
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut columns = Box::new(Columns::new(file.as_file()).expect("begun"));
        for decision in [decision(1), second, third] {
            assert!(columns.add(&decision).expect("written"));
        }
        columns.finish().expect("written");
        let reader = SerializedFileReader::new(file.reopen().expect("it is there")).expect("Parquet");
        assert_eq!(reader.metadata().file_metadata().num_rows(), 3);
        let rows: Vec<String> = reader
            .get_row_iter(None)
            .expect("rows")
            .map(|row| row.expect("a row").to_string())
            .collect();
        for (row, part) in [
            (0, "decided_at: 2026-01-05 10:00:00"),
            (
                0,
                "reward: 1.0, outcomes: [\"click\"], settled: true, model_version: \"8899aabbccddeeff\"",
            ),
            (1, "held_out: true"),
            (
                1,
                "reward: null, outcomes: [\"click\", \"like \"it\"\"], settled: true, model_version: null",
            ),
            (
                1,
                r#"context: "{"plan":"team"}", candidates: [{content: "a", probability: 0.25, mean: 0.1, spread: 0.2, features: "{}"}, {content: "b", probability: null, mean: 0.1"#,
            ),
            (2, "outcomes: [], settled"),
            (2, "candidates: []"),
        ] {
            assert!(rows[row].contains(part), "{part}\n{}", rows[row]);
        }
    }

    #[test]
    fn an_empty_log_is_a_file_without_rows() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let columns = Box::new(Columns::new(file.as_file()).expect("begun"));
        columns.finish().expect("written");
        let reader = SerializedFileReader::new(file.reopen().expect("it is there")).expect("Parquet");
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }
}
