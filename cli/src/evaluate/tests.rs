use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::learners::Learners;
use super::*;
use crate::args::{Arguments, Command};
use crate::decision_log::tests::decision;

/// The rows and the figures of `shared/domain/src/off_policy/obd`.
const OBD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/domain/src/off_policy/obd");
/// What `obp` says of each figure, and ours, to this.
const AGREEMENT: f64 = 1e-9;

fn options(line: &str) -> EvaluateOptions {
    let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
    match arguments.command {
        Command::Evaluate(options) => options,
        other => panic!("{other:?}"),
    }
}

/// What the command tells, for programs.
fn judged(line: &str) -> Result<Value> {
    let options = options(line);
    let mut judging = Judging::new(
        policy_of(&options)?,
        RewardModel::parse(&options.reward_model)?,
        Selection {
            slots: options.slot.clone(),
            rules: options.rule.clone(),
        },
    );
    match options.format {
        JudgedFormat::Jsonl => read_log(&options, &mut judging)?,
        JudgedFormat::Obd => obd::read(&options.log, options.obd_items, &mut judging)?,
    }
    let settings = settings(&options);
    let judged = judging
        .judge(&settings, options.reward_range.is_some())
        .map_err(|left| anyhow::anyhow!("{}", nothing_to_judge(&options, &left)))?;
    assert!(text::table(&options, &judged).contains("IPS"));
    Ok(serde_json::from_str(&text::json(&options, &judged)?).expect("JSON"))
}

fn written(decisions: impl IntoIterator<Item = LoggedDecision>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    for decision in decisions {
        writeln!(file, "{}", serde_json::to_string(&decision).expect("JSON")).expect("to write");
    }
    file
}

/// The policies of `obd/make_expected.py`, as weights for `--policy`.
fn obd_policy(name: &str, items: usize, bts: &Path) -> (String, Option<NamedTempFile>) {
    let file = |weights: Value| {
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), weights.to_string()).expect("to write");
        (format!("split:@{}", file.path().display()), Some(file))
    };
    match name {
        "even" => ("even".to_owned(), None),
        "only item 5" => ("fixed:5".to_owned(), None),
        "skewed" => {
            let weight = |item: usize| (item.to_string(), Value::from(1 + (7 * item) % 11));
            file(Value::Object((0..items).map(weight).collect()))
        }
        "as bts" => {
            let mut counts = vec![vec![1u32; items]; 3];
            let rows = csv::Reader::from_reader(GzDecoder::new(std::fs::File::open(bts).expect("it is there")));
            for row in rows.into_deserialize::<(usize, usize, u32, f64)>() {
                let (item, position, ..) = row.expect("a row");
                counts[position][item] += 1;
            }
            let of = |counts: &Vec<u32>| -> Value {
                let weights = counts.iter().enumerate();
                Value::Object(
                    weights
                        .map(|(item, count)| (item.to_string(), (*count).into()))
                        .collect(),
                )
            };
            let slots = counts.iter().enumerate();
            file(Value::Object(
                slots
                    .map(|(position, counts)| (format!("position_{position}"), of(counts)))
                    .collect(),
            ))
        }
        other => panic!("unknown policy {other}"),
    }
}

#[test]
fn the_command_agrees_with_obp_on_the_open_bandit_dataset() {
    let expected = std::fs::read_to_string(format!("{OBD}/expected.csv")).expect("it is there");
    let mut checked = 0;
    // Six figures of one log and policy follow each other.
    let lines: Vec<Vec<&str>> = expected.lines().skip(1).map(|line| line.split(',').collect()).collect();
    for figures in lines.chunk_by(|left, right| left[..3] == right[..3]) {
        let [campaign, behavior, name] = figures[0][..3] else {
            panic!("{figures:?}");
        };
        // As many as the campaigns have.
        let items = if campaign == "all" { 80 } else { 34 };
        let bts = PathBuf::from(format!("{OBD}/bts-{campaign}.csv.gz"));
        let (policy, _file) = obd_policy(name, items, &bts);
        for clip in ["2", "10"] {
            let found = judged(&format!(
                "usher evaluate --log {OBD}/{behavior}-{campaign}.csv.gz --format obd --obd-items {items} --policy {policy} \
                 --reward-model smoothed:1/200 --clip {clip}"
            ))
            .expect(name);
            for figure in figures {
                let value = match figure[3] {
                    "ips" | "snips" => &found[figure[3]]["value"],
                    "dr" => &found["doubly_robust"]["value"],
                    "ess" => &found["effective_rows"],
                    clipped if clipped == format!("clipped {clip}") => &found["clipped"]["value"],
                    _ => continue,
                };
                let (ours, expected): (f64, f64) =
                    (value.as_f64().expect("a number"), figure[4].parse().expect("a number"));
                assert!(
                    (ours - expected).abs() <= AGREEMENT * expected.abs().max(1.0),
                    "{figure:?}: ours is {ours}"
                );
                checked += usize::from(clip == "10" || figure[3].starts_with("clipped"));
            }
            let few = found["effective_rows"].as_f64().expect("a number") < 200.0;
            let warned = found["warnings"].as_array().expect("a list").iter().any(|warning| {
                warning
                    .as_str()
                    .is_some_and(|warning| warning.contains("the log hardly shows what it would offer"))
            });
            assert_eq!(few, warned, "{campaign} {behavior} {name}");
            assert_eq!(found["verdict"], "cannot_tell", "10,000 rows with 40 clicks can't tell");
        }
    }
    assert_eq!(checked, 96);
}

#[test]
fn a_clear_difference_is_told_and_what_says_nothing_is_left_out() {
    let mut decisions = Vec::new();
    for id in 0..4000 {
        let mut one = decision(id);
        // `a` was offered in a quarter of all decisions, and is clicked in half of those; `b` in a tenth.
        let is_a = id.is_multiple_of(4);
        one.offer = if is_a { "a" } else { "b" }.to_owned();
        one.propensity = if is_a { 0.25 } else { 0.75 };
        one.reward = Some(f64::from(u8::from(if is_a {
            id.is_multiple_of(8)
        } else {
            id % 10 == 1
        })));
        decisions.push(one);
    }
    for (id, change) in [
        |one: &mut LoggedDecision| one.held_out = true,
        |one: &mut LoggedDecision| one.settled = false,
        |one: &mut LoggedDecision| one.reward = None,
        |one: &mut LoggedDecision| one.candidates.clear(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut one = decision(9_000 + id as u32);
        change(&mut one);
        decisions.push(one);
    }
    let log = written(decisions);
    let line = |policy: &str| format!("usher evaluate --log {} --policy {policy}", log.path().display());
    for (policy, verdict, ips) in [
        ("fixed:a", "better", 0.5),
        ("fixed:b", "worse", 400.0 / 3000.0),
        ("logged", "cannot_tell", 0.225),
        ("split:a=1,b=3", "cannot_tell", 0.225),
    ] {
        let found = judged(&line(policy)).expect(policy);
        assert_eq!(found["verdict"], verdict, "{policy}: {found}");
        assert!(
            (found["ips"]["value"].as_f64().expect("a number") - ips).abs() < 1e-9,
            "{policy}: {found}"
        );
        let left = serde_json::json!({ "held_out": 1, "open": 2, "without_choice": 1, "other_slots": 0 });
        assert_eq!((&found["left_out"], &found["rows"]), (&left, &4000.into()));
        let (low, high) = (&found["interval"]["low"], &found["interval"]["high"]);
        assert!(low.as_f64() <= Some(ips) && Some(ips) <= high.as_f64(), "{found}");
    }
    let found = judged(&line("fixed:a --reward-range 0..6")).expect("judged");
    assert_eq!(
        found["reward_range"],
        serde_json::json!({ "least": 0.0, "most": 6.0, "is_from_log": false })
    );
    assert_eq!(found["weight_possible"], 4.0);
}

#[test]
fn p10_where_nothing_can_be_judged_it_is_told_why() {
    let mut open = decision(1);
    open.settled = false;
    let log = written([open]);
    let path = log.path().display();
    for (line, told) in [
        (
            format!("--log {path} --policy even"),
            format!("no decision in {path} can be used: 1 decision still open"),
        ),
        (
            format!("--log {path} --policy even --slot x"),
            format!("there is no decision in {path} that is meant"),
        ),
        (
            "--log /no/such --policy even".to_owned(),
            "cannot read the log /no/such".to_owned(),
        ),
        (format!("--log {path} --policy best"), "--policy is `best`".to_owned()),
        (
            format!("--log {path} --format obd --policy even"),
            format!("{path}, line 2: "),
        ),
    ] {
        match judged(&format!("usher evaluate {line}")) {
            Ok(found) if line.contains("obd") => panic!("{found}"),
            Ok(found) => panic!("{line}: {found}"),
            // One line of JSON is a header without rows for CSV.
            Err(error) if line.contains("obd") => assert!(error.to_string().contains("no decision"), "{error}"),
            Err(error) => assert!(error.to_string().starts_with(&told), "{error}\n{told}"),
        }
    }
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "item_id,position,click,propensity_score\n1,1,0,0.5\n2,1,0,0").expect("to write");
    let path = file.path().display();
    let error = judged(&format!("usher evaluate --log {path} --format obd --policy even")).expect_err("0");
    assert_eq!(
        error.to_string(),
        format!("{path}, line 3: `propensity_score` is 0, which is no probability above 0")
    );
}

/// A journey whose learner reads a number and a text.
const JOURNEY: &str = "journey: j
contents: [{ id: a }, { id: b }]
slots:
  in_app:
    learner: linucb
    context: { clicks: features.clicks, plan: { value: traits.plan, one_of: [free, team] } }
features: { clicks: { count: click, within: 10m } }
triggers: [{ id: high_intent, on: click, choose: [a, b], slot: in_app }]
outcomes: { within: 1h, reward: { click: 1 } }
";

#[test]
fn a_journeys_learner_is_judged_by_the_logged_context() {
    let journey = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    std::fs::write(journey.path(), JOURNEY).expect("to write");
    let seen = |id: u32| {
        let mut one = decision(id);
        one.context = serde_json::json!({ "clicks": id, "plan": null })
            .as_object()
            .cloned()
            .expect("an object");
        one
    };
    let log = written((0..20).map(seen));
    let line = |log: &NamedTempFile| {
        format!(
            "usher evaluate --log {} --policy {}",
            log.path().display(),
            journey.path().display()
        )
    };
    // With nothing learned all candidates are alike.
    let found = judged(&line(&log)).expect("judged");
    assert_eq!(
        (&found["ips"]["value"], &found["effective_rows"]),
        (&2.0.into(), &20.0.into())
    );
    let mut elsewhere = seen(1);
    elsewhere.slot = "email".to_owned();
    let log = written([seen(1), elsewhere]);
    assert_eq!(judged(&line(&log)).expect("judged")["left_out"]["other_slots"], 1);
    let mut unseen = seen(2);
    unseen.context.remove("plan");
    let error = judged(&line(&written([seen(1), unseen])))
        .expect_err("it was not logged")
        .to_string();
    assert!(
        error.contains("has no `plan` in its context, which the journey's learner of in_app reads"),
        "{error}"
    );
}

#[test]
fn a_journeys_learner_learns_from_another_log_first() {
    let journey = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    std::fs::write(journey.path(), JOURNEY).expect("to write");
    // Teams click on `a`, others on `b`, which both were offered evenly.
    let log = |from: u32| {
        written((from..from + 800).map(|id| {
            let mut one = decision(id);
            let (is_team, is_a) = (id.is_multiple_of(3), id.is_multiple_of(2));
            let plan = if is_team { "team" } else { "free" };
            let context = serde_json::json!({ "clicks": id % 7, "plan": plan });
            one.context = context.as_object().cloned().expect("an object");
            one.offer = if is_a { "a" } else { "b" }.to_owned();
            one.propensity = 0.5;
            one.candidates
                .iter_mut()
                .for_each(|candidate| candidate.probability = Some(0.5));
            one.reward = Some(f64::from(u8::from(is_team == is_a)));
            one
        }))
    };
    let (judges, teaches) = (log(0), log(10_000));
    let line = |train: &NamedTempFile| {
        format!(
            "usher evaluate --log {} --policy {} --train {}",
            judges.path().display(),
            journey.path().display(),
            train.path().display()
        )
    };
    let found = judged(&line(&teaches)).expect("judged");
    let snips = found["snips"]["value"].as_f64().expect("a number");
    assert!(snips > 0.95 && found["verdict"] == "better", "{found}");

    // The same as a model that was exported.
    let read = Learners::load(journey.path(), &[], &[teaches.path().to_owned()]).expect("taught");
    let models = NamedTempFile::new().expect("a file");
    std::fs::write(models.path(), read.exported()).expect("to write");
    let by_model = line(&teaches).replace(
        &format!("--train {}", teaches.path().display()),
        &format!("--model {}", models.path().display()),
    );
    assert_eq!(judged(&by_model).expect("judged"), found);
    let other = std::fs::read_to_string(journey.path()).expect("it is there");
    for (from, to, told) in [
        (
            "clicks: features.clicks, plan",
            "plan",
            "has learned other features than the journey's learner sees",
        ),
        (
            "in_app",
            "email",
            "has a model of the slot in_app, in which the journey chooses nowhere",
        ),
    ] {
        std::fs::write(journey.path(), other.replace(from, to)).expect("to write");
        let error = judged(&by_model).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
    std::fs::write(journey.path(), other).expect("to write");
    std::fs::write(models.path(), "\n{}").expect("to write");
    let error = judged(&by_model).expect_err("no model").to_string();
    assert_eq!(error, format!("{}, line 2", models.path().display()));
    let error = judged(&line(&judges)).expect_err("it has seen the answers").to_string();
    assert!(error.starts_with("--train is the log that judges"), "{error}");
}
