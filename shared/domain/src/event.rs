//! What happened: one interaction event, decoded, validated and normalised.
//!
//! An event borrows from the batch that it came with; only a normalised or unescaped part is owned.

use std::borrow::Cow;

use crate::guard::ShardKey;
use crate::json;
use crate::local_time::local_time;
use crate::sequence_number::Position;
use crate::time::Timestamp;
use crate::user_agent::{browser, platform};
use crate::value::Value;

/// What a user key starts with that stands for an anonymous id, so that it can't be mistaken for a user id.
pub const ANONYMOUS_PREFIX: &str = "anonymous:";

/// The type of the event that wakes a user's timers. It carries no authority: it only makes a profile look at its own
/// timers as of the record's arrival, so a forged, repeated or early one changes nothing.
pub const TIMER_EVENT: &str = "usher.timer";

/// How an event's timestamp came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockMark {
    /// As the producer wrote it.
    #[default]
    AsWritten,
    /// Put back by as much as `sent_at` was ahead of the arrival: the producer's clock runs ahead.
    Corrected,
    /// Over [`crate::limits::CLOCK_AHEAD_MS_MAX`] ahead of its arrival, so taken as the arrival.
    Clamped,
}

/// Where the user was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location<'a> {
    /// ISO 3166 alpha-2, where it could be told.
    pub country: Option<Cow<'a, str>>,
    /// A part of the country.
    pub region: Option<Cow<'a, str>>,
    /// A town.
    pub city: Option<Cow<'a, str>>,
    /// An IANA time zone, such as `Europe/London`.
    pub timezone: Option<Cow<'a, str>>,
}

/// The members that Usher has no name for, as JSON text: `properties`, and whatever else the event had at its top level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// The text of the `properties` object, where there is one.
    pub object: Option<&'a str>,
    /// Unknown top-level members: name and JSON text.
    pub unknown: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Properties<'a> {
    /// The value at a path. The event's own `properties` win over an unknown top-level member of the same name, and of
    /// two members with one name the last.
    pub fn find(&self, path: &[String]) -> Option<Value<'a>> {
        let (name, rest) = path.split_first()?;
        if let Some(object) = self.object {
            if let Some(value) = json::find(object, path) {
                return Some(value);
            }
            if self.unknown.is_empty() || (!rest.is_empty() && json::find(object, &path[..1]).is_some()) {
                return None;
            }
        }
        let (_, text) = self.unknown.iter().rfind(|(unknown, _)| unknown == name)?;
        if rest.is_empty() {
            Some(json::read(text))
        } else {
            json::find(text, rest)
        }
    }
}

/// An interaction event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event<'a> {
    /// The producer's id of the event, 1 to 64 bytes.
    pub id: Cow<'a, str>,
    /// The 64-bit hash of the id.
    pub id_hash: u64,
    /// What kind of interaction, trimmed and in lower case.
    pub event_type: Cow<'a, str>,
    /// When it happened, by the producer's clock unless [`Event::clock`] says otherwise.
    pub at: Timestamp,
    /// How [`Event::at`] came to be.
    pub clock: ClockMark,
    /// Whose profile it belongs to: the user id, or [`ANONYMOUS_PREFIX`] and the anonymous id.
    pub user: Cow<'a, str>,
    /// The key of another profile that is the same user's: that of the event's anonymous id where it has a user id too,
    /// or of an `alias` event's earlier id. Never the same as [`Event::user`].
    pub alias: Option<Cow<'a, str>>,
    /// The producer's session, for its own use: Usher's sessions go by time.
    pub session_id: Option<Cow<'a, str>>,
    /// The content item that was touched.
    pub content_id: Option<Cow<'a, str>>,
    /// The content's category.
    pub category: Option<Cow<'a, str>>,
    /// `desktop`, `mobile`, `tablet`, or what the producer says, in lower case.
    pub device_type: Option<Cow<'a, str>>,
    /// The browser's or app's user agent.
    pub user_agent: Option<Cow<'a, str>>,
    /// Where the user was.
    pub location: Location<'a>,
    /// Everything that has no name of its own.
    pub properties: Properties<'a>,
    /// The JSON text of `traits`, on `identify`.
    pub traits: Option<&'a str>,
}

/// A member of an event that features and conditions can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `event.id`
    Id,
    /// `event.type`
    Type,
    /// `event.user_id`
    UserId,
    /// `event.session_id`
    SessionId,
    /// `event.content_id`
    ContentId,
    /// `event.category`
    Category,
    /// `event.device_type`
    DeviceType,
    /// `event.user_agent`
    UserAgent,
    /// `event.location.country`
    Country,
    /// `event.location.region`
    Region,
    /// `event.location.city`
    City,
    /// `event.location.timezone`
    Timezone,
    /// `event.platform`: the operating system that the user agent tells.
    Platform,
    /// `event.browser`: the browser or app that the user agent tells.
    Browser,
    /// `event.local_hour`: 0 to 23, by the event's own time zone ([`crate::local_time`]).
    LocalHour,
    /// `event.local_weekday`: 1 is Monday, 7 is Sunday, by the event's own time zone.
    LocalWeekday,
    /// `event.properties.…`: a path of member names.
    Property(Vec<String>),
}

impl Field {
    /// Every field with a fixed name, by the path after `event.`.
    pub const NAMED: [(&'static str, Field); 19] = [
        ("id", Field::Id),
        ("type", Field::Type),
        ("user_id", Field::UserId),
        ("session_id", Field::SessionId),
        ("content_id", Field::ContentId),
        ("category", Field::Category),
        ("device_type", Field::DeviceType),
        ("user_agent", Field::UserAgent),
        ("location.country", Field::Country),
        ("location.region", Field::Region),
        ("location.city", Field::City),
        ("location.timezone", Field::Timezone),
        ("country", Field::Country),
        ("region", Field::Region),
        ("device", Field::DeviceType),
        ("platform", Field::Platform),
        ("browser", Field::Browser),
        ("local_hour", Field::LocalHour),
        ("local_weekday", Field::LocalWeekday),
    ];

    /// Whether its value is worked out whenever it is read, which takes some microseconds.
    pub fn is_derived(&self) -> bool {
        matches!(
            self,
            Field::Platform | Field::Browser | Field::LocalHour | Field::LocalWeekday
        )
    }

    /// The field that a path such as `category` or `properties.plan.name` names.
    pub fn parse(path: &str) -> Option<Field> {
        if let Some(rest) = path.strip_prefix("properties.") {
            let names: Vec<String> = rest.split('.').map(str::to_owned).collect();
            return names
                .iter()
                .all(|name| !name.is_empty())
                .then_some(Field::Property(names));
        }
        Field::NAMED
            .into_iter()
            .find(|(name, _)| *name == path)
            .map(|(_, field)| field)
    }
}

impl<'a> Event<'a> {
    /// The value of a field; nothing where the event doesn't have it.
    pub fn field<'v>(&'v self, field: &Field) -> Option<Value<'v>> {
        let optional = match field {
            Field::Id => Some(&self.id),
            Field::Type => Some(&self.event_type),
            Field::UserId => Some(&self.user),
            Field::SessionId => self.session_id.as_ref(),
            Field::ContentId => self.content_id.as_ref(),
            Field::Category => self.category.as_ref(),
            Field::DeviceType => self.device_type.as_ref(),
            Field::UserAgent => self.user_agent.as_ref(),
            Field::Country => self.location.country.as_ref(),
            Field::Region => self.location.region.as_ref(),
            Field::City => self.location.city.as_ref(),
            Field::Timezone => self.location.timezone.as_ref(),
            Field::Property(path) => return self.properties.find(path),
            Field::Platform => return self.told_by_user_agent(platform),
            Field::Browser => return self.told_by_user_agent(browser),
            Field::LocalHour => return Some(Value::Int(local_time(self).hour.into())),
            Field::LocalWeekday => return Some(Value::Int(local_time(self).weekday.into())),
        };
        optional.map(|text| Value::Text(Cow::Borrowed(text.as_ref())))
    }

    fn told_by_user_agent<'v>(&'v self, tell: impl Fn(&'v str) -> Option<&'v str>) -> Option<Value<'v>> {
        let told = tell(self.user_agent.as_deref()?)?;
        Some(Value::Text(Cow::Borrowed(told)))
    }
}

/// A shard that a batch came from: its key for the guard, its id for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The name that the guard keeps.
    pub key: ShardKey,
    /// The shard id, such as `shardId-000000000003`.
    pub id: String,
}

impl Shard {
    /// The part of the shard whose records name `key`, which is another profile's by now: it has a place of its own in
    /// that profile's guard, so that a merge can neither lose an event nor apply one twice (P1, P2).
    pub fn within(&self, key: &str) -> Shard {
        Shard {
            key: self.key.within(key),
            id: self.id.clone(),
        }
    }
}

/// An event with where and when its record arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrivedEvent<'a> {
    /// What happened.
    pub event: Event<'a>,
    /// When Kinesis took the record: the *now* of planning (P7).
    pub arrived_at: Timestamp,
    /// The shard it came from.
    pub shard: &'a Shard,
    /// Where in the shard it was.
    pub position: Position,
}

impl<'a> ArrivedEvent<'a> {
    /// The same event for the user that the one it names became. `shard` is [`Shard::within`] each key on the way.
    pub fn followed<'f>(&self, user: &str, shard: &'f Shard) -> ArrivedEvent<'f>
    where
        'a: 'f,
    {
        let mut event: Event<'f> = self.event.clone();
        // Its own id may be the alias that a later one names; the user's own is none.
        event.alias = event.alias.filter(|alias| alias != user);
        event.user = Cow::Owned(user.to_owned());
        ArrivedEvent {
            event,
            arrived_at: self.arrived_at,
            shard,
            position: self.position,
        }
    }
}
