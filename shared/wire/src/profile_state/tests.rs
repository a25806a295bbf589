use std::fmt::Write as _;

use proptest::prelude::*;
use usher_domain::event::{ArrivedEvent, Event, Properties, Shard};
use usher_domain::hash::hash_bytes;
use usher_domain::limits::DEDUPE_LAST_MAX;
use usher_domain::plan::plan_user;
use usher_domain::snapshots::Snapshots;

use super::*;
use crate::{outcome, profile_json, trigger};

const DEFAULT_JOURNEY: &str = include_str!("../../../../journey/journey.yaml");
/// The names and small values of an item's attributes: user_id (36 bytes of id), version, state, updated_at, layout.
const ITEM_OVERHEAD_BYTES: usize = 110;
const WRITE_UNIT_BYTES: usize = 1024;
/// 2026-01-05T10:00:00Z.
const START_MS: i64 = 1_767_607_200_000;

const EVERYTHING: &str = r#"
journey: test
steps:
  - { id: a, on: click }
  - { id: b, on: view }
features:
  clicks: { count: click }
  views_10m: { count: view, within: 10m }
  sum: { sum: properties.n, on: any }
  sum_1h: { sum: properties.n, on: any, within: 1h }
  last: { last: properties.v, on: any }
  recent: { recent: properties.v, on: any, limit: 4 }
  first: { first_seen: any }
  latest: { last_seen: click }
  sessions: { sessions: count }
  distinct: { distinct: properties.v }
  distinct_2h: { distinct: properties.v, within: 2h }
  distinct_n: { distinct: properties.n }
  distinct_n_2h: { distinct: properties.n, within: 2h }
  least: { min: properties.n }
  greatest_1h: { max: properties.n, within: 1h }
  mean: { mean: properties.n }
  mean_7d: { mean: properties.n, within: 7d }
  first_v: { first: properties.v }
  last_1h: { last: properties.v, within: 1h }
  top: { top: properties.v, limit: 2 }
  top_12h: { top: category, within: 12h }
  rate: { rate: { of: click, to: view } }
  rate_3h: { rate: { of: click, to: any, prior: [2, 8] }, within: 3h }
  since: { time_since: click }
  since_first: { time_since_first: view }
  score: { score: { click: 2, view: 0.5 }, half_life: 1h }
  seen_items: { interacted_with: category, within: 12h }
  frequency: { frequency: click, unit: day }
  frequency_2h: { frequency: any, within: 2h }
  hours: { hour_of_day: any }
  weekdays: { weekday: click }
  s_count: { count: view, per: session }
  s_sum: { sum: properties.n, per: session }
  s_mean: { mean: properties.n, per: session }
  s_last: { last: properties.v, per: session }
  s_recent: { recent: properties.v, per: session }
  s_top: { top: properties.v, per: session }
  s_distinct: { distinct: properties.v, per: session }
  s_rate: { rate: { of: click, to: view }, per: session }
  took: { step_duration: { from: a, to: b } }
  sum_and_one: { expr: features.sum + 1.0 }
contents: [{ id: c }]
triggers:
  - { id: r, on: click, when: traits.plan != "x" && traits.age != 1, offer: c, slot: s }
  - { id: q, on: view, unless: features.clicks > 3, offer: c, slot: s, cooldown: 1h, priority: 2 }
"#;

fn journey(text: &str) -> Journey {
    Journey::parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", text)))
}

/// An event: its type, seconds after the start, the number `n`, the JSON of `v`, the traits, the shard.
type Drawn = (bool, i64, i64, &'static str, Option<&'static str>, usize);

fn fold(journey: &Journey, drawn: &[Drawn]) -> Profile {
    let shards: Vec<Shard> = (0..3)
        .map(|index| Shard {
            key: ShardKey(u64::MAX / 3 * index),
            id: format!("shardId-{index:012}"),
        })
        .collect();
    let properties: Vec<String> = drawn
        .iter()
        .map(|one| format!(r#"{{"n":{},"v":{}}}"#, one.2, one.3))
        .collect();
    let events: Vec<ArrivedEvent<'_>> = drawn
        .iter()
        .enumerate()
        .map(|(index, (is_click, seconds, _, _, traits, shard))| ArrivedEvent {
            event: Event {
                alias: None,
                id: format!("e{index}").into(),
                id_hash: hash_bytes(format!("e{index}").as_bytes()),
                event_type: if *is_click { "click" } else { "view" }.into(),
                at: Timestamp::from_epoch_ms(START_MS + seconds * 1000),
                clock: Default::default(),
                user: "u1".into(),
                session_id: None,
                content_id: None,
                category: Some(["forumng", "quiz", "url"][index % 3].into()),
                device_type: None,
                user_agent: None,
                location: Default::default(),
                properties: Properties {
                    object: Some(&properties[index]),
                    unknown: Vec::new(),
                },
                traits: *traits,
            },
            arrived_at: Timestamp::from_epoch_ms(START_MS + seconds * 1000 + 250),
            shard: &shards[*shard],
            position: Position {
                sequence_number: SequenceNumber::from_limbs([1, index as u64, index as u64 * 7]),
                sub_sequence_number: index as u64 % 2,
            },
        })
        .collect();
    plan_user(journey, Snapshots::none(), Profile::new(journey), &events).profile
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let value = prop::sample::select(
        &[
            "1",
            "-5",
            "1.5",
            "true",
            "\"text\"",
            "\"é\"",
            "null",
            "[]",
            "9007199254740993",
        ][..],
    );
    let traits = prop::option::of(prop::sample::select(
        &[r#"{"plan":"team"}"#, r#"{"age":3,"plan":null}"#][..],
    ));
    let one = (
        any::<bool>(),
        -90_000i64..90_000,
        any::<i64>(),
        value,
        traits,
        0usize..3,
    );
    prop::collection::vec(one, 0..40)
}

proptest! {
    #[test]
    fn p4_what_is_stored_is_read_back(drawn in drawn()) {
        for text in [EVERYTHING, DEFAULT_JOURNEY] {
            let journey = journey(text);
            let mut profile = fold(&journey, &drawn);
            profile.version = 7;
            let bytes = encode(&profile, &journey);
            prop_assert_eq!(&decode(&bytes, 7, "u1", &journey).expect("just written"), &profile);
            // The same profile is the same bytes, so a lost answer to a write can be told from a conflict.
            prop_assert_eq!(encode(&profile, &journey), bytes);
        }
    }

    #[test]
    fn p10_damaged_bytes_are_an_error_or_a_profile_and_never_a_panic(
        drawn in drawn(),
        cut in 0usize..2000,
        flips in prop::collection::vec((0usize..2000, any::<u8>()), 1..6),
    ) {
        let journey = journey(EVERYTHING);
        let bytes = encode(&fold(&journey, &drawn), &journey);
        if cut < bytes.len() {
            prop_assert!(decode(&bytes[..cut], 1, "u1", &journey).is_err(), "cut at {}", cut);
        }
        let mut flipped = bytes.clone();
        for (at, with) in flips {
            let at = at % flipped.len();
            flipped[at] ^= with;
        }
        if let Ok(profile) = decode(&flipped, 1, "u1", &journey) {
            // What it still is can be planned on, shown and written.
            let again = encode(&profile, &journey);
            prop_assert!(!again.is_empty());
            let now = profile.now;
            for index in 0..journey.features.len() {
                let _ = profile.feature(&journey, index, now).to_string();
            }
            let _ = profile.sessions.total_duration_ms();
        }
    }

    #[test]
    fn p10_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, 1, "u1", &journey(EVERYTHING));
    }
}

fn some_events() -> Vec<Drawn> {
    let plan = Some(r#"{"plan":"team","age":3}"#);
    vec![
        (true, 0, 5, "\"x\"", plan, 0),
        (false, 60, 7, "2", None, 1),
        (true, 120, 1, "\"y\"", None, 0),
    ]
}

#[test]
fn a_changed_journey_keeps_what_it_still_has() {
    let old = journey(EVERYTHING);
    let profile = fold(&old, &some_events());
    let bytes = encode(&profile, &old);
    for (what, text, clicks, sum, step_a, trait_plan, fired) in [
        (
            "the same",
            EVERYTHING.to_owned(),
            Some("2"),
            Some("13.0"),
            true,
            true,
            true,
        ),
        (
            "one feature less, others move up",
            EVERYTHING
                .replace("  clicks: { count: click }\n", "")
                .replace("unless: features.clicks > 3, ", ""),
            None,
            Some("13.0"),
            true,
            true,
            true,
        ),
        (
            "one feature changed, it starts anew",
            EVERYTHING.replace("{ count: click }", "{ count: view }"),
            Some("0"),
            Some("13.0"),
            true,
            true,
            true,
        ),
        (
            "one feature more, in front",
            EVERYTHING.replace("features:\n", "features:\n  new: { count: any }\n"),
            Some("2"),
            Some("13.0"),
            true,
            true,
            true,
        ),
        (
            "another kind under the same name",
            EVERYTHING.replace(
                "sum: { sum: properties.n, on: any }",
                "sum: { last: properties.n, on: any }",
            ),
            Some("2"),
            Some("null"),
            true,
            true,
            true,
        ),
        (
            "steps renamed",
            EVERYTHING.replace("id: a,", "id: z,").replace("from: a,", "from: z,"),
            Some("2"),
            Some("13.0"),
            false,
            true,
            true,
        ),
        (
            "a trait not read any more",
            EVERYTHING.replace("traits.plan != \"x\" && ", ""),
            Some("2"),
            Some("13.0"),
            true,
            false,
            true,
        ),
        (
            "a rule renamed",
            EVERYTHING.replace("id: r,", "id: rr,"),
            Some("2"),
            Some("13.0"),
            true,
            true,
            false,
        ),
    ] {
        let new = journey(&text);
        let read = decode(&bytes, 1, "u1", &new).expect(what);
        let value = |name: &str| {
            let index = new.features.iter().position(|feature| feature.name == name)?;
            Some(read.feature(&new, index, read.now).to_string())
        };
        assert_eq!(value("clicks").as_deref(), clicks, "{what}");
        assert_eq!(value("sum").as_deref(), sum, "{what}");
        assert_eq!(
            new.steps
                .iter()
                .zip(&read.steps)
                .any(|(step, done)| step.id == "a" && done.is_some()),
            step_a,
            "{what}"
        );
        assert_eq!(
            new.traits
                .iter()
                .zip(&read.traits)
                .any(|(name, known)| name == "plan" && known.is_some()),
            trait_plan,
            "{what}"
        );
        assert_eq!(
            new.rules
                .iter()
                .zip(&read.rules)
                .any(|(rule, state)| rule.id.starts_with('r') && state.fired > 0),
            fired,
            "{what}"
        );
        // What doesn't hang on the journey stays.
        assert_eq!(
            (read.applied_events, &read.guard, &read.sessions),
            (3, &profile.guard, &profile.sessions),
            "{what}"
        );
        assert_eq!(
            (&read.outbox, &read.recent_event_ids),
            (&profile.outbox, &profile.recent_event_ids),
            "{what}"
        );
    }
}

/// Everything that a profile says, as text.
fn told(profile: &Profile, journey: &Journey) -> String {
    let mut told = profile_json::to_json("u1", profile, journey, profile.now) + "\n";
    for (shard, position) in profile.guard.entries() {
        let Position {
            sequence_number,
            sub_sequence_number,
        } = position;
        writeln!(told, "guard {:016x} {sequence_number}.{sub_sequence_number}", shard.0).expect("to memory");
    }
    for hash in profile.recent_event_ids.hashes() {
        writeln!(told, "event id {hash:016x}").expect("to memory");
    }
    for (name, value) in journey.traits.iter().zip(&profile.traits) {
        let value = value
            .as_ref()
            .map(|dated| (&dated.value, dated.at.to_string(), dated.shard));
        writeln!(told, "trait {name} {value:?}").expect("to memory");
    }
    for (rule, state) in journey.rules.iter().zip(&profile.rules) {
        let last = state.last_fired_at.map(|at| at.to_string());
        writeln!(told, "rule {} {} {last:?}", rule.id, state.fired).expect("to memory");
        if let Some(within) = state.within_limit {
            writeln!(told, "  within its limit {} {}", within.scope, within.fired).expect("to memory");
        }
        if let Some(put_off) = &state.put_off {
            writeln!(told, "  put off {put_off:?}").expect("to memory");
        }
    }
    for offer in &profile.offers {
        let (rule, content, slot) = (offer.rule, offer.content, offer.slot);
        writeln!(told, "offer at {} {rule:08x} {content:08x} {slot:08x}", offer.at).expect("to memory");
    }
    for alias in &profile.aliases {
        writeln!(told, "alias {alias:016x}").expect("to memory");
    }
    if let Some(timezone) = &profile.timezone {
        writeln!(told, "time zone {timezone:?}").expect("to memory");
    }
    for offer in &profile.open_offers {
        writeln!(told, "open offer {offer:?}").expect("to memory");
    }
    let outcomes = profile.outcomes.iter().map(outcome::to_json);
    for json in profile.outbox.iter().map(trigger::to_json).chain(outcomes) {
        writeln!(told, "outbox {}", String::from_utf8_lossy(&json)).expect("to memory");
    }
    told
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Profiles that each layout's version of Usher wrote. They are in tables: the bytes never change, and a new layout adds
/// its own three files. So does what a layout learns to keep later on.
const LAYOUTS: [(u8, &str, &str, &str); 3] = [
    (
        1,
        include_str!("layouts/1.yaml"),
        include_str!("layouts/1.hex"),
        include_str!("layouts/1.txt"),
    ),
    (
        1,
        include_str!("layouts/1-rules.yaml"),
        include_str!("layouts/1-rules.hex"),
        include_str!("layouts/1-rules.txt"),
    ),
    (
        1,
        include_str!("layouts/1-offers.yaml"),
        include_str!("layouts/1-offers.hex"),
        include_str!("layouts/1-offers.txt"),
    ),
];

#[test]
fn a_profile_of_any_layout_is_read_and_written_in_the_present_one() {
    assert_eq!(LAYOUTS.map(|(number, ..)| number).last(), Some(&LAYOUT));
    for (number, journey_text, hex, expected) in LAYOUTS {
        let journey = journey(journey_text);
        let stored = from_hex(hex);
        assert_eq!(stored[1], number);
        let profile = decode(&stored, 7, "u1", &journey).expect("it was written by Usher");
        assert_eq!(told(&profile, &journey), expected, "layout {number}");
        let again = encode(&profile, &journey);
        assert_eq!(again[1], LAYOUT, "the next write is in the present layout");
        let upgraded = decode(&again, 7, "u1", &journey).expect("just written");
        assert_eq!(upgraded, profile, "layout {number}");
        if number == LAYOUT {
            assert_eq!(
                again, stored,
                "what is written now is what the file says, byte for byte"
            );
        }
    }
}

#[test]
fn a_layout_that_this_version_does_not_know_is_refused_with_what_to_do() {
    let journey = journey(EVERYTHING);
    let mut bytes = encode(&Profile::new(&journey), &journey);
    assert_eq!(bytes[1], LAYOUT, "the layout is the first number");
    for (layout, told) in [
        (0, "layout 0, which no version of Usher writes: restore the item"),
        (2, "layout 2, but this version reads up to 1: deploy the newer version"),
        (
            23,
            "layout 23, but this version reads up to 1: deploy the newer version",
        ),
    ] {
        bytes[1] = layout;
        let error = decode(&bytes, 1, "u1", &journey).expect_err("unknown").to_string();
        assert!(error.ends_with(told), "{error}");
    }
    for bytes in [&b""[..], b"\0", b"{}", b"\x80", b"\xff\xff"] {
        assert!(matches!(
            decode(bytes, 1, "u1", &journey),
            Err(ProfileStateError::Damaged(_))
        ));
    }
    // A list that says that it has 2^60 entries takes no memory.
    assert!(
        decode(
            b"\x8b\x01\x00\x00\x9b\x10\x00\x00\x00\x00\x00\x00\x00",
            1,
            "u1",
            &journey
        )
        .is_err()
    );
}

#[test]
fn p8_a_typical_profile_is_one_write_unit() {
    let journey = journey(DEFAULT_JOURNEY);
    // Two months of a student: a visit each day or two, a few clicks each.
    let events: Vec<Drawn> = (0..170i64)
        .map(|number| {
            let (visit, within) = (number / 6, number % 6);
            (within % 2 == 1, visit * 130_000 + within * 40, 30_000, "1", None, 0)
        })
        .collect();
    let mut sizes = Vec::new();
    for count in [1, 10, 50, 170] {
        let mut profile = fold(&journey, &events[..count]);
        profile.outbox.clear();
        sizes.push((count, encode(&profile, &journey).len()));
    }
    println!("bytes of state after so many events: {sizes:?}");
    for (count, bytes) in sizes {
        assert!(
            bytes + ITEM_OVERHEAD_BYTES <= WRITE_UNIT_BYTES,
            "{bytes} after {count} events"
        );
    }
}

#[test]
fn p8_the_largest_profile_that_a_journey_can_ask_for_fits_an_item() {
    let journey = journey(&format!(
        "journey: j\ndedupe: {{ last: {DEDUPE_LAST_MAX} }}\nfeatures:\n  w: {{ count: any, within: 90d }}\n"
    ));
    let events: Vec<Drawn> = (0..5000)
        .map(|number| (true, number * 90 * 60, 1, "1", None, 0))
        .collect();
    let bytes = encode(&fold(&journey, &events), &journey).len();
    assert!(bytes < 60 * 1024, "{bytes}");
}

/// What every kind of feature is said to cost at most holds for whatever comes, and what a typical one costs is about right.
#[test]
fn p8_no_item_is_larger_than_estimated() {
    let journey = journey(EVERYTHING);
    let estimate = usher_domain::estimate::estimated_bytes(&journey);
    let random = |count: usize, spread_s: i64| -> Vec<Drawn> {
        (0..count as i64)
            .map(|number| {
                let scattered = number.wrapping_mul(7_919).rem_euclid(spread_s) - spread_s / 2;
                let value = ["1", "true", "\"text\"", "\"another\"", "2.5"][number as usize % 5];
                (
                    number % 3 == 0,
                    scattered,
                    number * 1_000_003,
                    value,
                    None,
                    number as usize % 3,
                )
            })
            .collect()
    };
    for (count, spread_s) in [(10, 80_000), (300, 7_000), (3000, 80_000), (20_000, 170_000)] {
        let mut profile = fold(&journey, &random(count, spread_s));
        profile.outbox.clear();
        let bytes = encode(&profile, &journey).len();
        assert!(bytes < estimate.bytes.worst, "{bytes} of {}", estimate.bytes.worst);
        for (feature, state) in journey.features.iter().zip(&profile.features) {
            let Some(stored) = store_state(state, Times { now: profile.now }) else {
                continue;
            };
            let stored = StoredFeature {
                fingerprint: feature.fingerprint,
                state: Some(stored),
            };
            let bytes = minicbor::to_vec(&stored).expect("memory").len();
            let estimated = feature.computation.item_bytes();
            assert!(
                bytes <= estimated.worst,
                "{}: {bytes} of {estimated:?} after {count}",
                feature.name
            );
            if count == 10 {
                println!(
                    "{:<14} {bytes:>4} bytes after {count} events, estimated {estimated:?}",
                    feature.name
                );
            }
        }
    }
    // A typical user of the default journey.
    let journey = self::journey(DEFAULT_JOURNEY);
    let events: Vec<Drawn> = (0..60i64)
        .map(|number| {
            (
                number % 2 == 1,
                number / 6 * 130_000 + number % 6 * 40,
                30_000,
                "1",
                None,
                0,
            )
        })
        .collect();
    let mut profile = fold(&journey, &events);
    profile.outbox.clear();
    let item = encode(&profile, &journey).len() + ITEM_OVERHEAD_BYTES;
    let typical = usher_domain::estimate::estimated_bytes(&journey).bytes.typical;
    println!("a typical item has {item} bytes, estimated {typical}");
    assert!((item * 3 / 4..item * 4 / 3).contains(&typical), "{item} {typical}");
}

/// A newer version may know more kinds of features. Their state is read over, and everything else stays.
#[test]
fn a_kind_of_a_newer_version_is_read_over() {
    let journey = journey("journey: j\nfeatures:\n  a: { count: any }\n  b: { sum: properties.n, on: any }\n");
    let profile = fold(&journey, &some_events());
    let mut bytes = encode(&profile, &journey);
    // The state of `a`, as `store_state` gives it: an array of the kind 0 and an array of the number 3.
    let stored = [0x82, 0x00, 0x81, 0x03];
    let at = bytes
        .windows(stored.len())
        .position(|window| window == stored)
        .expect("the count");
    bytes[at + 1] = 0x17;
    let read = decode(&bytes, 1, "u1", &journey).expect("a profile");
    let value = |index| read.feature(&journey, index, read.now).to_string();
    assert_eq!((value(0).as_str(), value(1).as_str()), ("0", "13.0"));
    assert_eq!((read.applied_events, &read.guard), (3, &profile.guard));
}
