//! The interactions stream as it came to be: every record in the order of the puts, repeats included, with its partition key
//! and its arrival. `usher local --record` writes it, `usher replay --record` folds it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use usher_domain::time::Timestamp;
use usher_local::StreamRecord;

/// The longest line: a record of 10 MiB whose every byte is escaped, and what is around it.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct RecordedLine<'a> {
    shard_id: Cow<'a, str>,
    sequence_number: Cow<'a, str>,
    partition_key: Cow<'a, str>,
    /// RFC 3339, to the millisecond.
    arrived_at: Cow<'a, str>,
    /// The bytes, where they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Cow<'a, str>>,
    /// The bytes, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
}

/// A file that takes records as they come. Clones are the same file.
#[derive(Clone)]
pub struct RecordWriter {
    path: PathBuf,
    out: Arc<Mutex<Out>>,
}

struct Out {
    file: BufWriter<File>,
    /// What went wrong first; nothing is written after it.
    error: Option<std::io::Error>,
}

impl RecordWriter {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn create(path: &Path) -> Result<RecordWriter> {
        let file = File::create(path).with_context(|| format!("cannot write the record to {}", path.display()))?;
        Ok(RecordWriter {
            path: path.to_owned(),
            out: Arc::new(Mutex::new(Out {
                file: BufWriter::new(file),
                error: None,
            })),
        })
    }

    /// Writes one record. What goes wrong is told by [`RecordWriter::finish`].
    pub fn write(&self, record: &StreamRecord) {
        let text = std::str::from_utf8(&record.data).ok();
        let line = RecordedLine {
            shard_id: Cow::Borrowed(&record.shard_id),
            sequence_number: Cow::Borrowed(&record.sequence_number),
            partition_key: Cow::Borrowed(&record.partition_key),
            arrived_at: Timestamp::from_epoch_ms(record.arrival_ms).to_string().into(),
            data: text.map(Cow::Borrowed),
            data_base64: text
                .is_none()
                .then(|| base64_simd::STANDARD.encode_to_string(&record.data).into()),
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.error.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut out.file, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| out.file.write_all(b"\n"));
        out.error = written.err();
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// When anything could not be written.
    pub fn finish(&self) -> Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match out.error.take() {
            Some(error) => Err(error),
            None => out.file.flush(),
        };
        result.with_context(|| format!("cannot write the record to {}", self.path.display()))
    }
}

/// One record that is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the file, from 1.
    pub number: u64,
    /// The bytes that were put.
    pub data: Vec<u8>,
    /// When it arrived.
    pub arrived_at: Timestamp,
}

/// The records of a file.
pub struct RecordReader {
    name: String,
    file: BufReader<File>,
    number: u64,
    size: Option<u64>,
    read: Arc<AtomicU64>,
}

impl RecordReader {
    /// Opens a file.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> Result<RecordReader> {
        let name = path.display().to_string();
        let file = File::open(path)
            .with_context(|| format!("cannot read the record {name}; give a file that `usher local --record` wrote"))?;
        Ok(RecordReader {
            size: file.metadata().ok().map(|metadata| metadata.len()),
            file: BufReader::new(file),
            name,
            number: 0,
            read: Arc::default(),
        })
    }

    /// How many bytes the file has.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes were read, for a progress bar.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// When it can't be read or is none.
    pub fn next_record(&mut self) -> Result<Option<Recorded>> {
        let mut line = Vec::new();
        let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let read = read.with_context(|| format!("cannot read {} after line {}", self.name, self.number))?;
        if read == 0 {
            return Ok(None);
        }
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.number += 1;
        let recorded = recorded(self.number, &line);
        let place = || {
            format!(
                "line {} of {} is no record that `usher local --record` wrote",
                self.number, self.name
            )
        };
        recorded.with_context(place).map(Some)
    }
}

fn recorded(number: u64, line: &[u8]) -> Result<Recorded> {
    let line: RecordedLine<'_> = serde_json::from_slice(line)?;
    let data = match (&line.data, &line.data_base64) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(base64)) => base64_simd::STANDARD
            .decode_to_vec(base64.as_bytes())
            .context("its data_base64 is not base64")?,
        _ => bail!("it must have either `data` or `data_base64`"),
    };
    let arrived_at = line.arrived_at.parse::<Timestamp>();
    Ok(Recorded {
        number,
        data,
        arrived_at: arrived_at.ok().context("its arrived_at is no time")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(data: &[u8], arrival_ms: i64) -> StreamRecord {
        StreamRecord {
            stream: "interactions".into(),
            shard_id: "shardId-000000000000".into(),
            sequence_number: "49500000000000000000000000000000000000000000000000000001".to_owned(),
            partition_key: "ann".to_owned(),
            data: data.to_vec(),
            put: None,
            arrival_ms,
        }
    }

    #[test]
    fn a_record_is_read_back_byte_for_byte_with_its_arrival() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.jsonl");
        let writer = RecordWriter::create(&path).expect("created");
        let all: [&[u8]; 5] = [
            br#"{"event_id":"1"}"#,
            b"",
            b"\n\"\\",
            b"\x1f\x8b\xff\x00",
            "naïve ☃".as_bytes(),
        ];
        for (data, arrival_ms) in all.iter().zip(1_767_607_200_001..) {
            writer.write(&record(data, arrival_ms));
        }
        writer.finish().expect("written");
        let mut reader = RecordReader::open(&path).expect("it is there");
        for (number, (data, arrival_ms)) in (1..).zip(all.iter().zip(1_767_607_200_001..)) {
            let recorded = reader.next_record().expect("readable");
            let expected = Recorded {
                number,
                data: data.to_vec(),
                arrived_at: Timestamp::from_epoch_ms(arrival_ms),
            };
            assert_eq!(recorded, Some(expected));
        }
        assert_eq!(reader.next_record().expect("readable"), None);
        assert_eq!(reader.size(), Some(reader.bytes_read().load(Ordering::Relaxed)));
    }

    #[test]
    fn what_is_no_record_is_told_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.jsonl");
        for text in [
            "{}",
            "not json",
            r#"{"shard_id":"s","sequence_number":"1","partition_key":"k","arrived_at":"2026-01-05T10:00:00Z"}"#,
            r#"{"shard_id":"s","sequence_number":"1","partition_key":"k","arrived_at":"soon","data":"x"}"#,
            r#"{"shard_id":"s","sequence_number":"1","partition_key":"k","arrived_at":"2026-01-05T10:00:00Z","data_base64":"*"}"#,
        ] {
            std::fs::write(&path, text).expect("written");
            let error = RecordReader::open(&path)
                .expect("it is there")
                .next_record()
                .expect_err(text);
            assert!(error.to_string().starts_with("line 1 of "), "{error}");
        }
    }
}
