//! Tokens of an identity provider, tenants, and tokens of clients from before there were grants.

use crate::requests::*;
use crate::table::every_call;
use client::{Codec, Http, HttpOptions, Options, Publisher};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tests::https::{Answer, Https};
use tests::namespace::in_network_with;
use tests::server::binary;
use tests::{MediaServer, wait_for};

/// An address of documentation (RFC 5737): none of this machine or its link.
const PROVIDER: &str = "192.0.2.1";
const NETWORK: &[&str] = &["192.0.2.1/32"];

/// A key of the provider.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Key {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::RS256 => {
                let pkcs8 = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
                // The key itself (RFC 8017) follows after version and algorithm, 26 bytes.
                EncodingKey::from_rsa_der(&pkcs8.serialize_der()[26..])
            }
            Algorithm::ES256 => {
                let pkcs8 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
                EncodingKey::from_ec_der(&pkcs8.serialize_der())
            }
            Algorithm::EdDSA => {
                // RFC 8410 §7: the seed is the last 32 bytes.
                let mut pkcs8 = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20________________________________";
                pkcs8[16..16 + id.len()].copy_from_slice(id.as_bytes());
                EncodingKey::from_ed_der(&pkcs8)
            }
            other => panic!("no provider's algorithm: {other:?}"),
        };
        Self { id, algorithm, key }
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).expect("JSON")
    }

    fn token(&self) -> String {
        let header = Header {
            kid: Some(self.id.to_owned()),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, &claims(), &self.key).expect("signs")
    }
}

fn claims() -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    json!({
        "iss": "cloudphone-platform", "aud": "cloudphone-users", "sub": "ann", "exp": now.as_secs() + 600,
        "media": {"view": ["*"]},
    })
}

fn set(keys: &[&Key]) -> Answer {
    let keys: Vec<Value> = keys.iter().map(|key| key.public()).collect();
    Answer::ok(json!({ "keys": keys }).to_string())
}

/// The status that a list is answered with.
async fn status(server: &MediaServer, token: &str) -> u16 {
    let asked = request(server, Method::GET, "/api/v1/devices", SDP, "").bearer_auth(token);
    send(asked).await.status().as_u16()
}

/// Waits until a token is answered so: the provider is asked for unknown keys every 5 s at most.
async fn becomes(server: &MediaServer, key: &Key, wanted: u16) {
    wait_for(&format!("{wanted} for {}", key.id), PATIENCE, || async {
        match status(server, &key.token()).await {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    })
    .await;
}

#[test]
fn tokens_of_a_provider_are_taken_while_their_key_is_in_its_set() {
    in_network_with(NETWORK, async {
        let [old, new] =
            [("old", Algorithm::RS256), ("new", Algorithm::ES256)].map(|(id, a)| Key::new(id, a));
        let [ed, stranger] = ["ed", "stranger"].map(|id| Key::new(id, Algorithm::EdDSA));
        let provider = Https::start(PROVIDER, set(&[&old, &ed])).await;
        let (url, ca) = (provider.url("/jwks.json"), provider.ca_file());
        let ca = ca.display().to_string();
        let server = MediaServer::closed(&["--jwks-url", &url, "--ca-file", &ca]).await;
        for key in [&old, &ed] {
            assert_eq!(status(&server, &key.token()).await, 200, "{}", key.id);
        }
        assert_eq!(
            status(&server, &server.token("*", "view")).await,
            200,
            "the key file's too"
        );
        assert_eq!(status(&server, &stranger.token()).await, 401);

        provider.answer(set(&[&old, &new]));
        becomes(&server, &new, 200).await;
        assert_eq!(status(&server, &old.token()).await, 200, "both are there");
        assert_eq!(status(&server, &ed.token()).await, 401, "taken back");

        provider.answer(set(&[&new]));
        // Nothing but a key that it does not know makes the server ask before its time.
        wait_for("the old key to go", PATIENCE, || async {
            status(&server, &stranger.token()).await;
            match status(&server, &old.token()).await {
                401 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        assert_eq!(status(&server, &new.token()).await, 200);

        drop(provider);
        // It may have the key, so nobody is refused for good.
        becomes(&server, &stranger, 503).await;
        let unreachable = [("result", "unreachable")];
        let failed = server.metrics().await;
        let failed = failed.value("media_jwks_fetches_total", &unreachable);
        assert!(failed >= Some(1.0), "{failed:?}");
        assert_eq!(
            status(&server, &new.token()).await,
            200,
            "the last good set stays"
        );
        let metrics = server.metrics().await;
        let age = metrics.value("media_jwks_age_seconds", &[]).expect("a set");
        assert!((0.0..60.0).contains(&age), "{age}");
    });
}

#[test]
fn what_is_no_set_of_keys_or_lies_where_nobody_is_asked_leaves_the_server_without() {
    in_network_with(NETWORK, async {
        let key = Key::new("a", Algorithm::EdDSA);
        let elsewhere = Answer {
            headers: "Location: /elsewhere\r\n".to_owned(),
            ..Answer::status("302 Found")
        };
        let cases = [
            (elsewhere, "status"),
            (Answer::status("500 Internal Server Error"), "status"),
            (Answer::ok(" ".repeat(300_000)), "too_large"),
            (Answer::ok("<html>"), "malformed"),
            (Answer::ok(r#"{"keys":[]}"#), "empty"),
        ];
        for (answer, result) in cases {
            let provider = Https::start(PROVIDER, answer).await;
            let ca = provider.ca_file().display().to_string();
            let args = ["--jwks-url", &provider.url("/jwks"), "--ca-file", &ca];
            keyless(&args, &key, result).await;
            let asked: Vec<String> = provider.requests().into_iter().map(|r| r.line).collect();
            assert_eq!(asked, ["GET /jwks"], "{result}");
        }
        let provider = Https::start(PROVIDER, set(&[&key])).await;
        let server = keyless(&["--jwks-url", &provider.url("/jwks")], &key, "unreachable").await;
        // The token may be good, so nobody is sent away with 401, whatever they ask.
        for (call, status) in every_call(&server, Some(&key.token())).await {
            let wanted = match &*call {
                "GET /api/v1/openapi.json" => 200,
                _ => 503,
            };
            assert_eq!(status, wanted, "{call}");
        }
        let local = Https::start("127.0.0.1", set(&[&key])).await;
        let url = format!("https://localhost:{}/jwks", local.port());
        let ca = local.ca_file().display().to_string();
        keyless(&["--jwks-url", &url, "--ca-file", &ca], &key, "address").await;
        assert_eq!(local.requests().len(), 0);
    });
}

/// A server that got no keys says so, and counts why.
async fn keyless(args: &[&str], key: &Key, result: &str) -> MediaServer {
    let server = MediaServer::with(args).await;
    let asked = request(&server, Method::GET, "/api/v1/devices", SDP, "").bearer_auth(key.token());
    let response = send(asked).await;
    assert_eq!(header(&response, "retry-after"), "2", "{result}");
    problem(response, 503, "identity provider").await;
    let metrics = server.metrics().await;
    let count = metrics.value("media_jwks_fetches_total", &[("result", result)]);
    assert_eq!(count, Some(1.0), "{result}");
    server
}

/// A token of a tenant, for all of its devices.
pub fn of_tenant(server: &MediaServer, tenant: &str, grants: &str) -> String {
    for_device(server, tenant, "*", grants)
}

/// The same for one of them.
pub fn for_device(server: &MediaServer, tenant: &str, device: &str, grants: &str) -> String {
    let mut mint = Command::new(binary());
    mint.args([
        "token",
        "--device",
        device,
        "--grant",
        grants,
        "--subject",
        "ann",
    ]);
    mint.args([
        "--tenant",
        tenant,
        "--tenant-claim",
        "tenantId",
        "--jwt-hmac-file",
    ]);
    let output = mint.arg(server.key_file()).output().expect("it starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn a_tenant_never_sees_devices_or_sessions_of_another() {
    let server = MediaServer::closed(&["--tenant-claim", "tenantId"]).await;
    let [acme, globex] =
        ["acme", "globex"].map(|t| of_tenant(&server, t, "publish,view,control,admin"));
    let ask = |method: Method, path: &str, token: &str, body: &'static str| {
        send(request(&server, method, path, SDP, body).bearer_auth(token))
    };
    let http = Http::new(&HttpOptions {
        token: Some(acme.clone()),
        ..HttpOptions::default()
    });
    let (http, url) = (http.expect("an HTTP client"), server.url("/whip/cam-1"));
    let publisher = Publisher::connect(&url, &http, &Options::default(), &[Codec::Vp8]).await;
    let publisher = publisher.unwrap_or_else(|error| panic!("no publisher: {error:?}"));
    let list = async |token: &str, what: &str| -> Value {
        let body: Value = ask(Method::GET, &format!("/api/v1/{what}"), token, "")
            .await
            .json()
            .await
            .expect("JSON");
        body[what].clone()
    };
    wait_for("the device to be live", PATIENCE, || async {
        let devices = list(&acme, "devices").await;
        if devices[0]["live"] == true {
            Ok(())
        } else {
            Err(devices)
        }
    })
    .await;
    assert_eq!(
        list(&acme, "devices").await[0]["device"],
        "cam-1",
        "as its clients call it"
    );
    assert_eq!(list(&globex, "devices").await, json!([]));
    assert_eq!(list(&globex, "sessions").await, json!([]));

    let viewed = ask(Method::POST, "/whep/cam-1", &acme, VIEW).await;
    assert_eq!(viewed.status(), 201);
    let session = location(&viewed);
    assert!(session.starts_with("/whep/cam-1/"), "{session}");
    let links = viewed.headers().get_all("link").iter();
    let links: Vec<&str> = links.filter_map(|link| link.to_str().ok()).collect();
    assert!(links.iter().all(|link| !link.contains("acme")), "{links:?}");
    problem(
        ask(Method::POST, "/whep/cam-1", &globex, VIEW).await,
        409,
        "device cam-1",
    )
    .await;

    // What is another's is answered as what does not exist.
    let id = session.rsplit('/').next().expect("an id");
    let known = [session.clone(), format!("/api/v1/sessions/{id}")];
    let unknown = "00000000-0000-8000-8000-000000000000";
    let unknown = [
        format!("/whep/cam-1/{unknown}"),
        format!("/api/v1/sessions/{unknown}"),
    ];
    for (path, none) in known.iter().zip(&unknown) {
        let body = async |path: &str, token: &str| {
            let response = ask(Method::GET, path, token, "").await;
            (
                response.status().as_u16(),
                response.text().await.expect("text"),
            )
        };
        let (found, missing) = (body(path, &globex).await, body(none, &acme).await);
        assert_eq!(found, missing, "{path}");
        assert_eq!(found.0, 404);
        assert!(body(path, &acme).await.0 < 300, "{path}");
    }
    for (method, path) in [
        (Method::DELETE, session.clone()),
        (Method::PATCH, session.clone()),
        (Method::OPTIONS, session.clone()),
        (Method::POST, format!("{session}/layer")),
        (Method::POST, format!("{session}/sse")),
    ] {
        let response = ask(method.clone(), &path, &globex, "").await;
        problem(response, 404, "no such session").await;
    }

    // The same name is another device, and takes nothing over.
    assert_eq!(
        ask(Method::POST, "/whip/cam-1", &globex, PUBLISH)
            .await
            .status(),
        201
    );
    assert_eq!(list(&acme, "devices").await[0]["live"], true);
    assert_eq!(
        list(&acme, "sessions").await.as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(
        list(&globex, "sessions").await.as_array().map(Vec::len),
        Some(1)
    );
    let metrics = server.metrics().await;
    for (device, count) in [("acme/cam-1", 2.0), ("globex/cam-1", 1.0)] {
        let created = metrics.value("media_sessions_created_total", &[("device_id", device)]);
        assert_eq!(created, Some(count), "{device}");
    }
    assert_eq!(ask(Method::DELETE, &session, &acme, "").await.status(), 200);
    let untold = server.token("*", "view,admin");
    problem(
        ask(Method::GET, "/api/v1/devices", &untold, "").await,
        401,
        "tenant",
    )
    .await;
    publisher.close().await.expect("it can be ended");
}

#[tokio::test]
async fn with_grants_turned_off_a_token_of_the_replaced_service_may_use_any_device() {
    let server = MediaServer::closed(&["--enforce-grants", "false"]).await;
    let claims = json!({
        "iss": "cloudphone-platform", "aud": ["cloudphone-users"], "sub": "u-1", "username": "ann", "roles": ["user"],
    });
    let key = EncodingKey::from_secret(&std::fs::read(server.key_file()).expect("the key"));
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("signs");
    for device in ["cam-1", "door"] {
        let path = format!("/whip/{device}");
        let posted = request(&server, Method::POST, &path, SDP, PUBLISH).bearer_auth(&token);
        assert_eq!(send(posted).await.status(), 201, "{device}");
    }
    let devices = request(&server, Method::GET, "/api/v1/devices", SDP, "").bearer_auth(&token);
    let devices: Value = send(devices).await.json().await.expect("JSON");
    assert_eq!(
        devices["devices"].as_array().map(Vec::len),
        Some(2),
        "{devices}"
    );
    problem(post(&server, "/whip/cam-1", PUBLISH).await, 401, "token").await;
}
