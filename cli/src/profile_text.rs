//! A profile and a trigger for people.

use usher_domain::journey::Journey;
use usher_domain::offers::OpenOffer;
use usher_domain::profile::{Profile, RuleState};
use usher_domain::time::Timestamp;
use usher_domain::value::Value;
use usher_domain::{policy, timers};
use usher_wire::profile_json::feature_json;

use crate::people::{counted, grouped, table};

/// A user's profile as of `now`.
pub fn profile_text(user: &str, profile: &Profile, journey: &Journey, now: Timestamp) -> String {
    let mut text = format!(
        "{user}: {}, the latest arrived at {}; shown as of {now}\n",
        counted(profile.applied_events as usize, "event"),
        profile.now
    );
    let sessions = &profile.sessions;
    let latest = sessions.latest().map_or_else(String::new, |session| {
        format!(
            ", the latest from {} to {} with {}",
            session.start,
            session.end,
            counted(session.events as usize, "event")
        )
    });
    text.push_str(&format!("sessions: {}{latest}\n", grouped(sessions.count())));
    let steps = journey.steps.iter().zip(&profile.steps).map(|(step, done_at)| {
        let done = done_at.map_or_else(|| "not yet".to_owned(), |at| format!("done at {at}"));
        (step.id.clone(), done)
    });
    if policy::has_membership(journey) {
        let membership = &profile.membership;
        let told = match (
            policy::is_in(journey, profile),
            membership.entered_at,
            membership.left_at,
        ) {
            (true, Some(entered_at), _) => format!("in the journey since {entered_at}"),
            (true, None, _) => "in the journey".to_owned(),
            (false, _, Some(left_at)) => format!("left the journey at {left_at}"),
            (false, _, None) => "not in the journey yet".to_owned(),
        };
        text.push_str(&format!("membership: {told}\n"));
    }
    if let Some(timezone) = &profile.timezone {
        text.push_str(&format!("time zone: {}\n", Value::from(&timezone.value)));
    }
    section(&mut text, "steps", steps.collect());
    let features = journey.features.iter().enumerate();
    let features = features.map(|(index, feature)| (feature.name.clone(), feature_json(profile, journey, index, now)));
    section(&mut text, "features", features.collect());
    let traits = journey.traits.iter().zip(&profile.traits);
    let traits =
        traits.filter_map(|(name, known)| Some((name.clone(), Value::from(&known.as_ref()?.value).to_string())));
    section(&mut text, "traits", traits.collect());
    let rules = journey
        .rules
        .iter()
        .zip(&profile.rules)
        .enumerate()
        .filter(|(_, (_, state))| **state != RuleState::default())
        .map(|(index, (rule, state))| (rule.id.clone(), rule_text(profile, journey, index, state)));
    section(&mut text, "rules", rules.collect());
    section(&mut text, "open offers", open_offers(profile, journey, now));
    let waiting = profile
        .outbox
        .iter()
        .map(|trigger| (trigger.rule.clone(), trigger.id.to_string()));
    section(
        &mut text,
        "triggers of the last write (kept until the next one; already on the stream unless that failed)",
        waiting.collect(),
    );
    text
}

/// What is kept for a rule.
fn rule_text(profile: &Profile, journey: &Journey, index: usize, state: &RuleState) -> String {
    let mut parts = Vec::new();
    if state.fired > 0 {
        let last = state
            .last_fired_at
            .map_or_else(String::new, |at| format!(", last at {at}"));
        parts.push(format!("fired {}{last}", counted(state.fired as usize, "time")));
    }
    if let Some(timer) = &state.timer {
        parts.push(match timers::due_of(journey, profile, index) {
            Some(due_at) => format!("timer since {}, due at {due_at}", timer.since),
            None => format!("timer since {}, done", timer.since),
        });
    }
    if let Some(put_off) = &state.put_off {
        parts.push(format!("put off until {}", put_off.until));
    }
    if state.holds {
        parts.push("its condition held at the last look".to_owned());
    }
    parts.join("; ")
}

/// The offers that may still come to something: what was offered, until when it counts, and what was rewarded so far.
fn open_offers(profile: &Profile, journey: &Journey, now: Timestamp) -> Vec<(String, String)> {
    let Some(outcomes) = &journey.outcomes else {
        return Vec::new();
    };
    let open = profile.open_offers.iter().filter(|offer| offer.until >= now);
    let row = |offer: &OpenOffer| {
        let rule = journey.rules.iter().find(|rule| rule.fingerprint == offer.rule)?;
        let content = (journey.contents.iter()).find(|content| content.fingerprint == offer.content)?;
        let rewards: Vec<&str> = outcomes.rewards_of(offer).collect();
        let so_far = match rewards.is_empty() {
            true => "nothing yet".to_owned(),
            false => format!("{} so far: {}", offer.reward, rewards.join(", ")),
        };
        Some((
            rule.id.clone(),
            format!("{} until {}; {so_far}", content.id, offer.until),
        ))
    };
    open.filter_map(row).collect()
}

fn section(text: &mut String, heading: &str, rows: Vec<(String, String)>) {
    if !rows.is_empty() {
        text.push_str(&format!("{heading}\n{}", table(&rows)));
    }
}

/// A trigger from its JSON on the stream: what was offered to whom, and why.
pub fn trigger_text(json: &[u8]) -> String {
    let Ok(trigger) = serde_json::from_slice::<serde_json::Value>(json) else {
        return String::from_utf8_lossy(json).into_owned();
    };
    let word = |path: &str| trigger.pointer(path).and_then(serde_json::Value::as_str).unwrap_or("?");
    let mut text = format!(
        "trigger {}: `{}` offered `{}` to {} in {}, decided at {}\n  cause      {} `{}` at {}\n",
        word("/trigger_id"),
        word("/rule"),
        word("/offer"),
        word("/user_id"),
        word("/slot"),
        word("/decided_at"),
        word("/cause/event_type"),
        word("/cause/event_id"),
        word("/cause/timestamp"),
    );
    if let Some(condition) = trigger.pointer("/reason/condition").and_then(serde_json::Value::as_str) {
        text.push_str(&format!("  condition  {condition}\n"));
    }
    let saw = trigger.pointer("/reason/saw").and_then(serde_json::Value::as_object);
    for (name, value) in saw.into_iter().flatten() {
        text.push_str(&format!("  saw        {name} = {value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use usher_wire::trigger;

    use super::*;
    use crate::fold::Fold;

    #[test]
    fn a_profile_and_a_trigger_tell_what_is_known_and_why() {
        let journey = Journey::parse(
            "journey: j
steps: [{ id: joined, on: sign_up }, { id: clicked, on: click }]
entry: session.events >= 1
features: { clicks: { count: click } }
contents: [{ id: tour }]
triggers:
  - { id: stalled, after: [1h], since: steps.clicked, offer: tour, slot: in_app }
  - { id: active, enters: features.clicks >= 1, offer: tour, slot: side }
  - { id: first, on: click, when: 'features.clicks == 1 && traits.plan == \"team\"', offer: tour, slot: in_app }
",
        )
        .expect("it is fine");
        let mut fold = Fold::new(&journey);
        let at = "2026-01-05T10:00:00.000Z";
        let now: Timestamp = at.parse().expect("a time");
        let mut triggers = Vec::new();
        for (number, event) in [
            r#""event_type":"identify","traits":{"plan":"team"}"#,
            r#""event_type":"click""#,
        ]
        .into_iter()
        .enumerate()
        {
            let line = format!(r#"{{"event_id":"{number}","timestamp":"{at}","user_id":"ann",{event}}}"#);
            triggers.extend(fold.line(number as u64 + 1, line.as_bytes(), now));
        }
        let text = profile_text("ann", &fold.into_profiles()["ann"], &journey, now);
        for part in [
            "ann: 2 events",
            "joined   not yet",
            "clicked  done at 2026",
            "clicks  1",
            "plan  \"team\"",
            "fired 1 time, last at 2026",
            "membership: in the journey since 2026-01-05T10:00:00.000Z",
            "stalled  timer since 2026-01-05T10:00:00.000Z, due at 2026-01-05T11:00:00.000Z",
            "its condition held at the last look",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = trigger_text(&trigger::to_json(
            triggers.iter().find(|one| one.rule == "first").expect("it fired"),
        ));
        for part in [
            "`first` offered `tour` to ann in in_app",
            "click `1`",
            "saw        traits.plan = \"team\"",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
