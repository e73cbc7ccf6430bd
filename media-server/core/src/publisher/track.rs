//! One track of a publisher: its simulcast layers, of which there is one without simulcast, and which
//! of them a packet belongs to.

use super::stream::Stream;
use super::{KEYFRAME_INTERVAL, SILENT_STREAM};
use crate::cells::{Drop, KeyframeCause};
use crate::layers;
use crate::negotiated::{self, Extensions, Kind, PayloadType};
use crate::rtp;
use crate::stats::Rates;
use std::time::{Duration, Instant};

/// A layer of which nothing came for this long while another one went on is stopped. All pause
/// together when the picture stands still, and that stops none.
const STOPPED_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Track {
    pub(super) kind: Kind,
    pub(super) payload_types: Vec<PayloadType>,
    pub(super) extensions: Extensions,
    /// In the order of the offer; never empty.
    pub(super) layers: Vec<Layer>,
}

/// One simulcast layer, or all there is.
#[derive(Default)]
pub(super) struct Layer {
    /// Empty without simulcast.
    rid: Box<str>,
    /// When its first packet came.
    pub(super) began: Option<Instant>,
    pub(super) stream: Option<Stream>,
    /// What its retransmissions come under, once one came.
    rtx_ssrc: Option<u32>,
    /// When its last keyframe was asked for, and why one is still wanted.
    pub(super) keyframe_asked: Option<Instant>,
    pub(super) keyframe_wanted: Option<KeyframeCause>,
    pub(super) rates: Rates,
    /// Frames and bits in the last second.
    pub(super) figures: (f64, f64),
    live: bool,
    size: (u16, u16),
}

impl Track {
    pub(super) fn new(agreed: &negotiated::Track) -> Track {
        let mut layers: Vec<Layer> = agreed
            .rids
            .iter()
            .map(|rid| Layer {
                rid: rid.clone(),
                ..Layer::default()
            })
            .collect();
        if layers.is_empty() {
            layers.push(Layer::default());
        }
        Track {
            kind: agreed.kind,
            payload_types: agreed.payload_types.clone(),
            extensions: agreed.extensions,
            layers,
        }
    }

    pub(super) fn is_simulcast(&self) -> bool {
        self.layers.iter().any(|layer| !layer.rid.is_empty())
    }

    /// Index of the layer that an authentic packet belongs to: that of its SSRC, else the one that its
    /// header names (RFC 8852), which devices leave out once a report shows that we know the SSRC.
    pub(super) fn layer_of(
        &self,
        header: &rtp::Header,
        packet: &[u8],
        repairs: bool,
    ) -> Result<usize, Drop> {
        let ssrc = Some(header.ssrc);
        let known = self.layers.iter().position(|layer| {
            let own = if repairs {
                layer.rtx_ssrc
            } else {
                layer.stream.as_ref().map(|stream| stream.ssrc)
            };
            own == ssrc
        });
        if let Some(at) = known.or((!self.is_simulcast()).then_some(0)) {
            return Ok(at);
        }
        let id = if repairs {
            self.extensions.repaired_rid
        } else {
            self.extensions.rid
        };
        let mut named = header
            .extensions(packet)
            .filter(|(own, _)| Some(*own) == id);
        let (_, rid) = named.next().ok_or(Drop::UnknownStream)?;
        let at = self
            .layers
            .iter()
            .position(|layer| layer.rid.as_bytes() == rid);
        at.ok_or(Drop::UnknownLayer)
    }

    /// Compares when the layers were heard last; `true` if one was found to have stopped.
    pub(super) fn note_stopped(&mut self, now: Instant) -> bool {
        let mut stopped = false;
        for layer in &mut self.layers {
            let heard = layer.stream.as_ref().map(|stream| stream.heard);
            if layer.live && heard.is_none_or(|at| now > at + STOPPED_AFTER) {
                layer.live = false;
                // None comes, however often it is asked for.
                layer.keyframe_wanted = None;
                stopped = true;
            }
        }
        stopped
    }

    /// The layers as others see them.
    pub(super) fn describe(&self, publisher: u64) -> layers::Layers {
        let describe = |layer: &Layer| layers::Layer {
            rid: layer.rid.clone(),
            live: layer.live,
            width: layer.size.0,
            height: layer.size.1,
            bits_per_second: layer.figures.1 as u64,
        };
        layers::Layers {
            publisher,
            all: self.layers.iter().map(describe).collect(),
        }
    }

    /// When the next keyframe that is still wanted is asked for.
    pub(super) fn keyframe_due(&self) -> Option<Instant> {
        let asked = |layer: &Layer| {
            layer
                .keyframe_asked
                .filter(|_| layer.keyframe_wanted.is_some())
        };
        let next = self.layers.iter().filter_map(asked).min()?;
        Some(next + KEYFRAME_INTERVAL)
    }
}

impl Layer {
    /// The layer's stream, if this packet belongs to it. A new SSRC takes over once the old one is
    /// silent; two at a time were not negotiated.
    pub(super) fn stream_for(
        &mut self,
        now: Instant,
        header: &rtp::Header,
        seq: u64,
        next_source: &mut u64,
    ) -> Option<&mut Stream> {
        match &self.stream {
            Some(stream) if stream.ssrc == header.ssrc => {}
            Some(stream) if now < stream.heard + SILENT_STREAM => return None,
            _ => {
                *next_source = next_source.wrapping_add(1);
                self.stream = Some(Stream::new(now, *next_source, header, seq));
                self.began.get_or_insert(now);
            }
        }
        self.stream.as_mut()
    }

    /// The stream that a retransmission under this SSRC repairs.
    pub(super) fn stream_of_repair(&mut self, ssrc: u32) -> Option<&mut Stream> {
        self.rtx_ssrc = Some(ssrc);
        self.stream.as_mut()
    }

    /// Notes that a packet came, and the size if it begins a keyframe; `true` if that changes what
    /// others see.
    pub(super) fn note_packet(&mut self, size: Option<(u16, u16)>) -> bool {
        let resized = size.is_some_and(|size| std::mem::replace(&mut self.size, size) != size);
        !std::mem::replace(&mut self.live, true) || resized
    }

    /// Notes that a keyframe is wanted, unless the layer has stopped: it would be asked for again and again.
    pub(super) fn want_keyframe(&mut self, cause: KeyframeCause) {
        let stopped = !self.rid.is_empty() && self.stream.is_some() && !self.live;
        if !stopped {
            self.keyframe_wanted.get_or_insert(cause);
        }
    }

    /// Of which stream it is time to ask for a keyframe, and why.
    pub(super) fn keyframe_to_ask(&self, now: Instant) -> Option<(u32, KeyframeCause)> {
        let asked = |at| now < at + KEYFRAME_INTERVAL;
        let cause = self.keyframe_wanted?;
        let stream = self.stream.as_ref()?;
        (!self.keyframe_asked.is_some_and(asked)).then_some((stream.ssrc, cause))
    }
}
