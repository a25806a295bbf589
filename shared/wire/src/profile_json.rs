//! A profile as JSON for people and tools: what `usher replay --profiles` writes, one line a profile.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_domain::sessions::Session;
use usher_domain::time::Timestamp;
use usher_domain::value::Value;

/// The profile as one line of JSON without its end, the features as of `now` (P12). Members are in the journey's order,
/// so the same profile is the same line, byte for byte.
pub fn to_json(user: &str, profile: &Profile, journey: &Journey, now: Timestamp) -> String {
    // Text, numbers and raw JSON that was checked: there is nothing in it that can't be written.
    serde_json::to_string(&ProfileLine::of(user, profile, journey, now)).unwrap_or_default()
}

/// A feature's value as JSON, as of `now`; points in time as RFC 3339.
pub fn feature_json(profile: &Profile, journey: &Journey, index: usize, now: Timestamp) -> String {
    match profile.feature(journey, index, now) {
        Value::Int(ms) if journey.features[index].computation.is_time() => {
            format!("\"{}\"", Timestamp::from_epoch_ms(ms))
        }
        value => value.to_string(),
    }
}

#[derive(Serialize)]
struct ProfileLine<'p> {
    user_id: &'p str,
    features: Members<'p, Box<RawValue>>,
    steps: Members<'p, StepLine>,
    sessions: SessionsLine,
    applied_events: u64,
}

#[derive(Serialize)]
struct StepLine {
    done: bool,
    at: Option<String>,
}

#[derive(Serialize)]
struct SessionsLine {
    count: u64,
    total_duration_ms: i64,
    latest: Option<SessionLine>,
}

#[derive(Serialize)]
struct SessionLine {
    start: String,
    end: String,
    events: u64,
}

/// An object whose members keep their order.
struct Members<'p, V>(Vec<(&'p str, V)>);

impl<V: Serialize> Serialize for Members<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'p> ProfileLine<'p> {
    fn of(user: &'p str, profile: &'p Profile, journey: &'p Journey, now: Timestamp) -> ProfileLine<'p> {
        let features = journey.features.iter().enumerate().map(|(index, feature)| {
            let json = RawValue::from_string(feature_json(profile, journey, index, now));
            (
                feature.name.as_str(),
                json.unwrap_or_else(|_| RawValue::NULL.to_owned()),
            )
        });
        let steps = journey.steps.iter().zip(&profile.steps).map(|(step, done_at)| {
            let line = StepLine {
                done: done_at.is_some(),
                at: done_at.map(|at| at.to_string()),
            };
            (step.id.as_str(), line)
        });
        let session = |session: &Session| SessionLine {
            start: session.start.to_string(),
            end: session.end.to_string(),
            events: session.events,
        };
        ProfileLine {
            user_id: user,
            features: Members(features.collect()),
            steps: Members(steps.collect()),
            sessions: SessionsLine {
                count: profile.sessions.count(),
                total_duration_ms: profile.sessions.total_duration_ms(),
                latest: profile.sessions.latest().map(session),
            },
            applied_events: profile.applied_events,
        }
    }
}
