//! What failed can be seen, mended and run again, as an operator does it: `usher rejected` and `usher redrive` against the
//! local cloud, and against ministack for what the local cloud has not, queues and buckets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use usher_aws::clients::Clients;
use usher_aws::dynamodb::DynamoProfileTable;
use usher_aws::kinesis::KinesisStream;
use usher_domain::journey::Journey;
use usher_domain::time::Timestamp;
use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, Template, TemplateOptions};
use usher_pipeline::ports::{PutOutcome, RecordStream, StreamRecord};
use usher_wire::reject::{RejectReason, RejectedRecord};
use usher_wire::{profile_json, profile_state};

use crate::workspace::{binaries, root};

const MINISTACK_URL: &str = "USHER_TEST_MINISTACK_URL";
/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// Counts only, so that the order of the events and the hour of the day don't matter.
const JOURNEY: &str = "
journey: redriven
dedupe: { last: 4 }
steps: [{ id: joined, on: sign_up }]
features:
  n_click: { count: click }
  last_content: { last: content_id, on: click }
";

/// Runs `usher`; gives its exit code and what it said.
async fn usher(arguments: Vec<String>) -> (i32, String) {
    let run = tokio::task::spawn_blocking(move || {
        Command::new(binaries().join("usher"))
            .args(&arguments)
            .current_dir(root())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("usher runs")
    });
    let output = run.await.expect("it does not panic");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn event(user: &str, id: &str, event_type: &str, second: u32) -> Vec<u8> {
    let at = format!("2024-03-05T10:00:{second:02}.000Z");
    let content = format!("content-{id}");
    json!({ "event_id": id, "event_type": event_type, "timestamp": at, "user_id": user, "content_id": content })
        .to_string()
        .into_bytes()
}

/// A local cloud with the deployed template and the real functions.
struct World {
    cloud: LocalCloud,
    clients: Clients,
    folder: TempDir,
    journey: Journey,
}

impl World {
    async fn start() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let journey_path = folder.path().join("journey.yaml");
        std::fs::write(&journey_path, JOURNEY).expect("it can be written");
        // A batch is to be given up soon.
        let template = std::fs::read_to_string(root().join("template.yaml")).expect("the template");
        let template = template.replace("MaximumRetryAttempts: 20", "MaximumRetryAttempts: 1");
        let template_path = folder.path().join("template.yaml");
        std::fs::write(&template_path, template).expect("it can be written");
        let template_options = TemplateOptions {
            shard_count: Some(2),
            // A table is deleted below.
            parameters: [("DeletionProtection".to_owned(), "false".to_owned())].into(),
            ..TemplateOptions::default()
        };
        let template = Template::read(&template_path, &template_options).expect("the template is fine");
        let mut options = LocalCloudOptions::new(template);
        for function in &options.template.functions {
            let source = FunctionSource::executable(binaries().join(&function.binary));
            options.functions.insert(function.logical_id.clone(), source);
        }
        let journey_path = journey_path.display().to_string();
        options
            .environment
            .insert("USHER_JOURNEY_PATH".to_owned(), journey_path);
        options.failed_batches = Some(folder.path().join("failed"));
        options.retry_backoff_initial = Duration::from_millis(1);
        options.retry_backoff_max = Duration::from_millis(10);
        let cloud = LocalCloud::start(options).await.expect("it starts");
        let endpoints = cloud.endpoints();
        let clients = Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url);
        World {
            cloud,
            clients,
            folder,
            journey: Journey::parse(JOURNEY).expect("it is fine"),
        }
    }

    async fn usher(&self, command: &str) -> (i32, String) {
        let endpoints = self.cloud.endpoints();
        let mut arguments: Vec<String> = command.split(' ').map(str::to_owned).collect();
        arguments.extend(["--endpoint-url".to_owned(), endpoints.kinesis_url.clone()]);
        if arguments[0] == "redrive" {
            arguments.extend(["--dynamodb-endpoint-url".to_owned(), endpoints.dynamodb_url.clone()]);
        }
        usher(arguments).await
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn put(&self, stream: &str, records: &[(&str, Vec<u8>)]) {
        put(&self.clients, stream, records).await;
    }

    /// The profiles, once they have applied so many events in all.
    async fn profiles(&self, applied: u64) -> BTreeMap<String, Value> {
        let started = Instant::now();
        loop {
            let profiles = self.profiles_now().await;
            let found: u64 = profiles
                .values()
                .filter_map(|profile| profile["applied_events"].as_u64())
                .sum();
            if found == applied {
                return profiles;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{found} applied instead of {applied}: {profiles:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn profiles_now(&self) -> BTreeMap<String, Value> {
        let table = DynamoProfileTable::new(self.clients.dynamodb.clone(), "profiles");
        let mut pages = table.scan_pages();
        let mut profiles = BTreeMap::new();
        while let Some(page) = pages.next_page().await.expect("the table answers") {
            for item in page.items {
                let profile = profile_state::decode(&item.state, item.version, &item.user_id, &self.journey);
                let profile = profile.expect("it was written by this version");
                let json = profile_json::to_json(&item.user_id, &profile, &self.journey, Timestamp::MAX);
                profiles.insert(item.user_id, serde_json::from_str(&json).expect("json"));
            }
        }
        profiles
    }

    /// The same events through `usher replay`, to which nothing happens.
    async fn replayed(&self, events: &[Vec<u8>]) -> BTreeMap<String, Value> {
        let (events_path, profiles_path) = (self.path("all.jsonl"), self.path("replayed.jsonl"));
        std::fs::write(&events_path, events.join(&b'\n')).expect("it can be written");
        let arguments = [
            "replay",
            "--journey",
            &self.path("journey.yaml"),
            "--events",
            &events_path,
            "--profiles",
        ];
        let mut arguments: Vec<String> = arguments.iter().map(|part| (*part).to_owned()).collect();
        arguments.push(profiles_path.clone());
        let (code, said) = usher(arguments).await;
        assert_eq!(code, 0, "{said}");
        let text = std::fs::read_to_string(profiles_path).expect("it was written");
        let profiles = text.lines().map(|line| {
            let profile: Value = serde_json::from_str(line).expect("json");
            (profile["user_id"].as_str().expect("text").to_owned(), profile)
        });
        profiles.collect()
    }

    async fn wait_until(&self, what: &str, is_so: impl Fn(&usher_local::MappingProgress) -> bool) {
        let started = Instant::now();
        loop {
            let progress = self.cloud.progress();
            let writer = progress
                .mappings
                .iter()
                .find(|mapping| mapping.stream == "interactions");
            let writer = writer.expect("profile-writer reads interactions");
            if is_so(writer) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {writer:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn put(clients: &Clients, stream: &str, records: &[(&str, Vec<u8>)]) -> Vec<(String, String)> {
    let stream = KinesisStream::new(clients.kinesis.clone(), stream);
    let mut places = Vec::new();
    for (key, data) in records {
        let record = StreamRecord {
            partition_key: (*key).to_owned(),
            data: data.clone(),
        };
        match stream.put(&[record]).await.expect("it answers").remove(0) {
            PutOutcome::Stored {
                shard_id,
                sequence_number,
            } => places.push((shard_id, sequence_number)),
            failed => panic!("{failed:?}"),
        }
    }
    places
}

async fn create_stream(clients: &Clients, name: &str) {
    let create = clients.kinesis.create_stream().stream_name(name).shard_count(1);
    create.send().await.expect("the stream can be created");
    let started = Instant::now();
    loop {
        let described = clients.kinesis.describe_stream_summary().stream_name(name).send().await;
        let described = described.expect("it is there");
        let status = described
            .stream_description_summary()
            .map(|summary| summary.stream_status().as_str().to_owned());
        if status.as_deref() == Some("ACTIVE") {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the stream {name} does not become active");
        tokio::time::sleep(POLL).await;
    }
}

async fn create_profiles(clients: &Clients, name: &str) {
    let definition = AttributeDefinition::builder()
        .attribute_name("user_id")
        .attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder()
        .attribute_name("user_id")
        .key_type(KeyType::Hash);
    let request = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(definition.build().expect("it has a name and a type"))
        .key_schema(key.build().expect("it has a name and a type"));
    request.send().await.expect("the table can be created");
}

/// AWS's record of a given-up batch, from the documentation's example:
/// <https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>.
fn failure_record(stream: &str, shard_id: &str, start: &str, end: &str, batch_size: usize) -> Value {
    json!({
        "requestContext": {
            "requestId": "c9b8fa9f-5a7f-xmpl-af9c-0c604cde93a5",
            "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:profile-writer",
            "condition": "RetryAttemptsExhausted",
            "approximateInvokeCount": 21
        },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "version": "1.0",
        "timestamp": "2024-03-05T10:10:00.000Z",
        "KinesisBatchInfo": {
            "shardId": shard_id,
            "startSequenceNumber": start,
            "endSequenceNumber": end,
            "approximateArrivalOfFirstRecord": "2024-03-05T10:00:00.000Z",
            "approximateArrivalOfLastRecord": "2024-03-05T10:00:09.000Z",
            "batchSize": batch_size,
            "streamArn": format!("arn:aws:kinesis:us-east-1:000000000000:stream/{stream}")
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_rejected_records_are_seen_and_sent_again() {
    let world = World::start().await;
    let compressed = br#"{"event_id":"9","event_type":"click"}"#.to_vec();
    world
        .put(
            "interactions",
            &[
                ("ann", event("ann", "1", "sign_up", 1)),
                ("k", b"not json".to_vec()),
                ("k", b"\xff\xfe".to_vec()),
                ("ann", event("ann", "", "click", 2)),
                ("k", compressed),
            ],
        )
        .await;
    world
        .wait_until("all are done with", |writer| writer.records_completed == 5)
        .await;

    let (code, listed) = world.usher("rejected list --newest 1").await;
    assert_eq!(code, 0, "{listed}");
    for part in [
        "4 rejected records on rejected",
        "not_json               1",
        "missing_field          2",
        "the newest 1\n",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let (code, shown) = world.usher("rejected show --reason not_utf8").await;
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("2 bytes, not UTF-8, in hexadecimal\nff fe\n"), "{shown}");
    let place = shown.lines().next().expect("a place").to_owned();
    let (code, raw) = world.usher(&format!("rejected show {place} --raw")).await;
    assert_eq!((code, raw.as_str()), (0, "\u{fffd}\u{fffd}"));
    let (code, of_ann) = world.usher("rejected show --user ann").await;
    assert_eq!(code, 0, "{of_ann}");
    assert!(
        of_ann.contains("missing_field") && !of_ann.contains("not_json"),
        "{of_ann}"
    );
    let (code, nothing) = world.usher("rejected show shardId-000000000000:1").await;
    assert_eq!(code, 1, "{nothing}");

    // What was wrong is mended: for a test, the records are of a stream that this version can't use, and they are sent to
    // one where they can be looked at.
    create_stream(&world.clients, "mended").await;
    let (code, dry) = world
        .usher("rejected resend --reason not_json --to mended --dry-run")
        .await;
    assert_eq!(code, 0, "{dry}");
    assert!(dry.contains("1 record would go to mended"), "{dry}");
    assert_eq!(world.cloud.read_all("mended").await.expect("it is there").len(), 0);
    let (code, sent) = world.usher("rejected resend --to mended").await;
    assert_eq!(code, 0, "{sent}");
    let mended = world.cloud.read_all("mended").await.expect("it is there");
    let mut bytes: Vec<Vec<u8>> = mended.iter().map(|record| record.data.to_vec()).collect();
    bytes.sort();
    let mut expected = vec![
        b"not json".to_vec(),
        b"\xff\xfe".to_vec(),
        event("ann", "", "click", 2),
        br#"{"event_id":"9","event_type":"click"}"#.to_vec(),
    ];
    expected.sort();
    assert_eq!(bytes, expected);

    // What an older version could not read, and this one can, is applied once it is sent again.
    let mended_event = event("bob", "b1", "sign_up", 3);
    let rejected = RejectedRecord {
        reason: RejectReason::UnknownSchemaVersion,
        field: "schema_version".into(),
        detail: "an older version did not know it".into(),
        stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/interactions".into(),
        shard_id: "shardId-000000000000".into(),
        sequence_number: "1".into(),
        partition_key: "bob".into(),
        arrived_at: "2024-03-05T10:00:04.000Z".to_owned(),
        parked: false,
        user: None,
        data: base64_simd::STANDARD.encode_to_string(&mended_event).into(),
        encoding: None,
        data_cut_at: None,
    };
    let key = rejected.stream_key().to_owned();
    world.put("rejected", &[(&key, rejected.to_json())]).await;
    for _ in 0..2 {
        let (code, sent) = world.usher("rejected resend --reason unknown_schema_version").await;
        assert_eq!(code, 0, "{sent}");
        assert!(sent.contains("1 record put on"), "{sent}");
        assert_eq!(world.profiles(2).await["bob"]["applied_events"], 1, "P2");
    }
    world
        .wait_until("both are done with", |writer| writer.records_completed == 7)
        .await;
    assert_eq!(world.profiles_now().await["bob"]["applied_events"], 1, "P2: once");

    // To the stream that they came from: rejected again, at a new place.
    let (code, sent) = world.usher("rejected resend --reason not_json").await;
    assert_eq!(code, 0, "{sent}");
    world
        .wait_until("it came again", |writer| writer.records_completed == 8)
        .await;
    let (_, listed) = world.usher("rejected list").await;
    let counts: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    assert!(counts.contains(&vec!["not_json", "2"]), "{listed}");
    let (_, dry) = world.usher("rejected resend --reason not_json --dry-run").await;
    assert!(
        dry.contains("1 record left out: the same partition key and bytes"),
        "{dry}"
    );
    world.cloud.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_given_up_batch_is_redriven_once_and_the_profiles_are_as_if_nothing_had_failed() {
    let world = World::start().await;
    // Somebody deleted the table: what arrives fails as often as it may and is given up.
    world
        .clients
        .dynamodb
        .delete_table()
        .table_name("profiles")
        .send()
        .await
        .expect("it is there");
    let lost: Vec<(&str, Vec<u8>)> = vec![
        ("ann", event("ann", "a1", "sign_up", 1)),
        ("bob", event("bob", "b1", "sign_up", 2)),
        ("ann", event("ann", "a2", "click", 3)),
        ("bob", event("bob", "b2", "click", 4)),
        ("ann", event("ann", "a3", "click", 5)),
    ];
    world.put("interactions", &lost).await;
    world
        .wait_until("all are given up", |writer| writer.records_dropped == 5)
        .await;
    create_profiles(&world.clients, "profiles").await;
    // The shards go on, so the guards of the profiles are beyond the gap.
    let later = vec![
        ("ann", event("ann", "a4", "click", 6)),
        ("bob", event("bob", "b3", "click", 7)),
    ];
    world.put("interactions", &later).await;
    world.profiles(2).await;

    let failed = world.path("failed");
    let (code, dry) = world.usher(&format!("redrive {failed} --dry-run")).await;
    assert_eq!(code, 0, "{dry}");
    assert!(
        dry.contains("not applied  5 events") && dry.contains("nothing was put"),
        "{dry}"
    );

    // Without the records, as a queue gets it, they are fetched from the stream.
    let queue_form = world.path("as-a-queue-gets-it.jsonl");
    let mut text = String::new();
    for file in files_in(Path::new(&failed)) {
        let mut record: Value = serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("json");
        assert!(
            record.as_object_mut().expect("an object").remove("payload").is_some(),
            "a bucket gets the records"
        );
        text.push_str(&format!("{record}\n"));
    }
    std::fs::write(&queue_form, text).expect("it can be written");
    let (code, dry) = world.usher(&format!("redrive {queue_form} --dry-run")).await;
    assert_eq!(code, 0, "{dry}");
    assert!(
        dry.contains("with 5 records") && dry.contains("not applied  5 events"),
        "{dry}"
    );

    let (code, done) = world.usher(&format!("redrive {failed}")).await;
    assert_eq!(code, 0, "{done}");
    assert!(done.contains("5 records put on"), "{done}");
    let redriven = world.profiles(7).await;
    let all: Vec<Vec<u8>> = lost.iter().chain(&later).map(|(_, data)| data.clone()).collect();
    assert_eq!(redriven, world.replayed(&all).await);

    // Repeated, from either form, it changes nothing: bob's ids are all remembered. Ann's first is forgotten by now
    // (`dedupe: { last: 4 }` remembers a4, a1, a2, a3), so hers are too.
    for source in [&failed, &queue_form] {
        let (code, again) = world.usher(&format!("redrive {source}")).await;
        assert_eq!(code, 0, "{again}");
        assert!(
            again.contains("already applied  5 events") && again.contains("nothing to put"),
            "{again}"
        );
    }
    assert_eq!(world.profiles_now().await, redriven);

    // Once ann did more, her window has rolled over: that is asked, and without a terminal nothing is put.
    world
        .put(
            "interactions",
            &[
                ("ann", event("ann", "a5", "click", 8)),
                ("ann", event("ann", "a6", "click", 9)),
            ],
        )
        .await;
    world.profiles(9).await;
    let (code, refused) = world.usher(&format!("redrive {failed}")).await;
    assert_eq!(code, 1, "{refused}");
    for part in ["ann  1 event", "--yes", "--skip-uncertain", "nothing was put"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert!(!refused.contains("bob"), "{refused}");
    let (code, skipped) = world.usher(&format!("redrive {failed} --skip-uncertain")).await;
    assert_eq!(code, 1, "an event was left out: {skipped}");
    assert!(skipped.contains("nothing to put"), "{skipped}");
    let (code, put) = world.usher(&format!("redrive {failed} --yes")).await;
    assert_eq!(code, 0, "{put}");
    world.profiles(10).await;
    world.cloud.shutdown().await;
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'))
        {
            continue;
        }
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_what_is_past_retention_is_told_and_the_rest_is_redriven() {
    let world = World::start().await;
    // A stream that nobody reads has a batch of four, of which the first two are past retention.
    create_stream(&world.clients, "old").await;
    let left = [
        ("ann", event("ann", "3", "click", 3)),
        ("ann", event("ann", "4", "click", 4)),
    ];
    let places = put(&world.clients, "old", &left).await;
    let (shard_id, end) = (&places[0].0, &places[1].1);
    let record = failure_record("old", shard_id, "1", end, 4);
    let gone = failure_record("old", "shardId-000000000099", "1", "9", 7);
    let file = world.path("partly.jsonl");
    std::fs::write(&file, format!("{record}\n{gone}\n")).expect("it can be written");
    let (code, told) = world.usher(&format!("redrive {file} --stream interactions")).await;
    assert_eq!(code, 1, "something is lost: {told}");
    let stream_arn = "arn:aws:kinesis:us-east-1:000000000000:stream/old";
    for part in [
        "2 failed batches with 2 records".to_owned(),
        "past retention: 9 records".to_owned(),
        format!(
            "at least 2 of the 4 records of {stream_arn} {shard_id} from 1 before {}",
            places[0].1
        ),
        format!("7 of the 7 records of {stream_arn} shardId-000000000099 from 1 to 9"),
        "2 records put on interactions".to_owned(),
    ] {
        assert!(told.contains(&part), "{part}: {told}");
    }
    assert_eq!(world.profiles(2).await["ann"]["features"]["n_click"], 2);
    world.cloud.shutdown().await;
}

/// A plain HTTP call, for what Usher itself never does: making queues and buckets, and filling them.
fn http(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let address = url
        .strip_prefix("http://")
        .expect("an address on this machine")
        .trim_end_matches('/');
    let mut connection = TcpStream::connect(address).expect("it listens");
    // The emulator tells services apart by the scope of the signature, and checks no more of it.
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    connection.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("it answers");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    answer
}

fn scope(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=local/20240305/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

fn sqs(url: &str, operation: &str, request: &Value) -> String {
    let (target, authorization) = (format!("AmazonSQS.{operation}"), scope("sqs"));
    let headers = [
        ("Content-Type", "application/x-amz-json-1.0"),
        ("X-Amz-Target", target.as_str()),
        ("Authorization", authorization.as_str()),
    ];
    http(url, "POST", "/", &headers, &request.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of this test, read where it is used"
)]
async fn queues_and_buckets_are_redriven_over_ministack() {
    let Ok(url) = std::env::var(MINISTACK_URL) else {
        eprintln!("skipped: {MINISTACK_URL} is not set; start ministack and set it to http://127.0.0.1:PORT");
        return;
    };
    let run = format!("{:x}", fastrand::u64(..));
    let name = |what: &str| format!("{what}-{run}");
    let clients = Clients::for_emulators(&url, &url);
    create_profiles(&clients, &name("profiles")).await;
    for stream in ["lost", "target"] {
        create_stream(&clients, &name(stream)).await;
    }
    let lost = [
        ("ann", event("ann", "1", "click", 1)),
        ("ann", event("ann", "2", "click", 2)),
    ];
    let places = put(&clients, &name("lost"), &lost).await;
    let record = failure_record(&name("lost"), &places[0].0, &places[0].1, &places[1].1, 2);

    // The queue has where the records are.
    let created = sqs(&url, "CreateQueue", &json!({ "QueueName": name("failed") }));
    let queue: Value =
        serde_json::from_str(&created[created.find('{').expect("JSON")..=created.rfind('}').expect("JSON")])
            .expect("JSON");
    let queue = queue["QueueUrl"].as_str().expect("a URL").to_owned();
    sqs(
        &url,
        "SendMessage",
        &json!({ "QueueUrl": queue, "MessageBody": record.to_string() }),
    );
    let redrive = |more: &[&str]| {
        let (table, target) = (name("profiles"), name("target"));
        let mut arguments = vec![
            "redrive",
            "--endpoint-url",
            &url,
            "--table",
            &table,
            "--stream",
            &target,
        ];
        arguments.extend(more);
        usher(arguments.into_iter().map(str::to_owned).collect())
    };
    let (code, dry) = redrive(&["--queue", &queue, "--dry-run"]).await;
    assert_eq!(code, 0, "{dry}");
    assert!(dry.contains("2 records would go to"), "{dry}");
    let (code, done) = redrive(&["--queue", &queue, "--delete"]).await;
    assert_eq!(code, 0, "the message was released by the dry run: {done}");
    assert!(
        done.contains("2 records put on") && done.contains("1 failure record deleted"),
        "{done}"
    );
    let (code, empty) = redrive(&["--queue", &queue]).await;
    assert_eq!(code, 0, "{empty}");
    assert!(empty.contains("no record of a failed batch"), "{empty}");

    // The bucket has the records too; a second object is no failure record.
    let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/{}", name("lost"));
    let entries: Vec<Value> = lost
        .iter()
        .zip(&places)
        .map(|((key, data), (shard_id, number))| {
            let data = base64_simd::STANDARD.encode_to_string(data);
            json!({
                "kinesis": {
                    "kinesisSchemaVersion": "1.0", "partitionKey": key, "sequenceNumber": number, "data": data,
                    "approximateArrivalTimestamp": 1709632800.5
                },
                "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record",
                "eventID": format!("{shard_id}:{number}"), "awsRegion": "us-east-1", "eventSourceARN": arn
            })
        })
        .collect();
    let mut with_records = record.clone();
    with_records["payload"] = Value::from(json!({ "Records": entries }).to_string());
    let bucket = name("failed");
    let s3 = scope("s3");
    let put_object = |path: &str, body: &str| http(&url, "PUT", path, &[("Authorization", s3.as_str())], body);
    put_object(&format!("/{bucket}"), "");
    let object = format!("/{bucket}/aws/lambda/u%2Bv/shardId-000000000000/2024/03/05/x%20y");
    put_object(&object, &with_records.to_string());
    put_object(&format!("/{bucket}/notes.txt"), "hello");
    let (code, done) = redrive(&["--bucket", &format!("s3://{bucket}/aws/lambda/"), "--delete"]).await;
    assert_eq!(code, 0, "{done}");
    assert!(
        done.contains("2 records put on") && done.contains("1 failure record deleted"),
        "{done}"
    );
    let (code, wrong) = redrive(&["--bucket", &format!("s3://{bucket}")]).await;
    assert_eq!(code, 1, "{wrong}");
    assert!(wrong.contains("cannot use") && wrong.contains("notes.txt"), "{wrong}");
    let (code, missing) = redrive(&["--bucket", &format!("s3://{}", name("nobody"))]).await;
    assert_eq!(code, 1, "{missing}");
    assert!(missing.contains("NoSuchBucket"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_parked_users_events_are_applied_in_order_once_the_profile_is_mended() {
    let world = World::start().await;
    let before = event("ann", "1", "sign_up", 1);
    world.put("interactions", &[("ann", before.clone())]).await;
    world.profiles(1).await;
    let table = &world.clients.dynamodb;
    let key = || AttributeValue::S("ann".to_owned());
    let stored = table
        .get_item()
        .table_name("profiles")
        .key("user_id", key())
        .send()
        .await
        .expect("it answers");
    let whole = stored.item.expect("it is there").remove("state").expect("it has one");
    // Another version too, or the container would write its cached profile over it.
    let set = async |state: AttributeValue| {
        let update = table.update_item().table_name("profiles").key("user_id", key());
        let update = update
            .update_expression("SET #state = :state, version = version + :one")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", state)
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
        update.send().await.expect("it can be written");
    };
    set(AttributeValue::B(b"damaged".to_vec().into())).await;
    let events = [event("ann", "2", "click", 2), event("ann", "3", "click", 3)];
    let bob = event("bob", "4", "click", 4);
    world
        .put(
            "interactions",
            &[
                ("ann", events[0].clone()),
                ("bob", bob.clone()),
                ("ann", events[1].clone()),
            ],
        )
        .await;
    world
        .wait_until("ann is parked and bob goes on", |writer| writer.records_completed == 4)
        .await;

    let (code, listed) = world.usher("rejected list").await;
    assert_eq!(code, 0, "{listed}");
    assert!(listed.contains("2 records of parked users"), "{listed}");
    let (code, resent) = world.usher("rejected resend").await;
    assert_eq!(code, 0, "{resent}");
    assert!(
        resent.contains("usher redrive --user ann  (2 records)") && resent.contains("nothing to send"),
        "{resent}"
    );

    let journey = world.path("journey.yaml");
    let redrive = format!("redrive --user ann --journey {journey}");
    for more in [" --dry-run", ""] {
        let (code, refused) = world.usher(&format!("{redrive}{more}")).await;
        assert_eq!(code, 1, "{refused}");
        assert!(refused.contains("can't be read"), "{refused}");
    }
    set(whole).await;
    let (code, dry) = world.usher(&format!("{redrive} --dry-run")).await;
    assert_eq!(code, 0, "{dry}");
    assert!(
        dry.contains("2 parked records on rejected") && dry.contains("parked since"),
        "{dry}"
    );
    let (code, done) = world.usher(&redrive).await;
    assert_eq!(code, 0, "{done}");
    assert!(
        done.contains("applied") && done.contains("ann is not parked any more"),
        "{done}"
    );
    let profiles = world.profiles(4).await;
    let all = [vec![before, bob], events.to_vec()].concat();
    assert_eq!(profiles, world.replayed(&all).await);
    let (code, again) = world.usher(&redrive).await;
    assert_eq!(code, 0, "{again}");
    assert_eq!(world.profiles_now().await, profiles);
    let (code, nobody) = world.usher(&format!("redrive --user nobody --journey {journey}")).await;
    assert_eq!(code, 0, "{nobody}");
    assert!(nobody.contains("no parked records on rejected"), "{nobody}");
    world.cloud.shutdown().await;
}
