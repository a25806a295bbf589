//! Given-up batches: read, looked at, and put again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use usher_aws::bucket::BucketFolder;
use usher_aws::clients::{Caller, Clients, load_stores};
use usher_aws::dynamodb::DynamoProfileTable;
use usher_aws::kinesis::KinesisStream;
use usher_aws::queue::Queue;
use usher_aws::stream_reader::StreamReader;
use usher_domain::limits::DEDUPE_LAST_DEFAULT;
use usher_domain::sequence_number::SequenceNumber;
use usher_pipeline::ports::StreamRecord;

use super::assess::{Assessment, Fate, Kind, Profiles, assess, kind_of};
use super::endpoints_of;
use super::failure_record::FailedRecord;
use super::fetch::{Missing, fetch};
use super::source::{BYTES_MAX, Found, Source};
use crate::Verdict;
use crate::args::RedriveOptions;
use crate::patience::unless_stopped;
use crate::people::{counted, grouped, say, table};
use crate::put_again::{PutAgain, put_again};
use crate::{environment, journey_file, project};

/// Users that are named at most.
const USERS_NAMED_MAX: usize = 50;
/// Failure records that can't be used that are named at most.
const PROBLEMS_NAMED_MAX: usize = 20;

/// Runs the command.
///
/// # Errors
/// When something can't be read or put.
pub async fn run(options: RedriveOptions) -> Result<Verdict> {
    let stop = environment::stop_signal()?;
    let lookup = endpoints_of(&options);
    let clients = Clients::load(&lookup, Caller::Operator).await;
    let source = match (&options.file, &options.queue, &options.bucket) {
        (Some(path), ..) => Source::Files(path.clone()),
        (_, Some(url), _) => {
            let (http, endpoints) = load_stores(&lookup).await?;
            Source::Queue(Queue::new(http, &endpoints, url)?)
        }
        (.., Some(uri)) => {
            let (http, endpoints) = load_stores(&lookup).await?;
            Source::Bucket(BucketFolder::new(http, &endpoints, uri)?)
        }
        // The command line asks for one of them.
        _ => bail!("name a file, --queue, --bucket or --user"),
    };
    let mut found = source.read(&stop).await?;
    let problems: Vec<&Found> = found.iter().filter(|one| one.problem.is_some()).collect();
    for one in problems.iter().take(PROBLEMS_NAMED_MAX) {
        eprintln!(
            "error: cannot use {}: {}",
            one.name,
            one.problem.as_deref().unwrap_or_default()
        );
    }
    if problems.len() > PROBLEMS_NAMED_MAX {
        eprintln!(
            "error: and {} more like these",
            grouped((problems.len() - PROBLEMS_NAMED_MAX) as u64)
        );
    }
    let (is_all_usable, is_none_usable) = (problems.is_empty(), problems.len() == found.len());
    if is_none_usable {
        source.release(&found).await;
        say("no record of a failed batch is there\n")?;
        return Ok(if is_all_usable {
            Verdict::AllWell
        } else {
            Verdict::Wrong
        });
    }
    let done = redrive(&options, &clients, &source, &mut found, stop).await;
    let deleted = match &done {
        Ok(done) => done.deleted.clone(),
        Err(_) => BTreeSet::new(),
    };
    let kept = found.iter().enumerate().filter(|(index, _)| !deleted.contains(index));
    source.release(kept.map(|(_, one)| one)).await;
    Ok(match done?.verdict {
        Verdict::AllWell if is_all_usable => Verdict::AllWell,
        _ => Verdict::Wrong,
    })
}

/// How many event ids the journey has a profile remember. Where none is found, as many as one that doesn't say.
fn ids_of_journey(options: &RedriveOptions) -> Result<usize> {
    let path = match &options.journey {
        Some(path) => path.clone(),
        None => match project::find_template(None).and_then(|template| project::find_journey(None, &template)) {
            Ok(path) => path,
            Err(_) => return Ok(DEDUPE_LAST_DEFAULT),
        },
    };
    Ok(journey_file::load(&path)?.dedupe_last)
}

struct Done {
    verdict: Verdict,
    deleted: BTreeSet<usize>,
}

/// The records of all batches, each once, in order, with which of the found failure records tell of it.
#[derive(Default)]
struct Records {
    by_place: BTreeMap<(String, String, SequenceNumber), (FailedRecord, Vec<usize>)>,
    bytes: usize,
    missing: Vec<Missing>,
    /// Failure records of which something is past retention.
    partial: BTreeSet<usize>,
    batches: usize,
}

impl Records {
    /// Takes the records out of what was found, where they are there.
    async fn collect(clients: &Clients, found: &mut [Found]) -> Result<Records> {
        let mut all = Records::default();
        for (index, one) in found.iter_mut().enumerate() {
            if one.problem.is_some() {
                all.partial.insert(index);
            }
            for batch in &mut one.batches {
                all.batches += 1;
                let records = match batch.records.take() {
                    Some(records) => records,
                    None => {
                        let reader = StreamReader::new(clients.kinesis.clone(), &batch.stream_arn);
                        let fetched = fetch(&reader, batch).await;
                        let fetched = fetched.with_context(|| format!("cannot fetch the records of {}", one.name))?;
                        if let Some(missing) = fetched.missing {
                            all.partial.insert(index);
                            // Lambda may tell of a batch twice.
                            if !all.missing.contains(&missing) {
                                all.missing.push(missing);
                            }
                        }
                        fetched.records
                    }
                };
                for record in records {
                    all.add(record, index)?;
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, record: FailedRecord, index: usize) -> Result<()> {
        let place = (
            record.stream_arn.clone(),
            record.shard_id.clone(),
            record.sequence_number,
        );
        let bytes = record.data.len();
        let entry = self.by_place.entry(place).or_insert_with(|| {
            self.bytes += bytes;
            (record, Vec::new())
        });
        entry.1.push(index);
        if self.bytes > BYTES_MAX {
            bail!(
                "there are over {} MiB of records; redrive them in parts",
                BYTES_MAX >> 20
            );
        }
        Ok(())
    }
}

async fn redrive(
    options: &RedriveOptions,
    clients: &Clients,
    source: &Source,
    found: &mut [Found],
    stop: watch::Receiver<bool>,
) -> Result<Done> {
    let journey_remembers = ids_of_journey(options)?;
    let Records {
        by_place,
        missing,
        mut partial,
        batches,
        ..
    } = unless_stopped(&stop, Records::collect(clients, found)).await?;
    let (records, tellers): (Vec<FailedRecord>, Vec<Vec<usize>>) = by_place.into_values().unzip();
    let kinds: Vec<Kind> = records.iter().map(kind_of).collect();
    let users = kinds.iter().filter_map(|kind| match kind {
        Kind::Event { user, .. } => Some(user.as_str()),
        _ => None,
    });
    let profiles = DynamoProfileTable::new(clients.dynamodb.clone(), &options.table);
    let users = users.collect();
    let profiles = unless_stopped(&stop, Profiles::read(&profiles, &users)).await?;
    let assessment = assess(&records, &kinds, &profiles, journey_remembers);
    let conditions = conditions_of(found);
    say(&assessment_text(
        batches,
        records.len(),
        &conditions,
        &assessment,
        &missing,
    ))?;

    let put_uncertain = match decide(options, &assessment, &stop).await? {
        Decision::Put => true,
        Decision::LeaveOut => false,
        Decision::Stop(why) => {
            eprintln!("error: {why}");
            return Ok(Done {
                verdict: Verdict::Wrong,
                deleted: BTreeSet::new(),
            });
        }
    };
    let mut is_complete = missing.is_empty();
    let mut puts: Vec<PutAgain> = Vec::new();
    let mut last_arn = String::new();
    for ((record, fate), tellers) in records.into_iter().zip(&assessment.fates).zip(&tellers) {
        match fate {
            Fate::Applied | Fate::NotNeeded => continue,
            Fate::Uncertain if !put_uncertain => {
                is_complete = false;
                partial.extend(tellers);
                continue;
            }
            Fate::Uncertain | Fate::Goes => {}
        }
        let put = StreamRecord {
            partition_key: record.partition_key,
            data: record.data,
        };
        match puts.last_mut() {
            Some(last) if last_arn == record.stream_arn => last.records.push(put),
            _ => {
                last_arn.clone_from(&record.stream_arn);
                let stream = options.stream.clone().unwrap_or(record.stream_arn);
                puts.push(PutAgain {
                    stream: KinesisStream::new(clients.kinesis.clone(), stream),
                    records: vec![put],
                });
            }
        }
    }
    if options.dry_run {
        for put in &puts {
            say(&format!(
                "{} would go to {}\n",
                counted(put.records.len(), "record"),
                put.stream.name_or_arn()
            ))?;
        }
        say("nothing was put (--dry-run)\n")?;
        let verdict = if is_complete { Verdict::AllWell } else { Verdict::Wrong };
        return Ok(Done {
            verdict,
            deleted: BTreeSet::new(),
        });
    }
    if puts.is_empty() {
        say("nothing to put\n")?;
    } else {
        if !put_again(puts, stop).await?.is_complete {
            return Ok(Done {
                verdict: Verdict::Wrong,
                deleted: BTreeSet::new(),
            });
        }
        say(
            "before you repeat it, wait until profile-writer has caught up: only then do the profiles know what was put\n",
        )?;
    }
    let mut deleted = BTreeSet::new();
    if options.delete {
        for (index, one) in found.iter().enumerate().filter(|(index, _)| !partial.contains(index)) {
            source.delete(one).await?;
            deleted.insert(index);
        }
        let kept = found.len() - deleted.len();
        let left = if kept > 0 {
            format!(
                ", {} kept because not all of what they tell of is done",
                grouped(kept as u64)
            )
        } else {
            String::new()
        };
        say(&format!("{} deleted{left}\n", counted(deleted.len(), "failure record")))?;
    }
    let verdict = if is_complete { Verdict::AllWell } else { Verdict::Wrong };
    Ok(Done { verdict, deleted })
}

/// How often a function gave up, and why.
fn conditions_of(found: &[Found]) -> BTreeMap<(String, String), u64> {
    let mut conditions = BTreeMap::new();
    for batch in found.iter().flat_map(|one| &one.batches) {
        let function = batch.function_arn.rsplit(':').next().unwrap_or_default().to_owned();
        *conditions.entry((function, batch.condition.clone())).or_default() += 1;
    }
    conditions
}

fn assessment_text(
    batches: usize,
    records: usize,
    conditions: &BTreeMap<(String, String), u64>,
    assessment: &Assessment,
    missing: &[Missing],
) -> String {
    let batches = if batches == 1 {
        "1 failed batch".to_owned()
    } else {
        format!("{} failed batches", grouped(batches as u64))
    };
    let mut text = format!("{batches} with {}\n", counted(records, "record"));
    for ((function, condition), count) in conditions {
        text.push_str(&format!("  {} given up by {function}: {condition}\n", grouped(*count)));
    }
    let uncertain: u64 = assessment.uncertain.values().sum();
    let too_many: u64 = assessment.too_many.values().sum();
    let rows = [
        ("not applied", assessment.not_applied, "events, to be put again"),
        (
            "already applied",
            assessment.applied,
            "events whose ids are remembered, left out",
        ),
        ("uncertain", uncertain, "events whose ids may have been forgotten"),
        (
            "too many",
            too_many,
            "events of users with more of them than ids are remembered",
        ),
        (
            "decisions",
            assessment.decisions,
            "to be put again; consumers act once by their ids",
        ),
        (
            "wake-ups",
            assessment.wake_ups,
            "left out; timer-sweeper wakes whoever is still due",
        ),
        (
            "unusable",
            assessment.unusable,
            "to be put again; `usher rejected list` will say why",
        ),
    ];
    let rows = rows.into_iter().filter(|(_, count, _)| *count > 0);
    let rows: Vec<_> = rows
        .map(|(name, count, what)| (name.to_owned(), format!("{} {what}", grouped(count))))
        .collect();
    text.push_str(&table(&rows));
    if !missing.is_empty() {
        let count: u64 = missing.iter().map(|missing| missing.count_min).sum();
        let or_more = if missing.iter().any(|missing| missing.is_partly) {
            " or more"
        } else {
            ""
        };
        text.push_str(&format!(
            "past retention: {}{or_more}, lost to this stream\n",
            counted(count as usize, "record")
        ));
        for missing in missing {
            text.push_str(&format!("  {}\n", missing.text()));
        }
    }
    users_text(
        &mut text,
        "uncertain: an event of these users was either never applied, or so long ago that the profile has forgotten its id",
        &assessment.uncertain,
    );
    users_text(
        &mut text,
        "too many: these users have more events here than ids are remembered. If this was redriven before, and profile-writer \
         has not caught up since, they would count twice; else they are fine",
        &assessment.too_many,
    );
    users_text(
        &mut text,
        "parked: the events of these users will follow those that wait for a mended profile (`usher redrive --user ID`)",
        &assessment.parked,
    );
    text
}

fn users_text(text: &mut String, heading: &str, users: &BTreeMap<String, u64>) {
    if users.is_empty() {
        return;
    }
    text.push_str(&format!("{heading}\n"));
    let named = users.iter().take(USERS_NAMED_MAX);
    let rows: Vec<_> = named
        .map(|(user, count)| (user.clone(), counted(*count as usize, "event")))
        .collect();
    text.push_str(&table(&rows));
    if users.len() > USERS_NAMED_MAX {
        text.push_str(&format!(
            "  and {} more users\n",
            grouped((users.len() - USERS_NAMED_MAX) as u64)
        ));
    }
}

/// What is to be done with uncertain events.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Put,
    LeaveOut,
    Stop(String),
}

async fn decide(options: &RedriveOptions, assessment: &Assessment, stop: &watch::Receiver<bool>) -> Result<Decision> {
    if options.yes || (assessment.uncertain.is_empty() && assessment.too_many.is_empty()) {
        return Ok(Decision::Put);
    }
    if options.skip_uncertain || options.dry_run {
        return Ok(Decision::LeaveOut);
    }
    let count: u64 = assessment.uncertain.values().chain(assessment.too_many.values()).sum();
    let users: BTreeSet<&String> = assessment.uncertain.keys().chain(assessment.too_many.keys()).collect();
    let what = format!(
        "{} of {}",
        counted(count as usize, "uncertain event"),
        counted(users.len(), "user")
    );
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(Decision::Stop(format!(
            "nothing was put, because of {what} and nobody to ask: --yes puts them too (those that were applied \
             count twice), --skip-uncertain leaves them out (those that never were applied stay lost)"
        )));
    }
    eprint!("Put {what} too? Those that were applied count twice. [y/N] ");
    std::io::stderr().flush().context("cannot ask")?;
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: nothing waits for it at the end, so Ctrl-C ends the command while it still reads.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer).map(|_| answer);
        let _ = tell.send(read);
    });
    let Some(answer) = answer_unless_stopped(told, stop).await? else {
        eprintln!();
        return Ok(Decision::Stop("interrupted; nothing was put".to_owned()));
    };
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(Decision::Put)
    } else {
        Ok(Decision::Stop(
            "nothing was put; --skip-uncertain puts the others".to_owned(),
        ))
    }
}

/// The answer, or nothing where the command was stopped before it came.
async fn answer_unless_stopped(
    told: tokio::sync::oneshot::Receiver<std::io::Result<String>>,
    stop: &watch::Receiver<bool>,
) -> Result<Option<String>> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => Ok(None),
        // A reader that ended without an answer gives none.
        answer = told => answer.unwrap_or_else(|_| Ok(String::new())).map(Some).context("cannot read the answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_or_interrupted() {
        let (stopping, stop) = watch::channel(false);
        let (tell, told) = tokio::sync::oneshot::channel();
        tell.send(Ok("y\n".to_owned())).expect("somebody listens");
        let answer = answer_unless_stopped(told, &stop).await.expect("it was read");
        assert_eq!(answer.as_deref(), Some("y\n"));

        let (_nobody_answers, told) = tokio::sync::oneshot::channel();
        stopping.send_replace(true);
        assert_eq!(answer_unless_stopped(told, &stop).await.expect("it ends"), None);
    }
}
