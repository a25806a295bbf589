//! Templates in, what runs or every problem out.

use std::time::Duration;

use super::{StartingPosition, Template, TemplateOptions};

const WHOLE: &str = r#"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Prefix: { Type: String, Default: "" }
  Shards: { Type: Number, Default: 4 }
  Mode: { Type: String, Default: PROVISIONED, AllowedValues: [PROVISIONED, ON_DEMAND] }
  Level: { Type: String, Default: INFO }
  Protect: { Type: String, Default: "true" }
Conditions:
  Provisioned: !Equals [!Ref Mode, PROVISIONED]
  OnDemand: !Not [!Condition Provisioned]
  Both: !And [!Condition Provisioned, !Equals [!Ref Prefix, ""]]
Mappings:
  Sizes: { small: { memory: 256 } }
Globals:
  Function:
    Timeout: 30
    Runtime: provided.al2023
    Environment:
      Variables: { FROM_GLOBALS: yes, SHARED: global }
Resources:
  Events:
    Type: AWS::Kinesis::Stream
    Properties:
      Name: !Sub "${Prefix}events"
      StreamModeDetails: { StreamMode: !Ref Mode }
      ShardCount: !If [Provisioned, !Ref Shards, !Ref AWS::NoValue]
      RetentionPeriodHours: 48
  Unnamed:
    Type: AWS::Kinesis::Stream
    Properties: { ShardCount: 1 }
  Never:
    Type: AWS::Kinesis::Stream
    Condition: OnDemand
    Properties: { ShardCount: 1 }
  Reader:
    Type: AWS::Kinesis::StreamConsumer
    Properties: { ConsumerName: reader, StreamARN: !GetAtt Events.Arn }
  Items:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: items
      BillingMode: PAY_PER_REQUEST
      DeletionProtectionEnabled: !Ref Protect
      AttributeDefinitions:
        - { AttributeName: id, AttributeType: S }
        - { AttributeName: due, AttributeType: N }
      KeySchema: [{ AttributeName: id, KeyType: HASH }]
      GlobalSecondaryIndexes:
        - IndexName: by_due
          KeySchema: [{ AttributeName: due, KeyType: HASH }]
          Projection: { ProjectionType: ALL }
      TimeToLiveSpecification: { AttributeName: expires_at, Enabled: true }
  Queue:
    Type: AWS::SQS::Queue
  Role:
    Type: AWS::IAM::Role
    Properties:
      Policies: !Transform { Name: ignored }
  First:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: first-binary } }
    Properties:
      FunctionName: !Join ["", [!Ref Prefix, first]]
      CodeUri: functions/elsewhere
      MemorySize: !FindInMap [Sizes, small, memory]
      Role: !GetAtt Role.Arn
      LoggingConfig: { LogFormat: JSON, ApplicationLogLevel: !Ref Level }
      Environment:
        Variables:
          SHARED: own
          STREAM: !Ref Events
          ARN: { "Fn::GetAtt": [Events, Arn] }
          TABLE: { Ref: Items }
          CONSUMER: !GetAtt Reader.ConsumerARN
          QUEUE: !Ref Queue
          LONG: { "Fn::Sub": ["${Literal}-${AWS::Region}-${!Kept}-${Events.Arn}", { Literal: x }] }
          ACCOUNT: !Ref AWS::AccountId
          CHOSEN: !Select [1, !Split [",", "a,b,c"]]
          ABSENT: !Ref AWS::NoValue
          BOTH: !If [Both, "1", "2"]
          CODE: 007
          SECRET: "{{resolve:secretsmanager:x:SecretString}}"
      Events:
        FromConsumer:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Reader.ConsumerARN
            StartingPosition: TRIM_HORIZON
            BatchSize: 1000
            MaximumBatchingWindowInSeconds: 2
            FunctionResponseTypes: [ReportBatchItemFailures]
            MaximumRetryAttempts: 5
            BisectBatchOnFunctionError: true
            ParallelizationFactor: 2
            FilterCriteria: { Filters: [{ Pattern: "{}" }] }
        Hourly: { Type: Schedule, Properties: { Schedule: rate(1 hour) } }
  Second:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: functions/second/ }
  Plain:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Second
      EventSourceArn: !GetAtt Unnamed.Arn
      StartingPosition: LATEST
"#;

fn parse(text: &str, parameters: &[(&str, &str)]) -> Result<Template, String> {
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let options = TemplateOptions {
        parameters,
        ..TemplateOptions::default()
    };
    Template::parse("t.yaml", text, &options).map_err(|problems| problems.to_string())
}

#[test]
fn a_template_is_read_with_its_expressions_resolved() {
    let template = parse(WHOLE, &[]).unwrap();
    let streams: Vec<_> = template
        .streams
        .iter()
        .map(|stream| {
            (
                stream.name.as_str(),
                stream.shard_count,
                stream.on_demand,
                stream.retention_hours,
            )
        })
        .collect();
    assert_eq!(streams, [("events", 4, false, 48), ("local-Unnamed", 1, false, 24)]);
    assert_eq!(
        template.streams[0].arn,
        "arn:aws:kinesis:us-east-1:000000000000:stream/events"
    );
    let consumer_arn = "arn:aws:kinesis:us-east-1:000000000000:stream/events/consumer/reader:1700000000";
    assert_eq!(template.consumers[0].arn, consumer_arn);

    let table = &template.tables[0];
    assert_eq!(
        (table.name.as_str(), table.ttl_attribute.as_deref()),
        ("items", Some("expires_at"))
    );
    assert_eq!(table.create_table["DeletionProtectionEnabled"], true);
    assert_eq!(table.create_table["GlobalSecondaryIndexes"][0]["IndexName"], "by_due");

    let [first, second] = template.functions.as_slice() else {
        panic!("two functions")
    };
    assert_eq!(
        (first.name.as_str(), first.binary.as_str(), first.memory_mb),
        ("first", "first-binary", 256)
    );
    assert_eq!(
        (first.timeout, second.timeout),
        (Duration::from_secs(30), Duration::from_secs(30))
    );
    assert_eq!(
        (second.name.as_str(), second.binary.as_str(), second.memory_mb),
        ("local-Second", "second", 128)
    );
    assert_eq!(first.role_arn, "arn:aws:iam::000000000000:role/local-Role");
    let expected = [
        ("ACCOUNT", "000000000000"),
        ("ARN", "arn:aws:kinesis:us-east-1:000000000000:stream/events"),
        ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
        ("AWS_LAMBDA_LOG_LEVEL", "INFO"),
        ("BOTH", "1"),
        ("CHOSEN", "b"),
        ("CODE", "007"),
        ("CONSUMER", consumer_arn),
        ("FROM_GLOBALS", "yes"),
        (
            "LONG",
            "x-us-east-1-${Kept}-arn:aws:kinesis:us-east-1:000000000000:stream/events",
        ),
        ("QUEUE", "https://sqs.us-east-1.amazonaws.com/000000000000/local-Queue"),
        ("SECRET", "{{resolve:secretsmanager:x:SecretString}}"),
        ("SHARED", "own"),
        ("STREAM", "events"),
        ("TABLE", "items"),
    ];
    let environment: Vec<_> = first
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(environment, expected);

    let [fanned_out, plain] = template.mappings.as_slice() else {
        panic!("two mappings")
    };
    assert_eq!(
        (fanned_out.name.as_str(), fanned_out.stream.as_str()),
        ("First/FromConsumer", "events")
    );
    assert_eq!(fanned_out.event_source_arn, consumer_arn);
    assert_eq!(
        (fanned_out.batch_size, fanned_out.batching_window),
        (1_000, Duration::from_secs(2))
    );
    assert_eq!(
        (fanned_out.retry_attempts_max, plain.retry_attempts_max),
        (Some(5), None)
    );
    assert!(fanned_out.report_batch_item_failures && fanned_out.bisect_on_error && !plain.report_batch_item_failures);
    assert_eq!((plain.name.as_str(), plain.function.as_str()), ("Plain", "Second"));
    assert_eq!(
        (plain.starting_position, plain.batch_size),
        (StartingPosition::Latest, 100)
    );

    let notices: Vec<_> = template.notices.iter().map(ToString::to_string).collect();
    for part in [
        "ParallelizationFactor 2",
        "FilterCriteria",
        "Schedule event Hourly",
        "SECRET refers to a secret",
    ] {
        assert!(
            notices.iter().any(|notice| notice.contains(part)),
            "{part} in {notices:?}"
        );
    }
}

#[test]
fn parameters_change_what_a_template_makes() {
    let template = parse(
        WHOLE,
        &[("Mode", "ON_DEMAND"), ("Prefix", "dev-"), ("Protect", "false")],
    )
    .unwrap();
    let names: Vec<_> = template
        .streams
        .iter()
        .map(|stream| (stream.name.as_str(), stream.on_demand))
        .collect();
    assert_eq!(
        names,
        [("dev-events", true), ("local-Unnamed", false), ("local-Never", false)]
    );
    assert_eq!(template.functions[0].name, "dev-first");
    assert_eq!(template.functions[0].environment["BOTH"], "2");
    let wider = TemplateOptions {
        shard_count: Some(8),
        ..TemplateOptions::default()
    };
    assert_eq!(Template::parse("t", WHOLE, &wider).unwrap().streams[0].shard_count, 8);
}

#[test]
fn every_problem_is_told_at_once_with_its_line_and_what_to_do() {
    let text = "Parameters:
  Size: { Type: String }
Resources:
  NoCount:
    Type: AWS::Kinesis::Stream
  Bad:
    Type: AWS::Kinesis::Stream
    Properties: { ShardCount: many }
  Fn:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: x
      Timeout: 901
      Environment:
        Variables:
          A: !Ref Nothing
          B: !GetAtt Bad.Colour
          C: !ImportValue other
      Events:
        NoPosition:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Bad.Arn
        Elsewhere:
          Type: Kinesis
          Properties:
            Stream: arn:aws:kinesis:us-east-1:1:stream/other
            StartingPosition: LATEST
        Misspelt:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Bad.Arn
            StartingPosition: TRIM_HORIZONT
            FunctionResponseTypes: [ReportItems]
            BatchSize: 0
  Old:
    Type: AWS::Lambda::Function
  Conditional:
    Type: AWS::DynamoDB::Table
    Condition: Missing
";
    let message = parse(text, &[("Colour", "red")]).unwrap_err();
    let expected = [
        "t.yaml:1: there is no parameter Colour; the template has: Size",
        "t.yaml:2: the parameter Size has no default; give it a value",
        "t.yaml:4: NoCount has no ShardCount; add one, or StreamModeDetails with StreamMode: ON_DEMAND",
        "t.yaml:8: ShardCount is many; give a number from 1 to 10000",
        "t.yaml:13: Timeout is 901; give a number from 1 to 900",
        "t.yaml:16: Nothing is neither a parameter nor a resource of this template; correct the name",
        "t.yaml:17: Bad has no attribute Colour locally; it has: Arn",
        "t.yaml:18: Fn::ImportValue is not supported locally",
        "StartingPosition is missing; give TRIM_HORIZON or LATEST",
        "t.yaml:27: Fn/Elsewhere reads arn:aws:kinesis:us-east-1:1:stream/other, which is neither a stream nor a consumer",
        "t.yaml:33: StartingPosition is TRIM_HORIZONT; give TRIM_HORIZON or LATEST",
        "Old is an AWS::Lambda::Function, which the local cloud does not run",
        "there is no condition Missing",
    ];
    for part in expected {
        assert!(message.contains(part), "{part}\nin\n{message}");
    }
    // The others are told once the position is right.
    let message = parse(&text.replace("HORIZONT", "HORIZON"), &[]).unwrap_err();
    for part in [
        "t.yaml:34: ReportItems is not a FunctionResponseType",
        "t.yaml:35: BatchSize is 0; give a number from 1",
    ] {
        assert!(message.contains(part), "{part}\nin\n{message}");
    }
}

#[test]
fn what_is_not_a_template_is_told() {
    for (text, part) in [
        ("", "the file is empty"),
        ("a: [", "not valid YAML: while parsing"),
        ("Outputs: {}", "there is no Resources section"),
        ("Resources:\n  A: {}\n", "t.yaml:2: the resource A has no Type"),
        (
            "Conditions:\n  A: !Condition A\nResources:\n  B: { Type: X, Condition: A }\n",
            "the condition A refers to itself",
        ),
    ] {
        let message = parse(text, &[]).unwrap_err();
        assert!(message.contains(part), "{part}\nin\n{message}");
    }
}
