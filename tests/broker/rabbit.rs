//! A RabbitMQ of its own, as Debian packages it, and what it got.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use tests::process::Process;
use tests::wait_for;

/// The program itself; what is on `PATH` asks to be another user first.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const QUEUE: &str = "test";
const PORT: u16 = 5672;
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Erlang on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// Ends with its value, with all that it has started.
pub struct Rabbit {
    process: Process,
}

/// An event as the broker gave it.
pub struct Got {
    pub key: String,
    pub id: String,
    pub persistent: bool,
    pub body: Value,
}

impl Rabbit {
    /// Starts it with what an earlier one left in the folder. The port is always the same: the network is the test's own.
    pub async fn start(dir: &Path) -> Self {
        let at = |name: &str| -> PathBuf { dir.join(name) };
        let mut command = Command::new("unshare");
        // It leaves a daemon behind, which goes with the first process of its own list of processes.
        command.args(["--pid", "--fork", "--kill-child", "--", PROGRAM]);
        command
            .env("HOME", dir)
            .env("RABBITMQ_CONF_ENV_FILE", at("none"))
            .env("RABBITMQ_CONFIG_FILE", at("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_NODENAME", "test@localhost")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", PORT.to_string())
            .process_group(0);
        let mut process = Process::start("rabbitmq", &mut command);
        let url = url();
        wait_for("the broker to start", STARTS_WITHIN, || {
            assert!(process.ended().is_none(), "it ended: {}", process.log());
            let url = url.clone();
            // One that is starting takes a connection and says nothing.
            async move {
                let connected = tokio::time::timeout(ANSWERS_WITHIN, connect(&url)).await;
                match connected {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("no answer".to_owned()),
                }
            }
        })
        .await;
        Self { process }
    }

    pub fn url(&self) -> String {
        url()
    }

    /// A signal to it and all that it has started.
    pub fn signal(&self, signal: &str) {
        let group = format!("-{}", self.process.pid());
        let kill = Command::new("kill")
            .args(["-s", signal, "--", &group])
            .status();
        assert!(kill.is_ok_and(|status| status.success()), "{signal}");
    }

    /// Ends it, as a machine that is restarted would.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        wait_for("the broker to end", STARTS_WITHIN, || {
            let ended = self.process.ended();
            async move { ended.ok_or("it runs") }
        })
        .await;
    }

    /// Has it keep every event of the server, which may come after this.
    pub async fn bind(&self) {
        let (_connection, channel) = connect(&url()).await.expect("a channel");
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (exchange, none) = ("cloudphone.events", FieldTable::default);
        let declared =
            channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none());
        declared.await.expect("an exchange");
        let durable = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(QUEUE.into(), durable, none());
        declared.await.expect("a queue");
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(
            QUEUE.into(),
            exchange.into(),
            "media.#".into(),
            options,
            none(),
        );
        bound.await.expect("a binding");
    }

    /// Everything that it has got since the last time, in order.
    pub async fn take(&self) -> Vec<Got> {
        let (_connection, channel) = connect(&url()).await.expect("a channel");
        let mut got = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel
            .basic_get(QUEUE.into(), options)
            .await
            .expect("an answer")
        {
            let properties = &message.properties;
            got.push(Got {
                key: message.routing_key.to_string(),
                id: properties.message_id().as_ref().expect("an id").to_string(),
                persistent: *properties.delivery_mode() == Some(2),
                body: serde_json::from_slice(&message.data).expect("JSON"),
            });
        }
        got
    }
}

fn url() -> String {
    format!("amqp://guest:guest@127.0.0.1:{PORT}/%2f")
}

async fn connect(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
