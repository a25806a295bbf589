//! Open offers, as they are stored: about 50 to 75 bytes each, and with what a learner saw two to three more for each number of the
//! context that is not 0.

use minicbor::{Decode, Encode};
use usher_domain::bandit::context::{Content, Context};
use usher_domain::bandit::limits::BANDIT_DIMENSION_MAX;
use usher_domain::hash::fingerprint;
use usher_domain::journey::{Journey, Outcomes};
use usher_domain::limits::OPEN_OFFERS_MAX;
use usher_domain::offers::{OpenOffer, SeenByLearner};
use usher_domain::trigger::TriggerId;

use super::Times;

/// The propensity of what was offered without a choice takes no byte.
const FIXED_OFFER_PROPENSITY: f64 = 1.0;
/// Right after a merge there may be twice as many as a profile keeps.
const STORED_MAX: usize = 2 * OPEN_OFFERS_MAX;

const EXPIRED: u8 = 1;
const TOLD: u8 = 2;
const HELD_OUT: u8 = 4;

#[derive(Encode, Decode)]
pub(super) struct StoredOpenOffer {
    #[cbor(n(0), with = "minicbor::bytes")]
    trigger: Vec<u8>,
    #[n(1)]
    rule: u32,
    #[n(2)]
    content: u32,
    #[n(3)]
    decided_before_now_ms: i64,
    #[n(4)]
    since_before_now_ms: i64,
    #[n(5)]
    until_before_now_ms: i64,
    #[n(6)]
    flags: u8,
    // What follows is there only where it says something.
    #[n(7)]
    reward: Option<f64>,
    /// The fingerprints of the rewards' names.
    #[n(8)]
    rewarded: Option<Vec<u32>>,
    #[n(9)]
    propensity: Option<f64>,
    #[n(10)]
    seen: Option<StoredSeenByLearner>,
    #[n(11)]
    decided_for: Option<String>,
}

#[derive(Encode, Decode)]
pub(super) struct StoredSeenByLearner {
    #[n(0)]
    layout: u32,
    /// Variable-length numbers, as [`store_units`] writes them.
    #[cbor(n(1), with = "minicbor::bytes")]
    context: Vec<u8>,
    #[n(2)]
    model_version: Option<u64>,
    #[cbor(n(3), with = "minicbor::bytes")]
    content: Option<Vec<u8>>,
}

/// Numbers of either sign, those near 0 in few bytes: the sign goes to the lowest bit, then 7 bits a byte, the lowest first, with
/// the highest bit where there are more.
fn store_units(units: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for number in units {
        let mut rest = (number.wrapping_shl(1) ^ (number >> 63)) as u64;
        while rest >= 0x80 {
            bytes.push((rest as u8) | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    bytes
}

/// Nothing where the last number is cut off, or where there are more than a context has.
fn load_units(bytes: &[u8]) -> Option<Vec<i64>> {
    let mut units = Vec::new();
    let (mut number, mut shift) = (0u64, 0u32);
    for byte in bytes {
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            if units.len() == BANDIT_DIMENSION_MAX {
                return None;
            }
            units.push((number >> 1) as i64 ^ -((number & 1) as i64));
            (number, shift) = (0, 0);
        } else {
            shift += 7;
        }
    }
    (shift == 0).then_some(units)
}

pub(super) fn store_seen_by_learner(seen: &SeenByLearner) -> StoredSeenByLearner {
    let content = store_units(seen.content.units());
    StoredSeenByLearner {
        layout: seen.layout,
        context: store_units(seen.context.units()),
        model_version: seen.model_version,
        content: (!content.is_empty()).then_some(content),
    }
}

pub(super) fn load_seen_by_learner(stored: StoredSeenByLearner) -> Option<SeenByLearner> {
    Some(SeenByLearner {
        layout: stored.layout,
        context: Context::from_units(load_units(&stored.context)?),
        content: Content::from_units(load_units(&stored.content.unwrap_or_default())?),
        model_version: stored.model_version,
    })
}

pub(super) fn store_propensity(propensity: f64) -> Option<f64> {
    (propensity != FIXED_OFFER_PROPENSITY).then_some(propensity)
}

pub(super) fn load_propensity(stored: Option<f64>) -> f64 {
    stored.unwrap_or(FIXED_OFFER_PROPENSITY)
}

fn name_of_reward(name: &str) -> u32 {
    fingerprint(&["reward", name])
}

fn names_of_rewards(outcomes: &Outcomes) -> Vec<u32> {
    let names = outcomes.rewards.iter().map(|reward| name_of_reward(&reward.name));
    names.collect()
}

pub(super) fn store_open_offers(open: &[OpenOffer], journey: &Journey, times: Times) -> Option<Vec<StoredOpenOffer>> {
    let outcomes = journey.outcomes.as_ref().filter(|_| !open.is_empty())?;
    let names = names_of_rewards(outcomes);
    let stored = open.iter().map(|offer| {
        let numbered = names.iter().enumerate();
        let rewarded: Vec<u32> = numbered
            .filter(|(index, _)| offer.rewarded >> index & 1 == 1)
            .map(|(_, name)| *name)
            .collect();
        let flags = [(offer.expired, EXPIRED), (offer.told, TOLD), (offer.held_out, HELD_OUT)];
        StoredOpenOffer {
            trigger: offer.trigger.0.to_be_bytes().to_vec(),
            rule: offer.rule,
            content: offer.content,
            decided_before_now_ms: times.before_now_ms(offer.decided_at),
            since_before_now_ms: times.before_now_ms(offer.since),
            until_before_now_ms: times.before_now_ms(offer.until),
            flags: flags
                .into_iter()
                .fold(0, |all, (is_set, flag)| all | if is_set { flag } else { 0 }),
            reward: (offer.reward != 0.0).then_some(offer.reward),
            rewarded: (!rewarded.is_empty()).then_some(rewarded),
            propensity: store_propensity(offer.propensity),
            seen: offer.seen.as_ref().map(store_seen_by_learner),
            decided_for: offer.decided_for.clone(),
        }
    });
    Some(stored.collect())
}

/// Nothing where a part has an impossible length. An offer whose rule or content the journey no longer has is left out: it
/// can't be told any more what came of it. So is a reward that is gone, though what it added stays.
pub(super) fn load_open_offers(
    stored: Vec<StoredOpenOffer>,
    journey: &Journey,
    times: Times,
) -> Option<Vec<OpenOffer>> {
    let Some(outcomes) = &journey.outcomes else {
        return Some(Vec::new());
    };
    let names = names_of_rewards(outcomes);
    let mut open = Vec::with_capacity(stored.len().min(STORED_MAX));
    let too_many = stored.len().saturating_sub(STORED_MAX);
    for stored in stored.into_iter().skip(too_many) {
        let trigger = TriggerId(u128::from_be_bytes(stored.trigger.try_into().ok()?));
        let rewarded = stored.rewarded.unwrap_or_default();
        let numbered = names.iter().enumerate();
        let bits = numbered.fold(0, |bits, (index, name)| {
            bits | u16::from(rewarded.contains(name)) << index
        });
        let seen = match stored.seen {
            Some(seen) => Some(load_seen_by_learner(seen)?),
            None => None,
        };
        let has_rule = journey.rules.iter().any(|rule| rule.fingerprint == stored.rule);
        let mut contents = journey.contents.iter();
        if !has_rule || !contents.any(|content| content.fingerprint == stored.content) {
            continue;
        }
        open.push(OpenOffer {
            trigger,
            rule: stored.rule,
            content: stored.content,
            decided_at: times.at(stored.decided_before_now_ms),
            since: times.at(stored.since_before_now_ms),
            until: times.at(stored.until_before_now_ms),
            rewarded: bits,
            reward: stored.reward.unwrap_or_default(),
            expired: stored.flags & EXPIRED != 0,
            told: stored.flags & TOLD != 0,
            held_out: stored.flags & HELD_OUT != 0,
            propensity: load_propensity(stored.propensity),
            seen,
            decided_for: stored.decided_for,
        });
    }
    Some(open)
}
