//! The data channel `control` of a session (RFC 8831), which the client opens in its offer.
//!
//! Carries text as it is given: what messages say is between a viewer, the server and the device. Made by
//! `peer` before the offer, for publishers and viewers that ask for it.

use std::sync::Arc;

use bytes::BytesMut;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::peer_connection::PeerConnection;

use crate::{ClientError, Options};

/// See the module.
pub struct Control {
    channel: Arc<dyn DataChannel>,
}

impl Control {
    /// The one name that the server takes.
    pub const LABEL: &str = "control";

    /// `None` where it is not asked for.
    pub(crate) async fn create(
        connection: &dyn PeerConnection,
        options: &Options,
    ) -> Result<Option<Self>, ClientError> {
        if !options.control {
            return Ok(None);
        }
        let channel = connection.create_data_channel(Self::LABEL, None).await;
        channel
            .map(|channel| Some(Self { channel }))
            .map_err(failed("create the data channel"))
    }

    /// Waits until the server has accepted the channel; `false` if it refused it. Called once, before the
    /// first message.
    pub async fn opened(&self) -> bool {
        loop {
            match self.channel.poll().await {
                Some(DataChannelEvent::OnOpen) => return true,
                Some(DataChannelEvent::OnClose) | None => return false,
                Some(_) => {}
            }
        }
    }

    /// Sends a message as text.
    ///
    /// # Errors
    /// [`ClientError::Peer`] if the channel is not open, or the message is longer than the server takes.
    pub async fn send(&self, message: &str) -> Result<(), ClientError> {
        let sent = self.channel.send_text(message).await;
        sent.map_err(failed("send a message"))
    }

    /// Sends a message as bytes.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_bytes(&self, message: &[u8]) -> Result<(), ClientError> {
        let sent = self.channel.send(BytesMut::from(message)).await;
        sent.map_err(failed("send a message"))
    }

    /// The next message; `None` once the channel is closed.
    pub async fn receive(&self) -> Option<String> {
        loop {
            match self.channel.poll().await? {
                DataChannelEvent::OnMessage(message) => {
                    return Some(String::from_utf8_lossy(&message.data).into_owned());
                }
                DataChannelEvent::OnClose => return None,
                _ => {}
            }
        }
    }
}

fn failed(attempt: &'static str) -> impl Fn(webrtc::error::Error) -> ClientError {
    move |source| ClientError::Peer { attempt, source }
}
