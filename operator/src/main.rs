//! The operator's program: flags and sub-commands.
#![forbid(unsafe_code)]

mod crd;

use clap::{Parser, Subcommand};

/// Runs MediaServices on Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition
    Crd,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Crd => print!("{}", serde_yaml::to_string(&crd::definition())?),
    }
    Ok(())
}
