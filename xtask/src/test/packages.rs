//! Debian packages that the gate needs and Rust does not bring: installed by the gate itself where it
//! is root, named with their fix where it is not.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::sh;

/// What has to be there, and how that is seen.
#[derive(Clone, Copy)]
pub enum Part {
    /// A program on `PATH`.
    Program(&'static str),
    /// What a C library is compiled against, by its name in pkg-config.
    Library(&'static str),
    /// An element of GStreamer.
    Element(&'static str),
    /// A library of GObject for Python.
    Typelib(&'static str),
    /// A file, of what is on no `PATH`.
    File(&'static str),
}

use Part::{Element, File, Library, Program, Typelib};

/// What is needed, each with the package that has it.
type Packages = &'static [(Part, &'static str)];

/// What every gate needs.
pub const FAST: Packages = &[
    (Program("git"), "git"),
    (Program("c++"), "g++"),
    (Program("make"), "make"),
    (Program("ip"), "iproute2"),
    (Program("chromium"), "chromium"),
    (Program("chromedriver"), "chromium-driver"),
    (Program("node"), "nodejs"),
    (Program("npm"), "npm"),
    (Program("turnserver"), TURN_SERVER),
    (File("/usr/lib/rabbitmq/bin/rabbitmq-server"), BROKER),
    (Program("faketime"), "faketime"),
    (Program("ffmpeg"), "ffmpeg"),
];

/// What the long stages need too.
pub const LONG: Packages = &[
    (Program("valgrind"), "valgrind"),
    (Program("pkg-config"), "pkg-config"),
    (
        Library("gstreamer-webrtc-1.0"),
        "libgstreamer-plugins-bad1.0-dev",
    ),
    (Program("gst-launch-1.0"), "gstreamer1.0-tools"),
    (Element("opusenc"), "gstreamer1.0-plugins-base"),
    (Element("vp8enc"), "gstreamer1.0-plugins-good"),
    (Element("webrtcbin"), "gstreamer1.0-plugins-bad"),
    (Element("nicesrc"), "gstreamer1.0-nice"),
    (Typelib("Gst"), "python3-gi"),
    (Typelib("GstRtspServer"), "gir1.2-gst-rtsp-server-1.0"),
];

/// What `cargo xtask soak` needs.
pub const SOAK: Packages = &[
    (Program("unshare"), "util-linux"),
    (Program("ip"), "iproute2"),
    (Program("nft"), "nftables"),
    (Program("curl"), "curl"),
];

/// Debian's, which finds what packages bring; another may come first on `PATH`.
const PYTHON: &str = "/usr/bin/python3";

const TURN_SERVER: &str = "coturn";
const BROKER: &str = "rabbitmq-server";

/// Servers that the tests start themselves. Their packages would start one too, some open to everybody.
const SERVICES: &[(&str, &str)] = &[
    (TURN_SERVER, "coturn.service"),
    (BROKER, "rabbitmq-server.service"),
];

/// Makes sure that all of those lists is there.
///
/// # Errors
/// If one is missing and can't be installed; the message has the command that would.
pub fn install(lists: &[Packages]) -> anyhow::Result<()> {
    let missing = missing(lists);
    if missing.is_empty() {
        return Ok(());
    }
    let fix = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if sh::which("apt-get").is_none() {
        bail!(
            "not installed: {}; on Debian or Ubuntu: {fix}",
            missing.join(", ")
        );
    }
    println!("installing {}", missing.join(", "));
    for (package, service) in SERVICES {
        if missing.contains(package) && sh::which("systemctl").is_some() {
            // Where systemd does not run this changes nothing, and nothing would be started.
            let _ = sh::output(Command::new("systemctl").args(["mask", service]));
        }
    }
    if apt(&[
        &["install", "-qq", "-y", "--no-install-recommends"],
        missing.as_slice(),
    ]
    .concat())
    .is_err()
    {
        // The lists of a fresh machine are empty or old.
        let _ = apt(&["update", "-qq"]);
        if let Err(error) = apt(&[
            &["install", "-qq", "-y", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat())
        {
            bail!(
                "{error:#}\nnot installed: {}; as root: {fix}",
                missing.join(", ")
            );
        }
    }
    Ok(())
}

fn missing(lists: &[Packages]) -> Vec<&'static str> {
    lists
        .concat()
        .iter()
        .filter(|(part, _)| !part.is_there())
        .map(|(_, package)| *package)
        .collect()
}

impl Part {
    fn is_there(self) -> bool {
        let asked = |program, args: &[&str]| sh::output(Command::new(program).args(args)).is_ok();
        match self {
            Program(name) => sh::which(name).is_some(),
            Library(name) => asked("pkg-config", &["--exists", name]),
            Element(name) => asked("gst-inspect-1.0", &[name]),
            Typelib(name) => {
                let require = format!("import gi; gi.require_version('{name}', '1.0')");
                asked(PYTHON, &["-c", &require])
            }
            File(path) => Path::new(path).exists(),
        }
    }
}

fn apt(args: &[&str]) -> anyhow::Result<()> {
    sh::output(
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}
