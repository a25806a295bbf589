//! From a line of the events file to a record for the stream.

use usher_domain::hash::hash_bytes;
use usher_pipeline::ports::StreamRecord;
use usher_wire::event;

use crate::gzip;

/// The largest record that a stream takes unless it is set to take more: 1 MiB, partition key included.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// The record for a line, keyed by its user so that a user's events keep their order; a line that has none is keyed by what
/// is in it, so that it goes to the same shard each time. A line that is too large as it is goes compressed, which the
/// functions read as well. `None` for a line that is too large even so.
pub fn record_of(line: &[u8]) -> Option<StreamRecord> {
    let partition_key = event::user_of(line).unwrap_or_else(|| format!("{:016x}", hash_bytes(line)));
    let room = RECORD_BYTES_MAX - partition_key.len();
    let data = if line.len() <= room {
        line.to_vec()
    } else {
        gzip::compress(line)
    };
    (data.len() <= room).then_some(StreamRecord { partition_key, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_keyed_by_its_user_or_by_what_is_in_it() {
        for (line, key) in [
            (&br#"{"user_id":" ann ","event_id":"1"}"#[..], "ann"),
            (br#"{"anonymous_id":"x"}"#, "anonymous:x"),
        ] {
            assert_eq!(record_of(line).expect("small").partition_key, key);
        }
        for line in [&b"not json"[..], b"\xff", br#"{"user_id":""}"#] {
            let record = record_of(line).expect("small");
            assert_eq!((record.partition_key.len(), record.data.as_slice()), (16, line));
            assert_eq!(record_of(line).expect("small").partition_key, record.partition_key);
        }
    }

    #[test]
    fn what_is_too_large_goes_compressed_or_not_at_all() {
        let nested = vec![b'['; RECORD_BYTES_MAX];
        let record = record_of(&nested).expect("it compresses well");
        assert!(record.data.len() < 10_000 && record.data.starts_with(&gzip::MAGIC));
        // What does not compress: a simple generator's noise.
        let mut state = 1u64;
        let noise = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        });
        let noise: Vec<u8> = noise.take(RECORD_BYTES_MAX).collect();
        assert_eq!(record_of(&noise), None);
    }
}
