//! One run: the whole cloud, a slice of the events, the faults, and what is true in the end.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use usher_aws::clients::Clients;
use usher_aws::kinesis::KinesisStream;
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_local::{
    FaultKind, FaultSpec, Faults, FunctionSource, LocalCloud, LocalCloudOptions, Progress, StreamRecord, Template,
    TemplateOptions,
};

use super::oracle::{self, Differences, Truth};
use super::slice::Plan;
use crate::events_file::EventsFile;
use crate::local::faults::reshard_now_and_then;
use crate::local::resources::Resources;
use crate::local::wake_ups::WakeUps;
use crate::local::{data_clock, sweeps, tell_journey, truth};
use crate::people::counted;
use crate::sender::{self, SendOptions};

/// A run that is not drained after this time is stuck.
const RUN_TIMEOUT: Duration = Duration::from_secs(180);
/// A batch that failed comes again sooner than in AWS, so that a run takes seconds.
const RETRY_BACKOFF_INITIAL: Duration = Duration::from_millis(20);
const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(200);
/// The parameter of the template that says how many batches of a shard run at once.
const FACTOR_PARAMETER: &str = "ParallelizationFactor";

/// What all runs share.
pub struct Setup<'s> {
    /// The template's file.
    pub template_file: &'s Path,
    /// The journey, and its file.
    pub journey: &'s Journey,
    /// Where the functions find it.
    pub journey_file: &'s Path,
    /// The programs, by logical id.
    pub sources: &'s BTreeMap<String, FunctionSource>,
    /// What goes wrong.
    pub faults: &'s FaultSpec,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it differs from what must be.
    pub differences: Differences,
    /// How often each kind struck.
    pub injected: BTreeMap<FaultKind, u64>,
    /// How often it was to, by its rate; nothing where it had no opportunity.
    pub injections_expected: BTreeMap<FaultKind, Option<f64>>,
    /// What must be, and what is.
    pub expected: Truth,
    /// What is.
    pub actual: Truth,
    /// What the mappings did.
    pub invocations_failed: u64,
    /// Records on the interactions stream beyond the events: puts whose answer was lost.
    pub put_again: u64,
    /// From its start to its comparison.
    pub took: Duration,
}

/// Why a run could not be judged.
#[derive(Debug)]
pub enum RunError {
    /// The cloud did not start.
    NotStarted(anyhow::Error),
    /// What came of it can't be read back.
    NotRead(anyhow::Error),
}

impl Setup<'_> {
    /// Runs it. Nothing if it was told to stop.
    ///
    /// # Errors
    /// As [`RunError`] says. A run that is stuck or gave something up has differences.
    pub async fn run(
        &self,
        seed: u64,
        plan: &Plan,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Option<Outcome>, RunError> {
        let started = Instant::now();
        let faults = self.faults.seeded(seed);
        let (template, resources) = self.template(plan).map_err(RunError::NotStarted)?;
        let mut options = LocalCloudOptions::new(template);
        options.functions = self.sources.clone();
        options.clock = data_clock(&resources);
        options.faults = faults.clone();
        options.retry_backoff_initial = RETRY_BACKOFF_INITIAL;
        options.retry_backoff_max = RETRY_BACKOFF_MAX;
        tell_journey(&mut options, self.journey_file);
        sweeps::sweep_once_an_invocation(&mut options);
        let (wake_ups, interactions) = (WakeUps::default(), resources.interactions.clone());
        let seen = wake_ups.clone();
        options.on_put = Some(Arc::new(move |put: &StreamRecord| {
            if *put.stream == *interactions {
                seen.see(&put.data, Timestamp::from_epoch_ms(put.arrival_ms));
            }
        }));
        let cloud = LocalCloud::start(options)
            .await
            .map_err(|error| RunError::NotStarted(error.into()))?;
        let driven = tokio::select! {
            driven = self.drive(&cloud, &resources, &faults, plan) => Some(driven),
            _ = stop.wait_for(|stopped| *stopped) => None,
        };
        faults.end();
        let outcome = match driven {
            None => Ok(None),
            Some(driven) => match self.judge(&cloud, &resources, plan, driven).await {
                Ok(mut outcome) => {
                    outcome.put_again = outcome.put_again.saturating_sub(wake_ups.put());
                    outcome.injected = faults.injected();
                    outcome.injections_expected = faults.expected();
                    outcome.took = started.elapsed();
                    Ok(Some(outcome))
                }
                Err(error) => Err(RunError::NotRead(error)),
            },
        };
        cloud.shutdown().await;
        outcome
    }

    fn template(&self, plan: &Plan) -> Result<(Template, Resources)> {
        let factor = plan.parallelization_factor.to_string();
        let options = TemplateOptions {
            shard_count: Some(plan.shards),
            parameters: BTreeMap::from([(FACTOR_PARAMETER.to_owned(), factor)]),
            ..TemplateOptions::default()
        };
        let mut template = Template::read(self.template_file, &options)?;
        for mapping in &mut template.mappings {
            mapping.batch_size = plan.batch_size;
        }
        let resources = Resources::of(&template)?;
        Ok((template, resources))
    }

    /// Sends the events and waits until everything is drained; what went wrong with that is told.
    async fn drive(
        &self,
        cloud: &LocalCloud,
        resources: &Resources,
        faults: &Faults,
        plan: &Plan,
    ) -> Result<Vec<String>> {
        let file = write_events(&plan.lines)?;
        let events = EventsFile::open(file.path())?;
        let stream = Arc::new(KinesisStream::new(clients(cloud).kinesis, &resources.interactions));
        let options = SendOptions {
            ordered: true,
            ..SendOptions::default()
        };
        let (_go_on, never) = watch::channel(false);
        let work = async {
            let sent = sender::send(events, stream, options, Arc::default(), never, &mut |_| Ok(())).await?;
            cloud.drained().await?;
            let problem = sweeps::until_nobody_is_due(cloud, &clients(cloud), resources).await?;
            anyhow::Ok((sent.acknowledged, problem))
        };
        let worked = tokio::select! {
            worked = tokio::time::timeout(RUN_TIMEOUT, work) => worked,
            error = cloud.failed() => return Err(error.into()),
            Err(error) = reshard_now_and_then(cloud, resources, faults) => return Err(error),
        };
        let count = plan.lines.len() as u64;
        match worked {
            Ok(Ok((acknowledged, problem))) => {
                let unsent =
                    (acknowledged != count).then(|| format!("{acknowledged} of {count} events were acknowledged"));
                Ok(unsent.into_iter().chain(problem).collect())
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(vec![format!(
                "it was not drained after {} seconds",
                RUN_TIMEOUT.as_secs()
            )]),
        }
    }

    async fn judge(
        &self,
        cloud: &LocalCloud,
        resources: &Resources,
        plan: &Plan,
        driven: Result<Vec<String>>,
    ) -> Result<Outcome> {
        let mut problems = match driven {
            Ok(problems) => problems,
            Err(error) => vec![crate::people::error_chain(&error)],
        };
        let progress = cloud.progress();
        problems.extend(given_up(&progress));
        let expected = oracle::expected(self.journey, &plan.lines);
        let actual = self.actual(cloud, resources, &mut problems).await?;
        let mut differences = Differences::between(&expected, &actual);
        differences.told.extend(problems);
        let put = progress
            .streams
            .get(&resources.interactions)
            .map_or(0, |stream| stream.records_put);
        Ok(Outcome {
            differences,
            injected: BTreeMap::new(),
            injections_expected: BTreeMap::new(),
            expected,
            actual,
            invocations_failed: progress.mappings.iter().map(|mapping| mapping.invocations_failed).sum(),
            put_again: put.saturating_sub(plan.lines.len() as u64),
            took: Duration::ZERO,
        })
    }

    /// What is true, read back from the tables and streams.
    async fn actual(&self, cloud: &LocalCloud, resources: &Resources, problems: &mut Vec<String>) -> Result<Truth> {
        let clients = clients(cloud);
        let profiles = truth::read_profiles(&clients, &resources.profiles, self.journey).await?;
        let unreadable = profiles.unreadable.iter();
        problems.extend(unreadable.map(|what| format!("a profile can't be read: {what}")));
        let mut actual = Truth::of_profiles(&profiles.by_user, self.journey);
        actual.triggers = truth::read_trigger_ids(cloud, resources).await?;
        for decision in truth::read_decisions(&clients, &resources.decisions).await? {
            if decision.is_settled {
                *actual.delivered.entry(decision.trigger_id).or_default() += 1;
            } else {
                problems.push(format!("the decision {} is not delivered", decision.trigger_id));
            }
        }
        for (reason, _) in truth::read_rejected_records(cloud, resources).await? {
            *actual.rejected.entry(reason).or_default() += 1;
        }
        Ok(actual)
    }
}

fn clients(cloud: &LocalCloud) -> Clients {
    let endpoints = cloud.endpoints();
    Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url)
}

/// The events as a file that goes away with its handle.
fn write_events(lines: &[Arc<[u8]>]) -> Result<tempfile::NamedTempFile> {
    let write = || -> std::io::Result<tempfile::NamedTempFile> {
        let mut file = tempfile::Builder::new().prefix("usher-soak-").tempfile()?;
        for line in lines {
            file.write_all(line)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        Ok(file)
    };
    write().context("cannot write the events of a run into a temporary file")
}

/// What the mappings gave up, which is a loss however well it was meant.
fn given_up(progress: &Progress) -> Vec<String> {
    let mappings = progress.mappings.iter().filter(|mapping| mapping.records_dropped > 0);
    mappings
        .map(|mapping| {
            let last = mapping.dropped.last().map_or("", |range| range.reason.as_str());
            format!(
                "{} gave up {}; last with: {last}",
                mapping.name,
                counted(mapping.records_dropped as usize, "record")
            )
        })
        .collect()
}

/// Writes what differs to a folder: the events, and what must be beside what is.
///
/// # Errors
/// When it can't be written.
pub fn write_differences(folder: &Path, plan: &Plan, outcome: &Outcome) -> Result<()> {
    let unwritable = || format!("cannot write the differences to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(unwritable)?;
    let lines = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| format!("{text}\n")).collect::<String>();
    let mut events = plan.lines.join(&b'\n');
    events.push(b'\n');
    let differences = lines(&mut outcome.differences.told.iter().map(String::as_str));
    let mut files = vec![
        ("events.jsonl".to_owned(), events),
        ("differences.txt".to_owned(), differences.into_bytes()),
    ];
    for (name, truth) in [("expected", &outcome.expected), ("actual", &outcome.actual)] {
        let profiles = lines(&mut truth.profiles.values().map(String::as_str));
        let triggers = lines(&mut truth.triggers.iter().map(String::as_str));
        files.push((format!("{name}-profiles.jsonl"), profiles.into_bytes()));
        files.push((format!("{name}-triggers.txt"), triggers.into_bytes()));
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).with_context(unwritable)?;
    }
    Ok(())
}
