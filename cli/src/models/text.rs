//! Models as people read them.

use usher_domain::bandit::state::SlotState;
use usher_domain::bandit::statistics::Statistics;
use usher_domain::journey::SlotLearner;
use usher_pipeline::models::{FoundModel, KeptModel};

use crate::people::counted;

const MS_PER_HOUR: f64 = 3_600_000.0;

/// All slots, one a row; `others` counts models of other layouts beside each.
pub fn list(rows: &[(&SlotLearner, FoundModel, usize)]) -> String {
    let mut table = vec![
        [
            "slot",
            "learner",
            "contents",
            "outcomes",
            "mean reward",
            "version",
            "updated",
        ]
        .map(str::to_owned),
    ];
    let mut notes = String::new();
    for (learner, found, others) in rows {
        let name = learner.learner.algorithm.name().to_owned();
        let mut row = [
            learner.slot.clone(),
            name,
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
        ];
        match found {
            FoundModel::Ready(model) => {
                let total = total(&model.state);
                row[2] = model.state.arms().len().to_string();
                row[3] = outcomes(total.count());
                row[4] = mean(&total);
                row[5] = format!("{:016x}", model.state.version());
                row[6] = model.updated_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
            }
            FoundModel::Missing => row[5] = "nothing learned".to_owned(),
            FoundModel::Unreadable(why) => {
                row[5] = "unreadable".to_owned();
                notes.push_str(&format!(
                    "{}: {why}; run `usher models import` or `usher models reset`\n",
                    learner.slot
                ));
            }
        }
        if *others > 0 {
            let models = counted(*others, "model");
            notes.push_str(&format!(
                "{}: {models} of other versions of the journey beside it\n",
                learner.slot
            ));
        }
        table.push(row);
    }
    let mut text = aligned(&table);
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// One slot's model.
pub fn model(learner: &SlotLearner, model: &KeptModel) -> String {
    let state = &model.state;
    let stored = state.to_stored();
    let mut text = format!(
        "{}: {}, {}\n",
        learner.slot,
        learner.learner.algorithm.name(),
        what_it_knows(state)
    );
    let items = match model.part_count() {
        0 => "one item".to_owned(),
        parts => format!("{} items", parts + 1),
    };
    text.push_str(&format!(
        "version {:016x}, written {} times, last {}; {} of a context, {} bytes in {items}\n",
        state.version(),
        model.version,
        model.updated_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
        counted(state.dimension(), "number"),
        state.estimated_bytes(),
    ));
    if let Some(half_life_ms) = stored.half_life_ms {
        let hours = half_life_ms as f64 / MS_PER_HOUR;
        text.push_str(&format!("an outcome counts half as much after {hours} hours\n"));
    }
    text.push('\n');
    let mut table = vec![["content", "outcomes", "mean reward"].map(str::to_owned)];
    let mut arms: Vec<(&String, &Statistics)> = state.arms().iter().collect();
    arms.sort_by(|(_, left), (_, right)| mean_of(right).total_cmp(&mean_of(left)));
    for (arm, statistics) in arms {
        table.push([arm.clone(), outcomes(statistics.count()), mean(statistics)]);
    }
    text.push_str(&aligned(&table));
    text
}

/// Such as `1,024 outcomes of 5 contents`.
pub fn what_it_knows(state: &SlotState) -> String {
    let outcomes = outcomes(total(state).count());
    let plural = if outcomes == "1" { "" } else { "s" };
    format!(
        "{outcomes} outcome{plural} of {}",
        counted(state.arms().len(), "content")
    )
}

fn total(state: &SlotState) -> Statistics {
    let mut total = Statistics::new(state.dimension());
    state.arms().values().for_each(|arm| total.merge(arm));
    total
}

/// With forgetting they are no whole number.
fn outcomes(count: f64) -> String {
    if count.fract() == 0.0 {
        format!("{count}")
    } else {
        format!("{count:.1}")
    }
}

fn mean_of(statistics: &Statistics) -> f64 {
    let count = statistics.count();
    if count > 0.0 {
        statistics.reward_sum() / count
    } else {
        0.0
    }
}

/// The mean and its standard error.
fn mean(statistics: &Statistics) -> String {
    let count = statistics.count();
    if count <= 0.0 {
        return "-".to_owned();
    }
    let mean = mean_of(statistics);
    let variance = (statistics.reward_squares() / count - mean * mean).max(0.0);
    format!("{mean:.4} ± {:.4}", (variance / count).sqrt())
}

fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{journey, state};
    use super::*;

    #[test]
    fn a_model_reads_well() {
        let journey = journey("");
        let state = state(&journey.learners[0]);
        assert_eq!(what_it_knows(&state), "3 outcomes of 2 contents");
        assert_eq!(mean(&state.arms()["demo"]), "1.0000 ± 0.0000");
        assert_eq!(mean(&state.arms()["tour"]), "1.0000 ± 0.7071");
        assert_eq!(mean(&Statistics::new(0)), "-");
        let rows = [["a", "bc"], ["def", "g"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "a    bc\ndef  g\n");
        assert_eq!((outcomes(12.0), outcomes(11.96)), ("12".to_owned(), "12.0".to_owned()));
    }
}
