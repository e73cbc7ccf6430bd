//! Tests of tokens: which are taken, which are not and why, and what they grant.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::executor::block_on;

const KEY: &str = "a key of at least thirty-two bytes";

fn config() -> JwtConfig {
    JwtConfig {
        hmac: Some(KeySource::Text(KEY.to_owned())),
        jwks_url: None,
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        tenant_claim: None,
        enforce_grants: true,
    }
}

fn check(token: &str) -> Result<Principal, AuthError> {
    check_with(config(), token)
}

fn check_with(config: JwtConfig, token: &str) -> Result<Principal, AuthError> {
    let authorizer = Authorizer::new(Some(config), None).expect("a key");
    block_on(authorizer.check(Some(&format!("Bearer {token}"))))
}

fn signed(claims: &serde_json::Value, algorithm: Algorithm) -> String {
    let key = EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("signs")
}

fn claims() -> serde_json::Value {
    serde_json::json!({
        "sub": "alice", "iss": "i", "aud": ["x", "a"], "exp": unix_now() + 600,
        "media": {"publish": ["cam-1"], "view": ["cam-*"], "control": ["cam-2"]},
    })
}

#[test]
fn grants_cover_exact_names_and_starts() {
    let principal = check(&signed(&claims(), Algorithm::HS256)).expect("a right token");
    assert!(principal.may_publish("cam-1") && !principal.may_publish("cam-10"));
    assert!(principal.may_view("cam-10") && !principal.may_view("door"));
    assert!(principal.may_control("cam-2") && !principal.may_control("cam-1"));
    assert!(principal.owns("door", Some("alice")) && !principal.owns("cam-1", Some("bob")));
    assert!(!principal.owns("cam-1", None));
}

#[test]
fn a_star_covers_what_begins_so_and_is_a_star_at_the_end_alone() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("*", &["cam-1", "x"], &[]),
        ("cam-*", &["cam-", "cam-1"], &["cam", "Cam-1", "xcam-1"]),
        ("cam*1", &[], &["cam-1", "cam1"]),
        ("", &[], &["cam-1"]),
        ("cam-1", &["cam-1"], &["cam-10", "cam-"]),
    ];
    for (pattern, covered, others) in cases {
        let covers = |device: &&&str| covers(&[pattern.to_owned()], device);
        assert_eq!(
            covered.iter().find(|device| !covers(device)),
            None,
            "{pattern}"
        );
        assert_eq!(others.iter().find(covers), None, "{pattern}");
    }
}

#[test]
fn an_administrator_sees_and_ends_everything_and_publishes_and_controls_nothing() {
    let mut claims = claims();
    claims["media"] = serde_json::json!({"admin": true});
    let admin = check(&signed(&claims, Algorithm::HS256)).expect("a right token");
    assert!(
        admin.may_view("cam-1") && admin.owns("cam-1", Some("bob")) && admin.owns("cam-1", None)
    );
    assert!(admin.may_record("cam-1"));
    assert!(!admin.may_publish("cam-1") && !admin.may_control("cam-1"));
}

fn of_tenant(claims: serde_json::Value, enforce_grants: bool) -> Result<Principal, AuthError> {
    let config = JwtConfig {
        tenant_claim: Some("tenantId".to_owned()),
        enforce_grants,
        ..config()
    };
    check_with(config, &signed(&claims, Algorithm::HS256))
}

#[test]
fn a_tenant_has_its_own_devices_and_never_those_of_another() {
    for (media, enforce_grants) in [
        (
            serde_json::json!({"publish": ["*"], "view": ["*"], "control": ["*"], "record": ["*"], "admin": true}),
            true,
        ),
        (serde_json::json!({}), false),
    ] {
        let mut claims = claims();
        claims["tenantId"] = "acme".into();
        claims["media"] = media;
        let principal = of_tenant(claims, enforce_grants).expect("a right token");
        let own = principal.key_of("cam-1");
        assert_eq!(&*own, "acme/cam-1");
        assert!(
            principal.may_publish(&own) && principal.may_view(&own) && principal.may_control(&own)
        );
        assert!(principal.may_record(&own) && principal.owns(&own, Some("alice")));
        for other in ["globex/cam-1", "acme2/cam-1", "acm/cam-1", "cam-1", "acme"] {
            assert!(
                !principal.may_publish(other) && !principal.may_view(other),
                "{other}"
            );
            assert!(
                !principal.may_control(other) && !principal.may_record(other),
                "{other}"
            );
            assert!(
                !principal.owns(other, Some("alice")),
                "{other}: its user has the same name"
            );
        }
        assert_eq!(principal.holder().as_deref(), Some("acme/alice"));
    }
}

#[test]
fn where_there_are_tenants_a_token_names_one_that_can_be_part_of_a_key() {
    for tenant in ["", "a/b", "..", "ac me"].map(serde_json::Value::from) {
        let mut claims = claims();
        claims["tenantId"] = tenant.clone();
        assert_eq!(of_tenant(claims, true), Err(AuthError::Tenant), "{tenant}");
    }
    let mut number = claims();
    number["tenantId"] = 7.into();
    assert_eq!(of_tenant(number, true), Err(AuthError::Tenant));
    assert_eq!(
        of_tenant(claims(), false),
        Err(AuthError::Tenant),
        "none at all"
    );
}

#[test]
fn without_grants_a_valid_token_may_use_any_device_and_need_not_expire() {
    let config = JwtConfig {
        enforce_grants: false,
        ..config()
    };
    let old = serde_json::json!({
        "sub": "alice", "username": "al", "email": "a@b", "roles": ["user"], "permissions": [], "tenantId": "t",
        "iss": "i", "aud": ["a"],
    });
    let token = signed(&old, Algorithm::HS256);
    assert_eq!(
        check(&token),
        Err(AuthError::Claims),
        "with grants it must expire"
    );
    let principal = check_with(config.clone(), &token).expect("as the replaced service");
    assert!(principal.may_publish("x") && principal.may_view("x") && principal.may_control("x"));
    assert!(principal.owns("x", Some("alice")) && !principal.owns("x", Some("bob")));
    let mut expired = old;
    expired["exp"] = (unix_now() - 60).into();
    let token = signed(&expired, Algorithm::HS256);
    assert_eq!(check_with(config, &token), Err(AuthError::Expired));
}

/// RFC 8032 §7.1, test 1: a private key that everybody knows.
const ED_PKCS8: &str = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g";

#[test]
fn an_algorithm_is_taken_only_from_where_its_keys_are() {
    let ed = EncodingKey::from_ed_der(&STANDARD.decode(ED_PKCS8).expect("base64"));
    let header = Header {
        kid: Some("a".to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    let of_provider = jsonwebtoken::encode(&header, &claims(), &ed).expect("signs");
    assert_eq!(
        check(&of_provider),
        Err(AuthError::Algorithm),
        "there is no provider"
    );
    let provider_alone = JwtConfig {
        hmac: None,
        jwks_url: Some(outbound::url("https://localhost:1/").expect("a URL")),
        ..config()
    };
    // What a public key signs as a secret is signed by everybody.
    for algorithm in HMAC {
        let confused = check_with(provider_alone.clone(), &signed(&claims(), algorithm));
        assert_eq!(confused, Err(AuthError::Algorithm), "{algorithm:?}");
    }
    let nameless = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims(), &ed);
    let nameless = check_with(provider_alone, &nameless.expect("signs"));
    assert_eq!(nameless, Err(AuthError::KeyId));
}

#[test]
fn the_longer_hmac_algorithms_are_taken_too() {
    for algorithm in HMAC {
        assert!(
            check(&signed(&claims(), algorithm)).is_ok(),
            "{algorithm:?}"
        );
    }
}

#[test]
fn every_wrong_token_is_refused_for_its_reason() {
    let with = |key: &str, value: serde_json::Value| {
        let mut claims = claims();
        claims[key] = value;
        signed(&claims, Algorithm::HS256)
    };
    let without = |key: &str| {
        let mut claims = claims();
        claims.as_object_mut().expect("an object").remove(key);
        signed(&claims, Algorithm::HS256)
    };
    let good = signed(&claims(), Algorithm::HS256);
    let unsigned = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        good.split('.').nth(1).expect("claims")
    );
    let cases = [
        (with("iss", "z".into()), AuthError::Claims),
        (with("aud", "z".into()), AuthError::Claims),
        (with("sub", "".into()), AuthError::Subject),
        (without("exp"), AuthError::Claims),
        (without("aud"), AuthError::Claims),
        (with("exp", (unix_now() - 60).into()), AuthError::Expired),
        (with("nbf", (unix_now() + 60).into()), AuthError::Expired),
        (
            with("exp", (unix_now() + 100_000).into()),
            AuthError::Lifetime,
        ),
        (
            signed(
                &serde_json::json!({
                    "sub": "alice", "iss": "i", "aud": "a",
                    "iat": unix_now() + 1_000_000, "exp": unix_now() + 1_000_600,
                }),
                Algorithm::HS256,
            ),
            AuthError::Lifetime,
        ),
        (format!("{good}x"), AuthError::Signature),
        ("x.y.z".to_owned(), AuthError::Malformed),
        (String::new(), AuthError::Malformed),
    ];
    for (token, wanted) in cases {
        assert_eq!(check(&token), Err(wanted), "{token}");
    }
    assert!(check(&unsigned).is_err(), "alg none must never do");
}

#[test]
fn times_may_have_a_fraction() {
    let now = unix_now() as f64;
    for (exp, iat, wanted) in [
        (now + 600.5, now - 0.25, Ok(())),
        (now - 60.5, now - 3_600.5, Err(AuthError::Expired)),
        (now + 100_000.5, now, Err(AuthError::Lifetime)),
        (now + 600.0, -1.5, Err(AuthError::Claims)),
    ] {
        let mut claims = claims();
        claims["exp"] = exp.into();
        claims["iat"] = iat.into();
        let token = signed(&claims, Algorithm::HS256);
        assert_eq!(check(&token).map(drop), wanted, "{exp}, {iat}");
    }
}

#[test]
fn a_claim_media_of_somebody_elses_counts_for_nothing_where_grants_do_not() {
    for media in [serde_json::json!("tv"), serde_json::json!({"publish": 1})] {
        let mut claims = claims();
        claims["media"] = media;
        let token = signed(&claims, Algorithm::HS256);
        assert_eq!(check(&token), Err(AuthError::Claims));
        let config = JwtConfig {
            enforce_grants: false,
            ..config()
        };
        let principal = check_with(config, &token).expect("a valid token");
        assert!(principal.may_publish("x"));
    }
}

#[test]
fn a_missing_or_odd_header_is_told_apart() {
    let authorizer = Authorizer::new(Some(config()), None).expect("a key");
    let check = |header| block_on(authorizer.check(header));
    assert_eq!(check(None), Err(AuthError::Missing));
    assert_eq!(check(Some("Basic eDp5")), Err(AuthError::Malformed));
}

#[test]
fn a_minted_token_is_taken_and_holds_what_was_asked() {
    let holder = Holder {
        subject: "me",
        tenant: None,
        devices: &["cam-1".to_owned()],
        grants: &[Grant::View],
    };
    let token = mint(&config(), holder, Duration::from_secs(60)).expect("a key");
    let principal = check(&token).expect("a right token");
    assert!(principal.may_view("cam-1") && !principal.may_publish("cam-1"));
    assert!(!principal.may_control("cam-1"));
}

#[test]
fn a_token_is_minted_with_a_tenant_where_there_are_tenants() {
    let config = JwtConfig {
        tenant_claim: Some("tenantId".to_owned()),
        ..config()
    };
    let mut holder = Holder {
        subject: "me",
        tenant: None,
        devices: &["cam-1".to_owned()],
        grants: &[Grant::View],
    };
    let refused = mint(&config, holder, Duration::from_secs(60));
    assert!(
        matches!(refused, Err(KeyError::Tenant { .. })),
        "{refused:?}"
    );
    holder.tenant = Some("acme");
    let token = mint(&config, holder, Duration::from_secs(60)).expect("a key");
    let principal = check_with(config, &token).expect("a right token");
    assert!(principal.may_view("acme/cam-1"));
}

#[test]
fn without_tokens_everything_is_allowed() {
    let authorizer = Authorizer::new(None, None).expect("no key needed");
    let principal = block_on(authorizer.check(None)).expect("no token needed");
    assert!(principal.may_publish("x") && principal.may_view("x") && principal.owns("x", None));
}

#[test]
fn a_text_key_loses_its_newline_and_a_binary_one_keeps_every_byte() {
    let dir = std::env::temp_dir().join(format!("media-server-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join("key");
    std::fs::write(&path, b"text\n").expect("written");
    assert_eq!(read_key(&path).expect("read"), b"text");
    std::fs::write(&path, b"\xff\x00\n").expect("written");
    assert_eq!(read_key(&path).expect("read"), b"\xff\x00\n");
    std::fs::write(&path, b"\n").expect("written");
    assert!(matches!(read_key(&path), Err(KeyError::Empty { .. })));
    std::fs::remove_dir_all(&dir).expect("removed");
}
