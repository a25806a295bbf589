//! Events in a file: one a line, plain or gzip, read as a stream whatever its size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use usher_domain::limits::EVENT_BYTES_MAX;

use crate::gzip;

/// How much is read at once.
const READ_BYTES: usize = 32 * 1024;
/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// The lines of an events file.
pub struct EventsFile {
    name: String,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    line_number: u64,
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

/// One line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'f> {
    /// Its number, from 1; blank lines count.
    pub number: u64,
    /// Its bytes without the end of the line. A line that is longer than an event may be is cut one byte after that, so
    /// whoever decodes it finds it too long.
    pub bytes: &'f [u8],
}

impl EventsFile {
    /// Opens a file, or standard input for `-`. Whether it is gzip is told by its first bytes, not by its name.
    ///
    /// # Errors
    /// When it can't be opened or read.
    pub fn open(path: &Path) -> Result<EventsFile> {
        if path.as_os_str() == STANDARD_INPUT {
            return EventsFile::of("standard input", io::stdin(), None);
        }
        let name = path.display().to_string();
        let unreadable =
            || format!("cannot read the events {name}; give a file with one JSON event a line, plain or gzip");
        let file = File::open(path).with_context(unreadable)?;
        let size = file
            .metadata()
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|metadata| metadata.len());
        EventsFile::of(&name, file, size)
    }

    fn of(name: &str, source: impl Read + Send + 'static, size: Option<u64>) -> Result<EventsFile> {
        let read = Arc::new(AtomicU64::new(0));
        let mut source = Counted {
            source,
            read: Arc::clone(&read),
        };
        let mut head = [0; gzip::MAGIC.len()];
        let mut length = 0;
        while length < head.len() {
            match source
                .read(&mut head[length..])
                .with_context(|| format!("cannot read {name}"))?
            {
                0 => break,
                more => length += more,
            }
        }
        let whole = Cursor::new(head).take(length as u64).chain(source);
        let reader: Box<dyn BufRead + Send> = if gzip::is_gzip(&head) {
            let compressed = BufReader::with_capacity(READ_BYTES, whole);
            Box::new(BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(compressed)))
        } else {
            Box::new(BufReader::with_capacity(READ_BYTES, whole))
        };
        Ok(EventsFile {
            name: name.to_owned(),
            reader,
            line: Vec::new(),
            line_number: 0,
            read,
            size,
        })
    }

    /// How many bytes were read from the disk, for a progress bar.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// How many bytes the file has on the disk; unknown for a pipe.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next line that is not blank; none at the end.
    ///
    /// # Errors
    /// When reading fails, such as for broken gzip data.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            let more = self.read_line().with_context(|| {
                format!(
                    "cannot read {} after line {}; is the file complete?",
                    self.name, self.line_number
                )
            })?;
            if !more {
                return Ok(None);
            }
            self.line_number += 1;
            if !self.line.trim_ascii().is_empty() {
                return Ok(Some(Line {
                    number: self.line_number,
                    bytes: &self.line,
                }));
            }
        }
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let most = EVENT_BYTES_MAX + 1;
        let read = self
            .reader
            .by_ref()
            .take(most as u64)
            .read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read == most {
            self.reader.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }
}

/// Counts what goes through.
struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(bytes: Vec<u8>) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut file = EventsFile::of("test", Cursor::new(bytes), None)?;
        let mut lines = Vec::new();
        while let Some(line) = file.next_line()? {
            lines.push((line.number, line.bytes.to_vec()));
        }
        Ok(lines)
    }

    #[test]
    fn lines_come_with_their_numbers_from_plain_and_gzip_files() {
        let text = b"{\"a\":1}\n\n  \n\xff\n{\"b\":2}";
        let expected = vec![
            (1, b"{\"a\":1}".to_vec()),
            (4, b"\xff".to_vec()),
            (5, b"{\"b\":2}".to_vec()),
        ];
        assert_eq!(lines_of(text.to_vec()).expect("readable"), expected);
        assert_eq!(lines_of(gzip::compress(text)).expect("readable"), expected);
        // Several gzip files, one after the other, are a gzip file.
        let twice = [gzip::compress(b"1\n"), gzip::compress(b"2\n")].concat();
        assert_eq!(lines_of(twice).expect("readable").len(), 2);
        for (bytes, count) in [(&b""[..], 0), (b"x", 1), (b"\n", 0)] {
            assert_eq!(lines_of(bytes.to_vec()).expect("readable").len(), count);
        }
    }

    #[test]
    fn p10_a_line_without_end_takes_no_more_memory_than_an_event_may() {
        let mut bytes = vec![b'x'; EVENT_BYTES_MAX + 100];
        bytes.extend(b"\nnext\n");
        let lines = lines_of(bytes).expect("readable");
        assert_eq!(
            lines.iter().map(|(_, line)| line.len()).collect::<Vec<_>>(),
            [EVENT_BYTES_MAX + 1, 4]
        );
    }

    /// What `replay` does with a file, up to its summary.
    #[test]
    fn p1_p10_hostile_lines_are_counted_with_a_reason_and_stop_nothing() {
        let good = br#"{"event_id":"1","event_type":"click","timestamp":"2026-01-05T09:59:00Z","user_id":"u"}"#;
        let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        let bomb = [&b"\xef\xbb\xbf"[..], &gzip::compress(&vec![b' '; 1 << 20])].concat();
        let mut lines: Vec<&[u8]> = vec![b"\0", b"\xff\xfe", b"\x1f\x8b", b"{}", b"[]", b"null", b"1e400", b"\""];
        lines.extend([deep.as_bytes(), good]);
        let mut bytes = lines.join(&b"\n"[..]);
        bytes.push(b'\n');
        bytes.extend(bomb.iter().filter(|byte| **byte != b'\n'));
        let journey = usher_domain::journey::Journey::parse("journey: j").expect("a journey");
        for file in [bytes.clone(), gzip::compress(&bytes)] {
            let mut file = EventsFile::of("test", Cursor::new(file), None).expect("readable");
            let mut fold = crate::fold::Fold::new(&journey);
            while let Some(line) = file.next_line().expect("it goes on") {
                fold.line(line.number, line.bytes, crate::arrival_clock::wall_clock());
            }
            let counts = fold.counts();
            assert_eq!((counts.lines, counts.applied), (11, 1));
            assert_eq!(counts.rejected_total(), 10, "{:?}", counts.rejected.keys());
            for rejected in counts.rejected.values() {
                assert!(!rejected.first.detail.is_empty() && rejected.first.detail.len() <= 1024);
            }
        }
    }

    #[test]
    fn a_gzip_file_that_is_cut_is_an_error() {
        let mut bytes = gzip::compress(b"{\"a\":1}\n{\"b\":2}\n");
        bytes.truncate(bytes.len() - 10);
        assert!(lines_of(bytes).is_err());
    }
}
