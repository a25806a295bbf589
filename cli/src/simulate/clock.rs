//! The simulation's own time.

use std::time::{Duration, Instant};

use usher_domain::time::Timestamp;

/// When every simulation begins: a Monday morning. It lies in the past, since nothing arrives later than by the wall clock.
const BEGIN: &str = "2025-01-06T09:00:00Z";
const MS_PER_SECOND: f64 = 1_000.0;

/// A clock that runs some times quicker than the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedClock {
    started: Instant,
    begin: Timestamp,
    speed: f64,
}

impl SimulatedClock {
    /// A clock that starts now, at the simulation's beginning.
    pub fn start(speed: f64) -> SimulatedClock {
        SimulatedClock {
            started: Instant::now(),
            begin: begin(),
            speed,
        }
    }

    /// The simulation's time.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let passed = instant.saturating_duration_since(self.started);
        let passed_ms = passed.as_secs_f64() * self.speed * MS_PER_SECOND;
        self.begin.plus_ms(passed_ms as i64)
    }

    /// How long the machine has for this much of the simulation's time.
    pub fn of_the_machine(&self, simulated: Duration) -> Duration {
        simulated.div_f64(self.speed)
    }
}

/// When every simulation begins.
pub fn begin() -> Timestamp {
    BEGIN.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulations_time_passes_as_much_quicker() {
        assert_eq!(begin().epoch_ms(), 1_736_154_000_000);
        let clock = SimulatedClock::start(1_000.0);
        let later = clock.started + Duration::from_millis(5);
        assert_eq!(clock.at(later).ms_since(begin()), 5_000);
        assert_eq!(clock.of_the_machine(Duration::from_secs(10)), Duration::from_millis(10));
    }
}
