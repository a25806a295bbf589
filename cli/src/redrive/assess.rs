//! What each record of a given-up batch is, and whether its event was applied.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use usher_domain::event::TIMER_EVENT;
use usher_domain::journey::Journey;
use usher_domain::limits::POINTERS_MAX;
use usher_domain::profile::Profile;
use usher_pipeline::ports::{GET_USERS_MAX, ProfileTable};
use usher_wire::outcome::OUTCOME_KIND;
use usher_wire::trigger::{DECISION_KIND, TriggerRecord};
use usher_wire::{event, profile_state};

use super::failure_record::FailedRecord;
use super::standing::{Standing, ids_remembered, is_repeat_absorbed, standing};
use crate::gzip;
use crate::patience::patiently;

/// Guard and ids are the same whatever the journey, so any does to read them.
const ANY_JOURNEY: &str = "journey: any";

/// What a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of this user.
    Event {
        /// Whose profile it belongs to.
        user: String,
        /// The hash of its id.
        id_hash: u64,
    },
    /// A decision on the triggers stream, or what came of one: consumers act once by its id.
    Decision,
    /// What wakes a user's timers. It is nothing to be counted, and whoever is still due is woken again anyway.
    WakeUp,
    /// Nothing that can be used; profile-writer will say why on `rejected`.
    Unusable,
}

/// What a record is, from its bytes.
pub fn kind_of(record: &FailedRecord) -> Kind {
    let expanded = gzip::is_gzip(&record.data).then(|| gzip::decompress(&record.data).unwrap_or_default());
    let bytes = expanded.as_deref().unwrap_or(&record.data);
    match event::decode(bytes, record.arrived_at) {
        Ok(event) if event.event_type == TIMER_EVENT => Kind::WakeUp,
        Ok(event) => Kind::Event {
            user: event.user.to_string(),
            id_hash: event.id_hash,
        },
        Err(_) if is_of_triggers(bytes) => Kind::Decision,
        Err(_) => Kind::Unusable,
    }
}

/// Whether it is a record of the triggers stream.
fn is_of_triggers(bytes: &[u8]) -> bool {
    let record = TriggerRecord::parse(bytes);
    record.is_ok_and(|record| record.kind == DECISION_KIND || record.kind == OUTCOME_KIND)
}

/// The profiles of some users.
#[derive(Default)]
pub struct Profiles {
    by_user: HashMap<String, Profile>,
    /// Users whose events go to `rejected` for now: they are parked, or will be, because their profile can't be read.
    parked: BTreeSet<String>,
    /// Keys that turned out to be another user's, and that user.
    pointers: HashMap<String, String>,
}

impl Profiles {
    /// Reads them, and those of the users that they turned out to be.
    ///
    /// # Errors
    /// When the table can't be read.
    pub async fn read(table: &impl ProfileTable, users: &BTreeSet<&str>) -> Result<Profiles> {
        let mut profiles = Profiles::default();
        let mut wanted: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
        for _ in 0..=POINTERS_MAX {
            let pointed_to = profiles.read_some(table, &wanted).await?;
            wanted = pointed_to.into_iter().filter(|user| !profiles.knows(user)).collect();
            if wanted.is_empty() {
                break;
            }
        }
        Ok(profiles)
    }

    fn knows(&self, user: &str) -> bool {
        self.by_user.contains_key(user) || self.pointers.contains_key(user) || self.parked.contains(user)
    }

    /// Reads the items of these keys, and gives the users to whom some of them point.
    async fn read_some(&mut self, table: &impl ProfileTable, users: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        // It is a constant, and a test reads it.
        let journey = Journey::parse(ANY_JOURNEY).map_err(|_| anyhow::anyhow!("the built-in journey is wrong"))?;
        let mut waiting: Vec<&str> = users.iter().map(String::as_str).collect();
        let mut pointed_to = BTreeSet::new();
        while !waiting.is_empty() {
            let asked = waiting.split_off(waiting.len().saturating_sub(GET_USERS_MAX));
            let answer = patiently(|| table.get(&asked)).await.context(
                "cannot read the profiles, which tell what was applied; is the table's name right (--table), and is this \
                 the right account, region or endpoint (--dynamodb-endpoint-url)?",
            )?;
            for item in answer.items {
                if let Some(into) = item.merged_into {
                    pointed_to.insert(into.clone());
                    self.pointers.insert(item.user_id, into);
                    continue;
                }
                if item.parked_since.is_some() {
                    self.parked.insert(item.user_id.clone());
                }
                match profile_state::decode(&item.state, item.version, &item.user_id, &journey) {
                    Ok(profile) => {
                        self.by_user.insert(item.user_id, profile);
                    }
                    Err(_) => {
                        self.parked.insert(item.user_id);
                    }
                }
            }
            self.parked.extend(answer.unreadable.into_iter().map(|(user, _)| user));
            waiting.extend(
                asked
                    .into_iter()
                    .filter(|user| answer.unprocessed.iter().any(|left| left == user)),
            );
        }
        Ok(pointed_to)
    }

    /// The user that a key turned out to be, and the keys on the way there; nothing where pointers lead nowhere.
    fn follow<'k>(&'k self, key: &'k str) -> Option<(&'k str, Vec<&'k str>)> {
        let (mut user, mut way) = (key, Vec::new());
        while let Some(into) = self.pointers.get(user) {
            if way.len() >= POINTERS_MAX {
                return None;
            }
            way.push(user);
            user = into;
        }
        Some((user, way))
    }

    /// What is known of an event that names this key.
    fn standing(&self, key: &str, record: &FailedRecord, id_hash: u64) -> Standing {
        match self.follow(key) {
            Some((user, way)) => standing(self.by_user.get(user), record, &way, id_hash),
            None => Standing::Uncertain,
        }
    }

    /// The user that a key turned out to be, or itself where pointers lead nowhere.
    fn user_of<'k>(&'k self, key: &'k str) -> &'k str {
        self.follow(key).map_or(key, |(user, _)| user)
    }
}

/// What is to be done with some records.
#[derive(Debug, Default)]
pub struct Assessment {
    /// For each record, whether it goes again.
    pub fates: Vec<Fate>,
    /// Uncertain events by user.
    pub uncertain: BTreeMap<String, u64>,
    /// Events of users who have more of them here than ids are remembered, by user: each was not applied yet, but may wait on
    /// the stream already, put there by an earlier redrive.
    pub too_many: BTreeMap<String, u64>,
    /// Events of parked users that go again, by user.
    pub parked: BTreeMap<String, u64>,
    /// Events that are applied already.
    pub applied: u64,
    /// Events that certainly were not.
    pub not_applied: u64,
    /// Decisions.
    pub decisions: u64,
    /// Records that only wake users, left out.
    pub wake_ups: u64,
    /// Records that will be rejected.
    pub unusable: u64,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes again.
    Goes,
    /// It is applied already.
    Applied,
    /// Nobody needs it any more.
    NotNeeded,
    /// Somebody has to say.
    Uncertain,
}

/// Decides what is to be done with each record; `journey_remembers` event ids in a profile that has not forgotten one. Pure.
pub fn assess(records: &[FailedRecord], kinds: &[Kind], profiles: &Profiles, journey_remembers: usize) -> Assessment {
    let mut assessment = Assessment::default();
    for (record, kind) in records.iter().zip(kinds) {
        let fate = match kind {
            Kind::Decision => {
                assessment.decisions += 1;
                Fate::Goes
            }
            Kind::WakeUp => {
                assessment.wake_ups += 1;
                Fate::NotNeeded
            }
            Kind::Unusable => {
                assessment.unusable += 1;
                Fate::Goes
            }
            Kind::Event { user, id_hash } => {
                let fate = match profiles.standing(user, record, *id_hash) {
                    Standing::Applied => {
                        assessment.applied += 1;
                        Fate::Applied
                    }
                    Standing::NotApplied => {
                        assessment.not_applied += 1;
                        Fate::Goes
                    }
                    Standing::Uncertain => {
                        *assessment.uncertain.entry(user.clone()).or_default() += 1;
                        Fate::Uncertain
                    }
                };
                if fate != Fate::Applied && profiles.parked.contains(profiles.user_of(user)) {
                    *assessment.parked.entry(user.clone()).or_default() += 1;
                }
                fate
            }
        };
        assessment.fates.push(fate);
    }
    let mut open: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (kind, fate)) in kinds.iter().zip(&assessment.fates).enumerate() {
        if let (Kind::Event { user, .. }, Fate::Goes | Fate::Uncertain) = (kind, fate) {
            open.entry(profiles.user_of(user)).or_default().push(index);
        }
    }
    for (user, indexes) in open {
        let remembered = ids_remembered(profiles.by_user.get(user), journey_remembers);
        if is_repeat_absorbed(indexes.len() as u64, remembered) {
            continue;
        }
        for index in indexes {
            if assessment.fates[index] == Fate::Goes {
                assessment.fates[index] = Fate::Uncertain;
                assessment.not_applied -= 1;
                *assessment.too_many.entry(user.to_owned()).or_default() += 1;
            }
        }
    }
    assessment
}

#[cfg(test)]
mod tests {
    use usher_domain::guard::ShardKey;
    use usher_domain::hash::hash_bytes;
    use usher_domain::recent_event_ids::RecentEventIds;
    use usher_domain::sequence_number::Position;
    use usher_domain::time::Timestamp;
    use usher_pipeline::memory::MemoryProfileTable;
    use usher_pipeline::ports::ProfileItem;

    use super::*;

    fn record(data: &[u8]) -> FailedRecord {
        FailedRecord {
            stream_arn: "arn".to_owned(),
            shard_id: "shardId-0".to_owned(),
            sequence_number: 10u64.into(),
            partition_key: "k".to_owned(),
            arrived_at: "2026-01-05T10:00:00Z".parse().expect("a time"),
            data: data.to_owned(),
        }
    }

    fn event(user: &str, id: &str) -> Vec<u8> {
        let at = "2026-01-05T10:00:00Z";
        format!(r#"{{"event_id":"{id}","event_type":"click","timestamp":"{at}","user_id":"{user}"}}"#).into_bytes()
    }

    #[tokio::test]
    async fn each_record_has_its_fate_by_what_it_is_and_what_the_profile_knows() {
        let journey = Journey::parse(ANY_JOURNEY).expect("it is fine");
        let table = MemoryProfileTable::default();
        let at_20 = Position {
            sequence_number: 20u64.into(),
            sub_sequence_number: 0,
        };
        for (user, applied_events, parked_since) in [
            ("ann", 1, None),
            ("bob", 9, None),
            ("eve", 1, Some(Timestamp::default())),
        ] {
            let mut profile = Profile::new(&journey);
            profile.applied_events = applied_events;
            profile.recent_event_ids = RecentEventIds::from_hashes([hash_bytes(b"known")]);
            profile.guard.advance(ShardKey::of("arn", "shardId-0"), at_20);
            let item = ProfileItem {
                user_id: user.to_owned(),
                version: 1,
                state: profile_state::encode(&profile, &journey),
                updated_at: Timestamp::default(),
                parked_since,
                next_due_at: None,
                merged_into: None,
            };
            table.put(&item, 0).await.expect("it is in memory");
        }
        let decision = br#"{"kind":"decision","trigger_id":"1","user_id":"ann"}"#;
        let records: Vec<FailedRecord> = [
            event("ann", "known"),
            event("ann", "new"),
            gzip::compress(&event("bob", "new")),
            event("new", "known"),
            event("eve", "new"),
            decision.to_vec(),
            b"not json".to_vec(),
        ]
        .iter()
        .map(|data| record(data))
        .collect();
        let kinds: Vec<Kind> = records.iter().map(kind_of).collect();
        let users = kinds.iter().filter_map(|kind| match kind {
            Kind::Event { user, .. } => Some(user.as_str()),
            _ => None,
        });
        let profiles = Profiles::read(&table, &users.collect()).await.expect("it is in memory");
        let found = assess(&records, &kinds, &profiles, 64);
        use Fate::{Applied, Goes, Uncertain};
        assert_eq!(found.fates, [Applied, Goes, Uncertain, Goes, Goes, Goes, Goes]);
        assert_eq!(
            (found.applied, found.not_applied, found.decisions, found.unusable),
            (1, 3, 1, 1)
        );
        assert_eq!(found.uncertain, BTreeMap::from([("bob".to_owned(), 1)]));
        assert_eq!(found.parked, BTreeMap::from([("eve".to_owned(), 1)]));
        assert!(found.too_many.is_empty());

        // What wakes a user is left out. An event that names a key which became another user's is judged by that user's
        // profile, and one that pointers lead nowhere is nobody's to judge.
        let pointer = |user: &str, into: &str| ProfileItem {
            user_id: user.to_owned(),
            version: 1,
            state: Vec::new(),
            updated_at: Timestamp::default(),
            parked_since: None,
            next_due_at: None,
            merged_into: Some(into.to_owned()),
        };
        let mut profile = Profile::new(&journey);
        profile.applied_events = 9;
        let lane = ShardKey::of("arn", "shardId-0").within("old").within("older");
        profile.guard.advance(lane, at_20);
        let merged = ProfileItem {
            state: profile_state::encode(&profile, &journey),
            merged_into: None,
            ..pointer("new_id", "")
        };
        for item in [
            pointer("old", "older"),
            pointer("older", "ann"),
            pointer("was", "new_id"),
            merged,
            pointer("round", "and_round"),
            pointer("and_round", "round"),
        ] {
            table.put(&item, 0).await.expect("it is in memory");
        }
        let wake_up =
            br#"{"event_id":"timer:1","event_type":"usher.timer","timestamp":"2026-01-05T10:00:00Z","user_id":"ann"}"#;
        let by_pointer: Vec<FailedRecord> = [
            event("old", "known"),
            event("old", "new"),
            event("was", "new"),
            event("round", "new"),
            wake_up.to_vec(),
        ]
        .iter()
        .map(|data| record(data))
        .collect();
        let kinds: Vec<Kind> = by_pointer.iter().map(kind_of).collect();
        assert_eq!(kinds.last(), Some(&Kind::WakeUp));
        let users = BTreeSet::from(["old", "was", "round"]);
        let profiles_by_pointer = Profiles::read(&table, &users).await.expect("it is in memory");
        let found = assess(&by_pointer, &kinds, &profiles_by_pointer, 64);
        assert_eq!(found.fates, [Applied, Goes, Uncertain, Uncertain, Fate::NotNeeded]);
        assert_eq!(found.wake_ups, 1);

        // More than are remembered: they may wait on the stream from an earlier redrive.
        let records = [
            &records[3..4],
            &[record(&event("new", "2")), record(&event("new", "3"))],
        ]
        .concat();
        let kinds: Vec<Kind> = records.iter().map(kind_of).collect();
        for (remembered, fate) in [(3, Goes), (2, Uncertain)] {
            let found = assess(&records, &kinds, &profiles, remembered);
            assert_eq!(found.fates, [fate; 3], "{remembered}");
            let count = found.too_many.get("new").copied().unwrap_or(0);
            assert_eq!(count + found.not_applied, 3, "{remembered}");
        }
    }
}
