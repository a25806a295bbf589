//! A parked user's events, applied to the mended profile.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::Instant;
use usher_aws::clients::{Caller, Clients};
use usher_aws::dynamodb::DynamoProfileTable;
use usher_aws::kinesis::KinesisStream;
use usher_aws::runtime::SystemClock;
use usher_aws::stream_reader::{ReadError, ReadFrom, StreamReader};
use usher_domain::time::Timestamp;
use usher_pipeline::ports::{CallError, ProfileTable, WallClock};
use usher_pipeline::redrive_user::{
    Coverage, ParkedRecord, ParkedRecords, PassedBy, Place, RedriveEnd, RedriveUserPorts, RedriveUserReport,
    RedriveUserRequest, redrive_user,
};
use usher_wire::profile_state;
use usher_wire::reject::RejectedRecord;

use super::endpoints_of;
use crate::Verdict;
use crate::args::{PassedByChoice, RedriveOptions};
use crate::patience::{next_page, patiently, unless_stopped};
use crate::people::{counted, grouped, say, table};
use crate::progress::Progress;
use crate::{environment, journey_file, project};

/// How long a redrive may take before it is to be run again.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How long after a put was acknowledged Kinesis may begin to show the record.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Places that are named at most.
const PLACES_NAMED_MAX: usize = 20;
/// Milliseconds of an hour.
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Runs the command.
///
/// # Errors
/// When something can't be read or written. What was applied before stays so.
pub async fn run(options: RedriveOptions, user: &str) -> Result<Verdict> {
    let stop = environment::stop_signal()?;
    let journey_path = match &options.journey {
        Some(path) => path.clone(),
        None => project::find_journey(None, &project::find_template(None)?)?,
    };
    let journey = journey_file::load(&journey_path)?;
    let clients = Clients::load(&endpoints_of(&options), Caller::Operator).await;
    let profiles = DynamoProfileTable::new(clients.dynamodb, &options.table);
    let reader = StreamReader::new(clients.kinesis.clone(), &options.rejected);
    let mut parked = ParkedOfUser {
        reader,
        user,
        leave_out: &options.leave_out,
        last: HashMap::new(),
        given: HashSet::new(),
        waiting: Vec::new(),
        coverage: if options.unpark_anyway {
            Coverage::TakenForWhole
        } else {
            Coverage::Whole
        },
    };

    if options.dry_run {
        let read = async { patiently_read(&mut parked).await };
        let records = unless_stopped(&stop, read).await?;
        let users = [user];
        let answer = patiently(|| profiles.get(&users)).await.context(CANNOT_READ_PROFILES)?;
        let parked_since = answer.items.first().and_then(|item| item.parked_since);
        let unreadable = answer.unreadable.into_iter().map(|(_, why)| why).next();
        let state = match (unreadable, answer.items.first()) {
            (Some(why), _) => Err(cannot_be_read(&why)),
            (None, None) => Ok("there is none stored: it begins anew".to_owned()),
            (None, Some(item)) if item.merged_into.is_some() => {
                let into = item.merged_into.as_deref().unwrap_or_default();
                Err(format!("it became part of {into}'s: run `usher redrive --user {into}`"))
            }
            (None, Some(item)) => profile_state::decode(&item.state, item.version, user, &journey)
                .map(|_| match item.parked_since {
                    Some(since) => format!("it can be read; the user is parked since {since}"),
                    None => "it can be read; the user is not marked as parked".to_owned(),
                })
                .map_err(|error| cannot_be_read(&error.to_string())),
        };
        let is_readable = state.is_ok();
        let places: HashSet<_> = records.iter().filter_map(place_of).collect();
        let missing = parked_since.and_then(|since| missing_text(user, since, places.is_empty(), parked.coverage));
        let is_there = missing.is_none();
        let (Ok(state) | Err(state)) = state;
        say(&format!(
            "{user}: {} on {}\n  profile  {state}\n{}nothing was changed (--dry-run)\n",
            counted(places.len(), "parked record"),
            options.rejected,
            missing.unwrap_or_default()
        ))?;
        return Ok(if is_readable && is_there {
            Verdict::AllWell
        } else {
            Verdict::Wrong
        });
    }

    let triggers = KinesisStream::new(clients.kinesis, &options.triggers);
    let request = RedriveUserRequest {
        user,
        parallelization_factor: options.parallelization_factor,
        passed_by: match options.passed_by {
            PassedByChoice::Ask => PassedBy::Ask,
            PassedByChoice::Apply => PassedBy::Apply,
            PassedByChoice::Skip => PassedBy::Skip,
        },
    };
    let ports = RedriveUserPorts {
        profiles: &profiles,
        triggers: &triggers,
        clock: &SystemClock,
    };
    let progress = Progress::spinner(&format!("applying the parked events of {user}"));
    let redriven = redrive_user(&journey, ports, &mut parked, request, Instant::now() + TIME_MAX);
    let report = unless_interrupted(&stop, async { Ok(redriven.await?) }).await;
    progress.clear();
    let report = report.with_context(|| {
        format!("the parked events of {user} are not all applied; what was applied stays so, and running it again goes on there")
    })?;
    say(&report_text(user, &report, &options))?;
    Ok(match report.end {
        RedriveEnd::Done => Verdict::AllWell,
        _ => Verdict::Wrong,
    })
}

fn cannot_be_read(why: &str) -> String {
    format!("it can't be read yet: {why}")
}

const CANNOT_READ_PROFILES: &str = "cannot read the profiles; is the table's name right (--table), and is this the right \
                                    account, region or endpoint (--dynamodb-endpoint-url)?";

async fn unless_interrupted<T>(stop: &watch::Receiver<bool>, working: impl Future<Output = Result<T>>) -> Result<T> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => bail!("interrupted"),
        done = working => done,
    }
}

/// A user's records on the rejected stream.
struct ParkedOfUser<'u> {
    reader: StreamReader,
    user: &'u str,
    /// Places that are left out, as people name them.
    leave_out: &'u [String],
    /// How far each shard was read.
    last: HashMap<String, String>,
    given: HashSet<(String, String)>,
    /// Read by a call that failed later, and not given yet.
    waiting: Vec<ParkedRecord>,
    coverage: Coverage,
}

impl ParkedOfUser<'_> {
    /// Whether a record of the stream is one of the user's parked ones.
    fn wants(&self, data: &[u8]) -> bool {
        let Ok(record) = serde_json::from_slice::<RejectedRecord<'_>>(data) else {
            return false;
        };
        let place = || format!("{}:{}", record.shard_id, record.sequence_number);
        record.parked && record.user.as_deref() == Some(self.user) && !self.leave_out.contains(&place())
    }

    /// The same with all of its bytes, where only the front of them is on `rejected` and the stream that they came from
    /// still retains them.
    async fn whole(&self, data: &[u8]) -> Result<Option<Vec<u8>>, CallError> {
        let Ok(cut) = serde_json::from_slice::<RejectedRecord<'_>>(data) else {
            return Ok(None);
        };
        if cut.data_cut_at.is_none() {
            return Ok(None);
        }
        let stream = self.reader.of_stream(cut.stream_arn.as_ref());
        let found = stream.record(&cut.shard_id, &cut.sequence_number).await?;
        Ok(found.map(|record| {
            let whole = RejectedRecord {
                data: base64_simd::STANDARD.encode_to_string(&record.data).into(),
                encoding: None,
                data_cut_at: None,
                ..cut
            };
            // It is read here and not put on a stream, so it may be as large as it is.
            serde_json::to_vec(&whole).unwrap_or_default()
        }))
    }

    /// Reads on in every shard, to its end.
    async fn read_on(&mut self) -> Result<(), CallError> {
        // The shards each time: there may be new ones.
        for shard in self.reader.shards().await? {
            let from = match self.last.get(&shard.id) {
                Some(last) => ReadFrom::SequenceNumber(last.clone()),
                None => ReadFrom::Oldest,
            };
            let reader = self.reader.clone();
            let mut pages = reader.shard(&shard.id, from);
            loop {
                let page = match next_page(&mut pages).await {
                    Ok(Some(page)) => page,
                    // A shard that leaves between the two calls had nothing that is retained.
                    Ok(None) | Err(ReadError::NoShard { .. }) => break,
                    Err(ReadError::Call(error)) => return Err(error),
                };
                for record in page.records {
                    self.last.insert(shard.id.clone(), record.sequence_number.clone());
                    let place = (shard.id.clone(), record.sequence_number);
                    if self.wants(&record.data) && !self.given.contains(&place) {
                        // Kinesis writes numbers; what is none has no order and can't be applied in it.
                        let Ok(sequence_number) = place.1.parse() else { continue };
                        let data = match self.whole(&record.data).await? {
                            Some(whole) => whole,
                            None => record.data,
                        };
                        self.given.insert(place);
                        self.waiting.push(ParkedRecord {
                            shard_id: shard.id.clone(),
                            sequence_number,
                            data,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

impl ParkedRecords for ParkedOfUser<'_> {
    async fn read(&mut self) -> Result<Vec<ParkedRecord>, CallError> {
        if self.coverage == Coverage::Whole {
            let retained_ms = i64::from(self.reader.retention_hours().await?) * HOUR_MS;
            self.coverage = Coverage::RetainedFrom(SystemClock.now().minus_ms(retained_ms));
        }
        self.read_on().await?;
        tokio::time::sleep(SHOWN_AFTER).await;
        self.read_on().await?;
        Ok(std::mem::take(&mut self.waiting))
    }

    fn coverage(&self) -> Coverage {
        self.coverage
    }
}

/// Where a parked record was on interactions. Of a batch that was run again it is on `rejected` more than once.
fn place_of(record: &ParkedRecord) -> Option<Place> {
    let rejected: RejectedRecord<'_> = serde_json::from_slice(&record.data).ok()?;
    Some(Place {
        stream_arn: rejected.stream_arn.into_owned(),
        shard_id: rejected.shard_id.into_owned(),
        sequence_number: rejected.sequence_number.into_owned(),
    })
}

/// What to say where a user's parked records are not all there.
fn missing_text(user: &str, parked_since: Timestamp, is_none_there: bool, coverage: Coverage) -> Option<String> {
    let permission = "--unpark-anyway takes what is there for all of it, and what is not there stays lost";
    match coverage {
        Coverage::TakenForWhole => None,
        _ if is_none_there => Some(format!(
            "{user} is parked since {parked_since}, but none of the parked records is there. They are on another stream \
             (--rejected), or past its retention; then they may still be on the stream that they came from. {permission}\n"
        )),
        Coverage::RetainedFrom(retained_from) if parked_since < retained_from => Some(format!(
            "{user} is parked since {parked_since}, and what was parked before {retained_from} is past retention. It may \
             still be on the stream that it came from. {permission}\n"
        )),
        Coverage::RetainedFrom(_) | Coverage::Whole => None,
    }
}

async fn patiently_read(parked: &mut ParkedOfUser<'_>) -> Result<Vec<ParkedRecord>> {
    let stream = parked.reader.name_or_arn().to_owned();
    parked.read().await.with_context(|| {
        format!("cannot read the stream {stream}; is its name right (--rejected), and is this its endpoint (--endpoint-url)?")
    })
}

fn nothing_changed(why: Option<String>) -> String {
    format!("nothing was changed: {}", why.unwrap_or_default())
}

fn place_text(place: &Place) -> String {
    format!("{}:{}", place.shard_id, place.sequence_number)
}

fn report_text(user: &str, report: &RedriveUserReport, options: &RedriveOptions) -> String {
    if report.records == 0 && report.end == RedriveEnd::Done {
        return format!(
            "{user}: no parked records on {}, and the user is not parked; ids are as the events have them, and what is past \
             the stream's retention is gone\n",
            options.rejected
        );
    }
    let mut text = format!(
        "{user}: {} on {}\n",
        counted(report.records as usize, "parked record"),
        options.rejected
    );
    let rows = [
        ("done before", report.done_before, "by an earlier redrive"),
        ("applied", report.applied, "events, in their order"),
        ("duplicate", report.duplicate, "events whose ids the profile knew"),
        ("ignored", report.ignored, "events that the journey ignores"),
        (
            "left out",
            report.skipped,
            "events that the profile is past (--passed-by skip)",
        ),
        ("triggers", report.triggers, "put on their stream"),
    ];
    let rows = rows
        .into_iter()
        .filter(|(name, count, _)| *count > 0 || *name == "applied");
    let rows: Vec<_> = rows
        .map(|(name, count, what)| (name.to_owned(), format!("{} {what}", grouped(count))))
        .collect();
    text.push_str(&table(&rows));
    text.push_str(&match &report.end {
        RedriveEnd::Done => format!("{user} is not parked any more\n"),
        RedriveEnd::DoesNotFit { at, state_bytes } => format!(
            "with the event at {} the profile would have {} bytes, more than an item may have: {user} stays parked. Make the \
             journey keep less (fewer features, a shorter `dedupe: {{ last: N }}`), deploy it, and run this again\n",
            place_text(at),
            grouped(*state_bytes as u64)
        ),
        RedriveEnd::PassedBy { records } => {
            let mut told = format!(
                "nothing was changed: the profile is past {}, and does not remember their ids\n",
                counted(records.len(), "parked event")
            );
            for place in records.iter().take(PLACES_NAMED_MAX) {
                told.push_str(&format!("  {}\n", place_text(place)));
            }
            told.push_str(
                "--passed-by apply applies them now (out of order, and twice where they were applied), --passed-by skip \
                 leaves them out for good\n",
            );
            told
        }
        RedriveEnd::NothingFound { parked_since } => nothing_changed(missing_text(user, *parked_since, true, Coverage::Whole)),
        RedriveEnd::PastRetention {
            parked_since,
            retained_from,
        } => nothing_changed(missing_text(
            user,
            *parked_since,
            false,
            Coverage::RetainedFrom(*retained_from),
        )),
        RedriveEnd::Unusable { at, why } => {
            let place = place_text(at);
            format!(
                "the record at {place} can't be applied: {why}. {user} stays parked; --leave-out {place} goes on without it\n"
            )
        }
        RedriveEnd::StillArriving => {
            format!("events of {user} kept arriving; what was applied stays so, run it again for the rest\n")
        }
    });
    text
}
