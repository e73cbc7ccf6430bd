//! The commands of the repository: `cargo xtask <command>`.
//!
//! Owns the command line and nothing else; each command is a module. Called by people and by
//! `.ci/run`. Never part of a program that is shipped.
#![forbid(unsafe_code)]

mod bench;
mod clients;
mod cluster;
mod conformance;
mod demo;
mod fuzz;
mod r#gen;
mod image;
mod sh;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The commands of the repository"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The gate: every check and every test, with what each stage took
    Test(test::Args),
    /// Write everything generated: CRDs, the chart's copy, reference pages
    Gen(r#gen::Args),
    /// The local Kubernetes cluster
    Cluster(cluster::Args),
    /// Build the two images, without a registry or a daemon
    Image(image::Args),
    /// A whole cluster on this machine, with a live picture to watch
    Demo(demo::Args),
    /// The WHIP and WHEP checklist against any server, as a table
    Conformance(conformance::Args),
    /// WHIP and WHEP clients that other people wrote, against this server
    Clients(clients::Args),
    /// Random and mutated bytes for every parser that the network reaches
    Fuzz(fuzz::Args),
    /// Carries ports of this machine into the local cluster; started by the demo
    #[command(hide = true)]
    Forward(demo::forward::Args),
    /// Ours and other servers under the same loads, with ratios; instruction counts of the fast path
    Bench(bench::Args),
    /// Viewers that come and go for half an hour under loss; memory, sessions and metrics after it
    Soak(soak::Args),
    /// Check the tree: file heads and lengths, dependency directions, licences, machine paths
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(args),
        Command::Gen(args) => r#gen::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Image(args) => image::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Conformance(args) => conformance::run(args),
        Command::Clients(args) => clients::run(args),
        Command::Soak(args) => soak::run(&args),
        Command::Fuzz(args) => fuzz::run(args),
        Command::Forward(args) => demo::forward::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
