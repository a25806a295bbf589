//! From the records of an invocation to events and rejects, and from rejects to records.

use std::borrow::Cow;

use hashbrown::HashMap;
use usher_domain::event::{ArrivedEvent, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::sequence_number::Position;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::{Envelope, EnvelopeRecord};
use usher_wire::reject::{Reject, RejectedRecord};

use crate::ports::StreamRecord;

/// The lanes of a batch: each is a part of a shard whose records Lambda delivers in order, and so what the guard of a
/// profile counts by (P2).
pub(crate) struct Lanes {
    lanes: Vec<Shard>,
    of_record: Vec<usize>,
}

impl Lanes {
    /// They are lanes of records that name `key`, which is another user's by now.
    pub(crate) fn go_within(&mut self, key: &str) {
        for lane in &mut self.lanes {
            *lane = lane.within(key);
        }
    }
}

/// Finds the lanes that the records of a batch come from.
///
/// While Lambda runs one batch of a shard at a time, a lane is a shard: one, in a batch of Lambda's. With a
/// parallelisation factor above 1, batches of one shard run at once and only records of one partition key are in order,
/// so a record with a later number may be applied before one with an earlier number and another key. Then a lane is a
/// partition key of a shard.
pub(crate) fn lanes_of(envelope: &Envelope<'_>, by_partition_key: bool) -> Lanes {
    let mut lanes: Vec<Shard> = Vec::new();
    let mut known: HashMap<(&str, &str, &str), usize> = HashMap::new();
    let mut previous = None;
    let mut of_record = Vec::with_capacity(envelope.records.len());
    for record in &envelope.records {
        let partition_key = if by_partition_key {
            record.partition_key.as_ref()
        } else {
            ""
        };
        let place = (record.stream_arn.as_ref(), record.shard_id.as_ref(), partition_key);
        let lane = match previous {
            // Comparing is cheaper than hashing, and nearly every batch has one lane.
            Some((previous_place, lane)) if previous_place == place => lane,
            _ => *known.entry(place).or_insert_with(|| {
                let shard = ShardKey::of(place.0, place.1);
                lanes.push(Shard {
                    key: if by_partition_key {
                        shard.within(partition_key)
                    } else {
                        shard
                    },
                    id: place.1.to_owned(),
                });
                lanes.len() - 1
            }),
        };
        previous = Some((place, lane));
        of_record.push(lane);
    }
    Lanes { lanes, of_record }
}

/// The events of a batch, which record each is, and the records that are none.
pub(crate) struct Decoded<'a> {
    pub events: Vec<ArrivedEvent<'a>>,
    pub record_of_event: Vec<usize>,
    pub rejects: Vec<(usize, Reject)>,
}

/// Decodes every record.
pub(crate) fn decode_records<'a>(envelope: &Envelope<'_>, bytes: &'a DecodedBatch, lanes: &'a Lanes) -> Decoded<'a> {
    let mut decoded = Decoded {
        events: Vec::with_capacity(bytes.len()),
        record_of_event: Vec::with_capacity(bytes.len()),
        rejects: Vec::new(),
    };
    for (index, (record, bytes)) in envelope.records.iter().zip(bytes.records()).enumerate() {
        let event = match bytes {
            Ok(bytes) => usher_wire::event::decode(bytes, record.arrived_at),
            Err(reject) => Err(reject.clone()),
        };
        match event {
            Ok(event) => {
                decoded.record_of_event.push(index);
                decoded.events.push(ArrivedEvent {
                    event,
                    arrived_at: record.arrived_at,
                    shard: &lanes.lanes[lanes.of_record[index]],
                    position: Position {
                        sequence_number: record.sequence_number,
                        sub_sequence_number: 0,
                    },
                });
            }
            Err(reject) => decoded.rejects.push((index, reject)),
        }
    }
    decoded
}

/// The record for the `rejected` stream. It is partitioned by reason; one of a `parked` user, by user.
pub(crate) fn rejected_record(record: &EnvelopeRecord<'_>, reject: &Reject, parked: Option<&str>) -> StreamRecord {
    let rejected = RejectedRecord {
        reason: reject.reason,
        field: Cow::Borrowed(reject.field),
        detail: Cow::Borrowed(&reject.detail),
        stream_arn: Cow::Borrowed(&record.stream_arn),
        shard_id: Cow::Borrowed(&record.shard_id),
        sequence_number: Cow::Borrowed(&record.sequence_number_text),
        partition_key: Cow::Borrowed(&record.partition_key),
        arrived_at: record.arrived_at.to_string(),
        parked: parked.is_some(),
        user: parked.map(Cow::Borrowed),
        data: Cow::Borrowed(&record.data),
        encoding: None,
        data_cut_at: None,
    };
    StreamRecord {
        partition_key: rejected.stream_key().to_owned(),
        data: rejected.to_json(),
    }
}
