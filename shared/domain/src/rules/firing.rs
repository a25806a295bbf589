//! What firing leaves behind: the trigger, and what the profile remembers of it.

use super::choose;
use super::consider::{bounded, conditions, detail, duration, seen, seen_by_loser};
use super::{Look, Occasion, RuleOutcome};
use crate::condition::Scope;
use crate::event::TIMER_EVENT;
use crate::hash::hash_bytes;
use crate::journey::{Due, EventTypes, Journey, LimitPer, Moment, Rule, Since, Timer};
use crate::limits::{CONDITION_SHOWN_BYTES_MAX, PASSED_OVER_BYTES_MAX, REASON_RULES_MAX};
use crate::offers;
use crate::policy;
use crate::profile::{OfferMade, Profile, PutOff, WithinLimit};
use crate::sequence_number::SequenceNumber;
use crate::trigger::{Cause, PassedOver, Reason, SeenValue, Trigger, TriggerId};

/// The propensity of what a rule offers without a choice.
const FIXED_OFFER_PROPENSITY: f64 = 1.0;

/// Makes an offer: its trigger goes into the outbox, and limits, cooldowns and caps remember it. Who is held out is not
/// told apart by any of those, so that they differ from the others by what they are shown alone.
pub(super) fn fire(
    journey: &Journey,
    profile: &mut Profile,
    occasion: &Occasion<'_>,
    look: Look,
    put_off: Option<Box<PutOff>>,
    outcome: RuleOutcome,
) {
    let index = look.rule;
    let rule = &journey.rules[index];
    let (cause, saw) = match put_off {
        // What time caused has no record of its own: it is that of whoever wakes the user.
        Some(put_off) if put_off.cause.event_type == TIMER_EVENT => {
            let by_record = Cause {
                shard_id: occasion.record.shard.id.clone(),
                sequence_number: occasion.record.position.sequence_number,
                ..put_off.cause
            };
            (by_record, put_off.saw)
        }
        Some(put_off) => (put_off.cause, put_off.saw),
        None => (cause(occasion, look), saw(journey, profile, occasion, rule)),
    };
    let user = occasion.event.user.as_ref();
    let id = TriggerId::of(user, &rule.id, &cause.event_id);
    let (content, propensity, choice) = match choose::learner_of(journey, rule) {
        None => (rule.offer(look.reminder() as usize), FIXED_OFFER_PROPENSITY, None),
        Some(learner) => {
            let scope = Scope {
                journey,
                event: occasion.event,
                profile,
                snapshots: occasion.snapshots,
                now: occasion.now,
            };
            match choose::choose(&scope, look, rule, learner, id) {
                Some(offered) => (offered.content, offered.propensity, Some(offered.choice)),
                None => return,
            }
        }
    };
    let Some(content) = journey.contents.get(content) else {
        return;
    };
    let trigger = Trigger {
        id,
        user: user.to_owned(),
        rule: rule.id.clone(),
        slot: rule.slot.clone(),
        offer: content.id.clone(),
        decided_at: occasion.record.arrived_at.max(occasion.now),
        due_at: look.due_at,
        held_out: outcome == RuleOutcome::HeldOut,
        arms: policy::arms(journey, user),
        cause,
        journey: journey.name.clone(),
        journey_version: journey.version.clone(),
        reason: Reason {
            condition: written(journey, rule),
            saw,
            won_over: Vec::new(),
            passed_over: Vec::new(),
        },
        propensity,
        choice,
    };
    offers::open(journey, profile, &trigger, content.fingerprint, rule.fingerprint);
    profile.outbox.push(trigger);
    let now = occasion.now;
    let within_limit = within_limit(journey, profile, occasion, index);
    let state = &mut profile.rules[index];
    state.fired = state.fired.saturating_add(1);
    state.last_fired_at = Some(state.last_fired_at.map_or(now, |last| last.max(now)));
    state.within_limit = within_limit;
    let offer = OfferMade {
        at: now,
        rule: rule.fingerprint,
        content: content.fingerprint,
        slot: rule.slot_fingerprint,
    };
    policy::remember_offer(journey, profile, offer, now);
}

/// Puts an offer off to the end of the user's quiet hours. One that is put off already stays.
pub(super) fn put_off(
    journey: &Journey,
    profile: &mut Profile,
    occasion: &Occasion<'_>,
    look: Look,
    again: Option<Box<PutOff>>,
) {
    let index = look.rule;
    let rule = &journey.rules[index];
    let until = policy::quiet_until(journey, profile, rule.slot_fingerprint, occasion.now);
    let (None, Some(until)) = (&profile.rules[index].put_off, until) else {
        return;
    };
    let put_off = match again {
        Some(again) => PutOff { until, ..*again },
        None => {
            let mut cause = cause(occasion, look);
            if look.due_at.is_some() {
                // Which record wakes the user makes no difference to the profile (P7).
                cause.shard_id.clear();
                cause.sequence_number = SequenceNumber::default();
            }
            PutOff {
                until,
                reminder: look.reminder(),
                cause,
                saw: saw(journey, profile, occasion, rule),
            }
        }
    };
    profile.rules[index].put_off = Some(Box::new(put_off));
}

/// Tells the trigger that won what it won over.
pub(super) fn note_loser(journey: &Journey, profile: &mut Profile, first_new: usize, index: usize) {
    let rule = &journey.rules[index];
    let new = &mut profile.outbox[first_new..];
    let winner = new
        .iter_mut()
        .find(|trigger| trigger.slot == rule.slot && trigger.rule != rule.id);
    if let Some(winner) = winner
        && !winner.reason.won_over.contains(&rule.id)
    {
        winner.reason.won_over.push(rule.id.clone());
    }
}

/// Tells the triggers of a moment which other rules looked and why they did not fire.
pub(super) fn note_passed_over(
    journey: &Journey,
    profile: &mut Profile,
    occasion: &Occasion<'_>,
    first_new: usize,
    fired: &[usize],
    looks: impl Iterator<Item = (Look, RuleOutcome)>,
) {
    let scope = Scope {
        journey,
        event: occasion.event,
        profile,
        snapshots: occasion.snapshots,
        now: occasion.now,
    };
    let did_not = looks.filter(|(_, outcome)| !matches!(outcome, RuleOutcome::Fired | RuleOutcome::HeldOut));
    let mut room = PASSED_OVER_BYTES_MAX;
    let passed_over: Vec<PassedOver> = did_not
        .take(REASON_RULES_MAX)
        .map(|(look, outcome)| {
            let rule = &journey.rules[look.rule];
            let passed_over = PassedOver {
                rule: rule.id.clone(),
                outcome: outcome.name().to_owned(),
                detail: detail(&scope, look, outcome, fired),
                saw: Vec::new(),
            };
            room = room.saturating_sub(rule.id.len() + passed_over.detail.len());
            let mut saw = seen_by_loser(&scope, look, outcome);
            saw.retain(|seen| {
                let bytes = seen.name.len() + seen.json.len();
                let fits = bytes <= room;
                room -= if fits { bytes } else { 0 };
                fits
            });
            PassedOver { saw, ..passed_over }
        })
        .collect();
    if passed_over.is_empty() {
        return;
    }
    for trigger in &mut profile.outbox[first_new..] {
        trigger.reason.passed_over.clone_from(&passed_over);
    }
}

/// What caused a look: the event, or that something was due, whenever that is made.
fn cause(occasion: &Occasion<'_>, look: Look) -> Cause {
    let (event_id, at) = match look.due_at {
        Some(due_at) => (format!("timer:{due_at}"), due_at),
        None => (occasion.event.id.to_string(), occasion.event.at),
    };
    Cause {
        event_id,
        event_type: occasion.event.event_type.to_string(),
        at,
        shard_id: occasion.record.shard.id.clone(),
        sequence_number: occasion.record.position.sequence_number,
    }
}

fn saw(journey: &Journey, profile: &Profile, occasion: &Occasion<'_>, rule: &Rule) -> Vec<SeenValue> {
    let scope = Scope {
        journey,
        event: occasion.event,
        profile,
        snapshots: occasion.snapshots,
        now: occasion.now,
    };
    seen(&scope, conditions(rule))
}

/// What a limit for each version of the journey counts for.
pub(super) fn version_scope(journey: &Journey) -> i64 {
    hash_bytes(journey.version.as_bytes()) as i64
}

/// How often the rule fired in what its limit counts for, with this time.
fn within_limit(journey: &Journey, profile: &Profile, occasion: &Occasion<'_>, index: usize) -> Option<WithinLimit> {
    let limit = journey.rules[index].limit.filter(|limit| limit.per != LimitPer::User)?;
    let known = profile.rules[index].within_limit;
    let (scope, is_same) = match limit.per {
        LimitPer::Session => {
            let latest = profile.sessions.latest()?;
            let (start, end) = (latest.start.epoch_ms(), latest.end.epoch_ms());
            let at = occasion.event.at.epoch_ms().clamp(start, end);
            (
                at,
                known.is_some_and(|known| start <= known.scope && known.scope <= end),
            )
        }
        LimitPer::JourneyVersion | LimitPer::User => {
            let scope = version_scope(journey);
            (scope, known.is_some_and(|known| known.scope == scope))
        }
    };
    Some(match known {
        Some(known) if is_same => WithinLimit {
            fired: known.fired.saturating_add(1),
            ..known
        },
        _ => WithinLimit { scope, fired: 1 },
    })
}

/// What the rule asks for, as people wrote it.
fn written(journey: &Journey, rule: &Rule) -> Option<String> {
    let moment = match &rule.moment {
        Moment::Event => None,
        Moment::Enters(condition) => Some(format!("enters {}", condition.source())),
        Moment::Leaves(condition) => Some(format!("leaves {}", condition.source())),
        Moment::Timer(timer) => Some(written_timer(journey, rule, timer)),
    };
    let when = rule.when.as_ref().map(|when| match moment {
        Some(_) => format!("when {}", when.source()),
        None => when.source().to_owned(),
    });
    let unless = rule.unless.as_ref().map(|unless| format!("unless {}", unless.source()));
    let parts: Vec<String> = [moment, when, unless].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| bounded(parts.join(" "), CONDITION_SHOWN_BYTES_MAX))
}

fn written_timer(journey: &Journey, rule: &Rule, timer: &Timer) -> String {
    const MINUTES_PER_HOUR: u16 = 60;
    /// Event types that are named at most.
    const TYPES_SHOWN_MAX: usize = 8;
    let dues = timer.reminders.iter().map(|due| match *due {
        Due::After(after_ms) => format!("after {}", duration(after_ms)),
        Due::LocalTime { days, minute } => {
            let time = format!("at {:02}:{:02}", minute / MINUTES_PER_HOUR, minute % MINUTES_PER_HOUR);
            match days {
                0 => time,
                1 => format!("{time} on the day after"),
                days => format!("{time} {days} days after"),
            }
        }
    });
    let since = match &timer.since {
        Since::Step(step) => {
            let id = journey.steps.get(*step).map_or("", |step| step.id.as_str());
            format!("steps.{id}")
        }
        Since::Event(when) => {
            let types = match rule.event_types() {
                EventTypes::Any => "any".to_owned(),
                EventTypes::These(types) if types.len() > TYPES_SHOWN_MAX => {
                    let more = types.len() - TYPES_SHOWN_MAX;
                    format!("{} and {more} more", types[..TYPES_SHOWN_MAX].join(", "))
                }
                EventTypes::These(types) => types.join(", "),
            };
            match when {
                Some(when) => format!("{types} with {}", when.source()),
                None => types,
            }
        }
        Since::SessionEnd => "session.end".to_owned(),
    };
    let dues: Vec<String> = dues.collect();
    format!("{} since {since}", dues.join(", "))
}
