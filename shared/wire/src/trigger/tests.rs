use usher_domain::sequence_number::SequenceNumber;
use usher_domain::time::Timestamp;
use usher_domain::trigger::{Cause, PassedOver, Reason, TriggerId};

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

/// The decision log holds decisions of older versions for as long as its TTL.
#[test]
fn a_decision_of_an_older_version_is_read() {
    let text = json(&trigger());
    assert!(!TriggerRecord::parse(text.as_bytes()).expect("a decision").held_out);
    let details = DecisionDetails::parse(&text).expect("a decision");
    assert_eq!((details.due_at, details.held_out), (None, false));
    assert_eq!(details.journey.version, "0123456789abcdef");
    for text in ["{}", r#"{"kind":"decision","a member of the future":[1]}"#] {
        assert!(DecisionDetails::parse(text).is_ok(), "{text}");
    }
    for text in ["", "3", r#"{"held_out":3}"#, r#"{"reason":3}"#] {
        assert!(DecisionDetails::parse(text).is_err(), "{text}");
    }
}
