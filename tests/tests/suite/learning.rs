//! The circle of learning in the local cloud, with the real functions: an event, a decision by the slot's learner, a click on
//! what was offered, its outcome, the model, and the next decision, which knows of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use usher_aws::clients::Clients;
use usher_aws::dynamodb::DynamoDecisionTable;
use usher_aws::kinesis::KinesisStream;
use usher_local::{FunctionSource, LocalCloud, LocalCloudOptions, Template, TemplateOptions};
use usher_pipeline::ports::{RecordStream, StreamRecord};

use crate::workspace::{binaries, root};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
const JOURNEY: &str = "
journey: learning
contents: [{ id: tour }, { id: demo }]
slots: { in_app: { context: { hour: time.hour } } }
triggers:
  - { id: shown, on: page_view, choose: all, slot: in_app }
outcomes: { within: 1h, reward: { click: 1 } }
";

struct World {
    cloud: LocalCloud,
    clients: Clients,
    folder: tempfile::TempDir,
    journey_path: String,
}

impl World {
    async fn start() -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let journey_path = folder.path().join("journey.yaml").display().to_string();
        std::fs::write(&journey_path, JOURNEY).expect("it can be written");
        let template_options = TemplateOptions {
            shard_count: Some(2),
            ..TemplateOptions::default()
        };
        let template = Template::read(root().join("template.yaml"), &template_options).expect("the template is fine");
        let mut options = LocalCloudOptions::new(template);
        for function in &options.template.functions {
            let source = FunctionSource::executable(binaries().join(&function.binary));
            options.functions.insert(function.logical_id.clone(), source);
        }
        let environment = &mut options.environment;
        environment.insert("USHER_JOURNEY_PATH".to_owned(), journey_path.clone());
        let cloud = LocalCloud::start(options).await.expect("it starts");
        let endpoints = cloud.endpoints();
        World {
            clients: Clients::for_emulators(&endpoints.dynamodb_url, &endpoints.kinesis_url),
            cloud,
            folder,
            journey_path,
        }
    }

    async fn happens(&self, user: &str, id: &str, event_type: &str, content: Option<&str>) {
        let now = wall_clock();
        let event = json!({ "event_id": id, "event_type": event_type, "timestamp": now, "user_id": user, "content_id": content });
        let stream = KinesisStream::new(self.clients.kinesis.clone(), "interactions");
        let record = StreamRecord {
            partition_key: user.to_owned(),
            data: event.to_string().into_bytes(),
        };
        stream.put(&[record]).await.expect("it is put");
    }

    /// The user's decision, once there is one.
    async fn decision(&self, user: &str) -> Value {
        let table = DynamoDecisionTable::new(self.clients.dynamodb.clone(), "decisions");
        let started = Instant::now();
        loop {
            let page = table
                .pages_of_user(user)
                .next_page()
                .await
                .expect("it answers")
                .expect("a first page");
            if let Some(decision) = page.decisions.first() {
                return serde_json::from_str(&decision.trigger).expect("json");
            }
            assert!(started.elapsed() < PATIENCE, "no decision about {user}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// `usher models` with these arguments; gives its exit code and what it said.
    async fn models(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = std::process::Command::new(binaries().join("usher"));
        command
            .arg("models")
            .args(arguments)
            .args([
                "--journey",
                &self.journey_path,
                "--endpoint-url",
                &self.cloud.endpoints().dynamodb_url,
            ])
            .stdin(std::process::Stdio::null());
        let run = tokio::task::spawn_blocking(move || command.output().expect("usher runs"));
        let output = run.await.expect("it does not panic");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }
}

/// The time as events have it.
#[expect(clippy::disallowed_methods, reason = "somebody who clicks has a clock")]
fn wall_clock() -> String {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970");
    usher_domain::time::Timestamp::from_epoch_ms(since.as_millis() as i64).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_click_teaches_the_next_decision_within_seconds() {
    let world = World::start().await;
    world.happens("ann", "ann-1", "page_view", None).await;
    let first = world.decision("ann").await;
    assert_eq!(first["choice"]["fallback"], "missing", "{first}");
    assert_eq!(first["choice"]["model_version"], Value::Null);
    let offer = first["offer"].as_str().expect("text").to_owned();
    world.happens("ann", "ann-2", "click", Some(&offer)).await;

    // Others come by until somebody is decided about by a model.
    let clicked = Instant::now();
    let mut seen = BTreeMap::new();
    let version = loop {
        let user = format!("user-{}", seen.len());
        world.happens(&user, &format!("{user}-1"), "page_view", None).await;
        let decision = world.decision(&user).await;
        let version = decision["choice"]["model_version"].as_str().map(str::to_owned);
        seen.insert(user, decision);
        if let Some(version) = version {
            break version;
        }
        assert!(clicked.elapsed() < PATIENCE, "nobody learned: {seen:?}");
    };
    eprintln!(
        "a decision knew of the click after {} ms",
        clicked.elapsed().as_millis()
    );
    let (code, listed) = world.models(&["list"]).await;
    assert!(
        code == 0 && listed.contains(&version) && listed.contains("linear_thompson"),
        "{listed}"
    );
    let (code, shown) = world.models(&["show", "in_app"]).await;
    assert!(
        code == 0 && shown.contains("1 outcome of 1 content") && shown.contains("1.0000 ± 0.0000"),
        "{shown}"
    );

    // Saved, forgotten and put back.
    let (code, exported) = world.models(&["export", "in_app"]).await;
    assert_eq!(code, 0, "{exported}");
    let file = world.folder.path().join("model.json");
    std::fs::write(&file, &exported).expect("it can be written");
    let (code, said) = world.models(&["reset", "in_app"]).await;
    assert!(code == 1 && said.contains("--yes"), "{said}");
    let (code, said) = world.models(&["reset", "in_app", "--yes"]).await;
    assert!(code == 0 && said.contains("1 outcome of 1 content forgotten"), "{said}");
    let (_, shown) = world.models(&["show", "in_app"]).await;
    assert!(shown.contains("0 outcomes of 0 contents"), "{shown}");
    let (code, said) = world.models(&["import", "in_app", &file.display().to_string()]).await;
    assert!(code == 0 && said.contains(&version), "{said}");
    let (_, again) = world.models(&["export", "in_app"]).await;
    assert_eq!(again, exported);
    world.cloud.shutdown().await;
}
