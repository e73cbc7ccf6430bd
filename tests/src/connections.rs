//! `RTCPeerConnection`s that a test makes in a page by itself, where the product's own page would hide
//! what it looks at: a name for each, WHIP and WHEP without any of the product's scripts, and statistics.

use anyhow::Context;
use serde_json::{Value, json};

use crate::browser::Browser;

/// What scripts find in the page:
/// - `connections`: by name;
/// - `negotiate(name, pc, url, change, token)`: offers at a WHIP or WHEP endpoint, keeps the connection under
///   its name, and takes the answer as `change` makes it of the server's; returns that and its `Link`;
/// - `statistics(name, type, fields)`: a list of the statistics of that type, with those fields.
const LIBRARY: &str = r"
window.connections = {};
window.negotiate = async (name, pc, url, change = sdp => sdp, token = '') => {
  connections[name] = pc;
  await pc.setLocalDescription();
  const headers = {'content-type': 'application/sdp'};
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(url, {method: 'POST', headers, body: pc.localDescription.sdp});
  const answer = await response.text();
  if (response.status !== 201) throw new Error(answer);
  await pc.setRemoteDescription({type: 'answer', sdp: change(answer)});
  return {answer, link: response.headers.get('link')};
};
window.statistics = async (name, type, fields) => {
  const all = [...(await connections[name].getStats()).values()];
  const pick = stat => Object.fromEntries(fields.map(field => [field, stat[field]]));
  return all.filter(stat => stat.type === type).map(pick);
};";

/// A page of the server's origin with nothing but the library in it.
pub struct Connections<'a>(pub &'a Browser);

impl<'a> Connections<'a> {
    /// Opens the page.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub async fn open(browser: &'a Browser, url: &str) -> Self {
        browser.open(url).await;
        let page = Self(browser);
        page.run(LIBRARY, vec![]).await;
        page
    }

    /// Runs a function body and returns its value; a returned promise is awaited.
    ///
    /// # Panics
    /// With what the script threw.
    pub async fn run(&self, script: &str, args: Vec<Value>) -> Value {
        let result = self.0.run(script, args).await;
        result.unwrap_or_else(|error| panic!("the script failed: {error}\n{script}"))
    }

    /// Those fields of a connection's statistics of one type (`inbound-rtp`, `outbound-rtp`, …).
    ///
    /// # Errors
    /// If there is no such connection.
    pub async fn statistics(
        &self,
        name: &str,
        of_type: &str,
        fields: &[&str],
    ) -> anyhow::Result<Vec<Value>> {
        let script = "return statistics(...arguments)";
        let args = vec![json!(name), json!(of_type), json!(fields)];
        match self.0.run(script, args).await? {
            Value::Array(list) => Ok(list),
            other => anyhow::bail!("{other} is no list"),
        }
    }

    /// What the decoder of a connection with one track has seen.
    ///
    /// # Errors
    /// If there is no such connection, or nothing has come yet.
    pub async fn received(&self, name: &str) -> anyhow::Result<Value> {
        let list = self.statistics(name, "inbound-rtp", RECEIVED).await?;
        list.into_iter().next().context("nothing has come")
    }
}

const RECEIVED: &[&str] = &[
    "frameWidth",
    "framesDecoded",
    "freezeCount",
    "packetsLost",
    "pliCount",
    "nackCount",
];
