//! The index of due users over a [`MemoryProfileTable`].

use std::sync::Arc;

use usher_domain::time::Timestamp;

use super::faults::{Faults, Operation};
use super::{MemoryProfileTable, READ_UNIT_BYTES, units};
use crate::ports::{CallError, DUE_PAGE_USERS_MAX, DueIndex, DuePage, DueUser, due_shard};

/// About what an entry of the index takes besides the user id.
const ENTRY_OVERHEAD_BYTES: usize = 40;
/// An eventually consistent read costs half.
const EVENTUAL: f64 = 0.5;

/// The index of due users over a table. It follows the table at once; how it fails is its own.
#[derive(Clone, Debug, Default)]
pub struct MemoryDueIndex {
    table: MemoryProfileTable,
    faults: Arc<Faults>,
}

impl MemoryDueIndex {
    /// The index of this table.
    pub fn of(table: &MemoryProfileTable) -> MemoryDueIndex {
        MemoryDueIndex {
            table: table.clone(),
            faults: Arc::default(),
        }
    }

    /// Its failures and calls. A call's keys are its partition.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl DueIndex for MemoryDueIndex {
    async fn page(&self, shard: &str, until: Timestamp, after: Option<&DueUser>) -> Result<DuePage, CallError> {
        let operation = Operation::QueryDue;
        let effect = self.faults.meet(operation, vec![shard.to_owned()]).await?;
        let mut due: Vec<DueUser> = self
            .table
            .items()
            .into_iter()
            .filter_map(|item| {
                let due_at = item.next_due_at.filter(|due_at| *due_at <= until)?;
                Some(DueUser {
                    due_at,
                    user_id: item.user_id,
                })
            })
            .filter(|user| due_shard(&user.user_id) == shard)
            .collect();
        due.sort_by(|left, right| (left.due_at, &left.user_id).cmp(&(right.due_at, &right.user_id)));
        if let Some(after) = after {
            due.retain(|user| (user.due_at, &user.user_id) > (after.due_at, &after.user_id));
        }
        let has_more = due.len() > DUE_PAGE_USERS_MAX;
        due.truncate(DUE_PAGE_USERS_MAX);
        let bytes = due
            .iter()
            .map(|user| ENTRY_OVERHEAD_BYTES + user.user_id.len())
            .sum::<usize>();
        let page = DuePage {
            next_after: due.last().filter(|_| has_more).cloned(),
            users: due,
            read_units: units(bytes, READ_UNIT_BYTES) * EVENTUAL,
        };
        effect.answer(operation, page).await
    }
}
