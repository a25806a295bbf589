use super::*;
use crate::journey::LimitPer;
use crate::plan::plan_user;
use crate::rules::Refused;
use crate::snapshots::Snapshots;
use crate::testing::{MINUTE_MS, arrived, event, journey, time};

const HOUR_MS: i64 = 60 * MINUTE_MS;

const JOURNEY: &str = r#"
journey: trial
steps:
  - { id: sign_up, on: sign_up }
  - { id: project, on: project_created }
features:
  clicks: { count: click, within: 10m }
contents:
  - { id: tour, unless: steps.project.done }
  - { id: demo, when: event.properties.plan == "team" }
entry: steps.sign_up.done
experiments:
  - { id: copy, arms: { short: 1, long: 1 } }
policy:
  cap: [{ offers: 1, within: 24h, slot: email }, { offers: 9, within: 7d }]
  quiet_hours: { from: "22:00", to: "08:00" }
  groups: { onboarding: { within: 1h } }
  holdout: 0%
triggers:
  - { id: welcome, on: sign_up, offer: tour, slot: in_app, limit: 1, group: onboarding }
  - { id: keen, on: [page_view, click], when: 'features.clicks >= 2 && event.category == "pricing"', offer: tour, slot: in_app, cooldown: 6h }
  - { id: by_plan, on: click, offer: demo, slot: in_app }
  - { id: once_active, enters: features.clicks >= 1, on: click, offer: tour, slot: side, group: onboarding }
  - { id: stalled, after: [2h, 26h], since: steps.sign_up, unless: steps.project.done, offer: tour, slot: email }
  - { id: any_event, when: event.local_hour >= 9, offer: tour, slot: side, limit: { count: 5, per: session } }
"#;

/// What is to be told of a user after these events, given in minutes after 2024-01-01T00:00:00Z.
fn told(events: &[(&str, i64)], now_minutes: i64) -> (Journey, Profile, Explanation) {
    let journey = journey(JOURNEY);
    let events: Vec<_> = events
        .iter()
        .enumerate()
        .map(|(number, (event_type, minutes))| {
            let at = time(minutes * MINUTE_MS);
            arrived(event(&format!("e{number}"), event_type, at), 0, number as u64 + 1, at)
        })
        .collect();
    let profile = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &events).profile;
    let explanation = explain(
        &journey,
        Snapshots::none(),
        &profile,
        "u",
        time(now_minutes * MINUTE_MS),
        None,
    );
    (journey, profile, explanation)
}

/// Noon and two minutes, after a sign-up at noon.
fn signed_up() -> Explanation {
    let noon = 12 * 60;
    told(&[("sign_up", noon), ("click", noon + 1)], noon + 2).2
}

fn of<'e>(explanation: &'e Explanation, rule: &str) -> &'e RuleStanding {
    let index = journey(JOURNEY).rules.iter().position(|known| known.id == rule);
    &explanation.rules[index.expect("a rule")]
}

#[test]
fn p7_every_rule_says_what_would_become_of_it_and_why() {
    let explanation = signed_up();
    let types = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (rule, event_types, outcome, needs_event, detail) in [
        (
            "welcome",
            &["sign_up"][..],
            Some(RuleOutcome::LimitReached),
            false,
            "limit reached: 1 per user",
        ),
        // Too few clicks: whatever the event's category, so none is needed to say so.
        (
            "keen",
            &["page_view", "click"],
            Some(RuleOutcome::ConditionFalse),
            false,
            "`features.clicks >= 2 && event.category == \"pricing\"` does not hold",
        ),
        (
            "by_plan",
            &["click"],
            Some(RuleOutcome::ContentIneligible),
            true,
            "demo is not eligible",
        ),
        (
            "once_active",
            &["click"],
            None,
            false,
            "no change: `features.clicks >= 1` held at the last look",
        ),
        ("stalled", &[], Some(RuleOutcome::Fired), false, ""),
        ("any_event", &[], Some(RuleOutcome::Fired), false, ""),
    ] {
        let standing = of(&explanation, rule);
        let [look] = standing.looks.as_slice() else {
            panic!("{rule}: {:?}", standing.looks);
        };
        assert_eq!((look.outcome, look.needs_event), (outcome, needs_event), "{rule}");
        assert_eq!(look.event_types, types(event_types), "{rule}");
        assert!(look.detail.starts_with(detail), "{rule}: {}", look.detail);
    }
}

#[test]
fn every_condition_shows_what_it_reads() {
    let explanation = signed_up();
    let shown = |rule: &str| -> Vec<String> {
        let standing = of(&explanation, rule);
        let text = |condition: &ConditionStanding| {
            let values = condition.values.iter().map(|value| {
                let json = value.json.as_deref().unwrap_or("needs an event");
                format!("{} = {json}", value.name)
            });
            let values: Vec<String> = values.collect();
            format!("{:?} {:?}: {}", condition.role, condition.holds, values.join(", "))
        };
        standing.conditions.iter().map(text).collect()
    };
    assert_eq!(
        shown("keen"),
        [
            "When Some(false): features.clicks = 1, event.category = needs an event",
            "ContentUnless(\"tour\") Some(false): steps.project.done = false",
        ]
    );
    assert_eq!(
        shown("by_plan"),
        ["ContentWhen(\"demo\") None: event.properties.plan = needs an event"]
    );
    assert_eq!(
        shown("stalled"),
        [
            "Unless Some(false): steps.project.done = false",
            "ContentUnless(\"tour\") Some(false): steps.project.done = false",
        ]
    );
    assert_eq!(shown("any_event")[0], "When Some(true): event.local_hour = 12");
}

#[test]
fn p12_timers_and_policy_are_told_as_of_any_time() {
    let noon = 12 * 60;
    let (journey, profile, explanation) = told(&[("sign_up", noon), ("click", noon + 1)], noon + 2);
    let timer = of(&explanation, "stalled").timer.expect("it runs");
    assert_eq!((timer.since, timer.done, timer.reminders), (time(12 * HOUR_MS), 0, 2));
    assert_eq!(timer.due_at, Some(time(14 * HOUR_MS)));
    let (is_in, membership) = explanation.membership.expect("the journey has an entry");
    assert_eq!((is_in, membership.entered_at), (true, Some(time(12 * HOUR_MS))));
    assert_eq!(explanation.is_held_out, Some(false));
    assert_eq!(explanation.arms.len(), 1);
    assert_eq!(explanation.local_time, Some((noon as u16 + 2, None)));
    let [of_email, overall] = explanation.caps.as_slice() else {
        panic!("{:?}", explanation.caps);
    };
    assert_eq!((of_email.used, of_email.free_at), (0, None));
    assert_eq!((overall.used, overall.offers), (profile.offers.len(), 9));

    // The reminder at 14:00 uses up the cap of its slot for a day, which a later look sees.
    let (_, _, later) = told(&[("sign_up", noon), ("page_view", 16 * 60)], 23 * 60);
    let [of_email, _] = later.caps.as_slice() else {
        panic!("{:?}", later.caps);
    };
    assert_eq!((of_email.used, of_email.free_at), (1, Some(time(38 * HOUR_MS))));
    let stalled = of(&later, "stalled");
    assert_eq!((stalled.fired, stalled.last_fired_at), (1, Some(time(14 * HOUR_MS))));
    assert_eq!(
        stalled.timer.map(|timer| (timer.done, timer.due_at)),
        Some((1, Some(time(38 * HOUR_MS))))
    );
    assert_eq!(stalled.looks[0].outcome, Some(RuleOutcome::Capped));
    assert_eq!(of(&later, "any_event").quiet_until, Some(time(32 * HOUR_MS)));

    // One rule alone is the same as in all, and a rule that is not there is nothing.
    let index = journey
        .rules
        .iter()
        .position(|rule| rule.id == "stalled")
        .expect("a rule");
    let one = explain(&journey, Snapshots::none(), &profile, "u", explanation.now, Some(index));
    assert_eq!(one.rules, [of(&explanation, "stalled").clone()]);
    assert!(
        explain(&journey, Snapshots::none(), &profile, "u", explanation.now, Some(99))
            .rules
            .is_empty()
    );
}

#[test]
fn limits_cooldowns_and_groups_say_how_far_they_are() {
    let explanation = signed_up();
    let welcome = of(&explanation, "welcome");
    let limit = welcome.limit.expect("it has one");
    assert_eq!((limit.0, limit.1.count, limit.1.per), (1, 1, LimitPer::User));
    assert_eq!((welcome.fired, welcome.last_fired_at), (1, Some(time(12 * HOUR_MS))));
    assert_eq!(of(&explanation, "any_event").limit.map(|(used, _)| used), Some(2));
    let (group, excluded_by) = of(&explanation, "once_active").group.as_ref().expect("it has one");
    assert_eq!(
        (group.as_str(), excluded_by.as_deref()),
        ("onboarding", Some("welcome"))
    );
}

#[test]
fn a_user_of_whom_nothing_is_known_is_explained_too() {
    let (.., explanation) = told(&[], 0);
    assert_eq!(explanation.membership.map(|(is_in, _)| is_in), Some(false));
    for standing in &explanation.rules {
        assert_eq!(standing.looks[0].outcome, Some(RuleOutcome::NotInJourney));
        assert_eq!((standing.fired, standing.timer), (0, None));
    }
}

#[test]
fn p10_a_profile_that_does_not_fit_its_journey_is_no_panic() {
    let journey = journey(JOURNEY);
    let mut profile = Profile::new(&journey);
    profile.rules.clear();
    profile.steps.clear();
    profile.features.clear();
    assert!(
        explain(&journey, Snapshots::none(), &profile, "u", time(0), None)
            .rules
            .is_empty()
    );
}

#[test]
fn a_rule_that_chooses_tells_how_its_candidates_stand() {
    let journey = journey(
        r#"
journey: chooses
steps: [{ id: project, on: project_created }]
features: { clicks: { count: click } }
slots: { in_app: { learner: linear_thompson, context: { clicks: features.clicks } } }
contents:
  - { id: tour, unless: steps.project.done }
  - { id: demo, cooldown: 1h }
  - { id: call }
  - { id: book }
policy: { quiet_hours: { from: "22:00", to: "08:00" } }
triggers:
  - { id: r, on: click, choose: all, slot: in_app }
  - { id: only_demo, on: demo, offer: demo, slot: side }
"#,
    );
    let noon = 12 * 60;
    let at = |minutes: i64| time(minutes * MINUTE_MS);
    let arrived = |number: u64, event_type: &str, minutes: i64| {
        arrived(
            event(&format!("e{number}"), event_type, at(minutes)),
            0,
            number,
            at(minutes),
        )
    };
    let events = [
        arrived(1, "demo", noon),
        arrived(2, "project_created", noon + 1),
        // In quiet hours: it is put off.
        arrived(3, "click", 23 * 60),
    ];
    let profile = plan_user(&journey, Snapshots::none(), Profile::new(&journey), &events).profile;
    let standing = |minutes: i64| {
        let explanation = explain(&journey, Snapshots::none(), &profile, "u", at(minutes), Some(0));
        explanation.rules[0].clone()
    };
    let choice = standing(noon + 2).choice.expect("it chooses");
    assert_eq!((choice.learner, choice.model_version), ("linear_thompson", None));
    assert_eq!(choice.fallback, Some(crate::trigger::Fallback::Missing));
    assert_eq!(
        (choice.context[0].name.as_str(), choice.context[0].json.as_str()),
        ("clicks", "1")
    );
    let refused: Vec<_> = choice.candidates.iter().map(|candidate| candidate.refused).collect();
    let until = at(noon + 60);
    assert_eq!(
        refused,
        [
            Some(Refused::Ineligible),
            Some(Refused::CoolingUntil(until)),
            None,
            None
        ]
    );
    let probabilities = choice.candidates.iter().filter_map(|candidate| candidate.score);
    let probabilities: Vec<f64> = probabilities.map(|score| score.probability).collect();
    assert_eq!(probabilities, [0.5, 0.5]);

    let later = standing(23 * 60);
    assert_eq!(later.put_off, Some((at(32 * 60), None)), "it is chosen then");
    let conditions = later.conditions.iter().map(|condition| condition.role.clone());
    assert_eq!(
        conditions.collect::<Vec<_>>(),
        [ConditionRole::ContentUnless("tour".to_owned())]
    );
}
