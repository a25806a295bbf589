//! The event that wakes a user's timers.

use serde::Serialize;
use usher_domain::event::{ANONYMOUS_PREFIX, TIMER_EVENT};
use usher_domain::hash::hash_bytes;
use usher_domain::time::Timestamp;

use crate::ports::{DueUser, StreamRecord};

/// Native JSON, version 1.
#[derive(Serialize)]
struct WakeUp<'u> {
    event_id: String,
    event_type: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'u str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous_id: Option<&'u str>,
}

/// The record that wakes a user. Its partition key is the user's, as that of the user's other events is, so that it comes
/// behind them. Its id follows from the user and the due time: whoever sends it, it is the same event.
pub fn wake_up(user: &DueUser, now: Timestamp) -> StreamRecord {
    let anonymous_id = user.user_id.strip_prefix(ANONYMOUS_PREFIX);
    let event = WakeUp {
        event_id: format!(
            "timer:{:016x}:{}",
            hash_bytes(user.user_id.as_bytes()),
            user.due_at.epoch_ms()
        ),
        event_type: TIMER_EVENT,
        timestamp: now.to_string(),
        user_id: anonymous_id.is_none().then_some(&user.user_id),
        anonymous_id,
    };
    StreamRecord {
        partition_key: user.user_id.clone(),
        // A struct of texts always serialises.
        data: serde_json::to_vec(&event).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use usher_domain::limits::EVENT_ID_BYTES_MAX;
    use usher_wire::event;

    use super::*;

    #[test]
    fn a_wake_up_is_an_event_of_its_user() {
        let now: Timestamp = "2026-01-05T10:00:00.123Z".parse().expect("a time");
        for user_id in ["u-1", "anonymous:a-1", "x\"\\\u{1f600}", &"é".repeat(128)] {
            let user = DueUser {
                user_id: user_id.to_owned(),
                due_at: Timestamp::MAX,
            };
            let record = wake_up(&user, now);
            let json: serde_json::Value = serde_json::from_slice(&record.data).expect("JSON");
            assert_eq!(event::user_of(&record.data).as_deref(), Some(user_id));
            assert_eq!(event::time_of(&record.data), Some(now));
            assert_eq!(
                (record.partition_key.as_str(), &json["event_type"]),
                (user_id, &TIMER_EVENT.into())
            );
            assert!(
                json["event_id"]
                    .as_str()
                    .is_some_and(|id| id.len() <= EVENT_ID_BYTES_MAX)
            );
            assert_eq!(wake_up(&user, now), record, "two sweepers send the same");
        }
    }
}
