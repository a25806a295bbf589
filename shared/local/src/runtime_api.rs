//! x

/// Why a function cannot run at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the function {function} does not start: {message}{}", display_tail(.stderr_tail))]
pub struct FunctionFailure {
    /// Logical id of the function.
    pub function: String,
    /// What it said, or how its process ended.
    pub message: String,
    /// The last lines of its standard error.
    pub stderr_tail: Vec<String>,
}

pub(crate) fn display_tail(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    | {line}")).collect()
}
