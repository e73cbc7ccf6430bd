//! Whose a datagram is: a session's here, by user fragment or flow, another shard's, or nobody's.
//! Called by the shard's turn for each datagram; never waits.

use super::State;
use crate::shard::link::Parcel;
use crate::shard::table::{Index, Peer};
use media_core::cells::Drop;
use media_core::flow::Flow;
use media_core::ids::Ufrag;
use media_core::stun::{self, BindingRequest};
use std::time::Instant;

impl State {
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Flow,
        datagram: &mut [u8],
        via: Option<u8>,
    ) {
        let index = if stun::is_stun(datagram) {
            let Some(request) = BindingRequest::parse(datagram) else {
                return self.out.drop(Drop::Malformed);
            };
            match self.table.by_ufrag(request.local_ufrag) {
                Some(index) => index,
                None => return self.handle_strange_check(now, from, datagram, via),
            }
        } else {
            match self.table.by_flow(from) {
                Some(index) => index,
                None => {
                    let reason = match datagram.first() {
                        Some(20..=63 | 128..=191) => Drop::UnknownAddress,
                        _ => Drop::Malformed,
                    };
                    match self.route(from).filter(|_| via.is_none()) {
                        Some(shard) => self.hand_over(shard, from, self.worker.shard, datagram),
                        None => self.out.drop(reason),
                    }
                    return;
                }
            }
        };
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        entry
            .peer
            .session()
            .handle_datagram(now, from, datagram, &mut self.out);
        if let Peer::Publisher(publisher) = &entry.peer
            && publisher.has_batch()
            && !self.ready.contains(&index)
        {
            self.ready.push(index);
        }
        self.send_from_ring(now, index);
        self.handle_session_events(now, index, via);
        if self.out.slab.room() < 64 * 1024 {
            self.flush();
        }
    }

    /// A check with a user fragment that no session here has: one just closed, or another shard's.
    fn handle_strange_check(&mut self, now: Instant, from: Flow, datagram: &[u8], via: Option<u8>) {
        let Some(request) = BindingRequest::parse(datagram) else {
            return;
        };
        let Some(ufrag) = Ufrag::verify(&self.worker.ufrag_key, request.local_ufrag) else {
            return self.out.drop(Drop::StunUnauthenticated);
        };
        // One that moved here ends here, whatever shard it names.
        let mut answer = [0; stun::MAX_ANSWER];
        if let Some(len) = self.table.forbid(now, &request, &mut answer) {
            // What finds no room in the slab is sent for again, as what the network loses is.
            let _ = self.out.slab.push(from, &answer[..len]);
            return;
        }
        let away = self.away.by_ufrag(&ufrag.0);
        let named = ufrag.shard();
        let elsewhere = named != self.worker.shard
            && via.is_none()
            && usize::from(named) < self.worker.links.len();
        match away.or(elsewhere.then_some(named)) {
            // A connection is moved as a whole, and only by its first check.
            Some(shard) if from.connection().is_none() => {
                let via = via.unwrap_or(self.worker.shard);
                self.hand_over(shard, from, via, datagram);
            }
            _ => self.out.drop(Drop::StunUnauthenticated),
        }
    }

    /// The shard that a peer's datagrams are for.
    fn route(&self, from: Flow) -> Option<u8> {
        // A connection is where its session is.
        match from.connection() {
            None => self.routes.find(&from.remote),
            Some(_) => None,
        }
    }

    fn hand_over(&mut self, shard: u8, from: Flow, via: u8, datagram: &[u8]) {
        let parcel = Parcel::Datagram {
            from,
            via,
            bytes: datagram.into(),
        };
        if !self.worker.links[usize::from(shard)].send(parcel) {
            self.out.drop(Drop::RingFull);
        }
    }

    pub(super) fn bind(&mut self, index: Index, flow: Flow, via: Option<u8>) {
        let over = self.table.bind(index, flow, via);
        let congested = self.is_congested(flow);
        if let Some(Peer::Viewer(viewer)) = self.table.entry(index).map(|e| &mut e.peer) {
            viewer.set_congested(congested);
        }
        if let Some((remote, shard)) = over {
            self.notify_route(shard, remote, false);
        }
        if let Some(shard) = via {
            self.notify_route(shard, flow.remote, true);
        }
    }
}
