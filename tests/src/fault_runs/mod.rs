//! Both functions over the in-memory ports, disturbed in every way, and compared with one serial fold (P1, P2, P3, P5).
//!
//! [`every_call`] walks one fixed run and lets each of its calls fail in each way. [`random`] makes runs from seeds:
//! events, batches, redelivery, overlapping containers and faults. Both ask [`serial`] what has to come out and
//! [`cloud`] what came out, and count in [`survived`] what was survived.
//!
//! What a consumer of the streams can see under faults, and the checks allow:
//! - `triggers`: the same decision any number of times, with the same id and the same bytes each time, a repeat also
//!   behind later decisions of the same user. Nothing under another id.
//! - `decisions`: each id once.
//! - the receiver of deliveries: the same id again only where noting an earlier delivery did not work out, or two
//!   containers delivered the same batch at once. It acts once by the id, which is in the `webhook-id` header.
//! - `rejected`: each bad record at least once; (stream, shard, sequence number) tells a repeat. Nothing else.
//!
//! One limit is known and kept out of the runs. Where a user's events come through several lanes (two shards; with a
//! parallelisation factor, two partition keys), redelivery is judged for each lane by its own guard. A producer's repeat
//! that was settled as a duplicate is stored as settled with the user's next write only; if its container ends before that
//! and other lanes then bring more events than the profile remembers ids, the repeat counts when it is delivered again.
//! Within one lane that can't happen: whatever fills the window moves the guard past the repeat. So the random runs let a
//! user who is spread over lanes remember all ids of the run.
//!
//! The promise needs one thing of the event source mapping: no batch begins beyond a record of its lane that is not
//! settled, as AWS documents for one shard, or with a parallelisation factor for one partition key. A batch that was given
//! up breaks it on purpose; its records come again as new ones (scenario `p5_given_up_then_redriven`).

pub mod cloud;
pub mod every_call;
pub mod random;
pub mod serial;
pub mod survived;

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::{FutureExt, StreamExt};

use survived::Survived;

/// Runs of one thread that are on their way at once. They mostly wait: for a pause before a call is tried again, or for a
/// call that never answers.
const RUNS_AT_ONCE: usize = 256;

/// Makes runs on all processors, many at once, and sums up what they survived. `name` tells of a run how to repeat it.
///
/// # Errors
/// What went wrong in each run that failed, and how to repeat it.
pub fn run_all<R, F>(
    runs: &[R],
    run: impl Fn(R) -> F + Sync,
    name: impl Fn(&R) -> String + Sync,
) -> Result<Survived, Vec<String>>
where
    R: Clone + Sync,
    F: Future<Output = Result<Survived, String>>,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (run, name) = (&run, &name);
    let on_thread = |thread: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| vec![error.to_string()])?;
        let mine = runs.iter().skip(thread).step_by(threads);
        let ended = futures::stream::iter(mine.map(|one| async move {
            // A panic is a failure of its run, not of all.
            let ended = AssertUnwindSafe(run(one.clone())).catch_unwind().await;
            let ended = ended.unwrap_or_else(|_| Err("it panicked; the message is above".to_owned()));
            ended.map_err(|why| format!("{why}\n  repeat it: {}", name(one)))
        }));
        let ended: Vec<_> = runtime.block_on(ended.buffer_unordered(RUNS_AT_ONCE).collect());
        summed(ended.into_iter().map(|ended| ended.map_err(|why| vec![why])))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || on_thread(thread)))
            .collect();
        summed(threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(vec!["a thread of runs panicked".to_owned()]))
        }))
    })
}

/// All of them added up, or all that went wrong.
fn summed(all: impl Iterator<Item = Result<Survived, Vec<String>>>) -> Result<Survived, Vec<String>> {
    let mut sum = Survived::default();
    let mut failures = Vec::new();
    for one in all {
        match one {
            Ok(survived) => sum.add(&survived),
            Err(whys) => failures.extend(whys),
        }
    }
    if failures.is_empty() { Ok(sum) } else { Err(failures) }
}
