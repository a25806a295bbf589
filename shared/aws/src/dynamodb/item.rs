//! Items as DynamoDB holds them: reading attributes with a reason where that fails, and measuring.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use usher_domain::time::Timestamp;
use usher_pipeline::ports::{ProfileItem, due_shard};

/// An item: attributes by name.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The arrangement of a profile's attributes that this version writes and reads.
const PROFILE_LAYOUT: &str = "1";
/// The attribute that marks a parked user; it is there only then.
pub(super) const PARKED_SINCE: &str = "parked_since";
/// The attribute that says when a user is to be woken, in milliseconds since 1970: the sort key of the sparse index.
pub(super) const NEXT_DUE_AT: &str = "next_due_at";
/// The attribute that is the sparse index's partition key; it is there with [`NEXT_DUE_AT`] only.
pub(super) const DUE_SHARD: &str = "due_shard";
/// The attribute that makes an item a pointer to another user's.
pub(super) const MERGED_INTO: &str = "merged_into";
/// Bytes that one write capacity unit pays for.
const WRITE_UNIT_BYTES: usize = 1024;

/// A profile as an item.
pub(super) fn profile_to_item(profile: &ProfileItem) -> Item {
    let mut item = HashMap::from([
        ("user_id".to_owned(), AttributeValue::S(profile.user_id.clone())),
        ("version".to_owned(), AttributeValue::N(profile.version.to_string())),
        ("state".to_owned(), AttributeValue::B(profile.state.clone().into())),
        (
            "updated_at".to_owned(),
            AttributeValue::S(profile.updated_at.to_string()),
        ),
        ("layout".to_owned(), AttributeValue::N(PROFILE_LAYOUT.to_owned())),
    ]);
    if let Some(since) = profile.parked_since {
        item.insert(PARKED_SINCE.to_owned(), AttributeValue::S(since.to_string()));
    }
    if let Some(due_at) = profile.next_due_at {
        item.insert(NEXT_DUE_AT.to_owned(), AttributeValue::N(due_at.epoch_ms().to_string()));
        item.insert(DUE_SHARD.to_owned(), AttributeValue::S(due_shard(&profile.user_id)));
    }
    if let Some(user) = &profile.merged_into {
        item.insert(MERGED_INTO.to_owned(), AttributeValue::S(user.clone()));
    }
    item
}

/// The profile in an item, or what is wrong with it.
pub(super) fn profile_from_item(item: Item) -> Result<ProfileItem, String> {
    match number(&item, "layout")? {
        PROFILE_LAYOUT => profile_from_layout_1(item),
        other => Err(unknown_layout(other)),
    }
}

/// Each layout is read for ever; the next write of the user is in the present one.
fn profile_from_layout_1(mut item: Item) -> Result<ProfileItem, String> {
    let version_text = number(&item, "version")?;
    let version = version_text
        .parse()
        .map_err(|_| format!("its version is {version_text}, which is not a count of writes"))?;
    let updated_at = time(&item, "updated_at")?;
    let user_id = text(&item, "user_id")?.to_owned();
    let parked_since = match item.get(PARKED_SINCE) {
        None => None,
        Some(_) => Some(time(&item, PARKED_SINCE)?),
    };
    let next_due_at = match item.get(NEXT_DUE_AT) {
        None => None,
        Some(_) => Some(epoch_ms(&item, NEXT_DUE_AT)?),
    };
    let merged_into = match item.get(MERGED_INTO) {
        None => None,
        Some(_) => Some(text(&item, MERGED_INTO)?.to_owned()),
    };
    let state = match item.remove("state") {
        Some(AttributeValue::B(state)) => state.into_inner(),
        other => return Err(wrong_type("state", other.as_ref(), "binary (B)")),
    };
    Ok(ProfileItem {
        user_id,
        version,
        state,
        updated_at,
        parked_since,
        next_due_at,
        merged_into,
    })
}

fn unknown_layout(layout: &str) -> String {
    let reads = format!("its layout is {layout}, and this version of Usher reads layout {PROFILE_LAYOUT}");
    let (found, present) = (layout.parse::<u64>().ok(), PROFILE_LAYOUT.parse::<u64>().ok());
    if found > present {
        format!("{reads}: deploy the newer version")
    } else {
        format!("{reads}, and no version wrote that one: restore the item")
    }
}

/// A time attribute.
fn time(item: &Item, name: &str) -> Result<Timestamp, String> {
    text(item, name)?
        .parse()
        .map_err(|error| format!("its {name} can't be read: {error}"))
}

/// A time attribute that is a number of milliseconds since 1970, so that it sorts.
pub(super) fn epoch_ms(item: &Item, name: &str) -> Result<Timestamp, String> {
    let text = number(item, name)?;
    let epoch_ms = text
        .parse()
        .map_err(|_| format!("its {name} is {text}, which is no time in milliseconds"))?;
    Ok(Timestamp::from_epoch_ms(epoch_ms))
}

/// A text attribute.
pub(super) fn text<'i>(item: &'i Item, name: &str) -> Result<&'i str, String> {
    match item.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        other => Err(wrong_type(name, other, "text (S)")),
    }
}

/// A number attribute, as DynamoDB writes it.
pub(super) fn number<'i>(item: &'i Item, name: &str) -> Result<&'i str, String> {
    match item.get(name) {
        Some(AttributeValue::N(number)) => Ok(number),
        other => Err(wrong_type(name, other, "a number (N)")),
    }
}

pub(super) fn wrong_type(name: &str, found: Option<&AttributeValue>, expected: &str) -> String {
    match found {
        None => format!("it has no attribute {name}, which must be {expected}"),
        Some(value) => format!(
            "its attribute {name} is of type {}, and must be {expected}",
            type_name(value)
        ),
    }
}

fn type_name(value: &AttributeValue) -> &'static str {
    match value {
        AttributeValue::B(_) => "B",
        AttributeValue::Bool(_) => "BOOL",
        AttributeValue::Bs(_) => "BS",
        AttributeValue::L(_) => "L",
        AttributeValue::M(_) => "M",
        AttributeValue::N(_) => "N",
        AttributeValue::Ns(_) => "NS",
        AttributeValue::Null(_) => "NULL",
        AttributeValue::S(_) => "S",
        AttributeValue::Ss(_) => "SS",
        _ => "unknown",
    }
}

/// The write units that a write of this item takes, from its size as the DynamoDB guide counts it: the bytes of names
/// and values, and for a number a byte for each two digits and one more.
///
/// DynamoDB bills a failed condition by the size of the stored item, and does not say so in its answer.
pub(super) fn write_units(item: &Item) -> f64 {
    item_bytes(item).div_ceil(WRITE_UNIT_BYTES).max(1) as f64
}

/// The size of a stored profile in bytes, as DynamoDB counts it.
pub fn profile_item_bytes(profile: &ProfileItem) -> usize {
    item_bytes(&profile_to_item(profile))
}

fn item_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &AttributeValue) -> usize {
    /// What a list or map takes besides what is in it, and each of its entries besides its value.
    const COLLECTION_BYTES: usize = 3;
    const ENTRY_BYTES: usize = 1;
    match value {
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Bs(values) => values.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::N(number) => number_bytes(number),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| number_bytes(number)).sum(),
        AttributeValue::S(text) => text.len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::L(values) => {
            COLLECTION_BYTES
                + values
                    .iter()
                    .map(|value| ENTRY_BYTES + value_bytes(value))
                    .sum::<usize>()
        }
        AttributeValue::M(entries) => {
            let entry_bytes = |(name, value): (&String, &AttributeValue)| ENTRY_BYTES + name.len() + value_bytes(value);
            COLLECTION_BYTES + entries.iter().map(entry_bytes).sum::<usize>()
        }
        // A truth value or null takes a byte.
        _ => 1,
    }
}

fn number_bytes(number: &str) -> usize {
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    digits.div_ceil(2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> ProfileItem {
        ProfileItem {
            user_id: "u-1".to_owned(),
            version: u64::MAX,
            state: vec![0, 255, 10, 34],
            updated_at: Timestamp::from_epoch_ms(1_767_607_200_123),
            parked_since: None,
            next_due_at: None,
            merged_into: None,
        }
    }

    #[test]
    fn a_profile_comes_back_from_its_item() {
        let item = profile_to_item(&profile());
        assert_eq!(
            item["updated_at"],
            AttributeValue::S("2026-01-05T10:00:00.123Z".to_owned())
        );
        assert!(!item.contains_key(PARKED_SINCE));
        assert_eq!(profile_from_item(item), Ok(profile()));

        let parked = ProfileItem {
            parked_since: Some(Timestamp::from_epoch_ms(1_767_607_200_456)),
            next_due_at: None,
            merged_into: None,
            ..profile()
        };
        let item = profile_to_item(&parked);
        assert_eq!(
            item[PARKED_SINCE],
            AttributeValue::S("2026-01-05T10:00:00.456Z".to_owned())
        );
        assert_eq!(profile_from_item(item), Ok(parked));
    }

    #[test]
    fn a_profile_is_measured_as_dynamodb_does() {
        let profile = ProfileItem {
            version: 12_345,
            state: vec![0; 100],
            ..profile()
        };
        // Names 35, user_id 3, version 5 digits 4, state 100, updated_at 24, layout 2.
        assert_eq!(profile_item_bytes(&profile), 168);
    }

    #[test]
    fn an_item_that_is_no_profile_says_why() {
        let text = |text: &str| Some(AttributeValue::S(text.to_owned()));
        let number = |number: &str| Some(AttributeValue::N(number.to_owned()));
        for (name, value, why) in [
            ("layout", None, "it has no attribute layout, which must be a number (N)"),
            (
                "layout",
                text("1"),
                "its attribute layout is of type S, and must be a number (N)",
            ),
            (
                "layout",
                number("2"),
                "its layout is 2, and this version of Usher reads layout 1: deploy the newer version",
            ),
            (
                "layout",
                number("0"),
                "its layout is 0, and this version of Usher reads layout 1, and no version wrote that one: restore",
            ),
            ("version", None, "it has no attribute version"),
            (
                "version",
                number("-1"),
                "its version is -1, which is not a count of writes",
            ),
            ("version", number("1.5"), "its version is 1.5"),
            ("state", None, "it has no attribute state, which must be binary (B)"),
            ("state", text("x"), "its attribute state is of type S"),
            (
                "updated_at",
                text("yesterday"),
                "its updated_at can't be read: `yesterday` is not an RFC 3339 time",
            ),
            (
                "updated_at",
                number("1"),
                "its attribute updated_at is of type N, and must be text (S)",
            ),
            (
                "parked_since",
                text("yesterday"),
                "its parked_since can't be read: `yesterday` is not an RFC 3339 time",
            ),
            ("user_id", None, "it has no attribute user_id"),
        ] {
            let mut item = profile_to_item(&profile());
            match value {
                Some(value) => item.insert(name.to_owned(), value),
                None => item.remove(name),
            };
            let told = profile_from_item(item).expect_err(name);
            assert!(told.starts_with(why), "{told}");
        }
    }

    #[test]
    fn attributes_of_a_later_version_are_let_be() {
        let mut item = profile_to_item(&profile());
        item.insert("colour".to_owned(), AttributeValue::N("1".to_owned()));
        assert_eq!(profile_from_item(item), Ok(profile()));
    }

    #[test]
    fn write_units_go_by_the_kilobyte() {
        // Names 35, user_id 3, version 20 digits 11, updated_at 24, layout 2.
        let rest = 35 + 3 + 11 + 24 + 2;
        for (state_bytes, units) in [(0, 1.0), (1024 - rest, 1.0), (1024 - rest + 1, 2.0), (100_000, 98.0)] {
            let item = profile_to_item(&ProfileItem {
                state: vec![0; state_bytes],
                ..profile()
            });
            assert_eq!(write_units(&item), units, "{state_bytes}");
        }
    }
}
