//! Settings of tokens: `[auth]` of the file, its flags, and `JWT_SECRET` of the service that this one replaces. Part of
//! `config.rs`, which calls it once, for the server or for the command that makes a token.

use super::{ConfigError, TokenArgs};
use crate::outbound;
use clap::{Args, ValueEnum};
use reqwest::Url;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a pod has its token key.
const POD_JWT_KEY: &str = "/etc/media/secrets/jwt-hmac";
const DEFAULT_ISSUER: &str = "cloudphone-platform";
const DEFAULT_AUDIENCE: &str = "cloudphone-users";
/// Claims that have another meaning here.
const OWN_CLAIMS: [&str; 8] = ["sub", "iss", "aud", "exp", "iat", "nbf", "jti", "media"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    None,
    Jwt,
}

#[derive(Debug, Args, Default)]
pub struct AuthArgs {
    /// Who may use the server [default: jwt with a key, none on loopback without]
    #[arg(long, env = "MEDIA_AUTH", value_enum)]
    auth: Option<AuthMode>,
    /// Allow `--auth none` on an address that others can reach
    #[arg(long, env = "MEDIA_INSECURE_NO_AUTH")]
    insecure_no_auth: bool,
    /// Key of HS256, HS384 and HS512 tokens
    #[arg(long, env = "MEDIA_JWT_HMAC_FILE", value_name = "FILE")]
    jwt_hmac_file: Option<PathBuf>,
    /// https address of an identity provider's keys (JWKS), for RS256, ES256 and EdDSA tokens; beside a key
    /// file or instead of it
    #[arg(long, env = "MEDIA_JWKS_URL", value_name = "URL")]
    jwks_url: Option<String>,
    /// Required `iss` of tokens [default: cloudphone-platform]
    #[arg(long, env = "MEDIA_JWT_ISSUER", value_name = "TEXT")]
    jwt_issuer: Option<String>,
    /// Required `aud` of tokens [default: cloudphone-users]
    #[arg(long, env = "MEDIA_JWT_AUDIENCE", value_name = "TEXT")]
    jwt_audience: Option<String>,
    /// Claim of tokens with their tenant, such as `tenantId`; each tenant has devices of its own
    /// [default: no tenants]
    #[arg(long, env = "MEDIA_TENANT_CLAIM", value_name = "CLAIM")]
    tenant_claim: Option<String>,
    /// Whether a token's `media` claim says what it may do; false: any valid token may use any device of
    /// its tenant, and need not expire [default: true]
    #[arg(long, env = "MEDIA_ENFORCE_GRANTS", value_name = "BOOL")]
    enforce_grants: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FileAuth {
    mode: Option<AuthMode>,
    issuer: Option<String>,
    audience: Option<String>,
    hmac_file: Option<PathBuf>,
    jwks_url: Option<String>,
    tenant_claim: Option<String>,
    enforce_grants: Option<bool>,
}

/// Which tokens are taken.
#[derive(Debug, Clone)]
pub struct JwtConfig {
    /// This or `jwks_url`, or both.
    pub hmac: Option<KeySource>,
    pub jwks_url: Option<Url>,
    pub issuer: String,
    pub audience: String,
    /// `None`: there are no tenants.
    pub tenant_claim: Option<String>,
    pub enforce_grants: bool,
}

#[derive(Clone)]
pub enum KeySource {
    File(PathBuf),
    /// `JWT_SECRET`, as it stands.
    Text(String),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::File(path) => write!(f, "File({})", path.display()),
            KeySource::Text(_) => f.write_str("Text(..)"),
        }
    }
}

/// What the server listening at `http` asks of tokens; `None` where it asks for none.
pub(super) fn merge(
    args: AuthArgs,
    file: FileAuth,
    http: SocketAddr,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<JwtConfig>, ConfigError> {
    let hmac = args
        .jwt_hmac_file
        .or(file.hmac_file)
        .map(KeySource::File)
        .or_else(|| {
            let text = env("JWT_SECRET").filter(|text| !text.is_empty());
            text.map(KeySource::Text)
        });
    let jwks_url = match non_empty(args.jwks_url.or(file.jwks_url)) {
        Some(text) => Some(outbound::url(&text).map_err(|why| wrong(format!("jwks_url: {why}")))?),
        None => None,
    };
    let has_key = hmac.is_some() || jwks_url.is_some();
    let mode = args.auth.or(file.mode);
    if !needs_tokens(mode, has_key, http, args.insecure_no_auth)? {
        return Ok(None);
    }
    Ok(Some(JwtConfig {
        hmac,
        jwks_url,
        issuer: issuer(args.jwt_issuer.or(file.issuer)),
        audience: audience(args.jwt_audience.or(file.audience)),
        tenant_claim: tenant_claim(args.tenant_claim.or(file.tenant_claim))?,
        enforce_grants: args.enforce_grants.or(file.enforce_grants).unwrap_or(true),
    }))
}

/// Key and claims that `token` signs: what was given, else what a server on this machine or in this pod has.
pub(super) fn signer(args: &TokenArgs, file: FileAuth) -> Result<JwtConfig, ConfigError> {
    let from_env = || {
        let text = std::env::var("JWT_SECRET").ok()?;
        (!text.is_empty()).then_some(KeySource::Text(text))
    };
    let from_pod = || {
        let path = PathBuf::from(POD_JWT_KEY);
        path.exists().then_some(KeySource::File(path))
    };
    let given = args.jwt_hmac_file.clone().or(file.hmac_file);
    let hmac = given
        .map(KeySource::File)
        .or_else(from_env)
        .or_else(from_pod);
    if hmac.is_none() {
        return Err(wrong(
            "there is no key to sign with; give --jwt-hmac-file FILE or --config FILE, or set JWT_SECRET",
        ));
    }
    Ok(JwtConfig {
        hmac,
        jwks_url: None,
        issuer: issuer(args.jwt_issuer.clone().or(file.issuer)),
        audience: audience(args.jwt_audience.clone().or(file.audience)),
        tenant_claim: tenant_claim(args.tenant_claim.clone().or(file.tenant_claim))?,
        enforce_grants: true,
    })
}

fn needs_tokens(
    mode: Option<AuthMode>,
    has_key: bool,
    http: SocketAddr,
    insecure_no_auth: bool,
) -> Result<bool, ConfigError> {
    let loopback = http.ip().is_loopback();
    match (mode, has_key) {
        (Some(AuthMode::Jwt) | None, true) => Ok(true),
        (Some(AuthMode::Jwt), false) => Err(wrong(
            "auth is jwt, but there is no key; give --jwt-hmac-file FILE or --jwks-url URL, or set JWT_SECRET",
        )),
        (Some(AuthMode::None), _) if loopback || insecure_no_auth => Ok(false),
        (None, false) if loopback => Ok(false),
        (Some(AuthMode::None), _) => Err(wrong(format!(
            "without tokens anybody who reaches {http} could publish and watch; \
             listen on 127.0.0.1, use --auth jwt, or insist with --insecure-no-auth"
        ))),
        (None, false) => Err(wrong(format!(
            "{http} can be reached by others and there is no token key; \
             give --jwt-hmac-file FILE or --jwks-url URL, set JWT_SECRET, or listen on 127.0.0.1"
        ))),
    }
}

fn issuer(given: Option<String>) -> String {
    given.unwrap_or_else(|| DEFAULT_ISSUER.to_owned())
}

fn audience(given: Option<String>) -> String {
    given.unwrap_or_else(|| DEFAULT_AUDIENCE.to_owned())
}

fn tenant_claim(given: Option<String>) -> Result<Option<String>, ConfigError> {
    let claim = non_empty(given);
    match claim {
        Some(claim) if OWN_CLAIMS.contains(&&*claim) => Err(wrong(format!(
            "tenant_claim is {claim}, which has another meaning; name the claim with the tenant, such as tenantId"
        ))),
        claim => Ok(claim),
    }
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn wrong(why: impl Into<String>) -> ConfigError {
    ConfigError::Wrong(why.into())
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn keys_of_a_provider_are_as_good_a_reason_to_ask_for_tokens_as_a_key_file() {
        let file = "[auth]\nmode = \"jwt\"\njwks_url = \"https://idp.example.com/jwks\"";
        let auth = load(&["--http-listen", "0.0.0.0:80"], file, &[])
            .expect("right")
            .auth;
        let auth = auth.expect("tokens");
        assert!(auth.hmac.is_none());
        assert_eq!(
            auth.jwks_url.expect("a URL").as_str(),
            "https://idp.example.com/jwks"
        );
        let both = ["--jwks-url", "https://idp.example.com/b"];
        let auth = load(&both, file, &[("JWT_SECRET", "s")])
            .expect("right")
            .auth;
        let auth = auth.expect("tokens");
        assert!(auth.hmac.is_some() && auth.jwks_url.is_some());
    }

    #[test]
    fn keys_come_over_https_and_a_tenant_from_a_claim_of_its_own() {
        for wrong in [
            ["--jwks-url", "http://idp.example.com/jwks"],
            ["--jwks-url", "https://127.0.0.1/jwks"],
            ["--tenant-claim", "sub"],
        ] {
            assert!(
                load(&wrong, "", &[("JWT_SECRET", "s")]).is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn grants_are_turned_off_by_a_flag_or_the_file() {
        let secret = [("JWT_SECRET", "s")];
        let enforced = |args: &[&str], file: &str| {
            let auth = load(args, file, &secret).expect("right").auth;
            auth.expect("tokens").enforce_grants
        };
        assert!(enforced(&[], ""));
        assert!(!enforced(&[], "[auth]\nenforce_grants = false"));
        assert!(!enforced(&["--enforce-grants", "false"], ""));
        assert!(enforced(
            &["--enforce-grants", "true"],
            "[auth]\nenforce_grants = false"
        ));
    }
}
