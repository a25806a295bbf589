//! Timers of random runs: when everything was delivered, the sweeper wakes whoever is due, and profile-writer takes the
//! wake-ups, as disturbed as everything else.
//!
//! Nobody is woken before: then a late event could come after what it makes moot, and who was quicker would decide (which
//! `domain::timers` tests by itself). What is due by an event's arrival is made by that event, in all runs.

use fastrand::Rng;
use usher_domain::time::Timestamp;
use usher_pipeline::memory::Container;
use usher_pipeline::timer_sweeper::{SweepError, Swept};

use super::{Disturbance, INVOCATION, INVOCATIONS_MAX, InvocationContext, Plan, SHORT, deliver, parallel_lanes};
use crate::fault_runs::cloud::MemoryCloud;
use crate::fault_runs::survived::Survived;
use crate::lambda_event::LONG;

/// Sweeps after which their calls fail no more.
const DISTURBED_SWEEPS_MAX: u64 = 8;
/// Sweeps after which a run that has not ended never will.
const SWEEPS_MAX: u64 = 100;
/// The number of the first sweep, where invocations have theirs: beyond all of them, and before redrives.
const FIRST_SWEEP: u64 = 1 << 31;
/// Invocations of profile-writer for the first wake-ups: beyond those for events and triggers.
const FIRST_ROUND: u64 = 2 * INVOCATIONS_MAX;

/// Sweeps until nobody is due at `end`.
///
/// # Errors
/// When that never comes.
pub(super) async fn until_nobody_is_due(
    cloud: &MemoryCloud,
    plan: &Plan,
    end: Timestamp,
    random: &mut Rng,
    survived: &mut Survived,
) -> Result<(), String> {
    let disturbance = Disturbance::of(random);
    let mut sweeper = cloud.sweeper();
    for round in 0..SWEEPS_MAX {
        if !cloud.is_anybody_due(end) {
            return Ok(());
        }
        if random.bool() {
            // It knows nothing of whom it woke.
            sweeper = cloud.sweeper();
        }
        let is_disturbed = round < DISTURBED_SWEEPS_MAX;
        let fault_one_in = if is_disturbed { disturbance.fault_one_in } else { 0 };
        let may_hang = fault_one_in > 0 && random.bool();
        let context = InvocationContext {
            number: FIRST_SWEEP + round,
            fault_one_in,
            may_hang,
        };
        let time = if may_hang { SHORT } else { LONG };
        let container = Container::default();
        let swept = INVOCATION.scope(context, container.run(cloud.sweep(&sweeper, end, time)));
        survived.sweeps += 1;
        match swept.await {
            // What one sweep did not, the next one does.
            Ok(Ok(Swept { .. }) | Err(SweepError::NothingRead { .. })) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => sweeper = cloud.sweeper(),
        }
        let lanes: Vec<_> = cloud
            .take_wake_ups(end)
            .iter()
            .flat_map(|shard| parallel_lanes(shard, plan.setup.parallelization_factor))
            .collect();
        survived.wake_ups += lanes.iter().map(Vec::len).sum::<usize>() as u64;
        let first_invocation = FIRST_ROUND + round * INVOCATIONS_MAX;
        deliver(
            || cloud.new_writer(plan.learns_meanwhile),
            &lanes,
            Disturbance {
                fault_one_in,
                ..disturbance
            },
            first_invocation,
            None,
            random,
            survived,
        )
        .await?;
    }
    Err(format!("after {SWEEPS_MAX} sweeps there are still users who are due"))
}
