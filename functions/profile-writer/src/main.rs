//! The Lambda function `profile-writer`: interactions in; profiles, triggers and rejected records out.

use std::process::ExitCode;

use usher_aws::clients::{Caller, Clients};
use usher_aws::config::{ProfileWriterSettings, environment};
use usher_aws::dynamodb::{DynamoModelTable, DynamoProfileTable, DynamoTrendTable};
use usher_aws::journey_source::journey_source;
use usher_aws::kinesis::KinesisStream;
use usher_aws::runtime::{self, StdoutSink, SystemClock};
use usher_pipeline::following_writer::FollowingProfileWriter;
use usher_pipeline::journey_source::JourneyKeeper;
use usher_pipeline::ports::BoxError;
use usher_pipeline::profile_writer::{ProfileWriterConfig, ProfileWriterPorts};
use usher_pipeline::snapshots::SnapshotSource;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::start_function(start()).await
}

async fn start() -> Result<(), BoxError> {
    let settings = ProfileWriterSettings::read(&environment)?;
    let source = journey_source(settings.journey.location)?;
    let journeys = JourneyKeeper::new(source, settings.journey.refresh_interval);
    let clients = Clients::load(&environment, Caller::Function).await;
    let ports = ProfileWriterPorts {
        profiles: DynamoProfileTable::new(clients.dynamodb.clone(), settings.profiles_table),
        triggers: KinesisStream::new(clients.kinesis.clone(), settings.triggers_stream),
        rejected: KinesisStream::new(clients.kinesis, settings.rejected_stream),
        clock: SystemClock,
        telemetry: StdoutSink,
    };
    let config = ProfileWriterConfig {
        write_concurrency: settings.write_concurrency,
        parallelization_factor: settings.parallelization_factor,
        metrics_namespace: settings.metrics_namespace,
    };
    let mut profile_writer = FollowingProfileWriter::new(journeys, ports, config);
    if let Some(tables) = settings.snapshots {
        let models = DynamoModelTable::new(clients.dynamodb.clone(), tables.models_table);
        let trends = DynamoTrendTable::new(clients.dynamodb, tables.trends_table);
        profile_writer = profile_writer.with_snapshots(SnapshotSource::new(models, trends, tables.refresh_interval));
    }
    profile_writer.start().await?;
    runtime::run(async |invocation| profile_writer.run(invocation).await).await
}
