//! Settings of recordings: `[recording]` of the file, its flags, and the name of the service that this
//! one replaces (`RECORDING_STORAGE_PATH`). Part of `config.rs`, which calls it once.

use super::ConfigError;
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

const DEFAULT_SIZE_LIMIT: &str = "10Gi";
const DEFAULT_MAX_SECONDS: u32 = 14_400;

#[derive(Debug, Args, Default)]
pub struct RecordingArgs {
    /// Folder that recordings are written to; without it there are none
    #[arg(long, env = "MEDIA_RECORDING_DIR", value_name = "FOLDER")]
    recording_dir: Option<PathBuf>,
    /// Bytes that all recordings may take, such as 500Mi or 10Gi [default: 10Gi]
    #[arg(long, env = "MEDIA_RECORDING_SIZE_LIMIT", value_name = "SIZE")]
    recording_size_limit: Option<String>,
    /// Seconds that one recording may last, 0 for ever [default: 14400]
    #[arg(long, env = "MEDIA_RECORDING_MAX_SECONDS", value_name = "SECONDS")]
    recording_max_seconds: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileRecording {
    dir: Option<PathBuf>,
    size_limit: Option<String>,
    max_seconds: Option<u32>,
}

/// Where recordings go, and how much they may take.
#[derive(Debug, Clone)]
pub struct RecordingConfig {
    pub dir: PathBuf,
    /// Bytes of all together.
    pub size_limit: u64,
    /// Of one; `None`: for ever.
    pub max: Option<Duration>,
}

/// `None`: there are no recordings.
pub(super) fn merge(
    args: RecordingArgs,
    file: FileRecording,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<RecordingConfig>, ConfigError> {
    let named = || env("RECORDING_STORAGE_PATH").filter(|path| !path.is_empty());
    let dir = args.recording_dir.or(file.dir);
    let Some(dir) = dir.or_else(|| named().map(PathBuf::from)) else {
        return Ok(None);
    };
    let limit = args.recording_size_limit.or(file.size_limit);
    let limit = limit.as_deref().unwrap_or(DEFAULT_SIZE_LIMIT);
    let size_limit = size(limit).ok_or_else(|| {
        ConfigError::Wrong(format!(
            "the size limit of recordings is {limit:?}; give bytes, or a number and Ki, Mi, Gi or Ti, such as 10Gi"
        ))
    })?;
    let seconds = args.recording_max_seconds.or(file.max_seconds);
    let seconds = seconds.unwrap_or(DEFAULT_MAX_SECONDS);
    Ok(Some(RecordingConfig {
        dir,
        size_limit,
        max: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
    }))
}

/// A whole quantity as Kubernetes writes it.
fn size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    #[test]
    fn there_are_recordings_where_there_is_a_folder_for_them() {
        assert!(load(&[], "", &[]).expect("right").recording.is_none());
        let old = [("RECORDING_STORAGE_PATH", "/data")];
        let config = load(&[], "", &old).expect("right").recording.expect("on");
        assert_eq!(config.dir, PathBuf::from("/data"));
        assert_eq!(
            (config.size_limit, config.max),
            (10 << 30, Some(Duration::from_secs(14_400)))
        );
        let file = "[recording]\ndir = '/file'\nsize_limit = '500Mi'\nmax_seconds = 0";
        let config = load(&[], file, &old).expect("right").recording.expect("on");
        assert_eq!(config.dir, PathBuf::from("/file"));
        assert_eq!((config.size_limit, config.max), (500 << 20, None));
        let config = load(&["--recording-dir", "/flag"], file, &old).expect("right");
        assert_eq!(config.recording.expect("on").dir, PathBuf::from("/flag"));
    }

    #[test]
    fn sizes_are_those_of_kubernetes() {
        for (text, bytes) in [
            ("0", 0),
            ("7", 7),
            ("2k", 2_000),
            ("1Ki", 1_024),
            ("3Ti", 3 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "Gi", "1.5Gi", "1GB", "-1", "99999999999Ti"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
