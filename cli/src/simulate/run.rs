//! One variant: a local cloud with the real functions, and users who do what they like with what it offers them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use usher_aws::clients::Clients;
use usher_aws::kinesis::KinesisStream;
use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, StreamRecord, Template, TemplateOptions};

use super::agenda::Agenda;
use super::clock::{self, SimulatedClock};
use super::tally::Tally;
use super::world::World;
use crate::args::Variant;
use crate::local::resources::Resources;
use crate::local::{data_clock, sweeps, tell_journey};
use crate::people::grouped;
use crate::progress::Progress;
use crate::sender::{self, SendProgress};

/// The variable that tells a function how long it decides with snapshots of models and trends before it reads them again.
const REFRESH_VARIABLE: &str = "USHER_SNAPSHOT_REFRESH_MS";
/// Records of the triggers stream that wait to be looked at.
const TRIGGERS_WAITING_MAX: usize = 1 << 16;
/// From one look at what is to come to the next, by the wall clock.
const TICK: Duration = Duration::from_millis(20);
/// From one sweep of the timers to the next, in the simulation's time: what timer-sweeper does by itself.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// A machine that is so far behind, in the simulation's time, is too slow for the speed.
const LATE_MS_MAX: i64 = 30_000;

/// What all variants share.
pub struct Setup<'s> {
    /// Who the users are.
    pub world: &'s World,
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How many sign up.
    pub users: u32,
    /// How long it takes, in the simulation's time.
    pub minutes: f64,
    /// How many times quicker than the wall clock that passes.
    pub speed: f64,
    /// The template's file.
    pub template_file: &'s Path,
    /// The programs, by logical id.
    pub sources: &'s BTreeMap<String, FunctionSource>,
}

/// What came of a variant.
#[derive(Debug)]
pub struct Outcome {
    /// What was decided.
    pub tally: Tally,
    /// Events that were sent.
    pub events: u64,
    /// How far the machine was behind at most, in milliseconds of the simulation's time.
    pub late_ms_max: i64,
    /// What went wrong, though it ran to its end.
    pub problems: Vec<String>,
}

impl Setup<'_> {
    /// Runs a variant to its end.
    ///
    /// # Errors
    /// When the cloud can't start or go on, or is told to stop.
    pub async fn run(
        &self,
        variant: &Variant,
        progress: &Progress,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        let template = Template::read(self.template_file, &TemplateOptions::default())?;
        let resources = Resources::of(&template)?;
        let mut options = LocalCloudOptions::new(template);
        options.functions = self.sources.clone();
        options.clock = data_clock(&resources);
        // The simulation's time is in the past, where everything has expired.
        options.sweep_ttl = false;
        tell_journey(&mut options, &variant.journey);
        tell_refresh(&mut options, variant.refresh.div_f64(self.speed));
        sweeps::sweep_once_an_invocation(&mut options);
        let (seen, decisions) = mpsc::channel(TRIGGERS_WAITING_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let not_seen = Arc::clone(&missed);
        let triggers = resources.triggers.clone();
        options.on_put = Some(Arc::new(move |put: &StreamRecord| {
            if *put.stream == *triggers {
                match seen.try_send((put.data.clone(), Instant::now())) {
                    Err(TrySendError::Full(_)) => drop(not_seen.fetch_add(1, Ordering::Relaxed)),
                    // Whoever listened is gone when the simulation is over.
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                }
            }
        }));
        let cloud = LocalCloud::start(options).await?;
        let ran = tokio::select! {
            ran = self.drive(&cloud, &resources, decisions, progress, stop.clone()) => ran,
            error = cloud.failed() => Err(error.into()),
            _ = stop.wait_for(|stopped| *stopped) => Err(anyhow::anyhow!("interrupted before the simulation's end")),
        };
        let counts = cloud.progress();
        cloud.shutdown().await;
        let mut outcome = ran?;
        for mapping in counts.mappings {
            if mapping.invocations_failed > 0 || mapping.records_dropped > 0 {
                outcome.problems.push(format!(
                    "{}: {} invocations failed and {} records were given up; {}",
                    mapping.name,
                    grouped(mapping.invocations_failed),
                    grouped(mapping.records_dropped),
                    mapping.last_error.unwrap_or_default(),
                ));
            }
        }
        let missed = missed.load(Ordering::Relaxed);
        if missed > 0 {
            outcome.problems.push(format!(
                "{} records on the triggers stream came too quickly to be looked at; take a lower --speed or fewer --users",
                grouped(missed)
            ));
        }
        if outcome.late_ms_max > LATE_MS_MAX {
            outcome.problems.push(format!(
                "this machine was up to {} seconds of the simulation's time behind; take a lower --speed or fewer --users",
                outcome.late_ms_max / 1_000
            ));
        }
        Ok(outcome)
    }

    async fn drive(
        &self,
        cloud: &LocalCloud,
        resources: &Resources,
        mut decisions: mpsc::Receiver<(Vec<u8>, Instant)>,
        progress: &Progress,
        stop: watch::Receiver<bool>,
    ) -> Result<Outcome> {
        let endpoints = cloud.endpoints();
        let clients = Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url);
        let stream = Arc::new(KinesisStream::new(clients.kinesis, &resources.interactions));
        let mut agenda = Agenda::new(self.world, self.seed, self.users, self.minutes);
        let mut outcome = Outcome {
            tally: Tally::default(),
            events: 0,
            late_ms_max: 0,
            problems: Vec::new(),
        };
        let clock = SimulatedClock::start(self.speed);
        let end = clock::begin().plus_ms((self.minutes * 60_000.0) as i64);
        let sweeping = async {
            loop {
                tokio::time::sleep(clock.of_the_machine(SWEEP_INTERVAL)).await;
                // A sweep that failed is counted by the cloud, and the next one does what it did not.
                let _ = cloud.run_schedules(clock.now().epoch_ms()).await;
            }
        };
        let users = async {
            loop {
                let now = clock.now();
                if now >= end {
                    return anyhow::Ok(());
                }
                while let Ok((record, put)) = decisions.try_recv() {
                    let about = (self.world, self.seed);
                    outcome.tally.see(&record, put, clock.now(), about, &mut agenda)?;
                }
                let (records, late_ms) = agenda.take_until(now);
                outcome.late_ms_max = outcome.late_ms_max.max(late_ms);
                if !records.is_empty() {
                    outcome.events += records.len() as u64;
                    let sent = Arc::new(SendProgress::default());
                    let sent = sender::send_records(records, Arc::clone(&stream), sent, stop.clone()).await?;
                    if sent.interrupted {
                        bail!("interrupted before the simulation's end");
                    }
                }
                progress.show(&format!(
                    "minute {:.1} of {}: {} events, {} decisions",
                    now.ms_since(clock::begin()) as f64 / 60_000.0,
                    self.minutes,
                    grouped(outcome.events),
                    grouped(outcome.tally.since_minute(0).decisions),
                ));
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::select! {
            ended = users => ended.context("the users could not go on")?,
            () = sweeping => {}
        }
        Ok(outcome)
    }
}

/// Tells the functions that keep snapshots how old these may get.
fn tell_refresh(cloud: &mut LocalCloudOptions, refresh: Duration) {
    for function in &cloud.template.functions {
        if function.environment.contains_key(REFRESH_VARIABLE) {
            let environment = cloud
                .function_environment
                .entry(function.logical_id.clone())
                .or_default();
            environment.insert(REFRESH_VARIABLE.to_owned(), refresh.as_millis().max(1).to_string());
        }
    }
}
