//! JSON text that may be null.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A JSON text or null, borrowed from its source where it has no escapes.
pub(crate) struct OptionalText<'a>(pub(crate) Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for OptionalText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OptionalTextVisitor;
        impl<'de> Visitor<'de> for OptionalTextVisitor {
            type Value = OptionalText<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(OptionalText(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OptionalText(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(OptionalText(None))
            }
        }
        deserializer.deserialize_any(OptionalTextVisitor)
    }
}
