//! `usher soak`: many short runs with faults, each compared with what must have come of it.

mod coverage;
mod oracle;
mod run;
mod slice;
mod timers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;
use usher_local::{FaultKind, Template, TemplateOptions};

use crate::Verdict;
use crate::args::{RUNS_DEFAULT, SoakOptions};
use crate::events_file::EventsFile;
use crate::local::faults::{faults_table, quoted, random_seed};
use crate::local::functions::{self, Programs};
use crate::people::{counted, error_chain, grouped, say, table};
use crate::progress::Progress;
use crate::{environment, journey_file, project};
use coverage::Coverage;
use run::{Outcome, RunError, Setup, write_differences};
use slice::{Events, Plan};

/// The events that come with the project, from the template's folder.
const EVENTS: &str = "data/oulad/events.jsonl.gz";
const SECONDS_PER_MINUTE: f64 = 60.0;
/// A cloud that does not start so many times in a row will not start the next time either.
const NOT_STARTED_IN_A_ROW_MAX: u32 = 2;

/// Runs the command.
///
/// # Errors
/// When something can't be read or built. A run that differs, or that ends with an error, is none: it is told with its seed, and
/// the next one begins.
pub async fn run(options: SoakOptions) -> Result<Verdict> {
    let mut stop = environment::stop_signal()?;
    let template_file = project::find_template(options.template.as_deref())?;
    let template = Template::read(&template_file, &TemplateOptions::default())?;
    let programs = match options.bin_dir.as_deref() {
        Some(folder) => Programs::Folder(folder),
        None => Programs::Build {
            release: options.release,
        },
    };
    let sources = tokio::select! {
        sources = functions::sources(&template, &template_file, programs) => sources?,
        _ = stop.wait_for(|stopped| *stopped) => bail!("interrupted before the functions were built"),
    };
    if let Some(users) = options.timers {
        return timers::run(users, &template_file, &sources, stop).await;
    }
    let journey_file = project::find_journey(options.journey.as_deref(), &template_file)?;
    let journey = journey_file::load(&journey_file)?;
    let events_file = match &options.events {
        Some(path) => path.clone(),
        None => project::folder_of(&template_file).join(EVENTS),
    };
    let events = Events::read(EventsFile::open(&events_file)?)?;
    let setup = Setup {
        template_file: &template_file,
        journey: &journey,
        journey_file: &journey_file,
        sources: &sources,
        faults: &options.faults,
    };
    let soak = Soak {
        first_seed: options.seed.unwrap_or_else(random_seed),
        options: &options,
        events: &events,
        setup,
    };
    soak.run(stop).await
}

struct Soak<'s> {
    options: &'s SoakOptions,
    events: &'s Events,
    setup: Setup<'s>,
    first_seed: u64,
}

/// What all runs came to.
#[derive(Default)]
struct Totals {
    runs: u64,
    events: u64,
    triggers: u64,
    invocations_failed: u64,
    put_again: u64,
    lost: u64,
    twice: u64,
    /// Of the runs without a difference.
    survived: BTreeMap<FaultKind, u64>,
    /// The seeds of the runs with one, and of those that ended with an error.
    different: Vec<u64>,
    /// Whether every kind struck, in all runs.
    coverage: Coverage,
}

impl Totals {
    fn add(&mut self, seed: u64, plan: &Plan, outcome: &Outcome) {
        self.runs += 1;
        self.events += plan.lines.len() as u64;
        self.triggers += outcome.expected.triggers.len() as u64;
        self.invocations_failed += outcome.invocations_failed;
        self.put_again += outcome.put_again;
        self.lost += outcome.differences.lost;
        self.twice += outcome.differences.twice;
        self.coverage.add(&outcome.injected, &outcome.injections_expected);
        if outcome.differences.is_none() {
            for (kind, count) in &outcome.injected {
                *self.survived.entry(*kind).or_default() += count;
            }
        } else {
            self.different.push(seed);
        }
    }

    /// A run of which nobody knows what came.
    fn add_error(&mut self, seed: u64) {
        self.runs += 1;
        self.different.push(seed);
    }
}

impl Soak<'_> {
    async fn run(&self, stop: watch::Receiver<bool>) -> Result<Verdict> {
        say(&format!(
            "faults: {}, first seed {}\n",
            self.options.faults, self.first_seed
        ))?;
        let progress = Progress::spinner("starting");
        let started = Instant::now();
        let mut totals = Totals::default();
        let mut not_started_in_a_row = 0;
        while !self.is_over(totals.runs, started.elapsed()) && !*stop.borrow() {
            let seed = self.first_seed.wrapping_add(totals.runs);
            progress.show(&format!("run {} with seed {seed}", totals.runs + 1));
            let plan = self.events.plan(seed, self.options.events_per_run as usize);
            let text = match self.setup.run(seed, &plan, stop.clone()).await {
                Ok(None) => break,
                Ok(Some(outcome)) => {
                    not_started_in_a_row = 0;
                    totals.add(seed, &plan, &outcome);
                    let mut text = run_text(totals.runs, seed, &plan, &outcome);
                    if !outcome.differences.is_none() {
                        text.push_str(&self.difference_text(seed, &plan, &outcome));
                    }
                    text
                }
                Err(error) => {
                    totals.add_error(seed);
                    let error = match error {
                        RunError::NotStarted(error) => {
                            not_started_in_a_row += 1;
                            error
                        }
                        RunError::NotRead(error) => {
                            not_started_in_a_row = 0;
                            error
                        }
                    };
                    self.error_text(totals.runs, seed, &error)
                }
            };
            progress.aside(|| say(&text))?;
            if not_started_in_a_row >= NOT_STARTED_IN_A_ROW_MAX {
                break;
            }
        }
        progress.clear();
        say(&self.summary(&totals, started.elapsed()))?;
        let problems = self.problems(&totals, not_started_in_a_row);
        for problem in &problems {
            eprintln!("error: {problem}");
        }
        let interrupted = *stop.borrow();
        if interrupted {
            eprintln!("error: interrupted before all runs were done");
        }
        if totals.different.is_empty() && problems.is_empty() && !interrupted {
            return Ok(Verdict::AllWell);
        }
        Ok(Verdict::Wrong)
    }

    fn is_over(&self, runs: u64, elapsed: Duration) -> bool {
        match self.options.minutes {
            Some(minutes) => elapsed.as_secs_f64() >= minutes * SECONDS_PER_MINUTE,
            None => runs >= u64::from(self.options.runs.unwrap_or(RUNS_DEFAULT)),
        }
    }

    /// What is wrong with the soak as a whole, whatever came of its runs.
    fn problems(&self, totals: &Totals, not_started_in_a_row: u32) -> Vec<String> {
        let mut problems = totals.coverage.problems(totals.runs);
        if not_started_in_a_row >= NOT_STARTED_IN_A_ROW_MAX {
            problems.push(format!(
                "the cloud did not start {not_started_in_a_row} times in a row, so no further run was begun"
            ));
        }
        if let Some(runs_min) = self.options.runs_min.map(u64::from)
            && totals.runs < runs_min
        {
            problems.push(format!(
                "{} ended in the time; at least {runs_min} must",
                counted(totals.runs as usize, "run")
            ));
        }
        problems
    }

    fn error_text(&self, number: u64, seed: u64, error: &anyhow::Error) -> String {
        format!(
            "run {number:>3}  seed {seed}: ERROR\n  {}\n  the same again: {}\n",
            error_chain(error),
            self.repeating(seed)
        )
    }

    fn difference_text(&self, seed: u64, plan: &Plan, outcome: &Outcome) -> String {
        let folder = self.options.output.join(format!("seed-{seed}"));
        let kept = match write_differences(&folder, plan, outcome) {
            Ok(()) => format!("events and profiles: {}", folder.display()),
            // What differs is told all the same, and the seed brings it again.
            Err(error) => format!("events and profiles could not be kept; {}", error_chain(&error)),
        };
        let mut text = String::new();
        for difference in &outcome.differences.told {
            text.push_str(&format!("  different: {difference}\n"));
        }
        text.push_str(&format!("  {kept}\n  the same again: {}\n", self.repeating(seed)));
        text
    }

    fn repeating(&self, seed: u64) -> String {
        repeating(self.options, seed)
    }

    fn summary(&self, totals: &Totals, took: Duration) -> String {
        let mut text = format!("\nfaults survived, by kind\n{}", faults_table(totals.survived.clone()));
        let count = |name: &str, number: u64| (name.to_owned(), grouped(number));
        text.push_str("in all\n");
        text.push_str(&table(&[
            count("runs", totals.runs),
            count("events", totals.events),
            count("triggers", totals.triggers),
            count("faults survived", totals.survived.values().sum()),
            count("failed invocations", totals.invocations_failed),
            count("events put again", totals.put_again),
            count("lost", totals.lost),
            count("twice", totals.twice),
            count("runs that differ", totals.different.len() as u64),
            ("seconds".to_owned(), format!("{:.0}", took.as_secs_f64())),
        ]));
        for seed in &totals.different {
            text.push_str(&format!("different: {}\n", self.repeating(*seed)));
        }
        text
    }
}

/// The command line of one run with this seed, as a shell takes it.
fn repeating(options: &SoakOptions, seed: u64) -> String {
    let mut command = format!(
        "usher soak --runs 1 --seed {seed} --faults {} --events-per-run {}",
        quoted(&options.faults.to_string()),
        options.events_per_run
    );
    let paths = [
        ("--events", &options.events),
        ("--template", &options.template),
        ("--journey", &options.journey),
        ("--bin-dir", &options.bin_dir),
    ];
    for (option, path) in paths {
        if let Some(path) = path {
            command.push_str(&format!(" {option} {}", quoted(&path.display().to_string())));
        }
    }
    if options.release {
        command.push_str(" --release");
    }
    command
}

fn run_text(number: u64, seed: u64, plan: &Plan, outcome: &Outcome) -> String {
    let verdict = if outcome.differences.is_none() {
        "ok"
    } else {
        "DIFFERENT"
    };
    format!(
        "run {number:>3}  seed {seed}: {verdict} in {:.1} s; {} ({}), {}, batches of {}, {} at once; {}, {} triggers; {} \
         faults, {} failed\n",
        outcome.took.as_secs_f64(),
        counted(plan.lines.len(), "event"),
        plan.choice,
        counted(plan.shards as usize, "shard"),
        grouped(plan.batch_size as u64),
        plan.parallelization_factor,
        counted(outcome.expected.profiles.len(), "profile"),
        grouped(outcome.expected.triggers.len() as u64),
        grouped(outcome.injected.values().sum()),
        counted(outcome.invocations_failed as usize, "invocation"),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        soak: SoakOptions,
    }

    #[test]
    fn a_run_is_repeated_by_a_command_that_a_shell_takes() {
        for (arguments, expected) in [
            (
                &["soak", "--faults", "kill:20%", "--events-per-run", "5"][..],
                "usher soak --runs 1 --seed 7 --faults kill:20% --events-per-run 5",
            ),
            (
                &[
                    "soak",
                    "--faults",
                    "kill:20%",
                    "--events-per-run",
                    "5",
                    "--release",
                    "--events",
                    "my events.jsonl",
                ],
                "usher soak --runs 1 --seed 7 --faults kill:20% --events-per-run 5 --events 'my events.jsonl' --release",
            ),
            (
                &[
                    "soak",
                    "--faults",
                    "kill:20%",
                    "--events-per-run",
                    "5",
                    "--bin-dir",
                    "it's/here",
                    "--minutes",
                    "2",
                ],
                r"usher soak --runs 1 --seed 7 --faults kill:20% --events-per-run 5 --bin-dir 'it'\''s/here'",
            ),
        ] {
            let command = Command::try_parse_from(arguments).expect("it is understood");
            assert_eq!(repeating(&command.soak, 7), expected);
        }
    }
}
