//! What the programs of this crate have in common in their flags, and in how they are told to end.
//!
//! Pure but for the signals. `media-load`, `media-device` and `media-test-publisher` call it.

use std::io;
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

/// The endpoint of one device: `{device}` is replaced by its name, which else is appended where the address
/// ends with `/whip` or `/whep`.
pub fn endpoint(base: &str, device: &str) -> String {
    let trimmed = base.trim_end_matches('/');
    if base.contains("{device}") {
        base.replace("{device}", device)
    } else if trimmed.ends_with("/whip") || trimmed.ends_with("/whep") {
        format!("{trimmed}/{device}")
    } else {
        base.to_owned()
    }
}

/// Reads `HOST=IP:PORT`.
///
/// # Errors
/// What it is not.
pub fn resolve(value: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = value.split_once('=').ok_or("expected HOST=IP:PORT")?;
    let address = address
        .parse()
        .map_err(|error| format!("{address} is no address with a port: {error}"))?;
    Ok((host.to_owned(), address))
}

/// Done at SIGINT or SIGTERM, which no longer end the process by themselves.
///
/// # Errors
/// If they can't be listened for.
pub fn stopped() -> io::Result<impl Future<Output = ()> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_goes_where_the_address_wants_it() {
        assert_eq!(endpoint("http://h/whip", "a"), "http://h/whip/a");
        assert_eq!(endpoint("http://h/whip/", "a"), "http://h/whip/a");
        assert_eq!(endpoint("http://h/x/{device}/in", "a"), "http://h/x/a/in");
        assert_eq!(endpoint("http://h/whep/cam-1", "a"), "http://h/whep/cam-1");
    }

    #[test]
    fn a_host_is_led_to_an_address_with_a_port() {
        let (host, address) = resolve("cam.example=192.0.2.1:443").expect("both");
        assert_eq!((&*host, address.port()), ("cam.example", 443));
        assert!(resolve("cam.example").is_err());
        assert!(resolve("cam.example=192.0.2.1").is_err());
    }
}
