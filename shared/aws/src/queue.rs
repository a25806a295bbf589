//! An SQS queue that event source mappings send their failed batches to, as an operator's command reads it.

use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use usher_pipeline::ports::CallError;

use crate::clients::StoreEndpoints;
use crate::sdk_error;
use crate::signed_http::{SignedCall, SignedHttp};

/// How long a received message is hidden from other readers, in seconds: long enough to redrive thousands of batches.
pub const MESSAGE_HIDDEN_S: u32 = 15 * 60;
/// How long a receive waits for a message, in seconds. Waiting at all makes SQS ask every server of the queue.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html>
const WAIT_S: u32 = 2;
/// Messages of one call; SQS gives no more.
const MESSAGES_MAX: u32 = 10;

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    http: SignedHttp,
    url: String,
    endpoint: String,
    region: Option<String>,
}

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct QueueMessage {
    /// The queue's id of it: the same when it is received again.
    pub message_id: String,
    /// What deletes or releases it; another one each time it is received.
    pub receipt_handle: String,
    /// What was sent.
    pub body: String,
}

/// Why a text is no queue.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/failed-batches")]
pub struct QueueUrlError(pub String);

impl Queue {
    /// The queue with this URL.
    ///
    /// # Errors
    /// It is no URL.
    pub fn new(http: SignedHttp, endpoints: &StoreEndpoints, url: &str) -> Result<Queue, QueueUrlError> {
        let wrong = || QueueUrlError(url.to_owned());
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        let host = parsed
            .host_str()
            .filter(|_| parsed.path().len() > 1)
            .ok_or_else(wrong)?;
        let own = format!("{}/", parsed.origin().ascii_serialization());
        Ok(Queue {
            http,
            url: url.to_owned(),
            endpoint: endpoints.sqs.clone().unwrap_or(own),
            // sqs.REGION.amazonaws.com
            region: host
                .strip_prefix("sqs.")
                .and_then(|rest| rest.split_once('.'))
                .map(|(region, _)| region.to_owned()),
        })
    }

    /// The next messages, hidden from others for [`MESSAGE_HIDDEN_S`]; none when the queue has none to give.
    ///
    /// # Errors
    /// The call failed.
    pub async fn receive(&self) -> Result<Vec<QueueMessage>, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "Messages", default)]
            messages: Vec<QueueMessage>,
        }
        let request = json!({
            "MaxNumberOfMessages": MESSAGES_MAX,
            "VisibilityTimeout": MESSAGE_HIDDEN_S,
            "WaitTimeSeconds": WAIT_S,
        });
        let body = self.call("ReceiveMessage", request).await?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| sdk_error::call_error(true, self.name("ReceiveMessage"), error))?;
        Ok(answer.messages)
    }

    /// Deletes a received message.
    ///
    /// # Errors
    /// The call failed.
    pub async fn delete(&self, message: &QueueMessage) -> Result<(), CallError> {
        let request = json!({ "ReceiptHandle": message.receipt_handle });
        self.call("DeleteMessage", request).await.map(drop)
    }

    /// Lets others receive a message at once.
    ///
    /// # Errors
    /// The call failed.
    pub async fn release(&self, message: &QueueMessage) -> Result<(), CallError> {
        let request = json!({ "ReceiptHandle": message.receipt_handle, "VisibilityTimeout": 0 });
        self.call("ChangeMessageVisibility", request).await.map(drop)
    }

    fn name(&self, operation: &str) -> String {
        format!("sqs:{operation} on {}", self.url)
    }

    async fn call(&self, operation: &str, mut request: Value) -> Result<Vec<u8>, CallError> {
        request["QueueUrl"] = Value::from(self.url.as_str());
        let name = self.name(operation);
        let target = format!("AmazonSQS.{operation}");
        let region = match &self.region {
            Some(region) => region,
            None => self.http.region(&name)?,
        };
        let call = SignedCall {
            name: &name,
            service: "sqs",
            region,
            method: reqwest::Method::POST,
            url: &self.endpoint,
            headers: &[
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amz-target", &target),
            ],
            body: request.to_string().into_bytes(),
        };
        self.http.call(call, error_of).await
    }
}

/// `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"..."}`.
fn error_of(body: &[u8]) -> Option<(String, String)> {
    let error: Value = serde_json::from_slice(body).ok()?;
    let code = error["__type"].as_str()?;
    let code = code.rsplit_once('#').map_or(code, |(_, code)| code);
    let message = error.get("message").or_else(|| error.get("Message"));
    Some((
        code.to_owned(),
        message.and_then(Value::as_str).unwrap_or_default().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::load_stores;
    use crate::test_server::{Reply, TestServer};

    async fn queue_at(server: &TestServer) -> Queue {
        let url = server.url();
        let lookup = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| url.clone());
        let (http, endpoints) = load_stores(&lookup).await.expect("a client");
        Queue::new(
            http,
            &endpoints,
            "https://sqs.eu-west-1.amazonaws.com/123456789012/failed",
        )
        .expect("a URL")
    }

    #[tokio::test]
    async fn messages_are_received_and_deleted_by_their_handles() {
        let server = TestServer::start(|request| match request.headers["x-amz-target"].as_str() {
            "AmazonSQS.ReceiveMessage" => Reply::json(
                200,
                r#"{"Messages":[{"MessageId":"1","ReceiptHandle":"r","Body":"{}","MD5OfBody":"x"}]}"#,
            ),
            _ => Reply::json(200, "{}"),
        })
        .await;
        let queue = queue_at(&server).await;
        let messages = queue.receive().await.expect("it answered");
        assert_eq!(messages[0].body, "{}");
        queue.delete(&messages[0]).await.expect("it answered");
        let asked = server.last_request();
        let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
        assert_eq!(body["ReceiptHandle"], "r");
        assert_eq!(
            body["QueueUrl"],
            "https://sqs.eu-west-1.amazonaws.com/123456789012/failed"
        );
        assert!(asked.headers["authorization"].contains("/eu-west-1/sqs/aws4_request"));
        queue.release(&messages[0]).await.expect("it answered");
    }

    #[tokio::test]
    async fn an_error_is_told_in_the_services_words() {
        let server = TestServer::start(|_| {
            Reply::json(
                400,
                r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}"#,
            )
        })
        .await;
        let error = queue_at(&server).await.receive().await.expect_err("no queue");
        assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
        let source = std::error::Error::source(&error).expect("it has one").to_string();
        assert_eq!(source, "QueueDoesNotExist (HTTP status 400): no such queue");
    }

    #[tokio::test]
    async fn what_is_no_queue_is_refused() {
        let (http, endpoints) = load_stores(&|_| None).await.expect("a client");
        for wrong in [
            "failed-batches",
            "https://sqs.eu-west-1.amazonaws.com",
            "arn:aws:sqs:eu-west-1:1:q",
        ] {
            assert!(Queue::new(http.clone(), &endpoints, wrong).is_err(), "{wrong}");
        }
    }
}
