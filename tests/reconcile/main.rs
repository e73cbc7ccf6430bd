//! The operator against a real control plane: what it restores, what is refused, what it says.
//!
//! Runs on the cluster with `KUBECONFIG` set and both images loaded; installs the chart. Started by
//! the stage `reconcile` of `cargo xtask test`, several tests at a time: `turn.rs` says which.
#![forbid(unsafe_code)]

mod children;
mod conditions;
mod drain;
mod exposures;
mod hpa;
mod kubectl;
mod leader;
mod metrics;
mod monitoring;
mod nodes;
mod optional;
mod refused;
mod render;
mod rights;
mod service;
mod switched_off;
mod turn;
