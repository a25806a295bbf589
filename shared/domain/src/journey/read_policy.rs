//! The `policy`, `experiments`, `entry`, `exit` and `reentry` of a journey file.

use jiff::tz::TimeZoneDatabase;
use saphyr::{Scalar as YamlScalar, YamlData};

use super::keys;
use super::read::{Entry, Node, Reader};
use super::read_rule::{find, one_or_more};
use super::{Cap, Experiment, Group, Holdout, Policy, QuietAction, QuietHours, Reentry, Rule, did_you_mean};
use crate::hash::fingerprint;
use crate::limits::*;

const QUIET_ACTIONS: &[(&str, QuietAction)] = &[
    (keys::QUIET_ACTION_WORDS[0], QuietAction::Defer),
    (keys::QUIET_ACTION_WORDS[1], QuietAction::Drop),
];
/// The time zone of users of whom none is known.
const TIME_ZONE_DEFAULT: &str = "UTC";
const MINUTES_PER_HOUR: u16 = 60;
const HOURS_PER_DAY: u16 = 24;

/// Names that CEL keeps for itself (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>).
const RESERVED: [&str; 20] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "while",
];

impl Reader {
    /// The groups, which rules name.
    pub(super) fn groups(&mut self, policy: Option<&Node<'_>>) -> Vec<Group> {
        let Some(YamlData::Mapping(mapping)) = policy.map(|node| &node.data) else {
            return Vec::new();
        };
        let is_groups = |key: &Node<'_>| key.data.as_str() == Some("groups");
        let Some((_, node)) = mapping.iter().find(|(key, _)| is_groups(key)) else {
            return Vec::new();
        };
        let named = self.named(node, "policy.groups", GROUPS_MAX);
        let groups = named.into_iter().map(|(name, path, node)| {
            let entries = self.mapping(node, &path, &keys::GROUP).unwrap_or_default();
            let within = find(&entries, "within");
            let within_ms =
                within.and_then(|value| self.duration_ms(value, &format!("{path}.within"), 1, WINDOW_MS_MAX));
            Group { name, within_ms }
        });
        groups.collect()
    }

    /// The policy but for entry and exit, which stand at the top of the file.
    pub(super) fn policy(&mut self, node: &Node<'_>, groups: Vec<Group>, rules: &[Rule]) -> Policy {
        let entries = self.mapping(node, "policy", &keys::POLICY).unwrap_or_default();
        let get = |name: &str| find(&entries, name);
        let caps = get("cap").map_or_else(Vec::new, |value| self.caps(value, rules));
        let content_cooldown_ms = get("content_cooldown")
            .and_then(|value| self.duration_ms(value, "policy.content_cooldown", 1, WINDOW_MS_MAX));
        let quiet_hours = get("quiet_hours").and_then(|value| self.quiet_hours(value, rules));
        let holdout = get("holdout").and_then(|value| self.holdout(value, "policy.holdout", &[]));
        if let Some(YamlData::Mapping(named)) = get("groups").map(|node| &node.data) {
            for (index, group) in groups.iter().enumerate() {
                let place = named.iter().find(|(key, _)| key.data.as_str() == Some(&group.name));
                if let (false, Some((key, _))) = (rules.iter().any(|rule| rule.group == Some(index)), place) {
                    let message = format!(
                        "no trigger is of the group `{0}`: write `group: {0}` into some",
                        group.name
                    );
                    self.error(key, &format!("policy.groups.{}", group.name), message);
                }
            }
        }
        Policy {
            caps,
            content_cooldown_ms,
            quiet_hours,
            holdout,
            groups,
            entry: None,
            exit: None,
            reentry: Reentry::default(),
        }
    }

    /// Who is in the journey: `entry`, `exit` and `reentry`, at the top of the file.
    pub(super) fn membership(&mut self, top: &[Entry<'_, '_>], policy: &mut Policy) {
        policy.entry = self.condition(top, "", "entry");
        policy.exit = self.condition(top, "", "exit");
        for (key, condition) in [("entry", &policy.entry), ("exit", &policy.exit)] {
            if let Some(condition) = condition {
                self.check_no_trends(condition, top, "", key);
            }
        }
        if let Some(node) = find(top, "reentry") {
            policy.reentry = self.reentry(node).unwrap_or_default();
            if find(top, "exit").is_none() {
                let message = "nobody enters again, since nobody leaves: there is no `exit`";
                self.error(node, "reentry", message);
            }
        }
    }

    fn reentry(&mut self, node: &Node<'_>) -> Option<Reentry> {
        match self.text(node, "reentry")?.as_str() {
            "always" => Some(Reentry::Always),
            "never" => Some(Reentry::Never),
            text if text.starts_with(|first: char| first.is_ascii_digit()) => {
                let after_ms = self.duration_ms(node, "reentry", 1, TIMER_MS_MAX)?;
                Some(Reentry::After(after_ms))
            }
            text => {
                let suggestion = did_you_mean(text, &mut ["always", "never"].into_iter());
                let message =
                    format!("`{text}` is no re-entry: write `always`, `never`, or after how long, such as 30d");
                self.error_suggesting(node, "reentry", message, suggestion);
                None
            }
        }
    }

    /// One cap or a list of caps.
    fn caps(&mut self, node: &Node<'_>, rules: &[Rule]) -> Vec<Cap> {
        let path = "policy.cap";
        let listed = one_or_more(node);
        if listed.len() > CAPS_MAX {
            self.error(
                node,
                path,
                format!("{} caps, at most {CAPS_MAX} are allowed", listed.len()),
            );
        }
        let caps = listed.into_iter().take(CAPS_MAX);
        caps.filter_map(|node| self.cap(node, path, rules)).collect()
    }

    fn cap(&mut self, node: &Node<'_>, path: &str, rules: &[Rule]) -> Option<Cap> {
        let entries = self.mapping(node, path, &keys::CAP)?;
        let mut needed = |key: &str, what: &str| {
            let value = find(&entries, key);
            if value.is_none() {
                self.error(node, path, format!("a cap needs `{key}`: {what}"));
            }
            value
        };
        let offers = needed("offers", "how many a user gets at most");
        let within = needed("within", "in how much time, such as 24h");
        let slot = find(&entries, "slot").and_then(|value| self.used_slot(value, &format!("{path}.slot"), rules));
        let offers = self.whole(offers?, &format!("{path}.offers"), 0, OFFERS_MADE_MAX as i64)?;
        let within_ms = self.duration_ms(within?, &format!("{path}.within"), 1, WINDOW_MS_MAX)?;
        Some(Cap {
            offers: offers as usize,
            within_ms,
            slot: slot.map(|slot| (fingerprint(&["slot", &slot]), slot)),
        })
    }

    /// The name of a slot that some rule has.
    fn used_slot(&mut self, node: &Node<'_>, path: &str, rules: &[Rule]) -> Option<String> {
        let slot = self.identifier(node, path)?;
        if !rules.iter().any(|rule| rule.slot == slot) {
            let suggestion = did_you_mean(&slot, &mut rules.iter().map(|rule| rule.slot.as_str()));
            self.error_suggesting(node, path, format!("no trigger has the slot `{slot}`"), suggestion);
        }
        Some(slot)
    }

    fn quiet_hours(&mut self, node: &Node<'_>, rules: &[Rule]) -> Option<QuietHours> {
        let path = "policy.quiet_hours";
        let entries = self.mapping(node, path, &keys::QUIET_HOURS)?;
        let mut minute = |key: &str| match find(&entries, key) {
            Some(value) => self.minute_of_day(value, &format!("{path}.{key}")),
            None => {
                self.error(
                    node,
                    path,
                    format!("quiet hours need `{key}`: a time of day, such as \"22:00\""),
                );
                None
            }
        };
        let (from_minute, to_minute) = (minute("from"), minute("to"));
        if from_minute.is_some() && from_minute == to_minute {
            self.error(node, path, "they start when they end, so it is never quiet");
        }
        let then = match find(&entries, "then") {
            Some(value) => self.one_of(
                value,
                &format!("{path}.then"),
                "nothing to do with an offer",
                QUIET_ACTIONS,
            ),
            None => Some(QuietAction::default()),
        };
        let slots = match find(&entries, "slots") {
            Some(value) => one_or_more(value)
                .into_iter()
                .filter_map(|slot| self.used_slot(slot, &format!("{path}.slots"), rules))
                .map(|slot| fingerprint(&["slot", &slot]))
                .collect(),
            None => Vec::new(),
        };
        let timezone = match find(&entries, "timezone") {
            Some(value) => self.time_zone(value, &format!("{path}.timezone"))?,
            None => TIME_ZONE_DEFAULT.to_owned(),
        };
        Some(QuietHours {
            from_minute: from_minute?,
            to_minute: to_minute?,
            then: then?,
            slots,
            timezone,
        })
    }

    /// The name of a time zone that the library knows.
    fn time_zone(&mut self, node: &Node<'_>, path: &str) -> Option<String> {
        let name = self.text(node, path)?;
        let zones = TimeZoneDatabase::bundled();
        if zones.get(&name).is_ok() {
            return Some(name);
        }
        let known: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
        let suggestion = did_you_mean(&name, &mut known.iter().map(String::as_str));
        self.error_suggesting(
            node,
            path,
            format!("there is no time zone `{name}`: write a name of the IANA database, such as Europe/London"),
            suggestion,
        );
        None
    }

    /// `5%`, or the same with a salt. `place` is what it is for, which makes the salt where none is written.
    pub(super) fn holdout(&mut self, node: &Node<'_>, path: &str, place: &[&str]) -> Option<Holdout> {
        let (share, salt) = if matches!(node.data, YamlData::Mapping(_)) {
            let entries = self.mapping(node, path, &keys::HOLDOUT)?;
            let salt = find(&entries, "salt").and_then(|value| self.text(value, &format!("{path}.salt")));
            let Some(share) = find(&entries, "share") else {
                self.error(node, path, "a holdout needs `share`, such as 5%");
                return None;
            };
            (self.share(share, &format!("{path}.share"))?, salt)
        } else {
            (self.share(node, path)?, None)
        };
        let salt = match salt {
            Some(salt) => format!("holdout/{salt}"),
            None => format!("holdout//{}", place.join("/")),
        };
        Some(Holdout { share, salt })
    }

    /// A share, of the users or of decisions, written as `5%`.
    pub(super) fn share(&mut self, node: &Node<'_>, path: &str) -> Option<f64> {
        let text = match &node.data {
            YamlData::Value(YamlScalar::FloatingPoint(number)) => number.to_string(),
            _ => self.text(node, path)?,
        };
        let percent = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok());
        let share = percent
            .map(|percent| percent / 100.0)
            .filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            let meant = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
            // Whoever writes 0.05 means 5%, and whoever writes 5 too.
            let suggestion = meant.map(|number| format!("{}%", if number < 1.0 { number * 100.0 } else { number }));
            let message = format!("`{text}` is no share: write it like 5%, from 0% to 100%");
            self.error_suggesting(node, path, message, suggestion);
        }
        share
    }

    /// A time of day, as minutes since midnight.
    pub(super) fn minute_of_day(&mut self, node: &Node<'_>, path: &str) -> Option<u16> {
        let text = self.text(node, path)?;
        let minute = text.split_once(':').and_then(|(hour, minute)| {
            let number = |digits: &str| {
                let right = matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit());
                right.then(|| digits.parse::<u16>().ok()).flatten()
            };
            let (hour, minute) = (number(hour)?, number(minute)?);
            (hour < HOURS_PER_DAY && minute < MINUTES_PER_HOUR).then_some(hour * MINUTES_PER_HOUR + minute)
        });
        if minute.is_none() {
            let message = format!("`{text}` is no time of day: write it like \"09:00\", from 00:00 to 23:59");
            self.error(node, path, message);
        }
        minute
    }

    /// The experiments; their names come first, since conditions read them.
    pub(super) fn experiments(&mut self, node: &Node<'_>) -> Vec<Experiment> {
        let items = self.items(node, "experiments", "id", EXPERIMENTS_MAX);
        let experiments = items
            .into_iter()
            .map(|(id, path, node)| self.experiment(id, &path, node));
        experiments.collect()
    }

    fn experiment(&mut self, id: String, path: &str, node: &Node<'_>) -> Experiment {
        let entries = self.mapping(node, path, &keys::EXPERIMENT).unwrap_or_default();
        let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !plain || id.starts_with(|first: char| first.is_ascii_digit()) || RESERVED.contains(&id.as_str()) {
            let place = find(&entries, "id").unwrap_or(node);
            let message = format!(
                "conditions read it as `arms.{id}`, which they can't: use letters, digits and `_`, and a letter first"
            );
            self.error_suggesting(place, &format!("{path}.id"), message, identifier_of(&id));
        }
        let salt = find(&entries, "salt").and_then(|value| self.text(value, &format!("{path}.salt")));
        let arms = match find(&entries, "arms") {
            Some(value) => self.arms(value, &format!("{path}.arms")),
            None => {
                self.error(
                    node,
                    path,
                    "an experiment needs `arms`, such as { control: 50, short: 50 }",
                );
                Vec::new()
            }
        };
        Experiment {
            salt: format!("experiment/{id}/{}", salt.unwrap_or_default()),
            id,
            arms,
        }
    }

    fn arms(&mut self, node: &Node<'_>, path: &str) -> Vec<(String, f64)> {
        let named = self.named(node, path, ARMS_MAX);
        if named.len() < 2 && matches!(node.data, YamlData::Mapping(_)) {
            self.error(node, path, "an experiment has two arms at least");
        }
        let arms = named.into_iter().map(|(name, path, value)| {
            let weight = self.number(value, &path, f64::MIN_POSITIVE, keys::ARM_WEIGHT_MAX);
            (name, weight.unwrap_or(1.0))
        });
        arms.collect()
    }
}

/// The name that is nearest to a wrong one and could be read in a condition.
fn identifier_of(id: &str) -> Option<String> {
    let name: String = id.replace(['-', '.'], "_");
    let right = !name.starts_with(|first: char| first.is_ascii_digit()) && !RESERVED.contains(&name.as_str());
    right.then_some(name)
}
