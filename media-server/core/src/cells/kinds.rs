//! What is told apart where a shard counts, and the label values of it.

/// Why a datagram or packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// Neither STUN, DTLS nor RTP, or cut short.
    Malformed,
    /// STUN for no session, or with a wrong MESSAGE-INTEGRITY.
    StunUnauthenticated,
    /// A check that repeats the transaction of another address.
    StunReplay,
    /// From an address that no session is bound to.
    UnknownAddress,
    /// DTLS that the handshake has no use for, or beyond what a peer may make us hold.
    Dtls,
    /// SRTP or SRTCP that does not verify, or before keys exist.
    SrtpUnauthenticated,
    /// SRTP or SRTCP seen before, or older than the window.
    SrtpReplay,
    /// RTP of a payload type or stream that was not negotiated.
    UnknownStream,
    /// Of a simulcast layer that was not agreed on, as those beyond the third.
    UnknownLayer,
    /// A retransmission of what is there already.
    Duplicate,
    /// More packets missing of one stream than are asked for again.
    NackOverflow,
    /// Video withheld from a viewer until the next keyframe.
    NoKeyframe,
    /// The viewer did not negotiate the publisher's codec.
    CodecMismatch,
    /// The kernel took no more to send.
    SocketFull,
    /// A TCP connection is behind: video is withheld up to a keyframe, and nothing goes into a full queue.
    TcpFull,
    /// To a TCP connection that is gone.
    TcpClosed,
    /// The kernel had no room for what arrived.
    ReceiveOverflow,
    /// Another shard did not keep up.
    RingFull,
    /// More than a new address may get before it proved itself.
    UnprovenPath,
    /// No room for it between two flushes, or its index was used before.
    NotSealed,
    /// A viewer asked for a packet that is no longer held.
    NotHeld,
    /// A viewer asked for one packet, or for all, more often than it gets them.
    RetransmissionLimit,
    /// Video that a viewer's bandwidth has no room for: pictures of higher temporal layers, or all until
    /// the next keyframe.
    Congestion,
    /// An arrival that a publisher is not told of, or a viewer's feedback of no use: too much at once.
    Feedback,
    /// SCTP beyond what a peer may make us hold, or a data channel other than `control`.
    Sctp,
}

impl Drop {
    pub const ALL: [Drop; 25] = [
        Drop::Malformed,
        Drop::StunUnauthenticated,
        Drop::StunReplay,
        Drop::UnknownAddress,
        Drop::Dtls,
        Drop::SrtpUnauthenticated,
        Drop::SrtpReplay,
        Drop::UnknownStream,
        Drop::UnknownLayer,
        Drop::Duplicate,
        Drop::NackOverflow,
        Drop::NoKeyframe,
        Drop::CodecMismatch,
        Drop::SocketFull,
        Drop::TcpFull,
        Drop::TcpClosed,
        Drop::ReceiveOverflow,
        Drop::RingFull,
        Drop::UnprovenPath,
        Drop::NotSealed,
        Drop::NotHeld,
        Drop::RetransmissionLimit,
        Drop::Congestion,
        Drop::Feedback,
        Drop::Sctp,
    ];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Drop::Malformed => "malformed",
            Drop::StunUnauthenticated => "stun_unauthenticated",
            Drop::StunReplay => "stun_replay",
            Drop::UnknownAddress => "unknown_address",
            Drop::Dtls => "dtls",
            Drop::SrtpUnauthenticated => "srtp_unauthenticated",
            Drop::SrtpReplay => "srtp_replay",
            Drop::UnknownStream => "unknown_stream",
            Drop::UnknownLayer => "unknown_layer",
            Drop::Duplicate => "duplicate",
            Drop::NackOverflow => "nack_overflow",
            Drop::NoKeyframe => "no_keyframe",
            Drop::CodecMismatch => "codec_mismatch",
            Drop::SocketFull => "socket_full",
            Drop::TcpFull => "tcp_full",
            Drop::TcpClosed => "tcp_closed",
            Drop::ReceiveOverflow => "receive_overflow",
            Drop::RingFull => "ring_full",
            Drop::UnprovenPath => "unproven_path",
            Drop::NotSealed => "not_sealed",
            Drop::NotHeld => "not_held",
            Drop::RetransmissionLimit => "retransmission_limit",
            Drop::Congestion => "congestion",
            Drop::Feedback => "feedback",
            Drop::Sctp => "sctp",
        }
    }
}

/// What a session's bounded memory no longer had when it was needed, or let go of too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Forgotten {
    /// A check that was less than a minute old: played again from elsewhere, it would be taken for a new one.
    Transaction,
    /// Under which numbers a viewer got a packet that it asks for again, or that came late.
    Segment,
}

impl Forgotten {
    pub const ALL: [Forgotten; 2] = [Forgotten::Transaction, Forgotten::Segment];

    /// Value of the label `bound`.
    pub fn as_str(self) -> &'static str {
        match self {
            Forgotten::Transaction => "transactions",
            Forgotten::Segment => "segments",
        }
    }
}

/// A publisher's video beside the limit that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum VideoLimit {
    /// It sends nine tenths of it or more: the limit holds it down.
    Reached,
    /// It sends a tenth more than it should.
    Exceeded,
}

impl VideoLimit {
    pub const ALL: [VideoLimit; 2] = [VideoLimit::Reached, VideoLimit::Exceeded];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            VideoLimit::Reached => "reached",
            VideoLimit::Exceeded => "exceeded",
        }
    }
}

/// How a second was for a viewer of a live device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Watched {
    Good,
    /// Nothing was sent for a second or longer, and there was something to send, or the device was out of reach.
    Gap,
    /// Of what was sent, a twentieth or more was lost.
    Loss,
    /// Nothing was sent for a second or longer, since the device sent no picture: it was there all the time.
    Still,
}

impl Watched {
    pub const ALL: [Watched; 4] = [Watched::Good, Watched::Gap, Watched::Loss, Watched::Still];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Watched::Good => "good",
            Watched::Gap => "gap",
            Watched::Loss => "loss",
            Watched::Still => "still",
        }
    }
}

/// Why a publisher is asked for a keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum KeyframeCause {
    /// A viewer starts, or starts again, and the ring has nothing for it to start with.
    Start,
    /// A viewer asked: it can't go on from what it has.
    Lost,
    /// A viewer goes to another simulcast layer.
    Layer,
    /// There is room again for what was held back.
    Room,
    /// A session's path moved, and what was on its way is lost.
    Moved,
    /// A recording begins, or has lost some.
    Recording,
}

impl KeyframeCause {
    pub const ALL: [KeyframeCause; 6] = [
        KeyframeCause::Start,
        KeyframeCause::Lost,
        KeyframeCause::Layer,
        KeyframeCause::Room,
        KeyframeCause::Moved,
        KeyframeCause::Recording,
    ];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyframeCause::Start => "start",
            KeyframeCause::Lost => "lost",
            KeyframeCause::Layer => "layer",
            KeyframeCause::Room => "room",
            KeyframeCause::Moved => "moved",
            KeyframeCause::Recording => "recording",
        }
    }
}

/// How a viewer got a picture to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Served {
    /// From the ring.
    Cache,
    /// It waited for a keyframe.
    Keyframe,
    /// From the ring once more: it had lost what it was to begin with, or its path moved.
    Again,
}

impl Served {
    pub const ALL: [Served; 3] = [Served::Cache, Served::Keyframe, Served::Again];

    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Served::Cache => "cache",
            Served::Keyframe => "keyframe",
            Served::Again => "again",
        }
    }
}
