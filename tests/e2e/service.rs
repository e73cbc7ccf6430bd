//! The chart, a namespace and `crds/examples/minimal.yaml` in it, as a user would apply them.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tests::browser::Options;
use tests::process::TempDir;
use tests::{Browser, Kubectl, operator, wait_for};

/// Name and host of `crds/examples/minimal.yaml`.
pub const NAME: &str = "cam";
pub const HOST: &str = "media.example.com";
/// Enough for images that are there to start on a busy machine.
pub const START: Duration = Duration::from_secs(180);

pub struct Service {
    pub kubectl: Kubectl,
}

impl Service {
    /// Installs the chart if it is not there yet and applies the minimal example in a namespace of its
    /// own. `patch` is merged into it before.
    pub fn apply(namespace: &str, patch: Option<&str>) -> Self {
        Self::apply_in(namespace, patch, &|_| {})
    }

    /// The same; `prepare` gets the namespace before anything is in it.
    pub fn apply_in(namespace: &str, patch: Option<&str>, prepare: &dyn Fn(&Kubectl)) -> Self {
        operator::install();
        let kubectl = Kubectl::new(namespace);
        kubectl
            .run(&["create", "namespace", namespace])
            .expect("the namespace is new");
        prepare(&kubectl);
        let service = Self { kubectl };
        service.make_certificate();
        let file = operator::root().join("crds/examples/minimal.yaml");
        let text = std::fs::read_to_string(file).expect("the example is there");
        let mut manifest: Value = serde_yaml::from_str(&text).expect("it is YAML");
        let tls = r#"{"spec":{"signalling":{"ingress":{"tlsSecretName":"cam-tls"}}}}"#;
        for patch in [Some(tls), patch].into_iter().flatten() {
            let patch = serde_json::from_str(patch).expect("the patch is JSON");
            merge(&mut manifest, &patch);
        }
        service
            .kubectl
            .apply(&manifest.to_string())
            .expect("the example can be applied");
        service
    }

    /// A self-signed certificate for the Ingress.
    fn make_certificate(&self) {
        let dir = TempDir::new("tls");
        let key = dir.path().join("tls.key").display().to_string();
        let certificate = dir.path().join("tls.crt").display().to_string();
        let subject = format!("/CN={HOST}");
        let names = format!("subjectAltName=DNS:{HOST}");
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-days",
                "2",
                "-subj",
                &subject,
                "-addext",
                &names,
                "-keyout",
                &key,
                "-out",
                &certificate,
            ])
            .output()
            .expect("openssl can be started");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let args = [
            "create",
            "secret",
            "tls",
            "cam-tls",
            "--cert",
            &certificate,
            "--key",
            &key,
        ];
        self.kubectl.run(&args).expect("the secret can be made");
    }

    /// Waits until the resource says that it is ready and its present pod is.
    pub async fn ready(&self) {
        wait_for("the MediaService to be Ready", START, || async {
            let resource = self.kubectl.get(&["mediaservice", NAME])?;
            let status = &resource["status"];
            let current = status["observedGeneration"] == resource["metadata"]["generation"];
            let ready = condition(status, "Ready") == Some("True".into());
            let idle = condition(status, "Progressing") != Some("True".into());
            let pod = self.kubectl.get(&["pod", "cam-0"])?;
            let pod_ready = condition(&pod["status"], "Ready") == Some("True".into());
            if current
                && ready
                && idle
                && pod_ready
                && pod["metadata"]["deletionTimestamp"].is_null()
            {
                return Ok(());
            }
            bail!(
                "resource: {status}; pod: {}",
                pod["status"]["containerStatuses"]
            )
        })
        .await;
    }

    /// Waits until it is ready and its page is there.
    pub async fn reachable(&self) {
        self.ready().await;
        wait_for("the Ingress to answer over https", START, || async {
            let client = reqwest::Client::builder()
                .danger_accept_invalid_certs(true)
                .resolve(HOST, format!("{}:443", node()).parse()?)
                .build()?;
            match client.get(self.url()).send().await?.status() {
                status if status.is_success() => Ok(()),
                status => bail!("{status}"),
            }
        })
        .await;
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("https://{HOST}")
    }

    /// A token, made in the pod by the product's own command.
    pub fn token(&self, device: &str) -> String {
        self.token_with(device, "publish,view")
    }

    /// The same with other grants.
    pub fn token_with(&self, device: &str, grants: &str) -> String {
        let args = [
            "exec",
            "cam-0",
            "--",
            "media-server",
            "token",
            "--device",
            device,
        ];
        let args = [&args[..], &["--grant", grants, "--ttl", "1h"]].concat();
        self.kubectl
            .run(&args)
            .expect("a token can be made in the pod")
            .trim()
            .to_owned()
    }

    /// A browser that finds the Ingress by its name.
    pub async fn browser(&self) -> Browser {
        let hosts = vec![(HOST.to_owned(), node())];
        Browser::start(Options {
            insecure_tls: true,
            hosts,
            ..Options::default()
        })
        .await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let all = "pods,statefulsets,services,ingresses,mediaservices,events";
            for args in [
                &["get", all, "-o", "wide"][..],
                &["get", "mediaservice", NAME, "-o", "yaml"],
                &["logs", "cam-0", "--tail=60"],
            ] {
                eprintln!("--- kubectl {}", args.join(" "));
                match self.kubectl.run(args) {
                    Ok(text) => eprintln!("{text}"),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        }
        if let Err(error) = operator::leave(&self.kubectl) {
            eprintln!("{error:#}");
        }
    }
}

/// A merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, value) in members {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(target)) => drop(target.remove(key)),
            (value, _) => merge(&mut target[key], value),
        }
    }
}

/// `status` of the condition `kind`.
pub fn condition(status: &Value, kind: &str) -> Option<String> {
    let conditions = status["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    Some(found["status"].as_str()?.to_owned())
}

/// The first node's address.
pub fn node() -> String {
    std::env::var("NODE_ADDRESS").unwrap_or_else(|_| "198.18.0.11".into())
}

/// The same node by IPv6.
pub fn node_v6() -> String {
    std::env::var("NODE_ADDRESS_V6").unwrap_or_else(|_| "fd00:198:18::11".into())
}
