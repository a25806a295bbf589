//! The records of a given-up batch, from its stream while they are retained.

use anyhow::{Context, Result};
use usher_aws::stream_reader::{ReadError, ReadFrom, StreamReader};
use usher_domain::sequence_number::SequenceNumber;

use super::failure_record::{FailedBatch, FailedRecord};
use crate::patience::{next_page, patiently};
use crate::people::grouped;

/// What is left of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The records that were found.
    pub records: Vec<FailedRecord>,
    /// What is past retention, where something is.
    pub missing: Option<Missing>,
}

/// Records that are past retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The stream's ARN.
    pub stream_arn: String,
    /// The shard.
    pub shard_id: String,
    /// The batch's first record.
    pub start: SequenceNumber,
    /// The first record that is still there, or the batch's last if none is.
    pub end: SequenceNumber,
    /// How many are gone at least. Nobody knows more: a batch of one partition key of several (a parallelization factor above
    /// 1), or of a filter, is not all that is in its range, so what is there may be others'.
    pub count_min: u64,
    /// How many the batch had.
    pub batch_size: u64,
    /// Whether some are still there.
    pub is_partly: bool,
}

impl Missing {
    /// For people.
    pub fn text(&self) -> String {
        let up_to = if self.is_partly { "before" } else { "to" };
        let count = match self.count_min {
            count if !self.is_partly => grouped(count),
            0 => "an unknown number".to_owned(),
            count => format!("at least {}", grouped(count)),
        };
        format!(
            "{count} of the {} records of {} {} from {} {up_to} {}",
            grouped(self.batch_size),
            self.stream_arn,
            self.shard_id,
            self.start,
            self.end
        )
    }
}

/// Fetches a batch's records from its stream.
///
/// # Errors
/// When the stream can't be read.
pub async fn fetch(reader: &StreamReader, batch: &FailedBatch) -> Result<Fetched> {
    let mut records = Vec::new();
    let mut pages = reader.shard(&batch.shard_id, ReadFrom::SequenceNumber(batch.start_text.clone()));
    let unreadable = || {
        format!(
            "cannot read the stream {}; is this its account, region or endpoint (--endpoint-url)?",
            reader.name_or_arn()
        )
    };
    'pages: loop {
        let page = match next_page(&mut pages).await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(ReadError::NoShard { .. }) => {
                // The stream may be gone as well, or its name wrong: then this is the error.
                patiently(|| reader.shards()).await.with_context(unreadable)?;
                break;
            }
            Err(error) => return Err(error).with_context(unreadable),
        };
        for record in page.records {
            let number: SequenceNumber = record.sequence_number.parse().with_context(unreadable)?;
            if number > batch.end {
                break 'pages;
            }
            // Where the batch's first record is past retention, a service may begin with an older one that is not.
            if number >= batch.start {
                records.push(FailedRecord {
                    stream_arn: batch.stream_arn.clone(),
                    shard_id: batch.shard_id.clone(),
                    sequence_number: number,
                    partition_key: record.partition_key,
                    arrived_at: record.arrived_at,
                    data: record.data,
                });
            }
            if number == batch.end {
                break 'pages;
            }
        }
    }
    Ok(Fetched {
        missing: missing(batch, &records),
        records,
    })
}

/// What of a batch is past retention. Retention takes the oldest first, so it is a range from the batch's start.
fn missing(batch: &FailedBatch, found: &[FailedRecord]) -> Option<Missing> {
    let first = found.first().map(|record| record.sequence_number);
    // Only the first one tells: however many are there, they may be records of the range that were not the batch's.
    if first == Some(batch.start) {
        return None;
    }
    Some(Missing {
        stream_arn: batch.stream_arn.clone(),
        shard_id: batch.shard_id.clone(),
        start: batch.start,
        end: first.unwrap_or(batch.end),
        count_min: batch
            .batch_size
            .saturating_sub(found.len() as u64)
            .max(u64::from(first.is_none())),
        batch_size: batch.batch_size,
        is_partly: first.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_retention_is_a_range_from_the_start() {
        let batch = FailedBatch {
            stream_arn: "arn".to_owned(),
            shard_id: "shardId-0".to_owned(),
            start: 10u64.into(),
            start_text: "10".to_owned(),
            end: 20u64.into(),
            batch_size: 4,
            function_arn: String::new(),
            condition: String::new(),
            records: None,
        };
        let record = |number: u64| FailedRecord {
            stream_arn: "arn".to_owned(),
            shard_id: "shardId-0".to_owned(),
            sequence_number: number.into(),
            partition_key: String::new(),
            arrived_at: Default::default(),
            data: Vec::new(),
        };
        for (found, expected) in [
            (vec![10, 12, 15, 20], None),
            (vec![], Some("4 of the 4 records of arn shardId-0 from 10 to 20")),
            (
                vec![15, 20],
                Some("at least 2 of the 4 records of arn shardId-0 from 10 before 15"),
            ),
            (vec![10, 11, 12, 15, 20], None),
            // The others are of another partition key, and as many as the batch had.
            (
                vec![11, 12, 15, 20],
                Some("an unknown number of the 4 records of arn shardId-0 from 10 before 11"),
            ),
            (
                vec![11, 12, 13, 15, 20],
                Some("an unknown number of the 4 records of arn shardId-0 from 10 before 11"),
            ),
        ] {
            let found: Vec<FailedRecord> = found.into_iter().map(record).collect();
            let text = missing(&batch, &found).map(|missing| missing.text());
            assert_eq!(text.as_deref(), expected);
        }
    }
}
