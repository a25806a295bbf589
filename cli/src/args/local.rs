//! `usher local`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use usher_local::{FaultKind, FaultSpec, FaultSpecError};

/// Which clock stamps a record's arrival, which is the now of planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClockChoice {
    /// The event's own time (`sent_at`, else `timestamp`), at most the wall clock: months of history pass in seconds
    Data,
    /// The wall clock, as in AWS
    Wall,
}

/// Run everything on this machine: the streams, the tables and the real functions
///
/// Reads template.yaml and makes its streams, consumers and tables in an embedded Kinesis and DynamoDB, builds the
/// functions with cargo, starts them as Lambda would and runs the template's event source mappings. Only the endpoints
/// differ from AWS, and they are printed, so the AWS CLI and any SDK can take part.
///
/// Timers are swept each minute. With --clock data they go by the time of the data instead: users are swept as the file's time
/// passes, an hour of it behind what was sent, and with --drain until nobody is due any more when the data ends.
///
/// With --events the file's events go through Kinesis, in order for each user. With --drain it ends when every stage is
/// drained, says what came of it, and fails if anything is missing. Without, it serves until Ctrl-C.
///
/// A webhook's requests are signed with USHER_WEBHOOK_SECRET of the environment; without it, a key is made and printed.
///
/// With --faults things go wrong on purpose, as they do in AWS now and then: processes die, calls fail, answers get lost,
/// batches come twice, shards split. Nothing may come of it. `usher soak` does so many times over and compares.
#[derive(Debug, Args)]
#[command(after_help = local_help())]
pub struct LocalOptions {
    /// The SAM template; without it, template.yaml in this folder or one above
    #[arg(long, value_name = "template.yaml")]
    pub template: Option<PathBuf>,
    /// Events to send: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// The journey; without it, journey/journey.yaml beside the template
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// Which clock stamps a record's arrival
    #[arg(long, value_enum, default_value = "wall", value_name = "CLOCK")]
    pub clock: ClockChoice,
    /// End when all events went through every stage
    #[arg(long, requires = "events")]
    pub drain: bool,
    /// Write the report here (JSON, see below)
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Write the profiles here, one a line, sorted by user; features are as of the clock's now
    #[arg(long, value_name = "P.jsonl")]
    pub profiles: Option<PathBuf>,
    /// Write the triggers here, one a line, as they are on the stream
    #[arg(long, value_name = "T.jsonl")]
    pub triggers: Option<PathBuf>,
    /// Write the interactions stream here as it comes to be: each record with its partition key and arrival, repeats
    /// included; `usher replay --record` reads it
    #[arg(long, value_name = "RECORD.jsonl")]
    pub record: Option<PathBuf>,
    /// Keep what the event source mappings give up here, in AWS's own forms, by failure destination; `usher redrive DIR` runs
    /// it again
    #[arg(long, value_name = "DIR")]
    pub failed_batches: Option<PathBuf>,
    /// Milliseconds from a put to its delivery; 70 models enhanced fan-out in AWS
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub fanout_latency: u64,
    /// Port of the embedded Kinesis; 0 is a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub kinesis_port: u16,
    /// Port of the embedded DynamoDB; 0 is a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub dynamodb_port: u16,
    /// Shards of every stream, whatever the template says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub shards: Option<u32>,
    /// A parameter of the template; may be given several times
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
    /// Build the functions with cargo's release profile, which takes minutes
    #[arg(long)]
    pub release: bool,
    /// Take the function programs from this folder and build nothing
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    pub bin_dir: Option<PathBuf>,
    /// Let things go wrong on purpose: `all`, or kinds with a rate each, such as kill:1%,reshard (see below)
    #[arg(long, value_name = "SPEC", value_parser = fault_spec)]
    pub faults: Option<FaultSpec>,
    /// Decides what goes wrong when; without it, one is drawn and told
    #[arg(long, value_name = "N", requires = "faults")]
    pub seed: Option<u64>,
}

const EXAMPLES: &str = "Examples:
  usher local --events data/oulad/events.jsonl.gz --clock data --drain
  usher local --events week.jsonl.gz --journey new.yaml --clock data --drain --report r.json --profiles p.jsonl
  usher local --kinesis-port 4567 --dynamodb-port 4568
  usher local --events week.jsonl.gz --clock data --drain --faults all --seed 7
  usher local --parameter WebhookUrl=http://127.0.0.1:8000/hook
";

const REPORT: &str = "The report (--report) is one JSON object:
  complete, problems                whether nothing is missing, and what is
  drained, counts_exact             whether every stage was drained; whether nothing was delivered twice (see duplicate)
  clock, journey, seconds           how it was run, and how long from the first event to the last decision
  sent                              records on the interactions stream, wake-ups of timers left out
  woken                             wake-ups on the interactions stream: timer-sweeper's, and whoever else's
  sweeps, failed_sweeps             invocations of timer-sweeper
  timers_fired                      triggers that were due at a moment of their own: a timer's, or the end of quiet hours
  timer_lateness_ms                 p50, p90, p99, max from that moment to the decision; by the wall clock only
  applied                           events in the profiles, read back from the profiles table
  rejected, rejected_by_reason      records on the rejected stream, each once
  duplicate, dropped, redelivered   from the functions' telemetry. After a failed invocation Lambda delivers records again,
                                    and a duplicate below the profile's guard looks redelivered: it is counted by what the
                                    profiles hold, which is exact, and can hide no loss, only while counts_exact is true
  profiles                          items in the profiles table
  triggers, triggers_by_rule        distinct trigger ids on the triggers stream
  outcomes, windows_run_out, outcomes_by_reward
                                    distinct outcomes of offers on the triggers stream, those that say that an offer's window
                                    ran out with nothing, and how many of them have each reward
  decisions                         items in the decisions table
  conditional_writes, conflicts     writes of profiles, and those that found another version
  write_units, write_units_per_event
  sent_to_applied_ms                p50, p90, p99, max from the put of an event to the success of its batch
  sent_to_decided_ms                p50, p90, p99, max from the put of an event to the put of the trigger that it caused
  profile_item_bytes                p50, max size of a stored profile
  invocations, failed_invocations, partial_invocations, retries, dropped_records
                                    over all event source mappings
  seed, faults                      with --faults: the seed, and how often each kind struck
";

const EXIT_CODES: &str = "Exit codes: 0 nothing is missing (or stopped while serving), 1 something is missing or went wrong, 2 the command was not
understood";

fn local_help() -> String {
    format!("{EXAMPLES}\n{}\n{REPORT}\n{EXIT_CODES}", faults_help())
}

/// What can go wrong, how often it does by default, and how to say it.
pub fn faults_help() -> String {
    let mut text = "Faults (--faults): `all` or kinds, separated by commas, each with a rate or without; a
later one replaces an earlier one, as in all,kill:0 or all:2%,reshard:50%
"
    .to_owned();
    for kind in FaultKind::ALL {
        let percent = f64::from(kind.per_mille_default()) / 10.0;
        text.push_str(&format!(
            "  {:<23}{}\n{:25}default {percent}% of: {}\n",
            kind.name(),
            kind.what(),
            "",
            kind.opportunity()
        ));
    }
    text
}

/// What `--faults` takes.
pub fn fault_spec(text: &str) -> Result<FaultSpec, FaultSpecError> {
    text.parse()
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
