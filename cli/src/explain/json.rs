//! An explanation for tools: one JSON object.

use serde_json::{Value, json};
use usher_domain::explain::{ConditionRole, ConditionStanding, LookStanding, RuleStanding};
use usher_domain::journey::{Journey, LimitPer};
use usher_domain::rules::{ChoiceStanding, Refused};
use usher_domain::time::Timestamp;

use super::{Decision, Told};

/// Everything, on one line.
pub fn render(told: &Told<'_>) -> String {
    let Told {
        journey,
        found,
        timeline,
        explanation,
    } = told;
    let membership = explanation.membership.map(|(is_in, membership)| {
        json!({ "is_in": is_in, "entered_at": time(membership.entered_at), "left_at": time(membership.left_at) })
    });
    let caps = explanation.caps.iter().map(|cap| {
        json!({
            "offers": cap.offers, "within_ms": cap.within_ms, "slot": cap.slot, "used": cap.used,
            "free_at": time(cap.free_at),
        })
    });
    let arms = explanation
        .arms
        .iter()
        .map(|(experiment, arm)| (experiment.clone(), json!(arm)));
    let decision = |decision: &&Decision| json!({ "status": decision.status, "decision": decision.json });
    let whole = json!({
        "user_id": found.user,
        "led_over": found.led_over,
        "journey": { "name": journey.name, "version": journey.version },
        "as_of": explanation.now.to_string(),
        "applied_events": found.profile.applied_events,
        "latest_arrival": found.profile.now.to_string(),
        "parked_since": time(found.parked_since),
        "membership": membership,
        "arms": arms.collect::<serde_json::Map<_, _>>(),
        "held_out": explanation.is_held_out,
        "caps": caps.collect::<Vec<_>>(),
        "notes": found.notes,
        "decisions_in_all": timeline.of,
        "decisions": timeline.decisions.iter().map(decision).collect::<Vec<_>>(),
        "rules": explanation.rules.iter().map(|standing| rule(told, standing)).collect::<Vec<_>>(),
    });
    whole.to_string() + "\n"
}

fn rule(told: &Told<'_>, standing: &RuleStanding) -> Value {
    let journey = told.journey;
    let rule = journey.rules.get(standing.rule);
    let offers = rule.map(|rule| &rule.offers).into_iter().flatten();
    let offers = offers.filter_map(|offer| journey.contents.get(*offer));
    let timer = standing.timer.map(|timer| {
        json!({
            "since": timer.since.to_string(), "done": timer.done, "reminders": timer.reminders,
            "due_at": time(timer.due_at),
        })
    });
    let limit = standing.limit.map(|(used, limit)| {
        let per = match limit.per {
            LimitPer::User => "user",
            LimitPer::Session => "session",
            LimitPer::JourneyVersion => "version",
        };
        json!({ "used": used, "count": limit.count, "per": per })
    });
    let put_off = standing.put_off.as_ref();
    let group = standing.group.as_ref();
    json!({
        "id": rule.map(|rule| rule.id.as_str()),
        "slot": rule.map(|rule| rule.slot.as_str()),
        "offers": offers.map(|content| content.id.as_str()).collect::<Vec<_>>(),
        "looks": standing.looks.iter().map(look).collect::<Vec<_>>(),
        "conditions": standing.conditions.iter().map(condition).collect::<Vec<_>>(),
        "choice": standing.choice.as_ref().map(|chosen| choice(journey, chosen)),
        "timer": timer,
        "put_off": put_off.map(|(until, offer)| json!({ "until": until.to_string(), "offer": offer })),
        "fired": standing.fired,
        "last_fired_at": time(standing.last_fired_at),
        "limit": limit,
        "cooling_until": time(standing.cooling_until),
        "quiet_until": time(standing.quiet_until),
        "group": group.map(|(name, excluded_by)| json!({ "name": name, "excluded_by": excluded_by })),
        "held_out": standing.is_held_out,
    })
}

/// How its learner would choose now.
fn choice(journey: &Journey, choice: &ChoiceStanding) -> Value {
    let context = choice.context.iter().map(|seen| {
        let value = serde_json::from_str::<Value>(&seen.json).unwrap_or_default();
        (seen.name.clone(), value)
    });
    let candidates = choice.candidates.iter().map(|candidate| {
        let cooling_until = match candidate.refused {
            Some(Refused::CoolingUntil(until)) => Some(until),
            Some(Refused::Ineligible) | None => None,
        };
        json!({
            "content": journey.contents.get(candidate.content).map(|content| content.id.as_str()),
            "eligible": candidate.refused != Some(Refused::Ineligible),
            "cooling_until": time(cooling_until),
            "probability": candidate.score.map(|score| score.probability),
            "mean": candidate.score.map(|score| score.mean),
            "spread": candidate.score.map(|score| score.spread),
        })
    });
    json!({
        "learner": choice.learner,
        "model_version": choice.model_version.map(|version| format!("{version:016x}")),
        "fallback": choice.fallback.map(|fallback| fallback.name()),
        "context": context.collect::<serde_json::Map<_, _>>(),
        "candidates": candidates.collect::<Vec<_>>(),
    })
}

fn look(look: &LookStanding) -> Value {
    json!({
        "event_types": look.event_types,
        "outcome": look.outcome.map(|outcome| outcome.name()),
        "needs_event": look.needs_event,
        "detail": look.detail,
    })
}

fn condition(condition: &ConditionStanding) -> Value {
    let (role, content) = match &condition.role {
        ConditionRole::Enters => ("enters", None),
        ConditionRole::Leaves => ("leaves", None),
        ConditionRole::When => ("when", None),
        ConditionRole::Unless => ("unless", None),
        ConditionRole::Since => ("since", None),
        ConditionRole::ContentWhen(content) => ("when", Some(content)),
        ConditionRole::ContentUnless(content) => ("unless", Some(content)),
    };
    let values = condition.values.iter().map(|value| {
        let read = value
            .json
            .as_deref()
            .and_then(|json| serde_json::from_str::<Value>(json).ok());
        json!({ "name": value.name, "value": read, "needs_event": value.json.is_none() })
    });
    json!({
        "role": role,
        "content": content,
        "source": condition.source,
        "holds": condition.holds,
        "error": condition.error,
        "values": values.collect::<Vec<_>>(),
    })
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
