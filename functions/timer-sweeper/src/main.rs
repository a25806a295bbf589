//! The Lambda function `timer-sweeper`: each minute, the users whose next timer is due are woken through interactions.

use std::process::ExitCode;

use usher_aws::clients::{Caller, Clients};
use usher_aws::config::{TimerSweeperSettings, environment};
use usher_aws::dynamodb::DynamoDueIndex;
use usher_aws::kinesis::KinesisStream;
use usher_aws::runtime::{self, StdoutSink, SystemClock};
use usher_pipeline::ports::BoxError;
use usher_pipeline::timer_sweeper::{TimerSweeper, TimerSweeperConfig, TimerSweeperPorts};

#[tokio::main]
async fn main() -> ExitCode {
    runtime::start_function(start()).await
}

async fn start() -> Result<(), BoxError> {
    let settings = TimerSweeperSettings::read(&environment)?;
    let clients = Clients::load(&environment, Caller::Function).await;
    let ports = TimerSweeperPorts {
        due: DynamoDueIndex::new(clients.dynamodb, settings.profiles_table),
        interactions: KinesisStream::new(clients.kinesis, settings.interactions_stream),
        clock: SystemClock,
        telemetry: StdoutSink,
    };
    let config = TimerSweeperConfig {
        passes: settings.passes,
        pass_interval: settings.pass_interval,
        metrics_namespace: settings.metrics_namespace,
    };
    let timer_sweeper = TimerSweeper::new(ports, config);
    runtime::run(async |invocation| timer_sweeper.run(invocation).await).await
}
