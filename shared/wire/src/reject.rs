//! Records that can't be used: why, and how they look on the `rejected` stream (P1).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a record can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The data of the Lambda record is not base64.
    NotBase64,
    /// It starts like gzip data but can't be decompressed.
    NotGzip,
    /// It has more bytes than an event may have.
    TooLarge,
    /// It is not UTF-8.
    NotUtf8,
    /// It is not JSON, or not an object.
    NotJson,
    /// Its `schema_version` is one that this version doesn't know.
    UnknownSchemaVersion,
    /// A required member is missing or empty.
    MissingField,
    /// A member has another type than it must have.
    WrongType,
    /// A member is longer than it may be.
    TooLong,
    /// It nests deeper than it may.
    TooDeep,
    /// It has more unknown members than are kept.
    TooManyMembers,
    /// A time is not RFC 3339 with an offset, or so far ahead of the arrival that it can't be true.
    BadTimestamp,
    /// A member has a value that is reserved.
    Reserved,
    /// The user's stored profile can't be read, so the event can't be applied to it.
    UnreadableProfile,
    /// With the event, the user's profile would be larger than an item may be.
    ProfileTooLarge,
}

impl RejectReason {
    /// Its name, as it is on the stream and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            RejectReason::NotBase64 => "not_base64",
            RejectReason::NotGzip => "not_gzip",
            RejectReason::TooLarge => "too_large",
            RejectReason::NotUtf8 => "not_utf8",
            RejectReason::NotJson => "not_json",
            RejectReason::UnknownSchemaVersion => "unknown_schema_version",
            RejectReason::MissingField => "missing_field",
            RejectReason::WrongType => "wrong_type",
            RejectReason::TooLong => "too_long",
            RejectReason::TooDeep => "too_deep",
            RejectReason::TooManyMembers => "too_many_members",
            RejectReason::BadTimestamp => "bad_timestamp",
            RejectReason::Reserved => "reserved",
            RejectReason::UnreadableProfile => "unreadable_profile",
            RejectReason::ProfileTooLarge => "profile_too_large",
        }
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why one record can't be used, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {field}: {detail}")]
pub struct Reject {
    /// The kind of reason.
    pub reason: RejectReason,
    /// The member that is at fault; empty for the record as a whole.
    pub field: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

/// Bytes of a reject's detail at most. A parser's message can quote the whole of a large event.
pub const REJECT_DETAIL_BYTES_MAX: usize = 1024;

impl Reject {
    /// A reject. Of a long detail, the front is kept.
    pub fn new(reason: RejectReason, field: &'static str, detail: impl Into<String>) -> Reject {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(REJECT_DETAIL_BYTES_MAX));
        Reject { reason, field, detail }
    }
}

/// A record on the `rejected` stream: the original bytes, the reason and where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRecord<'a> {
    /// The kind of reason.
    pub reason: RejectReason,
    /// The member that is at fault.
    pub field: Cow<'a, str>,
    /// What is wrong with it.
    pub detail: Cow<'a, str>,
    /// The ARN of the stream that it came from.
    pub stream_arn: Cow<'a, str>,
    /// The shard.
    pub shard_id: Cow<'a, str>,
    /// Its sequence number: with stream and shard, it tells a record that was rejected twice.
    pub sequence_number: Cow<'a, str>,
    /// The producer's partition key.
    pub partition_key: Cow<'a, str>,
    /// When Kinesis took it (RFC 3339).
    pub arrived_at: String,
    /// The bytes as the producer sent them, in base64.
    pub data: Cow<'a, str>,
}

/// The largest record that a stream takes unless it is set to take more: 1 MiB, partition key included.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
pub const REJECTED_RECORD_BYTES_MAX: usize = 1024 * 1024;

impl RejectedRecord<'_> {
    /// Its bytes on the stream. Where base64 would carry it over what a stream takes, the data is compressed first
    /// (`"encoding":"gzip"`); where even that is too large, the front of the data is kept and the rest cut off, which
    /// `"data_cut_at"` says in bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let whole = serde_json::to_vec(self).unwrap_or_default();
        let room = REJECTED_RECORD_BYTES_MAX - self.reason.name().len();
        if whole.len() <= room {
            return whole;
        }
        let bytes = base64_simd::STANDARD
            .decode_to_vec(self.data.as_bytes())
            .unwrap_or_default();
        let head = Shortened {
            record: RejectedRecord {
                data: Cow::Borrowed(""),
                ..self.clone()
            },
            encoding: "gzip",
            data_cut_at: None,
        };
        let overhead = serde_json::to_vec(&head).map_or(0, |json| json.len()) + 64;
        // Base64 needs 4 characters for 3 bytes.
        let most = room.saturating_sub(overhead) / 4 * 3;
        let mut keep = bytes.len();
        loop {
            let compressed = gzip(&bytes[..keep]);
            if compressed.len() <= most {
                let data = base64_simd::STANDARD.encode_to_string(&compressed);
                let cut = (keep < bytes.len()).then_some(keep);
                let record = RejectedRecord {
                    data: Cow::Owned(data),
                    ..self.clone()
                };
                return serde_json::to_vec(&Shortened {
                    record,
                    encoding: "gzip",
                    data_cut_at: cut,
                })
                .unwrap_or_default();
            }
            keep /= 2;
        }
    }
}

#[derive(Serialize)]
struct Shortened<'a> {
    #[serde(flatten)]
    record: RejectedRecord<'a>,
    encoding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_cut_at: Option<usize>,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Writing to memory can't fail; an empty result would only lose the copy of what was rejected.
    if encoder.write_all(bytes).is_err() {
        return Vec::new();
    }
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(data: &[u8]) -> RejectedRecord<'static> {
        RejectedRecord {
            reason: RejectReason::NotJson,
            field: "".into(),
            detail: "expected value".into(),
            stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/interactions".into(),
            shard_id: "shardId-000000000000".into(),
            sequence_number: "1".into(),
            partition_key: "k".into(),
            arrived_at: "2026-01-05T10:00:00.000Z".into(),
            data: base64_simd::STANDARD.encode_to_string(data).into(),
        }
    }

    #[test]
    fn p1_the_original_bytes_are_kept_within_what_a_stream_takes() {
        let small = rejected(b"\xff\xfe not json");
        let read: RejectedRecord<'_> = serde_json::from_slice(&small.to_json()).expect("json");
        assert_eq!(read, small);

        let nested = vec![b'['; 1 << 20];
        let json: serde_json::Value = serde_json::from_slice(&rejected(&nested).to_json()).expect("json");
        assert_eq!(
            (json["encoding"].as_str(), json.get("data_cut_at")),
            (Some("gzip"), None)
        );

        // What does not compress: a simple generator's noise.
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(2 << 20)
        .collect();
        let json = rejected(&noise).to_json();
        assert!(json.len() <= REJECTED_RECORD_BYTES_MAX);
        let json: serde_json::Value = serde_json::from_slice(&json).expect("json");
        assert_eq!(json["data_cut_at"], 1 << 19);
    }
}
