//! The whole local cloud: starts the parts, waits until everything is drained, tells what happened, stops everything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::error::LocalError;
use crate::event_source_mapping::MappingProgress;
use crate::kinesis::{PutObserver, StreamRecord};
use crate::process::LogObserver;
use crate::template::Template;

/// A function has at most so many execution environments unless the caller says otherwise.
pub const ENVIRONMENTS_PER_FUNCTION_MAX: usize = 16;
/// A process that does not ask for its first invocation within this time has failed to start.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// A function whose processes fail to start so many times in a row stops the run.
pub const INIT_ATTEMPTS_MAX: u32 = 3;
/// The first retry of a failed batch waits so long; each further one twice as long.
pub const RETRY_BACKOFF_INITIAL: Duration = Duration::from_millis(100);
/// No retry waits longer than this.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After so many failures in a row on the same records a mapping counts as stuck.
pub const STUCK_AFTER_FAILURES: u32 = 20;
/// Put times remembered per shard.
pub const PUT_TIMES_PER_SHARD_MAX: usize = 1_000_000;

/// Where a function's process comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FunctionSource {
    /// The local cloud starts this program, once per concurrent batch.
    Executable(PathBuf),
    /// Someone else runs it, with `AWS_LAMBDA_RUNTIME_API` set to [`Endpoints::runtime_api_of`]: a debugger, a test.
    External,
    /// It does not run, and its mappings do not read.
    Skip,
}

impl FunctionSource {
    /// The program at `path`.
    pub fn executable(path: impl Into<PathBuf>) -> Self {
        Self::Executable(path.into())
    }
}

/// Everything that a caller may choose. [`LocalCloudOptions::new`] fills in the defaults.
#[derive(Clone)]
pub struct LocalCloudOptions {
    /// What to run.
    pub template: Template,
    /// Where each function's process comes from, by logical id. Every function of the template needs an entry.
    pub functions: BTreeMap<String, FunctionSource>,
    /// Environment variables for every function, over the template's.
    pub environment: BTreeMap<String, String>,
    /// Environment variables by logical id, over `environment`.
    pub function_environment: BTreeMap<String, BTreeMap<String, String>>,
    /// Which clock stamps arrivals.
    pub clock: Clock,
    /// Added between a put and its delivery; about 70 ms models enhanced fan-out in AWS.
    pub fanout_latency: Duration,
    /// Port of the embedded Kinesis on 127.0.0.1; 0 is a free one.
    pub kinesis_port: u16,
    /// Port of the embedded DynamoDB on 127.0.0.1; 0 is a free one.
    pub dynamodb_port: u16,
    /// Port of the Lambda Runtime API on 127.0.0.1; 0 is a free one.
    pub runtime_port: u16,
    /// Cap on processes per function.
    pub environments_per_function_max: usize,
    /// See [`INIT_TIMEOUT`].
    pub init_timeout: Duration,
    /// See [`INIT_ATTEMPTS_MAX`].
    pub init_attempts_max: u32,
    /// See [`RETRY_BACKOFF_INITIAL`].
    pub retry_backoff_initial: Duration,
    /// See [`RETRY_BACKOFF_MAX`].
    pub retry_backoff_max: Duration,
    /// See [`STUCK_AFTER_FAILURES`].
    pub stuck_after_failures: u32,
    /// See [`PUT_TIMES_PER_SHARD_MAX`].
    pub put_times_per_shard_max: usize,
    /// Delete expired items of tables with TTL, each minute, by the wall clock. Off by default, because under a data clock
    /// history would expire as it is written.
    pub sweep_ttl: bool,
    /// Told of each line that a function writes.
    pub on_log: Option<LogObserver>,
    /// Told of each record put, under the gate: be quick.
    pub on_put: Option<PutObserver>,
}

impl LocalCloudOptions {
    /// The defaults for this template.
    pub fn new(template: Template) -> Self {
        Self {
            template,
            functions: BTreeMap::new(),
            environment: BTreeMap::new(),
            function_environment: BTreeMap::new(),
            clock: Clock::Wall,
            fanout_latency: Duration::ZERO,
            kinesis_port: 0,
            dynamodb_port: 0,
            runtime_port: 0,
            environments_per_function_max: ENVIRONMENTS_PER_FUNCTION_MAX,
            init_timeout: INIT_TIMEOUT,
            init_attempts_max: INIT_ATTEMPTS_MAX,
            retry_backoff_initial: RETRY_BACKOFF_INITIAL,
            retry_backoff_max: RETRY_BACKOFF_MAX,
            stuck_after_failures: STUCK_AFTER_FAILURES,
            put_times_per_shard_max: PUT_TIMES_PER_SHARD_MAX,
            sweep_ttl: false,
            on_log: None,
            on_put: None,
        }
    }
}

/// Where the servers listen, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// For `AWS_ENDPOINT_URL_KINESIS`.
    pub kinesis_url: String,
    /// For `AWS_ENDPOINT_URL_DYNAMODB`.
    pub dynamodb_url: String,
    /// The Lambda Runtime API; a function's is below it.
    pub runtime_url: String,
}

impl Endpoints {
    /// `AWS_LAMBDA_RUNTIME_API` for the function of this physical name, when it is started by hand.
    pub fn runtime_api_of(&self, function_name: &str) -> String {
        format!("{}/{function_name}", self.runtime_url)
    }
}

/// What happened so far.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// By stream name; streams that were made by clients included once they hold a record.
    pub streams: BTreeMap<String, StreamProgress>,
    /// In the template's order.
    pub mappings: Vec<MappingProgress>,
}

/// What a stream took in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamProgress {
    /// Records put.
    pub records_put: u64,
    /// Records put, by shard id.
    pub records_put_by_shard: BTreeMap<String, u64>,
}

/// From a record's put to the success of the batch that held it, for one mapping.
#[derive(Debug, Clone)]
pub struct StageLatency {
    /// The mapping's name.
    pub mapping: String,
    /// Logical id of its function.
    pub function: String,
    /// The stream it reads.
    pub stream: String,
    /// Microseconds, one value a record.
    pub put_to_done_us: Histogram<u64>,
}

/// A running local cloud. Dropping it kills the functions; [`LocalCloud::shutdown`] also waits for them.
pub struct LocalCloud {}

impl LocalCloud {
    /// Makes the template's streams, consumers and tables, starts the functions and their mappings.
    ///
    /// # Errors
    /// When a port is taken, a resource is refused, or a function has no source. A function that fails to start is told by
    /// [`LocalCloud::failed`] and [`LocalCloud::drained`].
    pub async fn start(_options: LocalCloudOptions) -> Result<Self, LocalError> {
        unimplemented!()
    }

    /// Where the servers listen.
    pub fn endpoints(&self) -> &Endpoints {
        unimplemented!()
    }

    /// The template that runs.
    pub fn template(&self) -> &Template {
        unimplemented!()
    }

    /// Waits until every mapping has consumed all that is in its stream and nothing is in flight, through all stages.
    /// Records that were given up are counted in [`Progress`], not an error here.
    ///
    /// # Errors
    /// [`LocalError::Function`] when a function cannot start, [`LocalError::Stuck`] when a mapping keeps failing on the same
    /// records.
    pub async fn drained(&self) -> Result<(), LocalError> {
        unimplemented!()
    }

    /// Waits until a function cannot go on, for callers that run until interrupted.
    pub async fn failed(&self) -> LocalError {
        unimplemented!()
    }

    /// What happened so far; cheap enough for a progress bar.
    pub fn progress(&self) -> Progress {
        unimplemented!()
    }

    /// Latency of each mapping so far.
    pub fn latencies(&self) -> Vec<StageLatency> {
        unimplemented!()
    }

    /// Every record that the stream still holds: shard by shard, each in order.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn read_all(&self, _stream: &str) -> Result<Vec<StreamRecord>, LocalError> {
        unimplemented!()
    }

    /// When a record was put; `None` when it is unknown or forgotten
    /// ([`LocalCloudOptions::put_times_per_shard_max`]).
    pub fn put_instant(
        &self,
        _stream: &str,
        _shard_id: &str,
        _sequence_number: &str,
    ) -> Option<Instant> {
        unimplemented!()
    }

    /// Stops the mappings, kills the functions, waits for them, closes the servers.
    pub async fn shutdown(self) {}
}
