//! Sending the lines of an events file to a stream: batches, retries of what failed only, order where it is asked for.
//!
//! It does not use `usher_pipeline::put_records`, which puts a batch that is complete in memory before a deadline: here
//! records stream in without end, several requests are under way, and a record that failed must hold back later ones of its
//! key, but nothing else.

pub mod acknowledged;
pub mod data_time;
mod queue;
mod record;
pub mod resume;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use usher_domain::hash::hash_bytes;
use usher_pipeline::ports::{CallError, PutOutcome, RecordStream, StreamRecord};

use crate::events_file::EventsFile;
use acknowledged::{Acknowledged, SavedLines};
use data_time::DataTime;
use queue::{Entry, Queue};
use record::{RECORD_BYTES_MAX, record_of};

/// Requests that are under way at once.
pub const REQUESTS_UNDER_WAY_MAX: usize = 4;
/// Lines that wait between the reader's thread and the queue.
const LINES_WAITING_MAX: usize = 1024;
/// When no record was taken for so long, although some were tried, it is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(120);
/// After an interruption, requests under way are waited for so long.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);

/// How to send.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// Never two unacknowledged records of one key.
    pub ordered: bool,
    /// What an earlier run has sent.
    pub resume: SavedLines,
    /// Told how far the data's own time has come.
    pub data_time: Option<Arc<DataTime>>,
}

/// How far it is; read while it runs.
#[derive(Debug, Default)]
pub struct SendProgress {
    /// Records that the stream has acknowledged.
    pub acknowledged: AtomicU64,
    /// Records that failed and went again.
    pub retried: AtomicU64,
    /// Why the last one failed.
    pub last_failure: Mutex<Option<String>>,
    /// Why the first request failed of which nothing was stored.
    pub first_failed_request: OnceLock<String>,
}

/// How it ended.
#[derive(Debug)]
pub struct SendOutcome {
    /// Records acknowledged in this run.
    pub acknowledged: u64,
    /// Records that failed and went again, each time counted.
    pub retried: u64,
    /// Lines that an earlier run had sent.
    pub skipped: u64,
    /// Lines that no stream takes, because they are too large even when compressed: the first few, and how many.
    pub too_large: Vec<u64>,
    /// How many lines were too large.
    pub too_large_count: u64,
    /// Whether it was told to stop before the end of the file.
    pub interrupted: bool,
    /// Why the last record failed that did.
    pub last_failure: Option<String>,
}

/// Numbers of lines that are reported by name.
const LINES_REPORTED_MAX: usize = 10;

/// A request's records, and what became of them.
type Answered = (Vec<Entry>, Result<Vec<PutOutcome>, CallError>);

/// What the reader's thread finds.
enum Read {
    Record(Entry),
    Blank(u64),
    TooLarge {
        line: u64,
        hash: u64,
    },
    /// An earlier run has sent it.
    Done {
        line: u64,
        hash: u64,
    },
    Failed(anyhow::Error),
}

/// Sends every line until the end of the file, or until `stop` says true. `on_acknowledged` is called after each answer.
///
/// # Errors
/// When the file can't be read, when it is not the one that was interrupted, or when the stream refuses records or takes
/// none for [`GIVE_UP_AFTER`]. What was acknowledged before was told to `on_acknowledged`.
pub async fn send<S>(
    events: EventsFile,
    stream: Arc<S>,
    options: SendOptions,
    progress: Arc<SendProgress>,
    stop: watch::Receiver<bool>,
    on_acknowledged: &mut (dyn FnMut(&Acknowledged) -> Result<()> + Send),
) -> Result<SendOutcome>
where
    S: RecordStream + 'static,
{
    let (lines, read) = mpsc::channel(LINES_WAITING_MAX);
    let (resume, data_time) = (options.resume, options.data_time);
    let mut on_answer = |acknowledged: &Acknowledged| {
        if let Some(data_time) = &data_time {
            data_time.acknowledged(acknowledged.up_to());
        }
        on_acknowledged(acknowledged)
    };
    let read_time = data_time.clone();
    // A thread of its own, because reading blocks, and standard input may block for ever.
    std::thread::spawn(move || read_lines(events, &resume, read_time.as_deref(), &lines));
    send_read(read, stream, options.ordered, progress, stop, &mut on_answer).await
}

/// Sends records that are in memory, never two unacknowledged ones of a key, until all are sent or `stop` says true.
///
/// # Errors
/// When the stream refuses records or takes none for [`GIVE_UP_AFTER`]; `progress` has what was acknowledged before.
pub async fn send_records<S>(
    records: Vec<StreamRecord>,
    stream: Arc<S>,
    progress: Arc<SendProgress>,
    stop: watch::Receiver<bool>,
) -> Result<SendOutcome>
where
    S: RecordStream + 'static,
{
    let (lines, read) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        for (index, record) in records.into_iter().enumerate() {
            let entry = Entry {
                line: index as u64 + 1,
                hash: 0,
                record,
                failures: 0,
            };
            if lines.blocking_send(Read::Record(entry)).is_err() {
                return;
            }
        }
    });
    send_read(read, stream, true, progress, stop, &mut |_| Ok(())).await
}

async fn send_read<S>(
    mut read: mpsc::Receiver<Read>,
    stream: Arc<S>,
    ordered: bool,
    progress: Arc<SendProgress>,
    mut stop: watch::Receiver<bool>,
    on_acknowledged: &mut (dyn FnMut(&Acknowledged) -> Result<()> + Send),
) -> Result<SendOutcome>
where
    S: RecordStream + 'static,
{
    let mut sending = Sending {
        queue: Queue::new(ordered),
        acknowledged: Acknowledged::default(),
        progress,
        skipped: 0,
        too_large: Vec::new(),
        too_large_count: 0,
        last_success: Instant::now(),
    };
    let mut under_way: JoinSet<Answered> = JoinSet::new();
    let mut at_end = false;
    let mut interrupted = *stop.borrow();
    while !interrupted {
        while under_way.len() < REQUESTS_UNDER_WAY_MAX {
            // What waits in the channel goes along in the same request.
            while sending.queue.has_room()
                && let Ok(line) = read.try_recv()
            {
                sending.take_in(line)?;
            }
            let batch = sending.queue.take_batch(Instant::now());
            if batch.is_empty() {
                break;
            }
            let stream = Arc::clone(&stream);
            under_way.spawn(async move {
                let records: Vec<StreamRecord> = batch.iter().map(|entry| entry.record.clone()).collect();
                let answer = stream.put(&records).await;
                (batch, answer)
            });
        }
        if at_end && sending.queue.is_empty() {
            break;
        }
        let retry_at = sending.queue.next_retry_at().map(tokio::time::Instant::from_std);
        let may_send = under_way.len() < REQUESTS_UNDER_WAY_MAX;
        tokio::select! {
            biased;
            changed = stop.changed() => interrupted = changed.is_err() || *stop.borrow(),
            Some(answered) = under_way.join_next() => {
                sending.answered(answered.context("a request broke off")?)?;
                on_acknowledged(&sending.acknowledged)?;
            }
            line = read.recv(), if !at_end && sending.queue.has_room() && may_send => match line {
                Some(line) => sending.take_in(line)?,
                None => at_end = true,
            },
            () = tokio::time::sleep_until(retry_at.unwrap_or_else(tokio::time::Instant::now)),
                if retry_at.is_some() && may_send => {}
        }
    }
    if interrupted {
        let last_answers = async {
            while let Some(Ok(answered)) = under_way.join_next().await {
                sending.answered(answered)?;
            }
            anyhow::Ok(())
        };
        // Without an answer a record counts as not sent; it may go twice, and its event id makes that harmless.
        if let Ok(answered) = tokio::time::timeout(LAST_ANSWERS_TIMEOUT, last_answers).await {
            answered?;
        }
    }
    on_acknowledged(&sending.acknowledged)?;
    Ok(SendOutcome {
        acknowledged: sending.progress.acknowledged.load(Ordering::Relaxed),
        retried: sending.progress.retried.load(Ordering::Relaxed),
        skipped: sending.skipped,
        too_large: sending.too_large,
        too_large_count: sending.too_large_count,
        interrupted,
        last_failure: sending
            .progress
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    })
}

struct Sending {
    queue: Queue,
    acknowledged: Acknowledged,
    progress: Arc<SendProgress>,
    skipped: u64,
    too_large: Vec<u64>,
    too_large_count: u64,
    last_success: Instant,
}

impl Sending {
    fn take_in(&mut self, read: Read) -> Result<()> {
        match read {
            Read::Record(entry) => {
                if self.queue.is_empty() {
                    // Nothing was tried while there was nothing to send.
                    self.last_success = Instant::now();
                }
                self.queue.push(entry);
            }
            Read::Blank(line) => self.acknowledged.add_blank(line),
            Read::Done { line, hash } => {
                self.skipped += 1;
                self.acknowledged.add(line, hash);
            }
            Read::TooLarge { line, hash } => {
                self.too_large_count += 1;
                if self.too_large.len() < LINES_REPORTED_MAX {
                    self.too_large.push(line);
                }
                // It would be too large again.
                self.acknowledged.add(line, hash);
            }
            Read::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn answered(&mut self, (batch, answer): Answered) -> Result<()> {
        let now = Instant::now();
        let mut reason = None;
        let (mut stored, mut failed) = (0, 0);
        match answer {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for entry in batch {
                    match outcomes.next() {
                        Some(PutOutcome::Stored { .. }) => {
                            stored += 1;
                            self.acknowledged.add(entry.line, entry.hash);
                            self.queue.acknowledged(&entry);
                        }
                        other => {
                            failed += 1;
                            reason = Some(reason_of(other));
                            self.queue.failed(entry, now, fastrand::f64());
                        }
                    }
                }
            }
            Err(error @ CallError::Refused { .. }) => {
                return Err(anyhow::Error::from(error).context("the stream does not take these records"));
            }
            Err(error @ CallError::Retry { .. }) => {
                failed = batch.len() as u64;
                reason = Some(chain(&error));
                for entry in batch {
                    self.queue.failed(entry, now, fastrand::f64());
                }
            }
        }
        self.progress.acknowledged.fetch_add(stored, Ordering::Relaxed);
        self.progress.retried.fetch_add(failed, Ordering::Relaxed);
        if let Some(why) = &reason {
            if stored == 0 {
                self.progress.first_failed_request.get_or_init(|| why.clone());
            }
            *self
                .progress
                .last_failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        }
        if stored > 0 {
            self.last_success = now;
        } else if self.last_success.elapsed() > GIVE_UP_AFTER {
            let why = anyhow!("{}", reason.unwrap_or_else(|| "there was no answer".to_owned()));
            return Err(why.context(format!(
                "the stream took no record for {} seconds; try again later",
                GIVE_UP_AFTER.as_secs()
            )));
        }
        Ok(())
    }
}

fn reason_of(outcome: Option<PutOutcome>) -> String {
    match outcome {
        Some(PutOutcome::Failed { code, message }) => format!("{code}: {message}"),
        _ => "the answer left the record out".to_owned(),
    }
}

/// An error with its causes, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

/// Reads the file into the channel until its end, an error, or nobody listens.
fn read_lines(mut events: EventsFile, resume: &SavedLines, data_time: Option<&DataTime>, lines: &mpsc::Sender<Read>) {
    let mut expected = 1;
    loop {
        let found = match events.next_line() {
            Ok(None) => {
                if expected <= resume.last_line {
                    let message = "the events are not those that the state file is about: they end before line";
                    let _ = lines.blocking_send(Read::Failed(anyhow!("{message} {}", resume.last_line)));
                }
                return;
            }
            Ok(Some(line)) => {
                let blanks = expected..line.number;
                expected = line.number + 1;
                for blank in blanks {
                    if lines.blocking_send(Read::Blank(blank)).is_err() {
                        return;
                    }
                }
                if let Some(data_time) = data_time {
                    data_time.read(line.number, line.bytes);
                }
                let hash = hash_bytes(line.bytes);
                if !resume.agrees_with(line.number, hash) {
                    let message = "the events are not those that the state file is about: another line is at";
                    Read::Failed(anyhow!(
                        "{message} {}; delete the state file to begin anew",
                        line.number
                    ))
                } else if resume.contains(line.number) {
                    Read::Done {
                        line: line.number,
                        hash,
                    }
                } else {
                    match record_of(line.bytes) {
                        Some(record) => Read::Record(Entry {
                            line: line.number,
                            hash,
                            record,
                            failures: 0,
                        }),
                        None => Read::TooLarge {
                            line: line.number,
                            hash,
                        },
                    }
                }
            }
            Err(error) => Read::Failed(error),
        };
        let is_over = matches!(found, Read::Failed(_));
        if lines.blocking_send(found).is_err() || is_over {
            return;
        }
    }
}

impl SendOutcome {
    /// What to tell about lines that no stream takes; none if there are none.
    pub fn too_large_message(&self) -> Option<String> {
        if self.too_large_count == 0 {
            return None;
        }
        let numbers: Vec<String> = self.too_large.iter().map(u64::to_string).collect();
        let more = if self.too_large_count > self.too_large.len() as u64 {
            ", …"
        } else {
            ""
        };
        Some(format!(
            "{} not sent, because a record has at most {RECORD_BYTES_MAX} bytes even when compressed: line {}{more}",
            crate::people::counted(self.too_large_count as usize, "line"),
            numbers.join(", "),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A stream that fails some records by a fixed pattern, and keeps what it took in order.
    struct Flaky {
        stored: Mutex<Vec<StreamRecord>>,
        calls: AtomicU64,
        fail_every: u64,
        refuse_after: u64,
    }

    impl Flaky {
        fn new(fail_every: u64, refuse_after: u64) -> Arc<Flaky> {
            Arc::new(Flaky {
                stored: Mutex::default(),
                calls: AtomicU64::new(0),
                fail_every,
                refuse_after,
            })
        }
    }

    impl RecordStream for Flaky {
        async fn put(&self, records: &[StreamRecord]) -> Result<Vec<PutOutcome>, CallError> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::task::yield_now().await;
            if call > self.refuse_after {
                return Err(CallError::Refused {
                    call: "put".to_owned(),
                    source: "no permission".into(),
                });
            }
            if call.is_multiple_of(5) {
                return Err(CallError::Retry {
                    call: "put".to_owned(),
                    source: "timeout".into(),
                });
            }
            let mut stored = self.stored.lock().expect("no panics");
            let outcomes = records.iter().enumerate().map(|(index, record)| {
                if (index as u64 + call).is_multiple_of(self.fail_every) {
                    return PutOutcome::Failed {
                        code: "Throttled".to_owned(),
                        message: String::new(),
                    };
                }
                stored.push(record.clone());
                PutOutcome::Stored {
                    shard_id: "s".to_owned(),
                    sequence_number: "1".to_owned(),
                }
            });
            Ok(outcomes.collect())
        }
    }

    fn file_of(folder: &tempfile::TempDir, lines: u64) -> EventsFile {
        let text: String = (1..=lines)
            .map(|line| {
                format!(
                    "{{\"user_id\":\"u{}\",\"event_id\":\"{line}\"}}\n{}",
                    line % 7,
                    if line % 10 == 0 { "\n" } else { "" }
                )
            })
            .collect();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, text).expect("written");
        EventsFile::open(&path).expect("readable")
    }

    fn event_ids(stored: &[StreamRecord]) -> HashMap<String, Vec<u64>> {
        let mut by_user: HashMap<String, Vec<u64>> = HashMap::new();
        for record in stored {
            let json: serde_json::Value = serde_json::from_slice(&record.data).expect("json");
            let id = json["event_id"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .expect("a number");
            by_user.entry(record.partition_key.clone()).or_default().push(id);
        }
        by_user
    }

    async fn run(events: EventsFile, stream: &Arc<Flaky>, options: SendOptions) -> (Result<SendOutcome>, SavedLines) {
        let (_keep, stop) = watch::channel(false);
        let mut saved = SavedLines::default();
        let mut keep = |acknowledged: &Acknowledged| {
            saved = acknowledged.save();
            Ok(())
        };
        let outcome = send(events, Arc::clone(stream), options, Arc::default(), stop, &mut keep).await;
        (outcome, saved)
    }

    #[tokio::test]
    async fn p3_every_line_is_stored_once_and_in_order_by_user_although_records_fail() {
        let folder = tempfile::tempdir().expect("a folder");
        let stream = Flaky::new(3, u64::MAX);
        let options = SendOptions {
            ordered: true,
            ..SendOptions::default()
        };
        let (outcome, saved) = run(file_of(&folder, 400), &stream, options).await;
        let outcome = outcome.expect("all sent");
        assert_eq!((outcome.acknowledged, outcome.interrupted), (400, false));
        assert!(outcome.retried > 0);
        assert_eq!(
            (saved.acknowledged_lines, saved.also_acknowledged.len()),
            (439, 0),
            "blank lines count"
        );
        let by_user = event_ids(&stream.stored.lock().expect("no panics"));
        assert_eq!(by_user.len(), 7);
        for ids in by_user.values() {
            assert!(ids.is_sorted_by(|left, right| left < right), "{ids:?}");
        }
        assert_eq!(by_user.values().map(Vec::len).sum::<usize>(), 400);
    }

    #[tokio::test]
    async fn why_the_first_request_failed_is_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_keep, stop) = watch::channel(false);
        let progress = Arc::new(SendProgress::default());
        let stream = Flaky::new(u64::MAX, u64::MAX);
        // The fifth call fails as a whole.
        stream.calls.store(4, Ordering::Relaxed);
        let (events, told) = (file_of(&folder, 1), Arc::clone(&progress));
        let sent = send(events, stream, SendOptions::default(), told, stop, &mut |_| Ok(())).await;
        assert_eq!(sent.expect("sent at the second try").acknowledged, 1);
        let why = progress.first_failed_request.get().expect("one failed");
        assert!(why.contains("timeout"), "{why}");
    }

    #[tokio::test]
    async fn without_order_every_line_is_stored_once_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let stream = Flaky::new(3, u64::MAX);
        let (outcome, _) = run(file_of(&folder, 600), &stream, SendOptions::default()).await;
        assert_eq!(outcome.expect("all sent").acknowledged, 600);
        let mut ids: Vec<u64> = event_ids(&stream.stored.lock().expect("no panics"))
            .into_values()
            .flatten()
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=600).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_interrupted_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let stream = Flaky::new(3, 40);
        let options = SendOptions {
            ordered: true,
            ..SendOptions::default()
        };
        let (outcome, saved) = run(file_of(&folder, 400), &stream, options).await;
        let error = format!("{:#}", outcome.expect_err("refused"));
        assert!(error.contains("no permission"), "{error}");
        assert!(saved.contains(1));
        let before = stream.stored.lock().expect("no panics").len();

        let options = SendOptions {
            ordered: true,
            resume: saved.clone(),
            ..SendOptions::default()
        };
        let again = Flaky::new(u64::MAX, u64::MAX);
        let (outcome, _) = run(file_of(&folder, 400), &again, options.clone()).await;
        let outcome = outcome.expect("all sent");
        assert_eq!(outcome.acknowledged + outcome.skipped, 400);
        let mut ids: Vec<u64> = event_ids(&stream.stored.lock().expect("no panics"))
            .into_values()
            .flatten()
            .collect();
        ids.extend(
            event_ids(&again.stored.lock().expect("no panics"))
                .into_values()
                .flatten(),
        );
        ids.sort_unstable();
        let repeated = ids.len() - 400;
        ids.dedup();
        assert_eq!(ids, (1..=400).collect::<Vec<_>>(), "none is missing");
        assert!(
            repeated <= before.min(REQUESTS_UNDER_WAY_MAX * 7),
            "only what was under way went twice: {repeated}"
        );

        let (outcome, _) = run(file_of(&folder, 2), &again, options).await;
        assert!(outcome.expect_err("another file").to_string().contains("not those"));
    }

    #[tokio::test]
    async fn a_stop_ends_it_with_what_was_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let (stop, stopped) = watch::channel(true);
        let outcome = send(
            file_of(&folder, 400),
            Flaky::new(3, u64::MAX),
            SendOptions::default(),
            Arc::default(),
            stopped,
            &mut |_| Ok(()),
        )
        .await
        .expect("no error");
        drop(stop);
        assert_eq!((outcome.acknowledged, outcome.interrupted), (0, true));
    }
}
