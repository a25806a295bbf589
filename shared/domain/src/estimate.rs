//! How large a profile gets under a journey, and what a write of it costs, before any event came.

use std::collections::BTreeSet;

use crate::bandit::context::FeatureKind;
use crate::bandit::limits::BANDIT_TEXT_BUCKETS_MAX;
use crate::bandit::statistics::Statistics;
use crate::condition::Condition;
use crate::feature::ItemBytes;
use crate::journey::{Journey, LimitPer, Moment, Outcomes, QuietAction, Rule, SlotLearner};
use crate::limits::{
    ALIASES_MAX, EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, GUARD_SHARDS_MAX, IDENTIFIER_BYTES_MAX, OFFERS_MADE_MAX,
    OPEN_OFFERS_MAX, OPEN_SESSIONS_MAX, REASON_VALUES_MAX, STORED_TEXT_BYTES_MAX,
};
use crate::policy;

/// Bytes that one write capacity unit covers
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>).
pub const WRITE_UNIT_BYTES: usize = 1024;
/// The largest item that DynamoDB takes.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Further write units of a write that moves a user's next timer: the index of due users loses one entry and gets another
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html#GSI.ThroughputConsiderations.Writes>).
pub const INDEX_WRITE_UNITS: usize = 2;

// What is typical is calibrated with the parts of the 383 profiles that the demo's 62,753 events leave.

/// The names and values of an item's other attributes, with a user id of 36 bytes (one of 256, at worst), and the heads of
/// the state's own parts.
const ATTRIBUTES: ItemBytes = ItemBytes::new(114, 370);
/// The attributes of the index of due users, for a journey with timers.
const DUE_ATTRIBUTES: ItemBytes = ItemBytes::new(30, 31);
/// A shard that the guard keeps.
const GUARD_ENTRY: ItemBytes = ItemBytes::new(36, 45);
/// A session that is kept.
const SESSION: ItemBytes = ItemBytes::new(13, 28);
const EVENT_ID_HASH_BYTES: usize = 8;
const STEP: ItemBytes = ItemBytes::new(12, 15);
const RULE: ItemBytes = ItemBytes::new(13, 28);
/// When a timer started, and how many of its reminders are done.
const TIMER: ItemBytes = ItemBytes::new(8, 18);
/// Whether the condition of a transition held.
const HOLDS: ItemBytes = ItemBytes::new(2, 3);
/// How often a rule fired in the session, or under the journey's version.
const WITHIN_LIMIT: ItemBytes = ItemBytes::new(9, 20);
/// An offer that is remembered for caps, cool-downs and groups, and how many a user got in the time that they look back.
const OFFER_MADE: ItemBytes = ItemBytes::new(17, 21);
const OFFERS_TYPICAL: usize = 2;
/// An offer whose outcome is open: its decision, rule, content, times and flags; at worst with all that was rewarded but for
/// the rewards' names, its probability, and the user whose it was before a merge.
const OPEN_OFFER: ItemBytes = ItemBytes::new(45, 90 + IDENTIFIER_BYTES_MAX);
/// The name of something that was rewarded, which a typical offer has not.
const REWARDED_BYTES: usize = 5;
/// What the learner saw where it chose: the probability, the layout, the model's version; beside the numbers.
const SEEN_BY_LEARNER: ItemBytes = ItemBytes::new(28, 28);
/// A number that the learner saw: most are 0, or a root of a small count.
const SEEN_NUMBER: ItemBytes = ItemBytes::new(2, 6);
const MEMBERSHIP: ItemBytes = ItemBytes::new(7, 22);
/// Where the user's clock is.
const TIME_ZONE: ItemBytes = ItemBytes::new(25, 22 + STORED_TEXT_BYTES_MAX);
/// The heads, times and numbers of a put-off offer and its cause, the id of its shard included.
const PUT_OFF_BYTES: usize = 160;
/// A value that a put-off offer's condition read, beside its name: a long text is cut, and quoted once more.
const SEEN_VALUE_BYTES_MAX: usize = STORED_TEXT_BYTES_MAX + 64;
/// A trait's time, shard and value, beside its name.
const TRAIT: ItemBytes = ItemBytes::new(23, 22 + STORED_TEXT_BYTES_MAX);
/// Of the traits and rules of a journey, and of its steps, the part that a typical user has come to.
const REACHED_HALF: (usize, usize) = (1, 2);
const REACHED_MOST: (usize, usize) = (3, 4);

/// What a part of the journey costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Such as `features.clicks_10m`.
    pub name: String,
    /// Its bytes in the item.
    pub bytes: ItemBytes,
}

/// The size of a profile's item, without triggers that were not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemEstimate {
    /// The whole item.
    pub bytes: ItemBytes,
    /// What makes it up, in the journey's order.
    pub parts: Vec<Part>,
    /// Whether users may wait for something, so that some writes change the index of due users too and cost
    /// [`INDEX_WRITE_UNITS`] more.
    pub writes_index: bool,
}

impl ItemEstimate {
    /// Write capacity units of one write of a typical item.
    pub fn typical_write_units(&self) -> usize {
        self.bytes.typical.div_ceil(WRITE_UNIT_BYTES)
    }

    /// Write capacity units of one write of the largest item.
    pub fn worst_write_units(&self) -> usize {
        self.bytes.worst.div_ceil(WRITE_UNIT_BYTES)
    }

    /// Whether the largest item is larger than DynamoDB takes. A user who gets there is parked.
    pub fn may_outgrow_the_table(&self) -> bool {
        self.bytes.worst > ITEM_BYTES_MAX
    }
}

/// How large a profile gets under a journey.
pub fn estimated_bytes(journey: &Journey) -> ItemEstimate {
    let ids = journey.dedupe_last * EVENT_ID_HASH_BYTES;
    let features = journey.features.iter().map(|feature| {
        let bytes = feature.computation.item_bytes();
        (format!("features.{}", feature.name), bytes)
    });
    let names: usize = journey.traits.iter().map(String::len).sum();
    let traits = reached(journey.traits.len(), TRAIT, REACHED_HALF) + ItemBytes::new(names / 2, names);
    let writes_index = writes_index(journey);
    let when = |is_so: bool, bytes: ItemBytes| if is_so { bytes } else { ItemBytes::default() };
    let always = [
        ("attributes", ATTRIBUTES),
        ("guard", GUARD_ENTRY.times(1, GUARD_SHARDS_MAX)),
        ("dedupe", ItemBytes::new(ids, ids)),
        ("sessions", SESSION.times(OPEN_SESSIONS_MAX, OPEN_SESSIONS_MAX)),
        ("identity", ItemBytes::new(0, ALIASES_MAX * EVENT_ID_HASH_BYTES + 4)),
    ];
    let offers = OFFER_MADE.times(OFFERS_TYPICAL, OFFERS_MADE_MAX) + ItemBytes::new(4, 10);
    let further = [
        ("steps", reached(journey.steps.len(), STEP, REACHED_MOST)),
        ("traits", traits),
        ("triggers", reached(journey.rules.len(), RULE, REACHED_HALF)),
        ("triggers: timers", of_rules(journey, timer)),
        ("triggers: transitions", of_rules(journey, transition)),
        ("triggers: limits", of_rules(journey, limit)),
        ("triggers: put-off offers", of_rules(journey, put_off)),
        (
            "policy: latest offers",
            when(policy::offers_kept_ms(journey).is_some(), offers),
        ),
        (
            "policy: entry and exit",
            when(policy::has_membership(journey), MEMBERSHIP),
        ),
        ("policy: time zone", when(journey.goes_by_local_time(), TIME_ZONE)),
        (
            "outcomes: open offers",
            (journey.outcomes.as_ref()).map_or(ItemBytes::default(), |outcomes| open_offers(journey, outcomes)),
        ),
        ("next_due_at", when(writes_index, DUE_ATTRIBUTES)),
    ];
    let named = |(name, bytes): (&str, ItemBytes)| (name.to_owned(), bytes);
    let all = always
        .into_iter()
        .map(named)
        .chain(features)
        .chain(further.into_iter().map(named));
    let parts: Vec<Part> = all
        .filter(|(_, bytes)| *bytes != ItemBytes::default())
        .map(|(name, bytes)| Part { name, bytes })
        .collect();
    ItemEstimate {
        bytes: parts.iter().map(|part| part.bytes).sum(),
        parts,
        writes_index,
    }
}

/// A number of a model's sums, after a million outcomes.
const MODEL_SUM_BYTES: usize = 9;
/// What a model keeps beside its sums: what it was made for, the positions of some shards; and beside each arm's, its name.
const MODEL_HEAD_BYTES: usize = 100;
const MODEL_ARM_BYTES: usize = 8;

/// What the learner of a slot sees and keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotEstimate {
    /// The slot.
    pub slot: String,
    /// The learner's name, such as `linear_thompson`.
    pub learner: &'static str,
    /// Numbers of its context.
    pub context: usize,
    /// What each value of the context takes of them; of a text at most.
    pub context_values: Vec<(String, usize)>,
    /// Numbers of a candidate's own features.
    pub contents: usize,
    /// What each value of a candidate takes of them.
    pub content_values: Vec<(String, usize)>,
    /// Contents that some trigger chooses from for this slot.
    pub candidates: usize,
    /// Bytes of its model after a million outcomes.
    pub model_bytes: usize,
}

/// What the learners of a journey see and keep, in its order.
pub fn estimated_slots(journey: &Journey) -> Vec<SlotEstimate> {
    let slots = journey.learners.iter().enumerate();
    slots
        .map(|(index, learner)| estimated_slot(journey, index, learner))
        .collect()
}

fn estimated_slot(journey: &Journey, index: usize, learner: &SlotLearner) -> SlotEstimate {
    let choosing = journey.rules.iter().filter(|rule| rule.learner == Some(index));
    let candidates: BTreeSet<usize> = choosing.flat_map(|rule| rule.offers.iter().copied()).collect();
    let sums = |dimension: usize| Statistics::new(dimension).sums().len() * MODEL_SUM_BYTES;
    let dimension = learner.layout.dimension();
    let names = candidates.iter().filter_map(|index| journey.contents.get(*index));
    let of_arms: usize = names
        .map(|content| content.id.len() + MODEL_ARM_BYTES + sums(dimension))
        .sum();
    let of_shared = learner.layout.shared_dimension().map_or(0, sums);
    SlotEstimate {
        slot: learner.slot.clone(),
        learner: learner.learner.algorithm.name(),
        context: dimension,
        context_values: (learner.context.iter())
            .map(|value| (value.name.clone(), numbers_of(&value.kind)))
            .collect(),
        contents: content_numbers(learner),
        content_values: (learner.contents.iter())
            .map(|value| (value.name.clone(), numbers_of(&value.kind)))
            .collect(),
        candidates: candidates.len(),
        model_bytes: MODEL_HEAD_BYTES + of_arms + of_shared,
    }
}

/// As many as a typical user has come to, and all of them.
fn reached(count: usize, one: ItemBytes, (part, of): (usize, usize)) -> ItemBytes {
    one.times((count * part).div_ceil(of), count)
}

fn of_rules(journey: &Journey, bytes: impl Fn(&Journey, &Rule) -> ItemBytes) -> ItemBytes {
    journey.rules.iter().map(|rule| bytes(journey, rule)).sum()
}

fn timer(_: &Journey, rule: &Rule) -> ItemBytes {
    match rule.moment {
        Moment::Timer(_) => TIMER,
        _ => ItemBytes::default(),
    }
}

fn transition(_: &Journey, rule: &Rule) -> ItemBytes {
    match rule.moment {
        Moment::Enters(_) | Moment::Leaves(_) => HOLDS,
        _ => ItemBytes::default(),
    }
}

fn limit(_: &Journey, rule: &Rule) -> ItemBytes {
    match rule.limit {
        Some(limit) if limit.per != LimitPer::User => WITHIN_LIMIT,
        _ => ItemBytes::default(),
    }
}

/// A put-off offer keeps its cause and what its condition read; a typical user has none.
fn put_off(journey: &Journey, rule: &Rule) -> ItemBytes {
    if !may_be_put_off(journey, rule) {
        return ItemBytes::default();
    }
    let of_moment = match &rule.moment {
        Moment::Enters(condition) | Moment::Leaves(condition) => Some(condition),
        Moment::Event | Moment::Timer(_) => None,
    };
    let conditions = [of_moment, rule.when.as_ref(), rule.unless.as_ref()];
    let mut names: Vec<usize> = conditions
        .into_iter()
        .flatten()
        .flat_map(Condition::reads)
        .map(|(name, _)| name.len())
        .collect();
    names.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    let seen = names.iter().take(REASON_VALUES_MAX);
    let seen: usize = seen.map(|name| name + SEEN_VALUE_BYTES_MAX).sum();
    ItemBytes::new(0, PUT_OFF_BYTES + EVENT_ID_BYTES_MAX + EVENT_TYPE_BYTES_MAX + seen)
}

/// A user has as many open offers as were made in the time for which outcomes count.
fn open_offers(journey: &Journey, outcomes: &Outcomes) -> ItemBytes {
    let rewarded = ItemBytes::new(0, REWARDED_BYTES * outcomes.rewards.len());
    let of_learner = |rule: &Rule| match rule.learner.and_then(|index| journey.learners.get(index)) {
        Some(learner) => {
            let numbers = learner.layout.dimension() + content_numbers(learner);
            SEEN_BY_LEARNER + SEEN_NUMBER.times(numbers, numbers)
        }
        None => ItemBytes::default(),
    };
    let seen = journey.rules.iter().map(of_learner);
    let seen = seen.max_by_key(|bytes| bytes.worst).unwrap_or_default();
    (OPEN_OFFER + rewarded + seen).times(OFFERS_TYPICAL, OPEN_OFFERS_MAX) + ItemBytes::new(2, 4)
}

/// Numbers of a content's own features.
fn content_numbers(learner: &SlotLearner) -> usize {
    learner.contents.iter().map(|value| numbers_of(&value.kind)).sum()
}

/// Numbers that a feature of a learner takes, at most.
fn numbers_of(kind: &FeatureKind) -> usize {
    match kind {
        FeatureKind::Number | FeatureKind::Bool => 1,
        FeatureKind::OneOf(values) => values.len() + 1,
        FeatureKind::Text => BANDIT_TEXT_BUCKETS_MAX,
    }
}

fn may_be_put_off(journey: &Journey, rule: &Rule) -> bool {
    let quiet = journey.policy.quiet_hours.as_ref();
    quiet.is_some_and(|quiet| {
        quiet.then == QuietAction::Defer && (quiet.slots.is_empty() || quiet.slots.contains(&rule.slot_fingerprint))
    })
}

/// Whether a user may have to be woken, so that the index of due users has an entry for them.
fn writes_index(journey: &Journey) -> bool {
    let mut rules = journey.rules.iter();
    // The window of an offer runs out without an event.
    journey.outcomes.is_some() && !journey.rules.is_empty()
        || rules.any(|rule| matches!(rule.moment, Moment::Timer(_)) || may_be_put_off(journey, rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DEFAULT_JOURNEY, journey};

    #[test]
    fn p8_a_typical_item_of_the_default_journey_is_estimated_at_one_write_unit() {
        let estimate = estimated_bytes(&journey(DEFAULT_JOURNEY));
        println!("{estimate:#?}");
        // The demo's median item has 1,002 bytes, with user ids of 12 bytes instead of 36.
        assert!(
            (1000..=WRITE_UNIT_BYTES).contains(&estimate.bytes.typical),
            "{:?}",
            estimate.bytes
        );
        assert!(!estimate.may_outgrow_the_table() && !estimate.writes_index);
        let sum: ItemBytes = estimate.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(sum, estimate.bytes);
    }

    #[test]
    fn p8_a_journey_whose_items_may_outgrow_the_table_is_told_so() {
        let features: String = (0..64)
            .map(|number| format!("  f{number}: {{ mean: properties.a, within: 90d }}\n"))
            .collect();
        let estimate = estimated_bytes(&journey(&format!("journey: j\nfeatures:\n{features}")));
        assert!(estimate.may_outgrow_the_table(), "{:?}", estimate.bytes);
        assert!(estimate.worst_write_units() > 400 && estimate.typical_write_units() < 10);
    }

    #[test]
    fn p8_what_rules_and_the_policy_keep_is_estimated() {
        const FILE: &str = "journey: j
steps: [{ id: s, on: a }]
contents: [{ id: c }]
triggers:
  - { id: event, on: a, when: features.f > 1, offer: c, slot: in_app, limit: { count: 1, per: session } }
  - { id: timer, after: 1h, since: steps.s, offer: c, slot: email }
  - { id: turn, enters: features.f > 1, offer: c, slot: in_app }
features: { f: { count: a } }
exit: steps.s.done
policy: { cap: { offers: 1, within: 1d }, quiet_hours: { from: '22:00', to: '8:00', slots: email } }
";
        let estimate = estimated_bytes(&journey(FILE));
        let worst = |name: &str| {
            let part = estimate.parts.iter().find(|part| part.name == name);
            part.map(|part| part.bytes.worst)
        };
        for (name, expected) in [
            ("triggers", Some(84)),
            ("triggers: timers", Some(18)),
            ("triggers: transitions", Some(3)),
            ("triggers: limits", Some(20)),
            ("triggers: put-off offers", Some(288)), // in the slot `email` only, where no condition reads anything
            ("policy: latest offers", Some(64 * 21 + 10)),
            ("policy: entry and exit", Some(22)),
            ("policy: time zone", Some(278)),
            ("next_due_at", Some(31)),
            ("traits", None),
        ] {
            assert_eq!(worst(name), expected, "{name}");
        }
        assert!(estimate.writes_index);
    }

    #[test]
    fn p8_what_learners_see_and_keep_is_estimated() {
        const FILE: &str = "journey: j
features: { f: { count: a } }
contents: [{ id: tour, attributes: { kind: video } }, { id: demo }, { id: other }]
triggers:
  - { id: r, on: a, choose: [tour, demo], slot: in_app }
  - { id: q, on: b, choose: [demo, other], slot: in_app }
  - { id: p, on: b, choose: [demo, other], slot: email }
slots:
  in_app:
    context: { clicks: features.f, plan: { value: traits.plan, one_of: [free, team] } }
    contents: { kind: { value: content.kind, one_of: [video] } }
outcomes: { within: 1d, reward: { click: 1 } }
";
        let read = journey(FILE);
        let slots = estimated_slots(&read);
        let named = |name: &str, numbers: usize| vec![(name.to_owned(), numbers)];
        assert_eq!(slots.len(), 2);
        assert_eq!(slots[0].context_values, [named("clicks", 1), named("plan", 3)].concat());
        assert_eq!(slots[0].content_values, named("kind", 2));
        // 21 sums for each of three arms, and 78 for the 10 numbers of the shared model.
        assert_eq!(slots[0].model_bytes, 100 + 13 + 3 * (8 + 21 * 9) + 78 * 9);
        let shown = |slot: &SlotEstimate| {
            (
                slot.slot.clone(),
                slot.learner,
                slot.context,
                slot.contents,
                slot.candidates,
            )
        };
        assert_eq!(shown(&slots[0]), ("in_app".to_owned(), "linear_thompson", 4, 2, 3));
        assert_eq!(shown(&slots[1]), ("email".to_owned(), "thompson", 0, 0, 2));
        let estimate = estimated_bytes(&read);
        let part = estimate.parts.iter().find(|part| part.name == "outcomes: open offers");
        let seen = 28 + 6 * 2;
        let worst = 16 * (90 + 256 + 5 + 28 + 6 * 6) + 4;
        assert_eq!(
            part.map(|part| part.bytes),
            Some(ItemBytes::new(2 * (45 + seen) + 2, worst))
        );
        assert!(estimate.writes_index, "a window runs out without an event");
    }
}
