//! A user's parked records, in order, each place once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::guard::{Guard, ShardKey};
use usher_domain::profile::Profile;
use usher_domain::sequence_number::{Position, SequenceNumber};
use usher_domain::trigger::Cause;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::{Envelope, EnvelopeRecord};
use usher_wire::reject::RejectedRecord;

use super::{ParkedRecord, Place};
use crate::profile_writer::records::{Lanes, decode_records, lanes_of};

/// What the guard's lane of a shard of `rejected` is called; no stream or partition key of Kinesis' has this name.
const REDRIVE_LANE: &str = "\u{0}redrive";

/// The parked records that were read so far.
pub(super) struct Queue {
    user: String,
    /// Whether what is applied counts by partition key within its shard.
    by_partition_key: bool,
    /// Whether the profile's guard told that, rather than the request.
    guard_tells: bool,
    /// Whether nothing was ever applied to the profile.
    begins_anew: bool,
    entries: Vec<Entry>,
    places: HashSet<Place>,
    /// How keys other than the user's lead to the user: each key on the way, itself the first. None for one that doesn't.
    ways: BTreeMap<String, Option<Vec<String>>>,
    /// How far each shard of `rejected` was read, in the order in which they came.
    read_to: Vec<(Shard, Position)>,
}

struct Entry {
    place: Place,
    /// The lane of its shard of `rejected`, as an index into [`Queue::read_to`].
    lane: usize,
    /// Where it is on `rejected`: of several copies the first.
    position: Position,
    /// Where it was on interactions, as a number.
    sequence_number: SequenceNumber,
    /// The key that its event names, where that is not the user's own.
    key: Option<String>,
    /// Its shard of interactions, by which profile-writer's guard counts.
    shard: ShardKey,
    /// Its partition key in that shard, by which the guard counts above a parallelisation factor of 1.
    shard_and_key: ShardKey,
    /// The record as it was on interactions, or why it can't be had.
    record: Result<EnvelopeRecord<'static>, String>,
}

/// A record that is not done with.
#[derive(Clone, Copy)]
pub(super) struct Open<'q> {
    queue: &'q Queue,
    entry: &'q Entry,
}

impl Queue {
    pub fn new(user: &str, by_partition_key: bool) -> Queue {
        Queue {
            user: user.to_owned(),
            by_partition_key,
            guard_tells: false,
            begins_anew: false,
            entries: Vec::new(),
            places: HashSet::new(),
            ways: BTreeMap::new(),
            read_to: Vec::new(),
        }
    }

    /// How many different records were read.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Adds what was read now. What is not a parked record of this user is left out.
    pub fn add(&mut self, records: Vec<ParkedRecord>) {
        for record in records {
            let Ok(rejected) = serde_json::from_slice::<RejectedRecord<'_>>(&record.data) else {
                continue;
            };
            if !rejected.parked || rejected.user.as_deref() != Some(&self.user) {
                continue;
            }
            let position = Position {
                sequence_number: record.sequence_number,
                sub_sequence_number: 0,
            };
            let lane = self.lane_of(&record.shard_id, position);
            let place = Place {
                stream_arn: rejected.stream_arn.clone().into_owned(),
                shard_id: rejected.shard_id.clone().into_owned(),
                sequence_number: rejected.sequence_number.clone().into_owned(),
            };
            if self.places.insert(place.clone()) {
                let shard = ShardKey::of(&place.stream_arn, &place.shard_id);
                let record = as_it_was(&rejected);
                self.entries.push(Entry {
                    key: key_of(&record).filter(|key| *key != self.user),
                    shard,
                    shard_and_key: shard.within(&rejected.partition_key),
                    sequence_number: place.sequence_number.parse().unwrap_or_default(),
                    place,
                    lane,
                    position,
                    record,
                });
            }
        }
    }

    /// The keys other than the user's that events name, and of which it is not known how they lead to the user.
    pub fn foreign_keys(&self) -> Vec<String> {
        let keys = self.entries.iter().filter_map(|entry| entry.key.as_ref());
        let unknown: BTreeSet<&String> = keys.filter(|key| !self.ways.contains_key(*key)).collect();
        unknown.into_iter().cloned().collect()
    }

    /// Learns the way from a key to the user.
    pub fn set_way(&mut self, key: String, way: Option<Vec<String>>) {
        self.ways.insert(key, way);
    }

    /// The keys on the way from an event's own to the user; none for most.
    fn way_of(&self, entry: &Entry) -> &[String] {
        let way = entry.key.as_ref().and_then(|key| self.ways.get(key)?.as_deref());
        way.unwrap_or_default()
    }

    /// An event's lane in the user's guard, by its shard and by its partition key within that.
    fn lanes_of_entry(&self, entry: &Entry) -> [ShardKey; 2] {
        [entry.shard, entry.shard_and_key].map(|lane| {
            let way = self.way_of(entry).iter();
            way.fold(lane, |lane, key| lane.within(key))
        })
    }

    /// Counts as profile-writer did, where the guard tells: it knows the records' lanes in one of the two ways only.
    pub fn count_as(&mut self, guard: &Guard) {
        let knows = |key: ShardKey| guard.entries().iter().any(|(known, _)| *known == key);
        let (mut by_shard_only, mut by_key_only, mut both) = (false, false, false);
        for entry in &self.entries {
            let [by_shard, by_key] = self.lanes_of_entry(entry);
            match (knows(by_shard), knows(by_key)) {
                (true, false) => by_shard_only = true,
                (false, true) => by_key_only = true,
                (true, true) => both = true,
                (false, false) => {}
            }
        }
        self.begins_anew = guard.entries().is_empty();
        self.guard_tells = !both && by_shard_only != by_key_only;
        if self.guard_tells {
            self.by_partition_key = by_key_only;
        }
    }

    /// The lane of a shard of `rejected`, which was read up to here.
    fn lane_of(&mut self, shard_id: &str, position: Position) -> usize {
        if let Some(lane) = self.read_to.iter().position(|(shard, _)| shard.id == shard_id) {
            let (_, read_to) = &mut self.read_to[lane];
            *read_to = (*read_to).max(position);
            return lane;
        }
        let shard = Shard {
            key: ShardKey::of(REDRIVE_LANE, shard_id),
            id: shard_id.to_owned(),
        };
        self.read_to.push((shard, position));
        self.read_to.len() - 1
    }

    /// The records that are not done with, in order.
    pub fn open<'q>(&'q self, guard: &'q Guard) -> impl Iterator<Item = Open<'q>> {
        let open = self.entries.iter().filter(move |entry| !self.is_done(entry, guard));
        open.map(move |entry| Open { queue: self, entry })
    }

    /// How many are done with.
    pub fn done_by(&self, guard: &Guard) -> u64 {
        self.entries.iter().filter(|entry| self.is_done(entry, guard)).count() as u64
    }

    fn is_done(&self, entry: &Entry, guard: &Guard) -> bool {
        let (shard, _) = &self.read_to[entry.lane];
        guard.covers(shard.key, entry.position)
    }

    /// The open records whose place the profile is past, although it doesn't know their events.
    pub fn passed_by(&self, profile: &Profile) -> Vec<Place> {
        let passed_by = self.open(&profile.guard).filter(|open| {
            let Ok(decoded) = open.decode() else { return false };
            decoded
                .event()
                .is_ok_and(|arrived| open.is_passed_by(profile, &arrived))
        });
        passed_by.map(Open::place).collect()
    }

    /// Whether one of the records caused a trigger.
    pub fn has_caused(&self, cause: &Cause) -> bool {
        self.entries.iter().any(|entry| {
            // One that was passed by is applied by its place on `rejected`.
            let (rejected, _) = &self.read_to[entry.lane];
            (cause.sequence_number == entry.sequence_number && cause.shard_id == entry.place.shard_id)
                || (cause.sequence_number == entry.position.sequence_number && cause.shard_id == rejected.id)
        })
    }

    /// Remembers that everything that was read is done with: on `rejected`, and for a profile that began anew, also on
    /// interactions by either way of counting, whichever profile-writer has. Along the way, and in any other profile, only
    /// one is advanced: partition keys of one user may be parked in another order than the shard's, also after this
    /// redrive, and would seem to be passed by.
    pub fn advance_to_the_end(&self, guard: &mut Guard) {
        for (shard, read_to) in &self.read_to {
            guard.advance(shard.key, *read_to);
        }
        if !self.begins_anew {
            return;
        }
        let mut ends: BTreeMap<ShardKey, Position> = BTreeMap::new();
        for entry in &self.entries {
            for key in self.lanes_of_entry(entry) {
                let end = ends.entry(key).or_default();
                *end = (*end).max(entry.position_on_interactions());
            }
        }
        for (key, end) in ends {
            guard.advance(key, end);
        }
    }
}

impl Entry {
    fn position_on_interactions(&self) -> Position {
        Position {
            sequence_number: self.sequence_number,
            sub_sequence_number: 0,
        }
    }
}

impl<'q> Open<'q> {
    /// Whether the profile is past its place, by either way of counting unless its guard tells which, and doesn't know its
    /// event.
    pub fn is_passed_by(self, profile: &Profile, arrived: &ArrivedEvent<'_>) -> bool {
        let is_covered = if self.queue.guard_tells {
            profile.is_redelivery(arrived)
        } else {
            self.queue
                .lanes_of_entry(self.entry)
                .into_iter()
                .any(|key| profile.guard.covers(key, arrived.position))
        };
        is_covered && !profile.recent_event_ids.contains(arrived.event.id_hash)
    }

    /// Where it was on interactions.
    pub fn place(self) -> Place {
        self.entry.place.clone()
    }

    /// The lane of its shard of `rejected`.
    pub fn lane(self) -> &'q Shard {
        &self.queue.read_to[self.entry.lane].0
    }

    /// Where it is on `rejected`.
    pub fn position(self) -> Position {
        self.entry.position
    }

    /// Remembers that it is done with.
    pub fn advance(self, guard: &mut Guard) {
        guard.advance(self.lane().key, self.entry.position);
    }

    /// Decodes it as profile-writer does.
    pub fn decode(self) -> Result<DecodedRecord, String> {
        let record = self.entry.record.as_ref().map_err(Clone::clone)?;
        let envelope = envelope_of(record);
        let mut lanes = lanes_of(&envelope, self.queue.by_partition_key);
        for key in self.queue.way_of(self.entry) {
            lanes.go_within(key);
        }
        Ok(DecodedRecord {
            user: self.queue.user.clone(),
            is_users: self.entry.key.is_none() || !self.queue.way_of(self.entry).is_empty(),
            lanes,
            bytes: DecodedBatch::decode(&envelope),
            envelope,
        })
    }
}

/// A record with the bytes that its event borrows from.
pub(super) struct DecodedRecord {
    user: String,
    /// Whether its event names the user, or a key that leads to the user.
    is_users: bool,
    envelope: Envelope<'static>,
    bytes: DecodedBatch,
    lanes: Lanes,
}

impl DecodedRecord {
    /// The event, at the place where it arrived on interactions; or why it is none.
    pub fn event(&self) -> Result<ArrivedEvent<'_>, String> {
        let mut decoded = decode_records(&self.envelope, &self.bytes, &self.lanes);
        if let Some((_, reject)) = decoded.rejects.first() {
            return Err(reject.to_string());
        }
        let mut arrived = decoded.events.pop().ok_or("it holds no event")?;
        if !self.is_users {
            return Err(format!("its event is of another user, {}", arrived.event.user));
        }
        arrived.event.user = Cow::Owned(self.user.clone());
        // Another profile that it names is merged by profile-writer, at the next event that names it.
        arrived.event.alias = None;
        Ok(arrived)
    }
}

/// A record as a batch of its own.
fn envelope_of(record: &EnvelopeRecord<'static>) -> Envelope<'static> {
    Envelope {
        records: vec![EnvelopeRecord {
            stream_arn: record.stream_arn.clone(),
            shard_id: record.shard_id.clone(),
            partition_key: record.partition_key.clone(),
            sequence_number_text: record.sequence_number_text.clone(),
            sequence_number: record.sequence_number,
            arrived_at: record.arrived_at,
            data: record.data.clone(),
        }],
    }
}

/// The key that a record's event names.
fn key_of(record: &Result<EnvelopeRecord<'static>, String>) -> Option<String> {
    let record = record.as_ref().ok()?;
    let envelope = envelope_of(record);
    let bytes = DecodedBatch::decode(&envelope);
    let bytes = bytes.records().next()?.ok()?;
    usher_wire::event::user_of(bytes)
}

/// The record that was parked, as it came.
fn as_it_was(rejected: &RejectedRecord<'_>) -> Result<EnvelopeRecord<'static>, String> {
    let bytes = rejected.original_bytes().map_err(|error| crate::retry::chain(&error))?;
    let owned = |text: &str| Cow::Owned(text.to_owned());
    Ok(EnvelopeRecord {
        stream_arn: owned(&rejected.stream_arn),
        shard_id: owned(&rejected.shard_id),
        partition_key: owned(&rejected.partition_key),
        sequence_number_text: owned(&rejected.sequence_number),
        sequence_number: rejected
            .sequence_number
            .parse()
            .map_err(|error| format!("its place can't be read: {error}"))?,
        arrived_at: rejected
            .arrived_at
            .parse()
            .map_err(|error| format!("its arrival can't be read: {error}"))?,
        data: Cow::Owned(base64_simd::STANDARD.encode_to_string(bytes)),
    })
}
