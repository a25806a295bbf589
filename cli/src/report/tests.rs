use clap::Parser;
use serde_json::Value;

use super::groups::Compared;
use super::*;
use crate::args::{Arguments, Command};
use crate::decision_log::tests::decision;

fn options(line: &str) -> ReportOptions {
    let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
    match arguments.command {
        Command::Report(options) => options,
        other => panic!("{other:?}"),
    }
}

/// A log in which `high_intent` helps, `welcome` does nothing and `stalled` holds nobody out.
fn log() -> Vec<LoggedDecision> {
    let mut log = Vec::new();
    for id in 0..3_000u32 {
        let held_out = id.is_multiple_of(10);
        // Of ten users one is held out; of those one in ten does it by themselves, of the others one in four.
        let by_itself = id.is_multiple_of(100);
        for (offset, rule) in ["high_intent", "welcome", "stalled"].into_iter().enumerate() {
            let mut one = decision(3 * id + offset as u32);
            one.user_id = format!("u{id}");
            one.rule = rule.to_owned();
            one.decided_at = format!("2026-01-{:02}T10:{:02}:{:02}Z", 5 + id / 600, id / 10 % 60, offset);
            one.held_out = held_out && rule != "stalled";
            let is_done = match (rule, held_out) {
                ("high_intent", false) => id % 4 == 1,
                ("high_intent", true) => by_itself,
                _ => id % 7 == 3,
            };
            one.reward = Some(f64::from(u8::from(is_done)));
            log.push(one);
        }
        // A second decision of the same user says nothing new.
        let mut again = decision(1_000_000 + id);
        again.user_id = format!("u{id}");
        again.held_out = held_out;
        again.decided_at = "2026-02-01T00:00:00Z".to_owned();
        again.reward = Some(1.0);
        log.push(again);
    }
    let mut open = decision(9_000_000);
    open.settled = false;
    log.push(open);
    log
}

fn compared(line: &str, log: &[LoggedDecision]) -> Result<(ReportOptions, Compared)> {
    let options = options(line);
    let mut decisions = Decisions::new(Selection {
        slots: options.slot.clone(),
        rules: options.rule.clone(),
    });
    for decision in log {
        decisions.add(decision)?;
    }
    if decisions.is_empty() {
        bail!("{}", nothing_to_compare("the log", &decisions));
    }
    let compared = decisions.compare(options.reward_range, options.confidence / PERCENT)?;
    Ok((options, compared))
}

#[test]
fn rules_are_told_apart_and_one_without_a_control_is_warned_of() {
    let mut log = log();
    let (options, found) = compared("usher report", &log).expect("compared");
    let text = text::table(&options, "the log", &found);
    let told = text::json(&options, "the log", &found).expect("JSON");
    let json: Value = serde_json::from_str(&told).expect("JSON");
    let of = |name: &str| {
        let rules = json["journeys"][0]["rules"].as_array().expect("a list");
        rules.iter().find(|rule| rule["rule"] == name).expect(name).clone()
    };
    let high_intent = of("high_intent");
    assert_eq!(high_intent["lift"]["verdict"], "better", "{text}");
    assert_eq!(
        (&high_intent["shown"]["users"], &high_intent["held_out"]["users"]),
        (&2700.into(), &300.into())
    );
    let near =
        |value: &Value, expected: f64| assert!((value.as_f64().expect("a number") - expected).abs() < 1e-9, "{value}");
    near(&high_intent["held_out"]["mean"], 0.1);
    near(&high_intent["shown"]["mean"], 750.0 / 2700.0);
    assert_eq!(of("welcome")["lift"]["verdict"], "cannot_tell", "{text}");
    let stalled = of("stalled");
    assert_eq!(
        (&stalled["lift"], &stalled["held_out"]["users"]),
        (&Value::Null, &0.into())
    );
    assert!(text.contains("warning: stalled: no user was held out"), "{text}");
    assert!(text.contains("1 decision still open and left out"), "{text}");
    // The journey's is that of each user's first decision, here of high_intent.
    near(&json["journeys"][0]["shown"]["mean"], 750.0 / 2700.0);
    // The order of the lines doesn't matter.
    log.reverse();
    let (options, found) = compared("usher report", &log).expect("compared");
    assert_eq!(text::json(&options, "the log", &found).expect("JSON"), told);
}

#[test]
fn rules_that_hold_out_different_shares_are_not_taken_together() {
    let mut log = log();
    for one in log.iter_mut().filter(|one| one.rule == "stalled") {
        let user: u32 = one.user_id[1..].parse().expect("a number");
        one.held_out = user.is_multiple_of(2);
    }
    let (options, found) = compared("usher report", &log).expect("compared");
    assert!(found.journeys[0].has_mixed_shares && found.journeys[0].whole.lift.is_none());
    assert!(found.journeys[0].rules.iter().all(|(_, group)| group.lift.is_some()));
    let text = text::table(&options, "the log", &found);
    assert!(
        text.contains("warning: trial: its rules hold out different shares"),
        "{text}"
    );
    assert!(
        plot::draw(&found, 95.0)
            .expect("drawn")
            .contains("trial (not comparable)")
    );
}

#[test]
fn the_drawing_has_every_journey_and_rule() {
    let (options, found) = compared("usher report", &log()).expect("compared");
    let svg = plot::draw(&found, options.confidence).expect("drawn");
    for part in [
        "<svg",
        "trial",
        "high_intent",
        "welcome",
        "stalled (not comparable)",
        "as the log grew",
        "2026-01-0",
    ] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(found.journeys[0].looks.len() > 20);
    // Where there is nothing to draw, nothing fails.
    let mut lonely = decision(1);
    lonely.rule = "<&>".to_owned();
    let (_, found) = compared("usher report", &[lonely]).expect("compared");
    assert!(plot::draw(&found, 95.0).expect("drawn").contains("&lt;&amp;&gt;"));
}

#[test]
fn p10_what_can_not_be_compared_is_told() {
    let mut open = decision(1);
    open.settled = false;
    for (line, log, told) in [
        ("usher report", vec![], "there is no decision in the log that is meant"),
        (
            "usher report --rule x",
            vec![decision(1)],
            "there is no decision in the log that is meant",
        ),
        ("usher report", vec![open], "1 decision in the log, and none is settled"),
        (
            "usher report --reward-range 0..0.5",
            vec![decision(1)],
            "--reward-range is 0..0.5, but there are rewards from 1 to 1",
        ),
    ] {
        let error = compared(line, &log).expect_err(told).to_string();
        assert!(error.starts_with(told), "{error}");
    }
    let (options, found) = compared("usher report --confidence 99", &[decision(1)]).expect("one is enough to be told");
    assert!(text::table(&options, "the log", &found).contains("99 % at any look"));
}
