//! `usher replay --against`: two journeys over the same events, and what would have changed.

mod changes;
mod costs;
mod json;
mod text;
mod timeline;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use usher_domain::journey::Journey;
use usher_domain::rules::{RuleCounts, RuleOutcome};

use super::folding::{Folded, Folding, Watch};
use super::models_file::ModelsFile;
use super::source::Source;
use super::{Kept, fold_all, threads, write_profiles};
use crate::args::ReplayOptions;
use crate::fold::LineCounts;
use crate::people::say;
use crate::{Verdict, journey_file};

use changes::{Changes, Matching, Side};
use costs::Costs;

/// Where each journey is in lists of two.
const NEW: usize = 0;
const OLD: usize = 1;

/// What two journeys made of the same events.
struct Comparison<'j> {
    new: Ran<'j>,
    old: Ran<'j>,
    changes: Changes,
    /// The lines and what was rejected: the same for both.
    lines: LineCounts,
    took: Duration,
}

/// What one journey made of the events.
struct Ran<'j> {
    journey: &'j Journey,
    counts: LineCounts,
    rules: RuleCounts,
    profiles: usize,
    costs: Costs,
}

impl Ran<'_> {
    /// How often a rule came out so; nothing for a rule that this journey does not have.
    fn count(&self, rule: &str, outcome: RuleOutcome) -> Option<u64> {
        let index = self.journey.rules.iter().position(|known| known.id == rule)?;
        Some(self.rules.get(index, outcome))
    }

    /// How often any rule came out so.
    fn total(&self, outcome: RuleOutcome) -> u64 {
        let rules = 0..self.journey.rules.len();
        rules.map(|rule| self.rules.get(rule, outcome)).sum()
    }
}

/// Runs the command with `--against`.
///
/// # Errors
/// When a journey has errors, or a file can't be read or written. That decisions changed is none.
pub fn run(options: &ReplayOptions, against: &Path) -> Result<Verdict> {
    let new_journey = journey_file::load(&options.journey)?;
    let old_journey = journey_file::load(against)?;
    let source = Source::of(options)?;
    let mut kept = Kept::new(options)?;
    let started = Instant::now();
    let journeys = [&new_journey, &old_journey];
    let watch = Watch {
        sizes: true,
        user: options.user.clone(),
    };
    let models = options.models.as_deref().map(ModelsFile::load).transpose()?;
    let mut folding = Folding::new(&journeys, threads(options), watch).with_models(models.as_ref());
    let mut matching = Matching::default();
    let mut lines = LineCounts::default();
    let mut old = Folded::default();
    let mut new_bytes = Vec::new();
    let mut seen = Vec::new();
    fold_all(&mut folding, source, |mut round| {
        lines.add(&round.counts);
        seen.append(&mut round.seen);
        new_bytes.append(&mut round.folded[NEW].item_bytes);
        take(&mut round.folded, &mut kept, &mut old, &mut matching)
    })?;
    let mut after = folding.fire_due_timers();
    let after_user = options.user.as_deref().map(|user| timeline::after_all(&after, user));
    take(&mut after, &mut kept, &mut old, &mut matching)?;
    let took = started.elapsed();
    let mut profiles = folding.into_profiles();
    let old_profiles = profiles.pop().unwrap_or_default();
    let new_profiles: BTreeMap<_, _> = profiles.pop().unwrap_or_default().into_iter().collect();
    write_profiles(options, &new_profiles, &new_journey)?;
    let (new_counts, new_rules) = kept.finish()?;
    let comparison = Comparison {
        new: Ran {
            journey: &new_journey,
            counts: new_counts,
            rules: new_rules,
            profiles: new_profiles.len(),
            costs: Costs::of(&new_profiles, &new_journey, new_bytes),
        },
        old: Ran {
            journey: &old_journey,
            counts: old.counts,
            rules: old.rules,
            profiles: old_profiles.len(),
            costs: Costs::of(
                old_profiles.iter().map(|(user, profile)| (user, profile)),
                &old_journey,
                old.item_bytes,
            ),
        },
        changes: matching.finish(),
        lines,
        took,
    };
    if let Some(path) = &options.changes {
        json::write_changes(path, &comparison.changes)?;
    }
    if let Some(path) = &options.json {
        json::write_comparison(path, &comparison)?;
    }
    say(&text::comparison_text(&comparison))?;
    if let (Some(user), Some(after)) = (&options.user, after_user) {
        say(&timeline::timeline_text(
            user,
            &new_journey,
            &old_journey,
            &seen,
            &after,
        ))?;
    }
    let differs = options.fail_on_change && comparison.changes.count() > 0;
    Ok(if differs { Verdict::Wrong } else { Verdict::AllWell })
}

/// Takes in what came of some lines.
fn take(folded: &mut [Folded], kept: &mut Kept, old: &mut Folded, matching: &mut Matching) -> Result<()> {
    kept.folded(&folded[NEW])?;
    old.counts.add(&folded[OLD].counts);
    old.rules.add(&folded[OLD].rules);
    old.item_bytes.append(&mut folded[OLD].item_bytes);
    for (side, index) in [(Side::New, NEW), (Side::Old, OLD)] {
        for fired in &folded[index].fired {
            matching.take(side, fired);
        }
    }
    Ok(())
}
