//! Runs of `cargo xtask demo`, and whether what they print is true.

use std::process::Command;

use crate::process::program;

/// One run that has ended.
#[derive(Debug)]
pub struct Run {
    pub ok: bool,
    pub said: String,
    /// Its standard error.
    pub complained: String,
}

/// `cargo xtask demo` with these flags.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program("XTASK", "xtask"));
    command.arg("demo").args(args);
    command
}

/// Runs it until it returns.
///
/// # Panics
/// If it can't be started.
pub fn run(args: &[&str]) -> Run {
    let output = command(args).output().expect("xtask can be started");
    Run {
        ok: output.status.success(),
        said: String::from_utf8_lossy(&output.stdout).into_owned(),
        complained: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Run {
    /// Itself, when the command returned 0.
    ///
    /// # Panics
    /// With all that it printed, when it did not.
    pub fn good(self) -> Self {
        assert!(self.ok, "{}\n{}", self.said, self.complained);
        self
    }

    /// Origin and token of the page that it printed last of all on this machine.
    ///
    /// # Panics
    /// If it printed none.
    pub fn page(&self) -> (&str, &str) {
        let page = self
            .said
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("http://127.0.0.1:"))
            .filter_map(|line| line.split_once("/#token="))
            .next_back();
        let (origin, rest) = page.unwrap_or_else(|| panic!("no page in\n{}", self.said));
        (origin, rest.split('&').next().unwrap_or_default())
    }

    /// Asks for everything that the summary promises: the page, the live device behind its token, the
    /// metrics; and reads that a hundred frames were watched and that there is a promql.
    ///
    /// # Panics
    /// If one of them is not so.
    pub async fn is_live(&self) {
        let (origin, token) = self.page();
        let page = get(&format!("{origin}/"), None).await;
        assert!(page.contains("<html"), "{page}");
        let devices = get(&format!("{origin}/api/v1/devices"), Some(token)).await;
        assert!(devices.contains("test-picture"), "{devices}");

        let curl = self.said.lines().map(str::trim);
        let url = curl
            .filter_map(|line| line.strip_prefix("curl "))
            .next_back()
            .unwrap_or_else(|| panic!("no curl in\n{}", self.said));
        let metrics = get(url, None).await;
        assert!(metrics.contains("media_active_sessions"), "{metrics}");

        let frames = self.said.lines().filter_map(|line| {
            line.strip_prefix("watched ")?
                .strip_suffix(" frames")?
                .parse()
                .ok()
        });
        let frames: Vec<u32> = frames.collect();
        assert!(
            !frames.is_empty() && frames.iter().all(|frames| *frames >= 100),
            "{frames:?} in\n{}",
            self.said
        );
        let query = "media_active_sessions{namespace=\"media\"}";
        assert!(self.said.contains(query), "{}", self.said);
    }
}

async fn get(url: &str, token: Option<&str>) -> String {
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request
        .send()
        .await
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    let status = response.status();
    let body = response.text().await.expect("a body comes");
    assert!(status.is_success(), "{url}: {status} {body}");
    body
}
