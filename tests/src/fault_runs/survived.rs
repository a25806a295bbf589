//! Counting what was survived, and the table of it.

use std::collections::BTreeMap;
use std::fmt;

use usher_pipeline::memory::{Fault, Operation};

/// A port of the two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The `profiles` table.
    Profiles,
    /// The `triggers` stream.
    Triggers,
    /// The `rejected` stream.
    Rejected,
    /// The `rejected` stream, as a redrive reads it.
    Parked,
    /// The `decisions` table.
    Decisions,
    /// The receiver of decisions.
    Delivery,
    /// The index of due users.
    Due,
    /// The `interactions` stream, as the sweeper writes it.
    WakeUps,
    /// The `trends` table.
    Trends,
    /// The `models` table.
    Models,
}

/// The calls that can fail, in the order of the table's columns.
const CALLS: [(Port, Operation, &str); 16] = [
    (Port::Profiles, Operation::GetProfiles, "read profiles"),
    (Port::Profiles, Operation::PutProfile, "write a profile"),
    (Port::Profiles, Operation::MergeProfiles, "merge two profiles"),
    (Port::Profiles, Operation::ParkProfile, "mark as parked"),
    (Port::Triggers, Operation::PutRecords, "put triggers"),
    (Port::Rejected, Operation::PutRecords, "put rejects"),
    (Port::Parked, Operation::GetProfiles, "read parked"),
    (Port::Decisions, Operation::RecordDecision, "record a decision"),
    (Port::Delivery, Operation::Deliver, "deliver"),
    (Port::Decisions, Operation::SetDecisionStatus, "note a delivery"),
    (Port::Decisions, Operation::FileOutcome, "file an outcome"),
    (Port::Due, Operation::QueryDue, "find who is due"),
    (Port::WakeUps, Operation::PutRecords, "wake them"),
    (Port::Trends, Operation::PutTrendTile, "write a tile"),
    (Port::Models, Operation::GetModels, "read a model"),
    (Port::Models, Operation::WriteModels, "write a model"),
];

/// A kind of fault, in the order of the table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Fault::CrashBefore`]
    CrashBefore,
    /// [`Fault::CrashAfter`]
    CrashAfter,
    /// [`Fault::Hang`]
    Hang,
    /// [`Fault::HangAfter`]
    HangAfter,
    /// [`Fault::LostAnswer`]
    LostAnswer,
    /// [`Fault::Throttle`]
    Throttle,
    /// [`Fault::Partial`]
    Partial,
    /// [`Fault::PartialLost`]
    PartialLost,
    /// [`Fault::Refuse`]
    Refuse,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::CrashBefore,
        Kind::CrashAfter,
        Kind::Hang,
        Kind::HangAfter,
        Kind::LostAnswer,
        Kind::Throttle,
        Kind::Partial,
        Kind::PartialLost,
        Kind::Refuse,
    ];

    /// The kind of a fault.
    pub fn of(fault: &Fault) -> Kind {
        match fault {
            Fault::CrashBefore => Kind::CrashBefore,
            Fault::CrashAfter => Kind::CrashAfter,
            Fault::Hang => Kind::Hang,
            Fault::HangAfter => Kind::HangAfter,
            Fault::LostAnswer => Kind::LostAnswer,
            Fault::Throttle => Kind::Throttle,
            Fault::Partial(_) => Kind::Partial,
            Fault::PartialLost(_) => Kind::PartialLost,
            Fault::Refuse => Kind::Refuse,
        }
    }

    /// Whether a call can meet it.
    fn can_meet(self, port: Port, operation: Operation) -> bool {
        match self {
            Kind::Partial => has_parts(port, operation),
            Kind::PartialLost => operation == Operation::PutRecords,
            _ => true,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::CrashBefore => "crash before the call",
            Kind::CrashAfter => "crash after it took effect",
            Kind::Hang => "never answers, no effect",
            Kind::HangAfter => "never answers, took effect",
            Kind::LostAnswer => "error, but it took effect",
            Kind::Throttle => "throttled",
            Kind::Partial => "a part of it failed",
            Kind::PartialLost => "error, but a part took effect",
            Kind::Refuse => "refused once",
        }
    }
}

/// What runs have survived. It prints as Markdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survived {
    /// Runs.
    pub runs: u64,
    /// Records that were put, each counted once.
    pub records: u64,
    /// Invocations of either function.
    pub invocations: u64,
    /// Records that were handed to an invocation, each as often as it was.
    pub deliveries: u64,
    /// Invocations that began while another one with the same records was running.
    pub overlaps: u64,
    /// Containers that began with nothing in memory.
    pub cold_starts: u64,
    /// Triggers that were decided, each counted once.
    pub triggers: u64,
    /// Sweeps for users whose timers were due.
    pub sweeps: u64,
    /// Wake-ups that they put.
    pub wake_ups: u64,
    /// Runs in which something due was made ahead of an event because an outbox was full, and another lane's events came in
    /// between: their profiles are not compared.
    pub woken_runs: u64,
    /// What came of offers, each record counted once.
    pub outcomes: u64,
    /// Of these, those that a model learned.
    pub learned: u64,
    /// Events that count for trends, each counted once.
    pub counted: u64,
    /// How often a trigger, or what came of it, came on the stream again.
    pub repeated_triggers: u64,
    /// Keys that turned out to be another user's.
    pub pointers: u64,
    /// Users whose stored profile could not be read for a while.
    pub damaged_users: u64,
    /// Their records that were parked, each counted once.
    pub parked_records: u64,
    /// Redrives of them, those that ended early included.
    pub redrives: u64,
    /// The faults met, by kind and call.
    faults: BTreeMap<(Kind, Port, Operation), u64>,
}

impl Survived {
    /// Counts a fault that a call met.
    pub fn note(&mut self, fault: &Fault, port: Port, operation: Operation) {
        let kind = match Kind::of(fault) {
            // What has no parts is throttled instead.
            kind if kind.can_meet(port, operation) => kind,
            _ => Kind::Throttle,
        };
        *self.faults.entry((kind, port, operation)).or_default() += 1;
    }

    /// How many faults of this kind there were.
    pub fn count(&self, kind: Kind) -> u64 {
        let of_kind = self.faults.iter().filter(|((found, ..), _)| *found == kind);
        of_kind.map(|(_, count)| count).sum()
    }

    /// The kinds that some call could meet and none did, for each call.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (port, operation, call) in CALLS {
            for kind in Kind::ALL {
                if kind.can_meet(port, operation) && !self.faults.contains_key(&(kind, port, operation)) {
                    missing.push(format!("{call}: {}", kind.title()));
                }
            }
        }
        missing
    }

    /// Adds what other runs survived.
    pub fn add(&mut self, other: &Survived) {
        self.runs += other.runs;
        self.records += other.records;
        self.invocations += other.invocations;
        self.deliveries += other.deliveries;
        self.overlaps += other.overlaps;
        self.cold_starts += other.cold_starts;
        self.triggers += other.triggers;
        self.woken_runs += other.woken_runs;
        self.outcomes += other.outcomes;
        self.learned += other.learned;
        self.counted += other.counted;
        self.repeated_triggers += other.repeated_triggers;
        self.pointers += other.pointers;
        self.damaged_users += other.damaged_users;
        self.parked_records += other.parked_records;
        self.redrives += other.redrives;
        self.sweeps += other.sweeps;
        self.wake_ups += other.wake_ups;
        for (place, count) in &other.faults {
            *self.faults.entry(*place).or_default() += count;
        }
    }
}

impl fmt::Display for Survived {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "| Faults met |")?;
        for (_, _, title) in CALLS {
            write!(formatter, " {title} |")?;
        }
        writeln!(formatter, " all |\n|---|{}---:|", "---:|".repeat(CALLS.len()))?;
        for kind in Kind::ALL {
            write!(formatter, "| {} |", kind.title())?;
            for (port, operation, _) in CALLS {
                match self.faults.get(&(kind, port, operation)) {
                    Some(count) => write!(formatter, " {} |", grouped(*count))?,
                    None => write!(formatter, " |")?,
                }
            }
            writeln!(formatter, " {} |", grouped(self.count(kind)))?;
        }
        let all: u64 = Kind::ALL.into_iter().map(|kind| self.count(kind)).sum();
        writeln!(
            formatter,
            "\n{} runs: {} records, delivered {} times in {} invocations ({} at the same time as another one of the same records, \
             {} in a container that began cold). {} faults. {} triggers and {} outcomes, which came on the stream {} times more. {} of the outcomes were learned, and {} events counted for trends. \
             {} keys turned out to be another user's. {} users had a profile that could not be read for a while: {} records of theirs were parked, and {} redrives, \
             each of which could fail too, applied them. In {} runs, profiles are left out of the comparison: an outbox was full between two lanes. {} sweeps, likewise, woke users {} times, whose timers were due. Zero lost, zero twice.",
            grouped(self.runs),
            grouped(self.records),
            grouped(self.deliveries),
            grouped(self.invocations),
            grouped(self.overlaps),
            grouped(self.cold_starts),
            grouped(all),
            grouped(self.triggers),
            grouped(self.outcomes),
            grouped(self.repeated_triggers),
            grouped(self.learned),
            grouped(self.counted),
            grouped(self.pointers),
            grouped(self.damaged_users),
            grouped(self.parked_records),
            grouped(self.redrives),
            grouped(self.woken_runs),
            grouped(self.sweeps),
            grouped(self.wake_ups),
        )
    }
}

/// Whether a call can fail in parts.
pub fn has_parts(port: Port, operation: Operation) -> bool {
    let has_parts = matches!(
        operation,
        Operation::GetProfiles | Operation::GetModels | Operation::PutRecords
    );
    has_parts && port != Port::Parked
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn every_kind_that_was_not_met_is_named() {
        let mut survived = Survived::default();
        // Eleven of the calls can't fail in parts, and thirteen put no records.
        assert_eq!(survived.missing().len(), CALLS.len() * Kind::ALL.len() - 11 - 13);
        survived.note(&Fault::Throttle, Port::Triggers, Operation::PutRecords);
        assert!(!survived.missing().contains(&"put triggers: throttled".to_owned()));
        assert_eq!(survived.count(Kind::Throttle), 1);
    }
}
