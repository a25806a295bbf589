use super::*;
use crate::limits::OFFERS_MADE_MAX;
use crate::rules::RuleOutcome;
use crate::rules::tests::{check, played, record, records, told};
use crate::testing::journey;

#[test]
fn caps_hold_overall_and_for_each_slot_to_their_edges() {
    check(&[
        (
            "overall, over all rules; an offer leaves the window to the millisecond",
            "contents: [{ id: c }]
policy: { cap: { offers: 2, within: 60m } }
triggers:
  - { id: a, on: click, offer: c, slot: s }
  - { id: b, on: view, offer: c, slot: t }",
            &[
                "0 click",
                "10 view",
                "20 click",
                "60-1ms view",
                "60 view",
                "61 click",
                "70 click",
            ],
            &["a 0", "b 10", "b 60", "a 70"],
        ),
        (
            "for a slot, beside the one for all",
            "contents: [{ id: c }]
policy: { cap: [{ offers: 3, within: 60m }, { offers: 1, within: 30m, slot: t }] }
triggers:
  - { id: a, on: click, offer: c, slot: s }
  - { id: b, on: view, offer: c, slot: t }",
            &[
                "0 view", "1 view", "2 click", "3 click", "4 click", "31 view", "60 view", "61 view",
            ],
            &["b 0", "a 2", "a 3", "b 60"],
        ),
        (
            "rules of one moment count one by one",
            "contents: [{ id: c }]
policy: { cap: { offers: 2, within: 60m } }
triggers:
  - { id: low, on: click, offer: c, slot: a }
  - { id: high, on: click, offer: c, slot: b, priority: 1 }
  - { id: mid, on: click, offer: c, slot: c }",
            &["0 click"],
            &["high 0", "low 0"],
        ),
        (
            "a timer counts as of when it was due",
            "contents: [{ id: c }]
policy: { cap: { offers: 1, within: 60m } }
triggers:
  - { id: a, on: click, offer: c, slot: s }
  - { id: b, after: 59m, since: click, offer: c, slot: t }
  - { id: d, after: 60m, since: click, offer: c, slot: t }",
            &["0 click", "500 wake"],
            &["a 0", "d 60 by 500"],
        ),
    ]);
}

#[test]
fn a_content_cools_down_whichever_rule_offers_it() {
    check(&[(
        "a content's own time wins over the policy's",
        "contents: [{ id: c }, { id: d, cooldown: 30m }]
policy: { content_cooldown: 60m }
triggers:
  - { id: a, on: click, offer: c, slot: s }
  - { id: b, on: view, offer: c, slot: t }
  - { id: e, on: open, offer: d, slot: t }",
        &[
            "0 click",
            "1 view",
            "2 open",
            "31 open",
            "32 open",
            "60-1ms view",
            "60 view",
            "61 click",
        ],
        &["a 0", "e 2 d", "e 32 d", "b 60"],
    )]);
}

#[test]
fn rules_of_a_group_exclude_each_other() {
    check(&[
        (
            "at one moment the one with the highest priority fires, whatever the slot",
            "contents: [{ id: c }]
policy: { groups: { g: {} } }
triggers:
  - { id: a, on: click, offer: c, slot: a, group: g }
  - { id: b, on: click, offer: c, slot: b, group: g, priority: 1, limit: 1 }
  - { id: other, on: click, offer: c, slot: c, limit: 1 }",
            &["0 click", "1 click"],
            &["b 0", "other 0", "a 1"],
        ),
        (
            "or for a time; the rule itself may fire again",
            "contents: [{ id: c }]
policy: { groups: { g: { within: 60m } } }
triggers:
  - { id: a, on: click, offer: c, slot: a, group: g }
  - { id: b, on: view, offer: c, slot: b, group: g }",
            &["0 click", "1 click", "2 view", "61-1ms view", "61 view", "62 click"],
            &["a 0", "a 1", "b 61"],
        ),
        (
            "what did not fire for another reason excludes nothing",
            "contents: [{ id: c }]
policy: { groups: { g: {} } }
triggers:
  - { id: a, on: click, when: 1 > 2, offer: c, slot: a, group: g, priority: 1 }
  - { id: b, on: click, offer: c, slot: b, group: g }",
            &["0 click"],
            &["b 0"],
        ),
    ]);
}

/// All tests start at midnight of 2024-01-01, a Monday, in UTC.
#[test]
fn quiet_hours_go_by_the_users_own_clock() {
    let defer = "contents: [{ id: c }]
policy: { quiet_hours: { from: \"22:00\", to: \"08:00\" } }
triggers: [{ id: r, on: click, offer: c, slot: s }]";
    check(&[
        (
            "put off to their end, past midnight; outside of them at once",
            defer,
            &[
                "479 click",
                "480 click",
                "1319 click",
                "1320 click",
                "1321 wake",
                "2000 wake",
            ],
            // The first was still put off when its time came at the second event.
            &["r 480", "r 480", "r 1319", "r 1920 by 2000"],
        ),
        (
            "one is put off at a time: the first",
            defer,
            &["1330 click", "1400 click", "1500 click", "1920 wake", "1921 wake"],
            &["r 1920"],
        ),
        (
            "where the user is: 5 hours behind",
            defer,
            &["479 click zone=America/New_York", "1000 click", "1200 view"],
            // 02:59 there, and 11:40.
            &["r 780 by 1000", "r 1000"],
        ),
        (
            "by the latest event that says, whichever comes last",
            defer,
            &[
                "1000 view zone=America/New_York",
                "1001 view zone=Asia/Tokyo at=900",
                "1002 view zone=Europe/Atlantis",
                "1700 click", // 23:20 in New York
                "3000 wake",
            ],
            &["r 2220 by 3000"],
        ),
        (
            "or as the policy says",
            "contents: [{ id: c }]
policy: { quiet_hours: { from: \"22:00\", to: \"08:00\", timezone: Asia/Tokyo } }
triggers: [{ id: r, on: click, offer: c, slot: s }]",
            // 22:00 and 08:00 in Tokyo.
            &["779 click", "780 click", "1380 wake"],
            &["r 779", "r 1380"],
        ),
        (
            "within a day, for some slots, and dropped",
            "contents: [{ id: c }]
policy: { quiet_hours: { from: \"12:00\", to: \"13:00\", then: drop, slots: [email] } }
triggers:
  - { id: mail, on: click, offer: c, slot: email }
  - { id: app, on: click, offer: c, slot: in_app }",
            &["719 click", "720 click", "779 click", "780 click"],
            &["mail 719", "app 719", "app 720", "app 779", "mail 780", "app 780"],
        ),
        (
            "a timer that is due then is put off, and its chain goes on",
            "contents: [{ id: c }, { id: d }]
policy: { quiet_hours: { from: \"22:00\", to: \"08:00\" } }
triggers: [{ id: r, after: [2h, 24h], since: click, offer: [c, d], slot: s }]",
            &["1260 click", "4000 wake"],
            &["r 1920 by 4000", "r 2700 by 4000 d"],
        ),
    ]);
}

#[test]
fn p12_a_put_off_offer_is_made_only_if_it_still_may_be() {
    check(&[
        (
            "unless, content, limit, cap and cooldown are asked again; what its event said is not",
            "steps: [{ id: joined, on: join }]
contents: [{ id: c, unless: steps.joined.done }]
policy: { quiet_hours: { from: \"00:00\", to: \"08:00\", slots: [email] } }
triggers:
  - { id: by_content, on: click, offer: c, slot: email }",
            &["0 click", "10 join", "500 wake"],
            &[],
        ),
        (
            "unless",
            "steps: [{ id: joined, on: join }]
contents: [{ id: c }]
policy: { quiet_hours: { from: \"00:00\", to: \"08:00\", slots: [email] } }
triggers:
  - { id: r, on: click, when: event.properties.x == 1, unless: steps.joined.done, offer: c, slot: email }
  - { id: q, on: click, when: event.properties.x == 2, unless: event.properties.x == 3, offer: c, slot: email }",
            &["0 click x=1", "5 click x=2", "10 join", "500 wake"],
            &["q 480 by 500"],
        ),
        (
            "at the end of the night, priority decides, and one is made for a slot",
            "contents: [{ id: c }]
policy: { quiet_hours: { from: \"00:00\", to: \"08:00\" } }
triggers:
  - { id: low, on: click, offer: c, slot: email }
  - { id: high, on: view, offer: c, slot: email, priority: 1 }",
            &["0 click", "5 view", "500 wake"],
            &["high 480 by 500"],
        ),
        (
            "the cap is that of the morning",
            "contents: [{ id: c }]
policy: { cap: { offers: 1, within: 24h }, quiet_hours: { from: \"00:00\", to: \"08:00\", slots: [email] } }
triggers:
  - { id: night, on: click, offer: c, slot: email }
  - { id: app, on: view, offer: c, slot: in_app }",
            &["0 click", "5 view", "500 wake"],
            &["app 5"],
        ),
        (
            "who left the journey gets nothing",
            "contents: [{ id: c }]
exit: event.type == 'close'
reentry: never
policy: { quiet_hours: { from: \"00:00\", to: \"08:00\" } }
triggers: [{ id: r, on: click, offer: c, slot: email }]",
            &["0 click", "5 close", "500 wake"],
            &[],
        ),
    ]);
    // It keeps the cause that it had, so its id.
    let journey = journey(
        "journey: j\ncontents: [{ id: c }]\npolicy: { quiet_hours: { from: \"00:00\", to: \"08:00\" } }\ntriggers: [{ id: r, on: click, when: event.properties.x == 1, offer: c, slot: s }]\n",
    );
    let (triggers, ..) = played(&journey, &records(&["0 click x=1", "480 wake"]));
    let trigger = &triggers[0];
    assert_eq!(trigger.id, crate::trigger::TriggerId::of("u", "r", "e1"));
    assert_eq!(
        (trigger.cause.event_id.as_str(), trigger.cause.at),
        ("e1", record(1, "0 click").event.at)
    );
    assert_eq!(trigger.cause.sequence_number, 1u64.into());
    assert_eq!(trigger.due_at, Some(record(1, "480 click").event.at));
    assert_eq!(trigger.reason.saw[0].json, "1");
}

/// In London clocks go from 01:00 to 02:00 on 2026-03-29, and from 02:00 to 01:00 on 2026-10-25.
#[test]
fn quiet_hours_keep_to_summer_time() {
    for (from, to, now, expected) in [
        ("22:00", "08:00", "2026-03-28T23:00:00Z", Some("2026-03-29T07:00:00Z")),
        ("22:00", "08:00", "2026-03-29T06:59:00Z", Some("2026-03-29T07:00:00Z")),
        ("22:00", "08:00", "2026-03-29T07:00:00Z", None),
        ("22:00", "08:00", "2026-03-29T20:59:00Z", None),
        ("22:00", "08:00", "2026-03-29T21:00:00Z", Some("2026-03-30T07:00:00Z")),
        ("22:00", "08:00", "2026-10-24T21:00:00Z", Some("2026-10-25T08:00:00Z")),
        // 01:30 is skipped: quiet until the clocks change.
        ("22:00", "01:30", "2026-03-29T00:59:00Z", Some("2026-03-29T01:00:00Z")),
        ("22:00", "01:30", "2026-03-29T01:00:00Z", None),
        // 01:30 comes twice: the time before it is quiet twice.
        ("22:00", "01:30", "2026-10-25T00:29:00Z", Some("2026-10-25T00:30:00Z")),
        ("22:00", "01:30", "2026-10-25T00:30:00Z", None),
        ("22:00", "01:30", "2026-10-25T01:10:00Z", Some("2026-10-25T01:30:00Z")),
        ("22:00", "01:30", "2026-10-25T01:30:00Z", None),
    ] {
        let text = format!(
            "journey: j\npolicy: {{ quiet_hours: {{ from: \"{from}\", to: \"{to}\", timezone: Europe/London }} }}\n"
        );
        let journey = journey(&text);
        let until = quiet_until(&journey, &Profile::new(&journey), 0, now.parse().expect(now));
        assert_eq!(
            until,
            expected.map(|until| until.parse().expect(until)),
            "{from} to {to} at {now}"
        );
    }
}

#[test]
fn entry_and_exit_act_at_once() {
    check(&[
        (
            "nothing fires before the user is in; the event that lets them in may",
            "entry: features.clicks >= 2
features: { clicks: { count: click } }
contents: [{ id: c }]
triggers: [{ id: r, on: [click, view], offer: c, slot: s }]",
            &["0 click", "1 view", "2 click", "3 view"],
            &["r 2", "r 3"],
        ),
        (
            "nor at the event that leads out, or after it; and timers are forgotten",
            "exit: event.type == 'close'
reentry: never
contents: [{ id: c }]
triggers:
  - { id: r, on: any, offer: c, slot: s }
  - { id: t, after: 10m, since: click, offer: c, slot: t }",
            &["0 click", "1 close", "2 click", "3 view", "100 wake"],
            &["r 0"],
        ),
        (
            "always: in again when entry holds after it did not",
            "entry: event.type == 'start'
exit: event.type == 'close'
contents: [{ id: c }]
triggers: [{ id: r, on: view, offer: c, slot: s }]",
            &["0 start", "1 view", "2 close", "3 view", "4 start", "5 view"],
            &["r 1", "r 5"],
        ),
        (
            "always: an entry that holds for ever leads in once",
            "entry: steps.s.done
exit: event.type == 'close'
steps: [{ id: s, on: start }]
contents: [{ id: c }]
triggers: [{ id: r, on: view, offer: c, slot: s }]",
            &["0 start", "1 view", "2 close", "3 view", "4 start", "5 view"],
            &["r 1"],
        ),
        (
            "always, without entry: in again when exit does not hold",
            "exit: features.clicks >= 1
features: { clicks: { count: click, within: 60m } }
contents: [{ id: c }]
triggers: [{ id: r, on: view, offer: c, slot: s }]",
            &["0 view", "1 click", "2 view", "100 view"],
            &["r 0", "r 100"],
        ),
        (
            "after a time at the earliest",
            "entry: steps.s.done
exit: event.type == 'close'
reentry: 60m
steps: [{ id: s, on: start }]
contents: [{ id: c }]
triggers: [{ id: r, on: view, offer: c, slot: s }]",
            &["0 start", "1 view", "2 close", "3 view", "62-1ms view", "62 view"],
            &["r 1", "r 62"],
        ),
        (
            "while exit holds, nobody comes in",
            "entry: steps.s.done
exit: steps.e.done
steps: [{ id: s, on: start }, { id: e, on: [end, start] }]
contents: [{ id: c }]
triggers: [{ id: r, on: any, offer: c, slot: s }]",
            &["0 start", "1 view"],
            &[],
        ),
        (
            "at a timer's moment too: it leaves before the timer that is due",
            "exit: features.clicks == 0
features: { clicks: { count: any, within: 60m } }
contents: [{ id: c }]
triggers:
  - { id: early, after: 30m, since: click, offer: c, slot: t }
  - { id: late, after: 2h, since: click, offer: c, slot: t }
  - { id: later, after: 3h, since: click, offer: c, slot: t }",
            &["0 click", "300 wake"],
            &["early 30 by 300"],
        ),
    ]);
    let journey = journey(
        "journey: j\nentry: steps.s.done\nsteps: [{ id: s, on: start }]\ncontents: [{ id: c }]\ntriggers: [{ id: r, on: view, offer: c, slot: s }]\n",
    );
    let (_, profile, counts) = played(&journey, &records(&["0 view", "1 start"]));
    assert_eq!(counts.get(0, RuleOutcome::NotInJourney), 1);
    assert_eq!(profile.membership.entered_at, Some(record(1, "1 start").arrived_at));
}

#[test]
fn p8_offers_are_kept_only_as_far_back_as_the_policy_looks() {
    let of = |policy: &str, within: &str| {
        let text = format!(
            "journey: j\n{policy}contents: [{{ id: c }}]\ntriggers: [{{ id: r, on: click, offer: c, slot: s }}]\n{within}"
        );
        let journey = journey(&text);
        let lines: Vec<String> = (0..200).map(|minute| format!("{minute} click")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        played(&journey, &records(&lines)).1.offers.len()
    };
    assert_eq!(of("", ""), 0, "nobody asks for them");
    assert_eq!(of("policy: { cap: { offers: 64, within: 30m } }\n", ""), 30);
    assert_eq!(
        of("policy: { cap: { offers: 64, within: 24h } }\n", ""),
        OFFERS_MADE_MAX
    );
}

#[test]
fn a_held_out_user_is_decided_for_like_any_other_and_shown_nothing() {
    let text = |holdout: &str| {
        format!(
            "journey: j\ncontents: [{{ id: c }}]\npolicy: {{ cap: {{ offers: 1, within: 60m }}{holdout} }}\ntriggers: [{{ id: r, on: click, offer: c, slot: s, limit: 2 }}]\n"
        )
    };
    let lines = ["0 click", "1 click", "61 click", "200 click"];
    let all = played(&journey(&text(", holdout: 100%")), &records(&lines));
    let none = played(&journey(&text("")), &records(&lines));
    assert_eq!(told(&none.0), ["r 0", "r 61"]);
    assert_eq!(told(&all.0), ["r 0 held", "r 61 held"]);
    assert_eq!(all.1.rules, none.1.rules);
    assert_eq!(all.1.offers, none.1.offers);
    for outcome in [RuleOutcome::Capped, RuleOutcome::LimitReached] {
        assert_eq!(all.2.get(0, outcome), none.2.get(0, outcome));
    }
    assert_eq!(
        (all.2.get(0, RuleOutcome::HeldOut), all.2.get(0, RuleOutcome::Fired)),
        (2, 0)
    );
}

#[test]
fn shares_of_users_are_as_large_as_the_file_says_stable_and_independent() {
    const USERS: usize = 100_000;
    let journey = journey(
        r#"
journey: j
experiments:
  - { id: copy, arms: { a: 50, b: 30, c: 20 } }
  - { id: look, arms: { old: 1, new: 1 } }
contents: [{ id: c }]
policy: { holdout: 5% }
triggers:
  - { id: all, on: click, offer: c, slot: s }
  - { id: half, on: click, offer: c, slot: t, holdout: 50% }
"#,
    );
    let mut shares = std::collections::BTreeMap::<String, usize>::new();
    for user in (0..USERS).map(|user| format!("user-{user}")) {
        let mut count = |what: String| *shares.entry(what).or_default() += 1;
        let arms = arms(&journey, &user);
        let held_out = is_held_out(&journey, 0, &user);
        for (experiment, arm) in &arms {
            count(format!("{experiment}={arm}"));
        }
        if held_out {
            count("held out".to_owned());
            count(format!("held out and look={}", arms[1].1));
        }
        if is_held_out(&journey, 1, &user) {
            count("held out of half".to_owned());
        }
        count(format!("copy={} look={}", arms[0].1, arms[1].1));
    }
    for (what, share) in [
        ("copy=a", 0.5),
        ("copy=b", 0.3),
        ("copy=c", 0.2),
        ("look=old", 0.5),
        ("copy=a look=new", 0.25),
        ("copy=c look=old", 0.1),
        ("held out", 0.05),
        ("held out and look=old", 0.025),
        ("held out of half", 0.525),
    ] {
        let found = shares[what] as f64 / USERS as f64;
        // Four standard deviations.
        let tolerance = 4.0 * (share * (1.0 - share) / USERS as f64).sqrt();
        assert!((found - share).abs() < tolerance, "{what}: {found}, not {share}");
    }
    // Stored decisions name them: another arm for a user who has one is a break.
    let of = |user: &str| (arms(&journey, user)[0].1.clone(), is_held_out(&journey, 1, user));
    let known: Vec<_> = ["u", "user-1", "user-2", "user-3"].map(of).to_vec();
    assert_eq!(known, KNOWN_SHARES.map(|(arm, held_out)| (arm.to_owned(), held_out)));
}
const KNOWN_SHARES: [(&str, bool); 4] = [("a", false), ("b", false), ("a", false), ("b", true)];

#[test]
fn every_decision_names_the_arms() {
    let journey = journey(
        "journey: j\nexperiments: [{ id: copy, arms: { a: 1, b: 1 } }]\ncontents: [{ id: c }]\ntriggers:\n  - { id: a, on: click, when: arms.copy == 'a', offer: c, slot: s }\n  - { id: b, on: click, when: arms.copy == 'b', offer: c, slot: s }\n",
    );
    for user in ["u", "v", "w", "x"] {
        let line = format!("0 click user={user}");
        let (triggers, ..) = played(&journey, &records(&[&line]));
        assert_eq!(triggers.len(), 1);
        assert_eq!(triggers[0].arms, [("copy".to_owned(), triggers[0].rule.clone())]);
    }
}
