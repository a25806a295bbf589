//! Sequence numbers as numbers.

/// Limbs of 64 bits: enough for Kinesis' 186 bits.
const LIMBS: usize = 3;

/// A Kinesis sequence number, ordered as a number. Its text form differs between emulators in length, so it is never
/// compared as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SequenceNumber([u64; LIMBS]);

impl SequenceNumber {
    /// Reads a decimal number of up to 192 bits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        // Most significant limb first, so that the derived order is the numbers' order.
        let mut limbs = [0_u64; LIMBS];
        for digit in text.bytes() {
            if !digit.is_ascii_digit() {
                return None;
            }
            let mut carry = u128::from(digit - b'0');
            for limb in limbs.iter_mut().rev() {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64; // The low half; the high half is carried on.
                carry = value >> u64::BITS;
            }
            if carry != 0 {
                return None;
            }
        }
        Some(Self(limbs))
    }
}

#[cfg(test)]
mod tests {
    use super::SequenceNumber;

    #[test]
    fn sequence_numbers_compare_as_numbers() {
        let ordered = [
            "0",
            "9",
            "10",
            "18446744073709551615",
            "18446744073709551616",
            "340282366920938463463374607431768211456",
            "49590338271490256608559692538361571095921575989136588898",
            "49590338271490256608559692538361571095921575989136588899",
            "6277101735386680763835789423207666416102355444464034512895",
        ];
        let parsed: Vec<_> = ordered
            .iter()
            .map(|text| SequenceNumber::parse(text).unwrap())
            .collect();
        assert!(parsed.is_sorted_by(|left, right| left < right));
        for bad in [
            "",
            "-1",
            "1.0",
            "x",
            "6277101735386680763835789423207666416102355444464034512896",
        ] {
            assert_eq!(SequenceNumber::parse(bad), None, "{bad}");
        }
    }
}
