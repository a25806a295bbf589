//! A comparison for people.

use usher_domain::rules::RuleOutcome;

use super::changes::ChangeKind;
use super::{Comparison, Ran};
use crate::people::{counted, grouped};

/// What limits offers, whichever rule makes them.
const POLICY: [(RuleOutcome, &str); 6] = [
    (RuleOutcome::Capped, "capped"),
    (RuleOutcome::QuietUntil, "put off by quiet hours"),
    (RuleOutcome::Quiet, "dropped by quiet hours"),
    (RuleOutcome::ContentCoolingDown, "content cooling down"),
    (RuleOutcome::Excluded, "excluded by their group"),
    (RuleOutcome::HeldOut, "held out"),
];

/// What would have changed.
pub fn comparison_text(comparison: &Comparison<'_>) -> String {
    let (old, new) = (&comparison.old, &comparison.new);
    let took_s = comparison.took.as_secs_f64();
    let per_second = comparison.lines.lines as f64 / took_s.max(f64::MIN_POSITIVE);
    let mut text = format!(
        "{} under both journeys in {took_s:.2} s ({} a second)\n  old  `{}` version {}\n  new  `{}` version {}\n",
        counted(comparison.lines.lines as usize, "event"),
        grouped(per_second as u64),
        old.journey.name,
        old.journey.version,
        new.journey.name,
        new.journey.version,
    );
    text.push_str(&match comparison.changes.count() {
        0 => "no decision changed\n".to_owned(),
        count => format!("{} changed\n", counted(count, "decision")),
    });
    text.push_str(&decisions(comparison));
    text.push_str(&reasons(comparison));
    text.push_str(&outcomes(comparison));
    text.push_str(&policy(old, new));
    text.push_str(&costs(comparison));
    text
}

/// Rows under a heading: the first column to the left, the others to the right, each as wide as it must be.
fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(heading.to_vec())).chain(rows).collect()
}

fn decisions(comparison: &Comparison<'_>) -> String {
    let mut rows = Vec::new();
    let mut totals = [0; 6];
    for (rule, changes) in &comparison.changes.by_rule {
        let kinds = [ChangeKind::Gained, ChangeKind::Lost, ChangeKind::Changed].map(|kind| changes.count(kind));
        let counts = [changes.old, changes.new, changes.same, kinds[0], kinds[1], kinds[2]];
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
        rows.push(row(&format!("  {rule}"), &counts));
    }
    if rows.len() != 1 {
        rows.push(row("  all", &totals));
    }
    columns(&["decisions", "old", "new", "same", "gained", "lost", "changed"], &rows)
}

fn row(name: &str, counts: &[u64]) -> Vec<String> {
    let cells = counts
        .iter()
        .map(|count| if *count == 0 { "-".to_owned() } else { grouped(*count) });
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// What is behind the changes of each rule.
fn reasons(comparison: &Comparison<'_>) -> String {
    let mut text = String::new();
    for (rule, changes) in &comparison.changes.by_rule {
        for (kind, told) in [
            (ChangeKind::Lost, "lost, because now"),
            (ChangeKind::Gained, "gained; before"),
            (ChangeKind::Changed, "changed:"),
        ] {
            let mut parts: Vec<(&String, &u64)> = changes
                .changed
                .iter()
                .filter(|((known, _), _)| *known == kind)
                .map(|((_, why), count)| (why, count))
                .collect();
            if parts.is_empty() {
                continue;
            }
            parts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let journey = match kind {
                ChangeKind::Lost => comparison.new.journey,
                _ => comparison.old.journey,
            };
            let has_rule = journey.rules.iter().any(|known| known.id == *rule);
            let parts: Vec<String> = parts
                .into_iter()
                .map(|(why, count)| format!("{} {}", words(why, has_rule), grouped(*count)))
                .collect();
            text.push_str(&format!("  {rule}: {told} {}\n", parts.join(", ")));
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("why\n{text}"),
    }
}

fn words(why: &str, has_rule: bool) -> String {
    match why {
        "not_looked" if has_rule => "not its moment".to_owned(),
        "not_looked" => "no such rule".to_owned(),
        "fired" => "decided for another cause".to_owned(),
        _ => why.replace('_', " "),
    }
}

/// Every rule that came out otherwise, with how it came out.
fn outcomes(comparison: &Comparison<'_>) -> String {
    let (old, new) = (&comparison.old, &comparison.new);
    let gone = old.journey.rules.iter().map(|rule| &rule.id);
    let gone = gone.filter(|rule| new.journey.rules.iter().all(|known| known.id != **rule));
    let mut rows = Vec::new();
    for rule in new.journey.rules.iter().map(|rule| &rule.id).chain(gone) {
        let mut of_rule = Vec::new();
        let mut differs = false;
        for outcome in RuleOutcome::ALL {
            let counts = [old, new].map(|ran| ran.count(rule, outcome));
            if counts.iter().all(|count| count.unwrap_or(0) == 0) {
                continue;
            }
            differs |= counts[0] != counts[1];
            let name = format!("    {}", outcome.name().replace('_', " "));
            of_rule.push(difference(&name, counts[0], counts[1]));
        }
        if differs {
            rows.push(vec![format!("  {rule}")]);
            rows.append(&mut of_rule);
        }
    }
    if rows.is_empty() {
        return "every rule came out as before\n".to_owned();
    }
    columns(&["rules that came out otherwise", "old", "new", "difference"], &rows)
}

fn difference(name: &str, old: Option<u64>, new: Option<u64>) -> Vec<String> {
    let cell = |count: Option<u64>| count.map_or_else(|| "no such rule".to_owned(), grouped);
    let (was, is) = (old.unwrap_or(0), new.unwrap_or(0));
    let change = match was.cmp(&is) {
        std::cmp::Ordering::Less => format!("+{}", grouped(is - was)),
        std::cmp::Ordering::Greater => format!("-{}", grouped(was - is)),
        std::cmp::Ordering::Equal => String::new(),
    };
    vec![name.to_owned(), cell(old), cell(new), change]
}

fn policy(old: &Ran<'_>, new: &Ran<'_>) -> String {
    let rows: Vec<Vec<String>> = POLICY
        .into_iter()
        .map(|(outcome, name)| (name, old.total(outcome), new.total(outcome)))
        .filter(|(_, old, new)| *old > 0 || *new > 0)
        .map(|(name, old, new)| difference(&format!("  {name}"), Some(old), Some(new)))
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => columns(&["policy, over all rules", "old", "new", "difference"], &rows),
    }
}

fn costs(comparison: &Comparison<'_>) -> String {
    let (old, new) = (&comparison.old.costs, &comparison.new.costs);
    let bytes = |name: &str, old: u64, new: u64| difference(name, Some(old), Some(new));
    let units = |units: f64| format!("{units:.2}");
    let mut rows = vec![
        bytes("  median, bytes", old.median_bytes, new.median_bytes),
        bytes("  nine of ten at most, bytes", old.p90_bytes, new.p90_bytes),
        bytes("  largest, bytes", old.max_bytes, new.max_bytes),
    ];
    rows.push(vec![
        "  write units of a write".to_owned(),
        units(old.units_per_write),
        units(new.units_per_write),
        match new.units_per_write - old.units_per_write {
            change if change.abs() < 0.005 => String::new(),
            change => format!("{change:+.2}"),
        },
    ]);
    let taken = new.writes_taken.min(old.writes_taken);
    format!(
        "{}  (write units are of {}; each event is a write here, a batch is one in the cloud)\n",
        columns(&["profile items", "old", "new", "difference"], &rows),
        counted(taken, "write"),
    )
}
