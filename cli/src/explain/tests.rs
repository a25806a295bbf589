use std::io::Write;

use super::*;
use usher_domain::snapshots::Snapshots;

const JOURNEY: &str = r#"
journey: trial
steps:
  - { id: sign_up, on: sign_up }
  - { id: project, on: project_created }
features:
  clicks_10m: { count: click, within: 10m }
  first_seen: { first_seen: any }
contents:
  - { id: tour, unless: steps.project.done }
  - { id: demo }
policy: { cap: { offers: 3, within: 24h } }
triggers:
  - { id: welcome, on: sign_up, offer: tour, slot: in_app, limit: 1 }
  - { id: keen, on: click, when: 'features.clicks_10m >= 2 && event.category == "pricing"', offer: demo, slot: in_app, cooldown: 6h }
  - { id: stalled, after: [2h, 3d], since: steps.sign_up, unless: steps.project.done, offer: tour, slot: email }
"#;

/// Ann signs up anonymously, clicks twice, and comes back two hours later.
const EVENTS: &str = r#"{"event_id":"1","event_type":"sign_up","timestamp":"2026-01-05T10:00:00Z","anonymous_id":"a1"}
{"event_id":"2","event_type":"click","timestamp":"2026-01-05T10:01:00Z","user_id":"ann","anonymous_id":"a1","category":"home"}
not an event
{"event_id":"3","event_type":"click","timestamp":"2026-01-05T10:02:00Z","user_id":"ann","category":"pricing"}
{"event_id":"4","event_type":"page_view","timestamp":"2026-01-05T12:30:00Z","user_id":"ann"}
{"event_id":"5","event_type":"page_view","timestamp":"2026-01-05T12:40:00Z","user_id":"bob"}
"#;

fn journey() -> Journey {
    Journey::parse(JOURNEY).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", JOURNEY)))
}

fn find(user: &str) -> Result<Found> {
    let mut file = tempfile::NamedTempFile::new().expect("a place for files");
    file.write_all(EVENTS.as_bytes()).expect("to a file");
    events::find(file.path(), user, &journey(), Snapshots::none())
}

fn told(found: &Found, rule: Option<&str>, last: usize) -> (String, serde_json::Value) {
    let journey = journey();
    let index = rule.map(|id| rule_index(&journey, id).expect("a rule"));
    let told = Told {
        timeline: Timeline::of(&found.decisions, rule, last),
        journey: &journey,
        found,
        explanation: explain(
            &journey,
            Snapshots::none(),
            &found.profile,
            &found.user,
            found.now,
            index,
        ),
    };
    let json = serde_json::from_str(&json::render(&told)).expect("JSON");
    (text::render(&told), json)
}

#[test]
fn a_timeline_tells_what_was_decided_why_and_what_else_looked() {
    let found = find("ann").expect("she is there");
    let (text, json) = told(&found, None, 20);
    for part in [
        "ann in the journey `trial`",
        "events  4, the latest arrived at 2026-01-05T12:30:00Z",
        "cap     3 of 3 offers within",
        "note    1 line of the file can't be used",
        "3 decisions\n2026-01-05T10:00:00Z  welcome offered tour in in_app\n    because of sign_up 1 at 2026-01-05T10:00:00Z\n",
        "2026-01-05T10:02:00Z  keen offered demo in in_app\n    because of click 3 at",
        "    features.clicks_10m >= 2 && event.category == \"pricing\"\n      event.category = \"pricing\"\n      features.clicks_10m = 2\n",
        "2026-01-05T12:00:00Z  stalled offered tour in email\n    because its timer was due\n",
        "rules, as of 2026-01-05T12:40:00Z\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(json["decisions_in_all"], 3);
    assert_eq!(json["decisions"][1]["decision"]["rule"], "keen");
    assert_eq!(json["rules"][2]["timer"]["due_at"], "2026-01-08T10:00:00.000Z");
    assert_eq!(json["rules"][1]["conditions"][0]["values"][0]["value"], 0);
}

#[test]
fn every_rule_says_where_it_stands() {
    let found = find("ann").expect("she is there");
    let (text, _) = told(&found, None, 0);
    for part in [
        "3 decisions, the latest 0\n",
        "welcome: offers tour in in_app on sign_up\n",
        "on sign_up  it would not fire: limit reached: 1 per user",
        "on click   it would not fire: cooling down until 2026-01-05T16:02:00Z",
        "when features.clicks_10m >= 2 && event.category == \"pricing\": does not hold\n      features.clicks_10m = 0\n      event.category = needs an event\n",
        "stalled: offers tour in email 2h, 3d after steps.sign_up\n",
        "if it were due  it would not fire: capped",
        "due at 2026-01-08T10:00:00Z (in 2d 21h), reminder 2 of 2",
        "    unless steps.project.done: does not hold\n      steps.project.done = false\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn one_rule_is_told_by_what_it_made_and_where_it_looked_in_vain() {
    let found = find("ann").expect("she is there");
    let (text, json) = told(&found, Some("stalled"), 20);
    assert!(
        text.contains("1 decision at which stalled looked\n2026-01-05T12:00:00Z  stalled"),
        "{text}"
    );
    assert!(!text.contains("keen:"), "{text}");
    assert_eq!(json["rules"].as_array().map(Vec::len), Some(1));

    let passed_over = r#"{"rule":"other","slot":"top","offer":"x","decided_at":"2026-01-05T10:00:00.000Z","journey":{"name":"trial","version":"1"},
        "reason":{"condition":"a > 1","saw":{"a":2},"won_over":["weak"],"passed_over":[
            {"rule":"keen","outcome":"capped","detail":"capped: 2 offers within 24h"},
            {"rule":"weak","outcome":"lost_to_priority","detail":"lost to priority of other for top"}]}}"#;
    let found = Found {
        decisions: vec![Decision::parse(passed_over.to_owned(), Some("held_out".to_owned())).expect("a decision")],
        ..found
    };
    let (text, _) = told(&found, Some("keen"), 20);
    assert!(
        text.contains("other offered x in top (held out, so nothing was shown)\n"),
        "{text}"
    );
    assert!(
        text.contains("    keen did not fire: capped: 2 offers within 24h\n"),
        "{text}"
    );
    assert!(!text.contains("a > 1"), "why another rule fired is not asked: {text}");
    let (text, _) = told(&found, Some("welcome"), 20);
    assert!(text.contains("no decisions at which welcome looked"), "{text}");
    let (text, _) = told(&found, None, 20);
    assert_eq!(text.matches("weak").count(), 1, "a loser is told once: {text}");
    assert!(text.contains("decided by version 1 of `trial`"), "{text}");
}

#[test]
fn what_became_of_a_decision_and_how_late_it_was_is_told() {
    let decision = |members: &str, status: &str| {
        let text = format!(
            r#"{{"rule":"welcome","slot":"s","offer":"tour","decided_at":"2026-01-05T10:00:40.000Z","due_at":"2026-01-05T10:00:00.000Z",{members}}}"#
        );
        Decision::parse(text, Some(status.to_owned())).expect("a decision")
    };
    let timer = r#""cause":{"event_id":"timer:x","event_type":"usher.timer","timestamp":"2026-01-05T10:00:00.000Z"}"#;
    let click = r#""cause":{"event_id":"7","event_type":"click","timestamp":"2026-01-05T09:00:00.000Z"}"#;
    let found = find("ann").expect("she is there");
    for (members, status, parts) in [
        (
            timer,
            "delivered",
            ["(delivered)", "because its timer was due, decided 40s later"],
        ),
        (
            timer,
            "pending",
            ["(not delivered yet)", "2026-01-05T10:00:00Z  welcome"],
        ),
        (timer, "undeliverable", ["(refused by the receiver for good)", "timer"]),
        (timer, "of the future", ["(of the future)", "timer"]),
        (
            click,
            "delivered",
            [
                "put off to the end of quiet hours",
                "because of click 7 at 2026-01-05T09:00:00Z, decided 40s later",
            ],
        ),
    ] {
        let found = Found {
            decisions: vec![decision(members, status)],
            profile: found.profile.clone(),
            user: found.user.clone(),
            led_over: Vec::new(),
            notes: Vec::new(),
            ..found
        };
        let (text, _) = told(&found, None, 20);
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}

#[test]
fn an_anonymous_id_leads_to_the_user_that_it_became() {
    let found = find("anonymous:a1").expect("she is there");
    assert_eq!(found.user, "ann");
    let (text, json) = told(&found, None, 20);
    assert!(text.contains("anonymous:a1, which was merged into this user"), "{text}");
    assert!(
        text.contains("3 decisions"),
        "what was offered before is told too: {text}"
    );
    assert_eq!(json["led_over"][0], "anonymous:a1");
}

#[test]
fn who_or_what_is_not_there_is_told_with_what_to_do() {
    let error = find("eve").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("has no event of a user eve"), "{error}");
    for (asked, part) in [
        ("wellcome", "did you mean `welcome`?"),
        ("zzz", "it has welcome, keen, stalled"),
    ] {
        let error = rule_index(&journey(), asked).expect_err(asked).to_string();
        assert!(error.contains(part), "{error}");
    }
    for text in ["", "[", r#"{"reason":3}"#] {
        assert!(Decision::parse(text.to_owned(), None).is_err(), "{text}");
    }
}

/// Whoever meets an outcome in a metric or an explanation finds what it means.
#[test]
fn every_outcome_is_documented() {
    let page = include_str!("../../../docs/operations.md");
    for outcome in usher_domain::rules::RuleOutcome::ALL {
        let name = outcome.name();
        let rows = page.lines().filter(|line| line.starts_with(&format!("| `{name}`")));
        assert_eq!(rows.count(), 1, "{name}");
    }
    let link = "operations.md#nobody-is-offered-anything";
    assert!(include_str!("../../../docs/explain.md").contains(link));
    assert!(page.contains("## Nobody is offered anything"));
}

#[test]
fn a_time_that_passed_is_told_in_two_units_at_most() {
    for (ms, told) in [
        (320, "320ms"),
        (4_000, "4s"),
        (40_700, "40s"),
        (61_000, "1m 1s"),
        (3_600_000, "1h"),
        (3 * 3_600_000 + 125_000, "3h 2m"),
        (86_400_000, "1d"),
        (51 * 86_400_000 + 5 * 3_600_000 + 9_000, "51d 5h"),
    ] {
        assert_eq!(text::lateness_text(ms), told);
    }
}

#[test]
fn a_choice_is_told_with_its_candidates() {
    const CHOOSES: &str = "journey: chooses
features: { clicks: { count: click } }
steps: [{ id: done, on: done }]
slots:
  in_app:
    learner: linear_thompson
    context: { clicks: features.clicks }
    contents: { minutes: content.minutes }
contents:
  - { id: tour, attributes: { minutes: 3 } }
  - { id: demo, attributes: { minutes: 5 } }
  - { id: call, when: steps.done.done }
triggers:
  - { id: r, on: click, choose: all, slot: in_app }
";
    const CLICK: &str = r#"{"event_id":"1","event_type":"click","timestamp":"2026-01-05T10:00:00Z","user_id":"ann"}"#;
    let journey = Journey::parse(CHOOSES).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", CHOOSES)));
    let mut file = tempfile::NamedTempFile::new().expect("a place for files");
    file.write_all(CLICK.as_bytes()).expect("to a file");
    let found = events::find(file.path(), "ann", &journey, Snapshots::none()).expect("she is there");
    let told = Told {
        timeline: Timeline::of(&found.decisions, None, 20),
        journey: &journey,
        found: &found,
        explanation: explain(&journey, Snapshots::none(), &found.profile, "ann", found.now, None),
    };
    let text = text::render(&told);
    for part in [
        "    chosen by linear_thompson as if it had learned nothing (there was no model), where ",
        " was likely to 50.0%\n      clicks = 1\n",
        "      tour   50.0%  0.000 ± ",
        "  minutes = 3\n",
        "r: chooses from tour, demo, call in in_app on click\n",
        "    chooses by linear_thompson as if it had learned nothing (there was no model)\n      clicks = 1\n",
        "      call  is not eligible\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&json::render(&told)).expect("JSON");
    let choice = &json["rules"][0]["choice"];
    assert_eq!(
        (&choice["fallback"], &choice["context"]["clicks"]),
        (&"missing".into(), &1.into())
    );
    assert_eq!(choice["candidates"][2]["eligible"], false);
    assert_eq!(json["decisions"][0]["decision"]["choice"]["learner"], "linear_thompson");
}
