//! What the local cloud itself costs: records through two stages of functions that do next to nothing.
//!
//! `cargo run -p usher-local --example throughput [RECORDS]`, after `cargo build -p usher-local --examples`.

use std::error::Error;
use std::time::Instant;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, Template, TemplateOptions};

const TEMPLATE: &str = "Resources:
  Events: { Type: AWS::Kinesis::Stream, Properties: { Name: events, ShardCount: 4 } }
  First:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: first
      Timeout: 60
      Events:
        Read:
          Type: Kinesis
          Properties: { Stream: !GetAtt Events.Arn, StartingPosition: TRIM_HORIZON, BatchSize: 1000 }
  Second:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: second
      Timeout: 60
      Events:
        Read:
          Type: Kinesis
          Properties: { Stream: !GetAtt Events.Arn, StartingPosition: TRIM_HORIZON, BatchSize: 1000 }
";
const DEFAULT_RECORDS: usize = 62_753;
const WRITERS: usize = 4;
const BATCH: usize = 500;
const RECORD_BYTES: usize = 300;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let records = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => DEFAULT_RECORDS,
    };
    let mut options = LocalCloudOptions::new(Template::parse("throughput", TEMPLATE, &TemplateOptions::default())?);
    let program = std::env::current_exe()?.with_file_name("small_function");
    for function in ["First", "Second"] {
        options
            .functions
            .insert(function.to_owned(), FunctionSource::executable(&program));
    }
    let cloud = LocalCloud::start(options).await?;
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "example"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&cloud.endpoints().kinesis_url)
        .build();
    let client = aws_sdk_kinesis::Client::from_conf(config);

    let started = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            let mine: Vec<usize> = (writer..records).step_by(WRITERS).collect();
            for chunk in mine.chunks(BATCH) {
                let entries = chunk.iter().map(|index| {
                    let data = format!("{index:0>RECORD_BYTES$}");
                    PutRecordsRequestEntry::builder()
                        .partition_key(format!("user {}", index % 383))
                        .data(Blob::new(data))
                        .build()
                });
                let entries = entries
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| error.to_string())?;
                let put = client.put_records().stream_name("events").set_records(Some(entries));
                put.send().await.map_err(|error| format!("{error:?}"))?;
            }
            Ok::<(), String>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let put = started.elapsed();
    cloud.drained().await?;
    println!(
        "{records} records: put in {put:.2?}, drained in {:.2?}",
        started.elapsed()
    );
    for stage in cloud.latencies() {
        let at = |quantile| stage.put_to_done_us.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "{}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms",
            stage.mapping,
            at(0.5),
            at(0.9),
            at(0.99)
        );
    }
    for mapping in cloud.progress().mappings {
        println!(
            "{}: {} invocations, {} completed",
            mapping.name, mapping.invocations, mapping.records_completed
        );
    }
    cloud.shutdown().await;
    Ok(())
}
