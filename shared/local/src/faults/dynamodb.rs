//! What goes wrong with reads and writes: a front that stands before the embedded DynamoDB and passes everything else on.
//!
//! The emulator's server takes no layers, so the front is a server of its own, and is there only while a fault may strike.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{FaultKind, Faults, answer};

const JSON_1_0: &str = "application/x-amz-json-1.0";
/// What DynamoDB puts before the names of its errors.
const ERROR_PREFIX: &str = "com.amazonaws.dynamodb.v20120810#";
/// DynamoDB takes requests of 16 MB.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A checksum of the answer's body, which no longer holds once the body is another.
const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-crc32");

const READS: [&str; 5] = ["GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems"];
const WRITES: [&str; 8] = [
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "BatchWriteItem",
    "TransactWriteItems",
    "ExecuteStatement",
    "BatchExecuteStatement",
    "ExecuteTransaction",
];
/// Writes of one item, which a transaction may be in the way of.
const SINGLE_WRITES: [&str; 3] = ["PutItem", "UpdateItem", "DeleteItem"];

/// Whether any fault of DynamoDB may strike, so that the front is worth its way.
pub(crate) fn may_strike(faults: &Faults) -> bool {
    [
        FaultKind::DynamoDbThrottle,
        FaultKind::DynamoDbPartialRead,
        FaultKind::DynamoDbLostAnswer,
        FaultKind::DynamoDbConflict,
    ]
    .into_iter()
    .any(|kind| faults.may_strike(kind))
}

/// The front.
struct Front {
    emulator_url: String,
    client: reqwest::Client,
    faults: Faults,
}

/// Serves the emulator at `emulator_url` on `listener`, with faults.
///
/// # Errors
/// When no HTTP client can be made.
pub(crate) fn serve(
    listener: TcpListener,
    emulator_url: String,
    faults: Faults,
) -> Result<JoinHandle<()>, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let front = Arc::new(Front {
        emulator_url,
        client,
        faults,
    });
    let app = Router::new().fallback(pass).with_state(front);
    Ok(tokio::spawn(async move {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the front of the dynamodb server ended");
        }
    }))
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => return (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large or was cut off").into_response(),
    };
    let operation = operation_of(&parts.headers).to_owned();
    let (faults, is_write) = (&front.faults, WRITES.contains(&&*operation));
    if !is_write && !READS.contains(&&*operation) {
        return front.forward(&parts, body).await;
    }
    if let Some(random) = faults.strike(FaultKind::DynamoDbThrottle, &operation) {
        return throttled(random);
    }
    if (SINGLE_WRITES.contains(&&*operation) || operation == "TransactWriteItems")
        && let Some(random) = faults.strike(FaultKind::DynamoDbConflict, &operation)
    {
        return conflict(&operation, &body, random);
    }
    let partial = (operation == "BatchGetItem" && faults.may_strike(FaultKind::DynamoDbPartialRead))
        .then(|| PartialRead::strike(faults, &body))
        .flatten();
    // Asked before the call, so that what comes after it does not depend on how long it takes.
    let lost = faults.strike(FaultKind::DynamoDbLostAnswer, &operation);
    // In a task of its own: a client that goes away must not call back what is to take effect.
    let forwarded = tokio::spawn(async move {
        match partial {
            None => front.forward(&parts, body).await,
            Some(PartialRead { request, left_out }) => {
                let answer = front.forward(&parts, request).await;
                with_unprocessed(answer, left_out).await
            }
        }
    });
    let response = forwarded.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a call of the dynamodb emulator panicked");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    });
    match lost {
        Some(random) => answer::lost(random).await,
        None => response,
    }
}

fn operation_of(headers: &HeaderMap) -> &str {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    target
        .and_then(|target| target.split_once('.'))
        .map_or("", |(_, operation)| operation)
}

impl Front {
    async fn forward(&self, parts: &Parts, body: Bytes) -> Response {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = parts.headers.clone();
        // They are about the connection that the request came on.
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let request = self
            .client
            .request(parts.method.clone(), format!("{}{path}", self.emulator_url))
            .headers(headers)
            .body(body);
        let answered = async {
            let mut answer = request.send().await?;
            let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        };
        let (status, mut headers, body) = match answered.await {
            Ok(answered) => answered,
            Err(error) => {
                tracing::error!(%error, "the dynamodb emulator does not answer");
                return StatusCode::BAD_GATEWAY.into_response();
            }
        };
        for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn service_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "__type": format!("{ERROR_PREFIX}{code}"), "message": message });
    answer::error(status, JSON_1_0, &body)
}

/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html#Programming.Errors.MessagesAndCodes>
fn throttled(random: u64) -> Response {
    let (status, code, message) = match random % 4 {
        0 => (
            StatusCode::BAD_REQUEST,
            "ProvisionedThroughputExceededException",
            "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
             provisioning level with the UpdateTable API.",
        ),
        1 => (
            StatusCode::BAD_REQUEST,
            "ThrottlingException",
            "Throughput exceeds the current capacity of your table or index.",
        ),
        2 => (
            StatusCode::BAD_REQUEST,
            "RequestLimitExceeded",
            "Throughput exceeds the current throughput limit for your account.",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "The request processing has failed because of an unknown error, exception or failure.",
        ),
    };
    service_error(status, code, message)
}

/// A single write meets a transaction; a transaction is cancelled, with a reason for each of its items in order:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>.
fn conflict(operation: &str, body: &[u8], random: u64) -> Response {
    if operation != "TransactWriteItems" {
        let message = "Transaction is ongoing for the item";
        return service_error(StatusCode::BAD_REQUEST, "TransactionConflictException", message);
    }
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = request["TransactItems"]
        .as_array()
        .map_or(1, |items| items.len().max(1));
    let in_conflict = fastrand::Rng::with_seed(random).usize(0..items);
    let codes: Vec<&str> = (0..items)
        .map(|index| {
            if index == in_conflict {
                "TransactionConflict"
            } else {
                "None"
            }
        })
        .collect();
    let reasons: Vec<Value> = codes
        .iter()
        .map(|code| match *code {
            "None" => json!({ "Code": code }),
            _ => json!({ "Code": code, "Message": "Transaction is ongoing for the item" }),
        })
        .collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let body = json!({
        "__type": format!("{ERROR_PREFIX}TransactionCanceledException"),
        "message": message,
        "CancellationReasons": reasons,
    });
    answer::error(StatusCode::BAD_REQUEST, JSON_1_0, &body)
}

/// A `BatchGetItem` that is to answer a part of its keys.
struct PartialRead {
    /// What is asked of the emulator.
    request: Bytes,
    /// What its answer has as `UnprocessedKeys`, by table.
    left_out: serde_json::Map<String, Value>,
}

impl PartialRead {
    /// Asks whether it is struck. A read of one key has no part.
    fn strike(faults: &Faults, body: &[u8]) -> Option<PartialRead> {
        let mut request: Value = serde_json::from_slice(body).ok()?;
        let tables = request.get_mut("RequestItems")?.as_object_mut()?;
        let keys_of = |table: &Value| table["Keys"].as_array().map_or(0, Vec::len);
        let count: usize = tables.values().map(keys_of).sum();
        if count < 2 {
            return None;
        }
        let random = faults.strike(FaultKind::DynamoDbPartialRead, "BatchGetItem")?;
        let mut random = fastrand::Rng::with_seed(random);
        let certain_out = random.usize(0..count);
        // Some other one; DynamoDB refuses the call as a whole rather than answer none of its keys.
        let certain_in = (certain_out + random.usize(1..count)) % count;
        let mut left_out = serde_json::Map::new();
        let mut index = 0;
        for (name, table) in tables.iter_mut() {
            let Some(keys) = table.get_mut("Keys").and_then(Value::as_array_mut).map(std::mem::take) else {
                continue;
            };
            let (mut kept, mut out) = (Vec::new(), Vec::new());
            for key in keys {
                let is_out = index == certain_out || (index != certain_in && random.bool());
                if is_out { &mut out } else { &mut kept }.push(key);
                index += 1;
            }
            if !out.is_empty() {
                let mut unprocessed = table.clone();
                unprocessed["Keys"] = Value::Array(out);
                left_out.insert(name.clone(), unprocessed);
            }
            table["Keys"] = Value::Array(kept);
        }
        tables.retain(|_, table| keys_of(table) > 0);
        Some(PartialRead {
            request: Bytes::from(request.to_string()),
            left_out,
        })
    }
}

/// The answer with these keys unprocessed too. An answer that is an error stays one.
async fn with_unprocessed(response: Response, left_out: serde_json::Map<String, Value>) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
    if !answer["UnprocessedKeys"].is_object() {
        answer["UnprocessedKeys"] = json!({});
    }
    for (table, keys) in left_out {
        let unprocessed = &mut answer["UnprocessedKeys"][&table];
        match (unprocessed["Keys"].as_array_mut(), keys["Keys"].as_array()) {
            (Some(known), Some(more)) => known.extend(more.iter().cloned()),
            _ => *unprocessed = keys,
        }
    }
    parts.headers.remove(CHECKSUM);
    Response::from_parts(parts, Body::from(answer.to_string()))
}
