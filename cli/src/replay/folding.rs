//! Folding on several threads: first each block is decoded by one, then each lane of users is folded by one, in the order
//! of the lines. So nothing depends on how many threads there are, or which of them was faster.

use std::sync::{Mutex, MutexGuard, PoisonError};

use usher_aws::dynamodb::profile_item_bytes;
use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::fold::EventOutcome;
use usher_domain::journey::Journey;
use usher_domain::merge::{Household, HouseholdStep};
use usher_domain::offers::Outcome;
use usher_domain::profile::Profile;
use usher_domain::rules::{RuleCounts, RuleOutcome};
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_domain::trigger::Trigger;
use usher_pipeline::ports::ProfileItem;
use usher_wire::profile_state;

use super::blocks::Block;
use super::decode::{Decoded, LANES, decode, lane_of};
use super::families::Families;
use super::models_file::ModelsFile;
use super::threads::in_parallel;
use crate::arrival_clock::wall_clock;
use crate::fold::{LineCounts, latest_arrival, order_of_timers, replayed_shard, wake_all};

/// The number of what no line made fire.
pub const AFTER_ALL_LINES: u64 = u64::MAX;
/// Of so many writes, the size of one is taken: encoding a profile takes longer than folding an event into it.
pub const SIZES_TAKEN_OF: u64 = 64;

/// All users' profiles, under each of the journeys.
pub struct Folding<'j> {
    journeys: &'j [&'j Journey],
    /// What was learned from all users, for each journey.
    snapshots: Vec<Snapshots>,
    watch: Watch,
    threads: usize,
    shard: Shard,
    /// For each lane, a household for each journey.
    lanes: Vec<Mutex<Vec<Household>>>,
    families: Families,
}

/// What came of some lines under one journey.
#[derive(Debug, Default)]
pub struct Folded {
    /// What became of the events; lines and rejected ones are not counted here.
    pub counts: LineCounts,
    /// What became of the rules.
    pub rules: RuleCounts,
    /// What was fired, in the order of the lines.
    pub fired: Vec<Fired>,
    /// What came of offers, in the order of the lines.
    pub told: Vec<Told>,
    /// Bytes of the items of some writes: every one of [`SIZES_TAKEN_OF`], by the event's id.
    pub item_bytes: Vec<u64>,
}

/// A decision.
#[derive(Debug)]
pub struct Fired {
    /// The number of the line that made it; [`AFTER_ALL_LINES`] where none did.
    pub number: u64,
    /// The decision.
    pub trigger: Trigger,
    /// What the same rule came to under the other journey on the same event, where two are compared and it looked.
    pub other: Option<RuleOutcome>,
}

/// What came of an offer.
#[derive(Debug)]
pub struct Told {
    /// The number of the line that made it known; [`AFTER_ALL_LINES`] where none did.
    pub number: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What an event of the watched user came to.
#[derive(Debug)]
pub struct Seen {
    /// The line's number.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Its type and id.
    pub event_type: String,
    /// Its id.
    pub event_id: String,
    /// Under each journey.
    pub steps: Vec<HouseholdStep>,
}

/// What is looked at beyond what came out.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Sizes of items are taken.
    pub sizes: bool,
    /// The user whose events are kept, with what they came to.
    pub user: Option<String>,
}

/// What came of some blocks.
#[derive(Debug)]
pub struct Round {
    /// The lines, and those that can't be used.
    pub counts: LineCounts,
    /// What came of them under each journey.
    pub folded: Vec<Folded>,
    /// The events of the watched user, in the order of the lines.
    pub seen: Vec<Seen>,
}

impl<'j> Folding<'j> {
    /// No profiles yet.
    pub fn new(journeys: &'j [&'j Journey], threads: usize, watch: Watch) -> Folding<'j> {
        let households = || journeys.iter().map(|_| Household::new()).collect();
        Folding {
            journeys,
            snapshots: vec![Snapshots::default(); journeys.len()],
            watch,
            threads,
            shard: replayed_shard(),
            lanes: (0..LANES).map(|_| Mutex::new(households())).collect(),
            families: Families::default(),
        }
    }

    /// The same, where rules choose by these models.
    pub fn with_models(mut self, models: Option<&ModelsFile>) -> Folding<'j> {
        if let Some(models) = models {
            self.snapshots = self.journeys.iter().map(|journey| models.snapshots(journey)).collect();
        }
        self
    }

    /// How many threads fold.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Folds some blocks, which follow those before.
    pub fn fold(&mut self, blocks: &[Block]) -> Round {
        let latest = wall_clock();
        let (shard, families) = (&self.shard, &self.families);
        let mut decoded = in_parallel(self.threads, blocks.len(), |block| {
            decode(&blocks[block], shard, latest, families)
        });
        if decoded.iter().any(|block| block.has_alias) && join_families(&decoded, &mut self.families, &mut self.lanes) {
            let families = &self.families;
            let lanes = in_parallel(self.threads, decoded.len(), |block| decoded[block].sorted(families));
            for (block, lanes) in decoded.iter_mut().zip(lanes) {
                block.lanes = lanes;
            }
        }
        let (journeys, watch, lanes) = (self.journeys, &self.watch, &self.lanes);
        let snapshots = self.snapshots.as_slice();
        let by_lane = in_parallel(self.threads, LANES, |lane| {
            let mut folded = FoldedLane::new(journeys, snapshots, watch);
            folded.fold(&mut locked(&lanes[lane]), lane, &decoded);
            folded
        });
        let mut counts = LineCounts::default();
        for block in decoded {
            counts.lines += block.lines;
            for (number, reject) in block.rejects {
                counts.reject(number, reject);
            }
        }
        let mut seen = Vec::new();
        let mut folded = self.together(by_lane.into_iter().map(|lane| {
            seen.extend(lane.seen);
            lane.folded
        }));
        for folded in &mut folded {
            // Stable: what one line fired stays as it is.
            folded.fired.sort_by_key(|fired| fired.number);
            folded.told.sort_by_key(|told| told.number);
        }
        // One user's events are in one lane, so they are in order.
        Round { counts, folded, seen }
    }

    /// Fires the timers that are due by the latest arrival, of users to whom nothing happened since.
    pub fn fire_due_timers(&mut self) -> Vec<Folded> {
        let (journeys, lanes, shard) = (self.journeys, &self.lanes, &self.shard);
        let snapshots = self.snapshots.as_slice();
        let latest: Vec<Timestamp> = (0..journeys.len())
            .map(|journey| {
                lanes
                    .iter()
                    .map(|lane| latest_arrival(&locked(lane)[journey]))
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let by_lane = in_parallel(self.threads, LANES, |lane| {
            let mut households = locked(&lanes[lane]);
            let fired = journeys.iter().zip(snapshots).zip(households.iter_mut()).zip(&latest);
            fired
                .map(|(((journey, snapshots), users), latest)| {
                    let mut folded = Folded::default();
                    for step in wake_all(journey, snapshots, users, shard, *latest) {
                        folded.rules.add(&step.rules);
                        folded.fire(AFTER_ALL_LINES, step.triggers);
                        folded.tell(AFTER_ALL_LINES, step.outcomes);
                    }
                    folded
                })
                .collect()
        });
        let mut folded = self.together(by_lane);
        for folded in &mut folded {
            folded
                .fired
                .sort_by(|one, other| order_of_timers(&one.trigger, &other.trigger));
            let order = |told: &Told| (told.outcome.at, told.outcome.made_at, told.outcome.id);
            folded.told.sort_by_key(order);
        }
        folded
    }

    /// The profiles with at least one event, under each journey, in no order.
    pub fn into_profiles(self) -> Vec<Vec<(String, Profile)>> {
        let mut profiles: Vec<Vec<(String, Profile)>> = self.journeys.iter().map(|_| Vec::new()).collect();
        for lane in self.lanes {
            let households = lane.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (users, profiles) in households.into_iter().zip(&mut profiles) {
                profiles.extend(users.into_profiles().filter(|(_, profile)| profile.applied_events > 0));
            }
        }
        profiles
    }

    /// What came of all lanes, with the triggers of each lane in one piece.
    fn together(&self, by_lane: impl IntoIterator<Item = Vec<Folded>>) -> Vec<Folded> {
        let mut together: Vec<Folded> = self.journeys.iter().map(|_| Folded::default()).collect();
        for lane in by_lane {
            for (all, folded) in together.iter_mut().zip(lane) {
                all.counts.add(&folded.counts);
                all.rules.add(&folded.rules);
                all.fired.extend(folded.fired);
                all.told.extend(folded.told);
                all.item_bytes.extend(folded.item_bytes);
            }
        }
        together
    }
}

/// A lane is only ever folded by one thread at a time, so there is nothing to wait for.
fn locked(lane: &Mutex<Vec<Household>>) -> MutexGuard<'_, Vec<Household>> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings those keys into one lane that the events name together, before any of them is folded. Says whether any key has
/// another lane now.
fn join_families(decoded: &[Decoded<'_>], families: &mut Families, lanes: &mut [Mutex<Vec<Household>>]) -> bool {
    let mut has_moved = false;
    for event in decoded
        .iter()
        .flat_map(|block| &block.events)
        .map(|(_, arrived)| &arrived.event)
    {
        let Some(alias) = &event.alias else { continue };
        for moved in families.join(&event.user, alias, lane_of) {
            has_moved = true;
            let mut from = std::mem::take(&mut *locked(&lanes[moved.from]));
            let mut to = locked(&lanes[moved.to]);
            for (from, to) in from.iter_mut().zip(to.iter_mut()) {
                from.hand_over(&moved.key, to);
            }
            drop(to);
            *locked(&lanes[moved.from]) = from;
        }
    }
    has_moved
}

/// What came of some lines in one lane.
struct FoldedLane<'l> {
    journeys: &'l [&'l Journey],
    snapshots: &'l [Snapshots],
    watch: &'l Watch,
    folded: Vec<Folded>,
    seen: Vec<Seen>,
}

impl<'l> FoldedLane<'l> {
    fn new(journeys: &'l [&'l Journey], snapshots: &'l [Snapshots], watch: &'l Watch) -> FoldedLane<'l> {
        FoldedLane {
            journeys,
            snapshots,
            watch,
            folded: journeys.iter().map(|_| Folded::default()).collect(),
            seen: Vec::new(),
        }
    }

    fn fold(&mut self, households: &mut [Household], lane: usize, decoded: &[Decoded<'_>]) {
        for block in decoded {
            for event in &block.lanes[lane] {
                let (number, arrived) = &block.events[*event as usize];
                match (self.journeys, self.snapshots, &mut *households, &mut *self.folded) {
                    // By far the most usual, and the one that is to be quick.
                    ([journey], [snapshots], [users], [folded]) => {
                        folded.add(*number, users.apply(journey, snapshots, arrived));
                    }
                    _ => self.fold_beside(households, *number, arrived),
                }
            }
        }
    }

    /// Folds an event under each journey, and notes how they differ.
    fn fold_beside(&mut self, households: &mut [Household], number: u64, arrived: &ArrivedEvent<'_>) {
        let steps: Vec<HouseholdStep> = self
            .journeys
            .iter()
            .zip(self.snapshots)
            .zip(&mut *households)
            .map(|((journey, snapshots), users)| users.apply(journey, snapshots, arrived))
            .collect();
        let event = &arrived.event;
        let watched = self.watch.user.as_deref();
        let is_watched = |users: &Household| watched == Some(users.user_of(&event.user));
        if watched.is_some() && households.iter().any(is_watched) {
            self.seen.push(Seen {
                number,
                at: event.at,
                event_type: event.event_type.to_string(),
                event_id: event.id.to_string(),
                steps: steps.clone(),
            });
        }
        if self.watch.sizes && event.id_hash.is_multiple_of(SIZES_TAKEN_OF) {
            self.take_sizes(households, arrived, &steps);
        }
        let others: Vec<RuleCounts> = steps.iter().rev().map(|step| step.rules.clone()).collect();
        for (journey, (step, other)) in steps.into_iter().zip(others).enumerate() {
            let other_journey = self.journeys[self.journeys.len() - 1 - journey];
            let fired = self.folded[journey].add(number, step);
            for fired in fired {
                fired.other = outcome_of(other_journey, &fired.trigger.rule, &other);
            }
        }
    }

    fn take_sizes(&mut self, households: &[Household], arrived: &ArrivedEvent<'_>, steps: &[HouseholdStep]) {
        for (index, (users, step)) in households.iter().zip(steps).enumerate() {
            let user = users.user_of(&arrived.event.user);
            if step.outcome == EventOutcome::Applied
                && let Some(profile) = users.profile(user)
            {
                // What it fired is written with it.
                let mut written = profile.clone();
                written.outbox.clone_from(&step.triggers);
                written.outcomes.clone_from(&step.outcomes);
                let bytes = item_bytes(user, &written, self.journeys[index]);
                self.folded[index].item_bytes.push(bytes);
            }
        }
    }
}

/// What a rule came to on an event, where it looked.
fn outcome_of(journey: &Journey, rule: &str, rules: &RuleCounts) -> Option<RuleOutcome> {
    let index = journey.rules.iter().position(|known| known.id == rule)?;
    RuleOutcome::ALL
        .into_iter()
        .find(|outcome| rules.get(index, *outcome) > 0)
}

/// The size of a profile's item, as DynamoDB counts it.
pub fn item_bytes(user: &str, profile: &Profile, journey: &Journey) -> u64 {
    let item = ProfileItem {
        user_id: user.to_owned(),
        version: profile.applied_events,
        state: profile_state::encode(profile, journey),
        updated_at: profile.now,
        next_due_at: profile.wake_at,
        ..ProfileItem::default()
    };
    profile_item_bytes(&item) as u64
}

impl Folded {
    /// Takes in what a line did; gives what it fired.
    fn add(&mut self, number: u64, step: HouseholdStep) -> &mut [Fired] {
        self.counts.count(&step);
        self.rules.add(&step.rules);
        self.tell(number, step.outcomes);
        self.fire(number, step.triggers)
    }

    fn tell(&mut self, number: u64, outcomes: Vec<Outcome>) {
        self.told
            .extend(outcomes.into_iter().map(|outcome| Told { number, outcome }));
    }

    fn fire(&mut self, number: u64, triggers: Vec<Trigger>) -> &mut [Fired] {
        let before = self.fired.len();
        self.fired.extend(triggers.into_iter().map(|trigger| Fired {
            number,
            trigger,
            other: None,
        }));
        &mut self.fired[before..]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fastrand::Rng;

    use super::*;
    use crate::fold::Fold;

    const JOURNEY: &str = r#"
journey: j
ignore: [noise]
dedupe: { last: 4 }
steps: [{ id: joined, on: join }, { id: bought, on: buy }]
features:
  clicks: { count: click }
  recent: { recent: properties.page, on: click, limit: 3 }
contents: [{ id: tour }, { id: offer }]
triggers:
  - { id: each_third, on: click, when: features.clicks % 3 == 0, offer: tour, slot: side }
  - { id: stalled, after: [10m, 1h], since: steps.joined, unless: steps.bought.done, offer: offer, slot: email }
policy: { cap: { offers: 3, within: 1h } }
"#;

    /// Events of few people, of whom each has several ids that events name together; some repeat, some are broken.
    fn lines(rng: &mut Rng, count: usize) -> Vec<String> {
        let mut minute = 0;
        let mut lines: Vec<String> = Vec::new();
        for number in 0..count {
            if !lines.is_empty() && rng.u8(..20) == 0 {
                lines.push(lines[rng.usize(..lines.len())].clone());
                continue;
            }
            minute += rng.usize(..4);
            let event_type = [
                "click",
                "click",
                "click",
                "join",
                "buy",
                "noise",
                "alias",
                "usher.timer",
            ][rng.usize(..8)];
            let (user, other, anonymous) = (rng.u8(..12), rng.u8(..12), rng.u8(..12));
            let ids = match (event_type, rng.u8(..6)) {
                ("alias", _) => format!(r#""user_id":"u{user}","previous_id":"u{other}""#),
                (_, 0) => format!(r#""user_id":"u{user}","anonymous_id":"a{anonymous}""#),
                (_, 1 | 2) => format!(r#""anonymous_id":"a{anonymous}""#),
                (_, 3) if number % 7 == 0 => r#""user_id":5"#.to_owned(),
                _ => format!(r#""user_id":"u{user}""#),
            };
            let time = format!(
                "2026-01-{:02}T{:02}:{:02}:00Z",
                1 + minute / 1440,
                minute / 60 % 24,
                minute % 60
            );
            lines.push(format!(
                r#"{{"event_id":"e{number}","event_type":"{event_type}","timestamp":"{time}",{ids},"properties":{{"page":"p{user}"}}}}"#
            ));
        }
        lines
    }

    fn in_blocks(lines: &[String], rng: &mut Rng) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < lines.len() {
            let end = lines.len().min(first + 1 + rng.usize(..9));
            blocks.push(Block::Lines {
                first_number: first as u64 + 1,
                text: lines[first..end].join("\n").into_bytes(),
            });
            first = end;
        }
        blocks
    }

    #[test]
    fn p2_p3_p7_the_threads_and_blocks_have_no_say_in_what_comes_out_even_where_users_merge() {
        let journey = Journey::parse(JOURNEY).expect("it is fine");
        let journeys = [&journey];
        let (mut fired, mut merged) = (0, 0);
        for seed in 0..40 {
            let mut rng = Rng::with_seed(seed);
            let count = 20 + rng.usize(..200);
            let lines = lines(&mut rng, count);
            let mut fold = Fold::new(&journey);
            let mut expected = Vec::new();
            for (number, line) in (1..).zip(&lines) {
                let arrived_at = crate::arrival_clock::data_arrival(line.as_bytes()).unwrap_or_else(wall_clock);
                expected.extend(fold.line(number, line.as_bytes(), arrived_at));
            }
            expected.extend(fold.fire_due_timers());
            let counts = fold.counts().clone();
            let profiles = fold.into_profiles();
            fired += expected.len();
            merged += counts.merged;
            for threads in [1, 2, 8] {
                let mut folding = Folding::new(&journeys, threads, Watch::default());
                let mut found = Vec::new();
                let mut found_counts = LineCounts::default();
                for blocks in in_blocks(&lines, &mut rng).chunks(3) {
                    let round = folding.fold(blocks);
                    found_counts.add(&round.counts);
                    for folded in round.folded {
                        found_counts.add(&folded.counts);
                        found.extend(folded.fired.into_iter().map(|fired| fired.trigger));
                    }
                }
                for folded in folding.fire_due_timers() {
                    found.extend(folded.fired.into_iter().map(|fired| fired.trigger));
                }
                let ids = |triggers: &[Trigger]| triggers.iter().map(|trigger| trigger.id).collect::<Vec<_>>();
                assert_eq!(ids(&found), ids(&expected), "seed {seed}, {threads} threads");
                assert_eq!(found, expected, "seed {seed}, {threads} threads");
                assert_eq!(found_counts, counts, "seed {seed}, {threads} threads");
                let found: BTreeMap<_, _> = folding.into_profiles().into_iter().flatten().collect();
                assert_eq!(found, profiles, "seed {seed}, {threads} threads");
            }
        }
        assert!(fired > 400 && merged > 40, "{fired} {merged}: it is to show something");
    }
}
