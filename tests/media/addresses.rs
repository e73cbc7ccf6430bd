//! Media at every address of the server: both families, and more than one address of each.

use std::net::{IpAddr, SocketAddr};

use client::{Codec, Options};
use serde_json::Value;
use tests::process::program;
use tests::{MediaServer, Namespace};

use crate::media::{publish_with, received, send_frames, watch_with};

/// Media from and to that address of the server, and nowhere else.
fn at(address: &str, port: u16) -> Options {
    let address: IpAddr = address.parse().expect("an address");
    let client = if address.is_ipv6() {
        "::1"
    } else {
        "127.0.0.1"
    };
    Options {
        bind: Some(client.parse().expect("an address")),
        media_address: Some(SocketAddr::new(address, port)),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_wildcard_server_is_reached_at_every_address_of_both_families() {
    let server = MediaServer::open(&[
        "--media-listen",
        "[::]:0",
        "--advertise",
        "127.0.0.2,::1",
        "--shards",
        "2",
    ])
    .await;
    let port = server.media.port();
    for (number, from) in ["127.0.0.2", "::1"].into_iter().enumerate() {
        let device = format!("cam-{number}");
        let publisher = publish_with(&server, &device, &[Codec::Vp8], &at(from, port)).await;
        let mut viewers = Vec::new();
        // All of 127/8 is this machine.
        for to in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"] {
            let watching = watch_with(&server, &device, &[Codec::Vp8], &at(to, port)).await;
            viewers.push((to, watching));
        }
        let sent = send_frames(&publisher, Codec::Vp8, 20, 1).await;
        for (to, watching) in &viewers {
            let got = received(watching, Codec::Vp8, sent.len()).await;
            assert!(got == sent, "from {from} to {to}: other payloads");
        }
    }
}

/// Addresses of the namespaces.
const ADDRESSES: [&str; 4] = ["10.99.0.1/24", "10.99.0.2/24", "fd99::1/64", "fd99::2/64"];

#[tokio::test]
async fn the_second_address_of_a_machine_serves_as_well_as_the_first() {
    let namespace = Namespace::with(&ADDRESSES).await;
    for (http, client, media) in [
        ("10.99.0.1:0", "10.99.0.1", Some("10.99.0.2")),
        ("[fd99::1]:0", "fd99::1", Some("fd99::2")),
        // Nothing said: all that the machine has.
        ("10.99.0.1:0", "fd99::1", None),
    ] {
        let listen = ["--http-listen", http, "--media-listen", "[::]:0"];
        let advertise = media.map_or(vec![], |address| vec!["--advertise", address]);
        let args = [&listen[..], &["--insecure-no-auth"], &advertise].concat();
        let server = MediaServer::within(&namespace, &args).await;
        let mut load = namespace.command(program("MEDIA_LOAD_BIN", "media-load"));
        load.args(["--whip", &server.url("/whip")])
            .args(["--whep", &server.url("/whep")])
            .args(["--publishers", "1", "--viewers", "3", "--duration", "1"])
            .args(["--bind", client]);
        let output = tokio::task::spawn_blocking(move || load.output())
            .await
            .expect("the tool's task ends")
            .expect("media-load can be started");
        let progress = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{http}, {media:?}: {progress}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report["viewers_connected"], 3, "{media:?}: {report:#}");
        assert_eq!(report["lost_packets"], 0, "{media:?}: {report:#}");
        assert_eq!(report["viewers_without_picture"], 0, "{report:#}");
    }
}
