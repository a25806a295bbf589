//! What limits all rules together, as of a moment: who is in the journey, caps, cool-downs of contents, groups, quiet
//! hours, holdouts and arms.

use crate::condition::{Condition, Scope};
use crate::event::Event;
use crate::journey::{Cap, Journey, Reentry};
use crate::limits::OFFERS_MADE_MAX;
use crate::local_time::LocalClock;
use crate::profile::{OfferMade, Profile};
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::value::Scalar;

// ---- entry and exit

/// Whether the journey has conditions for who is in it.
pub fn has_membership(journey: &Journey) -> bool {
    journey.policy.entry.is_some() || journey.policy.exit.is_some()
}

/// Whether the user is in the journey.
pub fn is_in(journey: &Journey, profile: &Profile) -> bool {
    if !has_membership(journey) {
        return true;
    }
    let membership = &profile.membership;
    membership.left_at.is_none() && (journey.policy.entry.is_none() || membership.entered_at.is_some())
}

/// Lets the user in or out as of `now`, after the event was folded, or at a moment when timers are due. Who leaves loses
/// timers and put-off offers at once.
///
/// While the exit condition holds, nobody comes in. Who left comes in *again* when the entry condition holds after it
/// did not for a while: with [`Reentry::Always`] it must have been seen not to hold, with [`Reentry::After`] it is the time
/// that must have passed.
pub fn update_membership(journey: &Journey, profile: &mut Profile, event: &Event<'_>, now: Timestamp) {
    let policy = &journey.policy;
    let holds = |condition: &Condition, profile: &Profile| {
        let scope = Scope {
            journey,
            event,
            profile,
            snapshots: Snapshots::none(),
            now,
        };
        condition.is_met(&scope) == Ok(true)
    };
    let exits = policy.exit.as_ref().is_some_and(|exit| holds(exit, profile));
    if is_in(journey, profile) {
        if exits {
            profile.membership.left_at = Some(now);
            for state in &mut profile.rules {
                state.timer = None;
                state.put_off = None;
            }
            remember_no_entry(journey, profile, event, now);
        } else if profile.membership.entered_at.is_none() {
            // Without an entry condition a user is in from the first event.
            profile.membership.entered_at = Some(now);
        }
        return;
    }
    let enters = !exits && policy.entry.as_ref().is_none_or(|entry| holds(entry, profile));
    let may = match (profile.membership.left_at, policy.reentry) {
        (None, _) => true,
        (Some(_), Reentry::Always) => profile.membership.entered_at.is_none(),
        (Some(left_at), Reentry::After(after_ms)) => now.ms_since(left_at) >= after_ms,
        (Some(_), Reentry::Never) => false,
    };
    if enters && may {
        profile.membership.entered_at = Some(now);
        profile.membership.left_at = None;
    } else if !enters {
        remember_no_entry(journey, profile, event, now);
    }
}

/// Of a user who is out, takes away since when they were in, once the entry condition does not hold: then they may come in
/// again.
fn remember_no_entry(journey: &Journey, profile: &mut Profile, event: &Event<'_>, now: Timestamp) {
    let scope = Scope {
        journey,
        event,
        profile,
        snapshots: Snapshots::none(),
        now,
    };
    let enters = match &journey.policy.entry {
        Some(entry) => entry.is_met(&scope) == Ok(true),
        // To be out is all that it takes.
        None => false,
    };
    if !enters {
        profile.membership.entered_at = None;
    }
}

// ---- what was offered before

/// How far back offers must be known, in milliseconds; nothing where the policy asks for none.
pub fn offers_kept_ms(journey: &Journey) -> Option<i64> {
    let policy = &journey.policy;
    let caps = policy.caps.iter().map(|cap| cap.within_ms);
    let groups = policy.groups.iter().filter_map(|group| group.within_ms);
    let contents = journey.contents.iter().filter_map(|content| content.cooldown_ms);
    caps.chain(groups)
        .chain(contents)
        .chain(policy.content_cooldown_ms)
        .max()
}

/// Remembers an offer for as long as the policy looks back, and no more than [`OFFERS_MADE_MAX`].
pub(crate) fn remember_offer(journey: &Journey, profile: &mut Profile, offer: OfferMade, now: Timestamp) {
    let Some(kept_ms) = offers_kept_ms(journey) else {
        profile.offers.clear();
        return;
    };
    // Moments never go back, so the list stays in order.
    profile.offers.push(offer);
    let gone = profile.offers.partition_point(|made| now.ms_since(made.at) >= kept_ms);
    let too_many = profile.offers.len().saturating_sub(OFFERS_MADE_MAX);
    profile.offers.drain(..gone.max(too_many));
}

/// The offers that were made within a time before `now`, the latest first.
fn made_within(profile: &Profile, now: Timestamp, within_ms: i64) -> impl Iterator<Item = &OfferMade> {
    let latest_first = profile.offers.iter().rev();
    latest_first.take_while(move |made| now.ms_since(made.at) < within_ms)
}

/// The first cap that allows no further offer in this slot.
pub fn capped<'j>(journey: &'j Journey, profile: &Profile, slot_fingerprint: u32, now: Timestamp) -> Option<&'j Cap> {
    journey.policy.caps.iter().find(|cap| {
        let of_slot = cap.slot.as_ref().map(|(fingerprint, _)| *fingerprint);
        if of_slot.is_some_and(|slot| slot != slot_fingerprint) {
            return false;
        }
        let made = made_within(profile, now, cap.within_ms);
        made.filter(|made| of_slot.is_none_or(|slot| made.slot == slot))
            .take(cap.offers)
            .count()
            >= cap.offers
    })
}

/// Until when a content is not offered again, where that is after `now`.
pub fn content_cooling_until(
    journey: &Journey,
    profile: &Profile,
    content: usize,
    now: Timestamp,
) -> Option<Timestamp> {
    let content = journey.contents.get(content)?;
    let cooldown_ms = content.cooldown_ms.or(journey.policy.content_cooldown_ms)?;
    let last = made_within(profile, now, cooldown_ms).find(|made| made.content == content.fingerprint)?;
    Some(last.at.plus_ms(cooldown_ms))
}

/// The rule of the same group that keeps this one silent: one that fired at this very moment (`fired`), or not long ago.
pub fn excluded_by(
    journey: &Journey,
    profile: &Profile,
    rule: usize,
    now: Timestamp,
    fired: &[usize],
) -> Option<usize> {
    let group = journey.rules.get(rule)?.group?;
    let is_other = |index: usize| index != rule && journey.rules[index].group == Some(group);
    if let Some(other) = fired.iter().copied().find(|index| is_other(*index)) {
        return Some(other);
    }
    let within_ms = journey.policy.groups.get(group)?.within_ms?;
    made_within(profile, now, within_ms).find_map(|made| {
        let other = journey.rules.iter().position(|other| other.fingerprint == made.rule)?;
        is_other(other).then_some(other)
    })
}

// ---- the user's clock

/// The user's clock: that of the time zone that is known of the user, else the policy's, else UTC.
pub fn local_clock(journey: &Journey, profile: &Profile) -> LocalClock {
    let known = match profile.timezone.as_ref().map(|known| &known.value) {
        Some(Scalar::Text(name)) => Some(name.as_str()),
        _ => None,
    };
    let of_policy = journey.policy.quiet_hours.as_ref().map(|quiet| quiet.timezone.as_str());
    LocalClock::of(known.into_iter().chain(of_policy))
}

/// The end of the user's quiet hours, where they go on and are for this slot.
pub fn quiet_until(journey: &Journey, profile: &Profile, slot_fingerprint: u32, now: Timestamp) -> Option<Timestamp> {
    let quiet = journey.policy.quiet_hours.as_ref()?;
    if !quiet.slots.is_empty() && !quiet.slots.contains(&slot_fingerprint) {
        return None;
    }
    let clock = local_clock(journey, profile);
    let minute = clock.minute_of_day(now);
    let (from, to) = (quiet.from_minute, quiet.to_minute);
    let days = if from <= to {
        (from <= minute && minute < to).then_some(0)
    } else if minute >= from {
        Some(1)
    } else {
        (minute < to).then_some(0)
    };
    let until = clock.time_of_day(now, days?, to);
    (until > now).then_some(until)
}

// ---- shares of the users

/// Whether the user is shown nothing, by this rule or at all.
pub fn is_held_out(journey: &Journey, rule: usize, user: &str) -> bool {
    let of_rule = journey.rules.get(rule).and_then(|rule| rule.holdout.as_ref());
    let holdouts = [journey.policy.holdout.as_ref(), of_rule];
    holdouts.into_iter().flatten().any(|holdout| holdout.includes(user))
}

/// The arm of each of the journey's experiments that the user is in.
pub fn arms(journey: &Journey, user: &str) -> Vec<(String, String)> {
    let experiments = journey.experiments.iter();
    experiments
        .map(|experiment| (experiment.id.clone(), experiment.arm(user).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
