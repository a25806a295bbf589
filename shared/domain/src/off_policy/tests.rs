use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

/// What `obp` says of each figure, and ours, to this.
const AGREEMENT: f64 = 1e-9;
const POSITIONS: usize = 3;

struct Log {
    rows: Vec<(usize, usize, f64, f64)>,
}

fn log(bytes: &[u8]) -> Log {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    let row = |line: &str| {
        let parts: Vec<&str> = line.split(',').collect();
        let whole = |index: usize| parts[index].parse::<usize>().unwrap();
        let number = |index: usize| parts[index].parse::<f64>().unwrap();
        (whole(0), whole(1), number(2), number(3))
    };
    Log {
        rows: text.lines().skip(1).map(row).collect(),
    }
}

/// The policies of `obd/make_expected.py`, as probabilities by item and position.
fn policy(name: &str, items: usize, bts: &Log) -> Vec<[f64; POSITIONS]> {
    match name {
        "even" => vec![[1.0 / items as f64; POSITIONS]; items],
        "skewed" => {
            let weight = |item: usize| 1.0 + ((7 * item) % 11) as f64;
            let total: f64 = (0..items).map(weight).sum();
            (0..items).map(|item| [weight(item) / total; POSITIONS]).collect()
        }
        "as bts" => {
            let mut counts = vec![[1.0; POSITIONS]; items];
            for (item, position, ..) in &bts.rows {
                counts[*item][*position] += 1.0;
            }
            let total = |position: usize| counts.iter().map(|count| count[position]).sum::<f64>();
            let totals = [total(0), total(1), total(2)];
            let share = |count: &[f64; POSITIONS]| std::array::from_fn(|position| count[position] / totals[position]);
            counts.iter().map(share).collect()
        }
        "only item 5" => (0..items)
            .map(|item| [f64::from(u8::from(item == 5)); POSITIONS])
            .collect(),
        other => panic!("unknown policy {other}"),
    }
}

fn decisions(log: &Log, policy: &[[f64; POSITIONS]]) -> Vec<LoggedDecision> {
    let mut clicked = vec![0.0; policy.len()];
    let mut shown = vec![0.0; policy.len()];
    for (item, _, click, _) in &log.rows {
        clicked[*item] += click;
        shown[*item] += 1.0;
    }
    let model: Vec<f64> = clicked
        .iter()
        .zip(&shown)
        .map(|(clicks, shown)| (clicks + 1.0) / (shown + 200.0))
        .collect();
    let expected: [f64; POSITIONS] = std::array::from_fn(|position| {
        let shares: Vec<f64> = policy.iter().map(|shares| shares[position]).collect();
        expected_under(&shares, &model)
    });
    let row = |(item, position, click, propensity): &(usize, usize, f64, f64)| LoggedDecision {
        reward: *click,
        propensity: *propensity,
        target: policy[*item][*position],
        predicted: model[*item],
        expected: expected[*position],
    };
    log.rows.iter().map(row).collect()
}

#[test]
fn estimates_agree_with_obp_on_the_open_bandit_dataset() {
    let logs: HashMap<(&str, &str), Log> = [
        (("all", "random"), log(include_bytes!("obd/random-all.csv.gz"))),
        (("all", "bts"), log(include_bytes!("obd/bts-all.csv.gz"))),
        (("men", "random"), log(include_bytes!("obd/random-men.csv.gz"))),
        (("men", "bts"), log(include_bytes!("obd/bts-men.csv.gz"))),
    ]
    .into();
    let mut checked = 0;
    let mut shown = String::new();
    for line in include_str!("obd/expected.csv").lines().skip(1) {
        let parts: Vec<&str> = line.split(',').collect();
        let [campaign, behavior, name, figure, value] = parts[..] else {
            panic!("{line}");
        };
        let both = [&logs[&(campaign, "random")], &logs[&(campaign, "bts")]];
        let items = both
            .iter()
            .flat_map(|log| log.rows.iter())
            .map(|row| row.0)
            .max()
            .unwrap()
            + 1;
        let rows = decisions(&logs[&(campaign, behavior)], &policy(name, items, both[1]));
        let clip = figure
            .strip_prefix("clipped ")
            .map_or(10.0, |clip| clip.parse().unwrap());
        let settings = Settings {
            clip,
            propensity_least: (behavior == "random").then(|| 1.0 / items as f64),
            ..Settings::default()
        };
        let report = evaluate(&rows, &settings).unwrap();
        let ours = match figure {
            "ips" => report.ips.value,
            "snips" => report.snips.value,
            "dr" => report.doubly_robust.value,
            "ess" => report.effective_rows,
            _ => report.clipped.value,
        };
        let expected: f64 = value.parse().unwrap();
        assert!(
            (ours - expected).abs() <= AGREEMENT * expected.abs().max(1.0),
            "{line}: ours is {ours}"
        );
        if figure == "ips" {
            let warnings: Vec<String> = report.warnings.iter().map(Warning::to_string).collect();
            shown += &format!(
                "{campaign} {behavior} {name}: logged {:.5} ips {:.5} {:.5?} dr {:.5?} gain {:.5?} rows {:.0} {:?} {warnings:?}\n",
                report.logged.value,
                report.ips.value,
                report.interval,
                report.doubly_robust_interval,
                report.gain,
                report.effective_rows,
                report.verdict
            );
            assert_eq!(
                report.effective_rows < EFFECTIVE_ROWS_MIN,
                report
                    .warnings
                    .iter()
                    .any(|warning| matches!(warning, Warning::FewEffectiveRows { .. })),
                "{line}"
            );
            // 10,000 rows with 40 clicks are too few to rank policies.
            assert_eq!(report.verdict, Verdict::CannotTell, "{line}");
            assert!(
                report.interval.low <= report.ips.value && report.ips.value <= report.interval.high,
                "{line}"
            );
        }
        checked += 1;
    }
    println!("{shown}");
    assert_eq!(checked, 96);
}

/// A simple generator, for simulations.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 += 1;
        (crate::hash::hash_bytes(&self.0.to_le_bytes()) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Logs of two arms: the first is offered rarely and is better; the policy to be judged offers only it, so weights are heavy.
fn simulated(draws: &mut Draws, rows: usize, share: f64, rates: [f64; 2]) -> Vec<LoggedDecision> {
    (0..rows)
        .map(|_| {
            let is_first = draws.next() < share;
            let rate = if is_first { rates[0] } else { rates[1] };
            LoggedDecision {
                reward: f64::from(u8::from(draws.next() < rate)),
                propensity: if is_first { share } else { 1.0 - share },
                target: f64::from(u8::from(is_first)),
                predicted: 0.3,
                expected: 0.3,
            }
        })
        .collect()
}

#[test]
fn intervals_hold_with_heavy_weights_as_often_as_they_say() {
    const LOGS: usize = 300;
    let mut draws = Draws(7);
    for (rows, share, rates, is_bounded) in [
        (500, 0.02, [0.5, 0.3], false),
        (500, 0.02, [0.5, 0.3], true),
        (2000, 0.005, [0.1, 0.3], true),
        (200, 0.5, [0.05, 0.05], false),
        (100, 0.01, [0.9, 0.1], false),
    ] {
        let settings = Settings {
            propensity_least: is_bounded.then_some(share),
            ..Settings::default()
        };
        let mut missed = [0; 3];
        for _ in 0..LOGS {
            let log = simulated(&mut draws, rows, share, rates);
            let report = evaluate(&log, &settings).unwrap();
            let outside = |interval: Interval, truth: f64| usize::from(truth < interval.low || truth > interval.high);
            missed[0] += outside(report.interval, rates[0]);
            missed[1] += report
                .doubly_robust_interval
                .map_or(0, |interval| outside(interval, rates[0]));
            missed[2] += outside(report.gain, rates[0] - (share * rates[0] + (1.0 - share) * rates[1]));
        }
        // 5 % of 300 are 15; the method is cautious, so it stays below that.
        assert!(
            missed.iter().all(|missed| *missed <= 15),
            "{rows} {share} {rates:?}: {missed:?}"
        );
    }
}

#[test]
fn a_clear_difference_is_told_and_an_unclear_one_is_not() {
    let mut draws = Draws(11);
    for (rows, share, rates, verdict) in [
        (4000, 0.5, [0.5, 0.3], Verdict::Better),
        (4000, 0.5, [0.3, 0.5], Verdict::Worse),
        (4000, 0.5, [0.4, 0.4], Verdict::CannotTell),
        (100, 0.01, [0.5, 0.3], Verdict::CannotTell),
    ] {
        let settings = Settings {
            propensity_least: Some(share),
            ..Settings::default()
        };
        let report = evaluate(&simulated(&mut draws, rows, share, rates), &settings).unwrap();
        assert_eq!(report.verdict, verdict, "{rows} {share} {rates:?}: {report:?}");
    }
}

#[test]
fn p10_rows_that_are_wrong_are_left_out_and_counted() {
    let good = LoggedDecision {
        reward: 1.0,
        propensity: 0.5,
        target: 0.5,
        predicted: 0.0,
        expected: 0.0,
    };
    let wrong = [
        LoggedDecision {
            propensity: 0.0,
            ..good
        },
        LoggedDecision {
            propensity: f64::NAN,
            ..good
        },
        LoggedDecision {
            propensity: 1.5,
            ..good
        },
        LoggedDecision {
            propensity: 5e-324,
            target: 1.0,
            ..good
        },
        LoggedDecision { target: -0.1, ..good },
        LoggedDecision {
            target: f64::INFINITY,
            ..good
        },
        LoggedDecision {
            reward: f64::NAN,
            ..good
        },
        LoggedDecision { reward: 2.0, ..good },
        LoggedDecision {
            predicted: f64::INFINITY,
            ..good
        },
    ];
    for row in wrong {
        assert_eq!(evaluate(&[row], &Settings::default()), None, "{row:?}");
        let report = evaluate(&[good, row], &Settings::default()).unwrap();
        assert_eq!((report.rows, report.ips.value), (1, 1.0));
        assert!(report.warnings.contains(&Warning::UnusableRows { rows: 1 }));
    }
    assert_eq!(evaluate(&[], &Settings::default()), None);
    let none = LoggedDecision { target: 0.0, ..good };
    let report = evaluate(&[none, none], &Settings::default()).unwrap();
    assert_eq!(
        (report.ips.value, report.snips.value, report.effective_rows),
        (0.0, 0.0, 0.0)
    );
}

#[test]
fn propensities_that_are_wrong_are_noticed() {
    let row = LoggedDecision {
        reward: 1.0,
        propensity: 0.25,
        target: 0.5,
        predicted: 0.0,
        expected: 0.0,
    };
    let report = evaluate(&vec![row; 1000], &Settings::default()).unwrap();
    assert!(
        matches!(report.warnings[..], [Warning::WeightsOffOne { .. }]),
        "{:?}",
        report.warnings
    );
}
