//! `cargo xtask image`: the two images, without a registry or a daemon.
//!
//! Owns the list of files of each image, which a test compares with the Dockerfile's final stages, and
//! the release build. The archive is written by `cluster/cluster archive`. Called by people, by
//! `cargo xtask demo` and by the gate.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cluster::{Cluster, Wanted};
use crate::sh;

/// The version of both images: the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args, Default)]
pub struct Args {
    /// Push both images to this registry and prefix, as ghcr.io/team; needs skopeo, docker or podman
    #[arg(long, value_name = "REGISTRY/PREFIX")]
    push: Option<String>,
}

/// One image: what the Dockerfile's target of that name puts over its base.
#[derive(Debug)]
pub struct Image {
    /// Name of the image and of the Dockerfile's target.
    pub name: &'static str,
    /// Cargo's arguments that build its program.
    build: &'static [&'static str],
    /// `EXPOSE`, in the Dockerfile's words.
    ports: &'static [&'static str],
    /// File of the repository, after its build, and its place in the image.
    files: &'static [(&'static str, &'static str)],
}

/// The user and group that both programs run as.
const USER: &str = "65532:65532";

/// Both images.
pub const IMAGES: [Image; 2] = [
    Image {
        name: "mediaservice-operator",
        build: &["-p", "operator"],
        ports: &["8080/tcp"],
        files: &[
            ("target/release/operator", "/usr/local/bin/operator"),
            ("LICENSE", "/usr/share/doc/mediaservice/LICENSE"),
        ],
    },
    Image {
        name: "media-server",
        build: &["-p", "media-server", "--no-default-features"],
        ports: &["8080/tcp", "9090/tcp", "8443/udp", "8443/tcp"],
        files: &[
            ("target/release/media-server", "/usr/local/bin/media-server"),
            ("LICENSE", "/usr/share/doc/mediaservice/LICENSE"),
        ],
    },
];

/// The files of an image over its base, as (file of the repository, place in the image).
pub fn file_list(image: &Image) -> &'static [(&'static str, &'static str)] {
    image.files
}

impl Image {
    /// Name and version, as a pod names the image.
    pub fn reference(&self) -> String {
        format!("{}:{VERSION}", self.name)
    }

    fn program(&self) -> &'static str {
        self.files[0].1
    }

    fn config(&self) -> serde_json::Value {
        let ports: serde_json::Map<_, _> = self
            .ports
            .iter()
            .map(|port| ((*port).to_owned(), serde_json::json!({})))
            .collect();
        serde_json::json!({
            "User": USER,
            "Entrypoint": [self.program()],
            "Env": ["PATH=/usr/local/bin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            "ExposedPorts": ports,
        })
    }
}

/// What stands in for the Dockerfile's base: names of users, how names are resolved, and the roots of
/// trust. The C library comes with the program that is linked to it.
const BASE: [(&str, &str); 3] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\nnonroot:x:65532:\n"),
    ("/etc/nsswitch.conf", "hosts: files dns\n"),
];

/// Names of functions stay, for backtraces; what only a debugger reads is two thirds of a program.
const STRIP: [&str; 1] = ["--strip-debug"];

const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds both images, loads them where the local cluster is up, and pushes them where asked to.
///
/// # Errors
/// Before anything is built: if the machine lacks something, or no program that pushes is there. Later:
/// if a program can't be compiled.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cluster = Cluster::here();
    cluster.prepare(Wanted::Images)?;
    let pusher = match &args.push {
        Some(_) => Some(pusher()?),
        None => None,
    };
    let archives = build()?;
    if cluster.is_up() {
        cluster.load(&archives)?;
        println!("loaded into the local cluster");
    }
    if let (Some(prefix), Some(pusher)) = (&args.push, pusher) {
        push(pusher, prefix, &archives)?;
    }
    Ok(())
}

/// Compiles both programs and writes `target/images/<name>-<version>.tar`, in the order of [`IMAGES`].
///
/// # Errors
/// If a program can't be compiled, or a file is missing.
pub fn build() -> anyhow::Result<Vec<PathBuf>> {
    let root = sh::root();
    let folder = root.join("target/images");
    if !Path::new(CERTIFICATES).exists() {
        bail!("{CERTIFICATES} is missing\n    fix: apt-get install -y ca-certificates");
    }
    for (place, content) in BASE {
        let file = folder.join("base").join(&place[1..]);
        std::fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
        std::fs::write(&file, content)
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    let mut archives = Vec::new();
    for image in &IMAGES {
        let mut cargo = sh::cargo(["build", "--locked", "--release", "--target-dir", "target"]);
        sh::run(cargo.args(image.build), &mut sh::Counts::default())?;
        let archive = folder.join(format!("{}-{VERSION}.tar", image.name));
        let mut script = Cluster::here().script(["archive"]);
        script
            .arg(&archive)
            .arg(image.reference())
            .arg(image.config().to_string())
            .arg(format!("{}:/", folder.join("base").display()))
            .arg(format!("{CERTIFICATES}:{CERTIFICATES}"));
        for (from, to) in file_list(image) {
            let mut from = root.join(from);
            if to == &image.program() {
                let stripped = folder.join(image.name);
                sh::output(
                    Command::new("strip")
                        .args(STRIP)
                        .arg("-o")
                        .arg(&stripped)
                        .arg(&from),
                )?;
                from = stripped;
            }
            script.arg(format!("{}:{to}", from.display()));
        }
        sh::output(&mut script)?;
        let size = std::fs::metadata(&archive)?.len();
        println!(
            "{}: {} MB in {}",
            image.reference(),
            size.div_ceil(1_000_000),
            archive.display()
        );
        archives.push(archive);
    }
    Ok(archives)
}

/// The first program of this machine that can push an archive.
///
/// # Errors
/// If there is none.
pub fn pusher() -> anyhow::Result<&'static str> {
    ["skopeo", "docker", "podman"]
        .into_iter()
        .find(|program| {
            Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|out| out.status.success())
        })
        .context("nothing here can push an image\n    fix: apt-get install -y skopeo")
}

/// Pushes the archives of [`build`] as `<prefix>/<name>:<version>`.
///
/// # Errors
/// If the program fails; it has said why.
pub fn push(pusher: &str, prefix: &str, archives: &[PathBuf]) -> anyhow::Result<()> {
    let prefix = prefix.trim_end_matches('/');
    for (image, archive) in IMAGES.iter().zip(archives) {
        let name = image.reference();
        let to = format!("{prefix}/{name}");
        if pusher == "skopeo" {
            let from = format!("docker-archive:{}", archive.display());
            sh::output(Command::new(pusher).args(["copy", &from, &format!("docker://{to}")]))?;
        } else {
            sh::output(Command::new(pusher).arg("load").arg("-i").arg(archive))?;
            sh::output(Command::new(pusher).args(["tag", &name, &to]))?;
            sh::output(Command::new(pusher).args(["push", &to]))?;
        }
        println!("pushed {to}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Dockerfile's stage of that name says after its `FROM`.
    fn stage<'a>(dockerfile: &'a str, name: &str) -> Vec<&'a str> {
        let end = format!(" AS {name}");
        dockerfile
            .lines()
            .skip_while(|line| !(line.starts_with("FROM ") && line.ends_with(&end)))
            .skip(1)
            .take_while(|line| !line.starts_with("FROM "))
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect()
    }

    #[test]
    fn an_image_has_the_files_ports_user_and_entry_of_the_dockerfiles_stage() {
        let dockerfile = std::fs::read_to_string(sh::root().join("Dockerfile")).expect("is there");
        for image in &IMAGES {
            let mut expected: Vec<String> = file_list(image)
                .iter()
                .map(|(from, to)| format!("COPY --from=build /src/{from} {to}"))
                .collect();
            expected.push(format!("USER {USER}"));
            expected.push(format!("EXPOSE {}", image.ports.join(" ")));
            expected.push(format!("ENTRYPOINT [\"{}\"]", image.program()));
            assert_eq!(stage(&dockerfile, image.name), expected, "{}", image.name);
        }
    }

    #[test]
    fn the_dockerfile_builds_each_program_as_the_image_does() {
        let dockerfile = std::fs::read_to_string(sh::root().join("Dockerfile")).expect("is there");
        for image in &IMAGES {
            let build = format!("cargo build --locked --release {}", image.build.join(" "));
            assert!(dockerfile.contains(&build), "{build}");
            let program = file_list(image)[0].0;
            let strip = format!("strip {} {program}", STRIP.join(" "));
            assert!(dockerfile.contains(&strip), "{strip}");
        }
    }
}
