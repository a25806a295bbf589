//! A profile as it is stored: CBOR, laid out to stay within 1 KB for a typical user (P8).
//!
//! Fields are numbered, so a later version can add some within a layout; what changes the meaning of one is a new layout.
//! A stored profile says its layout first: `read_layout_1` and whoever follows read one layout each, into the same
//! [`Profile`], and the next write of the user is in the present layout. So an old one is read for ever, and a table is
//! never migrated. A newer one is refused: its user is parked until the newer version is deployed again. Times are milliseconds before the profile's own *now*, which
//! makes most of them short. The state of a feature, step or rule is found by its fingerprint: what a new journey no
//! longer has is dropped at the next write, what it adds starts from now, and what it changed starts anew.

mod feature_state;
mod offers;
mod open_offers;
mod outcome_state;
mod rule_state;
mod trigger_state;

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use usher_domain::feature::Dated;
use usher_domain::guard::{Guard, ShardKey};
use usher_domain::journey::Journey;
use usher_domain::limits::{ALIASES_MAX, IDENTIFIER_BYTES_MAX};
use usher_domain::profile::{Membership, Profile};
use usher_domain::recent_event_ids::RecentEventIds;
use usher_domain::sequence_number::{Position, SequenceNumber};
use usher_domain::sessions::{Session, Sessions};
use usher_domain::time::Timestamp;
use usher_domain::value::Scalar;

use feature_state::{StoredState, load_state, store_state};
use offers::{StoredOffers, load_offers, store_offers};
use open_offers::{StoredOpenOffer, load_open_offers, store_open_offers};
use outcome_state::{StoredOutcome, load_outcome, store_outcomes};
use rule_state::{StoredRule, load_rule, store_rule};
use trigger_state::{StoredTrigger, load_trigger, store_trigger};

/// The layout that is written.
pub const LAYOUT: u8 = 1;

/// Why stored bytes are no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileStateError {
    /// They are not what this module writes.
    #[error("the stored profile is damaged")]
    Damaged(#[source] DecodeError),
    /// They were written by a newer version.
    #[error("the stored profile has layout {0}, but this version reads up to {LAYOUT}: deploy the newer version")]
    NewerLayout(u8),
    /// They have a layout that never was.
    #[error("the stored profile has layout {0}, which no version of Usher writes: restore the item")]
    UnknownLayout(u8),
}

/// The bytes to store for a profile.
pub fn encode(profile: &Profile, journey: &Journey) -> Vec<u8> {
    let stored = StoredProfile::of(profile, journey);
    let mut bytes = Vec::with_capacity(1024);
    // Writing to memory can't fail.
    if minicbor::encode(&stored, &mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// The profile in stored bytes, for a journey. `version` is the stored item's, `user` whose profile it is.
///
/// # Errors
/// When the bytes are no profile that this version can read.
pub fn decode(bytes: &[u8], version: u64, user: &str, journey: &Journey) -> Result<Profile, ProfileStateError> {
    let mut decoder = Decoder::new(bytes);
    let layout = peek_layout(&mut decoder).map_err(ProfileStateError::Damaged)?;
    match layout {
        1 => read_layout_1(bytes, version, user, journey),
        newer if newer > LAYOUT => Err(ProfileStateError::NewerLayout(newer)),
        unknown => Err(ProfileStateError::UnknownLayout(unknown)),
    }
}

fn read_layout_1(bytes: &[u8], version: u64, user: &str, journey: &Journey) -> Result<Profile, ProfileStateError> {
    let stored: StoredProfile = minicbor::decode(bytes).map_err(ProfileStateError::Damaged)?;
    stored
        .into_profile(version, user, journey)
        .ok_or_else(|| ProfileStateError::Damaged(DecodeError::message("a part of it has an impossible length")))
}

fn peek_layout(decoder: &mut Decoder<'_>) -> Result<u8, DecodeError> {
    decoder.array()?;
    decoder.u8()
}

/// A whole number of any size: CBOR's own up to 64 bits, 16 bytes beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Whole(i128);

impl<C> Encode<C> for Whole {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        match i64::try_from(self.0) {
            Ok(short) => encoder.i64(short)?.ok(),
            Err(_) => encoder.bytes(&self.0.to_be_bytes())?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Whole {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if decoder.datatype()? == minicbor::data::Type::Bytes {
            let bytes = decoder
                .bytes()?
                .try_into()
                .map_err(|_| DecodeError::message("a number of a wrong size"))?;
            return Ok(Whole(i128::from_be_bytes(bytes)));
        }
        Ok(Whole(i128::from(decoder.i64()?)))
    }
}

#[derive(Encode, Decode)]
struct StoredProfile {
    #[n(0)]
    layout: u8,
    #[n(1)]
    applied_events: u64,
    #[n(2)]
    now_ms: i64,
    #[n(3)]
    guard: Vec<StoredGuardEntry>,
    #[cbor(n(4), with = "minicbor::bytes")]
    recent_event_ids: Vec<u8>,
    #[n(5)]
    sessions: StoredSessions,
    #[n(6)]
    features: Vec<StoredFeature>,
    #[n(7)]
    steps: Vec<StoredStep>,
    #[n(8)]
    traits: Vec<StoredTrait>,
    #[n(9)]
    rules: Vec<StoredRule>,
    #[n(10)]
    outbox: Vec<StoredTrigger>,
    // What follows came later: it is at the end and optional, so that what was written before is read, and what is not
    // used takes no byte.
    #[n(11)]
    membership: Option<StoredMembership>,
    #[n(12)]
    offers: Option<StoredOffers>,
    #[n(13)]
    timezone: Option<StoredDated>,
    #[cbor(n(14), with = "minicbor::bytes")]
    aliases: Option<Vec<u8>>,
    #[n(15)]
    pointer_depth: Option<u8>,
    #[n(16)]
    open_offers: Option<Vec<StoredOpenOffer>>,
    #[n(17)]
    outcomes: Option<Vec<StoredOutcome>>,
}

/// Milliseconds before now.
#[derive(Encode, Decode)]
struct StoredMembership {
    #[n(0)]
    entered: Option<i64>,
    #[n(1)]
    left: Option<i64>,
}

#[derive(Encode, Decode)]
struct StoredGuardEntry {
    #[n(0)]
    shard: u64,
    /// Big-endian, without leading zeros.
    #[cbor(n(1), with = "minicbor::bytes")]
    sequence_number: Vec<u8>,
    #[n(2)]
    sub_sequence_number: u64,
}

#[derive(Encode, Decode)]
struct StoredSessions {
    #[n(0)]
    closed_count: u64,
    #[n(1)]
    closed_duration_ms: i64,
    /// Start (before now), duration and events of each.
    #[n(2)]
    recent: Vec<(i64, i64, u64)>,
}

#[derive(Encode, Decode)]
struct StoredFeature {
    #[n(0)]
    fingerprint: u32,
    /// Nothing for a kind that this version doesn't know: a newer one wrote it.
    #[cbor(n(1), with = "feature_state::known")]
    state: Option<StoredState>,
}

#[derive(Encode, Decode)]
struct StoredDated {
    #[n(0)]
    before_now_ms: i64,
    #[n(1)]
    shard: u16,
    #[n(2)]
    value: StoredScalar,
}

#[derive(Encode, Decode)]
enum StoredScalar {
    #[n(0)]
    Bool(#[n(0)] bool),
    #[n(1)]
    Int(#[n(0)] i64),
    #[n(2)]
    Float(#[n(0)] f64),
    #[n(3)]
    Text(#[n(0)] String),
}

#[derive(Encode, Decode)]
struct StoredStep {
    #[n(0)]
    fingerprint: u32,
    #[n(1)]
    before_now_ms: i64,
}

#[derive(Encode, Decode)]
struct StoredTrait {
    #[n(0)]
    name: String,
    #[n(1)]
    value: StoredDated,
}

impl StoredScalar {
    fn of(scalar: &Scalar) -> StoredScalar {
        match scalar {
            Scalar::Bool(value) => StoredScalar::Bool(*value),
            Scalar::Int(value) => StoredScalar::Int(*value),
            Scalar::Float(value) => StoredScalar::Float(*value),
            Scalar::Text(text) => StoredScalar::Text(text.clone()),
        }
    }

    fn into_scalar(self) -> Scalar {
        match self {
            StoredScalar::Bool(value) => Scalar::Bool(value),
            StoredScalar::Int(value) => Scalar::Int(value),
            StoredScalar::Float(value) => Scalar::Float(value),
            StoredScalar::Text(text) => Scalar::Text(text),
        }
    }
}

/// Times of a profile, as milliseconds before its *now*.
#[derive(Clone, Copy)]
struct Times {
    now: Timestamp,
}

impl Times {
    fn before_now_ms(self, at: Timestamp) -> i64 {
        self.now.ms_since(at)
    }

    fn at(self, before_now_ms: i64) -> Timestamp {
        self.now.minus_ms(before_now_ms)
    }

    fn store_dated(self, dated: &Dated) -> StoredDated {
        let value = StoredScalar::of(&dated.value);
        StoredDated {
            before_now_ms: self.before_now_ms(dated.at),
            shard: dated.shard,
            value,
        }
    }

    fn load_dated(self, stored: StoredDated) -> Dated {
        let value = stored.value.into_scalar();
        Dated {
            at: self.at(stored.before_now_ms),
            shard: stored.shard,
            value,
        }
    }
}

pub(crate) fn store_sequence_number(number: SequenceNumber) -> Vec<u8> {
    let bytes: Vec<u8> = number.limbs().into_iter().flat_map(u64::to_be_bytes).collect();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

pub(crate) fn load_sequence_number(bytes: &[u8]) -> Option<SequenceNumber> {
    let mut padded = [0u8; 24];
    let start = padded.len().checked_sub(bytes.len())?;
    padded[start..].copy_from_slice(bytes);
    let mut limbs = [0u64; 3];
    for (limb, chunk) in limbs.iter_mut().zip(padded.chunks_exact(8)) {
        *limb = u64::from_be_bytes(chunk.try_into().ok()?);
    }
    Some(SequenceNumber::from_limbs(limbs))
}

impl StoredProfile {
    fn of(profile: &Profile, journey: &Journey) -> StoredProfile {
        let times = Times { now: profile.now };
        let guard = profile
            .guard
            .entries()
            .iter()
            .map(|(shard, position)| StoredGuardEntry {
                shard: shard.0,
                sequence_number: store_sequence_number(position.sequence_number),
                sub_sequence_number: position.sub_sequence_number,
            });
        let recent = profile.sessions.recent.iter().map(|session| {
            (
                times.before_now_ms(session.start),
                session.duration_ms(),
                session.events,
            )
        });
        let features = journey
            .features
            .iter()
            .zip(&profile.features)
            .filter_map(|(feature, state)| {
                let state = store_state(state, times)?;
                Some(StoredFeature {
                    fingerprint: feature.fingerprint,
                    state: Some(state),
                })
            });
        let steps = journey.steps.iter().zip(&profile.steps).filter_map(|(step, done_at)| {
            let before_now_ms = times.before_now_ms((*done_at)?);
            Some(StoredStep {
                fingerprint: step.fingerprint,
                before_now_ms,
            })
        });
        let traits = journey.traits.iter().zip(&profile.traits).filter_map(|(name, value)| {
            Some(StoredTrait {
                name: name.clone(),
                value: times.store_dated(value.as_ref()?),
            })
        });
        let rules = journey
            .rules
            .iter()
            .zip(&profile.rules)
            .filter_map(|(rule, state)| store_rule(rule, state, times));
        let aliases: Vec<u8> = profile.aliases.iter().copied().flat_map(u64::to_be_bytes).collect();
        StoredProfile {
            layout: LAYOUT,
            applied_events: profile.applied_events,
            now_ms: profile.now.epoch_ms(),
            guard: guard.collect(),
            recent_event_ids: profile.recent_event_ids.hashes().flat_map(u64::to_be_bytes).collect(),
            sessions: StoredSessions {
                closed_count: profile.sessions.closed_count,
                closed_duration_ms: profile.sessions.closed_duration_ms,
                recent: recent.collect(),
            },
            features: features.collect(),
            steps: steps.collect(),
            traits: traits.collect(),
            rules: rules.collect(),
            outbox: profile
                .outbox
                .iter()
                .map(|trigger| store_trigger(trigger, times))
                .collect(),
            membership: store_membership(profile.membership, times),
            offers: store_offers(&profile.offers, times),
            timezone: profile.timezone.as_ref().map(|dated| times.store_dated(dated)),
            aliases: (!aliases.is_empty()).then_some(aliases),
            pointer_depth: (profile.pointer_depth > 0).then_some(profile.pointer_depth),
            open_offers: store_open_offers(&profile.open_offers, journey, times),
            outcomes: store_outcomes(&profile.outcomes, times),
        }
    }

    /// Nothing where a part has an impossible length.
    fn into_profile(self, version: u64, user: &str, journey: &Journey) -> Option<Profile> {
        let times = Times {
            now: Timestamp::from_epoch_ms(self.now_ms),
        };
        let mut profile = Profile::new(journey);
        profile.version = version;
        profile.applied_events = self.applied_events;
        profile.now = times.now;
        let guard = self.guard.into_iter().map(|entry| {
            let sequence_number = load_sequence_number(&entry.sequence_number)?;
            let position = Position {
                sequence_number,
                sub_sequence_number: entry.sub_sequence_number,
            };
            Some((ShardKey(entry.shard), position))
        });
        profile.guard = Guard::from_entries(guard.collect::<Option<_>>()?);
        profile.recent_event_ids = RecentEventIds::from_hashes(load_hashes(&self.recent_event_ids)?);
        profile.sessions = Sessions {
            closed_count: self.sessions.closed_count,
            closed_duration_ms: self.sessions.closed_duration_ms,
            recent: self
                .sessions
                .recent
                .into_iter()
                .map(|(before_now_ms, duration_ms, events)| {
                    let start = times.at(before_now_ms);
                    Session {
                        start,
                        end: start.plus_ms(duration_ms),
                        events,
                    }
                })
                .collect(),
        };
        for stored in self.features {
            let index = journey
                .features
                .iter()
                .position(|feature| feature.fingerprint == stored.fingerprint);
            if let (Some(index), Some(state)) = (index, stored.state) {
                let state = load_state(state, times)?;
                if journey.features[index].computation.fits(&state) {
                    profile.features[index] = state;
                }
            }
        }
        for stored in self.steps {
            if let Some(index) = journey
                .steps
                .iter()
                .position(|step| step.fingerprint == stored.fingerprint)
            {
                profile.steps[index] = Some(times.at(stored.before_now_ms));
            }
        }
        for stored in self.traits {
            if let Some(index) = journey.traits.iter().position(|name| *name == stored.name) {
                profile.traits[index] = Some(times.load_dated(stored.value));
            }
        }
        for stored in self.rules {
            if let Some(index) = journey
                .rules
                .iter()
                .position(|rule| rule.fingerprint == stored.fingerprint)
            {
                profile.rules[index] = load_rule(stored, &journey.rules[index], times)?;
            }
        }
        let outbox = self.outbox.into_iter().map(|stored| load_trigger(stored, user, times));
        profile.outbox = outbox.collect::<Option<_>>()?;
        if let Some(stored) = self.membership {
            profile.membership = Membership {
                entered_at: stored.entered.map(|ms| times.at(ms)),
                left_at: stored.left.map(|ms| times.at(ms)),
            };
        }
        if let Some(stored) = self.offers {
            profile.offers = load_offers(&stored, times)?;
        }
        profile.timezone = self.timezone.map(|stored| times.load_dated(stored)).filter(is_name);
        if let Some(stored) = self.aliases {
            let hashes: Vec<u64> = load_hashes(&stored)?.collect();
            profile.aliases = hashes[hashes.len().saturating_sub(ALIASES_MAX)..].to_vec();
        }
        profile.pointer_depth = self.pointer_depth.unwrap_or(0);
        profile.open_offers = load_open_offers(self.open_offers.unwrap_or_default(), journey, times)?;
        let outcomes = self.outcomes.unwrap_or_default().into_iter();
        let outcomes = outcomes.map(|stored| load_outcome(stored, user, times));
        profile.outcomes = outcomes.collect::<Option<_>>()?;
        Some(profile)
    }
}

fn store_membership(membership: Membership, times: Times) -> Option<StoredMembership> {
    (membership != Membership::default()).then(|| StoredMembership {
        entered: membership.entered_at.map(|at| times.before_now_ms(at)),
        left: membership.left_at.map(|at| times.before_now_ms(at)),
    })
}

/// 64-bit numbers, 8 bytes each; nothing where the last has fewer.
fn load_hashes(bytes: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let (hashes, rest) = bytes.as_chunks::<8>();
    rest.is_empty()
        .then(|| hashes.iter().map(|hash| u64::from_be_bytes(*hash)))
}

/// Whether it can be the name of a time zone.
fn is_name(dated: &Dated) -> bool {
    matches!(&dated.value, Scalar::Text(name) if name.len() <= IDENTIFIER_BYTES_MAX)
}

#[cfg(test)]
mod kept_for_rules_tests;
#[cfg(test)]
mod tests;
