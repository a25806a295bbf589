//! The oracle: every feature computed from scratch, over all events so far, by the plainest code that says what it is. It
//! shares nothing with the fold but the words, and the two must agree at every moment (P11, P12).
//!
//! A window is exact to one tile, so what the fold says must be what the oracle says for some length between the window's
//! and one tile more.

use std::sync::LazyLock;

use proptest::prelude::*;

use crate::event::{ArrivedEvent, Event, Properties};
use crate::journey::Journey;
use crate::limits::OPEN_SESSIONS_MAX;
use crate::merge::merge_history;
use crate::plan::plan_user;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::testing::{EPOCH_MS, MINUTE_MS, SHARDS, arrived, event, journey, time};
use crate::time::Timestamp;
use crate::value::{Scalar, Value};

const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const IDLE_MS: i64 = 30 * MINUTE_MS;
const HALF_LIFE_MS: i64 = 2 * HOUR_MS;
const ROUND_MS: i64 = 10 * MINUTE_MS;
/// A score rounds each event to a two-thousandth.
const SCORE_ROUNDING: f64 = 0.0006;

const JOURNEY: &str = r#"
journey: oracle
dedupe: { last: 4096 }
sessions: { idle_timeout: 30m }
steps:
  - { id: clicked, on: click }
  - { id: paid, on: buy }
features:
  count: { count: click }
  count_when: { count: any, when: event.properties.n > 20 && event.type != "buy" }
  count_1m: { count: [click, view], within: 1m }
  count_10m: { count: click, within: 10m }
  count_3h: { count: any, within: 3h }
  count_7d: { count: any, within: 7d }
  sum: { sum: properties.n, on: [click, view] }
  sum_1h: { sum: properties.n, within: 1h }
  min: { min: properties.n, on: click }
  max: { max: properties.n, on: click }
  mean: { mean: properties.n, on: view }
  min_10m: { min: properties.n, within: 10m }
  max_2h: { max: properties.n, within: 2h, on: [click, buy] }
  mean_2h: { mean: properties.n, within: 2h }
  distinct: { distinct: content_id }
  distinct_1h: { distinct: content_id, within: 1h, on: [click, view] }
  first: { first: category }
  last: { last: category, on: click }
  last_1h: { last: category, within: 1h }
  recent: { recent: content_id, limit: 4 }
  recent_2h: { recent: content_id, limit: 3, within: 2h, when: event.type == "view" }
  interacted: { interacted_with: content_id, on: click, within: 12h }
  top: { top: category }
  top_3: { top: content_id, limit: 3, on: [click, view] }
  top_6h: { top: category, limit: 4, within: 6h }
  top_hour: { top: local_hour }
  rate: { rate: { of: click, to: view, prior: [1, 9] } }
  rate_1h: { rate: { of: [click, buy], to: any, prior: [0, 0] }, within: 1h }
  first_seen: { first_seen: any }
  last_seen: { last_seen: view }
  since: { time_since: click }
  since_first: { time_since_first: buy }
  score: { score: { click: 2, view: 0.5, buy: -1.25 }, half_life: 2h }
  frequency: { frequency: click, unit: day }
  frequency_3h: { frequency: any, within: 3h }
  hours: { hour_of_day: any }
  weekdays: { weekday: click }
  sessions: { sessions: count }
  session_time: { sessions: duration }
  session_mean: { sessions: mean_duration }
  now_events: { sessions: current_events }
  now_time: { sessions: current_duration }
  s_count: { count: click, per: session }
  s_sum: { sum: properties.n, per: session }
  s_max: { max: properties.n, per: session }
  s_mean: { mean: properties.n, per: session }
  s_distinct: { distinct: content_id, per: session }
  s_first: { first: category, per: session }
  s_recent: { recent: content_id, limit: 2, per: session }
  s_top: { top: category, per: session }
  s_rate: { rate: { of: click, to: view }, per: session }
  to_paid: { step_duration: { from: clicked, to: paid } }
  twice: { expr: features.count * 2 + features.distinct }
  share: { expr: "features.count_3h > 0 ? double(features.count_10m) / double(features.count_3h) : 0.0" }
  over: { expr: features.twice - features.count }
"#;

static ORACLE_JOURNEY: LazyLock<Journey> = LazyLock::new(|| journey(JOURNEY));

/// Zones whose offset never changes, with that offset.
const ZONES: [(Option<&str>, i64); 4] = [
    (None, 0),
    (Some("Asia/Tokyo"), 9 * HOUR_MS),
    (Some("Asia/Kathmandu"), 5 * HOUR_MS + 45 * MINUTE_MS),
    (Some("Nowhere/Land"), 0),
];
const TYPES: [&str; 4] = ["click", "view", "buy", "other"];
const CATEGORIES: [&str; 5] = ["forum", "quiz", "url", "page", "home"];

/// An event as it was drawn.
#[derive(Clone, Debug)]
struct Drawn {
    id: usize,
    event_type: &'static str,
    /// After [`EPOCH_MS`].
    at_ms: i64,
    arrived_ms: i64,
    shard: usize,
    n: Option<i64>,
    category: Option<&'static str>,
    content: Option<u8>,
    zone: usize,
}

impl Drawn {
    fn has(&self, types: &[&str]) -> bool {
        types.is_empty() || types.contains(&self.event_type)
    }

    fn order(&self, place: usize) -> (i64, u16, usize) {
        (self.at_ms, crate::feature::short_shard(SHARDS[self.shard].key), place)
    }

    fn content(&self) -> Option<String> {
        self.content.map(|number| format!("c{number}"))
    }

    fn properties(&self) -> String {
        self.n.map_or_else(|| "{}".to_owned(), |n| format!("{{\"n\":{n}}}"))
    }

    fn event<'a>(&self, properties: &'a str) -> Event<'a> {
        let mut event = event(&format!("e{}", self.id), self.event_type, time(self.at_ms));
        event.properties = Properties {
            object: Some(properties),
            unknown: Vec::new(),
        };
        event.category = self.category.map(Into::into);
        event.content_id = self.content().map(Into::into);
        event.location.timezone = ZONES[self.zone].0.map(Into::into);
        event
    }
}

/// Histories whose arrivals are up to `step_ms` apart, and whose events are late by as much as `late_ms`, or a little ahead.
fn history(step_ms: i64, late_ms: i64, length: usize) -> impl Strategy<Value = Vec<Drawn>> {
    let lateness = prop_oneof![
        6 => 0i64..5_000,
        2 => 0..late_ms,
        1 => -4 * MINUTE_MS..0,
    ];
    let step = prop_oneof![3 => 0i64..60_000, 2 => 0..step_ms, 1 => Just(0)];
    let what = (
        prop::sample::select(&TYPES[..]),
        prop::option::weighted(0.8, 0i64..100),
        prop::option::weighted(0.8, prop::sample::select(&CATEGORIES[..])),
        prop::option::weighted(0.7, 0u8..15),
    );
    // Round times make events meet, and sessions end on the very millisecond.
    let round = prop::bool::weighted(0.4);
    let one = (step, lateness, 0usize..3, what, 0..ZONES.len(), round);
    prop::collection::vec(one, 1..length).prop_map(|drawn| {
        let mut arrived_ms = 30 * DAY_MS;
        let mut history = Vec::with_capacity(drawn.len());
        for (id, (step_ms, late_ms, shard, (event_type, n, category, content), zone, round)) in
            drawn.into_iter().enumerate()
        {
            arrived_ms += step_ms;
            history.push(Drawn {
                id,
                event_type,
                at_ms: if round {
                    (arrived_ms - late_ms) / ROUND_MS * ROUND_MS
                } else {
                    arrived_ms - late_ms
                },
                arrived_ms,
                shard,
                n,
                category,
                content,
                zone,
            });
        }
        history
    })
}

fn fold_one(profile: Profile, drawn: &Drawn, number: u64) -> Profile {
    let properties = drawn.properties();
    let arrived: ArrivedEvent<'_> = arrived(drawn.event(&properties), drawn.shard, number, time(drawn.arrived_ms));
    plan_user(&ORACLE_JOURNEY, Snapshots::none(), profile, [&arrived]).profile
}

fn fold(history: &[Drawn]) -> Profile {
    let numbered = history.iter().enumerate();
    numbered.fold(Profile::new(&ORACLE_JOURNEY), |profile, (number, drawn)| {
        fold_one(profile, drawn, number as u64 + 1)
    })
}

/// What a user did, all of it.
struct Oracle<'h> {
    events: &'h [Drawn],
    now_ms: i64,
    /// Whether every event came while its session was among those that a profile keeps.
    sessions_known: bool,
}

/// What the oracle says of a feature.
enum Says {
    /// One of these: a window is exact to one tile.
    OneOf(Vec<Value<'static>>),
    /// A number this far off at most.
    About(f64, f64),
    /// It can't know: a profile forgets old sessions.
    Nothing,
}

fn exactly(value: Value<'static>) -> Says {
    Says::OneOf(vec![value])
}

fn text(text: Option<&str>) -> Value<'static> {
    text.map_or(Value::Null, |text| Value::Text(text.to_owned().into()))
}

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Value<'static> {
    Value::List(values.into_iter().map(|value| text(Some(value.as_ref()))).collect())
}

fn count(events: &[&Drawn]) -> Value<'static> {
    Value::Int(events.len() as i64)
}

fn numbers(events: &[&Drawn]) -> Vec<i64> {
    events.iter().filter_map(|event| event.n).collect()
}

fn sum(events: &[&Drawn]) -> Value<'static> {
    Value::Float(numbers(events).iter().sum::<i64>() as f64)
}

fn least(events: &[&Drawn]) -> Value<'static> {
    numbers(events)
        .iter()
        .min()
        .map_or(Value::Null, |n| Value::Float(*n as f64))
}

fn greatest(events: &[&Drawn]) -> Value<'static> {
    numbers(events)
        .iter()
        .max()
        .map_or(Value::Null, |n| Value::Float(*n as f64))
}

fn mean(events: &[&Drawn]) -> Value<'static> {
    let numbers = numbers(events);
    if numbers.is_empty() {
        return Value::Null;
    }
    Value::Float(numbers.iter().sum::<i64>() as f64 / numbers.len() as f64)
}

fn distinct(events: &[&Drawn]) -> Value<'static> {
    let mut contents: Vec<u8> = events.iter().filter_map(|event| event.content).collect();
    contents.sort_unstable();
    contents.dedup();
    Value::Int(contents.len() as i64)
}

/// The most frequent values, each with how often.
fn top(values: impl Iterator<Item = String>, limit: usize) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    let mut counts: Vec<(String, i32)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| -count);
    counts.into_iter().take(limit).map(|(value, _)| value).collect()
}

fn categories(events: &[&Drawn]) -> impl Iterator<Item = String> {
    let categories: Vec<String> = events
        .iter()
        .filter_map(|event| event.category.map(str::to_owned))
        .collect();
    categories.into_iter()
}

fn rate(events: &[&Drawn], of: &[&str], to: &[&str], a: f64, b: f64) -> Value<'static> {
    let of = events.iter().filter(|event| event.has(of)).count() as f64;
    let to = events.iter().filter(|event| event.has(to)).count() as f64;
    if to + a + b == 0.0 {
        return Value::Null;
    }
    Value::Float((of + a) / (to + a + b))
}

impl Oracle<'_> {
    fn of(&self, types: &[&str]) -> Vec<&Drawn> {
        self.events.iter().filter(|event| event.has(types)).collect()
    }

    /// What `compute` gives of the events of a window, for every length between the window's and a tile more.
    fn within(
        &self,
        types: &[&str],
        within_ms: i64,
        tile_ms: i64,
        compute: impl Fn(&[&Drawn]) -> Value<'static>,
    ) -> Says {
        let all = self.of(types);
        let edge_ms = self.now_ms - within_ms;
        let on_edge = all
            .iter()
            .map(|event| event.at_ms)
            .filter(|at_ms| *at_ms <= edge_ms && *at_ms > edge_ms - tile_ms);
        let mut edges: Vec<i64> = on_edge.map(|at_ms| at_ms - 1).collect();
        edges.push(edge_ms);
        let values = edges.into_iter().map(|edge_ms| {
            let within: Vec<&Drawn> = all.iter().copied().filter(|event| event.at_ms > edge_ms).collect();
            compute(&within)
        });
        Says::OneOf(values.collect())
    }

    /// The events with a value, each with what orders it, in order.
    fn dated<T>(&self, types: &[&str], value: impl Fn(&Drawn) -> Option<T>) -> Vec<((i64, u16, usize), T)> {
        dated(
            self.events.iter().enumerate().filter(|(_, event)| event.has(types)),
            value,
        )
    }

    /// The distinct contents, the latest first, each with when it was.
    fn recent(&self, types: &[&str]) -> Vec<(i64, String)> {
        recent(self.dated(types, Drawn::content))
    }

    /// The sessions: the events of each, in the order of time.
    fn sessions(&self) -> Vec<Vec<(usize, &Drawn)>> {
        let mut events: Vec<(usize, &Drawn)> = self.events.iter().enumerate().collect();
        events.sort_by_key(|(_, event)| event.at_ms);
        let mut sessions: Vec<Vec<(usize, &Drawn)>> = Vec::new();
        for (place, event) in events {
            match sessions.last_mut() {
                Some(session) if event.at_ms - session[session.len() - 1].1.at_ms <= IDLE_MS => {
                    session.push((place, event));
                }
                _ => sessions.push(vec![(place, event)]),
            }
        }
        sessions
    }

    fn current_session(&self) -> Vec<(usize, &Drawn)> {
        let latest = self.sessions().pop().unwrap_or_default();
        match latest.last() {
            Some((_, last)) if self.now_ms - last.at_ms <= IDLE_MS => latest,
            _ => Vec::new(),
        }
    }

    fn step_at(&self, event_type: &str) -> Option<i64> {
        self.of(&[event_type]).iter().map(|event| event.at_ms).min()
    }

    fn histogram(&self, types: &[&str], bins: usize, bin: impl Fn(i64) -> i64) -> Value<'static> {
        let mut counts = vec![0i64; bins];
        for event in self.of(types) {
            counts[bin(EPOCH_MS + event.at_ms + ZONES[event.zone].1) as usize] += 1;
        }
        Value::List(counts.into_iter().map(Value::Int).collect())
    }

    fn says(&self, feature: &str) -> Says {
        let at = |ms: Option<i64>| ms.map_or(Value::Null, |ms| Value::Int(EPOCH_MS + ms));
        let times = |types: &[&str]| -> Vec<i64> { self.of(types).iter().map(|event| event.at_ms).collect() };
        let since = |ms: Option<i64>| ms.map_or(Value::Null, |ms| Value::Int((self.now_ms - ms).max(0)));
        let category = |event: &Drawn| event.category;
        match feature {
            "count" => exactly(count(&self.of(&["click"]))),
            "count_when" => {
                let counted = self.events.iter();
                let counted = counted.filter(|event| event.n.is_some_and(|n| n > 20) && event.event_type != "buy");
                exactly(Value::Int(counted.count() as i64))
            }
            "count_1m" => self.within(&["click", "view"], MINUTE_MS, 1000, count),
            "count_10m" => self.within(&["click"], 10 * MINUTE_MS, 10_000, count),
            "count_3h" => self.within(&[], 3 * HOUR_MS, MINUTE_MS, count),
            "count_7d" => self.within(&[], 7 * DAY_MS, 7 * MINUTE_MS, count),
            "sum" => exactly(sum(&self.of(&["click", "view"]))),
            "sum_1h" => self.within(&[], HOUR_MS, MINUTE_MS, sum),
            "min" => exactly(least(&self.of(&["click"]))),
            "max" => exactly(greatest(&self.of(&["click"]))),
            "mean" => exactly(mean(&self.of(&["view"]))),
            "min_10m" => self.within(&[], 10 * MINUTE_MS, 10_000, least),
            "max_2h" => self.within(&["click", "buy"], 2 * HOUR_MS, MINUTE_MS, greatest),
            "mean_2h" => self.within(&[], 2 * HOUR_MS, MINUTE_MS, mean),
            "distinct" => exactly(distinct(&self.of(&[]))),
            "distinct_1h" => self.within(&["click", "view"], HOUR_MS, MINUTE_MS, distinct),
            "first" => exactly(text(self.dated(&[], category).first().map(|(_, value)| *value))),
            "last" => exactly(text(self.dated(&["click"], category).last().map(|(_, value)| *value))),
            "last_1h" => {
                let dated = self.dated(&[], category);
                let last = dated.last().filter(|((at_ms, ..), _)| self.now_ms - at_ms < HOUR_MS);
                exactly(text(last.map(|(_, value)| *value)))
            }
            "recent" => exactly(texts(self.recent(&[]).into_iter().take(4).map(|(_, value)| value))),
            "recent_2h" | "interacted" => {
                let (types, limit, within_ms) = match feature {
                    "recent_2h" => (["view"], 3, 2 * HOUR_MS),
                    _ => (["click"], 50, 12 * HOUR_MS),
                };
                let recent = self.recent(&types).into_iter().take(limit);
                let recent = recent.filter(|(at_ms, _)| self.now_ms - at_ms < within_ms);
                exactly(texts(recent.map(|(_, value)| value)))
            }
            "top" => exactly(text(top(categories(&self.of(&[])), 1).first().map(String::as_str))),
            "top_3" => {
                let contents = self.of(&["click", "view"]).into_iter().filter_map(Drawn::content);
                exactly(texts(top(contents, 3)))
            }
            "top_6h" => self.within(&[], 6 * HOUR_MS, 6 * HOUR_MS / 48, |events| {
                texts(top(categories(events), 4))
            }),
            "top_hour" => {
                let hour = |event: &Drawn| (EPOCH_MS + event.at_ms + ZONES[event.zone].1).rem_euclid(DAY_MS) / HOUR_MS;
                // Two digits, so that the order of texts is that of numbers.
                let hours = self.events.iter().map(|event| format!("{:02}", hour(event)));
                let top = top(hours, 1).pop().and_then(|hour| hour.parse().ok());
                exactly(top.map_or(Value::Null, Value::Int))
            }
            "rate" => exactly(rate(&self.of(&[]), &["click"], &["view"], 1.0, 9.0)),
            "rate_1h" => self.within(&[], HOUR_MS, MINUTE_MS, |events| {
                rate(events, &["click", "buy"], &[], 0.0, 0.0)
            }),
            "first_seen" => exactly(at(times(&[]).into_iter().min())),
            "last_seen" => exactly(at(times(&["view"]).into_iter().max())),
            "since" => exactly(since(times(&["click"]).into_iter().max())),
            "since_first" => exactly(since(times(&["buy"]).into_iter().min())),
            "score" => {
                let weighed = self.events.iter().map(|event| {
                    let weight = match event.event_type {
                        "click" => 2.0,
                        "view" => 0.5,
                        "buy" => -1.25,
                        _ => 0.0,
                    };
                    weight * (-((self.now_ms - event.at_ms) as f64) / HALF_LIFE_MS as f64).exp2()
                });
                Says::About(weighed.sum(), SCORE_ROUNDING * self.events.len() as f64)
            }
            "frequency" => {
                let clicks = times(&["click"]);
                let since_ms = clicks.iter().min().map_or(0, |first| self.now_ms - first).max(DAY_MS);
                exactly(Value::Float(clicks.len() as f64 * DAY_MS as f64 / since_ms as f64))
            }
            "frequency_3h" => self.within(&[], 3 * HOUR_MS, MINUTE_MS, |events| {
                Value::Float(events.len() as f64 / 3.0)
            }),
            "hours" => exactly(self.histogram(&[], 24, |ms| ms.rem_euclid(DAY_MS) / HOUR_MS)),
            // 2024-01-01, where the test's time starts, was a Monday.
            "weekdays" => exactly(self.histogram(&["click"], 7, |ms| (ms - EPOCH_MS).div_euclid(DAY_MS).rem_euclid(7))),
            "to_paid" => exactly(match (self.step_at("click"), self.step_at("buy")) {
                (Some(from), Some(to)) => Value::Int(to - from),
                _ => Value::Null,
            }),
            // What the expressions read is checked by itself.
            "twice" | "share" | "over" => Says::Nothing,
            _ if !self.sessions_known => Says::Nothing,
            _ => exactly(self.of_session(feature)),
        }
    }

    fn of_session(&self, feature: &str) -> Value<'static> {
        let sessions = self.sessions();
        let duration = |session: &[(usize, &Drawn)]| match session {
            [first, .., last] => last.1.at_ms - first.1.at_ms,
            _ => 0,
        };
        let total: i64 = sessions.iter().map(|session| duration(session)).sum();
        let current = self.current_session();
        let events: Vec<&Drawn> = current.iter().map(|(_, event)| *event).collect();
        match feature {
            "sessions" => Value::Int(sessions.len() as i64),
            "session_time" => Value::Int(total),
            "session_mean" if sessions.is_empty() => Value::Null,
            "session_mean" => Value::Float(total as f64 / sessions.len() as f64),
            "now_events" => Value::Int(current.len() as i64),
            "now_time" => Value::Int(duration(&current)),
            "s_count" => Value::Int(events.iter().filter(|event| event.event_type == "click").count() as i64),
            "s_sum" => sum(&events),
            "s_max" => greatest(&events),
            "s_mean" => mean(&events),
            "s_distinct" => distinct(&events),
            "s_first" => text(
                dated(current.iter().copied(), |event| event.category)
                    .first()
                    .map(|(_, value)| *value),
            ),
            "s_recent" => {
                let recent = recent(dated(current.iter().copied(), Drawn::content));
                texts(recent.into_iter().take(2).map(|(_, value)| value))
            }
            "s_top" => text(top(categories(&events), 1).first().map(String::as_str)),
            "s_rate" => rate(&events, &["click"], &["view"], 1.0, 1.0),
            other => panic!("the oracle doesn't know {other}"),
        }
    }
}

fn dated<'d, T>(
    events: impl Iterator<Item = (usize, &'d Drawn)>,
    value: impl Fn(&Drawn) -> Option<T>,
) -> Vec<((i64, u16, usize), T)> {
    let mut dated: Vec<_> = events
        .filter_map(|(place, event)| Some((event.order(place), value(event)?)))
        .collect();
    dated.sort_by_key(|(order, _)| *order);
    dated
}

fn recent(dated: Vec<((i64, u16, usize), String)>) -> Vec<(i64, String)> {
    let mut recent: Vec<(i64, String)> = Vec::new();
    for ((at_ms, ..), value) in dated.into_iter().rev() {
        if !recent.iter().any(|(_, known)| *known == value) {
            recent.push((at_ms, value));
        }
    }
    recent
}

fn about(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => (one - other).abs() <= 1e-9 * one.abs().max(1.0),
        _ => one == other,
    }
}

fn check(profile: &Profile, oracle: &Oracle<'_>) -> Result<(), TestCaseError> {
    let now = time(oracle.now_ms);
    for (index, feature) in ORACLE_JOURNEY.features.iter().enumerate() {
        let folded = profile.feature(&ORACLE_JOURNEY, index, now);
        match oracle.says(&feature.name) {
            Says::OneOf(values) => prop_assert!(
                values.iter().any(|value| about(value, &folded)),
                "{}: the fold says {folded}, the oracle one of {values:?}, after {} events",
                feature.name,
                oracle.events.len()
            ),
            Says::About(value, within) => {
                let Value::Float(folded) = folded else {
                    return Err(TestCaseError::fail(format!("{}: {folded}", feature.name)));
                };
                prop_assert!((folded - value).abs() <= within, "{}: {folded} {value}", feature.name);
            }
            Says::Nothing => {}
        }
    }
    check_expressions(profile, now)
}

/// What the expressions say follows from what they read.
fn check_expressions(profile: &Profile, now: Timestamp) -> Result<(), TestCaseError> {
    let number = |name: &str| {
        let index = ORACLE_JOURNEY
            .features
            .iter()
            .position(|feature| feature.name == name)
            .expect(name);
        match profile.feature(&ORACLE_JOURNEY, index, now) {
            Value::Int(number) => number as f64,
            Value::Float(number) => number,
            other => panic!("{name}: {other}"),
        }
    };
    prop_assert_eq!(number("twice"), number("count") * 2.0 + number("distinct"));
    prop_assert_eq!(number("over"), number("count") + number("distinct"));
    let share = if number("count_3h") > 0.0 {
        number("count_10m") / number("count_3h")
    } else {
        0.0
    };
    prop_assert_eq!(number("share"), share);
    Ok(())
}

/// Keeps track of whether every event came while its session was among those that a profile keeps.
struct KnownSessions {
    /// The end of the latest session that is not kept any more.
    closed_ms: Option<i64>,
    known: bool,
}

impl KnownSessions {
    /// After the last of these events came.
    fn follow(&mut self, events: &[Drawn]) -> bool {
        let Some((event, before)) = events.split_last() else {
            return self.known;
        };
        let sessions = |events| {
            let oracle = Oracle {
                events,
                now_ms: 0,
                sessions_known: true,
            };
            let sessions = oracle.sessions();
            let interval = |session: &Vec<(usize, &Drawn)>| (session[0].1.at_ms, session[session.len() - 1].1.at_ms);
            sessions.iter().map(interval).collect::<Vec<_>>()
        };
        if let Some(closed_ms) = self.closed_ms {
            let kept = sessions(before).into_iter().find(|(start_ms, _)| *start_ms > closed_ms);
            let kept_from_ms = kept.map_or(closed_ms, |(start_ms, _)| start_ms) - IDLE_MS;
            self.known = self.known && event.at_ms > closed_ms + IDLE_MS && event.at_ms >= kept_from_ms;
        }
        let sessions = sessions(events);
        if let Some(closed) = sessions.len().checked_sub(OPEN_SESSIONS_MAX + 1) {
            self.closed_ms = self.closed_ms.max(Some(sessions[closed].1));
        }
        self.known
    }
}

/// A profile with what has left its windows dropped, as the next event of each feature would.
fn settled(profile: &Profile) -> Profile {
    let mut settled = profile.clone();
    merge_history(&ORACLE_JOURNEY, &mut settled, &Profile::new(&ORACLE_JOURNEY));
    settled
}

/// The shards' events in another order of coming: each shard's own order stays.
fn interleaved(history: &[Drawn], choices: &[usize]) -> Vec<Drawn> {
    let mut queues: [std::collections::VecDeque<Drawn>; 3] = Default::default();
    history
        .iter()
        .for_each(|drawn| queues[drawn.shard].push_back(drawn.clone()));
    let mut choices = choices.iter().cycle();
    let mut interleaved = Vec::with_capacity(history.len());
    while interleaved.len() < history.len() {
        let start = choices.next().copied().unwrap_or(0);
        let queue = (0..3)
            .map(|turn| (start + turn) % 3)
            .find(|index| !queues[*index].is_empty());
        interleaved.extend(queue.and_then(|index| queues[index].pop_front()));
    }
    interleaved
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// P2, P11, P12: disorder, late events, producers' repeats and redeliveries; read at every event and in between.
    #[test]
    fn p11_p12_the_fold_says_what_the_oracle_says(
        history in prop_oneof![history(20 * MINUTE_MS, 50 * MINUTE_MS, 50), history(6 * HOUR_MS, 9 * DAY_MS, 50)],
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        pause_ms in 0..3 * DAY_MS,
    ) {
        let mut profile = Profile::new(&ORACLE_JOURNEY);
        let mut sessions = KnownSessions { closed_ms: None, known: true };
        let mut number = 0;
        for (place, drawn) in history.iter().enumerate() {
            let known = sessions.follow(&history[..=place]);
            number += 1;
            profile = fold_one(profile, drawn, number);
            let delivered = number;
            for repeat in repeats.iter().map(|repeat| repeat.index(history.len())).filter(|repeat| *repeat <= place) {
                // A redelivered record changes nothing; neither does the event once more as a new record, in another shard.
                let before = profile.clone();
                profile = fold_one(profile, drawn, delivered);
                prop_assert_eq!(&profile, &before);
                number += 1;
                profile = fold_one(profile, &Drawn { shard: (repeat + place) % 3, ..history[repeat].clone() }, number);
                prop_assert_eq!(&profile.features, &before.features);
            }
            let oracle = Oracle { events: &history[..=place], now_ms: drawn.arrived_ms, sessions_known: known };
            check(&profile, &oracle)?;
        }
        // Time goes on although no event comes.
        let last_ms = history[history.len() - 1].arrived_ms;
        let latest_ms = history.iter().map(|drawn| drawn.at_ms).max().unwrap_or(last_ms);
        let idle_from_ms = (latest_ms + IDLE_MS - last_ms).max(0);
        for later_ms in [1, MINUTE_MS, idle_from_ms, idle_from_ms + 1, pause_ms, pause_ms + 8 * DAY_MS] {
            check(&profile, &Oracle { events: &history, now_ms: last_ms + later_ms, sessions_known: sessions.known })?;
        }
    }

    /// P11: the shards' order of coming makes no difference to any state.
    #[test]
    fn p11_the_order_of_shards_makes_no_difference(
        history in prop_oneof![history(20 * MINUTE_MS, 50 * MINUTE_MS, 40), history(6 * HOUR_MS, 9 * DAY_MS, 40)],
        choices in prop::collection::vec(0usize..3, 1..20),
    ) {
        let other = interleaved(&history, &choices);
        let (one, two) = (settled(&fold(&history)), settled(&fold(&other)));
        // A session that was closed can't be joined any more.
        let sessions_known = one.sessions.closed_count == 0 && two.sessions.closed_count == 0;
        for (feature, (one, two)) in ORACLE_JOURNEY.features.iter().zip(one.features.iter().zip(&two.features)) {
            if sessions_known || !matches!(feature.computation, super::Computation::PerSession { .. }) {
                prop_assert_eq!(one, two, "{}", &feature.name);
            }
        }
        prop_assert_eq!(&one.steps, &two.steps);
        if sessions_known {
            prop_assert_eq!(&one.sessions, &two.sessions);
        }
    }

    /// A user's events come to three profiles, which then turn out to be one user's: in whatever order they are merged, the
    /// result says what the oracle says of all the events.
    #[test]
    fn merged_profiles_say_what_the_oracle_says_of_all_events(
        history in prop_oneof![history(20 * MINUTE_MS, 50 * MINUTE_MS, 50), history(6 * HOUR_MS, 9 * DAY_MS, 50)],
    ) {
        let parts: Vec<Vec<Drawn>> = (0..3)
            .map(|shard| history.iter().filter(|drawn| drawn.shard == shard).cloned().collect())
            .collect();
        let folded: Vec<Profile> = parts.iter().map(|part| fold(part)).collect();
        let merge = |order: [usize; 3], last_two_first: bool| {
            let mut all = order.map(|index| folded[index].clone());
            if last_two_first {
                let last = all[2].clone();
                merge_history(&ORACLE_JOURNEY, &mut all[1], &last);
            }
            let [mut one, two, three] = all;
            merge_history(&ORACLE_JOURNEY, &mut one, &two);
            if !last_two_first {
                merge_history(&ORACLE_JOURNEY, &mut one, &three);
            }
            settled(&one)
        };
        let merged = merge([0, 1, 2], false);
        let others = [merge([0, 1, 2], true), merge([2, 1, 0], false), merge([1, 2, 0], true)];
        // A session that was closed on the way can't be joined any more.
        let all = folded.iter().chain(&others).chain([&merged]);
        let known = all.into_iter().all(|profile| profile.sessions.closed_count == 0);
        for other in others {
            for (feature, (one, two)) in ORACLE_JOURNEY.features.iter().zip(merged.features.iter().zip(&other.features)) {
                if known || !matches!(feature.computation, super::Computation::PerSession { .. }) {
                    prop_assert_eq!(one, two, "{}", &feature.name);
                }
            }
            prop_assert_eq!(&merged.steps, &other.steps);
            if known {
                prop_assert_eq!(&merged.sessions, &other.sessions);
            }
        }
        let now_ms = history[history.len() - 1].arrived_ms;
        check(&merged, &Oracle { events: &history, now_ms, sessions_known: known })?;
        prop_assert_eq!(merged.applied_events, history.len() as u64);
    }
}

/// Distinct values by the thousand: within four of the stated standard errors, in any order, merged or not.
#[test]
fn distinct_counts_beyond_the_exact_are_off_by_no_more_than_stated() {
    let journey = journey(
        "journey: j\nfeatures:\n  all: { distinct: content_id }\n  day: { distinct: content_id, within: 24h }\n",
    );
    const MOST: usize = 20_000;
    let count = |numbers: &mut dyn Iterator<Item = usize>| {
        let mut profile = Profile::new(&journey);
        for number in numbers {
            let mut event = event(&format!("e{number}"), "view", time((number % 1440) as i64 * MINUTE_MS));
            event.content_id = Some(format!("content-{number}").into());
            let arrived = arrived(event, 0, number as u64 + 1, time(DAY_MS));
            let dispatch = journey.dispatch("view");
            crate::fold::apply(&journey, dispatch, &mut profile, &arrived);
        }
        profile
    };
    let value = |profile: &Profile, index| match profile.feature(&journey, index, time(DAY_MS)) {
        Value::Int(count) => count,
        other => panic!("{other}"),
    };
    for distinct in [10usize, 32, 33, 63, 100, 1000, MOST] {
        let forward = count(&mut (0..distinct));
        let mut backward = count(&mut (0..distinct).rev());
        assert_eq!(forward.features, backward.features, "{distinct}");
        let found = (value(&forward, 0), value(&forward, 1));
        println!(
            "{distinct} distinct: {} over all time, {} within a day",
            found.0, found.1
        );
        for (found, exact_to, error) in [(found.0, 32, 0.065), (found.1, 63, 0.127)] {
            let most = if distinct <= exact_to {
                0.0
            } else {
                4.0 * error * distinct as f64
            };
            assert!((found - distinct as i64).abs() as f64 <= most, "{distinct}: {found}");
        }
        let mut both = count(&mut (0..distinct / 2));
        merge_history(&journey, &mut both, &count(&mut (distinct / 3..distinct)));
        assert_eq!(both.features, forward.features, "{distinct} merged");
        merge_history(&journey, &mut backward, &forward);
        assert_eq!(backward.features, forward.features, "{distinct} merged with itself");
    }
}

/// More values than are counted: those that come often enough are found, and none is counted too low.
#[test]
fn p8_a_top_with_too_many_values_still_finds_the_frequent_ones() {
    let journey = journey(
        "journey: j\nfeatures:\n  top: { top: content_id, limit: 3 }\n  day: { top: content_id, limit: 3, within: 24h }\n",
    );
    let mut profile = Profile::new(&journey);
    let dispatch = journey.dispatch("view");
    for number in 0..3000u64 {
        // Three values make up half of all events, a thousand others the rest.
        let content = match number % 6 {
            0 => "a".to_owned(),
            1 if number % 12 == 1 => "b".to_owned(),
            2 => "a".to_owned(),
            3 => "c".to_owned(),
            _ => format!("rare-{}", number % 1000),
        };
        let mut event = event(&format!("e{number}"), "view", time(number as i64 * 1000));
        event.content_id = Some(content.into());
        let arrived = arrived(event, 0, number + 1, time(number as i64 * 1000));
        crate::fold::apply(&journey, dispatch, &mut profile, &arrived);
    }
    for index in 0..2 {
        let Value::List(values) = profile.feature(&journey, index, time(3_000_000)) else {
            panic!("a list")
        };
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        assert_eq!(values[..2], ["\"a\"", "\"c\""], "{values:?}");
    }
    let super::FeatureState::Top(entries) = &profile.features[0] else {
        panic!("a top")
    };
    assert_eq!(entries.len(), crate::limits::TOP_TRACKED_MAX);
    let of = |name: &str| {
        let entry = entries
            .iter()
            .find(|entry| entry.value == Scalar::Text(name.to_owned()))
            .expect(name);
        entry.counts.tiles()[0].amount
    };
    assert!((1000..1000 + 3000 / 24).contains(&of("a")), "{}", of("a"));
}
