//! The events of a batch that go to one profile: those of its user, and those of keys that point to it by now.

use std::borrow::Cow;
use std::sync::Arc;

use usher_domain::batch::UserEvents;
use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::journey::Journey;
use usher_domain::plan::{UserPlan, plan_user};
use usher_domain::profile::Profile;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;

/// The events for one profile, in the order of the batch but for those that are done with, which come first.
#[derive(Debug)]
pub(super) struct WorkEvents<'g> {
    user: Cow<'g, str>,
    /// What was learned from all users, the same for the whole batch.
    snapshots: Arc<Snapshots>,
    /// All events of one key, as they came: nearly always.
    own: Option<UserEvents<'g>>,
    /// Otherwise: events of several keys, or such that are planned in another way than they came.
    joined: Vec<JoinedEvent<'g>>,
}

#[derive(Clone, Debug)]
struct JoinedEvent<'g> {
    /// Its index in the batch.
    index: usize,
    arrived: &'g ArrivedEvent<'g>,
    /// The lane of an event that came by a pointer.
    lane: Option<Shard>,
    /// Whether it is planned as if it named no other profile.
    leaves_alias: bool,
}

impl JoinedEvent<'_> {
    /// The event as it is planned for `user`.
    fn made_for<'m>(&'m self, user: &str) -> ArrivedEvent<'m> {
        let mut made = match &self.lane {
            Some(lane) => self.arrived.followed(user, lane),
            None => self.arrived.clone(),
        };
        if self.leaves_alias {
            made.event.alias = None;
        }
        made
    }
}

impl<'g> WorkEvents<'g> {
    /// Those of one key.
    pub fn of(events: UserEvents<'g>, snapshots: &Arc<Snapshots>) -> WorkEvents<'g> {
        WorkEvents {
            user: Cow::Borrowed(events.user()),
            snapshots: Arc::clone(snapshots),
            own: Some(events),
            joined: Vec::new(),
        }
    }

    /// What was learned from all users.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Whose profile they go to.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn len(&self) -> usize {
        match &self.own {
            Some(events) => events.indices().len(),
            None => self.joined.len(),
        }
    }

    /// The index in the batch of the event at this position.
    pub fn index(&self, position: usize) -> Option<usize> {
        match &self.own {
            Some(events) => events.indices().get(position).copied(),
            None => self.joined.get(position).map(|event| event.index),
        }
    }

    /// The indices in the batch from this position on.
    pub fn indices(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        (from..self.len()).filter_map(|position| self.index(position))
    }

    /// The first event of the batch among them, by its index, whether it is done with or not.
    pub fn first(&self) -> Option<(usize, &'g ArrivedEvent<'g>)> {
        match &self.own {
            Some(events) => events.indices().first().copied().zip(events.events().next()),
            None => {
                let first = self.joined.iter().min_by_key(|event| event.index)?;
                Some((first.index, first.arrived))
            }
        }
    }

    /// The earliest arrival among them.
    pub fn earliest_arrival(&self) -> Option<Timestamp> {
        match &self.own {
            Some(events) => events.events().map(|arrived| arrived.arrived_at).min(),
            None => self.joined.iter().map(|event| event.arrived.arrived_at).min(),
        }
    }

    /// The user that the record of the event at this position names.
    pub fn named(&self, position: usize) -> Option<&'g str> {
        match &self.own {
            Some(events) => events.events().nth(position).map(|arrived| arrived.event.user.as_ref()),
            None => (self.joined.get(position)).map(|event| event.arrived.event.user.as_ref()),
        }
    }

    /// The event at this position, as it is planned.
    pub fn arrived(&self, position: usize) -> Option<Cow<'_, ArrivedEvent<'_>>> {
        match &self.own {
            Some(events) => events
                .events()
                .nth(position)
                .map(|arrived| Cow::Borrowed(arrived as &ArrivedEvent<'_>)),
            None => self
                .joined
                .get(position)
                .map(|event| Cow::Owned(event.made_for(&self.user))),
        }
    }

    /// Plans up to `events_max` of them from a position on, those with a lower index in the batch than `bound`.
    pub fn plan(&self, journey: &Journey, profile: Profile, from: usize, events_max: usize, bound: usize) -> UserPlan {
        match &self.own {
            Some(events) => {
                let within = events.indices().partition_point(|index| *index < bound);
                let events_max = events_max.min(within.saturating_sub(from));
                plan_user(
                    journey,
                    &self.snapshots,
                    profile,
                    events.events().skip(from).take(events_max),
                )
            }
            None => {
                let open = self.joined.iter().skip(from).take_while(|event| event.index < bound);
                let made: Vec<ArrivedEvent<'_>> =
                    open.take(events_max).map(|event| event.made_for(&self.user)).collect();
                plan_user(journey, &self.snapshots, profile, &made)
            }
        }
    }

    /// They go to the profile of `to`, to which that of their user points.
    pub fn follow(&mut self, to: &str) {
        let from = std::mem::replace(&mut self.user, Cow::Owned(to.to_owned()));
        for event in self.joined() {
            let lane = event.lane.as_ref().unwrap_or(event.arrived.shard);
            event.lane = Some(lane.within(&from));
        }
    }

    /// Takes in those of another key that go to the same profile. `done` of these and `other_done` of the others are done
    /// with; gives how many are, then.
    pub fn join(&mut self, done: usize, other: WorkEvents<'g>, other_done: usize) -> usize {
        let mut other = other;
        let mut others = std::mem::take(other.joined());
        let events = self.joined();
        let mut open = events.split_off(done.min(events.len()));
        open.extend(others.split_off(other_done.min(others.len())));
        open.sort_by_key(|event| event.index);
        events.append(&mut others);
        let done = events.len();
        events.append(&mut open);
        done
    }

    /// From a position on, those that name `key` are planned as if they did not.
    pub fn leave_alias(&mut self, from: usize, key: &str) {
        for event in self.joined().iter_mut().skip(from) {
            event.leaves_alias |= event.arrived.event.alias.as_deref() == Some(key);
        }
    }

    /// As events that can each be changed.
    fn joined(&mut self) -> &mut Vec<JoinedEvent<'g>> {
        if let Some(own) = self.own.take() {
            let events = own.indices().iter().zip(own.events());
            let joined = events.map(|(index, arrived)| JoinedEvent {
                index: *index,
                arrived,
                lane: None,
                leaves_alias: false,
            });
            self.joined = joined.collect();
        }
        &mut self.joined
    }
}
