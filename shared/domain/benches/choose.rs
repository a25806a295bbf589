//! What a decision costs: 50 candidates, 32 numbers of context, by each learner; and what a snapshot costs, which is made in
//! the background and serves until the next one. A decision includes turning typed values into numbers (`context`).
//! `decide` is the whole way of an event on which a rule fires, with its decision as it is stored: by a rule that offers one
//! content, and by rules that choose.
//!
//! `cargo bench -p usher-domain --bench choose`

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use usher_domain::bandit::context::{Content, Context, Feature, FeatureKind, Layout};
use usher_domain::bandit::learner::{Algorithm, Learner, Scope};
use usher_domain::bandit::snapshot::{Candidate, ModelSnapshot};
use usher_domain::bandit::state::{Outcome, SlotState};
use usher_domain::event::{ArrivedEvent, Event, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::hash::hash_parts;
use usher_domain::journey::Journey;
use usher_domain::plan::plan_user;
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::{Models, SlotModel, Snapshots};
use usher_domain::time::Timestamp;
use usher_domain::value::Value;

const CANDIDATES: u64 = 50;
const NUMBERS: u64 = 32;
const OUTCOMES: u64 = 20_000;
const CONTEXTS: u64 = 64;
const LEARNERS: [&str; 7] = [
    "LinUCB",
    "LinUCB shared",
    "linear Thompson",
    "linear Thompson shared",
    "Thompson",
    "epsilon-greedy",
    "fixed split",
];

struct World {
    layout: Layout,
    names: Vec<String>,
    arms: Vec<String>,
    contents: Vec<Content>,
    state: SlotState,
}

static WORLD: LazyLock<World> = LazyLock::new(world);

fn main() {
    divan::main();
}

fn learner(name: &str) -> Learner {
    Learner::new(match name {
        "LinUCB" => Algorithm::LinUcb(Scope::PerArm),
        "LinUCB shared" => Algorithm::LinUcb(Scope::Shared),
        "linear Thompson" => Algorithm::LinearThompson(Scope::PerArm),
        "linear Thompson shared" => Algorithm::LinearThompson(Scope::Shared),
        "Thompson" => Algorithm::Thompson,
        "epsilon-greedy" => Algorithm::EpsilonGreedy {
            epsilon: 0.05,
            scope: Scope::PerArm,
        },
        _ => Algorithm::FixedSplit(BTreeMap::new()),
    })
}

fn chance(parts: &[u64]) -> f64 {
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    (hash_parts(&[&bytes]) as u32) as f64 / f64::from(u32::MAX)
}

fn world() -> World {
    let names: Vec<String> = (0..NUMBERS).map(|number| format!("feature_{number}")).collect();
    let feature = |name: &String| Feature {
        name: name.clone(),
        kind: FeatureKind::Number,
    };
    let of_content = [("price", FeatureKind::Number), ("is_new", FeatureKind::Bool)];
    let of_content = of_content.map(|(name, kind)| Feature {
        name: name.to_owned(),
        kind,
    });
    let layout = Layout::new(names.iter().map(feature).collect(), of_content.to_vec()).expect("the layout fits");
    let content = |number: u64| {
        layout.content(|name| match name {
            "price" => Value::Float(10.0 * chance(&[number, 1])),
            _ => Value::Bool(number.is_multiple_of(3)),
        })
    };
    let contents: Vec<Content> = (0..CANDIDATES).map(content).collect();
    let arms: Vec<String> = (0..CANDIDATES).map(|number| format!("content-{number}")).collect();
    let mut state = SlotState::new(&layout, None);
    let snapshot = ModelSnapshot::new(&state, &layout, &learner("LinUCB"));
    for outcome in 0..OUTCOMES {
        let arm = (outcome % CANDIDATES) as usize;
        let context = layout.context(|name| values(&names, name, outcome), snapshot.standards());
        let rate = if outcome % 3 == arm as u64 % 3 { 0.3 } else { 0.2 };
        state.learn(
            &layout,
            &Outcome {
                arm: &arms[arm],
                context: &context,
                content: &contents[arm],
                reward: f64::from(u8::from(chance(&[outcome, 2]) < rate)),
                previous: None,
                at: Timestamp::from_epoch_ms(0),
            },
        );
    }
    World {
        layout,
        names,
        arms,
        contents,
        state,
    }
}

fn values(names: &[String], name: &str, row: u64) -> Value<'static> {
    let number = names.iter().position(|other| other == name).unwrap_or(0) as u64;
    Value::Float(100.0 * chance(&[row, number, 3]))
}

fn contexts(world: &World, snapshot: &ModelSnapshot) -> Vec<Context> {
    let context = |row| {
        world
            .layout
            .context(|name| values(&world.names, name, row), snapshot.standards())
    };
    (0..CONTEXTS).map(context).collect()
}

#[divan::bench(args = LEARNERS)]
fn choose(bencher: Bencher<'_, '_>, name: &str) {
    let world = &*WORLD;
    let snapshot = ModelSnapshot::new(&world.state, &world.layout, &learner(name));
    let contexts = contexts(world, &snapshot);
    let with_content = world.arms.iter().zip(&world.contents);
    let candidates: Vec<Candidate<'_>> = with_content
        .map(|(arm, content)| Candidate {
            arm,
            content,
            score: None,
        })
        .collect();
    let mut seed = 0u128;
    bencher.bench_local(|| {
        seed += 1;
        let context = &contexts[(seed % u128::from(CONTEXTS)) as usize];
        black_box(snapshot.choose(context, black_box(&candidates), seed))
    });
}

#[divan::bench]
fn context(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    let snapshot = ModelSnapshot::new(&world.state, &world.layout, &learner("LinUCB"));
    let numbers: Vec<f64> = (0..NUMBERS).map(|number| 100.0 * chance(&[number])).collect();
    bencher.bench_local(|| {
        let mut next = numbers.iter();
        // In the layout's order, as a journey's own features are found by index.
        let next = std::cell::RefCell::new(&mut next);
        let value_of = |_: &str| Value::Float(next.borrow_mut().next().copied().unwrap_or(0.0));
        black_box(world.layout.context(value_of, snapshot.standards()))
    });
}

#[divan::bench(args = ["LinUCB", "LinUCB shared"])]
fn snapshot(bencher: Bencher<'_, '_>, name: &str) {
    let world = &*WORLD;
    bencher.bench_local(|| ModelSnapshot::new(black_box(&world.state), &world.layout, &learner(name)));
}

#[divan::bench]
fn learn(bencher: Bencher<'_, '_>) {
    let world = &*WORLD;
    let mut state = world.state.clone();
    let snapshot = ModelSnapshot::new(&world.state, &world.layout, &learner("LinUCB"));
    let contexts = contexts(world, &snapshot);
    let mut row = 0;
    bencher.bench_local(|| {
        row += 1;
        let arm = row % world.arms.len();
        state.learn(
            &world.layout,
            &Outcome {
                arm: &world.arms[arm],
                context: &contexts[row % contexts.len()],
                content: &world.contents[arm],
                reward: 1.0,
                previous: None,
                at: Timestamp::from_epoch_ms(0),
            },
        )
    });
}

// ---- through a rule

const DECIDING: [&str; 7] = [
    "offer",
    "linucb",
    "linear_thompson",
    "linear_thompson shared",
    "thompson",
    "epsilon_greedy",
    "fixed_split",
];

/// A journey with one rule, which offers, or chooses by a learner that sees 32 features and two of each content.
fn journey(deciding: &str) -> Journey {
    let (learner, shared) = match deciding.split_once(' ') {
        Some((learner, _)) => (learner, "    shared: true\n"),
        None if matches!(deciding, "thompson" | "fixed_split") => (deciding, ""),
        None => (deciding, "    shared: false\n"),
    };
    let list = |line: &dyn Fn(u64) -> String, count: u64| (0..count).map(line).collect::<String>();
    let features = list(&|number| format!("  f{number}: {{ count: click }}\n"), NUMBERS);
    let context = list(&|number| format!("      f{number}: features.f{number}\n"), NUMBERS);
    let contents = list(
        &|number| {
            let price = 10.0 * chance(&[number, 1]);
            format!(
                "  - {{ id: content-{number}, attributes: {{ price: {price:.2}, is_new: {} }} }}\n",
                number % 3 == 0
            )
        },
        CANDIDATES,
    );
    let (slots, what) = match deciding {
        "offer" => (String::new(), "offer: content-0"),
        _ => (
            format!(
                "slots:\n  s:\n    learner: {learner}\n{shared}    context:\n{context}    contents:\n      price: content.price\n      is_new: content.is_new\n"
            ),
            "choose: all",
        ),
    };
    let text = format!(
        "journey: j\nfeatures:\n{features}{slots}contents:\n{contents}triggers: [{{ id: r, on: click, {what}, slot: s }}]\n"
    );
    Journey::parse(&text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", &text)))
}

/// What is known of all users: a model of the slot that saw 20,000 outcomes.
fn snapshots(journey: &Journey) -> Snapshots {
    let Some(learner) = journey.learners.first() else {
        return Snapshots::default();
    };
    let mut state = SlotState::new(&learner.layout, None);
    for outcome in 0..OUTCOMES {
        let arm = outcome % CANDIDATES;
        let values: Vec<_> = (0..NUMBERS)
            .map(|number| Some(Value::Int((100.0 * chance(&[outcome, number, 3])) as i64)))
            .collect();
        let own = [
            Some(Value::Float(10.0 * chance(&[arm, 1]))),
            Some(Value::Bool(arm.is_multiple_of(3))),
        ];
        let rate = if outcome % 3 == arm % 3 { 0.3 } else { 0.2 };
        state.learn(
            &learner.layout,
            &Outcome {
                arm: &format!("content-{arm}"),
                context: &learner.layout.context_of(&values, learner.prior.standards()),
                content: &learner.layout.content_of(&own),
                reward: f64::from(u8::from(chance(&[outcome, 2]) < rate)),
                previous: None,
                at: Timestamp::from_epoch_ms(0),
            },
        );
    }
    let model = ModelSnapshot::new(&state, &learner.layout, &learner.learner);
    Snapshots {
        models: Arc::new(Models::new([("s".to_owned(), SlotModel::Ready(Arc::new(model)))])),
        ..Snapshots::default()
    }
}

#[divan::bench(args = DECIDING)]
fn decide(bencher: Bencher<'_, '_>, deciding: &str) {
    let journey = journey(deciding);
    let snapshots = snapshots(&journey);
    let shard = Shard {
        key: ShardKey::of("interactions", "shardId-000000000000"),
        id: "shardId-000000000000".to_owned(),
    };
    let click = |number: u64| {
        let (id, at) = (
            format!("e{number}"),
            Timestamp::from_epoch_ms(1_767_607_200_000 + number as i64 * 1000),
        );
        ArrivedEvent {
            event: Event {
                id_hash: number + 1,
                id: id.into(),
                event_type: "click".into(),
                at,
                user: "u".into(),
                ..Event::default()
            },
            arrived_at: at,
            shard: &shard,
            position: Position {
                sequence_number: (number + 1).into(),
                sub_sequence_number: 0,
            },
        }
    };
    // A user of whom something is known.
    let mut profile = Profile::new(&journey);
    for number in 0..40 {
        profile = plan_user(&journey, &snapshots, profile, [&click(number)]).profile;
        profile.outbox.clear();
    }
    let mut number = 40;
    bencher
        .with_inputs(|| {
            number += 1;
            (profile.clone(), click(number))
        })
        .bench_local_values(|(profile, click)| plan_user(&journey, &snapshots, profile, [&click]));
}
