//! The deployed truth, read for local use: a SAM or CloudFormation template's streams, consumers, tables, functions and
//! event source mappings, with its intrinsic functions resolved.
//!
//! Every problem is found at once, each with its line and what to do. Resources of other types are ignored; a property that
//! the local cloud knows but does not honour yet becomes a [`Notice`].

mod intrinsics;
mod mapping;
mod resources;
mod schedule;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::error::LocalError;
pub use crate::event_source_mapping::filter::FilterCriteria;

/// The account that local ARNs name.
pub const LOCAL_ACCOUNT_ID: &str = "000000000000";
/// The region that local ARNs name unless the caller chooses another.
pub const DEFAULT_REGION: &str = "us-east-1";
/// AWS gives an on-demand stream 4 shards to begin with.
pub const DEFAULT_ON_DEMAND_SHARDS: u32 = 4;

/// How to read a template: what CloudFormation would be told on deployment.
#[derive(Debug, Clone)]
pub struct TemplateOptions {
    /// `AWS::StackName`, also the prefix of physical names that the template leaves to CloudFormation.
    pub stack_name: String,
    /// `AWS::Region`.
    pub region: String,
    /// Values for the template's parameters; the others take their defaults.
    pub parameters: BTreeMap<String, String>,
    /// Shards of a stream in `ON_DEMAND` mode.
    pub on_demand_shards: u32,
    /// Shards of every stream, whatever the template says; for trying a template at another width.
    pub shard_count: Option<u32>,
    /// Seconds since the Unix epoch in consumers' ARNs, as AWS puts the time of their creation there.
    pub consumer_creation_timestamp_s: u64,
}

impl Default for TemplateOptions {
    fn default() -> Self {
        Self {
            stack_name: "local".to_owned(),
            region: DEFAULT_REGION.to_owned(),
            parameters: BTreeMap::new(),
            on_demand_shards: DEFAULT_ON_DEMAND_SHARDS,
            shard_count: None,
            consumer_creation_timestamp_s: 1_700_000_000,
        }
    }
}

/// What the local cloud takes from a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// `AWS::Region` as resolved.
    pub region: String,
    /// `AWS::StackName` as resolved.
    pub stack_name: String,
    /// `AWS::Kinesis::Stream`.
    pub streams: Vec<Stream>,
    /// `AWS::Kinesis::StreamConsumer`.
    pub consumers: Vec<StreamConsumer>,
    /// `AWS::DynamoDB::Table`.
    pub tables: Vec<Table>,
    /// `AWS::Serverless::Function`.
    pub functions: Vec<Function>,
    /// Kinesis events of functions, and `AWS::Lambda::EventSourceMapping` resources on a Kinesis stream.
    pub mappings: Vec<EventSourceMapping>,
    /// Schedule events of functions.
    pub schedules: Vec<Schedule>,
    /// What the template asks for and the local cloud does not do yet.
    pub notices: Vec<Notice>,
}

/// A stream to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Logical id in the template.
    pub logical_id: String,
    /// Physical name.
    pub name: String,
    /// ARN with the local account.
    pub arn: String,
    /// Shards to begin with.
    pub shard_count: u32,
    /// Whether the template says `ON_DEMAND`.
    pub on_demand: bool,
    /// Hours that records are kept.
    pub retention_hours: u32,
}

/// An enhanced fan-out consumer to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    /// Logical id in the template.
    pub logical_id: String,
    /// Name of the consumer.
    pub name: String,
    /// ARN with the local account.
    pub arn: String,
    /// ARN of its stream.
    pub stream_arn: String,
}

/// A table to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Logical id in the template.
    pub logical_id: String,
    /// Physical name.
    pub name: String,
    /// ARN with the local account.
    pub arn: String,
    /// The body of a `CreateTable` call.
    pub create_table: serde_json::Value,
    /// The attribute that holds an item's expiry in seconds since the Unix epoch, if TTL is enabled.
    pub ttl_attribute: Option<String>,
}

/// A function to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Logical id in the template; the key by which callers name it.
    pub logical_id: String,
    /// Physical name.
    pub name: String,
    /// ARN with the local account.
    pub arn: String,
    /// ARN of its execution role.
    pub role_arn: String,
    /// Name of the program: `Metadata.BuildProperties.Binary`, else the last segment of `CodeUri`.
    pub binary: String,
    /// The `Handler` property.
    pub handler: String,
    /// Environment, with `Globals` merged and AWS's logging variables.
    pub environment: BTreeMap<String, String>,
    /// An invocation may take this long.
    pub timeout: Duration,
    /// Memory in MB: told to the function, not enforced.
    pub memory_mb: u32,
    /// `ReservedConcurrentExecutions`: at most so many invocations at a time; `None` is the account's limit, 0 is none at all.
    pub reserved_concurrency: Option<u32>,
}

/// Where a mapping begins on a shard it has never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartingPosition {
    /// The oldest record kept.
    TrimHorizon,
    /// Only records put after the mapping started.
    Latest,
    /// The first record that arrived at this time or later, in milliseconds since the Unix epoch.
    AtTimestamp(i64),
}

/// What takes the batches that a mapping gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureDestinationKind {
    /// An SQS queue: gets where the records are, not the records.
    Sqs,
    /// An SNS topic: gets the same as a queue.
    Sns,
    /// An S3 bucket: gets the records too.
    S3,
    /// A Kafka topic. Nothing is delivered to it locally.
    Kafka,
}

impl fmt::Display for FailureDestinationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sqs => "SQS",
            Self::Sns => "SNS",
            Self::S3 => "S3",
            Self::Kafka => "Kafka",
        })
    }
}

/// `DestinationConfig.OnFailure.Destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureDestination {
    /// Which service takes them.
    pub kind: FailureDestinationKind,
    /// As the template gives it; `kafka://TOPIC` for Kafka.
    pub arn: String,
    /// Name of the queue, topic or bucket.
    pub name: String,
}

/// A function reading a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSourceMapping {
    /// `FUNCTION/EVENT` as the template names them, or the logical id of the mapping resource.
    pub name: String,
    /// What AWS would give it on creation, here always the same for the same stack and name. It is in the keys of an S3
    /// failure destination.
    pub uuid: String,
    /// Logical id of the function.
    pub function: String,
    /// Physical name of the stream.
    pub stream: String,
    /// ARN of the stream.
    pub stream_arn: String,
    /// What the template names as event source: the stream's ARN, or its consumer's.
    pub event_source_arn: String,
    /// Where to begin.
    pub starting_position: StartingPosition,
    /// At most so many records an invocation.
    pub batch_size: usize,
    /// How long to wait for a batch to fill.
    pub batching_window: Duration,
    /// Whether the function may report failed items.
    pub report_batch_item_failures: bool,
    /// Retries after the first attempt; `None` is without end.
    pub retry_attempts_max: Option<u32>,
    /// Records that arrived longer ago than this are given up; `None` is without end.
    pub record_age_max: Option<Duration>,
    /// Whether a failing batch is split in two.
    pub bisect_on_error: bool,
    /// Concurrent batches a shard, from 1 to 10.
    pub parallelization_factor: u32,
    /// What the function is to see; `None` is every record.
    pub filters: Option<FilterCriteria>,
    /// Length of the tumbling windows, in whole seconds up to 900; `None` is no windows.
    pub tumbling_window: Option<Duration>,
    /// What takes the records that are given up.
    pub failure_destination: Option<FailureDestination>,
}

/// A function that runs by a schedule: an EventBridge rule with a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// `FUNCTION/EVENT` as the template names them.
    pub name: String,
    /// Logical id of the function.
    pub function: String,
    /// ARN of the rule with the local account, which the event names.
    pub rule_arn: String,
    /// From one run to the next.
    pub every: Duration,
    /// What the function gets instead of the event.
    pub input: Option<String>,
    /// Retries of an invocation that failed: the function's `EventInvokeConfig`.
    pub retry_attempts_max: u32,
}

/// Something that the template asks for and the local cloud leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Line in the template, from 1.
    pub line: usize,
    /// What is left out, and what happens instead.
    pub message: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.message)
    }
}

/// Everything that is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", display_problems(source_name, problems))]
pub struct TemplateProblems {
    /// The file, for the message.
    pub source_name: String,
    /// Each problem with its line, in the order of the file.
    pub problems: Vec<TemplateProblem>,
}

/// One thing that is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateProblem {
    /// Line in the template, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

fn display_problems(source_name: &str, problems: &[TemplateProblem]) -> String {
    let mut text = format!("{source_name} cannot be run locally:");
    for problem in problems {
        text.push_str(&format!("\n  {source_name}:{}: {}", problem.line, problem.message));
    }
    text
}

impl Template {
    /// Reads a template file.
    ///
    /// # Errors
    /// When the file cannot be read, or with every problem in it.
    pub fn read(path: impl AsRef<Path>, options: &TemplateOptions) -> Result<Self, LocalError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| LocalError::ReadTemplate {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::parse(&path.display().to_string(), &text, options)?)
    }

    /// Reads a template's text; `source_name` is for messages.
    ///
    /// # Errors
    /// With every problem in it.
    pub fn parse(source_name: &str, text: &str, options: &TemplateOptions) -> Result<Self, TemplateProblems> {
        resources::read(source_name, text, options)
    }

    /// The function with this logical id.
    pub fn function(&self, logical_id: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.logical_id == logical_id)
    }
}
