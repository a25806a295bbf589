//! Where decisions go: an HTTP receiver, by webhooks as the [Standard Webhooks](https://www.standardwebhooks.com)
//! specification describes them, or only the log.
//!
//! A webhook is a POST with three headers and a JSON body:
//! - `webhook-id`: the trigger's id. It stays the same when the decision comes again, so the receiver can act once.
//! - `webhook-timestamp`: when it was sent, in seconds since 1970; receivers refuse old ones.
//! - `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
//! - The body is `{"type":"decision.made","timestamp":"...","data":{...}}`: the kind of event, when it was decided
//!   (RFC 3339), and the trigger as it is on the triggers stream.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook, WebhookError};
use url::Url;
use usher_pipeline::ports::{CallError, DecisionItem, Delivery, DeliveryAnswer, WallClock};

use crate::config::{WebhookSettings, receiver_name};

/// The `type` of the body.
pub const EVENT_TYPE: &str = "decision.made";

/// How long connecting to the receiver may take; it counts towards the timeout of the whole request.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// HTTP statuses below 500 after which another try may help: request timeout, conflict, too early, too many requests.
const TRANSIENT_STATUSES: [u16; 4] = [408, 409, 425, 429];
/// The first HTTP status that says that the receiver is at fault, which passes.
const SERVER_ERROR_STATUS_MIN: u16 = 500;
/// Bytes of an answer that are read so that its connection can be used again. A longer answer costs the connection.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long reading the answer's body may take, for the same reason.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);
const MILLISECONDS_PER_SECOND: i64 = 1_000;

/// Where decisions go, as it is configured.
#[derive(Debug)]
pub enum ConfiguredDelivery<C> {
    /// To an HTTP receiver.
    Webhook(WebhookDelivery<C>),
    /// Nowhere else: they are in the decisions table and in the log.
    Log(LogDelivery),
}

impl<C: WallClock> ConfiguredDelivery<C> {
    /// A webhook if there are settings for one, else the log.
    ///
    /// # Errors
    /// The HTTP client can't be made.
    pub fn new(webhook: Option<&WebhookSettings>, clock: C) -> Result<ConfiguredDelivery<C>, WebhookSetupError> {
        match webhook {
            Some(settings) => WebhookDelivery::new(settings, clock).map(ConfiguredDelivery::Webhook),
            None => Ok(ConfiguredDelivery::Log(LogDelivery)),
        }
    }
}

impl<C: WallClock> Delivery for ConfiguredDelivery<C> {
    fn needs_receipt(&self) -> bool {
        match self {
            ConfiguredDelivery::Webhook(webhook) => webhook.needs_receipt(),
            ConfiguredDelivery::Log(log) => log.needs_receipt(),
        }
    }

    async fn deliver(&self, decision: &DecisionItem) -> Result<DeliveryAnswer, CallError> {
        match self {
            ConfiguredDelivery::Webhook(webhook) => webhook.deliver(decision).await,
            ConfiguredDelivery::Log(log) => log.deliver(decision).await,
        }
    }
}

/// Writes one log line a decision, without user data; the decisions table has the rest.
#[derive(Clone, Copy, Debug)]
pub struct LogDelivery;

impl Delivery for LogDelivery {
    fn needs_receipt(&self) -> bool {
        false
    }

    async fn deliver(&self, decision: &DecisionItem) -> Result<DeliveryAnswer, CallError> {
        tracing::info!(
            trigger_id = decision.trigger_id,
            rule = decision.rule,
            slot = decision.slot,
            offer = decision.offer,
            decided_at = %decision.decided_at,
            "decision made"
        );
        Ok(DeliveryAnswer::Accepted)
    }
}

/// Why webhooks can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSetupError {
    /// The signer does not take the secret.
    #[error("set USHER_WEBHOOK_SECRET to `whsec_` and 24 to 64 bytes in base64")]
    Secret(#[source] WebhookError),
    /// The HTTP client can't be made, for example because there are no root certificates.
    #[error("the HTTP client for webhooks can't be made")]
    Client(#[source] reqwest::Error),
}

/// Sends decisions to an HTTP receiver, signed.
pub struct WebhookDelivery<C> {
    client: reqwest::Client,
    url: Url,
    receiver: String,
    signer: Webhook,
    clock: C,
}

impl<C> std::fmt::Debug for WebhookDelivery<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WebhookDelivery")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}

/// An answer that is worth another try.
#[derive(Debug, thiserror::Error)]
#[error("the receiver answered with HTTP status {status}")]
struct TransientStatus {
    status: u16,
}

impl<C: WallClock> WebhookDelivery<C> {
    /// Makes the client, which keeps its connections from one invocation to the next.
    ///
    /// # Errors
    /// The secret or the machine's certificates can't be used.
    pub fn new(settings: &WebhookSettings, clock: C) -> Result<WebhookDelivery<C>, WebhookSetupError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("usher/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
            .timeout(settings.timeout)
            // A signed body goes to the receiver that was configured, and nowhere else.
            .redirect(Policy::none())
            // Retrying is the flow's work.
            .retry(reqwest::retry::never());
        let builder = if settings.url.scheme() == "http" {
            // Without TLS no root certificates need to be loaded, which takes most of the time of making a client.
            builder.tls_certs_only([])
        } else {
            builder.https_only(true)
        };
        Ok(WebhookDelivery {
            client: builder.build().map_err(WebhookSetupError::Client)?,
            url: settings.url.clone(),
            receiver: receiver_name(&settings.url),
            signer: Webhook::new(settings.secret.expose()).map_err(WebhookSetupError::Secret)?,
            clock,
        })
    }

    fn call_error(&self, is_transient: bool, source: impl Error + Send + Sync + 'static) -> CallError {
        crate::sdk_error::call_error(is_transient, format!("webhook to {}", self.receiver), source)
    }
}

impl<C: WallClock> Delivery for WebhookDelivery<C> {
    fn needs_receipt(&self) -> bool {
        true
    }

    async fn deliver(&self, decision: &DecisionItem) -> Result<DeliveryAnswer, CallError> {
        let body = body_of(decision);
        let sent_at_epoch_s = self.clock.now().epoch_ms().div_euclid(MILLISECONDS_PER_SECOND);
        let signature = self
            .signer
            .sign(&decision.trigger_id, sent_at_epoch_s, body.as_bytes())
            .map_err(|error| self.call_error(false, error))?;
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(HeaderName::from_static(HEADER_WEBHOOK_ID), &decision.trigger_id)
            .header(HeaderName::from_static(HEADER_WEBHOOK_TIMESTAMP), sent_at_epoch_s)
            .header(HeaderName::from_static(HEADER_WEBHOOK_SIGNATURE), signature)
            .body(body);
        // The URL may hold a token, and errors are logged.
        let sent = request.send().await.map_err(reqwest::Error::without_url);
        let response = sent.map_err(|error| self.call_error(!error.is_builder(), error))?;
        let status = response.status().as_u16();
        let answer = answer_of(status).map_err(|error| self.call_error(true, error));
        read_to_the_end(response).await;
        answer
    }
}

/// What the receiver's status says.
fn answer_of(status: u16) -> Result<DeliveryAnswer, TransientStatus> {
    match status {
        200..=299 => Ok(DeliveryAnswer::Accepted),
        _ if TRANSIENT_STATUSES.contains(&status) || status >= SERVER_ERROR_STATUS_MIN => {
            Err(TransientStatus { status })
        }
        // A redirect too: somebody has to look at where decisions shall go.
        _ => Ok(DeliveryAnswer::RefusedForGood { status }),
    }
}

/// The body: the trigger, which is JSON already, in the envelope of the specification.
fn body_of(decision: &DecisionItem) -> String {
    // Neither the type nor the time holds anything that JSON would escape.
    format!(
        r#"{{"type":"{EVENT_TYPE}","timestamp":"{}","data":{}}}"#,
        decision.decided_at, decision.trigger
    )
}

/// Reads what is left of an answer, so that its connection can be used again. The status has said everything, so
/// whatever happens here changes nothing.
async fn read_to_the_end(mut response: reqwest::Response) {
    let mut read_bytes = 0;
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            read_bytes += chunk.len();
            if read_bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use reqwest::header::HeaderMap;
    use usher_domain::time::Timestamp;

    use super::*;
    use crate::config::WebhookSecret;
    use crate::runtime::SystemClock;
    use crate::test_server::{Reply, Request, TestServer};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const TRIGGER: &str = r#"{"trigger_id":"00112233445566778899aabbccddeeff","user_id":"Zoë","reason":{"saw":[]}}"#;

    fn decision() -> DecisionItem {
        DecisionItem {
            user_id: "Zoë".to_owned(),
            trigger_id: "00112233445566778899aabbccddeeff".to_owned(),
            rule: "welcome".to_owned(),
            slot: "in_app".to_owned(),
            offer: "tour".to_owned(),
            decided_at: Timestamp::from_epoch_ms(1_767_607_200_000),
            trigger: TRIGGER.to_owned(),
            expires_at_epoch_s: 1_775_383_200,
        }
    }

    fn delivery_to(url: &str, timeout_ms: u64) -> ConfiguredDelivery<SystemClock> {
        let settings = WebhookSettings {
            url: url.parse().expect("a URL"),
            secret: WebhookSecret::parse(SECRET).expect("a secret"),
            timeout: Duration::from_millis(timeout_ms),
        };
        ConfiguredDelivery::new(Some(&settings), SystemClock).expect("a client")
    }

    fn verify(secret: &str, request: &Request) -> Result<(), WebhookError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            headers.insert(
                HeaderName::try_from(name).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        Webhook::new(secret).expect("a secret").verify(&request.body, &headers)
    }

    #[tokio::test]
    async fn the_receiver_can_verify_the_signature_and_read_the_trigger() {
        let server = TestServer::start(|_| Reply::json(204, "")).await;
        let delivery = delivery_to(&format!("{}/hook?token=1", server.url()), 3_000);
        assert!(delivery.needs_receipt());
        let answer = delivery.deliver(&decision()).await.expect("it answered");
        assert_eq!(answer, DeliveryAnswer::Accepted);

        let request = server.last_request();
        verify(SECRET, &request).expect("it was signed with this secret");
        verify("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &request).expect_err("it was signed with another one");
        assert_eq!(request.line, "POST /hook?token=1 HTTP/1.1");
        assert_eq!(request.headers["webhook-id"], decision().trigger_id);
        assert_eq!(request.headers["content-type"], "application/json");
        let body = String::from_utf8(request.body).expect("JSON");
        assert_eq!(
            body,
            format!(r#"{{"type":"decision.made","timestamp":"2026-01-05T10:00:00.000Z","data":{TRIGGER}}}"#)
        );
    }

    #[tokio::test]
    async fn the_status_decides_what_happens_next() {
        for (status, expected) in [
            (200, Some(DeliveryAnswer::Accepted)),
            (202, Some(DeliveryAnswer::Accepted)),
            (299, Some(DeliveryAnswer::Accepted)),
            (301, Some(DeliveryAnswer::RefusedForGood { status: 301 })),
            (307, Some(DeliveryAnswer::RefusedForGood { status: 307 })),
            (400, Some(DeliveryAnswer::RefusedForGood { status: 400 })),
            (401, Some(DeliveryAnswer::RefusedForGood { status: 401 })),
            (404, Some(DeliveryAnswer::RefusedForGood { status: 404 })),
            (410, Some(DeliveryAnswer::RefusedForGood { status: 410 })),
            (408, None),
            (409, None),
            (425, None),
            (429, None),
            (500, None),
            (503, None),
        ] {
            let server = TestServer::start(move |_| {
                let mut reply = Reply::json(status, "something");
                reply.headers.push(("location", "/elsewhere".to_owned()));
                reply
            })
            .await;
            match (delivery_to(&server.url(), 3_000).deliver(&decision()).await, expected) {
                (Ok(answer), Some(expected)) => assert_eq!(answer, expected, "{status}"),
                (Err(CallError::Retry { source, .. }), None) => {
                    assert_eq!(
                        source.to_string(),
                        format!("the receiver answered with HTTP status {status}")
                    );
                }
                (other, _) => panic!("{status}: {other:?}"),
            }
            assert_eq!(server.requests(), 1, "{status}: no retry and no redirect followed");
        }
    }

    #[tokio::test]
    async fn a_slow_or_absent_receiver_is_tried_again_later_and_its_url_stays_secret() {
        let server = TestServer::start(|_| Reply {
            delay: Duration::from_secs(60),
            ..Reply::json(200, "")
        })
        .await;
        let started = Instant::now();
        let absent = "http://127.0.0.1:1".to_owned();
        for url in [server.url(), absent] {
            let error = delivery_to(&format!("{url}/t0ken"), 150)
                .deliver(&decision())
                .await
                .expect_err("no answer");
            let CallError::Retry { call, source } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(*call, format!("webhook to {url}"));
            let shown = format!("{error} {source} {source:?}");
            assert!(!shown.contains("t0ken") && !shown.contains("Zoë"), "{shown}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn connections_are_used_again() {
        let server = TestServer::start(|_| Reply::json(200, "x".repeat(ANSWER_BYTES_MAX / 2))).await;
        let delivery = delivery_to(&server.url(), 3_000);
        for _ in 0..3 {
            delivery.deliver(&decision()).await.expect("it answered");
        }
        assert_eq!(server.requests(), 3);
        assert_eq!(server.connections(), 1);
    }

    #[tokio::test]
    async fn without_a_webhook_decisions_are_logged_and_need_no_receipt() {
        let delivery = ConfiguredDelivery::new(None, SystemClock).expect("nothing to make");
        assert!(!delivery.needs_receipt());
        assert_eq!(
            delivery.deliver(&decision()).await.expect("it is logged"),
            DeliveryAnswer::Accepted
        );
    }

    #[test]
    fn debug_output_shows_the_receiver_only() {
        let shown = format!("{:?}", delivery_to("https://hooks.example.com/t0ken", 100));
        assert_eq!(
            shown,
            r#"Webhook(WebhookDelivery { receiver: "https://hooks.example.com", .. })"#
        );
    }
}
