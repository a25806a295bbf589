//! Event source mappings: the Kinesis events of functions, and `AWS::Lambda::EventSourceMapping` resources on a stream.
//!
//! What AWS refuses on creation is a problem here. Properties, defaults and limits are those of
//! <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html> and
//! <https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-property-function-kinesis.html>.

use std::time::Duration;

use crate::event_source_mapping::failure_destination::uuid_text;
use crate::event_source_mapping::filter::{
    DATA_KEY, FilterCriteria, METADATA_KEYS, PATTERNS_DEFAULT_MAX, PATTERNS_MAX,
};

use super::resources::{Reader, Resource};
use super::schedule::{SCHEDULE, SCHEDULE_V2};
use super::yaml::{Node, Value};
use super::{
    EventSourceMapping, FailureDestination, FailureDestinationKind, Function, StartingPosition, Stream, StreamConsumer,
};

const DEFAULT_BATCH_SIZE: usize = 100;
const BATCH_SIZE_MAX: usize = 10_000;
const BATCHING_WINDOW_S_MAX: u64 = 300;
const PARALLELIZATION_FACTOR_MAX: u32 = 10;
const RETRY_ATTEMPTS_MAX: i64 = 10_000;
const RECORD_AGE_S_MIN: i64 = 60;
const RECORD_AGE_S_MAX: i64 = 604_800;
const TUMBLING_WINDOW_S_MAX: u64 = 900;
/// How CloudFormation writes "without end" for retries and ages.
const INFINITE: i64 = -1;
/// A UUID made of whatever its maker likes.
const UUID_VERSION_CUSTOM: u8 = 8;
const MS_PER_S: f64 = 1_000.0;
/// A property this close to a known one is a misspelling of it.
const MISSPELLING_EDITS_MAX: usize = 3;

/// What both ways of writing a mapping have.
const COMMON_PROPERTIES: [&str; 15] = [
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "Enabled",
    "FilterCriteria",
    "FunctionResponseTypes",
    "KmsKeyArn",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "MetricsConfig",
    "ParallelizationFactor",
    "StartingPosition",
    "StartingPositionTimestamp",
    "TumblingWindowInSeconds",
];
const EVENT_PROPERTIES: [&str; 1] = ["Stream"];
const RESOURCE_PROPERTIES: [&str; 3] = ["EventSourceArn", "FunctionName", "Tags"];

/// Where a mapping is written in the template, and as what.
struct Place<'node> {
    line: usize,
    name: String,
    function: &'node str,
    properties: &'node Node,
    /// The property that names the stream or its consumer.
    source_property: &'static str,
}

impl<'template> Reader<'_, 'template> {
    pub(super) fn function_events(
        &mut self,
        resource: &Resource<'template>,
        streams: &[Stream],
        consumers: &[StreamConsumer],
    ) -> Vec<EventSourceMapping> {
        let mut mappings = Vec::new();
        for (key, event) in resource.property("Events").map(Node::entries).unwrap_or_default() {
            let kind = event.get("Type").and_then(Node::as_text).unwrap_or_default();
            if kind == SCHEDULE || kind == SCHEDULE_V2 {
                continue;
            }
            if kind != "Kinesis" {
                self.notice(
                    key.line,
                    format!(
                        "the {kind} event {} is not run locally; only Kinesis and Schedule events are",
                        key.text
                    ),
                );
                continue;
            }
            let Some(properties) = event.get("Properties") else {
                self.resolver
                    .problem(key.line, format!("the event {} has no Properties", key.text));
                continue;
            };
            let place = Place {
                line: key.line,
                name: format!("{}/{}", resource.logical_id, key.text),
                function: resource.logical_id,
                properties,
                source_property: "Stream",
            };
            self.check_names(&place, &EVENT_PROPERTIES);
            mappings.extend(self.mapping(place, streams, consumers));
        }
        mappings
    }

    pub(super) fn mapping_resource(
        &mut self,
        resource: &Resource<'template>,
        functions: &[Function],
        streams: &[Stream],
        consumers: &[StreamConsumer],
    ) -> Option<EventSourceMapping> {
        let properties = resource.properties?;
        let target = properties
            .get("FunctionName")
            .and_then(|node| self.resolver.text(node))?;
        let Some(function) = functions.iter().find(|function| {
            target == function.name || target == function.arn || target.starts_with(&format!("{}:", function.arn))
        }) else {
            self.resolver.problem(
                resource.line,
                format!("FunctionName is {target}, which no function of this template is"),
            );
            return None;
        };
        let other_service = properties
            .get("EventSourceArn")
            .and_then(|node| self.resolver.text(node))
            .filter(|arn| !arn.is_empty() && !arn.starts_with("arn:aws:kinesis:"));
        if let Some(arn) = other_service {
            self.notice(
                resource.line,
                format!(
                    "{} reads {arn} and is not run locally; only Kinesis is",
                    resource.logical_id
                ),
            );
            return None;
        }
        let place = Place {
            line: resource.line,
            name: resource.logical_id.to_owned(),
            function: &function.logical_id,
            properties,
            source_property: "EventSourceArn",
        };
        self.check_names(&place, &RESOURCE_PROPERTIES);
        self.mapping(place, streams, consumers)
    }

    /// A misspelt property would silently fall back to its default. One that resembles no other may be newer than this list.
    fn check_names(&mut self, place: &Place<'_>, own: &[&str]) {
        let known: Vec<&str> = COMMON_PROPERTIES.iter().chain(own).copied().collect();
        for (key, _) in place.properties.entries() {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            match nearest(&key.text, &known) {
                Some(meant) => self.resolver.problem(
                    key.line,
                    format!(
                        "{}: {} is not a property of a Kinesis mapping; did you mean {meant}?",
                        place.name, key.text
                    ),
                ),
                None => self.notice(
                    key.line,
                    format!(
                        "{}: {} is not known here as a property of a Kinesis mapping, and changes nothing",
                        place.name, key.text
                    ),
                ),
            }
        }
    }

    fn mapping(
        &mut self,
        place: Place<'_>,
        streams: &[Stream],
        consumers: &[StreamConsumer],
    ) -> Option<EventSourceMapping> {
        let (line, properties) = (place.line, place.properties);
        if !self.boolean(properties.get("Enabled"), "Enabled", true) {
            self.notice(line, format!("{} is not enabled and does not run", place.name));
            return None;
        }
        let Some(source) = properties.get(place.source_property) else {
            self.resolver.problem(
                line,
                format!(
                    "{} has no {}; name a stream or a stream consumer",
                    place.name, place.source_property
                ),
            );
            return None;
        };
        let event_source_arn = self.resolver.text(source)?;
        let stream_arn = consumers
            .iter()
            .find(|consumer| consumer.arn == event_source_arn)
            .map_or(event_source_arn.as_str(), |consumer| consumer.stream_arn.as_str());
        let Some(stream) = streams.iter().find(|stream| stream.arn == stream_arn) else {
            self.resolver.problem(
                source.line,
                format!(
                    "{} reads {event_source_arn}, which is neither a stream nor a consumer of this template; use !GetAtt STREAM.Arn \
                     or !GetAtt CONSUMER.ConsumerARN",
                    place.name
                ),
            );
            return None;
        };
        // The others are looked at whether it is right or not, so that all problems are told.
        let starting_position = self.starting_position(&place);
        let batching_window_s = self.number(
            properties.get("MaximumBatchingWindowInSeconds"),
            "MaximumBatchingWindowInSeconds",
            0,
            BATCHING_WINDOW_S_MAX,
            0,
        );
        let retries = self.number(
            properties.get("MaximumRetryAttempts"),
            "MaximumRetryAttempts",
            INFINITE,
            RETRY_ATTEMPTS_MAX,
            INFINITE,
        );
        let tumbling_window_s = self.number(
            properties.get("TumblingWindowInSeconds"),
            "TumblingWindowInSeconds",
            0,
            TUMBLING_WINDOW_S_MAX,
            0,
        );
        let batch_size = self.number(
            properties.get("BatchSize"),
            "BatchSize",
            1,
            BATCH_SIZE_MAX,
            DEFAULT_BATCH_SIZE,
        );
        let parallelization_factor = self.number(
            properties.get("ParallelizationFactor"),
            "ParallelizationFactor",
            1,
            PARALLELIZATION_FACTOR_MAX,
            1,
        );
        // AWS speaks of one state a shard, so batches of one shard cannot run beside each other.
        let one_at_a_time = tumbling_window_s > 0 && parallelization_factor > 1;
        if one_at_a_time {
            self.notice(
                line,
                format!(
                    "{}: with TumblingWindowInSeconds, ParallelizationFactor {parallelization_factor} is not honoured; one batch a shard \
                     at a time, because a shard has one state",
                    place.name
                ),
            );
        }
        let bisect_on_error = self.boolean(
            properties.get("BisectBatchOnFunctionError"),
            "BisectBatchOnFunctionError",
            false,
        );
        let mapping = EventSourceMapping {
            uuid: mapping_uuid(&self.options.stack_name, &place.name),
            function: place.function.to_owned(),
            stream: stream.name.clone(),
            stream_arn: stream.arn.clone(),
            event_source_arn,
            // A missing one is a problem already, so this value is never used.
            starting_position: starting_position.unwrap_or(StartingPosition::TrimHorizon),
            batch_size,
            batching_window: Duration::from_secs(batching_window_s),
            report_batch_item_failures: self.reports_failures(properties),
            retry_attempts_max: u32::try_from(retries).ok(),
            record_age_max: self.record_age_max(properties),
            bisect_on_error,
            parallelization_factor: if one_at_a_time { 1 } else { parallelization_factor },
            filters: self.filters(&place),
            tumbling_window: (tumbling_window_s > 0).then(|| Duration::from_secs(tumbling_window_s)),
            failure_destination: self.failure_destination(&place),
            name: place.name,
        };
        Some(mapping)
    }

    /// `StartingPositionTimestamp` is in seconds, and may have a fraction: SAM and CloudFormation take a double.
    fn starting_position(&self, place: &Place<'_>) -> Option<StartingPosition> {
        const TIMESTAMP: &str = "StartingPositionTimestamp";
        let node = place.properties.get("StartingPosition");
        let position = node.and_then(|node| self.resolver.text(node));
        let timestamp = place.properties.get(TIMESTAMP);
        let line = node.map_or(place.line, |node| node.line);
        let position = match position.as_deref() {
            Some("TRIM_HORIZON") => StartingPosition::TrimHorizon,
            Some("LATEST") => StartingPosition::Latest,
            Some("AT_TIMESTAMP") => {
                let Some(timestamp) = timestamp else {
                    self.resolver.problem(
                        line,
                        format!(
                            "{}: AT_TIMESTAMP needs a {TIMESTAMP}; give it in seconds since the Unix epoch",
                            place.name
                        ),
                    );
                    return None;
                };
                let seconds = self.resolver.text(timestamp)?;
                return match seconds.parse::<f64>() {
                    // The range check keeps the conversion within what an f64 holds exactly.
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "checked to be within the years 1970 to 9999"
                    )]
                    Ok(seconds) if (0.0..253_402_300_800.0).contains(&seconds) => {
                        Some(StartingPosition::AtTimestamp((seconds * MS_PER_S).round() as i64))
                    }
                    _ => {
                        self.resolver.problem(
                            timestamp.line,
                            format!("{TIMESTAMP} is {seconds}; give a number of seconds since the Unix epoch"),
                        );
                        None
                    }
                };
            }
            other => {
                self.resolver.problem(
                    line,
                    format!(
                        "StartingPosition is {}; give TRIM_HORIZON, LATEST or AT_TIMESTAMP",
                        other.unwrap_or("missing")
                    ),
                );
                return None;
            }
        };
        if let Some(timestamp) = timestamp {
            self.resolver.problem(
                timestamp.line,
                format!(
                    "{}: {TIMESTAMP} goes with StartingPosition: AT_TIMESTAMP only; remove one or change the other",
                    place.name
                ),
            );
        }
        Some(position)
    }

    /// The API's range begins at -1, but what is between -1 and 60 is refused:
    /// <https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html>.
    fn record_age_max(&self, properties: &Node) -> Option<Duration> {
        const PROPERTY: &str = "MaximumRecordAgeInSeconds";
        let node = properties.get(PROPERTY);
        let seconds = self.number(node, PROPERTY, INFINITE, RECORD_AGE_S_MAX, INFINITE);
        if seconds == INFINITE {
            return None;
        }
        if let Some(node) = node
            && seconds < RECORD_AGE_S_MIN
        {
            self.resolver.problem(
                node.line,
                format!(
                    "{PROPERTY} is {seconds}; give {INFINITE} for no limit, or a number from {RECORD_AGE_S_MIN} to {RECORD_AGE_S_MAX}"
                ),
            );
        }
        u64::try_from(seconds).ok().map(Duration::from_secs)
    }

    fn filters(&mut self, place: &Place<'_>) -> Option<FilterCriteria> {
        let criteria = self.resolver.resolve(place.properties.get("FilterCriteria")?)?;
        let filters = match criteria.get("Filters") {
            // An empty FilterCriteria takes the filters away.
            None if criteria.entries().is_empty() => return None,
            Some(Node {
                value: Value::List(filters),
                ..
            }) => filters,
            found => {
                self.resolver.problem(
                    found.map_or(criteria.line, |node| node.line),
                    format!(
                        "{}: FilterCriteria is a map with a list Filters, each with a Pattern",
                        place.name
                    ),
                );
                return None;
            }
        };
        if filters.len() > PATTERNS_MAX {
            self.resolver.problem(
                criteria.line,
                format!(
                    "{}: {} filters are too many; give at most {PATTERNS_MAX}",
                    place.name,
                    filters.len()
                ),
            );
        } else if filters.len() > PATTERNS_DEFAULT_MAX {
            self.notice(
                criteria.line,
                format!(
                    "{}: more than {PATTERNS_DEFAULT_MAX} filters need a raised quota in AWS",
                    place.name
                ),
            );
        }
        let mut patterns = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            let number = index + 1;
            let Some((line, text)) = filter
                .get("Pattern")
                .and_then(|node| Some((node.line, node.as_text()?.to_owned())))
            else {
                self.resolver.problem(
                    filter.line,
                    format!(
                        "{}: filter {number} has no Pattern; give it one, as text that holds JSON",
                        place.name
                    ),
                );
                continue;
            };
            if let Err(error) = FilterCriteria::parse([text.as_str()]) {
                self.resolver.problem(
                    line,
                    format!("{}: the pattern of filter {number}: {}", place.name, error.message),
                );
            }
            patterns.push((line, text));
        }
        // Each was parsed, and its problem told, alone above.
        let criteria = FilterCriteria::parse(patterns.iter().map(|(_, text)| text.as_str())).ok()?;
        for (index, key) in criteria.other_keys() {
            self.notice(
                patterns.get(index).map_or(place.line, |(line, _)| *line),
                if METADATA_KEYS.contains(&key) {
                    format!(
                        "{}: a pattern names {key}; AWS promises filters on {DATA_KEY} only for Kinesis, so try this one there",
                        place.name
                    )
                } else {
                    format!(
                        "{}: a pattern names {key}, which no record has; what a producer puts is under {DATA_KEY}",
                        place.name
                    )
                },
            );
        }
        (!patterns.is_empty()).then_some(criteria)
    }

    fn failure_destination(&self, place: &Place<'_>) -> Option<FailureDestination> {
        let config = self.resolver.resolve(place.properties.get("DestinationConfig")?)?;
        let on_failure = config.get("OnFailure")?;
        let Some(destination) = on_failure.get("Destination") else {
            self.resolver.problem(
                on_failure.line,
                format!(
                    "{}: OnFailure has no Destination; give the ARN of a queue, a topic or a bucket",
                    place.name
                ),
            );
            return None;
        };
        let arn = destination.as_text().unwrap_or_default();
        let Some((kind, name)) = destination_of(arn) else {
            self.resolver.problem(
                destination.line,
                format!(
                    "{}: the failure destination {arn} is not the ARN of a queue, a topic or a bucket; use !GetAtt RESOURCE.Arn, or \
                     !Ref TOPIC",
                    place.name
                ),
            );
            return None;
        };
        // SAM's own addition, from which it makes the policy.
        if let Some(declared) = on_failure.get("Type")
            && let Some(text) = declared.as_text()
            && text != kind.to_string()
        {
            self.resolver.problem(
                declared.line,
                format!(
                    "{}: OnFailure has Type {text} but its Destination is {kind}; make them agree",
                    place.name
                ),
            );
        }
        Some(FailureDestination {
            kind,
            arn: arn.to_owned(),
            name: name.to_owned(),
        })
    }

    fn reports_failures(&self, properties: &Node) -> bool {
        let Some(node) = properties.get("FunctionResponseTypes") else {
            return false;
        };
        let Some(resolved) = self.resolver.resolve(node) else {
            return false;
        };
        let Value::List(types) = &resolved.value else {
            self.resolver.problem(
                node.line,
                "FunctionResponseTypes is a list; give [ReportBatchItemFailures]",
            );
            return false;
        };
        for kind in types {
            if kind.as_text() != Some("ReportBatchItemFailures") {
                self.resolver.problem(
                    kind.line,
                    format!(
                        "{} is not a FunctionResponseType; the only one is ReportBatchItemFailures",
                        kind.as_text().unwrap_or("this")
                    ),
                );
            }
        }
        !types.is_empty()
    }
}

/// The service and the name in a destination's ARN. A name becomes part of a file's name, so it must be one.
fn destination_of(arn: &str) -> Option<(FailureDestinationKind, &str)> {
    let (kind, name) = if let Some(topic) = arn.strip_prefix("kafka://") {
        (FailureDestinationKind::Kafka, topic)
    } else {
        let mut parts = arn.splitn(6, ':');
        let kind = match (parts.next()?, parts.next()?, parts.next()?) {
            ("arn", _, "sqs") => FailureDestinationKind::Sqs,
            ("arn", _, "sns") => FailureDestinationKind::Sns,
            ("arn", _, "s3") => FailureDestinationKind::S3,
            _ => return None,
        };
        (kind, parts.nth(2)?)
    };
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    (name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') && name.chars().all(is_name))
        .then_some((kind, name))
}

/// FNV-1a over the names, in the form of a UUID of version 8 ("custom"): the same on every machine and in every build.
fn mapping_uuid(stack_name: &str, mapping_name: &str) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = [stack_name, "/", mapping_name]
        .iter()
        .flat_map(|part| part.bytes())
        .fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    uuid_text(hash, UUID_VERSION_CUSTOM)
}

/// The known name that was probably meant.
fn nearest<'known>(name: &str, known: &[&'known str]) -> Option<&'known str> {
    known
        .iter()
        .map(|candidate| (edits(&name.to_lowercase(), &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= MISSPELLING_EDITS_MAX)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in bytes.
fn edits(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, left_byte) in left.bytes().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, right_byte) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(left_byte != right_byte);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
