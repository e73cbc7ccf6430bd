//! The metric catalogue: every family's name, kind, unit, labels and meaning, once.
//!
//! The server and the operator register from it, rules and dashboards are checked against it, and
//! `docs/metrics.md` is written from it. No I/O, no async.
#![forbid(unsafe_code)]

pub mod absent;
pub mod dashboard;
#[cfg(test)]
mod expr;
pub mod families;
pub mod operator;
pub mod rules;
pub mod samples;
