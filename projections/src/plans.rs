//! Plans that runs follow, kept by what they are made of: versions never change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::definition::Plan;
use domain::ids::DefinitionId;
use domain::run::event::{DefinitionRef, Pin};

/// Plans that are kept; beyond that all are dropped and made again.
const KEPT: usize = 256;

/// The version of a definition, and what its references were resolved to.
type Key = (DefinitionId, u64, Vec<Pin>);

/// The plans of this process.
#[derive(Debug, Default)]
pub(crate) struct Plans(Mutex<HashMap<Key, Arc<Plan>>>);

impl Plans {
    pub(crate) fn get(&self, of: &DefinitionRef, pins: &[Pin]) -> Option<Arc<Plan>> {
        let plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plans.get(&(of.id, of.version, pins.to_vec())).map(Arc::clone)
    }

    pub(crate) fn keep(&self, of: &DefinitionRef, pins: &[Pin], plan: &Arc<Plan>) {
        let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= KEPT {
            plans.clear();
        }
        plans.insert((of.id, of.version, pins.to_vec()), Arc::clone(plan));
    }
}
