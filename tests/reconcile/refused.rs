//! A MediaService that can't be right is refused by the API server, with what would be right.

use serde_json::Value;
use tests::{Kubectl, operator};

use crate::service::{NAME, Service};

#[test]
fn a_media_service_that_can_not_be_right_is_refused_with_what_would_be_right() {
    operator::install();
    let kubectl = Kubectl::new("default");
    let apply = |name: &str, spec: &str| {
        let manifest = format!(
            "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        match kubectl.apply(&manifest) {
            Ok(_) => {
                let _ = kubectl.run(&["delete", "mediaservice", name]);
                panic!("accepted: {spec}");
            }
            Err(error) => error.to_string(),
        }
    };
    let list = include_str!("../data/refused.yaml");
    let list: Vec<Value> = serde_yaml::from_str(list).expect("it is YAML");
    for wrong in &list {
        let message = apply("wrong", &wrong["spec"].to_string());
        let right = wrong["message"].as_str().expect("each has a message");
        assert!(message.contains(right), "{}: {message}", wrong["what"]);
    }
    // The name of an object may start with a digit, that of a Service may not.
    for name in [&"a".repeat(41), "9cam"] {
        let message = apply(name, "{}");
        for right in ["at most 40 characters", "start with a letter"] {
            assert!(message.contains(right), "{name}: {message}");
        }
    }
}

#[test]
fn the_example_with_every_field_is_taken() {
    operator::install();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/examples/full.yaml");
    Kubectl::new("default")
        .run(&["apply", "--dry-run=server", "--filename", example])
        .expect("the API server takes it");
}

#[test]
fn a_second_replica_is_refused_through_kubectl_scale_too() {
    let service = Service::apply(
        "reconcile-scale",
        "{media: {exposure: HostPort}, replicas: 0}",
    );
    let refused = service
        .kubectl
        .run(&["scale", "mediaservice", NAME, "--replicas=2"]);
    let message = refused.expect_err("2 is refused").to_string();
    assert!(
        message.contains("replicas can be 0 or 1 for now"),
        "{message}"
    );
}
