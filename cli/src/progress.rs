//! Progress bars on standard error, only where that is a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// A bar over the bytes of a file, with counts beside it.
pub struct FileProgress {
    bar: ProgressBar,
    read: Arc<AtomicU64>,
}

impl FileProgress {
    /// A bar for a file with this many bytes, of which `read` says how many were read. A spinner where the size is not
    /// known.
    pub fn new(size: Option<u64>, read: Arc<AtomicU64>) -> FileProgress {
        let template = match size {
            Some(_) => "{spinner} {bar:30} {bytes}/{total_bytes} {elapsed_precise} {msg}",
            None => "{spinner} {bytes} {elapsed_precise} {msg}",
        };
        let bar = ProgressBar::with_draw_target(size, draw_target());
        // The templates are constants that the tests render.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        FileProgress { bar, read }
    }

    /// Shows how far the file was read, and what else there is to say.
    pub fn show(&self, message: String) {
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        self.bar.set_message(message);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn draw_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_follows_the_bytes_read() {
        let read = Arc::new(AtomicU64::new(0));
        let progress = FileProgress::new(Some(100), Arc::clone(&read));
        read.store(40, Ordering::Relaxed);
        progress.show("12 events".to_owned());
        assert_eq!(
            (progress.bar.position(), progress.bar.message().as_str()),
            (40, "12 events")
        );
    }
}
