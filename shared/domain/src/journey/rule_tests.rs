//! Rules, policy, experiments and membership, as a file says them.

use super::tests::check;
use super::*;
use crate::hash::fingerprint;
use crate::testing::journey;

/// What every file of these tests has above the part that it is about: 8 lines.
const TOP: &str = "journey: j
steps: [{ id: sign_up, on: sign_up }, { id: first_project, on: project_created }]
features: { clicks: { count: click }, views: { count: view } }
contents: [{ id: a }, { id: b, cooldown: 7d }, { id: of_event, when: event.category == 'x' }]
experiments:
  - { id: tour_copy, salt: '1', arms: { control: 50, short: 50 } }
  - { id: look, arms: { old: 1, new: 3.5 } }
#
";

/// Two rules for policies to name: 3 lines more.
const RULES: &str = "triggers:
  - { id: r1, on: click, offer: a, slot: in_app, group: onboarding }
  - { id: r2, on: view, offer: b, slot: email, group: onboarding }
";

fn rule(text: &str) -> Rule {
    let mut journey = journey(&format!("{TOP}triggers:\n  - {{ id: r, {text}, slot: s }}\n"));
    journey.rules.remove(0)
}

fn policy(text: &str) -> Policy {
    let groups = "policy:\n  groups: { onboarding: { within: 7d } }\n";
    journey(&format!("{TOP}{RULES}{groups}{text}")).policy
}

#[test]
fn every_moment_is_read() {
    let minutes = |minutes: i64| minutes * 60_000;
    for (text, since, due) in [
        (
            "after: 2h, since: steps.sign_up, offer: a",
            "step 0",
            vec![Due::After(minutes(120))],
        ),
        (
            "after: [1d, 3d, 7d], since: steps.first_project, offer: [a, b, a]",
            "step 1",
            vec![
                Due::After(minutes(1440)),
                Due::After(minutes(3 * 1440)),
                Due::After(minutes(7 * 1440)),
            ],
        ),
        ("after: 1s, since: any, offer: a", "event Any", vec![Due::After(1000)]),
        (
            "after: 365d, since: [click, view], offer: a",
            "event These([\"click\", \"view\"])",
            vec![Due::After(minutes(365 * 1440))],
        ),
        (
            "after: 5m, since: { event: click, when: event.category == 'x' }, offer: a",
            "event These([\"click\"]) when event.category == 'x'",
            vec![Due::After(minutes(5))],
        ),
        (
            "after: 5m, since: { event: any, when: event.type == 'view' }, offer: a",
            "event These([\"view\"]) when event.type == 'view'",
            vec![Due::After(minutes(5))],
        ),
        (
            "after: 5m, since: session.end, offer: a",
            "session end",
            vec![Due::After(minutes(5))],
        ),
        (
            "at: '09:00', since: steps.sign_up, offer: a",
            "step 0",
            vec![Due::LocalTime { days: 0, minute: 540 }],
        ),
        (
            "at: 23:59, days: [1, 3], since: sign_up, offer: a",
            "event These([\"sign_up\"])",
            vec![
                Due::LocalTime { days: 1, minute: 1439 },
                Due::LocalTime { days: 3, minute: 1439 },
            ],
        ),
    ] {
        let rule = rule(text);
        let Moment::Timer(timer) = &rule.moment else {
            panic!("{text}: {:?}", rule.moment)
        };
        let found = match &timer.since {
            Since::Step(index) => format!("step {index}"),
            Since::Event(None) => format!("event {:?}", rule.on),
            Since::Event(Some(when)) => format!("event {:?} when {}", rule.on, when.source()),
            Since::SessionEnd => "session end".to_owned(),
        };
        assert_eq!((found.as_str(), &timer.reminders), (since, &due), "{text}");
    }
    let enters = rule("enters: features.clicks > 5, offer: a");
    assert!(matches!(&enters.moment, Moment::Enters(condition) if condition.source() == "features.clicks > 5"));
    assert_eq!(enters.on, EventTypes::Any);
    let leaves = rule(
        "leaves: features.clicks > 5 && arms.look == 'old', on: [click, view], unless: steps.sign_up.done, offer: a",
    );
    assert!(matches!(&leaves.moment, Moment::Leaves(_)) && leaves.unless.is_some());
    assert_eq!(
        leaves.on,
        EventTypes::These(vec!["click".to_owned(), "view".to_owned()])
    );
    assert!(matches!(rule("on: click, offer: of_event").moment, Moment::Event));
}

#[test]
fn limits_groups_and_holdouts_of_a_rule_are_read() {
    for (text, count, per) in [
        ("1", 1, LimitPer::User),
        ("{ count: 3 }", 3, LimitPer::User),
        ("{ count: 3, per: user }", 3, LimitPer::User),
        ("{ count: 1, per: session }", 1, LimitPer::Session),
        ("{ count: 1, per: version }", 1, LimitPer::JourneyVersion),
    ] {
        let rule = rule(&format!("on: click, offer: a, limit: {text}"));
        assert_eq!(rule.limit, Some(Limit { count, per }), "{text}");
    }
    for (text, share, salt) in [
        ("5%", 0.05, "holdout//rule/r"),
        ("0.5 %", 0.005, "holdout//rule/r"),
        ("{ share: 100%, salt: winter }", 1.0, "holdout/winter"),
    ] {
        let holdout = rule(&format!("on: click, offer: a, holdout: {text}"))
            .holdout
            .expect(text);
        assert_eq!((holdout.share, holdout.salt.as_str()), (share, salt), "{text}");
    }
}

#[test]
fn the_policy_is_read() {
    let hour_ms = 3_600_000;
    let slot = |name: &str| Some((fingerprint(&["slot", name]), name.to_owned()));
    for (text, caps) in [
        ("{ offers: 3, within: 24h }", vec![(3, 24, None)]),
        (
            "[{ offers: 64, within: 90d }, { offers: 0, within: 1h, slot: email }]",
            vec![(64, 90 * 24, None), (0, 1, slot("email"))],
        ),
        ("[]", vec![]),
    ] {
        let expected: Vec<Cap> = caps
            .into_iter()
            .map(|(offers, hours, slot)| Cap {
                offers,
                within_ms: hours * hour_ms,
                slot,
            })
            .collect();
        assert_eq!(policy(&format!("  cap: {text}\n")).caps, expected, "{text}");
    }
    let all = policy(
        "  content_cooldown: 24h\n  quiet_hours: { from: '22:00', to: 8:30, then: drop, slots: [email], timezone: Europe/London }\n  holdout: 5%\nentry: event.type == 'sign_up'\nexit: steps.first_project.done\nreentry: 30d\n",
    );
    assert_eq!(all.content_cooldown_ms, Some(24 * hour_ms));
    let quiet_hours = QuietHours {
        from_minute: 22 * 60,
        to_minute: 8 * 60 + 30,
        then: QuietAction::Drop,
        slots: vec![fingerprint(&["slot", "email"])],
        timezone: "Europe/London".to_owned(),
    };
    assert_eq!(all.quiet_hours, Some(quiet_hours));
    assert_eq!(all.holdout.map(|holdout| holdout.salt).as_deref(), Some("holdout//"));
    assert_eq!(all.groups[0].within_ms, Some(7 * 24 * hour_ms));
    assert_eq!(all.reentry, Reentry::After(30 * 24 * hour_ms));
    assert!(all.entry.is_some() && all.exit.is_some());
    for (text, reentry) in [
        ("", Reentry::Always),
        ("reentry: always\n", Reentry::Always),
        ("reentry: never\n", Reentry::Never),
    ] {
        assert_eq!(
            policy(&format!("exit: steps.sign_up.done\n{text}")).reentry,
            reentry,
            "{text}"
        );
    }
    let quiet = policy("  quiet_hours: { from: 0:00, to: 00:01 }\n")
        .quiet_hours
        .expect("quiet hours");
    assert_eq!((quiet.then, quiet.timezone.as_str()), (QuietAction::Defer, "UTC"));
}

#[test]
fn what_an_event_touches_are_its_rules_and_the_timers_that_count_from_it() {
    let journey = journey(&format!(
        "{TOP}triggers:
  - {{ id: e, on: click, offer: a, slot: s }}
  - {{ id: t, enters: steps.sign_up.done, offer: a, slot: s, priority: 1 }}
  - {{ id: by_step, after: 1h, since: steps.sign_up, offer: a, slot: s }}
  - {{ id: by_event, after: 1h, since: [click, view], offer: a, slot: s }}
  - {{ id: by_session, after: 1h, since: session.end, offer: a, slot: s }}
"
    ));
    for (event_type, rules, timers) in [
        ("click", &[1, 0][..], &[3, 4][..]),
        ("view", &[1], &[3, 4]),
        ("sign_up", &[1], &[2, 4]),
        ("other", &[1], &[4]),
    ] {
        let dispatch = journey.dispatch(event_type);
        assert_eq!(
            (&dispatch.rules[..], &dispatch.timers[..]),
            (rules, timers),
            "{event_type}"
        );
    }
    let places: Vec<String> = journey.conditions().into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["contents.of_event.when", "triggers.t.enters"]);
}

#[test]
fn a_changed_since_starts_a_timer_anew_and_a_changed_chain_goes_on() {
    let base = rule("after: 1d, since: steps.sign_up, offer: a").fingerprint;
    for same in [
        "after: [1d, 2d], since: steps.sign_up, offer: b, limit: 1",
        "at: 9:00, since: steps.sign_up, offer: a",
    ] {
        assert_eq!(rule(same).fingerprint, base, "{same}");
    }
    for other in [
        "after: 1d, since: steps.first_project, offer: a",
        "after: 1d, since: sign_up, offer: a",
        "after: 1d, since: { event: sign_up, when: event.category == 'x' }, offer: a",
        "after: 1d, since: session.end, offer: a",
        "on: sign_up, offer: a",
    ] {
        assert_ne!(rule(other).fingerprint, base, "{other}");
    }
}

/// A row: what a rule says beside `id` and `slot`, the rest of the path, a part of the message, and the suggestion.
#[test]
fn every_mistake_in_a_rule_is_told_with_what_to_write() {
    for (text, key, message, suggestion) in [
        ("offer: a", "", "a trigger needs `on`", None),
        ("after: 1h, offer: a", "", "a timer needs `since`", None),
        ("at: '09:00', offer: a", "", "a timer needs `since`", None),
        ("since: steps.sign_up, offer: a", "", "a timer needs `after`", None),
        (
            "after: 1h, at: '09:00', since: any, offer: a",
            ".at",
            "exclude each other",
            None,
        ),
        (
            "after: 1h, days: 1, since: any, offer: a",
            ".days",
            "`days` go with `at`",
            None,
        ),
        (
            "on: click, after: 1h, since: any, offer: a",
            ".on",
            "write the event types there",
            None,
        ),
        (
            "enters: steps.sign_up.done, after: 1h, since: any, offer: a",
            ".enters",
            "exclude each other",
            None,
        ),
        (
            "leaves: steps.sign_up.done, after: 1h, since: any, offer: a",
            ".leaves",
            "exclude each other",
            None,
        ),
        (
            "enters: steps.sign_up.done, leaves: steps.sign_up.done, offer: a",
            ".leaves",
            "make it two triggers",
            None,
        ),
        (
            "enters: event.category == 'x', offer: a",
            ".enters",
            "can't read `event.category`",
            None,
        ),
        (
            "leaves: features.clicks > 1, when: event.type == 'x', offer: a",
            ".when",
            "can't read `event.type`",
            None,
        ),
        (
            "enters: features.clicks > 1, offer: of_event",
            ".offer",
            "the `when` of the content `of_event` reads",
            None,
        ),
        (
            "after: 1h, since: any, unless: event.category == 'x', offer: a",
            ".unless",
            "can't read `event.category`",
            None,
        ),
        (
            "after: 1h, since: any, when: size(event) > 1, offer: a",
            ".when",
            "can't read `event`",
            None,
        ),
        (
            "after: 1h, since: any, offer: of_event",
            ".offer",
            "the `when` of the content `of_event` reads",
            None,
        ),
        (
            "after: 1h, since: steps.signup, offer: a",
            ".since",
            "there is no step `signup`",
            Some("steps.sign_up"),
        ),
        (
            "after: 1h, since: steps.sign_up.done, offer: a",
            ".since",
            "there is no step",
            Some("steps.sign_up"),
        ),
        (
            "after: 1h, since: Sign_Up, offer: a",
            ".since",
            "lower case",
            Some("sign_up"),
        ),
        ("after: 1h, since: [], offer: a", ".since", "no event type", None),
        (
            "after: 1h, since: { when: true }, offer: a",
            ".since",
            "it needs `event`",
            None,
        ),
        (
            "after: 1h, since: { evnt: a }, offer: a",
            ".since",
            "no key `evnt`",
            Some("event"),
        ),
        (
            "after: soon, since: any, offer: a",
            ".after",
            "`soon` is no duration",
            None,
        ),
        ("after: 0s, since: any, offer: a", ".after", "is not between 1s", None),
        ("after: 400d, since: any, offer: a", ".after", "is not between", None),
        ("after: [], since: any, offer: a", ".after", "0 reminders", None),
        (
            "after: [3d, 1d], since: any, offer: a",
            ".after",
            "later than the one before",
            None,
        ),
        (
            "after: [1d, 1d], since: any, offer: a",
            ".after",
            "later than the one before",
            None,
        ),
        (
            "after: [1d, 3d, 7d], since: any, offer: [a, b]",
            ".offer",
            "2 offers for 3 reminders",
            None,
        ),
        (
            "after: 1d, since: any, offer: [a, b]",
            ".offer",
            "2 offers for 1 reminders",
            None,
        ),
        ("on: click, offer: [a, b]", ".offer", "a trigger has one", None),
        ("after: 1d, since: any, offer: [a, bb]", ".offer", "", None),
        (
            "after: [1d, 2d], since: any, offer: [a, c]",
            ".offer",
            "there is no content `c`",
            None,
        ),
        ("at: noon, since: any, offer: a", ".at", "no time of day", None),
        ("at: '24:00', since: any, offer: a", ".at", "no time of day", None),
        ("at: '9:60', since: any, offer: a", ".at", "no time of day", None),
        ("at: '+9:00', since: any, offer: a", ".at", "no time of day", None),
        (
            "at: '9:00', days: -1, since: any, offer: a",
            ".days",
            "a whole number from 0 to 365",
            None,
        ),
        (
            "at: '9:00', days: [0, 1], since: any, offer: a",
            ".days",
            "a whole number from 1 to 365",
            None,
        ),
        (
            "at: '9:00', days: [3, 1], since: any, offer: a",
            ".days",
            "later than the one before",
            None,
        ),
        (
            "on: click, offer: a, limit: { per: user }",
            ".limit",
            "a limit needs `count`",
            None,
        ),
        (
            "on: click, offer: a, limit: { count: 0 }",
            ".limit.count",
            "from 1",
            None,
        ),
        (
            "on: click, offer: a, limit: { count: 1, per: sesion }",
            ".limit.per",
            "nothing to count for",
            Some("session"),
        ),
        (
            "on: click, offer: a, group: onboard",
            ".group",
            "there is no group `onboard`",
            None,
        ),
        (
            "on: click, offer: a, holdout: 0.05",
            ".holdout",
            "`0.05` is no share",
            Some("5%"),
        ),
        (
            "on: click, offer: a, holdout: 5",
            ".holdout",
            "`5` is no share",
            Some("5%"),
        ),
        (
            "on: click, offer: a, holdout: 101%",
            ".holdout",
            "from 0% to 100%",
            None,
        ),
        ("on: click, offer: a, holdout: NaN%", ".holdout", "is no share", None),
        (
            "on: click, offer: a, holdout: { salt: x }",
            ".holdout",
            "needs `share`",
            None,
        ),
        (
            "on: click, offer: a, when: arms.tour == 'short'",
            ".when",
            "there is no experiment `tour`",
            Some("tour_copy"),
        ),
        (
            "on: click, offer: a, when: arms.tour_copy == 'shrt'",
            ".when",
            "no arm `shrt`",
            Some("short"),
        ),
    ] {
        let file = format!("{TOP}triggers:\n  - {{ id: r, {text}, slot: s }}\n");
        check(&file, 10, &format!("triggers.r{key}"), message, suggestion);
    }
    let reminders = (1..=crate::limits::REMINDERS_MAX + 1).map(|days| format!("{days}d"));
    let listed = reminders.collect::<Vec<_>>().join(", ");
    let file = format!("{TOP}triggers:\n  - {{ id: r, after: [{listed}], since: any, offer: a, slot: s }}\n");
    check(&file, 10, "triggers.r.after", "17 reminders: a timer has 1 to 16", None);
}

/// A row: what stands below the rules, which line is wrong, its path, a part of the message, and the suggestion.
#[test]
fn every_mistake_in_a_policy_is_told_with_what_to_write() {
    const GROUPS: &str = "policy:\n  groups: { onboarding: {} }\n";
    for (text, path, message, suggestion) in [
        ("  caps: {}", "policy", "there is no key `caps`", Some("cap")),
        ("  cap: { within: 1h }", "policy.cap", "a cap needs `offers`", None),
        ("  cap: { offers: 1 }", "policy.cap", "a cap needs `within`", None),
        (
            "  cap: { offers: 65, within: 1h }",
            "policy.cap.offers",
            "from 0 to 64",
            None,
        ),
        (
            "  cap: { offers: 1, within: 91d }",
            "policy.cap.within",
            "is not between",
            None,
        ),
        (
            "  cap: { offers: 1, within: 1h, slot: emial }",
            "policy.cap.slot",
            "no trigger has the slot `emial`",
            Some("email"),
        ),
        ("  cap: 3", "policy.cap", "expected `key: value` pairs", None),
        (
            "  content_cooldown: never",
            "policy.content_cooldown",
            "no duration",
            None,
        ),
        (
            "  quiet_hours: { from: '22:00' }",
            "policy.quiet_hours",
            "quiet hours need `to`",
            None,
        ),
        (
            "  quiet_hours: { from: 22, to: '08:00' }",
            "policy.quiet_hours.from",
            "`22` is no time of day",
            None,
        ),
        (
            "  quiet_hours: { from: '22:00', to: '22:00' }",
            "policy.quiet_hours",
            "never quiet",
            None,
        ),
        (
            "  quiet_hours: { from: '22:00', to: '8:00', then: defr }",
            "policy.quiet_hours.then",
            "write `defer` or `drop`",
            Some("defer"),
        ),
        (
            "  quiet_hours: { from: '22:00', to: '8:00', slots: [sms] }",
            "policy.quiet_hours.slots",
            "no trigger has the slot",
            None,
        ),
        (
            "  quiet_hours: { from: '22:00', to: '8:00', timezone: Europe/Londno }",
            "policy.quiet_hours.timezone",
            "no time zone",
            Some("Europe/London"),
        ),
        ("  holdout: lots", "policy.holdout", "`lots` is no share", None),
        (
            "  holdout: { share: 5%, slat: x }",
            "policy.holdout",
            "no key `slat`",
            Some("salt"),
        ),
        (
            "entry: event.typ == 'x'",
            "entry",
            "no event member `typ`",
            Some("type"),
        ),
        ("exit: steps.signup.done", "exit", "no step `signup`", Some("sign_up")),
        ("reentry: always", "reentry", "there is no `exit`", None),
        ("reentry: nevr", "reentry", "`nevr` is no re-entry", Some("never")),
        ("reentry: 0s", "reentry", "is not between", None),
    ] {
        check(&format!("{TOP}{RULES}{GROUPS}{text}\n"), 14, path, message, suggestion);
    }
    for (groups, path, message) in [
        (
            "{ onboarding: {}, other: {} }",
            "policy.groups.other",
            "no trigger is of the group `other`",
        ),
        (
            "{ onboarding: { within: soon } }",
            "policy.groups.onboarding.within",
            "no duration",
        ),
        (
            "{ onboarding: { witin: 1d } }",
            "policy.groups.onboarding",
            "no key `witin`",
        ),
        ("[onboarding]", "policy.groups", "expected `key: value` pairs"),
    ] {
        check(
            &format!("{TOP}{RULES}policy:\n  groups: {groups}\n"),
            13,
            path,
            message,
            None,
        );
    }
}

#[test]
fn every_mistake_in_an_experiment_is_told_with_what_to_write() {
    for (text, path, message, suggestion) in [
        (
            "{ id: tour-copy, arms: { a: 1, b: 1 } }",
            ".tour-copy.id",
            "conditions read it as `arms.tour-copy`",
            Some("tour_copy"),
        ),
        ("{ id: 1st, arms: { a: 1, b: 1 } }", ".1st.id", "which they can't", None),
        ("{ id: in, arms: { a: 1, b: 1 } }", ".in.id", "which they can't", None),
        ("{ id: x }", ".x", "an experiment needs `arms`", None),
        ("{ id: x, arms: { a: 1 } }", ".x.arms", "two arms at least", None),
        (
            "{ id: x, arms: [a, b] }",
            ".x.arms",
            "expected `key: value` pairs",
            None,
        ),
        (
            "{ id: x, arms: { a: 0, b: 1 } }",
            ".x.arms.a",
            "expected a number",
            None,
        ),
        (
            "{ id: x, arms: { a: -1, b: 1 } }",
            ".x.arms.a",
            "expected a number",
            None,
        ),
        (
            "{ id: x, arms: { a: half, b: 1 } }",
            ".x.arms.a",
            "expected a number",
            None,
        ),
        ("{ id: x, amrs: { a: 1, b: 1 } }", ".x", "no key `amrs`", Some("arms")),
        ("{ arms: { a: 1, b: 1 } }", "[0]", "it has no `id`", None),
    ] {
        check(
            &format!("journey: j\nexperiments:\n  - {text}\n"),
            3,
            &format!("experiments{path}"),
            message,
            suggestion,
        );
    }
    check(
        "journey: j\nexperiments: [{ id: x, arms: { a: 1, b: 1 } }]\nfeatures: { f: { expr: arms.x } }",
        3,
        "features.f.expr",
        "can't read `arms.x`",
        None,
    );
}

/// The page for people who write a journey: every example in it is right, and no key is left out.
#[test]
fn the_examples_of_the_journey_page_are_right_and_leave_out_no_key() {
    const PAGE: &str = include_str!("../../../../docs/journey.md");
    const BASE: &str = "journey: j
steps: [{ id: sign_up, on: sign_up }, { id: first_project, on: project_created }]
features: { clicks: { count: click }, views_1h: { count: view, within: 1h } }
";
    const EXPERIMENTS: &str = "experiments: [{ id: tour_copy, arms: { control: 1, short: 1 } }]\n";
    const CONTENTS: &str = "contents: [{ id: tour }, { id: tips }]\n";
    const TRIGGERS: &str = "triggers: [{ id: a, on: click, offer: tour, slot: in_app, group: onboarding }, { id: b, on: click, offer: tips, slot: email, group: sales }]\n";
    const GROUPS: &str = "groups: { onboarding: {}, sales: {} }";
    let examples = |table: &str| -> Vec<String> {
        PAGE.lines()
            .skip_while(|line| !line.starts_with(&format!("| {table} |")))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split('`').nth(1).expect(line).to_owned())
            .collect()
    };
    let mut tried = 0;
    const LEARNED: &str = "trends: { clicks_10m: { count: click, within: 10m } }\ncontents: [{ id: tour, attributes: { minutes: 3 } }, { id: tips }]\n";
    const CHOICE: &str = "triggers: [{ id: a, on: click, choose: all, slot: in_app }]\n";
    for (table, example) in ["Trigger", "Also", "Policy", "Part", "Slot", "Outcome"]
        .into_iter()
        .flat_map(|table| examples(table).into_iter().map(move |example| (table, example)))
    {
        let file = match table {
            "Trigger" | "Also" => {
                let offer = if example.contains("offer:") || example.contains("choose:") {
                    ""
                } else {
                    ", offer: tour"
                };
                let groups = if example.contains("group:") {
                    "policy: { groups: { onboarding: {} } }\n"
                } else {
                    ""
                };
                format!("{BASE}{EXPERIMENTS}{CONTENTS}triggers:\n  - {{ id: r, {example}{offer}, slot: s }}\n{groups}")
            }
            "Policy" if example.starts_with("groups:") => {
                format!("{BASE}{CONTENTS}{TRIGGERS}policy:\n  {example}\n")
            }
            "Slot" => format!("{BASE}{LEARNED}{CHOICE}slots: {{ in_app: {{ {example} }} }}\n"),
            "Outcome" => format!("{BASE}{LEARNED}outcomes: {{ within: 1d, reward: {{ {example} }} }}\n"),
            "Policy" => format!("{BASE}{CONTENTS}{TRIGGERS}policy:\n  {GROUPS}\n  {example}\n"),
            _ => format!("{BASE}{example}\n"),
        };
        journey(&file);
        tried += 1;
    }
    assert!(tried >= 48, "{tried} examples");
    for mapping in [
        &keys::RULE,
        &keys::POLICY,
        &keys::TOP,
        &keys::CONTENT,
        &keys::EXPERIMENT,
        &keys::SLOT,
        &keys::TREND,
        &keys::LEARNER_FEATURE,
        &keys::OUTCOMES,
        &keys::REWARD,
    ] {
        for key in mapping.names() {
            let is_told = [format!("`{key}"), format!("{key}:")]
                .iter()
                .any(|written| PAGE.contains(written));
            let of_readme = ["journey", "sessions", "dedupe"].contains(&key);
            assert!(is_told || of_readme, "docs/journey.md says nothing of `{key}`");
        }
    }
}
