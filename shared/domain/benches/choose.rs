//! What a decision costs: 50 candidates, 32 numbers of context, by each learner; and what a snapshot costs, which is made in
//! the background and serves until the next one. A decision includes turning typed values into numbers (`context`).
//!
//! `cargo bench -p usher-domain --bench choose`

use std::collections::BTreeMap;
use std::sync::LazyLock;

use divan::{Bencher, black_box};
use usher_domain::bandit::context::{Content, Context, Feature, FeatureKind, Layout};
use usher_domain::bandit::learner::{Algorithm, Learner, Scope};
use usher_domain::bandit::snapshot::{Candidate, ModelSnapshot};
use usher_domain::bandit::state::{Outcome, SlotState};
use usher_domain::hash::hash_parts;
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
