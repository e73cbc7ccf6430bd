//! `cargo xtask demo` on the local cluster, killed as hard as can be, and `--down`.
//!
//! Runs as root on the machine itself. `CLUSTER_DIR` is the cluster's: one that is up is used, and gone
//! afterwards.
#![forbid(unsafe_code)]

mod traces;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use tests::browser::{self, Browser};
use tests::process::Process;
use tests::{Page, demo, wait_for};
use traces::Traces;

/// A cluster comes up in 15 s, on a busy machine in a minute.
const START: Duration = Duration::from_secs(180);
/// The kernel takes namespaces apart after their last process.
const SOON: Duration = Duration::from_secs(10);

fn state() -> PathBuf {
    std::env::var_os("CLUSTER_DIR")
        .expect("CLUSTER_DIR names the cluster to use up")
        .into()
}

/// Kills the process whose number is in that file, and returns the number.
fn kill(file: &Path) -> String {
    let pid = std::fs::read_to_string(file);
    let pid = pid.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut kill = Command::new("kill");
    let status = kill.args(["-s", "KILL", pid.trim()]).status();
    assert!(status.expect("kill is there").success(), "{pid} ran");
    pid
}

async fn nothing_is_left(traces: &Traces) {
    wait_for("nothing to be left", SOON, || async {
        match traces.left() {
            left if left.is_empty() => Ok(()),
            left => bail!("{}", left.join("\n")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_live_and_leaves_nothing_when_it_and_its_cluster_were_killed() {
    let state = state();
    let mut traces = Traces::before(&state);
    let up = demo::run(&[]).good();
    up.is_live().await;
    let (origin, token) = up.page();
    let browser = Browser::start(browser::Options::default()).await;
    let page = Page::open(&browser, origin, Some(token)).await;
    page.watch("test-picture", START).await;
    page.frames_grow_by(60, START).await;
    browser.close().await;
    traces.note();
    assert!(traces.namespaces() > 10, "two machines and their pods");

    for file in ["demo/forward.pid", "demo/publisher.pid"] {
        kill(&state.join(file));
    }
    let control = state.join("control.pid");
    let former = kill(&control);
    let again = RefCell::new(Process::start("demo", &mut demo::command(&[])));
    wait_for("another cluster to come up", START, || async {
        if let Some(status) = again.borrow_mut().ended() {
            panic!("the demo ended with {status}");
        }
        match std::fs::read_to_string(&control) {
            Ok(pid) if pid != former => Ok(()),
            seen => bail!("control is {seen:?}, the one before {former}"),
        }
    })
    .await;
    traces.note();
    again.borrow().signal("KILL");
    wait_for("the demo to be dead", SOON, || async {
        match again.borrow_mut().ended() {
            Some(_) => Ok(()),
            None => bail!("it lives"),
        }
    })
    .await;

    demo::run(&["--down"]).good();
    nothing_is_left(&traces).await;
    demo::run(&["--down"]).good();
    nothing_is_left(&traces).await;
}
