//! From files to profiles.

use std::collections::HashSet;
use std::path::PathBuf;

use usher_domain::journey::Journey;

use super::super::events::Tally;
use super::*;
use crate::fold::Fold;

const JOURNEY: &str = r#"
journey: t
triggers:
  - { id: big, on: identify, when: 'traits.plan == "team" && traits.seats >= 3', offer: call, slot: email }
contents: [{ id: call }]
"#;

fn options(path: PathBuf) -> ImportTraitsOptions {
    ImportTraitsOptions {
        rows: path,
        stream: "interactions".to_owned(),
        format: None,
        delimiter: b',',
        id_column: "user_id".to_owned(),
        anonymous_id_column: None,
        at: None,
        at_column: Some("updated_at".to_owned()),
        traits: Vec::new(),
        text: Vec::new(),
        strict: false,
        dry_run: false,
        resume: None,
        endpoint_url: None,
    }
}

/// The lines that would be sent, and what came of the rows.
fn lines(options: &ImportTraitsOptions) -> (Vec<(u64, Vec<u8>)>, Tally) {
    let file = EventsFile::open(&options.rows).expect("readable");
    let events = row_events(options, file, Meaning::Traits).expect("the columns are there");
    let tally = events.tally();
    let mut events = EventsFile::of("rows", events, None).expect("readable");
    let mut lines = Vec::new();
    while let Some(line) = events.next_line().expect("it goes on") {
        lines.push((line.number, line.bytes.to_vec()));
    }
    (lines, tally)
}

fn file_of(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    (folder, path)
}

const CSV: &str = "user_id,plan,seats,note,updated_at\n\
    ann,team,3,\"says \"\"hi\"\"\",2026-01-05T10:00:00Z\n\
    bob,free,,,2026-01-05T10:00:00Z\n\
    carl,team\n\
    dora,,,,2026-01-05T10:00:00Z\n\
    eve,team,5,,someday\n";

#[test]
fn a_row_is_an_event_and_the_others_are_told_with_their_lines() {
    let (_folder, path) = file_of("crm.csv", CSV);
    let (lines, tally) = lines(&options(path));
    let numbers: Vec<u64> = lines.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2], "a row that is not sent leaves its place blank");
    let counts = tally.counts();
    assert_eq!((counts.rows, counts.events, counts.silent, counts.bad), (5, 2, 1, 2));
    let told: Vec<u64> = counts.told.iter().map(|(line, _)| *line).collect();
    assert_eq!(told, [4, 6]);
    let traits: Vec<_> = counts
        .traits
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(traits, [("note", 1), ("plan", 2), ("seats", 1)]);
    assert!(
        !lines
            .iter()
            .any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("updated_at"))
    );
}

#[test]
fn the_same_rows_as_json_make_the_same_events() {
    let (_csv_folder, path) = file_of("crm.csv", CSV);
    let (from_csv, _) = lines(&options(path));
    let jsonl = r#"{"updated_at":"2026-01-05T10:00:00Z","note":"says \"hi\"","seats":3,"plan":"team","user_id":"ann"}
{"user_id":"bob","plan":"free","seats":null,"updated_at":"2026-01-05T10:00:00Z"}
"#;
    let (_json_folder, path) = file_of("crm.jsonl", jsonl);
    assert_eq!(lines(&options(path)).0, from_csv);
}

#[test]
fn strict_ends_at_the_first_bad_row() {
    let (_folder, path) = file_of("crm.csv", CSV);
    let strict = ImportTraitsOptions {
        strict: true,
        ..options(path.clone())
    };
    let events = row_events(&strict, EventsFile::open(&path).expect("readable"), Meaning::Traits).expect("columns");
    let mut events = EventsFile::of("rows", events, None).expect("the first row is good");
    let mut sent = HashSet::new();
    let error = loop {
        match events.next_line() {
            Ok(Some(line)) => sent.insert(line.number),
            Ok(None) => panic!("it ends with an error"),
            Err(error) => break format!("{error:#}"),
        };
    };
    assert_eq!(sent, HashSet::from([1, 2]));
    assert!(error.contains("line 4: it has 2 cells"), "{error}");
}

/// What a fold makes of these lines: counts, and the JSON of the profiles.
fn profiles_of(lines: &[(u64, Vec<u8>)]) -> (u64, u64, String) {
    let journey = Journey::parse(JOURNEY).expect("a journey");
    let mut fold = Fold::new(&journey);
    for (index, (_, bytes)) in lines.iter().enumerate() {
        fold.line(index as u64 + 1, bytes, wall_clock());
    }
    let counts = fold.counts();
    assert_eq!(counts.rejected_total(), 0, "{:?}", counts.rejected.keys());
    let (applied, duplicate) = (counts.applied, counts.duplicate);
    let profiles = fold.into_profiles().into_iter().map(|(user, profile)| {
        let traits = journey.traits.iter().zip(&profile.traits);
        let shown = traits.map(|(name, value)| format!("{name}={:?}", value.as_ref().map(|dated| &dated.value)));
        format!("{user} {}", shown.collect::<Vec<_>>().join(" "))
    });
    let profiles: Vec<String> = profiles.collect();
    (applied, duplicate, profiles.join("\n"))
}

#[test]
fn p2_p11_the_same_import_again_changes_nothing_and_an_older_one_overwrites_nothing() {
    let new = "user_id,plan,seats,updated_at\nann,team,3,2026-01-05T10:00:00Z\n";
    let old = "user_id,plan,seats,updated_at\nann,free,,2025-06-01T00:00:00Z\nann,,9,2025-06-01T00:00:00Z\n";
    let (_new_folder, path) = file_of("new.csv", new);
    let new = lines(&options(path)).0;
    let (_old_folder, path) = file_of("old.csv", old);
    let old = lines(&options(path)).0;
    let (applied, duplicate, once) = profiles_of(&new);
    assert_eq!((applied, duplicate), (1, 0));
    assert!(once.contains("team") && once.contains('3'), "{once}");
    let twice = [new.clone(), new.clone()].concat();
    assert_eq!(profiles_of(&twice), (1, 1, once.clone()));
    for order in [[old.clone(), new.clone()].concat(), [new, old].concat()] {
        assert_eq!(profiles_of(&order), (3, 0, once.clone()));
    }
}

#[test]
fn how_rows_are_written_is_told_by_the_name_of_the_file() {
    for (name, format) in [
        ("a.csv", Some(RowFormat::Csv)),
        ("A.CSV.gz", Some(RowFormat::Csv)),
        ("a.b.jsonl.gz", Some(RowFormat::Jsonl)),
        ("a.ndjson", Some(RowFormat::Jsonl)),
        ("-", None),
        ("a.xlsx", None),
        ("csv", None),
    ] {
        assert_eq!(format_of(Path::new(name)), format, "{name}");
    }
}
