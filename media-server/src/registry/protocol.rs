//! The ways to ask for a session, in the words of labels and paths.

use media_core::negotiated::Role;

/// The way a session was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Whip,
    Whep,
    /// A 1:1 session of the older API, or of its WebSocket.
    Session,
    /// What the older API calls a publisher: the viewer that others of its device refer to.
    SfuPublisher,
    SfuSubscriber,
}

impl Protocol {
    pub const ALL: [Protocol; 5] = [
        Protocol::Whip,
        Protocol::Whep,
        Protocol::Session,
        Protocol::SfuPublisher,
        Protocol::SfuSubscriber,
    ];

    /// Value of the `protocol` label, and of WHIP and WHEP the first segment of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Whip => "whip",
            Protocol::Whep => "whep",
            Protocol::Session => "session",
            Protocol::SfuPublisher => "sfu_publisher",
            Protocol::SfuSubscriber => "sfu_subscriber",
        }
    }

    pub fn role(self) -> Role {
        match self {
            Protocol::Whip => Role::Publisher,
            _ => Role::Viewer,
        }
    }

    /// Whether its viewers may come before their device.
    pub(super) fn waits(self) -> bool {
        self != Protocol::Whep
    }
}

/// Value of the `role` label.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Publisher => "publisher",
        Role::Viewer => "viewer",
    }
}
