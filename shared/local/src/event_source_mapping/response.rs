//! What a function's answer says about the batch, and what follows from it. Pure.
//!
//! As AWS documents it: an empty or null list, or nothing, is success; the lowest sequence number named is where to go on;
//! an empty, null, unknown or misnamed identifier fails the whole batch.

use std::time::Duration;

use serde::Deserialize;

use crate::kinesis::SequenceNumber;

/// How an invocation ended for its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every record is done.
    Succeeded,
    /// The records before this index are done; from it on, all are to be sent again.
    FailedFrom(usize),
    /// No record is done.
    Failed(String),
}

#[derive(Deserialize)]
struct EventResponse {
    #[serde(rename = "batchItemFailures", default)]
    failures: Option<Vec<ItemFailure>>,
}

#[derive(Deserialize)]
struct ItemFailure {
    #[serde(rename = "itemIdentifier", default)]
    identifier: Option<String>,
}

/// Takes a response apart. `numbers` are the batch's sequence numbers in stream order.
pub(super) fn take_apart(response: &[u8], numbers: &[SequenceNumber]) -> Verdict {
    if response.trim_ascii().is_empty() {
        return Verdict::Succeeded;
    }
    let failures = match serde_json::from_slice::<Option<EventResponse>>(response) {
        Ok(response) => response.and_then(|response| response.failures).unwrap_or_default(),
        Err(error) => return Verdict::Failed(format!("the response is not a batch response: {error}")),
    };
    let mut lowest: Option<usize> = None;
    for failure in failures {
        let Some(identifier) = failure.identifier.filter(|identifier| !identifier.is_empty()) else {
            return Verdict::Failed("the response has an item without an itemIdentifier".to_owned());
        };
        let index = SequenceNumber::parse(&identifier).and_then(|number| numbers.binary_search(&number).ok());
        let Some(index) = index else {
            return Verdict::Failed(format!("the response names {identifier}, which is not in the batch"));
        };
        lowest = Some(lowest.map_or(index, |lowest| lowest.min(index)));
    }
    lowest.map_or(Verdict::Succeeded, Verdict::FailedFrom)
}

/// How failed batches are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryPolicy {
    /// Retries after the first attempt; `None` is without end.
    pub attempts_max: Option<u32>,
    /// Whether a batch that failed is split in two.
    pub bisects: bool,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
}

/// What to do with a batch next. The records before `from` are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextStep {
    /// All are done.
    Advance,
    /// Send those from `from` on again; their first one was tried `attempts` times.
    Retry { from: usize, attempts: u32, wait: Duration },
    /// Try those before `at` and then the others, each as a batch of its own. This uses up no retry.
    Bisect { at: usize, wait: Duration },
    /// Drop those from `from` on.
    GiveUp { from: usize, attempts: u32 },
}

/// Decides for a batch of so many records. `attempts` counts how often its first record was tried, this time included.
/// Progress begins a new count, because what now comes first was tried once.
///
/// A batch that fails as a whole is split in two where the policy bisects. After a partial response it is split at the
/// sequence number returned, which leaves what comes from there on and uses up no retry; at the first record that would split
/// nothing off, so it is a retry like any other.
pub(super) fn next_step(verdict: &Verdict, attempts: u32, records: usize, policy: &RetryPolicy) -> NextStep {
    let (from, attempts) = match verdict {
        Verdict::Succeeded => return NextStep::Advance,
        Verdict::Failed(_) if policy.bisects && records > 1 => {
            return NextStep::Bisect {
                at: records.div_ceil(2),
                wait: policy.backoff_initial,
            };
        }
        Verdict::FailedFrom(from) if policy.bisects && *from > 0 => {
            return NextStep::Retry {
                from: *from,
                attempts: 0,
                wait: policy.backoff_initial,
            };
        }
        Verdict::Failed(_) | Verdict::FailedFrom(0) => (0, attempts),
        Verdict::FailedFrom(from) => (*from, 1),
    };
    if policy.attempts_max.is_some_and(|retries| attempts > retries) {
        return NextStep::GiveUp { from, attempts };
    }
    NextStep::Retry {
        from,
        attempts,
        wait: backoff(attempts, policy),
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(attempts: u32, policy: &RetryPolicy) -> Duration {
    let doublings = attempts.saturating_sub(1).min(u32::BITS - 1);
    policy
        .backoff_initial
        .saturating_mul(1 << doublings)
        .min(policy.backoff_max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{NextStep, RetryPolicy, Verdict, next_step, take_apart};
    use crate::kinesis::SequenceNumber;

    #[test]
    fn a_response_is_taken_apart_as_aws_documents() {
        let numbers = ["8", "9", "10"].map(|text| SequenceNumber::parse(text).unwrap());
        let whole = "whole";
        // (response, the index from which to retry, or "whole"; None is success)
        let cases: [(&str, Result<Option<usize>, &str>); 19] = [
            ("", Ok(None)),
            (" \n", Ok(None)),
            ("null", Ok(None)),
            ("{}", Ok(None)),
            (r#"{"batchItemFailures":null}"#, Ok(None)),
            (r#"{"batchItemFailures":[]}"#, Ok(None)),
            (r#"{"other":1}"#, Ok(None)),
            (r#"{"batchItemFailures":[{"itemIdentifier":"8"}]}"#, Ok(Some(0))),
            (r#"{"batchItemFailures":[{"itemIdentifier":"9"}]}"#, Ok(Some(1))),
            // The lowest by number, not by text, wins whatever the order.
            (
                r#"{"batchItemFailures":[{"itemIdentifier":"10"},{"itemIdentifier":"9"}]}"#,
                Ok(Some(1)),
            ),
            (r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#, Err(whole)),
            (r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#, Err(whole)),
            (r#"{"batchItemFailures":[{"wrong":"9"}]}"#, Err(whole)),
            (r#"{"batchItemFailures":[{"itemIdentifier":9}]}"#, Err(whole)),
            (r#"{"batchItemFailures":[{"itemIdentifier":"11"}]}"#, Err(whole)),
            (
                r#"{"batchItemFailures":[{"itemIdentifier":"9"},{"itemIdentifier":"x"}]}"#,
                Err(whole),
            ),
            (r#"{"batchItemFailures":"9"}"#, Err(whole)),
            ("{", Err(whole)),
            (r#""done""#, Err(whole)),
        ];
        for (response, expected) in cases {
            let verdict = match take_apart(response.as_bytes(), &numbers) {
                Verdict::Succeeded => Ok(None),
                Verdict::FailedFrom(index) => Ok(Some(index)),
                Verdict::Failed(_) => Err(whole),
            };
            assert_eq!(verdict, expected, "{response}");
        }
    }

    #[test]
    fn retries_are_counted_for_the_first_record_and_end() {
        let ms = Duration::from_millis;
        let policy = |attempts_max| RetryPolicy {
            attempts_max,
            bisects: false,
            backoff_initial: ms(100),
            backoff_max: ms(1_000),
        };
        let failed = || Verdict::Failed("no".into());
        let cases = [
            (Verdict::Succeeded, 1, Some(0), NextStep::Advance),
            (failed(), 1, Some(0), NextStep::GiveUp { from: 0, attempts: 1 }),
            (
                failed(),
                1,
                Some(2),
                NextStep::Retry {
                    from: 0,
                    attempts: 1,
                    wait: ms(100),
                },
            ),
            (
                failed(),
                2,
                Some(2),
                NextStep::Retry {
                    from: 0,
                    attempts: 2,
                    wait: ms(200),
                },
            ),
            (failed(), 3, Some(2), NextStep::GiveUp { from: 0, attempts: 3 }),
            (
                failed(),
                4,
                None,
                NextStep::Retry {
                    from: 0,
                    attempts: 4,
                    wait: ms(800),
                },
            ),
            (
                failed(),
                5,
                None,
                NextStep::Retry {
                    from: 0,
                    attempts: 5,
                    wait: ms(1_000),
                },
            ),
            (
                failed(),
                u32::MAX,
                None,
                NextStep::Retry {
                    from: 0,
                    attempts: u32::MAX,
                    wait: ms(1_000),
                },
            ),
            (
                Verdict::FailedFrom(0),
                3,
                Some(2),
                NextStep::GiveUp { from: 0, attempts: 3 },
            ),
            // Progress begins a new count.
            (
                Verdict::FailedFrom(5),
                3,
                Some(2),
                NextStep::Retry {
                    from: 5,
                    attempts: 1,
                    wait: ms(100),
                },
            ),
            (
                Verdict::FailedFrom(5),
                1,
                Some(0),
                NextStep::GiveUp { from: 5, attempts: 1 },
            ),
        ];
        for (verdict, attempts, attempts_max, expected) in cases {
            assert_eq!(
                next_step(&verdict, attempts, 9, &policy(attempts_max)),
                expected,
                "{verdict:?} after {attempts} of {attempts_max:?}"
            );
        }
    }

    /// Splitting a batch does not count towards the retry quota
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>); with both options on the batch is
    /// bisected at the returned sequence number and only the remaining records are retried
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-batchfailurereporting.html>).
    #[test]
    fn a_failing_batch_is_split_without_using_up_a_retry() {
        let wait = Duration::from_millis(100);
        let policy = RetryPolicy {
            attempts_max: Some(0),
            bisects: true,
            backoff_initial: wait,
            backoff_max: wait,
        };
        let failed = || Verdict::Failed("no".into());
        // (verdict, records, what follows)
        let cases = [
            (failed(), 8, NextStep::Bisect { at: 4, wait }),
            (failed(), 5, NextStep::Bisect { at: 3, wait }),
            (failed(), 2, NextStep::Bisect { at: 1, wait }),
            (failed(), 1, NextStep::GiveUp { from: 0, attempts: 1 }),
            (
                Verdict::FailedFrom(3),
                8,
                NextStep::Retry {
                    from: 3,
                    attempts: 0,
                    wait,
                },
            ),
            (Verdict::FailedFrom(0), 8, NextStep::GiveUp { from: 0, attempts: 1 }),
        ];
        for (verdict, records, expected) in cases {
            assert_eq!(
                next_step(&verdict, 1, records, &policy),
                expected,
                "{verdict:?} of {records}"
            );
        }
    }
}
