//! What clouds and missing rights do to the ways in which media reaches a pod.

use super::*;
use kube::runtime::reflector;

const UDP: &str = "/api/v1/namespaces/media/services/cam-media-udp";

/// A MediaService behind load balancers of that class.
fn behind(class: &str) -> FakeCluster {
    cluster(
        json!({"media": {"exposure": "LoadBalancer", "externalAddresses": ["203.0.113.1"],
        "loadBalancer": {"class": class}}}),
    )
}

fn set_class(fake: &FakeCluster, class: &str) {
    fake.edit(SERVICE, |service| {
        service["spec"]["media"]["loadBalancer"]["class"] = class.into()
    });
}

/// Waits until the Service has this class, or none.
async fn has_class(fake: &FakeCluster, class: Value) {
    let what = format!("class {class}");
    eventually(&what, PATIENCE, || match fake.get(UDP) {
        service if service.is_object() && service["spec"]["loadBalancerClass"] == class => Ok(()),
        service => Err(service.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_class_that_a_webhook_gives_to_new_services_stays_and_one_of_ours_is_taken_back() {
    let fake = behind("");
    let of_webhook = json!({"spec": {"loadBalancerClass": "service.k8s.aws/nlb"}});
    fake.add_to_new("/api/v1/namespaces/media/services/cam-media-", of_webhook);
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let uid = fake.get(UDP)["metadata"]["uid"].clone();
    let before = writes(&fake);
    operator.look(3).await;
    assert_eq!(writes(&fake), before);

    set_class(&fake, "example.com/ours");
    has_class(&fake, json!("example.com/ours")).await;
    assert_ne!(fake.get(UDP)["metadata"]["uid"], uid, "it was made anew");
    set_class(&fake, "");
    has_class(&fake, json!("service.k8s.aws/nlb")).await;
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn while_a_cloud_cleans_up_behind_the_old_service_all_else_is_applied() {
    let fake = behind("example.com/old");
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    fake.edit(UDP, |service| {
        service["metadata"]["finalizers"] = json!(["service.kubernetes.io/load-balancer-cleanup"]);
    });
    fake.edit(SERVICE, |service| {
        service["spec"]["media"]["loadBalancer"]["class"] = "example.com/new".into();
        service["spec"]["signalling"] = json!({"ingress": {"host": "media.example.com"}});
    });
    let ingress = "/apis/networking.k8s.io/v1/namespaces/media/ingresses/cam";
    eventually(
        "the Ingress, which is applied later",
        PATIENCE,
        || match fake.get(ingress) {
            Value::Null => Err(fake.get(SERVICE)["status"].to_string()),
            _ => Ok(()),
        },
    )
    .await;
    operator.look(2).await;
    let old = fake.get(UDP);
    assert!(old["metadata"]["deletionTimestamp"].is_string(), "{old}");
    assert_eq!(condition(&fake, SERVICE, "Degraded").1, "AsExpected");
    // Its load balancer is gone now.
    fake.edit(UDP, |service| service["metadata"]["finalizers"] = json!([]));
    has_class(&fake, json!("example.com/new")).await;
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn only_who_tells_clients_of_nodes_waits_for_the_right_to_read_them() {
    let fake = cluster(json!({"media": {"exposure": "LoadBalancer"}}));
    // A watch that is refused never fills the cache.
    let (nodes, _writer) = reflector::store::<Node>();
    let operator = Operator::reading(&fake, fake.client(), Loads::at(1), Some(nodes)).await;
    becomes(&fake, "AddressesReady", "False", "LoadBalancerPending").await;
    fake.edit(UDP, |service| {
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    });
    settled(&fake).await;
    fake.edit(SERVICE, |service| {
        service["spec"]["media"] =
            json!({"exposure": "NodePort", "externalAddresses": ["203.0.113.2"]});
    });
    becomes(&fake, "AddressesReady", "True", "Given").await;
    let none_failed = "mediaservice_operator_reconciles_total{result=\"error\"} 0";
    let text = String::from_utf8(operator.context.metrics.render()).unwrap();
    assert!(text.contains(none_failed), "{text}");
    operator.stop().await;
}
