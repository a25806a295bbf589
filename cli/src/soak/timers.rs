//! `usher soak --timers`: many users whose timers are due within one minute, by the wall clock, each woken by the sweeper and by
//! nobody else, while wake-ups come that nobody asked for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use usher_aws::clients::Clients;
use usher_aws::kinesis::KinesisStream;
use usher_domain::event::TIMER_EVENT;
use usher_domain::time::Timestamp;
use usher_local::process::LogObserver;
use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, LogSource, Template, TemplateOptions};
use usher_pipeline::ports::StreamRecord;
use usher_pipeline::telemetry::{ProfileWriterBatch, TelemetryEvent, TimerSweep};
use usher_wire::trigger::TriggerRecord;

use crate::Verdict;
use crate::arrival_clock::wall_clock;
use crate::local::report::Percentiles;
use crate::local::resources::Resources;
use crate::local::{tell_journey, truth};
use crate::people::{grouped, say, table};
use crate::progress::Progress;
use crate::sender::{self, SendProgress};

/// What the users wait for: an hour after they signed up, which was nearly an hour ago.
const JOURNEY: &str = "journey: timers
steps: [{ id: sign_up, on: sign_up }, { id: done, on: done }]
contents: [{ id: reminder }]
triggers: [{ id: stalled, after: 1h, since: steps.sign_up, unless: steps.done.done, offer: reminder, slot: email }]
";
const TIMER_MS: i64 = 60 * 60 * 1000;
/// All timers are due within this time.
const DUE_WITHIN_MS: u64 = 60_000;
/// The users' events are sent before the first timer is due: at least so long, and longer for more users.
const LEAD_MS_MIN: u64 = 10_000;
const USERS_PER_LEAD_SECOND: u64 = 1_500;
/// One user in so many gets wake-ups that nobody asked for: before its timer is due, and after.
const MEDDLED_WITH_EACH: u64 = 20;
/// One user in so many does in time what the timer waits for.
const MOOT_EACH: u64 = 100;
/// What is not done so long after the last timer was due is late beyond reason.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What the functions told.
#[derive(Clone, Debug, Default)]
struct Told {
    sweeps: Vec<TimerSweep>,
    write_units: f64,
    writes: u64,
    woken: u64,
}

/// Runs it with this many users.
///
/// # Errors
/// When the cloud can't start or be read. A timer that fired twice or not at all is none: it is told, and the verdict is bad.
pub async fn run(
    users: u32,
    template_file: &Path,
    sources: &BTreeMap<String, FunctionSource>,
    mut stop: watch::Receiver<bool>,
) -> Result<Verdict> {
    let users = u64::from(users);
    let template = Template::read(template_file, &TemplateOptions::default())?;
    let resources = Resources::of(&template)?;
    let journey = tempfile::Builder::new()
        .prefix("usher-timers-")
        .suffix(".yaml")
        .tempfile()
        .context("cannot make a temporary file for the journey")?;
    std::fs::write(journey.path(), JOURNEY).context("cannot write the journey into a temporary file")?;
    let told: Arc<Mutex<Told>> = Arc::default();
    // What it takes to get the users in place is none of the timers' cost.
    let timers_run = Arc::new(AtomicBool::new(false));
    let mut options = LocalCloudOptions::new(template);
    options.functions = sources.clone();
    options.on_log = Some(listener(&told, &timers_run));
    tell_journey(&mut options, journey.path());
    let cloud = LocalCloud::start(options).await?;
    let progress = Progress::spinner("sending the users' events");
    let run = Run {
        users,
        cloud: &cloud,
        resources: &resources,
        told: &told,
        timers_run: &timers_run,
        due_from: wall_clock().plus_ms(lead_ms(users)),
    };
    let ran = tokio::select! {
        ran = run.drive(&progress, stop.clone()) => ran,
        error = cloud.failed() => Err(error.into()),
        _ = stop.wait_for(|stopped| *stopped) => Err(anyhow::anyhow!("interrupted before all timers were due")),
    };
    let judged = match ran {
        Ok(problems) => run.judge(problems).await,
        Err(error) => Err(error),
    };
    progress.clear();
    cloud.shutdown().await;
    judged
}

fn lead_ms(users: u64) -> i64 {
    let lead_ms = LEAD_MS_MIN + users * 1_000 / USERS_PER_LEAD_SECOND;
    i64::try_from(lead_ms).unwrap_or(i64::MAX)
}

fn listener(told: &Arc<Mutex<Told>>, timers_run: &Arc<AtomicBool>) -> LogObserver {
    let (told, timers_run) = (Arc::clone(told), Arc::clone(timers_run));
    LogObserver::new(move |line| {
        if line.source != LogSource::Stdout {
            return;
        }
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sweep) = TimerSweep::from_line(&line.line) {
            told.sweeps.push(sweep);
        } else if timers_run.load(Ordering::Relaxed)
            && let Some(batch) = ProfileWriterBatch::from_line(&line.line)
        {
            told.write_units += batch.write_units;
            told.writes += batch.conditional_writes;
            told.woken += batch.woken;
        }
    })
}

struct Run<'r> {
    users: u64,
    cloud: &'r LocalCloud,
    resources: &'r Resources,
    told: &'r Mutex<Told>,
    timers_run: &'r AtomicBool,
    due_from: Timestamp,
}

/// What came of the timers, read from the triggers stream.
#[derive(Debug, Default)]
struct Fired {
    /// Of each user: how many different triggers.
    by_user: BTreeMap<String, u64>,
    lateness: Vec<Duration>,
    /// Due at another time than it must be.
    misdated: u64,
}

impl Run<'_> {
    fn due_at(&self, user: u64) -> Timestamp {
        // Spread evenly, in no order of the users.
        let spread = user.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let offset_ms = (spread * DUE_WITHIN_MS) >> 32;
        self.due_from.plus_ms(i64::try_from(offset_ms).unwrap_or_default())
    }

    fn due_until(&self) -> Timestamp {
        self.due_from.plus_ms(i64::try_from(DUE_WITHIN_MS).unwrap_or_default())
    }

    /// Sends everything, and waits until nothing more is to come. Gives what is wrong with the run itself.
    async fn drive(&self, progress: &Progress, stop: watch::Receiver<bool>) -> Result<Vec<String>> {
        let sign_ups = (0..self.users).map(|user| record(user, "sign_up", self.due_at(user).minus_ms(TIMER_MS), "s"));
        let moot = (0..self.users).filter(|user| is_moot(*user));
        let moot = moot.map(|user| record(user, "done", self.due_at(user).minus_ms(TIMER_MS / 2), "d"));
        self.send(sign_ups.chain(moot), &stop).await?;
        self.cloud.drained().await?;
        let mut problems = Vec::new();
        if wall_clock() >= self.due_from {
            problems.push("the first timers were due before all users were in place; run it with fewer".to_owned());
        }
        self.timers_run.store(true, Ordering::Relaxed);
        // Nobody asked for these: before the timer is due, for somebody who isn't there, and again after it was due.
        let meddled = || (0..self.users).filter(|user| is_meddled_with(*user));
        let early = meddled().map(|user| record(user, TIMER_EVENT, wall_clock(), "early"));
        let forged = meddled().map(|user| record(self.users + user, TIMER_EVENT, self.due_until(), "forged"));
        self.send(early.chain(forged), &stop).await?;
        let until = self.due_until();
        while wall_clock() < until {
            progress.show(&self.status());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let give_up_at = Instant::now() + PATIENCE;
        let must_fire = (0..self.users).filter(|user| !is_moot(*user)).count() as u64;
        loop {
            progress.show(&self.status());
            self.cloud.drained().await?;
            if self.triggers_put() >= must_fire {
                break;
            }
            if Instant::now() > give_up_at {
                problems.push(format!(
                    "not all timers fired within {} seconds after the last was due",
                    PATIENCE.as_secs()
                ));
                break;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let again = meddled().map(|user| record(user, TIMER_EVENT, wall_clock(), "again"));
        self.send(
            again.chain(meddled().map(|user| record(user, TIMER_EVENT, wall_clock(), "again"))),
            &stop,
        )
        .await?;
        self.cloud.drained().await?;
        // The sweeper tells at the end of its minute.
        self.last_sweep(progress).await;
        Ok(problems)
    }

    async fn send(&self, records: impl Iterator<Item = StreamRecord>, stop: &watch::Receiver<bool>) -> Result<()> {
        let clients = self.clients();
        let stream = Arc::new(KinesisStream::new(clients.kinesis, &self.resources.interactions));
        let records: Vec<StreamRecord> = records.collect();
        let sent = sender::send_records(records, stream, Arc::new(SendProgress::default()), stop.clone()).await?;
        if sent.interrupted {
            bail!("interrupted before all events were sent");
        }
        Ok(())
    }

    /// Waits for the report of the sweep that is under way.
    async fn last_sweep(&self, progress: &Progress) {
        let known = self.told().sweeps.len();
        let give_up_at = Instant::now() + Duration::from_secs(75);
        while self.told().sweeps.len() == known && Instant::now() < give_up_at {
            progress.show("waiting for the last sweep's report");
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn clients(&self) -> Clients {
        let endpoints = self.cloud.endpoints();
        Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url)
    }

    fn triggers_put(&self) -> u64 {
        let progress = self.cloud.progress();
        let triggers = progress.streams.get(&self.resources.triggers);
        triggers.map_or(0, |stream| stream.records_put)
    }

    fn status(&self) -> String {
        format!(
            "{} of {} timers fired",
            grouped(self.triggers_put()),
            grouped(self.users)
        )
    }

    fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads back what came of it, tells it, and judges.
    async fn judge(&self, mut problems: Vec<String>) -> Result<Verdict> {
        let fired = self.fired().await?;
        let told = self.told();
        let (mut lost, mut twice, mut unasked) = (0, 0, 0);
        let mut right = 0;
        for user in 0..self.users {
            let times = fired.by_user.get(&name(user)).copied().unwrap_or(0);
            match (is_moot(user), times) {
                (false, 0) => lost += 1,
                (false, 1) => right += 1,
                (false, more) => twice += more - 1,
                (true, times) => unasked += times,
            }
        }
        let known: u64 = (0..self.users)
            .filter(|user| fired.by_user.contains_key(&name(*user)))
            .count() as u64;
        unasked += fired.by_user.len() as u64 - known;
        let decisions = truth::read_decisions(&self.clients(), &self.resources.decisions).await?;
        let mut settled: Vec<&str> = decisions
            .iter()
            .filter(|decision| decision.is_settled)
            .map(|decision| decision.trigger_id.as_str())
            .collect();
        settled.sort_unstable();
        settled.dedup();
        for (count, what) in [
            (lost, "timers did not fire"),
            (twice, "timers fired again"),
            (unasked, "timers fired that must not"),
            (fired.misdated, "timers fired as of another time than they were due"),
        ] {
            if count > 0 {
                problems.push(format!("{} {what}", grouped(count)));
            }
        }
        if settled.len() as u64 != right {
            problems.push(format!(
                "{right} timers fired, but {} decisions are delivered",
                settled.len()
            ));
        }
        say(&self.text(&fired, &told, [right, lost, twice, unasked]))?;
        for problem in &problems {
            eprintln!("error: {problem}");
        }
        Ok(if problems.is_empty() {
            Verdict::AllWell
        } else {
            Verdict::Wrong
        })
    }

    async fn fired(&self) -> Result<Fired> {
        let mut fired = Fired::default();
        let mut ids = std::collections::HashSet::new();
        for record in self.cloud.read_all(&self.resources.triggers).await? {
            let trigger =
                TriggerRecord::parse(&record.data).context("a record on the triggers stream is no trigger")?;
            // The same trigger again is what consumers act once on (P5).
            if !ids.insert(trigger.trigger_id.to_string()) {
                continue;
            }
            *fired.by_user.entry(trigger.user_id.to_string()).or_default() += 1;
            let due_at: Option<Timestamp> = trigger.due_at.as_deref().and_then(|text| text.parse().ok());
            let decided_at: Option<Timestamp> = trigger.decided_at.parse().ok();
            let expected = number(&trigger.user_id).map(|user| self.due_at(user));
            fired.misdated += u64::from(due_at.is_none() || due_at != expected);
            if let (Some(due_at), Some(decided_at)) = (due_at, decided_at) {
                let late_ms = u64::try_from(decided_at.ms_since(due_at)).unwrap_or_default();
                fired.lateness.push(Duration::from_millis(late_ms));
            }
        }
        Ok(fired)
    }

    fn text(&self, fired: &Fired, told: &Told, [right, lost, twice, unasked]: [u64; 4]) -> String {
        let sum = |of: fn(&TimerSweep) -> u64| told.sweeps.iter().map(of).sum::<u64>();
        let cell = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms / 1_000.0));
        let Percentiles { p50, p90, p99, max } = Percentiles::of(fired.lateness.clone());
        let sweep_ms = told
            .sweeps
            .iter()
            .flat_map(|sweep| sweep.sweep_lateness.iter().copied());
        let swept = Percentiles::of(sweep_ms.map(Duration::from_millis).collect());
        let meddling = 4 * (0..self.users).filter(|user| is_meddled_with(*user)).count() as u64;
        let per_timer = told.write_units / (right.max(1) as f64);
        let row = |name: &str, value: String| (name.to_owned(), value);
        let rows = [
            row("users", grouped(self.users)),
            row(
                "with nothing to wait for",
                grouped((0..self.users).filter(|user| is_moot(*user)).count() as u64),
            ),
            row("fired once", grouped(right)),
            row("lost", grouped(lost)),
            row("twice", grouped(twice)),
            row("unasked", grouped(unasked)),
            row(
                "sweeps, and their passes",
                format!("{}, {}", told.sweeps.len(), sum(|sweep| sweep.passes)),
            ),
            row("found due", grouped(sum(|sweep| sweep.due))),
            row("woken by the sweeper", grouped(sum(|sweep| sweep.woken))),
            row(
                "found again, still on their way",
                grouped(sum(|sweep| sweep.sent_lately)),
            ),
            row("wake-ups early, forged or repeated", grouped(meddling)),
            row(
                "due to decided: half within, 9 of 10, 99 of 100, all",
                [p50, p90, p99, max].map(cell).join("  "),
            ),
            row(
                "due to swept",
                [swept.p50, swept.p90, swept.p99, swept.max].map(cell).join("  "),
            ),
            row("wake-ups that profile-writer took", grouped(told.woken)),
            row("profiles written for them", grouped(told.writes)),
            row(
                "write capacity units",
                format!("{} ({per_timer:.3} a timer)", grouped(told.write_units.round() as u64)),
            ),
            row(
                "read capacity units of the index",
                grouped(told.sweeps.iter().map(|sweep| sweep.read_units).sum::<f64>().round() as u64),
            ),
        ];
        format!(
            "\n{} timers due within {} s, by the wall clock\n{}",
            grouped(self.users),
            DUE_WITHIN_MS / 1_000,
            table(&rows)
        )
    }
}

fn name(user: u64) -> String {
    format!("timer-{user:07}")
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix("timer-")?.parse().ok()
}

fn is_moot(user: u64) -> bool {
    user % MOOT_EACH == MOOT_EACH - 1
}

fn is_meddled_with(user: u64) -> bool {
    user.is_multiple_of(MEDDLED_WITH_EACH)
}

fn record(user: u64, event_type: &str, at: Timestamp, id: &str) -> StreamRecord {
    let user_id = name(user);
    let event = serde_json::json!({
        "event_id": format!("{id}-{user}"), "event_type": event_type, "timestamp": at.to_string(), "user_id": user_id,
    });
    StreamRecord {
        data: event.to_string().into_bytes(),
        partition_key: user_id,
    }
}
