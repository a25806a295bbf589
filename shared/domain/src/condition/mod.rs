//! Conditions: CEL expressions over an event and the profile it belongs to.
//!
//! A condition is parsed and checked once, at start-up. What it reads becomes [`Slot`]s. Comparisons, logic, `in` and
//! `has` run as a small typed program over those; anything else that CEL can say runs in the library's interpreter.
//!
//! A condition that fails to evaluate (it reads a property that the event doesn't have, say) is not met: a rule fires
//! only on what is known. CEL's own logic holds: `true || error` is true.

mod domain;
mod evaluate;
mod interpret;
mod lower;
mod patterns;
mod solve;

pub use domain::Facts;
pub use evaluate::{EvaluationError, Scope};
pub use solve::{Asked, Impossible, impossible};

use std::sync::LazyLock;

use crate::event::{Event, Field};
use crate::journey::Journey;
use crate::limits::STORED_TEXT_BYTES_MAX;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::trigger::SeenValue;
use crate::value::Value;
use lower::Node;

/// A part of an event or a profile that a condition reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Slot {
    /// `event.…`
    Event(Field),
    /// `features.NAME`: the index of the feature in the journey.
    Feature(usize),
    /// `steps.ID.done`
    StepDone(usize),
    /// `steps.ID.at`: milliseconds since 1970, null before it is done.
    StepAt(usize),
    /// `traits.NAME`: the index in the journey's list of traits that it reads.
    Trait(usize),
    /// `session.count`: how many sessions the user had.
    SessionCount,
    /// `session.events`: events in the latest session.
    SessionEvents,
    /// `session.duration_ms`: the latest session's duration.
    SessionDuration,
    /// `arms.NAME`: the index of the experiment in the journey.
    Arm(usize),
    /// `trends.NAME[KEY]`: the index of the trend in the journey, and of what.
    Trend(usize, TrendOf),
    /// `time.hour`: the hour of the day, 0 to 23, by the user's own clock, as of the moment.
    Hour,
    /// `time.weekday`: the day of the week, 1 (Monday) to 7, by the user's own clock, as of the moment.
    Weekday,
    /// `event` as a whole.
    AllOfEvent,
    /// `event.location` or `event.properties` as a whole.
    PartOfEvent,
    /// `features` as a whole, such as in `features[event.type]`.
    AllFeatures,
    /// `steps` as a whole, or one step.
    AllSteps,
}

/// Of which content or category a trend is read.
#[derive(Clone, Debug, PartialEq)]
pub enum TrendOf {
    /// Of one that the file names.
    Named(String),
    /// Of the one whose id is the value of this.
    Read(Box<Slot>),
}

impl Slot {
    /// What a text such as `features.clicks` or `traits["plan"]` reads by itself.
    ///
    /// # Errors
    /// All that is wrong with it, and that it is more than one value.
    pub fn parse(source: &str, names: &mut Names) -> Result<Slot, Vec<ConditionError>> {
        match lower::compile(source, names)?.typed {
            Some(Node::Slot(slot)) => Ok(slot),
            _ => Err(vec![ConditionError {
                message: format!(
                    "`{source}` is not one value: only what is read by itself goes here, and an `expr` feature can compute the rest"
                ),
                suggestion: None,
            }]),
        }
    }

    /// Whether it is one value.
    fn is_single(&self) -> bool {
        !matches!(
            self,
            Slot::AllOfEvent | Slot::PartOfEvent | Slot::AllFeatures | Slot::AllSteps
        )
    }
}

/// What names a condition may use: those that its journey defines.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The features, in the journey's order.
    pub features: Vec<String>,
    /// The steps, in the journey's order.
    pub steps: Vec<String>,
    /// The traits that conditions read; compiling a condition adds those that it is the first to read.
    pub traits: Vec<String>,
    /// The experiments and their arms, in the journey's order.
    pub experiments: Vec<(String, Vec<String>)>,
    /// The trends, in the journey's order.
    pub trends: Vec<String>,
}

impl Names {
    /// Those that a journey defines.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn of(journey: &Journey) -> Names {
        Names {
            features: journey.features.iter().map(|feature| feature.name.clone()).collect(),
            steps: journey.steps.iter().map(|step| step.id.clone()).collect(),
            traits: journey.traits.clone(),
            experiments: journey.arm_names(),
            trends: journey.trends.iter().map(|trend| trend.name.clone()).collect(),
        }
    }
}

/// Something wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be told.
    pub suggestion: Option<String>,
}

/// How a condition runs.
#[derive(Debug)]
enum Program {
    Typed(Node),
    /// The typed form, which knows numbers only where CEL's operators know more: texts and lists go to the interpreter.
    Numeric(Node, Box<interpret::Program>),
    Interpreted(Box<interpret::Program>),
}

impl Program {
    fn of(compiled: lower::Compiled) -> Program {
        let interpreted = Box::new(compiled.interpreted);
        match compiled.typed {
            Some(node) if node.has_operators() => Program::Numeric(node, interpreted),
            Some(node) => Program::Typed(node),
            None => Program::Interpreted(interpreted),
        }
    }

    fn is_met(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        match self {
            Program::Typed(node) => evaluate::is_met(node, scope),
            Program::Numeric(node, interpreted) => match evaluate::is_met(node, scope) {
                Err(EvaluationError::Untyped) => interpret::is_met(interpreted, scope),
                result => result,
            },
            Program::Interpreted(interpreted) => interpret::is_met(interpreted, scope),
        }
    }

    fn value(&self, scope: &Scope<'_>) -> Result<Value<'static>, EvaluationError> {
        match self {
            Program::Typed(node) => evaluate::value(node, scope),
            Program::Numeric(node, interpreted) => match evaluate::value(node, scope) {
                Err(EvaluationError::Untyped) => interpret::value(interpreted, scope),
                result => result,
            },
            Program::Interpreted(interpreted) => interpret::value(interpreted, scope),
        }
    }
}

/// A compiled condition.
#[derive(Debug)]
pub struct Condition {
    source: String,
    program: Program,
    reads: Vec<(String, Slot)>,
    event_types: Option<Vec<String>>,
}

impl Condition {
    /// Parses and checks a condition.
    ///
    /// # Errors
    /// All that is wrong with it: syntax, names that don't exist, comparisons that can't be true.
    pub fn compile(source: &str, names: &mut Names) -> Result<Condition, Vec<ConditionError>> {
        let mut compiled = lower::compile(source, names)?;
        Ok(Condition {
            source: source.to_owned(),
            reads: std::mem::take(&mut compiled.reads_once),
            event_types: compiled.event_types.take(),
            program: Program::of(compiled),
        })
    }

    /// The first thing that it reads of a feature or step, as it is written.
    pub fn reads_of_features_or_steps(&self) -> Option<&str> {
        let of_profile = |slot: &Slot| {
            matches!(
                slot,
                Slot::Feature(_) | Slot::StepDone(_) | Slot::StepAt(_) | Slot::AllFeatures | Slot::AllSteps
            )
        };
        self.read_by(of_profile)
    }

    /// The first thing that it reads of an event, as it is written. Whose event it is doesn't count: that is the same
    /// whichever event it is.
    pub fn reads_of_event(&self) -> Option<&str> {
        let of_event = |slot: &Slot| match slot {
            Slot::Event(field) => *field != Field::UserId,
            slot => matches!(slot, Slot::AllOfEvent | Slot::PartOfEvent),
        };
        self.read_by(of_event)
    }

    /// The first trend that it reads, as it is written.
    pub fn reads_of_trends(&self) -> Option<&str> {
        self.read_by(|slot| matches!(slot, Slot::Trend(..)))
    }

    /// The first thing that it reads of the user's clock, as it is written.
    pub fn reads_of_time(&self) -> Option<&str> {
        self.read_by(|slot| matches!(slot, Slot::Hour | Slot::Weekday))
    }

    fn read_by(&self, is: impl Fn(&Slot) -> bool) -> Option<&str> {
        let read = self.reads.iter().find(|(_, slot)| is(slot));
        read.map(|(name, _)| name.as_str())
    }

    /// Whether it reads anything of an event, so that without one it has no answer.
    pub fn reads_event(&self) -> bool {
        self.reads_of_event().is_some()
    }

    /// Everything that it reads, each once, in the order of reading, with how it is written.
    pub fn reads(&self) -> &[(String, Slot)] {
        &self.reads
    }

    /// Whether it is made of nothing but `steps.ID.done`, `&&` and `||`: then, once it holds, it holds for ever.
    pub fn is_steps_only(&self) -> bool {
        fn of_steps(node: &Node) -> bool {
            match node {
                Node::Slot(Slot::StepDone(_)) => true,
                Node::And(left, right) | Node::Or(left, right) => of_steps(left) && of_steps(right),
                _ => false,
            }
        }
        matches!(&self.program, Program::Typed(node) if of_steps(node))
    }

    /// The condition as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it runs in the interpreter, which takes microseconds instead of a fraction of one.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.program, Program::Interpreted(_))
    }

    /// The event types without which it can't be met; nothing where it may be met on any.
    pub fn event_types(&self) -> Option<&[String]> {
        self.event_types.as_deref()
    }

    /// Whether it holds. An error means that it doesn't, and says why.
    pub fn is_met(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        self.program.is_met(scope)
    }

    /// [`Condition::is_met`] by the interpreter whatever form it has, for fuzzing to hold the typed form to.
    ///
    /// # Errors
    /// As [`Condition::is_met`].
    #[cfg(feature = "fuzzing")]
    pub fn is_met_interpreted(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        match interpret::Program::compile(&self.source, scope.journey) {
            Ok(program) => interpret::is_met(&program, scope),
            Err(_) => Err(EvaluationError::Other),
        }
    }

    /// What it read, as it was, for people.
    pub fn seen(&self, scope: &Scope<'_>) -> Vec<SeenValue> {
        let single = self.reads.iter().filter(|(_, slot)| slot.is_single());
        let reads = single.take(crate::limits::REASON_VALUES_MAX);
        reads
            .map(|(name, slot)| SeenValue {
                name: name.clone(),
                json: shown(scope.read(slot).as_ref()),
            })
            .collect()
    }
}

/// A compiled expression over a profile: the value of an `expr` feature.
#[derive(Debug)]
pub struct Expression {
    source: String,
    program: Program,
    /// The features that it reads, once for each time.
    features: Vec<usize>,
}

/// What an expression sees for an event. It reads none.
static NO_EVENT: LazyLock<Event<'static>> = LazyLock::new(Event::default);

impl Expression {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// All that is wrong with it: syntax, names that don't exist, and that it reads an event, which isn't there when a
    /// profile is read.
    pub fn compile(source: &str, names: &mut Names) -> Result<Expression, Vec<ConditionError>> {
        let compiled = lower::compile(source, names)?;
        let features = compiled.reads.iter().filter_map(|slot| match slot {
            Slot::Feature(index) => Some(*index),
            _ => None,
        });
        let features = features.collect();
        let wrong = compiled.reads_once.iter().filter_map(|(name, slot)| match slot {
            Slot::Event(_) | Slot::AllOfEvent | Slot::PartOfEvent => Some(format!(
                "an `expr` reads features, steps, traits and the session, but no event: `{name}`"
            )),
            Slot::Arm(_) => Some(format!(
                "an `expr` is the same for everyone with the same history, so it can't read `{name}`: put it into a trigger's `when`"
            )),
            Slot::Trend(..) | Slot::Hour | Slot::Weekday => Some(format!(
                "an `expr` says the same of the same history whenever it is asked, so it can't read `{name}`: read it in a trigger's `when`"
            )),
            Slot::AllFeatures => Some("an `expr` names the features that it reads, as `features.NAME`".to_owned()),
            _ => None,
        });
        let wrong: Vec<ConditionError> = wrong
            .map(|message| ConditionError {
                message,
                suggestion: None,
            })
            .collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Expression {
            source: source.to_owned(),
            program: Program::of(compiled),
            features,
        })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it runs in the interpreter.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.program, Program::Interpreted(_))
    }

    /// The features that it reads, as often as it does.
    pub fn features(&self) -> &[usize] {
        &self.features
    }

    /// Its value as of `now`; null where it has none: what it reads is not there, can't be combined, or it divides by zero.
    pub fn value(&self, journey: &Journey, profile: &Profile, now: Timestamp) -> Value<'static> {
        let scope = Scope {
            journey,
            event: &NO_EVENT,
            profile,
            snapshots: Snapshots::none(),
            now,
        };
        match self.program.value(&scope) {
            Ok(Value::Float(number)) if !number.is_finite() => Value::Null,
            Ok(value) => value,
            Err(_) => Value::Null,
        }
    }
}

/// A value as JSON. Of a long one the front, as text, and how long it is: a reason is stored with the profile (P8), and
/// tells people what was seen, not all that an event carried.
pub(crate) fn shown(value: Option<&Value<'_>>) -> String {
    let Some(value) = value else { return "null".to_owned() };
    let json = value.to_string();
    if json.len() <= STORED_TEXT_BYTES_MAX {
        return json;
    }
    let front = &json[..json.floor_char_boundary(STORED_TEXT_BYTES_MAX / 2)];
    Value::Text(format!("{front}… ({} bytes)", json.len()).into()).to_string()
}

#[cfg(test)]
mod tests;
