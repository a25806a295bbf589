//! Schedules: the `Schedule` events of functions, which SAM makes EventBridge rules of.
//!
//! <https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-property-function-schedule.html>

use std::time::Duration;

use super::resources::{Reader, Resource};
use super::yaml::Node;
use super::{LOCAL_ACCOUNT_ID, Schedule};

/// The event type that this is about.
pub(super) const SCHEDULE: &str = "Schedule";
/// The one of EventBridge Scheduler.
pub(super) const SCHEDULE_V2: &str = "ScheduleV2";

/// How often Lambda runs an asynchronous invocation again that failed, and the most that may be asked for.
/// <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>
const RETRY_ATTEMPTS_DEFAULT: u32 = 2;
const SECONDS_PER_MINUTE: u64 = 60;
const SECONDS_PER_HOUR: u64 = 60 * SECONDS_PER_MINUTE;
const SECONDS_PER_DAY: u64 = 24 * SECONDS_PER_HOUR;

impl<'template> Reader<'_, 'template> {
    /// The schedules of a function. What can't be run locally becomes a notice.
    pub(super) fn function_schedules(&mut self, resource: &Resource<'template>) -> Vec<Schedule> {
        let mut schedules = Vec::new();
        for (key, event) in resource.property("Events").map(Node::entries).unwrap_or_default() {
            match event.get("Type").and_then(Node::as_text) {
                Some(SCHEDULE) => schedules.extend(self.schedule(resource, key.line, &key.text, event)),
                Some(SCHEDULE_V2) => self.notice(
                    key.line,
                    format!(
                        "the {SCHEDULE_V2} event {} is not run locally; {SCHEDULE} events with a rate are",
                        key.text
                    ),
                ),
                _ => {}
            }
        }
        schedules
    }

    fn schedule(
        &mut self,
        resource: &Resource<'template>,
        line: usize,
        name: &str,
        event: &'template Node,
    ) -> Option<Schedule> {
        let properties = event.get("Properties");
        let property = |name: &str| properties.and_then(|properties| properties.get(name));
        let Some(expression) = property("Schedule") else {
            self.resolver.problem(
                line,
                format!("the event {name} has no Schedule; give one such as rate(1 minute)"),
            );
            return None;
        };
        let text = self.resolver.text(expression)?;
        let every = match rate(&text) {
            Some(Ok(every)) => every,
            Some(Err(why)) => {
                self.resolver
                    .problem(expression.line, format!("the Schedule of {name} is {text}; {why}"));
                return None;
            }
            None => {
                self.notice(
                    line,
                    format!("the schedule {name} is not run locally, because it is {text}; only rates such as rate(1 minute) are"),
                );
                return None;
            }
        };
        let state = property("State").and_then(|state| self.resolver.text(state));
        let is_enabled = self.boolean(property("Enabled"), "Enabled", true) && state.as_deref() != Some("DISABLED");
        if !is_enabled {
            self.notice(line, format!("the schedule {name} is disabled, and is not run"));
            return None;
        }
        let rule = match property("Name") {
            Some(name) => self.resolver.text(name)?,
            None => format!("{}-{}{name}", self.options.stack_name, resource.logical_id),
        };
        let retries = resource
            .property("EventInvokeConfig")
            .and_then(|config| config.get("MaximumRetryAttempts"));
        Some(Schedule {
            name: format!("{}/{name}", resource.logical_id),
            function: resource.logical_id.to_owned(),
            rule_arn: format!("arn:aws:events:{}:{LOCAL_ACCOUNT_ID}:rule/{rule}", self.options.region),
            every,
            input: match property("Input") {
                Some(input) => Some(self.resolver.text(input)?),
                None => None,
            },
            retry_attempts_max: self.number(
                retries,
                "MaximumRetryAttempts",
                0,
                RETRY_ATTEMPTS_DEFAULT,
                RETRY_ATTEMPTS_DEFAULT,
            ),
        })
    }
}

/// The length of `rate(VALUE UNIT)`; none for another kind of expression, and why where it is a wrong rate.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rate-expressions.html>
fn rate(expression: &str) -> Option<Result<Duration, &'static str>> {
    const FORM: &str =
        "a rate is a whole number above 0 and minute, hour or day, which is plural unless the number is 1";
    let inside = expression.trim().strip_prefix("rate(")?.strip_suffix(')')?;
    let mut words = inside.split_whitespace();
    let (Some(value), Some(unit), None) = (words.next(), words.next(), words.next()) else {
        return Some(Err(FORM));
    };
    let Some(value) = value.parse::<u32>().ok().filter(|value| *value > 0) else {
        return Some(Err(FORM));
    };
    let unit_s = match (unit, value) {
        ("minute", 1) | ("minutes", 2..) => SECONDS_PER_MINUTE,
        ("hour", 1) | ("hours", 2..) => SECONDS_PER_HOUR,
        ("day", 1) | ("days", 2..) => SECONDS_PER_DAY,
        _ => return Some(Err(FORM)),
    };
    Some(Ok(Duration::from_secs(u64::from(value) * unit_s)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Template, TemplateOptions};

    #[test]
    fn a_rate_is_read_as_eventbridge_reads_it() {
        for (text, seconds) in [
            ("rate(1 minute)", Some(Ok(60))),
            ("rate(5 minutes)", Some(Ok(300))),
            ("rate(1 hour)", Some(Ok(3600))),
            ("rate(7 days)", Some(Ok(604_800))),
            ("rate(1 minutes)", Some(Err(()))),
            ("rate(5 minute)", Some(Err(()))),
            ("rate(0 minutes)", Some(Err(()))),
            ("rate(30 seconds)", Some(Err(()))),
            ("rate()", Some(Err(()))),
            ("cron(0 10 * * ? *)", None),
        ] {
            let read = rate(text).map(|rate| rate.map(|every| every.as_secs()).map_err(|_| ()));
            assert_eq!(read, seconds, "{text}");
        }
    }

    fn read(event: &str, function: &str) -> Result<Template, String> {
        let text = format!(
            "Parameters: {{ Rate: {{ Type: String, Default: rate(2 minutes) }} }}
Resources:
  Sweep:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: sweep
      {function}
      Events:
        Now: {event}
"
        );
        Template::parse("t.yaml", &text, &TemplateOptions::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_function_has_its_schedules() {
        let event = "{ Type: Schedule, Properties: { Schedule: !Ref Rate, Input: '{\"a\":1}' } }";
        let template = read(event, "EventInvokeConfig: { MaximumRetryAttempts: 0 }").expect("it is right");
        assert_eq!(
            template.schedules,
            [Schedule {
                name: "Sweep/Now".to_owned(),
                function: "Sweep".to_owned(),
                rule_arn: "arn:aws:events:us-east-1:000000000000:rule/local-SweepNow".to_owned(),
                every: Duration::from_secs(120),
                input: Some("{\"a\":1}".to_owned()),
                retry_attempts_max: 0,
            }]
        );
        assert!(template.notices.is_empty() && template.mappings.is_empty());
        let event = "{ Type: Schedule, Properties: { Schedule: rate(1 minute) } }";
        assert_eq!(read(event, "").expect("it is right").schedules[0].retry_attempts_max, 2);
    }

    #[test]
    fn what_is_not_run_is_told_and_what_aws_refuses_is_a_problem() {
        for (event, told) in [
            (
                "{ Type: Schedule, Properties: { Schedule: cron(0 10 * * ? *) } }",
                "because it is cron(0 10 * * ? *)",
            ),
            (
                "{ Type: Schedule, Properties: { Schedule: rate(1 minute), Enabled: false } }",
                "is disabled",
            ),
            (
                "{ Type: Schedule, Properties: { Schedule: rate(1 minute), State: DISABLED } }",
                "is disabled",
            ),
            (
                "{ Type: ScheduleV2, Properties: { ScheduleExpression: rate(1 minute) } }",
                "the ScheduleV2 event Now is not run",
            ),
        ] {
            let template = read(event, "").expect(event);
            assert!(template.schedules.is_empty());
            let notices: Vec<String> = template.notices.iter().map(ToString::to_string).collect();
            assert!(notices.len() == 1 && notices[0].contains(told), "{event}: {notices:?}");
        }
        for (event, function, told) in [
            ("{ Type: Schedule }", "", "has no Schedule"),
            (
                "{ Type: Schedule, Properties: { Schedule: rate(1 minutes) } }",
                "",
                "a rate is a whole number",
            ),
            (
                "{ Type: Schedule, Properties: { Schedule: rate(1 minute) } }",
                "EventInvokeConfig: { MaximumRetryAttempts: 3 }",
                "MaximumRetryAttempts is 3; give a number from 0 to 2",
            ),
        ] {
            let problems = read(event, function).expect_err(event);
            assert!(problems.contains(told), "{event}: {problems}");
        }
    }
}
