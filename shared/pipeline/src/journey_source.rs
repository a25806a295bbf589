//! Where the journey comes from that a function runs, and how a changed one takes the place of the running one.
//!
//! Every invocation asks [`JourneyKeeper::for_invocation`] once and does all its work with what it gets, so no batch is planned
//! by two journeys. Whether there is a new one is found out beside the batches, never before one: an invocation starts the
//! question if the last one is old enough, and a later invocation takes the answer. Lambda freezes a function between
//! invocations, so there is no other time to ask in, and what has an answer by the next invocation has cost the batch nothing.
//! A changed journey therefore runs one invocation after it was read; with the traffic that makes that a long time, nothing
//! happens that it could decide.
//!
//! A new version with mistakes is refused: they are logged once, the running journey goes on, and every look that finds it
//! again is counted, so that an alarm stays on until the file is mended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use usher_domain::hash::hash_bytes;
use usher_domain::journey::Journey;

use crate::ports::BoxError;
use crate::retry::chain;

/// A look at the source takes no longer than this: what hangs must not keep later looks from starting.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two tries of an invocation that has no journey yet.
const FIRST_READ_PAUSE: Duration = Duration::from_millis(100);

/// What [`JourneySource::read`] gives.
pub type JourneyText<'s> = Pin<Box<dyn Future<Output = Result<String, JourneySourceError>> + Send + 's>>;

/// Where the text of the journey is.
pub trait JourneySource: fmt::Debug + Send + Sync + 'static {
    /// What messages call it, such as `ssm:/usher/journey`.
    fn name(&self) -> &str;

    /// Whether it answers while the function starts. Lambda's extensions only do so during an invocation.
    fn answers_at_start(&self) -> bool;

    /// Reads the text, once.
    fn read(&self) -> JourneyText<'_>;
}

/// Why a journey's text can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JourneySourceError {
    /// What is wrong, and what to do about it.
    pub message: String,
    /// Whether trying again in a moment may help.
    pub may_pass: bool,
    /// What lies beneath.
    #[source]
    pub source: Option<BoxError>,
}

/// Why there is no journey to run.
#[derive(Debug, thiserror::Error)]
pub enum JourneyError {
    /// Its text can't be had.
    #[error("can't read the journey {name}")]
    Unreadable {
        /// The source.
        name: String,
        /// Why, and what to do.
        #[source]
        source: JourneySourceError,
    },
    /// It holds mistakes, all of which are told.
    #[error("the journey {name} has mistakes; `usher check` shows them too:\n{diagnostics}")]
    Wrong {
        /// The source.
        name: String,
        /// Each mistake with its line, what it says, and what to write instead.
        diagnostics: String,
    },
}

/// What became of the looks at the source that an invocation heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JourneyNews {
    /// Another journey runs from now on.
    pub changed: u64,
    /// The source holds a version with mistakes.
    pub refused: u64,
    /// The source could not be read.
    pub refresh_failed: u64,
    /// How long ago the source was last read, in milliseconds; 0 for a journey that can't change.
    pub age_ms: u64,
}

impl JourneyNews {
    /// What an invocation tells that has no journey for this reason.
    pub fn of_error(error: &JourneyError) -> JourneyNews {
        match error {
            JourneyError::Unreadable { .. } => JourneyNews {
                refresh_failed: 1,
                ..JourneyNews::default()
            },
            JourneyError::Wrong { .. } => JourneyNews {
                refused: 1,
                ..JourneyNews::default()
            },
        }
    }
}

/// Keeps the running journey, and replaces it by a changed one.
#[derive(Debug)]
pub struct JourneyKeeper {
    source: Option<Arc<dyn JourneySource>>,
    refresh_interval: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    running: Option<Running>,
    /// The hash of the refused text that was told last.
    refused: Option<u64>,
    /// When the last look began.
    looked_at: Option<Instant>,
    /// The look whose answer no invocation has taken.
    under_way: Option<oneshot::Receiver<Look>>,
}

#[derive(Clone, Debug)]
struct Running {
    journey: Arc<Journey>,
    text_hash: u64,
    /// When the source was last read, whatever it held.
    read_at: Instant,
}

/// What a look at the source found.
#[derive(Debug)]
struct Look {
    at: Instant,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// The running journey.
    Same,
    /// Another one.
    Changed { journey: Arc<Journey>, text_hash: u64 },
    /// Mistakes; without diagnostics where the same text was refused before.
    Refused {
        text_hash: u64,
        diagnostics: Option<String>,
    },
    /// Nothing.
    Failed(JourneySourceError),
}

impl From<Arc<Journey>> for JourneyKeeper {
    /// A journey that never changes.
    fn from(journey: Arc<Journey>) -> JourneyKeeper {
        let running = Running {
            journey,
            text_hash: 0,
            read_at: Instant::now(),
        };
        JourneyKeeper {
            source: None,
            refresh_interval: Duration::MAX,
            kept: Mutex::new(Kept {
                running: Some(running),
                ..Kept::default()
            }),
        }
    }
}

impl JourneyKeeper {
    /// Keeps the journey of this source, and looks for a new one at most once in `refresh_interval`.
    pub fn new(source: Arc<dyn JourneySource>, refresh_interval: Duration) -> JourneyKeeper {
        JourneyKeeper {
            source: Some(source),
            refresh_interval,
            kept: Mutex::default(),
        }
    }

    /// Reads the journey at a function's start, where its source answers then; else the first invocation does.
    ///
    /// # Errors
    /// It can't be read, or holds mistakes.
    pub async fn start(&self) -> Result<(), JourneyError> {
        match &self.source {
            Some(source) if source.answers_at_start() => {
                let deadline = Instant::now() + READ_TIMEOUT;
                self.read_first(source, deadline).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The journey that an invocation runs, and what is new about it. It waits only where there is none yet, until
    /// `deadline` at most.
    ///
    /// # Errors
    /// There is no journey, because it can't be read or holds mistakes.
    pub async fn for_invocation(&self, deadline: Instant) -> Result<(Arc<Journey>, JourneyNews), JourneyError> {
        let news = self.take_answer();
        let running = self.locked().running.clone();
        let Some(source) = &self.source else {
            // Only a keeper without a source has a journey from the start.
            let journey = running.map(|running| running.journey);
            return journey.map(|journey| (journey, news)).ok_or_else(JourneyError::none);
        };
        let Some(running) = running else {
            return self.read_first(source, deadline).await.map(|journey| (journey, news));
        };
        self.look_if_due(source, &running);
        let age_ms = u64::try_from(running.read_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok((running.journey, JourneyNews { age_ms, ..news }))
    }

    /// Reads the journey where there is none, again and again until `deadline` if that may help.
    async fn read_first(
        &self,
        source: &Arc<dyn JourneySource>,
        deadline: Instant,
    ) -> Result<Arc<Journey>, JourneyError> {
        let name = source.name().to_owned();
        loop {
            let until = deadline.min(Instant::now() + READ_TIMEOUT);
            let look = look(Arc::clone(source), until, None, None).await;
            match look.found {
                Found::Changed { journey, text_hash } => {
                    tracing::info!(
                        source = name,
                        journey = journey.name,
                        version = journey.version,
                        rules = journey.rules.len(),
                        "journey read"
                    );
                    let mut kept = self.locked();
                    kept.looked_at = Some(look.at);
                    kept.running = Some(Running {
                        journey: Arc::clone(&journey),
                        text_hash,
                        read_at: look.at,
                    });
                    return Ok(journey);
                }
                Found::Failed(error) if error.may_pass && Instant::now() + FIRST_READ_PAUSE < deadline => {
                    tokio::time::sleep(FIRST_READ_PAUSE).await;
                }
                Found::Failed(source) => return Err(JourneyError::Unreadable { name, source }),
                Found::Refused { diagnostics, .. } => {
                    let diagnostics = diagnostics.unwrap_or_default();
                    return Err(JourneyError::Wrong { name, diagnostics });
                }
                // Nothing runs that it could be the same as.
                Found::Same => return Err(JourneyError::none()),
            }
        }
    }

    /// Takes what the last look found, if it is done.
    fn take_answer(&self) -> JourneyNews {
        let mut news = JourneyNews::default();
        let mut kept = self.locked();
        let look = match kept.under_way.as_mut().map(oneshot::Receiver::try_recv) {
            None | Some(Err(oneshot::error::TryRecvError::Empty)) => return news,
            Some(Ok(look)) => look,
            Some(Err(oneshot::error::TryRecvError::Closed)) => {
                // Its task broke off; the next one looks again.
                kept.under_way = None;
                news.refresh_failed = 1;
                return news;
            }
        };
        kept.under_way = None;
        let name = self.source.as_ref().map_or("", |source| source.name());
        match look.found {
            Found::Same => kept.refused = None,
            Found::Changed { journey, text_hash } => {
                let former = kept.running.as_ref().map(|running| running.journey.version.clone());
                tracing::info!(
                    source = name,
                    journey = journey.name,
                    version = journey.version,
                    former_version = former,
                    rules = journey.rules.len(),
                    "journey changed"
                );
                kept.refused = None;
                kept.running = Some(Running {
                    journey,
                    text_hash,
                    read_at: look.at,
                });
                news.changed = 1;
                return news;
            }
            Found::Refused { text_hash, diagnostics } => {
                if let Some(diagnostics) = diagnostics {
                    let running = kept.running.as_ref().map(|running| running.journey.version.clone());
                    tracing::error!(
                        source = name,
                        running_version = running,
                        diagnostics,
                        "new version of the journey refused, the running one goes on"
                    );
                }
                kept.refused = Some(text_hash);
                news.refused = 1;
            }
            Found::Failed(error) => {
                tracing::warn!(
                    source = name,
                    error = chain(&error),
                    "the journey can't be read again, the running one goes on"
                );
                news.refresh_failed = 1;
                return news;
            }
        }
        if let Some(running) = &mut kept.running {
            running.read_at = look.at;
        }
        news
    }

    /// Starts a look beside the invocation, if none is under way and the last one is old enough.
    fn look_if_due(&self, source: &Arc<dyn JourneySource>, running: &Running) {
        let mut kept = self.locked();
        let is_due = kept.looked_at.is_none_or(|at| at.elapsed() >= self.refresh_interval);
        if !is_due || kept.under_way.is_some() {
            return;
        }
        let (answer, under_way) = oneshot::channel();
        let (source, running_hash, refused_hash) = (Arc::clone(source), running.text_hash, kept.refused);
        kept.looked_at = Some(Instant::now());
        kept.under_way = Some(under_way);
        tokio::spawn(async move {
            let until = Instant::now() + READ_TIMEOUT;
            let look = look(source, until, Some(running_hash), refused_hash).await;
            // Without a listener the function has ended.
            let _ = answer.send(look);
        });
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        // Nothing between the lock and its release panics, so what a poisoned lock guards is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JourneyError {
    fn none() -> JourneyError {
        JourneyError::Unreadable {
            name: String::new(),
            source: JourneySourceError {
                message: "the function was started without a journey".to_owned(),
                may_pass: false,
                source: None,
            },
        }
    }
}

/// Reads the source once, and the journey in it unless its text is known.
async fn look(source: Arc<dyn JourneySource>, until: Instant, running: Option<u64>, refused: Option<u64>) -> Look {
    let at = Instant::now();
    let found = match tokio::time::timeout_at(until, source.read()).await {
        Ok(Ok(text)) => understand(source.name().to_owned(), text, running, refused).await,
        Ok(Err(error)) => Found::Failed(error),
        Err(_) => Found::Failed(JourneySourceError {
            message: format!("no answer within {} ms", at.elapsed().as_millis()),
            may_pass: true,
            source: None,
        }),
    };
    Look { at, found }
}

async fn understand(name: String, text: String, running: Option<u64>, refused: Option<u64>) -> Found {
    let text_hash = hash_bytes(text.as_bytes());
    if running == Some(text_hash) {
        return Found::Same;
    }
    if refused == Some(text_hash) {
        return Found::Refused {
            text_hash,
            diagnostics: None,
        };
    }
    // A large journey takes a while to compile, in which a batch would stand still.
    let parsed = tokio::task::spawn_blocking(move || {
        Journey::parse(&text).map_err(|diagnostics| diagnostics.render(&name, &text))
    });
    match parsed.await {
        Ok(Ok(journey)) => Found::Changed {
            journey: Arc::new(journey),
            text_hash,
        },
        Ok(Err(diagnostics)) => Found::Refused {
            text_hash,
            diagnostics: Some(diagnostics),
        },
        Err(broken) => Found::Failed(JourneySourceError {
            message: "reading the journey broke off".to_owned(),
            may_pass: false,
            source: Some(Box::new(broken)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Every invocation looks.
    const ALWAYS: Duration = Duration::ZERO;
    /// No invocation of a test looks a second time.
    const LONG: Duration = Duration::from_secs(3600);

    /// A source that a test changes.
    #[derive(Debug)]
    struct Told {
        text: Mutex<Result<String, bool>>,
        reads: AtomicUsize,
        answers_at_start: bool,
        takes: Duration,
    }

    impl Told {
        fn new(text: Result<&str, bool>) -> Told {
            Told {
                text: Mutex::new(text.map(str::to_owned)),
                reads: AtomicUsize::new(0),
                answers_at_start: true,
                takes: Duration::ZERO,
            }
        }

        fn say(&self, text: Result<&str, bool>) {
            *self.text.lock().expect("no panics") = text.map(str::to_owned);
        }

        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }
    }

    impl JourneySource for Told {
        fn name(&self) -> &str {
            "test:journey"
        }

        fn answers_at_start(&self) -> bool {
            self.answers_at_start
        }

        fn read(&self) -> JourneyText<'_> {
            Box::pin(async move {
                self.reads.fetch_add(1, Ordering::Relaxed);
                if !self.takes.is_zero() {
                    tokio::time::sleep(self.takes).await;
                }
                self.text
                    .lock()
                    .expect("no panics")
                    .clone()
                    .map_err(|may_pass| JourneySourceError {
                        message: "it is not there".to_owned(),
                        may_pass,
                        source: None,
                    })
            })
        }
    }

    async fn started(source: &Arc<Told>, refresh_interval: Duration) -> JourneyKeeper {
        let keeper = JourneyKeeper::new(Arc::<Told>::clone(source), refresh_interval);
        keeper.start().await.expect("it is right");
        keeper
    }

    /// What an invocation sees when the look that is under way has ended.
    async fn invocation(keeper: &JourneyKeeper) -> (String, [u64; 3]) {
        let is_looking = || {
            let kept = keeper.locked();
            kept.under_way.as_ref().is_some_and(oneshot::Receiver::is_empty)
        };
        while is_looking() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let (journey, news) = keeper.for_invocation(deadline).await.expect("there is a journey");
        (journey.name.clone(), [news.changed, news.refused, news.refresh_failed])
    }

    #[tokio::test]
    async fn a_changed_journey_runs_from_the_invocation_after_the_one_that_looked() {
        let source = Arc::new(Told::new(Ok("journey: one")));
        let keeper = started(&source, ALWAYS).await;
        source.say(Ok("journey: two"));
        assert_eq!(invocation(&keeper).await, ("one".to_owned(), [0, 0, 0]), "it only asks");
        assert_eq!(invocation(&keeper).await, ("two".to_owned(), [1, 0, 0]));
        assert_eq!(invocation(&keeper).await, ("two".to_owned(), [0, 0, 0]));
    }

    #[tokio::test]
    async fn the_source_is_left_alone_until_the_last_look_is_old_enough() {
        let source = Arc::new(Told::new(Ok("journey: one")));
        let keeper = started(&source, LONG).await;
        source.say(Ok("journey: two"));
        for _ in 0..3 {
            assert_eq!(invocation(&keeper).await, ("one".to_owned(), [0, 0, 0]));
        }
        assert_eq!(source.reads(), 1);
    }

    #[tokio::test]
    async fn a_bad_version_is_refused_and_the_running_one_goes_on_until_it_is_mended() {
        let source = Arc::new(Told::new(Ok("journey: one")));
        let keeper = started(&source, ALWAYS).await;
        for (text, expected) in [
            (Ok("journey: two\nstep: []"), ("one", [0, 1, 0])),
            // Told once, counted each time.
            (Ok("journey: two\nstep: []"), ("one", [0, 1, 0])),
            (Ok("journey: ["), ("one", [0, 1, 0])),
            (Err(false), ("one", [0, 0, 1])),
            (Err(true), ("one", [0, 0, 1])),
            (Ok("journey: one"), ("one", [0, 0, 0])),
            (Ok("journey: three"), ("three", [1, 0, 0])),
            (Ok(""), ("three", [0, 1, 0])),
        ] {
            source.say(text);
            // The look that is under way may have been at the last text.
            let mut seen = invocation(&keeper).await;
            if seen.1 != expected.1 {
                seen = invocation(&keeper).await;
            }
            let (name, news) = seen;
            assert_eq!((name.as_str(), news), expected, "{text:?}");
        }
    }

    #[tokio::test]
    async fn the_age_is_that_of_the_last_answer() {
        let source = Arc::new(Told::new(Ok("journey: one")));
        let keeper = started(&source, ALWAYS).await;
        let age_ms = async || keeper.for_invocation(Instant::now()).await.expect("a journey").1.age_ms;
        source.say(Err(true));
        let failing_since = Instant::now();
        while failing_since.elapsed() < Duration::from_millis(40) {
            invocation(&keeper).await;
        }
        assert!(age_ms().await >= 40, "a failure is no answer");
        source.say(Ok("journey: [")); // but a journey that is refused is one
        while age_ms().await >= 40 {
            invocation(&keeper).await;
        }
    }

    #[tokio::test]
    async fn no_invocation_waits_for_a_source_that_hangs() {
        let mut told = Told::new(Ok("journey: one"));
        told.answers_at_start = false;
        told.takes = Duration::from_millis(50);
        let source = Arc::new(told);
        let keeper = started(&source, ALWAYS).await;
        invocation(&keeper).await;
        let before = Instant::now();
        for _ in 0..100 {
            let answer = keeper.for_invocation(before).await;
            answer.expect("the running one");
        }
        assert!(before.elapsed() < source.takes, "{:?}", before.elapsed());
        invocation(&keeper).await;
        assert_eq!(source.reads(), 2, "one look at a time");
    }

    #[tokio::test]
    async fn at_start_what_is_wrong_stops_the_function_with_all_of_it() {
        for (text, parts) in [
            (
                Ok("journey: one\nsteps: 3\nrules: []"),
                &["test:journey:2:", "test:journey:3:", "usher check"][..],
            ),
            (Err(false), &["can't read the journey test:journey: it is not there"]),
        ] {
            let keeper = JourneyKeeper::new(Arc::new(Told::new(text)), LONG);
            let error = chain(&keeper.start().await.expect_err("it is wrong"));
            for part in parts {
                assert!(error.contains(part), "{part} is missing in: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_is_silent_at_the_start_is_read_by_the_first_invocation() {
        let mut told = Told::new(Err(true));
        told.answers_at_start = false;
        let source = Arc::new(told);
        let keeper = started(&source, LONG).await;
        assert_eq!(source.reads(), 0);
        let deadline = Instant::now() + FIRST_READ_PAUSE * 3;
        let error = keeper.for_invocation(deadline).await.expect_err("nothing to run");
        assert_eq!(JourneyNews::of_error(&error).refresh_failed, 1);
        assert!((1..=3).contains(&source.reads()), "as often as there is time for");
        source.say(Ok("journey: ["));
        let error = keeper.for_invocation(deadline).await.expect_err("nothing to run");
        assert_eq!(JourneyNews::of_error(&error).refused, 1);
        source.say(Ok("journey: one"));
        assert_eq!(invocation(&keeper).await, ("one".to_owned(), [0, 0, 0]));
    }
}
