//! What can be written on the command line, and what `--help` teaches.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes:\n  0  all is well\n  1  something is wrong with the input, or missing in the result\n  2  the command was not understood";

/// Shows each new user the right next step, while they are still on the page.
#[derive(Debug, Parser)]
#[command(name = "usher", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Check(CheckOptions),
    Replay(ReplayOptions),
}

/// Check a journey file: every error at once, each with its line and a suggestion
///
/// Nothing is run and nothing is sent. Do it before every deployment: a function with a journey that has errors does not
/// start.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  usher check journey/journey.yaml\n\nExit codes: 0 the journey is fine, 1 it has errors or can't be read, 2 the command was not understood"
)]
pub struct CheckOptions {
    /// The journey file
    #[arg(value_name = "JOURNEY.yaml")]
    pub journey: PathBuf,
}

/// Fold events into profiles without any cloud, at full speed
///
/// The same decoding, folding and rules as the deployed function, in one process, in the order of the file. Now is each
/// event's own time, so last week's events show what a changed journey would have done last week. A line that can't be
/// used is counted with its reason and stops nothing. The profiles are those that `usher local --clock data` writes, byte
/// for byte.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher replay --journey journey/journey.yaml --events data/oulad/events.jsonl.gz
  usher replay --journey new.yaml --events week.jsonl.gz --triggers new.jsonl
  zcat day-*.jsonl.gz | usher replay --journey new.yaml --events - --profiles profiles.jsonl

Exit codes: 0 the file was read to its end, 1 the journey has errors or a file can't be read or written, 2 the command
was not understood")]
pub struct ReplayOptions {
    /// The journey file
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: PathBuf,
    /// The events: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Write the profiles here, one a line, sorted by user; features are as of the latest arrival
    #[arg(long, value_name = "P.jsonl")]
    pub profiles: Option<PathBuf>,
    /// Write the triggers here, one a line, as they would be on the stream
    #[arg(long, value_name = "T.jsonl")]
    pub triggers: Option<PathBuf>,
}
