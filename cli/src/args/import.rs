//! The arguments of `usher import`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use usher_domain::time::Timestamp;

use super::endpoint_url;

/// Bring in what other systems know
#[derive(Debug, Args)]
pub struct ImportOptions {
    /// What to do
    #[command(subcommand)]
    pub command: ImportCommand,
}

/// The commands that bring something in.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    Traits(ImportTraitsOptions),
    Scores(ImportScoresOptions),
}

/// Bring in what is known of users, from a CSV or JSONL file: each row becomes an `identify` event
///
/// A row is about one user and holds traits, one a column: the plan, the size of the team, the date of the contract. The events
/// go to the interactions stream, where they are applied in order with all others, so nothing writes a profile but
/// profile-writer. A trait keeps the time of its value, and an older value never overwrites a newer one: so say as of when the
/// values are (--at or --at-column). The id of an event is made of the row's user, time and values, so the same import again
/// changes nothing. An empty cell says nothing about its trait.
///
/// What looks like a number or like true or false becomes one; a number with a zero in front, as postal codes have, stays text.
///
/// Rows that can't be used are told with their lines and reasons; the others are sent. With --resume, an interrupted import goes
/// on where it was.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("as_of").required(true).args(["at", "at_column"])))]
#[command(after_help = "Examples:
  usher import traits crm.csv --stream interactions --at 2026-01-05T00:00:00Z
  usher import traits crm.csv.gz --stream interactions --id-column customer --at-column updated_at --traits plan,seats --resume crm.state
  usher import traits crm.jsonl --stream interactions --at-column updated_at --dry-run
  zcat crm.csv.gz | usher import traits - --format csv --text postal_code --stream interactions --at 2026-01-05T00:00:00Z

Exit codes: 0 every row was sent or had nothing to say, 1 some were not, 2 the command was not understood")]
pub struct ImportTraitsOptions {
    /// The rows: CSV with a line of column names, or one JSON object a line; plain or gzip; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub rows: PathBuf,
    /// The interactions stream's name or ARN
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// How the rows are written; without it, as the name of the file says
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<RowFormat>,
    /// What is between the cells of a CSV file: one character, or `tab`
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    pub delimiter: u8,
    /// The column with the user's id
    #[arg(long, value_name = "COLUMN", default_value = "user_id", value_parser = NonEmptyStringValueParser::new())]
    pub id_column: String,
    /// The column with an anonymous id; of a row with both, the profile of the anonymous id becomes part of the user's
    #[arg(long, value_name = "COLUMN", value_parser = NonEmptyStringValueParser::new())]
    pub anonymous_id_column: Option<String>,
    /// As of when all values are (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Timestamp>,
    /// The column that says as of when a row's values are (RFC 3339)
    #[arg(long, value_name = "COLUMN", value_parser = NonEmptyStringValueParser::new())]
    pub at_column: Option<String>,
    /// The columns that are traits; without it, all but those above
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub traits: Vec<String>,
    /// Columns whose values stay text, whatever they look like
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub text: Vec<String>,
    /// Stop at the first row that can't be used
    #[arg(long)]
    pub strict: bool,
    /// Read all rows and say what would be sent
    #[arg(long)]
    pub dry_run: bool,
    /// Keep here what was acknowledged, and go on from there
    #[arg(long, value_name = "STATE", conflicts_with = "dry_run")]
    pub resume: Option<PathBuf>,
    /// Where Kinesis is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

/// Bring in scores of users and contents, from a CSV or JSONL file, for `choose` to read
///
/// A row is a user, a content and a score: what a model elsewhere expects of offering the one to the other. Each becomes an
/// `identify` event with the trait `score.CONTENT`. A slot with `learner: scores` offers the candidate of the highest score; any
/// other learner may see it as a feature of its candidates (`contents: { score: score }`).
///
/// The events go the way of `usher import traits`, which says more: an older score never overwrites a newer one, the same import
/// again changes nothing, and an interrupted one goes on with --resume. A file with one row for each user and a column
/// `score.CONTENT` for each content needs fewer events: give it to `usher import traits`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("scores_as_of").required(true).args(["at", "at_column"])))]
#[command(after_help = "Examples:
  usher import scores scores.csv --stream interactions --at 2026-01-05T00:00:00Z
  usher import scores scores.jsonl.gz --stream interactions --content-column item --score-column p_click --at-column scored_at
  usher import scores scores.csv --stream interactions --at 2026-01-05T00:00:00Z --dry-run

Exit codes: 0 every row was sent or had nothing to say, 1 some were not, 2 the command was not understood")]
pub struct ImportScoresOptions {
    /// The rows: CSV with a line of column names, or one JSON object a line; plain or gzip; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub rows: PathBuf,
    /// The interactions stream's name or ARN
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// How the rows are written; without it, as the name of the file says
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<RowFormat>,
    /// What is between the cells of a CSV file: one character, or `tab`
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    pub delimiter: u8,
    /// The column with the user's id
    #[arg(long, value_name = "COLUMN", default_value = "user_id", value_parser = NonEmptyStringValueParser::new())]
    pub id_column: String,
    /// The column with an anonymous id
    #[arg(long, value_name = "COLUMN", value_parser = NonEmptyStringValueParser::new())]
    pub anonymous_id_column: Option<String>,
    /// The column with the content's id
    #[arg(long, value_name = "COLUMN", default_value = "content_id", value_parser = NonEmptyStringValueParser::new())]
    pub content_column: String,
    /// The column with the score
    #[arg(long, value_name = "COLUMN", default_value = "score", value_parser = NonEmptyStringValueParser::new())]
    pub score_column: String,
    /// As of when all scores are (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Timestamp>,
    /// The column that says as of when a row's score is (RFC 3339)
    #[arg(long, value_name = "COLUMN", value_parser = NonEmptyStringValueParser::new())]
    pub at_column: Option<String>,
    /// Stop at the first row that can't be used
    #[arg(long)]
    pub strict: bool,
    /// Read all rows and say what would be sent
    #[arg(long)]
    pub dry_run: bool,
    /// Keep here what was acknowledged, and go on from there
    #[arg(long, value_name = "STATE", conflicts_with = "dry_run")]
    pub resume: Option<PathBuf>,
    /// Where Kinesis is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// Cells with something between them; the first line has the names of the columns
    Csv,
    /// One JSON object a line
    Jsonl,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| "write a time with its offset, such as 2026-01-05T10:00:00Z".to_owned())
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !b"\"\r\n".contains(byte) => Ok(*byte),
        _ => Err("write one ASCII character, such as `;`, or `tab`".to_owned()),
    }
}
