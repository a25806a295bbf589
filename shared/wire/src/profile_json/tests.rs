use usher_domain::event::{ArrivedEvent, Event, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::plan::plan_user;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::Snapshots;
use usher_domain::trigger::TriggerId;

use super::*;

/// 2026-01-05T10:00:00Z.
const START_MS: i64 = 1_767_607_200_000;

fn line_of(journey_text: &str, events: &[(&'static str, i64)]) -> String {
    let journey =
        Journey::parse(journey_text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", journey_text)));
    let shard = Shard {
        key: ShardKey(7),
        id: "shardId-000000000000".to_owned(),
    };
    let arrived = |(number, (event_type, minutes)): (usize, &(&'static str, i64))| {
        let at = Timestamp::from_epoch_ms(START_MS + minutes * 60_000);
        ArrivedEvent {
            event: Event {
                id: format!("e{number}").into(),
                id_hash: number as u64,
                event_type: (*event_type).into(),
                at,
                user: "ann".into(),
                traits: (*event_type == "identify").then_some(r#"{"plan":"team","unread":1}"#),
                ..Event::default()
            },
            arrived_at: at,
            shard: &shard,
            position: Position {
                sequence_number: (number as u64 + 1).into(),
                sub_sequence_number: 0,
            },
        }
    };
    let events: Vec<_> = events.iter().enumerate().map(arrived).collect();
    let profile = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &events).profile;
    to_json("ann", &profile, &journey, profile.now)
}

#[test]
fn a_profile_says_what_the_journey_asks_for_and_no_more() {
    let plain = "journey: j
contents: [{ id: tour }]
triggers: [{ id: welcome, on: sign_up, offer: tour, slot: side }]
";
    let head = r#"{"user_id":"ann","features":{},"steps":{},"sessions":{"count":1,"total_duration_ms":0,"latest":{"start":"2026-01-05T10:00:00.000Z","end":"2026-01-05T10:00:00.000Z","events":1}},"applied_events":1"#;
    assert_eq!(line_of(plain, &[("sign_up", 0)]), format!("{head}}}"));
    for (journey, events, tail) in [
        (
            plain.replace(
                "offer: tour",
                "when: traits.plan == \"x\" || traits.seats > 2, offer: tour",
            ),
            [("identify", 0)],
            r#","traits":{"plan":"team"}}"#,
        ),
        (
            plain.replace("offer: tour", "offer: tour, cooldown: 1h") + "entry: session.count >= 1\n",
            [("sign_up", 0)],
            concat!(
                r#","membership":{"is_in":true,"entered_at":"2026-01-05T10:00:00.000Z","left_at":null},"#,
                r#""rules":{"welcome":{"fired":1,"last_fired_at":"2026-01-05T10:00:00.000Z"}}}"#
            ),
        ),
        (
            plain.to_owned() + "policy: { cap: { offers: 3, within: 1d } }\n",
            [("sign_up", 0)],
            concat!(
                r#","rules":{"welcome":{"fired":1,"last_fired_at":"2026-01-05T10:00:00.000Z"}},"#,
                r#""offers":[{"at":"2026-01-05T10:00:00.000Z","rule":"welcome","offer":"tour"}]}"#
            ),
        ),
        (
            plain.replace("on: sign_up", "after: [2h, 1d], since: sign_up"),
            [("sign_up", 0)],
            concat!(
                r#","rules":{"welcome":{"fired":0,"last_fired_at":null,"timer":{"since":"2026-01-05T10:00:00.000Z","#,
                r#""done":0,"due_at":"2026-01-05T12:00:00.000Z"}}}}"#
            ),
        ),
        (
            plain.replace("on: sign_up", "enters: session.events >= 1"),
            [("sign_up", 0)],
            r#","rules":{"welcome":{"fired":1,"last_fired_at":"2026-01-05T10:00:00.000Z","holds":true}}}"#,
        ),
        (
            plain.to_owned() + "policy: { quiet_hours: { from: \"09:00\", to: \"11:30\" } }\n",
            [("sign_up", 0)],
            r#","rules":{"welcome":{"fired":0,"last_fired_at":null,"put_off":{"until":"2026-01-05T11:30:00.000Z","offer":"tour"}}}}"#,
        ),
        (
            plain.to_owned() + "outcomes: { within: 2h, reward: { click: 1 } }\n",
            [("sign_up", 0)],
            concat!(
                r#","open_offers":[{"trigger_id":"TRIGGER","rule":"welcome","offer":"tour","#,
                r#""since":"2026-01-05T10:00:00.000Z","until":"2026-01-05T12:00:00.000Z","rewards":[],"reward":0.0}]}"#
            ),
        ),
    ] {
        let trigger = TriggerId::of("ann", "welcome", "e0").to_string();
        let tail = tail.replace("TRIGGER", &trigger);
        assert_eq!(line_of(&journey, &events), format!("{head}{tail}"), "{journey}");
    }
}
