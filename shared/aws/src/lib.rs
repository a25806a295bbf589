//! What Usher's flows need from the outside, made of AWS: the adapters behind the ports of `usher-pipeline`.
//!
//! - [`config`]: every setting of every function, read once and checked together.
//! - [`clients`]: the SDK's clients, made once at a cold start.
//! - [`dynamodb`] and [`kinesis`]: the tables and streams. Each method is one call; retrying is the flows' work.
//! - [`stream_reader`], [`queue`] and [`bucket`]: what an operator's command reads; no function does.
//! - [`webhook`]: where decisions go.
//! - [`journey_source`]: where the journey is that a function runs.
//! - [`runtime`]: what a function's `main` needs around its flow: logs, the clock, the Lambda runtime.

pub mod bucket;
pub mod clients;
pub mod config;
pub mod dynamodb;
pub mod journey_source;
pub mod kinesis;
pub mod queue;
pub mod runtime;
mod sdk_error;
pub mod signed_http;
pub mod stream_reader;
#[cfg(test)]
mod test_server;
pub mod webhook;
