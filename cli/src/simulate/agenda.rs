//! What the synthetic users do, and when: who signs up, comes back and looks at what, and who clicks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde_json::json;
use usher_domain::time::Timestamp;
use usher_pipeline::ports::StreamRecord;

use super::clock;
use super::world::{Person, World, chance};

/// How often a user comes, the first time included.
const VISITS_MIN: u32 = 1;
const VISITS_MAX: u32 = 2;
/// From a visit to the next, at most.
const PAUSE_MS_MAX: f64 = 10.0 * 60_000.0;
/// From one thing that a user looks at to the next, on average.
const LOOK_MS: f64 = 8_000.0;
/// From an offer to the click on it: at least, and at most.
const CLICK_MS_MIN: f64 = 1_000.0;
const CLICK_MS_MAX: f64 = 20_000.0;
const PREFIX: &str = "user-";

/// An event that is to come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Planned {
    at: Timestamp,
    user: u32,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    SignUp,
    /// Comes to where something is offered.
    Look {
        event_type: String,
        visit: u32,
    },
    Click {
        content: String,
        /// Of which decision it is the click.
        trigger_id: String,
    },
}

/// All that is to come, the earliest first.
#[derive(Debug, Default)]
pub struct Agenda {
    planned: BinaryHeap<Reverse<Planned>>,
    /// By user.
    people: Vec<Person>,
}

impl Agenda {
    /// The users of a world, who sign up evenly over this many minutes.
    pub fn new(world: &World, seed: u64, users: u32, minutes: f64) -> Agenda {
        let mut agenda = Agenda {
            planned: BinaryHeap::new(),
            people: (0..users).map(|user| world.person(seed, user)).collect(),
        };
        for user in 0..users {
            let random =
                |purpose: &str, ordinal: u32| chance(seed, &[purpose.as_bytes(), &ordinal.to_le_bytes()], user);
            let mut at_ms = random("sign_up", 0) * minutes * 60_000.0;
            agenda.add(at_ms, user, What::SignUp);
            let visits = VISITS_MIN + (random("visits", 0) * f64::from(VISITS_MAX - VISITS_MIN + 1)) as u32;
            for visit in 0..visits {
                if visit > 0 {
                    at_ms += random("pause", visit) * PAUSE_MS_MAX;
                }
                for (index, slot) in world.slots.values().enumerate() {
                    at_ms += (0.5 + random(&slot.on, visit * world.slots.len() as u32 + index as u32)) * LOOK_MS;
                    let event_type = slot.on.clone();
                    agenda.add(at_ms, user, What::Look { event_type, visit });
                }
            }
        }
        agenda
    }

    /// A user, by the id that events and decisions have.
    pub fn person(&self, user_id: &str) -> Option<(u32, &Person)> {
        let user: u32 = user_id.strip_prefix(PREFIX)?.parse().ok()?;
        Some((user, self.people.get(user as usize)?))
    }

    /// How many are to come.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// The user clicks on what was offered, some seconds after now.
    pub fn click(&mut self, seed: u64, user: u32, content: &str, trigger_id: &str, now: Timestamp) {
        let wait = chance(seed, &[b"wait", trigger_id.as_bytes()], user);
        let wait_ms = CLICK_MS_MIN + wait * (CLICK_MS_MAX - CLICK_MS_MIN);
        self.planned.push(Reverse(Planned {
            at: now.plus_ms(wait_ms as i64),
            user,
            what: What::Click {
                content: content.to_owned(),
                trigger_id: trigger_id.to_owned(),
            },
        }));
    }

    /// What is to come by now, as records in their order, and how late the latest of them is in milliseconds.
    pub fn take_until(&mut self, now: Timestamp) -> (Vec<StreamRecord>, i64) {
        let mut records = Vec::new();
        let mut late_ms = 0;
        while let Some(Reverse(next)) = self.planned.peek()
            && next.at <= now
        {
            late_ms = late_ms.max(now.ms_since(next.at));
            if let Some(Reverse(planned)) = self.planned.pop() {
                records.push(self.record(&planned));
            }
        }
        (records, late_ms)
    }

    fn add(&mut self, at_ms: f64, user: u32, what: What) {
        let at = clock::begin().plus_ms(at_ms as i64);
        self.planned.push(Reverse(Planned { at, user, what }));
    }

    fn record(&self, planned: &Planned) -> StreamRecord {
        let user_id = format!("{PREFIX}{:07}", planned.user);
        let timestamp = planned.at.to_string();
        let event = match &planned.what {
            What::SignUp => json!({
                "event_id": format!("s-{}", planned.user), "event_type": "identify", "timestamp": timestamp,
                "user_id": user_id, "traits": self.people.get(planned.user as usize).map(|person| &person.traits),
            }),
            What::Look { event_type, visit } => json!({
                "event_id": format!("{event_type}-{visit}-{}", planned.user), "event_type": event_type,
                "timestamp": timestamp, "user_id": user_id,
            }),
            What::Click { content, trigger_id } => json!({
                "event_id": format!("c-{trigger_id}"), "event_type": "click", "timestamp": timestamp,
                "user_id": user_id, "content_id": content,
            }),
        };
        StreamRecord {
            data: event.to_string().into_bytes(),
            partition_key: user_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::tests::small;
    use super::*;

    #[test]
    fn everybody_signs_up_and_looks_and_the_order_is_that_of_time() {
        let mut agenda = Agenda::new(&small(), 1, 500, 10.0);
        let planned = agenda.len();
        let (records, late_ms) = agenda.take_until(clock::begin().plus_ms(60 * 60_000));
        assert_eq!((records.len(), agenda.len()), (planned, 0));
        assert!((50 * 60_000..=60 * 60_000).contains(&late_ms), "{late_ms}");
        let events: Vec<serde_json::Value> = records
            .iter()
            .map(|record| serde_json::from_slice(&record.data).expect("JSON"))
            .collect();
        let of = |event_type: &str| events.iter().filter(|event| event["event_type"] == event_type).count();
        assert_eq!(of("identify"), 500);
        assert!((500..1_000).contains(&of("page_view")), "{}", of("page_view"));
        let times: Vec<Timestamp> = events
            .iter()
            .map(|event| {
                event["timestamp"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .expect("a time")
            })
            .collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn a_click_comes_some_seconds_after_the_offer() {
        let mut agenda = Agenda::new(&small(), 1, 1, 10.0);
        let now = clock::begin().plus_ms(60 * 60_000);
        agenda.take_until(now);
        assert_eq!(agenda.person("user-0000001"), None);
        let (user, _) = agenda.person("user-0000000").expect("it is there");
        agenda.click(1, user, "x", "0a", now);
        assert_eq!(agenda.take_until(now.plus_ms(999)).0, []);
        let (records, _) = agenda.take_until(now.plus_ms(20_001));
        let event: serde_json::Value = serde_json::from_slice(&records[0].data).expect("JSON");
        assert_eq!(
            (event["event_type"].as_str(), event["content_id"].as_str()),
            (Some("click"), Some("x"))
        );
    }
}
