use std::path::PathBuf;

use usher_domain::journey::Journey;

use super::*;
use crate::arrival_clock::wall_clock;
use crate::events_file::EventsFile;
use crate::fold::Fold;
use crate::import::events::Counts;

const JOURNEY: &str = "journey: t
slots: { s: { learner: scores, floor: 0% } }
contents: [{ id: tour }, { id: demo }, { id: other }]
triggers: [{ id: r, on: click, choose: [tour, demo], slot: s }]
";

fn options(rows: PathBuf) -> ImportScoresOptions {
    ImportScoresOptions {
        rows,
        stream: "interactions".to_owned(),
        format: None,
        delimiter: b',',
        id_column: "user_id".to_owned(),
        anonymous_id_column: None,
        content_column: "content_id".to_owned(),
        score_column: "score".to_owned(),
        at: "2026-01-05T10:00:00Z".parse().ok(),
        at_column: None,
        strict: false,
        dry_run: false,
        resume: None,
        endpoint_url: None,
    }
}

/// The events of a file, and what came of its rows.
fn events_of(name: &str, text: &str) -> (Vec<String>, Counts) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    let (options, meaning) = as_traits(options(path));
    let file = EventsFile::open(&options.rows).expect("readable");
    let events = traits::row_events(&options, file, meaning).expect("the columns are there");
    let tally = events.tally();
    let mut events = EventsFile::of("rows", events, None).expect("readable");
    let mut lines = Vec::new();
    while let Some(line) = events.next_line().expect("it goes on") {
        let line = String::from_utf8_lossy(line.bytes).into_owned();
        if !line.trim().is_empty() {
            lines.push(line);
        }
    }
    (lines, tally.counts())
}

const CSV: &str = "user_id,content_id,score,note\nann,tour,0.25,x\nann,demo,1,\nbob,tour,high,\nbob,,3,\nbob,demo,,\n";
const JSONL: &str = r#"{"user_id":"ann","content_id":"tour","score":0.25}
{"user_id":"ann","content_id":"demo","score":1,"note":"x"}
{"user_id":"bob","content_id":"tour","score":"high"}
{"user_id":"bob","score":3}
{"user_id":"bob","content_id":"demo"}
"#;

#[test]
fn scores_become_traits_by_which_a_learner_chooses() {
    for (name, text) in [("scores.csv", CSV), ("scores.jsonl", JSONL)] {
        let (lines, counts) = events_of(name, text);
        assert_eq!(
            (counts.rows, counts.events, counts.silent, counts.bad),
            (5, 2, 1, 2),
            "{name}"
        );
        assert_eq!(counts.traits.keys().collect::<Vec<_>>(), ["score.demo", "score.tour"]);
        let told: Vec<&str> = counts.told.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(told, ["its score is no number", "it names no content"], "{name}");

        let journey = Journey::parse(JOURNEY).unwrap_or_else(|errors| panic!("{}", errors.render("j", JOURNEY)));
        let mut fold = Fold::new(&journey);
        for (number, line) in (1..).zip(&lines) {
            assert!(fold.line(number, line.as_bytes(), wall_clock()).is_empty());
        }
        let click = r#"{"event_id":"1","event_type":"click","timestamp":"2026-01-05T10:01:00Z","user_id":"ann"}"#;
        let triggers = fold.line(9, click.as_bytes(), wall_clock());
        assert_eq!(triggers.len(), 1);
        assert_eq!(
            (triggers[0].offer.as_str(), triggers[0].propensity),
            ("demo", 1.0),
            "{name}"
        );
    }
}

#[test]
fn p2_the_same_score_again_is_the_same_event() {
    let (first, _) = events_of("scores.csv", CSV);
    let (again, _) = events_of("scores.jsonl", JSONL);
    assert_eq!(first, again);
}
