//! The whole thread on a real cluster: kubectl, operator, pod, Ingress, browsers, Prometheus.
//!
//! Runs in the cluster's outside network with `KUBECONFIG` set, both images loaded, an ingress
//! controller on the node's ports 80 and 443, and a Prometheus that selects by
//! `release: kube-prometheus-stack`. `NODE_ADDRESS`, `NODE_ADDRESS_V6` and
//! `PROMETHEUS_URL` say where those are.
//! Tests share the node's media port, so they run one after another (`--test-threads=1`). One brings a second
//! node for its time: `CLUSTER_DIR` says whose.

mod exposures;
mod kept;
mod nodes;
mod operator;
mod queries;
mod service;
mod thread;
