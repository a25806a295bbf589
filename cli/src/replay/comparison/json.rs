//! A comparison for programs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use usher_domain::rules::RuleOutcome;

use super::changes::{Change, ChangeKind, Changes, Decided};
use super::{Comparison, Ran};

/// Writes each change as a line.
///
/// # Errors
/// When the file can't be written.
pub fn write_changes(path: &Path, changes: &Changes) -> Result<()> {
    let unwritable = || format!("cannot write the changes to {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(unwritable)?);
    for change in &changes.changes {
        writeln!(file, "{}", change_json(change)).with_context(unwritable)?;
    }
    file.flush().with_context(unwritable)
}

/// Writes the comparison, but not each change.
///
/// # Errors
/// When the file can't be written.
pub fn write_comparison(path: &Path, comparison: &Comparison<'_>) -> Result<()> {
    let text = format!("{:#}\n", comparison_json(comparison));
    std::fs::write(path, text).with_context(|| format!("cannot write the comparison to {}", path.display()))
}

fn change_json(change: &Change) -> Value {
    json!({
        "change": change.kind().name(),
        "why": change.why(),
        "trigger_id": change.id.to_string(),
        "user_id": change.user,
        "rule": change.rule,
        "at": change.at.to_string(),
        "cause": {
            "event_id": change.cause.event_id,
            "event_type": change.cause.event_type,
            "timestamp": change.cause.at.to_string(),
        },
        "old": change.old.as_ref().map(decided_json),
        "new": change.new.as_ref().map(decided_json),
    })
}

fn decided_json(decided: &Decided) -> Value {
    json!({
        "offer": decided.offer,
        "slot": decided.slot,
        "held_out": decided.held_out,
        "due_at": decided.due_at.map(|due_at| due_at.to_string()),
    })
}

fn comparison_json(comparison: &Comparison<'_>) -> Value {
    let decisions = comparison.changes.by_rule.iter().map(|(rule, changes)| {
        let why = |kind: ChangeKind| -> Map<String, Value> {
            let of_kind = changes.changed.iter().filter(|((known, _), _)| *known == kind);
            of_kind.map(|((_, why), count)| (why.clone(), json!(count))).collect()
        };
        let decisions = json!({
            "old": changes.old,
            "new": changes.new,
            "same": changes.same,
            "gained": why(ChangeKind::Gained),
            "lost": why(ChangeKind::Lost),
            "changed": why(ChangeKind::Changed),
        });
        (rule.clone(), decisions)
    });
    json!({
        "lines": comparison.lines.lines,
        "rejected": comparison.lines.rejected_total(),
        "changes": comparison.changes.count(),
        "decisions": decisions.collect::<Map<_, _>>(),
        "old": ran_json(&comparison.old),
        "new": ran_json(&comparison.new),
    })
}

fn ran_json(ran: &Ran<'_>) -> Value {
    let rules = ran.journey.rules.iter().map(|rule| {
        let outcomes = RuleOutcome::ALL.into_iter().filter_map(|outcome| {
            let count = ran.count(&rule.id, outcome).filter(|count| *count > 0)?;
            Some((outcome.name().to_owned(), json!(count)))
        });
        (rule.id.clone(), Value::Object(outcomes.collect()))
    });
    json!({
        "journey": ran.journey.name,
        "version": ran.journey.version,
        "applied": ran.counts.applied,
        "duplicate": ran.counts.duplicate,
        "dropped": ran.counts.dropped,
        "merged": ran.counts.merged,
        "profiles": ran.profiles,
        "rules": rules.collect::<Map<_, _>>(),
        "item_bytes": {
            "p50": ran.costs.median_bytes,
            "p90": ran.costs.p90_bytes,
            "max": ran.costs.max_bytes,
        },
        "write_units_per_write": ran.costs.units_per_write,
        "writes_taken": ran.costs.writes_taken,
    })
}
