//! Given-up batches: read, looked at, and put again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::watch;
use usher_aws::bucket::BucketFolder;
use usher_aws::clients::{Caller, Clients, load_stores};
use usher_aws::dynamodb::DynamoProfileTable;
use usher_aws::kinesis::KinesisStream;
use usher_aws::queue::Queue;
use usher_aws::stream_reader::StreamReader;
use usher_domain::sequence_number::SequenceNumber;
use usher_pipeline::ports::StreamRecord;

use super::assess::{Assessment, Fate, Kind, Profiles, assess, kind_of};
use super::endpoints_of;
use super::failure_record::FailedRecord;
use super::fetch::{Missing, fetch};
use super::source::{BYTES_MAX, Found, Source};
use crate::Verdict;
use crate::args::RedriveOptions;
use crate::environment;
use crate::patience::unless_stopped;
use crate::people::{counted, grouped, say, table};
use crate::put_again::{PutAgain, put_again};

/// Users that are named at most.
const USERS_NAMED_MAX: usize = 50;

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
    let found = source.read(&stop).await?;
    if found.is_empty() {
        say("no record of a failed batch is there\n")?;
        return Ok(Verdict::AllWell);
    }
    let done = redrive(&options, &clients, &source, &found, stop).await;
    let deleted = match &done {
        Ok(done) => done.deleted.clone(),
        Err(_) => BTreeSet::new(),
    };
    let kept = found.iter().enumerate().filter(|(index, _)| !deleted.contains(index));
    source.release(kept.map(|(_, one)| one)).await;
    done.map(|done| done.verdict)
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
    async fn collect(clients: &Clients, found: &[Found]) -> Result<Records> {
        let mut all = Records::default();
        for (index, one) in found.iter().enumerate() {
            for batch in &one.batches {
                all.batches += 1;
                let records = match &batch.records {
                    Some(records) => records.clone(),
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
    found: &[Found],
    stop: watch::Receiver<bool>,
) -> Result<Done> {
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
    let assessment = assess(&records, &kinds, &profiles);
    let conditions = conditions_of(found);
    say(&assessment_text(
        batches,
        records.len(),
        &conditions,
        &assessment,
        &missing,
    ))?;

    let put_uncertain = match decide(options, &assessment)? {
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
            Fate::Applied => continue,
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
    } else if !put_again(puts, stop).await?.is_complete {
        return Ok(Done {
            verdict: Verdict::Wrong,
            deleted: BTreeSet::new(),
        });
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
    let rows = [
        ("not applied", assessment.not_applied, "events, to be put again"),
        (
            "already applied",
            assessment.applied,
            "events whose ids are remembered, left out",
        ),
        ("uncertain", uncertain, "events whose ids may have been forgotten"),
        (
            "decisions",
            assessment.decisions,
            "to be put again; consumers act once by their ids",
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
        let count: u64 = missing.iter().map(|missing| missing.count).sum();
        text.push_str(&format!(
            "past retention: {}, lost to this stream\n",
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

fn decide(options: &RedriveOptions, assessment: &Assessment) -> Result<Decision> {
    if options.yes || assessment.uncertain.is_empty() {
        return Ok(Decision::Put);
    }
    if options.skip_uncertain || options.dry_run {
        return Ok(Decision::LeaveOut);
    }
    let count: u64 = assessment.uncertain.values().sum();
    let what = format!(
        "{} of {}",
        counted(count as usize, "uncertain event"),
        counted(assessment.uncertain.len(), "user")
    );
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(Decision::Stop(format!(
            "nothing was put, because of {what} and nobody to ask: --yes puts them too (those that were applied long ago \
             count twice), --skip-uncertain leaves them out (those that never were applied stay lost)"
        )));
    }
    eprint!("Put {what} too? Those that were applied long ago count twice. [y/N] ");
    std::io::stderr().flush().context("cannot ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| anyhow!(error))
        .context("cannot read the answer")?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(Decision::Put)
    } else {
        Ok(Decision::Stop(
            "nothing was put; --skip-uncertain puts the others".to_owned(),
        ))
    }
}
