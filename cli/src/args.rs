//! What can be written on the command line, and what `--help` teaches.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

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
    Local(LocalOptions),
    Send(SendOptions),
    Users(UsersOptions),
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

/// Send events to a Kinesis stream, in AWS or in the local cloud
///
/// Each line is one record, keyed by its user. Requests hold up to 500 records and 5 MiB, four are under way at once, and
/// records that fail go again alone, after a pause. A line of over 1 MiB goes compressed, which the functions read too. Region, credentials and endpoints are found as the AWS CLI finds
/// them (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_KINESIS, ...).
///
/// With --resume, the lines that the stream has acknowledged are kept in a small file; after an interruption the same
/// command goes on there. What was under way at that moment (up to four requests; after Ctrl-C their answers are waited for) may go twice. That is
/// harmless: a profile knows its last event ids (64, unless the journey says otherwise) and counts an event once. With
/// --ordered at most one record of a user is under way, so those ids are always enough.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher send --stream interactions events.jsonl.gz
  usher send --stream interactions events.jsonl --ordered --resume events.state
  tail -f app.jsonl | usher send --stream interactions -
  usher send --stream interactions --endpoint-url http://127.0.0.1:4567 data/oulad/events.jsonl.gz

Exit codes: 0 every line was acknowledged, 1 some were not, 2 the command was not understood")]
pub struct SendOptions {
    /// The stream's name or ARN
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// The events: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub events: PathBuf,
    /// Where Kinesis is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
    /// Keep here what was acknowledged, and go on from there
    #[arg(long, value_name = "STATE")]
    pub resume: Option<PathBuf>,
    /// Never two unacknowledged records of one user, so that a partial failure can't swap them
    #[arg(long)]
    pub ordered: bool,
}

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
/// With --events the file's events go through Kinesis, in order for each user. With --drain it ends when every stage is
/// drained, says what came of it, and fails if anything is missing. Without, it serves until Ctrl-C.
///
/// A webhook's requests are signed with USHER_WEBHOOK_SECRET of the environment; without it, a key is made and printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher local --events data/oulad/events.jsonl.gz --clock data --drain
  usher local --events week.jsonl.gz --journey new.yaml --clock data --drain --report r.json --profiles p.jsonl
  usher local --kinesis-port 4567 --dynamodb-port 4568
  usher local --parameter WebhookUrl=http://127.0.0.1:8000/hook

The report (--report) is one JSON object:
  complete, problems                whether nothing is missing, and what is
  drained, counts_exact             whether every stage was drained; whether no invocation failed (see duplicate)
  clock, journey, seconds           how it was run, and how long from the first event to the last decision
  sent                              records on the interactions stream
  applied                           events in the profiles, read back from the profiles table
  rejected, rejected_by_reason      records on the rejected stream, each once
  duplicate, dropped, redelivered   from the functions' telemetry. After a failed invocation Lambda delivers records again,
                                    and a duplicate below the profile's guard looks redelivered: it is counted by what the
                                    profiles hold, which is exact, and can hide no loss, only while counts_exact is true
  profiles                          items in the profiles table
  triggers, triggers_by_rule        distinct trigger ids on the triggers stream
  decisions                         items in the decisions table
  conditional_writes, conflicts     writes of profiles, and those that found another version
  write_units, write_units_per_event
  sent_to_applied_ms                p50, p90, p99, max from the put of an event to the success of its batch
  sent_to_decided_ms                p50, p90, p99, max from the put of an event to the put of the trigger that it caused
  profile_item_bytes                p50, max size of a stored profile
  invocations, failed_invocations, partial_invocations, retries, dropped_records
                                    over all event source mappings

Exit codes: 0 nothing is missing (or stopped while serving), 1 something is missing or went wrong, 2 the command was not
understood")]
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
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// An address that the SDK can use; kept as it is written.
fn endpoint_url(text: &str) -> Result<String, String> {
    let is_web = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    let has_host = Url::parse(text).is_ok_and(|url| url.has_host());
    if is_web && has_host {
        Ok(text.to_owned())
    } else {
        Err("write http:// or https:// and a host, such as http://127.0.0.1:4567".to_owned())
    }
}

/// Look at users
#[derive(Debug, Args)]
pub struct UsersOptions {
    /// What to do
    #[command(subcommand)]
    pub command: UsersCommand,
}

/// The commands about users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    Show(ShowOptions),
}

/// Show a user's profile, from AWS or from the local cloud
///
/// Reads the profiles table. Windowed features and lists decay while nothing happens, so they are shown as of now; with the
/// clock of the data, as of the profile's latest event is what you want: --at latest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher users show ann
  usher users show anonymous:5f1c2 --table staging-profiles --journey journey/journey.yaml
  usher users show oulad-100893 --at latest --endpoint-url http://127.0.0.1:4568

Exit codes: 0 it is shown, 1 there is no such user or the table can't be read, 2 the command was not understood")]
pub struct ShowOptions {
    /// The user's id; for an anonymous user, `anonymous:` and the anonymous id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub user: String,
    /// The profiles table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "profiles")]
    pub table: String,
    /// The journey that is deployed; without it, journey/journey.yaml beside the template.yaml of this folder or one above
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// As of when: `now`, `latest` (the profile's latest arrival) or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", default_value = "now")]
    pub at: String,
    /// Where DynamoDB is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_every_command_teaches_with_an_example() {
        Arguments::command().debug_assert();
        let mut waiting = vec![Arguments::command()];
        while let Some(command) = waiting.pop() {
            let mut commands = command.get_subcommands().cloned().peekable();
            if commands.peek().is_none() {
                let help = command.clone().render_long_help().to_string();
                assert!(help.contains("usher ") && help.contains("Exit codes"), "{help}");
            }
            waiting.extend(commands);
        }
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_told() {
        for wrong in [
            "usher local --drain",
            "usher local --clock now",
            "usher local --parameter X",
            "usher local --shards 0",
            "usher replay --events e.jsonl",
            "usher send e.jsonl",
            "usher send --stream s e.jsonl --endpoint-url notaurl",
            "usher send --stream s e.jsonl --endpoint-url 127.0.0.1:4567",
            "usher send --stream s e.jsonl --endpoint-url http://",
            "usher users show ann --endpoint-url ftp://127.0.0.1/",
            "usher users show ",
        ] {
            assert!(Arguments::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
        for right in [
            "usher local --events e.jsonl.gz --journey j.yaml --clock data --drain --report r.json --profiles p.jsonl",
            "usher replay --journey j.yaml --events - --profiles p.jsonl --triggers t.jsonl",
            "usher send --stream interactions - --ordered --resume s.json",
            "usher send --stream s - --endpoint-url http://127.0.0.1:4567",
            "usher users show ann --at latest",
            "usher users show ann --endpoint-url https://dynamodb.eu-central-1.amazonaws.com",
        ] {
            assert!(Arguments::try_parse_from(right.split(' ')).is_ok(), "{right}");
        }
    }
}
