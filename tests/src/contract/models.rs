//! The contract of the `models` table.

use std::collections::BTreeSet;

use usher_domain::time::Timestamp;
use usher_pipeline::ports::{
    CallError, MODEL_READ_ITEMS_MAX, MODEL_STATE_BYTES_MAX, MODEL_WRITE_ITEMS_MAX, ModelItem, ModelKey, ModelTable,
    ModelWrite, ModelWriteAnswer, ReadOf,
};

/// How often a read is asked again for what it left over.
const READS_MAX: usize = 20;

/// A `models` table: reads what was written, and writes all or nothing, on the versions that are stored (P4).
pub async fn model_table(table: &impl ModelTable, run: &str) {
    what_is_written_is_read(table, run).await;
    a_write_changes_all_of_its_items_or_none(table, run).await;
    as_many_items_as_are_allowed_go_at_once(table, run).await;
    an_item_may_be_large(table, run).await;
}

fn item(run: &str, part: &str, version: u64, state: &[u8]) -> ModelItem {
    ModelItem {
        key: key(run, part),
        version,
        state: state.to_vec(),
        updated_at: Timestamp::from_epoch_ms(1_767_607_200_123),
        expires_at_epoch_s: version.is_multiple_of(2).then_some(4_000_000_000),
    }
}

fn key(run: &str, part: &str) -> ModelKey {
    ModelKey {
        slot: format!("{run}-in_app"),
        part: part.to_owned(),
    }
}

fn put(item: ModelItem, expected_version: u64) -> ModelWrite {
    ModelWrite::Put { item, expected_version }
}

async fn written(table: &impl ModelTable, writes: &[ModelWrite]) {
    match table.write(writes).await {
        Ok(ModelWriteAnswer::Written { .. }) => {}
        other => panic!("nothing speaks against it, but {other:?}"),
    }
}

async fn conflicts(table: &impl ModelTable, writes: &[ModelWrite], why: &str) {
    match table.write(writes).await {
        Ok(ModelWriteAnswer::Conflict) => {}
        other => panic!("{why}, but {other:?}"),
    }
}

/// What is stored of these, by key.
async fn read(table: &impl ModelTable, keys: &[ModelKey]) -> Vec<ModelItem> {
    let mut items = Vec::new();
    let mut open = keys.to_vec();
    for _ in 0..READS_MAX {
        let answer = table.get(&open, ReadOf::Latest).await.expect("it answers");
        assert!(answer.unreadable.is_empty(), "{:?}", answer.unreadable);
        items.extend(answer.items);
        open = answer.unprocessed;
        if open.is_empty() {
            break;
        }
    }
    items.sort_by(|left, right| left.key.cmp(&right.key));
    items
}

async fn what_is_written_is_read(table: &impl ModelTable, run: &str) {
    let run = format!("{run}-read");
    assert_eq!(read(table, &[key(&run, "head")]).await, []);
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    let items = [
        item(&run, "a", 1, &all_bytes),
        item(&run, "b", 2, b""),
        item(&run, "ü#1", u64::MAX, b"x"),
    ];
    written(table, &items.clone().map(|item| put(item, 0))).await;
    let keys: Vec<ModelKey> = ["a", "b", "ü#1", "missing"].map(|part| key(&run, part)).into();
    assert_eq!(read(table, &keys).await, items);
    let recent = table.get(&keys, ReadOf::Recent).await.expect("it answers");
    assert!(recent.items.iter().all(|found| items.contains(found)));
}

async fn a_write_changes_all_of_its_items_or_none(table: &impl ModelTable, run: &str) {
    let run = format!("{run}-all");
    let keys = ["a", "b"].map(|part| key(&run, part));
    conflicts(
        table,
        &[put(item(&run, "a", 8, b""), 7)],
        "nothing is stored, and a version was expected",
    )
    .await;
    let first = [item(&run, "a", 1, b"a1"), item(&run, "b", 1, b"b1")];
    written(table, &first.clone().map(|item| put(item, 0))).await;
    for (a_expected, b_expected) in [(0, 1), (1, 0), (2, 1), (1, 2), (0, 0)] {
        let writes = [
            put(item(&run, "a", 9, b"x"), a_expected),
            put(item(&run, "b", 9, b"x"), b_expected),
        ];
        conflicts(table, &writes, "one of them has another version").await;
        assert_eq!(read(table, &keys).await, first, "nothing is written");
    }
    let second = item(&run, "a", 2, b"a2");
    let delete = |expected_version| ModelWrite::Delete {
        key: key(&run, "b"),
        expected_version,
    };
    conflicts(
        table,
        &[put(second.clone(), 1), delete(2)],
        "what goes has another version",
    )
    .await;
    written(table, &[put(second.clone(), 1), delete(1)]).await;
    assert_eq!(read(table, &keys).await, [second]);
    conflicts(table, &[delete(1)], "it is gone").await;
}

async fn as_many_items_as_are_allowed_go_at_once(table: &impl ModelTable, run: &str) {
    let run = format!("{run}-many");
    let items: Vec<ModelItem> = (0..MODEL_WRITE_ITEMS_MAX)
        .map(|number| item(&run, &format!("{number:03}"), 1, b"x"))
        .collect();
    let writes: Vec<ModelWrite> = items.iter().cloned().map(|item| put(item, 0)).collect();
    written(table, &writes).await;
    let keys: Vec<ModelKey> = items.iter().map(|item| item.key.clone()).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), MODEL_READ_ITEMS_MAX);
    assert_eq!(read(table, &keys).await, items);
}

async fn an_item_may_be_large(table: &impl ModelTable, run: &str) {
    let run = format!("{run}-large");
    let large = item(&run, "head", 1, &vec![0xA5; MODEL_STATE_BYTES_MAX]);
    written(table, &[put(large.clone(), 0)]).await;
    assert_eq!(
        read(table, std::slice::from_ref(&large.key)).await,
        std::slice::from_ref(&large)
    );
    let too_large = item(&run, "head", 2, &vec![0xA5; 401 * 1024]);
    match table.write(&[put(too_large, 1)]).await {
        Err(CallError::Refused { .. }) => {}
        other => panic!("over 400 KB is refused, not {other:?}"),
    }
    assert_eq!(read(table, std::slice::from_ref(&large.key)).await, [large]);
}
