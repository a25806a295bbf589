//! JSONTestSuite, in every place of a record where JSON can be: what must not be parsed is rejected, what must be is kept.

use std::collections::BTreeMap;
use std::io::Read;

use usher_domain::event::Field;
use usher_domain::value::Value;
use usher_wire::event::decode;

use super::{World, arrived_at, data, event};

/// What the suite says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Must {
    Accept,
    Refuse,
    Either,
}

struct Text {
    name: String,
    must: Must,
    bytes: Vec<u8>,
}

/// Where in a record a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    WholeRecord,
    Properties,
    UnknownMember,
    PropertyValue,
    Traits,
}

impl Place {
    const ALL: [Place; 5] = [
        Place::WholeRecord,
        Place::Properties,
        Place::UnknownMember,
        Place::PropertyValue,
        Place::Traits,
    ];

    /// A record with the text in this place.
    fn record(self, text: &Text) -> Vec<u8> {
        let around = match self {
            Place::WholeRecord => return text.bytes.clone(),
            Place::Properties => r#""properties":@"#,
            Place::UnknownMember => r#""p":@"#,
            Place::PropertyValue => r#""properties":{"p":@}"#,
            Place::Traits => r#""traits":@"#,
        };
        let mut record = event("u", &text.name, around).into_bytes();
        let at = record.iter().position(|byte| *byte == b'@').expect("there");
        record.splice(at..=at, text.bytes.iter().copied());
        record
    }

    /// Whether what must be accepted makes an event here.
    fn takes(self, text: &Text) -> bool {
        match self {
            // None of them has the members of an event.
            Place::WholeRecord => false,
            Place::UnknownMember | Place::PropertyValue => true,
            Place::Properties | Place::Traits => {
                matches!(text.bytes.trim_ascii_start().first(), Some(b'{')) || text.bytes.trim_ascii() == b"null"
            }
        }
    }
}

/// The files of a tar archive: name and bytes. Only what this archive needs of the format (POSIX ustar).
fn untar(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    const BLOCK: usize = 512;
    let mut files = Vec::new();
    let mut at = 0;
    while at + BLOCK <= archive.len() && archive[at] != 0 {
        let header = &archive[at..at + BLOCK];
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end_matches('\0').trim().to_owned();
        let size = usize::from_str_radix(&text(&header[124..136]), 8).expect("an octal size");
        let start = at + BLOCK;
        if matches!(header[156], b'0' | 0) {
            files.push((text(&header[..100]), archive[start..start + size].to_vec()));
        }
        at = start + size.div_ceil(BLOCK) * BLOCK;
    }
    files
}

fn suite() -> Vec<Text> {
    let file = std::fs::File::open(data("JSONTestSuite.tar.gz")).expect("it is in the repository");
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut archive)
        .expect("gzip");
    let texts: Vec<Text> = untar(&archive)
        .into_iter()
        .map(|(path, bytes)| {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let must = match &name[..2] {
                "y_" => Must::Accept,
                "n_" => Must::Refuse,
                "i_" => Must::Either,
                other => panic!("{name}: {other}?"),
            };
            // An event id has 64 bytes at most.
            Text {
                name: name.chars().take(60).collect(),
                must,
                bytes,
            }
        })
        .collect();
    let mut counts: BTreeMap<Must, usize> = BTreeMap::new();
    texts.iter().for_each(|text| *counts.entry(text.must).or_default() += 1);
    let expected = [(Must::Accept, 95), (Must::Refuse, 188), (Must::Either, 35)];
    assert_eq!(counts, expected.into());
    texts
}

#[test]
fn p10_each_text_is_taken_or_refused_as_the_suite_says() {
    for text in suite() {
        for place in Place::ALL {
            let record = place.record(&text);
            let decoded = decode(&record, arrived_at());
            let expected = match text.must {
                Must::Accept => Some(place.takes(&text)),
                Must::Refuse => Some(false),
                Must::Either if place == Place::WholeRecord => Some(false),
                Must::Either => None,
            };
            if let Some(expected) = expected {
                assert_eq!(decoded.is_ok(), expected, "{} as {place:?}: {decoded:?}", text.name);
            }
        }
    }
}

/// What is read from an accepted text is what `serde_json` reads from it.
#[test]
fn p10_accepted_texts_are_read_as_their_values() {
    let path = Field::Property(vec!["p".to_owned()]);
    for text in suite().iter().filter(|text| text.must == Must::Accept) {
        let expected: serde_json::Value = serde_json::from_slice(&text.bytes).expect(&text.name);
        for place in [Place::UnknownMember, Place::PropertyValue] {
            let record = place.record(text);
            let event = decode(&record, arrived_at()).unwrap_or_else(|reject| panic!("{}: {reject}", text.name));
            let found = event.field(&path).unwrap_or_else(|| panic!("{} is there", text.name));
            let same = match &found {
                Value::Null => expected.is_null(),
                Value::Bool(value) => expected == *value,
                Value::Int(value) => expected == *value,
                Value::Float(value) => expected.as_f64() == Some(*value),
                Value::Text(value) => expected == value.as_ref(),
                Value::Json(json) => serde_json::from_str(json).ok() == Some(expected.clone()),
                Value::List(_) => false,
            };
            assert!(same, "{} as {place:?}: {found:?}", text.name);
        }
    }
}

/// The whole suite in one batch: what is no event is on `rejected` as it came, and everything else is applied.
#[tokio::test]
async fn p1_p10_the_suite_as_one_batch_loses_nothing() {
    let mut world = World::in_memory("journey: suite\nfeatures: { clicks: { count: click } }");
    let texts = suite();
    let records: Vec<Vec<u8>> = Place::ALL
        .iter()
        .flat_map(|place| {
            texts.iter().map(|text| {
                let mut record = place.record(text);
                // An id for each place, so that none counts as a repeat.
                if let Some(at) = record.windows(12).position(|window| window == br#""event_id":""#) {
                    record.splice(at + 12..at + 12, format!("{}", *place as u8).into_bytes());
                }
                record
            })
        })
        .collect();
    let bad: Vec<&Vec<u8>> = records
        .iter()
        .filter(|record| decode(record, arrived_at()).is_err())
        .collect();
    world.deliver(records.iter().map(|record| ("k", record.clone()))).await;
    let rejected = world.rejected();
    assert_eq!(rejected.len(), bad.len());
    for (rejected, bytes) in rejected.iter().zip(&bad) {
        assert_eq!(&&rejected.data, bytes, "{}", rejected.reason);
    }
    let applied = world.profile("u").expect("a profile").applied_events as usize;
    assert_eq!(applied + bad.len(), records.len());
    println!("{applied} applied, {} rejected", bad.len());
}
