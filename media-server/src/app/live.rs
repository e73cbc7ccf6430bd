//! Settings that change while the server runs: the log level, and the share of traces that are kept.
//!
//! A pod's file is a mounted ConfigMap, so a change reaches it within a minute or two, and no session notices.

use super::App;
use crate::config::{Config, LiveFile, LiveSettings};
use crate::log;

/// What the file said last.
pub(super) struct Live {
    file: LiveFile,
    settings: LiveSettings,
}

impl Live {
    pub(super) fn new(config: &Config) -> Live {
        Live {
            file: config.live.clone(),
            // What the server started with; a file that can't be read any more is told of at the first look.
            settings: config.live.read().unwrap_or_default(),
        }
    }

    /// Looks for changes.
    pub(super) fn look(&mut self, app: &App) {
        let read = match self.file.read() {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "configuration unreadable, the last settings stay");
                return;
            }
        };
        let changed = read.since(&self.settings);
        if let Some(filter) = changed.log_level.as_deref() {
            match log::set_filter(filter) {
                Ok(()) => tracing::info!(filter, "log level set"),
                Err(error) => {
                    tracing::warn!(filter, error, "log level unreadable, the last one stays")
                }
            }
        }
        if let (Some(traces), Some(percent)) = (&app.traces, changed.sample_percent) {
            traces.set_sample_percent(percent);
        }
        self.settings = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn a_setting_that_a_flag_has_made_is_none_of_the_file() {
        let name = format!("media-server-live-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        let text = "[log]\nlevel = \"warn\"\n[trace]\nsample_percent = 7\n";
        std::fs::write(&path, text).expect("room");
        let file = path.display().to_string();
        let says = |flags: &[&str]| {
            let line = [&["media-server", "--config", &file], flags].concat();
            let Command::Serve(args) = Cli::parse_from(line).command() else {
                panic!("serve is the default command");
            };
            let config = Config::load(*args).expect("right");
            let read = config.live.read().expect("readable");
            (read.log_level, read.sample_percent)
        };
        let warn = Some("warn".to_owned());
        assert_eq!(says(&[]), (warn.clone(), Some(7)));
        assert_eq!(says(&["--log-level", "debug"]), (None, Some(7)));
        assert_eq!(says(&["--trace-sample-percent", "50"]), (warn, None));
        std::fs::remove_file(&path).expect("it is ours");
    }
}
