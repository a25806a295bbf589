use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::event::{ArrivedEvent, Event, Properties};
use crate::feature::Dated;
use crate::fold;
use crate::journey::Journey;
use crate::journey::TrendBy;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::testing::{SHARDS, arrived, event, journey, time};
use crate::trends::{TrendKey, Trends, minute_of};
use crate::value::Scalar;

/// A journey with a feature of every kind of value, and one without any.
const JOURNEY: &str = r#"
journey: test
experiments:
  - { id: copy, arms: { a: 1, b: 3 } }
  - { id: look, salt: "2", arms: { b: 1, c: 1 } }
  - { id: long, arms: { control: 1, treatment: 1 } }
steps:
  - { id: done, on: click }
  - { id: open, on: never }
features:
  clicks: { count: click }
  total: { sum: properties.i, on: click }
  last: { last: properties.any, on: click }
  recent: { recent: properties.any, on: click }
  unset: { last: category, on: never }
  seen: { last_seen: click }
  sum_of_all: { expr: features.total + double(features.clicks) }
  word: { expr: features.last + "b" }
  nothing: { expr: features.unset + 1 }
trends:
  clicks_10m: { count: click, within: 10m }
  hot: { count: [click, like], within: 1h, by: category }
contents: [{ id: c }]
triggers:
  - { id: r, when: traits.plan == "x" || traits.age == 1, offer: c, slot: s }
"#;

static TEST_JOURNEY: LazyLock<Journey> = LazyLock::new(|| journey(JOURNEY));

/// What others did in the same minute: something with the values that the events of these tests have too.
static SNAPSHOTS: LazyLock<Snapshots> = LazyLock::new(|| {
    let mut trends = Trends::default();
    let minute = minute_of(time(0));
    for (event_type, by, id, count) in [
        ("click", TrendBy::Content, "a", 3),
        ("click", TrendBy::Content, "team", 5),
        ("like", TrendBy::Content, "a", 100),
        ("click", TrendBy::Category, "a", 7),
        ("like", TrendBy::Category, "a", 4),
        ("like", TrendBy::Category, "forumng", 1),
    ] {
        let key = TrendKey {
            event_type: event_type.to_owned(),
            by,
            id: id.to_owned(),
        };
        trends.add(minute, key, count);
    }
    Snapshots {
        trends: Arc::new(trends),
        ..Snapshots::default()
    }
});

fn names() -> Names {
    Names::of(&TEST_JOURNEY)
}

/// The properties and traits of the events that the tables look at.
const PROPERTIES: &str = r#"{"i":5,"f":1.5,"whole":5.0,"t":"abc","b":true,"n":null,"o":{"x":1,"y":{"z":"deep"},"n":null},
    "l":[1,"a",{"k":2}],"big":18446744073709551615,"any":"a","twice":1,"twice":2,"same":{"x":1.0,"y":{"z":"deep"},"n":null}}"#;
const TRAITS: &str = r#"{"plan":"team"}"#;

fn table_event() -> Event<'static> {
    let mut event = event("e1", "click", time(0));
    event.category = Some("forumng".into());
    event.location.country = Some("GB".into());
    event.properties = Properties {
        object: Some(PROPERTIES),
        unknown: vec![("top".into(), "7"), ("t".into(), "8")],
    };
    event.traits = Some(TRAITS);
    event.user_agent = Some("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36".into());
    event
}

fn apply(profile: &mut Profile, arrived: ArrivedEvent<'_>) {
    fold::apply(
        &TEST_JOURNEY,
        TEST_JOURNEY.dispatch(&arrived.event.event_type),
        profile,
        &arrived,
    );
}

/// The event, folded into an empty profile.
fn folded(event: Event<'_>) -> Profile {
    let mut profile = Profile::new(&TEST_JOURNEY);
    apply(&mut profile, arrived(event, 0, 1, time(0)));
    profile
}

fn compile(source: &str) -> Condition {
    Condition::compile(source, &mut names()).unwrap_or_else(|errors| panic!("{source}: {errors:?}"))
}

/// What the library's interpreter says, whatever form the condition takes.
fn interpreted(source: &str, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
    let program = interpret::Program::compile(source, scope.journey);
    interpret::is_met(&program.unwrap_or_else(|errors| panic!("{source}: {errors:?}")), scope)
}

#[test]
fn the_typed_form_says_what_the_interpreter_says() {
    let event = table_event();
    let profile = folded(table_event());
    let scope = Scope {
        journey: &TEST_JOURNEY,
        event: &event,
        profile: &profile,
        snapshots: &SNAPSHOTS,
        now: time(0),
    };
    let (yes, no, error) = (Some(true), Some(false), None);
    for (source, expected) in [
        // Kinds of numbers mix; other kinds never do.
        ("event.properties.i == 5", yes),
        ("event.properties.i == 5.0", yes),
        ("event.properties.whole == 5", yes),
        ("event.properties.f > 1", yes),
        ("1 < event.properties.f && event.properties.f < 2", yes),
        ("event.properties.f <= 1.5 && event.properties.f >= 1.5", yes),
        ("event.properties.i < -1", no),
        ("event.properties.big > 9223372036854775807", yes),
        ("event.properties.i == \"5\"", no),
        ("event.properties.i != \"5\"", yes),
        ("event.properties.i < \"5\"", error),
        ("event.properties.t < \"abd\"", yes),
        ("event.properties.b > false", yes),
        ("event.properties.b == 1", no),
        // Null equals null only, and has no order.
        ("event.properties.n == null", yes),
        ("event.properties.n != null", no),
        ("event.properties.i != null", yes),
        ("event.properties.n < 1", error),
        ("event.properties.n <= null", error),
        ("event.properties.n", error),
        ("!event.properties.n", error),
        // What isn't there has no answer, whichever way it is asked.
        ("event.properties.nope == 1", error),
        ("event.properties.nope != 1", error),
        ("event.properties.nope == null", error),
        ("!(event.properties.nope == 1)", error),
        ("event.content_id == \"c\"", error),
        ("event.properties.t.x == 1", error),
        ("event.properties.l.x == 1", error),
        // has() asks for the last part; what is on the way must be there.
        ("has(event.properties.i)", yes),
        ("has(event.properties.n)", yes),
        ("has(event.properties.nope)", no),
        ("!has(event.properties.nope)", yes),
        ("has(event.properties.o.x)", yes),
        ("has(event.properties.o.nope)", no),
        ("has(event.properties.nope.x)", error),
        ("!has(event.properties.nope.x)", error),
        ("has(event.properties.t.x)", error),
        ("has(event.properties.n.x)", error),
        ("has(event.properties.l.x)", error),
        ("has(event.content_id)", no),
        ("has(event.location.country) && !has(event.location.city)", yes),
        ("has(features.unset)", yes),
        ("has(traits.plan) && !has(traits.age)", yes),
        ("has(event.properties.nope) && event.properties.nope > 1", no),
        // Paths.
        ("event.properties.o.y.z == \"deep\"", yes),
        ("event.properties[\"o\"][\"y\"].z == \"deep\"", yes),
        ("event[\"category\"] == \"forumng\"", yes),
        ("event.properties.top == 7", yes),
        ("event.properties.t == \"abc\"", yes),
        ("event.properties.twice == 2", yes),
        // Objects and lists are compared as values, not as text.
        ("event.properties.o == event.properties.same", yes),
        ("event.properties.o != event.properties.l", yes),
        ("event.properties.o == 1", no),
        ("event.properties.l < event.properties.l", error),
        // One side that decides wins over an error on the other.
        ("event.properties.nope == 1 || event.properties.i == 5", yes),
        ("event.properties.i == 5 || event.properties.nope == 1", yes),
        ("event.properties.nope == 1 || event.properties.i == 6", error),
        ("event.properties.nope == 1 && event.properties.i == 6", no),
        ("event.properties.i == 6 && event.properties.nope == 1", no),
        ("event.properties.nope == 1 && event.properties.i == 5", error),
        ("event.properties.t || true", yes),
        ("event.properties.t || false", error),
        ("event.properties.t && false", no),
        ("false || event.properties.t", error),
        // in
        ("event.properties.i in [1, 5]", yes),
        ("event.properties.whole in [1, 5]", yes),
        ("event.properties.t in [\"x\", \"y\"]", no),
        ("event.properties.t in []", no),
        ("event.properties.o in [1]", no),
        ("event.properties.nope in [1]", error),
        ("\"a\" in features.recent", yes),
        ("\"b\" in features.recent", no),
        ("event.properties.any in features.recent", yes),
        ("\"a\" in features.last", error),
        ("\"a\" in features.unset", error),
        ("\"a\" in features.clicks", error),
        // Profiles.
        ("features.clicks == 1 && features.total == 5", yes),
        ("features.unset == null", yes),
        ("features.recent == features.recent", yes),
        ("steps.done.done && !steps.open.done", yes),
        ("steps.open.at == null", yes),
        ("steps.open.at > 1", error),
        ("steps.done.at == features.seen", yes),
        ("traits.plan == \"team\"", yes),
        ("traits.age == 1", error),
        (
            "session.count == 1 && session.events == 1 && session.duration_ms == 0",
            yes,
        ),
        // The arms of the user `u`.
        ("arms.copy == \"a\" && arms.look == \"b\"", no),
        ("arms.copy in [\"a\", \"b\"] && arms[\"look\"] in [\"b\", \"c\"]", yes),
        ("arms.copy != arms.look", yes),
        // What others did. A trend of nothing that anybody met with is 0, and of what isn't there, or no text, is nothing.
        ("trends.clicks_10m[\"a\"] == 3 && trends.clicks_10m.a == 3", yes),
        ("trends.hot[event.category] == 1 && trends.hot[\"a\"] == 11", yes),
        ("trends[\"hot\"][event.properties.any] > 10", yes),
        ("trends.clicks_10m[traits.plan] == 5", yes),
        ("trends.clicks_10m[features.last] == 3", yes),
        ("trends.clicks_10m[\"nobody\"] == 0", yes),
        (
            "trends.clicks_10m[event.type] == 0 && has(trends.clicks_10m.nobody)",
            yes,
        ),
        ("trends.clicks_10m[event.content_id] == 0", error),
        ("trends.clicks_10m[event.properties.i] == 0", error),
        ("trends.clicks_10m[features.unset] == 0 || true", yes),
        ("trends.clicks_10m[features.recent] == 0", error),
        ("trends.clicks_10m[event.properties.n] >= 0", error),
        // The user's clock, of whose time zone nothing is known.
        ("time.hour == 0 && time.weekday == 1", yes),
        ("time[\"hour\"] in [0, 1]", yes),
        (
            "event.type == \"click\" && event.user_id == \"u\" && event.id == \"e1\"",
            yes,
        ),
    ] {
        let condition = compile(source);
        assert!(!condition.is_interpreted(), "{source} should have a typed form");
        assert_eq!(interpreted(source, &scope).ok(), expected, "interpreted: {source}");
        assert_eq!(condition.is_met(&scope).ok(), expected, "typed: {source}");
    }
}

#[test]
fn what_has_no_typed_form_runs_in_the_interpreter() {
    let event = table_event();
    let profile = folded(table_event());
    let scope = Scope {
        journey: &TEST_JOURNEY,
        event: &event,
        profile: &profile,
        snapshots: &SNAPSHOTS,
        now: time(0),
    };
    let (yes, no, error) = (Some(true), Some(false), None);
    for (source, expected) in [
        ("event.properties.l.exists(item, item == \"a\")", yes),
        ("features.recent.all(value, value == \"b\")", no),
        ("features.recent.exists_one(value, value == \"a\")", yes),
        (
            "size(features.recent) + trends.hot[event.category] + time.weekday == 3",
            yes,
        ),
        ("[1, 2].filter(trends, trends == 1) == [1]", yes),
        ("event.properties.l.filter(event, event == 1) == [1]", yes),
        ("[1, 2].map(features, features * 2) == [2, 4]", yes),
        ("size(features.recent) == 1 && event.properties.t.size() == 3", yes),
        (
            "event.category.startsWith(\"forum\") && event.category.endsWith(\"ng\")",
            yes,
        ),
        ("event.category.contains(\"um\")", yes),
        ("event.category.matches(\"^f[a-z]+$\")", yes),
        (
            "matches(event.category, \"u.$\") || event.category.matches(\"^f\")",
            yes,
        ),
        ("[\"a\", \"b\"].all(text, text.matches(\"^[ab]$\"))", yes),
        ("event.properties.i.matches(\"5\")", error),
        ("event.properties.l[2].k == 2", yes),
        ("event.properties.l[9] == 2", error),
        ("event.properties.l == [1, \"a\", {\"k\": 2}]", yes),
        ("event.properties.o.x in event.properties.l", yes),
        ("\"x\" in event.properties.o", yes),
        ("\"country\" in event.location", yes),
        ("event.properties.i + event.properties.l[0] == 6", yes),
        ("string(event.properties.i) == \"5\"", yes),
        ("event.properties.i in [null, 5]", yes),
        ("event.properties.i == 5u", yes),
        (
            "event.location.country + event[\"cate\" + \"gory\"] == \"GBforumng\"",
            yes,
        ),
        ("features[\"cli\" + \"cks\"] == 1", yes),
    ] {
        let condition = compile(source);
        assert!(condition.is_interpreted(), "{source}");
        assert_eq!(condition.is_met(&scope).ok(), expected, "{source}");
    }
}

#[test]
fn operators_are_typed_for_numbers_and_say_what_the_interpreter_says_for_all() {
    let event = table_event();
    let profile = folded(table_event());
    let scope = Scope {
        journey: &TEST_JOURNEY,
        event: &event,
        profile: &profile,
        snapshots: &SNAPSHOTS,
        now: time(0),
    };
    let (yes, no, error) = (Some(true), Some(false), None);
    for (source, expected) in [
        ("event.properties.i + 1 == 6 && event.properties.i % 2 == 1", yes),
        ("event.properties.i * 2 - 1 == 9 && event.properties.i / 2 == 2", yes),
        ("-event.properties.i == -5 && -event.properties.f < 0.0", yes),
        ("event.properties.i / 0 == 1", error),
        ("event.properties.i % 0 == 1", error),
        ("event.properties.f / 0.0 > 1.0", yes),
        ("(event.properties.f - 1.5) / 0.0 == 1.0", no),
        ("(event.properties.f - 1.5) / 0.0 < 1.0", error),
        ("event.properties.i - 9223372036854775807 - 10 < 0", error),
        ("event.properties.i + 1.0 > 1.0", error),
        ("double(event.properties.i) / 2.0 == 2.5", yes),
        ("double(event.properties.t) > 1.0", error),
        ("double(\"1.5\") == 1.5", yes),
        ("event.properties.t + \"d\" == \"abcd\"", yes),
        (
            "event.properties.t + \"d\" == \"abcd\" || event.properties.nope == 1",
            yes,
        ),
        (
            "event.properties.nope == 1 || event.properties.t + \"d\" == \"abcd\"",
            yes,
        ),
        (
            "event.properties.nope == 1 && event.properties.t + \"d\" == \"abc\"",
            no,
        ),
        ("event.properties.l + event.properties.l == event.properties.l", no),
        ("event.properties.t + 1 == 1", error),
        ("event.properties.t - \"a\" == \"bc\"", error),
        ("event.properties.n + 1 == 1", error),
        ("event.properties.nope + 1 == 1", error),
        ("event.properties.b ? event.properties.i > 1 : false", yes),
        ("event.properties.b ? event.properties.nope : false", error),
        ("event.properties.b ? false : event.properties.nope", no),
        ("event.properties.i ? true : false", error),
        ("event.properties.i + 1", error),
        ("features.recent[0] == \"a\"", yes),
        ("features.recent[1] == \"a\"", error),
        ("features.recent[-1] == \"a\"", error),
        ("features.clicks[0] == 1", error),
        ("features.clicks * 3 > 2 && features.total + 1.0 == 6.0", yes),
        ("features.sum_of_all == 6.0 && features.word == \"ab\"", yes),
        ("features.nothing == null", yes),
        ("features.nothing + 1 == 1", error),
        ("steps.done.done_at - steps.done.at == 0", yes),
        (
            "event.country == \"GB\" && event.local_hour == 0 && event.local_weekday == 1",
            yes,
        ),
        ("event.platform == \"Windows 10\" && event.browser == \"Chrome\"", yes),
        ("has(event.device)", no),
    ] {
        let condition = compile(source);
        assert!(
            !condition.is_interpreted() || source.contains("[-1]"),
            "{source} should have a typed form"
        );
        assert_eq!(interpreted(source, &scope).ok(), expected, "interpreted: {source}");
        assert_eq!(condition.is_met(&scope).ok(), expected, "typed: {source}");
    }
}

#[test]
fn what_is_wrong_with_a_condition_is_said_with_what_to_write() {
    for (source, message, suggestion) in [
        ("features.click > 1", "there is no feature `click`", Some("clicks")),
        ("features[\"click\"] > 1", "there is no feature `click`", Some("clicks")),
        ("feature.clicks > 1", "there is no name `feature`", Some("features")),
        ("steps.don.done", "there is no step `don`", Some("done")),
        ("steps.done.dnoe", "there is no step member `dnoe`", Some("done")),
        (
            "session.events_count > 1",
            "there is no session member `events_count`",
            Some("events"),
        ),
        (
            "event.catgory == \"a\"",
            "there is no event member `catgory`",
            Some("category"),
        ),
        (
            "event.location.contry == \"a\"",
            "there is no event member `location.contry`",
            Some("location.country"),
        ),
        (
            "event.plan == \"a\"",
            "there is no event member `plan`",
            Some("event.properties.plan"),
        ),
        (
            "event.category.lenght == 1",
            "there is no event member `category.lenght`",
            Some("category"),
        ),
        ("features.clicks.value > 1", "`features.clicks` has no parts", None),
        (
            "trends.clicks[event.content_id] > 1",
            "there is no trend `clicks`",
            Some("clicks_10m"),
        ),
        (
            "trends.clicks_10m > 1",
            "a trend is read as trends.NAME[KEY]",
            Some("trends.clicks_10m[event.content_id]"),
        ),
        ("size(trends) > 1", "a trend is read as trends.NAME[KEY]", None),
        (
            "\"a\" in trends.hot",
            "a trend is read as trends.NAME[KEY]",
            Some("trends.hot[event.content_id]"),
        ),
        (
            "trends.hot[\"a\" + \"b\"] > 1",
            "a trend is read as trends.NAME[KEY]",
            None,
        ),
        (
            "trends.hot[event.location] > 1",
            "a trend is read as trends.NAME[KEY]",
            None,
        ),
        (
            "trends.hot[trends.hot.a] > 1",
            "a trend is read as trends.NAME[KEY]",
            None,
        ),
        (
            "trends.hot[event.catgory] > 1",
            "there is no event member `catgory`",
            Some("category"),
        ),
        ("trends.hot.a.b > 1", "`trends.hot.a` has no parts", None),
        (
            "features.recent.exists(x, trends.hot[x] > 1)",
            "a trend is read as trends.NAME[KEY]",
            None,
        ),
        ("time.minute > 1", "there is no time member `minute`", None),
        ("time.hour.utc > 1", "`time.hour` has no parts", None),
        ("has(features.click)", "there is no feature `click`", Some("clicks")),
        (
            "event.properties.l.exists(x, x == features.click)",
            "there is no feature `click`",
            Some("clicks"),
        ),
        (
            "event.properties.l.all(x, event.properties.l.exists(y, y == x))",
            "can't stand within another",
            None,
        ),
        (
            "event.type == \"Click\"",
            "event types are kept in lower case",
            Some("click"),
        ),
        (
            "\"Click\" == event.type",
            "event types are kept in lower case",
            Some("click"),
        ),
        (
            "event.type in [\"ok\", \"Page_View\"]",
            "event types are kept in lower case",
            Some("page_view"),
        ),
        (
            "event.category.startWith(\"a\")",
            "there is no function `startWith`",
            Some("startsWith"),
        ),
        (
            "sizes(features.recent) > 1",
            "there is no function `sizes`",
            Some("size"),
        ),
        ("now() > 1", "there is no function `now`", None),
        (
            "timestamp(event.properties.t) > timestamp(\"2024-01-01T00:00:00Z\")",
            "there is no function `timestamp`",
            None,
        ),
        (
            "event.category.matches(\"[a\")",
            "no regular expression: unclosed character class",
            None,
        ),
        (
            "event.category.matches(\"(\\\\w{1000}){1000}\")",
            "more than 10485760 bytes when compiled",
            None,
        ),
        (
            "event.category.matches(event.properties.t)",
            "must be written out",
            None,
        ),
        ("event.category.matches()", "must be written out", None),
        ("arms.copi == \"a\"", "there is no experiment `copi`", Some("copy")),
        ("arms.copy.name == \"a\"", "`arms.copy` has no parts", None),
        (
            "arms.long == \"treatmnt\"",
            "the experiment `long` has no arm `treatmnt`",
            Some("treatment"),
        ),
        (
            "\"treatmnt\" != arms.long",
            "the experiment `long` has no arm `treatmnt`",
            Some("treatment"),
        ),
        (
            "arms.long in [\"control\", \"contrl\"]",
            "the experiment `long` has no arm `contrl`",
            Some("control"),
        ),
        ("Event{id: 1} == 1", "a condition can't make a `Event`", None),
        ("event.type ==", "", None),
        ("", "", None),
        ("1 +* 2", "", None),
        ("event.type == \"a", "", None),
    ] {
        let errors = Condition::compile(source, &mut names()).expect_err(source);
        let found = errors.iter().any(|error| {
            error.message.contains(message) && (message.is_empty() || error.suggestion.as_deref() == suggestion)
        });
        assert!(found, "{source}: {errors:?}");
        assert!(
            errors.iter().all(|error| !error.message.is_empty()),
            "{source}: {errors:?}"
        );
    }
    let errors =
        Condition::compile("features.a > 1 && features.b > 1 && steps.c.done", &mut names()).expect_err("three");
    assert_eq!(errors.len(), 3, "every error at once: {errors:?}");
}

#[test]
fn a_condition_knows_the_event_types_without_which_it_cannot_be_met() {
    for (source, types) in [
        ("event.type == \"a\"", Some(&["a"][..])),
        ("\"a\" == event.type && features.clicks > 1", Some(&["a"])),
        ("features.clicks > 1 && event.type in [\"a\", \"b\"]", Some(&["a", "b"])),
        ("event.type == \"a\" || event.type == \"b\"", Some(&["a", "b"])),
        (
            "(event.type == \"a\" || event.type == \"b\") && event.type == \"b\"",
            Some(&["b"]),
        ),
        ("event.type == \"a\" && event.type == \"b\"", Some(&[])),
        ("event.type == \"a\" || features.clicks > 1", None),
        ("event.type != \"a\"", None),
        ("!(event.type == \"a\")", None),
        ("features.clicks > 1", None),
    ] {
        let condition = compile(source);
        let expected: Option<Vec<String>> = types.map(|types| types.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(condition.event_types(), expected.as_deref(), "{source}");
    }
}

#[test]
fn p10_nested_bombs_are_refused_or_run_and_never_overflow_the_stack() {
    let bombs = [
        format!("{}1{} == 1", "(".repeat(2000), ")".repeat(2000)),
        format!("{}1{} == [1]", "[".repeat(2000), "]".repeat(2000)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1 == 1", "-".repeat(4000)),
        format!("{}1", "true ? 1 : ".repeat(300)),
        "(".repeat(4000),
        "{".repeat(4000),
        format!("event.properties{} == 1", ".a".repeat(2000)),
        format!("event.properties{} == 1", "[\"a\"]".repeat(800)),
        format!("event.properties{} == 1", "[0]".repeat(1300)),
        format!("1{} == 1", "+1".repeat(2000)),
        format!("1{}", "==1".repeat(1300)),
        format!("1{}", "<1".repeat(1300)),
        format!("true{}", "&&true".repeat(600)),
        format!("true{}", "||false&&true".repeat(300)),
        format!("\"a\"{} == 1", ".size()".repeat(500)),
        "a".repeat(1 << 20),
        "[".repeat(1 << 20),
    ];
    for bomb in bombs {
        // As small a stack as any thread of a runtime has.
        let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            let event = table_event();
            let profile = folded(table_event());
            let scope = Scope {
                journey: &TEST_JOURNEY,
                event: &event,
                profile: &profile,
                snapshots: &SNAPSHOTS,
                now: time(0),
            };
            if let Ok(condition) = Condition::compile(&bomb, &mut names()) {
                let _ = condition.is_met(&scope);
            }
        });
        run.expect("a thread").join().expect("no panic");
    }
}

#[test]
fn what_a_condition_saw_is_told_as_json() {
    let event = table_event();
    let profile = folded(table_event());
    let scope = Scope {
        journey: &TEST_JOURNEY,
        event: &event,
        profile: &profile,
        snapshots: &SNAPSHOTS,
        now: time(0),
    };
    let condition = compile(
        "features.clicks > 0 && features.recent != null && features.clicks < 9 && event.properties.o != 1 && !has(event.content_id)",
    );
    let seen: Vec<_> = condition
        .seen(&scope)
        .into_iter()
        .map(|seen| format!("{}={}", seen.name, seen.json))
        .collect();
    let object = r#"event.properties.o={"x":1,"y":{"z":"deep"},"n":null}"#;
    assert_eq!(
        seen,
        [
            "features.clicks=1",
            "features.recent=[\"a\"]",
            object,
            "event.content_id=null"
        ]
    );
}

const READS: &[&str] = &[
    "event.type",
    "event.category",
    "event.content_id",
    "event.location.country",
    "event.properties.a",
    "event.properties.b",
    "event.properties[\"c\"]",
    "event.properties.a.x",
    "event.properties.b.x",
    "event.properties.b.x.y",
    "features.clicks",
    "features.total",
    "features.last",
    "features.recent",
    "features.unset",
    "features.seen",
    "features.sum_of_all",
    "features.word",
    "features.nothing",
    "event.local_hour",
    "event.platform",
    "features.recent[0]",
    "steps.done.done",
    "steps.done.at",
    "steps.open.done",
    "steps.open.at",
    "traits.plan",
    "traits.age",
    "traits.none",
    "session.count",
    "session.events",
    "session.duration_ms",
    "arms.copy",
    "arms.look",
    "trends.clicks_10m.a",
    "trends.hot.c",
    "trends.clicks_10m[event.category]",
    "trends.clicks_10m[features.last]",
    "trends.hot[traits.plan]",
    "trends.hot[event.properties.any]",
    "time.hour",
    "time.weekday",
];
const LITERALS: &[&str] = &[
    "0",
    "1",
    "-1",
    "5",
    "1.0",
    "1.5",
    "-0.0",
    "9007199254740993",
    "9007199254740992.0",
    "\"a\"",
    "\"b\"",
    "\"\"",
    "true",
    "false",
];
/// JSON values as they may be in an event, hostile ones too.
const JSON: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "5",
    "1.0",
    "1.5",
    "-0",
    "9007199254740993",
    "18446744073709551616",
    "1e400",
    "\"a\"",
    "\"b\"",
    "\"\"",
    "\"\\u0061\"",
    "\"\\ud800\"",
    "[]",
    "[1,\"a\"]",
    "[1.0,\"a\"]",
    "{}",
    "{\"x\":1}",
    "{\"x\":{\"y\":\"a\"}}",
    "{\"x\":null}",
    "{\"x\":1.0}",
    "{\"x\":1,\"x\":2}",
    "{\"x\":1,\"z\":1e400}",
    "{\"x\":5,\"\\ud800\":1}",
];

fn expression() -> impl Strategy<Value = String> {
    let read = prop::sample::select(READS).prop_map(str::to_owned);
    let literal = prop::sample::select(LITERALS).prop_map(str::to_owned);
    let operand = prop_oneof![4 => read.clone(), 3 => literal.clone(), 1 => Just("null".to_owned())];
    let operator = prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let operator_again = operator.clone();
    let arithmetic = prop::sample::select(&["+", "-", "*", "/", "%"][..]);
    let leaf = prop_oneof![
        6 => (operand.clone(), operator, operand.clone()).prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
        2 => (operand.clone(), prop::collection::vec(literal, 0..4))
            .prop_map(|(needle, list)| format!("{needle} in [{}]", list.join(", "))),
        1 => (operand.clone(), read.clone()).prop_map(|(needle, read)| format!("{needle} in {read}")),
        2 => (operand.clone(), arithmetic, operand.clone(), operator_again, operand.clone())
            .prop_map(|(left, operator, right, comparison, other)| format!("{left} {operator} {right} {comparison} {other}")),
        1 => (operand.clone(), operand.clone()).prop_map(|(one, other)| format!("-{one} < double({other})")),
        2 => prop::sample::select(READS).prop_filter("has() takes a member", |read| !read.ends_with(']')).prop_map(|read| format!("has({read})")),
        1 => operand,
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} && {right})")),
            2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left}) == ({right})")),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(condition, one, other)| format!("(({condition}) ? ({one}) : ({other}))")),
            1 => inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn both_forms_agree_on_random_conditions_over_random_scopes(
        source in expression(),
        properties in prop::collection::vec((prop::sample::select(&["a", "b", "c", "any", "i"][..]), prop::sample::select(JSON)), 0..6),
        unknown in prop::collection::vec((prop::sample::select(&["a", "b"][..]), prop::sample::select(JSON)), 0..3),
        event_type in prop::sample::select(&["click", "view"][..]),
        category in prop::option::of(prop::sample::select(&["a", "b", ""][..])),
        plan in prop::option::of(prop::sample::select(&["a", "b"][..])),
        earlier in prop::option::of(prop::sample::select(&["\"a\"", "1", "1.0", "true"][..])),
        user in "[a-z]{1,3}",
    ) {
        let object = format!("{{{}}}", properties.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect::<Vec<_>>().join(","));
        let earlier_object = earlier.map(|json| format!("{{\"any\":{json}}}"));
        let mut event = event("e2", event_type, time(1000));
        event.category = category.map(Into::into);
        event.user = user.into();
        event.properties = Properties {
            object: Some(&object),
            unknown: unknown.iter().map(|(name, json)| ((*name).into(), *json)).collect(),
        };
        let mut profile = Profile::new(&TEST_JOURNEY);
        if let Some(earlier_object) = &earlier_object {
            let mut earlier = crate::testing::event("e1", "click", time(0));
            earlier.properties.object = Some(earlier_object);
            apply(&mut profile, arrived(earlier, 0, 1, time(0)));
        }
        profile.traits[0] = plan.map(|plan| Dated {
            at: time(0),
            shard: crate::feature::short_shard(SHARDS[0].key),
            value: Scalar::Text(plan.to_owned()),
        });
        apply(&mut profile, arrived(event.clone(), 0, 2, time(1000)));
        let scope = Scope { journey: &TEST_JOURNEY, event: &event, profile: &profile, snapshots: &SNAPSHOTS, now: time(1000) };
        let condition = match Condition::compile(&source, &mut names()) {
            // It compares with an arm that there is none of, and then it has no form at all.
            Err(errors) if errors.iter().all(|error| error.message.contains("has no arm")) => return Ok(()),
            condition => condition.expect("a condition"),
        };
        prop_assert_eq!(condition.is_met(&scope).ok(), interpreted(&source, &scope).ok(), "{} over {}", source, object);
        prop_assert_eq!(ruled_out(&condition, &scope), None, "{} over {}", source, object);
    }
}

/// What was said to be impossible, and is so all the same.
fn ruled_out(condition: &Condition, scope: &Scope<'_>) -> Option<Asked> {
    let result = condition.is_met(scope);
    let asked = [
        (Asked::True, result == Ok(true)),
        (Asked::False, result == Ok(false)),
        (Asked::NotTrue, result != Ok(true)),
        (Asked::NotFalse, result != Ok(false)),
    ];
    let given = asked.into_iter().filter(|(_, given)| *given);
    let mut wrong =
        given.filter(|(asked, _)| impossible(&[(condition, *asked)], &Facts::none(scope.journey)).is_some());
    wrong.next().map(|(asked, _)| asked)
}

/// Comparisons of few slots with few literals, so that many of them exclude each other.
fn dense_expression() -> impl Strategy<Value = String> {
    const SLOTS: &[&str] = &[
        "features.clicks",
        "features.total",
        "features.last",
        "features.seen",
        "steps.done.done",
        "steps.done.at",
        "steps.open.done",
        "steps.open.at",
        "session.count",
        "event.properties.a",
        "event.category",
        "event.local_hour",
        "traits.plan",
        "arms.copy",
        "trends.hot.a",
        "trends.clicks_10m[event.category]",
        "time.hour",
        "time.weekday",
    ];
    const LITERALS: &[&str] = &[
        "-1", "0", "1", "2", "0.0", "0.5", "1.0", "\"a\"", "\"b\"", "true", "false", "null",
    ];
    let slot = prop::sample::select(SLOTS).prop_map(str::to_owned);
    let literal = prop::sample::select(LITERALS).prop_map(str::to_owned);
    let operator = prop::sample::select(&["==", "!=", "<", "<=", ">", ">="][..]);
    let leaf = prop_oneof![
        4 => (slot.clone(), operator, literal.clone(), any::<bool>()).prop_map(|(slot, operator, literal, swapped)| {
            if swapped { format!("{literal} {operator} {slot}") } else { format!("{slot} {operator} {literal}") }
        }),
        1 => (slot.clone(), prop::collection::vec(literal.prop_filter("no null in a list", |text| text != "null"), 0..4))
            .prop_map(|(slot, list)| format!("{slot} in [{}]", list.join(", "))),
        1 => slot.clone().prop_filter("has() takes a member", |slot| !slot.ends_with(']')).prop_map(|slot| format!("has({slot})")),
        1 => slot,
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            4 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} && {right})")),
            2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(condition, one, other)| format!("(({condition}) ? ({one}) : ({other}))")),
            1 => inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn what_is_called_impossible_never_is(
        source in dense_expression(),
        property in prop::option::of(prop::sample::select(JSON)),
        clicks in prop::collection::vec(prop::sample::select(&["\"a\"", "0", "1", "-1", "0.5", "true"][..]), 0..4),
        category in prop::option::of(prop::sample::select(&["a", "b", ""][..])),
        plan in prop::option::of(prop::sample::select(&["a", "b"][..])),
        user in "[a-z]{1,3}",
    ) {
        let object = property.map_or("{}".to_owned(), |json| format!("{{\"a\":{json}}}"));
        let mut profile = Profile::new(&TEST_JOURNEY);
        let objects: Vec<String> = clicks.iter().map(|json| format!("{{\"any\":{json},\"i\":{json}}}")).collect();
        for (number, object) in objects.iter().enumerate() {
            let mut click = event(&format!("c{number}"), "click", time(number as i64));
            click.properties.object = Some(object);
            apply(&mut profile, arrived(click, 0, number as u64 + 1, time(0)));
        }
        profile.traits[0] = plan.map(|plan| Dated {
            at: time(0),
            shard: crate::feature::short_shard(SHARDS[0].key),
            value: Scalar::Text(plan.to_owned()),
        });
        let mut event = event("e2", "view", time(1000));
        event.category = category.map(Into::into);
        event.user = user.into();
        event.properties.object = Some(&object);
        apply(&mut profile, arrived(event.clone(), 0, 9, time(1000)));
        let scope = Scope { journey: &TEST_JOURNEY, event: &event, profile: &profile, snapshots: &SNAPSHOTS, now: time(1000) };
        let condition = match Condition::compile(&source, &mut names()) {
            Err(errors) if errors.iter().all(|error| error.message.contains("has no arm")) => return Ok(()),
            condition => condition.expect("a condition"),
        };
        prop_assert_eq!(ruled_out(&condition, &scope), None, "{} over {}", source, object);
    }
}

/// A row: a condition, what is impossible of it, and the parts that exclude each other.
#[test]
fn what_cannot_be_is_found_with_the_parts_that_exclude_each_other() {
    use Asked::{False, NotTrue, True};
    for (source, asked, because) in [
        (
            "features.clicks > 5 && session.count == 1 && features.clicks < 3",
            True,
            &["features.clicks > 5", "features.clicks < 3"][..],
        ),
        (
            "features.clicks > 5 && features.clicks < 6",
            True,
            &["features.clicks > 5", "features.clicks < 6"],
        ),
        (
            "features.total > 5 && features.total <= 5",
            True,
            &["features.total > 5", "features.total <= 5"],
        ),
        ("features.clicks < 0", True, &["features.clicks < 0"]),
        ("0 > session.count", True, &["0 > session.count"]),
        ("features.clicks >= 0", NotTrue, &["!(features.clicks >= 0)"]),
        ("features.clicks == 1.5", True, &["features.clicks == 1.5"]),
        ("features.clicks == \"5\"", True, &["features.clicks == \"5\""]),
        ("features.clicks in []", True, &["features.clicks in []"]),
        (
            "features.clicks in [1, 2] && features.clicks > 2",
            True,
            &["features.clicks in [1, 2]", "features.clicks > 2"],
        ),
        (
            "event.category == \"a\" && event.category == \"b\"",
            True,
            &["event.category == \"a\"", "event.category == \"b\""],
        ),
        (
            "event.category in [\"a\"] && event.category != \"a\"",
            True,
            &["event.category in [\"a\"]", "event.category != \"a\""],
        ),
        (
            "event.category > \"b\" && event.category < \"a\"",
            True,
            &["event.category > \"b\"", "event.category < \"a\""],
        ),
        (
            "has(event.category) && !has(event.category)",
            True,
            &["has(event.category)", "!has(event.category)"],
        ),
        (
            "steps.done.done && !steps.done.done",
            True,
            &["steps.done.done", "!steps.done.done"],
        ),
        (
            "!steps.done.done && steps.done.at != null",
            True,
            &["!steps.done.done", "steps.done.at != null"],
        ),
        (
            "steps.done.done && steps.done.at == null",
            True,
            &["steps.done.done", "steps.done.at == null"],
        ),
        (
            "steps.done.done || !steps.done.done",
            NotTrue,
            &["!steps.done.done", "steps.done.done"],
        ),
        ("event.local_hour > 23", True, &["event.local_hour > 23"]),
        ("time.hour > 23", True, &["time.hour > 23"]),
        (
            "trends.hot[event.category] > 5 && trends.hot[event.category] < 3",
            True,
            &["trends.hot[event.category] > 5", "trends.hot[event.category] < 3"],
        ),
        (
            "event.local_hour == 9 && event.local_hour != 9 || features.clicks < 0",
            True,
            &[],
        ),
        (
            "arms.copy == \"a\" && arms.copy == \"b\"",
            True,
            &["arms.copy == \"a\"", "arms.copy == \"b\""],
        ),
        ("arms.copy in [\"a\", \"b\"]", False, &["!(arms.copy in [\"a\",\"b\"])"]),
        ("features.recent == 1", True, &["features.recent == 1"]),
        ("1 > 2", True, &["1 > 2"]),
        ("1", True, &["1"]),
        (
            "event.properties.a == 1 && (event.properties.b == 2 || event.properties.a == 2) && event.properties.b != 2",
            True,
            &[],
        ),
    ] {
        let condition = compile(source);
        let found =
            impossible(&[(&condition, asked)], &Facts::none(&TEST_JOURNEY)).unwrap_or_else(|| panic!("{source}"));
        let found: Vec<String> = found.because.iter().map(|part| part.replace(", ", ",")).collect();
        let because: Vec<String> = because.iter().map(|part| part.replace(", ", ",")).collect();
        assert_eq!(found, because, "{source}");
    }
    for source in [
        "features.clicks > 5 && features.clicks < 7",
        "features.total > 5 && features.total < 6",
        "event.properties.a == 1 && event.properties.a == 1.0",
        "event.category > \"a\" && event.category < \"b\"",
        "event.properties.a > 1 && event.properties.b < 1",
        "features.clicks + 1 < 0",
        "features.clicks > 1 && size(features.recent) > 1",
        "features.seen == null",
        "event.properties.big > 9223372036854775807 && event.properties.big < 9223372036854775807",
        "traits.plan == 1",
        "features.sum_of_all < 0.0",
        "trends.hot[event.category] > 5 && trends.hot[traits.plan] < 3",
    ] {
        let condition = compile(source);
        assert_eq!(
            impossible(&[(&condition, True)], &Facts::none(&TEST_JOURNEY)),
            None,
            "{source}"
        );
    }
}
