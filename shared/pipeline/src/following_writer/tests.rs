//! A journey that changes between batches, and in the middle of one.

use std::sync::Arc;
use std::time::Duration;

use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_wire::{profile_json, profile_state};

use super::*;
use crate::journey_source::{JourneySource, JourneySourceError, JourneyText};
use crate::memory::{MemoryClock, MemoryProfileTable, MemorySink, MemoryStream, Operation};
use crate::testing::{EPOCH_MS, LONG, TestRecord, invocation, payload};

const BEFORE: &str = r"
journey: before
features:
  clicks: { count: click }
  lately: { count: click, within: 10m }
  pages: { count: page_view }
contents: [{ id: tour }]
triggers:
  - { id: keen, on: click, when: features.clicks == 3, offer: tour, slot: top }
";

/// `lately` has another window, `pages` is gone, `views` and the rule `welcome` are new.
const AFTER: &str = r"
journey: after
features:
  views: { count: page_view }
  clicks: { count: click }
  lately: { count: click, within: 1h }
contents: [{ id: tour }]
triggers:
  - { id: welcome, on: click, offer: tour, slot: top, limit: 1 }
  - { id: keen, on: click, when: features.clicks == 3, offer: tour, slot: top }
";

/// A file that a test writes.
#[derive(Clone, Debug)]
struct Told(Arc<Mutex<Option<String>>>);

impl Told {
    fn new(text: &str) -> Told {
        Told(Arc::new(Mutex::new(Some(text.to_owned()))))
    }

    fn say(&self, text: &str) {
        *self.0.lock().expect("no panics") = Some(text.to_owned());
    }
}

impl JourneySource for Told {
    fn name(&self) -> &str {
        "test:journey"
    }

    fn answers_at_start(&self) -> bool {
        true
    }

    fn read(&self) -> JourneyText<'_> {
        let text = self.0.lock().expect("no panics").clone();
        Box::pin(std::future::ready(text.ok_or_else(|| JourneySourceError {
            message: "there is none".to_owned(),
            may_pass: false,
            source: None,
        })))
    }
}

struct World {
    told: Told,
    profiles: MemoryProfileTable,
    triggers: MemoryStream,
    sink: MemorySink,
    writer: FollowingProfileWriter<MemoryProfileTable, MemoryStream, MemoryClock, MemorySink>,
    records: u64,
}

impl World {
    fn new(text: &str) -> World {
        let told = Told::new(text);
        let (profiles, triggers, sink) = (
            MemoryProfileTable::default(),
            MemoryStream::default(),
            MemorySink::default(),
        );
        let ports = ProfileWriterPorts {
            profiles: profiles.clone(),
            triggers: triggers.clone(),
            rejected: MemoryStream::default(),
            clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 1_000_000)),
            telemetry: sink.clone(),
        };
        let config = ProfileWriterConfig {
            write_concurrency: 8,
            parallelization_factor: 1,
            metrics_namespace: "Usher".to_owned(),
        };
        let journeys = JourneyKeeper::new(Arc::new(told.clone()), Duration::ZERO);
        World {
            writer: FollowingProfileWriter::new(journeys, ports, config),
            told,
            profiles,
            triggers,
            sink,
            records: 0,
        }
    }

    /// Runs a batch of one event for each of these types; gives what was counted.
    async fn batch(&mut self, event_types: &[&str]) -> ProfileWriterBatch {
        let records: Vec<TestRecord> = event_types
            .iter()
            .map(|event_type| {
                self.records += 1;
                let number = self.records;
                let at = Timestamp::from_epoch_ms(EPOCH_MS + number as i64 * 1000);
                let event = format!(
                    r#"{{"event_id":"{number}","event_type":"{event_type}","timestamp":"{at}","user_id":"ann"}}"#
                );
                TestRecord::new(number, event)
            })
            .collect();
        let response = self.writer.run(invocation(&payload(&records), LONG)).await;
        assert_eq!(response.expect("a batch").retries_from(), None);
        self.counted()
    }

    /// Runs empty batches until the look that finds `text` was taken in.
    async fn deploy(&mut self, text: &str) -> ProfileWriterBatch {
        self.told.say(text);
        loop {
            let counted = self.batch(&[]).await;
            if counted.journey_changed + counted.journey_refused > 0 {
                return counted;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn counted(&self) -> ProfileWriterBatch {
        ProfileWriterBatch::from_line(self.sink.lines().last().expect("a line a batch")).expect("ours")
    }

    /// A feature of the stored profile, as `text` has it.
    fn feature(&self, text: &str, name: &str) -> String {
        let journey = Journey::parse(text).expect("a journey");
        let item = self.profiles.item("ann").expect("it is stored");
        let profile = profile_state::decode(&item.state, item.version, "ann", &journey).expect("readable");
        let index = journey.features.iter().position(|feature| feature.name == name);
        profile_json::feature_json(&profile, &journey, index.expect("it has it"), profile.now)
    }

    fn rules_fired(&self) -> Vec<String> {
        let records = self.triggers.records();
        let texts = records
            .iter()
            .map(|record| String::from_utf8_lossy(&record.record.data).into_owned());
        texts
            .map(|text| {
                let rule = ["welcome", "keen"].iter().find(|rule| text.contains(*rule));
                (*rule.expect("a rule of the journey")).to_owned()
            })
            .collect()
    }
}

#[tokio::test]
async fn a_changed_journey_starts_what_is_new_keeps_what_is_the_same_and_drops_what_is_gone() {
    let mut world = World::new(BEFORE);
    world.writer.start().await.expect("it is right");
    world.batch(&["page_view", "click", "click"]).await;
    for (feature, value) in [("clicks", "2"), ("lately", "2"), ("pages", "1")] {
        assert_eq!(world.feature(BEFORE, feature), value, "{feature}");
    }

    let counted = world.deploy(AFTER).await;
    assert_eq!((counted.journey_changed, counted.journey_refused), (1, 0));
    let counted = world.batch(&["page_view", "click"]).await;
    assert_eq!(
        (counted.profile_reads, counted.applied, counted.journey_changed),
        (1, 2, 0),
        "the profile laid out for the former journey is not used"
    );
    // The same definition goes on, another window starts anew, and what is new starts now.
    for (feature, value) in [("clicks", "3"), ("lately", "1"), ("views", "1")] {
        assert_eq!(world.feature(AFTER, feature), value, "{feature}");
    }
    assert_eq!(
        world.rules_fired(),
        ["welcome"],
        "two on one slot: the first of the file is shown"
    );
    let counted = world.batch(&["click"]).await;
    assert_eq!(counted.profile_reads, 0, "remembered again");

    // Back to the former file: what it dropped is gone, and starts anew.
    world.deploy(BEFORE).await;
    world.batch(&["page_view"]).await;
    for (feature, value) in [("clicks", "4"), ("lately", "0"), ("pages", "1")] {
        assert_eq!(world.feature(BEFORE, feature), value, "{feature}");
    }
}

#[tokio::test]
async fn p4_a_batch_in_conflict_is_planned_again_by_the_journey_that_it_began_with() {
    let mut world = World::new(BEFORE);
    world.batch(&["click", "click"]).await;
    let (other, told, mut is_first) = (world.profiles.clone(), world.told.clone(), true);
    world.profiles.faults().on_call(move |call| {
        if call.operation == Operation::PutProfile && std::mem::take(&mut is_first) {
            // Another container writes, and the new journey is there, before this one's write.
            let mut item = other.item("ann").expect("it is stored");
            item.version += 1;
            other.insert(item);
            told.say(AFTER);
        }
        None
    });
    let counted = world.batch(&["click"]).await;
    assert_eq!((counted.conflicts, counted.applied), (1, 1));
    assert_eq!(world.rules_fired(), ["keen"], "the new journey would have said welcome");
    assert_eq!(world.feature(BEFORE, "lately"), "3");
    let mut counted = world.batch(&[]).await;
    while counted.journey_changed == 0 {
        counted = world.batch(&[]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.batch(&["click"]).await;
    // What was stored unsent when the profile was read is put again, under its id (P5).
    assert_eq!(world.rules_fired(), ["keen", "keen", "welcome"]);
}

#[tokio::test]
async fn a_bad_version_changes_nothing_but_the_metrics() {
    let mut world = World::new(BEFORE);
    world.batch(&["click"]).await;
    let counted = world.deploy("journey: after\nfeatures: 7").await;
    assert_eq!((counted.journey_changed, counted.journey_refused), (0, 1));
    let counted = world.batch(&["click"]).await;
    assert_eq!((counted.applied, counted.profile_reads), (1, 0));
    assert_eq!(world.feature(BEFORE, "clicks"), "2");
}

#[tokio::test]
async fn p1_without_a_journey_the_whole_batch_comes_again_and_the_metrics_tell_why() {
    for (text, refused, failed) in [(Some("journey: ["), 1, 0), (None, 0, 1)] {
        let world = World::new("");
        *world.told.0.lock().expect("no panics") = text.map(str::to_owned);
        assert!(
            world.writer.start().await.is_err(),
            "as a function that stops at its start"
        );
        let counted = world.counted();
        assert_eq!(
            (counted.journey_refused, counted.journey_refresh_failed),
            (refused, failed)
        );
        let answer = world.writer.run(invocation(&payload(&[]), LONG)).await;
        let error = crate::retry::chain(&answer.expect_err("nothing to run"));
        assert!(error.contains("test:journey"), "{error}");
        let counted = world.counted();
        assert_eq!(
            (counted.journey_refused, counted.journey_refresh_failed),
            (refused, failed)
        );
        assert_eq!(world.profiles.faults().calls().len(), 0);
    }
}
