//! Whether what was to go wrong did: a soak in which a kind never struck has proved nothing about it.

use std::collections::BTreeMap;

use usher_local::FaultKind;

/// Fewer runs say nothing about a kind that had no opportunity.
const RUNS_MIN: u64 = 5;
/// A kind that was to strike so many times and never did is broken: by chance that happens once in 20,000 soaks.
const STRIKES_EXPECTED_MIN: f64 = 10.0;

/// How often each kind struck in all runs, and was to.
#[derive(Debug, Default)]
pub struct Coverage {
    kinds: BTreeMap<FaultKind, OfKind>,
}

#[derive(Debug, Default)]
struct OfKind {
    struck: u64,
    /// Nothing while it had no opportunity.
    expected: Option<f64>,
}

impl Coverage {
    /// Adds a run.
    pub fn add(&mut self, struck: &BTreeMap<FaultKind, u64>, expected: &BTreeMap<FaultKind, Option<f64>>) {
        for (kind, count) in struck {
            self.kinds.entry(*kind).or_default().struck += count;
        }
        for (kind, more) in expected {
            let of_kind = self.kinds.entry(*kind).or_default();
            if let Some(more) = more {
                of_kind.expected = Some(of_kind.expected.unwrap_or(0.0) + more);
            }
        }
    }

    /// A line for each kind that was to strike and never did, after so many runs.
    pub fn problems(&self, runs: u64) -> Vec<String> {
        if runs < RUNS_MIN {
            return Vec::new();
        }
        let missing = |(kind, of_kind): (&FaultKind, &OfKind)| match of_kind.expected {
            _ if of_kind.struck > 0 => None,
            None => Some(format!("{kind} never struck: it had no opportunity in {runs} runs")),
            Some(expected) if expected >= STRIKES_EXPECTED_MIN => Some(format!(
                "{kind} never struck in {runs} runs, and by its rate it was to about {expected:.0} times"
            )),
            Some(_) => None,
        };
        self.kinds.iter().filter_map(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_never_struck_is_told_once_chance_does_not_explain_it() {
        // (strikes a run, expected a run, runs, whether it is told)
        for (struck, expected, runs, is_told) in [
            (1, Some(4.0), 5, false),
            (0, Some(4.0), 4, false),
            (0, Some(4.0), 5, true),
            (0, Some(0.5), 5, false),
            (0, Some(0.5), 20, true),
            (0, None, 4, false),
            (0, None, 5, true),
        ] {
            let mut coverage = Coverage::default();
            for _ in 0..runs {
                coverage.add(
                    &BTreeMap::from([(FaultKind::Kill, struck)]),
                    &BTreeMap::from([(FaultKind::Kill, expected)]),
                );
            }
            let problems = coverage.problems(runs);
            assert_eq!(
                problems.len(),
                usize::from(is_told),
                "{struck} {expected:?} {runs}: {problems:?}"
            );
            assert!(problems.iter().all(|problem| problem.starts_with("kill never struck")));
        }
    }
}
