//! What holds across crates. [`contract`] is what every implementation of the pipeline's ports keeps; the tests
//! themselves are in `tests/suite`.

pub mod contract;
