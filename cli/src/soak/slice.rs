//! What a run is made of, as its seed decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use anyhow::{Result, bail};
use usher_wire::event;

use crate::arrival_clock::{data_arrival, wall_clock};
use crate::events_file::EventsFile;

/// The widest that a run's streams begin; reshards go on from there.
const SHARDS_MAX: u32 = 4;
/// How large a run's batches may be: small ones make many invocations, large ones many users in each.
const BATCH_SIZES: [usize; 4] = [10, 40, 150, 1_000];
/// Batches of one shard that a run may have under way at once; one is what the template says.
const PARALLELIZATION_FACTORS: [u32; 4] = [1, 1, 2, 4];

/// Every event, and who it is of.
pub struct Events {
    lines: Vec<Arc<[u8]>>,
    /// The lines of each user, in order; users in the order of their first event.
    by_user: Vec<Vec<usize>>,
}

/// How the events of a run were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One after the other in the file: many users, a part of each one's history.
    Window,
    /// Everything of some users: few users, each one's whole history, or its beginning for the last one.
    Users,
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Choice::Window => "one window",
            Choice::Users => "whole users",
        })
    }
}

/// What a run is made of.
pub struct Plan {
    /// The events, in the order of the file.
    pub lines: Vec<Arc<[u8]>>,
    /// How they were chosen.
    pub choice: Choice,
    /// Shards of each stream at the start.
    pub shards: u32,
    /// Records in a batch.
    pub batch_size: usize,
    /// Batches of a shard at once.
    pub parallelization_factor: u32,
}

impl Events {
    /// Reads a file into memory.
    ///
    /// # Errors
    /// When it can't be read or has no line.
    pub fn read(mut file: EventsFile) -> Result<Events> {
        let mut lines: Vec<Arc<[u8]>> = Vec::new();
        let mut users: HashMap<String, usize> = HashMap::new();
        let mut by_user: Vec<Vec<usize>> = Vec::new();
        while let Some(line) = file.next_line()? {
            // What can't be used belongs to nobody, and to the run all the same.
            let arrived_at = data_arrival(line.bytes).unwrap_or_else(wall_clock);
            let user =
                event::decode(line.bytes, arrived_at).map_or_else(|_| String::new(), |event| event.user.to_string());
            let place = *users.entry(user).or_insert_with(|| {
                by_user.push(Vec::new());
                by_user.len() - 1
            });
            if let Some(of_user) = by_user.get_mut(place) {
                of_user.push(lines.len());
            }
            lines.push(line.bytes.into());
        }
        if lines.is_empty() {
            bail!("the events file has no line; give one with some events");
        }
        Ok(Events { lines, by_user })
    }

    /// What the run with this seed is made of, with at most so many events.
    pub fn plan(&self, seed: u64, events_max: usize) -> Plan {
        let mut random = fastrand::Rng::with_seed(seed);
        let choice = if random.bool() { Choice::Window } else { Choice::Users };
        let count = events_max.min(self.lines.len());
        let chosen: Vec<usize> = match choice {
            Choice::Window => {
                let start = random.usize(0..=self.lines.len() - count);
                (start..start + count).collect()
            }
            Choice::Users => {
                let mut users: Vec<&Vec<usize>> = self.by_user.iter().collect();
                random.shuffle(&mut users);
                let mut chosen: Vec<usize> = users.into_iter().flatten().copied().take(count).collect();
                chosen.sort_unstable();
                chosen
            }
        };
        let lines = chosen.into_iter().filter_map(|index| self.lines.get(index).cloned());
        Plan {
            lines: lines.collect(),
            choice,
            shards: random.u32(1..=SHARDS_MAX),
            batch_size: *random.choice(&BATCH_SIZES).unwrap_or(&BATCH_SIZES[0]),
            parallelization_factor: *random
                .choice(&PARALLELIZATION_FACTORS)
                .unwrap_or(&PARALLELIZATION_FACTORS[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(folder: &std::path::Path) -> Events {
        let path = folder.join("events.jsonl");
        let line = |number: usize| {
            format!(
                r#"{{"event_id":"{number}","event_type":"click","timestamp":"2026-01-05T10:00:00Z","user_id":"u{}"}}"#,
                number % 7
            )
        };
        let mut text: Vec<String> = (0..100).map(line).collect();
        text.push("not json".to_owned());
        std::fs::write(&path, text.join("\n")).expect("written");
        Events::read(EventsFile::open(&path).expect("it is there")).expect("it is readable")
    }

    #[test]
    fn a_seed_chooses_the_same_events_again_in_the_order_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = events(folder.path());
        assert_eq!((events.lines.len(), events.by_user.len()), (101, 8));
        let place = |line: &Arc<[u8]>| {
            events
                .lines
                .iter()
                .position(|known| known == line)
                .expect("it is one of them")
        };
        let mut choices = Vec::new();
        for seed in 0..20 {
            let plan = events.plan(seed, 30);
            assert_eq!(plan.lines, events.plan(seed, 30).lines);
            let places: Vec<usize> = plan.lines.iter().map(place).collect();
            assert_eq!(places.len(), 30);
            assert!(places.is_sorted(), "{places:?}");
            if plan.choice == Choice::Window {
                assert_eq!(places[29] - places[0], 29);
            }
            assert!((1..=SHARDS_MAX).contains(&plan.shards));
            choices.push(plan.choice);
        }
        assert!(choices.contains(&Choice::Window) && choices.contains(&Choice::Users));
        assert_eq!(events.plan(1, 1_000).lines.len(), 101, "no more than there are");
    }
}
