//! The pure core of Usher.
//!
//! Everything here is a function of its arguments (P7): no clock, randomness, environment or I/O. *Now* is always the
//! arrival time of the record at hand, so a redelivered record plans as it did the first time.
//!
//! The way through, one module a step:
//! [`event`] is what happened, [`batch`] sorts a batch's events by user, [`profile`] is what is known of a user,
//! [`journey`] what the operator asked for, [`fold`] applies one event to one profile, [`timers`] knows what is due,
//! [`rules`] decides what fires within what [`policy`] allows, and [`plan`] does all of that for one user's events of a batch and returns what to write and what to emit.

pub mod bandit;
pub mod batch;
pub mod condition;
pub mod estimate;
pub mod event;
pub mod explain;
pub mod feature;
pub mod fold;
pub mod guard;
pub mod hash;
pub mod journey;
pub mod json;
pub mod limits;
pub mod local_time;
pub mod merge;
pub mod off_policy;
pub mod offers;
pub mod plan;
pub mod policy;
pub mod profile;
pub mod recent_event_ids;
pub mod rules;
pub mod sequence_number;
pub mod sessions;
pub mod snapshots;
#[cfg(test)]
mod testing;
pub mod time;
pub mod timers;
pub mod trends;
pub mod trigger;
pub mod user_agent;
pub mod value;
pub mod window;
