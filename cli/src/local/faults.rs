//! What goes wrong on purpose in a run, and how to let it go wrong again.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use usher_local::{FaultKind, FaultSpec, Faults, LocalCloud};

use super::resources::Resources;
use crate::environment;
use crate::people::{grouped, table};

/// Time between two looks at whether a stream is to be resharded.
const RESHARD_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A seed that nobody gave is drawn from this many, so that it is easily typed.
const SEEDS: u64 = 1_000_000_000;
/// The option that repeats a run.
const SEED_OPTION: &str = "--seed";
/// What a shell takes as it is.
const PLAIN_CHARACTERS: &str = "_-./:=,%@+";

/// The faults of a run.
#[derive(Debug, Clone)]
pub struct PlannedFaults {
    /// As it was written.
    pub spec: FaultSpec,
    /// What decides.
    pub seed: u64,
    /// What strikes.
    pub faults: Faults,
}

impl PlannedFaults {
    /// By this seed, or by one that is drawn.
    pub fn new(spec: FaultSpec, seed: Option<u64>) -> PlannedFaults {
        let seed = seed.unwrap_or_else(random_seed);
        PlannedFaults {
            faults: spec.seeded(seed),
            spec,
            seed,
        }
    }

    /// What is told before the run and after its failure.
    pub fn notice(&self) -> String {
        format!(
            "faults: {}, seed {}; the same again:\n  {}",
            self.spec,
            self.seed,
            repeating(&environment::arguments(), self.seed)
        )
    }
}

/// A seed that is easily typed.
pub fn random_seed() -> u64 {
    fastrand::u64(0..SEEDS)
}

/// How often each kind struck, with what it does.
pub fn faults_table(injected: impl IntoIterator<Item = (FaultKind, u64)>) -> String {
    let rows: Vec<(String, String)> = injected
        .into_iter()
        .map(|(kind, count)| {
            (
                kind.name().to_owned(),
                format!("{:>9}  {}", grouped(count), kind.what()),
            )
        })
        .collect();
    table(&rows)
}

/// The command line with this seed.
fn repeating(arguments: &[String], seed: u64) -> String {
    let mut words: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    let has_seed = arguments
        .iter()
        .any(|argument| argument == SEED_OPTION || argument.starts_with("--seed="));
    if !has_seed {
        words.push(format!("{SEED_OPTION} {seed}"));
    }
    words.join(" ")
}

/// A word as a POSIX shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || PLAIN_CHARACTERS.contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Reshards the streams whenever the faults say so, without end.
///
/// # Errors
/// When a stream can't be resharded.
pub async fn reshard_now_and_then(cloud: &LocalCloud, resources: &Resources, faults: &Faults) -> Result<Infallible> {
    if !faults.may_strike(FaultKind::Reshard) {
        return std::future::pending().await;
    }
    let mut look = tokio::time::interval(RESHARD_LOOK_INTERVAL);
    loop {
        look.tick().await;
        for stream in [&resources.interactions, &resources.triggers] {
            if let Some(random) = faults.strike(FaultKind::Reshard, stream) {
                let is_done = cloud.reshard(stream, random).await?;
                if !is_done {
                    faults.withdraw(FaultKind::Reshard);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_by_its_own_command_line_and_its_seed() {
        for (arguments, expected) in [
            (
                &["usher", "local", "--faults", "all:2%"][..],
                "usher local --faults all:2% --seed 7",
            ),
            (&["usher", "--seed", "7"], "usher --seed 7"),
            (&["usher", "--seed=7"], "usher --seed=7"),
            (&["usher", "it's", "a b", ""], r"usher 'it'\''s' 'a b' '' --seed 7"),
        ] {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            assert_eq!(repeating(&arguments, 7), expected);
        }
    }

    #[test]
    fn a_seed_that_was_drawn_decides_as_if_it_had_been_given() {
        let spec: FaultSpec = "all".parse().expect("it is fine");
        let drawn = PlannedFaults::new(spec.clone(), None);
        assert!(drawn.seed < SEEDS);
        let given = PlannedFaults::new(spec, Some(drawn.seed));
        let strikes = |planned: &PlannedFaults| -> Vec<_> {
            (0..100).map(|_| planned.faults.strike(FaultKind::Kill, "f")).collect()
        };
        assert_eq!(strikes(&drawn), strikes(&given));
    }
}
