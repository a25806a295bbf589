//! Conditions: CEL expressions over an event and the profile it belongs to.
//!
//! A condition is parsed and checked once, at start-up. What it reads becomes [`Slot`]s. Comparisons, logic, `in` and
//! `has` run as a small typed program over those; anything else that CEL can say runs in the library's interpreter.
//!
//! A condition that fails to evaluate (it reads a property that the event doesn't have, say) is not met: a rule fires
//! only on what is known. CEL's own logic holds: `true || error` is true.

mod evaluate;
mod interpret;
mod lower;
mod patterns;

pub use evaluate::{EvaluationError, Scope};

use crate::event::Field;
use crate::limits::STORED_TEXT_BYTES_MAX;
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
    Interpreted(Box<interpret::Program>),
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
        let compiled = lower::compile(source, names)?;
        Ok(Condition {
            source: source.to_owned(),
            program: match compiled.typed {
                Some(node) => Program::Typed(node),
                None => Program::Interpreted(Box::new(compiled.interpreted)),
            },
            reads: compiled.reads,
            event_types: compiled.event_types,
        })
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
        match &self.program {
            Program::Typed(node) => evaluate::is_met(node, scope),
            Program::Interpreted(program) => interpret::is_met(program, scope),
        }
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
        let reads = self.reads.iter().take(crate::limits::REASON_VALUES_MAX);
        reads
            .map(|(name, slot)| SeenValue {
                name: name.clone(),
                json: shown(scope.read(slot).as_ref()),
            })
            .collect()
    }
}

/// A value as JSON. Of a long one the front, as text, and how long it is: a reason is stored with the profile (P8), and
/// tells people what was seen, not all that an event carried.
fn shown(value: Option<&Value<'_>>) -> String {
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
