//! The offers that a profile remembers, as they are stored: about 17 bytes each.

use minicbor::{Decode, Encode};
use usher_domain::limits::OFFERS_MADE_MAX;
use usher_domain::profile::OfferMade;

use super::Times;

/// The fingerprints of rule, content and slot, 4 bytes each.
const FINGERPRINTS_BYTES: usize = 12;

#[derive(Encode, Decode)]
pub(super) struct StoredOffers {
    /// Milliseconds: the first one's before now, then each one's after the one before.
    #[n(0)]
    times: Vec<i64>,
    #[cbor(n(1), with = "minicbor::bytes")]
    fingerprints: Vec<u8>,
}

pub(super) fn store_offers(offers: &[OfferMade], times: Times) -> Option<StoredOffers> {
    let mut before = offers.first()?.at;
    let mut stored = StoredOffers {
        times: Vec::with_capacity(offers.len()),
        fingerprints: Vec::with_capacity(offers.len() * FINGERPRINTS_BYTES),
    };
    for (index, offer) in offers.iter().enumerate() {
        stored.times.push(if index == 0 {
            times.before_now_ms(offer.at)
        } else {
            offer.at.ms_since(before)
        });
        before = offer.at;
        for fingerprint in [offer.rule, offer.content, offer.slot] {
            stored.fingerprints.extend(fingerprint.to_be_bytes());
        }
    }
    Some(stored)
}

/// Nothing where a part has an impossible length. An offer of a rule or content that the journey no longer has stays: the
/// user got it, so it counts for a cap until it is too old for one.
pub(super) fn load_offers(stored: &StoredOffers, times: Times) -> Option<Vec<OfferMade>> {
    let (fingerprints, rest) = stored.fingerprints.as_chunks::<FINGERPRINTS_BYTES>();
    if !rest.is_empty() || fingerprints.len() != stored.times.len() {
        return None;
    }
    let mut offers: Vec<OfferMade> = Vec::with_capacity(fingerprints.len());
    for (ms, fingerprints) in stored.times.iter().zip(fingerprints) {
        let at = match offers.last() {
            None => times.at(*ms),
            Some(before) => before.at.plus_ms(*ms),
        };
        let [rule, content, slot] = [0, 4, 8].map(|start| {
            let bytes = std::array::from_fn(|index| fingerprints[start + index]);
            u32::from_be_bytes(bytes)
        });
        offers.push(OfferMade {
            at,
            rule,
            content,
            slot,
        });
    }
    let too_many = offers.len().saturating_sub(OFFERS_MADE_MAX);
    offers.drain(..too_many);
    Some(offers)
}
