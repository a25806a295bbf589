//! `usher rejected`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::endpoint_url;

/// See why records could not be used, look at them, and send them again once that is mended
///
/// A record that can't be used stops nothing: it goes to the rejected stream with its bytes, the reason and where it was,
/// and waits there for as long as the stream retains it.
#[derive(Debug, Args)]
pub struct RejectedOptions {
    /// What to do
    #[command(subcommand)]
    pub command: RejectedCommand,
}

/// The commands about rejected records.
#[derive(Debug, Subcommand)]
pub enum RejectedCommand {
    List(ListOptions),
    Show(ShowRejectedOptions),
    Resend(ResendOptions),
}

/// Where the rejected records are, and which of them are meant.
#[derive(Clone, Debug, Args)]
pub struct RejectedSelection {
    /// The rejected stream's name or ARN
    #[arg(long, value_name = "NAME", default_value = "rejected")]
    pub stream: String,
    /// Only those rejected since then: a time (RFC 3339), or how long ago, such as 2h or 3d
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only those with this reason, such as not_json; may be given several times
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// Only this user's: by the user id in the bytes or, only where they name nobody, by the partition key
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// Where Kinesis is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

/// Count the rejected records by reason, with the newest of them
///
/// Reads the whole of what the stream retains, all shards, parents before children. A record that was rejected twice,
/// because its batch was run again, counts once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher rejected list
  usher rejected list --since 2h --reason missing_field
  usher rejected list --stream staging-rejected --user ann
  usher rejected list --endpoint-url http://127.0.0.1:4567

Exit codes: 0 the stream was read, 1 it can't be read, 2 the command was not understood")]
pub struct ListOptions {
    /// Which
    #[command(flatten)]
    pub selection: RejectedSelection,
    /// How many of the newest to name
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub newest: usize,
}

/// Show rejected records: the reason, the member at fault, the place and the original bytes
///
/// Bytes that are no text are shown as hexadecimal, long ones as base64. With --raw the bytes alone are written, as the
/// producer sent them, so that a file or a pipe can take them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher rejected show shardId-000000000000:49590338271490256608559692538361571095921575989136588898
  usher rejected show --reason not_utf8 --since 1d
  usher rejected show shardId-000000000000:4959… --raw > record.json

Exit codes: 0 something was shown, 1 there is no such record or the stream can't be read, 2 the command was not
understood")]
pub struct ShowRejectedOptions {
    /// The record's place on the stream that it came from, as `usher rejected list` names it; without it, all that the
    /// filters leave
    #[arg(value_name = "SHARD:SEQUENCE_NUMBER", value_parser = NonEmptyStringValueParser::new())]
    pub place: Option<String>,
    /// Which
    #[command(flatten)]
    pub selection: RejectedSelection,
    /// Write the original bytes and nothing else
    #[arg(long, requires = "place")]
    pub raw: bool,
}

/// Put rejected records on their stream again, once what was wrong is mended
///
/// Each goes as it was, with its bytes and its partition key, to the stream that it came from, in the order in which it
/// was there; of one partition key never two are unacknowledged. What is still wrong is rejected again. A record that was
/// rejected twice goes once, and so do equal bytes of one partition key.
///
/// It is safe to repeat within the stated window: a profile knows its last event ids (64, unless the journey says
/// otherwise). Beyond it a repeat counts twice, so name what is new with --since when you resend again.
///
/// Records of a parked user (whose profile could not be written) are left for `usher redrive --user`, which keeps them in
/// order. Of a record that was too large to keep whole, only the front is there: it can't be sent again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher rejected resend --reason unknown_schema_version --dry-run
  usher rejected resend --reason unknown_schema_version
  usher rejected resend --since 2026-01-05T10:00:00Z --to interactions-v2
  usher rejected resend --user ann --endpoint-url http://127.0.0.1:4567

Exit codes: 0 everything that was meant was put, 1 some was not (it is said which), 2 the command was not understood")]
pub struct ResendOptions {
    /// Which
    #[command(flatten)]
    pub selection: RejectedSelection,
    /// The stream to put them on, by name or ARN; without it, the one that each came from
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Tell what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
}
