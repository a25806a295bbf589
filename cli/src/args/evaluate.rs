//! The options of `usher evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What a log for judging is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JudgedFormat {
    /// What `usher export decisions` writes
    #[default]
    Jsonl,
    /// The Open Bandit Dataset: CSV with item_id, position, click and propensity_score
    Obd,
}

/// Judge a policy by what another one logged, before people see it
///
/// Each logged decision says how likely its offer was; the policy says how likely it
/// would have made the same. From their ratio follows what the policy would have earned:
/// inverse propensity scoring (IPS), the same self-normalised (SNIPS), the same with weights
/// clipped, and doubly robust with a model of the rewards. Intervals hold with weights however
/// heavy and at any number of looks. Where the data can't tell, it says so.
///
/// Judged are decisions that were chosen among candidates, shown and settled. Policies:
///   logged           the policy that made the decisions
///   even             every candidate alike
///   fixed:CONTENT    that content wherever it is a candidate, else every candidate alike
///   split:A=3,B=1    by weights; what has none is never offered where another has one
///   split:@FILE      the same from JSON: weights of contents, or of slots that have such
///   FILE.yaml        the learners of a journey's slots, by the context that was logged:
///                    with --model as of what was learned, with --train as of what they
///                    learn from another log, else with nothing learned
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  usher evaluate --log decisions.jsonl --policy even
  usher evaluate --log decisions.jsonl --policy fixed:book-demo --slot in_app --json
  usher evaluate --log this-week.jsonl --policy journey/journey.yaml --model models.jsonl
  usher evaluate --log this-week.jsonl --policy journey/new.yaml --train last-week.jsonl
  usher evaluate --log obd/bts/all/all.csv.gz --format obd --policy even --reward-model smoothed:1/200

Exit codes: 0 it is judged (be it that the data can't tell), 1 the log or the policy can't be read or nothing in the log can
be used, 2 the command was not understood"
)]
pub struct EvaluateOptions {
    /// The log, plain or gzip; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub log: PathBuf,
    /// The policy to judge
    #[arg(long, value_name = "POLICY")]
    pub policy: String,
    /// What the journey's learners know, as `usher models export` writes it; may be given several times
    #[arg(long, value_name = "FILE")]
    pub model: Vec<PathBuf>,
    /// A log that the journey's learners learn from first; may be given several times. It must be another one than --log: who has
    /// seen the answers can't be judged by them
    #[arg(long, value_name = "FILE")]
    pub train: Vec<PathBuf>,
    /// What the log is written in
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub format: JudgedFormat,
    /// Only in this slot; may be given several times
    #[arg(long, value_name = "SLOT")]
    pub slot: Vec<String>,
    /// Only of this rule; may be given several times
    #[arg(long, value_name = "RULE")]
    pub rule: Vec<String>,
    /// The smallest and largest reward that a decision can have, such as 0..6. Intervals rest on it, so it should be known and
    /// not read off the log; without it, 0 to 1 or what the log goes beyond that
    #[arg(long, value_name = "LEAST..MOST", value_parser = range, allow_hyphen_values = true)]
    pub reward_range: Option<(f64, f64)>,
    /// The model of rewards of doubly robust: `mean` of each content and slot, from others' decisions; `smoothed:ADD/ROWS`,
    /// each content's (sum + ADD) / (rows + ROWS); `logged`, what was expected at the decision; `none`
    #[arg(long, value_name = "MODEL", default_value = "mean")]
    pub reward_model: String,
    /// The largest weight that clipped IPS takes
    #[arg(long, value_name = "WEIGHT", default_value_t = 10.0, value_parser = positive)]
    pub clip: f64,
    /// The confidence of intervals, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0, value_parser = percent)]
    pub confidence: f64,
    /// Items of the Open Bandit Dataset's campaign; without it, as many as the log goes up to
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub obd_items: Option<u32>,
    /// Write one JSON object in place of text
    #[arg(long)]
    pub json: bool,
}

/// A range such as 0..6.
pub fn range(text: &str) -> Result<(f64, f64), String> {
    let wrong = || "write the smallest and the largest reward, such as 0..6".to_owned();
    let (least, most) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match (number(least), number(most)) {
        (Some(least), Some(most)) if least < most => Ok((least, most)),
        _ => Err(wrong()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("write a number above 0".to_owned()),
    }
}

/// From 50 to below 100 percent.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(number) if (50.0..100.0).contains(&number) => Ok(number),
        _ => Err("write a percentage from 50 to below 100, such as 95".to_owned()),
    }
}
