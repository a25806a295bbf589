//! From the opening of an offer to its end.

use super::{OpenOffer, Outcome};
use crate::condition::Scope;
use crate::event::{ArrivedEvent, Event, TIMER_EVENT};
use crate::fold::Folded;
use crate::hash::hash_parts;
use crate::journey::{Dispatch, Journey, Outcomes, Reward, RewardOn, UntilThen};
use crate::limits::{OPEN_OFFERS_MAX, OUTCOME_LATE_MS_MAX, REWARDS_MAX};
use crate::profile::Profile;
use crate::snapshots::Snapshots;
use crate::time::Timestamp;
use crate::trigger::{Cause, Trigger, TriggerId};

// A bit for each reward.
const _: () = assert!(REWARDS_MAX <= u16::BITS as usize);

impl OpenOffer {
    /// Whether what happened then counts for it.
    fn includes(&self, at: Timestamp) -> bool {
        self.since < at && at <= self.until
    }

    /// Whether what comes now comes too late.
    fn is_over(&self, now: Timestamp) -> bool {
        now.ms_since(self.until) > OUTCOME_LATE_MS_MAX
    }

    /// Whether its window's end is still to be told.
    fn may_run_out(&self) -> bool {
        !self.told
    }

    /// The order in which they leave.
    pub(super) fn order(&self) -> (Timestamp, TriggerId) {
        (self.until, self.trigger)
    }
}

impl Outcomes {
    /// The bits of all its rewards.
    fn all(&self) -> u16 {
        self.bits(|_| true)
    }

    /// The bits of the rewards that are meant.
    fn bits(&self, is_meant: impl Fn(&Reward) -> bool) -> u16 {
        let numbered = self.rewards.iter().enumerate();
        numbered.fold(0, |bits, (index, reward)| bits | u16::from(is_meant(reward)) << index)
    }

    /// The rewards with these bits.
    fn of(&self, bits: u16) -> impl Iterator<Item = &Reward> {
        let numbered = self.rewards.iter().enumerate();
        let meant = numbered.filter(move |(index, _)| bits >> index & 1 == 1);
        meant.map(|(_, reward)| reward)
    }

    /// What these rewards come to.
    pub(super) fn sum(&self, bits: u16) -> f64 {
        self.of(bits).map(|reward| reward.reward).sum()
    }

    /// The names of what was rewarded of an offer already.
    pub fn rewards_of(&self, offer: &OpenOffer) -> impl Iterator<Item = &str> {
        self.of(offer.rewarded).map(|reward| reward.name.as_str())
    }

    fn names(&self, bits: u16) -> Vec<String> {
        self.of(bits).map(|reward| reward.name.clone()).collect()
    }
}

/// What an event brings: the bits of rewards.
#[derive(Clone, Copy, Default)]
struct Brought {
    /// To each offer.
    any: u16,
    /// To offers of the content that the event is about.
    same_content: u16,
}

/// Opens an offer for a trigger that was decided at the profile's *now*, where the journey has outcomes. `content` and
/// `rule` are the fingerprints of what was offered by whom.
pub(crate) fn open(journey: &Journey, profile: &mut Profile, trigger: &Trigger, content: u32, rule: u32) {
    let Some(outcomes) = &journey.outcomes else { return };
    // An event that came again after its id was forgotten, and fired the same once more.
    if profile.open_offers.iter().any(|known| known.trigger == trigger.id) {
        return;
    }
    let now = profile.now;
    let mut offer = OpenOffer {
        trigger: trigger.id,
        rule,
        content,
        decided_at: trigger.decided_at,
        // What time made is made as of then: what it counts from may be long past.
        since: if trigger.due_at.is_some() {
            now
        } else {
            trigger.cause.at
        },
        until: now.plus_ms(outcomes.within_ms),
        rewarded: 0,
        reward: 0.0,
        expired: false,
        told: false,
        held_out: trigger.held_out,
        propensity: trigger.propensity,
        seen: trigger.choice.as_ref().map(|choice| choice.seen.clone()),
        decided_for: None,
    };
    let record = Told {
        user: &trigger.user,
        cause: &trigger.cause,
        made_at: trigger.decided_at,
    };
    if outcomes.until_then == UntilThen::Zero && offer.seen.is_some() && !offer.held_out {
        offer.told = true;
        let told = outcome(journey, &offer, Vec::new(), now, &record);
        profile.outcomes.extend(told);
    }
    let place = profile
        .open_offers
        .partition_point(|known| known.order() < offer.order());
    profile.open_offers.insert(place, offer);
    forget(profile);
    make_room(journey, profile, &record);
}

/// Notes what an event, which is folded into the profile, brings to the open offers.
pub(crate) fn note(journey: &Journey, profile: &mut Profile, arrived: &ArrivedEvent<'_>, folded: &Folded) {
    let Some(outcomes) = &journey.outcomes else { return };
    if profile.open_offers.is_empty() {
        return;
    }
    forget(profile);
    let event = &arrived.event;
    let now = profile.now;
    let counts = |offer: &OpenOffer| offer.includes(event.at) && !offer.is_over(now);
    let in_window = profile.open_offers.iter().filter(|offer| counts(offer));
    let lacking = in_window.fold(0, |lacking, offer| lacking | (outcomes.all() & !offer.rewarded));
    let brought = match lacking {
        0 => Brought::default(),
        lacking => brought(journey, outcomes, profile, event, folded, lacking),
    };
    if brought.any | brought.same_content != 0 {
        let about =
            (event.content_id.as_deref()).and_then(|id| journey.contents.iter().find(|content| content.id == id));
        let about = about.map(|content| content.fingerprint);
        let cause = cause_of(arrived);
        let record = Told {
            user: event.user.as_ref(),
            cause: &cause,
            made_at: now,
        };
        for offer in &mut profile.open_offers {
            let of_content = if about == Some(offer.content) {
                brought.same_content
            } else {
                0
            };
            let new = (brought.any | of_content) & !offer.rewarded;
            if new != 0 && counts(offer) {
                let outcome = reward(journey, outcomes, offer, new, event.at, &record);
                profile.outcomes.extend(outcome);
            }
        }
        let all = outcomes.all();
        profile.open_offers.retain(|offer| offer.rewarded & all != all);
    }
    // After a merge there may be more than a profile keeps.
    if profile.open_offers.len() > OPEN_OFFERS_MAX {
        let record = Told {
            user: event.user.as_ref(),
            cause: &cause_of(arrived),
            made_at: profile.now,
        };
        make_room(journey, profile, &record);
    }
}

/// When the next window runs out of which nothing was told.
pub(crate) fn next_expiry(profile: &Profile) -> Option<Timestamp> {
    let open = profile.open_offers.iter().filter(|offer| offer.may_run_out());
    open.map(|offer| offer.until).min()
}

/// Tells of the windows that have run out by a moment with nothing. Rules don't look at it, and the profile's *now* stays.
pub(crate) fn expire(journey: &Journey, profile: &mut Profile, arrived: &ArrivedEvent<'_>, moment: Timestamp) {
    for offer in &mut profile.open_offers {
        if !offer.may_run_out() || offer.until > moment {
            continue;
        }
        let cause = Cause {
            event_id: format!("timer:{}", offer.until),
            event_type: TIMER_EVENT.to_owned(),
            at: offer.until,
            ..cause_of(arrived)
        };
        let record = Told {
            user: arrived.event.user.as_ref(),
            cause: &cause,
            made_at: arrived.arrived_at.max(moment),
        };
        let outcome = run_out(journey, offer, offer.until, &record);
        profile.outcomes.extend(outcome);
    }
}

/// How many outcomes an event may bring at most, before it is folded.
pub(crate) fn touched_max(journey: &Journey, dispatch: &Dispatch, profile: &Profile, event: &Event<'_>) -> usize {
    let Some(outcomes) = &journey.outcomes else { return 0 };
    if profile.open_offers.is_empty() {
        return 0;
    }
    let may_bring = outcomes.bits(|reward| match &reward.on {
        RewardOn::Event { on, .. } => on.includes(&event.event_type),
        RewardOn::Step(None) => !dispatch.steps.is_empty(),
        RewardOn::Step(Some(step)) => dispatch.steps.contains(step),
    });
    let open = profile.open_offers.iter();
    open.filter(|offer| offer.includes(event.at) && may_bring & !offer.rewarded != 0)
        .count()
}

/// How many outcomes opening so many more offers may tell: those of offers that have to leave, or of the new ones where they
/// count as nothing at once.
pub(crate) fn told_by_opening(journey: &Journey, profile: &Profile, opened: usize) -> usize {
    match &journey.outcomes {
        Some(outcomes) => {
            let at_once = if outcomes.until_then == UntilThen::Zero {
                opened
            } else {
                0
            };
            at_once + (profile.open_offers.len() + opened).saturating_sub(OPEN_OFFERS_MAX)
        }
        None => 0,
    }
}

/// By what something is told.
struct Told<'t> {
    user: &'t str,
    cause: &'t Cause,
    made_at: Timestamp,
}

fn cause_of(arrived: &ArrivedEvent<'_>) -> Cause {
    Cause {
        event_id: arrived.event.id.to_string(),
        event_type: arrived.event.event_type.to_string(),
        at: arrived.event.at,
        shard_id: arrived.shard.id.clone(),
        sequence_number: arrived.position.sequence_number,
    }
}

/// Which of the lacking rewards an event brings.
fn brought(
    journey: &Journey,
    outcomes: &Outcomes,
    profile: &Profile,
    event: &Event<'_>,
    folded: &Folded,
    lacking: u16,
) -> Brought {
    let scope = Scope {
        journey,
        event,
        profile,
        // What a user did is a success or not, whatever others do.
        snapshots: Snapshots::none(),
        now: profile.now,
    };
    let mut brought = Brought::default();
    for (index, reward) in outcomes.rewards.iter().enumerate() {
        let bit = 1 << index;
        if lacking & bit == 0 {
            continue;
        }
        let (comes, same_content) = match &reward.on {
            RewardOn::Event { on, same_content } => (on.includes(&event.event_type), *same_content),
            RewardOn::Step(None) => (folded.did_a_step(), false),
            RewardOn::Step(Some(step)) => (folded.is_newly_done(*step), false),
        };
        let met = comes && reward.when.as_ref().is_none_or(|when| when.is_met(&scope) == Ok(true));
        match (met, same_content) {
            (false, _) => {}
            (true, false) => brought.any |= bit,
            (true, true) => brought.same_content |= bit,
        }
    }
    brought
}

/// Forgets the offers for which nothing can come any more.
fn forget(profile: &mut Profile) {
    let now = profile.now;
    profile
        .open_offers
        .retain(|offer| offer.may_run_out() || !offer.is_over(now));
}

/// Lets those leave whose windows end first, until there are no more than a profile keeps. What was not told of them
/// is told as if their windows had run out.
fn make_room(journey: &Journey, profile: &mut Profile, record: &Told<'_>) {
    let beyond = profile.open_offers.len().saturating_sub(OPEN_OFFERS_MAX);
    let now = profile.now;
    let leaving: Vec<OpenOffer> = profile.open_offers.drain(..beyond).collect();
    for mut offer in leaving {
        if offer.may_run_out() {
            let at = offer.until.min(now);
            let outcome = run_out(journey, &mut offer, at, record);
            profile.outcomes.extend(outcome);
        }
    }
}

/// Adds rewards to an offer.
fn reward(
    journey: &Journey,
    outcomes: &Outcomes,
    offer: &mut OpenOffer,
    new: u16,
    at: Timestamp,
    record: &Told<'_>,
) -> Option<Outcome> {
    let previous_reward = offer.told.then_some(offer.reward);
    offer.rewarded |= new;
    offer.reward += outcomes.sum(new);
    offer.told = true;
    let told = outcome(journey, offer, outcomes.names(new), at, record)?;
    Some(Outcome {
        rewards_so_far: outcomes.names(offer.rewarded),
        previous_reward,
        ..told
    })
}

/// Says that the window of an offer ran out with nothing.
fn run_out(journey: &Journey, offer: &mut OpenOffer, at: Timestamp, record: &Told<'_>) -> Option<Outcome> {
    offer.told = true;
    offer.expired = true;
    let told = outcome(journey, offer, Vec::new(), at, record)?;
    Some(Outcome { expired: true, ..told })
}

/// What is told of an offer; nothing where the journey no longer has its rule or content.
fn outcome(
    journey: &Journey,
    offer: &OpenOffer,
    rewards: Vec<String>,
    at: Timestamp,
    record: &Told<'_>,
) -> Option<Outcome> {
    let rule = journey.rules.iter().find(|rule| rule.fingerprint == offer.rule)?;
    let content = (journey.contents.iter()).find(|content| content.fingerprint == offer.content)?;
    let trigger = offer.trigger.0.to_be_bytes();
    let names = rewards.iter().map(String::as_bytes);
    let parts: Vec<&[u8]> = [b"outcome".as_slice(), &trigger].into_iter().chain(names).collect();
    Some(Outcome {
        id: TriggerId(hash_parts(&parts)),
        trigger: offer.trigger,
        user: record.user.to_owned(),
        decided_for: offer.decided_for.clone(),
        rule: rule.id.clone(),
        slot: rule.slot.clone(),
        offer: content.id.clone(),
        rewards,
        rewards_so_far: Vec::new(),
        reward: offer.reward,
        previous_reward: None,
        expired: false,
        held_out: offer.held_out,
        decided_at: offer.decided_at,
        at,
        made_at: record.made_at,
        propensity: offer.propensity,
        seen: offer.seen.clone(),
        cause: record.cause.clone(),
        journey: journey.name.clone(),
        journey_version: journey.version.clone(),
    })
}
