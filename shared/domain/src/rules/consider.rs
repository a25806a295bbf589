//! How one rule comes out as of a moment, and what tells why.

use super::choose::{self, ChoiceStanding};
use super::{Look, LookAt, RuleOutcome};
use crate::condition::{Condition, EvaluationError, Scope};
use crate::journey::{Content, Journey, Limit, LimitPer, Moment, QuietAction, Rule};
use crate::limits::{DETAIL_BYTES_MAX, REASON_VALUES_MAX, TIMER_LATE_MS_MAX};
use crate::policy;
use crate::profile::{Profile, RuleState};
use crate::time::Timestamp;
use crate::trigger::SeenValue;

/// How a rule comes out, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The outcome; none where the rule looks for a change and there is none.
    pub outcome: Option<RuleOutcome>,
    /// The same for people, such as `cooling down until 2026-01-05T10:00:00Z`. At most
    /// [`crate::limits::DETAIL_BYTES_MAX`] bytes.
    pub detail: String,
    /// Every value that its conditions and those of what it offers read, at most
    /// [`crate::limits::REASON_VALUES_MAX`].
    pub saw: Vec<SeenValue>,
}

/// What would become of a rule that looks now, with nothing changed by it: an event rule or a transition at the scope's
/// event, a timer as if its next reminder were due. The event must name the profile's user; where there is no event at hand,
/// give one that has nothing else. What another rule at the same moment would take from it is left out.
pub fn consider(scope: &Scope<'_>, rule: usize) -> Considered {
    let journey = scope.journey;
    let (Some(of_journey), Some(state)) = (journey.rules.get(rule), scope.profile.rules.get(rule)) else {
        return Considered {
            outcome: None,
            detail: String::new(),
            saw: Vec::new(),
        };
    };
    let look = look_now(of_journey, rule, state);
    let turned = match &of_journey.moment {
        Moment::Enters(condition) => condition.is_met(scope) == Ok(true) && !state.holds,
        Moment::Leaves(condition) => condition.is_met(scope) != Ok(true) && state.holds,
        Moment::Event | Moment::Timer(_) => true,
    };
    let outcome = match policy::is_in(journey, scope.profile) {
        true => judge(scope, look, turned, &[]),
        false => Some(RuleOutcome::NotInJourney),
    };
    let contents = offered(journey, of_journey, look.reminder());
    let of_contents = contents.flat_map(|content| [content.when.as_ref(), content.unless.as_ref()]);
    let of_contents = of_contents.flatten();
    Considered {
        outcome,
        detail: match outcome {
            Some(outcome) => detail(scope, look, outcome, &[]),
            None => unchanged(of_journey, state),
        },
        saw: seen(scope, conditions(of_journey).chain(of_contents)),
    }
}

/// How the learner of a rule would choose as of a moment, whatever else stands in the rule's way; nothing where it has none.
/// The scope is as for [`consider`].
pub fn choice(scope: &Scope<'_>, rule: usize) -> Option<ChoiceStanding> {
    let (of_journey, state) = (scope.journey.rules.get(rule)?, scope.profile.rules.get(rule)?);
    choose::standing(scope, look_now(of_journey, rule, state), of_journey)
}

/// The look of a rule that looks now.
fn look_now(rule: &Rule, index: usize, state: &RuleState) -> Look {
    let at = match rule.moment {
        Moment::Timer(_) => LookAt::Reminder(state.timer.map_or(0, |timer| timer.done)),
        Moment::Event | Moment::Enters(_) | Moment::Leaves(_) => LookAt::Event,
    };
    Look::new(index, at)
}

/// What a rule may offer: one content, or for a learner to choose from, all of them.
pub(crate) fn offered<'j>(journey: &'j Journey, rule: &'j Rule, reminder: u32) -> impl Iterator<Item = &'j Content> {
    let all = rule.offers.iter();
    let (skipped, taken) = match rule.learner {
        Some(_) => (0, rule.offers.len()),
        None => ((reminder as usize).min(rule.offers.len().saturating_sub(1)), 1),
    };
    all.skip(skipped)
        .take(taken)
        .filter_map(|index| journey.contents.get(*index))
}

/// How a look of a rule comes out whose user is in the journey: the first check that stops it. `turned` says whether what a transition looks for has just come
/// about, and `fired` which rules fired at this moment already.
#[inline]
pub(super) fn judge(scope: &Scope<'_>, look: Look, turned: bool, fired: &[usize]) -> Option<RuleOutcome> {
    let Scope {
        journey, profile, now, ..
    } = *scope;
    let rule = &journey.rules[look.rule];
    let state = &profile.rules[look.rule];
    if let Some(limit) = rule.limit
        && fired_within_limit(journey, profile, state, limit) >= limit.count
    {
        return Some(RuleOutcome::LimitReached);
    }
    if cooling_until(rule, state, now).is_some() {
        return Some(RuleOutcome::CoolingDown);
    }
    if !turned {
        return None;
    }
    let (when, unless) = checked_conditions(rule, look);
    match allowed(scope, when, unless) {
        Ok(true) => {}
        Ok(false) => return Some(RuleOutcome::ConditionFalse),
        Err(_) => return Some(RuleOutcome::ConditionFailed),
    }
    let refusal = match rule.learner {
        None => choose::refusal(scope, look, &[rule.offer(look.reminder() as usize)]),
        Some(_) => choose::refusal(scope, look, &rule.offers),
    };
    if refusal.is_some() {
        return refusal;
    }
    if rule.group.is_some() && policy::excluded_by(journey, profile, look.rule, now, fired).is_some() {
        return Some(RuleOutcome::Excluded);
    }
    if winner(journey, look.rule, fired).is_some() {
        return Some(RuleOutcome::LostToPriority);
    }
    if policy::capped(journey, profile, rule.slot_fingerprint, now).is_some() {
        return Some(RuleOutcome::Capped);
    }
    if let Some(quiet) = &journey.policy.quiet_hours
        && policy::quiet_until(journey, profile, rule.slot_fingerprint, now).is_some()
    {
        return Some(match quiet.then {
            QuietAction::Defer => RuleOutcome::QuietUntil,
            QuietAction::Drop => RuleOutcome::Quiet,
        });
    }
    if policy::is_held_out(journey, look.rule, &scope.event.user) {
        return Some(RuleOutcome::HeldOut);
    }
    Some(RuleOutcome::Fired)
}

/// Another rule that fired for the same slot at this moment. A rule whose put-off offer and next reminder are due at once
/// does not stand in its own way.
fn winner(journey: &Journey, rule: usize, fired: &[usize]) -> Option<usize> {
    let slot = &journey.rules[rule].slot;
    let of_slot = |index: &usize| *index != rule && journey.rules[*index].slot == *slot;
    fired.iter().copied().find(of_slot)
}

/// Until when a rule is silent for its cooldown, where that is after `now`.
fn cooling_until(rule: &Rule, state: &RuleState, now: Timestamp) -> Option<Timestamp> {
    let (cooldown_ms, last) = (rule.cooldown_ms?, state.last_fired_at?);
    (now.ms_since(last) < cooldown_ms).then(|| last.plus_ms(cooldown_ms))
}

/// How often a rule fired in what its limit counts for now.
pub(crate) fn fired_within_limit(journey: &Journey, profile: &Profile, state: &RuleState, limit: Limit) -> u64 {
    let counted = |is_same: &dyn Fn(i64) -> bool| {
        let within = state.within_limit.filter(|within| is_same(within.scope));
        within.map_or(0, |within| within.fired)
    };
    match limit.per {
        LimitPer::User => state.fired,
        LimitPer::Session => counted(&|scope| {
            let latest = profile.sessions.latest();
            latest.is_some_and(|session| session.start.epoch_ms() <= scope && scope <= session.end.epoch_ms())
        }),
        LimitPer::JourneyVersion => counted(&|scope| scope == super::firing::version_scope(journey)),
    }
}

/// What a put-off offer is checked for again is what can be told without its event.
fn is_checked(condition: &Condition, look: Look) -> bool {
    !look.is_put_off() || !condition.reads_event()
}

/// The `when` and `unless` that a look goes by. What a put-off offer's `when` asked for was there.
fn checked_conditions(rule: &Rule, look: Look) -> (Option<&Condition>, Option<&Condition>) {
    let when = rule.when.as_ref().filter(|_| !look.is_put_off());
    let unless = rule.unless.as_ref().filter(|unless| is_checked(unless, look));
    (when, unless)
}

/// The same of what it offers.
pub(super) fn checked_conditions_of_content(content: &Content, look: Look) -> (Option<&Condition>, Option<&Condition>) {
    let when = content.when.as_ref().filter(|when| is_checked(when, look));
    let unless = content.unless.as_ref().filter(|unless| is_checked(unless, look));
    (when, unless)
}

/// Whether `when` holds and `unless` doesn't. An `unless` that can't be evaluated doesn't hold: what it excludes is
/// not known to be there.
pub(super) fn allowed(
    scope: &Scope<'_>,
    when: Option<&Condition>,
    unless: Option<&Condition>,
) -> Result<bool, EvaluationError> {
    if let Some(when) = when
        && !when.is_met(scope)?
    {
        return Ok(false);
    }
    Ok(unless.is_none_or(|unless| unless.is_met(scope) != Ok(true)))
}

// ---- for people

/// The conditions of a rule: that of its transition, `when` and `unless`.
pub(super) fn conditions(rule: &Rule) -> impl Iterator<Item = &Condition> {
    let of_moment = match &rule.moment {
        Moment::Enters(condition) | Moment::Leaves(condition) => Some(condition),
        Moment::Event | Moment::Timer(_) => None,
    };
    [of_moment, rule.when.as_ref(), rule.unless.as_ref()]
        .into_iter()
        .flatten()
}

/// What some conditions read, each value once.
pub(super) fn seen<'c>(scope: &Scope<'_>, conditions: impl Iterator<Item = &'c Condition>) -> Vec<SeenValue> {
    let mut all: Vec<SeenValue> = Vec::new();
    for seen in conditions.flat_map(|condition| condition.seen(scope)) {
        if all.len() < REASON_VALUES_MAX && !all.iter().any(|known| known.name == seen.name) {
            all.push(seen);
        }
    }
    all
}

/// What a rule that did not fire read, where that is why.
pub(super) fn seen_by_loser(scope: &Scope<'_>, look: Look, outcome: RuleOutcome) -> Vec<SeenValue> {
    let rule = &scope.journey.rules[look.rule];
    match outcome {
        RuleOutcome::ConditionFalse | RuleOutcome::ConditionFailed if look.is_put_off() => {
            let (when, unless) = checked_conditions(rule, look);
            seen(scope, when.into_iter().chain(unless))
        }
        RuleOutcome::ConditionFalse | RuleOutcome::ConditionFailed => seen(scope, conditions(rule)),
        RuleOutcome::ContentIneligible => {
            let contents = offered(scope.journey, rule, look.reminder());
            let of_contents = contents.flat_map(|content| {
                let (when, unless) = checked_conditions_of_content(content, look);
                when.into_iter().chain(unless)
            });
            seen(scope, of_contents)
        }
        _ => Vec::new(),
    }
}

fn unchanged(rule: &Rule, state: &RuleState) -> String {
    let Some(condition) = conditions(rule).next() else {
        return String::new();
    };
    let holds = if state.holds { "held" } else { "did not hold" };
    let text = format!("no change: `{}` {holds} at the last look", condition.source());
    bounded(text, DETAIL_BYTES_MAX)
}

/// An outcome for people. What it says is worked out again, so that a rule which nobody asks about costs nothing.
pub(super) fn detail(scope: &Scope<'_>, look: Look, outcome: RuleOutcome, fired: &[usize]) -> String {
    let Scope {
        journey, profile, now, ..
    } = *scope;
    let rule = &journey.rules[look.rule];
    let state = &profile.rules[look.rule];
    // A learner's candidates stand for each other: of why they are not eligible, the first one tells.
    let content_index = rule.offer(rule.learner.map_or(look.reminder() as usize, |_| 0));
    let content = journey.contents.get(content_index);
    let content_id = content.map_or("", |content| content.id.as_str());
    let until = |until: Option<Timestamp>| until.map_or_else(String::new, |until| format!(" until {}", short(until)));
    let text = match outcome {
        RuleOutcome::Fired => "fired".to_owned(),
        RuleOutcome::HeldOut => "held out: in the control group, so nothing is shown".to_owned(),
        RuleOutcome::NotInJourney => match profile.membership.left_at {
            Some(left_at) => format!("not in the journey: left it at {}", short(left_at)),
            None => "not in the journey yet".to_owned(),
        },
        RuleOutcome::LimitReached => match rule.limit {
            Some(limit) => {
                let per = match limit.per {
                    LimitPer::User => "user",
                    LimitPer::Session => "session",
                    LimitPer::JourneyVersion => "version of the journey",
                };
                format!("limit reached: {} per {per}", limit.count)
            }
            None => "limit reached".to_owned(),
        },
        RuleOutcome::CoolingDown => format!("cooling down{}", until(cooling_until(rule, state, now))),
        RuleOutcome::ConditionFalse | RuleOutcome::ConditionFailed => {
            let (when, unless) = checked_conditions(rule, look);
            why_not(scope, when, unless)
        }
        RuleOutcome::ContentIneligible => {
            let (when, unless) = content.map_or((None, None), |content| checked_conditions_of_content(content, look));
            let why = why_not(scope, when, unless);
            match (rule.learner, rule.offers.len()) {
                (Some(_), 2..) => format!(
                    "none of {} candidates is eligible; {content_id}: {why}",
                    rule.offers.len()
                ),
                _ => format!("{content_id} is not eligible: {why}"),
            }
        }
        RuleOutcome::ContentCoolingDown if rule.learner.is_some() => {
            let eligible = rule.offers.iter().filter(|index| {
                let content = journey.contents.get(**index);
                content.is_some_and(|content| choose::is_eligible(scope, look, content))
            });
            let cooling = eligible.map(|index| policy::content_cooling_until(journey, profile, *index, now));
            let first = cooling.clone().flatten().min();
            match cooling.count() {
                1 => format!("the one candidate that is eligible is cooling down{}", until(first)),
                count => format!(
                    "all {count} candidates that are eligible are cooling down, the first{}",
                    until(first)
                ),
            }
        }
        RuleOutcome::ContentCoolingDown => {
            let cooling = policy::content_cooling_until(journey, profile, content_index, now);
            format!("{content_id} is cooling down{}", until(cooling))
        }
        RuleOutcome::Excluded => {
            let other = policy::excluded_by(journey, profile, look.rule, now, fired);
            let other = other.map_or("another rule", |other| journey.rules[other].id.as_str());
            let group = rule.group.and_then(|group| journey.policy.groups.get(group));
            format!(
                "excluded by {other} of group {}",
                group.map_or("", |group| group.name.as_str())
            )
        }
        RuleOutcome::LostToPriority => {
            let winner =
                winner(journey, look.rule, fired).map_or("another rule", |winner| journey.rules[winner].id.as_str());
            format!("lost to priority of {winner} for {}", rule.slot)
        }
        RuleOutcome::Capped => match policy::capped(journey, profile, rule.slot_fingerprint, now) {
            Some(cap) => {
                let slot = cap
                    .slot
                    .as_ref()
                    .map_or_else(String::new, |(_, slot)| format!(" in {slot}"));
                let offers = if cap.offers == 1 { "offer" } else { "offers" };
                format!(
                    "capped: {} {offers} within {}{slot}",
                    cap.offers,
                    duration(cap.within_ms)
                )
            }
            None => "capped".to_owned(),
        },
        RuleOutcome::QuietUntil | RuleOutcome::Quiet => {
            let quiet = policy::quiet_until(journey, profile, rule.slot_fingerprint, now);
            let dropped = if outcome == RuleOutcome::Quiet { ": dropped" } else { "" };
            format!("quiet{}{dropped}", until(quiet))
        }
        RuleOutcome::TooLate => {
            let late = duration(TIMER_LATE_MS_MAX);
            format!("too late: it was due more than {late} before the event that it counts from arrived")
        }
    };
    bounded(text, DETAIL_BYTES_MAX)
}

/// Which of two conditions stands in the way, and how.
fn why_not(scope: &Scope<'_>, when: Option<&Condition>, unless: Option<&Condition>) -> String {
    match (when.map(|when| (when, when.is_met(scope))), unless) {
        (Some((when, Ok(false))), _) => format!("`{}` does not hold", when.source()),
        (Some((when, Err(error))), _) => format!("`{}`: {error}", when.source()),
        (_, Some(unless)) => format!("`{}` holds", unless.source()),
        (_, None) => String::new(),
    }
}

/// A time that passes, as people write it: `90s`, `24h`, `7d`.
pub fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (24 * 60 * 60 * 1000, "d"),
        (60 * 60 * 1000, "h"),
        (60 * 1000, "m"),
        (1000, "s"),
    ];
    // One day is 24 hours.
    let whole = UNITS
        .iter()
        .find(|(unit_ms, name)| ms % unit_ms == 0 && (*name != "d" || ms > *unit_ms));
    match whole {
        Some((unit_ms, name)) => format!("{}{name}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

/// A time for people: without milliseconds where there are none.
fn short(time: Timestamp) -> String {
    time.to_string().replace(".000Z", "Z")
}

/// A text, or its front: a condition may be long, and a reason is stored with the profile (P8).
pub(super) fn bounded(mut text: String, bytes_max: usize) -> String {
    const MORE: char = '…';
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - MORE.len_utf8()));
        text.push(MORE);
    }
    text
}
