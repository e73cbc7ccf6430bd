//! What the operator makes of the addresses of a Node. Nobody runs this one: the kubelets of the local cluster
//! tell IPv4 alone, and another may tell anything.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{Kubectl, wait_for};

use crate::service::{NAME, START, Service};
use crate::turn;

const NODE: &str = "tells-ipv6";
/// Keeps all other pods away.
const TAINT: &str = "example.com/tells-ipv6";

struct Node<'a>(&'a Kubectl);

impl<'a> Node<'a> {
    fn create(kubectl: &'a Kubectl) -> Self {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
            "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]},
        });
        kubectl.apply(&manifest.to_string()).expect("it is new");
        Self(kubectl)
    }

    fn tells(&self, addresses: &Value) {
        let room = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
        let status = json!({"capacity": room, "allocatable": room, "addresses": addresses});
        let patch = json!({"status": status}).to_string();
        let target = ["node", NODE, "--subresource=status"];
        self.0.merge(&target, &patch).expect("it can be written");
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let force = ["delete", "pod", "cam-0", "--force", "--grace-period=0"];
        for args in [&["delete", "node", NODE][..], &force] {
            if let Err(error) = self.0.run(args) {
                eprintln!("{error:#}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_tells_ipv6_has_it_in_brackets_where_pods_look_and_in_the_status() {
    // Each service with a port of its node has a line for each node.
    let _turn = turn::alone();
    let pod = json!({
        "nodeSelector": {"kubernetes.io/hostname": NODE}, "tolerations": [{"operator": "Exists"}],
    });
    let spec = json!({"media": {"exposure": "HostPort"}, "pod": pod});
    let service = Service::apply("reconcile-node", &spec.to_string());
    let node = Node::create(&service.kubectl);
    let internal = json!({"type": "InternalIP", "address": "2001:db8::11"});
    let external = json!({"type": "ExternalIP", "address": "2001:db8:1::11"});
    let port = service.port;
    for (addresses, ip) in [
        (json!([internal]), "2001:db8::11"),
        (json!([internal, external]), "2001:db8:1::11"),
    ] {
        node.tells(&addresses);
        wait_for(&format!("{ip} to be told"), START, || async {
            let status = service.kubectl.get(&["mediaservice", NAME])?["status"].clone();
            let told = &status["addresses"]["media"];
            let clients = [format!("[{ip}]:{port}/udp"), format!("[{ip}]:{port}/tcp")];
            ensure!(*told == json!(clients), "{status}");
            let table = service.kubectl.get(&["configmap", "cam-addresses"])?;
            let table = table["data"]["addresses.json"].as_str();
            let table: Value = serde_json::from_str(table.context("a table")?)?;
            let line = [format!("[{ip}]:{port}"), format!("[{ip}]:{port}/tcp")];
            ensure!(table["nodes"][NODE] == json!(line), "{table}");
            Ok::<_, anyhow::Error>(())
        })
        .await;
    }
    service.reason("AddressesReady", "True", "Discovered").await;
}
