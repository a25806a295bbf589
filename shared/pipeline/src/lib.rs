//! The shell around the pure core: ports, flows, retries and telemetry.
//!
//! A flow reads what planning needs, plans (a pure function of `usher-domain`), and carries the plan out. It talks to
//! the outside through [`ports`] only and imports no SDK, so the same flow runs in Lambda, in the local cloud and over
//! the in-memory fakes.
//!
//! [`profile_writer`] is interactions → profiles, triggers, rejected; [`content_trends`] is interactions → trends, which
//! [`trend_reader`] reads; [`trigger_delivery`] is triggers → decisions and whoever shows them; [`outcome_learner`] is triggers →
//! models, which [`snapshots`] keeps at hand for deciding; [`timer_sweeper`] wakes the users whose next timer is due;
//! [`redrive_user`] is a parked user's events from `rejected` into the mended profile.

pub mod content_trends;
pub mod following_writer;
pub mod invocation;
pub mod journey_source;
pub mod memory;
pub mod models;
mod outbox;
pub mod outcome_learner;
pub mod ports;
mod profile_cache;
pub mod profile_writer;
pub mod put_records;
pub mod redrive_user;
pub mod response;
pub mod retry;
pub mod snapshots;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod timer_sweeper;
pub mod trend_reader;
pub mod trigger_delivery;
