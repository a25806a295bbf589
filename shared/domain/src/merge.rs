//! Merging: when two profiles turn out to be one user's.

use crate::feature::merge_trait;
use crate::fold::follow_sessions;
use crate::journey::Journey;
use crate::profile::Profile;

/// Takes the history of another profile of the same user into this one: sessions, features, steps and traits, as if the
/// events of both had come to one profile. In whatever order profiles are merged, the result is the same, within what
/// [`crate::feature::Computation::merge`] and [`crate::sessions::Sessions::merge`] say. Both profiles are laid out for the
/// same journey. What stands for deliveries and decisions (guard, event ids, rules, outbox) is not history and stays.
pub fn merge_history(journey: &Journey, profile: &mut Profile, other: &Profile) {
    profile.applied_events += other.applied_events;
    profile.now = profile.now.max(other.now);
    let now = profile.now;
    profile.sessions.merge(&other.sessions, journey.idle_timeout_ms);
    follow_sessions(journey, profile, now);
    for ((feature, state), other) in journey.features.iter().zip(&mut profile.features).zip(&other.features) {
        feature.computation.merge(state, other, &profile.sessions, now);
    }
    for (done_at, other) in profile.steps.iter_mut().zip(&other.steps) {
        *done_at = match (*done_at, *other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    for (known, other) in profile.traits.iter_mut().zip(&other.traits) {
        merge_trait(known, other);
    }
}
