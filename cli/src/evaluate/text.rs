//! What was judged, as a table and as JSON.

use anyhow::{Context as _, Result};
use serde_json::json;
use usher_domain::off_policy::{Estimate, Interval, Verdict};

use super::judge::Judged;
use crate::args::EvaluateOptions;
use crate::people::grouped;

/// Digits of a figure.
const DIGITS: usize = 5;

fn rounded(number: f64) -> String {
    format!("{number:.DIGITS$}")
}

fn between(interval: Interval) -> String {
    format!("{} to {}", rounded(interval.low), rounded(interval.high))
}

/// The verdict in one word, for programs.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::CannotTell => "cannot_tell",
    }
}

/// For people.
pub fn table(options: &EvaluateOptions, judged: &Judged) -> String {
    let report = &judged.report;
    let mut text = format!(
        "policy {}, judged by {} decisions of {}\n",
        options.policy,
        grouped(report.rows as u64),
        options.log.display()
    );
    let left = judged.left.told();
    if !left.is_empty() {
        text.push_str(&format!("left out: {}\n", left.join(", ")));
    }
    let confidence = format!("{} % interval", options.confidence);
    text.push_str(&format!(
        "\n{:<22}  {:>9}  {:>10}  {confidence}\n",
        "mean reward", "estimate", "std. error"
    ));
    let mut row = |name: &str, estimate: &Estimate, interval: Option<Interval>| {
        let line = format!(
            "{name:<22}  {:>9}  {:>10}  {}",
            rounded(estimate.value),
            rounded(estimate.standard_error),
            interval.map(between).unwrap_or_default()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    };
    row("as logged", &report.logged, None);
    row("IPS", &report.ips, Some(report.interval));
    row("SNIPS", &report.snips, None);
    row(&format!("IPS, clipped at {}", options.clip), &report.clipped, None);
    row("doubly robust", &report.doubly_robust, report.doubly_robust_interval);
    text.push_str(&format!(
        "{:<22}  {:>9}  {:>10}  {}\n",
        "more than as logged",
        "",
        "",
        between(report.gain)
    ));
    let share = 100.0 * report.effective_rows / report.rows as f64;
    text.push_str(&format!(
        "\nworth {} decisions of the policy's own ({share:.1} % of the rows); the largest weight is {:.2}{}\n",
        grouped(report.effective_rows.round() as u64),
        report.weight_most,
        match judged.weight_most {
            Some(most) => format!(" of {most:.2} that could be"),
            None => String::new(),
        }
    ));
    if options.reward_range.is_none() {
        text.push_str(&format!(
            "rewards are taken to go from {} to {}, as in the log; --reward-range says what is known of them\n",
            judged.range.0, judged.range.1
        ));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text.push_str(match report.verdict {
        Verdict::Better => "the policy is better than the one that made the decisions\n",
        Verdict::Worse => "the policy is worse than the one that made the decisions\n",
        Verdict::CannotTell => {
            "the data can't tell whether the policy is better than the one that made the decisions\n"
        }
    });
    text
}

/// For programs.
///
/// # Errors
/// When it can't be written, which no figure causes.
pub fn json(options: &EvaluateOptions, judged: &Judged) -> Result<String> {
    let report = &judged.report;
    let estimate =
        |estimate: &Estimate| json!({ "value": estimate.value, "standard_error": finite(estimate.standard_error) });
    let interval = |interval: Interval| json!({ "low": interval.low, "high": interval.high });
    let warnings: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
    let value = json!({
        "policy": options.policy,
        "log": options.log.display().to_string(),
        "rows": report.rows,
        "left_out": {
            "held_out": judged.left.held_out,
            "open": judged.left.open,
            "without_choice": judged.left.without_choice,
            "other_slots": judged.left.other_slots,
        },
        "confidence_percent": options.confidence,
        "reward_range": { "least": judged.range.0, "most": judged.range.1, "is_from_log": options.reward_range.is_none() },
        "logged": estimate(&report.logged),
        "ips": estimate(&report.ips),
        "snips": estimate(&report.snips),
        "clipped": estimate(&report.clipped),
        "clip": options.clip,
        "doubly_robust": estimate(&report.doubly_robust),
        "interval": interval(report.interval),
        "doubly_robust_interval": report.doubly_robust_interval.map(interval),
        "gain": interval(report.gain),
        "effective_rows": report.effective_rows,
        "weight_most": report.weight_most,
        "weight_possible": judged.weight_most,
        "verdict": verdict_name(report.verdict),
        "warnings": warnings,
    });
    let mut text = serde_json::to_string_pretty(&value).context("the figures can't be written as JSON")?;
    text.push('\n');
    Ok(text)
}

/// JSON has no infinity.
fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}
