use proptest::prelude::*;
use usher_domain::bandit::context::{Feature, FeatureKind, Layout};
use usher_domain::bandit::state::{Outcome, SlotState};
use usher_domain::time::Timestamp;
use usher_domain::value::Value;

use super::*;

const FROZEN_HEAD: &str = include_str!("head-1.hex");
const FROZEN_PART: &str = include_str!("part-1.hex");

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let lines = bytes.chunks(40).map(|line| {
        let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        hex + "\n"
    });
    lines.collect()
}

fn feature(name: &str) -> Feature {
    Feature {
        name: name.to_owned(),
        kind: FeatureKind::Number,
    }
}

/// A head with a bit of everything.
fn head() -> StoredHead {
    let layout = Layout::new(vec![feature("clicks"), feature("hour")], vec![feature("minutes")]).expect("a layout");
    let mut state = SlotState::new(&layout, Some(7 * 24 * 60 * 60 * 1000));
    for (number, (arm, reward)) in [("tour", 1.0), ("demo", -2.5), ("tour", 0.0)].into_iter().enumerate() {
        let context = layout.context(|_| Value::Float(number as f64), &Default::default());
        let content = layout.content(|_| Value::Float(3.0));
        let outcome = Outcome {
            arm,
            context: &context,
            content: &content,
            reward,
            previous: None,
            at: Timestamp::from_epoch_ms(1_767_607_200_000 + number as i64),
        };
        state.learn(&layout, &outcome);
    }
    let mut guard = Guard::default();
    let number = "49671460000000000000000000000000000000000000000000000007";
    guard.advance(
        ShardKey(0xfeed_beef),
        Position {
            sequence_number: number.parse().expect("a number"),
            sub_sequence_number: 3,
        },
    );
    StoredHead {
        guard,
        slot: state.to_stored(),
        part_versions: Vec::new(),
        replaced_at: None,
    }
}

#[test]
fn a_model_comes_back_as_it_was_stored() {
    let whole = head();
    assert_eq!(decode_head(&encode_head(&whole)).expect("just written"), whole);

    let mut split = head();
    split.part_versions = vec![7, u64::MAX];
    split.replaced_at = Some(Timestamp::from_epoch_ms(1_767_607_200_000));
    let read = decode_head(&encode_head(&split)).expect("just written");
    assert!(read.slot.arms.is_empty(), "they are in the parts");
    assert_eq!(read.part_versions, split.part_versions);
    assert_eq!(read.replaced_at, split.replaced_at);
    let part = encode_part(split.slot.dimension, split.slot.arms.iter());
    assert_eq!(
        decode_part(&part, split.slot.dimension).expect("just written"),
        split.slot.arms
    );
    assert!(decode_part(&part, split.slot.dimension + 1).is_err());

    let ids = BTreeSet::from([0, 7, u64::MAX]);
    assert_eq!(decode_ids(&encode_ids(&ids)).expect("just written"), ids);
    assert!(decode_ids(&[1, 2, 3]).is_err());
}

#[test]
fn what_was_written_once_is_read_for_ever() {
    let expected = head();
    let part = encode_part(expected.slot.dimension, expected.slot.arms.iter());
    assert_eq!(to_hex(&encode_head(&expected)), FROZEN_HEAD, "byte for byte");
    assert_eq!(to_hex(&part), FROZEN_PART, "byte for byte");
    assert_eq!(decode_head(&from_hex(FROZEN_HEAD)).expect("layout 1"), expected);
    let arms = decode_part(&from_hex(FROZEN_PART), expected.slot.dimension).expect("layout 1");
    assert_eq!(arms, expected.slot.arms);
}

#[test]
fn another_layout_is_refused_with_what_to_do() {
    let mut bytes = encode_head(&head());
    assert_eq!(bytes[1], LAYOUT);
    for (layout, told) in [(LAYOUT + 1, "deploy the newer version"), (0, "reset or import it")] {
        bytes[1] = layout;
        let error = decode_head(&bytes).expect_err("not this version's").to_string();
        assert!(error.contains(told), "{error}");
    }
}

proptest! {
    /// P10: whatever is stored, reading it ends and takes memory in proportion to it.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..4000, flip in any::<(usize, u8)>()) {
        let _ = decode_head(&bytes);
        let _ = decode_part(&bytes, 2);
        let mut changed = encode_head(&head());
        changed.truncate(cut.max(1));
        let index = flip.0 % changed.len();
        changed[index] ^= flip.1;
        let _ = decode_head(&changed);
    }

    #[test]
    fn any_sums_come_back(sums in proptest::collection::vec(any::<i128>(), 3)) {
        let statistics = Statistics::from_sums(0, sums).expect("three for no context");
        prop_assert_eq!(statistics_of(0, &sums_bytes(&statistics)).expect("just written"), statistics);
    }
}
