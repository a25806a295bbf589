//! Tiles that a warm container remembers, so that writing them again needs no read (P4).

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use usher_domain::trends::tile::TrendTile;

/// Tiles remembered at most. A container has a few of the present minutes, and when it reads old data some hundreds; a full
/// one takes about 60 KB in memory.
const TILES_CACHED_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Which tile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TileKey {
    /// As the table names it.
    pub shard: String,
    /// Its number since 1970.
    pub minute: i64,
}

/// A tile as the table has it.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownTile {
    /// 0 where there is none.
    pub version: u64,
    pub tile: TrendTile,
}

/// The tiles last written. Others may have written since; the version condition of the next write finds out.
#[derive(Debug)]
pub(super) struct TileCache {
    tiles: Mutex<LruCache<TileKey, KnownTile>>,
}

impl Default for TileCache {
    fn default() -> TileCache {
        TileCache {
            tiles: Mutex::new(LruCache::new(TILES_CACHED_MAX)),
        }
    }
}

impl TileCache {
    /// Takes a tile out. Whoever takes it puts it back once it is known to be stored.
    pub fn take(&self, key: &TileKey) -> Option<KnownTile> {
        self.locked().pop(key)
    }

    /// Puts a tile in that is as the table has it.
    pub fn put(&self, key: TileKey, tile: KnownTile) {
        self.locked().put(key, tile);
    }

    fn locked(&self) -> MutexGuard<'_, LruCache<TileKey, KnownTile>> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.tiles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
