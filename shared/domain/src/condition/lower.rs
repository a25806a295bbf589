//! From CEL text to a checked, typed program.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::patterns::Patterns;
use super::{ConditionError, Names, Slot, TrendOf, interpret};
use crate::event::Field;
use crate::journey::did_you_mean;
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_DEPTH_MAX, IDENTIFIER_BYTES_MAX, TRAITS_MAX};
use crate::value::Scalar;

/// The names that every condition knows.
const ROOTS: [&str; 8] = [
    "event", "features", "steps", "traits", "session", "arms", "time", "trends",
];
const SESSION_MEMBERS: [(&str, Slot); 3] = [
    ("count", Slot::SessionCount),
    ("events", Slot::SessionEvents),
    ("duration_ms", Slot::SessionDuration),
];
const TIME_MEMBERS: [(&str, Slot); 2] = [("hour", Slot::Hour), ("weekday", Slot::Weekday)];
/// How a trend is read.
const TREND_READ: &str = "a trend is read as trends.NAME[KEY], where KEY is a text, or a part of the event, a trait or a feature that is one";

/// The functions that the interpreter has; macros such as `exists` are gone when a condition is checked.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// The function whose second argument is a pattern.
pub(super) const MATCHES: &str = "matches";

/// By how many bytes the length of a name may be off to be taken for another, rather than for one of the event's own.
const SLIP_BYTES_MAX: usize = 3;

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An operator of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// The typed program.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Operate(Operator, Box<Node>, Box<Node>),
    Negate(Box<Node>),
    /// `double(…)`
    ToFloat(Box<Node>),
    /// `… ? … : …`
    Choose(Box<Node>, Box<Node>, Box<Node>),
    /// `features.NAME[3]`
    Element(Slot, usize),
    Null,
    Literal(Scalar),
    Slot(Slot),
    Has(Slot),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    InLiterals(Box<Node>, Vec<Scalar>),
    InSlot(Box<Node>, Slot),
}

impl Node {
    /// Whether it has a part that the typed form knows for some kinds of values only.
    pub(super) fn has_operators(&self) -> bool {
        match self {
            Node::Operate(..) | Node::Negate(_) | Node::ToFloat(_) | Node::Element(..) => true,
            Node::Null | Node::Literal(_) | Node::Slot(_) | Node::Has(_) => false,
            Node::Not(inner) | Node::InLiterals(inner, _) | Node::InSlot(inner, _) => inner.has_operators(),
            Node::And(left, right) | Node::Or(left, right) | Node::Compare(_, left, right) => {
                left.has_operators() || right.has_operators()
            }
            Node::Choose(condition, one, other) => {
                condition.has_operators() || one.has_operators() || other.has_operators()
            }
        }
    }
}

/// What compiling gives.
pub(super) struct Compiled {
    /// The typed program, where every part can be typed.
    pub typed: Option<Node>,
    /// The program for the interpreter.
    pub interpreted: interpret::Program,
    /// What it reads, each as often as it is written.
    pub reads: Vec<Slot>,
    /// What it reads, each once, in the order of reading, as it is written.
    pub reads_once: Vec<(String, Slot)>,
    /// The event types without which it can't be met.
    pub event_types: Option<Vec<String>>,
}

/// Parses, checks and lowers a condition.
pub(super) fn compile(source: &str, names: &mut Names) -> Result<Compiled, Vec<ConditionError>> {
    let one = |message: String| {
        vec![ConditionError {
            message,
            suggestion: None,
        }]
    };
    if source.len() > CONDITION_BYTES_MAX {
        return Err(one(format!(
            "the condition has {} bytes, at most {CONDITION_BYTES_MAX} are allowed",
            source.len()
        )));
    }
    // The parser recurses, so what nests too deeply must not reach it.
    if nesting(source) > CONDITION_DEPTH_MAX {
        return Err(one(format!("the condition nests deeper than {CONDITION_DEPTH_MAX}")));
    }
    let program = cel::Program::compile(source).map_err(|errors| {
        let messages = errors.errors.iter().map(|error| error.msg.clone());
        messages
            .map(|message| ConditionError {
                message,
                suggestion: None,
            })
            .collect::<Vec<_>>()
    })?;
    let mut checker = Checker {
        names,
        reads: Vec::new(),
        reads_once: Vec::new(),
        errors: Vec::new(),
        variables: Vec::new(),
        patterns: Patterns::default(),
        has_macro: false,
    };
    checker.check(program.expression());
    let Checker {
        reads,
        reads_once,
        errors,
        patterns,
        has_macro,
        ..
    } = checker;
    if !errors.is_empty() {
        return Err(errors);
    }
    let typed = lower(program.expression(), names);
    let event_types = event_types(program.expression());
    Ok(Compiled {
        typed,
        interpreted: interpret::Program::new(program, patterns, has_macro, &reads),
        reads,
        reads_once,
        event_types,
    })
}

/// An upper bound of how deeply a condition's parts nest: its brackets, and within each of them the operators in a row.
/// The parser makes a balanced tree of `&&` and `||`, so a row ends there.
fn nesting(source: &str) -> usize {
    // Operators within a text don't count, where it is certain what is within one.
    let plain_texts = !["\\", "\"\"\"", "'''", "//"].iter().any(|odd| source.contains(odd));
    let (mut rows, mut depth, mut deepest) = (vec![0usize], 0usize, 0usize);
    let mut bytes = source.bytes();
    let mut before = b' ';
    while let Some(byte) = bytes.next() {
        let last = rows.len() - 1;
        match byte {
            b'(' | b'[' | b'{' => {
                rows[last] += 1;
                rows.push(0);
                depth += 1;
            }
            b')' | b']' | b'}' if last > 0 => depth -= rows.pop().unwrap_or_default(),
            b'&' | b'|' | b',' => depth -= std::mem::take(&mut rows[last]),
            b'=' if matches!(before, b'=' | b'!' | b'<' | b'>') => {}
            b'?' | b'!' | b'-' | b'+' | b'*' | b'/' | b'%' | b'=' | b'<' | b'>' | b'.' => {
                rows[last] += 1;
                depth += 1;
            }
            b'"' | b'\'' if plain_texts => while bytes.next().is_some_and(|within| within != byte) {},
            _ => {}
        }
        deepest = deepest.max(depth);
        before = byte;
    }
    deepest
}

/// The members that an expression such as `event.properties.plan` or `features["clicks"]` walks, root first.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) if !select.test => {
            let mut names = path(&select.operand.expr)?;
            names.push(&select.field);
            Some(names)
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            let Expr::Literal(LiteralValue::String(name)) = &call.args[1].expr else {
                return None;
            };
            let mut names = path(&call.args[0].expr)?;
            names.push(name.inner());
            Some(names)
        }
        _ => None,
    }
}

/// The slot that a path names. Nothing for a path that is right but is no slot, such as `event.location`.
fn resolve(path: &[&str], names: &mut Names) -> Result<Option<Slot>, ConditionError> {
    let unknown = |what: &str, name: &str, known: &mut dyn Iterator<Item = &str>| ConditionError {
        message: format!("there is no {what} `{name}`"),
        suggestion: did_you_mean(name, known),
    };
    let of_no_part = |whole: &str| ConditionError {
        message: format!("`{whole}` has no parts"),
        suggestion: None,
    };
    match path {
        ["event"] => Ok(Some(Slot::AllOfEvent)),
        ["event", "location" | "properties"] => Ok(Some(Slot::PartOfEvent)),
        ["features"] => Ok(Some(Slot::AllFeatures)),
        ["steps"] => Ok(Some(Slot::AllSteps)),
        ["traits" | "session" | "arms" | "time"] => Ok(None),
        ["trends"] => Err(ConditionError {
            message: TREND_READ.to_owned(),
            suggestion: None,
        }),
        ["event", rest @ ..] => {
            let named = rest.join(".");
            if rest[0] == "properties" {
                let names = rest[1..].iter().map(|name| (*name).to_owned()).collect();
                return Ok(Some(Slot::Event(Field::Property(names))));
            }
            match Field::parse(&named) {
                Some(field) => Ok(Some(Slot::Event(field))),
                None => {
                    let mut error = unknown("event member", &named, &mut Field::NAMED.iter().map(|(name, _)| *name));
                    // What is much shorter or longer is more likely a property than a slip of the pen.
                    let alike = |name: &String| name.len().abs_diff(named.len()) <= SLIP_BYTES_MAX;
                    if rest.len() == 1 && !error.suggestion.as_ref().is_some_and(alike) {
                        error.suggestion = Some(format!("event.properties.{named}"));
                    }
                    Err(error)
                }
            }
        }
        ["features", name] => match names.features.iter().position(|feature| feature == name) {
            Some(index) => Ok(Some(Slot::Feature(index))),
            None => Err(unknown("feature", name, &mut names.features.iter().map(String::as_str))),
        },
        ["steps", name] => match names.steps.iter().position(|step| step == name) {
            Some(_) => Ok(Some(Slot::AllSteps)),
            None => Err(unknown("step", name, &mut names.steps.iter().map(String::as_str))),
        },
        ["steps", name, member] => {
            let Some(index) = names.steps.iter().position(|step| step == name) else {
                return Err(unknown("step", name, &mut names.steps.iter().map(String::as_str)));
            };
            match *member {
                "done" => Ok(Some(Slot::StepDone(index))),
                "at" | "done_at" => Ok(Some(Slot::StepAt(index))),
                other => Err(unknown(
                    "step member",
                    other,
                    &mut ["done", "done_at", "at"].into_iter(),
                )),
            }
        }
        ["traits", name] => {
            if let Some(index) = names.traits.iter().position(|known| known == name) {
                return Ok(Some(Slot::Trait(index)));
            }
            if names.traits.len() >= TRAITS_MAX || name.len() > IDENTIFIER_BYTES_MAX {
                return Err(ConditionError {
                    message: format!(
                        "a journey reads at most {TRAITS_MAX} traits of at most {IDENTIFIER_BYTES_MAX} bytes"
                    ),
                    suggestion: None,
                });
            }
            names.traits.push((*name).to_owned());
            Ok(Some(Slot::Trait(names.traits.len() - 1)))
        }
        ["session", member] => match SESSION_MEMBERS.iter().find(|(name, _)| name == member) {
            Some((_, slot)) => Ok(Some(slot.clone())),
            None => Err(unknown(
                "session member",
                member,
                &mut SESSION_MEMBERS.iter().map(|(name, _)| *name),
            )),
        },
        ["arms", name] => match names.experiments.iter().position(|(id, _)| id == name) {
            Some(index) => Ok(Some(Slot::Arm(index))),
            None => Err(unknown(
                "experiment",
                name,
                &mut names.experiments.iter().map(|(id, _)| id.as_str()),
            )),
        },
        ["time", member] => match TIME_MEMBERS.iter().find(|(name, _)| name == member) {
            Some((_, slot)) => Ok(Some(slot.clone())),
            None => Err(unknown(
                "time member",
                member,
                &mut TIME_MEMBERS.iter().map(|(name, _)| *name),
            )),
        },
        ["trends", name, rest @ ..] => {
            let Some(index) = names.trends.iter().position(|trend| trend == name) else {
                return Err(unknown("trend", name, &mut names.trends.iter().map(String::as_str)));
            };
            match rest {
                [key] => Ok(Some(Slot::Trend(index, TrendOf::Named((*key).to_owned())))),
                [] => Err(ConditionError {
                    message: TREND_READ.to_owned(),
                    suggestion: Some(format!("trends.{name}[event.content_id]")),
                }),
                _ => Err(of_no_part(&path[..path.len() - 1].join("."))),
            }
        }
        ["features" | "traits" | "session" | "steps" | "arms" | "time", ..] => {
            Err(of_no_part(&path[..path.len() - 1].join(".")))
        }
        [root, ..] => Err(unknown("name", root, &mut ROOTS.into_iter())),
        [] => Ok(None),
    }
}

/// The trend and the key of `trends.NAME[KEY]` where the key is not written out.
fn trend_of(expr: &Expr) -> Option<(&str, &IdedExpr)> {
    let Expr::Call(call) = expr else { return None };
    let [trend, key] = call.args.as_slice() else {
        return None;
    };
    match path(&trend.expr)?.as_slice() {
        ["trends", name] if call.func_name == operators::INDEX => Some((name, key)),
        _ => None,
    }
}

/// The slot of a trend of whatever a key reads.
fn trend_slot(name: &str, key: &IdedExpr, names: &mut Names) -> Result<(Slot, String), ConditionError> {
    // A key that nothing has tells whether there is such a trend.
    let known = resolve(&["trends", name, ""], names)?;
    let read = match path(&key.expr) {
        Some(path) => resolve(&path, names)?.map(|slot| (slot, path.join("."))),
        None => None,
    };
    match (known, read) {
        (Some(Slot::Trend(index, _)), Some((slot, key))) if slot.is_single() && !matches!(slot, Slot::Trend(..)) => {
            let slot = Slot::Trend(index, TrendOf::Read(Box::new(slot)));
            Ok((slot, format!("trends.{name}[{key}]")))
        }
        _ => Err(ConditionError {
            message: TREND_READ.to_owned(),
            suggestion: None,
        }),
    }
}

/// Walks every part of an expression: collects what it reads and what is wrong.
struct Checker<'n> {
    names: &'n mut Names,
    reads: Vec<Slot>,
    reads_once: Vec<(String, Slot)>,
    errors: Vec<ConditionError>,
    /// The variables of the macros that the walk is in.
    variables: Vec<String>,
    /// The patterns of `matches`, compiled.
    patterns: Patterns,
    has_macro: bool,
}

impl Checker<'_> {
    fn check(&mut self, expr: &IdedExpr) {
        if let Some(path) = path(&expr.expr) {
            self.check_path(&path);
            return;
        }
        if let Some((name, key)) = trend_of(&expr.expr)
            && !self.is_variable("trends")
        {
            self.check_trend(name, key);
            return;
        }
        match &expr.expr {
            Expr::Select(select) => match path(&select.operand.expr) {
                // has(a.b): the whole path is what is asked for.
                Some(mut names) if select.test => {
                    names.push(&select.field);
                    self.check_path(&names);
                }
                _ => self.check(&select.operand),
            },
            Expr::Call(call) => {
                self.check_function(&call.func_name);
                self.check_type_literals(call);
                self.check_arm_literals(call);
                self.check_pattern(call);
                call.target.iter().for_each(|target| self.check(target));
                call.args.iter().for_each(|arg| self.check(arg));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.check(element)),
            Expr::Comprehension(comprehension) => {
                self.has_macro = true;
                self.check(&comprehension.iter_range);
                let depth = self.variables.len();
                if depth > 0 {
                    // Its time would grow with the square of a list that an event brings (P10).
                    self.errors.push(ConditionError {
                        message: "a macro such as `exists` or `all` can't stand within another".to_owned(),
                        suggestion: None,
                    });
                }
                self.variables.push(comprehension.iter_var.clone());
                self.variables.extend(comprehension.iter_var2.clone());
                self.variables.push(comprehension.accu_var.clone());
                self.check(&comprehension.accu_init);
                self.check(&comprehension.loop_cond);
                self.check(&comprehension.loop_step);
                self.check(&comprehension.result);
                self.variables.truncate(depth);
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        self.check(&entry.key);
                        self.check(&entry.value);
                    }
                }
            }
            Expr::Struct(message) => self.errors.push(ConditionError {
                message: format!("a condition can't make a `{}`", message.type_name),
                suggestion: None,
            }),
            Expr::Literal(_) | Expr::Ident(_) | Expr::Unspecified => {}
        }
    }

    fn check_path(&mut self, path: &[&str]) {
        if self.is_variable(path[0]) {
            return;
        }
        match resolve(path, self.names) {
            Ok(Some(slot)) => self.note(path.join("."), slot),
            Ok(None) => {}
            Err(error) => self.errors.push(error),
        }
    }

    fn check_trend(&mut self, name: &str, key: &IdedExpr) {
        // What a macro walks over is known to nobody before it runs.
        let root = path(&key.expr).and_then(|path| path.first().map(|root| self.is_variable(root)));
        if root == Some(true) {
            self.errors.push(ConditionError {
                message: TREND_READ.to_owned(),
                suggestion: None,
            });
            return;
        }
        match trend_slot(name, key, self.names) {
            Ok((slot, written)) => {
                self.check(key);
                self.note(written, slot);
            }
            Err(error) => self.errors.push(error),
        }
    }

    fn is_variable(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable == name)
    }

    fn note(&mut self, written: String, slot: Slot) {
        if !self.reads_once.iter().any(|(_, read)| *read == slot) {
            self.reads_once.push((written, slot.clone()));
        }
        self.reads.push(slot);
    }

    fn check_function(&mut self, name: &str) {
        // Operators have names too, but no letters at their front.
        if name.starts_with(|first: char| first.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
            self.errors.push(ConditionError {
                message: format!("there is no function `{name}`"),
                suggestion: did_you_mean(name, &mut FUNCTIONS.into_iter()),
            });
        }
    }

    /// A pattern takes far longer to compile than to match, so an event must not be able to have it done again and again
    /// (P10).
    fn check_pattern(&mut self, call: &CallExpr) {
        if call.func_name != MATCHES {
            return;
        }
        let compiled = match call.args.last().and_then(text) {
            Some(pattern) => self.patterns.compile(pattern),
            None => Err("the pattern of `matches` must be written out, as a text".to_owned()),
        };
        if let Err(message) = compiled {
            self.errors.push(ConditionError {
                message,
                suggestion: None,
            });
        }
    }

    /// A comparison with what is no arm of its experiment can't be true, or can't be false.
    fn check_arm_literals(&mut self, call: &CallExpr) {
        let Some((name, literals)) = arm_literals(call) else {
            return;
        };
        let Some((_, arms)) = self.names.experiments.iter().find(|(id, _)| *id == name) else {
            return;
        };
        for literal in literals {
            if !arms.iter().any(|arm| arm == literal) {
                self.errors.push(ConditionError {
                    message: format!("the experiment `{name}` has no arm `{literal}`"),
                    suggestion: did_you_mean(literal, &mut arms.iter().map(String::as_str)),
                });
            }
        }
    }

    /// Event types are kept in lower case, so a comparison with anything else can't be true.
    fn check_type_literals(&mut self, call: &CallExpr) {
        for literal in type_literals(call).unwrap_or_default() {
            let lower = literal.trim().to_lowercase();
            if lower != literal {
                self.errors.push(ConditionError {
                    message: format!("event types are kept in lower case, so none is ever `{literal}`"),
                    suggestion: Some(lower),
                });
            }
        }
    }
}

/// The experiment whose arm an expression reads, and the texts that it is compared with.
fn arm_literals(call: &CallExpr) -> Option<(String, Vec<&str>)> {
    let [left, right] = call.args.as_slice() else {
        return None;
    };
    let experiment = |expr: &IdedExpr| match path(&expr.expr)?.as_slice() {
        ["arms", name] => Some((*name).to_owned()),
        _ => None,
    };
    match call.func_name.as_str() {
        operators::EQUALS | operators::NOT_EQUALS => match (experiment(left), experiment(right)) {
            (Some(name), None) => Some((name, vec![text(right)?])),
            (None, Some(name)) => Some((name, vec![text(left)?])),
            _ => None,
        },
        operators::IN => {
            let Expr::List(list) = &right.expr else { return None };
            Some((experiment(left)?, list.elements.iter().filter_map(text).collect()))
        }
        _ => None,
    }
}

fn text(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn is_event_type(expr: &IdedExpr) -> bool {
    path(&expr.expr).is_some_and(|path| path == ["event", "type"])
}

/// The types in `event.type == "x"` or `event.type in ["x", "y"]`.
fn type_literals(call: &CallExpr) -> Option<Vec<String>> {
    let [left, right] = call.args.as_slice() else {
        return None;
    };
    match call.func_name.as_str() {
        operators::EQUALS if is_event_type(left) => Some(vec![text(right)?.to_owned()]),
        operators::EQUALS if is_event_type(right) => Some(vec![text(left)?.to_owned()]),
        operators::IN if is_event_type(left) => {
            let Expr::List(list) = &right.expr else { return None };
            list.elements
                .iter()
                .map(|element| text(element).map(str::to_owned))
                .collect()
        }
        _ => None,
    }
}

/// The event types without which an expression can't be true; nothing where it may be true on any.
fn event_types(expr: &IdedExpr) -> Option<Vec<String>> {
    let Expr::Call(call) = &expr.expr else { return None };
    if let Some(types) = type_literals(call) {
        return Some(types);
    }
    let [left, right] = call.args.as_slice() else {
        return None;
    };
    match call.func_name.as_str() {
        operators::LOGICAL_AND => match (event_types(left), event_types(right)) {
            (Some(left), Some(right)) => Some(left.into_iter().filter(|name| right.contains(name)).collect()),
            (one, other) => one.or(other),
        },
        operators::LOGICAL_OR => {
            let mut types = event_types(left)?;
            types.extend(event_types(right)?);
            Some(types)
        }
        _ => None,
    }
}

fn literal(value: &LiteralValue) -> Option<Scalar> {
    Some(match value {
        LiteralValue::Boolean(value) => Scalar::Bool(*value.inner()),
        LiteralValue::Int(value) => Scalar::Int(*value.inner()),
        LiteralValue::Double(value) => Scalar::Float(*value.inner()),
        LiteralValue::String(value) => Scalar::Text(value.inner().to_owned()),
        LiteralValue::UInt(_) | LiteralValue::Bytes(_) | LiteralValue::Null => return None,
    })
}

/// The typed form of an expression that the checker passed; nothing where only the interpreter knows it.
fn lower(expr: &IdedExpr, names: &mut Names) -> Option<Node> {
    if let Some(path) = path(&expr.expr) {
        return Some(Node::Slot(single(&path, names)?));
    }
    if let Some((name, key)) = trend_of(&expr.expr) {
        return Some(Node::Slot(trend_slot(name, key, names).ok()?.0));
    }
    match &expr.expr {
        Expr::Literal(LiteralValue::Null) => Some(Node::Null),
        Expr::Literal(value) => Some(Node::Literal(literal(value)?)),
        Expr::Select(select) if select.test => {
            let mut asked = path(&select.operand.expr)?;
            asked.push(&select.field);
            Some(Node::Has(single(&asked, names)?))
        }
        Expr::Call(call) if call.target.is_none() => lower_call(call, names),
        _ => None,
    }
}

/// The slot of one value that a path names.
fn single(path: &[&str], names: &mut Names) -> Option<Slot> {
    resolve(path, names).ok()?.filter(Slot::is_single)
}

fn lower_call(call: &CallExpr, names: &mut Names) -> Option<Node> {
    let mut boxed = |expr: &IdedExpr| lower(expr, names).map(Box::new);
    if let [argument] = call.args.as_slice() {
        return match call.func_name.as_str() {
            operators::LOGICAL_NOT => Some(Node::Not(boxed(argument)?)),
            operators::NEGATE => Some(Node::Negate(boxed(argument)?)),
            "double" => Some(Node::ToFloat(boxed(argument)?)),
            _ => None,
        };
    }
    if let [condition, one, other] = call.args.as_slice() {
        return match call.func_name.as_str() {
            operators::CONDITIONAL => Some(Node::Choose(boxed(condition)?, boxed(one)?, boxed(other)?)),
            _ => None,
        };
    }
    let [left, right] = call.args.as_slice() else {
        return None;
    };
    if call.func_name == operators::IN {
        let needle = Box::new(lower(left, names)?);
        return match &right.expr {
            Expr::List(list) if list.optional_indices.is_empty() => {
                let scalars = list.elements.iter().map(|element| match &element.expr {
                    Expr::Literal(value) => literal(value),
                    _ => None,
                });
                Some(Node::InLiterals(needle, scalars.collect::<Option<_>>()?))
            }
            _ => match lower(right, names)? {
                Node::Slot(slot @ Slot::Feature(_)) => Some(Node::InSlot(needle, slot)),
                _ => None,
            },
        };
    }
    if call.func_name == operators::INDEX {
        return match (lower(left, names)?, &right.expr) {
            (Node::Slot(slot @ Slot::Feature(_)), Expr::Literal(LiteralValue::Int(index))) => {
                Some(Node::Element(slot, usize::try_from(*index.inner()).ok()?))
            }
            _ => None,
        };
    }
    let operator = match call.func_name.as_str() {
        operators::ADD => Some(Operator::Add),
        operators::SUBSTRACT => Some(Operator::Subtract),
        operators::MULTIPLY => Some(Operator::Multiply),
        operators::DIVIDE => Some(Operator::Divide),
        operators::MODULO => Some(Operator::Remainder),
        _ => None,
    };
    if let Some(operator) = operator {
        let (left, right) = (lower(left, names)?, lower(right, names)?);
        return Some(Node::Operate(operator, Box::new(left), Box::new(right)));
    }
    let comparison = match call.func_name.as_str() {
        operators::EQUALS => Some(Comparison::Equal),
        operators::NOT_EQUALS => Some(Comparison::NotEqual),
        operators::LESS => Some(Comparison::Less),
        operators::LESS_EQUALS => Some(Comparison::LessOrEqual),
        operators::GREATER => Some(Comparison::Greater),
        operators::GREATER_EQUALS => Some(Comparison::GreaterOrEqual),
        _ => None,
    };
    let (left, right) = (Box::new(lower(left, names)?), Box::new(lower(right, names)?));
    match (comparison, call.func_name.as_str()) {
        (Some(comparison), _) => Some(Node::Compare(comparison, left, right)),
        (None, operators::LOGICAL_AND) => Some(Node::And(left, right)),
        (None, operators::LOGICAL_OR) => Some(Node::Or(left, right)),
        (None, _) => None,
    }
}
