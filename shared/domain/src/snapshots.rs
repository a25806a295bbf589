//! What was learned from all users together, as planning reads it: counts of the last minutes and the slots' models.
//!
//! Planning takes it as a value (P7). Whoever runs it refreshes it in the background, so it is some seconds old; which
//! model decided is logged with every decision.

use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;

use crate::bandit::snapshot::ModelSnapshot;
use crate::trends::Trends;

/// Counts over all users, and the models.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    /// How often contents and categories were met with lately.
    pub trends: Arc<Trends>,
    /// What the slots' learners know.
    pub models: Arc<Models>,
}

static NONE: LazyLock<Snapshots> = LazyLock::new(Snapshots::default);

impl Snapshots {
    /// Nothing is known of others.
    pub fn none() -> &'static Snapshots {
        &NONE
    }
}

/// The model of a slot.
#[derive(Clone, Debug)]
pub enum SlotModel {
    /// It is there.
    Ready(Arc<ModelSnapshot>),
    /// It is stored, but can't be read, or reading failed for so long that it is not to be believed.
    Unreadable,
}

/// The models of the slots. A slot without one has learned nothing yet.
#[derive(Clone, Debug, Default)]
pub struct Models {
    slots: HashMap<String, SlotModel>,
}

impl Models {
    /// The models by their slots.
    pub fn new(slots: impl IntoIterator<Item = (String, SlotModel)>) -> Models {
        Models {
            slots: slots.into_iter().collect(),
        }
    }

    /// That of a slot.
    pub fn of(&self, slot: &str) -> Option<&SlotModel> {
        self.slots.get(slot)
    }
}
