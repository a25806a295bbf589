//! `usher replay`: the same fold as the deployed function's, without any cloud.

mod blocks;
mod comparison;
mod decode;
mod families;
mod folding;
pub mod models_file;
mod source;
mod threads;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZero;
use std::time::{Duration, Instant};

use anyhow::Result;
use usher_domain::journey::Journey;
use usher_domain::offers::Outcome;
use usher_domain::profile::Profile;
use usher_domain::rules::{RuleCounts, RuleOutcome};
use usher_domain::trigger::Trigger;
use usher_wire::reject::{Reject, RejectReason};
use usher_wire::{outcome, trigger};

use crate::Verdict;
use crate::args::ReplayOptions;
use crate::fold::{LineCounts, Rejected};
use crate::people::{counted, grouped, say, table};
use crate::triggers_file::TriggersFile;
use crate::{journey_file, profiles_file};

use blocks::{Block, read_ahead};
use folding::{Folded, Folding, Round, Watch};
use models_file::ModelsFile;
use source::Source;

/// Blocks that are folded at once, for each thread: enough that none waits long for the last one.
const BLOCKS_PER_THREAD: usize = 4;

/// Runs the command.
///
/// # Errors
/// When the journey has errors, or a file can't be read or written. A line that can't be used is none.
pub fn run(options: &ReplayOptions) -> Result<Verdict> {
    if let Some(against) = &options.against {
        return comparison::run(options, against);
    }
    let journey = journey_file::load(&options.journey)?;
    let source = Source::of(options)?;
    let mut kept = Kept::new(options)?;
    let started = Instant::now();
    let journeys = [&journey];
    let models = options.models.as_deref().map(ModelsFile::load).transpose()?;
    let mut folding = Folding::new(&journeys, threads(options), Watch::default()).with_models(models.as_ref());
    fold_all(&mut folding, source, |round| {
        kept.lines(&round.counts);
        round.folded.iter().try_for_each(|folded| kept.folded(folded))
    })?;
    for folded in &folding.fire_due_timers() {
        kept.folded(folded)?;
    }
    let took = started.elapsed();
    let profiles: BTreeMap<_, _> = folding.into_profiles().into_iter().flatten().collect();
    write_profiles(options, &profiles, &journey)?;
    let triggers = kept.trigger_ids.len();
    let outcomes = kept.outcome_ids.len();
    let (counts, rules) = kept.finish()?;
    say(&summary(
        &journey,
        &counts,
        &rules,
        [profiles.len(), triggers, outcomes],
        took,
    ))?;
    Ok(Verdict::AllWell)
}

fn write_profiles(options: &ReplayOptions, profiles: &BTreeMap<String, Profile>, journey: &Journey) -> Result<()> {
    let write = |path| profiles_file::write_file(path, profiles, journey, profiles_file::latest_arrival(profiles));
    options.profiles.as_deref().map_or(Ok(()), write)
}

fn threads(options: &ReplayOptions) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    options.threads.map_or_else(cores, usize::from)
}

/// Folds everything that the source has, with progress; `keep` takes what came of it, in order.
fn fold_all(folding: &mut Folding<'_>, source: Source, mut keep: impl FnMut(Round) -> Result<()>) -> Result<()> {
    let progress = source.progress();
    let folded = std::thread::scope(|scope| {
        let blocks = read_ahead(scope, source);
        let mut lines = 0;
        loop {
            let some: Vec<Block> = blocks
                .iter()
                .take(folding.threads() * BLOCKS_PER_THREAD)
                .collect::<Result<_>>()?;
            if some.is_empty() {
                return Ok(());
            }
            let round = folding.fold(&some);
            lines += round.counts.lines;
            keep(round)?;
            progress.show(&format!("{} events", grouped(lines)));
        }
    });
    progress.clear();
    folded
}

/// What is kept of a replay beside the profiles.
struct Kept {
    triggers_file: Option<TriggersFile>,
    /// An event id that comes again from beyond the dedupe window makes the same trigger again; its id tells.
    trigger_ids: HashSet<u128>,
    /// The same of what came of offers.
    outcome_ids: HashSet<u128>,
    counts: LineCounts,
    rules: RuleCounts,
}

impl Kept {
    fn new(options: &ReplayOptions) -> Result<Kept> {
        Ok(Kept {
            triggers_file: options.triggers.as_deref().map(TriggersFile::create).transpose()?,
            trigger_ids: HashSet::new(),
            outcome_ids: HashSet::new(),
            counts: LineCounts::default(),
            rules: RuleCounts::default(),
        })
    }

    /// Writes what is still in memory, and gives what was counted.
    fn finish(self) -> Result<(LineCounts, RuleCounts)> {
        self.triggers_file.map_or(Ok(()), TriggersFile::finish)?;
        Ok((self.counts, self.rules))
    }

    fn lines(&mut self, counts: &LineCounts) {
        self.counts.add(counts);
    }

    fn folded(&mut self, folded: &Folded) -> Result<()> {
        self.counts.add(&folded.counts);
        self.rules.add(&folded.rules);
        // As on the stream: what a line fired, and then what it made known of earlier offers.
        let mut told = folded.told.iter().peekable();
        for fired in &folded.fired {
            while let Some(earlier) = told.next_if(|told| told.number < fired.number) {
                self.outcome(&earlier.outcome)?;
            }
            self.trigger(&fired.trigger)?;
        }
        told.try_for_each(|told| self.outcome(&told.outcome))
    }

    fn outcome(&mut self, outcome: &Outcome) -> Result<()> {
        match &mut self.triggers_file {
            Some(file) if self.outcome_ids.insert(outcome.id.0) => file.write(&outcome::to_json(outcome)),
            Some(_) => Ok(()),
            None => {
                self.outcome_ids.insert(outcome.id.0);
                Ok(())
            }
        }
    }

    fn trigger(&mut self, trigger: &Trigger) -> Result<()> {
        match &mut self.triggers_file {
            Some(file) if self.trigger_ids.insert(trigger.id.0) => file.write(&trigger::to_json(trigger)),
            Some(_) => Ok(()),
            None => {
                self.trigger_ids.insert(trigger.id.0);
                Ok(())
            }
        }
    }
}

fn summary(
    journey: &Journey,
    counts: &LineCounts,
    rules: &RuleCounts,
    [profiles, triggers, outcomes]: [usize; 3],
    took: Duration,
) -> String {
    let per_second = counts.lines as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut text = format!(
        "{} in {:.2} s ({} a second), journey `{}` version {}\n",
        counted(counts.lines as usize, "event"),
        took.as_secs_f64(),
        grouped(per_second as u64),
        journey.name,
        journey.version,
    );
    let mut rows = vec![
        ("applied".to_owned(), grouped(counts.applied)),
        ("duplicate".to_owned(), grouped(counts.duplicate)),
        ("dropped by the journey".to_owned(), grouped(counts.dropped)),
        ("timers woken".to_owned(), grouped(counts.woken)),
        ("merged".to_owned(), grouped(counts.merged)),
        ("rejected".to_owned(), grouped(counts.rejected_total())),
        ("profiles".to_owned(), grouped(profiles as u64)),
        ("triggers".to_owned(), grouped(triggers as u64)),
    ];
    if journey.outcomes.is_some() {
        rows.push(("outcomes".to_owned(), grouped(outcomes as u64)));
    }
    text.push_str(&table(&rows));
    if !counts.rejected.is_empty() {
        text.push_str("rejected, with the first of each reason\n");
        let row = |(reason, rejected): (&RejectReason, &Rejected)| {
            let Reject { field, detail, .. } = &rejected.first;
            let place = if field.is_empty() { "the line" } else { field };
            let first = format!(
                "{}  line {}: {place}: {detail}",
                grouped(rejected.count),
                rejected.first_line
            );
            (reason.name().to_owned(), first)
        };
        rows = counts.rejected.iter().map(row).collect();
        text.push_str(&table(&rows));
    }
    if !journey.rules.is_empty() {
        text.push_str("rules, and why they did not fire\n");
        rows = journey
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (rule.id.clone(), rule_row(rules, index)))
            .collect();
        text.push_str(&table(&rows));
    }
    text
}

fn rule_row(rules: &RuleCounts, index: usize) -> String {
    let counts = RuleOutcome::ALL
        .into_iter()
        .map(|outcome| (outcome, rules.get(index, outcome)));
    // What fired is told even where it is nothing.
    let told = counts.filter(|(outcome, count)| *outcome == RuleOutcome::Fired || *count > 0);
    let parts: Vec<String> = told
        .map(|(outcome, count)| format!("{} {}", outcome.name().replace('_', " "), grouped(count)))
        .collect();
    parts.join(", ")
}
