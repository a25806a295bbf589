//! The journey: what an operator asks for, from one YAML file, checked before anything runs.

mod analysis;
mod analysis_learning;
mod diagnostic;
mod keys;
mod learning;
mod policy;
mod read;
mod read_feature;
mod read_learning;
mod read_policy;
mod read_rule;
mod rule;
mod schema;

use hashbrown::HashMap;

pub use analysis::{Checked, Finding, Severity};
pub use diagnostic::{Diagnostic, Diagnostics, did_you_mean};
pub use learning::{
    ContentSource, ContentValue, ContextValue, Outcomes, Reward, RewardOn, SlotLearner, Trend, TrendBy, UntilThen,
};
pub use policy::{Cap, Experiment, Group, Policy, QuietAction, QuietHours, Reentry, share_of};
pub use rule::{Due, Holdout, Limit, LimitPer, Moment, Rule, Since, Timer};
pub use schema::json_schema;

use crate::condition::{Condition, Expression, Slot};
use crate::feature::Computation;
use crate::value::Scalar;

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
    /// What the learner may know of it, by name.
    pub attributes: Vec<(String, Scalar)>,
    /// The index in [`Journey::traits`] of the user's imported score of it, where a learner reads that.
    pub score: Option<usize>,
}

/// Which types of events something looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTypes {
    /// Every type.
    Any,
    /// These.
    These(Vec<String>),
}

/// None at all.
static NO_TYPES: EventTypes = EventTypes::These(Vec::new());

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
    /// What is counted over all users.
    pub trends: Vec<Trend>,
    /// How the slots with a choice learn.
    pub learners: Vec<SlotLearner>,
    /// What counts as success; without it, nothing is learned.
    pub outcomes: Option<Outcomes>,
    /// Whether it makes a difference where the user's clock is.
    goes_by_local_time: bool,
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
        read::read(text).map(|(journey, _)| journey)
    }

    /// What an event of this type touches.
    pub fn dispatch(&self, event_type: &str) -> &Dispatch {
        self.by_type.get(event_type).unwrap_or(&self.otherwise)
    }

    /// Every condition of the journey, with where it is in the file, such as `triggers.welcome.when`.
    pub fn conditions(&self) -> Vec<(String, &Condition)> {
        let policy = [("entry", &self.policy.entry), ("exit", &self.policy.exit)];
        let policy = policy.map(|(key, condition)| (key.to_owned(), condition.as_ref()));
        let steps = self.steps.iter();
        let steps = steps.map(|step| (format!("steps.{}.when", step.id), step.when.as_ref()));
        let features = self.features.iter();
        let features = features.map(|feature| (format!("features.{}.when", feature.name), feature.when.as_ref()));
        let contents = self.contents.iter().flat_map(|content| {
            let conditions = [("when", &content.when), ("unless", &content.unless)];
            conditions.map(|(key, condition)| (format!("contents.{}.{key}", content.id), condition.as_ref()))
        });
        let rules = self.rules.iter().flat_map(|rule| {
            let of_moment = match &rule.moment {
                Moment::Event => ("on", None),
                Moment::Enters(condition) => ("enters", Some(condition)),
                Moment::Leaves(condition) => ("leaves", Some(condition)),
                Moment::Timer(timer) => match &timer.since {
                    Since::Event(when) => ("since.when", when.as_ref()),
                    Since::Step(_) | Since::SessionEnd => ("since", None),
                },
            };
            let conditions = [
                of_moment,
                ("when", rule.when.as_ref()),
                ("unless", rule.unless.as_ref()),
            ];
            conditions.map(|(key, condition)| (format!("triggers.{}.{key}", rule.id), condition))
        });
        let rewards = self.outcomes.iter().flat_map(|outcomes| &outcomes.rewards);
        let rewards = rewards.map(|reward| (format!("outcomes.reward.{}.when", reward.name), reward.when.as_ref()));
        let all = policy
            .into_iter()
            .chain(steps)
            .chain(features)
            .chain(contents)
            .chain(rules)
            .chain(rewards);
        all.filter_map(|(place, condition)| Some((place, condition?))).collect()
    }

    /// Whether it makes a difference where the user's clock is: for quiet hours, times of day, or `time.…`.
    pub fn goes_by_local_time(&self) -> bool {
        self.goes_by_local_time
    }

    fn reads_local_time(&self) -> bool {
        let at_a_time_of_day = |rule: &Rule| match &rule.moment {
            Moment::Timer(timer) => timer.reminders.iter().any(|due| matches!(due, Due::LocalTime { .. })),
            Moment::Event | Moment::Enters(_) | Moment::Leaves(_) => false,
        };
        let of_clock = |slot: &Slot| matches!(slot, Slot::Hour | Slot::Weekday);
        let mut contexts = self.learners.iter().flat_map(|learner| &learner.context);
        let conditions = self.conditions();
        self.policy.quiet_hours.is_some()
            || self.rules.iter().any(at_a_time_of_day)
            || conditions
                .iter()
                .any(|(_, condition)| condition.reads_of_time().is_some())
            || contexts.any(|value| of_clock(&value.slot))
    }

    /// The names of the experiments and of their arms, as conditions know them.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn arm_names(&self) -> Vec<(String, Vec<String>)> {
        names_of_arms(&self.experiments)
    }

    /// The conditions and expressions that run in the interpreter, with where they are.
    pub fn interpreted_conditions(&self) -> Vec<(String, &str)> {
        let conditions = self.conditions().into_iter();
        let slow = conditions.filter(|(_, condition)| condition.is_interpreted());
        let expressions = self.features.iter().filter_map(|feature| {
            let expression = feature.expression.as_ref()?;
            let interpreted = expression.is_interpreted();
            interpreted.then(|| (format!("features.{}.expr", feature.name), expression.source()))
        });
        slow.map(|(place, condition)| (place, condition.source()))
            .chain(expressions)
            .collect()
    }

    /// Works out which types of events touch what.
    fn index(mut self, ignored: &[String]) -> Journey {
        let per_session = |index: &usize| matches!(self.features[*index].computation, Computation::PerSession { .. });
        self.per_session = (0..self.features.len()).filter(per_session).collect();
        self.goes_by_local_time = self.reads_local_time();
        let mut index = Index::default();
        let steps = self.steps.iter().map(|step| &step.on);
        index.add(steps, |dispatch| &mut dispatch.steps);
        let features = self.features.iter().map(|feature| &feature.on);
        index.add(features, |dispatch| &mut dispatch.features);
        let is_timer = |rule: &Rule| matches!(rule.moment, Moment::Timer(_));
        index.add(
            self.rules
                .iter()
                .map(|rule| if is_timer(rule) { &NO_TYPES } else { &rule.on }),
            |dispatch| &mut dispatch.rules,
        );
        index.add(
            self.rules
                .iter()
                .map(|rule| if is_timer(rule) { &rule.on } else { &NO_TYPES }),
            |dispatch| &mut dispatch.timers,
        );
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

/// The names of experiments and of their arms.
fn names_of_arms(experiments: &[Experiment]) -> Vec<(String, Vec<String>)> {
    let named = experiments.iter().map(|experiment| {
        let arms = experiment.arms.iter().map(|(name, _)| name.clone());
        (experiment.id.clone(), arms.collect())
    });
    named.collect()
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
mod analysis_tests;
#[cfg(test)]
mod learning_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
