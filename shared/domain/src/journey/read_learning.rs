//! The `trends`, `slots` and `outcomes` of a journey file, and the `attributes` of contents.

use std::collections::BTreeMap;

use hashbrown::HashSet;
use saphyr::{Scalar as YamlScalar, YamlData};

use super::keys;
use super::read::{Entry, Entry3, Node, Reader};
use super::read_rule::find;
use super::{
    Content, ContentSource, ContentValue, ContextValue, EventTypes, Feature, Outcomes, Reward, RewardOn, Rule,
    SlotLearner, Trend, TrendBy, UntilThen, did_you_mean,
};
use crate::bandit::context::{Feature as LearnerFeature, FeatureKind, Layout, LayoutError};
use crate::bandit::learner::{Algorithm, Learner, Scope};
use crate::bandit::limits::BANDIT_DIMENSION_MAX;
use crate::bandit::snapshot::ModelSnapshot;
use crate::bandit::state::SlotState;
use crate::condition::{Slot, TrendOf};
use crate::feature::Computation;
use crate::limits::*;
use crate::value::Scalar;

const TRENDS_BY: &[(&str, TrendBy)] = &[
    (keys::TREND_KEYS[0], TrendBy::Content),
    (keys::TREND_KEYS[1], TrendBy::Category),
];

const SAME_CONTENT: &[(&str, bool)] = &[(keys::REWARDED_CONTENTS[0], true), (keys::REWARDED_CONTENTS[1], false)];

const UNTIL_THEN: &[(&str, UntilThen)] = &[
    (keys::UNTIL_THEN_WORDS[0], UntilThen::Unknown),
    (keys::UNTIL_THEN_WORDS[1], UntilThen::Zero),
];

/// The name of a reward that is any step.
const STEP_COMPLETED: &str = "step_completed";
/// What the contents of a slot write before an attribute.
const ATTRIBUTE_PREFIX: &str = "content.";
/// What they write before a trend.
const TREND_PREFIX: &str = "trends.";
/// What they call the imported score.
const SCORE: &str = "score";

/// A kind of learner, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LinearThompson,
    LinUcb,
    Thompson,
    EpsilonGreedy,
    FixedSplit,
    Scores,
}

const KINDS: &[(&str, Kind)] = &[
    (keys::LEARNERS[0], Kind::LinearThompson),
    (keys::LEARNERS[1], Kind::LinUcb),
    (keys::LEARNERS[2], Kind::Thompson),
    (keys::LEARNERS[3], Kind::EpsilonGreedy),
    (keys::LEARNERS[4], Kind::FixedSplit),
    (keys::LEARNERS[5], Kind::Scores),
];

impl Kind {
    fn name(self) -> &'static str {
        let named = KINDS.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(name, _)| *name)
    }

    /// Whether a setting means something to it.
    fn takes(self, setting: &str) -> bool {
        match setting {
            "epsilon" => self == Kind::EpsilonGreedy,
            "weights" => self == Kind::FixedSplit,
            "optimism" => self == Kind::LinUcb,
            "temperature" => matches!(self, Kind::LinearThompson | Kind::Thompson),
            "shared" => matches!(self, Kind::LinearThompson | Kind::LinUcb | Kind::EpsilonGreedy),
            _ => true,
        }
    }
}

/// The settings that only some kinds take.
const SETTINGS_OF_SOME: [&str; 5] = ["epsilon", "weights", "optimism", "temperature", "shared"];

/// What learners may name that is defined elsewhere in the file.
pub(super) struct Learned<'k> {
    pub(super) features: &'k [Feature],
    pub(super) contents: &'k [Content],
    pub(super) content_ids: &'k [String],
    pub(super) trends: &'k [Trend],
    pub(super) rules: &'k [Rule],
    pub(super) outcomes: Option<&'k Outcomes>,
}

impl Learned<'_> {
    /// The largest reward that one thing brings: what a learner takes the largest of an offer to be about, unless the file
    /// says otherwise.
    fn reward_scale(&self) -> f64 {
        let rewards = self.outcomes.iter().flat_map(|outcomes| &outcomes.rewards);
        let largest = rewards.map(|reward| reward.reward.abs()).fold(0.0, f64::max);
        if largest > 0.0 {
            largest.max(keys::REWARD_SCALE_MIN)
        } else {
            1.0
        }
    }
}

impl Reader {
    // ---- trends

    pub(super) fn trends(&mut self, nodes: &[Entry3<'_, '_>]) -> Vec<Trend> {
        let trends = nodes.iter().map(|(name, path, node)| self.trend(name, path, node));
        trends.collect()
    }

    /// A trend, whatever is wrong with it: their indices are those of the file.
    fn trend(&mut self, name: &str, path: &str, node: &Node<'_>) -> Trend {
        let mut trend = Trend {
            name: name.to_owned(),
            event_types: Vec::new(),
            by: TrendBy::default(),
            within_ms: WINDOW_MS_MIN,
        };
        let Some(entries) = self.mapping(node, path, &keys::TREND) else {
            return trend;
        };
        match find(&entries, "count") {
            Some(value) => {
                let place = format!("{path}.count");
                match self.event_types(value, &place) {
                    EventTypes::These(types) => trend.event_types = types,
                    EventTypes::Any => self.error(value, &place, "a trend names the event types that it counts"),
                }
            }
            None => self.error(node, path, "a trend needs `count`: the event types that it counts"),
        }
        match find(&entries, "within") {
            Some(value) => {
                let within = self.duration_ms(value, &format!("{path}.within"), WINDOW_MS_MIN, TREND_WITHIN_MS_MAX);
                trend.within_ms = within.unwrap_or(WINDOW_MS_MIN);
            }
            None => self.error(node, path, "a trend needs `within`: its window, such as 10m"),
        }
        if let Some(value) = find(&entries, "by") {
            let by = self.one_of(value, &format!("{path}.by"), "nothing to count by", TRENDS_BY);
            trend.by = by.unwrap_or_default();
        }
        trend
    }

    // ---- what is known of contents

    pub(super) fn attributes(&mut self, node: &Node<'_>, path: &str) -> Vec<(String, Scalar)> {
        let named = self.named(node, path, CONTENT_ATTRIBUTES_MAX);
        let attributes = named
            .into_iter()
            .filter_map(|(name, path, value)| Some((name, self.scalar(value, &path)?)));
        attributes.collect()
    }

    /// A text, a number, or true or false.
    fn scalar(&mut self, node: &Node<'_>, path: &str) -> Option<Scalar> {
        match &node.data {
            YamlData::Value(YamlScalar::Boolean(value)) => Some(Scalar::Bool(*value)),
            YamlData::Value(YamlScalar::Integer(number)) => Some(Scalar::Int(*number)),
            YamlData::Value(YamlScalar::FloatingPoint(number)) if number.is_finite() => Some(Scalar::Float(**number)),
            YamlData::Value(YamlScalar::String(text)) if text.len() <= STORED_TEXT_BYTES_MAX => {
                Some(Scalar::Text(text.to_string()))
            }
            _ => {
                let message =
                    format!("expected a text of at most {STORED_TEXT_BYTES_MAX} bytes, a number, true or false");
                self.error(node, path, message);
                None
            }
        }
    }

    // ---- slots

    /// The index of the learner of a slot; one that the file doesn't describe gets the next.
    pub(super) fn learner_of(&mut self, slot: &str) -> usize {
        let known = self.learner_slots.iter().position(|known| known == slot);
        known.unwrap_or_else(|| {
            self.learner_slots.push(slot.to_owned());
            self.learner_slots.len() - 1
        })
    }

    /// The learners of all slots that triggers choose for or that the file describes, those first, in its order.
    pub(super) fn learners(&mut self, nodes: &[Entry3<'_, '_>], known: &Learned<'_>) -> Vec<SlotLearner> {
        let mut learners = Vec::new();
        for (slot, path, node) in nodes {
            if !known.rules.iter().any(|rule| rule.slot == *slot) {
                let mut slots = known.rules.iter().map(|rule| rule.slot.as_str());
                let suggestion = did_you_mean(slot, &mut slots);
                self.error_suggesting(node, path, format!("no trigger has the slot `{slot}`"), suggestion);
            }
            learners.extend(self.learner(slot, path, node, known));
        }
        let without: Vec<String> = self.learner_slots.iter().skip(nodes.len()).cloned().collect();
        let scale = known.reward_scale();
        learners.extend(without.iter().filter_map(|slot| default_learner(slot, scale)));
        learners
    }

    fn learner(&mut self, slot: &str, path: &str, node: &Node<'_>, known: &Learned<'_>) -> Option<SlotLearner> {
        let entries = self.mapping(node, path, &keys::SLOT)?;
        let get = |name: &str| find(&entries, name);
        let (context, of_context): (Vec<_>, Vec<_>) = match get("context") {
            Some(value) => self
                .context(value, &format!("{path}.context"), known)
                .into_iter()
                .unzip(),
            None => Default::default(),
        };
        let (contents, of_contents): (Vec<_>, Vec<_>) = match get("contents") {
            Some(value) => {
                let values = self.content_values(value, &format!("{path}.contents"), known);
                values.into_iter().unzip()
            }
            None => Default::default(),
        };
        let kind = match get("learner") {
            Some(value) => self.one_of(value, &format!("{path}.learner"), "no learner", KINDS)?,
            None if context.is_empty() && contents.is_empty() => Kind::Thompson,
            None => Kind::LinearThompson,
        };
        self.check_settings(kind, &entries, path);
        let shared = match get("shared") {
            Some(value) => self.boolean(value, &format!("{path}.shared"))?,
            None => !contents.is_empty(),
        };
        if let (true, true, Some(value)) = (shared, contents.is_empty(), get("shared")) {
            let message = "a shared model sees nothing but `contents`, and there are none: add them, or leave this out";
            self.error(value, &format!("{path}.shared"), message);
        }
        let scope = if shared { Scope::Shared } else { Scope::PerArm };
        let mut learner = Learner::new(match kind {
            Kind::LinearThompson => Algorithm::LinearThompson(scope),
            Kind::LinUcb => Algorithm::LinUcb(scope),
            Kind::Thompson => Algorithm::Thompson,
            Kind::EpsilonGreedy => Algorithm::EpsilonGreedy {
                epsilon: match get("epsilon") {
                    Some(value) => self.share(value, &format!("{path}.epsilon"))?,
                    None => EPSILON_DEFAULT,
                },
                scope,
            },
            Kind::FixedSplit => Algorithm::FixedSplit(match get("weights") {
                Some(value) => self.weights(value, &format!("{path}.weights"), known),
                None => BTreeMap::new(),
            }),
            Kind::Scores => Algorithm::Scores,
        });
        if kind == Kind::FixedSplit {
            // A split is what it says.
            learner.floor = 0.0;
        }
        if let Some(value) = get("floor") {
            learner.floor = self.share(value, &format!("{path}.floor"))?;
        }
        let mut number = |key: &str, least: f64, most: f64, default: f64| match get(key) {
            Some(value) => self.number(value, &format!("{path}.{key}"), least, most),
            None => Some(default),
        };
        learner.optimism = number("optimism", 0.0, keys::LEARNER_FACTOR_MAX, learner.optimism)?;
        learner.temperature = number("temperature", 0.0, keys::LEARNER_FACTOR_MAX, learner.temperature)?;
        learner.reward_scale = number(
            "reward_scale",
            keys::REWARD_SCALE_MIN,
            REWARD_VALUE_MAX,
            known.reward_scale(),
        )?;
        let half_life_ms = match get("half_life") {
            Some(value) => {
                Some(self.duration_ms(value, &format!("{path}.half_life"), HALF_LIFE_MS_MIN, HALF_LIFE_MS_MAX)?)
            }
            None => None,
        };
        let layout = match Layout::new(of_context.clone(), of_contents.clone()) {
            Ok(layout) => layout,
            Err(error) => {
                let (key, features) = match error {
                    LayoutError::TooManyOfContents { .. } => ("contents", &of_contents),
                    _ => ("context", &of_context),
                };
                let value = get(key).unwrap_or(node);
                self.error(value, &format!("{path}.{key}"), told_too_many(&error, features));
                return None;
            }
        };
        Some(learner_with(slot, learner, layout, context, contents, half_life_ms))
    }

    /// A setting must be one that the learner has.
    fn check_settings(&mut self, kind: Kind, entries: &[Entry<'_, '_>], path: &str) {
        for (key, _, value) in entries {
            let key = key.as_str();
            if SETTINGS_OF_SOME.contains(&key) && !kind.takes(key) {
                let others: Vec<&str> = KINDS
                    .iter()
                    .filter(|(_, kind)| kind.takes(key))
                    .map(|(name, _)| *name)
                    .collect();
                let message = format!("`{}` has no `{key}`, but `{}` has", kind.name(), others.join("` and `"));
                self.error(value, &format!("{path}.{key}"), message);
            }
        }
    }

    fn boolean(&mut self, node: &Node<'_>, path: &str) -> Option<bool> {
        match &node.data {
            YamlData::Value(YamlScalar::Boolean(value)) => Some(*value),
            _ => {
                self.error(node, path, "expected true or false");
                None
            }
        }
    }

    fn weights(&mut self, node: &Node<'_>, path: &str, known: &Learned<'_>) -> BTreeMap<String, f64> {
        let named = self.named(node, path, CONTENTS_MAX);
        let mut weights = BTreeMap::new();
        for (content, path, value) in named {
            if !known.content_ids.contains(&content) {
                let suggestion = did_you_mean(&content, &mut known.content_ids.iter().map(String::as_str));
                let message = format!("there is no content `{content}` under `contents`");
                self.error_suggesting(value, &path, message, suggestion);
            }
            if let Some(weight) = self.number(value, &path, 0.0, keys::ARM_WEIGHT_MAX) {
                weights.insert(content, weight);
            }
        }
        weights
    }

    // ---- what learners see

    fn context(&mut self, node: &Node<'_>, path: &str, known: &Learned<'_>) -> Vec<(ContextValue, LearnerFeature)> {
        let named = self.named(node, path, BANDIT_DIMENSION_MAX);
        let values = named
            .into_iter()
            .filter_map(|(name, path, node)| self.context_value(name, &path, node, known));
        values.collect()
    }

    fn context_value(
        &mut self,
        name: String,
        path: &str,
        node: &Node<'_>,
        known: &Learned<'_>,
    ) -> Option<(ContextValue, LearnerFeature)> {
        let (value, said) = self.learner_feature(path, node)?;
        let source = self.text(value, path)?;
        let slot = match Slot::parse(&source, &mut self.names) {
            Ok(slot) => slot,
            Err(errors) => {
                for error in errors {
                    self.error_suggesting(value, path, error.message, error.suggestion);
                }
                return None;
            }
        };
        let kind = match (said, self.kind_of(&slot, known)) {
            (_, Err(message)) => {
                self.error(value, path, message);
                return None;
            }
            (Some(kind), Ok(_)) | (None, Ok(Some(kind))) => kind,
            (None, Ok(None)) => {
                let message = format!(
                    "what `{source}` is doesn't follow from its name: write {{ value: {source}, one_of: [...] }}, or `as: number`, `bool` or `text`"
                );
                self.error(value, path, message);
                return None;
            }
        };
        Some((
            ContextValue {
                name: name.clone(),
                source,
                slot,
                kind: kind.clone(),
            },
            LearnerFeature { name, kind },
        ))
    }

    /// What a value of the context is, where that follows from what it reads.
    fn kind_of(&self, slot: &Slot, known: &Learned<'_>) -> Result<Option<FeatureKind>, &'static str> {
        match slot {
            Slot::Feature(index) => {
                let computation = known.features.get(*index).map(|feature| &feature.computation);
                computation.map_or(Ok(None), kind_of_feature)
            }
            Slot::StepDone(_) => Ok(Some(FeatureKind::Bool)),
            Slot::StepAt(_) => {
                Err("a moment tells a learner nothing: read `steps.ID.done`, or how long something took")
            }
            Slot::SessionCount | Slot::SessionEvents | Slot::SessionDuration => Ok(Some(FeatureKind::Number)),
            Slot::Arm(index) => {
                let arms = self.names.experiments.get(*index).map(|(_, arms)| arms.clone());
                Ok(arms.map(FeatureKind::OneOf))
            }
            Slot::Trend(_, TrendOf::Named(_)) | Slot::Hour | Slot::Weekday => Ok(Some(FeatureKind::Number)),
            Slot::Trend(_, TrendOf::Read(key)) => match **key {
                Slot::Event(_) => self.kind_of(key, known),
                _ => Ok(Some(FeatureKind::Number)),
            },
            Slot::Trait(_) => Ok(None),
            Slot::Event(_) => Err(
                "a context reads no event, since timers decide without one: keep it in a feature, such as `last: device_type`",
            ),
            Slot::AllOfEvent | Slot::PartOfEvent | Slot::AllFeatures | Slot::AllSteps => {
                Err("a context reads single values")
            }
        }
    }

    fn content_values(
        &mut self,
        node: &Node<'_>,
        path: &str,
        known: &Learned<'_>,
    ) -> Vec<(ContentValue, LearnerFeature)> {
        let named = self.named(node, path, BANDIT_DIMENSION_MAX);
        let values = named
            .into_iter()
            .filter_map(|(name, path, node)| self.content_value(name, &path, node, known));
        values.collect()
    }

    fn content_value(
        &mut self,
        name: String,
        path: &str,
        node: &Node<'_>,
        known: &Learned<'_>,
    ) -> Option<(ContentValue, LearnerFeature)> {
        let (value, said) = self.learner_feature(path, node)?;
        let source = self.text(value, path)?;
        let (of, follows) = if source == SCORE {
            (ContentSource::Score, Some(FeatureKind::Number))
        } else if let Some(attribute) = source.strip_prefix(ATTRIBUTE_PREFIX) {
            let follows = self.kind_of_attribute(value, path, attribute, known.contents)?;
            (ContentSource::Attribute(attribute.to_owned()), follows)
        } else if let Some(trend) = source.strip_prefix(TREND_PREFIX) {
            let index = self.trend_of_contents(value, path, trend, known.trends)?;
            (ContentSource::Trend(index), Some(FeatureKind::Number))
        } else {
            let message = format!(
                "`{source}` is nothing that a content has: write `content.NAME` (one of its attributes), `trends.NAME` or `score`"
            );
            self.error(value, path, message);
            return None;
        };
        let Some(kind) = said.or(follows) else {
            let attribute = source.strip_prefix(ATTRIBUTE_PREFIX).unwrap_or(&source);
            let message = format!(
                "which texts are told apart must be written, so that a further content changes nothing that was learned: {{ value: {source}, one_of: [{}] }}, or `as: text`",
                texts_of(attribute, known.contents).join(", ")
            );
            self.error(value, path, message);
            return None;
        };
        Some((
            ContentValue {
                name: name.clone(),
                source,
                of,
                kind: kind.clone(),
            },
            LearnerFeature { name, kind },
        ))
    }

    /// What an attribute is, where that follows from the contents that have it.
    fn kind_of_attribute(
        &mut self,
        node: &Node<'_>,
        path: &str,
        attribute: &str,
        contents: &[Content],
    ) -> Option<Option<FeatureKind>> {
        let all = contents.iter().flat_map(|content| &content.attributes);
        let values: Vec<&Scalar> = all
            .clone()
            .filter(|(name, _)| name == attribute)
            .map(|(_, value)| value)
            .collect();
        if values.is_empty() {
            let suggestion = did_you_mean(attribute, &mut all.map(|(name, _)| name.as_str()));
            let message = format!("no content has the attribute `{attribute}`");
            let suggestion = suggestion.map(|name| format!("{ATTRIBUTE_PREFIX}{name}"));
            self.error_suggesting(node, path, message, suggestion);
            return None;
        }
        let all = |is: fn(&Scalar) -> bool| values.iter().all(|value| is(value));
        if all(|value| matches!(value, Scalar::Int(_) | Scalar::Float(_))) {
            return Some(Some(FeatureKind::Number));
        }
        Some(all(|value| matches!(value, Scalar::Bool(_))).then_some(FeatureKind::Bool))
    }

    fn trend_of_contents(&mut self, node: &Node<'_>, path: &str, name: &str, trends: &[Trend]) -> Option<usize> {
        let Some(index) = trends.iter().position(|trend| trend.name == name) else {
            let suggestion = did_you_mean(name, &mut trends.iter().map(|trend| trend.name.as_str()));
            let suggestion = suggestion.map(|name| format!("{TREND_PREFIX}{name}"));
            self.error_suggesting(node, path, format!("there is no trend `{name}`"), suggestion);
            return None;
        };
        if trends[index].by != TrendBy::Content {
            let message = format!("`{name}` counts by category, and a candidate is a content");
            self.error(node, path, message);
            return None;
        }
        Some(index)
    }

    /// What is read, and what the file says it is.
    fn learner_feature<'n, 'y>(
        &mut self,
        path: &str,
        node: &'n Node<'y>,
    ) -> Option<(&'n Node<'y>, Option<FeatureKind>)> {
        if !matches!(node.data, YamlData::Mapping(_)) {
            return Some((node, None));
        }
        let entries = self.mapping(node, path, &keys::LEARNER_FEATURE)?;
        let Some(value) = find(&entries, "value") else {
            self.error(node, path, "it needs `value`: what it reads");
            return None;
        };
        let kind = match (find(&entries, "one_of"), find(&entries, "as")) {
            (Some(_), Some(given)) => {
                let message = "`one_of` and `as` exclude each other";
                self.error(given, &format!("{path}.as"), message);
                return None;
            }
            (Some(values), None) => Some(FeatureKind::OneOf(
                self.known_values(values, &format!("{path}.one_of"))?,
            )),
            (None, Some(given)) => {
                let kinds = [FeatureKind::Number, FeatureKind::Bool, FeatureKind::Text];
                let words: Vec<(&str, usize)> = keys::LEARNER_FEATURE_KINDS.into_iter().zip(0..).collect();
                let index = self.one_of(given, &format!("{path}.as"), "nothing that a value can be", &words)?;
                Some(kinds[index].clone())
            }
            (None, None) => None,
        };
        Some((value, kind))
    }

    fn known_values(&mut self, node: &Node<'_>, path: &str) -> Option<Vec<String>> {
        let YamlData::Sequence(listed) = &node.data else {
            self.error(node, path, "expected a list of the values that are told apart");
            return None;
        };
        if listed.is_empty() || listed.len() >= BANDIT_DIMENSION_MAX {
            let message = format!(
                "{} values: 1 to {} can be told apart",
                listed.len(),
                BANDIT_DIMENSION_MAX - 1
            );
            self.error(node, path, message);
            return None;
        }
        let mut values: Vec<String> = Vec::new();
        for item in listed {
            let value = match self.scalar(item, path)? {
                Scalar::Text(text) => text,
                Scalar::Bool(value) => value.to_string(),
                Scalar::Int(number) => number.to_string(),
                Scalar::Float(number) => number.to_string(),
            };
            if values.contains(&value) {
                self.error(item, path, format!("`{value}` is there twice"));
            }
            values.push(value);
        }
        Some(values)
    }

    /// Gives the contents of slots that read scores the traits in which those are.
    pub(super) fn scored(
        &mut self,
        nodes: &[Entry3<'_, '_>],
        learned: &[SlotLearner],
        rules: &[Rule],
        contents: &mut [Content],
    ) {
        for (index, learner) in learned.iter().enumerate() {
            let is_feature = learner.contents.iter().any(|value| value.of == ContentSource::Score);
            if !is_feature && learner.learner.algorithm != Algorithm::Scores {
                continue;
            }
            let choosing = rules.iter().filter(|rule| rule.learner == Some(index));
            let candidates: HashSet<usize> = choosing.flat_map(|rule| rule.offers.iter().copied()).collect();
            let mut candidates: Vec<usize> = candidates.into_iter().collect();
            candidates.sort_unstable();
            for candidate in candidates {
                let Some(content) = contents.get_mut(candidate).filter(|content| content.score.is_none()) else {
                    continue;
                };
                let name = format!("{SCORE}.{}", content.id);
                let known = self.names.traits.iter().position(|known| *known == name);
                content.score = match known {
                    None if self.names.traits.len() >= TRAITS_MAX || name.len() > IDENTIFIER_BYTES_MAX => {
                        let message = format!(
                            "the scores of its contents are traits, and a journey reads at most {TRAITS_MAX} of at most {IDENTIFIER_BYTES_MAX} bytes"
                        );
                        if let Some((_, path, node)) = nodes.iter().find(|(slot, ..)| *slot == learner.slot) {
                            self.error(node, path, message);
                        }
                        return;
                    }
                    None => {
                        self.names.traits.push(name);
                        Some(self.names.traits.len() - 1)
                    }
                    known => known,
                };
            }
        }
    }

    // ---- outcomes

    pub(super) fn outcomes(&mut self, node: &Node<'_>) -> Option<Outcomes> {
        let entries = self.mapping(node, "outcomes", &keys::OUTCOMES)?;
        let within_ms = match find(&entries, "within") {
            Some(value) => self.duration_ms(value, "outcomes.within", WINDOW_MS_MIN, OUTCOME_WITHIN_MS_MAX),
            None => {
                let message = "outcomes need `within`: for how long after an offer they count, such as 24h";
                self.error(node, "outcomes", message);
                None
            }
        };
        let until_then = match find(&entries, "until_then") {
            Some(value) => self.one_of(
                value,
                "outcomes.until_then",
                "nothing that an offer can count as",
                UNTIL_THEN,
            )?,
            None => UntilThen::default(),
        };
        let rewards = match find(&entries, "reward") {
            Some(value) => {
                let named = self.named(value, "outcomes.reward", REWARDS_MAX);
                if named.is_empty() && matches!(value.data, YamlData::Mapping(_)) {
                    self.error(value, "outcomes.reward", "nothing is rewarded");
                }
                let rewards = named
                    .into_iter()
                    .filter_map(|(name, path, node)| self.reward(name, &path, node));
                Some(rewards.collect())
            }
            None => {
                let message = "outcomes need `reward`: what is rewarded, such as { click: 1 }";
                self.error(node, "outcomes", message);
                None
            }
        };
        Some(Outcomes {
            within_ms: within_ms?,
            until_then,
            rewards: rewards?,
        })
    }

    fn reward(&mut self, name: String, path: &str, node: &Node<'_>) -> Option<Reward> {
        let value = |reader: &mut Reader, node: &Node<'_>, path: &str| {
            reader.number(node, path, -REWARD_VALUE_MAX, REWARD_VALUE_MAX)
        };
        if !matches!(node.data, YamlData::Mapping(_)) {
            let reward = value(self, node, path);
            let on = if name == STEP_COMPLETED {
                RewardOn::Step(None)
            } else {
                RewardOn::Event {
                    on: EventTypes::These(vec![self.event_type(name.clone(), path, node)?]),
                    same_content: true,
                }
            };
            return Some(Reward {
                name,
                on,
                when: None,
                reward: reward?,
            });
        }
        let entries = self.mapping(node, path, &keys::REWARD)?;
        let reward = match find(&entries, "reward") {
            Some(number) => value(self, number, &format!("{path}.reward")),
            None => {
                self.error(node, path, "it needs `reward`: what it adds to the offer's reward");
                None
            }
        };
        let when = self.condition_of_history(&entries, path, "when");
        let on = match (find(&entries, "on"), find(&entries, "step")) {
            (Some(_), Some(step)) => {
                let message = "`on` and `step` exclude each other: make it two rewards";
                self.error(step, &format!("{path}.step"), message);
                None
            }
            (Some(types), None) => {
                let on = self.event_types(types, &format!("{path}.on"));
                let same_content = match find(&entries, "content") {
                    Some(value) => self.one_of(
                        value,
                        &format!("{path}.content"),
                        "nothing that an event can be about",
                        SAME_CONTENT,
                    )?,
                    None => true,
                };
                Some(RewardOn::Event { on, same_content })
            }
            (None, Some(step)) => {
                if let Some(content) = find(&entries, "content") {
                    let message = "`content` goes with `on`: a step is about no content";
                    self.error(content, &format!("{path}.content"), message);
                }
                let id = self.identifier(step, &format!("{path}.step"))?;
                let index = self.step_index(step, &format!("{path}.step"), &id)?;
                Some(RewardOn::Step(Some(index)))
            }
            (None, None) => {
                self.error(node, path, "it needs `on` (event types) or `step`");
                None
            }
        };
        Some(Reward {
            name,
            on: on?,
            when,
            reward: reward?,
        })
    }
}

/// The share of decisions that `epsilon_greedy` spreads over all, where the file doesn't say.
const EPSILON_DEFAULT: f64 = 0.1;

/// What a feature of the journey is to a learner.
fn kind_of_feature(computation: &Computation) -> Result<Option<FeatureKind>, &'static str> {
    match computation {
        Computation::FirstSeen | Computation::LastSeen => {
            Err("a moment tells a learner nothing: read how long ago it was, by `time_since` or `time_since_first`")
        }
        Computation::Recent { .. }
        | Computation::Top { limit: Some(_), .. }
        | Computation::HourOfDay
        | Computation::Weekday => {
            Err("a list is no number: read one of its values, such as `last` or `top` without a limit, or an `expr`")
        }
        Computation::First(_) | Computation::Last(_) | Computation::LastWithin(..) | Computation::Top { .. } => {
            Ok(None)
        }
        Computation::PerSession { inner, .. } => kind_of_feature(inner),
        _ => Ok(Some(FeatureKind::Number)),
    }
}

/// The texts of an attribute, each once, in the order of the contents.
fn texts_of(attribute: &str, contents: &[Content]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for (_, value) in contents
        .iter()
        .flat_map(|content| &content.attributes)
        .filter(|(name, _)| name == attribute)
    {
        let text = match value {
            Scalar::Text(text) => text.clone(),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
        };
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// That features take too many numbers, with how many each takes.
fn told_too_many(error: &LayoutError, features: &[LearnerFeature]) -> String {
    let each = features.iter().map(|feature| {
        let numbers = match &feature.kind {
            FeatureKind::Number | FeatureKind::Bool => "1".to_owned(),
            FeatureKind::OneOf(values) => (values.len() + 1).to_string(),
            FeatureKind::Text => "2 at least".to_owned(),
        };
        format!("`{}` {numbers}", feature.name)
    });
    let each: Vec<String> = each.collect();
    format!("{error}: {}", each.join(", "))
}

fn learner_with(
    slot: &str,
    learner: Learner,
    layout: Layout,
    context: Vec<ContextValue>,
    contents: Vec<ContentValue>,
    half_life_ms: Option<i64>,
) -> SlotLearner {
    SlotLearner {
        slot: slot.to_owned(),
        prior: ModelSnapshot::new(&SlotState::new(&layout, half_life_ms), &layout, &learner),
        learner,
        layout,
        context,
        contents,
        half_life_ms,
    }
}

/// The learner of a slot that the file says nothing of.
fn default_learner(slot: &str, reward_scale: f64) -> Option<SlotLearner> {
    // Nothing always has a layout.
    let layout = Layout::new(Vec::new(), Vec::new()).ok()?;
    let learner = Learner {
        reward_scale,
        ..Learner::new(Algorithm::Thompson)
    };
    Some(learner_with(slot, learner, layout, Vec::new(), Vec::new(), None))
}
