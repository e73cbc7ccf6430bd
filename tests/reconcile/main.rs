//! The operator against a real control plane: what it restores, what is refused, what it says.
//!
//! Runs on the cluster with `KUBECONFIG` set and both images loaded; installs the chart. Started by
//! the stage `reconcile` of `cargo xtask test`, one test at a time.
#![forbid(unsafe_code)]

mod children;
mod conditions;
mod drain;
mod exposures;
mod leader;
mod monitoring;
mod optional;
mod refused;
mod rights;
mod service;
