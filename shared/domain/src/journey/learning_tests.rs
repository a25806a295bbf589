//! Trends, what learners see and how they choose, and outcomes, as a file says them.

use super::tests::check;
use super::*;
use crate::bandit::learner::{Algorithm, Learner, Scope};
use crate::testing::journey;
use crate::value::Scalar;

/// What every file of these tests has above the part that it is about: 10 lines.
const TOP: &str = "journey: j
steps: [{ id: sign_up, on: sign_up }]
features: { clicks: { count: click }, device: { last: device_type }, seen: { recent: category }, since: { last_seen: click } }
experiments: [{ id: copy, arms: { short: 1, long: 1 } }]
trends: { clicks_10m: { count: click, within: 10m }, hot: { count: [click, like], within: 1h, by: category } }
contents:
  - { id: tour, attributes: { kind: video, minutes: 3, free: true } }
  - { id: demo, attributes: { kind: text, minutes: 1.5 } }
  - { id: plain }
triggers: [{ id: r, on: click, choose: all, slot: in_app }, { id: o, on: view, offer: tour, slot: email }]
";

fn slot(text: &str) -> SlotLearner {
    let mut journey = journey(&format!("{TOP}slots:\n  in_app: {{ {text} }}\n"));
    journey.learners.remove(0)
}

#[test]
fn trends_are_read() {
    let read = journey(TOP).trends;
    let trend = |name: &str, types: &[&str], by, within_ms| Trend {
        name: name.to_owned(),
        event_types: types.iter().map(|name| (*name).to_owned()).collect(),
        by,
        within_ms,
    };
    assert_eq!(
        read,
        [
            trend("clicks_10m", &["click"], TrendBy::Content, 600_000),
            trend("hot", &["click", "like"], TrendBy::Category, 3_600_000),
        ]
    );
}

#[test]
fn what_is_chosen_from_is_read() {
    const REST: &str = "contents: [{ id: a }, { id: b }, { id: c }]\n";
    for (text, offers, learner) in [
        ("on: click, choose: all", &[0, 1, 2][..], Some(0)),
        ("on: click, choose: [c, a]", &[2, 0], Some(0)),
        ("after: [1h, 2h], since: click, choose: [b, c, a]", &[1, 2, 0], Some(0)),
        ("on: click, choose: b", &[1], Some(0)),
        ("on: click, offer: b", &[1], None),
    ] {
        let journey = journey(&format!(
            "journey: j\n{REST}triggers: [{{ id: r, {text}, slot: s }}, {{ id: q, on: x, offer: a, slot: other }}]\n"
        ));
        let rule = &journey.rules[0];
        assert_eq!((rule.offers.as_slice(), rule.learner), (offers, learner), "{text}");
        let learners: Vec<&str> = journey.learners.iter().map(|learner| learner.slot.as_str()).collect();
        assert_eq!(learners, if learner.is_some() { vec!["s"] } else { vec![] }, "{text}");
    }
}

#[test]
fn attributes_and_slots_are_read() {
    let all = journey(TOP);
    assert_eq!(
        all.contents[1].attributes,
        [
            ("kind".to_owned(), Scalar::Text("text".to_owned())),
            ("minutes".to_owned(), Scalar::Float(1.5))
        ]
    );
    assert_eq!(all.learners.len(), 1, "the slot of `offer` needs none");
    let with = |algorithm: Algorithm, change: fn(&mut Learner)| {
        let mut learner = Learner::new(algorithm);
        change(&mut learner);
        learner
    };
    let weights = [("tour".to_owned(), 3.0), ("demo".to_owned(), 0.0)];
    for (text, dimension, learner) in [
        ("{}", 0, with(Algorithm::Thompson, |_| {})),
        (
            "learner: thompson, temperature: 2",
            0,
            with(Algorithm::Thompson, |learner| learner.temperature = 2.0),
        ),
        (
            "context: { clicks: features.clicks, hour: session.count }",
            2,
            with(Algorithm::LinearThompson(Scope::PerArm), |_| {}),
        ),
        (
            "context: { plan: { value: traits.plan, one_of: [free, team] }, city: { value: traits.city, as: text }, done: steps.sign_up.done, copy: arms.copy }",
            3 + 8 + 1 + 3,
            with(Algorithm::LinearThompson(Scope::PerArm), |_| {}),
        ),
        (
            "learner: linucb, optimism: 2, floor: 1.5%, reward_scale: 5, contents: { minutes: content.minutes, kind: { value: content.kind, one_of: [video, text] }, hot: trends.clicks_10m }",
            0,
            with(Algorithm::LinUcb(Scope::Shared), |learner| {
                learner.optimism = 2.0;
                learner.floor = 0.015;
                learner.reward_scale = 5.0;
            }),
        ),
        (
            "learner: epsilon_greedy, shared: false, contents: { free: content.free }",
            0,
            with(
                Algorithm::EpsilonGreedy {
                    epsilon: 0.1,
                    scope: Scope::PerArm,
                },
                |_| {},
            ),
        ),
        (
            "learner: fixed_split, weights: { tour: 3, demo: 0 }",
            0,
            with(Algorithm::FixedSplit(weights.into_iter().collect()), |learner| {
                learner.floor = 0.0
            }),
        ),
        ("learner: scores", 0, with(Algorithm::Scores, |_| {})),
        (
            "context: { hour: time.hour, day: { value: time.weekday, one_of: [6, 7] }, hot: trends.hot.a, mine: 'trends.clicks_10m[features.device]' }",
            1 + 3 + 1 + 1,
            with(Algorithm::LinearThompson(Scope::PerArm), |_| {}),
        ),
    ] {
        let read = match text {
            "{}" => journey(TOP).learners.remove(0),
            text => slot(text),
        };
        assert_eq!(read.learner, learner, "{text}");
        assert_eq!(
            (read.slot.as_str(), read.layout.dimension()),
            ("in_app", dimension),
            "{text}"
        );
        assert_eq!(read.half_life_ms, None);
    }
    assert_eq!(slot("half_life: 7d").half_life_ms, Some(7 * 24 * 3_600_000));
}

#[test]
fn imported_scores_are_traits_of_the_candidates() {
    for text in ["learner: scores", "contents: { score: score }"] {
        let journey = journey(&format!("{TOP}slots:\n  in_app: {{ {text} }}\n"));
        assert_eq!(journey.traits, ["score.tour", "score.demo", "score.plain"], "{text}");
        let scores: Vec<Option<usize>> = journey.contents.iter().map(|content| content.score).collect();
        assert_eq!(scores, [Some(0), Some(1), Some(2)], "{text}");
    }
}

#[test]
fn outcomes_are_read() {
    let text = "outcomes:
  within: 24h
  reward:
    click: 1
    step_completed: 5
    bought: { on: purchase, when: event.properties.total > 10, reward: 3.5, content: any }
    read: { on: [view, click], reward: -1 }
    signed: { step: sign_up, reward: 2 }
";
    let outcomes = journey(&format!("{TOP}{text}")).outcomes.expect("outcomes");
    assert_eq!(outcomes.within_ms, 24 * 3_600_000);
    let read: Vec<String> = outcomes
        .rewards
        .iter()
        .map(|reward| {
            let when = reward.when.as_ref().map_or("always", Condition::source);
            format!("{} {:?} {when} {}", reward.name, reward.on, reward.reward)
        })
        .collect();
    let event = |types: &str, same: bool| format!("Event {{ on: These([{types}]), same_content: {same} }}");
    assert_eq!(
        read,
        [
            format!("click {} always 1", event("\"click\"", true)),
            "step_completed Step(None) always 5".to_owned(),
            format!(
                "bought {} event.properties.total > 10 3.5",
                event("\"purchase\"", false)
            ),
            format!("read {} always -1", event("\"view\", \"click\"", true)),
            "signed Step(Some(0)) always 2".to_owned(),
        ]
    );
}

/// A row: what stands below, its path, a part of the message, and the suggestion.
#[test]
fn every_mistake_in_what_is_learned_is_told_with_what_to_write() {
    for (text, path, message, suggestion) in [
        (
            "slots:\n  in_ap: {}",
            "slots.in_ap",
            "no trigger has the slot `in_ap`",
            Some("in_app"),
        ),
        (
            "slots:\n  in_app: { lerner: x }",
            "slots.in_app",
            "there is no key `lerner`",
            Some("learner"),
        ),
        (
            "slots:\n  in_app: { learner: thomson }",
            "slots.in_app.learner",
            "`thomson` is no learner",
            Some("thompson"),
        ),
        (
            "slots:\n  in_app: { learner: linucb, epsilon: 5% }",
            "slots.in_app.epsilon",
            "`linucb` has no `epsilon`, but `epsilon_greedy` has",
            None,
        ),
        (
            "slots:\n  in_app: { weights: { tour: 1 } }",
            "slots.in_app.weights",
            "`thompson` has no `weights`, but `fixed_split` has",
            None,
        ),
        (
            "slots:\n  in_app: { learner: fixed_split, weights: { tuor: 1 } }",
            "slots.in_app.weights.tuor",
            "there is no content `tuor`",
            Some("tour"),
        ),
        (
            "slots:\n  in_app: { floor: 0.5 }",
            "slots.in_app.floor",
            "`0.5` is no share",
            Some("50%"),
        ),
        (
            "slots:\n  in_app: { half_life: 1s }",
            "slots.in_app.half_life",
            "is not between",
            None,
        ),
        (
            "slots:\n  in_app: { learner: linucb, shared: true }",
            "slots.in_app.shared",
            "sees nothing but `contents`",
            None,
        ),
        (
            "slots:\n  in_app: { context: { clicks: features.click } }",
            "slots.in_app.context.clicks",
            "there is no feature `click`",
            Some("clicks"),
        ),
        (
            "slots:\n  in_app: { context: { many: features.clicks > 3 } }",
            "slots.in_app.context.many",
            "is not one value",
            None,
        ),
        (
            "slots:\n  in_app: { context: { device: features.device } }",
            "slots.in_app.context.device",
            "write { value: features.device, one_of: [...] }",
            None,
        ),
        (
            "slots:\n  in_app: { context: { seen: features.seen } }",
            "slots.in_app.context.seen",
            "a list is no number",
            None,
        ),
        (
            "slots:\n  in_app: { context: { since: features.since } }",
            "slots.in_app.context.since",
            "a moment tells a learner nothing",
            None,
        ),
        (
            "slots:\n  in_app: { context: { what: event.category } }",
            "slots.in_app.context.what",
            "a context reads no event",
            None,
        ),
        (
            "slots:\n  in_app: { context: { what: 'trends.hot[event.category]' } }",
            "slots.in_app.context.what",
            "a context reads no event",
            None,
        ),
        (
            "slots:\n  in_app: { context: { plan: { value: traits.plan, as: word } } }",
            "slots.in_app.context.plan.as",
            "`word` is nothing that a value can be",
            None,
        ),
        (
            "slots:\n  in_app: { context: { plan: { value: traits.plan, one_of: [a, a] } } }",
            "slots.in_app.context.plan.one_of",
            "`a` is there twice",
            None,
        ),
        (
            "slots:\n  in_app: { contents: { kind: content.kind } }",
            "slots.in_app.contents.kind",
            "one_of: [video, text]",
            None,
        ),
        (
            "slots:\n  in_app: { contents: { kind: content.kynd } }",
            "slots.in_app.contents.kind",
            "no content has the attribute `kynd`",
            Some("content.kind"),
        ),
        (
            "slots:\n  in_app: { contents: { hot: trends.hot } }",
            "slots.in_app.contents.hot",
            "counts by category",
            None,
        ),
        (
            "slots:\n  in_app: { contents: { hot: trends.clicks_1m } }",
            "slots.in_app.contents.hot",
            "there is no trend `clicks_1m`",
            Some("trends.clicks_10m"),
        ),
        (
            "slots:\n  in_app: { contents: { hot: features.clicks } }",
            "slots.in_app.contents.hot",
            "is nothing that a content has",
            None,
        ),
        ("outcomes:\n  within: 24h", "outcomes", "outcomes need `reward`", None),
        (
            "outcomes:\n  reward: { click: 1 }",
            "outcomes",
            "outcomes need `within`",
            None,
        ),
        (
            "outcomes:\n  { within: 31d, reward: { click: 1 } }",
            "outcomes.within",
            "is not between",
            None,
        ),
        (
            "outcomes:\n  { within: 1d, reward: { Click: 1 } }",
            "outcomes.reward.Click",
            "event types are kept in lower case",
            Some("click"),
        ),
        (
            "outcomes:\n  { within: 1d, reward: { b: { on: buy, step: sign_up, reward: 1 } } }",
            "outcomes.reward.b.step",
            "exclude each other",
            None,
        ),
        (
            "outcomes:\n  { within: 1d, reward: { b: { step: signup, reward: 1 } } }",
            "outcomes.reward.b.step",
            "there is no step `signup`",
            Some("steps.sign_up"),
        ),
        (
            "outcomes:\n  { within: 1d, reward: { b: { on: buy } } }",
            "outcomes.reward.b",
            "it needs `reward`",
            None,
        ),
        (
            "outcomes:\n  { within: 1d, reward: { click: 1e9 } }",
            "outcomes.reward.click",
            "expected a number from -65536 to 65536",
            None,
        ),
    ] {
        check(&format!("{TOP}{text}\n"), 12, path, message, suggestion);
    }
    let numbers: Vec<String> = (0..30).map(|number| format!("f{number}: session.count")).collect();
    let text = format!(
        "{TOP}slots:\n  in_app: {{ context: {{ {}, plan: {{ value: traits.plan, one_of: [a, b] }} }} }}\n",
        numbers.join(", ")
    );
    check(
        &text,
        12,
        "slots.in_app.context",
        "the features need 33 numbers, but there are 32",
        None,
    );
    check(&text, 12, "slots.in_app.context", "`plan` 3", None);
}

/// The same for what stands above the slots.
#[test]
fn every_mistake_in_a_choice_or_a_trend_is_told_with_what_to_write() {
    let many: Vec<String> = (0..257).map(|number| format!("{{ id: c{number} }}")).collect();
    let many = format!(
        "contents: [{}]\ntriggers:\n  - {{ id: r, on: x, choose: all, slot: s }}",
        many.join(", ")
    );
    for (text, path, message, suggestion) in [
        (
            "contents: [{ id: a }]\ntriggers:\n  - { id: r, on: x, offer: a, choose: all, slot: s }",
            "triggers.r.choose",
            "`offer` and `choose` exclude each other",
            None,
        ),
        (
            "contents: [{ id: a }]\ntriggers:\n  - { id: r, on: x, slot: s }",
            "triggers.r",
            "a trigger needs `offer`",
            None,
        ),
        (
            "contents: [{ id: tour }]\ntriggers:\n  - { id: r, on: x, choose: [tuor], slot: s }",
            "triggers.r.choose",
            "there is no content `tuor`",
            Some("tour"),
        ),
        (
            "contents: [{ id: a }]\ntriggers:\n  - { id: r, on: x, choose: [a, a], slot: s }",
            "triggers.r.choose",
            "`a` is there twice",
            None,
        ),
        (
            "contents: [{ id: a }]\ntriggers:\n  - { id: r, on: x, choose: [], slot: s }",
            "triggers.r.choose",
            "0 candidates",
            None,
        ),
        (
            &many,
            "triggers.r.choose",
            "257 candidates: a learner chooses from 1 to 256",
            None,
        ),
        (
            "contents: [{ id: a, when: event.category == 'x' }]\ntriggers:\n  - { id: r, after: 1h, since: any, choose: all, slot: s }",
            "triggers.r.choose",
            "it may be made without an event",
            None,
        ),
        (
            "contents: []\ntrends:\n  t: { count: any, within: 1h }",
            "trends.t.count",
            "a trend names the event types",
            None,
        ),
        (
            "contents: []\ntrends:\n  t: { count: x }",
            "trends.t",
            "a trend needs `within`",
            None,
        ),
        (
            "contents: []\ntrends:\n  t: { count: x, within: 25h }",
            "trends.t.within",
            "is not between",
            None,
        ),
        (
            "contents: []\ntrends:\n  t: { count: x, within: 1h, by: contents }",
            "trends.t.by",
            "nothing to count by",
            Some("content"),
        ),
        (
            "contents:\n\n  - { id: a, attributes: { kind: [x] } }",
            "contents.a.attributes.kind",
            "expected a text of at most",
            None,
        ),
    ] {
        check(&format!("journey: j\n{text}\n"), 4, path, message, suggestion);
    }
}

/// What is kept of a user is the same whatever others do, and whenever a late event arrives.
#[test]
fn p7_p11_what_is_kept_reads_no_trends_and_no_clock() {
    const KEPT: &str = "what is kept of a user hangs on the user's own events alone";
    const OWN_TIME: &str = "this goes by the events' own time";
    const TREND: &str = "trends.t[\"a\"] > 1";
    const HOUR: &str = "time.hour > 1";
    for (text, path, of_trends, of_time) in [
        ("steps:\n  - { id: s, when: '?' }", "steps.s.when", KEPT, Some(OWN_TIME)),
        (
            "features:\n  f: { count: x, when: '?' }",
            "features.f.when",
            KEPT,
            Some(OWN_TIME),
        ),
        (
            "features:\n  f: { expr: '?' }",
            "features.f.expr",
            "it can't read `trends.t.a`",
            Some("it can't read `time.hour`"),
        ),
        ("entry:\n  '?'", "entry", KEPT, None),
        ("exit:\n  '?'", "exit", KEPT, None),
        (
            "outcomes:\n  { within: 1h, reward: { a: { on: a, when: '?', reward: 1 } } }",
            "outcomes.reward.a.when",
            KEPT,
            Some(OWN_TIME),
        ),
        (
            "triggers:\n  - { id: r, after: 1h, since: { event: a, when: '?' }, offer: c, slot: s }",
            "triggers.r.since.when",
            KEPT,
            Some(OWN_TIME),
        ),
    ] {
        let top = "journey: j\ncontents: [{ id: c }]\ntrends: { t: { count: x, within: 1h } }\n";
        let with = |condition: &str| format!("{top}{}\n", text.replace('?', condition));
        check(&with(TREND), 5, path, of_trends, None);
        match of_time {
            Some(of_time) => check(&with(HOUR), 5, path, of_time, None),
            None => {
                assert!(journey(&with(HOUR)).goes_by_local_time(), "{text}");
            }
        }
    }
    for (text, by_clock) in [
        ("on: x, when: 'trends.t[event.content_id] > 1'", false),
        ("on: x, unless: time.hour > 1", true),
        ("enters: time.weekday > 5 && trends.t.a > 1", true),
        ("after: 1h, since: x, when: trends.t.a > 1", false),
    ] {
        for content in ["", ", when: trends.t.a > 2"] {
            let read = journey(&format!(
                "journey: j\ntrends: {{ t: {{ count: x, within: 1h }} }}\ncontents: [{{ id: c{content} }}]\ntriggers: [{{ id: r, {text}, offer: c, slot: s }}]\n"
            ));
            assert_eq!(read.goes_by_local_time(), by_clock, "{text}");
        }
    }
    let text = "slots:\n  in_app: { context: { hour: time.hour } }\n";
    assert!(journey(&format!("{TOP}{text}")).goes_by_local_time() && !journey(TOP).goes_by_local_time());
}
