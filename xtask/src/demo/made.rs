//! Who made what on a cluster of others: the demo marks what it makes, and changes and removes nothing
//! else.
//!
//! Owns the mark and the questions to kubectl and helm about it. Writes nothing but marks.

use std::process::Command;

use anyhow::bail;
use serde_json::Value;

use super::{NAMESPACE, OPERATOR_NAMESPACE};
use crate::sh;

/// Annotation of every object that the demo makes. The release carries it as one of its values,
/// [`RELEASE_MARK`]: an upgrade by somebody else leaves it out, and the release is theirs from then on.
pub const MARK: &str = "mediaservice-demo/made";

/// What `helm` is given so that the release and its pods carry [`MARK`].
pub const RELEASE_MARK: &str = "podAnnotations.mediaservice-demo/made=true";

pub const RELEASE: &str = "mediaservice-operator";
pub const DEFINITION: &str = "mediaservices.mediaservice.io";

/// The MediaService of the example.
pub const SERVICE: &str = "cam";

/// Who made something, if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Nobody,
    Demo,
    Other,
}

/// What is on the cluster of all that the demo would make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub namespace: Maker,
    pub operator_namespace: Maker,
    pub definition: Maker,
    pub release: Maker,
    pub service: Maker,
}

impl Found {
    /// Asks the cluster.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn look() -> anyhow::Result<Self> {
        let definition = object("customresourcedefinition", DEFINITION)?;
        Ok(Self {
            namespace: object("namespace", NAMESPACE)?,
            operator_namespace: object("namespace", OPERATOR_NAMESPACE)?,
            definition,
            release: release()?,
            // Without the definition the API server does not know the kind.
            service: match definition {
                Maker::Nobody => Maker::Nobody,
                _ => object("mediaservice", SERVICE)?,
            },
        })
    }

    /// Fails where the demo would have to change what is another's.
    ///
    /// # Errors
    /// Names it, and what would help.
    pub fn refuse(&self) -> anyhow::Result<()> {
        if self.release == Maker::Other {
            bail!(
                "nothing was touched: the release {RELEASE} in the namespace {OPERATOR_NAMESPACE} is not the demo's\n    \
                 fix: `kubectl apply -n {NAMESPACE} -f crds/examples/minimal.yaml` uses the operator that is there, \
                 or uninstall that release first"
            );
        }
        if self.service == Maker::Other {
            bail!(
                "nothing was touched: the MediaService {SERVICE} in the namespace {NAMESPACE} is not the demo's\n    \
                 fix: use that one, or delete it first"
            );
        }
        Ok(())
    }

    /// What is used, or left, as somebody else made it.
    pub fn others(&self) -> Vec<String> {
        [
            (self.namespace, format!("the namespace {NAMESPACE}")),
            (
                self.operator_namespace,
                format!("the namespace {OPERATOR_NAMESPACE}"),
            ),
            (
                self.definition,
                format!("the CustomResourceDefinition {DEFINITION}"),
            ),
            (
                self.release,
                format!("the release {RELEASE} in the namespace {OPERATOR_NAMESPACE}"),
            ),
            (
                self.service,
                format!("the MediaService {SERVICE} in the namespace {NAMESPACE}"),
            ),
        ]
        .into_iter()
        .filter(|(maker, _)| *maker == Maker::Other)
        .map(|(_, what)| what)
        .collect()
    }

    /// Whether nothing there is the demo's.
    pub fn is_nothing(&self) -> bool {
        [
            self.namespace,
            self.operator_namespace,
            self.definition,
            self.release,
            self.service,
        ]
        .iter()
        .all(|maker| *maker != Maker::Demo)
    }
}

/// A kubectl for the demo's namespace on the current cluster.
pub fn kubectl<const N: usize>(args: [&str; N]) -> Command {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["-n", NAMESPACE]).args(args);
    kubectl
}

fn object(kind: &str, name: &str) -> anyhow::Result<Maker> {
    let out = sh::output(&mut kubectl([
        "get",
        kind,
        name,
        "--ignore-not-found",
        "-o",
        "json",
    ]))?;
    if out.trim().is_empty() {
        return Ok(Maker::Nobody);
    }
    let object: Value = serde_json::from_str(&out)?;
    Ok(maker(&object["metadata"]["annotations"]))
}

fn release() -> anyhow::Result<Maker> {
    let mut helm = Command::new("helm");
    helm.args(["get", "values", RELEASE, "--namespace", OPERATOR_NAMESPACE])
        .args(["-o", "json"]);
    match sh::output(&mut helm) {
        Ok(values) => {
            let values: Value = serde_json::from_str(&values)?;
            Ok(maker(&values["podAnnotations"]))
        }
        Err(error) if format!("{error:#}").contains("release: not found") => Ok(Maker::Nobody),
        Err(error) => Err(error),
    }
}

fn maker(annotations: &Value) -> Maker {
    match annotations[MARK] == "true" {
        true => Maker::Demo,
        false => Maker::Other,
    }
}

/// What is in a namespace beside the demo's objects, of kinds that run or keep something: it would go
/// with the namespace.
///
/// # Errors
/// If the cluster can't be asked.
pub fn guests(namespace: &str, definition: Maker) -> anyhow::Result<Vec<String>> {
    let kinds = match definition {
        Maker::Nobody => "pods,persistentvolumeclaims",
        _ => "pods,persistentvolumeclaims,mediaservices",
    };
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["-n", namespace, "get", kinds, "-o", "name"]);
    let out = sh::output(&mut kubectl)?;
    Ok(out.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOTHING: Found = Found {
        namespace: Maker::Nobody,
        operator_namespace: Maker::Nobody,
        definition: Maker::Nobody,
        release: Maker::Nobody,
        service: Maker::Nobody,
    };

    #[test]
    fn only_what_carries_the_mark_is_the_demos() {
        assert_eq!(maker(&json!({ MARK: "true" })), Maker::Demo);
        assert_eq!(maker(&json!({ "team": "video" })), Maker::Other);
        assert_eq!(maker(&Value::Null), Maker::Other);
    }

    #[test]
    fn helm_hands_the_mark_to_the_release_and_its_pods() {
        assert_eq!(RELEASE_MARK, format!("podAnnotations.{MARK}=true"));
    }

    #[test]
    fn a_release_or_a_service_of_somebody_else_is_refused_and_a_namespace_is_used() {
        for (release, service, word) in [
            (
                Maker::Other,
                Maker::Nobody,
                "release mediaservice-operator in the namespace mediaservice-system",
            ),
            (
                Maker::Nobody,
                Maker::Other,
                "MediaService cam in the namespace media",
            ),
        ] {
            let found = Found {
                release,
                service,
                ..NOTHING
            };
            let error = found.refuse().expect_err("it is another's").to_string();
            assert!(error.starts_with("nothing was touched"), "{error}");
            assert!(error.contains(word) && error.contains("fix: "), "{error}");
        }
        let found = Found {
            namespace: Maker::Other,
            release: Maker::Demo,
            service: Maker::Demo,
            ..NOTHING
        };
        found.refuse().expect("the demo's own can be made again");
        assert_eq!(found.others(), ["the namespace media"]);
        assert!(!found.is_nothing() && NOTHING.is_nothing());
    }
}
