//! What a person gets from kubectl alone: describe, get, scale, wait, explain.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::{operator, wait_for};

use crate::metrics::scrape;
use crate::service::{NAME, START, Service};
use crate::turn;

const SOON: Duration = Duration::from_secs(60);
/// A kubelet tells about a pull that fails within a few tries.
const SHOWS: Duration = Duration::from_secs(90);

/// The operator's events about the MediaService: type and reason → resourceVersion and note.
fn events(service: &Service) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let found = service.kubectl.get(&["events.events.k8s.io"])?;
    let mut events = BTreeMap::new();
    for event in found["items"].as_array().into_iter().flatten() {
        if event["reportingController"] != "mediaservice-operator"
            || event["regarding"]["kind"] != "MediaService"
        {
            continue;
        }
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = format!("{} {}", part(&event["type"]), part(&event["reason"]));
        let value = (
            part(&event["metadata"]["resourceVersion"]),
            part(&event["note"]),
        );
        let twice = events.insert(key, value);
        ensure!(twice.is_none(), "two events for one thing: {found}");
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_tells_each_thing_once_by_its_reason_and_nothing_while_nothing_changes() {
    let _turn = turn::alone();
    let service = Service::apply(
        "reconcile-events",
        "{media: {exposure: HostPort}, image: registry.invalid/none:1}",
    );
    let degraded = service.condition("Degraded", "True", SHOWS).await;
    let told = wait_for("an event with the condition's reason", SOON, || async {
        let events = events(&service)?;
        let of_image = events.get("Warning ImagePullFailed");
        ensure!(
            of_image.is_some_and(|(_, note)| degraded["message"].as_str() == Some(note)),
            "{events:?}"
        );
        Ok::<_, anyhow::Error>(events)
    })
    .await;
    assert_eq!(degraded["reason"], "ImagePullFailed");

    // It is looked at every few seconds while it is degraded.
    let reconciled =
        |metrics: tests::Metrics| metrics.sum("mediaservice_operator_reconciles_total", &[]);
    let first = reconciled(scrape().expect("the operator answers"));
    wait_for("five more reconciliations", SOON, || async {
        let now = reconciled(scrape()?);
        ensure!(now >= first + 5.0, "{first}, then {now}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    assert_eq!(events(&service).expect("they can be listed"), told);

    let image = format!("media-server:{}", env!("CARGO_PKG_VERSION"));
    service.patch(&format!(r#"{{"spec":{{"image":"{image}"}}}}"#));
    service.settled().await;
    wait_for("describe to tell the way to the end", SOON, || async {
        let text = service.kubectl.run(&["describe", "mediaservice", NAME])?;
        let events = text.split("\nEvents:").nth(1).unwrap_or_default();
        for words in [
            "ImagePullFailed",
            "ReplacingPod",
            "Accepting",
            "new sessions are taken",
        ] {
            ensure!(events.contains(words), "{words} is not in {events}");
        }
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

/// Columns of the definition: name and whether only `--output=wide` shows it.
fn columns() -> Vec<(String, bool)> {
    let path = operator::root().join("crds/mediaservices.yaml");
    let text = std::fs::read_to_string(path).expect("it is there");
    let definition: Value = serde_yaml::from_str(&text).expect("YAML");
    let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
    let columns = columns.expect("it has columns").iter();
    columns
        .map(|column| {
            let name = column["name"].as_str().expect("a name").to_uppercase();
            (name, column["priority"].as_i64().unwrap_or(0) > 0)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_the_columns_by_long_short_and_category_name() {
    let service = Service::apply(
        "reconcile-columns",
        "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}}",
    );
    service.settled().await;
    let header = |wide: bool| -> Vec<String> {
        let shown = columns()
            .into_iter()
            .filter(|(_, only_wide)| wide || !only_wide);
        ["NAME".to_owned()]
            .into_iter()
            .chain(shown.map(|(name, _)| name))
            .collect()
    };
    for (resource, wide) in [("mediaservices", false), ("msvc", true)] {
        wait_for(&format!("a line of {resource}"), SOON, || async {
            let mut args = vec!["get", resource];
            if wide {
                args.push("--output=wide");
            }
            let text = service.kubectl.run(&args)?;
            let lines: Vec<Vec<&str>> = text
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            ensure!(lines.len() == 2 && lines[0] == header(wide), "{text}");
            // An empty cell shortens the line.
            ensure!(lines[1].len() == lines[0].len(), "{text}");
            ensure!(lines[1][0] == NAME && lines[1][1] == "True", "{text}");
            ensure!(text.contains(&format!(":{}/udp", service.port)), "{text}");
            ensure!(!wide || text.contains("HostPort"), "{text}");
            Ok::<_, anyhow::Error>(())
        })
        .await;
    }
    let all = service.kubectl.run(&["get", "media", "--output=name"]);
    assert_eq!(
        all.expect("a category"),
        "mediaservice.mediaservice.io/cam\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_wait_and_explain_work_as_for_kubernetes_own_kinds() {
    let service = Service::apply(
        "reconcile-kubectl",
        "{media: {exposure: HostPort}, replicas: 0}",
    );
    let run = |args: &[&str]| {
        service
            .kubectl
            .run(args)
            .unwrap_or_else(|error| panic!("{error:#}"))
    };
    run(&[
        "wait",
        "mediaservice",
        NAME,
        "--for=condition=Ready=false",
        "--timeout=60s",
    ]);
    let said = run(&[
        "scale",
        "mediaservice",
        NAME,
        "--current-replicas=0",
        "--replicas=1",
    ]);
    assert!(said.contains("scaled"), "{said}");
    let said = run(&[
        "wait",
        "mediaservice",
        NAME,
        "--for=condition=Ready",
        "--timeout=180s",
    ]);
    assert!(said.contains("condition met"), "{said}");
    wait_for("the scale sub-resource to count the pod", START, || async {
        let scale = service
            .kubectl
            .get(&["mediaservice", NAME, "--subresource=scale"])?;
        let counts = (&scale["spec"]["replicas"], &scale["status"]["replicas"]);
        ensure!(*counts.0 == 1 && *counts.1 == 1, "{scale}");
        let selector = scale["status"]["selector"].as_str().unwrap_or_default();
        let pods =
            service
                .kubectl
                .run(&["get", "pods", "--output=name", "--selector", selector])?;
        ensure!(pods == "pod/cam-0\n", "{selector}: {pods}");
        Ok::<_, anyhow::Error>(())
    })
    .await;

    let path = operator::root().join("crds/mediaservices.yaml");
    let text = std::fs::read_to_string(path).expect("it is there");
    let definition: Value = serde_yaml::from_str(&text).expect("YAML");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for field in schema["properties"]["spec"]["properties"]
        .as_object()
        .expect("fields")
        .keys()
    {
        let text = run(&["explain", &format!("mediaservice.spec.{field}")]);
        assert!(
            text.contains("VERSION:    v1alpha1") && text.contains("DESCRIPTION:"),
            "{text}"
        );
        assert!(!text.contains("<empty>"), "{text}");
    }
    let port = run(&["explain", "mediaservice.spec.media.port"]);
    assert!(port.contains("1-65535"), "{port}");
}
