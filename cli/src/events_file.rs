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
/// Of a piece that is read at once, the share that is kept free for the rest of its last line.
const LINE_ROOM_SHARE: usize = 8;
/// Where a line is cut: one byte more than an event may have, so that whoever decodes it finds it too long.
const LINE_CUT_AT_BYTES: usize = EVENT_BYTES_MAX + 1;

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

    /// The lines of something that is called `name` in errors.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn of(name: &str, source: impl Read + Send + 'static, size: Option<u64>) -> Result<EventsFile> {
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

    /// What is in it, decompressed, for whoever does not want lines.
    pub fn into_reader(self) -> Box<dyn BufRead + Send> {
        self.reader
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

    /// The next whole lines, in one piece that ends with its first line at or after `bytes`, and the number of the first of
    /// them; none at the end. [`lines_of`] takes them apart.
    ///
    /// # Errors
    /// When reading fails, such as for broken gzip data.
    pub fn next_lines(&mut self, bytes: usize) -> Result<Option<(u64, Vec<u8>)>> {
        let mut text = Vec::with_capacity(bytes + bytes / LINE_ROOM_SHARE);
        let read = self.read_lines(bytes, &mut text);
        let first_number = self.line_number + 1;
        self.line_number += memchr::memchr_iter(b'\n', &text).count() as u64;
        self.line_number += u64::from(text.last().is_some_and(|last| *last != b'\n'));
        read.with_context(|| {
            format!(
                "cannot read {} after line {}; is the file complete?",
                self.name, self.line_number
            )
        })?;
        Ok((!text.is_empty()).then_some((first_number, text)))
    }

    fn read_lines(&mut self, bytes: usize, text: &mut Vec<u8>) -> io::Result<()> {
        self.reader.by_ref().take(bytes as u64).read_to_end(text)?;
        if text.is_empty() || text.ends_with(b"\n") {
            return Ok(());
        }
        let line_start = memchr::memrchr(b'\n', text).map_or(0, |end| end + 1);
        let room = LINE_CUT_AT_BYTES.saturating_sub(text.len() - line_start);
        self.reader.by_ref().take(room as u64).read_until(b'\n', text)?;
        if !text.ends_with(b"\n") && text.len() - line_start >= LINE_CUT_AT_BYTES {
            self.reader.skip_until(b'\n')?;
            text.push(b'\n');
        }
        Ok(())
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let most = LINE_CUT_AT_BYTES;
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

/// Takes a piece of a file apart: its lines that are not blank, as [`EventsFile::next_line`] gives them one by one.
pub fn lines_of(first_number: u64, text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = text;
    let mut next_number = first_number;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let bytes = &rest[..end.min(LINE_CUT_AT_BYTES)];
            rest = rest.get(end + 1..).unwrap_or_default();
            let number = next_number;
            next_number += 1;
            if !bytes.trim_ascii().is_empty() {
                return Some(Line { number, bytes });
            }
        }
        None
    })
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

    /// The lines, which are the same in pieces of whatever length.
    fn all_lines(bytes: Vec<u8>) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut file = EventsFile::of("test", Cursor::new(bytes.clone()), None)?;
        let mut lines = Vec::new();
        while let Some(line) = file.next_line()? {
            lines.push((line.number, line.bytes.to_vec()));
        }
        for piece_bytes in [1, 2, 7, 100, 1 << 20] {
            let mut file = EventsFile::of("test", Cursor::new(bytes.clone()), None)?;
            let mut in_pieces = Vec::new();
            while let Some((first_number, text)) = file.next_lines(piece_bytes)? {
                in_pieces.extend(lines_of(first_number, &text).map(|line| (line.number, line.bytes.to_vec())));
            }
            assert_eq!(in_pieces, lines, "in pieces of {piece_bytes}");
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
        assert_eq!(all_lines(text.to_vec()).expect("readable"), expected);
        assert_eq!(all_lines(gzip::compress(text)).expect("readable"), expected);
        // Several gzip files, one after the other, are a gzip file.
        let twice = [gzip::compress(b"1\n"), gzip::compress(b"2\n")].concat();
        assert_eq!(all_lines(twice).expect("readable").len(), 2);
        for (bytes, count) in [(&b""[..], 0), (b"x", 1), (b"\n", 0)] {
            assert_eq!(all_lines(bytes.to_vec()).expect("readable").len(), count);
        }
    }

    #[test]
    fn p10_a_line_without_end_takes_no_more_memory_than_an_event_may() {
        let mut bytes = vec![b'x'; EVENT_BYTES_MAX + 100];
        bytes.extend(b"\nnext\n");
        let lines = all_lines(bytes).expect("readable");
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
        assert!(all_lines(bytes).is_err());
    }
}
