//! P1, P2, P3, P5 under faults: nothing lost, nothing twice. `usher_tests::fault_runs` says what is compared.

use std::time::Instant;

use usher_tests::fault_runs::survived::Survived;
use usher_tests::fault_runs::{every_call, random, run_all};

/// Seeds of a test run. `cargo run -p usher-tests --bin fault-runs` makes 10,000 runs and prints the table.
const SEEDS: u64 = 1000;
/// Failures that are printed at most.
const FAILURES_SHOWN_MAX: usize = 5;

fn shown(failures: &[String]) -> String {
    let first: Vec<&str> = failures.iter().take(FAILURES_SHOWN_MAX).map(String::as_str).collect();
    format!("{} runs failed, such as\n{}", failures.len(), first.join("\n\n"))
}

/// What was not met of calls that every run makes. Those of parking are rare: the 10,000 runs meet all of them.
fn missing_but_parking(survived: &Survived) -> Vec<String> {
    let mut missing = survived.missing();
    missing.retain(|call| !call.starts_with("mark as parked") && !call.starts_with("read parked"));
    missing
}

#[test]
fn p1_p2_p3_p5_every_call_may_fail_in_every_way() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let calls = runtime
        .block_on(every_call::calls_without_faults())
        .unwrap_or_else(|why| panic!("without faults: {why}"));
    assert!(calls.len() >= 60, "the run makes only {} calls", calls.len());
    let runs = every_call::all_runs(&calls);
    let started = Instant::now();
    let survived = run_all(&runs, every_call::run, |one| format!("`every_call::run` with {one:?}"))
        .unwrap_or_else(|failures| panic!("{}", shown(&failures)));
    assert_eq!(missing_but_parking(&survived), Vec::<String>::new(), "a call never met");
    println!(
        "{} calls, {} runs in {:?}\n{survived}",
        calls.len(),
        runs.len(),
        started.elapsed()
    );
}

#[test]
fn p1_p2_p3_p5_any_seed_comes_out_as_the_serial_fold() {
    let seeds: Vec<u64> = (0..SEEDS).collect();
    let survived = run_all(&seeds, random::run, |seed| random::command(*seed))
        .unwrap_or_else(|failures| panic!("{}", shown(&failures)));
    assert_eq!(missing_but_parking(&survived), Vec::<String>::new(), "a call never met");
    assert!(
        survived.damaged_users > SEEDS / 10 && survived.parked_records > 0,
        "{survived}"
    );
    assert!(survived.overlaps > SEEDS && survived.cold_starts > SEEDS, "{survived}");
}
