//! The shell around the pure core: ports, flows, retries and telemetry.
//!
//! A flow reads what planning needs, plans (a pure function of `usher-domain`), and carries the plan out. It talks to
//! the outside through [`ports`] only and imports no SDK, so the same flow runs in Lambda, in the local cloud and over
//! the in-memory fakes.

pub mod ports;
