//! What the stages of a connection's interceptor chain have in common: packets wait in both directions
//! until they are fetched, and pass unless the stage keeps them.
//!
//! Decides nothing. `tap`, `repair` and `reference_time` are stages.

use std::collections::VecDeque;
use std::time::Instant;

use rtc::interceptor::{Interceptor, StreamInfo, TaggedPacket};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// A stage that looks at what comes from the network.
pub(crate) trait Stage: Send + Sync + 'static {
    /// Takes a packet, and puts into the queues what goes on or back.
    fn read(&mut self, packet: TaggedPacket, queues: &mut Queues);
    /// Looks at a packet on its way to the network.
    fn written(&mut self, _packet: &TaggedPacket) {}
    fn bind_local(&mut self, _info: &StreamInfo) {}
    fn unbind_local(&mut self, _info: &StreamInfo) {}
    fn bind_remote(&mut self, _info: &StreamInfo) {}
    fn unbind_remote(&mut self, _info: &StreamInfo) {}
}

/// Packets on their way to the application and to the network.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) read: VecDeque<TaggedPacket>,
    pub(crate) write: VecDeque<TaggedPacket>,
}

/// A stage as the chain takes it.
pub(crate) struct Staged<S> {
    stage: S,
    queues: Queues,
}

impl<S: Stage> Staged<S> {
    pub(crate) fn new(stage: S) -> Self {
        let queues = Queues::default();
        Self { stage, queues }
    }
}

impl<S: Stage> Protocol<TaggedPacket, TaggedPacket, ()> for Staged<S> {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.stage.read(packet, &mut self.queues);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<Self::Rout> {
        self.queues.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.stage.written(&packet);
        self.queues.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<Self::Wout> {
        self.queues.write.pop_front()
    }
}

impl<S: Stage> Interceptor for Staged<S> {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        self.stage.bind_local(info);
    }
    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.stage.unbind_local(info);
    }
    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        self.stage.bind_remote(info);
    }
    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.stage.unbind_remote(info);
    }
}
