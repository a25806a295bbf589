//! The whole way through, as a user runs it: `usher local` over the embedded Kinesis, the real function binaries and
//! the embedded DynamoDB, beside `usher replay`, over 62,753 real events of 383 students.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workspace::{binaries, root};

const EVENTS: usize = 62_753;
const STUDENTS: usize = 383;
/// What is shuffled stays within this span, in milliseconds.
const SHUFFLE_SPAN_MS: i64 = 10 * 60 * 1000;

/// Counts of everything, and the last of something, to compare with a plain count over the file.
const COUNTING_JOURNEY: &str = "
journey: counting
DEDUPE
features:
  n_sign_up: { count: sign_up }
  n_identify: { count: identify }
  n_page_view: { count: page_view }
  n_click: { count: click }
  n_account_closed: { count: account_closed }
  last_content: { last: content_id, on: [click, page_view] }
contents: [{ id: tour }]
triggers:
  - { id: welcome, on: sign_up, offer: tour, slot: in_app, limit: 1 }
  - { id: each_tenth, on: click, when: features.n_click % 10 == 0, offer: tour, slot: side }
";

fn usher(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(binaries().join("usher"))
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("usher runs");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

/// What a run left.
struct Run {
    report: Value,
    profiles: String,
    trigger_ids: BTreeSet<String>,
}

/// A folder with an events file and a journey.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new(journey: &str, lines: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Case {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("journey.yaml"), journey).expect("it can be written");
        let mut file =
            std::io::BufWriter::new(std::fs::File::create(folder.path().join("events.jsonl")).expect("a file"));
        for line in lines {
            file.write_all(line.as_ref())
                .and_then(|()| file.write_all(b"\n"))
                .expect("it can be written");
        }
        file.flush().expect("it can be written");
        Case { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn trigger_ids(&self, name: &str) -> BTreeSet<String> {
        let id = |line: &str| -> String {
            let trigger: Value = serde_json::from_str(line).expect("json");
            trigger["trigger_id"].as_str().expect("text").to_owned()
        };
        self.read(name).lines().map(id).collect()
    }

    fn local(&self, more: &[&str]) -> Run {
        let files = [
            ("--events", "events.jsonl"),
            ("--journey", "journey.yaml"),
            ("--report", "report.json"),
            ("--profiles", "local.profiles.jsonl"),
            ("--triggers", "local.triggers.jsonl"),
        ];
        let files = files.map(|(option, name)| [option.to_owned(), self.path(name)]);
        let bin_dir = binaries().display().to_string();
        let mut arguments = vec!["local", "--bin-dir", &bin_dir, "--clock", "data", "--drain"];
        arguments.extend(files.iter().flatten().map(String::as_str));
        arguments.extend(more);
        let (ok, said) = usher(&arguments);
        assert!(ok, "usher local: {said}");
        Run {
            report: serde_json::from_str(&self.read("report.json")).expect("the report is JSON"),
            profiles: self.read("local.profiles.jsonl"),
            trigger_ids: self.trigger_ids("local.triggers.jsonl"),
        }
    }

    fn replay(&self) -> Run {
        let (ok, said) = usher(&[
            "replay",
            "--events",
            &self.path("events.jsonl"),
            "--journey",
            &self.path("journey.yaml"),
            "--profiles",
            &self.path("replay.profiles.jsonl"),
            "--triggers",
            &self.path("replay.triggers.jsonl"),
        ]);
        assert!(ok, "usher replay: {said}");
        Run {
            report: Value::Null,
            profiles: self.read("replay.profiles.jsonl"),
            trigger_ids: self.trigger_ids("replay.triggers.jsonl"),
        }
    }

    /// Runs both ways, which must come to the same; gives the report's counts and the profiles.
    fn both(&self) -> (BTreeMap<&'static str, u64>, BTreeMap<String, Value>) {
        let counts = ["sent", "applied", "duplicate", "dropped", "rejected", "decisions"];
        let (report, profiles) = self.both_with(&[]);
        let counts = counts.map(|name| (name, report[name].as_u64().unwrap_or(u64::MAX)));
        let profiles = profiles.lines().map(|line| {
            let profile: Value = serde_json::from_str(line).expect("json");
            (profile["user_id"].as_str().expect("text").to_owned(), profile)
        });
        (counts.into_iter().collect(), profiles.collect())
    }

    /// The same with further options for `usher local`; gives the report and the profiles as they are.
    fn both_with(&self, more: &[&str]) -> (Value, String) {
        let (local, replay) = (self.local(more), self.replay());
        assert!(
            local.profiles == replay.profiles,
            "the profiles of local and replay differ"
        );
        assert_eq!(local.trigger_ids, replay.trigger_ids);
        assert_eq!(local.report["decisions"], local.trigger_ids.len());
        (local.report, local.profiles)
    }
}

fn oulad() -> Vec<String> {
    let path = root().join("data/oulad/events.jsonl.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).expect("the data is in the repository"))
        .read_to_string(&mut text)
        .expect("gzip");
    text.lines().map(str::to_owned).collect()
}

fn counting_journey(dedupe: &str) -> String {
    COUNTING_JOURNEY.replace("DEDUPE", dedupe)
}

fn counts(sent: usize, applied: usize, duplicate: usize, rejected: usize) -> BTreeMap<&'static str, u64> {
    let all = [
        ("sent", sent),
        ("applied", applied),
        ("duplicate", duplicate),
        ("dropped", 0),
        ("rejected", rejected),
    ];
    all.map(|(name, count)| (name, count as u64)).into_iter().collect()
}

/// What a plain count knows of a user.
#[derive(Default)]
struct Counted {
    types: BTreeMap<String, u64>,
    /// Time and content of each event that has one.
    contents: Vec<(String, Value)>,
}

/// For each user the events of each type, and the content of the latest event that has one: a plain count.
fn plain_count(lines: &[String]) -> BTreeMap<String, Value> {
    let mut users: BTreeMap<String, Counted> = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).expect("json");
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let counted = users.entry(text("user_id")).or_default();
        *counted.types.entry(text("event_type")).or_default() += 1;
        if !event["content_id"].is_null() {
            counted.contents.push((text("timestamp"), event["content_id"].clone()));
        }
    }
    let features = |mut counted: Counted| {
        // In the file every timestamp has the same form, so text order is the order of time; the sort is stable.
        counted.contents.sort_by(|left, right| left.0.cmp(&right.0));
        let types = ["sign_up", "identify", "page_view", "click", "account_closed"];
        let count = |name| {
            (
                format!("n_{name}"),
                json!(counted.types.get(name).copied().unwrap_or(0)),
            )
        };
        let mut features: serde_json::Map<String, Value> = types.into_iter().map(count).collect();
        let last = counted.contents.pop().map_or(Value::Null, |(_, content)| content);
        features.insert("last_content".to_owned(), last);
        Value::Object(features)
    };
    users
        .into_iter()
        .map(|(user, counted)| (user, features(counted)))
        .collect()
}

fn check_features(profiles: &BTreeMap<String, Value>, lines: &[String]) {
    let expected = plain_count(lines);
    assert_eq!(profiles.len(), expected.len());
    for (user, features) in expected {
        assert_eq!(profiles[&user]["features"], features, "{user}");
    }
}

#[test]
fn p1_p7_every_real_event_is_applied_and_replay_is_the_same_byte_for_byte() {
    let lines = oulad();
    let (found, profiles) = Case::new(&counting_journey(""), &lines).both();
    let decisions = found["decisions"];
    let mut expected = counts(EVENTS, EVENTS, 0, 0);
    expected.insert("decisions", decisions);
    assert_eq!(found, expected);
    assert_eq!(profiles.len(), STUDENTS);
    assert!(decisions >= STUDENTS as u64, "everybody is welcomed");
    check_features(&profiles, &lines);
}

#[test]
fn p7_the_default_journey_is_the_same_in_local_and_replay() {
    let journey = std::fs::read_to_string(root().join("journey/journey.yaml")).expect("the default journey");
    let (found, _) = Case::new(&journey, oulad()).both();
    assert_eq!((found["applied"], found["rejected"]), (EVENTS as u64, 0));
}

#[test]
fn p2_every_line_repeated_counts_once() {
    let lines = oulad();
    let repeated = lines.iter().flat_map(|line| [line, line]);
    let (mut found, profiles) = Case::new(&counting_journey(""), repeated).both();
    found.remove("decisions");
    assert_eq!(found, counts(2 * EVENTS, EVENTS, EVENTS, 0));
    check_features(&profiles, &lines);
}

#[test]
fn p2_the_whole_file_twice_within_a_longer_memory_counts_once() {
    let lines = oulad();
    let journey = counting_journey("dedupe: { last: 4096 }");
    let (once, _) = Case::new(&journey, &lines).both();
    let (mut twice, profiles) = Case::new(&journey, lines.iter().chain(&lines)).both();
    assert_eq!(twice.remove("decisions"), Some(once["decisions"]), "no new trigger");
    assert_eq!(twice, counts(2 * EVENTS, EVENTS, EVENTS, 0));
    check_features(&profiles, &lines);
}

#[test]
fn p11_lines_shuffled_within_ten_minutes_count_the_same() {
    let lines = oulad();
    let mut random = fastrand::Rng::with_seed(20_131_001);
    let time_ms = |line: &String| {
        let event: Value = serde_json::from_str(line).expect("json");
        let time: usher_domain::time::Timestamp = event["timestamp"].as_str().expect("text").parse().expect("a time");
        time.epoch_ms()
    };
    // Adding up to the span to each time and sorting moves no line past one that is further away than the span.
    let mut shuffled: Vec<(i64, &String)> = lines
        .iter()
        .map(|line| (time_ms(line) + random.i64(0..SHUFFLE_SPAN_MS), line))
        .collect();
    shuffled.sort_by_key(|(at, _)| *at);
    let (mut found, profiles) = Case::new(&counting_journey(""), shuffled.iter().map(|(_, line)| line)).both();
    found.remove("decisions");
    assert_eq!(found, counts(EVENTS, EVENTS, 0, 0));
    check_features(&profiles, &lines);
}

#[test]
fn p6_bad_records_between_good_ones_stop_nothing() {
    const GOOD: usize = 600;
    let good = |number: usize| {
        let at = format!("2026-01-05T10:{:02}:{:02}.000Z", number / 60, number % 60);
        let event = json!({ "event_id": format!("e-{number}"), "event_type": "click", "timestamp": at, "user_id": format!("u-{}", number % 7) });
        event.to_string().into_bytes()
    };
    let with = |member: &str, value: Value| {
        let mut event = json!({ "event_id": "bad", "event_type": "click", "timestamp": "2026-01-05T10:00:00.000Z", "user_id": "u-1" });
        event[member] = value;
        event.to_string().into_bytes()
    };
    // 1 MB less what the partition key and the rest of the record take.
    let nested = format!(
        r#"{{"event_id":"n","event_type":"click","timestamp":"2026-01-05T10:00:00Z","user_id":"u-1","properties":{{"a":{}"#,
        "[".repeat(1_000_000)
    );
    let mut invalid_utf8 = with("category", json!("X"));
    let place = invalid_utf8.iter().position(|byte| *byte == b'X').expect("it is there");
    invalid_utf8[place] = 0xff;
    let bad: Vec<(Vec<u8>, &str, &str)> = vec![
        (b"not json".to_vec(), "not_json", ""),
        (b"[]".to_vec(), "not_json", ""),
        (with("user_id", Value::Null), "missing_field", "user_id"),
        (with("event_type", Value::Null), "missing_field", "event_type"),
        (with("timestamp", Value::Null), "missing_field", "timestamp"),
        (with("event_id", json!("")), "missing_field", "event_id"),
        (with("user_id", json!("   ")), "missing_field", "user_id"),
        (with("event_id", json!(17)), "wrong_type", "event_id"),
        (with("properties", json!("text")), "wrong_type", "properties"),
        (
            with("timestamp", json!("2999-01-01T00:00:00Z")),
            "bad_timestamp",
            "timestamp",
        ),
        (with("timestamp", json!("5 January")), "bad_timestamp", "timestamp"),
        (invalid_utf8, "not_utf8", ""),
        (nested.into_bytes(), "not_json", "properties"),
    ];
    let mut lines = Vec::new();
    for number in 0..GOOD {
        lines.push(good(number));
        lines.extend(
            bad.get(number / 40)
                .filter(|_| number % 40 == 0)
                .map(|(line, ..)| line.clone()),
        );
    }
    let case = Case::new(&counting_journey(""), &lines);
    let run = case.local(&[]);
    assert_eq!(run.report["applied"], GOOD);
    assert_eq!(run.report["rejected"], bad.len());
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for (_, reason, _) in &bad {
        *reasons.entry((*reason).to_owned()).or_default() += 1;
    }
    assert_eq!(run.report["rejected_by_reason"], json!(reasons));
    assert_eq!(run.profiles, case.replay().profiles);
}

/// P7, P12: timers, chains, quiet hours and what they wait for, swept by the clock of the data, come to what a replay without
/// any sweeper comes to; also when everything goes wrong that can.
#[test]
fn p12_timers_that_are_swept_come_to_what_a_replay_comes_to() {
    let journey = std::fs::read_to_string(root().join("tests/data/timers-journey.yaml")).expect("it is there");
    let case = Case::new(&journey, oulad());
    for more in [&[][..], &["--faults", "all", "--seed", "20130317"]] {
        let (report, _) = case.both_with(more);
        let count = |name: &str| report[name].as_u64().unwrap_or_default();
        assert_eq!(count("applied"), EVENTS as u64, "{more:?}");
        // Many of them while the events came.
        assert!(
            count("timers_fired") > 1_000 && count("woken") > 400 && count("sweeps") > 2,
            "{report}"
        );
    }
}
