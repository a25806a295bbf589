//! One user's decisions under both journeys, side by side.

use usher_domain::journey::Journey;
use usher_domain::merge::HouseholdStep;
use usher_domain::rules::RuleOutcome;
use usher_domain::time::Timestamp;
use usher_domain::trigger::Trigger;

use super::{NEW, OLD};
use crate::people::counted;
use crate::replay::folding::{Folded, Seen};

/// What stands where a journey decided nothing.
const NOTHING: &str = "-";
/// How a rule comes out that would have fired but for what limits offers. It is shown although nothing was decided.
const HELD_BACK: [RuleOutcome; 6] = [
    RuleOutcome::Capped,
    RuleOutcome::QuietUntil,
    RuleOutcome::Quiet,
    RuleOutcome::ContentCoolingDown,
    RuleOutcome::Excluded,
    RuleOutcome::HeldOut,
];

/// What timers fired for the user after the last line, under each journey.
pub fn after_all(after: &[Folded], user: &str) -> Vec<Vec<Trigger>> {
    let of_user = |folded: &Folded| {
        let fired = folded.fired.iter().map(|fired| &fired.trigger);
        fired.filter(|trigger| trigger.user == user).cloned().collect()
    };
    after.iter().map(of_user).collect()
}

/// A moment at which something was decided, or held back, under one journey.
struct Row {
    at: Timestamp,
    cause: String,
    rule: String,
    old: String,
    new: String,
}

/// The user's timeline.
pub fn timeline_text(
    user: &str,
    new_journey: &Journey,
    old_journey: &Journey,
    seen: &[Seen],
    after: &[Vec<Trigger>],
) -> String {
    if seen.is_empty() && after.iter().all(Vec::is_empty) {
        return format!(
            "{user} has no event here; user ids are as the events have them, anonymous ones behind `anonymous:`\n"
        );
    }
    let mut rows = Vec::new();
    for seen in seen {
        let cause = format!("line {}: {} `{}`", seen.number, seen.event_type, seen.event_id);
        rows_of(&mut rows, seen.at, &cause, [new_journey, old_journey], &seen.steps);
    }
    let nothing = Vec::new();
    let fired = [NEW, OLD].map(|index| after.get(index).unwrap_or(&nothing));
    merge_rows(&mut rows, None, "after the last line", &fired, |_, _| None);
    let mut text = format!("{user}: {}, old | new\n", counted(seen.len(), "event"));
    if rows.is_empty() {
        text.push_str("  nothing was decided under either journey\n");
    }
    let width = |cell: fn(&Row) -> &str| rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0);
    let (rule_width, old_width) = (width(|row| &row.rule), width(|row| &row.old));
    let mut last_cause = "";
    for row in &rows {
        if row.cause != last_cause {
            text.push_str(&format!("{}  {}\n", row.at, row.cause));
            last_cause = &row.cause;
        }
        let mark = if row.old == row.new { ' ' } else { '*' };
        text.push_str(&format!(
            "  {mark} {:<rule_width$}  {:<old_width$} | {}\n",
            row.rule, row.old, row.new
        ));
    }
    text
}

fn rows_of(rows: &mut Vec<Row>, at: Timestamp, cause: &str, journeys: [&Journey; 2], steps: &[HouseholdStep]) {
    let outcome = |journey: usize, rule: &str| {
        let index = journeys[journey].rules.iter().position(|known| known.id == rule)?;
        let step = steps.get(journey)?;
        RuleOutcome::ALL
            .into_iter()
            .find(|outcome| step.rules.get(index, *outcome) > 0)
    };
    let nothing = Vec::new();
    let fired = [NEW, OLD].map(|index| steps.get(index).map_or(&nothing, |step| &step.triggers));
    let before = rows.len();
    merge_rows(rows, Some(at), cause, &fired, outcome);
    for journey in [NEW, OLD] {
        for rule in &journeys[journey].rules {
            let is_told = rows[before..].iter().any(|row| row.rule == rule.id);
            let came_out = outcome(journey, &rule.id);
            if is_told || !came_out.is_some_and(|outcome| HELD_BACK.contains(&outcome)) {
                continue;
            }
            let cell = |journey| outcome(journey, &rule.id).map_or_else(|| NOTHING.to_owned(), words);
            rows.push(Row {
                at,
                cause: cause.to_owned(),
                rule: rule.id.clone(),
                old: cell(OLD),
                new: cell(NEW),
            });
        }
    }
}

/// A row for each decision; the same decision of both in one.
fn merge_rows(
    rows: &mut Vec<Row>,
    at: Option<Timestamp>,
    cause: &str,
    fired: &[&Vec<Trigger>; 2],
    outcome: impl Fn(usize, &str) -> Option<RuleOutcome>,
) {
    let first = rows.len();
    let mut ids = Vec::new();
    for (journey, triggers) in [NEW, OLD].into_iter().zip(fired) {
        for trigger in *triggers {
            let told = decided(trigger);
            if let Some(row) = ids.iter().position(|id| *id == trigger.id) {
                let row: &mut Row = &mut rows[first + row];
                *(if journey == NEW { &mut row.new } else { &mut row.old }) = told;
                continue;
            }
            ids.push(trigger.id);
            let other = if journey == NEW { OLD } else { NEW };
            let others = outcome(other, &trigger.rule).map_or_else(|| NOTHING.to_owned(), words);
            let (old, new) = if journey == NEW { (others, told) } else { (told, others) };
            rows.push(Row {
                at: at.or(trigger.due_at).unwrap_or(trigger.decided_at),
                cause: cause.to_owned(),
                rule: trigger.rule.clone(),
                old,
                new,
            });
        }
    }
}

fn decided(trigger: &Trigger) -> String {
    let mut text = format!("{} in {}", trigger.offer, trigger.slot);
    if let Some(due_at) = trigger.due_at {
        text.push_str(&format!(", due {due_at}"));
    }
    if trigger.held_out {
        text.push_str(", held out");
    }
    text
}

fn words(outcome: RuleOutcome) -> String {
    outcome.name().replace('_', " ")
}
