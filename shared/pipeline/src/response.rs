//! What a function answers to its event source mapping.

use serde::Serialize;

/// A partial batch response.
///
/// It names at most one record: the first one that failed. Lambda retries everything from the lowest sequence number
/// that is named, so naming more would say no more (P3).
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchResponse {
    #[serde(rename = "batchItemFailures")]
    failures: Vec<BatchItemFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct BatchItemFailure {
    #[serde(rename = "itemIdentifier")]
    item_identifier: String,
}

impl BatchResponse {
    /// Everything is done.
    pub fn done() -> BatchResponse {
        BatchResponse::default()
    }

    /// Everything from this sequence number on is to be delivered again.
    pub fn retry_from(sequence_number: &str) -> BatchResponse {
        BatchResponse {
            failures: vec![BatchItemFailure {
                item_identifier: sequence_number.to_owned(),
            }],
        }
    }

    /// The sequence number from which to deliver again, where there is one.
    pub fn retries_from(&self) -> Option<&str> {
        self.failures.first().map(|failure| failure.item_identifier.as_str())
    }
}

/// The first record of a batch that has to be delivered again: what comes before it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPoint {
    /// The index of the record; the number of records where there is none.
    index: usize,
}

impl RetryPoint {
    /// Nothing to deliver again in a batch of this many records.
    pub(crate) fn none(records: usize) -> RetryPoint {
        RetryPoint { index: records }
    }

    /// Deliver again from this record on, or from an earlier one that is known already.
    pub(crate) fn lower_to(&mut self, index: usize) {
        self.index = self.index.min(index);
    }

    /// Whether the record with this index is settled: it is not delivered again.
    pub(crate) fn is_settled(self, index: usize) -> bool {
        index < self.index
    }

    /// The index from which to deliver again, in a batch of this many records.
    pub(crate) fn index_in(self, records: usize) -> Option<usize> {
        (self.index < records).then_some(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p3_the_response_names_one_item() {
        let json = |response: &BatchResponse| serde_json::to_string(response).expect("json");
        assert_eq!(json(&BatchResponse::done()), r#"{"batchItemFailures":[]}"#);
        let retry = BatchResponse::retry_from("4959");
        assert_eq!(json(&retry), r#"{"batchItemFailures":[{"itemIdentifier":"4959"}]}"#);
        assert_eq!(retry.retries_from(), Some("4959"));
    }

    #[test]
    fn p3_the_lowest_failure_decides() {
        let mut point = RetryPoint::none(10);
        assert_eq!(point.index_in(10), None);
        for (index, expected) in [(7, 7), (9, 7), (3, 3)] {
            point.lower_to(index);
            assert_eq!(point.index_in(10), Some(expected));
        }
        assert!(point.is_settled(2) && !point.is_settled(3));
    }
}
