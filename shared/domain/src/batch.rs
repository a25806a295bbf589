//! The events of a batch, by user.

use hashbrown::HashMap;

use crate::event::ArrivedEvent;

/// A batch's events by user, each user's in the order that they had in the batch (P3). Users come in the order of their
/// first events, whatever the hash map does (P7).
#[derive(Clone, Debug)]
pub struct UserGroups<'e> {
    events: &'e [ArrivedEvent<'e>],
    /// Indices of events: those of the first user, then those of the second, and so on.
    indices: Vec<usize>,
    /// Where in `indices` each user's end.
    ends: Vec<usize>,
}

/// One user's events of a batch.
#[derive(Clone, Copy, Debug)]
pub struct UserEvents<'g> {
    events: &'g [ArrivedEvent<'g>],
    indices: &'g [usize],
}

/// Groups a batch's events by user. It allocates a few times per batch, never per user.
pub fn group_by_user<'e>(events: &'e [ArrivedEvent<'e>]) -> UserGroups<'e> {
    // A counting sort: number the users, count each one's events, then put every index into its user's part.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut user_of_event = Vec::with_capacity(events.len());
    let mut ends: Vec<usize> = Vec::new();
    for arrived in events {
        let number = *numbers.entry(arrived.event.user.as_ref()).or_insert(ends.len());
        if number == ends.len() {
            ends.push(0);
        }
        ends[number] += 1;
        user_of_event.push(number);
    }
    let mut start = 0;
    for end in &mut ends {
        // For now where the user's part starts; filling it moves this to where it ends.
        start += std::mem::replace(end, start);
    }
    let mut indices = vec![0; events.len()];
    for (index, number) in user_of_event.into_iter().enumerate() {
        indices[ends[number]] = index;
        ends[number] += 1;
    }
    UserGroups { events, indices, ends }
}

impl<'e> UserGroups<'e> {
    /// How many users there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no event at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The users, in the order of their first events.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = UserEvents<'_>> {
        (0..self.len()).map(|number| {
            let start = if number == 0 { 0 } else { self.ends[number - 1] };
            UserEvents {
                events: self.events,
                indices: &self.indices[start..self.ends[number]],
            }
        })
    }
}

impl<'g> UserEvents<'g> {
    /// Whose events these are.
    pub fn user(&self) -> &'g str {
        // A user is there because of an event, so there is a first one.
        self.indices
            .first()
            .map_or("", |index| self.events[*index].event.user.as_ref())
    }

    /// Where in the batch they are, ascending.
    pub fn indices(&self) -> &'g [usize] {
        self.indices
    }

    /// The events, in the order of the batch.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &'g ArrivedEvent<'g>> + use<'g> {
        let events = self.events;
        self.indices.iter().map(move |index| &events[*index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Shard};
    use crate::guard::ShardKey;
    use crate::sequence_number::Position;
    use crate::time::Timestamp;

    #[test]
    fn p3_each_user_has_their_own_events_in_the_order_of_the_batch() {
        let shard = Shard {
            key: ShardKey(1),
            id: "shardId-000000000000".to_owned(),
        };
        let arrived = |user: &'static str| ArrivedEvent {
            event: Event {
                id: "e".into(),
                id_hash: 0,
                event_type: "click".into(),
                at: Timestamp::default(),
                clock: Default::default(),
                user: user.into(),
                alias: None,
                session_id: None,
                content_id: None,
                category: None,
                device_type: None,
                user_agent: None,
                location: Default::default(),
                properties: Default::default(),
                traits: None,
            },
            arrived_at: Timestamp::default(),
            shard: &shard,
            position: Position::default(),
        };
        type Expected = &'static [(&'static str, &'static [usize])];
        for (users, expected) in [
            (&[][..], &[] as Expected),
            (&["a"], &[("a", &[0])]),
            (
                &["b", "a", "b", "b", "c", "a"],
                &[("b", &[0, 2, 3]), ("a", &[1, 5]), ("c", &[4])],
            ),
        ] {
            let events: Vec<_> = users.iter().map(|user| arrived(user)).collect();
            let groups = group_by_user(&events);
            let found: Vec<_> = groups.iter().map(|user| (user.user(), user.indices())).collect();
            assert_eq!(found, expected);
            assert_eq!((groups.len(), groups.is_empty()), (expected.len(), users.is_empty()));
            for user in groups.iter() {
                let theirs: Vec<_> = user.events().map(|arrived| arrived.event.user.as_ref()).collect();
                assert_eq!(theirs, vec![user.user(); user.indices().len()]);
            }
        }
    }
}
