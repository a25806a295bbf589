//! A tile of trends as it is stored: CBOR, with the ids of an event type and kind together, in order, so that equal tiles are
//! equal bytes. A stored tile says its layout first; one of a newer version is refused, and with the next minute it is gone.

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode};
use usher_domain::journey::TrendBy;
use usher_domain::sequence_number::Position;
use usher_domain::trends::TrendKey;
use usher_domain::trends::tile::{TileParts, TrendTile};

use crate::profile_state::{load_sequence_number, store_sequence_number};

/// The layout that is written.
pub const LAYOUT: u8 = 1;

/// Why stored bytes are no tile.
#[derive(Debug, thiserror::Error)]
pub enum TrendTileError {
    /// They are not what this module writes.
    #[error("the stored tile is damaged")]
    Damaged(#[source] DecodeError),
    /// They were written by another version.
    #[error("the stored tile has layout {0}, but this version reads layout {LAYOUT}: deploy the newer version")]
    OtherLayout(u8),
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct StoredTile {
    #[n(0)]
    layout: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    sequence_number: Vec<u8>,
    #[n(2)]
    sub_sequence_number: u64,
    #[n(3)]
    events: u64,
    #[n(4)]
    error: u64,
    /// 4 bytes each, oldest first.
    #[cbor(n(5), with = "minicbor::bytes")]
    recent_ids: Vec<u8>,
    #[n(6)]
    groups: Vec<StoredGroup>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct StoredGroup {
    /// 0 by content, 1 by category.
    #[n(0)]
    by: u8,
    #[n(1)]
    event_type: String,
    #[n(2)]
    counts: Vec<(String, u64)>,
}

/// The bytes to store for a tile.
pub fn encode(tile: &TrendTile) -> Vec<u8> {
    let parts = tile.parts();
    let mut groups: Vec<StoredGroup> = Vec::new();
    for (TrendKey { event_type, by, id }, count) in parts.counts {
        let by = store_by(by);
        match groups.last_mut() {
            Some(group) if group.by == by && group.event_type == event_type => group.counts.push((id, count)),
            _ => groups.push(StoredGroup {
                by,
                event_type,
                counts: vec![(id, count)],
            }),
        }
    }
    let stored = StoredTile {
        layout: LAYOUT,
        sequence_number: store_sequence_number(parts.applied.sequence_number),
        sub_sequence_number: parts.applied.sub_sequence_number,
        events: parts.events,
        error: parts.error,
        recent_ids: parts.recent_ids.into_iter().flat_map(u32::to_be_bytes).collect(),
        groups,
    };
    let mut bytes = Vec::with_capacity(1024);
    // Writing to memory can't fail.
    if minicbor::encode(&stored, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// The parts of the tile in stored bytes; [`TrendTile::from_parts`] goes on counting on them.
///
/// # Errors
/// When the bytes are no tile that this version can read.
pub fn decode(bytes: &[u8]) -> Result<TileParts, TrendTileError> {
    let mut decoder = Decoder::new(bytes);
    let layout = decoder
        .array()
        .and_then(|_| decoder.u8())
        .map_err(TrendTileError::Damaged)?;
    if layout != LAYOUT {
        return Err(TrendTileError::OtherLayout(layout));
    }
    let stored: StoredTile = minicbor::decode(bytes).map_err(TrendTileError::Damaged)?;
    stored
        .into_parts()
        .ok_or_else(|| TrendTileError::Damaged(DecodeError::message("a part of it is impossible")))
}

impl StoredTile {
    fn into_parts(self) -> Option<TileParts> {
        let (ids, rest) = self.recent_ids.as_chunks::<4>();
        if !rest.is_empty() {
            return None;
        }
        let mut counts = Vec::new();
        for group in self.groups {
            let by = load_by(group.by)?;
            counts.extend(group.counts.into_iter().map(|(id, count)| {
                let event_type = group.event_type.clone();
                (TrendKey { event_type, by, id }, count)
            }));
        }
        Some(TileParts {
            applied: Position {
                sequence_number: load_sequence_number(&self.sequence_number)?,
                sub_sequence_number: self.sub_sequence_number,
            },
            events: self.events,
            error: self.error,
            counts,
            recent_ids: ids.iter().map(|id| u32::from_be_bytes(*id)).collect(),
        })
    }
}

fn store_by(by: TrendBy) -> u8 {
    match by {
        TrendBy::Content => 0,
        TrendBy::Category => 1,
    }
}

fn load_by(by: u8) -> Option<TrendBy> {
    match by {
        0 => Some(TrendBy::Content),
        1 => Some(TrendBy::Category),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use usher_domain::event::Event;
    use usher_domain::limits::TREND_TILE_IDS_MAX;

    use super::*;

    fn tile(contents: &[(u8, String, Option<String>)]) -> TrendTile {
        let mut tile = TrendTile::default();
        for (index, (event_type, content, category)) in contents.iter().enumerate() {
            let event = Event {
                id_hash: index as u64,
                event_type: ["click", "like", "1:"][usize::from(*event_type)].into(),
                content_id: Some(content.into()),
                category: category.as_deref().map(Into::into),
                ..Event::default()
            };
            let position = Position {
                sequence_number: "49590338271490256608559692538361571095921575989136588898"
                    .parse()
                    .expect("a number"),
                sub_sequence_number: index as u64,
            };
            tile.count(&event, position);
        }
        tile
    }

    proptest! {
        #[test]
        fn a_tile_is_read_back_as_it_was_and_goes_on_the_same(
            contents in prop::collection::vec((0u8..3, "[a-f]{0,3}", prop::option::of("[gh]")), 0..600),
        ) {
            let tile = tile(&contents);
            let bytes = encode(&tile);
            let read = decode(&bytes).expect("it was written so");
            prop_assert_eq!(&read, &tile.parts());
            prop_assert_eq!(encode(&TrendTile::from_parts(read)), bytes);
        }

        /// P10: any bytes are a tile or refused.
        #[test]
        fn p10_no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
            let _ = decode(&bytes).map(TrendTile::from_parts);
            let mut broken = encode(&tile(&[(0, "a".to_owned(), Some("b".to_owned())), (1, "c".to_owned(), None)]));
            broken.truncate(cut);
            for (place, byte) in bytes.iter().take(3).enumerate() {
                if let Some(at) = broken.get_mut(usize::from(*byte) + place) {
                    *at ^= byte.rotate_left(3);
                }
            }
            let _ = decode(&broken).map(TrendTile::from_parts);
        }
    }

    #[test]
    fn other_layouts_and_damage_are_told_apart() {
        let whole = encode(&TrendTile::default());
        for (bytes, why) in [
            (&[0x87, 0x02][..], "has layout 2"),
            (&[], "damaged"),
            (&whole[..whole.len() - 1], "damaged"),
            (b"\x87\x01\x58\x20", "damaged"),
        ] {
            let told = decode(bytes).expect_err(why).to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    /// What a write costs: a tile of one write unit leaves 900 bytes besides its keys and attributes.
    #[test]
    fn a_usual_tile_is_small() {
        let contents: Vec<_> = (0..200u32)
            .map(|number| {
                (
                    0,
                    format!("article-{:04}", number % 20),
                    Some(format!("topic-{}", number % 5)),
                )
            })
            .collect();
        let bytes = encode(&tile(&contents)).len();
        assert!(bytes <= 700, "{bytes} bytes, {} of them ids", 4 * TREND_TILE_IDS_MAX);
        let contents: Vec<_> = (0..50_000u32)
            .map(|number| (0, format!("a-longer-article-{:04}", number % 3_000), None))
            .collect();
        let bytes = encode(&tile(&contents)).len();
        assert!(bytes <= 11_000, "{bytes}");
    }
}
