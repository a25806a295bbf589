//! The `features` of a journey file.

use saphyr::YamlData;

use super::keys::{self, Shape};
use super::read::{Entry, Entry3, Node, Reader, narrowed};
use super::{EventTypes, Feature, did_you_mean};
use crate::condition::{Condition, Expression};
use crate::event::Field;
use crate::feature::{Computation, score_tiles};
use crate::hash::fingerprint;
use crate::limits::*;
use crate::window::{Extreme, WindowLength};

/// A kind of feature: its key, and which of the other keys go with it.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// What it gives, for people who write a file.
    pub(super) about: &'static str,
    /// What its own value looks like.
    pub(super) argument: Shape,
    /// What it takes beside `on`, `when` and `per`.
    pub(super) options: &'static [&'static str],
    /// Whether its own value names the event types that it looks at, so `on` would say it twice.
    names_types: bool,
    /// Whether it looks at events at all, so `on` and `when` make sense.
    reads_events: bool,
    /// Whether it can be had for each session.
    pub(super) per_session: bool,
}

impl Kind {
    /// Whether a key that is no kind goes with it.
    pub(super) fn takes(&self, option: &str) -> bool {
        match option {
            "on" => self.reads_events && !self.names_types,
            "when" => self.reads_events,
            "per" => self.per_session,
            _ => self.options.contains(&option),
        }
    }
}

const fn of_field(name: &'static str, options: &'static [&'static str], about: &'static str) -> Kind {
    Kind {
        name,
        about,
        argument: Shape::Field,
        options,
        names_types: false,
        reads_events: true,
        per_session: true,
    }
}

const fn of_types(
    name: &'static str,
    argument: Shape,
    options: &'static [&'static str],
    per_session: bool,
    about: &'static str,
) -> Kind {
    Kind {
        name,
        about,
        argument,
        options,
        names_types: true,
        reads_events: true,
        per_session,
    }
}

const fn derived(name: &'static str, argument: Shape, about: &'static str) -> Kind {
    Kind {
        name,
        about,
        argument,
        options: &[],
        names_types: false,
        reads_events: false,
        per_session: false,
    }
}

const TYPES: Shape = Shape::EventTypes;

pub(super) static KINDS: &[Kind] = &[
    of_types("count", TYPES, &["within"], true, "How many events of these types."),
    of_field("distinct", &["within"], "How many distinct values of a field."),
    of_field("sum", &["within"], "The sum of a number in the events."),
    of_field("min", &["within"], "The least number; null before any."),
    of_field("max", &["within"], "The greatest number; null before any."),
    of_field("mean", &["within"], "The mean of a number; null before any."),
    of_field(
        "first",
        &[],
        "The value in the first event that has it; null before any.",
    ),
    of_field(
        "last",
        &["within"],
        "The value in the latest event that has it; null before any.",
    ),
    of_field(
        "recent",
        &["within", "limit"],
        "The distinct values of a field, the latest first.",
    ),
    of_field(
        "top",
        &["within", "limit"],
        "The most frequent values of a field; without `limit` the one most frequent, by itself.",
    ),
    of_types(
        "rate",
        Shape::Mapping(&keys::RATE),
        &["within"],
        true,
        "The share of one kind of event in another, smoothed by a prior.",
    ),
    of_types(
        "first_seen",
        TYPES,
        &[],
        false,
        "When the first event was, in ms since 1970; null before it.",
    ),
    of_types(
        "last_seen",
        TYPES,
        &[],
        false,
        "When the latest event was, in ms since 1970; null before it.",
    ),
    of_types(
        "time_since",
        TYPES,
        &[],
        false,
        "How long ago the latest event was, in ms as of now; null before it.",
    ),
    of_types(
        "time_since_first",
        TYPES,
        &[],
        false,
        "How long ago the first event was, in ms as of now; null before it.",
    ),
    of_types(
        "score",
        Shape::Named(&Shape::Number(-SCORE_WEIGHT_MAX, SCORE_WEIGHT_MAX), SCORE_WEIGHTS_MAX),
        &["half_life"],
        false,
        "A sum of weights, one for each event type, that each halve with every `half_life`.",
    ),
    of_field(
        "interacted_with",
        &["within", "limit"],
        "The values of a field, for `event.content_id in features.NAME`.",
    ),
    of_types(
        "frequency",
        TYPES,
        &["within", "unit"],
        false,
        "Events per `unit` of time.",
    ),
    of_types("hour_of_day", TYPES, &[], false, "24 counts, one for each local hour."),
    of_types(
        "weekday",
        TYPES,
        &[],
        false,
        "7 counts, one for each local weekday, Monday's first.",
    ),
    derived(
        "sessions",
        Shape::Words(&SESSION_WORDS),
        "What is known of the user's sessions.",
    ),
    derived(
        "step_duration",
        Shape::Mapping(&keys::STEP_DURATION),
        "From one step to another, in ms; null before both are done.",
    ),
    derived("expr", Shape::Condition, "An expression over other features."),
];

/// The keys that are no kinds, and what they mean.
pub(super) static OPTION_KEYS: keys::Mapping = keys::Mapping::of(&[
    keys::key(
        "on",
        Shape::EventTypes,
        "The event types that it looks at; all unless it says otherwise.",
    ),
    keys::key(
        "when",
        Shape::Condition,
        "A condition that an event must meet. It reads the event, traits and the session.",
    ),
    keys::key(
        "within",
        Shape::Duration,
        "A sliding window that ends now, from 1m to 90d.",
    ),
    keys::key(
        "limit",
        Shape::Whole(1, INTERACTED_ENTRIES_MAX as i64),
        "How many values it keeps.",
    ),
    keys::key(
        "per",
        Shape::Words(&["user", "session"]),
        "Of all events of the user (unless it says otherwise), or of the session that goes on.",
    ),
    keys::key(
        "half_life",
        Shape::Duration,
        "After this long an event counts half, from 1m to 90d.",
    ),
    keys::key(
        "unit",
        Shape::Words(&["minute", "hour", "day"]),
        "The unit of time; hour unless it says otherwise.",
    ),
]);

/// What `sessions` may ask for.
const SESSION_WORDS: [&str; 5] = [
    OF_SESSIONS[0].0,
    OF_SESSIONS[1].0,
    OF_SESSIONS[2].0,
    OF_SESSIONS[3].0,
    OF_SESSIONS[4].0,
];

/// What sessions have.
const OF_SESSIONS: &[(&str, Computation)] = &[
    ("count", Computation::SessionCount),
    ("duration", Computation::SessionDuration),
    ("mean_duration", Computation::SessionMeanDuration),
    ("current_events", Computation::SessionEvents),
    ("current_duration", Computation::SessionCurrentDuration),
];

const UNITS_MS: &[(&str, i64)] = &[
    ("minute", 60 * 1000),
    ("hour", 60 * 60 * 1000),
    ("day", 24 * 60 * 60 * 1000),
];
const UNIT_DEFAULT: usize = 1;

/// As many events of the one kind seen as not: what Laplace took for granted.
const PRIOR_DEFAULT: [f64; 2] = [1.0, 1.0];

impl Reader {
    /// The features, and what is wrong with them as a whole.
    pub(super) fn features(&mut self, nodes: &[Entry3<'_, '_>]) -> Vec<Feature> {
        let read: Vec<Option<Feature>> = nodes
            .iter()
            .map(|(name, path, node)| self.feature(name, path, node))
            .collect();
        // Indices are those of the file, so one feature that can't be read would shift them.
        if read.iter().all(Option::is_some) {
            self.check_expressions(nodes, &read);
        }
        read.into_iter().flatten().collect()
    }

    /// No expression may read itself, over others or not, and reading one must not take out of proportion long (P10).
    fn check_expressions(&mut self, nodes: &[Entry3<'_, '_>], features: &[Option<Feature>]) {
        let reads = |index: usize| -> &[usize] {
            let expression = features[index].as_ref().and_then(|feature| feature.expression.as_ref());
            expression.map_or(&[], Expression::features)
        };
        // How much reading a feature evaluates; known once all that it reads is known. What reads itself never is.
        let mut costs: Vec<Option<usize>> = vec![None; features.len()];
        for _ in 0..features.len() {
            for index in 0..features.len() {
                if costs[index].is_none() {
                    let parts = reads(index).iter().map(|read| costs[*read]);
                    costs[index] = parts
                        .sum::<Option<usize>>()
                        .map(|parts| parts.saturating_add(1).min(EXPR_READS_MAX + 1));
                }
            }
        }
        for ((_, path, node), cost) in nodes.iter().zip(costs) {
            let path = format!("{path}.expr");
            match cost {
                None => self.error(
                    node,
                    &path,
                    "it reads itself, or one that reads itself, over other features",
                ),
                Some(cost) if cost > EXPR_READS_MAX => {
                    let message = format!(
                        "with the expressions that it reads, it evaluates more than {EXPR_READS_MAX} parts: read fewer"
                    );
                    self.error(node, &path, message);
                }
                Some(_) => {}
            }
        }
    }

    fn feature(&mut self, name: &str, path: &str, node: &Node<'_>) -> Option<Feature> {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        let options = OPTION_KEYS.names();
        let entries = self.mapping_of(node, path, &[names.as_slice(), options.as_slice()].concat())?;
        let get = |name: &str| entries.iter().find(|(key, ..)| key == name).map(|(_, _, value)| *value);
        let kinds: Vec<(&Kind, &Entry)> = entries
            .iter()
            .filter_map(|entry| Some((KINDS.iter().find(|kind| kind.name == entry.0)?, entry)))
            .collect();
        let [(kind, (_, _, argument))] = kinds.as_slice() else {
            let message = format!(
                "a feature is one of {}; this one says {}",
                names.join(", "),
                kinds.len()
            );
            self.error(node, path, message);
            return None;
        };
        self.check_options(kind, &entries, path);
        let kind_path = format!("{path}.{}", kind.name);
        let when = self.event_condition(&entries, path);
        let per_session = get("per").is_some_and(|value| self.per_session(value, path)) && kind.per_session;
        let within_ms = get("within")
            .and_then(|value| self.duration_ms(value, &format!("{path}.within"), WINDOW_MS_MIN, WINDOW_MS_MAX));
        let mut expression = None;
        let (computation, on) = match kind.name {
            "rate" => self.rate(argument, &kind_path, within_ms)?,
            "score" => {
                let half_life_ms = match get("half_life") {
                    Some(value) => {
                        self.duration_ms(value, &format!("{path}.half_life"), HALF_LIFE_MS_MIN, HALF_LIFE_MS_MAX)
                    }
                    None => {
                        self.error(node, path, "a score needs `half_life`, such as 24h");
                        None
                    }
                };
                self.score(argument, &kind_path, half_life_ms)?
            }
            "expr" => {
                expression = Some(self.expression(argument, &kind_path)?);
                (Computation::Expr, EventTypes::These(Vec::new()))
            }
            "sessions" => (self.of_sessions(argument, &kind_path)?, EventTypes::These(Vec::new())),
            "step_duration" => (self.step_duration(argument, &kind_path)?, EventTypes::These(Vec::new())),
            _ if kind.names_types => {
                let on = self.event_types(argument, &kind_path);
                let unit_ms = get("unit").map_or(Some(UNITS_MS[UNIT_DEFAULT].1), |value| self.unit_ms(value, path));
                (of_types_only(kind.name, within_ms, unit_ms?), on)
            }
            _ => {
                let on = self.optional_event_types(&entries, path).unwrap_or(EventTypes::Any);
                let limit = match get("limit") {
                    Some(value) => self.whole(value, &format!("{path}.limit"), 1, limit_max(kind.name)),
                    None => None,
                };
                let field = self.field(argument, &kind_path)?;
                (
                    of_values(kind.name, field, within_ms, limit.map(|limit| limit as usize)),
                    on,
                )
            }
        };
        let computation = if per_session {
            computation.per_session()
        } else {
            computation
        };
        let on = narrowed(Some(on), when.as_ref());
        let condition = when.as_ref().map_or("", Condition::source);
        let definition = format!("{computation:?} {on:?}");
        Some(Feature {
            name: name.to_owned(),
            fingerprint: fingerprint(&["feature", name, &definition, condition]),
            computation,
            when,
            expression,
            on,
        })
    }

    /// Every key beside the kind must be one that goes with it.
    fn check_options(&mut self, kind: &Kind, entries: &[Entry<'_, '_>], path: &str) {
        for (key, _, value) in entries
            .iter()
            .filter(|(key, ..)| OPTION_KEYS.names().contains(&key.as_str()))
        {
            let key = key.as_str();
            let place = format!("{path}.{key}");
            let windowed = entries.iter().any(|(name, ..)| name == "within");
            let (message, suggestion) = match key {
                "on" if kind.names_types => (format!("`{}` names its event types itself", kind.name), None),
                "per" if kind.per_session && windowed => (
                    "`within` and `per` exclude each other: a session is a window of its own".to_owned(),
                    None,
                ),
                "within" if matches!(kind.name, "hour_of_day" | "weekday") => {
                    let field = if kind.name == "weekday" {
                        "local_weekday"
                    } else {
                        "local_hour"
                    };
                    (
                        format!("`{}` has no `within`, but the most frequent one has", kind.name),
                        Some(format!("top: {field}, within: …")),
                    )
                }
                _ if kind.takes(key) => continue,
                _ => (format!("`{}` has no `{key}`", kind.name), self.kind_with(kind, key)),
            };
            self.error_suggesting(value, &place, message, suggestion);
        }
    }

    /// The kind that is most like this one and has the option.
    fn kind_with(&self, kind: &Kind, option: &str) -> Option<String> {
        let like = match (kind.name, option) {
            ("first", "within") => "last",
            ("first_seen" | "last_seen" | "time_since" | "time_since_first", "within" | "per") => "count",
            ("sessions", "per" | "within" | "on" | "when") => "count",
            ("score", "within") => "half_life",
            _ => return None,
        };
        Some(like.to_owned())
    }

    /// A feature's `when`. It reads the event, traits and the session: what a feature or step says while events are folded
    /// hangs on the order in which they came, and then so would this one (P11).
    fn event_condition(&mut self, entries: &[Entry<'_, '_>], path: &str) -> Option<Condition> {
        let condition = self.condition_of_history(entries, path, "when")?;
        if let Some(read) = condition.reads_of_features_or_steps() {
            let (_, _, node) = entries.iter().find(|(name, ..)| name == "when")?;
            let message = format!(
                "a feature's `when` reads the event, traits and the session, but not `{read}`, which hangs on the order in which events come: put it into the trigger's `when`, or make an `expr` of both"
            );
            self.error(node, &format!("{path}.when"), message);
        }
        Some(condition)
    }

    fn per_session(&mut self, node: &Node<'_>, path: &str) -> bool {
        let path = format!("{path}.per");
        match self.text(node, &path).as_deref() {
            Some("session") => true,
            Some("user") | None => false,
            Some(other) => {
                let suggestion = did_you_mean(other, &mut ["user", "session"].into_iter());
                let message = format!("`{other}` is nothing to keep a feature for: write `user` or `session`");
                self.error_suggesting(node, &path, message, suggestion);
                false
            }
        }
    }

    fn unit_ms(&mut self, node: &Node<'_>, path: &str) -> Option<i64> {
        let path = format!("{path}.unit");
        let text = self.text(node, &path)?;
        let known = UNITS_MS.iter().find(|(name, _)| *name == text);
        if known.is_none() {
            let suggestion = did_you_mean(&text, &mut UNITS_MS.iter().map(|(name, _)| *name));
            let message = format!("`{text}` is no unit: write `minute`, `hour` or `day`");
            self.error_suggesting(node, &path, message, suggestion);
        }
        known.map(|(_, ms)| *ms)
    }

    fn rate(&mut self, node: &Node<'_>, path: &str, within_ms: Option<i64>) -> Option<(Computation, EventTypes)> {
        let entries = self.mapping(node, path, &keys::RATE)?;
        let get = |name: &str| entries.iter().find(|(key, ..)| key == name).map(|(_, _, value)| *value);
        let mut types = ["of", "to"].map(|side| match get(side) {
            Some(value) => Some(self.event_types(value, &format!("{path}.{side}"))),
            None => {
                self.error(node, path, format!("a rate needs `{side}`: event types"));
                None
            }
        });
        let prior = match get("prior") {
            Some(value) => self.prior(value, &format!("{path}.prior"))?,
            None => PRIOR_DEFAULT,
        };
        let (of, to) = (types[0].take()?, types[1].take()?);
        let on = match (&of, &to) {
            (EventTypes::These(of), EventTypes::These(to)) => {
                let further = to.iter().filter(|name| !of.contains(name));
                EventTypes::These(of.iter().chain(further).cloned().collect())
            }
            _ => EventTypes::Any,
        };
        let computation = match within_ms.map(WindowLength::of_ms) {
            Some(within) => Computation::RateWithin { of, to, prior, within },
            None => Computation::Rate { of, to, prior },
        };
        Some((computation, on))
    }

    fn prior(&mut self, node: &Node<'_>, path: &str) -> Option<[f64; 2]> {
        match &node.data {
            YamlData::Sequence(parts) if parts.len() == 2 => {
                let [a, b] = [&parts[0], &parts[1]].map(|part| self.number(part, path, 0.0, RATE_PRIOR_MAX));
                Some([a?, b?])
            }
            _ => {
                self.error(
                    node,
                    path,
                    "a prior is two numbers, [a, b]: as if a of a + b had been seen already",
                );
                None
            }
        }
    }

    fn score(&mut self, node: &Node<'_>, path: &str, half_life_ms: Option<i64>) -> Option<(Computation, EventTypes)> {
        let entries = self.entries(node, path)?;
        if entries.is_empty() || entries.len() > SCORE_WEIGHTS_MAX {
            let message = format!("a score weighs 1 to {SCORE_WEIGHTS_MAX} event types");
            self.error(node, path, message);
        }
        let mut weights = Vec::new();
        for (name, key, value) in entries {
            let place = format!("{path}.{name}");
            if matches!(self.event_types(key, path), EventTypes::Any) {
                self.error(key, &place, "a score weighs each event type by its name");
            }
            if let Some(weight) = self.number(value, &place, -SCORE_WEIGHT_MAX, SCORE_WEIGHT_MAX) {
                weights.push((name, weight));
            }
        }
        let on = EventTypes::These(weights.iter().map(|(name, _)| name.clone()).collect());
        let tiles = score_tiles(half_life_ms?);
        Some((Computation::Score { weights, tiles }, on))
    }

    fn of_sessions(&mut self, node: &Node<'_>, path: &str) -> Option<Computation> {
        let what = self.text(node, path)?;
        let known = OF_SESSIONS.iter().find(|(name, _)| *name == what);
        if known.is_none() {
            let names = OF_SESSIONS.iter().map(|(name, _)| *name);
            let suggestion = did_you_mean(&what, &mut names.clone());
            let message = format!(
                "`{what}` is nothing that sessions have: write one of {}",
                names.collect::<Vec<_>>().join(", ")
            );
            self.error_suggesting(node, path, message, suggestion);
        }
        known.map(|(_, computation)| computation.clone())
    }

    fn step_duration(&mut self, node: &Node<'_>, path: &str) -> Option<Computation> {
        let entries = self.mapping(node, path, &keys::STEP_DURATION)?;
        let steps = ["from", "to"].map(|side| {
            let place = format!("{path}.{side}");
            let Some((_, _, value)) = entries.iter().find(|(key, ..)| key == side) else {
                self.error(node, path, format!("a step duration needs `{side}`: the id of a step"));
                return None;
            };
            let id = self.text(value, &place)?;
            let index = self.names.steps.iter().position(|step| *step == id);
            if index.is_none() {
                let suggestion = did_you_mean(&id, &mut self.names.steps.iter().map(String::as_str));
                self.error_suggesting(value, &place, format!("there is no step `{id}`"), suggestion);
            }
            index
        });
        let [from, to] = steps;
        Some(Computation::StepDuration { from: from?, to: to? })
    }

    fn expression(&mut self, node: &Node<'_>, path: &str) -> Option<Expression> {
        let source = self.text(node, path)?;
        match Expression::compile(&source, &mut self.names) {
            Ok(expression) => Some(expression),
            Err(errors) => {
                for error in errors {
                    self.error_suggesting(node, path, error.message, error.suggestion);
                }
                None
            }
        }
    }

    fn field(&mut self, node: &Node<'_>, path: &str) -> Option<Field> {
        let text = self.text(node, path)?;
        let field = Field::parse(text.strip_prefix("event.").unwrap_or(&text));
        if field.is_none() {
            let known = Field::NAMED.iter().map(|(name, _)| *name);
            let suggestion = did_you_mean(&text, &mut known.clone());
            let message = format!(
                "an event has no `{text}`: write one of {}, or `properties.NAME`",
                known.collect::<Vec<_>>().join(", ")
            );
            self.error_suggesting(
                node,
                path,
                message,
                suggestion.or_else(|| Some(format!("properties.{text}"))),
            );
        }
        field
    }
}

fn limit_max(kind: &str) -> i64 {
    let most = match kind {
        "top" => TOP_LIMIT_MAX,
        "interacted_with" => INTERACTED_ENTRIES_MAX,
        _ => RECENT_ENTRIES_MAX,
    };
    most as i64
}

/// A kind that looks at nothing but the types of events.
fn of_types_only(kind: &str, within_ms: Option<i64>, unit_ms: i64) -> Computation {
    let within = within_ms.map(WindowLength::of_ms);
    match (kind, within) {
        ("count", Some(within)) => Computation::CountWithin(within),
        ("frequency", Some(within)) => Computation::FrequencyWithin { unit_ms, within },
        ("frequency", None) => Computation::Frequency { unit_ms },
        ("first_seen", _) => Computation::FirstSeen,
        ("last_seen", _) => Computation::LastSeen,
        ("time_since", _) => Computation::TimeSince,
        ("time_since_first", _) => Computation::TimeSinceFirst,
        ("hour_of_day", _) => Computation::HourOfDay,
        ("weekday", _) => Computation::Weekday,
        _ => Computation::Count,
    }
}

/// A kind that looks at a field.
fn of_values(kind: &str, field: Field, within_ms: Option<i64>, limit: Option<usize>) -> Computation {
    let within = within_ms.map(WindowLength::of_ms);
    match (kind, within) {
        ("distinct", None) => Computation::Distinct(field),
        ("distinct", Some(within)) => Computation::DistinctWithin(field, within),
        ("sum", None) => Computation::Sum(field),
        ("sum", Some(within)) => Computation::SumWithin(field, within),
        ("min", None) => Computation::Extreme(Extreme::Least, field),
        ("min", Some(within)) => Computation::ExtremeWithin(Extreme::Least, field, within),
        ("max", None) => Computation::Extreme(Extreme::Greatest, field),
        ("max", Some(within)) => Computation::ExtremeWithin(Extreme::Greatest, field, within),
        ("mean", None) => Computation::Mean(field),
        ("mean", Some(within)) => Computation::MeanWithin(field, within),
        ("first", _) => Computation::First(field),
        ("top", _) => Computation::Top {
            field,
            limit,
            within: within_ms.map(|within_ms| WindowLength::in_tiles(within_ms, TOP_TILES)),
        },
        ("interacted_with", _) => Computation::Recent {
            field,
            limit: limit.unwrap_or(INTERACTED_ENTRIES_DEFAULT),
            within_ms,
        },
        ("recent", _) => Computation::Recent {
            field,
            limit: limit.unwrap_or(RECENT_ENTRIES_DEFAULT),
            within_ms,
        },
        (_, Some(within)) => Computation::LastWithin(field, within.within_ms()),
        (_, None) => Computation::Last(field),
    }
}
