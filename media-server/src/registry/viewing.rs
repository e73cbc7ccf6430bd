//! What a viewer has had of its device so far. Kept by the registry and the app, read for metrics.

use crate::metrics::OTHER;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Of a publisher it stays as it was made.
#[derive(Debug, Default)]
pub struct Viewing {
    /// It came before its device, which has not come yet.
    waiting: AtomicBool,
    /// It came before its device.
    came_first: AtomicBool,
    /// It was sent media.
    served: AtomicBool,
}

impl Viewing {
    /// There is no device to watch yet.
    pub fn waits(&self) {
        self.waiting.store(true, Relaxed);
        self.came_first.store(true, Relaxed);
    }

    pub fn device_came(&self) {
        self.waiting.store(false, Relaxed);
    }

    /// It was sent media. Whether its device was there when it came, so that it need not have waited.
    pub fn begins(&self) -> bool {
        self.served.store(true, Relaxed);
        !self.came_first.load(Relaxed)
    }

    /// Whether its device was there when it came, and yet it was sent nothing.
    pub fn is_owed(&self) -> bool {
        !self.served.load(Relaxed) && !self.came_first.load(Relaxed)
    }

    /// Value of the label for `device`. One that has not come has no series: names are easily made up.
    pub fn label<'a>(&self, device: &'a str) -> &'a str {
        match self.waiting.load(Relaxed) {
            true => OTHER,
            false => device,
        }
    }
}
