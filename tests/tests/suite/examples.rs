//! The example journeys, as a reader of their folders tries them: each checks clean, and its events come to what is in
//! its `golden` folder, through `usher replay` and through the local cloud.
//!
//! `UPDATE_EXAMPLES=1` writes the golden files anew: read the difference before you commit it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

use crate::workspace::{binaries, root};

/// The example, its events, and how its golden files end.
const EXAMPLES: [(&str, &str, &str); 4] = [
    ("saas-trial", "examples/saas-trial/events.jsonl", "jsonl"),
    ("chatbot", "examples/chatbot/events.jsonl", "jsonl"),
    ("media", "examples/media/events.jsonl", "jsonl"),
    ("oulad", "data/oulad/events.jsonl.gz", "jsonl.gz"),
];

/// What came of an example's events.
struct Came {
    folder: TempDir,
}

impl Came {
    fn read(&self, what: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(what)).expect("it was written")
    }

    fn trigger_ids(&self) -> BTreeSet<String> {
        trigger_ids(&self.read("triggers"))
    }
}

fn trigger_ids(triggers: &str) -> BTreeSet<String> {
    let id = |line: &str| {
        let trigger: Value = serde_json::from_str(line).expect("json");
        trigger["trigger_id"].as_str().expect("text").to_owned()
    };
    triggers.lines().map(id).collect()
}

fn usher(arguments: &[&str]) -> String {
    let output = Command::new(binaries().join("usher"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("usher runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "usher {arguments:?}: {said}{errors}");
    said
}

/// Runs a command of `usher` that takes a journey and writes profiles and triggers.
fn run(command: &[&str], example: &str) -> Came {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (journey, profiles, triggers) = (journey_of(example), path("profiles"), path("triggers"));
    let files = ["--journey", &journey, "--profiles", &profiles, "--triggers", &triggers];
    usher(&[command, &files[..]].concat());
    Came { folder }
}

fn journey_of(example: &str) -> String {
    format!("examples/{example}/journey.yaml")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of these tests, read where it is used"
)]
fn wants_update() -> bool {
    std::env::var_os("UPDATE_EXAMPLES").is_some()
}

fn golden_path(example: &str, what: &str, ending: &str) -> PathBuf {
    root()
        .join("examples")
        .join(example)
        .join("golden")
        .join(format!("{what}.{ending}"))
}

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

fn read_golden(path: &Path) -> String {
    let Ok(mut file) = std::fs::File::open(path) else {
        return String::new();
    };
    let mut text = String::new();
    match is_gzip(path) {
        true => GzDecoder::new(file).read_to_string(&mut text),
        false => file.read_to_string(&mut text),
    }
    .expect("the golden file can be read");
    text
}

fn write_golden(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
    if read_golden(path) == text {
        return;
    }
    let mut file = std::fs::File::create(path).expect("it can be written");
    if is_gzip(path) {
        let mut encoder = GzEncoder::new(file, Compression::best());
        encoder.write_all(text.as_bytes()).expect("it can be written");
        encoder.finish().expect("it can be written");
    } else {
        file.write_all(text.as_bytes()).expect("it can be written");
    }
}

/// The first lines that differ, if any do.
fn difference(name: &str, expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let line = (0..expected.len().max(found.len())).find(|line| expected.get(*line) != found.get(*line));
    let line = line.unwrap_or_default();
    let told = |lines: &[&str]| lines.get(line).copied().unwrap_or("(nothing)").to_owned();
    Some(format!(
        "{name}, line {}\n  expected {}\n  found    {}\n",
        line + 1,
        told(&expected),
        told(&found)
    ))
}

#[test]
fn every_example_is_a_journey_without_mistakes() {
    for (example, events, _) in EXAMPLES {
        let said = usher(&["check", &journey_of(example), "--events", events]);
        assert!(said.contains("is fine"), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
}

#[test]
fn p7_every_example_comes_to_its_golden_results() {
    let mut failures = Vec::new();
    for (example, events, ending) in EXAMPLES {
        let came = run(&["replay", "--events", events], example);
        for what in ["profiles", "triggers"] {
            let path = golden_path(example, what, ending);
            let found = came.read(what);
            if wants_update() {
                write_golden(&path, &found);
            }
            failures.extend(difference(&path.display().to_string(), &read_golden(&path), &found));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Timers, merges, caps and quiet hours on real functions, an embedded Kinesis and an embedded DynamoDB. A stream keeps the
/// order of one key only, so when an anonymous profile is merged depends on it: what is compared is what came of the stream
/// as it was. What does not depend on that order, and everything where nobody has two ids, is as in the golden files.
#[test]
fn p5_p7_every_example_is_the_same_through_the_local_cloud() {
    let bin_dir = binaries().display().to_string();
    for (example, events, ending) in EXAMPLES {
        let record = tempfile::NamedTempFile::new().expect("a temporary file");
        let record = record.path().display().to_string();
        let arguments = ["local", "--bin-dir", &bin_dir, "--clock", "data", "--drain"];
        let arguments = [
            &arguments[..],
            &["--shards", "1", "--record", &record, "--events", events],
        ]
        .concat();
        let local = run(&arguments, example);
        let replayed = run(&["replay", "--record", &record], example);
        let name = |what: &str| format!("{example}: {what}");
        let golden = read_golden(&golden_path(example, "profiles", ending));
        let found = local.read("profiles");
        assert_eq!(history_of(&golden), history_of(&found), "{example}");
        // One shard, one batch at a time, and no call that fails: what came of the stream is what its order says, merges included.
        let differs = difference(&name("profiles"), &replayed.read("profiles"), &found);
        assert_eq!(differs, None);
        assert_eq!(replayed.trigger_ids(), local.trigger_ids(), "{example}");
        // Who sends the file keeps the order of each key, so when two keys became one user's is another moment in the file.
        if !has_merges(events) {
            assert_eq!(difference(&name("golden profiles"), &golden, &found), None);
            let triggers = read_golden(&golden_path(example, "triggers", ending));
            assert_eq!(trigger_ids(&triggers), local.trigger_ids(), "{example}");
        }
    }
}

/// What the events alone say of each user, in whatever order they came. Sessions are left out: of those only the latest few can
/// still be joined, so what comes of two profiles that become one goes by when that was.
fn history_of(profiles: &str) -> Vec<Value> {
    let history = |line: &str| {
        let profile: Value = serde_json::from_str(line).expect("json");
        let parts = ["user_id", "features", "steps", "applied_events"];
        Value::from_iter(parts.map(|part| (part, profile[part].clone())))
    };
    profiles.lines().map(history).collect()
}

fn has_merges(events: &str) -> bool {
    !is_gzip(Path::new(events))
}

#[test]
fn the_threads_have_no_say_in_what_an_example_comes_to() {
    for (example, events, _) in EXAMPLES {
        let [one, many] = ["1", "8"].map(|threads| run(&["replay", "--events", events, "--threads", threads], example));
        for what in ["profiles", "triggers"] {
            assert_eq!(difference(example, &one.read(what), &many.read(what)), None);
        }
    }
}

/// What a change of a journey would have done, as its comparison with the present one tells.
#[test]
fn a_comparison_tells_what_is_gained_lost_and_changed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (example, events, _) = EXAMPLES[0];
    let old = std::fs::read_to_string(root().join(journey_of(example))).expect("the journey");
    let changes = [
        (
            "offer: upgrade, slot: in_app, limit: 1",
            "offer: win-back, slot: in_app, limit: 1",
        ),
        (
            "after: 2h, since: steps.verify_email",
            "after: 4h, since: steps.verify_email",
        ),
        (
            "{ offers: 2, within: 24h, slot: email }",
            "{ offers: 1, within: 48h, slot: email }",
        ),
    ];
    let mut new = old.clone();
    for (was, is) in changes {
        assert!(new.contains(was), "{was}");
        new = new.replace(was, is);
    }
    std::fs::write(path("new.yaml"), new).expect("it can be written");
    let compare = |journey: &str| {
        let files = [
            "replay",
            "--journey",
            journey,
            "--against",
            &journey_of(example),
            "--events",
            events,
            "--json",
            &path("comparison.json"),
            "--changes",
            &path("changes.jsonl"),
            "--user",
            "trial-07",
        ];
        let said = usher(&files);
        let read = |name: &str| std::fs::read_to_string(path(name)).expect("it was written");
        let json: Value = serde_json::from_str(&read("comparison.json")).expect("json");
        let changes: Vec<Value> = read("changes.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("json"))
            .collect();
        (said, json, changes)
    };

    let (said, json, changes) = compare(&journey_of(example));
    assert!(
        said.contains("no decision changed") && said.contains("every rule came out as before"),
        "{said}"
    );
    assert_eq!((json["changes"].as_u64(), changes.len()), (Some(0), 0));

    let (said, json, changes) = compare(&path("new.yaml"));
    assert!(said.contains("activated: changed: offer"), "{said}");
    assert!(said.contains("trial-07: "), "{said}");
    assert_eq!(json["changes"].as_u64(), Some(changes.len() as u64));
    let count = |kind: &str| changes.iter().filter(|change| change["change"] == kind).count();
    assert!(
        count("gained") > 0 && count("lost") > 0 && count("changed") > 0,
        "{said}"
    );
    for change in &changes {
        let (old, new) = (&change["old"], &change["new"]);
        let kind = match (old.is_null(), new.is_null()) {
            (true, false) => "gained",
            (false, true) => "lost",
            _ => "changed",
        };
        assert_eq!(change["change"], kind);
        assert_ne!(old, new);
    }
    // The counts of each rule add up.
    for (rule, decisions) in json["decisions"].as_object().expect("an object") {
        let sum = |name: &str| -> u64 {
            let by_reason = decisions[name].as_object().expect("an object");
            by_reason.values().filter_map(Value::as_u64).sum()
        };
        let count = |name: &str| decisions[name].as_u64().expect("a count");
        assert_eq!(count("old"), count("same") + sum("lost") + sum("changed"), "{rule}");
        assert_eq!(count("new"), count("same") + sum("gained") + sum("changed"), "{rule}");
    }
}
