use crate::condition::Scope;
use crate::event::{ArrivedEvent, Event, Properties, TIMER_EVENT};
use crate::journey::Journey;
use crate::plan::{UserPlan, plan_user};
use crate::profile::Profile;
use crate::rules::consider::{self, consider};
use crate::rules::{RuleCounts, RuleOutcome};
use crate::snapshots::Snapshots;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// A moment of a test: minutes after the epoch of all tests, with a few milliseconds more or less, such as `90` or `90-1ms`.
fn moment(text: &str) -> Timestamp {
    let (minutes, ms) = match text.find(['+', '-']) {
        Some(place) => (
            &text[..place],
            text[place..].trim_end_matches("ms").parse().expect(text),
        ),
        None => (text, 0i64),
    };
    time(minutes.parse::<i64>().expect(text) * MINUTE_MS + ms)
}

/// The record with this number: `ARRIVAL TYPE` and what else it has: `at=MOMENT`, which is its arrival otherwise,
/// `zone=TIME_ZONE`, `content=ID`, `x=JSON` for a property, `user=USER`, `id=ID`. `wake` stands for a timer event.
pub(crate) fn record(number: u64, text: &str) -> ArrivedEvent<'static> {
    let mut words = text.split_whitespace();
    let arrived_at = moment(words.next().expect("an arrival"));
    let event_type = match words.next().expect("a type") {
        "wake" => TIMER_EVENT,
        event_type => event_type,
    };
    let mut event = event(&format!("e{number}"), event_type, arrived_at);
    for word in words {
        let (key, value) = word.split_once('=').expect(word);
        match key {
            "at" => event.at = moment(value),
            "zone" => event.location.timezone = Some(value.to_owned().into()),
            "content" => event.content_id = Some(value.to_owned().into()),
            "user" => event.user = value.to_owned().into(),
            "id" => {
                event.id = value.to_owned().into();
                event.id_hash = crate::hash::hash_bytes(value.as_bytes());
            }
            "x" => {
                event.properties = Properties {
                    object: Some(format!("{{\"x\":{value}}}").leak()),
                    unknown: Vec::new(),
                }
            }
            _ => panic!("{word}"),
        }
    }
    arrived(event, 0, number, arrived_at)
}

/// Plans records one by one, each batch with its outbox sent, and gives the triggers, the profile and the counts.
pub(crate) fn played(journey: &Journey, records: &[ArrivedEvent<'_>]) -> (Vec<Trigger>, Profile, RuleCounts) {
    let mut profile = Profile::new(journey);
    let mut sent = Vec::new();
    let mut counts = RuleCounts::new(journey);
    for record in records {
        loop {
            let plan = plan_user(journey, Snapshots::none(), profile, [record]);
            profile = plan.profile;
            sent.append(&mut profile.outbox);
            counts.add(&plan.rules);
            if !plan.outcomes.is_empty() {
                break;
            }
        }
    }
    (sent, profile, counts)
}

pub(crate) fn records(lines: &[&str]) -> Vec<ArrivedEvent<'static>> {
    let numbered = lines.iter().enumerate();
    numbered.map(|(index, line)| record(index as u64 + 1, line)).collect()
}

/// What was offered: `RULE MINUTE`, with the content where it is not `c`, and the minute it was decided where that is later.
pub(crate) fn told(triggers: &[Trigger]) -> Vec<String> {
    let minute = |at: Timestamp| {
        let ms = at.ms_since(time(0));
        match ms % MINUTE_MS {
            0 => format!("{}", ms / MINUTE_MS),
            rest => format!("{}+{rest}ms", ms / MINUTE_MS),
        }
    };
    let line = |trigger: &Trigger| {
        let at = trigger.due_at.unwrap_or(trigger.decided_at);
        let mut line = format!("{} {}", trigger.rule, minute(at));
        if trigger.decided_at != at {
            line += &format!(" by {}", minute(trigger.decided_at));
        }
        if trigger.offer != "c" {
            line += &format!(" {}", trigger.offer);
        }
        if trigger.held_out {
            line += " held";
        }
        line
    };
    triggers.iter().map(line).collect()
}

/// A table's row: what it is about, the journey without its name, the records, and what is offered.
pub(crate) type Row = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

pub(crate) fn check(rows: &[Row]) {
    for (what, text, lines, expected) in rows {
        let journey = journey(&format!("journey: j\n{text}\n"));
        let (triggers, ..) = played(&journey, &records(lines));
        assert_eq!(told(&triggers), *expected, "{what}");
    }
}

#[test]
fn transitions_fire_when_their_condition_changes() {
    let enters = "features: { score: { count: click, within: 60m } }
contents: [{ id: c }]
triggers: [{ id: hot, enters: features.score >= 2, offer: c, slot: s }]";
    let leaves = "features: { score: { count: click, within: 60m } }
contents: [{ id: c }]
triggers: [{ id: cold, leaves: features.score >= 2, offer: c, slot: s }]";
    check(&[
        (
            "once on entering, and again after it was left",
            enters,
            &[
                "0 click", "1 click", "2 click", "3 view", "90 view", "91 click", "92 click",
            ],
            &["hot 1", "hot 92"],
        ),
        (
            "the first look counts as one where it did not hold before",
            "steps: [{ id: s, on: click }]
contents: [{ id: c }]
triggers: [{ id: r, enters: steps.s.done, offer: c, slot: s }]",
            &["0 click"],
            &["r 0"],
        ),
        (
            "leaving needs that it held before; decay is seen at the next event",
            leaves,
            &["0 view", "1 click", "2 click", "100 view", "101 view"],
            &["cold 100"],
        ),
        (
            "only at events of its types, where it names some",
            "features: { clicks: { count: click } }
contents: [{ id: c }]
triggers: [{ id: r, enters: features.clicks >= 2, on: view, offer: c, slot: s }]",
            &["0 click", "1 click", "2 click", "3 view", "4 view"],
            &["r 3"],
        ),
        (
            "or when a timer is due",
            "features: { score: { count: click, within: 60m } }
contents: [{ id: c }]
triggers:
  - { id: cold, leaves: features.score >= 2, offer: c, slot: s }
  - { id: later, after: 2h, since: click, offer: c, slot: t }",
            &["0 click", "1 click", "200 wake"],
            &["cold 121 by 200", "later 121 by 200"],
        ),
        (
            "what stops it does not put it off: it must leave and enter again",
            "features: { score: { count: click, within: 60m } }
contents: [{ id: c }]
triggers: [{ id: r, enters: features.score >= 2, cooldown: 3h, offer: c, slot: s }]",
            &[
                "0 click",
                "1 click",
                "90 click",
                "91 click",
                "182 view",
                "300 click",
                "301 click",
            ],
            &["r 1", "r 301"],
        ),
        (
            "its when and unless are asked at that moment only",
            "features: { score: { count: click, within: 60m } }
steps: [{ id: s, on: view }]
contents: [{ id: c }]
triggers: [{ id: r, enters: features.score >= 2, when: steps.s.done, offer: c, slot: s }]",
            &["0 click", "1 click", "2 view", "90 click", "91 click"],
            &["r 91"],
        ),
    ]);
}

#[test]
fn limits_count_for_the_user_the_session_or_the_version() {
    check(&[
        (
            "user: for ever",
            "contents: [{ id: c }]\ntriggers: [{ id: r, on: click, offer: c, slot: s, limit: { count: 2, per: user } }]",
            &["0 click", "1 click", "2 click", "100 click"],
            &["r 0", "r 1"],
        ),
        (
            "session: anew with each",
            "contents: [{ id: c }]\ntriggers: [{ id: r, on: click, offer: c, slot: s, limit: { count: 2, per: session } }]",
            &[
                "0 click",
                "1 click",
                "2 click",
                "100 click",
                "101 view",
                "102 click",
                "110 click",
            ],
            &["r 0", "r 1", "r 100", "r 102"],
        ),
        (
            "session: a late event that starts it earlier, or bridges two, changes nothing of what was counted",
            "contents: [{ id: c }]\ntriggers: [{ id: r, on: click, offer: c, slot: s, limit: { count: 1, per: session } }]",
            &[
                "60 click",
                "61 view at=40",
                "62 click",
                "120 click",
                "121 view at=91",
                "122 click",
            ],
            &["r 60", "r 120"],
        ),
    ]);
    // The version: the same rule in a changed file counts anew, and what counts for the user goes on.
    let text = |extra: &str, per: &str| {
        format!(
            "journey: j\n{extra}contents: [{{ id: c }}]\ntriggers: [{{ id: r, on: click, offer: c, slot: s, limit: {{ count: 1, per: {per} }} }}]\n"
        )
    };
    for (per, expected) in [("version", 2), ("user", 1)] {
        let mut profile = Profile::new(&journey(&text("", per)));
        let mut fired = 0;
        for (extra, line) in [
            ("", "0 click"),
            ("", "1 click"),
            ("ignore: [x]\n", "2 click"),
            ("ignore: [x]\n", "3 click"),
        ] {
            let journey = journey(&text(extra, per));
            let number = profile.applied_events + 1;
            let plan = plan_user(&journey, Snapshots::none(), profile, [&record(number, line)]);
            profile = plan.profile;
            fired += profile.outbox.drain(..).count();
        }
        assert_eq!(fired, expected, "{per}");
    }
}

const EVERY_REASON: &str = r#"
journey: j
features: { clicks: { count: click } }
steps: [{ id: joined, on: click }]
contents: [{ id: c }, { id: d }, { id: e }, { id: f }, { id: never, when: features.clicks > 99 }]
policy:
  cap: { offers: 1, within: 24h, slot: capped }
  content_cooldown: 1h
  quiet_hours: { from: "00:00", to: "08:00", slots: [quiet] }
  groups: { g: {} }
triggers:
  - { id: fired, on: click, offer: c, slot: a, limit: 1, group: g, priority: 9 }
  - { id: cap_filler, on: view, offer: d, slot: capped, limit: 1 }
  - { id: limited, on: [view, click], offer: e, slot: b, limit: 1 }
  - { id: cooling, on: view, offer: f, slot: c, cooldown: 2h }
  - { id: cooling2, on: click, offer: f, slot: c2, priority: -1 }
  - { id: condition_false, on: click, when: features.clicks > 9, offer: f, slot: d }
  - { id: unless_holds, on: click, unless: steps.joined.done, offer: f, slot: d }
  - { id: failed, on: click, when: event.properties.x > 9, offer: f, slot: d }
  - { id: ineligible, on: click, offer: never, slot: e }
  - { id: excluded, on: click, offer: f, slot: f, group: g }
  - { id: lost, on: click, offer: f, slot: a, priority: 1 }
  - { id: capped, on: click, offer: e, slot: capped }
  - { id: quiet, on: click, offer: f, slot: quiet }
"#;

#[test]
fn a_trigger_says_why_each_other_rule_did_not_fire() {
    let journey = journey(EVERY_REASON);
    let (triggers, ..) = played(&journey, &records(&["0 view", "90 click"]));
    let fired = triggers
        .iter()
        .find(|trigger| trigger.rule == "fired")
        .expect("it fired");
    let passed_over = |rule: &str| {
        let passed_over = fired.reason.passed_over.iter().find(|other| other.rule == rule);
        let passed_over = passed_over.unwrap_or_else(|| panic!("{rule}: {:?}", fired.reason.passed_over));
        let saw = passed_over
            .saw
            .iter()
            .map(|seen| format!(" {}={}", seen.name, seen.json));
        format!(
            "{}: {}{}",
            passed_over.outcome,
            passed_over.detail,
            saw.collect::<String>()
        )
    };
    for (rule, expected) in [
        ("limited", "limit_reached: limit reached: 1 per user"),
        (
            "condition_false",
            "condition_false: `features.clicks > 9` does not hold features.clicks=1",
        ),
        (
            "unless_holds",
            "condition_false: `steps.joined.done` holds steps.joined.done=true",
        ),
        (
            "failed",
            "condition_failed: `event.properties.x > 9`: it reads a value that isn't there event.properties.x=null",
        ),
        (
            "ineligible",
            "content_ineligible: never is not eligible: `features.clicks > 99` does not hold features.clicks=1",
        ),
        ("excluded", "excluded: excluded by fired of group g"),
        ("lost", "lost_to_priority: lost to priority of fired for a"),
        ("capped", "capped: capped: 1 offer within 24h in capped"),
        ("quiet", "quiet_until: quiet until 2024-01-01T08:00:00Z"),
    ] {
        assert_eq!(passed_over(rule), expected);
    }
    assert_eq!(fired.reason.won_over, ["lost"]);
    let cooling = consider(
        &Scope {
            journey: &journey,
            event: &event("x", "view", time(0)),
            profile: &played(&journey, &records(&["0 view"])).1,
            snapshots: Snapshots::none(),
            now: time(30 * MINUTE_MS),
        },
        3,
    );
    assert_eq!(
        (cooling.outcome, cooling.detail.as_str()),
        (
            Some(RuleOutcome::CoolingDown),
            "cooling down until 2024-01-01T02:00:00Z"
        )
    );
}

#[test]
fn every_look_is_counted_with_its_outcome() {
    let text = EVERY_REASON.replace("policy:", "exit: event.type == 'close'\nreentry: never\npolicy:")
        + "  - { id: dropped, on: open, offer: f, slot: dropped }\n  - { id: control, on: open, offer: f, slot: g, holdout: 100% }\n";
    let journey = journey(&text);
    let dropping = journey_of(&text.replace("slots: [quiet]", "slots: [dropped], then: drop"));
    let lines = records(&["0 view", "1 view", "90 click", "91 open", "92 close", "93 open"]);
    let (_, _, counts) = played(&journey, &lines);
    let (_, _, of_dropping) = played(&dropping, &lines);
    for (rule, outcome, count) in [
        ("fired", RuleOutcome::Fired, 1),
        ("limited", RuleOutcome::Fired, 1),
        ("limited", RuleOutcome::LimitReached, 2),
        ("cooling", RuleOutcome::CoolingDown, 1),
        ("condition_false", RuleOutcome::ConditionFalse, 1),
        ("failed", RuleOutcome::ConditionFailed, 1),
        ("ineligible", RuleOutcome::ContentIneligible, 1),
        ("excluded", RuleOutcome::Excluded, 1),
        ("lost", RuleOutcome::LostToPriority, 1),
        ("capped", RuleOutcome::Capped, 1),
        ("quiet", RuleOutcome::QuietUntil, 1),
        ("cooling2", RuleOutcome::Fired, 1),
        ("dropped", RuleOutcome::ContentCoolingDown, 1),
        ("control", RuleOutcome::ContentCoolingDown, 1),
        ("dropped", RuleOutcome::NotInJourney, 1),
    ] {
        let index = journey.rules.iter().position(|known| known.id == rule).expect(rule);
        assert_eq!(counts.get(index, outcome), count, "{rule} {}", outcome.name());
    }
    // Alone, before anything cools down.
    let (triggers, _, alone) = played(&dropping, &records(&["0 open"]));
    let index = |rule: &str| dropping.rules.iter().position(|known| known.id == rule).expect(rule);
    assert_eq!(alone.get(index("dropped"), RuleOutcome::Quiet), 1);
    assert_eq!(alone.get(index("control"), RuleOutcome::HeldOut), 1);
    assert_eq!(told(&triggers), ["control 0 f held"]);
    assert_eq!(
        triggers[0].reason.passed_over[0].detail,
        "quiet until 2024-01-01T08:00:00Z: dropped"
    );
    let looks = |counts: &RuleCounts| -> u64 {
        let rules = 0..journey.rules.len();
        rules
            .flat_map(|rule| RuleOutcome::ALL.map(|outcome| counts.get(rule, outcome)))
            .sum()
    };
    // Three rules look at each view, eleven at the click, two at each open.
    assert_eq!(
        (looks(&counts), looks(&of_dropping)),
        (2 * 3 + 11 + 2 * 2, 2 * 3 + 11 + 2 * 2)
    );
}

fn journey_of(text: &str) -> Journey {
    journey(text)
}

#[test]
fn p8_reasons_are_bounded() {
    let long = "x".repeat(250);
    let rules = (0..60).map(|rule| {
        format!("  - {{ id: rule_{rule}, on: click, when: event.properties.x == '{rule}' || '{long}' == event.properties.x, offer: c, slot: s{rule} }}\n")
    });
    let text = format!(
        "journey: j\ncontents: [{{ id: c }}]\ntriggers:\n  - {{ id: fires, on: click, offer: c, slot: s }}\n{}",
        rules.collect::<String>()
    );
    let journey = journey(&text);
    let line = format!("0 click x=\"{}\"", "y".repeat(5000));
    let (triggers, ..) = played(&journey, &records(&[&line]));
    let passed_over = &triggers[0].reason.passed_over;
    assert_eq!(passed_over.len(), crate::limits::REASON_RULES_MAX);
    assert!(
        passed_over
            .iter()
            .all(|rule| rule.detail.len() <= crate::limits::DETAIL_BYTES_MAX)
    );
    let values: usize = passed_over
        .iter()
        .flat_map(|rule| &rule.saw)
        .map(|seen| seen.name.len() + seen.json.len())
        .sum();
    assert!(values <= crate::limits::PASSED_OVER_BYTES_MAX, "{values}");
}

#[test]
fn durations_are_told_as_people_write_them() {
    for (ms, expected) in [
        (90_000, "90s"),
        (2 * 60 * MINUTE_MS, "2h"),
        (24 * 60 * MINUTE_MS, "24h"),
        (7 * 24 * 60 * MINUTE_MS, "7d"),
        (150 * MINUTE_MS, "150m"),
        (1500, "1500ms"),
    ] {
        assert_eq!(consider::duration(ms), expected);
    }
}

/// What `explain` asks: how a rule of any kind comes out as of a moment, with nothing changed by asking.
#[test]
fn p12_a_rule_can_be_considered_without_an_event() {
    let journey = journey(
        r#"
journey: j
features: { clicks: { count: click, within: 60m } }
steps: [{ id: joined, on: join }]
contents: [{ id: c }, { id: d, unless: steps.joined.done }]
triggers:
  - { id: on_event, on: click, when: features.clicks >= 2, offer: c, slot: a }
  - { id: enters, enters: features.clicks >= 2, offer: c, slot: b }
  - { id: timer, after: 2h, since: click, unless: steps.joined.done, offer: c, slot: c }
  - { id: content, on: click, offer: d, slot: d }
"#,
    );
    let (_, profile, _) = played(&journey, &records(&["0 click", "1 click", "2 join"]));
    let event = Event {
        user: "u".into(),
        ..Event::default()
    };
    for (rule, minute, outcome, detail, saw) in [
        (0, 2, Some(RuleOutcome::Fired), "fired", "features.clicks=2"),
        (
            0,
            90,
            Some(RuleOutcome::ConditionFalse),
            "`features.clicks >= 2` does not hold",
            "features.clicks=0",
        ),
        (
            1,
            2,
            None,
            "no change: `features.clicks >= 2` held at the last look",
            "features.clicks=2",
        ),
        (
            2,
            2,
            Some(RuleOutcome::ConditionFalse),
            "`steps.joined.done` holds",
            "steps.joined.done=true",
        ),
        (
            3,
            2,
            Some(RuleOutcome::ContentIneligible),
            "d is not eligible: `steps.joined.done` holds",
            "steps.joined.done=true",
        ),
    ] {
        let scope = Scope {
            journey: &journey,
            event: &event,
            profile: &profile,
            snapshots: Snapshots::none(),
            now: time(minute * MINUTE_MS),
        };
        let considered = consider(&scope, rule);
        let seen: Vec<_> = considered
            .saw
            .iter()
            .map(|seen| format!("{}={}", seen.name, seen.json))
            .collect();
        assert_eq!(
            (considered.outcome, considered.detail.as_str(), seen.join(" ").as_str()),
            (outcome, detail, saw)
        );
    }
    let nothing = consider(
        &Scope {
            journey: &journey,
            event: &event,
            profile: &profile,
            snapshots: Snapshots::none(),
            now: time(0),
        },
        99,
    );
    assert_eq!(nothing.outcome, None);
}

/// The plan of some records as one batch.
pub(crate) fn planned(journey: &Journey, profile: Profile, lines: &[ArrivedEvent<'_>]) -> UserPlan {
    plan_user(journey, Snapshots::none(), profile, lines)
}
