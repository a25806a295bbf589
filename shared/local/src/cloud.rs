//! The whole local cloud: starts the parts, waits until everything is drained, tells what happened, stops everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::dynamodb::{DynamoDb, DynamoDbOptions};
use crate::error::LocalError;
use crate::event_source_mapping::failure_destination::FailureDestinationWriter;
use crate::event_source_mapping::{Mapping, MappingOptions, MappingProgress};
use crate::faults::Faults;
use crate::kinesis::{Kinesis, KinesisOptions, PutObserver, StreamRecord};
use crate::process::{self, LogObserver, ProcessOptions};
use crate::runtime_api::RuntimeApi;
use crate::schedule::{ScheduleProgress, ScheduledFunction};
use crate::template::{Function, Template};

/// A function has at most so many execution environments unless the caller says otherwise.
pub const ENVIRONMENTS_PER_FUNCTION_MAX: usize = 16;
/// A process that does not ask for its first invocation within this time has failed to start.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(30);
/// A function whose processes fail to start so many times in a row stops the run.
pub const INIT_ATTEMPTS_MAX: u32 = 3;
/// The first retry of a failed batch waits so long; each further one twice as long.
pub const RETRY_BACKOFF_INITIAL: Duration = Duration::from_millis(100);
/// No retry waits longer than this.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After so many failures in a row on the same records a mapping counts as stuck, unless its own retry limit ends them soon.
pub const STUCK_AFTER_FAILURES: u32 = 20;
/// A subscription by enhanced fan-out lasts so long and is then renewed.
pub const SUBSCRIPTION_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// [`LocalCloud::reshard`] makes at most so many times the shards that a stream had at the start.
const RESHARD_GROWTH_MAX: usize = 2;
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
    /// See [`SUBSCRIPTION_LIFETIME`].
    pub subscription_lifetime: Duration,
    /// Where the failure destinations of mappings are: `DIR/sqs/QUEUE.jsonl`, `DIR/sns/TOPIC.jsonl`, `DIR/s3/BUCKET/...`.
    /// `None` keeps nothing of what is given up but its range in [`MappingProgress::dropped`].
    pub failed_batches: Option<PathBuf>,
    /// What goes wrong on purpose.
    pub faults: Faults,
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
            subscription_lifetime: SUBSCRIPTION_LIFETIME,
            failed_batches: None,
            faults: Faults::none(),
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
    /// In the template's order.
    pub schedules: Vec<ScheduleProgress>,
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
pub struct LocalCloud {
    template: Template,
    endpoints: Endpoints,
    kinesis: Kinesis,
    dynamodb: DynamoDb,
    runtime: RuntimeApi,
    mappings: Vec<Arc<Mapping>>,
    schedules: Vec<Arc<ScheduledFunction>>,
    stuck_after_failures: u32,
    /// Raised to end the processes.
    stop: watch::Sender<bool>,
    processes: JoinSet<()>,
    readers: JoinSet<()>,
}

impl LocalCloud {
    /// Makes the template's streams, consumers and tables, starts the functions and their mappings.
    ///
    /// # Errors
    /// When a port is taken, a resource is refused, or a function has no source. A function that fails to start is told by
    /// [`LocalCloud::failed`] and [`LocalCloud::drained`].
    pub async fn start(options: LocalCloudOptions) -> Result<Self, LocalError> {
        check_functions(&options)?;
        let template = options.template.clone();
        for notice in &template.notices {
            tracing::warn!(line = notice.line, "{}", notice.message);
        }
        let kinesis = Kinesis::start(KinesisOptions {
            port: options.kinesis_port,
            region: template.region.clone(),
            shards: template.streams.iter().map(|stream| stream.shard_count).sum(),
            clock: options.clock.clone(),
            put_times_per_shard_max: options.put_times_per_shard_max,
            on_put: options.on_put.clone(),
            faults: options.faults.clone(),
        })
        .await?;
        for stream in &template.streams {
            kinesis.create_stream(stream).await?;
        }
        for consumer in &template.consumers {
            kinesis.register_consumer(consumer).await?;
        }
        let dynamodb = DynamoDb::start(DynamoDbOptions {
            port: options.dynamodb_port,
            sweep_ttl: options.sweep_ttl,
            faults: options.faults.clone(),
        })
        .await?;
        for table in &template.tables {
            dynamodb.create_table(table)?;
        }
        let runtime = RuntimeApi::start(options.runtime_port, &template.functions, &options.faults).await?;
        let endpoints = Endpoints {
            kinesis_url: kinesis.url().to_owned(),
            dynamodb_url: dynamodb.url().to_owned(),
            runtime_url: runtime.url().to_owned(),
        };
        let mut cloud = Self {
            template,
            endpoints,
            kinesis,
            dynamodb,
            runtime,
            mappings: Vec::new(),
            schedules: Vec::new(),
            stuck_after_failures: options.stuck_after_failures.max(1),
            stop: watch::Sender::new(false),
            processes: JoinSet::new(),
            readers: JoinSet::new(),
        };
        cloud.start_processes(&options);
        let concurrency = cloud
            .template
            .functions
            .iter()
            .map(|function| (function.logical_id.clone(), Arc::new(concurrency_of(function))))
            .collect();
        cloud.start_mappings(&options, &concurrency);
        cloud.start_schedules(&options, &concurrency);
        Ok(cloud)
    }

    fn start_processes(&mut self, options: &LocalCloudOptions) {
        for function in &self.template.functions {
            let Some(FunctionSource::Executable(executable)) = options.functions.get(&function.logical_id) else {
                continue;
            };
            let Some(queue) = self.runtime.queue(&function.name) else {
                continue;
            };
            let process = ProcessOptions {
                executable: executable.clone(),
                environment: environment_of(function, executable, &self.endpoints, options),
                runtime_url: self.endpoints.runtime_url.clone(),
                init_timeout: options.init_timeout,
                init_attempts_max: options.init_attempts_max.max(1),
                on_log: options.on_log.clone(),
                count_max: options.environments_per_function_max.max(1),
            };
            let count =
                concurrent_batches(&self.template, function).clamp(1, options.environments_per_function_max.max(1));
            process::start(&mut self.processes, queue, process, count, &self.stop.subscribe());
        }
    }

    fn start_mappings(&mut self, options: &LocalCloudOptions, concurrency: &BTreeMap<String, Arc<Semaphore>>) {
        let mapping_options = MappingOptions {
            fanout_latency: options.fanout_latency,
            retry_backoff_initial: options.retry_backoff_initial,
            retry_backoff_max: options.retry_backoff_max,
            subscription_lifetime: options.subscription_lifetime,
            failed_batches: options
                .failed_batches
                .as_ref()
                .map(|directory| Arc::new(FailureDestinationWriter::new(directory))),
            faults: options.faults.clone(),
        };
        for config in &self.template.mappings {
            if options.functions.get(&config.function) == Some(&FunctionSource::Skip) {
                continue;
            }
            let function = self.template.function(&config.function);
            let Some(queue) = function.and_then(|function| self.runtime.queue(&function.name)) else {
                continue;
            };
            let Some(concurrency) = concurrency.get(&config.function) else {
                continue;
            };
            if config.failure_destination.is_some() && options.failed_batches.is_none() {
                tracing::warn!(
                    mapping = config.name,
                    "the failure destination has no directory; what is given up is counted and not kept"
                );
            }
            let mapping = Mapping::new(
                config.clone(),
                Arc::clone(queue),
                Arc::clone(self.kinesis.state()),
                Arc::clone(concurrency),
                &mapping_options,
            );
            let mapping = Arc::new(mapping);
            mapping.start(&mut self.readers);
            self.mappings.push(mapping);
        }
    }

    fn start_schedules(&mut self, options: &LocalCloudOptions, concurrency: &BTreeMap<String, Arc<Semaphore>>) {
        for config in &self.template.schedules {
            if options.functions.get(&config.function) == Some(&FunctionSource::Skip) {
                continue;
            }
            let function = self.template.function(&config.function);
            let Some(queue) = function.and_then(|function| self.runtime.queue(&function.name)) else {
                continue;
            };
            let Some(concurrency) = concurrency.get(&config.function) else {
                continue;
            };
            let scheduled = Arc::new(ScheduledFunction::new(
                config.clone(),
                self.template.region.clone(),
                Arc::clone(queue),
                Arc::clone(concurrency),
                options.retry_backoff_initial,
            ));
            if options.clock.is_wall() {
                self.readers.spawn(Arc::clone(&scheduled).run_by_the_wall_clock());
            }
            self.schedules.push(scheduled);
        }
    }

    /// Runs every schedule once, with an event of this time in milliseconds since the Unix epoch, and waits for the functions.
    /// Under [`Clock::Data`] nothing else runs them: whoever sends the data knows which time it is.
    ///
    /// # Errors
    /// [`LocalError::Schedule`] for the first whose last retry failed; the others have run all the same.
    pub async fn run_schedules(&self, at_ms: i64) -> Result<(), LocalError> {
        let runs = self.schedules.iter().map(|schedule| async move {
            schedule.run(at_ms).await.map_err(|source| LocalError::Schedule {
                name: schedule.config.name.clone(),
                source,
            })
        });
        let ran: Vec<Result<(), LocalError>> = futures::future::join_all(runs).await;
        ran.into_iter().collect()
    }

    /// Where the servers listen.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The template that runs.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Waits until every mapping has consumed all that is in its stream and nothing is in flight, through all stages.
    /// Records that were given up are counted in [`Progress`], not an error here.
    ///
    /// # Errors
    /// [`LocalError::Function`] when a function cannot start, [`LocalError::Stuck`] when a mapping keeps failing on the same
    /// records.
    pub async fn drained(&self) -> Result<(), LocalError> {
        let mut activity = self.kinesis.state().activity.subscribe();
        let until_drained = async {
            loop {
                activity.borrow_and_update();
                let stuck: Vec<_> = self
                    .mappings
                    .iter()
                    .flat_map(|mapping| mapping.stuck(self.stuck_after_failures))
                    .collect();
                if !stuck.is_empty() {
                    return Err(LocalError::Stuck(stuck));
                }
                let drained = self.mappings.iter().all(|mapping| mapping.is_drained());
                // A stage may have put records for another while this looked at them one after the other.
                let moved = activity.has_changed().unwrap_or(false);
                if drained && !moved {
                    return Ok(());
                }
                if !moved && activity.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            biased;
            error = self.failed() => Err(error),
            done = until_drained => done,
        }
    }

    /// Waits until a function cannot go on, for callers that run until interrupted.
    pub async fn failed(&self) -> LocalError {
        let mut waits: FuturesUnordered<_> = self
            .runtime
            .queues()
            .map(|queue| async move {
                let mut failure = queue.failure();
                let found = failure
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|failure| failure.clone());
                match found {
                    Some(failure) => failure,
                    None => std::future::pending().await,
                }
            })
            .collect();
        match waits.next().await {
            Some(failure) => failure.into(),
            // No functions at all.
            None => std::future::pending().await,
        }
    }

    /// What happened so far; cheap enough for a progress bar.
    pub fn progress(&self) -> Progress {
        let streams = self
            .kinesis
            .records_put()
            .into_iter()
            .map(|(name, by_shard)| {
                (
                    name,
                    StreamProgress {
                        records_put: by_shard.values().sum(),
                        records_put_by_shard: by_shard,
                    },
                )
            })
            .collect();
        Progress {
            streams,
            mappings: self.mappings.iter().map(|mapping| mapping.progress()).collect(),
            schedules: self.schedules.iter().map(|schedule| schedule.progress()).collect(),
        }
    }

    /// Latency of each mapping so far.
    pub fn latencies(&self) -> Vec<StageLatency> {
        self.mappings
            .iter()
            .map(|mapping| StageLatency {
                mapping: mapping.config.name.clone(),
                function: mapping.config.function.clone(),
                stream: mapping.config.stream.clone(),
                put_to_done_us: mapping.put_to_done_us(),
            })
            .collect()
    }

    /// Splits a shard of the stream or merges two, chosen by `random`, through the emulator's own Kinesis API, while the
    /// stream is written and read. Keeps the open shards between 1 and twice as many as the template has, or 2 for a stream
    /// that is not the template's. `false` when nothing could be done within those bounds.
    ///
    /// # Errors
    /// [`LocalError::StreamUnknown`], or [`LocalError::Reshard`] when the emulator refuses the change.
    pub async fn reshard(&self, stream: &str, random: u64) -> Result<bool, LocalError> {
        let of_template = self.template.streams.iter().find(|known| known.name == stream);
        let initial = of_template.map_or(1, |known| known.shard_count.max(1) as usize);
        self.kinesis
            .reshard(stream, 1, initial * RESHARD_GROWTH_MAX, random)
            .await
    }

    /// Every record that the stream still holds: shard by shard, each in order.
    ///
    /// # Errors
    /// When there is no such stream.
    pub async fn read_all(&self, stream: &str) -> Result<Vec<StreamRecord>, LocalError> {
        self.kinesis.read_all(stream).await
    }

    /// When a record was put; `None` when it is unknown or forgotten
    /// ([`LocalCloudOptions::put_times_per_shard_max`]).
    pub fn put_instant(&self, stream: &str, shard_id: &str, sequence_number: &str) -> Option<Instant> {
        self.kinesis.put_instant(stream, shard_id, sequence_number)
    }

    /// The last lines that a function wrote, by its logical id: standard error, or standard output when there are none.
    pub fn log_tail(&self, logical_id: &str) -> Vec<String> {
        let function = self.template.function(logical_id);
        let queue = function.and_then(|function| self.runtime.queue(&function.name));
        queue.map(|queue| queue.log_tail()).unwrap_or_default()
    }

    /// Whether this invocation of the function, by its logical id, is known to have failed: whatever it has said of records
    /// is not counted, because they come again.
    pub fn has_failed(&self, logical_id: &str, request_id: &str) -> bool {
        let function = self.template.function(logical_id);
        let queue = function.and_then(|function| self.runtime.queue(&function.name));
        queue.is_some_and(|queue| queue.has_failed(request_id))
    }

    /// Stops the mappings, kills the functions, waits for them, closes the servers.
    pub async fn shutdown(mut self) {
        self.readers.shutdown().await;
        self.stop.send_replace(true);
        while self.processes.join_next().await.is_some() {}
        self.runtime.close();
        self.kinesis.close().await;
        self.dynamodb.close().await;
    }
}

/// Every function has a source, and every source a function.
fn check_functions(options: &LocalCloudOptions) -> Result<(), LocalError> {
    let template = &options.template;
    for function in &template.functions {
        if !options.functions.contains_key(&function.logical_id) {
            return Err(LocalError::FunctionMissing {
                logical_id: function.logical_id.clone(),
                function_name: function.name.clone(),
            });
        }
    }
    for logical_id in options.functions.keys() {
        if template.function(logical_id).is_none() {
            let known: Vec<_> = template
                .functions
                .iter()
                .map(|function| function.logical_id.as_str())
                .collect();
            return Err(LocalError::FunctionUnknown {
                logical_id: logical_id.clone(),
                known: known.join(", "),
            });
        }
    }
    Ok(())
}

/// As many processes as batches may be in flight at once.
fn concurrent_batches(template: &Template, function: &Function) -> usize {
    let shards = template
        .mappings
        .iter()
        .filter(|mapping| mapping.function == function.logical_id)
        .filter_map(|mapping| {
            let stream = template.streams.iter().find(|stream| stream.name == mapping.stream)?;
            Some(stream.shard_count as usize * mapping.parallelization_factor.max(1) as usize)
        });
    shards.sum()
}

/// How many invocations a function may have at once: its reserved concurrency, or as many as there is work for.
fn concurrency_of(function: &Function) -> Semaphore {
    let reserved = function
        .reserved_concurrency
        .and_then(|reserved| usize::try_from(reserved).ok());
    Semaphore::new(reserved.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS))
}

/// A function's environment: the template's variables, what Lambda sets, where the emulators are, and the caller's own.
fn environment_of(
    function: &Function,
    executable: &Path,
    endpoints: &Endpoints,
    options: &LocalCloudOptions,
) -> BTreeMap<String, String> {
    let task_root = executable.parent().unwrap_or(Path::new(".")).display().to_string();
    let region = &options.template.region;
    let lambda = [
        ("AWS_LAMBDA_FUNCTION_NAME", function.name.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("_HANDLER", function.handler.clone()),
        ("LAMBDA_TASK_ROOT", task_root),
        ("TZ", ":UTC".to_owned()),
        ("AWS_REGION", region.clone()),
        ("AWS_DEFAULT_REGION", region.clone()),
        // Credentials that open nothing, and no other place to look for some.
        ("AWS_ACCESS_KEY_ID", "local".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ("AWS_ENDPOINT_URL_KINESIS", endpoints.kinesis_url.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoints.dynamodb_url.clone()),
    ];
    let mut environment = function.environment.clone();
    environment
        .entry("AWS_LAMBDA_LOG_GROUP_NAME".to_owned())
        .or_insert_with(|| format!("/aws/lambda/{}", function.name));
    environment.extend(lambda.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(options.environment.clone());
    environment.extend(
        options
            .function_environment
            .get(&function.logical_id)
            .cloned()
            .unwrap_or_default(),
    );
    environment
}
