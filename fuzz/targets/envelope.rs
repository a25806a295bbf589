//! A Lambda payload, all the way to events and rejects: errors with a reason, and the quick way reads what `serde_json` reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usher_wire::batch::DecodedBatch;
use usher_wire::envelope::Envelope;
use usher_wire::reject::REJECT_DETAIL_BYTES_MAX;

fuzz_target!(|payload: &str| {
    let parsed = Envelope::parse(payload);
    let thorough = Envelope::parse_thoroughly(payload);
    assert_eq!(
        format!("{parsed:?}"),
        format!("{thorough:?}"),
        "the two ways of reading differ"
    );
    let Ok(envelope) = parsed else { return };
    let batch = DecodedBatch::decode(&envelope);
    assert!(batch.len() <= envelope.records.len());
    assert!(
        batch.is_empty() == envelope.records.is_empty(),
        "each invocation gets on by one record at least"
    );
    for (record, bytes) in envelope.records.iter().zip(batch.records()) {
        let decoded = match bytes {
            Ok(bytes) => usher_wire::event::decode(bytes, record.arrived_at),
            Err(reject) => Err(reject.clone()),
        };
        if let Err(reject) = decoded {
            assert!(reject.detail.len() <= REJECT_DETAIL_BYTES_MAX);
        }
    }
});
