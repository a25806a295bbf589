//! Bytes to events and back.
//!
//! [`envelope`] reads what Lambda hands over, [`batch`] turns its records into plain bytes (base64, gzip), [`event`]
//! turns those into validated, normalised events, and [`reject`] is what becomes of the ones that can't be used.
//! [`profile_state`] is how a profile is stored, [`trigger`] how a decision looks on the
//! stream, and [`outcome`] what came of it.
//!
//! Everything borrows from the payload where it can: reading a typical record allocates nothing.

pub mod batch;
mod cursor;
pub mod envelope;
pub mod event;
pub mod model_file;
pub mod model_state;
mod normalise;
pub mod outcome;
pub mod profile_json;
pub mod profile_state;
pub mod reject;
pub mod trend_tile;
pub mod trigger;
