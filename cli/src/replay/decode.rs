//! From the lines of a block to events that arrived, sorted into lanes by their user.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use usher_domain::event::{ArrivedEvent, ClockMark, Event, Shard};
use usher_domain::hash::hash_bytes;
use usher_domain::time::Timestamp;
use usher_wire::event;
use usher_wire::reject::Reject;

use super::blocks::{Block, Piece};
use super::families::Families;
use crate::arrival_clock::data_arrival;
use crate::events_file::lines_of;
use crate::fold::position_of_line;

/// Parts that users are split into by their key's hash. Each is folded by one thread at a time; how many there are has no
/// say in what comes out.
pub const LANES: usize = 32;

/// What a block's lines are.
pub struct Decoded<'b> {
    /// The events, in the order of the lines, with their numbers.
    pub events: Vec<(u64, ArrivedEvent<'b>)>,
    /// For each lane, the indices of the events whose user is in it.
    pub lanes: Vec<Vec<u32>>,
    /// Whether an event names another profile of its user.
    pub has_alias: bool,
    /// The lines that can't be used, by number.
    pub rejects: Vec<(u64, Reject)>,
    /// The lines that are not blank.
    pub lines: u64,
}

/// The lane of a user who was never named together with another key.
pub fn lane_of(user: &str) -> usize {
    (hash_bytes(user.as_bytes()) % LANES as u64) as usize
}

/// Decodes a block. Nothing arrives later than `latest`: the wall clock.
pub fn decode<'b>(block: &'b Block, shard: &'b Shard, latest: Timestamp, families: &Families) -> Decoded<'b> {
    let mut decoded = Decoded {
        events: Vec::with_capacity(block.events_expected()),
        lanes: Vec::new(),
        has_alias: false,
        rejects: Vec::new(),
        lines: 0,
    };
    match block {
        Block::Lines { first_number, text } => {
            for line in lines_of(*first_number, text) {
                let (arrived_at, event) = decode_at_own_time(line.bytes, latest);
                decoded.add(line.number, arrived_at, event, shard);
            }
        }
        Block::Pieces(pieces) => {
            for piece in pieces {
                let (arrived_at, event) = decode_piece(piece, latest);
                decoded.add(piece.number, arrived_at, event, shard);
            }
        }
    }
    decoded.lanes = decoded.sorted(families);
    decoded
}

impl<'b> Decoded<'b> {
    /// For each lane, the indices of the events whose user is in it.
    pub fn sorted(&self, families: &Families) -> Vec<Vec<u32>> {
        let mut lanes = vec![Vec::new(); LANES];
        for (index, (_, arrived)) in (0..).zip(&self.events) {
            let user = arrived.event.user.as_ref();
            let of_family = (!families.is_empty()).then(|| families.lane(user)).flatten();
            lanes[of_family.unwrap_or_else(|| lane_of(user))].push(index);
        }
        lanes
    }

    fn add(&mut self, number: u64, arrived_at: Timestamp, event: Result<Event<'b>, Reject>, shard: &'b Shard) {
        self.lines += 1;
        match event {
            Ok(event) => {
                self.has_alias |= event.alias.is_some();
                let arrived = ArrivedEvent {
                    event,
                    arrived_at,
                    shard,
                    position: position_of_line(number),
                };
                self.events.push((number, arrived));
            }
            Err(reject) => self.rejects.push((number, reject)),
        }
    }
}

fn decode_piece(piece: &Piece, latest: Timestamp) -> (Timestamp, Result<Event<'_>, Reject>) {
    match (&piece.data, piece.arrived_at) {
        (Ok(data), Some(arrived_at)) => (arrived_at, event::decode(data, arrived_at)),
        (Ok(data), None) => decode_at_own_time(data, latest),
        (Err(reject), _) => (latest, Err(reject.clone())),
    }
}

/// What [`data_arrival`] and then [`event::decode`] give, reading the line once where its time of sending is not told
/// apart from its event's time: then when it arrives follows from the event itself.
fn decode_at_own_time(line: &[u8], latest: Timestamp) -> (Timestamp, Result<Event<'_>, Reject>) {
    if !may_tell_when_sent(line) {
        match event::decode(line, latest) {
            Ok(event) if event.clock == ClockMark::AsWritten && event.at <= latest => return (event.at, Ok(event)),
            // It can't be used, whenever it arrives: one of the future arrives at the latest.
            Err(reject) => return (latest, Err(reject)),
            Ok(_) => {}
        }
    }
    let arrived_at = data_arrival(line).map_or(latest, |arrived_at| arrived_at.min(latest));
    (arrived_at, event::decode(line, arrived_at))
}

/// Whether a line may have a `sent_at`: it has those letters, or some that are written as escapes.
fn may_tell_when_sent(line: &[u8]) -> bool {
    static SENT_AT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"sent_at"));
    memchr::memchr(b'\\', line).is_some() || SENT_AT.find(line).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_read_once_is_what_it_is_when_read_twice() {
        let latest: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        for members in [
            r#""timestamp":"2026-01-05T09:00:00Z""#,
            r#""timestamp":"2026-01-05T10:00:00Z""#,
            r#""timestamp":"2026-01-05T10:04:00Z""#,
            r#""timestamp":"2026-01-05T10:06:00Z""#,
            r#""timestamp":"2999-01-01T00:00:00Z""#,
            r#""timestamp":"2026-01-05T09:00:00Z","sent_at":"2026-01-05T09:30:00Z""#,
            r#""timestamp":"2026-01-05T09:00:00Z","sent\u005fat":"2026-01-05T09:30:00Z""#,
            r#""timestamp":"2026-01-05T09:00:00Z","sent_at":"2026-01-05T11:30:00Z""#,
            r#""timestamp":"2026-01-05T09:00:00Z","sent_at":5"#,
            r#""timestamp":"no""#,
            r#""timestamp":1"#,
        ] {
            for line in [
                format!(r#"{{"event_id":"1","event_type":"a","user_id":"u",{members}}}"#),
                format!(r#"{{"event_id":"1","event_type":"a",{members}}}"#),
            ] {
                let line = line.as_bytes();
                let arrived_at = data_arrival(line).map_or(latest, |arrived_at| arrived_at.min(latest));
                let expected = event::decode(line, arrived_at);
                let (found_at, found) = decode_at_own_time(line, latest);
                assert_eq!(found, expected, "{members}");
                assert!(found.is_err() || found_at == arrived_at, "{members}");
            }
        }
    }
}
