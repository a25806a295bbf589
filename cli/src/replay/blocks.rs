//! What is replayed, in blocks: one thread reads and decompresses ahead of those that decode and fold.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use anyhow::Result;
use usher_domain::time::Timestamp;
use usher_wire::reject::Reject;

use super::source::Source;

/// Blocks that are read ahead: enough that neither side waits for the other.
const BLOCKS_AHEAD: usize = 16;

/// A part of a file.
pub enum Block {
    /// Whole lines, as they are in the file.
    Lines {
        /// The number of the first one.
        first_number: u64,
        /// The lines, each with its end but perhaps the last.
        text: Vec<u8>,
    },
    /// What had to be taken apart: records, or lines of which some are compressed.
    Pieces(Vec<Piece>),
}

/// Bytes that a line has at least, as most events go: room for those of a block is made at once.
const LINE_BYTES_TYPICAL: usize = 200;

impl Block {
    /// How many events it has, about.
    pub fn events_expected(&self) -> usize {
        match self {
            Block::Lines { text, .. } => text.len() / LINE_BYTES_TYPICAL,
            Block::Pieces(pieces) => pieces.len(),
        }
    }
}

/// A line or record that was taken apart.
pub struct Piece {
    /// Its number, from 1.
    pub number: u64,
    /// The event's bytes, or why there are none.
    pub data: Result<Vec<u8>, Reject>,
    /// When it arrived, where that is known.
    pub arrived_at: Option<Timestamp>,
}

/// Starts a thread that reads the source to its end, or to the first error, which is the last thing to come.
pub fn read_ahead<'scope>(scope: &'scope Scope<'scope, '_>, source: Source) -> Receiver<Result<Block>> {
    let (sender, receiver) = sync_channel(BLOCKS_AHEAD);
    scope.spawn(move || read_to_the_end(source, &sender));
    receiver
}

fn read_to_the_end(mut source: Source, sender: &SyncSender<Result<Block>>) {
    while let Some(block) = source.next_block().transpose() {
        let is_last = block.is_err();
        // Nobody listens any more when folding has failed.
        if sender.send(block).is_err() || is_last {
            return;
        }
    }
}
