//! Actions through `adb -s SERIAL shell input …`, as the origin does them.
//!
//! Each goes out as an argument vector: no shell of this machine sees it. That of the device does, because adb
//! joins what follows `shell` and has it read by a shell, so what a viewer wrote is quoted for that one.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;
use tokio::time::timeout;

use super::inject::{Action, InjectError, Injector, Press, Touch};

/// One device behind adb.
#[derive(Debug)]
pub struct Adb {
    pub serial: String,
}

/// `input` starts a virtual machine on the device, which takes a second on slow ones.
const LONGEST: Duration = Duration::from_secs(10);

/// Bytes of what adb says that an error repeats.
const MAX_SAID: usize = 300;

#[async_trait]
impl Injector for Adb {
    async fn inject(&mut self, action: &Action) -> Result<(), InjectError> {
        let input = input(action)?;
        let failed = |source| InjectError::Io {
            attempt: "run adb",
            source,
        };
        let mut command = Command::new("adb");
        command
            .args(["-s", &self.serial, "shell"])
            .args(&input)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(LONGEST, command.output()).await;
        let output = output
            .map_err(|_| InjectError::Slow { after: LONGEST })?
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(InjectError::Adb {
            status: output.status.to_string(),
            said: said.chars().take(MAX_SAID).collect(),
        })
    }
}

/// The command for the device's shell.
///
/// Down, move and up are `input motionevent` (Android 11): the origin's `input touchscreen down` is no command
/// of any Android.
fn input(action: &Action) -> Result<Vec<String>, InjectError> {
    let (verb, rest) = match action {
        Action::Touch { action, x, y } => {
            let verb: &[&str] = match action {
                Touch::Tap => &["tap"],
                Touch::Down => &["motionevent", "DOWN"],
                Touch::Move => &["motionevent", "MOVE"],
                Touch::Up => &["motionevent", "UP"],
            };
            (verb, vec![x.to_string(), y.to_string()])
        }
        Action::Key { action, code } => {
            let verb: &[&str] = match action {
                Press::Press => &["keyevent"],
                Press::Long => &["keyevent", "--longpress"],
            };
            (verb, vec![code.to_string()])
        }
        Action::Text { text } => (&["text"][..], vec![typed(text)?]),
    };
    let words = ["input"].iter().chain(verb).map(|word| (*word).to_owned());
    Ok(words.chain(rest).collect())
}

/// The text as `input text` takes it, in quotes for the device's shell.
fn typed(text: &str) -> Result<String, InjectError> {
    let unsupported = |what| Err(InjectError::Unsupported { what });
    if text.is_empty() {
        return unsupported("no text");
    }
    // Its table of keys has no others, and it crashes on them.
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return unsupported("text beyond ASCII");
    }
    // That is how it has a space written, and nothing stands for itself.
    if text.contains("%s") {
        return unsupported("%s");
    }
    let words = text.replace(' ', "%s").replace('\'', r"'\''");
    Ok(format!("'{words}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(message: &str) -> Result<String, InjectError> {
        let action: Action = serde_json::from_str(message).expect("an action");
        input(&action).map(|words| words.join("|"))
    }

    #[test]
    fn each_action_is_one_command_of_the_device() {
        for (message, command) in [
            (
                r#"{"type":"touch","action":"tap","x":540.5,"y":960}"#,
                "input|tap|541|960",
            ),
            (
                r#"{"type":"touch","action":"down","x":1}"#,
                "input|motionevent|DOWN|1|0",
            ),
            (
                r#"{"type":"touch","action":"move","x":-1,"y":2.4}"#,
                "input|motionevent|MOVE|-1|2",
            ),
            (
                r#"{"type":"touch","action":"up","y":2}"#,
                "input|motionevent|UP|0|2",
            ),
            (
                r#"{"type":"key","action":"press","keyCode":4}"#,
                "input|keyevent|4",
            ),
            (
                r#"{"type":"key","action":"longpress","keyCode":26}"#,
                "input|keyevent|--longpress|26",
            ),
            (
                r#"{"type":"text","text":"hello you"}"#,
                "input|text|'hello%syou'",
            ),
        ] {
            assert_eq!(
                words(message).expect("it can be done"),
                command,
                "{message}"
            );
        }
    }

    #[test]
    fn text_is_typed_and_never_run() {
        for (text, word) in [
            ("a; reboot", "'a;%sreboot'"),
            (
                "$(reboot) `id` && |>*?~\\",
                r"'$(reboot)%s`id`%s&&%s|>*?~\'",
            ),
            ("it's", r"'it'\''s'"),
            ("-x", "'-x'"),
            ("'; rm -rf /; '", r"''\'';%srm%s-rf%s/;%s'\'''"),
        ] {
            let typed = typed(text).expect("it can be typed");
            assert_eq!(typed, word);
            // What a shell makes of it is the one word again.
            let shell = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {typed}")])
                .output()
                .expect("there is a shell");
            let read = String::from_utf8_lossy(&shell.stdout).replace("%s", " ");
            assert_eq!(read, text);
        }
    }

    #[test]
    fn what_input_can_not_type_is_refused() {
        for text in ["", "hé", "a\nb", "a\u{1b}b", "100%s"] {
            let message = serde_json::json!({"type": "text", "text": text}).to_string();
            let error = words(&message).expect_err(text);
            assert_eq!(error.code(), "unsupported");
        }
    }
}
