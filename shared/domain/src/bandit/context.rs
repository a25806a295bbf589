//! From typed values to the numbers that a linear model takes.
//!
//! A number becomes its square root (with its sign), which tames counts, sums and durations; a boolean becomes 0 or 1; of a
//! text with known values each has a number of its own that is 1 when it is the one (and the last stands for all others); any
//! other text is hashed into a few of those. Standardising comes later: the sums that are learned allow it exactly
//! (see [`crate::bandit::statistics`]), so here a number is only kept within [`SPREADS_MAX`] standard deviations of the mean so
//! far, lest one wrong value spoil both for good.

use std::borrow::Cow;

use crate::bandit::fixed_point::{ONE, clamped, units, value};
use crate::bandit::limits::{BANDIT_DIMENSION_MAX, BANDIT_TEXT_BUCKETS_MAX, BANDIT_VALUE_MAX};
use crate::bandit::statistics::Statistics;
use crate::hash::{fingerprint, hash_bytes, hash_parts};
use crate::value::Value;

/// Standard deviations from the mean beyond which a number counts as one that far from it.
pub const SPREADS_MAX: f64 = 4.0;
/// Outcomes from which the mean and the standard deviation of a number are believed.
const STANDARDS_OUTCOMES_MIN: f64 = 30.0;
/// The fewest places that a hashed text may be given.
const TEXT_BUCKETS_MIN: usize = 2;
/// What the logarithm of a number is divided by where it is multiplied with a content's features: brings usual ones near 1.
const CROSSED_LOG_SCALE: f64 = 4.0;

/// How a feature becomes numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// A number: one place.
    Number,
    /// True or false: one place.
    Bool,
    /// A text that is one of these: a place for each, and one for all others.
    OneOf(Vec<String>),
    /// Any text, hashed into at most [`BANDIT_TEXT_BUCKETS_MAX`] places.
    Text,
}

/// A feature of the context or of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is called; values are asked for by it.
    pub name: String,
    /// How it becomes numbers.
    pub kind: FeatureKind,
}

/// Why features make no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// They need more places than there are.
    #[error("the features need {needed} numbers, but there are {BANDIT_DIMENSION_MAX}; name fewer, or fewer values")]
    TooMany {
        /// Places that they need.
        needed: usize,
    },
    /// Contents have so many features that none can be seen together with the context.
    #[error(
        "the contents' features need {needed} numbers, but at most {most}, so that the context can be seen with them"
    )]
    TooManyOfContents {
        /// Places that they need.
        needed: usize,
        /// Places that there are for them.
        most: usize,
    },
    /// Two have the same name.
    #[error("the feature {name:?} is named twice")]
    Twice {
        /// The name.
        name: String,
    },
}

/// Contents' numbers are as they are: each has the same ones in every decision.
static NO_STANDARDS: Standards = Standards { places: Vec::new() };

/// Places that the contents' features may take of those of the shared model.
const CONTENT_DIMENSION_MAX: usize = BANDIT_DIMENSION_MAX / 2;

/// What each place of a context stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    context: Places,
    content: Option<Places>,
    /// Of each of the contents' numbers times each of the context's: its place in the shared model and its sign.
    crosses: Vec<(usize, f64)>,
    fingerprint: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Places {
    features: Vec<(Feature, Vec<u64>, usize, usize)>,
    dimension: usize,
    /// Whether a place holds a number, not a 0 or 1.
    is_number: Vec<bool>,
}

/// A context as numbers, in units of 2⁻¹⁶.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(Vec<i64>);

/// A content's own features as numbers, in units of 2⁻¹⁶.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(Vec<i64>);

/// The means and standard deviations of the numbers so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standards {
    /// Of each place: mean and standard deviation.
    pub(super) places: Vec<(f64, f64)>,
}

impl Context {
    /// A context as it was stored.
    pub fn from_units(units: Vec<i64>) -> Context {
        Context(units.into_iter().map(clamped).collect())
    }

    /// What to store, in units of 2⁻¹⁶.
    pub fn units(&self) -> &[i64] {
        &self.0
    }

    /// How many numbers it has.
    pub fn dimension(&self) -> usize {
        self.0.len()
    }

    /// A name for exactly this context, to be logged with each decision.
    pub fn hash(&self) -> u64 {
        let bytes: Vec<u8> = self.0.iter().flat_map(|units| units.to_le_bytes()).collect();
        hash_bytes(&bytes)
    }
}

impl Content {
    /// A content's features as they were stored.
    pub fn from_units(units: Vec<i64>) -> Content {
        Content(units.into_iter().map(clamped).collect())
    }

    /// What to store, in units of 2⁻¹⁶.
    pub fn units(&self) -> &[i64] {
        &self.0
    }
}

impl Standards {
    /// Those of some outcomes.
    pub(super) fn of(statistics: &Statistics) -> Standards {
        let count = statistics.count();
        if count < STANDARDS_OUTCOMES_MIN {
            return Standards::default();
        }
        let place = |place: usize| {
            let mean = statistics.entry(place, 0) / count;
            let variance = statistics.entry(place, place) / count - mean * mean;
            (mean, variance.max(0.0).sqrt())
        };
        Standards {
            places: (1..=statistics.dimension()).map(place).collect(),
        }
    }
}

impl Places {
    fn of(features: Vec<Feature>, most: usize) -> Result<Places, LayoutError> {
        for (index, feature) in features.iter().enumerate() {
            if features[..index].iter().any(|earlier| earlier.name == feature.name) {
                return Err(LayoutError::Twice {
                    name: feature.name.clone(),
                });
            }
        }
        let own = |feature: &Feature| match &feature.kind {
            FeatureKind::Number | FeatureKind::Bool => 1,
            FeatureKind::OneOf(values) => values.len() + 1,
            FeatureKind::Text => 0,
        };
        let texts = features
            .iter()
            .filter(|feature| feature.kind == FeatureKind::Text)
            .count();
        let known: usize = features.iter().map(own).sum();
        let needed = known + texts * TEXT_BUCKETS_MIN;
        if needed > most {
            return Err(LayoutError::TooMany { needed });
        }
        let buckets = BANDIT_TEXT_BUCKETS_MAX.min((most - known) / texts.max(1));
        let mut places = Places {
            features: Vec::new(),
            dimension: 0,
            is_number: Vec::new(),
        };
        for feature in features {
            let len = match feature.kind {
                FeatureKind::Text => buckets,
                _ => own(&feature),
            };
            places
                .is_number
                .extend(std::iter::repeat_n(feature.kind == FeatureKind::Number, len));
            let first = places.dimension;
            places.dimension += len;
            let values = match &feature.kind {
                FeatureKind::OneOf(values) => values.iter().map(|value| hash_bytes(value.as_bytes())).collect(),
                _ => Vec::new(),
            };
            places.features.push((feature, values, first, len));
        }
        Ok(places)
    }

    /// `value_of` is given the index and the name of each feature, in order.
    fn encode<'r, 'v: 'r>(
        &self,
        value_of: impl Fn(usize, &str) -> Cow<'r, Value<'v>>,
        standards: &Standards,
    ) -> Vec<i64> {
        let mut numbers = vec![0; self.dimension];
        for (index, (feature, values, first, len)) in self.features.iter().enumerate() {
            let value = value_of(index, &feature.name);
            let value = value.as_ref();
            match &feature.kind {
                FeatureKind::Number => numbers[*first] = number(value, standards.places.get(*first).copied()),
                FeatureKind::Bool => numbers[*first] = if *value == Value::Bool(true) { ONE } else { 0 },
                FeatureKind::OneOf(_) => {
                    let hash = text_hash(value);
                    let known = values.iter().position(|known| Some(*known) == hash);
                    numbers[first + known.unwrap_or(values.len())] = ONE;
                }
                FeatureKind::Text => {
                    if let Some(hash) = text_hash(value) {
                        numbers[first + (hash % *len as u64) as usize] = ONE;
                    }
                }
            }
        }
        numbers
    }

    fn described(&self) -> String {
        let parts = self.features.iter().map(|(feature, ..)| format!("{feature:?};"));
        parts.collect()
    }
}

/// The value with an index; a null where it is missing.
fn in_order<'r, 'v>(values: &'r [Option<Value<'v>>], index: usize) -> Cow<'r, Value<'v>> {
    match values.get(index) {
        Some(Some(value)) => Cow::Borrowed(value),
        _ => Cow::Owned(Value::Null),
    }
}

fn text_hash(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some(hash_bytes(text.as_bytes())),
        other => Some(hash_bytes(other.to_string().as_bytes())),
    }
}

/// The signed root of a number, near the mean. One that is missing is taken to be the mean.
fn number(value: &Value<'_>, standard: Option<(f64, f64)>) -> i64 {
    let number = match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        _ => f64::NAN,
    };
    let (mean, spread) = standard.unwrap_or((0.0, f64::INFINITY));
    if number.is_nan() {
        return units(mean);
    }
    let root = number.abs().sqrt().min(BANDIT_VALUE_MAX).copysign(number);
    // One value over and over has no spread, but a second one must be able to make itself known.
    let reach = SPREADS_MAX * spread.max(value_resolution(mean));
    units(root.clamp(mean - reach, mean + reach))
}

/// The least spread that is believed of numbers around a mean.
fn value_resolution(mean: f64) -> f64 {
    const SHARE: f64 = 0.01;
    const LEAST: f64 = 0.01;
    (mean.abs() * SHARE).max(LEAST)
}

impl Layout {
    /// A layout for these features of the context, and those of contents if the arms are to share a model.
    pub fn new(context: Vec<Feature>, content: Vec<Feature>) -> Result<Layout, LayoutError> {
        let context = Places::of(context, BANDIT_DIMENSION_MAX)?;
        let content = match content.is_empty() {
            true => None,
            false => Some(Places::of(content, CONTENT_DIMENSION_MAX).map_err(|error| match error {
                LayoutError::TooMany { needed } => LayoutError::TooManyOfContents {
                    needed,
                    most: CONTENT_DIMENSION_MAX,
                },
                other => other,
            })?),
        };
        let described = content.as_ref().map(Places::described).unwrap_or_default();
        let mut layout = Layout {
            fingerprint: fingerprint(&["bandit layout 1", &context.described(), &described]),
            context,
            content,
            crosses: Vec::new(),
        };
        layout.crosses = layout.placed_crosses();
        Ok(layout)
    }

    fn placed_crosses(&self) -> Vec<(usize, f64)> {
        let own = self.content.as_ref().map_or(0, |places| places.dimension);
        let room = self.shared_dimension().map_or(0, |dimension| dimension - own);
        let crosses = own * self.context.dimension;
        let placed = |cross: usize| match crosses <= room {
            true => (own + cross, 1.0),
            false => {
                let (place, sign) = hashed_place(cross, room);
                (own + place, sign)
            }
        };
        (0..crosses).map(placed).collect()
    }

    /// A name for it: what was learned under another one can't be used.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Numbers of a context.
    pub fn dimension(&self) -> usize {
        self.context.dimension
    }

    /// Whether a place of a context holds a number, not a 0 or 1.
    pub(super) fn is_number(&self, place: usize) -> bool {
        self.context.is_number.get(place).copied().unwrap_or(false)
    }

    /// The context with these values. `standards` are those of the model snapshot
    /// ([`crate::bandit::snapshot::ModelSnapshot::standards`]).
    pub fn context<'v>(&self, value_of: impl Fn(&str) -> Value<'v>, standards: &Standards) -> Context {
        Context(self.context.encode(|_, name| Cow::Owned(value_of(name)), standards))
    }

    /// The context with these values, in the order of its features; what is not there is missing.
    pub fn context_of(&self, values: &[Option<Value<'_>>], standards: &Standards) -> Context {
        Context(self.context.encode(|index, _| in_order(values, index), standards))
    }

    /// A content with these values.
    pub fn content<'v>(&self, value_of: impl Fn(&str) -> Value<'v>) -> Content {
        let encode = |places: &Places| places.encode(|_, name| Cow::Owned(value_of(name)), &NO_STANDARDS);
        Content(self.content.as_ref().map(encode).unwrap_or_default())
    }

    /// A content with these values, in the order of its features; what is not there is missing.
    pub fn content_of(&self, values: &[Option<Value<'_>>]) -> Content {
        let encode = |places: &Places| places.encode(|index, _| in_order(values, index), &NO_STANDARDS);
        Content(self.content.as_ref().map(encode).unwrap_or_default())
    }

    /// Numbers of a context and a content seen together.
    pub fn shared_dimension(&self) -> Option<usize> {
        let content = self.content.as_ref()?.dimension;
        Some((content + content * self.context.dimension).min(BANDIT_DIMENSION_MAX))
    }

    /// A context as it is multiplied with contents' numbers.
    pub(super) fn factors(&self, context: &Context) -> Vec<f64> {
        let numbers = context.0.iter().take(self.context.dimension);
        numbers
            .enumerate()
            .map(|(place, number)| self.crossed(place, *number))
            .collect()
    }

    /// A context and a content seen together: the content's numbers, and each of them times each of the context's, every
    /// product in a place of its own, or hashed with a sign where there are too many.
    /// `numbers` is cleared first; a constant 1 stands before them.
    pub(super) fn joint(&self, factors: &[f64], content: &Content, numbers: &mut Vec<f64>) {
        numbers.clear();
        numbers.resize(self.shared_dimension().unwrap_or(0) + 1, 0.0);
        numbers[0] = 1.0;
        let own = self.content.as_ref().map_or(0, |places| places.dimension);
        for (place, units) in content.0.iter().take(own).enumerate() {
            if *units == 0 {
                continue;
            }
            let number = value(*units);
            numbers[place + 1] += number;
            let crosses = &self.crosses[place * self.context.dimension..];
            for (factor, (cross, sign)) in factors.iter().zip(crosses) {
                numbers[cross + 1] += sign * factor * number;
            }
        }
    }

    /// What a unit of each of a content's numbers adds to a context and a content seen together: joint numbers are the
    /// constant and the sum of these, each times the content's number. Each starts with the place of the constant.
    pub(super) fn directions(&self, factors: &[f64]) -> Vec<Vec<f64>> {
        let (own, dimension) = (
            self.content.as_ref().map_or(0, |places| places.dimension),
            self.shared_dimension().unwrap_or(0),
        );
        let direction = |place: usize| {
            let mut numbers = vec![0.0; dimension + 1];
            numbers[place + 1] = 1.0;
            let crosses = &self.crosses[place * self.context.dimension..];
            for (factor, (cross, sign)) in factors.iter().zip(crosses) {
                numbers[cross + 1] += sign * factor;
            }
            numbers
        };
        (0..own).map(direction).collect()
    }

    fn crossed(&self, place: usize, number: i64) -> f64 {
        let number = value(number);
        match self.is_number(place) {
            true => (libm::log2(1.0 + number.abs()) / CROSSED_LOG_SCALE).copysign(number),
            false => number,
        }
    }
}

fn hashed_place(cross: usize, room: usize) -> (usize, f64) {
    let hash = hash_parts(&[b"cross", &(cross as u64).to_le_bytes()]) as u64;
    let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
    ((hash % room as u64) as usize, sign)
}
