//! A journey file: a journey, or errors that each name a place in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_domain::journey::Journey;

fuzz_target!(|text: &str| {
    match Journey::parse(text) {
        Ok(journey) => {
            journey.dispatch("click");
            journey.interpreted_conditions();
        }
        Err(diagnostics) => {
            assert!(!diagnostics.errors.is_empty());
            diagnostics.render("journey.yaml", text);
        }
    }
});
