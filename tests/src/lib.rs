//! What the tests of whole programs share: starting them, asking them, waiting for them, and ending them.
//!
//! Owns processes and temporary folders for as long as a test runs. Knows no behaviour of the product
//! beyond its flags and paths; what is right is for the tests to say. Used by every test binary here.

#![forbid(unsafe_code)]

pub mod alerts;
pub mod audit;
pub mod balancer;
pub mod browser;
pub mod camera;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod connections;
pub mod demo;
pub mod device;
pub mod ffmpeg;
pub mod https;
pub mod kubectl;
pub mod link;
pub mod metrics;
pub mod namespace;
pub mod operator;
pub mod page;
pub mod process;
pub mod prometheus;
pub mod rabbit;
pub mod recordings;
pub mod scraping;
pub mod server;
pub mod site;
pub mod truth;
pub mod turn;
pub mod wait;
pub mod webhook;

pub use browser::Browser;
pub use clock::SetClock;
pub use collector::Collector;
pub use connections::Connections;
pub use https::Https;
pub use kubectl::Kubectl;
pub use link::Link;
pub use metrics::Metrics;
pub use namespace::Namespace;
pub use page::Page;
pub use prometheus::Prometheus;
pub use server::MediaServer;
pub use site::Site;
pub use wait::wait_for;
