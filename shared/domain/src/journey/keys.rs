//! Every key that a journey file may have: what the reader accepts and what the JSON Schema says come from these tables,
//! so they can't differ.

use crate::bandit::limits::{BANDIT_DIMENSION_MAX, CANDIDATES_MAX};
use crate::limits::*;

/// A mapping of the file.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) keys: &'static [Key],
    /// Choices, each of sets of keys of which one set must be there at least.
    pub(super) any_of: &'static [Sets],
    /// Keys, and those that can't stand beside them.
    pub(super) excludes: &'static [(&'static str, &'static [&'static str])],
}

/// Sets of keys.
type Sets = &'static [&'static [&'static str]];

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
    /// A text, a number, or true or false.
    Scalar,
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
    Bool,
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

/// What `choose` calls every content.
pub(super) const ALL_CONTENTS: &str = "all";
/// What a trend may count by.
pub(super) const TREND_KEYS: [&str; 2] = ["content", "category"];
/// How a slot may choose.
pub(super) const LEARNERS: [&str; 6] = [
    "linear_thompson",
    "linucb",
    "thompson",
    "epsilon_greedy",
    "fixed_split",
    "scores",
];
/// What a feature of a learner may be.
pub(super) const LEARNER_FEATURE_KINDS: [&str; 3] = ["number", "bool", "text"];
/// What a rewarded event may be about.
pub(super) const REWARDED_CONTENTS: [&str; 2] = ["same", "any"];
/// What an offer may count as until something comes of it.
pub(super) const UNTIL_THEN_WORDS: [&str; 2] = ["unknown", "zero"];
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
    key(
        "trends",
        Shape::Named(&Shape::Mapping(&TREND), TRENDS_MAX),
        "What is counted over all users. Conditions of triggers and contents read it as trends.NAME[KEY], 0 where nothing is known.",
    ),
    key(
        "slots",
        Shape::Named(&Shape::Mapping(&SLOT), RULES_MAX),
        "How the learner of each slot works. A slot that a trigger chooses for needs no entry to have the defaults.",
    ),
    key(
        "outcomes",
        Shape::Mapping(&OUTCOMES),
        "What counts as success of an offer. Without it nothing is learned.",
    ),
]);

pub(super) static TREND: Mapping = Mapping::of(&[
    needed("count", Shape::EventTypes, "The event types that it counts."),
    needed(
        "within",
        Shape::Duration,
        "A sliding window that ends now, from 1m to 24h.",
    ),
    key(
        "by",
        Shape::Words(&TREND_KEYS),
        "What it counts them by: content (its content_id, unless it says otherwise) or category.",
    ),
]);

pub(super) static SLOT: Mapping = Mapping::of(&[
    key(
        "learner",
        Shape::Words(&LEARNERS),
        "How it chooses; linear_thompson unless it says otherwise, or thompson where there is no context.",
    ),
    key(
        "shared",
        Shape::Bool,
        "Whether one model of the contents' features serves all of them, instead of one for each; true unless it says otherwise where there are `contents`.",
    ),
    key(
        "epsilon",
        Shape::Share,
        "Of epsilon_greedy: the share of decisions that goes evenly over all candidates.",
    ),
    key(
        "weights",
        Shape::Named(&Shape::Number(0.0, ARM_WEIGHT_MAX), CANDIDATES_MAX),
        "Of fixed_split: the weight of each content; 1 unless it says otherwise.",
    ),
    key(
        "floor",
        Shape::Share,
        "The share of decisions that goes evenly over all candidates whatever was learned; 0.5% unless it says otherwise, 0% of fixed_split.",
    ),
    key(
        "optimism",
        Shape::Number(0.0, LEARNER_FACTOR_MAX),
        "Of linucb: the standard deviations that it adds; 1.25 unless it says otherwise.",
    ),
    key(
        "temperature",
        Shape::Number(0.0, LEARNER_FACTOR_MAX),
        "Of Thompson sampling: what its doubt is multiplied by; 0.4 unless it says otherwise, 1 without a context.",
    ),
    key(
        "reward_scale",
        Shape::Number(REWARD_SCALE_MIN, REWARD_VALUE_MAX),
        "About the largest reward that one offer brings; the largest of outcomes.reward unless it says otherwise.",
    ),
    key(
        "half_life",
        Shape::Duration,
        "After this long an outcome counts half, from 1m to 90d; without it all count alike.",
    ),
    key(
        "context",
        Shape::Named(&FEATURE_OF_LEARNER, BANDIT_DIMENSION_MAX),
        "What it sees of the user: features.NAME, steps.ID.done, traits.NAME, session.count, arms.ID, time.hour, trends.NAME[KEY].",
    ),
    key(
        "contents",
        Shape::Named(&FEATURE_OF_LEARNER, BANDIT_DIMENSION_MAX),
        "What it sees of a candidate: content.NAME (an attribute), trends.NAME (of the candidate's own id), or score (an imported one).",
    ),
]);

const FEATURE_OF_LEARNER: Shape = Shape::Either(&[Shape::Text, Shape::Mapping(&LEARNER_FEATURE)]);

pub(super) static LEARNER_FEATURE: Mapping = Mapping {
    keys: &[
        needed("value", Shape::Text, "What it reads, such as traits.plan."),
        key(
            "one_of",
            Shape::List(&Shape::Scalar, BANDIT_DIMENSION_MAX),
            "The values that are told apart; each takes a number, and so do all others together.",
        ),
        key(
            "as",
            Shape::Words(&LEARNER_FEATURE_KINDS),
            "What it is, where that doesn't follow from what it reads. A text is hashed into at most 8 numbers.",
        ),
    ],
    any_of: &[],
    excludes: &[("one_of", &["as"])],
};

pub(super) static OUTCOMES: Mapping = Mapping::of(&[
    needed(
        "within",
        Shape::Duration,
        "For how long after an offer what happens counts, at most 30d.",
    ),
    key(
        "until_then",
        Shape::Words(&UNTIL_THEN_WORDS),
        "What a chosen offer counts as while nothing has come of it: `unknown`, and as nothing when the time has run out (unless it says otherwise), or `zero` from the start.",
    ),
    needed(
        "reward",
        Shape::Named(&Shape::Either(&[REWARD_VALUE, Shape::Mapping(&REWARD)]), REWARDS_MAX),
        "What is rewarded, each once for an offer: TYPE: 1 is an event of this type on the content that was offered, step_completed: 5 any step.",
    ),
]);

pub(super) static REWARD: Mapping = Mapping {
    keys: &[
        key("on", Shape::EventTypes, "The event types that are rewarded."),
        key("step", Shape::Name, "The step that is rewarded when it is done."),
        key("when", Shape::Condition, "Only where this holds."),
        needed("reward", REWARD_VALUE, "What it adds to the offer's reward."),
        key(
            "content",
            Shape::Words(&REWARDED_CONTENTS),
            "Whether the event must be about the content that was offered (`same`, unless it says otherwise) or may be about any.",
        ),
    ],
    any_of: &[&[&["on"], &["step"]]],
    excludes: &[("step", &["on", "content"])],
};

const REWARD_VALUE: Shape = Shape::Number(-REWARD_VALUE_MAX, REWARD_VALUE_MAX);

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
    any_of: &[&[&["on"], &["when"]]],
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
    key(
        "attributes",
        Shape::Named(&Shape::Scalar, CONTENT_ATTRIBUTES_MAX),
        "What a learner may know of it: a slot's `contents` reads them as content.NAME.",
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
        key(
            "offer",
            OFFER,
            "The content that it offers; a chain of reminders may have one for each.",
        ),
        key(
            "choose",
            Shape::Either(&[
                Shape::Words(&[ALL_CONTENTS]),
                Shape::OneOrMore(&Shape::Name, CANDIDATES_MAX),
            ]),
            "The contents that the slot's learner chooses from, instead of `offer`; `all` is every content.",
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
        &[
            &["on"],
            &["when"],
            &["enters"],
            &["leaves"],
            &["after", "since"],
            &["at", "since"],
        ],
        &[&["offer"], &["choose"]],
    ],
    excludes: &[
        ("offer", &["choose"]),
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

/// Least `reward_scale`.
pub(super) const REWARD_SCALE_MIN: f64 = 1e-4;
/// Largest `optimism` and `temperature`.
pub(super) const LEARNER_FACTOR_MAX: f64 = 100.0;
/// Largest weight of an arm.
pub(super) const ARM_WEIGHT_MAX: f64 = 1e6;
/// Days that a timer may wait.
pub(super) const DAYS_MAX: i64 = TIMER_MS_MAX / (24 * 60 * 60 * 1000);
