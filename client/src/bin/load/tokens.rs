//! The bearer tokens of a run: one for all, one a line of a file, or one minted for each session as
//! `media-server token` does.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

/// Where tokens come from.
pub enum Tokens {
    /// The same for every session; `None` sends none.
    One(Option<String>),
    /// The viewers take these in turn; publishers have one of their own.
    Lines {
        publisher: Option<String>,
        viewers: Vec<String>,
    },
    /// Each session has its own, for its device and its use alone.
    Minted(Minter),
}

/// What minted tokens have in common.
pub struct Minter {
    pub key: EncodingKey,
    pub issuer: String,
    pub audience: String,
    pub lifetime: Duration,
}

impl Tokens {
    /// Reads the tokens of a file, one a line.
    ///
    /// # Errors
    /// If it can't be read or has none.
    pub fn lines(path: &Path, publisher: Option<String>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let viewers: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        anyhow::ensure!(!viewers.is_empty(), "{} holds no token", path.display());
        Ok(Self::Lines { publisher, viewers })
    }

    /// The token to publish `device` with.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn publisher(&self, device: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::One(token) => Ok(token.clone()),
            Self::Lines { publisher, .. } => Ok(publisher.clone()),
            Self::Minted(minter) => minter.mint(&format!("load-{device}"), "publish", device),
        }
    }

    /// The token of the viewer of that number, who watches `device`.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn viewer(&self, number: usize, device: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::One(token) => Ok(token.clone()),
            Self::Lines { viewers, .. } => Ok(viewers.get(number % viewers.len()).cloned()),
            Self::Minted(minter) => minter.mint(&format!("load-viewer-{number}"), "view", device),
        }
    }
}

impl Minter {
    /// Reads the key; of a text file, without the newline that editors put at its end.
    ///
    /// # Errors
    /// If it can't be read or is empty.
    pub fn new(
        path: &Path,
        issuer: &str,
        audience: &str,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        let mut key =
            std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        if std::str::from_utf8(&key).is_ok() && key.last() == Some(&b'\n') {
            key.pop();
        }
        anyhow::ensure!(!key.is_empty(), "{} is empty", path.display());
        Ok(Self {
            key: EncodingKey::from_secret(&key),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            lifetime,
        })
    }

    fn mint(&self, subject: &str, grant: &str, device: &str) -> anyhow::Result<Option<String>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let claims = json!({
            "sub": subject,
            "iss": self.issuer,
            "aud": self.audience,
            "iat": now,
            "exp": now + self.lifetime.as_secs(),
            "media": {grant: [device]},
        });
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .context("failed to sign a token")?;
        Ok(Some(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_take_the_tokens_of_a_file_in_turn_and_the_publisher_its_own() {
        let path = std::env::temp_dir().join(format!("media-load-tokens-{}", std::process::id()));
        std::fs::write(&path, "a\n\n b \n").expect("written");
        let tokens = Tokens::lines(&path, Some("p".to_owned())).expect("two tokens");
        std::fs::write(&path, "\n").expect("written");
        assert!(Tokens::lines(&path, None).is_err(), "no token in it");
        std::fs::remove_file(&path).expect("removed");
        let of = |number| tokens.viewer(number, "cam").expect("no signing");
        assert_eq!([of(0), of(1), of(2)].map(Option::unwrap), ["a", "b", "a"]);
        let own = tokens.publisher("cam").expect("no signing");
        assert_eq!(own.as_deref(), Some("p"));
    }

    #[test]
    fn each_minted_token_names_its_holder_its_device_and_one_use() {
        use jsonwebtoken::{DecodingKey, Validation};
        let key = b"a key of at least thirty-two bytes";
        let tokens = Tokens::Minted(Minter {
            key: EncodingKey::from_secret(key),
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            lifetime: Duration::from_secs(60),
        });
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&["i"]);
        validation.set_audience(&["a"]);
        let claims = |token: Option<String>| {
            jsonwebtoken::decode::<serde_json::Value>(
                token.expect("a token"),
                &DecodingKey::from_secret(key),
                &validation,
            )
            .expect("signed and valid")
            .claims
        };
        let viewer = claims(tokens.viewer(7, "cam").expect("signs"));
        assert_eq!(viewer["sub"], "load-viewer-7");
        assert_eq!(viewer["media"], json!({"view": ["cam"]}));
        let publisher = claims(tokens.publisher("cam").expect("signs"));
        assert_eq!(publisher["media"], json!({"publish": ["cam"]}));
    }
}
