//! The rows of a file, one after the other, whatever is in it.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

use anyhow::{Context, Result, bail};
use usher_domain::journey::did_you_mean;
use usher_domain::limits::EVENT_BYTES_MAX;

use super::identify::{Cell, Row};
use crate::events_file::EventsFile;

/// Bytes that a row of a table may have. A quote that is never closed would make one cell of the rest of the file.
const ROW_BYTES_MAX: u64 = EVENT_BYTES_MAX as u64;

/// Bytes that were read long ago are let go when there are so many.
const FORGOTTEN_BYTES_MIN: usize = 64 * 1024;
/// What some editors write in front of a whole file.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Which columns are what.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    pub id: String,
    pub anonymous_id: Option<String>,
    pub at: Option<String>,
    /// The traits; empty for all other columns.
    pub traits: Vec<String>,
    /// Traits that stay text.
    pub text: Vec<String>,
}

impl Columns {
    fn is_trait(&self, name: &str) -> bool {
        let is_key = self.id == name || self.anonymous_id.as_deref() == Some(name) || self.at.as_deref() == Some(name);
        if self.traits.is_empty() {
            !is_key
        } else {
            self.traits.iter().any(|column| column == name)
        }
    }
}

/// A row and where it is, or why it is none.
pub type Found<T> = (u64, Result<T, String>);

/// The rows of a file.
pub enum Rows {
    Csv(Box<Table>),
    Jsonl(Box<Objects>),
}

impl Rows {
    /// The rows of a table, whose first line names the columns.
    ///
    /// # Errors
    /// When it can't be read, or a column that is asked for is not there.
    pub fn csv(file: EventsFile, delimiter: u8, columns: &Columns) -> Result<Rows> {
        Ok(Rows::Csv(Box::new(Table::new(file.into_reader(), delimiter, columns)?)))
    }

    /// The rows of a file with one JSON object a line.
    pub fn jsonl(lines: EventsFile, columns: Columns) -> Rows {
        Rows::Jsonl(Box::new(Objects { lines, columns }))
    }

    /// Gives the next row to `understand`, and what came of it with the row's line; none at the end.
    ///
    /// # Errors
    /// When the file can't be read any further.
    pub fn next<T>(&mut self, understand: impl FnOnce(&Row<'_>) -> Result<T, String>) -> Result<Option<Found<T>>> {
        match self {
            Rows::Csv(table) => table.next(understand),
            Rows::Jsonl(objects) => {
                let Objects { lines, columns } = &mut **objects;
                let Some(line) = lines.next_line()? else {
                    return Ok(None);
                };
                let bytes = line.bytes.strip_prefix(UTF8_MARK).unwrap_or(line.bytes);
                let understood = object(bytes, columns).and_then(|row| understand(&row));
                Ok(Some((line.number, understood)))
            }
        }
    }
}

/// A file with one JSON object a line.
pub struct Objects {
    lines: EventsFile,
    columns: Columns,
}

/// The row in a line of JSON.
fn object(bytes: &[u8], columns: &Columns) -> Result<Row<'static>, String> {
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(format!("it has over {EVENT_BYTES_MAX} bytes"));
    }
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON object: {error}"))?;
    let mut row = Row {
        user_id: Cell::Empty,
        anonymous_id: Cell::Empty,
        at: columns.at.as_ref().map(|_| Cell::Empty),
        traits: Vec::new(),
    };
    for (name, value) in members {
        if value.is_null() {
            continue;
        }
        // A column may be the user's id and a trait.
        if columns.is_trait(&name) {
            row.traits.push((name.clone().into(), Cell::Json(value.clone())));
        }
        if name == columns.id {
            row.user_id = Cell::Json(value);
        } else if Some(&name) == columns.anonymous_id.as_ref() {
            row.anonymous_id = Cell::Json(value);
        } else if Some(&name) == columns.at.as_ref() {
            row.at = Some(Cell::Json(value));
        }
    }
    Ok(row)
}

/// A CSV file.
pub struct Table {
    reader: csv::Reader<Bounded>,
    record: csv::ByteRecord,
    names: Vec<String>,
    user_id: usize,
    anonymous_id: Option<usize>,
    at: Option<usize>,
    traits: Vec<usize>,
}

impl Table {
    fn new(mut file: Box<dyn BufRead + Send>, delimiter: u8, columns: &Columns) -> Result<Table> {
        let mut head = Vec::with_capacity(UTF8_MARK.len());
        let front = file.by_ref().take(UTF8_MARK.len() as u64).read_to_end(&mut head);
        front.context("cannot read the names of the columns")?;
        if head == UTF8_MARK {
            head.clear();
        }
        let file = io::Cursor::new(head).chain(file);
        let bounded = Bounded::new(file);
        // Rows of another length are told, not taken for the end.
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(bounded);
        let head = reader.byte_headers().context("cannot read the names of the columns")?;
        let names: Vec<String> = head
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let place = |wanted: &str, option: &str| -> Result<usize> {
            let mut places = (0..names.len()).filter(|index| names[*index] == wanted);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => bail!("two columns are called `{wanted}`; give each a name of its own"),
                (None, _) => match did_you_mean(wanted, &mut names.iter().map(String::as_str)) {
                    Some(name) => bail!("no column is called `{wanted}` ({option}); did you mean `{name}`?"),
                    None => bail!(
                        "no column is called `{wanted}` ({option}); the columns are: {}",
                        names.join(", ")
                    ),
                },
            }
        };
        let traits: Vec<usize> = if columns.traits.is_empty() {
            (0..names.len())
                .filter(|index| columns.is_trait(&names[*index]))
                .collect()
        } else {
            let places = columns.traits.iter().map(|name| place(name, "--traits"));
            places.collect::<Result<_>>()?
        };
        for index in &traits {
            if names[*index].is_empty() {
                bail!(
                    "column {} has no name; give it one, or name those wanted with --traits",
                    index + 1
                );
            }
            place(&names[*index], "--traits")?;
        }
        for name in &columns.text {
            place(name, "--text")?;
        }
        // Only asked for anonymous users, a file needs no column with user ids.
        let user_id = match (&columns.anonymous_id, place(&columns.id, "--id-column")) {
            (_, Ok(place)) => place,
            (Some(_), Err(_)) if !names.contains(&columns.id) => usize::MAX,
            (_, Err(error)) => return Err(error),
        };
        let named = |name: &Option<String>, option| name.as_deref().map(|name| place(name, option)).transpose();
        Ok(Table {
            user_id,
            anonymous_id: named(&columns.anonymous_id, "--anonymous-id-column")?,
            at: named(&columns.at, "--at-column")?,
            traits,
            names,
            reader,
            record: csv::ByteRecord::new(),
        })
    }

    fn next<T>(&mut self, understand: impl FnOnce(&Row<'_>) -> Result<T, String>) -> Result<Option<Found<T>>> {
        self.reader.get_mut().begin_row();
        let begins = self.reader.position().byte();
        let more = self.reader.read_byte_record(&mut self.record);
        let line = self.reader.get_mut().line_at(begins);
        if !more.with_context(|| format!("cannot read the row at line {line}"))? {
            return Ok(None);
        }
        let understood = self.row().and_then(|row| understand(&row));
        Ok(Some((line, understood)))
    }

    fn row(&self) -> Result<Row<'_>, String> {
        let (cells, columns) = (self.record.len(), self.names.len());
        if cells != columns {
            return Err(format!("it has {cells} cells, and there are {columns} columns"));
        }
        let traits = self.traits.iter().map(|index| {
            let cell = self.cell(*index)?;
            Ok((Cow::Borrowed(self.names[*index].as_str()), cell))
        });
        let optional = |place: Option<usize>| place.map(|index| self.cell(index)).transpose();
        Ok(Row {
            user_id: optional(Some(self.user_id).filter(|index| *index < columns))?.unwrap_or(Cell::Empty),
            anonymous_id: optional(self.anonymous_id)?.unwrap_or(Cell::Empty),
            at: optional(self.at)?,
            traits: traits.collect::<Result<_, String>>()?,
        })
    }

    fn cell(&self, index: usize) -> Result<Cell<'_>, String> {
        let bytes = self.record.get(index).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8 text", self.names[index]))?;
        Ok(if text.trim().is_empty() {
            Cell::Empty
        } else {
            Cell::Text(text.into())
        })
    }
}

/// A file of which one row may take so much, and that knows its lines: the reader of CSV takes an end of line for a part of
/// the next row where it has two characters, or where the line is blank.
struct Bounded {
    file: Box<dyn Read + Send>,
    /// Bytes that may be read before [`Bounded::begin_row`].
    allowance: u64,
    /// What was read of the file, from the byte `base` on.
    recent: Vec<u8>,
    base: u64,
    /// How far into `recent` lines were counted, and the line there.
    counted: usize,
    line: u64,
}

impl Bounded {
    fn new(file: impl Read + Send + 'static) -> Bounded {
        Bounded {
            file: Box::new(file),
            allowance: ROW_BYTES_MAX,
            recent: Vec::new(),
            base: 0,
            counted: 0,
            line: 1,
        }
    }

    fn begin_row(&mut self) {
        self.allowance = ROW_BYTES_MAX;
        if self.counted >= FORGOTTEN_BYTES_MIN {
            self.recent.drain(..self.counted);
            self.base += self.counted as u64;
            self.counted = 0;
        }
    }

    /// The line of the row that begins at a byte of the file, or after ends of lines from there on. Rows are asked for in
    /// their order.
    fn line_at(&mut self, byte: u64) -> u64 {
        let begins = usize::try_from(byte.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let begins = begins.clamp(self.counted, self.recent.len());
        let (before, from) = (&self.recent[self.counted..begins], &self.recent[begins..]);
        self.line += memchr::memchr_iter(b'\n', before).count() as u64;
        self.counted = begins;
        let ends = from.iter().take_while(|byte| b"\r\n".contains(byte));
        self.line + ends.filter(|byte| **byte == b'\n').count() as u64
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read as u64 > self.allowance {
            let message = format!("the row has over {ROW_BYTES_MAX} bytes; is a quote not closed?");
            return Err(io::Error::other(message));
        }
        self.allowance -= read as u64;
        self.recent.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gzip;

    fn columns() -> Columns {
        Columns {
            id: "user_id".to_owned(),
            ..Columns::default()
        }
    }

    fn open(bytes: &[u8]) -> EventsFile {
        EventsFile::of("test", io::Cursor::new(bytes.to_vec()), None).expect("readable")
    }

    /// Each row's line with its cells, or what is wrong with it.
    fn all(mut rows: Rows) -> Vec<String> {
        let show = |row: &Row<'_>| {
            let traits = row.traits.iter().map(|(name, cell)| match cell {
                Cell::Empty => format!("{name}"),
                Cell::Text(text) => format!("{name}={text:?}"),
                Cell::Json(value) => format!("{name}={value}"),
            });
            let traits: Vec<String> = traits.collect();
            match &row.user_id {
                Cell::Text(user) => Ok(format!("{user}: {}", traits.join(" "))),
                Cell::Json(user) => Ok(format!("{user}: {}", traits.join(" "))),
                Cell::Empty => Err("nobody".to_owned()),
            }
        };
        let mut seen = Vec::new();
        loop {
            match rows.next(show) {
                Ok(None) => return seen,
                Ok(Some((line, Ok(row) | Err(row)))) => seen.push(format!("{line} {row}")),
                Err(error) => {
                    seen.push(format!("end: {error:#}"));
                    return seen;
                }
            }
        }
    }

    fn csv(bytes: &[u8]) -> Vec<String> {
        all(Rows::csv(open(bytes), b',', &columns()).expect("the columns are there"))
    }

    #[test]
    fn p10_a_hostile_table_is_read_to_its_end_with_the_line_of_each_row() {
        let table = b"\xef\xbb\xbfuser_id,plan, seats \r\n\
            ann,team,3\r\n\
            \"bob\",\"a \"\"quoted\"\", and\r\nbroken one\",4\r\n\
            \r\n\
            carl,team\r\n\
            dora,team,3,4\r\n\
            ,team,1\r\n\
            eve,\xff\xfe,1\r\n\
            \"f\"ra\"nk,\x00,\"\"\r\n\
            gus,\"\",5";
        let expected = [
            r#"2 ann: plan="team" seats="3""#,
            r#"3 bob: plan="a \"quoted\", and\r\nbroken one" seats="4""#,
            "6 it has 2 cells, and there are 3 columns",
            "7 it has 4 cells, and there are 3 columns",
            "8 nobody",
            "9 `plan` is not UTF-8 text",
            "10 fra\"nk: plan=\"\\0\" seats",
            r#"11 gus: plan seats="5""#,
        ];
        assert_eq!(csv(table), expected);
        assert_eq!(csv(&gzip::compress(table)), expected);
        assert_eq!(csv(b"user_id,plan\n"), Vec::<String>::new());
    }

    #[test]
    fn p10_a_quote_that_is_never_closed_takes_no_more_memory_than_a_row_may() {
        let mut table = b"user_id,plan\nann,team\nbob,\"".to_vec();
        table.resize(table.len() + 2 * ROW_BYTES_MAX as usize, b'x');
        let rows = csv(&table);
        assert_eq!(rows.len(), 2);
        assert!(
            rows[1].contains("line 3") && rows[1].contains("quote not closed"),
            "{}",
            rows[1]
        );
        // What is large and closed is a row.
        let mut table = b"user_id,plan\nann,\"".to_vec();
        table.resize(table.len() + 100_000, b'x');
        table.extend(b"\"\nbob,team\n");
        assert_eq!(csv(&table).len(), 2);
    }

    #[test]
    fn columns_that_are_asked_for_must_be_there_once() {
        let wanted = |traits: &[&str]| Columns {
            traits: traits.iter().map(|name| (*name).to_owned()).collect(),
            ..columns()
        };
        let anonymous = Columns {
            anonymous_id: Some("device".to_owned()),
            ..columns()
        };
        let dated = Columns {
            at: Some("updated".to_owned()),
            ..columns()
        };
        let text = Columns {
            text: vec!["zip".to_owned()],
            ..columns()
        };
        for (head, columns, expected) in [
            ("user_id,plan", wanted(&["plan"]), Ok(())),
            ("user_id,plan,plan", wanted(&["user_id"]), Ok(())),
            ("user_id,plan,plan", columns(), Err("two columns are called `plan`")),
            ("user_id,plan", wanted(&["plam"]), Err("did you mean `plan`?")),
            ("userid,plan", columns(), Err("did you mean `userid`?")),
            ("a,b", columns(), Err("the columns are: a, b")),
            ("user_id,,plan", columns(), Err("column 2 has no name")),
            ("user_id,,plan", wanted(&["plan"]), Ok(())),
            ("device,plan", anonymous, Ok(())),
            ("user_id,plan", dated, Err("--at-column")),
            ("user_id,plan", text, Err("--text")),
            ("", columns(), Err("no column is called `user_id`")),
        ] {
            match (Rows::csv(open(head.as_bytes()), b',', &columns), expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(part)) if format!("{error:#}").contains(part) => {}
                (Err(error), _) => panic!("{head}: {error:#}"),
                (Ok(_), Err(part)) => panic!("{head}: {part} is not told"),
            }
        }
    }

    #[test]
    fn rows_of_json_say_themselves_what_they_hold() {
        let lines = "\u{feff}{\"user_id\":\"ann\",\"plan\":\"team\",\"seats\":3,\"left\":null}\n\n[1]\n{\"user_id\":7}\n\
                     {\"plan\":\"team\"}\n{\"user_id\":\"bob\",\"tags\":[\"a\"]";
        let rows = all(Rows::jsonl(open(lines.as_bytes()), columns()));
        assert_eq!(rows[0], r#"1 "ann": plan="team" seats=3"#);
        assert!(rows[1].starts_with("3 it is no JSON object"), "{}", rows[1]);
        assert_eq!(rows[2], "4 7: ");
        assert_eq!(rows[3], "5 nobody");
        assert!(rows[4].starts_with("6 it is no JSON object"), "{}", rows[4]);
    }
}
