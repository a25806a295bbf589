//! The Big List of Naughty Strings, as everything that an event names: each survives the way into DynamoDB and back byte for
//! byte after what normalising is stated to do, or is rejected with a reason.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use serde_json::json;
use usher_aws::clients::Clients;
use usher_aws::dynamodb::DynamoProfileTable;
use usher_aws::kinesis::KinesisStream;
use usher_domain::condition::{Condition, Names, Scope};
use usher_domain::journey::Journey;
use usher_domain::limits::{EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, IDENTIFIER_BYTES_MAX, STORED_TEXT_BYTES_MAX};
use usher_domain::profile::Profile;
use usher_domain::snapshots::Snapshots;
use usher_domain::value::Value;
use usher_local::dynamodb::{DynamoDb, DynamoDbOptions};
use usher_local::kinesis::{Kinesis, KinesisOptions};
use usher_pipeline::memory::PARTITION_KEY_CHARS_MAX;
use usher_pipeline::ports::{GET_USERS_MAX, ProfileTable, PutOutcome, RecordStream, StreamRecord};
use usher_wire::profile_state;

use super::{World, arrived_at, data};

const TABLE: &str = "profiles";
const STREAM: &str = "interactions";
/// Records of one batch.
const BATCH_RECORDS: usize = 1000;

/// Each field that a naughty string can be in, as the feature or trait that keeps it.
const JOURNEY: &str = r#"
journey: naughty
features:
  event_id: { last: id, on: any }
  event_type: { last: type, on: any }
  content_id: { last: content_id, on: any }
  session_id: { last: session_id, on: any }
  category: { last: category, on: any }
  property: { last: properties.p, on: any }
contents: [{ id: c }]
triggers:
  - { id: reads_the_trait, on: never, when: traits.t == "x", offer: c, slot: s }
"#;

fn naughty_strings() -> Vec<String> {
    let text = std::fs::read(data("blns.json")).expect("it is in the repository");
    let strings: Vec<String> = serde_json::from_slice(&text).expect("a JSON list");
    assert_eq!(strings.len(), 485);
    strings
}

/// Where a string stands in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    UserId,
    AnonymousId,
    EventId,
    EventType,
    ContentId,
    SessionId,
    Category,
    Property,
    Trait,
}

/// What is to become of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is found in the profile of the user `user`, as this.
    Kept { user: String, text: String },
    /// The event counts, but this is left out: it is empty, or longer than a profile stores.
    LeftOut { user: String },
    /// The event is on `rejected`.
    Rejected { reason: &'static str, field: &'static str },
}

impl Place {
    const ALL: [Place; 9] = [
        Place::UserId,
        Place::AnonymousId,
        Place::EventId,
        Place::EventType,
        Place::ContentId,
        Place::SessionId,
        Place::Category,
        Place::Property,
        Place::Trait,
    ];

    fn member(self) -> &'static str {
        match self {
            Place::UserId => "user_id",
            Place::AnonymousId => "anonymous_id",
            Place::EventId => "event_id",
            Place::EventType => "event_type",
            Place::ContentId => "content_id",
            Place::SessionId => "session_id",
            Place::Category => "category",
            Place::Property => "properties",
            Place::Trait => "traits",
        }
    }

    /// The event, of the user with this name unless the string is its user.
    fn record(self, user: &str, naughty: &str) -> Vec<u8> {
        let mut event = json!({
            "event_id": user,
            "event_type": "click",
            "timestamp": "2026-01-05T09:59:00Z",
            "user_id": user,
        });
        event[self.member()] = match self {
            Place::Property => json!({ "p": naughty }),
            Place::Trait => json!({ "t": naughty }),
            _ => json!(naughty),
        };
        if self == Place::AnonymousId {
            event["user_id"] = json!(null);
        }
        event.to_string().into_bytes()
    }

    /// What DESIGN.md and the limits say of it.
    fn fate(self, user: &str, naughty: &str) -> Fate {
        let trimmed = naughty.trim();
        let (bytes_max, is_required) = match self {
            Place::Property | Place::Trait if naughty.len() > STORED_TEXT_BYTES_MAX => {
                return Fate::LeftOut { user: user.to_owned() };
            }
            // Values are nobody's names: they stay as they are.
            Place::Property | Place::Trait => {
                return Fate::Kept {
                    user: user.to_owned(),
                    text: naughty.to_owned(),
                };
            }
            Place::EventId => (EVENT_ID_BYTES_MAX, true),
            Place::EventType => (EVENT_TYPE_BYTES_MAX, true),
            Place::UserId => (IDENTIFIER_BYTES_MAX, true),
            Place::AnonymousId => (IDENTIFIER_BYTES_MAX - "anonymous:".len(), true),
            Place::ContentId | Place::SessionId | Place::Category => (IDENTIFIER_BYTES_MAX, false),
        };
        if trimmed.is_empty() && !is_required {
            return Fate::LeftOut { user: user.to_owned() };
        }
        let refused = |reason| Fate::Rejected {
            reason,
            field: match self {
                // Either of them would do, so it is the first that is missed.
                Place::AnonymousId if trimmed.is_empty() => "user_id",
                _ => self.member(),
            },
        };
        if trimmed.is_empty() {
            return refused("missing_field");
        }
        if trimmed.len() > bytes_max {
            return refused("too_long");
        }
        let (user, text) = match self {
            Place::UserId => (trimmed.to_owned(), trimmed.to_owned()),
            Place::AnonymousId => (format!("anonymous:{trimmed}"), trimmed.to_owned()),
            Place::EventType => (user.to_owned(), trimmed.to_lowercase()),
            _ => (user.to_owned(), trimmed.to_owned()),
        };
        Fate::Kept { user, text }
    }

    /// What the profile has of it.
    fn found(self, profile: &Profile, journey: &Journey) -> Option<String> {
        let value = match self {
            // Their profile is the one that was found under their name.
            Place::UserId | Place::AnonymousId => return None,
            Place::Trait => Value::from(&profile.traits[0].as_ref()?.value),
            _ => {
                let name = if self == Place::Property {
                    "property"
                } else {
                    self.member()
                };
                let index = journey.features.iter().position(|feature| feature.name == name)?;
                profile.feature(journey, index, arrived_at())
            }
        };
        match value {
            Value::Text(text) => Some(text.into_owned()),
            _ => None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_each_string_comes_back_from_dynamodb_or_is_rejected_with_a_reason() {
    let dynamodb = DynamoDb::start(DynamoDbOptions::default()).await.expect("a free port");
    let clients = Clients::for_emulators(dynamodb.url(), dynamodb.url());
    create_profiles_table(&clients).await;
    let table = DynamoProfileTable::new(clients.dynamodb.clone(), TABLE.to_owned());
    let strings = naughty_strings();

    let mut cases = Vec::new();
    for place in Place::ALL {
        for (index, naughty) in strings.iter().enumerate() {
            cases.push((place, format!("{}-{index}", place as u8), naughty.as_str()));
        }
    }
    // With a parallelisation factor, the partition key is a part of what a profile stores.
    let mut world = World::over(table.clone(), JOURNEY, 2);
    for batch in cases.chunks(BATCH_RECORDS) {
        let records = batch
            .iter()
            .map(|(place, user, naughty)| (*naughty, place.record(user, naughty)));
        world.deliver(records).await;
    }

    let mut rejected = world.rejected().into_iter();
    let mut users: BTreeMap<String, Vec<(Place, Option<String>)>> = BTreeMap::new();
    let (mut kept, mut left_out, mut refused) = (0, 0, 0);
    for (place, user, naughty) in &cases {
        match place.fate(user, naughty) {
            Fate::Kept { user, text } => {
                kept += 1;
                users.entry(user).or_default().push((*place, Some(text)));
            }
            Fate::LeftOut { user } => {
                left_out += 1;
                users.entry(user).or_default().push((*place, None));
            }
            Fate::Rejected { reason, field } => {
                refused += 1;
                let found = rejected.next().expect("one more on the stream");
                assert_eq!(
                    (found.reason.as_str(), found.field.as_str()),
                    (reason, field),
                    "{naughty:?}"
                );
                assert_eq!(found.data, place.record(user, naughty));
                assert_eq!(found.partition_key, *naughty);
            }
        }
    }
    assert!(rejected.next().is_none(), "nothing else was rejected");
    println!(
        "{kept} kept, {left_out} left out, {refused} rejected, {} profiles",
        users.len()
    );
    assert!(kept > cases.len() * 9 / 10, "{kept} of {}", cases.len());

    let names: Vec<&str> = users.keys().map(String::as_str).collect();
    let mut items = BTreeMap::new();
    for names in names.chunks(GET_USERS_MAX) {
        let answer = table.get(names).await.expect("it answers");
        assert!(answer.unprocessed.is_empty() && answer.unreadable.is_empty());
        items.extend(answer.items.into_iter().map(|item| (item.user_id.clone(), item)));
    }
    for (user, expected) in &users {
        let item = items.get(user).unwrap_or_else(|| panic!("{user:?} has a profile"));
        let profile = profile_state::decode(&item.state, item.version, user, &world.journey).expect("a profile");
        assert_eq!(profile.applied_events as usize, expected.len(), "{user:?}");
        for (place, text) in expected {
            if !matches!(place, Place::UserId | Place::AnonymousId) {
                assert_eq!(place.found(&profile, &world.journey), *text, "{place:?} of {user:?}");
            }
        }
    }
    dynamodb.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_each_string_is_a_partition_key_that_kinesis_gives_back() {
    let options = KinesisOptions {
        region: "us-east-1".to_owned(),
        shards: 1,
        ..KinesisOptions::default()
    };
    let kinesis = Kinesis::start(options).await.expect("a free port");
    let clients = Clients::for_emulators(kinesis.url(), kinesis.url());
    let sdk = &clients.kinesis;
    sdk.create_stream()
        .stream_name(STREAM)
        .shard_count(1)
        .send()
        .await
        .expect("a stream");
    let keys: Vec<String> = naughty_strings()
        .into_iter()
        // Kinesis counts characters, the embedded one bytes.
        .filter(|key| (1..=PARTITION_KEY_CHARS_MAX).contains(&key.len()))
        .collect();
    let records: Vec<StreamRecord> = keys
        .iter()
        .map(|key| StreamRecord {
            partition_key: key.clone(),
            data: vec![b'x'],
        })
        .collect();
    let stream = KinesisStream::new(sdk.clone(), STREAM.to_owned());
    let outcomes = stream.put(&records).await.expect("it answers");
    for (key, outcome) in keys.iter().zip(outcomes) {
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{key:?}: {outcome:?}");
    }
    let iterator = sdk
        .get_shard_iterator()
        .stream_name(STREAM)
        .shard_id("shardId-000000000000")
        .shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon)
        .send()
        .await
        .expect("an iterator");
    assert!(keys.len() > 450, "{}", keys.len());
    let records = sdk
        .get_records()
        .set_shard_iterator(iterator.shard_iterator)
        .limit(10_000)
        .send()
        .await
        .expect("records");
    let found: Vec<&str> = records
        .records()
        .iter()
        .filter_map(|record| record.partition_key())
        .collect();
    assert_eq!(found, keys);
    kinesis.close().await;
}

/// A text as CEL writes it.
fn cel_literal(text: &str) -> String {
    serde_json::to_string(text).expect("text")
}

#[test]
fn p10_each_string_is_a_literal_that_a_condition_compares_with() {
    for naughty in naughty_strings() {
        let literal = cel_literal(&naughty);
        for (condition, is_interpreted) in [
            (format!("event.properties.p == {literal}"), false),
            (format!("event.properties.p in [{literal}]"), false),
            (format!("event.properties.p.startsWith({literal})"), true),
            (format!("[{literal}].exists(s, s == event.properties.p)"), true),
        ] {
            // In a journey, as YAML writes a text.
            let journey = format!(
                "journey: naughty\ncontents: [{{ id: c }}]\ntriggers: [{{ id: t, on: click, slot: s, offer: c, when: {} }}]",
                serde_json::to_string(&condition).expect("text")
            );
            let journey = Journey::parse(&journey).unwrap_or_else(|errors| panic!("{naughty:?}: {errors}"));
            let rule = journey.rules[0].when.as_ref().expect("a condition");
            assert_eq!(rule.source(), condition);
            assert_eq!(rule.is_interpreted(), is_interpreted, "{condition}");
            let profile = Profile::new(&journey);
            for (value, expected) in [(naughty.clone(), true), (format!("x{naughty}"), naughty.is_empty())] {
                let record = Place::Property.record("u", &value);
                let event = usher_wire::event::decode(&record, arrived_at()).expect("an event");
                let scope = Scope {
                    journey: &journey,
                    event: &event,
                    profile: &profile,
                    snapshots: Snapshots::none(),
                    now: arrived_at(),
                };
                let expected = expected && (value == naughty || condition.contains("startsWith"));
                assert_eq!(rule.is_met(&scope), Ok(expected), "{condition} of {value:?}");
            }
        }
    }
}

/// As a condition, and as every name in a journey: right or wrong, but told.
#[test]
fn p10_each_string_as_a_part_of_a_journey_is_taken_or_refused_with_its_place() {
    for naughty in naughty_strings() {
        if let Err(errors) = Condition::compile(&naughty, &mut Names::default()) {
            assert!(errors.iter().all(|error| !error.message.is_empty()), "{naughty:?}");
        }
        let text = serde_json::to_string(&naughty).expect("text");
        for journey in [
            naughty.clone(),
            format!("journey: {naughty}"),
            format!("journey: {text}"),
            format!("journey: n\n{text}: 1"),
            format!("journey: n\nignore: [{text}]"),
            format!("journey: n\nfeatures: {{ {text}: {{ count: any }} }}"),
            format!("journey: n\nfeatures: {{ f: {{ last: {text}, on: any, within: {text} }} }}"),
            format!("journey: n\nsteps: [{{ id: {text}, on: click }}]"),
            format!("journey: n\nsteps: [{{ id: s, when: {text} }}]"),
        ] {
            if let Err(errors) = Journey::parse(&journey) {
                assert!(!errors.errors.is_empty());
                assert!(
                    errors.render("journey.yaml", &journey).contains("journey.yaml:"),
                    "{journey:?}"
                );
            }
        }
    }
}

async fn create_profiles_table(clients: &Clients) {
    let key = KeySchemaElement::builder()
        .attribute_name("user_id")
        .key_type(KeyType::Hash);
    let definition = AttributeDefinition::builder()
        .attribute_name("user_id")
        .attribute_type(ScalarAttributeType::S);
    let request = clients.dynamodb.create_table().table_name(TABLE);
    request
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(key.build().expect("whole"))
        .attribute_definitions(definition.build().expect("whole"))
        .send()
        .await
        .expect("a table");
}
