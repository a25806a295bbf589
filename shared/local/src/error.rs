//! Every way in which the local cloud can fail its caller.

use std::io;
use std::path::PathBuf;

use crate::event_source_mapping::StuckMapping;
use crate::function_queue::{FunctionFailure, InvocationError};
use crate::template::TemplateProblems;

/// Why the local cloud could not start, or could not go on. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The template file could not be read.
    #[error("cannot read the template {path}; give the path of a SAM or CloudFormation YAML file", path = path.display())]
    ReadTemplate {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The template cannot be run as it is; every problem is listed.
    #[error(transparent)]
    Template(#[from] TemplateProblems),
    /// A server could not listen.
    #[error("cannot listen on port {port} for {service}; choose another port, or 0 for a free one")]
    Listen {
        /// Which of the three servers.
        service: &'static str,
        /// The port asked for.
        port: u16,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The embedded Kinesis refused to make a stream or a consumer of the template.
    #[error("the embedded Kinesis refused {operation} for {resource}: {message}; correct the resource in the template")]
    Kinesis {
        /// The Kinesis API call.
        operation: &'static str,
        /// The stream or consumer.
        resource: String,
        /// What it answered.
        message: String,
    },
    /// The embedded DynamoDB refused a table of the template.
    #[error(
        "the embedded DynamoDB refused {operation} for {resource}: {message}; correct the resource in the template"
    )]
    DynamoDb {
        /// The DynamoDB API call.
        operation: &'static str,
        /// The table.
        resource: String,
        /// What it answered.
        message: String,
    },
    /// A scheduled invocation failed, and so did its retries.
    #[error("the schedule {name} could not run its function; see what the function says")]
    Schedule {
        /// `FUNCTION/EVENT` as the template names them.
        name: String,
        /// How the last one failed.
        #[source]
        source: InvocationError,
    },
    /// The embedded DynamoDB's thread could not start, or ended early.
    #[error("the embedded DynamoDB did not start: {message}")]
    DynamoDbThread {
        /// What went wrong.
        message: String,
    },
    /// No source was given for a function that the template maps to a stream.
    #[error(
        "no program for the function {logical_id} ({function_name}); build it and give its path, or start it yourself and mark it external"
    )]
    FunctionMissing {
        /// Logical id in the template.
        logical_id: String,
        /// Name of the function.
        function_name: String,
    },
    /// A source was given for a function that the template does not have.
    #[error("the template has no function {logical_id}; it has: {known}")]
    FunctionUnknown {
        /// What was asked for.
        logical_id: String,
        /// What there is.
        known: String,
    },
    /// A function cannot run: its process fails while it starts.
    #[error(transparent)]
    Function(#[from] FunctionFailure),
    /// At least one mapping makes no progress, so the streams will not drain.
    #[error("{}", display_stuck(.0))]
    Stuck(Vec<StuckMapping>),
    /// The embedded Kinesis refused to split or merge shards.
    #[error(
        "the embedded Kinesis refused {operation} for {stream}: {message}; try again when nothing else changes the stream"
    )]
    Reshard {
        /// The Kinesis API call.
        operation: &'static str,
        /// The stream.
        stream: String,
        /// What it answered.
        message: String,
    },
    /// There is no such stream.
    #[error("there is no stream {stream}; create it, or name one of the template's")]
    StreamUnknown {
        /// What was asked for.
        stream: String,
    },
}

fn display_stuck(mappings: &[StuckMapping]) -> String {
    let mut text = String::from("the streams do not drain, because a function keeps failing on the same records:");
    for mapping in mappings {
        text.push_str("\n  ");
        text.push_str(&mapping.to_string());
    }
    text
}
