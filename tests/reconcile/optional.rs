//! Gateway API and cert-manager: absent, there, and gone again, at run time.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{Kubectl, wait_for};

use crate::service::{START, Service};
use crate::turn;

/// The operator looks for APIs every minute, and a definition takes a moment to be served.
const FOUND: Duration = Duration::from_secs(150);

/// The definition of an API that this cluster has not, by its plural; the file is its project's own.
struct Definition(&'static str);

impl Definition {
    fn install(&self, kubectl: &Kubectl) {
        let state = std::env::var("CLUSTER_DIR").expect("the cluster's folder");
        let file = format!("{state}/definitions/{}.yaml", self.0);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut definition: Value = serde_yaml::from_str(&text).expect("it is YAML");
        // Those of a chart are templates.
        if let Some(metadata) = definition["metadata"].as_object_mut() {
            metadata.remove("labels");
        }
        // Too large for the annotation that a client-side apply writes.
        let file = TempDir::new("definition");
        let path = file.path().join("definition.json");
        std::fs::write(&path, definition.to_string()).expect("it can be written");
        let path = path.display().to_string();
        let args = ["apply", "--server-side", "--filename", &path];
        kubectl.run(&args).expect("the definition is right");
        let definition = ["--filename", &path];
        kubectl.established(&definition).expect("it is served");
    }

    fn remove(&self, kubectl: &Kubectl) {
        let name = match self.0 {
            "httproutes" => "httproutes.gateway.networking.k8s.io",
            plural => &format!("{plural}.cert-manager.io"),
        };
        let args = ["delete", "crd", name, "--ignore-not-found"];
        if let Err(error) = kubectl.run(&args) {
            eprintln!("{error:#}");
        }
    }
}

/// Removes the definitions whatever happens.
struct Definitions(Kubectl, [Definition; 2]);

impl Drop for Definitions {
    fn drop(&mut self) {
        for definition in &self.1 {
            definition.remove(&self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_certificates_are_made_once_the_cluster_has_their_apis() {
    let _turn = turn::alone();
    let spec = "{replicas: 0, signalling: {httpRoute: {hostnames: [m.example.com], parentRefs: [{name: gw}]}}}";
    let route = Service::apply("reconcile-route", spec);
    route.reason("Degraded", "True", "CRDAbsent").await;
    let spec = "{replicas: 0, signalling: {certificateIssuerRef: {name: le}, \
        ingress: {host: m.example.com, tlsSecretName: m-tls}}}";
    let certificate = Service::apply("reconcile-certificate", spec);
    certificate.reason("Degraded", "True", "CRDAbsent").await;
    let ingress = certificate.kubectl.get(&["ingress", "cam"]);
    ingress.expect("it is made without its certificate");

    let definitions = Definitions(
        Kubectl::new("default"),
        [Definition("httproutes"), Definition("certificates")],
    );
    for definition in &definitions.1 {
        definition.install(&definitions.0);
    }
    let made = wait_for("the HTTPRoute", FOUND, || async {
        route
            .kubectl
            .get(&["httproutes.gateway.networking.k8s.io", "cam"])
    })
    .await;
    assert_eq!(made["spec"]["parentRefs"][0]["name"], "gw", "{made}");
    assert_eq!(made["spec"]["hostnames"], json!(["m.example.com"]));
    let made = wait_for("the Certificate", FOUND, || async {
        certificate
            .kubectl
            .get(&["certificates.cert-manager.io", "cam-tls"])
    })
    .await;
    assert_eq!(made["spec"]["secretName"], "m-tls");
    for service in [&route, &certificate] {
        service.condition("Degraded", "False", FOUND).await;
    }
    certificate.patch(r#"{"spec":{"signalling":{"certificateIssuerRef":null}}}"#);
    wait_for("the Certificate to be gone", START, || async {
        let found: Value = certificate.kubectl.get(&["certificates.cert-manager.io"])?;
        ensure!(found["items"] == json!([]), "{found}");
        Ok::<_, anyhow::Error>(())
    })
    .await;

    let routed = |value: Value| {
        route.patch(&json!({"spec": {"signalling": {"httpRoute": value}}}).to_string());
    };
    routed(Value::Null);
    wait_for("the HTTPRoute to be gone", START, || async {
        let routes = route
            .kubectl
            .get(&["httproutes.gateway.networking.k8s.io"])?;
        ensure!(routes["items"] == json!([]), "{routes}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    routed(json!({"hostnames": ["m.example.com"], "parentRefs": [{"name": "gw"}]}));

    drop(definitions);
    route.reason("Degraded", "True", "CRDAbsent").await;
    // Whatever vanished, the queue of all others goes on.
    certificate.patch(r#"{"spec":{"media":{"exposure":"NodePort"}}}"#);
    wait_for("the Service of another exposure", START, || async {
        certificate.kubectl.get(&["service", "cam-media"])
    })
    .await;
}
