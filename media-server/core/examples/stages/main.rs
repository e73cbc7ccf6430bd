//! The fast path by stage, for counting instructions: `cargo xtask bench stages` runs each stage under
//! callgrind, which counts only within [`measured`].
//!
//! One stage a run. Nothing is timed here: counts repeat, times do not.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which has a clock and tells it"
)]

mod peer;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use media_core::cells::ShardCells;
use media_core::flow::Flow;
use media_core::negotiated::{Extensions, Role};
use media_core::output::Output;
use media_core::publisher::Publisher;
use media_core::ring::{Ring, WATCHED_BYTES};
use media_core::rtp::{self, FIXED_HEADER, Outgoing, Passed};
use media_core::session::Session;
use media_core::srtp::{Keys, MAX_TAG, Profile, Sealer};
use media_core::viewer::Viewer;
use media_wire::{Message, UdpSocket};
use peer::{Peer, VIDEO_PT};

#[derive(Parser)]
struct Args {
    #[arg(long, value_enum)]
    stage: Stage,
    /// Packets that go through the stage, rounded to whole frames.
    #[arg(long, default_value_t = 7_000)]
    packets: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    /// A publisher's datagram: find the stream, open it, put it into the batch.
    Open,
    /// The viewer's header, and the payload copied behind it.
    Rewrite,
    /// AEAD_AES_128_GCM and the window of used indices.
    Seal,
    /// Place in the slab, and the run of equal datagrams.
    Slab,
    /// All of a viewer's part: admit, rewrite, seal, slab, counters.
    Forward,
    /// From the slab to the kernel, without the kernel's own instructions.
    Send,
}

/// The shape of the benchmark's load.
const PACKETS_PER_FRAME: usize = 7;
const PACKET: usize = 1_200;
const PAYLOAD: usize = PACKET - FIXED_HEADER;
const SEALED: usize = PACKET + 16;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let frames = args.packets / PACKETS_PER_FRAME;
    match args.stage {
        Stage::Open => open(frames),
        Stage::Rewrite => rewrite(frames),
        Stage::Seal => seal(frames),
        Stage::Slab => slab(frames),
        Stage::Forward => forward(frames),
        Stage::Send => send(frames),
    }
}

fn to() -> Flow {
    SocketAddr::from(([192, 0, 2, 1], 40_000)).into()
}

/// A publisher's plain packets of one VP8 frame.
fn frame(number: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..PACKETS_PER_FRAME).map(move |index| {
        let seq = (number * PACKETS_PER_FRAME + index) as u16;
        let mut packet = vec![0x80, VIDEO_PT];
        packet[1] |= u8::from(index == PACKETS_PER_FRAME - 1) << 7;
        packet.extend(seq.to_be_bytes());
        packet.extend((number as u32 * 3_000).to_be_bytes());
        packet.extend(7u32.to_be_bytes());
        let start = index == 0;
        packet.extend([if start { 0x10 } else { 0 }, u8::from(number > 0)]);
        packet.resize(PACKET, 0x5a);
        packet
    })
}

/// What is counted: callgrind is told to collect in here alone, by this name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn open(frames: usize) -> anyhow::Result<()> {
    let mut out = Output::new(Arc::new(ShardCells::default()));
    let now = Instant::now();
    let mut device = Peer::new(1)?;
    let mut publisher = Publisher::new(now, device.config(Role::Publisher)?);
    device.connect(now, &mut publisher, &mut out)?;
    for number in 0..frames {
        let mut datagrams = Vec::new();
        for packet in frame(number) {
            datagrams.push(device.seal(&packet)?);
        }
        measured(|| {
            for datagram in &mut datagrams {
                publisher.handle_datagram(now, device.addr.into(), datagram, &mut out);
            }
        });
        let batch = publisher.take_batch();
        anyhow::ensure!(batch.packets().len() == PACKETS_PER_FRAME, "all are opened");
        out.slab.clear();
        out.events.clear();
    }
    Ok(())
}

fn rewrite(frames: usize) -> anyhow::Result<()> {
    let payload = vec![0x5a; PAYLOAD];
    let mut room = vec![0; rtp::MAX_HEADER + PAYLOAD + MAX_TAG];
    let (ids, passed) = (Extensions::default(), Passed::default());
    measured(|| {
        for seq in 0..frames * PACKETS_PER_FRAME {
            let fields = Outgoing {
                padding: false,
                marker: seq % PACKETS_PER_FRAME == PACKETS_PER_FRAME - 1,
                payload_type: VIDEO_PT,
                seq: seq as u16,
                timestamp: seq as u32,
                ssrc: 9,
            };
            let header = rtp::write_header(&mut room, black_box(&fields), &ids, &passed)
                .context("there is room")?;
            room[header..header + PAYLOAD].copy_from_slice(black_box(&payload));
            black_box(&mut room);
        }
        Ok(())
    })
}

fn seal(frames: usize) -> anyhow::Result<()> {
    let profile = Profile::AeadAes128Gcm;
    let material = vec![7; profile.keying_material_len()];
    let keys = Keys::new(profile, &material, false)?;
    let mut sealer = Sealer::from_keys(keys);
    let mut packet = vec![0x5a; SEALED];
    measured(|| {
        for index in 0..(frames * PACKETS_PER_FRAME) as u64 {
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            sealer.seal(9, index, black_box(&mut packet), FIXED_HEADER)?;
        }
        Ok(())
    })
}

fn slab(frames: usize) -> anyhow::Result<()> {
    let mut slab = Output::new(Arc::new(ShardCells::default())).slab;
    let max = rtp::MAX_HEADER + PAYLOAD + MAX_TAG;
    measured(|| {
        for _ in 0..frames {
            if slab.room() < max * PACKETS_PER_FRAME {
                slab.clear();
            }
            for _ in 0..PACKETS_PER_FRAME {
                let written = slab.write(black_box(to()), max, |_| Some(SEALED));
                black_box(written).context("there is room")?;
            }
        }
        Ok(())
    })
}

fn forward(frames: usize) -> anyhow::Result<()> {
    let mut out = Output::new(Arc::new(ShardCells::default()));
    let now = Instant::now();
    let mut device = Peer::new(1)?;
    let mut publisher = Publisher::new(now, device.config(Role::Publisher)?);
    device.connect(now, &mut publisher, &mut out)?;
    let mut watcher = Peer::new(2)?;
    let mut viewer = Viewer::new(now, watcher.config(Role::Viewer)?);
    watcher.connect(now, &mut viewer, &mut out)?;
    viewer.set_publisher_live(now, true);
    // Video begins a moment after the handshake.
    let now = now + PATIENCE;
    viewer.handle_timeout(now, &mut out);
    let mut ring = Ring::default();
    ring.limit(WATCHED_BYTES);
    for number in 0..frames {
        for packet in frame(number) {
            let mut sealed = device.seal(&packet)?;
            publisher.handle_datagram(now, device.addr.into(), &mut sealed, &mut out);
        }
        let batch = Arc::new(publisher.take_batch());
        ring.push(&batch);
        out.slab.clear();
        measured(|| {
            viewer.forward(
                now,
                black_box(&batch),
                std::slice::from_ref(&ring),
                &mut out,
            )
        });
        let sent = out.slab.bytes().len();
        anyhow::ensure!(sent >= PACKETS_PER_FRAME * SEALED, "all are forwarded");
        out.events.clear();
    }
    Ok(())
}

fn send(frames: usize) -> anyhow::Result<()> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    // Nobody reads: what does not fit is dropped by the kernel, after the part that counts here.
    let sink = UdpSocket::bind(loopback, false)?;
    let to = sink.local_addr()?;
    let mut socket = UdpSocket::bind(loopback, false)?;
    let frame = PACKETS_PER_FRAME * SEALED;
    let bytes = vec![0x5a; VIEWERS_PER_SLAB * frame];
    measured(|| {
        let mut left = frames;
        while left > 0 {
            let now = left.min(VIEWERS_PER_SLAB);
            let messages = (0..now).map(|viewer| Message {
                to,
                from: None,
                offset: viewer * frame,
                len: frame,
                segment: SEALED,
            });
            black_box(socket.send(&bytes, messages));
            left -= now;
        }
    });
    Ok(())
}

/// Viewers whose share of a frame fills the shard's slab.
const VIEWERS_PER_SLAB: usize = 60;

/// What a handshake on a virtual clock needs at most.
const PATIENCE: Duration = Duration::from_secs(5);
