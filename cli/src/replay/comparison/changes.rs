//! Which decisions are the same under both journeys, and which are not.

use std::collections::{BTreeMap, HashMap, HashSet};

use usher_domain::rules::RuleOutcome;
use usher_domain::time::Timestamp;
use usher_domain::trigger::{Cause, TriggerId};

use crate::replay::folding::Fired;

/// Whose decision it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The new journey's.
    New,
    /// The old one's.
    Old,
}

/// How it was decided, as far as two decisions with the same rule and cause can differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What was offered.
    pub offer: String,
    /// Where.
    pub slot: String,
    /// Whether nobody is shown it.
    pub held_out: bool,
    /// When its timer was due, or its quiet hours ended.
    pub due_at: Option<Timestamp>,
}

impl Decided {
    /// The names of what differs.
    pub fn differences(&self, other: &Decided) -> Vec<&'static str> {
        let differs = [
            ("offer", self.offer != other.offer),
            ("slot", self.slot != other.slot),
            ("held_out", self.held_out != other.held_out),
            ("due_at", self.due_at != other.due_at),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| name)
            .collect()
    }
}

/// A decision that is not the same under both journeys.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its id, which both give it.
    pub id: TriggerId,
    /// The user.
    pub user: String,
    /// The rule.
    pub rule: String,
    /// What caused it.
    pub cause: Cause,
    /// When it was made.
    pub at: Timestamp,
    /// Under the old journey; nothing where the new one gained it.
    pub old: Option<Decided>,
    /// Under the new journey; nothing where it is lost.
    pub new: Option<Decided>,
    /// What the rule came to on the same event under the journey that did not make it, where it looked.
    pub other: Option<RuleOutcome>,
}

impl Change {
    /// Which kind of change it is.
    pub fn kind(&self) -> ChangeKind {
        match (&self.old, &self.new) {
            (None, _) => ChangeKind::Gained,
            (_, None) => ChangeKind::Lost,
            (Some(_), Some(_)) => ChangeKind::Changed,
        }
    }

    /// What is behind it: how the rule came out under the journey that did not make the decision, or what differs.
    pub fn why(&self) -> String {
        match (&self.old, &self.new, self.other) {
            (Some(old), Some(new), _) => old.differences(new).join(", "),
            (_, _, Some(outcome)) => outcome.name().to_owned(),
            _ => "not_looked".to_owned(),
        }
    }
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only the new journey makes it.
    Gained,
    /// Only the old journey makes it.
    Lost,
    /// Both make it, in another way.
    Changed,
}

impl ChangeKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Gained => "gained",
            ChangeKind::Lost => "lost",
            ChangeKind::Changed => "changed",
        }
    }
}

/// Decisions of one rule under both journeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// The old journey's.
    pub old: u64,
    /// The new journey's.
    pub new: u64,
    /// Those that are the same.
    pub same: u64,
    /// How many changed in which way, by what is behind it.
    pub changed: BTreeMap<(ChangeKind, String), u64>,
}

impl RuleChanges {
    /// How many changed in this way.
    pub fn count(&self, kind: ChangeKind) -> u64 {
        let of_kind = self.changed.iter().filter(|((known, _), _)| *known == kind);
        of_kind.map(|(_, count)| count).sum()
    }
}

/// All that changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Each changed decision, in the order of time.
    pub changes: Vec<Change>,
    /// By rule.
    pub by_rule: BTreeMap<String, RuleChanges>,
}

impl Changes {
    /// How many decisions changed.
    pub fn count(&self) -> usize {
        self.changes.len()
    }
}

/// Finds the decisions of one journey among those of the other, as they come. What is the same needs no memory but its id.
#[derive(Debug, Default)]
pub struct Matching {
    /// An event id that comes again from beyond the dedupe window makes the same decision again: the first one counts.
    known: [HashSet<TriggerId>; 2],
    /// What the other journey has not made so far.
    alone: [HashMap<TriggerId, Change>; 2],
    changed: Vec<Change>,
    by_rule: BTreeMap<String, RuleChanges>,
}

impl Matching {
    /// Takes in a decision.
    pub fn take(&mut self, side: Side, fired: &Fired) {
        let trigger = &fired.trigger;
        let (mine, others) = match side {
            Side::New => (0, 1),
            Side::Old => (1, 0),
        };
        if !self.known[mine].insert(trigger.id) {
            return;
        }
        let rule = self.by_rule.entry(trigger.rule.clone()).or_default();
        *(if side == Side::New {
            &mut rule.new
        } else {
            &mut rule.old
        }) += 1;
        let decided = Decided {
            offer: trigger.offer.clone(),
            slot: trigger.slot.clone(),
            held_out: trigger.held_out,
            due_at: trigger.due_at,
        };
        let Some(mut change) = self.alone[others].remove(&trigger.id) else {
            let (old, new) = match side {
                Side::New => (None, Some(decided)),
                Side::Old => (Some(decided), None),
            };
            let change = Change {
                id: trigger.id,
                user: trigger.user.clone(),
                rule: trigger.rule.clone(),
                cause: trigger.cause.clone(),
                at: trigger.due_at.unwrap_or(trigger.decided_at),
                old,
                new,
                other: fired.other,
            };
            self.alone[mine].insert(trigger.id, change);
            return;
        };
        *(if side == Side::New {
            &mut change.new
        } else {
            &mut change.old
        }) = Some(decided);
        if change.old == change.new {
            rule.same += 1;
        } else {
            self.changed.push(change);
        }
    }

    /// What changed, when all decisions were taken in.
    pub fn finish(self) -> Changes {
        let mut changes = self.changed;
        changes.extend(self.alone.into_iter().flat_map(HashMap::into_values));
        changes.sort_by(|one, other| {
            let order = |change: &Change| (change.at, change.kind());
            let names =
                |one: &Change, other: &Change| one.user.cmp(&other.user).then_with(|| one.rule.cmp(&other.rule));
            order(one)
                .cmp(&order(other))
                .then_with(|| names(one, other))
                .then_with(|| one.id.cmp(&other.id))
        });
        let mut by_rule = self.by_rule;
        for change in &changes {
            let rule = by_rule.entry(change.rule.clone()).or_default();
            *rule.changed.entry((change.kind(), change.why())).or_default() += 1;
        }
        Changes { changes, by_rule }
    }
}
