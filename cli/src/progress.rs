//! Progress on standard error, only where that is a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
const FILE_TEMPLATE: &str = "{spinner} {bar:30} {bytes}/{total_bytes} {elapsed} {msg}";
const PIPE_TEMPLATE: &str = "{spinner} {bytes} {elapsed} {msg}";
const SPINNER_TEMPLATE: &str = "{spinner} {elapsed} {wide_msg}";

/// A line that says how far it is. Clones are the same line.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    read: Arc<AtomicU64>,
}

impl Progress {
    /// A bar over the bytes of a file, of which `read` says how many were read. Only a count where the size is not known.
    pub fn of_file(size: Option<u64>, read: Arc<AtomicU64>) -> Progress {
        Progress::new(size, read, if size.is_some() { FILE_TEMPLATE } else { PIPE_TEMPLATE })
    }

    /// Something that turns while a thing of unknown length is done.
    pub fn spinner(message: &str) -> Progress {
        let progress = Progress::new(None, Arc::default(), SPINNER_TEMPLATE);
        progress.show(message);
        progress
    }

    fn new(size: Option<u64>, read: Arc<AtomicU64>, template: &str) -> Progress {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(size, target);
        // The templates are constants, which the tests check.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Progress { bar, read }
    }

    /// Shows how far it is, and what else there is to say.
    pub fn show(&self, message: &str) {
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        self.bar.set_message(message.to_owned());
    }

    /// Writes a line on standard error, above the progress.
    pub fn note(&self, text: &str) {
        self.aside(|| eprintln!("{text}"));
    }

    /// Takes the line away while something is written.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_follows_the_bytes_read() {
        for template in [FILE_TEMPLATE, PIPE_TEMPLATE, SPINNER_TEMPLATE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        let read = Arc::new(AtomicU64::new(0));
        let progress = Progress::of_file(Some(100), Arc::clone(&read));
        read.store(40, Ordering::Relaxed);
        progress.show("12 events");
        assert_eq!(
            (progress.bar.position(), progress.bar.message().as_str()),
            (40, "12 events")
        );
    }
}
