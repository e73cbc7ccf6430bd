//! The configuration file: its keys as they are written, all of them optional. `config.rs` documents
//! each and merges them with flags and environment.

use super::ConfigError;
use super::auth::FileAuth;
use super::events::FileEvents;
use super::recording::FileRecording;
use super::trace::FileTrace;
use super::turn::FileTurn;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) http: FileHttp,
    pub(super) media: FileMedia,
    pub(super) auth: FileAuth,
    pub(super) cluster: FileCluster,
    pub(super) limits: FileLimits,
    pub(super) turn: FileTurn,
    pub(super) events: FileEvents,
    pub(super) recording: FileRecording,
    pub(super) metrics: FileMetrics,
    pub(super) drain: FileDrain,
    pub(super) outbound: FileOutbound,
    pub(super) trace: FileTrace,
    pub(super) log: FileLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileHttp {
    pub(super) listen: Option<SocketAddr>,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) cors_origins: Vec<String>,
    pub(super) connections: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileMedia {
    pub(super) listen: Option<SocketAddr>,
    pub(super) tcp: Option<bool>,
    pub(super) advertise: Vec<String>,
    pub(super) addresses_file: Option<PathBuf>,
    pub(super) shards: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileCluster {
    pub(super) key_file: Option<PathBuf>,
    pub(super) uid: Option<String>,
    pub(super) ordinal: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLimits {
    pub(super) sessions_per_pod: Option<u32>,
    pub(super) viewers_per_device: Option<u32>,
    pub(super) video_kbps: Option<u32>,
    pub(super) idle_publisher_kbps: Option<u32>,
    pub(super) max_session_seconds: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileMetrics {
    pub(super) per_session_series: Option<bool>,
    pub(super) max_series_per_family: Option<usize>,
    pub(super) scrape_interval_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileDrain {
    pub(super) timeout_seconds: Option<u64>,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileOutbound {
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileLog {
    pub(super) level: Option<String>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|e| ConfigError::Parse {
            path: path.to_owned(),
            message: e.to_string(),
        })
    }
}
