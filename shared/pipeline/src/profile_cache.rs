//! Profiles that a warm container remembers, so that writing them again needs no read (P4).

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use usher_domain::profile::Profile;

/// Profiles remembered at most: at about 3 KB each in memory, 30 MB.
const PROFILES_CACHED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// The profiles last written. Others may have written since; the version condition of the next write finds out.
#[derive(Debug)]
pub(crate) struct ProfileCache {
    profiles: Mutex<LruCache<String, Profile>>,
}

impl ProfileCache {
    pub(crate) fn new() -> ProfileCache {
        ProfileCache {
            profiles: Mutex::new(LruCache::new(PROFILES_CACHED_MAX)),
        }
    }

    /// Takes a profile out. Whoever takes it puts it back once it is known to be stored: if that never happens, the
    /// next batch reads the table.
    pub(crate) fn take(&self, user: &str) -> Option<Profile> {
        // A panic while the lock was held can't have left a profile half changed: they go in and out whole.
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner).pop(user)
    }

    /// Puts a profile in that is as the table has it, or whose outbox alone is shorter because it was sent.
    pub(crate) fn put(&self, user: &str, profile: Profile) {
        self.profiles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(user.to_owned(), profile);
    }
}
