//! A user from a file of events, folded as `usher replay` does.

use std::path::Path;

use anyhow::{Result, bail};
use usher_domain::journey::Journey;
use usher_domain::snapshots::Snapshots;
use usher_domain::trigger::Trigger;
use usher_wire::trigger;

use super::{Decision, Found, put_in_order};
use crate::arrival_clock::{data_arrival, wall_clock};
use crate::events_file::EventsFile;
use crate::fold::Fold;
use crate::people::counted;
use crate::progress::Progress;

/// Lines between two looks at the progress bar.
const LINES_PER_PROGRESS: u64 = 4096;

/// Folds the file, and takes what it says of the user.
///
/// # Errors
/// When it can't be read, or has no event of the user.
pub fn find(path: &Path, asked: &str, journey: &Journey, snapshots: &Snapshots) -> Result<Found> {
    let mut events = EventsFile::open(path)?;
    let progress = Progress::of_file(events.size(), events.bytes_read());
    let mut fold = Fold::by(journey, snapshots);
    let mut triggers = Vec::new();
    while let Some(line) = events.next_line()? {
        let arrived_at = data_arrival(line.bytes).unwrap_or_else(wall_clock);
        triggers.extend(fold.line(line.number, line.bytes, arrived_at));
        if fold.counts().lines.is_multiple_of(LINES_PER_PROGRESS) {
            progress.show(&counted(fold.counts().lines as usize, "event"));
        }
    }
    progress.clear();
    triggers.extend(fold.fire_due_timers());
    let user = fold.user_of(asked).to_owned();
    triggers.retain(|trigger| fold.user_of(&trigger.user) == user);
    let mut notes = Vec::new();
    let rejected = fold.counts().rejected_total();
    if rejected > 0 {
        notes.push(format!(
            "{} of the file can't be used; `usher replay` says why",
            counted(rejected as usize, "line")
        ));
    }
    let mut profiles = fold.into_profiles();
    // A line that can't be used tells no time, so it does not count.
    let end = profiles.values().map(|profile| profile.now).max().unwrap_or_default();
    let Some(profile) = profiles.remove(&user) else {
        bail!(
            "{} has no event of a user {asked} that the journey does not ignore; user ids are as the events have them, \
             anonymous ones behind `anonymous:`",
            path.display()
        );
    };
    // What came again after its id was forgotten decides the same again; consumers act once.
    triggers.sort_by_key(|trigger| trigger.id);
    triggers.dedup_by_key(|trigger| trigger.id);
    let told = |trigger: &Trigger| {
        let json = String::from_utf8_lossy(&trigger::to_json(trigger)).into_owned();
        Decision::parse(json, None)
    };
    let mut decisions = triggers.iter().map(told).collect::<Result<Vec<_>>>()?;
    put_in_order(&mut decisions);
    let led_over = (asked != user).then(|| asked.to_owned());
    Ok(Found {
        user,
        led_over: led_over.into_iter().collect(),
        profile,
        parked_since: None,
        decisions,
        notes,
        now: end,
    })
}
