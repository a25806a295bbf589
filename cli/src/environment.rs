//! What the process is told from outside: its environment and its signals.

use anyhow::{Context, Result};
use tokio::sync::watch;

/// A variable of the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a command is the edge that reads the environment"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The command line, with the name of the program in place of its path. An argument that is not UTF-8 is shown as far as it
/// is.
pub fn arguments() -> Vec<String> {
    let mut arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if let Some(program) = arguments.first_mut() {
        "usher".clone_into(program);
    }
    arguments
}

/// Turns true at Ctrl-C or a request to terminate.
///
/// # Errors
/// When the signals can't be listened to.
pub fn stop_signal() -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let listening = || "cannot listen for Ctrl-C";
    #[cfg(unix)]
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).with_context(listening)?;
    #[cfg(unix)]
    let mut interrupt =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).with_context(listening)?;
    tokio::spawn(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        stop.send_replace(true);
        // Keeps the channel open, so that a waiting receiver is not told of its end.
        stop.closed().await;
    });
    Ok(stopped)
}
