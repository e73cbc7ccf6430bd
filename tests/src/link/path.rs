//! One direction of a link, as a pure model: what happens to each datagram, and when it comes out.
//!
//! It is told the time and draws chance from a seed, so the same datagrams at the same times meet the
//! same fate. It owns what is on its way and the count of what became of everything. It never touches a
//! socket or a clock; `relay` drives it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What a direction does to the datagrams on it. The default does nothing.
///
/// A change applies to datagrams that come after it. It never puts them in front of earlier ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Conditions {
    /// Shortest time from one end to the other.
    pub delay: Duration,
    pub jitter: Jitter,
    /// Share of the datagrams that are lost at random, 0 to 1.
    pub loss: f64,
    pub reorder: Reorder,
    pub rate: Option<Rate>,
}

impl Conditions {
    /// 20 ms, and so much room with a short queue before it.
    pub fn narrow(bits_per_second: u64, queue_bytes: usize) -> Self {
        Self {
            delay: Duration::from_millis(20),
            rate: Some(Rate {
                bits_per_second,
                queue_bytes,
            }),
            ..Self::default()
        }
    }
}

/// What is added to the delay. Order is kept, so packets closer together than the jitter get less of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Jitter {
    #[default]
    None,
    /// Every other datagram takes this much longer.
    Alternating(Duration),
    /// Between nothing and this much, all alike, each datagram for itself.
    Uniform(Duration),
}

impl Jitter {
    /// What the interarrival jitter of RFC 3550 §6.4.1 settles at, for packets that lie further apart
    /// than the jitter: the mean difference of the delays of two that follow each other.
    pub fn interarrival(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Alternating(most) => most,
            Self::Uniform(most) => most / 3,
        }
    }
}

/// Datagrams that later ones overtake.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reorder {
    /// Share of the datagrams that are held back, 0 to 1.
    pub share: f64,
    /// How long.
    pub hold: Duration,
}

/// The narrowest place of the direction: what comes faster waits in a queue, what finds it full is
/// dropped (tail drop).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Headers of UDP and IPv4 included.
    pub bits_per_second: u64,
    pub queue_bytes: usize,
}

/// IPv4 and UDP headers, in bytes.
const HEADERS: usize = 28;

/// Datagrams on their way in one direction at most: ten seconds of 1 600 a second.
pub(super) const MAX_HELD: usize = 16_384;

/// What a datagram carries (RFC 7983 §7, RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    Other,
}

impl Kind {
    const COUNT: usize = 5;

    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// Lost by chance.
    Lost,
    /// The test's own rule dropped it.
    Chosen,
    /// The queue in front of the narrowest place was full.
    QueueFull,
    /// The link was dark.
    Blackout,
    /// More than the simulator keeps: the test asks too much of it.
    Overflow,
}

impl Fate {
    const COUNT: usize = 6;
}

/// A datagram as rules and watchers see it.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The first of its direction is 1.
    pub number: u64,
    pub kind: Kind,
    pub bytes: &'a [u8],
}

/// What a watcher is told: once for each datagram, when its fate is known.
#[derive(Debug)]
pub struct Seen<'a> {
    pub entered: Instant,
    /// When it left for its receiver, or was dropped.
    pub at: Instant,
    pub datagram: Datagram<'a>,
    pub fate: Fate,
}

/// How many datagrams of which kind met which fate, since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [[u64; Fate::COUNT]; Kind::COUNT],
}

impl Tally {
    pub fn of(&self, kind: Kind, fate: Fate) -> u64 {
        self.counts[kind as usize][fate as usize]
    }

    /// Over all kinds.
    pub fn all(&self, fate: Fate) -> u64 {
        self.counts.iter().map(|fates| fates[fate as usize]).sum()
    }

    /// Of a kind, those that did not arrive.
    pub fn dropped(&self, kind: Kind) -> u64 {
        let fates = &self.counts[kind as usize];
        fates.iter().sum::<u64>() - fates[Fate::Delivered as usize]
    }

    fn add(&mut self, kind: Kind, fate: Fate) {
        self.counts[kind as usize][fate as usize] += 1;
    }
}

pub(super) type Rule = Box<dyn FnMut(&Datagram<'_>) -> bool + Send>;
pub(super) type Watcher = Box<dyn FnMut(&Seen<'_>) + Send>;

/// See the module.
pub(super) struct Path {
    pub conditions: Conditions,
    pub dark: bool,
    pub rule: Option<Rule>,
    pub watcher: Option<Watcher>,
    tally: Tally,
    chance: Chance,
    number: u64,
    /// Whether the next datagram is the late one of two.
    late: bool,
    /// Until when the narrowest place is busy with what it has.
    busy_until: Option<Instant>,
    /// When the last one comes out; none but those held back comes earlier.
    last_due: Option<Instant>,
    held: BinaryHeap<Held>,
}

impl Path {
    pub fn new(seed: u64) -> Self {
        Self {
            conditions: Conditions::default(),
            dark: false,
            rule: None,
            watcher: None,
            tally: Tally::default(),
            chance: Chance(seed),
            number: 0,
            late: false,
            busy_until: None,
            last_due: None,
            held: BinaryHeap::new(),
        }
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes a datagram of a leg at one end.
    pub fn enter(&mut self, now: Instant, leg: usize, bytes: &[u8]) {
        self.number += 1;
        let datagram = Datagram {
            number: self.number,
            kind: Kind::of(bytes),
            bytes,
        };
        let due = match self.admit(now, &datagram) {
            Ok(due) => due,
            Err(fate) => return self.settle(now, now, datagram, fate),
        };
        self.held.push(Held {
            entered: now,
            due,
            leg,
            number: self.number,
            bytes: bytes.into(),
        });
    }

    /// Takes out, at the other end, what has been on its way long enough.
    pub fn leave(&mut self, now: Instant) -> Option<Held> {
        if self.next_due()? > now {
            return None;
        }
        self.held.pop()
    }

    /// Counts a datagram that has left.
    pub fn delivered(&mut self, now: Instant, held: &Held) {
        let datagram = Datagram {
            number: held.number,
            kind: Kind::of(&held.bytes),
            bytes: &held.bytes,
        };
        self.settle(held.entered, now, datagram, Fate::Delivered);
    }

    /// Counts a datagram that the simulator itself had no room for.
    pub fn overflow(&mut self, now: Instant, bytes: &[u8]) {
        self.number += 1;
        let datagram = Datagram {
            number: self.number,
            kind: Kind::of(bytes),
            bytes,
        };
        self.settle(now, now, datagram, Fate::Overflow);
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|held| held.due)
    }

    /// When the datagram comes out, or why it does not.
    fn admit(&mut self, now: Instant, datagram: &Datagram<'_>) -> Result<Instant, Fate> {
        if self.dark {
            return Err(Fate::Blackout);
        }
        if self.rule.as_mut().is_some_and(|rule| rule(datagram)) {
            return Err(Fate::Chosen);
        }
        let conditions = self.conditions;
        if self.chance.happens(conditions.loss) {
            return Err(Fate::Lost);
        }
        if self.held.len() >= MAX_HELD {
            return Err(Fate::Overflow);
        }
        let passed = match conditions.rate {
            Some(rate) => self.pass_narrowest(now, rate, datagram.bytes.len())?,
            None => now,
        };
        let jitter = match conditions.jitter {
            Jitter::None => Duration::ZERO,
            Jitter::Alternating(most) => {
                self.late = !self.late;
                if self.late { Duration::ZERO } else { most }
            }
            Jitter::Uniform(most) => most.mul_f64(self.chance.draw()),
        };
        let due = passed + conditions.delay + jitter;
        if self.chance.happens(conditions.reorder.share) {
            return Ok(due + conditions.reorder.hold);
        }
        let due = self.last_due.map_or(due, |last| due.max(last));
        self.last_due = Some(due);
        Ok(due)
    }

    fn pass_narrowest(&mut self, now: Instant, rate: Rate, bytes: usize) -> Result<Instant, Fate> {
        let bytes = bytes + HEADERS;
        let bits_per_second = rate.bits_per_second.max(1) as f64;
        let start = self.busy_until.map_or(now, |busy| busy.max(now));
        let queued = (start - now).as_secs_f64() * bits_per_second / 8.0;
        if queued + bytes as f64 > rate.queue_bytes as f64 {
            return Err(Fate::QueueFull);
        }
        let end = start + Duration::from_secs_f64(bytes as f64 * 8.0 / bits_per_second);
        self.busy_until = Some(end);
        Ok(end)
    }

    fn settle(&mut self, entered: Instant, at: Instant, datagram: Datagram<'_>, fate: Fate) {
        self.tally.add(datagram.kind, fate);
        if let Some(watcher) = &mut self.watcher {
            watcher(&Seen {
                entered,
                at,
                datagram,
                fate,
            });
        }
    }
}

/// A datagram on its way.
pub(super) struct Held {
    entered: Instant,
    due: Instant,
    pub leg: usize,
    number: u64,
    pub bytes: Box<[u8]>,
}

// Ordered so that the greatest, which a heap gives first, is due first; of two, the earlier one.
impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Held {}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    /// 0 to 1, without 1.
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draws only where chance has a part, so that one condition does not move the luck of another.
    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.draw() < share
    }
}

#[cfg(test)]
mod tests;
