//! The open offers of two profiles that turn out to be one user's.

use super::OpenOffer;
use crate::journey::Journey;
use crate::limits::OPEN_OFFERS_MAX;

/// Takes in the open offers of the profile of `from_user`. There may be twice [`OPEN_OFFERS_MAX`] then: the next event,
/// which said that both are one, lets those leave that are beyond, and tells of them.
///
/// Two profiles have no decision in common, because a user's id is in its. Should they, what is known of it in either
/// counts.
pub(crate) fn merge(journey: &Journey, open: &mut Vec<OpenOffer>, from: &[OpenOffer], from_user: &str) {
    for other in from {
        match open.iter_mut().find(|known| known.trigger == other.trigger) {
            Some(known) => merge_one(journey, known, other),
            None => {
                let decided_for = other.decided_for.clone().unwrap_or_else(|| from_user.to_owned());
                open.push(OpenOffer {
                    decided_for: Some(decided_for),
                    ..other.clone()
                });
            }
        }
    }
    open.sort_by_key(OpenOffer::order);
    let beyond = open.len().saturating_sub(2 * OPEN_OFFERS_MAX);
    open.drain(..beyond);
}

fn merge_one(journey: &Journey, known: &mut OpenOffer, other: &OpenOffer) {
    let rewarded = known.rewarded | other.rewarded;
    known.reward = match &journey.outcomes {
        Some(outcomes) => outcomes.sum(rewarded),
        None => known.reward.max(other.reward),
    };
    known.rewarded = rewarded;
    known.told |= other.told;
    known.expired |= other.expired;
    known.held_out |= other.held_out;
    known.decided_at = known.decided_at.min(other.decided_at);
    known.since = known.since.min(other.since);
    known.until = known.until.max(other.until);
}
