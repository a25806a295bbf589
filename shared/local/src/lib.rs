//! A local cloud for Kinesis Lambdas.
//!
//! One process holds an embedded Kinesis and an embedded DynamoDB, serves the Lambda Runtime API, starts the real function
//! binaries as child processes and runs the event source mappings of a SAM template the way AWS runs them. It knows nothing
//! of Usher: any Lambda that reads a Kinesis stream can be tested with it.
//!
//! ```no_run
//! # async fn example() -> Result<(), usher_local::LocalError> {
//! use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, Template, TemplateOptions};
//!
//! let template = Template::read("template.yaml", &TemplateOptions::default())?;
//! let mut options = LocalCloudOptions::new(template);
//! options.functions.insert("MyFunction".into(), FunctionSource::executable("target/debug/my-function"));
//! let cloud = LocalCloud::start(options).await?;
//! println!("export AWS_ENDPOINT_URL_KINESIS={}", cloud.endpoints().kinesis_url);
//! // ... put records with any SDK ...
//! cloud.drained().await?;
//! println!("{:#?}", cloud.progress());
//! cloud.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a mapping does
//!
//! What AWS documents: starting positions, batch size and window, the 6 MB payload limit, parallelisation by partition key with
//! one checkpoint a shard, partial batch responses, bisecting, retry and age limits, failure destinations, filters, tumbling
//! windows, parents before children after a reshard, subscriptions that end and are renewed, throttling. README.md has each
//! behaviour with its test and the page it is from, and what is left open there and decided here.
//!
//! # A function that must survive
//!
//! A function that is right must bear what AWS does only now and then. [`LocalCloudOptions::faults`] does it on purpose, from a
//! seed, and [`LocalCloud::reshard`] splits and merges shards under load:
//!
//! ```no_run
//! # async fn example(mut options: usher_local::LocalCloudOptions) -> Result<(), usher_local::LocalError> {
//! use std::collections::BTreeMap;
//! use usher_local::{FaultKind, Faults, LocalCloud};
//!
//! // 20 in 1,000 batches are delivered twice, and as many begin with records of the one before.
//! let rates = BTreeMap::from([(FaultKind::DuplicateDelivery, 20), (FaultKind::OverlappingBatch, 20)]);
//! options.faults = Faults::seeded(rates, 42);
//! options.failed_batches = Some("target/failed-batches".into());
//! let cloud = LocalCloud::start(options).await?;
//! // ... put records ...
//! cloud.reshard("my-stream", 7).await?;
//! cloud.drained().await?;
//! for mapping in cloud.progress().mappings {
//!     assert_eq!(mapping.events.dropped, 0, "{:?}", mapping.last_error);
//! }
//! # Ok(())
//! # }
//! ```

pub mod clock;
pub mod cloud;
pub mod dynamodb;
pub mod error;
pub mod event_source_mapping;
pub mod faults;
pub mod function_queue;
pub mod kinesis;
pub mod process;
pub mod runtime_api;
pub mod schedule;
pub mod template;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use cloud::{Endpoints, FunctionSource, LocalCloud, LocalCloudOptions, Progress, StageLatency, StreamProgress};
pub use error::LocalError;
pub use event_source_mapping::{DroppedRange, EventCounts, MappingProgress};
pub use faults::{FaultKind, FaultSpec, FaultSpecError, Faults};
pub use kinesis::StreamRecord;
pub use process::{LogLine, LogSource};
pub use schedule::ScheduleProgress;
pub use template::{Template, TemplateOptions};

/// Binds a port of 127.0.0.1 and tells its URL.
async fn listen(service: &'static str, port: u16) -> Result<(tokio::net::TcpListener, String), LocalError> {
    let failed = |source| LocalError::Listen { service, port, source };
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, format!("http://{address}")))
}
