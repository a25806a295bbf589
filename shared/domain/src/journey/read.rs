//! From YAML text to a checked journey, collecting every error on the way.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar as YamlScalar, YamlData};
use saphyr_parser::{Event, Parser};

use super::diagnostic::shortened;
use super::keys::{self, Mapping};
use super::read_learning::Learned;
use super::read_rule::{Known, find};
use super::{Content, Diagnostic, Diagnostics, EventTypes, IDLE_TIMEOUT_MS_DEFAULT, Journey, Moment, Policy, Rule};
use super::{Step, did_you_mean, names_of_arms};
use crate::condition::{Condition, Names};
use crate::hash::{fingerprint, hash_bytes};
use crate::limits::*;

pub(super) type Node<'y> = MarkedYaml<'y>;
pub(super) type Entry<'n, 'y> = (String, &'n Node<'y>, &'n Node<'y>);

const ANY_EVENT: &str = "any";
/// The path of the file as a whole.
const THE_FILE: &str = "the file";

/// Where the parts of a file are: line and column, from 1, by their paths.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_path: HashMap<String, (usize, usize)>,
}

impl Places {
    fn note(&mut self, path: String, node: &Node<'_>) {
        let place = (node.span.start.line(), node.span.start.col() + 1);
        self.by_path.insert(path, place);
    }

    /// The place of a path, or of the nearest part of the file that it is in.
    pub(super) fn find(&self, path: &str) -> (usize, usize) {
        let mut path = path;
        loop {
            if let Some(place) = self.by_path.get(path) {
                return *place;
            }
            match path.rfind('.') {
                Some(end) => path = &path[..end],
                None => return (1, 1),
            }
        }
    }
}

/// Reads and checks a journey file.
pub(super) fn read(text: &str) -> Result<(Journey, Places), Diagnostics> {
    let mut reader = Reader::default();
    if text.len() > JOURNEY_BYTES_MAX {
        reader.error_at(
            1,
            1,
            "",
            format!(
                "the file has {} bytes, at most {JOURNEY_BYTES_MAX} are read",
                text.len()
            ),
            None,
        );
        return Err(reader.into_diagnostics());
    }
    if let Some((line, column, message)) = beyond_reading(text) {
        reader.error_at(line, column, "", message.to_owned(), None);
        return Err(reader.into_diagnostics());
    }
    let documents = match MarkedYaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => {
            let marker = error.marker();
            reader.error_at(
                marker.line(),
                marker.col() + 1,
                "",
                format!("this is not YAML: {error}"),
                None,
            );
            return Err(reader.into_diagnostics());
        }
    };
    let [document] = documents.as_slice() else {
        reader.error_at(
            1,
            1,
            "",
            format!("expected one YAML document, found {}", documents.len()),
            None,
        );
        return Err(reader.into_diagnostics());
    };
    let version = format!("{:016x}", hash_bytes(text.as_bytes()));
    match reader.journey(document, version) {
        Some(journey) if reader.errors.is_empty() => Ok((journey, reader.places)),
        _ => Err(reader.into_diagnostics()),
    }
}

/// Where a file nests so deeply, or repeats itself by aliases so, that loading it would take a stack or memory out of
/// proportion to its size (P10).
fn beyond_reading(text: &str) -> Option<(usize, usize, &'static str)> {
    let mut depth = 0usize;
    for event in Parser::new_from_str(text) {
        // What is no YAML is told when it is loaded.
        let Ok((event, span)) = event else { return None };
        let message = match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                depth += 1;
                (depth > JOURNEY_DEPTH_MAX).then_some("this nests deeper than any part of a journey")
            }
            Event::SequenceEnd | Event::MappingEnd => {
                depth = depth.saturating_sub(1);
                None
            }
            Event::Alias(_) => Some("aliases are not read: write it out here too"),
            _ => None,
        };
        if let Some(message) = message {
            return Some((span.start.line(), span.start.col() + 1, message));
        }
    }
    None
}

/// Collects errors, and what names the file defines.
#[derive(Default)]
pub(super) struct Reader {
    errors: Vec<Diagnostic>,
    /// Where the first mistake is that was one too many to tell.
    untold: Option<(usize, usize)>,
    pub(super) names: Names,
    /// The event types that the file declares, where it does.
    declared: Option<BTreeSet<String>>,
    /// The slots that have learners, in the order of those.
    pub(super) learner_slots: Vec<String>,
    places: Places,
}

impl Reader {
    fn into_diagnostics(mut self) -> Diagnostics {
        self.errors.sort_by_key(|error| (error.line, error.column));
        if let Some((line, column)) = self.untold {
            self.errors.push(Diagnostic {
                line,
                column,
                path: String::new(),
                message: "there are more mistakes: mend these first".to_owned(),
                suggestion: None,
            });
        }
        Diagnostics { errors: self.errors }
    }

    fn error_at(&mut self, line: usize, column: usize, path: &str, message: String, suggestion: Option<String>) {
        if self.is_full() {
            self.untold.get_or_insert((line.max(1), column));
            return;
        }
        self.errors.push(Diagnostic {
            line: line.max(1),
            column,
            path: path.to_owned(),
            message: shortened(message),
            suggestion: suggestion.filter(|name| name.len() <= IDENTIFIER_BYTES_MAX),
        });
    }

    /// Whether there are as many mistakes as are told, so that looking for what was meant is of no use any more.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= DIAGNOSTICS_MAX
    }

    pub(super) fn error(&mut self, node: &Node<'_>, path: &str, message: impl Into<String>) {
        self.error_at(
            node.span.start.line(),
            node.span.start.col() + 1,
            path,
            message.into(),
            None,
        );
    }

    pub(super) fn error_suggesting(
        &mut self,
        node: &Node<'_>,
        path: &str,
        message: String,
        suggestion: Option<String>,
    ) {
        self.error_at(
            node.span.start.line(),
            node.span.start.col() + 1,
            path,
            message,
            suggestion,
        );
    }

    fn journey(&mut self, document: &Node<'_>, version: String) -> Option<Journey> {
        let top = self.mapping(document, THE_FILE, &keys::TOP)?;
        let get = |name: &str| top.iter().find(|(key, ..)| key == name).map(|(_, _, value)| *value);
        let name = match get("journey") {
            Some(node) => self.identifier(node, "journey").unwrap_or_default(),
            None => {
                self.error(
                    document,
                    "journey",
                    "the journey has no name: add `journey: NAME` at the top",
                );
                String::new()
            }
        };
        let idle_timeout_ms = get("sessions").map_or(IDLE_TIMEOUT_MS_DEFAULT, |node| self.sessions(node));
        let dedupe_last = get("dedupe").map_or(DEDUPE_LAST_DEFAULT, |node| self.dedupe(node));
        if let Some(node) = get("events") {
            self.declared = match self.event_types(node, "events") {
                EventTypes::These(types) => Some(types.into_iter().collect()),
                EventTypes::Any => None,
            };
        }
        let ignored: Vec<String> = get("ignore").map_or_else(Vec::new, |node| match self.event_types(node, "ignore") {
            EventTypes::These(types) => types,
            EventTypes::Any => {
                self.error(node, "ignore", "a journey that ignores every event does nothing");
                Vec::new()
            }
        });

        // Conditions may name features and steps that are defined further down, so collect the names first.
        let experiments = get("experiments").map_or_else(Vec::new, |node| self.experiments(node));
        self.names.experiments = names_of_arms(&experiments);
        let steps = get("steps").map_or_else(Vec::new, |node| self.items(node, "steps", "id", STEPS_MAX));
        self.names.steps = steps.iter().map(|(id, ..)| id.clone()).collect();
        let features = get("features").map_or_else(Vec::new, |node| self.named(node, "features", FEATURES_MAX));
        self.names.features = features.iter().map(|(name, ..)| name.clone()).collect();
        let trends = get("trends").map_or_else(Vec::new, |node| self.named(node, "trends", TRENDS_MAX));
        let trends = self.trends(&trends);
        let slots = get("slots").map_or_else(Vec::new, |node| self.named(node, "slots", RULES_MAX));
        self.names.trends = trends.iter().map(|trend| trend.name.clone()).collect();
        self.learner_slots = slots.iter().map(|(slot, ..)| slot.clone()).collect();

        let contents = get("contents").map_or_else(Vec::new, |node| self.items(node, "contents", "id", CONTENTS_MAX));
        let content_ids: Vec<String> = contents.iter().map(|(id, ..)| id.clone()).collect();
        let rules = get("triggers").map_or_else(Vec::new, |node| self.items(node, "triggers", "id", RULES_MAX));

        let features = self.features(&features);
        let steps: Vec<Step> = steps
            .iter()
            .filter_map(|(id, path, node)| self.step(id, path, node))
            .collect();
        let mut contents: Vec<Content> = contents
            .iter()
            .filter_map(|(id, path, node)| self.content(id, path, node))
            .collect();
        let groups = self.groups(get("policy"));
        let known = Known {
            contents: &content_ids,
            steps: &steps,
            groups: &groups,
        };
        let read: Vec<(Rule, &Node<'_>)> = rules
            .iter()
            .filter_map(|(id, path, node)| Some((self.rule(id, path, node, &known)?, *node)))
            .collect();
        // Indices are those of the file, so one content that can't be read would shift them.
        if contents.len() == content_ids.len() {
            for (rule, node) in &read {
                self.check_contents(rule, node, &contents);
            }
        }
        let rules: Vec<Rule> = read.into_iter().map(|(rule, _)| rule).collect();
        let mut policy = match get("policy") {
            Some(node) => self.policy(node, groups, &rules),
            None => Policy::default(),
        };
        self.membership(&top, &mut policy);
        let outcomes = get("outcomes").and_then(|node| self.outcomes(node));
        let known = Learned {
            features: &features,
            contents: &contents,
            content_ids: &content_ids,
            trends: &trends,
            rules: &rules,
            outcomes: outcomes.as_ref(),
        };
        let learners = self.learners(&slots, &known);
        // Rules find their learners, and those their contents, by indices, which one that can't be read would shift.
        if learners.len() == self.learner_slots.len() && contents.len() == content_ids.len() {
            self.scored(&slots, &learners, &rules, &mut contents);
        }
        let journey = Journey {
            name,
            version,
            idle_timeout_ms,
            dedupe_last,
            steps,
            features,
            traits: self.names.traits.clone(),
            contents,
            rules,
            policy,
            experiments,
            per_session: Vec::new(),
            trends,
            learners,
            outcomes,
            goes_by_local_time: false,
            by_type: Default::default(),
            otherwise: Default::default(),
        };
        Some(journey.index(&ignored))
    }

    // ---- the parts of the file

    fn sessions(&mut self, node: &Node<'_>) -> i64 {
        let Some(entries) = self.mapping(node, "sessions", &keys::SESSIONS) else {
            return IDLE_TIMEOUT_MS_DEFAULT;
        };
        let timeout = entries.iter().find(|(key, ..)| key == "idle_timeout");
        timeout
            .and_then(|(_, _, value)| self.duration_ms(value, "sessions.idle_timeout", 1000, SESSION_IDLE_MS_MAX))
            .unwrap_or(IDLE_TIMEOUT_MS_DEFAULT)
    }

    fn dedupe(&mut self, node: &Node<'_>) -> usize {
        let Some(entries) = self.mapping(node, "dedupe", &keys::DEDUPE) else {
            return DEDUPE_LAST_DEFAULT;
        };
        let last = entries.iter().find(|(key, ..)| key == "last");
        last.and_then(|(_, _, value)| self.whole(value, "dedupe.last", 1, DEDUPE_LAST_MAX as i64))
            .map_or(DEDUPE_LAST_DEFAULT, |last| last as usize)
    }

    fn step(&mut self, id: &str, path: &str, node: &Node<'_>) -> Option<Step> {
        let entries = self.mapping(node, path, &keys::STEP)?;
        let on = self.optional_event_types(&entries, path);
        let when = self.condition_of_history(&entries, path, "when");
        if on.is_none() && when.is_none() {
            self.error(
                node,
                path,
                "a step needs `on` (event types) or `when` (a condition), or both",
            );
        }
        let on = narrowed(on, when.as_ref());
        Some(Step {
            id: id.to_owned(),
            fingerprint: fingerprint(&["step", id]),
            when,
            on,
        })
    }

    fn content(&mut self, id: &str, path: &str, node: &Node<'_>) -> Option<Content> {
        let entries = self.mapping(node, path, &keys::CONTENT)?;
        let when = self.condition(&entries, path, "when");
        let unless = self.condition(&entries, path, "unless");
        let cooldown = find(&entries, "cooldown");
        let cooldown_ms =
            cooldown.and_then(|value| self.duration_ms(value, &format!("{path}.cooldown"), 1, WINDOW_MS_MAX));
        Some(Content {
            id: id.to_owned(),
            when,
            unless,
            fingerprint: fingerprint(&["content", id]),
            cooldown_ms,
            attributes: find(&entries, "attributes")
                .map_or_else(Vec::new, |value| self.attributes(value, &format!("{path}.attributes"))),
            score: None,
        })
    }

    /// What is offered without an event can't be eligible by one.
    fn check_contents(&mut self, rule: &Rule, node: &Node<'_>, contents: &[Content]) {
        if matches!(rule.moment, Moment::Event) {
            return;
        }
        let offered = rule.offers.iter().filter_map(|index| contents.get(*index));
        for content in offered {
            let conditions = [("when", &content.when), ("unless", &content.unless)];
            for (key, condition) in conditions {
                if let Some(read) = condition.as_ref().and_then(Condition::reads_of_event) {
                    let message = format!(
                        "it may be made without an event, but the `{key}` of the content `{}` reads `{read}`",
                        content.id
                    );
                    let key = if rule.learner.is_some() { "choose" } else { "offer" };
                    self.error(node, &format!("triggers.{}.{key}", rule.id), message);
                }
            }
        }
    }

    pub(super) fn condition(&mut self, entries: &[Entry<'_, '_>], path: &str, key: &str) -> Option<Condition> {
        let (_, _, node) = entries.iter().find(|(name, ..)| name == key)?;
        let path = if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        };
        let source = match &node.data {
            // `when: true` is YAML's own boolean, and a condition all the same.
            YamlData::Value(YamlScalar::Boolean(value)) => value.to_string(),
            _ => self.text(node, &path)?,
        };
        match Condition::compile(&source, &mut self.names) {
            Ok(condition) => {
                for event_type in condition.event_types().unwrap_or_default() {
                    self.check_declared(node, &path, event_type);
                }
                Some(condition)
            }
            Err(errors) => {
                for error in errors {
                    self.error_suggesting(node, &path, error.message, error.suggestion);
                }
                None
            }
        }
    }

    /// A condition that decides on what is kept of a user. That must hang on the user's own events alone, by their own time:
    /// not on what others do, and not on when a late event happens to arrive (P7, P11).
    pub(super) fn condition_of_history(
        &mut self,
        entries: &[Entry<'_, '_>],
        path: &str,
        key: &str,
    ) -> Option<Condition> {
        let condition = self.condition(entries, path, key)?;
        if let (Some(read), Some(node)) = (condition.reads_of_time(), find(entries, key)) {
            let message = format!(
                "this goes by the events' own time, so it can't read `{read}`: events have `event.local_hour` and `event.local_weekday`"
            );
            self.error(node, &format!("{path}.{key}"), message);
        }
        self.check_no_trends(&condition, entries, path, key);
        Some(condition)
    }

    /// A condition on what is kept must not hang on what others do.
    pub(super) fn check_no_trends(&mut self, condition: &Condition, entries: &[Entry<'_, '_>], path: &str, key: &str) {
        if let (Some(read), Some(node)) = (condition.reads_of_trends(), find(entries, key)) {
            let path = if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            };
            let message = format!(
                "what is kept of a user hangs on the user's own events alone, so this can't read `{read}`: conditions of triggers and contents may, and contexts of learners"
            );
            self.error(node, &path, message);
        }
    }

    pub(super) fn optional_event_types(&mut self, entries: &[Entry<'_, '_>], path: &str) -> Option<EventTypes> {
        let (_, _, node) = entries.iter().find(|(name, ..)| name == "on")?;
        Some(self.event_types(node, &format!("{path}.on")))
    }

    /// One event type, a list of them, or `any`.
    pub(super) fn event_types(&mut self, node: &Node<'_>, path: &str) -> EventTypes {
        let Some(names) = self.strings(node, path) else {
            return EventTypes::These(Vec::new());
        };
        if names.is_empty() {
            self.error(node, path, "there is no event type in this list");
        }
        if names.iter().any(|(name, _)| name == ANY_EVENT) {
            return EventTypes::Any;
        }
        if names.len() > EVENT_TYPES_MAX {
            let message = format!("{} event types, at most {EVENT_TYPES_MAX} are allowed", names.len());
            self.error(node, path, message);
        }
        let mut types = Vec::new();
        for (name, place) in names.into_iter().take(EVENT_TYPES_MAX) {
            types.extend(self.event_type(name, path, place));
        }
        EventTypes::These(types)
    }

    /// An event type, as events may have it.
    pub(super) fn event_type(&mut self, name: String, path: &str, node: &Node<'_>) -> Option<String> {
        let lower = name.trim().to_lowercase();
        if lower != name {
            let message = format!("event types are kept in lower case, so none is ever `{name}`");
            self.error_suggesting(node, path, message, Some(lower));
            return None;
        }
        if name.is_empty() || name.len() > EVENT_TYPE_BYTES_MAX {
            self.error(
                node,
                path,
                format!("an event type has 1 to {EVENT_TYPE_BYTES_MAX} bytes"),
            );
            return None;
        }
        self.check_declared(node, path, &name);
        Some(name)
    }

    fn check_declared(&mut self, node: &Node<'_>, path: &str, event_type: &str) {
        let Some(declared) = &self.declared else { return };
        if !declared.contains(event_type) {
            let known = declared.iter().filter(|_| !self.is_full());
            let suggestion = did_you_mean(event_type, &mut known.map(String::as_str));
            self.error_suggesting(
                node,
                path,
                format!("`events` does not list the event type `{event_type}`"),
                suggestion,
            );
        }
    }

    // ---- YAML values

    /// The entries of a mapping, with unknown keys reported.
    pub(super) fn mapping<'n, 'y>(
        &mut self,
        node: &'n Node<'y>,
        path: &str,
        mapping: &Mapping,
    ) -> Option<Vec<Entry<'n, 'y>>> {
        self.mapping_of(node, path, &mapping.names())
    }

    pub(super) fn mapping_of<'n, 'y>(
        &mut self,
        node: &'n Node<'y>,
        path: &str,
        allowed: &[&str],
    ) -> Option<Vec<Entry<'n, 'y>>> {
        let entries = self.entries(node, path)?;
        for (name, _, value) in &entries {
            let place = if path == THE_FILE {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            self.places.note(place, value);
        }
        for (name, key, _) in &entries {
            if !allowed.contains(&name.as_str()) {
                let known = allowed.iter().filter(|_| !self.is_full());
                let suggestion = did_you_mean(name, &mut known.copied());
                let message = format!("there is no key `{name}` here; the keys are {}", allowed.join(", "));
                self.error_suggesting(key, path, message, suggestion);
            }
        }
        Some(entries)
    }

    pub(super) fn entries<'n, 'y>(&mut self, node: &'n Node<'y>, path: &str) -> Option<Vec<Entry<'n, 'y>>> {
        let YamlData::Mapping(mapping) = &node.data else {
            self.error(node, path, "expected `key: value` pairs here");
            return None;
        };
        let mut entries = Vec::with_capacity(mapping.len());
        for (key, value) in mapping {
            if let Some(name) = self.text(key, path) {
                entries.push((name, key, value));
            }
        }
        Some(entries)
    }

    /// A list of mappings, each with an id of its own: id, path and node.
    pub(super) fn items<'n, 'y>(
        &mut self,
        node: &'n Node<'y>,
        path: &str,
        key: &str,
        most: usize,
    ) -> Vec<Entry3<'n, 'y>> {
        let YamlData::Sequence(sequence) = &node.data else {
            self.error(
                node,
                path,
                format!("`{path}` is a list: each item starts with `- {key}: NAME`"),
            );
            return Vec::new();
        };
        if sequence.len() > most {
            self.error(
                node,
                path,
                format!("{} items, at most {most} are allowed", sequence.len()),
            );
        }
        let mut items: Vec<Entry3<'n, 'y>> = Vec::new();
        for (index, item) in sequence.iter().enumerate().take(most) {
            let place = format!("{path}[{index}]");
            let Some(entries) = self.entries(item, &place) else {
                continue;
            };
            let Some((_, _, value)) = entries.iter().find(|(name, ..)| name == key) else {
                self.error(item, &place, format!("it has no `{key}`"));
                continue;
            };
            let Some(id) = self.identifier(value, &format!("{place}.{key}")) else {
                continue;
            };
            if items.iter().any(|(known, ..)| *known == id) {
                self.error(value, &place, format!("`{id}` is there twice"));
            }
            self.places.note(format!("{path}.{id}"), value);
            items.push((id.clone(), format!("{path}.{id}"), item));
        }
        items
    }

    /// The entries of a mapping whose keys are names: name, path and value.
    pub(super) fn named<'n, 'y>(&mut self, node: &'n Node<'y>, path: &str, most: usize) -> Vec<Entry3<'n, 'y>> {
        let entries = self.entries(node, path).unwrap_or_default();
        if entries.len() > most {
            self.error(
                node,
                path,
                format!("{} of them, at most {most} are allowed", entries.len()),
            );
        }
        let mut named = Vec::new();
        for (name, key, value) in entries.into_iter().take(most) {
            if self.check_identifier(key, path, &name) {
                self.places.note(format!("{path}.{name}"), key);
                named.push((name.clone(), format!("{path}.{name}"), value));
            }
        }
        named
    }

    pub(super) fn text(&mut self, node: &Node<'_>, path: &str) -> Option<String> {
        match &node.data {
            YamlData::Value(YamlScalar::String(text)) => Some(text.to_string()),
            YamlData::Value(YamlScalar::Integer(number)) => Some(number.to_string()),
            YamlData::Representation(text, ..) => Some(text.to_string()),
            _ => {
                self.error(node, path, "expected text here");
                None
            }
        }
    }

    pub(super) fn identifier(&mut self, node: &Node<'_>, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        self.check_identifier(node, path, &text).then_some(text)
    }

    fn check_identifier(&mut self, node: &Node<'_>, path: &str, text: &str) -> bool {
        let right = !text.is_empty()
            && text.len() <= IDENTIFIER_BYTES_MAX
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if !right {
            let message =
                format!("`{text}` is no name: use letters, digits, `_`, `-` and `.`, at most {IDENTIFIER_BYTES_MAX}");
            self.error(node, path, message);
        }
        right
    }

    /// One text or a list of texts, each with its node.
    pub(super) fn strings<'n, 'y>(&mut self, node: &'n Node<'y>, path: &str) -> Option<Vec<(String, &'n Node<'y>)>> {
        match &node.data {
            YamlData::Sequence(sequence) => Some(
                sequence
                    .iter()
                    .filter_map(|item| Some((self.text(item, path)?, item)))
                    .collect(),
            ),
            _ => Some(vec![(self.text(node, path)?, node)]),
        }
    }

    /// A number, whole or not.
    pub(super) fn number(&mut self, node: &Node<'_>, path: &str, least: f64, most: f64) -> Option<f64> {
        let number = match &node.data {
            YamlData::Value(YamlScalar::Integer(number)) => Some(*number as f64),
            YamlData::Value(YamlScalar::FloatingPoint(number)) => Some(**number),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.error(node, path, format!("expected a number from {least} to {most}"));
        }
        number
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&mut self, node: &Node<'_>, path: &str, no: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let known = words.iter().find(|(word, _)| *word == text);
        if known.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let suggestion = did_you_mean(&text, &mut names.iter().copied());
            let message = format!("`{text}` is {no}: write `{}`", names.join("` or `"));
            self.error_suggesting(node, path, message, suggestion);
        }
        known.map(|(_, value)| *value)
    }

    pub(super) fn whole(&mut self, node: &Node<'_>, path: &str, least: i64, most: i64) -> Option<i64> {
        match &node.data {
            YamlData::Value(YamlScalar::Integer(number)) if (least..=most).contains(number) => Some(*number),
            _ => {
                self.error(node, path, format!("expected a whole number from {least} to {most}"));
                None
            }
        }
    }

    pub(super) fn duration_ms(&mut self, node: &Node<'_>, path: &str, least_ms: i64, most_ms: i64) -> Option<i64> {
        let text = self.text(node, path)?;
        let parsed = humantime::parse_duration(&text);
        let Ok(duration) = parsed else {
            self.error(
                node,
                path,
                format!("`{text}` is no duration: write it like 90s, 30m, 24h or 7d"),
            );
            return None;
        };
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        if !(least_ms..=most_ms).contains(&ms) {
            let shown = |ms: i64| humantime::format_duration(std::time::Duration::from_millis(ms as u64)).to_string();
            self.error(
                node,
                path,
                format!("`{text}` is not between {} and {}", shown(least_ms), shown(most_ms)),
            );
            return None;
        }
        Some(ms)
    }
}

/// A name, its path, and the node under it.
pub(super) type Entry3<'n, 'y> = (String, String, &'n Node<'y>);

/// The event types of `on`, or where there is no `on`, those that the condition can hold for.
pub(super) fn narrowed(on: Option<EventTypes>, when: Option<&Condition>) -> EventTypes {
    let of_condition = when.and_then(|condition| condition.event_types().map(<[String]>::to_vec));
    match (on.unwrap_or(EventTypes::Any), of_condition) {
        (EventTypes::Any, Some(types)) => EventTypes::These(types),
        (on, _) => on,
    }
}
