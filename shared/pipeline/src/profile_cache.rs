//! Profiles that a warm container remembers, so that writing them again needs no read (P4).

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use usher_domain::profile::Profile;

/// Profiles remembered at most: at about 3 KB each in memory, 30 MB.
const PROFILES_CACHED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Bytes that the remembered profiles may take in the table, all together: 32 MiB. In memory they take a small multiple.
/// Where profiles are large (4,096 event ids are 32 KB), fewer of them are remembered, so a function keeps within its
/// memory whatever the journey says (P10).
const CACHED_STATE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The profiles last written. Others may have written since; the version condition of the next write finds out.
#[derive(Debug)]
pub(crate) struct ProfileCache {
    cached: Mutex<Cached>,
    state_bytes_max: usize,
}

#[derive(Debug)]
struct Cached {
    /// What is remembered of each key.
    entries: LruCache<String, Remembered>,
    /// The sum of their bytes.
    state_bytes: usize,
}

/// What is remembered of a key.
#[derive(Debug)]
pub(crate) enum Remembered {
    /// Its profile, and the bytes that this takes in the table.
    Profile(Box<Profile>, usize),
    /// The user that it turned out to be. A pointer never changes.
    Pointer(String),
}

impl Remembered {
    fn state_bytes(&self) -> usize {
        match self {
            Remembered::Profile(_, state_bytes) => *state_bytes,
            Remembered::Pointer(user) => user.len(),
        }
    }
}

impl ProfileCache {
    pub(crate) fn new() -> ProfileCache {
        ProfileCache::with_room_for(CACHED_STATE_BYTES_MAX)
    }

    fn with_room_for(state_bytes_max: usize) -> ProfileCache {
        ProfileCache {
            cached: Mutex::new(Cached {
                entries: LruCache::new(PROFILES_CACHED_MAX),
                state_bytes: 0,
            }),
            state_bytes_max,
        }
    }

    /// Takes a profile out; a pointer stays. Whoever takes it puts it back once it is known to be stored: if that never
    /// happens, the next batch reads the table.
    pub(crate) fn take(&self, key: &str) -> Option<Remembered> {
        let mut cached = self.locked();
        if let Remembered::Pointer(user) = cached.entries.get(key)? {
            return Some(Remembered::Pointer(user.clone()));
        }
        let taken = cached.entries.pop(key);
        cached.state_bytes -= taken.as_ref().map_or(0, Remembered::state_bytes);
        taken
    }

    /// Puts a profile in that is as the table has it, or whose outbox alone is shorter because it was sent.
    pub(crate) fn put(&self, user: &str, profile: Profile, state_bytes: usize) {
        self.remember(user, Remembered::Profile(Box::new(profile), state_bytes));
    }

    /// Remembers that events for `key` go to `user`, as the table has it.
    pub(crate) fn put_pointer(&self, key: &str, user: &str) {
        self.remember(key, Remembered::Pointer(user.to_owned()));
    }

    fn remember(&self, key: &str, remembered: Remembered) {
        let mut cached = self.locked();
        cached.state_bytes += remembered.state_bytes();
        // What comes out is the same key's former entry, or the one that was used least recently.
        if let Some((_, left)) = cached.entries.push(key.to_owned(), remembered) {
            cached.state_bytes -= left.state_bytes();
        }
        while cached.state_bytes > self.state_bytes_max
            && let Some((_, left)) = cached.entries.pop_lru()
        {
            cached.state_bytes -= left.state_bytes();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Cached> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use usher_domain::journey::Journey;

    use super::*;

    #[test]
    fn p10_as_many_profiles_are_remembered_as_there_is_room_for() {
        let journey = Journey::parse("journey: t").expect("a journey");
        let cache = ProfileCache::with_room_for(100);
        let versions = |users: [&str; 4]| {
            users.map(|user| {
                let Remembered::Profile(profile, state_bytes) = cache.take(user)? else {
                    return None;
                };
                let version = profile.version;
                cache.put(user, *profile, state_bytes);
                Some(version)
            })
        };
        for (version, (user, state_bytes, expected)) in [
            ("a", 40, [Some(0), None, None, None]),
            ("b", 40, [Some(0), Some(1), None, None]),
            ("a", 60, [Some(2), Some(1), None, None]),
            ("c", 1, [None, Some(1), Some(3), None]), // `versions` looked at b last
            ("d", 99, [None, None, Some(3), Some(4)]),
            ("a", 101, [None, None, None, None]), // too large by itself
        ]
        .into_iter()
        .enumerate()
        {
            let mut profile = Profile::new(&journey);
            profile.version = version as u64;
            cache.put(user, profile, state_bytes);
            assert_eq!(versions(["a", "b", "c", "d"]), expected, "{user}");
        }
        assert_eq!(cache.locked().state_bytes, 0);
    }

    #[test]
    fn a_pointer_stays_where_a_profile_is_taken_out() {
        let journey = Journey::parse("journey: t").expect("a journey");
        let cache = ProfileCache::with_room_for(100);
        cache.put("ann", Profile::new(&journey), 10);
        cache.put("anonymous:x", Profile::new(&journey), 10);
        cache.put_pointer("anonymous:x", "ann");
        for _ in 0..2 {
            assert!(matches!(cache.take("anonymous:x"), Some(Remembered::Pointer(user)) if user == "ann"));
        }
        assert!(matches!(cache.take("ann"), Some(Remembered::Profile(_, 10))));
        assert!(cache.take("ann").is_none());
        assert_eq!(cache.locked().state_bytes, "ann".len());
    }
}
