//! The native JSON event, version 1: decode, validate, normalise, correct the clock.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{Deserializer as _, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use usher_domain::event::{ANONYMOUS_PREFIX, ClockMark, Event, Location, Properties};
use usher_domain::hash::hash_bytes;
use usher_domain::json::{self, Text};
use usher_domain::limits::{
    CLOCK_AHEAD_MS_MAX, CLOCK_AHEAD_REJECT_MS, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX,
    IDENTIFIER_BYTES_MAX, JSON_DEPTH_MAX,
};
use usher_domain::time::Timestamp;

use crate::cursor::Cursor;
use crate::normalise;
use crate::reject::{Reject, RejectReason};

/// The only `schema_version` there is.
pub const SCHEMA_VERSION: u64 = 1;
/// The type of the event that says which id a user had before, in [`PREVIOUS_ID`].
pub const ALIAS_EVENT: &str = "alias";
/// The member of an [`ALIAS_EVENT`], at its top level, with the user's earlier user id.
pub const PREVIOUS_ID: &str = "previous_id";
/// Unknown members that an event may have at its top level.
pub const UNKNOWN_MEMBERS_MAX: usize = 256;

/// Reads an event as of its arrival.
///
/// # Errors
/// Why it can't be used, naming the member at fault.
pub fn decode(bytes: &[u8], arrived_at: Timestamp) -> Result<Event<'_>, Reject> {
    validate(parse(text_of(bytes)?)?, arrived_at)
}

/// [`decode`] by the way that knows every shape, for fuzzing to hold the quick way to.
///
/// # Errors
/// As [`decode`].
#[cfg(feature = "fuzzing")]
pub fn decode_thoroughly(bytes: &[u8], arrived_at: Timestamp) -> Result<Event<'_>, Reject> {
    validate(parse_any(text_of(bytes)?)?, arrived_at)
}

fn text_of(bytes: &[u8]) -> Result<&str, Reject> {
    if bytes.len() > EVENT_BYTES_MAX {
        let detail = format!("it has {} bytes, at most {EVENT_BYTES_MAX} are read", bytes.len());
        return Err(Reject::new(RejectReason::TooLarge, "", detail));
    }
    simdutf8::compat::from_utf8(bytes).map_err(|error| {
        Reject::new(
            RejectReason::NotUtf8,
            "",
            format!("not UTF-8 from byte {}", error.valid_up_to()),
        )
    })
}

/// The time of an event without reading the rest, for a clock that follows the data: `sent_at` where there is one
/// (an event that was sent later than it happened arrived then), otherwise `timestamp`.
pub fn time_of(bytes: &[u8]) -> Option<Timestamp> {
    let raw = parse(simdutf8::basic::from_utf8(bytes).ok()?).ok()?;
    let text = raw.sent_at.or(raw.timestamp)?;
    text.trim().parse().ok()
}

/// The user key of an event without validating the rest: what partitions it.
pub fn user_of(bytes: &[u8]) -> Option<String> {
    let raw = parse(simdutf8::basic::from_utf8(bytes).ok()?).ok()?;
    keys(raw.user_id, raw.anonymous_id)
        .ok()
        .map(|(user, _)| user.into_owned())
}

/// The members as they came.
#[derive(Debug, Default, PartialEq)]
struct RawEvent<'a> {
    schema_version: Option<u64>,
    event_id: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    sent_at: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
    anonymous_id: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
    content_id: Option<Cow<'a, str>>,
    category: Option<Cow<'a, str>>,
    device_type: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    location: Location<'a>,
    properties: Option<&'a str>,
    traits: Option<&'a str>,
    unknown: Vec<(Cow<'a, str>, &'a str)>,
}

#[inline]
fn parse(text: &str) -> Result<RawEvent<'_>, Reject> {
    let mut event = RawEvent::default();
    match parse_usual(text, &mut event) {
        Some(()) => Ok(event),
        None => parse_any(text),
    }
}

/// Reads an event of the usual shape into `event`; nothing where it is wrong or too odd for this.
fn parse_usual<'a>(text: &'a str, event: &mut RawEvent<'a>) -> Option<()> {
    let mut cursor = Cursor::new(text);
    cursor.object(|cursor, name| {
        let place = match name {
            "event_id" => &mut event.event_id,
            "event_type" => &mut event.event_type,
            "timestamp" => &mut event.timestamp,
            "user_id" => &mut event.user_id,
            "anonymous_id" => &mut event.anonymous_id,
            "session_id" => &mut event.session_id,
            "content_id" => &mut event.content_id,
            "category" => &mut event.category,
            "device_type" => &mut event.device_type,
            "user_agent" => &mut event.user_agent,
            "sent_at" => &mut event.sent_at,
            "schema_version" => {
                event.schema_version = Some(cursor.small_whole()?);
                return Some(());
            }
            "location" => {
                event.location = location(cursor)?;
                return Some(());
            }
            "properties" | "traits" => {
                let object = if cursor.peek()? == b'{' {
                    Some(shallow(cursor)?)
                } else {
                    cursor.null().map(|()| None)?
                };
                *(if name == "traits" {
                    &mut event.traits
                } else {
                    &mut event.properties
                }) = object;
                return Some(());
            }
            _ if event.unknown.len() < UNKNOWN_MEMBERS_MAX => {
                event.unknown.push((Cow::Borrowed(name), shallow(cursor)?));
                return Some(());
            }
            _ => return None,
        };
        cursor.optional_string_into(place)
    })?;
    cursor.end()
}

/// A value that does not nest too deeply: the event itself is one level.
fn shallow<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    cursor.raw().filter(|text| json::depth(text) < JSON_DEPTH_MAX)
}

fn location<'a>(cursor: &mut Cursor<'a>) -> Option<Location<'a>> {
    let mut location = Location::default();
    cursor.object(|cursor, name| {
        let place = match name {
            "country" => &mut location.country,
            "region" => &mut location.region,
            "city" => &mut location.city,
            "timezone" => &mut location.timezone,
            _ => return None,
        };
        cursor.optional_string_into(place)
    })?;
    Some(location)
}

/// Reads an event of any shape, or says what is wrong with it.
fn parse_any(text: &str) -> Result<RawEvent<'_>, Reject> {
    let at_fault = Cell::new((RejectReason::WrongType, ""));
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = deserializer
        .deserialize_map(EventVisitor { at_fault: &at_fault })
        .and_then(|event| deserializer.end().map(|()| event));
    parsed.map_err(|error| {
        let (reason, field) = at_fault.get();
        match error.classify() {
            serde_json::error::Category::Data if !field.is_empty() => {
                let mut message = error.to_string();
                // The place in the line says nothing to who sent one line of JSON.
                if let Some(place) = message.rfind(" at line ") {
                    message.truncate(place);
                }
                Reject::new(reason, field, message)
            }
            _ => Reject::new(RejectReason::NotJson, field, error.to_string()),
        }
    })
}

struct EventVisitor<'c> {
    /// The reason and the member that the visitor is at, for when reading it fails.
    at_fault: &'c Cell<(RejectReason, &'static str)>,
}

impl EventVisitor<'_> {
    fn text<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        field: &'static str,
    ) -> Result<Option<Cow<'de, str>>, A::Error> {
        self.at_fault.set((RejectReason::WrongType, field));
        let text = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0);
        self.at_fault.set((RejectReason::WrongType, ""));
        Ok(text)
    }

    /// An object's text; null is none. What nests too deeply ends here.
    fn object<'de, A: MapAccess<'de>>(&self, map: &mut A, field: &'static str) -> Result<Option<&'de str>, A::Error> {
        self.at_fault.set((RejectReason::WrongType, field));
        let text = map.next_value::<&'de RawValue>()?.get();
        match text.as_bytes().first() {
            Some(b'{') => {}
            Some(b'n') => return Ok(None),
            _ => return Err(A::Error::custom("expected an object")),
        }
        self.check_depth(text, field)?;
        Ok(Some(text))
    }

    fn check_depth<E: Error>(&self, text: &str, field: &'static str) -> Result<(), E> {
        // The event itself is one level.
        if json::depth(text) >= JSON_DEPTH_MAX {
            self.at_fault.set((RejectReason::TooDeep, field));
            return Err(E::custom(format!("it nests deeper than {JSON_DEPTH_MAX}")));
        }
        self.at_fault.set((RejectReason::WrongType, ""));
        Ok(())
    }
}

impl<'de> Visitor<'de> for EventVisitor<'_> {
    type Value = RawEvent<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = RawEvent::default();
        while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
            match name.as_ref() {
                "event_id" => event.event_id = self.text(&mut map, "event_id")?,
                "event_type" => event.event_type = self.text(&mut map, "event_type")?,
                "timestamp" => event.timestamp = self.text(&mut map, "timestamp")?,
                "user_id" => event.user_id = self.text(&mut map, "user_id")?,
                "anonymous_id" => event.anonymous_id = self.text(&mut map, "anonymous_id")?,
                "session_id" => event.session_id = self.text(&mut map, "session_id")?,
                "content_id" => event.content_id = self.text(&mut map, "content_id")?,
                "category" => event.category = self.text(&mut map, "category")?,
                "device_type" => event.device_type = self.text(&mut map, "device_type")?,
                "user_agent" => event.user_agent = self.text(&mut map, "user_agent")?,
                "sent_at" => event.sent_at = self.text(&mut map, "sent_at")?,
                "schema_version" => {
                    self.at_fault.set((RejectReason::WrongType, "schema_version"));
                    event.schema_version = map.next_value()?;
                    self.at_fault.set((RejectReason::WrongType, ""));
                }
                "location" => {
                    self.at_fault.set((RejectReason::WrongType, "location"));
                    event.location = map.next_value::<OptionalLocation<'de>>()?.0;
                    self.at_fault.set((RejectReason::WrongType, ""));
                }
                "properties" => event.properties = self.object(&mut map, "properties")?,
                "traits" => event.traits = self.object(&mut map, "traits")?,
                _ => {
                    if event.unknown.len() >= UNKNOWN_MEMBERS_MAX {
                        self.at_fault.set((RejectReason::TooManyMembers, "properties"));
                        let message = format!("over {UNKNOWN_MEMBERS_MAX} unknown members: put them into `properties`");
                        return Err(A::Error::custom(message));
                    }
                    let text = map.next_value::<&'de RawValue>()?.get();
                    self.check_depth(text, "properties")?;
                    event.unknown.push((name, text));
                }
            }
        }
        Ok(event)
    }
}

struct OptionalLocation<'a>(Location<'a>);

impl<'de> serde::Deserialize<'de> for OptionalLocation<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LocationVisitor;
        impl<'de> Visitor<'de> for LocationVisitor {
            type Value = OptionalLocation<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with country, region, city and timezone")
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(OptionalLocation(Location::default()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut location = Location::default();
                while let Some(Text(name)) = map.next_key::<Text<'de>>()? {
                    let part = match name.as_ref() {
                        "country" => &mut location.country,
                        "region" => &mut location.region,
                        "city" => &mut location.city,
                        "timezone" => &mut location.timezone,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *part = map.next_value::<Option<Text<'de>>>()?.map(|text| text.0);
                }
                Ok(OptionalLocation(location))
            }
        }
        deserializer.deserialize_any(LocationVisitor)
    }
}

#[inline]
fn validate<'a>(raw: RawEvent<'a>, arrived_at: Timestamp) -> Result<Event<'a>, Reject> {
    if let Some(version) = raw.schema_version.filter(|version| *version != SCHEMA_VERSION) {
        let detail = format!("version {version}, but this reads version {SCHEMA_VERSION}");
        return Err(Reject::new(
            RejectReason::UnknownSchemaVersion,
            "schema_version",
            detail,
        ));
    }
    let id = required(raw.event_id, "event_id", EVENT_ID_BYTES_MAX)?;
    let event_type = required(raw.event_type, "event_type", EVENT_TYPE_BYTES_MAX)?;
    let (at, clock) = corrected_time(raw.timestamp, raw.sent_at, arrived_at)?;
    let (user, anonymous) = keys(raw.user_id, raw.anonymous_id)?;
    let event_type = normalise::lower_case(event_type);
    let alias = if event_type == ALIAS_EVENT {
        previous_key(&raw.unknown, &user)?.or(anonymous)
    } else {
        anonymous
    };
    let user_agent = raw.user_agent.map(normalise::trimmed).filter(|text| !text.is_empty());
    let device_type = match optional(raw.device_type, "device_type")? {
        Some(device_type) => Some(normalise::lower_case(device_type)),
        None => user_agent
            .as_deref()
            .and_then(normalise::device_type)
            .map(Cow::Borrowed),
    };
    Ok(Event {
        id_hash: hash_bytes(id.as_bytes()),
        id,
        event_type,
        at,
        clock,
        user,
        alias,
        session_id: optional(raw.session_id, "session_id")?,
        content_id: optional(raw.content_id, "content_id")?,
        category: optional(raw.category, "category")?,
        device_type,
        user_agent,
        location: Location {
            country: optional(raw.location.country, "location.country")?.and_then(normalise::country),
            region: optional(raw.location.region, "location.region")?,
            city: optional(raw.location.city, "location.city")?,
            timezone: optional(raw.location.timezone, "location.timezone")?,
        },
        properties: Properties {
            object: raw.properties,
            unknown: raw.unknown,
        },
        traits: raw.traits,
    })
}

/// Whether a text is there, short enough and has nothing to trim, as nearly all have.
#[inline]
fn is_usual(text: &str, bytes_max: usize) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(u8::is_ascii_graphic) && bytes.last().is_some_and(u8::is_ascii_graphic);
    ends && bytes.len() <= bytes_max
}

#[inline]
fn required<'a>(text: Option<Cow<'a, str>>, field: &'static str, bytes_max: usize) -> Result<Cow<'a, str>, Reject> {
    match text {
        Some(text) if is_usual(&text, bytes_max) => Ok(text),
        Some(text) => match normalise::trimmed(text) {
            text if text.is_empty() => Err(Reject::new(RejectReason::MissingField, field, "it is empty")),
            text => within(text, field, bytes_max),
        },
        None => Err(Reject::new(RejectReason::MissingField, field, "it is required")),
    }
}

/// What is empty is as good as absent.
#[inline]
fn optional<'a>(text: Option<Cow<'a, str>>, field: &'static str) -> Result<Option<Cow<'a, str>>, Reject> {
    match text {
        Some(text) if is_usual(&text, IDENTIFIER_BYTES_MAX) => Ok(Some(text)),
        Some(text) => match normalise::trimmed(text) {
            text if text.is_empty() => Ok(None),
            text => within(text, field, IDENTIFIER_BYTES_MAX).map(Some),
        },
        None => Ok(None),
    }
}

fn within<'a>(text: Cow<'a, str>, field: &'static str, bytes_max: usize) -> Result<Cow<'a, str>, Reject> {
    if text.len() <= bytes_max {
        return Ok(text);
    }
    let detail = format!("it has {} bytes, at most {bytes_max} are allowed", text.len());
    Err(Reject::new(RejectReason::TooLong, field, detail))
}

/// The key of the profile that an event belongs to, and that of the anonymous profile which is the same user's.
#[inline]
fn keys<'a>(
    user_id: Option<Cow<'a, str>>,
    anonymous_id: Option<Cow<'a, str>>,
) -> Result<(Cow<'a, str>, Option<Cow<'a, str>>), Reject> {
    let anonymous_id = anonymous_id.map(normalise::trimmed).filter(|text| !text.is_empty());
    let anonymous = match anonymous_id {
        Some(anonymous_id) => {
            let longest = IDENTIFIER_BYTES_MAX - ANONYMOUS_PREFIX.len();
            let anonymous_id = within(anonymous_id, "anonymous_id", longest)?;
            Some(Cow::Owned(format!("{ANONYMOUS_PREFIX}{anonymous_id}")))
        }
        None => None,
    };
    match user_id.map(normalise::trimmed).filter(|text| !text.is_empty()) {
        Some(user_id) => Ok((known_key(user_id, "user_id")?, anonymous)),
        None => match anonymous {
            Some(anonymous) => Ok((anonymous, None)),
            None => {
                let detail = "an event needs a `user_id` or an `anonymous_id` that is not empty";
                Err(Reject::new(RejectReason::MissingField, "user_id", detail))
            }
        },
    }
}

/// The key of a user who is known by this id.
fn known_key<'a>(user_id: Cow<'a, str>, field: &'static str) -> Result<Cow<'a, str>, Reject> {
    if user_id.starts_with(ANONYMOUS_PREFIX) {
        let detail = format!("`{ANONYMOUS_PREFIX}` at its front is reserved for anonymous ids");
        return Err(Reject::new(RejectReason::Reserved, field, detail));
    }
    within(user_id, field, IDENTIFIER_BYTES_MAX)
}

/// The key that an `alias` event says the user had before. It stays among the properties.
fn previous_key<'a>(unknown: &[(Cow<'a, str>, &'a str)], user: &str) -> Result<Option<Cow<'a, str>>, Reject> {
    let Some((_, text)) = unknown.iter().rfind(|(name, _)| name == PREVIOUS_ID) else {
        return Ok(None);
    };
    let previous = serde_json::from_str::<Option<Text<'a>>>(text)
        .map_err(|_| Reject::new(RejectReason::WrongType, PREVIOUS_ID, "expected a text"))?
        .map(|text| normalise::trimmed(text.0))
        .filter(|previous| !previous.is_empty());
    let Some(previous) = previous else { return Ok(None) };
    let previous = known_key(previous, PREVIOUS_ID)?;
    if user.starts_with(ANONYMOUS_PREFIX) {
        let detail = "an `alias` event with a `previous_id` needs a `user_id`: nobody known becomes anonymous again";
        return Err(Reject::new(RejectReason::MissingField, "user_id", detail));
    }
    Ok(Some(previous).filter(|previous| previous != user))
}

/// Corrects a producer's clock that runs ahead.
///
/// What was sent can't have arrived before: where `sent_at` is ahead of the arrival, the clock runs ahead by at least
/// that much and the timestamp goes back by it. (A clock that runs behind can't be told from a slow network or from
/// an event that was put again later, so it is left alone.) What is still ahead of its arrival is clamped to it, unless
/// it is so far ahead that it can't be a clock.
fn corrected_time(
    timestamp: Option<Cow<'_, str>>,
    sent_at: Option<Cow<'_, str>>,
    arrived_at: Timestamp,
) -> Result<(Timestamp, ClockMark), Reject> {
    let read = |text: &str, field: &'static str| {
        text.trim()
            .parse::<Timestamp>()
            .map_err(|error| Reject::new(RejectReason::BadTimestamp, field, error.to_string()))
    };
    let written = read(&required(timestamp, "timestamp", IDENTIFIER_BYTES_MAX)?, "timestamp")?;
    let ahead_ms = match sent_at {
        Some(text) => read(&text, "sent_at")?.ms_since(arrived_at),
        None => 0,
    };
    let (at, mark) = if ahead_ms > 0 {
        (written.minus_ms(ahead_ms), ClockMark::Corrected)
    } else {
        (written, ClockMark::AsWritten)
    };
    let still_ahead_ms = at.ms_since(arrived_at);
    if still_ahead_ms > CLOCK_AHEAD_REJECT_MS {
        let detail = format!("{at} is more than a day ahead of its arrival at {arrived_at}");
        return Err(Reject::new(RejectReason::BadTimestamp, "timestamp", detail));
    }
    if still_ahead_ms > CLOCK_AHEAD_MS_MAX {
        return Ok((arrived_at, ClockMark::Clamped));
    }
    Ok((at, mark))
}

#[cfg(test)]
mod tests;
