//! The options of `usher explain`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::endpoint_url;

/// Decisions that are shown, unless the command says otherwise.
const LAST_DEFAULT: usize = 20;

/// Tell why a user was offered what they were, and what stands in the way of the rest
///
/// A timeline of the decisions about the user, each with what caused it, what its condition saw, and which other rules
/// looked at that moment and did not fire, with the reason. Then where every rule stands: what would become of it now, each
/// value that its conditions read, when its timer is due, and how far limits, caps, cool-downs and quiet hours are.
///
/// It reads the profiles and the decisions table, in AWS or in the local cloud; with --events it needs neither, and folds a
/// file of events as `usher replay` does. Nothing is written. Of a user's logged decisions it reads 10,000 at most, in the
/// order of their ids, which are hashes: of more than that, those shown are not the latest. It says so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher explain ann
  usher explain ann --rule stalled --last 5
  usher explain oulad-100893 --at latest --endpoint-url http://127.0.0.1:4568
  usher explain ann --events week.jsonl.gz --journey new.yaml
  usher explain ann --json | jq '.rules[] | select(.id == \"stalled\")'

Exit codes: 0 it is explained, 1 there is no such user or rule, or something can't be read, 2 the command was not
understood")]
pub struct ExplainOptions {
    /// The user's id; for an anonymous user, `anonymous:` and the anonymous id
    #[arg(value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub user: String,
    /// Only this rule
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// The latest decisions that are shown, at most
    #[arg(long, value_name = "N", default_value_t = LAST_DEFAULT)]
    pub last: usize,
    /// The journey; without it, journey/journey.yaml beside the template.yaml of this folder or one above
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// Where rules stand as of then: `now`, `latest` (the user's latest arrival) or a time (RFC 3339). Without it, now;
    /// with --events, the end of the file
    #[arg(long, value_name = "WHEN")]
    pub at: Option<String>,
    /// Fold these events in place of reading tables: native JSON, one a line, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["profiles", "decisions", "endpoint_url"])]
    pub events: Option<PathBuf>,
    /// The profiles table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "profiles")]
    pub profiles: String,
    /// The decisions table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "decisions")]
    pub decisions: String,
    /// Where DynamoDB is, such as the local cloud's address; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
    /// The slots' models, as `usher models export` writes them: how rules that choose would choose. Without it, as if nothing
    /// was learned
    #[arg(long, value_name = "MODELS.jsonl")]
    pub models: Option<PathBuf>,
    /// Write one JSON object in place of text
    #[arg(long)]
    pub json: bool,
}
