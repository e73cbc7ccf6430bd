//! Sums over viewers, those who are there and those who left.

use std::time::Duration;

use client::{Codec, Reception};

use crate::blind::Blind;
use crate::join::{Group, Watching};
use crate::report::Joined;

/// Set-ups of viewers who left whose times are kept.
const MAX_JOINED: usize = 100_000;

/// What viewers got, and what they should have got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub viewers: u64,
    pub packets: u64,
    pub payload_bytes: u64,
    /// Missing by sequence gaps.
    pub lost: u64,
    pub video_frames: u64,
    /// All that was sent, for those who were there before; else what the sequence numbers they saw
    /// span.
    pub expected: u64,
    pub without_picture: u64,
}

impl Totals {
    /// Of one viewer. `sent` is what its device has sent so far, if this run sends it.
    fn of(watch: &Watching, reception: &Reception, sent: Option<u64>) -> Self {
        let spanned = reception.packets() + reception.lost();
        Self {
            viewers: 1,
            packets: reception.packets(),
            payload_bytes: reception.payload_bytes(),
            lost: reception.lost(),
            video_frames: reception.video_frames(),
            expected: match sent {
                Some(sent) if watch.group == Group::AtRest => sent,
                _ => spanned,
            },
            without_picture: u64::from(watch.eye.picture().is_none()),
        }
    }

    fn add(&mut self, other: Self) {
        self.viewers += other.viewers;
        self.packets += other.packets;
        self.payload_bytes += other.payload_bytes;
        self.lost += other.lost;
        self.video_frames += other.video_frames;
        self.expected += other.expected;
        self.without_picture += other.without_picture;
    }

    /// The sum.
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|one| sum.add(one));
        sum
    }
}

/// Who leaves sooner may have seen nothing yet, and it was nobody's fault.
const SEES_WITHIN: Duration = Duration::from_secs(2);

/// Viewers who left, by device.
pub struct Departed {
    totals: Vec<Totals>,
    joined: Vec<(Group, Joined)>,
    codec: Codec,
    stamped: bool,
    /// Those who saw no picture.
    pub blind: Blind,
}

impl Departed {
    /// `stamped` if this run publishes what they watched.
    pub fn new(devices: usize, codec: Codec, stamped: bool) -> Self {
        Self {
            totals: vec![Totals::default(); devices],
            joined: Vec::new(),
            codec,
            stamped,
            blind: Blind::default(),
        }
    }

    /// Takes note of a viewer who leaves now. What its device sends later is not owed to it.
    pub fn add(&mut self, watch: &Watching) {
        let reception = watch.viewer.reception();
        self.totals[watch.device].add(Totals::of(watch, &reception, None));
        if watch.since.elapsed() >= SEES_WITHIN {
            self.blind.look_at([watch], self.codec, self.stamped);
        }
        if self.joined.len() < MAX_JOINED {
            self.joined.push((watch.group, watch.joined(&reception)));
        }
    }

    /// Packets that these and those who are there have had.
    pub fn delivered(&self, watching: &[Watching]) -> u64 {
        let left: u64 = self.totals.iter().map(|totals| totals.packets).sum();
        let here: u64 = watching.iter().map(|watch| watch.viewer.packets()).sum();
        left + here
    }

    /// The set-ups of everybody in a group.
    pub fn joined(&self, watching: &[Watching], group: Group) -> Vec<Joined> {
        let left = self.joined.iter().filter(|(of, _)| *of == group);
        let here = watching.iter().filter(|watch| watch.group == group);
        left.map(|(_, joined)| joined.clone())
            .chain(here.map(|watch| watch.joined(&watch.viewer.reception())))
            .collect()
    }

    /// By device, with those who are there. `sent` says what a device has sent in all.
    pub fn by_device(
        &self,
        watching: &[Watching],
        sent: impl Fn(usize) -> Option<u64>,
    ) -> Vec<Totals> {
        let mut totals = self.totals.clone();
        for watch in watching {
            let reception = watch.viewer.reception();
            totals[watch.device].add(Totals::of(watch, &reception, sent(watch.device)));
        }
        totals
    }
}
