//! `usher send`: events from a file to a stream.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use usher_aws::clients::{Caller, Clients};
use usher_aws::kinesis::KinesisStream;

use crate::Verdict;
use crate::args::SendOptions;
use crate::environment;
use crate::events_file::EventsFile;
use crate::people::{counted, grouped, say};
use crate::progress::Progress;
use crate::sender::acknowledged::Acknowledged;
use crate::sender::resume::ResumeFile;
use crate::sender::{self, GIVE_UP_AFTER, SendProgress};

/// Time between two looks at the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the command.
///
/// # Errors
/// When the events can't be read, the state file is about something else, or the stream does not take the records.
pub async fn run(options: SendOptions) -> Result<Verdict> {
    let events_name = options.events.display().to_string();
    let (resume_file, resume) = match &options.resume {
        Some(path) => {
            let (file, lines) = ResumeFile::open(path, &options.stream, &events_name)?;
            (Some(file), lines)
        }
        None => Default::default(),
    };
    let events = EventsFile::open(&options.events)?;
    let clients = load_clients(options.endpoint_url.as_deref()).await;
    let stream = Arc::new(KinesisStream::new(clients.kinesis, &options.stream));
    let stop = environment::stop_signal()?;
    let progress = Arc::new(SendProgress::default());
    let bar = Progress::of_file(events.size(), events.bytes_read());
    let watcher = tokio::spawn(show(bar.clone(), Arc::clone(&progress)));
    let mut save = |acknowledged: &Acknowledged| match &resume_file {
        Some(file) => file.save(acknowledged.save()),
        None => Ok(()),
    };
    let sender_options = sender::SendOptions {
        ordered: options.ordered,
        resume,
        data_time: None,
    };
    let started = Instant::now();
    let sent = sender::send(events, stream, sender_options, progress, stop, &mut save).await;
    watcher.abort();
    bar.clear();
    let outcome = sent?;

    let seconds = started.elapsed().as_secs_f64();
    let mut told = format!(
        "{} to {} in {seconds:.2} s ({} a second)\n",
        counted(outcome.acknowledged as usize, "event"),
        options.stream,
        grouped((outcome.acknowledged as f64 / seconds.max(f64::MIN_POSITIVE)) as u64)
    );
    if outcome.skipped > 0 {
        let skipped = counted(outcome.skipped as usize, "line");
        told.push_str(&format!("{skipped} were sent by an earlier run\n"));
    }
    if outcome.retried > 0 {
        let why = outcome.last_failure.as_deref().unwrap_or("no reason was given");
        let retried = grouped(outcome.retried);
        told.push_str(&format!(
            "{retried} times a record failed and went again, the last time because: {why}\n"
        ));
    }
    say(&told)?;
    let too_large = outcome.too_large_message();
    if let Some(message) = &too_large {
        eprintln!("error: {message}");
    }
    if outcome.interrupted {
        let how = match &options.resume {
            Some(path) => format!(
                "run the same command again to go on (the state is in {})",
                path.display()
            ),
            None => "with --resume STATE the next run could go on from here".to_owned(),
        };
        eprintln!("error: interrupted before the end of {events_name}; {how}");
    }
    Ok(if outcome.interrupted || too_large.is_some() {
        Verdict::Wrong
    } else {
        Verdict::AllWell
    })
}

/// Clients as the environment says, or for this endpoint.
pub async fn load_clients(endpoint_url: Option<&str>) -> Clients {
    let lookup = |name: &str| match endpoint_url {
        Some(url) if name.starts_with("AWS_ENDPOINT_URL") => Some(url.to_owned()),
        Some(_) if name == "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" => None,
        _ => environment::variable(name),
    };
    Clients::load(&lookup, Caller::Operator).await
}

/// Shows how the sending goes, until it is aborted.
pub async fn show(bar: Progress, progress: Arc<SendProgress>) {
    let mut is_told = false;
    loop {
        if let Some(why) = progress.first_failed_request.get()
            && !is_told
        {
            // Said where no bar is shown too, so that nobody waits without knowing for what.
            bar.note(&format!(
                "the stream does not take records yet: {why}; trying again for up to {} s",
                GIVE_UP_AFTER.as_secs()
            ));
            is_told = true;
        }
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let retried = progress.retried.load(Ordering::Relaxed);
        let failure = progress
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let again = failure
            .map(|why| format!(", {} sent again: {why}", grouped(retried)))
            .unwrap_or_default();
        bar.show(&format!("{} acknowledged{again}", grouped(acknowledged)));
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
}
