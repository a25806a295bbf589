//! Every key that a journey file may have: what the reader accepts and what the JSON Schema says come from these tables,
//! so they can't differ.

use crate::limits::*;

/// A mapping of the file.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) keys: &'static [Key],
    /// Sets of keys of which one set must be there at least; none where anything goes.
    pub(super) any_of: &'static [&'static [&'static str]],
    /// Keys, and those that can't stand beside them.
    pub(super) excludes: &'static [(&'static str, &'static [&'static str])],
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What it means, for people who write a file.
    pub(super) about: &'static str,
    pub(super) shape: Shape,
    pub(super) is_needed: bool,
}

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Shape {
    /// A name that the file gives to something, or refers to.
    Name,
    Text,
    /// A CEL expression.
    Condition,
    /// A member of an event.
    Field,
    /// One event type, a list of them, or `any`.
    EventTypes,
    /// A time that passes, such as `30m`.
    Duration,
    /// A share such as `5%`.
    Share,
    /// A time of day such as `09:00`.
    TimeOfDay,
    Whole(i64, i64),
    Number(f64, f64),
    Words(&'static [&'static str]),
    Mapping(&'static Mapping),
    /// A list of at most so many.
    List(&'static Shape, usize),
    /// One, or a list of at most so many.
    OneOrMore(&'static Shape, usize),
    /// A mapping from at most so many names.
    Named(&'static Shape, usize),
    Either(&'static [Shape]),
    /// A feature: its keys are those of its kind ([`super::read_feature::KINDS`]).
    Feature,
}

impl Mapping {
    pub(super) const fn of(keys: &'static [Key]) -> Mapping {
        Mapping {
            keys,
            any_of: &[],
            excludes: &[],
        }
    }

    /// The names of its keys.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

pub(super) const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        about,
        shape,
        is_needed: false,
    }
}

const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        is_needed: true,
        ..key(name, shape, about)
    }
}

/// What a rule's `limit` may count for.
pub(super) const LIMIT_SCOPES: [&str; 3] = ["user", "session", "version"];
/// What quiet hours may do with an offer.
pub(super) const QUIET_ACTION_WORDS: [&str; 2] = ["defer", "drop"];

pub(super) static TOP: Mapping = Mapping::of(&[
    needed("journey", Shape::Name, "The journey's name."),
    key("sessions", Shape::Mapping(&SESSIONS), "What a session is."),
    key("dedupe", Shape::Mapping(&DEDUPE), "How repeated events are known."),
    key(
        "events",
        Shape::EventTypes,
        "The event types that may be named. Without it any may; with it a misspelt one is an error.",
    ),
    key("ignore", Shape::EventTypes, "Event types that are dropped."),
    key(
        "entry",
        Shape::Condition,
        "No trigger fires for a user before this held once. Without it everyone is in from the first event.",
    ),
    key(
        "exit",
        Shape::Condition,
        "Once this holds the user is out, at once: no trigger fires, and timers and put-off offers are dropped.",
    ),
    key(
        "reentry",
        Shape::Either(&[Shape::Words(&["always", "never"]), Shape::Duration]),
        "Whether a user who is out comes in again when `entry` holds: `always` (unless it says otherwise), `never`, or after so long.",
    ),
    key(
        "experiments",
        Shape::List(&Shape::Mapping(&EXPERIMENT), EXPERIMENTS_MAX),
        "How users are split for comparison, by a stable hash. Conditions read the arm as arms.ID.",
    ),
    key(
        "steps",
        Shape::List(&Shape::Mapping(&STEP), STEPS_MAX),
        "The onboarding checklist. Conditions read steps.ID.done and steps.ID.done_at.",
    ),
    key(
        "features",
        Shape::Named(&Shape::Feature, FEATURES_MAX),
        "What is kept of each user. Conditions read it as features.NAME.",
    ),
    key(
        "contents",
        Shape::List(&Shape::Mapping(&CONTENT), CONTENTS_MAX),
        "What can be offered.",
    ),
    key(
        "triggers",
        Shape::List(&Shape::Mapping(&RULE), RULES_MAX),
        "When to offer what, and where.",
    ),
    key("policy", Shape::Mapping(&POLICY), "What limits all triggers together."),
]);

pub(super) static SESSIONS: Mapping = Mapping::of(&[key(
    "idle_timeout",
    Shape::Duration,
    "A session ends when nothing happened for this long, by the events' own time; 30m unless it says otherwise, at most 24h.",
)]);

pub(super) static DEDUPE: Mapping = Mapping::of(&[key(
    "last",
    Shape::Whole(1, DEDUPE_LAST_MAX as i64),
    "How many event ids a profile remembers, 8 bytes each; 64 unless it says otherwise.",
)]);

pub(super) static EXPERIMENT: Mapping = Mapping::of(&[
    needed("id", Shape::Name, "Its name: letters, digits and `_`, read as arms.ID."),
    key("salt", Shape::Text, "Another salt splits the users in another way."),
    needed(
        "arms",
        Shape::Named(&Shape::Number(0.0, ARM_WEIGHT_MAX), ARMS_MAX),
        "The name of each arm and its weight, such as { control: 50, short: 50 }.",
    ),
]);

pub(super) static STEP: Mapping = Mapping {
    keys: &[
        needed("id", Shape::Name, "Its name."),
        key("on", Shape::EventTypes, "The event types that may complete it."),
        key("when", Shape::Condition, "The condition that completes it."),
    ],
    any_of: &[&["on"], &["when"]],
    excludes: &[],
};

pub(super) static CONTENT: Mapping = Mapping::of(&[
    needed("id", Shape::Name, "Its name."),
    key("when", Shape::Condition, "Only offered while this holds."),
    key("unless", Shape::Condition, "Not offered while this holds."),
    key(
        "cooldown",
        Shape::Duration,
        "How long it is not offered again by any trigger; as policy.content_cooldown unless it says otherwise.",
    ),
]);

const OFFER: Shape = Shape::OneOrMore(&Shape::Name, REMINDERS_MAX);

pub(super) static RULE: Mapping = Mapping {
    keys: &[
        needed("id", Shape::Name, "Its name."),
        key(
            "on",
            Shape::EventTypes,
            "The event types at which it looks; any unless it says otherwise.",
        ),
        key("when", Shape::Condition, "Only fires when this holds."),
        key("unless", Shape::Condition, "Doesn't fire when this holds."),
        key(
            "enters",
            Shape::Condition,
            "Fires at an event after which this holds and did not before. It reads the profile, but no event.",
        ),
        key(
            "leaves",
            Shape::Condition,
            "Fires at an event after which this doesn't hold and did before. It reads the profile, but no event.",
        ),
        key(
            "after",
            Shape::OneOrMore(&Shape::Duration, REMINDERS_MAX),
            "Fires when this time has passed since `since`; a list is a chain of reminders, all counted from `since`.",
        ),
        key(
            "at",
            Shape::TimeOfDay,
            "Fires at this time of day by the user's own clock, such as \"09:00\", so many `days` after `since`.",
        ),
        key(
            "days",
            Shape::OneOrMore(&Shape::Whole(0, DAYS_MAX), REMINDERS_MAX),
            "How many days after the day of `since`; 0 is that day, or the next when the time of day has passed. A list is a chain of reminders.",
        ),
        key(
            "since",
            Shape::Either(&[Shape::EventTypes, Shape::Mapping(&SINCE)]),
            "What a timer counts from: steps.ID, event types, `any`, `session.end`, or { event: TYPES, when: CONDITION }.",
        ),
        needed(
            "offer",
            OFFER,
            "The content that it offers; a chain of reminders may have one for each.",
        ),
        needed(
            "slot",
            Shape::Name,
            "Where the offer is shown, such as in_app or email.",
        ),
        key("cooldown", Shape::Duration, "How long it stays silent after firing."),
        key(
            "limit",
            Shape::Either(&[Shape::Whole(1, i64::MAX), Shape::Mapping(&LIMIT)]),
            "How often it fires at most for a user, or for each session or journey version of a user.",
        ),
        key(
            "priority",
            Shape::Whole(i64::MIN, i64::MAX),
            "For one slot at one moment the trigger with the highest priority wins; 0 unless it says otherwise.",
        ),
        key(
            "group",
            Shape::Name,
            "One of policy.groups: triggers that exclude each other.",
        ),
        key(
            "holdout",
            Shape::Either(&[Shape::Share, Shape::Mapping(&HOLDOUT)]),
            "The share of users who are shown nothing by it, so that its effect can be told.",
        ),
    ],
    any_of: &[
        &["on"],
        &["when"],
        &["enters"],
        &["leaves"],
        &["after", "since"],
        &["at", "since"],
    ],
    excludes: &[
        ("enters", &["leaves", "after", "at", "days", "since"]),
        ("leaves", &["enters", "after", "at", "days", "since"]),
        ("after", &["on", "at", "days"]),
        ("at", &["on", "after"]),
        ("since", &["on"]),
    ],
};

pub(super) static SINCE: Mapping = Mapping::of(&[
    needed("event", Shape::EventTypes, "The event types that start the timer."),
    key("when", Shape::Condition, "Only an event on which this holds starts it."),
]);

pub(super) static LIMIT: Mapping = Mapping::of(&[
    needed("count", Shape::Whole(1, i64::MAX), "So often."),
    key(
        "per",
        Shape::Words(&LIMIT_SCOPES),
        "For the user ever (unless it says otherwise), for a session, or under one version of the journey.",
    ),
]);

pub(super) static HOLDOUT: Mapping = Mapping::of(&[
    needed("share", Shape::Share, "From 0% to 100%, chosen by a stable hash."),
    key(
        "salt",
        Shape::Text,
        "Another salt chooses other users; the same salt elsewhere chooses the same ones.",
    ),
]);

pub(super) static POLICY: Mapping = Mapping::of(&[
    key(
        "cap",
        Shape::OneOrMore(&Shape::Mapping(&CAP), CAPS_MAX),
        "How many offers a user gets at most; all of several caps hold.",
    ),
    key(
        "content_cooldown",
        Shape::Duration,
        "How long no content is offered again, unless the content says otherwise.",
    ),
    key(
        "quiet_hours",
        Shape::Mapping(&QUIET_HOURS),
        "When nothing is offered, by the user's own clock.",
    ),
    key(
        "holdout",
        Shape::Either(&[Shape::Share, Shape::Mapping(&HOLDOUT)]),
        "The share of users who are shown nothing at all, so that the journey's effect can be told.",
    ),
    key(
        "groups",
        Shape::Named(&Shape::Mapping(&GROUP), GROUPS_MAX),
        "Groups of triggers that exclude each other.",
    ),
]);

pub(super) static CAP: Mapping = Mapping::of(&[
    needed("offers", Shape::Whole(0, OFFERS_MADE_MAX as i64), "So many offers."),
    needed("within", Shape::Duration, "In so much time, at most 90d."),
    key(
        "slot",
        Shape::Name,
        "Only for this slot; for all of them together unless it says otherwise.",
    ),
]);

pub(super) static QUIET_HOURS: Mapping = Mapping::of(&[
    needed("from", Shape::TimeOfDay, "When it gets quiet, such as \"22:00\"."),
    needed(
        "to",
        Shape::TimeOfDay,
        "When that ends, such as \"08:00\"; it may be the next day.",
    ),
    key(
        "then",
        Shape::Words(&QUIET_ACTION_WORDS),
        "What becomes of an offer: put off to their end and made then if it still may be (`defer`, unless it says otherwise), or dropped.",
    ),
    key(
        "slots",
        Shape::OneOrMore(&Shape::Name, RULES_MAX),
        "Only for these slots.",
    ),
    key(
        "timezone",
        Shape::Text,
        "The IANA time zone of users of whom none is known; UTC unless it says otherwise.",
    ),
]);

pub(super) static GROUP: Mapping = Mapping::of(&[key(
    "within",
    Shape::Duration,
    "After one of them fired the others are silent for so long; without it, at that moment only.",
)]);

pub(super) static RATE: Mapping = Mapping::of(&[
    needed("of", Shape::EventTypes, "What is counted above."),
    needed("to", Shape::EventTypes, "What is counted below."),
    key(
        "prior",
        Shape::List(&Shape::Number(0.0, RATE_PRIOR_MAX), 2),
        "[a, b]: as if a of a + b had been seen already; [1, 1] unless it says otherwise.",
    ),
]);

pub(super) static STEP_DURATION: Mapping = Mapping::of(&[
    needed("from", Shape::Name, "The step that it starts with."),
    needed("to", Shape::Name, "The step that it ends with."),
]);

/// Largest weight of an arm.
pub(super) const ARM_WEIGHT_MAX: f64 = 1e6;
/// Days that a timer may wait.
pub(super) const DAYS_MAX: i64 = TIMER_MS_MAX / (24 * 60 * 60 * 1000);
