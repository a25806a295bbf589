//! Small things that become large, and large things: each runs in a process of its own, whose memory at its peak and time are
//! bounded and whose stack is that of any thread.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use usher_domain::journey::Journey;
use usher_domain::limits::{DIAGNOSTICS_MAX, EVENT_BYTES_MAX, JOURNEY_BYTES_MAX, WALKED_BYTES_MAX};
use usher_wire::batch::{DECODED_BYTES_MAX, DECOMPRESSED_BYTES_MAX};
use usher_wire::envelope::Envelope;

use super::{World, event, gzip};

const MIB: usize = 1024 * 1024;
/// What a process of this test takes before it does anything, and about as much again.
const BASE_MIB: usize = 64;
/// Far more than any of them takes, also on a machine that does much else.
const TIME_MAX: Duration = Duration::from_secs(120);
/// How often it is looked whether a process has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Which bomb a process is to set off.
const BOMB: &str = "USHER_TEST_BOMB";

const JOURNEY: &str = r#"
journey: bombs
features:
  clicks: { count: click }
  sum: { sum: properties.n, on: any }
  last: { last: properties.n, on: any }
"#;

struct Bomb {
    name: &'static str,
    /// What it may take beyond [`BASE_MIB`], its own input included.
    mib_max: usize,
    run: fn(),
}

/// Delivers records and holds what is on `rejected` to this.
fn check(journey: &str, records: Vec<Vec<u8>>, reasons: &[&str], applied: u64) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::in_memory(journey);
        let invocations = world.deliver(records.into_iter().map(|data| ("k", data))).await;
        assert_eq!(world.reasons(), reasons);
        let profile = world.profile("u");
        assert_eq!(profile.map_or(0, |profile| profile.applied_events), applied);
        invocations
    })
}

/// One record, and the reason for which it is rejected; nothing where it is applied.
fn check_one(record: impl Into<Vec<u8>>, reason: Option<&str>) {
    check(
        JOURNEY,
        vec![record.into()],
        reason.as_slice(),
        u64::from(reason.is_none()),
    );
}

/// An event with this value as a property.
fn with_property(value: &str) -> String {
    event("u", 1, &format!(r#""properties":{{"n":{value}}}"#))
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A journey that is wrong; gives its errors as people see them.
fn wrong_journey(text: &str) -> String {
    let errors = Journey::parse(text).expect_err("it is wrong");
    assert!(errors.errors.len() <= DIAGNOSTICS_MAX + 1);
    let rendered = errors.render("journey.yaml", text);
    assert!(rendered.len() < MIB, "{} bytes", rendered.len());
    rendered
}

/// `count` items, each made from its number, with a comma between them.
fn joined(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

const BOMBS: &[Bomb] = &[
    Bomb {
        name: "gzip that expands a thousand times",
        // The innermost of its own input has 100 MiB.
        mib_max: 120,
        run: || {
            let bomb = gzip(&vec![b' '; EVENT_BYTES_MAX + 1]);
            assert!(bomb.len() * 1000 < EVENT_BYTES_MAX);
            check_one(bomb, Some("too_large"));
            check_one(gzip(&vec![b' '; EVENT_BYTES_MAX]), Some("not_json"));
            // Bombs within a bomb stay what they are.
            check_one(gzip(&gzip(&vec![b' '; 100 * MIB])), Some("not_utf8"));
        },
    },
    Bomb {
        name: "a batch of gzip bombs that are thrown away",
        mib_max: 60,
        run: || {
            let bomb = gzip(&vec![0; EVENT_BYTES_MAX + 1]);
            let bombs = DECOMPRESSED_BYTES_MAX / EVENT_BYTES_MAX * 3 / 2;
            let mut records = vec![bomb; bombs];
            records.push(event("u", 1, "").into_bytes());
            let mut reasons = vec!["too_large"; bombs];
            let invocations = check(JOURNEY, records.clone(), &reasons, 1);
            assert_eq!(invocations, 2, "it is cut by the time that it takes");
            // Broken at the end only, so that it is decompressed for nothing.
            let mut broken = gzip(&vec![0; EVENT_BYTES_MAX]);
            let crc = broken.len() - 8;
            broken[crc] ^= 1;
            records[..bombs].fill(broken);
            reasons.fill("not_gzip");
            assert_eq!(check(JOURNEY, records, &reasons, 1), 2);
        },
    },
    Bomb {
        name: "a batch of large events",
        mib_max: 2 * (DECODED_BYTES_MAX + EVENT_BYTES_MAX) / MIB + 40,
        run: || {
            let large = |number| {
                let text = "x".repeat(EVENT_BYTES_MAX - 1000);
                gzip(event("u", number, &format!(r#""properties":{{"t":"{text}"}}"#)).as_bytes())
            };
            let events = DECODED_BYTES_MAX / EVENT_BYTES_MAX * 2;
            let records = (0..events).map(large).collect();
            let invocations = check(JOURNEY, records, &[], events as u64);
            assert_eq!(invocations, 2, "it is cut by the memory that it takes");
        },
    },
    Bomb {
        name: "a hundred thousand events of one user, and of as many users",
        // The payload alone has 60 MB, ten times what Lambda hands over.
        mib_max: 480,
        run: || {
            let events = |user: fn(usize) -> String| {
                let event = |number| event(&user(number), number, "").into_bytes();
                (0..100_000).map(event).collect()
            };
            check(JOURNEY, events(|_| "u".to_owned()), &[], 100_000);
            check(JOURNEY, events(|number| format!("u-{number}")), &[], 0);
        },
    },
    Bomb {
        name: "a gzip record of many members",
        mib_max: 60,
        run: || {
            let mut members = gzip(b"").repeat(200_000);
            members.extend(gzip(event("u", 1, "").as_bytes()));
            check_one(members, None);
        },
    },
    Bomb {
        name: "records of 10 MiB",
        // The payload, its record as bytes, the event, and what is put on `rejected`, which is compressed.
        mib_max: 160,
        run: || {
            let members = |bytes| format!(r#""properties":{{"t":"{}"}}"#, "x".repeat(bytes));
            let room = EVENT_BYTES_MAX - event("u", 1, &members(0)).len();
            check_one(event("u", 1, &members(room)), None);
            check_one(event("u", 1, &members(room + 1)), Some("too_large"));
            check_one(vec![b'['; EVENT_BYTES_MAX], Some("not_json"));
            check_one(vec![0xff; EVENT_BYTES_MAX], Some("not_utf8"));
            let whole = event("u", 1, "");
            check_one(" ".repeat(EVENT_BYTES_MAX - whole.len()) + &whole, None);
            check_one(
                format!("\"{}\"", "\\u0000".repeat(EVENT_BYTES_MAX / 7)),
                Some("not_json"),
            );
            let long = "\\ud83d\\ude00".repeat(EVENT_BYTES_MAX / 13);
            check_one(event("u", 1, &format!(r#""category":"{long}""#)), Some("too_long"));
            check_one(event("u", 1, &format!(r#""user_id":"{long}""#)), Some("too_long"));
            check_one(event("u", 1, &format!(r#""timestamp":"{long}""#)), Some("too_long"));
            check_one(event("u", 1, &format!(r#""sent_at":"{long}""#)), Some("bad_timestamp"));
            check_one(event("u", 1, &format!(r#""user_agent":"{long}""#)), None);
            check_one(event("u", 1, &format!(r#""{long}":1"#)), None);
        },
    },
    Bomb {
        name: "what is rejected is kept whole where it compresses",
        mib_max: 160,
        run: || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.expect("a runtime").block_on(async {
                let mut world = World::in_memory(JOURNEY);
                let mut noise = fastrand::Rng::with_seed(1);
                let noise: Vec<u8> = std::iter::repeat_with(|| noise.u8(..)).take(EVENT_BYTES_MAX).collect();
                world.deliver([("k", vec![b'['; EVENT_BYTES_MAX]), ("k", noise)]).await;
                let rejected = world.rejected();
                let kept: Vec<_> = rejected.iter().map(|one| (one.is_compressed, one.is_cut)).collect();
                assert_eq!(kept, [(true, false), (true, true)]);
            });
        },
    },
    Bomb {
        name: "a million keys",
        mib_max: 200,
        run: || {
            let keys = joined(1_000_000, |index| format!(r#""{index}":1"#));
            assert!(keys.len() > EVENT_BYTES_MAX, "a million don't fit");
            let keys = joined(800_000, |index| format!(r#""{index}":1"#));
            check_one(event("u", 1, &keys), Some("too_many_members"));
            check_one(event("u", 1, &format!(r#""properties":{{{keys}}}"#)), None);
            check_one(event("u", 1, &format!(r#""traits":{{{keys}}}"#)), None);
            check_one(event("u", 1, &format!(r#""location":{{{keys}}}"#)), None);
            check_one(
                event("u", 1, &joined(800_000, |_| r#""n":1"#.to_owned())),
                Some("too_many_members"),
            );
            check_one(
                event("u", 1, &joined(500_000, |_| r#""category":"a""#.to_owned())),
                None,
            );
            check_one(
                format!("[{}]", joined(1_000_000, |_| "{}".to_owned())),
                Some("not_json"),
            );
        },
    },
    Bomb {
        name: "nesting of 100,000",
        mib_max: 60,
        run: || {
            let deep = nested(100_000);
            let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
            check_one(deep.clone(), Some("not_json"));
            check_one("[".repeat(100_000), Some("not_json"));
            check_one(objects.clone(), Some("too_deep"));
            check_one(r#"{"a":"#.repeat(100_000), Some("not_json"));
            check_one(with_property(&deep), Some("too_deep"));
            check_one(event("u", 1, &format!(r#""x":{deep}"#)), Some("too_deep"));
            check_one(event("u", 1, &format!(r#""properties":{objects}"#)), Some("too_deep"));
            check_one(event("u", 1, &format!(r#""traits":{objects}"#)), Some("too_deep"));
            for member in [
                "user_id",
                "timestamp",
                "schema_version",
                "location",
                "properties",
                "traits",
            ] {
                check_one(event("u", 1, &format!(r#""{member}":{deep}"#)), Some("wrong_type"));
            }
            check_one(
                event("u", 1, &format!(r#""location":{{"country":{deep}}}"#)),
                Some("wrong_type"),
            );
            // What is not read is not looked into.
            check_one(event("u", 1, &format!(r#""location":{{"planet":{deep}}}"#)), None);
        },
    },
    Bomb {
        name: "huge numbers",
        mib_max: 60,
        run: || {
            let long = "9".repeat(MIB);
            for number in [
                "1e400",
                "-1e400",
                "1e-400",
                "1e99999999999999999999",
                "18446744073709551616",
                "-9223372036854775809",
                &long,
                &format!("0.{long}"),
                &format!("1e{long}"),
                &format!("-{long}e-{long}"),
            ] {
                check_one(with_property(number), None);
            }
            check_one(with_property(&format!("0{long}")), Some("not_json"));
            for number in ["2", "-1", "1.5", "1e400", "18446744073709551616", &long] {
                let reason = if number == "2" {
                    "unknown_schema_version"
                } else {
                    "wrong_type"
                };
                // `serde_json` calls a number that is out of range a mistake of syntax.
                let reason = if number == "1e400" || number.len() > 20 {
                    "not_json"
                } else {
                    reason
                };
                check_one(event("u", 1, &format!(r#""schema_version":{number}"#)), Some(reason));
            }
            check_one(event("u", 1, &format!(r#""timestamp":{long}"#)), Some("not_json"));
        },
    },
    Bomb {
        name: "envelopes",
        mib_max: 100,
        run: || {
            let record = r#"{"eventID":"s:1","eventSourceARN":"a","kinesis":{"partitionKey":"k","sequenceNumber":"1","data":"","approximateArrivalTimestamp":1.5}@}"#;
            let deep = nested(100_000);
            let objects = r#"{"a":"#.repeat(100_000);
            let keys = joined(500_000, |index| format!(r#""{index}":1"#));
            for (payload, records) in [
                (deep.clone(), None),
                (objects.clone(), None),
                (format!(r#"{{"Records":{deep}}}"#), None),
                (format!(r#"{{"Records":[{objects}"#), None),
                (format!(r#"{{"Records":[],"x":{deep}}}"#), Some(0)),
                (
                    format!(r#"{{"Records":[{}]}}"#, record.replace('@', &format!(r#","x":{deep}"#))),
                    Some(1),
                ),
                (
                    format!(r#"{{"Records":[{}]}}"#, record.replace('@', &format!(",{keys}"))),
                    Some(1),
                ),
                (
                    format!(r#"{{"Records":[{}]}}"#, joined(40_000, |_| record.replace('@', ""))),
                    Some(40_000),
                ),
                (
                    format!(
                        r#"{{"Records":[{}]}}"#,
                        record.replace("\"1\"", &format!("\"{}\"", "9".repeat(MIB)))
                    ),
                    None,
                ),
                (
                    format!(r#"{{"Records":[{}]}}"#, record.replace("1.5", "1e300").replace('@', "")),
                    Some(1),
                ),
                (
                    format!(
                        r#"{{"Records":[{}]}}"#,
                        record.replace("1.5", "-1e300").replace('@', "")
                    ),
                    Some(1),
                ),
            ] {
                let front = &payload[..payload.len().min(80)];
                let parsed = Envelope::parse(&payload).map(|envelope| envelope.records.len());
                assert_eq!(parsed.ok(), records, "{front}");
            }
        },
    },
    Bomb {
        name: "journeys that nest",
        mib_max: 60,
        run: || {
            for text in [
                nested(100_000),
                "[".repeat(JOURNEY_BYTES_MAX),
                "{a: ".repeat(JOURNEY_BYTES_MAX / 4),
                "- ".repeat(JOURNEY_BYTES_MAX / 2),
                "? ".repeat(JOURNEY_BYTES_MAX / 2),
                (0..1400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
                "journey: [".to_owned() + &nested(100_000),
                "&a [*a, *a]".to_owned(),
                "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]".to_owned(),
            ] {
                wrong_journey(&text);
            }
        },
    },
    Bomb {
        name: "journeys that go on",
        mib_max: 500,
        run: || {
            let names = |count: usize| joined(count, |index| format!("n{index:x}"));
            for text in [
                "a".repeat(JOURNEY_BYTES_MAX + 1),
                "a".repeat(JOURNEY_BYTES_MAX),
                "\"".repeat(JOURNEY_BYTES_MAX),
                "#".repeat(JOURNEY_BYTES_MAX),
                "\t".repeat(JOURNEY_BYTES_MAX),
                "&".repeat(JOURNEY_BYTES_MAX),
                "---\n".repeat(JOURNEY_BYTES_MAX / 4),
                format!("journey: {}", "a".repeat(JOURNEY_BYTES_MAX - 9)),
                format!("{}: 1", "a".repeat(1000)),
                joined(100_000, |index| format!("n{index:x}: 1")).replace(',', "\n"),
                format!("{{{}}}", joined(90_000, |index| format!("n{index:x}: 1"))),
                format!(
                    "journey: j\nsteps: [{}]",
                    joined(60_000, |index| format!("{{id: {index:x}}}"))
                ),
                format!(
                    "journey: j\ncontents: [{}]",
                    joined(60_000, |index| format!("{{id: {index:x}}}"))
                ),
                format!("journey: j\ncontents: [{}]", joined(100_000, |_| "{id: a}".to_owned())),
                format!(
                    "journey: j\nfeatures: {{{}}}",
                    joined(90_000, |index| format!("n{index:x}: 1"))
                ),
                format!("journey: j\ntriggers: [{}]", joined(200_000, |_| "{}".to_owned())),
                format!("journey: j\nignore: [{}]", names(140_000)),
                format!("journey: j\nevents: [{}]\nignore: [{}]", names(70_000), names(70_000)),
                format!(
                    "journey: j\nevents: [{}]\nignore: [{}]",
                    names(1000),
                    names(1000).replace('n', "m")
                ),
                format!(
                    "journey: j\nsteps: [{{id: s, on: [{}]}}]",
                    joined(300_000, |_| "A".to_owned())
                ),
            ] {
                wrong_journey(&text);
            }
            // As much as is allowed of everything.
            let types = joined(1024, |index| format!("n{index:x}"));
            let contents = joined(1024, |index| format!("{{id: c{index}}}"));
            let steps = joined(64, |index| format!("{{id: s{index}, on: [{types}]}}"));
            let features = joined(64, |index| format!("f{index}: {{count: any}}"));
            let rules = joined(64, |index| {
                format!("{{id: r{index}, on: any, offer: c{index}, slot: s}}")
            });
            let text = format!(
                "journey: j\nevents: [{types}]\nsteps: [{steps}]\nfeatures: {{{features}}}\ncontents: [{contents}]\ntriggers: [{rules}]"
            );
            let journey = Journey::parse(&text).unwrap_or_else(|errors| panic!("{}", errors.render("journey", &text)));
            assert_eq!(journey.dispatch("n3ff").steps.len(), 64);
        },
    },
    Bomb {
        name: "conditions",
        mib_max: 100,
        run: || {
            let journey = |condition: &str| {
                format!(
                    "journey: j\ncontents: [{{id: c}}]\ntriggers: [{{id: t, on: any, slot: s, offer: c, when: {}}}]",
                    serde_json::to_string(condition).expect("text")
                )
            };
            for condition in [
                "(".repeat(100_000),
                nested(100_000),
                format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000)),
                "!".repeat(100_000),
                format!("{}1 == 1", "-".repeat(4000)),
                format!("event.properties{} == 1", ".a".repeat(2000)),
                format!("1{} == 1", "+1".repeat(2000)),
                format!("{}1", "true ? 1 : ".repeat(300)),
                "event.properties.n.matches(\"(a{1000}){1000}\")".to_owned(),
            ] {
                wrong_journey(&journey(&condition));
            }
            // A list as long as a macro walks, with everything that walks it.
            let list = format!("[{}]", joined(WALKED_BYTES_MAX / 2 - 50, |_| "1".to_owned()));
            let record = with_property(&list);
            let longer = with_property(&format!("[{}]", joined(WALKED_BYTES_MAX, |_| "1".to_owned())));
            for (condition, fires) in [
                ("event.properties.n.exists(x, x == 2)", 0),
                ("event.properties.n.all(x, x == 1)", 1),
                ("event.properties.n.exists_one(x, x == 2)", 0),
                ("size(event.properties.n.map(x, x + 1)) > 1", 1),
                ("size(event.properties.n.filter(x, x == 1)) > 1", 1),
                (
                    "event.properties.n.map(x, x).map(x, x).map(x, x) == event.properties.n",
                    1,
                ),
                ("size(string(event.properties)) > 1", 0),
                ("event.properties.n.all(x, !(x + 1 in event.properties.n))", 1),
                ("event.properties.n.all(x, \"aaaa\".matches(\"^[\\\\w-]{1,64}$\"))", 1),
                ("event.properties.n.all(x, event.properties.n == event.properties.n)", 1),
            ] {
                let started = Instant::now();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.expect("a runtime").block_on(async {
                    let mut world = World::in_memory(&journey(condition));
                    world.deliver([("k", record.clone().into_bytes())]).await;
                    let fired = |world: &World<_>| world.profile("u").expect("applied").rules[0].fired;
                    assert_eq!(fired(&world), fires, "{condition}");
                    let longer = longer.replacen(r#""event_id":"1""#, r#""event_id":"2""#, 1);
                    world.deliver([("k", longer.into_bytes())]).await;
                    assert_eq!(fired(&world), fires, "what is longer is not looked at: {condition}");
                });
                println!("{condition}: {:?}", started.elapsed());
            }
        },
    },
];

/// The process that a bomb is set off in.
#[test]
#[ignore = "it is run by p10_bombs_take_bounded_memory_and_time"]
#[expect(clippy::disallowed_methods, reason = "what the process that starts it asks for")]
fn one_bomb() {
    let name = std::env::var(BOMB).expect("a bomb");
    let bomb = BOMBS.iter().find(|bomb| bomb.name == name).expect("a known bomb");
    (bomb.run)();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    // It goes past what captures the output of tests.
    let told = writeln!(std::io::stderr(), "peak_kib={}", peak_kib.unwrap_or("0").trim());
    told.expect("standard error");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "nothing else runs in this process while it waits"
)]
fn p10_bombs_take_bounded_memory_and_time() {
    let mut wrong = Vec::new();
    for bomb in BOMBS {
        let started = Instant::now();
        let mut process = Command::new(std::env::current_exe().expect("a test has a path"))
            .args(["--exact", "hostile::bombs::one_bomb", "--ignored", "--nocapture"])
            .env(BOMB, bomb.name)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        while process.try_wait().expect("it is known").is_none() {
            if started.elapsed() > TIME_MAX {
                process.kill().expect("it is ours");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let output = process.wait_with_output().expect("it has ended");
        let took = started.elapsed();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let peak_kib = said.lines().find_map(|line| line.strip_prefix("peak_kib="));
        let peak_mib = peak_kib.and_then(|kib| kib.parse::<usize>().ok()).map(|kib| kib / 1024);
        println!("{}: {} MiB at its peak, {took:?}", bomb.name, peak_mib.unwrap_or(0));
        match peak_mib {
            _ if !output.status.success() => wrong.push(format!("{}: {}: {said}", bomb.name, output.status)),
            // Systems without /proc say 0.
            Some(peak_mib) if peak_mib <= BASE_MIB + bomb.mib_max => {}
            _ => wrong.push(format!(
                "{}: {peak_mib:?} MiB, at most {} are right",
                bomb.name,
                BASE_MIB + bomb.mib_max
            )),
        }
        if took > TIME_MAX {
            wrong.push(format!("{}: it took {took:?}", bomb.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
