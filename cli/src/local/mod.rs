//! `usher local`: everything on one machine, and a verdict on what came of it.

pub mod faults;
pub mod functions;
pub mod report;
pub mod resources;
mod summary;
pub mod sweeps;
mod tally;
pub mod truth;
pub mod wake_ups;
mod webhook;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use usher_aws::clients::Clients;
use usher_aws::kinesis::KinesisStream;
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_local::{Clock, LocalCloud, LocalCloudOptions, StreamRecord, Template, TemplateOptions};

use crate::Verdict;
use crate::args::{ClockChoice, LocalOptions};
use crate::arrival_clock::{data_arrival, wall_clock};
use crate::events_file::EventsFile;
use crate::people::{error_chain, grouped, say};
use crate::progress::Progress;
use crate::record::RecordWriter;
use crate::sender::data_time::DataTime;
use crate::sender::{self, SendOptions};
use crate::triggers_file::TriggersFile;
use crate::{environment, journey_file, profiles_file, project};
use faults::PlannedFaults;
use functions::Programs;
use report::{Findings, ItemBytes, JourneyName, Percentiles, Report, milliseconds};
use resources::Resources;
use tally::{Tally, WriterTotals};
use wake_ups::WakeUps;
use webhook::Signing;

/// The variable that tells a function where its journey is.
const JOURNEY_VARIABLE: &str = "USHER_JOURNEY_PATH";
/// Time between two looks at the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// The functions' last lines of telemetry are waited for so long: they come through a pipe.
const LAST_TELEMETRY_TIMEOUT: Duration = Duration::from_secs(2);
const LAST_TELEMETRY_POLL: Duration = Duration::from_millis(10);
/// When it is stopped while serving, it looks so long whether everything is drained.
const DRAINED_AT_STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// When something can't be read, built, started or written.
pub async fn run(options: LocalOptions) -> Result<Verdict> {
    let stop = environment::stop_signal()?;
    let template_file = project::find_template(options.template.as_deref())?;
    let journey_file = project::find_journey(options.journey.as_deref(), &template_file)?;
    let journey = journey_file::load(&journey_file)?;
    let template_options = TemplateOptions {
        parameters: options.parameters.iter().cloned().collect(),
        shard_count: options.shards,
        ..TemplateOptions::default()
    };
    let template = Template::read(&template_file, &template_options)?;
    let resources = Resources::of(&template)?;
    let events = options.events.as_deref().map(EventsFile::open).transpose()?;
    let planned = options
        .faults
        .clone()
        .map(|spec| PlannedFaults::new(spec, options.seed));

    let programs = match options.bin_dir.as_deref() {
        Some(folder) => Programs::Folder(folder),
        None => Programs::Build {
            release: options.release,
        },
    };
    let mut interrupted = stop.clone();
    let sources = tokio::select! {
        sources = functions::sources(&template, &template_file, programs) => sources?,
        _ = interrupted.wait_for(|stopped| *stopped) => anyhow::bail!("interrupted before the functions were built"),
    };

    let progress = match &events {
        Some(events) => Progress::of_file(events.size(), events.bytes_read()),
        None => Progress::spinner("starting"),
    };
    let tally = Tally::default();
    let signing = Signing::of(&template, environment::variable(webhook::SECRET_VARIABLE));
    let mut cloud_options = cloud_options(&options, template, &resources, &journey_file, &signing);
    cloud_options.functions = sources;
    let record = options.record.as_deref().map(RecordWriter::create).transpose()?;
    let wake_ups = WakeUps::default();
    let (recorded, seen, interactions) = (record.clone(), wake_ups.clone(), resources.interactions.clone());
    cloud_options.on_put = Some(Arc::new(move |put: &StreamRecord| {
        if *put.stream == *interactions {
            seen.see(&put.data, Timestamp::from_epoch_ms(put.arrival_ms));
            if let Some(record) = &recorded {
                record.write(put);
            }
        }
    }));
    if let Some(planned) = &planned {
        cloud_options.faults = planned.faults.clone();
        progress.note(&planned.notice());
    }
    let notes = progress.clone();
    cloud_options.on_log = Some(tally.observer(move |text| notes.note(text)));
    for notice in &cloud_options.template.notices {
        progress.note(&format!("note: {}, {notice}", template_file.display()));
    }
    let cloud = LocalCloud::start(cloud_options).await?;
    let exports = summary::exports(cloud.endpoints(), &cloud.template().region) + &signing.exports();
    progress.aside(|| say(&exports))?;

    let run = Run {
        options: &options,
        journey: &journey,
        resources: &resources,
        cloud: &cloud,
        tally: &tally,
        wake_ups: &wake_ups,
        planned: planned.as_ref(),
    };
    let started = Instant::now();
    let ended = run.drive(events, &progress, stop).await;
    let seconds = started.elapsed().as_secs_f64();
    let finished = run.finish(ended, seconds, &progress).await;
    progress.clear();
    cloud.shutdown().await;
    let verdict = finished?;
    if let Some(record) = &record {
        record.finish()?;
    }
    Ok(verdict)
}

/// Tells the functions that read a journey where it is on this machine.
pub fn tell_journey(cloud: &mut LocalCloudOptions, journey_file: &Path) {
    for function in &cloud.template.functions {
        if function.environment.contains_key(JOURNEY_VARIABLE) {
            let path = journey_file.display().to_string();
            let environment = cloud
                .function_environment
                .entry(function.logical_id.clone())
                .or_default();
            environment.insert(JOURNEY_VARIABLE.to_owned(), path);
        }
    }
}

/// The clock that stamps events with their own time.
pub fn data_clock(resources: &Resources) -> Clock {
    Clock::data([resources.interactions.clone()], |record: &[u8]| {
        data_arrival(record).map(|arrival| arrival.epoch_ms())
    })
}

fn cloud_options(
    options: &LocalOptions,
    template: Template,
    resources: &Resources,
    journey_file: &Path,
    signing: &Signing,
) -> LocalCloudOptions {
    let mut cloud = LocalCloudOptions::new(template);
    tell_journey(&mut cloud, journey_file);
    for (function, secret) in &signing.by_function {
        let environment = cloud.function_environment.entry(function.clone()).or_default();
        environment.insert(webhook::SECRET_VARIABLE.to_owned(), secret.clone());
    }
    cloud.clock = match options.clock {
        ClockChoice::Wall => Clock::Wall,
        ClockChoice::Data => data_clock(resources),
    };
    if options.clock == ClockChoice::Data {
        sweeps::sweep_once_an_invocation(&mut cloud);
    }
    // History would expire as it is written.
    cloud.sweep_ttl = options.clock == ClockChoice::Wall;
    cloud.fanout_latency = Duration::from_millis(options.fanout_latency);
    cloud.kinesis_port = options.kinesis_port;
    cloud.dynamodb_port = options.dynamodb_port;
    cloud.failed_batches.clone_from(&options.failed_batches);
    cloud
}

/// How the running part ended.
#[derive(Debug, Default)]
struct Ended {
    drained: bool,
    /// Told to stop before the work that was asked for was done.
    interrupted: bool,
    acknowledged: Option<u64>,
    problems: Vec<String>,
}

/// What runs.
struct Run<'r> {
    options: &'r LocalOptions,
    journey: &'r Journey,
    resources: &'r Resources,
    cloud: &'r LocalCloud,
    tally: &'r Tally,
    wake_ups: &'r WakeUps,
    /// What goes wrong on purpose.
    planned: Option<&'r PlannedFaults>,
}

impl Run<'_> {
    /// Sends the events, then drains or serves.
    async fn drive(&self, events: Option<EventsFile>, progress: &Progress, mut stop: watch::Receiver<bool>) -> Ended {
        let mut ended = Ended::default();
        if let Some(events) = events {
            let sending = self.send(events, stop.clone());
            match self.watched(progress, sending).await {
                Ok(outcome) => {
                    ended.acknowledged = Some(outcome.acknowledged);
                    ended.interrupted = outcome.interrupted;
                    ended.problems.extend(outcome.too_large_message());
                }
                Err(error) => {
                    // What was not sent can't be waited for.
                    ended.problems.push(error_chain(&error));
                    return ended;
                }
            }
        }
        if ended.interrupted {
            return ended;
        }
        if self.options.drain {
            let drained = async {
                tokio::select! {
                    drained = self.drained() => drained.map(Some),
                    _ = stop.wait_for(|stopped| *stopped) => Ok(None),
                }
            };
            match self.watched(progress, drained).await {
                Ok(Some(problem)) => {
                    ended.drained = true;
                    ended.problems.extend(problem);
                }
                Ok(None) => ended.interrupted = true,
                Err(error) => ended.problems.push(error_chain(&error)),
            }
            return ended;
        }
        progress.note(&summary::how_to_send(&self.resources.interactions));
        let serving = async {
            let _ = stop.wait_for(|stopped| *stopped).await;
            Ok(())
        };
        if let Err(error) = self.watched(progress, serving).await {
            ended.problems.push(error_chain(&error));
        }
        let drained = tokio::time::timeout(DRAINED_AT_STOP_TIMEOUT, self.cloud.drained()).await;
        ended.drained = matches!(drained, Ok(Ok(())));
        ended
    }

    /// Waits until every stage is drained, and by the data's clock until nobody's timer is due any more at its end. Tells what
    /// could not be done.
    async fn drained(&self) -> Result<Option<String>> {
        self.cloud.drained().await?;
        match self.options.clock {
            ClockChoice::Wall => Ok(None),
            ClockChoice::Data => sweeps::until_nobody_is_due(self.cloud, &self.clients(), self.resources).await,
        }
    }

    async fn send(&self, events: EventsFile, stop: watch::Receiver<bool>) -> Result<sender::SendOutcome> {
        let clients = self.clients();
        let stream = Arc::new(KinesisStream::new(clients.kinesis, &self.resources.interactions));
        let data_time = Arc::new(DataTime::default());
        let options = SendOptions {
            ordered: true,
            data_time: (self.options.clock == ClockChoice::Data).then(|| Arc::clone(&data_time)),
            ..SendOptions::default()
        };
        let is_sent = watch::Sender::new(false);
        let sending = async {
            let sent = sender::send(events, stream, options, Arc::default(), stop, &mut |_| Ok(())).await;
            is_sent.send_replace(true);
            sent
        };
        // By the wall clock no data tells a time, and the schedules run on their own.
        let sweeping = sweeps::sweep_as_time_passes(self.cloud, || data_time.now(), is_sent.subscribe());
        tokio::join!(sending, sweeping).0
    }

    fn clients(&self) -> Clients {
        let endpoints = self.cloud.endpoints();
        Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url)
    }

    /// Waits for `work`, showing how far everything is; ends early with an error where a function can't go on.
    async fn watched<T>(&self, progress: &Progress, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        let mut failed = pin!(self.cloud.failed());
        let mut resharding = pin!(self.reshard_now_and_then());
        let mut look = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                done = &mut work => return done,
                error = &mut failed => return Err(error.into()),
                Err(error) = &mut resharding => return Err(error),
                _ = look.tick() => progress.show(&self.status()),
            }
        }
    }

    async fn reshard_now_and_then(&self) -> Result<std::convert::Infallible> {
        match self.planned {
            Some(planned) => faults::reshard_now_and_then(self.cloud, self.resources, &planned.faults).await,
            None => std::future::pending().await,
        }
    }

    fn status(&self) -> String {
        let progress = self.cloud.progress();
        let put = |stream: &str| progress.streams.get(stream).map_or(0, |stream| stream.records_put);
        let writer = progress
            .mappings
            .iter()
            .find(|mapping| mapping.function == self.resources.profile_writer);
        let applied = writer.map_or(0, |mapping| mapping.records_completed);
        let failures: u64 = progress.mappings.iter().map(|mapping| mapping.invocations_failed).sum();
        let failures = if failures == 0 {
            String::new()
        } else {
            format!(", {} failed invocations", grouped(failures))
        };
        let decided = match self.journey.outcomes {
            Some(_) => "decided or told",
            None => "decided",
        };
        format!(
            "{} sent, {} applied, {} {decided}{failures}",
            grouped(put(&self.resources.interactions)),
            grouped(applied),
            grouped(put(&self.resources.triggers)),
        )
    }

    /// Reads back what came of it, judges, writes the files and tells.
    async fn finish(&self, ended: Ended, seconds: f64, progress: &Progress) -> Result<Verdict> {
        progress.show("reading back what came of it");
        if let Some(planned) = self.planned {
            planned.faults.end();
        }
        self.last_telemetry(ended.drained).await;
        let clients = self.clients();
        let profiles = truth::read_profiles(&clients, &self.resources.profiles, self.journey).await?;
        let triggers = truth::read_triggers(self.cloud, self.resources).await?;
        let stages = self.cloud.latencies();
        let now = match self.options.clock {
            ClockChoice::Data => profiles_file::latest_arrival(&profiles.by_user),
            ClockChoice::Wall => wall_clock(),
        };
        let counts = self.cloud.progress();
        let injected = self
            .planned
            .map(|planned| planned.faults.injected())
            .unwrap_or_default();
        let mut report = Report {
            drained: ended.drained,
            clock: match self.options.clock {
                ClockChoice::Data => "data",
                ClockChoice::Wall => "wall",
            },
            journey: JourneyName {
                name: self.journey.name.clone(),
                version: self.journey.version.clone(),
            },
            seconds,
            sent: counts
                .streams
                .get(&self.resources.interactions)
                .map_or(0, |stream| stream.records_put)
                .saturating_sub(self.wake_ups.put()),
            woken: self.wake_ups.put(),
            sweeps: counts.schedules.iter().map(|schedule| schedule.invocations).sum(),
            failed_sweeps: counts
                .schedules
                .iter()
                .map(|schedule| schedule.invocations_failed)
                .sum(),
            timers_fired: triggers.timers_fired,
            // By the data's clock a sweep is as late as the data lets it.
            timer_lateness_ms: match self.options.clock {
                ClockChoice::Data => Percentiles::default(),
                ClockChoice::Wall => Percentiles::of(triggers.lateness),
            },
            applied: profiles.by_user.values().map(|profile| profile.applied_events).sum(),
            rejected_by_reason: truth::read_rejected(self.cloud, self.resources).await?,
            profiles: profiles.item_bytes.len() as u64,
            triggers_by_rule: self.journey.rules.iter().map(|rule| (rule.id.clone(), 0)).collect(),
            decisions: truth::count_items(&clients, &self.resources.decisions).await?,
            sent_to_applied_ms: sent_to_applied(&stages, self.resources),
            sent_to_decided_ms: Percentiles::of(triggers.sent_to_decided),
            profile_item_bytes: ItemBytes::of(profiles.item_bytes),
            seed: self.planned.map(|planned| planned.seed),
            faults: injected
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), *count))
                .collect(),
            ..Report::default()
        };
        report.triggers_by_rule.extend(triggers.by_rule);
        report.outcomes = triggers.outcomes;
        report.windows_run_out = triggers.windows_run_out;
        report.outcomes_by_reward = triggers.outcomes_by_reward;
        let mut problems = ended.problems;
        if ended.interrupted {
            problems.push("interrupted before everything was drained".to_owned());
        }
        problems.extend(
            profiles
                .unreadable
                .into_iter()
                .map(|what| format!("a profile can't be read: {what}")),
        );
        report.settle(Findings {
            acknowledged: ended.acknowledged,
            problems,
            writer: self.writer_totals(),
            mappings: counts.mappings,
            failed_batches: self.options.failed_batches.clone(),
        });

        if let Some(path) = &self.options.profiles {
            profiles_file::write_file(path, &profiles.by_user, self.journey, now)?;
        }
        if let Some(path) = &self.options.triggers {
            let mut file = TriggersFile::create(path)?;
            triggers.json.iter().try_for_each(|json| file.write(json))?;
            file.finish()?;
        }
        if let Some(path) = &self.options.report {
            let json = serde_json::to_string_pretty(&report).context("cannot write the report as JSON")?;
            std::fs::write(path, json + "\n")
                .with_context(|| format!("cannot write the report to {}", path.display()))?;
        }
        progress.clear();
        say(&summary::report_text(&report, &stages, self.options.drain))?;
        say(&summary::faults_text(&report, injected))?;
        say(&summary::example_text(&triggers.json, &profiles.by_user, self.journey))?;
        if report.problems.is_empty() {
            let events = self.options.events.as_deref().map(|path| path.display().to_string());
            say(&summary::next_text(events.as_deref()))?;
            return Ok(Verdict::AllWell);
        }
        for problem in &report.problems {
            eprintln!("error: {}", problem.strip_prefix("error: ").unwrap_or(problem));
        }
        if let Some(planned) = self.planned {
            eprintln!("{}", planned.notice());
        }
        Ok(Verdict::Wrong)
    }

    /// The telemetry of profile-writer's invocations that succeeded. What came of the others comes again.
    fn writer_totals(&self) -> WriterTotals {
        let function = &self.resources.profile_writer;
        self.tally
            .writer(|request_id| self.cloud.has_failed(function, request_id))
    }

    /// Waits until the telemetry of every invocation that succeeded came through the functions' pipes.
    async fn last_telemetry(&self, drained: bool) {
        if !drained {
            return;
        }
        let mappings = self.cloud.progress().mappings;
        let of_writer = mappings
            .iter()
            .filter(|mapping| mapping.function == self.resources.profile_writer);
        let succeeded: u64 = of_writer
            .map(|mapping| mapping.invocations.saturating_sub(mapping.invocations_failed))
            .sum();
        let deadline = Instant::now() + LAST_TELEMETRY_TIMEOUT;
        while self.writer_totals().invocations < succeeded && Instant::now() < deadline {
            tokio::time::sleep(LAST_TELEMETRY_POLL).await;
        }
    }
}

fn sent_to_applied(stages: &[usher_local::StageLatency], resources: &Resources) -> Percentiles {
    let stage = stages.iter().find(|stage| stage.function == resources.profile_writer);
    let Some(latency) = stage
        .map(|stage| &stage.put_to_done_us)
        .filter(|latency| !latency.is_empty())
    else {
        return Percentiles::default();
    };
    let of = |quantile| Some(milliseconds(latency.value_at_quantile(quantile)));
    Percentiles {
        p50: of(0.5),
        p90: of(0.9),
        p99: of(0.99),
        max: Some(milliseconds(latency.max())),
    }
}
