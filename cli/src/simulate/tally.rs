//! What came of the decisions: how many offers were the best for their user, and how soon a model had learned.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use usher_domain::time::Timestamp;

use super::agenda::Agenda;
use super::clock;
use super::world::{World, chance};

const MS_PER_MINUTE: i64 = 60_000;

/// A record on the triggers stream, as far as the simulation looks at it.
#[derive(Debug, Deserialize)]
struct Seen {
    kind: String,
    trigger_id: String,
    user_id: String,
    slot: String,
    offer: String,
    #[serde(default)]
    held_out: Option<bool>,
    #[serde(default)]
    choice: Option<SeenChoice>,
}

#[derive(Debug, Deserialize)]
struct SeenChoice {
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    fallback: Option<String>,
}

/// Decisions of one slot in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Offers that users saw.
    pub decisions: u64,
    /// Those that were the best for their user.
    pub best: u64,
    /// Those for which the best offer that follows from the user's traits is the best for the user: nobody who doesn't know the
    /// groups can reach more.
    pub best_visible: u64,
    /// Those that were clicked.
    pub clicks: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.decisions += other.decisions;
        self.best += other.best;
        self.best_visible += other.best_visible;
        self.clicks += other.clicks;
    }
}

/// What came of the decisions of one variant.
#[derive(Debug, Default)]
pub struct Tally {
    /// By minute of the simulation's time, and slot.
    pub by_minute: BTreeMap<(u64, String), Counts>,
    decided: HashSet<String>,
    first_outcome_at: Option<Instant>,
    first_learned_at: Option<Instant>,
    model_versions: BTreeSet<String>,
    /// Decisions without a model that could be read, by why.
    pub fallbacks: BTreeMap<String, u64>,
}

/// How soon the first outcome told in a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// From the first outcome on the triggers stream to the first decision by a model that had learned, by the wall clock.
    pub first_outcome_to_learned_ms: Option<u64>,
    /// How many versions of models decided.
    pub model_versions: usize,
}

impl Tally {
    /// Takes in a record that was put on the triggers stream, and lets the user click or not.
    ///
    /// # Errors
    /// When it is none, or is about somebody or something that the world doesn't know.
    pub fn see(
        &mut self,
        record: &[u8],
        put: Instant,
        now: Timestamp,
        (world, seed): (&World, u64),
        agenda: &mut Agenda,
    ) -> Result<()> {
        let Ok(seen) = serde_json::from_slice::<Seen>(record) else {
            bail!("a record on the triggers stream is neither a decision nor an outcome");
        };
        if seen.kind == "outcome" {
            self.first_outcome_at.get_or_insert(put);
            return Ok(());
        }
        // A decision may come twice (P5).
        if seen.kind != "decision" || seen.held_out == Some(true) || !self.decided.insert(seen.trigger_id.clone()) {
            return Ok(());
        }
        let choice = seen.choice.as_ref();
        if let Some(fallback) = choice.and_then(|choice| choice.fallback.as_ref()) {
            *self.fallbacks.entry(fallback.clone()).or_default() += 1;
        }
        if let Some(version) = choice.and_then(|choice| choice.model_version.as_ref()) {
            if !self.model_versions.contains(version) {
                self.model_versions.insert(version.clone());
            }
            if self.first_outcome_at.is_some() {
                self.first_learned_at.get_or_insert(put);
            }
        }
        let Some(slot) = world.slots.get(&seen.slot) else {
            bail!(
                "the journey decides for the slot {}, which the world doesn't know",
                seen.slot
            );
        };
        let Some((user, person)) = agenda.person(&seen.user_id) else {
            bail!("a decision is about {}, who isn't one of the users", seen.user_id);
        };
        let Some(probability) = slot.click_probability(person, &seen.offer) else {
            bail!(
                "the journey offers {} in {}, which the world doesn't know",
                seen.offer,
                seen.slot
            );
        };
        // The same user at the same moment clicks on the same offer whatever the variant is.
        let clicks = chance(seed, &[b"click", seen.trigger_id.as_bytes()], user) < probability;
        let minute = u64::try_from(now.ms_since(clock::begin()) / MS_PER_MINUTE).unwrap_or_default();
        let best = slot.best(person);
        *self.by_minute.entry((minute, seen.slot)).or_default() += Counts {
            decisions: 1,
            best: u64::from(best == seen.offer),
            best_visible: u64::from(best == slot.best_visible(person)),
            clicks: u64::from(clicks),
        };
        if clicks {
            agenda.click(seed, user, &seen.offer, &seen.trigger_id, now);
        }
        Ok(())
    }

    /// How soon it learned.
    pub fn learned(&self) -> Learned {
        let took = self.first_outcome_at.zip(self.first_learned_at);
        let took = took.map(|(outcome, learned)| learned.saturating_duration_since(outcome));
        Learned {
            first_outcome_to_learned_ms: took.map(milliseconds),
            model_versions: self.model_versions.len(),
        }
    }

    /// All slots together, from this minute on.
    pub fn since_minute(&self, minute: u64) -> Counts {
        let mut sum = Counts::default();
        let later = self.by_minute.iter().filter(|((at, _), _)| *at >= minute);
        later.for_each(|(_, counts)| sum += *counts);
        sum
    }

    /// All slots together, minute by minute.
    pub fn minutes(&self) -> BTreeMap<u64, Counts> {
        let mut minutes: BTreeMap<u64, Counts> = BTreeMap::new();
        for ((minute, _), counts) in &self.by_minute {
            *minutes.entry(*minute).or_default() += *counts;
        }
        minutes
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::world::tests::small;
    use super::*;

    fn decision(trigger: u32, user: u32, offer: &str, choice: &str) -> Vec<u8> {
        format!(
            r#"{{"kind":"decision","trigger_id":"{trigger:032x}","user_id":"user-{user:07}","slot":"banner","offer":"{offer}"{choice}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn offers_are_counted_once_and_clicks_come_as_often_as_the_world_says() {
        let world = small();
        let mut agenda = Agenda::new(&world, 1, 4_000, 1.0);
        let now = clock::begin().plus_ms(60 * MS_PER_MINUTE);
        agenda.take_until(now);
        let mut tally = Tally::default();
        for repeat in 0..2 {
            for user in 0..4_000 {
                let record = decision(user, user, "x", "");
                tally
                    .see(&record, Instant::now(), now, (&world, 1), &mut agenda)
                    .expect("a decision");
            }
            let counts = tally.since_minute(0);
            let clicks = agenda.len() as u64;
            assert_eq!((counts.decisions, counts.clicks), (4_000, clicks), "repeat {repeat}");
            let in_a = (0..4_000).filter(|user| world.person(1, *user).group == "a").count() as u64;
            assert_eq!(counts.best, in_a);
            assert!((counts.best_visible as f64 / 4_000.0 - 0.9).abs() < 0.02);
            assert!(
                (clicks as f64 / 4_000.0 - 0.25).abs() < 0.03,
                "half click at 40 %, half at 10 %"
            );
        }
        assert_eq!(tally.minutes().keys().collect::<Vec<_>>(), [&60]);
        assert_eq!(tally.since_minute(61), Counts::default());
    }

    #[test]
    fn it_has_learned_when_a_model_decides_after_the_first_outcome() {
        let world = small();
        let mut agenda = Agenda::new(&world, 1, 10, 1.0);
        let mut tally = Tally::default();
        let start = Instant::now();
        let outcome = br#"{"kind":"outcome","trigger_id":"0","user_id":"user-0000000","slot":"banner","offer":"x"}"#;
        let records = [
            decision(1, 1, "x", r#","choice":{"model_version":null,"fallback":"missing"}"#),
            outcome.to_vec(),
            decision(2, 2, "x", r#","choice":{"model_version":null,"fallback":"missing"}"#),
            decision(3, 3, "x", r#","choice":{"model_version":"0a"}"#),
            decision(4, 4, "x", r#","choice":{"model_version":"0b"}"#),
        ];
        for (seconds, record) in records.iter().enumerate() {
            let put = start + Duration::from_secs(seconds as u64);
            tally
                .see(record, put, clock::begin(), (&world, 1), &mut agenda)
                .expect("it is known");
        }
        let learned = tally.learned();
        assert_eq!(
            (learned.first_outcome_to_learned_ms, learned.model_versions),
            (Some(2_000), 2)
        );
        assert_eq!(tally.fallbacks["missing"], 2);
    }

    #[test]
    fn what_the_world_does_not_know_is_told() {
        let world = small();
        let mut agenda = Agenda::new(&world, 1, 10, 1.0);
        for (record, told) in [
            (b"{}".to_vec(), "neither a decision nor an outcome"),
            (decision(1, 10, "x", ""), "user-0000010"),
            (decision(1, 1, "z", ""), "offers z in banner"),
        ] {
            let mut tally = Tally::default();
            let seen = tally.see(&record, Instant::now(), clock::begin(), (&world, 1), &mut agenda);
            assert!(seen.expect_err(told).to_string().contains(told));
        }
    }
}
