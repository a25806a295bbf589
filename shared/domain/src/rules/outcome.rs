//! How a look of a rule comes out, and counting that.

use crate::journey::Journey;

/// What became of a rule that looked.
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
    /// The event that its timer counts from arrived so late that the reminder had been due long before.
    TooLate,
}

impl RuleOutcome {
    /// Every outcome, in the order of [`RuleOutcome::index`].
    pub const ALL: [RuleOutcome; 15] = [
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
        RuleOutcome::TooLate,
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
            RuleOutcome::TooLate => "too_late",
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

    pub(crate) fn count(&mut self, rule: usize, outcome: RuleOutcome) {
        self.row(rule)[outcome.index()] += 1;
    }

    fn row(&mut self, rule: usize) -> &mut [u64; RuleOutcome::ALL.len()] {
        if rule >= self.rows.len() {
            self.rows.resize(rule + 1, Default::default());
        }
        &mut self.rows[rule]
    }
}
