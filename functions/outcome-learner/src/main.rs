//! The Lambda function `outcome-learner`: outcomes in; what the slots' learners know, out.

use std::process::ExitCode;

use usher_aws::clients::{Caller, Clients};
use usher_aws::config::{OutcomeLearnerSettings, SLOT_CONCURRENCY, environment};
use usher_aws::dynamodb::DynamoModelTable;
use usher_aws::journey_source::journey_source;
use usher_aws::runtime::{self, StdoutSink, SystemClock};
use usher_pipeline::journey_source::JourneyKeeper;
use usher_pipeline::outcome_learner::{OutcomeLearner, OutcomeLearnerConfig, OutcomeLearnerPorts};
use usher_pipeline::ports::BoxError;

#[tokio::main]
async fn main() -> ExitCode {
    runtime::start_function(start()).await
}

async fn start() -> Result<(), BoxError> {
    let settings = OutcomeLearnerSettings::read(&environment)?;
    let source = journey_source(settings.journey.location)?;
    let journeys = JourneyKeeper::new(source, settings.journey.refresh_interval);
    let clients = Clients::load(&environment, Caller::Function).await;
    let ports = OutcomeLearnerPorts {
        models: DynamoModelTable::new(clients.dynamodb, settings.models_table),
        clock: SystemClock,
        telemetry: StdoutSink,
    };
    let config = OutcomeLearnerConfig {
        slot_concurrency: SLOT_CONCURRENCY,
        metrics_namespace: settings.metrics_namespace,
    };
    let outcome_learner = OutcomeLearner::new(journeys, ports, config);
    outcome_learner.start().await?;
    runtime::run(async |invocation| outcome_learner.run(invocation).await).await
}
