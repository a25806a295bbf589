//! `usher`: the command line.
//!
//! Results go to standard output, progress and errors to standard error. Exit codes: 0 all is well, 1 something is wrong
//! with the input or missing in the result, 2 the command itself was not understood.

mod args;
mod arrival_clock;
mod check;
mod decision_log;
mod environment;
mod evaluate;
mod events_file;
mod explain;
mod export;
mod find_user;
mod fold;
mod gzip;
mod import;
mod journey_file;
mod local;
mod models;
mod patience;
mod people;
mod profile_text;
mod profiles_file;
mod progress;
mod project;
mod put_again;
mod record;
mod redrive;
mod rejected;
mod replay;
mod report;
mod schema;
mod send;
mod sender;
mod simulate;
mod soak;
mod trends;
mod triggers_file;
mod users;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Check(options) => check::run(&options),
        Command::Schema(_) => schema::run(),
        Command::Replay(options) => replay::run(&options),
        Command::Local(options) => in_runtime(local::run(options)),
        Command::Soak(options) => in_runtime(soak::run(options)),
        Command::Simulate(options) => in_runtime(simulate::run(options)),
        Command::Send(options) => in_runtime(send::run(options)),
        Command::Import(options) => in_runtime(import::run(options)),
        Command::Users(options) => in_runtime(users::run(options)),
        Command::Models(options) => in_runtime(models::run(options)),
        Command::Explain(options) => in_runtime(explain::run(options)),
        Command::Export(options) => in_runtime(export::run(options)),
        Command::Evaluate(options) => evaluate::run(&options),
        Command::Report(options) => in_runtime(report::run(options)),
        Command::Trends(options) => in_runtime(trends::run(options)),
        Command::Rejected(options) => in_runtime(rejected::run(options)),
        Command::Redrive(options) => in_runtime(redrive::run(options)),
    };
    match done {
        Ok(Verdict::AllWell) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", people::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// What is logged of the local cloud's inside, unless RUST_LOG says otherwise.
const LOG_FILTER_DEFAULT: &str = "error";

/// Runs a command that waits for the network.
fn in_runtime(command: impl Future<Output = Result<Verdict>>) -> Result<Verdict> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_FILTER_DEFAULT));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the threads that the command runs on")?;
    let done = runtime.block_on(command);
    // A thread that waits for standard input would hold the process.
    runtime.shutdown_background();
    done
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit code 0.
    AllWell,
    /// Exit code 1; the command has said what is wrong.
    Wrong,
}
