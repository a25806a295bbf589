//! The gate in front of the emulator: a put passes alone, all other calls pass beside one another.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::State;
use crate::faults::answer;
use crate::faults::kinesis::PutFaults;

/// A put of 10 MiB in base64 and its envelope fit; the emulator itself refuses what AWS refuses.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads pass beside one another, a put passes alone.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<RwLock<()>>);

impl Gate {
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.0).write_owned().await
    }

    pub async fn beside(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0).read_owned().await
    }
}

/// Calls that change records, streams or consumers. All else reads.
fn passes_alone(operation: &str) -> bool {
    const READS: [&str; 4] = ["Describe", "Get", "List", "SubscribeToShard"];
    !READS.iter().any(|prefix| operation.starts_with(prefix))
}

/// The middleware around the emulator.
pub(super) async fn pass(Extract(state): Extract<Arc<State>>, request: Request, next: Next) -> Response {
    let operation = request
        .headers()
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .and_then(|target| target.split_once('.'))
        .map(|(_, operation)| operation.to_owned())
        .unwrap_or_default();
    // The body is read before the gate, so that a slow client holds up nobody.
    let (parts, body) = request.into_parts();
    let body = match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => {
            tracing::debug!(%error, "a request's body could not be read");
            return (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large or was cut off").into_response();
        }
    };
    let received = Instant::now();
    let struck = match PutFaults::may_strike(&state.faults) {
        true => PutFaults::strike(&state.faults, &operation, &parts.headers, &body),
        false => PutFaults::default(),
    };
    if struck.is_any() {
        return put_with_faults(state, struck, received, parts, body, next).await;
    }
    let request = Request::from_parts(parts, Body::from(body));
    if operation.is_empty() {
        return next.run(request).await;
    }
    if passes_alone(&operation) {
        return pass_alone(state, request, received, next).await;
    }
    let guard = state.gate.beside().await;
    let response = next.run(request).await;
    drop(guard);
    if operation == "SubscribeToShard" {
        let gate = state.gate.clone();
        return response.map(|body| {
            Body::from_stream(GatedBody {
                inner: body.into_data_stream(),
                gate,
                entering: None,
            })
        });
    }
    response
}

/// A put, or whatever else changes something.
async fn pass_alone(state: Arc<State>, request: Request, received: Instant, next: Next) -> Response {
    // In a task of its own: a client that goes away must not cut a put between its insert and its announcement.
    let done = tokio::spawn(async move {
        let _guard = state.gate.alone().await;
        let response = next.run(request).await;
        state.note_puts(received).await;
        response
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the embedded kinesis panicked");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// A put with which something goes wrong on purpose.
async fn put_with_faults(
    state: Arc<State>,
    struck: PutFaults,
    received: Instant,
    parts: Parts,
    body: Bytes,
    next: Next,
) -> Response {
    let PutFaults { refusal, partial, lost } = struck;
    if let Some(refusal) = refusal {
        return refusal;
    }
    let forward = match &partial {
        Some(partial) => partial.forward.clone(),
        None => Some(body),
    };
    let mut response = None;
    if let Some(body) = forward {
        let mut request = Request::from_parts(parts, Body::from(body));
        // It may be shorter now.
        request.headers_mut().remove(CONTENT_LENGTH);
        response = Some(pass_alone(state, request, received, next).await);
    }
    let response = match (partial, response) {
        (Some(partial), response) => partial.complete(response).await,
        (None, response) => response.unwrap_or_default(),
    };
    match lost {
        Some(random) => answer::lost(random).await,
        None => response,
    }
}

/// A subscription's body, which reads the emulator whenever it is polled, and so passes the gate for each poll.
struct GatedBody {
    inner: BodyDataStream,
    gate: Gate,
    /// Waiting at the gate.
    entering: Option<BoxFuture<'static, OwnedRwLockReadGuard<()>>>,
}

impl Stream for GatedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let gate = &this.gate;
        let entering = this.entering.get_or_insert_with(|| {
            let gate = gate.clone();
            async move { gate.beside().await }.boxed()
        });
        let Poll::Ready(guard) = entering.poll_unpin(context) else {
            return Poll::Pending;
        };
        this.entering = None;
        // Unconstrained: the runtime must not pause this poll between two awaits, with the gate given back while the
        // emulator holds a map's guard.
        let mut next = tokio::task::unconstrained(this.inner.next());
        let polled = Pin::new(&mut next).poll_unpin(context);
        drop(guard);
        polled
    }
}
