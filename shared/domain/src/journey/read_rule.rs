//! The `triggers` of a journey file.

use saphyr::YamlData;

use super::keys;
use super::read::{Entry, Node, Reader, narrowed};
use super::{Due, EventTypes, Group, Limit, LimitPer, Moment, Rule, Since, Step, Timer, did_you_mean};
use crate::bandit::limits::CANDIDATES_MAX;
use crate::condition::Condition;
use crate::hash::fingerprint;
use crate::limits::*;

/// What a rule may name that is defined elsewhere in the file.
pub(super) struct Known<'k> {
    pub(super) contents: &'k [String],
    pub(super) steps: &'k [Step],
    pub(super) groups: &'k [Group],
}

const LIMITS_PER: &[(&str, LimitPer)] = &[
    (keys::LIMIT_SCOPES[0], LimitPer::User),
    (keys::LIMIT_SCOPES[1], LimitPer::Session),
    (keys::LIMIT_SCOPES[2], LimitPer::JourneyVersion),
];

/// What `since` calls the end of a session.
const SESSION_END: &str = "session.end";
/// What `since` writes before a step.
const STEP_PREFIX: &str = "steps.";
/// Shortest time that a timer may wait: 1 second.
const TIMER_MS_MIN: i64 = 1000;
/// Longest `cooldown` of a rule.
const COOLDOWN_MS_MAX: i64 = WINDOW_MS_MAX * 10;

/// What makes a rule look, on which types of events, and what its state hangs on beside its id.
struct Read {
    moment: Moment,
    on: EventTypes,
    since: Option<String>,
}

impl Reader {
    pub(super) fn rule(&mut self, id: &str, path: &str, node: &Node<'_>, known: &Known<'_>) -> Option<Rule> {
        let entries = self.mapping(node, path, &keys::RULE)?;
        let get = |name: &str| find(&entries, name);
        let is_timer = ["after", "at", "since", "days"].iter().any(|key| get(key).is_some());
        let is_transition = get("enters").is_some() || get("leaves").is_some();
        let when = self.condition(&entries, path, "when");
        let unless = self.condition(&entries, path, "unless");
        let read = if is_timer {
            self.timer(&entries, path, node, known)
        } else if is_transition {
            self.transition(&entries, path)
        } else {
            self.on_event(&entries, path, node, when.as_ref())
        };
        if is_timer || is_transition {
            let kind = if is_timer { "a timer" } else { "a transition" };
            for (key, condition) in [("when", &when), ("unless", &unless)] {
                self.check_profile_only(&entries, path, key, condition.as_ref(), kind);
            }
        }
        let reminders = match &read {
            Some(Read {
                moment: Moment::Timer(timer),
                ..
            }) => Some(timer.reminders.len()),
            _ => None,
        };
        let offers = match (get("offer"), get("choose")) {
            (Some(_), Some(choose)) => {
                let message = "`offer` and `choose` exclude each other: one names what is offered, the other what the slot's learner chooses from";
                self.error(choose, &format!("{path}.choose"), message);
                None
            }
            (Some(value), None) => self.offers(value, &format!("{path}.offer"), known.contents, reminders),
            (None, Some(value)) => self.candidates(value, &format!("{path}.choose"), known.contents),
            (None, None) => {
                let message = "a trigger needs `offer`: the id of one of the `contents`, or `choose`: a list of them";
                self.error(node, path, message);
                None
            }
        };
        let slot = match get("slot") {
            Some(value) => self.identifier(value, &format!("{path}.slot")),
            None => {
                self.error(
                    node,
                    path,
                    "a trigger needs `slot`: where the offer is shown, such as `in_app`",
                );
                None
            }
        };
        let cooldown_ms =
            get("cooldown").and_then(|value| self.duration_ms(value, &format!("{path}.cooldown"), 1, COOLDOWN_MS_MAX));
        let limit = get("limit").and_then(|value| self.limit(value, &format!("{path}.limit")));
        let priority =
            get("priority").and_then(|value| self.whole(value, &format!("{path}.priority"), i64::MIN, i64::MAX));
        let group = get("group").and_then(|value| self.group_index(value, &format!("{path}.group"), known.groups));
        let holdout = get("holdout").and_then(|value| self.holdout(value, &format!("{path}.holdout"), &["rule", id]));
        let (read, slot, offers) = (read?, slot?, offers?);
        let fingerprint_of_rule = match &read.since {
            // What a timer counted from elsewhere says nothing here, so a changed `since` starts anew.
            Some(since) => fingerprint(&["rule", id, since]),
            None => fingerprint(&["rule", id]),
        };
        Some(Rule {
            id: id.to_owned(),
            fingerprint: fingerprint_of_rule,
            moment: read.moment,
            when,
            unless,
            offers,
            slot_fingerprint: fingerprint(&["slot", &slot]),
            learner: get("choose").map(|_| self.learner_of(&slot)),
            slot,
            cooldown_ms,
            limit,
            priority: priority.unwrap_or(0),
            group,
            holdout,
            on: read.on,
        })
    }

    fn on_event(
        &mut self,
        entries: &[Entry<'_, '_>],
        path: &str,
        node: &Node<'_>,
        when: Option<&Condition>,
    ) -> Option<Read> {
        let on = self.optional_event_types(entries, path);
        // A `when` that can't be read is told already.
        if on.is_none() && find(entries, "when").is_none() {
            self.error(
                node,
                path,
                "a trigger needs `on` (event types), `when` (a condition), `enters` or `leaves` (a condition that changes), or `after` and `since` (time that passes)",
            );
        }
        Some(Read {
            moment: Moment::Event,
            on: narrowed(on, when),
            since: None,
        })
    }

    fn transition(&mut self, entries: &[Entry<'_, '_>], path: &str) -> Option<Read> {
        let on = self.optional_event_types(entries, path);
        if let (Some(_), Some(leaves)) = (find(entries, "enters"), find(entries, "leaves")) {
            let message = "`enters` and `leaves` exclude each other: make it two triggers";
            self.error(leaves, &format!("{path}.leaves"), message);
            return None;
        }
        let key = if find(entries, "enters").is_some() {
            "enters"
        } else {
            "leaves"
        };
        let condition = self.condition(entries, path, key)?;
        self.check_profile_only(entries, path, key, Some(&condition), "a transition");
        Some(Read {
            moment: match key {
                "enters" => Moment::Enters(condition),
                _ => Moment::Leaves(condition),
            },
            on: on.unwrap_or(EventTypes::Any),
            since: None,
        })
    }

    fn timer(&mut self, entries: &[Entry<'_, '_>], path: &str, node: &Node<'_>, known: &Known<'_>) -> Option<Read> {
        for (key, message) in [
            (
                "on",
                "a timer counts from `since`, and has no `on`: write the event types there",
            ),
            (
                "enters",
                "time that passes and `enters` exclude each other: make it two triggers",
            ),
            (
                "leaves",
                "time that passes and `leaves` exclude each other: make it two triggers",
            ),
        ] {
            if let Some(value) = find(entries, key) {
                self.error(value, &format!("{path}.{key}"), message);
            }
        }
        let reminders = match (find(entries, "after"), find(entries, "at")) {
            (Some(_), Some(at)) => {
                let message =
                    "`after` and `at` exclude each other: a reminder is due after a time, or at a time of day";
                self.error(at, &format!("{path}.at"), message);
                None
            }
            (Some(after), None) => self.after(after, &format!("{path}.after")),
            (None, Some(at)) => self.at(at, find(entries, "days"), path),
            (None, None) => {
                self.error(
                    node,
                    path,
                    "a timer needs `after`, such as 2h or [1d, 3d], or `at`, such as \"09:00\"",
                );
                None
            }
        };
        if let (Some(days), None) = (find(entries, "days"), find(entries, "at")) {
            let message = "`days` go with `at`, a time of day; for a time that passes write `after: 1d`";
            self.error(days, &format!("{path}.days"), message);
        }
        let since = match find(entries, "since") {
            Some(value) => self.since(value, &format!("{path}.since"), known.steps),
            None => {
                self.error(
                    node,
                    path,
                    "a timer needs `since`: `steps.ID`, event types, `any`, or `session.end`",
                );
                None
            }
        };
        let (reminders, (since, on, since_text)) = (reminders?, since?);
        Some(Read {
            moment: Moment::Timer(Timer { since, reminders }),
            on,
            since: Some(since_text),
        })
    }

    /// One time or a list of times that pass.
    fn after(&mut self, node: &Node<'_>, path: &str) -> Option<Vec<Due>> {
        let times = one_or_more(node);
        self.check_reminders(node, path, times.len());
        let mut reminders = Vec::new();
        let mut before_ms = 0;
        for time in times.into_iter().take(REMINDERS_MAX) {
            let after_ms = self.duration_ms(time, path, TIMER_MS_MIN, TIMER_MS_MAX)?;
            if after_ms <= before_ms {
                self.error(
                    time,
                    path,
                    "each reminder is later than the one before, all counted from `since`",
                );
            }
            before_ms = after_ms;
            reminders.push(Due::After(after_ms));
        }
        Some(reminders)
    }

    /// A time of day, on one day or on several.
    fn at(&mut self, node: &Node<'_>, days: Option<&Node<'_>>, path: &str) -> Option<Vec<Due>> {
        let minute = self.minute_of_day(node, &format!("{path}.at"))?;
        let Some(days) = days else {
            return Some(vec![Due::LocalTime { days: 0, minute }]);
        };
        let path = format!("{path}.days");
        let listed = one_or_more(days);
        self.check_reminders(days, &path, listed.len());
        // On the day itself the time may have passed, and then it is the next day's.
        let least = i64::from(listed.len() > 1);
        let mut reminders = Vec::new();
        let mut before = -1;
        for day in listed.into_iter().take(REMINDERS_MAX) {
            let number = self.whole(day, &path, least, keys::DAYS_MAX)?;
            if number <= before {
                self.error(
                    day,
                    &path,
                    "each reminder is later than the one before, all counted from `since`",
                );
            }
            before = number;
            reminders.push(Due::LocalTime {
                days: number as u32,
                minute,
            });
        }
        Some(reminders)
    }

    fn check_reminders(&mut self, node: &Node<'_>, path: &str, count: usize) {
        if count == 0 || count > REMINDERS_MAX {
            let message = format!("{count} reminders: a timer has 1 to {REMINDERS_MAX}");
            self.error(node, path, message);
        }
    }

    /// What a timer counts from, the types of events that may start it, and the same as text.
    fn since(&mut self, node: &Node<'_>, path: &str, steps: &[Step]) -> Option<(Since, EventTypes, String)> {
        if matches!(node.data, YamlData::Mapping(_)) {
            let entries = self.mapping(node, path, &keys::SINCE)?;
            let Some(event) = find(&entries, "event") else {
                self.error(node, path, "it needs `event`: the event types that start the timer");
                return None;
            };
            let on = self.event_types(event, &format!("{path}.event"));
            let when = self.condition_of_history(&entries, path, "when");
            let text = format!("{on:?} {}", when.as_ref().map_or("", Condition::source));
            let on = narrowed(Some(on), when.as_ref());
            return Some((Since::Event(when), on, text));
        }
        if let YamlData::Value(saphyr::Scalar::String(text)) = &node.data {
            if text == SESSION_END {
                return Some((Since::SessionEnd, EventTypes::Any, SESSION_END.to_owned()));
            }
            if let Some(id) = text.strip_prefix(STEP_PREFIX) {
                let index = self.step_index(node, path, id)?;
                // Where a step can't be read there is no journey, so what its events are makes no difference.
                let on = steps.get(index).map_or(EventTypes::Any, |step| step.on.clone());
                return Some((Since::Step(index), on, text.to_string()));
            }
        }
        let on = self.event_types(node, path);
        let text = format!("{on:?} ");
        Some((Since::Event(None), on, text))
    }

    pub(super) fn step_index(&mut self, node: &Node<'_>, path: &str, id: &str) -> Option<usize> {
        let index = self.names.steps.iter().position(|step| step == id);
        if index.is_none() {
            let meant = id.strip_suffix(".done").unwrap_or(id);
            let suggestion = did_you_mean(meant, &mut self.names.steps.iter().map(String::as_str));
            self.error_suggesting(
                node,
                path,
                format!("there is no step `{id}`"),
                suggestion.map(|step| format!("{STEP_PREFIX}{step}")),
            );
        }
        index
    }

    /// A time that passes brings no event, so what is asked then can't be about one.
    fn check_profile_only(
        &mut self,
        entries: &[Entry<'_, '_>],
        path: &str,
        key: &str,
        condition: Option<&Condition>,
        kind: &str,
    ) {
        let read = condition.and_then(Condition::reads_of_event);
        if let (Some(read), Some(node)) = (read, find(entries, key)) {
            let message = format!(
                "{kind} is looked at without an event too, so its `{key}` can't read `{read}`: keep it in a feature, such as `last: …`, or in a step"
            );
            self.error(node, &format!("{path}.{key}"), message);
        }
    }

    fn offers(
        &mut self,
        node: &Node<'_>,
        path: &str,
        content_ids: &[String],
        reminders: Option<usize>,
    ) -> Option<Vec<usize>> {
        let listed = one_or_more(node);
        let allowed = reminders.unwrap_or(1);
        if listed.len() != 1 && listed.len() != allowed {
            let message = match reminders {
                Some(reminders) => format!(
                    "{} offers for {reminders} reminders: write one for all of them, or one for each",
                    listed.len()
                ),
                None => format!(
                    "{} offers: a trigger has one, and a timer one for each reminder",
                    listed.len()
                ),
            };
            self.error(node, path, message);
            return None;
        }
        let indices: Vec<Option<usize>> = listed
            .into_iter()
            .map(|offer| self.content_index(offer, path, content_ids))
            .collect();
        indices.into_iter().collect()
    }

    /// What a learner chooses from: every content, or those of a list, each once.
    fn candidates(&mut self, node: &Node<'_>, path: &str, content_ids: &[String]) -> Option<Vec<usize>> {
        if node.data.as_str() == Some(keys::ALL_CONTENTS) {
            if content_ids.is_empty() {
                self.error(node, path, "there are no `contents` to choose from");
                return None;
            }
            self.check_candidates(node, path, content_ids.len());
            return Some((0..content_ids.len()).collect());
        }
        let listed = one_or_more(node);
        self.check_candidates(node, path, listed.len());
        let mut indices: Vec<Option<usize>> = Vec::new();
        for item in listed.into_iter().take(CANDIDATES_MAX) {
            let index = self.content_index(item, path, content_ids);
            if let (Some(known), true) = (index, indices.contains(&index)) {
                let message = format!("`{}` is there twice", content_ids[known]);
                self.error(item, path, message);
            }
            indices.push(index);
        }
        indices.into_iter().collect()
    }

    fn check_candidates(&mut self, node: &Node<'_>, path: &str, count: usize) {
        if count == 0 || count > CANDIDATES_MAX {
            let message = format!("{count} candidates: a learner chooses from 1 to {CANDIDATES_MAX}");
            self.error(node, path, message);
        }
    }

    fn content_index(&mut self, node: &Node<'_>, path: &str, content_ids: &[String]) -> Option<usize> {
        let id = self.identifier(node, path)?;
        let index = content_ids.iter().position(|known| *known == id);
        if index.is_none() {
            let suggestion = did_you_mean(&id, &mut content_ids.iter().map(String::as_str));
            self.error_suggesting(
                node,
                path,
                format!("there is no content `{id}` under `contents`"),
                suggestion,
            );
        }
        index
    }

    fn limit(&mut self, node: &Node<'_>, path: &str) -> Option<Limit> {
        if !matches!(node.data, YamlData::Mapping(_)) {
            let count = self.whole(node, path, 1, i64::MAX)?;
            return Some(Limit {
                count: count as u64,
                per: LimitPer::default(),
            });
        }
        let entries = self.mapping(node, path, &keys::LIMIT)?;
        let Some(count) = find(&entries, "count") else {
            self.error(node, path, "a limit needs `count`: how often the trigger fires at most");
            return None;
        };
        let count = self.whole(count, &format!("{path}.count"), 1, i64::MAX)?;
        let per = match find(&entries, "per") {
            Some(per) => self.one_of(per, &format!("{path}.per"), "nothing to count for", LIMITS_PER)?,
            None => LimitPer::default(),
        };
        Some(Limit {
            count: count as u64,
            per,
        })
    }

    fn group_index(&mut self, node: &Node<'_>, path: &str, groups: &[Group]) -> Option<usize> {
        let name = self.identifier(node, path)?;
        let index = groups.iter().position(|group| group.name == name);
        if index.is_none() {
            let suggestion = did_you_mean(&name, &mut groups.iter().map(|group| group.name.as_str()));
            self.error_suggesting(
                node,
                path,
                format!("there is no group `{name}` under `policy.groups`"),
                suggestion,
            );
        }
        index
    }
}

/// The value of a key.
pub(super) fn find<'n, 'y>(entries: &[Entry<'n, 'y>], name: &str) -> Option<&'n Node<'y>> {
    entries.iter().find(|(key, ..)| key == name).map(|(_, _, value)| *value)
}

/// The items of a list, or what stands there in place of one.
pub(super) fn one_or_more<'n, 'y>(node: &'n Node<'y>) -> Vec<&'n Node<'y>> {
    match &node.data {
        YamlData::Sequence(items) => items.iter().collect(),
        _ => vec![node],
    }
}
