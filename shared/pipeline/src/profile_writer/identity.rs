//! When two keys turn out to be one user's: who goes first, and what is stored under the other key.
//!
//! An event that names another profile ([`usher_domain::event::Event::alias`]) stops its user's round. Before the next
//! one, the other profile is looked up: none is stored, or one that is to be merged, or a pointer that tells whose it is
//! already. Then the event is planned on both as one, and one transaction writes both items.
//!
//! Within a batch, everything goes in the batch's order: the other profile's events before that event are applied to it
//! before the merge, and the later ones follow it to the user, in their places among the user's own.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::time::Instant;
use usher_domain::event::ArrivedEvent;
use usher_domain::limits::POINTERS_MAX;
use usher_domain::merge::has_room_for_pointer;

use super::ProfileWriter;
use super::tally::Tally;
use super::users::{Loaded, Meeting, Other, Read, UserFailure, UserWork};
use crate::ports::{ProfileTable, RecordStream, TelemetrySink, WallClock};
use crate::profile_cache::Remembered;

/// Other profiles that are looked at for one user of a batch. Each may take a write of its own, so whoever names
/// thousands can't keep a shard busy: beyond these, events are applied without merging, and a later batch tries again.
const MEETINGS_MAX: usize = 32;

/// Events of a batch that name a user who has events of their own in the batch: their indices and that user.
#[derive(Debug, Default)]
pub(super) struct Namings<'g> {
    namings: Vec<(usize, &'g str)>,
}

impl<'g> Namings<'g> {
    /// Those of a batch. Nearly always there are none.
    pub fn of(events: &'g [ArrivedEvent<'g>], users: &[UserWork<'_>]) -> Namings<'g> {
        if events.iter().all(|arrived| arrived.event.alias.is_none()) {
            return Namings::default();
        }
        let users: HashSet<&str> = users.iter().map(|user| user.events.user()).collect();
        let named = events.iter().enumerate().filter_map(|(index, arrived)| {
            let alias = arrived.event.alias.as_deref()?;
            users.contains(alias).then_some((index, alias))
        });
        Namings {
            namings: named.collect(),
        }
    }

    /// Holds each user's events back that come after one of another's which names the user and is not settled yet.
    fn bind(&self, users: &mut [UserWork<'_>]) {
        if self.namings.is_empty() {
            for user in users {
                user.bound = usize::MAX;
            }
            return;
        }
        let open: HashMap<usize, usize> = users
            .iter()
            .enumerate()
            .flat_map(|(place, user)| user.events.indices(user.done).map(move |index| (index, place)))
            .collect();
        let mut bounds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (index, key) in &self.namings {
            if let Some(place) = open.get(index) {
                bounds.entry(key).or_insert((*index, *place));
            }
        }
        for (place, user) in users.iter_mut().enumerate() {
            user.bound = match bounds.get(user.events.user()) {
                Some((index, namer)) if *namer != place => *index,
                _ => usize::MAX,
            };
        }
    }
}

/// What is stored under a key.
enum Found {
    Pointer(String),
    Loaded(Box<Loaded>),
    /// A user of the batch, by the place among the open ones.
    InBatch(usize),
    Nothing,
    /// It can't be merged for now.
    Unusable,
    Failed(String),
}

/// What a user does about another profile in this round.
enum Met {
    /// Goes on.
    Going,
    /// Waits for a user of the batch who has events before.
    Waiting,
    /// Goes on with the profile of that user of the batch, who waits.
    Took(usize),
}

impl<P, S, C, T> ProfileWriter<P, S, C, T>
where
    P: ProfileTable,
    S: RecordStream,
    C: WallClock,
    T: TelemetrySink,
{
    /// Tells for each user whether they go in this round, and gets those ready who are to merge another profile.
    pub(super) async fn get_ready(
        &self,
        users: &mut [UserWork<'_>],
        namings: &Namings<'_>,
        deadline: Instant,
        tally: &mut Tally,
    ) -> Vec<bool> {
        namings.bind(users);
        // Who can't be written at all holds nobody up.
        let is_free = |user: &UserWork<'_>| user.blocked.is_some() || user.next_event() < user.bound;
        let mut goes: Vec<bool> = users.iter().map(is_free).collect();
        // Whoever has the first event of all has nobody to wait for; this makes sure of it, so that every round gets on.
        if !goes.contains(&true)
            && let Some(first) = (0..users.len()).min_by_key(|place| users[*place].next_event())
        {
            users[first].bound = usize::MAX;
            goes[first] = true;
        }
        let wants = |user: &UserWork<'_>| user.blocked.is_none() && matches!(user.meeting, Meeting::Wanted(_));
        let mut wanting: Vec<usize> = (0..users.len()).filter(|place| wants(&users[*place])).collect();
        if wanting.is_empty() {
            return goes;
        }
        wanting.sort_by_key(|place| users[*place].next_event());
        let mut found = self.find(users, &wanting, deadline, tally).await;
        for (order, place) in wanting.into_iter().enumerate() {
            match self.meet_one(users, place, &mut found, tally) {
                Met::Going => {}
                Met::Waiting if order == 0 && !goes.iter().enumerate().any(|(other, goes)| *goes && other != place) => {
                    tally.telemetry.merges_deferred += 1;
                    users[place].defer_meeting();
                }
                Met::Waiting => goes[place] = false,
                Met::Took(other) => goes[other] = false,
            }
        }
        goes
    }

    /// What is stored under the keys that these users want, and under those that they point to.
    async fn find(
        &self,
        users: &[UserWork<'_>],
        wanting: &[usize],
        deadline: Instant,
        tally: &mut Tally,
    ) -> HashMap<String, Found> {
        let in_batch: HashMap<&str, usize> = users
            .iter()
            .enumerate()
            .map(|(place, user)| (user.events.user(), place))
            .collect();
        let mut found: HashMap<String, Found> = HashMap::new();
        let mut wanted: Vec<String> = wanting
            .iter()
            .filter_map(|place| match &users[*place].meeting {
                Meeting::Wanted(key) if users[*place].meetings < MEETINGS_MAX => Some(key.clone()),
                _ => None,
            })
            .collect();
        for _ in 0..=POINTERS_MAX {
            let mut unknown: Vec<String> = Vec::new();
            let mut next: Vec<String> = Vec::new();
            for key in wanted {
                if found.contains_key(&key) || unknown.contains(&key) {
                    continue;
                }
                let known = match in_batch.get(key.as_str()) {
                    Some(place) => Found::InBatch(*place),
                    None => match self.cache.take(&key) {
                        Some(Remembered::Pointer(to)) => {
                            next.push(to.clone());
                            Found::Pointer(to)
                        }
                        Some(Remembered::Profile(profile, state_bytes)) => Found::Loaded(Box::new(Loaded {
                            profile: *profile,
                            state_bytes,
                        })),
                        None => {
                            unknown.push(key);
                            continue;
                        }
                    },
                };
                found.insert(key, known);
            }
            if !unknown.is_empty() {
                tally.telemetry.profile_reads += unknown.len() as u64;
                let keys: Vec<&str> = unknown.iter().map(String::as_str).collect();
                let mut reads = self.read(&keys, deadline).await;
                for key in unknown {
                    let read = self.found(reads.remove(&key));
                    if let Found::Pointer(to) = &read {
                        self.cache.put_pointer(&key, to);
                        next.push(to.clone());
                    }
                    found.insert(key, read);
                }
            }
            wanted = next;
            if wanted.is_empty() {
                break;
            }
        }
        found
    }

    fn found(&self, read: Option<Read>) -> Found {
        let Some(read) = read else { return Found::Nothing };
        match self.loaded(Some(read)) {
            Ok(loaded) => Found::Loaded(Box::new(loaded)),
            Err(UserFailure::Moved(to)) => Found::Pointer(to),
            Err(UserFailure::Parked(_)) => Found::Unusable,
            Err(UserFailure::Unavailable(why)) => Found::Failed(why),
        }
    }

    /// Gets one user ready who wants to meet another.
    fn meet_one(
        &self,
        users: &mut [UserWork<'_>],
        place: usize,
        found: &mut HashMap<String, Found>,
        tally: &mut Tally,
    ) -> Met {
        let Meeting::Wanted(key) = &users[place].meeting else {
            return Met::Going;
        };
        let key = key.clone();
        let next_event = users[place].next_event();
        let (root, pointers) = root_of(&key, found);
        let root = root.to_owned();
        if users[place].meetings >= MEETINGS_MAX || pointers > POINTERS_MAX {
            return self.defer(&mut users[place], tally);
        }
        users[place].meetings += 1;
        if pointers > 0 || root == users[place].events.user() {
            // It is this user's by now, or another's for good.
            users[place].meeting = Meeting::Known(key);
            return Met::Going;
        }
        let other = match found.get(&key) {
            Some(Found::Loaded(loaded)) => Some(&loaded.profile),
            Some(Found::InBatch(other)) => users[*other].profile.as_ref(),
            _ => None,
        };
        if other.is_some_and(|other| !has_room_for_pointer(other)) {
            // Both stay users of their own, so that whoever follows the pointers to the other still arrives.
            tally.telemetry.merges_deferred += 1;
            users[place].meeting = Meeting::Known(key);
            return Met::Going;
        }
        let profile = match found.get(&key) {
            Some(Found::InBatch(other)) if *other != place => {
                let other = *other;
                let is_before = users[other].next_event() < next_event;
                match &users[other].profile {
                    Some(profile) if !is_before && users[other].blocked.is_none() => {
                        let profile = profile.clone();
                        // The other's next event comes before what follows it, as one user's: that is the next round's.
                        users[place].bound = users[place].bound.min(users[other].next_event());
                        // Whoever else wants it waits until it is a pointer.
                        found.remove(&key);
                        users[place].meeting = Meeting::Ready(Box::new(Other {
                            key,
                            profile: Some(profile),
                        }));
                        return Met::Took(other);
                    }
                    _ => {
                        users[place].meetings -= 1;
                        return Met::Waiting;
                    }
                }
            }
            Some(Found::Loaded(_)) => match found.remove(&key) {
                Some(Found::Loaded(loaded)) => Some(loaded.profile),
                _ => None,
            },
            Some(Found::Nothing) => None,
            Some(Found::Failed(why)) => {
                users[place].blocked = Some(UserFailure::Unavailable(why.clone()));
                return Met::Going;
            }
            // Another user has just taken it: the next round tells whose it is.
            None => {
                users[place].meetings -= 1;
                return Met::Waiting;
            }
            Some(Found::Unusable | Found::Pointer(_) | Found::InBatch(_)) => {
                return self.defer(&mut users[place], tally);
            }
        };
        found.remove(&key);
        users[place].meeting = Meeting::Ready(Box::new(Other { key, profile }));
        Met::Going
    }

    fn defer(&self, user: &mut UserWork<'_>, tally: &mut Tally) -> Met {
        tally.telemetry.merges_deferred += 1;
        user.defer_meeting();
        Met::Going
    }
}

/// The key that pointers lead to, and how many do.
fn root_of<'f>(key: &'f str, found: &'f HashMap<String, Found>) -> (&'f str, usize) {
    let (mut root, mut pointers) = (key, 0);
    while let Some(Found::Pointer(to)) = found.get(root) {
        root = to;
        pointers += 1;
        if pointers > POINTERS_MAX {
            break;
        }
    }
    (root, pointers)
}
