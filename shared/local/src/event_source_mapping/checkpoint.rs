//! One checkpoint per shard, which never passes a record that is not done. Pure.
//!
//! Lanes finish their records in any order; the checkpoint stands before the lowest that is still open.

use std::collections::VecDeque;

use crate::kinesis::SequenceNumber;

/// Where a reader stands on a shard.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    passed: Option<SequenceNumber>,
    /// Records read and not behind the checkpoint, in stream order.
    ahead: VecDeque<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    number: SequenceNumber,
    done: bool,
}

impl Checkpoint {
    pub fn at(passed: Option<SequenceNumber>) -> Self {
        Self {
            passed,
            ahead: VecDeque::new(),
        }
    }

    /// The last record behind the checkpoint.
    pub fn passed(&self) -> Option<SequenceNumber> {
        self.passed
    }

    /// Records that were read and are not behind the checkpoint, done or not.
    pub fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// A record was read. They are read in stream order; one that was read before is not counted again.
    pub fn read(&mut self, number: SequenceNumber) {
        let last = self.ahead.back().map(|ahead| ahead.number).or(self.passed);
        if Some(number) > last {
            self.ahead.push_back(Ahead { number, done: false });
        }
    }

    /// These records, in stream order, are done. Tells which of them were not done before.
    pub fn finish(&mut self, numbers: impl IntoIterator<Item = SequenceNumber>) -> Vec<bool> {
        let mut index = None;
        let mut fresh = Vec::new();
        for number in numbers {
            let from = *index.get_or_insert_with(|| self.ahead.partition_point(|ahead| ahead.number < number));
            let found = (from..self.ahead.len()).find(|at| self.ahead[*at].number >= number);
            index = found.or(Some(self.ahead.len()));
            let ahead = found
                .and_then(|at| self.ahead.get_mut(at))
                .filter(|ahead| ahead.number == number);
            fresh.push(ahead.is_some_and(|ahead| !std::mem::replace(&mut ahead.done, true)));
        }
        self.advance();
        fresh
    }

    /// Everything up to this number is done, read or not: it is past its retention.
    pub fn pass(&mut self, number: Option<SequenceNumber>) {
        for ahead in self.ahead.iter_mut().take_while(|ahead| Some(ahead.number) <= number) {
            ahead.done = true;
        }
        self.advance();
        if self.ahead.is_empty() {
            self.passed = self.passed.max(number);
        }
    }

    fn advance(&mut self) {
        while let Some(first) = self.ahead.front().filter(|first| first.done) {
            self.passed = Some(first.number);
            self.ahead.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Checkpoint;
    use crate::kinesis::SequenceNumber;

    fn number(value: u32) -> SequenceNumber {
        SequenceNumber::parse(&value.to_string()).unwrap()
    }

    fn read(through: u32) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        (1..=through).for_each(|value| checkpoint.read(number(value)));
        checkpoint
    }

    #[test]
    fn it_never_passes_a_record_that_is_not_done() {
        // (what is finished, one call each; where the checkpoint stands after each call)
        let cases: [(&[&[u32]], &[u32]); 5] = [
            (&[&[1], &[2], &[3, 4, 5]], &[1, 2, 5]),
            (&[&[2, 3], &[5], &[1], &[4]], &[0, 0, 3, 5]),
            (&[&[1, 3, 5], &[2, 4]], &[1, 5]),
            // Done twice, as an overlapping batch does it.
            (&[&[1, 2], &[1, 2, 3], &[2, 3]], &[2, 3, 3]),
            // Never read.
            (&[&[9], &[1, 9]], &[0, 1]),
        ];
        for (calls, expected) in cases {
            let mut checkpoint = read(5);
            let stands: Vec<_> = calls
                .iter()
                .map(|call| {
                    checkpoint.finish(call.iter().map(|value| number(*value)));
                    checkpoint.passed()
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|value| (*value > 0).then(|| number(*value)))
                .collect();
            assert_eq!(stands, expected, "{calls:?}");
        }
    }

    #[test]
    fn a_record_is_done_once() {
        let mut checkpoint = read(4);
        assert_eq!(checkpoint.finish([2, 3].map(number)), [true, true]);
        assert_eq!(checkpoint.finish([1, 2, 3, 4].map(number)), [true, false, false, true]);
        assert_eq!(checkpoint.finish([1, 2].map(number)), [false, false]);
        assert_eq!(checkpoint.ahead(), 0);
        // Read again, as a reader that starts anew may.
        checkpoint.read(number(4));
        assert_eq!(checkpoint.ahead(), 0);
    }

    #[test]
    fn what_is_past_its_retention_is_passed() {
        let mut checkpoint = read(2);
        checkpoint.finish([number(2)]);
        checkpoint.pass(Some(number(7)));
        assert_eq!((checkpoint.passed(), checkpoint.ahead()), (Some(number(7)), 0));
    }
}
