//! One invocation of a function.

use tokio::time::Instant;
use usher_wire::envelope::EnvelopeError;

use crate::journey_source::JourneyError;

/// What Lambda hands over.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The event, as it came.
    pub payload: &'a str,
    /// Lambda's id of the invocation, which its own log lines and traces carry too.
    pub request_id: &'a str,
    /// When the function must have answered: a margin before Lambda ends it.
    pub deadline: Instant,
}

/// Why an invocation failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// What Lambda handed over is no Kinesis batch.
    #[error("the invocation's payload can't be read")]
    Envelope(#[from] EnvelopeError),
    /// There is no journey to process it with.
    #[error("there is no journey to run")]
    Journey(#[from] JourneyError),
}
