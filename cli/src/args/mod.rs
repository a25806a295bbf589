//! What can be written on the command line, and what `--help` teaches.

mod check;
mod evaluate;
mod explain;
mod export;
mod import;
mod local;
mod models;
mod redrive;
mod rejected;
mod replay;
mod report;
mod simulate;
mod soak;
mod trends;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use url::Url;

pub use check::{CheckOptions, SchemaOptions};
pub use evaluate::{EvaluateOptions, JudgedFormat};
pub use explain::ExplainOptions;
pub use export::{DecisionsTable, ExportCommand, ExportDecisionsOptions, ExportOptions, LogFormat};
pub use import::{ImportCommand, ImportOptions, ImportScoresOptions, ImportTraitsOptions, RowFormat};
pub use local::{ClockChoice, LocalOptions};
pub use models::{
    ExportModelOptions, ImportModelOptions, ModelsCommand, ModelsOptions, ModelsPlace, ResetModelOptions,
};
pub use redrive::{PassedByChoice, RedriveOptions};
pub use rejected::{
    ListOptions, RejectedCommand, RejectedOptions, RejectedSelection, ResendOptions, ShowRejectedOptions,
};
pub use replay::ReplayOptions;
pub use report::ReportOptions;
pub use simulate::{SimulateOptions, Variant};
pub use soak::{RUNS_DEFAULT, SoakOptions};
pub use trends::{ListedBy, TrendsOptions};

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
    Schema(SchemaOptions),
    Replay(ReplayOptions),
    Local(LocalOptions),
    Soak(SoakOptions),
    Simulate(SimulateOptions),
    Send(SendOptions),
    Import(ImportOptions),
    Users(UsersOptions),
    Explain(ExplainOptions),
    Models(ModelsOptions),
    Export(ExportOptions),
    Evaluate(EvaluateOptions),
    Report(ReportOptions),
    Trends(TrendsOptions),
    Rejected(RejectedOptions),
    Redrive(RedriveOptions),
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
            "usher local --seed 1",
            "usher local --faults kil",
            "usher soak --runs 0",
            "usher soak --minutes 0",
            "usher soak --runs 1 --minutes 1",
            "usher replay --events e.jsonl",
            "usher replay --journey j.yaml",
            "usher replay --journey j.yaml --events e.jsonl --record r.jsonl",
            "usher simulate w.json",
            "usher simulate w.json --variant a",
            "usher simulate w.json --variant a=j.yaml --speed 0",
            "usher send e.jsonl",
            "usher send --stream s e.jsonl --endpoint-url notaurl",
            "usher send --stream s e.jsonl --endpoint-url 127.0.0.1:4567",
            "usher send --stream s e.jsonl --endpoint-url http://",
            "usher import traits c.csv --stream s",
            "usher import traits c.csv --at 2026-01-05T10:00:00Z",
            "usher import traits c.csv --stream s --at 2026-01-05",
            "usher import traits c.csv --stream s --at 2026-01-05T10:00:00Z --at-column t",
            "usher import traits c.csv --stream s --at-column t --delimiter ;;",
            "usher import traits c.csv --stream s --at-column t --dry-run --resume f",
            "usher users show ann --endpoint-url ftp://127.0.0.1/",
            "usher users show ",
            "usher explain",
            "usher models",
            "usher models show",
            "usher models import in_app",
            "usher explain ann --last many",
            "usher explain ann --events e.jsonl --endpoint-url http://127.0.0.1:4568",
            "usher export",
            "usher export decisions --format parquet",
            "usher export decisions --format csv",
            "usher export decisions --within 0s",
            "usher export decisions --within 1d --journey j.yaml",
            "usher evaluate --log l.jsonl",
            "usher evaluate --log l.jsonl --policy even --clip 0",
            "usher evaluate --log l.jsonl --policy even --confidence 100",
            "usher evaluate --log l.jsonl --policy even --reward-range 6..0",
            "usher report --log l.jsonl --decisions d",
            "usher report --confidence 20",
            "usher trends --within 30s",
            "usher trends --by user",
            "usher rejected",
            "usher rejected show --raw",
            "usher redrive",
            "usher redrive f.json --user ann",
            "usher redrive --queue q --bucket s3://b",
            "usher redrive f.json --delete",
            "usher redrive f.json --yes --skip-uncertain",
            "usher redrive --user ann --parallelization-factor 11",
        ] {
            assert!(Arguments::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
        for right in [
            "usher local --events e.jsonl.gz --journey j.yaml --clock data --drain --report r.json --profiles p.jsonl",
            "usher local --faults all,kill:1% --seed 7",
            "usher soak --runs 50 --seed 1 --faults all:2%",
            "usher soak --minutes 0.5",
            "usher simulate w.json --variant a=j.yaml --variant b=j.yaml@10m --speed 2.5 --users 100 --minutes 5 --seed 3",
            "usher replay --journey j.yaml --record r.jsonl",
            "usher replay --journey j.yaml --events - --profiles p.jsonl --triggers t.jsonl",
            "usher send --stream interactions - --ordered --resume s.json",
            "usher send --stream s - --endpoint-url http://127.0.0.1:4567",
            "usher import traits c.csv --stream s --at 2026-01-05T10:00:00+01:00 --delimiter tab --strict",
            "usher import traits - --format jsonl --stream s --at-column t --traits a,b --text a --resume f",
            "usher users show ann --at latest",
            "usher explain ann",
            "usher models list --table m --journey j.yaml",
            "usher models export in_app - --endpoint-url http://127.0.0.1:4568",
            "usher models reset in_app --yes",
            "usher explain ann --rule welcome --last 5 --at latest --json",
            "usher explain anonymous:1 --events - --journey j.yaml",
            "usher explain ann --profiles p --decisions d --endpoint-url http://127.0.0.1:4568",
            "usher export decisions",
            "usher export decisions --format vw --since 7d --slot a --slot b --rule r -o f.vw --within 24h",
            "usher export decisions --format parquet --output f --journey j.yaml --endpoint-url http://127.0.0.1:4568",
            "usher evaluate --log - --policy split:a=1,b=2 --reward-range -1..6 --clip 2 --confidence 99% --json",
            "usher evaluate --log l --policy j.yaml --train a.jsonl --train b.jsonl --format jsonl",
            "usher evaluate --log l.csv --policy even --format obd --obd-items 80 --reward-model smoothed:1/200",
            "usher report",
            "usher report --log l.jsonl --svg l.svg --rule r --slot s --json --confidence 90 --reward-range 0..6",
            "usher report --decisions d --endpoint-url http://127.0.0.1:4568 --within 24h",
            "usher trends",
            "usher trends --by category --event click --event like --within 1h --top 5 --watch --json",
            "usher rejected list --stream r --since 2h --reason not_json --reason too_large",
            "usher rejected show shardId-0:1 --raw",
            "usher rejected resend --reason not_json --to interactions --dry-run",
            "usher redrive failures --dry-run --stream interactions",
            "usher redrive --queue https://sqs.eu-west-1.amazonaws.com/1/q --delete --skip-uncertain",
            "usher redrive --bucket s3://b/aws/lambda/ --yes",
            "usher redrive --user ann --passed-by skip --dry-run",
            "usher users show ann --endpoint-url https://dynamodb.eu-central-1.amazonaws.com",
        ] {
            assert!(Arguments::try_parse_from(right.split(' ')).is_ok(), "{right}");
        }
    }
}
