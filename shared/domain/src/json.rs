//! Looking into JSON text for one value, without building the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::value::Value;

/// The value at a path of member names in a JSON object. Nothing where the text is no object, a part of the path is
/// missing, or a part on the way is no object.
pub fn find<'a>(object: &'a str, path: &[String]) -> Option<Value<'a>> {
    let (name, rest) = path.split_first()?;
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let raw = (&mut deserializer).deserialize_map(MemberVisitor { name }).ok()??;
    if rest.is_empty() {
        Some(read(raw.get()))
    } else {
        find(raw.get(), rest)
    }
}

/// One JSON value: scalars as such, arrays and objects as their text. The text must be valid JSON.
pub fn read(text: &str) -> Value<'_> {
    match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[') | None => Value::Json(text),
        Some(_) => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            ScalarSeed.deserialize(&mut deserializer).unwrap_or(Value::Null)
        }
    }
}

/// The members of a JSON object with their values' text. Empty where the text is no object.
pub fn members(object: &str) -> Vec<(Cow<'_, str>, &str)> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    (&mut deserializer).deserialize_map(MembersVisitor).unwrap_or_default()
}

/// The elements of a JSON array, each as its text. Empty where the text is no array.
pub fn elements(array: &str) -> Vec<&str> {
    let raw: Vec<&RawValue> = serde_json::from_str(array).unwrap_or_default();
    raw.into_iter().map(RawValue::get).collect()
}

/// How deeply arrays and objects nest in a JSON text: `1` is 0, `[]` is 1.
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(within) = bytes.next() {
                    match within {
                        b'"' => break,
                        b'\\' => {
                            bytes.next();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// A JSON text, borrowed where it has no escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Whether a member's name is this one. Names are compared as bytes, since JSON's escapes can spell what is no Unicode
/// text, and one such name must not hide the other members.
struct NameIs<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for NameIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameIs<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0.as_bytes())
    }
}

/// Finds one member of an object, and skips the others. Of two with one name the last counts, as everywhere.
struct MemberVisitor<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for MemberVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(NameIs(self.name))? {
            if is_it {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A member's name as text.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }
            fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Name(String::from_utf8_lossy(name)))
            }
            fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(String::from_utf8_lossy(name).into_owned())))
            }
        }
        deserializer.deserialize_bytes(NameVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            members.push((name, map.next_value::<&'de RawValue>()?.get()));
        }
        Ok(members)
    }
}

struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a scalar")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_found_by_its_path() {
        let object = r#"{"a": {"b": {"c": 5}, "b2": null}, "t": "x\ny", "f": 1.5, "big": 18446744073709551615, "l": [1,2], "a.b": 1}"#;
        for (path, expected) in [
            ("a b c", Some(Value::Int(5))),
            ("a b2", Some(Value::Null)),
            ("t", Some(Value::Text("x\ny".into()))),
            ("f", Some(Value::Float(1.5))),
            ("big", Some(Value::Float(18446744073709551615.0))),
            ("l", Some(Value::Json("[1,2]"))),
            ("a.b", Some(Value::Int(1))),
            ("a x", None),
            ("t x", None),
            ("l 0", None),
            ("nope", None),
        ] {
            let path: Vec<String> = path.split(' ').map(str::to_owned).collect();
            assert_eq!(find(object, &path), expected, "{path:?}");
        }
        // A name that is no Unicode text hides nothing else.
        assert_eq!(find(r#"{"a": 1, "\ud800": 2}"#, &["a".to_owned()]), Some(Value::Int(1)));
        assert_eq!(members(r#"{"a": 1, "\ud800": 2}"#).len(), 2);
        assert_eq!(find(r#"{"\u0061": 1}"#, &["a".to_owned()]), Some(Value::Int(1)));
        assert_eq!(elements("[1, [2], {}]"), ["1", "[2]", "{}"]);
        assert_eq!(find("[1]", &["a".to_owned()]), None);
        assert_eq!(find("not json", &["a".to_owned()]), None);
    }

    #[test]
    fn depth_counts_only_what_nests() {
        for (text, expected) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#"{"a":"[[[["}"#, 1),
            (r#"["\"[["]"#, 1),
            ("]]][", 1),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }
}
