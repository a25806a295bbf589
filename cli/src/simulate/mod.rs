//! `usher simulate`: synthetic users with preferences that nobody knows, in the local cloud, and how soon they are found out.
//!
//! The loop is closed: events go in through Kinesis, the real functions decide, the decisions are read off the triggers stream,
//! and whoever likes what is offered clicks on it, which is an event again.

mod agenda;
mod clock;
mod plot;
mod run;
mod tally;
mod world;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use usher_local::{Template, TemplateOptions};

use crate::Verdict;
use crate::args::{SimulateOptions, Variant};
use crate::local::functions::{self, Programs};
use crate::people::{grouped, say};
use crate::progress::Progress;
use crate::{environment, journey_file, project};
use plot::Line;
use run::{Outcome, Setup};
use tally::{Counts, Learned};
use world::World;

const PERCENT: f64 = 100.0;
/// What a variant comes to in the end is told of the last part of the time.
const LAST_PART: f64 = 0.75;
/// Decisions of a minute below which its share would be mostly chance, and is left out of the plot.
const MINUTE_DECISIONS_MIN: u64 = 20;

/// Runs the command.
///
/// # Errors
/// When something can't be read, built, started or written.
pub async fn run(options: SimulateOptions) -> Result<Verdict> {
    let mut stop = environment::stop_signal()?;
    let world = World::read(&options.world)?;
    for variant in &options.variants {
        journey_file::load(&variant.journey)?;
        if options
            .variants
            .iter()
            .filter(|other| other.name == variant.name)
            .count()
            > 1
        {
            bail!("two variants are called {}; give them different names", variant.name);
        }
    }
    let template_file = project::find_template(options.template.as_deref())?;
    let template = Template::read(&template_file, &TemplateOptions::default())?;
    let programs = match options.bin_dir.as_deref() {
        Some(folder) => Programs::Folder(folder),
        None => Programs::Build {
            release: options.release,
        },
    };
    let sources = tokio::select! {
        sources = functions::sources(&template, &template_file, programs) => sources?,
        _ = stop.wait_for(|stopped| *stopped) => bail!("interrupted before the functions were built"),
    };
    std::fs::create_dir_all(&options.output)
        .with_context(|| format!("cannot make the folder {}", options.output.display()))?;
    let setup = Setup {
        world: &world,
        seed: options.seed,
        users: options.users,
        minutes: options.minutes,
        speed: options.speed,
        template_file: &template_file,
        sources: &sources,
    };
    let mut results = Vec::new();
    for variant in &options.variants {
        let progress = Progress::spinner(&format!("starting {}", variant.name));
        let outcome = setup.run(variant, &progress, stop.clone()).await;
        progress.clear();
        let outcome = outcome.with_context(|| format!("the variant {} did not run to its end", variant.name))?;
        say(&told(&options, variant, &outcome))?;
        results.push((variant, outcome));
    }
    write(&options, &results)?;
    say(&format!(
        "\nwritten to {}: minutes.csv, summary.json, best_offers.svg\n",
        options.output.display()
    ))?;
    let problems = results.iter().map(|(_, outcome)| outcome.problems.len()).sum::<usize>();
    Ok(if problems == 0 {
        Verdict::AllWell
    } else {
        Verdict::Wrong
    })
}

/// The minute with which the last part of the time begins.
fn last_part_from(options: &SimulateOptions) -> u64 {
    (options.minutes * LAST_PART) as u64
}

/// What came of a variant, in a file that programs read.
#[derive(Serialize)]
struct Summary<'s> {
    variant: &'s str,
    refresh_seconds: f64,
    events: u64,
    decisions: u64,
    clicks: u64,
    best_share: f64,
    best_share_in_the_last_quarter: f64,
    best_visible_share: f64,
    #[serde(flatten)]
    learned: Learned,
    behind_ms_max: i64,
    problems: &'s [String],
}

#[derive(Serialize)]
struct Summaries<'s> {
    users: u32,
    minutes: f64,
    speed: f64,
    seed: u64,
    variants: Vec<Summary<'s>>,
}

fn summary<'s>(options: &SimulateOptions, variant: &'s Variant, outcome: &'s Outcome) -> Summary<'s> {
    let all = outcome.tally.since_minute(0);
    let last = outcome.tally.since_minute(last_part_from(options));
    Summary {
        variant: &variant.name,
        refresh_seconds: variant.refresh.as_secs_f64(),
        events: outcome.events,
        decisions: all.decisions,
        clicks: all.clicks,
        best_share: share(all.best, all),
        best_share_in_the_last_quarter: share(last.best, last),
        best_visible_share: share(all.best_visible, all),
        learned: outcome.tally.learned(),
        behind_ms_max: outcome.late_ms_max,
        problems: &outcome.problems,
    }
}

fn share(part: u64, of: Counts) -> f64 {
    part as f64 / of.decisions.max(1) as f64
}

fn told(options: &SimulateOptions, variant: &Variant, outcome: &Outcome) -> String {
    let summary = summary(options, variant, outcome);
    let learned = match summary.learned.first_outcome_to_learned_ms {
        Some(took_ms) => format!(
            "{:.1} s from the first outcome to the first decision by a model that had learned; {} versions of models decided",
            took_ms as f64 / 1_000.0,
            grouped(summary.learned.model_versions as u64)
        ),
        None => "no model decided".to_owned(),
    };
    let mut text = format!(
        "{}: {} events, {} decisions, {} clicks ({:.1} %)\n  best offers {:.1} %, in the last quarter {:.1} %; who knows all traits and \
         groups' tastes reaches {:.1} %\n  {learned}\n",
        variant.name,
        grouped(summary.events),
        grouped(summary.decisions),
        grouped(summary.clicks),
        PERCENT * summary.clicks as f64 / summary.decisions.max(1) as f64,
        PERCENT * summary.best_share,
        PERCENT * summary.best_share_in_the_last_quarter,
        PERCENT * summary.best_visible_share,
    );
    if !outcome.tally.fallbacks.is_empty() {
        let fallbacks: Vec<String> = outcome
            .tally
            .fallbacks
            .iter()
            .map(|(why, count)| format!("{why} {}", grouped(*count)))
            .collect();
        text.push_str(&format!("  decisions without a model: {}\n", fallbacks.join(", ")));
    }
    for problem in &outcome.problems {
        text.push_str(&format!("  problem: {problem}\n"));
    }
    text
}

fn write(options: &SimulateOptions, results: &[(&Variant, Outcome)]) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = options.output.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut minutes = "variant,minute,slot,decisions,best,best_visible,clicks\n".to_owned();
    for (variant, outcome) in results {
        for ((minute, slot), counts) in &outcome.tally.by_minute {
            let Counts {
                decisions,
                best,
                best_visible,
                clicks,
            } = counts;
            // A text takes whatever is written to it.
            let _ = writeln!(
                minutes,
                "{},{minute},{slot},{decisions},{best},{best_visible},{clicks}",
                variant.name
            );
        }
    }
    put("minutes.csv", minutes)?;
    let summaries = Summaries {
        users: options.users,
        minutes: options.minutes,
        speed: options.speed,
        seed: options.seed,
        variants: results
            .iter()
            .map(|(variant, outcome)| summary(options, variant, outcome))
            .collect(),
    };
    let mut text = serde_json::to_string_pretty(&summaries).context("cannot write the summary as JSON")?;
    text.push('\n');
    put("summary.json", text)?;
    draw(options, &options.output.join("best_offers.svg"), results)
}

fn draw(options: &SimulateOptions, path: &Path, results: &[(&Variant, Outcome)]) -> Result<()> {
    let mut lines: Vec<Line> = results
        .iter()
        .map(|(variant, outcome)| Line {
            name: variant.name.clone(),
            points: points(outcome, |counts| counts.best),
            is_ceiling: false,
        })
        .collect();
    // The same users come in all variants.
    if let Some((_, outcome)) = results.first() {
        let all = outcome.tally.since_minute(0);
        let ceiling = share(all.best_visible, all);
        lines.push(Line {
            name: "who knows the world, but not the groups".to_owned(),
            points: vec![(0.0, ceiling), (options.minutes, ceiling)],
            is_ceiling: true,
        });
    }
    let title = format!(
        "Share of offers that were the user's best ({} users)",
        grouped(u64::from(options.users))
    );
    plot::draw(path, &title, options.minutes, &lines)
}

/// Of each minute its middle and a share, all slots together.
fn points(outcome: &Outcome, part: impl Fn(&Counts) -> u64) -> Vec<(f64, f64)> {
    let minutes = outcome.tally.minutes();
    let counted = minutes
        .iter()
        .filter(|(_, counts)| counts.decisions >= MINUTE_DECISIONS_MIN);
    counted
        .map(|(minute, counts)| (*minute as f64 + 0.5, share(part(counts), *counts)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_examples_journeys_offer_what_the_world_knows() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bandit/simulation");
        let world = World::read(&folder.join("world.json")).expect("a world");
        let known: BTreeSet<&str> = world
            .slots
            .values()
            .flat_map(|slot| slot.clicks.keys().map(String::as_str))
            .collect();
        for file in ["journey.yaml", "fixed_split.yaml"] {
            let journey = journey_file::load(&folder.join(file)).expect("a journey");
            let offered: BTreeSet<&str> = journey.contents.iter().map(|content| content.id.as_str()).collect();
            assert_eq!(offered, known, "{file}");
        }
    }
}
