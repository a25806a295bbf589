//! From the records of a Lambda event to plain bytes.
//!
//! All decoded bytes of a batch lie in one buffer, which the events then borrow from.

use std::io::Read;
use std::ops::Range;

use usher_domain::limits::EVENT_BYTES_MAX;

use crate::envelope::Envelope;
use crate::reject::{Reject, RejectReason};

/// The most bytes that the records of one batch may take when decoded. A batch is 6 MB of base64 at most, so only
/// compressed records come near it. What is beyond is left to the next invocation, so memory stays bounded (P10).
pub const DECODED_BYTES_MAX: usize = 96 * 1024 * 1024;

/// The most bytes that decompressing one batch may give, those of records that turn out too large included: they take time,
/// though not memory. 6 MB can hold some 400 gzip bombs that give 10 MiB each, which is 4 GB or half a minute. What is beyond is left to
/// the next invocation.
pub const DECOMPRESSED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What gzip data starts with (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The bytes of a batch's records.
#[derive(Debug, Default)]
pub struct DecodedBatch {
    buffer: Vec<u8>,
    records: Vec<Result<Range<usize>, Reject>>,
}

impl DecodedBatch {
    /// Decodes base64 and gzip. A record that can't be decoded is a reject of its own.
    pub fn decode(envelope: &Envelope<'_>) -> DecodedBatch {
        DecodedBatch::decode_at_most(envelope, DECODED_BYTES_MAX, DECOMPRESSED_BYTES_MAX)
    }

    fn decode_at_most(envelope: &Envelope<'_>, bytes_max: usize, decompressed_bytes_max: usize) -> DecodedBatch {
        let base64_bytes: usize = envelope.records.iter().map(|record| record.data.len()).sum();
        // Base64 turns 3 bytes into 4 characters.
        let mut buffer = Vec::with_capacity(base64_bytes / 4 * 3);
        let mut records = Vec::with_capacity(envelope.records.len());
        let mut decompressed_bytes = 0;
        for record in &envelope.records {
            if buffer.len() >= bytes_max || decompressed_bytes >= decompressed_bytes_max {
                break;
            }
            records.push(decode_record(&record.data, &mut buffer, &mut decompressed_bytes));
        }
        DecodedBatch { buffer, records }
    }

    /// How many records were decoded: all, unless they took more than [`DECODED_BYTES_MAX`] together, or
    /// [`DECOMPRESSED_BYTES_MAX`].
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of each record.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Result<&[u8], &Reject>> {
        self.records.iter().map(|record| match record {
            Ok(range) => Ok(&self.buffer[range.clone()]),
            Err(reject) => Err(reject),
        })
    }
}

fn decode_record(data: &str, buffer: &mut Vec<u8>, decompressed_bytes: &mut usize) -> Result<Range<usize>, Reject> {
    let start = buffer.len();
    if base64_simd::STANDARD.decode_append(data.as_bytes(), buffer).is_err() {
        buffer.truncate(start);
        return Err(Reject::new(
            RejectReason::NotBase64,
            "data",
            "the record's data is not base64",
        ));
    }
    if !buffer[start..].starts_with(&GZIP_MAGIC) {
        return Ok(start..buffer.len());
    }
    let compressed = buffer.split_off(start);
    // One byte more than is allowed tells too large from just large enough.
    let mut reader = flate2::read::MultiGzDecoder::new(compressed.as_slice()).take(EVENT_BYTES_MAX as u64 + 1);
    let read = reader.read_to_end(buffer);
    *decompressed_bytes += buffer.len() - start;
    if let Err(error) = read {
        buffer.truncate(start);
        return Err(Reject::new(
            RejectReason::NotGzip,
            "data",
            format!("the gzip data is broken: {error}"),
        ));
    }
    if buffer.len() - start > EVENT_BYTES_MAX {
        buffer.truncate(start);
        let detail = format!("it has over {EVENT_BYTES_MAX} bytes when decompressed");
        return Err(Reject::new(RejectReason::TooLarge, "data", detail));
    }
    Ok(start..buffer.len())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io::Write;

    use usher_domain::time::Timestamp;

    use super::*;
    use crate::envelope::EnvelopeRecord;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    fn envelope(data: &[Vec<u8>]) -> Envelope<'static> {
        let records = data.iter().map(|bytes| EnvelopeRecord {
            stream_arn: Cow::Borrowed("arn"),
            shard_id: Cow::Borrowed("shardId-0"),
            partition_key: Cow::Borrowed("k"),
            sequence_number_text: Cow::Borrowed("1"),
            sequence_number: 1u64.into(),
            arrived_at: Timestamp::default(),
            data: Cow::Owned(base64_simd::STANDARD.encode_to_string(bytes)),
        });
        Envelope {
            records: records.collect(),
        }
    }

    #[test]
    fn plain_and_gzip_records_come_out_as_their_bytes() {
        let plain = b"{\"a\":1}".to_vec();
        let batch = DecodedBatch::decode(&envelope(&[plain.clone(), gzip(&plain), vec![], gzip(b"")]));
        let records: Vec<_> = batch
            .records()
            .map(|record| record.expect("decodable").to_vec())
            .collect();
        assert_eq!(records, [plain.clone(), plain, vec![], vec![]]);
    }

    #[test]
    fn p10_what_cannot_be_decoded_is_a_reject_with_a_reason_and_stops_nothing() {
        let bomb = gzip(&vec![0u8; EVENT_BYTES_MAX + 1]);
        let mut cut = gzip(b"hello, hello, hello");
        cut.truncate(cut.len() - 4);
        let mut envelope = envelope(&[bomb, cut, b"good".to_vec(), b"x".to_vec()]);
        envelope.records[3].data = Cow::Borrowed("not base64!");
        let batch = DecodedBatch::decode(&envelope);
        let reasons: Vec<_> = batch
            .records()
            .map(|record| record.err().map(|reject| reject.reason))
            .collect();
        let expected = [
            Some(RejectReason::TooLarge),
            Some(RejectReason::NotGzip),
            None,
            Some(RejectReason::NotBase64),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn p10_a_batch_of_bombs_takes_bounded_memory() {
        let large = gzip(&vec![b' '; 1 << 20]);
        let envelope = envelope(&vec![large; 20]);
        let batch = DecodedBatch::decode_at_most(&envelope, 4 << 20, usize::MAX);
        assert_eq!(batch.len(), 4, "the rest is left to the next invocation");
    }

    #[test]
    fn p10_a_batch_of_bombs_takes_bounded_time() {
        let mut broken = gzip(&vec![b' '; 1 << 20]);
        broken.truncate(broken.len() - 8);
        let bomb = gzip(&vec![b' '; EVENT_BYTES_MAX + 1]);
        for (record, decoded) in [(broken, 4), (bomb, 1)] {
            let envelope = envelope(&vec![record; 20]);
            let batch = DecodedBatch::decode_at_most(&envelope, usize::MAX, 4 << 20);
            assert_eq!(batch.len(), decoded, "what is thrown away counts, too");
            assert!(batch.records().all(|record| record.is_err()));
        }
    }
}
