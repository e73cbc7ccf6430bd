//! A WHEP viewer (draft-ietf-wish-whep-04): one session that receives what a device sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

use crate::codec::Role;
use crate::http::endpoint;
use crate::peer::{Peer, RESTART_TIMEOUT};
use crate::publisher::end;
use crate::setup::SetupClock;
use crate::{
    ClientError, Codec, Control, Http, Kind, Options, PacketSink, PeerState, Reception, Resource,
    SetupTimes,
};

/// A connected session that media arrives on.
pub struct Viewer {
    http: Http,
    resource: Resource,
    peer: Peer,
    clock: SetupClock,
}

/// A viewer whose offer is ready and whose POST is still to come: the part of a set-up that costs the
/// player and not the server. A crowd of them can arrive at once.
pub struct PreparedViewer {
    endpoint: Url,
    peer: Peer,
    offer: String,
    options: Options,
    prepared: Duration,
}

impl PreparedViewer {
    /// Makes the offer. Nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Url`], or [`ClientError::Peer`] and [`ClientError::Timeout`] of the local
    /// preparations.
    pub async fn new(
        url: &str,
        options: &Options,
        codecs: &[Codec],
        sink: Option<Arc<dyn PacketSink>>,
    ) -> Result<Self, ClientError> {
        let endpoint = endpoint(url)?;
        let clock = SetupClock::start();
        let peer = Peer::new(Role::Viewer, codecs, &endpoint, options, sink).await?;
        for kind in [Kind::Video, Kind::Audio] {
            let Some(codec) = codecs.iter().find(|codec| codec.kind() == kind) else {
                continue;
            };
            peer.connection
                .add_transceiver_from_kind(
                    codec.rtp_kind(),
                    Some(RTCRtpTransceiverInit {
                        direction: RTCRtpTransceiverDirection::Recvonly,
                        ..Default::default()
                    }),
                )
                .await
                .map_err(|source| ClientError::Peer {
                    attempt: "add a receiver",
                    source,
                })?;
        }
        let offer = peer.offer().await?;
        Ok(Self {
            endpoint,
            peer,
            offer,
            options: options.clone(),
            prepared: clock.elapsed(),
        })
    }

    /// Opens the session and waits until it is connected. Time spent between [`Self::new`] and this
    /// counts in none of the set-up times.
    ///
    /// # Errors
    /// As [`Viewer::connect`].
    pub async fn join(self, http: &Http) -> Result<Viewer, ClientError> {
        let Self {
            endpoint,
            mut peer,
            offer,
            options,
            prepared,
        } = self;
        let mut clock = SetupClock::started(prepared);
        clock.times.offered = prepared;
        let (answer, resource) = match http.post_offer(&endpoint, offer).await {
            Ok(opened) => opened,
            Err(error) => {
                peer.close().await;
                return Err(error);
            }
        };
        clock.times.answered = clock.elapsed();
        if let Err(error) = peer.accept_answer(answer, &options).await {
            end(http, &resource, &mut peer).await.ok();
            return Err(error);
        }
        clock.connected(&peer);
        Ok(Viewer {
            http: http.clone(),
            resource,
            peer,
            clock,
        })
    }
}

impl Viewer {
    /// Opens a session at the WHEP endpoint and waits until it is connected.
    ///
    /// `codecs` are the ones that it can take, the preferred first; there is one m-line for each
    /// kind among them. Every packet goes to `sink`, if there is one; counting happens anyway.
    ///
    /// # Errors
    /// As [`crate::Publisher::connect`]. Without a live publisher the server refuses with 409.
    pub async fn connect(
        url: &str,
        http: &Http,
        options: &Options,
        codecs: &[Codec],
        sink: Option<Arc<dyn PacketSink>>,
    ) -> Result<Self, ClientError> {
        PreparedViewer::new(url, options, codecs, sink)
            .await?
            .join(http)
            .await
    }

    /// What arrived so far.
    pub fn reception(&self) -> Reception {
        self.peer.tap.reception()
    }

    /// Packets that arrived so far, without the copy that [`Self::reception`] makes.
    pub fn packets(&self) -> u64 {
        self.peer.tap.packets()
    }

    /// Waits for the first media packet; returns when it came, from the start of the set-up.
    pub async fn first_packet(&self) -> Duration {
        let at: Instant = self.peer.tap.first_packet().await;
        self.clock.since_start(at)
    }

    /// That moment, from the start of the set-up.
    pub fn since_start(&self, at: Instant) -> Duration {
        self.clock.since_start(at)
    }

    /// Asks for a keyframe of every video track (PLI, RFC 4585 §6.3.1).
    ///
    /// # Errors
    /// [`ClientError::Peer`] once the connection is closed.
    pub async fn request_keyframe(&self) -> Result<(), ClientError> {
        for track in self.peer.tracks() {
            for media_ssrc in track.ssrcs().await {
                track
                    .write_rtcp(vec![Box::new(PictureLossIndication {
                        sender_ssrc: 1,
                        media_ssrc,
                    })])
                    .await
                    .map_err(|source| ClientError::Peer {
                        attempt: "ask for a keyframe",
                        source,
                    })?;
            }
        }
        Ok(())
    }

    /// Asks for a simulcast layer of the device by its RID; `None` leaves the choice to the server. The
    /// change comes with that layer's next keyframe.
    ///
    /// # Errors
    /// [`ClientError::NoLayerChoice`], or [`ClientError::Refused`] for a layer that the device lacks.
    pub async fn select_layer(&self, rid: Option<&str>) -> Result<(), ClientError> {
        self.http.select_layer(&self.resource, rid).await
    }

    /// The data channel `control`, with [`Options::control`].
    pub fn control(&self) -> Option<&Control> {
        self.peer.control.as_ref()
    }

    /// Where the connection stands.
    pub fn state(&self) -> PeerState {
        self.peer.state()
    }

    /// Waits until the session is over, whoever ended it.
    pub async fn over(&self) -> PeerState {
        self.peer.over().await
    }

    /// How long the set-up took.
    pub fn setup_times(&self) -> SetupTimes {
        self.clock.times
    }

    /// The server's last answer, as it came: a restart's is put together from its fragment.
    pub fn answer(&self) -> &str {
        self.peer.answer()
    }

    /// The session resource on the server.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Restarts ICE on new sockets and waits until media can flow again; the session goes on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's words, or why nothing connected. The session is
    /// left as it is: what the server refuses it keeps, and so should its client.
    pub async fn restart_ice(&mut self) -> Result<(), ClientError> {
        self.peer
            .restart_ice(&self.http, &mut self.resource, RESTART_TIMEOUT)
            .await
    }

    /// Ends the session: DELETE, then closes the connection.
    ///
    /// # Errors
    /// [`ClientError`] of the DELETE; the connection is closed in any case.
    pub async fn close(mut self) -> Result<(), ClientError> {
        end(&self.http, &self.resource, &mut self.peer).await
    }

    /// Closes the connection without a DELETE.
    pub async fn abandon(mut self) {
        self.peer.close().await;
    }
}
