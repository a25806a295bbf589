//! Running a condition in the library's interpreter: whatever CEL can say beyond the typed form.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Value as CelValue};

use super::lower::MATCHES;
use super::patterns::Patterns;
use super::{EvaluationError, Scope, Slot, TrendOf};
use crate::event::Field;
use crate::json;
use crate::limits::{INTERPRETED_BYTES_MAX, WALKED_BYTES_MAX};
use crate::value::Value;

/// Making it costs more than evaluating most conditions.
static STANDARD_LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition for the interpreter.
#[derive(Debug)]
pub(super) struct Program {
    program: cel::Program,
    patterns: Arc<Patterns>,
    property_bytes_max: usize,
    needs: Needs,
}

impl Program {
    pub(super) fn new(program: cel::Program, patterns: Patterns, has_macro: bool, reads: &[Slot]) -> Program {
        Program {
            program,
            patterns: Arc::new(patterns),
            needs: Needs::of(reads),
            property_bytes_max: if has_macro {
                WALKED_BYTES_MAX
            } else {
                INTERPRETED_BYTES_MAX
            },
        }
    }

    /// A condition of a journey, although there may be a typed form of it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn compile(
        source: &str,
        journey: &crate::journey::Journey,
    ) -> Result<Program, Vec<super::ConditionError>> {
        let mut names = super::Names::of(journey);
        super::lower::compile(source, &mut names).map(|compiled| compiled.interpreted)
    }
}

/// Which of the costly parts of its variables a program needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Needs {
    /// The features that it reads; nothing where that can't be told, so it needs them all.
    features: Option<Vec<usize>>,
    /// The members of the event that are worked out when they are read.
    derived: Vec<Field>,
    /// The trends that it reads, and of what.
    trends: Vec<(usize, TrendOf)>,
}

impl Needs {
    /// What is needed for these reads.
    pub(super) fn of(reads: &[Slot]) -> Needs {
        let mut needs = Needs {
            features: (!reads.contains(&Slot::AllFeatures)).then(Vec::new),
            derived: Vec::new(),
            trends: Vec::new(),
        };
        for slot in reads {
            match (slot, &mut needs.features) {
                (Slot::Feature(index), Some(features)) if !features.contains(index) => features.push(*index),
                (Slot::Event(field), _) if field.is_derived() && !needs.derived.contains(field) => {
                    needs.derived.push(field.clone());
                }
                (Slot::Trend(index, of), _) => needs.trends.push((*index, of.clone())),
                _ => {}
            }
        }
        if reads.contains(&Slot::AllOfEvent) {
            let all = Field::NAMED.into_iter().map(|(_, field)| field);
            needs.derived = all.filter(Field::is_derived).collect();
        }
        needs
    }
}

/// Whether the condition is met.
pub(super) fn is_met(program: &Program, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
    match run(program, scope)? {
        CelValue::Bool(value) => Ok(value),
        _ => Err(EvaluationError::Mismatch),
    }
}

/// The value of an expression: what a feature can be, and null for anything else.
pub(super) fn value(program: &Program, scope: &Scope<'_>) -> Result<Value<'static>, EvaluationError> {
    run(program, scope).map(|value| of_cel(&value))
}

fn of_cel(value: &CelValue) -> Value<'static> {
    match value {
        CelValue::Bool(value) => Value::Bool(*value),
        CelValue::Int(value) => Value::Int(*value),
        CelValue::UInt(value) => i64::try_from(*value).map_or(Value::Null, Value::Int),
        CelValue::Float(value) => Value::Float(*value),
        CelValue::String(text) => Value::Text(text.to_string().into()),
        CelValue::List(values) => Value::List(values.iter().map(of_cel).collect()),
        _ => Value::Null,
    }
}

fn run(program: &Program, scope: &Scope<'_>) -> Result<CelValue, EvaluationError> {
    let Program {
        program,
        patterns,
        property_bytes_max,
        needs,
    } = program;
    let references = program.references();
    if references.has_variable("event") && property_bytes(scope) > *property_bytes_max {
        return Err(EvaluationError::TooLarge);
    }
    let mut context = Context::with_env(Arc::clone(&STANDARD_LIBRARY));
    for (root, build) in ROOTS {
        if references.has_variable(root) {
            context.add_variable_from_value(root, build(scope, needs));
        }
    }
    if !patterns.is_empty() {
        let patterns = Arc::clone(patterns);
        let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
            patterns.is_match(&pattern, &text).ok_or_else(|| {
                // Each pattern was compiled with its condition.
                ExecutionError::function_error(MATCHES, "an unknown pattern")
            })
        };
        // Only a name that is taken is refused, and without its feature `regex` the library has no such function.
        if context.add_function(MATCHES, matches).is_err() {
            return Err(EvaluationError::Other);
        }
    }
    program.execute(&context).map_err(|error| match error {
        cel::ExecutionError::NoSuchKey(_) | cel::ExecutionError::UndeclaredReference(_) => EvaluationError::Missing,
        cel::ExecutionError::NoSuchOverload(_) => EvaluationError::Mismatch,
        _ => EvaluationError::Other,
    })
}

/// How much JSON the interpreter would have to take apart.
fn property_bytes(scope: &Scope<'_>) -> usize {
    let properties = &scope.event.properties;
    let unknown: usize = properties.unknown.iter().map(|(_, text)| text.len()).sum();
    properties.object.map_or(0, str::len) + unknown
}

type Build = fn(&Scope<'_>, &Needs) -> CelValue;
const ROOTS: [(&str, Build); 8] = [
    ("event", event),
    ("features", features),
    ("steps", steps),
    ("traits", traits),
    ("session", session),
    ("arms", arms),
    ("trends", trends),
    ("time", time),
];

fn map(entries: impl IntoIterator<Item = (String, CelValue)>) -> CelValue {
    let map: HashMap<Key, CelValue> = entries
        .into_iter()
        .map(|(name, value)| (Key::String(name.into()), value))
        .collect();
    CelValue::Map(Map { map: map.into() })
}

fn event(scope: &Scope<'_>, needs: &Needs) -> CelValue {
    let mut members = HashMap::new();
    let mut location = HashMap::new();
    for (name, field) in Field::NAMED {
        if field.is_derived() && !needs.derived.contains(&field) {
            continue;
        }
        let Some(value) = scope.event.field(&field) else {
            continue;
        };
        match name.strip_prefix("location.") {
            Some(part) => location.insert(part.to_owned(), cel_value(&value)),
            None => members.insert(name.to_owned(), cel_value(&value)),
        };
    }
    let own = scope.event.properties.object.map(json::members).unwrap_or_default();
    // The event's own properties come last, so they win over an unknown top-level member of the same name.
    let all = scope.event.properties.unknown.iter().cloned().chain(own);
    let properties: HashMap<_, _> = all
        .map(|(name, text)| (name.into_owned(), cel_value(&json::read(text))))
        .collect();
    members.insert("location".to_owned(), map(location));
    members.insert("properties".to_owned(), map(properties));
    map(members)
}

fn features(scope: &Scope<'_>, needs: &Needs) -> CelValue {
    let features = scope.journey.features.iter().enumerate();
    let needed = features.filter(|(index, _)| needs.features.as_ref().is_none_or(|needed| needed.contains(index)));
    map(needed.map(|(index, feature)| {
        (
            feature.name.clone(),
            cel_value(&scope.profile.feature(scope.journey, index, scope.now)),
        )
    }))
}

fn steps(scope: &Scope<'_>, _: &Needs) -> CelValue {
    map(scope.journey.steps.iter().enumerate().map(|(index, step)| {
        let member = |name: &str, slot| (name.to_owned(), slot_value(scope, &slot));
        (
            step.id.clone(),
            map([
                member("done", Slot::StepDone(index)),
                member("at", Slot::StepAt(index)),
                member("done_at", Slot::StepAt(index)),
            ]),
        )
    }))
}

fn traits(scope: &Scope<'_>, _: &Needs) -> CelValue {
    let names = scope.journey.traits.iter().enumerate();
    map(names.filter_map(|(index, name)| {
        scope
            .read(&Slot::Trait(index))
            .map(|value| (name.clone(), cel_value(&value)))
    }))
}

fn session(scope: &Scope<'_>, _: &Needs) -> CelValue {
    let member = |name: &str, slot| (name.to_owned(), slot_value(scope, &slot));
    map([
        member("count", Slot::SessionCount),
        member("events", Slot::SessionEvents),
        member("duration_ms", Slot::SessionDuration),
    ])
}

fn arms(scope: &Scope<'_>, _: &Needs) -> CelValue {
    let experiments = scope.journey.experiments.iter().enumerate();
    map(experiments.map(|(index, experiment)| (experiment.id.clone(), slot_value(scope, &Slot::Arm(index)))))
}

/// Of each trend the counts that are read, and no more: it may know of very many ids.
fn trends(scope: &Scope<'_>, needs: &Needs) -> CelValue {
    let mut trends: HashMap<String, HashMap<String, CelValue>> = HashMap::new();
    for (index, of) in &needs.trends {
        let Some(trend) = scope.journey.trends.get(*index) else {
            continue;
        };
        let counts = trends.entry(trend.name.clone()).or_default();
        if let Some(id) = scope.trend_key(of) {
            let count = slot_value(scope, &Slot::Trend(*index, TrendOf::Named(id.clone().into_owned())));
            counts.insert(id.into_owned(), count);
        }
    }
    map(trends.into_iter().map(|(name, counts)| (name, map(counts))))
}

fn time(scope: &Scope<'_>, _: &Needs) -> CelValue {
    let member = |name: &str, slot| (name.to_owned(), slot_value(scope, &slot));
    map([member("hour", Slot::Hour), member("weekday", Slot::Weekday)])
}

fn slot_value(scope: &Scope<'_>, slot: &Slot) -> CelValue {
    scope.read(slot).map_or(CelValue::Null, |value| cel_value(&value))
}

fn cel_value(value: &Value<'_>) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Int(value) => CelValue::Int(*value),
        Value::Float(value) => CelValue::Float(*value),
        Value::Text(text) => CelValue::String(text.to_string().into()),
        Value::List(values) => CelValue::List(values.iter().map(cel_value).collect::<Vec<_>>().into()),
        Value::Json(text) if text.starts_with('[') => CelValue::List(
            json::elements(text)
                .into_iter()
                .map(|text| cel_value(&json::read(text)))
                .collect::<Vec<_>>()
                .into(),
        ),
        Value::Json(text) => map(json::members(text)
            .into_iter()
            .map(|(name, text)| (name.into_owned(), cel_value(&json::read(text))))),
    }
}

/// Whether two values are equal as CEL has it, lists and objects by what is in them.
pub(super) fn equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    cel_value(left) == cel_value(right)
}
