//! Which values a slot can have at all.

use super::{Slot, TrendOf};
use crate::event::Field;
use crate::feature::Computation;
use crate::journey::Journey;
use crate::local_time::{HOURS, WEEKDAYS};
use crate::value::{Scalar, Value};

/// What is known of an event and the profile that it is folded into, before either is there.
#[derive(Clone, Debug)]
pub struct Facts<'f> {
    /// The journey that the conditions belong to.
    pub journey: &'f Journey,
    /// The types that the event can be of, where that is known.
    pub event_types: Option<&'f [String]>,
    /// Of each step whether it is done, where that is certain.
    pub steps: Vec<Option<bool>>,
    /// The features that are counts of at least 1.
    pub counted: Vec<usize>,
    /// Whether the event belongs to a session: there is none without an event.
    pub in_session: bool,
}

impl<'f> Facts<'f> {
    /// Nothing but the journey.
    pub fn none(journey: &'f Journey) -> Facts<'f> {
        Facts {
            journey,
            event_types: None,
            steps: vec![None; journey.steps.len()],
            counted: Vec::new(),
            in_session: false,
        }
    }
}

/// The values that a slot can have: too many rather than too few.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Domain {
    missing: bool,
    null: bool,
    bools: bool,
    ints: Option<(i64, i64)>,
    floats: Option<(f64, f64)>,
    texts: Texts,
    /// Lists and objects.
    others: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Texts {
    #[default]
    None,
    Any,
    These(Vec<String>),
}

const ANY_INT: (i64, i64) = (i64::MIN, i64::MAX);
const ANY_FLOAT: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

impl Domain {
    fn anything() -> Domain {
        Domain {
            missing: true,
            null: true,
            bools: true,
            ints: Some(ANY_INT),
            floats: Some(ANY_FLOAT),
            texts: Texts::Any,
            others: true,
        }
    }

    fn int(least: i64, most: i64) -> Domain {
        Domain {
            ints: Some((least, most)),
            ..Domain::default()
        }
    }

    fn float(least: f64) -> Domain {
        Domain {
            floats: Some((least, f64::INFINITY)),
            ..Domain::default()
        }
    }

    fn or_null(self) -> Domain {
        Domain { null: true, ..self }
    }

    fn text() -> Domain {
        Domain {
            texts: Texts::Any,
            ..Domain::default()
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn time() -> Domain {
        Domain::int(0, i64::MAX)
    }

    /// The values of a slot other than a step's.
    pub(super) fn of(slot: &Slot, facts: &Facts<'_>) -> Domain {
        match slot {
            Slot::Event(field) => Domain::of_field(field, facts),
            Slot::Feature(index) => match facts.journey.features.get(*index) {
                Some(_) if facts.counted.contains(index) => Domain::int(1, i64::MAX),
                Some(feature) => Domain::of_feature(&feature.computation),
                None => Domain::anything(),
            },
            Slot::Arm(index) => match facts.journey.experiments.get(*index) {
                Some(experiment) => Domain {
                    texts: Texts::These(experiment.arms.iter().map(|(name, _)| name.clone()).collect()),
                    ..Domain::default()
                },
                None => Domain::anything(),
            },
            Slot::Trend(_, TrendOf::Named(_)) => Domain::int(0, i64::MAX),
            Slot::Trend(_, TrendOf::Read(_)) => Domain {
                missing: true,
                ..Domain::int(0, i64::MAX)
            },
            Slot::Hour => Domain::int(0, HOURS as i64 - 1),
            Slot::Weekday => Domain::int(1, WEEKDAYS as i64),
            Slot::SessionCount | Slot::SessionEvents => Domain::int(i64::from(facts.in_session), i64::MAX),
            Slot::SessionDuration => Domain::int(0, i64::MAX),
            _ => Domain::anything(),
        }
    }

    fn of_field(field: &Field, facts: &Facts<'_>) -> Domain {
        match field {
            Field::Type => match facts.event_types {
                Some(types) => Domain {
                    texts: Texts::These(types.to_vec()),
                    ..Domain::default()
                },
                None => Domain::text(),
            },
            Field::Id | Field::UserId => Domain::text(),
            Field::LocalHour => Domain::int(0, HOURS as i64 - 1),
            Field::LocalWeekday => Domain::int(1, WEEKDAYS as i64),
            Field::Property(_) => Domain::anything(),
            _ => Domain {
                missing: true,
                ..Domain::text()
            },
        }
    }

    fn of_feature(computation: &Computation) -> Domain {
        match computation {
            Computation::Count
            | Computation::CountWithin(_)
            | Computation::Distinct(_)
            | Computation::DistinctWithin(..)
            | Computation::SessionCount
            | Computation::SessionDuration
            | Computation::SessionEvents
            | Computation::SessionCurrentDuration => Domain::int(0, i64::MAX),
            Computation::FirstSeen | Computation::LastSeen | Computation::TimeSince | Computation::TimeSinceFirst => {
                Domain::int(0, i64::MAX).or_null()
            }
            Computation::StepDuration { .. } => Domain::int(i64::MIN, i64::MAX).or_null(),
            Computation::SessionMeanDuration | Computation::Rate { .. } | Computation::RateWithin { .. } => {
                Domain::float(0.0).or_null()
            }
            Computation::Frequency { .. } | Computation::FrequencyWithin { .. } => Domain::float(0.0),
            Computation::Sum(_) | Computation::SumWithin(..) | Computation::Score { .. } => {
                Domain::float(f64::NEG_INFINITY)
            }
            Computation::Extreme(..)
            | Computation::ExtremeWithin(..)
            | Computation::Mean(_)
            | Computation::MeanWithin(..) => Domain::float(f64::NEG_INFINITY).or_null(),
            Computation::Recent { .. }
            | Computation::HourOfDay
            | Computation::Weekday
            | Computation::Top { limit: Some(_), .. } => Domain {
                others: true,
                ..Domain::default()
            },
            Computation::PerSession { inner, .. } => Domain::of_feature(inner),
            Computation::Last(_)
            | Computation::LastWithin(..)
            | Computation::First(_)
            | Computation::Top { limit: None, .. }
            | Computation::Expr => Domain::anything(),
        }
    }

    /// One value of each stretch in which comparisons with these literals come out the same. Whole numbers among the
    /// literals, and others, are small enough to be exact in either form.
    pub(super) fn witnesses(&self, literals: &[&Scalar]) -> Vec<Option<Value<'static>>> {
        let mut witnesses = Vec::new();
        if self.missing {
            witnesses.push(None);
        }
        if self.null {
            witnesses.push(Some(Value::Null));
        }
        if self.bools {
            witnesses.extend([true, false].map(|value| Some(Value::Bool(value))));
        }
        if self.others {
            witnesses.push(Some(Value::List(Vec::new())));
        }
        let numbers: Vec<f64> = literals
            .iter()
            .filter_map(|literal| match literal {
                Scalar::Int(number) => Some(*number as f64),
                Scalar::Float(number) => Some(*number),
                Scalar::Bool(_) | Scalar::Text(_) => None,
            })
            .collect();
        if let Some((least, most)) = self.ints {
            let near = numbers.iter().flat_map(|number| {
                let whole = number.floor() as i64;
                [whole - 1, whole, whole + 1, whole + 2]
            });
            let all = near.chain([least, most, 0]);
            let possible = all.filter(|number| (least..=most).contains(number));
            witnesses.extend(possible.map(|number| Some(Value::Int(number))));
        }
        if let Some((least, most)) = self.floats {
            let near = numbers
                .iter()
                .flat_map(|number| [number.next_down(), *number, number.next_up()]);
            let all = near.chain([least, most, 0.0]);
            let possible = all.filter(|number| (least..=most).contains(number));
            witnesses.extend(possible.map(|number| Some(Value::Float(number))));
        }
        match &self.texts {
            Texts::None => {}
            Texts::Any => {
                let texts = literals.iter().filter_map(|literal| match literal {
                    Scalar::Text(text) => Some(text.as_str()),
                    _ => None,
                });
                // The least text, each literal, and what comes just after it.
                let near = texts.flat_map(|text| [text.to_owned(), format!("{text}\0")]);
                let all = near.chain([String::new()]);
                witnesses.extend(all.map(|text| Some(Value::Text(text.into()))));
            }
            Texts::These(texts) => {
                let all = texts.iter().cloned();
                witnesses.extend(all.map(|text| Some(Value::Text(text.into()))));
            }
        }
        witnesses
    }
}
