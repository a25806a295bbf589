//! What is odd about what a journey has learned: learners that have nothing to choose or learn from, settings that say
//! nothing, rewards that never come, trends that nobody reads.

use std::collections::BTreeSet;

use super::analysis::{Analysis, quoted, types_of};
use super::{ContentSource, ContentValue, Outcomes, Reward, RewardOn, Rule, Severity, SlotLearner};
use crate::bandit::context::FeatureKind;
use crate::bandit::learner::{Algorithm, Scope};
use crate::condition::{Asked, Slot};
use crate::value::{Scalar, Value};

impl<'j> Analysis<'j> {
    pub(super) fn learning(&mut self) {
        let journey = self.journey;
        for (index, learner) in journey.learners.iter().enumerate() {
            let choosing: Vec<&Rule> = journey
                .rules
                .iter()
                .filter(|rule| rule.learner == Some(index))
                .collect();
            if choosing.is_empty() {
                let message = "no trigger chooses for this slot, so nothing of this is used: write `choose` into one, in place of `offer`";
                self.tell(
                    Severity::Warning,
                    &format!("slots.{}", learner.slot),
                    message.to_owned(),
                );
                continue;
            }
            for rule in &choosing {
                self.candidates(rule);
            }
            let candidates: BTreeSet<usize> = choosing.iter().flat_map(|rule| rule.offers.iter().copied()).collect();
            self.settings(learner, &candidates);
            for value in &learner.contents {
                self.content_value(learner, value, &candidates);
            }
        }
        match &journey.outcomes {
            Some(outcomes) => self.outcomes(outcomes),
            None => self.nothing_to_learn_from(),
        }
        self.unread_trends();
    }

    fn candidates(&mut self, rule: &Rule) {
        if let [only] = rule.offers.as_slice() {
            let message = format!(
                "there is nothing to choose: `{}` is the only candidate",
                self.journey.contents[*only].id
            );
            self.tell(Severity::Warning, &format!("triggers.{}.choose", rule.id), message);
        }
    }

    /// Settings that make no difference.
    fn settings(&mut self, learner: &SlotLearner, candidates: &BTreeSet<usize>) {
        let path = format!("slots.{}", learner.slot);
        let contents = &self.journey.contents;
        let algorithm = &learner.learner.algorithm;
        if let Algorithm::FixedSplit(weights) = algorithm {
            let is_candidate = |id: &String| candidates.iter().any(|index| contents[*index].id == *id);
            let others: Vec<String> = weights.keys().filter(|id| !is_candidate(id)).cloned().collect();
            if !others.is_empty() {
                let message = format!("no trigger chooses {} for this slot", quoted(&others));
                self.tell(Severity::Warning, &format!("{path}.weights"), message);
            }
            let weight = |index: &usize| weights.get(&contents[*index].id).copied().unwrap_or(1.0);
            if candidates.iter().all(|index| weight(index) == 0.0) {
                let message = "every candidate has the weight 0, so all are chosen alike".to_owned();
                self.tell(Severity::Warning, &format!("{path}.weights"), message);
            }
        }
        let looks_at_context = !matches!(
            algorithm,
            Algorithm::Thompson | Algorithm::FixedSplit(_) | Algorithm::Scores
        );
        if !looks_at_context && !learner.context.is_empty() {
            let message = format!(
                "`{}` doesn't look at it: it is only written into decisions, for those who judge or train others",
                algorithm.name()
            );
            self.tell(Severity::Info, &format!("{path}.context"), message);
        }
        let is_shared = matches!(
            algorithm,
            Algorithm::LinUcb(Scope::Shared)
                | Algorithm::LinearThompson(Scope::Shared)
                | Algorithm::EpsilonGreedy {
                    scope: Scope::Shared,
                    ..
                }
        );
        if !is_shared && !learner.contents.is_empty() {
            let message = "only a shared model looks at them: they are only written into decisions, for those who judge or train others";
            self.tell(Severity::Info, &format!("{path}.contents"), message.to_owned());
        }
    }

    /// What candidates lack.
    fn content_value(&mut self, learner: &SlotLearner, value: &ContentValue, candidates: &BTreeSet<usize>) {
        let ContentSource::Attribute(attribute) = &value.of else {
            return;
        };
        let path = format!("slots.{}.contents.{}", learner.slot, value.name);
        let (mut without, mut others) = (Vec::new(), Vec::new());
        let mut seen: Vec<String> = Vec::new();
        for index in candidates {
            let content = &self.journey.contents[*index];
            let found = content.attributes.iter().find(|(name, _)| name == attribute);
            match found.map(|(_, value)| value) {
                None => without.push(content.id.clone()),
                Some(found) => {
                    let text = match found {
                        Scalar::Text(text) => text.clone(),
                        other => Value::from(other).to_string(),
                    };
                    if let FeatureKind::OneOf(values) = &value.kind
                        && !values.contains(&text)
                        && !others.contains(&text)
                    {
                        others.push(text.clone());
                    }
                    seen.push(text);
                }
            }
        }
        if !without.is_empty() {
            let message = format!("{} have no attribute `{attribute}`", quoted(&without));
            let message = if without.len() == 1 {
                message.replace(" have ", " has ")
            } else {
                message
            };
            self.tell(Severity::Info, &path, message);
        }
        if !others.is_empty() {
            let message = format!("{} is none of `one_of`, so it looks like any other", quoted(&others));
            self.tell(Severity::Warning, &path, message);
        }
        if let FeatureKind::OneOf(values) = &value.kind {
            let unseen: Vec<String> = values.iter().filter(|value| !seen.contains(value)).cloned().collect();
            if !unseen.is_empty() {
                let message = format!("no candidate has {}", quoted(&unseen));
                self.tell(Severity::Info, &path, message);
            }
        }
    }

    fn nothing_to_learn_from(&mut self) {
        let learns =
            |learner: &SlotLearner| !matches!(learner.learner.algorithm, Algorithm::FixedSplit(_) | Algorithm::Scores);
        let mut rules = self.journey.rules.iter();
        let first = rules.find(|rule| rule.learner.is_some_and(|index| learns(&self.journey.learners[index])));
        if let Some(rule) = first {
            let message = "nothing is learned, so all candidates stay alike: there are no `outcomes`";
            self.tell(
                Severity::Warning,
                &format!("triggers.{}.choose", rule.id),
                message.to_owned(),
            );
        }
    }

    fn outcomes(&mut self, outcomes: &'j Outcomes) {
        for reward in &outcomes.rewards {
            self.reward(reward);
        }
        if outcomes.rewards.iter().all(|reward| reward.reward == 0.0) {
            let message = "every reward is 0, so nothing is ever better than another".to_owned();
            self.tell(Severity::Warning, "outcomes.reward", message);
        }
        if self.journey.rules.is_empty() {
            let message = "no trigger offers anything".to_owned();
            self.tell(Severity::Info, "outcomes", message);
        }
    }

    /// Rewards that never come.
    fn reward(&mut self, reward: &'j Reward) {
        const NEVER: &str = "this reward never comes";
        let path = format!("outcomes.reward.{}", reward.name);
        let mut event_types = None;
        match &reward.on {
            RewardOn::Event { on, .. } => {
                if self.are_ignored(on) {
                    self.tell(Severity::Error, &path, format!("{NEVER}: `ignore` drops its events"));
                    return;
                }
                event_types = types_of(on);
            }
            RewardOn::Step(Some(step)) if self.never_done[*step] => {
                let id = &self.journey.steps[*step].id;
                let message = format!("{NEVER}: nobody can complete the step `{id}`");
                self.tell(Severity::Error, &path, message);
                return;
            }
            RewardOn::Step(None) if self.journey.steps.is_empty() => {
                self.tell(Severity::Error, &path, format!("{NEVER}: there are no `steps`"));
                return;
            }
            RewardOn::Step(_) => {}
        }
        if let Some(when) = &reward.when {
            let facts = self.facts(event_types);
            let place = format!("{path}.when");
            if !self.never(&[(when, Asked::True, place.clone())], &facts, NEVER) {
                self.always(when, &place);
            }
        }
    }

    fn unread_trends(&mut self) {
        let journey = self.journey;
        let of_slot = |slot: &Slot| match slot {
            Slot::Trend(index, _) => Some(*index),
            _ => None,
        };
        let conditions = journey.conditions();
        let of_conditions = conditions
            .iter()
            .flat_map(|(_, condition)| condition.reads().iter().filter_map(|(_, slot)| of_slot(slot)));
        let of_contexts = journey
            .learners
            .iter()
            .flat_map(|learner| learner.context.iter().filter_map(|value| of_slot(&value.slot)));
        let of_contents = journey.learners.iter().flat_map(|learner| &learner.contents);
        let of_contents = of_contents.filter_map(|value| match value.of {
            ContentSource::Trend(index) => Some(index),
            _ => None,
        });
        let read: BTreeSet<usize> = of_conditions.chain(of_contexts).chain(of_contents).collect();
        for (index, trend) in journey.trends.iter().enumerate() {
            let path = format!("trends.{}", trend.name);
            if trend.event_types.iter().all(|name| journey.dispatch(name).ignored) {
                let message = "it stays 0: `ignore` drops its events".to_owned();
                self.tell(Severity::Error, &path, message);
            } else if !read.contains(&index) {
                let message = "no condition and no learner reads it: kept for those who look at trends".to_owned();
                self.tell(Severity::Info, &path, message);
            }
        }
    }
}
