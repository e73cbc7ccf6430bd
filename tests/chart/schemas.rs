//! JSON schemas for kubeconform, as strict as the API server: from the Kubernetes module's OpenAPI
//! document, from the definitions of Prometheus Operator, cert-manager and Gateway API, and from ours.
//!
//! kubeconform's usual schemas lie on the network. These come from the Go modules that the local cluster
//! is built of, and so are of the very version that it runs.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tests::operator::root;
use tests::process::TempDir;

/// Checks every document of `manifests`.
///
/// # Panics
/// With what kubeconform says, if one of them is not valid or of an unknown kind.
#[track_caller]
pub fn conform(what: &str, manifests: &str) {
    let folder = TempDir::new("schemas");
    static SOURCES: LazyLock<Sources> = LazyLock::new(Sources::read);
    for (api_version, kind) in kinds(manifests) {
        let schema = SOURCES.schema(&api_version, &kind);
        let schema = schema.unwrap_or_else(|| panic!("{what}: no schema of {api_version} {kind}"));
        // For a group's name kubeconform takes what stands before the first slash, if there is one.
        let group = api_version.split('/').next().unwrap_or_default();
        let (_, version) = split(&api_version);
        let name = format!("{}-{group}-{version}.json", kind.to_lowercase());
        std::fs::write(folder.path().join(name), schema.to_string()).expect("can be written");
    }
    let location = folder
        .path()
        .join("{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json");
    let mut kubeconform = Command::new("kubeconform")
        .args(["-strict", "-summary", "-schema-location"])
        .arg(location)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubeconform is on PATH");
    let mut input = kubeconform.stdin.take().expect("piped");
    input
        .write_all(manifests.as_bytes())
        .expect("it reads its input");
    drop(input);
    let output = kubeconform.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    assert!(
        said.contains("Invalid: 0, Errors: 0, Skipped: 0"),
        "{what}: {said}"
    );
}

/// `apiVersion` and `kind` of every document.
fn kinds(manifests: &str) -> BTreeSet<(String, String)> {
    let documents = manifests.split("\n---\n").filter_map(|text| {
        let value: Value = serde_yaml::from_str(text).expect("YAML");
        let part = |name: &str| value[name].as_str().map(str::to_owned);
        Some((part("apiVersion")?, part("kind")?))
    });
    let found: BTreeSet<_> = documents.collect();
    assert!(!found.is_empty(), "no document");
    found
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

struct Sources {
    /// `definitions` of Kubernetes' OpenAPI document, version 2.
    kubernetes: Value,
    /// CustomResourceDefinitions.
    custom: Vec<Value>,
}

impl Sources {
    fn read() -> Self {
        let kubernetes = module("kube", "k8s.io/kubernetes").join("api/openapi-spec/swagger.json");
        let mut document: Value = serde_json::from_str(&text(&kubernetes)).expect("JSON");
        let monitoring = module(
            "prometheus-operator",
            "github.com/prometheus-operator/prometheus-operator",
        );
        let folder = monitoring.join("example/prometheus-operator-crd");
        let files = ["servicemonitors", "prometheusrules"]
            .map(|plural| folder.join(format!("monitoring.coreos.com_{plural}.yaml")));
        let certificates = module("definitions", "github.com/cert-manager/cert-manager")
            .join("deploy/crds/crd-certificates.yaml");
        let routes = module("definitions", "sigs.k8s.io/gateway-api")
            .join("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml");
        let ours = root().join("crds/mediaservices.yaml");
        let read = |path: &PathBuf| serde_yaml::from_str(&text(path)).expect("YAML");
        Self {
            kubernetes: document["definitions"].take(),
            custom: files
                .iter()
                .chain([&certificates, &routes, &ours])
                .map(read)
                .collect(),
        }
    }

    fn schema(&self, api_version: &str, kind: &str) -> Option<Value> {
        self.built_in(api_version, kind)
            .or_else(|| self.defined(api_version, kind))
    }

    fn built_in(&self, api_version: &str, kind: &str) -> Option<Value> {
        let (group, version) = split(api_version);
        let wanted = json!({"group": group, "kind": kind, "version": version});
        let definitions = self.kubernetes.as_object()?;
        let (name, _) = definitions.iter().find(|(_, definition)| {
            definition["x-kubernetes-group-version-kind"]
                .as_array()
                .is_some_and(|list| list.contains(&wanted))
        })?;
        let mut needed = serde_json::Map::new();
        let mut open = vec![name.clone()];
        while let Some(name) = open.pop() {
            if needed.contains_key(&name) {
                continue;
            }
            let mut definition = definitions[&name].clone();
            if name.ends_with(".Quantity") || name.ends_with(".IntOrString") {
                definition = json!({"type": ["string", "number"]});
            }
            tighten(&mut definition);
            references(&definition, &mut open);
            needed.insert(name, definition);
        }
        Some(json!({"$ref": format!("#/definitions/{name}"), "definitions": needed}))
    }

    fn defined(&self, api_version: &str, kind: &str) -> Option<Value> {
        let (group, version) = split(api_version);
        let definition = self.custom.iter().find(|definition| {
            definition["spec"]["group"] == group && definition["spec"]["names"]["kind"] == kind
        })?;
        let versions = definition["spec"]["versions"].as_array()?;
        let found = versions.iter().find(|found| found["name"] == version)?;
        let mut schema = found["schema"]["openAPIV3Schema"].clone();
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({"type": "string"});
        }
        schema["properties"]["metadata"] = json!({"type": "object"});
        tighten(&mut schema);
        Some(schema)
    }
}

/// Refuses fields that are not listed, as the API server does with strict validation.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let open = map.contains_key("additionalProperties")
                || map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if map.get("properties").is_some_and(Value::is_object) && !open {
                map.insert("additionalProperties".into(), false.into());
            }
            map.values_mut().for_each(tighten);
        }
        Value::Array(list) => list.iter_mut().for_each(tighten),
        _ => {}
    }
}

/// Names of the definitions that a schema refers to.
fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.extend(target.strip_prefix("#/definitions/").map(str::to_owned));
            }
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

/// Where a module that `cluster/<tool>` is built of lies.
fn module(tool: &str, name: &str) -> PathBuf {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", name])
        .current_dir(root().join("cluster").join(tool))
        .output()
        .expect("go is on PATH");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let folder = said.trim();
    assert!(
        !folder.is_empty(),
        "{name} is not in the module cache: run `cargo xtask cluster build {tool}`"
    );
    folder.into()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_field_that_does_not_exist_or_has_another_type_is_found() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: cam}\nspec: {ports: [{port: 80}]}\n";
    conform("a service", service);
    for wrong in ["{ports: [{prot: 80}]}", "{ports: [{port: http}]}"] {
        let wrong = service.replace("{ports: [{port: 80}]}", wrong);
        let refused = std::panic::catch_unwind(|| conform("wrong on purpose", &wrong));
        assert!(refused.is_err(), "{wrong}");
    }
}
