//! `usher rejected resend`: the original bytes on their stream again.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use anyhow::{Result, bail};
use usher_aws::kinesis::KinesisStream;
use usher_aws::stream_reader::StreamReader;
use usher_domain::hash::hash_parts;
use usher_domain::sequence_number::SequenceNumber;
use usher_pipeline::ports::StreamRecord;
use usher_wire::reject::RejectedRecord;

use super::read::{Filter, left_out, place_of, read_rejected};
use crate::Verdict;
use crate::args::ResendOptions;
use crate::environment;
use crate::people::{counted, say};
use crate::put_again::{PutAgain, put_again};
use crate::send::load_clients;

/// Bytes that are held to be sent at most: they are sorted first, so all of them are in memory.
const BYTES_MAX: usize = 512 * 1024 * 1024;
/// Records that can't be sent again that are named.
const NAMED_MAX: usize = 20;

/// Runs the command.
///
/// # Errors
/// When the stream can't be read, or records can't be put.
pub async fn run(options: ResendOptions) -> Result<Verdict> {
    let filter = Filter::of(&options.selection)?;
    let stop = environment::stop_signal()?;
    let clients = load_clients(options.selection.endpoint_url.as_deref()).await;
    let reader = StreamReader::new(clients.kinesis.clone(), &options.selection.stream);
    let mut plan = Plan::default();
    let seen = read_rejected(&reader, &filter, &stop, |rejected| {
        plan.add(&rejected.record);
        if plan.bytes > BYTES_MAX {
            bail!(
                "over {} MiB of records would have to be sorted in memory; send fewer at once with --since, --reason or \
                 --user",
                BYTES_MAX >> 20
            );
        }
        Ok(ControlFlow::Continue(()))
    });
    let seen = seen.await?;
    let mut told = left_out(seen);
    told.push_str(&plan.left_out_text());
    let is_whole = plan.unsendable.is_empty();
    let by_stream = plan.in_order();
    if by_stream.is_empty() {
        say(&format!("{told}nothing to send\n"))?;
        return Ok(if is_whole { Verdict::AllWell } else { Verdict::Wrong });
    }
    let by_stream = by_stream.into_iter().map(|(arn, records)| PutAgain {
        stream: KinesisStream::new(clients.kinesis.clone(), options.to.clone().unwrap_or(arn)),
        records,
    });
    if options.dry_run {
        for put in by_stream {
            let records = counted(put.records.len(), "record");
            told.push_str(&format!("{records} would go to {}\n", put.stream.name_or_arn()));
        }
        say(&format!("{told}nothing was sent (--dry-run)\n"))?;
        return Ok(if is_whole { Verdict::AllWell } else { Verdict::Wrong });
    }
    say(&told)?;
    let outcome = put_again(by_stream.collect(), stop).await?;
    Ok(if is_whole && outcome.is_complete {
        Verdict::AllWell
    } else {
        Verdict::Wrong
    })
}

/// What goes again, and what does not.
#[derive(Default)]
struct Plan {
    /// By stream, shard and sequence number: parents have lower shard ids than their children.
    records: BTreeMap<(String, String, SequenceNumber), StreamRecord>,
    /// What is among them, by partition key and bytes.
    contents: HashSet<u128>,
    bytes: usize,
    equal: u64,
    parked: BTreeMap<String, u64>,
    /// Where, and why not.
    unsendable: Vec<(String, String)>,
}

impl Plan {
    fn add(&mut self, record: &RejectedRecord<'_>) {
        if record.parked {
            let user = record.user.as_deref().unwrap_or("?").to_owned();
            *self.parked.entry(user).or_default() += 1;
            return;
        }
        let bytes = record.original_bytes().map_err(|error| error.to_string());
        let number = record
            .sequence_number
            .parse()
            .map_err(|error| format!("its place can't be told: {error}"));
        let (data, number) = match (bytes, number) {
            (Ok(data), Ok(number)) => (data, number),
            (Err(why), _) | (_, Err(why)) => {
                self.unsendable.push((place_of(record), why));
                return;
            }
        };
        if !self
            .contents
            .insert(hash_parts(&[record.partition_key.as_bytes(), &data]))
        {
            self.equal += 1;
            return;
        }
        self.bytes += data.len() + record.partition_key.len();
        let place = (record.stream_arn.to_string(), record.shard_id.to_string(), number);
        let partition_key = record.partition_key.to_string();
        self.records.insert(place, StreamRecord { partition_key, data });
    }

    fn left_out_text(&self) -> String {
        let mut text = String::new();
        if self.equal > 0 {
            let equal = counted(self.equal as usize, "record");
            text.push_str(&format!(
                "{equal} left out: the same partition key and bytes as another, which goes once\n"
            ));
        }
        if !self.parked.is_empty() {
            let count: u64 = self.parked.values().sum();
            text.push_str(&format!(
                "{} left out: parked, waiting for a mended profile\n",
                counted(count as usize, "record")
            ));
            for (user, count) in self.parked.iter().take(NAMED_MAX) {
                text.push_str(&format!(
                    "  usher redrive --user {user}  ({})\n",
                    counted(*count as usize, "record")
                ));
            }
        }
        if !self.unsendable.is_empty() {
            text.push_str(&format!(
                "{} can't be sent again:\n",
                counted(self.unsendable.len(), "record")
            ));
            for (place, why) in self.unsendable.iter().take(NAMED_MAX) {
                text.push_str(&format!("  {place}: {why}\n"));
            }
        }
        text
    }

    /// The records of each stream, in order.
    fn in_order(self) -> Vec<(String, Vec<StreamRecord>)> {
        let mut by_stream: Vec<(String, Vec<StreamRecord>)> = Vec::new();
        for ((stream, ..), record) in self.records {
            match by_stream.last_mut() {
                Some((last, records)) if *last == stream => records.push(record),
                _ => by_stream.push((stream, vec![record])),
            }
        }
        by_stream
    }
}

#[cfg(test)]
mod tests {
    use usher_wire::reject::RejectReason;

    use super::super::read::tests::rejected;
    use super::*;

    #[test]
    fn p3_records_go_in_their_order_each_once_and_parked_and_cut_ones_do_not() {
        let mut plan = Plan::default();
        let at = |number: &str, data: &[u8]| rejected(RejectReason::NotJson, number, data);
        for record in [
            at("10", b"c"),
            at("9", b"b"),
            at("11", b"b"),
            RejectedRecord {
                shard_id: "shardId-000000000001".into(),
                ..at("1", b"d")
            },
            RejectedRecord {
                stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/a".into(),
                ..at("1", b"a")
            },
            RejectedRecord {
                parked: true,
                user: Some("ann".into()),
                ..at("12", b"p")
            },
            RejectedRecord {
                data_cut_at: Some(1),
                ..at("13", b"x")
            },
            RejectedRecord {
                sequence_number: "none".into(),
                ..at("", b"y")
            },
        ] {
            plan.add(&record);
        }
        let text = plan.left_out_text();
        for part in [
            "1 record left out: the same partition key and bytes",
            "usher redrive --user ann  (1 record)",
            "shardId-000000000000:13: only the first 1 bytes",
            "shardId-000000000000:none: its place can't be told",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let order: Vec<Vec<u8>> = plan
            .in_order()
            .into_iter()
            .map(|(_, records)| records.into_iter().flat_map(|record| record.data).collect())
            .collect();
        assert_eq!(order, [b"a".to_vec(), b"bcd".to_vec()]);
    }
}
