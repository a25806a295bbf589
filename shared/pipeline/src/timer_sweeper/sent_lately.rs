//! Whom a sweeper woke lately: a profile-writer that is behind is not sent the same wake-ups with every pass.

use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;
use usher_domain::hash::hash_parts;

use crate::ports::DueUser;

/// A user who is still in the index after this time is woken again: the wake-up may be lost (P1).
pub(super) const SEND_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Wake-ups that are remembered: some 10 MB. No more are sent until some of them are forgotten, within a minute: a writer that
/// is so far behind would only get further behind by wake-ups that come again with every pass.
pub(super) const REMEMBERED_MAX: usize = 200_000;

/// The wake-ups of the last minute: a hash of user and due time, and when it was sent. Time is the container's own here, not
/// that of the schedule: this is about work, not about who is due.
#[derive(Debug, Default)]
pub(super) struct SentLately {
    sent_at: HashMap<u128, Instant>,
}

impl SentLately {
    /// Whether this user was sent a wake-up for this moment lately.
    pub(super) fn has(&self, user: &DueUser) -> bool {
        self.sent_at.contains_key(&key(user))
    }

    /// How many more wake-ups may be sent for now. Partitions that are read at once may each find the same room, so what is
    /// remembered may exceed the bound by a page for each of them.
    pub(super) fn room(&self) -> usize {
        REMEMBERED_MAX.saturating_sub(self.sent_at.len())
    }

    pub(super) fn add(&mut self, user: &DueUser, now: Instant) {
        self.sent_at.insert(key(user), now);
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.sent_at
            .retain(|_, sent_at| now.duration_since(*sent_at) < SEND_AGAIN_AFTER);
    }
}

fn key(user: &DueUser) -> u128 {
    hash_parts(&[user.user_id.as_bytes(), &user.due_at.epoch_ms().to_be_bytes()])
}
