//! The options of `usher replay`.

use std::path::PathBuf;

use clap::Args;

/// Threads beyond which more of them would only wait for one another.
const THREADS_MAX: i64 = 256;

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
  usher replay --journey new.yaml --record stream.jsonl --profiles profiles.jsonl
  zcat day-*.jsonl.gz | usher replay --journey new.yaml --events - --profiles profiles.jsonl

Exit codes: 0 the file was read to its end, 1 the journey has errors or a file can't be read or written, 2 the command
was not understood")]
pub struct ReplayOptions {
    /// The journey file
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: PathBuf,
    /// The events: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE", required_unless_present = "record")]
    pub events: Option<PathBuf>,
    /// In place of events: the stream as `usher local --record` saw it. Now is each record's arrival
    #[arg(long, value_name = "RECORD.jsonl", conflicts_with = "events")]
    pub record: Option<PathBuf>,
    /// Write the profiles here, one a line, sorted by user; features are as of the latest arrival
    #[arg(long, value_name = "P.jsonl")]
    pub profiles: Option<PathBuf>,
    /// Write the triggers here, one a line, as they would be on the stream
    #[arg(long, value_name = "T.jsonl")]
    pub triggers: Option<PathBuf>,
    /// Threads that decode and fold; without it, one for each core. What comes out does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    pub threads: Option<u16>,
}
