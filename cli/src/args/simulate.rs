//! `usher simulate`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

/// How often snapshots of the models are refreshed where a variant says nothing: as the functions do by themselves.
const REFRESH_DEFAULT: Duration = Duration::from_secs(2);
/// The longest name of a variant: it stands in a legend.
const VARIANT_NAME_CHARS_MAX: usize = 40;

/// Let synthetic users meet a journey in the local cloud: how soon do its learners find out what each of them likes?
///
/// A world file says who the users are: traits that the journey sees, groups that it doesn't, and how likely each group clicks on
/// each offer. Each variant gets the same users at the same times in a local cloud of its own, with the real functions: their
/// events go through Kinesis, the decisions come from the triggers stream, the users click or don't, and the clicks go back as
/// events. It counts, minute by minute, how many offers were the best one for their user, and tells how long it took from the
/// first outcome to the first decision by a model that had learned.
///
/// Time is the simulation's own: with --speed 10 an hour passes in six minutes, and everything that takes time is as much quicker,
/// also the refresh of the models' snapshots. What the machine takes to work stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  usher simulate examples/bandit/simulation/world.json --variant learner=examples/bandit/simulation/journey.yaml
  usher simulate world.json --variant at-once=journey.yaml --variant 'every 10 minutes=journey.yaml@10m' \\
      --variant fixed=fixed_split.yaml --speed 10 --output simulation

Output (--output): minutes.csv (variant, minute, slot, decisions, best, best_visible, clicks), summary.json, best_offers.svg

Exit codes: 0 all variants ran to their end, 1 something went wrong, 2 the command was not understood")]
pub struct SimulateOptions {
    /// Who the users are and what they like (JSON)
    #[arg(value_name = "WORLD.json")]
    pub world: PathBuf,
    /// What to compare: a name, a journey, and how often snapshots of the models are refreshed (2s); may be given several times
    #[arg(long = "variant", value_name = "NAME=JOURNEY.yaml[@REFRESH]", required = true)]
    pub variants: Vec<Variant>,
    /// Users who sign up, evenly over the time
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub users: u32,
    /// Minutes of the simulation's time
    #[arg(long, value_name = "M", default_value = "40", value_parser = above_zero)]
    pub minutes: f64,
    /// How many times quicker than the wall clock the simulation's time passes
    #[arg(long, value_name = "TIMES", default_value = "1", value_parser = above_zero)]
    pub speed: f64,
    /// Decides who the users are, when they come and when they click
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// The folder for what came of it
    #[arg(long, value_name = "DIR", default_value = "usher-simulation")]
    pub output: PathBuf,
    /// The SAM template; without it, template.yaml in this folder or one above
    #[arg(long, value_name = "template.yaml")]
    pub template: Option<PathBuf>,
    /// Build the functions with cargo's release profile, which takes minutes
    #[arg(long)]
    pub release: bool,
    /// Take the function programs from this folder and build nothing
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    pub bin_dir: Option<PathBuf>,
}

/// What is compared: a journey, and how fresh its models are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What it is called.
    pub name: String,
    /// The journey's file.
    pub journey: PathBuf,
    /// How old a snapshot of the models gets, in the simulation's time.
    pub refresh: Duration,
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Variant, String> {
        const FORM: &str =
            "write NAME=JOURNEY.yaml, or NAME=JOURNEY.yaml@10m for snapshots that are refreshed every 10 minutes";
        let (name, rest) = text.split_once('=').ok_or(FORM)?;
        let (journey, refresh) = match rest.rsplit_once('@') {
            Some((journey, refresh)) => {
                let refresh =
                    humantime::parse_duration(refresh).map_err(|error| format!("{refresh}: {error}; {FORM}"))?;
                (journey, refresh)
            }
            None => (rest, REFRESH_DEFAULT),
        };
        if name.is_empty() || journey.is_empty() || refresh.is_zero() {
            return Err(FORM.to_owned());
        }
        if name.chars().count() > VARIANT_NAME_CHARS_MAX || name.contains([',', '"', '\n']) {
            return Err(format!(
                "a variant's name has at most {VARIANT_NAME_CHARS_MAX} characters, and no comma or quote"
            ));
        }
        Ok(Variant {
            name: name.to_owned(),
            journey: journey.into(),
            refresh,
        })
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("write a number above 0, such as 40 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_a_name_a_journey_and_how_fresh_its_models_are() {
        let variant = |name: &str, journey: &str, seconds| {
            Ok(Variant {
                name: name.to_owned(),
                journey: journey.into(),
                refresh: Duration::from_secs(seconds),
            })
        };
        assert_eq!("a=j.yaml".parse(), variant("a", "j.yaml", 2));
        assert_eq!(
            "every 10 minutes=x@y/j.yaml@10m".parse(),
            variant("every 10 minutes", "x@y/j.yaml", 600)
        );
        for wrong in [
            "j.yaml",
            "=j.yaml",
            "a=",
            "a=@1m",
            "a=j.yaml@0s",
            "a=j.yaml@soon",
            "a,b=j.yaml",
        ] {
            assert!(wrong.parse::<Variant>().is_err(), "{wrong}");
        }
    }
}
