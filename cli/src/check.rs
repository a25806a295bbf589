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
            summary.contains("steps.b.when: event.content_id.contains(\"y\")"),
            "{summary}"
        );
        assert!(!summary.contains("steps.a"), "{summary}");
    }

    #[test]
    fn p10_hostile_files_are_refused_with_a_clear_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let long = "a".repeat(2 << 20);
        let deep = "[".repeat(100_000);
        let many = format!("{{{}}}", "a: 1, ".repeat(100_000));
        for (bytes, expected) in [
            (&b""[..], "error"),
            (b"\0", "error"),
            (b"\xff\xfe", "cannot read the journey"),
            (b"\x1f\x8b\x08", "cannot read the journey"),
            (b"- - - -", "error"),
            (b"*a", "error"),
            (long.as_bytes(), "at most 1048576 are read"),
            (deep.as_bytes(), "recursion limit"),
            (many.as_bytes(), "error"),
        ] {
            let journey = folder.path().join("journey.yaml");
            std::fs::write(&journey, bytes).expect("it can be written");
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
            let error = journey_file::load(&journey).expect_err(&shown);
            let said = format!("{error:#}");
            assert!(
                said.contains(expected) && said.contains("journey.yaml"),
                "{shown}: {said}"
            );
            assert!(said.len() < 100_000, "{shown}: {} bytes", said.len());
            // `check` says the same, and whether it could be read.
            let checked = run(&CheckOptions { journey });
            assert!(!matches!(checked, Ok(Verdict::AllWell)), "{shown}");
        }
    }
}
