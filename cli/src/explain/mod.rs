//! `usher explain`: why a user was offered what they were, and what stands in the way of the rest.

mod choice;
mod events;
mod json;
mod tables;
mod text;

use anyhow::{Context, Result, bail};
use serde_json::value::RawValue;
use usher_domain::explain::{Explanation, explain};
use usher_domain::journey::{Journey, did_you_mean};
use usher_domain::profile::Profile;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_wire::trigger::DecisionDetails;

use crate::args::ExplainOptions;
use crate::people::say;
use crate::replay::models_file::ModelsFile;
use crate::users::Moment;
use crate::{Verdict, journey_file, project};

/// Runs the command.
///
/// # Errors
/// When there is no such user or rule, or something can't be read.
pub async fn run(options: ExplainOptions) -> Result<Verdict> {
    let journey_path = match &options.journey {
        Some(path) => path.clone(),
        None => project::find_journey(None, &project::find_template(None)?)?,
    };
    let journey = journey_file::load(&journey_path)?;
    let rule = options.rule.as_deref().map(|id| rule_index(&journey, id)).transpose()?;
    let moment = options.at.as_deref().map(Moment::parse).transpose()?;
    let snapshots = match &options.models {
        Some(path) => ModelsFile::load(path)?.snapshots(&journey),
        None => Snapshots::default(),
    };
    let found = match &options.events {
        Some(path) => events::find(path, &options.user, &journey, &snapshots)?,
        None => tables::find(&options, &journey).await?,
    };
    let now = match moment {
        Some(moment) => moment.of(&found.profile),
        None => found.now,
    };
    let explanation = explain(&journey, &snapshots, &found.profile, &found.user, now, rule);
    let told = Told {
        timeline: Timeline::of(&found.decisions, options.rule.as_deref(), options.last),
        journey: &journey,
        found: &found,
        explanation,
    };
    say(&match options.json {
        true => json::render(&told),
        false => text::render(&told),
    })?;
    Ok(Verdict::AllWell)
}

fn rule_index(journey: &Journey, id: &str) -> Result<usize> {
    let index = journey.rules.iter().position(|rule| rule.id == id);
    let Some(index) = index else {
        let known: Vec<&str> = journey.rules.iter().map(|rule| rule.id.as_str()).collect();
        let told = match did_you_mean(id, &mut known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("it has {}", known.join(", ")),
        };
        bail!("the journey `{}` has no rule `{id}`; {told}", journey.name);
    };
    Ok(index)
}

/// What was found of a user.
struct Found {
    /// The user, as whom everything is told.
    user: String,
    /// The id that was asked for and those that it led over, where it was merged into the user.
    led_over: Vec<String>,
    profile: Profile,
    /// Since when events of the user wait on `rejected`.
    parked_since: Option<Timestamp>,
    /// The decisions, oldest first.
    decisions: Vec<Decision>,
    /// What to know about what could not be read.
    notes: Vec<String>,
    /// As of when rules are evaluated, unless the command says otherwise.
    now: Timestamp,
}

/// A decision.
struct Decision {
    details: DecisionDetails,
    /// The same as it was on the stream.
    json: Box<RawValue>,
    /// How far its delivery has come; unknown where events were folded.
    status: Option<String>,
}

impl Decision {
    fn parse(json: String, status: Option<String>) -> Result<Decision> {
        let details = DecisionDetails::parse(&json).context("a decision can't be read")?;
        Ok(Decision {
            details,
            json: RawValue::from_string(json).context("a decision can't be read")?,
            status,
        })
    }
}

/// Puts decisions in order of time. Of one moment, those on which a timer looked back come as they were due.
fn put_in_order(decisions: &mut [Decision]) {
    let time = |decision: &Decision| {
        let details = &decision.details;
        // RFC 3339 with the same offset and digits orders as text.
        let at = details.due_at.as_ref().unwrap_or(&details.decided_at);
        (at.clone(), details.decided_at.clone(), details.trigger_id.clone())
    };
    decisions.sort_by_cached_key(time);
}

/// The decisions that are told.
struct Timeline<'f> {
    /// Oldest first.
    decisions: Vec<&'f Decision>,
    /// How many there are in all.
    of: usize,
    /// The rule that alone is meant.
    rule: Option<&'f str>,
}

impl<'f> Timeline<'f> {
    /// The latest decisions; of one rule, those that it made, and those at which it looked and did not fire.
    fn of(decisions: &'f [Decision], rule: Option<&'f str>, last: usize) -> Timeline<'f> {
        let is_about = |decision: &&Decision| {
            let Some(rule) = rule else { return true };
            let DecisionDetails {
                rule: made_by, reason, ..
            } = &decision.details;
            made_by == rule
                || reason.won_over.iter().any(|loser| loser == rule)
                || reason.passed_over.iter().any(|passed| passed.rule == rule)
        };
        let mut decisions: Vec<&Decision> = decisions.iter().filter(is_about).collect();
        let of = decisions.len();
        decisions.drain(..of.saturating_sub(last));
        Timeline { decisions, of, rule }
    }
}

/// Everything that is told.
struct Told<'f> {
    journey: &'f Journey,
    found: &'f Found,
    timeline: Timeline<'f>,
    explanation: Explanation,
}

#[cfg(test)]
mod tests;
