//! The journey: what an operator asks for, from one YAML file, checked before anything runs.

mod diagnostic;
mod policy;
mod read;
mod read_feature;
mod rule;

use hashbrown::HashMap;

pub use diagnostic::{Diagnostic, Diagnostics, did_you_mean};
pub use policy::{Cap, Experiment, Group, Policy, QuietAction, QuietHours, Reentry};
pub use rule::{Due, Holdout, Limit, LimitPer, Moment, Rule, Since, Timer};

use crate::condition::{Condition, Expression};
use crate::feature::Computation;

/// A step of the onboarding: done at the first event (by event time) on which its condition holds.
#[derive(Debug)]
pub struct Step {
    /// Its id.
    pub id: String,
    /// What its state in a profile is found by.
    pub fingerprint: u32,
    /// When it is done.
    pub when: Option<Condition>,
    on: EventTypes,
}

/// A feature.
#[derive(Debug)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// What its state in a profile is found by: it changes with the definition, so a changed feature starts anew.
    pub fingerprint: u32,
    /// How it is computed.
    pub computation: Computation,
    /// Which events it looks at, beyond their type.
    pub when: Option<Condition>,
    /// What an `expr` is.
    pub expression: Option<Expression>,
    on: EventTypes,
}

/// Something that can be offered.
#[derive(Debug)]
pub struct Content {
    /// Its id.
    pub id: String,
    /// Only offered while this holds.
    pub when: Option<Condition>,
    /// Not offered while this holds.
    pub unless: Option<Condition>,
    /// What it is found by in a profile.
    pub fingerprint: u32,
    /// How long it is not offered again, in milliseconds; without it, as [`Policy::content_cooldown_ms`] says.
    pub cooldown_ms: Option<i64>,
}

/// Which types of events something looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTypes {
    /// Every type.
    Any,
    /// These.
    These(Vec<String>),
}

impl EventTypes {
    /// Whether a type is one of them.
    pub fn includes(&self, event_type: &str) -> bool {
        match self {
            EventTypes::Any => true,
            EventTypes::These(types) => types.iter().any(|name| name == event_type),
        }
    }
}

/// What an event of a certain type touches: indices into the journey's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatch {
    /// The journey drops events of this type.
    pub ignored: bool,
    /// The features that look at it.
    pub features: Vec<usize>,
    /// The steps that it may complete.
    pub steps: Vec<usize>,
    /// The rules that it may fire (those of [`Moment::Event`], [`Moment::Enters`] and [`Moment::Leaves`]), the highest
    /// priority first.
    pub rules: Vec<usize>,
    /// The rules whose [`Moment::Timer`] counts from such an event.
    pub timers: Vec<usize>,
}

/// A checked and compiled journey.
#[derive(Debug)]
pub struct Journey {
    /// Its name.
    pub name: String,
    /// Its version: a hash of the file, so every change is another one.
    pub version: String,
    /// After how long without an event a session ends, in milliseconds.
    pub idle_timeout_ms: i64,
    /// How many event ids a profile remembers (P2).
    pub dedupe_last: usize,
    /// The steps.
    pub steps: Vec<Step>,
    /// The features.
    pub features: Vec<Feature>,
    /// The traits that conditions read.
    pub traits: Vec<String>,
    /// The contents.
    pub contents: Vec<Content>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// What limits all rules together.
    pub policy: Policy,
    /// How users are split for comparison.
    pub experiments: Vec<Experiment>,
    /// The features that keep something for each session: indices into [`Journey::features`].
    pub per_session: Vec<usize>,
    by_type: HashMap<String, Dispatch>,
    otherwise: Dispatch,
}

/// The default of [`Journey::idle_timeout_ms`]: 30 minutes, as web analytics has it.
pub const IDLE_TIMEOUT_MS_DEFAULT: i64 = 30 * 60 * 1000;

impl Journey {
    /// Reads and checks a journey file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn parse(text: &str) -> Result<Journey, Diagnostics> {
        read::read(text)
    }

    /// What an event of this type touches.
    pub fn dispatch(&self, event_type: &str) -> &Dispatch {
        self.by_type.get(event_type).unwrap_or(&self.otherwise)
    }

    /// The conditions that run in the interpreter, with where they are.
    pub fn interpreted_conditions(&self) -> Vec<(String, &str)> {
        let steps = self.steps.iter().map(|step| (format!("steps.{}", step.id), &step.when));
        let features = self
            .features
            .iter()
            .map(|feature| (format!("features.{}", feature.name), &feature.when));
        let contents = self.contents.iter().flat_map(|content| {
            let place = format!("contents.{}", content.id);
            [(place.clone(), &content.when), (place, &content.unless)]
        });
        let rules = self.rules.iter().flat_map(|rule| {
            let place = format!("triggers.{}", rule.id);
            [(place.clone(), &rule.when), (place, &rule.unless)]
        });
        let expressions = self.features.iter().filter_map(|feature| {
            let expression = feature.expression.as_ref()?;
            let interpreted = expression.is_interpreted();
            interpreted.then(|| (format!("features.{}", feature.name), expression.source()))
        });
        let all = steps.chain(features).chain(contents).chain(rules);
        let conditions = all.filter_map(|(place, condition)| {
            condition
                .as_ref()
                .filter(|condition| condition.is_interpreted())
                .map(|condition| (place, condition.source()))
        });
        conditions.chain(expressions).collect()
    }

    /// Works out which types of events touch what.
    fn index(mut self, ignored: &[String]) -> Journey {
        let per_session = |index: &usize| matches!(self.features[*index].computation, Computation::PerSession { .. });
        self.per_session = (0..self.features.len()).filter(per_session).collect();
        let mut index = Index::default();
        let steps = self.steps.iter().map(|step| &step.on);
        index.add(steps, |dispatch| &mut dispatch.steps);
        let features = self.features.iter().map(|feature| &feature.on);
        index.add(features, |dispatch| &mut dispatch.features);
        let rules = self.rules.iter().map(|rule| &rule.on);
        index.add(rules, |dispatch| &mut dispatch.rules);
        for event_type in ignored {
            index.of(event_type).ignored = true;
        }
        let Index {
            mut by_type,
            mut otherwise,
        } = index;
        for dispatch in by_type.values_mut().chain([&mut otherwise]) {
            dispatch
                .rules
                .sort_by_key(|index| (std::cmp::Reverse(self.rules[*index].priority), *index));
        }
        (self.by_type, self.otherwise) = (by_type, otherwise);
        self
    }
}

/// What the types of events touch, as it is worked out. Each list of types is walked once: a journey file has room for a
/// hundred thousand names (P10).
#[derive(Default)]
struct Index {
    by_type: HashMap<String, Dispatch>,
    otherwise: Dispatch,
}

impl Index {
    fn of(&mut self, event_type: &str) -> &mut Dispatch {
        let otherwise = &self.otherwise;
        self.by_type.entry_ref(event_type).or_insert_with(|| otherwise.clone())
    }

    /// Adds the things of one kind, in order, to the list of that kind of each type that they look at.
    fn add<'t>(
        &mut self,
        things: impl Iterator<Item = &'t EventTypes>,
        list_of: impl Fn(&mut Dispatch) -> &mut Vec<usize>,
    ) {
        for (index, on) in things.enumerate() {
            match on {
                EventTypes::Any => {
                    let all = self.by_type.values_mut().chain([&mut self.otherwise]);
                    all.for_each(|dispatch| list_of(dispatch).push(index));
                }
                EventTypes::These(types) => {
                    for event_type in types {
                        let list = list_of(self.of(event_type));
                        // A list may name a type twice.
                        if list.last() != Some(&index) {
                            list.push(index);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
