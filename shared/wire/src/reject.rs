//! Records that can't be used: why, and how they look on the `rejected` stream (P1).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use usher_domain::limits::EVENT_BYTES_MAX;

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
    /// Earlier events of the user are parked: this one follows them, so that they stay in order (P3).
    UserParked,
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
            RejectReason::UserParked => "user_parked",
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
///
/// A *parked* record is one of a user whose profile can't be written for now. It waits there, in the user's order, until
/// the profile is mended and `usher redrive --user` applies it. Any other record is done with unless somebody sends it again.
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
    /// Whether it waits for its user's profile to be mended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub parked: bool,
    /// Whose event it is; on parked records only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    /// The bytes as the producer sent them, in base64; compressed first where [`RejectedRecord::encoding`] says so.
    pub data: Cow<'a, str>,
    /// [`REJECTED_ENCODING_GZIP`] where the bytes were compressed to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Cow<'a, str>>,
    /// How many of the bytes are kept, where not even compressing made them fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_cut_at: Option<usize>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The largest record that a stream takes unless it is set to take more: 1 MiB, partition key included.
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>
pub const REJECTED_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// The [`RejectedRecord::encoding`] of compressed bytes.
pub const REJECTED_ENCODING_GZIP: &str = "gzip";

/// Why the original bytes can't be had from a rejected record.
#[derive(Debug, thiserror::Error)]
pub enum OriginalBytesError {
    /// The data is not base64.
    #[error("the data of the rejected record is not base64")]
    NotBase64,
    /// The data is said to be compressed, and is not.
    #[error("the data of the rejected record can't be decompressed")]
    NotGzip(#[source] std::io::Error),
    /// It is compressed in a way that this version doesn't know.
    #[error("the data of the rejected record has the encoding `{0}`, which this version doesn't know")]
    UnknownEncoding(String),
    /// Only the front was kept.
    #[error(
        "only the first {0} bytes of the record were kept: it is whole on the stream that it came from, while retained"
    )]
    Cut(usize),
    /// It expands to more than any record has.
    #[error("the data of the rejected record expands to over {EVENT_BYTES_MAX} bytes, more than any record has")]
    TooLarge,
}

impl RejectedRecord<'_> {
    /// The key to put it on its stream with: the user of a parked record, so that a user's parked records keep their
    /// order; the reason of any other.
    pub fn stream_key(&self) -> &str {
        match &self.user {
            Some(user) if self.parked => user,
            _ => self.reason.name(),
        }
    }

    /// Its bytes on the stream. Where base64 would carry it over what a stream takes, the data is compressed first
    /// (`"encoding":"gzip"`); where even that is too large, the front of the data is kept and the rest cut off, which
    /// `"data_cut_at"` says in bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let whole = serde_json::to_vec(self).unwrap_or_default();
        let room = REJECTED_RECORD_BYTES_MAX - self.stream_key().len();
        if whole.len() <= room {
            return whole;
        }
        let bytes = base64_simd::STANDARD
            .decode_to_vec(self.data.as_bytes())
            .unwrap_or_default();
        let head = RejectedRecord {
            data: Cow::Borrowed(""),
            encoding: Some(Cow::Borrowed(REJECTED_ENCODING_GZIP)),
            ..self.clone()
        };
        let overhead = serde_json::to_vec(&head).map_or(0, |json| json.len()) + 64;
        // Base64 needs 4 characters for 3 bytes.
        let most = room.saturating_sub(overhead) / 4 * 3;
        let mut keep = bytes.len();
        loop {
            let compressed = gzip(&bytes[..keep]);
            // An empty one has nothing to cut: were the place alone too large, the stream would say so.
            if compressed.len() <= most || keep == 0 {
                let record = RejectedRecord {
                    data: Cow::Owned(base64_simd::STANDARD.encode_to_string(&compressed)),
                    data_cut_at: (keep < bytes.len()).then_some(keep),
                    ..head
                };
                return serde_json::to_vec(&record).unwrap_or_default();
            }
            keep /= 2;
        }
    }

    /// The bytes as the producer sent them.
    ///
    /// # Errors
    /// When they are not all there, or the record was not written by [`RejectedRecord::to_json`].
    pub fn original_bytes(&self) -> Result<Vec<u8>, OriginalBytesError> {
        if let Some(kept) = self.data_cut_at {
            return Err(OriginalBytesError::Cut(kept));
        }
        let bytes = base64_simd::STANDARD
            .decode_to_vec(self.data.as_bytes())
            .map_err(|_| OriginalBytesError::NotBase64)?;
        match self.encoding.as_deref() {
            None => Ok(bytes),
            Some(REJECTED_ENCODING_GZIP) => gunzip(&bytes),
            Some(other) => Err(OriginalBytesError::UnknownEncoding(other.chars().take(40).collect())),
        }
    }
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

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, OriginalBytesError> {
    use std::io::Read;
    let mut expanded = Vec::new();
    // One byte more than is allowed tells too large from just large enough.
    flate2::read::GzDecoder::new(bytes)
        .take(EVENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut expanded)
        .map_err(OriginalBytesError::NotGzip)?;
    if expanded.len() > EVENT_BYTES_MAX {
        return Err(OriginalBytesError::TooLarge);
    }
    Ok(expanded)
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
            parked: false,
            user: None,
            data: base64_simd::STANDARD.encode_to_string(data).into(),
            encoding: None,
            data_cut_at: None,
        }
    }

    #[test]
    fn p1_the_original_bytes_are_kept_within_what_a_stream_takes() {
        let small = rejected(b"\xff\xfe not json");
        let read: RejectedRecord<'_> = serde_json::from_slice(&small.to_json()).expect("json");
        assert_eq!(read, small);
        assert_eq!(read.original_bytes().expect("whole"), b"\xff\xfe not json");

        let nested = vec![b'['; 1 << 20];
        let large = rejected(&nested).to_json();
        let read: RejectedRecord<'_> = serde_json::from_slice(&large).expect("json");
        assert_eq!(read.original_bytes().expect("whole"), nested);
        let json: serde_json::Value = serde_json::from_slice(&large).expect("json");
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
        let read: RejectedRecord<'_> = serde_json::from_slice(&json).expect("json");
        assert!(matches!(read.original_bytes(), Err(OriginalBytesError::Cut(half)) if half == 1 << 19));
        let json: serde_json::Value = serde_json::from_slice(&json).expect("json");
        assert_eq!(json["data_cut_at"], 1 << 19);
    }
    #[test]
    fn p3_parked_records_are_put_by_user_and_the_others_look_as_they_always_did() {
        let other = rejected(b"x");
        assert_eq!(other.stream_key(), "not_json");
        let json = String::from_utf8(other.to_json()).expect("text");
        assert!(
            !json.contains("parked") && !json.contains("user") && !json.contains("encoding"),
            "{json}"
        );
        let parked = RejectedRecord {
            parked: true,
            user: Some("u-1".into()),
            ..rejected(b"x")
        };
        assert_eq!(parked.stream_key(), "u-1");
        let bytes = parked.to_json();
        let read: RejectedRecord<'_> = serde_json::from_slice(&bytes).expect("json");
        assert_eq!(read, parked);

        // However long the key, the record with it is what a stream takes.
        let user = "u".repeat(usher_domain::limits::IDENTIFIER_BYTES_MAX);
        for bytes in 750_000..750_010 {
            let parked = RejectedRecord {
                parked: true,
                user: Some(user.as_str().into()),
                ..rejected(&vec![b'x'; bytes])
            };
            assert!(parked.to_json().len() + parked.stream_key().len() <= REJECTED_RECORD_BYTES_MAX);
        }
    }

    #[test]
    fn bytes_that_are_not_all_there_are_told() {
        let record = |data: &'static str, encoding: Option<&'static str>| RejectedRecord {
            data: data.into(),
            encoding: encoding.map(Cow::Borrowed),
            ..rejected(b"")
        };
        for (record, why) in [
            (record("%", None), "not base64"),
            (record("eA==", Some("gzip")), "can't be decompressed"),
            (record("eA==", Some("br")), "the encoding `br`"),
        ] {
            let told = record.original_bytes().expect_err(why).to_string();
            assert!(told.contains(why), "{told}");
        }
    }
}
