//! Where sessions are: which shard a device's publisher and viewers sit on.
//!
//! Read by the HTTP side when it places a session, written when sessions open and close. Never on
//! the packet path.

use media_core::cells::ShardCells;
use media_core::negotiated::Role;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Viewers that join their publisher's shard before others are used: they cost no hand-over
/// between threads there, and 50 leave a shard most of its time.
const VIEWERS_WITH_PUBLISHER: u32 = 50;

#[derive(Default)]
struct Device {
    publisher: Option<u8>,
    sessions: u32,
    /// Viewers on the publisher's shard, or on any while there is none.
    viewers: HashMap<u8, u32>,
}

pub(super) struct Placement {
    devices: Mutex<HashMap<Arc<str>, Device>>,
    shards: u8,
}

impl Placement {
    pub(super) fn new(shards: u8) -> Self {
        Placement {
            devices: Mutex::new(HashMap::new()),
            shards,
        }
    }

    pub(super) fn place(&self, role: Role, device: &str, cells: &[Arc<ShardCells>]) -> u8 {
        if self.shards == 1 {
            return 0;
        }
        if role == Role::Viewer {
            let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((shard, device)) = devices.get(device).and_then(|d| Some((d.publisher?, d)))
                && device.viewers.get(&shard).copied().unwrap_or(0) < VIEWERS_WITH_PUBLISHER
            {
                return shard;
            }
        }
        (0..self.shards)
            .min_by_key(|s| cells[usize::from(*s)].sessions())
            .unwrap_or(0)
    }

    pub(super) fn opened(&self, role: Role, device: &Arc<str>, shard: u8) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = devices.entry(device.clone()).or_default();
        entry.sessions += 1;
        match role {
            Role::Publisher => entry.publisher = Some(shard),
            Role::Viewer => *entry.viewers.entry(shard).or_default() += 1,
        }
    }

    /// A device's publisher went on on another shard.
    pub(super) fn moved(&self, device: &str, from: u8, to: u8) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = devices
            .get_mut(device)
            .filter(|d| d.publisher == Some(from))
        {
            entry.publisher = Some(to);
        }
    }

    /// `last_publisher`: no other publisher of the device is left on that shard.
    pub(super) fn closed(&self, role: Role, device: &str, shard: u8, last_publisher: bool) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = devices.get_mut(device) else {
            return;
        };
        entry.sessions = entry.sessions.saturating_sub(1);
        match role {
            Role::Publisher if last_publisher && entry.publisher == Some(shard) => {
                entry.publisher = None
            }
            Role::Publisher => {}
            Role::Viewer => {
                if let Some(count) = entry.viewers.get_mut(&shard) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        if entry.sessions == 0 {
            devices.remove(device);
        }
    }
}
