//! An explanation for people.

use std::fmt::Write;

use serde_json::value::RawValue;
use usher_domain::event::TIMER_EVENT;
use usher_domain::explain::{ConditionRole, ConditionStanding, LookStanding, RuleStanding, TimerStanding};
use usher_domain::journey::{Due, EventTypes, Journey, LimitPer, Moment, Rule, Since, Timer};
use usher_domain::rules::{RuleOutcome, duration};
use usher_domain::time::Timestamp;
use usher_pipeline::ports::DecisionStatus;
use usher_wire::trigger::{CauseDetails, PassedOverDetails};

use super::{Decision, Found, Timeline, Told, choice};
use crate::people::{counted, table};

const MINUTES_PER_HOUR: u16 = 60;
const MS_PER_SECOND: i64 = 1000;
/// From how long on a smaller unit says nothing any more, in milliseconds: seconds from 10 of them, then minutes, hours.
const SECONDS_FROM_MS: i64 = 10 * MS_PER_SECOND;
const MS_PER_MINUTE: i64 = 60 * MS_PER_SECOND;
const MS_PER_HOUR: i64 = 60 * MS_PER_MINUTE;
const MS_PER_DAY: i64 = 24 * MS_PER_HOUR;

/// Everything.
pub fn render(told: &Told<'_>) -> String {
    let mut text = head(told);
    timeline(&mut text, told.journey, &told.timeline);
    let _ = write!(text, "\nrules, as of {}\n", short(told.explanation.now));
    for standing in &told.explanation.rules {
        rule(&mut text, told, standing);
    }
    text
}

/// Who it is, and what limits all rules together.
fn head(told: &Told<'_>) -> String {
    let Told {
        journey,
        found:
            Found {
                user,
                led_over,
                profile,
                parked_since,
                notes,
                ..
            },
        explanation,
        ..
    } = told;
    let mut text = format!(
        "{user} in the journey `{}`, version {}\n",
        journey.name, journey.version
    );
    let mut rows = vec![(
        "events".to_owned(),
        format!(
            "{}, the latest arrived at {}",
            profile.applied_events,
            short(profile.now)
        ),
    )];
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    if !led_over.is_empty() {
        row(
            "is also",
            format!("{}, which was merged into this user", led_over.join(", ")),
        );
    }
    if let Some(since) = parked_since {
        let mend = "`usher redrive --user` goes on";
        row(
            "parked",
            format!("since {}: events wait on `rejected`; {mend}", short(*since)),
        );
    }
    if let Some((is_in, membership)) = &explanation.membership {
        row(
            "membership",
            match (is_in, membership.entered_at, membership.left_at) {
                (true, Some(entered_at), _) => format!("in the journey since {}", short(entered_at)),
                (true, None, _) => "in the journey".to_owned(),
                (false, _, Some(left_at)) => format!("left the journey at {}: no rule fires", short(left_at)),
                (false, _, None) => "not in the journey yet: no rule fires".to_owned(),
            },
        );
    }
    for (experiment, arm) in &explanation.arms {
        row(&format!("arms.{experiment}"), arm.clone());
    }
    if let Some(is_held_out) = explanation.is_held_out {
        let told = if is_held_out {
            "held out: decisions are logged, and nothing is shown"
        } else {
            "not held out"
        };
        row("holdout", told.to_owned());
    }
    for cap in &explanation.caps {
        let slot = cap.slot.as_ref().map_or_else(String::new, |slot| format!(" in {slot}"));
        let free = cap
            .free_at
            .map_or_else(String::new, |at| format!(", the next one from {}", short(at)));
        let within = duration(cap.within_ms);
        row(
            "cap",
            format!("{} of {} offers within {within}{slot}{free}", cap.used, cap.offers),
        );
    }
    if let Some((minute, timezone)) = &explanation.local_time {
        let zone = timezone
            .as_deref()
            .unwrap_or("the policy's time zone; none is known of the user");
        row("local time", format!("{} in {zone}", clock(*minute)));
    }
    for note in notes {
        row("note", note.clone());
    }
    text.push_str(&table(&rows));
    text
}

// ---- what was decided

fn timeline(text: &mut String, journey: &Journey, timeline: &Timeline<'_>) {
    let Timeline { decisions, of, rule } = timeline;
    let about = rule.map_or_else(String::new, |rule| format!(" at which {rule} looked"));
    let _ = match (decisions.len(), *of) {
        (0, 0) => writeln!(text, "\nno decisions{about}"),
        (shown, of) if shown == of => writeln!(text, "\n{}{about}", counted(of, "decision")),
        (shown, of) => writeln!(text, "\n{}{about}, the latest {shown}", counted(of, "decision")),
    };
    for decision in decisions {
        entry(text, journey, decision, *rule);
    }
}

fn entry(text: &mut String, journey: &Journey, decision: &Decision, only: Option<&str>) {
    let details = &decision.details;
    let at = short_text(details.due_at.as_ref().unwrap_or(&details.decided_at));
    let fate = fate(decision);
    let _ = writeln!(
        text,
        "{at}  {} offered {} in {}{fate}",
        details.rule, details.offer, details.slot
    );
    let is_about_winner = only.is_none_or(|rule| rule == details.rule);
    if is_about_winner {
        let _ = writeln!(text, "    {}", cause(decision));
        if let Some(condition) = &details.reason.condition {
            let _ = writeln!(text, "    {}", one_line(condition));
        }
        values(
            text,
            6,
            details
                .reason
                .saw
                .iter()
                .map(|(name, json)| (name.as_str(), shown_raw(journey, name, json))),
        );
        if let Some(chosen) = &details.choice {
            choice::decision(text, &details.offer, details.propensity, chosen);
        }
    }
    if details.journey.version != journey.version {
        let _ = writeln!(
            text,
            "    decided by version {} of `{}`",
            details.journey.version, details.journey.name
        );
    }
    for loser in &details.reason.won_over {
        if only.is_none_or(|rule| rule == loser || is_about_winner) {
            let _ = writeln!(
                text,
                "    {loser} would have fired, but lost to the priority of {}",
                details.rule
            );
        }
    }
    for passed in &details.reason.passed_over {
        if only.is_none_or(|rule| rule == passed.rule || is_about_winner)
            && passed.outcome != RuleOutcome::LostToPriority.name()
        {
            passed_over(text, journey, passed);
        }
    }
}

fn passed_over(text: &mut String, journey: &Journey, passed: &PassedOverDetails) {
    let why = match passed.detail.as_str() {
        "" => passed.outcome.replace('_', " "),
        detail => one_line(detail),
    };
    let _ = writeln!(text, "    {} did not fire: {why}", passed.rule);
    values(
        text,
        6,
        passed
            .saw
            .iter()
            .map(|(name, json)| (name.as_str(), shown_raw(journey, name, json))),
    );
}

/// What became of a decision.
fn fate(decision: &Decision) -> String {
    let told = match decision
        .status
        .as_deref()
        .map(|status| (DecisionStatus::from_name(status), status))
    {
        _ if decision.details.held_out => "held out, so nothing was shown",
        None => return String::new(),
        Some((Some(DecisionStatus::Delivered), _)) => "delivered",
        Some((Some(DecisionStatus::Pending), _)) => "not delivered yet",
        Some((Some(DecisionStatus::Undeliverable), _)) => "refused by the receiver for good",
        Some((Some(DecisionStatus::HeldOut), _)) => "held out, so nothing was shown",
        Some((None, unknown)) => unknown,
    };
    format!(" ({told})")
}

/// What caused a decision, and how late it was.
fn cause(decision: &Decision) -> String {
    let details = &decision.details;
    let CauseDetails {
        event_id,
        event_type,
        timestamp,
    } = &details.cause;
    let of_event = format!("{event_type} {event_id} at {}", short_text(timestamp));
    match &details.due_at {
        None => format!("because of {of_event}"),
        Some(due_at) => {
            let what = if event_type == TIMER_EVENT {
                "because its timer was due".to_owned()
            } else {
                format!("put off to the end of quiet hours, because of {of_event}")
            };
            format!("{what}{}", lateness(decision, due_at))
        }
    }
}

/// How long after it was due it was decided. Of folded events that says nothing: no sweeper ran.
fn lateness(decision: &Decision, due_at: &str) -> String {
    let times = (
        due_at.parse::<Timestamp>(),
        decision.details.decided_at.parse::<Timestamp>(),
    );
    let (Ok(due_at), Ok(decided_at), Some(_)) = (times.0, times.1, &decision.status) else {
        return String::new();
    };
    match decided_at.ms_since(due_at) {
        ms if ms > 0 => format!(", decided {} later", lateness_text(ms)),
        _ => String::new(),
    }
}

/// A time that passed, in two units at most.
pub(super) fn lateness_text(ms: i64) -> String {
    let (larger, smaller) = if ms >= MS_PER_DAY {
        (MS_PER_DAY, MS_PER_HOUR)
    } else if ms >= MS_PER_HOUR {
        (MS_PER_HOUR, MS_PER_MINUTE)
    } else if ms >= MS_PER_MINUTE {
        (MS_PER_MINUTE, MS_PER_SECOND)
    } else if ms >= SECONDS_FROM_MS {
        (MS_PER_SECOND, MS_PER_SECOND)
    } else {
        return duration(ms);
    };
    let whole = ms / larger * larger;
    let rest = (ms - whole) / smaller * smaller;
    let unit = |unit_ms: i64, part: i64| match unit_ms {
        MS_PER_DAY => format!("{}d", part / unit_ms),
        _ => duration(part),
    };
    if rest == 0 {
        unit(larger, whole)
    } else {
        format!("{} {}", unit(larger, whole), unit(smaller, rest))
    }
}

// ---- where rules stand

fn rule(text: &mut String, told: &Told<'_>, standing: &RuleStanding) {
    let journey = told.journey;
    let Some(rule) = journey.rules.get(standing.rule) else {
        return;
    };
    let offers: Vec<&str> = rule
        .offers
        .iter()
        .filter_map(|offer| journey.contents.get(*offer))
        .map(|content| content.id.as_str())
        .collect();
    let _ = writeln!(
        text,
        "{}: {} in {} {}",
        rule.id,
        match rule.learner {
            Some(_) => format!("chooses from {}", shortened(&offers)),
            None => format!("offers {}", offers.join(", then ")),
        },
        rule.slot,
        moment(journey, rule)
    );
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((format!("  {name}"), value));
    // A timer that waits for nothing is told by that alone.
    let waits = !matches!(rule.moment, Moment::Timer(_)) || standing.timer.is_some_and(|timer| timer.due_at.is_some());
    for look in standing.looks.iter().filter(|_| waits) {
        row(&look_name(rule, look), look_text(look));
    }
    if let Some(timer) = &standing.timer {
        row("timer", timer_text(timer, told.explanation.now));
    } else if matches!(rule.moment, Moment::Timer(_)) {
        row("timer", "not started".to_owned());
    }
    if let Some((until, content)) = &standing.put_off {
        let content = content.as_deref().unwrap_or("what is chosen then,");
        row("put off", format!("{content} until {}", short(*until)));
    }
    let last = standing
        .last_fired_at
        .map_or_else(String::new, |at| format!(", last at {}", short(at)));
    if standing.fired > 0 {
        row("fired", format!("{}{last}", counted(standing.fired as usize, "time")));
    }
    if let Some((used, limit)) = &standing.limit {
        let per = match limit.per {
            LimitPer::User => "user",
            LimitPer::Session => "session",
            LimitPer::JourneyVersion => "version of the journey",
        };
        row("limit", format!("{used} of {} per {per}", limit.count));
    }
    if let Some(until) = standing.cooling_until {
        row("cool-down", format!("until {}", short(until)));
    }
    if let Some(until) = standing.quiet_until {
        row("quiet hours", format!("until {}", short(until)));
    }
    if let Some((group, excluded_by)) = &standing.group {
        let silent = excluded_by
            .as_ref()
            .map_or_else(String::new, |other| format!(", silent because {other} fired"));
        row("group", format!("{group}{silent}"));
    }
    if standing.is_held_out == Some(true) {
        row(
            "holdout",
            "held out: decisions are logged, and nothing is shown".to_owned(),
        );
    }
    text.push_str(&table(&rows));
    for condition in &standing.conditions {
        condition_text(text, journey, condition);
    }
    if let Some(chosen) = &standing.choice {
        choice::standing(text, journey, chosen);
    }
}

/// Names, of which the first are told where there are many.
fn shortened(names: &[&str]) -> String {
    const NAMES_MAX: usize = 6;
    match names.len().saturating_sub(NAMES_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMES_MAX].join(", ")),
    }
}

/// What makes a rule look.
fn moment(journey: &Journey, rule: &Rule) -> String {
    let types = match rule.event_types() {
        EventTypes::Any => "any event".to_owned(),
        EventTypes::These(types) => types.join(", "),
    };
    match &rule.moment {
        Moment::Event => format!("on {types}"),
        Moment::Enters(_) => format!("once its condition comes to hold, on {types}"),
        Moment::Leaves(_) => format!("once its condition ceases to hold, on {types}"),
        Moment::Timer(timer) => timer_moment(journey, timer, &types),
    }
}

fn timer_moment(journey: &Journey, timer: &Timer, types: &str) -> String {
    let since = match &timer.since {
        Since::Step(step) => journey
            .steps
            .get(*step)
            .map_or_else(String::new, |step| format!("steps.{}", step.id)),
        Since::Event(_) => types.to_owned(),
        Since::SessionEnd => "the end of a session".to_owned(),
    };
    let dues = timer.reminders.iter().map(|due| match due {
        Due::After(after_ms) => duration(*after_ms),
        Due::LocalTime { days: 0, minute } => format!("at {} of the same day", clock(*minute)),
        Due::LocalTime { days: 1, minute } => format!("at {} on the day", clock(*minute)),
        Due::LocalTime { days, minute } => format!("at {} {days} days", clock(*minute)),
    });
    let dues: Vec<String> = dues.collect();
    format!("{} after {since}", dues.join(", "))
}

fn look_name(rule: &Rule, look: &LookStanding) -> String {
    match (&rule.moment, look.event_types.as_slice()) {
        (Moment::Timer(_), _) => "if it were due".to_owned(),
        (_, []) => "now".to_owned(),
        (_, types) => format!("on {}", types.join(", ")),
    }
}

fn look_text(look: &LookStanding) -> String {
    match look.outcome {
        Some(RuleOutcome::Fired) => "it would fire".to_owned(),
        Some(RuleOutcome::HeldOut) => "it would fire, held out".to_owned(),
        Some(_) if look.needs_event => "it depends on the event".to_owned(),
        _ => format!("it would not fire: {}", one_line(&look.detail)),
    }
}

fn timer_text(timer: &TimerStanding, now: Timestamp) -> String {
    let TimerStanding {
        since,
        done,
        reminders,
        due_at,
    } = timer;
    let of = if *reminders > 1 {
        format!(", reminder {} of {reminders}", done + 1)
    } else {
        String::new()
    };
    match due_at {
        None if *reminders > 1 => format!("done with all {reminders} reminders since {}", short(*since)),
        None => format!("done, since {}", short(*since)),
        Some(due_at) if *due_at <= now => {
            format!(
                "since {}, due since {}{of}: the user's next record makes it",
                short(*since),
                short(*due_at)
            )
        }
        Some(due_at) => {
            let left = lateness_text(due_at.ms_since(now));
            format!("since {}, due at {} (in {left}){of}", short(*since), short(*due_at))
        }
    }
}

fn condition_text(text: &mut String, journey: &Journey, condition: &ConditionStanding) {
    let role = match &condition.role {
        ConditionRole::Enters => "enters".to_owned(),
        ConditionRole::Leaves => "leaves".to_owned(),
        ConditionRole::When => "when".to_owned(),
        ConditionRole::Unless => "unless".to_owned(),
        ConditionRole::Since => "since an event with".to_owned(),
        ConditionRole::ContentWhen(content) => format!("{content} when"),
        ConditionRole::ContentUnless(content) => format!("{content} unless"),
    };
    let holds = match (condition.holds, &condition.error) {
        (Some(true), _) => "holds".to_owned(),
        (Some(false), _) => "does not hold".to_owned(),
        (None, Some(error)) => format!("can't be told: {error}"),
        (None, None) => "depends on the event".to_owned(),
    };
    let _ = writeln!(text, "    {role} {}: {holds}", one_line(&condition.source));
    let read = condition.values.iter().map(|value| {
        let json = value.json.as_deref();
        let told = json.map_or_else(|| "needs an event".to_owned(), |json| shown(journey, &value.name, json));
        (value.name.as_str(), told)
    });
    values(text, 6, read);
}

// ---- parts

pub(super) fn values<'n>(text: &mut String, indent: usize, values: impl Iterator<Item = (&'n str, String)>) {
    for (name, value) in values {
        let _ = writeln!(text, "{:indent$}{name} = {value}", "");
    }
}

fn shown_raw(journey: &Journey, name: &str, json: &RawValue) -> String {
    shown(journey, name, json.get())
}

/// A value that a condition read: JSON, and a point in time as people write one.
fn shown(journey: &Journey, name: &str, json: &str) -> String {
    let is_time = match name.split_once('.') {
        Some(("features", name)) => {
            let feature = journey.features.iter().find(|feature| feature.name == name);
            feature.is_some_and(|feature| feature.computation.is_time())
        }
        Some(("steps", path)) => path.ends_with(".at"),
        _ => false,
    };
    match json.parse::<i64>() {
        Ok(ms) if is_time => short(Timestamp::from_epoch_ms(ms)),
        _ => json.to_owned(),
    }
}

/// A condition may be written over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn clock(minute: u16) -> String {
    format!("{:02}:{:02}", minute / MINUTES_PER_HOUR, minute % MINUTES_PER_HOUR)
}

pub(super) fn short(time: Timestamp) -> String {
    short_text(&time.to_string())
}

/// A time without milliseconds where there are none.
fn short_text(time: &str) -> String {
    time.replace(".000Z", "Z")
}
