//! Faults on purpose: what goes wrong, how often, and by which seed, so that a run that failed can be run again.
//!
//! Every place where something can go wrong asks [`Faults::strike`] at each opportunity. Whether the n-th opportunity of a
//! kind at a place is struck follows from the seed alone, so the same seed strikes the same opportunities, as far as the
//! scheduling of real processes gives the same ones.

pub(crate) mod answer;
pub(crate) mod dynamodb;
pub(crate) mod kinesis;
mod spec;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use spec::{FaultSpec, FaultSpecError};

/// Default rates, in strikes of a thousand opportunities. They are such that in a run of some thousand events every kind
/// strikes, and that a batch comes nowhere near its 20 retries: an invocation fails by fault in one of twelve cases.
mod rates {
    pub const KILL_PER_MILLE: u32 = 50;
    pub const TIMEOUT_PER_MILLE: u32 = 30;
    /// Of a batch's calls, one in 50 each; the functions retry a call within the invocation.
    pub const DYNAMODB_THROTTLE_PER_MILLE: u32 = 20;
    /// Reads come once a batch, so they are struck more often than writes.
    pub const DYNAMODB_PARTIAL_READ_PER_MILLE: u32 = 200;
    /// An answer that never comes holds its call up for seconds.
    pub const DYNAMODB_LOST_ANSWER_PER_MILLE: u32 = 5;
    pub const DYNAMODB_CONFLICT_PER_MILLE: u32 = 20;
    pub const KINESIS_THROTTLE_PER_MILLE: u32 = 50;
    pub const KINESIS_PARTIAL_PUT_PER_MILLE: u32 = 100;
    pub const KINESIS_LOST_ANSWER_PER_MILLE: u32 = 30;
    pub const DUPLICATE_DELIVERY_PER_MILLE: u32 = 50;
    pub const OVERLAPPING_BATCH_PER_MILLE: u32 = 50;
    pub const CONCURRENT_DELIVERY_PER_MILLE: u32 = 50;
    pub const STALE_CONTAINER_PER_MILLE: u32 = 100;
    /// Of the looks that are taken several times a second.
    pub const RESHARD_PER_MILLE: u32 = 200;
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// A function's process is killed (SIGKILL) in the middle of an invocation.
    Kill,
    /// A function's answer never comes: the invocation ends by the function's timeout, after the work was done.
    Timeout,
    /// DynamoDB refuses a call for throughput; nothing took effect.
    DynamoDbThrottle,
    /// A `BatchGetItem` leaves some of its keys unprocessed.
    DynamoDbPartialRead,
    /// A DynamoDB call takes effect and its answer is lost.
    DynamoDbLostAnswer,
    /// DynamoDB refuses a write because a transaction is under way on the item.
    DynamoDbConflict,
    /// Kinesis refuses a put as a whole; nothing took effect.
    KinesisThrottle,
    /// A `PutRecords` stores some of its records and refuses the others.
    KinesisPartialPut,
    /// A Kinesis put takes effect and its answer is lost.
    KinesisLostAnswer,
    /// A mapping delivers a batch again although the function succeeded on it.
    DuplicateDelivery,
    /// A mapping's next batch begins with records of the one before, behind the checkpoint.
    OverlappingBatch,
    /// A mapping delivers one batch to two processes at once.
    ConcurrentDelivery,
    /// A batch goes to a process other than the one that is warm for its shard, so that caches are stale.
    StaleContainer,
    /// A stream is resharded: a shard is split, or two are merged.
    Reshard,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; 14] = [
        FaultKind::Kill,
        FaultKind::Timeout,
        FaultKind::DynamoDbThrottle,
        FaultKind::DynamoDbPartialRead,
        FaultKind::DynamoDbLostAnswer,
        FaultKind::DynamoDbConflict,
        FaultKind::KinesisThrottle,
        FaultKind::KinesisPartialPut,
        FaultKind::KinesisLostAnswer,
        FaultKind::DuplicateDelivery,
        FaultKind::OverlappingBatch,
        FaultKind::ConcurrentDelivery,
        FaultKind::StaleContainer,
        FaultKind::Reshard,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Timeout => "timeout",
            FaultKind::DynamoDbThrottle => "dynamodb-throttle",
            FaultKind::DynamoDbPartialRead => "dynamodb-partial-read",
            FaultKind::DynamoDbLostAnswer => "dynamodb-lost-answer",
            FaultKind::DynamoDbConflict => "dynamodb-conflict",
            FaultKind::KinesisThrottle => "kinesis-throttle",
            FaultKind::KinesisPartialPut => "kinesis-partial-put",
            FaultKind::KinesisLostAnswer => "kinesis-lost-answer",
            FaultKind::DuplicateDelivery => "duplicate-delivery",
            FaultKind::OverlappingBatch => "overlapping-batch",
            FaultKind::ConcurrentDelivery => "concurrent-delivery",
            FaultKind::StaleContainer => "stale-container",
            FaultKind::Reshard => "reshard",
        }
    }

    /// What it does and to what, in a line, for help and reports.
    pub fn what(self) -> &'static str {
        match self {
            FaultKind::Kill => "a function's process is killed (kill -9) during an invocation",
            FaultKind::Timeout => "a function's answer is withheld: the work was done, the invocation timed out",
            FaultKind::DynamoDbThrottle => "a DynamoDB call is refused for throughput, or fails inside DynamoDB",
            FaultKind::DynamoDbPartialRead => "a BatchGetItem leaves keys unprocessed",
            FaultKind::DynamoDbLostAnswer => "a DynamoDB call takes effect, and its answer never comes or is cut off",
            FaultKind::DynamoDbConflict => "a DynamoDB write meets a transaction on the item",
            FaultKind::KinesisThrottle => "a Kinesis put is refused for throughput, or fails inside Kinesis",
            FaultKind::KinesisPartialPut => "a PutRecords stores some records and refuses the others",
            FaultKind::KinesisLostAnswer => "a Kinesis put takes effect, and its answer never comes or is cut off",
            FaultKind::DuplicateDelivery => "a batch that succeeded is delivered again",
            FaultKind::OverlappingBatch => "a batch begins with records of the one before",
            FaultKind::ConcurrentDelivery => "a batch is delivered to two processes at once",
            FaultKind::StaleContainer => "a batch goes to a process whose caches are out of date",
            FaultKind::Reshard => "a stream's shard is split, or two are merged",
        }
    }

    /// What counts as an opportunity, of which a rate is a percentage.
    pub fn opportunity(self) -> &'static str {
        match self {
            FaultKind::Kill | FaultKind::Timeout => "invocation",
            FaultKind::DynamoDbThrottle | FaultKind::DynamoDbLostAnswer => "read or write",
            FaultKind::DynamoDbPartialRead => "BatchGetItem of two keys or more",
            FaultKind::DynamoDbConflict => "write",
            FaultKind::KinesisThrottle | FaultKind::KinesisLostAnswer => "put",
            FaultKind::KinesisPartialPut => "PutRecords",
            FaultKind::DuplicateDelivery
            | FaultKind::OverlappingBatch
            | FaultKind::ConcurrentDelivery
            | FaultKind::StaleContainer => "batch",
            FaultKind::Reshard => "look at a stream, four a second",
        }
    }

    /// Strikes in a thousand opportunities where nothing else is said.
    pub fn per_mille_default(self) -> u32 {
        match self {
            FaultKind::Kill => rates::KILL_PER_MILLE,
            FaultKind::Timeout => rates::TIMEOUT_PER_MILLE,
            FaultKind::DynamoDbThrottle => rates::DYNAMODB_THROTTLE_PER_MILLE,
            FaultKind::DynamoDbPartialRead => rates::DYNAMODB_PARTIAL_READ_PER_MILLE,
            FaultKind::DynamoDbLostAnswer => rates::DYNAMODB_LOST_ANSWER_PER_MILLE,
            FaultKind::DynamoDbConflict => rates::DYNAMODB_CONFLICT_PER_MILLE,
            FaultKind::KinesisThrottle => rates::KINESIS_THROTTLE_PER_MILLE,
            FaultKind::KinesisPartialPut => rates::KINESIS_PARTIAL_PUT_PER_MILLE,
            FaultKind::KinesisLostAnswer => rates::KINESIS_LOST_ANSWER_PER_MILLE,
            FaultKind::DuplicateDelivery => rates::DUPLICATE_DELIVERY_PER_MILLE,
            FaultKind::OverlappingBatch => rates::OVERLAPPING_BATCH_PER_MILLE,
            FaultKind::ConcurrentDelivery => rates::CONCURRENT_DELIVERY_PER_MILLE,
            FaultKind::StaleContainer => rates::STALE_CONTAINER_PER_MILLE,
            FaultKind::Reshard => rates::RESHARD_PER_MILLE,
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<FaultKind> {
        FaultKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Decides which opportunities are struck, and counts them. A clone shares the count.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Inner>>);

struct Inner {
    seed: u64,
    /// Strikes in a thousand opportunities.
    per_mille: BTreeMap<FaultKind, u32>,
    over: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    opportunities: HashMap<(FaultKind, String), u64>,
    strikes: BTreeMap<FaultKind, u64>,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Faults {
        Faults(None)
    }

    /// Each kind strikes so many of a thousand opportunities; a kind that is not named never strikes.
    pub fn seeded(per_mille: BTreeMap<FaultKind, u32>, seed: u64) -> Faults {
        Faults(Some(Arc::new(Inner {
            seed,
            per_mille,
            over: AtomicBool::new(false),
            counts: Mutex::default(),
        })))
    }

    /// Whether this kind can strike at all.
    pub fn may_strike(&self, kind: FaultKind) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.rate(kind) > 0)
    }

    /// Asks at an opportunity; when it is struck, gives a random number to shape the fault by, and counts it. `place` keeps
    /// the opportunities of different places apart, so that what happens at one does not depend on the speed of another.
    pub fn strike(&self, kind: FaultKind, place: &str) -> Option<u64> {
        let inner = self.0.as_ref()?;
        let rate = inner.rate(kind);
        if rate == 0 || inner.over.load(Ordering::Relaxed) {
            return None;
        }
        let mut counts = inner.counts();
        let number = counts.opportunities.entry((kind, place.to_owned())).or_default();
        *number += 1;
        let mut random = fastrand::Rng::with_seed(seed_of(inner.seed, kind, place, *number));
        if random.u32(0..OPPORTUNITIES) >= rate {
            return None;
        }
        *counts.strikes.entry(kind).or_default() += 1;
        Some(random.u64(..))
    }

    /// Takes back the count of a strike that came to nothing: what it would have done was not possible there. The decision
    /// stays as it is, so later opportunities are struck as if it had happened.
    pub fn withdraw(&self, kind: FaultKind) {
        if let Some(inner) = &self.0
            && let Some(strikes) = inner.counts().strikes.get_mut(&kind)
        {
            *strikes = strikes.saturating_sub(1);
        }
    }

    /// Nothing strikes any more, in any clone: what came of it is read back undisturbed.
    pub fn end(&self) {
        if let Some(inner) = &self.0 {
            inner.over.store(true, Ordering::Relaxed);
        }
    }

    /// How often each kind was expected to strike so far: its opportunities, each by the kind's rate. `None` while it had no
    /// opportunity at all.
    pub fn expected(&self) -> BTreeMap<FaultKind, Option<f64>> {
        let Some(inner) = &self.0 else {
            return BTreeMap::new();
        };
        let counts = inner.counts();
        let expected = |kind: FaultKind, rate: u32| {
            let of_kind = counts.opportunities.iter().filter(|((other, _), _)| *other == kind);
            let opportunities: u64 = of_kind.map(|(_, count)| *count).sum();
            (opportunities > 0).then(|| opportunities as f64 * f64::from(rate) / f64::from(OPPORTUNITIES))
        };
        let possible = inner.per_mille.iter().filter(|(_, rate)| **rate > 0);
        possible.map(|(kind, rate)| (*kind, expected(*kind, *rate))).collect()
    }

    /// How often each kind struck and took effect; kinds that can strike and did not have 0.
    pub fn injected(&self) -> BTreeMap<FaultKind, u64> {
        let Some(inner) = &self.0 else {
            return BTreeMap::new();
        };
        let counts = inner.counts();
        let possible = inner.per_mille.iter().filter(|(_, rate)| **rate > 0);
        possible
            .map(|(kind, _)| (*kind, counts.strikes.get(kind).copied().unwrap_or(0)))
            .collect()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => formatter.write_str("Faults::none()"),
            Some(inner) => formatter
                .debug_struct("Faults")
                .field("seed", &inner.seed)
                .field("per_mille", &inner.per_mille)
                .finish_non_exhaustive(),
        }
    }
}

/// Rates are in strikes of so many opportunities.
const OPPORTUNITIES: u32 = 1_000;

impl Inner {
    fn rate(&self, kind: FaultKind) -> u32 {
        self.per_mille.get(&kind).copied().unwrap_or(0)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a over what names an opportunity: the same on every machine and in every version.
fn seed_of(seed: u64, kind: FaultKind, place: &str, number: u64) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let parts: [&[u8]; 4] = [
        &seed.to_le_bytes(),
        kind.name().as_bytes(),
        place.as_bytes(),
        &number.to_le_bytes(),
    ];
    parts
        .into_iter()
        .flatten()
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{FaultKind, Faults};

    fn strikes(faults: &Faults, place: &str) -> Vec<Option<u64>> {
        (0..1_000).map(|_| faults.strike(FaultKind::Kill, place)).collect()
    }

    #[test]
    fn the_same_seed_strikes_the_same_opportunities() {
        let faults = |seed| Faults::seeded(BTreeMap::from([(FaultKind::Kill, 100)]), seed);
        let first = strikes(&faults(7), "a");
        assert_eq!(strikes(&faults(7), "a"), first);
        assert_ne!(strikes(&faults(8), "a"), first);
        assert_ne!(strikes(&faults(7), "b"), first);
        let struck = first.iter().flatten().count();
        assert!((50..200).contains(&struck), "{struck} of 1,000 at 100 in 1,000");
        let both = faults(7);
        strikes(&both, "a");
        assert_eq!(both.injected(), BTreeMap::from([(FaultKind::Kill, struck as u64)]));
    }

    #[test]
    fn a_kind_that_is_not_named_never_strikes() {
        let faults = Faults::seeded(BTreeMap::from([(FaultKind::Timeout, 1_000)]), 1);
        assert!(strikes(&faults, "a").iter().all(Option::is_none));
        assert!(!faults.may_strike(FaultKind::Kill) && faults.may_strike(FaultKind::Timeout));
        assert!(strikes(&Faults::none(), "a").iter().all(Option::is_none));
    }

    #[test]
    fn what_came_to_nothing_is_not_counted_and_changes_no_later_strike() {
        let faults = || Faults::seeded(BTreeMap::from([(FaultKind::Kill, 250), (FaultKind::Timeout, 250)]), 3);
        let plain = strikes(&faults(), "a");
        let withdrawing = faults();
        let decide = |_| {
            let struck = withdrawing.strike(FaultKind::Kill, "a");
            if struck.is_some() {
                withdrawing.withdraw(FaultKind::Kill);
            }
            struck
        };
        assert_eq!((0..1_000).map(decide).collect::<Vec<_>>(), plain);
        let none = BTreeMap::from([(FaultKind::Kill, 0), (FaultKind::Timeout, 0)]);
        assert_eq!(withdrawing.injected(), none);
        let expected = BTreeMap::from([(FaultKind::Kill, Some(250.0)), (FaultKind::Timeout, None)]);
        assert_eq!(withdrawing.expected(), expected);
    }

    #[test]
    fn after_the_end_nothing_strikes() {
        let faults = Faults::seeded(BTreeMap::from([(FaultKind::Kill, 1_000)]), 1);
        let clone = faults.clone();
        assert!(clone.strike(FaultKind::Kill, "a").is_some());
        faults.end();
        assert!(clone.strike(FaultKind::Kill, "a").is_none());
        assert_eq!(clone.injected(), BTreeMap::from([(FaultKind::Kill, 1)]));
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in FaultKind::ALL {
            assert_eq!(FaultKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(FaultKind::from_name("nothing"), None);
    }
}
