//! What a run came to, for people.

use std::collections::BTreeMap;

use usher_domain::journey::Journey;
use usher_domain::profile::Profile;
use usher_local::{Endpoints, FaultKind, StageLatency};
use usher_wire::trigger::{DECISION_KIND, TriggerRecord};

use super::faults::faults_table;
use super::report::{Percentiles, Report, milliseconds};
use crate::people::{grouped, table};
use crate::profile_text::{profile_text, trigger_text};

/// The counts, the latencies, and what is wrong.
pub fn report_text(report: &Report, stages: &[StageLatency], is_drained_run: bool) -> String {
    let count = |name: &str, number: u64| (name.to_owned(), grouped(number));
    let per_second = report.sent as f64 / report.seconds.max(f64::MIN_POSITIVE);
    // While it serves, the time is that of whoever sends.
    let rate = if is_drained_run {
        format!(" ({} a second)", grouped(per_second as u64))
    } else {
        String::new()
    };
    let mut text = format!(
        "\n{} events in {:.1} s{rate}, journey `{}` version {}, {} clock\n",
        grouped(report.sent),
        report.seconds,
        report.journey.name,
        report.journey.version,
        report.clock,
    );
    let mut rows = vec![
        count("sent", report.sent),
        count("applied", report.applied),
        count("duplicate", report.duplicate),
        count("dropped by the journey", report.dropped),
        count("rejected", report.rejected),
        count("profiles", report.profiles),
        count("triggers", report.triggers),
        count("decisions", report.decisions),
    ];
    if report.woken > 0 || report.timers_fired > 0 {
        rows.push(count("woken", report.woken));
        rows.push(count("timers fired", report.timers_fired));
        rows.push(count("sweeps", report.sweeps));
    }
    if report.outcomes > 0 {
        rows.push(count("outcomes", report.outcomes));
        rows.push(count("windows run out", report.windows_run_out));
    }
    if report.redelivered > 0 {
        rows.push(count("delivered again", report.redelivered));
    }
    text.push_str(&table(&rows));
    if !report.rejected_by_reason.is_empty() {
        text.push_str("rejected\n");
        text.push_str(&counts(&report.rejected_by_reason));
    }
    text.push_str("triggers by rule\n");
    text.push_str(&counts(&report.triggers_by_rule));
    if !report.outcomes_by_reward.is_empty() {
        text.push_str("outcomes by reward\n");
        text.push_str(&counts(&report.outcomes_by_reward));
    }
    let mut latencies = Vec::new();
    for stage in stages.iter().filter(|stage| !stage.put_to_done_us.is_empty()) {
        let of = |quantile| Some(milliseconds(stage.put_to_done_us.value_at_quantile(quantile)));
        let max = Some(milliseconds(stage.put_to_done_us.max()));
        let percentiles = Percentiles {
            p50: of(0.5),
            p90: of(0.9),
            p99: of(0.99),
            max,
        };
        latencies.push((
            format!("{} → {}", stage.stream, stage.function),
            latency_cells(percentiles),
        ));
    }
    latencies.push((
        "event → its trigger".to_owned(),
        latency_cells(report.sent_to_decided_ms),
    ));
    if report.timer_lateness_ms.max.is_some() {
        latencies.push((
            "timer due → its trigger decided".to_owned(),
            latency_cells(report.timer_lateness_ms),
        ));
    }
    text.push_str("latency in ms: half within, 9 of 10, 99 of 100, all\n");
    text.push_str(&table(&latencies));
    text.push_str("writes\n");
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} bytes", grouped(bytes)));
    text.push_str(&table(&[
        count("conditional writes", report.conditional_writes),
        count("conflicts", report.conflicts),
        (
            "write capacity units".to_owned(),
            format!(
                "{} ({:.3} an event)",
                grouped(report.write_units.round() as u64),
                report.write_units_per_event
            ),
        ),
        ("median profile".to_owned(), bytes(report.profile_item_bytes.p50)),
        ("largest profile".to_owned(), bytes(report.profile_item_bytes.max)),
    ]));
    text
}

/// What went wrong on purpose, and what came of it; nothing where nothing did.
pub fn faults_text(report: &Report, injected: BTreeMap<FaultKind, u64>) -> String {
    let Some(seed) = report.seed else {
        return String::new();
    };
    let survived = if report.problems.is_empty() {
        "nothing missing"
    } else {
        "see the errors"
    };
    format!(
        "faults by seed {seed}\n{}  came of it: {} invocations failed and {} in part, {} batches sent again, {} records \
         delivered again, {} write conflicts, {} records given up; {survived}\n",
        faults_table(injected),
        grouped(report.failed_invocations),
        grouped(report.partial_invocations),
        grouped(report.retries),
        grouped(report.redelivered),
        grouped(report.conflicts),
        grouped(report.dropped_records),
    )
}

fn counts(by_name: &BTreeMap<String, u64>) -> String {
    let rows: Vec<(String, String)> = by_name
        .iter()
        .map(|(name, count)| (name.clone(), grouped(*count)))
        .collect();
    table(&rows)
}

fn latency_cells(percentiles: Percentiles) -> String {
    let Percentiles { p50, p90, p99, max } = percentiles;
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    [p50, p90, p99, max]
        .map(|value| format!("{:>8}", cell(value)))
        .join("  ")
}

/// One user's profile, and one trigger of that user with its reason: the first one that a condition decided.
/// The user is shown as of their own latest event: at the end of the data their windows may have emptied long ago.
pub fn example_text(triggers: &[Vec<u8>], profiles: &BTreeMap<String, Profile>, journey: &Journey) -> String {
    let with_reason = |json: &&Vec<u8>| {
        let text = serde_json::from_slice::<serde_json::Value>(json).ok();
        text.is_some_and(|trigger| trigger.pointer("/reason/condition").is_some())
    };
    let is_decision = |json: &&Vec<u8>| TriggerRecord::parse(json).is_ok_and(|trigger| trigger.kind == DECISION_KIND);
    let trigger = triggers.iter().find(with_reason);
    let trigger = trigger.or_else(|| triggers.iter().find(is_decision));
    let user = trigger
        .and_then(|json| TriggerRecord::parse(json).ok())
        .map(|trigger| trigger.user_id.into_owned());
    let user = user
        .filter(|user| profiles.contains_key(user))
        .or_else(|| profiles.keys().next().cloned());
    let mut text = String::new();
    if let Some(user) = user
        && let Some(profile) = profiles.get(&user)
    {
        text.push_str(&format!(
            "\none of the users, as of their own latest event\n{}",
            indented(&profile_text(&user, profile, journey, profile.now))
        ));
    }
    if let Some(json) = trigger {
        text.push_str(&format!("\none of the triggers\n{}", indented(&trigger_text(json))));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// What can be pasted into a shell, so that its tools talk to this local cloud.
pub fn exports(endpoints: &Endpoints, region: &str) -> String {
    format!(
        "export AWS_ENDPOINT_URL_KINESIS={}\nexport AWS_ENDPOINT_URL_DYNAMODB={}\nexport AWS_REGION={region}\n\
         export AWS_ACCESS_KEY_ID=local\nexport AWS_SECRET_ACCESS_KEY=local\n",
        endpoints.kinesis_url, endpoints.dynamodb_url
    )
}

/// How to send something to a local cloud that serves.
pub fn how_to_send(interactions: &str) -> String {
    format!(
        "serving until Ctrl-C; in another shell, paste the lines above, then for example\n  \
         aws kinesis put-record --stream-name {interactions} --partition-key ann --cli-binary-format raw-in-base64-out \\\n    \
         --data '{{\"event_id\":\"1\",\"event_type\":\"sign_up\",\"timestamp\":\"'$(date -u +%FT%TZ)'\",\"user_id\":\"ann\"}}'\n  \
         usher send --stream {interactions} events.jsonl\n  \
         usher users show ann"
    )
}

/// What to try next.
pub fn next_text(events: Option<&str>) -> String {
    let events = events.unwrap_or("events.jsonl");
    format!(
        "\ntry next\n  \
         change a rule in journey/journey.yaml, then  usher check journey/journey.yaml\n  \
         see what it would have done                  usher replay --journey journey/journey.yaml --events {events}\n  \
         keep it running and send your own events     usher local   (it tells how)\n"
    )
}
