//! The key of the tags in ufrags.

use super::{AppError, random};
use crate::config::Config;
use aws_lc_rs::hkdf;

/// HKDF-SHA256 of the cluster key, so that every process of a MediaService has the same; without a
/// cluster key one of this boot.
pub(super) fn derive(config: &Config) -> Result<[u8; 16], AppError> {
    let Some(path) = &config.cluster_key_file else {
        return Ok(random());
    };
    let secret = std::fs::read(path).map_err(|source| AppError::ClusterKey {
        path: path.clone(),
        source,
    })?;
    if secret.len() < 32 {
        return Err(AppError::ShortClusterKey {
            path: path.clone(),
            bytes: secret.len(),
        });
    }
    let mut key = [0; 16];
    hkdf::Salt::new(hkdf::HKDF_SHA256, config.cluster_uid.as_bytes())
        .extract(&secret)
        .expand(&[b"mediaservice/v1/ufrag"], KeyLen(key.len()))
        .and_then(|okm| okm.fill(&mut key))
        .expect("16 bytes are within what HKDF gives");
    Ok(key)
}

struct KeyLen(usize);

impl hkdf::KeyType for KeyLen {
    fn len(&self) -> usize {
        self.0
    }
}
