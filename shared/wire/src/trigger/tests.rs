use usher_domain::bandit::context::{Content, Context};
use usher_domain::offers::SeenByLearner;
use usher_domain::sequence_number::SequenceNumber;
use usher_domain::time::Timestamp;
use usher_domain::trigger::{Cause, ChosenFrom, Fallback, PassedOver, Reason, TriggerId};

use super::*;

fn seen(name: &str, json: &str) -> SeenValue {
    SeenValue {
        name: name.to_owned(),
        json: json.to_owned(),
    }
}

fn trigger() -> Trigger {
    Trigger {
        id: TriggerId(0x1234),
        user: "ann".to_owned(),
        rule: "stalled".to_owned(),
        slot: "email".to_owned(),
        offer: "tour".to_owned(),
        decided_at: Timestamp::from_epoch_ms(1_767_607_205_000),
        due_at: None,
        held_out: false,
        arms: Vec::new(),
        cause: Cause {
            event_id: "e-1".to_owned(),
            event_type: "sign_up".to_owned(),
            at: Timestamp::from_epoch_ms(1_767_607_200_000),
            shard_id: "shardId-000000000001".to_owned(),
            sequence_number: SequenceNumber::from_limbs([0, 0, 7]),
        },
        journey: "trial".to_owned(),
        journey_version: "0123456789abcdef".to_owned(),
        propensity: 1.0,
        choice: None,
        reason: Reason::default(),
    }
}

fn json(trigger: &Trigger) -> String {
    String::from_utf8(to_json(trigger)).expect("JSON")
}

/// What a journey doesn't use is not there, so its decisions are what they were before.
#[test]
fn a_decision_says_no_more_than_there_is() {
    assert_eq!(
        json(&trigger()),
        concat!(
            r#"{"kind":"decision","trigger_id":"00000000000000000000000000001234","user_id":"ann","rule":"stalled","#,
            r#""slot":"email","offer":"tour","propensity":1.0,"decided_at":"2026-01-05T10:00:05.000Z","#,
            r#""cause":{"event_id":"e-1","event_type":"sign_up","timestamp":"2026-01-05T10:00:00.000Z","#,
            r#""shard_id":"shardId-000000000001","sequence_number":"7"},"#,
            r#""journey":{"name":"trial","version":"0123456789abcdef"},"reason":{"saw":{}}}"#,
        )
    );
}

#[test]
fn a_decision_tells_when_it_was_due_who_is_held_out_and_what_else_looked() {
    let passed = |rule: &str, saw: Vec<SeenValue>| PassedOver {
        rule: rule.to_owned(),
        outcome: "condition_false".to_owned(),
        detail: "its condition does not hold".to_owned(),
        saw,
    };
    let trigger = Trigger {
        due_at: Some(Timestamp::from_epoch_ms(1_767_607_204_000)),
        held_out: true,
        arms: vec![("copy".to_owned(), "short".to_owned())],
        propensity: 1.0,
        choice: None,
        reason: Reason {
            condition: Some("unless steps.a.done".to_owned()),
            saw: vec![seen("steps.a.done", "false"), seen("broken", "{")],
            won_over: vec!["weaker".to_owned()],
            passed_over: vec![passed("one", vec![seen("features.n", "2")]), passed("two", Vec::new())],
        },
        ..trigger()
    };
    let text = json(&trigger);
    for part in [
        r#""decided_at":"2026-01-05T10:00:05.000Z","due_at":"2026-01-05T10:00:04.000Z","held_out":true,"arms":{"copy":"short"},"cause""#,
        r#""reason":{"condition":"unless steps.a.done","saw":{"broken":null,"steps.a.done":false},"won_over":["weaker"],"#,
        r#""passed_over":[{"rule":"one","outcome":"condition_false","detail":"its condition does not hold","saw":{"features.n":2}},"#,
        r#"{"rule":"two","outcome":"condition_false","detail":"its condition does not hold"}]}}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(TriggerRecord::parse(text.as_bytes()).expect("a decision").held_out);

    let details = DecisionDetails::parse(&text).expect("a decision");
    assert_eq!(details.due_at.as_deref(), Some("2026-01-05T10:00:04.000Z"));
    assert_eq!((details.held_out, details.arms["copy"].as_str()), (true, "short"));
    assert_eq!(details.reason.saw["steps.a.done"].get(), "false");
    assert_eq!(details.reason.passed_over[0].saw["features.n"].get(), "2");
    assert_eq!(details.reason.passed_over[1].outcome, "condition_false");
}

/// Anybody can judge another policy by it, or train a model: what was chosen from, how likely each was, and what was seen.
#[test]
fn a_decision_tells_how_it_was_chosen() {
    let candidate = |content: &str, probability: f64, features: Vec<SeenValue>| ChosenFrom {
        content: content.to_owned(),
        probability,
        mean: 0.1,
        spread: 0.02,
        features,
    };
    let mut choice = Choice {
        learner: "linear_thompson".to_owned(),
        fallback: None,
        seen: SeenByLearner {
            layout: 123,
            context: Context::from_units(vec![65536, 0]),
            content: Content::default(),
            model_version: Some(0xabc),
        },
        context: vec![seen("clicks", "3"), seen("plan", "\"team\"")],
        candidates: vec![
            candidate("tour", 0.42, vec![seen("kind", "\"video\"")]),
            candidate("demo", 0.5, Vec::new()),
        ],
        candidates_left_out: 0,
    };
    let text = |choice: &Choice| {
        json(&Trigger {
            propensity: 0.42,
            choice: Some(Box::new(choice.clone())),
            ..trigger()
        })
    };
    let with_model = text(&choice);
    let hash = format!("{:016x}", choice.seen.context.hash());
    let expected = [
        r#""propensity":0.42,"choice":{"learner":"linear_thompson","model_version":"0000000000000abc","context_hash":""#,
        &hash,
        r#"","layout":123,"context":{"clicks":3,"plan":"team"},"candidates":["#,
        r#"{"content":"tour","probability":0.42,"mean":0.1,"spread":0.02,"features":{"kind":"video"}},"#,
        r#"{"content":"demo","probability":0.5,"mean":0.1,"spread":0.02}]},"decided_at""#,
    ]
    .concat();
    assert!(with_model.contains(&expected), "{expected} is not in {with_model}");
    let details = DecisionDetails::parse(&with_model).expect("a decision");
    let read = details.choice.expect("a choice");
    assert_eq!((details.propensity, read.context_hash), (0.42, hash));
    assert_eq!(read.model_version.as_deref(), Some("0000000000000abc"));
    assert_eq!((read.context["clicks"].get(), read.candidates.len()), ("3", 2));
    assert_eq!(read.candidates[0].features["kind"].get(), "\"video\"");

    choice.seen.model_version = None;
    choice.fallback = Some(Fallback::Missing);
    choice.candidates_left_out = 7;
    let without = text(&choice);
    for part in [
        r#""model_version":null,"fallback":"missing","context_hash""#,
        r#""candidates_left_out":7}"#,
    ] {
        assert!(without.contains(part), "{part} is not in {without}");
    }
    let read = DecisionDetails::parse(&without)
        .expect("a decision")
        .choice
        .expect("a choice");
    assert_eq!(
        (read.fallback.as_deref(), read.candidates_left_out),
        (Some("missing"), 7)
    );
}

/// The decision log holds decisions of older versions for as long as its TTL.
#[test]
fn a_decision_of_an_older_version_is_read() {
    let text = json(&trigger());
    assert!(!TriggerRecord::parse(text.as_bytes()).expect("a decision").held_out);
    let details = DecisionDetails::parse(&text).expect("a decision");
    assert_eq!((details.due_at, details.held_out), (None, false));
    assert_eq!(details.journey.version, "0123456789abcdef");
    assert!(details.choice.is_none());
    assert_eq!(DecisionDetails::parse("{}").expect("a decision").propensity, 1.0);
    for text in ["{}", r#"{"kind":"decision","a member of the future":[1]}"#] {
        assert!(DecisionDetails::parse(text).is_ok(), "{text}");
    }
    for text in ["", "3", r#"{"held_out":3}"#, r#"{"reason":3}"#] {
        assert!(DecisionDetails::parse(text).is_err(), "{text}");
    }
}
