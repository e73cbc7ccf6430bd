//! `operator render`: every child of the MediaServices in a file, without a cluster.
//!
//! Runs the same validate and build as the controller. The output can be applied by hand, but then
//! nobody fills in the addresses and replaces pods.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::controller::{apply, build_offline, offline};
use crate::crd::MediaService;

/// The children as YAML documents, in the order in which they would be applied.
///
/// # Errors
/// If the file can't be read, holds no MediaService, or one that can't be built.
pub fn render(
    file: &Path,
    default_image: &str,
    operator_namespace: &str,
) -> anyhow::Result<String> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("can't read standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?
    };
    let mut out = String::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = serde_yaml::Value::deserialize(document).context("not YAML")?;
        if value.get("kind").and_then(|kind| kind.as_str()) != Some("MediaService") {
            continue;
        }
        let service: MediaService = serde_yaml::from_value(value).context("not a MediaService")?;
        out.push_str(&documents(service, default_image, operator_namespace)?);
    }
    anyhow::ensure!(
        !out.is_empty(),
        "{} holds no object of kind MediaService",
        file.display()
    );
    Ok(out)
}

fn documents(
    service: MediaService,
    default_image: &str,
    operator_namespace: &str,
) -> anyhow::Result<String> {
    let mut fetched = offline(service, default_image.to_owned());
    // It may ask pods what they carry, whoever else may not.
    operator_namespace.clone_into(&mut fetched.operator_namespace);
    let (_, mut children) = build_offline(&fetched)?;
    if let Some(secret) = children.generated_secret.take() {
        let filled = apply::fill_secret(secret).context("no random bytes")?;
        children.generated_secret = Some(filled);
    }
    let mut out = String::new();
    for document in children.documents() {
        out.push_str("---\n");
        out.push_str(&serde_yaml::to_string(&document)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_examples_render_to_every_kind_of_child() {
        for example in ["minimal.yaml", "full.yaml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../crds/examples")
                .join(example);
            let out = render(&path, "media-server:test", "ops").unwrap();
            for kind in [
                "ConfigMap",
                "Service",
                "StatefulSet",
                "Ingress",
                "ServiceMonitor",
                "PrometheusRule",
            ] {
                assert!(
                    out.contains(&format!("\nkind: {kind}\n")),
                    "{example} has no {kind}"
                );
            }
        }
    }
}
