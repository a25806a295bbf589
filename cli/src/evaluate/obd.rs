//! The Open Bandit Dataset: a row for each item shown, with its position on the page, whether it was clicked and how likely
//! it was to be shown there.
//!
//! Saito, Aihara, Matsutani, Narita, "Open Bandit Dataset and Pipeline", 2020; <https://research.zozo.com/data.html>.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use super::judge::Judging;
use crate::decision_log::{LoggedCandidate, LoggedDecision};
use crate::events_file::EventsFile;

/// Line of the first row: after the header.
const FIRST_LINE: usize = 2;
/// Every row is its own user.
const AT: &str = "2019-11-24T00:00:00Z";

/// A row; other columns are left aside.
#[derive(Deserialize)]
struct Shown {
    #[serde(rename = "item_id", alias = "item")]
    item: u32,
    position: u32,
    click: f64,
    #[serde(rename = "propensity_score", alias = "propensity")]
    propensity: f64,
}

/// Reads a log (CSV, plain or gzip). Items are the contents `0`, `1` and so on, positions the slots `position_1` and so on.
///
/// # Errors
/// Which line is wrong, and why; or the file can't be read.
pub fn read(path: &Path, items: Option<u32>, judging: &mut Judging) -> Result<()> {
    let name = path.display().to_string();
    let reader = EventsFile::open(path)
        .with_context(|| format!("cannot read the log {name}"))?
        .into_reader();
    let mut rows = Vec::new();
    for (index, row) in csv::Reader::from_reader(reader).deserialize::<Shown>().enumerate() {
        let line = index + FIRST_LINE;
        let row = row.map_err(|error| anyhow!("{name}, line {line}: {}", why(&error)))?;
        if !(row.propensity > 0.0 && row.propensity <= 1.0) {
            let found = row.propensity;
            bail!("{name}, line {line}: `propensity_score` is {found}, which is no probability above 0");
        }
        if let Some(items) = items.filter(|items| row.item >= *items) {
            bail!(
                "{name}, line {line}: `item_id` is {}, but --obd-items says there are {items}",
                row.item
            );
        }
        rows.push((line, row));
    }
    let count = items.unwrap_or_else(|| rows.iter().map(|(_, row)| row.item + 1).max().unwrap_or(0));
    let candidates: Vec<LoggedCandidate> = (0..count)
        .map(|item| LoggedCandidate {
            content: item.to_string(),
            probability: None,
            mean: 0.0,
            spread: 0.0,
            features: serde_json::Map::new(),
        })
        .collect();
    let mut decision = LoggedDecision {
        trigger_id: String::new(),
        user_id: String::new(),
        journey: "obd".to_owned(),
        journey_version: String::new(),
        rule: "obd".to_owned(),
        slot: String::new(),
        decided_at: AT.to_owned(),
        held_out: false,
        arms: Default::default(),
        offer: String::new(),
        propensity: 1.0,
        reward: None,
        outcomes: Vec::new(),
        settled: true,
        model_version: None,
        context: serde_json::Map::new(),
        candidates,
    };
    for (line, row) in rows {
        decision.user_id = line.to_string();
        decision.slot = format!("position_{}", row.position);
        decision.offer = row.item.to_string();
        decision.propensity = row.propensity;
        decision.reward = Some(row.click);
        judging.add(&decision)?;
    }
    Ok(())
}

fn why(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.to_string(),
        _ => error.to_string(),
    }
}
