//! Runs of the pipeline under faults, from seeds, and the table of what was survived.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use usher_tests::fault_runs::{random, run_all};

/// Failures that are printed at most.
const FAILURES_SHOWN_MAX: usize = 10;

/// Runs both functions over in-memory ports under faults from seeds, and compares each run with one serial fold.
#[derive(Parser)]
struct Arguments {
    /// How many runs to make.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// The seed of the first run; each further run has the next one.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Makes the run with this seed alone.
    #[arg(long, conflicts_with_all = ["runs", "first_seed"])]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds: Vec<u64> = match arguments.seed {
        Some(seed) => vec![seed],
        None => (arguments.first_seed..).take(arguments.runs as usize).collect(),
    };
    let started = Instant::now();
    match run_all(&seeds, random::run, |seed| random::command(*seed)) {
        Ok(survived) => {
            println!("{survived}");
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("seeds {} to {}, in {seconds:.1} s", seeds[0], seeds[seeds.len() - 1]);
            ExitCode::SUCCESS
        }
        Err(failures) => {
            for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
                eprintln!("{failure}\n");
            }
            eprintln!("{} of {} runs failed", failures.len(), seeds.len());
            ExitCode::FAILURE
        }
    }
}
