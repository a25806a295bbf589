//! `usher check`: is this journey fine?

use anyhow::Result;
use usher_domain::journey::Journey;

use crate::Verdict;
use crate::args::CheckOptions;
use crate::journey_file;
use crate::people::{counted, say};

/// Runs the command.
///
/// # Errors
/// When the file can't be read.
pub fn run(options: &CheckOptions) -> Result<Verdict> {
    let text = journey_file::read_text(&options.journey)?;
    match Journey::parse(&text) {
        Ok(journey) => {
            say(&format!("{}: {}", options.journey.display(), summary(&journey)))?;
            Ok(Verdict::AllWell)
        }
        Err(diagnostics) => {
            say(&format!(
                "{}\n",
                journey_file::rendered(&diagnostics, &options.journey, &text)
            ))?;
            Ok(Verdict::Wrong)
        }
    }
}

fn summary(journey: &Journey) -> String {
    let mut text = format!(
        "the journey `{}` is fine (version {})\n  {}, {}, {}, {}\n",
        journey.name,
        journey.version,
        counted(journey.steps.len(), "step"),
        counted(journey.features.len(), "feature"),
        counted(journey.rules.len(), "rule"),
        counted(journey.contents.len(), "content"),
    );
    let interpreted = journey.interpreted_conditions();
    if interpreted.is_empty() {
        text.push_str("  every condition is compiled\n");
    } else {
        text.push_str(
            "  these conditions run in the interpreter, which takes microseconds instead of a fraction of one:\n",
        );
        for (place, condition) in interpreted {
            text.push_str(&format!("    {place}: {condition}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_conditions_that_run_in_the_interpreter() {
        let journey = "journey: j\nsteps:\n  - { id: a, when: event.type == \"x\" }\n  - { id: b, when: event.content_id.contains(\"y\") }\n";
        let summary = summary(&Journey::parse(journey).expect("it is fine"));
        assert!(
            summary.contains("2 steps, 0 features, 0 rules, 0 contents"),
            "{summary}"
        );
        assert!(
            summary.contains("steps.b: event.content_id.contains(\"y\")"),
            "{summary}"
        );
        assert!(!summary.contains("steps.a"), "{summary}");
    }
}
