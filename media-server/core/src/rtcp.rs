//! RTCP: the few packets that are written, and those parts of compound packets that are read
//! (RFC 3550 §6, RFC 4585, RFC 5104, RFC 3611).
//!
//! Plain RTCP: encryption is the caller's. Unknown packets and blocks are skipped. Transport-wide
//! feedback is in `twcc`.

pub mod twcc;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;
const FEEDBACK_NACK: u8 = 1;
const FEEDBACK_PLI: u8 = 1;
const FEEDBACK_FIR: u8 = 4;
const FEEDBACK_APPLICATION: u8 = 15;
/// Name of an application's feedback that tells a bandwidth (draft-alvestrand-rmcat-remb-03 §2.2).
const REMB: [u8; 4] = *b"REMB";
const XR_RECEIVER_TIME: u8 = 4;
const XR_DLRR: u8 = 5;

/// Report on one stream as its receiver sees it (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// Of 256, since the last report.
    pub fraction_lost: u8,
    /// Signed 24 bits.
    pub total_lost: i32,
    pub highest_seq: u32,
    /// In timestamp units.
    pub jitter: u32,
    pub last_sr: u32,
    /// In 1/65536 s.
    pub delay: u32,
}

/// One thing that a compound packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    SenderInfo {
        ssrc: u32,
        ntp: u64,
        timestamp: u32,
    },
    Report(ReportBlock),
    /// PLI or FIR for a stream of ours.
    KeyframeRequest {
        ssrc: u32,
    },
    /// The peer lacks a packet of a stream of ours.
    Lost {
        ssrc: u32,
        seq: u16,
    },
    /// Answer to our receiver reference time.
    Dlrr {
        last_rr: u32,
        delay: u32,
    },
    /// REMB: the bandwidth that the peer thinks there is towards it.
    Bandwidth {
        bits_per_second: u64,
    },
}

/// Calls `item` for everything understood in a compound packet; stops where it is malformed.
pub fn read(compound: &[u8], mut item: impl FnMut(Item)) {
    for (kind, count, packet) in packets(compound) {
        read_packet(kind, count, packet, &mut item);
    }
}

/// The packets of a compound: type, count or format, and the whole packet.
fn packets(compound: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        if rest.len() < 4 || rest[0] >> 6 != 2 {
            return None;
        }
        let (count, kind) = (rest[0] & 0x1f, rest[1]);
        let len = 4 + 4 * usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (packet, tail) = rest.split_at_checked(len)?;
        rest = tail;
        Some((kind, count, packet))
    })
}

fn read_packet(kind: u8, count: u8, packet: &[u8], item: &mut impl FnMut(Item)) -> Option<()> {
    let mut blocks_at = 8;
    match kind {
        SENDER_REPORT => {
            let ntp = u64::from(u32_at(packet, 8)?) << 32 | u64::from(u32_at(packet, 12)?);
            item(Item::SenderInfo {
                ssrc: u32_at(packet, 4)?,
                ntp,
                timestamp: u32_at(packet, 16)?,
            });
            blocks_at = 28;
        }
        RECEIVER_REPORT => {}
        TRANSPORT_FEEDBACK if count == FEEDBACK_NACK => {
            let ssrc = u32_at(packet, 8)?;
            for at in (12..packet.len()).step_by(4) {
                // A packet, and which of the 16 after it are lost too.
                let word = u32_at(packet, at)?;
                let (first, after) = ((word >> 16) as u16, word as u16);
                let lost = (0..16).filter(|bit| after & 1 << bit != 0);
                for step in std::iter::once(0).chain(lost.map(|bit| bit + 1)) {
                    item(Item::Lost {
                        ssrc,
                        seq: first.wrapping_add(step),
                    });
                }
            }
            return Some(());
        }
        PAYLOAD_FEEDBACK if count == FEEDBACK_PLI => {
            item(Item::KeyframeRequest {
                ssrc: u32_at(packet, 8)?,
            });
            return Some(());
        }
        PAYLOAD_FEEDBACK if count == FEEDBACK_FIR => {
            for at in (12..packet.len()).step_by(8) {
                item(Item::KeyframeRequest {
                    ssrc: u32_at(packet, at)?,
                });
            }
            return Some(());
        }
        PAYLOAD_FEEDBACK if count == FEEDBACK_APPLICATION => {
            if packet.get(12..16) == Some(&REMB) {
                let word = u32_at(packet, 16)?;
                let (exponent, mantissa) = (word >> 18 & 0x3f, word & 0x3_ffff);
                let bits = (u128::from(mantissa) << exponent).min(u64::MAX.into());
                item(Item::Bandwidth {
                    bits_per_second: bits as u64,
                });
            }
            return Some(());
        }
        EXTENDED_REPORT => return read_extended(packet.get(8..)?, item),
        _ => return None,
    }
    for block in 0..usize::from(count) {
        let at = blocks_at + 24 * block;
        let lost = u32_at(packet, at + 4)?;
        item(Item::Report(ReportBlock {
            ssrc: u32_at(packet, at)?,
            fraction_lost: (lost >> 24) as u8,
            // The low 24 bits, sign extended.
            total_lost: (lost << 8).cast_signed() >> 8,
            highest_seq: u32_at(packet, at + 8)?,
            jitter: u32_at(packet, at + 12)?,
            last_sr: u32_at(packet, at + 16)?,
            delay: u32_at(packet, at + 20)?,
        }));
    }
    Some(())
}

fn read_extended(mut blocks: &[u8], item: &mut impl FnMut(Item)) -> Option<()> {
    while blocks.len() >= 4 {
        let len = 4 + 4 * usize::from(u16::from_be_bytes([blocks[2], blocks[3]]));
        let (block, tail) = blocks.split_at_checked(len)?;
        if block[0] == XR_DLRR {
            for at in (4..block.len()).step_by(12) {
                item(Item::Dlrr {
                    last_rr: u32_at(block, at + 4)?,
                    delay: u32_at(block, at + 8)?,
                });
            }
        }
        blocks = tail;
    }
    Some(())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Writes compound packets into one buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn sender_report(
        &mut self,
        ssrc: u32,
        ntp: u64,
        timestamp: u32,
        packets: u32,
        octets: u32,
    ) {
        self.header(0, SENDER_REPORT, 6);
        self.words(&[
            ssrc,
            (ntp >> 32) as u32,
            ntp as u32,
            timestamp,
            packets,
            octets,
        ]);
    }

    /// At most 31 blocks.
    pub fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) {
        let blocks = &blocks[..blocks.len().min(31)];
        self.header(blocks.len() as u8, RECEIVER_REPORT, 1 + 6 * blocks.len());
        self.words(&[ssrc]);
        for block in blocks {
            let lost = block
                .total_lost
                .clamp(-0x80_0000, 0x7f_ffff)
                .cast_unsigned()
                & 0xff_ffff;
            self.words(&[
                block.ssrc,
                u32::from(block.fraction_lost) << 24 | lost,
                block.highest_seq,
                block.jitter,
                block.last_sr,
                block.delay,
            ]);
        }
    }

    /// Receiver reference time (RFC 3611 §4.4): a peer that only sends answers with DLRR, which
    /// gives a round trip.
    pub fn receiver_time(&mut self, ssrc: u32, ntp: u64) {
        self.header(0, EXTENDED_REPORT, 4);
        self.words(&[
            ssrc,
            u32::from(XR_RECEIVER_TIME) << 24 | 2,
            (ntp >> 32) as u32,
            ntp as u32,
        ]);
    }

    /// CNAME of up to 255 bytes.
    pub fn cname(&mut self, ssrc: u32, cname: &str) {
        let name = &cname.as_bytes()[..cname.len().min(255)];
        // SSRC, item header and text, at least one zero as end.
        let len = (4 + 2 + name.len() + 1).next_multiple_of(4);
        self.header(1, SOURCE_DESCRIPTION, len / 4);
        let end = self.bytes.len() + len;
        self.words(&[ssrc]);
        self.bytes.extend_from_slice(&[1, name.len() as u8]);
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
    }

    pub fn picture_loss(&mut self, ssrc: u32, media: u32) {
        self.header(FEEDBACK_PLI, PAYLOAD_FEEDBACK, 2);
        self.words(&[ssrc, media]);
    }

    /// Asks for packets again (RFC 4585 §6.2.1). `seqs` ascend, but for wrapping.
    pub fn nack(&mut self, ssrc: u32, media: u32, seqs: &[u16]) {
        let mut items: Vec<u32> = Vec::new();
        for seq in seqs {
            match items.last_mut() {
                Some(item) if (1..=16).contains(&seq.wrapping_sub((*item >> 16) as u16)) => {
                    *item |= 1 << (seq.wrapping_sub((*item >> 16) as u16) - 1);
                }
                _ => items.push(u32::from(*seq) << 16),
            }
        }
        self.header(FEEDBACK_NACK, TRANSPORT_FEEDBACK, 2 + items.len());
        self.words(&[ssrc, media]);
        self.words(&items);
    }

    /// Tells the sender of `media` how much it may send (draft-alvestrand-rmcat-remb-03 §2.2).
    pub fn bandwidth(&mut self, ssrc: u32, media: u32, bits_per_second: u64) {
        let exponent = (64 - bits_per_second.leading_zeros()).saturating_sub(18);
        let mantissa = (bits_per_second >> exponent) as u32;
        self.header(FEEDBACK_APPLICATION, PAYLOAD_FEEDBACK, 5);
        self.words(&[
            ssrc,
            0,
            u32::from_be_bytes(REMB),
            1 << 24 | exponent << 18 | mantissa,
            media,
        ]);
    }

    fn header(&mut self, count: u8, kind: u8, words: usize) {
        self.bytes.extend_from_slice(&[0x80 | count, kind]);
        self.bytes.extend_from_slice(&(words as u16).to_be_bytes());
    }

    fn words(&mut self, words: &[u32]) {
        words
            .iter()
            .for_each(|word| self.bytes.extend_from_slice(&word.to_be_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(compound: &[u8]) -> Vec<Item> {
        let mut all = Vec::new();
        read(compound, |item| all.push(item));
        all
    }

    #[test]
    fn what_is_written_reads_back() {
        let block = ReportBlock {
            ssrc: 7,
            fraction_lost: 12,
            total_lost: -3,
            highest_seq: 70_000,
            jitter: 90,
            last_sr: 5,
            delay: 6,
        };
        let mut writer = Writer::default();
        writer.sender_report(1, 0x1122_3344_5566_7788, 99, 10, 20);
        writer.cname(1, "media");
        writer.receiver_report(2, &[block]);
        writer.receiver_time(2, 42);
        writer.picture_loss(2, 7);
        assert_eq!(
            items(writer.bytes()),
            [
                Item::SenderInfo {
                    ssrc: 1,
                    ntp: 0x1122_3344_5566_7788,
                    timestamp: 99
                },
                Item::Report(block),
                Item::KeyframeRequest { ssrc: 7 },
            ]
        );
    }

    #[test]
    fn lost_packets_are_named_one_by_one() {
        let lost = [65_530, 65_535, 0, 10, 11, 400];
        let mut writer = Writer::default();
        writer.nack(2, 7, &lost);
        let expected = lost.map(|seq| Item::Lost { ssrc: 7, seq });
        assert_eq!(items(writer.bytes()), expected);
        assert_eq!(writer.bytes().len(), 12 + 3 * 4, "three words are enough");
    }

    #[test]
    fn a_bandwidth_keeps_eighteen_bits_of_itself() {
        for bits_per_second in [0, 1, 0x3_ffff, 0x4_0001, 12_000_000, u64::MAX] {
            let mut writer = Writer::default();
            writer.bandwidth(2, 7, bits_per_second);
            let [
                Item::Bandwidth {
                    bits_per_second: read,
                },
            ] = items(writer.bytes())[..]
            else {
                panic!("one item");
            };
            assert!(read <= bits_per_second && read >= bits_per_second - (bits_per_second >> 17));
        }
        // The example of the draft's fields: 0x15 with exponent 63 is more than there is.
        let absurd = [
            0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xfc, 0, 0x15,
        ];
        assert_eq!(
            items(&absurd),
            [Item::Bandwidth {
                bits_per_second: u64::MAX
            }]
        );
    }

    #[test]
    fn fir_and_dlrr_are_understood() {
        let fir = [
            0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 0, 0,
        ];
        assert_eq!(items(&fir), [Item::KeyframeRequest { ssrc: 9 }]);
        let dlrr = [
            0x80, 207, 0, 5, 0, 0, 0, 1, 5, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4,
        ];
        assert_eq!(
            items(&dlrr),
            [Item::Dlrr {
                last_rr: 3,
                delay: 4
            }]
        );
    }

    #[test]
    fn cut_or_lying_packets_are_read_no_further() {
        let mut writer = Writer::default();
        writer.receiver_report(2, &[ReportBlock::default(); 3]);
        let mut bytes = writer.bytes().to_vec();
        for cut in 0..bytes.len() {
            assert!(items(&bytes[..cut]).is_empty());
        }
        bytes[0] = 0x9f; // 31 blocks announced, three there
        assert_eq!(items(&bytes).len(), 3);
    }
}
