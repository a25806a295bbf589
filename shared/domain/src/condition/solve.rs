//! What can be told of conditions before any event: that they can't be met together, whatever comes.
//!
//! Conditions are taken apart into alternatives; each asks several things at once, each of a single slot. An alternative
//! can't be where for one of its slots no value gives all that is asked of it, and conditions can't be met where no
//! alternative can be. Values are tried with the evaluator itself, one for each stretch between the literals that the slot
//! is compared with. What can't be taken apart so (operators, lists, two slots in one comparison, the interpreter's part
//! of CEL) is taken as possible: there is no false alarm.

use super::domain::{Domain, Facts};
use super::evaluate::{self, EvaluationError, Reads};
use super::lower::{Comparison, Node};
use super::{Condition, Program, Slot};
use crate::event::Field;
use crate::value::{Scalar, Value};

/// Alternatives that are looked at; conditions with more are taken as possible.
const ALTERNATIVES_MAX: usize = 256;
/// The largest whole number up to which each is exact as a double too.
const EXACT_NUMBER_MAX: f64 = 9_007_199_254_740_992.0;

/// What is asked of a condition. It may hold, not hold, or fail to be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It holds.
    True,
    /// It doesn't.
    False,
    /// It doesn't, or fails: what an `unless` must do.
    NotTrue,
    /// It holds, or fails.
    NotFalse,
}

impl Asked {
    /// The same, asked of the opposite.
    fn of_opposite(self) -> Asked {
        match self {
            Asked::True => Asked::False,
            Asked::False => Asked::True,
            Asked::NotTrue => Asked::NotFalse,
            Asked::NotFalse => Asked::NotTrue,
        }
    }

    fn is_given_by(self, result: Result<bool, EvaluationError>) -> bool {
        match self {
            Asked::True => result == Ok(true),
            Asked::False => result == Ok(false),
            Asked::NotTrue => result != Ok(true),
            Asked::NotFalse => result != Ok(false),
        }
    }
}

/// That conditions can't be met together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impossible {
    /// The parts that exclude each other, as they are written, or the one part that never holds; none where there are
    /// several alternatives.
    pub because: Vec<String>,
}

/// Whether conditions can't be as they are asked to be, all at once and whatever event and profile they see.
pub fn impossible(asked: &[(&Condition, Asked)], facts: &Facts<'_>) -> Option<Impossible> {
    let mut all: Alternatives<'_> = vec![Vec::new()];
    for (condition, asked) in asked {
        let node = match &condition.program {
            Program::Typed(node) | Program::Numeric(node, _) => node,
            Program::Interpreted(_) => continue,
        };
        let parts = alternatives(node, *asked, &condition.reads);
        all = both(all, parts);
    }
    let mut because = Vec::new();
    for alternative in &all {
        because = conflict(alternative, facts)?;
    }
    let because = match all.len() {
        1 => because.iter().map(Part::written).collect(),
        _ => Vec::new(),
    };
    Some(Impossible { because })
}

/// One thing that is asked of one slot, or of none.
#[derive(Clone, Copy, Debug)]
struct Part<'c> {
    node: &'c Node,
    asked: Asked,
    names: &'c [(String, Slot)],
}

type Alternatives<'c> = Vec<Vec<Part<'c>>>;

/// Alternatives that leave out what can't be told.
fn alternatives<'c>(node: &'c Node, asked: Asked, names: &'c [(String, Slot)]) -> Alternatives<'c> {
    let of = |node: &'c Node, asked: Asked| alternatives(node, asked, names);
    match (node, asked) {
        (Node::Not(inner), _) => of(inner, asked.of_opposite()),
        (Node::And(left, right), Asked::True | Asked::NotFalse)
        | (Node::Or(left, right), Asked::False | Asked::NotTrue) => both(of(left, asked), of(right, asked)),
        (Node::And(left, right), Asked::False | Asked::NotTrue)
        | (Node::Or(left, right), Asked::True | Asked::NotFalse) => either(of(left, asked), of(right, asked)),
        (Node::Choose(condition, one, other), Asked::True | Asked::False) => either(
            both(of(condition, Asked::True), of(one, asked)),
            both(of(condition, Asked::False), of(other, asked)),
        ),
        _ if is_about_one_slot(node) => vec![vec![Part { node, asked, names }]],
        _ => vec![Vec::new()],
    }
}

fn both<'c>(one: Alternatives<'c>, other: Alternatives<'c>) -> Alternatives<'c> {
    if one.len() * other.len() > ALTERNATIVES_MAX {
        // Asking less is never wrong.
        return one;
    }
    let pairs = one.iter().flat_map(|left| other.iter().map(move |right| (left, right)));
    pairs
        .map(|(left, right)| left.iter().chain(right).copied().collect())
        .collect()
}

fn either<'c>(mut one: Alternatives<'c>, other: Alternatives<'c>) -> Alternatives<'c> {
    one.extend(other);
    if one.len() > ALTERNATIVES_MAX {
        return vec![Vec::new()];
    }
    one
}

/// Whether a node reads one slot at most, in a way that trying values can tell everything about.
fn is_about_one_slot(node: &Node) -> bool {
    let simple = |node: &Node| match node {
        Node::Slot(_) | Node::Null => true,
        Node::Literal(scalar) => is_exact(scalar),
        _ => false,
    };
    match node {
        Node::Compare(_, left, right) => {
            let slots = [left, right]
                .into_iter()
                .filter(|side| matches!(***side, Node::Slot(_)));
            slots.count() <= 1 && simple(left) && simple(right)
        }
        Node::InLiterals(needle, scalars) => simple(needle) && scalars.iter().all(is_exact),
        // Whether a part of an object is there can't be asked where the object isn't.
        Node::Has(Slot::Event(Field::Property(path))) => path.len() == 1,
        Node::Has(_) => true,
        node => simple(node),
    }
}

fn is_exact(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Int(number) => (*number as f64).abs() < EXACT_NUMBER_MAX,
        Scalar::Float(number) => number.abs() < EXACT_NUMBER_MAX,
        Scalar::Bool(_) | Scalar::Text(_) => true,
    }
}

/// What values are tried for: a slot, or a step with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
enum Variable {
    Step(usize),
    Slot(Slot),
    /// Of parts that read nothing.
    Nothing,
}

impl<'c> Part<'c> {
    fn variable(&self) -> Variable {
        match slot_of(self.node) {
            Some(Slot::StepDone(index) | Slot::StepAt(index)) => Variable::Step(*index),
            Some(slot) => Variable::Slot(slot.clone()),
            None => Variable::Nothing,
        }
    }

    fn literals(&self) -> Vec<&'c Scalar> {
        match self.node {
            Node::InLiterals(_, scalars) => scalars.iter().collect(),
            Node::Compare(_, left, right) => [left, right]
                .into_iter()
                .filter_map(|side| match &**side {
                    Node::Literal(scalar) => Some(scalar),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn is_given(&self, witness: &Witness) -> bool {
        self.asked.is_given_by(evaluate::is_met(self.node, witness))
    }

    /// As people would write it.
    fn written(&self) -> String {
        let text = written(self.node, self.names);
        match (self.asked, self.node) {
            (Asked::True | Asked::NotFalse, _) => text,
            (_, Node::Slot(_) | Node::Has(_)) => format!("!{text}"),
            _ => format!("!({text})"),
        }
    }
}

fn slot_of(node: &Node) -> Option<&Slot> {
    match node {
        Node::Slot(slot) | Node::Has(slot) => Some(slot),
        Node::InLiterals(needle, _) => slot_of(needle),
        Node::Compare(_, left, right) => slot_of(left).or_else(|| slot_of(right)),
        _ => None,
    }
}

fn written(node: &Node, names: &[(String, Slot)]) -> String {
    let name = |slot: &Slot| {
        let named = names.iter().find(|(_, known)| known == slot);
        named.map_or_else(String::new, |(name, _)| name.clone())
    };
    match node {
        Node::Null => "null".to_owned(),
        Node::Literal(scalar) => Value::from(scalar).to_string(),
        Node::Slot(slot) => name(slot),
        Node::Has(slot) => format!("has({})", name(slot)),
        Node::InLiterals(needle, scalars) => {
            let listed: Vec<String> = scalars.iter().map(|scalar| Value::from(scalar).to_string()).collect();
            format!("{} in [{}]", written(needle, names), listed.join(", "))
        }
        Node::Compare(comparison, left, right) => {
            let sign = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            format!("{} {sign} {}", written(left, names), written(right, names))
        }
        _ => String::new(),
    }
}

/// Values of some slots.
struct Witness {
    values: Vec<(Slot, Option<Value<'static>>)>,
}

impl<'s> Reads<'s> for Witness {
    fn value_of(&self, slot: &Slot) -> Option<Value<'s>> {
        let (_, value) = self.values.iter().find(|(known, _)| known == slot)?;
        value.clone()
    }

    fn has(&self, slot: &Slot) -> Result<bool, EvaluationError> {
        Ok(self.value_of(slot).is_some())
    }
}

/// The fewest parts of an alternative that can't be given together; nothing where they can.
fn conflict<'c>(alternative: &[Part<'c>], facts: &Facts<'_>) -> Option<Vec<Part<'c>>> {
    let mut looked_at: Vec<Variable> = Vec::new();
    for part in alternative {
        let variable = part.variable();
        if looked_at.contains(&variable) {
            continue;
        }
        let mut parts: Vec<Part<'c>> = alternative
            .iter()
            .filter(|other| other.variable() == variable)
            .copied()
            .collect();
        if !can_be(&parts, &variable, facts) {
            for index in (0..parts.len()).rev() {
                let mut fewer = parts.clone();
                fewer.remove(index);
                if !fewer.is_empty() && !can_be(&fewer, &variable, facts) {
                    parts = fewer;
                }
            }
            return Some(parts);
        }
        looked_at.push(variable);
    }
    None
}

fn can_be(parts: &[Part<'_>], variable: &Variable, facts: &Facts<'_>) -> bool {
    let literals: Vec<&Scalar> = parts.iter().flat_map(Part::literals).collect();
    let mut witnesses = witnesses(variable, &literals, facts).into_iter();
    witnesses.any(|witness| parts.iter().all(|part| part.is_given(&witness)))
}

fn witnesses(variable: &Variable, literals: &[&Scalar], facts: &Facts<'_>) -> Vec<Witness> {
    match variable {
        Variable::Nothing => vec![Witness { values: Vec::new() }],
        Variable::Slot(slot) => {
            let values = Domain::of(slot, facts).witnesses(literals).into_iter();
            values
                .map(|value| Witness {
                    values: vec![(slot.clone(), value)],
                })
                .collect()
        }
        Variable::Step(index) => {
            let known = facts.steps.get(*index).copied().flatten();
            let step = |done: bool, at: Option<Value<'static>>| Witness {
                values: vec![
                    (Slot::StepDone(*index), Some(Value::Bool(done))),
                    (Slot::StepAt(*index), at),
                ],
            };
            let mut witnesses = Vec::new();
            if known != Some(true) {
                witnesses.push(step(false, Some(Value::Null)));
            }
            if known != Some(false) {
                let times = Domain::time().witnesses(literals).into_iter();
                witnesses.extend(times.map(|at| step(true, at)));
            }
            witnesses
        }
    }
}
