//! Runs of the pipeline under faults, from seeds, and the table of what was survived.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use usher_tests::fault_runs::survived::Survived;
use usher_tests::fault_runs::{every_call, random, run_all};

/// Failures that are printed at most.
const FAILURES_SHOWN_MAX: usize = 10;
/// In so many runs every call is met by every fault that it can meet; if not, the faults are at fault, and the runs prove less
/// than they say.
const RUNS_THAT_MEET_ALL: u64 = 10_000;

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
    /// How often to make it.
    #[arg(long, requires = "seed", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,
    /// Lets each call of one fixed run fail in each way instead.
    #[arg(long, conflicts_with_all = ["runs", "first_seed", "seed"])]
    every_call: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let ended = if arguments.every_call {
        run_every_call()
    } else {
        let seeds: Vec<u64> = match arguments.seed {
            Some(seed) => vec![seed; arguments.times as usize],
            None => (arguments.first_seed..).take(arguments.runs as usize).collect(),
        };
        eprintln!("seeds {} to {}", seeds[0], seeds[seeds.len() - 1]);
        run_all(&seeds, random::run, |seed| random::command(*seed))
    };
    eprintln!("{:.1} s", started.elapsed().as_secs_f64());
    match ended {
        Ok(survived) => {
            println!("{survived}");
            let missing = survived.missing();
            if survived.runs < RUNS_THAT_MEET_ALL || missing.is_empty() {
                return ExitCode::SUCCESS;
            }
            eprintln!("never met: {}", missing.join(", "));
            ExitCode::FAILURE
        }
        Err(failures) => {
            for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
                eprintln!("{failure}\n");
            }
            eprintln!("{} runs failed", failures.len());
            ExitCode::FAILURE
        }
    }
}

fn run_every_call() -> Result<Survived, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| vec![error.to_string()])?;
    let calls = runtime.block_on(every_call::calls_without_faults());
    let calls = calls.map_err(|why| vec![format!("without faults: {why}")])?;
    let name = |one: &every_call::OneRun| format!("`every_call::run` with {one:?}");
    run_all(&every_call::all_runs(&calls), every_call::run, name)
}
