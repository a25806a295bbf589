//! x
use std::fmt;
use std::sync::Arc;

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
pub struct LogObserver(pub(crate) Arc<dyn Fn(LogLine) + Send + Sync>);

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
