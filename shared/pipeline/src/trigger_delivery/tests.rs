use std::time::Duration;

use super::*;
use crate::memory::{Call, Fault, MemoryClock, MemoryDecisionTable, MemoryDelivery, MemorySink, Operation};
use crate::testing::{EPOCH_MS, LONG, SHORT, TestRecord, invocation, payload, retried_from};

const TTL_DAYS: u32 = 90;

type Flow = TriggerDelivery<MemoryDecisionTable, MemoryDelivery, MemoryClock, MemorySink>;

/// A flow and what it writes to.
struct World {
    decisions: MemoryDecisionTable,
    delivery: MemoryDelivery,
    sink: MemorySink,
    flow: Flow,
}

/// What an invocation came to.
struct Ran {
    retried_from: Option<usize>,
    counted: TriggerDeliveryBatch,
}

impl World {
    fn new() -> World {
        World::of(MemoryDelivery::default())
    }

    fn of(delivery: MemoryDelivery) -> World {
        let (decisions, sink) = (MemoryDecisionTable::default(), MemorySink::default());
        let ports = TriggerDeliveryPorts {
            decisions: decisions.clone(),
            delivery: delivery.clone(),
            clock: MemoryClock::at(Timestamp::from_epoch_ms(EPOCH_MS + 1_000_000)),
            telemetry: sink.clone(),
        };
        let config = TriggerDeliveryConfig {
            delivery_concurrency: 8,
            decision_ttl_days: TTL_DAYS,
            metrics_namespace: "Usher".to_owned(),
        };
        World {
            decisions,
            delivery,
            sink,
            flow: TriggerDelivery::new(ports, config),
        }
    }

    async fn run(&self, records: &[TestRecord]) -> Ran {
        self.run_within(records, LONG).await
    }

    /// Invokes the flow and checks what must hold of every invocation, whatever fails in it (P1): each record counts
    /// once, and those that come again are exactly those from the record that the response names.
    async fn run_within(&self, records: &[TestRecord], time: Duration) -> Ran {
        let started = std::time::Instant::now();
        let response = self
            .flow
            .run(invocation(&payload(records), time))
            .await
            .expect("a Kinesis batch");
        assert!(started.elapsed() < time + Duration::from_secs(2), "P10: it ends");
        let counted = TriggerDeliveryBatch::from_line(self.sink.lines().last().expect("a line a batch")).expect("ours");
        let settled = counted.delivered
            + counted.duplicate
            + counted.undeliverable
            + counted.held_out
            + counted.outcomes_filed
            + counted.outcomes_known
            + counted.other_kind
            + counted.malformed;
        assert_eq!(counted.received, records.len() as u64, "{counted:?}");
        assert_eq!(settled + counted.retried, counted.received, "{counted:?}");
        let retried_from = retried_from(&response, records);
        assert_eq!(settled, retried_from.unwrap_or(records.len()) as u64, "{counted:?}");
        Ran { retried_from, counted }
    }

    /// The ids that the receiver took, in order.
    fn delivered(&self) -> Vec<String> {
        let delivered = self.delivery.delivered();
        delivered.into_iter().map(|decision| decision.trigger_id).collect()
    }

    /// What is filed under a decision.
    fn outcomes_of(&self, id: &str) -> OutcomeItem {
        let outcomes = self.decisions.outcomes();
        let found = outcomes.into_iter().find(|outcome| outcome.trigger_id == id);
        found.expect("it is filed")
    }

    /// The statuses, by trigger id.
    fn statuses(&self) -> Vec<(String, &'static str)> {
        let decisions = self.decisions.decisions();
        decisions
            .into_iter()
            .map(|(decision, status)| (decision.trigger_id, status.name()))
            .collect()
    }
}

/// A decision for a user who is held out.
fn held_out(number: u64, user: &str, id: &str) -> TestRecord {
    let shown = trigger(number, user, id);
    let text = String::from_utf8(shown.data).expect("JSON");
    TestRecord::new(number, text.replace('}', r#","held_out":true}"#))
}

fn trigger(number: u64, user: &str, id: &str) -> TestRecord {
    TestRecord::new(
        number,
        format!(
            r#"{{"kind":"decision","trigger_id":"{id}","user_id":"{user}","rule":"welcome","slot":"top","offer":"tour","decided_at":"2026-01-05T10:00:00Z"}}"#
        ),
    )
}

/// What came of a decision so far.
fn outcome(number: u64, user: &str, id: &str, rewards_so_far: &[&str]) -> TestRecord {
    let rewards = serde_json::to_string(rewards_so_far).expect("text");
    TestRecord::new(
        number,
        format!(r#"{{"kind":"outcome","trigger_id":"{id}","user_id":"{user}","rewards_so_far":{rewards}}}"#),
    )
}

/// Records of these triggers, written `user id`.
fn triggers(written: &[&str]) -> Vec<TestRecord> {
    let record = |(index, text): (usize, &&str)| {
        let (user, id) = text.split_once(' ').expect("a user and an id");
        trigger(index as u64, user, id)
    };
    written.iter().enumerate().map(record).collect()
}

/// Meets calls of one kind that name one trigger.
fn failing(operation: Operation, id: &'static str, fault: Fault) -> impl FnMut(&Call) -> Option<Fault> + Send {
    move |call| (call.operation == operation && call.keys == [id]).then(|| fault.clone())
}

#[tokio::test]
async fn an_empty_batch_is_done() {
    let world = World::new();
    let ran = world.run(&[]).await;
    assert_eq!((ran.retried_from, ran.counted.received), (None, 0));
    assert!(world.decisions.faults().calls().is_empty());
}

#[tokio::test]
async fn p5_a_trigger_is_delivered_once_by_its_id() {
    for (delivery, statuses_set) in [(MemoryDelivery::default(), 2), (MemoryDelivery::without_receipt(), 0)] {
        let world = World::of(delivery);
        let batch = triggers(&["a 1", "a 1", "b 2", "a 1"]);
        let ran = world.run(&batch).await;
        assert_eq!(
            (ran.retried_from, ran.counted.delivered, ran.counted.duplicate),
            (None, 2, 2)
        );
        assert_eq!(ran.counted.trigger_to_delivered.len(), 2);
        let again = world.run(&batch).await;
        assert_eq!((again.counted.delivered, again.counted.duplicate), (0, 4));
        let mut delivered = world.delivered();
        delivered.sort();
        assert_eq!(delivered, ["1", "2"]);
        assert_eq!(
            world.statuses(),
            [("1".to_owned(), "delivered"), ("2".to_owned(), "delivered")]
        );
        assert_eq!(
            world.decisions.faults().count(Operation::SetDecisionStatus),
            statuses_set
        );
    }
}

#[tokio::test]
async fn p5_the_same_id_of_another_user_is_another_decision() {
    let world = World::new();
    assert_eq!(world.run(&triggers(&["a 1", "b 1"])).await.counted.delivered, 2);
    assert_eq!(world.decisions.decisions().len(), 2);
}

#[tokio::test]
async fn a_decision_is_recorded_whole_and_for_as_long_as_was_said() {
    let world = World::new();
    let batch = triggers(&["a 1"]);
    world.run(&batch).await;
    let (decision, _) = world.decisions.decisions().remove(0);
    assert_eq!(decision.trigger.as_bytes(), batch[0].data);
    assert_eq!(
        [decision.rule, decision.slot, decision.offer],
        ["welcome", "top", "tour"]
    );
    let day_s = 24 * 60 * 60;
    assert_eq!(
        decision.expires_at_epoch_s,
        (EPOCH_MS + 1_000_000) / 1000 + i64::from(TTL_DAYS) * day_s
    );
}

#[tokio::test]
async fn p3_p6_whatever_fails_for_one_user_the_others_are_delivered_and_the_rest_comes_again_in_order() {
    use Operation::{Deliver, RecordDecision, SetDecisionStatus};
    // What fails for a's second trigger, its status after that, and how often it is delivered in the end.
    for (operation, fault, status, delivered) in [
        (RecordDecision, Fault::Throttle, None, 1),
        (RecordDecision, Fault::Refuse, None, 1),
        (RecordDecision, Fault::Hang, None, 1),
        (RecordDecision, Fault::LostAnswer, Some("pending"), 1),
        (Deliver, Fault::Throttle, Some("pending"), 1),
        (Deliver, Fault::Refuse, Some("pending"), 1),
        (Deliver, Fault::Hang, Some("pending"), 1),
        // Three attempts took effect and could not tell; the receiver acts once by the id.
        (Deliver, Fault::LostAnswer, Some("pending"), 4),
        // It was delivered and that could not be noted: it goes out again under the same id.
        (SetDecisionStatus, Fault::Throttle, Some("pending"), 2),
        (SetDecisionStatus, Fault::Refuse, Some("pending"), 2),
        (SetDecisionStatus, Fault::Hang, Some("pending"), 2),
        // The note took effect, but that was not known until the table said so.
        (SetDecisionStatus, Fault::LostAnswer, Some("delivered"), 1),
    ] {
        let what = format!("{operation:?} {fault:?}");
        let world = World::new();
        world
            .decisions
            .faults()
            .on_call(failing(operation, "a2", fault.clone()));
        world.delivery.faults().on_call(failing(operation, "a2", fault));
        let batch = triggers(&["a a1", "b b1", "a a2", "b b2", "a a3"]);
        // Three attempts of a delivery pause for 60 ms at most.
        let ran = world.run_within(&batch, SHORT * 2).await;
        assert_eq!((ran.retried_from, ran.counted.delivered), (Some(2), 2), "{what}");
        let found = world
            .statuses()
            .into_iter()
            .find(|(id, _)| id == "a2")
            .map(|(_, status)| status);
        assert_eq!(found, status, "{what}");
        assert!(!world.delivered().contains(&"a3".to_owned()), "P3: {what}");
        assert!(world.delivered().contains(&"b2".to_owned()), "P6: {what}");

        world.decisions.faults().on_call(|_| None);
        world.delivery.faults().on_call(|_| None);
        let ran = world.run(&batch[2..]).await;
        assert_eq!(ran.retried_from, None, "{what}");
        let of_a: Vec<_> = world.delivered().into_iter().filter(|id| id.starts_with('a')).collect();
        let times = of_a.iter().filter(|id| *id == "a2").count();
        assert_eq!(times, delivered, "{what}");
        let mut in_order = of_a;
        in_order.dedup();
        assert_eq!(in_order, ["a1", "a2", "a3"], "{what}");
        assert!(
            world.statuses().iter().all(|(_, status)| *status == "delivered"),
            "{what}"
        );
    }
}

#[tokio::test]
async fn p5_a_pending_decision_is_delivered_again() {
    let world = World::new();
    let decision = DecisionItem {
        user_id: "a".to_owned(),
        trigger_id: "1".to_owned(),
        rule: String::new(),
        slot: String::new(),
        offer: String::new(),
        decided_at: Timestamp::default(),
        trigger: String::new(),
        expires_at_epoch_s: 0,
    };
    for (status, delivered) in [
        (DecisionStatus::Pending, 1),
        (DecisionStatus::Delivered, 1),
        (DecisionStatus::Undeliverable, 1),
        (DecisionStatus::HeldOut, 1),
    ] {
        world.decisions.remove("a", "1");
        world.decisions.record(&decision, status).await.expect("it works");
        let ran = world.run(&triggers(&["a 1"])).await;
        assert_eq!(ran.counted.delivered, u64::from(status == DecisionStatus::Pending));
        assert_eq!(world.delivered().len(), delivered, "{status:?}");
    }
    // A version that knew nothing of holdouts may have recorded it first.
    world.decisions.remove("a", "1");
    let pending = DecisionStatus::Pending;
    world.decisions.record(&decision, pending).await.expect("it works");
    assert_eq!(world.run(&[held_out(0, "a", "1")]).await.counted.held_out, 1);
    assert_eq!((world.statuses()[0].1, world.delivered().len()), ("held_out", 1));
}

#[tokio::test]
async fn p6_what_is_refused_for_good_is_undeliverable_and_stops_nothing() {
    let world = World::new();
    world.delivery.refuse("1", 410);
    let batch = triggers(&["a 1", "a 2", "a 1"]);
    let ran = world.run(&batch).await;
    assert_eq!(
        (ran.retried_from, ran.counted.undeliverable, ran.counted.delivered),
        (None, 1, 1)
    );
    assert_eq!(ran.counted.duplicate, 1);
    assert_eq!(
        world.statuses(),
        [("1".to_owned(), "undeliverable"), ("2".to_owned(), "delivered")]
    );
    assert_eq!(world.run(&batch).await.counted.duplicate, 3);
    assert_eq!(
        world.delivery.faults().count(Operation::Deliver),
        2,
        "it is not asked again"
    );
}

#[tokio::test]
async fn p5_a_decision_that_is_held_out_is_recorded_once_and_goes_nowhere() {
    for delivery in [MemoryDelivery::default(), MemoryDelivery::without_receipt()] {
        let world = World::of(delivery);
        let batch = [
            trigger(0, "a", "1"),
            held_out(1, "a", "2"),
            held_out(2, "b", "3"),
            trigger(3, "a", "4"),
        ];
        for (held_out, delivered, duplicate) in [(2, 2, 0), (0, 0, 4)] {
            let ran = world.run(&batch).await;
            let counted = [ran.counted.held_out, ran.counted.delivered, ran.counted.duplicate];
            assert_eq!((ran.retried_from, counted), (None, [held_out, delivered, duplicate]));
            assert_eq!(ran.counted.trigger_to_delivered.len() as u64, delivered);
            let statuses = world.statuses();
            let statuses: Vec<_> = statuses.iter().map(|(id, status)| (id.as_str(), *status)).collect();
            let expected = [
                ("1", "delivered"),
                ("2", "held_out"),
                ("4", "delivered"),
                ("3", "held_out"),
            ];
            assert_eq!(statuses, expected);
            assert_eq!(world.delivered(), ["1", "4"], "nobody is shown the others");
        }
    }
}

#[tokio::test]
async fn p3_what_is_held_out_keeps_its_place_when_a_call_fails() {
    use Operation::RecordDecision;
    for (fault, outcomes) in [
        (Fault::Throttle, [1, 0]),
        (Fault::Hang, [1, 0]),
        // It took effect, so it is known when it comes again.
        (Fault::LostAnswer, [0, 1]),
    ] {
        let world = World::new();
        world
            .decisions
            .faults()
            .on_call(failing(RecordDecision, "2", fault.clone()));
        let batch = [held_out(0, "a", "1"), held_out(1, "a", "2"), trigger(2, "a", "3")];
        let ran = world.run_within(&batch, SHORT * 2).await;
        let counted = [ran.counted.held_out, ran.counted.duplicate];
        assert_eq!((ran.retried_from, counted), (Some(1), [1, 0]), "{fault:?}");
        assert!(world.delivered().is_empty(), "P3: {fault:?}");
        world.decisions.faults().on_call(|_| None);
        let ran = world.run(&batch[1..]).await;
        assert_eq!([ran.counted.held_out, ran.counted.duplicate], outcomes, "{fault:?}");
        assert_eq!(world.delivered(), ["3"]);
    }
}

#[tokio::test]
async fn p1_a_receiver_that_is_down_gets_everything_when_it_is_back() {
    let world = World::new();
    world.delivery.faults().on_call(|_| Some(Fault::Throttle));
    let batch = triggers(&["a 1", "b 2", "a 3", "c 4"]);
    for _ in 0..2 {
        assert_eq!(world.run(&batch).await.retried_from, Some(0));
        assert!(world.delivered().is_empty());
    }
    world.delivery.faults().on_call(|_| None);
    let ran = world.run(&batch).await;
    assert_eq!((ran.retried_from, ran.counted.delivered), (None, 4));
}

#[tokio::test]
async fn p10_an_invocation_without_time_answers_all_the_same() {
    let world = World::new();
    world.decisions.faults().on_call(|_| Some(Fault::Hang));
    let batch = triggers(&["a 1", "b 2"]);
    assert_eq!(world.run_within(&batch, Duration::ZERO).await.retried_from, Some(0));
}

#[tokio::test]
async fn p6_what_is_no_decision_is_counted_and_stops_nothing() {
    let of = |kind: &str, id: &str, user: &str, at: &str| {
        format!(r#"{{"kind":"{kind}","trigger_id":"{id}","user_id":"{user}","decided_at":"{at}"}}"#)
    };
    let at = "2026-01-05T10:00:00Z";
    let long = |length: usize| "x".repeat(length);
    let padded = |length: usize| {
        let decision = of("decision", "1", "a", at);
        format!(r#"{},"more":"{}"}}"#, decision.trim_end_matches('}'), long(length))
    };
    for (data, outcome) in [
        (of("decision", "1", "a", at), Outcome::Delivered),
        (of("of the future", "1", "a", at), Outcome::OtherKind),
        (of("of the future", "", "", ""), Outcome::OtherKind),
        (of("outcome", "1", "a", at), Outcome::Malformed),
        (
            of("outcome", "1", "a", at).replace('}', r#","rewards_so_far":["x"]}"#),
            Outcome::Filed,
        ),
        (
            of("outcome", "", "a", at).replace('}', r#","rewards_so_far":["x"]}"#),
            Outcome::Malformed,
        ),
        (
            of("outcome", "1", "", at).replace('}', r#","rewards_so_far":["x"]}"#),
            Outcome::Malformed,
        ),
        (
            of("outcome", "1", "a", at)
                .replace('}', &format!(r#","rewards_so_far":["{}"]}}"#, long(OUTCOME_BYTES_MAX))),
            Outcome::Malformed,
        ),
        (of("", "1", "a", at), Outcome::OtherKind),
        (of("decision", "", "a", at), Outcome::Malformed),
        (of("decision", "1", "", at), Outcome::Malformed),
        (of("decision", "1", "a", "yesterday"), Outcome::Malformed),
        (
            of("decision", "1", "a", at).replace('}', r#","held_out":"maybe"}"#),
            Outcome::Malformed,
        ),
        (String::new(), Outcome::Malformed),
        ("not json".to_owned(), Outcome::Malformed),
        ("{}".to_owned(), Outcome::Malformed),
        ("[".repeat(500_000), Outcome::Malformed),
        // What the table would refuse for good.
        (of("decision", "1", &long(IDENTIFIER_BYTES_MAX), at), Outcome::Delivered),
        (
            of("decision", "1", &long(IDENTIFIER_BYTES_MAX + 1), at),
            Outcome::Malformed,
        ),
        (of("decision", &long(TRIGGER_ID_BYTES_MAX), "a", at), Outcome::Delivered),
        (
            of("decision", &long(TRIGGER_ID_BYTES_MAX + 1), "a", at),
            Outcome::Malformed,
        ),
        (padded(DECISION_BYTES_MAX - 200), Outcome::Delivered),
        (padded(DECISION_BYTES_MAX), Outcome::Malformed),
    ] {
        let world = World::new();
        let shown: String = data.chars().take(100).collect();
        let batch = [trigger(0, "b", "b1"), TestRecord::new(1, data), trigger(2, "c", "c1")];
        let ran = world.run(&batch).await;
        assert_eq!(ran.retried_from, None, "{shown}");
        let counted = [ran.counted.delivered, ran.counted.other_kind, ran.counted.malformed];
        let expected = match outcome {
            Outcome::OtherKind => [2, 1, 0],
            Outcome::Malformed => [2, 0, 1],
            Outcome::Filed => [2, 0, 0],
            _ => [3, 0, 0],
        };
        assert_eq!(counted, expected, "{shown}");
    }
    let world = World::new();
    let not_utf8 = [b"{\"kind\":\"decision\",\"rule\":\"".as_slice(), &[0xff], b"\"}"].concat();
    assert_eq!(world.run(&[TestRecord::new(0, not_utf8)]).await.counted.malformed, 1);
}

#[tokio::test]
async fn p3_many_users_decisions_go_out_in_order() {
    let world = World::new();
    // Calls fail now and then, so users fall back at different points.
    let mut random = fastrand::Rng::with_seed(7);
    world
        .delivery
        .faults()
        .on_call(move |_| (random.u8(0..10) == 0).then_some(Fault::Refuse));
    let batch: Vec<_> = (0..300)
        .map(|number| {
            trigger(
                number,
                &format!("u{}", number % 7),
                &format!("{}-{number:04}", number % 7),
            )
        })
        .collect();
    let mut from = 0;
    for _ in 0..100 {
        match world.run(&batch[from..]).await.retried_from {
            Some(index) => from += index,
            None => break,
        }
    }
    let delivered = world.delivered();
    assert_eq!(delivered.len(), batch.len(), "P5: each once");
    for user in 0..7 {
        let theirs: Vec<_> = delivered
            .iter()
            .filter(|id| id.starts_with(&format!("{user}-")))
            .collect();
        assert!(theirs.is_sorted(), "{theirs:?}");
    }
}

#[tokio::test]
async fn p5_outcomes_are_filed_once_and_in_any_order_the_one_with_the_most_rewards_stays() {
    let [none, click, both] = [&[][..], &["click"], &["click", "like"]].map(|rewards| (rewards.len() as u32, rewards));
    for (order, filed) in [
        ([none, click, both], 3),
        ([both, click, none], 1),
        ([click, both, click], 2),
        ([click, click, both], 2),
        ([none, both, both], 2),
    ] {
        let world = World::new();
        let mut batch = vec![trigger(0, "a", "1")];
        batch.extend(
            (1..)
                .zip(order)
                .map(|(number, (_, rewards))| outcome(number, "a", "1", rewards)),
        );
        let ran = world.run(&batch).await;
        let counted = [
            ran.counted.delivered,
            ran.counted.outcomes_filed,
            ran.counted.outcomes_known,
        ];
        assert_eq!((ran.retried_from, counted), (None, [1, filed, 3 - filed]), "{order:?}");
        let again = world.run(&batch).await.counted;
        assert_eq!(
            [again.outcomes_filed, again.outcomes_known, again.duplicate],
            [0, 3, 1],
            "{order:?}"
        );
        let kept = world.outcomes_of("1");
        assert_eq!(kept.rewards_so_far, 2, "{order:?}");
        assert!(
            batch.iter().any(|record| record.data == kept.outcome.as_bytes()),
            "it is kept whole"
        );
        assert_eq!(
            world.statuses(),
            [("1".to_owned(), "delivered")],
            "the decision is as it was"
        );
    }
}

#[tokio::test]
async fn after_a_merge_an_outcome_is_filed_under_the_user_that_the_decision_names() {
    let world = World::new();
    let later = outcome(2, "ann", "1", &["click"]);
    let text = String::from_utf8(later.data).expect("JSON");
    let text = text.replace('}', r#","decided_for":"anonymous:x"}"#);
    let ran = world
        .run(&[trigger(1, "anonymous:x", "1"), TestRecord::new(2, text)])
        .await;
    assert_eq!((ran.retried_from, ran.counted.outcomes_filed), (None, 1));
    assert_eq!(world.outcomes_of("1").user_id, "anonymous:x");
}

#[tokio::test]
async fn an_outcome_whose_decision_is_elsewhere_is_kept_and_does_not_stand_in_for_it() {
    let world = World::new();
    let ran = world.run(&[outcome(0, "a", "1", &["click"])]).await;
    assert_eq!((ran.retried_from, ran.counted.outcomes_filed), (None, 1));
    assert_eq!(world.run(&triggers(&["a 1"])).await.counted.delivered, 1);
    assert_eq!(world.outcomes_of("1").rewards_so_far, 1);
}

#[tokio::test]
async fn p3_p6_an_outcome_that_fails_comes_again_with_what_follows_of_its_user_only() {
    for (fault, filed_already) in [
        (Fault::Throttle, 0),
        (Fault::Refuse, 0),
        (Fault::Hang, 0),
        (Fault::LostAnswer, 1),
    ] {
        let world = World::new();
        let faults = world.decisions.faults();
        faults.on_call(failing(Operation::FileOutcome, "a1", fault.clone()));
        let batch = [
            trigger(0, "a", "a1"),
            outcome(1, "a", "a1", &["click"]),
            trigger(2, "b", "b1"),
            trigger(3, "a", "a2"),
            outcome(4, "b", "b1", &[]),
        ];
        let ran = world.run_within(&batch, SHORT * 2).await;
        assert_eq!((ran.retried_from, ran.counted.delivered), (Some(1), 1), "{fault:?}");
        assert_eq!(world.outcomes_of("b1").rewards_so_far, 0, "P6: {fault:?}");
        assert!(!world.delivered().contains(&"a2".to_owned()), "P3: {fault:?}");
        world.decisions.faults().on_call(|_| None);
        let ran = world.run(&batch[1..]).await;
        let counted = [ran.counted.outcomes_filed, ran.counted.outcomes_known];
        assert_eq!(
            (ran.retried_from, counted),
            (None, [1 - filed_already, 1 + filed_already]),
            "{fault:?}"
        );
        assert_eq!(world.outcomes_of("a1").rewards_so_far, 1, "{fault:?}");
        assert!(world.delivered().contains(&"a2".to_owned()), "{fault:?}");
    }
}
