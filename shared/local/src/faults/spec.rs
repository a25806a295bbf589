//! What is to go wrong, and how often, as people write it: `all`, `all:2%`, `kill:1%,dynamodb-throttle:5%,reshard`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{FaultKind, Faults, OPPORTUNITIES};

/// The word for every kind.
const ALL: &str = "all";
/// Strikes in a thousand opportunities that are one percent.
const PER_MILLE_OF_A_PERCENT: f64 = 10.0;
/// A rate is kept in steps of a tenth of a percent; what is written may be off by so much of a step.
const STEP_TOLERANCE: f64 = 1e-6;
/// How alike two names must be, from 0 to 1, for one to be suggested for the other (Jaro-Winkler).
const SUGGESTION_LIKENESS_MIN: f64 = 0.75;

/// Which kinds strike, and how often.
///
/// Items are separated by commas, and a later one replaces an earlier one: `all,kill:0` is all but kills. An item is a kind
/// or `all`, with or without a rate: a colon and a percentage of the opportunities, from `0%` to `100%` in steps of `0.1%`.
/// Without a rate each kind has its own, [`FaultKind::per_mille_default`].
///
/// ```
/// use usher_local::{FaultKind, FaultSpec};
///
/// let spec: FaultSpec = "all:2%,kill:0.5%,reshard:0".parse()?;
/// assert_eq!(spec.per_mille(FaultKind::Timeout), 20);
/// assert_eq!(spec.per_mille(FaultKind::Kill), 5);
/// assert_eq!(spec.per_mille(FaultKind::Reshard), 0);
/// # Ok::<(), usher_local::FaultSpecError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultSpec {
    /// As it was written.
    text: String,
    per_mille: BTreeMap<FaultKind, u32>,
}

/// Why a text is no [`FaultSpec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultSpecError {
    /// Nothing is named.
    #[error("no fault is named; write `all`, or some of {}", names())]
    Empty,
    /// There is no such kind.
    #[error("there is no fault `{name}`{}; write `all`, or some of {}", suggestion(.name), names())]
    UnknownKind {
        /// What was written.
        name: String,
    },
    /// The rate is no percentage.
    #[error("`{rate}` is no rate for {name}; write a percentage from 0% to 100% in steps of 0.1%, such as {name}:2%")]
    BadRate {
        /// The kind, or `all`.
        name: String,
        /// What was written.
        rate: String,
    },
}

fn names() -> String {
    FaultKind::ALL.map(FaultKind::name).join(", ")
}

fn suggestion(wrong: &str) -> String {
    let known = FaultKind::ALL.into_iter().map(FaultKind::name);
    let scored = known.map(|name| (strsim::jaro_winkler(wrong, name), name));
    match scored.max_by(|left, right| left.0.total_cmp(&right.0)) {
        Some((likeness, name)) if likeness >= SUGGESTION_LIKENESS_MIN => format!(", did you mean `{name}`?"),
        _ => String::new(),
    }
}

impl FaultSpec {
    /// Strikes of this kind in a thousand opportunities.
    pub fn per_mille(&self, kind: FaultKind) -> u32 {
        self.per_mille.get(&kind).copied().unwrap_or(0)
    }

    /// The faults themselves, decided by this seed.
    pub fn seeded(&self, seed: u64) -> Faults {
        Faults::seeded(self.per_mille.clone(), seed)
    }
}

impl FromStr for FaultSpec {
    type Err = FaultSpecError;

    fn from_str(text: &str) -> Result<FaultSpec, FaultSpecError> {
        let mut per_mille = BTreeMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, rate) = match item.split_once(':') {
                Some((name, rate)) => (name.trim(), Some(per_mille_of(name.trim(), rate.trim())?)),
                None => (item, None),
            };
            let kinds = match FaultKind::from_name(name) {
                Some(kind) => vec![kind],
                None if name == ALL => FaultKind::ALL.to_vec(),
                None => return Err(FaultSpecError::UnknownKind { name: name.to_owned() }),
            };
            per_mille.extend(
                kinds
                    .into_iter()
                    .map(|kind| (kind, rate.unwrap_or_else(|| kind.per_mille_default()))),
            );
        }
        if per_mille.is_empty() {
            return Err(FaultSpecError::Empty);
        }
        Ok(FaultSpec {
            text: text.to_owned(),
            per_mille,
        })
    }
}

fn per_mille_of(name: &str, text: &str) -> Result<u32, FaultSpecError> {
    let bad = || FaultSpecError::BadRate {
        name: name.to_owned(),
        rate: text.to_owned(),
    };
    let percent = match text.strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map_err(|_| bad())?,
        // Nothing is nothing, whatever the unit.
        None if text == "0" => 0.0,
        None => return Err(bad()),
    };
    let per_mille = percent * PER_MILLE_OF_A_PERCENT;
    let is_step = (per_mille - per_mille.round()).abs() < STEP_TOLERANCE;
    if !is_step || !(0.0..=f64::from(OPPORTUNITIES)).contains(&per_mille) {
        return Err(bad());
    }
    // Within 0 and 1,000, so nothing is cut.
    Ok(per_mille.round() as u32)
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_names_kinds_and_their_rates() {
        let all = FaultKind::ALL.len();
        for (text, striking, kind, per_mille) in [
            ("all", all, FaultKind::Kill, FaultKind::Kill.per_mille_default()),
            ("all:2%", all, FaultKind::Reshard, 20),
            (" all : 2% , kill : 0 ", all - 1, FaultKind::Kill, 0),
            ("kill:0,all", all, FaultKind::Kill, FaultKind::Kill.per_mille_default()),
            ("kill:1%,dynamodb-throttle:5%,reshard", 3, FaultKind::Kill, 10),
            ("kill:0.1%", 1, FaultKind::Kill, 1),
            ("kill:100%", 1, FaultKind::Kill, 1_000),
            ("kill:0%", 0, FaultKind::Kill, 0),
        ] {
            let spec: FaultSpec = text.parse().unwrap();
            let faults = spec.seeded(1);
            let may_strike = |kind: &FaultKind| faults.may_strike(*kind);
            assert_eq!(
                FaultKind::ALL.iter().filter(|kind| may_strike(kind)).count(),
                striking,
                "{text}"
            );
            assert_eq!(spec.per_mille(kind), per_mille, "{text}");
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        for (text, expected) in [
            ("", "no fault is named; write `all`, or some of kill, timeout, "),
            (" , ", "no fault is named"),
            (
                "kil",
                "there is no fault `kil`, did you mean `kill`?; write `all`, or some of kill, ",
            ),
            ("all,dynamo-throttle:1%", "did you mean `dynamodb-throttle`?"),
            ("xyzzy", "there is no fault `xyzzy`; write `all`"),
            (
                "kill:2",
                "`2` is no rate for kill; write a percentage from 0% to 100% in steps of 0.1%, such as kill:2%",
            ),
            ("kill:", "`` is no rate for kill"),
            ("kill:101%", "`101%` is no rate"),
            ("kill:-1%", "`-1%` is no rate"),
            ("kill:0.05%", "`0.05%` is no rate"),
            ("kill:NaN%", "`NaN%` is no rate"),
            ("all:often", "such as all:2%"),
        ] {
            let error = text.parse::<FaultSpec>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
