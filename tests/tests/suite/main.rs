//! What holds across crates: the rules of the house, scenarios, contracts of the adapters, and the whole way through.
//!
//! One binary, so that linking is paid once.

mod any_delivery;
mod clock_and_order;
mod contracts;
mod end_to_end;
mod examples;
mod fault_runs;
mod hostile;
mod house_rules;
mod learning;
mod redrive;
mod scenarios;
mod trends;
mod workspace;
