//! Templates in, what runs or every problem out.

use std::time::Duration;

use super::{EventSourceMapping, FailureDestinationKind, StartingPosition, Template, TemplateOptions};

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
      ReservedConcurrentExecutions: 7
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
            FilterCriteria: { Filters: [{ Pattern: '{"data": {"type": ["click"]}}' }, { Pattern: '{"partitionKey": ["1"]}' }] }
            MaximumRecordAgeInSeconds: 3600
            DestinationConfig: { OnFailure: { Type: S3, Destination: !GetAtt FailedBatches.Arn } }
            MetricsConfig: { Metrics: [EventCount] }
        Hourly: { Type: Schedule, Properties: { Schedule: rate(1 hour) } }
  Second:
    Type: AWS::Serverless::Function
    Properties: { CodeUri: functions/second/, ReservedConcurrentExecutions: !Ref AWS::NoValue }
  Plain:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Second
      EventSourceArn: !GetAtt Unnamed.Arn
      StartingPosition: LATEST
      TumblingWindowInSeconds: 120
      DestinationConfig: { OnFailure: { Destination: !GetAtt Queue.Arn } }
  FailedBatches:
    Type: AWS::S3::Bucket
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

    assert_eq!(fanned_out.stream_arn, template.streams[0].arn);
    assert_eq!(
        (fanned_out.parallelization_factor, fanned_out.record_age_max),
        (2, Some(Duration::from_secs(3_600)))
    );
    let patterns: Vec<_> = fanned_out.filters.iter().flat_map(|filters| filters.texts()).collect();
    assert_eq!(
        patterns,
        [r#"{"data": {"type": ["click"]}}"#, r#"{"partitionKey": ["1"]}"#]
    );
    let destinations: Vec<_> = template
        .mappings
        .iter()
        .filter_map(|mapping| mapping.failure_destination.as_ref())
        .map(|destination| (destination.kind, destination.arn.as_str(), destination.name.as_str()))
        .collect();
    assert_eq!(
        destinations,
        [
            (
                FailureDestinationKind::S3,
                "arn:aws:s3:::local-FailedBatches",
                "local-FailedBatches"
            ),
            (
                FailureDestinationKind::Sqs,
                "arn:aws:sqs:us-east-1:000000000000:local-Queue",
                "local-Queue"
            ),
        ]
    );
    assert_eq!(
        (fanned_out.tumbling_window, plain.tumbling_window),
        (None, Some(Duration::from_secs(120)))
    );
    assert_eq!((plain.filters.as_ref(), plain.record_age_max), (None, None));
    // The same in every run, so that what lies in a failure destination keeps its name.
    assert_eq!(fanned_out.uuid, "b1ac449a-3606-8931-b879-d308fabdcc16");
    assert_ne!(fanned_out.uuid, plain.uuid);
    assert_eq!(
        (first.reserved_concurrency, second.reserved_concurrency),
        (Some(7), None)
    );

    let schedules: Vec<_> = template.schedules.iter().map(|schedule| &schedule.name).collect();
    assert_eq!(schedules, ["First/Hourly"]);

    let notices: Vec<_> = template.notices.iter().map(ToString::to_string).collect();
    assert!(
        !notices.iter().any(|notice| notice.contains("not honoured")),
        "{notices:?}"
    );
    for part in [
        "a pattern names partitionKey; AWS promises filters on data only",
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
        "StartingPosition is missing; give TRIM_HORIZON, LATEST or AT_TIMESTAMP",
        "t.yaml:27: Fn/Elsewhere reads arn:aws:kinesis:us-east-1:1:stream/other, which is neither a stream nor a consumer",
        "t.yaml:33: StartingPosition is TRIM_HORIZONT; give TRIM_HORIZON, LATEST or AT_TIMESTAMP",
        "t.yaml:34: ReportItems is not a FunctionResponseType",
        "t.yaml:35: BatchSize is 0; give a number from 1",
        "Old is an AWS::Lambda::Function, which the local cloud does not run",
        "there is no condition Missing",
    ];
    for part in expected {
        assert!(message.contains(part), "{part}\nin\n{message}");
    }
}

/// The mapping of a function whose Kinesis event has these properties, with all notices; or the problems.
fn mapping(properties: &str) -> Result<(EventSourceMapping, String), String> {
    let text = format!(
        "Resources:
  Stream: {{ Type: AWS::Kinesis::Stream, Properties: {{ ShardCount: 1 }} }}
  Queue: {{ Type: AWS::SQS::Queue }}
  Topic: {{ Type: AWS::SNS::Topic, Properties: {{ TopicName: failed }} }}
  Bucket: {{ Type: AWS::S3::Bucket, Properties: {{ BucketName: kept }} }}
  Fn:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: x
      Events:
        E:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Stream.Arn
            {properties}
"
    );
    let mut template = parse(&text, &[])?;
    let notices = template
        .notices
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    Ok((template.mappings.remove(0), notices))
}

#[test]
fn a_mapping_starts_where_the_template_says() {
    let latest = "StartingPosition: LATEST";
    // (properties, the position or a part of the problem)
    let cases: [(&str, Result<StartingPosition, &str>); 10] = [
        ("StartingPosition: TRIM_HORIZON", Ok(StartingPosition::TrimHorizon)),
        (latest, Ok(StartingPosition::Latest)),
        // "The time from which to start reading, in Unix time seconds", with the documentation's own example:
        // https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html
        (
            "StartingPosition: AT_TIMESTAMP\n            StartingPositionTimestamp: 1541139109",
            Ok(StartingPosition::AtTimestamp(1_541_139_109_000)),
        ),
        // SAM's type is a double.
        (
            "StartingPosition: AT_TIMESTAMP\n            StartingPositionTimestamp: 1541139109.25",
            Ok(StartingPosition::AtTimestamp(1_541_139_109_250)),
        ),
        (
            "StartingPosition: AT_TIMESTAMP",
            Err("t.yaml:15: Fn/E: AT_TIMESTAMP needs a StartingPositionTimestamp"),
        ),
        (
            "StartingPosition: LATEST\n            StartingPositionTimestamp: 1",
            Err("t.yaml:16: Fn/E: StartingPositionTimestamp goes with StartingPosition: AT_TIMESTAMP only"),
        ),
        (
            "StartingPosition: AT_TIMESTAMP\n            StartingPositionTimestamp: 2018-11-02",
            Err("t.yaml:16: StartingPositionTimestamp is 2018-11-02; give a number of seconds"),
        ),
        (
            "StartingPosition: AT_TIMESTAMP\n            StartingPositionTimestamp: -1",
            Err("StartingPositionTimestamp is -1"),
        ),
        (
            "StartingPosition: AT_TIMESTAMP\n            StartingPositionTimestamp: NaN",
            Err("StartingPositionTimestamp is NaN"),
        ),
        (
            "StartingPosition: latest",
            Err("StartingPosition is latest; give TRIM_HORIZON, LATEST or AT_TIMESTAMP"),
        ),
    ];
    for (properties, expected) in cases {
        match (mapping(properties), expected) {
            (Ok((mapping, _)), Ok(position)) => assert_eq!(mapping.starting_position, position, "{properties}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{part}\nin\n{message}"),
            (found, expected) => panic!("{properties}: {found:?}, not {expected:?}"),
        }
    }
}

/// Limits of <https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-parameters.html>.
#[test]
fn a_mappings_limits_are_those_of_aws() {
    // (property, what is taken, what is refused)
    let cases: [(&str, &[&str], &[&str]); 7] = [
        ("BatchSize", &["1", "10000"], &["0", "10001", "many"]),
        ("MaximumBatchingWindowInSeconds", &["0", "300"], &["-1", "301"]),
        ("ParallelizationFactor", &["1", "10"], &["0", "11"]),
        ("MaximumRetryAttempts", &["-1", "0", "10000"], &["-2", "10001"]),
        // "Although values less than 60 and greater than -1 fall within the parameter's absolute range, they are not allowed".
        (
            "MaximumRecordAgeInSeconds",
            &["-1", "60", "604800"],
            &["-2", "0", "59", "604801"],
        ),
        ("TumblingWindowInSeconds", &["0", "1", "900"], &["-1", "901"]),
        ("BisectBatchOnFunctionError", &["true", "false"], &["sometimes"]),
    ];
    for (property, taken, refused) in cases {
        let with = |value: &str| mapping(&format!("StartingPosition: LATEST\n            {property}: {value}"));
        for value in taken {
            with(value).unwrap();
        }
        for value in refused {
            let message = with(value).unwrap_err();
            assert!(
                message.contains(&format!("t.yaml:16: {property}")),
                "{property}: {value}\n{message}"
            );
        }
    }
    let infinite = mapping(
        "StartingPosition: LATEST
            MaximumRecordAgeInSeconds: -1
            MaximumRetryAttempts: -1
            TumblingWindowInSeconds: 0",
    );
    let (infinite, _) = infinite.unwrap();
    assert_eq!(
        (
            infinite.record_age_max,
            infinite.retry_attempts_max,
            infinite.tumbling_window
        ),
        (None, None, None)
    );
    // A batch size over 10 asks for a batching window with SQS. The API reference says so of streams too, but the guide's own
    // mapping on a stream has 500 records and no window:
    // https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-create.html
    let (wide, notices) = mapping("StartingPosition: LATEST\n            BatchSize: 500").unwrap();
    assert_eq!(
        (wide.batch_size, wide.batching_window, notices.as_str()),
        (500, Duration::ZERO, "")
    );
    // One state a shard: https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html
    let (windowed, notices) = mapping(
        "StartingPosition: LATEST\n            TumblingWindowInSeconds: 60\n            ParallelizationFactor: 2",
    )
    .unwrap();
    assert_eq!(windowed.parallelization_factor, 1);
    assert!(
        notices.contains("line 11: Fn/E: with TumblingWindowInSeconds, ParallelizationFactor 2"),
        "{notices}"
    );
}

#[test]
fn a_misspelt_property_is_told_with_the_one_that_was_meant() {
    // (the property, what is told, and whether it stops the run)
    for (property, told, stops) in [
        (
            "BatchSze",
            "Fn/E: BatchSze is not a property of a Kinesis mapping; did you mean BatchSize?",
            true,
        ),
        ("MaximumRetryAttempt", "did you mean MaximumRetryAttempts?", true),
        ("ParallelisationFactor", "did you mean ParallelizationFactor?", true),
        (
            "bisectBatchOnFunctionError",
            "did you mean BisectBatchOnFunctionError?",
            true,
        ),
        (
            "DestinationConfiguration",
            "DestinationConfiguration is not known here",
            false,
        ),
        ("Queues", "Queues is not known here", false),
        ("FunctionName", "FunctionName is not known here", false),
    ] {
        let found = mapping(&format!("StartingPosition: LATEST\n            {property}: 1"));
        assert_eq!(found.is_err(), stops, "{property}");
        let (Ok((_, message)) | Err(message)) = found;
        assert!(
            message.contains("16: ") && message.contains(told),
            "{told}\nin\n{message}"
        );
    }
}

#[test]
fn a_failure_destination_is_a_queue_a_topic_a_bucket_or_a_kafka_topic() {
    let queue = "arn:aws:sqs:us-east-1:000000000000:local-Queue";
    let topic = "arn:aws:sns:us-east-1:000000000000:failed";
    let cases = [
        (
            "{ Destination: !GetAtt Queue.Arn }",
            Ok((FailureDestinationKind::Sqs, queue, "local-Queue")),
        ),
        (
            "{ Type: SQS, Destination: !GetAtt Queue.Arn }",
            Ok((FailureDestinationKind::Sqs, queue, "local-Queue")),
        ),
        (
            "{ Type: SNS, Destination: !Ref Topic }",
            Ok((FailureDestinationKind::Sns, topic, "failed")),
        ),
        (
            "{ Destination: !GetAtt Topic.TopicArn }",
            Ok((FailureDestinationKind::Sns, topic, "failed")),
        ),
        (
            "{ Destination: !GetAtt Bucket.Arn }",
            Ok((FailureDestinationKind::S3, "arn:aws:s3:::kept", "kept")),
        ),
        (
            "{ Destination: arn:aws:sqs:us-east-2:123456789012:dlq }",
            Ok((
                FailureDestinationKind::Sqs,
                "arn:aws:sqs:us-east-2:123456789012:dlq",
                "dlq",
            )),
        ),
        (
            "{ Destination: kafka://failed }",
            Ok((FailureDestinationKind::Kafka, "kafka://failed", "failed")),
        ),
        (
            "{ Destination: !Ref Bucket }",
            Err("the failure destination kept is not the ARN of a queue"),
        ),
        (
            "{ Destination: !Ref Queue }",
            Err("is not the ARN of a queue, a topic or a bucket; use !GetAtt RESOURCE.Arn"),
        ),
        ("{ Destination: !GetAtt Fn.Arn }", Err("is not the ARN of a queue")),
        // A name becomes a file's.
        ("{ Destination: 'arn:aws:s3:::..' }", Err("is not the ARN of a queue")),
        (
            "{ Destination: 'arn:aws:sqs:us-east-1:1:../x' }",
            Err("is not the ARN of a queue"),
        ),
        (
            "{ Type: S3, Destination: !GetAtt Queue.Arn }",
            Err("Type S3 but its Destination is SQS"),
        ),
        ("{ Type: S3 }", Err("OnFailure has no Destination")),
        (
            "{ Destination: !GetAtt Missing.Arn }",
            Err("Missing is not a resource of this template"),
        ),
    ];
    for (on_failure, expected) in cases {
        let found = mapping(&format!(
            "StartingPosition: LATEST\n            DestinationConfig: {{ OnFailure: {on_failure} }}"
        ));
        match (found, expected) {
            (Ok((mapping, _)), Ok((kind, arn, name))) => {
                let destination = mapping.failure_destination.unwrap();
                assert_eq!(
                    (destination.kind, destination.arn.as_str(), destination.name.as_str()),
                    (kind, arn, name)
                );
            }
            (Err(message), Err(part)) => {
                assert!(
                    message.contains("t.yaml:16: ") && message.contains(part),
                    "{part}\nin\n{message}"
                );
            }
            (found, expected) => panic!("{on_failure}: {found:?}, not {expected:?}"),
        }
    }
    assert_eq!(mapping("StartingPosition: LATEST").unwrap().0.failure_destination, None);
}

#[test]
fn filters_are_read_or_told_each_with_its_line() {
    let good = "Pattern: '{\"data\":{\"type\":[\"click\"]}}'";
    let filters = |lines: &[&str]| {
        let list: String = lines.iter().map(|line| format!("\n                - {line}")).collect();
        mapping(&format!(
            "StartingPosition: LATEST\n            FilterCriteria:\n              Filters:{list}"
        ))
    };
    let (read, notices) = filters(&[good, "Pattern: !Sub '{\"data\":{\"region\":[\"${AWS::Region}\"]}}'"]).unwrap();
    let texts: Vec<_> = read.filters.iter().flat_map(|criteria| criteria.texts()).collect();
    assert_eq!(texts[1], r#"{"data":{"region":["us-east-1"]}}"#);
    assert_eq!(notices, "");
    // (filters, told, whether it stops the run)
    for (lines, told, stops) in [
        (
            vec!["Pattern: '{\"data\"'"],
            "t.yaml:18: Fn/E: the pattern of filter 1: it is not JSON",
            true,
        ),
        (
            vec![good, "Pattern: '{\"data\":[\"x\"]}'"],
            "t.yaml:19: Fn/E: the pattern of filter 2: data is a list",
            true,
        ),
        (
            vec![good, "Patern: x"],
            "t.yaml:19: Fn/E: filter 2 has no Pattern",
            true,
        ),
        (vec![good; 11], "11 filters are too many; give at most 10", true),
        (vec![good; 10], "more than 5 filters need a raised quota", false),
        (
            vec!["Pattern: '{\"type\":[\"click\"]}'"],
            "line 18: Fn/E: a pattern names type, which no record has",
            false,
        ),
    ] {
        let found = filters(&lines);
        assert_eq!(found.is_err(), stops, "{told}");
        let (Ok((_, message)) | Err(message)) = found;
        assert!(message.contains(told), "{told}\nin\n{message}");
    }
    let not_a_list = mapping("StartingPosition: LATEST\n            FilterCriteria: { Filters: x }").unwrap_err();
    assert!(
        not_a_list.contains("FilterCriteria is a map with a list Filters"),
        "{not_a_list}"
    );
    let (empty, _) = mapping("StartingPosition: LATEST\n            FilterCriteria: {}").unwrap();
    assert_eq!(empty.filters, None);
}

/// What the deployed template says of its mappings is what runs locally.
#[test]
fn the_deployed_template_is_read_without_a_problem() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../template.yaml");
    let template = Template::read(path, &TemplateOptions::default()).unwrap();
    let notices: Vec<_> = template.notices.iter().map(ToString::to_string).collect();
    assert!(
        !notices.iter().any(|notice| notice.contains("not known here")),
        "{notices:?}"
    );
    let bucket = |mapping: &&EventSourceMapping| {
        mapping
            .failure_destination
            .as_ref()
            .is_some_and(|destination| destination.kind == FailureDestinationKind::S3)
    };
    assert!(
        template.mappings.iter().filter(bucket).count() >= 2,
        "{:?}",
        template.mappings
    );
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
