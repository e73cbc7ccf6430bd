//! The simulcast layers of a publisher (RFC 8853): which there are, how large each is, which is alive.
//!
//! Plain data. The publisher writes it anew when something changed and hands it on with its media;
//! viewers choose by it, and shards keep it.

/// Layers of one video track that are received. Browsers send three at most; of more, the first ones
/// are taken and the others refused in the answer.
pub const MAX_LAYERS: usize = 3;

/// One layer as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layer {
    /// Its restriction identifier (RFC 8851): the name that its publisher gave it.
    pub rid: Box<str>,
    /// Whether packets of it come: a device stops layers that its uplink has no room for.
    pub live: bool,
    /// Of its last keyframe, in pixels; 0 if not known.
    pub width: u16,
    pub height: u16,
    /// Payload bits in the last second.
    pub bits_per_second: u64,
}

/// All layers of a publisher in the order of its offer. The index here is what packets carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers {
    /// Tells publishers apart: an index means nothing in another one's layers.
    pub publisher: u64,
    pub all: Vec<Layer>,
}

impl Layers {
    /// The live layers from the best to the least. Size decides: a bitrate does not, because a device
    /// short of uplink gives its lower layers all they want and the highest what is left. Where sizes
    /// do not tell, the offer's order is that of preference (RFC 8853 §5.2).
    pub fn ranked(&self) -> Vec<u8> {
        let mut live: Vec<u8> = (0..)
            .zip(&self.all)
            .filter(|(_, layer)| layer.live)
            .map(|(index, _)| index)
            .collect();
        live.sort_by_key(|index| {
            let layer = &self.all[usize::from(*index)];
            std::cmp::Reverse(u32::from(layer.width) * u32::from(layer.height))
        });
        live
    }

    /// The best layer whose packets come.
    pub fn best(&self) -> Option<u8> {
        self.ranked().first().copied()
    }

    pub fn is_live(&self, index: u8) -> bool {
        self.all.get(usize::from(index)).is_some_and(|l| l.live)
    }

    pub fn find(&self, rid: &str) -> Option<u8> {
        let at = self.all.iter().position(|layer| *layer.rid == *rid)?;
        u8::try_from(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(sizes: [(u16, bool); 3]) -> Layers {
        let layer = |(width, live): (u16, bool)| Layer {
            rid: width.to_string().into(),
            live,
            width,
            height: width / 2,
            bits_per_second: 1,
        };
        Layers {
            publisher: 1,
            all: sizes.map(layer).into(),
        }
    }

    #[test]
    fn the_largest_live_layer_is_the_best_whatever_its_place_in_the_offer() {
        assert_eq!(
            layers([(320, true), (1280, true), (640, true)]).ranked(),
            [1, 2, 0]
        );
        let stopped = layers([(320, true), (1280, false), (640, true)]);
        assert_eq!((stopped.best(), stopped.is_live(1)), (Some(2), false));
        assert_eq!(layers([(320, false); 3]).best(), None);
    }

    #[test]
    fn without_sizes_the_first_offered_is_preferred() {
        assert_eq!(layers([(0, true); 3]).ranked(), [0, 1, 2]);
    }
}
