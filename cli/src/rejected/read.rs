//! Reading the rejected stream: all shards, parents before children, each record once.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use usher_aws::stream_reader::{ReadFrom, ReadRecord, StreamReader};
use usher_domain::hash::hash_parts;
use usher_domain::time::Timestamp;
use usher_wire::event;
use usher_wire::reject::{RejectReason, RejectedRecord};

use crate::args::RejectedSelection;
use crate::arrival_clock::wall_clock;
use crate::gzip;
use crate::patience::{next_page, patiently, unless_stopped};
use crate::people::grouped;
use crate::progress::Progress;

/// Which records are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    since: Option<Timestamp>,
    reasons: Vec<RejectReason>,
    user: Option<String>,
}

/// A record of the rejected stream.
#[derive(Clone, Debug)]
pub struct Rejected<'r> {
    /// What it says.
    pub record: RejectedRecord<'r>,
    /// When it was rejected.
    pub rejected_at: Timestamp,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Records that were meant, each once.
    pub records: u64,
    /// Records that were there again: their batch was run again.
    pub repeats: u64,
    /// Records that are none of this version's.
    pub unreadable: u64,
}

impl Filter {
    /// From the command line.
    ///
    /// # Errors
    /// When a time or a reason is none.
    pub fn of(selection: &RejectedSelection) -> Result<Filter> {
        let since = selection
            .since
            .as_deref()
            .map(|text| since(text, wall_clock()))
            .transpose()?;
        let reasons = selection.reason.iter().map(|name| {
            let name = serde_json::Value::from(name.as_str());
            serde_json::from_value(name).map_err(|error| anyhow!("--reason: {error}"))
        });
        Ok(Filter {
            since,
            reasons: reasons.collect::<Result<_>>()?,
            user: selection.user.clone(),
        })
    }

    fn wants(&self, rejected: &Rejected<'_>) -> bool {
        let record = &rejected.record;
        self.since.is_none_or(|since| rejected.rejected_at >= since)
            && (self.reasons.is_empty() || self.reasons.contains(&record.reason))
            && self.user.as_deref().is_none_or(|user| is_of(record, user))
    }
}

/// Whether a record is a user's: as it says, as its bytes say, or, where those name nobody, by its partition key.
fn is_of(record: &RejectedRecord<'_>, user: &str) -> bool {
    if let Some(named) = record.user.as_deref() {
        return named == user;
    }
    let Ok(bytes) = record.original_bytes() else {
        return record.partition_key == user;
    };
    let bytes = if gzip::is_gzip(&bytes) {
        gzip::decompress(&bytes).unwrap_or_default()
    } else {
        bytes
    };
    match event::user_of(&bytes) {
        Some(named) => named == user,
        None => record.partition_key == user,
    }
}

/// A time, or how long before `now`.
fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Duration = text.parse::<humantime::Duration>().map(Into::into).map_err(|_| {
        anyhow!("--since is a time such as 2026-01-05T10:00:00Z, or how long ago, such as 30m, 2h or 3d; got `{text}`")
    })?;
    Ok(now.minus_ms(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

/// The place of a rejected record on the stream that it came from, as people name it.
pub fn place_of(record: &RejectedRecord<'_>) -> String {
    format!("{}:{}", record.shard_id, record.sequence_number)
}

/// Walks over the records of the stream that the filter wants, until the end or until `each` says so.
///
/// # Errors
/// When the stream can't be read, or `each` fails, or it is interrupted.
pub async fn read_rejected(
    reader: &StreamReader,
    filter: &Filter,
    stop: &watch::Receiver<bool>,
    mut each: impl FnMut(Rejected<'_>) -> Result<ControlFlow<()>>,
) -> Result<Seen> {
    let from = filter.since.map_or(ReadFrom::Oldest, ReadFrom::At);
    let mut seen = Seen::default();
    let mut places: HashSet<u128> = HashSet::new();
    let walked = walk(reader, &from, |_, raw| {
        let Ok(record) = serde_json::from_slice::<RejectedRecord<'_>>(&raw.data) else {
            seen.unreadable += 1;
            return Ok(ControlFlow::Continue(()));
        };
        let place = [&record.stream_arn, &record.shard_id, &record.sequence_number].map(|part| part.as_bytes());
        let place = hash_parts(&place);
        let rejected = Rejected {
            record,
            rejected_at: raw.arrived_at,
        };
        if !filter.wants(&rejected) {
            return Ok(ControlFlow::Continue(()));
        }
        if !places.insert(place) {
            seen.repeats += 1;
            return Ok(ControlFlow::Continue(()));
        }
        seen.records += 1;
        each(rejected)
    });
    unless_stopped(stop, walked).await?;
    Ok(seen)
}

/// Walks over all records of a stream, each shard after its parents, until the end or until `each` says so. `each` gets
/// the shard too.
///
/// # Errors
/// When the stream can't be read, or `each` fails, or it is interrupted.
pub async fn walk(
    reader: &StreamReader,
    from: &ReadFrom,
    mut each: impl FnMut(&str, &ReadRecord) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let stream = reader.name_or_arn();
    let unreadable = || {
        format!(
            "cannot read the stream {stream}; is its name right, and is this the right account, region or endpoint \
             (--endpoint-url)?"
        )
    };
    let progress = Progress::spinner(&format!("reading {stream}"));
    let shards = patiently(|| reader.shards()).await.with_context(unreadable)?;
    let mut count = 0u64;
    for (index, shard) in shards.iter().enumerate() {
        let mut pages = reader.shard(&shard.id, from.clone());
        while let Some(page) = next_page(&mut pages).await.with_context(unreadable)? {
            for record in &page.records {
                count += 1;
                if each(&shard.id, record)?.is_break() {
                    progress.clear();
                    return Ok(());
                }
            }
            let behind = humantime::format_duration(Duration::from_secs(page.behind_ms.unsigned_abs() / 1_000));
            progress.show(&format!(
                "reading {stream}: shard {} of {}, {} records, {behind} behind its end",
                index + 1,
                shards.len(),
                grouped(count)
            ));
        }
    }
    progress.clear();
    Ok(())
}

/// What to say of records that were left out.
pub fn left_out(seen: Seen) -> String {
    let mut text = String::new();
    if seen.repeats > 0 {
        text.push_str(&format!(
            "{} times a record was there again, because its batch was run again; it counts once\n",
            grouped(seen.repeats)
        ));
    }
    if seen.unreadable > 0 {
        text.push_str(&format!(
            "{} on the stream could not be read: no rejected records, or of a newer version of usher\n",
            crate::people::counted(seen.unreadable as usize, "record")
        ));
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn rejected(reason: RejectReason, sequence_number: &str, data: &[u8]) -> RejectedRecord<'static> {
        RejectedRecord {
            reason,
            field: "event_id".into(),
            detail: "it is missing".into(),
            stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/interactions".into(),
            shard_id: "shardId-000000000000".into(),
            sequence_number: sequence_number.to_owned().into(),
            partition_key: "key".into(),
            arrived_at: "2026-01-05T10:00:00.000Z".to_owned(),
            parked: false,
            user: None,
            data: base64_simd::STANDARD.encode_to_string(data).into(),
            encoding: None,
            data_cut_at: None,
        }
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("2026-01-04T00:00:00Z", Some("2026-01-04T00:00:00.000Z")),
            ("2h", Some("2026-01-05T08:00:00.000Z")),
            ("1d 30m", Some("2026-01-04T09:30:00.000Z")),
            ("yesterday", None),
        ] {
            assert_eq!(
                since(text, now).ok().map(|time| time.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_filter_leaves_what_fits_all_of_it() {
        let of = |reason: &[&str], user: Option<&str>, since: Option<&str>| {
            let selection = RejectedSelection {
                stream: "rejected".to_owned(),
                since: since.map(str::to_owned),
                reason: reason.iter().map(|name| (*name).to_owned()).collect(),
                user: user.map(str::to_owned),
                endpoint_url: None,
            };
            Filter::of(&selection)
        };
        let compressed = gzip::compress(br#"{"user_id":"ann"}"#);
        for (data, filter, wanted) in [
            (&b"x"[..], of(&[], None, None), true),
            (b"x", of(&["missing_field", "not_json"], None, None), true),
            (b"x", of(&["not_json"], None, None), false),
            (b"x", of(&[], Some("key"), None), true),
            (b"x", of(&[], Some("ann"), None), false),
            (br#"{"user_id":" ann "}"#, of(&[], Some("ann"), None), true),
            (&compressed, of(&[], Some("ann"), None), true),
            // The bytes name another: the partition key says nothing then.
            (br#"{"user_id":"ann"}"#, of(&[], Some("key"), None), false),
            (b"x", of(&[], None, Some("2026-01-05T11:00:00Z")), true),
            (b"x", of(&[], None, Some("2026-01-05T11:00:01Z")), false),
        ] {
            let rejected = Rejected {
                record: rejected(RejectReason::MissingField, "7", data),
                rejected_at: "2026-01-05T11:00:00Z".parse().expect("a time"),
            };
            assert_eq!(filter.expect("it is fine").wants(&rejected), wanted, "{data:?}");
        }
        let wrong = of(&["no_json"], None, None).expect_err("no such reason").to_string();
        assert!(wrong.contains("not_json"), "it says what there is: {wrong}");
    }
}
