//! Decisions on their way from a table, which has them in no order, to a log, which has them in order of time.
//!
//! They wait in a temporary file; only their times and places are in memory, some 24 bytes each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use usher_domain::time::Timestamp;
use usher_wire::outcome::OutcomeRecord;

use crate::decision_log::{LoggedCandidate, LoggedDecision};

const UNUSABLE: &str = "a temporary file can't be used";

/// Decisions that wait.
pub struct Spool {
    file: BufWriter<File>,
    bytes: u64,
    places: Vec<Place>,
    /// What came of decisions that are filed under another user, by trigger id.
    lone: HashMap<String, OutcomeSoFar>,
    /// The latest moment that the data tells of: now, by its clock.
    now: Timestamp,
    within_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    decided_at: Timestamp,
    offset: u64,
    bytes: u32,
}

/// A decision that waits.
#[derive(Serialize, Deserialize)]
struct Waiting {
    decision: LoggedDecision,
    outcome: Option<OutcomeSoFar>,
}

/// What came of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OutcomeSoFar {
    reward: f64,
    rewards: Vec<String>,
    expired: bool,
}

/// A decision as it is on the stream, as far as the log needs it.
#[derive(Deserialize)]
struct DecisionRecord {
    trigger_id: String,
    user_id: String,
    rule: String,
    slot: String,
    offer: String,
    decided_at: String,
    #[serde(default)]
    propensity: Option<f64>,
    #[serde(default)]
    held_out: bool,
    #[serde(default)]
    arms: std::collections::BTreeMap<String, String>,
    journey: JourneyRecord,
    #[serde(default)]
    choice: Option<ChoiceRecord>,
}

#[derive(Deserialize)]
struct JourneyRecord {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct ChoiceRecord {
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    context: serde_json::Map<String, serde_json::Value>,
    candidates: Vec<LoggedCandidate>,
}

impl Spool {
    /// An empty one. Outcomes count for `within_ms` after a decision; where that is none, only those settle a decision whose
    /// window is known to have run out.
    ///
    /// # Errors
    /// When there is no room for a temporary file.
    pub fn new(within_ms: Option<i64>) -> Result<Spool> {
        Ok(Spool {
            file: BufWriter::new(tempfile::tempfile().context(UNUSABLE)?),
            bytes: 0,
            places: Vec::new(),
            lone: HashMap::new(),
            now: Timestamp::MIN,
            within_ms,
        })
    }

    /// How many decisions there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a decision and what is filed under it, both as they were on the stream (JSON). Gives what is wrong with them, if
    /// anything.
    ///
    /// # Errors
    /// When the temporary file can't be written.
    pub fn add(&mut self, trigger: &str, outcome: Option<&str>) -> Result<Result<(), String>> {
        let read = (|| {
            let (decision, decided_at) = decision_of(trigger)?;
            Ok((decision, decided_at, outcome.map(outcome_of).transpose()?))
        })();
        let (decision, decided_at, outcome) = match read {
            Ok(read) => read,
            Err(why) => return Ok(Err(why)),
        };
        self.now = self.now.max(decided_at);
        let outcome = outcome.map(|(outcome, made_at)| {
            self.now = self.now.max(made_at);
            outcome
        });
        let json = serde_json::to_vec(&Waiting { decision, outcome }).context(UNUSABLE)?;
        let Ok(bytes) = u32::try_from(json.len()) else {
            return Ok(Err("it is too large".to_owned()));
        };
        self.file.write_all(&json).context(UNUSABLE)?;
        let offset = self.bytes;
        self.places.push(Place {
            decided_at,
            offset,
            bytes,
        });
        self.bytes += u64::from(bytes);
        Ok(Ok(()))
    }

    /// Adds what came of a decision that is filed elsewhere. Gives what is wrong with it, if anything.
    pub fn add_lone(&mut self, trigger_id: String, outcome: &str) -> Result<(), String> {
        let (outcome, made_at) = outcome_of(outcome)?;
        self.now = self.now.max(made_at);
        let known = self.lone.entry(trigger_id).or_insert_with(|| outcome.clone());
        if outcome.rewards.len() > known.rewards.len() {
            *known = outcome;
        }
        Ok(())
    }

    /// Gives all decisions, oldest first, each with what came of it.
    ///
    /// # Errors
    /// When the temporary file can't be read, or what `take` gives.
    pub fn for_each(mut self, mut take: impl FnMut(LoggedDecision) -> Result<()>) -> Result<()> {
        let mut file = self
            .file
            .into_inner()
            .map_err(|error| error.into_error())
            .context(UNUSABLE)?;
        self.places.sort_unstable();
        let mut json = Vec::new();
        for place in &self.places {
            json.resize(place.bytes as usize, 0);
            file.seek(SeekFrom::Start(place.offset)).context(UNUSABLE)?;
            file.read_exact(&mut json).context(UNUSABLE)?;
            let waiting: Waiting = serde_json::from_slice(&json).context(UNUSABLE)?;
            let lone = self.lone.get(&waiting.decision.trigger_id);
            let is_window_over = self
                .within_ms
                .is_some_and(|within_ms| place.decided_at.plus_ms(within_ms) <= self.now);
            take(settled(waiting, lone, is_window_over))?;
        }
        Ok(())
    }
}

/// The decision with what came of it.
fn settled(waiting: Waiting, lone: Option<&OutcomeSoFar>, is_window_over: bool) -> LoggedDecision {
    let Waiting { mut decision, outcome } = waiting;
    // Each tells all that came before it, so the one with more rewards is the later one.
    let best = outcome.iter().chain(lone).max_by_key(|outcome| outcome.rewards.len());
    if let Some(best) = best {
        decision.reward = Some(best.reward);
        decision.outcomes.clone_from(&best.rewards);
        let is_expired = outcome.iter().chain(lone).any(|outcome| outcome.expired);
        decision.settled = is_expired || is_window_over;
    }
    decision
}

fn decision_of(trigger: &str) -> Result<(LoggedDecision, Timestamp), String> {
    let record: DecisionRecord = serde_json::from_str(trigger).map_err(|error| error.to_string())?;
    let decided_at = record
        .decided_at
        .parse()
        .map_err(|_| format!("`decided_at` is `{}`, which is no time", record.decided_at))?;
    let choice = record.choice.unwrap_or(ChoiceRecord {
        model_version: None,
        context: serde_json::Map::new(),
        candidates: Vec::new(),
    });
    let decision = LoggedDecision {
        trigger_id: record.trigger_id,
        user_id: record.user_id,
        journey: record.journey.name,
        journey_version: record.journey.version,
        rule: record.rule,
        slot: record.slot,
        decided_at: record.decided_at,
        held_out: record.held_out,
        arms: record.arms,
        offer: record.offer,
        propensity: record.propensity.unwrap_or(1.0),
        reward: None,
        outcomes: Vec::new(),
        settled: false,
        model_version: choice.model_version,
        context: choice.context,
        candidates: choice.candidates,
    };
    Ok((decision, decided_at))
}

fn outcome_of(outcome: &str) -> Result<(OutcomeSoFar, Timestamp), String> {
    let record =
        OutcomeRecord::parse(outcome.as_bytes()).map_err(|error| format!("what came of it can't be read: {error}"))?;
    let made_at = record
        .made_at
        .parse()
        .or_else(|_| record.at.parse())
        .unwrap_or(Timestamp::MIN);
    let so_far = OutcomeSoFar {
        reward: record.reward,
        rewards: record.rewards_so_far,
        expired: record.expired,
    };
    Ok((so_far, made_at))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A decision as it is on the stream.
    pub fn trigger(id: &str, minute: u32) -> String {
        format!(
            r#"{{"kind":"decision","trigger_id":"{id}","user_id":"ann","rule":"high_intent","slot":"in_app","offer":"a","propensity":0.25,"decided_at":"2026-01-05T10:{minute:02}:00.000Z","arms":{{"copy":"short"}},"cause":{{}},"journey":{{"name":"trial","version":"0011"}},"choice":{{"learner":"linucb","model_version":"8899","context_hash":"1","layout":1,"context":{{"clicks":3,"plan":"team","new":null}},"candidates":[{{"content":"a","probability":0.25,"mean":0.1,"spread":0.2,"features":{{"kind":"video"}}}},{{"content":"b","probability":0.75,"mean":0.3,"spread":0.1,"features":{{}}}}]}}}}"#
        )
    }

    /// What came of a decision, as it is on the stream.
    pub fn outcome(id: &str, rewards: &[&str], expired: bool, made_at_minute: u32) -> String {
        let rewards_json = serde_json::to_string(rewards).expect("text");
        let reward = rewards.len();
        format!(
            r#"{{"kind":"outcome","outcome_id":"1","trigger_id":"{id}","user_id":"ann","rule":"high_intent","slot":"in_app","offer":"a","rewards":{rewards_json},"rewards_so_far":{rewards_json},"reward":{reward},"previous_reward":null,"expired":{expired},"decided_at":"2026-01-05T10:00:00Z","at":"2026-01-05T10:00:00Z","made_at":"2026-01-05T10:{made_at_minute:02}:00Z","propensity":0.25}}"#
        )
    }

    pub fn all(spool: Spool) -> Vec<LoggedDecision> {
        let mut decisions = Vec::new();
        let taken = spool.for_each(|decision| {
            decisions.push(decision);
            Ok(())
        });
        taken.expect("it can be read");
        decisions
    }

    #[test]
    fn decisions_come_in_order_of_time_with_what_was_known_when_they_were_made() {
        let mut spool = Spool::new(Some(600_000)).expect("a file");
        for (id, minute) in [("03", 7), ("01", 5), ("02", 5), ("00", 59)] {
            assert_eq!(spool.add(&trigger(id, minute), None).expect("it is written"), Ok(()));
        }
        let decisions = all(spool);
        let ids: Vec<&str> = decisions.iter().map(|decision| decision.trigger_id.as_str()).collect();
        assert_eq!(ids, ["01", "02", "03", "00"]);
        let first = &decisions[0];
        assert_eq!(
            serde_json::Value::from(first.context.clone()).to_string(),
            r#"{"clicks":3,"new":null,"plan":"team"}"#
        );
        assert_eq!(
            (first.candidates.len(), first.propensity, first.journey_version.as_str()),
            (2, 0.25, "0011")
        );
        assert_eq!(
            (first.model_version.as_deref(), first.arms["copy"].as_str()),
            (Some("8899"), "short")
        );
        assert_eq!((first.reward, first.settled), (None, false));
    }

    #[test]
    fn a_decision_is_settled_once_nothing_can_come_any_more() {
        const WITHIN_MS: i64 = 10 * 60_000;
        let click = ["click"].as_slice();
        // What is filed under the decision and elsewhere, the minute up to which the data goes, and what it comes to.
        for (filed, lone, until, reward, settled) in [
            (None, None, 59, None, false),
            // A click came, but more may: those without any are still open then, so it must not count alone.
            (Some((click, false)), None, 9, Some(1.0), false),
            (Some((click, false)), None, 10, Some(1.0), true),
            (Some((&[][..], true)), None, 10, Some(0.0), true),
            // By its own clock the window may have run out a moment earlier.
            (Some((&[][..], true)), None, 9, Some(0.0), true),
            // A late click after the window ran out.
            (None, Some((click, false)), 30, Some(1.0), true),
            (Some((&[][..], true)), Some((click, false)), 5, Some(1.0), true),
            (
                Some((click, false)),
                Some((&["click", "like"][..], false)),
                30,
                Some(2.0),
                true,
            ),
            (
                Some((&["click", "like"][..], false)),
                Some((click, false)),
                30,
                Some(2.0),
                true,
            ),
        ] {
            let mut spool = Spool::new(Some(WITHIN_MS)).expect("a file");
            let filed = filed.map(|(rewards, expired)| outcome("01", rewards, expired, 5));
            assert_eq!(spool.add(&trigger("01", 0), filed.as_deref()).expect("written"), Ok(()));
            if let Some((rewards, expired)) = lone {
                assert_eq!(
                    spool.add_lone("01".to_owned(), &outcome("01", rewards, expired, 5)),
                    Ok(())
                );
            }
            assert_eq!(spool.add(&trigger("02", until), None).expect("written"), Ok(()));
            let decisions = all(spool);
            let found = (
                decisions[0].reward,
                decisions[0].settled,
                decisions[0].outcomes.len() as f64,
            );
            assert_eq!(
                found,
                (reward, settled, reward.unwrap_or(0.0)),
                "{filed:?} {lone:?} {until}"
            );
        }
    }

    #[test]
    fn p10_what_can_not_be_read_is_told() {
        let mut spool = Spool::new(None).expect("a file");
        let right = trigger("01", 0);
        for (trigger, outcome, told) in [
            ("{}", None, "missing field `trigger_id`"),
            ("not json", None, "expected "),
            (&right.replace("2026-01-05T10", "yesterday"), None, "`decided_at` is"),
            (
                &right.replace("\"candidates\"", "\"others\""),
                None,
                "missing field `candidates`",
            ),
            (&right, Some("{}"), "what came of it can't be read: missing field"),
        ] {
            let why = spool.add(trigger, outcome).expect("it is written").expect_err(told);
            assert!(why.starts_with(told), "{why}");
        }
        assert!(spool.add_lone("01".to_owned(), "[]").is_err());
        assert_eq!((spool.len(), all(spool).len()), (0, 0));
    }
}
