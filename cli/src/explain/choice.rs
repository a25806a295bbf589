//! How a learner chose, or would choose, for people.

use std::fmt::Write;

use usher_domain::journey::Journey;
use usher_domain::rules::{CandidateStanding, ChoiceStanding, Refused};
use usher_wire::trigger::{CandidateDetails, ChoiceDetails};

use super::text::{short, values};
use crate::people::counted;

/// Candidates that are shown at most, the likeliest.
const CANDIDATES_TOLD_MAX: usize = 12;
/// What comes before a candidate.
const INDENT: usize = 6;

/// A candidate on one line.
struct Line<'l> {
    content: &'l str,
    /// Probability, mean and spread.
    score: Option<(f64, f64, f64)>,
    /// What else there is to say.
    note: String,
}

/// How a past decision was chosen.
pub fn decision(text: &mut String, offer: &str, propensity: f64, choice: &ChoiceDetails) {
    let by = chosen_by(
        &choice.learner,
        choice.model_version.as_deref(),
        choice.fallback.as_deref(),
    );
    let _ = writeln!(
        text,
        "    chosen by {by}, where {} was likely to {}",
        offer,
        percent(propensity)
    );
    let context = choice.context.iter();
    values(
        text,
        INDENT,
        context.map(|(name, json)| (name.as_str(), json.get().to_owned())),
    );
    let line = |candidate: &CandidateDetails| -> String {
        let features = candidate.features.iter();
        let features: Vec<String> = features
            .map(|(name, json)| format!("{name} = {}", json.get()))
            .collect();
        features.join(", ")
    };
    let lines = choice.candidates.iter().map(|candidate| Line {
        content: &candidate.content,
        score: Some((candidate.probability, candidate.mean, candidate.spread)),
        note: line(candidate),
    });
    candidates(text, lines.collect(), choice.candidates_left_out);
}

/// How a rule's learner would choose now.
pub fn standing(text: &mut String, journey: &Journey, choice: &ChoiceStanding) {
    let version = choice.model_version.map(|version| format!("{version:016x}"));
    let fallback = choice.fallback.map(|fallback| fallback.name());
    let by = chosen_by(choice.learner, version.as_deref(), fallback);
    let _ = writeln!(text, "    chooses by {by}");
    let context = choice.context.iter();
    values(
        text,
        INDENT,
        context.map(|seen| (seen.name.as_str(), seen.json.clone())),
    );
    let line = |candidate: &CandidateStanding| match candidate.refused {
        None => String::new(),
        Some(Refused::Ineligible) => "is not eligible".to_owned(),
        Some(Refused::CoolingUntil(until)) => format!("is cooling down until {}", short(until)),
    };
    let lines = choice.candidates.iter().map(|candidate| Line {
        content: journey
            .contents
            .get(candidate.content)
            .map_or("", |content| content.id.as_str()),
        score: candidate
            .score
            .map(|score| (score.probability, score.mean, score.spread)),
        note: line(candidate),
    });
    candidates(text, lines.collect(), 0);
}

fn chosen_by(learner: &str, model_version: Option<&str>, fallback: Option<&str>) -> String {
    match (model_version, fallback) {
        (Some(version), _) => format!("{learner} with the model {version}"),
        (None, Some("unreadable")) => format!("{learner} as if it had learned nothing (its model could not be read)"),
        (None, Some(_)) => format!("{learner} as if it had learned nothing (there was no model)"),
        (None, None) => learner.to_owned(),
    }
}

fn candidates(text: &mut String, mut lines: Vec<Line<'_>>, left_out: usize) {
    let likelihood = |line: &Line<'_>| line.score.map_or(-1.0, |(probability, ..)| probability);
    lines.sort_by(|one, other| likelihood(other).total_cmp(&likelihood(one)));
    let left_out = left_out + lines.len().saturating_sub(CANDIDATES_TOLD_MAX);
    lines.truncate(CANDIDATES_TOLD_MAX);
    let width = lines.iter().map(|line| line.content.chars().count()).max().unwrap_or(0);
    for line in &lines {
        let score = line
            .score
            .map(|(probability, mean, spread)| format!("{:>6}  {mean:.3} ± {spread:.3}", percent(probability)));
        let parts: Vec<&str> = [score.as_deref().unwrap_or_default(), &line.note]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        let _ = writeln!(text, "{:INDENT$}{:<width$}  {}", "", line.content, parts.join("  "));
    }
    if left_out > 0 {
        let _ = writeln!(text, "{:INDENT$}and {}", "", counted(left_out, "more candidate"));
    }
}

fn percent(share: f64) -> String {
    const OF: f64 = 100.0;
    format!("{:.1}%", share * OF)
}
