//! Profiles as JSON lines: one writer for `usher local` and `usher replay`, so that what they write is the same, byte for
//! byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_domain::time::Timestamp;
use usher_wire::profile_json;

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
        writeln!(out, "{}", profile_json::to_json(user, profile, journey, now))?;
    }
    Ok(())
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
        assert_eq!(
            profile_json::feature_json(&profiles["a"], &journey, 1, now.plus_ms(3_600_000)),
            "0"
        );
    }
}
