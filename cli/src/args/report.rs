//! The options of `usher report`.

use std::path::PathBuf;

use clap::Args;

use super::evaluate::{percent, range};
use super::export::DecisionsTable;

/// Tell what each journey and each rule is worth: the lift over users who were held out
///
/// A held-out user is decided for like any other and shown nothing, and the same outcomes count for them. Of each user the
/// first decision of a rule counts (of the journey: the first of any rule), because later ones of the same user are not
/// independent. The interval and the p-value hold at every look, so the report may be run each morning, and the experiment
/// ended when it tells (see docs/judging.md for the method).
///
/// It reads a log that `usher export decisions` wrote, or the decisions table.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher report
  usher report --log decisions.jsonl --svg lift.svg
  usher report --endpoint-url http://127.0.0.1:4568 --slot in_app --json
  usher report --log decisions.jsonl --reward-range 0..6 --rule high_intent

Exit codes: 0 it is told (be it that the data can't tell), 1 the log can't be read or holds nothing settled, 2 the command
was not understood")]
pub struct ReportOptions {
    /// The log, plain or gzip; `-` reads standard input. Without it, the decisions table is read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["decisions", "endpoint_url", "within", "journey"])]
    pub log: Option<PathBuf>,
    /// The table
    #[command(flatten)]
    pub table: DecisionsTable,
    /// Only in this slot; may be given several times
    #[arg(long, value_name = "SLOT")]
    pub slot: Vec<String>,
    /// Only of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
    /// The smallest and largest reward that a decision can have, such as 0..6. Intervals rest on it, so it should be known and
    /// not read off the log; without it, 0 to 1 or what the log goes beyond that
    #[arg(long, value_name = "LEAST..MOST", value_parser = range, allow_hyphen_values = true)]
    pub reward_range: Option<(f64, f64)>,
    /// The confidence of intervals, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent)]
    pub confidence: f64,
    /// Draw the lifts into this file (SVG)
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write one JSON object in place of text
    #[arg(long)]
    pub json: bool,
}
