//! A user's live profile: everything that the journey needs to know, in one value that is written at once (P4).

use crate::event::ArrivedEvent;
use crate::feature::{Dated, FeatureState, Reading};
use crate::guard::Guard;
use crate::journey::{Feature, Journey};
use crate::offers::{OpenOffer, Outcome};
use crate::recent_event_ids::RecentEventIds;
use crate::sessions::Sessions;
use crate::time::Timestamp;
use crate::trigger::{Cause, SeenValue, Trigger};
use crate::value::Value;

/// What a profile keeps for a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleState {
    /// How often it fired.
    pub fired: u64,
    /// When it fired last: the arrival of the record that made it, or when its timer was due.
    pub last_fired_at: Option<Timestamp>,
    /// How often it fired in what its limit counts for, unless that is the user.
    pub within_limit: Option<WithinLimit>,
    /// Whether the condition of its transition held at the last look.
    pub holds: bool,
    /// How far its timer is.
    pub timer: Option<TimerState>,
    /// The offer that it put off.
    pub put_off: Option<Box<PutOff>>,
}

/// How often a rule fired in a session, or under a version of the journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WithinLimit {
    /// The event time of the first time it fired in the session, in milliseconds since 1970, or the hash of the version.
    pub scope: i64,
    /// So often.
    pub fired: u64,
}

/// How far a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerState {
    /// What it counts from, by event time.
    pub since: Timestamp,
    /// How many of its reminders are done with: fired, or not fired for a reason.
    pub done: u32,
}

/// An offer that was put off to the end of quiet hours.
#[derive(Clone, Debug, PartialEq)]
pub struct PutOff {
    /// Until then.
    pub until: Timestamp,
    /// Which of its rule's reminders it is.
    pub reminder: u32,
    /// What caused it.
    pub cause: Cause,
    /// What its condition read.
    pub saw: Vec<SeenValue>,
}

/// An offer that was made, for caps, cool-downs and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferMade {
    /// When.
    pub at: Timestamp,
    /// The rule's fingerprint.
    pub rule: u32,
    /// The content's fingerprint.
    pub content: u32,
    /// The slot's fingerprint.
    pub slot: u32,
}

/// Whether a user is in the journey, where that has entry or exit conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Since when the user is in. Of a user who is out, since when they were in last, until the entry condition does not
    /// hold: after that they may come in again ([`crate::policy::update_membership`]).
    pub entered_at: Option<Timestamp>,
    /// Since when the user is out again.
    pub left_at: Option<Timestamp>,
}

/// A user's profile, laid out for one journey: the vectors run along the journey's features, steps, traits and rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The version of the stored item that this was read from; 0 where none is stored.
    pub version: u64,
    /// How far each shard was applied.
    pub guard: Guard,
    /// The ids of the events last applied.
    pub recent_event_ids: RecentEventIds,
    /// How many events were applied.
    pub applied_events: u64,
    /// The latest arrival of an applied event: the profile's *now*.
    pub now: Timestamp,
    /// The sessions.
    pub sessions: Sessions,
    /// The state of each of the journey's features.
    pub features: Vec<FeatureState>,
    /// When each of the journey's steps was done, by event time.
    pub steps: Vec<Option<Timestamp>>,
    /// The latest value of each trait that the journey reads.
    pub traits: Vec<Option<Dated>>,
    /// The state of each of the journey's rules.
    pub rules: Vec<RuleState>,
    /// The latest offers, oldest first, as far back as the journey's policy looks and at most
    /// [`crate::limits::OFFERS_MADE_MAX`].
    pub offers: Vec<OfferMade>,
    /// Whether the user is in the journey.
    pub membership: Membership,
    /// Where the user's clock is, by the latest event that says (an IANA time zone), where the journey goes by it.
    pub timezone: Option<Dated>,
    /// The hashes of the keys of profiles that were merged into this one last, the latest last, at most
    /// [`crate::limits::ALIASES_MAX`].
    pub aliases: Vec<u64>,
    /// The pointers of the longest chain that ends at this user, at most [`crate::limits::POINTERS_MAX`]: a merge that would
    /// make it longer is not done, so that following pointers always arrives ([`crate::merge`]).
    pub pointer_depth: u8,
    /// When the user is woken: never later than the first timer is due, and as long as it is in the future, it may be
    /// earlier. An attribute of the item, for the index; not a part of the state.
    pub wake_at: Option<Timestamp>,
    /// Triggers that were decided with this write and may not have been put on the stream yet, oldest first (P5).
    pub outbox: Vec<Trigger>,
    /// What came of offers and may not have been put on the stream yet: the other part of the outbox.
    pub outcomes: Vec<Outcome>,
    /// Offers whose outcome is open, oldest first, at most [`crate::limits::OPEN_OFFERS_MAX`].
    pub open_offers: Vec<OpenOffer>,
}

impl Profile {
    /// The profile of a user of whom nothing is known.
    pub fn new(journey: &Journey) -> Profile {
        Profile {
            version: 0,
            guard: Guard::default(),
            recent_event_ids: RecentEventIds::default(),
            applied_events: 0,
            now: Timestamp::default(),
            sessions: Sessions::default(),
            features: journey
                .features
                .iter()
                .map(|feature| feature.computation.initial())
                .collect(),
            steps: vec![None; journey.steps.len()],
            traits: vec![None; journey.traits.len()],
            rules: vec![RuleState::default(); journey.rules.len()],
            offers: Vec::new(),
            membership: Membership::default(),
            timezone: None,
            aliases: Vec::new(),
            pointer_depth: 0,
            wake_at: None,
            outbox: Vec::new(),
            outcomes: Vec::new(),
            open_offers: Vec::new(),
        }
    }

    /// Whether this event's record, or a later one of its shard, was applied already.
    pub fn is_redelivery(&self, arrived: &ArrivedEvent<'_>) -> bool {
        self.guard.covers(arrived.shard.key, arrived.position)
    }

    /// The value of the journey's feature with this index, as of `now`.
    pub fn feature<'v>(&'v self, journey: &'v Journey, index: usize, now: Timestamp) -> Value<'v> {
        match (journey.features.get(index), self.features.get(index)) {
            (
                Some(Feature {
                    expression: Some(expression),
                    ..
                }),
                _,
            ) => expression.value(journey, self, now),
            (Some(feature), Some(state)) => {
                let reading = Reading {
                    profile: self,
                    now,
                    idle_timeout_ms: journey.idle_timeout_ms,
                };
                feature.computation.value(state, &reading)
            }
            _ => Value::Null,
        }
    }
}
