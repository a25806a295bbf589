//! What `usher check` says, for people and for tools.

use std::path::Path;

use serde_json::{Value, json};
use usher_domain::bandit::limits::BANDIT_DIMENSION_MAX;
use usher_domain::estimate::{INDEX_WRITE_UNITS, ItemEstimate, SlotEstimate};
use usher_domain::journey::{Diagnostic, Diagnostics, Finding, Severity};

use super::Report;
use crate::people::{counted, grouped};

/// Errors and warnings with their lines, then what is good to know, then a summary.
pub(super) fn for_people(report: &Report, path: &Path, text: &str) -> String {
    let file = path.display().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let of = |severity: Severity| {
        report
            .findings
            .iter()
            .filter(move |finding| finding.severity == severity)
    };
    let mut shown = String::new();
    for finding in report
        .findings
        .iter()
        .filter(|finding| finding.severity < Severity::Info)
    {
        let word = format!("{}: ", finding.severity.name());
        shown.push_str(&finding.diagnostic.render(&word, &file, &lines));
    }
    for finding in of(Severity::Info) {
        let Diagnostic {
            line, path, message, ..
        } = &finding.diagnostic;
        shown.push_str(&format!("{file}:{line}: {path}: {message}\n"));
    }
    let journey = &report.checked.journey;
    let (errors, warnings) = (of(Severity::Error).count(), of(Severity::Warning).count());
    let verdict = match (errors, warnings) {
        (0, 0) => "is fine".to_owned(),
        (0, warnings) => format!("can be used, with {}", counted(warnings, "warning")),
        (errors, 0) => format!("has {}", counted(errors, "error")),
        (errors, warnings) => format!("has {}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    shown.push_str(&format!(
        "{file}: the journey `{}` {verdict} (version {})\n  {}, {}, {}, {}\n",
        journey.name,
        journey.version,
        counted(journey.steps.len(), "step"),
        counted(journey.features.len(), "feature"),
        counted(journey.rules.len(), "rule"),
        counted(journey.contents.len(), "content"),
    ));
    if let Some(sample) = &report.sample {
        shown.push_str(&format!("  {sample}\n"));
    }
    if journey.interpreted_conditions().is_empty() {
        shown.push_str("  every condition is compiled\n");
    }
    for slot in &report.slots {
        shown.push_str(&of_slot(slot));
    }
    shown.push_str(&size(&report.estimate));
    shown
}

/// How a slot's learner chooses, what it sees, and what its model takes.
fn of_slot(slot: &SlotEstimate) -> String {
    let each = |values: &[(String, usize)]| {
        let each = values.iter().map(|(name, numbers)| format!("{name} {numbers}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let context = match slot.context_values.as_slice() {
        [] => "sees no context".to_owned(),
        values => format!(
            "sees {} of at most {BANDIT_DIMENSION_MAX} numbers ({})",
            slot.context,
            each(values)
        ),
    };
    let contents = match slot.content_values.as_slice() {
        [] => String::new(),
        values => format!(" and {} of a candidate ({})", slot.contents, each(values)),
    };
    format!(
        "  slot `{}`: {} chooses from {}, {context}{contents}; its model may take {} bytes\n",
        slot.slot,
        slot.learner,
        counted(slot.candidates, "candidate"),
        grouped(slot.model_bytes as u64),
    )
}

/// What a profile's item takes, and what a write of it costs.
fn size(estimate: &ItemEstimate) -> String {
    let bytes = |bytes: usize| grouped(bytes as u64);
    let mut shown = format!(
        "  a profile's item: {} bytes for a typical user, {} at most; a write costs {}, {} at most\n",
        bytes(estimate.bytes.typical),
        bytes(estimate.bytes.worst),
        counted(estimate.typical_write_units(), "write unit"),
        bytes(estimate.worst_write_units()),
    );
    if estimate.writes_index {
        shown.push_str(&format!(
            "  a write that moves the user's next timer costs {INDEX_WRITE_UNITS} write units more, for the index of due users\n"
        ));
    }
    let widest = estimate.parts.iter().map(|part| part.name.len()).max().unwrap_or(0);
    shown.push_str(&format!("    {:<widest$}  {:>8}  {:>8}\n", "", "typical", "at most"));
    for part in &estimate.parts {
        shown.push_str(&format!(
            "    {:<widest$}  {:>8}  {:>8}\n",
            part.name,
            bytes(part.bytes.typical),
            bytes(part.bytes.worst)
        ));
    }
    shown
}

/// One JSON object.
pub(super) fn as_json(report: &Report, is_fine: bool) -> String {
    let journey = &report.checked.journey;
    let estimate = &report.estimate;
    let parts = estimate
        .parts
        .iter()
        .map(|part| json!({ "name": part.name, "typical_bytes": part.bytes.typical, "worst_bytes": part.bytes.worst }));
    let slow = journey.interpreted_conditions();
    let slow = slow
        .iter()
        .map(|(path, condition)| json!({ "path": path, "condition": condition }));
    let findings = report
        .findings
        .iter()
        .map(|Finding { severity, diagnostic }| of_diagnostic(*severity, diagnostic));
    let values = |values: &[(String, usize)]| -> Value {
        let named = values.iter().map(|(name, numbers)| (name.clone(), (*numbers).into()));
        Value::Object(named.collect())
    };
    let slots = report.slots.iter().map(|slot| {
        json!({
            "slot": slot.slot,
            "learner": slot.learner,
            "context_numbers": slot.context,
            "context": values(&slot.context_values),
            "content_numbers": slot.contents,
            "contents": values(&slot.content_values),
            "candidates": slot.candidates,
            "model_bytes": slot.model_bytes,
        })
    });
    let object = json!({
        "journey": journey.name,
        "version": journey.version,
        "fine": is_fine,
        "findings": findings.collect::<Vec<_>>(),
        "slow_conditions": slow.collect::<Vec<_>>(),
        "slots": slots.collect::<Vec<_>>(),
        "item": {
            "typical_bytes": estimate.bytes.typical,
            "worst_bytes": estimate.bytes.worst,
            "typical_write_units": estimate.typical_write_units(),
            "worst_write_units": estimate.worst_write_units(),
            "index_write_units": if estimate.writes_index { INDEX_WRITE_UNITS } else { 0 },
            "parts": parts.collect::<Vec<_>>(),
        },
    });
    format!("{object}\n")
}

/// The same for a file that can't be read as a journey.
pub(super) fn unreadable_as_json(diagnostics: &Diagnostics) -> String {
    let errors = diagnostics
        .errors
        .iter()
        .map(|error| of_diagnostic(Severity::Error, error));
    let object = json!({ "journey": null, "fine": false, "findings": errors.collect::<Vec<_>>() });
    format!("{object}\n")
}

fn of_diagnostic(severity: Severity, diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": severity.name(),
        "line": diagnostic.line,
        "column": diagnostic.column,
        "path": diagnostic.path,
        "message": diagnostic.message,
        "suggestion": diagnostic.suggestion,
    })
}
