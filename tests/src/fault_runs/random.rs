//! Runs from seeds: random events, batches, redelivery, containers and faults. profile-writer takes the events, timer-sweeper
//! wakes whose timers are due, trigger-delivery takes what comes on the triggers stream; and content-trends and
//! outcome-learner learn from both streams.
//!
//! Containers take turns call by call, in an order that the seed gives, and whether a call fails follows from the seed and
//! from which call of which invocation it is. Real time only passes in pauses and in calls that never answer; a run waits
//! for those, so many runs share a thread. So a run is the same each time for its seed, but for one thing: how long a pause
//! takes is up to chance, and where several users of one container are at work, a crash or the end of the time cuts the
//! others where they are then. That is why a failing seed is repeated several times.

mod sweeps;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use usher_domain::hash::{hash_bytes, hash_parts};
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::{Call, Container, ContainerEnded, Fault, Operation};
use usher_pipeline::ports::ProfileItem;
use usher_pipeline::redrive_user::{PassedBy, RedriveEnd, RedriveUserError, RedriveUserReport};
use usher_pipeline::response::BatchResponse;

use super::cloud::{Function, MemoryCloud, Setup, compare, compare_histories};
use super::serial::user_of;
use super::survived::{Port, Survived, has_parts};
use crate::lambda_event::{LONG, Record, payload};

/// When the events begin to arrive: 2026-01-05T10:00:00Z.
const START_MS: i64 = 1_767_607_200_000;
const SECOND_MS: i64 = 1000;
const DAY_S: i64 = 24 * 60 * 60;
/// Digits of the sequence numbers that AWS writes.
const SEQUENCE_NUMBER_DIGITS: usize = 56;
/// Time of an invocation in which a call may never answer.
const SHORT: Duration = Duration::from_millis(500);
/// Containers of a function.
const CONTAINERS: usize = 3;
/// Records of a batch at most.
const BATCH_RECORDS_MAX: usize = 12;
/// Invocations of a function after which calls fail no more, so that a run ends.
const DISTURBED_INVOCATIONS_MAX: u64 = 60;
/// Invocations of a function after which a run that has not ended never will.
const INVOCATIONS_MAX: u64 = 1000;
/// Redrives after which their calls fail no more.
const DISTURBED_REDRIVES_MAX: u64 = 12;
/// Redrives after which a run that has not ended never will.
const REDRIVES_MAX: u64 = 100;
/// The number of the first invocation of each function that learns, and of profile-writer once it was learned: beyond all
/// others.
const FIRST_OF_TRENDS: u64 = 1 << 33;
const FIRST_OF_LEARNER: u64 = 1 << 34;
const FIRST_OF_SECOND_PART: u64 = 1 << 35;
/// The number of the first redrive, where invocations have theirs: beyond all of them.
const FIRST_REDRIVE: u64 = 1 << 32;

/// One of each kind of feature, and rules that see the order of events: `DEDUPE` is how many ids a profile remembers.
const JOURNEY: &str = r#"
journey: any-delivery
dedupe: { last: DEDUPE }
ignore: [heartbeat]
steps:
  - { id: signed_up, on: sign_up }
  - { id: busy, on: click, when: features.clicks_5m >= 3 }
features:
  clicks: { count: click }
  clicks_5m: { count: click, within: 5m }
  clicks_3d: { count: click, within: 3d }
  time: { sum: properties.ms, on: page_view }
  last: { last: category, on: [click, page_view] }
  recent: { recent: category, on: [click, page_view], limit: 3, within: 10m }
  first_seen: { first_seen: any }
  last_seen: { last_seen: any }
  sessions: { sessions: count }
  duration: { sessions: duration }
contents: [{ id: a, attributes: { kind: video } }, { id: b, attributes: { kind: text }, unless: steps.busy.done }]
triggers:
  - { id: welcome, on: sign_up, offer: a, slot: top, limit: 1 }
  - { id: keen, on: click, when: features.clicks_5m >= 2, offer: b, slot: top, cooldown: 2m }
  - { id: third, on: [click, page_view], when: features.clicks % 3 == 1, offer: a, slot: side }
  - { id: team, on: [click, identify], when: traits.plan == "team", offer: a, slot: mail, limit: 3 }
"#;
/// What is added to see time pass: absence, a chain, silence, the end of a session, a change that time alone makes, and
/// offers that are put off to the end of quiet hours, which begin an hour after the events do.
const TIMERS: &str = r#"  - { id: stalled, after: 20m, since: steps.signed_up, unless: steps.busy.done, offer: a, slot: mail }
  - { id: chain, after: [5m, 30m, 2h], since: page_view, when: features.clicks > 0, offer: a, slot: side }
  - { id: quiet, after: 40m, since: any, offer: b, slot: top, cooldown: 1h }
  - { id: ended, after: 10m, since: session.end, offer: a, slot: mail, limit: 3 }
  - { id: calm, enters: features.clicks_5m == 0, offer: a, slot: side, cooldown: 10m }
"#;
const QUIET_HOURS: &str = r#"policy:
  quiet_hours: { from: "11:00", to: "14:00", then: defer, slots: [mail], timezone: UTC }
"#;
/// What is added to see offers chosen, and what comes of them learned: by event and by time, with and without a context,
/// forgetting, and a holdout.
const CHOICES: &str = r#"  - { id: next, on: [click, page_view], when: features.clicks % 2 == 0, choose: [a, b], slot: feed }
  - { id: nudge, after: 15m, since: any, choose: all, slot: nudges, holdout: 30% }
  - { id: hot, on: click, when: "trends.clicks_10m['a'] > 1", choose: [a, b], slot: hot, cooldown: 5m }
"#;
const LEARNING: &str = r#"trends:
  clicks_10m: { count: click, within: 10m }
  hot_categories: { count: [click, page_view], within: 1h, by: category }
slots:
  feed:
    learner: linear_thompson
    shared: true
    context:
      clicks: features.clicks_5m
      plan: { value: traits.plan, one_of: [free, team] }
      busy: steps.busy.done
    contents:
      kind: { value: content.kind, one_of: [video, text] }
      hot: trends.clicks_10m
  nudges: { learner: epsilon_greedy, epsilon: 20%, half_life: 1h }
outcomes:
  within: 1h
  reward:
    click: 1
    step_completed: 5
    viewed: { on: page_view, when: features.clicks > 1, reward: 0.5, content: any }
"#;
/// Timers are due until so long after the last event.
const TIME_AFTER_MS: i64 = 6 * 60 * 60 * SECOND_MS;

/// How many ids a profile remembers: few, so that only the guard knows a redelivery, or all of a run.
const FEW: usize = 8;
const ALL: usize = 128;

/// Remembers few ids.
pub static FEW_IDS: LazyLock<Arc<Journey>> = LazyLock::new(|| journey(FEW, ""));
/// The journeys by what they have beside that, remembering few ids and all.
static JOURNEYS: LazyLock<[[Arc<Journey>; 2]; 3]> = LazyLock::new(|| {
    let timers = format!("{TIMERS}{QUIET_HOURS}");
    let choices = format!("{TIMERS}{CHOICES}{QUIET_HOURS}{LEARNING}");
    ["", &timers, &choices].map(|more| [FEW, ALL].map(|dedupe_last| journey(dedupe_last, more)))
});

fn journey(dedupe_last: usize, more: &str) -> Arc<Journey> {
    let text = JOURNEY.replace("DEDUPE", &dedupe_last.to_string()) + more;
    let journey = Journey::parse(&text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", &text)));
    Arc::new(journey)
}

/// The command that repeats a run.
pub fn command(seed: u64) -> String {
    format!("cargo run -p usher-tests --bin fault-runs -- --seed {seed} --times 100")
}

/// One run.
///
/// # Errors
/// What was lost, came twice, or is wrong otherwise.
pub async fn run(seed: u64) -> Result<Survived, String> {
    let mut random = Rng::with_seed(hash_bytes(&seed.to_le_bytes()));
    let plan = Plan::of(&mut random);
    run_plan(&plan, seed).await
}

/// One run of records that are given; the seed gives batches, redelivery, containers and faults.
///
/// # Errors
/// What was lost, came twice, or is wrong otherwise.
pub async fn run_plan(plan: &Plan, seed: u64) -> Result<Survived, String> {
    let mut random = Rng::with_seed(seed);
    let cloud = MemoryCloud::new(&plan.journey, plan.setup);
    let faults = Arc::new(SeededFaults::new(seed));
    let hook = faults.clone();
    cloud.on_call(move |port, call| hook.decide(port, call));

    let mut survived = Survived::default();
    survived.runs = 1;
    survived.records = plan.shards.iter().map(Vec::len).sum::<usize>() as u64;
    let lanes: Vec<Vec<Record>> = plan
        .shards
        .iter()
        .flat_map(|shard| parallel_lanes(shard, plan.setup.parallelization_factor))
        .collect();
    let disturbance = Disturbance::of(&mut random);
    let mut damage = plan.damage.as_ref().map(|plan| Damage::new(plan, &cloud, &lanes));
    let mut first_invocation = 0;
    if plan.learns_meanwhile {
        let parts: Vec<Vec<Record>> = lanes.iter().map(|lane| lane[..lane.len() / 2].to_vec()).collect();
        let writer = || cloud.learned_writer();
        deliver(writer, &parts, disturbance, 0, None, &mut random, &mut survived).await?;
        learn(&cloud, &plan.shards, 0, &mut random, &mut survived).await?;
        first_invocation = FIRST_OF_SECOND_PART;
    }
    // Where a part was delivered before, it comes again.
    deliver(
        || cloud.new_writer(plan.learns_meanwhile),
        &lanes,
        disturbance,
        first_invocation,
        damage.as_mut(),
        &mut random,
        &mut survived,
    )
    .await?;
    let shards: Vec<Vec<&Record>> = plan.shards.iter().map(|shard| shard.iter().collect()).collect();
    let all: Vec<&Record> = shards.iter().flatten().copied().collect();
    let last = all.iter().map(|record| record.arrived_at).max().unwrap_or_default();
    let end = last.plus_ms(TIME_AFTER_MS);
    let expected = cloud.expected(&shards, end);
    sweeps::until_nobody_is_due(&cloud, plan, end, &mut random, &mut survived).await?;
    let found = cloud.outcome(&all)?;
    if expected.was_woken {
        // Each decision and outcome is still told once, and what is learned of them is right.
        survived.woken_runs = 1;
    } else if plan.learns_meanwhile {
        compare_histories(&expected, &found)?;
    } else {
        compare(&expected, &found)?;
    }
    let damaged = plan.damage.as_ref().map(|damage| damage.user.as_str());
    survived.parked_records = cloud.check_parked(damaged, &all)?;

    let disturbance = Disturbance::of(&mut random);
    let first_invocation = INVOCATIONS_MAX;
    let triggers = cloud.trigger_shards();
    deliver(
        || cloud.deliverer(),
        &triggers,
        disturbance,
        first_invocation,
        None,
        &mut random,
        &mut survived,
    )
    .await?;
    cloud.check_decisions(&found.triggers, !disturbance.overlaps)?;
    cloud.check_outcomes(&found)?;
    learn(&cloud, &plan.shards, INVOCATIONS_MAX, &mut random, &mut survived).await?;
    survived.counted = cloud.check_trends(&plan.shards, BATCH_RECORDS_MAX)?;
    survived.learned = cloud.check_models().await?;

    survived.triggers = found.triggers.len() as u64;
    survived.outcomes = found.outcomes.len() as u64;
    survived.pointers = expected.pointers.len() as u64;
    survived.repeated_triggers = cloud.trigger_records() as u64 - survived.triggers - survived.outcomes;
    faults.count_into(&mut survived);
    Ok(survived)
}

/// Runs content-trends over the interactions and outcome-learner over the triggers stream, as disturbed as the others. What
/// was delivered before comes again.
async fn learn(
    cloud: &MemoryCloud,
    shards: &[Vec<Record>],
    number: u64,
    random: &mut Rng,
    survived: &mut Survived,
) -> Result<(), String> {
    let disturbance = Disturbance::of(random);
    let counter = || cloud.trend_counter();
    deliver(
        counter,
        shards,
        disturbance,
        FIRST_OF_TRENDS + number,
        None,
        random,
        survived,
    )
    .await?;
    let disturbance = Disturbance::of(random);
    let learner = || cloud.learner();
    let triggers = cloud.trigger_shards();
    deliver(
        learner,
        &triggers,
        disturbance,
        FIRST_OF_LEARNER + number,
        None,
        random,
        survived,
    )
    .await
}

/// What happens in a run, apart from how it is disturbed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The journey.
    pub journey: Arc<Journey>,
    /// How the functions are set up.
    pub setup: Setup,
    /// The records, by shard.
    pub shards: Vec<Vec<Record>>,
    /// Whose profile can't be read for a while, if anybody's.
    pub damage: Option<DamagePlan>,
    /// Whether decisions go by what was learned before. Then what is chosen goes by who was quicker, so profiles and
    /// triggers are not those of a serial fold; what is learned of them is.
    pub learns_meanwhile: bool,
}

/// A user whose stored profile can't be read for a while. Times are counted in invocations of profile-writer; what is
/// still to come when everything is delivered comes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagePlan {
    /// Who. Nothing happens while the user has no profile.
    pub user: String,
    /// When it begins.
    pub after: u64,
    /// How much later the profile is mended.
    pub mended_after: u64,
    /// How much later than the damage the first redrive begins. Before the profile is mended, it can do nothing.
    pub redriven_after: u64,
}

impl DamagePlan {
    fn of(random: &mut Rng) -> DamagePlan {
        DamagePlan {
            user: format!("u-{}", random.usize(0..2)),
            after: random.u64(1..12),
            mended_after: random.u64(0..10),
            redriven_after: random.u64(0..14),
        }
    }
}

impl Plan {
    fn of(random: &mut Rng) -> Plan {
        // Users whose events are put under several partition keys: they come through several shards.
        let spreads_users = random.bool();
        let setup = Setup {
            parallelization_factor: random.choice([1, 1, 1, 2, 3]).unwrap_or(1),
            concurrency: random.choice([1, 1, 2, 4]).unwrap_or(1),
            needs_receipt: random.u8(0..4) > 0,
        };
        // Users of whom some turn out to be one: anonymous before, on a shared device, or with another id before. Each key
        // has lanes of its own.
        let merges_users = random.bool();
        // A repeat that was settled in one lane and comes again is known by its id only while that is remembered, and
        // other lanes fill that window meanwhile: the limit that P2 names. With one lane the guard knows.
        let of_kind = &JOURNEYS[random.usize(0..3)];
        let journey = of_kind[usize::from(spreads_users || merges_users)].clone();
        let shards = shards(random, spreads_users, merges_users);
        // A profile that can't be read isn't merged until it can be, which no fold of all records tells.
        let damage = (!merges_users && random.bool()).then(|| DamagePlan::of(random));
        let learns_meanwhile = damage.is_none() && journey.outcomes.is_some() && random.bool();
        Plan {
            journey,
            setup,
            shards,
            damage,
            learns_meanwhile,
        }
    }
}

/// Random records, by shard.
fn shards(random: &mut Rng, spreads_users: bool, merges_users: bool) -> Vec<Vec<Record>> {
    let mut shards = vec![Vec::new(); random.usize(1..=3)];
    let mut numbers: Vec<SequenceNumbers> = shards.iter().map(|_| SequenceNumbers::of(random)).collect();
    let users = random.usize(1..=5);
    let mut arrived_at = Timestamp::from_epoch_ms(START_MS);
    let mut last_of_user: BTreeMap<usize, Value> = BTreeMap::new();
    for index in 0..random.usize(8..=72) {
        // A third at the same moment, most within a minute, some after a longer while.
        let pause_s = match random.u8(0..12) {
            0..4 => 0,
            4..11 => random.i64(1..90),
            _ => random.i64(90..7200),
        };
        arrived_at = arrived_at.plus_ms(pause_s * SECOND_MS);
        let user = random.usize(0..users);
        let ids = if merges_users {
            Ids::of(random, user, users)
        } else {
            Ids::Known(user)
        };
        let partition_key = match random.u8(0..3) {
            part @ 1.. if spreads_users => format!("device-{user}-{part}"),
            _ => ids.key(),
        };
        let shard = hash_bytes(partition_key.as_bytes()) as usize % shards.len();
        let data = if random.u8(0..12) == 0 {
            bad_record(random, index).into_bytes()
        } else {
            let repeated = last_of_user.get(&user).filter(|_| random.u8(0..8) == 0).cloned();
            let event = repeated.unwrap_or_else(|| event(random, index, ids, arrived_at));
            last_of_user.insert(user, event.clone());
            event.to_string().into_bytes()
        };
        let sequence_number = numbers[shard].next(random);
        shards[shard].push(Record {
            shard_id: format!("shardId-{shard:012}"),
            sequence_number,
            arrived_at,
            partition_key,
            data,
        });
    }
    shards
}

/// Whose event it is.
#[derive(Clone, Copy, Debug)]
enum Ids {
    Known(usize),
    Anonymous(usize),
    /// A user, and who they were before they were known.
    Both(usize, usize),
    /// A user, and which one they were before.
    Renamed(usize, usize),
}

impl Ids {
    /// Most of a user and a device of their own, some of somebody else's.
    fn of(random: &mut Rng, user: usize, users: usize) -> Ids {
        let other = |random: &mut Rng| {
            if random.u8(0..3) == 0 {
                random.usize(0..users)
            } else {
                user
            }
        };
        match random.u8(0..16) {
            0..6 => Ids::Known(user),
            6..11 => Ids::Anonymous(other(random)),
            11..15 => Ids::Both(user, other(random)),
            _ => Ids::Renamed(user, random.usize(0..users)),
        }
    }

    /// The key of the profile that it names.
    fn key(self) -> String {
        match self {
            Ids::Anonymous(anonymous) => format!("anonymous:a-{anonymous}"),
            Ids::Known(user) | Ids::Both(user, _) | Ids::Renamed(user, _) => format!("u-{user}"),
        }
    }

    fn write(self, event: &mut Value) {
        let user = match self {
            Ids::Known(user) | Ids::Both(user, _) | Ids::Renamed(user, _) => Some(user),
            Ids::Anonymous(_) => None,
        };
        if let Some(user) = user {
            event["user_id"] = format!("u-{user}").into();
        }
        match self {
            Ids::Known(_) => {}
            Ids::Anonymous(anonymous) | Ids::Both(_, anonymous) => {
                event["anonymous_id"] = format!("a-{anonymous}").into();
            }
            Ids::Renamed(_, previous) => {
                event["event_type"] = "alias".into();
                event["previous_id"] = format!("u-{previous}").into();
            }
        }
    }
}

fn event(random: &mut Rng, index: usize, ids: Ids, arrived_at: Timestamp) -> Value {
    const TYPES: [&str; 9] = [
        "click",
        "click",
        "click",
        "page_view",
        "page_view",
        "sign_up",
        "identify",
        "heartbeat",
        "other",
    ];
    // Most on time, some minutes late, a few days late, a few from a clock that runs ahead.
    let late_s = match random.u8(0..10) {
        0..6 => 0,
        6..8 => random.i64(0..900),
        8 => random.i64(0..5 * DAY_S),
        _ => -random.i64(0..600),
    };
    let category = random.u8(0..4);
    let mut event = json!({
        "event_id": format!("e-{index}"),
        "event_type": random.choice(TYPES).unwrap_or("click"),
        "timestamp": arrived_at.minus_ms(late_s * SECOND_MS).to_string(),
        "category": format!("c-{category}"),
        "content_id": if category.is_multiple_of(2) { "a" } else { "b" },
        "properties": { "ms": f64::from(category) + 0.1 },
    });
    ids.write(&mut event);
    if event["event_type"] == "identify" {
        event["traits"] = json!({ "plan": if random.bool() { "team" } else { "free" } });
    }
    event
}

fn bad_record(random: &mut Rng, index: usize) -> String {
    let bad = [
        format!("{{\"event_id\": \"e-{index}\""),
        "[]".to_owned(),
        String::new(),
        json!({ "event_id": format!("e-{index}"), "event_type": "click", "user_id": "u-0" }).to_string(),
        json!({ "event_id": format!("e-{index}"), "event_type": 7, "user_id": "u-0", "timestamp": "2026-01-05T10:00:00Z" })
            .to_string(),
        json!({ "event_id": format!("e-{index}"), "event_type": "click", "user_id": "u-0", "timestamp": "yesterday" })
            .to_string(),
    ];
    random.choice(bad).unwrap_or_default()
}

/// The sequence numbers of a shard: increasing as numbers, from one digit to 56, so that as text they are out of order.
struct SequenceNumbers {
    /// Decimal digits, the highest first.
    digits: Vec<u8>,
}

impl SequenceNumbers {
    fn of(random: &mut Rng) -> SequenceNumbers {
        let digits = if random.bool() { 1 } else { SEQUENCE_NUMBER_DIGITS };
        SequenceNumbers {
            digits: (0..digits)
                .map(|index| if index == 0 { 4 } else { random.u8(0..=9) })
                .collect(),
        }
    }

    fn next(&mut self, random: &mut Rng) -> String {
        let longer = SEQUENCE_NUMBER_DIGITS - self.digits.len();
        if longer > 0 && random.u8(0..3) == 0 {
            // The smallest number with some digits more: as text it is before all with fewer.
            let length = self.digits.len() + random.usize(1..=longer.min(8));
            self.digits = vec![0; length];
            self.digits[0] = 1;
        } else {
            let mut carry = random.u8(1..=9);
            for digit in self.digits.iter_mut().rev() {
                *digit += carry;
                (carry, *digit) = (*digit / 10, *digit % 10);
            }
            if carry > 0 {
                self.digits.insert(0, carry);
            }
        }
        self.digits.iter().map(|digit| char::from(b'0' + digit)).collect()
    }
}

/// The parts of a shard that Lambda delivers side by side: with a parallelisation factor, a partition key is always in
/// the same one.
fn parallel_lanes(shard: &[Record], parallelization_factor: u32) -> Vec<Vec<Record>> {
    let mut lanes = vec![Vec::new(); parallelization_factor as usize];
    for record in shard {
        let lane = hash_bytes(record.partition_key.as_bytes()).rotate_left(17) % u64::from(parallelization_factor);
        lanes[lane as usize].push(record.clone());
    }
    lanes
}

/// How the delivery to one function is disturbed.
#[derive(Clone, Copy, Debug)]
struct Disturbance {
    /// One call in so many fails; none where it is 0.
    fault_one_in: u32,
    /// Whether a batch may be delivered while another delivery of it runs: Lambda's pollers overlap when one takes over
    /// a shard from another.
    overlaps: bool,
}

impl Disturbance {
    fn of(random: &mut Rng) -> Disturbance {
        Disturbance {
            fault_one_in: random.choice([0, 40, 15, 6, 4]).unwrap_or(0),
            overlaps: random.bool(),
        }
    }
}

/// The invocation that a call belongs to.
#[derive(Clone, Copy, Debug)]
struct InvocationContext {
    number: u64,
    fault_one_in: u32,
    /// Whether calls of it may never answer; then its time is short.
    may_hang: bool,
}

tokio::task_local! {
    static INVOCATION: InvocationContext;
}

/// Which calls fail, by the seed.
struct SeededFaults {
    seed: u64,
    inner: Mutex<SeededFaultsInner>,
}

#[derive(Default)]
struct SeededFaultsInner {
    /// How often a call of an invocation was tried, by a hash of what it is.
    tries: BTreeMap<u64, u32>,
    survived: Survived,
}

impl SeededFaults {
    fn new(seed: u64) -> SeededFaults {
        SeededFaults {
            seed,
            inner: Mutex::default(),
        }
    }

    /// Whether a call fails follows from what it is, not from when it comes: two users' calls of one container may come
    /// in either order, because their pauses are random.
    fn decide(&self, port: Port, call: &Call) -> Option<Fault> {
        let invocation = INVOCATION.try_with(|invocation| *invocation).ok()?;
        if invocation.fault_one_in == 0 {
            return None;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = call.keys.first().map(String::as_bytes).unwrap_or_default();
        let place = [self.seed, invocation.number, port as u64, call.operation as u64];
        let place = place.map(u64::to_le_bytes).concat();
        let tries = inner.tries.entry(hash_parts(&[&place, key]) as u64).or_default();
        *tries += 1;
        let mut random = Rng::with_seed(hash_parts(&[&place, key, &tries.to_le_bytes()]) as u64);
        if random.u32(0..invocation.fault_one_in) > 0 {
            return None;
        }
        let fault = match (random.u8(0..10), invocation.may_hang) {
            (0, _) => Fault::CrashBefore,
            (1, _) => Fault::CrashAfter,
            (2..=5, true) => Fault::Hang,
            (_, true) => Fault::HangAfter,
            (2..=3, _) => Fault::Throttle,
            (4..=6, _) => Fault::LostAnswer,
            (7, _) => Fault::Refuse,
            _ if has_parts(port, call.operation) => {
                let left_over = (0..call.keys.len()).filter(|_| random.bool()).collect();
                if call.operation == Operation::PutRecords && random.bool() {
                    Fault::PartialLost(left_over)
                } else {
                    Fault::Partial(left_over)
                }
            }
            _ => Fault::Throttle,
        };
        inner.survived.note(&fault, port, call.operation);
        Some(fault)
    }

    fn count_into(&self, survived: &mut Survived) {
        survived.add(&self.inner.lock().unwrap_or_else(PoisonError::into_inner).survived);
    }
}

/// What an invocation, or a redrive, ends with.
enum Finished {
    Batch(Result<BatchResponse, String>),
    Redrive(Box<Result<RedriveUserReport, RedriveUserError>>),
}

/// How a container ends.
type Ended = Result<Finished, ContainerEnded>;

/// What becomes of the user whose profile is damaged.
struct Damage<'r> {
    plan: &'r DamagePlan,
    cloud: &'r MemoryCloud,
    lanes: &'r [Vec<Record>],
    stage: Stage,
    /// When it was damaged, in invocations.
    damaged_at: u64,
    passed_by: PassedBy,
    redrives: u64,
}

enum Stage {
    Whole,
    Damaged {
        last_good: Box<ProfileItem>,
        /// The checkpoints at that moment.
        checkpoints: Vec<usize>,
    },
    Mended,
    Over,
}

impl<'r> Damage<'r> {
    fn new(plan: &'r DamagePlan, cloud: &'r MemoryCloud, lanes: &'r [Vec<Record>]) -> Damage<'r> {
        Damage {
            plan,
            cloud,
            lanes,
            stage: Stage::Whole,
            damaged_at: 0,
            passed_by: PassedBy::Ask,
            redrives: 0,
        }
    }

    /// Damages or mends the profile, once it is time.
    fn go_on(
        &mut self,
        invocations: u64,
        checkpoints: &[usize],
        all_delivered: bool,
        survived: &mut Survived,
    ) -> Result<(), String> {
        match &self.stage {
            Stage::Whole if invocations >= self.plan.after => {
                if let Some(last_good) = self.cloud.damage(&self.plan.user) {
                    survived.damaged_users += 1;
                    self.damaged_at = invocations;
                    self.stage = Stage::Damaged {
                        last_good: Box::new(last_good),
                        checkpoints: checkpoints.to_vec(),
                    };
                } else if all_delivered {
                    self.stage = Stage::Over;
                }
            }
            Stage::Whole if all_delivered => self.stage = Stage::Over,
            Stage::Damaged {
                last_good,
                checkpoints: before,
            } if all_delivered || invocations >= self.damaged_at + self.plan.mended_after => {
                self.check_settled(before, checkpoints, last_good)?;
                self.cloud.mend((**last_good).clone())?;
                self.stage = Stage::Mended;
            }
            _ => {}
        }
        Ok(())
    }

    /// Every event of the user that was settled while nobody could read the profile waits on `rejected`, unless it was
    /// settled before, or had nothing to do.
    fn check_settled(&self, before: &[usize], now: &[usize], last_good: &ProfileItem) -> Result<(), String> {
        let parked = self.cloud.parked_places(&self.plan.user)?;
        if !self.cloud.is_in_order(&parked, last_good, self.lanes) {
            return Err(format!("parked out of order: {parked:?}"));
        }
        for (lane, records) in self.lanes.iter().enumerate() {
            for record in &records[before[lane]..now[lane]] {
                let place = (record.shard_id.clone(), record.sequence_number.clone());
                let is_users = user_of(record).as_deref() == Some(&self.plan.user);
                if is_users && self.cloud.would_apply(last_good, record, self.lanes) && !parked.contains(&place) {
                    return Err(format!("{place:?} was settled meanwhile, and is not parked"));
                }
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether a redrive is to be run now.
    fn wants_redrive(&self, invocations: u64, all_delivered: bool) -> bool {
        let is_time = all_delivered || invocations >= self.damaged_at + self.plan.redriven_after;
        match self.stage {
            Stage::Damaged { .. } => is_time && self.redrives == 0,
            Stage::Mended => is_time && (all_delivered || self.cloud.is_parked(&self.plan.user)),
            Stage::Whole | Stage::Over => false,
        }
    }

    /// Takes how a redrive ended. `had_all` says that everything was delivered before it began.
    fn note_redrive(
        &mut self,
        ended: Result<RedriveUserReport, RedriveUserError>,
        had_all: bool,
    ) -> Result<(), String> {
        let asked = std::mem::take(&mut self.passed_by);
        match ended.map(|report| report.end) {
            Ok(RedriveEnd::Done) if matches!(self.stage, Stage::Damaged { .. }) => {
                return Err("a redrive was done although the profile can't be read".to_owned());
            }
            Ok(RedriveEnd::Done) => {
                if had_all && !self.cloud.is_parked(&self.plan.user) {
                    self.stage = Stage::Over;
                }
            }
            // The profile came back with its mark, so nothing was applied out of turn: what was passed by is applied.
            Ok(RedriveEnd::PassedBy { .. }) if asked == PassedBy::Ask => self.passed_by = PassedBy::Skip,
            Ok(RedriveEnd::StillArriving) | Err(_) => {}
            Ok(end) => return Err(format!("a redrive ended with {end:?}")),
        }
        Ok(())
    }
}

/// The slot of a redrive, which is no container of a function, and has no lane.
const REDRIVE: usize = usize::MAX;

/// An invocation that is on its way, or a redrive. Of a redrive, `to` is 1 where everything was delivered before it.
struct Running {
    container: Container,
    /// Which of the containers it is.
    slot: usize,
    lane: usize,
    from: usize,
    to: usize,
    future: LocalBoxFuture<'static, Ended>,
}

impl Running {
    /// Lets it go on to its next call, or to its end.
    async fn advance(&mut self) -> Option<Ended> {
        std::future::poll_fn(|context| match self.future.as_mut().poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if self.container.take_turn_mark() => Poll::Ready(None),
            // It pauses before it tries again.
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// Delivers the records of each lane in order, as Lambda does: a batch comes again from where its response says, whole
/// when its container ended; a checkpoint may have got lost, so parts that are done come again; and with overlaps, a
/// batch is on its way in two containers at once. It never begins beyond the lane's checkpoint.
async fn deliver<F: Function>(
    new_container: impl Fn() -> F,
    lanes: &[Vec<Record>],
    disturbance: Disturbance,
    first_invocation: u64,
    mut damage: Option<&mut Damage<'_>>,
    random: &mut Rng,
    survived: &mut Survived,
) -> Result<(), String> {
    let mut containers: Vec<Arc<F>> = (0..CONTAINERS).map(|_| Arc::new(new_container())).collect();
    let mut checkpoints = vec![0; lanes.len()];
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut invocations = 0;
    loop {
        let all_delivered = (0..lanes.len()).all(|lane| checkpoints[lane] == lanes[lane].len());
        if let Some(damage) = damage.as_deref_mut() {
            damage.go_on(invocations, &checkpoints, all_delivered, survived)?;
            let redrives = running.iter().any(|other| other.slot == REDRIVE);
            if !redrives && damage.wants_redrive(invocations, all_delivered) && (all_delivered || random.u8(0..3) == 0)
            {
                running.push_back(start_redrive(damage, disturbance, all_delivered, random)?);
                survived.redrives += 1;
            }
        }
        if all_delivered && damage.as_ref().is_none_or(|damage| damage.is_over()) {
            break;
        }
        if running.is_empty() || (running.len() < CONTAINERS && random.u8(0..3) == 0) {
            let next = next_batch(lanes, &checkpoints, &running, disturbance, random);
            let free = (0..CONTAINERS).filter(|slot| running.iter().all(|other| other.slot != *slot));
            let free: Vec<usize> = free.collect();
            if let (Some((lane, from, to)), Some(slot)) = (next, random.choice(free)) {
                if random.u8(0..30) == 0 {
                    // Lambda ends containers that wait.
                    containers[slot] = Arc::new(new_container());
                    survived.cold_starts += 1;
                }
                let is_disturbed = invocations < DISTURBED_INVOCATIONS_MAX;
                let context = InvocationContext {
                    number: first_invocation + invocations,
                    fault_one_in: if is_disturbed { disturbance.fault_one_in } else { 0 },
                    may_hang: is_disturbed && disturbance.fault_one_in > 0 && random.u8(0..16) == 0,
                };
                let time = if context.may_hang { SHORT } else { LONG };
                let flow = containers[slot].clone().invoke(payload(&lanes[lane][from..to]), time);
                let container = Container::default();
                let in_container = container.clone();
                let overlaps = running
                    .iter()
                    .any(|other| other.lane == lane && from < other.to && other.from < to);
                survived.overlaps += u64::from(overlaps);
                survived.invocations += 1;
                survived.deliveries += (to - from) as u64;
                invocations += 1;
                if invocations > INVOCATIONS_MAX {
                    return Err(format!("{invocations} invocations, and still at {checkpoints:?}"));
                }
                running.push_back(Running {
                    container,
                    slot,
                    lane,
                    from,
                    to,
                    future: Box::pin(INVOCATION.scope(context, async move {
                        in_container.run(flow).await.map(Finished::Batch)
                    })),
                });
            }
        }
        let chosen = random.usize(0..running.len().max(1));
        let Some(mut invocation) = running.remove(chosen) else {
            continue;
        };
        match invocation.advance().await {
            None => running.push_back(invocation),
            Some(Err(ContainerEnded)) if invocation.slot == REDRIVE => {}
            Some(Ok(Finished::Redrive(ended))) => {
                if let Some(damage) = damage.as_deref_mut() {
                    damage.note_redrive(*ended, invocation.to > 0)?;
                }
            }
            Some(Err(ContainerEnded)) => {
                containers[invocation.slot] = Arc::new(new_container());
                survived.cold_starts += 1;
            }
            Some(Ok(Finished::Batch(response))) => {
                let records = &lanes[invocation.lane][invocation.from..invocation.to];
                let done = match response?.retries_from() {
                    None => invocation.to,
                    Some(number) => {
                        let index = records.iter().position(|record| record.sequence_number == number);
                        invocation.from + index.ok_or("the response names a record that is not of its batch")?
                    }
                };
                let checkpoint = &mut checkpoints[invocation.lane];
                *checkpoint = done.max(*checkpoint);
            }
        }
    }
    // Those that are still on their way are ended: what they had to do is done.
    Ok(())
}

/// Begins a redrive of the damaged user's parked events.
fn start_redrive(
    damage: &mut Damage<'_>,
    disturbance: Disturbance,
    all_delivered: bool,
    random: &mut Rng,
) -> Result<Running, String> {
    damage.redrives += 1;
    if damage.redrives > REDRIVES_MAX {
        return Err(format!("{REDRIVES_MAX} redrives, and the user is still parked"));
    }
    let is_disturbed = damage.redrives <= DISTURBED_REDRIVES_MAX;
    let context = InvocationContext {
        number: FIRST_REDRIVE + damage.redrives,
        fault_one_in: if is_disturbed { disturbance.fault_one_in } else { 0 },
        may_hang: is_disturbed && disturbance.fault_one_in > 0 && random.u8(0..8) == 0,
    };
    let time = if context.may_hang { SHORT } else { LONG };
    let flow = damage.cloud.redrive(&damage.plan.user, damage.passed_by, time);
    let container = Container::default();
    let in_container = container.clone();
    Ok(Running {
        container,
        slot: REDRIVE,
        lane: REDRIVE,
        from: 0,
        to: usize::from(all_delivered),
        future: Box::pin(INVOCATION.scope(context, async move {
            let ended = in_container.run(flow).await;
            ended.map(|ended| Finished::Redrive(Box::new(ended)))
        })),
    })
}

/// A batch to deliver next: its lane, its first record, and the one after its last.
fn next_batch(
    lanes: &[Vec<Record>],
    checkpoints: &[usize],
    running: &VecDeque<Running>,
    disturbance: Disturbance,
    random: &mut Rng,
) -> Option<(usize, usize, usize)> {
    let may_start = |lane: usize| {
        !lanes[lane].is_empty() && (disturbance.overlaps || running.iter().all(|other| other.lane != lane))
    };
    let open = (0..lanes.len()).filter(|lane| may_start(*lane) && checkpoints[*lane] < lanes[*lane].len());
    let mut choices: Vec<usize> = open.collect();
    if random.u8(0..10) == 0 {
        // A lane that is through comes again.
        choices.extend((0..lanes.len()).filter(|lane| may_start(*lane)));
    }
    let lane = random.choice(choices)?;
    let checkpoint = checkpoints[lane];
    let goes_back = checkpoint == lanes[lane].len() || random.u8(0..5) == 0;
    let from = if goes_back {
        random.usize(0..=checkpoint)
    } else {
        checkpoint
    };
    let to = (from + random.usize(1..=BATCH_RECORDS_MAX)).min(lanes[lane].len());
    (from < to).then_some((lane, from, to))
}
