//! Each exposure with a client outside the pod network: what answers advertise is what it uses, and media
//! goes both ways.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use client::synthetic::FrameSource;
use client::{Codec, Http, HttpOptions, Options, PacketSink, Publisher, Transport, Viewer};
use serde_json::{Value, json};
use tests::balancer::gives;
use tests::{Kubectl, wait_for};

use crate::service::{NAME, START, Service, node, node_v6};

const SOON: Duration = Duration::from_secs(60);
/// From a change of the cluster to the answers of a pod: the operator, the kubelet's volume, the server.
const RELOADED: Duration = Duration::from_secs(90);
const FRAMES: usize = 50;
const CODEC: Codec = Codec::Vp8;

#[tokio::test(flavor = "multi_thread")]
async fn host_port() {
    let service = applied("e2e-host-port", &json!({"exposure": "HostPort"}));
    let address = node();
    streams(&service, &[&address], 8443, 8443).await;

    // The same node by its other family, which the kubelet does not tell here.
    let patch = json!({"spec": {"media": {"externalAddresses": [node_v6()]}}});
    service
        .kubectl
        .merge(&["mediaservice", NAME], &patch.to_string())
        .expect("the spec can be changed");
    let v6 = [format!("[{}]:8443", node_v6())];
    streams_to(&service, &v6, &v6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_network() {
    let media = json!({"exposure": "HostNetwork", "port": 9443});
    let service = applied("e2e-host-network", &media);
    let address = node();
    streams(&service, &[&address], 9443, 9443).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_port() {
    let media = json!({"exposure": "NodePort", "nodePort": 30001});
    let service = restricted("e2e-node-port", &media);
    let address = node();
    streams(&service, &[&address], 30001, 30001).await;
}

/// The test is the cloud: it writes names and addresses into the status of the Services, and routes the
/// addresses to the node. UDP and TCP get different ones, as many clouds do.
#[tokio::test(flavor = "multi_thread")]
async fn load_balancer() {
    const FIRST: &str = "198.18.2.10";
    const SECOND: &str = "198.18.2.11";
    const TCP: &str = "198.18.2.12";
    const UDP_V6: &str = "fd00:198:18:2::10";
    const TCP_V6: &str = "fd00:198:18:2::12";
    let routes = [FIRST, SECOND, TCP, UDP_V6, TCP_V6].map(Route::to_node);
    let families = json!({"ipFamilyPolicy": "RequireDualStack"});
    let media = json!({"tcp": {"port": 443}, "loadBalancer": families});
    let service = restricted("e2e-load-balancer", &media);
    let addresses_are = async |reason: &str| {
        wait_for(&format!("{reason} to be told"), START, || async {
            let condition = condition(&service.kubectl, "AddressesReady")?;
            ensure!(condition["reason"] == reason, "{condition}");
            Ok(())
        })
        .await;
    };
    addresses_are("LoadBalancerPending").await;

    // A cloud that gives names makes them a while before they resolve.
    let names = ["udp", "tcp"].map(|name| format!("{name}.e2e-load-balancer.svc.cluster.local"));
    gives(
        &service.kubectl,
        "cam-media-udp",
        &json!({"hostname": names[0]}),
    )
    .await;
    gives(
        &service.kubectl,
        "cam-media-tcp",
        &json!({"hostname": names[1]}),
    )
    .await;
    addresses_are("NameUnresolvable").await;
    // What has a name is known by it alone to the nodes: it sends to a port of theirs.
    let forwards = [
        Forward::to_node_port(&service.kubectl, "cam-media-udp", FIRST),
        Forward::to_node_port(&service.kubectl, "cam-media-tcp", TCP),
    ];
    assert_eq!(name_in_cluster(&service.kubectl, "udp", FIRST), names[0]);
    assert_eq!(name_in_cluster(&service.kubectl, "tcp", TCP), names[1]);
    service.ready().await;
    let told = [
        format!("{}:8443/udp", names[0]),
        format!("{}:443/tcp", names[1]),
    ];
    wait_for("the status to tell both", SOON, || async {
        let found = told_addresses(&service.kubectl);
        ensure!(found == told, "{found:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let udp = format!("{FIRST}:8443");
    let tcp = format!("{TCP}:443");
    streams_to(&service, &[udp], std::slice::from_ref(&tcp)).await;

    // Other addresses reach new sessions, and the pod stays.
    let before = pod_uid(&service.kubectl);
    gives(&service.kubectl, "cam-media-udp", &json!({"ip": SECOND})).await;
    let udp = format!("{SECOND}:8443");
    streams_to(&service, &[udp], &[tcp]).await;
    gives(&service.kubectl, "cam-media-udp", &json!({"ip": UDP_V6})).await;
    gives(&service.kubectl, "cam-media-tcp", &json!({"ip": TCP_V6})).await;
    let udp = format!("[{UDP_V6}]:8443");
    let tcp = format!("[{TCP_V6}]:443");
    streams_to(&service, &[udp], &[tcp]).await;
    assert_eq!(pod_uid(&service.kubectl), before, "the same pod");
    drop((forwards, routes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_resolved_by_the_pod_and_clients_get_its_address() {
    let address = node();
    let name = "outside.e2e-name.svc.cluster.local";
    let media = json!({"exposure": "HostPort", "externalAddresses": [name]});
    let service = applied("e2e-name", &media);
    wait_for("the name to be told", START, || async {
        let condition = condition(&service.kubectl, "AddressesReady")?;
        ensure!(condition["reason"] == "NameUnresolvable", "{condition}");
        Ok(())
    })
    .await;
    assert_eq!(name_in_cluster(&service.kubectl, "outside", &address), name);
    service.ready().await;
    streams(&service, &[&address], 8443, 8443).await;
}

fn applied(namespace: &str, media: &Value) -> Service {
    let patch = json!({"spec": {"media": with_exposure(media)}});
    Service::apply(namespace, Some(&patch.to_string()))
}

/// The same in a namespace that refuses every pod which asks for more than the level `restricted`.
fn restricted(namespace: &str, media: &Value) -> Service {
    let patch = json!({"spec": {"media": with_exposure(media)}});
    Service::apply_in(namespace, Some(&patch.to_string()), &|kubectl| {
        let label = "pod-security.kubernetes.io/enforce=restricted";
        kubectl
            .run(&["label", "namespace", namespace, label])
            .expect("the namespace can be labelled");
    })
}

/// The example that is patched has one of its own.
fn with_exposure(media: &Value) -> Value {
    let mut media = media.clone();
    if media.get("exposure").is_none() {
        media["exposure"] = Value::Null;
    }
    media
}

/// Publishes and views over UDP and over TCP, once answers have exactly these addresses.
async fn streams(service: &Service, ips: &[&str], udp: u16, tcp: u16) {
    service.ready().await;
    let of = |port: u16| -> Vec<String> { ips.iter().map(|ip| format!("{ip}:{port}")).collect() };
    streams_to(service, &of(udp), &of(tcp)).await;
}

async fn streams_to(service: &Service, udp: &[String], tcp: &[String]) {
    let wanted = (udp.to_vec(), tcp.to_vec());
    wait_for(&format!("answers with {wanted:?}"), RELOADED, || async {
        let probe = publish(service, "probe", toward(udp, Transport::Udp)).await?;
        let found = candidates(probe.answer());
        probe.close().await?;
        ensure!(found == wanted, "{found:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    for transport in [Transport::Udp, Transport::Tcp] {
        let device = match transport {
            Transport::Udp => "over-udp",
            Transport::Tcp => "over-tcp",
        };
        let options = toward(udp, transport);
        let publisher = publish(service, device, options.clone())
            .await
            .unwrap_or_else(|error| panic!("{device} cannot publish: {error:#}"));
        // It was connected by these alone: a client sends to no address that the answer has not.
        assert_eq!(candidates(publisher.answer()), wanted, "{device}");
        let viewer = view(service, device, &options).await;
        assert_eq!(candidates(viewer.answer()), wanted, "{device}");
        let sent = send(&publisher).await;
        wait_for(&format!("all packets of {device}"), SOON, || async {
            let got = viewer.packets();
            ensure!(got >= sent, "{got} of {sent}, {:?}", viewer.reception());
            Ok::<_, anyhow::Error>(())
        })
        .await;
        viewer.close().await.expect("the session ends");
        publisher.close().await.expect("the session ends");
    }
}

async fn publish(service: &Service, device: &str, options: Options) -> anyhow::Result<Publisher> {
    let url = format!("{}/whip/{device}", signalling(&service.kubectl)?);
    let http = http(service, device)?;
    Ok(Publisher::connect(&url, &http, &options, &[CODEC]).await?)
}

async fn view(service: &Service, device: &str, options: &Options) -> Viewer {
    wait_for(&format!("{device} to be watched"), SOON, || async {
        let url = format!("{}/whep/{device}", signalling(&service.kubectl)?);
        let sink: Option<Arc<dyn PacketSink>> = None;
        let http = http(service, device)?;
        anyhow::Ok(Viewer::connect(&url, &http, options, &[CODEC], sink).await?)
    })
    .await
}

pub fn over(transport: Transport) -> Options {
    Options {
        transport,
        ..Options::default()
    }
}

/// A client of the family of those addresses: by itself it takes that of the signalling's.
fn toward(addresses: &[String], transport: Transport) -> Options {
    let v6 = addresses.iter().all(|address| address.starts_with('['));
    Options {
        bind: v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ..over(transport)
    }
}

pub fn http(service: &Service, device: &str) -> anyhow::Result<Http> {
    let token = Some(service.token(device));
    Ok(Http::new(&HttpOptions {
        token,
        ..HttpOptions::default()
    })?)
}

/// Sends frames, the first a keyframe; returns how many packets.
async fn send(publisher: &Publisher) -> u64 {
    let track = publisher.track(CODEC).expect("it has one");
    let mut source = FrameSource::new(CODEC, 3, 700, 1);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut sent = 0;
    for index in 0..FRAMES {
        tick.tick().await;
        let payloads = source.frame(index == 0);
        let last = payloads.len() - 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            let timestamp = CODEC.clock_rate() / 50 * index as u32;
            track
                .send(timestamp, position == last, payload)
                .await
                .expect("a connected session takes media");
            sent += 1;
        }
    }
    sent
}

/// Where media goes over UDP, and over TCP.
pub type Candidates = (Vec<String>, Vec<String>);

/// Addresses of an answer's candidates: UDP, and TCP passive, each once.
pub fn candidates(answer: &str) -> Candidates {
    let mut found = (Vec::new(), Vec::new());
    for line in answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = match words[4].contains(':') {
            true => format!("[{}]:{}", words[4], words[5]),
            false => format!("{}:{}", words[4], words[5]),
        };
        let list = match words[2].to_ascii_lowercase().as_str() {
            "udp" => &mut found.0,
            _ => &mut found.1,
        };
        if !list.contains(&address) {
            list.push(address);
        }
    }
    found
}

/// Base URL of the Service, which the outside network routes to the node.
pub fn signalling(kubectl: &Kubectl) -> anyhow::Result<String> {
    let service = kubectl.get(&["service", NAME])?;
    match service["spec"]["clusterIP"].as_str() {
        Some(ip) => Ok(format!("http://{ip}")),
        None => bail!("{service}"),
    }
}

/// That condition, of the present spec.
pub fn condition(kubectl: &Kubectl, kind: &str) -> anyhow::Result<Value> {
    let resource = kubectl.get(&["mediaservice", NAME])?;
    let status = &resource["status"];
    ensure!(
        status["observedGeneration"] == resource["metadata"]["generation"],
        "{status}"
    );
    let conditions = status["conditions"].as_array().into_iter().flatten();
    match conditions.into_iter().find(|found| found["type"] == kind) {
        Some(found) => Ok(found.clone()),
        None => bail!("{status}"),
    }
}

pub fn told_addresses(kubectl: &Kubectl) -> Vec<String> {
    let resource = kubectl.get(&["mediaservice", NAME]).expect("it is there");
    serde_json::from_value(resource["status"]["addresses"]["media"].clone()).expect("a list")
}

pub fn pod_uid(kubectl: &Kubectl) -> Value {
    let pod = kubectl.get(&["pod", "cam-0"]).expect("it is there");
    pod["metadata"]["uid"].clone()
}

/// Makes a name of the cluster's DNS that stands for `ip`.
fn name_in_cluster(kubectl: &Kubectl, name: &str, ip: &str) -> String {
    let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": "None", "ports": [{"name": "media", "port": 443}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "media", "port": 443}],
            "endpoints": [{"addresses": [ip]}],
        },
    ]});
    kubectl
        .apply(&manifest.to_string())
        .expect("the name can be made");
    format!("{name}.{}.svc.cluster.local", kubectl.namespace)
}

/// A route of the outside network to the node, as a load balancer would forward; ends with its value.
struct Route(&'static str);

impl Route {
    fn to_node(address: &'static str) -> Self {
        let node = match address.contains(':') {
            true => node_v6(),
            false => node(),
        };
        run("ip", &["route", "replace", address, "via", &node]).expect("the route can be made");
        Self(address)
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["route", "del", self.0]) {
            eprintln!("{error:#}");
        }
    }
}

/// A load balancer in the outside network that is not known to the nodes by its address; ends with its
/// value.
struct Forward(String);

impl Forward {
    fn to_node_port(kubectl: &Kubectl, service: &str, address: &str) -> Self {
        let found = kubectl.get(&["service", service]).expect("it is there");
        let port = &found["spec"]["ports"][0];
        let (number, node_port) = (&port["port"], &port["nodePort"]);
        let protocol = port["protocol"].as_str().expect("it has a protocol");
        let protocol = protocol.to_ascii_lowercase();
        let (table, node) = (service.to_owned(), node());
        let rules = format!(
            "table ip {table} {{ chain out {{ type nat hook output priority -100; \
             ip daddr {address} {protocol} dport {number} dnat to {node}:{node_port}; }}; }}"
        );
        run("nft", &[&rules]).expect("the rule can be made");
        Self(table)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Err(error) = run("nft", &["delete", "table", "ip", &self.0]) {
            eprintln!("{error:#}");
        }
    }
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output()?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
