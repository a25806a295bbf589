//! The learners on public data, one default setting for all: what each earns over five seeds, beside what public tools earn.
//! `nats` is how much chance there was in a decision: the mean of ln(1 / propensity).
//!
//! - Image segments (UCI, CC BY 4.0): each row once, in a seeded order; reward 1 when the chosen arm is the row's class. The
//!   context decides everything.
//! - Hillstrom's e-mail experiment: 64,000 rows of 3 arms that were assigned evenly at random. Replay (Li et al. 2011): a row
//!   counts, and is learned from, when the learner chooses the arm that the row had. The context is worth almost nothing.
//!
//! `cargo run --release -p usher-domain --example public_data -- FOLDER [--first-seed N] [--output FOLDER]`. Data that are absent
//! are skipped, with a word. With `--output` the figures of each seed go to `usher.csv`, and the order in which a seed shows a
//! set's rows (from 0) to `SET-SEED.order`, so that another tool can be shown the same: `examples/bandit/compare` does.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::{DeflateDecoder, GzDecoder};
use usher_domain::bandit::context::{Content, Feature, FeatureKind, Layout};
use usher_domain::bandit::learner::{Algorithm, Learner, Scope};
use usher_domain::bandit::snapshot::{Candidate, ModelSnapshot};
use usher_domain::bandit::state::{Outcome, SlotState};
use usher_domain::hash::hash_parts;
use usher_domain::time::Timestamp;
use usher_domain::value::Value;

const SEEDS: u64 = 5;
/// Outcomes up to which each makes a new snapshot; after that, when they have grown by the share.
const EVERY_OUTCOME_UNTIL: u64 = 100;
const SNAPSHOT_GROWTH_SHARE: u64 = 200;

struct Row {
    values: Vec<Value<'static>>,
    arm: usize,
    reward: f64,
}

struct DataSet {
    features: Vec<Feature>,
    arms: Vec<String>,
    rows: Vec<Row>,
    /// Whether a row says what one arm earned (replay), rather than what every arm would have.
    is_logged: bool,
}

struct Run {
    reward: f64,
    decisions: u64,
    /// The sum of the logarithms of 1 / propensity.
    surprise: f64,
}

/// What the command line says.
struct Options {
    data: PathBuf,
    first_seed: u64,
    output: Option<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
        let usage = "usage: public_data FOLDER [--first-seed N] [--output FOLDER]";
        let mut options = Options {
            data: PathBuf::new(),
            first_seed: 0,
            output: None,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--first-seed" => options.first_seed = arguments.next().ok_or(usage)?.parse()?,
                "--output" => options.output = Some(arguments.next().ok_or(usage)?.into()),
                _ if argument.starts_with('-') => return Err(usage.into()),
                _ => options.data = argument.into(),
            }
        }
        if options.data.as_os_str().is_empty() {
            return Err(usage.into());
        }
        Ok(options)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let seeds = options.first_seed..options.first_seed + SEEDS;
    let mut figures = "set,learner,seed,reward,decisions\n".to_owned();
    type Reader = fn(&Path) -> Result<DataSet, Box<dyn Error>>;
    let sets: [(&str, &str, &str, Reader, &str); 2] = [
        (
            "segments",
            "Image segments, mean reward",
            "segment.csv.zip",
            segments,
            "random .142, best fixed arm .143, VW cb_explore_adf .704, LinUCB .865",
        ),
        (
            "hillstrom",
            "Hillstrom, replay, visit rate",
            "hillstrom.csv.gz",
            hillstrom,
            "random .146, best fixed arm .183, VW cb_explore_adf .179, LinUCB .1795, Bernoulli TS .180",
        ),
    ];
    for (set, title, file, read, beside) in sets {
        let path = options.data.join(file);
        if !path.exists() {
            println!("{title}: skipped, there is no {}", path.display());
            continue;
        }
        let data = read(&path)?;
        let layout = Layout::new(data.features.clone(), Vec::new())?;
        println!(
            "\n{title}: {} rows, {} arms, {} numbers of context",
            data.rows.len(),
            data.arms.len(),
            layout.dimension()
        );
        println!("  to beat: {beside}");
        println!(
            "  {:<18} {:>7} {:>7} {:>7}  {:>9} {:>9} {:>9}",
            "learner", "mean", "least", "most", "decisions", "seconds", "nats"
        );
        for (name, learner) in learners() {
            let started = Instant::now();
            let runs: Vec<Run> = seeds.clone().map(|seed| run(&data, &layout, &learner, seed)).collect();
            for (seed, run) in seeds.clone().zip(&runs) {
                writeln!(figures, "{set},{name},{seed},{},{}", run.reward, run.decisions)?;
            }
            let rates: Vec<f64> = runs.iter().map(|run| run.reward / run.decisions as f64).collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
            let most = rates.iter().copied().fold(0.0, f64::max);
            let decisions: u64 = runs.iter().map(|run| run.decisions).sum();
            let surprise = runs.iter().map(|run| run.surprise).sum::<f64>() / decisions as f64;
            println!(
                "  {name:<18} {mean:>7.4} {least:>7.4} {most:>7.4}  {:>9} {:>9.1} {surprise:>9.3}",
                decisions / SEEDS,
                started.elapsed().as_secs_f64()
            );
        }
        if let Some(output) = &options.output {
            for seed in seeds.clone() {
                let lines = order_of(data.rows.len(), seed)
                    .iter()
                    .map(|row| format!("{row}\n"))
                    .collect::<String>();
                std::fs::write(output.join(format!("{set}-{seed}.order")), lines)?;
            }
        }
    }
    if let Some(output) = &options.output {
        std::fs::write(output.join("usher.csv"), figures)?;
    }
    Ok(())
}

/// The order in which a seed shows the rows.
fn order_of(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_cached_key(|row| hash_parts(&[b"order", &seed.to_le_bytes(), &(*row as u64).to_le_bytes()]));
    order
}

fn learners() -> Vec<(&'static str, Learner)> {
    [
        ("fixed split", Algorithm::FixedSplit(BTreeMap::new())),
        (
            "epsilon-greedy 1 %",
            Algorithm::EpsilonGreedy {
                epsilon: 0.01,
                scope: Scope::PerArm,
            },
        ),
        ("Thompson", Algorithm::Thompson),
        ("linear Thompson", Algorithm::LinearThompson(Scope::PerArm)),
        ("LinUCB", Algorithm::LinUcb(Scope::PerArm)),
    ]
    .into_iter()
    .map(|(name, algorithm)| (name, Learner::new(algorithm)))
    .collect()
}

/// One pass over the rows in a seeded order.
fn run(data: &DataSet, layout: &Layout, learner: &Learner, seed: u64) -> Run {
    let content = Content::default();
    let candidates: Vec<Candidate<'_>> = data
        .arms
        .iter()
        .map(|arm| Candidate {
            arm,
            content: &content,
            score: None,
        })
        .collect();
    let mut state = SlotState::new(layout, None);
    let mut snapshot = ModelSnapshot::new(&state, layout, learner);
    let mut total = Run {
        reward: 0.0,
        decisions: 0,
        surprise: 0.0,
    };
    let mut snapshot_at = 0;
    for row in order_of(data.rows.len(), seed) {
        let Row { values, arm, reward } = &data.rows[row];
        let value_of = |name: &str| {
            let index = data.features.iter().position(|feature| feature.name == name);
            index.map_or(Value::Null, |index| values[index].clone())
        };
        let context = layout.context(value_of, snapshot.standards());
        let draw = hash_parts(&[b"draw", &seed.to_le_bytes(), &(row as u64).to_le_bytes()]);
        let Some(choice) = snapshot.choose(&context, &candidates, draw) else {
            continue;
        };
        let reward = match data.is_logged {
            true if choice.index != *arm => continue,
            true => *reward,
            false => f64::from(u8::from(choice.index == *arm)),
        };
        total.reward += reward;
        total.decisions += 1;
        total.surprise -= choice.propensity.ln();
        let outcome = Outcome {
            arm: candidates[choice.index].arm,
            context: &context,
            content: &content,
            reward,
            previous: None,
            at: Timestamp::from_epoch_ms(0),
        };
        state.learn(layout, &outcome);
        if total.decisions <= EVERY_OUTCOME_UNTIL
            || total.decisions >= snapshot_at + snapshot_at / SNAPSHOT_GROWTH_SHARE
        {
            snapshot = ModelSnapshot::new(&state, layout, learner);
            snapshot_at = total.decisions;
        }
    }
    total
}

fn number(name: &str) -> Feature {
    Feature {
        name: name.to_owned(),
        kind: FeatureKind::Number,
    }
}

fn one_of(name: &str, values: &[&str]) -> Feature {
    Feature {
        name: name.to_owned(),
        kind: FeatureKind::OneOf(values.iter().map(|value| (*value).to_owned()).collect()),
    }
}

fn hillstrom(path: &Path) -> Result<DataSet, Box<dyn Error>> {
    const ARMS: [&str; 3] = ["Mens E-Mail", "Womens E-Mail", "No E-Mail"];
    let features = vec![
        number("recency"),
        number("history"),
        number("mens"),
        number("womens"),
        number("newbie"),
        one_of("zip_code", &["Rural", "Surburban", "Urban"]),
        one_of("channel", &["Multichannel", "Phone", "Web"]),
    ];
    let mut reader = csv::Reader::from_reader(GzDecoder::new(File::open(path)?));
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        headers
            .iter()
            .position(|header| header == name)
            .ok_or(format!("no column {name}"))
    };
    let columns: Vec<usize> = features
        .iter()
        .map(|feature| column(&feature.name))
        .collect::<Result<_, _>>()?;
    let (segment, visit) = (column("segment")?, column("visit")?);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let value = |(feature, column): (&Feature, &usize)| match feature.kind {
            FeatureKind::Number => record[*column].parse().map(Value::Float),
            _ => Ok(Value::Text(record[*column].to_owned().into())),
        };
        rows.push(Row {
            values: features.iter().zip(&columns).map(value).collect::<Result<_, _>>()?,
            arm: ARMS
                .iter()
                .position(|arm| *arm == &record[segment])
                .ok_or("an unknown segment")?,
            reward: record[visit].parse()?,
        });
    }
    let arms = ARMS.iter().map(|arm| (*arm).to_owned()).collect();
    Ok(DataSet {
        features,
        arms,
        rows,
        is_logged: true,
    })
}

fn segments(path: &Path) -> Result<DataSet, Box<dyn Error>> {
    let mut reader = csv::Reader::from_reader(first_of_zip(path)?);
    let headers = reader.headers()?.clone();
    let features: Vec<Feature> = headers
        .iter()
        .filter(|header| *header != "category")
        .map(number)
        .collect();
    let mut arms: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let mut values = Vec::new();
        let mut arm = 0;
        for (header, text) in headers.iter().zip(&record) {
            if header != "category" {
                values.push(Value::Float(text.parse()?));
                continue;
            }
            arm = arms.iter().position(|arm| arm == text).unwrap_or_else(|| {
                arms.push(text.to_owned());
                arms.len() - 1
            });
        }
        rows.push(Row {
            values,
            arm,
            reward: 1.0,
        });
    }
    Ok(DataSet {
        features,
        arms,
        rows,
        is_logged: false,
    })
}

/// The first file of a zip archive: its local header says where its deflated bytes begin, and they say where they end.
fn first_of_zip(path: &Path) -> Result<DeflateDecoder<std::io::Cursor<Vec<u8>>>, Box<dyn Error>> {
    const HEADER_BYTES: usize = 30;
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let short = |at: usize| {
        bytes
            .get(at..at + 2)
            .map(|two| usize::from(u16::from_le_bytes([two[0], two[1]])))
    };
    let (Some(name), Some(extra)) = (short(26), short(28)) else {
        return Err("not a zip archive".into());
    };
    let start = (HEADER_BYTES + name + extra).min(bytes.len());
    Ok(DeflateDecoder::new(std::io::Cursor::new(bytes.split_off(start))))
}
