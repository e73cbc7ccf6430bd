//! The product's page in a browser: what a person does there, and what a person sees.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::wait::wait_for;

/// Where a published picture comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    Camera,
    TestPicture,
}

/// An open page.
pub struct Page<'a>(pub &'a Browser);

impl<'a> Page<'a> {
    /// Opens the page at `base` with a token in the fragment, if one is given.
    pub async fn open(browser: &'a Browser, base: &str, token: Option<&str>) -> Self {
        // A new document each time: a change of the fragment alone would not load one.
        browser.leave().await;
        let fragment = token
            .map(|token| format!("#token={token}"))
            .unwrap_or_default();
        browser
            .open(&format!("{}/{fragment}", base.trim_end_matches('/')))
            .await;
        let page = Self(browser);
        wait_for(
            "the page's script to run",
            Duration::from_secs(30),
            || async {
                match page.text("#server").await? {
                    text if text == "connecting" => bail!("{text}"),
                    _ => Ok(()),
                }
            },
        )
        .await;
        let address = browser.run("return location.href", vec![]).await;
        let address = address.expect("a page has an address").to_string();
        assert!(
            !address.contains("token="),
            "the token stays in the address bar: {address}"
        );
        page
    }

    /// Text of the first element that matches.
    ///
    /// # Errors
    /// If there is none.
    pub async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let script = "return document.querySelector(arguments[0])?.textContent ?? null";
        let value = self.0.run(script, vec![json!(selector)]).await?;
        Ok(value
            .as_str()
            .with_context(|| format!("no {selector}"))?
            .to_owned())
    }

    /// Presses Publish after filling the form in.
    ///
    /// # Panics
    /// If the form is not as expected.
    pub async fn publish(&self, device: &str, source: Source) {
        let radio = match source {
            Source::Camera => "source-camera",
            Source::TestPicture => "source-test",
        };
        let script = "const [device, radio] = arguments;
            document.getElementById('publish-device').value = device;
            const choice = document.getElementById(radio);
            if (choice.disabled) throw new Error(radio + ' is disabled');
            choice.click();
            document.getElementById('publish-button').click();";
        self.0
            .run(script, vec![json!(device), json!(radio)])
            .await
            .expect("the form can be filled in");
    }

    /// Waits until this page's publishing says that it is live.
    pub async fn published(&self, within: Duration) {
        wait_for("the page to publish", within, || async {
            let script = "return [document.getElementById('publish').dataset.state,
                document.getElementById('publish-message').textContent]";
            match self.0.run(script, vec![]).await? {
                state if state[0] == "connected" => Ok(()),
                state => bail!("{state}"),
            }
        })
        .await;
    }

    /// Presses Stop publishing.
    pub async fn stop_publishing(&self) {
        let script = "document.getElementById('publish-button').click()";
        self.0
            .run(script, vec![])
            .await
            .expect("the button can be pressed");
    }

    /// Waits for `device` in the list of live devices and presses it, as a person would.
    pub async fn watch(&self, device: &str, within: Duration) {
        wait_for(&format!("{device} in the list of live devices"), within, || async {
            let script = "const row = document.querySelector(`#devices li[data-device='${arguments[0]}'] button`);
                if (!row) return document.getElementById('devices-message').textContent;
                row.click();
                return true;";
            match self.0.run(script, vec![json!(device)]).await? {
                Value::Bool(true) => Ok(()),
                other => bail!("{other}"),
            }
        })
        .await;
    }

    /// Waits until the player has decoded `more` frames than when this was called.
    pub async fn frames_grow_by(&self, more: u64, within: Duration) {
        let before = self.frames_decoded().await.unwrap_or(0);
        wait_for(&format!("{more} more decoded frames"), within, || async {
            let now = self.frames_decoded().await?;
            if now >= before + more {
                return Ok(());
            }
            let state = self.text("#watch-state").await?;
            bail!(
                "{before} frames, then {now}; {state}: {}",
                self.text("#stage-message").await?
            )
        })
        .await;
    }

    async fn frames_decoded(&self) -> anyhow::Result<u64> {
        self.figure("#watch-figures", "frames")
            .await
            .map(|frames| frames as u64)
    }

    /// A raw figure (`frames`, `fps`, `width`, …) of `#watch-figures` or `#publish-figures`.
    ///
    /// # Errors
    /// If it is not known yet.
    pub async fn figure(&self, list: &str, name: &str) -> anyhow::Result<f64> {
        let script = "return document.querySelector(arguments[0]).dataset[arguments[1]] ?? ''";
        let value = self.0.run(script, vec![json!(list), json!(name)]).await?;
        let text = value.as_str().unwrap_or_default();
        text.parse()
            .with_context(|| format!("{list} {name}: {text:?}"))
    }

    /// The player's present picture, as 64 × 36 grey values.
    ///
    /// # Errors
    /// If it shows none yet.
    pub async fn picture(&self) -> anyhow::Result<Vec<u8>> {
        let script = "const player = document.getElementById('player');
            if (player.readyState < 2 || !player.videoWidth) return null;
            const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 36});
            const context = canvas.getContext('2d', {willReadFrequently: true});
            context.drawImage(player, 0, 0, 64, 36);
            const {data} = context.getImageData(0, 0, 64, 36);
            return Array.from({length: 64 * 36}, (_, i) => Math.round((data[4*i] + data[4*i+1] + data[4*i+2]) / 3));";
        let value = self.0.run(script, vec![]).await?;
        let pixels = value.as_array().context("the player shows no picture")?;
        Ok(pixels
            .iter()
            .map(|pixel| pixel.as_u64().unwrap_or(0) as u8)
            .collect())
    }

    /// Waits until the picture differs from the present one in at least 1 % of its pixels, and is not
    /// one flat colour.
    pub async fn picture_changes(&self, within: Duration) {
        let first = wait_for("a picture", within, || self.picture()).await;
        wait_for("the picture to change", within, || async {
            let next = self.picture().await?;
            let moved = first
                .iter()
                .zip(&next)
                .filter(|(a, b)| a.abs_diff(**b) > 16)
                .count();
            let (low, high) = (next.iter().min(), next.iter().max());
            if moved * 100 >= next.len() && high > low {
                return Ok(());
            }
            bail!(
                "{moved} of {} pixels changed, values {low:?} to {high:?}",
                next.len()
            )
        })
        .await;
    }

    /// Presses Leave in the player.
    pub async fn stop_watching(&self) {
        let script = "document.getElementById('leave').click()";
        self.0
            .run(script, vec![])
            .await
            .expect("the button can be pressed");
    }
}
