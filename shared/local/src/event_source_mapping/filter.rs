//! Filter criteria: which records of a Kinesis mapping the function gets to see. Pure.
//!
//! The syntax is that of <https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax>; what
//! happens to data that is not JSON is as in <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis-filtering.html>:
//!
//! | A record's data | The pattern | What happens |
//! |---|---|---|
//! | JSON | has `data` | the pattern decides |
//! | not JSON | has `data` | the record is dropped |
//! | any | has no `data` | the pattern decides on the metadata alone |
//! | any | `data` is not a JSON object | the pattern is refused when the mapping is made |
//!
//! Several patterns are joined by "or", the members of one by "and". Text and numbers are equal when their characters are: 300,
//! 300.0 and 3.0e2 differ (the same page), but `numeric` compares by value. A list in the data matches when any of its elements
//! does. Whether a field is absent from a list of objects is judged element by element.
//!
//! A record that the Kinesis Producer Library put together of several is data that is not JSON, so a pattern with `data` drops it.
//! AWS takes such records apart first when the mapping reads an enhanced fan-out consumer; that is not done here.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Filters a mapping may have unless AWS raises the quota.
pub const PATTERNS_DEFAULT_MAX: usize = 5;
/// Filters a mapping may have at most.
pub const PATTERNS_MAX: usize = 10;
/// Length of a pattern, in bytes: <https://docs.aws.amazon.com/lambda/latest/api/API_Filter.html>.
pub const PATTERN_BYTES_MAX: usize = 4_096;
/// Objects within objects in a pattern. AWS names no limit; this one keeps matching within a small stack.
pub const PATTERN_DEPTH_MAX: usize = 100;
/// Where a pattern speaks of what the producer put.
pub const DATA_KEY: &str = "data";
/// What else a pattern may name: the members of `kinesis` in the event.
pub const METADATA_KEYS: [&str; 4] = [
    "partitionKey",
    "sequenceNumber",
    "approximateArrivalTimestamp",
    "kinesisSchemaVersion",
];
/// `numeric` compares within these bounds only:
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html#eb-filtering-numeric-matching>.
const NUMERIC_MAGNITUDE_MAX: f64 = 5.0e9;
/// Lists within lists that are looked into. Deeper ones match nothing, so that no record costs more than its size.
const NESTED_LISTS_MAX: usize = 32;
const SCHEMA_VERSION: &str = "1.0";
const OR: &str = "$or";

/// A mapping's filters: a record passes if any of them matches.
#[derive(Clone)]
pub struct FilterCriteria {
    patterns: Vec<Pattern>,
}

#[derive(Clone)]
struct Pattern {
    text: String,
    root: Fields,
    names_data: bool,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {number}: {message}")]
pub struct FilterPatternError {
    /// Which pattern, from 1.
    pub number: usize,
    /// Where in it, what is wrong, and what to do.
    pub message: String,
}

/// What a filter looks at in a record.
#[derive(Debug, Clone, Copy)]
pub struct FilterRecord<'record> {
    /// The partition key.
    pub partition_key: &'record str,
    /// The sequence number, as Kinesis writes it.
    pub sequence_number: &'record str,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub arrival_ms: i64,
    /// What the producer put, decoded from base64.
    pub data: &'record [u8],
}

/// Two criteria are equal when their patterns' texts are.
impl PartialEq for FilterCriteria {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for FilterCriteria {}

impl fmt::Debug for FilterCriteria {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.texts()).finish()
    }
}

impl FilterCriteria {
    /// Reads patterns, each a text that holds JSON.
    ///
    /// # Errors
    /// With the first thing wrong in the first bad pattern.
    pub fn parse<'text>(patterns: impl IntoIterator<Item = &'text str>) -> Result<Self, FilterPatternError> {
        let patterns = patterns
            .into_iter()
            .enumerate()
            .map(|(index, text)| {
                Pattern::parse(text).map_err(|message| FilterPatternError {
                    number: index + 1,
                    message,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// The patterns as they were written.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Names at the top of patterns other than `data`, each with the index of its pattern.
    pub fn other_keys(&self) -> impl Iterator<Item = (usize, &str)> {
        self.patterns.iter().enumerate().flat_map(|(index, pattern)| {
            let names = pattern.root.names();
            names
                .into_iter()
                .filter(|name| *name != DATA_KEY)
                .map(move |name| (index, name))
        })
    }

    /// Whether the function is to get the record.
    pub fn matches(&self, record: &FilterRecord<'_>) -> bool {
        // Most patterns name the data, so it is read once for all of them, and only when one does.
        let mut data: Option<Option<&RawValue>> = None;
        self.patterns.iter().any(|pattern| {
            let data = if pattern.names_data {
                match *data.get_or_insert_with(|| serde_json::from_slice(record.data).ok()) {
                    Some(json) => Some(json),
                    None => return false,
                }
            } else {
                None
            };
            pattern.root.match_record(record, data)
        })
    }
}

/// Members that all must match, and alternatives (`$or`) of which one must, for each time that `$or` is said.
#[derive(Debug, Clone, Default)]
struct Fields {
    members: Vec<(String, Rule)>,
    alternatives: Vec<Vec<Fields>>,
}

#[derive(Debug, Clone)]
enum Rule {
    Nested(Fields),
    /// Any of these.
    Leaf(Vec<Test>),
}

/// One comparison.
#[derive(Debug, Clone)]
enum Test {
    Equals(Scalar<String>),
    AnythingBut(Vec<Test>),
    Prefix(String),
    Suffix(String),
    /// In lower case.
    EqualsIgnoreCase(String),
    Numeric(Vec<(Comparison, f64)>),
    Exists(bool),
}

/// A JSON value that is neither list nor object. A number is its characters.
#[derive(Debug, Clone, PartialEq)]
enum Scalar<Text> {
    Null,
    Boolean(bool),
    Number(Text),
    Text(Text),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn is_lower_bound(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterOrEqual)
    }

    fn is_upper_bound(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual)
    }

    #[expect(
        clippy::float_cmp,
        reason = "both are the nearest f64 to a decimal number; AWS compares 15 digits"
    )]
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------- reading JSON

/// What a JSON value is.
enum Json<'raw> {
    Scalar(Scalar<String>),
    List(&'raw RawValue),
    Map(&'raw RawValue),
}

fn look(raw: &RawValue) -> Option<Json<'_>> {
    let text = raw.get();
    Some(match text.as_bytes().first()? {
        b'{' => Json::Map(raw),
        b'[' => Json::List(raw),
        b'"' => Json::Scalar(Scalar::Text(serde_json::from_str(text).ok()?)),
        b't' => Json::Scalar(Scalar::Boolean(true)),
        b'f' => Json::Scalar(Scalar::Boolean(false)),
        b'n' => Json::Scalar(Scalar::Null),
        _ => Json::Scalar(Scalar::Number(text.to_owned())),
    })
}

/// Calls a closure with each entry of an object; the text behind a `&RawValue` lives as long as the object's.
struct EachEntry<F>(F);

impl<'raw, F: FnMut(String, &'raw RawValue)> DeserializeSeed<'raw> for EachEntry<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'raw>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'raw, F: FnMut(String, &'raw RawValue)> Visitor<'raw> for EachEntry<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'raw>>(mut self, mut entries: A) -> Result<(), A::Error> {
        while let Some((key, value)) = entries.next_entry::<String, &'raw RawValue>()? {
            (self.0)(key, value);
        }
        Ok(())
    }
}

/// Calls a closure with the elements of a list until it returns `true`; tells whether it did.
struct AnyElement<F>(F);

impl<'raw, F: FnMut(&'raw RawValue) -> bool> DeserializeSeed<'raw> for AnyElement<F> {
    type Value = bool;

    fn deserialize<D: Deserializer<'raw>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'raw, F: FnMut(&'raw RawValue) -> bool> Visitor<'raw> for AnyElement<F> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'raw>>(mut self, mut list: A) -> Result<bool, A::Error> {
        while let Some(element) = list.next_element::<&'raw RawValue>()? {
            if (self.0)(element) {
                // The list must be read to its end all the same.
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn each_entry<'raw>(map: &'raw RawValue, take: impl FnMut(String, &'raw RawValue)) {
    // A `RawValue` holds well-formed JSON; only a key with half a surrogate pair fails, and ends the reading there.
    let _ = EachEntry(take).deserialize(&mut serde_json::Deserializer::from_str(map.get()));
}

fn any_element<'raw>(list: &'raw RawValue, matches: impl FnMut(&'raw RawValue) -> bool) -> bool {
    AnyElement(matches)
        .deserialize(&mut serde_json::Deserializer::from_str(list.get()))
        .unwrap_or_default()
}

fn elements_of(list: &RawValue) -> Vec<&RawValue> {
    serde_json::from_str(list.get()).unwrap_or_default()
}

fn entries_of(map: &RawValue) -> Vec<(String, &RawValue)> {
    let mut entries = Vec::new();
    each_entry(map, |key, value| entries.push((key, value)));
    entries
}

// ------------------------------------------------------------------------------------------------------------------- matching

impl Fields {
    /// Names of members, those of alternatives too.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.members.iter().map(|(name, _)| name.as_str()).collect();
        names.extend(self.alternatives.iter().flatten().flat_map(Fields::names));
        names
    }

    fn match_record(&self, record: &FilterRecord<'_>, data: Option<&RawValue>) -> bool {
        let member = |name: &str, rule: &Rule| match metadata(name, record) {
            Some(scalar) => rule.match_scalar(&scalar),
            None if name == DATA_KEY => rule.match_value(data, 0),
            None => rule.match_value(None, 0),
        };
        self.members.iter().all(|(name, rule)| member(name, rule))
            && self
                .alternatives
                .iter()
                .all(|alternatives| alternatives.iter().any(|fields| fields.match_record(record, data)))
    }

    fn match_map(&self, map: Option<&RawValue>, nested_lists: usize) -> bool {
        let names = self.names();
        let mut found: Vec<Option<&RawValue>> = vec![None; names.len()];
        if let Some(map) = map {
            each_entry(map, |key, value| {
                for (place, name) in found.iter_mut().zip(&names) {
                    if **name == *key {
                        *place = Some(value);
                    }
                }
            });
        }
        self.match_found(&mut found.into_iter(), nested_lists)
    }

    /// `found` holds a value for each of [`Self::names`], in that order.
    fn match_found<'raw>(&self, found: &mut impl Iterator<Item = Option<&'raw RawValue>>, nested_lists: usize) -> bool {
        // Every one is taken from `found` whatever the others say, to stay in step with the names.
        let mut all = true;
        for (_, rule) in &self.members {
            let value = found.next().flatten();
            all = all && rule.match_value(value, nested_lists);
        }
        for alternatives in &self.alternatives {
            let mut any = false;
            for fields in alternatives {
                any |= fields.match_found(found, nested_lists);
            }
            all = all && any;
        }
        all
    }
}

fn metadata(name: &str, record: &FilterRecord<'_>) -> Option<Scalar<String>> {
    Some(match name {
        "partitionKey" => Scalar::Text(record.partition_key.to_owned()),
        "sequenceNumber" => Scalar::Text(record.sequence_number.to_owned()),
        "kinesisSchemaVersion" => Scalar::Text(SCHEMA_VERSION.to_owned()),
        "approximateArrivalTimestamp" => {
            let (sign, magnitude) = (
                if record.arrival_ms < 0 { "-" } else { "" },
                record.arrival_ms.unsigned_abs(),
            );
            Scalar::Number(format!("{sign}{}.{:03}", magnitude / 1_000, magnitude % 1_000))
        }
        _ => return None,
    })
}

impl Rule {
    fn match_value(&self, value: Option<&RawValue>, nested_lists: usize) -> bool {
        match value.and_then(look) {
            None => self.match_absent(),
            Some(Json::Scalar(scalar)) => self.match_scalar(&scalar),
            Some(Json::Map(map)) => match self {
                Self::Nested(fields) => fields.match_map(Some(map), nested_lists),
                // A rule compares leaves, and there is none by this name.
                Self::Leaf(_) => self.match_absent(),
            },
            Some(Json::List(list)) => {
                if nested_lists == NESTED_LISTS_MAX {
                    return false;
                }
                // What a list holds beside that which the rule looks for is as if it were not there.
                let mut relevant = false;
                let matched = any_element(list, |element| {
                    let skipped = match (self, element.get().as_bytes().first()) {
                        (_, Some(b'[')) => false,
                        (Self::Leaf(_), first) => first == Some(&b'{'),
                        (Self::Nested(_), first) => first != Some(&b'{'),
                    };
                    relevant |= !skipped;
                    !skipped && self.match_value(Some(element), nested_lists + 1)
                });
                matched || (!relevant && self.match_absent())
            }
        }
    }

    fn match_scalar(&self, scalar: &Scalar<String>) -> bool {
        match self {
            Self::Nested(_) => self.match_absent(),
            Self::Leaf(tests) => tests.iter().any(|test| test.holds(scalar)),
        }
    }

    fn match_absent(&self) -> bool {
        match self {
            Self::Nested(fields) => fields.match_map(None, 0),
            Self::Leaf(tests) => tests.iter().any(|test| matches!(test, Test::Exists(false))),
        }
    }
}

impl Test {
    fn holds(&self, value: &Scalar<String>) -> bool {
        match (self, value) {
            (Self::Equals(expected), value) => expected == value,
            (Self::AnythingBut(tests), value) => !tests.iter().any(|test| test.holds(value)),
            (Self::Exists(expected), _) => *expected,
            (Self::Prefix(prefix), Scalar::Text(text)) => text.starts_with(prefix.as_str()),
            (Self::Suffix(suffix), Scalar::Text(text)) => text.ends_with(suffix.as_str()),
            (Self::EqualsIgnoreCase(lower), Scalar::Text(text)) => text.to_lowercase() == *lower,
            (Self::Numeric(bounds), Scalar::Number(text)) => text.parse::<f64>().is_ok_and(|number| {
                number.abs() <= NUMERIC_MAGNITUDE_MAX
                    && bounds
                        .iter()
                        .all(|(comparison, bound)| comparison.holds(number, *bound))
            }),
            _ => false,
        }
    }
}

// -------------------------------------------------------------------------------------------------------------------- parsing

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!(
                "it has {} bytes; AWS takes at most {PATTERN_BYTES_MAX}, so split it in two filters",
                text.len()
            ));
        }
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| format!("it is not JSON: {error}; write it as one JSON object in quotes"))?;
        let Some(Json::Map(map)) = look(raw) else {
            return Err("it is not an object; write it as {\"data\": {\"FIELD\": [\"VALUE\"]}}".to_owned());
        };
        let root = parse_fields(map, "", 0)?;
        root.check_data()?;
        let names_data = root.names().contains(&DATA_KEY);
        Ok(Self {
            text: text.to_owned(),
            root,
            names_data,
        })
    }
}

impl Fields {
    /// A plain string as the rule for `data` is refused for Kinesis, where it is taken for SQS.
    fn check_data(&self) -> Result<(), String> {
        for (name, rule) in &self.members {
            if name == DATA_KEY && matches!(rule, Rule::Leaf(_)) {
                return Err(format!(
                    "{DATA_KEY} is a list; for Kinesis it must be an object that names fields of the JSON that producers put"
                ));
            }
        }
        self.alternatives.iter().flatten().try_for_each(Fields::check_data)
    }
}

/// Where in the pattern, for a message.
fn at(path: &str) -> String {
    if path.is_empty() {
        "at its top".to_owned()
    } else {
        format!("at {path}")
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn parse_fields(map: &RawValue, path: &str, depth: usize) -> Result<Fields, String> {
    if depth == PATTERN_DEPTH_MAX {
        return Err(format!(
            "it has more than {PATTERN_DEPTH_MAX} objects within each other; name a field further up"
        ));
    }
    let mut fields = Fields::default();
    for (name, value) in entries_of(map) {
        let inner = join(path, &name);
        if name == OR {
            fields.alternatives.push(parse_alternatives(value, path, depth)?);
            continue;
        }
        let rule = match look(value) {
            Some(Json::Map(map)) => Rule::Nested(parse_fields(map, &inner, depth + 1)?),
            Some(Json::List(list)) => Rule::Leaf(parse_tests(list, &inner)?),
            _ => {
                return Err(format!(
                    "{} there is a bare value; put it in a list: [{}]",
                    at(&inner),
                    value.get()
                ));
            }
        };
        if fields.members.iter().any(|(known, _)| *known == name) {
            return Err(format!("{} the name is there twice; join the two lists", at(&inner)));
        }
        fields.members.push((name, rule));
    }
    if fields.members.is_empty() && fields.alternatives.is_empty() {
        return Err(format!(
            "{} there is an empty object, which AWS refuses; name a field in it, or remove it",
            at(path)
        ));
    }
    Ok(fields)
}

fn parse_alternatives(value: &RawValue, path: &str, depth: usize) -> Result<Vec<Fields>, String> {
    let refused = || {
        format!(
            "{} {OR} is not a list of two objects or more; write [{{\"FIELD\": [..]}}, {{\"OTHER\": [..]}}]",
            at(path)
        )
    };
    let Some(Json::List(list)) = look(value) else {
        return Err(refused());
    };
    let alternatives = elements_of(list);
    if alternatives.len() < 2 {
        return Err(refused());
    }
    alternatives
        .into_iter()
        .map(|alternative| match look(alternative) {
            Some(Json::Map(map)) => parse_fields(map, path, depth + 1),
            _ => Err(refused()),
        })
        .collect()
}

fn parse_tests(list: &RawValue, path: &str) -> Result<Vec<Test>, String> {
    let elements = elements_of(list);
    if elements.is_empty() {
        return Err(format!(
            "{} there is an empty list, which matches nothing; write [\"\"] for empty text, or [null]",
            at(path)
        ));
    }
    elements
        .into_iter()
        .map(|element| match look(element) {
            Some(Json::Scalar(scalar)) => Ok(Test::Equals(scalar)),
            Some(Json::Map(map)) => parse_operator(map, path),
            _ => Err(format!("{} there is a list in a list; use one list", at(path))),
        })
        .collect()
}

const OPERATORS: &str = "exists, prefix, suffix, equals-ignore-case, numeric, anything-but";

fn parse_operator(map: &RawValue, path: &str) -> Result<Test, String> {
    let entries = entries_of(map);
    let [(operator, argument)] = entries.as_slice() else {
        return Err(format!("{} an operator has one name; use one of {OPERATORS}", at(path)));
    };
    let wants = |what: &str| format!("{} {operator} takes {what}, not {}", at(path), argument.get());
    Ok(match (operator.as_str(), look(argument)) {
        ("exists", Some(Json::Scalar(Scalar::Boolean(expected)))) => Test::Exists(expected),
        ("exists", _) => return Err(wants("true or false")),
        ("prefix" | "suffix" | "equals-ignore-case", argument) => {
            return parse_text_operator(operator, argument).ok_or_else(|| wants("text"));
        }
        ("numeric", Some(Json::List(list))) => Test::Numeric(parse_numeric(list, path)?),
        ("numeric", _) => return Err(wants("a list such as [\">\", 10, \"<=\", 20]")),
        ("anything-but", Some(Json::Scalar(scalar @ (Scalar::Text(_) | Scalar::Number(_))))) => {
            Test::AnythingBut(vec![Test::Equals(scalar)])
        }
        ("anything-but", Some(Json::List(list))) => {
            let mut tests = Vec::new();
            for element in elements_of(list) {
                match look(element) {
                    Some(Json::Scalar(scalar @ (Scalar::Text(_) | Scalar::Number(_)))) => {
                        tests.push(Test::Equals(scalar))
                    }
                    _ => return Err(wants("a list of texts and numbers")),
                }
            }
            if tests.is_empty() {
                return Err(wants("a list with at least one value"));
            }
            Test::AnythingBut(tests)
        }
        ("anything-but", Some(Json::Map(inner))) => {
            let inner = entries_of(inner);
            let test = match inner.as_slice() {
                [(name, argument)] => parse_text_operator(name, look(argument)),
                _ => None,
            };
            let takes = "a value, a list, or {\"prefix\": TEXT}, {\"suffix\": TEXT} or {\"equals-ignore-case\": TEXT}";
            Test::AnythingBut(vec![test.ok_or_else(|| wants(takes))?])
        }
        ("anything-but", _) => return Err(wants("a value or a list of values")),
        (other, _) => {
            return Err(format!(
                "{} {other} is not an operator that Lambda documents for filters; use one of {OPERATORS}",
                at(path)
            ));
        }
    })
}

fn parse_text_operator(name: &str, argument: Option<Json<'_>>) -> Option<Test> {
    let Some(Json::Scalar(Scalar::Text(text))) = argument else {
        return None;
    };
    Some(match name {
        "prefix" => Test::Prefix(text),
        "suffix" => Test::Suffix(text),
        "equals-ignore-case" => Test::EqualsIgnoreCase(text.to_lowercase()),
        _ => return None,
    })
}

fn parse_numeric(list: &RawValue, path: &str) -> Result<Vec<(Comparison, f64)>, String> {
    let refused = |why: &str| {
        format!(
            "{} numeric {why}; write [\"=\", 100] or [\">\", 10, \"<=\", 20]",
            at(path)
        )
    };
    let mut bounds = Vec::new();
    for pair in elements_of(list).chunks(2) {
        let [comparison, bound] = pair else {
            return Err(refused("has an operator without a number"));
        };
        let (Some(Json::Scalar(Scalar::Text(comparison))), Some(Json::Scalar(Scalar::Number(bound)))) =
            (look(comparison), look(bound))
        else {
            return Err(refused("takes operators and numbers by turns"));
        };
        let Some(comparison) = Comparison::parse(&comparison) else {
            return Err(refused("knows =, <, <=, > and >= only"));
        };
        match bound.parse::<f64>() {
            Ok(bound) if bound.abs() <= NUMERIC_MAGNITUDE_MAX => bounds.push((comparison, bound)),
            _ => return Err(refused("compares numbers from -5e9 to 5e9 only")),
        }
    }
    match bounds.as_slice() {
        [_] => Ok(bounds),
        [(lower, from), (upper, to)] if lower.is_lower_bound() && upper.is_upper_bound() && from < to => Ok(bounds),
        [_, _] => Err(refused(
            "with two bounds gives the lower one first, and leaves room between them",
        )),
        _ => Err(refused("takes one bound or two")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FilterCriteria, FilterRecord, PATTERN_BYTES_MAX};

    fn passes(patterns: &[&str], data: &[u8]) -> bool {
        let criteria = FilterCriteria::parse(patterns.iter().copied()).unwrap();
        criteria.matches(&FilterRecord {
            partition_key: "1",
            sequence_number: "49590338271490256608559692538361571095921575989136588898",
            arrival_ms: 1_545_084_650_987,
            data,
        })
    }

    /// The operators of <https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax>, each with
    /// that table's own example.
    #[test]
    fn each_operator_of_awss_table_compares_as_it_says() {
        // (the rules under "data", data that passes, data that does not)
        let cases: [(&str, &[&str], &[&str]); 28] = [
            (
                r#"{"UserID":[null]}"#,
                &[r#"{"UserID":null}"#],
                &["{}", r#"{"UserID":""}"#, r#"{"UserID":0}"#],
            ),
            (
                r#"{"LastName":[""]}"#,
                &[r#"{"LastName":""}"#],
                &["{}", r#"{"LastName":null}"#, r#"{"LastName":" "}"#],
            ),
            (
                r#"{"Name":["Alice"]}"#,
                &[r#"{"Name":"Alice"}"#],
                &[r#"{"Name":"alice"}"#, r#"{"Name":"Alice "}"#, "{}"],
            ),
            (r#"{"Name":["Al\u0069ce"]}"#, &[r#"{"Na\u006de":"Alic\u0065"}"#], &[]),
            (
                r#"{"Name":[{"equals-ignore-case":"alice"}]}"#,
                &[r#"{"Name":"Alice"}"#, r#"{"Name":"ALICE"}"#],
                &[r#"{"Name":"Alicia"}"#, r#"{"Name":1}"#],
            ),
            (
                r#"{"Location":["New York"],"Day":["Monday"]}"#,
                &[r#"{"Location":"New York","Day":"Monday","x":1}"#],
                &[
                    r#"{"Location":"New York"}"#,
                    r#"{"Location":"New York","Day":"Tuesday"}"#,
                ],
            ),
            (
                r#"{"PaymentType":["Credit","Debit"]}"#,
                &[r#"{"PaymentType":"Credit"}"#, r#"{"PaymentType":"Debit"}"#],
                &[r#"{"PaymentType":"Cash"}"#],
            ),
            (
                r#"{"$or":[{"Location":["New York"]},{"Day":["Monday"]}]}"#,
                &[
                    r#"{"Location":"New York"}"#,
                    r#"{"Day":"Monday"}"#,
                    r#"{"Day":"Monday","Location":"Rome"}"#,
                ],
                &["{}", r#"{"Location":"Rome","Day":"Friday"}"#],
            ),
            (
                r#"{"a":[1],"$or":[{"b":[1],"c":[1]},{"d":{"e":[1]}}]}"#,
                &[r#"{"a":1,"b":1,"c":1}"#, r#"{"d":{"e":1},"a":1}"#],
                &[r#"{"a":1,"b":1}"#, r#"{"b":1,"c":1}"#, r#"{"a":1,"d":1}"#],
            ),
            (
                r#"{"Weather":[{"anything-but":["Raining"]}]}"#,
                &[
                    r#"{"Weather":"Sunny"}"#,
                    r#"{"Weather":1}"#,
                    r#"{"Weather":["Raining","Sunny"]}"#,
                ],
                &[r#"{"Weather":"Raining"}"#, "{}", r#"{"Weather":["Raining"]}"#],
            ),
            (r#"{"a":[{"anything-but":"x"}]}"#, &[r#"{"a":"y"}"#], &[r#"{"a":"x"}"#]),
            (
                r#"{"a":[{"anything-but":[1,"x"]}]}"#,
                &[r#"{"a":"1"}"#],
                &[r#"{"a":1}"#, r#"{"a":"x"}"#],
            ),
            (
                r#"{"a":[{"anything-but":{"prefix":"us-"}}]}"#,
                &[r#"{"a":"eu-1"}"#],
                &[r#"{"a":"us-1"}"#],
            ),
            (
                r#"{"a":[{"anything-but":{"suffix":".png"}}]}"#,
                &[r#"{"a":"x.txt"}"#],
                &[r#"{"a":"x.png"}"#],
            ),
            (
                r#"{"a":[{"anything-but":{"equals-ignore-case":"X"}}]}"#,
                &[r#"{"a":"y"}"#],
                &[r#"{"a":"x"}"#],
            ),
            (
                r#"{"Price":[{"numeric":["=",100]}]}"#,
                &[r#"{"Price":100}"#, r#"{"Price":1e2}"#],
                &[r#"{"Price":"100"}"#, r#"{"Price":101}"#],
            ),
            (
                r#"{"Price":[{"numeric":[">",10,"<=",20]}]}"#,
                &[r#"{"Price":10.5}"#, r#"{"Price":20}"#],
                &[r#"{"Price":10}"#, r#"{"Price":20.01}"#, "{}"],
            ),
            (
                r#"{"a":[{"numeric":["<",0]}]}"#,
                &[r#"{"a":-1}"#, r#"{"a":-5e9}"#],
                &[r#"{"a":0}"#, r#"{"a":-5.1e9}"#],
            ),
            (r#"{"a":[{"numeric":[">=",0]}]}"#, &[r#"{"a":0}"#], &[r#"{"a":-1}"#]),
            // "For numbers, Lambda also uses string representation. For example, 300, 300.0, and 3.0e2 are not considered equal."
            (
                r#"{"a":[300]}"#,
                &[r#"{"a":300}"#],
                &[r#"{"a":300.0}"#, r#"{"a":3.0e2}"#, r#"{"a":"300"}"#],
            ),
            (
                r#"{"a":[true]}"#,
                &[r#"{"a":true}"#],
                &[r#"{"a":false}"#, r#"{"a":"true"}"#],
            ),
            // "exists" is about leaves.
            (
                r#"{"ProductName":[{"exists":true}]}"#,
                &[r#"{"ProductName":"x"}"#, r#"{"ProductName":null}"#],
                &["{}", r#"{"ProductName":{"x":1}}"#, r#"{"ProductName":[]}"#],
            ),
            (
                r#"{"ProductName":[{"exists":false}]}"#,
                &["{}", r#"{"ProductName":{"x":1}}"#, r#"{"ProductName":[]}"#],
                &[r#"{"ProductName":"x"}"#, r#"{"ProductName":null}"#],
            ),
            (
                r#"{"a":{"b":[{"exists":false}]}}"#,
                &["{}", r#"{"a":1}"#, r#"{"a":[1]}"#, r#"{"a":{}}"#],
                &[r#"{"a":{"b":1}}"#],
            ),
            (
                r#"{"Region":[{"prefix":"us-"}]}"#,
                &[r#"{"Region":"us-east-1"}"#],
                &[r#"{"Region":"US-east-1"}"#, r#"{"Region":1}"#],
            ),
            (
                r#"{"File":[{"suffix":".png"}]}"#,
                &[r#"{"File":"x.png"}"#],
                &[r#"{"File":"x.PNG"}"#],
            ),
            // A list in the event: any of its elements.
            (
                r#"{"a":["x",2]}"#,
                &[r#"{"a":["y","x"]}"#, r#"{"a":[1,[2]]}"#, r#"{"a":[{"b":1},2]}"#],
                &[r#"{"a":["y"]}"#, r#"{"a":[{"a":"x"}]}"#],
            ),
            // One element must match all that is asked of it.
            (
                r#"{"a":{"b":[1],"c":[2]}}"#,
                &[r#"{"a":[{"b":0},{"c":2,"b":1}]}"#, r#"[{"a":{"b":1,"c":2}}]"#],
                &[r#"{"a":[{"b":1},{"c":2}]}"#, r#"{"a":"x"}"#, "5"],
            ),
        ];
        for (rules, passing, dropped) in cases {
            let pattern = format!("{{\"data\":{rules}}}");
            for data in passing {
                assert!(passes(&[&pattern], data.as_bytes()), "{rules} passes {data}");
            }
            for data in dropped {
                assert!(!passes(&[&pattern], data.as_bytes()), "{rules} drops {data}");
            }
        }
    }

    /// The examples and the table of <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis-filtering.html>.
    #[test]
    fn data_that_is_not_json_is_dropped_by_a_pattern_for_data_only() {
        let buy = r#"{ "data": { "order": { "type": [ "buy" ] } } }"#;
        let key = r#"{ "partitionKey": [ "1" ] }"#;
        let other_key = r#"{ "partitionKey": [ "2" ] }"#;
        let both = r#"{ "partitionKey": [ "1" ], "data": { "Location": [ "Los Angeles" ] } }"#;
        let order: &[u8] = br#"{ "record": 12345, "order": { "type": "buy", "stock": "ANYCO", "quantity": 1000 } }"#;
        // (patterns, data, whether the record passes)
        let cases: [(&[&str], &[u8], bool); 16] = [
            (&[buy], order, true),
            (&[buy], br#"{"order":{"type":"sell"}}"#, false),
            (&[buy], b"plain text", false),
            (&[buy], b"", false),
            (&[buy], b"{\"order\":{\"type\":\"buy\"}} trailing", false),
            (&[buy], b"{\"order\":{\"type\":\"buy\"},\"x\":\"\xff\"}", false),
            (&[r#"{"data":{"a":[{"exists":false}]}}"#], b"plain text", false),
            (&[key], b"plain text", true),
            (&[key], order, true),
            (&[other_key], order, false),
            (&[both], br#"{"Location":"Los Angeles"}"#, true),
            (&[both], br#"{"Location":"Rome"}"#, false),
            // Several patterns: any of them.
            (&[other_key, buy], order, true),
            (&[buy, key], b"plain text", true),
            (
                &[r#"{"sequenceNumber":[{"prefix":"49590338"}],"kinesisSchemaVersion":["1.0"]}"#],
                b"",
                true,
            ),
            (
                &[r#"{"approximateArrivalTimestamp":[{"numeric":["=",1545084650.987]}],"nothing":[{"exists":false}]}"#],
                b"",
                true,
            ),
        ];
        for (patterns, data, expected) in cases {
            assert_eq!(
                passes(patterns, data),
                expected,
                "{patterns:?} on {}",
                String::from_utf8_lossy(data)
            );
        }
    }

    #[test]
    fn a_bad_pattern_is_told_with_its_place_and_what_to_do() {
        let long = format!(r#"{{"data":{{"a":["{}"]}}}}"#, "x".repeat(PATTERN_BYTES_MAX));
        let deep = format!("{}1{}", "{\"a\":".repeat(600), "}".repeat(600));
        let cases = [
            ("{", "it is not JSON: EOF while parsing"),
            ("[]", "it is not an object"),
            ("{}", "at its top there is an empty object, which AWS refuses"),
            (&long, "AWS takes at most 4096"),
            (&deep, "it has more than 100 objects within each other"),
            (r#"{"data":["x"]}"#, "data is a list; for Kinesis it must be an object"),
            (r#"{"$or":[{"data":["x"]},{"partitionKey":["1"]}]}"#, "data is a list"),
            (r#"{"data":{"a":{}}}"#, "at data.a there is an empty object"),
            (
                r#"{"data":{"a":"x"}}"#,
                "at data.a there is a bare value; put it in a list: [\"x\"]",
            ),
            (r#"{"data":{"a":[]}}"#, "at data.a there is an empty list"),
            (r#"{"data":{"a":[["x"]]}}"#, "at data.a there is a list in a list"),
            (r#"{"data":{"a":[1],"a":[2]}}"#, "at data.a the name is there twice"),
            (
                r#"{"data":{"a":[{"begins":"x"}]}}"#,
                "at data.a begins is not an operator",
            ),
            (
                r#"{"data":{"a":[{"wildcard":"*x"}]}}"#,
                "at data.a wildcard is not an operator that Lambda documents",
            ),
            (
                r#"{"data":{"a":[{"prefix":"x","suffix":"y"}]}}"#,
                "at data.a an operator has one name",
            ),
            (r#"{"data":{"a":[{"prefix":1}]}}"#, "at data.a prefix takes text, not 1"),
            (
                r#"{"data":{"a":[{"exists":"yes"}]}}"#,
                "at data.a exists takes true or false, not \"yes\"",
            ),
            (
                r#"{"data":{"a":[{"anything-but":[]}]}}"#,
                "anything-but takes a list with at least one value",
            ),
            (
                r#"{"data":{"a":[{"anything-but":[null]}]}}"#,
                "anything-but takes a list of texts and numbers",
            ),
            (
                r#"{"data":{"a":[{"anything-but":{"numeric":1}}]}}"#,
                "anything-but takes a value, a list, or",
            ),
            (r#"{"data":{"a":[{"numeric":100}]}}"#, "numeric takes a list such as"),
            (r#"{"data":{"a":[{"numeric":[]}]}}"#, "numeric takes one bound or two"),
            (
                r#"{"data":{"a":[{"numeric":[">"]}]}}"#,
                "numeric has an operator without a number",
            ),
            (
                r#"{"data":{"a":[{"numeric":["!=",1]}]}}"#,
                "numeric knows =, <, <=, > and >= only",
            ),
            (
                r#"{"data":{"a":[{"numeric":["=","1"]}]}}"#,
                "numeric takes operators and numbers by turns",
            ),
            (r#"{"data":{"a":[{"numeric":["=",6e9]}]}}"#, "from -5e9 to 5e9"),
            (
                r#"{"data":{"a":[{"numeric":["<",20,">",10]}]}}"#,
                "gives the lower one first",
            ),
            (
                r#"{"data":{"a":[{"numeric":[">",20,"<",10]}]}}"#,
                "leaves room between them",
            ),
            (
                r#"{"$or":[{"partitionKey":["1"]}]}"#,
                "$or is not a list of two objects or more",
            ),
            (
                r#"{"$or":{"partitionKey":["1"]}}"#,
                "$or is not a list of two objects or more",
            ),
        ];
        for (pattern, part) in cases {
            let error = FilterCriteria::parse([r#"{"partitionKey":["1"]}"#, pattern]).unwrap_err();
            assert_eq!(error.number, 2);
            assert!(error.message.contains(part), "{part}\nin\n{}", error.message);
        }
    }

    /// P10: no record costs time or stack out of proportion to its size.
    #[test]
    fn a_bomb_is_read_within_bounds() {
        let nest = 100_000;
        let lists = format!("{{\"a\":{}1{}}}", "[".repeat(nest), "]".repeat(nest));
        let maps = format!("{}1{}", "{\"a\":".repeat(nest), "}".repeat(nest));
        let keys = format!(
            "{{{}\"a\":1}}",
            (0..1_000_000).map(|key| format!("\"{key}\":0,")).collect::<String>()
        );
        let elements = format!("{{\"a\":[{}1]}}", "0,".repeat(1_000_000));
        let deepest = format!("{}[1]{}", "{\"a\":".repeat(99), "}".repeat(99));
        let same = format!("{{\"data\":{deepest}}}");
        let began = Instant::now();
        assert!(passes(&[&same], deepest.as_bytes()));
        assert!(!passes(&[&same], b"{}"));
        for (data, expected) in [(lists, false), (maps, false), (keys, true), (elements, true)] {
            assert_eq!(passes(&[r#"{"data":{"a":[1]}}"#], data.as_bytes()), expected);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
