//! What goes wrong with puts, in front of the embedded Kinesis.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{FaultKind, Faults, answer};

const JSON_1_1: &str = "application/x-amz-json-1.1";
/// An answer to 500 records is far smaller.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is to happen to a put.
#[derive(Debug, Default)]
pub(crate) struct PutFaults {
    /// It is refused with this answer and must not be forwarded.
    pub refusal: Option<Response>,
    /// Only a part of it is to be forwarded.
    pub partial: Option<PartialPut>,
    /// Its answer is to be lost; the number says how.
    pub lost: Option<u64>,
}

/// A put of several records of which some are refused.
#[derive(Debug)]
pub(crate) struct PartialPut {
    /// The request with the others; none where nothing is left.
    pub forward: Option<Bytes>,
    /// For each entry, the error code that it gets; none for those that are forwarded.
    refused: Vec<Option<&'static str>>,
}

/// As far as it must be understood. Records are kept as they are.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequest<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(borrow, default)]
    records: Vec<&'a RawValue>,
}

impl PutRequest<'_> {
    fn stream(&self) -> &str {
        let arn = self.stream_arn.as_deref().and_then(|arn| arn.rsplit('/').next());
        self.stream_name.as_deref().or(arn).unwrap_or_default()
    }
}

impl PutFaults {
    /// Whether anything happens to it at all.
    pub fn is_any(&self) -> bool {
        self.refusal.is_some() || self.partial.is_some() || self.lost.is_some()
    }

    /// Whether any fault of a put may strike, so that it is worth a look at the request.
    pub fn may_strike(faults: &Faults) -> bool {
        [
            FaultKind::KinesisThrottle,
            FaultKind::KinesisPartialPut,
            FaultKind::KinesisLostAnswer,
        ]
        .into_iter()
        .any(|kind| faults.may_strike(kind))
    }

    /// Asks what happens to this call.
    pub fn strike(faults: &Faults, operation: &str, headers: &HeaderMap, body: &Bytes) -> PutFaults {
        let mut struck = PutFaults::default();
        if !matches!(operation, "PutRecord" | "PutRecords") {
            return struck;
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        // A client that speaks CBOR is not understood and has no partial failures.
        let is_json = content_type.is_some_and(|value| value.starts_with(JSON_1_1));
        let request = is_json
            .then(|| serde_json::from_slice::<PutRequest<'_>>(body).ok())
            .flatten();
        let place = format!("{operation} {}", request.as_ref().map_or("", PutRequest::stream));
        if let Some(random) = faults.strike(FaultKind::KinesisThrottle, &place) {
            struck.refusal = Some(refusal(random));
            return struck;
        }
        if let Some(request) = request.filter(|request| !request.records.is_empty())
            && let Some(random) = faults.strike(FaultKind::KinesisPartialPut, &place)
        {
            struck.partial = PartialPut::new(&request, body, random);
            if struck.partial.is_none() {
                faults.withdraw(FaultKind::KinesisPartialPut);
            }
        }
        struck.lost = faults.strike(FaultKind::KinesisLostAnswer, &place);
        struck
    }
}

/// The errors of `PutRecords` that pass:
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html#API_PutRecords_Errors>.
fn refusal(random: u64) -> Response {
    let (status, code, message) = match random % 3 {
        0 => (
            StatusCode::BAD_REQUEST,
            "ProvisionedThroughputExceededException",
            "Rate exceeded for the stream",
        ),
        1 => (
            StatusCode::BAD_REQUEST,
            "KMSThrottlingException",
            "The request was denied due to request throttling by KMS",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailure",
            "Internal Service Failure",
        ),
    };
    answer::error(status, JSON_1_1, &json!({ "__type": code, "message": message }))
}

impl PartialPut {
    fn new(request: &PutRequest<'_>, body: &[u8], random: u64) -> Option<PartialPut> {
        let mut random = fastrand::Rng::with_seed(random);
        let count = request.records.len();
        let certain = random.usize(0..count);
        // One at least; the codes are those that the API's reference names for an entry.
        let refused: Vec<Option<&'static str>> = (0..count)
            .map(|index| match index == certain || random.bool() {
                true if random.bool() => Some("ProvisionedThroughputExceededException"),
                true => Some("InternalFailure"),
                false => None,
            })
            .collect();
        let left: Vec<&RawValue> = request
            .records
            .iter()
            .zip(&refused)
            .filter(|(_, refused)| refused.is_none())
            .map(|(record, _)| *record)
            .collect();
        let forward = if left.is_empty() {
            None
        } else {
            // It was parsed a moment ago.
            let mut whole: std::collections::BTreeMap<&str, &RawValue> = serde_json::from_slice(body).ok()?;
            let records = serde_json::value::to_raw_value(&left).ok()?;
            whole.insert("Records", &records);
            Some(Bytes::from(serde_json::to_vec(&whole).ok()?))
        };
        Some(PartialPut { forward, refused })
    }

    /// The answer to the whole put: the emulator's entries, and the refused ones in their places. An answer that is an error
    /// stays one.
    pub async fn complete(self, forwarded: Option<Response>) -> Response {
        let (mut parts, stored) = match forwarded {
            None => (Response::new(()).into_parts().0, json!({ "Records": [] })),
            Some(response) if !response.status().is_success() => return response,
            Some(response) => {
                let (parts, body) = response.into_parts();
                let body = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
                (parts, serde_json::from_slice(&body).unwrap_or(Value::Null))
            }
        };
        let mut stored = stored["Records"].as_array().cloned().unwrap_or_default().into_iter();
        let mut failed = 0_u64;
        let entries: Vec<Value> = self
            .refused
            .iter()
            .filter_map(|refused| match refused {
                None => stored.next(),
                Some(code) => {
                    failed += 1;
                    let message = match *code {
                        "InternalFailure" => "Internal Service Failure",
                        _ => "Rate exceeded for the shard of this record",
                    };
                    Some(json!({ "ErrorCode": code, "ErrorMessage": message }))
                }
            })
            .collect();
        let already_failed = entries.iter().filter(|entry| entry.get("ErrorCode").is_some()).count() as u64;
        let answer = json!({ "FailedRecordCount": failed.max(already_failed), "Records": entries });
        parts.headers.remove(CONTENT_LENGTH);
        parts
            .headers
            .insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(JSON_1_1));
        Response::from_parts(parts, Body::from(answer.to_string()))
    }
}
