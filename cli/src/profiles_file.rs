//! Profiles as JSON lines: one writer for `usher local` and `usher replay`, so that what they write is the same, byte for
//! byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_domain::sessions::Session;
use usher_domain::time::Timestamp;
use usher_domain::value::Value;

/// The latest arrival that any of the profiles has seen: now, by the clock of the data. An event that was not applied has no
/// say in it.
pub fn latest_arrival(profiles: &BTreeMap<String, Profile>) -> Timestamp {
    profiles.values().map(|profile| profile.now).max().unwrap_or_default()
}

/// Writes one line a profile, sorted by user, the features as of `now`.
///
/// # Errors
/// When the file can't be written.
pub fn write_file(path: &Path, profiles: &BTreeMap<String, Profile>, journey: &Journey, now: Timestamp) -> Result<()> {
    let unwritable = || format!("cannot write the profiles to {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(unwritable)?);
    write(&mut file, profiles, journey, now)
        .and_then(|()| file.flush())
        .with_context(unwritable)
}

fn write(
    out: &mut impl Write,
    profiles: &BTreeMap<String, Profile>,
    journey: &Journey,
    now: Timestamp,
) -> io::Result<()> {
    for (user, profile) in profiles {
        serde_json::to_writer(&mut *out, &ProfileLine::of(user, profile, journey, now))?;
        out.write_all(b"\n")?;
    }
    Ok(())
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

/// An object whose members keep their order: the journey's.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::Fold;

    #[test]
    fn a_profile_is_one_line_with_times_that_people_can_read() {
        let journey = Journey::parse(
            "journey: j
steps: [{ id: joined, on: sign_up }, { id: clicked, on: click }]
features:
  first: { first_seen: any }
  pages: { count: page_view, within: 10m }
  time: { sum: properties.ms, on: page_view }
  recent: { recent: category, on: page_view }
  last: { last: category, on: click }
",
        )
        .expect("it is fine");
        let mut fold = Fold::new(&journey);
        for (number, (user, id, event_type, second)) in [
            ("b", "1", "sign_up", 0),
            ("b", "2", "page_view", 1),
            ("a", "3", "page_view", 2),
        ]
        .into_iter()
        .enumerate()
        {
            let at = format!("2026-01-05T10:00:0{second}Z");
            let line = format!(
                r#"{{"event_id":"{id}","event_type":"{event_type}","timestamp":"{at}","user_id":"{user}","category":"c\"","properties":{{"ms":1500}}}}"#
            );
            fold.line(number as u64 + 1, line.as_bytes(), at.parse().expect("a time"));
        }
        let profiles = fold.into_profiles();
        let now = latest_arrival(&profiles);
        assert_eq!(now.to_string(), "2026-01-05T10:00:02.000Z");
        let mut lines = Vec::new();
        write(&mut lines, &profiles, &journey, now).expect("to memory");
        let expected = r#"{"user_id":"a","features":{"first":"2026-01-05T10:00:02.000Z","pages":1,"time":1500.0,"recent":["c\""],"last":null},"steps":{"joined":{"done":false,"at":null},"clicked":{"done":false,"at":null}},"sessions":{"count":1,"total_duration_ms":0,"latest":{"start":"2026-01-05T10:00:02.000Z","end":"2026-01-05T10:00:02.000Z","events":1}},"applied_events":1}
{"user_id":"b","features":{"first":"2026-01-05T10:00:00.000Z","pages":1,"time":1500.0,"recent":["c\""],"last":null},"steps":{"joined":{"done":true,"at":"2026-01-05T10:00:00.000Z"},"clicked":{"done":false,"at":null}},"sessions":{"count":1,"total_duration_ms":1000,"latest":{"start":"2026-01-05T10:00:00.000Z","end":"2026-01-05T10:00:01.000Z","events":2}},"applied_events":2}
"#;
        assert_eq!(String::from_utf8(lines).expect("UTF-8"), expected);
        // As of an hour later the window is empty, although no event came (P12).
        assert_eq!(feature_json(&profiles["a"], &journey, 1, now.plus_ms(3_600_000)), "0");
    }
}
