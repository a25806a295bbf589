//! `usher check`: is this journey fine?

mod shown;

use std::path::Path;

use anyhow::Result;
use usher_domain::estimate::{ItemEstimate, SlotEstimate, WRITE_UNIT_BYTES, estimated_bytes, estimated_slots};
use usher_domain::journey::{Checked, Finding, Severity};
use usher_wire::event;

use crate::Verdict;
use crate::args::CheckOptions;
use crate::events_file::EventsFile;
use crate::journey_file;
use crate::people::{counted, grouped, say};

/// What was found about a journey that can be read.
struct Report {
    checked: Checked,
    /// Those of the sample and of the item's size too.
    findings: Vec<Finding>,
    estimate: ItemEstimate,
    /// What the slots' learners see and keep.
    slots: Vec<SlotEstimate>,
    /// What the sample had, for people.
    sample: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When a file can't be read.
pub fn run(options: &CheckOptions) -> Result<Verdict> {
    let text = journey_file::read_text(&options.journey)?;
    let checked = match Checked::parse(&text) {
        Ok(checked) => checked,
        Err(diagnostics) => {
            say(&if options.json {
                shown::unreadable_as_json(&diagnostics)
            } else {
                format!("{}\n", journey_file::rendered(&diagnostics, &options.journey, &text))
            })?;
            return Ok(Verdict::Wrong);
        }
    };
    let report = Report::of(checked, options.events.as_deref())?;
    let failing = if options.strict {
        Severity::Warning
    } else {
        Severity::Error
    };
    let is_fine = report.findings.iter().all(|finding| finding.severity > failing);
    say(&if options.json {
        shown::as_json(&report, is_fine)
    } else {
        shown::for_people(&report, &options.journey, &text)
    })?;
    Ok(if is_fine { Verdict::AllWell } else { Verdict::Wrong })
}

impl Report {
    fn of(checked: Checked, events: Option<&Path>) -> Result<Report> {
        let estimate = estimated_bytes(&checked.journey);
        let mut findings = checked.findings.clone();
        findings.extend(findings_about_size(&checked, &estimate));
        let mut sample = None;
        if let Some(path) = events {
            let (counts, unusable) = event_types(path)?;
            let events: u64 = counts.values().sum();
            sample = Some(format!(
                "the sample has {} events of {}{}",
                grouped(events),
                counted(counts.len(), "type"),
                match unusable {
                    0 => String::new(),
                    lines => format!(", and {} that can't be used", counted(lines, "line")),
                }
            ));
            findings.extend(checked.compare_with_sample(&counts));
        }
        findings.sort_by_key(|finding| (finding.diagnostic.line, finding.diagnostic.column, finding.severity));
        Ok(Report {
            slots: estimated_slots(&checked.journey),
            checked,
            findings,
            estimate,
            sample,
        })
    }
}

type Counts = hashbrown::HashMap<String, u64>;

/// How many events of each type a file has, and how many of its lines can't be used.
fn event_types(path: &Path) -> Result<(Counts, usize)> {
    let mut file = EventsFile::open(path)?;
    let (mut counts, mut unusable) = (Counts::new(), 0);
    while let Some(line) = file.next_line()? {
        // As of its own time: how late it came makes no difference to its type.
        let arrived_at = event::time_of(line.bytes).unwrap_or_default();
        match event::decode(line.bytes, arrived_at) {
            Ok(event) => *counts.entry_ref(event.event_type.as_ref()).or_insert(0) += 1,
            Err(_) => unusable += 1,
        }
    }
    Ok((counts, unusable))
}

/// The parts that take most of an item are named, so many.
const LARGEST_PARTS_SHOWN: usize = 3;

fn findings_about_size(checked: &Checked, estimate: &ItemEstimate) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = if checked.journey.features.is_empty() {
        "journey"
    } else {
        "features"
    };
    if estimate.bytes.typical > WRITE_UNIT_BYTES {
        let mut parts: Vec<_> = estimate.parts.iter().collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.bytes.typical));
        let largest = parts.iter().take(LARGEST_PARTS_SHOWN);
        let largest: Vec<String> = largest
            .map(|part| format!("`{}` {}", part.name, grouped(part.bytes.typical as u64)))
            .collect();
        let message = format!(
            "a typical user's item has {} bytes, so a write costs {} write units instead of 1; most go to {}",
            grouped(estimate.bytes.typical as u64),
            estimate.typical_write_units(),
            largest.join(", ")
        );
        findings.push(checked.finding(Severity::Warning, place, message));
    }
    if estimate.may_outgrow_the_table() {
        let message = format!(
            "an item may get {} bytes, more than the {} that DynamoDB takes: a user who gets there is parked",
            grouped(estimate.bytes.worst as u64),
            grouped(usher_domain::estimate::ITEM_BYTES_MAX as u64)
        );
        findings.push(checked.finding(Severity::Warning, place, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(journey: &Path) -> CheckOptions {
        CheckOptions {
            journey: journey.to_owned(),
            events: None,
            strict: false,
            json: false,
        }
    }

    fn report(text: &str, events: Option<&Path>) -> Report {
        Report::of(Checked::parse(text).expect("it can be read"), events).expect("a report")
    }

    #[test]
    fn the_summary_names_the_conditions_that_run_in_the_interpreter_and_what_a_write_costs() {
        let text = "journey: j\nsteps:\n  - { id: a, when: event.type == \"x\" }\n  - { id: b, when: event.content_id.contains(\"y\") }\n";
        let shown = shown::for_people(&report(text, None), Path::new("j.yaml"), text);
        for expected in [
            "2 steps, 0 features, 0 rules, 0 contents",
            "j.yaml:4: steps.b.when: `event.content_id.contains(\"y\")` runs in the interpreter",
            "the journey `j` is fine",
            "a write costs 1 write unit",
            "dedupe",
        ] {
            assert!(shown.contains(expected), "{expected}:\n{shown}");
        }
        assert!(!shown.contains("steps.a"), "{shown}");
    }

    #[test]
    fn the_summary_says_of_each_slot_how_it_chooses_and_what_it_sees() {
        let text = "journey: j
features: { clicks: { count: click } }
contents: [{ id: a, attributes: { minutes: 3 } }, { id: b, attributes: { minutes: 5 } }]
triggers: [{ id: r, on: click, choose: all, slot: in_app }, { id: q, on: view, choose: all, slot: email }]
slots: { in_app: { context: { clicks: features.clicks, plan: { value: traits.plan, one_of: [free, team] } }, contents: { minutes: content.minutes } } }
outcomes: { within: 1d, reward: { click: 1 } }
";
        let report = report(text, None);
        let shown = shown::for_people(&report, Path::new("j.yaml"), text);
        for expected in [
            "slot `in_app`: linear_thompson chooses from 2 candidates, sees 4 of at most 32 numbers (clicks 1, plan 3) and 1 of a candidate (minutes 1); its model may take",
            "slot `email`: thompson chooses from 2 candidates, sees no context; its model may take",
            "outcomes: open offers",
        ] {
            assert!(shown.contains(expected), "{expected}:\n{shown}");
        }
        let json: serde_json::Value = serde_json::from_str(&shown::as_json(&report, true)).expect("JSON");
        assert_eq!(
            json["slots"][0]["context"],
            serde_json::json!({ "clicks": 1, "plan": 3 })
        );
        assert_eq!(json["slots"][1]["candidates"], 2);
    }

    #[test]
    fn errors_and_warnings_are_shown_with_their_lines() {
        let text = "journey: j\nsteps:\n  - { id: a, on: x, when: session.count < 0 }\nfeatures:\n  big: { top: properties.a, limit: 9, within: 90d }\n  also: { interacted_with: content_id, limit: 200 }\n  more: { recent: properties.b, limit: 50 }\n  again: { recent: properties.c, limit: 50 }\n  hours: { hour_of_day: any }\n";
        let shown = shown::for_people(&report(text, None), Path::new("j.yaml"), text);
        for expected in [
            "j.yaml:3:27: error: nobody can complete the step `a`: `session.count < 0` never holds",
            "  3 |   - { id: a, on: x, when: session.count < 0 }",
            "j.yaml:5:3: warning: a typical user's item has",
            "1 error, 1 warning",
        ] {
            assert!(shown.contains(expected), "{expected}:\n{shown}");
        }
    }

    #[test]
    fn a_sample_is_compared_and_the_verdict_follows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [journey, events] = ["j.yaml", "e.jsonl"].map(|name| folder.path().join(name));
        std::fs::write(&journey, "journey: j\nsteps: [{ id: a, on: sing_up }]\n").expect("it can be written");
        let event = |event_type: &str| {
            format!(
                "{{\"event_id\":\"{event_type}\",\"event_type\":\"{event_type}\",\"timestamp\":\"2026-01-05T10:00:00Z\",\"user_id\":\"u\"}}\n"
            )
        };
        std::fs::write(&events, format!("{}{}\nnonsense\n", event("sign_up"), event("view")))
            .expect("it can be written");
        let text = std::fs::read_to_string(&journey).expect("a file");
        let report = report(&text, Some(&events));
        let shown = shown::for_people(&report, &journey, &text);
        for expected in [
            "warning: the sample has no event of the type `sing_up`",
            "did you mean `sign_up`?",
            "the journey never names `view`, of which the sample has 1",
            "the sample has 2 events of 2 types, and 1 line that can't be used",
        ] {
            assert!(shown.contains(expected), "{expected}:\n{shown}");
        }
        let json: serde_json::Value = serde_json::from_str(&shown::as_json(&report, true)).expect("JSON");
        assert_eq!(json["journey"], "j");
        assert_eq!(json["fine"], true);
        assert_eq!(json["item"]["typical_write_units"], 1);
        let warning = json["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|finding| finding["severity"] == "warning");
        let warning = warning.expect("a warning");
        assert_eq!(
            (&warning["line"], &warning["suggestion"]),
            (&2.into(), &"sign_up".into())
        );
        for (strict, json, verdict) in [
            (false, false, Verdict::AllWell),
            (true, false, Verdict::Wrong),
            (true, true, Verdict::Wrong),
        ] {
            let options = CheckOptions {
                events: Some(events.clone()),
                strict,
                json,
                ..options(&journey)
            };
            assert_eq!(run(&options).expect("it can be read"), verdict, "{strict} {json}");
        }
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
            for json in [false, true] {
                let checked = run(&CheckOptions {
                    json,
                    ..options(&journey)
                });
                assert!(!matches!(checked, Ok(Verdict::AllWell)), "{shown}");
            }
        }
    }

    /// The tests that the pages for people name are there.
    #[test]
    fn the_tests_that_the_journey_page_names_are_there() {
        fn sources(folder: &Path, all: &mut String) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    sources(&path, all);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    all.push_str(&std::fs::read_to_string(&path).expect("a source file"));
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut all = String::new();
        for folder in ["shared", "cli/src", "tests"] {
            sources(&root.join(folder), &mut all);
        }
        let page = std::fs::read_to_string(root.join("docs/journey.md")).expect("the page");
        let rows = page.lines().filter(|line| line.starts_with('|'));
        let last_cells = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
        let names = last_cells.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`'));
        let tests: Vec<&str> = names
            .filter(|name| name.matches('_').count() > 2 && !name.contains(' '))
            .collect();
        assert!(tests.len() > 30, "{tests:?}");
        for test in tests {
            assert!(all.contains(&format!("fn {test}(")), "docs/journey.md names `{test}`");
        }
        let links = page.split("](../tests/scenarios/").skip(1);
        let scenarios: Vec<&str> = links.filter_map(|after| after.split(')').next()).collect();
        assert!(scenarios.len() > 20, "{scenarios:?}");
        for scenario in scenarios {
            let input = root.join("tests/scenarios").join(scenario).join("input.jsonl");
            assert!(input.exists(), "docs/journey.md names the scenario `{scenario}`");
        }
    }
}
