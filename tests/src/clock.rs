//! A clock of its own for a program under test, which a test sets forward: what takes hours takes a moment.
//!
//! The program is started with libfaketime, which looks up the time in a file of this clock's. What the program
//! sleeps lasts as long as before: it sees the new time when it wakes. Used with [`crate::MediaServer::after`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::process::TempDir;

pub struct SetClock {
    dir: TempDir,
    ahead: Mutex<Duration>,
}

impl SetClock {
    /// A clock that shows the true time as yet.
    ///
    /// # Panics
    /// If its file can't be written.
    pub fn start() -> Self {
        let clock = Self {
            dir: TempDir::new("clock"),
            ahead: Mutex::default(),
        };
        clock.forward(Duration::ZERO);
        clock
    }

    /// A piece of shell script: what is started after it goes by this clock.
    pub fn script(&self) -> String {
        let file = self.dir.path().join("time").display().to_string();
        format!(
            "export LD_PRELOAD='/usr/$LIB/faketime/libfaketimeMT.so.1' FAKETIME_NO_CACHE=1 \
             FAKETIME_TIMESTAMP_FILE='{file}'"
        )
    }

    /// Sets it forward, wall clock and monotonic clock alike.
    ///
    /// # Panics
    /// If its file can't be written.
    pub fn forward(&self, by: Duration) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead += by;
        let (next, file) = (self.dir.path().join("next"), self.dir.path().join("time"));
        // In one step: half of a file would be another time.
        std::fs::write(&next, format!("+{}\n", ahead.as_secs_f64()))
            .and_then(|()| std::fs::rename(next, file))
            .expect("the clock's file can be written");
    }
}
