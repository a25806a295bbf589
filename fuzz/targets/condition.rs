//! Conditions, one a line: errors, or the same answer from its typed form and from the interpreter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_domain::condition::{Condition, Names, Scope};
use usher_domain::snapshots::Snapshots;
use usher_fuzz::{TEST_JOURNEY, arrived_at, known_event, plan};

fuzz_target!(|sources: &str| sources.lines().for_each(check));

fn check(source: &str) {
    let mut names = Names::of(&TEST_JOURNEY);
    let condition = match Condition::compile(source, &mut names) {
        Ok(condition) => condition,
        Err(errors) => return assert!(!errors.is_empty()),
    };
    // The condition's own traits would be laid out in its journey, not in this one.
    if names.traits != TEST_JOURNEY.traits {
        return;
    }
    let event = known_event();
    let profile = plan(std::slice::from_ref(&event));
    let scope = Scope {
        journey: &TEST_JOURNEY,
        event: &event,
        profile: &profile,
        snapshots: Snapshots::none(),
        now: arrived_at(),
    };
    let met = condition.is_met(&scope);
    assert_eq!(
        met.ok(),
        condition.is_met_interpreted(&scope).ok(),
        "typed form and interpreter differ"
    );
    condition.seen(&scope);
}
