//! The whole cloud, with functions that speak the Runtime API from a task, and with real processes.

mod delivering;
mod fault_fronts;
mod fault_processes;
mod giving_up;
mod mappings;
mod processes;
mod resharding;
mod schedules;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{FunctionSource, LocalCloud, LocalCloudOptions, Template, TemplateOptions};

/// Long enough for a loaded machine, short enough to notice a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the embedded Kinesis.
pub(crate) fn kinesis_client(url: &str) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url)
        .build();
    aws_sdk_kinesis::Client::from_conf(config)
}

/// Puts one record for each (partition key, data), in one call.
async fn put(cloud: &LocalCloud, stream: &str, records: &[(String, Vec<u8>)]) {
    let client = kinesis_client(&cloud.endpoints().kinesis_url);
    for chunk in records.chunks(500) {
        let entries = chunk.iter().map(|(key, data)| {
            PutRecordsRequestEntry::builder()
                .partition_key(key)
                .data(Blob::new(data.clone()))
                .build()
                .unwrap()
        });
        let answer = client
            .put_records()
            .stream_name(stream)
            .set_records(Some(entries.collect()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.failed_record_count(), Some(0));
    }
}

/// Numbered records of one partition key, so of one shard.
fn numbered(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|index| ("key".to_owned(), index.to_string().into_bytes()))
        .collect()
}

/// A template of one stream with one shard and one function `F` named `f`; `mapping` are further event properties.
fn template(mapping: &str) -> Template {
    let text = format!(
        "Resources:
  Events: {{ Type: AWS::Kinesis::Stream, Properties: {{ Name: events, ShardCount: 1 }} }}
  F:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: f
      CodeUri: f
      Timeout: 2
      Environment: {{ Variables: {{ FROM_TEMPLATE: template }} }}
      Events:
        Read:
          Type: Kinesis
          Properties: {{ Stream: !GetAtt Events.Arn, StartingPosition: TRIM_HORIZON, {mapping} }}
"
    );
    Template::parse("test.yaml", &text, &TemplateOptions::default()).unwrap()
}

fn external(template: Template) -> LocalCloudOptions {
    let mut options = LocalCloudOptions::new(template);
    for function in options.template.functions.clone() {
        options.functions.insert(function.logical_id, FunctionSource::External);
    }
    options.retry_backoff_initial = Duration::from_millis(1);
    options.retry_backoff_max = Duration::from_millis(5);
    options
}

/// What a fake function does with an event.
enum Answer {
    Respond(String),
    Error(&'static str),
    /// Never answers.
    Silence,
}

impl Answer {
    fn success() -> Self {
        Self::Respond(r#"{"batchItemFailures":[]}"#.to_owned())
    }

    fn failed_at(sequence_number: &str) -> Self {
        Self::Respond(format!(
            r#"{{"batchItemFailures":[{{"itemIdentifier":"{sequence_number}"}}]}}"#
        ))
    }
}

/// Speaks the Runtime API from a task, as a function that was started by hand does.
fn fake_function(
    cloud: &LocalCloud,
    function_name: &str,
    handler: impl Fn(&Value) -> Answer + Send + Sync + 'static,
) -> JoinHandle<()> {
    let base = format!("{}/2018-06-01/runtime", cloud.endpoints().runtime_api_of(function_name));
    let handler = Arc::new(handler);
    tokio::spawn(async move {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        while let Ok(next) = http.get(format!("{base}/invocation/next")).send().await {
            let request_id = next.headers()["lambda-runtime-aws-request-id"]
                .to_str()
                .unwrap()
                .to_owned();
            assert!(next.headers().contains_key("lambda-runtime-deadline-ms"));
            let Ok(body) = next.bytes().await else { return };
            let event: Value = serde_json::from_slice(&body).unwrap();
            let (path, body) = match handler(&event) {
                Answer::Respond(body) => ("response", body),
                Answer::Error(message) => ("error", format!(r#"{{"errorType":"Oops","errorMessage":"{message}"}}"#)),
                Answer::Silence => continue,
            };
            let _ = http
                .post(format!("{base}/invocation/{request_id}/{path}"))
                .body(body)
                .send()
                .await;
        }
    })
}

/// Works for a while within a handler, on a runtime of several threads.
fn work_for(time: Duration) {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| runtime.block_on(tokio::time::sleep(time)));
}

/// The data of an event's records, decoded.
fn data_of(event: &Value) -> Vec<String> {
    let records = event["Records"].as_array().unwrap();
    let decode = |record: &Value| {
        let data = record["kinesis"]["data"].as_str().unwrap();
        String::from_utf8(base64_simd::STANDARD.decode_to_vec(data).unwrap()).unwrap()
    };
    records.iter().map(decode).collect()
}

fn sequence_of(event: &Value, index: usize) -> String {
    event["Records"][index]["kinesis"]["sequenceNumber"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn drained(cloud: &LocalCloud) -> Result<(), crate::LocalError> {
    tokio::time::timeout(PATIENCE, cloud.drained())
        .await
        .expect("drained in time")
}
