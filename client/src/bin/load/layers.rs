//! The simulcast layers of a run: which there are, who asks for which, and what was sent and came of each
//! in the measured window. Counted on the packet path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::Codec;
use client::synthetic::FrameSource;
use serde::Serialize;

/// Bytes of an RTP header without extensions.
const RTP_HEADER: usize = 12;

/// As Chromium names them, the smallest first, with what part of a whole frame one has: about as many
/// bits for a pixel as Chromium gives each.
const LAYERS: [Layer; 3] = [
    Layer {
        rid: "q",
        part: 16,
        size: (320, 180),
    },
    Layer {
        rid: "h",
        part: 4,
        size: (640, 360),
    },
    Layer {
        rid: "f",
        part: 1,
        size: (1280, 720),
    },
];

/// The name of leaving the choice to the server.
pub const AUTO: &str = "auto";

#[derive(Debug, Clone, Copy)]
struct Layer {
    rid: &'static str,
    /// A frame has this part of the bytes of a whole one.
    part: usize,
    size: (u16, u16),
}

/// See the module.
#[derive(Debug)]
pub struct Layers {
    all: &'static [Layer],
    /// What viewers ask for, in turn; `None` is the server's choice.
    choices: Vec<Option<String>>,
    sent: Vec<Count>,
    /// By choice, then by layer.
    got: Vec<Vec<Count>>,
}

#[derive(Debug, Default)]
struct Count {
    packets: AtomicU64,
    payload_bytes: AtomicU64,
}

impl Count {
    fn add(&self, payload: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.payload_bytes
            .fetch_add(payload as u64, Ordering::Relaxed);
    }
}

/// What was sent in each layer, and what viewers got of each, in the measured window.
#[derive(Debug, Clone, Serialize)]
pub struct LayersReport {
    /// Over all devices.
    pub sent: Vec<LayerReport>,
    /// By what they asked for.
    pub viewers: Vec<ChoiceReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    pub rid: &'static str,
    pub packets: u64,
    pub payload_bytes: u64,
    /// Payload of one device, or of one viewer, in the mean.
    pub bits_per_second: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ChoiceReport {
    /// A RID, or `auto`.
    pub layer: String,
    /// Who is there at the end.
    pub viewers: usize,
    /// Empty where others publish.
    pub got: Vec<LayerReport>,
}

impl Layers {
    /// So many layers, of which viewers ask for those in turn.
    pub fn new(count: usize, choices: &[String]) -> Self {
        let all = &LAYERS[LAYERS.len().saturating_sub(count)..];
        let mut choices: Vec<Option<String>> = choices
            .iter()
            .map(|choice| Some(choice.clone()).filter(|choice| choice != AUTO))
            .collect();
        if choices.is_empty() {
            choices.push(None);
        }
        let counts = || all.iter().map(|_| Count::default()).collect();
        Self {
            all,
            sent: counts(),
            got: choices.iter().map(|_| counts()).collect(),
            choices,
        }
    }

    pub fn is_simulcast(&self) -> bool {
        self.all.len() > 1
    }

    /// The names to publish under; none without simulcast.
    pub fn rids(&self) -> Vec<String> {
        match self.is_simulcast() {
            true => self.all.iter().map(|layer| layer.rid.to_owned()).collect(),
            false => Vec::new(),
        }
    }

    /// A source of frames for each layer, of so many packets of so many bytes in the largest.
    pub fn sources(
        &self,
        codec: Codec,
        packets: usize,
        packet_bytes: usize,
        seed: u64,
    ) -> Vec<FrameSource> {
        let payload = packet_bytes - RTP_HEADER;
        let source = |(index, layer): (usize, &Layer)| {
            // A frame of less than two packets would have no start and end of its own.
            let of_layer = packets.div_ceil(layer.part).max(2);
            let bytes = (packets * payload / layer.part / of_layer).min(payload);
            let source = match layer.part {
                1 => FrameSource::new(codec, packets, payload, seed),
                _ => FrameSource::new(codec, of_layer, bytes, seed),
            };
            let source = source.with_layer(index as u8);
            match self.is_simulcast() {
                true => source.with_size(layer.size.0, layer.size.1),
                false => source,
            }
        };
        self.all.iter().enumerate().map(source).collect()
    }

    /// Which choice the viewer of that number has, where there are so many devices: those of each device
    /// take them in turn.
    pub fn choice(&self, number: usize, devices: usize) -> usize {
        number / devices.max(1) % self.choices.len()
    }

    /// The RID of a choice.
    pub fn wanted(&self, choice: usize) -> Option<&str> {
        self.choices.get(choice)?.as_deref()
    }

    pub fn sent(&self, layer: usize, payload: usize) {
        if let Some(count) = self.sent.get(layer) {
            count.add(payload);
        }
    }

    pub fn got(&self, choice: usize, layer: u8, payload: usize) {
        // Without simulcast it would say what is said elsewhere, at a cost for each packet.
        if !self.is_simulcast() {
            return;
        }
        let of_choice = self.got.get(choice);
        if let Some(count) = of_choice.and_then(|counts| counts.get(usize::from(layer))) {
            count.add(payload);
        }
    }

    /// What was counted in that time; `viewers` is how many have each choice. `None` if there was no
    /// choice between layers.
    pub fn report(
        &self,
        window: Duration,
        devices: usize,
        viewers: impl Fn(usize) -> usize,
    ) -> Option<LayersReport> {
        if !self.is_simulcast() && self.choices.iter().all(Option::is_none) {
            return None;
        }
        let reports = |counts: &[Count], sharers: usize| -> Vec<LayerReport> {
            let known = self.all.iter().zip(counts).filter(|_| self.is_simulcast());
            known
                .map(|(layer, count)| {
                    let bytes = count.payload_bytes.load(Ordering::Relaxed);
                    let seconds = window.as_secs_f64() * sharers.max(1) as f64;
                    LayerReport {
                        rid: layer.rid,
                        packets: count.packets.load(Ordering::Relaxed),
                        payload_bytes: bytes,
                        bits_per_second: (bytes as f64 * 8.0 / seconds).round() as u64,
                    }
                })
                .collect()
        };
        let of_choice = |(index, choice): (usize, &Option<String>)| ChoiceReport {
            layer: choice.clone().unwrap_or_else(|| AUTO.to_owned()),
            viewers: viewers(index),
            got: reports(&self.got[index], viewers(index)),
        };
        Some(LayersReport {
            sent: reports(&self.sent, devices),
            viewers: self.choices.iter().enumerate().map(of_choice).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(source: &mut FrameSource) -> usize {
        source
            .frame(false)
            .iter()
            .map(|payload| payload.len())
            .sum()
    }

    #[test]
    fn one_layer_is_what_was_asked_for_and_has_no_name() {
        let layers = Layers::new(1, &[]);
        assert!(layers.rids().is_empty());
        let mut sources = layers.sources(Codec::Vp8, 7, 1_200, 0);
        assert_eq!(sources.len(), 1);
        assert_eq!(bytes(&mut sources[0]), 7 * 1_188);
        assert!(layers.report(Duration::from_secs(1), 1, |_| 1).is_none());
    }

    #[test]
    fn each_layer_has_a_quarter_of_the_next_and_the_largest_is_whole() {
        let layers = Layers::new(3, &[]);
        assert_eq!(layers.rids(), ["q", "h", "f"]);
        assert_eq!(Layers::new(2, &[]).rids(), ["h", "f"]);
        for packets in [2, 7, 40] {
            let mut sources = layers.sources(Codec::Vp8, packets, 1_200, 0);
            let of_all: Vec<usize> = sources.iter_mut().map(bytes).collect();
            assert_eq!(of_all[2], packets * 1_188);
            for (layer, part) in [(0, 16.0), (1, 4.0)] {
                let share = of_all[layer] as f64 * part / of_all[2] as f64;
                assert!((0.9..1.1).contains(&share), "{packets}: {of_all:?}");
            }
        }
    }

    #[test]
    fn the_viewers_of_each_device_take_the_choices_in_turn() {
        let layers = Layers::new(3, &["q".to_owned(), "auto".to_owned()]);
        let wanted = |number| layers.wanted(layers.choice(number, 2));
        assert_eq!(
            [0, 1, 2, 3, 4].map(wanted),
            [Some("q"), Some("q"), None, None, Some("q")]
        );
    }

    #[test]
    fn what_is_got_is_told_by_choice_and_for_one_viewer() {
        let layers = Layers::new(3, &["q".to_owned(), "auto".to_owned()]);
        for _ in 0..4 {
            layers.got(0, 0, 500);
            layers.sent(0, 500);
        }
        layers.got(1, 2, 1_000);
        let told = layers.report(Duration::from_secs(2), 1, |choice| 2 - choice);
        let told = told.expect("there are layers");
        assert_eq!(told.sent[0].bits_per_second, 8_000);
        let [pinned, free] = &told.viewers[..] else {
            panic!("{told:?}");
        };
        assert_eq!((pinned.layer.as_str(), pinned.viewers), ("q", 2));
        assert_eq!(pinned.got[0].bits_per_second, 4_000);
        assert_eq!((free.layer.as_str(), free.got[2].packets), ("auto", 1));
        assert_eq!(free.got[0].packets, 0);
    }
}
