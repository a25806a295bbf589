//! A function's invocations and the processes that take them: who waits, who is idle, who works on what, and what goes wrong
//! with it on purpose. [`crate::runtime_api`] is how a process asks and answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use crate::faults::{FaultKind, Faults};
use crate::runtime_api::RESPONSE_BYTES_MAX;
use crate::template::Function;

/// Lines kept of what a function wrote, to show when it fails.
const LOG_TAIL_LINES: usize = 40;
/// The id of whatever asks without a process's path.
const EXTERNAL: &str = "external";
/// A process that has just answered asks for more within this time, unless it is about to end.
const AFFINITY_PATIENCE: Duration = Duration::from_millis(5);
/// A process that is to be killed during an invocation lives so long after it took it, if the answer does not come before.
const KILL_DELAY_MS_MAX: u64 = 100;
/// Failed invocations that are remembered, so that their telemetry can be told apart.
const FAILED_REQUESTS_MAX: usize = 100_000;

/// Why a function cannot run at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the function {function} does not start: {message}{}", display_tail(.log_tail))]
pub struct FunctionFailure {
    /// Logical id of the function.
    pub function: String,
    /// What it said, or how its process ended.
    pub message: String,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
}

pub(crate) fn display_tail(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    | {line}")).collect()
}

/// Why one invocation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvocationError {
    /// The function answered with an error.
    #[error("{error_type}: {message}")]
    Function {
        /// What the function calls it.
        error_type: String,
        /// What the function says.
        message: String,
    },
    /// It took longer than the function's timeout.
    #[error("task timed out after {} seconds", .0.as_secs_f64())]
    Timeout(Duration),
    /// Its process ended.
    #[error("the process ended during the invocation: {0}")]
    Crash(String),
    /// The response is larger than Lambda takes.
    #[error("the response exceeds {RESPONSE_BYTES_MAX} bytes")]
    ResponseTooLarge,
    /// The function does not start, so no invocation will ever succeed.
    #[error("the function does not start")]
    Unavailable,
}

/// Why a process must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillCause {
    /// Its invocation took too long.
    Timeout,
    /// A fault.
    Fault,
}

impl KillCause {
    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            KillCause::Timeout => "it was killed after a timeout",
            KillCause::Fault => "it was killed on purpose",
        }
    }
}

/// One execution environment: a process that takes one invocation at a time.
pub(crate) struct Environment {
    /// Its path below the function's.
    pub id: String,
    /// True from its first request for an invocation.
    pub ready: watch::Sender<bool>,
    /// Says when and why the process must end.
    pub kill: watch::Sender<Option<KillCause>>,
    state: Mutex<EnvironmentState>,
}

#[derive(Default)]
struct EnvironmentState {
    /// The invocation it works on.
    request_id: Option<String>,
    /// What it posted instead of asking for its first invocation.
    init_error: Option<String>,
}

impl Environment {
    fn new(id: String) -> Self {
        Self {
            id,
            ready: watch::Sender::new(false),
            kill: watch::Sender::new(None),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, EnvironmentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever asks without a process's path: it was started by hand, so nobody can kill it, and each of its requests stands
    /// for itself.
    pub fn external() -> Self {
        Self::new(EXTERNAL.to_owned())
    }

    /// It posted this to `/init/error`.
    pub fn note_init_error(&self, error: String) {
        self.state().init_error = Some(error);
    }

    /// What it posted to `/init/error`.
    pub fn init_error(&self) -> Option<String> {
        self.state().init_error.clone()
    }
}

/// A function's invocations: those that wait for a process, and those in flight.
pub(crate) struct FunctionQueue {
    pub function: Function,
    state: Mutex<QueueState>,
    failure: watch::Sender<Option<FunctionFailure>>,
    log_tail: Mutex<LogTail>,
    /// Rings when a process becomes idle.
    idle_bell: Notify,
    /// Processes that failed to start, in a row.
    pub init_failures: AtomicU32,
    environments_made: AtomicU32,
    /// No more processes than this are started.
    pub environments_max: AtomicUsize,
    /// How many processes would have work: the most invocations that waited or ran at once.
    demand: watch::Sender<usize>,
    /// Invocations that failed, by request id.
    failed_requests: Mutex<FailedRequests>,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Invocation>,
    idle: VecDeque<Idle>,
    /// Invocations, by request id, that an idle process has been given and has not taken yet.
    handed: HashSet<String>,
    in_flight: HashMap<String, InFlight>,
    environments: HashMap<String, Arc<Environment>>,
    /// The last work of each environment, so that the same work finds its warm caches.
    affinities: HashMap<String, String>,
}

impl QueueState {
    /// The waiting process that is best for this invocation; none where it should rather wait.
    fn idle_for(&self, invocation: &Invocation, is_only_process: bool) -> Option<usize> {
        let owner_of = |idle: &Idle| self.affinities.get(&idle.environment.id);
        let is_warm = |idle: &Idle| owner_of(idle) == Some(&invocation.affinity);
        let position = |wanted: &dyn Fn(&Idle) -> bool| self.idle.iter().position(wanted);
        if invocation.elsewhere && !is_only_process {
            // Rather one with caches, which may be out of date, than a fresh one.
            return position(&|idle| !is_warm(idle) && owner_of(idle).is_some())
                .or_else(|| position(&|idle| !is_warm(idle)));
        }
        position(&is_warm)
            // Rather a fresh process than one that is warm for other work.
            .or_else(|| position(&|idle| owner_of(idle).is_none()))
            .or_else(|| (!self.idle.is_empty()).then_some(0))
    }

    /// The next waiting invocation for this process; one that must go elsewhere than to its warm process is left for
    /// another while there may be one.
    fn waiting_for(&mut self, environment: &Environment, is_only_process: bool) -> Option<Invocation> {
        let warm_for = self.affinities.get(&environment.id);
        let fits = |invocation: &Invocation| {
            is_only_process || !invocation.elsewhere || warm_for != Some(&invocation.affinity)
        };
        let index = self.waiting.iter().position(fits)?;
        self.waiting.remove(index)
    }

    /// Whether the process that did this work last is neither idle nor at work.
    fn owner_is_about_to_ask(&self, affinity: &str) -> bool {
        let Some((owner, _)) = self.affinities.iter().find(|(_, owned)| *owned == affinity) else {
            return false;
        };
        let Some(environment) = self.environments.get(owner) else {
            return false;
        };
        let at_work = environment.state().request_id.is_some();
        let idle = self.idle.iter().any(|idle| idle.environment.id == *owner);
        !at_work && !idle
    }
}

/// The latest failed invocations.
#[derive(Default)]
struct FailedRequests {
    ids: HashSet<String>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl FailedRequests {
    fn add(&mut self, request_id: String) {
        if self.order.len() == FAILED_REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        if self.ids.insert(request_id.clone()) {
            self.order.push_back(request_id);
        }
    }
}

#[derive(Default)]
struct LogTail {
    stdout: VecDeque<String>,
    stderr: VecDeque<String>,
}

/// One invocation that waits for a process.
pub(crate) struct Invocation {
    pub request_id: String,
    pub payload: Bytes,
    pub affinity: String,
    /// Any process but the one that is warm for this work.
    elsewhere: bool,
    pub taken: oneshot::Sender<Arc<Environment>>,
    pub result: oneshot::Sender<Result<Bytes, InvocationError>>,
}

/// A process that waits for an invocation.
struct Idle {
    environment: Arc<Environment>,
    offer: oneshot::Sender<Invocation>,
}

struct InFlight {
    environment: Arc<Environment>,
    /// What its answer, when it comes, meets instead of being taken.
    fault: Option<InvocationFault>,
    result: oneshot::Sender<Result<Bytes, InvocationError>>,
}

/// What goes wrong with an invocation on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InvocationFault {
    /// Its process is killed, at the latest when it answers.
    Kill,
    /// Its answer is withheld and the invocation counts as timed out. Nobody has to wait for the function's timeout to
    /// pass: it is declared over as soon as the work is done.
    Timeout,
}

impl FunctionQueue {
    pub fn new(function: Function, faults: Faults) -> Self {
        Self {
            function,
            faults,
            state: Mutex::default(),
            failure: watch::Sender::new(None),
            log_tail: Mutex::default(),
            idle_bell: Notify::new(),
            init_failures: AtomicU32::new(0),
            environments_made: AtomicU32::new(0),
            // Until somebody starts processes, whoever asks is the only one.
            environments_max: AtomicUsize::new(1),
            demand: watch::Sender::new(0),
            failed_requests: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`FunctionQueue::invoke_process`] on the warm process.
    #[cfg(test)]
    pub async fn invoke(&self, payload: Bytes, affinity: &str) -> Result<Bytes, InvocationError> {
        self.invoke_process(random_request_id(), payload, affinity, false).await
    }

    /// [`FunctionQueue::invoke_process`] on another one.
    #[cfg(test)]
    pub async fn invoke_elsewhere(&self, payload: Bytes, affinity: &str) -> Result<Bytes, InvocationError> {
        self.invoke_process(random_request_id(), payload, affinity, true).await
    }

    /// Runs one invocation to its end. `affinity` names the work: a process that did the same work last gets it if it is
    /// idle, as it would most often in Lambda. With `elsewhere` another process gets it, as long as there is or may be one.
    ///
    /// # Errors
    /// As [`InvocationError`] says.
    pub async fn invoke_process(
        &self,
        request_id: String,
        payload: Bytes,
        affinity: &str,
        elsewhere: bool,
    ) -> Result<Bytes, InvocationError> {
        loop {
            if self.failure.borrow().is_some() {
                return Err(InvocationError::Unavailable);
            }
            if !elsewhere {
                self.wait_for_owner(affinity).await;
            }
            let (taken, when_taken) = oneshot::channel();
            let (result, when_done) = oneshot::channel();
            self.offer(Invocation {
                request_id: request_id.clone(),
                payload: payload.clone(),
                affinity: affinity.to_owned(),
                elsewhere,
                taken,
                result,
            });
            let Ok(environment) = when_taken.await else {
                self.state().handed.remove(&request_id);
                // The process went away as it was about to take it, or the function failed for good.
                continue;
            };
            let done = match tokio::time::timeout(self.function.timeout, when_done).await {
                Ok(Ok(done)) => done,
                Ok(Err(_)) => Err(InvocationError::Crash("its connection was lost".to_owned())),
                Err(_) => {
                    self.state().in_flight.remove(&request_id);
                    environment.kill.send_replace(Some(KillCause::Timeout));
                    Err(InvocationError::Timeout(self.function.timeout))
                }
            };
            if done.is_err() {
                lock(&self.failed_requests).add(request_id);
            }
            return done;
        }
    }

    /// The process that did this work last may have answered and not yet asked again; it gets a moment to do so, because it
    /// is warm for it.
    async fn wait_for_owner(&self, affinity: &str) {
        let patience = tokio::time::sleep(AFFINITY_PATIENCE);
        let mut patience = std::pin::pin!(patience);
        loop {
            let mut bell = std::pin::pin!(self.idle_bell.notified());
            // From here on a ring is not missed.
            bell.as_mut().enable();
            if !self.state().owner_is_about_to_ask(affinity) {
                return;
            }
            tokio::select! {
                () = bell => {}
                () = &mut patience => return,
            }
        }
    }

    fn offer(&self, mut invocation: Invocation) {
        let mut state = self.state();
        while let Some(index) = state.idle_for(&invocation, self.has_one_process()) {
            let Some(idle) = state.idle.remove(index) else {
                break;
            };
            let request_id = invocation.request_id.clone();
            match idle.offer.send(invocation) {
                Ok(()) => {
                    state.handed.insert(request_id);
                    return;
                }
                // It hung up; try the next.
                Err(returned) => invocation = returned,
            }
        }
        // The warm process, which must not take it, is idle or about to be, so there must be one more.
        let at_work = state.handed.len() + state.in_flight.len();
        let wanted = at_work + state.waiting.len() + 1 + usize::from(invocation.elsewhere);
        state.waiting.push_back(invocation);
        self.demand.send_if_modified(|demand| {
            let more = wanted > *demand;
            *demand = wanted.max(*demand);
            more
        });
    }

    /// Whether there is no other process to go to, ever.
    pub fn has_one_process(&self) -> bool {
        self.environments_max.load(Ordering::Relaxed) <= 1
    }

    /// How many processes would have had work at once so far.
    pub fn demand(&self) -> watch::Receiver<usize> {
        self.demand.subscribe()
    }

    /// Whether the invocation with this id is known to have failed: what the function did took effect or not, and its
    /// records come again.
    pub fn has_failed(&self, request_id: &str) -> bool {
        lock(&self.failed_requests).ids.contains(request_id)
    }

    /// A path for a new process.
    pub fn new_environment(&self, index: usize) -> Arc<Environment> {
        let serial = self.environments_made.fetch_add(1, Ordering::Relaxed);
        let environment = Arc::new(Environment::new(format!("{index}-{serial}")));
        self.state()
            .environments
            .insert(environment.id.clone(), Arc::clone(&environment));
        environment
    }

    /// The process with this path, unless it is gone.
    pub fn environment(&self, id: &str) -> Option<Arc<Environment>> {
        self.state().environments.get(id).cloned()
    }

    /// A process ended; its invocation, if any, failed.
    pub fn environment_gone(&self, environment: &Environment, reason: &str) {
        let mut state = self.state();
        state.environments.remove(&environment.id);
        state.affinities.remove(&environment.id);
        state.idle.retain(|idle| idle.environment.id != environment.id);
        self.idle_bell.notify_waiters();
        let request_id = environment.state().request_id.take();
        if let Some(lost) = request_id.and_then(|request_id| state.in_flight.remove(&request_id)) {
            let _ = lost.result.send(Err(InvocationError::Crash(reason.to_owned())));
        }
    }

    /// The function cannot run: every invocation fails from now on.
    pub fn fail(&self, message: String) {
        let failure = FunctionFailure {
            function: self.function.logical_id.clone(),
            message,
            log_tail: self.log_tail(),
        };
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(failure);
            first
        });
        self.state().waiting.clear();
    }

    /// Tells when the function has failed for good.
    pub fn failure(&self) -> watch::Receiver<Option<FunctionFailure>> {
        self.failure.subscribe()
    }

    pub fn note_line(&self, stderr: bool, line: &str) {
        let mut tail = self.log_tail.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = if stderr { &mut tail.stderr } else { &mut tail.stdout };
        if lines.len() == LOG_TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The last lines of standard error, or of standard output when there are none.
    pub fn log_tail(&self) -> Vec<String> {
        let tail = self.log_tail.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = if tail.stderr.is_empty() {
            &tail.stdout
        } else {
            &tail.stderr
        };
        lines.iter().cloned().collect()
    }

    /// The next invocation for this process; waits for one.
    pub async fn next(&self, environment: &Arc<Environment>) -> Option<Invocation> {
        environment.ready.send_replace(true);
        self.init_failures.store(0, Ordering::Relaxed);
        let (offer, offered) = oneshot::channel();
        {
            let mut state = self.state();
            // A process that asks again without an answer has lost the last one.
            let unanswered = environment.state().request_id.take();
            if let Some(lost) = unanswered.and_then(|request_id| state.in_flight.remove(&request_id)) {
                let _ = lost.result.send(Err(InvocationError::Crash(
                    "it asked for the next invocation without an answer".to_owned(),
                )));
            }
            match state.waiting_for(environment, self.has_one_process()) {
                Some(invocation) => return Some(invocation),
                None => state.idle.push_back(Idle {
                    environment: Arc::clone(environment),
                    offer,
                }),
            }
        }
        offered.await.ok()
    }

    /// Marks the invocation as taken; false when nobody waits for it any more, or the process is gone: then it is offered
    /// again.
    pub fn take(
        &self,
        environment: &Arc<Environment>,
        request_id: &str,
        affinity: String,
        invocation: TakenInvocation,
    ) -> bool {
        let mut state = self.state();
        state.handed.remove(request_id);
        if environment.id != EXTERNAL && !state.environments.contains_key(&environment.id) {
            return false;
        }
        if invocation.taken.send(Arc::clone(environment)).is_err() {
            return false;
        }
        state.affinities.retain(|_, owned| *owned != affinity);
        state.affinities.insert(environment.id.clone(), affinity);
        environment.state().request_id = Some(request_id.to_owned());
        let in_flight = InFlight {
            environment: Arc::clone(environment),
            fault: self.fault_for(environment),
            result: invocation.result,
        };
        state.in_flight.insert(request_id.to_owned(), in_flight);
        true
    }

    /// What goes wrong with an invocation that this process has taken.
    fn fault_for(&self, environment: &Arc<Environment>) -> Option<InvocationFault> {
        if environment.id == EXTERNAL {
            // It was started by hand, and there is nobody to kill.
            return None;
        }
        let place = &self.function.name;
        if let Some(random) = self.faults.strike(FaultKind::Kill, place) {
            let doomed = Arc::clone(environment);
            let delay = Duration::from_millis(random % (KILL_DELAY_MS_MAX + 1));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                doomed.kill.send_replace(Some(KillCause::Fault));
            });
            return Some(InvocationFault::Kill);
        }
        let struck = self.faults.strike(FaultKind::Timeout, place);
        struck.map(|_| InvocationFault::Timeout)
    }

    pub fn finish(&self, request_id: &str, result: Result<Bytes, InvocationError>) -> Finished {
        let mut state = self.state();
        let Some(in_flight) = state.in_flight.get(request_id) else {
            return Finished::Unknown;
        };
        if in_flight.fault == Some(InvocationFault::Kill) {
            // It was quicker than its end, which comes now; that is what the invocation hears of.
            in_flight.environment.kill.send_replace(Some(KillCause::Fault));
            return Finished::Withheld;
        }
        let Some(in_flight) = state.in_flight.remove(request_id) else {
            return Finished::Unknown;
        };
        drop(state);
        in_flight.environment.state().request_id = None;
        if in_flight.fault == Some(InvocationFault::Timeout) {
            in_flight.environment.kill.send_replace(Some(KillCause::Timeout));
            let _ = in_flight
                .result
                .send(Err(InvocationError::Timeout(self.function.timeout)));
            return Finished::Withheld;
        }
        match in_flight.result.send(result) {
            Ok(()) => Finished::Taken,
            Err(_) => Finished::Unknown,
        }
    }
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    Taken,
    /// Nobody waits for it.
    Unknown,
    /// A fault: its process is being killed, and hears nothing more.
    Withheld,
}

/// Who waits for an invocation that was taken.
pub(crate) struct TakenInvocation {
    pub taken: oneshot::Sender<Arc<Environment>>,
    pub result: oneshot::Sender<Result<Bytes, InvocationError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn random_number() -> u64 {
    // Each RandomState is seeded anew, and that is all the randomness an identifier needs here.
    RandomState::new().hash_one(())
}

/// In the form of a version 4 UUID, as Lambda's are.
pub(crate) fn random_request_id() -> String {
    let (high, low) = (random_number(), random_number());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}
