//! `usher rejected show`: everything that is known of a record, with its original bytes.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::{Context, Result, bail};
use usher_aws::stream_reader::StreamReader;
use usher_wire::reject::RejectedRecord;

use super::read::{Filter, Rejected, left_out, place_of, read_rejected};
use crate::Verdict;
use crate::args::ShowRejectedOptions;
use crate::environment;
use crate::gzip;
use crate::people::{grouped, say, table};
use crate::send::load_clients;

/// Bytes that are shown in hexadecimal at most; of more, base64 is shorter and can be copied.
const HEX_BYTES_MAX: usize = 256;

/// Runs the command.
///
/// # Errors
/// When the stream can't be read, or there is no such record.
pub async fn run(options: ShowRejectedOptions) -> Result<Verdict> {
    let filter = Filter::of(&options.selection)?;
    let stop = environment::stop_signal()?;
    let clients = load_clients(options.selection.endpoint_url.as_deref()).await;
    let stream = &options.selection.stream;
    let reader = StreamReader::new(clients.kinesis, stream);
    let mut shown = 0u64;
    let seen = read_rejected(&reader, &filter, &stop, |rejected| {
        if options
            .place
            .as_ref()
            .is_some_and(|place| *place != place_of(&rejected.record))
        {
            return Ok(ControlFlow::Continue(()));
        }
        shown += 1;
        if options.raw {
            let bytes = rejected.record.original_bytes()?;
            std::io::stdout()
                .lock()
                .write_all(&bytes)
                .context("cannot write to standard output")?;
        } else {
            say(&text_of(&rejected))?;
        }
        Ok(if options.place.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    let seen = seen.await?;
    match (&options.place, shown) {
        (Some(place), 0) => bail!(
            "no record on {stream} was at {place}; places are SHARD:SEQUENCE_NUMBER on the stream that it came from, as \
             `usher rejected list` names them, and what is past the retention of {stream} is gone"
        ),
        (None, 0) => bail!("no record on {stream} fits\n{}", left_out(seen)),
        (None, _) => eprint!("{}", left_out(seen)),
        _ => {}
    }
    Ok(Verdict::AllWell)
}

fn text_of(rejected: &Rejected<'_>) -> String {
    let Rejected { record, rejected_at } = rejected;
    let mut rows = vec![("reason".to_owned(), record.reason.to_string())];
    if !record.field.is_empty() {
        rows.push(("field".to_owned(), record.field.to_string()));
    }
    rows.push(("detail".to_owned(), record.detail.to_string()));
    rows.push(("stream".to_owned(), record.stream_arn.to_string()));
    rows.push(("partition key".to_owned(), record.partition_key.to_string()));
    rows.push(("arrived".to_owned(), record.arrived_at.clone()));
    rows.push(("rejected".to_owned(), rejected_at.to_string()));
    if record.parked {
        let user = record.user.as_deref().unwrap_or("?");
        rows.push((
            "parked".to_owned(),
            format!("once the profile is mended: usher redrive --user {user}"),
        ));
    }
    format!("{}\n{}{}", place_of(record), table(&rows), bytes_text(record))
}

/// The original bytes for people: text where they are, else hexadecimal or base64.
fn bytes_text(record: &RejectedRecord<'_>) -> String {
    let bytes = match record.original_bytes() {
        Ok(bytes) => bytes,
        Err(error) => return format!("  {error}\n"),
    };
    let count = grouped(bytes.len() as u64);
    let expanded = gzip::is_gzip(&bytes).then(|| gzip::decompress(&bytes).ok()).flatten();
    if let Some(text) = expanded.and_then(|expanded| String::from_utf8(expanded).ok()) {
        return format!("  {count} bytes of gzip, expanded\n{text}\n");
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => format!("  {count} bytes\n{text}\n"),
        Err(_) if bytes.len() <= HEX_BYTES_MAX => {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("  {count} bytes, not UTF-8, in hexadecimal\n{}\n", hex.join(" "))
        }
        Err(_) => {
            let base64 = base64_simd::STANDARD.encode_to_string(&bytes);
            format!("  {count} bytes, not UTF-8, in base64\n{base64}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use usher_wire::reject::RejectReason;

    use super::super::read::tests::rejected;
    use super::*;

    #[test]
    fn the_original_bytes_are_text_hexadecimal_or_base64() {
        let compressed = gzip::compress(b"{\"a\":1}");
        for (data, expected) in [
            (&b"{\"a\":1}"[..], "  7 bytes\n{\"a\":1}\n".to_owned()),
            (b"\xff\x00", "  2 bytes, not UTF-8, in hexadecimal\nff 00\n".to_owned()),
            (
                &[0xff; 300],
                format!("  300 bytes, not UTF-8, in base64\n{}\n", "/".repeat(400)),
            ),
            (
                &compressed,
                format!("  {} bytes of gzip, expanded\n{{\"a\":1}}\n", compressed.len()),
            ),
        ] {
            assert_eq!(bytes_text(&rejected(RejectReason::NotUtf8, "1", data)), expected);
        }
        let mut cut = rejected(RejectReason::TooLarge, "1", b"{");
        cut.data_cut_at = Some(1);
        assert!(
            bytes_text(&cut).contains("only the first 1 bytes"),
            "{}",
            bytes_text(&cut)
        );
    }

    #[test]
    fn a_record_is_shown_with_its_place_and_reason() {
        let rejected = Rejected {
            record: rejected(RejectReason::MissingField, "7", b"{}"),
            rejected_at: "2026-01-05T10:00:01Z".parse().expect("a time"),
        };
        let text = text_of(&rejected);
        for part in [
            "shardId-000000000000:7\n",
            "reason         missing_field",
            "field          event_id",
            "2 bytes\n{}\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
