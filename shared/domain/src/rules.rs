//! Which rules fire on an event, and why the others don't.

use crate::condition::{Condition, Scope};
use crate::event::ArrivedEvent;
use crate::journey::{Dispatch, Journey, Rule};
use crate::profile::Profile;
use crate::trigger::{Cause, Reason, Trigger, TriggerId};

/// What became of a rule that looked at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It fired.
    Fired,
    /// It fired as often as its `limit` allows.
    LimitReached,
    /// It is silent for its `cooldown`.
    CoolingDown,
    /// Its `when` doesn't hold, or its `unless` does.
    ConditionFalse,
    /// Its condition read something that isn't there, or compared what can't be compared.
    ConditionFailed,
    /// What it offers is not eligible for this user.
    ContentIneligible,
    /// Another rule with a higher priority fired for the same slot at the same moment.
    LostToPriority,
    /// It would have fired, but the user is held out: the decision is logged, and nobody is shown anything.
    HeldOut,
    /// The user got as many offers as a cap allows.
    Capped,
    /// It would have fired, but the user's quiet hours put it off.
    QuietUntil,
    /// It would have fired, but for the user's quiet hours.
    Quiet,
    /// What it offers was offered not long ago.
    ContentCoolingDown,
    /// A rule of its group fired.
    Excluded,
    /// The user is not in the journey.
    NotInJourney,
}

impl RuleOutcome {
    /// Every outcome, in the order of [`RuleOutcome::index`].
    pub const ALL: [RuleOutcome; 14] = [
        RuleOutcome::Fired,
        RuleOutcome::LimitReached,
        RuleOutcome::CoolingDown,
        RuleOutcome::ConditionFalse,
        RuleOutcome::ConditionFailed,
        RuleOutcome::ContentIneligible,
        RuleOutcome::LostToPriority,
        RuleOutcome::HeldOut,
        RuleOutcome::Capped,
        RuleOutcome::QuietUntil,
        RuleOutcome::Quiet,
        RuleOutcome::ContentCoolingDown,
        RuleOutcome::Excluded,
        RuleOutcome::NotInJourney,
    ];

    /// Its index in [`RuleOutcome::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            RuleOutcome::Fired => "fired",
            RuleOutcome::LimitReached => "limit_reached",
            RuleOutcome::CoolingDown => "cooling_down",
            RuleOutcome::ConditionFalse => "condition_false",
            RuleOutcome::ConditionFailed => "condition_failed",
            RuleOutcome::ContentIneligible => "content_ineligible",
            RuleOutcome::LostToPriority => "lost_to_priority",
            RuleOutcome::HeldOut => "held_out",
            RuleOutcome::Capped => "capped",
            RuleOutcome::QuietUntil => "quiet_until",
            RuleOutcome::Quiet => "quiet",
            RuleOutcome::ContentCoolingDown => "content_cooling_down",
            RuleOutcome::Excluded => "excluded",
            RuleOutcome::NotInJourney => "not_in_journey",
        }
    }
}

/// How often each rule came out how: one row a rule, in the journey's order, as far as any was counted. Most users of a
/// batch have no rule that looks, and then this takes no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleCounts {
    rows: Vec<[u64; RuleOutcome::ALL.len()]>,
}

impl RuleCounts {
    /// No counts yet, with room for the rules of a journey.
    pub fn new(journey: &Journey) -> RuleCounts {
        RuleCounts {
            rows: Vec::with_capacity(journey.rules.len()),
        }
    }

    /// How often the rule with this index came out so.
    pub fn get(&self, rule: usize, outcome: RuleOutcome) -> u64 {
        self.rows.get(rule).map_or(0, |row| row[outcome.index()])
    }

    /// Adds the counts of another batch or user of the same journey.
    pub fn add(&mut self, other: &RuleCounts) {
        for (rule, other_row) in other.rows.iter().enumerate() {
            for (count, other_count) in self.row(rule).iter_mut().zip(other_row) {
                *count += other_count;
            }
        }
    }

    fn count(&mut self, rule: usize, outcome: RuleOutcome) {
        self.row(rule)[outcome.index()] += 1;
    }

    fn row(&mut self, rule: usize) -> &mut [u64; RuleOutcome::ALL.len()] {
        if rule >= self.rows.len() {
            self.rows.resize(rule + 1, Default::default());
        }
        &mut self.rows[rule]
    }
}

/// Runs the rules that look at this event, which is already folded into the profile. Those that fire are noted in the
/// profile and their triggers are put into its outbox (P5). *Now* is the record's arrival (P7).
pub fn run(
    journey: &Journey,
    dispatch: &Dispatch,
    profile: &mut Profile,
    arrived: &ArrivedEvent<'_>,
    counts: &mut RuleCounts,
) {
    let first_new = profile.outbox.len();
    for index in &dispatch.rules {
        let rule = &journey.rules[*index];
        let outcome = consider(journey, rule, *index, profile, arrived);
        let winner = profile.outbox[first_new..]
            .iter()
            .position(|trigger| trigger.slot == rule.slot);
        let outcome = match (outcome, winner) {
            (RuleOutcome::Fired, Some(winner)) => {
                profile.outbox[first_new + winner].reason.won_over.push(rule.id.clone());
                RuleOutcome::LostToPriority
            }
            (outcome, _) => outcome,
        };
        if outcome == RuleOutcome::Fired {
            fire(journey, rule, *index, profile, arrived);
        }
        counts.count(*index, outcome);
    }
}

fn consider(
    journey: &Journey,
    rule: &Rule,
    index: usize,
    profile: &Profile,
    arrived: &ArrivedEvent<'_>,
) -> RuleOutcome {
    let state = &profile.rules[index];
    if rule.limit.is_some_and(|limit| state.fired >= limit.count) {
        return RuleOutcome::LimitReached;
    }
    if let (Some(cooldown_ms), Some(last)) = (rule.cooldown_ms, state.last_fired_at)
        && profile.now.ms_since(last) < cooldown_ms
    {
        return RuleOutcome::CoolingDown;
    }
    let scope = Scope {
        journey,
        event: &arrived.event,
        profile,
        now: profile.now,
    };
    match allowed(&scope, rule.when.as_ref(), rule.unless.as_ref()) {
        Ok(true) => {}
        Ok(false) => return RuleOutcome::ConditionFalse,
        Err(_) => return RuleOutcome::ConditionFailed,
    }
    let content = &journey.contents[rule.offer(0)];
    match allowed(&scope, content.when.as_ref(), content.unless.as_ref()) {
        Ok(true) => RuleOutcome::Fired,
        Ok(false) | Err(_) => RuleOutcome::ContentIneligible,
    }
}

/// Whether `when` holds and `unless` doesn't. An `unless` that can't be evaluated doesn't hold: what it excludes is
/// not known to be there.
fn allowed(
    scope: &Scope<'_>,
    when: Option<&Condition>,
    unless: Option<&Condition>,
) -> Result<bool, crate::condition::EvaluationError> {
    if let Some(when) = when
        && !when.is_met(scope)?
    {
        return Ok(false);
    }
    Ok(unless.is_none_or(|unless| unless.is_met(scope) != Ok(true)))
}

fn fire(journey: &Journey, rule: &Rule, index: usize, profile: &mut Profile, arrived: &ArrivedEvent<'_>) {
    let event = &arrived.event;
    let scope = Scope {
        journey,
        event,
        profile,
        now: profile.now,
    };
    let conditions = [rule.when.as_ref(), rule.unless.as_ref()];
    let reason = Reason {
        condition: written(rule),
        saw: conditions
            .into_iter()
            .flatten()
            .flat_map(|condition| condition.seen(&scope))
            .collect(),
        won_over: Vec::new(),
        passed_over: Vec::new(),
    };
    let trigger = Trigger {
        id: TriggerId::of(&event.user, &rule.id, &event.id),
        user: event.user.to_string(),
        rule: rule.id.clone(),
        slot: rule.slot.clone(),
        offer: journey.contents[rule.offer(0)].id.clone(),
        decided_at: profile.now,
        due_at: None,
        held_out: false,
        arms: Vec::new(),
        cause: Cause {
            event_id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            at: event.at,
            shard_id: arrived.shard.id.clone(),
            sequence_number: arrived.position.sequence_number,
        },
        journey: journey.name.clone(),
        journey_version: journey.version.clone(),
        reason,
    };
    profile.outbox.push(trigger);
    let state = &mut profile.rules[index];
    state.fired += 1;
    state.last_fired_at = Some(profile.now);
}

/// The rule's condition as people wrote it.
fn written(rule: &Rule) -> Option<String> {
    match (&rule.when, &rule.unless) {
        (Some(when), Some(unless)) => Some(format!("{} unless {}", when.source(), unless.source())),
        (Some(when), None) => Some(when.source().to_owned()),
        (None, Some(unless)) => Some(format!("unless {}", unless.source())),
        (None, None) => None,
    }
}
