use usher_domain::bandit::context::{Feature, FeatureKind};
use usher_domain::bandit::state::Outcome;
use usher_domain::value::Value;

use super::*;
use crate::memory::MemoryModelTable;
use crate::ports::ModelWriteAnswer;
use crate::testing::{EPOCH_MS, LONG};

fn layout(features: usize) -> Layout {
    let feature = |number| Feature {
        name: format!("f{number}"),
        kind: FeatureKind::Number,
    };
    Layout::new((0..features).map(feature).collect(), Vec::new()).expect("a layout")
}

fn teach(model: &mut KeptModel, layout: &Layout, arm: &str, number: u64) {
    let of = |name: &str| Value::Float((number * 7 + name.len() as u64 * 3) as f64 % 11.0);
    let (context, content) = (layout.context(of, &Default::default()), layout.content(of));
    let outcome = Outcome {
        arm,
        context: &context,
        content: &content,
        reward: (number % 3) as f64,
        previous: None,
        at: Timestamp::from_epoch_ms(EPOCH_MS),
    };
    model.state.learn(layout, &outcome);
}

async fn write(table: &MemoryModelTable, model: &KeptModel) -> KeptModel {
    let writes = model.writes(Timestamp::from_epoch_ms(EPOCH_MS)).expect("it fits");
    let answer = table.write(&writes.writes).await.expect("within the limits");
    assert!(matches!(answer, ModelWriteAnswer::Written { .. }), "{answer:?}");
    writes.stored
}

async fn read(table: &MemoryModelTable, layout: &Layout) -> FoundModel {
    let deadline = Instant::now() + LONG;
    let key = head_key("in_app", layout.fingerprint());
    let mut found = read_items(table, vec![key.clone()], ReadOf::Recent, deadline)
        .await
        .expect("it answers");
    let (head, mut read_units) = (found.items.remove(&key), found.read_units);
    whole_model(table, head, ReadOf::Recent, deadline, &mut read_units)
        .await
        .expect("it answers")
}

#[tokio::test]
async fn a_small_model_is_one_item_and_a_large_one_several() {
    let layout = layout(30);
    let table = MemoryModelTable::default();
    let mut model = KeptModel::new("in_app", &layout, None);
    assert_eq!(read(&table, &layout).await, FoundModel::Missing);
    let mut items_of = Vec::new();
    for arms in [1, 10, 100, 101, 400] {
        for arm in 0..arms {
            teach(&mut model, &layout, &format!("arm-{arm}"), arm + arms);
        }
        model = write(&table, &model).await;
        assert_eq!(
            read(&table, &layout).await,
            FoundModel::Ready(Box::new(model.clone())),
            "{arms} arms"
        );
        items_of.push(table.items().len());
        assert!(
            table
                .items()
                .iter()
                .all(|item| item.state.len() <= MODEL_STATE_BYTES_MAX)
        );
    }
    assert_eq!(items_of[..2], [1, 1], "one item while it is small");
    assert!(items_of[2] > 8 && items_of[4] > items_of[2], "{items_of:?}");
}

#[tokio::test]
async fn a_write_changes_the_parts_that_differ() {
    let layout = layout(30);
    let table = MemoryModelTable::default();
    let mut model = KeptModel::new("in_app", &layout, None);
    for arm in 0..100 {
        teach(&mut model, &layout, &format!("arm-{arm}"), arm);
    }
    let mut model = write(&table, &model).await;
    let parts = model.part_count();
    assert!(parts >= 8);
    teach(&mut model, &layout, "arm-7", 1);
    let writes = model
        .writes(Timestamp::from_epoch_ms(EPOCH_MS))
        .expect("it fits")
        .writes;
    assert_eq!(writes.len(), 2, "the head and one of {parts} parts");
}

#[tokio::test]
async fn a_model_that_is_written_while_it_is_read_is_read_again() {
    let layout = layout(30);
    let table = MemoryModelTable::default();
    let mut model = KeptModel::new("in_app", &layout, None);
    for arm in 0..100 {
        teach(&mut model, &layout, &format!("arm-{arm}"), arm);
    }
    let model = write(&table, &model).await;
    // Between the read of the head and that of the parts another batch is learned, twice.
    let mut newer = model.clone();
    for number in 0..3 {
        teach(&mut newer, &layout, &format!("arm-{number}"), number);
    }
    let writes = newer.writes(Timestamp::from_epoch_ms(EPOCH_MS)).expect("it fits");
    let other = table.clone();
    table.faults().on_call(move |call| {
        if call.number == 1 + 1 {
            for write in &writes.writes {
                if let ModelWrite::Put { item, .. } = write {
                    other.insert(item.clone());
                }
            }
        }
        None
    });
    let FoundModel::Ready(found) = read(&table, &layout).await else {
        panic!("it is there")
    };
    assert_eq!((found.version, found.state), (model.version + 1, newer.state));
}

#[tokio::test]
async fn a_model_that_is_damaged_is_told_from_one_that_is_missing() {
    let layout = layout(30);
    let table = MemoryModelTable::default();
    let mut model = KeptModel::new("in_app", &layout, None);
    for arm in 0..100 {
        teach(&mut model, &layout, &format!("arm-{arm}"), arm);
    }
    write(&table, &model).await;
    let whole = table.items();
    type Damage = fn(&MemoryModelTable, ModelItem);
    let damages: [(&str, Damage); 4] = [
        ("a part is gone", |table, item| table.remove(&item.key)),
        ("a part is of another version", |table, mut item| {
            item.version += 1;
            table.insert(item);
        }),
        ("a part is cut", |table, mut item| {
            item.state.truncate(item.state.len() / 2);
            table.insert(item);
        }),
        ("a part is no item", |table, item| {
            table.insert_unreadable(item.key, "it has no state")
        }),
    ];
    for index in [0, whole.len() - 1] {
        for (name, damage) in damages {
            let table = MemoryModelTable::default();
            whole.iter().for_each(|item| table.insert(item.clone()));
            damage(&table, whole[index].clone());
            let is_head = whole[index].key.part.ends_with("head");
            match read(&table, &layout).await {
                FoundModel::Unreadable(_) => {}
                // What reads the items hears of one that is none, before it comes to the model.
                FoundModel::Missing if is_head => {}
                FoundModel::Ready(_) if is_head && name == "a part is of another version" => {}
                other => panic!("{name} at {index}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_model_that_outgrows_a_transaction_is_not_written() {
    let layout = layout(32);
    let mut model = KeptModel::new("in_app", &layout, None);
    for arm in 0..1024 {
        for number in 0..3 {
            teach(&mut model, &layout, &format!("arm-{arm}"), arm + number * 1000);
        }
    }
    let written = model.writes(Timestamp::from_epoch_ms(EPOCH_MS));
    assert!(written.is_err_and(|error| error.bytes > MODEL_BYTES_MAX));
}

#[tokio::test]
async fn a_state_takes_the_place_of_whatever_is_stored_and_the_guard_stays() {
    let layout = layout(30);
    let table = MemoryModelTable::default();
    let mut model = KeptModel::new("in_app", &layout, None);
    for arm in 0..100 {
        teach(&mut model, &layout, &format!("arm-{arm}"), arm);
    }
    let shard = usher_domain::guard::ShardKey(7);
    let position = usher_domain::sequence_number::Position {
        sequence_number: 9u64.into(),
        sub_sequence_number: 0,
    };
    model.guard.advance(shard, position);
    write(&table, &model).await;
    for is_damaged in [false, true] {
        let mut stored = table.items();
        if is_damaged {
            stored[0].state.truncate(3);
            let head = stored
                .iter_mut()
                .find(|item| item.key.part.ends_with("head"))
                .expect("a head");
            head.state.truncate(3);
        }
        let empty = SlotState::new(&layout, None);
        let replaced = write(
            &table,
            &KeptModel::in_place_of("in_app", empty.clone(), &stored, Timestamp::from_epoch_ms(EPOCH_MS)),
        )
        .await;
        assert_eq!(table.items().len(), 1, "its parts are gone");
        assert_eq!(
            read(&table, &layout).await,
            FoundModel::Ready(Box::new(replaced.clone()))
        );
        assert_eq!(
            (replaced.state, replaced.guard.covers(shard, position)),
            (empty, !is_damaged)
        );
        // And a large one again.
        write(
            &table,
            &KeptModel::in_place_of(
                "in_app",
                model.state.clone(),
                &table.items(),
                Timestamp::from_epoch_ms(EPOCH_MS),
            ),
        )
        .await;
        assert!(table.items().len() > 8);
    }
}
