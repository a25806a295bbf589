use super::*;
use crate::limits::{CONTENTS_MAX, FEATURES_MAX, JOURNEY_BYTES_MAX, RULES_MAX, STEPS_MAX, TRAITS_MAX};
use crate::testing::{DEFAULT_JOURNEY, journey};

/// The errors of a text, as `line: path: message`, with the suggestions.
fn errors(text: &str) -> Vec<Diagnostic> {
    match Journey::parse(text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.errors,
    }
}

#[test]
fn the_default_journey_is_right_and_runs_without_the_interpreter() {
    let journey = journey(DEFAULT_JOURNEY);
    assert_eq!(journey.interpreted_conditions(), []);
    assert_eq!(
        (
            journey.steps.len(),
            journey.features.len(),
            journey.contents.len(),
            journey.rules.len()
        ),
        (5, 10, 4, 4)
    );
    let names = |indices: &[usize]| {
        indices
            .iter()
            .map(|index| journey.rules[*index].id.as_str())
            .collect::<Vec<_>>()
    };
    for (event_type, rules) in [
        ("page_view", &["high_intent", "coming_back"][..]),
        ("sign_up", &["welcome"]),
        ("heard_of_never", &[]),
    ] {
        assert_eq!(names(&journey.dispatch(event_type).rules), rules, "{event_type}");
    }
}

#[test]
fn the_least_that_a_journey_needs_is_a_name() {
    let journey = journey("journey: j");
    assert_eq!(
        (journey.idle_timeout_ms, journey.dedupe_last),
        (IDLE_TIMEOUT_MS_DEFAULT, 64)
    );
    assert_ne!(journey.version, self::journey_version("journey: j "));
}

fn journey_version(text: &str) -> String {
    journey(text).version
}

/// A row: what is in the file, then line, path, a part of the message, and the suggestion.
#[test]
fn every_mistake_is_told_with_its_place_and_what_to_write() {
    type Row = (&'static str, usize, &'static str, &'static str, Option<&'static str>);
    const RULE: &str = "journey: j\ncontents: [{ id: c }]\ntriggers:\n  - { id: r, on: a, offer: c, slot: s";
    let rows: &[Row] = &[
        // The file.
        ("", 1, "", "", None),
        ("journey: [", 2, "", "this is not YAML", None),
        (
            "journey: j\n---\njourney: k",
            1,
            "",
            "expected one YAML document, found 2",
            None,
        ),
        ("- a", 1, "the file", "expected `key: value` pairs", None),
        (
            "journey: j\nstep: []",
            2,
            "the file",
            "there is no key `step`",
            Some("steps"),
        ),
        (
            "journey: j\npolicies: {}",
            2,
            "the file",
            "there is no key `policies`",
            Some("policy"),
        ),
        ("steps: []", 1, "journey", "the journey has no name", None),
        ("journey: \"a b\"", 1, "journey", "`a b` is no name", None),
        ("journey: {}", 1, "journey", "expected text", None),
        ("journey: j\njourney: k", 2, "", "", None),
        // Sessions, dedupe, events, ignore.
        (
            "journey: j\nsessions: { idle_timeout: soon }",
            2,
            "sessions.idle_timeout",
            "`soon` is no duration",
            None,
        ),
        (
            "journey: j\nsessions: { idle_timeout: 48h }",
            2,
            "sessions.idle_timeout",
            "is not between",
            None,
        ),
        (
            "journey: j\nsessions: { idle_timeout: 0s }",
            2,
            "sessions.idle_timeout",
            "is not between",
            None,
        ),
        (
            "journey: j\nsessions: { timeout: 30m }",
            2,
            "sessions",
            "there is no key `timeout`",
            Some("idle_timeout"),
        ),
        (
            "journey: j\nsessions: 30m",
            2,
            "sessions",
            "expected `key: value` pairs",
            None,
        ),
        (
            "journey: j\ndedupe: { last: 0 }",
            2,
            "dedupe.last",
            "a whole number from 1 to 4096",
            None,
        ),
        (
            "journey: j\ndedupe: { last: 5000 }",
            2,
            "dedupe.last",
            "a whole number from 1 to 4096",
            None,
        ),
        (
            "journey: j\ndedupe: { last: many }",
            2,
            "dedupe.last",
            "a whole number",
            None,
        ),
        ("journey: j\nignore: any", 2, "ignore", "does nothing", None),
        (
            "journey: j\nevents: [click]\nignore: [clikc]",
            3,
            "ignore",
            "does not list the event type `clikc`",
            Some("click"),
        ),
        ("journey: j\nevents: [Click]", 2, "events", "lower case", Some("click")),
        // Steps.
        ("journey: j\nsteps: { id: a }", 2, "steps", "`steps` is a list", None),
        (
            "journey: j\nsteps:\n  - { on: a }",
            3,
            "steps[0]",
            "it has no `id`",
            None,
        ),
        (
            "journey: j\nsteps:\n  - { id: a }",
            3,
            "steps.a",
            "a step needs `on`",
            None,
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: a }\n  - { id: a, on: b }",
            4,
            "steps[1]",
            "`a` is there twice",
            None,
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: a, wehn: b }",
            3,
            "steps.a",
            "there is no key `wehn`",
            Some("when"),
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: Sign_Up }",
            3,
            "steps.a.on",
            "lower case",
            Some("sign_up"),
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: [] }",
            3,
            "steps.a.on",
            "no event type",
            None,
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: \"\" }",
            3,
            "steps.a.on",
            "1 to 64 bytes",
            None,
        ),
        (
            "journey: j\nsteps:\n  - { id: a, on: {} }",
            3,
            "steps.a.on",
            "expected text",
            None,
        ),
        (
            "journey: j\nevents: [click]\nsteps:\n  - { id: a, on: clikc }",
            4,
            "steps.a.on",
            "`clikc`",
            Some("click"),
        ),
        (
            "journey: j\nevents: [click]\nsteps:\n  - { id: a, when: event.type == \"clikc\" }",
            4,
            "steps.a.when",
            "`clikc`",
            Some("click"),
        ),
        (
            "journey: j\nsteps:\n  - { id: a, when: steps.b.done }",
            3,
            "steps.a.when",
            "there is no step `b`",
            None,
        ),
        ("journey: j\nsteps:\n  - { id: a, when: }", 3, "steps.a.when", "", None),
        // Features.
        (
            "journey: j\nfeatures: [a]",
            2,
            "features",
            "expected `key: value` pairs",
            None,
        ),
        (
            "journey: j\nfeatures: { a: {} }",
            2,
            "features.a",
            "a feature is one of",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, sum: y } }",
            2,
            "features.a",
            "a feature is one of",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { cuont: x } }",
            2,
            "features.a",
            "there is no key `cuont`",
            Some("count"),
        ),
        (
            "journey: j\nfeatures: { a: { count: x, within: 1s } }",
            2,
            "features.a.within",
            "is not between 1m",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, within: 1year } }",
            2,
            "features.a.within",
            "is not between 1m",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, on: y } }",
            2,
            "features.a.on",
            "names its event types itself",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, limit: 3 } }",
            2,
            "features.a.limit",
            "`count` has no `limit`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { last: category, limit: 5 } }",
            2,
            "features.a.limit",
            "`last` has no `limit`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { sessions: count, on: y } }",
            2,
            "features.a.on",
            "`sessions` has no `on`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { sessions: cout } }",
            2,
            "features.a.sessions",
            "`cout` is nothing",
            Some("count"),
        ),
        (
            "journey: j\nfeatures: { a: { last: catgory } }",
            2,
            "features.a.last",
            "an event has no `catgory`",
            Some("category"),
        ),
        (
            "journey: j\nfeatures: { a: { sum: duration } }",
            2,
            "features.a.sum",
            "an event has no `duration`",
            Some("properties.duration"),
        ),
        (
            "journey: j\nfeatures: { a: { recent: category, limit: 51 } }",
            2,
            "features.a.limit",
            "from 1 to 50",
            None,
        ),
        (
            "journey: j\nfeatures: { a b: { count: x } }",
            2,
            "features",
            "`a b` is no name",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, within: 5m, per: session } }",
            2,
            "features.a.per",
            "exclude each other",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, per: sesion } }",
            2,
            "features.a.per",
            "write `user` or `session`",
            Some("session"),
        ),
        (
            "journey: j\nfeatures: { a: { score: { x: 1 }, half_life: 1h, per: session } }",
            2,
            "features.a.per",
            "`score` has no `per`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { score: { x: 1 } } }",
            2,
            "features.a",
            "needs `half_life`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { score: { x: high }, half_life: 1h } }",
            2,
            "features.a.score.x",
            "a number from -1000 to 1000",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { score: { X: 1 }, half_life: 1h } }",
            2,
            "features.a.score",
            "lower case",
            Some("x"),
        ),
        (
            "journey: j\nfeatures: { a: { score: { x: 1 }, half_life: 1h, within: 1h } }",
            2,
            "features.a.within",
            "`score` has no `within`",
            Some("half_life"),
        ),
        (
            "journey: j\nfeatures: { a: { hour_of_day: x, within: 7d } }",
            2,
            "features.a.within",
            "`hour_of_day` has no `within`",
            Some("top: local_hour, within: …"),
        ),
        (
            "journey: j\nfeatures: { a: { first: category, within: 7d } }",
            2,
            "features.a.within",
            "`first` has no `within`",
            Some("last"),
        ),
        (
            "journey: j\nfeatures: { a: { rate: { of: x } } }",
            2,
            "features.a.rate",
            "a rate needs `to`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { rate: { of: x, to: y, prior: 1 } } }",
            2,
            "features.a.rate.prior",
            "two numbers",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { rate: { of: x, too: y } } }",
            2,
            "features.a.rate",
            "there is no key `too`",
            Some("to"),
        ),
        (
            "journey: j\nfeatures: { a: { frequency: x, unit: week } }",
            2,
            "features.a.unit",
            "`week` is no unit",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { top: category, limit: 11 } }",
            2,
            "features.a.limit",
            "from 1 to 10",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { interacted_with: content_id, limit: 201 } }",
            2,
            "features.a.limit",
            "from 1 to 200",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { top: local_our } }",
            2,
            "features.a.top",
            "an event has no `local_our`",
            Some("local_hour"),
        ),
        (
            "journey: j\nsteps: [{ id: paid, on: x }]\nfeatures: { a: { step_duration: { from: paid, to: pad } } }",
            3,
            "features.a.step_duration.to",
            "there is no step `pad`",
            Some("paid"),
        ),
        (
            "journey: j\nfeatures: { a: { expr: features.a + 1 } }",
            2,
            "features.a.expr",
            "it reads itself",
            None,
        ),
        (
            "journey: j\nfeatures:\n  a: { expr: features.b + 1 }\n  b: { expr: features.c }\n  c: { expr: features.b }",
            3,
            "features.a.expr",
            "it reads itself",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { expr: event.type == \"x\" } }",
            2,
            "features.a.expr",
            "no event",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { expr: size(features) } }",
            2,
            "features.a.expr",
            "names the features",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { expr: featurs.b } }",
            2,
            "features.a.expr",
            "there is no name `featurs`",
            Some("features"),
        ),
        (
            "journey: j\nfeatures: { a: { expr: \"1\", when: true } }",
            2,
            "features.a.when",
            "`expr` has no `when`",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x }, b: { count: x, when: features.a > 1 } }",
            2,
            "features.b.when",
            "hangs on the order",
            None,
        ),
        (
            "journey: j\nsteps: [{ id: s, on: x }]\nfeatures: { b: { count: x, when: steps.s.done } }",
            3,
            "features.b.when",
            "hangs on the order",
            None,
        ),
        (
            "journey: j\nfeatures: { a: { count: x, when: features.b > 1 } }",
            2,
            "features.a.when",
            "there is no feature `b`",
            None,
        ),
        // Contents.
        (
            "journey: j\ncontents: [{ id: c, when: 1 + }]",
            2,
            "contents.c.when",
            "",
            None,
        ),
        (
            "journey: j\ncontents: [{ id: c, unles: true }]",
            2,
            "contents.c",
            "there is no key `unles`",
            Some("unless"),
        ),
        // Triggers.
        (
            "journey: j\ntriggers:\n  - { id: r, on: a, slot: s }",
            3,
            "triggers.r",
            "a trigger needs `offer`",
            None,
        ),
        (
            "journey: j\ncontents: [{ id: c }]\ntriggers:\n  - { id: r, on: a, offer: c }",
            4,
            "triggers.r",
            "a trigger needs `slot`",
            None,
        ),
        (
            "journey: j\ncontents: [{ id: c }]\ntriggers:\n  - { id: r, offer: c, slot: s }",
            4,
            "triggers.r",
            "a trigger needs `on`",
            None,
        ),
        (
            "journey: j\ncontents: [{ id: tour }]\ntriggers:\n  - { id: r, on: a, offer: tuor, slot: s }",
            4,
            "triggers.r.offer",
            "there is no content `tuor`",
            Some("tour"),
        ),
    ];
    for (text, line, path, message, suggestion) in rows {
        check(text, *line, path, message, *suggestion);
    }
    for (rest, path, message, suggestion) in [
        (
            ", cooldown: soon }",
            "triggers.r.cooldown",
            "`soon` is no duration",
            None,
        ),
        (", limit: 0 }", "triggers.r.limit", "a whole number from 1", None),
        (", limit: 1.5 }", "triggers.r.limit", "a whole number from 1", None),
        (", priority: high }", "triggers.r.priority", "a whole number", None),
        (
            ", coldown: 1h }",
            "triggers.r",
            "there is no key `coldown`",
            Some("cooldown"),
        ),
        (
            ", chose: [c] }",
            "triggers.r",
            "there is no key `chose`",
            Some("choose"),
        ),
        (
            ", when: features.x > 1 }",
            "triggers.r.when",
            "there is no feature `x`",
            None,
        ),
        (
            ", when: event.typ == 'a' }",
            "triggers.r.when",
            "there is no event member `typ`",
            Some("type"),
        ),
        (
            ", unless: step.x.done }",
            "triggers.r.unless",
            "there is no name `step`",
            Some("steps"),
        ),
        (", when: [a] }", "triggers.r.when", "expected text", None),
    ] {
        check(&format!("{RULE}{rest}"), 4, path, message, suggestion);
    }
}

pub(super) fn check(text: &str, line: usize, path: &str, message: &str, suggestion: Option<&str>) {
    let errors = errors(text);
    let found = errors.iter().any(|error| {
        error.line == line
            && (path.is_empty() || error.path == path)
            && error.message.contains(message)
            && !error.message.is_empty()
            && (suggestion.is_none() || error.suggestion.as_deref() == suggestion)
    });
    assert!(
        found,
        "{text:?}\nexpected {line}: {path}: {message} ({suggestion:?})\nfound {errors:#?}"
    );
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "jurney: j\nsteps:\n  - { id: a }\nfeatures:\n  f: { count: x, within: 1 }\n  g: {}\ntriggers:\n  - { id: r }\n";
    let errors = errors(text);
    let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [1, 1, 3, 5, 6, 8, 8, 8], "{errors:#?}");
}

#[test]
fn errors_are_shown_with_the_line_a_marker_and_a_suggestion() {
    let text = "journey: j\nsteps:\n  - { id: a, on: Click }\n";
    let rendered = Journey::parse(text).expect_err("wrong").render("j.yaml", text);
    let expected = "j.yaml:3:18: event types are kept in lower case, so none is ever `Click`\n  3 |   - { id: a, on: Click }\n    |                  ^ steps.a.on\n    = did you mean `click`?\n";
    assert_eq!(rendered, expected);
}

#[test]
fn p8_there_is_a_limit_to_everything() {
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let traits = many(TRAITS_MAX + 1, &|index| {
        format!("  - {{ id: s{index}, when: traits.t{index} == 1 }}\n")
    });
    for (text, message) in [
        (
            format!(
                "journey: j\nsteps:\n{}",
                many(STEPS_MAX + 1, &|i| format!("  - {{ id: s{i}, on: a }}\n"))
            ),
            "at most 64",
        ),
        (
            format!(
                "journey: j\nfeatures:\n{}",
                many(FEATURES_MAX + 1, &|i| format!("  f{i}: {{ count: a }}\n"))
            ),
            "at most 64",
        ),
        (
            format!(
                "journey: j\ncontents:\n{}",
                many(CONTENTS_MAX + 1, &|i| format!("  - {{ id: c{i} }}\n"))
            ),
            "at most 1024",
        ),
        (
            format!(
                "journey: j\ncontents: [{{ id: c }}]\ntriggers:\n{}",
                many(RULES_MAX + 1, &|i| format!(
                    "  - {{ id: r{i}, on: a, offer: c, slot: s }}\n"
                ))
            ),
            "at most 64",
        ),
        (
            format!(
                "journey: j\nsteps:\n{}",
                traits.lines().take(0).collect::<String>() + &traits
            ),
            "at most 64",
        ),
        (format!("journey: j\n#{}", "x".repeat(JOURNEY_BYTES_MAX)), "bytes"),
        (
            format!("journey: j\nsteps: [{{ id: a, when: \"{}\" }}]", "1 + ".repeat(2000)),
            "at most 4096 are allowed",
        ),
        (
            format!(
                "journey: j\nsteps: [{{ id: a, when: \"{}1{}\" }}]",
                "(".repeat(500),
                ")".repeat(500)
            ),
            "nests deeper",
        ),
    ] {
        let errors = errors(&text);
        assert!(
            errors.iter().any(|error| error.message.contains(message)),
            "{message}: {:?}",
            errors.first()
        );
    }
}

#[test]
fn p10_no_text_makes_the_reader_panic_or_overflow() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        "&a [*a]".to_owned(),
        format!(
            "a: &a [x, x]\n{}",
            (0..30)
                .map(|i| format!("b{i}: &b{i} [*a, *a, *a]\n"))
                .collect::<String>()
        ),
        "journey: !!binary x".to_owned(),
        "journey: \"\\uD800\"".to_owned(),
        "\u{0}".to_owned(),
        "journey: 'x".to_owned(),
        "%YAML 9".to_owned(),
        "journey: j\nsteps: [{id: [}]".to_owned(),
        "journey: j\n? [a]\n: b".to_owned(),
        "journey: 1.0\nfeatures: { 1: { count: 2 } }".to_owned(),
    ] {
        // Whatever it says, it comes back; on as small a stack as any thread of a runtime has.
        let run = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || errors(&text).len());
        run.expect("a thread").join().expect("no panic");
    }
}

#[test]
fn fingerprints_follow_the_definition() {
    let of = |text: &str| {
        let journey = journey(&format!("journey: j\nfeatures: {{ f: {text} }}"));
        journey.features[0].fingerprint
    };
    let base = of("{ count: a, within: 10m }");
    assert_eq!(base, of("{ count: [a], within: 600s }"), "written otherwise, the same");
    for other in [
        "{ count: b, within: 10m }",
        "{ count: a, within: 11m }",
        "{ count: a }",
        "{ count: a, within: 10m, when: 1 > 0 }",
    ] {
        assert_ne!(base, of(other), "{other}");
    }
}

#[test]
fn p10_expressions_that_double_what_they_read_are_refused() {
    let features: String = (1..20)
        .map(|n| format!("  f{n}: {{ expr: features.f{0} + features.f{0} }}\n", n - 1))
        .collect();
    let errors = errors(&format!("journey: j\nfeatures:\n  f0: {{ count: a }}\n{features}"));
    assert!(
        errors.iter().all(|error| error.message.contains("more than 256 parts")),
        "{errors:#?}"
    );
    assert_eq!(errors.len(), 12, "those from f8 on");
}

/// The page for people who write a journey: every kind has a row, and every example in it is right.
#[test]
fn the_examples_of_the_features_page_are_right_and_leave_out_no_kind() {
    const PAGE: &str = include_str!("../../../../docs/features.md");
    const STEPS: &str = "steps: [{ id: sign_up, on: sign_up }, { id: first_project, on: project_created }]";
    let rows: Vec<Vec<&str>> = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("| Kind"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().flat_map(|row| row[1].split(", ")).collect();
    let kinds: Vec<&str> = read_feature::KINDS.iter().map(|kind| kind.name).collect();
    for kind in &kinds {
        assert!(names.contains(kind), "docs/features.md has no row for `{kind}`");
    }
    assert_eq!(names.len(), kinds.len(), "{names:?}");
    for row in rows {
        let example = row[2].split('`').nth(1).expect("an example");
        for (option, place) in [("within", 6), ("per", 7)] {
            let kind = read_feature::KINDS
                .iter()
                .find(|kind| row[1].split(", ").next() == Some(kind.name))
                .expect(row[1]);
            let has = if option == "per" {
                kind.per_session
            } else {
                kind.options.contains(&option)
            };
            assert_eq!(row[place].starts_with("yes"), has, "{}: {option}", row[1]);
        }
        let text = format!(
            "journey: j\n{STEPS}\nfeatures:\n  clicks: {{ count: click }}\n  views: {{ count: view }}\n  example: {example}\n"
        );
        journey(&text);
    }
}
