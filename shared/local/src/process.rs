//! Execution environments: the real function programs as child processes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::function_queue::{Environment, FunctionQueue, KillCause};

/// CloudWatch Logs cuts events at 256 KiB.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// A crashed process is started again after this time; twice as long each time it crashes again.
const RESTART_BACKOFF_INITIAL: Duration = Duration::from_millis(50);
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A closed process's last words are waited for so long: a grandchild may hold the pipe open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// What a child inherits from this process: enough to run and to be debugged, and no credentials or proxies, so that a
/// function under test cannot reach anything real.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "SystemRoot",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LLVM_PROFILE_FILE",
    "TZDIR",
];

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// Standard output: log lines and embedded metrics.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a function wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Logical id of the function.
    pub function: String,
    /// Which of its processes, from 0.
    pub environment: usize,
    /// Where it was written.
    pub source: LogSource,
    /// The text without its line end; bytes that are not UTF-8 are replaced, and what is over 256 KiB is cut.
    pub line: String,
}

/// Told of each [`LogLine`]; called from the reader's task, so be quick.
#[derive(Clone)]
pub struct LogObserver(Arc<dyn Fn(LogLine) + Send + Sync>);

impl LogObserver {
    /// An observer that calls `observe`.
    pub fn new(observe: impl Fn(LogLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }
}

impl fmt::Debug for LogObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LogObserver")
    }
}

/// How to start a function's processes.
#[derive(Debug, Clone)]
pub(crate) struct ProcessOptions {
    pub executable: PathBuf,
    /// Everything but what [`start`] adds per process.
    pub environment: BTreeMap<String, String>,
    /// Of the Runtime API, without the function.
    pub runtime_url: String,
    pub init_timeout: Duration,
    pub init_attempts_max: u32,
    pub on_log: Option<LogObserver>,
    /// No more processes than this, however many invocations wait.
    pub count_max: usize,
}

/// Keeps `count` processes of the function running until `stop` says true, and more where more invocations wait.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    queue: &Arc<FunctionQueue>,
    options: ProcessOptions,
    count: usize,
    stop: &watch::Receiver<bool>,
) {
    queue.environments_max.store(options.count_max, Ordering::Relaxed);
    let options = Arc::new(options);
    let (queue, stop) = (Arc::clone(queue), stop.clone());
    tasks.spawn(async move {
        let mut demand = queue.demand();
        // The processes end with this task.
        let mut slots = JoinSet::new();
        let mut wanted = count;
        loop {
            for index in slots.len()..wanted.min(options.count_max) {
                let slot = Slot {
                    queue: Arc::clone(&queue),
                    options: Arc::clone(&options),
                    index,
                    stop: stop.clone(),
                };
                slots.spawn(slot.run());
            }
            tokio::select! {
                // A slot ends only when all of them do, so their number is that of those that were started.
                _ = slots.join_next() => break,
                changed = demand.changed() => match changed {
                    Ok(()) => wanted = wanted.max(*demand.borrow_and_update()),
                    Err(_) => break,
                },
            }
        }
        while slots.join_next().await.is_some() {}
    });
}

/// One process after another.
struct Slot {
    queue: Arc<FunctionQueue>,
    options: Arc<ProcessOptions>,
    index: usize,
    stop: watch::Receiver<bool>,
}

/// How a process came to its end.
enum End {
    Stopped,
    /// It never asked for an invocation.
    NotStarted(String),
    /// It was killed during an invocation.
    Killed(KillCause),
    Crashed(String),
}

impl Slot {
    async fn run(mut self) {
        let mut backoff = RESTART_BACKOFF_INITIAL;
        let mut failure = self.queue.failure();
        loop {
            if *self.stop.borrow() || failure.borrow_and_update().is_some() {
                return;
            }
            let environment = self.queue.new_environment(self.index);
            let end = self.run_process(&environment).await;
            let reason = match &end {
                End::Stopped => "the local cloud stopped",
                End::Killed(cause) => cause.reason(),
                End::NotStarted(reason) | End::Crashed(reason) => reason,
            };
            self.queue.environment_gone(&environment, reason);
            match end {
                End::Stopped => return,
                End::Killed(_) => backoff = RESTART_BACKOFF_INITIAL,
                End::NotStarted(reason) => {
                    let failures = self.queue.init_failures.fetch_add(1, Ordering::Relaxed) + 1;
                    tracing::warn!(
                        function = self.queue.function.logical_id,
                        failures,
                        reason,
                        "a process did not start"
                    );
                    if failures >= self.options.init_attempts_max {
                        self.queue.fail(reason);
                        return;
                    }
                    self.pause(&mut backoff).await;
                }
                End::Crashed(reason) => {
                    tracing::warn!(function = self.queue.function.logical_id, reason, "a process ended");
                    self.pause(&mut backoff).await;
                }
            }
        }
    }

    async fn pause(&mut self, backoff: &mut Duration) {
        tokio::select! {
            () = tokio::time::sleep(*backoff) => {}
            () = raised(&mut self.stop) => {}
        }
        *backoff = (*backoff * 2).min(RESTART_BACKOFF_MAX);
    }

    async fn run_process(&mut self, environment: &Arc<Environment>) -> End {
        let mut child = match self.command(environment).spawn() {
            Ok(child) => child,
            Err(error) => {
                let path = self.options.executable.display();
                self.queue
                    .fail(format!("cannot run {path}: {error}; build it, or give the right path"));
                return End::Stopped;
            }
        };
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(self.read_lines(stdout, LogSource::Stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(self.read_lines(stderr, LogSource::Stderr));
        }
        let end = self.watch_process(&mut child, environment).await;
        // Its last words come before the news of its end.
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, async {
            while readers.join_next().await.is_some() {}
        })
        .await;
        end
    }

    async fn watch_process(&mut self, child: &mut Child, environment: &Environment) -> End {
        let mut ready = environment.ready.subscribe();
        let mut killed = environment.kill.subscribe();
        let not_ready = "before it asked for its first invocation";
        tokio::select! {
            () = raised(&mut self.stop) => {
                kill(child).await;
                return End::Stopped;
            }
            () = raised(&mut ready) => {}
            status = child.wait() => {
                let message = environment.init_error().unwrap_or_else(|| format!("its process ended {not_ready} ({})", describe(status)));
                return End::NotStarted(message);
            }
            () = tokio::time::sleep(self.options.init_timeout) => {
                kill(child).await;
                let seconds = self.options.init_timeout.as_secs_f64();
                return End::NotStarted(format!("{seconds} seconds passed {not_ready}"));
            }
        }
        tokio::select! {
            () = raised(&mut self.stop) => {
                kill(child).await;
                End::Stopped
            }
            cause = told_to_end(&mut killed) => {
                kill(child).await;
                End::Killed(cause)
            }
            status = child.wait() => End::Crashed(describe(status)),
        }
    }

    fn command(&self, environment: &Environment) -> Command {
        let function = &self.queue.function;
        let mut command = Command::new(&self.options.executable);
        command.env_clear();
        command
            .envs(inherited())
            .envs(&self.options.environment)
            .env(
                "AWS_LAMBDA_RUNTIME_API",
                format!("{}/{}/{}", self.options.runtime_url, function.name, environment.id),
            )
            .env(
                "AWS_LAMBDA_LOG_STREAM_NAME",
                format!("local/[$LATEST]{}", environment.id),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C in a terminal is for the local cloud, which then ends its children in order.
        #[cfg(unix)]
        command.process_group(0);
        command
    }

    fn read_lines<R>(&self, pipe: R, source: LogSource) -> impl Future<Output = ()> + Send + 'static
    where
        R: AsyncRead + Unpin + Send + 'static,
    {
        let queue = Arc::clone(&self.queue);
        let observer = self.options.on_log.clone();
        let index = self.index;
        async move {
            let mut reader = BufReader::new(pipe);
            while let Some(line) = read_line(&mut reader).await {
                queue.note_line(source == LogSource::Stderr, &line);
                if let Some(LogObserver(observe)) = &observer {
                    observe(LogLine {
                        function: queue.function.logical_id.clone(),
                        environment: index,
                        source,
                        line,
                    });
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a child's environment is this process's, narrowed"
)]
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    INHERITED
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
}

/// One line without its end; the rest of a line that is too long is skipped.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let available = reader.fill_buf().await.ok()?;
        if available.is_empty() {
            return any.then(|| text_of(line));
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        let room = LINE_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let consumed = part.len() + usize::from(end.is_some());
        reader.consume(consumed);
        if end.is_some() {
            return Some(text_of(line));
        }
    }
}

fn text_of(mut line: Vec<u8>) -> String {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Waits until the flag is raised, or nobody is left to raise it.
async fn raised(flag: &mut watch::Receiver<bool>) {
    // The guard that comes back must not live across another await.
    let _ = flag.wait_for(|raised| *raised).await;
}

/// Waits until the process must end.
async fn told_to_end(kill: &mut watch::Receiver<Option<KillCause>>) -> KillCause {
    match kill.wait_for(Option::is_some).await.ok().and_then(|cause| *cause) {
        Some(cause) => cause,
        // Nobody is left to say so.
        None => std::future::pending().await,
    }
}

async fn kill(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a process could not be killed");
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, read_line};

    #[tokio::test]
    async fn lines_are_split_cut_and_decoded() {
        let long = "x".repeat(LINE_BYTES_MAX + 10);
        let text = format!("one\r\n\n{long}\nlast");
        let mut bytes = text.into_bytes();
        bytes.extend(b"\xff");
        let mut reader = bytes.as_slice();
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader).await {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", &"x".repeat(LINE_BYTES_MAX), "last\u{fffd}"]);
    }
}
