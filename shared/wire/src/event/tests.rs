use std::path::{Path, PathBuf};

use proptest::prelude::*;
use usher_domain::event::Field;
use usher_domain::value::Value;

use super::*;

/// 2026-01-05T10:00:00Z: when every record of these tests arrives.
const ARRIVED_MS: i64 = 1_767_607_200_000;

fn arrived() -> Timestamp {
    Timestamp::from_epoch_ms(ARRIVED_MS)
}

/// An event that is right, with these members besides, which win over its own.
fn event(members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    let own = r#""event_id":"e1","event_type":"click","timestamp":"2026-01-05T09:59:00Z","user_id":"u1""#;
    format!("{{{own}{comma}{members}}}")
}

fn read(json: &str) -> Event<'_> {
    decode(json.as_bytes(), arrived()).unwrap_or_else(|reject| panic!("{json}: {reject}"))
}

/// A row: bytes, reason, field, and a part of the detail.
fn check_reject(bytes: &[u8], reason: RejectReason, field: &str, detail: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let reject = decode(bytes, arrived()).expect_err(&shown);
    assert_eq!((reject.reason, reject.field), (reason, field), "{shown}: {reject}");
    assert!(reject.detail.contains(detail), "{shown}: {reject}");
}

#[test]
fn each_reject_names_its_reason_and_the_field_at_fault() {
    use RejectReason::*;
    let long = "x".repeat(257);
    let rows = [
        (event(r#""event_id":null"#), MissingField, "event_id", "required"),
        (event(r#""event_id":"""#), MissingField, "event_id", "empty"),
        (event(r#""event_id":"  \t ""#), MissingField, "event_id", "empty"),
        (
            event(&format!(r#""event_id":"{}""#, &long[..65])),
            TooLong,
            "event_id",
            "65 bytes, at most 64",
        ),
        (event(r#""event_id":7"#), WrongType, "event_id", "expected text"),
        (event(r#""event_type":null"#), MissingField, "event_type", "required"),
        (event(r#""event_type":" ""#), MissingField, "event_type", "empty"),
        (
            event(&format!(r#""event_type":"{}""#, &long[..65])),
            TooLong,
            "event_type",
            "at most 64",
        ),
        (
            event(r#""event_type":["click"]"#),
            WrongType,
            "event_type",
            "expected text",
        ),
        (event(r#""timestamp":null"#), MissingField, "timestamp", "required"),
        (
            event(r#""timestamp":"yesterday""#),
            BadTimestamp,
            "timestamp",
            "RFC 3339",
        ),
        (
            event(r#""timestamp":"2026-01-05T09:59:00""#),
            BadTimestamp,
            "timestamp",
            "offset",
        ),
        (
            event(r#""timestamp":"2026-13-05T09:59:00Z""#),
            BadTimestamp,
            "timestamp",
            "RFC 3339",
        ),
        (
            event(r#""timestamp":"1969-12-31T23:59:59Z""#),
            BadTimestamp,
            "timestamp",
            "before 1970",
        ),
        (
            event(r#""timestamp":1767607200"#),
            WrongType,
            "timestamp",
            "expected text",
        ),
        (
            event(r#""timestamp":"2026-01-06T10:00:01Z""#),
            BadTimestamp,
            "timestamp",
            "more than a day ahead",
        ),
        (
            event(r#""timestamp":"9999-12-30T00:00:00Z""#),
            BadTimestamp,
            "timestamp",
            "more than a day ahead",
        ),
        (event(r#""sent_at":"soon""#), BadTimestamp, "sent_at", "RFC 3339"),
        (event(r#""sent_at":{}"#), WrongType, "sent_at", "expected text"),
        (
            event(r#""user_id":null"#),
            MissingField,
            "user_id",
            "`user_id` or an `anonymous_id`",
        ),
        (
            event(r#""user_id":"""#),
            MissingField,
            "user_id",
            "`user_id` or an `anonymous_id`",
        ),
        (
            event(r#""user_id":" ","anonymous_id":" ""#),
            MissingField,
            "user_id",
            "`user_id` or an `anonymous_id`",
        ),
        (event(r#""user_id":{"id":1}"#), WrongType, "user_id", "expected text"),
        (
            event(&format!(r#""user_id":"{long}""#)),
            TooLong,
            "user_id",
            "257 bytes, at most 256",
        ),
        (event(r#""user_id":"anonymous:a""#), Reserved, "user_id", "reserved"),
        (
            event(&format!(r#""anonymous_id":"{}""#, &long[..247])),
            TooLong,
            "anonymous_id",
            "at most 246",
        ),
        (
            event(r#""event_type":"alias","previous_id":"anonymous:a""#),
            Reserved,
            "previous_id",
            "reserved",
        ),
        (
            event(&format!(r#""event_type":"alias","previous_id":"{long}""#)),
            TooLong,
            "previous_id",
            "257 bytes, at most 256",
        ),
        (
            event(r#""event_type":"alias","previous_id":{"id":1}"#),
            WrongType,
            "previous_id",
            "expected a text",
        ),
        (
            event(r#""event_type":"alias","previous_id":"u0","user_id":null,"anonymous_id":"a1""#),
            MissingField,
            "user_id",
            "needs a `user_id`",
        ),
        (
            event(&format!(r#""user_id":null,"anonymous_id":"{}""#, &long[..247])),
            TooLong,
            "anonymous_id",
            "at most 246",
        ),
        (
            event(r#""anonymous_id":true"#),
            WrongType,
            "anonymous_id",
            "expected text",
        ),
        (event(r#""session_id":1"#), WrongType, "session_id", "expected text"),
        (
            event(&format!(r#""session_id":"{long}""#)),
            TooLong,
            "session_id",
            "at most 256",
        ),
        (
            event(&format!(r#""content_id":"{long}""#)),
            TooLong,
            "content_id",
            "at most 256",
        ),
        (
            event(&format!(r#""category":"{long}""#)),
            TooLong,
            "category",
            "at most 256",
        ),
        (
            event(&format!(r#""device_type":"{long}""#)),
            TooLong,
            "device_type",
            "at most 256",
        ),
        (event(r#""user_agent":[]"#), WrongType, "user_agent", "expected text"),
        (
            event(r#""location":"GB""#),
            WrongType,
            "location",
            "country, region, city",
        ),
        (
            event(r#""location":{"country":44}"#),
            WrongType,
            "location",
            "expected text",
        ),
        (
            event(&format!(r#""location":{{"city":"{long}"}}"#)),
            TooLong,
            "location.city",
            "at most 256",
        ),
        (
            event(r#""properties":[]"#),
            WrongType,
            "properties",
            "expected an object",
        ),
        (
            event(r#""properties":"a""#),
            WrongType,
            "properties",
            "expected an object",
        ),
        (event(r#""traits":1"#), WrongType, "traits", "expected an object"),
        (
            event(r#""schema_version":2"#),
            UnknownSchemaVersion,
            "schema_version",
            "version 2",
        ),
        (
            event(r#""schema_version":"1""#),
            WrongType,
            "schema_version",
            "invalid type",
        ),
        (
            event(r#""schema_version":-1"#),
            WrongType,
            "schema_version",
            "invalid value",
        ),
        (
            event(&format!(r#""properties":{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40))),
            TooDeep,
            "properties",
            "deeper than 32",
        ),
        (
            event(&format!(r#""traits":{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40))),
            TooDeep,
            "traits",
            "deeper than 32",
        ),
        (
            event(&format!(r#""other":{}{}"#, "[".repeat(40), "]".repeat(40))),
            TooDeep,
            "properties",
            "deeper than 32",
        ),
        (
            event(&(0..300).map(|i| format!(r#""m{i}":1"#)).collect::<Vec<_>>().join(",")),
            TooManyMembers,
            "properties",
            "over 256",
        ),
        ("not json".to_owned(), NotJson, "", "expected"),
        (String::new(), NotJson, "", "EOF"),
        ("null".to_owned(), NotJson, "", "an event: a JSON object"),
        ("[]".to_owned(), NotJson, "", "an event: a JSON object"),
        ("\"event\"".to_owned(), NotJson, "", "an event: a JSON object"),
        ("{}".to_owned(), MissingField, "event_id", "required"),
        (event("") + "x", NotJson, "", "trailing"),
        (event("") + &event(""), NotJson, "", "trailing"),
        (event("")[..33].to_owned(), NotJson, "event_type", "EOF"),
        (event(r#""properties":{"a":}"#), NotJson, "properties", "expected value"),
        ("[".repeat(1 << 20), NotJson, "", ""),
        (r#"{"a":"#.repeat(1 << 18), NotJson, "", ""),
        (
            event(&format!(r#""properties":{}"#, "[".repeat(1 << 20))),
            NotJson,
            "properties",
            "",
        ),
        (
            event(&format!(r#""properties":{}"#, r#"{"a":"#.repeat(1 << 18))),
            NotJson,
            "properties",
            "",
        ),
    ];
    for (json, reason, field, detail) in rows {
        check_reject(json.as_bytes(), reason, field, detail);
    }
    check_reject(b"\xff\xfe", NotUtf8, "", "from byte 0");
    check_reject(
        event(r#""category":"@""#).replace('@', "\u{1}").as_bytes(),
        NotJson,
        "category",
        "control character",
    );
    let mut latin1 = event(r#""category":"@""#).into_bytes();
    let at = latin1.iter().position(|byte| *byte == b'@').expect("there");
    latin1[at] = 0xe9;
    check_reject(&latin1, NotUtf8, "", "from byte");
    check_reject(b"\0", NotJson, "", "");
    check_reject(&vec![b' '; EVENT_BYTES_MAX + 1], TooLarge, "", "at most 10485760");
}

#[test]
fn a_whole_event_is_read_and_normalised() {
    let json = r#" { "schema_version" : 1, "event_id":" e1 ","event_type":"Page_View ","timestamp":" 2026-01-05T11:59:00.5+02:00",
        "user_id":"\tU1","anonymous_id":"a1","session_id":" s ","content_id":"C1","category":"Cat","device_type":"Mobile",
        "user_agent":" curl ","location":{"country":"gbr","region":" R","city":"","timezone":"Europe/London","planet":"earth"},
        "properties":{"a":{"b":1}},"traits":{"plan":"team"},"extra":[1,{"x":"y"}],"plan":null} "#;
    let event = read(json);
    assert_eq!(
        (event.id.as_ref(), event.event_type.as_ref(), event.user.as_ref()),
        ("e1", "page_view", "U1")
    );
    assert_eq!(
        (event.at.epoch_ms() - ARRIVED_MS, event.clock),
        (-59_500, ClockMark::AsWritten)
    );
    assert_eq!(event.session_id.as_deref(), Some("s"));
    assert_eq!(
        (event.content_id.as_deref(), event.category.as_deref()),
        (Some("C1"), Some("Cat"))
    );
    assert_eq!(
        (event.device_type.as_deref(), event.user_agent.as_deref()),
        (Some("mobile"), Some("curl"))
    );
    assert_eq!(
        (event.location.country.as_deref(), event.location.region.as_deref()),
        (Some("GB"), Some("R"))
    );
    assert_eq!(
        (event.location.city.as_deref(), event.location.timezone.as_deref()),
        (None, Some("Europe/London"))
    );
    assert_eq!(event.traits, Some(r#"{"plan":"team"}"#));
    assert_eq!(event.id_hash, hash_bytes(b"e1"));
    // Unknown members are kept, under properties.
    for (path, expected) in [
        ("properties.a.b", Some(Value::Int(1))),
        ("properties.extra", Some(Value::Json(r#"[1,{"x":"y"}]"#))),
        ("properties.plan", Some(Value::Null)),
        ("properties.nope", None),
    ] {
        assert_eq!(event.field(&Field::parse(path).expect(path)), expected, "{path}");
    }
}

/// An event with two ids names the other profile too; with one it names none.
#[test]
fn an_event_tells_which_other_profile_is_the_same_users() {
    let long = "x".repeat(246);
    for (members, user, alias) in [
        ("", "u1", None),
        (r#""anonymous_id":"a1""#, "u1", Some("anonymous:a1")),
        (r#""anonymous_id":" a1 ""#, "u1", Some("anonymous:a1")),
        (r#""anonymous_id":" ""#, "u1", None),
        (r#""anonymous_id":null"#, "u1", None),
        (r#""anonymous_id":"u1""#, "u1", Some("anonymous:u1")),
        (r#""user_id":null,"anonymous_id":"a1""#, "anonymous:a1", None),
        (
            &format!(r#""anonymous_id":"{long}""#),
            "u1",
            Some(&format!("anonymous:{long}")),
        ),
        // What else has a member of that name keeps it among its properties.
        (r#""previous_id":"u0""#, "u1", None),
        (r#""event_type":"alias","previous_id":"u0""#, "u1", Some("u0")),
        (r#""event_type":" Alias","previous_id":" u0 ""#, "u1", Some("u0")),
        (r#""previous_id":"u\u0030","event_type":"alias""#, "u1", Some("u0")),
        (
            r#""event_type":"alias","previous_id":"x","previous_id":"u0""#,
            "u1",
            Some("u0"),
        ),
        (r#""event_type":"alias","previous_id":"u1""#, "u1", None),
        (r#""event_type":"alias","previous_id":"""#, "u1", None),
        (r#""event_type":"alias","previous_id":null"#, "u1", None),
        (r#""event_type":"alias""#, "u1", None),
        (
            r#""event_type":"alias","anonymous_id":"a1""#,
            "u1",
            Some("anonymous:a1"),
        ),
        (
            r#""event_type":"alias","previous_id":"u0","anonymous_id":"a1""#,
            "u1",
            Some("u0"),
        ),
        (
            r#""event_type":"alias","previous_id":"u1","anonymous_id":"a1""#,
            "u1",
            Some("anonymous:a1"),
        ),
    ] {
        let json = event(members);
        let event = read(&json);
        assert_eq!(
            (event.user.as_ref(), event.alias.as_deref()),
            (user, alias),
            "{members}"
        );
    }
    let json = event(r#""event_type":"alias","previous_id":"u0""#);
    let previous = Field::parse("properties.previous_id").expect("a field");
    assert_eq!(read(&json).field(&previous), Some(Value::Text("u0".into())));
}

#[test]
fn odd_but_right_events_are_read() {
    for (members, what) in [
        (
            r#""event_id":"first","event_id":"e1""#,
            "of a member that is there twice the last counts",
        ),
        (
            r#""location":null,"properties":null,"traits":null,"schema_version":null,"sent_at":null"#,
            "null is none",
        ),
        (
            r#""properties":{"a":1e400,"b":-0,"c":123456789012345678901234567890}"#,
            "huge numbers are somebody else's",
        ),
        (r#""\u0063ategory":"x""#, "an escaped name"),
        (r#""location":{"country":"GB","country":"DE"}"#, "twice within"),
        (r#""x":1,"x":2"#, "an unknown member twice"),
        (r#""category":"\ud83d\ude00""#, "a pair of surrogates"),
    ] {
        let json = event(members);
        assert_eq!(read(&json).id, "e1", "{what}");
    }
    assert_eq!(read(&event(r#""\u0063ategory":"x""#)).category.as_deref(), Some("x"));
    assert_eq!(
        read(&event(r#""user_id":null,"anonymous_id":"a1""#)).user,
        "anonymous:a1"
    );
    assert_eq!(
        read(&event(r#""anonymous_id":"a1""#)).user,
        "u1",
        "a known user is who it is"
    );
    let agent = r#""user_agent":"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1""#;
    assert_eq!(
        read(&event(agent)).device_type.as_deref(),
        Some("mobile"),
        "told by the user agent"
    );
    let both = format!(r#"{agent},"device_type":"TV""#);
    assert_eq!(
        read(&event(&both)).device_type.as_deref(),
        Some("tv"),
        "what the producer says wins"
    );
    // At the limits.
    for (field, bytes) in [
        ("event_id", 64),
        ("event_type", 64),
        ("user_id", 256),
        ("content_id", 256),
    ] {
        read(&event(&format!(r#""{field}":"{}""#, "x".repeat(bytes))));
    }
    read(&event(&format!(
        r#""properties":{}{}"#,
        r#"{"a":"#.repeat(31).trim_end_matches(r#"{"a":"#).to_owned() + &r#"{"a":"#.repeat(30),
        "1".to_owned() + &"}".repeat(30)
    )));
}

#[test]
fn p11_a_clock_that_runs_ahead_is_corrected_clamped_or_refused() {
    const MINUTE: i64 = 60;
    const DAY: i64 = 24 * 60 * MINUTE;
    // Seconds from the arrival: timestamp, sent_at, then the time taken and how.
    for (timestamp, sent_at, expected, clock) in [
        (-60, None, -60, ClockMark::AsWritten),
        (-400 * DAY, None, -400 * DAY, ClockMark::AsWritten),
        (5 * MINUTE, None, 5 * MINUTE, ClockMark::AsWritten),
        (5 * MINUTE + 1, None, 0, ClockMark::Clamped),
        (DAY, None, 0, ClockMark::Clamped),
        (-60, Some(-50), -60, ClockMark::AsWritten),
        (3590, Some(3600), -10, ClockMark::Corrected),
        (3600, Some(3600), 0, ClockMark::Corrected),
        (7200, Some(3600), 0, ClockMark::Clamped),
        (2 * DAY - 10, Some(2 * DAY), -10, ClockMark::Corrected),
        (60, Some(-60), 60, ClockMark::AsWritten),
    ] {
        let at = |seconds: i64| Timestamp::from_epoch_ms(ARRIVED_MS + seconds * 1000);
        let sent = sent_at.map_or_else(String::new, |seconds| format!(r#","sent_at":"{}""#, at(seconds)));
        let json = event(&format!(r#""timestamp":"{}"{sent}"#, at(timestamp)));
        let event = read(&json);
        assert_eq!(
            (event.at, event.clock),
            (at(expected), clock),
            "{timestamp} {sent_at:?}"
        );
    }
    check_reject(
        event(&format!(
            r#""timestamp":"{}""#,
            Timestamp::from_epoch_ms(ARRIVED_MS + (DAY + 1) * 1000)
        ))
        .as_bytes(),
        RejectReason::BadTimestamp,
        "timestamp",
        "more than a day",
    );
}

#[test]
fn time_and_user_are_told_without_the_rest() {
    assert_eq!(time_of(event("").as_bytes()), "2026-01-05T09:59:00Z".parse().ok());
    assert_eq!(
        time_of(event(r#""sent_at":"2026-01-05T09:59:30Z""#).as_bytes()),
        "2026-01-05T09:59:30Z".parse().ok()
    );
    assert_eq!(user_of(event("").as_bytes()).as_deref(), Some("u1"));
    assert_eq!(
        user_of(event(r#""user_id":null,"anonymous_id":"x""#).as_bytes()).as_deref(),
        Some("anonymous:x")
    );
    for bytes in [&b"\xff"[..], b"", b"{}", b"[]"] {
        assert_eq!((time_of(bytes), user_of(bytes)), (None, None));
    }
}

// ---- the two ways of reading agree

/// Whatever the quick way reads, the thorough way reads as the same.
fn check_both_ways(text: &str) {
    let mut quick = RawEvent::default();
    if parse_usual(text, &mut quick).is_some() {
        let thorough = parse_any(text).unwrap_or_else(|reject| panic!("{text}: {reject}"));
        assert_eq!(quick, thorough, "{text}");
    }
}

#[test]
fn a_usual_event_is_read_the_quick_way() {
    let json = event(
        r#""schema_version":1,"location":{"country":"GB"},"properties":{"a":[1]},"traits":null,"x":"y","category":"a\nb""#,
    );
    assert!(parse_usual(&json, &mut RawEvent::default()).is_some());
    check_both_ways(&json);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn p10_both_ways_of_reading_agree_on_damaged_events(
        members in prop::collection::vec((
            prop::sample::select(&["event_id", "event_type", "user_id", "anonymous_id", "previous_id", "category", "location", "properties", "traits", "schema_version", "x", "\\u0078"][..]),
            prop::sample::select(&["null", "1", "01", "1.0", "-1", "\"a\"", "\"alias\"", "\"\\n\"", "\"\\ud800\"", "{}", "{\"country\":\"GB\"}", "{\"city\":null}",
                "{\"a\":[1,{}]}", "[]", "true", "tru", "nul", "\"", "{\"a\":1,}", "{\"city\":1}", "1e400"][..]),
        ), 0..6),
        space in prop::sample::select(&["", " ", "\n\t", "\u{a0}"][..]),
        cut in prop::option::of(0usize..200),
        swap in prop::option::of((0usize..200, prop::sample::select(&["\"", "\\", "{", "}", ",", ":", "\u{1}", "é", " "][..]))),
    ) {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{value}{space}")).collect();
        let mut text = event(&members.join(","));
        if let Some((at, with)) = swap && text.is_char_boundary(at) && text.is_char_boundary(at + 1) && at < text.len() {
            text.replace_range(at..at + 1, with);
        }
        if let Some(cut) = cut && text.is_char_boundary(cut) {
            text.truncate(cut);
        }
        check_both_ways(&text);
        let _ = decode(text.as_bytes(), arrived());
    }

    #[test]
    fn p10_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, arrived());
        let _ = (time_of(&bytes), user_of(&bytes));
    }
}

// ---- public test data

/// A file of the shared test data; tests that need it say so and pass where it is not.
fn shared(path: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/wire")
        .join(path);
    if !file.exists() {
        println!("skipped: {path} is not there");
        return None;
    }
    Some(file)
}

/// A file of the test data in this repository.
fn repository_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data")
        .join(name)
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

#[test]
fn p10_the_json_test_suite_is_taken_or_refused_as_it_says() {
    use std::io::Read;
    let path = repository_data("JSONTestSuite.tar.gz");
    let mut archive = Vec::new();
    let file = std::fs::File::open(path).expect("readable");
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut archive)
        .expect("gzip");
    let (mut right, mut wrong, mut either) = (0, 0, 0);
    for (name, bytes) in untar(&archive) {
        let Some(name) = name.rsplit('/').next().filter(|name| name.ends_with(".json")) else {
            continue;
        };
        // As a record of its own it is never an event; as a member of one it is kept or refused.
        assert!(decode(&bytes, arrived()).is_err(), "{name} is no event");
        let mut members = event(r#""member":@"#).into_bytes();
        let at = members.iter().position(|byte| *byte == b'@').expect("there");
        members.splice(at..=at, bytes.iter().copied());
        let decoded = decode(&members, arrived());
        match name.as_bytes()[0] {
            b'y' => {
                right += 1;
                // The value is kept as its text, so what is in it doesn't matter, but for its depth.
                assert!(decoded.is_ok(), "{name}: {decoded:?}");
            }
            b'n' if SPLICED_WELL.contains(&name) => {}
            b'n' => {
                wrong += 1;
                assert!(decoded.is_err(), "{name} is not JSON, but was read: {decoded:?}");
            }
            _ => either += 1,
        }
        if let Ok(text) = std::str::from_utf8(&members) {
            check_both_ways(text);
        }
    }
    println!("{right} right, {wrong} wrong, {either} either way");
    assert!(right > 50 && wrong > 100, "{right} {wrong}");
}

/// Not JSON on their own, but within the braces of an event they become so.
const SPLICED_WELL: &[&str] = &[];

#[test]
fn p10_naughty_strings_are_kept_as_they_are_or_refused_with_a_reason() {
    let path = repository_data("blns.json");
    let strings: Vec<String> = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("a JSON list");
    let mut kept = 0;
    for naughty in &strings {
        let quoted = serde_json::to_string(naughty).expect("text");
        for field in [
            "event_id",
            "event_type",
            "user_id",
            "content_id",
            "category",
            "session_id",
        ] {
            let json = event(&format!(r#""{field}":{quoted}"#));
            check_both_ways(&json);
            match decode(json.as_bytes(), arrived()) {
                Ok(event) => {
                    let trimmed = naughty.trim();
                    let expected = if field == "event_type" {
                        trimmed.to_lowercase()
                    } else {
                        trimmed.to_owned()
                    };
                    let name = match field {
                        "event_id" => "id",
                        "event_type" => "type",
                        other => other,
                    };
                    let value = event.field(&Field::parse(name).expect(name));
                    let found = match &value {
                        Some(Value::Text(text)) => text.as_ref(),
                        _ => "",
                    };
                    assert_eq!(found, expected, "{field}");
                    kept += 1;
                }
                Err(reject) => assert_eq!(reject.field, field, "{naughty:?}: {reject}"),
            }
        }
        let json = event(&format!(r#""properties":{{"p":{quoted}}}"#));
        let event = read(&json);
        let value = event.field(&Field::Property(vec!["p".to_owned()]));
        assert_eq!(value, Some(Value::Text(naughty.as_str().into())));
    }
    assert!(kept > strings.len() * 5, "{kept} of {}", strings.len() * 6);
}

#[test]
fn lambdas_own_example_events_are_read() {
    for (file, records) in [
        ("lambda/example-kinesis-event.json", 2),
        ("lambda/example-kinesis-event-encrypted.json", 2),
        ("lambda/kinesisStreamEvent.json", 2),
        ("lambda/kinesisStreamEventOneRecord.json", 1),
    ] {
        let Some(path) = shared(file) else { continue };
        let payload = std::fs::read_to_string(path).expect("readable");
        let envelope = crate::envelope::Envelope::parse(&payload).unwrap_or_else(|error| panic!("{file}: {error:?}"));
        assert_eq!(envelope.records.len(), records, "{file}");
        let batch = crate::batch::DecodedBatch::decode(&envelope);
        assert!(batch.records().all(|record| record.is_ok()), "{file}");
    }
}
