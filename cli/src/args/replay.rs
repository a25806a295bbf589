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
/// for byte. At the end, the timers fire that are due by the latest arrival.
///
/// With --against, both journeys are folded at once: which decisions the new one gained, lost or changed (the same rule and
/// cause, but another offer, slot or time, or held out or not), by rule and with the reason; how the rules came out side by
/// side; and what profiles cost.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher replay --journey journey/journey.yaml --events data/oulad/events.jsonl.gz
  usher replay --journey new.yaml --events week.jsonl.gz --triggers new.jsonl
  usher replay --journey new.yaml --against journey/journey.yaml --events week.jsonl.gz --changes changes.jsonl
  usher replay --journey new.yaml --against journey/journey.yaml --events week.jsonl.gz --user ann
  usher replay --journey new.yaml --events week.jsonl.gz --models models.jsonl --triggers new.jsonl
  usher replay --journey new.yaml --record stream.jsonl --profiles profiles.jsonl
  zcat day-*.jsonl.gz | usher replay --journey new.yaml --events - --profiles profiles.jsonl

Exit codes: 0 the file was read to its end, 1 the journey has errors, a file can't be read or written, or with
--fail-on-change a decision changed, 2 the command was not understood")]
pub struct ReplayOptions {
    /// The journey file
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: PathBuf,
    /// The slots' models, as `usher models export` writes them, for rules that choose; without it, they choose as if nothing
    /// was learned. Trends are 0 in either case
    #[arg(long, value_name = "MODELS.jsonl")]
    pub models: Option<PathBuf>,
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
    /// Fold the same events under this journey too, and tell what would have changed
    #[arg(long, value_name = "OLD.yaml")]
    pub against: Option<PathBuf>,
    /// With --against: this user's timeline under both, side by side; for an anonymous user, `anonymous:` and the id
    #[arg(long, value_name = "ID", requires = "against")]
    pub user: Option<String>,
    /// With --against: write every decision that was gained, lost or changed here, one a line
    #[arg(long, value_name = "C.jsonl", requires = "against")]
    pub changes: Option<PathBuf>,
    /// With --against: write the comparison here as JSON
    #[arg(long, value_name = "OUT.json", requires = "against")]
    pub json: Option<PathBuf>,
    /// With --against: exit with 1 if any decision was gained, lost or changed
    #[arg(long, requires = "against")]
    pub fail_on_change: bool,
    /// Threads that decode and fold; without it, one for each core. What comes out does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX))]
    pub threads: Option<u16>,
}
