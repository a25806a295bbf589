//! What a warm profile-writer computes for one invocation: from Lambda's payload to the plan of every user.
//!
//! Side by side, over the same payload and profiles:
//! - `usher`: the borrowing path that profile-writer takes.
//! - `typed`: what a Rust function usually does: `aws_lambda_events::kinesis::KinesisEvent`, as `lambda_runtime`
//!   deserializes it (with the path to an error tracked), then `serde_json` into an event that owns its members, then
//!   the same grouping and planning. It validates less than `usher` does.
//!
//! `decode` stops at the events, `plan` goes on to the plans. Each iteration is one invocation, so divide its time and
//! its allocations by the number of records, or read the throughput. Profiles are cloned outside of the measured time.
//!
//! `cargo bench -p usher-wire --bench payload_to_plan`

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::sync::LazyLock;

use aws_lambda_events::kinesis::KinesisEvent;
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use serde::Deserialize;
use usher_domain::batch::group_by_user;
use usher_domain::event::{ArrivedEvent, ClockMark, Event, Location, Properties, Shard};
use usher_domain::guard::ShardKey;
use usher_domain::hash::hash_bytes;
use usher_domain::journey::Journey;
use usher_domain::plan::{UserPlan, plan_user};
use usher_domain::profile::Profile;
use usher_domain::sequence_number::Position;
use usher_domain::snapshots::Snapshots;
use usher_domain::time::Timestamp;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::Envelope;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Records of one invocation: a small batch, a usual one, and about as many as 6 MB hold.
const RECORDS: [usize; 3] = [100, 1000, 5000];
/// Users with events in 1,000 records.
const USERS_PER_1000_RECORDS: usize = 300;
/// Events that every profile has seen before, which fills its windows, lists and remembered ids.
const WARM_EVENTS_PER_USER: usize = 70;
/// 2013-10-01T08:00:00Z.
const START_MS: i64 = 1_380_614_400_000;
const STREAM_ARN: &str = "arn:aws:kinesis:eu-west-1:123456789012:stream/interactions";

static JOURNEY: LazyLock<Journey> = LazyLock::new(|| {
    Journey::parse(include_str!("../../../journey/journey.yaml")).expect("the default journey has no errors")
});

fn main() {
    divan::main();
}

#[divan::bench(args = RECORDS)]
fn decode_usher(bencher: Bencher<'_, '_>, records: usize) {
    let payload = payload(records);
    bencher.counter(ItemsCount::new(records)).bench(|| {
        let envelope = Envelope::parse(black_box(&payload)).expect("a Kinesis event");
        let bytes = DecodedBatch::decode(&envelope);
        let shards = shard_of(&envelope);
        black_box(usher_events(&envelope, &bytes, &shards).len())
    });
}

#[divan::bench(args = RECORDS)]
fn decode_typed(bencher: Bencher<'_, '_>, records: usize) {
    let payload = payload(records);
    bencher.counter(ItemsCount::new(records)).bench(|| {
        let batch = typed_batch(black_box(&payload));
        black_box(typed_events(&batch).len())
    });
}

#[divan::bench(args = RECORDS)]
fn plan_usher(bencher: Bencher<'_, '_>, records: usize) {
    let (payload, profiles) = (payload(records), warm_profiles(records));
    bencher
        .counter(ItemsCount::new(records))
        .with_inputs(|| profiles.clone())
        .bench_local_refs(|profiles| {
            let envelope = Envelope::parse(black_box(&payload)).expect("a Kinesis event");
            let bytes = DecodedBatch::decode(&envelope);
            let shard = shard_of(&envelope);
            let events = usher_events(&envelope, &bytes, &shard);
            plan(&events, profiles)
        });
}

#[divan::bench(args = RECORDS)]
fn plan_typed(bencher: Bencher<'_, '_>, records: usize) {
    let (payload, profiles) = (payload(records), warm_profiles(records));
    bencher
        .counter(ItemsCount::new(records))
        .with_inputs(|| profiles.clone())
        .bench_local_refs(|profiles| {
            let batch = typed_batch(black_box(&payload));
            let shard = typed_shard(&batch);
            let events = typed_events(&batch);
            let events = typed_arrived(&batch, &events, &shard);
            plan(&events, profiles)
        });
}

/// Takes each user's profile out of the cache, plans, and puts it back, as profile-writer does around its writes.
fn plan(events: &[ArrivedEvent<'_>], profiles: &mut HashMap<String, Profile>) -> usize {
    let mut applied = 0;
    for user in group_by_user(events).iter() {
        let (key, profile) = profiles.remove_entry(user.user()).expect("every user is warm");
        let UserPlan {
            profile,
            outcomes,
            rules,
            ..
        } = plan_user(&JOURNEY, Snapshots::none(), profile, user.events());
        applied += outcomes.len();
        black_box(rules);
        profiles.insert(key, profile);
    }
    assert_eq!(applied, events.len());
    applied
}

// ---- the borrowing path

fn shard_of(envelope: &Envelope<'_>) -> Shard {
    let record = &envelope.records[0];
    Shard {
        key: ShardKey::of(&record.stream_arn, &record.shard_id),
        id: record.shard_id.clone().into_owned(),
    }
}

fn usher_events<'a>(envelope: &Envelope<'_>, bytes: &'a DecodedBatch, shard: &'a Shard) -> Vec<ArrivedEvent<'a>> {
    let records = envelope.records.iter().zip(bytes.records());
    records
        .map(|(record, bytes)| ArrivedEvent {
            event: usher_wire::event::decode(bytes.expect("base64"), record.arrived_at).expect("an event"),
            arrived_at: record.arrived_at,
            shard,
            position: Position {
                sequence_number: record.sequence_number,
                sub_sequence_number: 0,
            },
        })
        .collect()
}

// ---- the typed path

/// An event that owns its members.
#[derive(Deserialize)]
struct TypedEvent {
    event_id: String,
    event_type: String,
    timestamp: String,
    user_id: String,
    session_id: Option<String>,
    content_id: Option<String>,
    category: Option<String>,
    device_type: Option<String>,
    user_agent: Option<String>,
    location: Option<TypedLocation>,
    properties: Option<Box<serde_json::value::RawValue>>,
    traits: Option<Box<serde_json::value::RawValue>>,
}

#[derive(Deserialize)]
struct TypedLocation {
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    timezone: Option<String>,
}

fn typed_batch(payload: &str) -> KinesisEvent {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(payload)).expect("a Kinesis event")
}

fn typed_events(batch: &KinesisEvent) -> Vec<TypedEvent> {
    let records = batch.records.iter();
    records
        .map(|record| serde_json::from_slice(&record.kinesis.data).expect("an event"))
        .collect()
}

fn typed_shard(batch: &KinesisEvent) -> Shard {
    let record = &batch.records[0];
    let (id, _) = record
        .event_id
        .as_deref()
        .and_then(|id| id.split_once(':'))
        .expect("an eventID");
    Shard {
        key: ShardKey::of(record.event_source_arn.as_deref().expect("an ARN"), id),
        id: id.to_owned(),
    }
}

fn typed_arrived<'a>(batch: &KinesisEvent, events: &'a [TypedEvent], shard: &'a Shard) -> Vec<ArrivedEvent<'a>> {
    let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
    let records = batch.records.iter().zip(events);
    records
        .map(|(record, event)| ArrivedEvent {
            event: Event {
                alias: None,
                id: Cow::Borrowed(&event.event_id),
                id_hash: hash_bytes(event.event_id.as_bytes()),
                event_type: Cow::Borrowed(&event.event_type),
                at: event.timestamp.parse().expect("a timestamp"),
                clock: ClockMark::AsWritten,
                user: Cow::Borrowed(&event.user_id),
                session_id: text(&event.session_id),
                content_id: text(&event.content_id),
                category: text(&event.category),
                device_type: text(&event.device_type),
                user_agent: text(&event.user_agent),
                location: event
                    .location
                    .as_ref()
                    .map_or_else(Location::default, |location| Location {
                        country: text(&location.country),
                        region: text(&location.region),
                        city: text(&location.city),
                        timezone: text(&location.timezone),
                    }),
                properties: Properties {
                    object: event.properties.as_deref().map(|object| object.get()),
                    unknown: Vec::new(),
                },
                traits: event.traits.as_deref().map(|object| object.get()),
            },
            arrived_at: Timestamp::from_epoch_ms(record.kinesis.approximate_arrival_timestamp.0.timestamp_millis()),
            shard,
            position: Position {
                sequence_number: record.kinesis.sequence_number.parse().expect("a sequence number"),
                sub_sequence_number: 0,
            },
        })
        .collect()
}

// ---- the data: events like those of the OULAD file, in Lambda's envelope

fn user_count(records: usize) -> usize {
    (records * USERS_PER_1000_RECORDS / 1000).max(1)
}

/// The `number`th event of a run: users take turns in a scattered order, a second apart.
fn event_json(number: usize, users: usize) -> (String, String, i64) {
    let user = format!("oulad-{}", 248_270 + number.wrapping_mul(7919) % users);
    let at_ms = START_MS + number as i64 * 1000;
    let at = Timestamp::from_epoch_ms(at_ms);
    let event_type = if number % 10 < 6 { "click" } else { "page_view" };
    let category = ["forumng", "oucontent", "homepage", "resource", "subpage", "quiz", "url"][number % 7];
    let device = ["desktop", "mobile", "tablet"][number % 3];
    let region = ["South Region", "East Anglian Region", "North Western Region", "Wales"][number % 4];
    let json = format!(
        r#"{{"event_id":"oulad-{number:06}","schema_version":1,"event_type":"{event_type}","timestamp":"{at}","user_id":"{user}","location":{{"country":"GB","region":"{region}","timezone":"Europe/London"}},"session_id":"{number}--10","content_id":"{}","category":"{category}","device_type":"{device}"}}"#,
        546_600 + number % 97,
    );
    (user, json, at_ms)
}

fn warm_count(records: usize) -> usize {
    user_count(records) * WARM_EVENTS_PER_USER
}

/// The payload of an invocation, with the records that follow those that the profiles saw.
fn payload(records: usize) -> String {
    payload_of(warm_count(records)..warm_count(records) + records, user_count(records))
}

fn payload_of(numbers: std::ops::Range<usize>, users: usize) -> String {
    let mut payload = String::from(r#"{"Records":["#);
    for number in numbers.clone() {
        let (user, json, at_ms) = event_json(number, users);
        let data = base64_simd::STANDARD.encode_to_string(json.as_bytes());
        let sequence_number = format!("4959033827149025660855969253836157109592157598{:010}", number + 1);
        let comma = if number == numbers.start { "" } else { "," };
        let arrived_at = format!("{}.{:03}", at_ms / 1000, 250);
        write!(
            payload,
            r#"{comma}{{"kinesis":{{"kinesisSchemaVersion":"1.0","partitionKey":"{user}","sequenceNumber":"{sequence_number}","data":"{data}","approximateArrivalTimestamp":{arrived_at}}},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-000000000006:{sequence_number}","eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::123456789012:role/usher-profile-writer","awsRegion":"eu-west-1","eventSourceARN":"{STREAM_ARN}"}}"#
        )
        .expect("writing to memory");
    }
    payload.push_str("]}");
    payload
}

/// The users' profiles after the events before those of [`payload`], with everything sent.
fn warm_profiles(records: usize) -> HashMap<String, Profile> {
    let users = user_count(records);
    let payload = payload_of(0..warm_count(records), users);
    let envelope = Envelope::parse(&payload).expect("a Kinesis event");
    let bytes = DecodedBatch::decode(&envelope);
    let shard = shard_of(&envelope);
    let events = usher_events(&envelope, &bytes, &shard);
    let groups = group_by_user(&events);
    let warm = groups.iter().map(|user| {
        let mut profile = Profile::new(&JOURNEY);
        for arrived in user.events() {
            profile = plan_user(&JOURNEY, Snapshots::none(), profile, [arrived]).profile;
            profile.outbox.clear();
        }
        (user.user().to_owned(), profile)
    });
    warm.collect()
}
