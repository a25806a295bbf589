//! A user's live profile: everything that the journey needs to know, in one value that is written at once (P4).

use crate::event::ArrivedEvent;
use crate::feature::{Dated, FeatureState, Reading};
use crate::guard::Guard;
use crate::journey::{Feature, Journey};
use crate::recent_event_ids::RecentEventIds;
use crate::sessions::Sessions;
use crate::time::Timestamp;
use crate::trigger::Trigger;
use crate::value::Value;

/// What a profile keeps for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleState {
    /// How often it fired.
    pub fired: u64,
    /// The arrival of the record that made it fire last.
    pub last_fired_at: Option<Timestamp>,
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
    /// Triggers that were decided with this write and may not have been put on the stream yet, oldest first (P5).
    pub outbox: Vec<Trigger>,
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
            outbox: Vec::new(),
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
