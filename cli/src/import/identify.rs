//! From a row to the `identify` event that says the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use usher_domain::event::ANONYMOUS_PREFIX;
use usher_domain::hash::hash_bytes;
use usher_domain::limits::{CLOCK_AHEAD_MS_MAX, IDENTIFIER_BYTES_MAX, STORED_TEXT_BYTES_MAX};
use usher_domain::time::Timestamp;

/// Bytes of a value that are told when it is wrong.
const TOLD_BYTES_MAX: usize = 60;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'r> {
    /// It says nothing.
    Empty,
    /// Text of a table, which may look like something else.
    Text(Cow<'r, str>),
    /// A JSON value that says what it is.
    Json(serde_json::Value),
}

/// What a row says.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'r> {
    pub user_id: Cell<'r>,
    pub anonymous_id: Cell<'r>,
    /// As of when; none where all rows are of one time.
    pub at: Option<Cell<'r>>,
    pub traits: Vec<(Cow<'r, str>, Cell<'r>)>,
}

/// How rows are understood.
#[derive(Clone, Debug)]
pub struct Reading {
    /// As of when rows are that don't say.
    pub at: Option<Timestamp>,
    /// Traits that stay text.
    pub text: Vec<String>,
    /// Now, by the wall clock.
    pub now: Timestamp,
}

/// What a row came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Understood {
    /// An event, as it is sent, with its end of line.
    Event {
        json: String,
        /// Names of the traits in it.
        traits: Vec<String>,
        /// Names of the traits that a profile can't store, and why.
        left_out: Vec<(String, &'static str)>,
    },
    /// It says nothing of any trait.
    Silent,
}

#[derive(Serialize)]
struct Identify<'r> {
    event_id: String,
    event_type: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous_id: Option<&'r str>,
    traits: &'r RawValue,
}

impl Reading {
    /// The event for a row.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn understand(&self, row: &Row<'_>) -> Result<Understood, String> {
        let user_id = identifier(&row.user_id, "the user's id")?;
        let anonymous_id = identifier(&row.anonymous_id, "the anonymous id")?;
        // profile-writer would reject the event.
        if let Some(id) = user_id.as_deref().filter(|id| id.starts_with(ANONYMOUS_PREFIX)) {
            return Err(format!(
                "the user's id `{}` starts with `{ANONYMOUS_PREFIX}`, which is reserved for anonymous users: give what follows it as the anonymous_id",
                shortened(id)
            ));
        }
        if user_id.is_none() && anonymous_id.is_none() {
            return Err("it names no user".to_owned());
        }
        let at = match (&row.at, self.at) {
            (Some(cell), _) => self.time(cell)?,
            (None, Some(at)) => at,
            (None, None) => return Err("it has no time".to_owned()),
        };
        // Sorted, so that the same values make the same event in whatever order the columns are.
        let mut traits: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
        let mut left_out = Vec::new();
        for (name, cell) in &row.traits {
            let value = match cell {
                Cell::Empty => continue,
                Cell::Text(text) if self.text.iter().any(|column| column == name) => text.to_string().into(),
                Cell::Text(text) => typed(text),
                Cell::Json(value) if self.text.iter().any(|column| column == name) => match value {
                    serde_json::Value::Bool(_) | serde_json::Value::Number(_) => value.to_string().into(),
                    _ => value.clone(),
                },
                Cell::Json(value) => value.clone(),
            };
            match &value {
                serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                    left_out.push((name.to_string(), "lists and objects are no traits"));
                }
                serde_json::Value::String(text) if text.len() > STORED_TEXT_BYTES_MAX => {
                    left_out.push((name.to_string(), "a profile stores no text of over 256 bytes"));
                }
                _ => {
                    traits.insert(name, value);
                }
            }
        }
        if traits.is_empty() && left_out.is_empty() {
            return Ok(Understood::Silent);
        }
        if traits.is_empty() {
            let (name, why) = &left_out[0];
            return Err(format!("nothing in it can be stored: {name}: {why}"));
        }
        // Maps of text and scalars always serialise.
        let traits_json = serde_json::to_string(&traits).map_err(|error| error.to_string())?;
        let raw = RawValue::from_string(traits_json).map_err(|error| error.to_string())?;
        let event = Identify {
            event_id: event_id(user_id.as_deref(), anonymous_id.as_deref(), at, raw.get()),
            event_type: "identify",
            timestamp: at.to_string(),
            user_id: user_id.as_deref(),
            anonymous_id: anonymous_id.as_deref(),
            traits: &raw,
        };
        let mut json = serde_json::to_string(&event).map_err(|error| error.to_string())?;
        json.push('\n');
        Ok(Understood::Event {
            json,
            traits: traits.into_keys().map(str::to_owned).collect(),
            left_out,
        })
    }

    fn time(&self, cell: &Cell<'_>) -> Result<Timestamp, String> {
        let text = match cell {
            Cell::Text(text) => text.trim(),
            Cell::Json(serde_json::Value::String(text)) => text.trim(),
            Cell::Empty => return Err("it has no time".to_owned()),
            Cell::Json(other) => return Err(format!("the time `{}` is no text", shortened(&other.to_string()))),
        };
        let at: Timestamp = text.parse().map_err(|_| {
            format!(
                "the time `{}` is not one with an offset, such as 2026-01-05T10:00:00Z",
                shortened(text)
            )
        })?;
        // It would count as of its arrival, and be in the way of every value until then.
        if at > self.now.plus_ms(CLOCK_AHEAD_MS_MAX) {
            return Err(format!("the time {at} is in the future"));
        }
        Ok(at)
    }
}

/// The same for the same user, time and values.
fn event_id(user_id: Option<&str>, anonymous_id: Option<&str>, at: Timestamp, traits: &str) -> String {
    // JSON keeps the parts apart, whatever is in them.
    let parts = serde_json::json!([user_id, anonymous_id, at.epoch_ms(), traits]).to_string();
    format!("import-{:016x}", hash_bytes(parts.as_bytes()))
}

fn identifier<'r>(cell: &'r Cell<'_>, what: &str) -> Result<Option<Cow<'r, str>>, String> {
    let text: Cow<'r, str> = match cell {
        Cell::Empty | Cell::Json(serde_json::Value::Null) => return Ok(None),
        Cell::Text(text) => Cow::Borrowed(text.trim()),
        Cell::Json(serde_json::Value::String(text)) => Cow::Borrowed(text.trim()),
        Cell::Json(serde_json::Value::Number(number)) => Cow::Owned(number.to_string()),
        Cell::Json(other) => return Err(format!("{what} `{}` is no text", shortened(&other.to_string()))),
    };
    if text.len() > IDENTIFIER_BYTES_MAX {
        return Err(format!(
            "{what} `{}` has over {IDENTIFIER_BYTES_MAX} bytes",
            shortened(&text)
        ));
    }
    Ok((!text.is_empty()).then_some(text))
}

/// What a cell of a table says: a number or a truth value where it is written like one.
fn typed(text: &str) -> serde_json::Value {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return text.eq_ignore_ascii_case("true").into();
    }
    // What JSON takes for a number, which excludes zeros in front, and words such as `inf`.
    match serde_json::from_str::<serde_json::Number>(text) {
        // A whole number that no integer holds is an id more likely than a quantity, and would lose its last digits.
        Ok(number) if number.is_i64() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
            number.into()
        }
        _ => text.into(),
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            at: "2026-01-05T10:00:00Z".parse().ok(),
            text: vec!["code".to_owned()],
            now: "2026-02-01T00:00:00Z".parse().expect("a time"),
        }
    }

    fn text(text: &str) -> Cell<'_> {
        if text.is_empty() {
            Cell::Empty
        } else {
            Cell::Text(text.into())
        }
    }

    fn row<'r>(user_id: &'r str, traits: &[(&'r str, &'r str)]) -> Row<'r> {
        Row {
            user_id: text(user_id),
            anonymous_id: Cell::Empty,
            at: None,
            traits: traits
                .iter()
                .map(|(name, value)| ((*name).into(), text(value)))
                .collect(),
        }
    }

    fn event(row: &Row<'_>) -> serde_json::Value {
        match reading().understand(row) {
            Ok(Understood::Event { json, .. }) => serde_json::from_str(&json).expect("JSON"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cell_is_what_it_is_written_like() {
        use serde_json::json;
        for (written, value) in [
            ("team", json!("team")),
            (" team ", json!("team")),
            ("12", json!(12)),
            ("-3", json!(-3)),
            ("2.50", json!(2.5)),
            ("1e3", json!(1000.0)),
            ("TRUE", json!(true)),
            ("false", json!(false)),
            ("007", json!("007")),
            ("+44", json!("+44")),
            ("1,5", json!("1,5")),
            ("0x10", json!("0x10")),
            ("NaN", json!("NaN")),
            ("inf", json!("inf")),
            ("1e999", json!("1e999")),
            ("12345678901234567890", json!("12345678901234567890")),
            ("null", json!("null")),
            ("[1]", json!("[1]")),
        ] {
            assert_eq!(event(&row("ann", &[("t", written)]))["traits"]["t"], value, "{written}");
        }
        assert_eq!(event(&row("ann", &[("code", "12")]))["traits"]["code"], "12", "--text");
    }

    #[test]
    fn p2_the_same_row_makes_the_same_event_and_any_other_makes_another() {
        let first = event(&row(" ann ", &[("plan", "team"), ("seats", "3")]));
        assert_eq!(
            (&first["user_id"], &first["event_type"]),
            (&"ann".into(), &"identify".into())
        );
        assert_eq!(first["timestamp"], "2026-01-05T10:00:00.000Z");
        let again = event(&row("ann", &[("seats", "3"), ("plan", "team"), ("empty", "")]));
        assert_eq!(first, again, "neither the columns' order nor what is empty matters");
        let mut ids = vec![first["event_id"].as_str().expect("text").to_owned()];
        for other in [
            row("bob", &[("plan", "team"), ("seats", "3")]),
            row("ann", &[("plan", "team"), ("seats", "4")]),
            row("ann", &[("plan", "team")]),
            Row {
                at: Some(text("2026-01-05T10:00:00.001Z")),
                ..row("ann", &[("plan", "team"), ("seats", "3")])
            },
            Row {
                anonymous_id: text("ann"),
                ..row("", &[("plan", "team"), ("seats", "3")])
            },
        ] {
            ids.push(event(&other)["event_id"].as_str().expect("text").to_owned());
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6);
        assert!(
            ids.iter()
                .all(|id| id.len() <= usher_domain::limits::EVENT_ID_BYTES_MAX)
        );
    }

    #[test]
    fn what_can_not_be_used_is_told() {
        let long = "x".repeat(300);
        let at = |time| Row {
            at: Some(text(time)),
            ..row("ann", &[("plan", "team")])
        };
        let json = |value| Row {
            traits: vec![("plan".into(), Cell::Json(value))],
            ..row("ann", &[])
        };
        for (row, expected) in [
            (row("", &[("plan", "team")]), Err("it names no user")),
            (row("  ", &[("plan", "team")]), Err("it names no user")),
            (row(&long, &[("plan", "team")]), Err("over 256 bytes")),
            (
                row(" anonymous:x", &[("plan", "team")]),
                Err("reserved for anonymous users"),
            ),
            (row("ann", &[("plan", "")]), Ok(())),
            (row("ann", &[]), Ok(())),
            (row("ann", &[("plan", &long)]), Err("nothing in it can be stored: plan")),
            (at("yesterday"), Err("`yesterday` is not one with an offset")),
            (at("2026-01-05"), Err("`2026-01-05` is not one with an offset")),
            (at(""), Err("it has no time")),
            (at("2026-02-01T00:10:00Z"), Err("in the future")),
            (json(serde_json::json!([1])), Err("lists and objects")),
        ] {
            match (reading().understand(&row), expected) {
                (Ok(Understood::Silent), Ok(())) => {}
                (Err(why), Err(part)) if why.contains(part) && why.len() < 200 => {}
                (result, _) => panic!("{row:?}: {result:?}"),
            }
        }
    }
}
