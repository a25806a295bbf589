//! Users who were shown something beside those who were held out, by journey and by rule.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, bail};
use usher_domain::hash::hash_parts;
use usher_domain::off_policy::lift::{Comparison, Lift};
use usher_domain::time::Timestamp;

use crate::decision_log::{LoggedDecision, Selection};

/// Users in a control group below which nothing should be read from it.
pub const CONTROL_USERS_MIN: usize = 100;
/// Standard errors by which the share of users who are held out may differ between a journey's rules by chance.
const SHARE_ERRORS_MAX: f64 = 4.0;
/// Looks at a journey's lift that are drawn.
const LOOKS_DRAWN: usize = 40;

/// Decisions to be compared.
pub struct Decisions {
    selection: Selection,
    settled: Vec<Settled>,
    names: Names,
    /// Decisions of which more may come.
    pub open: usize,
    range: Option<(f64, f64)>,
}

/// A decision of which all has come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settled {
    decided_at: Timestamp,
    /// Equal times come in the order of ids, the same at each look.
    id: u128,
    user: u128,
    journey: usize,
    rule: usize,
    held_out: bool,
    reward: f64,
}

#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn index(&mut self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        })
    }
}

/// What was compared.
#[derive(Debug)]
pub struct Compared {
    /// Of each journey: itself and its rules.
    pub journeys: Vec<JourneyCompared>,
    /// What rewards go from and to.
    pub range: (f64, f64),
    /// Decisions that count for something.
    pub settled: usize,
    /// Decisions of which more may come.
    pub open: usize,
    /// When the first and the last of them were made.
    pub from: Timestamp,
    /// See [`Compared::from`].
    pub until: Timestamp,
}

/// A journey.
#[derive(Debug)]
pub struct JourneyCompared {
    /// Its name.
    pub name: String,
    /// All its rules together that hold users out.
    pub whole: Group,
    /// Whether those rules hold out different shares of their users: then the groups differ by their rules too, and the journey
    /// has no lift.
    pub has_mixed_shares: bool,
    /// Each rule.
    pub rules: Vec<(String, Group)>,
    /// Its lift as the log grew.
    pub looks: Vec<Look>,
}

/// What is known of a journey or a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Users who were shown something.
    pub treated: usize,
    /// Users who were held out.
    pub control: usize,
    /// What each of those users' first decision brought on average.
    pub treated_mean: Option<f64>,
    /// See [`Group::treated_mean`].
    pub control_mean: Option<f64>,
    /// What that tells.
    pub lift: Option<Lift>,
}

impl JourneyCompared {
    /// Why the lift of the whole is to be read with care.
    pub fn warning(&self) -> Option<&'static str> {
        match self.has_mixed_shares {
            true => Some(
                "its rules hold out different shares of their users, so they can't be taken together: read the rules, or give the \
                 policy one `holdout`",
            ),
            false => self.whole.warning(),
        }
    }
}

impl Group {
    /// Why its lift is to be read with care.
    pub fn warning(&self) -> Option<&'static str> {
        match (self.treated, self.control) {
            (_, 0) => Some(
                "no user was held out, so there is nothing to compare with: give the rule or the policy a `holdout`",
            ),
            (0, _) => Some("every user was held out"),
            (_, control) if control < CONTROL_USERS_MIN => Some("too few users were held out to read anything from it"),
            _ => None,
        }
    }
}

/// A journey's lift at some point of the log.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Up to the decisions of then.
    pub at: Timestamp,
    /// As it looked.
    pub lift: Lift,
}

impl Decisions {
    /// None so far.
    pub fn new(selection: Selection) -> Decisions {
        Decisions {
            selection,
            settled: Vec::new(),
            names: Names::default(),
            open: 0,
            range: None,
        }
    }

    /// Whether none can be compared.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
    }

    /// Adds a decision, if it is meant.
    ///
    /// # Errors
    /// When its time is none.
    pub fn add(&mut self, decision: &LoggedDecision) -> Result<()> {
        if !self.selection.wants(decision) {
            return Ok(());
        }
        let Some(reward) = decision.reward.filter(|_| decision.settled) else {
            self.open += 1;
            return Ok(());
        };
        let (least, most) = self.range.unwrap_or((reward, reward));
        self.range = Some((least.min(reward), most.max(reward)));
        let decided_at = decision.decided_at.parse();
        self.settled.push(Settled {
            decided_at: decided_at.with_context(|| format!("the decision {} has no time", decision.trigger_id))?,
            id: hash_parts(&[decision.trigger_id.as_bytes()]),
            user: hash_parts(&[decision.user_id.as_bytes()]),
            journey: self.names.index(&decision.journey),
            rule: self.names.index(&decision.rule),
            held_out: decision.held_out,
            reward,
        });
        Ok(())
    }

    /// Compares them, each user's first decision of a rule or journey. Where the rewards' range is not known, it is 0 to 1,
    /// widened to what there is.
    ///
    /// # Errors
    /// When a reward is outside of the known range.
    pub fn compare(mut self, known_range: Option<(f64, f64)>, confidence: f64) -> Result<Compared> {
        let (least, most) = self.range.unwrap_or((0.0, 1.0));
        let range = match known_range {
            Some((known_least, known_most)) if least < known_least || most > known_most => {
                bail!("--reward-range is {known_least}..{known_most}, but there are rewards from {least} to {most}")
            }
            Some(known) => known,
            None => (least.min(0.0), most.max(1.0)),
        };
        self.settled.sort_by_key(|settled| (settled.decided_at, settled.id));
        let mut journeys: BTreeMap<usize, BTreeMap<usize, Growing>> = BTreeMap::new();
        for settled in &self.settled {
            let rules = journeys.entry(settled.journey).or_default();
            let rule = rules.entry(settled.rule).or_insert_with(|| Growing::new(range));
            rule.add(settled);
        }
        let name = |index: usize| self.names.0[index].clone();
        let mut compared = Vec::new();
        for (journey, growing) in journeys {
            // A rule that holds nobody out shows its offers to those whom others hold out, too.
            let has_control = |rule: usize| growing.get(&rule).is_some_and(Growing::has_control);
            let mut whole = Growing::new(range);
            for settled in self.settled.iter().filter(|settled| settled.journey == journey) {
                if has_control(settled.rule) {
                    whole.add(settled);
                }
            }
            let has_mixed_shares = have_mixed_shares(growing.values().filter(|rule| rule.has_control()));
            let mut told = whole.told(confidence);
            let mut looks = Vec::new();
            match has_mixed_shares {
                true => told.lift = None,
                false => looks = whole.looks(range, confidence),
            }
            let rules = growing
                .iter()
                .map(|(rule, group)| (name(*rule), group.told(confidence)));
            let mut rules: Vec<(String, Group)> = rules.collect();
            rules.sort_by(|left, right| left.0.cmp(&right.0));
            compared.push(JourneyCompared {
                name: name(journey),
                whole: told,
                has_mixed_shares,
                rules,
                looks,
            });
        }
        compared.sort_by(|left, right| left.name.cmp(&right.name));
        let at = |settled: Option<&Settled>| settled.map(|settled| settled.decided_at).unwrap_or_default();
        Ok(Compared {
            journeys: compared,
            range,
            settled: self.settled.len(),
            open: self.open,
            from: at(self.settled.first()),
            until: at(self.settled.last()),
        })
    }
}

/// Whether rules hold out shares of their users that differ by more than chance.
fn have_mixed_shares<'g>(rules: impl Iterator<Item = &'g Growing>) -> bool {
    let rows: Vec<(f64, f64)> = rules.map(Growing::rows).collect();
    let treated: f64 = rows.iter().map(|(treated, _)| treated).sum();
    let control: f64 = rows.iter().map(|(_, control)| control).sum();
    let share = control / (treated + control);
    rows.iter().any(|(treated, control)| {
        let count = treated + control;
        let error = (share * (1.0 - share) / count).sqrt();
        (control / count - share).abs() > SHARE_ERRORS_MAX * error
    })
}

/// The first decision of each user, one after the other.
struct Growing {
    users: HashSet<u128>,
    comparison: Option<Comparison>,
    rows: Vec<(Timestamp, bool, f64)>,
}

impl Growing {
    fn new((least, most): (f64, f64)) -> Growing {
        Growing {
            users: HashSet::new(),
            comparison: Comparison::new(least, most),
            rows: Vec::new(),
        }
    }

    fn add(&mut self, settled: &Settled) {
        if !self.users.insert(settled.user) {
            return;
        }
        // Rewards are within the range, which holds them all.
        if let Some(comparison) = &mut self.comparison
            && comparison.add(!settled.held_out, settled.reward)
        {
            self.rows.push((settled.decided_at, !settled.held_out, settled.reward));
        }
    }

    /// Users who were treated, and who are the control.
    fn rows(&self) -> (f64, f64) {
        let (treated, control) = self.comparison.as_ref().map_or((0, 0), Comparison::rows);
        (treated as f64, control as f64)
    }

    fn has_control(&self) -> bool {
        self.rows().1 > 0.0
    }

    fn told(&self, confidence: f64) -> Group {
        let Some(comparison) = &self.comparison else {
            return Group {
                treated: 0,
                control: 0,
                treated_mean: None,
                control_mean: None,
                lift: None,
            };
        };
        let (treated, control) = comparison.rows();
        let (treated_mean, control_mean) = comparison.means();
        Group {
            treated,
            control,
            treated_mean,
            control_mean,
            lift: comparison.lift(confidence),
        }
    }

    /// The lift as the log grew, at points spread evenly over the users.
    fn looks(&self, (least, most): (f64, f64), confidence: f64) -> Vec<Look> {
        let mut looks = Vec::new();
        let Some(mut comparison) = Comparison::new(least, most) else {
            return looks;
        };
        let step = self.rows.len().div_ceil(LOOKS_DRAWN).max(1);
        for (index, (at, is_treated, reward)) in self.rows.iter().enumerate() {
            let is_in = comparison.add(*is_treated, *reward);
            let is_look = (index + 1).is_multiple_of(step) || index + 1 == self.rows.len();
            if is_in
                && is_look
                && let Some(lift) = comparison.lift(confidence)
            {
                looks.push(Look { at: *at, lift });
            }
        }
        looks
    }
}
