//! A profile as JSON for people and tools: what `usher replay --profiles` writes, one line a profile.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use usher_domain::journey::{Journey, Moment, Outcomes, Rule};
use usher_domain::offers::OpenOffer;
use usher_domain::profile::{OfferMade, Profile, RuleState};
use usher_domain::sessions::Session;
use usher_domain::time::Timestamp;
use usher_domain::value::Value;
use usher_domain::{policy, timers};

/// The profile as one line of JSON without its end, the features as of `now` (P12). Members are in the journey's order,
/// so the same profile is the same line, byte for byte.
pub fn to_json(user: &str, profile: &Profile, journey: &Journey, now: Timestamp) -> String {
    // Text, numbers and raw JSON that was checked: there is nothing in it that can't be written.
    serde_json::to_string(&ProfileLine::of(user, profile, journey, now)).unwrap_or_default()
}

/// A feature's value as JSON, as of `now`; points in time as RFC 3339.
pub fn feature_json(profile: &Profile, journey: &Journey, index: usize, now: Timestamp) -> String {
    match profile.feature(journey, index, now) {
        Value::Int(ms) if journey.features[index].computation.is_time() => {
            format!("\"{}\"", Timestamp::from_epoch_ms(ms))
        }
        value => value.to_string(),
    }
}

#[derive(Serialize)]
struct ProfileLine<'p> {
    user_id: &'p str,
    features: Members<'p, Box<RawValue>>,
    steps: Members<'p, StepLine>,
    sessions: SessionsLine,
    applied_events: u64,
    // What follows is there only where the journey asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    traits: Option<Members<'p, Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Members<'p, RuleLine<'p>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offers: Option<Vec<OfferLine<'p>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_offers: Option<Vec<OpenOfferLine<'p>>>,
}

#[derive(Serialize)]
struct MembershipLine {
    is_in: bool,
    entered_at: Option<String>,
    left_at: Option<String>,
}

#[derive(Serialize)]
struct RuleLine<'p> {
    fired: u64,
    last_fired_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<TimerLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    put_off: Option<PutOffLine<'p>>,
}

#[derive(Serialize)]
struct TimerLine {
    since: String,
    done: u32,
    due_at: Option<String>,
}

#[derive(Serialize)]
struct PutOffLine<'p> {
    until: String,
    /// Nothing where a learner chooses it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<&'p str>,
}

#[derive(Serialize)]
struct OfferLine<'p> {
    at: String,
    /// Nothing where the journey no longer has the rule, or the content.
    rule: Option<&'p str>,
    offer: Option<&'p str>,
}

#[derive(Serialize)]
struct OpenOfferLine<'p> {
    trigger_id: String,
    rule: Option<&'p str>,
    offer: Option<&'p str>,
    since: String,
    until: String,
    rewards: Vec<&'p str>,
    reward: f64,
}

#[derive(Serialize)]
struct StepLine {
    done: bool,
    at: Option<String>,
}

#[derive(Serialize)]
struct SessionsLine {
    count: u64,
    total_duration_ms: i64,
    latest: Option<SessionLine>,
}

#[derive(Serialize)]
struct SessionLine {
    start: String,
    end: String,
    events: u64,
}

/// An object whose members keep their order.
struct Members<'p, V>(Vec<(&'p str, V)>);

impl<V: Serialize> Serialize for Members<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'p> ProfileLine<'p> {
    fn of(user: &'p str, profile: &'p Profile, journey: &'p Journey, now: Timestamp) -> ProfileLine<'p> {
        let features = journey.features.iter().enumerate().map(|(index, feature)| {
            let json = RawValue::from_string(feature_json(profile, journey, index, now));
            (
                feature.name.as_str(),
                json.unwrap_or_else(|_| RawValue::NULL.to_owned()),
            )
        });
        let steps = journey.steps.iter().zip(&profile.steps).map(|(step, done_at)| {
            let line = StepLine {
                done: done_at.is_some(),
                at: done_at.map(|at| at.to_string()),
            };
            (step.id.as_str(), line)
        });
        let session = |session: &Session| SessionLine {
            start: session.start.to_string(),
            end: session.end.to_string(),
            events: session.events,
        };
        ProfileLine {
            user_id: user,
            features: Members(features.collect()),
            steps: Members(steps.collect()),
            sessions: SessionsLine {
                count: profile.sessions.count(),
                total_duration_ms: profile.sessions.total_duration_ms(),
                latest: profile.sessions.latest().map(session),
            },
            applied_events: profile.applied_events,
            traits: (!journey.traits.is_empty()).then(|| traits(profile, journey)),
            membership: policy::has_membership(journey).then(|| MembershipLine {
                is_in: policy::is_in(journey, profile),
                entered_at: profile.membership.entered_at.map(|at| at.to_string()),
                left_at: profile.membership.left_at.map(|at| at.to_string()),
            }),
            timezone: profile.timezone.as_ref().map(|known| raw(Value::from(&known.value))),
            rules: keeps_more_than_counts(journey).then(|| rules(profile, journey)),
            offers: policy::offers_kept_ms(journey).map(|_| offers(profile, journey)),
            open_offers: (journey.outcomes.as_ref()).map(|outcomes| open_offers(profile, journey, outcomes, now)),
        }
    }
}

fn raw(value: Value<'_>) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The traits that are known, of those that the journey reads.
fn traits<'p>(profile: &Profile, journey: &'p Journey) -> Members<'p, Box<RawValue>> {
    let traits = journey.traits.iter().zip(&profile.traits);
    let known = traits.filter_map(|(name, known)| Some((name.as_str(), raw(Value::from(&known.as_ref()?.value)))));
    Members(known.collect())
}

/// Whether rules keep more than how often they fired, which decisions tell.
fn keeps_more_than_counts(journey: &Journey) -> bool {
    timers::has_any(journey)
        || policy::has_membership(journey)
        || policy::offers_kept_ms(journey).is_some()
        || journey.rules.iter().any(|rule| !matches!(rule.moment, Moment::Event))
}

/// The rules of which anything is known.
fn rules<'p>(profile: &'p Profile, journey: &'p Journey) -> Members<'p, RuleLine<'p>> {
    let rules = journey.rules.iter().zip(&profile.rules).enumerate();
    let line = |(index, (rule, state)): (usize, (&'p Rule, &RuleState))| {
        if *state == RuleState::default() {
            return None;
        }
        let put_off = state.put_off.as_ref().map(|put_off| {
            // What a learner chooses is chosen when it is made.
            let content = match rule.learner {
                Some(_) => None,
                None => journey.contents.get(rule.offer(put_off.reminder as usize)),
            };
            PutOffLine {
                until: put_off.until.to_string(),
                offer: content.map(|content| content.id.as_str()),
            }
        });
        let line = RuleLine {
            fired: state.fired,
            last_fired_at: state.last_fired_at.map(|at| at.to_string()),
            holds: matches!(rule.moment, Moment::Enters(_) | Moment::Leaves(_)).then_some(state.holds),
            timer: state.timer.map(|timer| TimerLine {
                since: timer.since.to_string(),
                done: timer.done,
                due_at: timers::due_of(journey, profile, index).map(|at| at.to_string()),
            }),
            put_off,
        };
        Some((rule.id.as_str(), line))
    };
    Members(rules.filter_map(line).collect())
}

fn offers<'p>(profile: &Profile, journey: &'p Journey) -> Vec<OfferLine<'p>> {
    let line = |made: &OfferMade| OfferLine {
        at: made.at.to_string(),
        rule: rule_id(journey, made.rule),
        offer: content_id(journey, made.content),
    };
    profile.offers.iter().map(line).collect()
}

/// The offers whose windows are open as of `now`. Those that are kept for what comes late are left out: when they are
/// forgotten goes by the user's next event.
fn open_offers<'p>(
    profile: &Profile,
    journey: &'p Journey,
    outcomes: &'p Outcomes,
    now: Timestamp,
) -> Vec<OpenOfferLine<'p>> {
    let open = profile.open_offers.iter().filter(|offer| offer.until >= now);
    let line = |offer: &OpenOffer| OpenOfferLine {
        trigger_id: offer.trigger.to_string(),
        rule: rule_id(journey, offer.rule),
        offer: content_id(journey, offer.content),
        since: offer.since.to_string(),
        until: offer.until.to_string(),
        rewards: outcomes.rewards_of(offer).collect(),
        reward: offer.reward,
    };
    open.map(line).collect()
}

/// Nothing where the journey no longer has it.
fn rule_id(journey: &Journey, fingerprint: u32) -> Option<&str> {
    let rule = journey.rules.iter().find(|rule| rule.fingerprint == fingerprint)?;
    Some(&rule.id)
}

/// Nothing where the journey no longer has it.
fn content_id(journey: &Journey, fingerprint: u32) -> Option<&str> {
    let mut contents = journey.contents.iter();
    let content = contents.find(|content| content.fingerprint == fingerprint)?;
    Some(&content.id)
}

#[cfg(test)]
mod tests;
