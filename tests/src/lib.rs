//! What is tested across crates, written once: the contract that every implementation of a port keeps, Kinesis records
//! as Lambda hands them over, and runs of the pipeline under faults.

pub mod contract;
pub mod fault_runs;
pub mod lambda_event;
