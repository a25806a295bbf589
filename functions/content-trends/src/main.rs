//! The Lambda function `content-trends`: interactions in; how often contents and categories were met with, by the minute, out.

use std::process::ExitCode;

use usher_aws::clients::{Caller, Clients};
use usher_aws::config::{ContentTrendsSettings, TILE_CONCURRENCY, environment};
use usher_aws::dynamodb::DynamoTrendTable;
use usher_aws::journey_source::journey_source;
use usher_aws::runtime::{self, StdoutSink, SystemClock};
use usher_pipeline::content_trends::{ContentTrends, ContentTrendsConfig, ContentTrendsPorts};
use usher_pipeline::journey_source::JourneyKeeper;
use usher_pipeline::ports::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::start_function(start()).await
}

async fn start() -> Result<(), BoxError> {
    let settings = ContentTrendsSettings::read(&environment)?;
    let source = journey_source(settings.journey.location)?;
    let journeys = JourneyKeeper::new(source, settings.journey.refresh_interval);
    let clients = Clients::load(&environment, Caller::Function).await;
    let ports = ContentTrendsPorts {
        trends: DynamoTrendTable::new(clients.dynamodb, settings.trends_table),
        clock: SystemClock,
        telemetry: StdoutSink,
    };
    let config = ContentTrendsConfig {
        write_concurrency: TILE_CONCURRENCY,
        metrics_namespace: settings.metrics_namespace,
    };
    let content_trends = ContentTrends::new(journeys, ports, config);
    content_trends.start().await?;
    runtime::run(async |invocation| content_trends.run(invocation).await).await
}
