//! A headless Chromium, driven through chromedriver.
//!
//! Each browser is a process of its own with a fresh profile and fake cameras. Sessions of two
//! browsers share nothing, and no window hides another.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::process::{Process, TempDir};
use crate::wait::wait_for;

pub struct Browser {
    // Dropped in this order: the driver first, then what it left.
    client: Client,
    _driver: Process,
    _profile: Profile,
}

/// How a browser is started.
#[derive(Debug, Clone)]
pub struct Options {
    pub width: u32,
    pub height: u32,
    /// Emulates a phone: touch, its own width, twice the pixels.
    pub phone: bool,
    /// Accepts self-signed certificates.
    pub insecure_tls: bool,
    /// Host names and the addresses that they stand for, in place of DNS.
    pub hosts: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 800,
            phone: false,
            insecure_tls: false,
            hosts: Vec::new(),
        }
    }
}

impl Browser {
    /// Starts Chromium (`CHROMIUM`, else `chromium`) through chromedriver (`CHROMEDRIVER`, else that).
    ///
    /// # Panics
    /// If one of them cannot be started.
    pub async fn start(options: Options) -> Self {
        let profile = Profile(TempDir::new("chromium"));
        let driver_program =
            std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        let mut driver =
            Process::start("chromedriver", Command::new(driver_program).arg("--port=0"));
        let port = wait_for("chromedriver to listen", Duration::from_secs(30), || {
            assert!(
                driver.ended().is_none(),
                "chromedriver ended: {}",
                driver.log()
            );
            let log = driver.log();
            let port = log
                .split("on port ")
                .last()
                .and_then(|rest| rest.split('.').next()?.trim().parse::<u16>().ok());
            async move { port.ok_or(log) }
        })
        .await;

        let mut args = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--disable-quic".into(),
            "--no-first-run".into(),
            "--hide-scrollbars".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            // Addresses of this machine are no secret from this machine.
            "--disable-features=WebRtcHideLocalIpsWithMdns".into(),
            "--use-fake-device-for-media-stream".into(),
            "--use-fake-ui-for-media-stream".into(),
            "--autoplay-policy=no-user-gesture-required".into(),
            format!("--user-data-dir={}", profile.0.path().display()),
            format!("--window-size={},{}", options.width, options.height),
        ];
        if options.insecure_tls {
            args.push("--ignore-certificate-errors".into());
        }
        if !options.hosts.is_empty() {
            let rules = options
                .hosts
                .iter()
                .map(|(host, address)| format!("MAP {host} {address}"));
            args.push(format!(
                "--host-resolver-rules={}",
                rules.collect::<Vec<_>>().join(",")
            ));
        }
        let mut chrome = json!({"binary": chromium, "args": args});
        if options.phone {
            chrome["mobileEmulation"] = json!({
                "deviceMetrics": {"width": options.width, "height": options.height, "pixelRatio": 2.0, "touch": true},
            });
        }
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": chrome,
            "goog:loggingPrefs": {"browser": "ALL"},
            "acceptInsecureCerts": options.insecure_tls,
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("an object was written above")
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}:{port}", Ipv4Addr::LOCALHOST))
            .await
            .unwrap_or_else(|error| panic!("Chromium did not start: {error}\n{}", driver.log()));
        Self {
            client,
            _driver: driver,
            _profile: profile,
        }
    }

    /// # Panics
    /// If the address cannot be opened.
    pub async fn open(&self, url: &str) {
        self.client
            .goto(url)
            .await
            .unwrap_or_else(|error| panic!("cannot open {url}: {error}"));
    }

    /// Runs a function body in the page and returns its value; a returned promise is awaited.
    ///
    /// # Errors
    /// What the script threw.
    pub async fn run(&self, script: &str, args: Vec<Value>) -> anyhow::Result<Value> {
        Ok(self.client.execute(script, args).await?)
    }

    /// Writes a PNG of the window.
    ///
    /// # Panics
    /// If the file cannot be written or Chromium is gone.
    pub async fn screenshot(&self, path: &Path) {
        let png = self
            .client
            .screenshot()
            .await
            .expect("Chromium takes screenshots");
        std::fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("the folder can be made");
        std::fs::write(path, png).expect("the screenshot can be written");
        println!("screenshot: {}", path.display());
    }

    /// Opens an empty page: the one before it is left as a person would leave it.
    pub async fn leave(&self) {
        self.open("about:blank").await;
    }

    /// Ends Chromium in an orderly way; drop ends it too, by force.
    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

/// A profile folder; whatever still runs with it on drop is killed, by pid.
struct Profile(TempDir);

impl Drop for Profile {
    fn drop(&mut self) {
        let flag = format!("--user-data-dir={}", self.0.path().display());
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name
                .to_str()
                .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // Some of Chromium's processes join their arguments by spaces.
            if line
                .split(|byte| *byte == 0 || *byte == b' ')
                .any(|arg| arg == flag.as_bytes())
            {
                let _ = Command::new("kill").args(["-s", "KILL", pid]).status();
            }
        }
    }
}
