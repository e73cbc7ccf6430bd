//! A device's session moves to the shard whose socket its datagrams arrive at.
//!
//! The kernel spreads clients over the shards' sockets by their addresses, which nobody knows before the
//! first check. A publisher whose every packet crossed between two threads would cost a wake-up more a
//! frame; so it moves, once, while there is nothing but a check. Its viewers follow by themselves: they
//! are placed where the publisher is. Called by the shard's turn; never waits.

use super::State;
use crate::shard::Call;
use crate::shard::link::{Notice, Parcel};
use crate::shard::table::{Entry, Index};
use media_core::flow::Flow;
use media_core::ids::SessionId;
use media_core::negotiated::Role;
use std::time::Instant;
use tokio::sync::oneshot;

/// Sessions that a shard may have more than the one that a device leaves for it: placement evens out
/// what chance would not, where devices are few and have many viewers each.
const UNEVEN: u64 = 16;

impl State {
    /// Whether a session whose first check came by way of shard `via` should go on there.
    pub(super) fn should_move(&mut self, index: Index, flow: Flow, via: u8) -> bool {
        let Some(entry) = self.table.entry(index) else {
            return false;
        };
        let is_new = entry.flow.is_none() && entry.connections.is_empty();
        let sessions = |shard: u8| {
            let cells = self.worker.all_cells.get(usize::from(shard));
            cells.map_or(u64::MAX, |cells| cells.sessions())
        };
        entry.role == Role::Publisher
            && is_new
            && flow.connection().is_none()
            && sessions(via) <= sessions(self.worker.shard).saturating_add(UNEVEN)
    }

    /// Moves a session with its first flow to another shard. If that takes no more, it stays.
    pub(super) fn move_session(&mut self, index: Index, flow: Flow, to: u8) {
        let Some(entry) = self.table.take(index) else {
            return;
        };
        let (id, ufrag, device) = (entry.id, entry.ufrag(), entry.device.clone());
        if let Err(entry) = self.worker.links[usize::from(to)].move_session(flow, Box::new(entry)) {
            let index = self.table.put(*entry);
            self.bind(index, flow, Some(to));
            return self.schedule(index);
        }
        self.away.add(id, ufrag, to);
        let known = self.devices.make(&device);
        known.publishers = known.publishers.saturating_sub(1);
        self.devices.tidy(&device);
        let from = self.worker.shard;
        self.worker.placement.moved(&device, from, to);
        self.worker.cells.set_sessions(self.table.len() as u64);
    }

    /// A session that another shard opened goes on here.
    pub(super) fn take_session(&mut self, flow: Flow, entry: Entry) {
        self.devices.make(&entry.device).publishers += 1;
        let index = self.table.put(entry);
        self.worker.cells.set_sessions(self.table.len() as u64);
        self.bind(index, flow, None);
        self.schedule(index);
    }

    /// Tells the shard that opened a session that it is over, if that was another.
    pub(super) fn forget_away(&self, id: SessionId) {
        if id.shard() != self.worker.shard && usize::from(id.shard()) < self.worker.links.len() {
            self.notify(id.shard(), Notice::Over(id));
        }
    }

    /// Does what is asked of a session, or passes it on to the shard that has it by now.
    pub(super) fn handle_call(
        &mut self,
        now: Instant,
        id: SessionId,
        call: Call,
        reply: oneshot::Sender<bool>,
    ) {
        if let Some(shard) = self.away.by_id(id) {
            if let Call::Restart(credentials) = &call {
                self.away.restart(id, credentials.ufrag);
            }
            // If it takes no more, the caller hears that nobody answers.
            return self.parcel(shard, Parcel::Call { id, call, reply });
        }
        let index = self.table.by_id(id);
        if let Some(index) = index {
            match call {
                Call::Restart(credentials) => self.table.restart(index, *credentials),
                Call::PinLayer(pin) => self.pin_layer(now, index, pin),
                Call::Control(control) => {
                    let messages = vec![control.message];
                    self.handle_messages(now, index, messages, Some(control.answers));
                }
                Call::Close(reason) => self.close(now, index, reason),
            }
        }
        // An error means that the caller waits no longer.
        let _ = reply.send(index.is_some());
    }

    /// Takes what other shards moved here a moment ago, so that it ends with the rest.
    pub(super) fn take_last_sessions(&mut self) {
        while let Ok(parcel) = self.worker.inbox.parcels.try_recv() {
            if let Parcel::Session { flow, entry } = parcel {
                self.take_session(flow, *entry);
            }
        }
    }
}
