//! `usher redrive`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, ValueEnum};

use super::endpoint_url;

/// What a user's parked events don't come from. (`requires = "user"` would not do: what conflicts with something that is there
/// is not asked for.)
const WITHOUT_USER: [&str; 3] = ["file", "queue", "bucket"];

/// What to do with a user's parked events that the profile is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PassedByChoice {
    /// Change nothing, and tell which those are
    Ask,
    /// Apply them now: out of order, and twice where they were applied
    Apply,
    /// Leave them out, for good
    Skip,
}

/// Run again what was given up: batches of a failure destination, or the events of a parked user
///
/// A batch that failed as often as it may is given up, and its failure destination gets a record of it: an SQS queue where
/// it was, an S3 bucket that and the records. The records are taken from there, or fetched from the stream while it
/// retains them, and put on the stream again as new records, in order; of one partition key never two are unacknowledged.
/// (Under their old sequence numbers they would look like duplicates, because later ones were applied.) What is past
/// retention is told with its range and count.
///
/// Before that the profiles of the batch's users are read. An event whose id a profile remembers is applied already, and
/// is left out, so repeating a redrive changes nothing, once profile-writer has caught up with what was put: wait for that.
/// Users who have more events in one redrive than ids are remembered are asked about, since theirs would count twice if it
/// was repeated earlier. Where an event's id may have been forgotten (a profile keeps the
/// last 64, unless the journey says otherwise) while the shard went on beyond it, nobody can tell: the users and counts are
/// named and you are asked; without a terminal, say --yes or --skip-uncertain.
///
/// With --user, the parked events of a user whose profile could not be written are applied, in order, to the mended
/// profile.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("what").required(true).args(["file", "queue", "bucket", "user"]),
    after_help = "Examples:
  usher redrive failed-batch.json --dry-run
  usher redrive --queue https://sqs.eu-west-1.amazonaws.com/123456789012/failed-batches --skip-uncertain
  usher redrive --bucket s3://failed-batches/aws/lambda/ --delete
  usher redrive failures/ --endpoint-url http://127.0.0.1:4567 --dynamodb-endpoint-url http://127.0.0.1:4568
  usher redrive --user ann

FILE is a record of a failure destination, several of them as JSON lines, what `aws sqs receive-message` printed, or a
folder of such files, as `usher local` writes it.

Exit codes: 0 everything is applied or on its stream again, 1 some is not (past retention, uncertain, interrupted, does
not fit: it is said which), 2 the command was not understood"
)]
pub struct RedriveOptions {
    /// Records of a failure destination: a file or a folder
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The URL of the SQS queue that is the failure destination
    #[arg(long, value_name = "URL")]
    pub queue: Option<String>,
    /// The S3 bucket that is the failure destination, and what its objects' keys begin with
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    pub bucket: Option<String>,
    /// The user whose parked events are to be applied
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Put uncertain events too: those that were applied long ago count twice
    #[arg(long, conflicts_with_all = ["skip_uncertain", "user"])]
    pub yes: bool,
    /// Leave uncertain events out: those that were never applied stay lost
    #[arg(long, conflicts_with = "user")]
    pub skip_uncertain: bool,
    /// Delete each message or object of which everything is applied or on its stream again
    #[arg(long, conflicts_with_all = ["file", "user", "dry_run"])]
    pub delete: bool,
    /// The stream to put the records on, by name or ARN; without it, the one that they came from
    #[arg(long, value_name = "NAME", conflicts_with = "user")]
    pub stream: Option<String>,
    /// With --user: what to do with parked events that the profile is past, although it doesn't remember their ids
    #[arg(long, value_name = "CHOICE", value_enum, default_value_t = PassedByChoice::Ask, conflicts_with_all = WITHOUT_USER)]
    pub passed_by: PassedByChoice,
    /// With --user: go on without this parked record, which can't be applied; may be given several times
    #[arg(long, value_name = "SHARD:SEQUENCE_NUMBER", conflicts_with_all = WITHOUT_USER)]
    pub leave_out: Vec<String>,
    /// With --user: take the parked records that are there for all of them, where none is or some are past retention: those
    /// stay lost, and the user is not parked any more
    #[arg(long, conflicts_with_all = WITHOUT_USER)]
    pub unpark_anyway: bool,
    /// With --user: the rejected stream's name or ARN
    #[arg(long, value_name = "NAME", default_value = "rejected", conflicts_with_all = WITHOUT_USER)]
    pub rejected: String,
    /// With --user: the triggers stream's name or ARN
    #[arg(long, value_name = "NAME", default_value = "triggers", conflicts_with_all = WITHOUT_USER)]
    pub triggers: String,
    /// With --user: the parallelization factor of profile-writer's event source mapping; only a profile that begins anew
    /// asks for it, where several partition keys have events of equal times
    #[arg(
        long,
        value_name = "FACTOR",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10),
        conflicts_with_all = WITHOUT_USER
    )]
    pub parallelization_factor: u32,
    /// The journey that is deployed; without it, journey/journey.yaml beside the template.yaml of this folder or one above.
    /// Without --user it tells how many event ids a profile remembers (64, where none is found)
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// The profiles table's name or ARN
    #[arg(long, value_name = "NAME", default_value = "profiles")]
    pub table: String,
    /// Where the services are, such as the local cloud's Kinesis; without it, as the environment says
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub endpoint_url: Option<String>,
    /// Where DynamoDB is, if not there: the local cloud's is at an address of its own
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    pub dynamodb_endpoint_url: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        redrive: RedriveOptions,
    }

    #[test]
    fn options_for_a_user_are_refused_without_one() {
        for option in [
            "--passed-by=apply",
            "--leave-out=shardId-0:1",
            "--unpark-anyway",
            "--rejected=other",
            "--triggers=other",
            "--parallelization-factor=2",
        ] {
            let with = CommandLine::try_parse_from(["redrive", "--user", "ann", option]);
            assert_eq!(with.expect(option).redrive.user.as_deref(), Some("ann"));
            let without = CommandLine::try_parse_from(["redrive", "failed.json", option]);
            let told = without.expect_err(option).to_string();
            assert!(told.contains("cannot be used with"), "{told}");
        }
        for fine in [
            &["redrive", "failed.json"][..],
            &["redrive", "failed.json", "--journey=j.yaml"],
            &["redrive", "--user", "ann"],
        ] {
            assert!(CommandLine::try_parse_from(fine).is_ok(), "{fine:?}");
        }
    }
}
