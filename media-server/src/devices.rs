//! Names of devices: what clients say, and the key that this process knows a device by.
//!
//! Without tenants both are the same. With them (`auth.tenant_claim`) the key is `<tenant>/<device>`, and the tenant comes
//! from the token alone. No name has a slash, so a key of one tenant is never one of another. Pure.

/// Whether it can name a device or a tenant: 1 to 128 of `A-Z a-z 0-9 . _ -`, but for the two that clients take out of
/// paths (RFC 3986 §5.2.4): they would never find their session again.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}

/// What clients call the device of a key.
pub fn name_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// The tenant that the device of a key belongs to, where there are tenants.
pub fn tenant_of(key: &str) -> Option<&str> {
    key.rsplit_once('/').map(|(tenant, _)| tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_a_path() {
        for name in ["cam-1", "a.b", "...", &"x".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_device_is_called_the_same_with_and_without_a_tenant() {
        assert_eq!(name_of("cam-1"), "cam-1");
        assert_eq!(name_of("acme/cam-1"), "cam-1");
        assert_eq!(tenant_of("cam-1"), None);
        assert_eq!(tenant_of("acme/cam-1"), Some("acme"));
    }
}
