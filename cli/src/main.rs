//! `usher`: the command line.
//!
//! Results go to standard output, progress and errors to standard error. Exit codes: 0 all is well, 1 something is wrong
//! with the input or missing in the result, 2 the command itself was not understood.

mod args;
mod arrival_clock;
mod check;
mod events_file;
mod fold;
mod journey_file;
mod people;
mod profiles_file;
mod progress;
mod replay;
mod triggers_file;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Check(options) => check::run(&options),
        Command::Replay(options) => replay::run(&options),
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

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit code 0.
    AllWell,
    /// Exit code 1; the command has said what is wrong.
    Wrong,
}
