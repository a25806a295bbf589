//! How the in-memory ports fail, and containers that end in the middle of a call.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::locked;
use crate::ports::CallError;

/// How a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the call fails for now.
    Throttle,
    /// It takes effect, and the call fails for now: the answer got lost on its way.
    LostAnswer,
    /// Nothing happens, and the call is refused.
    Refuse,
    /// It never answers, and nothing happens.
    Hang,
    /// It takes effect and never answers.
    HangAfter,
    /// The container ends before the call: nothing happens, and the flow does not go on. See [`Container`].
    CrashBefore,
    /// The call takes effect and the container ends before the answer comes. See [`Container`].
    CrashAfter,
    /// What is at these indexes of the call is left over: unprocessed keys, or failed records. Any other kind of call
    /// is throttled.
    Partial(Vec<usize>),
    /// The records at these indexes are left over, the others stored, and the call fails for now: the answer that says
    /// which got lost on its way. Any other kind of call is throttled.
    PartialLost(Vec<usize>),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`ProfileTable::get`](crate::ports::ProfileTable::get)
    GetProfiles,
    /// [`ProfileTable::put`](crate::ports::ProfileTable::put)
    PutProfile,
    /// [`ProfileTable::park`](crate::ports::ProfileTable::park)
    ParkProfile,
    /// [`ProfileTable::merge`](crate::ports::ProfileTable::merge)
    MergeProfiles,
    /// [`DueIndex::page`](crate::ports::DueIndex::page)
    QueryDue,
    /// [`RecordStream::put`](crate::ports::RecordStream::put)
    PutRecords,
    /// [`DecisionTable::record`](crate::ports::DecisionTable::record)
    RecordDecision,
    /// [`DecisionTable::set_status`](crate::ports::DecisionTable::set_status)
    SetDecisionStatus,
    /// [`DecisionTable::file_outcome`](crate::ports::DecisionTable::file_outcome)
    FileOutcome,
    /// [`Delivery::deliver`](crate::ports::Delivery::deliver)
    Deliver,
    /// [`ModelTable::get`](crate::ports::ModelTable::get)
    GetModels,
    /// [`ModelTable::write`](crate::ports::ModelTable::write)
    WriteModels,
    /// [`TrendTable::put`](crate::ports::TrendTable::put)
    PutTrendTile,
    /// [`TrendTable::page`](crate::ports::TrendTable::page)
    QueryTrends,
}

/// A call that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// How many calls came before it.
    pub number: usize,
    /// What it does.
    pub operation: Operation,
    /// What it names: users, partition keys, or the id of a trigger.
    pub keys: Vec<String>,
}

/// A container that a flow runs in, as far as the in-memory ports go: it may end at any of their calls, and each call
/// lets another container have its turn first.
///
/// ```
/// # use usher_pipeline::memory::{Container, ContainerEnded, Fault, MemoryProfileTable};
/// # use usher_pipeline::ports::ProfileTable;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let table = MemoryProfileTable::default();
/// table.faults().inject(Fault::CrashBefore);
/// assert_eq!(Container::default().run(table.get(&["u-1"])).await.err(), Some(ContainerEnded));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Container {
    inner: Arc<ContainerInner>,
}

#[derive(Debug, Default)]
struct ContainerInner {
    has_ended: AtomicBool,
    waits_for_turn: AtomicBool,
}

/// The container ended before its flow did: a crash, in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the container ended in the middle of a call")]
pub struct ContainerEnded;

tokio::task_local! {
    /// The container that the running flow is in. Ports are shared between containers, so a call can't know otherwise
    /// whose it is.
    static CONTAINER: Container;
}

impl Container {
    /// Runs a flow in it, until it is through or the container ends. Then the flow is dropped where it stands, as a
    /// killed process leaves it: what it did stays done, what it knew is lost, so whatever it kept in memory must not
    /// be used again.
    ///
    /// # Errors
    /// When the container ended.
    pub async fn run<F: Future>(&self, flow: F) -> Result<F::Output, ContainerEnded> {
        let mut flow = pin!(CONTAINER.scope(self.clone(), flow));
        std::future::poll_fn(|context| match flow.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.inner.has_ended.load(Ordering::Relaxed) => Poll::Ready(Err(ContainerEnded)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Whether its flow stands at a call that has yet to begin, or one that doesn't answer, so that another container may
    /// go on first. Asking takes the mark away. A flow that pauses between two calls doesn't stand at one.
    pub fn take_turn_mark(&self) -> bool {
        self.inner.waits_for_turn.swap(false, Ordering::Relaxed)
    }

    /// Stands at a call once, so that whoever polls may let another container go first.
    async fn wait_for_turn(&self) {
        let mut has_waited = false;
        std::future::poll_fn(|context| {
            if has_waited {
                return Poll::Ready(());
            }
            has_waited = true;
            self.mark_turn();
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn mark_turn(&self) {
        self.inner.waits_for_turn.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.inner.has_ended.store(true, Ordering::Relaxed);
    }
}

/// Ends the container that the caller runs in, if it runs in one; the call never returns.
async fn end_container<T>() -> T {
    // Outside of a container there is nobody to notice; then this is a call that hangs.
    if let Ok(container) = CONTAINER.try_with(Container::clone) {
        container.end();
    }
    std::future::pending().await
}

/// Never answers.
async fn hang<T>() -> T {
    // Outside of a container nobody takes turns.
    let _ = CONTAINER.try_with(Container::mark_turn);
    std::future::pending().await
}

type Hook = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// The failures to come, and the calls that came.
#[derive(Default)]
pub struct Faults {
    next: Mutex<VecDeque<(Option<Operation>, Fault)>>,
    hook: Mutex<Option<Hook>>,
    calls: Mutex<Vec<Call>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Faults")
            .field("next", &self.next)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Makes the next call fail. Faults wait in a queue, one call each.
    pub fn inject(&self, fault: Fault) {
        locked(&self.next).push_back((None, fault));
    }

    /// Makes the next call of this kind fail.
    pub fn inject_at(&self, operation: Operation, fault: Fault) {
        locked(&self.next).push_back((Some(operation), fault));
    }

    /// Asks `hook` at each call whether and how it fails; injected faults come first. Nothing is locked then, so it may
    /// read and change the data, as another writer would. It must not make calls on the same fake.
    pub fn on_call(&self, hook: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        *locked(&self.hook) = Some(Box::new(hook));
    }

    /// The calls so far, failed ones too.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.calls).clone()
    }

    /// How many calls there were so far.
    pub(super) fn calls_len(&self) -> usize {
        locked(&self.calls).len()
    }

    /// How many calls of this kind there were.
    pub fn count(&self, operation: Operation) -> usize {
        locked(&self.calls)
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// Notes a call and gives its fault.
    pub(super) async fn meet(&self, operation: Operation, keys: Vec<String>) -> Result<Effect, CallError> {
        if let Ok(container) = CONTAINER.try_with(Container::clone) {
            container.wait_for_turn().await;
        }
        // From here to the effect nothing waits, so no other call comes in between.
        let call = {
            let mut calls = locked(&self.calls);
            let call = Call {
                number: calls.len(),
                operation,
                keys,
            };
            calls.push(call.clone());
            call
        };
        let injected = {
            let mut next = locked(&self.next);
            let index = next
                .iter()
                .position(|(only, _)| only.is_none_or(|only| only == operation));
            index.and_then(|index| next.remove(index)).map(|(_, fault)| fault)
        };
        let fault = injected.or_else(|| locked(&self.hook).as_mut().and_then(|hook| hook(&call)));
        match fault {
            None => Ok(Effect::whole(Answer::Given)),
            Some(Fault::LostAnswer) => Ok(Effect::whole(Answer::Lost)),
            Some(Fault::HangAfter) => Ok(Effect::whole(Answer::Never)),
            Some(Fault::CrashAfter) => Ok(Effect::whole(Answer::Crash)),
            Some(Fault::Partial(left_over))
                if matches!(
                    operation,
                    Operation::GetProfiles | Operation::GetModels | Operation::PutRecords
                ) =>
            {
                Ok(Effect {
                    left_over: left_over.into_iter().collect(),
                    answer: Answer::Given,
                })
            }
            Some(Fault::PartialLost(left_over)) if operation == Operation::PutRecords => Ok(Effect {
                left_over: left_over.into_iter().collect(),
                answer: Answer::Lost,
            }),
            Some(Fault::Throttle | Fault::Partial(_) | Fault::PartialLost(_)) => Err(failed_for_now(operation)),
            Some(Fault::Refuse) => Err(refused(operation, "it was told to")),
            Some(Fault::Hang) => hang().await,
            Some(Fault::CrashBefore) => end_container().await,
        }
    }
}

/// How far a call gets.
pub(super) struct Effect {
    left_over: BTreeSet<usize>,
    answer: Answer,
}

/// What becomes of the answer of a call that took effect.
enum Answer {
    Given,
    Lost,
    Never,
    Crash,
}

impl Effect {
    fn whole(answer: Answer) -> Effect {
        Effect {
            left_over: BTreeSet::new(),
            answer,
        }
    }

    pub(super) fn leaves_out(&self, index: usize) -> bool {
        self.left_over.contains(&index)
    }

    /// The answer, unless it gets lost.
    pub(super) async fn answer<T>(&self, operation: Operation, answer: T) -> Result<T, CallError> {
        match self.answer {
            Answer::Given => Ok(answer),
            Answer::Lost => Err(failed_for_now(operation)),
            Answer::Never => hang().await,
            Answer::Crash => end_container().await,
        }
    }
}

fn failed_for_now(operation: Operation) -> CallError {
    CallError::Retry {
        call: format!("memory:{operation:?}"),
        source: "it was told to fail".into(),
    }
}

pub(super) fn refused(operation: Operation, why: &str) -> CallError {
    CallError::Refused {
        call: format!("memory:{operation:?}"),
        source: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStream;
    use crate::ports::{RecordStream, StreamRecord};

    fn record() -> StreamRecord {
        StreamRecord {
            partition_key: "k".to_owned(),
            data: vec![],
        }
    }

    #[tokio::test]
    async fn a_container_ends_before_or_after_the_call_takes_effect() {
        for (fault, records_expected) in [(Fault::CrashBefore, 0), (Fault::CrashAfter, 1)] {
            let stream = MemoryStream::default();
            stream.faults().inject(fault.clone());
            let ended = Container::default().run(stream.put(&[record()])).await;
            assert_eq!(ended.err(), Some(ContainerEnded), "{fault:?}");
            assert_eq!(stream.records().len(), records_expected, "{fault:?}");
            Container::default()
                .run(stream.put(&[record()]))
                .await
                .expect("the next container is sound")
                .expect("and so is its call");
        }
    }

    #[tokio::test]
    async fn a_call_that_took_effect_may_never_answer() {
        let stream = MemoryStream::default();
        stream.faults().inject(Fault::HangAfter);
        let limit = std::time::Duration::from_millis(20);
        tokio::time::timeout(limit, stream.put(&[record()]))
            .await
            .expect_err("it hangs");
        assert_eq!(stream.records().len(), 1);
    }

    /// Two containers take turns call by call, so that a test decides who goes first.
    #[tokio::test]
    async fn a_container_stands_at_each_call_once() {
        let stream = MemoryStream::default();
        let container = Container::default();
        let flow = async {
            stream.put(&[record()]).await.expect("it answers");
            stream.put(&[record()]).await.expect("it answers");
        };
        let mut flow = pin!(container.run(flow));
        let mut stood = Vec::new();
        std::future::poll_fn(|context| {
            let poll = flow.as_mut().poll(context);
            stood.push((container.take_turn_mark(), stream.records().len()));
            poll
        })
        .await
        .expect("it does not crash");
        assert_eq!(stood, [(true, 0), (true, 1), (false, 2)]);
    }
}
