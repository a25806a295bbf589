//! The Lambda Runtime API: one port for all functions, a path for each, and below it one for each of their processes.
//!
//! `AWS_LAMBDA_RUNTIME_API=http://127.0.0.1:PORT/FUNCTION` is enough for a function that is started by hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::clock::wall_clock_ms;
use crate::error::LocalError;
use crate::faults::Faults;
use crate::function_queue::{
    Environment, Finished, FunctionQueue, Invocation, InvocationError, TakenInvocation, random_number,
};
use crate::template::Function;

/// Lambda's limit on a request's payload in bytes.
pub const REQUEST_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Lambda's limit on a response in bytes: a little more than on a request, as its own error message says.
pub const RESPONSE_BYTES_MAX: usize = 6 * 1024 * 1024 + 100;
/// A process that is being killed would be told after this time that nobody waits for its answer.
const WITHHELD_MAX: Duration = Duration::from_secs(10);
/// An error report is a message and a stack trace.
const ERROR_BYTES_MAX: usize = 1024 * 1024;

/// The server.
pub(crate) struct RuntimeApi {
    queues: Arc<HashMap<String, Arc<FunctionQueue>>>,
    url: String,
    server: JoinHandle<()>,
}

type Queues = State<Arc<HashMap<String, Arc<FunctionQueue>>>>;

impl RuntimeApi {
    /// Serves these functions.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16, functions: &[Function], faults: &Faults) -> Result<Self, LocalError> {
        let queues: HashMap<_, _> = functions
            .iter()
            .map(|function| {
                (
                    function.name.clone(),
                    Arc::new(FunctionQueue::new(function.clone(), faults.clone())),
                )
            })
            .collect();
        let queues = Arc::new(queues);
        let mut app = Router::new();
        for prefix in ["/{function}", "/{function}/{environment}"] {
            let path = |rest: &str| format!("{prefix}/2018-06-01/runtime/{rest}");
            app = app
                .route(&path("invocation/next"), get(next))
                .route(&path("invocation/{request_id}/response"), post(response))
                .route(&path("invocation/{request_id}/error"), post(error))
                .route(&path("init/error"), post(init_error));
        }
        let app = app.with_state(Arc::clone(&queues));
        let (listener, url) = crate::listen("the Lambda Runtime API", port).await?;
        let server = tokio::spawn(async move {
            use axum::serve::ListenerExt;
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the lambda runtime api ended");
            }
        });
        Ok(Self { queues, url, server })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The queue of the function with this physical name.
    pub fn queue(&self, function_name: &str) -> Option<&Arc<FunctionQueue>> {
        self.queues.get(function_name)
    }

    pub fn queues(&self) -> impl Iterator<Item = &Arc<FunctionQueue>> {
        self.queues.values()
    }

    pub fn close(&self) {
        self.server.abort();
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Deserialize)]
struct CallPath {
    function: String,
    environment: Option<String>,
    request_id: Option<String>,
}

impl CallPath {
    fn queue<'queues>(
        &self,
        queues: &'queues HashMap<String, Arc<FunctionQueue>>,
    ) -> Result<&'queues Arc<FunctionQueue>, Refusal> {
        queues.get(&self.function).ok_or_else(|| {
            let known: Vec<_> = queues.keys().map(String::as_str).collect();
            Refusal {
                status: StatusCode::NOT_FOUND,
                error_type: "UnknownFunction",
                message: format!("there is no function {}; there is: {}", self.function, known.join(", ")),
            }
        })
    }

    fn environment(&self, queue: &FunctionQueue) -> Result<Arc<Environment>, Refusal> {
        match &self.environment {
            None => Ok(Arc::new(Environment::external())),
            Some(id) => queue.environment(id).ok_or_else(Refusal::given_up),
        }
    }
}

/// An answer that tells a function what it did wrong.
struct Refusal {
    status: StatusCode,
    error_type: &'static str,
    message: String,
}

impl Refusal {
    fn given_up() -> Self {
        Self {
            status: StatusCode::GONE,
            error_type: "UnknownEnvironment",
            message: "this process was given up; end it".to_owned(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "errorType": self.error_type, "errorMessage": self.message });
        (self.status, axum::Json(body)).into_response()
    }
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, axum::Json(serde_json::json!({ "status": "OK" }))).into_response()
}

async fn next(State(queues): Queues, Path(path): Path<CallPath>) -> Result<Response, Refusal> {
    let queue = path.queue(&queues)?;
    let environment = path.environment(queue)?;
    loop {
        let Invocation {
            request_id,
            payload,
            affinity,
            taken,
            result,
            ..
        } = queue.next(&environment).await.ok_or_else(Refusal::given_up)?;
        if queue.take(&environment, &request_id, affinity, TakenInvocation { taken, result }) {
            return Ok(invocation_response(&queue.function, &request_id, payload));
        }
    }
}

fn invocation_response(function: &Function, request_id: &str, payload: Bytes) -> Response {
    let deadline_ms = wall_clock_ms().saturating_add(i64::try_from(function.timeout.as_millis()).unwrap_or(i64::MAX));
    let trace_id = format!(
        "Root=1-{:08x}-{:024x};Sampled=0",
        wall_clock_ms() / 1_000,
        u128::from(random_number())
    );
    let mut response = Response::new(Body::from(payload));
    let headers = response.headers_mut();
    set(headers, "content-type", "application/json");
    set(headers, "lambda-runtime-aws-request-id", request_id);
    set(headers, "lambda-runtime-deadline-ms", &deadline_ms.to_string());
    set(headers, "lambda-runtime-invoked-function-arn", &function.arn);
    set(headers, "lambda-runtime-trace-id", &trace_id);
    response
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(error) => tracing::warn!(%error, name, "a runtime api header cannot be sent"),
    }
}

async fn response(State(queues): Queues, Path(path): Path<CallPath>, request: Request) -> Result<Response, Refusal> {
    let queue = path.queue(&queues)?;
    let request_id = path.request_id.unwrap_or_default();
    match axum::body::to_bytes(request.into_body(), RESPONSE_BYTES_MAX).await {
        Ok(body) => acknowledge(queue.finish(&request_id, Ok(body))).await,
        Err(_) => {
            queue.finish(&request_id, Err(InvocationError::ResponseTooLarge));
            Err(Refusal {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                error_type: "RequestEntityTooLarge",
                message: format!("exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes)"),
            })
        }
    }
}

async fn acknowledge(finished: Finished) -> Result<Response, Refusal> {
    match finished {
        Finished::Taken => return Ok(accepted()),
        // The connection ends with the process, and this wait with it.
        Finished::Withheld => tokio::time::sleep(WITHHELD_MAX).await,
        Finished::Unknown => {}
    }
    Err(Refusal {
        status: StatusCode::BAD_REQUEST,
        error_type: "InvalidRequestID",
        message: "no invocation with this request id is in flight".to_owned(),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ErrorReport {
    error_message: String,
    error_type: String,
}

async fn read_error(request: Request) -> ErrorReport {
    let body = axum::body::to_bytes(request.into_body(), ERROR_BYTES_MAX)
        .await
        .unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_else(|_| ErrorReport {
        error_message: String::from_utf8_lossy(&body).into_owned(),
        error_type: "Unknown".to_owned(),
    })
}

async fn error(State(queues): Queues, Path(path): Path<CallPath>, request: Request) -> Result<Response, Refusal> {
    let report = read_error(request).await;
    let queue = path.queue(&queues)?;
    let failure = InvocationError::Function {
        error_type: report.error_type,
        message: report.error_message,
    };
    acknowledge(queue.finish(&path.request_id.unwrap_or_default(), Err(failure))).await
}

async fn init_error(State(queues): Queues, Path(path): Path<CallPath>, request: Request) -> Result<Response, Refusal> {
    let report = read_error(request).await;
    let environment = path.queue(&queues).and_then(|queue| path.environment(queue))?;
    tracing::warn!(
        function = path.function,
        error = report.error_message,
        "a function failed to start"
    );
    environment.note_init_error(format!("{}: {}", report.error_type, report.error_message));
    Ok(accepted())
}
