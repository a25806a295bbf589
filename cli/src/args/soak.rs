//! `usher soak`.

use std::path::PathBuf;

use clap::Args;
use usher_local::FaultSpec;

use super::local::{fault_spec, faults_help};

/// Events of a run where nothing else is said: enough for dozens of batches, few enough for seconds.
const EVENTS_PER_RUN_DEFAULT: u32 = 2_000;
/// Runs where neither a number nor a time is given.
pub const RUNS_DEFAULT: u32 = 10;

/// Prove that nothing is lost and nothing happens twice, whatever goes wrong: many short runs with faults
///
/// Each run starts the whole local cloud with the real functions, sends a slice of the events through it while everything
/// that --faults names goes wrong, and waits until it is drained. Then it compares with a plain fold of the same events in
/// order (as `usher replay` does it): the profiles must be equal byte for byte, the triggers on the stream must be the same,
/// the decision log must hold each once and delivered, and nothing may be rejected or given up that is not to be.
///
/// A kind of fault that never strikes, although its rate makes that all but impossible, is a failure too.
///
/// A run's seed decides its events, how wide its streams are, how large its batches are, and what goes wrong when. How real
/// processes are scheduled is not in its hands, so the same seed gives nearly the same run.
#[derive(Debug, Args)]
#[command(after_help = soak_help())]
pub struct SoakOptions {
    /// The events to take slices of; without it, data/oulad/events.jsonl.gz beside the template
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Events in a run
    #[arg(long, value_name = "N", default_value_t = EVENTS_PER_RUN_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub events_per_run: u32,
    /// End after so many runs; 10 unless --minutes is given
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// Begin no run after so many minutes
    #[arg(long, value_name = "M", value_parser = minutes)]
    pub minutes: Option<f64>,
    /// Fail unless at least so many runs ended in the time that --minutes gives
    #[arg(long, value_name = "N", requires = "minutes", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs_min: Option<u32>,
    /// The seed of the first run; each further one has the next. Without it, one is drawn and told
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// What goes wrong: `all`, or kinds with a rate each (see below)
    #[arg(long, value_name = "SPEC", default_value = "all", value_parser = fault_spec)]
    pub faults: FaultSpec,
    /// Where the events and profiles of a run with a difference go, in a folder by its seed
    #[arg(long, value_name = "DIR", default_value = "usher-soak")]
    pub output: PathBuf,
    /// Instead: so many users whose timers are due within one minute, by the wall clock and without faults. Each must fire once,
    /// woken by timer-sweeper, while wake-ups come early, forged and repeated. Takes some three minutes
    #[arg(long, value_name = "USERS", conflicts_with_all = ["events", "runs", "minutes", "seed", "faults", "journey"],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub timers: Option<u32>,
    /// The SAM template; without it, template.yaml in this folder or one above
    #[arg(long, value_name = "template.yaml")]
    pub template: Option<PathBuf>,
    /// The journey; without it, journey/journey.yaml beside the template
    #[arg(long, value_name = "JOURNEY.yaml")]
    pub journey: Option<PathBuf>,
    /// Build the functions with cargo's release profile, which takes minutes
    #[arg(long)]
    pub release: bool,
    /// Take the function programs from this folder and build nothing
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    pub bin_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  usher soak
  usher soak --runs 50 --seed 1
  usher soak --minutes 2 --faults all:2%
  usher soak --runs 1 --seed 17 --faults kill:20%,reshard
  usher soak --timers 100000
";

const EXIT_CODES: &str = "Exit codes: 0 no run differed, 1 one did, a kind never struck or something went wrong, 2 the command was not understood";

fn soak_help() -> String {
    format!("{EXAMPLES}\n{}\n{EXIT_CODES}", faults_help())
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes.is_finite() && minutes > 0.0 => Ok(minutes),
        _ => Err("write a number of minutes above 0, such as 2 or 0.5".to_owned()),
    }
}
