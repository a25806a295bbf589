//! The options of `usher export`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::endpoint_url;

/// Take data out, for judging policies and for learners outside
#[derive(Debug, Args)]
pub struct ExportOptions {
    /// What
    #[command(subcommand)]
    pub command: ExportCommand,
}

/// What can be exported.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    Decisions(ExportDecisionsOptions),
}

/// How decisions are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line; `usher evaluate` and `usher report` read it
    #[default]
    Jsonl,
    /// Apache Parquet, compressed with Snappy
    Parquet,
    /// Vowpal Wabbit's text for `--cb_explore_adf`: only decisions that were shown, chosen and settled
    Vw,
}

/// Which decisions table is read, and how long outcomes count.
#[derive(Clone, Debug, Args)]
pub struct DecisionsTable {
    /// The decisions table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "decisions")]
    pub decisions: String,
    /// Where DynamoDB is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
    /// How long after a decision outcomes count (outcomes.within of the journey), such as 24h; without it, as --journey says
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub within: Option<Duration>,
    /// The journey that is deployed; without it, journey/journey.yaml beside the template.yaml of this folder or one above
    #[arg(long, value_name = "JOURNEY.yaml", conflicts_with = "within")]
    pub journey: Option<PathBuf>,
}

/// Write the decision log: what was known at each decision, what was chosen with which probability, and what came of it
///
/// Each row is right as of its decision: features, candidates and probabilities are those that the decision itself recorded,
/// so a model that is trained on them sees nothing that came later. Rows are in order of time. A decision whose window is
/// still open has `settled: false`; the end of the data counts as now, so a run on past data settles as it did then.
///
/// The whole table is read, which costs a read unit for each 4 KB. A file appears only when it is complete.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher export decisions --output decisions.jsonl
  usher export decisions --endpoint-url http://127.0.0.1:4568 --since 7d --slot in_app | head
  usher export decisions --format parquet --output decisions.parquet
  usher export decisions --log decisions.jsonl --format parquet --output decisions.parquet
  usher export decisions --format vw --slot in_app --output in_app.vw && vw --cb_explore_adf -d in_app.vw

Exit codes: 0 everything was written, 1 the table can't be read or some of it was unreadable (the rest is written), 2 the
command was not understood")]
pub struct ExportDecisionsOptions {
    /// The table
    #[command(flatten)]
    pub table: DecisionsTable,
    /// Take the decisions from a log that was exported before (JSON lines, plain or gzip), to write it in another format
    #[arg(long, value_name = "FILE", conflicts_with_all = ["decisions", "endpoint_url", "within", "journey"])]
    pub log: Option<PathBuf>,
    /// How to write
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: LogFormat,
    /// Only decisions made since then: a time (RFC 3339), or how long ago, such as 2h or 7d
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only in this slot; may be given several times
    #[arg(long, value_name = "SLOT")]
    pub slot: Vec<String>,
    /// Only of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
    /// The file to write; without it, standard output
    #[arg(long, short, value_name = "FILE", required_if_eq("format", "parquet"))]
    pub output: Option<PathBuf>,
}

/// A span such as 24h, of at least a millisecond.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<humantime::Duration>() {
        Ok(span) if span.as_millis() > 0 => Ok(span.into()),
        _ => Err("write a time span such as 30m, 24h or 7d".to_owned()),
    }
}
