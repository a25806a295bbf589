//! Answers that AWS gives when something is wrong there, and answers that never come.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

/// A lost answer that does not come is waited for so long: longer than a function's client is patient (5 s), so that it is
/// the client's own timeout that ends the call.
const SILENCE: Duration = Duration::from_millis(5_500);
/// One lost answer of so many is silence; the others are connections that break, which cost no time.
const LOST_ANSWERS_PER_SILENCE: u64 = 8;
/// The length that a broken answer promises.
const PROMISED_BYTES: u64 = 2;

/// An error of a service, as its JSON protocol says it.
pub(super) fn error(status: StatusCode, content_type: &'static str, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer to a call that took effect and whose client is never to know: a connection that breaks, or silence until the
/// client has given up.
pub(crate) async fn lost(random: u64) -> Response {
    if random.is_multiple_of(LOST_ANSWERS_PER_SILENCE) {
        tokio::time::sleep(SILENCE).await;
    }
    let broken = futures::stream::once(async { Err::<Vec<u8>, _>(io::Error::from(io::ErrorKind::ConnectionReset)) });
    let mut response = Response::new(Body::from_stream(broken));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(PROMISED_BYTES));
    response
}
