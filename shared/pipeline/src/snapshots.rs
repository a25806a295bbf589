//! What was learned from all users, kept fresh beside the batches.
//!
//! As with a changed journey ([`crate::journey_source`]), a batch decides with what is at hand, and starts the look whose
//! answer a later batch takes: Lambda freezes a function between invocations, so there is no other time to look in. A batch
//! waits in two cases only, at most for [`WAIT`] and no second time for the same look: a container's first, which has nothing yet, and one after a pause, when
//! what is at hand is older than [`AGE_MAX`]. If there is no answer by then, it decides with what there is.
//!
//! A model that is not stored is one that has learned nothing. One that can't be read is told as such; one that could not be
//! read again, because the table doesn't answer, goes on as it was for [`BELIEVED`]. What decisions need of a model is computed
//! off the batch's thread, and only when it has changed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use usher_domain::bandit::snapshot::ModelSnapshot;
use usher_domain::hash::hash_bytes;
use usher_domain::journey::Journey;
use usher_domain::snapshots::{Models, SlotModel, Snapshots};
use usher_domain::time::Timestamp;
use usher_domain::trends::Trends;

use crate::models::{FoundModel, head_key, read_items, whole_model};
use crate::ports::{ModelKey, ModelTable, ReadOf, TrendTable};
use crate::retry::{Failure, chain};
use crate::trend_reader::TrendReader;

/// How long a batch waits for what is not at hand, or too old. A look takes some 10 milliseconds in a region; the first one
/// connects, too.
pub const WAIT: Duration = Duration::from_millis(500);
/// How old what is at hand may be before a batch waits for a look.
pub const AGE_MAX: Duration = Duration::from_secs(10);
/// How old a model may be that could not be read again before it counts as unreadable.
pub const BELIEVED: Duration = Duration::from_secs(600);
/// One look at the models takes no longer than this.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What the keeper does between invocations' looks.
#[derive(Debug)]
struct Memory {
    trend_reader: TrendReader,
    /// The model of each slot as it was last read, by the hash of its head.
    models: HashMap<String, Read>,
}

#[derive(Clone, Debug)]
struct Read {
    head: u64,
    model: SlotModel,
}

/// A look under way: what it needs is in it, so that nothing else holds it.
type LookUnderWay = Pin<Box<dyn Future<Output = Look> + Send>>;

/// What a look found.
#[derive(Debug)]
struct Look {
    began_at: Instant,
    memory: Memory,
    /// The models by slot, or why they could not be read.
    models: Result<Models, Failure>,
    trends: Result<Arc<Trends>, Failure>,
    read_units: f64,
    models_unreadable: u64,
    tiles_unreadable: u64,
}

/// The tables that snapshots come from.
trait Tables: fmt::Debug + Send + Sync {
    fn look(self: Arc<Self>, journey: Arc<Journey>, memory: Memory, now: Timestamp) -> LookUnderWay;
}

/// The `models` and `trends` tables.
#[derive(Debug)]
struct TwoTables<M, T> {
    models: M,
    trends: T,
}

/// Where snapshots come from and how often they are refreshed. A clone is the same.
#[derive(Clone, Debug)]
pub struct SnapshotSource {
    tables: Arc<dyn Tables>,
    refresh_interval: Duration,
    patience: Patience,
}

/// How long things may take. A test has less.
#[derive(Clone, Copy, Debug)]
struct Patience {
    wait: Duration,
    age_max: Duration,
    believed: Duration,
}

impl SnapshotSource {
    /// Of these tables, looked at at most once in `refresh_interval`.
    pub fn new<M, T>(models: M, trends: T, refresh_interval: Duration) -> SnapshotSource
    where
        M: ModelTable + fmt::Debug + 'static,
        T: TrendTable + fmt::Debug + 'static,
    {
        SnapshotSource {
            tables: Arc::new(TwoTables { models, trends }),
            refresh_interval,
            patience: Patience {
                wait: WAIT,
                age_max: AGE_MAX,
                believed: BELIEVED,
            },
        }
    }

    /// What keeps those that a journey needs; none where it needs none.
    pub fn keeper(&self, journey: &Arc<Journey>) -> Option<SnapshotKeeper> {
        let needs_any = wanted(journey).next().is_some() || !journey.trends.is_empty();
        needs_any.then(|| SnapshotKeeper {
            source: self.clone(),
            journey: Arc::clone(journey),
            kept: Mutex::default(),
        })
    }
}

/// What is new about the snapshots that a batch decides with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SnapshotNews {
    /// How long ago they were read, in milliseconds; 0 where there are none.
    pub age_ms: u64,
    /// There are none yet: the batch decides as if nothing were known of others.
    pub missing: u64,
    /// Looks that failed in part or altogether since the last batch.
    pub refresh_failed: u64,
    /// Slots whose model can't be read.
    pub models_unreadable: u64,
    /// Tiles of trends that can't be read, of the last look.
    pub tiles_unreadable: u64,
    /// Read capacity units of the looks since the last batch.
    pub read_units: f64,
}

/// Keeps the snapshots that one journey needs.
#[derive(Debug)]
pub struct SnapshotKeeper {
    source: SnapshotSource,
    journey: Arc<Journey>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    snapshots: Snapshots,
    /// When the look began that gave them.
    read_at: Option<Instant>,
    models_read_at: Option<Instant>,
    models_unreadable: u64,
    tiles_unreadable: u64,
    /// When the last look began.
    looked_at: Option<Instant>,
    under_way: Option<oneshot::Receiver<Look>>,
    /// Whether a batch has waited for that one: no other does.
    has_waited: bool,
    memory: Option<Memory>,
}

impl SnapshotKeeper {
    /// What a batch decides with, as of `now`, the time by which the stream's records arrive.
    pub async fn for_batch(&self, now: Timestamp) -> (Snapshots, SnapshotNews) {
        let mut news = SnapshotNews::default();
        let mut under_way = self.locked().under_way.take();
        if let Some(answer) = under_way.as_mut().map(oneshot::Receiver::try_recv) {
            match answer {
                Ok(look) => {
                    under_way = None;
                    self.take(look, &mut news);
                }
                Err(oneshot::error::TryRecvError::Closed) => {
                    under_way = None;
                    news.refresh_failed += 1;
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
        if under_way.is_none() && self.is_due() {
            under_way = Some(self.look(now));
        }
        if self.is_too_old()
            && let Some(mut waited_for) = under_way.take()
        {
            self.locked().has_waited = true;
            match tokio::time::timeout(self.source.patience.wait, &mut waited_for).await {
                Ok(Ok(look)) => self.take(look, &mut news),
                Ok(Err(_)) => news.refresh_failed += 1,
                Err(_) => under_way = Some(waited_for),
            }
        }
        let mut kept = self.locked();
        kept.under_way = under_way;
        let age = kept.read_at.map(|at| at.elapsed());
        news.age_ms = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        news.missing = u64::from(age.is_none());
        if kept
            .models_read_at
            .is_some_and(|at| at.elapsed() > self.source.patience.believed)
        {
            kept.snapshots.models = Arc::new(self.unreadable_models());
            kept.models_unreadable = self.wanted().count() as u64;
        }
        news.models_unreadable = kept.models_unreadable;
        news.tiles_unreadable = kept.tiles_unreadable;
        (kept.snapshots.clone(), news)
    }

    fn is_due(&self) -> bool {
        let looked_at = self.locked().looked_at;
        looked_at.is_none_or(|at| at.elapsed() >= self.source.refresh_interval)
    }

    /// Whether a batch is to wait for a look.
    fn is_too_old(&self) -> bool {
        // Where they are refreshed less often than that, they may be that old.
        let age_max = self.source.patience.age_max.max(self.source.refresh_interval * 2);
        let kept = self.locked();
        !kept.has_waited && kept.read_at.is_none_or(|at| at.elapsed() > age_max)
    }

    /// Starts a look beside the batch.
    fn look(&self, now: Timestamp) -> oneshot::Receiver<Look> {
        let (answer, under_way) = oneshot::channel();
        let memory = {
            let mut kept = self.locked();
            kept.looked_at = Some(Instant::now());
            kept.has_waited = false;
            kept.memory.take()
        };
        // One that broke off took its memory along: then everything is read anew.
        let memory = memory.unwrap_or_else(|| Memory {
            trend_reader: TrendReader::for_trends(&self.journey.trends),
            models: HashMap::new(),
        });
        let look = Arc::clone(&self.source.tables).look(Arc::clone(&self.journey), memory, now);
        tokio::spawn(async move {
            // Without a listener the function has ended, or another journey runs.
            let _ = answer.send(look.await);
        });
        under_way
    }

    fn take(&self, look: Look, news: &mut SnapshotNews) {
        let mut kept = self.locked();
        news.read_units += look.read_units;
        let mut failures = Vec::new();
        match look.trends {
            Ok(trends) => kept.snapshots.trends = trends,
            Err(failure) => failures.push(("trends", failure)),
        }
        match look.models {
            Ok(models) => {
                kept.snapshots.models = Arc::new(models);
                kept.models_read_at = Some(look.began_at);
                kept.models_unreadable = look.models_unreadable;
            }
            Err(failure) => failures.push(("models", failure)),
        }
        kept.tiles_unreadable = look.tiles_unreadable;
        kept.memory = Some(look.memory);
        if failures.is_empty() {
            kept.read_at = Some(look.began_at);
            return;
        }
        news.refresh_failed += 1;
        for (what, failure) in failures {
            tracing::warn!(
                what,
                error = chain(&failure),
                "what was learned can't be read again, what is known goes on"
            );
        }
    }

    /// The slots whose model is needed, as indexes of the journey's learners.
    fn wanted(&self) -> impl Iterator<Item = usize> {
        wanted(&self.journey)
    }

    fn unreadable_models(&self) -> Models {
        let slots = self.wanted().map(|slot| self.journey.learners[slot].slot.clone());
        Models::new(slots.map(|slot| (slot, SlotModel::Unreadable)))
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted(journey: &Journey) -> impl Iterator<Item = usize> {
    let is_used = |slot: &usize| journey.rules.iter().any(|rule| rule.learner == Some(*slot));
    let learns = |slot: &usize| journey.learners[*slot].learner.learns();
    (0..journey.learners.len()).filter(is_used).filter(learns)
}

impl<M, T> Tables for TwoTables<M, T>
where
    M: ModelTable + fmt::Debug + 'static,
    T: TrendTable + fmt::Debug + 'static,
{
    fn look(self: Arc<Self>, journey: Arc<Journey>, memory: Memory, now: Timestamp) -> LookUnderWay {
        Box::pin(async move {
            let began_at = Instant::now();
            let Memory {
                mut trend_reader,
                mut models,
            } = memory;
            let mut read = ModelsRead::default();
            let (found_models, found_trends) = tokio::join!(
                read_models(&self.models, &journey, &mut models, &mut read),
                trend_reader.refresh(&self.trends, now)
            );
            let mut look = Look {
                began_at,
                memory: Memory { trend_reader, models },
                models: found_models,
                trends: Ok(Arc::default()),
                read_units: read.read_units,
                models_unreadable: read.unreadable,
                tiles_unreadable: 0,
            };
            look.trends = found_trends.map(|refreshed| {
                look.read_units += refreshed.read_units;
                look.tiles_unreadable = refreshed.unreadable;
                refreshed.trends
            });
            look
        })
    }
}

#[derive(Debug, Default)]
struct ModelsRead {
    read_units: f64,
    unreadable: u64,
}

/// Reads the models of the journey's slots. What is known already by its head is not computed again.
async fn read_models<M: ModelTable>(
    table: &M,
    journey: &Arc<Journey>,
    known: &mut HashMap<String, Read>,
    read: &mut ModelsRead,
) -> Result<Models, Failure> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    let keys: Vec<(usize, ModelKey)> = wanted(journey)
        .map(|slot| {
            let learner = &journey.learners[slot];
            (slot, head_key(&learner.slot, learner.layout.fingerprint()))
        })
        .collect();
    let asked = keys.iter().map(|(_, key)| key.clone()).collect();
    let mut found = read_items(table, asked, ReadOf::Recent, deadline).await?;
    read.read_units += found.read_units;
    let mut models = Vec::with_capacity(keys.len());
    for (slot, key) in keys {
        let name = journey.learners[slot].slot.clone();
        let model = match found.unreadable.remove(&key) {
            Some(why) => FoundModel::Unreadable(why),
            None => {
                let item = found.items.remove(&key);
                let head = item.as_ref().map(|item| hash_bytes(&item.state));
                if let Some(same) = known.get(&name).filter(|known| Some(known.head) == head) {
                    models.push((name, same.model.clone()));
                    continue;
                }
                let whole = whole_model(table, item, ReadOf::Recent, deadline, &mut read.read_units).await?;
                if let (FoundModel::Ready(model), Some(head)) = (&whole, head) {
                    let model = computed(journey, slot, model.state.clone()).await;
                    let read = Read {
                        head,
                        model: model.clone(),
                    };
                    known.insert(name.clone(), read);
                    models.push((name, model));
                    continue;
                }
                whole
            }
        };
        known.remove(&name);
        if let FoundModel::Unreadable(why) = model {
            tracing::error!(
                slot = name,
                why,
                "the slot's model can't be read, so its learner decides as if it knew nothing; run `usher models reset` or `import`"
            );
            models.push((name, SlotModel::Unreadable));
        }
    }
    let is_unreadable = |(_, model): &&(String, SlotModel)| matches!(model, SlotModel::Unreadable);
    read.unreadable = models.iter().filter(is_unreadable).count() as u64;
    Ok(Models::new(models))
}

/// What decisions need of a model: milliseconds of work for many contents, in which a batch would stand still.
async fn computed(journey: &Arc<Journey>, slot: usize, state: usher_domain::bandit::state::SlotState) -> SlotModel {
    let journey = Arc::clone(journey);
    let computed = tokio::task::spawn_blocking(move || {
        let learner = &journey.learners[slot];
        ModelSnapshot::new(&state, &learner.layout, &learner.learner)
    });
    match computed.await {
        Ok(model) => SlotModel::Ready(Arc::new(model)),
        Err(broken) => {
            tracing::error!(error = chain(&broken), "computing a model broke off");
            SlotModel::Unreadable
        }
    }
}

#[cfg(test)]
mod tests;
