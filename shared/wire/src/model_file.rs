//! Models of slots in a file: one a line, as JSON, for whoever wants to keep, move or look at what was learned.
//!
//! The sums are whole numbers beyond what JSON's numbers are sure to hold, so they are texts. What is read back is exactly
//! what was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use usher_domain::bandit::state::{SlotState, StoredSlot};
use usher_domain::bandit::statistics::Statistics;

/// The version of the format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

fn first_format() -> u32 {
    1
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default = "first_format")]
    format: u32,
    slot: String,
    layout: u32,
    dimension: usize,
    #[serde(default)]
    half_life_ms: Option<i64>,
    /// None where nothing was learned with forgetting.
    #[serde(default)]
    tile: Option<i64>,
    arms: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    shared: Option<Shared>,
}

#[derive(Serialize, Deserialize)]
struct Shared {
    dimension: usize,
    sums: Vec<String>,
}

/// Why a line is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// It is not JSON of this shape.
    #[error("it is no model: write the file with `usher models export`")]
    Malformed(#[source] serde_json::Error),
    /// It was written by a newer version.
    #[error("it has format {0}, but this version reads up to {FORMAT}: use the version that wrote it")]
    NewerFormat(u32),
    /// A sum is no whole number, or there are not as many as the model's numbers need.
    #[error("the sums of {of} are damaged")]
    Damaged {
        /// The arm, or the shared model.
        of: String,
    },
    /// Its parts don't fit each other.
    #[error("its parts don't fit each other")]
    Unfit,
}

/// A model as a line, without its end.
pub fn to_json(slot: &str, state: &SlotState) -> String {
    let StoredSlot {
        layout,
        dimension,
        half_life_ms,
        tile,
        arms,
        shared,
    } = state.to_stored();
    let line = Line {
        format: FORMAT,
        slot: slot.to_owned(),
        layout,
        dimension,
        half_life_ms,
        tile: (tile != i64::MIN).then_some(tile),
        arms: arms.into_iter().map(|(arm, sums)| (arm, texts(&sums))).collect(),
        shared: shared.map(|shared| Shared {
            dimension: shared.dimension(),
            sums: texts(&shared),
        }),
    };
    // Text and numbers: there is nothing in it that can't be written.
    serde_json::to_string(&line).unwrap_or_default()
}

/// The slot and its model in a line.
///
/// # Errors
/// When it is none.
pub fn from_json(line: &str) -> Result<(String, SlotState), ModelFileError> {
    let Line {
        format,
        slot,
        layout,
        dimension,
        half_life_ms,
        tile,
        arms,
        shared,
    } = serde_json::from_str(line).map_err(ModelFileError::Malformed)?;
    if format > FORMAT {
        return Err(ModelFileError::NewerFormat(format));
    }
    let arms = arms.into_iter().map(|(arm, sums)| {
        Ok((
            arm.clone(),
            statistics(dimension, &sums, || format!("the arm `{arm}`"))?,
        ))
    });
    let stored = StoredSlot {
        layout,
        dimension,
        half_life_ms,
        tile: tile.unwrap_or(i64::MIN),
        arms: arms.collect::<Result<_, ModelFileError>>()?,
        shared: match shared {
            Some(shared) => Some(statistics(shared.dimension, &shared.sums, || {
                "the shared model".to_owned()
            })?),
            None => None,
        },
    };
    let state = SlotState::from_stored(stored).ok_or(ModelFileError::Unfit)?;
    Ok((slot, state))
}

fn texts(statistics: &Statistics) -> Vec<String> {
    statistics.sums().iter().map(ToString::to_string).collect()
}

fn statistics(dimension: usize, sums: &[String], of: impl Fn() -> String) -> Result<Statistics, ModelFileError> {
    let damaged = || ModelFileError::Damaged { of: of() };
    let sums: Option<Vec<i128>> = sums.iter().map(|sum| sum.parse().ok()).collect();
    // As many as a learner has at most: the rest of the arithmetic is safe then.
    if dimension > usher_domain::bandit::limits::BANDIT_DIMENSION_MAX {
        return Err(damaged());
    }
    Statistics::from_sums(dimension, sums.ok_or_else(damaged)?).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use usher_domain::bandit::context::{Feature, FeatureKind, Layout, Standards};
    use usher_domain::bandit::state::{Outcome, SlotState};
    use usher_domain::time::Timestamp;
    use usher_domain::value::Value;

    use super::*;

    fn layout() -> Layout {
        let number = |name: &str| Feature {
            name: name.to_owned(),
            kind: FeatureKind::Number,
        };
        Layout::new(vec![number("clicks")], vec![number("minutes")]).expect("it fits")
    }

    #[test]
    fn a_newer_format_is_refused_and_the_first_needs_no_name() {
        let line = to_json("in_app", &SlotState::new(&layout(), None));
        let named = format!("\"format\":{FORMAT},");
        assert!(from_json(&line.replace(&named, "")).is_ok());
        let error = from_json(&line.replace(&named, "\"format\":2,")).expect_err("it is newer");
        assert!(matches!(error, ModelFileError::NewerFormat(2)), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            outcomes in prop::collection::vec(("[a-zé ]{1,6}", -1e9..1e9, -1e7..1e7, any::<i32>()), 0..12),
            half_life_ms in prop::option::of(60_000i64..1_000_000),
        ) {
            let layout = layout();
            let mut state = SlotState::new(&layout, half_life_ms);
            for (arm, number, reward, at) in &outcomes {
                state.learn(&layout, &Outcome {
                    arm,
                    context: &layout.context(|_| Value::Float(*number), &Standards::default()),
                    content: &layout.content(|_| Value::Float(*number)),
                    reward: *reward,
                    previous: None,
                    at: Timestamp::from_epoch_ms(i64::from(*at) * 1000),
                });
            }
            let line = to_json("in_app", &state);
            let (slot, read) = from_json(&line).expect("a model");
            prop_assert_eq!((slot.as_str(), &read), ("in_app", &state));
            prop_assert_eq!(read.version(), state.version());
        }

        #[test]
        fn p10_any_line_is_read_or_refused(
            line in ".{0,80}", dimension in any::<usize>(), sums in prop::collection::vec("-?[0-9]{1,40}", 0..12)
        ) {
            let _ = from_json(&line);
            let line = serde_json::json!({
                "slot": "s", "layout": 1, "dimension": dimension % 40, "arms": { "a": sums }, "shared": { "dimension": dimension, "sums": sums },
            });
            let _ = from_json(&line.to_string());
        }
    }
}
