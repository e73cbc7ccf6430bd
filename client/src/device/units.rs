//! NAL units in access units (the pictures of H.264), and where a stream of them may be begun.
//!
//! Pure. Sources collect with [`Units`]; `device` lets pass what [`Entry`] lets.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::annex_b::LONGEST_NAL;

/// The NAL units of one picture, with what belongs in front of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessUnit {
    pub nals: Vec<Bytes>,
}

/// `nal_unit_type` (H.264 table 7-1).
pub(super) fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |first| first & 0x1f)
}

pub(super) const SLICE: u8 = 1;
pub(super) const IDR: u8 = 5;
pub(super) const SPS: u8 = 7;
pub(super) const PPS: u8 = 8;

fn is_slice(nal: &[u8]) -> bool {
    // 2 is partition A of a slice, whose others belong to it.
    matches!(nal_type(nal), SLICE | 2 | IDR)
}

impl AccessUnit {
    /// Whether decoding can begin here.
    pub fn is_keyframe(&self) -> bool {
        self.nals.iter().any(|nal| nal_type(nal) == IDR)
    }

    /// Whether there is a picture in it, and not only what describes the next one.
    pub fn has_picture(&self) -> bool {
        self.nals.iter().any(|nal| is_slice(nal))
    }

    fn last_of_type(&self, wanted: u8) -> Option<&Bytes> {
        self.nals.iter().rfind(|nal| nal_type(nal) == wanted)
    }

    fn annex_b(&self, before: &[Bytes]) -> Bytes {
        let all = || before.iter().chain(&self.nals);
        let mut stream = BytesMut::with_capacity(all().map(|nal| nal.len() + 4).sum());
        for nal in all() {
            stream.put_slice(&[0, 0, 0, 1]);
            stream.put_slice(nal);
        }
        stream.freeze()
    }
}

/// Collects NAL units until the next one begins another picture.
#[derive(Debug, Default)]
pub(super) struct Units {
    unit: AccessUnit,
    bytes: usize,
}

impl Units {
    /// Takes a NAL unit; returns the picture that it shows to be whole.
    pub fn push(&mut self, nal: Bytes) -> Option<AccessUnit> {
        let whole = match begins_unit(&nal) && self.unit.has_picture() {
            true => self.finish(),
            // A picture of more is nobody's: what comes next begins another.
            false if self.bytes + nal.len() > LONGEST_NAL => {
                self.clear();
                None
            }
            false => None,
        };
        self.bytes += nal.len();
        self.unit.nals.push(nal);
        whole
    }

    /// What was collected, if there is a picture in it; else it waits for one.
    pub fn finish(&mut self) -> Option<AccessUnit> {
        let has_picture = self.unit.has_picture();
        has_picture.then(|| {
            self.bytes = 0;
            std::mem::take(&mut self.unit)
        })
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether a NAL unit can't belong to a picture that has slices (H.264 §7.4.1.2.3).
fn begins_unit(nal: &[u8]) -> bool {
    match nal_type(nal) {
        6..=9 | 14..=18 => true,
        // `first_mb_in_slice` is 0, whose Exp-Golomb code is a single 1.
        SLICE | 2 | IDR => nal.get(1).is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

/// Where a stream is begun or goes on after a gap: at a keyframe, with the parameter sets that it needs.
#[derive(Debug, Default)]
pub(super) struct Entry {
    sps: Option<Bytes>,
    pps: Option<Bytes>,
    open: bool,
}

impl Entry {
    /// Something is missing from here on: nothing passes before the next keyframe.
    pub fn cut(&mut self) {
        self.open = false;
    }

    /// Keeps the parameter sets of a picture that is not sent.
    pub fn learn(&mut self, unit: &AccessUnit) {
        for (set, kind) in [(&mut self.sps, SPS), (&mut self.pps, PPS)] {
            if let Some(own) = unit.last_of_type(kind) {
                *set = Some(own.clone());
            }
        }
    }

    /// The picture as a byte stream, each keyframe with its parameter sets; `None` while it waits for a
    /// keyframe, or for parameter sets, without which nobody can decode it.
    pub fn pass(&mut self, unit: &AccessUnit) -> Option<Bytes> {
        self.learn(unit);
        let mut before = Vec::new();
        if unit.is_keyframe() {
            for (set, kind) in [(&self.sps, SPS), (&self.pps, PPS)] {
                let set = set.as_ref()?;
                if unit.last_of_type(kind).is_none() {
                    before.push(set.clone());
                }
            }
            self.open = true;
        }
        self.open.then(|| unit.annex_b(&before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUD: &[u8] = &[9, 0xf0];
    const SPS_A: &[u8] = &[0x67, 1];
    const PPS_A: &[u8] = &[0x68, 2];
    const KEY: &[u8] = &[0x65, 0x88, 3];
    const KEY_REST: &[u8] = &[0x65, 0x40, 4];
    const DELTA: &[u8] = &[0x41, 0x9a, 5];

    fn unit(nals: &[&'static [u8]]) -> AccessUnit {
        let nals = nals.iter().map(|nal| Bytes::from_static(nal)).collect();
        AccessUnit { nals }
    }

    fn collect(nals: &[&'static [u8]]) -> Vec<AccessUnit> {
        let mut units = Units::default();
        let each = nals.iter().map(|nal| Bytes::from_static(nal));
        let mut got: Vec<AccessUnit> = each.filter_map(|nal| units.push(nal)).collect();
        got.extend(units.finish());
        got
    }

    #[test]
    fn a_picture_has_its_slices_and_what_stands_before_the_first() {
        let stream = [
            SPS_A, PPS_A, KEY, KEY_REST, DELTA, AUD, DELTA, SPS_A, PPS_A, KEY, DELTA,
        ];
        let expected = [
            unit(&[SPS_A, PPS_A, KEY, KEY_REST]),
            unit(&[DELTA]),
            unit(&[AUD, DELTA]),
            unit(&[SPS_A, PPS_A, KEY]),
            unit(&[DELTA]),
        ];
        assert_eq!(collect(&stream), expected);
    }

    #[test]
    fn parameter_sets_alone_wait_for_their_picture() {
        assert_eq!(collect(&[SPS_A, PPS_A]), []);
        assert_eq!(collect(&[SPS_A, &[0x67, 9], PPS_A, KEY]).len(), 1);
    }

    #[test]
    fn a_picture_without_end_does_not_fill_memory() {
        let mut units = Units::default();
        let part = Bytes::from(vec![0x41; 1024 * 1024]);
        for _ in 0..100 {
            // A slice that is not the first of its picture.
            let mut nal = BytesMut::from(&part[..]);
            nal[1] = 0x40;
            units.push(nal.freeze());
            assert!(units.bytes <= LONGEST_NAL);
        }
    }

    fn stream(nals: &[&[u8]]) -> Bytes {
        let with_codes = nals
            .iter()
            .flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat());
        with_codes.collect::<Vec<u8>>().into()
    }

    #[test]
    fn a_stream_begins_at_a_keyframe_whose_parameter_sets_are_known() {
        let mut entry = Entry::default();
        assert_eq!(entry.pass(&unit(&[DELTA])), None);
        assert_eq!(entry.pass(&unit(&[KEY])), None, "nobody could decode it");
        assert_eq!(entry.pass(&unit(&[SPS_A, DELTA])), None);
        assert_eq!(
            entry.pass(&unit(&[PPS_A, KEY])),
            Some(stream(&[SPS_A, PPS_A, KEY]))
        );
        assert_eq!(entry.pass(&unit(&[DELTA])), Some(stream(&[DELTA])));
        assert_eq!(
            entry.pass(&unit(&[KEY])),
            Some(stream(&[SPS_A, PPS_A, KEY]))
        );
    }

    #[test]
    fn parameter_sets_of_pictures_that_were_left_out_hold_for_later_ones() {
        let mut entry = Entry::default();
        entry.learn(&unit(&[SPS_A, PPS_A, KEY]));
        assert_eq!(entry.pass(&unit(&[DELTA])), None);
        assert_eq!(
            entry.pass(&unit(&[KEY])),
            Some(stream(&[SPS_A, PPS_A, KEY]))
        );
    }

    #[test]
    fn after_a_gap_nothing_passes_before_the_next_keyframe_and_new_parameter_sets_hold() {
        let mut entry = Entry::default();
        let first = unit(&[SPS_A, PPS_A, KEY]);
        assert_eq!(entry.pass(&first), Some(stream(&[SPS_A, PPS_A, KEY])));
        entry.cut();
        assert_eq!(entry.pass(&unit(&[&[0x67, 8], &[0x68, 9], DELTA])), None);
        let again = entry.pass(&unit(&[KEY]));
        assert_eq!(again, Some(stream(&[&[0x67, 8], &[0x68, 9], KEY])));
    }
}
