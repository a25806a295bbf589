//! Putting records on a stream again, in order, and telling how far it came.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use usher_aws::kinesis::KinesisStream;
use usher_pipeline::ports::StreamRecord;

use crate::people::{counted, grouped, say};
use crate::progress::Progress;
use crate::sender::{self, SendProgress};

/// Time between two looks at the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Records for one stream.
pub struct PutAgain {
    /// Where they go.
    pub stream: KinesisStream,
    /// What goes, in order.
    pub records: Vec<StreamRecord>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// Whether every record was acknowledged.
    pub is_complete: bool,
}

/// Puts the records of each stream, one stream after the other, and says what was put. Of a partition key, never two
/// records are unacknowledged.
///
/// # Errors
/// When a stream does not take the records; the error says how many were put before.
pub async fn put_again(puts: Vec<PutAgain>, stop: watch::Receiver<bool>) -> Result<PutOutcome> {
    for PutAgain { stream, records } in puts {
        let name = stream.name_or_arn().to_owned();
        let total = records.len();
        let progress = Arc::new(SendProgress::default());
        let spinner = Progress::spinner(&format!("putting records on {name}"));
        let watcher = tokio::spawn(show(spinner.clone(), Arc::clone(&progress), name.clone(), total));
        let sent = sender::send_records(records, Arc::new(stream), Arc::clone(&progress), stop.clone()).await;
        watcher.abort();
        spinner.clear();
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let outcome = sent.with_context(|| {
            format!(
                "{} of {} were put on {name} before it failed; run it again: where an event id \
                 can be read, what was put is known by it",
                grouped(acknowledged),
                counted(total, "record")
            )
        })?;
        say(&format!("{} put on {name}\n", counted(acknowledged as usize, "record")))?;
        if outcome.interrupted {
            eprintln!(
                "error: interrupted; {} of {} for {name} were put, and nothing after them. Run it again: where an event \
                 id can be read, what was put is known by it",
                grouped(acknowledged),
                counted(total, "record")
            );
            return Ok(PutOutcome { is_complete: false });
        }
    }
    Ok(PutOutcome { is_complete: true })
}

async fn show(spinner: Progress, progress: Arc<SendProgress>, name: String, total: usize) {
    loop {
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        spinner.show(&format!(
            "{} of {} put on {name}",
            grouped(acknowledged),
            grouped(total as u64)
        ));
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
}
