//! What is found about journeys that can be read.

use hashbrown::HashMap;
use proptest::prelude::*;

use super::*;
use crate::event::ArrivedEvent;
use crate::plan::plan_user;
use crate::profile::Profile;
use crate::rules::RuleOutcome;
use crate::snapshots::Snapshots;
use crate::testing::{DEFAULT_JOURNEY, MINUTE_MS, arrived, event, time};

/// What the files of the table have above the part that it is about: 8 lines.
const TOP: &str = "journey: j
ignore: noise
steps: [{ id: sign_up, on: sign_up }, { id: paid, on: purchase, when: event.properties.amount > 0 }]
features: { clicks: { count: click }, recent: { count: click, within: 1h }, last: { last: category } }
experiments: [{ id: copy, arms: { a: 1, b: 1 } }]
contents: [{ id: a }, { id: b, cooldown: 7d }, { id: unpaid, unless: steps.paid.done }, { id: new, when: features.clicks < 3 }]
#
#
";

fn found(text: &str) -> Vec<(Severity, String, String)> {
    let checked = Checked::parse(text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", text)));
    let findings = checked.findings.into_iter();
    findings
        .map(|finding| (finding.severity, finding.diagnostic.path, finding.diagnostic.message))
        .collect()
}

#[test]
fn the_default_journey_has_no_errors_and_no_warnings() {
    let found = found(DEFAULT_JOURNEY);
    assert!(
        found.iter().all(|(severity, ..)| *severity == Severity::Info),
        "{found:#?}"
    );
}

/// A row: what stands below, how bad it is, where, and a part of what is said.
#[test]
fn what_cannot_work_is_told_with_its_place_and_why() {
    use Severity::{Error, Info, Warning};
    let rule = |text: &str| format!("triggers:\n  - {{ id: r, {text}, slot: s }}\n");
    for (text, severity, path, message) in [
        // Conditions.
        (rule("on: click, when: features.clicks < 0, offer: a"), Error, "triggers.r.when", "`features.clicks < 0` never holds"),
        (rule("on: click, when: features.clicks > 9 && features.clicks < 5, offer: a"), Error, "triggers.r.when", "`features.clicks > 9` and `features.clicks < 5` exclude each other"),
        (rule("on: click, when: steps.sign_up.done, unless: steps.sign_up.done, offer: a"), Error, "triggers.r.unless", "never fires: `steps.sign_up.done` and `!steps.sign_up.done` exclude each other"),
        (rule("on: click, when: event.type == 'view', offer: a"), Error, "triggers.r.when", "it looks at events of the type `click` only"),
        (rule("on: sign_up, unless: steps.sign_up.done, offer: a"), Error, "triggers.r.unless", "has completed the step"),
        (rule("on: click, when: features.clicks == 0, offer: a"), Error, "triggers.r.when", "was counted"),
        (rule("on: click, when: arms.copy == 'a' && arms.copy == 'b', offer: a"), Error, "triggers.r.when", "exclude each other"),
        (rule("on: click, when: 'false', offer: a"), Info, "triggers.r.when", "switched off"),
        (rule("on: click, when: features.clicks >= 0, offer: a"), Warning, "triggers.r.when", "it always holds"),
        (rule("on: click, unless: features.clicks < 0, offer: a"), Warning, "triggers.r.unless", "it never holds, so it excludes nobody"),
        (rule("on: click, unless: features.clicks >= 0, offer: a"), Error, "triggers.r.unless", "never fires: `!(features.clicks >= 0)` never holds"),
        (rule("on: noise, offer: a"), Error, "triggers.r.on", "`ignore` drops its events"),
        (rule("on: usher.timer, offer: a"), Error, "triggers.r.on", "an event of Usher's own"),
        (rule("on: click, when: size(features.last) > 1, offer: a"), Info, "triggers.r.when", "runs in the interpreter"),
        // What is offered.
        (rule("on: click, when: steps.paid.done, offer: unpaid"), Error, "triggers.r.offer", "`unpaid` is never eligible when this trigger would offer it"),
        (rule("on: click, when: features.clicks > 5, offer: new"), Error, "triggers.r.offer", "`features.clicks > 5` and `features.clicks < 3` exclude each other"),
        // Transitions.
        (rule("enters: features.clicks < 0, offer: a"), Error, "triggers.r.enters", "never holds"),
        (rule("leaves: features.clicks < 0, offer: a"), Error, "triggers.r.leaves", "never holds"),
        (rule("leaves: features.clicks >= 0, offer: a"), Error, "triggers.r.leaves", "never holds"),
        (rule("enters: features.clicks > 3, when: features.clicks < 2, offer: a"), Error, "triggers.r.when", "exclude each other"),
        // Timers.
        (rule("after: 1h, since: steps.sign_up, unless: steps.sign_up.done, offer: a"), Error, "triggers.r.unless", "never fires"),
        (rule("after: 1h, since: sign_up, unless: steps.sign_up.done, offer: a"), Error, "triggers.r.unless", "never fires"),
        (rule("after: 1h, since: { event: click, when: event.type == 'x' }, offer: a"), Error, "triggers.r.since.when", "of the type `click` only"),
        (rule("after: 1h, since: noise, offer: a"), Error, "triggers.r.since", "`ignore` drops its events"),
        (rule("after: [1d, 2d, 3d], since: any, limit: 2, offer: a"), Warning, "triggers.r.limit", "2 of the 3 reminders"),
        (rule("after: [1d, 2d], since: any, cooldown: 36h, offer: a"), Warning, "triggers.r.cooldown", "longer than the time from one reminder"),
        (rule("after: [1d, 2d], since: any, offer: b"), Warning, "triggers.r.offer", "two reminders in a row offer `b`"),
        // Steps and features.
        ("steps: [{ id: x, on: noise }]".to_owned(), Error, "steps.x.on", "`ignore` drops the events that would"),
        ("steps: [{ id: x, on: a, when: steps.y.done }, { id: y, when: 1 > 2 }]".to_owned(), Error, "steps.x.when", "nobody can complete the step `x`: `steps.y.done` never holds"),
        ("steps: [{ id: x, on: noise }]\ncontents: [{ id: c }]\ntriggers: [{ id: r, after: 1h, since: steps.x, offer: c, slot: s }]".to_owned(), Error, "triggers.r.since", "never fires: `ignore` drops its events"),
        ("steps: [{ id: x, on: noise }]\ncontents: [{ id: c }]\ntriggers: [{ id: r, on: a, when: steps.x.done, offer: c, slot: s }]".to_owned(), Error, "triggers.r.when", "(nobody can complete that step)"),
        ("features: { f: { count: noise } }".to_owned(), Error, "features.f", "never changes"),
        ("features: { f: { count: click, when: event.category == 'a' && event.category == 'b' } }".to_owned(), Error, "features.f.when", "exclude each other"),
        ("contents: [{ id: c, when: session.count < 0 }]".to_owned(), Error, "contents.c.when", "it is never eligible"),
        // Rules that lose to others.
        ("triggers:\n  - { id: r, on: click, when: features.clicks > 1, offer: a, slot: s }\n  - { id: q, on: [click, view], offer: a, slot: s, priority: 1 }\n".to_owned(), Error, "triggers.r", "`q` always fires for the same slot"),
        // Who is in, and what limits all.
        (format!("exit: steps.paid.done\n{}", rule("on: click, when: steps.paid.done, offer: a")), Error, "triggers.r", "exclude each other"),
        ("entry: steps.paid.done\nexit: steps.paid.done\n".to_owned(), Error, "exit", "nobody ever enters the journey"),
        ("exit: session.count >= 0\n".to_owned(), Error, "exit", "everyone leaves the journey at once"),
        (format!("{}policy: {{ cap: {{ offers: 0, within: 1h, slot: s }}, holdout: 100% }}\n", rule("on: click, offer: a")), Warning, "policy.cap", "nothing is ever offered in the slot `s`"),
        (format!("{}policy: {{ holdout: 100% }}\n", rule("on: click, offer: a")), Warning, "policy.holdout", "everybody is held out"),
        (format!("{}policy: {{ groups: {{ g: {{}} }} }}\n", rule("on: click, group: g, offer: a")), Warning, "policy.groups.g", "only one trigger"),
        // What nobody uses.
        (String::new(), Info, "features", "no condition and no learner reads `recent` and `last`"),
        (String::new(), Info, "contents.a", "no trigger offers it"),
        (String::new(), Info, "experiments.copy", "no condition and no learner reads it"),
    ] {
        let has_own = ["steps:", "features:", "contents:"].iter().any(|key| text.starts_with(key));
        let file = if has_own {
            format!("journey: j\nignore: noise\n{text}\n")
        } else {
            format!("{TOP}{text}")
        };
        let all = found(&file);
        let is_there = all
            .iter()
            .any(|(of, place, said)| (*of, place.as_str()) == (severity, path) && said.contains(message));
        assert!(is_there, "{file}\nexpected {severity:?} {path}: {message}\nfound {all:#?}");
    }
}

/// The same for what is learned. A row: what stands below, how bad it is, where, and a part of what is said.
#[test]
fn what_cannot_be_chosen_or_learned_is_told_with_its_place_and_why() {
    use Severity::{Error, Info, Warning};
    const OUTCOMES: &str = "outcomes: { within: 1d, reward: { click: 1 } }\n";
    let choose = |text: &str| format!("triggers:\n  - {{ id: r, {text}, slot: s }}\n{OUTCOMES}");
    let slot = |text: &str| format!("{}slots: {{ s: {{ {text} }} }}\n", choose("on: click, choose: [a, b]"));
    let reward = |text: &str| {
        format!(
            "triggers: [{{ id: r, on: click, offer: a, slot: s }}]\noutcomes: {{ within: 1d, reward: {{ {text} }} }}\n"
        )
    };
    for (text, severity, path, message) in [
        (
            choose("on: click, choose: [a]"),
            Warning,
            "triggers.r.choose",
            "there is nothing to choose: `a` is the only candidate",
        ),
        (
            choose("on: click, when: steps.paid.done, choose: [a, unpaid]"),
            Warning,
            "triggers.r.choose",
            "`unpaid` is never eligible when this trigger would offer it",
        ),
        (
            choose("on: click, when: steps.paid.done, choose: all"),
            Info,
            "triggers.r.choose",
            "`unpaid` is never eligible when this trigger would offer it",
        ),
        (
            choose("on: click, when: steps.paid.done && features.clicks > 5, choose: [unpaid, new]"),
            Error,
            "triggers.r.choose",
            "`new` is never eligible when this trigger would offer it",
        ),
        (
            "triggers: [{ id: r, on: click, choose: [a, b], slot: s }]\n".to_owned(),
            Warning,
            "triggers.r.choose",
            "nothing is learned, so all candidates stay alike: there are no `outcomes`",
        ),
        (
            format!("{}slots: {{ s: {{ half_life: 7d }} }}\n", choose("on: click, offer: a")),
            Warning,
            "slots.s",
            "no trigger chooses for this slot",
        ),
        (
            slot("learner: fixed_split, weights: { a: 1, new: 2 }"),
            Warning,
            "slots.s.weights",
            "no trigger chooses `new` for this slot",
        ),
        (
            slot("learner: fixed_split, weights: { a: 0, b: 0 }"),
            Warning,
            "slots.s.weights",
            "so all are chosen alike",
        ),
        (
            slot("learner: thompson, context: { clicks: features.clicks }"),
            Info,
            "slots.s.context",
            "`thompson` doesn't look at it",
        ),
        (
            slot("learner: linucb, shared: false, contents: { score: score }"),
            Info,
            "slots.s.contents",
            "only a shared model looks at them",
        ),
        (
            slot("contents: { kind: { value: content.kind, one_of: [video, audio] } }"),
            Info,
            "slots.s.contents.kind",
            "`b` has no attribute `kind`",
        ),
        (
            slot("contents: { kind: { value: content.kind, one_of: [video, audio] } }"),
            Info,
            "slots.s.contents.kind",
            "no candidate has `audio`",
        ),
        (
            slot("contents: { kind: { value: content.kind, one_of: [text, audio] } }"),
            Warning,
            "slots.s.contents.kind",
            "`video` is none of `one_of`",
        ),
        (
            reward("noise: 1"),
            Error,
            "outcomes.reward.noise",
            "this reward never comes: `ignore` drops its events",
        ),
        (
            reward("never: { on: click, when: features.clicks < 0, reward: 1 }"),
            Error,
            "outcomes.reward.never.when",
            "this reward never comes: `features.clicks < 0` never holds",
        ),
        (
            reward("always: { on: click, when: features.clicks >= 0, reward: 1 }"),
            Warning,
            "outcomes.reward.always.when",
            "it always holds",
        ),
        (reward("click: 0"), Warning, "outcomes.reward", "every reward is 0"),
        (
            reward("usher.timer: 1"),
            Error,
            "outcomes.reward.usher.timer",
            "an event of Usher's own",
        ),
        (
            "trends: { t: { count: noise, within: 1h } }\n".to_owned(),
            Error,
            "trends.t",
            "it stays 0: `ignore` drops its events",
        ),
        (
            "trends: { t: { count: click, within: 1h } }\n".to_owned(),
            Info,
            "trends.t",
            "no condition and no learner reads it",
        ),
    ] {
        let file = format!("{TOP}{text}").replace("{ id: a }", "{ id: a, attributes: { kind: video } }");
        let all = found(&file);
        let is_there = all
            .iter()
            .any(|(of, place, said)| (*of, place.as_str()) == (severity, path) && said.contains(message));
        assert!(
            is_there,
            "{file}\nexpected {severity:?} {path}: {message}\nfound {all:#?}"
        );
    }
    for text in [
        choose("on: click, choose: [a, b], holdout: 10%"),
        choose("after: [1d, 2d], since: any, choose: [a, b]"),
        slot(
            "context: { clicks: features.clicks, copy: arms.copy, recent: features.recent, last: { value: features.last, as: text } }",
        ),
        slot("contents: { score: score }"),
        slot("learner: scores"),
        format!(
            "{}trends: {{ t: {{ count: click, within: 1h }} }}\n",
            choose("on: click, when: 'trends.t[event.content_id] > 1', choose: [a, b]")
        ),
    ] {
        let file = format!("{TOP}{text}");
        let all = found(&file);
        assert!(all.iter().all(|(severity, ..)| *severity == Info), "{file}\n{all:#?}");
        assert!(all.iter().all(|(_, path, _)| path != "trends.t"), "{file}\n{all:#?}");
        let reads = text.contains("last: {");
        assert_ne!(
            all.iter().any(|(_, path, _)| path == "features"),
            reads,
            "{file}\n{all:#?}"
        );
    }
}

#[test]
fn what_can_work_is_not_told() {
    for text in [
        "on: click, when: features.recent == 0, offer: a",
        "on: [click, view], when: features.clicks == 0, offer: a",
        "when: features.clicks == 0, offer: a",
        "on: purchase, unless: steps.paid.done, offer: a",
        "on: click, unless: steps.sign_up.done, offer: a",
        "enters: features.clicks > 3 && !steps.paid.done, offer: unpaid",
        "leaves: features.recent > 3, offer: new",
        "after: 1h, since: click, unless: steps.sign_up.done, offer: a",
        "after: [1d, 9d], since: steps.sign_up, unless: steps.paid.done, offer: b",
        "when: event.type == 'click' && features.clicks > 2 && features.clicks < 4, offer: a",
        "on: click, when: arms.copy == 'a', offer: a",
    ] {
        let all = found(&format!(
            "{TOP}exit: steps.paid.done\ntriggers:\n  - {{ id: r, {text}, slot: s }}\n"
        ));
        let told: Vec<_> = all.iter().filter(|(severity, ..)| *severity < Severity::Info).collect();
        assert!(told.is_empty(), "{text}: {told:#?}");
    }
}

#[test]
fn a_sample_tells_misspelt_event_types_both_ways() {
    let text = "journey: j\nsteps: [{ id: s, on: sing_up }]\nfeatures: { f: { count: [click, clikc] }, g: { last_seen: any } }\nignore: noise\n";
    let checked = Checked::parse(text).expect("a journey");
    let counts = [("sign_up", 3), ("click", 9), ("view", 4), ("noise", 1)];
    let counts: HashMap<String, u64> = counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    let found: Vec<(usize, Severity, String, Option<String>)> = checked
        .compare_with_sample(&counts)
        .into_iter()
        .map(|finding| {
            let Diagnostic {
                line,
                message,
                suggestion,
                ..
            } = finding.diagnostic;
            (line, finding.severity, message, suggestion)
        })
        .collect();
    let expected = [
        (
            1,
            Severity::Info,
            "the journey never names `view`, of which the sample has 4",
            None,
        ),
        (
            1,
            Severity::Info,
            "the journey never names `sign_up`, of which the sample has 3",
            None,
        ),
        (
            2,
            Severity::Warning,
            "the sample has no event of the type `sing_up`",
            Some("sign_up"),
        ),
        (
            3,
            Severity::Warning,
            "the sample has no event of the type `clikc`",
            None,
        ),
    ];
    let expected = expected.map(|(line, severity, message, suggestion)| {
        (line, severity, message.to_owned(), suggestion.map(str::to_owned))
    });
    assert_eq!(found, expected);
}

fn conditions() -> impl Strategy<Value = String> + Clone {
    let part = prop::sample::select(
        &[
            "steps.one.done",
            "!steps.one.done",
            "steps.two.done",
            "!steps.two.done",
            "steps.three.done",
            "features.clicks < 2",
            "features.clicks >= 2",
            "features.clicks == 0",
            "features.views_1h == 0",
            "features.views_1h > 0",
            "session.count == 1",
            "session.events > 1",
            "arms.copy == 'a'",
            "arms.copy == 'b'",
        ][..],
    );
    prop::collection::vec(part, 1..4).prop_map(|parts| format!("\"{}\"", parts.join(" && ")))
}

/// A random journey of few parts, so that many of its rules can't fire.
fn journeys() -> impl Strategy<Value = String> {
    let types = prop::sample::select(&["click", "view", "[click, view]", "any"][..]);
    let when = prop::option::of(conditions());
    let condition =
        |key: &'static str, when: Option<String>| when.map_or(String::new(), |when| format!(", {key}: {when}"));
    let rule = (
        types.clone(),
        0..6,
        when.clone(),
        when.clone(),
        conditions(),
        0..3,
        0..2,
    )
        .prop_map(move |(types, moment, when, unless, transition, content, slot)| {
            let moment = match moment {
                0 | 1 => format!("on: {types}"),
                2 => format!("enters: {transition}"),
                3 => format!("leaves: {transition}"),
                4 => format!("after: 10m, since: {types}"),
                _ => "after: [5m, 20m], since: steps.one".to_owned(),
            };
            let (when, unless) = (condition("when", when), condition("unless", unless));
            format!("{moment}{when}{unless}, offer: c{content}, slot: s{slot}")
        });
    let steps = (types.clone(), types, when.clone()).prop_map(move |(one, two, when)| {
        format!(
            "steps:\n  - {{ id: one, on: {one} }}\n  - {{ id: two, on: {two}{} }}\n  - {{ id: three, on: click, when: steps.two.done }}\n",
            condition("when", when)
        )
    });
    let contents = (when.clone(), when.clone()).prop_map(move |(one, two)| {
        format!(
            "contents:\n  - {{ id: c0 }}\n  - {{ id: c1{} }}\n  - {{ id: c2{} }}\n",
            condition("when", one),
            condition("unless", two)
        )
    });
    (steps, contents, prop::collection::vec(rule, 1..6), when.clone(), when, any::<bool>()).prop_map(
        |(steps, contents, rules, entry, exit, ignores)| {
            let rules: String = rules
                .iter()
                .enumerate()
                .map(|(index, rule)| format!("  - {{ id: r{index}, {rule} }}\n"))
                .collect();
            let top = |key: &str, when: Option<String>| when.map_or(String::new(), |when| format!("{key}: {when}\n"));
            let ignore = if ignores { "ignore: view\n" } else { "" };
            format!(
                "journey: j\n{ignore}{}{}experiments: [{{ id: copy, arms: {{ a: 1, b: 1 }} }}]\nfeatures: {{ clicks: {{ count: click }}, views_1h: {{ count: view, within: 1h }} }}\n{steps}{contents}triggers:\n{rules}",
                top("entry", entry),
                top("exit", exit)
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    /// No false alarm: what is said never to fire doesn't, and no step is completed that nobody can complete, whatever
    /// events come.
    #[test]
    fn what_is_said_never_to_happen_never_does(
        text in journeys(),
        events in prop::collection::vec((prop::sample::select(&["click", "view", "other"][..]), 0..40i64, 0..90i64), 1..12),
        user in "[a-z]",
    ) {
        let checked = Checked::parse(&text).unwrap_or_else(|errors| panic!("{}", errors.render("journey.yaml", &text)));
        let journey = &checked.journey;
        let mut now_min = 0;
        let arrivals: Vec<ArrivedEvent<'_>> = events
            .iter()
            .enumerate()
            .map(|(index, (event_type, gap_min, late_min))| {
                now_min += gap_min;
                let at = (now_min - late_min).max(0);
                let mut happened = event(&format!("e{index}"), event_type, time(at * MINUTE_MS));
                happened.user = user.clone().into();
                arrived(happened, 0, index as u64 + 1, time(now_min * MINUTE_MS))
            })
            .collect();
        let mut profile = Profile::new(journey);
        let mut counts = crate::rules::RuleCounts::default();
        for arrived in &arrivals {
            let mut plan = plan_user(journey, Snapshots::none(), profile, [arrived]);
            plan.profile.outbox.clear();
            counts.add(&plan.rules);
            profile = plan.profile;
        }
        for finding in &checked.findings {
            let Diagnostic { path, message, .. } = &finding.diagnostic;
            let name = path.split('.').nth(1).unwrap_or_default();
            if message.contains("this trigger never fires") {
                let rule = journey.rules.iter().position(|rule| rule.id == name).expect(path);
                prop_assert_eq!(counts.get(rule, RuleOutcome::Fired), 0, "{}: {}\n{}", path, message, text);
            }
            if message.contains("nobody can complete the step") && path.starts_with("steps.") {
                let step = journey.steps.iter().position(|step| step.id == name).expect(path);
                prop_assert_eq!(profile.steps[step], None, "{}: {}\n{}", path, message, text);
            }
            if message.contains("is never eligible when this trigger") {
                let rule = journey.rules.iter().position(|rule| rule.id == name).expect(path);
                prop_assert_eq!(counts.get(rule, RuleOutcome::Fired), 0, "{}: {}\n{}", path, message, text);
            }
            if message.contains("nobody ever enters") {
                let fired = (0..journey.rules.len()).map(|rule| counts.get(rule, RuleOutcome::Fired)).sum::<u64>();
                prop_assert_eq!(fired, 0, "{}: {}\n{}", path, message, text);
            }
        }
    }
}
