//! What is odd about a journey that can be read: triggers that never fire, steps that nobody completes, conditions that
//! say nothing, parts that nobody uses.
//!
//! An error is certain, and never what somebody meant. What can't be proven is not told.

use hashbrown::HashMap;

use super::read::Places;
use super::{
    Content, Diagnostic, Diagnostics, Due, EventTypes, Journey, LimitPer, Moment, RewardOn, Rule, Since, did_you_mean,
    read,
};
use crate::condition::{Asked, Condition, Facts, Impossible, Slot, TrendOf, impossible};
use crate::feature::Computation;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the journey can't work.
    Error,
    /// It works, but hardly as it was meant.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

/// Something odd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is and what it is.
    pub diagnostic: Diagnostic,
}

/// A journey that can be read, with what was found about it.
#[derive(Debug)]
pub struct Checked {
    /// The journey.
    pub journey: Journey,
    /// In the order of the file.
    pub findings: Vec<Finding>,
    places: Places,
}

impl Checked {
    /// Reads a journey file and looks into it.
    ///
    /// # Errors
    /// As [`Journey::parse`].
    pub fn parse(text: &str) -> Result<Checked, Diagnostics> {
        let (journey, places) = read::read(text)?;
        let findings = findings(&journey, &places);
        Ok(Checked {
            journey,
            findings,
            places,
        })
    }

    /// A finding at a path of the file.
    pub fn finding(&self, severity: Severity, path: &str, message: String) -> Finding {
        finding(&self.places, severity, path, message, None)
    }

    /// What a sample of events says: types that the journey names and the sample lacks, and the other way round. `counts`
    /// is how many events the sample has of each type.
    pub fn compare_with_sample(&self, counts: &HashMap<String, u64>) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut told: Vec<&str> = Vec::new();
        let named = named_types(&self.journey);
        // `ignore` names types too.
        let is_named = |name: &str| {
            self.journey.by_type.contains_key(name) || named.iter().any(|(_, event_type)| *event_type == name)
        };
        for (path, event_type) in &named {
            let event_type = *event_type;
            if counts.contains_key(event_type) || told.contains(&event_type) {
                continue;
            }
            told.push(event_type);
            let unnamed = counts.keys().filter(|name| !is_named(name));
            let suggestion = did_you_mean(event_type, &mut unnamed.map(String::as_str));
            let message = format!("the sample has no event of the type `{event_type}`");
            found.push(finding(&self.places, Severity::Warning, path, message, suggestion));
        }
        let mut others: Vec<(&String, &u64)> = counts.iter().filter(|(name, _)| !is_named(name)).collect();
        others.sort_unstable_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
        for (name, count) in others {
            let message = format!("the journey never names `{name}`, of which the sample has {count}");
            found.push(finding(&self.places, Severity::Info, "journey", message, None));
        }
        in_order(found)
    }
}

fn finding(places: &Places, severity: Severity, path: &str, message: String, suggestion: Option<String>) -> Finding {
    let (line, column) = places.find(path);
    Finding {
        severity,
        diagnostic: Diagnostic {
            line,
            column,
            path: path.to_owned(),
            message: super::diagnostic::shortened(message),
            suggestion,
        },
    }
}

fn in_order(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.diagnostic.line, finding.diagnostic.column, finding.severity));
    findings
}

/// The event types that a journey names, each with where, in the order of the file's parts.
fn named_types(journey: &Journey) -> Vec<(String, &str)> {
    let steps = journey
        .steps
        .iter()
        .map(|step| (format!("steps.{}.on", step.id), &step.on));
    let features = journey.features.iter();
    let features = features.map(|feature| (format!("features.{}", feature.name), &feature.on));
    let rules = journey.rules.iter().map(|rule| {
        let key = match rule.moment {
            Moment::Timer(_) => "since",
            _ => "on",
        };
        (format!("triggers.{}.{key}", rule.id), &rule.on)
    });
    let rewards = journey.outcomes.iter().flat_map(|outcomes| &outcomes.rewards);
    let rewards = rewards.filter_map(|reward| match &reward.on {
        RewardOn::Event { on, .. } => Some((format!("outcomes.reward.{}", reward.name), on)),
        RewardOn::Step(_) => None,
    });
    let all = steps.chain(features).chain(rules).chain(rewards);
    let all = all.map(|(path, on)| (path, types_of(on).unwrap_or_default()));
    let trends = journey.trends.iter();
    let trends = trends.map(|trend| (format!("trends.{}", trend.name), trend.event_types.as_slice()));
    all.chain(trends)
        .flat_map(|(path, types)| types.iter().map(move |name| (path.clone(), name.as_str())))
        .collect()
}

/// The front of the types that Usher keeps for events of its own.
const OWN_TYPES: &str = "usher.";

fn findings(journey: &Journey, places: &Places) -> Vec<Finding> {
    let mut analysis = Analysis {
        journey,
        places,
        never_done: vec![false; journey.steps.len()],
        found: Vec::new(),
    };
    analysis.steps();
    analysis.single_conditions();
    for rule in &journey.rules {
        analysis.rule(rule);
    }
    analysis.shadowed_rules();
    analysis.policy();
    analysis.learning();
    analysis.own_types();
    analysis.unused();
    for (path, source) in journey.interpreted_conditions() {
        let message =
            format!("`{source}` runs in the interpreter, which takes microseconds instead of a fraction of one");
        analysis.tell(Severity::Info, &path, message);
    }
    in_order(analysis.found)
}

pub(super) struct Analysis<'j> {
    pub(super) journey: &'j Journey,
    places: &'j Places,
    /// The steps that nobody can complete.
    pub(super) never_done: Vec<bool>,
    found: Vec<Finding>,
}

/// Conditions with what is asked of each, and where each is.
type Claims<'j> = Vec<(&'j Condition, Asked, String)>;

impl<'j> Analysis<'j> {
    pub(super) fn tell(&mut self, severity: Severity, path: &str, message: String) {
        self.found.push(finding(self.places, severity, path, message, None));
    }

    // ---- steps

    /// Finds the steps that nobody can complete, and then those that need one of them.
    fn steps(&mut self) {
        let mut told: Vec<(usize, String)> = Vec::new();
        loop {
            let before = told.len();
            for (index, step) in self.journey.steps.iter().enumerate() {
                if self.never_done[index] {
                    continue;
                }
                let why = if self.are_ignored(&step.on) {
                    Some("`ignore` drops the events that would".to_owned())
                } else {
                    let facts = self.facts(types_of(&step.on));
                    let when = step.when.as_ref();
                    let reason = when.and_then(|when| impossible(&[(when, Asked::True)], &facts));
                    reason.map(|reason| because(&reason))
                };
                if let Some(why) = why {
                    self.never_done[index] = true;
                    told.push((index, why));
                }
            }
            if told.len() == before {
                break;
            }
        }
        for (index, why) in told {
            let id = &self.journey.steps[index].id;
            let message = format!("nobody can complete the step `{id}`: {why}");
            let key = if self.journey.steps[index].when.is_some() {
                "when"
            } else {
                "on"
            };
            self.tell(Severity::Error, &format!("steps.{id}.{key}"), message);
        }
    }

    /// Whether all events of these types are dropped.
    pub(super) fn are_ignored(&self, on: &EventTypes) -> bool {
        match on {
            EventTypes::Any => false,
            EventTypes::These(types) => {
                !types.is_empty() && types.iter().all(|name| self.journey.dispatch(name).ignored)
            }
        }
    }

    /// What is known when an event of these types is looked at.
    pub(super) fn facts(&self, event_types: Option<&'j [String]>) -> Facts<'j> {
        let mut facts = Facts::none(self.journey);
        facts.event_types = event_types;
        for (known, never_done) in facts.steps.iter_mut().zip(&self.never_done) {
            *known = never_done.then_some(false);
        }
        facts
    }

    // ---- conditions by themselves

    fn single_conditions(&mut self) {
        for feature in &self.journey.features {
            let path = format!("features.{}", feature.name);
            if self.are_ignored(&feature.on) {
                let message = "it never changes: `ignore` drops the events that it looks at".to_owned();
                self.tell(Severity::Error, &path, message);
            }
            if let Some(when) = &feature.when {
                let facts = self.facts(types_of(&feature.on));
                self.never(
                    &[(when, Asked::True, format!("{path}.when"))],
                    &facts,
                    "it never changes",
                );
                self.always(when, &format!("{path}.when"));
            }
        }
        for content in &self.journey.contents {
            let path = format!("contents.{}", content.id);
            let claims = claims_of_content(content);
            let facts = self.facts(None);
            if !self.never(&claims, &facts, "it is never eligible") {
                if let Some(when) = &content.when {
                    self.always(when, &format!("{path}.when"));
                }
                if let Some(unless) = &content.unless {
                    self.never_excludes(unless, &format!("{path}.unless"), &facts);
                }
            }
        }
        let policy = &self.journey.policy;
        if let Some(entry) = &policy.entry {
            let facts = self.facts(None);
            let mut claims = vec![(entry, Asked::True, "entry".to_owned())];
            claims.extend(
                policy
                    .exit
                    .as_ref()
                    .map(|exit| (exit, Asked::NotTrue, "exit".to_owned())),
            );
            if !self.never(&claims, &facts, "nobody ever enters the journey") {
                self.always(entry, "entry");
            }
        }
        if let Some(exit) = &policy.exit {
            let facts = self.facts(None);
            if policy.entry.is_none() && impossible(&[(exit, Asked::NotTrue)], &facts).is_some() {
                let message = "it always holds, so everyone leaves the journey at once".to_owned();
                self.tell(Severity::Error, "exit", message);
            }
            self.never_excludes(exit, "exit", &facts);
        }
    }

    /// Tells where conditions can't be as they are asked to be, and whether that is so.
    pub(super) fn never(&mut self, claims: &[(&Condition, Asked, String)], facts: &Facts<'_>, what: &str) -> bool {
        // The fewest from the front that exclude each other: the last of them is where it goes wrong.
        for count in 1..=claims.len() {
            let asked: Vec<(&Condition, Asked)> = claims[..count]
                .iter()
                .map(|(condition, asked, _)| (*condition, *asked))
                .collect();
            let Some(reason) = impossible(&asked, facts) else {
                continue;
            };
            let (condition, _, path) = &claims[count - 1];
            if count == 1 && is_switch(condition) {
                self.tell(Severity::Info, path, format!("{what}: it is switched off"));
            } else {
                let hint = self.hint(&asked, facts);
                self.tell(Severity::Error, path, format!("{what}: {}{hint}", because(&reason)));
            }
            return true;
        }
        false
    }

    /// Which of the facts it is that make conditions impossible, for people.
    fn hint(&self, asked: &[(&Condition, Asked)], facts: &Facts<'_>) -> String {
        let is_possible = |facts: &Facts<'_>| impossible(asked, facts).is_none();
        let mut fewer = facts.clone();
        fewer.event_types = None;
        if let (true, Some(types)) = (is_possible(&fewer), facts.event_types) {
            return format!(" (it looks at events of the type {} only)", quoted(types));
        }
        let mut fewer = facts.clone();
        for (known, never_done) in fewer.steps.iter_mut().zip(&self.never_done) {
            *known = never_done.then_some(false);
        }
        fewer.counted.clear();
        if is_possible(&fewer) {
            return " (what makes it look has completed the step, or was counted, before)".to_owned();
        }
        let mut fewer = facts.clone();
        fewer.steps.fill(None);
        fewer.counted.clear();
        if is_possible(&fewer) {
            return " (nobody can complete that step)".to_owned();
        }
        String::new()
    }

    /// Tells of a condition that asks for nothing.
    pub(super) fn always(&mut self, condition: &Condition, path: &str) {
        let mut facts = self.facts(None);
        facts.in_session = true;
        if !is_switch(condition) && impossible(&[(condition, Asked::NotTrue)], &facts).is_some() {
            let message = "it always holds: leave it out".to_owned();
            self.tell(Severity::Warning, path, message);
        }
    }

    /// Tells of an `unless` or `exit` that excludes nobody.
    fn never_excludes(&mut self, condition: &Condition, path: &str, facts: &Facts<'_>) {
        if !is_switch(condition)
            && let Some(reason) = impossible(&[(condition, Asked::True)], facts)
        {
            let message = format!("it never holds, so it excludes nobody: {}", because(&reason));
            self.tell(Severity::Warning, path, message);
        }
    }

    // ---- rules

    fn rule(&mut self, rule: &'j Rule) {
        const NEVER: &str = "this trigger never fires";
        let path = format!("triggers.{}", rule.id);
        if self.are_ignored(&rule.on) {
            let key = match &rule.moment {
                Moment::Timer(_) => "since",
                _ => "on",
            };
            let message = format!("{NEVER}: `ignore` drops its events");
            self.tell(Severity::Error, &format!("{path}.{key}"), message);
            return;
        }
        if let Moment::Timer(timer) = &rule.moment {
            match &timer.since {
                Since::Step(step) if self.never_done[*step] => {
                    let message = format!(
                        "{NEVER}: nobody can complete the step `{}`",
                        self.journey.steps[*step].id
                    );
                    self.tell(Severity::Error, &format!("{path}.since"), message);
                    return;
                }
                Since::Event(Some(when)) => {
                    let facts = self.facts(types_of(&rule.on));
                    if self.never(&[(when, Asked::True, format!("{path}.since.when"))], &facts, NEVER) {
                        return;
                    }
                }
                Since::Step(_) | Since::Event(None) | Since::SessionEnd => {}
            }
        }
        let facts = self.facts_of_rule(rule);
        let mut claims: Claims<'j> = Vec::new();
        match &rule.moment {
            Moment::Enters(condition) => claims.push((condition, Asked::True, format!("{path}.enters"))),
            Moment::Leaves(condition) => {
                let place = format!("{path}.leaves");
                if self.never(&[(condition, Asked::True, place.clone())], &facts, NEVER) {
                    return;
                }
                claims.push((condition, Asked::NotTrue, place));
            }
            Moment::Event | Moment::Timer(_) => {}
        }
        claims.extend(
            rule.when
                .as_ref()
                .map(|when| (when, Asked::True, format!("{path}.when"))),
        );
        claims.extend(
            rule.unless
                .as_ref()
                .map(|unless| (unless, Asked::NotTrue, format!("{path}.unless"))),
        );
        // Who is out at the moment that it looks has left just before. An exit that always holds is told there.
        let exit = self.journey.policy.exit.as_ref();
        let exit = exit.filter(|exit| impossible(&[(exit, Asked::NotTrue)], &self.facts(None)).is_none());
        claims.extend(exit.map(|exit| (exit, Asked::NotTrue, path.clone())));
        if self.never(&claims, &facts, NEVER) {
            return;
        }
        if let Some(when) = &rule.when {
            self.always(when, &format!("{path}.when"));
        }
        if let Some(unless) = &rule.unless {
            self.never_excludes(unless, &format!("{path}.unless"), &facts);
        }
        let mut offered: Vec<usize> = Vec::new();
        let mut never_offered = Vec::new();
        for offer in &rule.offers {
            let content = &self.journey.contents[*offer];
            let of_content = claims_of_content(content);
            // What is never eligible at all is told there.
            let by_itself: Vec<_> = of_content
                .iter()
                .map(|(condition, asked, _)| (*condition, *asked))
                .collect();
            let alone = impossible(&by_itself, &self.facts(None)).is_some();
            let all = claims.iter().chain(&of_content);
            let all: Vec<_> = all.map(|(condition, asked, _)| (*condition, *asked)).collect();
            if let (false, false, Some(reason)) = (alone, offered.contains(offer), impossible(&all, &facts)) {
                let hint = self.hint(&all, &facts);
                let message = format!(
                    "`{}` is never eligible when this trigger would offer it: {}{hint}",
                    content.id,
                    because(&reason)
                );
                never_offered.push(message);
            }
            offered.push(*offer);
        }
        // Where others can be chosen it is a candidate too many, or one of all.
        let (key, severity) = match rule.learner {
            None => ("offer", Severity::Error),
            Some(_) if never_offered.len() == rule.offers.len() => ("choose", Severity::Error),
            Some(_) if rule.offers.len() == self.journey.contents.len() => ("choose", Severity::Info),
            Some(_) => ("choose", Severity::Warning),
        };
        for message in never_offered {
            self.tell(severity, &format!("{path}.{key}"), message);
        }
        self.chain(rule, &path);
    }

    /// What is known when a rule looks.
    fn facts_of_rule(&self, rule: &'j Rule) -> Facts<'j> {
        let journey = self.journey;
        let mut facts = self.facts(None);
        facts.in_session = true;
        match &rule.moment {
            Moment::Event => facts.event_types = types_of(&rule.on),
            // They look at timer moments too.
            Moment::Enters(_) | Moment::Leaves(_) => return facts,
            Moment::Timer(timer) => {
                if let Since::Step(step) = timer.since {
                    facts.steps[step] = Some(true);
                }
                if !matches!(timer.since, Since::Event(_)) {
                    return facts;
                }
            }
        }
        // Events are folded before rules look: what takes each of them has taken this one.
        for (known, step) in facts.steps.iter_mut().zip(&journey.steps) {
            if step.when.is_none() && covers(&step.on, &rule.on) {
                *known = Some(true);
            }
        }
        for (index, feature) in journey.features.iter().enumerate() {
            if feature.computation == Computation::Count && feature.when.is_none() && covers(&feature.on, &rule.on) {
                facts.counted.push(index);
            }
        }
        facts
    }

    /// What stops the reminders of a chain.
    fn chain(&mut self, rule: &Rule, path: &str) {
        let Moment::Timer(timer) = &rule.moment else { return };
        let reminders = timer.reminders.len();
        if let Some(limit) = rule.limit
            && limit.per != LimitPer::Session
            && (limit.count as usize) < reminders
        {
            let message = format!(
                "it lets {} of the {reminders} reminders through, for each user",
                limit.count
            );
            self.tell(Severity::Warning, &format!("{path}.limit"), message);
        }
        let gaps = timer.reminders.windows(2).map(|pair| match pair {
            [Due::After(one), Due::After(other)] => other - one,
            [Due::LocalTime { days: one, .. }, Due::LocalTime { days: other, .. }] => {
                i64::from(other - one) * MS_PER_DAY
            }
            _ => i64::MAX,
        });
        let gaps: Vec<i64> = gaps.collect();
        if let (Some(cooldown_ms), Some(least)) = (rule.cooldown_ms, gaps.iter().min())
            && cooldown_ms > *least
        {
            let message = "it is longer than the time from one reminder to the next, and silences that".to_owned();
            self.tell(Severity::Warning, &format!("{path}.cooldown"), message);
        }
        // A learner chooses another one while one is cooling down.
        let gaps = gaps.iter().filter(|_| rule.learner.is_none());
        for (index, gap) in gaps.enumerate() {
            let content_index = rule.offer(index);
            let content = &self.journey.contents[content_index];
            let cooldown_ms = content.cooldown_ms.or(self.journey.policy.content_cooldown_ms);
            if rule.offer(index + 1) == content_index && cooldown_ms.is_some_and(|cooldown_ms| cooldown_ms > *gap) {
                let message = format!(
                    "two reminders in a row offer `{}`, which is not offered again for longer than the time between them",
                    content.id
                );
                self.tell(Severity::Warning, &format!("{path}.offer"), message);
                break;
            }
        }
    }

    /// Tells of rules that lose to another one whenever they could fire.
    fn shadowed_rules(&mut self) {
        let journey = self.journey;
        let rules = journey.rules.iter().enumerate();
        for (index, rule) in rules.filter(|(_, rule)| matches!(rule.moment, Moment::Event)) {
            let winner = journey.rules.iter().enumerate().find(|(other_index, other)| {
                let comes_first =
                    other.priority > rule.priority || (other.priority == rule.priority && *other_index < index);
                comes_first
                    && !self.are_ignored(&rule.on)
                    && other.slot == rule.slot
                    && covers(&other.on, &rule.on)
                    && self.always_fires(other)
            });
            if let Some((_, winner)) = winner {
                let message = format!(
                    "this trigger never fires: `{}` always fires for the same slot at the same events, and wins",
                    winner.id
                );
                self.tell(Severity::Error, &format!("triggers.{}", rule.id), message);
            }
        }
    }

    /// Whether nothing stops a rule that would not stop every other one for its slot as well.
    fn always_fires(&self, rule: &Rule) -> bool {
        let is_always_eligible = |index: usize| {
            let content = &self.journey.contents[index];
            let cooldown_ms = content.cooldown_ms.or(self.journey.policy.content_cooldown_ms);
            content.when.is_none() && content.unless.is_none() && cooldown_ms.is_none()
        };
        let always_has_an_offer = match rule.learner {
            Some(_) => rule.offers.iter().any(|index| is_always_eligible(*index)),
            None => is_always_eligible(rule.offer(0)),
        };
        matches!(rule.moment, Moment::Event)
            && rule.when.is_none()
            && rule.unless.is_none()
            && rule.cooldown_ms.is_none()
            && rule.limit.is_none()
            && rule.group.is_none()
            && always_has_an_offer
    }

    // ---- the rest

    fn policy(&mut self) {
        let policy = &self.journey.policy;
        for cap in policy.caps.iter().filter(|cap| cap.offers == 0) {
            let message = match &cap.slot {
                Some((_, slot)) => format!("nothing is ever offered in the slot `{slot}`: a cap allows 0 offers"),
                None => "nothing is ever offered: a cap allows 0 offers".to_owned(),
            };
            self.tell(Severity::Warning, "policy.cap", message);
        }
        let of_policy = policy
            .holdout
            .iter()
            .map(|holdout| ("policy.holdout".to_owned(), holdout));
        let of_rules = self.journey.rules.iter();
        let of_rules =
            of_rules.filter_map(|rule| Some((format!("triggers.{}.holdout", rule.id), rule.holdout.as_ref()?)));
        for (path, holdout) in of_policy.chain(of_rules) {
            if holdout.share >= 1.0 {
                self.tell(Severity::Warning, &path, "everybody is held out".to_owned());
            }
        }
        for (index, group) in policy.groups.iter().enumerate() {
            let members = self
                .journey
                .rules
                .iter()
                .filter(|rule| rule.group == Some(index))
                .count();
            if members == 1 {
                let message = "only one trigger is of this group, so it excludes none".to_owned();
                self.tell(Severity::Warning, &format!("policy.groups.{}", group.name), message);
            }
        }
    }

    fn own_types(&mut self) {
        let own = named_types(self.journey);
        for (path, event_type) in own.into_iter().filter(|(_, name)| name.starts_with(OWN_TYPES)) {
            let message = format!("`{event_type}` is an event of Usher's own, which nothing looks at");
            self.tell(Severity::Error, &path, message);
        }
    }

    fn unused(&mut self) {
        let journey = self.journey;
        let conditions = journey.conditions();
        let of_conditions = conditions
            .iter()
            .flat_map(|(_, condition)| condition.reads().iter().map(|(_, slot)| slot));
        let of_contexts = journey
            .learners
            .iter()
            .flat_map(|learner| learner.context.iter().map(|value| &value.slot));
        let keys = of_contexts.clone().filter_map(|slot| match slot {
            Slot::Trend(_, TrendOf::Read(key)) => Some(&**key),
            _ => None,
        });
        let read: Vec<&Slot> = of_conditions.chain(of_contexts).chain(keys).collect();
        let of_expressions: Vec<usize> = journey
            .features
            .iter()
            .filter_map(|feature| feature.expression.as_ref())
            .flat_map(|expression| expression.features().iter().copied())
            .collect();
        let reads_all = read.contains(&&Slot::AllFeatures);
        let unread = journey.features.iter().enumerate().filter(|(index, _)| {
            !reads_all && !read.contains(&&Slot::Feature(*index)) && !of_expressions.contains(index)
        });
        let unread: Vec<String> = unread.map(|(_, feature)| feature.name.clone()).collect();
        if !unread.is_empty() {
            let message = format!(
                "no condition and no learner reads {}: kept for those who read profiles",
                quoted(&unread)
            );
            self.tell(Severity::Info, "features", message);
        }
        for (index, content) in journey.contents.iter().enumerate() {
            if !journey.rules.iter().any(|rule| rule.offers.contains(&index)) {
                let message = "no trigger offers it".to_owned();
                self.tell(Severity::Info, &format!("contents.{}", content.id), message);
            }
        }
        for (index, experiment) in journey.experiments.iter().enumerate() {
            if !read.contains(&&Slot::Arm(index)) {
                let message =
                    "no condition and no learner reads it: its arms differ in nothing but what decisions record"
                        .to_owned();
                self.tell(Severity::Info, &format!("experiments.{}", experiment.id), message);
            }
        }
    }
}

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

fn claims_of_content(content: &Content) -> Claims<'_> {
    let path = format!("contents.{}", content.id);
    let when = content.when.as_ref();
    let unless = content.unless.as_ref();
    let when = when.map(|when| (when, Asked::True, format!("{path}.when")));
    let unless = unless.map(|unless| (unless, Asked::NotTrue, format!("{path}.unless")));
    when.into_iter().chain(unless).collect()
}

pub(super) fn types_of(on: &EventTypes) -> Option<&[String]> {
    match on {
        EventTypes::Any => None,
        EventTypes::These(types) => Some(types),
    }
}

/// Whether the one looks at everything that the other looks at.
fn covers(one: &EventTypes, other: &EventTypes) -> bool {
    match (one, other) {
        (EventTypes::Any, _) => true,
        (_, EventTypes::Any) => false,
        (_, EventTypes::These(types)) => types.iter().all(|name| one.includes(name)),
    }
}

/// `true` or `false` by itself: somebody switched something on or off.
fn is_switch(condition: &Condition) -> bool {
    matches!(condition.source().trim(), "true" | "false")
}

fn because(reason: &Impossible) -> String {
    match reason.because.as_slice() {
        [] => "its condition can't hold".to_owned(),
        [one] => format!("`{one}` never holds"),
        parts => format!("{} exclude each other", quoted(parts)),
    }
}

pub(super) fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("`{text}`")).collect();
    match quoted.split_last() {
        Some((last, front)) if !front.is_empty() => format!("{} and {last}", front.join(", ")),
        _ => quoted.concat(),
    }
}
