//! Running the typed form of a condition.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::lower::{Comparison, Node, Operator};
use super::{Slot, TrendOf, interpret};
use crate::event::{Event, Field};
use crate::journey::Journey;
use crate::json;
use crate::local_time::LocalTime;
use crate::policy;
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::value::Value;

/// What a condition can see: an event and the profile it belongs to, as of a moment.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'s> {
    /// The journey that the condition belongs to.
    pub journey: &'s Journey,
    /// The event, already folded into the profile. Its user is the one whose profile it is, even where the rest of it says
    /// nothing.
    pub event: &'s Event<'s>,
    /// The profile.
    pub profile: &'s Profile,
    /// What was learned from all users.
    pub snapshots: &'s Snapshots,
    /// The moment.
    pub now: Timestamp,
}

/// Why a condition has no answer, which counts as not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It reads something that the event or the profile doesn't have.
    #[error("it reads a value that isn't there")]
    Missing,
    /// It compares or combines values of kinds that don't go together, or its result is neither true nor false.
    #[error("it compares values of kinds that don't go together")]
    Mismatch,
    /// It needs the interpreter, and the event's properties are larger than that takes
    /// ([`crate::limits::INTERPRETED_BYTES_MAX`], [`crate::limits::WALKED_BYTES_MAX`]).
    #[error("the event's properties are too large for a condition of this kind")]
    TooLarge,
    /// It combines values of kinds that the typed form leaves to the interpreter. Never seen from outside.
    #[error("it combines values that only the interpreter knows")]
    Untyped,
    /// The interpreter failed otherwise.
    #[error("it can't be evaluated")]
    Other,
}

impl<'s> Scope<'s> {
    /// The value of a slot; nothing where there is none.
    pub fn read(&self, slot: &Slot) -> Option<Value<'s>> {
        let latest_session = self.profile.sessions.latest();
        Some(match slot {
            Slot::Event(field) => return self.event.field(field),
            Slot::Feature(index) => self.profile.feature(self.journey, *index, self.now),
            Slot::StepDone(index) => Value::Bool(self.profile.steps.get(*index).is_some_and(Option::is_some)),
            Slot::StepAt(index) => {
                let done_at = self.profile.steps.get(*index).copied().flatten();
                done_at.map_or(Value::Null, |at| Value::Int(at.epoch_ms()))
            }
            Slot::Trait(index) => Value::from(&self.profile.traits.get(*index)?.as_ref()?.value),
            Slot::SessionCount => Value::Int(self.profile.sessions.count() as i64),
            Slot::SessionEvents => Value::Int(latest_session.map_or(0, |session| session.events as i64)),
            Slot::SessionDuration => Value::Int(latest_session.map_or(0, |session| session.duration_ms())),
            Slot::Arm(index) => {
                let experiment = self.journey.experiments.get(*index)?;
                Value::Text(experiment.arm(&self.event.user).into())
            }
            Slot::Trend(index, of) => {
                let trend = self.journey.trends.get(*index)?;
                let count = self.snapshots.trends.count(trend, &self.trend_key(of)?, self.now);
                Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
            }
            Slot::Hour => Value::Int(i64::from(self.local_time().hour)),
            Slot::Weekday => Value::Int(i64::from(self.local_time().weekday)),
            Slot::AllOfEvent | Slot::PartOfEvent | Slot::AllFeatures | Slot::AllSteps => return None,
        })
    }

    /// The id of which a trend is read; none where there is no such text.
    pub(super) fn trend_key<'k>(&self, of: &'k TrendOf) -> Option<Cow<'k, str>>
    where
        's: 'k,
    {
        match of {
            TrendOf::Named(id) => Some(Cow::Borrowed(id)),
            TrendOf::Read(slot) => match self.read(slot)? {
                Value::Text(id) => Some(id),
                _ => None,
            },
        }
    }

    fn local_time(&self) -> LocalTime {
        policy::local_clock(self.journey, self.profile).local_time(self.now)
    }
}

/// Where the values of slots come from.
pub(super) trait Reads<'s> {
    /// The value of a slot; nothing where there is none.
    fn value_of(&self, slot: &Slot) -> Option<Value<'s>>;

    /// Whether a slot has a value. What it is a part of must be there, and be an object.
    fn has(&self, slot: &Slot) -> Result<bool, EvaluationError>;
}

impl<'s> Reads<'s> for Scope<'s> {
    fn value_of(&self, slot: &Slot) -> Option<Value<'s>> {
        self.read(slot)
    }

    fn has(&self, slot: &Slot) -> Result<bool, EvaluationError> {
        let Slot::Event(Field::Property(path)) = slot else {
            return Ok(self.read(slot).is_some());
        };
        match path.split_last() {
            Some((name, whole)) if !whole.is_empty() => match self.event.properties.find(whole) {
                Some(Value::Json(text)) if text.starts_with('{') => {
                    Ok(json::find(text, std::slice::from_ref(name)).is_some())
                }
                Some(_) => Err(EvaluationError::Mismatch),
                None => Err(EvaluationError::Missing),
            },
            _ => Ok(self.read(slot).is_some()),
        }
    }
}

type Evaluated<'s> = Result<Value<'s>, EvaluationError>;

/// Whether a typed condition is met.
pub(super) fn is_met<'s>(node: &'s Node, scope: &impl Reads<'s>) -> Result<bool, EvaluationError> {
    truth(evaluate(node, scope))
}

/// The value of a typed expression.
pub(super) fn value(node: &Node, scope: &Scope<'_>) -> Evaluated<'static> {
    evaluate(node, scope).map(Value::into_owned)
}

fn truth(value: Evaluated<'_>) -> Result<bool, EvaluationError> {
    match value? {
        Value::Bool(value) => Ok(value),
        _ => Err(EvaluationError::Mismatch),
    }
}

fn evaluate<'s>(node: &'s Node, scope: &impl Reads<'s>) -> Evaluated<'s> {
    let value = match node {
        Node::Null => return Ok(Value::Null),
        Node::Literal(scalar) => return Ok(Value::from(scalar)),
        Node::Slot(slot) => return scope.value_of(slot).ok_or(EvaluationError::Missing),
        Node::Operate(operator, left, right) => {
            return operate(*operator, &evaluate(left, scope)?, &evaluate(right, scope)?);
        }
        Node::Negate(inner) => {
            return match evaluate(inner, scope)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(EvaluationError::Other),
                Value::Float(number) => Ok(Value::Float(-number)),
                _ => Err(EvaluationError::Untyped),
            };
        }
        Node::ToFloat(inner) => {
            return match evaluate(inner, scope)? {
                Value::Int(number) => Ok(Value::Float(number as f64)),
                Value::Float(number) => Ok(Value::Float(number)),
                _ => Err(EvaluationError::Untyped),
            };
        }
        Node::Choose(condition, one, other) => {
            let chosen = if truth(evaluate(condition, scope))? { one } else { other };
            return evaluate(chosen, scope);
        }
        Node::Element(slot, index) => {
            return match scope.value_of(slot).ok_or(EvaluationError::Missing)? {
                Value::List(mut values) if *index < values.len() => Ok(values.swap_remove(*index)),
                _ => Err(EvaluationError::Untyped),
            };
        }
        Node::Has(slot) => scope.has(slot)?,
        Node::Not(inner) => !truth(evaluate(inner, scope))?,
        Node::And(left, right) => logic(left, right, scope, false)?,
        Node::Or(left, right) => logic(left, right, scope, true)?,
        Node::Compare(comparison, left, right) => {
            compare(*comparison, &evaluate(left, scope)?, &evaluate(right, scope)?)?
        }
        Node::InLiterals(needle, scalars) => {
            let needle = evaluate(needle, scope)?;
            scalars.iter().any(|scalar| equal(&needle, &Value::from(scalar)))
        }
        Node::InSlot(needle, slot) => {
            let needle = evaluate(needle, scope)?;
            match scope.value_of(slot).ok_or(EvaluationError::Missing)? {
                Value::List(values) => values.iter().any(|value| equal(&needle, value)),
                _ => return Err(EvaluationError::Mismatch),
            }
        }
    };
    Ok(Value::Bool(value))
}

/// CEL's logic: a side that decides wins over an error on the other side. `deciding` is true for "or".
fn logic<'s>(left: &'s Node, right: &'s Node, scope: &impl Reads<'s>, deciding: bool) -> Result<bool, EvaluationError> {
    let left = truth(evaluate(left, scope));
    if left == Ok(deciding) {
        return Ok(deciding);
    }
    let right = truth(evaluate(right, scope));
    if right == Ok(deciding) {
        return Ok(deciding);
    }
    // What only the interpreter knows may still decide.
    if left == Err(EvaluationError::Untyped) || right == Err(EvaluationError::Untyped) {
        return Err(EvaluationError::Untyped);
    }
    left.and(right)
}

/// CEL's operators on two numbers of one kind: whole ones must not overflow, and nothing is divided by a whole zero.
fn operate<'s>(operator: Operator, left: &Value<'s>, right: &Value<'s>) -> Evaluated<'s> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            let result = match operator {
                Operator::Add => left.checked_add(*right),
                Operator::Subtract => left.checked_sub(*right),
                Operator::Multiply => left.checked_mul(*right),
                Operator::Divide => left.checked_div(*right),
                Operator::Remainder => left.checked_rem(*right),
            };
            result.map(Value::Int).ok_or(EvaluationError::Other)
        }
        (Value::Float(left), Value::Float(right)) => {
            let result = match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                Operator::Divide => left / right,
                Operator::Remainder => return Err(EvaluationError::Untyped),
            };
            // A number that is none compares in ways of its own.
            if result.is_nan() {
                return Err(EvaluationError::Untyped);
            }
            Ok(Value::Float(result))
        }
        _ => Err(EvaluationError::Untyped),
    }
}

fn equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Int(left), Value::Float(right)) => *left as f64 == *right,
        (Value::Float(left), Value::Int(right)) => *left == *right as f64,
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        // Objects are equal by what is in them, however they are written.
        (Value::Json(left), Value::Json(right)) if left == right => true,
        (Value::Json(_), Value::Json(_) | Value::List(_)) | (Value::List(_), Value::Json(_)) => {
            interpret::equal(left, right)
        }
        (left, right) => left == right,
    }
}

fn compare(comparison: Comparison, left: &Value<'_>, right: &Value<'_>) -> Result<bool, EvaluationError> {
    let ordering = match comparison {
        Comparison::Equal => return Ok(equal(left, right)),
        Comparison::NotEqual => return Ok(!equal(left, right)),
        _ => order(left, right).ok_or(EvaluationError::Mismatch)?,
    };
    Ok(match comparison {
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
        Comparison::Equal | Comparison::NotEqual => unreachable!("answered above"),
    })
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Float(right)) => (*left as f64).partial_cmp(right),
        (Value::Float(left), Value::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Value::Text(left), Value::Text(right)) => Some(Cow::as_ref(left).cmp(Cow::as_ref(right))),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
