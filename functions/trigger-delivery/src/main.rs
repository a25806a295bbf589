//! The Lambda function `trigger-delivery`: triggers in; decisions recorded and delivered, once by their id.

use std::process::ExitCode;

use usher_aws::clients::{Caller, Clients};
use usher_aws::config::{DELIVERY_CONCURRENCY, TriggerDeliverySettings, environment};
use usher_aws::dynamodb::DynamoDecisionTable;
use usher_aws::runtime::{self, StdoutSink, SystemClock};
use usher_aws::webhook::ConfiguredDelivery;
use usher_pipeline::ports::BoxError;
use usher_pipeline::trigger_delivery::{TriggerDelivery, TriggerDeliveryConfig, TriggerDeliveryPorts};

#[tokio::main]
async fn main() -> ExitCode {
    runtime::start_function(start()).await
}

async fn start() -> Result<(), BoxError> {
    let settings = TriggerDeliverySettings::read(&environment)?;
    let clients = Clients::load(&environment, Caller::Function).await;
    let ports = TriggerDeliveryPorts {
        decisions: DynamoDecisionTable::new(clients.dynamodb, settings.decisions_table),
        delivery: ConfiguredDelivery::new(settings.webhook.as_ref(), SystemClock)?,
        clock: SystemClock,
        telemetry: StdoutSink,
    };
    let config = TriggerDeliveryConfig {
        delivery_concurrency: DELIVERY_CONCURRENCY,
        decision_ttl_days: settings.decision_ttl_days,
        metrics_namespace: settings.metrics_namespace,
    };
    let trigger_delivery = TriggerDelivery::new(ports, config);
    runtime::run(async |invocation| trigger_delivery.run(invocation).await).await
}
