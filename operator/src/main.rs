//! The operator's program: flags, start and stop in order, and the sub-commands for people.
#![forbid(unsafe_code)]

mod bindings;
mod capabilities;
mod check;
mod controller;
mod crd;
mod hash;
mod http;
mod lease;
mod metrics;
mod rbac;
mod render;
mod requests;
mod scope;
#[cfg(test)]
mod testing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::capabilities::{Availability, Served};
use crate::controller::{Context, fetch::Reader};

/// Runs MediaServices on Kubernetes. Without a sub-command: the controller.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Args, Clone)]
struct Flags {
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Image for a MediaService without spec.image
    #[arg(long, env = "OPERATOR_MEDIA_IMAGE", default_value = concat!("media-server:", env!("CARGO_PKG_VERSION")), global = true)]
    media_image: String,
    /// Only these namespaces, separated by commas; default all
    #[arg(
        long,
        env = "OPERATOR_WATCH_NAMESPACES",
        value_delimiter = ',',
        global = true
    )]
    watch_namespaces: Vec<String>,
    /// Namespace of the operator, where its Lease is
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", global = true)]
    namespace: String,
    /// Name of this process in the Lease and in events
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pod_name: String,
    /// trace, debug, info, warn, error, or directives as info,operator=debug
    #[arg(long, env = "OPERATOR_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition
    Crd,
    /// Print every object that a MediaService would get, without a cluster
    Render {
        /// File with one or more MediaServices; - for standard input
        #[arg(short, long)]
        file: PathBuf,
    },
    /// Say what the cluster lacks, each with its fix
    Check {
        /// Ask for the rights of this user, such as system:serviceaccount:NAMESPACE:NAME
        #[arg(long = "as")]
        impersonate: Option<String>,
        /// Also require that an operator leads, within 30 s
        #[arg(long)]
        leader: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { command, flags } = Cli::parse();
    match command {
        Some(Command::Crd) => print!("{}", serde_yaml::to_string(&crd::definition())?),
        Some(Command::Render { file }) => print!(
            "{}",
            render::render(&file, &flags.media_image, &flags.namespace)?
        ),
        Some(Command::Check {
            impersonate,
            leader,
        }) => {
            let mut config = kube::Config::infer()
                .await
                .context("no cluster: set KUBECONFIG")?;
            config.auth_info.impersonate = impersonate;
            let client = kube::Client::try_from(config)?;
            let questions = check::Questions {
                own_namespace: &flags.namespace,
                namespaces: &flags.watch_namespaces,
                leader,
            };
            let report = check::check(&client, &questions).await?;
            print!("{}", report.text);
            anyhow::ensure!(
                report.failures == 0,
                "{} things are missing",
                report.failures
            );
        }
        None => operate(flags).await?,
    }
    Ok(())
}

/// Serves health, waits for the Lease, then reconciles until a signal comes or the Lease is lost.
async fn operate(flags: Flags) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_new(&flags.log_level).context("--log-level")?,
        )
        .init();
    let metrics = metrics::Metrics::new();
    let config = kube::Config::infer()
        .await
        .context("no cluster: not in a pod, and no KUBECONFIG")?;
    let client = kube::client::ClientBuilder::try_from(config)?
        .with_layer(&requests::CountRequests(metrics.clone()))
        .build();
    let health = http::Health::new();
    let (stop, mut stopped) = watch::channel(false);
    tokio::spawn(on_signal(stop)?);

    let listener = tokio::net::TcpListener::bind(flags.listen)
        .await
        .with_context(|| format!("--listen {}", flags.listen))?;
    tracing::info!(listen = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "started");
    tokio::spawn(health.clone().watch(client.clone()));
    let mut serving = stopped.clone();
    let server = tokio::spawn(http::serve(listener, health, metrics.clone(), async move {
        let _ = serving.wait_for(|stop| *stop).await;
    }));

    let contender = lease::Contender::new(
        client.clone(),
        &flags.namespace,
        &flags.pod_name,
        lease::TIMINGS,
    );
    let mut held = tokio::select! {
        held = contender.acquire() => held,
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    metrics.leader.set(1);
    let controller = tokio::spawn(run_controller(
        contender.fence().around(client),
        metrics.clone(),
        flags,
        stopped.clone(),
    ));
    tokio::select! {
        why = contender.renew(&mut held) => {
            // Whatever is under way may only happen under the Lease: end at once.
            tracing::error!(why, "leadership lost");
            std::process::exit(1);
        }
        ended = controller => ended.context("the controller panicked")?,
    }
    metrics.leader.set(0);
    contender.release(held).await;
    server
        .await
        .context("the server panicked")?
        .context("can't serve")?;
    Ok(())
}

async fn run_controller(
    client: kube::Client,
    metrics: metrics::Metrics,
    flags: Flags,
    stop: watch::Receiver<bool>,
) {
    // The first answer decides which watches are opened, so it is waited for.
    let unknown = Served::all(Availability::Unknown);
    let (sender, served) = watch::channel(capabilities::discover_all(&client, unknown).await);
    if served.borrow().is_unclear() {
        tracing::warn!(
            "starting without optional APIs, until the API server says whether it serves them"
        );
    }
    let doubt = Arc::new(Notify::new());
    tokio::spawn(capabilities::watch(client.clone(), sender, doubt.clone()));
    let nodes = flags.watch_namespaces.is_empty().then(|| {
        let (reader, writer) = reflector::store::<Node>();
        tokio::spawn(controller::nodes::cache(
            client.clone(),
            writer,
            metrics.clone(),
        ));
        reader
    });
    let reporter = Reporter {
        controller: apply_manager(),
        instance: Some(flags.pod_name),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let reader = Reader {
        client,
        nodes,
        default_image: flags.media_image,
        namespace: flags.namespace,
    };
    let context = Context::new(reader, metrics, recorder, served, doubt);
    controller::run(Arc::new(context), &flags.watch_namespaces, stop).await;
}

fn apply_manager() -> String {
    controller::apply::FIELD_MANAGER.to_owned()
}

fn on_signal(stop: watch::Sender<bool>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stop.send(true);
        // Kept, so that receivers see the value and not a closed channel.
        stop.closed().await;
    })
}
