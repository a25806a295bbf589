//! Values that events carry, profiles store and conditions compare.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A single value that a profile stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; never a NaN, since JSON has none.
    Float(f64),
    /// Text of at most [`crate::limits::STORED_TEXT_BYTES_MAX`] bytes.
    Text(String),
}

impl Scalar {
    /// An order of all scalars: true and false, whole numbers, other numbers, texts.
    pub fn order(&self, other: &Scalar) -> Ordering {
        match (self, other) {
            (Scalar::Bool(one), Scalar::Bool(other)) => one.cmp(other),
            (Scalar::Int(one), Scalar::Int(other)) => one.cmp(other),
            // Zero has two signs, which are equal.
            (Scalar::Float(one), Scalar::Float(other)) => (one + 0.0).total_cmp(&(other + 0.0)),
            (Scalar::Text(one), Scalar::Text(other)) => one.cmp(other),
            (one, other) => one.kind().cmp(&other.kind()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Scalar::Bool(_) => 0,
            Scalar::Int(_) => 1,
            Scalar::Float(_) => 2,
            Scalar::Text(_) => 3,
        }
    }

    /// Whether a value is this one, without storing it.
    pub fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Scalar::Bool(one), Value::Bool(other)) => one == other,
            (Scalar::Int(one), Value::Int(other)) => one == other,
            (Scalar::Float(one), Value::Float(other)) => one == other,
            (Scalar::Text(one), Value::Text(other)) => *one == *other,
            _ => false,
        }
    }
}

/// A value as a condition sees it, borrowed where it can be.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'v> {
    /// Known to have no value: a JSON null, or a feature that no event has set yet.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Cow<'v, str>),
    /// Several values, such as a recent list.
    List(Vec<Value<'v>>),
    /// A JSON array or object, as its own text. Only the CEL interpreter looks inside.
    Json(&'v str),
}

impl Value<'_> {
    /// Whether a profile can keep it.
    pub fn is_storable(&self) -> bool {
        match self {
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => true,
            Value::Text(text) => text.len() <= crate::limits::STORED_TEXT_BYTES_MAX,
            Value::Null | Value::List(_) | Value::Json(_) => false,
        }
    }

    /// The value to store, where it is one that a profile can keep.
    pub fn to_scalar(&self) -> Option<Scalar> {
        Some(match self {
            Value::Bool(value) => Scalar::Bool(*value),
            Value::Int(value) => Scalar::Int(*value),
            Value::Float(value) => Scalar::Float(*value),
            Value::Text(text) if text.len() <= crate::limits::STORED_TEXT_BYTES_MAX => Scalar::Text(text.to_string()),
            _ => return None,
        })
    }
}

impl Value<'_> {
    /// The same value, owned; of JSON text nothing, since no feature gives any.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null | Value::Json(_) => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
        }
    }
}

impl<'v> From<&'v Scalar> for Value<'v> {
    fn from(scalar: &'v Scalar) -> Value<'v> {
        match scalar {
            Scalar::Bool(value) => Value::Bool(*value),
            Scalar::Int(value) => Value::Int(*value),
            Scalar::Float(value) => Value::Float(*value),
            Scalar::Text(text) => Value::Text(Cow::Borrowed(text)),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// As JSON.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => formatter.write_str("null"),
            Value::Bool(value) => write!(formatter, "{value}"),
            Value::Int(value) => write!(formatter, "{value}"),
            Value::Float(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => write!(formatter, "{number}"),
                None => formatter.write_str("null"),
            },
            Value::Text(text) => write!(formatter, "{}", serde_json::Value::from(text.as_ref())),
            Value::List(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(formatter, "{comma}{value}")?;
                }
                formatter.write_str("]")
            }
            Value::Json(text) => formatter.write_str(text),
        }
    }
}
