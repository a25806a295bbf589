//! Why a rule would or would not make its offer now: a profile, held against its journey as of a time.
//!
//! A pure function (P7): nothing is written, nobody is asked, and any time may be given (P12). The rules are evaluated by
//! the code that decides, on the profile as it is. What only an event brings (`event.*`) is not there, so a condition
//! that hangs on it says that it needs one.

use crate::condition::{Condition, Scope};
use crate::event::{Event, Location};
use crate::journey::{Cap, EventTypes, Journey, Limit, Moment, Rule, Since, Timer};
use crate::limits::EXPLAINED_TYPES_MAX;
use crate::profile::{Membership, Profile, RuleState};
use crate::rules::{ChoiceStanding, RuleOutcome, choice, consider, fired_within_limit, offered};
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::trigger::SeenValue;
use crate::value::Scalar;
use crate::{policy, timers};

/// Where a user stands in a journey as of a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The time.
    pub now: Timestamp,
    /// Whether the user is in the journey, where that has conditions for it.
    pub membership: Option<(bool, Membership)>,
    /// How far each cap of the policy is used.
    pub caps: Vec<CapStanding>,
    /// The time of the user's day in minutes since midnight, and the time zone that it is in where one is known of the
    /// user; where the journey goes by it.
    pub local_time: Option<(u16, Option<String>)>,
    /// Whether all offers are held out from the user, where the policy holds any out.
    pub is_held_out: Option<bool>,
    /// The user's arm of each experiment.
    pub arms: Vec<(String, String)>,
    /// The rules that were asked for, in the journey's order.
    pub rules: Vec<RuleStanding>,
}

/// How far a cap is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapStanding {
    /// So many offers are allowed.
    pub offers: usize,
    /// Within so many milliseconds.
    pub within_ms: i64,
    /// The slot that it is for; overall without one.
    pub slot: Option<String>,
    /// So many were made.
    pub used: usize,
    /// When the next one is allowed, where none is now.
    pub free_at: Option<Timestamp>,
}

/// Where a rule stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleStanding {
    /// The rule's index in the journey.
    pub rule: usize,
    /// What would become of it now: for each event type that it looks at, those that come out the same together. For a
    /// timer, one: as if its next reminder were due now.
    pub looks: Vec<LookStanding>,
    /// Its conditions and those of what it offers next, or may choose.
    pub conditions: Vec<ConditionStanding>,
    /// How far its timer is.
    pub timer: Option<TimerStanding>,
    /// How its learner would choose now, where one does.
    pub choice: Option<ChoiceStanding>,
    /// The offer that was put off: until when, and what, unless that is chosen then.
    pub put_off: Option<(Timestamp, Option<String>)>,
    /// How often it fired.
    pub fired: u64,
    /// When it fired last.
    pub last_fired_at: Option<Timestamp>,
    /// Its limit, and how often it fired in what that counts for.
    pub limit: Option<(u64, Limit)>,
    /// Until when it is silent for its cooldown.
    pub cooling_until: Option<Timestamp>,
    /// The user's quiet hours in its slot end then.
    pub quiet_until: Option<Timestamp>,
    /// The name of its group of rules, and the rule that keeps it silent now.
    pub group: Option<(String, Option<String>)>,
    /// Whether it is held out from the user, where it or the policy holds out any.
    pub is_held_out: Option<bool>,
}

/// What would become of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookStanding {
    /// At an event of these types, as far as they are named; of any without one.
    pub event_types: Vec<String>,
    /// The outcome; none where the rule looks for a change and there is none.
    pub outcome: Option<RuleOutcome>,
    /// Whether that hangs on what only an event brings.
    pub needs_event: bool,
    /// The same for people, such as `cooling down until 2026-01-05T10:00:00Z`.
    pub detail: String,
}

/// What a condition of a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionRole {
    /// The rule fires when it begins to hold.
    Enters,
    /// The rule fires when it ceases to hold.
    Leaves,
    /// The rule only fires when it holds.
    When,
    /// The rule does not fire when it holds.
    Unless,
    /// The timer starts at an event on which it holds.
    Since,
    /// The content is only offered while it holds.
    ContentWhen(String),
    /// The content is not offered while it holds.
    ContentUnless(String),
}

/// How a condition stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionStanding {
    /// What it is for.
    pub role: ConditionRole,
    /// As it was written.
    pub source: String,
    /// Whether it holds; none where it can't be evaluated.
    pub holds: Option<bool>,
    /// Why it can't be evaluated, where it is not for want of an event.
    pub error: Option<String>,
    /// What it reads.
    pub values: Vec<ReadValue>,
}

/// A value that a condition reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadValue {
    /// Such as `features.clicks_10m`.
    pub name: String,
    /// The value as JSON; none where it takes an event.
    pub json: Option<String>,
}

/// How far a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerStanding {
    /// What it counts from.
    pub since: Timestamp,
    /// How many of its reminders are done with.
    pub done: u32,
    /// How many it has.
    pub reminders: usize,
    /// When the next one is due, which may have passed: then the next record of the user makes it, as of that time.
    pub due_at: Option<Timestamp>,
}

/// Where a user stands as of `now`, with one rule, by its index, or all.
pub fn explain(
    journey: &Journey,
    snapshots: &Snapshots,
    profile: &Profile,
    user: &str,
    now: Timestamp,
    rule: Option<usize>,
) -> Explanation {
    let membership = policy::has_membership(journey).then(|| (policy::is_in(journey, profile), profile.membership));
    let local_time = journey.goes_by_local_time().then(|| {
        let minute = policy::local_clock(journey, profile).minute_of_day(now);
        (minute, timezone(profile).map(str::to_owned))
    });
    let rules = (0..journey.rules.len()).filter(|index| rule.is_none_or(|asked| asked == *index));
    Explanation {
        now,
        membership,
        caps: caps(journey, profile, now),
        local_time,
        is_held_out: journey.policy.holdout.as_ref().map(|holdout| holdout.includes(user)),
        arms: policy::arms(journey, user),
        rules: rules
            .filter_map(|index| standing(journey, snapshots, profile, user, now, index))
            .collect(),
    }
}

fn caps(journey: &Journey, profile: &Profile, now: Timestamp) -> Vec<CapStanding> {
    let standing = |cap: &Cap| {
        let slot = cap.slot.as_ref().map(|(fingerprint, _)| *fingerprint);
        let counts = |at: Timestamp, of: u32| now.ms_since(at) < cap.within_ms && slot.is_none_or(|slot| slot == of);
        let made = profile.offers.iter().filter(|made| counts(made.at, made.slot));
        let times: Vec<Timestamp> = made.map(|made| made.at).collect();
        // The oldest ones leave first; when fewer than allowed are left, the next may come.
        let last_to_leave = times.len().checked_sub(cap.offers).and_then(|index| times.get(index));
        CapStanding {
            offers: cap.offers,
            within_ms: cap.within_ms,
            slot: cap.slot.as_ref().map(|(_, name)| name.clone()),
            used: times.len(),
            free_at: last_to_leave.map(|at| at.plus_ms(cap.within_ms)),
        }
    };
    journey.policy.caps.iter().map(standing).collect()
}

fn standing(
    journey: &Journey,
    snapshots: &Snapshots,
    profile: &Profile,
    user: &str,
    now: Timestamp,
    index: usize,
) -> Option<RuleStanding> {
    let (rule, state) = (journey.rules.get(index)?, profile.rules.get(index)?);
    let looks = looks(journey, snapshots, profile, user, now, index);
    let bare = bare_event(profile, user, first_type(rule), now);
    let scope = Scope {
        journey,
        event: &bare,
        profile,
        snapshots,
        now,
    };
    let cooldown_ends = rule.cooldown_ms.zip(state.last_fired_at);
    let cooling_until = cooldown_ends.map(|(cooldown_ms, last)| last.plus_ms(cooldown_ms));
    let put_off = state.put_off.as_ref().map(|put_off| {
        let content = match rule.learner {
            Some(_) => None,
            None => journey.contents.get(rule.offer(put_off.reminder as usize)),
        };
        (put_off.until, content.map(|content| content.id.clone()))
    });
    let group = rule.group.and_then(|group| journey.policy.groups.get(group));
    let excluded_by = policy::excluded_by(journey, profile, index, now, &[]);
    let has_holdout = rule.holdout.is_some() || journey.policy.holdout.is_some();
    Some(RuleStanding {
        rule: index,
        looks,
        conditions: conditions(rule, state, &scope),
        timer: timer(journey, profile, index),
        choice: choice(&scope, index),
        put_off,
        fired: state.fired,
        last_fired_at: state.last_fired_at,
        limit: rule
            .limit
            .map(|limit| (fired_within_limit(journey, profile, state, limit), limit)),
        cooling_until: cooling_until.filter(|until| *until > now),
        quiet_until: policy::quiet_until(journey, profile, rule.slot_fingerprint, now),
        group: group.map(|group| {
            let other = excluded_by.and_then(|other| journey.rules.get(other));
            (group.name.clone(), other.map(|other| other.id.clone()))
        }),
        is_held_out: has_holdout.then(|| policy::is_held_out(journey, index, user)),
    })
}

/// The time zone that is known of the user.
fn timezone(profile: &Profile) -> Option<&str> {
    match &profile.timezone.as_ref()?.value {
        Scalar::Text(name) => Some(name),
        _ => None,
    }
}

/// An event of which nothing is known but whose it is, its type, and that it came now.
fn bare_event<'e>(profile: &'e Profile, user: &'e str, event_type: &'e str, now: Timestamp) -> Event<'e> {
    Event {
        user: user.into(),
        event_type: event_type.into(),
        at: now,
        location: Location {
            timezone: timezone(profile).map(Into::into),
            ..Location::default()
        },
        ..Event::default()
    }
}

/// A type that a rule looks at; an empty one where it looks at any.
fn first_type(rule: &Rule) -> &str {
    match rule.event_types() {
        EventTypes::These(types) => types.first().map_or("", String::as_str),
        EventTypes::Any => "",
    }
}

fn looks(
    journey: &Journey,
    snapshots: &Snapshots,
    profile: &Profile,
    user: &str,
    now: Timestamp,
    index: usize,
) -> Vec<LookStanding> {
    let rule = &journey.rules[index];
    let types: &[String] = match (&rule.moment, rule.event_types()) {
        (Moment::Timer(_), _) | (_, EventTypes::Any) => &[],
        (_, EventTypes::These(types)) => types,
    };
    let any = [String::new()];
    let asked = if types.is_empty() { &any } else { types };
    let mut looks: Vec<LookStanding> = Vec::new();
    for event_type in asked.iter().take(EXPLAINED_TYPES_MAX) {
        let event = bare_event(profile, user, event_type, now);
        let scope = Scope {
            journey,
            event: &event,
            profile,
            snapshots,
            now,
        };
        let considered = consider(&scope, index);
        let look = LookStanding {
            event_types: Vec::new(),
            needs_event: needs_event(rule, &profile.rules[index], &scope, considered.outcome),
            outcome: considered.outcome,
            detail: considered.detail,
        };
        let is_same = |known: &&mut LookStanding| (known.outcome, &known.detail) == (look.outcome, &look.detail);
        let types = match looks.iter_mut().find(is_same) {
            Some(known) => &mut known.event_types,
            None => {
                looks.push(look);
                match looks.last_mut() {
                    Some(new) => &mut new.event_types,
                    None => continue,
                }
            }
        };
        if !event_type.is_empty() {
            types.push(event_type.clone());
        }
    }
    looks
}

/// Whether an outcome is for want of what only an event brings: a condition that decides it could not be evaluated, and
/// reads an event.
fn needs_event(rule: &Rule, state: &RuleState, scope: &Scope<'_>, outcome: Option<RuleOutcome>) -> bool {
    let reminder = state.timer.map_or(0, |timer| timer.done);
    let lacks = |condition: &Condition| condition.reads_of_event().is_some() && condition.is_met(scope).is_err();
    match outcome {
        Some(RuleOutcome::ConditionFailed) => [&rule.when, &rule.unless].into_iter().flatten().any(lacks),
        Some(RuleOutcome::ContentIneligible) => offered(scope.journey, rule, reminder)
            .flat_map(|content| [&content.when, &content.unless])
            .flatten()
            .any(lacks),
        _ => false,
    }
}

fn conditions(rule: &Rule, state: &RuleState, scope: &Scope<'_>) -> Vec<ConditionStanding> {
    let mut standings = Vec::new();
    let mut add = |role: ConditionRole, condition: Option<&Condition>| {
        if let Some(condition) = condition {
            standings.push(condition_standing(role, condition, scope));
        }
    };
    match &rule.moment {
        Moment::Enters(condition) => add(ConditionRole::Enters, Some(condition)),
        Moment::Leaves(condition) => add(ConditionRole::Leaves, Some(condition)),
        Moment::Timer(Timer {
            since: Since::Event(when),
            ..
        }) => add(ConditionRole::Since, when.as_ref()),
        Moment::Timer(_) => {}
        Moment::Event => {}
    }
    add(ConditionRole::When, rule.when.as_ref());
    add(ConditionRole::Unless, rule.unless.as_ref());
    let reminder = state.timer.map_or(0, |timer| timer.done);
    for content in offered(scope.journey, rule, reminder) {
        add(ConditionRole::ContentWhen(content.id.clone()), content.when.as_ref());
        add(
            ConditionRole::ContentUnless(content.id.clone()),
            content.unless.as_ref(),
        );
    }
    standings
}

fn condition_standing(role: ConditionRole, condition: &Condition, scope: &Scope<'_>) -> ConditionStanding {
    let met = condition.is_met(scope);
    let reads_event = condition.reads_of_event().is_some();
    // The event is made up: it says its user, the time, and its type where the rule names any.
    let is_known = |name: &str| match name {
        "event.type" => !scope.event.event_type.is_empty(),
        "event.user_id" | "event.local_hour" | "event.local_weekday" => true,
        _ => false,
    };
    let takes_an_event = |name: &str| name.starts_with("event.") && !is_known(name);
    let value = |seen: SeenValue| ReadValue {
        json: (!takes_an_event(&seen.name)).then_some(seen.json),
        name: seen.name,
    };
    ConditionStanding {
        role,
        source: condition.source().to_owned(),
        holds: met.as_ref().ok().copied(),
        error: met.err().filter(|_| !reads_event).map(|error| error.to_string()),
        values: condition.seen(scope).into_iter().map(value).collect(),
    }
}

fn timer(journey: &Journey, profile: &Profile, index: usize) -> Option<TimerStanding> {
    let Moment::Timer(timer) = &journey.rules.get(index)?.moment else {
        return None;
    };
    let state = profile.rules.get(index)?.timer?;
    Some(TimerStanding {
        since: state.since,
        done: state.done,
        reminders: timer.reminders.len(),
        due_at: timers::due_of(journey, profile, index),
    })
}

#[cfg(test)]
mod tests;
