//! Kinesis sequence numbers: numbers, never text (P2).

use std::fmt;
use std::str::FromStr;

/// A Kinesis sequence number.
///
/// AWS writes them as decimal text of up to 186 bits whose length varies, so that "9" would sort after "10" as text.
/// Three 64-bit limbs hold them, highest first; the derived order is the numeric one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber([u64; 3]);

/// Why a text is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SequenceNumberError {
    /// It is empty or has something other than decimal digits.
    #[error("a sequence number is decimal digits, got `{0}`")]
    NotDecimal(String),
    /// It is over 192 bits; Kinesis says at most 186.
    #[error("a sequence number has at most 192 bits, got `{0}`")]
    TooLarge(String),
}

/// Decimal digits that always fit into a limb.
const CHUNK_DIGITS: usize = 19;
const CHUNK: u64 = 10u64.pow(CHUNK_DIGITS as u32);

/// Digits that are read at once.
const WORD_DIGITS: usize = 8;

/// The number that eight decimal digits write, the first in the lowest byte; nothing where one is no digit. Every record
/// has 56 of them. Neighbours are joined three times: digits to pairs, pairs to fours, fours to the eight.
fn word_of_digits(word: u64) -> Option<u64> {
    const EACH: u64 = u64::MAX / 255;
    const HIGH_HALVES: u64 = EACH * 0xf0;
    let is_digits = word & HIGH_HALVES == EACH * 0x30 && word.wrapping_add(EACH * 6) & HIGH_HALVES == EACH * 0x30;
    let pairs = (word & (EACH * 0x0f)).wrapping_mul((10 << 8) + 1) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul((100 << 16) + 1) >> 16;
    let eight = (fours & 0x0000_ffff_0000_ffff).wrapping_mul((10_000 << 32) + 1) >> 32;
    is_digits.then_some(eight)
}

impl SequenceNumber {
    /// From its three limbs, highest first.
    pub const fn from_limbs(limbs: [u64; 3]) -> SequenceNumber {
        SequenceNumber(limbs)
    }

    /// Its three limbs, highest first.
    pub const fn limbs(self) -> [u64; 3] {
        self.0
    }

    /// `self * factor + addend`, or nothing when it takes over 192 bits.
    fn times_plus(self, factor: u64, addend: u64) -> Option<SequenceNumber> {
        let mut limbs = self.0;
        let mut carry = u128::from(addend);
        for limb in limbs.iter_mut().rev() {
            let product = u128::from(*limb) * u128::from(factor) + carry;
            *limb = product as u64;
            carry = product >> 64;
        }
        (carry == 0).then_some(SequenceNumber(limbs))
    }
}

impl From<u64> for SequenceNumber {
    fn from(number: u64) -> SequenceNumber {
        SequenceNumber([0, 0, number])
    }
}

impl FromStr for SequenceNumber {
    type Err = SequenceNumberError;

    fn from_str(text: &str) -> Result<SequenceNumber, SequenceNumberError> {
        let shown = || text.chars().take(80).collect::<String>();
        if text.is_empty() {
            return Err(SequenceNumberError::NotDecimal(shown()));
        }
        let too_large = || SequenceNumberError::TooLarge(shown());
        let not_decimal = || SequenceNumberError::NotDecimal(shown());
        let mut number = SequenceNumber::default();
        let (words, rest) = text.as_bytes().as_chunks::<WORD_DIGITS>();
        for word in words {
            let value = word_of_digits(u64::from_le_bytes(*word)).ok_or_else(not_decimal)?;
            number = number
                .times_plus(10u64.pow(WORD_DIGITS as u32), value)
                .ok_or_else(too_large)?;
        }
        let mut value = 0u64;
        for digit in rest {
            if !digit.is_ascii_digit() {
                return Err(not_decimal());
            }
            value = value * 10 + u64::from(digit - b'0');
        }
        number = number
            .times_plus(10u64.pow(rest.len() as u32), value)
            .ok_or_else(too_large)?;
        Ok(number)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.0;
        let mut chunks = Vec::with_capacity(4);
        loop {
            let mut remainder = 0u128;
            for limb in &mut limbs {
                let value = (remainder << 64) | u128::from(*limb);
                *limb = (value / u128::from(CHUNK)) as u64;
                remainder = value % u128::from(CHUNK);
            }
            chunks.push(remainder as u64);
            if limbs == [0; 3] {
                break;
            }
        }
        let mut digits = String::new();
        for (index, chunk) in chunks.iter().rev().enumerate() {
            if index == 0 {
                digits.push_str(&chunk.to_string());
            } else {
                digits.push_str(&format!("{chunk:0CHUNK_DIGITS$}"));
            }
        }
        formatter.pad_integral(true, "", &digits)
    }
}

/// Where a user record was in its shard: the Kinesis record, and for a record that the KPL aggregated, which of the
/// user records in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The Kinesis record's sequence number.
    pub sequence_number: SequenceNumber,
    /// The index within an aggregated record; 0 where there is none.
    pub sub_sequence_number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> SequenceNumber {
        text.parse().expect(text)
    }

    #[test]
    fn p2_sequence_numbers_compare_as_numbers() {
        for (lower, higher) in [
            ("9", "10"),
            ("0", "1"),
            ("18446744073709551615", "18446744073709551616"),
            (
                "340282366920938463463374607431768211455",
                "340282366920938463463374607431768211456",
            ),
            (
                "9590338271490256608559692538361571095921575989136588898",
                "49590338271490256608559692538361571095921575989136588898",
            ),
            (
                "49590338271490256608559692538361571095921575989136588898",
                "49590338271490256608559692540925702759324208523137515618",
            ),
            (
                "00000000000000000000000000000000000000000000000000000000000000000000001",
                "2",
            ),
        ] {
            assert!(number(lower) < number(higher), "{lower} < {higher}");
        }
        assert_eq!(number("007"), number("7"));
    }

    #[test]
    fn what_is_no_sequence_number_is_refused() {
        for text in [
            "",
            "-1",
            "+1",
            "1e5",
            "12 ",
            "٣",
            "shardId-000000000000",
            "SHARD_END",
            "1234567:",
            "/2345678",
            "12345678x",
            "123456789012345\u{b2}",
        ] {
            assert!(
                matches!(text.parse::<SequenceNumber>(), Err(SequenceNumberError::NotDecimal(_))),
                "{text}"
            );
        }
        let two_to_192 = "6277101735386680763835789423207666416102355444464034512896";
        assert!(matches!(
            two_to_192.parse::<SequenceNumber>(),
            Err(SequenceNumberError::TooLarge(_))
        ));
        assert_eq!(
            number("6277101735386680763835789423207666416102355444464034512895"),
            SequenceNumber([u64::MAX; 3])
        );
    }

    proptest! {
        #[test]
        fn written_and_read_back(limbs: [u64; 3]) {
            let original = SequenceNumber(limbs);
            prop_assert_eq!(number(&original.to_string()), original);
        }
    }
}
