//! Records that are compressed, as the functions read them too.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use usher_domain::limits::EVENT_BYTES_MAX;

/// What gzip data starts with (RFC 1952).
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Whether these bytes start like gzip data.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The bytes, compressed.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory can't fail; if it did, the record would be rejected, not lost unseen.
    let written = encoder.write_all(bytes);
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

/// The bytes that were compressed; one more than an event may have at most, so whoever decodes them finds them too large.
///
/// # Errors
/// When it is broken.
pub fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut decompressed = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(EVENT_BYTES_MAX as u64 + 1)
        .read_to_end(&mut decompressed)?;
    Ok(decompressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_what_was_compressed_comes_back_and_a_bomb_is_cut() {
        let compressed = compress(b"hello");
        assert!(is_gzip(&compressed) && !is_gzip(b"{}"));
        assert_eq!(decompress(&compressed).expect("whole"), b"hello");
        assert!(decompress(&compressed[..compressed.len() - 3]).is_err());
        assert_eq!(
            decompress(&compress(&vec![0; EVENT_BYTES_MAX + 9]))
                .expect("whole")
                .len(),
            EVENT_BYTES_MAX + 1
        );
    }
}
