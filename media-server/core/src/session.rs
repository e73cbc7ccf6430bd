//! A session as its shard sees it, whatever is behind: datagrams and the time go in, datagrams and
//! events come out.

mod transport;

pub use transport::Credentials;
pub(crate) use transport::{DISCONNECTED_AFTER, Received, Transport};

use crate::cells::SessionCells;
use crate::channel::Unsent;
use crate::clock::WallClock;
use crate::dtls::Identity;
use crate::flow::Flow;
use crate::ids::{IcePwd, SessionId, Ufrag};
use crate::negotiated::Negotiated;
use crate::output::Output;
use std::sync::Arc;
use std::time::Instant;

/// What a session is made from.
pub struct SessionConfig {
    pub id: SessionId,
    pub ufrag: Ufrag,
    pub pwd: IcePwd,
    pub negotiated: Negotiated,
    pub cells: Arc<SessionCells>,
    pub identity: Identity,
    pub clock: WallClock,
}

/// One WebRTC session on the virtual clock of its caller. All calls come from one thread; none
/// blocks. Results are left in [`Output`], whose events belong to the session last called.
pub trait Session {
    /// Takes a datagram that is addressed to this session: STUN with its user fragment, or
    /// anything of a flow that it bound. The bytes are used as work space.
    fn handle_datagram(&mut self, now: Instant, from: Flow, datagram: &mut [u8], out: &mut Output);

    /// Does what is due. Called at or after [`poll_timeout`](Self::poll_timeout).
    fn handle_timeout(&mut self, now: Instant, out: &mut Output);

    /// When [`handle_timeout`](Self::handle_timeout) is due next. Moves with every other call.
    fn poll_timeout(&self) -> Instant;

    /// Takes the ICE credentials of a restart. Media goes on where it went until a check with them
    /// moves it.
    fn restart(&mut self, credentials: Credentials);

    /// Sends a message on the data channel `control` of the peer.
    ///
    /// # Errors
    /// [`Unsent`]; the message is not kept.
    fn send_message(
        &mut self,
        now: Instant,
        message: &[u8],
        out: &mut Output,
    ) -> Result<(), Unsent>;

    /// Says goodbye to the peer. Nothing is called afterwards.
    fn close(&mut self, now: Instant, out: &mut Output);
}
