//! `usher evaluate`: what a policy would have earned, by what another one logged.

mod judge;
mod learners;
mod obd;
mod policy;
mod reward_model;
mod text;

use std::path::Path;

use anyhow::{Result, bail};
use usher_domain::off_policy::Settings;

use crate::args::{EvaluateOptions, JudgedFormat};
use crate::decision_log::read::LogFile;
use crate::decision_log::{LoggedDecision, Selection};
use crate::people::say;
use crate::progress::Progress;
use crate::{Verdict, people};
use judge::{Judging, Left};
use policy::Policy;
use reward_model::RewardModel;

/// Decisions between two looks at the progress bar.
const PROGRESS_ROWS: usize = 1_000;
const PERCENT: f64 = 100.0;

/// Runs the command.
///
/// # Errors
/// When the log or the policy can't be read, or nothing in the log can be used.
pub fn run(options: &EvaluateOptions) -> Result<Verdict> {
    let policy = policy_of(options)?;
    let reward_model = RewardModel::parse(&options.reward_model)?;
    let selection = Selection {
        slots: options.slot.clone(),
        rules: options.rule.clone(),
    };
    let mut judging = Judging::new(policy, reward_model, selection);
    match options.format {
        JudgedFormat::Jsonl => read_log(options, &mut judging)?,
        JudgedFormat::Obd => obd::read(&options.log, options.obd_items, &mut judging)?,
    }
    let judged = match judging.judge(&settings(options), options.reward_range.is_some()) {
        Ok(judged) => judged,
        Err(left) => bail!("{}", nothing_to_judge(options, &left)),
    };
    say(&match options.json {
        true => text::json(options, &judged)?,
        false => text::table(options, &judged),
    })?;
    Ok(Verdict::AllWell)
}

/// The policy, which has learned what it is to.
fn policy_of(options: &EvaluateOptions) -> Result<Policy> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(path) = options.train.iter().find(|path| place(path) == place(&options.log)) {
        bail!(
            "--train is the log that judges, {}; give another one, such as that of the week before",
            path.display()
        );
    }
    Policy::parse(&options.policy, &options.model, &options.train)
}

fn settings(options: &EvaluateOptions) -> Settings {
    let defaults = Settings::default();
    let (reward_least, reward_most) = options
        .reward_range
        .unwrap_or((defaults.reward_least, defaults.reward_most));
    Settings {
        reward_least,
        reward_most,
        clip: options.clip,
        confidence: options.confidence / PERCENT,
        ..defaults
    }
}

fn nothing_to_judge(options: &EvaluateOptions, left: &Left) -> String {
    let told = left.told();
    let name = options.log.display();
    match told.is_empty() {
        true => format!("there is no decision in {name} that is meant; see --slot and --rule"),
        false => format!("no decision in {name} can be used: {}", told.join(", ")),
    }
}

fn read_log(options: &EvaluateOptions, judging: &mut Judging) -> Result<()> {
    let mut log = LogFile::open(&options.log)?;
    let (size, read) = log.bytes();
    let progress = Progress::of_file(size, read);
    let mut rows: usize = 0;
    let mut next = || -> Result<Option<LoggedDecision>> {
        rows += 1;
        if rows.is_multiple_of(PROGRESS_ROWS) {
            progress.show(&people::counted(rows, "decision"));
        }
        log.next_decision()
    };
    let read = (|| {
        while let Some(decision) = next()? {
            judging.add(&decision)?;
        }
        Ok(())
    })();
    progress.clear();
    read
}

#[cfg(test)]
mod tests;
