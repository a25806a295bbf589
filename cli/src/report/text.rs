//! The report as a table and as JSON.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use usher_domain::off_policy::Verdict;
use usher_domain::off_policy::lift::Lift;

use super::groups::{Compared, Group};
use crate::args::ReportOptions;
use crate::people::{counted, grouped};

/// Digits of a figure.
const DIGITS: usize = 4;
/// p-values below this are told as below it.
const P_LEAST: f64 = 0.0001;
/// What stands for a figure that there is none of.
const NONE: &str = "-";

fn mean(mean: Option<f64>) -> String {
    mean.map_or(NONE.to_owned(), |mean| format!("{mean:.DIGITS$}"))
}

fn signed(number: f64) -> String {
    format!("{number:+.DIGITS$}")
}

fn p(lift: &Lift) -> String {
    match lift.p {
        p if p < P_LEAST => format!("< {P_LEAST}"),
        p => format!("{p:.DIGITS$}"),
    }
}

/// How much more, as a share of the control's mean.
fn relative(group: &Group) -> Option<f64> {
    let (lift, control) = (group.lift?, group.control_mean?);
    (control > 0.0).then(|| lift.difference / control)
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::CannotTell => "can't tell",
    }
}

/// For people.
pub fn table(options: &ReportOptions, name: &str, compared: &Compared) -> String {
    let mut text = format!(
        "{} in {name}, made from {} to {}\n",
        counted(compared.settled, "settled decision"),
        compared.from,
        compared.until
    );
    if compared.open > 0 {
        text.push_str(&format!(
            "{} still open and left out\n",
            counted(compared.open, "decision")
        ));
    }
    let interval = format!("{} % at any look", options.confidence);
    let heading: [String; 9] = ["", "shown", "mean", "held out", "mean", "lift", &interval, "p", ""].map(str::to_owned);
    let mut rows = vec![heading];
    let mut warnings = Vec::new();
    for journey in &compared.journeys {
        let whole = std::iter::once((journey.name.clone(), &journey.whole, journey.warning()));
        let rules = journey
            .rules
            .iter()
            .map(|(rule, group)| (format!("  {rule}"), group, group.warning()));
        for (label, group, warning) in whole.chain(rules) {
            if let Some(warning) = warning {
                warnings.push(format!("warning: {}: {warning}\n", label.trim_start()));
            }
            let lift = group.lift;
            let of = |tell: &dyn Fn(&Lift) -> String| lift.as_ref().map_or(NONE.to_owned(), tell);
            let percent = relative(group)
                .map(|share| format!(" ({:+.0} %)", 100.0 * share))
                .unwrap_or_default();
            rows.push([
                label,
                grouped(group.treated as u64),
                mean(group.treated_mean),
                grouped(group.control as u64),
                mean(group.control_mean),
                of(&|lift| format!("{}{percent}", signed(lift.difference))),
                of(&|lift| format!("{} to {}", signed(lift.interval.low), signed(lift.interval.high))),
                of(&p),
                of(&|lift| verdict(lift.verdict).to_owned()),
            ]);
        }
    }
    text.push('\n');
    text.push_str(&aligned(&rows));
    text.push('\n');
    if options.reward_range.is_none() {
        text.push_str(&format!(
            "rewards are taken to go from {} to {}, as in the log; --reward-range says what is known of them\n",
            compared.range.0, compared.range.1
        ));
    }
    text.extend(warnings);
    text
}

/// Columns under each other, the first to the left and numbers to the right.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            match index {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ if index + 1 == COLUMNS => line.push_str(&format!("  {cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// For programs.
///
/// # Errors
/// When it can't be written, which no figure causes.
pub fn json(options: &ReportOptions, name: &str, compared: &Compared) -> Result<String> {
    let journeys = compared.journeys.iter().map(|journey| {
        let rules = journey.rules.iter().map(|(rule, group)| {
            let mut told = group_json(group);
            told["rule"] = rule.as_str().into();
            told
        });
        let mut told = group_json(&journey.whole);
        told["warning"] = journey.warning().into();
        told["journey"] = journey.name.as_str().into();
        told["rules"] = rules.collect();
        told
    });
    let value = json!({
        "log": name,
        "settled": compared.settled,
        "open": compared.open,
        "from": compared.from.to_string(),
        "until": compared.until.to_string(),
        "confidence_percent": options.confidence,
        "reward_range": {
            "least": compared.range.0, "most": compared.range.1, "is_from_log": options.reward_range.is_none(),
        },
        "journeys": journeys.collect::<Value>(),
    });
    let mut text = serde_json::to_string_pretty(&value).context("the figures can't be written as JSON")?;
    text.push('\n');
    Ok(text)
}

fn group_json(group: &Group) -> Value {
    let lift = group.lift.map(|lift| {
        json!({
            "difference": lift.difference,
            "relative": relative(group),
            "low": lift.interval.low,
            "high": lift.interval.high,
            "p": lift.p,
            // JSON has no infinity.
            "evidence": Some(lift.evidence).filter(|evidence| evidence.is_finite()),
            "verdict": match lift.verdict {
                Verdict::Better => "better",
                Verdict::Worse => "worse",
                Verdict::CannotTell => "cannot_tell",
            },
        })
    });
    json!({
        "shown": { "users": group.treated, "mean": group.treated_mean },
        "held_out": { "users": group.control, "mean": group.control_mean },
        "lift": lift,
        "warning": group.warning(),
    })
}
