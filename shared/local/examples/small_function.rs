//! A small Kinesis Lambda, as one writes it with `lambda_runtime`: it prints what it gets, and fails when a record asks for
//! it. The local cloud's own tests start it as a process.
//!
//! A record's data may be `crash` (the process ends, as long as the file named by `MARKER` is not there, and makes it),
//! `hang` (the same, but it sleeps), `panic` or `error`; all else succeeds.

use std::path::Path;
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let variable = |name: &str| -> String {
        #[expect(
            clippy::disallowed_methods,
            reason = "an example reads its configuration where it starts"
        )]
        std::env::var(name).unwrap_or_default()
    };
    if !variable("FAIL_TO_START").is_empty() {
        eprintln!("the configuration is missing a table");
        return Err("no table".into());
    }
    println!(
        "started with {} and {}",
        variable("FROM_TEMPLATE"),
        variable("FROM_CALLER")
    );
    let marker = variable("MARKER");
    lambda_runtime::run(service_fn(|event: LambdaEvent<Value>| handle(event, &marker))).await
}

async fn handle(event: LambdaEvent<Value>, marker: &str) -> Result<Value, Error> {
    let records = event.payload["Records"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    println!(
        "{}",
        json!({
            "records": records.len(),
            "arn": event.context.invoked_function_arn,
            "request_id": event.context.request_id,
        })
    );
    for record in records {
        let data = record["kinesis"]["data"].as_str().unwrap_or_default();
        let first_time = !Path::new(marker).exists();
        match base64_simd::STANDARD.decode_to_vec(data)?.as_slice() {
            b"crash" if first_time => {
                std::fs::write(marker, "")?;
                eprintln!("crashing on purpose");
                std::process::abort();
            }
            b"hang" if first_time => {
                std::fs::write(marker, "")?;
                tokio::time::sleep(Duration::from_secs(3_600)).await;
            }
            b"panic" => panic!("a record asked for it"),
            b"error" => return Err("a record asked for an error".into()),
            _ => {}
        }
    }
    Ok(json!({ "batchItemFailures": [] }))
}
