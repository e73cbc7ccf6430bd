//! The series that a thread recorded into last, so that the next time it takes no lock and makes no key.
//!
//! Of families whose series never go: one that is held here is the one that is shown. What a slot held before is
//! just looked up again. Called by `metrics.rs` alone.

use super::Child;
use catalogue::families::Family;
use std::cell::RefCell;
use std::sync::Arc;

/// Slots of a thread: several times the series that one which answers requests records into.
const SLOTS: usize = 256;

thread_local! {
    static SLOTS_OF_THREAD: RefCell<Vec<Option<Slot>>> = const { RefCell::new(Vec::new()) };
}

struct Slot {
    registry: u64,
    /// Names are never freed, so where one is tells which it is.
    name: &'static str,
    family: &'static Family,
    labels: Box<[Box<str>]>,
    child: Arc<Child>,
}

/// Where a series would be.
pub(super) struct Place {
    registry: u64,
    name: &'static str,
    slot: usize,
}

impl Place {
    /// Of a family of that registry.
    pub(super) fn of(registry: u64, name: &'static str, labels: &[&str]) -> Place {
        let mut mixed = name.as_ptr().addr() as u64 ^ registry;
        for label in labels {
            // Length and ends tell nearly all of them apart, and the rest only take turns.
            let bytes = label.as_bytes();
            let ends = bytes.first().zip(bytes.last());
            let (first, last) = ends.map_or((0, 0), |(first, last)| (*first, *last));
            let told = u64::from(first) | u64::from(last) << 8 | (bytes.len() as u64) << 16;
            mixed = (mixed ^ told).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Place {
            registry,
            name,
            slot: (mixed >> 32) as usize % SLOTS,
        }
    }

    /// Acts on the series, if it is there.
    pub(super) fn act(&self, labels: &[&str], act: impl FnOnce(&Child, &Family)) -> bool {
        SLOTS_OF_THREAD.with_borrow(|slots| match slots.get(self.slot) {
            Some(Some(slot)) if slot.is(self, labels) => {
                act(&slot.child, slot.family);
                true
            }
            _ => false,
        })
    }

    /// Puts it there.
    pub(super) fn keep(&self, family: &'static Family, labels: &[&str], child: Arc<Child>) {
        let slot = Slot {
            registry: self.registry,
            name: self.name,
            family,
            labels: labels.iter().map(|label| Box::from(*label)).collect(),
            child,
        };
        SLOTS_OF_THREAD.with_borrow_mut(|slots| {
            slots.resize_with(SLOTS, || None);
            slots[self.slot] = Some(slot);
        });
    }
}

impl Slot {
    fn is(&self, place: &Place, labels: &[&str]) -> bool {
        self.registry == place.registry
            && std::ptr::eq(self.name, place.name)
            && self.labels.len() == labels.len()
            && self
                .labels
                .iter()
                .zip(labels)
                .all(|(held, given)| **held == **given)
    }
}
