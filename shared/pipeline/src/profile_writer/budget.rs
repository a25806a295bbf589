//! How the time of an invocation is divided.

use std::time::Duration;

use tokio::time::Instant;

/// Parts of the time left, in percent, after which each stage has to be through.
const READ_PERCENT: u32 = 35;
const WRITE_PERCENT: u32 = 65;
const TRIGGERS_PERCENT: u32 = 85;
const PARKING_PERCENT: u32 = 91;
const MARKS_PERCENT: u32 = 95;

/// When each stage has to be through. A stage that hangs leaves time to the ones after it: what was written is put on
/// the streams although one user's call never answers (P6).
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Reading profiles.
    pub read: Instant,
    /// Writing profiles.
    pub write: Instant,
    /// Putting triggers.
    pub triggers: Instant,
    /// Putting parked events.
    pub parking: Instant,
    /// Marking their users.
    pub marks: Instant,
    /// Putting rejects: all the time that there is.
    pub rejects: Instant,
}

impl Budget {
    /// Divides the time until the invocation's deadline.
    pub fn until(deadline: Instant) -> Budget {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let after = |percent: u32| now + part(left, percent);
        Budget {
            read: after(READ_PERCENT),
            write: after(WRITE_PERCENT),
            triggers: after(TRIGGERS_PERCENT),
            parking: after(PARKING_PERCENT),
            marks: after(MARKS_PERCENT),
            rejects: deadline,
        }
    }
}

fn part(time: Duration, percent: u32) -> Duration {
    time / 100 * percent
}
