//! The machine's own floor for a forwarded packet: AES-128-GCM seal and GSO send of the bytes that a
//! fan-out sends, at its pace, and nothing else. `cargo xtask bench` runs it beside the servers.
//!
//! It uses the server's sealer, slab and socket, with no session around them. The packets go to
//! loopback sockets that take coalesced input (UDP_GRO), as the load tool's do, and a thread whose
//! time is not counted empties them. Prints one line of JSON.
#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which has a clock and waits"
)]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use media_core::cells::ShardCells;
use media_core::flow::Flow;
use media_core::output::{Output, Slab};
use media_core::rtp::FIXED_HEADER;
use media_core::srtp::{Keys, MAX_TAG, Profile, Sealer};
use media_wire::{Message, UdpSocket};
use nix::sys::socket::{setsockopt, sockopt};

#[derive(Parser)]
struct Args {
    /// Devices, whose frames are spread over the time of one.
    #[arg(long, default_value_t = 1)]
    devices: u32,
    /// Viewers over all devices.
    #[arg(long, default_value_t = 100)]
    viewers: u32,
    #[arg(long, default_value_t = 30)]
    frames_per_second: u32,
    #[arg(long, default_value_t = 7)]
    packets_per_frame: u32,
    /// RTP packet, header included, before sealing.
    #[arg(long, default_value_t = 1_200)]
    packet_bytes: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

struct Viewer {
    to: Flow,
    sealer: Sealer,
    ssrc: u32,
    next: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let sinks = (0..args.viewers)
        .map(|_| sink())
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut viewers = sinks
        .iter()
        .zip(0..)
        .map(|(sink, number)| viewer(sink, number))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let arrived = Arc::new(AtomicU64::new(0));
    let drain = std::thread::spawn({
        let (stop, arrived) = (stop.clone(), arrived.clone());
        move || drain(&sinks, &stop, &arrived)
    });

    let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false)?;
    let mut slab = Output::new(Arc::new(ShardCells::default())).slab;
    let payload = vec![0x5a; args.packet_bytes.saturating_sub(FIXED_HEADER)];
    let of_device = (args.viewers / args.devices).max(1) as usize;
    let step = Duration::from_secs(1) / (args.frames_per_second * args.devices);
    let (mut sent, mut dropped) = (0, 0);
    let (start, cpu) = (Instant::now(), own_cpu()?);
    for turn in 0..args.seconds * args.frames_per_second * args.devices {
        std::thread::sleep((start + step * turn).saturating_duration_since(Instant::now()));
        let device = (turn % args.devices) as usize;
        let watching = viewers.iter_mut().skip(device * of_device).take(of_device);
        for viewer in watching {
            let frame = args.packets_per_frame as usize * (args.packet_bytes + MAX_TAG);
            if slab.room() < frame {
                flush(&mut socket, &mut slab, &mut sent, &mut dropped);
            }
            for _ in 0..args.packets_per_frame {
                seal(&mut slab, viewer, &payload).context("the slab has room for a frame")?;
            }
        }
        flush(&mut socket, &mut slab, &mut sent, &mut dropped);
    }
    let cpu = own_cpu()?.saturating_sub(cpu);
    stop.store(true, Ordering::Relaxed);
    drain.join().ok().context("the draining thread failed")?;
    let report = serde_json::json!({
        "packets": sent,
        "dropped": dropped,
        "arrived_bytes": arrived.load(Ordering::Relaxed),
        "cpu_us_per_packet": cpu.as_secs_f64() * 1e6 / sent.max(1) as f64,
    });
    println!("{report}");
    Ok(())
}

/// A receiver whose input may be coalesced.
fn sink() -> anyhow::Result<StdSocket> {
    let socket = StdSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true).context("the kernel has no UDP_GRO")?;
    Ok(socket)
}

fn viewer(sink: &StdSocket, number: u32) -> anyhow::Result<Viewer> {
    let profile = Profile::AeadAes128Gcm;
    let material: Vec<u8> = (0..profile.keying_material_len())
        .map(|at| (at as u32 * 7 + number * 13) as u8)
        .collect();
    let keys = Keys::new(profile, &material, false)?;
    Ok(Viewer {
        to: sink.local_addr()?.into(),
        sealer: Sealer::from_keys(keys),
        ssrc: number,
        next: 1,
    })
}

fn seal(slab: &mut Slab, viewer: &mut Viewer, payload: &[u8]) -> Option<usize> {
    let Viewer {
        to,
        sealer,
        ssrc,
        next,
    } = viewer;
    let index = *next;
    *next += 1;
    slab.write(*to, FIXED_HEADER + payload.len() + MAX_TAG, |room| {
        room[..2].copy_from_slice(&[0x80, 96]);
        room[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        room[4..8].copy_from_slice(&(index as u32).wrapping_mul(3_000).to_be_bytes());
        room[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let body = FIXED_HEADER + payload.len();
        room[FIXED_HEADER..body].copy_from_slice(payload);
        let packet = &mut room[..body + sealer.tag_len()];
        sealer.seal(*ssrc, index, packet, FIXED_HEADER).ok()?;
        Some(packet.len())
    })
}

fn flush(socket: &mut UdpSocket, slab: &mut Slab, sent: &mut u64, dropped: &mut u64) {
    let messages = slab.runs().iter().map(|run| Message {
        to: run.to.remote,
        from: None,
        offset: run.offset,
        len: run.len,
        segment: run.segment,
    });
    let batch = socket.send(slab.bytes(), messages);
    *sent += batch.datagrams;
    *dropped += batch.dropped;
    slab.clear();
}

fn drain(sinks: &[StdSocket], stop: &AtomicBool, arrived: &AtomicU64) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for sink in sinks {
            loop {
                match sink.recv(&mut buffer) {
                    Ok(len) => {
                        idle = false;
                        arrived.fetch_add(len as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// CPU time of this thread, from the scheduler's nanosecond count.
fn own_cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let on_cpu = stat.split_whitespace().next();
    let nanoseconds = on_cpu
        .and_then(|field| field.parse().ok())
        .context("schedstat has no count of nanoseconds")?;
    Ok(Duration::from_nanos(nanoseconds))
}
