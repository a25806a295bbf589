//! Tumbling windows: a state that a function hands from one invocation to the next, within windows of time. Pure.
//!
//! As <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html> documents it:
//! - a record belongs to the window in which it arrived; windows begin at whole multiples of their length since the Unix epoch
//!   (the page's example: 120 s, a record of 07:04:35, a window from 07:04:00 to 07:06:00);
//! - each event carries `window`, `state` (at first `{}`), `shardId`, `eventSourceARN`, `isFinalInvokeForWindow` and
//!   `isWindowTerminatedEarly`; each answer must have a `state`, or the invocation failed;
//! - when the window is over, the function is invoked once more, without records, with `isFinalInvokeForWindow`; until that
//!   succeeds nothing else of the shard is processed; then the state is dropped;
//! - a state over 1 MB ends the window early: that final invocation says so in `isWindowTerminatedEarly` too;
//! - when a shard ends, so does its window; a child shard begins with a fresh state;
//! - a batch that fails is sent again with the state as it was before it; one that is given up changes no state.
//!
//! The page leaves open, and this module decides: a record stamped before the window that is open joins it, because the
//! earlier one is closed; after an early end the window's later records begin again with a fresh state in the same window; the
//! final invocation carries the state that was too large, because nothing else holds what it counted; after a partial batch
//! response the answer's state stands, because it tells of the records that were done.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock::utc;

/// A state may have so many bytes as JSON.
pub(crate) const STATE_BYTES_MAX: usize = 1_048_576;
const EMPTY_STATE: &str = "{}";
const EMPTY_EVENT: &[u8] = b"{\"Records\":[]}";

/// A window: from `start_ms` to just before `end_ms`, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSpan {
    pub start_ms: i64,
    pub end_ms: i64,
}

/// What the reader of a shard does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowStep {
    /// Invoke with the first so many of the records at hand; the others come after.
    Aggregate(usize),
    /// Close the window that is open first: invoke with [`TumblingWindow::final_event`] until that succeeds, then call
    /// [`TumblingWindow::close`].
    Close,
}

/// Why an answer is no answer of a function with tumbling windows. The invocation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the response is not JSON with a state: {0}; return {{\"state\": {{..}}}}")]
    NotJson(String),
    #[error("the response has no state; with tumbling windows, return {{\"state\": {{..}}}} each time")]
    Missing,
}

/// The windows of one shard.
#[derive(Debug, Clone)]
pub(crate) struct TumblingWindow {
    length_ms: i64,
    open: Option<OpenWindow>,
}

#[derive(Debug, Clone)]
struct OpenWindow {
    span: WindowSpan,
    /// JSON.
    state: String,
    over_limit: bool,
}

impl TumblingWindow {
    /// Windows of this length, of which none is open. Lengths are whole seconds.
    pub fn new(length: Duration) -> Self {
        // 900 seconds at most, as the template is checked.
        let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { length_ms, open: None }
    }

    /// The window of a moment.
    pub fn span_of(&self, arrival_ms: i64) -> WindowSpan {
        let start_ms = arrival_ms - arrival_ms.rem_euclid(self.length_ms);
        WindowSpan {
            start_ms,
            end_ms: start_ms.saturating_add(self.length_ms),
        }
    }

    /// The window that is open: between its first invocation and its final one.
    pub fn open_span(&self) -> Option<WindowSpan> {
        self.open.as_ref().map(|open| open.span)
    }

    /// Whether the open window is to be closed although no later record came: it is over by the clock that stamps arrivals, it
    /// went over the limit, or nothing more can come from its shard.
    pub fn is_due(&self, now_ms: i64, shard_has_ended: bool) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.over_limit || shard_has_ended || now_ms >= open.span.end_ms)
    }

    /// What to do with records at hand, given when each arrived, in stream order. Opens a window if none is.
    pub fn next_step(&mut self, arrivals_ms: impl IntoIterator<Item = i64>) -> WindowStep {
        let mut arrivals_ms = arrivals_ms.into_iter().peekable();
        let Some(&first) = arrivals_ms.peek() else {
            return WindowStep::Aggregate(0);
        };
        let span = match &self.open {
            Some(open) if open.over_limit || first >= open.span.end_ms => return WindowStep::Close,
            Some(open) => open.span,
            None => {
                let span = self.span_of(first);
                self.open = Some(OpenWindow {
                    span,
                    state: EMPTY_STATE.to_owned(),
                    over_limit: false,
                });
                span
            }
        };
        WindowStep::Aggregate(arrivals_ms.take_while(|arrival_ms| *arrival_ms < span.end_ms).count())
    }

    /// The event of a batch with the window's members; `event` is `{"Records":[..]}`. As it is when no window is open.
    pub fn event(&self, event: &[u8], shard_id: &str, event_source_arn: &str) -> Vec<u8> {
        self.with_members(event, shard_id, event_source_arn, false)
    }

    /// The event that ends the open window; `None` when none is open.
    pub fn final_event(&self, shard_id: &str, event_source_arn: &str) -> Option<Vec<u8>> {
        self.open
            .as_ref()
            .map(|_| self.with_members(EMPTY_EVENT, shard_id, event_source_arn, true))
    }

    /// How many bytes [`Self::event`] adds, at most: a batch is to stay below the payload limit by as much.
    pub fn bytes_added_max(&self, shard_id: &str, event_source_arn: &str) -> usize {
        let state_bytes = self.open.as_ref().map_or(EMPTY_STATE.len(), |open| open.state.len());
        let members = Members {
            span: self.open_span().unwrap_or(WindowSpan { start_ms: 0, end_ms: 0 }),
            state: "",
            shard_id,
            event_source_arn,
            is_final: false,
            is_early: false,
        };
        members.to_json().len() + state_bytes
    }

    fn with_members(&self, event: &[u8], shard_id: &str, event_source_arn: &str, is_final: bool) -> Vec<u8> {
        let (Some(open), Some(body)) = (&self.open, event.strip_suffix(b"}")) else {
            return event.to_vec();
        };
        let members = Members {
            span: open.span,
            state: &open.state,
            shard_id,
            event_source_arn,
            is_final,
            is_early: open.over_limit,
        };
        [body, members.to_json().as_bytes(), b"}"].concat()
    }

    /// Takes the state out of the answer to a batch that succeeded, wholly or in part. The whole response stays what
    /// [`super::response::take_apart`] reads `batchItemFailures` from. A state over the limit makes the window due.
    ///
    /// # Errors
    /// When there is no state: the invocation failed, and the window keeps the state that it had.
    pub fn accept(&mut self, response: &[u8]) -> Result<(), StateError> {
        let state = state_of(response)?;
        if let Some(open) = &mut self.open {
            open.over_limit = state.len() > STATE_BYTES_MAX;
            open.state = state;
        }
        Ok(())
    }

    /// Checks the answer to a final event, and drops the window with its state.
    ///
    /// # Errors
    /// When there is no state in the answer: the final invocation failed and is to be sent again.
    pub fn close(&mut self, response: &[u8]) -> Result<(), StateError> {
        state_of(response)?;
        self.open = None;
        Ok(())
    }

    /// Drops the window with its state, without an answer: its final invocation was given up.
    pub fn abandon(&mut self) {
        self.open = None;
    }
}

struct Members<'event> {
    span: WindowSpan,
    state: &'event str,
    shard_id: &'event str,
    event_source_arn: &'event str,
    is_final: bool,
    is_early: bool,
}

impl Members<'_> {
    /// From the comma after `Records` on, without the last brace.
    fn to_json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let time = |epoch_ms| utc(epoch_ms, "%Y-%m-%dT%H:%M:%SZ");
        format!(
            ",\"window\":{{\"start\":\"{}\",\"end\":\"{}\"}},\"state\":{},\"shardId\":{},\"eventSourceARN\":{},\
             \"isFinalInvokeForWindow\":{},\"isWindowTerminatedEarly\":{}",
            time(self.span.start_ms),
            time(self.span.end_ms),
            self.state,
            quoted(self.shard_id),
            quoted(self.event_source_arn),
            self.is_final,
            self.is_early
        )
    }
}

fn state_of(response: &[u8]) -> Result<String, StateError> {
    #[derive(Deserialize)]
    struct Response<'response> {
        #[serde(borrow, default)]
        state: Option<&'response RawValue>,
    }
    if response.trim_ascii().is_empty() {
        return Err(StateError::Missing);
    }
    serde_json::from_slice::<Option<Response<'_>>>(response)
        .map_err(|error| StateError::NotJson(error.to_string()))?
        .and_then(|response| response.state)
        .map(|state| state.get().to_owned())
        .ok_or(StateError::Missing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{STATE_BYTES_MAX, StateError, TumblingWindow, WindowSpan, WindowStep};

    /// 2020-12-09T07:04:00Z, where the window of AWS's example begins.
    const START_MS: i64 = 1_607_497_440_000;
    const SHARD: &str = "shardId-000000000006";
    const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/lambda-stream";

    fn windows() -> TumblingWindow {
        TumblingWindow::new(Duration::from_secs(120))
    }

    fn parsed(event: &[u8]) -> Value {
        serde_json::from_slice(event).unwrap()
    }

    /// The example `KinesisTimeWindowEvent` of <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html>.
    #[test]
    fn an_event_of_a_window_has_exactly_the_shape_that_aws_sends() {
        let mut windows = windows();
        assert_eq!(windows.next_step([1_607_497_475_000]), WindowStep::Aggregate(1));
        let records = br#"{"Records":[{"eventID":"x"}]}"#;
        let first = windows.event(records, SHARD, ARN);
        assert_eq!(parsed(&first)["state"], json!({}));
        assert!(first.len() <= records.len() + windows.bytes_added_max(SHARD, ARN));
        windows
            .accept(br#"{"state":{"1": 282,"2": 715},"batchItemFailures":[]}"#)
            .unwrap();
        let mut expected = json!({
            "Records": [{ "eventID": "x" }],
            "window": { "start": "2020-12-09T07:04:00Z", "end": "2020-12-09T07:06:00Z" },
            "state": { "1": 282, "2": 715 },
            "shardId": SHARD,
            "eventSourceARN": ARN,
            "isFinalInvokeForWindow": false,
            "isWindowTerminatedEarly": false
        });
        let second = windows.event(records, SHARD, ARN);
        assert_eq!(parsed(&second), expected);
        assert!(second.len() <= records.len() + windows.bytes_added_max(SHARD, ARN));
        expected["Records"] = json!([]);
        expected["isFinalInvokeForWindow"] = json!(true);
        assert_eq!(parsed(&windows.final_event(SHARD, ARN).unwrap()), expected);
    }

    #[test]
    fn records_go_to_the_window_in_which_they_arrived() {
        let ends = START_MS + 120_000;
        // (arrivals at hand, the steps until all are taken); a final invocation is in between where one is due.
        let cases: [(&[i64], &[WindowStep]); 7] = [
            (&[], &[]),
            (&[START_MS, ends - 1], &[WindowStep::Aggregate(2)]),
            (
                &[START_MS, ends - 1, ends],
                &[WindowStep::Aggregate(2), WindowStep::Close, WindowStep::Aggregate(1)],
            ),
            (
                &[ends - 1, ends],
                &[WindowStep::Aggregate(1), WindowStep::Close, WindowStep::Aggregate(1)],
            ),
            // Windows without records are not opened.
            (
                &[START_MS, ends + 600_000],
                &[WindowStep::Aggregate(1), WindowStep::Close, WindowStep::Aggregate(1)],
            ),
            // A record stamped before the open window joins it.
            (&[ends, ends - 1, ends + 1], &[WindowStep::Aggregate(3)]),
            // Before the epoch too.
            (
                &[-1, 0],
                &[WindowStep::Aggregate(1), WindowStep::Close, WindowStep::Aggregate(1)],
            ),
        ];
        for (arrivals, expected) in cases {
            let mut windows = windows();
            let (mut rest, mut steps) = (arrivals, Vec::new());
            while !rest.is_empty() {
                let step = windows.next_step(rest.iter().copied());
                steps.push(step);
                match step {
                    WindowStep::Aggregate(count) => rest = &rest[count..],
                    WindowStep::Close => windows.close(br#"{"state":{}}"#).unwrap(),
                }
            }
            assert_eq!(steps, expected, "{arrivals:?}");
        }
        assert_eq!(
            windows().span_of(-1),
            WindowSpan {
                start_ms: -120_000,
                end_ms: 0
            }
        );
    }

    /// "When the shard ends, Lambda considers the window closed" (the same page).
    #[test]
    fn a_window_is_due_at_its_end_at_its_shards_end_and_over_the_limit() {
        let mut windows = windows();
        assert!(!windows.is_due(i64::MAX, true), "none is open");
        windows.next_step([START_MS + 5]);
        assert!(!windows.is_due(START_MS + 119_999, false));
        assert!(windows.is_due(START_MS + 120_000, false));
        assert!(windows.is_due(START_MS + 6, true));
        windows.close(br#"{"state":null}"#).unwrap_err();
        assert!(
            windows.open_span().is_some(),
            "a failed final invocation is to be sent again"
        );
        windows.close(br#"{"state":{"kept":false}}"#).unwrap();
        windows.next_step([START_MS + 120_000]);
        assert_eq!(
            parsed(&windows.event(b"{\"Records\":[]}", SHARD, ARN))["state"],
            json!({})
        );
        windows.abandon();
        assert_eq!(windows.open_span(), None);
        assert_eq!(windows.final_event(SHARD, ARN), None);
    }

    /// "Your state can be a maximum of 1 MB per shard. If it exceeds that size, Lambda terminates the window early."
    #[test]
    fn a_state_over_the_limit_ends_its_window_early() {
        for (state_bytes, early) in [(STATE_BYTES_MAX, false), (STATE_BYTES_MAX + 1, true)] {
            let mut windows = windows();
            windows.next_step([START_MS]);
            let state = format!("\"{}\"", "x".repeat(state_bytes - 2));
            windows.accept(format!("{{\"state\":{state}}}").as_bytes()).unwrap();
            assert_eq!(windows.is_due(START_MS + 1, false), early);
            let step = windows.next_step([START_MS + 1, START_MS + 2]);
            if !early {
                assert_eq!(step, WindowStep::Aggregate(2));
                continue;
            }
            assert_eq!(step, WindowStep::Close);
            let last = parsed(&windows.final_event(SHARD, ARN).unwrap());
            assert_eq!(
                (&last["isFinalInvokeForWindow"], &last["isWindowTerminatedEarly"]),
                (&json!(true), &json!(true))
            );
            windows.close(b"{\"state\":{}}").unwrap();
            // The rest of the window begins again.
            assert_eq!(
                windows.next_step([START_MS + 1, START_MS + 2]),
                WindowStep::Aggregate(2)
            );
            assert_eq!(windows.open_span(), Some(windows.span_of(START_MS)));
            let next = parsed(&windows.event(b"{\"Records\":[]}", SHARD, ARN));
            assert_eq!(
                (&next["state"], &next["isWindowTerminatedEarly"]),
                (&json!({}), &json!(false))
            );
        }
    }

    /// "If the response does not contain a state property, Lambda considers this a failed invocation." A failed batch is sent
    /// again with the state as it was.
    #[test]
    fn an_answer_without_a_state_is_a_failure_and_changes_nothing() {
        let cases: [(&str, Option<StateError>); 9] = [
            ("", Some(StateError::Missing)),
            ("null", Some(StateError::Missing)),
            ("{}", Some(StateError::Missing)),
            (r#"{"state":null}"#, Some(StateError::Missing)),
            (r#"{"batchItemFailures":[]}"#, Some(StateError::Missing)),
            (r#"{"state":{"n":2}}"#, None),
            (
                r#"{"batchItemFailures":[{"itemIdentifier":"1"}],"state":{"n":2}}"#,
                None,
            ),
            (
                r#"{"state":"#,
                Some(StateError::NotJson(
                    "EOF while parsing a value at line 1 column 9".to_owned(),
                )),
            ),
            (
                r#""text""#,
                Some(StateError::NotJson(
                    "invalid type: string \"text\", expected struct Response at line 1 column 6".to_owned(),
                )),
            ),
        ];
        for (response, expected) in cases {
            let mut windows = windows();
            windows.next_step([START_MS]);
            windows.accept(br#"{"state":{"n":1}}"#).unwrap();
            let error = windows.accept(response.as_bytes()).err();
            let count = if error.is_none() { 2 } else { 1 };
            assert_eq!(error, expected, "{response}");
            assert_eq!(parsed(&windows.final_event(SHARD, ARN).unwrap())["state"]["n"], count);
        }
    }
}
