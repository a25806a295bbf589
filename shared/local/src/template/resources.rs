//! From resolved resources to what the local cloud runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::intrinsics::{Attributes, Resolver};
use super::yaml::{self, Node, Value};
use super::{
    Function, LOCAL_ACCOUNT_ID, Notice, Stream, StreamConsumer, Table, Template, TemplateOptions, TemplateProblem,
    TemplateProblems,
};

const STREAM: &str = "AWS::Kinesis::Stream";
const CONSUMER: &str = "AWS::Kinesis::StreamConsumer";
const TABLE: &str = "AWS::DynamoDB::Table";
const SERVERLESS_FUNCTION: &str = "AWS::Serverless::Function";
const PLAIN_FUNCTION: &str = "AWS::Lambda::Function";
const MAPPING: &str = "AWS::Lambda::EventSourceMapping";

/// CloudFormation's defaults and limits for the properties read here.
const DEFAULT_RETENTION_HOURS: u32 = 24;
const DEFAULT_TIMEOUT_S: u64 = 3;
const TIMEOUT_S_MAX: u64 = 900;
const DEFAULT_MEMORY_MB: u32 = 128;
/// AWS bounds it by the account's limit, which starts at 1,000 and can be raised; this is past any of them.
const RESERVED_CONCURRENCY_MAX: u32 = 1_000_000;

/// What `CreateTable` takes from a table resource as it is.
const TABLE_PROPERTIES: [&str; 10] = [
    "KeySchema",
    "AttributeDefinitions",
    "GlobalSecondaryIndexes",
    "LocalSecondaryIndexes",
    "BillingMode",
    "ProvisionedThroughput",
    "OnDemandThroughput",
    "StreamSpecification",
    "TableClass",
    "DeletionProtectionEnabled",
];

pub(super) fn read(source_name: &str, text: &str, options: &TemplateOptions) -> Result<Template, TemplateProblems> {
    let fail = |problems: Vec<TemplateProblem>| TemplateProblems {
        source_name: source_name.to_owned(),
        problems,
    };
    let root = yaml::parse(text).map_err(|problem| fail(vec![problem]))?;
    let mut resolver = Resolver::new(options.region.clone(), options.stack_name.clone(), &root);
    read_parameters(&mut resolver, &root, options);
    let resources = live_resources(&resolver, &root);
    resolver.attributes = attributes(&resolver, &resources, options);

    let mut reader = Reader {
        resolver: &resolver,
        options,
        globals: root.get("Globals").and_then(|globals| globals.get("Function")),
        notices: Vec::new(),
    };
    let streams: Vec<Stream> = of_type(&resources, STREAM)
        .filter_map(|resource| reader.stream(resource))
        .collect();
    let consumers: Vec<StreamConsumer> = of_type(&resources, CONSUMER)
        .filter_map(|resource| reader.consumer(resource))
        .collect();
    let tables: Vec<Table> = of_type(&resources, TABLE)
        .filter_map(|resource| reader.table(resource))
        .collect();
    let mut functions = Vec::new();
    let mut mappings = Vec::new();
    let mut schedules = Vec::new();
    for resource in of_type(&resources, SERVERLESS_FUNCTION) {
        functions.extend(reader.function(resource));
        schedules.extend(reader.function_schedules(resource));
        mappings.extend(reader.function_events(resource, &streams, &consumers));
    }
    for resource in of_type(&resources, PLAIN_FUNCTION) {
        reader.resolver.problem(
            resource.line,
            format!(
                "{} is an {PLAIN_FUNCTION}, which the local cloud does not run; write it as {SERVERLESS_FUNCTION}",
                resource.logical_id
            ),
        );
    }
    for resource in of_type(&resources, MAPPING) {
        mappings.extend(reader.mapping_resource(resource, &functions, &streams, &consumers));
    }
    let notices = reader.notices;
    let problems = resolver.into_problems();
    if !problems.is_empty() {
        return Err(fail(problems));
    }
    Ok(Template {
        region: options.region.clone(),
        stack_name: options.stack_name.clone(),
        streams,
        consumers,
        tables,
        functions,
        mappings,
        schedules,
        notices,
    })
}

/// A resource whose condition holds.
pub(super) struct Resource<'template> {
    pub line: usize,
    pub logical_id: &'template str,
    kind: &'template str,
    node: &'template Node,
    pub properties: Option<&'template Node>,
}

impl<'template> Resource<'template> {
    pub fn property(&self, name: &str) -> Option<&'template Node> {
        self.properties.and_then(|properties| properties.get(name))
    }
}

fn of_type<'list, 'template>(
    resources: &'list [Resource<'template>],
    kind: &'static str,
) -> impl Iterator<Item = &'list Resource<'template>> {
    resources.iter().filter(move |resource| resource.kind == kind)
}

fn read_parameters(resolver: &mut Resolver<'_>, root: &Node, options: &TemplateOptions) {
    let declared = root.get("Parameters").map(Node::entries).unwrap_or_default();
    for (key, parameter) in declared {
        let is_list = parameter
            .get("Type")
            .and_then(Node::as_text)
            .is_some_and(|kind| kind == "CommaDelimitedList" || kind.starts_with("List<"));
        let given = options
            .parameters
            .get(&key.text)
            .map(|text| Node::scalar(key.line, text.clone()));
        let Some(value) = given.or_else(|| parameter.get("Default").map(as_parameter_text)) else {
            resolver.problem(
                key.line,
                format!("the parameter {} has no default; give it a value", key.text),
            );
            continue;
        };
        if let Some(Value::List(allowed)) = parameter.get("AllowedValues").map(|node| &node.value)
            && !allowed.iter().any(|candidate| candidate.as_text() == value.as_text())
        {
            resolver.problem(
                key.line,
                format!(
                    "{} is not an allowed value of the parameter {}",
                    value.as_text().unwrap_or_default(),
                    key.text
                ),
            );
        }
        let value = if is_list {
            let items = value
                .as_text()
                .unwrap_or_default()
                .split(',')
                .map(|item| Node::scalar(key.line, item.trim()));
            Node {
                line: key.line,
                value: Value::List(items.collect()),
            }
        } else {
            value
        };
        resolver.parameters.insert(key.text.clone(), value);
    }
    let unknown = options
        .parameters
        .keys()
        .filter(|name| !declared.iter().any(|(key, _)| key.text == **name));
    for name in unknown {
        let known: Vec<&str> = declared.iter().map(|(key, _)| key.text.as_str()).collect();
        resolver.problem(
            1,
            format!("there is no parameter {name}; the template has: {}", known.join(", ")),
        );
    }
}

/// An empty default is empty text, not "nothing".
fn as_parameter_text(node: &Node) -> Node {
    match node.value {
        Value::Null => Node::scalar(node.line, ""),
        _ => node.clone(),
    }
}

fn live_resources<'template>(resolver: &Resolver<'_>, root: &'template Node) -> Vec<Resource<'template>> {
    let Some(resources) = root.get("Resources") else {
        resolver.problem(
            1,
            "there is no Resources section; give a SAM or CloudFormation template",
        );
        return Vec::new();
    };
    let mut live = Vec::new();
    for (key, node) in resources.entries() {
        let Some(kind) = node.get("Type").and_then(Node::as_text) else {
            resolver.problem(key.line, format!("the resource {} has no Type", key.text));
            continue;
        };
        if let Some(condition) = node.get("Condition")
            && !resolver.condition(condition.line, condition.as_text().unwrap_or_default())
        {
            continue;
        }
        live.push(Resource {
            line: key.line,
            logical_id: &key.text,
            kind,
            node,
            properties: node.get("Properties"),
        });
    }
    live
}

/// What `Ref` and `Fn::GetAtt` give, for every resource. Physical names may use parameters but not other resources.
fn attributes(resolver: &Resolver<'_>, resources: &[Resource<'_>], options: &TemplateOptions) -> Attributes {
    let mut all = Attributes::new();
    // Consumers come last, because their ARN holds their stream's.
    let (consumers, others): (Vec<_>, Vec<_>) = resources.iter().partition(|resource| resource.kind == CONSUMER);
    for resource in others {
        let (name_property, service, path) = match resource.kind {
            STREAM => ("Name", "kinesis", "stream/"),
            TABLE => ("TableName", "dynamodb", "table/"),
            SERVERLESS_FUNCTION | PLAIN_FUNCTION => ("FunctionName", "lambda", "function:"),
            "AWS::IAM::Role" => ("RoleName", "iam", "role/"),
            "AWS::SQS::Queue" => ("QueueName", "sqs", ""),
            "AWS::SNS::Topic" => ("TopicName", "sns", ""),
            "AWS::S3::Bucket" => ("BucketName", "s3", ""),
            "AWS::Logs::LogGroup" => ("LogGroupName", "logs", "log-group:"),
            _ => ("Name", "local", ""),
        };
        let name = resource
            .property(name_property)
            .and_then(|node| resolver.text(node))
            .unwrap_or_else(|| format!("{}-{}", options.stack_name, resource.logical_id));
        let arn = match service {
            "iam" => format!("arn:aws:iam::{LOCAL_ACCOUNT_ID}:{path}{name}"),
            "s3" => format!("arn:aws:s3:::{name}"),
            _ => format!("arn:aws:{service}:{}:{LOCAL_ACCOUNT_ID}:{path}{name}", options.region),
        };
        let reference = match resource.kind {
            "AWS::SQS::Queue" => format!("https://sqs.{}.amazonaws.com/{LOCAL_ACCOUNT_ID}/{name}", options.region),
            "AWS::SNS::Topic" => arn.clone(),
            _ => name.clone(),
        };
        let mut known = BTreeMap::from([(String::new(), reference.clone()), ("Arn".to_owned(), arn)]);
        match resource.kind {
            "AWS::SQS::Queue" => {
                known.insert("QueueName".to_owned(), name);
                known.insert("QueueUrl".to_owned(), reference);
            }
            "AWS::SNS::Topic" => {
                known.insert("TopicName".to_owned(), name);
                known.insert("TopicArn".to_owned(), reference);
            }
            _ => {}
        }
        all.insert(resource.logical_id.to_owned(), known);
    }
    let mut with_streams = Resolver::new(options.region.clone(), options.stack_name.clone(), &EMPTY);
    with_streams.parameters = resolver.parameters.clone();
    with_streams.attributes = all.clone();
    for resource in consumers {
        // A problem in these properties is reported when the consumer is read.
        let text = |property| resource.property(property).and_then(|node| with_streams.text(node));
        let name = text("ConsumerName").unwrap_or_else(|| resource.logical_id.to_owned());
        let stream_arn = text("StreamARN").unwrap_or_default();
        let arn = format!("{stream_arn}/consumer/{name}:{}", options.consumer_creation_timestamp_s);
        let known = [
            (String::new(), arn.clone()),
            ("ConsumerARN".to_owned(), arn),
            ("ConsumerName".to_owned(), name),
            ("StreamARN".to_owned(), stream_arn),
            ("ConsumerStatus".to_owned(), "ACTIVE".to_owned()),
            (
                "ConsumerCreationTimestamp".to_owned(),
                options.consumer_creation_timestamp_s.to_string(),
            ),
        ];
        all.insert(resource.logical_id.to_owned(), known.into());
    }
    all
}

const EMPTY: Node = Node {
    line: 1,
    value: Value::Null,
};

pub(super) struct Reader<'run, 'template> {
    pub resolver: &'run Resolver<'template>,
    pub options: &'run TemplateOptions,
    /// `Globals.Function`.
    globals: Option<&'template Node>,
    notices: Vec<Notice>,
}

impl<'template> Reader<'_, 'template> {
    fn attribute(&self, logical_id: &str, attribute: &str) -> String {
        self.resolver
            .attributes
            .get(logical_id)
            .and_then(|known| known.get(attribute))
            .cloned()
            .unwrap_or_default()
    }

    pub fn notice(&mut self, line: usize, message: impl Into<String>) {
        self.notices.push(Notice {
            line,
            message: message.into(),
        });
    }

    /// A number between `min` and `max`, or `default` when the property is absent.
    pub fn number<N>(&self, node: Option<&Node>, what: &str, min: N, max: N, default: N) -> N
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(node) = node else { return default };
        let Some(resolved) = self.resolver.resolve(node) else {
            return default;
        };
        match resolved.as_text().map(str::parse::<N>) {
            Some(Ok(value)) if value >= min && value <= max => value,
            _ => {
                self.resolver.problem(
                    node.line,
                    format!(
                        "{what} is {}; give a number from {min} to {max}",
                        resolved.as_text().unwrap_or("not a number")
                    ),
                );
                default
            }
        }
    }

    pub fn boolean(&self, node: Option<&Node>, what: &str, default: bool) -> bool {
        let Some(node) = node else { return default };
        let Some(resolved) = self.resolver.resolve(node) else {
            return default;
        };
        resolved.as_bool().unwrap_or_else(|| {
            self.resolver
                .problem(node.line, format!("{what} must be true or false"));
            default
        })
    }

    fn stream(&mut self, resource: &Resource<'_>) -> Option<Stream> {
        let on_demand = resource
            .property("StreamModeDetails")
            .and_then(|details| details.get("StreamMode"))
            .and_then(|mode| self.resolver.text(mode))
            .is_some_and(|mode| mode == "ON_DEMAND");
        let count = resource.property("ShardCount");
        if count.is_none() && !on_demand {
            self.resolver.problem(
                resource.line,
                format!(
                    "{} has no ShardCount; add one, or StreamModeDetails with StreamMode: ON_DEMAND",
                    resource.logical_id
                ),
            );
        }
        let declared = self.number(count, "ShardCount", 1, 10_000, self.options.on_demand_shards);
        Some(Stream {
            logical_id: resource.logical_id.to_owned(),
            name: self.attribute(resource.logical_id, ""),
            arn: self.attribute(resource.logical_id, "Arn"),
            shard_count: self.options.shard_count.unwrap_or(declared),
            on_demand,
            retention_hours: self.number(
                resource.property("RetentionPeriodHours"),
                "RetentionPeriodHours",
                DEFAULT_RETENTION_HOURS,
                8_760,
                DEFAULT_RETENTION_HOURS,
            ),
        })
    }

    fn consumer(&mut self, resource: &Resource<'_>) -> Option<StreamConsumer> {
        for property in ["ConsumerName", "StreamARN"] {
            match resource.property(property) {
                Some(node) => {
                    self.resolver.text(node)?;
                }
                None => {
                    self.resolver.problem(
                        resource.line,
                        format!("{} has no {property}; add it", resource.logical_id),
                    );
                    return None;
                }
            }
        }
        Some(StreamConsumer {
            logical_id: resource.logical_id.to_owned(),
            name: self.attribute(resource.logical_id, "ConsumerName"),
            arn: self.attribute(resource.logical_id, "ConsumerARN"),
            stream_arn: self.attribute(resource.logical_id, "StreamARN"),
        })
    }

    fn table(&mut self, resource: &Resource<'_>) -> Option<Table> {
        let name = self.attribute(resource.logical_id, "");
        let mut create_table = serde_json::Map::new();
        create_table.insert("TableName".to_owned(), name.clone().into());
        for property in TABLE_PROPERTIES {
            if let Some(resolved) = resource.property(property).and_then(|node| self.resolver.resolve(node)) {
                create_table.insert(property.to_owned(), table_json(property, &resolved));
            }
        }
        for property in ["KeySchema", "AttributeDefinitions"] {
            if !create_table.contains_key(property) {
                self.resolver.problem(
                    resource.line,
                    format!("{} has no {property}; add it", resource.logical_id),
                );
            }
        }
        let ttl = resource
            .property("TimeToLiveSpecification")
            .and_then(|node| self.resolver.resolve(node));
        let ttl_attribute = ttl.filter(|ttl| ttl.get("Enabled").and_then(Node::as_bool) == Some(true));
        Some(Table {
            logical_id: resource.logical_id.to_owned(),
            name,
            arn: self.attribute(resource.logical_id, "Arn"),
            create_table: create_table.into(),
            ttl_attribute: ttl_attribute.and_then(|ttl| Some(ttl.get("AttributeName")?.as_text()?.to_owned())),
        })
    }

    /// A function's property, or the one of `Globals.Function`.
    fn or_global(&self, resource: &Resource<'template>, property: &str) -> Option<&'template Node> {
        resource
            .property(property)
            .or_else(|| self.globals.and_then(|globals| globals.get(property)))
    }

    fn function(&mut self, resource: &Resource<'template>) -> Option<Function> {
        let logical_id = resource.logical_id;
        let mut environment = BTreeMap::new();
        let mut dynamic = Vec::new();
        for owner in [self.globals, resource.properties].into_iter().flatten() {
            let variables = owner
                .get("Environment")
                .and_then(|environment| environment.get("Variables"));
            for (key, value) in variables.map(Node::entries).unwrap_or_default() {
                if let Some(resolved) = self.resolver.resolve(value) {
                    match resolved.as_text() {
                        Some(text) => {
                            if text.contains("{{resolve:") {
                                dynamic.push((value.line, key.text.clone()));
                            }
                            environment.insert(key.text.clone(), text.to_owned());
                        }
                        None => self.resolver.problem(
                            value.line,
                            format!("the environment variable {} must be text", key.text),
                        ),
                    }
                }
            }
        }
        for (line, variable) in dynamic {
            self.notice(line, format!("{logical_id}: {variable} refers to a secret, which is not resolved locally; give its value yourself"));
        }
        let logging = self.or_global(resource, "LoggingConfig");
        for (property, variable) in [
            ("LogFormat", "AWS_LAMBDA_LOG_FORMAT"),
            ("ApplicationLogLevel", "AWS_LAMBDA_LOG_LEVEL"),
            ("LogGroup", "AWS_LAMBDA_LOG_GROUP_NAME"),
        ] {
            if let Some(text) = logging
                .and_then(|logging| logging.get(property))
                .and_then(|node| self.resolver.text(node))
            {
                environment.insert(variable.to_owned(), text);
            }
        }
        let role_arn = match self.or_global(resource, "Role") {
            Some(role) => self.resolver.text(role)?,
            None => format!(
                "arn:aws:iam::{LOCAL_ACCOUNT_ID}:role/{}-{logical_id}Role",
                self.options.stack_name
            ),
        };
        let timeout_s = self.number(
            self.or_global(resource, "Timeout"),
            "Timeout",
            1,
            TIMEOUT_S_MAX,
            DEFAULT_TIMEOUT_S,
        );
        Some(Function {
            logical_id: logical_id.to_owned(),
            name: self.attribute(logical_id, ""),
            arn: self.attribute(logical_id, "Arn"),
            role_arn,
            binary: self.binary(resource)?,
            handler: self
                .or_global(resource, "Handler")
                .and_then(|node| self.resolver.text(node))
                .unwrap_or_else(|| "bootstrap".to_owned()),
            environment,
            timeout: Duration::from_secs(timeout_s),
            memory_mb: self.number(
                self.or_global(resource, "MemorySize"),
                "MemorySize",
                128,
                10_240,
                DEFAULT_MEMORY_MB,
            ),
            reserved_concurrency: self.reserved_concurrency(resource),
        })
    }

    fn reserved_concurrency(&self, resource: &Resource<'template>) -> Option<u32> {
        const PROPERTY: &str = "ReservedConcurrentExecutions";
        // AWS::NoValue is as if it were not there.
        let resolved = self.resolver.resolve(self.or_global(resource, PROPERTY)?)?;
        Some(self.number(Some(&resolved), PROPERTY, 0, RESERVED_CONCURRENCY_MAX, 0))
    }

    fn binary(&self, resource: &Resource<'template>) -> Option<String> {
        let declared = resource
            .node
            .get("Metadata")
            .and_then(|metadata| metadata.get("BuildProperties"))
            .and_then(|build| build.get("Binary"));
        if let Some(declared) = declared {
            return self.resolver.text(declared);
        }
        let Some(code_uri) = self.or_global(resource, "CodeUri") else {
            self.resolver.problem(
                resource.line,
                format!(
                    "{} has neither Metadata.BuildProperties.Binary nor CodeUri; add one to name its program",
                    resource.logical_id
                ),
            );
            return None;
        };
        let text = self.resolver.text(code_uri)?;
        text.trim_end_matches('/').rsplit('/').next().map(str::to_owned)
    }
}

/// Properties of a table that `CreateTable` takes as numbers and booleans. A parameter's value is text until here.
const TABLE_NUMBERS: [&str; 4] = [
    "ReadCapacityUnits",
    "WriteCapacityUnits",
    "MaxReadRequestUnits",
    "MaxWriteRequestUnits",
];
const TABLE_BOOLEANS: [&str; 1] = ["DeletionProtectionEnabled"];

/// CloudFormation and `CreateTable` differ in one place: a stream's view type alone means that the stream is enabled.
fn table_json(property: &str, node: &Node) -> serde_json::Value {
    let mut json = typed(property, node);
    if property == "StreamSpecification"
        && let Some(specification) = json.as_object_mut()
    {
        specification.insert("StreamEnabled".to_owned(), true.into());
        specification.remove("ResourcePolicy");
    }
    json
}

fn typed(key: &str, node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.text.clone(), typed(&key.text, value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::List(items) => items.iter().map(|item| typed("", item)).collect(),
        Value::Null => serde_json::Value::Null,
        Value::Scalar { text, .. } => {
            let number = text.parse::<i64>().ok().filter(|_| TABLE_NUMBERS.contains(&key));
            let boolean = node.as_bool().filter(|_| TABLE_BOOLEANS.contains(&key));
            match (number, boolean) {
                (Some(number), _) => number.into(),
                (None, Some(boolean)) => boolean.into(),
                (None, None) => text.as_str().into(),
            }
        }
    }
}
