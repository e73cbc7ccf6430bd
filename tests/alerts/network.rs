//! A network of its own for a device, on the bridge that the nodes are on: what is pulled out of it is
//! gone, as a device's cable.

use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};

/// The end of the cable that stays with the cluster.
const CABLE: &str = "alerts0";
const BRIDGE: &str = "br0";
/// Nobody else's on that bridge.
const ADDRESS: &str = "198.18.0.200/24";
/// The first node knows the way to pods and services.
const GATEWAY: &str = "198.18.0.11";

/// See the module. Its task goes with the process, and its cable when dropped.
pub struct Network;

impl Network {
    /// Runs `task` in it, for ever.
    ///
    /// # Panics
    /// If it can't be made: that takes root.
    pub fn of<T>(task: impl FnOnce() -> T + Send + 'static) -> Self
    where
        T: Future<Output = ()>,
    {
        let (made, is_made) = mpsc::channel();
        let (connected, is_connected) = mpsc::channel();
        // Threads and programs of a thread are born into its network.
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network");
            let own = std::fs::read_link("/proc/thread-self").expect("Linux has it");
            let id = own.file_name().expect("the thread's number").to_owned();
            made.send(id).expect("somebody waits");
            is_connected.recv().expect("somebody connects it");
            for args in [
                &["address", "add", ADDRESS, "dev", "eth0"][..],
                &["link", "set", "lo", "up"],
                &["link", "set", "eth0", "up"],
                &["route", "add", "default", "via", GATEWAY],
            ] {
                ip(args).expect("the network can be set up");
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(task());
        });
        let thread = is_made.recv().expect("the network is made");
        let thread = thread.to_str().expect("a number");
        let pair = ["link", "add", CABLE, "type", "veth", "peer", "name", "eth0"];
        ip(&[&pair[..], &["netns", thread]].concat()).expect("there is no other cable");
        ip(&["link", "set", CABLE, "master", BRIDGE, "up"]).expect("the bridge is there");
        connected.send(()).expect("the thread waits");
        Self
    }

    /// Pulls the cable out.
    pub fn stop(&self) {
        ip(&["link", "set", CABLE, "down"]).expect("the cable is there");
    }

    /// Puts it in again.
    pub fn go_on(&self) {
        ip(&["link", "set", CABLE, "up"]).expect("the cable is there");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "delete", CABLE]) {
            eprintln!("{error:#}");
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("ip can't be started")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
