//! Where the events come from: a file of events, or a stream as it was recorded.

use anyhow::{Result, bail};

use super::blocks::{Block, Piece};
use crate::args::ReplayOptions;
use crate::arrival_clock::data_arrival;
use crate::events_file::{EventsFile, lines_of};
use crate::fold::decompressed;
use crate::gzip;
use crate::progress::Progress;
use crate::record::RecordReader;

/// Text in a block, beyond which it ends with its line: some 200 events, so that what they decode to is still in a core's
/// cache when it is folded. Larger ones were slower (256 KB by a tenth, 1 MB by a third).
const BLOCK_BYTES: usize = 64 * 1024;
/// Records in a block.
const BLOCK_RECORDS: usize = 1000;

/// Where the events come from.
pub enum Source {
    /// Events, which arrive at their own time.
    Events(EventsFile),
    /// A stream, with its arrivals.
    Record(RecordReader),
}

impl Source {
    /// What the options name.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn of(options: &ReplayOptions) -> Result<Source> {
        match (&options.events, &options.record) {
            (_, Some(record)) => Ok(Source::Record(RecordReader::open(record)?)),
            (Some(events), None) => Ok(Source::Events(EventsFile::open(events)?)),
            (None, None) => bail!("there is nothing to replay; give --events or --record"),
        }
    }

    /// How far it is read, as people see it.
    pub fn progress(&self) -> Progress {
        match self {
            Source::Events(events) => Progress::of_file(events.size(), events.bytes_read()),
            Source::Record(record) => Progress::of_file(record.size(), record.bytes_read()),
        }
    }

    /// The next block; none at the end.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        match self {
            Source::Events(events) => {
                let Some((first_number, text)) = events.next_lines(BLOCK_BYTES)? else {
                    return Ok(None);
                };
                if has_compressed_line(&text) {
                    return Ok(Some(Block::Pieces(lines_taken_apart(first_number, &text))));
                }
                Ok(Some(Block::Lines { first_number, text }))
            }
            Source::Record(record) => {
                let mut pieces = Vec::new();
                while pieces.len() < BLOCK_RECORDS
                    && let Some(recorded) = record.next_record()?
                {
                    let data = match gzip::is_gzip(&recorded.data) {
                        true => decompressed(&recorded.data),
                        false => Ok(recorded.data),
                    };
                    pieces.push(Piece {
                        number: recorded.number,
                        data,
                        arrived_at: Some(recorded.arrived_at),
                    });
                }
                Ok((!pieces.is_empty()).then_some(Block::Pieces(pieces)))
            }
        }
    }
}

/// Whether any line starts as gzip data does.
fn has_compressed_line(text: &[u8]) -> bool {
    let mut after_an_end = vec![b'\n'];
    after_an_end.extend(gzip::MAGIC);
    gzip::is_gzip(text) || memchr::memmem::find(text, &after_an_end).is_some()
}

fn lines_taken_apart(first_number: u64, text: &[u8]) -> Vec<Piece> {
    let pieces = lines_of(first_number, text).map(|line| Piece {
        number: line.number,
        data: match gzip::is_gzip(line.bytes) {
            true => decompressed(line.bytes),
            false => Ok(line.bytes.to_vec()),
        },
        arrived_at: data_arrival(line.bytes),
    });
    pieces.collect()
}
